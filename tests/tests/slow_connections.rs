//! Connections that are held and ask for nothing: who holds them is named, denied and loses them; whose connections rest because
//! they wait for an answer, or for the next request, does not.

#![expect(clippy::unwrap_used, clippy::panic, reason = "the helpers of tests fail as the tests do: by a panic")]

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use floodwall::detect::{Features, Group, Held, Holder, Open, Usually, Vector, Verdict, detect};
use floodwall_common::packet::Source;
use floodwall_tests::daemon::{Daemon, Place, run_verb, status, wait_for};
use floodwall_tests::topology::{PROTECTED, Topology, WORLD};
use serde_json::Value;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::watch;
use tokio::time::{sleep, timeout};

/// Connections of each who has several.
const EACH: usize = 6;
const SLOW_SOURCES: u8 = 40;

/// Slow connections by which somebody is woken: fewer may be left of who came a moment later than others.
const WAKES: usize = 50;

/// What the test tells servers and clients.
#[derive(Clone, Copy, PartialEq, PartialOrd)]
enum Phase {
    Quiet,
    Attack,
    Answers,
    Over,
    Gone,
}

/// Answers `now` at once and `wait` when it is told to.
async fn serve(address: SocketAddr, phase: watch::Receiver<Phase>) {
    let listener = TcpListener::bind(address).await.unwrap();
    loop {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut phase = phase.clone();
        tokio::spawn(async move {
            let mut word = [0; 4];
            while stream.read_exact(&mut word).await.is_ok() {
                if &word == b"wait" {
                    let _ = phase.wait_for(|phase| *phase >= Phase::Answers).await;
                }
                stream.write_all(b"yes").await.unwrap_or_default();
            }
        });
    }
}

async fn connect(source: IpAddr, server: SocketAddr) -> TcpStream {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind((source, 0).into()).unwrap();
    socket.connect(server).await.unwrap()
}

async fn is_answered(stream: &mut TcpStream) -> bool {
    matches!(timeout(Duration::from_secs(5), stream.read_exact(&mut [0; 3])).await, Ok(Ok(_)))
}

async fn asks(stream: &mut TcpStream) -> bool {
    stream.write_all(b"now!").await.is_ok() && is_answered(stream).await
}

/// What became of connections: of those that waited, of those that rested, and of the slow ones, those that still live.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Left {
    waiting: usize,
    resting: usize,
    slow: usize,
}

async fn clients(server: SocketAddr, slow_sources: Vec<IpAddr>, mut phase: watch::Receiver<Phase>) -> Left {
    let customer = |number| IpAddr::from(Ipv4Addr::new(10, 66, 1, number));
    let until = phase.clone();
    let regular = tokio::spawn(async move {
        while *until.borrow() < Phase::Over {
            assert!(asks(&mut connect(customer(1), server).await).await, "a customer is not served");
            // condition: a person who reads.
            sleep(Duration::from_millis(50)).await;
        }
    });
    let (mut waiting, mut resting, mut slow) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..EACH {
        let mut stream = connect(customer(2), server).await;
        stream.write_all(b"wait").await.unwrap();
        waiting.push(stream);
        let mut stream = connect(customer(3), server).await;
        assert!(asks(&mut stream).await);
        resting.push(stream);
    }
    phase.wait_for(|phase| *phase >= Phase::Attack).await.unwrap();
    for source in &slow_sources {
        for _ in 0..EACH {
            slow.push(connect(*source, server).await);
        }
    }
    while *phase.borrow() < Phase::Answers {
        // condition: the pace of a slow sender.
        let _ = timeout(Duration::from_secs(2), phase.wait_for(|phase| *phase >= Phase::Answers)).await;
        for stream in &mut slow {
            let _ = stream.write_all(b"x").await;
        }
    }
    let mut left = Left { waiting: 0, resting: 0, slow: 0 };
    for stream in &mut waiting {
        left.waiting += usize::from(is_answered(stream).await);
    }
    for stream in &mut resting {
        left.resting += usize::from(asks(stream).await);
    }
    for stream in &mut slow {
        // One that is closed says so.
        left.slow += usize::from(timeout(Duration::from_millis(10), stream.read(&mut [0; 16])).await.is_err());
    }
    phase.wait_for(|phase| *phase >= Phase::Over).await.unwrap();
    regular.await.unwrap();
    left
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap()
}

#[test]
fn who_holds_connections_loses_them_and_who_waits_does_not() {
    let (shown, left) = play("enforce", false);
    assert!(shown.contains("sources that hold connections open"), "{shown}");
    assert_eq!((left.waiting, left.resting), (EACH, EACH));
    assert!(left.slow < WAKES, "{left:?}");
    assert!(left.slow >= EACH, "who is on the allow list keeps his: {left:?}");
}

#[test]
fn what_was_held_while_nothing_was_dropped_is_closed_once_drops_are_real() {
    let (shown, left) = play("monitor", true);
    assert!(shown.contains("no connection is closed: nothing is dropped either"), "{shown}");
    assert_eq!((left.waiting, left.resting), (EACH, EACH));
    assert!((EACH..WAKES).contains(&left.slow), "{left:?}");
}

#[test]
fn in_monitor_mode_it_is_said_and_nobody_loses_anything() {
    let (shown, left) = play("monitor", false);
    assert!(shown.contains("no connection is closed: nothing is dropped either"), "{shown}");
    assert_eq!(left, Left { waiting: EACH, resting: EACH, slow: usize::from(SLOW_SOURCES) * EACH });
}

/// Has many sources hold connections beside customers, the first of them on the allow list, and perhaps makes drops real in the end; the
/// record of it, and what is left of the connections.
fn play(mode: &str, enforces_then: bool) -> (String, Left) {
    let (topology, place) = (Topology::new(4).unwrap(), Place::new().unwrap());
    let slow_sources: Vec<_> =
        (1..=SLOW_SOURCES).map(|number| IpAddr::from(Ipv4Addr::new(10, 66, 9, number))).collect();
    for source in &slow_sources {
        topology.world.ip(&format!("addr add {source}/16 dev {WORLD}")).unwrap();
    }
    let server: SocketAddr = (Ipv4Addr::new(10, 66, 0, 1), 8_080).into();
    let (tell, phase) = watch::channel(Phase::Quiet);
    let (of_server, of_clients, until) = (phase.clone(), phase.clone(), phase);
    let serving = topology.server.spawn(move || {
        runtime().block_on(async move {
            let mut until = until;
            tokio::select! {
                () = serve(server, of_server) => {}
                _ = until.wait_for(|phase| *phase >= Phase::Gone) => {}
            }
        });
    });
    let daemon =
        Daemon::start(&topology.server, &place, &["--interface", PROTECTED, "--mode", mode, "--respond", "act"]);
    let _daemon = daemon.unwrap();
    let asking = topology.world.spawn(move || runtime().block_on(clients(server, slow_sources, of_clients))).unwrap();
    let situation = || status(&topology.server, &place).unwrap()["situation"].clone();
    let verb = |words: &str| run_verb(&topology.server, &place, words).unwrap();
    verb("allow add 10.66.9.1 --reason partner");
    // A dozen seconds have to have customers until somebody else can be new.
    let quiet_until = std::time::Instant::now() + Duration::from_secs(14);
    wait_for("some history", || {
        assert_eq!(situation()["verdict"], "normal", "{}", situation());
        (std::time::Instant::now() > quiet_until).then_some(())
    })
    .unwrap();
    tell.send(Phase::Attack).unwrap();
    let told = wait_for("the verdict, and what is done", || {
        let told = situation();
        (told["verdict"] == "attack" && told["measures"] != 0).then_some(told)
    })
    .unwrap_or_else(|error| panic!("{error}: {}", situation()));
    assert_eq!(told["vectors"], serde_json::json!(["slow-connections"]), "{told}");
    // Some are seen a moment before others.
    let denied_and_closed = |is_enforcing: bool| {
        wait_for("them to be denied, and their connections closed where drops are real", || {
            let denied = verb("deny list").matches("10.66.9.").count() * EACH;
            let shown = verb("incident show --json");
            let closed = if is_enforcing { denied } else { 0 };
            let is_left = usize::from(SLOW_SOURCES) * EACH - denied;
            (closed_of(&shown) == closed && is_left < WAKES).then_some(shown)
        })
        .unwrap_or_else(|error| panic!("{error}: {}", verb("incident show --json")))
    };
    let mut shown = denied_and_closed(mode == "enforce");
    if enforces_then {
        verb("mode enforce");
        shown = denied_and_closed(true);
    }
    let denied = verb("deny list");
    assert!(!denied.contains("10.66.1.") && !denied.contains("10.66.9.1/"), "{denied}");
    tell.send(Phase::Answers).unwrap();
    // condition: clients that look at all of theirs.
    std::thread::sleep(Duration::from_secs(3));
    tell.send(Phase::Over).unwrap();
    let left = asking.join().unwrap();
    // Not before its clients.
    tell.send(Phase::Gone).unwrap();
    serving.unwrap().join().unwrap();
    (shown, left)
}

/// Connections that were closed, by the record of an incident.
fn closed_of(shown: &str) -> usize {
    let shown: Value = serde_json::from_str(shown).unwrap();
    let steps = shown["timeline"].as_array().unwrap().iter().filter_map(|step| step["what"].as_str());
    let closed =
        steps.filter_map(|what| what.strip_prefix("closed ")?.split_whitespace().next()?.parse::<usize>().ok());
    closed.sum()
}

/// Nobody knows what is usual.
struct Nothing;

impl Usually for Nothing {
    fn packets(&self, _: Group) -> Option<f64> {
        None
    }

    fn connections(&self) -> Option<f64> {
        None
    }
}

/// What is said where this is open, and so many of those who hold it are new.
fn said(open: &[Open], fullness: f64, newcomers: f64) -> (Verdict, f64) {
    said_after(Vec::new(), open, fullness, newcomers)
}

/// The same, where there were these kinds of flood half a minute ago.
fn said_after(lately: Vec<Vector>, open: &[Open], fullness: f64, newcomers: f64) -> (Verdict, f64) {
    let mut held = Held::of(open, fullness, 100_000_000_000);
    held.newcomers = newcomers;
    let told = detect(&Features { held: Some(held), lately, ..Features::default() }, &Nothing);
    assert!(told.vectors.iter().all(|vector| *vector == Vector::SlowConnections), "{told:?}");
    (told.verdict, told.confidence)
}

fn of(sources: std::ops::Range<u32>, each: usize, one: Open) -> Vec<Open> {
    sources.flat_map(|source| vec![Open { source: Source::V4(source), ..one }; each]).collect()
}

const SILENT: Open = Open {
    source: Source::V4(0),
    quiet_ms: 20_000,
    unheard_ms: 20_000,
    received: 0,
    segments: 0,
    has_spoken: false,
    is_refused: false,
};
const TRICKLES: Open = Open { unheard_ms: 4_000, received: 12, segments: 3, ..SILENT };
const IN_USE: Open = Open { quiet_ms: 300, unheard_ms: 400, received: 900, segments: 2, has_spoken: true, ..SILENT };

#[test]
fn many_who_let_bytes_trickle_or_fill_the_queue_are_an_attack() {
    let customers = of(10_000..10_040, 1, IN_USE);
    let told = said(&[of(0..160, 5, TRICKLES), customers.clone()].concat(), 0.0, 1.0);
    assert_eq!(told.0, Verdict::Attack, "{told:?}");
    let told = said(&[of(0..160, 5, SILENT), customers.clone()].concat(), 0.9, 1.0);
    assert_eq!(told.0, Verdict::Attack, "{told:?}");
    let told = said(&[of(0..1, 1_000, TRICKLES), customers.clone()].concat(), 0.0, 1.0);
    assert_eq!(told.0, Verdict::Attack, "one machine: {told:?}");
    let refused = Open { received: 300, segments: 1, has_spoken: true, is_refused: true, ..SILENT };
    let told = said(&[of(0..160, 5, refused), customers].concat(), 0.0, 1.0);
    assert_eq!(told.0, Verdict::Attack, "who asks, and takes no answer: {told:?}");
}

#[test]
fn connections_that_customers_and_partners_keep_are_none() {
    let customers = of(10_000..10_040, 1, IN_USE);
    let pools = of(0..40, 20, SILENT);
    let told = said(&[pools.clone(), customers.clone()].concat(), 0.0, 1.0);
    assert_eq!(told.0, Verdict::Normal, "new servers of a partner that keep connections for later: {told:?}");
    let told = said(&pools, 0.9, 0.0);
    assert_eq!(told.0, Verdict::Normal, "old ones, where the service takes no more: {told:?}");
    let told = said(&of(0..300, 8, TRICKLES), 0.0, 0.1);
    assert_eq!(
        told.0,
        Verdict::Normal,
        "things that send a few bytes now and then, behind addresses of carriers: {told:?}"
    );
    let told = said(&of(0..2_000, 2, SILENT), 0.9, 1.0);
    assert_eq!(told.0, Verdict::Normal, "browsers that connect before they ask: {told:?}");
    let told = said(&[of(0..10, 6, TRICKLES), of(20_000..20_400, 1, IN_USE)].concat(), 0.0, 1.0);
    assert_eq!(told.0, Verdict::Normal, "few of many: {told:?}");
}

/// Those who got in when the first ones were sent away: a moment later they are told, before they have sent anything.
#[test]
fn more_of_the_same_is_told_sooner() {
    let open = [of(0..120, 5, SILENT), of(20_000..20_100, 1, IN_USE)].concat();
    let lately = || vec![Vector::SlowConnections];
    assert_eq!(said(&open, 0.0, 1.0).0, Verdict::Normal);
    assert_eq!(said_after(lately(), &open, 0.0, 1.0).0, Verdict::Attack);
    assert_eq!(said_after(lately(), &open, 0.0, 0.0).0, Verdict::Normal, "of who was here before");
    let few = [of(0..10, 6, SILENT), of(20_000..20_400, 1, IN_USE)].concat();
    assert_eq!(said_after(lately(), &few, 0.0, 1.0).0, Verdict::Normal, "few of many");
}

#[test]
fn who_holds_most_comes_first() {
    let held = Held::of(&[of(0..3, 5, TRICKLES), of(7..8, 9, SILENT)].concat(), 0.0, 100_000_000_000);
    let expected = Holder { source: Source::V4(7), slow: 9, others: 0, since_ns: 80_000_000_000 };
    assert_eq!(held.holders[0], expected, "{held:?}");
}

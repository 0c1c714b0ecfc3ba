//! A canary on real packets: nothing comes of it while a flood goes on that nobody waits for; where clients come that look like it, what
//! drops them is withdrawn.

#![expect(clippy::unwrap_used, reason = "the helpers of tests fail as the tests do: by a panic")]

use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::time::{Duration, Instant};

use floodwall_tests::captures::made::Random;
use floodwall_tests::daemon::{Daemon, Place, packets, run_verb, status, wait_for};
use floodwall_tests::topology::{PROTECTED, Topology};
use floodwall_tests::traffic::{Clients, Servers, finish};

/// Nobody listens there until the flood is over.
const GAME: u16 = 9_100;
const SENT: u64 = 8_000;
const SOCKETS: usize = 1_600;
const BYTES: usize = 200;
/// Where a slice may begin, and clients in each.
const FIRST_PORT: u16 = 49_152;
const BLOCK: u16 = 1_024;
const BLOCKS: u16 = 11;
const PLAYERS: u16 = 40;

fn bound(sources: &[IpAddr], number: usize, port: u16) -> Option<UdpSocket> {
    UdpSocket::bind((sources[number % sources.len()], port)).ok()
}

/// Datagrams that have nothing in common but where they go and how long they are, until then.
fn flood(sources: &[IpAddr], game: SocketAddr, until: impl Fn() -> bool) {
    let mut random = Random(31);
    let sockets: Vec<_> = (0..SOCKETS)
        .filter_map(|number| bound(sources, number, FIRST_PORT + random.number(0..BLOCKS * BLOCK)))
        .collect();
    let (begun, mut sent) = (Instant::now(), 0);
    while !until() {
        let due = (begun.elapsed().as_secs_f64() * SENT as f64) as u64;
        for number in sent..due {
            let bytes: Vec<_> = (0..BYTES / 8).flat_map(|_| random.bits().to_le_bytes()).collect();
            let _ = sockets[number as usize % sockets.len()].send_to(&bytes, game);
        }
        sent = due;
        // condition: the pace.
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// Players, who ask again until they are answered, and go on then.
fn play(sources: &[IpAddr], game: SocketAddr, until: impl Fn() -> bool) {
    let ports = (0..BLOCKS).flat_map(|block| (0..PLAYERS).map(move |player| FIRST_PORT + block * BLOCK + player));
    let sockets: Vec<_> = ports.enumerate().filter_map(|(number, port)| bound(sources, number, port)).collect();
    while !until() {
        for socket in &sockets {
            let _ = socket.send_to(&[b'p'; BYTES], game);
        }
        // condition: the pace.
        std::thread::sleep(Duration::from_millis(200));
    }
}

/// The game, which answers whoever plays.
fn answer(game: SocketAddr, until: impl Fn() -> bool) {
    let socket = UdpSocket::bind(game).unwrap();
    socket.set_read_timeout(Some(Duration::from_millis(100))).unwrap();
    let mut bytes = [0; 2_048];
    while !until() {
        if let Ok((length, player)) = socket.recv_from(&mut bytes) {
            let _ = socket.send_to(&bytes[..length], player);
        }
    }
}

#[test]
fn what_drops_clients_that_look_like_the_flood_is_withdrawn() {
    let (topology, place) = (Topology::new(20).unwrap(), Place::new().unwrap());
    std::fs::write(place.directory().join("floodwall.toml"), "auto_allow = false\n").unwrap();
    let arguments = ["--interface", PROTECTED, "--mode", "enforce", "--respond", "act"];
    let _daemon = Daemon::start(&topology.server, &place, &arguments).unwrap();
    let _servers = Servers::start(&topology.server, &topology.servers()).unwrap();
    let verb = |words: &str| run_verb(&topology.server, &place, words).unwrap();
    let clients = Clients {
        servers: topology.servers(),
        sources: topology.clients[..4].to_vec(),
        requests_per_second: 60,
        cpu: 1,
        duration: Duration::from_secs(30),
    };
    let clients = clients.start(&topology.world).unwrap();
    let begun = Instant::now();
    wait_for("what is usual, and enough that is good", || {
        let passed = packets(&status(&topology.server, &place).unwrap(), "pass", "passed");
        (passed > 2_000 && begun.elapsed() > Duration::from_secs(13)).then_some(())
    })
    .unwrap();

    let sources: Vec<_> = topology.clients.iter().filter(|source| source.is_ipv4()).copied().collect();
    let game = SocketAddr::new(topology.servers()[0].ip(), GAME);
    let (over, is_over) = flag();
    let (of_flood, flooding) = (sources.clone(), is_over);
    let flooding = topology.world.spawn(move || flood(&of_flood, game, flooding)).unwrap();
    let is_open = || verb("signature list").contains("auto-canary");
    let said = || format!("{}\n{}", verb("signature list"), verb("history -n 20"));
    wait_for("a slice to be open", || is_open().then_some(())).unwrap_or_else(|error| panic!("{error}: {}", said()));
    wait_for("it to be closed", || (!is_open()).then_some(())).unwrap();
    let of_flood = |text: &str| text.matches("auto-udp-flood").count();
    assert_eq!(of_flood(&verb("signature list")), 1, "a flood waits for nobody: {}", said());
    assert!(!verb("history -n 50").contains("canary"), "{}", said());
    over();
    flooding.join().unwrap();
    finish(clients).unwrap();

    let (over, is_over) = flag();
    let (players, playing, answering) = (sources, is_over.clone(), is_over);
    let answering = topology.server.spawn(move || answer(game, answering)).unwrap();
    let playing = topology.world.spawn(move || play(&players, game, playing)).unwrap();
    let withdrawn = || {
        let history = verb("history -n 50");
        history.contains("a canary shows that").then_some(history)
    };
    // The next slice is open half a minute after the first.
    let history = wait_for("it to be withdrawn", withdrawn).or_else(|_| wait_for("it to be withdrawn", withdrawn));
    let history = history.unwrap_or_else(|error| panic!("{error}: {}", said()));
    let share: f64 = history.split("a canary shows that ").nth(1).unwrap().split(' ').next().unwrap().parse().unwrap();
    assert!(share > 90.0, "{history}");
    assert_eq!(of_flood(&verb("signature list")), 0, "{}", said());
    over();
    playing.join().unwrap();
    answering.join().unwrap();
}

/// Something that is said once, and whether it has been.
fn flag() -> (impl Fn(), impl Fn() -> bool + Clone + Send + 'static) {
    let said = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false));
    let heard = std::sync::Arc::clone(&said);
    let order = std::sync::atomic::Ordering::Relaxed;
    (move || said.store(true, order), move || heard.load(order))
}

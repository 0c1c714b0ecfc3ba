//! A partner gone wild on real packets: named, held by a group of his own, nobody else touched; taken back by an operator, and by the
//! daemon that comes after one that died.

#![expect(clippy::unwrap_used, reason = "the helpers of tests fail as the tests do: by a panic")]

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use floodwall_tests::daemon::{floodwall, packets, wait_for};
use floodwall_tests::netns::Running;
use floodwall_tests::stand::Stand;
use floodwall_tests::topology::WORLD;
use floodwall_tests::traffic::Servers;
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpSocket;
use tokio::time::{interval, timeout};

const GROUP: &str = "auto-misconfig";
const PARTNER: &str = "10.66.7.0/24";
/// How many addresses the partner and all others have.
const ADDRESSES: u8 = 10;
/// A SYN that was dropped is sent again after a second: too late.
const PATIENCE: Duration = Duration::from_millis(900);

/// Clients that open connections one after the other, so many a second in all, until dropped.
struct Openers {
    per_second: Arc<AtomicU32>,
    stop: Arc<AtomicBool>,
    opened: Arc<AtomicU64>,
    failed: Arc<AtomicU64>,
    running: Option<Running<()>>,
}

impl Openers {
    fn start(stand: &Stand, sources: Vec<Ipv4Addr>, per_second: u32) -> Self {
        let (rate, stop) = (Arc::new(AtomicU32::new(per_second)), Arc::new(AtomicBool::new(false)));
        let (opened, failed) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
        let server = stand.topology.servers()[0];
        let (of_thread, ended, of_opened, of_failed) = (rate.clone(), stop.clone(), opened.clone(), failed.clone());
        let opens = async move {
            let mut source = sources.into_iter().cycle();
            let mut begun = Instant::now();
            let mut ticks = interval(Duration::from_millis(5));
            while !ended.load(Ordering::Relaxed) {
                ticks.tick().await;
                if begun.elapsed().as_secs_f64() < 1.0 / f64::from(of_thread.load(Ordering::Relaxed)) {
                    continue;
                }
                begun = Instant::now();
                let (source, opened, failed) = (source.next().unwrap(), of_opened.clone(), of_failed.clone());
                tokio::spawn(async move {
                    let is_answered = matches!(timeout(PATIENCE, ask(source, server)).await, Ok(Ok(())));
                    if is_answered { &opened } else { &failed }.fetch_add(1, Ordering::Relaxed);
                });
            }
        };
        let run = || tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(opens);
        let running = Some(stand.topology.world.spawn(run).unwrap());
        Self { per_second: rate, stop, opened, failed, running }
    }

    fn counted(&self) -> (u64, u64) {
        (self.opened.load(Ordering::Relaxed), self.failed.load(Ordering::Relaxed))
    }
}

impl Drop for Openers {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        let _ = self.running.take().map(Running::join);
    }
}

async fn ask(source: Ipv4Addr, server: SocketAddr) -> std::io::Result<()> {
    let socket = TcpSocket::new_v4()?;
    socket.bind((IpAddr::from(source), 0).into())?;
    let mut stream = socket.connect(server).await?;
    stream.write_all(&[7; 256]).await?;
    let mut answer = [0; 256];
    stream.read_exact(&mut answer).await?;
    Ok(())
}

/// Others and a partner, who were here for a while, and then the partner asks many times as often.
struct Scene {
    stand: Stand,
    others: Openers,
    partner: Openers,
    _servers: Servers,
}

impl Scene {
    fn new(stand: Stand) -> Self {
        let servers = Servers::start(&stand.topology.server, &stand.topology.servers()).unwrap();
        let sources = |third: u8| (1..=ADDRESSES).map(|last| Ipv4Addr::new(10, 66, third, last)).collect::<Vec<_>>();
        for source in [sources(5), sources(7)].concat() {
            stand.topology.world.ip(&format!("addr add {source}/16 dev {WORLD}")).unwrap();
        }
        let others = Openers::start(&stand, sources(5), 20);
        let partner = Openers::start(&stand, sources(7), 4);
        wait_for("clients who are known", || (others.counted().0 > 14 * 20).then_some(())).unwrap();
        Self { stand, others, partner, _servers: servers }
    }

    /// Until he is held, or advised to be.
    fn goes_wild(&self, until: &str) {
        self.partner.per_second.store(150, Ordering::Relaxed);
        let is_said = wait_for(until, || self.told().contains(until).then_some(())).is_ok();
        assert!(is_said, "{until}: {}, {}", self.situation(), self.told());
    }

    fn told(&self) -> String {
        self.stand.json("incident list")["incidents"].to_string()
    }

    fn situation(&self) -> Value {
        self.stand.status()["situation"].clone()
    }

    fn dropped(&self) -> u64 {
        packets(&self.stand.status(), "drop", "packet-limit")
    }
}

/// Each takes a processor to itself.
static ALONE: Mutex<()> = Mutex::new(());

#[test]
fn who_has_gone_wild_is_named_and_held_and_nobody_else_is() {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let stand = Stand::new();
    stand.write("[groups.partners]\nprefixes = [\"192.0.2.0/24\"]\n");
    let file = stand.place.directory().join("floodwall.toml").display().to_string();
    let daemon = stand.run(&["--mode", "enforce", "--respond", "act", "--config", &file]);
    let scene = Scene::new(stand);
    let lost = scene.others.counted().1;
    scene.goes_wild(GROUP);
    let situation = scene.situation();
    assert_eq!(situation["verdict"], "misconfiguration", "{situation}");
    assert_eq!(situation["who"], serde_json::json!([PARTNER]), "{situation}");
    assert!(scene.stand.verb("status").contains(&format!("who: {PARTNER}")));
    wait_for("what he begins beyond the limit to be dropped", || (scene.dropped() > 200).then_some(())).unwrap();
    assert_eq!(scene.others.counted().1, lost, "nobody else has lost anything: {}", scene.told());

    // The file has no such group, and a reload leaves it alone all the same.
    scene.stand.verb("reload");
    assert!(scene.stand.verb(&format!("config diff --config {file}")).starts_with("nothing"));
    let groups = scene.stand.json("group list");
    let group = groups["groups"].as_array().unwrap().iter().find(|group| group["name"] == GROUP).unwrap();
    assert_eq!((&group["name"], &group["prefixes"]), (&GROUP.into(), &serde_json::json!([PARTNER])), "{groups}");
    assert_eq!(group["limits"].as_array().unwrap().iter().map(|limit| &limit["name"]).collect::<Vec<_>>(), ["tcp-syn"]);
    let record = scene.stand.json("incident show");
    assert_eq!(record["who"], serde_json::json!([PARTNER]), "{record}");
    assert!(record["actions"][0].as_str().unwrap().contains("good packets before it are from there"), "{record}");
    assert!(scene.stand.verb("incident export --format markdown").contains(PARTNER));
    let findings = floodwall(&scene.stand.topology.server, &scene.stand.place, &["audit", "--json"]);
    let findings = String::from_utf8(findings.unwrap().stdout).unwrap();
    assert!(findings.contains("group-auto-misconfig") && !findings.contains("limit-tcp-syn-auto"), "{findings}");
    let (exit, said) = scene.stand.exit("incident resolve");
    assert!(exit == Some(5) && said.contains("it goes on still") && said.contains("incident ack"), "{exit:?} {said}");

    // What a daemon leaves behind that died, the next one takes back.
    daemon.kill().unwrap();
    assert!(scene.stand.verb("group list").contains(GROUP), "it stays in force without a daemon");
    let daemon = scene.stand.run(&["--config", &file]);
    assert!(!scene.stand.verb("group list").contains(GROUP), "{}", scene.stand.verb("group list"));
    daemon.stop().unwrap();
}

#[test]
fn who_is_in_a_group_of_an_operator_is_left_there_and_what_he_takes_back_stays_so() {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let stand = Stand::new();
    let daemon = stand.run(&["--mode", "enforce", "--respond", "act"]);
    stand.verb("group add partners 10.66.7.3");
    let scene = Scene::new(stand);
    scene.goes_wild("could not be armed");
    assert!(scene.told().contains("in groups of an operator"), "{}", scene.told());
    assert!(!scene.stand.verb("group list").contains(GROUP));
    // He lets go of him, and it is tried again.
    scene.stand.verb("group remove partners");
    wait_for("the group", || scene.stand.verb("group list").contains(GROUP).then_some(())).unwrap();
    scene.stand.verb(&format!("group remove {GROUP}"));
    wait_for("it to be noticed", || scene.told().contains("taken back by somebody").then_some(())).unwrap();
    let (before, begun) = (scene.partner.counted(), Instant::now());
    wait_for("as many as before", || (scene.partner.counted().0 > before.0 + 400).then_some(())).unwrap();
    assert!(!scene.stand.verb("group list").contains(GROUP), "{:?}: {}", begun.elapsed(), scene.told());
    assert_eq!(scene.situation()["measures"], 0, "{}", scene.told());
    daemon.stop().unwrap();
}

#[test]
fn advice_names_him_and_holds_nobody() {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let stand = Stand::new();
    let daemon = stand.run(&["--mode", "enforce", "--respond", "advise"]);
    let scene = Scene::new(stand);
    scene.goes_wild("advised: limit new connections");
    assert!(!scene.stand.verb("group list").contains(GROUP), "{}", scene.told());
    assert_eq!((scene.dropped(), &scene.situation()["measures"]), (0, &0.into()));
    daemon.stop().unwrap();
}

//! The back-off probe on real packets: what is unsure and more than the host can take is asked by holding up a slice of it for two
//! seconds, once; the verdict follows, and customers of everything else lose nothing.

#![expect(clippy::unwrap_used, reason = "the helpers of tests fail as the tests do: by a panic")]

use std::net::{SocketAddr, UdpSocket};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use floodwall_tests::captures::made::Random;
use floodwall_tests::daemon::{Daemon, Place, packets, run_verb, status, wait_for};
use floodwall_tests::topology::{PROTECTED, Topology};
use floodwall_tests::traffic::{Clients, Servers, finish};
use serde_json::Value;

/// A collector of measurements: it answers nobody.
const COLLECTOR: u16 = 9_000;
/// What it takes in a second, and what it is sent.
const TAKEN: u64 = 300;
const SENT: u64 = 8_000;
const SOCKETS: usize = 1_600;
const FLOOD: Duration = Duration::from_secs(12);

static ALONE: Mutex<()> = Mutex::new(());

struct Scene {
    topology: Topology,
    place: Place,
    _daemon: Daemon,
    _servers: Servers,
}

impl Scene {
    /// Customers for long enough that it is known what is usual, then datagrams at a pace that are more than the collector takes.
    fn play(file: &str, during: impl FnOnce(&Self)) -> Self {
        let (topology, place) = (Topology::new(20).unwrap(), Place::new().unwrap());
        std::fs::write(place.directory().join("floodwall.toml"), format!("auto_allow = false\n{file}")).unwrap();
        let arguments = ["--interface", PROTECTED, "--mode", "enforce", "--respond", "act"];
        let daemon = Daemon::start(&topology.server, &place, &arguments).unwrap();
        let servers = Servers::start(&topology.server, &topology.servers()).unwrap();
        let scene = Self { topology, place, _daemon: daemon, _servers: servers };
        let (begun, end) = (Instant::now(), Instant::now() + Duration::from_secs(45));
        let clients = Clients {
            servers: scene.topology.servers(),
            sources: scene.topology.clients[..4].to_vec(),
            requests_per_second: 60,
            cpu: 1,
            duration: Duration::from_secs(30),
        };
        let clients = clients.start(&scene.topology.world).unwrap();
        let collector = SocketAddr::new(scene.topology.servers()[0].ip(), COLLECTOR);
        let collecting = scene.topology.server.spawn(move || collect(collector, end)).unwrap();
        wait_for("what is usual, and enough that is good", || {
            let passed = packets(&status(&scene.topology.server, &scene.place).unwrap(), "pass", "passed");
            (passed > 2_000 && begun.elapsed() > Duration::from_secs(13)).then_some(())
        })
        .unwrap();
        let sources: Vec<_> = scene.topology.clients.iter().filter(|source| source.is_ipv4()).copied().collect();
        let flood = scene.topology.world.spawn(move || {
            let mut random = Random(30);
            let sockets: Vec<_> = (0..SOCKETS)
                .filter_map(|number| {
                    let port = 49_152 + random.number(0..11_264);
                    UdpSocket::bind((sources[number % sources.len()], port)).ok()
                })
                .collect();
            let begun = Instant::now();
            let mut sent = 0;
            while begun.elapsed() < FLOOD {
                let due = (begun.elapsed().as_secs_f64() * SENT as f64) as u64;
                for number in sent..due {
                    let bytes: Vec<_> = (0..25).flat_map(|_| random.bits().to_le_bytes()).collect();
                    let _ = sockets[number as usize % sockets.len()].send_to(&bytes, collector);
                }
                sent = due;
                // condition: the pace.
                std::thread::sleep(Duration::from_millis(2));
            }
        });
        let flood = flood.unwrap();
        during(&scene);
        flood.join().unwrap();
        let seen = finish(clients).unwrap();
        assert!(seen.tcp.share() >= 0.99, "TCP: {} of {}", seen.tcp.answered, seen.tcp.asked);
        drop(collecting);
        scene
    }

    fn verb(&self, words: &str) -> String {
        run_verb(&self.topology.server, &self.place, words).unwrap()
    }

    fn situation(&self) -> Value {
        status(&self.topology.server, &self.place).unwrap()["situation"].clone()
    }
}

/// Takes so many in a second, and no more.
fn collect(address: SocketAddr, end: Instant) {
    let socket = UdpSocket::bind(address).unwrap();
    socket.set_read_timeout(Some(Duration::from_millis(100))).unwrap();
    while Instant::now() < end {
        let _ = socket.recv(&mut [0; 2_048]);
        // condition: its own pace, which is what it is short of.
        std::thread::sleep(Duration::from_micros(1_000_000 / TAKEN));
    }
}

#[test]
fn what_is_unsure_and_too_much_is_asked_and_the_verdict_follows() {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let scene = Scene::play("", |scene| {
        let situation = wait_for("the verdict", || {
            let situation = scene.situation();
            (situation["verdict"] == "attack").then_some(situation)
        })
        .unwrap_or_else(|error| panic!("{error}: {}\n{}", scene.situation(), scene.verb("history -n 20")));
        assert_eq!(situation["vectors"][0], "udp-flood", "{situation}");
    });
    let incidents: Value = serde_json::from_str(&scene.verb("incident list --json")).unwrap();
    let timeline = incidents["incidents"][0]["timeline"].as_array().unwrap();
    let told = |what: &str| timeline.iter().position(|event| event["what"].as_str().unwrap().contains(what));
    let asked = told("probe: udp-flood is ").unwrap_or_else(|| panic!("{timeline:?}"));
    let concluded = told("nobody waits for an answer: a flood, or calls").unwrap_or_else(|| panic!("{timeline:?}"));
    assert!(asked < concluded, "{timeline:?}");
    let probes = |history: &str| history.matches("for 2 s").count();
    assert_eq!(probes(&scene.verb("history -n 50")), 1, "once a minute");
    // What the slice had in two seconds: a quarter of what there was at most.
    let history = scene.verb("history -n 50");
    let before: f64 = history.split("for 2 s: some ").nth(1).unwrap().split(' ').next().unwrap().parse().unwrap();
    assert!((100.0..SENT as f64 / 4.0).contains(&before), "{history}");
}

#[test]
fn one_key_keeps_it_from_asking() {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let scene = Scene::play("probe = false\n", |scene| {
        wait_for("doubt", || {
            let situation = scene.situation();
            (situation["confidence"].as_f64().unwrap() < 0.65).then_some(())
        })
        .unwrap();
    });
    assert!(!scene.verb("history -n 50").contains("probe: "), "{}", scene.verb("history -n 50"));
    assert_eq!(packets(&status(&scene.topology.server, &scene.place).unwrap(), "drop", "signature"), 0);
}

//! Who follows what happens in incidents: it comes as it happens, over one answer that is held open; and who hangs up, or never reads,
//! is let go of.

#![expect(clippy::unwrap_used, reason = "the helpers of tests fail as the tests do: by a panic")]

use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use floodwall::detect::{Assessment, Verdict};
use floodwall::incident::{Incident, Store};
use floodwall_tests::daemon::{Daemon, Place, status, wait_for};
use floodwall_tests::netns::Namespace;
use floodwall_tests::topology::{PROTECTED, Topology};
use serde_json::Value;

/// As many as may follow at once, and how long a connection lasts.
const STREAMS: usize = 8;
const LASTS: Duration = Duration::from_secs(60);

struct Scene {
    topology: Topology,
    place: Place,
    daemon: Daemon,
}

impl Scene {
    fn new() -> Self {
        let (topology, place) = (Topology::new(1).unwrap(), Place::new().unwrap());
        let daemon = Daemon::start(&topology.server, &place, &["--interface", PROTECTED]).unwrap();
        Self { topology, place, daemon }
    }

    fn store(&self) -> Store {
        Store::beside(&self.place.directory().join("history.ndjson"))
    }

    /// One that follows, and the first line of what it is answered.
    fn follows(&self) -> (UnixStream, String) {
        let mut stream = UnixStream::connect(self.place.socket()).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        stream.write_all(b"GET /api/v1/events?follow=true HTTP/1.1\r\nhost: x\r\n\r\n").unwrap();
        let mut line = Vec::new();
        let mut byte = [0];
        while !line.ends_with(b"\r\n") && stream.read(&mut byte).unwrap() == 1 {
            line.push(byte[0]);
        }
        (stream, String::from_utf8(line).unwrap())
    }
}

fn incident(id: &str, notes: usize) -> Incident {
    let found = Assessment { verdict: Verdict::Surge, confidence: 0.9, ..Assessment::default() };
    let mut incident = Incident::new(1_700_000_000_000, &found);
    incident.id = id.to_owned();
    for number in 0..notes {
        incident.note("eva", &format!("{number}: {}", "what was seen ".repeat(20)));
    }
    incident
}

/// `floodwall incident list --follow`, ended with this value.
struct Follower(Child);

impl Follower {
    fn new(namespace: &Namespace, place: &Place) -> Self {
        let arguments = ["incident", "list", "--follow", "--after", "0"];
        Self(place.command(namespace, &arguments).unwrap().stdout(Stdio::piped()).spawn().unwrap())
    }
}

impl Drop for Follower {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn what_happens_comes_as_it_happens() {
    let scene = Scene::new();
    let mut record = incident("one", 0);
    scene.store().save(&record).unwrap();
    let mut follower = Follower::new(&scene.topology.server, &scene.place);
    let mut lines = BufReader::new(follower.0.stdout.take().unwrap()).lines();
    let mut next = || -> Value { serde_json::from_str(&lines.next().unwrap().unwrap()).unwrap() };
    assert_eq!(next()["what"], "first sign");
    assert!(next()["what"].as_str().unwrap().starts_with("surge, 90 % sure"));
    record.note("eva", "called the provider");
    scene.store().save(&record).unwrap();
    let (happened, begun) = (next(), Instant::now());
    assert_eq!((&happened["what"], &happened["incident"]), (&"called the provider".into(), &"one".into()));
    assert!(begun.elapsed() < Duration::from_secs(2), "{:?}", begun.elapsed());
}

#[test]
fn who_hangs_up_leaves_room_for_another() {
    let scene = Scene::new();
    let following: Vec<_> = (0..STREAMS).map(|_| scene.follows()).collect();
    assert!(following.iter().all(|(_, answer)| answer.contains("200")), "{following:?}");
    assert!(scene.follows().1.contains("409"), "one too many");
    drop(following);
    wait_for("room", || scene.follows().1.contains("200").then_some(())).unwrap();
}

/// They are sent more than sockets hold, and take none of it: nothing is piled up for them, and after a minute they are let go of.
#[test]
fn who_never_reads_is_let_go_of() {
    let scene = Scene::new();
    for number in 0..20 {
        scene.store().save(&incident(&format!("many-{number}"), 900)).unwrap();
    }
    let memory = |path: &Path| -> u64 {
        let text = std::fs::read_to_string(path).unwrap();
        let line = text.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
        line.trim().trim_end_matches(" kB").parse().unwrap()
    };
    let ofdaemon = Path::new("/proc").join(scene.daemon.pid().to_string()).join("status");
    let (before, begun) = (memory(&ofdaemon), Instant::now());
    let following: Vec<_> = (0..STREAMS).map(|_| scene.follows()).collect();
    assert!(scene.follows().1.contains("409"));
    while !scene.follows().1.contains("200") {
        assert!(begun.elapsed() < LASTS + Duration::from_secs(10), "still held");
        // condition: the loop asks again.
        std::thread::sleep(Duration::from_millis(500));
    }
    assert!(begun.elapsed() > LASTS / 2, "only after a while: {:?}", begun.elapsed());
    assert_eq!(status(&scene.topology.server, &scene.place).unwrap()["daemon"], true);
    let grown = memory(&ofdaemon).saturating_sub(before);
    assert!(grown < 32 << 10, "{grown} KiB more");
    drop(following);
}

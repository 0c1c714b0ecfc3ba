//! Detection on real packets: a flood beside clients is named, in words, and what it calls for is armed and holds it; the
//! record of it is a postmortem.

#![expect(clippy::unwrap_used, reason = "the helpers of tests fail as the tests do: by a panic")]

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use floodwall_tests::daemon::{Daemon, Place, metric, packets, run_verb, status, wait_for};
use floodwall_tests::flood::Flood;
use floodwall_tests::topology::{PROTECTED, Topology};
use floodwall_tests::traffic::{Clients, Servers, finish};
use serde_json::Value;

const RATE: u64 = 100_000;

struct Scene {
    topology: Topology,
    place: Place,
    _daemon: Daemon,
    _servers: Servers,
}

impl Scene {
    fn new(arguments: &[&str]) -> Self {
        let (topology, place) = (Topology::new(4).unwrap(), Place::new().unwrap());
        let arguments = [&["--interface", PROTECTED, "--mode", "enforce"], arguments].concat();
        let daemon = Daemon::start(&topology.server, &place, &arguments).unwrap();
        let servers = Servers::start(&topology.server, &topology.servers()).unwrap();
        Self { topology, place, _daemon: daemon, _servers: servers }
    }

    fn clients(&self, duration: Duration) -> Clients {
        Clients {
            servers: self.topology.servers(),
            sources: self.topology.clients.clone(),
            requests_per_second: 200,
            cpu: 1,
            duration,
        }
    }

    fn verb(&self, words: &str) -> String {
        run_verb(&self.topology.server, &self.place, words).unwrap()
    }

    /// Packets that signatures have dropped, and UDP that has passed, of which hardly any is of clients.
    fn flood(&self) -> (u64, u64) {
        let status = status(&self.topology.server, &self.place).unwrap();
        (packets(&status, "drop", "signature"), packets(&status, "pass", "passed"))
    }

    fn situation(&self) -> Value {
        status(&self.topology.server, &self.place).unwrap()["situation"].clone()
    }
}

/// A flood takes a CPU to itself: one at a time.
static ALONE: Mutex<()> = Mutex::new(());

#[test]
fn a_flood_from_random_sources_is_named_held_and_written_down() {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let scene = Scene::new(&["--respond", "act"]);
    let clients = scene.clients(Duration::from_secs(48)).start(&scene.topology.world).unwrap();
    wait_for("enough of what is good", || {
        let passed = packets(&status(&scene.topology.server, &scene.place).unwrap(), "pass", "passed");
        (passed > 8_000).then_some(())
    })
    .unwrap();
    assert_eq!(scene.situation()["verdict"], "normal", "{}", scene.situation());
    let metric = |name: &str, labels: &[&str]| metric(&scene.topology.server, &scene.place, name, labels).unwrap();
    let usual = wait_for("what is usual", || {
        Some(metric("floodwall_usual_packets_per_second", &["group=\"tcp\""])).filter(|usual| *usual > 0.0)
    })
    .unwrap();
    assert!(usual > 100.0 && usual < RATE as f64 / 10.0, "{usual}");
    assert!(metric("floodwall_usual_connections_per_second", &[]) > 10.0);
    assert_eq!(metric("floodwall_detection_seconds_count", &[]), 0.0);
    let flood = Flood { only_v4: true, ..Flood::udp(1 << 20, RATE, Duration::from_secs(16)) };
    let begun = Instant::now();
    let flood = flood.start(&scene.topology.world, scene.topology.target().unwrap(), 0).unwrap();
    let situation = wait_for("the verdict", || {
        let situation = scene.situation();
        (situation["verdict"] == "attack" && situation["measures"] != 0).then_some(situation)
    })
    .unwrap_or_else(|error| panic!("{error}: {}\n{}", scene.situation(), scene.verb("incident list --json")));
    let took = begun.elapsed();
    assert!(took < Duration::from_secs(8), "{took:?}: {situation}");
    assert_eq!(situation["vectors"][0], "udp-flood", "{situation}");
    assert_eq!(situation["reasons"].as_array().unwrap().len(), 3, "{situation}");
    wait_for("the flood to be held", || {
        let before = scene.flood();
        std::thread::sleep(Duration::from_millis(500)); // condition: a rate takes some time
        let now = scene.flood();
        let (dropped, passed) = (now.0 - before.0, now.1 - before.1);
        (dropped > RATE / 10 && passed < dropped / 20).then_some(())
    })
    .unwrap_or_else(|error| panic!("{error}: {}\n{}", scene.situation(), scene.verb("incident show")));
    let sent = flood.join().unwrap().unwrap();
    let seen = finish(clients).unwrap();
    assert!(seen.tcp.share() >= 0.99, "TCP: {} of {} ({sent:?})", seen.tcp.answered, seen.tcp.asked);
    let signatures = scene.verb("signature list");
    assert!(signatures.contains("auto-udp-flood"), "{signatures}");
    // Over after half a quiet minute.
    let incident = wait_for("the end of the incident", || {
        let incidents: Value = serde_json::from_str(&scene.verb("incident list --json")).unwrap();
        let incident = incidents["incidents"][0].clone();
        (incident["state"] == "resolved").then_some(incident)
    })
    .unwrap();
    assert_eq!(incident["verdict"], "attack", "{incident}");
    assert_eq!(metric("floodwall_detection_seconds_count", &[]), 1.0);
    assert!(incident["peak_packets_per_second"].as_f64().unwrap() > RATE as f64 / 4.0, "{incident}");
    assert!(incident["timeline"].as_array().unwrap().len() >= 4, "{incident}");
    let draft = scene.verb("incident export");
    for part in [
        "## Issue Summary",
        "## Duration",
        "## Impact",
        "## Root Cause",
        "## Timeline",
        "## Resolution",
        "## Corrective and Preventative Measures",
        "udp-flood",
        "| response | drop signature",
    ] {
        assert!(draft.contains(part), "{part}:\n{draft}");
    }
    let request = scene.verb("incident isp-request");
    for part in ["UDP port", "Packets of the udp-flood", " Mbit/s at its peak", "  protocol: UDP", "forged most likely"]
    {
        assert!(request.contains(part), "{part}:\n{request}");
    }
    assert!(!request.contains("Target: _to be filled in_"), "{request}");
    let notice = scene.verb("incident customer-notice");
    assert!(notice.contains("not from customers, and filtered it"), "{notice}");
    assert_eq!(scene.verb("incident export --format customer-notice"), notice);
    assert!(scene.verb("history").contains("armed: drop signature"));
}

#[test]
fn advice_is_given_and_nothing_armed() {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let scene = Scene::new(&["--respond", "advise"]);
    let flood = Flood::udp(1 << 20, RATE, Duration::from_secs(10));
    let flood = flood.start(&scene.topology.world, scene.topology.target().unwrap(), 0).unwrap();
    wait_for("the verdict", || (scene.situation()["verdict"] == "attack").then_some(()))
        .unwrap_or_else(|error| panic!("{error}: {}\n{}", scene.situation(), scene.verb("incident list --json")));
    scene.verb("incident note called-the-provider");
    scene.verb("incident ack");
    flood.join().unwrap().unwrap();
    let incidents: Value = serde_json::from_str(&scene.verb("incident list --json")).unwrap();
    let timeline = incidents["incidents"][0]["timeline"].to_string();
    assert!(timeline.contains("called-the-provider") && timeline.contains("acknowledged"), "{timeline}");
    assert_eq!(packets(&status(&scene.topology.server, &scene.place).unwrap(), "drop", "signature"), 0);
    assert_eq!(scene.situation()["measures"], 0);
}

#[test]
fn what_an_operator_takes_back_is_not_armed_again() {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let scene = Scene::new(&["--respond", "act"]);
    let clients = scene.clients(Duration::from_secs(30)).start(&scene.topology.world).unwrap();
    wait_for("enough of what is good", || {
        let passed = packets(&status(&scene.topology.server, &scene.place).unwrap(), "pass", "passed");
        (passed > 8_000).then_some(())
    })
    .unwrap();
    // Of so many networks that no limit of these is a measure too.
    let flood = Flood { only_v4: true, ..Flood::udp(1 << 24, RATE, Duration::from_secs(12)) };
    let flood = flood.start(&scene.topology.world, scene.topology.target().unwrap(), 0).unwrap();
    let armed = wait_for("the signature", || {
        let signatures: Value = serde_json::from_str(&scene.verb("signature list --json")).unwrap();
        signatures["signatures"][0]["name"].as_str().map(str::to_owned)
    })
    .unwrap();
    scene.verb(&format!("signature remove {armed}"));
    wait_for("it to be noticed", || {
        scene.verb("incident list --json").contains("taken back by somebody").then_some(())
    })
    .unwrap();
    let before = scene.flood();
    flood.join().unwrap().unwrap();
    let now = scene.flood();
    assert!(now.1 - before.1 > RATE / 2, "the flood passes: {before:?} {now:?}");
    assert!(!scene.verb("signature list").contains(&armed), "{}", scene.verb("incident list --json"));
    assert_eq!(scene.situation()["measures"], 0, "{}", scene.verb("incident show --json"));
    finish(clients).unwrap();
}

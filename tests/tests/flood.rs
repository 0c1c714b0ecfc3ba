//! Floods beside legitimate traffic: what is dropped has the right reason, what is legitimate is answered, and every frame
//! that the device received is counted once.

use std::time::Duration;

use floodwall_tests::daemon::{Daemon, Place, all_packets, floodwall_ok, metric, packets, run_verb, status, wait_for};
use floodwall_tests::flood::Flood;
use floodwall_tests::topology::{PROTECTED, Topology};
use floodwall_tests::traffic::{Clients, Servers, finish};
use serde_json::Value;

const CLIENTS: u8 = 4;

#[test]
fn one_source_is_dropped_and_legitimate_traffic_is_answered() {
    let (topology, place) = (Topology::new(CLIENTS).unwrap(), Place::new().unwrap());
    let _daemon = Daemon::start(&topology.server, &place, &["--interface", PROTECTED]).unwrap();
    let verb = |words: &str| run_verb(&topology.server, &place, words).unwrap();
    verb("mode enforce");
    let (before, received) = topology.settled(&place).unwrap();
    let unseen = received - all_packets(&before);
    let _servers = Servers::start(&topology.server, &topology.servers()).unwrap();
    let duration = Duration::from_secs(4);
    let clients = Clients {
        servers: topology.servers(),
        sources: topology.clients.clone(),
        requests_per_second: 50,
        cpu: 1,
        duration,
    };
    let clients = clients.start(&topology.world).unwrap();
    let flood = Flood::udp(1, 300_000, duration);
    let udp_passed = || {
        let labels = ["class=\"udp\"", "verdict=\"pass\""];
        metric(&topology.server, &place, "floodwall_class_packets_total", &labels).unwrap()
    };
    let passed_before = udp_passed();
    let sent = flood.start(&topology.world, topology.target().unwrap(), 0).unwrap().join().unwrap().unwrap();
    let seen = finish(clients).unwrap();
    let (now, received) = topology.settled(&place).unwrap();

    // 5,000 a second and a burst of 10,000 by default, in each family, beside one packet of each legitimate request.
    let passed = udp_passed() - passed_before - seen.udp.asked as f64;
    let due = 2.0 * (10_000.0 + 5_000.0 * sent.seconds);
    assert!(passed < 1.05 * due, "{passed} passed of {} sent, {due} are due", sent.packets());
    let dropped = packets(&now, "drop", "packet-limit");
    assert!(dropped > sent.packets() / 2, "{dropped} dropped of {} sent", sent.packets());
    assert_eq!(packets(&now, "pass", "packet-limit"), 0);
    assert!(seen.tcp.share() >= 0.99, "TCP: {} of {}", seen.tcp.answered, seen.tcp.asked);
    assert!(seen.udp.share() >= 0.99, "UDP: {} of {}", seen.udp.answered, seen.udp.asked);
    assert_eq!(all_packets(&now) + unseen, received, "every frame is counted once");

    let top = wait_for("the flood at the top", || {
        let top: Value = serde_json::from_str(&verb("top --by dropped --json")).unwrap();
        (!top["talkers"].as_array().unwrap().is_empty()).then_some(top)
    });
    let top = top.unwrap();
    let source = top["talkers"][0]["source"].as_str().unwrap();
    assert!(source == "11.0.0.0" || source.starts_with("3fff:"), "{top}");
    let explained: Value = serde_json::from_str(&verb("explain 11.0.0.0 --json")).unwrap();
    assert!(explained["recent"]["dropped_per_second"].as_f64().unwrap() > 0.0, "{explained}");
    verb("limits set icmp --pps 0 --yes-block-all");
    let explained = verb("explain 11.0.0.0");
    let blocked = explained.lines().find(|line| line.trim_start().starts_with("icmp")).unwrap_or_default();
    assert!(blocked.contains("drop") && blocked.contains("never"), "{explained}");
}

#[test]
fn monitor_mode_counts_and_drops_nothing_until_the_next_packet_after_enforce() {
    let (topology, place) = (Topology::new(1).unwrap(), Place::new().unwrap());
    let _daemon = Daemon::start(&topology.server, &place, &["--interface", PROTECTED]).unwrap();
    let flood = Flood::udp(1, 100_000, Duration::from_secs(3));
    let flood = flood.start(&topology.world, topology.target().unwrap(), 0).unwrap();
    let count = |verdict| packets(&status(&topology.server, &place).unwrap(), verdict, "packet-limit");
    wait_for("would-be drops", || (count("pass") > 1_000).then_some(())).unwrap();
    assert_eq!(count("drop"), 0);
    floodwall_ok(&topology.server, &place, &["mode", "enforce"]).unwrap();
    let at_enforce = count("pass");
    wait_for("drops", || (count("drop") > 10_000).then_some(())).unwrap();
    let host = |labels: &[&str]| metric(&topology.server, &place, "floodwall_host_refused_per_second", labels).unwrap();
    wait_for("a look at the host after drops", || (count("drop") > 150_000).then_some(())).unwrap();
    assert_eq!(host(&["what=\"device\""]), 0.0, "what the filter drops is not what the device has no room for");
    flood.join().unwrap().unwrap();
    // The view of `at_enforce` was taken right after the change: nothing passed since.
    assert_eq!(count("pass"), at_enforce);
}

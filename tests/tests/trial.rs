//! Drops on trial: they end by themselves unless somebody confirms them, also where nobody is left to end them.

#![expect(clippy::unwrap_used, reason = "the helpers of tests fail as the tests do: by a panic")]

use std::time::Duration;

use floodwall_tests::daemon::{packets, wait_for};
use floodwall_tests::flood::Flood;
use floodwall_tests::stand::Stand;
use serde_json::Value;

/// Packets of a short flood that were dropped, and that passed, since the start.
fn flood(stand: &Stand) -> (u64, u64) {
    let flood = Flood::udp(1_000, 20_000, Duration::from_millis(300));
    flood.start(&stand.topology.world, stand.topology.target().unwrap(), 0).unwrap().join().unwrap().unwrap();
    let mut last = None;
    wait_for("all to be counted", || {
        // condition: a new view of the daemon.
        std::thread::sleep(Duration::from_millis(300));
        let now = stand.status();
        let counted = (packets(&now, "drop", "denied"), packets(&now, "pass", "denied"));
        (last.replace(counted) == Some(counted)).then_some(counted)
    })
    .unwrap()
}

#[test]
fn what_nobody_confirms_ends_though_the_daemon_is_dead_and_no_start_brings_it_back() {
    let stand = Stand::new();
    let daemon = stand.run(&[]);
    stand.verb("deny add 11.0.0.0/8 3fff::/16 --force");
    stand.verb("mode enforce --confirm 4s");
    let now = stand.status();
    assert!(now["mode"] == "enforce" && now["confirm_within_s"].as_u64() >= Some(1), "{now}");
    daemon.kill().unwrap();
    let (dropped, _) = flood(&stand);
    assert!(dropped > 0, "they were real");
    stand.wait_for_mode("monitor");
    let (still, passed) = flood(&stand);
    assert!(still == dropped && passed > 1_000, "{still} {passed}");
    assert_eq!(stand.status()["confirm_within_s"], 0);
    assert_eq!(stand.exit("status").0, Some(10));
    let (exit, said) = stand.exit("confirm");
    assert!(exit == Some(5) && said.contains("over"), "{said}");
    // Neither a flag nor the file is somebody who still gets in.
    stand.write("auto_allow = false\nmode = \"enforce\"\n");
    let daemon = stand.run(&["--mode", "enforce"]);
    assert_eq!(stand.status()["mode"], "monitor");
    stand.verb("reload");
    assert_eq!(stand.status()["mode"], "monitor");
    stand.verb("mode enforce");
    let (now, _) = flood(&stand);
    assert!(now > dropped, "the operator's word");
    assert_eq!(stand.status()["confirm_within_s"], Value::Null);
    daemon.stop().unwrap();
}

#[test]
fn what_is_confirmed_stays() {
    let stand = Stand::new();
    let daemon = stand.run(&["--mode", "enforce", "--confirm", "1h"]);
    assert!(stand.status()["confirm_within_s"].as_u64() > Some(3_000));
    let log = std::fs::read_to_string(stand.place.log()).unwrap();
    assert!(log.contains("floodwall confirm"), "{log}");
    // A restart neither confirms it nor begins anew; nor does the kill switch.
    daemon.stop().unwrap();
    let daemon = stand.run(&["--mode", "enforce", "--confirm", "3h"]);
    stand.verb("stop");
    stand.verb("resume");
    assert!(stand.status()["confirm_within_s"].as_u64() < Some(3_601), "{}", stand.status());
    stand.verb("confirm");
    let now = stand.status();
    assert_eq!((&now["mode"], &now["confirm_within_s"]), (&Value::from("enforce"), &Value::Null));
    assert_eq!(stand.exit("confirm").0, Some(5), "nothing waits any more");
    assert_eq!(stand.exit("mode enforce --confirm 60s").0, Some(5), "it is in force already");
    assert_eq!(stand.exit("mode monitor --confirm 60s").0, Some(2));
    daemon.stop().unwrap();
}

#[test]
fn an_applied_file_ends_though_the_daemon_is_dead_and_the_next_start_does_not_bring_it_back() {
    let stand = Stand::new();
    stand.write("auto_allow = false\nmode = \"enforce\"\n");
    let daemon = stand.run(&[]);
    stand.write("auto_allow = false\nmode = \"enforce\"\n[deny]\nprefixes = [\"11.0.0.0/8\"]\n");
    let said = stand.verb("apply --confirm 4s");
    assert!(said.contains("deny list") && said.contains("floodwall confirm"), "{said}");
    daemon.kill().unwrap();
    let (dropped, _) = flood(&stand);
    assert!(dropped > 0, "it was in force");
    stand.wait_for_mode("monitor");
    let daemon = stand.run(&[]);
    let (still, passed) = flood(&stand);
    assert!(still == dropped && passed > 1_000, "{still} {passed}");
    assert_eq!(stand.status()["confirm_within_s"], 0);
    daemon.stop().unwrap();
}

#[test]
fn a_file_is_tried_and_written_down_when_it_ends() {
    let stand = Stand::new();
    stand.write("auto_allow = false\nmode = \"enforce\"\n[limits.udp]\npps = 100\n");
    let daemon = stand.run(&[]);
    assert_eq!(stand.status()["confirm_within_s"], Value::Null);
    // What changes nothing needs no trial.
    assert!(!stand.verb("reload --confirm 1s").contains("confirm"));
    stand.write("auto_allow = false\nmode = \"enforce\"\n[limits.udp]\npps = 200\n");
    let said = stand.verb("apply --confirm 1s");
    assert!(said.contains("limit udp") && said.contains("floodwall confirm"), "{said}");
    stand.wait_for_mode("monitor");
    wait_for("the history", || stand.verb("history").contains("not confirmed").then_some(())).unwrap();
    stand.verb("mode enforce --confirm 1h");
    stand.verb("confirm");
    // One that is refused leaves the mode as it was.
    stand.write("auto_allow = false\nmode = \"enforce\"\n[limits.udp]\npps = 300\n[services.a]\nports = [\"tcp/1\"]\n[services.b]\nports = [\"tcp/1\"]\n");
    assert_eq!(stand.exit("reload --confirm 1s").0, Some(3));
    assert_eq!(stand.status()["confirm_within_s"], Value::Null);
    daemon.stop().unwrap();
}

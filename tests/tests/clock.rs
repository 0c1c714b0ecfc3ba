//! Clocks that are not as they were (63): the daemon's wall clock jumps ten years, and a time namespace has another monotonic one.
//! Limits, lists, trials and samples go by the kernel's clocks, which are the same for all.

#![expect(clippy::unwrap_used, reason = "the helpers of tests fail as the tests do: by a panic")]

use std::process::{Child, Stdio};
use std::time::Duration;

use floodwall_tests::clock::WallClock;
use floodwall_tests::daemon::{Daemon, binary, packets, status, wait_for};
use floodwall_tests::flood::Flood;
use floodwall_tests::stand::Stand;
use floodwall_tests::topology::PROTECTED;

const YEARS_S: i64 = 10 * 365 * 86_400;

/// Drops of a short flood of denied sources.
fn flood(stand: &Stand) {
    let before = packets(&stand.status(), "drop", "denied");
    let flood = Flood::udp(1_000, 20_000, Duration::from_millis(500));
    flood.start(&stand.topology.world, stand.topology.target().unwrap(), 0).unwrap().join().unwrap().unwrap();
    wait_for("drops", || (packets(&stand.status(), "drop", "denied") > before + 2_000).then_some(())).unwrap();
}

/// What is to end within the hour still does, and not sooner.
fn check(stand: &Stand) {
    let entries = stand.json("deny list")["entries"].clone();
    let entry = entries.as_array().unwrap().iter().find(|entry| entry["prefix"] == "11.0.0.0/8").unwrap().clone();
    assert!((3_000..=3_601).contains(&entry["ttl_s"].as_u64().unwrap()), "{entry}");
    let now = stand.status();
    assert!(now["mode"] == "enforce" && (3_000..=3_601).contains(&now["confirm_within_s"].as_u64().unwrap()), "{now}");
    flood(stand);
    // Samples are of these seconds, and no older or newer ones.
    let seen = || !stand.json("top")["talkers"].as_array().unwrap().is_empty();
    wait_for("what was sampled", || seen().then_some(())).unwrap();
    stand.verb("deny add 192.0.2.1 --ttl 1s");
    let gone = || !stand.verb("deny list").contains("192.0.2.1/32");
    wait_for("an entry to end", || gone().then_some(())).unwrap();
}

fn arm(stand: &Stand) {
    stand.verb("deny add 11.0.0.0/8 --ttl 1h --force");
    stand.verb("mode enforce --confirm 1h");
}

#[test]
fn f63_the_wall_clock_jumps_ten_years_and_nothing_ends_or_stays_by_it() {
    let stand = Stand::new();
    let clock = WallClock::new(&stand.place).unwrap();
    let run = ["--interface", PROTECTED];
    let daemon = Daemon::start_with(&stand.topology.server, &stand.place, &run, &clock.environment()).unwrap();
    arm(&stand);
    let written = |words: &str| {
        stand.verb(words);
        stand.json("history -n 1")["changes"][0]["unix_s"].as_i64().unwrap()
    };
    let begun = written("limits set icmp --pps 70");
    for ahead_s in [YEARS_S, -YEARS_S, 0] {
        clock.jump(ahead_s).unwrap();
        // It has jumped: what is written down has its time.
        let at = written(&format!("limits set icmp --pps {}", 71 + ahead_s.signum()));
        assert!((at - begun - ahead_s).abs() < 600, "{at} {begun} {ahead_s}");
        check(&stand);
        assert_eq!(stand.status()["attached"], true);
        stand.verb("explain 11.0.0.1");
        stand.verb("metrics");
    }
    daemon.stop().unwrap();
    let log = std::fs::read_to_string(stand.place.log()).unwrap();
    assert!(!log.contains("panicked") && !log.contains("ERROR"), "{log}");
}

#[test]
fn f63_a_time_namespace_has_another_monotonic_clock_and_the_filter_has_not() {
    let stand = Stand::new();
    // As a container has it that was moved here from a machine that had run for a year longer.
    let daemon = stand.place.command(&stand.topology.server, &["run", "--interface", PROTECTED, "--respond", "off"]);
    let daemon = daemon.unwrap();
    let mut moved = stand.topology.server.command("unshare").unwrap();
    moved.args(["--time", "--monotonic", "31536000"]).arg(binary().unwrap());
    moved.args(daemon.get_args()).envs(daemon.get_envs().filter_map(|(name, value)| Some((name, value?))));
    moved.env_remove("SSH_CONNECTION");
    let log = std::fs::File::create(stand.place.log()).unwrap();
    let daemon = Running(moved.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log).spawn().unwrap());
    let answers = || status(&stand.topology.server, &stand.place).is_ok_and(|status| status["daemon"] == true);
    let ready = wait_for("the daemon", || answers().then_some(()));
    let log = || std::fs::read_to_string(stand.place.log()).unwrap();
    assert!(ready.is_ok(), "{}", log());
    let namespace = |process: &str| std::fs::read_link(format!("/proc/{process}/ns/time")).unwrap();
    assert_ne!(namespace(&daemon.0.id().to_string()), namespace("self"), "it has a clock of its own");
    arm(&stand);
    check(&stand);
}

/// A process that does not outlive this value.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

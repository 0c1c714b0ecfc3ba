//! The configuration file and the kill switch, with the daemon on a link: what the file says is in force, a reload changes
//! all of it or nothing, and nothing drops while all dropping is stopped.

#![expect(clippy::unwrap_used, reason = "the helpers of tests fail as the tests do: by a panic")]

use std::path::PathBuf;
use std::time::Duration;

use floodwall_tests::daemon::{Daemon, Place, floodwall, packets, run_verb, status, wait_for};
use floodwall_tests::flood::Flood;
use floodwall_tests::topology::{PROTECTED, Topology};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

const FILE: &str = r#"
interfaces = ["eth0"]
mode = "enforce"
metrics = "off"
auto_allow = false

[limits.udp]
pps = 1234          # measured in May
burst = 2468
subnet = { pps = 9000 }

[policy]
bare-syn = "drop"

[services.web]
ports = ["tcp/443", "udp/443"]
cap_pps = 5000

[deny]
prefixes = ["203.0.113.0/24"]
"#;

struct Stand {
    topology: Topology,
    place: Place,
    file: PathBuf,
}

impl Stand {
    fn new() -> Self {
        let (topology, place) = (Topology::new(1).unwrap(), Place::new().unwrap());
        let file = place.directory().join("floodwall.toml");
        let stand = Self { topology, place, file };
        stand.write(&FILE.replace("eth0", PROTECTED));
        stand
    }

    fn write(&self, text: &str) {
        std::fs::write(&self.file, text).unwrap();
    }

    fn read(&self) -> String {
        std::fs::read_to_string(&self.file).unwrap()
    }

    fn run(&self, more: &[&str]) -> Daemon {
        let file = self.file.to_str().unwrap();
        Daemon::start(&self.topology.server, &self.place, &[&["--config", file], more].concat()).unwrap()
    }

    fn verb(&self, words: &str) -> String {
        run_verb(&self.topology.server, &self.place, words).unwrap()
    }

    fn json(&self, words: &str) -> Value {
        serde_json::from_str(&self.verb(&format!("{words} --json"))).unwrap()
    }

    /// The exit code, and what was said.
    fn refused(&self, words: &str) -> (Option<i32>, String) {
        let output = floodwall(&self.topology.server, &self.place, &words.split(' ').collect::<Vec<_>>()).unwrap();
        (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
    }

    fn status(&self) -> Value {
        status(&self.topology.server, &self.place).unwrap()
    }

    fn udp_limit(&self) -> u64 {
        let limits = self.json("limits show");
        let udp = limits["limits"]
            .as_array()
            .unwrap()
            .iter()
            .find(|limit| limit["name"] == "udp" && limit["per"] == "source");
        udp.unwrap()["packets"]["per_second"].as_u64().unwrap()
    }

    fn config(&self, verb: &str) -> String {
        self.verb(&format!("config {verb} --config {}", self.file.display()))
    }
}

#[test]
fn what_the_file_says_is_in_force_and_flags_count_more() {
    let stand = Stand::new();
    let daemon = stand.run(&[]);
    assert_eq!(stand.status()["mode"], "enforce");
    assert_eq!(stand.udp_limit(), 1_234);
    assert_eq!(stand.json("service list")["services"][0]["name"], "web");
    assert_eq!(stand.json("deny list")["entries"][0]["reason"], "configuration file");
    let policies = stand.json("policy show");
    let of = |reason: &str| {
        let policies = policies["policies"].as_array().unwrap();
        policies.iter().find(|policy| policy["reason"] == reason).unwrap()["verdict"].clone()
    };
    assert_eq!((of("bare-syn"), of("martian")), (Value::from("drop"), Value::from("pass")));
    assert!(stand.config("diff").starts_with("nothing"));
    let shown = stand.config("show --origin");
    assert!(
        shown.lines().any(|line| line.starts_with("limits.udp.pps = 1234") && line.ends_with("floodwall.toml:8")),
        "{shown}"
    );
    assert!(shown.lines().any(|line| line.starts_with("limits.tcp.pps") && line.ends_with("# default")), "{shown}");
    daemon.stop().unwrap();
    let daemon = stand.run(&["--mode", "monitor"]);
    assert_eq!(stand.status()["mode"], "monitor");
    daemon.stop().unwrap();
}

#[test]
fn a_reload_changes_all_or_nothing_and_says_what() {
    let stand = Stand::new();
    let daemon = stand.run(&[]);
    stand.verb("deny add 198.51.100.7 --reason mine");
    let before = stand.read();
    // Right in itself, but the last of it cannot be: two services behind one port.
    stand.write(
        &before
            .replace("pps = 1234", "pps = 4321")
            .replace("[deny]", "[services.other]\nports = [\"tcp/443\"]\n[deny]"),
    );
    let (exit, said) = stand.refused("reload");
    assert!(exit == Some(3) && said.contains("tcp/443 would be of both"), "{exit:?}: {said}");
    assert_eq!(stand.udp_limit(), 1_234, "nothing of it");
    // A typo.
    stand.write(&before.replace("pps = 1234", "pps = 4321").replace("bare-syn", "bear-syn"));
    let (exit, said) = stand.refused("reload");
    assert!(
        exit == Some(3) && said.contains("floodwall.toml:13:1") && said.contains("did you mean `bare-syn`"),
        "{said}"
    );
    assert_eq!(stand.udp_limit(), 1_234);
    // Right: what is gone from a section goes back to its default, what was set by hand in a list stays.
    let right = before
        .replace("pps = 1234", "pps = 4321")
        .replace("bare-syn = \"drop\"", "")
        .replace("203.0.113.0/24", "192.0.2.0/24");
    stand.write(&right);
    let differences = stand.config("diff");
    let said = stand.verb("reload");
    for part in ["limit udp: ", "policy bare-syn: drop -> pass", "deny list: 2 prefixes -> 1 added, 1 removed"] {
        assert!(said.contains(part) && differences.contains(part), "{part}\n{said}\n{differences}");
    }
    assert_eq!(stand.udp_limit(), 4_321);
    let denied = stand.json("deny list");
    let denied: Vec<_> =
        denied["entries"].as_array().unwrap().iter().map(|entry| entry["prefix"].as_str().unwrap()).collect();
    assert_eq!(denied, ["192.0.2.0/24", "198.51.100.7/32"]);
    // By a signal, as `systemctl reload` may do it; what takes a restart is told.
    stand.write(&right.replace("pps = 4321", "pps = 777").replace("metrics = \"off\"", "metrics = \"127.0.0.1:9999\""));
    kill(Pid::from_raw(daemon.pid() as i32), Signal::SIGHUP).unwrap();
    wait_for("the reload", || (stand.udp_limit() == 777).then_some(())).unwrap();
    let said: Value = stand.json("reload");
    assert_eq!((said["changes"].as_array().unwrap().len(), &said["needs_restart"][0]), (0, &Value::from("metrics")));
    daemon.stop().unwrap();
}

#[test]
fn a_limit_is_saved_with_the_comments_of_the_file() {
    let stand = Stand::new();
    let daemon = stand.run(&[]);
    let before = stand.read();
    stand.verb(&format!("limits set udp --pps 4000 --burst 8000 --save --config {}", stand.file.display()));
    let expected = before.replace("pps = 1234 ", "pps = 4000 ").replace("burst = 2468\n", "burst = 8000\n");
    let saved = stand.read();
    assert!(saved.contains("pps = 4000          # measured in May\nburst = 8000\n"), "{saved}");
    assert_eq!(saved.lines().count(), expected.lines().count() + 1, "{saved}");
    assert!(stand.config("diff").starts_with("nothing"));
    // A directory beside the file is read after it.
    let directory = stand.place.directory().join("conf.d");
    std::fs::create_dir(&directory).unwrap();
    std::fs::write(directory.join("10-udp.toml"), "[limits.udp]\npps = 555\n").unwrap();
    stand.verb("reload");
    assert_eq!(stand.udp_limit(), 555);
    daemon.stop().unwrap();
}

#[test]
fn nothing_drops_while_all_dropping_is_stopped() {
    let stand = Stand::new();
    let daemon = stand.run(&[]);
    stand.verb("deny add 11.0.0.0/8 3fff::/16 --force");
    let mut sent = 0;
    let mut flood = || {
        let flood = Flood::udp(1_000, 20_000, Duration::from_millis(500));
        let flood = flood.start(&stand.topology.world, stand.topology.target().unwrap(), 0).unwrap();
        sent += flood.join().unwrap().unwrap().packets();
        wait_for("all to be counted", || {
            let now = stand.status();
            let counted = (packets(&now, "drop", "denied"), packets(&now, "pass", "denied"));
            (counted.0 + counted.1 == sent).then_some(counted)
        })
        .unwrap()
    };
    let (dropped, passed) = flood();
    assert!(dropped > 5_000 && passed == 0, "{dropped} {passed}");
    stand.verb("stop");
    assert_eq!(stand.status()["mode"], "stopped");
    // Whatever anybody sets: a mode, a file, a new daemon.
    let (exit, said) = stand.refused("mode enforce");
    assert!(exit == Some(5) && said.contains("floodwall resume"), "{said}");
    stand.verb("reload");
    daemon.stop().unwrap();
    let daemon = stand.run(&["--mode", "enforce"]);
    let (still, passed) = flood();
    assert!(still == dropped && passed > 5_000, "{still} {passed}");
    // What was blocked can be unblocked meanwhile.
    stand.verb("deny remove 11.0.0.0/8 3fff::/16");
    stand.verb("deny add 11.0.0.0/8 3fff::/16 --force");
    stand.verb("resume");
    assert_eq!(stand.status()["mode"], "enforce");
    let (now, still) = flood();
    assert!(now > dropped && still == passed, "{now} {still}");
    daemon.stop().unwrap();
}

#[test]
fn who_changed_what_is_written_down() {
    let stand = Stand::new();
    let daemon = stand.run(&[]);
    stand.verb("mode monitor");
    assert_eq!(stand.refused("policy set nonsense drop").0, Some(2), "which is no change");
    daemon.stop().unwrap();
    stand.verb("limits set udp --pps 4444");
    let changes = stand.json("history");
    let changes: Vec<_> = changes["changes"].as_array().unwrap().iter().collect();
    let of = |key: &str| changes.iter().map(|change| change[key].as_str().unwrap()).collect::<Vec<_>>();
    assert_eq!((of("through"), of("user")), (vec!["socket", "maps"], vec!["root", "root"]));
    assert_eq!(of("change"), ["mode monitor", "limits set udp --pps 4444"]);
    let shown = stand.verb("history -n 1");
    assert!(shown.contains("limits set udp") && !shown.contains("mode monitor"), "{shown}");
}

//! The configuration file and the kill switch, with the daemon on a link: what the file says is in force, a reload changes
//! all of it or nothing, and nothing drops while all dropping is stopped.

#![expect(clippy::unwrap_used, reason = "the helpers of tests fail as the tests do: by a panic")]

use std::path::PathBuf;
use std::time::Duration;

use floodwall::detect::Vector;
use floodwall::respond::{Cause, Policy};
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

/// Names of signatures, each with its reason and hits.
fn signatures(stand: &Stand) -> Vec<(String, String, u64)> {
    let shown = stand.json("signature list");
    let of = |signature: &Value| {
        let text = |key: &str| signature[key].as_str().unwrap().to_owned();
        (text("name"), text("reason"), signature["packets"].as_u64().unwrap())
    };
    shown["signatures"].as_array().unwrap().iter().map(of).collect()
}

fn amplifier_ports(stand: &Stand) -> Vec<u64> {
    let shown = stand.json("amplifiers list");
    shown["ports"].as_array().unwrap().iter().map(|view| view["port"].as_u64().unwrap()).collect()
}

const SIGNATURES: &str = r#"
[signatures.dns-any]
action = "count"
proto = "udp"
src_port = 53
length = "1000-65535"
reason = "ticket 4711"

[signatures.counted]
action = "count"
proto = "udp"
dst_port = "1-65535"

[amplifiers]
add = [3074]
remove = [500, 4500]
"#;

#[test]
fn signatures_of_the_file_are_in_force_and_others_stay() {
    let stand = Stand::new();
    let without = stand.read();
    stand.write(&(without.clone() + SIGNATURES));
    let daemon = stand.run(&[]);
    let names = || signatures(&stand).into_iter().map(|(name, ..)| name).collect::<Vec<_>>();
    let reason = |of: &str| signatures(&stand).into_iter().find(|(name, ..)| name == of).unwrap().1;
    assert_eq!((names(), reason("dns-any")), (vec!["counted".to_owned(), "dns-any".to_owned()], "ticket 4711".into()));
    assert_eq!(reason("counted"), "configuration file");
    let ports = amplifier_ports(&stand);
    assert!(ports.contains(&3074) && ports.contains(&53) && !ports.contains(&500), "{ports:?}");
    assert!(stand.config("diff").starts_with("nothing"));
    let shown = stand.config("show --origin");
    let has = |key: &str, place: &str| shown.lines().any(|line| line.starts_with(key) && line.ends_with(place));
    assert!(has("signatures.dns-any.src_port = 53", "floodwall.toml:25"), "{shown}");
    assert!(has("amplifiers.add = [3074]", "floodwall.toml:35"), "{shown}");
    // What suits is counted, and goes on being counted by a signature that a reload leaves as it is.
    let flood = Flood::udp(100, 2_000, Duration::from_millis(200));
    let sent = flood.start(&stand.topology.world, stand.topology.target().unwrap(), 0).unwrap();
    let sent = sent.join().unwrap().unwrap().packets();
    let hits = |of: &str| signatures(&stand).into_iter().find(|(name, ..)| name == of).unwrap().2;
    wait_for("all to be counted", || (hits("counted") == sent).then_some(())).unwrap();
    // As detection adds them, and as somebody does for a while: neither is the file's. What somebody has added for good is.
    stand
        .verb("signature add auto-udp-flood-0000 --proto udp --src-port 19 --action drop --ttl 10m --reason automatic");
    stand.verb("signature add for-a-while --proto udp --src-port 20 --action drop --ttl 10m");
    stand.verb("signature add for-good --proto udp --src-port 21 --action drop");
    stand.verb("amplifiers add 9999");
    stand.write(&(without.clone() + &SIGNATURES.replace("1000-65535", "1200-65535")));
    let differences = stand.config("diff");
    let said = stand.verb("reload");
    for part in [
        "signature for-good: drop proto=udp src-port=21 -> none",
        "signature dns-any: count proto=udp src-port=53 length=1000-65535 -> count proto=udp src-port=53 length=1200-65535",
        "9999 removed",
    ] {
        assert!(said.contains(part) && differences.contains(part), "{part}\n{said}\n{differences}");
    }
    let mut after = names();
    after.sort();
    assert_eq!(after, ["auto-udp-flood-0000", "counted", "dns-any", "for-a-while"]);
    assert_eq!((hits("counted"), amplifier_ports(&stand)), (sent, ports.clone()));
    // A section that no file has any more leaves what is in force alone; an empty one has none.
    stand.write(&without);
    assert_eq!(stand.json("reload")["changes"], Value::Array(Vec::new()));
    stand.write(&(without + "[signatures]\n[amplifiers]\n"));
    stand.verb("reload");
    let mut after = names();
    after.sort();
    assert_eq!(after, ["auto-udp-flood-0000", "for-a-while"]);
    assert!(amplifier_ports(&stand).contains(&500));
    daemon.stop().unwrap();
}

#[test]
fn what_is_refused_after_the_signatures_takes_them_back() {
    let stand = Stand::new();
    let without = stand.read();
    stand.write(&(without.clone() + SIGNATURES));
    let daemon = stand.run(&[]);
    stand.verb("signature add for-a-while --proto udp --src-port 20 --action drop --ttl 10m");
    let (before, ports) = (signatures(&stand), amplifier_ports(&stand));
    // The stack has no cookies for every SYN: tcp_syncookies is 1.
    let changed = "[signatures.other]\naction = \"drop\"\nsrc_port = 7\n[amplifiers]\nports = [7]\n[cookies]\nmode = \"always\"\n";
    stand.write(&(without.replace("pps = 1234", "pps = 4321") + changed));
    let (exit, said) = stand.refused("reload");
    assert!(exit == Some(4) && said.contains("tcp_syncookies"), "{exit:?}: {said}");
    let mut after = signatures(&stand);
    after.sort();
    let mut expected = before;
    expected.sort();
    assert_eq!((after, amplifier_ports(&stand), stand.udp_limit()), (expected, ports, 1_234));
    // Without the last of it the same file is put in force.
    let text = stand.read();
    stand.write(&text.replace("mode = \"always\"", "mode = \"off\""));
    stand.verb("reload");
    let names: Vec<_> = signatures(&stand).into_iter().map(|(name, ..)| name).collect();
    assert_eq!((names.len(), amplifier_ports(&stand)), (2, vec![7]), "{names:?}");
    assert!(names.contains(&"other".to_owned()) && names.contains(&"for-a-while".to_owned()), "{names:?}");
    daemon.stop().unwrap();
}

#[test]
fn the_schema_has_signatures_and_amplifiers() {
    let stand = Stand::new();
    let schema: Value = serde_json::from_str(&stand.config("schema")).unwrap();
    let keys = |name: &str| {
        let properties = schema["$defs"][name]["properties"].as_object().unwrap();
        properties.keys().cloned().collect::<Vec<_>>()
    };
    assert!(schema["properties"]["signatures"].is_object() && schema["properties"]["amplifiers"].is_object());
    assert!(["action", "src_port", "payload"].iter().all(|key| keys("Signature").contains(&(*key).to_owned())));
    assert_eq!(keys("Amplifiers"), ["add", "ports", "remove"]);
    let (exit, said) = {
        stand.write("[signatures.x]\naction = \"drop\"\nproto = \"udp\"\nflags = \"syn\"\n");
        stand.refused(&format!("config check --config {}", stand.file.display()))
    };
    assert!(exit == Some(3) && said.contains("floodwall.toml:3: signatures.x.proto: only TCP has flags"), "{said}");
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

#[test]
fn what_is_done_is_chosen_for_each_kind_of_flood() {
    let text =
        "respond = \"advise\"\n[respond_to]\nsyn-flood = \"act\"\nhttp-flood = \"off\"\nmisconfiguration = \"act\"\n";
    let source = floodwall::configuration::Source::of_text(text).unwrap();
    let policies = source.configuration.policies(None);
    let of = |vector| policies.of(vector);
    assert_eq!((of(Vector::SynFlood), of(Vector::HttpFlood)), (Policy::Act, Policy::Off));
    assert_eq!(of(Vector::UdpFlood), Policy::Advise);
    assert_eq!((policies.of(Cause::Misconfiguration), policies.of(Cause::Overload)), (Policy::Act, Policy::Advise));
    let overruled = source.configuration.policies(Some(Policy::Off));
    assert!(Vector::ALL.into_iter().all(|vector| overruled.of(vector) == Policy::Off));
    let wrong =
        floodwall::configuration::Source::of_text("[respond_to]\nsyn-flod = \"act\"\n").unwrap_err().to_string();
    assert!(wrong.contains("floodwall.toml:2:1") && wrong.contains("syn-flood"), "{wrong}");
    let wrong = floodwall::configuration::Source::of_text("[respond_to]\nsurge = \"act\"\n").unwrap_err().to_string();
    assert!(wrong.contains("overload") && wrong.contains("misconfiguration"), "{wrong}");
}

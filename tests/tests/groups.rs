//! Groups of sources with limits of their own, over a link: their members have them and nobody else, whoever has set them.

#![expect(clippy::unwrap_used, reason = "the helpers of tests fail as the tests do: by a panic")]

use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::path::PathBuf;

use floodwall_tests::daemon::{Daemon, Place, metric, packets, wait_for};
use floodwall_tests::stand::Stand;
use floodwall_tests::topology::{PROTECTED, Topology};
use serde_json::Value;

const PARTNER: Ipv4Addr = Ipv4Addr::new(10, 66, 1, 1);
const STRANGER: Ipv4Addr = Ipv4Addr::new(10, 66, 1, 2);
const SERVER: Ipv4Addr = Ipv4Addr::new(10, 66, 0, 1);
const FILE: &str = r#"
interfaces = ["eth0"]
mode = "enforce"
auto_allow = false

[groups.partners] # who sends us their stock
prefixes = ["10.66.1.1/32", "fd66:1:1::/64"]

[groups.partners.limits.udp]
pps = 10
"#;

/// A stand with two clients, whose daemon has a file.
struct Link(Stand);

impl std::ops::Deref for Link {
    type Target = Stand;

    fn deref(&self) -> &Stand {
        &self.0
    }
}

impl Link {
    fn new() -> Self {
        let link = Self(Stand { topology: Topology::new(2).unwrap(), place: Place::new().unwrap() });
        link.write(&FILE.replace("eth0", PROTECTED));
        link
    }

    fn file(&self) -> PathBuf {
        self.place.directory().join("floodwall.toml")
    }

    fn read(&self) -> String {
        std::fs::read_to_string(self.file()).unwrap()
    }

    fn run(&self, more: &[&str]) -> Daemon {
        let file = self.file();
        Daemon::start(&self.topology.server, &self.place, &[&["--config", file.to_str().unwrap()], more].concat())
            .unwrap()
    }

    /// Sends a hundred datagrams at once.
    fn send(&self, source: Ipv4Addr) {
        let send = move || {
            let socket = UdpSocket::bind((source, 0)).unwrap();
            (0..100).for_each(|_| drop(socket.send_to(&[0; 64], SocketAddr::from((SERVER, 9)))));
        };
        self.topology.world.run(send).unwrap();
    }

    /// The same, and how many of them were dropped for a limit.
    fn lost(&self, source: Ipv4Addr) -> u64 {
        let dropped = || packets(&self.topology.settled(&self.place).unwrap().0, "drop", "packet-limit");
        let before = dropped();
        self.send(source);
        dropped() - before
    }
}

#[test]
fn members_have_the_limits_of_their_group_and_nobody_else_has() {
    let link = Link::new();
    let daemon = link.run(&[]);
    assert!((80..=90).contains(&link.lost(PARTNER)), "10 at once, and what the gate lets pass before it asks");
    assert_eq!(link.lost(STRANGER), 0);
    let explained = link.json(&format!("explain {PARTNER}"));
    assert_eq!((&explained["group"], &explained["entries"][0]["list"]), (&"partners".into(), &"groups".into()));
    let udp = explained["limits"].as_array().unwrap().iter().find(|limit| limit["name"] == "udp").unwrap();
    assert_eq!((&udp["group"], &udp["per_second"]), (&"partners".into(), &10.into()));
    assert_eq!(link.json(&format!("explain {STRANGER}"))["group"], Value::Null);
    assert!(
        link.verb("limits show").lines().any(|line| line.starts_with("udp") && line.contains("source in partners"))
    );
    let labels = ["group=\"partners\"", "limit=\"udp\""];
    let gauge = metric(&link.topology.server, &link.place, "floodwall_group_limit_packets_per_second", &labels);
    assert_eq!(gauge.unwrap(), 10.0);

    // A change of the lists leaves who is in a group alone, and a change of the limit comes at once.
    link.verb("deny add 203.0.113.0/24");
    assert!(link.lost(PARTNER) > 0);
    link.verb("limits set udp --group partners --pps 1000 --save");
    assert_eq!(link.lost(PARTNER), 0);
    assert!(
        link.read().contains("# who sends us their stock") && link.read().contains("pps = 1000"),
        "{}",
        link.read()
    );
    assert!(link.verb(&format!("config diff --config {}", link.file().display())).starts_with("nothing"));
    // Another limit for all leaves the group's own alone, and is that of whatever it has none of its own.
    link.verb("limits set udp --pps 10");
    assert_eq!(link.lost(PARTNER), 0);
    assert!(link.lost(STRANGER) > 80);
    link.verb("limits reset udp --group partners");
    assert!(link.lost(PARTNER) > 80);
    link.verb("limits set udp --group partners --pps off");
    assert_eq!(link.lost(PARTNER), 0);

    // By hand, and without a daemon.
    link.verb(&format!("group add partners {STRANGER}"));
    assert_eq!(link.lost(STRANGER), 0);
    daemon.kill().unwrap();
    let shown = link.verb("group list");
    assert!(shown.contains("partners") && shown.contains("10.66.1.2/32"), "{shown}");
    link.verb(&format!("group remove partners {STRANGER}"));
    let daemon = link.run(&[]);
    assert!(link.lost(STRANGER) > 80, "its own restart has the file's groups too");
    let history: Vec<_> = link.json("history")["changes"].as_array().unwrap().iter().map(Value::to_string).collect();
    let has = |words: &str| history.iter().any(|entry| entry.contains(words));
    assert!(has("limit udp of group partners") && has("groups +[\\\"partners\\\"]"), "{history:?}");
    daemon.stop().unwrap();
}

#[test]
fn a_reload_has_the_groups_of_the_file_and_no_others() {
    let link = Link::new();
    let daemon = link.run(&[]);
    link.verb("group add scanners 198.51.100.0/24");
    let more =
        link.read() + "\n[groups.mobile]\nprefixes = [\"10.66.1.2\"]\n[groups.mobile.limits]\nudp = { pps = 5 }\n";
    link.write(&more);
    let reloaded = link.verb("reload");
    assert!(reloaded.contains("group mobile: none -> 10.66.1.2/32; udp 5 per second"), "{reloaded}");
    assert!(reloaded.contains("group scanners: 198.51.100.0/24 -> none"), "{reloaded}");
    assert!(link.lost(STRANGER) > 80 && link.lost(PARTNER) > 80);
    // A file that is wrong changes nothing, and says where it is.
    let text = link.read();
    for (wrong, said) in [
        (text.replace("udp = { pps = 5 }", "udp = { pps = 0 }"), "groups.mobile.limits.udp: 0 would block all of it"),
        (text.replace("udp = { pps = 5 }", "udpp = { pps = 5 }"), "udpp"),
        (text.replace("10.66.1.2", "10.66.1.1"), "10.66.1.1/32 would be of both 'mobile' and 'partners'"),
        (text.replace("groups.mobile", "groups.seventeen-letters"), "no name for a group"),
        (text.replace("udp = { pps = 5 }", "allowed = { pps = 5 }"), "no limit of a group"),
        (text.replace("[groups.mobile.limits]\nudp", "[groups.mobile]\nlimit"), "duplicate key"),
    ] {
        link.write(&wrong);
        let (exit, error) = link.exit("reload");
        assert!(exit == Some(3) && error.contains(said) && error.contains("Nothing was changed"), "{said}: {error}");
    }
    assert_eq!(link.json("group list")["groups"].as_array().unwrap().len(), 2);
    daemon.stop().unwrap();
}

#[test]
fn what_is_typed_wrong_is_said_and_changes_nothing() {
    let link = Link::new();
    let daemon = link.run(&[]);
    let before = link.json("group list");
    for (words, exit, said) in [
        ("limits set udp --group nobody --pps 5", 2, "no group 'nobody' (have: partners)"),
        ("limits set udp --group partners --per subnet --pps 5", 2, "cannot be used with"),
        ("limits set allowed --group partners --pps 5", 2, "no limit of a group"),
        ("limits set udp --group partners --pps 0", 2, "of the group 'partners'"),
        ("limits set udp --group partners --pps 2000000", 2, "out of range"),
        ("limits reset --group nobody", 2, "no group 'nobody'"),
        ("limits preview udp --group nobody --pps 5", 2, "no group 'nobody'"),
        ("group add partners 10.0.0.0/33", 2, "10.0.0.0/33"),
        ("group add many 0.0.0.0/0 --force=yes", 2, "unexpected value"),
        ("limits preview udp --group a&pps=1 --pps 5", 2, "no name for a group"),
        ("group add others 10.66.1.1", 2, "10.66.1.1/32 would be of both"),
        ("group add a/b 10.66.1.3", 2, "no name for a group"),
        ("group remove nobody", 2, "no group 'nobody' (have: partners)"),
        ("group remove partners 192.0.2.1", 2, "192.0.2.1/32 is not in the group"),
        ("allow list groups", 2, "unexpected argument"),
    ] {
        let (code, error) = link.exit(words);
        assert!(code == Some(exit) && error.contains(said), "{words}: {code:?} {error}");
    }
    link.verb("group add scanners 198.51.100.0/24");
    let file = link.file();
    let file = file.display();
    let (code, error) = link.exit(&format!("limits set udp --group scanners --pps 5 --save --config {file}"));
    assert!(code == Some(3) && error.contains("[groups.scanners]"), "{error}");
    // A group that blocks takes in nearly nobody unless that is insisted on.
    link.verb("limits set udp --group scanners --pps 0 --force");
    let (code, error) = link.exit("group add scanners 0.0.0.0/1");
    assert!(code == Some(2) && error.contains("nearly everybody") && error.contains("--force"), "{error}");
    link.verb("group add scanners 0.0.0.0/1 --force");
    link.verb("group remove scanners");
    assert_eq!(link.json("group list")["groups"], before["groups"]);
    for number in 0..14 {
        link.verb(&format!("group add g{number} 192.0.2.{number}"));
    }
    let (code, error) = link.exit("group add g14 192.0.2.14");
    assert!(code == Some(3) && error.contains("room for 15 groups"), "{error}");
    daemon.stop().unwrap();
}

#[test]
fn a_preview_is_of_the_members_or_of_all_others() {
    let link = Link::new();
    let daemon = link.run(&["--mode", "monitor"]);
    let seen_of = |source: Ipv4Addr, words: &str| {
        wait_for("seconds that are over", || {
            link.send(source);
            let view = link.json(&format!("limits preview udp --pps 5{words}"));
            let sources: Vec<_> = view["dropped"].as_array()?.iter().map(|of| of["source"].clone()).collect();
            (view["seen_packets"].as_u64() >= Some(200)).then_some(sources)
        })
    };
    assert_eq!(seen_of(PARTNER, " --group partners").unwrap(), [PARTNER.to_string()]);
    assert_eq!(seen_of(STRANGER, "").unwrap(), [STRANGER.to_string()]);
    // A wider limit is of them all.
    assert_eq!(seen_of(PARTNER, " --per subnet").unwrap(), ["10.66.1.0/24"]);
    daemon.stop().unwrap();
}

//! Those who use it: who did what is written down with what was before and after, from where and why; of two who change the same
//! the second is told; whoever hangs up has changed all or nothing; and whoever watches sees it again and again.

#![expect(clippy::unwrap_used, reason = "the helpers of tests fail as the tests do: by a panic")]

use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::process::{Child, ChildStdout, Stdio};

use floodwall_tests::daemon::{floodwall, metric, status, wait_for};
use floodwall_tests::stand::Stand;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

/// What a verb says on standard error to somebody who is logged in from there, at a terminal of his own.
fn says_to(stand: &Stand, from: &str, words: &[&str]) -> String {
    let mut command = stand.place.command(&stand.topology.server, words).unwrap();
    let output = command.env("SSH_CONNECTION", format!("{from} 50000 10.66.0.1 22")).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{words:?}: {said}");
    said
}

/// The last change that begins with this word, with what it was from and to.
fn last(stand: &Stand, change: &str) -> (Value, Value, Value) {
    let all = stand.changes();
    let of = all.iter().rev().find(|entry| entry["change"].as_str().unwrap().starts_with(change));
    assert!(of.is_some(), "{change}: {all:?}");
    let of = of.unwrap().clone();
    let detail = of["details"][0].clone();
    (of, detail["from"].clone(), detail["to"].clone())
}

fn watching(stand: &Stand, words: &str) -> Watch {
    let mut command = stand.place.command(&stand.topology.server, &words.split(' ').collect::<Vec<_>>()).unwrap();
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let answers = BufReader::new(child.stdout.take().unwrap());
    Watch { child: Ended(child), answers }
}

struct Watch {
    child: Ended,
    answers: BufReader<ChildStdout>,
}

/// A process that does not outlive this value.
struct Ended(Child);

impl Ended {
    /// Its exit code, and what it has said on standard error.
    fn wait(mut self) -> (Option<i32>, String) {
        let exit = wait_for("the watch to end", || self.0.try_wait().unwrap()).unwrap();
        let mut said = String::new();
        self.0.stderr.take().unwrap().read_to_string(&mut said).unwrap();
        (exit.code(), said)
    }
}

impl Drop for Ended {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Watch {
    fn line(&mut self) -> String {
        let mut line = String::new();
        self.answers.read_line(&mut line).unwrap();
        line
    }

    fn interrupt(&self) {
        kill(Pid::from_raw(self.child.0.id() as i32), Signal::SIGINT).unwrap();
    }

    fn ends(self) -> (Option<i32>, String) {
        self.child.wait()
    }
}

#[test]
fn what_was_before_and_after_is_written_down_and_why() {
    let stand = Stand::new();
    let daemon = stand.run(&[]);
    let (before, _) =
        (stand.verb("limits show"), says_to(&stand, "198.51.100.7", &["mode", "enforce", "--why", "ticket 4711"]));
    let (entry, from, to) = last(&stand, "mode");
    assert_eq!((&from, &to), (&Value::from("monitor"), &Value::from("enforce")));
    assert_eq!((&entry["why"], &entry["from"]), (&Value::from("ticket 4711"), &Value::from("198.51.100.7")));
    stand.verb("limits set udp --pps 4444");
    let (entry, from, to) = last(&stand, "limits udp");
    assert!(entry["details"].as_array().unwrap().len() == 1 && entry["details"][0]["what"] == "limit udp", "{entry}");
    assert!(to.as_str().unwrap().contains("4444") && from != to && !before.contains("4444"), "{entry}");
    stand.verb("service add web --port 443 --cap-pps 900");
    let (_, from, to) = last(&stand, "services");
    assert!(from == "none" && to.as_str().unwrap().contains("tcp/443") && to.as_str().unwrap().contains("900"), "{to}");
    // Of entries and signatures their own reason is the reason.
    stand.verb("deny add 192.0.2.1 192.0.2.2 --reason scan");
    let (entry, from, to) = last(&stand, "deny");
    assert!(from == "0 prefixes" && to.as_str().unwrap().contains("+192.0.2.2/32"), "{entry}");
    assert_eq!(entry["why"], "scan");
    std::fs::write(stand.place.directory().join("floodwall.toml"), "auto_allow = false\n[limits.icmp]\npps = 77\n")
        .unwrap();
    stand.verb("reload");
    let (entry, _, _) = last(&stand, "reload");
    let icmp = entry["details"].as_array().unwrap().iter().find(|detail| detail["what"] == "limit icmp");
    assert!(icmp.unwrap()["to"].as_str().unwrap().starts_with("77"), "{entry}");
    let shown = stand.verb("history");
    assert!(shown.contains("root from 198.51.100.7") && shown.contains("\"ticket 4711\""), "{shown}");
    assert!(shown.contains("mode: monitor -> enforce"), "{shown}");
    let (server, place) = (&stand.topology.server, &stand.place);
    let counted = || metric(server, place, "floodwall_changes_total", &["operator"]).unwrap() == 5.0;
    wait_for("all to be counted", || counted().then_some(())).unwrap();
    daemon.stop().unwrap();
    // Without a daemon the verb itself writes it down.
    stand.verb("limits set udp --pps 5555 --why later");
    let (entry, from, to) = last(&stand, "limits set udp");
    assert!(from.as_str().unwrap().contains("5000") && to.as_str().unwrap().contains("5555"), "{entry}");
    assert_eq!((&entry["through"], &entry["why"]), (&Value::from("maps"), &Value::from("later")));
}

#[test]
fn of_two_who_change_the_same_the_second_is_told() {
    let stand = Stand::new();
    let _daemon = stand.run(&[]);
    let set = |from: &str, pps: &str| says_to(&stand, from, &["limits", "set", "udp", "--pps", pps]);
    assert_eq!(set("198.51.100.7", "4000"), "");
    assert_eq!(set("198.51.100.7", "3000"), "", "of himself nobody is told");
    let said = set("198.51.100.8", "500");
    assert!(said.contains("limit udp was changed") && said.contains("root from 198.51.100.7"), "{said}");
    assert!(said.contains("4000") && said.contains("3000"), "what he has overwritten: {said}");
    assert_eq!(says_to(&stand, "198.51.100.8", &["limits", "set", "icmp", "--pps", "50"]), "", "another thing");
    // Entries of a list are each a thing of their own.
    assert_eq!(says_to(&stand, "198.51.100.7", &["deny", "add", "192.0.2.1"]), "");
    assert_eq!(says_to(&stand, "198.51.100.8", &["deny", "add", "192.0.2.2"]), "");
    let said = says_to(&stand, "198.51.100.8", &["deny", "remove", "192.0.2.1"]);
    assert!(said.contains("deny list 192.0.2.1/32 was changed"), "{said}");
}

#[test]
fn f41_who_hangs_up_has_changed_all_of_it_and_it_is_written_down() {
    let stand = Stand::new();
    let daemon = stand.run(&[]);
    let prefixes = (0..30_000_u32).map(|number| format!("{}/32", std::net::Ipv4Addr::from(0x0b00_0000 + number)));
    let add: Vec<_> = prefixes.map(|prefix| serde_json::json!({ "prefix": prefix })).collect();
    let body = serde_json::json!({ "add": add }).to_string();
    let head = format!(
        "POST /api/v1/lists/deny HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n",
        body.len()
    );
    let mut stream = UnixStream::connect(stand.place.socket()).unwrap();
    stream.write_all((head + &body).as_bytes()).unwrap();
    drop(stream);
    wait_for("it to be written down", || {
        stand.changes().iter().any(|entry| entry["change"] == "deny +30000 -0").then_some(())
    })
    .unwrap();
    let entries = || status(&stand.topology.server, &stand.place).unwrap()["deny_entries"].clone();
    wait_for("it to be shown", || (entries() == 30_000).then_some(())).unwrap();
    // Half a message is none.
    let mut stream = UnixStream::connect(stand.place.socket()).unwrap();
    stream.write_all(b"POST /api/v1/mode HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: 18\r\n\r\n{\"mode\":\"enf").unwrap();
    drop(stream);
    stand.verb("limits set udp --pps 4444");
    assert_eq!(status(&stand.topology.server, &stand.place).unwrap()["mode"], "monitor");
    daemon.stop().unwrap();
}

/// What a program reads has to say what it is, whichever verb answers.
#[test]
fn every_verb_that_looks_says_the_version_of_its_shape() {
    let stand = Stand::new();
    let daemon = stand.run(&[]);
    let of_all = "status|limits show|limits preview udp --pps 100|policy show|amplifiers list|service list|cookies show|\
                  signature list|allow list|deny list|top|explain 192.0.2.1|incident list|history|doctor eth0|audit|\
                  config check|config show|config diff";
    for words in of_all.split('|') {
        // Findings are an exit code too.
        let words: Vec<_> = words.split(' ').chain(["--json"]).collect();
        let output = floodwall(&stand.topology.server, &stand.place, &words).unwrap();
        let answer: Value = serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{words:?}: {error}"));
        assert_eq!(answer["schema_version"], 1, "{words:?}: {answer}");
    }
    daemon.stop().unwrap();
}

#[test]
fn who_watches_sees_it_again_and_again() {
    let stand = Stand::new();
    let daemon = stand.run(&[]);
    let mut watch = watching(&stand, "status --watch 1 --json");
    for _ in 0..2 {
        let seen: Value = serde_json::from_str(&watch.line()).unwrap();
        assert_eq!(seen["mode"], "monitor");
    }
    stand.verb("mode enforce");
    wait_for("the change", || watch.line().contains("\"mode\":\"enforce\"").then_some(())).unwrap();
    watch.interrupt();
    assert_eq!(watch.ends().0, Some(0), "as the last status: enforcing");
    // Nobody reads any more.
    let mut watch = watching(&stand, "deny list --watch 1");
    assert!(watch.line().contains("empty"));
    let Watch { child, answers } = watch;
    drop(answers);
    assert_eq!(child.wait().0, Some(0));
    // A daemon that is being restarted is missed, and asked again.
    let mut watch = watching(&stand, "top --watch 1 --json");
    watch.line();
    daemon.stop().unwrap();
    let daemon = stand.run(&[]);
    let seen: Value = serde_json::from_str(&watch.line()).unwrap();
    assert_eq!(seen["schema_version"], 1);
    watch.interrupt();
    watch.ends();
    daemon.stop().unwrap();
    // Without one there is no first answer; and what changes something is not watched.
    let (exit, said) = watching(&stand, "top --watch").ends();
    assert!(exit == Some(4) && said.contains("no daemon"), "{said}");
    let (exit, said) = watching(&stand, "mode monitor --watch").ends();
    assert!(exit == Some(2) && said.contains("--watch"), "{said}");
}

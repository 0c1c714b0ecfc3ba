//! Nobody locks himself out by accident: what would do it is refused, and peers that this host needs are allowed by themselves.

#![expect(clippy::unwrap_used, reason = "the helpers of tests fail as the tests do: by a panic")]

use std::ffi::OsStr;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};

use floodwall_tests::daemon::{Daemon, Place, floodwall, run_verb, status};
use floodwall_tests::http::send_unix;
use floodwall_tests::topology::{PROTECTED, Topology};
use serde_json::{Value, json};

const SERVER: Ipv4Addr = Ipv4Addr::new(10, 66, 0, 1);
const GATEWAY: &str = "10.66.0.254";
const SESSION: &str = "192.0.2.7 50000 10.66.0.1 22";

struct Stand {
    topology: Topology,
    place: Place,
}

impl Stand {
    fn new(file: &str) -> Self {
        let (topology, place) = (Topology::new(1).unwrap(), Place::new().unwrap());
        topology.server.ip(&format!("route add default via {GATEWAY}")).unwrap();
        let stand = Self { topology, place };
        stand.write(file);
        stand
    }

    fn write(&self, file: &str) {
        std::fs::write(self.place.directory().join("floodwall.toml"), file).unwrap();
    }

    fn run(&self) -> Daemon {
        let environment = [("SSH_CONNECTION", OsStr::new(SESSION))];
        Daemon::start_with(&self.topology.server, &self.place, &["--interface", PROTECTED], &environment).unwrap()
    }

    fn verb(&self, words: &str) -> String {
        run_verb(&self.topology.server, &self.place, words).unwrap()
    }

    /// What was said by a verb that was refused.
    fn refused(&self, words: &str) -> String {
        let output = floodwall(&self.topology.server, &self.place, &words.split(' ').collect::<Vec<_>>()).unwrap();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(2), "{words}: {said}");
        said
    }

    /// Reasons on the allow list, with their prefixes.
    fn allowed(&self) -> Vec<(String, String)> {
        let list: Value = serde_json::from_str(&self.verb("allow list --json")).unwrap();
        let text = |entry: &Value, key: &str| entry[key].as_str().unwrap().to_owned();
        let entries = list["entries"].as_array().unwrap().iter();
        entries.map(|entry| (text(entry, "prefix"), text(entry, "reason"))).collect()
    }

    fn is_allowed(&self, prefix: &str, reason: &str) -> bool {
        self.allowed().contains(&(prefix.to_owned(), reason.to_owned()))
    }

    fn post(&self, path: &str, body: &Value) -> String {
        let body = body.to_string();
        let head = format!(
            "POST {path} HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n",
            body.len()
        );
        send_unix(&self.place.socket(), (head + &body).as_bytes()).unwrap()
    }
}

#[test]
fn what_would_lock_out_is_refused_and_names_whom() {
    let stand = Stand::new("auto_allow = false\nmonitors = [\"198.51.100.0/28\"]\n");
    let _daemon = stand.run();
    let said = stand.refused("deny add 10.66.0.0/24");
    assert!(said.contains(&format!("{GATEWAY} (gateway)")) && said.contains("--force"), "{said}");
    let said = stand.refused("deny add 198.51.100.4");
    assert!(said.contains("198.51.100.0/28 (monitor)"), "{said}");
    // Somebody with a connection to sshd, logged in or not.
    let listener = stand.topology.server.run(|| TcpListener::bind((SERVER, 22))).unwrap().unwrap();
    let connect = || TcpStream::connect(SocketAddr::from((SERVER, 22)));
    let client = stand.topology.world.run(connect).unwrap().unwrap();
    let peer = client.local_addr().unwrap().ip();
    let _accepted = listener.accept().unwrap();
    let said = stand.refused(&format!("deny add {peer}"));
    assert!(said.contains(&format!("{peer} (ssh session)")), "{said}");
    let said = stand.refused("limits set tcp --pps 0");
    assert!(said.contains(&format!("{peer} (ssh session)")), "{said}");
    // Whoever does without the command line is told the same.
    let deny = |prefix: &str, force: bool| json!({ "add": [{ "prefix": prefix }], "force": force });
    for prefix in [format!("{peer}/32"), "0.0.0.0/0".to_owned(), "11.0.0.0/8".to_owned()] {
        let said = stand.post("/api/v1/lists/deny", &deny(&prefix, false));
        assert!(said.starts_with("HTTP/1.1 400"), "{prefix}: {said}");
    }
    let zero = json!({ "limits": [{ "name": "tcp", "packets": { "per_second": 0, "burst": 0 }, "bytes": null }] });
    assert!(stand.post("/api/v1/limits", &zero).starts_with("HTTP/1.1 400"));
    assert!(stand.verb("deny list").contains("empty"), "nothing of it");
    // And whoever insists gets it.
    assert!(stand.post("/api/v1/lists/deny", &deny("11.0.0.0/8", true)).starts_with("HTTP/1.1 200"));
    stand.verb(&format!("deny add {GATEWAY} {peer} --force"));
    stand.verb("limits set tcp --pps 0 --force");
}

#[test]
fn peers_that_this_host_needs_are_allowed_by_themselves_and_give_way() {
    let stand = Stand::new("monitors = [\"198.51.100.0/28\"]\n");
    let daemon = stand.run();
    let (gateway, session) = (format!("{GATEWAY}/32"), "192.0.2.7/32");
    assert!(stand.is_allowed(&gateway, "automatic: gateway"), "{:?}", stand.allowed());
    assert!(stand.is_allowed(session, "automatic: ssh session"));
    assert!(stand.is_allowed("198.51.100.0/28", "automatic: monitor"));
    let now = status(&stand.topology.server, &stand.place).unwrap();
    assert_eq!((&now["allow_automatic"], now["allow_automatic"].as_u64() >= Some(3)), (&now["allow_entries"], true));
    assert!(
        String::from_utf8_lossy(&floodwall(&stand.topology.server, &stand.place, &["status"]).unwrap().stdout)
            .contains("allowed by themselves")
    );
    // The operator's word counts more, and stays.
    stand.verb("allow add 198.51.100.0/28 --reason ours");
    stand.verb(&format!("deny add {GATEWAY} --force"));
    assert!(!stand.is_allowed(&gateway, "automatic: gateway"), "or the deny entry would do nothing");
    stand.verb("reload");
    assert!(!stand.is_allowed(&gateway, "automatic: gateway"));
    assert!(stand.is_allowed("198.51.100.0/28", "ours"));
    stand.verb(&format!("deny remove {GATEWAY}"));
    stand.verb("reload");
    assert!(stand.is_allowed(&gateway, "automatic: gateway"), "nobody denies it any more");
    // A file counts as the operator's word too.
    stand.write("[deny]\nprefixes = [\"10.66.0.0/16\"]\n");
    stand.verb("reload");
    assert!(!stand.is_allowed(&gateway, "automatic: gateway"));
    stand.write("auto_allow = false\nmonitors = [\"198.51.100.0/28\"]\n");
    stand.verb("reload");
    assert_eq!(stand.allowed(), [("198.51.100.0/28".to_owned(), "ours".to_owned())]);
    daemon.stop().unwrap();
}

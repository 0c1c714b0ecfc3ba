//! `floodwall doctor` on links of its own: what it finds is so, and nothing is changed.

#![expect(clippy::unwrap_used, reason = "the helpers of tests fail as the tests do: by a panic")]

use std::os::unix::fs::PermissionsExt;

use floodwall_tests::daemon::{Daemon, Place, floodwall};
use floodwall_tests::topology::{PROTECTED, Topology};
use serde_json::Value;

struct Stand {
    topology: Topology,
    place: Place,
}

impl Stand {
    fn doctor(&self, more: &[&str]) -> (Option<i32>, Value) {
        let output = floodwall(&self.topology.server, &self.place, &[&["doctor", "--json"], more].concat()).unwrap();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        (output.status.code(), serde_json::from_slice(&output.stdout).unwrap_or(Value::from(said)))
    }
}

fn finding<'a>(diagnosis: &'a Value, id: &str) -> &'a Value {
    let findings = diagnosis["findings"].as_array().unwrap();
    let found = findings.iter().find(|finding| finding["id"] == id).unwrap();
    assert!(found["severity"] == "good" || found["what"].as_str().is_some_and(|what| !what.is_empty()), "{found}");
    found
}

fn severity(diagnosis: &Value, id: &str) -> String {
    finding(diagnosis, id)["severity"].as_str().unwrap().to_owned()
}

fn what(diagnosis: &Value, id: &str) -> String {
    finding(diagnosis, id)["what"].as_str().unwrap().to_owned()
}

#[test]
fn what_is_found_is_so() {
    let stand = Stand { topology: Topology::new(1).unwrap(), place: Place::new().unwrap() };
    let (exit, healthy) = stand.doctor(&["--interface", PROTECTED]);
    for id in [
        "configuration",
        "capabilities",
        "bpf-file-system",
        "metrics-port",
        "interface",
        "xdp-program",
        "mtu",
        "receive-offload",
        "vlan-offload",
    ] {
        assert_eq!(severity(&healthy, id), "good", "{id}: {healthy}");
    }
    // A machine may lack something that this test does not give it.
    assert!(matches!(exit, Some(0 | 10)), "{exit:?}: {healthy}");
    // A place that is none for maps.
    let nowhere = stand.place.directory().to_str().unwrap().to_owned();
    let (exit, ill) = stand.doctor(&["--bpffs", &nowhere]);
    assert_eq!((exit, severity(&ill, "bpf-file-system").as_str()), (Some(11), "problem"));
    // A large MTU, and a program on the hook.
    stand.topology.server.ip(&format!("link set {PROTECTED} mtu 9000")).unwrap();
    assert_eq!(severity(&stand.doctor(&["--interface", PROTECTED]).1, "mtu"), "warning");
    stand.topology.server.ip(&format!("link set {PROTECTED} mtu 1500")).unwrap();
    let daemon = Daemon::start(&stand.topology.server, &stand.place, &["--interface", PROTECTED]).unwrap();
    assert_eq!(severity(&stand.doctor(&["--interface", PROTECTED]).1, "xdp-program"), "warning");
    daemon.stop().unwrap();
    // One that is not there.
    let (exit, said) = stand.doctor(&["--interface", "nowhere0"]);
    assert!(exit == Some(4) && said.as_str().is_some_and(|said| said.contains("nowhere0")), "{exit:?}: {said}");
}

/// Whether the kernel's clock is synchronised, as another program says it.
fn clock_of_timedatectl() -> Option<bool> {
    let output = std::process::Command::new("timedatectl").args(["show", "-p", "NTPSynchronized"]).output().ok()?;
    Some(String::from_utf8_lossy(&output.stdout).trim().strip_prefix("NTPSynchronized=")? == "yes")
}

#[test]
fn what_a_card_does_before_the_filter_is_told() {
    let stand = Stand { topology: Topology::new(1).unwrap(), place: Place::new().unwrap() };
    let doctor = || stand.doctor(&["--interface", PROTECTED]).1;
    let ethtool = |words: &str| {
        let mut command = stand.topology.server.command("ethtool").unwrap();
        command.args(["-K", PROTECTED]).args(words.split(' ')).output().is_ok_and(|output| output.status.success())
    };
    // A veth takes tags off unless it is told not to.
    if ethtool("rxvlan on") {
        assert!(what(&doctor(), "vlan-offload").contains("may take a VLAN tag off"), "{}", doctor());
        assert!(ethtool("rxvlan off"));
    }
    if ethtool("rxvlan off") {
        assert!(what(&doctor(), "vlan-offload").contains("left on"), "{}", doctor());
    }
    if let Some(is_synchronised) = clock_of_timedatectl() {
        assert_eq!(severity(&doctor(), "clock"), if is_synchronised { "good" } else { "warning" });
    }
}

#[test]
fn ports_that_the_daemon_would_not_get_are_told_with_who_has_them() {
    let stand = Stand { topology: Topology::new(1).unwrap(), place: Place::new().unwrap() };
    let socket = stand.topology.server.run(|| std::net::TcpListener::bind("127.0.0.1:9557").unwrap()).unwrap();
    let (exit, taken) = stand.doctor(&[]);
    assert_eq!((exit, severity(&taken, "metrics-port").as_str()), (Some(11), "problem"), "{taken}");
    assert!(what(&taken, "metrics-port").contains(&format!("process {}", std::process::id())), "{taken}");
    assert!(finding(&taken, "metrics-port")["mend"].as_str().unwrap().contains("9558"), "{taken}");
    // Another port of the file is free; the daemon has it itself once it runs, and the one of the API.
    let file = stand.place.directory().join("floodwall.toml");
    let token = stand.place.directory().join("token");
    std::fs::write(&token, "a-token-of-this-test-of-enough-length\n").unwrap();
    std::fs::set_permissions(&token, std::fs::Permissions::from_mode(0o600)).unwrap();
    let text = format!(
        "auto_allow = false\nmetrics = \"127.0.0.1:9558\"\napi = \"127.0.0.1:9559\"\napi_token_file = \"{}\"\n",
        token.display()
    );
    std::fs::write(&file, &text).unwrap();
    for expected in ["nobody listens there", "the daemon listens there"] {
        let is_running = expected.starts_with("the daemon");
        let daemon = is_running
            .then(|| Daemon::start(&stand.topology.server, &stand.place, &["--interface", PROTECTED]).unwrap());
        let found = stand.doctor(&[]).1;
        for id in ["metrics-port", "api-port"] {
            assert!(severity(&found, id) == "good" && what(&found, id).contains(expected), "{found}");
        }
        daemon.map(Daemon::stop).transpose().unwrap();
    }
    drop(socket);
    // A file that is wrong is a finding, not the end of it.
    std::fs::write(&file, text + "intrefaces = []\n").unwrap();
    let (exit, wrong) = stand.doctor(&["--interface", PROTECTED]);
    assert_eq!((exit, severity(&wrong, "configuration").as_str()), (Some(11), "problem"), "{wrong}");
    assert!(what(&wrong, "configuration").contains("did you mean `interfaces`"), "{wrong}");
    assert_eq!(severity(&wrong, "interface"), "good");
}

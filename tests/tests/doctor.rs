//! `floodwall doctor` on links of its own: what it finds is so, and nothing is changed.

#![expect(clippy::unwrap_used, reason = "the helpers of tests fail as the tests do: by a panic")]

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

fn severity(diagnosis: &Value, id: &str) -> String {
    let findings = diagnosis["findings"].as_array().unwrap();
    let found = findings.iter().find(|finding| finding["id"] == id).unwrap();
    assert!(found["severity"] == "good" || found["what"].as_str().is_some_and(|what| !what.is_empty()), "{found}");
    found["severity"].as_str().unwrap().to_owned()
}

#[test]
fn what_is_found_is_so() {
    let stand = Stand { topology: Topology::new(1).unwrap(), place: Place::new().unwrap() };
    let (exit, healthy) = stand.doctor(&["--interface", PROTECTED]);
    for id in ["capabilities", "bpf-file-system", "interface", "xdp-program", "mtu"] {
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

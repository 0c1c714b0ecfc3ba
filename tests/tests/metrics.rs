//! Metrics as Prometheus sees them: `promtool` finds nothing, and a real Prometheus scrapes them.

#![expect(clippy::unwrap_used, reason = "the helpers of tests fail as the tests do: by a panic")]

use std::io::Write;
use std::net::SocketAddr;
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use floodwall_tests::daemon::{Daemon, Place, floodwall, floodwall_ok, metric, run_verb, wait_for};
use floodwall_tests::flood::Flood;
use floodwall_tests::http::get;
use floodwall_tests::topology::{PROTECTED, Topology};
use serde_json::Value;

const METRICS: &str = "127.0.0.1:9557";
const PROMETHEUS: &str = "127.0.0.1:9090";

fn address(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

#[test]
fn promtool_has_no_complaint() {
    let (topology, place) = (Topology::new(1).unwrap(), Place::new().unwrap());
    let _daemon = Daemon::start(&topology.server, &place, &["--interface", PROTECTED]).unwrap();
    floodwall_ok(&topology.server, &place, &["mode", "enforce"]).unwrap();
    let flood = Flood::udp(1, 100_000, Duration::from_millis(500));
    flood.start(&topology.world, topology.target().unwrap(), 0).unwrap().join().unwrap().unwrap();
    let page = wait_for("drops in the metrics", || {
        let page = get(&topology.server, address(METRICS), "/metrics").unwrap();
        page.contains(r#"reason="packet-limit",verdict="drop""#).then_some(page)
    });
    let page = page.unwrap();
    let mut promtool = std::process::Command::new("promtool")
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("promtool (package prometheus)");
    promtool.stdin.take().unwrap().write_all(page.as_bytes()).unwrap();
    let output = promtool.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && said.is_empty(), "{said}\n{page}");
    assert_eq!(get(&topology.server, address(METRICS), "/healthz").unwrap(), "ok\n");
    assert!(floodwall_ok(&topology.server, &place, &["metrics"]).unwrap().contains("floodwall_build_info"));
}

#[test]
fn nothing_is_changed_over_tcp() {
    let (topology, place) = (Topology::new(1).unwrap(), Place::new().unwrap());
    let _daemon = Daemon::start(&topology.server, &place, &["--interface", PROTECTED]).unwrap();
    assert!(get(&topology.server, address(METRICS), "/api/v1/status").unwrap().contains("monitor"));
    let answer = topology.server.run(|| {
        use std::io::{Read, Write};
        let mut stream = std::net::TcpStream::connect(METRICS).unwrap();
        let body = r#"{"mode":"enforce"}"#;
        write!(
            stream,
            "POST /api/v1/mode HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
            body.len()
        )
        .unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer
    });
    let answer = answer.unwrap();
    assert!(answer.starts_with("HTTP/1.1 404") || answer.starts_with("HTTP/1.1 405"), "{answer}");
}

struct Prometheus(Child);

impl Drop for Prometheus {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Prometheus beside a daemon, with the alert rules of `deploy`.
fn prometheus(topology: &Topology, place: &Place) -> Prometheus {
    let rules = concat!(env!("CARGO_MANIFEST_DIR"), "/../deploy/prometheus/alerts.yml");
    let config = place.directory().join("prometheus.yml");
    let text = format!(
        "global: {{scrape_interval: 1s, evaluation_interval: 1s}}\nrule_files: ['{rules}']\n\
         scrape_configs:\n- job_name: floodwall\n  static_configs:\n  - targets: ['{METRICS}']\n"
    );
    std::fs::write(&config, text).unwrap();
    let mut command = topology.server.command("prometheus").unwrap();
    command.arg(format!("--config.file={}", config.display()));
    command.arg(format!("--storage.tsdb.path={}", place.directory().join("tsdb").display()));
    command.arg(format!("--web.listen-address={PROMETHEUS}"));
    let quiet = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    Prometheus(quiet.spawn().unwrap())
}

#[test]
fn prometheus_scrapes_and_answers() {
    let (topology, place) = (Topology::new(1).unwrap(), Place::new().unwrap());
    let _daemon = Daemon::start(&topology.server, &place, &["--interface", PROTECTED]).unwrap();
    let _prometheus = prometheus(&topology, &place);
    let query = "/api/v1/query?query=floodwall_mode%7Bmode%3D%22monitor%22%7D";
    let answer = wait_for("Prometheus to know the mode", || {
        let answer = get(&topology.server, address(PROMETHEUS), query).ok()?;
        answer.contains(r#""job":"floodwall""#).then_some(answer)
    });
    let answer: Value = serde_json::from_str(&answer.unwrap()).unwrap();
    assert_eq!(answer["data"]["result"][0]["value"][1], "1", "{answer}");
}

#[test]
fn a_drill_makes_the_alert_fire_and_the_audit_knows_of_it() {
    let (topology, place) = (Topology::new(1).unwrap(), Place::new().unwrap());
    let _daemon = Daemon::start(&topology.server, &place, &["--interface", PROTECTED]).unwrap();
    let audit = || -> Value {
        let output = floodwall(&topology.server, &place, &["audit", "--json"]).unwrap();
        assert_eq!(output.status.code(), Some(11), "{}", String::from_utf8_lossy(&output.stderr));
        serde_json::from_slice(&output.stdout).unwrap()
    };
    let severity = |id: &str| {
        let audit = audit();
        let findings = audit["findings"].as_array().unwrap().iter();
        findings.clone().find(|finding| finding["id"] == id).unwrap()["severity"].clone()
    };
    assert_eq!((severity("drill"), severity("notification")), ("warning".into(), "warning".into()));
    assert_eq!((severity("metrics"), severity("contacts")), ("problem".into(), "problem".into()));
    assert_eq!(metric(&topology.server, &place, "floodwall_drill_active", &[]).unwrap(), 0.0);
    let _prometheus = prometheus(&topology, &place);
    let alerts = || get(&topology.server, address(PROMETHEUS), "/api/v1/alerts").unwrap_or_default();
    wait_for("Prometheus", || alerts().contains("success").then_some(())).unwrap();
    run_verb(&topology.server, &place, "drill start --for 30s").unwrap();
    let begun = Instant::now();
    wait_for("the alert", || {
        let alerts: Value = serde_json::from_str(&alerts()).ok()?;
        let mut alerts = alerts["data"]["alerts"].as_array()?.iter();
        let drill = alerts.find(|alert| alert["labels"]["alertname"] == "FloodwallDrill")?;
        (drill["state"] == "firing").then_some(())
    })
    .unwrap();
    assert!(begun.elapsed() < Duration::from_secs(10), "{:?}", begun.elapsed());
    assert_eq!((severity("drill"), severity("notification")), ("good".into(), "warning".into()));
    run_verb(&topology.server, &place, "drill received Anna,-by-phone").unwrap();
    assert_eq!((severity("notification"), severity("metrics")), ("good".into(), "good".into()));
    assert!(metric(&topology.server, &place, "floodwall_audit_findings", &["problem"]).unwrap() >= 1.0);
    assert!(run_verb(&topology.server, &place, "history").unwrap().contains("drill: received: Anna,-by-phone"));
    let refused = floodwall(&topology.server, &place, &["drill", "start", "--for", "2h"]).unwrap();
    assert_eq!(refused.status.code(), Some(2));
}

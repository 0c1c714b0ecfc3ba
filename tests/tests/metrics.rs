//! Metrics as Prometheus sees them: `promtool` finds nothing, and a real Prometheus scrapes them.

#![expect(clippy::unwrap_used, reason = "the helpers of tests fail as the tests do: by a panic")]

use std::io::Write;
use std::net::SocketAddr;
use std::process::{Child, Stdio};
use std::time::Duration;

use floodwall_tests::daemon::{Daemon, Place, floodwall_ok, wait_for};
use floodwall_tests::flood::Flood;
use floodwall_tests::http::get;
use floodwall_tests::topology::{PROTECTED, Topology};

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

#[test]
fn prometheus_scrapes_and_answers() {
    let (topology, place) = (Topology::new(1).unwrap(), Place::new().unwrap());
    let _daemon = Daemon::start(&topology.server, &place, &["--interface", PROTECTED]).unwrap();
    let config = place.directory().join("prometheus.yml");
    let text = format!(
        "scrape_configs:\n- job_name: floodwall\n  scrape_interval: 1s\n  static_configs:\n  - targets: ['{METRICS}']\n"
    );
    std::fs::write(&config, text).unwrap();
    let mut command = topology.server.command("prometheus").unwrap();
    command.arg(format!("--config.file={}", config.display()));
    command.arg(format!("--storage.tsdb.path={}", place.directory().join("tsdb").display()));
    command.arg(format!("--web.listen-address={PROMETHEUS}"));
    let quiet = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    let _prometheus = Prometheus(quiet.spawn().expect("prometheus (package prometheus)"));
    let query = "/api/v1/query?query=floodwall_mode%7Bmode%3D%22monitor%22%7D";
    let answer = wait_for("Prometheus to know the mode", || {
        let answer = get(&topology.server, address(PROMETHEUS), query).ok()?;
        answer.contains(r#""job":"floodwall""#).then_some(answer)
    });
    let answer: serde_json::Value = serde_json::from_str(&answer.unwrap()).unwrap();
    assert_eq!(answer["data"]["result"][0]["value"][1], "1", "{answer}");
}

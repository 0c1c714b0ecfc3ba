//! Who may look and who may change: a second group over a socket of its own, whoever has the token over TCP, nobody else; and what
//! comes over TCP is bounded.

#![expect(clippy::unwrap_used, reason = "the helpers of tests fail as the tests do: by a panic")]

use std::ffi::OsStr;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::time::Duration;

use floodwall_tests::daemon::{Daemon, Place, binary, floodwall, run_verb, status, wait_for};
use floodwall_tests::netns::Namespace;
use floodwall_tests::topology::{PROTECTED, Topology};

const SERVER: Ipv4Addr = Ipv4Addr::new(10, 66, 0, 1);
const API: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(SERVER), 9_558);
const METRICS: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 9_557);
const TOKEN: &str = "correct-horse-battery-staple";

/// What is answered to these bytes, from a namespace.
fn send(namespace: &Namespace, address: SocketAddr, bytes: impl Into<Vec<u8>>) -> String {
    let bytes = bytes.into();
    let work = move || {
        let mut stream = TcpStream::connect(address).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        // A server that has heard enough closes while this still writes.
        let _ = stream.write_all(&bytes);
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer);
        String::from_utf8_lossy(&answer).into_owned()
    };
    namespace.run(work).unwrap()
}

fn request(method: &str, path: &str, token: Option<&str>, body: &str) -> String {
    let token = token.map(|token| format!("authorization: Bearer {token}\r\n")).unwrap_or_default();
    format!(
        "{method} {path} HTTP/1.1\r\nhost: x\r\n{token}content-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    )
}

#[test]
fn a_second_group_looks_and_changes_nothing() {
    let (topology, place) = (Topology::new(1).unwrap(), Place::new().unwrap());
    std::fs::write(place.directory().join("floodwall.toml"), "auto_allow = false\nread_group = \"nogroup\"\n").unwrap();
    let daemon = Daemon::start(&topology.server, &place, &["--interface", PROTECTED]).unwrap();
    std::fs::set_permissions(place.directory(), std::fs::Permissions::from_mode(0o755)).unwrap();
    let copy = place.directory().join("floodwall");
    std::fs::copy(binary().unwrap(), &copy).unwrap();
    let run = |group: &str, words: &[&str]| {
        let mut command = topology.server.command("setpriv").unwrap();
        command.args(["--reuid", "65534", "--regid", group, "--clear-groups"]).arg(&copy).args(words);
        command.env("FLOODWALL_SOCKET", place.socket()).env("FLOODWALL_BPFFS", place.bpffs());
        let output = command.output().unwrap();
        let said = [output.stdout, output.stderr].map(|said| String::from_utf8_lossy(&said).into_owned());
        (output.status.code(), said.concat())
    };
    let nogroup = "nogroup";
    let (exit, said) = run(nogroup, &["status"]);
    assert!(exit == Some(10) && said.contains("MONITORING"), "{said}");
    for words in [&["limits", "show"][..], &["deny", "list"], &["top"], &["history"], &["metrics"]] {
        let (exit, said) = run(nogroup, words);
        assert_eq!(exit, Some(0), "{words:?}: {said}");
    }
    for words in [&["mode", "enforce"][..], &["deny", "add", "203.0.113.7"], &["stop"]] {
        let (exit, said) = run(nogroup, words);
        assert!(exit == Some(4) && said.contains("change nothing"), "{words:?}: {said}");
    }
    // Whatever the client says: there is nothing behind that socket.
    let socket = place.directory().join("floodwall-read.sock");
    let answer =
        floodwall_tests::http::send_unix(&socket, request("POST", "/api/v1/stop", None, "").as_bytes()).unwrap();
    assert!(answer.starts_with("HTTP/1.1 404"), "{answer}");
    assert_eq!(run("65533", &["status"]).0, Some(4), "of another group");
    assert_eq!(status(&topology.server, &place).unwrap()["mode"], "monitor");
    daemon.stop().unwrap();
    assert!(!socket.exists());
}

#[test]
fn over_tcp_whoever_has_the_token_may_do_everything_and_nobody_else_anything() {
    let (topology, place) = (Topology::new(1).unwrap(), Place::new().unwrap());
    let (server, world) = (&topology.server, &topology.world);
    let file = place.directory().join("token");
    std::fs::write(&file, format!("{TOKEN}\n")).unwrap();
    std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o600)).unwrap();
    let (api, token_file) = (API.to_string(), file.to_str().unwrap());
    let run = ["--interface", PROTECTED, "--api", &api, "--api-token-file", token_file];
    let daemon = Daemon::start(server, &place, &run).unwrap();
    for token in [None, Some("correct-horse-battery-stable"), Some("")] {
        for (method, path) in [("GET", "/api/v1/status"), ("POST", "/api/v1/stop"), ("GET", "/healthz")] {
            let answer = send(world, API, request(method, path, token, ""));
            assert!(answer.starts_with("HTTP/1.1 401"), "{token:?} {path}: {answer}");
        }
    }
    let ask = |method: &str, path: &str, body: &str| send(world, API, request(method, path, Some(TOKEN), body));
    assert!(ask("GET", "/api/v1/status", "").starts_with("HTTP/1.1 200"));
    assert!(ask("POST", "/api/v1/mode", "{\"mode\": \"enforce\"}").starts_with("HTTP/1.1 200"));
    assert_eq!(status(server, &place).unwrap()["mode"], "enforce");
    // It is known from where he asks, so that he does not lock himself out.
    let client = topology.clients.iter().find(|client| client.is_ipv4()).unwrap();
    let answer = ask("POST", "/api/v1/lists/deny", &format!("{{\"add\": [{{\"prefix\": \"{client}/32\"}}]}}"));
    assert!(answer.starts_with("HTTP/1.1 400") && answer.contains("your own session"), "{answer}");
    let history = run_verb(server, &place, "history").unwrap();
    assert!(history.contains("api token") && history.contains(&client.to_string()), "{history}");
    // The token is nowhere but in its file.
    let arguments = std::fs::read_to_string(format!("/proc/{}/cmdline", daemon.pid())).unwrap();
    let log = std::fs::read_to_string(place.log()).unwrap();
    assert!(![arguments, log, history].concat().contains(TOKEN));
    // Bounds: a body that is too long, and the metrics port has nothing to change.
    let answer = ask("POST", "/api/v1/mode", &"x".repeat(2 << 20));
    assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 413"), "{answer}");
    for path in ["/api/v1/mode", "/api/v1/stop", "/api/v1/lists/deny"] {
        let answer = send(server, METRICS, request("POST", path, Some(TOKEN), "{}"));
        assert!(answer.starts_with("HTTP/1.1 404") || answer.starts_with("HTTP/1.1 405"), "{path}: {answer}");
    }
    daemon.stop().unwrap();
    // By the environment.
    let environment = [("FLOODWALL_API_TOKEN", OsStr::new(TOKEN))];
    let daemon = Daemon::start_with(server, &place, &run[..4], &environment).unwrap();
    assert!(ask("GET", "/api/v1/status", "").starts_with("HTTP/1.1 200"));
    daemon.stop().unwrap();
    // Without a token, or with one that others can read, there is no API over TCP, and no daemon that was to have one.
    let exit = |words: &[&str]| floodwall(server, &place, &[&["run"], words].concat()).unwrap().status.code();
    assert_eq!(exit(&run[..4]), Some(3));
    std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o644)).unwrap();
    assert_eq!(exit(&run), Some(3));
}

#[test]
fn what_comes_over_tcp_is_bounded() {
    let (topology, place) = (Topology::new(1).unwrap(), Place::new().unwrap());
    let server = &topology.server;
    let _daemon = Daemon::start(server, &place, &["--interface", PROTECTED]).unwrap();
    let long = "GET /healthz HTTP/1.1\r\nx: ".to_owned() + &"y".repeat(1 << 20);
    for bytes in [long.as_str(), "\0garbage\r\n\r\n", "GET /healthz HTTP/1.1\r\nhost: x\r\n"] {
        let answer = send(server, METRICS, bytes);
        assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 4"), "{answer}");
    }
    // More idle connections than are served at once: they are closed, and the next one is heard.
    let idle = server.run(|| (0..200).map_while(|_| TcpStream::connect(METRICS).ok()).collect::<Vec<_>>()).unwrap();
    assert!(idle.len() >= 64, "{} connections", idle.len());
    let healthy = || floodwall_tests::http::get(server, METRICS, "/healthz").ok();
    assert_eq!(wait_for("an answer behind idle connections", healthy).unwrap(), "ok\n");
}

//! Bad input from the command line, the socket and the environment: a clear error, the right exit code, nothing lost,
//! nothing changed. The numbers are those of docs/faults.md.

#![expect(clippy::unwrap_used, reason = "the helpers of tests fail as the tests do: by a panic")]

use std::os::unix::net::UnixStream;
use std::process::Stdio;

use floodwall::dataplane::{Listed, PreparedLists};
use floodwall_common::lists::MAX_ENTRIES;
use floodwall_tests::daemon::{Daemon, Place, floodwall, floodwall_ok, status, wait_for};
use floodwall_tests::http::send_unix;
use floodwall_tests::netns::{Namespace, join};

struct Rig {
    server: Namespace,
    _world: Namespace,
    place: Place,
}

impl Rig {
    fn new() -> Self {
        let (server, world) = (Namespace::new("server").unwrap(), Namespace::new("world").unwrap());
        join(&world, "wan0", &server, "eth0").unwrap();
        Self { server, _world: world, place: Place::new().unwrap() }
    }

    fn with_daemon() -> (Self, Daemon) {
        let rig = Self::new();
        let daemon = Daemon::start(&rig.server, &rig.place, &["--interface", "eth0"]).unwrap();
        (rig, daemon)
    }

    fn exit(&self, words: &[&str]) -> (i32, String) {
        let output = floodwall(&self.server, &self.place, words).unwrap();
        (output.status.code().unwrap(), String::from_utf8_lossy(&output.stderr).into_owned())
    }

    fn ok(&self, words: &[&str]) -> String {
        floodwall_ok(&self.server, &self.place, words).unwrap()
    }
}

#[test]
fn f29_an_unknown_interface_is_named_beside_those_that_there_are() {
    let rig = Rig::new();
    let (exit, said) = rig.exit(&["run", "--interface", "nope0", "--metrics", "off"]);
    assert_eq!(exit, 4, "{said}");
    assert!(said.contains("no interface 'nope0' (have: ") && said.contains("eth0"), "{said}");
}

#[test]
fn f30_names_that_no_interface_can_have_are_refused_before_anything_looks() {
    let rig = Rig::new();
    for name in ["eth\n0", "", "a/b", "eth 0", &"x".repeat(300)] {
        let (exit, said) = rig.exit(&["run", "--interface", name, "--metrics", "off"]);
        assert_eq!(exit, 2, "{name:?}: {said}");
        assert!(said.contains("printable characters"), "{said}");
    }
    assert_eq!(rig.exit(&["run", "--interface", "%s", "--metrics", "off"]).0, 4, "odd, but a name");
}

#[test]
fn f32_f33_rates_that_mean_nothing_are_refused_and_nothing_changes() {
    let (rig, _daemon) = Rig::with_daemon();
    let before = rig.ok(&["limits", "show"]);
    for pps in ["-1", "1e30", "NaN", "10kpps", "18446744073709551616", "1000001", ""] {
        let (exit, said) = rig.exit(&["limits", "set", "udp", &format!("--pps={pps}")]);
        assert_eq!(exit, 2, "{pps}: {said}");
    }
    let (exit, said) = rig.exit(&["limits", "set", "udp", "--pps", "0"]);
    assert_eq!(exit, 2);
    assert!(said.contains("--force"), "{said}");
    for burst in ["0", "4294967297", "x"] {
        assert_eq!(rig.exit(&["limits", "set", "udp", "--pps", "10", "--burst", burst]).0, 2, "{burst}");
    }
    assert_eq!(rig.exit(&["limits", "set", "udp", "--pps", "10", "--burst", "5001"]).0, 2, "over 500 s");
    assert_eq!(rig.exit(&["limits", "set", "quic", "--pps", "10"]).0, 2, "no such limit");
    assert_eq!(rig.exit(&["limits", "set", "udp"]).0, 2, "nothing to set");
    assert_eq!(rig.ok(&["limits", "show"]), before);
    rig.ok(&["limits", "set", "udp", "--pps", "0", "--yes-block-all"]);
    assert!(rig.ok(&["limits", "show"]).contains("blocked"));
    rig.ok(&["limits", "reset", "udp"]);
    assert_eq!(rig.ok(&["limits", "show"]), before);
}

#[test]
fn f34_prefixes_are_normalised_and_the_dangerous_ones_refused() {
    let (rig, _daemon) = Rig::with_daemon();
    assert_eq!(rig.exit(&["deny", "add", "10.0.0.1/33"]).0, 2);
    assert_eq!(rig.exit(&["deny", "add", "10.0.0.1/8"]).0, 2, "much of the Internet");
    let (exit, said) = rig.exit(&["deny", "add", "10.0.0.1/8", "--force"]);
    assert_eq!(exit, 0, "{said}");
    assert!(said.contains("10.0.0.0/8"), "{said}");
    assert!(rig.ok(&["deny", "list"]).contains("10.0.0.0/8"));
    let (exit, said) = rig.exit(&["allow", "add", "::/0"]);
    assert_eq!(exit, 2, "{said}");
    rig.ok(&["allow", "add", "::/0", "--i-know"]);
}

#[test]
fn f35_nobody_denies_himself_or_everybody_by_accident() {
    let (rig, _daemon) = Rig::with_daemon();
    for prefix in ["0.0.0.0/0", "128.0.0.0/1", "::/0"] {
        let (exit, said) = rig.exit(&["deny", "add", prefix]);
        assert_eq!(exit, 2, "{prefix}: {said}");
        assert_eq!(rig.exit(&["deny", "add", prefix, "--force"]).0, 2, "{prefix}: not without a way back");
    }
    let mut command = rig.place.command(&rig.server, &["deny", "add", "192.0.2.0/24"]).unwrap();
    let output = command.env("SSH_CONNECTION", "192.0.2.7 50000 10.0.0.1 22").output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{said}");
    assert!(said.contains("192.0.2.7") && said.contains("locked out"), "{said}");
    rig.ok(&["deny", "add", "0.0.0.0/0", "--force", "--confirm", "60s"]);
    let list = rig.ok(&["deny", "list"]);
    assert!(list.contains("0.0.0.0/0") && !list.contains("never"), "it ends by itself: {list}");
}

#[test]
fn f36_f37_a_closed_pipe_is_no_error_and_a_full_disk_is_one() {
    let (rig, _daemon) = Rig::with_daemon();
    let mut command = rig.place.command(&rig.server, &["limits", "show"]).unwrap();
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let output = command.stdout(writer).stderr(Stdio::piped()).spawn().unwrap().wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
    let full = std::fs::File::options().write(true).open("/dev/full").unwrap();
    let mut command = rig.place.command(&rig.server, &["limits", "show"]).unwrap();
    let output = command.stdout(full).stderr(Stdio::piped()).spawn().unwrap().wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&output.stderr).contains("No space left"));
}

#[test]
fn f38_a_missing_capability_is_named() {
    let rig = Rig::new();
    // A root without capabilities: what a container or a unit may leave of it.
    let mut command = rig.server.command("setpriv").unwrap();
    command.args(["--bounding-set", "-all", "--inh-caps", "-all"]);
    command.arg(floodwall_tests::daemon::binary().unwrap());
    command.args(["run", "--interface", "eth0", "--metrics", "off"]);
    command.env("FLOODWALL_SOCKET", rig.place.socket()).env("FLOODWALL_BPFFS", rig.place.bpffs());
    let output = command.output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(4), "{said}");
    assert!(said.contains("CAP_NET_ADMIN, CAP_PERFMON, CAP_BPF are missing"), "{said}");
}

#[test]
fn f39_without_a_daemon_the_socket_is_named() {
    let rig = Rig::new();
    for words in [&["top"][..], &["explain", "192.0.2.1"]] {
        let (exit, said) = rig.exit(words);
        assert_eq!(exit, 4, "{said}");
        assert!(said.contains("floodwall.sock"), "{said}");
    }
    let (exit, said) = rig.exit(&["status"]);
    assert_eq!(exit, 4, "{said}");
    assert!(said.contains("floodwall run"), "{said}");
}

#[test]
fn f40_the_second_of_two_changes_made_from_the_same_reading_is_told() {
    let (rig, _daemon) = Rig::with_daemon();
    let seen: serde_json::Value = serde_json::from_str(&rig.ok(&["limits", "show", "--json"])).unwrap();
    let body = serde_json::json!({
        "generation": seen["generation"],
        "limits": [{ "name": "udp", "packets": { "per_second": 77, "burst": 77 }, "bytes": null }],
    });
    let post = || {
        let body = body.to_string();
        let head = format!(
            "POST /api/v1/limits HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n",
            body.len()
        );
        send_unix(&rig.place.socket(), (head + &body).as_bytes()).unwrap()
    };
    assert!(post().starts_with("HTTP/1.1 200"));
    let second = post();
    assert!(second.starts_with("HTTP/1.1 409"), "{second}");
    assert!(second.contains("changed since it was read"), "{second}");
}

#[test]
fn f40_what_was_changed_is_what_the_next_question_finds() {
    let (rig, _daemon) = Rig::with_daemon();
    let socket = rig.place.socket();
    let ask = |head: &str, body: &str| {
        let head = format!("{head} HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: ");
        let answer = send_unix(&socket, format!("{head}{}\r\n\r\n{body}", body.len()).as_bytes()).unwrap();
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
        answer
    };
    let prefixes: Vec<String> =
        (0..5_000).map(|n| format!("{}/32", std::net::Ipv4Addr::from(0x0b00_0000 + n))).collect();
    let add: Vec<_> = prefixes.iter().map(|prefix| serde_json::json!({ "prefix": prefix })).collect();
    // The daemon takes a view four times a second of its own accord, and one of those may be under way while it changes.
    for _ in 0..50 {
        for (change, entries) in
            [(serde_json::json!({ "add": add }), 5_000), (serde_json::json!({ "remove": prefixes }), 0)]
        {
            ask("POST /api/v1/lists/deny", &change.to_string());
            let seen = ask("GET /api/v1/status", "");
            assert!(seen.contains(&format!(r#""deny_entries":{entries},"#)), "{entries}: {seen}");
        }
    }
}

#[test]
fn f42_another_version_of_the_api_is_refused_before_it_changes_anything() {
    let (rig, _daemon) = Rig::with_daemon();
    let request = "POST /api/v1/mode HTTP/1.1\r\nhost: x\r\nfloodwall-api: 99\r\ncontent-type: application/json\r\n\
                   content-length: 18\r\n\r\n{\"mode\":\"enforce\"}";
    let answer = send_unix(&rig.place.socket(), request.as_bytes()).unwrap();
    assert!(answer.starts_with("HTTP/1.1 409") && answer.contains("API version"), "{answer}");
    assert_eq!(status(&rig.server, &rig.place).unwrap()["mode"], "monitor");
}

#[test]
fn f43_a_bad_line_in_a_long_file_changes_nothing_and_is_named() {
    let (rig, _daemon) = Rig::with_daemon();
    let file = rig.place.directory().join("list.txt");
    let line = |number: u32| match number {
        70_000 => "10.0.0.0/99 # wrong\n".to_owned(),
        number => format!("{}\n", std::net::Ipv4Addr::from(0x0b00_0000 + number)),
    };
    std::fs::write(&file, (1..=100_000).map(line).collect::<String>()).unwrap();
    let path = file.to_str().unwrap();
    let (exit, said) = rig.exit(&["allow", "add", "--file", path]);
    assert_eq!(exit, 3, "{said}");
    assert!(said.contains(":70000:") && said.contains("10.0.0.0/99"), "{said}");
    assert!(rig.ok(&["allow", "list"]).contains("empty"));
    let good: String = (1..=20_000).map(line).collect();
    std::fs::write(&file, good).unwrap();
    assert!(rig.ok(&["allow", "add", "--file", path]).contains("20000 on the list"));
    assert_eq!(status(&rig.server, &rig.place).unwrap()["allow_entries"], 20_000);
    assert!(rig.ok(&["allow", "remove", "--file", path]).contains("20000 removed, 0 on the list"));
    let (exit, said) = rig.exit(&["allow", "remove", "--file", path]);
    assert_eq!(exit, 1, "{said}");
    assert!(said.contains("11.0.0.10/32 and 19990 more"), "names some: {said}");
}

#[test]
fn f44_garbage_on_the_socket_is_survived() {
    let (rig, _daemon) = Rig::with_daemon();
    let socket = rig.place.socket();
    let long = "GET / HTTP/1.1\r\nx: ".to_owned() + &"y".repeat(1 << 20);
    let huge = "POST /api/v1/mode HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: 1000000000\r\n\r\n{";
    let garbage =
        [&b"\0\xff\xfe garbage\r\n\r\n"[..], long.as_bytes(), b"GET /api/v1/nothing HTTP/1.1\r\nhost: x\r\n\r\n"];
    for bytes in garbage {
        let answer = send_unix(&socket, bytes).unwrap();
        assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 4"), "{answer}");
    }
    let answer = send_unix(&socket, huge.as_bytes()).unwrap();
    assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 4"), "{answer}");
    // Idle connections: more than are served at once. They are closed, and the next one is heard.
    let idle: Vec<_> = (0..200).map_while(|_| UnixStream::connect(&socket).ok()).collect();
    assert!(idle.len() >= 64, "{} connections", idle.len());
    let answered = wait_for("an answer behind idle connections", || status(&rig.server, &rig.place).ok());
    assert_eq!(answered.unwrap()["daemon"], true);
}

#[test]
fn f44_another_user_is_refused() {
    let (rig, _daemon) = Rig::with_daemon();
    // Even where the file's mode would let him.
    use std::os::unix::fs::PermissionsExt;
    std::fs::set_permissions(rig.place.socket(), std::fs::Permissions::from_mode(0o666)).unwrap();
    std::fs::set_permissions(rig.place.directory(), std::fs::Permissions::from_mode(0o755)).unwrap();
    let mut command = rig.server.command("setpriv").unwrap();
    command.args(["--reuid", "65534", "--regid", "65534", "--clear-groups"]);
    let copy = rig.place.directory().join("floodwall");
    std::fs::copy(floodwall_tests::daemon::binary().unwrap(), &copy).unwrap();
    command.arg(&copy).args(["mode", "enforce"]);
    command.env("FLOODWALL_SOCKET", rig.place.socket()).env("FLOODWALL_BPFFS", rig.place.bpffs());
    let output = command.output().unwrap();
    assert!(!output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
    assert_eq!(status(&rig.server, &rig.place).unwrap()["mode"], "monitor");
    let log = std::fs::read_to_string(rig.place.log()).unwrap();
    assert!(log.contains("refused on the control socket") && log.contains("65534"), "{log}");
}

#[test]
fn f56_a_missing_bpf_file_system_comes_with_the_command_that_mounts_it() {
    let rig = Rig::new();
    let elsewhere = rig.place.directory().to_str().unwrap().to_owned();
    let (exit, said) = rig.exit(&["run", "--interface", "eth0", "--metrics", "off", "--bpffs", &elsewhere]);
    assert_eq!(exit, 4, "{said}");
    assert!(said.contains("mount -t bpf"), "{said}");
    let (exit, _) = rig.exit(&["status", "--bpffs", "/nonexistent"]);
    assert_eq!(exit, 4);
}

#[test]
fn f45_a_configuration_file_that_is_named_and_not_there_is_no_start() {
    let rig = Rig::new();
    let missing = rig.place.directory().join("missing.toml");
    let (exit, said) = rig.exit(&["run", "--config", missing.to_str().unwrap(), "--metrics", "off"]);
    assert_eq!(exit, 3, "{said}");
    assert!(said.contains("missing.toml"), "{said}");
    assert_eq!(rig.exit(&["status"]).0, 4, "nothing was loaded");
}

#[test]
fn f46_f47_an_empty_file_says_nothing_and_a_broken_one_is_no_start_and_no_reload() {
    let rig = Rig::new();
    let file = rig.place.directory().join("floodwall.toml");
    let utf16: Vec<u8> = "mode = \"enforce\"\n".encode_utf16().flat_map(u16::to_le_bytes).collect();
    for bytes in [&[&[0xff, 0xfe], utf16.as_slice()].concat()[..], b"\x7fELF\x02\x01\x00", b"mode = \"enf"] {
        std::fs::write(&file, bytes).unwrap();
        let (exit, said) = rig.exit(&["run", "--interface", "eth0", "--metrics", "off"]);
        assert!(exit == 3 && said.contains("floodwall.toml"), "{exit}: {said}");
        assert_eq!(rig.exit(&["status"]).0, 4, "nothing was loaded");
    }
    std::fs::write(&file, "").unwrap();
    let _daemon = Daemon::start(&rig.server, &rig.place, &["--interface", "eth0"]).unwrap();
    assert_eq!(status(&rig.server, &rig.place).unwrap()["mode"], "monitor");
    // What was in force stays, whatever of the broken file comes before its fault.
    std::fs::write(&file, "mode = \"enforce\"\n[limits.udp]\npps = 7\nbur").unwrap();
    let (exit, said) = rig.exit(&["reload"]);
    assert!(exit == 3 && said.contains("floodwall.toml:4"), "{exit}: {said}");
    assert_eq!(status(&rig.server, &rig.place).unwrap()["mode"], "monitor");
}

#[test]
fn f49_a_file_that_others_can_write_is_none_and_a_link_to_a_right_one_is() {
    use std::os::unix::fs::{PermissionsExt, chown, symlink};
    let rig = Rig::new();
    let (file, link) = (rig.place.directory().join("ours.toml"), rig.place.directory().join("link.toml"));
    std::fs::write(&file, "auto_allow = false\n").unwrap();
    symlink(&file, &link).unwrap();
    let check = |path: &std::path::Path| rig.exit(&["config", "check", "--config", path.to_str().unwrap()]);
    assert_eq!((check(&file).0, check(&link).0), (0, 0));
    std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o666)).unwrap();
    for path in [&file, &link] {
        let (exit, said) = check(path);
        assert!(exit == 3 && said.contains("written by everybody") && said.contains("chmod o-w"), "{exit}: {said}");
    }
    std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o644)).unwrap();
    chown(&file, Some(65_534), None).unwrap();
    let (exit, said) = check(&link);
    assert!(exit == 3 && said.contains("belongs to user 65534") && said.contains("chown root"), "{exit}: {said}");
}

#[test]
fn f56_a_bpf_file_system_that_cannot_be_written_comes_with_the_command_that_mends_it() {
    use nix::mount::{MsFlags, mount};
    let rig = Rig::new();
    let bpffs = rig.place.bpffs();
    let remount = |flags| mount(None::<&str>, &bpffs, None::<&str>, MsFlags::MS_REMOUNT | flags, None::<&str>).unwrap();
    remount(MsFlags::MS_RDONLY);
    let (exit, said) = rig.exit(&["run", "--interface", "eth0", "--metrics", "off"]);
    assert!(exit == 4 && said.contains("remount,rw"), "{exit}: {said}");
    remount(MsFlags::empty());
    drop(Daemon::start(&rig.server, &rig.place, &["--interface", "eth0"]).unwrap());
}

#[test]
fn f57_what_others_have_left_among_the_pins_is_passed_over() {
    let rig = Rig::new();
    let pins = floodwall_tests::pins::pin(&rig.place, "x").parent().unwrap().to_owned();
    for directory in [pins.join("stray"), pins.join("links/stray"), pins.join("../v0/links")] {
        std::fs::create_dir_all(directory).unwrap();
    }
    let daemon = Daemon::start(&rig.server, &rig.place, &["--interface", "eth0"]).unwrap();
    assert_eq!(status(&rig.server, &rig.place).unwrap()["attached"], true);
    daemon.stop().unwrap();
    assert!(pins.join("../v0/links").exists(), "another layout is left alone");
}

/// It is told before a map is made, so nothing has changed.
#[test]
fn f53_a_list_that_is_too_long_is_refused_whole() {
    let listed = |number| Listed {
        prefix: std::net::IpAddr::V4(std::net::Ipv4Addr::from(number)).into(),
        until: None,
        added: std::time::UNIX_EPOCH,
        note: String::new(),
        group: 0,
    };
    let all: Vec<_> = (0..=MAX_ENTRIES).map(listed).collect();
    let said = PreparedLists::new([&[], &all, &[]]).err().unwrap().to_string();
    assert!(said.contains(&MAX_ENTRIES.to_string()) && said.contains(&all.len().to_string()), "{said}");
}

#[test]
fn f54_a_port_that_is_taken_is_named_and_nothing_is_attached() {
    let rig = Rig::new();
    let taken = rig.server.run(|| std::net::TcpListener::bind("127.0.0.1:9557").unwrap()).unwrap();
    let (exit, said) = rig.exit(&["run", "--interface", "eth0"]);
    assert_eq!(exit, 4, "{said}");
    assert!(said.contains("127.0.0.1:9557") && said.contains("--metrics"), "{said}");
    assert_eq!(rig.exit(&["status"]).0, 4, "nothing was loaded");
    drop(taken);
}

/// Who did what, and incidents, are written beside each other; neither has to be written for a change to hold.
#[test]
fn f64_a_full_disk_costs_the_record_and_not_the_change() {
    let rig = Rig::new();
    let full = Full::new(&rig.place);
    let history = full.0.join("history.ndjson");
    let arguments = ["--interface", "eth0", "--history", history.to_str().unwrap()];
    let _daemon = Daemon::start(&rig.server, &rig.place, &arguments).unwrap();
    rig.ok(&["mode", "enforce"]);
    rig.ok(&["deny", "add", "192.0.2.7"]);
    assert_eq!(status(&rig.server, &rig.place).unwrap()["mode"], "enforce");
    let log = std::fs::read_to_string(rig.place.log()).unwrap();
    assert!(log.contains("cannot be written down"), "{log}");
}

/// A disk without room, gone with this value.
struct Full(std::path::PathBuf);

impl Full {
    fn new(place: &Place) -> Self {
        use nix::mount::{MsFlags, mount};
        let path = place.directory().join("full");
        std::fs::create_dir(&path).unwrap();
        mount(Some("full"), &path, Some("tmpfs"), MsFlags::empty(), Some("size=4k")).unwrap();
        std::fs::write(path.join("room"), [0; 4_096]).unwrap();
        Self(path)
    }
}

impl Drop for Full {
    fn drop(&mut self) {
        let _ = nix::mount::umount2(&self.0, nix::mount::MntFlags::MNT_DETACH);
    }
}

#[test]
fn metrics_are_for_loopback_unless_somebody_insists() {
    let rig = Rig::new();
    let (exit, said) = rig.exit(&["run", "--interface", "eth0", "--metrics", "0.0.0.0:9557"]);
    assert_eq!(exit, 2, "{said}");
    assert!(said.contains("--metrics-public"), "{said}");
}

/// What came in force last takes its place, but does not drop: nobody has said so since the machine was started.
#[test]
fn f45_a_start_whose_file_is_gone_takes_what_came_in_force_last_loudly_and_in_monitor_mode() {
    let rig = Rig::new();
    let file = rig.place.directory().join("floodwall.toml");
    let text = "auto_allow = false\ninterfaces = [\"eth0\"]\nmode = \"enforce\"\n[limits.udp]\npps = 77\n";
    std::fs::write(&file, text).unwrap();
    let daemon = Daemon::start(&rig.server, &rig.place, &[]).unwrap();
    assert_eq!(status(&rig.server, &rig.place).unwrap()["mode"], "enforce");
    // What enforces goes on: a start alone opens nothing.
    daemon.kill().unwrap();
    std::fs::remove_file(&file).unwrap();
    let daemon = Daemon::start(&rig.server, &rig.place, &[]).unwrap();
    assert_eq!(status(&rig.server, &rig.place).unwrap()["mode"], "enforce");
    let log = || std::fs::read_to_string(rig.place.log()).unwrap();
    assert!(log().contains("ERROR") && log().contains("the configuration file is gone"), "{}", log());
    let (exit, said) = rig.exit(&["reload"]);
    assert!(exit == 3 && said.contains("floodwall.toml"), "{exit}: {said}");
    daemon.stop().unwrap();
    // As after a reboot: nothing is loaded.
    rig.ok(&["detach"]);
    let daemon = Daemon::start(&rig.server, &rig.place, &[]).unwrap();
    let now = status(&rig.server, &rig.place).unwrap();
    assert!(now["mode"] == "monitor" && now["attached"] == true && now["interfaces"][0]["name"] == "eth0", "{now}");
    assert!(rig.ok(&["limits", "show"]).contains("77"));
    std::fs::write(&file, text.replace("77", "78")).unwrap();
    rig.ok(&["reload"]);
    assert_eq!(status(&rig.server, &rig.place).unwrap()["mode"], "enforce");
    daemon.stop().unwrap();
}

/// The kernel's own description of itself is for programs that look into its structures: the filter does not.
#[test]
fn f64_the_filter_needs_no_type_information_of_the_kernel() {
    let rig = Rig::new();
    let daemon =
        rig.place.command(&rig.server, &["run", "--interface", "eth0", "--metrics", "off", "--respond", "off"]);
    let daemon = daemon.unwrap();
    let mut without = rig.server.command("unshare").unwrap();
    let script = "mount -t tmpfs none /sys/kernel/btf && test ! -e /sys/kernel/btf/vmlinux && exec \"$0\" \"$@\"";
    without
        .args(["--mount", "sh", "-c", script])
        .arg(floodwall_tests::daemon::binary().unwrap())
        .args(daemon.get_args());
    without.envs(daemon.get_envs().filter_map(|(name, value)| Some((name, value?))));
    let log = std::fs::File::create(rig.place.log()).unwrap();
    let mut child = without.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log).spawn().unwrap();
    let attached = || status(&rig.server, &rig.place).is_ok_and(|now| now["daemon"] == true && now["attached"] == true);
    let ready = wait_for("the daemon", || attached().then_some(()));
    let _ = child.kill();
    let _ = child.wait();
    assert!(ready.is_ok(), "{}", std::fs::read_to_string(rig.place.log()).unwrap());
}

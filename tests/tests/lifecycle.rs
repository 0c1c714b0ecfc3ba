//! The daemon's life: attach, die, come back, be replaced, refuse, detach. A flood that is denied goes on meanwhile, and
//! not one packet of it may pass.

#![expect(clippy::unwrap_used, reason = "the helpers of tests fail as the tests do: by a panic")]

use std::time::Duration;

use floodwall_tests::daemon::{
    Daemon, Place, floodwall, floodwall_ok, is_slow_machine, metric, packets, run_verb, status, wait_for,
};
use floodwall_tests::flood::Flood;
use floodwall_tests::netns::{Namespace, join};
use floodwall_tests::topology::{PROTECTED, Topology};

/// Everything that a flood of these tests comes from.
const FLOOD_PREFIXES: [&str; 2] = ["11.0.0.0/8", "3fff::/16"];

fn run(topology: &Topology, place: &Place) -> Daemon {
    Daemon::start(&topology.server, place, &["--interface", PROTECTED]).unwrap()
}

fn verb(topology: &Topology, place: &Place, words: &str) -> String {
    run_verb(&topology.server, place, words).unwrap()
}

/// The exit code of a verb and what it said.
fn refused(topology: &Topology, place: &Place, words: &str) -> (Option<i32>, String) {
    let output = floodwall(&topology.server, place, &words.split(' ').collect::<Vec<_>>()).unwrap();
    (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
}

#[test]
fn attaches_natively_in_monitor_mode_and_says_so() {
    let (topology, place) = (Topology::new(1).unwrap(), Place::new().unwrap());
    let daemon = run(&topology, &place);
    let now = status(&topology.server, &place).unwrap();
    assert_eq!(now["mode"], "monitor");
    assert_eq!(now["attached"], true);
    assert_eq!(now["interfaces"][0]["attached"], "native");
    assert_eq!(now["interfaces"][0]["name"], PROTECTED);
    let exit = |words: &str| floodwall(&topology.server, &place, &[words]).unwrap().status.code();
    assert_eq!(exit("status"), Some(10), "attached, not enforcing");
    verb(&topology, &place, "mode enforce");
    assert_eq!(exit("status"), Some(0), "enforcing");
    daemon.stop().unwrap();
    assert_eq!(exit("status"), Some(0), "the protection outlives the daemon");
    verb(&topology, &place, "detach");
    assert_eq!(exit("status"), Some(4), "nothing is loaded any more");
}

#[test]
fn a_denied_flood_does_not_leak_while_the_daemon_dies_comes_back_and_is_replaced() {
    let (topology, place) = (Topology::new(1).unwrap(), Place::new().unwrap());
    let first = run(&topology, &place);
    verb(&topology, &place, "mode enforce");
    verb(&topology, &place, "limits set udp --pps 123 --burst 45");
    verb(&topology, &place, &format!("deny add {} --ttl 1h --reason test --force", FLOOD_PREFIXES.join(" ")));
    // Thinner and longer where it must leave time for the rest.
    let (packets_per_second, seconds) = if is_slow_machine() { (5_000, 75) } else { (150_000, 16) };
    let flood = Flood::udp(1_000, packets_per_second, Duration::from_secs(seconds));
    let flood = flood.start(&topology.world, topology.target().unwrap(), 0).unwrap();
    // Under a flood a daemon on a slow machine may not answer in its own time.
    let answer = || wait_for("an answer", || status(&topology.server, &place).ok()).unwrap();
    let denied = || packets(&answer(), "drop", "denied");
    wait_for("the flood", || (denied() > 10_000).then_some(())).unwrap();

    first.kill().unwrap();
    let dead = denied();
    wait_for("drops without a daemon", || (denied() > dead + 10_000).then_some(())).unwrap();
    let limits = verb(&topology, &place, "limits show --json");
    assert!(limits.contains("123"), "limits are readable without a daemon: {limits}");

    let second = run(&topology, &place);
    let log = || std::fs::read_to_string(place.log()).unwrap();
    assert!(log().contains("adopted"), "{}", log());
    let alive = denied();
    wait_for("drops after adoption", || (denied() > alive + 10_000).then_some(())).unwrap();
    second.kill().unwrap();

    // As if another build had attached: the next daemon replaces the program in place.
    floodwall_tests::pins::forget_object_hash(&place).unwrap();
    let _third = run(&topology, &place);
    assert!(log().contains("replaced the program in place"), "{}", log());
    let replaced = denied();
    wait_for("drops after the replacement", || (denied() > replaced + 10_000).then_some(())).unwrap();

    let sent = flood.join().unwrap().unwrap();
    let dropped = wait_for("the last drops", || (denied() == sent.packets()).then_some(denied()));
    assert_eq!(dropped.unwrap(), sent.packets(), "every packet of the flood was dropped, under its reason");
    let page = verb(&topology, &place, "metrics");
    let leaked: Vec<_> =
        page.lines().filter(|line| line.contains(r#"class="udp""#) && line.contains(r#"verdict="pass""#)).collect();
    assert!(leaked.is_empty(), "{leaked:?}");
    // However many sources there are: none of them is a label.
    let values = page.split("=\"").skip(1).filter_map(|rest| rest.split('"').next());
    let addresses: Vec<_> = values.filter(|value| value.parse::<std::net::IpAddr>().is_ok()).collect();
    assert!(addresses.is_empty() && page.contains("=\""), "{addresses:?}");
    assert!(verb(&topology, &place, "limits show --json").contains("123"), "limits are kept");
}

#[test]
fn a_denied_flood_does_not_leak_while_the_daemon_hangs() {
    use nix::sys::signal::{Signal, kill};
    use nix::unistd::Pid;
    let (topology, place) = (Topology::new(1).unwrap(), Place::new().unwrap());
    let daemon = run(&topology, &place);
    verb(&topology, &place, "mode enforce");
    verb(&topology, &place, &format!("deny add {} --force", FLOOD_PREFIXES.join(" ")));
    let process = Pid::from_raw(daemon.pid() as i32);
    kill(process, Signal::SIGSTOP).unwrap();
    // It answers nobody, so it is asked nothing: what the flood comes to is read once it goes on.
    let flood = Flood::udp(1_000, 20_000, Duration::from_secs(1));
    let sent = flood.start(&topology.world, topology.target().unwrap(), 0).unwrap().join().unwrap().unwrap();
    // Nobody takes its place meanwhile, and what it has attached stays alone.
    let socket = place.directory().join("other.sock");
    let words = format!("run --interface {PROTECTED} --metrics off --socket {}", socket.display());
    assert_eq!(refused(&topology, &place, &words).0, Some(5));
    kill(process, Signal::SIGCONT).unwrap();
    let counted = wait_for("all to be counted", || {
        let now = status(&topology.server, &place).ok()?;
        let counted = (packets(&now, "drop", "denied"), packets(&now, "pass", "denied"));
        (counted.0 + counted.1 == sent.packets()).then_some(counted)
    });
    assert_eq!(counted.unwrap(), (sent.packets(), 0), "every packet was dropped without it");
    daemon.stop().unwrap();
}

/// The ring of samples is full after a third of it: what did not fit is counted, and what comes later is read again.
#[test]
fn f64_a_reader_that_is_late_loses_samples_tells_how_many_and_goes_on() {
    use nix::sys::signal::{Signal, kill};
    use nix::unistd::Pid;
    let (topology, place) = (Topology::new(1).unwrap(), Place::new().unwrap());
    let daemon = run(&topology, &place);
    let process = Pid::from_raw(daemon.pid() as i32);
    let flood = |seconds| {
        let flood = Flood::udp(1_000, 20_000, Duration::from_secs(seconds));
        flood.start(&topology.world, topology.target().unwrap(), 0).unwrap().join().unwrap().unwrap().packets()
    };
    assert_eq!(status(&topology.server, &place).unwrap()["samples_lost"], 0);
    let interval = || metric(&topology.server, &place, "floodwall_sample_interval_packets", &["pass"]).ok();
    wait_for("every packet to be sampled", || interval().filter(|every| *every == 1.0)).unwrap();
    kill(process, Signal::SIGSTOP).unwrap();
    let (begun, mut sent) = (std::time::Instant::now(), 0);
    while begun.elapsed() < Duration::from_secs(10) {
        sent += flood(2);
    }
    kill(process, Signal::SIGCONT).unwrap();
    let lost = || status(&topology.server, &place).ok()?["samples_lost"].as_u64().filter(|lost| *lost >= 1_000);
    let lost = wait_for("the loss to be told", lost).unwrap();
    assert!(lost < sent, "{lost} of {sent}");
    // Counters are exact all the same, and the next seconds are seen.
    let counted = || floodwall_tests::daemon::all_packets(&status(&topology.server, &place).unwrap()) >= sent;
    wait_for("all to be counted", || counted().then_some(())).unwrap();
    // The first of them may be sampled as thinly as what came while nobody read.
    let top = || serde_json::from_str::<serde_json::Value>(&verb(&topology, &place, "top --json")).unwrap();
    let seen = || {
        flood(1);
        (top()["samples"].as_u64() > Some(100)).then_some(())
    };
    wait_for("samples", seen).unwrap();
    daemon.stop().unwrap();
}

#[test]
fn a_new_filter_is_tried_before_it_is_attached_and_leaves_no_trace_of_it() {
    let (topology, place) = (Topology::new(1).unwrap(), Place::new().unwrap());
    let log = || std::fs::read_to_string(place.log()).unwrap();
    let tests = || log().lines().filter(|line| line.contains("self-test passed")).count();
    let left = place.bpffs().join("floodwall/self-test");
    // As a process leaves it behind that is killed in the middle.
    std::fs::create_dir_all(left.join("links")).unwrap();
    let daemon = run(&topology, &place);
    let text = log();
    let at = |words: &str| text.find(words).unwrap_or_else(|| panic!("no '{words}' in {text}"));
    assert!(at("self-test passed") < at("attached"), "{text}");
    assert!(!left.exists(), "its maps are gone");
    // Of what it has tried nothing is counted, listed or limited here.
    let now = status(&topology.server, &place).unwrap();
    for reason in ["malformed-ip", "malformed-udp", "impossible-flags", "land", "denied", "allowed", "packet-limit"] {
        assert_eq!((packets(&now, "pass", reason), packets(&now, "drop", reason)), (0, 0), "{reason}: {now}");
    }
    assert_eq!(now["mode"], "monitor");
    assert!(!verb(&topology, &place, "deny list").contains("203.0.113"), "a list of its own");
    daemon.kill().unwrap();
    // What is adopted runs already; what takes its place is tried.
    drop(run(&topology, &place));
    assert_eq!(tests(), 1, "{}", log());
    floodwall_tests::pins::forget_object_hash(&place).unwrap();
    drop(run(&topology, &place));
    assert_eq!(tests(), 2, "{}", log());
}

#[test]
fn a_foreign_program_is_named_and_left_alone() {
    let (topology, place) = (Topology::new(1).unwrap(), Place::new().unwrap());
    let foreign = floodwall_tests::pins::attach_foreign(&topology.server, PROTECTED, "bare_drop").unwrap();
    let (exit, said) = refused(&topology, &place, &format!("run --interface {PROTECTED} --metrics off"));
    assert_eq!(exit, Some(5), "{said}");
    assert!(said.contains("another XDP program") && said.contains("bare_drop"), "{said}");
    let (exit, _) = refused(&topology, &place, "status");
    assert_eq!(exit, Some(11), "not attached");
    drop(foreign);
    drop(run(&topology, &place));
}

#[test]
fn two_daemons_do_not_share_pins() {
    let (topology, place) = (Topology::new(1).unwrap(), Place::new().unwrap());
    let _first = run(&topology, &place);
    let socket = place.directory().join("other.sock");
    let words = format!("run --interface {PROTECTED} --metrics off --socket {}", socket.display());
    let (exit, said) = refused(&topology, &place, &words);
    assert_eq!(exit, Some(5), "{said}");
    assert!(said.contains("another floodwall"), "{said}");
    let (exit, said) = refused(&topology, &place, &format!("run --interface {PROTECTED} --metrics off"));
    assert_eq!(exit, Some(5), "{said}");
}

#[test]
fn protects_several_interfaces_and_counts_each_by_itself() {
    let place = Place::new().unwrap();
    let (server, left, right) =
        (Namespace::new("server").unwrap(), Namespace::new("left").unwrap(), Namespace::new("right").unwrap());
    join(&left, "wan0", &server, "eth0").unwrap();
    join(&right, "wan0", &server, "eth1.100").unwrap();
    let arguments = ["--interface", "eth0", "--interface", "eth1.100", "--interface", "eth0"];
    let _daemon = Daemon::start(&server, &place, &arguments).unwrap();
    let now = status(&server, &place).unwrap();
    let names: Vec<_> = (0..2).map(|index| now["interfaces"][index]["name"].clone()).collect();
    assert_eq!(names, ["eth0", "eth1.100"]);
    assert!(now["interfaces"][2].is_null(), "named twice, taken once");
    assert_eq!(now["attached"], true);
    floodwall_ok(&server, &place, &["detach", "--interface", "eth0"]).unwrap();
    let now = status(&server, &place).unwrap();
    assert_eq!(now["interfaces"][0]["name"], "eth1.100");
    assert_eq!(now["attached"], true);
}

#[test]
fn says_that_it_is_not_attached_when_the_device_says_so() {
    let (topology, place) = (Topology::new(1).unwrap(), Place::new().unwrap());
    let _daemon = run(&topology, &place);
    topology.server.ip(&format!("link del {PROTECTED}")).unwrap();
    wait_for("the status to tell", || {
        let now = status(&topology.server, &place).unwrap();
        (now["attached"] == false && now["interfaces"][0]["attached"].is_null()).then_some(())
    })
    .unwrap();
    assert!(floodwall(&topology.server, &place, &["status"]).unwrap().status.code() == Some(11));
}

#[test]
fn maps_of_another_shape_are_never_used() {
    let (topology, place) = (Topology::new(1).unwrap(), Place::new().unwrap());
    run(&topology, &place).stop().unwrap();
    // The filter is still attached: what is pinned is in use, so it is not cleared either.
    floodwall_tests::pins::replace_by_smaller_array(&place, "PREFILTER").unwrap();
    let (exit, said) = refused(&topology, &place, &format!("run --interface {PROTECTED} --metrics off"));
    assert_eq!(exit, Some(5), "{said}");
    assert!(said.contains("PREFILTER"), "{said}");
    let (exit, said) = refused(&topology, &place, "detach");
    assert_eq!(exit, Some(0), "{said}");
    // Nothing uses it now: cleared, and made anew.
    floodwall_tests::pins::replace_by_smaller_array(&place, "PREFILTER").unwrap();
    drop(run(&topology, &place));
}

#[test]
fn generic_mode_only_where_it_is_allowed() {
    let (server, place) = (Namespace::new("server").unwrap(), Place::new().unwrap());
    server.ip("link add br0 type bridge").unwrap();
    let refused = floodwall(&server, &place, &["run", "--interface", "br0", "--metrics", "off"]).unwrap();
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert_eq!(refused.status.code(), Some(4), "{said}");
    assert!(said.contains("native") && said.contains("--allow-generic"), "{said}");
    let _daemon =
        Daemon::start(&server, &place, &["--interface", "br0", "--allow-generic", "--metrics", "off"]).unwrap();
    assert_eq!(status(&server, &place).unwrap()["interfaces"][0]["attached"], "generic");
}

/// A veth receives on as many queues as its peer sends on, or refuses: as a card does that has no queues left.
#[test]
fn f58_a_device_that_refuses_is_told_why_in_the_words_of_its_driver_and_with_the_one_command() {
    let (server, place) = (Namespace::new("server").unwrap(), Place::new().unwrap());
    server.ip("link add q0 numrxqueues 1 numtxqueues 1 type veth peer name q1 numrxqueues 4 numtxqueues 4").unwrap();
    let run = |more: &[&str]| {
        let arguments = [&["run", "--interface", "q0", "--metrics", "off"], more].concat();
        let refused = floodwall(&server, &place, &arguments).unwrap();
        (refused.status.code(), String::from_utf8_lossy(&refused.stderr).into_owned())
    };
    let (exit, said) = run(&[]);
    assert_eq!(exit, Some(4), "{said}");
    assert!(
        said.contains("it receives on 1 queues") && said.contains("rx queues not less than peer tx queues"),
        "{said}"
    );
    assert!(said.contains("try: ethtool -L <its peer> tx 1\n"), "{said}");
    assert!(!said.contains("mtu") && !said.contains("lro"), "of the other causes nothing: {said}");
    let shown = server.command("ip").unwrap().args(["link", "show", "q0"]).output().unwrap();
    let shown = String::from_utf8_lossy(&shown.stdout).into_owned();
    assert!(shown.contains("q0") && !shown.contains("xdp"), "nothing is left of the asking: {shown}");
    let arguments = ["--interface", "q0", "--allow-generic", "--metrics", "off"];
    let _daemon = Daemon::start(&server, &place, &arguments).unwrap();
    assert_eq!(status(&server, &place).unwrap()["interfaces"][0]["attached"], "generic");
}

#[test]
fn a_large_mtu_takes_the_program_for_fragments() {
    let (topology, place) = (Topology::new(1).unwrap(), Place::new().unwrap());
    topology.server.ip(&format!("link set {PROTECTED} mtu 9000")).unwrap();
    topology.world.ip("link set wan0 mtu 9000").unwrap();
    let _daemon = run(&topology, &place);
    assert_eq!(status(&topology.server, &place).unwrap()["interfaces"][0]["attached"], "native");
}

#[test]
fn a_service_manager_hears_ready_alive_reloading_and_stopping() {
    let (topology, place) = (Topology::new(1).unwrap(), Place::new().unwrap());
    let path = place.directory().join("notify.sock");
    let socket = std::os::unix::net::UnixDatagram::bind(&path).unwrap();
    socket.set_nonblocking(true).unwrap();
    let file = place.directory().join("floodwall.toml");
    std::fs::write(&file, format!("interfaces = [\"{PROTECTED}\"]\n")).unwrap();
    let mut heard = String::new();
    let mut hear = |what: &str| {
        wait_for(what, || {
            let mut buffer = [0; 512];
            while let Ok(bytes) = socket.recv(&mut buffer) {
                heard += &String::from_utf8_lossy(&buffer[..bytes]);
                heard.push('\n');
            }
            heard.contains(what).then_some(())
        })
        .unwrap();
    };
    let config = file.to_str().unwrap();
    let environment = [("NOTIFY_SOCKET", path.as_os_str())];
    let daemon = Daemon::start_with(&topology.server, &place, &["--config", config], &environment).unwrap();
    hear("READY=1");
    hear("WATCHDOG=1");
    hear("STATUS=monitor, on 1 of 1 interfaces");
    verb(&topology, &place, "reload");
    hear("RELOADING=1");
    hear("MONOTONIC_USEC=");
    daemon.stop().unwrap();
    hear("STOPPING=1");
}

//! `floodwall uninstall`: not while a daemon runs, and afterwards nothing is left in the kernel, whatever was there.

#![expect(clippy::unwrap_used, reason = "the helpers of tests fail as the tests do: by a panic")]

use floodwall::dataplane::Pins;
use floodwall_tests::daemon::{floodwall, wait_for};
use floodwall_tests::netns::Namespace;
use floodwall_tests::pins::{Loaded, replace_by_smaller_array};
use floodwall_tests::stand::Stand;
use floodwall_tests::topology::PROTECTED;
use serde_json::Value;

/// The exit code, and what was said to whom.
fn uninstall(stand: &Stand, namespace: &Namespace, more: &[&str]) -> (Option<i32>, String, String) {
    let output = floodwall(namespace, &stand.place, &[&["uninstall"], more].concat()).unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (output.status.code(), text(&output.stdout), text(&output.stderr))
}

fn is_attached(stand: &Stand) -> bool {
    let status = floodwall(&stand.topology.server, &stand.place, &["status"]).unwrap();
    status.status.code() == Some(10)
}

#[test]
fn it_refuses_while_a_daemon_runs_whatever_socket_that_has() {
    let stand = Stand::new();
    let daemon = stand.run(&[]);
    let elsewhere = stand.place.directory().join("elsewhere.sock");
    for more in [&[][..], &["--purge"], &["--socket", elsewhere.to_str().unwrap()]] {
        let (exit, _, said) = uninstall(&stand, &stand.topology.server, more);
        assert_eq!(exit, Some(5), "{more:?}: {said}");
        assert!(said.contains("try: "), "{more:?}: {said}");
    }
    assert!(is_attached(&stand));
    daemon.stop().unwrap();
    assert!(is_attached(&stand), "stopping takes nothing off");
}

#[test]
fn nothing_is_left_in_the_kernel_and_it_says_what_it_took() {
    let stand = Stand::new();
    let (server, place) = (&stand.topology.server, &stand.place);
    let daemon = stand.run(&[]);
    let (loaded, home) = (Loaded::now(&place.bpffs()).unwrap(), Pins::new(place.bpffs()).home());
    assert!(!loaded.is_gone().unwrap());
    // As an older version has left it, and as a daemon that was killed leaves its socket.
    std::fs::create_dir_all(home.join("v1/links")).unwrap();
    daemon.kill().unwrap();
    assert!(place.socket().exists() && is_attached(&stand));

    let (exit, told, said) = uninstall(&stand, server, &[]);
    assert_eq!(exit, Some(0), "{said}");
    for line in [
        format!("detached: {PROTECTED}\n"),
        format!("removed:  {}\n", home.display()),
        format!("removed:  {}\n", place.socket().display()),
        format!("kept:     {}", place.directory().join("floodwall.toml").display()),
        format!("kept:     {}", place.directory().join("history.ndjson").display()),
        format!("kept:     {}", place.directory().join("last-good.toml").display()),
    ] {
        assert!(told.contains(&line), "{line}: {told}");
    }
    assert!(!home.exists() && !place.socket().exists());
    wait_for("the kernel to free it all", || loaded.is_gone().unwrap().then_some(())).unwrap();
    assert!(stand.verb("history").contains("uninstall"), "{}", stand.verb("history"));

    let (exit, told, said) = uninstall(&stand, server, &["--purge", "--json"]);
    assert_eq!(exit, Some(0), "{said}");
    let told: Value = serde_json::from_str(&told).unwrap();
    assert_eq!((told["removed"].as_array().unwrap().len(), &told["kept"]), (3, &Value::Array(vec![])));
    let (exit, told, _) = uninstall(&stand, server, &[]);
    assert_eq!((exit, told.as_str()), (Some(0), "nothing to remove\n"));
    let left: Vec<_> = std::fs::read_dir(place.directory()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert!(left.iter().all(|name| name == "bpf" || name == "daemon.log"), "{left:?}");
}

#[test]
fn maps_that_are_not_as_they_should_be_go_too_and_from_any_network_namespace() {
    let stand = Stand::new();
    stand.run(&[]).stop().unwrap();
    let loaded = Loaded::now(&stand.place.bpffs()).unwrap();
    replace_by_smaller_array(&stand.place, "PREFILTER").unwrap();
    let (exit, told, said) = uninstall(&stand, &stand.topology.world, &[]);
    assert_eq!(exit, Some(0), "{said}");
    let index = stand.topology.server.ifindex(PROTECTED).unwrap();
    assert!(told.contains(&format!("detached: interface {index} of another network namespace\n")), "{told}");
    wait_for("the kernel to free it all", || loaded.is_gone().unwrap().then_some(())).unwrap();
    drop(stand.run(&[]));
}

#[test]
fn without_a_bpf_file_system_it_says_so_and_removes_no_file() {
    let stand = Stand::new();
    let nowhere = stand.place.directory().to_str().unwrap().to_owned();
    let (exit, _, said) = uninstall(&stand, &stand.topology.server, &["--purge", "--bpffs", &nowhere]);
    assert_eq!(exit, Some(4), "{said}");
    assert!(said.contains("is not a BPF file system") && stand.place.directory().join("floodwall.toml").exists());
}

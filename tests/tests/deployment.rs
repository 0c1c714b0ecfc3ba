//! What the service and the pod are given is what the daemon needs: it lives with the capabilities of each, and with none less.

#![expect(clippy::unwrap_used, reason = "the helpers of tests fail as the tests do: by a panic")]

use std::path::Path;
use std::process::{Child, Command, Stdio};

use floodwall_tests::daemon::{binary, status, wait_for};
use floodwall_tests::pins::{pin, wipe};
use floodwall_tests::stand::Stand;
use floodwall_tests::topology::PROTECTED;

fn read(file: &str) -> String {
    std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy").join(file)).unwrap()
}

/// Those that the pod adds to none, by the names of `setpriv`.
fn of_the_pod() -> Vec<String> {
    let manifest = read("kubernetes/floodwall.yaml");
    assert!(manifest.contains("drop: [ALL]"));
    let added = manifest.lines().find_map(|line| line.trim().strip_prefix("add: [")?.strip_suffix(']')).unwrap();
    added.split(", ").map(str::to_lowercase).collect()
}

fn of_the_service() -> Vec<String> {
    let unit = read("systemd/floodwall.service");
    let bound = unit.lines().find_map(|line| line.strip_prefix("CapabilityBoundingSet=")).unwrap();
    bound.split(' ').map(|name| name.strip_prefix("CAP_").unwrap().to_lowercase()).collect()
}

/// The daemon as root with these capabilities, and without a way to any other.
fn run(stand: &Stand, capabilities: &[String]) -> Child {
    let bound: String = capabilities.iter().map(|name| format!(",+{name}")).collect();
    let daemon = stand.place.command(&stand.topology.server, &["run", "--interface", PROTECTED, "--metrics", "off"]);
    let mut bounded = stand.topology.server.command("setpriv").unwrap();
    bounded.args(["--no-new-privs", &format!("--bounding-set=-all{bound}"), "--inh-caps=-all"]);
    bounded.arg(binary().unwrap()).args(daemon.as_ref().unwrap().get_args());
    let environment: Vec<_> = daemon.as_ref().unwrap().get_envs().collect();
    bounded.envs(environment.iter().filter_map(|(name, value)| Some((name, (*value)?))));
    let log = std::fs::File::create(stand.place.log()).unwrap();
    bounded.stdin(Stdio::null()).stderr(log).spawn().unwrap()
}

/// It lives, and so does one that is started after it, which finds lists that are not empty.
fn lives_with(capabilities: &[String]) {
    let stand = Stand::new();
    stand.write("auto_allow = false\n[deny]\nprefixes = [\"192.0.2.0/24\", \"2001:db8::/32\"]\n");
    for more in ["198.51.100.7/32", "198.51.100.8/32"] {
        let daemon = starts_with(&stand, capabilities);
        stand.verb(&format!("deny add {more}"));
        let listed = stand.verb("deny list");
        let is_listed = |prefix: &str| listed.contains(prefix);
        assert!(["192.0.2.0/24", "2001:db8::/32", "198.51.100.7/32", more].into_iter().all(is_listed), "{listed}");
        ends(daemon);
    }
    // Somebody removes the pins, those of the lists too, and the next one finds them all the same.
    let daemon = starts_with(&stand, capabilities);
    wipe(&stand.place).unwrap();
    wait_for("the pins", || pin(&stand.place, "LISTS_V4-0").exists().then_some(())).unwrap();
    ends(daemon);
    let daemon = starts_with(&stand, capabilities);
    assert!(stand.verb("deny list").contains("198.51.100.8/32"));
    ends(daemon);
}

fn ends(mut daemon: Child) {
    daemon.kill().unwrap();
    daemon.wait().unwrap();
}

fn starts_with(stand: &Stand, capabilities: &[String]) -> Child {
    let mut daemon = run(stand, capabilities);
    let ready = wait_for("the daemon", || {
        let answers = status(&stand.topology.server, &stand.place)
            .is_ok_and(|now| now["attached"] == true && now["daemon"] == true);
        (answers || daemon.try_wait().unwrap().is_some()).then_some(answers)
    });
    let log = std::fs::read_to_string(stand.place.log()).unwrap();
    assert!(ready.unwrap(), "{capabilities:?}: {log}");
    assert!(!log.contains("ERROR") && !log.contains("WARN"), "{capabilities:?}: {log}");
    daemon
}

fn dies_without(missing: &str) {
    let stand = Stand::new();
    let rest: Vec<_> = of_the_pod().into_iter().filter(|name| name != missing).collect();
    let exit = run(&stand, &rest).wait().unwrap();
    let log = std::fs::read_to_string(stand.place.log()).unwrap();
    assert_eq!(exit.code(), Some(4), "without {missing}: {log}");
    assert!(log.contains(&format!("CAP_{} is missing", missing.to_uppercase())), "without {missing}: {log}");
}

/// The daemon as a user of its own, who may nothing else but what the pod may. Where the maps are pinned is his: a BPF file
/// system is root's alone unless somebody mounts it otherwise.
fn run_as_nobody(stand: &Stand) -> Child {
    let nobody = || Some(65_534);
    for path in [stand.place.directory().to_owned(), stand.place.bpffs()] {
        std::os::unix::fs::chown(path, nobody(), nobody()).unwrap();
    }
    let copy = stand.place.directory().join("floodwall");
    std::fs::copy(binary().unwrap(), &copy).unwrap();
    let more: String = of_the_pod().iter().map(|name| format!(",+{name}")).collect();
    let daemon = stand.place.command(&stand.topology.server, &["run", "--interface", PROTECTED, "--metrics", "off"]);
    let mut bounded = stand.topology.server.command("setpriv").unwrap();
    bounded.args(["--reuid", "65534", "--regid", "65534", "--clear-groups", "--no-new-privs"]);
    bounded.args(["--inh-caps", "--ambient-caps", "--bounding-set"].map(|which| format!("{which}=-all{more}")));
    bounded.arg(&copy).args(daemon.as_ref().unwrap().get_args());
    let environment: Vec<_> = daemon.as_ref().unwrap().get_envs().collect();
    bounded.envs(environment.iter().filter_map(|(name, value)| Some((name, (*value)?))));
    let log = std::fs::File::create(stand.place.log()).unwrap();
    bounded.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log).spawn().unwrap()
}

#[test]
fn the_daemon_lives_with_the_capabilities_of_the_pod_and_with_none_less() {
    let pod = of_the_pod();
    lives_with(&pod);
    for missing in &pod {
        dies_without(missing);
    }
}

#[test]
fn the_daemon_lives_as_a_user_of_its_own_where_the_pins_are_his() {
    let stand = Stand::new();
    let mut daemon = run_as_nobody(&stand);
    let ready = wait_for("the daemon", || {
        let now = status(&stand.topology.server, &stand.place).ok();
        let answers = now.is_some_and(|now| now["attached"] == true && now["daemon"] == true);
        (answers || daemon.try_wait().unwrap().is_some()).then_some(answers)
    });
    let of = std::fs::read_to_string(format!("/proc/{}/status", daemon.id())).unwrap_or_default();
    let set = floodwall_tests::daemon::run_verb(&stand.topology.server, &stand.place, "mode enforce");
    let log = std::fs::read_to_string(stand.place.log()).unwrap();
    daemon.kill().unwrap();
    daemon.wait().unwrap();
    assert!(ready.unwrap() && set.is_ok(), "{set:?} {log}");
    assert!(of.contains("Uid:\t65534\t65534\t65534\t65534"), "{of}");
    assert!(!log.contains("ERROR"), "{log}");
}

#[test]
fn the_service_has_one_more_for_the_group_of_the_socket() {
    let service = of_the_service();
    lives_with(&service);
    let more: Vec<_> = service.into_iter().filter(|name| !of_the_pod().contains(name)).collect();
    assert_eq!(more, ["chown"]);
}

#[test]
fn the_container_is_given_what_the_pod_is() {
    let recipe = read("container/Dockerfile");
    let added = recipe.split("--cap-add ").skip(1).map(|rest| rest.split_whitespace().next().unwrap().to_lowercase());
    assert_eq!(added.collect::<Vec<_>>(), of_the_pod());
}

#[test]
fn the_file_in_the_pod_is_right() {
    let manifest = read("kubernetes/floodwall.yaml");
    let block = manifest.split_once("floodwall.toml: |\n").unwrap().1.split_once("\n---").unwrap().0;
    let directory = std::env::temp_dir().join(format!("floodwall-pod-{}", std::process::id()));
    std::fs::create_dir_all(&directory).unwrap();
    let file = directory.join("floodwall.toml");
    std::fs::write(&file, block.lines().map(|line| format!("{}\n", line.trim_start())).collect::<String>()).unwrap();
    let checked = Command::new(binary().unwrap()).args(["config", "check", "--config"]).arg(&file).output().unwrap();
    std::fs::remove_dir_all(&directory).unwrap();
    assert!(checked.status.success(), "{}", String::from_utf8_lossy(&checked.stderr));
}

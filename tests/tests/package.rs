//! A newcomer's path, as the manual has it: install the package, ask the doctor, run it on a link, look, enforce, see a flood
//! dropped, remove the package. It takes less than a minute of the machine, and nothing is left behind, also where the daemon ran as a
//! user of its own. What systemd does in between is not seen here: none runs in the root of the test.

#![expect(clippy::unwrap_used, reason = "the helpers of tests fail as the tests do: by a panic")]

use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;
use std::process::{Child, Output, Stdio};
use std::time::{Duration, Instant};

use floodwall_tests::daemon::{is_slow_machine, packets, wait_for};
use floodwall_tests::flood::Flood;
use floodwall_tests::pins::Loaded;
use floodwall_tests::root::{Root, Written, package};
use floodwall_tests::topology::{PROTECTED, Topology};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

const CONFIGURATION: &str = "/etc/floodwall/floodwall.toml";
/// What dpkg, its triggers and groupadd keep for themselves.
const RECORDS: [&str; 7] =
    ["/var/lib/dpkg", "/var/log", "/var/cache", "/etc/group-", "/etc/gshadow-", "/etc/.pwd.lock", MANUAL_INDEX];
/// Where this file is, each installation makes the index of all manual pages of the machine anew, which takes half a minute.
const MANUAL_INDEX: &str = "/var/lib/man-db/auto-update";

/// Where the manual has the pins of a user of its own.
const OWN_BPFFS: &str = "/run/floodwall-bpf";

struct Newcomer {
    topology: Topology,
    root: Root,
}

impl Newcomer {
    fn output(&self, words: &str) -> Output {
        let mut words = words.split(' ');
        let mut command = self.root.command(&self.topology.server, words.next().unwrap()).unwrap();
        command.args(words).stdin(Stdio::null()).output().unwrap()
    }

    /// The exit code, and all that was said.
    fn types(&self, words: &str) -> (i32, String) {
        let output = self.output(words);
        let said = [output.stdout, output.stderr].concat();
        (output.status.code().unwrap(), String::from_utf8_lossy(&said).into_owned())
    }

    fn expects(&self, exit: i32, words: &str) -> String {
        let (code, said) = self.types(words);
        assert_eq!(code, exit, "{words}: {said}");
        said
    }

    fn status(&self) -> Value {
        serde_json::from_slice(&self.output("floodwall status --json").stdout).unwrap_or_default()
    }

    /// As the service does it.
    fn runs_the_daemon(&self) -> Running {
        self.runs("floodwall run")
    }

    fn runs(&self, words: &str) -> Running {
        let log = std::fs::File::create(self.root.path("/tmp/log")).unwrap();
        let mut words = words.split(' ');
        let mut command = self.root.command(&self.topology.server, words.next().unwrap()).unwrap();
        let daemon = Running(command.args(words).stdin(Stdio::null()).stderr(log).spawn().unwrap());
        let log = || std::fs::read_to_string(self.root.path("/tmp/log")).unwrap();
        let ready = wait_for("the daemon", || (self.status()["daemon"] == true).then_some(()));
        assert!(ready.is_ok(), "{}", log());
        daemon
    }

    /// A flood of one source, and the status once it shows.
    fn is_flooded(&self, verdict: &str) -> u64 {
        // By the limit of its source, or by what detection has armed.
        let count =
            || ["packet-limit", "signature"].map(|reason| packets(&self.status(), verdict, reason)).iter().sum::<u64>();
        let before = count();
        let flood = Flood::udp(1, 50_000, Duration::from_secs(2));
        let flood = flood.start(&self.topology.world, self.topology.target().unwrap(), 0).unwrap();
        let over = wait_for("the flood to show", || {
            let over = count() - before;
            (over > 10_000).then_some(over)
        });
        flood.join().unwrap().unwrap();
        over.unwrap()
    }

    /// Everything that is there and was not before, or the other way round.
    fn left_behind(&self) -> Vec<(String, Written)> {
        let is_record = |path: &Path| RECORDS.iter().any(|record| path.starts_with(record));
        let left = self.root.written().unwrap().into_iter();
        let left = left.filter(|(path, what)| *what != Written::Changed && !is_record(path));
        left.map(|(path, what)| (path.display().to_string(), what)).collect()
    }
}

struct Running(Child);

impl Running {
    fn stop(mut self) {
        kill(Pid::from_raw(self.0.id() as i32), Signal::SIGTERM).unwrap();
        let exit = wait_for("the daemon to stop", || self.0.try_wait().unwrap()).unwrap();
        assert!(exit.success(), "{exit}");
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn from_the_package_to_a_dropped_flood_and_back_to_nothing() {
    let newcomer = Newcomer { topology: Topology::new(1).unwrap(), root: Root::new().unwrap() };
    let root = &newcomer.root;
    assert!(newcomer.types("dpkg --status floodwall").0 != 0, "this machine has the package itself: remove it first");
    std::fs::copy(package().unwrap(), root.path("/tmp/floodwall.deb")).unwrap();
    let _ = std::fs::remove_file(root.path(MANUAL_INDEX));
    let start = Instant::now();

    newcomer.expects(0, "dpkg --install /tmp/floodwall.deb");
    let installed = start.elapsed();
    newcomer.expects(4, "floodwall status");
    assert!(!root.path("/sys/fs/bpf/floodwall").exists(), "nothing is attached by an installation");
    for file in [
        "/usr/lib/systemd/system/floodwall.service",
        "/usr/share/man/man1/floodwall-limits-set.1.gz",
        "/usr/share/bash-completion/completions/floodwall",
        "/usr/share/zsh/vendor-completions/_floodwall",
        "/usr/share/fish/vendor_completions.d/floodwall.fish",
        "/usr/share/floodwall/prometheus/alerts.yml",
        "/usr/share/doc/floodwall/copyright",
        "/usr/share/doc/floodwall/manual/operating.md",
    ] {
        assert!(root.path(file).is_file(), "{file}");
    }

    // The file as it comes is right, and names no interface; the commented one is the line that a newcomer wants.
    newcomer.expects(0, "floodwall config check");
    let said = newcomer.expects(2, "floodwall run --metrics off");
    assert!(said.contains("no interface to protect"), "{said}");
    let file = std::fs::read_to_string(root.path(CONFIGURATION)).unwrap();
    let edited = file.replace("#interfaces = [\"eth0\"]", &format!("interfaces = [\"{PROTECTED}\"]"));
    assert!(edited != file, "{file}");
    std::fs::write(root.path(CONFIGURATION), edited).unwrap();
    let (exit, said) = newcomer.types("floodwall doctor");
    assert!([0, 10].contains(&exit) && said.starts_with("READY"), "{said}");

    let daemon = newcomer.runs_the_daemon();
    newcomer.expects(10, "floodwall status");
    let socket = std::fs::metadata(root.path("/run/floodwall/floodwall.sock")).unwrap();
    let group = newcomer.expects(0, "getent group floodwall");
    assert_eq!(group.split(':').nth(2).unwrap(), socket.gid().to_string());
    assert_eq!(socket.permissions().mode() & 0o777, 0o660);
    newcomer.is_flooded("pass");
    assert_eq!(packets(&newcomer.status(), "drop", "packet-limit"), 0, "monitor mode drops nothing");
    newcomer.expects(0, "floodwall mode enforce");
    let dropped = newcomer.is_flooded("drop");
    newcomer.expects(0, "floodwall status");
    let loaded = Loaded::now(&root.path("/sys/fs/bpf")).unwrap();

    // Without its daemon the filter goes on, and without its program it would go on where nobody could steer it.
    let said = newcomer.expects(1, "dpkg --remove floodwall");
    assert!(said.contains("the daemon runs"), "{said}");
    newcomer.expects(0, "floodwall status");
    daemon.stop();
    newcomer.expects(0, "floodwall status");
    let said = newcomer.expects(0, "dpkg --remove floodwall");
    assert!(said.contains(&format!("detached: {PROTECTED}")), "{said}");
    wait_for("the kernel to free it all", || loaded.is_gone().unwrap().then_some(())).unwrap();
    assert!(root.path(CONFIGURATION).is_file() && root.path("/var/lib/floodwall/history.ndjson").is_file());

    newcomer.expects(0, "dpkg --purge floodwall");
    assert!(newcomer.types("getent group floodwall").0 != 0 && newcomer.types("dpkg --status floodwall").0 != 0);
    assert_eq!(newcomer.left_behind(), []);
    assert!(!root.path("/sys/fs/bpf/floodwall").exists());
    let took = start.elapsed();
    println!("installed after {installed:.1?}, {dropped} packets dropped, gone after {took:.1?}");
    assert!(took < Duration::from_secs(60) || is_slow_machine(), "{took:?}");
}

#[test]
fn a_purge_leaves_nothing_of_a_daemon_that_ran_as_a_user_of_its_own() {
    let newcomer = Newcomer { topology: Topology::new(1).unwrap(), root: Root::new().unwrap() };
    let root = &newcomer.root;
    std::fs::copy(package().unwrap(), root.path("/tmp/floodwall.deb")).unwrap();
    let _ = std::fs::remove_file(root.path(MANUAL_INDEX));
    newcomer.expects(0, "dpkg --install /tmp/floodwall.deb");
    // As the manual has it.
    newcomer.expects(0, "useradd --system --gid floodwall --no-create-home floodwall");
    let ids =
        ["--user", "--group"].map(|which| newcomer.expects(0, &format!("id {which} floodwall")).trim().to_owned());
    let options = format!("uid={},gid={},mode=0700", ids[0], ids[1]);
    newcomer.expects(0, &format!("mount --mkdir --types bpf --options {options} bpf {OWN_BPFFS}"));
    let unit = root.path("/etc/systemd/system/floodwall.service.d");
    std::fs::create_dir_all(&unit).unwrap();
    std::fs::write(unit.join("override.conf"), "[Service]\nUser=floodwall\n").unwrap();
    // As the service manager does it.
    newcomer.expects(0, "install --directory --owner floodwall --group floodwall /run/floodwall /var/lib/floodwall");
    let capabilities = ["--inh-caps", "--ambient-caps", "--bounding-set"];
    let capabilities = capabilities.map(|which| format!("{which}=-all,+bpf,+perfmon,+net_admin")).join(" ");
    let daemon = newcomer.runs(&format!(
        "setpriv --reuid floodwall --regid floodwall --clear-groups --no-new-privs {capabilities} \
         floodwall run --interface {PROTECTED} --metrics off --bpffs {OWN_BPFFS}"
    ));
    let owner = std::fs::metadata(format!("/proc/{}", daemon.0.id())).unwrap().uid();
    assert!(owner.to_string() == ids[0] && owner != 0, "{owner}");
    newcomer.expects(10, "floodwall status");
    let loaded = Loaded::now(&root.path(OWN_BPFFS)).unwrap();
    let said = newcomer.expects(1, "dpkg --purge floodwall");
    assert!(said.contains("the daemon runs"), "{said}");
    daemon.stop();
    let said = newcomer.expects(0, "dpkg --purge floodwall");
    assert!(said.contains(&format!("detached: {PROTECTED}")), "{said}");
    wait_for("the kernel to free it all", || loaded.is_gone().unwrap().then_some(())).unwrap();
    assert!(newcomer.types("getent passwd floodwall").0 != 0 && newcomer.types("getent group floodwall").0 != 0);
    assert!(!root.path(OWN_BPFFS).exists());
    assert_eq!(newcomer.left_behind(), []);
}

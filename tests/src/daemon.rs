//! The daemon under test: the built binary, in a namespace, with pins and a socket of its own.

use std::ffi::OsStr;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

use crate::netns::Namespace;

/// How long anything may take that a test waits for.
pub const DEADLINE: Duration = Duration::from_secs(20);

static COUNT: AtomicU32 = AtomicU32::new(0);

/// Whether everything takes long here, as in the emulator of `cargo xtask vm`, and a flood leaves no time for anything else.
pub fn is_slow_machine() -> bool {
    std::env::var_os("FLOODWALL_SLOW_MACHINE").is_some()
}

/// Waits until `condition` has a value.
///
/// # Errors
/// Where it has none before the deadline: says what was waited for.
pub fn wait_for<T>(what: &str, mut condition: impl FnMut() -> Option<T>) -> Result<T> {
    let deadline = if is_slow_machine() { 6 * DEADLINE } else { DEADLINE };
    let end = Instant::now() + deadline;
    loop {
        if let Some(value) = condition() {
            return Ok(value);
        }
        if Instant::now() > end {
            bail!("waited {} s in vain for {what}", deadline.as_secs());
        }
        // condition: the loop asks again; this only keeps it from spinning.
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// A directory with a BPF file system in it, gone with this value.
#[derive(Debug)]
pub struct Place {
    directory: PathBuf,
    keep: bool,
}

impl Place {
    /// Makes one.
    ///
    /// # Errors
    /// Where a BPF file system cannot be mounted: it takes root.
    pub fn new() -> Result<Self> {
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        Self::at(std::env::temp_dir().join(format!("floodwall-test-{}-{number}", std::process::id())))
    }

    /// Makes one here.
    ///
    /// # Errors
    /// Where a BPF file system cannot be mounted.
    pub fn at(directory: PathBuf) -> Result<Self> {
        let bpffs = directory.join("bpf");
        std::fs::create_dir_all(&bpffs)?;
        // A file of this machine says nothing to a daemon under test, nor do its resolvers.
        std::fs::write(directory.join("floodwall.toml"), "auto_allow = false\n")?;
        mount(Some("bpf"), &bpffs, Some("bpf"), MsFlags::empty(), None::<&str>).context("mount a BPF file system")?;
        Ok(Self { directory, keep: false })
    }

    /// Leaves it behind when this value goes.
    pub fn keep(&mut self) {
        self.keep = true;
    }

    /// The directory.
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// Its BPF file system.
    pub fn bpffs(&self) -> PathBuf {
        self.directory.join("bpf")
    }

    /// The control socket.
    pub fn socket(&self) -> PathBuf {
        self.directory.join("floodwall.sock")
    }

    /// The daemon's log.
    pub fn log(&self) -> PathBuf {
        self.directory.join("daemon.log")
    }

    /// A verb of the command line, run in a namespace.
    ///
    /// # Errors
    /// Where the namespace is gone.
    pub fn command(&self, namespace: &Namespace, arguments: &[&str]) -> Result<Command> {
        let mut command = namespace.command(binary()?)?;
        command.args(arguments).env("FLOODWALL_SOCKET", self.socket()).env("FLOODWALL_BPFFS", self.bpffs());
        command.env("FLOODWALL_CONFIG", self.directory.join("floodwall.toml"));
        command.env("FLOODWALL_HISTORY", self.directory.join("history.ndjson"));
        command.env_remove("SSH_CONNECTION").env_remove("RUST_LOG");
        Ok(command)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if !self.keep {
            // Unmounting takes every pin with it, so every attachment too.
            let _ = umount2(&self.bpffs(), MntFlags::MNT_DETACH);
            let _ = std::fs::remove_dir_all(&self.directory);
        }
    }
}

/// The binary under test: what xtask has built, or what cargo has beside this one.
///
/// # Errors
/// Where there is none.
pub fn binary() -> Result<PathBuf> {
    if let Some(path) = std::env::var_os("FLOODWALL_BIN") {
        return Ok(path.into());
    }
    let this = std::env::current_exe()?;
    let beside = this.ancestors().skip(1).map(|directory| directory.join("floodwall")).find(|path| path.is_file());
    beside.context("no floodwall binary: build it (cargo build -p floodwall), or name it in FLOODWALL_BIN")
}

/// A running daemon.
#[derive(Debug)]
pub struct Daemon {
    child: Child,
}

impl Daemon {
    /// Starts it, and waits until it answers.
    ///
    /// # Errors
    /// Where it does not: with its log.
    pub fn start(namespace: &Namespace, place: &Place, arguments: &[&str]) -> Result<Self> {
        Self::start_with(namespace, place, arguments, &[])
    }

    /// The same, with more in its environment.
    ///
    /// # Errors
    /// As [`Self::start`].
    pub fn start_with(
        namespace: &Namespace,
        place: &Place,
        arguments: &[&str],
        environment: &[(&str, &OsStr)],
    ) -> Result<Self> {
        let mut all = vec!["run"];
        all.extend(arguments);
        // What the packet path does by itself is what most tests are about: those of detection say so.
        if !arguments.contains(&"--respond") {
            all.extend(["--respond", "off"]);
        }
        let log = File::options().create(true).append(true).open(place.log())?;
        let mut command = place.command(namespace, &all)?;
        command.envs(environment.iter().copied());
        let mut child = command.stdin(Stdio::null()).stderr(log).spawn()?;
        let ready = wait_for("the daemon", || match child.try_wait() {
            Ok(None) => status(namespace, place).ok().filter(|status| status["daemon"] == true).map(|_| Ok(())),
            Ok(Some(exit)) => Some(Err(exit)),
            Err(_) => None,
        });
        let log = || std::fs::read_to_string(place.log()).unwrap_or_default();
        match ready {
            Ok(Ok(())) => Ok(Self { child }),
            Ok(Err(exit)) => bail!("the daemon ended with {exit}:\n{}", log()),
            Err(error) => {
                let _ = child.kill();
                bail!("{error}:\n{}", log())
            }
        }
    }

    /// Its process.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Ends it as the kernel ends a process that it has no memory for.
    ///
    /// # Errors
    /// Where it is gone already.
    pub fn kill(mut self) -> Result<()> {
        self.child.kill()?;
        self.child.wait()?;
        Ok(())
    }

    /// Asks it to stop, and waits until it has.
    ///
    /// # Errors
    /// Where it does not end well.
    pub fn stop(mut self) -> Result<()> {
        kill(Pid::from_raw(self.child.id() as i32), Signal::SIGTERM)?;
        let exit = wait_for("the daemon to stop", || self.child.try_wait().ok().flatten())?;
        ensure!(exit.success(), "the daemon ended with {exit}");
        Ok(())
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Runs a verb, and returns what came of it.
///
/// # Errors
/// Where it cannot be started.
pub fn floodwall(namespace: &Namespace, place: &Place, arguments: &[&str]) -> Result<Output> {
    place.command(namespace, arguments)?.stdin(Stdio::null()).output().context("run floodwall")
}

/// Runs a verb that has to succeed, and returns what it prints.
///
/// # Errors
/// Where it does not: with what it says.
pub fn floodwall_ok(namespace: &Namespace, place: &Place, arguments: &[&str]) -> Result<String> {
    let output = floodwall(namespace, place, arguments)?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "floodwall {}: {}: {said}", arguments.join(" "), output.status);
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// The same, with the arguments as words with blanks between them.
///
/// # Errors
/// As [`floodwall_ok`].
pub fn run_verb(namespace: &Namespace, place: &Place, words: &str) -> Result<String> {
    floodwall_ok(namespace, place, &words.split(' ').collect::<Vec<_>>())
}

/// `floodwall status --json`, whatever its exit code says.
///
/// # Errors
/// Where it prints none.
pub fn status(namespace: &Namespace, place: &Place) -> Result<Value> {
    let output = floodwall(namespace, place, &["status", "--json"])?;
    serde_json::from_slice(&output.stdout)
        .with_context(|| format!("status: {}", String::from_utf8_lossy(&output.stderr)))
}

/// Packets of a reason and verdict, over all interfaces of a status.
pub fn packets(status: &Value, verdict: &str, reason: &str) -> u64 {
    let interfaces = status["interfaces"].as_array().into_iter().flatten();
    let reasons = interfaces.flat_map(|interface| interface["reasons"].as_array().into_iter().flatten());
    reasons
        .filter(|entry| entry["verdict"] == verdict && entry["reason"] == reason)
        .filter_map(|entry| entry["packets"].as_u64())
        .sum()
}

/// All packets of a status.
pub fn all_packets(status: &Value) -> u64 {
    let interfaces = status["interfaces"].as_array().into_iter().flatten();
    interfaces
        .map(|interface| {
            interface["passed"]["packets"].as_u64().unwrap_or(0) + interface["dropped"]["packets"].as_u64().unwrap_or(0)
        })
        .sum()
}

/// A sample of `floodwall metrics`: the sum of those series whose labels all contain these.
///
/// # Errors
/// Where the verb fails.
pub fn metric(namespace: &Namespace, place: &Place, name: &str, labels: &[&str]) -> Result<f64> {
    let text = floodwall_ok(namespace, place, &["metrics"])?;
    let series = text.lines().filter(|line| {
        line.strip_prefix(name).is_some_and(|rest| rest.starts_with(['{', ' ']))
            && labels.iter().all(|label| line.contains(label))
    });
    Ok(series.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum())
}

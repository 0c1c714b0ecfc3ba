//! Network namespaces that a test makes, and that are gone with the value that stands for them.

use std::fs::File;
use std::io;
use std::os::fd::AsFd;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};

use anyhow::{Context, Result, bail, ensure};
use nix::sched::{CloneFlags, setns};

static COUNT: AtomicU32 = AtomicU32::new(0);

/// A network namespace.
#[derive(Debug)]
pub struct Namespace {
    name: String,
    keep: bool,
}

impl Namespace {
    /// Makes one, with its loopback up. `role` is for people who look while it lives.
    ///
    /// # Errors
    /// Where `ip netns` cannot: it takes root.
    pub fn new(role: &str) -> Result<Self> {
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        Self::named(&format!("fw-{}-{number}-{role}", std::process::id()))
    }

    /// Makes one with this name.
    ///
    /// # Errors
    /// Where `ip netns` cannot, or the name is taken.
    pub fn named(name: &str) -> Result<Self> {
        ip(&["netns", "add", name])?;
        let namespace = Self { name: name.to_owned(), keep: false };
        namespace.ip("link set lo up")?;
        Ok(namespace)
    }

    /// Leaves it behind when this value goes.
    pub fn keep(&mut self) {
        self.keep = true;
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    fn path(&self) -> PathBuf {
        PathBuf::from("/run/netns").join(&self.name)
    }

    /// Runs `ip` inside, with blank-separated arguments.
    ///
    /// # Errors
    /// What `ip` says.
    pub fn ip(&self, arguments: &str) -> Result<()> {
        let mut all = vec!["-n", &self.name];
        all.extend(arguments.split(' '));
        ip(&all)
    }

    /// A command that will run inside. Only the network is another: its file systems are ours.
    ///
    /// # Errors
    /// Where the namespace is gone.
    pub fn command(&self, program: impl AsRef<std::ffi::OsStr>) -> Result<Command> {
        let namespace = File::open(self.path()).context("open the namespace")?;
        let mut command = Command::new(program);
        // SAFETY: setns is async-signal-safe, and the child owns its copy of the descriptor.
        unsafe { command.pre_exec(move || enter(&namespace)) };
        Ok(command)
    }

    /// Runs `work` inside, on a thread of its own: a thread never comes back from a namespace.
    ///
    /// # Errors
    /// Where the namespace is gone.
    pub fn spawn<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> Result<Running<T>> {
        let namespace = File::open(self.path()).context("open the namespace")?;
        let thread = std::thread::Builder::new().spawn(move || enter(&namespace).map(|()| work()))?;
        Ok(Running(thread))
    }

    /// Runs `work` inside and waits for it.
    ///
    /// # Errors
    /// Where the namespace is gone, or `work` panicked.
    pub fn run<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> Result<T> {
        self.spawn(work)?.join()
    }

    /// The index of an interface inside.
    ///
    /// # Errors
    /// Where there is none of this name.
    pub fn ifindex(&self, interface: &str) -> Result<u32> {
        let name = std::ffi::CString::new(interface)?;
        // SAFETY: a live string that ends with zero.
        let index = self.run(move || unsafe { libc::if_nametoindex(name.as_ptr()) })?;
        ensure!(index != 0, "no interface {interface} in {}", self.name);
        Ok(index)
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        if !self.keep {
            // Its interfaces go with it. One that somebody has removed already is as good.
            let _ = ip(&["netns", "del", &self.name]);
        }
    }
}

fn enter(namespace: &File) -> io::Result<()> {
    Ok(setns(namespace.as_fd(), CloneFlags::CLONE_NEWNET)?)
}

/// Work that runs in a namespace.
#[derive(Debug)]
pub struct Running<T>(std::thread::JoinHandle<io::Result<T>>);

impl<T> Running<T> {
    /// Waits for it.
    ///
    /// # Errors
    /// Where it panicked, or never got into its namespace.
    pub fn join(self) -> Result<T> {
        match self.0.join() {
            Ok(result) => result.context("enter the namespace"),
            Err(_) => bail!("a thread panicked"),
        }
    }
}

/// Joins two namespaces by a pair of virtual interfaces, both up.
///
/// # Errors
/// What `ip` says.
pub fn join(a: &Namespace, a_interface: &str, b: &Namespace, b_interface: &str) -> Result<()> {
    ip(&["-n", &a.name, "link", "add", a_interface, "type", "veth", "peer", "name", b_interface, "netns", &b.name])?;
    a.ip(&format!("link set {a_interface} up"))?;
    b.ip(&format!("link set {b_interface} up"))
}

fn ip(arguments: &[&str]) -> Result<()> {
    let output = Command::new("ip").args(arguments).output().context("run ip (package iproute2)")?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "ip {}: {}", arguments.join(" "), said.trim());
    Ok(())
}

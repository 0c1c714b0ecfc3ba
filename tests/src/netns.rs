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

    /// Reads a file under `/sys/class/net`, as it is inside.
    ///
    /// # Errors
    /// Where there is none.
    pub fn read_sys(&self, file: &str) -> Result<String> {
        self.in_sys(file, &format!("cat /sys/class/net/{file}"))
    }

    /// Writes such a file.
    ///
    /// # Errors
    /// Where it takes no such value.
    pub fn write_sys(&self, file: &str, value: &str) -> Result<()> {
        self.in_sys(file, &format!("echo {value} >/sys/class/net/{file}")).map(drop)
    }

    /// Sets a file under `/proc/sys/net`, of this namespace.
    ///
    /// # Errors
    /// Where it takes no such value.
    pub fn set_sysctl(&self, name: &str, value: u32) -> Result<()> {
        let path = format!("/proc/sys/net/{name}");
        self.run(move || std::fs::write(&path, value.to_string()).with_context(|| path))?
    }

    /// `ip netns exec` mounts the `/sys` of the namespace.
    fn in_sys(&self, file: &str, shell: &str) -> Result<String> {
        let output = Command::new("ip").args(["netns", "exec", &self.name, "sh", "-c", shell]).output();
        let output = output.context("run ip netns exec")?;
        ensure!(output.status.success(), "{file}: {}", String::from_utf8_lossy(&output.stderr).trim());
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
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

/// Joins two namespaces by a pair of virtual interfaces, both up, with a queue for each CPU: a frame is received on the
/// CPU that sent it, as by a network card with receive-side scaling. On one queue for all, a packet sent on one CPU would
/// take the receiving of a flood there, and the flood would overrun the queue.
///
/// # Errors
/// What `ip` says.
pub fn join(a: &Namespace, a_interface: &str, b: &Namespace, b_interface: &str) -> Result<()> {
    let cpus = std::thread::available_parallelism()?.get();
    let queues = format!("numtxqueues {cpus} numrxqueues {cpus}");
    let (a_name, b_name) = (&a.name, &b.name);
    a.ip(&format!("link add {a_interface} {queues} type veth peer name {b_interface} netns {b_name} {queues}"))
        .with_context(|| format!("join {a_name} and {b_name}"))?;
    for (namespace, interface) in [(a, a_interface), (b, b_interface)] {
        for cpu in 0..cpus {
            namespace.write_sys(&format!("{interface}/queues/tx-{cpu}/xps_cpus"), &format!("{:x}", 1_u64 << cpu))?;
        }
    }
    a.ip(&format!("link set {a_interface} up"))?;
    b.ip(&format!("link set {b_interface} up"))
}

fn ip(arguments: &[&str]) -> Result<()> {
    let output = Command::new("ip").args(arguments).output().context("run ip (package iproute2)")?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "ip {}: {}", arguments.join(" "), said.trim());
    Ok(())
}

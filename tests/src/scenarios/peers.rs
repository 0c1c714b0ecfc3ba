//! Two of what others do, in nftables: a limit for each source, and a threshold with bans. Its hook comes after the one where frames
//! are counted by sender otherwise, so it counts them itself.

use std::collections::HashMap;
use std::net::Ipv4Addr;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};

use crate::netns::Namespace;
use crate::topology::PROTECTED;

/// Packets a second of the protected host, as an average of five seconds, from which on somebody is banned: what FastNetMon comes with.
const THRESHOLD_PPS: f64 = 20_000.0;
const AVERAGE_S: f64 = 5.0;
/// How long, in seconds: the same.
const BANNED_S: u32 = 1_900;
/// Frames that are looked at then, and how many of them a source has to have sent to be banned: one in a hundred.
const LOOKED_AT: usize = 2_000;
const LOUD: usize = 20;

/// A table of nftables before the server, gone with its namespace.
#[derive(Debug)]
pub struct Nft {
    server: String,
    stop: Arc<AtomicBool>,
}

impl Drop for Nft {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

impl Nft {
    /// 100 packets a second for each source.
    ///
    /// # Errors
    /// Where nftables is not installed, or refuses.
    pub fn limit(server: &Namespace) -> Result<Self> {
        let sets = "set v4 { type ipv4_addr; size 1048576; flags dynamic,timeout; timeout 10s; }
                    set v6 { type ipv6_addr; size 1048576; flags dynamic,timeout; timeout 10s; }";
        let rules = "update @v4 { ip saddr limit rate over 100/second burst 100 packets } drop
                     update @v6 { ip6 saddr limit rate over 100/second burst 100 packets } drop";
        Self::new(server, sets, rules)
    }

    /// Above the threshold the loudest sources are banned.
    ///
    /// # Errors
    /// As [`Self::limit`].
    pub fn threshold(server: &Namespace) -> Result<Self> {
        let nft = Self::new(server, "set banned { type ipv4_addr; flags timeout; }", "ip saddr @banned drop")?;
        let (name, stop) = (nft.server.clone(), Arc::clone(&nft.stop));
        // A thread of its own: it is in the namespace for good.
        server.spawn(move || watch(&name, &stop))?;
        Ok(nft)
    }

    fn new(server: &Namespace, sets: &str, rules: &str) -> Result<Self> {
        let table = format!(
            "table netdev peer {{
                counter of_01 {{ }}
                counter of_aa {{ }}
                {sets}
                chain ingress {{
                    type filter hook ingress device {PROTECTED} priority 0; policy accept;
                    {rules}
                    ether saddr 02:00:00:00:00:01 counter name of_01
                    ether saddr 02:00:00:00:00:aa counter name of_aa
                }}
            }}"
        );
        run(server, &table)?;
        Ok(Self { server: server.name().to_owned(), stop: Arc::default() })
    }

    /// Frames that have come through of a sender.
    ///
    /// # Errors
    /// Where nftables does not say.
    pub fn arrived(&self, server: &Namespace, sender: u8) -> Result<u64> {
        let text = run(server, &format!("list counter netdev peer of_{sender:02x}"))?;
        let count = text.split("packets ").nth(1).and_then(|rest| rest.split_whitespace().next());
        Ok(count.context("a counter without packets")?.parse()?)
    }
}

fn run(server: &Namespace, words: &str) -> Result<String> {
    let output = server.command("nft")?.arg(words).stdin(Stdio::null()).output();
    let output = output.context("run nft (package nftables)")?;
    ensure!(output.status.success(), "nft: {}", String::from_utf8_lossy(&output.stderr).trim());
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Looks once a second; in the namespace.
fn watch(name: &str, stop: &AtomicBool) -> Result<()> {
    let socket = open_tap()?;
    let mut average = 0.0;
    let mut then = received()?;
    while !stop.load(Ordering::Relaxed) {
        // condition: the next second.
        std::thread::sleep(Duration::from_secs(1));
        let now = received()?;
        average += ((now - then) as f64 - average) / AVERAGE_S;
        then = now;
        if average > THRESHOLD_PPS {
            let loud: Vec<_> = loud(&socket).iter().map(|source| format!("{source} timeout {BANNED_S}s")).collect();
            if !loud.is_empty() {
                let words = format!("add element netdev peer banned {{ {} }}", loud.join(", "));
                let _ = std::process::Command::new("ip").args(["netns", "exec", name, "nft", &words]).output();
            }
        }
    }
    Ok(())
}

/// Frames that the device has received, in the namespace of this thread.
fn received() -> Result<u64> {
    let text = std::fs::read_to_string("/proc/thread-self/net/dev")?;
    let line = text.lines().find_map(|line| line.trim().strip_prefix(PROTECTED)?.strip_prefix(':'));
    let count = line.context("the device is gone")?.split_whitespace().nth(1);
    Ok(count.context("a device without counters")?.parse()?)
}

/// Sees what comes in before it is filtered.
fn open_tap() -> Result<OwnedFd> {
    let all = i32::from((libc::ETH_P_ALL as u16).to_be());
    // SAFETY: numbers only.
    let tap = unsafe { libc::socket(libc::AF_PACKET, libc::SOCK_RAW | libc::SOCK_NONBLOCK | libc::SOCK_CLOEXEC, all) };
    ensure!(tap >= 0, "a packet socket: {}", std::io::Error::last_os_error());
    // SAFETY: a new descriptor that nobody else has.
    Ok(unsafe { OwnedFd::from_raw_fd(tap) })
}

/// Sources that have sent more than one in a hundred of what was looked at.
fn loud(tap: &OwnedFd) -> Vec<Ipv4Addr> {
    let mut counts: HashMap<[u8; 4], usize> = HashMap::new();
    let mut frame = [0_u8; 64];
    for _ in 0..LOOKED_AT {
        // SAFETY: a live buffer of its own length.
        let length = unsafe { libc::recv(tap.as_raw_fd(), frame.as_mut_ptr().cast(), frame.len(), 0) };
        // What this host sends is seen, too: it begins with its own address elsewhere.
        if length >= 34 && frame[12..14] == [0x08, 0x00] && frame[6..11] == [2, 0, 0, 0, 0] {
            *counts.entry([frame[26], frame[27], frame[28], frame[29]]).or_default() += 1;
        }
    }
    counts.into_iter().filter(|(_, count)| *count > LOUD).map(|(source, _)| source.into()).collect()
}

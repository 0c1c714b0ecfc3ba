//! Other people's filters, as they are set up to stop the same flood: from one source, from many, from random ones, all to a
//! UDP port that nobody serves. Those that can limit by source do; what is left is dropped for its port.

use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, ensure};
use aya::programs::loaded_programs;

use crate::netns::{Namespace, join};
use crate::topology::{PROTECTED, WORLD};

/// In a mount namespace of its own, as it wants a BPF file system at its usual place; the program stays on the device.
const XDP_FILTER: &str = "mount -t bpf bpf /sys/fs/bpf && xdp-filter load -p allow -f ipv4,udp eth0 && \
                          xdp-filter ip 11.0.0.0 -m src && xdp-filter port 9 -m dst -p udp";

/// By source in the earliest hook that nftables has.
const NFTABLES: &str = "table netdev peer {
    set sources { type ipv4_addr; size 1048576; flags dynamic,timeout; timeout 10s; }
    chain ingress {
        type filter hook ingress device eth0 priority 0; policy accept;
        udp dport 9 update @sources { ip saddr limit rate over 1000/second burst 1000 packets } drop
        udp dport 9 drop
    }
}";

/// By source in the earliest table that iptables has.
const IPTABLES: &str = "iptables -t raw -A PREROUTING -p udp --dport 9 -m hashlimit --hashlimit-above 1000/sec \
                        --hashlimit-burst 1000 --hashlimit-mode srcip --hashlimit-name peer \
                        --hashlimit-htable-size 262144 --hashlimit-htable-max 1048576 -j DROP && \
                        iptables -t raw -A PREROUTING -p udp --dport 9 -j DROP";

/// Runs what sets a peer up; `false` where that is not installed.
fn set_up(server: &Namespace, peer: &str, command: &[&str]) -> Result<bool> {
    let mut asked = Command::new(peer);
    asked.arg("--version").stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    if asked.status().is_err() {
        return Ok(false);
    }
    let (program, arguments) = command.split_first().context("a command")?;
    let output = server.command(program)?.args(arguments).output().with_context(|| format!("run {program}"))?;
    let said = [output.stdout, output.stderr].concat();
    ensure!(output.status.success(), "{peer}: {}", String::from_utf8_lossy(&said).trim());
    Ok(true)
}

/// Puts xdp-filter on the protected interface.
pub(super) fn attach_xdp_filter(server: &Namespace) -> Result<bool> {
    set_up(server, "xdp-filter", &["unshare", "-m", "sh", "-c", XDP_FILTER])
}

/// Sets up nftables there.
pub(super) fn set_nftables(server: &Namespace) -> Result<bool> {
    set_up(server, "nft", &["nft", NFTABLES])
}

/// Sets up iptables there.
pub(super) fn set_iptables(server: &Namespace) -> Result<bool> {
    set_up(server, "iptables", &["sh", "-c", IPTABLES])
}

/// xdp-filter on an interface that no packet comes to, for test runs of its program.
pub(super) struct XdpFilter {
    /// Its number in the kernel.
    pub(super) program: u64,
    _namespaces: [Namespace; 2],
}

impl XdpFilter {
    /// Attaches it; nothing where it is not installed.
    pub(super) fn install() -> Result<Option<Self>> {
        let namespaces = [Namespace::new("far")?, Namespace::new("peer")?];
        join(&namespaces[0], WORLD, &namespaces[1], PROTECTED)?;
        if !attach_xdp_filter(&namespaces[1])? {
            return Ok(None);
        }
        let is_it = |name: Option<&str>| name.is_some_and(|name| name.starts_with("xdpfilt"));
        let programs = loaded_programs().filter_map(std::result::Result::ok);
        let newest = programs.filter(|info| is_it(info.name_as_str())).map(|info| info.id()).max();
        let program = u64::from(newest.context("xdp-filter has attached, and is not there")?);
        Ok(Some(Self { program, _namespaces: namespaces }))
    }
}

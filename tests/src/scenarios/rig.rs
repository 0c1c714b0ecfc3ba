//! The rig: the world, the attacker and the protected server in namespaces of their own. One link carries what is good and what is
//! not, each from a hardware address of its own.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::OwnedFd;
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result};

use super::Server;
use super::peers::Nft;
use crate::link::{Senders, packet_socket};
use crate::netns::Namespace;
use crate::pins::{Foreign, attach_world_end};
use crate::topology::{PROTECTED, Topology, WORLD};

/// The protected host.
pub const SERVER_V4: Ipv4Addr = Ipv4Addr::new(10, 66, 0, 1);
/// The same.
pub const SERVER_V6: Ipv6Addr = Ipv6Addr::new(0xfd66, 0, 0, 0, 0, 0, 0, 1);
/// The first of 64 addresses more that are its own.
pub const CARPET: Ipv4Addr = Ipv4Addr::new(10, 66, 7, 64);
/// Its web server.
pub const WEB: u16 = 443;
const SINK: u16 = 8_443;
const FILES: u16 = 2_049;
/// Servers in the world.
const RESOLVER: Ipv4Addr = Ipv4Addr::new(20, 255, 0, 53);
const FAR: Ipv4Addr = Ipv4Addr::new(20, 255, 0, 80);
/// Ends of hardware addresses.
const LEGITIMATE: u8 = 0x01;
const ATTACK: u8 = 0xaa;
/// The attacker's interface, on the world's.
const ATTACKER: &str = "atk0";

/// The rig. Fields are dropped in this order.
pub struct Rig {
    leaving: Senders,
    arriving: Senders,
    _world_end: Foreign,
    /// The machines of the attacker that have stacks.
    pub attacker: Namespace,
    /// Both ends of the link.
    pub link: Topology,
    legitimate: u8,
    attack: u8,
}

/// Frames so far.
#[derive(Clone, Copy, Debug, Default)]
pub struct Counted {
    /// Legitimate, sent.
    pub legit_sent: u64,
    /// And come through.
    pub legit_arrived: u64,
    /// Of the attack, sent.
    pub attack_sent: u64,
    /// And come through.
    pub attack_arrived: u64,
}

impl Rig {
    /// Makes it. `swapped`: what is good has the hardware address of the attack, and the other way round.
    ///
    /// # Errors
    /// What `ip` says.
    pub fn new(swapped: bool) -> Result<Self> {
        let (legitimate, attack) = if swapped { (ATTACK, LEGITIMATE) } else { (LEGITIMATE, ATTACK) };
        let link = Topology::new(0)?;
        let attacker = Namespace::new("attacker")?;
        let (world, server) = (&link.world, &link.server);
        world.ip(&format!("link set {WORLD} address {}", mac(legitimate)))?;
        world.ip(&format!(
            "link add link {WORLD} name {ATTACKER} netns {} type macvlan mode private",
            attacker.name()
        ))?;
        attacker.ip(&format!("link set {ATTACKER} address {}", mac(attack)))?;
        attacker.ip(&format!("link set {ATTACKER} up"))?;
        let servers_mac = link.read_sys("address")?;
        let servers_mac = servers_mac.trim();
        for (namespace, interface, own) in [(world, WORLD, 2), (&attacker, ATTACKER, 3)] {
            namespace.ip(&format!("addr add 10.66.0.{own}/16 dev {interface}"))?;
            namespace.ip(&format!("addr add fd66::{own}/16 dev {interface} nodad"))?;
            for gateway in ["10.66.0.1", "fd66::1"] {
                namespace.ip(&format!("neigh replace {gateway} lladdr {servers_mac} dev {interface} nud permanent"))?;
            }
            namespace.ip("route add default via 10.66.0.1")?;
            namespace.ip("-6 route add default via fd66::1")?;
            namespace.set_sysctl("ipv4/ip_nonlocal_bind", 1)?;
            namespace.set_sysctl("ipv6/ip_nonlocal_bind", 1)?;
            for (name, value) in [("ipv4/ip_local_port_range", "1024 65000"), ("ipv4/tcp_max_tw_buckets", "200000")] {
                let path = format!("/proc/sys/net/{name}");
                namespace.run(move || std::fs::write(&path, value).with_context(|| path))??;
            }
        }
        // Thousands of addresses without giving any to an interface: whatever begins so is ours.
        world.ip("route add local 20.0.0.0/8 dev lo")?;
        world.ip("-6 route add local 2a10:100::/41 dev lo")?;
        attacker.ip("route add local 30.0.0.0/8 dev lo")?;
        for (gateway, of) in [("10.66.0.2", legitimate), ("fd66::2", legitimate), ("10.66.0.3", attack)] {
            server.ip(&format!("neigh replace {gateway} lladdr {} dev {PROTECTED} nud permanent", mac(of)))?;
        }
        server.ip("route add default via 10.66.0.2")?;
        server.ip("-6 route add default via fd66::2")?;
        server.ip("route add 30.0.0.0/8 via 10.66.0.3")?;
        server.ip(&format!("route add local {CARPET}/26 dev lo"))?;
        for (namespace, interface) in [(world, WORLD), (&attacker, ATTACKER), (server, PROTECTED)] {
            // Each frame is counted as it is on the wire, not as the stacks have joined them.
            namespace.ip(&format!("link set {interface} gso_max_segs 1"))?;
        }
        // It also takes what a filter answers by itself.
        let world_end = attach_world_end(world, WORLD)?;
        let (leaving, arriving) = (Senders::leaving(world, WORLD)?, Senders::arriving(server, PROTECTED)?);
        Ok(Self { leaving, arriving, _world_end: world_end, attacker, link, legitimate, attack })
    }

    /// Keeps frames from being joined where they are received: to be told once a filter is attached, which turns it on.
    ///
    /// # Errors
    /// Where the namespace is gone. Where `ethtool` is not installed, frames of one connection may be counted as one.
    pub fn receive_apart(&self) -> Result<()> {
        let mut command = self.link.server.command("ethtool")?;
        let _ = command.args(["-K", PROTECTED, "gro", "off"]).stdout(Stdio::null()).stderr(Stdio::null()).status();
        Ok(())
    }

    /// Whether frames that were joined are told apart.
    pub fn can_receive_apart() -> bool {
        Command::new("ethtool").arg("--version").stdout(Stdio::null()).status().is_ok()
    }

    /// Frames so far; those that have come through as the filter counts them, where that is behind the hook used here.
    ///
    /// # Errors
    /// Where the counters are gone.
    pub fn counted(&self, nft: Option<&Nft>) -> Result<Counted> {
        let arrived = |sender| match nft {
            Some(nft) => nft.arrived(&self.link.server, sender),
            None => self.arriving.of(sender),
        };
        // Those that have arrived first: a frame is never seen to arrive before it is sent.
        let (legit_arrived, attack_arrived) = (arrived(self.legitimate)?, arrived(self.attack)?);
        let (legit_sent, attack_sent) = (self.leaving.of(self.legitimate)?, self.leaving.of(self.attack)?);
        Ok(Counted { legit_sent, legit_arrived, attack_sent, attack_arrived })
    }

    /// A socket for forged frames, and the addresses of Ethernet that they begin with.
    ///
    /// # Errors
    /// Where it cannot be opened.
    pub fn forge(&self) -> Result<(OwnedFd, [u8; 12])> {
        let mut addresses = [2, 0, 0, 0, 0, 0, 2, 0, 0, 0, 0, self.attack];
        addresses[..6].copy_from_slice(&self.link.target()?.mac);
        Ok((packet_socket(&self.link.world, WORLD)?, addresses))
    }
}

fn mac(last: u8) -> String {
    format!("02:00:00:00:00:{last:02x}")
}

/// Where a server is, for a client of this family.
pub fn at(server: Server, is_v4: bool) -> SocketAddr {
    let here: IpAddr = if is_v4 { SERVER_V4.into() } else { SERVER_V6.into() };
    match server {
        Server::Web | Server::Quic => (here, WEB).into(),
        Server::Sink => (here, SINK).into(),
        Server::Files => (here, FILES).into(),
        Server::Resolver => (IpAddr::V4(RESOLVER), 53).into(),
        Server::Far => (IpAddr::V4(FAR), 443).into(),
    }
}

//! The lab: the world and a server, joined by one link that legitimate traffic and floods share.
//!
//! One link is essential: what a filter is for is that the two come in together.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use anyhow::Result;
use serde_json::Value;

use crate::daemon::{Place, all_packets, status, wait_for};
use crate::flood::Target;
use crate::netns::{Namespace, join};

/// The server's interface, which the filter protects.
pub const PROTECTED: &str = "eth0";
/// The other end of the link, in the world.
pub const WORLD: &str = "wan0";
const PORT: u16 = 8_080;
const SERVER_V4: Ipv4Addr = Ipv4Addr::new(10, 66, 0, 1);
const SERVER_V6: Ipv6Addr = Ipv6Addr::new(0xfd66, 0, 0, 0, 0, 0, 0, 1);

/// The world and the server.
#[derive(Debug)]
pub struct Topology {
    /// Where clients and floods are.
    pub world: Namespace,
    /// Where the filter and the servers are.
    pub server: Namespace,
    /// Addresses of clients: half IPv4, half IPv6, each in a /64 of its own.
    pub clients: Vec<IpAddr>,
}

impl Topology {
    /// Makes both, with so many clients.
    ///
    /// # Errors
    /// What `ip` says.
    pub fn new(clients: u8) -> Result<Self> {
        Self::of(Namespace::new("world")?, Namespace::new("server")?, clients)
    }

    /// Makes it of namespaces that are there.
    ///
    /// # Errors
    /// What `ip` says.
    pub fn of(world: Namespace, server: Namespace, clients: u8) -> Result<Self> {
        join(&world, WORLD, &server, PROTECTED)?;
        server.ip(&format!("addr add {SERVER_V4}/16 dev {PROTECTED}"))?;
        server.ip(&format!("addr add {SERVER_V6}/16 dev {PROTECTED} nodad"))?;
        let mut addresses = Vec::new();
        for number in 1..=clients {
            let v4 = Ipv4Addr::new(10, 66, 1, number);
            let v6 = Ipv6Addr::new(0xfd66, 1, u16::from(number), 0, 0, 0, 0, 1);
            world.ip(&format!("addr add {v4}/16 dev {WORLD}"))?;
            world.ip(&format!("addr add {v6}/16 dev {WORLD} nodad"))?;
            addresses.extend([IpAddr::from(v4), IpAddr::from(v6)]);
        }
        Ok(Self { world, server, clients: addresses })
    }

    /// Where the servers listen.
    pub fn servers(&self) -> Vec<SocketAddr> {
        vec![SocketAddr::from((SERVER_V4, PORT)), SocketAddr::from((SERVER_V6, PORT))]
    }

    /// Where a flood goes.
    ///
    /// # Errors
    /// Where the link is gone.
    pub fn target(&self) -> Result<Target> {
        let mac = self.read_sys("address")?;
        let mut bytes = [0; 6];
        for (byte, digits) in bytes.iter_mut().zip(mac.trim().split(':')) {
            *byte = u8::from_str_radix(digits, 16)?;
        }
        let ifindex = self.world.ifindex(WORLD)?;
        Ok(Target { mac: bytes, v4: SERVER_V4.octets(), v6: SERVER_V6.octets(), ifindex })
    }

    /// A file under `/sys/class/net/eth0` of the server: what the device itself has counted.
    ///
    /// # Errors
    /// Where there is none.
    pub fn read_sys(&self, file: &str) -> Result<String> {
        self.server.read_sys(&format!("{PROTECTED}/{file}"))
    }

    /// Frames that the server's device has received, by its own count.
    ///
    /// # Errors
    /// Where the device is gone.
    pub fn received(&self) -> Result<u64> {
        Ok(self.read_sys("statistics/rx_packets")?.trim().parse()?)
    }

    /// The status once the device and the filter count nothing more, and what the device has received by then. A
    /// daemon's view is a quarter of a second old at most.
    ///
    /// # Errors
    /// Where they do not stand still.
    pub fn settled(&self, place: &Place) -> Result<(Value, u64)> {
        let mut last = None;
        wait_for("the counters to stand still", || {
            // condition: a new view of the daemon.
            std::thread::sleep(Duration::from_millis(300));
            let received = self.received().ok()?;
            let now = status(&self.server, place).ok()?;
            let counts = (received, all_packets(&now));
            (last.replace(counts) == Some(counts)).then_some((now, received))
        })
    }
}

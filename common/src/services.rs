//! What this host serves: ports with a name, and perhaps a cap; and what it expects while it is locked down.
//!
//! A cap is the last resort: packets a second to a service from all sources together, or connections that are begun with it
//! in a second. It is one meter with two tolerances. Sources that are not verified are refused at half of it, verified ones at all of it: so verified sources
//! take what they need of the cap, the others share the rest, and of a cap nothing is left unused.
//!
//! A cap of connections may have three ([`Order::KnownFirst`]): whoever has been served since it is needed is refused at a quarter.

use core::net::Ipv6Addr;

use crate::closer::Memory;
use crate::frame::be;
use crate::limits::{Rate, RateError, RateSpec, Unit};
use crate::meter::{Machine, Meter};
use crate::packet::ends::Ends;
use crate::packet::protocol;
use crate::replies::Conversation;
use crate::verifier::index;

/// Room for services; a power of two. The first place is that of no service.
pub const SERVICE_SLOTS: usize = 32;
/// Bytes of a service's name.
pub const NAME_BYTES: usize = 16;

const PORTS: usize = 1 << 16;
const DHCP: [(u16, u16); 4] = [(67, 68), (68, 67), (547, 546), (546, 547)];

/// The service behind each TCP and UDP port: its number, or zero.
#[derive(Clone, Copy)]
#[repr(C)]
pub struct PortTable {
    tcp: [u8; PORTS],
    udp: [u8; PORTS],
}

impl PortTable {
    /// No service.
    pub const fn empty() -> Self {
        Self { tcp: [0; PORTS], udp: [0; PORTS] }
    }

    /// The service behind a port, or zero.
    #[inline(always)]
    pub fn service(&self, transport: Transport, port: u16) -> u8 {
        match transport {
            Transport::Tcp => self.tcp[index(port)],
            Transport::Udp => self.udp[index(port)],
        }
    }

    /// Puts a service behind a port; zero for none.
    pub const fn set(&mut self, transport: Transport, port: u16, service: u8) {
        match transport {
            Transport::Tcp => self.tcp[port as usize] = service,
            Transport::Udp => self.udp[port as usize] = service,
        }
    }
}

crate::labelled_enum! {
    /// A protocol with ports.
    pub enum Transport {
        /// TCP.
        Tcp = 0 => "tcp",
        /// UDP.
        Udp = 1 => "udp",
    }
}

impl Transport {
    /// That of a packet that is known to have one of these.
    #[inline(always)]
    pub(crate) const fn either(protocol: u8) -> Self {
        if protocol == protocol::UDP { Self::Udp } else { Self::Tcp }
    }

    #[inline(always)]
    const fn of(protocol: u8) -> Option<Self> {
        match protocol {
            protocol::TCP => Some(Self::Tcp),
            protocol::UDP => Some(Self::Udp),
            _ => None,
        }
    }
}

/// A service as it was added, for people to read back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct ServiceRecord {
    /// Its name, padded with zeros; all zero where there is none.
    pub name: [u8; NAME_BYTES],
    /// Its cap.
    pub cap: RateSpec,
    /// The cap of its new connections.
    pub connections: RateSpec,
    /// The same for a while, set by who sheds an overload. Where there is the other, that counts.
    pub shed: RateSpec,
    /// [`Order`] of that, as its number.
    pub shed_order: u64,
}

impl ServiceRecord {
    /// No service.
    pub const NOBODY: Self = Self::new([0; NAME_BYTES], RateSpec::OFF, RateSpec::OFF);

    /// One that nothing is shed of.
    pub const fn new(name: [u8; NAME_BYTES], cap: RateSpec, connections: RateSpec) -> Self {
        Self { name, cap, connections, shed: RateSpec::OFF, shed_order: Order::VerifiedFirst as u64 }
    }

    /// Who comes first of what is shed.
    pub const fn shed_order(&self) -> Order {
        if self.shed_order == Order::KnownFirst as u64 { Order::KnownFirst } else { Order::VerifiedFirst }
    }

    /// The cap of new connections that counts, and who comes first.
    pub fn connections_in_force(&self) -> (RateSpec, Order) {
        match self.connections {
            RateSpec::OFF => (self.shed, self.shed_order()),
            connections => (connections, Order::VerifiedFirst),
        }
    }
}

crate::labelled_enum! {
    /// Who comes first where a service takes no more connections.
    pub enum Order {
        /// Who has completed a handshake, whenever that was.
        VerifiedFirst = 0 => "verified-first",
        /// Who is known: was verified before what goes on now began. Then who is not verified; last, who has been served since.
        KnownFirst = 1 => "known-first",
    }
}

/// A cap as the packet path reads it. All zero: no cap.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Cap {
    /// For sources that are not verified.
    open: Meter,
    /// For those that are.
    verified: Meter,
}

impl Cap {
    /// Compiles a cap for a machine. `secret` stays that of the cap that this one replaces.
    ///
    /// # Errors
    /// Where the rate or its burst cannot be kept within 2 %.
    pub fn new(rate: Rate, machine: Machine, secret: u64) -> Result<Self, RateError> {
        let verified = Meter::new(rate, Unit::Packets, machine, secret)?;
        Ok(Self { open: verified.with_half_the_tolerance(), verified })
    }

    /// What keeps it apart from other meters.
    pub const fn secret(&self) -> u64 {
        self.verified.secret()
    }

    /// Whether there is one.
    #[inline(always)]
    pub const fn is_armed(&self) -> bool {
        self.verified.is_armed()
    }

    /// The meter of a source that is not verified.
    #[inline(always)]
    pub(crate) const fn open(&self) -> &Meter {
        &self.open
    }

    /// The same meter for a source that is: it refuses nobody whom the other one passes.
    #[inline(always)]
    pub(crate) const fn verified(&self) -> &Meter {
        &self.verified
    }
}

/// A cap of new connections as the packet path reads it. All zero: no cap.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct ConnectionCap {
    cap: Cap,
    /// For those who have been served since it began; not armed where they come first.
    served: Meter,
}

impl ConnectionCap {
    /// Compiles a cap for a machine. `secret` stays that of the cap that this one replaces.
    ///
    /// # Errors
    /// Where the rate or its burst cannot be kept within 2 %.
    pub fn new(rate: Rate, order: Order, machine: Machine, secret: u64) -> Result<Self, RateError> {
        let cap = Cap::new(rate, machine, secret)?;
        let served = match order {
            Order::VerifiedFirst => Meter::default(),
            Order::KnownFirst => cap.open.with_half_the_tolerance(),
        };
        Ok(Self { cap, served })
    }

    /// What keeps it apart from other meters.
    pub const fn secret(&self) -> u64 {
        self.cap.secret()
    }

    /// Whether there is one.
    #[inline(always)]
    pub const fn is_armed(&self) -> bool {
        self.cap.is_armed()
    }

    /// The cap of who is not verified, and of who comes first.
    #[inline(always)]
    pub(crate) const fn cap(&self) -> &Cap {
        &self.cap
    }

    /// The same meter for who comes last, where verified sources do not come first.
    #[inline(always)]
    pub(crate) const fn served(&self) -> Option<&Meter> {
        if self.served.is_armed() { Some(&self.served) } else { None }
    }
}

/// The service that a packet is for, or zero: TCP and UDP to one of its ports, in one piece or the first of several.
#[inline(always)]
pub(crate) fn service_of(ends: &Ends<'_>, memory: &impl Memory) -> u8 {
    let Some(transport) = Transport::of(ends.protocol) else { return 0 };
    ends.transport.peek::<4>().map_or(0, |header| memory.service(transport, be!(u16, header, 2)))
}

/// Whether somebody here expects a packet that is for no service: a conversation that this host has begun, or the link that it
/// hangs on.
///
/// What has no transport header in it (a later fragment) is never asked: its first piece is, and it has a limit of its own.
#[inline(always)]
pub(crate) fn is_expected(ends: &Ends<'_>, memory: &impl Memory) -> bool {
    if let Some(transport) = Transport::of(ends.protocol) {
        let Some(header) = ends.transport.peek::<4>() else { return true };
        let (from, to) = (be!(u16, header, 0), be!(u16, header, 2));
        if matches!(transport, Transport::Udp) && DHCP.contains(&(from, to)) {
            return true;
        }
    }
    is_of_link(ends) || Conversation::of_answer(ends).is_some_and(|answered| memory.has_sent(answered))
}

/// To all on the link, or from an address that no router forwards: routing protocols, redundancy, multicast membership.
#[inline(always)]
const fn is_of_link(ends: &Ends<'_>) -> bool {
    const MULTICAST_V4: u64 = 224 << 24;
    if ends.is_v6 {
        ends.destination.0 >> 56 == 0xff || ends.source.0 >> 54 == LINK_LOCAL >> 54
    } else {
        ends.destination.0 >= MULTICAST_V4
    }
}

const LINK_LOCAL: u64 = (Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 0).to_bits() >> 64) as u64;

#[cfg(test)]
mod tests {
    use super::*;

    const MACHINE: Machine = Machine { cpus: 2, tick_ns: 4_000_000 };

    #[test]
    fn a_port_leads_to_its_service_by_protocol() {
        let mut table = Box::new(PortTable::empty());
        table.set(Transport::Tcp, 443, 3);
        assert_eq!((table.service(Transport::Tcp, 443), table.service(Transport::Udp, 443)), (3, 0));
        table.set(Transport::Tcp, 443, 0);
        assert_eq!(table.service(Transport::Tcp, 443), 0);
    }

    #[test]
    fn no_cap_is_not_armed() {
        assert!(!Cap::new(Rate::Off, MACHINE, 7).unwrap().is_armed());
        assert_eq!(Cap::new(Rate::Off, MACHINE, 7).unwrap().secret(), 7);
        assert!(Cap::new(Rate::Limit { per_second: 1_000, burst: 1_000 }, MACHINE, 7).unwrap().is_armed());
    }
}

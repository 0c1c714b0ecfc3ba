//! The headers that nearly all packets have: untagged Ethernet, IPv4 without options and not in fragments or IPv6
//! without extension headers, UDP or TCP, and nothing wrong with them.
//!
//! The complete parser stays the one definition of what a frame is. Here is only what follows from it for these frames;
//! of any other frame, and of one that looks strange, this says nothing and the complete parser is asked. A property
//! test holds the two together.

use core::hint::cold_path;

use super::ends::{Address, Ends};
use super::{
    Packet, Parsed, Source, ether_type, is_martian_v4, may_be_martian_v6, protocol, tcp_class, tcp_finding, udp_finding,
};
use crate::class::{Class, Family, Kind};
use crate::frame::{Cursor, Frame, be, field, raw};
use crate::reason::Reason;
use crate::verifier::again;

/// EtherType, version, and of IPv4 the header length: four bytes, compared at once.
const fn first_word(ether_type: u16, version: u8) -> u32 {
    let [high, low] = ether_type.to_ne_bytes();
    u32::from_ne_bytes([high, low, version, 0])
}

const IPV4: u32 = first_word(ether_type::IPV4, 0x45);
const IPV4_MASK: u32 = first_word(0xffff, 0xff);
const IPV6: u32 = first_word(ether_type::IPV6, 0x60);
const IPV6_MASK: u32 = first_word(0xffff, 0xf0);

/// "More fragments" and the offset, and the protocol; the reserved and "don't fragment" bits and the hop count may be any.
const FRAGMENT_AND_PROTOCOL: u32 = u32::from_ne_bytes([0x3f, 0xff, 0, 0xff]);
const WHOLE_UDP: u32 = u32::from_ne_bytes([0, 0, 0, protocol::UDP]);
const WHOLE_TCP: u32 = u32::from_ne_bytes([0, 0, 0, protocol::TCP]);

/// What [`super::parse`] says, or nothing.
#[inline(always)]
pub fn parse(frame: Frame<'_>) -> Option<Parsed> {
    read(frame, Collect { bytes: frame.bytes() })
}

/// The headers of a frame that [`parse`] knows.
#[inline(always)]
pub fn rest(frame: Frame<'_>) -> Option<Rest<'_>> {
    struct Keep;
    impl Next for Keep {
        type Answer = Kind;

        fn usual(self, packet: Usual) -> Option<Kind> {
            Some(packet.kind)
        }
    }
    Rest::read(frame, read(frame, Keep)?)
}

struct Collect {
    bytes: u32,
}

impl Next for Collect {
    type Answer = Parsed;

    #[inline(always)]
    fn usual(self, packet: Usual) -> Option<Parsed> {
        let (source, kind) = (packet.source(), packet.kind);
        Some(Parsed::Packet(Packet { source, kind, finding: Reason::Passed, bytes: self.bytes }))
    }
}

/// A packet with nothing wrong: its finding is `Passed`.
#[derive(Clone, Copy)]
pub(crate) struct Usual {
    pub(crate) kind: Kind,
    /// [`Source::key`]: the upper half of an IPv6 address, or an IPv4 address.
    pub(crate) key: u64,
    /// The lower half of an IPv6 address.
    lower: u64,
}

impl Usual {
    #[inline(always)]
    pub(crate) const fn source(&self) -> Source {
        Source::new(self.kind, self.key, self.lower)
    }
}

/// The headers of a packet with nothing wrong, in one piece, in an untagged frame. What few ask for is read where it is asked:
/// the path has no registers to keep it in.
pub struct Rest<'a> {
    pub(crate) kind: Kind,
    /// The address that it comes from: of IPv4 the lower half is zero.
    pub(crate) from: Address,
    /// The ports that it comes from and goes to.
    pub(crate) ports: (u16, u16),
    pub(crate) protocol: u8,
    ip: Cursor<'a>,
    /// What follows the IP header.
    pub(crate) transport: Cursor<'a>,
}

impl<'a> Rest<'a> {
    /// Reads them again, of a packet that [`read`] knows as one of this kind. Nothing is kept of what it has read: the common
    /// path would have to carry that in registers that it has not.
    #[inline(always)]
    pub(crate) fn read(frame: Frame<'a>, kind: Kind) -> Option<Self> {
        let ip = frame.cursor().behind(14);
        // One check for both headers: the shortest of what follows has eight bytes.
        Some(if kind.is_v6() {
            let header = ip.peek::<48>()?;
            let from = (be!(u64, header, 8), be!(u64, header, 16));
            let ports = (be!(u16, header, 40), be!(u16, header, 42));
            Self { kind, from, ports, protocol: header[6], ip, transport: ip.behind(40) }
        } else {
            let header = ip.peek::<28>()?;
            let ports = (be!(u16, header, 20), be!(u16, header, 22));
            let from = (u64::from(be!(u32, header, 12)), 0);
            Self { kind, from, ports, protocol: header[9], ip, transport: ip.behind(20) }
        })
    }

    #[inline(always)]
    pub(crate) const fn source(&self) -> Source {
        Source::new(self.kind, self.from.0, self.from.1)
    }

    /// Time to live or hop limit, and the length of the IP packet with its headers.
    #[inline(always)]
    pub(crate) fn hops_and_length(&self) -> Option<(u8, u32)> {
        let header = self.ip.peek::<8>()?;
        if self.kind.is_v6() {
            Some((header[7], u32::from(be!(u16, header, 4)) + 40))
        } else {
            Some((self.ip.peek::<9>()?[8], u32::from(be!(u16, header, 2))))
        }
    }

    /// Both of its ends.
    #[inline(always)]
    pub(crate) fn ends(&self) -> Option<Ends<'a>> {
        let is_v6 = self.kind.is_v6();
        let destination = if is_v6 {
            let header = self.ip.peek::<40>()?;
            (be!(u64, header, 24), be!(u64, header, 32))
        } else {
            (u64::from(be!(u32, self.ip.peek::<20>()?, 16)), 0)
        };
        // Said in two constants, so that nothing of other protocols is asked behind it.
        let protocol = if self.protocol == protocol::UDP { protocol::UDP } else { protocol::TCP };
        Some(Ends { source: self.from, destination, protocol, is_v6, transport: self.transport })
    }
}

/// What is done with a usual packet. It is inlined once for each kind, so that what depends on that is a constant there.
pub(crate) trait Next {
    type Answer;
    fn usual(self, packet: Usual) -> Option<Self::Answer>;
}

/// Reads the headers of a frame, and goes on with `next` if they are as usual.
#[inline(always)]
pub(crate) fn read<N: Next>(frame: Frame<'_>, next: N) -> Option<N::Answer> {
    // The shortest of them all: IPv4 and UDP.
    let head = frame.cursor().peek::<42>()?;
    let first = raw!(u32, head, 12);
    if first & IPV4_MASK == IPV4 {
        read_ipv4(frame, field::<20, 14, _>(head), next)
    } else if first & IPV6_MASK == IPV6 {
        read_ipv6(frame, next)
    } else {
        cold_path();
        None
    }
}

#[inline(always)]
fn read_ipv4<N: Next>(frame: Frame<'_>, header: &[u8; 20], next: N) -> Option<N::Answer> {
    // A total length below that of the header is then a very long packet.
    let length = u32::from(be!(u16, header, 2)).wrapping_sub(20);
    if length > frame.bytes().wrapping_sub(34) {
        return None;
    }
    let (source, destination) = (raw!(u32, header, 12), raw!(u32, header, 16));
    if source == destination || is_martian_v4(again(&header[12])) {
        return None;
    }
    let transport = Transport { family: Family::V4, key: u64::from(u32::from_be(source)), lower: 0, length };
    let cursor = frame.cursor().behind(34);
    match raw!(u32, header, 6) & FRAGMENT_AND_PROTOCOL {
        WHOLE_UDP => transport.udp(cursor, next),
        WHOLE_TCP => transport.tcp(cursor, next),
        _ => None,
    }
}

#[inline(always)]
fn read_ipv6<N: Next>(frame: Frame<'_>, next: N) -> Option<N::Answer> {
    let header = field::<40, 14, _>(frame.cursor().peek::<62>()?);
    let length = u32::from(be!(u16, header, 4));
    if length > frame.bytes().wrapping_sub(54) {
        return None;
    }
    let (upper, lower) = (raw!(u64, header, 8), raw!(u64, header, 16));
    let is_land = upper == raw!(u64, header, 24) && lower == raw!(u64, header, 32);
    if is_land || may_be_martian_v6(again(&header[8]), upper) {
        return None;
    }
    let transport = Transport { family: Family::V6, key: u64::from_be(upper), lower: u64::from_be(lower), length };
    let cursor = frame.cursor().behind(54);
    match header[6] {
        protocol::UDP => transport.udp(cursor, next),
        protocol::TCP => transport.tcp(cursor, next),
        _ => None,
    }
}

/// What follows a usual IP header, and from whom.
struct Transport {
    family: Family,
    key: u64,
    lower: u64,
    length: u32,
}

impl Transport {
    #[inline(always)]
    fn udp<N: Next>(&self, cursor: Cursor<'_>, next: N) -> Option<N::Answer> {
        let header = cursor.peek::<8>()?;
        if self.length < 8 || !is_passed(udp_finding(header, self.length)) {
            return None;
        }
        next.usual(self.packet(Class::Udp))
    }

    #[inline(always)]
    fn tcp<N: Next>(&self, cursor: Cursor<'_>, next: N) -> Option<N::Answer> {
        let header = cursor.peek::<20>()?;
        if !is_passed(tcp_finding(header, self.length)) {
            return None;
        }
        match tcp_class(header) {
            Class::TcpSyn => next.usual(self.packet(Class::TcpSyn)),
            _ => next.usual(self.packet(Class::Tcp)),
        }
    }

    #[inline(always)]
    const fn packet(&self, class: Class) -> Usual {
        Usual { kind: Kind::new(self.family, class), key: self.key, lower: self.lower }
    }
}

#[inline(always)]
const fn is_passed(finding: Reason) -> bool {
    finding as u8 == Reason::Passed as u8
}

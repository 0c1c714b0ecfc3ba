//! The headers that nearly all packets have: untagged Ethernet, IPv4 without options and not in fragments or IPv6
//! without extension headers, UDP or TCP, and nothing wrong with them.
//!
//! The complete parser stays the one definition of what a frame is. Here is only what follows from it for these frames;
//! of any other frame, and of one that looks strange, this says nothing and the complete parser is asked. A property
//! test holds the two together.

use core::hint::cold_path;

use super::{
    Packet, Parsed, Source, ether_type, is_martian_v4, is_martian_v6, protocol, tcp_class, tcp_finding, udp_finding,
};
use crate::class::{Class, Family, Kind};
use crate::frame::{Cursor, Frame, be, field, raw};
use crate::reason::Reason;

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
    let usual = read(frame)?;
    let (source, kind) = (usual.source(), usual.kind);
    Some(Parsed::Packet(Packet { source, kind, finding: Reason::Passed, bytes: frame.bytes() }))
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

/// Reads the headers of a frame, if they are as usual.
#[inline(always)]
pub(crate) fn read(frame: Frame<'_>) -> Option<Usual> {
    // The shortest of them all: IPv4 and UDP.
    let head = frame.cursor().peek::<42>()?;
    let first = raw!(u32, head, 12);
    if first & IPV4_MASK == IPV4 {
        read_ipv4(frame, field::<20, 14, _>(head))
    } else if first & IPV6_MASK == IPV6 {
        read_ipv6(frame)
    } else {
        cold_path();
        None
    }
}

#[inline(always)]
fn read_ipv4(frame: Frame<'_>, header: &[u8; 20]) -> Option<Usual> {
    // A total length below that of the header is then a very long packet.
    let length = u32::from(be!(u16, header, 2)).wrapping_sub(20);
    if length > frame.bytes().wrapping_sub(34) {
        return None;
    }
    let cursor = frame.cursor().behind(34);
    let kind = match raw!(u32, header, 6) & FRAGMENT_AND_PROTOCOL {
        WHOLE_UDP => udp(Family::V4, cursor, length)?,
        WHOLE_TCP => tcp(Family::V4, cursor, length)?,
        _ => return None,
    };
    let source = be!(u32, header, 12);
    if source == be!(u32, header, 16) || is_martian_v4((source >> 24) as u8) {
        return None;
    }
    Some(Usual { kind, key: u64::from(source), lower: 0 })
}

#[inline(always)]
fn read_ipv6(frame: Frame<'_>) -> Option<Usual> {
    let header = field::<40, 14, _>(frame.cursor().peek::<62>()?);
    let length = u32::from(be!(u16, header, 4));
    if length > frame.bytes().wrapping_sub(54) {
        return None;
    }
    let cursor = frame.cursor().behind(54);
    let kind = match header[6] {
        protocol::UDP => udp(Family::V6, cursor, length)?,
        protocol::TCP => tcp(Family::V6, cursor, length)?,
        _ => return None,
    };
    let (upper, lower) = (be!(u64, header, 8), be!(u64, header, 16));
    let is_land = upper == be!(u64, header, 24) && lower == be!(u64, header, 32);
    if is_land || is_martian_v6((upper >> 56) as u8, upper, lower) {
        return None;
    }
    Some(Usual { kind, key: upper, lower })
}

#[inline(always)]
fn udp(family: Family, cursor: Cursor<'_>, length: u32) -> Option<Kind> {
    let header = cursor.peek::<8>()?;
    let is_usual = length >= 8 && is_passed(udp_finding(header, length));
    is_usual.then_some(Kind::new(family, Class::Udp))
}

#[inline(always)]
fn tcp(family: Family, cursor: Cursor<'_>, length: u32) -> Option<Kind> {
    let header = cursor.peek::<20>()?;
    if !is_passed(tcp_finding(header, length)) {
        return None;
    }
    Some(match tcp_class(header) {
        Class::TcpSyn => Kind::new(family, Class::TcpSyn),
        _ => Kind::new(family, Class::Tcp),
    })
}

#[inline(always)]
const fn is_passed(finding: Reason) -> bool {
    finding as u8 == Reason::Passed as u8
}

//! The two ends of a packet and its transport header, for what has to know more than the source: off the common path.

use super::{Chain, MAX_VLAN_TAGS, Source, Walk, ether_type, ipv4_header_length, is_extension, is_vlan, protocol};
use crate::frame::{Cursor, Frame, be, raw};
use crate::verifier::forget;

/// An address: an IPv6 address in two halves; of an IPv4 address the lower half is zero.
pub(crate) type Address = (u64, u64);

/// Who sends what kind of packet to whom.
pub(crate) struct Ends<'a> {
    pub(crate) source: Address,
    pub(crate) destination: Address,
    pub(crate) protocol: u8,
    pub(crate) is_v6: bool,
    /// What follows the IP headers.
    pub(crate) transport: Cursor<'a>,
}

/// The addresses of an IP packet, of later fragments too. For whoever looks at packets from outside, and has to know which way
/// one goes.
pub fn addresses(frame: Frame<'_>) -> Option<(Source, Source)> {
    let mut cursor = frame.cursor();
    let mut ether_type = raw!(u16, cursor.take::<14>()?, 12);
    let mut tags = 0;
    while is_vlan(ether_type) && tags < MAX_VLAN_TAGS {
        ether_type = raw!(u16, cursor.take::<4>()?, 2);
        tags += 1;
    }
    match ether_type {
        ether_type::IPV4 => {
            let header = cursor.take::<20>()?;
            Some((Source::V4(be!(u32, header, 12)), Source::V4(be!(u32, header, 16))))
        }
        ether_type::IPV6 => {
            let header = cursor.take::<40>()?;
            let source = Source::V6(be!(u64, header, 8), be!(u64, header, 16));
            Some((source, Source::V6(be!(u64, header, 24), be!(u64, header, 32))))
        }
        _ => None,
    }
}

impl<'a> Ends<'a> {
    /// Reads the headers up to the transport header. `None` where there is none in this frame, as in later fragments,
    /// or where something is wrong with what is in front of it.
    #[inline(always)]
    pub(crate) fn read(frame: Frame<'a>) -> Option<Self> {
        let mut cursor = frame.cursor();
        let mut ether_type = raw!(u16, cursor.take::<14>()?, 12);
        let mut tags = 0;
        while is_vlan(ether_type) && tags < MAX_VLAN_TAGS {
            ether_type = raw!(u16, cursor.take::<4>()?, 2);
            tags += 1;
        }
        match ether_type {
            ether_type::IPV4 => Self::read_ipv4(cursor),
            ether_type::IPV6 => Self::read_ipv6(cursor),
            _ => None,
        }
    }

    /// The ends of the IPv4 packet here.
    #[inline(always)]
    pub(crate) fn read_ipv4(mut cursor: Cursor<'a>) -> Option<Self> {
        let header = cursor.take::<20>()?;
        let length = ipv4_header_length(header[0])?;
        if be!(u16, header, 6) & 0x1fff != 0 {
            return None;
        }
        let (source, destination) = (u64::from(be!(u32, header, 12)), u64::from(be!(u32, header, 16)));
        let options = forget(u64::from(length - 20), source) & 0x3f;
        cursor.skip(options as usize)?;
        let (source, destination) = ((source, 0), (destination, 0));
        Some(Self { source, destination, protocol: header[9], is_v6: false, transport: cursor })
    }

    /// The ends of the IPv6 packet here.
    #[inline(always)]
    pub(crate) fn read_ipv6(mut cursor: Cursor<'a>) -> Option<Self> {
        let header = cursor.take::<40>()?;
        if header[0] >> 4 != 6 {
            return None;
        }
        let mut chain = Chain { base: cursor, next: header[6], walked: 0, first_fragment: false };
        if is_extension(chain.next) {
            match chain.walk(u32::from(be!(u16, header, 4))) {
                Walk::Transport => {}
                Walk::LaterFragment | Walk::TooDeep | Walk::CutOff => return None,
            }
        }
        Some(Self {
            source: (be!(u64, header, 8), be!(u64, header, 16)),
            destination: (be!(u64, header, 24), be!(u64, header, 32)),
            protocol: chain.next,
            is_v6: true,
            transport: chain.cursor(),
        })
    }

    /// Whether it is ICMP, of either family.
    #[inline(always)]
    pub(crate) const fn is_icmp(&self) -> bool {
        matches!(self.protocol, protocol::ICMP | protocol::ICMPV6)
    }
}

//! Signatures: what floods have in common beside their sources. What one is, how it lies in the maps, and which packets
//! it suits; [`table`] has the form that the packet path asks.
//!
//! A signature suits a packet where all fields that it names do. It names no address: that is what lists are for.

mod hints;
pub mod table;

use crate::abi::Counter;
use crate::class::{Class, Family, KIND_SLOTS, Kind};
use crate::labelled_enum;
use crate::lists::NOTE_BYTES;
pub use crate::packet::traits::{Fragment, Layout, MAX_LAYOUT, TcpOption, Traits, lay};
use crate::packet::{ACK, SYN, protocol};

/// Signatures that there may be.
pub const SIGNATURES: usize = 256;
/// Words of a set of them.
pub const WORDS: usize = SIGNATURES / 64;
/// Bytes of a name.
pub const NAME_BYTES: usize = 32;
/// Different places and masks that payloads may be compared under.
pub const WINDOWS: usize = 8;
/// The furthest that the compared bytes may begin behind the start of the payload.
pub const MAX_OFFSET: u8 = 64;

labelled_enum! {
    /// What becomes of packets that a signature suits.
    pub enum Action {
        /// They are dropped.
        Drop = 0 => "drop",
        /// They are counted, and judged as if the signature were not there.
        Count = 1 => "count",
    }
}

/// Numbers from the first to the last, both of them included.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct Range {
    /// The lowest.
    pub first: u16,
    /// The highest.
    pub last: u16,
}

impl Range {
    /// All that there are, and packets that have no such field.
    pub const ANY: Self = Self { first: 0, last: u16::MAX };

    /// Whether it asks nothing.
    #[inline(always)]
    pub const fn is_any(self) -> bool {
        self.first == 0 && self.last == u16::MAX
    }

    /// Whether this number is in it.
    #[inline(always)]
    pub const fn has(self, number: u16) -> bool {
        self.first <= number && number <= self.last
    }
}

/// Which packets a signature suits. A field that holds every value asks nothing, and suits packets that have no such
/// field too; any other suits only packets that have it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct Shape {
    /// IP protocol; [`Self::ANY_PROTOCOL`] for any.
    pub protocol: u16,
    /// A bit for each [`Family`].
    pub families: u8,
    /// A bit for each [`Fragment`].
    pub fragments: u8,
    /// TCP flags: the values of those in the mask.
    pub flags: u8,
    /// TCP flags that are looked at.
    pub flags_mask: u8,
    /// Whether the layout of the TCP options is looked at: 0 or 1.
    pub asks_layout: u8,
    /// Where the compared bytes of the payload begin.
    pub payload_offset: u8,
    /// Source port.
    pub source_ports: Range,
    /// Destination port.
    pub destination_ports: Range,
    /// Length of the IP packet with its headers.
    pub lengths: Range,
    /// Time to live, or hop limit: up to 255, and [`Range::ANY`] for any.
    pub hops: Range,
    /// The layout of the TCP options.
    pub layout: Layout,
    /// Bytes of the payload, the first one uppermost; zero where the mask is.
    pub payload: u64,
    /// Bits of them that are compared.
    pub payload_mask: u64,
}

impl Shape {
    /// No protocol in particular.
    pub const ANY_PROTOCOL: u16 = 0x100;
    const ANY_FAMILY: u8 = 0b11;
    const ANY_FRAGMENT: u8 = 0b111;

    /// What asks nothing, and suits every packet.
    pub const ANY: Self = Self {
        protocol: Self::ANY_PROTOCOL,
        families: Self::ANY_FAMILY,
        fragments: Self::ANY_FRAGMENT,
        flags: 0,
        flags_mask: 0,
        asks_layout: 0,
        payload_offset: 0,
        source_ports: Range::ANY,
        destination_ports: Range::ANY,
        lengths: Range::ANY,
        hops: Range::ANY,
        layout: 0,
        payload: 0,
        payload_mask: 0,
    };

    /// Whether it asks nothing.
    pub fn is_any(&self) -> bool {
        *self == Self::ANY
    }

    /// Whether it asks nothing beside protocol and family.
    pub fn is_protocol_only(&self) -> bool {
        Self { protocol: Self::ANY_PROTOCOL, families: Self::ANY_FAMILY, ..*self }.is_any()
    }

    /// Whether it looks at ports.
    pub const fn asks_ports(&self) -> bool {
        !(self.source_ports.is_any() && self.destination_ports.is_any())
    }

    /// Whether it looks at TCP flags or options.
    pub const fn asks_tcp(&self) -> bool {
        self.flags_mask != 0 || self.asks_layout != 0
    }

    /// Whether it looks at the payload.
    pub const fn asks_payload(&self) -> bool {
        self.payload_mask != 0
    }

    /// Bytes of the payload that are compared, up to the last one in the mask.
    pub const fn payload_bytes(&self) -> u32 {
        8 - self.payload_mask.trailing_zeros() / 8
    }

    /// Whether it suits a packet: the definition, that the table has to keep.
    pub fn suits(&self, packet: &Traits<'_>) -> bool {
        self.suits_protocol(packet.family, packet.protocol)
            && self.fragments >> packet.fragment as u8 & 1 == 1
            && self.suits_hops(packet.hops)
            && self.suits_flags(packet.flags())
            && suits_port(self.source_ports, packet.ports().map(|ports| ports.0))
            && suits_port(self.destination_ports, packet.ports().map(|ports| ports.1))
            && self.lengths.has(packet.length)
            && (self.asks_layout == 0 || packet.layout() == Some(self.layout))
            && self.suits_payload(packet)
    }

    const fn suits_protocol(&self, family: Family, protocol: u8) -> bool {
        let is_protocol = self.protocol == Self::ANY_PROTOCOL || self.protocol == protocol as u16;
        is_protocol && self.families >> family as u8 & 1 == 1
    }

    const fn suits_hops(&self, hops: u8) -> bool {
        self.hops.has(hops as u16)
    }

    fn suits_flags(&self, flags: Option<u8>) -> bool {
        self.flags_mask == 0 || flags.is_some_and(|flags| flags & self.flags_mask == self.flags)
    }

    fn suits_payload(&self, packet: &Traits<'_>) -> bool {
        let word = || packet.payload(0).word(u32::from(self.payload_offset), self.payload_bytes());
        !self.asks_payload() || word().is_some_and(|word| word & self.payload_mask == self.payload)
    }

    /// The kinds of packets among which there are any that it suits, a bit each by [`Kind::index`].
    pub fn kinds(&self) -> u16 {
        let kinds = Kind::all_ip().filter(|kind| {
            let Some((family, class)) = kind.parts() else {
                return false;
            };
            self.families >> family as u8 & 1 == 1 && self.may_be(class)
        });
        kinds.fold(0, |bits, kind| bits | 1 << kind.index())
    }

    fn may_be(&self, class: Class) -> bool {
        let is = |number: u8| self.protocol == Self::ANY_PROTOCOL || self.protocol == u16::from(number);
        let is_whole = self.fragments != 1 << Fragment::Later as u8;
        let needs_header = self.asks_ports() || self.asks_tcp();
        match class {
            Class::TcpSyn => is_whole && is(protocol::TCP) && self.may_have_flags(SYN),
            Class::Tcp => is_whole && is(protocol::TCP) && !self.is_syn_only(),
            Class::Udp => is_whole && is(protocol::UDP) && !self.asks_tcp(),
            Class::Icmp => {
                let is_icmp = is(protocol::ICMP) || is(protocol::ICMPV6);
                is_whole && is_icmp && !needs_header
            }
            // Later ones have nothing behind IP that could be looked at; first ones that end in their transport header
            // may have a payload, as what follows IP.
            Class::Fragment => self.fragments != 1 << Fragment::None as u8 && !needs_header,
            Class::Other => {
                let classified = [protocol::TCP, protocol::UDP, protocol::ICMP, protocol::ICMPV6];
                let is_classified = classified.iter().any(|number| self.protocol == u16::from(*number));
                is_whole && !is_classified && !needs_header
            }
        }
    }

    /// Whether it suits any segment that has SYN and no ACK.
    const fn may_have_flags(&self, flags: u8) -> bool {
        let asked = self.flags_mask & (SYN | ACK);
        self.flags & asked == flags & asked
    }

    /// Whether it suits only segments that have SYN and no ACK.
    const fn is_syn_only(&self) -> bool {
        self.flags_mask & (SYN | ACK) == SYN | ACK && self.flags & (SYN | ACK) == SYN
    }
}

fn suits_port(range: Range, port: Option<u16>) -> bool {
    range.is_any() || port.is_some_and(|port| range.has(port))
}

/// A signature, as it lies in the map of definitions at its number. All zero: none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct Record {
    /// Which packets.
    pub shape: Shape,
    /// When it ends, in [`crate::clock::Moment`] nanoseconds; [`crate::lists::FOREVER`] for never.
    pub until_ns: u64,
    /// When it was added, in seconds of the Unix epoch.
    pub added_unix_s: u64,
    /// What its number had counted before it was added.
    pub before: Counter,
    /// [`Action`], as its number.
    pub action: u64,
    /// Its name, as UTF-8 padded with zeros.
    pub name: [u8; NAME_BYTES],
    /// Why, as UTF-8 padded with zeros.
    pub note: [u8; NOTE_BYTES],
}

impl Record {
    /// No signature.
    pub const NONE: Self = Self {
        shape: Shape::ANY,
        until_ns: 0,
        added_unix_s: 0,
        before: Counter { packets: 0, bytes: 0 },
        action: 0,
        name: [0; NAME_BYTES],
        note: [0; NOTE_BYTES],
    };

    /// Whether there is a signature.
    pub const fn is_some(&self) -> bool {
        self.name[0] != 0
    }
}

/// The definitions of a bank, by number.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct Records(pub [Record; SIGNATURES]);

/// Which bank of signatures is in force, how many words of a set are in use, and which kinds of packets are asked: one
/// word, so that one write changes all of it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(transparent)]
pub struct SignatureState(u64);

impl SignatureState {
    const WORDS_SHIFT: u32 = 8;
    const KINDS_SHIFT: u32 = 16;

    /// Bank 0 or 1, with these words in use and these kinds asked.
    pub const fn new(bank: u32, words: u32, kinds: u16) -> Self {
        const { assert!(KIND_SLOTS <= 16 && WORDS < 256) };
        Self((bank & 1) as u64 | (words as u64 & 0xff) << Self::WORDS_SHIFT | (kinds as u64) << Self::KINDS_SHIFT)
    }

    /// The bank in force.
    #[inline(always)]
    pub const fn bank(self) -> u32 {
        self.0 as u32 & 1
    }

    /// Words of a set that are in use.
    #[inline(always)]
    pub const fn words(self) -> u32 {
        (self.0 >> Self::WORDS_SHIFT) as u32 & 0xff
    }

    /// Whether packets of this kind are asked.
    pub const fn has(self, kind: Kind) -> bool {
        self.0 >> Self::KINDS_SHIFT >> kind.index() & 1 == 1
    }
}

//! From a frame to what the decision needs: source, kind, and what is wrong with it.
//!
//! Every byte is read behind a bounds check, every loop is bounded, and every way out is named by a [`Reason`]: an
//! unparsed path would be a bypass. Ports of later fragments are never read. Checksums are not verified: the
//! stack does that, and a wrong one changes no verdict here.

use core::hint::cold_path;

use crate::class::{Class, Family, Kind};
pub use crate::frame::Frame;
use crate::frame::{Cursor, be, raw};
use crate::outcome::Outcome;
use crate::reason::Reason;
use crate::verifier::{again, forget, opaque};

pub(crate) mod ends;
pub use ends::addresses;
pub mod fast;
pub(crate) mod traits;

/// VLAN tags that are looked behind.
const MAX_VLAN_TAGS: usize = 2;
/// IPv6 extension headers that are looked behind.
const MAX_EXTENSION_HEADERS: usize = 8;

/// EtherTypes in network order, as they are compared.
mod ether_type {
    pub(super) const IPV4: u16 = 0x0800_u16.to_be();
    pub(super) const IPV6: u16 = 0x86dd_u16.to_be();
    pub(super) const VLAN: u16 = 0x8100_u16.to_be();
    pub(super) const SERVICE_VLAN: u16 = 0x88a8_u16.to_be();
    pub(super) const OLD_SERVICE_VLAN: u16 = 0x9100_u16.to_be();
    pub(super) const PPPOE_SESSION: u16 = 0x8864_u16.to_be();
    pub(super) const MPLS: u16 = 0x8847_u16.to_be();
    pub(super) const MPLS_MULTICAST: u16 = 0x8848_u16.to_be();
}

pub(crate) mod protocol {
    pub(crate) const HOP_BY_HOP: u8 = 0;
    pub(crate) const ICMP: u8 = 1;
    pub(crate) const IPIP: u8 = 4;
    pub(crate) const TCP: u8 = 6;
    pub(crate) const UDP: u8 = 17;
    pub(crate) const IPV6_IN_IP: u8 = 41;
    pub(crate) const ROUTING: u8 = 43;
    pub(crate) const FRAGMENT: u8 = 44;
    pub(crate) const GRE: u8 = 47;
    pub(crate) const AUTHENTICATION: u8 = 51;
    pub(crate) const ICMPV6: u8 = 58;
    pub(crate) const DESTINATION_OPTIONS: u8 = 60;
    pub(crate) const MOBILITY: u8 = 135;
    pub(crate) const HIP: u8 = 139;
    pub(crate) const SHIM6: u8 = 140;
}

/// The address that a packet claims to come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Source {
    /// IPv4 address.
    V4(u32),
    /// IPv6 address, upper and lower half.
    V6(u64, u64),
}

impl Source {
    /// The source of a packet of this kind, from its [`Source::key`] and the lower half of an IPv6 address.
    #[inline(always)]
    const fn new(kind: Kind, key: u64, lower: u64) -> Self {
        if kind.is_v6() { Self::V6(key, lower) } else { Self::V4(key as u32) }
    }

    /// What its state is kept by: the IPv4 address or the IPv6 /64, since an attacker owns all of his /64.
    #[inline(always)]
    pub const fn key(self) -> u64 {
        match self {
            Self::V4(address) => address as u64,
            Self::V6(upper, _) => upper,
        }
    }

    /// Its address in two halves; of an IPv4 address the second is zero.
    #[inline(always)]
    pub const fn halves(self) -> (u64, u64) {
        match self {
            Self::V4(address) => (address as u64, 0),
            Self::V6(upper, lower) => (upper, lower),
        }
    }

    /// Its family.
    #[inline(always)]
    pub const fn family(self) -> Family {
        match self {
            Self::V4(_) => Family::V4,
            Self::V6(..) => Family::V6,
        }
    }
}

/// A frame, understood.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Parsed {
    /// Nothing more is asked: this is its reason, and its place in the counters.
    Settled(Reason, Kind),
    /// An IP packet with a source.
    Packet(Packet),
}

/// What the decision needs to know of an IP packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Packet {
    /// Who claims to have sent it.
    pub source: Source,
    /// Family and class.
    pub kind: Kind,
    /// What is wrong with it, or `Passed` or `Tunnel`: its reason where no list and no limit has another.
    pub finding: Reason,
    /// Length of the frame.
    pub bytes: u32,
}

/// Understands a frame.
#[inline(always)]
pub fn parse(frame: Frame<'_>) -> Parsed {
    let headers = read(frame);
    let (finding, kind) = (headers.outcome.reason(), headers.outcome.kind());
    if headers.settled {
        return Parsed::Settled(finding, kind);
    }
    Parsed::Packet(Packet { source: headers.source(), kind, finding, bytes: frame.bytes() })
}

/// What [`parse`] says, as scalars: they stay in registers on their way out of many branches, where an enum would
/// lie on the stack.
#[derive(Clone, Copy)]
pub(crate) struct Headers {
    pub(crate) outcome: Outcome,
    /// Nothing more is asked.
    pub(crate) settled: bool,
    /// [`Source::key`]: the upper half of an IPv6 address, or an IPv4 address.
    pub(crate) key: u64,
    /// The lower half of an IPv6 address.
    lower: u64,
}

impl Headers {
    #[inline(always)]
    pub(crate) const fn source(&self) -> Source {
        Source::new(self.outcome.kind(), self.key, self.lower)
    }

    #[inline(always)]
    const fn settled(outcome: Outcome) -> Self {
        Self { outcome, settled: true, key: 0, lower: 0 }
    }

    #[inline(always)]
    const fn not_ip(reason: Reason) -> Self {
        Self::settled(Outcome::new(Kind::NOT_IP, reason))
    }
}

/// Reads the headers of a frame.
#[inline(always)]
pub(crate) fn read(frame: Frame<'_>) -> Headers {
    let mut cursor = frame.cursor();
    let Some(ethernet) = cursor.take::<14>() else {
        return Headers::not_ip(Reason::Short);
    };
    let mut ether_type = raw!(u16, ethernet, 12);
    let mut tags = 0;
    while ether_type != ether_type::IPV4 && ether_type != ether_type::IPV6 {
        cold_path();
        if !is_vlan(ether_type) {
            return Headers::not_ip(not_ip(ether_type));
        }
        if tags == MAX_VLAN_TAGS {
            return Headers::not_ip(Reason::VlanDepth);
        }
        let Some(tag) = cursor.take::<4>() else {
            return Headers::not_ip(Reason::Short);
        };
        ether_type = raw!(u16, tag, 2);
        tags += 1;
    }
    // Behind the tags the rest of the frame is IP and padding, including what is not readable here.
    let available = frame.bytes_from(&cursor);
    if opaque(u64::from(ether_type)) == u64::from(ether_type::IPV4) {
        read_ipv4(cursor, available)
    } else {
        read_ipv6(cursor, available)
    }
}

#[inline(always)]
const fn is_vlan(ether_type: u16) -> bool {
    matches!(ether_type, ether_type::VLAN | ether_type::SERVICE_VLAN | ether_type::OLD_SERVICE_VLAN)
}

#[inline(always)]
const fn not_ip(ether_type: u16) -> Reason {
    match ether_type {
        ether_type::PPPOE_SESSION | ether_type::MPLS | ether_type::MPLS_MULTICAST => Reason::Encapsulated,
        _ => Reason::NotIp,
    }
}

#[inline(always)]
fn read_ipv4(mut cursor: Cursor<'_>, available: u32) -> Headers {
    let Some(header) = cursor.take::<20>() else {
        return empty_or_cut(available, Family::V4);
    };
    let found = classify_ipv4(header, cursor, available);
    let source = be!(u32, header, 12);
    let outcome = or_strange(found, source == be!(u32, header, 16), is_martian_v4(again(&header[12])));
    let key = u64::from(source);
    Headers { outcome: outcome.forgotten(key), settled: false, key, lower: 0 }
}

#[inline(always)]
fn classify_ipv4(header: &[u8; 20], mut cursor: Cursor<'_>, available: u32) -> Outcome {
    const MALFORMED: Outcome = Outcome::ip(Family::V4, Class::Other, Reason::MalformedIp);
    let total = u32::from(be!(u16, header, 2));
    let Some(header_length) = ipv4_header_length(header[0]) else {
        return MALFORMED;
    };
    if total < header_length || total > available {
        return MALFORMED;
    }
    if header_length > 20 {
        cold_path();
        let options = forget(u64::from(header_length - 20), u64::from(be!(u32, header, 12))) & 0x3f;
        if cursor.skip(options as usize).is_none() {
            return MALFORMED;
        }
    }
    // "More fragments" and the offset, in network order.
    let fragment = raw!(u16, header, 6) & 0x3fff_u16.to_be();
    if fragment & 0x1fff_u16.to_be() != 0 {
        return Outcome::ip(Family::V4, Class::Fragment, Reason::Passed);
    }
    let first_fragment = fragment != 0;
    let length = total - header_length;
    Transport { family: Family::V4, protocol: header[9], length, first_fragment }.classify(cursor)
}

/// The length that the first byte of an IPv4 header says, if the byte is possible.
#[inline(always)]
const fn ipv4_header_length(first: u8) -> Option<u32> {
    match first {
        0x45 => Some(20),
        0x46..=0x4f => Some((first & 0x0f) as u32 * 4),
        _ => None,
    }
}

#[inline(always)]
fn read_ipv6(mut cursor: Cursor<'_>, available: u32) -> Headers {
    let Some(header) = cursor.take::<40>() else {
        return empty_or_cut(available, Family::V6);
    };
    let found = classify_ipv6(header, cursor, available);
    let (upper, lower) = (be!(u64, header, 8), be!(u64, header, 16));
    let apart = (upper ^ be!(u64, header, 24)) | (lower ^ be!(u64, header, 32));
    let settled = found.is(Reason::NeighborDiscovery) || found.is(Reason::PacketTooBig);
    let is_martian = is_martian_v6(again(&header[8]), upper, lower);
    let outcome = or_strange(found, apart == 0, is_martian);
    Headers { outcome: outcome.forgotten(upper), settled, key: upper, lower }
}

#[inline(always)]
fn classify_ipv6(header: &[u8; 40], cursor: Cursor<'_>, available: u32) -> Outcome {
    const fn other(reason: Reason) -> Outcome {
        Outcome::ip(Family::V6, Class::Other, reason)
    }
    let payload = u32::from(be!(u16, header, 4));
    let next = header[6];
    // A jumbogram says zero and means more; no Ethernet carries one.
    if header[0] >> 4 != 6 || payload + 40 > available || (payload == 0 && next == protocol::HOP_BY_HOP) {
        return other(Reason::MalformedIp);
    }
    let mut chain = Chain { base: cursor, next, walked: 0, first_fragment: false };
    if is_extension(next) {
        cold_path();
        match chain.walk(payload) {
            Walk::Transport => {}
            Walk::LaterFragment => return Outcome::ip(Family::V6, Class::Fragment, Reason::Passed),
            Walk::TooDeep => return other(Reason::ExtensionDepth),
            Walk::CutOff => return other(Reason::MalformedIp),
        }
    }
    let transport = Transport {
        family: Family::V6,
        protocol: chain.next,
        length: payload.wrapping_sub(chain.walked),
        first_fragment: chain.first_fragment,
    };
    let cursor = chain.cursor();
    let found = transport.classify(cursor);
    if found == Outcome::ip(Family::V6, Class::Icmp, Reason::Passed) && chain.next == protocol::ICMPV6 {
        return found.because(transport.icmpv6_finding(cursor, header[7]));
    }
    found
}

/// A chain of IPv6 extension headers. It keeps a distance, not a cursor: the verifier then sees one state where it
/// would see one per number and kind of headers behind it.
struct Chain<'a> {
    base: Cursor<'a>,
    next: u8,
    walked: u32,
    first_fragment: bool,
}

enum Walk {
    Transport,
    LaterFragment,
    TooDeep,
    CutOff,
}

impl<'a> Chain<'a> {
    /// Eight headers of 2,048 bytes at most.
    const LONGEST: u32 = 0x3fff;

    #[inline(always)]
    fn cursor(&self) -> Cursor<'a> {
        self.base.behind((self.walked & Self::LONGEST) as usize)
    }

    #[inline(always)]
    fn walk(&mut self, payload: u32) -> Walk {
        let mut headers = 0;
        while is_extension(self.next) {
            if headers == MAX_EXTENSION_HEADERS {
                return Walk::TooDeep;
            }
            let cursor = self.cursor();
            let Some(extension) = cursor.peek::<8>() else {
                return Walk::CutOff;
            };
            let header = self.next;
            self.next = extension[0];
            let walked = self.walked + extension_length(header, extension[1]);
            self.walked = forget(u64::from(walked), u64::from_ne_bytes(*extension)) as u32;
            if self.walked > payload || self.walked > Self::LONGEST {
                return Walk::CutOff;
            }
            if header == protocol::FRAGMENT {
                let fragment = be!(u16, extension, 2);
                if fragment & 0xfff8 != 0 {
                    return Walk::LaterFragment;
                }
                self.first_fragment = fragment & 1 != 0;
            }
            headers += 1;
        }
        Walk::Transport
    }
}

/// A frame that ends with its Ethernet header is merely short; one that ends inside the IP header is malformed.
#[inline(always)]
const fn empty_or_cut(available: u32, family: Family) -> Headers {
    let reason = if available == 0 { Reason::Short } else { Reason::MalformedIp };
    Headers::settled(Outcome::ip(family, Class::Other, reason))
}

/// What is wrong with the headers says more than a strange source; a tunnel or a bare SYN says less than either.
#[inline(always)]
fn or_strange(found: Outcome, is_land: bool, is_martian: bool) -> Outcome {
    if !(is_land | is_martian) {
        return found;
    }
    cold_path();
    if !(found.is(Reason::Passed) || found.is(Reason::Tunnel) || found.is(Reason::BareSyn)) {
        return found;
    }
    found.because(if is_land { Reason::Land } else { Reason::Martian })
}

/// Loopback, "this network", multicast, reserved and broadcast.
#[inline(always)]
const fn is_martian_v4(first: u8) -> bool {
    // Without branches, so that the packet path has three compares and no flag.
    (first == 0) | (first == 127) | (first >= 224)
}

/// Unspecified, loopback, IPv4-mapped and multicast.
#[inline(always)]
const fn is_martian_v6(first: u8, upper: u64, lower: u64) -> bool {
    (first == 0xff) | (upper == 0 && (lower <= 1 || lower >> 32 == 0xffff))
}

/// Whether some address with this upper half is such a one.
#[inline(always)]
const fn may_be_martian_v6(first: u8, upper: u64) -> bool {
    (first == 0xff) | (upper == 0)
}

#[inline(always)]
const fn is_extension(next: u8) -> bool {
    matches!(
        next,
        protocol::HOP_BY_HOP
            | protocol::ROUTING
            | protocol::FRAGMENT
            | protocol::AUTHENTICATION
            | protocol::DESTINATION_OPTIONS
            | protocol::MOBILITY
            | protocol::HIP
            | protocol::SHIM6
    )
}

#[inline(always)]
const fn extension_length(header: u8, length: u8) -> u32 {
    match header {
        protocol::FRAGMENT => 8,
        protocol::AUTHENTICATION => (length as u32 + 2) * 4,
        _ => (length as u32 + 1) * 8,
    }
}

/// What follows the IP headers.
struct Transport {
    family: Family,
    protocol: u8,
    /// Bytes of it by the IP header.
    length: u32,
    /// More of it follows in other packets: its own length says nothing about this one.
    first_fragment: bool,
}

impl Transport {
    /// Its class, and what is wrong with it.
    #[inline(always)]
    fn classify(&self, cursor: Cursor<'_>) -> Outcome {
        match self.protocol {
            protocol::TCP => self.classify_tcp(cursor),
            protocol::UDP => self.classify_udp(cursor),
            protocol => {
                cold_path();
                self.classify_other(protocol, cursor)
            }
        }
    }

    #[inline(always)]
    fn classify_other(&self, protocol: u8, cursor: Cursor<'_>) -> Outcome {
        match protocol {
            protocol::ICMP | protocol::ICMPV6 => self.classify_icmp(cursor),
            protocol::GRE | protocol::IPIP | protocol::IPV6_IN_IP => self.found(Class::Other, Reason::Tunnel),
            _ => self.found(Class::Other, Reason::Passed),
        }
    }

    #[inline(always)]
    fn classify_tcp(&self, cursor: Cursor<'_>) -> Outcome {
        let Some(header) = self.header::<20>(cursor) else {
            return self.cut(Class::Tcp, Reason::MalformedTcp);
        };
        self.found(tcp_class(header), tcp_finding(header, self.length))
    }

    #[inline(always)]
    fn classify_udp(&self, cursor: Cursor<'_>) -> Outcome {
        let Some(header) = self.header::<8>(cursor) else {
            return self.cut(Class::Udp, Reason::MalformedUdp);
        };
        if self.first_fragment && be!(u16, header, 4) >= 8 {
            return self.found(Class::Udp, Reason::Passed);
        }
        self.found(Class::Udp, udp_finding(header, self.length))
    }

    #[inline(always)]
    fn classify_icmp(&self, cursor: Cursor<'_>) -> Outcome {
        match self.header::<8>(cursor) {
            Some(_) => self.found(Class::Icmp, Reason::Passed),
            None => self.cut(Class::Icmp, Reason::MalformedIcmp),
        }
    }

    #[inline(always)]
    const fn found(&self, class: Class, finding: Reason) -> Outcome {
        Outcome::ip(self.family, class, finding)
    }

    /// The transport header, if the packet says that it has one and it is there.
    #[inline(always)]
    fn header<'a, const N: usize>(&self, cursor: Cursor<'a>) -> Option<&'a [u8; N]> {
        if (self.length as usize) < N {
            return None;
        }
        cursor.peek::<N>()
    }

    /// Neighbour discovery from this link and packet-too-big are what IPv6 lives on.
    #[inline(always)]
    fn icmpv6_finding(&self, cursor: Cursor<'_>, hop_limit: u8) -> Reason {
        match cursor.peek::<8>() {
            Some([133..=137, ..]) if hop_limit == 255 && !self.first_fragment => Reason::NeighborDiscovery,
            Some([2, ..]) if !self.first_fragment => Reason::PacketTooBig,
            _ => Reason::Passed,
        }
    }

    /// A header that is not all here: the rest is in the next fragment, or nowhere.
    #[inline(always)]
    const fn cut(&self, class: Class, reason: Reason) -> Outcome {
        if self.first_fragment { self.found(Class::Fragment, Reason::Passed) } else { self.found(class, reason) }
    }
}

#[inline(always)]
const fn tcp_class(header: &[u8; 20]) -> Class {
    if header[13] & (SYN | ACK) == SYN { Class::TcpSyn } else { Class::Tcp }
}

/// What is wrong with the TCP header of a segment of this length.
#[inline(always)]
const fn tcp_finding(header: &[u8; 20], length: u32) -> Reason {
    let header_length = (header[12] >> 4) as u32 * 4;
    if header_length < 20 || header_length > length {
        Reason::MalformedTcp
    } else if header[13] & (FIN | SYN | RST | ACK) == ACK {
        // An established connection, as nearly all TCP is.
        Reason::Passed
    } else if IMPOSSIBLE_FLAGS >> (header[13] & 0x3f) & 1 == 1 {
        Reason::ImpossibleFlags
    } else if header_length == 20 && header[13] & (SYN | ACK) == SYN {
        Reason::BareSyn
    } else {
        Reason::Passed
    }
}

/// What is wrong with the UDP header of a whole datagram of this length.
#[inline(always)]
fn udp_finding(header: &[u8; 8], length: u32) -> Reason {
    if u32::from(be!(u16, header, 4)) == length { Reason::Passed } else { Reason::MalformedUdp }
}

pub(crate) const FIN: u8 = 0x01;
pub(crate) const SYN: u8 = 0x02;
pub(crate) const RST: u8 = 0x04;
pub(crate) const ACK: u8 = 0x10;

/// A bit for each combination of FIN, SYN, RST, PSH, ACK and URG that no TCP sends.
const IMPOSSIBLE_FLAGS: u64 = {
    let mut bits = 0;
    let mut flags = 0u8;
    while flags < 64 {
        let syn_with_end = flags & SYN != 0 && flags & (FIN | RST) != 0;
        let fin_with_rst = flags & FIN != 0 && flags & RST != 0;
        let fin_without_ack = flags & FIN != 0 && flags & ACK == 0;
        let none = flags & (FIN | SYN | RST | ACK) == 0;
        if syn_with_end || fin_with_rst || fin_without_ack || none {
            bits |= 1 << flags;
        }
        flags += 1;
    }
    bits
};

//! The packet table: a frame for every line of the parser, and what it has to say of it. The table test, the truncation
//! test and the mutation test read it.

use floodwall_common::class::{Class, Family, Kind};
use floodwall_common::packet::{Packet, Parsed, Source};
use floodwall_common::reason::Reason;

mod ipv4;
mod ipv6;
mod link;
mod transport;

/// A frame, and what the parser has to say of it.
#[derive(Clone)]
pub(crate) struct Case {
    pub(crate) name: String,
    pub(crate) frame: Vec<u8>,
    pub(crate) expected: Parsed,
}

/// All of them.
pub(crate) fn all() -> Vec<Case> {
    [link::cases(), ipv4::cases(), ipv6::cases(), transport::cases()].concat()
}

/// A frame that is no IP, or ends before it.
fn settled(name: &str, frame: Vec<u8>, reason: Reason) -> Case {
    Case { name: name.into(), frame, expected: Parsed::Settled(reason, Kind::NOT_IP) }
}

/// A frame that needs no judgement.
fn settled_ip(name: &str, frame: Vec<u8>, reason: Reason, family: Family, class: Class) -> Case {
    Case { name: name.into(), frame, expected: Parsed::Settled(reason, Kind::new(family, class)) }
}

/// An IP packet; its source is read where the network header begins.
fn packet_at(name: &str, link: usize, frame: Vec<u8>, class: Class, finding: Reason) -> Case {
    let word = |at: usize| u64::from_be_bytes(frame[at..at + 8].try_into().unwrap());
    let source = match frame[link - 2..link] {
        [0x08, 0x00] => Source::V4((word(link + 12) >> 32) as u32),
        _ => Source::V6(word(link + 8), word(link + 16)),
    };
    let kind = Kind::new(source.family(), class);
    let expected = Parsed::Packet(Packet { source, kind, finding, bytes: frame.len() as u32 });
    Case { name: name.into(), frame, expected }
}

/// An IP packet right behind the Ethernet header.
fn packet(name: &str, frame: Vec<u8>, class: Class, finding: Reason) -> Case {
    packet_at(name, 14, frame, class, finding)
}

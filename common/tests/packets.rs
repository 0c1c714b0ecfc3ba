//! The packet table: every line of the parser, every reason that it gives, and every length that each frame of the
//! table can be cut to.

#![allow(clippy::unwrap_used, reason = "tests panic")]

use std::collections::{BTreeMap, HashSet};

use floodwall_common::class::{Class, Family, Kind};
use floodwall_common::packet::{Frame, Packet, Parsed, fast};
use floodwall_common::reason::Reason;

use support::cases::{self, Case};
use support::frames::{TCP, UDP, V4, V6, tcp_of, udp_of};
use support::invariants::{check, layout, parsed, parsed_head, with_bytes};

mod support;

/// The reasons that the parser gives; the others are the decision's.
const OF_THE_PARSER: [Reason; 15] = [
    Reason::Passed,
    Reason::NotIp,
    Reason::Short,
    Reason::VlanDepth,
    Reason::Encapsulated,
    Reason::Tunnel,
    Reason::NeighborDiscovery,
    Reason::PacketTooBig,
    Reason::ExtensionDepth,
    Reason::MalformedIp,
    Reason::MalformedTcp,
    Reason::MalformedUdp,
    Reason::MalformedIcmp,
    Reason::ImpossibleFlags,
    Reason::Land,
];

fn reason(parsed: Parsed) -> Reason {
    match parsed {
        Parsed::Settled(reason, _) => reason,
        Parsed::Packet(packet) => packet.finding,
    }
}

#[test]
fn every_frame_of_the_table_is_understood() {
    let cases = cases::all();
    let wrong: Vec<String> = cases
        .iter()
        .filter(|case| parsed(&case.frame) != case.expected)
        .map(|case| format!("{}: {:?}, but expected {:?}", case.name, parsed(&case.frame), case.expected))
        .collect();
    println!("{} frames", cases.len());
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn usual_packets_are_known_to_the_fast_path() {
    const ACK: u8 = 0x10;
    const SYN: u8 = 0x02;
    for (protocol, payload) in [(UDP, udp_of(8, 8)), (TCP, tcp_of(ACK, 5, 20)), (TCP, tcp_of(SYN, 10, 40))] {
        for frame in [V4::default().frame(protocol, &payload), V6::default().frame(protocol, &payload)] {
            assert_eq!(fast::parse(Frame::new(&frame)), Some(parsed(&frame)), "{frame:02x?}");
        }
    }
}

#[test]
fn names_in_the_table_are_unique() {
    let mut seen = HashSet::new();
    for case in cases::all() {
        assert!(seen.insert(case.name.clone()), "{}", case.name);
    }
}

#[test]
fn the_table_has_every_reason_of_the_parser() {
    let mut seen: BTreeMap<Reason, usize> = BTreeMap::new();
    for case in cases::all() {
        *seen.entry(reason(case.expected)).or_default() += 1;
    }
    println!("{seen:?}");
    let expected: Vec<Reason> = OF_THE_PARSER.into_iter().chain([Reason::Martian, Reason::BareSyn]).collect();
    assert_eq!(seen.into_keys().collect::<Vec<_>>(), expected);
}

/// What a frame of the table has to be when only its first `bytes` arrive.
fn expected_of_cut(case: &Case, bytes: usize) -> Parsed {
    let not_ip = |reason| Parsed::Settled(reason, Kind::NOT_IP);
    let Some(layout) = layout(&case.frame) else {
        let tags = case.frame[12..].chunks(4).take(2).take_while(|tag| is_vlan(tag)).count();
        return if bytes < 14 + 4 * tags { not_ip(Reason::Short) } else { case.expected };
    };
    let family = if layout.is_v4 { Family::V4 } else { Family::V6 };
    let kind = Kind::new(family, Class::Other);
    let header = if layout.is_v4 { 20 } else { 40 };
    match bytes {
        _ if bytes < layout.link => not_ip(Reason::Short),
        _ if bytes == layout.link => Parsed::Settled(Reason::Short, kind),
        _ if bytes < layout.link + header => Parsed::Settled(Reason::MalformedIp, kind),
        _ if layout.end.is_some_and(|end| bytes >= end) => with_bytes(case.expected, bytes),
        _ => Parsed::Packet(Packet { kind, finding: Reason::MalformedIp, ..whole(case, bytes) }),
    }
}

fn is_vlan(tag: &[u8]) -> bool {
    matches!(tag, [0x81 | 0x91, 0x00, ..] | [0x88, 0xa8, ..])
}

/// The packet of a case that may be settled: its source is then asked of the parser, behind a header that is bent.
fn whole(case: &Case, bytes: usize) -> Packet {
    let packet = match case.expected {
        Parsed::Packet(packet) => Some(packet),
        Parsed::Settled(..) => match parsed(&[&case.frame[..14], &[0; 8], &case.frame[22..]].concat()) {
            Parsed::Packet(packet) => Some(packet),
            Parsed::Settled(..) => None,
        },
    };
    Packet { bytes: bytes as u32, ..packet.unwrap() }
}

#[test]
fn every_cut_of_every_frame_says_what_is_missing() {
    let mut cuts = 0;
    for case in cases::all().iter().filter(|case| case.frame.len() >= 14) {
        for bytes in (0..case.frame.len()).filter(|bytes| *bytes < 4_000 || bytes % 1_009 == 0) {
            let cut = case.frame[..bytes].to_vec();
            assert_eq!(check(&cut), expected_of_cut(case, bytes), "{} cut to {bytes}", case.name);
            cuts += 1;
        }
    }
    println!("{cuts} cuts");
}

/// The first part of a frame in several pieces: the length is that of all of it, and what is not readable is missing.
#[test]
fn every_readable_head_is_the_same_or_malformed() {
    for case in cases::all() {
        let packet = match case.expected {
            Parsed::Packet(packet) if layout(&case.frame).unwrap().end <= Some(case.frame.len()) => packet,
            _ => continue,
        };
        for readable in 0..case.frame.len().min(400) {
            let head = parsed_head(&case.frame, readable);
            let Parsed::Packet(seen) = head else {
                let header = layout(&case.frame).map_or(0, |layout| layout.link + if layout.is_v4 { 20 } else { 40 });
                assert!(readable < header, "{}, {readable} readable: {head:?}", case.name);
                continue;
            };
            assert_eq!((seen.source, seen.bytes), (packet.source, packet.bytes), "{}", case.name);
        }
    }
}

#[test]
fn every_frame_of_the_table_keeps_the_invariants() {
    for case in cases::all() {
        let padded = [&case.frame[..], &[0xa5; 40]].concat();
        check(&case.frame);
        check(&padded);
    }
}

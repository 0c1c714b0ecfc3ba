//! Properties of the parser on random bytes, on mutations of the packet table, and on fragments and extension headers
//! made up at random.

#![allow(clippy::unwrap_used, clippy::panic, reason = "tests panic")]

use std::sync::LazyLock;

use floodwall_common::class::Class;
use floodwall_common::packet::Parsed;
use floodwall_common::reason::Reason;
use proptest::collection::vec;
use proptest::prelude::*;

use support::cases::{self, Case};
use support::frames::{
    DESTINATION_OPTIONS, HOP_BY_HOP, ROUTING, TCP, UDP, V4, V6, authentication, extension, fragment_header, tcp_of,
    udp_of,
};
use support::invariants::{check, parsed};

mod support;

static TABLE: LazyLock<Vec<Case>> =
    LazyLock::new(|| cases::all().into_iter().filter(|case| case.frame.len() < 2_000).collect());

fn any_extension() -> impl Strategy<Value = (u8, Vec<u8>)> {
    let kind = prop::sample::select(vec![HOP_BY_HOP, ROUTING, DESTINATION_OPTIONS, 135, 139, 140]);
    prop_oneof![
        (kind, 0..4u8).prop_map(|(kind, units)| extension(kind, units)),
        (0..6u8).prop_map(authentication),
        Just(fragment_header(0, false)),
    ]
}

fn class_and_finding(frame: &[u8]) -> (Class, Reason) {
    match parsed(frame) {
        Parsed::Packet(packet) => (packet.kind.parts().unwrap().1, packet.finding),
        settled => panic!("{settled:?}"),
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 20_000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_bytes_have_an_answer(frame in vec(any::<u8>(), 0..200)) {
        check(&frame);
    }

    #[test]
    fn any_bytes_behind_an_ether_type_have_an_answer(
        ether_type in prop::sample::select(vec![0x0800u16, 0x86dd, 0x8100, 0x88a8]),
        first in prop::sample::select(vec![0x45u8, 0x46, 0x4f, 0x60]),
        mut packet in vec(any::<u8>(), 1..160),
    ) {
        packet[0] = first;
        check(&support::frames::ethernet(ether_type, &packet));
    }

    #[test]
    fn mutations_of_the_table_have_an_answer(
        case in any::<prop::sample::Index>(),
        changes in vec((any::<prop::sample::Index>(), any::<u8>()), 0..6),
        cut in prop::option::of(any::<prop::sample::Index>()),
        tail in vec(any::<u8>(), 0..12),
    ) {
        let mut frame = case.get(&TABLE).frame.clone();
        for (at, value) in changes.into_iter().filter(|_| !TABLE.is_empty()) {
            if !frame.is_empty() {
                let at = at.index(frame.len());
                frame[at] = value;
            }
        }
        if let Some(cut) = cut {
            frame.truncate(cut.index(frame.len() + 1));
        }
        frame.extend(tail);
        check(&frame);
    }

    #[test]
    fn usual_packets_with_a_few_changes_have_an_answer(
        is_v4 in any::<bool>(),
        protocol in prop::sample::select(vec![TCP, UDP]),
        (flags, offset, bytes) in (any::<u8>(), 4..8u8, 0..40usize),
        changes in vec((12..60usize, any::<u8>()), 0..3),
    ) {
        let transport = if protocol == TCP { tcp_of(flags, offset, 15 + bytes) } else { udp_of(8 + bytes as u16, 8 + bytes) };
        let mut frame =
            if is_v4 { V4::default().frame(protocol, &transport) } else { V6::default().frame(protocol, &transport) };
        for (at, value) in changes {
            if let Some(byte) = frame.get_mut(at) {
                *byte = value;
            }
        }
        check(&frame);
    }

    #[test]
    fn later_fragments_say_nothing_but_their_source(
        offset in 1..0x2000u16,
        flags in 0..8u16,
        words in 0..=10usize,
        protocol in any::<u8>(),
        payload in vec(any::<u8>(), 0..80),
    ) {
        let v4 = V4 { fragment: flags << 13 | offset, options: vec![1; words * 4], ..V4::default() };
        prop_assert_eq!(class_and_finding(&v4.frame(protocol, &payload)), (Class::Fragment, Reason::Passed));
    }

    #[test]
    fn later_fragments_of_ipv6_say_nothing_but_their_source(
        extensions in vec(any_extension(), 0..8),
        offset in 1..0x2000u16,
        more in any::<bool>(),
        protocol in any::<u8>(),
        payload in vec(any::<u8>(), 0..80),
    ) {
        let mut extensions = extensions;
        extensions.push(fragment_header(offset, more));
        let frame = V6::with(extensions).frame(protocol, &payload);
        prop_assert_eq!(class_and_finding(&frame), (Class::Fragment, Reason::Passed));
    }

    #[test]
    fn extension_headers_hide_nothing(
        extensions in vec(any_extension(), 0..=8),
        flags in any::<u8>(),
        (offset, bytes) in (0..16u8, 0..64usize),
    ) {
        let segment = tcp_of(flags, offset, bytes);
        let bare = class_and_finding(&V6::default().frame(TCP, &segment));
        prop_assert_eq!(class_and_finding(&V6::with(extensions).frame(TCP, &segment)), bare);
    }

    #[test]
    fn both_families_judge_a_datagram_alike(length in 0..64u16, bytes in 0..64usize) {
        let datagram = udp_of(length, bytes);
        let expected = if bytes >= 8 && usize::from(length) == bytes { Reason::Passed } else { Reason::MalformedUdp };
        prop_assert_eq!(class_and_finding(&V4::default().frame(UDP, &datagram)), (Class::Udp, expected));
        prop_assert_eq!(class_and_finding(&V6::default().frame(UDP, &datagram)), (Class::Udp, expected));
    }

    #[test]
    fn checksums_ports_and_identities_change_nothing(noise in any::<[u8; 8]>(), case in any::<prop::sample::Index>()) {
        let case = case.get(&TABLE);
        let is_plain = matches!(case.frame.get(12..15), Some([0x08, 0x00, 0x45]))
            && case.frame.len() >= 54
            && case.frame[20] & 0x1f == 0
            && case.frame[23] == TCP;
        if is_plain {
            let mut frame = case.frame.clone();
            // Identity and header checksum; ports; TCP checksum.
            frame[18..20].copy_from_slice(&noise[..2]);
            frame[24..26].copy_from_slice(&noise[2..4]);
            frame[34..38].copy_from_slice(&noise[4..]);
            frame[50..52].copy_from_slice(&noise[..2]);
            prop_assert_eq!(parsed(&frame), case.expected);
        }
    }
}

//! Signatures: what each field means on real frames, and the compiled table against its definition on random ones.

#![allow(clippy::unwrap_used, reason = "tests panic")]

use floodwall_common::class::Family;
use floodwall_common::clock::Moment;
use floodwall_common::lists::FOREVER;
use floodwall_common::packet::fast::rest;
use floodwall_common::packet::{Frame, Parsed, parse};
use floodwall_common::reason::Reason;
use floodwall_common::signatures::table::{Table, TooManyWindows};
use floodwall_common::signatures::{
    Action, Fragment, Layout, Range, Record, SIGNATURES, Shape, SignatureState, TcpOption, Traits, WINDOWS, lay,
};
use proptest::prelude::*;

use support::cases;
use support::frames::{
    ACK, DESTINATION_OPTIONS, ICMP, ICMPV6, MORE, SYN, TCP, UDP, V4, V6, extension, fragment_header, icmp, tcp, tcp_of,
    udp, udp_of,
};

mod support;

const NOW: Moment = Moment::from_ns(1_000_000);

fn zeroed() -> Box<Table> {
    // SAFETY: integers only: all zero is a value, the table of no signature.
    unsafe { Box::<Table>::new_zeroed().assume_init() }
}

fn record(shape: Shape, action: Action, until_ns: u64) -> Record {
    Record { shape, action: action as u64, until_ns, name: [b'x'; 32], ..Record::NONE }
}

fn compile(records: &[Record]) -> (Box<Table>, SignatureState) {
    let mut all = [Record::NONE; SIGNATURES];
    all[..records.len()].copy_from_slice(records);
    let mut table = zeroed();
    let state = table.compile(&all, 0).unwrap();
    (table, state)
}

/// Whether it is dropped, and the numbers that were hit.
fn judge(table: &Table, state: SignatureState, frame: &[u8]) -> (bool, Vec<usize>) {
    let mut hits = Vec::new();
    let is_dropped = table.judge(|| Frame::new(frame), state.words(), NOW, |number| hits.push(number));
    (is_dropped, hits)
}

/// By the definition, one after the other.
fn expected(records: &[Record], frame: &[u8]) -> (bool, Vec<usize>) {
    let Some(packet) = Traits::read(Frame::new(frame)) else {
        return (false, vec![]);
    };
    let live = |record: &Record| record.is_some() && record.until_ns > NOW.ns() && record.shape.suits(&packet);
    let of = |action: Action| {
        let suits = move |(_, record): &(usize, &Record)| record.action == action as u64 && live(record);
        records.iter().enumerate().filter(suits).map(|(number, _)| number)
    };
    let dropping = of(Action::Drop).next();
    (dropping.is_some(), of(Action::Count).chain(dropping).collect())
}

fn suits(shape: Shape, frame: &[u8]) -> bool {
    let by_definition = Traits::read(Frame::new(frame)).is_some_and(|packet| shape.suits(&packet));
    let (table, state) = compile(&[record(shape, Action::Drop, FOREVER)]);
    assert_eq!(judge(&table, state, frame).0, by_definition, "{shape:?} {frame:02x?}");
    by_definition
}

fn range(first: u16, last: u16) -> Range {
    Range { first, last }
}

fn layout(options: &[TcpOption]) -> Layout {
    options.iter().fold(0, |layout, option| lay(layout, *option))
}

/// A SYN with these bytes of options, a multiple of four.
fn syn_with(options: &[u8]) -> Vec<u8> {
    let mut segment = tcp_of(SYN, 5 + (options.len() / 4) as u8, 20);
    segment.extend(options);
    segment
}

#[test]
fn a_field_suits_what_it_names_and_nothing_else() {
    let (v4, v6) = (V4::default(), V6::default());
    let frame = v4.frame(UDP, &udp(100));
    let any = Shape::ANY;
    // 20 + 8 + 100 bytes, from port 40,000 to 53.
    let cases = [
        (Shape { protocol: 17, ..any }, Shape { protocol: 6, ..any }),
        (Shape { families: 1, ..any }, Shape { families: 2, ..any }),
        (Shape { source_ports: range(40_000, 40_000), ..any }, Shape { source_ports: range(40_001, 65_535), ..any }),
        (Shape { destination_ports: range(0, 53), ..any }, Shape { destination_ports: range(54, 60), ..any }),
        (Shape { lengths: range(128, 128), ..any }, Shape { lengths: range(129, 200), ..any }),
        (Shape { lengths: range(0, 128), ..any }, Shape { lengths: range(0, 127), ..any }),
        (Shape { hops: range(64, 64), ..any }, Shape { hops: range(65, 255), ..any }),
        (Shape { fragments: 1, ..any }, Shape { fragments: 6, ..any }),
    ];
    for (right, wrong) in cases {
        assert!(suits(right, &frame) && !suits(wrong, &frame), "{right:?}");
    }
    let frame = v6.frame(UDP, &udp(100));
    assert!(suits(Shape { lengths: range(148, 148), families: 2, hops: range(64, 64), ..any }, &frame));
    let behind = V6::with(vec![extension(DESTINATION_OPTIONS, 0)]).frame(UDP, &udp(4));
    assert!(suits(Shape { protocol: 17, destination_ports: range(53, 53), ..any }, &behind));
}

#[test]
fn flags_and_layouts_are_of_tcp_and_exact() {
    use TcpOption::{Bad, End, Mss, Nop, Other, Sack, Timestamps, WindowScale};
    let v4 = V4::default();
    let syn = Shape { flags: SYN, flags_mask: SYN | ACK, ..Shape::ANY };
    assert!(suits(syn, &v4.frame(TCP, &tcp(SYN))));
    assert!(!suits(syn, &v4.frame(TCP, &tcp(SYN | ACK))) && !suits(syn, &v4.frame(UDP, &udp(40))));
    let mut timestamps = vec![8, 10];
    timestamps.extend([7; 8]);
    let linux = [&[2, 4, 5, 0xb4, 4, 2][..], &timestamps, &[1, 3, 3, 7]].concat();
    let full = [1; 40];
    let cases = [
        (linux, layout(&[Mss, Sack, Timestamps, Nop, WindowScale])),
        (vec![], 0),
        (vec![1, 1, 1, 0], layout(&[Nop, Nop, Nop, End])),
        (vec![2, 4, 5, 0xb4, 1, 1, 1, 1], layout(&[Mss, Nop, Nop, Nop, Nop])),
        (vec![77, 4, 0, 0], layout(&[Other])),
        (vec![2, 4, 5, 0xb4, 3, 0, 1, 1], layout(&[Mss, Bad])),
        (vec![1, 1, 1, 2], layout(&[Nop, Nop, Nop, Bad])),
        (vec![2, 9, 5, 0xb4], layout(&[Bad])),
        (full[..12].to_vec(), layout(&[Nop; 12])),
    ];
    for (options, layout) in &cases {
        let frame = v4.frame(TCP, &syn_with(options));
        for (_, other) in &cases {
            let shape = Shape { layout: *other, asks_layout: 1, ..Shape::ANY };
            assert_eq!(suits(shape, &frame), other == layout, "{options:?} as {other:x}");
        }
    }
    let fifteen = Shape { layout: layout(&[Nop; 15]), asks_layout: 1, ..Shape::ANY };
    assert!(!suits(fifteen, &v4.frame(TCP, &syn_with(&full))), "forty are not fifteen");
    assert!(!suits(fifteen, &v4.frame(TCP, &syn_with(&full[..16]))), "nor are sixteen");
    let ends = [&full[..14], &[0, 0]].concat();
    assert!(!suits(fifteen, &v4.frame(TCP, &syn_with(&ends))), "the last one is another");
}

#[test]
fn fragments_are_told_and_later_ones_have_no_ports() {
    let whole = V4::default().frame(UDP, &udp(24));
    let first = V4 { fragment: MORE, ..V4::default() }.frame(UDP, &udp_of(2_000, 32));
    let later = V4 { fragment: 100, ..V4::default() }.frame(UDP, &[0; 32]);
    let first_v6 = V6::with(vec![fragment_header(0, true)]).frame(UDP, &udp_of(2_000, 32));
    let later_v6 = V6::with(vec![fragment_header(100, true)]).frame(UDP, &[0; 32]);
    for (frames, is) in [
        ([&whole, &V6::default().frame(UDP, &udp(24))], Fragment::None),
        ([&first, &first_v6], Fragment::First),
        ([&later, &later_v6], Fragment::Later),
    ] {
        for frame in frames {
            for kind in Fragment::ALL {
                let shape = Shape { fragments: 1 << *kind as u8, protocol: 17, ..Shape::ANY };
                assert_eq!(suits(shape, frame), *kind == is, "{kind:?} of {is:?}");
            }
            let ports = Shape { source_ports: range(1, 65_535), ..Shape::ANY };
            assert_eq!(suits(ports, frame), is != Fragment::Later);
        }
    }
}

#[test]
fn payloads_are_compared_inside_the_packet_only() {
    let v4 = V4::default();
    let payload = |bytes: &[u8], offset, mask: u64| Shape {
        payload: bytes.iter().enumerate().fold(0, |word, (place, byte)| word | u64::from(*byte) << (56 - 8 * place)),
        payload_mask: mask,
        payload_offset: offset,
        ..Shape::ANY
    };
    let mut datagram = udp_of(8 + 12, 8);
    datagram.extend([0xd9, 0xff, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10]);
    let frame = v4.frame(UDP, &datagram);
    let first = |bytes: u32| u64::MAX << (64 - 8 * bytes);
    assert!(suits(payload(&[0xd9, 0xff], 0, first(2)), &frame));
    assert!(suits(payload(&[0xd9, 0, 1], 0, 0x00ff_00ff << 40), &frame), "one of them may be any");
    assert!(suits(payload(&[9, 10], 10, first(2)), &frame), "to the last byte");
    assert!(!suits(payload(&[10, 0], 11, first(2)), &frame), "and not behind it");
    assert!(!suits(payload(&[0xd9, 0xfe], 0, first(2)), &frame));
    let mut padded = frame.clone();
    padded.extend([0; 20]);
    assert!(!suits(payload(&[10, 0], 11, first(2)), &padded), "padding is no payload");
    let mut segment = syn_with(&[2, 4, 5, 0xb4]);
    segment.extend(b"GET / HTTP");
    assert!(suits(payload(b"GET ", 0, first(4)), &v4.frame(TCP, &segment)), "behind the options");
    assert!(suits(payload(&[8], 0, first(1)), &v4.frame(ICMP, &icmp(8))), "of ICMP the type is the first byte");
    assert!(suits(payload(&[128], 0, first(1)), &V6::default().frame(ICMPV6, &icmp(128))));
}

#[test]
fn all_that_count_hear_of_a_packet_and_the_first_that_drops() {
    let udp_only = Shape { protocol: 17, ..Shape::ANY };
    let other = Shape { protocol: 6, ..Shape::ANY };
    let records = [
        record(udp_only, Action::Drop, NOW.ns()),
        record(udp_only, Action::Count, NOW.ns()),
        record(other, Action::Drop, FOREVER),
        record(udp_only, Action::Drop, NOW.ns() + 1),
        record(udp_only, Action::Count, FOREVER),
        record(udp_only, Action::Drop, FOREVER),
        record(udp_only, Action::Count, FOREVER),
    ];
    let frame = V4::default().frame(UDP, &udp(4));
    let (table, state) = compile(&records);
    assert_eq!(judge(&table, state, &frame), (true, vec![4, 6, 3]), "the first two have ended");
    let (table, state) = compile(&[records[1], records[4]]);
    assert_eq!(judge(&table, state, &frame), (false, vec![1]));
    let mut last = [Record::NONE; SIGNATURES];
    last[255] = records[5];
    let (table, state) = compile(&last);
    assert_eq!((judge(&table, state, &frame), state.words()), ((true, vec![255]), 4));
    assert_eq!(compile(&[]).1, SignatureState::default());
}

#[test]
fn the_quick_answer_denies_what_differs_in_one_field() {
    let udp_to = |port: u16, data: &[u8]| {
        let mut datagram = udp_of(8 + data.len() as u16, 8);
        datagram[2..4].copy_from_slice(&port.to_be_bytes());
        datagram.extend(data);
        V4::default().frame(UDP, &datagram)
    };
    let shape = Shape { protocol: 17, destination_ports: range(53, 53), ..Shape::ANY };
    let query = Shape { payload: 0xab << 56, payload_mask: 0xff << 56, ..shape };
    let long = Shape { lengths: range(1_000, 2_000), ..shape };
    let (table, _) = compile(&[record(query, Action::Drop, FOREVER), record(long, Action::Drop, FOREVER)]);
    let may_suit = |frame: &[u8]| table.may_suit(&rest(Frame::new(frame)).unwrap());
    assert!(may_suit(&udp_to(53, &[0xab; 20])));
    assert!(may_suit(&udp_to(53, &[0xab])), "too short to be looked at");
    assert!(!may_suit(&udp_to(53, &[0xac; 20])) && !may_suit(&udp_to(54, &[0xab; 20])));
    assert!(may_suit(&udp_to(53, &[0; 1_200])) && !may_suit(&udp_to(53, &[0; 1_990])), "by its length");
    assert!(!may_suit(&V4::default().frame(TCP, &tcp(SYN))));
}

#[test]
fn eight_ways_to_look_at_payloads_fit_and_nine_do_not() {
    let shape = |place: usize| Shape { payload_mask: 0xff << 56, payload_offset: place as u8, ..Shape::ANY };
    let mut records = [Record::NONE; SIGNATURES];
    for (place, slot) in records.iter_mut().take(200).enumerate() {
        // As many values as there are signatures, under eight ways.
        let value = (place as u64) << 56;
        *slot = record(Shape { payload: value, ..shape(place % WINDOWS) }, Action::Drop, FOREVER);
    }
    let mut table = zeroed();
    let state = table.compile(&records, 1).unwrap();
    assert_eq!((state.bank(), state.words()), (1, 4));
    for place in 0..200u8 {
        let mut datagram = udp_of(8 + 8, 8);
        datagram.extend([0xff; 8]);
        datagram[8 + usize::from(place) % WINDOWS] = place;
        let frame = V4::default().frame(UDP, &datagram);
        assert_eq!(judge(&table, state, &frame), (true, vec![usize::from(place)]));
    }
    records[200] = record(shape(WINDOWS), Action::Drop, FOREVER);
    assert_eq!(zeroed().compile(&records, 0), Err(TooManyWindows));
}

/// Ends of ranges that meet.
fn any_range(highest: u16) -> impl Strategy<Value = Range> {
    let end = prop_oneof![Just(0), Just(53), Just(54), Just(80), Just(128), 0..=highest, Just(highest)];
    let ends = (end.clone(), end).prop_map(|(a, b)| range(a.min(b), a.max(b)));
    prop_oneof![2 => Just(Range::ANY), 3 => ends]
}

fn any_layout() -> impl Strategy<Value = Layout> {
    let option = prop::sample::select(TcpOption::ALL);
    prop::collection::vec(option, 0..6).prop_map(|options| layout(&options))
}

prop_compose! {
    fn any_shape()(
        protocol in prop::sample::select(&[Shape::ANY_PROTOCOL, Shape::ANY_PROTOCOL, 6, 17, 1, 58, 132][..]),
        families in prop::sample::select(&[1u8, 2, 3, 3][..]),
        fragments in prop::sample::select(&[1u8, 2, 4, 3, 7, 7, 7][..]),
        flags in any::<u8>(),
        flags_mask in prop::sample::select(&[0u8, 0, SYN, SYN | ACK, 0xff][..]),
        asks_layout in 0..2u8,
        layout in any_layout(),
        source_ports in any_range(u16::MAX),
        destination_ports in any_range(u16::MAX),
        lengths in any_range(u16::MAX),
        hops in any_range(255),
        payload in any::<u64>(),
        payload_mask in prop::sample::select(&[0u64, 0, 0xff << 56, 0xf0ff << 48, u64::MAX][..]),
        payload_offset in 0..2u8,
        keep in any::<u16>(),
    ) -> Shape {
        // Few fields at a time, else nothing ever suits.
        let all = Shape {
            protocol, families, fragments, flags: flags & flags_mask, flags_mask, asks_layout, payload_offset,
            source_ports, destination_ports, lengths, hops, layout, payload: payload & payload_mask, payload_mask,
        };
        let mut shape = Shape::ANY;
        let kept = |bit: u32| keep >> bit & 1 == 1 && keep >> (bit + 8) & 1 == 1;
        if kept(0) { shape.protocol = all.protocol; }
        if kept(1) { (shape.families, shape.fragments) = (all.families, all.fragments); }
        if kept(2) { (shape.flags, shape.flags_mask) = (all.flags, all.flags_mask); }
        if kept(3) { (shape.layout, shape.asks_layout) = (all.layout, all.asks_layout); }
        if kept(4) { shape.source_ports = all.source_ports; }
        if kept(5) { shape.destination_ports = all.destination_ports; }
        if kept(6) { (shape.lengths, shape.hops) = (all.lengths, all.hops); }
        if kept(7) {
            (shape.payload, shape.payload_mask) = (all.payload, all.payload_mask);
            shape.payload_offset = all.payload_offset;
        }
        shape
    }
}

fn any_options() -> impl Strategy<Value = Vec<u8>> {
    let kind = prop::sample::select(&[0u8, 1, 1, 2, 3, 4, 5, 8, 19, 29, 30, 34, 77][..]);
    let option = (kind, prop::sample::select(&[0u8, 2, 3, 4, 4, 10][..])).prop_map(|(kind, length)| {
        let mut bytes = vec![kind];
        if kind > 1 {
            bytes.push(length);
            bytes.resize(usize::from(length.max(2)), 0);
        }
        bytes
    });
    prop::collection::vec(option, 0..12).prop_map(|options| {
        let mut bytes = options.concat();
        bytes.resize(bytes.len().next_multiple_of(4), 0);
        bytes.truncate(40);
        bytes
    })
}

prop_compose! {
    /// A frame of any class, whole or cut.
    fn any_frame()(
        is_v4 in any::<bool>(),
        protocol in prop::sample::select(&[TCP, TCP, UDP, UDP, ICMP, ICMPV6, 132][..]),
        fragment in prop::sample::select(&[0u16, 0, 0, MORE, 100, MORE | 7][..]),
        ports in prop::sample::select(&[(53u16, 53u16), (54, 80), (80, 53), (1, 65_535), (0, 128)][..]),
        flags in prop::sample::select(&[SYN, SYN, ACK, SYN | ACK, 0x18, 0][..]),
        hops in prop::sample::select(&[0u8, 1, 53, 54, 128, 255][..]),
        options in any_options(),
        data in prop::collection::vec(any::<u8>(), 0..120),
        mutation in prop::option::weighted(0.3, (0..90usize, any::<u8>())),
        cut in prop::option::weighted(0.2, 0..150usize),
    ) -> Vec<u8> {
        let mut transport = match protocol {
            TCP => [tcp_of(flags, 5 + (options.len() / 4) as u8, 20), options].concat(),
            UDP => udp_of(8 + data.len() as u16, 8),
            _ => icmp(8),
        };
        transport[..2].copy_from_slice(&ports.0.to_be_bytes());
        transport[2..4].copy_from_slice(&ports.1.to_be_bytes());
        transport.extend(data);
        let mut frame = if is_v4 {
            V4 { fragment, ..V4::default() }.frame(protocol, &transport)
        } else if fragment == 0 {
            V6::default().frame(protocol, &transport)
        } else {
            V6::with(vec![fragment_header(fragment & 0x1fff, fragment & MORE != 0)]).frame(protocol, &transport)
        };
        frame[if is_v4 { 22 } else { 21 }] = hops;
        if let Some((at, byte)) = mutation && at < frame.len() {
            frame[at] = byte;
        }
        frame.truncate(cut.unwrap_or(usize::MAX).max(14));
        frame
    }
}

/// Kind of what reaches signatures.
fn is_asked(shape: &Shape, frame: &[u8]) -> bool {
    match parse(Frame::new(frame)) {
        Parsed::Settled(..) => true,
        Parsed::Packet(packet) => shape.kinds() >> packet.kind.index() & 1 == 1,
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn the_table_says_what_the_definitions_say(
        shapes in prop::collection::vec((any_shape(), any::<bool>(), 0..8u8), 1..SIGNATURES),
        frames in prop::collection::vec(any_frame(), 40),
    ) {
        let mut records: Vec<_> = shapes.iter().map(|(shape, drops, ends)| {
            let action = if *drops { Action::Drop } else { Action::Count };
            record(*shape, action, if *ends == 0 { NOW.ns() } else { FOREVER })
        }).collect();
        // The masks and offsets above are six ways to look at payloads: there is room for them.
        records.iter_mut().filter(|record| record.shape.is_any()).for_each(|record| *record = Record::NONE);
        let (table, state) = compile(&records);
        for frame in &frames {
            prop_assert_eq!(judge(&table, state, frame), expected(&records, frame), "{:02x?}", frame);
        }
    }

    #[test]
    fn the_quick_answer_never_denies_what_suits(
        shapes in prop::collection::vec(any_shape(), 1..40),
        frames in prop::collection::vec(any_frame(), 60),
    ) {
        let records: Vec<_> = shapes.iter().map(|shape| record(*shape, Action::Drop, FOREVER)).collect();
        let (table, _) = compile(&records);
        for frame in frames.iter().map(|frame| Frame::new(frame)) {
            let (Some(rest), Some(packet)) = (rest(frame), Traits::read(frame)) else { continue };
            let suits = shapes.iter().any(|shape| shape.suits(&packet));
            prop_assert!(!suits || table.may_suit(&rest), "{:?}", shapes);
        }
    }

    #[test]
    fn the_kinds_of_a_signature_hold_all_that_it_suits(shape in any_shape(), frames in prop::collection::vec(any_frame(), 60)) {
        for frame in frames {
            let suits = Traits::read(Frame::new(&frame)).is_some_and(|packet| shape.suits(&packet));
            prop_assert!(!suits || is_asked(&shape, &frame), "{:02x?}", frame);
        }
    }
}

#[test]
fn every_cut_of_every_frame_is_read_without_a_word_about_what_is_wrong() {
    let mut read = 0;
    for case in cases::all() {
        for bytes in 0..case.frame.len().min(200) {
            let (readable, frame) = (&case.frame[..bytes], Frame::cut(&case.frame[..bytes], case.frame.len() as u32));
            for packet in [Traits::read(Frame::new(readable)), Traits::read(frame)].into_iter().flatten() {
                let _ = (packet.ports(), packet.flags(), packet.layout());
                read += 1;
            }
        }
        let packet = Traits::read(Frame::new(&case.frame));
        if let Parsed::Packet(parsed) = case.expected {
            let is_broken = matches!(parsed.finding, Reason::MalformedIp | Reason::ExtensionDepth);
            assert_eq!(packet.is_some(), !is_broken, "{}", case.name);
            let family = packet.map(|packet| packet.family);
            assert!(family.is_none() || family == parsed.kind.parts().map(|(family, _)| family), "{}", case.name);
        }
    }
    assert!(read > 1_000, "{read} say little");
    assert!(Family::ALL.len() == 2);
}

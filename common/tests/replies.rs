//! What is a reply, and to what: the conversation that a sent frame begins is the one that its reply names, for both
//! families, behind tags, options and extension headers; what is no reply is let alone.

#![allow(clippy::unwrap_used, reason = "tests panic")]

use floodwall_common::cookie::plain_tcp;
use floodwall_common::packet::Frame;
use floodwall_common::replies::{AMPLIFIERS, Conversation, PortSet};

use support::frames::{
    ACK, DESTINATION_OPTIONS, FIN, ICMP, ICMPV6, IPV4, MORE, RST, SYN, TCP, UDP, V4, V6, extension, tagged, tcp, udp,
};

mod support;

const WE: [u8; 4] = [10, 0, 0, 1];
const THEY: [u8; 4] = [198, 51, 100, 53];

fn v4(source: [u8; 4], destination: [u8; 4]) -> V4 {
    V4 { source, destination, ..V4::default() }
}

fn address(of: [u8; 4]) -> [u8; 16] {
    [0x20, 1, 0xd, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, of[0], of[1], of[2], of[3]]
}

fn v6(source: [u8; 4], destination: [u8; 4]) -> V6 {
    V6 { source: address(source), destination: address(destination), ..V6::default() }
}

fn from(mut payload: Vec<u8>, source: u16, destination: u16) -> Vec<u8> {
    payload[..2].copy_from_slice(&source.to_be_bytes());
    payload[2..4].copy_from_slice(&destination.to_be_bytes());
    payload
}

fn amplifiers() -> PortSet {
    let mut ports = PortSet::empty();
    AMPLIFIERS.iter().for_each(|(port, _)| ports.set(*port, true));
    ports
}

fn sent(frame: &[u8]) -> Option<Conversation> {
    Conversation::of_sent(Frame::new(frame))
}

fn replied(frame: &[u8]) -> Option<Conversation> {
    Conversation::of_reply(Frame::new(frame), &amplifiers())
}

/// An ICMP error of this type that quotes a packet.
fn error(kind: u8, quoted: &[u8]) -> Vec<u8> {
    [&[kind, 0, 0, 0, 0, 0, 0, 0], &quoted[..quoted.len().min(60)]].concat()
}

fn echo(kind: u8, identifier: u16) -> Vec<u8> {
    let [high, low] = identifier.to_be_bytes();
    vec![kind, 0, 0, 0, high, low, 0, 1]
}

/// What answers nothing is answered with a reset. Were that remembered, it would have been asked for when it comes again.
#[test]
fn a_reset_begins_nothing() {
    for flags in [RST, RST | ACK] {
        let reset = from(tcp(flags), 40_000, 443);
        assert_eq!(sent(&v4(WE, THEY).frame(TCP, &reset)), None);
        assert_eq!(sent(&v6(WE, THEY).frame(TCP, &reset)), None);
    }
    assert!(sent(&v4(WE, THEY).frame(TCP, &from(tcp(FIN | ACK), 40_000, 443))).is_some());
}

#[test]
fn a_reply_names_what_was_sent() {
    let (query, answer) = (from(udp(30), 40_000, 53), from(udp(200), 53, 40_000));
    let (syn, syn_ack, reset) =
        (from(tcp(SYN), 40_000, 443), from(tcp(SYN | ACK), 443, 40_000), from(tcp(RST), 443, 40_000));
    let options = |packet: V4| V4 { options: vec![1; 8], ..packet };
    let extended = |packet: V6| V6 { extensions: vec![extension(DESTINATION_OPTIONS, 1)], ..packet };
    for (asked, reply) in [(&query, &answer), (&syn, &syn_ack), (&syn, &reset)] {
        let protocol = if asked == &query { UDP } else { TCP };
        let out4 = v4(WE, THEY).frame(protocol, asked);
        let out6 = v6(WE, THEY).frame(protocol, asked);
        let in4 = [
            v4(THEY, WE).frame(protocol, reply),
            options(v4(THEY, WE)).frame(protocol, reply),
            tagged(&[0x88a8, 0x8100], IPV4, &v4(THEY, WE).packet(protocol, reply)),
            V4 { fragment: MORE, ..v4(THEY, WE) }.frame(protocol, reply),
        ];
        let in6 = [v6(THEY, WE).frame(protocol, reply), extended(v6(THEY, WE)).frame(protocol, reply)];
        for frame in &in4 {
            assert_eq!(replied(frame), Some(sent(&out4).unwrap()));
        }
        for frame in &in6 {
            assert_eq!(replied(frame), Some(sent(&out6).unwrap()));
        }
        let elsewhere = v4([198, 51, 100, 54], WE).frame(protocol, reply);
        assert_ne!(replied(&elsewhere).unwrap(), sent(&out4).unwrap());
    }
}

#[test]
fn an_icmp_error_names_what_it_quotes() {
    const SCTP: u8 = 132;
    const ESP: u8 = 50;
    let udp_and_tcp = [(UDP, from(udp(30), 40_000, 53)), (TCP, from(tcp(ACK), 443, 50_000))];
    for (protocol, payload) in udp_and_tcp.into_iter().chain([(SCTP, vec![7; 12]), (ESP, vec![1, 2, 3])]) {
        let (out4, out6) = (v4(WE, THEY), v6(WE, THEY));
        // From a router on the way, not from the peer.
        for kind in [3, 4, 11, 12] {
            let error = v4([192, 0, 2, 1], WE).frame(ICMP, &error(kind, &out4.packet(protocol, &payload)));
            assert_eq!(replied(&error), sent(&out4.frame(protocol, &payload)), "type {kind}");
        }
        for kind in [1, 3, 4] {
            let error = v6([192, 0, 2, 1], WE).frame(ICMPV6, &error(kind, &out6.packet(protocol, &payload)));
            assert_eq!(replied(&error), sent(&out6.frame(protocol, &payload)), "type {kind}");
        }
    }
    let echo_sent = sent(&v4(WE, THEY).frame(ICMP, &echo(8, 77))).unwrap();
    assert_eq!(replied(&v4(THEY, WE).frame(ICMP, &echo(0, 77))), Some(echo_sent));
    assert_ne!(replied(&v4(THEY, WE).frame(ICMP, &echo(0, 78))), Some(echo_sent));
    let echo_sent = sent(&v6(WE, THEY).frame(ICMPV6, &echo(128, 77))).unwrap();
    assert_eq!(replied(&v6(THEY, WE).frame(ICMPV6, &echo(129, 77))), Some(echo_sent));
}

#[test]
fn an_error_that_quotes_nothing_answers_nothing() {
    for quoted in [vec![], vec![0x45; 12], V4 { fragment: 5, ..v4(WE, THEY) }.packet(UDP, &udp(8)), vec![0xff; 60]] {
        let frame = v4(THEY, WE).frame(ICMP, &error(3, &quoted));
        let claimed = replied(&frame).unwrap();
        assert_eq!((claimed.protocol, claimed.ports), (0, (0, 0)), "{quoted:02x?}");
    }
}

#[test]
fn what_is_no_reply_is_let_alone() {
    let none = [
        v4(THEY, WE).frame(UDP, &from(udp(10), 40_000, 53)),
        v4(THEY, WE).frame(TCP, &from(tcp(SYN), 443, 40_000)),
        v4(THEY, WE).frame(TCP, &from(tcp(ACK), 443, 40_000)),
        v4(THEY, WE).frame(TCP, &from(tcp(FIN | ACK), 443, 40_000)),
        v4(THEY, WE).frame(ICMP, &echo(8, 7)),
        v6(THEY, WE).frame(ICMPV6, &echo(128, 7)),
        v6(THEY, WE).frame(ICMPV6, &error(2, &[])),
        V4 { fragment: 3, ..v4(THEY, WE) }.frame(UDP, &from(udp(10), 53, 40_000)),
        v4(THEY, WE).frame(47, &[0; 20]),
        vec![0; 60],
    ];
    for frame in &none {
        assert_eq!(replied(frame), None, "{frame:02x?}");
    }
    for reply in [v4(WE, THEY).frame(ICMP, &echo(0, 7)), v4(WE, THEY).frame(ICMP, &error(3, &[0x45; 40]))] {
        assert_eq!(sent(&reply), None, "nobody answers an answer");
    }
}

#[test]
fn any_bytes_have_an_answer() {
    let mut random = support::limiter::Random(7);
    for case in support::cases::all() {
        let mut frame = case.frame;
        for _ in 0..8 {
            let length = random.below(frame.len() as u64 + 1) as usize;
            let _ = (sent(&frame[..length]), replied(&frame[..length]));
            if !frame.is_empty() {
                let at = random.below(frame.len() as u64) as usize;
                frame[at] = random.next() as u8;
            }
        }
    }
}

#[test]
fn a_plain_segment_is_of_the_conversation_that_is_read_of_it() {
    let segment = from(tcp(ACK), 40_000, 443);
    let (v4, v6) = (v4(THEY, WE).frame(TCP, &segment), v6(THEY, WE).frame(TCP, &segment));
    let read = |frame: &[u8]| Conversation::of_received(Frame::new(frame));
    assert_eq!(plain_tcp::<54>(Frame::new(&v4)).map(Conversation::of_plain), read(&v4));
    assert_eq!(plain_tcp::<74>(Frame::new(&v6)).map(Conversation::of_plain), read(&v6));
    assert!(plain_tcp::<74>(Frame::new(&v4)).is_none() && plain_tcp::<54>(Frame::new(&v6)).is_none());
}

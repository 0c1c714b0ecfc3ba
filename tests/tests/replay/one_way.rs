//! Captures of one direction, from the first packet on: nothing that the host sends is seen, and nobody knows what is usual. A flood
//! is told by its structure alone, and what only comes one way is none for that.

use std::ops::Range;

use floodwall::detect::{Vector, Verdict};
use floodwall_tests::captures::made::{Made, Random};
use floodwall_tests::captures::packets::{ACK, Ends, ICMP, LATER, Segment, TCP, UDP, tcp, udp};

use super::{Seen, normal, pool, to_host};

const DURING: Range<f64> = 0.0..3.0;
/// More fragments follow.
const FIRST: u16 = 0x2000;

/// What a flood sends.
type Packet = (Ends, u8, u16, Vec<u8>);

/// It is told within a second, however many there are.
fn is_told(vector: Vector, packet: impl Fn(&mut Random) -> Packet) {
    for per_second in [3_000.0, 20_000.0] {
        let mut made = Made::new(51);
        made.flood(DURING, per_second, &packet);
        let seen = Seen::of_made(made);
        let first = seen.first(Verdict::Attack).ok_or_else(|| seen.told()).unwrap();
        assert_eq!(first.vector, Some(vector.label()), "{}", seen.told());
        assert!(first.t <= 1.0, "{per_second}: {}", seen.told());
    }
}

/// Data that begins as it comes.
fn data(ports: (u16, u16), bytes: usize, random: &mut Random) -> Vec<u8> {
    let mut datagram = udp(ports, bytes);
    datagram[8..16].copy_from_slice(&random.bits().to_be_bytes());
    datagram
}

#[test]
fn udp_of_a_few_machines_to_any_port() {
    let bots = pool(15);
    is_told(Vector::UdpFlood, |random| {
        let ports = (random.port(), random.port());
        (to_host(random.one_of(&bots), 57), UDP, 0, data(ports, 1_000, random))
    });
}

#[test]
fn udp_of_one_program_to_one_port() {
    is_told(Vector::UdpFlood, |random| (to_host(random.address(), 57), UDP, 0, udp((random.port(), 80), 512)));
}

#[test]
fn udp_in_fragments_to_any_port() {
    let bots = pool(200);
    is_told(Vector::UdpFlood, |random| {
        let ends = to_host(random.one_of(&bots), 57);
        match random.part() < 0.5 {
            true => (ends, UDP, FIRST, udp((random.port(), random.port()), 1_472)),
            false => (ends, UDP, LATER, vec![b'd'; 1_000]),
        }
    });
}

#[test]
fn segments_of_connections_that_never_were() {
    let bots = pool(200);
    is_told(Vector::TcpFlood, |random| {
        let segment = Segment { ports: (random.port(), 80), flags: ACK, ..Segment::default() };
        (to_host(random.one_of(&bots), 57), TCP, 0, tcp(&segment))
    });
}

#[test]
fn large_answers_of_a_few_amplifiers() {
    let amplifiers = pool(15);
    is_told(Vector::Amplification, |random| {
        let ports = (11_211, random.port());
        (to_host(random.one_of(&amplifiers), 57), UDP, 0, data(ports, 1_400, random))
    });
}

#[test]
fn large_pings() {
    is_told(Vector::IcmpFlood, |random| {
        let mut ping = vec![8, 0, 0, 0];
        ping.resize(1_400, 0);
        (to_host(random.address(), 57), ICMP, 0, ping)
    });
}

#[test]
fn packets_of_all_protocols() {
    is_told(Vector::ProtocolFlood, |random| {
        (to_host(random.address(), 57), random.number(70..250) as u8, 0, vec![0; 40])
    });
}

/// Each has a source and a port of its own, and keeps them.
#[test]
fn telephone_calls_are_normal() {
    let mut made = Made::new(61);
    for (call, caller) in pool(60).into_iter().enumerate() {
        let ports = (made.random.port(), 10_000 + 2 * call as u16);
        for packet in 0..150 {
            let at = f64::from(packet) * 0.02 + call as f64 * 0.000_3;
            let payload = data(ports, 172, &mut made.random);
            made.packet(at, to_host(caller, 57), UDP, &payload);
        }
    }
    normal(made);
}

/// Thousands of strangers with a packet each, of one length; what most of them begin with is the same.
#[test]
fn a_time_server_is_normal() {
    let mut made = Made::new(62);
    for question in 0..6_000 {
        let mut asks = udp((made.random.port(), 123), 48);
        let mode = made.random.one_of(&[0x1b, 0x23, 0x23, 0xe3]);
        asks[8..16].copy_from_slice(&[mode, 0, 6, 0xec, 0, 0, 0, 0]);
        let from = made.random.address();
        made.packet(f64::from(question) * 0.000_5, to_host(from, 57), UDP, &asks);
    }
    normal(made);
}

#[test]
fn a_name_server_is_normal() {
    let mut made = Made::new(63);
    for question in 0..6_000 {
        let (port, bytes) = (made.random.port(), made.random.number(25..60));
        let asks = data((port, 53), bytes.into(), &mut made.random);
        let from = made.random.address();
        made.packet(f64::from(question) * 0.000_5, to_host(from, 57), UDP, &asks);
    }
    normal(made);
}

/// Clients of QUIC send more than they get.
#[test]
fn uploads_are_normal() {
    let mut made = Made::new(64);
    for client in pool(100) {
        let port = made.random.port();
        let begins = made.random.between(0.0..0.02);
        for packet in 0..150 {
            let bytes = if made.random.part() < 0.8 { 1_200 } else { made.random.number(30..1_200) };
            let payload = data((port, 443), bytes.into(), &mut made.random);
            made.packet(begins + f64::from(packet) * 0.02, to_host(client, 57), UDP, &payload);
        }
    }
    normal(made);
}

/// A connection goes on with many segments, whether or not it was seen to begin.
#[test]
fn connections_from_before_are_normal() {
    let mut made = Made::new(65);
    for client in pool(300) {
        let port = made.random.port();
        let begins = made.random.between(0.0..0.5);
        for segment in 0..30 {
            let asks = Segment { ports: (port, 443), flags: ACK, data: 200, ..Segment::default() };
            made.segment(begins + f64::from(segment) * 0.08, to_host(client, 57), &asks);
        }
    }
    normal(made);
}

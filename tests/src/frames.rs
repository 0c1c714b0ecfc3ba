//! Frames for the benches and for tests of the loaded filter: those of the parser's own tests, with sources of one's
//! choosing. Built from parts, checksums left zero; what they mean is said in `common/tests`.

use std::net::{Ipv4Addr, Ipv6Addr};

#[path = "../../common/tests/support/frames.rs"]
#[allow(dead_code, reason = "shared with the tests of `common`, which use all of it")]
mod parts;

use parts::{ACK, ICMP, ICMPV6, SYN, TCP, UDP, V4, V6, icmp, tcp, udp};

/// A UDP datagram over IPv4 with so many bytes of data.
pub fn udp_v4(source: Ipv4Addr, data: usize) -> Vec<u8> {
    V4::from(source.octets()).frame(UDP, &udp(data))
}

/// A UDP datagram over IPv6 with so many bytes of data.
pub fn udp_v6(source: Ipv6Addr, data: usize) -> Vec<u8> {
    V6 { source: source.octets(), ..V6::default() }.frame(UDP, &udp(data))
}

/// One frame of each class from an IPv4 source, in the order of the classes.
pub fn classes_v4(source: Ipv4Addr) -> [Vec<u8>; 6] {
    let v4 = V4::from(source.octets());
    let later = V4 { fragment: 100, ..v4.clone() };
    [
        v4.frame(TCP, &tcp(SYN)),
        v4.frame(TCP, &tcp(ACK)),
        v4.frame(UDP, &udp(12)),
        v4.frame(ICMP, &icmp(8)),
        later.frame(UDP, &[0; 24]),
        v4.frame(132, &[0; 24]),
    ]
}

/// One frame of each class from an IPv6 source, in the order of the classes.
pub fn classes_v6(source: Ipv6Addr) -> [Vec<u8>; 6] {
    let v6 = V6 { source: source.octets(), ..V6::default() };
    let later = V6 { extensions: vec![parts::fragment_header(100, false)], ..v6.clone() };
    [
        v6.frame(TCP, &tcp(SYN)),
        v6.frame(TCP, &tcp(ACK)),
        v6.frame(UDP, &udp(12)),
        v6.frame(ICMPV6, &icmp(128)),
        later.frame(UDP, &[0; 24]),
        v6.frame(132, &[0; 24]),
    ]
}

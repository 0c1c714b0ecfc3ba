//! Cases of TCP, UDP and ICMP headers, in both families (lines 12–14 of the list of bad inputs).

use floodwall_common::class::Class;
use floodwall_common::reason::Reason;

use super::super::frames::{ACK, FIN, ICMP, ICMPV6, MORE, RST, SYN, TCP, UDP, V4, V6, icmp, tcp, tcp_of, udp, udp_of};
use super::{Case, packet};

/// FIN, SYN, RST and ACK as TCP sends them; PSH, URG and the congestion bits go with each.
const POSSIBLE: [u8; 6] = [SYN, SYN | ACK, ACK, RST, RST | ACK, FIN | ACK];

pub(super) fn cases() -> Vec<Case> {
    [flags(), bare(), offsets(), cut(), datagrams(), messages()].concat()
}

/// The same payload behind both IP headers.
fn both(name: &str, protocol: u8, payload: &[u8], class: Class, finding: Reason) -> [Case; 2] {
    [
        packet(&format!("v4 {name}"), V4::default().frame(protocol, payload), class, finding),
        packet(&format!("v6 {name}"), V6::default().frame(protocol, payload), class, finding),
    ]
}

fn flags() -> Vec<Case> {
    let of = |flags: u8| {
        let class = if flags & (SYN | ACK) == SYN { Class::TcpSyn } else { Class::Tcp };
        let finding = match POSSIBLE.contains(&(flags & (FIN | SYN | RST | ACK))) {
            true => Reason::Passed,
            false => Reason::ImpossibleFlags,
        };
        both(&format!("flags {flags:#010b}"), TCP, &tcp(flags), class, finding)
    };
    // The two congestion bits as well: a SYN that offers ECN is a SYN.
    (0..=255).flat_map(of).collect()
}

/// SYNs without an option, among them what has another reason as well.
fn bare() -> Vec<Case> {
    let of =
        |flags: u8, finding| both(&format!("bare {flags:#010b}"), TCP, &tcp_of(flags, 5, 20), Class::TcpSyn, finding);
    let with_data = both("bare with data", TCP, &tcp_of(SYN, 5, 60), Class::TcpSyn, Reason::BareSyn);
    let mut cases: Vec<Case> = (0..4).flat_map(|congestion| of(SYN | congestion << 6, Reason::BareSyn)).collect();
    cases.extend(of(SYN | RST, Reason::ImpossibleFlags).into_iter().chain(with_data));
    let land = V4 { destination: V4::default().source, ..V4::default() };
    cases.push(packet("bare land", land.frame(TCP, &tcp_of(SYN, 5, 20)), Class::TcpSyn, Reason::Land));
    let martian = V4::from([127, 0, 0, 1]);
    cases.push(packet("bare martian", martian.frame(TCP, &tcp_of(SYN, 5, 20)), Class::TcpSyn, Reason::Martian));
    let first = V4 { fragment: MORE, ..V4::default() };
    cases.push(packet("bare first fragment", first.frame(TCP, &tcp_of(SYN, 5, 20)), Class::TcpSyn, Reason::BareSyn));
    cases
}

fn offsets() -> Vec<Case> {
    let of = |offset: u8, bytes: usize| {
        let fits = (20..=bytes).contains(&(usize::from(offset) * 4));
        let finding = if fits { Reason::Passed } else { Reason::MalformedTcp };
        both(&format!("data offset {offset} in {bytes} bytes"), TCP, &tcp_of(ACK, offset, bytes), Class::Tcp, finding)
    };
    let mut cases: Vec<Case> =
        (0..16).flat_map(|offset| [20, 40, 60].map(|bytes| of(offset, bytes))).flatten().collect();
    let bent_null = both("null, bent", TCP, &tcp_of(0, 4, 20), Class::Tcp, Reason::MalformedTcp);
    let bent_syn = both("syn, bent", TCP, &tcp_of(SYN, 15, 20), Class::TcpSyn, Reason::MalformedTcp);
    cases.extend(bent_null.into_iter().chain(bent_syn));
    cases
}

/// Headers that IP itself says are cut.
fn cut() -> Vec<Case> {
    let tcp = (0..20).flat_map(|bytes| {
        let name = format!("tcp of {bytes} bytes");
        both(&name, TCP, &tcp_of(SYN, 5, bytes), Class::Tcp, Reason::MalformedTcp)
    });
    let udp = (0..8).flat_map(|bytes| {
        let name = format!("udp of {bytes} bytes");
        both(&name, UDP, &udp_of(8, bytes), Class::Udp, Reason::MalformedUdp)
    });
    tcp.chain(udp).collect()
}

fn datagrams() -> Vec<Case> {
    let of = |length: u16, finding| {
        both(&format!("udp length {length} of 24"), UDP, &udp_of(length, 24), Class::Udp, finding)
    };
    let wrong = [0, 7, 8, 23, 25, 65_535].map(|length| of(length, Reason::MalformedUdp));
    let right = [of(24, Reason::Passed), both("empty udp", UDP, &udp(0), Class::Udp, Reason::Passed)];
    wrong.into_iter().chain(right).flatten().collect()
}

fn messages() -> Vec<Case> {
    let mut cases = vec![
        packet("echo", V4::default().frame(ICMP, &icmp(8)), Class::Icmp, Reason::Passed),
        packet("fragmentation needed", V4::default().frame(ICMP, &icmp(3)), Class::Icmp, Reason::Passed),
        packet("icmpv6 in v4", V4::default().frame(ICMPV6, &icmp(135)), Class::Icmp, Reason::Passed),
    ];
    for bytes in 0..8 {
        let (v4, v6) = (V4::default(), V6::default());
        let (echo, name) = (&icmp(8)[..bytes], format!("icmp of {bytes} bytes"));
        cases.push(packet(&format!("v4 {name}"), v4.frame(ICMP, echo), Class::Icmp, Reason::MalformedIcmp));
        cases.push(packet(&format!("v6 {name}"), v6.frame(ICMPV6, echo), Class::Icmp, Reason::MalformedIcmp));
    }
    cases
}

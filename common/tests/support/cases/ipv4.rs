//! Cases of the IPv4 header: lengths, options, fragments, sources (lines 5–11, 19, 25 and 26 of the list of bad inputs).

use floodwall_common::class::Class;
use floodwall_common::reason::Reason;

use super::super::frames::{ACK, ICMP, IPV4, MORE, SYN, TCP, UDP, V4, ethernet, icmp, tcp, udp, udp_of};
use super::{Case, packet, settled_ip};

pub(super) fn cases() -> Vec<Case> {
    [lengths(), options(), fragments(), sources(), protocols(), checksums()].concat()
}

fn lengths() -> Vec<Case> {
    let first = |first| V4 { version_and_length: Some(first), ..V4::default() };
    let total = |total| V4 { total: Some(total), ..V4::default() };
    let malformed = |name: &str, frame| packet(name, frame, Class::Other, Reason::MalformedIp);
    let mut cases: Vec<Case> =
        (0..5).map(|ihl| malformed(&format!("ihl {ihl}"), first(0x40 | ihl).frame(UDP, &udp(32)))).collect();
    for version in (0..16u8).filter(|version| *version != 4) {
        cases.push(malformed(&format!("version {version} as v4"), first(version << 4 | 5).frame(UDP, &udp(32))));
    }
    cases.push(malformed("ihl 15 without its options", first(0x4f).frame(UDP, &udp(8))));
    cases.push(malformed("total below ihl", total(19).frame(UDP, &udp(8))));
    cases.push(malformed("total zero", total(0).frame(UDP, &udp(8))));
    let with_options = V4 { options: vec![1; 8], total: Some(27), ..V4::default() };
    cases.push(malformed("total inside the options", with_options.frame(UDP, &udp(8))));
    cases.push(malformed("total beyond the frame", total(37).frame(UDP, &udp(8))));
    cases.push(malformed("total 65,535", total(0xffff).frame(UDP, &udp(8))));
    let header_only = total(20).frame(99, &[]);
    cases.push(packet("header only", header_only, Class::Other, Reason::Passed));
    let cut = ethernet(IPV4, &V4::default().packet(UDP, &udp(0))[..19]);
    let family = floodwall_common::class::Family::V4;
    cases.push(settled_ip("header cut", cut, Reason::MalformedIp, family, Class::Other));
    let mut padded = V4::default().frame(UDP, &udp(1));
    padded.extend([0xff; 17]);
    cases.push(packet("padding to 60", padded, Class::Udp, Reason::Passed));
    cases
}

fn options() -> Vec<Case> {
    (1..=10)
        .map(|words| {
            let with = V4 { options: vec![1; words * 4], ..V4::default() };
            packet(&format!("{words} words of options"), with.frame(TCP, &tcp(SYN)), Class::TcpSyn, Reason::Passed)
        })
        .collect()
}

fn fragments() -> Vec<Case> {
    let v4 = |fragment| V4 { fragment, ..V4::default() };
    let passed = |name: &str, frame, class| packet(name, frame, class, Reason::Passed);
    let with_options = V4 { options: vec![1; 40], fragment: 3, ..V4::default() };
    vec![
        passed("don't fragment", v4(0x4000).frame(UDP, &udp(8)), Class::Udp),
        passed("reserved flag", v4(0x8000).frame(UDP, &udp(8)), Class::Udp),
        passed("first fragment", v4(MORE).frame(UDP, &udp_of(3_000, 1_480)), Class::Udp),
        passed("first fragment, udp length within", v4(MORE).frame(UDP, &udp(100)), Class::Udp),
        packet("first fragment, udp length 7", v4(MORE).frame(UDP, &udp_of(7, 64)), Class::Udp, Reason::MalformedUdp),
        passed("first fragment of tcp", v4(MORE).frame(TCP, &tcp(SYN)), Class::TcpSyn),
        packet("first fragment, null", v4(MORE).frame(TCP, &tcp(0)), Class::Tcp, Reason::ImpossibleFlags),
        passed("first fragment of icmp", v4(MORE).frame(ICMP, &icmp(8)), Class::Icmp),
        passed("tiny first fragment of tcp", v4(MORE).frame(TCP, &tcp(SYN)[..8]), Class::Fragment),
        passed("tiny first fragment, flags cut", v4(MORE).frame(TCP, &tcp(SYN)[..19]), Class::Fragment),
        passed("tiny first fragment of udp", v4(MORE).frame(UDP, &udp(0)[..7]), Class::Fragment),
        passed("tiny first fragment of icmp", v4(MORE).frame(ICMP, &icmp(8)[..7]), Class::Fragment),
        passed("empty first fragment", v4(MORE).frame(TCP, &[]), Class::Fragment),
        passed("tiny fragment with the ports", v4(1).frame(TCP, &tcp(SYN)[8..]), Class::Fragment),
        passed("middle fragment", v4(MORE | 185).frame(UDP, &[0xff; 1_480]), Class::Fragment),
        passed("last fragment", v4(370).frame(UDP, &[0xff; 40]), Class::Fragment),
        passed("overlapping fragment", v4(MORE | 1).frame(TCP, &[0; 1_480]), Class::Fragment),
        passed("ping of death", v4(0x1fff).frame(ICMP, &[0; 1_400]), Class::Fragment),
        passed("empty later fragment", v4(0x1fff).frame(UDP, &[]), Class::Fragment),
        passed("later fragment with options", with_options.frame(TCP, &[]), Class::Fragment),
        passed("later fragment of what has no ports", v4(7).frame(47, &[0; 24]), Class::Fragment),
    ]
}

fn sources() -> Vec<Case> {
    let from = |source: [u8; 4], finding| {
        packet(&format!("from {source:?}"), V4::from(source).frame(UDP, &udp(4)), Class::Udp, finding)
    };
    let martians = [[0, 0, 0, 0], [0, 1, 2, 3], [127, 0, 0, 1], [127, 255, 255, 255], [224, 0, 0, 1]];
    let more = [[239, 255, 255, 255], [240, 0, 0, 1], [255, 255, 255, 255]];
    let honest = [[1, 0, 0, 0], [10, 0, 0, 1], [126, 255, 255, 255], [128, 0, 0, 0], [223, 255, 255, 255]];
    let mut cases: Vec<Case> = martians.into_iter().chain(more).map(|source| from(source, Reason::Martian)).collect();
    cases.extend(honest.map(|source| from(source, Reason::Passed)));
    let land = V4 { destination: [203, 0, 113, 7], ..V4::default() };
    let martian_land = V4 { destination: [127, 0, 0, 1], ..V4::from([127, 0, 0, 1]) };
    let bent_land = V4 { total: Some(19), ..land.clone() };
    let later_land = V4 { fragment: 9, ..land.clone() };
    cases.extend([
        packet("land", land.frame(TCP, &tcp(SYN)), Class::TcpSyn, Reason::Land),
        packet("land from a martian", martian_land.frame(TCP, &tcp(SYN)), Class::TcpSyn, Reason::Land),
        packet("land in a tunnel", land.frame(47, &[0; 8]), Class::Other, Reason::Land),
        packet("land in a later fragment", later_land.frame(TCP, &tcp(SYN)), Class::Fragment, Reason::Land),
        packet("malformed land", bent_land.frame(TCP, &tcp(SYN)), Class::Other, Reason::MalformedIp),
        packet("null land", land.frame(TCP, &tcp(0)), Class::Tcp, Reason::ImpossibleFlags),
        packet("tunnel of a martian", V4::from([127, 0, 0, 1]).frame(4, &[0; 20]), Class::Other, Reason::Martian),
    ]);
    cases
}

fn protocols() -> Vec<Case> {
    let inside = V4::default().packet(UDP, &udp(4));
    let of = |protocol, finding| {
        let name = format!("protocol {protocol} in v4");
        packet(&name, V4::default().frame(protocol, &inside), Class::Other, finding)
    };
    let mut cases: Vec<Case> = [4, 41, 47].map(|protocol| of(protocol, Reason::Tunnel)).into();
    // IGMP, ESP, AH, OSPF, SCTP, UDP-Lite, none, reserved; and extension headers of IPv6, which mean nothing here.
    cases.extend([2, 50, 51, 89, 132, 136, 59, 255, 0, 43, 44, 60].map(|protocol| of(protocol, Reason::Passed)));
    cases
}

fn checksums() -> Vec<Case> {
    let wrong = V4 { checksum: 0xdead, ..V4::default() };
    let mut segment = tcp(ACK);
    segment[16..18].copy_from_slice(&[0xde, 0xad]);
    vec![packet("wrong checksums", wrong.frame(TCP, &segment), Class::Tcp, Reason::Passed)]
}

//! Cases of the IPv6 header: lengths, extension headers, fragments, sources, what the link lives on (lines 9, 15–19 and
//! 26 of the list of bad inputs).

use floodwall_common::class::{Class, Family};
use floodwall_common::reason::Reason;

use super::super::frames::{
    DESTINATION_OPTIONS, HOP_BY_HOP, ICMPV6, IPV6, ROUTING, SYN, TCP, UDP, V6, address_v6, authentication, ethernet,
    extension, fragment_header, icmp, tcp, udp, udp_of,
};
use super::{Case, packet, settled_ip};

pub(super) fn cases() -> Vec<Case> {
    [lengths(), extensions(), fragments(), sources(), neighbors(), protocols()].concat()
}

fn malformed(name: &str, frame: Vec<u8>) -> Case {
    packet(name, frame, Class::Other, Reason::MalformedIp)
}

fn lengths() -> Vec<Case> {
    let payload = |payload| V6 { payload: Some(payload), ..V6::default() };
    let mut cases: Vec<Case> = (0..16u8)
        .filter(|version| *version != 6)
        .map(|version| {
            let frame = V6 { version, ..V6::default() }.frame(UDP, &udp(8));
            malformed(&format!("version {version} as v6"), frame)
        })
        .collect();
    cases.push(malformed("payload beyond the frame", payload(17).frame(UDP, &udp(8))));
    cases.push(malformed("payload 65,535", payload(0xffff).frame(UDP, &udp(8))));
    let jumbogram = V6 { payload: Some(0), ..V6::with(vec![(HOP_BY_HOP, vec![0, 0, 0xc2, 4, 0, 1, 0, 0])]) };
    cases.push(malformed("jumbogram", jumbogram.frame(UDP, &udp(8))));
    cases.push(packet("payload zero, tcp", payload(0).frame(TCP, &tcp(SYN)), Class::Tcp, Reason::MalformedTcp));
    cases.push(packet("payload zero, none", payload(0).frame(59, &[]), Class::Other, Reason::Passed));
    let cut = ethernet(IPV6, &V6::default().packet(UDP, &udp(0))[..39]);
    cases.push(settled_ip("v6 header cut", cut, Reason::MalformedIp, Family::V6, Class::Other));
    let mut padded = V6::default().frame(UDP, &udp(1));
    padded.extend([0xff; 9]);
    cases.push(packet("padding behind v6", padded, Class::Udp, Reason::Passed));
    cases
}

fn extensions() -> Vec<Case> {
    let syn = |name: &str, extensions| {
        packet(name, V6::with(extensions).frame(TCP, &tcp(SYN)), Class::TcpSyn, Reason::Passed)
    };
    let mut cases: Vec<Case> = [HOP_BY_HOP, ROUTING, DESTINATION_OPTIONS, 135, 139, 140]
        .map(|kind| syn(&format!("extension {kind}"), vec![extension(kind, 0)]))
        .into();
    cases.push(syn("authentication", vec![authentication(4)]));
    cases.push(syn("shortest authentication", vec![authentication(0)]));
    cases.push(syn("authentication of 12 bytes", vec![authentication(1)]));
    cases.push(syn("long extension", vec![extension(HOP_BY_HOP, 255)]));
    cases.push(syn("eight kinds of length", (0..8).map(|units| extension(DESTINATION_OPTIONS, units)).collect()));
    for count in 1..=8 {
        cases.push(syn(&format!("{count} extensions"), vec![extension(DESTINATION_OPTIONS, 0); count]));
    }
    for count in [9, 10, 40] {
        let frame = V6::with(vec![extension(DESTINATION_OPTIONS, 0); count]).frame(TCP, &tcp(SYN));
        cases.push(packet(&format!("{count} extensions"), frame, Class::Other, Reason::ExtensionDepth));
    }
    let last = |units, payload| V6 { payload, ..V6::with(vec![extension(HOP_BY_HOP, 0), (ROUTING, vec![0, units])]) };
    cases.push(malformed("extension cut after its length", last(0, None).frame(TCP, &[])));
    cases.push(malformed("no extension where one is announced", V6::with(vec![(ROUTING, vec![0])]).frame(TCP, &[])));
    let beyond = V6::with(vec![(HOP_BY_HOP, vec![0, 9, 0, 0, 0, 0, 0, 0])]);
    cases.push(malformed("hop-by-hop beyond the end", beyond.frame(UDP, &udp(8))));
    let beyond_payload = V6 { payload: Some(16), ..V6::with(vec![extension(ROUTING, 2)]) };
    cases.push(malformed("extension into the padding", beyond_payload.frame(UDP, &udp(8))));
    let all = V6 { payload: Some(8), ..V6::with(vec![extension(ROUTING, 0), extension(ROUTING, 0)]) };
    cases.push(malformed("extension in the padding", all.frame(UDP, &udp(8))));
    cases
}

fn fragments() -> Vec<Case> {
    let with = |offset, more| V6::with(vec![fragment_header(offset, more)]);
    let behind = |extension, offset| V6::with(vec![extension, fragment_header(offset, true)]);
    let passed = |name: &str, frame, class| packet(name, frame, class, Reason::Passed);
    let deep = |count| {
        let mut list = vec![extension(DESTINATION_OPTIONS, 0); count];
        list.push(fragment_header(5, false));
        V6::with(list)
    };
    vec![
        passed("v6 first fragment", with(0, true).frame(UDP, &udp_of(3_000, 1_432)), Class::Udp),
        passed("v6 first fragment of tcp", with(0, true).frame(TCP, &tcp(SYN)), Class::TcpSyn),
        passed("v6 tiny first fragment", with(0, true).frame(TCP, &tcp(SYN)[..8]), Class::Fragment),
        passed("v6 tiny first fragment of icmp", with(0, true).frame(ICMPV6, &icmp(128)[..4]), Class::Fragment),
        passed("v6 later fragment", with(1, true).frame(TCP, &[0; 24]), Class::Fragment),
        passed("v6 last fragment", with(0x1fff, false).frame(UDP, &[]), Class::Fragment),
        passed("v6 later fragment of an extension", with(3, true).frame(DESTINATION_OPTIONS, &[]), Class::Fragment),
        passed("v6 atomic fragment", with(0, false).frame(TCP, &tcp(SYN)), Class::TcpSyn),
        packet("v6 atomic, cut", with(0, false).frame(TCP, &tcp(SYN)[..8]), Class::Tcp, Reason::MalformedTcp),
        packet("v6 atomic, udp length", with(0, false).frame(UDP, &udp_of(99, 16)), Class::Udp, Reason::MalformedUdp),
        passed("fragment behind a route", behind(extension(ROUTING, 0), 2).frame(UDP, &[]), Class::Fragment),
        passed("first behind a route", behind(extension(ROUTING, 0), 0).frame(UDP, &udp(8)), Class::Udp),
        passed("later fragment as the eighth", deep(7).frame(UDP, &[]), Class::Fragment),
        packet("later fragment as the ninth", deep(8).frame(UDP, &[]), Class::Other, Reason::ExtensionDepth),
        malformed("fragment header cut", V6::with(vec![(44, vec![0; 7])]).frame(UDP, &[])),
    ]
}

fn sources() -> Vec<Case> {
    let from = |name: &str, upper, lower, finding| {
        packet(&format!("from {name}"), V6::from(upper, lower).frame(UDP, &udp(4)), Class::Udp, finding)
    };
    let land = V6 { destination: V6::default().source, ..V6::default() };
    let near_land = V6 { destination: address_v6(0x2001_0db8_0000_0007, 0x12), ..V6::default() };
    vec![
        from("::", 0, 0, Reason::Martian),
        from("::1", 0, 1, Reason::Martian),
        from("::2", 0, 2, Reason::Passed),
        from("v4-mapped", 0, 0xffff_cb00_7107, Reason::Martian),
        from("64:ff9b::", 0x0064_ff9b << 32, 7, Reason::Passed),
        from("ff02::1", 0xff02 << 48, 1, Reason::Martian),
        from("feff::", 0xfeff << 48, 1, Reason::Passed),
        from("fe80::", 0xfe80 << 48, 1, Reason::Passed),
        packet("v6 land", land.frame(TCP, &tcp(SYN)), Class::TcpSyn, Reason::Land),
        packet("v6 nearly land", near_land.frame(TCP, &tcp(SYN)), Class::TcpSyn, Reason::Passed),
    ]
}

fn neighbors() -> Vec<Case> {
    let always = |name: &str, frame, reason| settled_ip(name, frame, reason, Family::V6, Class::Icmp);
    let judged = |name: &str, frame| packet(name, frame, Class::Icmp, Reason::Passed);
    let mut cases = vec![];
    for kind in 133..=137 {
        let far = V6 { hop_limit: 254, ..V6::neighbor() }.frame(ICMPV6, &icmp(kind));
        let near = V6::neighbor().frame(ICMPV6, &icmp(kind));
        cases.push(always(&format!("neighbour discovery {kind}"), near, Reason::NeighborDiscovery));
        cases.push(judged(&format!("neighbour discovery {kind} from afar"), far));
    }
    for kind in [0, 1, 3, 4, 128, 129, 132, 138, 143, 255] {
        cases.push(judged(&format!("icmpv6 {kind}"), V6::neighbor().frame(ICMPV6, &icmp(kind))));
    }
    let address_probe = V6 { source: [0; 16], ..V6::neighbor() };
    let behind = |extension| V6 { extensions: vec![extension], ..V6::neighbor() };
    cases.extend([
        always("address probe from ::", address_probe.frame(ICMPV6, &icmp(135)), Reason::NeighborDiscovery),
        always(
            "discovery behind an option",
            behind(extension(HOP_BY_HOP, 0)).frame(ICMPV6, &icmp(134)),
            Reason::NeighborDiscovery,
        ),
        judged("discovery in a first fragment", behind(fragment_header(0, true)).frame(ICMPV6, &icmp(135))),
        always("packet too big", V6::default().frame(ICMPV6, &icmp(2)), Reason::PacketTooBig),
        judged("packet too big in a fragment", behind(fragment_header(0, true)).frame(ICMPV6, &icmp(2))),
        packet("discovery, cut", V6::neighbor().frame(ICMPV6, &icmp(135)[..7]), Class::Icmp, Reason::MalformedIcmp),
    ]);
    cases
}

fn protocols() -> Vec<Case> {
    let of = |protocol, finding| {
        packet(&format!("protocol {protocol} in v6"), V6::default().frame(protocol, &[0; 40]), Class::Other, finding)
    };
    let mut cases: Vec<Case> = [4, 41, 47].map(|protocol| of(protocol, Reason::Tunnel)).into();
    cases.extend([50, 59, 89, 132, 255].map(|protocol| of(protocol, Reason::Passed)));
    cases
}

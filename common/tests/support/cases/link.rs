//! Cases below IP: short frames, VLAN tags, what is not IP (lines 1–4, 18, 24 and 26 of the list of bad inputs).

use floodwall_common::class::{Class, Family};
use floodwall_common::reason::Reason;

use super::super::frames::{IPV4, IPV6, TCP, UDP, V4, V6, ethernet, tagged, tcp, udp};
use super::{Case, packet, packet_at, settled, settled_ip};

const VLAN: u16 = 0x8100;
const SERVICE_VLAN: u16 = 0x88a8;
const OLD_SERVICE_VLAN: u16 = 0x9100;

const NOT_IP: [(&str, u16); 10] = [
    ("arp", 0x0806),
    ("802.1X", 0x888e),
    ("lldp", 0x88cc),
    ("lacp", 0x8809),
    ("ptp", 0x88f7),
    ("pppoe discovery", 0x8863),
    ("802.3 length", 0x0026),
    ("ipx", 0x8137),
    ("realtek", 0x8899),
    ("zero", 0x0000),
];

pub(super) fn cases() -> Vec<Case> {
    [short(), tags(), not_ip(), encapsulated(), jumbo()].concat()
}

fn short() -> Vec<Case> {
    let mut cases: Vec<Case> = (0..14)
        .map(|bytes| settled(&format!("frame of {bytes} bytes"), ethernet(IPV4, &[])[..bytes].to_vec(), Reason::Short))
        .collect();
    cases.push(settled_ip("ethernet only, v4", ethernet(IPV4, &[]), Reason::Short, Family::V4, Class::Other));
    cases.push(settled_ip("ethernet only, v6", ethernet(IPV6, &[]), Reason::Short, Family::V6, Class::Other));
    cases.push(settled_ip("tag only, v4", tagged(&[VLAN], IPV4, &[]), Reason::Short, Family::V4, Class::Other));
    cases
}

fn tags() -> Vec<Case> {
    let (v4, v6) = (V4::default().packet(UDP, &udp(4)), V6::default().packet(TCP, &tcp(2)));
    let tags = |tags: &[u16]| 14 + 4 * tags.len();
    let mut cases = vec![];
    let one_and_two: [&[u16]; 7] = [
        &[VLAN],
        &[SERVICE_VLAN],
        &[OLD_SERVICE_VLAN],
        &[VLAN, VLAN],
        &[SERVICE_VLAN, VLAN],
        &[OLD_SERVICE_VLAN, VLAN],
        &[VLAN, SERVICE_VLAN],
    ];
    for list in one_and_two {
        let name = |family| format!("{family} behind tags {list:04x?}");
        cases.push(packet_at(&name("udp v4"), tags(list), tagged(list, IPV4, &v4), Class::Udp, Reason::Passed));
        cases.push(packet_at(&name("syn v6"), tags(list), tagged(list, IPV6, &v6), Class::TcpSyn, Reason::Passed));
        cases.push(settled(&name("arp"), tagged(list, 0x0806, &[0; 28]), Reason::NotIp));
        cases.push(settled(&name("cut"), tagged(list, VLAN, &[])[..tags(list)].to_vec(), too_deep_or_short(list)));
    }
    for third in [VLAN, SERVICE_VLAN, OLD_SERVICE_VLAN] {
        let frame = tagged(&[SERVICE_VLAN, VLAN, third], IPV4, &v4);
        cases.push(settled(&format!("third tag {third:04x}"), frame, Reason::VlanDepth));
    }
    cases
}

/// What a frame is that ends with a tag that announces another.
fn too_deep_or_short(tags: &[u16]) -> Reason {
    if tags.len() < 2 { Reason::Short } else { Reason::VlanDepth }
}

fn not_ip() -> Vec<Case> {
    NOT_IP.iter().map(|(name, ether_type)| settled(name, ethernet(*ether_type, &[0; 46]), Reason::NotIp)).collect()
}

fn encapsulated() -> Vec<Case> {
    let inside = V4::default().packet(UDP, &udp(4));
    let types = [("pppoe session", 0x8864), ("mpls", 0x8847), ("mpls multicast", 0x8848)];
    let mut cases: Vec<Case> =
        types.map(|(name, ether_type)| settled(name, ethernet(ether_type, &inside), Reason::Encapsulated)).into();
    cases.push(settled("mpls behind a tag", tagged(&[VLAN], 0x8847, &inside), Reason::Encapsulated));
    cases
}

fn jumbo() -> Vec<Case> {
    vec![
        packet("9000 bytes", V4::default().frame(UDP, &udp(8_958)), Class::Udp, Reason::Passed),
        packet("64 KiB", V4::default().frame(UDP, &udp(65_507)), Class::Udp, Reason::Passed),
    ]
}

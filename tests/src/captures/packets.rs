//! IP packets of made-up captures, from their parts. Checksums are left zero: nothing here looks at them.

use std::net::IpAddr;

/// TCP flags.
pub const FIN: u8 = 0x01;
/// A connection begins.
pub const SYN: u8 = 0x02;
/// A connection is refused.
pub const RST: u8 = 0x04;
/// Data is handed on at once.
pub const PSH: u8 = 0x08;
/// Something is acknowledged.
pub const ACK: u8 = 0x10;

/// IP protocols.
pub const ICMP: u8 = 1;
/// TCP.
pub const TCP: u8 = 6;
/// UDP.
pub const UDP: u8 = 17;
/// GRE, as tunnels use it.
pub const GRE: u8 = 47;

/// The offset of a later fragment, where the packets before it are as large as Ethernet takes them.
pub const LATER: u16 = 185;

/// Both ends of a packet.
#[derive(Clone, Copy, Debug)]
pub struct Ends {
    /// Who sends it.
    pub source: IpAddr,
    /// Who is to have it.
    pub destination: IpAddr,
    /// What is left of its time to live.
    pub hops: u8,
}

/// What a TCP segment says.
#[derive(Clone, Copy, Debug, Default)]
pub struct Segment<'a> {
    /// Source and destination port.
    pub ports: (u16, u16),
    /// Number of its first byte, and of the next that is expected.
    pub numbers: (u32, u32),
    /// FIN to ACK.
    pub flags: u8,
    /// A multiple of four bytes.
    pub options: &'a [u8],
    /// Bytes of data.
    pub data: usize,
}

/// An IP packet in a frame from this address of Ethernet.
pub fn frame(mac: [u8; 6], ends: Ends, protocol: u8, fragment: u16, payload: &[u8]) -> Vec<u8> {
    let mut frame = vec![0x02, 0, 0, 0, 0, 0xfe];
    frame.extend(mac);
    match (ends.source, ends.destination) {
        (IpAddr::V4(source), IpAddr::V4(destination)) => {
            frame.extend([0x08, 0x00, 0x45, 0]);
            frame.extend((20 + payload.len() as u16).to_be_bytes());
            frame.extend([0x12, 0x34]);
            frame.extend(fragment.to_be_bytes());
            frame.extend([ends.hops, protocol, 0, 0]);
            frame.extend(source.octets());
            frame.extend(destination.octets());
        }
        (source, destination) => {
            frame.extend([0x86, 0xdd, 0x60, 0, 0, 0]);
            frame.extend((payload.len() as u16).to_be_bytes());
            frame.extend([protocol, ends.hops]);
            frame.extend(octets_v6(source));
            frame.extend(octets_v6(destination));
        }
    }
    frame.extend(payload);
    frame
}

fn octets_v6(address: IpAddr) -> [u8; 16] {
    match address {
        IpAddr::V4(address) => address.to_ipv6_mapped().octets(),
        IpAddr::V6(address) => address.octets(),
    }
}

/// A TCP segment.
pub fn tcp(segment: &Segment<'_>) -> Vec<u8> {
    let mut tcp = Vec::new();
    tcp.extend(segment.ports.0.to_be_bytes());
    tcp.extend(segment.ports.1.to_be_bytes());
    tcp.extend(segment.numbers.0.to_be_bytes());
    tcp.extend(segment.numbers.1.to_be_bytes());
    tcp.push(((5 + segment.options.len() / 4) << 4) as u8);
    tcp.push(segment.flags);
    tcp.extend([0xfa, 0xf0, 0, 0, 0, 0]);
    tcp.extend(segment.options);
    tcp.resize(tcp.len() + segment.data, b'd');
    tcp
}

/// A UDP datagram with so many bytes of data.
pub fn udp(ports: (u16, u16), data: usize) -> Vec<u8> {
    let mut udp = Vec::new();
    udp.extend(ports.0.to_be_bytes());
    udp.extend(ports.1.to_be_bytes());
    udp.extend((8 + data as u16).to_be_bytes());
    udp.extend([0, 0]);
    udp.resize(udp.len() + data, b'd');
    udp
}

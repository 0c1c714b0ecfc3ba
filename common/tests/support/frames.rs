//! Builds frames from their parts, right by default and wrong where a test says so. Checksums are left zero: the
//! parser does not look at them.

pub(crate) const IPV4: u16 = 0x0800;
pub(crate) const IPV6: u16 = 0x86dd;

pub(crate) const ICMP: u8 = 1;
pub(crate) const TCP: u8 = 6;
pub(crate) const UDP: u8 = 17;
pub(crate) const ICMPV6: u8 = 58;

pub(crate) const HOP_BY_HOP: u8 = 0;
pub(crate) const ROUTING: u8 = 43;
pub(crate) const FRAGMENT: u8 = 44;
pub(crate) const AUTHENTICATION: u8 = 51;
pub(crate) const DESTINATION_OPTIONS: u8 = 60;

pub(crate) const FIN: u8 = 0x01;
pub(crate) const SYN: u8 = 0x02;
pub(crate) const RST: u8 = 0x04;
pub(crate) const ACK: u8 = 0x10;

/// More fragments follow, in the flags of IPv4.
pub(crate) const MORE: u16 = 0x2000;

/// An Ethernet frame.
pub(crate) fn ethernet(ether_type: u16, payload: &[u8]) -> Vec<u8> {
    tagged(&[], ether_type, payload)
}

/// An Ethernet frame with VLAN tags of these types, the outermost first.
pub(crate) fn tagged(tags: &[u16], ether_type: u16, payload: &[u8]) -> Vec<u8> {
    let mut frame = vec![0x02, 0, 0, 0, 0, 1, 0x02, 0, 0, 0, 0, 2];
    for tag in tags {
        frame.extend(tag.to_be_bytes());
        frame.extend([0, 42]);
    }
    frame.extend(ether_type.to_be_bytes());
    frame.extend(payload);
    frame
}

/// An IPv4 header; `None` means what is right for the packet.
#[derive(Clone)]
pub(crate) struct V4 {
    pub(crate) source: [u8; 4],
    pub(crate) destination: [u8; 4],
    pub(crate) options: Vec<u8>,
    /// Flags and offset.
    pub(crate) fragment: u16,
    pub(crate) checksum: u16,
    pub(crate) version_and_length: Option<u8>,
    pub(crate) total: Option<u16>,
}

impl Default for V4 {
    fn default() -> Self {
        Self {
            source: [203, 0, 113, 7],
            destination: [192, 0, 2, 1],
            options: vec![],
            fragment: 0,
            checksum: 0,
            version_and_length: None,
            total: None,
        }
    }
}

impl V4 {
    /// From a source.
    pub(crate) fn from(source: [u8; 4]) -> Self {
        Self { source, ..Self::default() }
    }

    /// The packet, without Ethernet.
    pub(crate) fn packet(&self, protocol: u8, payload: &[u8]) -> Vec<u8> {
        let header = 20 + self.options.len();
        let total = self.total.unwrap_or((header + payload.len()) as u16);
        let mut packet = vec![self.version_and_length.unwrap_or(0x40 | (header / 4) as u8), 0];
        packet.extend(total.to_be_bytes());
        packet.extend([0x12, 0x34]);
        packet.extend(self.fragment.to_be_bytes());
        packet.extend([64, protocol]);
        packet.extend(self.checksum.to_be_bytes());
        packet.extend(self.source);
        packet.extend(self.destination);
        packet.extend(&self.options);
        packet.extend(payload);
        packet
    }

    /// The packet in a frame.
    pub(crate) fn frame(&self, protocol: u8, payload: &[u8]) -> Vec<u8> {
        ethernet(IPV4, &self.packet(protocol, payload))
    }
}

/// An IPv6 header with its extension headers; `None` means what is right for the packet.
#[derive(Clone)]
pub(crate) struct V6 {
    pub(crate) source: [u8; 16],
    pub(crate) destination: [u8; 16],
    pub(crate) hop_limit: u8,
    /// Kind and bytes of each, where the first byte (what follows) is filled in here.
    pub(crate) extensions: Vec<(u8, Vec<u8>)>,
    pub(crate) version: u8,
    pub(crate) payload: Option<u16>,
}

impl Default for V6 {
    fn default() -> Self {
        Self {
            source: address_v6(0x2001_0db8_0000_0007, 0x11),
            destination: address_v6(0x2001_0db8_0000_0001, 0x22),
            hop_limit: 64,
            extensions: vec![],
            version: 6,
            payload: None,
        }
    }
}

impl V6 {
    /// From a source.
    pub(crate) fn from(upper: u64, lower: u64) -> Self {
        Self { source: address_v6(upper, lower), ..Self::default() }
    }

    /// With these extension headers.
    pub(crate) fn with(extensions: Vec<(u8, Vec<u8>)>) -> Self {
        Self { extensions, ..Self::default() }
    }

    /// From a neighbour on the link.
    pub(crate) fn neighbor() -> Self {
        Self { source: address_v6(0xfe80 << 48, 7), hop_limit: 255, ..Self::default() }
    }

    /// The packet, without Ethernet.
    pub(crate) fn packet(&self, protocol: u8, transport: &[u8]) -> Vec<u8> {
        let mut next = vec![];
        next.extend(self.extensions.iter().map(|(kind, _)| *kind));
        next.push(protocol);
        let mut payload = vec![];
        for (place, (_, bytes)) in self.extensions.iter().enumerate() {
            payload.push(next[place + 1]);
            payload.extend(&bytes[1..]);
        }
        payload.extend(transport);
        let length = self.payload.unwrap_or(payload.len() as u16);
        let mut packet = vec![self.version << 4, 0, 0, 0];
        packet.extend(length.to_be_bytes());
        packet.extend([next[0], self.hop_limit]);
        packet.extend(self.source);
        packet.extend(self.destination);
        packet.extend(payload);
        packet
    }

    /// The packet in a frame.
    pub(crate) fn frame(&self, protocol: u8, transport: &[u8]) -> Vec<u8> {
        ethernet(IPV6, &self.packet(protocol, transport))
    }
}

/// An IPv6 address by halves.
pub(crate) fn address_v6(upper: u64, lower: u64) -> [u8; 16] {
    ((u128::from(upper) << 64) | u128::from(lower)).to_be_bytes()
}

/// An extension header that counts in units of eight bytes.
pub(crate) fn extension(kind: u8, units: u8) -> (u8, Vec<u8>) {
    let mut bytes = vec![0; (usize::from(units) + 1) * 8];
    bytes[1] = units;
    (kind, bytes)
}

/// An authentication header, which counts in units of four bytes, less two.
pub(crate) fn authentication(units: u8) -> (u8, Vec<u8>) {
    let mut bytes = vec![0; (usize::from(units) + 2) * 4];
    bytes[1] = units;
    (AUTHENTICATION, bytes)
}

/// A fragment header: offset in units of eight bytes.
pub(crate) fn fragment_header(offset: u16, more: bool) -> (u8, Vec<u8>) {
    let [high, low] = (offset << 3 | u16::from(more)).to_be_bytes();
    (FRAGMENT, vec![0, 0, high, low, 0, 0, 0x56, 0x78])
}

/// A TCP segment with this data offset and as many bytes.
pub(crate) fn tcp_of(flags: u8, offset: u8, bytes: usize) -> Vec<u8> {
    let mut segment = vec![0x9c, 0x40, 0, 80, 0, 0, 0, 1, 0, 0, 0, 0, offset << 4, flags, 0xff, 0xff, 0, 0, 0, 0];
    segment.resize(bytes.max(20), 0x5a);
    segment.truncate(bytes);
    segment
}

/// A TCP header: with a maximum segment size where it opens a connection, as every system sends it, else without options.
pub(crate) fn tcp(flags: u8) -> Vec<u8> {
    if flags & (SYN | ACK) != SYN {
        return tcp_of(flags, 5, 20);
    }
    let mut segment = tcp_of(flags, 6, 20);
    segment.extend([2, 4, 0x05, 0xb4]);
    segment
}

/// A UDP datagram that says this length and has as many bytes.
pub(crate) fn udp_of(length: u16, bytes: usize) -> Vec<u8> {
    let mut datagram = vec![0x9c, 0x40, 0, 53];
    datagram.extend(length.to_be_bytes());
    datagram.extend([0, 0]);
    datagram.resize(bytes.max(8), 0x5a);
    datagram.truncate(bytes);
    datagram
}

/// A UDP datagram with so many bytes of data.
pub(crate) fn udp(data: usize) -> Vec<u8> {
    udp_of(8 + data as u16, 8 + data)
}

/// An ICMP or ICMPv6 message of eight bytes.
pub(crate) fn icmp(kind: u8) -> Vec<u8> {
    vec![kind, 0, 0, 0, 0, 1, 0, 1]
}

//! Captures that are made up: clients that behave as systems of today do, crowds of them, and floods. The same for the same
//! seed. What is good and what is flood is said by the source address of Ethernet, which nothing that is tested reads.

use std::fs::File;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::ops::Range;
use std::path::Path;
use std::time::Duration;

use anyhow::Result;
use floodwall::replay::Captured;
use pcap_file::pcap::{PcapHeader, PcapPacket, PcapWriter};
use pcap_file::{DataLink, TsResolution};

use super::packets::{ACK, Ends, FIN, PSH, SYN, Segment, TCP, UDP, frame, tcp, udp};

/// The protected host.
pub const HOST: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 10, 10, 10));
/// The same, for those who ask over IPv6.
pub const HOST_V6: IpAddr = IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 0x10));

/// When a capture begins.
pub const EPOCH: Duration = Duration::from_secs(1_000_000_000);
const GOOD: [u8; 6] = [0x02, 0, 0, 0, 0, 0x01];
const FLOOD: [u8; 6] = [0x02, 0, 0, 0, 0, 0xaa];

/// What Linux, Windows and macOS offer in a SYN.
const OFFERS: [&[u8]; 3] = [
    &[2, 4, 5, 180, 4, 2, 8, 10, 0, 1, 2, 3, 0, 0, 0, 0, 1, 3, 3, 7],
    &[2, 4, 5, 180, 1, 3, 3, 8, 1, 1, 4, 2],
    &[2, 4, 5, 180, 1, 3, 3, 6, 1, 1, 8, 10, 0, 1, 2, 3, 0, 0, 0, 0, 4, 2, 0, 0],
];
/// When a client whose SYN is not answered sends it again.
const RETRIES: [f64; 3] = [1.0, 3.0, 7.0];

/// Random numbers, the same in every run (`SplitMix64`).
#[derive(Clone, Debug)]
pub struct Random(pub u64);

impl Random {
    /// The next one.
    pub fn bits(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut x = self.0;
        x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        x ^ (x >> 31)
    }

    /// From 0 to 1.
    pub fn part(&mut self) -> f64 {
        (self.bits() >> 11) as f64 / (1u64 << 53) as f64
    }

    /// One of these numbers.
    pub fn number(&mut self, range: Range<u16>) -> u16 {
        range.start + (self.part() * f64::from(range.end - range.start)) as u16
    }

    /// One between these.
    pub fn between(&mut self, range: Range<f64>) -> f64 {
        range.start + self.part() * (range.end - range.start)
    }

    /// One of these.
    pub fn one_of<T: Copy>(&mut self, all: &[T]) -> T {
        all[(self.part() * all.len() as f64) as usize]
    }

    /// How long until the next of so many a second, which come by themselves.
    pub fn wait(&mut self, per_second: f64) -> f64 {
        -(1.0 - self.part()).ln() / per_second
    }

    /// An address that may be anybody's.
    pub fn address(&mut self) -> IpAddr {
        let low = self.bits() as u32;
        IpAddr::V4((u32::from(self.number(11..200)) << 24 | low >> 8).into())
    }

    /// An address of IPv6 that may be anybody's.
    pub fn address_v6(&mut self) -> IpAddr {
        let (upper, lower) = (0x2a00 << 48 | self.bits() >> 16, self.bits());
        IpAddr::V6((u128::from(upper) << 64 | u128::from(lower)).into())
    }

    /// A port that is chosen by a client.
    pub fn port(&mut self) -> u16 {
        self.number(1024..65_000)
    }
}

/// Somebody who connects.
#[derive(Clone, Copy, Debug)]
pub struct Client {
    address: IpAddr,
    hops: u8,
    offer: usize,
    round_trip: f64,
}

/// What goes over a link in some seconds.
#[derive(Debug)]
pub struct Made {
    /// Where chance comes from.
    pub random: Random,
    frames: Vec<Captured>,
}

impl Made {
    /// Nothing yet.
    pub fn new(seed: u64) -> Self {
        Self { random: Random(seed), frames: Vec::new() }
    }

    /// Somebody at this address.
    pub fn client(&mut self, address: IpAddr) -> Client {
        let random = &mut self.random;
        let (hops, offer) = random.one_of(&[(50, 0), (54, 0), (57, 0), (60, 0), (110, 1), (115, 1), (120, 1), (52, 2)]);
        Client { address, hops, offer, round_trip: random.between(0.02..0.12) }
    }

    /// A connection: so many requests and their answers; or only SYNs, where the host does not answer.
    pub fn connection(&mut self, begins: f64, client: Client, requests: usize, is_served: bool) {
        let (ours, theirs) = (443, self.random.port());
        let (host, offer) = (host_for(client.address), OFFERS[client.offer]);
        let inward = Ends { source: client.address, destination: host, hops: client.hops };
        let outward = Ends { source: host, destination: client.address, hops: 64 };
        let (mut mine, mut its) = (self.random.bits() as u32, self.random.bits() as u32);
        let syn = Segment { ports: (theirs, ours), numbers: (mine, 0), flags: SYN, options: offer, data: 0 };
        self.segment(begins, inward, &syn);
        if !is_served {
            for retry in RETRIES {
                let late = self.random.between(0.0..0.02);
                self.segment(begins + retry + late, inward, &syn);
            }
            return;
        }
        mine = mine.wrapping_add(1);
        let accepted =
            Segment { ports: (ours, theirs), numbers: (its, mine), flags: SYN | ACK, options: OFFERS[0], data: 0 };
        self.segment(begins + 0.000_2, outward, &accepted);
        its = its.wrapping_add(1);
        let mut now = begins + client.round_trip;
        let say = |numbers, flags, data| Segment { ports: (theirs, ours), numbers, flags, options: &[], data };
        self.segment(now, inward, &say((mine, its), ACK, 0));
        for _ in 0..requests {
            let asked = usize::from(self.random.number(100..600));
            self.segment(now, inward, &say((mine, its), PSH | ACK, asked));
            mine = mine.wrapping_add(asked as u32);
            for _ in 0..3 {
                let answer =
                    Segment { ports: (ours, theirs), numbers: (its, mine), flags: ACK, options: &[], data: 1_000 };
                self.segment(now + 0.001, outward, &answer);
                its = its.wrapping_add(1_000);
            }
            now += client.round_trip;
            self.segment(now, inward, &say((mine, its), ACK, 0));
            now += self.random.between(0.01..0.2);
        }
        self.segment(now, inward, &say((mine, its), FIN | ACK, 0));
    }

    /// New clients: so many connections a second in all, some for each, of which the host answers a share.
    pub fn crowd(&mut self, during: Range<f64>, per_second: f64, served: f64) {
        const EACH: f64 = 3.0;
        let mut now = during.start;
        while now < during.end {
            let address = if self.random.part() < 0.2 { self.random.address_v6() } else { self.random.address() };
            let client = self.client(address);
            for _ in 0..self.random.number(1..6) {
                let (late, is_served) = (self.random.between(0.0..0.3), self.random.part() < served);
                self.connection(now + late, client, 4, is_served);
            }
            now += self.random.wait(per_second / EACH);
        }
    }

    /// One client that connects over and over.
    pub fn repeats(&mut self, during: Range<f64>, per_second: f64, client: Client) {
        let mut now = during.start;
        while now < during.end {
            self.connection(now, client, 1, true);
            now += self.random.wait(per_second);
        }
    }

    /// The host asks others over UDP, each once, and is answered.
    pub fn asks(&mut self, during: Range<f64>, per_second: f64, port: u16) {
        let mut now = during.start;
        while now < during.end {
            let (peer, ours) = (self.random.address(), self.random.port());
            let late = self.random.between(0.01..0.08);
            self.datagram(now, HOST, peer, (ours, port), 40);
            self.datagram(now + late, peer, HOST, (port, ours), 200);
            now += self.random.wait(per_second);
        }
    }

    /// Others ask the host over UDP, from these ports or from any, and are answered.
    pub fn is_asked(&mut self, during: Range<f64>, per_second: f64, port: u16, from: &[u16]) {
        let mut now = during.start;
        while now < during.end {
            let (peer, any) = (self.random.address(), self.random.port());
            let theirs = if self.random.part() < 0.5 && !from.is_empty() { self.random.one_of(from) } else { any };
            self.datagram(now, peer, HOST, (theirs, port), 40);
            self.datagram(now + 0.001, HOST, peer, (port, theirs), 200);
            now += self.random.wait(per_second);
        }
    }

    /// A flood: so many packets a second, each made anew, to the host.
    pub fn flood(
        &mut self,
        during: Range<f64>,
        per_second: f64,
        mut packet: impl FnMut(&mut Random) -> (Ends, u8, u16, Vec<u8>),
    ) {
        let mut now = during.start;
        while now < during.end {
            let (ends, protocol, fragment, payload) = packet(&mut self.random);
            self.put(now, frame(FLOOD, ends, protocol, fragment, &payload));
            now += self.random.wait(per_second);
        }
    }

    /// The host fetches something large: so many segments a second come in from one server.
    pub fn downloads(&mut self, during: Range<f64>, per_second: f64) {
        let (server, ours) = (self.random.address(), self.random.port());
        let inward = Ends { source: server, destination: HOST, hops: 57 };
        let outward = Ends { source: HOST, destination: server, hops: 64 };
        let asks = |flags, options| Segment { ports: (ours, 443), flags, options, ..Segment::default() };
        let says = |flags, options, data| Segment { ports: (443, ours), flags, options, data, ..Segment::default() };
        self.segment(during.start - 0.1, outward, &asks(SYN, OFFERS[0]));
        self.segment(during.start - 0.05, inward, &says(SYN | ACK, OFFERS[0], 0));
        let mut now = during.start;
        while now < during.end {
            self.segment(now, inward, &says(ACK, &[], 1_400));
            self.segment(now + 0.000_2, outward, &asks(ACK, &[]));
            now += 1.0 / per_second;
        }
    }

    /// When the packets of floods are sent.
    pub fn times_of_flood(&self) -> Vec<f64> {
        let flood = self.frames.iter().filter(|captured| is_flood(captured));
        flood.map(|captured| (captured.at - EPOCH).as_secs_f64()).collect()
    }

    /// A TCP segment.
    pub fn segment(&mut self, at: f64, ends: Ends, segment: &Segment<'_>) {
        self.put(at, frame(GOOD, ends, TCP, 0, &tcp(segment)));
    }

    /// A UDP datagram.
    pub fn datagram(&mut self, at: f64, source: IpAddr, destination: IpAddr, ports: (u16, u16), data: usize) {
        self.put(at, frame(GOOD, Ends { source, destination, hops: 57 }, UDP, 0, &udp(ports, data)));
    }

    /// A packet of another protocol.
    pub fn packet(&mut self, at: f64, ends: Ends, protocol: u8, payload: &[u8]) {
        self.put(at, frame(GOOD, ends, protocol, 0, payload));
    }

    /// A later fragment.
    pub fn fragment(&mut self, at: f64, source: IpAddr, destination: IpAddr, bytes: usize) {
        let ends = Ends { source, destination, hops: 64 };
        self.put(at, frame(GOOD, ends, UDP, super::packets::LATER, &vec![b'd'; bytes]));
    }

    fn put(&mut self, at: f64, frame: Vec<u8>) {
        let at = EPOCH + Duration::from_secs_f64(at);
        self.frames.push(Captured { at, bytes: frame.len() as u32, frame });
    }

    /// All of it, by time.
    pub fn frames(mut self) -> Vec<Captured> {
        self.frames.sort_by_key(|captured| captured.at);
        self.frames
    }
}

/// The address of the host in the family of this one.
pub fn host_for(address: IpAddr) -> IpAddr {
    if address.is_ipv4() { HOST } else { HOST_V6 }
}

/// Whether a frame was made as one of a flood.
pub fn is_flood(captured: &Captured) -> bool {
    captured.frame[6..12] == FLOOD
}

/// Writes frames as a capture file.
///
/// # Errors
/// Where it cannot be written.
pub fn write(path: &Path, frames: &[Captured]) -> Result<()> {
    let header =
        PcapHeader { datalink: DataLink::ETHERNET, ts_resolution: TsResolution::NanoSecond, ..PcapHeader::default() };
    let mut writer = PcapWriter::with_header(File::create(path)?, header)?;
    for captured in frames {
        writer.write_packet(&PcapPacket::new(captured.at, captured.bytes, &captured.frame))?;
    }
    Ok(())
}

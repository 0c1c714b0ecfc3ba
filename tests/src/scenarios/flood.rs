//! Floods of forged frames, sent by a packet socket at a pace.

use std::net::{Ipv4Addr, Ipv6Addr};
use std::os::fd::{AsRawFd, OwnedFd};
use std::time::{Duration, Instant};

use super::rig::{CARPET, SERVER_V4, SERVER_V6, WEB};
use super::{Flood, Kind};
use crate::captures::made::Random;
use crate::captures::packets::{ACK, Ends, LATER, PSH, RST, SYN, Segment, TCP, UDP, frame, tcp, udp};

/// Options of SYNs as Linux, Windows and macOS offer them.
const OFFERS: [&[u8]; 3] = [
    &[2, 4, 5, 180, 4, 2, 8, 10, 0, 1, 2, 3, 0, 0, 0, 0, 1, 3, 3, 7],
    &[2, 4, 5, 180, 1, 3, 3, 8, 1, 1, 4, 2],
    &[2, 4, 5, 180, 1, 3, 3, 6, 1, 1, 8, 10, 0, 1, 2, 3, 0, 0, 0, 0, 4, 2, 0, 0],
];
/// Port, addresses that answer from it, and lengths of their answers. The first three were counted in a real attack.
const AMPLIFIERS: [(u16, u32, std::ops::Range<u16>); 6] = [
    (53, 30_551, 400..1_450),
    (123, 1_288, 440..441),
    (19, 439, 1_000..1_450),
    (161, 2_000, 300..1_200),
    (47_808, 1_000, 300..600),
    (500, 1_500, 200..400),
];
/// A flood that begins small begins with so many frames a second.
const SMALL_PPS: f64 = 50.0;
/// Frames of a call.
const BATCH: usize = 64;

/// Sends one.
#[derive(Debug)]
pub struct Sender {
    flood: Flood,
    most_pps: f64,
    socket: OwnedFd,
    /// Of Ethernet: the receiver's and ours.
    addresses: [u8; 12],
    random: Random,
}

impl Sender {
    /// One that has not begun.
    pub const fn new(flood: Flood, attack_pps: f64, socket: OwnedFd, addresses: [u8; 12], seed: u64) -> Self {
        Self { flood, most_pps: flood.of_attack * attack_pps, socket, addresses, random: Random(seed) }
    }

    /// Sends until the end, and says how many were sent. Who is late by more than a tenth of a second leaves frames out.
    pub fn send(mut self, begin: Instant, end: Instant, stretch: f64) -> u64 {
        // condition: its time.
        std::thread::sleep(begin.saturating_duration_since(Instant::now()));
        let (mut sent, mut due, mut then) = (0, 0.0, begin);
        while Instant::now() < end {
            let now = Instant::now();
            let at = now.duration_since(begin).as_secs_f64();
            let pps = self.pps(at, stretch);
            due = (due + pps * now.duration_since(then).as_secs_f64()).min(pps * 0.1 + 1.0);
            then = now;
            while due >= 1.0 {
                let count = (due as usize).min(BATCH);
                let frames: Vec<_> = (0..count).map(|_| self.frame(at / stretch)).collect();
                sent += send_all(&self.socket, &frames);
                due -= count as f64;
            }
            // condition: the pace.
            std::thread::sleep(Duration::from_millis(1));
        }
        sent
    }

    fn pps(&self, at: f64, stretch: f64) -> f64 {
        match self.flood.doubles_every {
            None => self.most_pps,
            Some(every) => (SMALL_PPS * (at / (every * stretch)).exp2()).min(self.most_pps),
        }
    }

    fn frame(&mut self, at: f64) -> Vec<u8> {
        let (ends, protocol, fragment, payload) = self.packet(at);
        let mac = [0; 6];
        let mut frame = frame(mac, ends, protocol, fragment, &payload);
        frame[..12].copy_from_slice(&self.addresses);
        fill_checksums(&mut frame);
        frame
    }

    fn packet(&mut self, at: f64) -> (Ends, u8, u16, Vec<u8>) {
        let kind = self.flood.kind;
        let random = &mut self.random;
        let from = |source: Ipv4Addr, hops| Ends { source: source.into(), destination: SERVER_V4.into(), hops };
        match kind {
            Kind::BareSyn => {
                let hops = random.one_of(&[242, 244]);
                (from(forged(random, 300_000), hops), TCP, 0, syn(random, &[]))
            }
            Kind::OfferingSyn => {
                let options = random.one_of(&OFFERS);
                let source = match random.part() < 0.1 {
                    true => customers_neighbour(random),
                    false => forged(random, 1 << 24),
                };
                let hops = random.number(30..250) as u8;
                (from(source, hops), TCP, 0, syn(random, options))
            }
            Kind::Amplified | Kind::AmplifiedDns => {
                let all: u32 = AMPLIFIERS.iter().map(|(_, addresses, _)| addresses).sum();
                let mut index = (random.part() * f64::from(all)) as u32;
                if kind == Kind::AmplifiedDns {
                    index %= AMPLIFIERS[0].1;
                }
                let source = address(index);
                let mut rest = index;
                let (port, _, lengths) = AMPLIFIERS
                    .iter()
                    .find(|(_, addresses, _)| {
                        let is_it = rest < *addresses;
                        rest = rest.saturating_sub(*addresses);
                        is_it
                    })
                    .unwrap_or(&AMPLIFIERS[0]);
                let length = usize::from(random.number(lengths.clone()));
                match random.part() < 0.25 {
                    true => (from(source, 50 + (index % 60) as u8), UDP, LATER, vec![b'a'; length]),
                    false => {
                        let datagram = udp((*port, random.port()), length);
                        (from(source, 50 + (index % 60) as u8), UDP, 0, datagram)
                    }
                }
            }
            Kind::SynAck => {
                let index = (random.part() * 7_055.0) as u32;
                let flags = match random.part() {
                    part if part < 0.83 => SYN | ACK,
                    part if part < 0.96 => RST,
                    _ => ACK,
                };
                let ports = (random.one_of(&[80, 443]), random.port());
                let options: &[u8] = if flags == SYN | ACK { &[2, 4, 5, 180] } else { &[] };
                let numbers = (random.bits() as u32, random.bits() as u32);
                let segment = tcp(&Segment { ports, numbers, flags, options, data: 0 });
                (from(address(index), 40 + (index % 80) as u8), TCP, 0, segment)
            }
            Kind::Machines => {
                let index = (random.part() * 2_000.0) as u32;
                let data = usize::from(random.number(64..1_400));
                let (hops, port) = (40 + (index % 80) as u8, 1_024 + (index.wrapping_mul(7_919) % 60_000) as u16);
                match random.part() < 0.5 {
                    true => (from(address(index), hops), UDP, 0, udp((port, random.port()), data)),
                    false => (from(address(index), hops), TCP, 0, stray(random, port, data)),
                }
            }
            Kind::Ack => {
                let port = random.port();
                (from(forged(random, 1 << 24), 64), TCP, 0, stray(random, port, 0))
            }
            Kind::Carpet => {
                let half = (at / 2.0) as u32 % 2;
                let number = (random.part() * 32.0) as u32 * 2 + half;
                let destination = Ipv4Addr::from(u32::from(CARPET) + number).into();
                let ends = Ends { destination, ..from(forged(random, 1 << 20), random.number(40..120) as u8) };
                let (ports, length) = ((random.port(), random.port()), usize::from(random.number(64..512)));
                (ends, UDP, 0, udp(ports, length))
            }
            Kind::Rotating => {
                let subnet = (at / 2.0) as u128 & 0xff;
                let source = ROTATING | subnet << 64 | u128::from(random.bits());
                let ends = Ends { source: Ipv6Addr::from(source).into(), destination: SERVER_V6.into(), hops: 55 };
                match random.part() < 0.5 {
                    true => (ends, UDP, 0, udp((random.port(), random.port()), usize::from(random.number(64..512)))),
                    false => (ends, TCP, 0, syn(random, OFFERS[0])),
                }
            }
        }
    }
}

/// The /56 of the rotating flood, in the same /40 as customers.
const ROTATING: u128 = 0x2a10_0100_00ff_ff00 << 64;

fn syn(random: &mut Random, options: &[u8]) -> Vec<u8> {
    tcp(&Segment { ports: (random.port(), WEB), numbers: (random.bits() as u32, 0), flags: SYN, options, data: 0 })
}

/// A segment of no connection.
fn stray(random: &mut Random, port: u16, data: usize) -> Vec<u8> {
    let numbers = (random.bits() as u32, random.bits() as u32);
    let flags = if data > 0 { ACK | PSH } else { ACK };
    tcp(&Segment { ports: (port, WEB), numbers, flags, options: &[], data })
}

/// Addresses that nothing leads to: the world's end swallows what is sent there.
fn address(index: u32) -> Ipv4Addr {
    // Spread over the range, another one for each index.
    Ipv4Addr::from(0x0b00_0000 | (index.wrapping_mul(0x009e_3779) & 0x00ff_ffff))
}

fn forged(random: &mut Random, sources: u32) -> Ipv4Addr {
    address((random.part() * f64::from(sources)) as u32)
}

/// Somebody in a network where customers are.
fn customers_neighbour(random: &mut Random) -> Ipv4Addr {
    let network = super::legit::network_of((random.part() * 10_000.0) as u32);
    Ipv4Addr::from(network | u32::from(random.number(1..255)))
}

/// Computes the checksums of an IPv4 header and of TCP and UDP: a stack drops the packet else, unseen.
fn fill_checksums(frame: &mut [u8]) {
    let (network, length, protocol, is_later) = match frame.get(12..14) {
        Some([0x08, 0x00]) => {
            let sum = !folded(words(&frame[14..34]));
            frame[24..26].copy_from_slice(&sum.to_be_bytes());
            (26..34, 20, frame[23], u16::from_be_bytes([frame[20], frame[21]]) & 0x1fff != 0)
        }
        _ => (22..54, 40, frame[20], false),
    };
    let at = 14 + length + if protocol == TCP { 16 } else { 6 };
    if is_later || frame.len() < at + 2 {
        return;
    }
    let transport = (frame.len() - 14 - length) as u64;
    let sum = words(&frame[network]) + u64::from(protocol) + transport + words(&frame[14 + length..]);
    let sum = !folded(sum);
    frame[at..at + 2].copy_from_slice(&if sum == 0 { 0xffff_u16 } else { sum }.to_be_bytes());
}

fn words(bytes: &[u8]) -> u64 {
    let pair = |pair: &[u8]| u64::from(pair[0]) << 8 | pair.get(1).map_or(0, |low| u64::from(*low));
    bytes.chunks(2).map(pair).sum()
}

fn folded(mut sum: u64) -> u16 {
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    sum as u16
}

/// Hands frames to the kernel in one call; how many it took. A full ring loses the rest, as a link does.
fn send_all(socket: &OwnedFd, frames: &[Vec<u8>]) -> u64 {
    let mut parts: Vec<_> =
        frames.iter().map(|frame| libc::iovec { iov_base: frame.as_ptr() as *mut _, iov_len: frame.len() }).collect();
    let message = |part: &mut libc::iovec| {
        // SAFETY: integers and pointers, for which zero is a value.
        let mut message: libc::mmsghdr = unsafe { std::mem::zeroed() };
        message.msg_hdr.msg_iov = part;
        message.msg_hdr.msg_iovlen = 1;
        message
    };
    let mut messages: Vec<_> = parts.iter_mut().map(message).collect();
    // SAFETY: as many messages as are told; each points to one part, that to a frame, and all outlive the call.
    let sent = unsafe { libc::sendmmsg(socket.as_raw_fd(), messages.as_mut_ptr(), messages.len() as u32, 0) };
    u64::try_from(sent).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn checksums_are_those_of_another_implementation() {
        let ends = Ends { source: [11, 0, 0, 1].into(), destination: SERVER_V4.into(), hops: 64 };
        let segment = tcp(&Segment { ports: (7, 8), numbers: (9, 0), flags: SYN, options: OFFERS[1], data: 3 });
        let mut made = frame([2, 0, 0, 0, 0, 1], ends, TCP, 0, &segment);
        fill_checksums(&mut made);
        let (ip, rest) = etherparse::Ipv4Header::from_slice(&made[14..]).unwrap();
        assert_eq!(ip.calc_header_checksum(), ip.header_checksum);
        let (header, data) = etherparse::TcpHeader::from_slice(rest).unwrap();
        assert_eq!(header.calc_checksum_ipv4(&ip, data).unwrap(), header.checksum);
    }
}

//! What a flood looks like to whoever may filter it before it is here: what its packets have in common, how much it is, and the
//! networks that it comes from, where these mean something. Small, whatever the flood is.

use std::collections::{HashMap, HashSet};
use std::hash::Hash;
use std::net::{Ipv4Addr, Ipv6Addr};

use floodwall_common::packet::Source;
use floodwall_common::signatures::Fragment;
use serde::{Deserialize, Serialize};

use crate::detect::{Observed, Vector};
use crate::signatures::flag_names;

/// Values of one field that are named, and the share that each has at least.
const VALUES: usize = 3;
const FREQUENT: f64 = 0.05;
/// The share that the frequent values have together; else the range of all of them says more.
const MOST: f64 = 0.5;
/// Networks of each width that are named, the share that each has at least, and packets that it was seen in.
const NETWORKS: usize = 5;
const NAMED: f64 = 0.01;
const SEEN: usize = 5;
/// The latest packets, among which sources are counted.
const LATEST: usize = 1 << 12;
/// Different sources by packets, from which on addresses are used once and thrown away.
const ONCE: f64 = 0.8;

/// What the packets of one kind of flood have in common. Of a field the most frequent values, at most three, each with its share of
/// the packets; or the range of all, such as `64 to 1400`, where no few values have half of them. Empty where no packet has the field.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Shape {
    /// Which kind.
    pub vector: Vector,
    /// Packets a second.
    pub packets_per_second: f64,
    /// Megabits of IP a second: these packets, by the mean length of the samples.
    pub megabits_per_second: f64,
    /// IP protocols, by name.
    pub protocols: Vec<(String, f64)>,
    /// Source ports.
    pub source_ports: Vec<(String, f64)>,
    /// Destination ports.
    pub destination_ports: Vec<(String, f64)>,
    /// Lengths of the IP packets, in bytes.
    pub lengths: Vec<(String, f64)>,
    /// Times to live as they arrive here.
    pub hops: Vec<(String, f64)>,
    /// TCP flags.
    pub flags: Vec<(String, f64)>,
    /// The share of fragments, first and later ones.
    pub fragments: f64,
    /// The networks that most of it claims to come from: /24 and /48, then wider ones (/16 and /32) that those are not most of. At most
    /// five of each, and none where addresses are used once.
    pub networks: Vec<(String, f64)>,
    /// Hardly any source was seen twice, and no few networks have most of them: forged addresses, most likely.
    pub is_forged: bool,
}

impl Shape {
    /// That of these packets, the latest last. `None` where there are none, and of floods whose packets look like those of customers.
    pub fn of<'a>(
        vector: Vector,
        packets_per_second: f64,
        packets: impl DoubleEndedIterator<Item = &'a Observed>,
    ) -> Option<Self> {
        if matches!(vector, Vector::HttpFlood | Vector::SlowConnections) {
            return None;
        }
        let mut fields = Fields::default();
        packets.rev().for_each(|packet| fields.take(packet));
        (fields.samples > 0).then(|| fields.shape(vector, packets_per_second))
    }

    /// In words: a line for each field that it has.
    pub fn lines(&self) -> Vec<String> {
        let fields = [
            ("protocol", &self.protocols, ""),
            ("source port", &self.source_ports, ""),
            ("destination port", &self.destination_ports, ""),
            ("length", &self.lengths, " bytes"),
            ("TTL", &self.hops, ""),
            ("TCP flags", &self.flags, ""),
        ];
        let fields = fields.into_iter().filter(|(_, values, _)| !values.is_empty());
        let mut lines: Vec<_> =
            fields.map(|(name, values, unit)| format!("{name}: {}{unit}", in_words(values))).collect();
        if self.fragments >= FREQUENT {
            lines.push(format!("fragments: {:.0} %", self.fragments * 100.0));
        }
        lines.push(match (self.is_forged, self.networks.is_empty()) {
            (true, _) => "from: addresses that are used once, forged most likely. No prefix is of use: please look by which of your \
                          links it enters"
                .to_owned(),
            (false, true) => "from: no network that has 1 % of it".to_owned(),
            (false, false) => format!("from: {}", in_words(&self.networks)),
        });
        lines
    }

    /// How much it is, in words.
    pub fn volume(&self) -> String {
        format!("{:.0} packets a second, {:.1} Mbit/s", self.packets_per_second, self.megabits_per_second)
    }
}

/// Values with their shares; of what all have, the share is not said.
fn in_words(values: &[(String, f64)]) -> String {
    let word = |(value, share): &(String, f64)| match *share {
        share if share >= 0.995 => value.clone(),
        share => format!("{value} ({:.0} %)", share * 100.0),
    };
    values.iter().map(word).collect::<Vec<_>>().join(", ")
}

/// An IP protocol, by name.
pub(crate) fn protocol_name(protocol: u8) -> String {
    match protocol {
        1 => "ICMP".to_owned(),
        6 => "TCP".to_owned(),
        17 => "UDP".to_owned(),
        47 => "GRE".to_owned(),
        58 => "ICMPv6".to_owned(),
        other => format!("IP protocol {other}"),
    }
}

/// What is counted: of each value the packets that have it.
#[derive(Default)]
struct Fields {
    samples: usize,
    packets: f64,
    bytes: f64,
    fragments: f64,
    protocols: HashMap<u8, f64>,
    source_ports: HashMap<u16, f64>,
    destination_ports: HashMap<u16, f64>,
    lengths: HashMap<u16, f64>,
    hops: HashMap<u16, f64>,
    flags: HashMap<u8, f64>,
    sources: HashSet<(u64, u64)>,
    /// Packets and samples of each network, of the latest.
    networks: HashMap<Network, (f64, usize)>,
    latest: f64,
}

impl Fields {
    fn take(&mut self, packet: &Observed) {
        let weight = f64::from(packet.weight);
        self.samples += 1;
        self.packets += weight;
        self.bytes += weight * f64::from(packet.length);
        if packet.fragment != Fragment::None {
            self.fragments += weight;
        }
        *self.protocols.entry(packet.protocol).or_default() += weight;
        *self.lengths.entry(packet.length).or_default() += weight;
        *self.hops.entry(packet.hops.into()).or_default() += weight;
        if let Some((from, to)) = packet.ports {
            *self.source_ports.entry(from).or_default() += weight;
            *self.destination_ports.entry(to).or_default() += weight;
        }
        if let Some(flags) = packet.flags {
            *self.flags.entry(flags).or_default() += weight;
        }
        if self.samples <= LATEST {
            self.latest += weight;
            self.sources.insert(packet.source.halves());
            for network in [Network::narrow(packet.source), Network::wide(packet.source)] {
                let (packets, samples) = self.networks.entry(network).or_default();
                *packets += weight;
                *samples += 1;
            }
        }
    }

    fn shape(self, vector: Vector, packets_per_second: f64) -> Shape {
        let all = self.packets;
        // Later fragments are of the same senders' answers, more often than not.
        let is_reflected = matches!(vector, Vector::Amplification | Vector::TcpReflection | Vector::FragmentFlood);
        let are_used_once = self.sources.len() as f64 >= ONCE * self.samples.min(LATEST) as f64;
        let networks = named(&self.networks, self.latest);
        let covers: f64 = networks.iter().map(|(_, share)| share).sum();
        // Reflectors are who they say, however many they are.
        let is_forged = are_used_once && !is_reflected && covers < MOST;
        Shape {
            vector,
            packets_per_second,
            megabits_per_second: packets_per_second * (self.bytes / all) * 8.0 / 1e6,
            protocols: frequent(&self.protocols, all, |protocol| protocol_name(*protocol)),
            source_ports: frequent_or_range(&self.source_ports, all),
            destination_ports: frequent_or_range(&self.destination_ports, all),
            lengths: frequent_or_range(&self.lengths, all),
            hops: frequent_or_range(&self.hops, all),
            flags: frequent(&self.flags, all, |flags| flag_names(*flags)),
            fragments: self.fragments / all,
            networks: if is_forged { Vec::new() } else { networks },
            is_forged,
        }
    }
}

/// The most frequent values, those with the largest share first.
fn frequent<T: Ord>(counts: &HashMap<T, f64>, all: f64, write: impl Fn(&T) -> String) -> Vec<(String, f64)> {
    let mut frequent: Vec<_> = counts.iter().filter(|(_, weight)| **weight >= FREQUENT * all).collect();
    frequent.sort_by(|a, b| b.1.total_cmp(a.1).then_with(|| a.0.cmp(b.0)));
    frequent.into_iter().take(VALUES).map(|(value, weight)| (write(value), weight / all)).collect()
}

/// The same of numbers; where these have too little of it, the range of all.
fn frequent_or_range(counts: &HashMap<u16, f64>, all: f64) -> Vec<(String, f64)> {
    let frequent = frequent(counts, all, u16::to_string);
    // What has no ports is no part of their share.
    let having: f64 = counts.values().sum();
    if frequent.iter().map(|(_, share)| share).sum::<f64>() * all >= MOST * having {
        return frequent;
    }
    let range = counts.keys().min().zip(counts.keys().max());
    range.map(|(first, last)| (format!("{first} to {last}"), having / all)).into_iter().collect()
}

/// A network, by the upper bits of its addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
enum Network {
    V4(u32, u8),
    V6(u64, u8),
}

impl Network {
    const fn narrow(source: Source) -> Self {
        match source {
            Source::V4(address) => Self::V4(address & !0xff, 24),
            Source::V6(upper, _) => Self::V6(upper & !0xffff, 48),
        }
    }

    const fn wide(source: Source) -> Self {
        match source {
            Source::V4(address) => Self::V4(address & !0xffff, 16),
            Source::V6(upper, _) => Self::V6(upper & !0xffff_ffff, 32),
        }
    }

    /// The wide one that a narrow one is part of.
    const fn around(self) -> Self {
        match self {
            Self::V4(address, _) => Self::wide(Source::V4(address)),
            Self::V6(upper, _) => Self::wide(Source::V6(upper, 0)),
        }
    }

    const fn is_narrow(self) -> bool {
        matches!(self, Self::V4(_, 24) | Self::V6(_, 48))
    }

    fn name(self) -> String {
        match self {
            Self::V4(address, length) => format!("{}/{length}", Ipv4Addr::from(address)),
            Self::V6(upper, length) => format!("{}/{length}", Ipv6Addr::from(u128::from(upper) << 64)),
        }
    }
}

/// The networks with most of the packets: narrow ones, then wide ones that these are less than half of.
fn named(networks: &HashMap<Network, (f64, usize)>, all: f64) -> Vec<(String, f64)> {
    let is_named = |(_, (packets, samples)): &(&Network, &(f64, usize))| *packets >= NAMED * all && *samples >= SEEN;
    let mut found: Vec<_> =
        networks.iter().filter(is_named).map(|(network, (packets, _))| (*network, *packets)).collect();
    found.sort_by(|a, b| b.1.total_cmp(&a.1).then_with(|| a.0.cmp(&b.0)));
    let (mut narrow, mut wide): (Vec<_>, Vec<_>) = found.into_iter().partition(|(network, _)| network.is_narrow());
    narrow.truncate(NETWORKS);
    wide.retain(|(around, packets)| {
        let inside: f64 = narrow.iter().filter(|(network, _)| network.around() == *around).map(|(_, of)| of).sum();
        inside < MOST * packets
    });
    wide.truncate(NETWORKS);
    narrow.into_iter().chain(wide).map(|(network, packets)| (network.name(), packets / all)).collect()
}

/// Where most of the packets go to: addresses, or networks (/24, /48) where these are many.
pub fn destinations<'a>(packets: impl Iterator<Item = &'a Observed>) -> Vec<(String, f64)> {
    let (mut addresses, mut networks) = (HashMap::new(), HashMap::new());
    let mut all = 0.0;
    for packet in packets {
        let weight = f64::from(packet.weight);
        all += weight;
        addresses.entry(packet.destination.halves()).or_insert((packet.destination, 0.0)).1 += weight;
        *networks.entry(Network::narrow(packet.destination)).or_insert(0.0_f64) += weight;
    }
    let addresses =
        addresses.into_values().map(|(address, weight)| (crate::explain::address_of(address).to_string(), weight));
    let addresses = largest(addresses, all);
    if addresses.iter().map(|(_, share)| share).sum::<f64>() >= MOST {
        return addresses;
    }
    largest(networks.into_iter().map(|(network, weight)| (network.name(), weight)), all)
}

fn largest(weights: impl Iterator<Item = (String, f64)>, all: f64) -> Vec<(String, f64)> {
    let mut shares: Vec<_> = weights.map(|(name, weight)| (name, weight / all)).collect();
    shares.retain(|(_, share)| *share >= NAMED);
    shares.sort_by(|a, b| b.1.total_cmp(&a.1).then_with(|| a.0.cmp(&b.0)));
    shares.truncate(NETWORKS);
    shares
}

#[cfg(test)]
mod tests {
    use super::*;

    const SYN: u8 = 0x02;

    fn shape(vector: Vector, packets: &[Observed]) -> Shape {
        Shape::of(vector, 10_000.0, packets.iter()).unwrap_or_else(|| panic!("none of {} packets", packets.len()))
    }

    #[test]
    fn who_has_many_addresses_of_one_network_is_named_by_it() {
        // Each address once, spread over a /16: no /24 of it stands out.
        let wide: Vec<_> = (0..2_000).map(|n: u32| Observed::segment(0x1400_0000 + n * 31, 1, 0, SYN)).collect();
        let found = shape(Vector::SynFlood, &wide);
        assert_eq!((found.networks, found.is_forged), (vec![("20.0.0.0/16".to_owned(), 1.0)], false));
        // Two of one /24, which is then all that there is of its /16.
        let few: Vec<_> = (0..100).map(|n: u32| Observed::segment(0x1400_0001 + n % 2, 1, 0, SYN)).collect();
        assert_eq!(shape(Vector::SynFlood, &few).networks, [("20.0.0.0/24".to_owned(), 1.0)]);
    }

    #[test]
    fn what_reflectors_send_is_not_called_forged() {
        let once: Vec<_> = (1..=500_u32).map(|n| Observed::segment(n.wrapping_mul(2_654_435_761), 1, 0, SYN)).collect();
        assert!(shape(Vector::SynFlood, &once).is_forged && shape(Vector::UdpFlood, &once).is_forged);
        for vector in [Vector::Amplification, Vector::TcpReflection, Vector::FragmentFlood] {
            let found = shape(vector, &once);
            assert!(!found.is_forged && found.networks.is_empty(), "{found:?}");
            assert!(found.lines().contains(&"from: no network that has 1 % of it".to_owned()), "{found:?}");
        }
    }

    #[test]
    fn what_differs_is_a_range_and_what_few_share_is_named() {
        let packet = |n: u32| Observed { length: 100 + n as u16, ..Observed::segment(1, 7 + n as u16 % 2, 0, SYN) };
        let found = shape(Vector::TcpFlood, &(0..900).map(packet).collect::<Vec<_>>());
        assert_eq!(found.lengths, [("100 to 999".to_owned(), 1.0)]);
        assert_eq!(found.source_ports, [("7".to_owned(), 0.5), ("8".to_owned(), 0.5)]);
        assert_eq!(found.flags, [("SYN".to_owned(), 1.0)]);
        // 10,000 packets of 549.5 bytes.
        assert!((found.megabits_per_second - 43.96).abs() < 0.01, "{}", found.megabits_per_second);
    }

    #[test]
    fn of_many_addresses_their_network_is_the_destination() {
        let to =
            |last: u32| Observed { destination: Source::V4(0xcb00_7100 + last), ..Observed::segment(1, 1, 0, SYN) };
        let all: Vec<_> = (0..64).map(to).collect();
        assert_eq!(destinations(all[..2].iter()), [("203.0.113.0".to_owned(), 0.5), ("203.0.113.1".to_owned(), 0.5)]);
        assert_eq!(destinations(all.iter()), [("203.0.113.0/24".to_owned(), 1.0)]);
    }
}

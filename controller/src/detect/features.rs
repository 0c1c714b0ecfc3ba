//! What the packets of the last second have in common: numbers that a flood cannot keep where customers have them.

use std::collections::{HashMap, HashSet, VecDeque};

use floodwall_common::packet::Source;
use floodwall_common::signatures::Fragment;

use super::evidence::Vector;
use super::handshakes::{Followed, Handshakes};
use super::held::Held;
use super::observed::{Group, Observed, Rates, Tuple, is_amplifier};
use super::openers::{Following, Openers};
use super::room::make_room;
use super::unlike::{Looks, Unlike};
use super::week::Week;
use crate::pressure::Pressure;

/// How far it looks back.
pub const WINDOW_NS: u64 = 1_000_000_000;
/// Packets that are kept at most: whatever comes, the cost is bounded.
const CAPACITY: usize = 1 << 16;
/// Samples of a group that its sources are counted among: of all of them, as many reflectors would look like an exchange as soon as
/// they send enough.
const SPREAD: usize = 1 << 12;
/// Bits below the network of a source: the /16 of an IPv4 address, and the /48 of an IPv6 one, whose key is its /64.
const NETWORK_BITS: u32 = 16;
/// Bytes of a packet that is large.
const LARGE: u16 = 1_000;
/// Peers that are remembered as spoken with.
const PEERS: usize = 1 << 16;
/// For how long they are.
const PEER_NS: u64 = 3_600_000_000_000;
/// Good packets that are kept.
const GOOD: usize = 1 << 14;
/// Of so many good packets one is kept.
pub const ONE_GOOD_OF: usize = 4;
/// How long nothing has to be found until what came is good.
const TRIAL_NS: u64 = 5_000_000_000;

/// The packets of one group.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Aggregate {
    /// How many in the window, with those that the samples stand for.
    pub packets: f64,
    /// Samples of them.
    pub samples: usize,
    /// A second.
    pub per_second: f64,
    /// Share of all packets in the window.
    pub share: f64,
    /// Different sources among the latest samples.
    pub sources: usize,
    /// Samples of a source, on average.
    pub per_source: f64,
    /// Entropy of the sources by the most that it could be: 0 is one source, 1 is a new one for each packet.
    pub entropy: f64,
    /// Entropy of the networks of the sources (/16, /48) by the most that it could be: of forged addresses as much as of the sources, of
    /// many clients less.
    pub networks: f64,
    /// Samples of a source: what half of them, and 99 of 100, do not exceed.
    pub of_source: [u32; 2],
    /// How unlike the good packets of the group that were kept these are; `None` where either are too few.
    pub unlike: Option<Unlike>,
    /// The source that sends most, and its share.
    pub top_source: Option<(Source, f64)>,
    /// The source port that most come from, and their share.
    pub source_port: Option<(u16, f64)>,
    /// The destination port that most go to, and their share.
    pub destination_port: Option<(u16, f64)>,
    /// The share of the most frequent length.
    pub one_length: f64,
    /// The share that begins with the same bytes behind its headers, and answers nothing that was sent from here.
    pub one_beginning: f64,
    /// The share of 1,000 bytes and more, or in fragments.
    pub large: f64,
    /// The share of first fragments.
    pub fragmented: f64,
    /// Different destination ports of what answers nothing, by packets: 1 is a port of its own for each.
    pub new_ports: f64,
    /// Different IP protocols.
    pub protocols: usize,
    /// The share that is all of its connection in the window, and its beginning was not seen.
    pub alone: f64,
    /// The share from ports of known amplifiers.
    pub from_amplifiers: f64,
    /// The share of SYNs without TCP options.
    pub bare: f64,
    /// The share of SYN-ACKs.
    pub syn_acks: f64,
    /// The share that is from another address of the same IPv6 network each.
    pub rotating: f64,
    /// The share with headers that contradict themselves.
    pub malformed: f64,
    /// The share that is dropped already, or would be in enforce mode.
    pub held: f64,
    /// The share from ends that this host has not spoken with; `None` where that cannot be known.
    pub strangers: Option<f64>,
}

/// What a verdict is made from.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Features {
    /// All packets of the window, a second.
    pub per_second: f64,
    /// By group.
    pub groups: [Aggregate; Group::ALL.len()],
    /// Connections begun in the last seconds.
    pub handshakes: Handshakes,
    /// Who begins them.
    pub openers: Openers,
    /// What is open; `None` where nobody has looked.
    pub held: Option<Held>,
    /// What this host has no room for.
    pub pressure: Pressure,
    /// It is more than this host can take.
    pub is_pressed: bool,
    /// Connections that are completed in a second otherwise; `None` while nobody knows.
    pub usual_connections: Option<f64>,
    /// What came on of a group while a part of it was not let through, by what there was before; `None` where that was not tried.
    pub probe: Option<(Group, f64)>,
    /// The kinds of flood of the attack that goes on, or was there half a minute ago.
    pub lately: Vec<Vector>,
}

impl Features {
    /// Takes volumes from exact counts, and only the shares within a class from the sample.
    pub(super) fn scale(&mut self, rates: &Rates) {
        let mut sampled: Rates = Default::default();
        for group in Group::ALL {
            sampled[group.class() as usize] += self.groups[group as usize].packets;
        }
        self.per_second = rates.iter().sum();
        for group in Group::ALL {
            let (of, class) = (&mut self.groups[group as usize], group.class() as usize);
            of.per_second = rates[class] * of.packets / sampled[class].max(1.0);
            of.share = of.per_second / self.per_second.max(1.0);
        }
    }

    /// The share of UDP, with the later fragments of it.
    pub fn share_of_udp(&self) -> f64 {
        // Nothing else comes in fragments.
        let fragments = self.of(Group::Fragments).share;
        self.of(Group::Udp).share + if self.of(Group::Udp).fragmented > 0.5 { fragments } else { 0.0 }
    }

    /// Those of a group.
    pub fn of(&self, group: Group) -> &Aggregate {
        &self.groups[group as usize]
    }
}

/// The packets of the last second.
#[derive(Default)]
pub struct Window {
    packets: VecDeque<(Group, Observed)>,
    followed: Followed,
    following: Following,
    /// Who is spoken with, and when something came from there last.
    peers: HashMap<u64, u64>,
    /// Who has sent UDP replies lately, and when: their later fragments are of these.
    repliers: HashMap<u64, u64>,
    /// Some of what came while nothing was going on, from all of the last minutes.
    good: VecDeque<Observed>,
    good_seen: usize,
    /// What they look like, by group.
    good_looks: [Looks; Group::ALL.len()],
    /// What came lately: good, if nothing is found for a while.
    on_trial: VecDeque<Observed>,
    /// Good packets of the last two weeks, and the hour since 1970 that it is; `None` where there is no knowing.
    pub(super) week: Week,
    pub(super) unix_hour: Option<u64>,
}

impl Window {
    /// One that knows from before what is good.
    pub(super) fn knowing(week: Week) -> Self {
        Self { week, ..Self::default() }
    }

    /// Takes a packet in.
    pub fn take(&mut self, packet: Observed) {
        self.following.take(&packet);
        self.followed.take(&packet);
        if packet.is_known == Some(true) {
            let key = packet.source.key();
            make_room(&mut self.peers, &key, PEERS, |last_ns| *last_ns);
            self.peers.insert(key, packet.at_ns);
        }
        if self.packets.len() >= CAPACITY {
            self.packets.pop_front();
        }
        let group = self.group(&packet);
        self.packets.push_back((group, packet));
    }

    /// The packets that it holds, and what each is part of.
    pub fn packets(&self) -> impl DoubleEndedIterator<Item = &(Group, Observed)> {
        self.packets.iter()
    }

    /// What came while nothing was going on, in the last minutes.
    pub fn good(&self) -> &VecDeque<Observed> {
        &self.good
    }

    /// The same of the last two weeks, without the last minutes: some of each hour. No rate can be made of them.
    pub fn good_of_the_week(&self) -> impl Iterator<Item = &Observed> {
        self.week.before(self.good.front().map_or(u64::MAX, |oldest| oldest.at_ns))
    }

    /// Hours of the week that there are some good packets of.
    pub fn hours_of_the_week(&self) -> usize {
        self.week.hours()
    }

    /// Whether somebody of this source's network was a client before what goes on now began.
    pub fn was_here(&self, source: Source) -> bool {
        self.following.was_here(source)
    }

    /// Sources that begin connections again and again, of whose networks nobody was here before, and that nothing holds yet: all of
    /// them, or machines alone.
    pub fn persistent(&self, only_machines: bool) -> Vec<Source> {
        self.following.persistent(only_machines)
    }

    /// Keeps a packet that has been in the window for all of its time, and nothing was found.
    fn keep(&mut self, packet: Observed) {
        // Segments of no connection, from where this host has never sent any data, are nobody's: who sends some before his flood does not have
        // it taken for good.
        if packet.group() == Group::Tcp && (packet.is_known, packet.is_verified) == (Some(false), Some(false)) {
            return;
        }
        self.good_seen += 1;
        if self.good_seen.is_multiple_of(ONE_GOOD_OF) {
            self.on_trial.push_back(packet);
        }
    }

    /// What came a while ago and nothing was found since is good. What came just before something was found is part of it.
    fn try_good(&mut self, now_ns: u64, is_quiet: bool) {
        if !is_quiet {
            self.on_trial.clear();
        }
        while let Some(packet) = self.on_trial.pop_front_if(|packet| now_ns.saturating_sub(packet.at_ns) > TRIAL_NS) {
            if self.good.len() >= GOOD {
                let gone = self.good.pop_front();
                gone.iter().for_each(|gone| self.good_looks[gone.group() as usize].remove(gone));
            }
            self.good_looks[packet.group() as usize].add(&packet);
            self.good.push_back(packet);
            // What is dropped anyway is lost by no measure.
            if let Some(hour) = self.unix_hour.filter(|_| !packet.is_held) {
                self.week.take(hour, &packet);
            }
        }
    }

    /// What a packet is part of. A later fragment is of what its source has sent before.
    fn group(&mut self, packet: &Observed) -> Group {
        let (group, key) = (packet.group(), packet.source.key());
        let is_recent = |at_ns: &u64| packet.at_ns.saturating_sub(*at_ns) < WINDOW_NS;
        match group {
            Group::UdpReplies if self.repliers.len() < CAPACITY => {
                self.repliers.insert(key, packet.at_ns);
                group
            }
            Group::Fragments if self.repliers.get(&key).is_some_and(is_recent) => Group::UdpReplies,
            _ => group,
        }
    }

    /// What they have in common. Lets go of those that are too old; where nothing is going on, some of them stay as what is good.
    /// `is_answered` tells whether this host has sent anything on a connection, where that is seen.
    pub fn features(&mut self, now_ns: u64, is_quiet: bool, is_answered: Option<&dyn Fn(&Tuple) -> bool>) -> Features {
        self.peers.retain(|_, at_ns| now_ns.saturating_sub(*at_ns) < PEER_NS);
        self.repliers.retain(|_, at_ns| now_ns.saturating_sub(*at_ns) < WINDOW_NS);
        while let Some((_, packet)) = self.packets.front().copied() {
            if now_ns.saturating_sub(packet.at_ns) <= WINDOW_NS {
                break;
            }
            self.packets.pop_front();
            if is_quiet {
                self.keep(packet);
            }
        }
        self.try_good(now_ns, is_quiet);
        self.followed.expire(now_ns);
        self.following.expire(now_ns, is_quiet);
        let mut counts: [Counts; Group::ALL.len()] = Default::default();
        for (group, packet) in self.packets.iter().rev() {
            let has_begun = packet.tuple().is_some_and(|tuple| self.followed.has_begun(&tuple));
            counts[*group as usize].take(packet, self.is_stranger(packet), has_begun);
        }
        let all: f64 = counts.iter().map(|counts| counts.packets).sum();
        let mut good = self.good_looks.iter();
        Features {
            per_second: all / (WINDOW_NS as f64 / 1e9),
            groups: counts.map(|counts| counts.aggregate(all, good.next())),
            handshakes: self.followed.shares(now_ns, is_answered),
            openers: self.following.features(now_ns),
            ..Features::default()
        }
    }

    /// The networks that were here, for the daemon after this one.
    pub(super) fn networks(&self, unix_s: u64) -> Vec<u8> {
        self.following.to_bytes(unix_s)
    }

    /// Those that the daemon before this one knew.
    pub(super) fn take_over(&mut self, networks: &[u8], unix_s: u64, now_ns: u64) -> Option<()> {
        self.following.take_over(networks, unix_s, now_ns)
    }

    /// What is open, and who of those that hold it was here before.
    pub(super) fn judge(&mut self, held: Held) -> Held {
        self.following.are_there(&held.sources);
        held.judged(self.following.newcomers())
    }

    /// Whether this host has not spoken with the end that it is from, nor that end begun a connection. Of the first packet to a
    /// service nobody can say: `None`.
    fn is_stranger(&self, packet: &Observed) -> Option<bool> {
        let is_known = match packet.ports {
            // Whoever is spoken with otherwise is no stranger.
            None => packet.is_known.map(|_| self.peers.contains_key(&packet.source.key())),
            Some(_) => packet.is_known,
        }?;
        let has_begun = || packet.tuple().is_some_and(|tuple| self.followed.has_begun(&tuple));
        match is_known || has_begun() {
            false if packet.is_to_service => None,
            is_known => Some(!is_known),
        }
    }
}

#[cfg(test)]
impl Window {
    /// One that begins where another has kept these good packets, each with the hour since 1970 that it came in.
    pub(crate) fn after_restart(good: &[(u64, Observed)]) -> Self {
        let mut week = Week::default();
        good.iter().for_each(|(hour, packet)| week.take(*hour, packet));
        let kept = week.changed().and_then(|bytes| Week::of_bytes(&bytes, good.last()?.0));
        Self::knowing(kept.unwrap_or_default())
    }
}

/// What is counted of a group.
#[derive(Default)]
struct Counts {
    packets: f64,
    samples: usize,
    /// Of each source its packets, and samples of these.
    by_source: HashMap<(u64, u64), (Option<Source>, f64, u32)>,
    /// Packets that sources are counted among.
    spread: f64,
    looks: Looks,
    /// IPv6 addresses, and the networks that they are of.
    addresses_v6: HashSet<(u64, u64)>,
    networks_v6: HashSet<u64>,
    source_ports: HashMap<u16, f64>,
    destination_ports: HashMap<u16, f64>,
    strange_ports: HashSet<u16>,
    lengths: HashMap<u16, f64>,
    beginnings: HashMap<Option<u64>, f64>,
    /// Samples of each connection that was not seen to begin.
    unbegun: HashMap<Tuple, usize>,
    protocols: HashSet<u8>,
    large: f64,
    fragmented: f64,
    ported: f64,
    from_amplifiers: f64,
    bare: f64,
    syn_acks: f64,
    malformed: f64,
    held: f64,
    strangers: f64,
    judged: f64,
}

impl Counts {
    fn take(&mut self, packet: &Observed, is_stranger: Option<bool>, has_begun: bool) {
        let weight = f64::from(packet.weight);
        let when = |is: bool| if is { weight } else { 0.0 };
        let is_strange = packet.is_known != Some(true);
        self.packets += weight;
        self.samples += 1;
        self.looks.add(packet);
        if self.samples <= SPREAD {
            // An IPv6 source is its /64.
            let key = (packet.source.key(), packet.source.family() as u64);
            let of_source = self.by_source.entry(key).or_default();
            of_source.0.get_or_insert(packet.source);
            of_source.1 += weight;
            of_source.2 += 1;
            self.spread += weight;
            if let Source::V6(upper, lower) = packet.source {
                self.addresses_v6.insert((upper, lower));
                self.networks_v6.insert(upper);
            }
            if is_strange {
                *self.beginnings.entry(packet.beginning).or_default() += weight;
            }
            self.protocols.insert(packet.protocol);
            if let Some(tuple) = packet.tuple().filter(|_| !has_begun) {
                *self.unbegun.entry(tuple).or_default() += 1;
            }
        }
        if let Some((from, to)) = packet.ports {
            *self.source_ports.entry(from).or_default() += weight;
            *self.destination_ports.entry(to).or_default() += weight;
            if is_strange {
                self.strange_ports.insert(to);
            }
            self.ported += weight;
            self.from_amplifiers += when(is_amplifier(from));
        }
        *self.lengths.entry(packet.length).or_default() += weight;
        self.large += when(packet.length >= LARGE || packet.fragment != Fragment::None);
        self.fragmented += when(packet.fragment == Fragment::First);
        self.bare += when(packet.layout == 0);
        self.syn_acks += when(packet.is_syn_ack());
        self.malformed += when(packet.is_malformed);
        self.held += when(packet.is_held);
        if let Some(is_stranger) = is_stranger {
            self.judged += weight;
            self.strangers += when(is_stranger);
        }
    }

    fn aggregate(self, all: f64, good: Option<&Looks>) -> Aggregate {
        if self.samples == 0 {
            return Aggregate::default();
        }
        let part = |weight: f64| weight / self.packets;
        let of_spread = |weight: f64| weight / self.spread;
        let spread = self.samples.min(SPREAD) as f64;
        let most = spread.log2();
        let entropy = |weights: &mut dyn Iterator<Item = f64>| {
            let entropy: f64 = weights.map(of_spread).map(|part| -part * part.log2()).sum();
            if most > 0.0 { (entropy / most).clamp(0.0, 1.0).abs() } else { 0.0 }
        };
        let mut by_network = HashMap::<(u64, u64), f64>::new();
        for ((key, family), (_, weight, _)) in &self.by_source {
            *by_network.entry((key >> NETWORK_BITS, *family)).or_default() += weight;
        }
        let mut samples: Vec<_> = self.by_source.values().map(|(.., samples)| *samples).collect();
        samples.sort_unstable();
        let quantile = |share: f64| samples[(share * (samples.len() - 1) as f64).round() as usize];
        let top = self.by_source.values().max_by(|a, b| a.1.total_cmp(&b.1));
        Aggregate {
            packets: self.packets,
            samples: self.samples,
            per_second: self.packets / (WINDOW_NS as f64 / 1e9),
            share: self.packets / all,
            sources: self.by_source.len(),
            per_source: spread / self.by_source.len() as f64,
            entropy: entropy(&mut self.by_source.values().map(|(_, weight, _)| *weight)),
            networks: entropy(&mut by_network.into_values()),
            of_source: [quantile(0.5), quantile(0.99)],
            unlike: good.and_then(|good| self.looks.unlike(good)),
            top_source: top.and_then(|(source, weight, _)| Some(((*source)?, of_spread(*weight)))),
            source_port: top_of(&self.source_ports).map(|(port, weight)| (port, part(weight))),
            destination_port: top_of(&self.destination_ports).map(|(port, weight)| (port, part(weight))),
            one_length: top_of(&self.lengths).map_or(0.0, |(_, weight)| part(weight)),
            one_beginning: self.beginnings.values().copied().fold(0.0, f64::max) / self.spread,
            large: part(self.large),
            fragmented: part(self.fragmented),
            new_ports: self.strange_ports.len() as f64 / self.samples as f64,
            protocols: self.protocols.len(),
            alone: self.unbegun.values().filter(|count| **count == 1).count() as f64 / spread,
            from_amplifiers: self.from_amplifiers / self.ported.max(1.0),
            bare: part(self.bare),
            syn_acks: part(self.syn_acks),
            rotating: (self.addresses_v6.len() - self.networks_v6.len()) as f64 / spread,
            malformed: part(self.malformed),
            held: part(self.held),
            // A share of few of them says nothing of the rest.
            strangers: (self.judged * 2.0 >= self.packets).then(|| self.strangers / self.judged),
        }
    }
}

fn top_of(counts: &HashMap<u16, f64>) -> Option<(u16, f64)> {
    let top = counts.iter().max_by(|a, b| a.1.total_cmp(b.1).then(b.0.cmp(a.0)));
    top.map(|(value, weight)| (*value, *weight))
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u64 = 1_000_000_000;

    /// Forged addresses are of as many networks as there are addresses; clients share some.
    #[test]
    fn random_sources_are_spread_over_networks_as_evenly_as_over_addresses() {
        let spread = |source: fn(u32) -> u32| {
            let mut window = Window::default();
            for n in 0..4_000 {
                window.take(Observed::segment(source(n), 40_000, SECOND, 0x02));
            }
            let features = window.features(SECOND, true, None);
            let of = features.of(Group::Syn);
            (of.entropy, of.networks, of.of_source)
        };
        let (sources, networks, of_source) = spread(|n| n.wrapping_mul(2_654_435_761));
        assert!(sources > 0.99 && networks > 0.98 && of_source == [1, 1], "{sources} {networks} {of_source:?}");
        // As many addresses, of a hundred networks.
        let (sources, networks, _) = spread(|n| (n % 100) << 16 | n);
        assert!(sources > 0.99 && (0.5..0.6).contains(&networks), "{sources} {networks}");
        // Half come once, and the others from one address.
        let (_, _, of_source) = spread(|n| if n % 2 == 0 { n << 8 } else { 1 });
        assert_eq!(of_source, [1, 1]);
        let (_, _, of_source) = spread(|n| n % 50);
        assert_eq!(of_source, [80, 80]);
    }

    /// What is found among good packets is measured against all of these that are kept, and no others.
    #[test]
    fn looks_of_good_packets_are_of_those_that_are_kept() {
        let mut window = Window::default();
        for n in 0..12 * GOOD as u64 {
            let at_ns = n * SECOND / 4_000;
            let hops = if n < 6 * GOOD as u64 { 57 } else { 242 };
            window.take(Observed { hops, ..Observed::segment(n as u32, 40_000, at_ns, 0x10) });
            if n.is_multiple_of(1_000) {
                window.features(at_ns, true, None);
            }
        }
        assert_eq!(window.good.len(), GOOD);
        let mut looks = Looks::default();
        window.good.iter().for_each(|packet| looks.add(packet));
        let kept = &window.good_looks[Group::Tcp as usize];
        assert_eq!(kept.unlike(&looks), Some(Unlike::default()));
        let features = window.features(12 * GOOD as u64 * SECOND / 4_000, true, None);
        assert_eq!(
            features.of(Group::Tcp).unlike,
            Some(Unlike::default()),
            "and none are of those that were let go of"
        );
    }

    /// Whoever is spoken with now is no stranger when his fragments come, however many there were before; who has not been for an hour
    /// is one.
    #[test]
    fn who_is_spoken_with_now_is_known_and_who_was_long_ago_is_not() {
        let mut window = Window::default();
        let known =
            |source: u32, at_ns| Observed { is_known: Some(true), ..Observed::segment(source, 40_000, at_ns, 0x10) };
        let fragment = |source: u32, at_ns| Observed {
            fragment: Fragment::Later,
            ports: None,
            flags: None,
            is_known: Some(false),
            ..known(source, at_ns)
        };
        let peers = PEERS as u32 + 1;
        (1..=peers).for_each(|source| window.take(known(source, SECOND + u64::from(source))));
        assert_eq!(window.is_stranger(&fragment(peers, 2 * SECOND)), Some(false));
        assert_eq!(window.is_stranger(&fragment(1, 2 * SECOND)), Some(true), "who was seen longest ago");
        assert!(window.peers.len() <= PEERS);
        let later_ns = PEER_NS + 3 * SECOND;
        window.features(later_ns, true, None);
        assert_eq!(window.is_stranger(&fragment(peers, later_ns)), Some(true), "an hour later");
    }
}

//! Who begins connections: how often each source does, since when, and whether anybody of its network was a client before. What tells
//! machines that go on and on from people, and a partner gone wild from a crowd. In bounded memory, and by samples where these are
//! all there is.

mod opener;
mod over_restarts;

use std::collections::HashMap;

use floodwall_common::class::Family;
use floodwall_common::packet::Source;
use ipnet::{IpNet, Ipv4Net, Ipv6Net};

use self::opener::{Opener, Second, look};
use super::held::Holder;
use super::observed::{Group, Observed};
use super::room::make_room;

/// Sources that are followed at most. Of a flood from more than that, those stay that come back.
const CAPACITY: usize = 1 << 14;
/// Networks that are remembered at most.
const NETWORKS: usize = 1 << 16;
/// How long a network stays one that was here before.
const REGULAR_NS: u64 = 3_600_000_000_000;
/// How long it has to be known for that.
const HISTORY_NS: u64 = 10_000_000_000;
/// How long anybody has to be known until it can be said that somebody else was not here before.
const KNOWN_NS: u64 = 11_000_000_000;
const SECOND_NS: u64 = 1_000_000_000;
/// Seconds that are looked back at, and of these at what goes on now.
const SPAN: usize = 10;
const LATELY: u64 = 4;
/// One that goes on and on has begun so many connections in that time, been seen to so often, and over so long. People who open a
/// page begin a few at once, and no more while these are not answered: the same SYN is sent again, from the same port.
const PERSISTENT: f64 = 13.0;
const SEEN: u32 = 5;
const PERSISTENT_NS: u64 = 3_500_000_000;
/// A machine does so in so many seconds at least, not all at once now and then.
const SECONDS: usize = 4;
/// One that may become one has begun so many connections, in so many seconds.
const AGAIN: f64 = 6.0;
const AGAIN_SECONDS: usize = 3;
/// Sources that were here before of which a share is.
const ENOUGH: usize = 20;
/// Ports of a source that are remembered, to know a SYN that is sent again.
const PORTS: usize = 16;
/// Networks that are still an aggregate of one owner.
const AGGREGATE: usize = 8;
/// A network has grown where it begins so many a second, and so many times as many as otherwise.
const GROWN_PER_SECOND: f64 = 5.0;
const GROWN_TIMES: f64 = 3.0;
/// What is learned of networks counts half after so much quiet time.
const FADES_NS: u64 = 600_000_000_000;

/// Who begins connections.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Openers {
    /// Connections begun in a second.
    pub per_second: f64,
    /// The share of these from sources that go on and on, and of whose networks nobody was here before. `None` while nobody was here
    /// long enough.
    pub persistent: Option<f64>,
    /// How many such sources there are.
    pub persistent_sources: usize,
    /// How many of these are machines: they complete what they begin, all of it looks as if it were from one system, and they do so in
    /// one second after the other. Behind an address that many share there is more than one system.
    pub machines: usize,
    /// The share of connections that newcomers begin who have begun several already, in one second after the other and each from one
    /// system: too early to say that they go on. `None` while nobody was here long enough.
    pub again: Option<f64>,
    /// Of the sources that were here before and begin anything, the share that goes on and on; `None` of a few.
    pub regulars_persistent: Option<f64>,
    /// The share of connections begun from networks where nobody was here before; `None` while nobody was here long enough.
    pub unknown: Option<f64>,
    /// What a few networks that were here before begin, and otherwise do not.
    pub aggregate: Option<Excess>,
}

/// A few networks that begin many times the connections that they otherwise do.
#[derive(Clone, Debug, PartialEq)]
pub struct Excess {
    /// Their share of all connections that are begun beyond the usual.
    pub share: f64,
    /// Connections that they begin in a second.
    pub per_second: f64,
    /// How many times of their usual that is.
    pub times: f64,
    /// Connections that they begin in a second otherwise.
    pub usual: f64,
    /// The share that these are of all that is begun otherwise.
    pub usual_share: f64,
    /// The networks (/24, /48), those that have grown most first.
    pub networks: Vec<IpNet>,
    /// Connections that each source of these begins in a second, as far as sources are followed.
    pub sources: Vec<f64>,
}

/// A network that has completed a connection while nothing was found.
#[derive(Default)]
struct Network {
    first_ns: u64,
    last_ns: u64,
    /// Quiet time until it came, and connections that it has begun in quiet time since.
    joined_ns: u64,
    begun: f64,
}

/// The sources and networks that are followed.
#[derive(Default)]
pub(super) struct Following {
    sources: HashMap<(u64, Family), Opener>,
    networks: HashMap<(u64, Family), Network>,
    /// Networks of those who hold connections: since when, and when last.
    holding: HashMap<(u64, Family), (u64, u64)>,
    /// Time in which nothing was found, until when, and what was begun in it.
    quiet_ns: u64,
    asked_ns: u64,
    faded_ns: u64,
    /// Quiet time that `begun` is not of, as what is learned fades.
    joined_ns: u64,
    begun: f64,
    is_quiet: bool,
    /// When it was quiet last.
    quiet_at_ns: u64,
}

impl Following {
    /// Takes a packet in.
    pub(super) fn take(&mut self, packet: &Observed) {
        match packet.group() {
            Group::Syn => self.begins(packet),
            // This host has sent something in that conversation, and is answered.
            Group::Tcp if packet.acknowledges() && packet.is_known == Some(true) => {
                if let Some(opener) = self.sources.get_mut(&(packet.source.key(), packet.source.family())) {
                    // A SYN that was answered by a cookie did not pass, and is not held for that.
                    (opener.completes, opener.is_held) = (true, packet.is_held);
                    opener.is_there |= packet.is_verified != Some(false);
                }
                self.remember(packet);
            }
            _ => {}
        }
    }

    fn begins(&mut self, packet: &Observed) {
        let (key, weight) = ((packet.source.key(), packet.source.family()), f64::from(packet.weight));
        let is_room = self.sources.len() < CAPACITY || self.sources.contains_key(&key);
        let (at_ns, second) = (packet.at_ns, packet.at_ns / SECOND_NS);
        if is_room {
            let opener = self.sources.entry(key).or_insert_with(|| Opener::of(packet));
            (opener.last_ns, opener.is_held) = (at_ns, packet.is_held);
            opener.is_there |= packet.is_verified != Some(false);
            opener.is_one_system &= opener.look == look(packet);
            if !packet.ports.is_some_and(|(port, _)| opener.is_new(port)) {
                return;
            }
            let of_second = &mut opener.seconds[second as usize % SPAN];
            // Seconds since the host started: some hundred years of them.
            let number = second as u32;
            if of_second.number != number {
                *of_second = Second { number, ..Second::default() };
            }
            of_second.begun += weight as f32;
            of_second.samples += 1;
        }
        if self.is_quiet {
            self.begun += weight;
            if let Some(network) = self.networks.get_mut(&network(packet.source)) {
                network.begun += weight;
            }
        }
    }

    fn remember(&mut self, packet: &Observed) {
        let key = network(packet.source);
        if !self.is_quiet {
            return;
        }
        make_room(&mut self.networks, &key, NETWORKS, |network| network.last_ns);
        let (at_ns, joined_ns) = (packet.at_ns, self.quiet_ns);
        let unseen = || Network { first_ns: at_ns, last_ns: at_ns, joined_ns, begun: 0.0 };
        self.networks.entry(key).or_insert_with(unseen).last_ns = at_ns;
    }

    /// Lets go of what is too old, and keeps time.
    pub(super) fn expire(&mut self, now_ns: u64, is_quiet: bool) {
        if is_quiet {
            self.quiet_ns += if self.is_quiet { now_ns.saturating_sub(self.asked_ns).min(SECOND_NS) } else { 0 };
            self.quiet_at_ns = now_ns;
        }
        (self.asked_ns, self.is_quiet) = (now_ns, is_quiet);
        if self.sources.len() >= CAPACITY / 2 {
            // Who was seen once and does not come back is nobody to be told.
            self.sources.retain(|_, opener| now_ns.saturating_sub(opener.last_ns) < SECOND_NS || opener.since(0).1 > 1);
        }
        self.sources.retain(|_, opener| now_ns.saturating_sub(opener.last_ns) < SPAN as u64 * SECOND_NS);
        self.networks.retain(|_, network| now_ns.saturating_sub(network.last_ns) < REGULAR_NS);
        self.holding.retain(|_, (_, last_ns)| now_ns.saturating_sub(*last_ns) < REGULAR_NS);
        if self.quiet_ns.saturating_sub(self.faded_ns) >= FADES_NS {
            self.faded_ns = self.quiet_ns;
            self.begun /= 2.0;
            self.joined_ns += (self.quiet_ns - self.joined_ns) / 2;
            for network in self.networks.values_mut() {
                network.begun /= 2.0;
                network.joined_ns += (self.quiet_ns - network.joined_ns) / 2;
            }
        }
    }

    /// With these this host has open connections.
    pub(super) fn are_there(&mut self, sources: &[(u64, Family)]) {
        for source in sources {
            if let Some(opener) = self.sources.get_mut(source) {
                opener.is_there = true;
            }
        }
    }

    /// Whether somebody of this network was a client before what goes on now began.
    pub(super) fn was_here(&self, source: Source) -> bool {
        self.networks.get(&network(source)).is_some_and(|network| self.is_old(network))
    }

    const fn is_old(&self, network: &Network) -> bool {
        self.quiet_at_ns.saturating_sub(network.first_ns) >= HISTORY_NS
    }

    /// Connections begun in a second of quiet time, since that moment of it.
    fn rate(&self, begun: f64, since_ns: u64) -> f64 {
        begun / (self.quiet_ns.saturating_sub(since_ns) as f64 / SECOND_NS as f64).max(5.0)
    }

    /// Of those who hold connections: who is new. Others were clients for a while when it began, and nobody of its network was: what
    /// holds connections does not become a client by holding them long.
    pub(super) fn newcomers(&mut self) -> impl FnMut(&Holder) -> bool {
        let first_ns = self.networks.values().map(|network| network.first_ns).min();
        let now_ns = self.asked_ns;
        move |holder| {
            let key = network(holder.source);
            let mut since_ns = holder.since_ns;
            if self.holding.len() < NETWORKS || self.holding.contains_key(&key) {
                let (began_ns, last_ns) = self.holding.entry(key).or_insert((since_ns, now_ns));
                since_ns = since_ns.min(*began_ns);
                (*began_ns, *last_ns) = (since_ns, now_ns);
            }
            let is_known = |of_ns: u64, for_ns: u64| since_ns.saturating_sub(of_ns) >= for_ns;
            let was_here = self.networks.get(&key).is_some_and(|of| is_known(of.first_ns, HISTORY_NS));
            !was_here && first_ns.is_some_and(|first_ns| is_known(first_ns, KNOWN_NS))
        }
    }

    /// What they say.
    pub(super) fn features(&self, now_ns: u64) -> Openers {
        let lately = (now_ns / SECOND_NS).saturating_sub(LATELY - 1);
        let seconds = (now_ns - (lately * SECOND_NS).min(now_ns)) as f64 / SECOND_NS as f64;
        let (mut all, mut unknown, mut persistent, mut again) = (0.0, 0.0, 0.0, 0.0);
        let (mut persistent_sources, mut machines) = (0, 0);
        let (mut regulars, mut of_regulars) = (0, 0);
        let mut by_network = HashMap::<(u64, Family), (Source, f64)>::new();
        for opener in self.sources.values() {
            let (begun, _) = opener.since(lately);
            all += begun;
            by_network.entry(network(opener.source)).or_insert((opener.source, 0.0)).1 += begun;
            let is_persistent = opener.is_persistent(now_ns);
            if self.was_here(opener.source) {
                regulars += 1;
                of_regulars += usize::from(is_persistent);
                continue;
            }
            unknown += begun;
            if opener.begins_again(now_ns) {
                again += begun;
            }
            if is_persistent {
                persistent += begun;
                persistent_sources += 1;
                machines += usize::from(opener.is_machine(now_ns));
            }
        }
        let has_history =
            self.networks.values().any(|network| self.quiet_at_ns.saturating_sub(network.first_ns) >= KNOWN_NS);
        let per_second = all / seconds.max(1.0);
        Openers {
            per_second,
            persistent: (has_history && all > 0.0).then(|| persistent / all),
            persistent_sources,
            machines: if has_history { machines } else { 0 },
            again: (has_history && all > 0.0).then(|| again / all),
            unknown: (has_history && all > 0.0).then(|| unknown / all),
            regulars_persistent: (regulars >= ENOUGH).then(|| of_regulars as f64 / regulars as f64),
            aggregate: if has_history {
                self.aggregate(by_network, per_second, (lately, seconds.max(1.0)))
            } else {
                None
            },
        }
    }

    fn aggregate(
        &self,
        by_network: HashMap<(u64, Family), (Source, f64)>,
        per_second: f64,
        (lately, seconds): (u64, f64),
    ) -> Option<Excess> {
        let has_grown = |(key, (source, begun))| {
            let (known, now) = (self.networks.get(&key)?, begun / seconds);
            let usual = self.rate(known.begun, known.joined_ns);
            let has_grown = now >= GROWN_PER_SECOND && now >= GROWN_TIMES * usual && self.was_here(source);
            has_grown.then(|| (prefix_of(source), now, usual))
        };
        let mut grown: Vec<(IpNet, f64, f64)> = by_network.into_iter().filter_map(has_grown).collect();
        grown.sort_by(|a, b| (b.1 - b.2).total_cmp(&(a.1 - a.2)).then_with(|| a.0.cmp(&b.0)));
        grown.truncate(AGGREGATE);
        let (now, usual) = grown.iter().fold((0.0, 0.0), |sum, (_, now, usual)| (sum.0 + now, sum.1 + usual));
        let usual_of_all = self.rate(self.begun, self.joined_ns);
        let excess = per_second - usual_of_all;
        (excess > GROWN_PER_SECOND).then(|| {
            let networks: Vec<_> = grown.iter().map(|(prefix, ..)| *prefix).collect();
            let sources = self.sources.values().filter(|opener| networks.contains(&prefix_of(opener.source)));
            Excess {
                share: ((now - usual) / excess).clamp(0.0, 1.0),
                per_second: now,
                times: now / usual.max(0.1),
                usual,
                usual_share: usual / usual_of_all.max(usual).max(0.1),
                sources: sources.map(|opener| opener.since(lately).0 / seconds).collect(),
                networks,
            }
        })
    }

    /// Sources that go on and on, of whose networks nobody was here before, and that nothing holds yet: those that begin most first.
    /// All of them, or machines alone.
    pub(super) fn persistent(&self, only_machines: bool) -> Vec<Source> {
        let now_ns = self.asked_ns;
        let goes_on =
            |opener: &Opener| if only_machines { opener.is_machine(now_ns) } else { opener.is_persistent(now_ns) };
        let is_one = |opener: &&Opener| !opener.is_held && goes_on(opener) && !self.was_here(opener.source);
        let mut found: Vec<_> =
            self.sources.values().filter(is_one).map(|opener| (opener.since(0).0, opener.source)).collect();
        found.sort_by(|a, b| b.0.total_cmp(&a.0).then_with(|| a.1.halves().cmp(&b.1.halves())));
        found.into_iter().map(|(_, source)| source).collect()
    }
}

/// The /24 or /48 of a source.
const fn network(source: Source) -> (u64, Family) {
    match source {
        Source::V4(address) => ((address >> 8) as u64, Family::V4),
        Source::V6(upper, _) => (upper >> 16, Family::V6),
    }
}

/// The same as people write it.
const fn prefix_of(source: Source) -> IpNet {
    match source {
        Source::V4(address) => IpNet::V4(Ipv4Net::new_assert(std::net::Ipv4Addr::from_bits(address & !0xff), 24)),
        Source::V6(upper, _) => {
            let network = ((upper & !0xffff) as u128) << 64;
            IpNet::V6(Ipv6Net::new_assert(std::net::Ipv6Addr::from_bits(network), 48))
        }
    }
}

#[cfg(test)]
mod tests {

    use super::*;

    pub(super) fn packet(source: u32, port: u16, at_ns: u64, flags: u8) -> Observed {
        Observed { is_known: Some(flags == 0x10), ..Observed::segment(source, port, at_ns, flags) }
    }

    /// Twelve quiet seconds with a client, and then what is asked about: so many connections a second for six, each tried so often.
    fn after(source: u32, per_second: u64, tries: u64) -> (Openers, Vec<Source>) {
        let mut following = Following::default();
        for tick in 0..120 {
            let now_ns = tick * SECOND_NS / 10;
            following.expire(now_ns, true);
            following.take(&packet(0x0a00_0001, 1_000 + tick as u16, now_ns, 0x02));
            following.take(&packet(0x0a00_0001, 1_000 + tick as u16, now_ns, 0x10));
        }
        for tick in 120..180 {
            let now_ns = tick * SECOND_NS / 10;
            following.expire(now_ns, false);
            for number in 0..per_second {
                let port = 20_000 + ((tick / tries.max(1)) * per_second + number) as u16;
                following.take(&packet(source, port, now_ns, 0x02));
            }
        }
        let now_ns = 18 * SECOND_NS;
        following.expire(now_ns, false);
        (following.features(now_ns), following.persistent(false))
    }

    #[test]
    fn a_newcomer_who_goes_on_and_on_is_told_from_one_who_tries_again() {
        let (openers, sources) = after(0x1400_0001, 1, 1);
        assert_eq!((openers.persistent_sources, sources), (1, vec![Source::V4(0x1400_0001)]), "{openers:?}");
        assert!(openers.persistent.is_some_and(|share| share > 0.9), "{openers:?}");
        assert_eq!(openers.unknown, Some(1.0), "nobody of its network was here");
        let (openers, sources) = after(0x1400_0001, 1, 10);
        assert_eq!(
            (openers.persistent_sources, sources),
            (0, Vec::new()),
            "the same SYNs, ten times each: {openers:?}"
        );
    }

    /// Anybody can send SYNs, and ACKs behind them, in the name of somebody else.
    #[test]
    fn whose_address_was_never_sent_data_is_not_named() {
        let named = |(is_verified, is_open)| {
            let mut following = Following::default();
            let take = |following: &mut Following, source, tick: u64, is_verified| {
                let now_ns = tick * SECOND_NS / 10;
                following.expire(now_ns, tick < 120);
                for flags in [0x02, 0x10] {
                    let packet = packet(source, 1_000 + tick as u16, now_ns, flags);
                    following.take(&Observed { is_verified, ..packet });
                }
            };
            (0..120).for_each(|tick| take(&mut following, 0x0a00_0001, tick, Some(true)));
            (120..180).for_each(|tick| take(&mut following, 0x1400_0001, tick, is_verified));
            if is_open {
                following.are_there(&[(0x1400_0001, Family::V4), (0x1400_0002, Family::V4)]);
            }
            following.persistent(false).len()
        };
        let cases = [(Some(true), false), (None, false), (Some(false), false), (Some(false), true)];
        assert_eq!(cases.map(named), [1, 1, 0, 1]);
    }

    #[test]
    fn who_holds_connections_becomes_no_client_by_it() {
        let mut following = Following::default();
        let second = |second: u64| second * SECOND_NS;
        let holder =
            |since_s| Holder { source: Source::V4(0x1400_0001), slow: 5, others: 0, since_ns: second(since_s) };
        for tick in 0..900 {
            let now_ns = tick * SECOND_NS / 10;
            following.expire(now_ns, true);
            following.take(&packet(0x0a00_0001, 1_000, now_ns, 0x10));
            if tick >= 200 {
                following.take(&packet(0x1400_0001, 2_000, now_ns, 0x10));
            }
        }
        assert!(!following.newcomers()(&holder(5)), "it began before anybody was known for long");
        following.holding.clear();
        assert!(following.newcomers()(&holder(20)), "there were others, and not this one");
        assert!(following.newcomers()(&holder(80)), "again, a minute later");
        following.holding.clear();
        assert!(!following.newcomers()(&holder(80)), "a client for a minute, who held nothing");
    }

    /// What is usual does not fade with the time that nothing happens: after three hours as many are more than usual as after one.
    #[test]
    fn what_all_begin_usually_stays_what_it_is() {
        let mut following = Following::default();
        let (hours, per_second) = (3, 40);
        let begin = |following: &mut Following, second: u64| {
            for number in 0..per_second {
                // Each from a network of its own, but for one that comes back.
                let source = if number == 0 { 0x0a00_0001 } else { 0x0b00_0000 + (number << 8) };
                let port = 1_024 + (second % 60_000) as u16;
                following.take(&packet(source, port, second * SECOND_NS, 0x02));
                following.take(&packet(source, port, second * SECOND_NS, 0x10));
            }
        };
        for second in 1..hours * 3_600 {
            following.expire(second * SECOND_NS, true);
            begin(&mut following, second);
        }
        let now = hours * 3_600;
        following.expire(now * SECOND_NS, false);
        assert_eq!(following.features(now * SECOND_NS).aggregate, None, "as usual");
    }

    /// However many have been here, somebody new can become a client.
    #[test]
    fn who_comes_when_all_room_is_taken_is_remembered() {
        let mut following = Following::default();
        following.expire(SECOND_NS, true);
        let client = |number: usize| packet((number as u32) << 8, 1_000, SECOND_NS + number as u64, 0x10);
        (1..=NETWORKS + 1).for_each(|number| following.take(&client(number)));
        following.expire(20 * SECOND_NS, true);
        assert!(following.was_here(client(NETWORKS + 1).source));
        assert!(!following.was_here(client(1).source), "who was seen longest ago");
        assert!(following.networks.len() <= NETWORKS);
    }

    #[test]
    fn who_was_here_before_is_no_newcomer_but_may_have_gone_wild() {
        let (openers, sources) = after(0x0a00_0002, 4, 1);
        assert_eq!((openers.persistent_sources, sources), (0, Vec::new()), "a neighbour of the client: {openers:?}");
        assert_eq!(openers.unknown, Some(0.0), "{openers:?}");
        let aggregate = openers.aggregate.unwrap_or_else(|| panic!("nothing is more than usual"));
        assert_eq!(aggregate.networks, ["10.0.0.0/24".parse().unwrap()]);
        assert!(aggregate.share > 0.9 && aggregate.times > 3.0, "{aggregate:?}");
        // The client was all that there was, ten times a second, and has stopped; its neighbour begins forty.
        let of_sources: f64 = aggregate.sources.iter().sum();
        assert!((of_sources - aggregate.per_second).abs() < 1.0 && aggregate.usual_share > 0.99, "{aggregate:?}");
        assert!((5.0..=11.0).contains(&aggregate.usual), "{aggregate:?}");
    }
}

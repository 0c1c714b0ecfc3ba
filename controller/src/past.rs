//! What sources have sent in the last minutes, second by second: estimated from sampled headers, in bounded memory.
//!
//! Only packets that come as far as limits: what a list or a malformed header has settled is none of their business.

use std::collections::VecDeque;
use std::collections::hash_map::{Entry, HashMap};

use floodwall_common::config::LIMIT_SLOTS;
use floodwall_common::limits::LimitName;
use floodwall_common::packet::Source;
use floodwall_common::reason::Reason;

use crate::dataplane::Sample;

/// Seconds that are kept.
pub const SECONDS: usize = 600;
/// Sources of a second that are kept apart, those that sent most: 6 MiB in all.
const SOURCES: usize = 256;
/// Sources that a second is collected of.
const COLLECTED: usize = 1 << 14;

/// What a source sent of a class in a second.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Flow {
    /// The source; of an IPv6 one its /64.
    pub source: Source,
    /// The limit that its packets are under.
    pub name: LimitName,
    /// Packets, estimated.
    pub packets: u64,
    /// Samples that they are estimated from.
    pub samples: u32,
}

/// A second that is over.
#[derive(Clone, Debug, Default)]
pub struct Second {
    /// Which, of `CLOCK_MONOTONIC`.
    pub number: u64,
    /// The sources that sent most.
    pub flows: Vec<Flow>,
    /// Packets of all others, by limit.
    pub rest: [u64; LIMIT_SLOTS],
    /// The most that one source has sent, by limit.
    pub most: [u64; LIMIT_SLOTS],
}

/// The last minutes.
#[derive(Debug, Default)]
pub struct Past {
    seconds: VecDeque<Second>,
    now: Collecting,
    since: Option<u64>,
}

#[derive(Debug, Default)]
struct Collecting {
    number: u64,
    flows: HashMap<(Source, LimitName), Flow>,
    rest: [u64; LIMIT_SLOTS],
}

impl Past {
    /// Takes a sample in.
    pub fn push(&mut self, sample: &Sample) {
        self.pass_to(sample.monotonic_ns / 1_000_000_000);
        let Some(source) = sample.source.filter(|_| reaches_limits(sample)) else { return };
        let Some((_, class)) = sample.kind.parts() else { return };
        let (name, weight) = (LimitName::of(class), u64::from(sample.weight));
        let source = match source {
            Source::V4(_) => source,
            Source::V6(upper, _) => Source::V6(upper, 0),
        };
        let is_full = self.now.flows.len() >= COLLECTED;
        match self.now.flows.entry((source, name)) {
            Entry::Vacant(_) if is_full => self.now.rest[name as usize] += weight,
            entry => {
                let flow = entry.or_insert(Flow { source, name, packets: 0, samples: 0 });
                flow.packets += weight;
                flow.samples += 1;
            }
        }
    }

    /// Closes the second that was collected where another has begun, and lets go of what is too old.
    pub fn pass(&mut self, now_ns: u64) {
        self.pass_to(now_ns / 1_000_000_000);
    }

    fn pass_to(&mut self, number: u64) {
        self.since.get_or_insert(number);
        if number <= self.now.number {
            return;
        }
        let over = std::mem::replace(&mut self.now, Collecting { number, ..Collecting::default() });
        if !over.flows.is_empty() {
            self.seconds.push_back(over.close());
        }
        while self.seconds.front().is_some_and(|second| second.number + SECONDS as u64 <= number) {
            self.seconds.pop_front();
        }
    }

    /// The seconds that are over, and in which anything was sampled.
    pub fn seconds(&self) -> impl Iterator<Item = &Second> {
        self.seconds.iter()
    }

    /// How far back it looks.
    pub fn window_s(&self) -> u64 {
        let since = self.since.map_or(0, |since| self.now.number.saturating_sub(since));
        since.min(SECONDS as u64)
    }

    /// The most that one source has sent in a second, by limit.
    pub fn most(&self) -> [u64; LIMIT_SLOTS] {
        let more = |most: [u64; LIMIT_SLOTS], second: &Second| std::array::from_fn(|at| most[at].max(second.most[at]));
        self.seconds().fold([0; LIMIT_SLOTS], more)
    }

    /// Of each source that counts the most that it sent under a limit in a second, in ascending order.
    pub fn peaks(&self, name: LimitName, counts: impl Fn(Source) -> bool) -> Vec<u64> {
        let mut peaks: HashMap<Source, u64> = HashMap::new();
        for flow in self.seconds().flat_map(|second| &second.flows).filter(|flow| flow.name == name) {
            let peak = peaks.entry(flow.source).or_default();
            *peak = (*peak).max(flow.packets);
        }
        let peaks = peaks.into_iter().filter(|(source, _)| counts(*source));
        let mut peaks: Vec<_> = peaks.map(|(_, peak)| peak).collect();
        peaks.sort_unstable();
        peaks
    }
}

impl Collecting {
    fn close(self) -> Second {
        let (mut flows, mut rest): (Vec<_>, _) = (self.flows.into_values().collect(), self.rest);
        let mut most = [0; LIMIT_SLOTS];
        flows.iter().for_each(|flow: &Flow| most[flow.name as usize] = most[flow.name as usize].max(flow.packets));
        flows.sort_unstable_by_key(|flow| std::cmp::Reverse(flow.packets));
        flows.iter().skip(SOURCES).for_each(|flow| rest[flow.name as usize] += flow.packets);
        flows.truncate(SOURCES);
        flows.shrink_to_fit();
        Second { number: self.number, flows, rest, most }
    }
}

/// Whether a packet is asked for its limits, in whatever way it ended.
const fn reaches_limits(sample: &Sample) -> bool {
    match sample.reason {
        Reason::Passed
        | Reason::Tunnel
        | Reason::PacketLimit
        | Reason::ByteLimit
        | Reason::ClassBlocked
        | Reason::SubnetLimit
        | Reason::NetworkLimit
        | Reason::ServiceCap
        | Reason::ConnectionCap
        | Reason::SynCookie
        | Reason::SynAckLimit => true,
        Reason::Allowed
        | Reason::AllowedLimit
        | Reason::Denied
        | Reason::NotIp
        | Reason::Short
        | Reason::Encapsulated
        | Reason::NeighborDiscovery
        | Reason::PacketTooBig
        | Reason::Signature => false,
        // What the operator lets pass goes on to its limits.
        Reason::MalformedIp
        | Reason::MalformedTcp
        | Reason::MalformedUdp
        | Reason::MalformedIcmp
        | Reason::ImpossibleFlags
        | Reason::Land
        | Reason::ExtensionDepth
        | Reason::VlanDepth
        | Reason::Martian
        | Reason::BareSyn
        | Reason::UnsolicitedReply
        | Reason::NoService
        | Reason::FirstSyn
        | Reason::OutOfState => !sample.drops,
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use floodwall_common::abi::Stream;
    use floodwall_common::class::{Class, Family, Kind};

    /// A sample of UDP of this second.
    pub(crate) fn sample(second: u64, source: u32, weight: u32, reason: Reason) -> Sample {
        Sample {
            monotonic_ns: second * 1_000_000_000 + 5,
            weight,
            frame_bytes: 100,
            slot: 0,
            reason,
            kind: Kind::new(Family::V4, Class::Udp),
            stream: Stream::Pass,
            drops: false,
            dropped: false,
            source: Some(Source::V4(source)),
        }
    }

    #[test]
    fn seconds_are_kept_apart_and_not_for_ever() {
        let mut past = Past::default();
        for second in 100..800 {
            past.push(&sample(second, 7, 10, Reason::Passed));
            past.push(&sample(second, 7, 20, Reason::PacketLimit));
            past.push(&sample(second, 8, 90, Reason::Denied));
        }
        past.pass(800 * 1_000_000_000);
        assert_eq!((past.seconds().count(), past.window_s()), (SECONDS - 1, 600));
        assert!(past.seconds().all(|second| second.flows.len() == 1 && second.flows[0].packets == 30));
        assert_eq!(past.peaks(LimitName::Udp, |_| true), [30], "what is denied is not asked for its limits");
        assert!(past.peaks(LimitName::Tcp, |_| true).is_empty());
        assert_eq!((past.most()[LimitName::Udp as usize], past.most()[LimitName::Tcp as usize]), (30, 0));
    }

    #[test]
    fn many_sources_cost_no_more_than_they_may() {
        let mut past = Past::default();
        (0..COLLECTED as u32 + 100).for_each(|source| past.push(&sample(5, source, 8, Reason::Passed)));
        past.push(&sample(5, 3, 800, Reason::Passed));
        past.pass(6 * 1_000_000_000);
        let second = past.seconds().next().expect("a second");
        assert_eq!((second.flows.len(), second.flows[0].packets), (SOURCES, 808));
        let all = second.flows.iter().map(|flow| flow.packets).sum::<u64>() + second.rest[LimitName::Udp as usize];
        assert_eq!(all, (COLLECTED as u64 + 100) * 8 + 800);
    }
}

//! What a limit would have dropped of the last minutes, had it been in force: worked out from what sources have sent by second.
//!
//! An estimate, and it says how sure it is. It knows nothing of packets that never came because earlier ones were dropped.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use floodwall_common::class::Family;
use floodwall_common::limits::{LimitKey, Per};
use floodwall_common::packet::Source;
use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use crate::api::{RateView, SCHEMA_VERSION};
use crate::past::{Flow, Past};
use crate::talkers::source_name;

/// Sources that are named.
const NAMED: usize = 20;

/// What a limit would have dropped.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PreviewView {
    /// Version of this shape.
    pub schema_version: u32,
    /// The limit.
    pub name: String,
    /// Who shares it.
    pub per: String,
    /// The group of sources that it would be of; null for everybody who is in none with such a limit of its own.
    #[serde(default)]
    pub group: Option<String>,
    /// What it would be.
    pub packets: RateView,
    /// How far back it looks.
    pub window_s: u64,
    /// Sampled headers that it is estimated from.
    pub samples: u64,
    /// Packets under this limit, estimated; of a group those of its sources that sent enough to be kept apart.
    pub seen_packets: u64,
    /// Share of them that would have been dropped.
    pub dropped_share: f64,
    /// The least that it is, were the rate of each source estimated wrong by its standard error.
    pub dropped_share_low: f64,
    /// The most.
    pub dropped_share_high: f64,
    /// Share of packets from sources too small to be kept apart: counted as passed.
    pub unattributed_share: f64,
    /// Sources seen, or prefixes that share the limit.
    pub sources: usize,
    /// Those of them that would have lost anything.
    pub sources_dropped: usize,
    /// The first of those, by what they would have lost.
    pub dropped: Vec<PreviewSource>,
}

/// A source, or a prefix, that would have lost something.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PreviewSource {
    /// Which.
    pub source: String,
    /// The most that it sent in a second.
    pub peak_packets_per_second: u64,
    /// Share of its packets.
    pub dropped_share: f64,
    /// Samples of it: with n, its rate is known to about 1/√n.
    pub samples: u64,
}

#[derive(Clone, Copy, Debug, Default)]
struct Tally {
    packets: f64,
    dropped: f64,
    peak: f64,
    samples: u64,
}

/// What has been spent of a limit, at the end of a second.
#[derive(Clone, Copy)]
struct Credit {
    tokens: f64,
    second: u64,
}

/// Works it out, of the sources that count: those that are under this limit, of a group or of everybody.
pub fn preview(
    past: &Past,
    key: LimitKey,
    group: Option<&str>,
    limit: RateView,
    counts: impl Fn(Source) -> bool,
) -> PreviewView {
    let simulate = |packets: &dyn Fn(&Flow) -> f64| simulate(past, key, limit, &counts, packets);
    let exact = simulate(&|flow| flow.packets as f64);
    let error = |flow: &Flow| 1.0 / f64::from(flow.samples.max(1)).sqrt();
    let low = simulate(&|flow| flow.packets as f64 * (1.0 - error(flow)));
    let high = simulate(&|flow| flow.packets as f64 * (1.0 + error(flow)));
    // Whose packets these are nobody knows: of a group they say nothing.
    let rest: u64 = match group {
        None => past.seconds().map(|second| second.rest[key.name as usize]).sum(),
        Some(_) => 0,
    };
    // Where the rates were higher the share is not always: a second of few samples, in which little was dropped, weighs more then.
    let shares = [&exact, &low, &high].map(|tallies| share(tallies, rest));
    let mut dropped: Vec<_> = exact.iter().filter(|(_, tally)| tally.dropped >= 0.5).collect();
    dropped.sort_by(|(a_source, a), (b_source, b)| {
        b.dropped.total_cmp(&a.dropped).then_with(|| a_source.key().cmp(&b_source.key()))
    });
    let seen = exact.values().map(|tally| tally.packets).sum::<f64>() + rest as f64;
    PreviewView {
        schema_version: SCHEMA_VERSION,
        name: key.name.label().to_owned(),
        per: key.per.label().to_owned(),
        group: group.map(str::to_owned),
        packets: limit,
        window_s: past.window_s(),
        samples: exact.values().map(|tally| tally.samples).sum(),
        seen_packets: seen as u64,
        dropped_share: shares[0],
        dropped_share_low: shares.into_iter().fold(1.0, f64::min),
        dropped_share_high: shares.into_iter().fold(0.0, f64::max),
        unattributed_share: rest as f64 / seen.max(1.0),
        sources: exact.len(),
        sources_dropped: dropped.len(),
        dropped: dropped.into_iter().take(NAMED).map(|(source, tally)| tally.view(*source, key.per)).collect(),
    }
}

impl Tally {
    fn view(&self, source: Source, per: Per) -> PreviewSource {
        PreviewSource {
            source: name(source, per),
            peak_packets_per_second: self.peak as u64,
            dropped_share: self.dropped / self.packets.max(1.0),
            samples: self.samples,
        }
    }
}

/// A token bucket for each who shares the limit, fed with what he sent, evenly over each second.
fn simulate(
    past: &Past,
    key: LimitKey,
    limit: RateView,
    counts: &dyn Fn(Source) -> bool,
    packets: &dyn Fn(&Flow) -> f64,
) -> HashMap<Source, Tally> {
    let (per_second, burst) = (limit.per_second as f64, limit.burst as f64);
    let mut tallies: HashMap<Source, Tally> = HashMap::new();
    let mut credits: HashMap<Source, Credit> = HashMap::new();
    for second in past.seconds() {
        let mut sent: HashMap<Source, (f64, u64)> = HashMap::new();
        for flow in second.flows.iter().filter(|flow| flow.name == key.name && counts(flow.source)) {
            let sum = sent.entry(widened(flow.source, key.per)).or_default();
            sum.0 += packets(flow);
            sum.1 += u64::from(flow.samples);
        }
        for (source, (packets, samples)) in sent {
            let fresh = Credit { tokens: burst, second: second.number.saturating_sub(1) };
            let credit = credits.entry(source).or_insert(fresh);
            let idle_s = second.number.saturating_sub(credit.second + 1) as f64;
            let tokens = burst.min(credit.tokens + idle_s * per_second);
            let passed = packets.min(tokens + per_second);
            *credit = Credit { tokens: burst.min(tokens + per_second - passed), second: second.number };
            let tally = tallies.entry(source).or_default();
            tally.packets += packets;
            tally.dropped += packets - passed;
            tally.peak = tally.peak.max(packets);
            tally.samples += samples;
        }
    }
    tallies
}

/// The share that was dropped, of packets that were kept apart and of those that were not.
fn share(tallies: &HashMap<Source, Tally>, rest: u64) -> f64 {
    let sum = |of: fn(&Tally) -> f64| tallies.values().map(of).sum::<f64>();
    sum(|tally| tally.dropped) / (sum(|tally| tally.packets) + rest as f64).max(1.0)
}

/// The first source of all that share a limit with this one.
const fn widened(source: Source, per: Per) -> Source {
    let bits = 8 * per as u32;
    match source {
        Source::V4(address) => Source::V4(address >> bits << bits),
        Source::V6(upper, _) => Source::V6(upper >> bits << bits, 0),
    }
}

fn name(source: Source, per: Per) -> String {
    if per == Per::Source {
        return source_name(source);
    }
    let (address, family): (IpAddr, _) = match source {
        Source::V4(address) => (Ipv4Addr::from(address).into(), Family::V4),
        Source::V6(upper, _) => (Ipv6Addr::from(u128::from(upper) << 64).into(), Family::V6),
    };
    IpNet::new(address, per.prefix_length(family)).map_or_else(|_| address.to_string(), |prefix| prefix.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::past::tests::sample;
    use floodwall_common::limits::LimitName;
    use floodwall_common::reason::Reason;

    const UDP: LimitKey = LimitKey { name: LimitName::Udp, per: Per::Source };

    /// One source of 1,000 a second and nine of 100, for ten seconds, in samples of 10.
    fn past() -> Past {
        let mut past = Past::default();
        for second in 50..60 {
            (0..100).for_each(|_| past.push(&sample(second, 0x0a00_0001, 10, Reason::Passed)));
            (2..11).for_each(|last| {
                (0..10).for_each(|_| past.push(&sample(second, 0x0a00_0000 + last, 10, Reason::Passed)))
            });
        }
        past.pass(60 * 1_000_000_000);
        past
    }

    #[test]
    fn it_drops_what_is_over_the_rate_once_the_burst_is_spent() {
        let view = preview(&past(), UDP, None, RateView { per_second: 500, burst: 1_000 }, |_| true);
        // Of 10,000 packets of the first source 500 in each second pass, and a burst of 1,000.
        assert_eq!((view.seen_packets, view.samples, view.sources, view.sources_dropped), (19_000, 1_900, 10, 1));
        assert!((view.dropped_share - 4_000.0 / 19_000.0).abs() < 1e-9, "{view:?}");
        assert!(view.dropped_share_low < view.dropped_share && view.dropped_share < view.dropped_share_high);
        let others = preview(&past(), UDP, Some("few"), RateView { per_second: 500, burst: 1_000 }, |source| {
            source.key() != 0x0a00_0001
        });
        assert_eq!((others.seen_packets, others.sources, others.sources_dropped), (9_000, 9, 0), "who is not under it");
        let first = &view.dropped[0];
        assert_eq!((first.source.as_str(), first.peak_packets_per_second, first.samples), ("10.0.0.1", 1_000, 1_000));
        assert!((first.dropped_share - 0.4).abs() < 1e-9);
    }

    #[test]
    fn nobody_loses_under_a_wide_limit_and_who_shares_one_loses_together() {
        let wide = preview(&past(), UDP, None, RateView { per_second: 2_000, burst: 2_000 }, |_| true);
        assert_eq!((wide.dropped_share, wide.dropped_share_high, wide.dropped.len()), (0.0, 0.0, 0));
        let subnet = LimitKey { per: Per::Subnet, ..UDP };
        let shared = preview(&past(), subnet, None, RateView { per_second: 900, burst: 1 }, |_| true);
        assert_eq!((shared.sources, shared.dropped[0].source.as_str()), (1, "10.0.0.0/24"));
        assert!((shared.dropped_share - (19_000.0 - 9_001.0) / 19_000.0).abs() < 1e-9, "{shared:?}");
        let nothing = preview(&Past::default(), UDP, None, RateView { per_second: 1, burst: 1 }, |_| true);
        assert_eq!((nothing.seen_packets, nothing.dropped_share), (0, 0.0));
    }
}

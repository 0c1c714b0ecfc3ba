//! Limits of subnets and networks: who has many addresses of few networks is held by what these share.

use std::collections::HashMap;
use std::fmt;
use std::net::{Ipv4Addr, Ipv6Addr};

use floodwall_common::class::Family;
use floodwall_common::limits::{LimitKey, LimitName, Limits, Per, Rate};

use super::good::{ENOUGH, Good, Measured};
use super::signature::{COLLATERAL, COVERS, FLOOD};
use crate::detect::{ONE_GOOD_OF, Observed, Vector, WINDOW_NS, Window};

/// How many times of what one of them has sent in peace each may send.
const ROOM: f64 = 4.0;
/// Rates are of the latest part of a second: most floods are named before they are a second old.
const LATEST: u64 = 10;
/// Packets that were seen of a network in it, below which its rate is a guess: of random sources one packet makes no flooding network.
const SEEN: usize = 4;
/// Networks that are named.
const NAMED: usize = 3;

/// A limit, and what it would do.
#[derive(Clone, Debug, PartialEq)]
pub struct Wide {
    /// What it is of.
    pub name: LimitName,
    /// Who shares it.
    pub per: Per,
    /// Packets a second of each.
    pub packets_per_second: u64,
    /// Those that are over it, the largest first.
    pub networks: Vec<String>,
    /// The share of the flood that it holds.
    pub covers: f64,
    /// The share of good traffic that is of these networks.
    pub collateral: f64,
    /// What this was measured on.
    pub measured_on: Measured,
}

impl Wide {
    /// What it is called by.
    pub const fn key(&self) -> LimitKey {
        LimitKey { name: self.name, per: self.per }
    }

    /// What is set: a second's worth at once.
    pub const fn limits(&self) -> Limits {
        let per_second = self.packets_per_second;
        Limits { packets: Rate::Limit { per_second, burst: per_second }, bytes: Rate::Off }
    }
}

/// The narrowest limit that holds most of a flood, where it comes from few networks, and nearly nobody else is in them. Each may send
/// four times what any network has sent in peace, and as much as would wake nobody.
pub(super) fn find(vector: Vector, window: &Window) -> Option<Wide> {
    let group = vector.group();
    let is_strange = |packet: &Observed| packet.is_known != Some(true) && !packet.is_held;
    let flood = window.packets().filter(|(of, packet)| *of == group && is_strange(packet));
    let flood: Vec<_> = flood.map(|(_, packet)| packet).collect();
    let (good, class) = (Good::of(window), group.class());
    if flood.len() < FLOOD || good.len() < ENOUGH {
        return None;
    }
    let newest_ns = flood.last()?.at_ns;
    let is_latest = |packet: &&&Observed| newest_ns.saturating_sub(packet.at_ns) < WINDOW_NS / LATEST;
    let latest: Vec<_> = flood.iter().filter(is_latest).collect();
    // By the samples alone: at the beginning of a flood exact counters are ahead of these.
    let weight = |packet: &Observed| LATEST as f64 * f64::from(packet.weight);
    let all: f64 = latest.iter().map(|packet| weight(packet)).sum();
    Per::WIDER.into_iter().find_map(|per| {
        let of = |packet: &Observed| (per.key(packet.source.key()), packet.source.family());
        // What was kept of a second of each, and what it stands for. What is kept of a week are no whole seconds.
        let mut in_peace = HashMap::new();
        for packet in window.good().iter().filter(|packet| packet.group().class() == class) {
            let kept = f64::from(packet.weight) * ONE_GOOD_OF as f64;
            *in_peace.entry((of(packet), packet.at_ns / WINDOW_NS)).or_insert(0.0) += kept;
        }
        let most = in_peace.into_values().fold(0.0, f64::max);
        let limit = (ROOM * most).max(vector.wakes_at()).ceil();
        let mut seen: HashMap<(u64, Family), (f64, usize)> = HashMap::new();
        for packet in &latest {
            let (rate, packets) = seen.entry(of(packet)).or_default();
            *rate += weight(packet);
            *packets += 1;
        }
        let rates = seen.into_iter().filter(|(_, (rate, packets))| *rate > limit && *packets >= SEEN);
        let rates: HashMap<_, _> = rates.map(|(network, (rate, _))| (network, rate)).collect();
        let covers = rates.values().map(|rate| rate - limit).sum::<f64>() / all;
        let collateral = good.share(|packet| rates.contains_key(&of(packet)));
        let mut largest: Vec<_> = rates.into_iter().collect();
        largest.sort_by(|a, b| b.1.total_cmp(&a.1).then_with(|| a.0.0.cmp(&b.0.0)));
        let networks = largest.iter().map(|((key, family), _)| name(per, *key, *family)).collect();
        let (packets_per_second, measured_on) = (limit as u64, good.measured());
        let found =
            Wide { name: LimitName::of(class), per, packets_per_second, networks, covers, collateral, measured_on };
        (covers >= COVERS && collateral <= COLLATERAL).then_some(found)
    })
}

/// A prefix, as people write it.
fn name(per: Per, key: u64, family: Family) -> String {
    let (address, length) = (key << (8 * per as u32), per.prefix_length(family));
    match family {
        Family::V4 => format!("{}/{length}", Ipv4Addr::from(address as u32)),
        Family::V6 => format!("{}/{length}", Ipv6Addr::from(u128::from(address) << 64)),
    }
}

impl fmt::Display for Wide {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { name, per, packets_per_second, networks, covers, collateral, measured_on } = self;
        let (v4, v6) = (per.prefix_length(Family::V4), per.prefix_length(Family::V6));
        let named = networks[..networks.len().min(NAMED)].join(", ");
        let more = networks.len().saturating_sub(NAMED);
        write!(f, "limit {} of each {} (/{v4}, /{v6}) to {packets_per_second}/s: ", name.label(), per.label())?;
        write!(f, "that holds {:.0} % of it, which comes from {named}", covers * 100.0)?;
        if more > 0 {
            write!(f, " and {more} more")?;
        }
        write!(f, "; {:.2} % of {measured_on} are from there", collateral * 100.0)
    }
}

//! A group of the few networks that have gone wild, each source of which may begin only so many connections: what they begin otherwise,
//! and as much again, for all of them together. What they have open it does not touch, nor anybody else.

use std::fmt;

use floodwall_common::limits::{Limits, Rate};
use ipnet::IpNet;

use super::AUTOMATIC_NAME;
use super::good::{Good, Measured};
use crate::detect::{Assessment, Features, Observed, Window};
use crate::explain::address_of;

/// What the group is called.
pub const GROUP: &str = "auto-misconfig";
/// How many times of what they begin otherwise all of them may begin: below the three times from which on a network has grown, so that
/// it takes something off whoever is named, and as much as customers may become more in a week.
const ROOM: f64 = 2.0;
/// Connections a second below which no source is held: a whole network that begins fewer has not grown. People who open pages do not
/// begin one and a half.
const FLOOR: f64 = 5.0;
/// What each may begin at once: three pages of six connections each, and two more.
const BURST: u64 = 20;
/// The share of what is begun that it has to take off.
const TAKES: f64 = 0.2;
/// Who begins more than this share of all connections anyway is no client among others: these are the customers, behind a network of
/// delivery perhaps, and more of them look like one that has gone wild.
const CUSTOMERS: f64 = 0.8;

/// Who is held, and how.
#[derive(Clone, Debug, PartialEq)]
pub struct GroupLimit {
    /// The networks.
    pub prefixes: Vec<IpNet>,
    /// Connections that each source there may begin in a second.
    pub per_second: u64,
    /// Connections that all of them begin in a second, and otherwise.
    pub begun: [f64; 2],
    /// The share of good traffic that is from there.
    pub share: f64,
    /// What that was measured on.
    pub measured_on: Measured,
}

impl GroupLimit {
    /// What is set.
    pub fn limits(&self) -> Limits {
        let packets = Rate::Limit { per_second: self.per_second, burst: BURST.max(2 * self.per_second) };
        Limits { packets, bytes: Rate::Off }
    }

    /// Whether nobody is in the other that is not in this one.
    pub(super) fn has_all_of(&self, other: &Self) -> bool {
        other.prefixes.iter().all(|prefix| self.prefixes.contains(prefix))
    }
}

/// A limit for those who are named and have grown at this moment. None where it would take little off, or where these are most of the
/// customers.
pub(super) fn find(assessment: &Assessment, features: &Features, window: &Window) -> Option<GroupLimit> {
    let excess = features.openers.aggregate.as_ref().filter(|excess| excess.usual_share <= CUSTOMERS)?;
    let is_named = |prefix: &IpNet| assessment.who.contains(prefix);
    let prefixes: Vec<_> = excess.networks.iter().copied().filter(is_named).collect();
    let limit = level(&excess.sources, ROOM * excess.usual)?.max(FLOOR).ceil();
    let held: f64 = excess.sources.iter().map(|rate| (rate - limit).max(0.0)).sum();
    if prefixes.is_empty() || held < TAKES * excess.per_second {
        return None;
    }
    let good = Good::before(window);
    let is_from_there = |packet: &Observed| {
        let address = address_of(packet.source);
        prefixes.iter().any(|prefix| prefix.contains(&address))
    };
    let (share, measured_on) = (good.share(is_from_there), good.measured());
    Some(GroupLimit {
        prefixes,
        per_second: limit as u64,
        begun: [excess.per_second, excess.usual],
        share,
        measured_on,
    })
}

/// What each source may begin, so that all of them begin so many: whoever begins less than that is left alone, and the others have what
/// is left in equal parts. `None` where they do not begin so many.
fn level(rates: &[f64], all: f64) -> Option<f64> {
    let mut rates = rates.to_vec();
    rates.sort_by(f64::total_cmp);
    let (mut left, mut sources) = (all, rates.len() as f64);
    for rate in rates {
        let part = left / sources;
        if rate > part {
            return Some(part);
        }
        (left, sources) = (left - rate, sources - 1.0);
    }
    None
}

/// Whether a group is one of detection.
pub fn is_automatic(group: &str) -> bool {
    group.starts_with(AUTOMATIC_NAME)
}

impl fmt::Display for GroupLimit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { prefixes, per_second, begun: [now, usual], share, measured_on } = self;
        let prefixes: Vec<_> = prefixes.iter().map(ToString::to_string).collect();
        write!(
            f,
            "limit new connections of each source in {} to {per_second}/s (group {GROUP}): ",
            prefixes.join(", ")
        )?;
        write!(
            f,
            "they begin {now:.0}/s, and {usual:.0}/s otherwise; {:.2} % of {measured_on} are from there, ",
            share * 100.0
        )?;
        f.write_str("and what they have open stays as it is")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::detect::{Excess, Observed, Verdict};

    const SECOND: u64 = 1_000_000_000;

    /// What is done about one network, of which each source begins so much, where that is so much otherwise and such a share of all.
    fn found(sources: &[f64], usual: f64, usual_share: f64) -> Option<GroupLimit> {
        let network: IpNet = "198.51.100.0/24".parse().unwrap();
        let per_second: f64 = sources.iter().sum();
        let (share, times, sources) = (1.0, per_second / usual, sources.to_vec());
        let excess = Excess { share, per_second, times, usual, usual_share, networks: vec![network], sources };
        let mut window = Window::default();
        for number in 0..400_u32 {
            // Every fourth is of the network that is named.
            let source = if number % 4 == 0 { 0xc633_6401 } else { 0x0a00_0000 + number };
            window.take(Observed { is_known: Some(true), ..Observed::segment(source, 40_000, SECOND, 0x10) });
        }
        let mut features = window.features(SECOND, true, None);
        window.take(Observed::segment(1, 1, SECOND, 0x10));
        features.openers.aggregate = Some(excess);
        let assessment = Assessment { verdict: Verdict::Misconfiguration, who: vec![network], ..Assessment::default() };
        find(&assessment, &features, &window)
    }

    fn per_second(sources: &[f64], usual: f64) -> Option<u64> {
        found(sources, usual, 0.3).map(|found| found.per_second)
    }

    #[test]
    fn together_they_may_begin_twice_of_what_they_do_otherwise() {
        assert_eq!(per_second(&[13.0; 40], 160.0), Some(8), "320 of 40");
        assert_eq!(per_second(&[400.0], 20.0), Some(40), "one address of many, or of one");
        let with_others: Vec<_> = [400.0].into_iter().chain([1.0; 20]).collect();
        assert_eq!(
            per_second(&with_others, 22.0),
            Some(24),
            "who begins little keeps it, and the rest is for whoever has gone wild"
        );
    }

    #[test]
    fn nobody_is_held_to_less_than_a_client_begins() {
        assert_eq!(per_second(&[13.0; 40], 4.0), Some(5));
        let Rate::Limit { per_second, burst } = found(&[13.0; 40], 4.0, 0.3).unwrap().limits().packets else {
            panic!()
        };
        assert_eq!((per_second, burst), (5, 20));
        assert_eq!(per_second_of_burst(30), 60);
    }

    fn per_second_of_burst(per_second: u64) -> u64 {
        let limit = GroupLimit {
            prefixes: Vec::new(),
            per_second,
            begun: [0.0; 2],
            share: 0.0,
            measured_on: Measured::default(),
        };
        match limit.limits().packets {
            Rate::Limit { burst, .. } => burst,
            other => panic!("{other}"),
        }
    }

    #[test]
    fn what_would_take_little_off_is_not_set() {
        assert_eq!(per_second(&[4.0; 200], 40.0), None, "each of them begins what a client does");
        assert_eq!(per_second(&[6.0; 200], 40.0), None, "a sixth is taken off");
        assert_eq!(per_second(&[7.0; 200], 40.0), Some(5));
        assert_eq!(per_second(&[9.0; 4], 20.0), None, "fewer than twice the usual");
    }

    #[test]
    fn who_is_most_of_the_customers_is_left_alone() {
        assert!(found(&[13.0; 40], 40.0, 0.8).is_some());
        assert_eq!(found(&[13.0; 40], 40.0, 0.81), None);
    }
}

//! What was measured of a capture, for people who ask why a verdict is what it is: numbers of the fullest second of each group.

use std::collections::BTreeMap;
use std::fmt;

use crate::detect::{Features, Group};

/// Packets of a group in a second of which nothing is said.
const ENOUGH: usize = 40;

/// What was measured of a group of packets in a second.
#[derive(Clone, Debug, PartialEq, serde::Serialize)]
pub struct Measured {
    /// Packets a second.
    pub packets_per_second: f64,
    /// Different sources.
    pub sources: usize,
    /// Packets of a source, on average.
    pub per_source: f64,
    /// Packets of a source: what half of them, and 99 of 100, do not exceed. Like the average, among the latest 4,096 packets.
    pub per_source_p50: u32,
    /// See `per_source_p50`.
    pub per_source_p99: u32,
    /// Entropy of the sources by the most that it could be, from 0 to 1.
    pub source_entropy: f64,
    /// The same of their networks (/16, /48).
    pub network_entropy: f64,
    /// Divergence of lengths, times to live and layouts of TCP options from those of good packets, from 0 to 1; null where either are
    /// too few.
    pub length_divergence: Option<f64>,
    /// See `length_divergence`.
    pub hops_divergence: Option<f64>,
    /// See `length_divergence`.
    pub layout_divergence: Option<f64>,
    /// Of SYNs: the share of connections begun that were completed, and of those not completed the share tried again after a second.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub completed: Option<f64>,
    /// See `completed`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub retried: Option<f64>,
    /// Of SYNs: the share from networks (/24, /48) where nobody was here before.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub unknown_networks: Option<f64>,
}

impl Measured {
    /// Keeps what was measured now, of each group that has more packets than ever.
    pub(super) fn keep(kept: &mut BTreeMap<&'static str, Self>, features: &Features) {
        for group in Group::ALL {
            let present = features.of(group);
            let is_more = |before: &Self| present.per_second > before.packets_per_second;
            if present.samples >= ENOUGH && kept.get(group.label()).is_none_or(is_more) {
                kept.insert(group.label(), Self::of(group, features));
            }
        }
    }

    fn of(group: Group, features: &Features) -> Self {
        let of = features.of(group);
        let of_syns = |share: Option<f64>| share.filter(|_| group == Group::Syn);
        Self {
            packets_per_second: of.per_second,
            sources: of.sources,
            per_source: of.per_source,
            per_source_p50: of.of_source[0],
            per_source_p99: of.of_source[1],
            source_entropy: of.entropy,
            network_entropy: of.networks,
            length_divergence: of.unlike.map(|unlike| unlike.lengths),
            hops_divergence: of.unlike.map(|unlike| unlike.hops),
            layout_divergence: of.unlike.map(|unlike| unlike.layouts),
            completed: of_syns(features.handshakes.completed),
            retried: of_syns(features.handshakes.retried),
            unknown_networks: of_syns(features.openers.unknown),
        }
    }
}

impl fmt::Display for Measured {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { packets_per_second, sources, per_source, per_source_p50, per_source_p99, .. } = self;
        write!(f, "{packets_per_second:.0}/s of {sources} sources, {per_source:.1} each")?;
        write!(f, " (half up to {per_source_p50}, 99 % up to {per_source_p99})")?;
        let shares = [
            ("spread of sources", Some(self.source_entropy)),
            ("of networks", Some(self.network_entropy)),
            ("unlike good lengths", self.length_divergence),
            ("TTLs", self.hops_divergence),
            ("options", self.layout_divergence),
            ("completed", self.completed),
            ("retried", self.retried),
            ("from unknown networks", self.unknown_networks),
        ];
        for (name, share) in shares {
            if let Some(share) = share {
                write!(f, ", {name} {share:.2}")?;
            }
        }
        Ok(())
    }
}

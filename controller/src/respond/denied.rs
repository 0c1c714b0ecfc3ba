//! Sources that go on and on, or hold connections that they do not use: who they are, and what denying them would do.

use std::collections::HashSet;

use floodwall_common::packet::Source;

use super::good::{ENOUGH, Good, Measured};
use super::signature::is_of;
use crate::detect::{Features, Vector, Window};

/// The share of connections that sources which go on and on begin, where they are the flood and not a part of it.
const MOST_OF_IT: f64 = 0.3;
/// Sources that are denied at a time.
const MOST: usize = 1_024;

/// Sources to deny, and what that would do.
#[derive(Clone, Debug, PartialEq)]
pub struct Denied {
    /// For what: an HTTP flood, or slow connections.
    pub vector: Vector,
    /// Who.
    pub sources: Vec<Source>,
    /// The share of all connections that sources such as these begin, or hold.
    pub covers: f64,
    /// What that was measured on. For what they begin: good packets among which none is from any of them. For what they hold: their
    /// connections, of which one in eleven may be in use.
    pub measured_on: Measured,
}

impl Denied {
    /// Whether nobody is in the other that is not in this one.
    pub(super) fn has_all_of(&self, other: &Self) -> bool {
        self.vector == other.vector && other.sources.iter().all(|source| self.sources.contains(source))
    }
}

/// Those of whom no good packet is known, and nobody of their network was a client before.
pub(super) fn find(features: &Features, window: &Window) -> Option<Denied> {
    let good = Good::before(window);
    let known: HashSet<_> = good.iter().map(|packet| is_of(packet.source)).collect();
    let covers = features.openers.persistent?;
    // Among many others only those are meant of whom nothing else can be thought.
    let mut sources = window.persistent(covers < MOST_OF_IT);
    sources.retain(|source| !known.contains(&is_of(*source)));
    sources.truncate(MOST);
    let is_told_apart = good.len() >= ENOUGH && !sources.is_empty();
    is_told_apart.then_some(Denied { vector: Vector::HttpFlood, sources, covers, measured_on: good.measured() })
}

/// Those who hold connections and use none of them, but whose networks were here before. What they sent before anything was found is
/// no excuse: it is these connections.
pub(super) fn holders(features: &Features) -> Option<Denied> {
    let held = features.held.as_ref()?;
    let sources: Vec<_> = held.holders.iter().take(MOST).map(|holder| holder.source).collect();
    let packets = held.holders.iter().take(MOST).map(|holder| (holder.slow + holder.others) as usize).sum();
    let measured_on = Measured { packets, hours: 0 };
    let vector = Vector::SlowConnections;
    (!sources.is_empty()).then(|| Denied { vector, sources, covers: held.share(), measured_on })
}

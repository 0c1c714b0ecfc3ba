//! Sources that go on and on: who they are, and what denying them would do.

use std::collections::HashSet;

use floodwall_common::packet::Source;

use super::signature::{ENOUGH, is_of};
use crate::detect::{Features, Window};

/// Sources that are denied at a time.
const MOST: usize = 1_024;

/// Sources to deny, and what that would do.
#[derive(Clone, Debug, PartialEq)]
pub struct Denied {
    /// Who.
    pub sources: Vec<Source>,
    /// The share of all connections that sources such as these begin.
    pub covers: f64,
    /// Good packets among which none is from any of them.
    pub measured_on: usize,
}

impl Denied {
    /// Whether nobody is in the other that is not in this one.
    pub(super) fn has_all_of(&self, other: &Self) -> bool {
        other.sources.iter().all(|source| self.sources.contains(source))
    }
}

/// Those of whom no good packet is known, and nobody of their network was a client before.
pub(super) fn find(features: &Features, window: &Window) -> Option<Denied> {
    let good = window.good();
    let known: HashSet<_> = good.iter().map(|packet| is_of(packet.source)).collect();
    let mut sources = window.persistent();
    sources.retain(|source| !known.contains(&is_of(*source)));
    sources.truncate(MOST);
    let covers = features.openers.persistent?;
    let is_told_apart = good.len() >= ENOUGH && !sources.is_empty();
    is_told_apart.then_some(Denied { sources, covers, measured_on: good.len() })
}

//! What a signature costs those that it is not meant for. How many that would be was estimated before it was armed; this counts it:
//! packets it drops of ends that this host has spoken with lately. One or two machines of a flood that are clients beside it are nobody to be
//! spared for, unless somebody of their networks was a client before.

use std::collections::HashSet;

use floodwall_common::class::Family;
use floodwall_common::packet::Source;

/// How long is counted at a time.
const PERIOD_NS: u64 = 10_000_000_000;
/// Samples of them below which a share says nothing.
const ENOUGH: u32 = 20;
/// The share of what comes from known ends from which on it hurts more than it helps: ten times of what it was armed with at most.
const TOO_HIGH: f64 = 0.01;

/// Sources that are told apart at most.
const MOST: usize = 256;
/// Fewer sources are few, unless they are half of all.
const FEW: usize = 3;

/// Whether so many sources of all that this host speaks with may be machines of the flood itself.
pub(super) const fn are_few(of: usize, all: usize) -> bool {
    of < FEW && 2 * of < all
}

/// Sources, as many as are told apart.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Sources(HashSet<(u64, Family)>);

impl Sources {
    pub(super) fn take(&mut self, source: Source) {
        if self.0.len() < MOST {
            self.0.insert((source.key(), source.family()));
        }
    }

    pub(super) fn count(&self) -> usize {
        self.0.len()
    }
}

/// What was counted.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Toll {
    since_ns: u64,
    dropped: f64,
    samples: u32,
    spared: f64,
    /// Sources of what it drops, and of all.
    sources: [Sources; 2],
    /// Of what it drops, some is of a client from before.
    hurts_regulars: bool,
}

impl Toll {
    /// A packet of an end that this host has spoken with, which stands for so many; and whether it was a client before what goes on now.
    pub fn count(&mut self, (source, is_regular): (Source, bool), (at_ns, weight): (u64, u32), is_dropped: bool) {
        if at_ns.saturating_sub(self.since_ns) > PERIOD_NS {
            *self = Self { since_ns: at_ns, ..Self::default() };
        }
        let [of_dropped, of_all] = &mut self.sources;
        of_all.take(source);
        if is_dropped {
            of_dropped.take(source);
            self.hurts_regulars |= is_regular;
        }
        match is_dropped {
            true => (self.dropped, self.samples) = (self.dropped + f64::from(weight), self.samples + 1),
            false => self.spared += f64::from(weight),
        }
    }

    /// The share of them that it drops, where that is too much.
    pub fn too_high(&self) -> Option<f64> {
        let share = self.dropped / (self.dropped + self.spared).max(1.0);
        let [of_dropped, of_all] = &self.sources;
        let are_few = !self.hurts_regulars && are_few(of_dropped.count(), of_all.count());
        let says = self.samples >= ENOUGH && !are_few;
        (says && share >= TOO_HIGH).then_some(share)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_too_high_by_its_share_and_in_its_time() {
        let mut toll = Toll::default();
        let count = |toll: &mut Toll, number: u32, at_ns, weight, is_dropped| {
            toll.count((Source::V4(number), false), (at_ns, weight), is_dropped);
        };
        (0..5_000).for_each(|number| count(&mut toll, number, 1, 1, false));
        (0..19).for_each(|number| count(&mut toll, number, 1, 10, true));
        assert_eq!(toll.too_high(), None, "too few to say");
        count(&mut toll, 19, 1, 10, true);
        assert!((toll.too_high().unwrap_or(0.0) - 200.0 / 5_200.0).abs() < 1e-9, "{toll:?}");
        (0..20_000).for_each(|number| count(&mut toll, number, 1, 1, false));
        assert_eq!(toll.too_high(), None, "one of a hundred and more");
        (0..30).for_each(|number| count(&mut toll, number, PERIOD_NS + 2, 1, true));
        assert_eq!(toll.too_high(), Some(1.0), "counted anew");
    }

    /// A machine of the flood that opens a connection and sends the flood over it.
    #[test]
    fn two_clients_of_many_have_nothing_withdrawn_and_a_host_of_two_does() {
        let toll = |hurt: u32, others: u32, are_regular: bool| {
            let mut toll = Toll::default();
            (0..1_000).for_each(|number| toll.count((Source::V4(number % hurt), are_regular), (1, 10), true));
            (0..others).for_each(|number| toll.count((Source::V4(0x0a00_0000 + number), true), (1, 1), false));
            toll.too_high().is_some()
        };
        assert!(!toll(1, 50, false) && !toll(2, 50, false));
        assert!(toll(3, 50, false) && toll(1, 1, false) && toll(1, 0, false));
        assert!(toll(1, 50, true), "a proxy through which most customers come");
    }
}

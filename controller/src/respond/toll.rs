//! What a signature costs those that it is not meant for. How many that would be was estimated before it was armed; this counts it:
//! packets it drops of ends that this host has spoken with lately.

/// How long is counted at a time.
const PERIOD_NS: u64 = 10_000_000_000;
/// Samples of them below which a share says nothing.
const ENOUGH: u32 = 20;
/// The share of what comes from known ends from which on it hurts more than it helps: ten times of what it was armed with at most.
const TOO_HIGH: f64 = 0.01;

/// What was counted.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Toll {
    since_ns: u64,
    dropped: f64,
    samples: u32,
    spared: f64,
}

impl Toll {
    /// A packet of an end that this host has spoken with, which stands for so many.
    pub fn count(&mut self, at_ns: u64, weight: u32, is_dropped: bool) {
        if at_ns.saturating_sub(self.since_ns) > PERIOD_NS {
            *self = Self { since_ns: at_ns, ..Self::default() };
        }
        match is_dropped {
            true => (self.dropped, self.samples) = (self.dropped + f64::from(weight), self.samples + 1),
            false => self.spared += f64::from(weight),
        }
    }

    /// The share of them that it drops, where that is too much.
    pub fn too_high(&self) -> Option<f64> {
        let share = self.dropped / (self.dropped + self.spared).max(1.0);
        (self.samples >= ENOUGH && share >= TOO_HIGH).then_some(share)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_too_high_by_its_share_and_in_its_time() {
        let mut toll = Toll::default();
        (0..5_000).for_each(|_| toll.count(1, 1, false));
        (0..19).for_each(|_| toll.count(1, 10, true));
        assert_eq!(toll.too_high(), None, "too few to say");
        toll.count(1, 10, true);
        assert!((toll.too_high().unwrap_or(0.0) - 200.0 / 5_200.0).abs() < 1e-9, "{toll:?}");
        (0..20_000).for_each(|_| toll.count(1, 1, false));
        assert_eq!(toll.too_high(), None, "one of a hundred and more");
        (0..30).for_each(|_| toll.count(PERIOD_NS + 2, 1, true));
        assert_eq!(toll.too_high(), Some(1.0), "counted anew");
    }
}

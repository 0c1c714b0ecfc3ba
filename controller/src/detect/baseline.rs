//! What is usual at this hour of the week: learned minute by minute while nothing goes on, kept over restarts.
//!
//! Of each hour there is a histogram of the mean rates of its minutes, and usual is what nine of ten stay below: one odd minute moves
//! nothing. What is learned of an hour is at most twice of what was usual when the hour began, so whatever grows slowly takes a week
//! for each doubling.

use serde::{Deserialize, Serialize};

use super::features::Features;
use super::observed::Group;

/// Hours of a week.
pub const HOURS: usize = 168;
/// Rates that are kept: of each group, and connections completed.
const RATES: usize = Group::ALL.len() + 1;
const CONNECTIONS: usize = RATES - 1;
/// A minute.
const MINUTE_NS: u64 = 60_000_000_000;
/// Minutes of an hour from which on something is usual.
const ENOUGH: u32 = 30;
/// Minutes that an hour remembers: four weeks, older ones fade.
const MEMORY: u32 = 240;
/// Steps of a histogram by each doubling of a rate, and all of them: to 16 million a second.
const STEPS: f64 = 4.0;
const BINS: usize = 97;
/// The share of minutes that usual is not exceeded in.
const QUANTILE: f64 = 0.9;
/// How many times as much of an hour may be learned in a week.
const RISE: f64 = 2.0;
/// Version of the shape that is kept.
const SCHEMA_VERSION: u32 = 1;

/// Minutes by their rates.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
struct Histogram(Vec<(usize, u32)>);

impl Histogram {
    fn add(&mut self, rate: f64) {
        let bin = ((rate.max(1.0).log2() * STEPS).round() as usize).min(BINS - 1);
        match self.0.binary_search_by_key(&bin, |(bin, _)| *bin) {
            Ok(place) => self.0[place].1 += 1,
            Err(place) => self.0.insert(place, (bin, 1)),
        }
    }

    fn quantile(&self, share: f64) -> f64 {
        let all: u32 = self.0.iter().map(|(_, count)| count).sum();
        let mut below = 0;
        let found = self.0.iter().find(|(_, count)| {
            below += count;
            f64::from(below) >= share * f64::from(all)
        });
        found.map_or(0.0, |(bin, _)| (*bin as f64 / STEPS).exp2())
    }

    fn fade(&mut self) {
        self.0.iter_mut().for_each(|(_, count)| *count /= 2);
        self.0.retain(|(_, count)| *count > 0);
    }
}

/// An hour of the week.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
struct Hour {
    minutes: u32,
    rates: [Histogram; RATES],
}

impl Hour {
    fn usual(&self, rate: usize) -> Option<f64> {
        (self.minutes >= ENOUGH).then(|| self.rates[rate].quantile(QUANTILE))
    }
}

/// The minute that goes on. It is kept too: a daemon that starts again within the hour may not learn twice as much of it once more.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
struct Minute {
    hour: usize,
    elapsed_ns: u64,
    sums: [f64; RATES],
    /// The most that is learned of each, from what was usual when this hour began.
    most: [Option<f64>; RATES],
}

/// What is usual in each hour of the week.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Baseline {
    schema_version: u32,
    hours: Vec<Hour>,
    minute: Option<Minute>,
}

impl Baseline {
    /// One that was kept. `None` where it is of another shape.
    pub fn of_json(text: &str) -> Option<Self> {
        let kept: Self = serde_json::from_str(text).ok()?;
        (kept.schema_version == SCHEMA_VERSION && kept.hours.len() == HOURS).then_some(kept)
    }

    /// Takes in what was measured, as often as it is. Only of moments that are good.
    pub(super) fn learn(&mut self, hour: usize, features: &Features, elapsed_ns: u64) {
        if self.hours.len() != HOURS {
            (self.schema_version, self.hours) = (SCHEMA_VERSION, vec![Hour::default(); HOURS]);
        }
        let hour = hour % HOURS;
        let is_another = self.minute.as_ref().is_none_or(|minute| minute.hour != hour);
        if is_another {
            let of = &self.hours[hour];
            let most = std::array::from_fn(|rate| of.usual(rate).map(|usual| RISE * usual));
            self.minute = Some(Minute { hour, most, ..Minute::default() });
        }
        let Some(minute) = &mut self.minute else { return };
        let seconds = elapsed_ns as f64 / 1e9;
        let groups = features.groups.iter().map(|group| group.per_second);
        let rates = groups.chain([features.handshakes.completed_per_second]);
        minute.sums.iter_mut().zip(rates).for_each(|(sum, rate)| *sum += rate * seconds);
        minute.elapsed_ns += elapsed_ns;
        if minute.elapsed_ns < MINUTE_NS {
            return;
        }
        let of = &mut self.hours[hour];
        let seconds = minute.elapsed_ns as f64 / 1e9;
        for ((histogram, sum), most) in of.rates.iter_mut().zip(&mut minute.sums).zip(minute.most) {
            let rate = *sum / seconds;
            histogram.add(most.map_or(rate, |most| rate.min(most)));
            *sum = 0.0;
        }
        minute.elapsed_ns = 0;
        of.minutes += 1;
        if of.minutes >= MEMORY {
            of.minutes /= 2;
            of.rates.iter_mut().for_each(Histogram::fade);
        }
    }

    fn usual(&self, hour: usize, rate: usize) -> Option<f64> {
        self.hours.get(hour % HOURS)?.usual(rate)
    }

    /// Packets of a group in a second of this hour.
    pub(super) fn packets(&self, hour: usize, group: Group) -> Option<f64> {
        self.usual(hour, group as usize)
    }

    /// Connections completed in a second of this hour.
    pub(super) fn connections(&self, hour: usize) -> Option<f64> {
        self.usual(hour, CONNECTIONS)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of_udp(per_second: f64) -> Features {
        let mut features = Features::default();
        features.groups[Group::Udp as usize].per_second = per_second;
        features
    }

    fn learn(baseline: &mut Baseline, hour: usize, minutes: usize, rate: impl Fn(usize) -> f64) {
        (0..minutes).for_each(|minute| baseline.learn(hour, &of_udp(rate(minute)), MINUTE_NS));
    }

    fn usual(baseline: &Baseline, hour: usize) -> Option<f64> {
        baseline.packets(hour, Group::Udp)
    }

    fn is_about(found: Option<f64>, wanted: f64) -> bool {
        found.is_some_and(|found| (found / wanted).log2().abs() <= 0.5 / STEPS + 0.01)
    }

    #[test]
    fn each_hour_has_its_own_and_an_odd_minute_moves_nothing() {
        let mut baseline = Baseline::default();
        learn(&mut baseline, 9, 29, |_| 1_000.0);
        assert_eq!(usual(&baseline, 9), None, "too few minutes");
        learn(&mut baseline, 9, 31, |minute| if minute == 7 { 900_000.0 } else { 1_000.0 });
        learn(&mut baseline, 3, 60, |_| 40.0);
        assert!(is_about(usual(&baseline, 9), 1_000.0) && is_about(usual(&baseline, 3), 40.0));
        assert_eq!(usual(&baseline, 4), None);
    }

    #[test]
    fn what_grows_slowly_takes_a_week_for_each_doubling() {
        let mut baseline = Baseline::default();
        learn(&mut baseline, 9, 60, |_| 1_000.0);
        for week in 1..=4 {
            // Another hour comes between.
            learn(&mut baseline, 10, 1, |_| 1_000.0);
            learn(&mut baseline, 9, 60, |minute| 1_000.0 * 1.2_f64.powi(minute as i32));
            let most = 1_000.0 * 2_f64.powi(week) * 1.1;
            assert!(usual(&baseline, 9).is_some_and(|usual| usual <= most), "week {week}: {:?}", usual(&baseline, 9));
        }
        assert!(usual(&baseline, 9) > Some(2_500.0), "but it follows: {:?}", usual(&baseline, 9));
    }

    #[test]
    fn who_starts_again_within_the_hour_learns_no_more_of_it() {
        let mut baseline = Baseline::default();
        learn(&mut baseline, 9, 60, |_| 1_000.0);
        // A week later.
        learn(&mut baseline, 10, 1, |_| 1_000.0);
        learn(&mut baseline, 9, 1, |_| 1_000.0);
        for start in 0..6 {
            let text = serde_json::to_string(&baseline).unwrap_or_default();
            baseline = Baseline::of_json(&text).unwrap_or_default();
            learn(&mut baseline, 9, 30, |_| 100_000.0);
            assert!(
                usual(&baseline, 9).is_some_and(|usual| usual <= 2_200.0),
                "start {start}: {:?}",
                usual(&baseline, 9)
            );
        }
    }

    #[test]
    fn it_is_kept_and_what_is_no_baseline_is_none() {
        let mut baseline = Baseline::default();
        learn(&mut baseline, 100, 60, |minute| 10.0 * minute as f64);
        let text = serde_json::to_string(&baseline).unwrap_or_default();
        let kept = Baseline::of_json(&text);
        assert_eq!(kept.as_ref().and_then(|kept| usual(kept, 100)), usual(&baseline, 100));
        for wrong in ["", "[]", "{}", "{\"schema_version\":1,\"hours\":[]}", &text.replace(":1,", ":2,")] {
            assert!(Baseline::of_json(wrong).is_none(), "{wrong}");
        }
    }
}

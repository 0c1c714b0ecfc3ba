//! Who sends most: estimated from the sampled headers of the last seconds, in bounded memory.

use std::collections::{HashMap, VecDeque};
use std::net::{Ipv4Addr, Ipv6Addr};

use floodwall_common::packet::Source;
use floodwall_common::reason::Reason;

use crate::api::{SCHEMA_VERSION, TalkerView, TopView};
use crate::dataplane::Sample;

/// How far back it looks.
const WINDOW_NS: u64 = 10_000_000_000;
/// Samples that are kept at most: 4 MiB.
const CAPACITY: usize = 1 << 16;

/// What `top` sorts by.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum, serde::Deserialize, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum By {
    /// Packets per second.
    #[default]
    Packets,
    /// Bytes per second.
    Bytes,
    /// Packets per second that drop, or would in enforce mode.
    Dropped,
}

impl By {
    /// The name that leaves the process.
    pub const fn label(self) -> &'static str {
        match self {
            Self::Packets => "packets",
            Self::Bytes => "bytes",
            Self::Dropped => "dropped",
        }
    }
}

/// The unit that sources are kept by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Key {
    V4(u32),
    V6(u64),
}

impl From<Source> for Key {
    fn from(source: Source) -> Self {
        match source {
            Source::V4(address) => Self::V4(address),
            Source::V6(upper, _) => Self::V6(upper),
        }
    }
}

/// How a source is written: an IPv4 address, or the /64 that an IPv6 address is judged by.
pub fn source_name(source: Source) -> String {
    match Key::from(source) {
        Key::V4(address) => Ipv4Addr::from(address).to_string(),
        Key::V6(upper) => format!("{}/64", Ipv6Addr::from(u128::from(upper) << 64)),
    }
}

/// Samples of the last seconds.
#[derive(Debug, Default)]
pub struct Talkers {
    samples: VecDeque<Sample>,
}

#[derive(Default)]
struct Total {
    packets: u64,
    bytes: u64,
    dropped: u64,
    samples: usize,
    by_reason: HashMap<Reason, u64>,
}

impl Talkers {
    /// Takes a sample in, and lets go of those that are too old or too many.
    pub fn push(&mut self, sample: Sample) {
        while self.samples.len() >= CAPACITY {
            self.samples.pop_front();
        }
        self.samples.push_back(sample);
    }

    /// Lets go of what is out of the window.
    pub fn expire(&mut self, now_ns: u64) {
        let oldest = now_ns.saturating_sub(WINDOW_NS);
        while self.samples.front().is_some_and(|sample| sample.monotonic_ns < oldest) {
            self.samples.pop_front();
        }
    }

    /// The `count` sources that send most.
    pub fn top(&self, by: By, count: usize, now_ns: u64) -> TopView {
        let window_s = self.window_s(now_ns);
        let mut totals: HashMap<Key, (Source, Total)> = HashMap::new();
        let mut all = 0;
        for sample in self.recent(now_ns) {
            all += u64::from(sample.weight);
            if let Some(source) = sample.source {
                totals.entry(source.into()).or_insert_with(|| (source, Total::default())).1.add(sample);
            }
        }
        let mut talkers: Vec<_> =
            totals.into_values().map(|(source, total)| total.view(source, window_s, all)).collect();
        let value = |talker: &TalkerView| match by {
            By::Packets => talker.packets_per_second,
            By::Bytes => talker.bytes_per_second,
            By::Dropped => talker.dropped_per_second,
        };
        talkers.retain(|talker| value(talker) > 0.0);
        talkers.sort_by(|a, b| value(b).total_cmp(&value(a)).then_with(|| a.source.cmp(&b.source)));
        talkers.truncate(count);
        let by = by.label().to_owned();
        TopView { schema_version: SCHEMA_VERSION, window_s, by, samples: self.samples.len(), talkers }
    }

    /// What was seen of one source; `None` where no sample was.
    pub fn of(&self, source: Source, now_ns: u64) -> Option<TalkerView> {
        let mut total = Total::default();
        let mut all = 0;
        for sample in self.recent(now_ns) {
            all += u64::from(sample.weight);
            if sample.source.is_some_and(|seen| Key::from(seen) == Key::from(source)) {
                total.add(sample);
            }
        }
        (total.samples > 0).then(|| total.view(source, self.window_s(now_ns), all))
    }

    fn recent(&self, now_ns: u64) -> impl Iterator<Item = &Sample> {
        let oldest = now_ns.saturating_sub(WINDOW_NS);
        self.samples.iter().filter(move |sample| sample.monotonic_ns >= oldest)
    }

    /// The time that the samples cover: less than the window where more came than are kept.
    fn window_s(&self, now_ns: u64) -> f64 {
        let full = self.samples.len() >= CAPACITY;
        let oldest = self.samples.front().filter(|_| full).map(|sample| sample.monotonic_ns);
        let covered = oldest.map_or(WINDOW_NS, |oldest| now_ns.saturating_sub(oldest));
        covered.clamp(1, WINDOW_NS) as f64 / 1e9
    }
}

impl Total {
    fn add(&mut self, sample: &Sample) {
        let weight = u64::from(sample.weight);
        self.packets += weight;
        self.bytes += weight * u64::from(sample.frame_bytes);
        self.dropped += if sample.drops { weight } else { 0 };
        self.samples += 1;
        *self.by_reason.entry(sample.reason).or_default() += weight;
    }

    fn view(self, source: Source, window_s: f64, all: u64) -> TalkerView {
        let reason = self.by_reason.into_iter().max_by_key(|(reason, weight)| (*weight, *reason as u8));
        TalkerView {
            source: source_name(source),
            packets_per_second: self.packets as f64 / window_s,
            bytes_per_second: self.bytes as f64 / window_s,
            dropped_per_second: self.dropped as f64 / window_s,
            share: self.packets as f64 / all.max(1) as f64,
            reason: reason.map_or("", |(reason, _)| reason.label()).to_owned(),
            samples: self.samples,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use floodwall_common::abi::Stream;
    use floodwall_common::class::{Class, Family, Kind};

    const NOW: u64 = 100_000_000_000;

    fn sample(source: Source, weight: u32, drops: bool, age_ns: u64) -> Sample {
        Sample {
            monotonic_ns: NOW - age_ns,
            weight,
            frame_bytes: 100,
            slot: 0,
            reason: if drops { Reason::PacketLimit } else { Reason::Passed },
            kind: Kind::new(Family::V4, Class::Udp),
            stream: if drops { Stream::Drop } else { Stream::Pass },
            drops,
            dropped: drops,
            source: Some(source),
        }
    }

    #[test]
    fn sorts_by_what_is_asked() {
        let mut talkers = Talkers::default();
        talkers.push(sample(Source::V4(0x0a00_0001), 1_000, false, 5));
        talkers.push(sample(Source::V4(0x0a00_0002), 600, true, 5));
        talkers.push(sample(Source::V4(0x0a00_0002), 300, false, 5));
        let names = |by| -> Vec<_> { talkers.top(by, 9, NOW).talkers.into_iter().map(|t| t.source).collect() };
        assert_eq!(names(By::Packets), ["10.0.0.1", "10.0.0.2"]);
        assert_eq!(names(By::Dropped), ["10.0.0.2"]);
        let top = talkers.top(By::Packets, 1, NOW);
        assert_eq!(top.talkers.len(), 1);
        assert!((top.talkers[0].packets_per_second - 100.0).abs() < 1e-9);
        assert!((top.talkers[0].share - 1_000.0 / 1_900.0).abs() < 1e-9);
    }

    #[test]
    fn an_ipv6_source_is_its_64() {
        let mut talkers = Talkers::default();
        talkers.push(sample(Source::V6(0x2001_0db8_0000_0001, 1), 10, false, 5));
        talkers.push(sample(Source::V6(0x2001_0db8_0000_0001, 2), 10, false, 5));
        let top = talkers.top(By::Packets, 9, NOW);
        assert_eq!(top.talkers.len(), 1);
        assert_eq!(top.talkers[0].source, "2001:db8:0:1::/64");
        assert_eq!(top.talkers[0].samples, 2);
    }

    #[test]
    fn forgets_what_is_old_and_holds_no_more_than_it_may() {
        let mut talkers = Talkers::default();
        talkers.push(sample(Source::V4(1), 10, false, WINDOW_NS + 1));
        talkers.push(sample(Source::V4(2), 10, false, 5));
        assert!(talkers.of(Source::V4(1), NOW).is_none());
        talkers.expire(NOW);
        assert_eq!(talkers.samples.len(), 1);
        (0..CAPACITY as u32 + 5).for_each(|_| talkers.push(sample(Source::V4(3), 1, false, 1_000_000_000)));
        assert_eq!(talkers.samples.len(), CAPACITY);
        let rate = talkers.of(Source::V4(3), NOW).map(|talker| talker.packets_per_second);
        assert!(rate.is_some_and(|rate| (rate / CAPACITY as f64 - 1.0).abs() < 0.01), "{rate:?}");
    }
}

//! Detection over months of arrivals, and a thousand floods on them, by rates alone: [`floodwall_tests::arrivals`]. The series is
//! that of `FLOODWALL_CAPTURES` where it is set, and a made-up one of two weeks else.

#![expect(clippy::unwrap_used, reason = "the helpers of tests fail as the tests do: by a panic")]

use std::collections::BTreeMap;
use std::path::PathBuf;

use floodwall::detect::{Assessment, Vector, detect};
use floodwall_tests::arrivals::{Attempts, Kind, Site, Usual};
use floodwall_tests::captures::made::Random;

const MINUTE: f64 = 60.0;
const TICK: f64 = 0.1;
/// How long a flood is looked at.
const PATIENCE: f64 = 60.0;
const FLOODS: usize = 1_000;
/// Packets a second of which not every kind of flood is looked for.
const SMALL: f64 = 1_000.0;
/// Those whose packets are a group of their own, or are told by their handshakes. Completed connections are another matter.
const VECTORS: [Vector; 8] = [
    Vector::SynFlood,
    Vector::TcpReflection,
    Vector::Amplification,
    Vector::UdpFlood,
    Vector::TcpFlood,
    Vector::IcmpFlood,
    Vector::FragmentFlood,
    Vector::ProtocolFlood,
];

/// Arrivals in each minute.
fn series() -> Vec<f64> {
    let Some(directory) = std::env::var_os("FLOODWALL_CAPTURES").map(PathBuf::from) else {
        println!("FLOODWALL_CAPTURES is not set: a made-up series is looked at");
        return made_up();
    };
    let text = std::fs::read_to_string(directory.join("rates/wc98_per_minute.csv")).unwrap();
    text.lines().skip(1).map(|line| line.rsplit(',').next().unwrap().parse().unwrap()).collect()
}

/// Two weeks of days and nights, with matches in the evenings, and a jump to 46 times within three minutes.
fn made_up() -> Vec<f64> {
    let mut random = Random(98);
    let mut minutes: Vec<f64> = (0..14 * 1_440)
        .map(|minute| {
            let hour = f64::from(minute % 1_440) / MINUTE;
            let day = 1.0 + 0.8 * ((hour - 9.0) / 24.0 * std::f64::consts::TAU).sin();
            let game = if (19.0..21.0).contains(&hour) { 2.5 } else { 1.0 };
            4_000.0 * day * game * random.between(0.8..1.2)
        })
        .collect();
    let quiet = 9 * 1_440 + 3 * 60;
    for (minute, times) in [(0, 12.0), (1, 20.0), (2, 46.0), (3, 46.0), (4, 40.0), (5, 20.0), (6, 5.0)] {
        minutes[quiet + minute] = 1_250.0 * times;
    }
    minutes
}

#[test]
fn arrivals_are_never_an_attack() {
    let series = series();
    let (mut random, mut usual) = (Random(1), Usual::default());
    let mut seen: BTreeMap<&str, usize> = BTreeMap::new();
    let mut most: f64 = 0.0;
    for pair in series.windows(2) {
        // Of minutes that jump, each second.
        let times = pair[1] / pair[0].max(MINUTE);
        most = most.max(times);
        let looks = if times > 1.8 { 60 } else { 1 };
        for _ in 0..looks {
            let features = Site::of(pair[1] / MINUTE, &mut random).features(&[], &[]);
            let found = detect(&features, &usual);
            assert!(!found.verdict.is_attack(), "{} then {} arrivals: {found:?}", pair[0], pair[1]);
            *seen.entry(found.verdict.label()).or_default() += 1;
            usual.learn(&features, &found, MINUTE / f64::from(looks));
        }
    }
    println!("{} minutes, up to {most:.0} times the one before: {seen:?}", series.len());
    assert!(most > 10.0 && seen.get("surge").is_some_and(|count| *count > 0), "{seen:?}");
}

/// How a flood comes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Shape {
    AtOnce,
    Ramp,
    Pulses,
    Switching,
}

impl Shape {
    const ALL: [Self; 4] = [Self::AtOnce, Self::Ramp, Self::Pulses, Self::Switching];
}

struct Flood {
    shape: Shape,
    kinds: [Kind; 4],
    per_second: f64,
    /// The ramp; or a pulse, and the pause behind it; or a turn.
    seconds: f64,
    pause: f64,
}

impl Flood {
    fn new(per_second: f64, random: &mut Random) -> Self {
        let shape = random.one_of(&Shape::ALL);
        let kinds = std::array::from_fn(|_| Kind::of(random.one_of(&VECTORS), random));
        let seconds = if shape == Shape::Ramp { random.between(1.0..60.0) } else { random.between(1.0..8.0) };
        Self { shape, kinds, per_second, seconds, pause: random.between(2.0..12.0) }
    }

    /// Which kind is sent at a time, and how many a second.
    fn at(&self, time: f64) -> (usize, f64) {
        match self.shape {
            Shape::AtOnce => (0, self.per_second),
            Shape::Ramp => (0, self.per_second * (time / self.seconds).min(1.0)),
            Shape::Pulses if time % (self.seconds + self.pause) < self.seconds => (0, self.per_second),
            Shape::Pulses => (0, 0.0),
            Shape::Switching => ((time / self.seconds) as usize % self.kinds.len(), self.per_second),
        }
    }

    /// Packets of a kind that were sent between two times.
    fn packets(&self, kind: usize, from: f64, to: f64) -> f64 {
        let ticks = (from.max(0.0) / TICK).round() as usize..(to.max(0.0) / TICK).round() as usize;
        let sent = ticks.map(|tick| self.at((tick as f64 + 0.5) * TICK));
        sent.filter(|(of, _)| *of == kind).map(|(_, per_second)| per_second * TICK).sum()
    }

    /// When it is called an attack, in seconds from its first packet.
    fn is_found(&self, site: &Site, usual: &Usual) -> Option<f64> {
        let mut usual = usual.clone();
        for tick in 1..(PATIENCE / TICK) as usize {
            let now = tick as f64 * TICK;
            let of_kind = |(number, kind): (usize, &Kind)| kind.stream(self.packets(number, now - 1.0, now));
            let streams: Vec<_> = self.kinds.iter().enumerate().map(of_kind).collect();
            let begun = |(number, kind): (usize, &Kind)| {
                let (old, very_old) =
                    (self.packets(number, now - 4.0, now - 0.5), self.packets(number, now - 4.0, now - 1.5));
                kind.attempts(old, very_old)
            };
            let attempts: Vec<Attempts> = self.kinds.iter().enumerate().map(begun).collect();
            let features = site.features(&streams, &attempts);
            let found = detect(&features, &usual);
            if found.verdict.is_attack() {
                return Some(now);
            }
            usual.learn(&features, &found, TICK);
        }
        None
    }
}

#[derive(Default)]
struct Found {
    after: Vec<f64>,
    missed: Vec<String>,
}

impl Found {
    fn quantile(&mut self, share: f64) -> f64 {
        self.after.sort_by(f64::total_cmp);
        let index = (self.after.len() as f64 * share) as usize;
        self.after.get(index.min(self.after.len().saturating_sub(1))).copied().unwrap_or(f64::NAN)
    }

    fn row(&mut self) -> String {
        let quantiles = [0.5, 0.95, 1.0].map(|share| format!("{:.1}", self.quantile(share)));
        format!("{} | {} | {}", self.after.len() + self.missed.len(), quantiles.join(" | "), self.missed.len())
    }
}

#[test]
fn floods_on_arrivals_are_found() {
    let series = series();
    let mut random = Random(2);
    let mut by: BTreeMap<String, Found> = BTreeMap::new();
    let mut all = Found::default();
    for _ in 0..FLOODS {
        let minute = 1 + (random.part() * (series.len() - 1) as f64) as usize;
        let site = Site::of(series[minute] / MINUTE, &mut random);
        let mut usual = Usual::default();
        usual.learn(&site.features(&[], &[]), &Assessment { confidence: 1.0, ..Assessment::default() }, MINUTE);
        let times = random.between(2.0f64.ln()..100.0f64.ln()).exp();
        let flood = Flood::new(site.per_second() * times, &mut random);
        let after = flood.is_found(&site, &usual);
        let what =
            format!("{:?} {} {times:.1} times {:.0}/s", flood.shape, flood.kinds[0].vector.label(), site.per_second());
        let times_of_usual = if times < 4.0 { "2 to 4 times" } else { "4 times and more" };
        let size = if flood.per_second < SMALL { "small" } else { "large" };
        let shape = format!("{:?}", flood.shape);
        for key in [&shape, flood.kinds[0].vector.label(), &format!("{size}, {times_of_usual}")].map(str::to_owned) {
            let found = by.entry(key).or_default();
            match after {
                Some(after) => found.after.push(after),
                None => found.missed.push(what.clone()),
            }
        }
        match after {
            Some(after) => all.after.push(after),
            None => all.missed.push(what),
        }
    }
    println!("| | floods | median s | p95 s | slowest s | missed |\n| all | {} |", all.row());
    for (key, found) in &mut by {
        println!("| {key} | {} |", found.row());
    }
    println!("missed:\n{}", all.missed.join("\n"));
    assert!(all.missed.len() <= FLOODS / 20, "{} missed", all.missed.len());
    let plain = &by["large, 4 times and more"];
    assert!(plain.missed.len() * 100 <= plain.after.len(), "{:?}", plain.missed);
    let at_once = by.get_mut("AtOnce").unwrap();
    assert!(at_once.quantile(0.95) <= 1.0, "{}", at_once.row());
}

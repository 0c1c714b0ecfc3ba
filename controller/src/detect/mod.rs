//! What is going on: an attack, and of which kind, or not. Of structure, not of volume: volume only says whether to look.
//!
//! [`detect`] is a function of the features of the last second and of what is usual. [`Detector`] feeds it, and keeps a
//! verdict from flapping.

mod baseline;
mod evidence;
mod features;
mod handshakes;
mod held;
mod observed;
mod openers;
mod room;
mod unlike;
mod week;

pub use baseline::{Baseline, HOURS};
use evidence::{Case, Demand, Weighed, weigh, weigh_demand};
pub use evidence::{MOVED, UNMOVED, Vector, unmoved};
pub use features::{Aggregate, Features, ONE_GOOD_OF, WINDOW_NS, Window};
pub use handshakes::Handshakes;
pub use held::{Held, Holder, Open};
use ipnet::IpNet;
pub(crate) use observed::is_amplifier;
pub use observed::{Group, Host, Observed, Rates, Tuple};
pub use openers::{Excess, Openers};
pub use unlike::Unlike;
pub use week::Week;

/// From here on it is called an attack.
const SURE: f64 = 0.8;
/// How long an attack has to be over before it is called over: the next pulse is the same attack.
const HOLD_NS: u64 = 30_000_000_000;
/// How many times as slowly a surge becomes what is usual.
const SURGE_SLOWER: u64 = 10;
/// Packets in a second of which nothing can be said.
const ENOUGH: usize = 40;
/// Connections that are held, of which nobody is woken: too few to fill anything.
const ENOUGH_HELD: usize = 50;
/// The share of connections begun that is answered, below which a host is hard pressed.
const PRESSED: f64 = 0.75;
/// How sure it has to be that nothing goes on, for what comes to be good.
const QUIET: f64 = 0.5;
/// Reasons that are told.
const REASONS: usize = 3;

/// What is going on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Verdict {
    /// Nothing out of the ordinary.
    #[default]
    Normal,
    /// More customers than usual.
    Surge,
    /// Customers, more than can be served.
    Overload,
    /// A few clients that ask far more than they mean to.
    Misconfiguration,
    /// A flood.
    Attack,
    /// A flood, and more customers than usual behind it.
    Mixed,
}

impl Verdict {
    /// All of them.
    pub const ALL: [Self; 6] =
        [Self::Normal, Self::Surge, Self::Overload, Self::Misconfiguration, Self::Attack, Self::Mixed];

    /// The name that leaves the process.
    pub const fn label(self) -> &'static str {
        match self {
            Self::Normal => "normal",
            Self::Surge => "surge",
            Self::Overload => "overload",
            Self::Misconfiguration => "misconfiguration",
            Self::Attack => "attack",
            Self::Mixed => "mixed",
        }
    }

    /// Whether a flood is part of it.
    pub const fn is_attack(self) -> bool {
        matches!(self, Self::Attack | Self::Mixed)
    }
}

/// A verdict, and why.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Assessment {
    /// What is going on.
    pub verdict: Verdict,
    /// The kinds of flood that are going on, the largest first.
    pub vectors: Vec<Vector>,
    /// Those of them that go on at this very moment; the others are held in mind.
    pub current: Vec<Vector>,
    /// How sure that is, from 0 to 1.
    pub confidence: f64,
    /// The strongest reasons, in words.
    pub reasons: Vec<String>,
    /// Who it is that has gone wild: prefixes (/24, /48), those that have grown most first, at most eight. Empty where it is no
    /// misconfiguration, or where it is not known who was here before.
    pub who: Vec<IpNet>,
    /// The kind of flood that is likeliest of those that are not sure.
    pub suspect: Option<Suspect>,
    /// How long this verdict has stood.
    pub stands_ns: u64,
    /// How long ago the last sign of it was.
    pub sign_was_ns: u64,
}

impl Assessment {
    /// Whether nothing goes on, and nothing comes near a flood: what comes then is good, and usual.
    pub fn is_quiet(&self) -> bool {
        self.verdict == Verdict::Normal && self.confidence > QUIET
    }
}

/// A kind of flood that may be going on.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Suspect {
    /// Which.
    pub vector: Vector,
    /// How sure that is, from 0 to 1.
    pub confidence: f64,
    /// How many times as many packets of its group as usual; `None` while nobody knows what is usual.
    pub growth: Option<f64>,
}

/// What there usually is.
pub trait Usually {
    /// Packets of a group in a second; `None` while nobody knows.
    fn packets(&self, group: Group) -> Option<f64>;
    /// Connections completed in a second; `None` while nobody knows.
    fn connections(&self) -> Option<f64>;
}

/// What goes on by the features of the last second, and by what is usual.
pub fn detect(features: &Features, usually: &impl Usually) -> Assessment {
    let (flood, suspect) = detect_flood(features, usually);
    let vectors = flood.as_ref().map_or(&[][..], |flood| &flood.vectors);
    let demand = detect_demand(features, usually, vectors);
    let found = match (flood, demand) {
        (Some(flood), Some((Verdict::Surge | Verdict::Overload, _, weighed))) => {
            let mut reasons = flood.reasons;
            reasons.truncate(REASONS - 1);
            reasons.extend(loudest(&weighed, 1));
            Assessment { verdict: Verdict::Mixed, reasons, ..flood }
        }
        (Some(flood), _) => flood,
        (None, Some((verdict, confidence, weighed))) => {
            let gone_wild = gone_wild(verdict, features);
            let mut reasons: Vec<_> = gone_wild.map(in_words).into_iter().collect();
            reasons.extend(loudest(&weighed, REASONS - reasons.len()));
            let who = gone_wild.map(|excess| excess.networks.clone()).unwrap_or_default();
            Assessment { verdict, confidence, reasons, who, ..Assessment::default() }
        }
        (None, None) => {
            let doubt = suspect.map_or(0.0, |suspect| suspect.confidence);
            Assessment { confidence: 1.0 - doubt, ..Assessment::default() }
        }
    };
    Assessment { suspect, ..found }
}

/// The networks of one that has gone wild, where that is what goes on.
fn gone_wild(verdict: Verdict, features: &Features) -> Option<&Excess> {
    let aggregate = features.openers.aggregate.as_ref().filter(|aggregate| !aggregate.networks.is_empty());
    aggregate.filter(|_| verdict == Verdict::Misconfiguration)
}

fn in_words(Excess { per_second, times, networks, .. }: &Excess) -> String {
    let networks: Vec<_> = networks.iter().map(ToString::to_string).collect();
    let networks = networks.join(", ");
    format!("{networks}: {per_second:.0} connections a second, {times:.0} times what comes from there otherwise")
}

/// The floods that go on, and which other is likeliest.
fn detect_flood(features: &Features, usually: &impl Usually) -> (Option<Assessment>, Option<Suspect>) {
    let mut found: Vec<(Vector, f64, Vec<Weighed>)> = Vec::new();
    let mut suspect: Option<Suspect> = None;
    for vector in Vector::ALL {
        let group = features.of(vector.group());
        let is_awake = match vector {
            // Hardly a packet is sent for it.
            Vector::SlowConnections => features.held.as_ref().is_some_and(|held| held.slow >= ENOUGH_HELD),
            _ => group.samples >= ENOUGH && group.per_second >= vector.wakes_at(),
        };
        if !is_awake {
            continue;
        }
        let growth = match vector {
            // Where no more can be served, it is those begun that are more.
            Vector::HttpFlood => {
                let begun = features.handshakes.completed_per_second.max(features.openers.per_second);
                growth(begun, usually.connections())
            }
            _ => growth(group.per_second, usually.packets(vector.group())),
        };
        let (confidence, weighed) = weigh(vector, &Case { features, group, growth });
        if confidence >= SURE {
            found.push((vector, confidence, weighed));
        } else if suspect.is_none_or(|other| confidence > other.confidence) {
            suspect = Some(Suspect { vector, confidence, growth });
        }
    }
    let volume = |vector: Vector| match vector {
        Vector::SlowConnections => 0.0,
        _ => features.of(vector.group()).per_second,
    };
    found.sort_by(|a, b| volume(b.0).total_cmp(&volume(a.0)));
    let attack = found.first().map(|(_, confidence, weighed)| Assessment {
        verdict: Verdict::Attack,
        vectors: found.iter().map(|(vector, ..)| *vector).collect(),
        current: found.iter().map(|(vector, ..)| *vector).collect(),
        confidence: *confidence,
        reasons: loudest(weighed, REASONS),
        ..Assessment::default()
    });
    (attack, suspect)
}

/// What customers do, where that is out of the ordinary.
fn detect_demand(
    features: &Features,
    usually: &impl Usually,
    floods: &[Vector],
) -> Option<(Verdict, f64, Vec<Weighed>)> {
    let mut features = features.clone();
    let hides_customers = [Vector::SynFlood, Vector::HttpFlood, Vector::SlowConnections];
    if floods.iter().any(|flood| hides_customers.contains(flood)) {
        // Only what is completed is of customers then: who they are among the rest nobody can say.
        features.groups[Group::Syn as usize].bare = 0.0;
        features.handshakes = Handshakes { completed: Some(1.0), answered: None, retried: None, ..features.handshakes };
        features.pressure.full_queues = 0.0;
    }
    if floods.contains(&Vector::HttpFlood) {
        let openers = &features.openers;
        let of_machines = openers.persistent.unwrap_or(0.0).max(openers.again.unwrap_or(0.0));
        features.handshakes.completed_per_second *= 1.0 - of_machines;
    }
    if floods.contains(&Vector::SlowConnections) {
        features.handshakes.completed_per_second *= 1.0 - features.held.as_ref().map_or(0.0, Held::share);
    }
    let features = &features;
    let group = features.of(Group::Syn);
    if group.samples < ENOUGH / 2 {
        return None;
    }
    let growth = growth(features.handshakes.completed_per_second, usually.connections());
    let case = Case { features, group, growth };
    // Without knowing what is usual nobody can say that it is more.
    let known = |demand: &Demand| growth.is_some() || *demand == Demand::Overload;
    let weighed = Demand::ALL.into_iter().filter(known).map(|demand| {
        let verdict = match demand {
            Demand::Surge => Verdict::Surge,
            Demand::Overload => Verdict::Overload,
            Demand::Misconfiguration => Verdict::Misconfiguration,
        };
        let (confidence, weighed) = weigh_demand(demand, &case);
        (verdict, confidence, weighed)
    });
    weighed.filter(|(_, confidence, _)| *confidence >= SURE).max_by(|a, b| a.1.total_cmp(&b.1))
}

/// How many times as many as usual. A host that is idle is not woken by a handful.
fn growth(present: f64, usual: Option<f64>) -> Option<f64> {
    usual.map(|usual| present / usual.max(20.0))
}

/// The lines that speak loudest for it.
fn loudest(weighed: &[Weighed], count: usize) -> Vec<String> {
    let mut loudest: Vec<_> = weighed.iter().filter(|line| line.weight > 0.0).collect();
    loudest.sort_by(|a, b| b.weight.total_cmp(&a.weight));
    loudest.into_iter().take(count).map(|line| line.words.clone()).collect()
}

/// Over how long connections are smoothed: machines that ask all at once, every few seconds, are no surge.
const SMOOTHED_OVER_NS: f64 = 2e9;

/// How many times of what is usual at this hour may become usual within minutes.
const DRIFT: f64 = 2.0;

/// What is usual: packets per second of each group, as they slowly change while nothing is going on, within the bounds of what is
/// usual at this hour of the week, where that is known.
#[derive(Default)]
struct Usual {
    baseline: Baseline,
    hour: Option<usize>,
    per_second: [f64; Group::ALL.len()],
    connections: f64,
    learned_ns: u64,
}

impl Usual {
    /// What takes this long to be known.
    const ENOUGH_NS: u64 = 10_000_000_000;
    /// How slowly it follows.
    const TIME_NS: f64 = 60e9;

    fn learn(&mut self, features: &Features, elapsed_ns: u64) {
        if let Some(hour) = self.hour {
            self.baseline.learn(hour, features, elapsed_ns);
        }
        // Quick at first, then slow.
        let share = elapsed_ns as f64 / (self.learned_ns as f64 + elapsed_ns as f64).min(Self::TIME_NS);
        for (usual, group) in self.per_second.iter_mut().zip(&features.groups) {
            *usual += (group.per_second - *usual) * share;
        }
        self.connections += (features.handshakes.completed_per_second - self.connections) * share;
        self.learned_ns += elapsed_ns;
    }

    fn known(&self, value: f64, at_this_hour: Option<f64>) -> Option<f64> {
        let lately = (self.learned_ns >= Self::ENOUGH_NS).then_some(value);
        match (lately, at_this_hour) {
            (Some(lately), Some(usual)) => Some(lately.clamp(usual, DRIFT * usual)),
            (lately, usual) => lately.or(usual),
        }
    }
}

impl Usually for Usual {
    fn packets(&self, group: Group) -> Option<f64> {
        let at_this_hour = self.hour.and_then(|hour| self.baseline.packets(hour, group));
        self.known(self.per_second[group as usize], at_this_hour)
    }

    fn connections(&self) -> Option<f64> {
        self.known(self.connections, self.hour.and_then(|hour| self.baseline.connections(hour)))
    }
}

/// Watches what comes in.
#[derive(Default)]
pub struct Detector {
    window: Window,
    usual: Usual,
    present: Assessment,
    last_sign_ns: u64,
    asked_ns: u64,
    /// Since when it is this verdict.
    since: (Verdict, u64),
    /// Connections completed in a second, smoothed.
    completed: Option<f64>,
}

impl Detector {
    /// One that knows from before what is usual, and what good traffic is like.
    pub fn knowing(baseline: Baseline, week: Week) -> Self {
        let usual = Usual { baseline, ..Usual::default() };
        Self { usual, window: Window::knowing(week), ..Self::default() }
    }

    /// The networks that were clients before this moment, in seconds of the Unix epoch, as bytes to be written down.
    pub fn networks(&self, unix_s: u64) -> Vec<u8> {
        self.window.networks(unix_s)
    }

    /// Takes over such bytes of the daemon before this one, where they are no older than an hour. `None` where they are of another shape.
    pub fn take_over(&mut self, networks: &[u8], unix_s: u64, now_ns: u64) -> Option<()> {
        self.window.take_over(networks, unix_s, now_ns)
    }

    /// Good packets of the last two weeks, to be written down.
    pub fn week(&mut self) -> &mut Week {
        &mut self.window.week
    }

    /// What is usual in each hour of the week.
    pub fn baseline(&self) -> &Baseline {
        &self.usual.baseline
    }

    /// What is usual in a second of this hour: packets of each group, and connections completed. `None` while nobody knows.
    pub fn usual(&self) -> ([Option<f64>; Group::ALL.len()], Option<f64>) {
        (Group::ALL.map(|group| self.usual.packets(group)), self.usual.connections())
    }

    /// Takes a packet in.
    pub fn observe(&mut self, packet: Observed) {
        self.window.take(packet);
    }

    /// The packets of the last second.
    pub fn window(&self) -> &Window {
        &self.window
    }

    /// What is going on now. To be asked several times a second.
    pub fn assess(&mut self, now_ns: u64, host: &impl Host) -> (&Assessment, Features) {
        let elapsed_ns = now_ns.saturating_sub(self.asked_ns).clamp(1, WINDOW_NS);
        self.asked_ns = now_ns;
        self.window.unix_hour = host.unix_hour();
        self.usual.hour = self.window.unix_hour.map(|hour| (hour % HOURS as u64) as usize);
        let is_quiet = self.present.is_quiet();
        let has_sent = |tuple: &Tuple| host.has_sent(tuple.into());
        let is_answered = |tuple: &Tuple| has_sent(tuple) == Some(true);
        let sees_sent = has_sent(&Tuple { source: (0, 0), ports: (0, 0) }).is_some();
        let is_answered: Option<&dyn Fn(&Tuple) -> bool> = if sees_sent { Some(&is_answered) } else { None };
        let mut features = self.window.features(now_ns, is_quiet, is_answered);
        if let Some(rates) = host.rates() {
            features.scale(&rates);
        }
        if let Some(stack) = host.stack() {
            features.handshakes = match features.handshakes.completed {
                None => Handshakes { retried: features.handshakes.retried, ..stack },
                Some(_) => features.handshakes.at_most(&stack),
            };
        }
        let completed = &mut features.handshakes.completed_per_second;
        let before = self.completed.unwrap_or(*completed);
        *completed += (before - *completed) * (-(elapsed_ns as f64) / SMOOTHED_OVER_NS).exp();
        self.completed = Some(*completed);
        features.held = host.held().map(|held| self.window.judge(held.clone()));
        features.pressure = host.pressure();
        features.usual_connections = self.usual.connections();
        features.is_pressed =
            features.pressure.is_high() || features.handshakes.answered.is_some_and(|share| share < PRESSED);
        features.probe = host.probe();
        features.lately.clone_from(&self.present.vectors);
        let found = detect(&features, &self.usual);
        let (was_attack, suspect) = (self.present.verdict.is_attack(), found.suspect);
        // What keeps a verdict is more of the same: customers keep no attack.
        if found.verdict.is_attack() || (found.verdict != Verdict::Normal && !was_attack) {
            self.last_sign_ns = now_ns;
        }
        if found.verdict.is_attack() {
            // The vectors of one attack add up: a flood that turns to another is still the same.
            let before = std::mem::take(&mut self.present.vectors);
            self.present = found;
            let more: Vec<_> = before.into_iter().filter(|vector| !self.present.vectors.contains(vector)).collect();
            self.present.vectors.extend(more);
        } else {
            let is_over = now_ns.saturating_sub(self.last_sign_ns) >= HOLD_NS;
            let is_normal = self.present.verdict == Verdict::Normal;
            if is_over || is_normal || (found.verdict != Verdict::Normal && !was_attack) {
                self.present = found;
            } else {
                self.present.current.clear();
            }
        }
        self.present.suspect = suspect;
        if self.since.0 != self.present.verdict {
            self.since = (self.present.verdict, now_ns);
        }
        self.present.stands_ns = now_ns - self.since.1;
        self.present.sign_was_ns = now_ns.saturating_sub(self.last_sign_ns);
        // What may be a flood that grows slowly is not taken for usual. More customers are, in the end.
        let learned_ns = match self.present.verdict {
            Verdict::Surge => Some(elapsed_ns / SURGE_SLOWER),
            _ => self.present.is_quiet().then_some(elapsed_ns),
        };
        if let Some(learned_ns) = learned_ns {
            self.usual.learn(&features, learned_ns);
        }
        (&self.present, features)
    }
}

#[cfg(test)]
mod tests {
    use floodwall_common::replies::Conversation;

    use super::*;

    const SECOND: u64 = 1_000_000_000;

    /// A host that sees nothing of what it sends.
    struct Deaf {
        hour: Option<u64>,
        stack: Option<Handshakes>,
    }

    impl Host for Deaf {
        fn has_sent(&self, _: Conversation) -> Option<bool> {
            None
        }

        fn serves_udp(&self, _: u16) -> bool {
            false
        }

        fn unix_hour(&self) -> Option<u64> {
            self.hour
        }

        fn stack(&self) -> Option<Handshakes> {
            self.stack
        }
    }

    /// So many connections in a quarter of a second, each from an address of its own, and what is said then.
    fn assess(detector: &mut Detector, host: &Deaf, now_ns: u64, connections: u64) -> Features {
        for number in 0..connections {
            let source = 0x0a00_0000 + (now_ns / 1_000_000 + number * 7_919) as u32;
            let segment = |flags: u8| Observed::segment(source, 1_024 + number as u16, now_ns, flags);
            detector.observe(segment(0x02));
            detector.observe(segment(0x10));
        }
        detector.assess(now_ns, host).1
    }

    fn minutes_of(detector: &Detector, hour: usize) -> u64 {
        let kept = serde_json::to_value(detector.baseline()).unwrap_or_default();
        kept["hours"][hour]["minutes"].as_u64().unwrap_or_else(|| panic!("{kept}"))
    }

    /// An hour that nobody knows yet has no bound to what is learned of it: it must not be learned from a surge.
    #[test]
    fn a_surge_becomes_usual_slowly_of_the_hour_too() {
        let mut detector = Detector::default();
        let host = |hour| Deaf { hour: Some(hour), stack: None };
        let mut verdicts = [0; 2];
        for tick in 1..=240 {
            assess(&mut detector, &host(9), tick * SECOND / 4, 10);
        }
        for tick in 241..=540 {
            assess(&mut detector, &host(10), tick * SECOND / 4, 100);
            verdicts[usize::from(detector.present.verdict == Verdict::Surge)] += 1;
        }
        assert!(verdicts[1] > 280, "{verdicts:?}: {:?}", detector.present);
        assert_eq!(minutes_of(&detector, 10), 0);
    }

    /// Machines that ask all at once, every four seconds: for a second there is three times the usual.
    #[test]
    fn what_comes_in_bursts_is_no_surge() {
        let (mut detector, host) = (Detector::default(), Deaf { hour: None, stack: None });
        for tick in 0..400 {
            let connections = if tick % 16 < 4 { 40 } else { 4 };
            assess(&mut detector, &host, (tick + 1) * SECOND / 4, connections);
            assert_eq!(detector.present.verdict, Verdict::Normal, "{tick}: {:?}", detector.present);
        }
    }

    /// What is shown as usual is what growth is of; nobody knows it at once.
    #[test]
    fn what_is_usual_is_told_once_it_is_known() {
        let (mut detector, host) = (Detector::default(), Deaf { hour: None, stack: None });
        let quarter = |detector: &mut Detector, tick: u64| assess(detector, &host, tick * SECOND / 4, 10);
        (1..=20).for_each(|tick| drop(quarter(&mut detector, tick)));
        assert_eq!(detector.usual(), ([None; Group::ALL.len()], None), "after five seconds");
        (21..=80).for_each(|tick| drop(quarter(&mut detector, tick)));
        let (packets, connections) = detector.usual();
        let is_about = |found: Option<f64>| found.is_some_and(|found| (35.0..=50.0).contains(&found));
        assert!(is_about(packets[Group::Syn as usize]) && is_about(connections), "{packets:?} {connections:?}");
        assert_eq!(packets[Group::Udp as usize], Some(0.0));
    }

    /// What comes while something may be going on is not good: a flood is measured against it later.
    #[test]
    fn what_is_suspected_is_not_good() {
        for (confidence, is_good) in [(0.4, false), (0.9, true)] {
            let mut detector = Detector::default();
            let host = Deaf { hour: None, stack: None };
            for tick in 1..=60 {
                detector.present = Assessment { confidence, ..Assessment::default() };
                assess(&mut detector, &host, tick * SECOND / 4, 10);
            }
            assert_eq!(!detector.window().good().is_empty(), is_good, "{confidence}");
        }
    }

    /// Anybody can send an ACK behind a SYN that he has forged; the stack knows whether that opened a connection.
    #[test]
    fn what_the_stack_has_not_opened_is_not_completed() {
        let of_stack =
            |share| Handshakes { completed: Some(share), acknowledged: Some(share), ..Handshakes::default() };
        for (stack, completed) in [(None, 1.0), (Some(of_stack(0.01)), 0.01), (Some(of_stack(1.0)), 1.0)] {
            let (mut detector, host) = (Detector::default(), Deaf { hour: None, stack });
            let seen = (1..=12).map(|tick| assess(&mut detector, &host, tick * SECOND / 4, 50)).last();
            let handshakes = seen.unwrap_or_default().handshakes;
            assert_eq!(handshakes.completed, Some(completed), "{handshakes:?}");
            assert_eq!(handshakes.acknowledged, None, "it is not seen what this host answers: {handshakes:?}");
        }
    }
}

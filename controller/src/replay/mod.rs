//! A capture in virtual time: the packet path and detection as they are shipped, over the packets of a file, as fast as they
//! can. Nothing is loaded into a kernel, and nothing is sent.

mod capture;
mod maps;
mod measured;

use std::collections::{BTreeMap, HashMap, HashSet};
use std::net::IpAddr;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
pub use capture::{Captured, files, read};
use floodwall_common::clock::Moment;
use floodwall_common::cookie::CookieMode;
use floodwall_common::packet::{Frame, Source, addresses};
use floodwall_common::reason::{Reason, Verdict as Fate};
use floodwall_common::replies::Conversation;
pub use maps::{Maps, Tables};
pub use measured::Measured;

use crate::detect::{Assessment, Detector, Host, Observed, Verdict};
use crate::exit::{Exit, Failure};
use crate::explain::{address_of, source_of};
use crate::respond::{InForce, Measure, STAYS_NS, apply, missing, respond, surplus};

/// How often it is asked what goes on.
const TICK_NS: u64 = 100_000_000;
/// How much seldomer where nothing comes, and nothing is held in mind.
const IDLE_NS: u64 = 1_000_000_000 - TICK_NS;
/// When the virtual clock begins: late enough for nothing in empty maps to look recent.
const BEGIN_NS: u64 = 100_000_000_000_000;

/// What all is over after: whatever is followed, held or in force.
const QUIET_NS: u64 = STAYS_NS + 60_000_000_000;

/// Peers that a UDP port has to have sent to: it is one on which the host answers whoever asks.
const SERVES: usize = 16;
const UDP: u8 = 17;

/// How a capture is looked at.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// The addresses that are protected; empty for the one that most packets go to.
    pub protect: Vec<IpAddr>,
    /// Only say what is going on, and do nothing about it.
    pub advise: bool,
    /// How many times as fast as it was; `None` for as fast as it can.
    pub speed: Option<f64>,
    /// Keep what was measured.
    pub features: bool,
}

/// A change of the verdict.
#[derive(Clone, Debug, serde::Serialize)]
pub struct Line {
    /// Seconds since the first packet.
    pub t: f64,
    /// What is going on from then on.
    pub verdict: Verdict,
    /// The kind of flood, where it is one; the largest. Else null.
    pub vector: Option<&'static str>,
    /// All kinds that are going on.
    pub vectors: Vec<&'static str>,
    /// From 0 to 1.
    pub confidence: f64,
    /// The strongest reasons, in words.
    pub reasons: Vec<String>,
    /// The prefixes of whoever has gone wild, where it is a misconfiguration and they are known; else empty.
    pub who: Vec<ipnet::IpNet>,
    /// What is done about it.
    pub actions: Vec<String>,
    /// Packets dropped or answered until then.
    pub dropped: u64,
    /// Packets passed until then.
    pub passed: u64,
}

/// What has happened in the whole capture.
#[derive(Clone, Debug, Default, serde::Serialize)]
pub struct Summary {
    /// The protected addresses.
    pub protected: Vec<String>,
    /// Packets that came in.
    pub packets: u64,
    /// Packets that the protected host sent.
    pub sent: u64,
    /// How long the capture is, in seconds.
    pub duration_s: f64,
    /// The verdicts seen, and the first time of each, in seconds.
    pub verdicts: BTreeMap<&'static str, f64>,
    /// The kinds of flood seen, and the first time of each, in seconds.
    pub vectors: BTreeMap<&'static str, f64>,
    /// Packets dropped or answered.
    pub dropped: u64,
    /// Packets passed.
    pub passed: u64,
    /// Packets dropped or answered, by reason.
    pub dropped_by_reason: BTreeMap<&'static str, u64>,
    /// Packets passed, by reason.
    pub passed_by_reason: BTreeMap<&'static str, u64>,
    /// What was measured of each group in the second with most of its packets; left out where it was not asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub features: Option<BTreeMap<&'static str, Measured>>,
}

/// Replays a capture; each change of the verdict is told to `tell`.
///
/// # Errors
/// Where the file cannot be read, or no packet in it is IP.
pub fn replay(
    path: &Path,
    options: &Options,
    mut warn: impl FnMut(&str),
    tell: impl FnMut(&Line) -> Result<()>,
) -> Result<Summary> {
    let captured = read(path, &mut warn)?;
    let summary = replay_captured(&captured, options, tell, |_, _| {});
    let summary = summary.with_context(|| path.display().to_string())?;
    if summary.packets == 0 {
        warn(&format!("{}: no packet in it goes to {}", path.display(), summary.protected.join(", ")));
    }
    Ok(summary)
}

/// The same of frames in the order of their times; `judged` is told what becomes of each that comes in.
///
/// # Errors
/// Where no frame is IP.
pub fn replay_captured(
    captured: &[Captured],
    options: &Options,
    mut tell: impl FnMut(&Line) -> Result<()>,
    mut judged: impl FnMut(&Captured, Fate),
) -> Result<Summary> {
    let first = captured.first().ok_or_else(|| nothing("no packets in it"))?.at;
    let protected = Protected::of(captured, &options.protect)?;
    let mut stage = Stage {
        maps: Maps::new()?,
        detector: Detector::default(),
        in_force: Vec::new(),
        sees_sent: captured.iter().any(|captured| protected.direction(captured.frame()) == Some(Direction::Out)),
        asked: HashMap::new(),
        advise: options.advise,
        summary: Summary {
            protected: protected.names(),
            features: options.features.then(BTreeMap::new),
            ..Summary::default()
        },
        told: Assessment::default(),
    };
    stage.summary.verdicts.insert(Verdict::Normal.label(), 0.0);
    let (mut next_tick_ns, mut last_ns) = (TICK_NS, 0);
    let begun = Instant::now();
    for captured in captured {
        let at_ns = (captured.at - first).as_nanos() as u64;
        if let Some(speed) = options.speed {
            let due = Duration::from_secs_f64(at_ns as f64 / 1e9 / speed);
            std::thread::sleep(due.saturating_sub(begun.elapsed()));
        }
        while next_tick_ns <= at_ns {
            stage.tick(next_tick_ns, &mut tell)?;
            next_tick_ns += TICK_NS;
            if stage.is_idle() {
                // All the same but quicker, and the packet that comes next finds the usual ticks.
                next_tick_ns = (next_tick_ns + IDLE_NS).min(at_ns.next_multiple_of(TICK_NS)).max(next_tick_ns);
            }
            // Verdicts and measures end in a gap; after that nothing happens in it.
            if next_tick_ns > last_ns + QUIET_NS {
                next_tick_ns = next_tick_ns.max(at_ns.next_multiple_of(TICK_NS));
            }
        }
        last_ns = at_ns;
        match protected.direction(captured.frame()) {
            Some(Direction::In) => judged(captured, stage.receive(captured.frame(), at_ns)),
            Some(Direction::Out) => stage.send(captured.frame(), at_ns),
            None => {}
        }
        stage.summary.duration_s = at_ns as f64 / 1e9;
    }
    stage.tick(next_tick_ns, &mut tell)?;
    Ok(stage.summary)
}

struct Stage {
    maps: Maps,
    detector: Detector,
    in_force: Vec<InForce>,
    sees_sent: bool,
    /// Whom the host has sent UDP to from each of its ports.
    asked: HashMap<u16, HashSet<(u64, u64)>>,
    advise: bool,
    summary: Summary,
    told: Assessment,
}

impl Stage {
    fn send(&mut self, frame: Frame<'_>, at_ns: u64) {
        self.summary.sent += 1;
        self.maps.sent(frame, Moment::from_ns(BEGIN_NS + at_ns));
        if let Some(Conversation { peer, ports: (_, ours), protocol: UDP }) = Conversation::of_sent(frame) {
            let peers = self.asked.entry(ours).or_default();
            if peers.len() < SERVES && peers.insert(peer) && peers.len() == SERVES {
                self.maps.listen_udp(ours);
            }
        }
    }

    fn receive(&mut self, frame: Frame<'_>, at_ns: u64) -> Fate {
        let now = Moment::from_ns(BEGIN_NS + at_ns);
        let (reason, _, fate) = self.maps.judge(frame, now);
        let host = Seen { maps: &self.maps, now, sees_sent: self.sees_sent, asked: &self.asked };
        if let Some(packet) = Observed::of(frame, at_ns, 1, fate != Fate::Pass, &host) {
            self.detector.observe(packet);
        }
        self.count(reason, fate);
        fate
    }

    fn is_idle(&self) -> bool {
        self.told.verdict == Verdict::Normal
            && self.in_force.is_empty()
            && self.detector.window().packets().next().is_none()
    }

    fn count(&mut self, reason: Reason, fate: Fate) {
        let summary = &mut self.summary;
        summary.packets += 1;
        let (all, by_reason) = match fate {
            Fate::Pass => (&mut summary.passed, &mut summary.passed_by_reason),
            Fate::Drop | Fate::Answer => (&mut summary.dropped, &mut summary.dropped_by_reason),
        };
        *all += 1;
        *by_reason.entry(reason.label()).or_default() += 1;
    }

    fn tick(&mut self, at_ns: u64, tell: &mut impl FnMut(&Line) -> Result<()>) -> Result<()> {
        let now = Moment::from_ns(BEGIN_NS + at_ns);
        let host = Seen { maps: &self.maps, now, sees_sent: self.sees_sent, asked: &self.asked };
        let (assessment, features) = self.detector.assess(at_ns, &host);
        let assessment = assessment.clone();
        if let Some(kept) = &mut self.summary.features {
            Measured::keep(kept, &features);
        }
        let measures = respond(&assessment, &features, self.detector.window());
        let signatures = self.in_force.iter_mut().filter(|present| matches!(present.measure, Measure::Signature(..)));
        for (present, hits) in signatures.zip(self.maps.hits()) {
            present.count(hits.packets, at_ns);
        }
        let new = missing(measures, &self.in_force, at_ns);
        self.withdraw(assessment.verdict, at_ns)?;
        let has_changed = assessment.verdict != self.told.verdict || assessment.vectors != self.told.vectors;
        if !has_changed && new.is_empty() {
            return Ok(());
        }
        let t = at_ns as f64 / 1e9;
        self.summary.verdicts.entry(assessment.verdict.label()).or_insert(t);
        for vector in &assessment.vectors {
            self.summary.vectors.entry(vector.label()).or_insert(t);
        }
        let actions = new.iter().map(ToString::to_string).collect();
        // Who is named now takes the place of those who were.
        if new.iter().any(|measure| matches!(measure, Measure::Group(_))) {
            self.in_force.retain(|present| !matches!(present.measure, Measure::Group(_)));
        }
        self.in_force.extend(new.into_iter().map(|measure| InForce::new(measure, at_ns, at_ns + STAYS_NS)));
        while let Some(place) = surplus(&self.in_force, at_ns) {
            self.in_force.remove(place);
        }
        if !self.advise {
            apply(&self.in_force, &mut self.maps)?;
        }
        let vectors: Vec<_> = assessment.vectors.iter().map(|vector| vector.label()).collect();
        tell(&Line {
            t,
            verdict: assessment.verdict,
            vector: vectors.first().copied(),
            vectors,
            confidence: (assessment.confidence * 1_000.0).round() / 1_000.0,
            reasons: assessment.reasons.clone(),
            who: assessment.who.clone(),
            actions,
            dropped: self.summary.dropped,
            passed: self.summary.passed,
        })?;
        self.told = assessment;
        Ok(())
    }
}

impl Stage {
    /// Takes back what has been in force for long enough since the last sign.
    fn withdraw(&mut self, verdict: Verdict, at_ns: u64) -> Result<()> {
        let going_on = self.in_force.iter_mut().filter(|present| present.measure.is_for(verdict));
        going_on.for_each(|present| present.until_ns = at_ns + STAYS_NS);
        let ended: Vec<_> = self.in_force.extract_if(.., |present| present.until_ns <= at_ns).collect();
        if ended.is_empty() || self.advise {
            return Ok(());
        }
        for InForce { measure, .. } in ended {
            match measure {
                Measure::Drop(reason, _) => self.maps.set_policy(reason, Fate::Pass),
                Measure::Cookies => self.maps.set_cookies(CookieMode::Off),
                Measure::Unserved(_) => self.maps.lock_udp(false),
                // What is still in force is denied again below.
                Measure::Deny(_) => self.maps.deny_nobody(),
                Measure::Limit(wide) => self.maps.set_limit(wide.key(), wide.key().default_limits())?,
                Measure::Group(_) => self.maps.set_groups(&[])?,
                Measure::Signature(..) | Measure::Shed(_) => {}
            }
        }
        apply(&self.in_force, &mut self.maps)
    }
}

/// What the capture shows of the protected host.
struct Seen<'a> {
    maps: &'a Maps,
    now: Moment,
    sees_sent: bool,
    asked: &'a HashMap<u16, HashSet<(u64, u64)>>,
}

impl Host for Seen<'_> {
    fn has_sent(&self, conversation: Conversation) -> Option<bool> {
        self.sees_sent.then(|| self.maps.has_sent(conversation, self.now))
    }

    fn serves_udp(&self, port: u16) -> bool {
        self.asked.get(&port).is_some_and(|peers| peers.len() >= SERVES)
    }
}

impl Captured {
    fn frame(&self) -> Frame<'_> {
        Frame::cut(&self.frame, self.bytes)
    }
}

fn nothing(error: &str) -> Failure {
    Failure::new(Exit::Configuration, error)
}

/// Which way a frame goes.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Direction {
    In,
    Out,
}

/// The addresses that are protected.
struct Protected(Vec<Source>);

impl Protected {
    /// Those that are asked for, or the one that most packets go to.
    fn of(captured: &[Captured], asked: &[IpAddr]) -> Result<Self> {
        if !asked.is_empty() {
            return Ok(Self(asked.iter().copied().map(source_of).collect()));
        }
        let mut counts: HashMap<(u64, u64), (Source, u64)> = HashMap::new();
        for (_, destination) in captured.iter().filter_map(|captured| addresses(captured.frame())) {
            counts.entry(destination.halves()).or_insert((destination, 0)).1 += 1;
        }
        // A host rather than a group, whatever else was seen on that network.
        let rank = |(destination, count): &(Source, u64)| (!is_group(*destination), *count, destination.halves());
        let most = counts.into_values().max_by_key(rank);
        Ok(Self(vec![most.ok_or_else(|| nothing("no packet in it is IP"))?.0]))
    }

    fn direction(&self, frame: Frame<'_>) -> Option<Direction> {
        let (source, destination) = addresses(frame)?;
        if self.0.contains(&destination) {
            Some(Direction::In)
        } else {
            self.0.contains(&source).then_some(Direction::Out)
        }
    }

    fn names(&self) -> Vec<String> {
        self.0.iter().map(|source| address_of(*source).to_string()).collect()
    }
}

/// Whether it is an address of many: multicast, or broadcast.
fn is_group(destination: Source) -> bool {
    match address_of(destination) {
        IpAddr::V4(address) => address.is_multicast() || address.is_broadcast(),
        IpAddr::V6(address) => address.is_multicast(),
    }
}

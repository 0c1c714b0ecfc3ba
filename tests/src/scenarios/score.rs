//! What a scenario comes to: times, shares, and points from 0 to 100. Pure: it looks at nothing but what was seen.

use std::borrow::Cow;

use serde::{Deserialize, Serialize};

use super::run::{Played, Settings};
use super::table::OFFENDERS;
use super::walls::Wall;
use super::watch::Said;
use super::{Does, Scenario, Truth};

/// Less than this share of the attack comes through: it is mitigated.
const MITIGATED: f64 = 0.05;
/// For so long.
const STAYS_S: f64 = 2.0;
/// A verdict counts from here on.
const SURE: f64 = 0.8;
/// Loss that is not held against a filter, and that from which on nothing is left to be held against it.
const LOSS: [f64; 2] = [0.005, 0.2];
/// What may be lost in the quiet phase by the machine: a filter that loses more there is not excused by it.
const NOISE: f64 = 0.01;
/// What daemons may cost: share of a processor, and bytes.
const IDLE_SHARE: f64 = 0.01;
const MEMORY: f64 = 64.0 * 1024.0 * 1024.0;
/// How often a verdict may change in one scenario.
const CHANGES: usize = 2;
/// Benign traffic that a filter may stop by mistake. From more on the whole suite is worth no more than `CAP`.
const BY_MISTAKE: f64 = 0.001;
/// See above.
pub const CAP: f64 = 60.0;
/// The scenarios in which that is looked at.
const CAPPING: [u8; 3] = [12, 14, 15];

/// What became of it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Score {
    /// The number of the scenario.
    pub scenario: u8,
    /// What it is called.
    pub name: Cow<'static, str>,
    /// What stood before the server.
    pub wall: Cow<'static, str>,
    /// What chance began with.
    pub seed: u64,
    /// How hard and how long it was.
    pub form: Form,
    /// What it is.
    pub truth: Truth,
    /// What was said at the end of it; nothing where a wall says nothing.
    pub verdict: Option<String>,
    /// The kinds of flood that were named.
    pub vectors: Vec<String>,
    /// The right verdict was given, and stood at the end.
    pub is_verdict_right: bool,
    /// And all kinds of flood were named.
    pub are_vectors_right: bool,
    /// It was called an attack and is none, at any time.
    pub is_false_alarm: bool,
    /// Seconds to the first verdict of an attack.
    pub detected_s: Option<f64>,
    /// Seconds to the first verdict that is the right one.
    pub verdict_s: Option<f64>,
    /// Seconds until it was mitigated: the slowest of the floods or pulses that count.
    pub mitigated_s: Option<f64>,
    /// Frames of the attack.
    pub attack_frames: u64,
    /// Share of it that was stopped from the mitigation on.
    pub stopped_after: Option<f64>,
    /// And of all of it.
    pub stopped: Option<f64>,
    /// Share of legitimate requests that were lost, beyond what was lost in the quiet phase.
    pub loss: f64,
    /// The same of the group that lost most, and of which.
    pub worst_group: Option<(Cow<'static, str>, f64)>,
    /// The same of each group, also of those whose loss is held against nobody.
    #[serde(default)]
    pub losses: Vec<(Cow<'static, str>, f64)>,
    /// Legitimate requests in it.
    pub requests: usize,
    /// Time within which 99 of 100 answers came, to that of the quiet phase.
    pub p99_ratio: Option<f64>,
    /// Share of benign frames that did not come through, or of requests where clients are among them that may be held; nothing where
    /// there is an attack.
    pub by_mistake: Option<f64>,
    /// Packets that the filter itself says it has dropped.
    pub dropped_by_filter: u64,
    /// How often the verdict changed.
    pub changes: usize,
    /// Incidents that were written down.
    pub incidents: usize,
    /// Of a processor, in the quiet phase and in the scenario.
    pub cpu: Option<[f64; 2]>,
    /// Bytes of the daemon and its maps.
    pub memory: Option<u64>,
    /// Share of frames that never reached the filter: the machine did not keep up.
    pub lost_before: f64,
    /// Shares of the processors that were idle, and that other machines had.
    pub machine: (f64, f64),
    /// Points by what they are for.
    pub points: Points,
}

/// How a scenario was played. Scores of one form can be held against each other.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Form {
    level: Cow<'static, str>,
    stretch: f64,
    swapped: bool,
}

impl From<&Settings> for Form {
    fn from(settings: &Settings) -> Self {
        Self { level: settings.level.name.into(), stretch: settings.timing.stretch, swapped: settings.swapped }
    }
}

/// Points. Attacks have all of them, the others verdict and legitimate traffic.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
pub struct Points {
    /// Of 25, or 50.
    pub verdict: f64,
    /// Of 25.
    pub stopped: f64,
    /// Of 25, or 50.
    pub legitimate: f64,
    /// Of 15.
    pub mitigated: f64,
    /// Of 10.
    pub cost: f64,
}

impl Points {
    /// Of 100.
    pub fn sum(&self) -> f64 {
        self.verdict + self.stopped + self.legitimate + self.mitigated + self.cost
    }
}

/// Works it out.
pub fn score(scenario: &Scenario, wall: Wall, settings: &Settings, seed: u64, played: &Played) -> Score {
    let look = Look { scenario, settings, played };
    let (begin, end) = look.span();
    let said: Vec<_> = played.said.iter().filter(|said| (begin..end).contains(&said.at)).collect();
    let first = |is: &dyn Fn(&Said) -> bool, from: f64| {
        said.iter().find(|said| said.at >= from && is(said)).map(|said| said.at - from)
    };
    let called_attack = |said: &Said| is_attack(said) && said.confidence >= SURE;
    let right = |said: &Said| said.verdict == scenario.truth.label();
    let attack_from = look.attack_begins().first().copied();
    let since = attack_from.unwrap_or(begin);
    let verdict = said.last().map(|said| said.verdict.clone());
    let reached = first(&right, since);
    let vectors = look.vectors(&said);
    let hits = |of: &&[&str]| vectors.iter().any(|vector| of.contains(&vector.as_str()));
    let mitigated_s = look.mitigated();
    let (attack_frames, stopped, stopped_after) = look.stopped(mitigated_s);
    let stopped = stopped.filter(|_| scenario.truth.is_attack());
    let (loss, losses, requests) = look.loss(since);
    let worst_group = losses.iter().filter(|(group, loss)| look.counts(group) && *loss > 0.0);
    let mut score = Score {
        scenario: scenario.number,
        name: scenario.name.into(),
        wall: wall.name().into(),
        seed,
        form: settings.into(),
        truth: scenario.truth,
        is_verdict_right: reached.is_some() && said.last().is_some_and(|said| right(said)),
        are_vectors_right: !said.is_empty() && scenario.vectors.iter().all(hits),
        verdict,
        is_false_alarm: !scenario.truth.is_attack() && played.said.iter().any(called_attack),
        detected_s: attack_from.and_then(|from| first(&called_attack, from)),
        verdict_s: reached.filter(|_| scenario.truth != Truth::Normal),
        mitigated_s,
        attack_frames,
        stopped_after,
        stopped,
        loss,
        worst_group: worst_group.max_by(|a, b| a.1.total_cmp(&b.1)).map(|(group, lost)| ((*group).into(), *lost)),
        losses: losses.iter().map(|(group, lost)| ((*group).into(), *lost)).collect(),
        requests,
        p99_ratio: look.p99_ratio(since),
        by_mistake: (!scenario.truth.is_attack()).then(|| look.by_mistake()),
        dropped_by_filter: played.dropped[1].saturating_sub(played.dropped[0]),
        changes: changes(&said),
        incidents: played.incidents.len(),
        cpu: look.cpu(),
        memory: played.costs.map(|[.., ended]| ended.resident + ended.maps),
        lost_before: look.lost_before(),
        machine: played.machine,
        vectors,
        points: Points::default(),
    };
    score.points = points(scenario, wall, &score, look.mitigation_target());
    score
}

/// How often the verdict changed once something was said: the first one of an incident is no change.
fn changes(said: &[&Said]) -> usize {
    let normal = Truth::Normal.label();
    let mut said = said.iter().map(|said| said.verdict.as_str()).skip_while(|verdict| *verdict == normal);
    let Some(mut present) = said.next() else { return 0 };
    said.filter(|verdict| std::mem::replace(&mut present, verdict) != *verdict).count()
}

fn is_attack(said: &Said) -> bool {
    matches!(said.verdict.as_str(), "attack" | "mixed")
}

fn points(scenario: &Scenario, wall: Wall, score: &Score, target: f64) -> Points {
    let kept = ((LOSS[1] - score.loss) / (LOSS[1] - LOSS[0])).clamp(0.0, 1.0);
    if !scenario.truth.is_attack() {
        // Who says nothing is right where nothing is.
        let is_right = score.is_verdict_right || !wall.gives_verdicts() && scenario.truth == Truth::Normal;
        let verdict = match () {
            () if score.is_false_alarm => 0.0,
            () if is_right && score.changes <= CHANGES => 50.0,
            () => 25.0,
        };
        return Points { verdict, legitimate: 50.0 * kept, ..Points::default() };
    }
    let said_attack = score.verdict.as_deref().is_some_and(|verdict| matches!(verdict, "attack" | "mixed"));
    let verdict = match () {
        () if score.is_verdict_right && score.are_vectors_right && score.changes <= CHANGES => 25.0,
        () if said_attack => 12.5,
        () => 0.0,
    };
    // All of it in time, nothing at ten times the time.
    let mitigated =
        score.mitigated_s.map_or(0.0, |seconds| ((10.0 * target - seconds) / (9.0 * target)).clamp(0.0, 1.0));
    let stopped = score.stopped_after.or(score.stopped).unwrap_or(0.0);
    let cpu = score.cpu.map_or(1.0, |[quiet, _]| (IDLE_SHARE / quiet.max(IDLE_SHARE)).min(1.0));
    let memory = score.memory.map_or(1.0, |bytes| (MEMORY / (bytes as f64).max(1.0)).min(1.0));
    Points {
        verdict,
        stopped: 25.0 * (stopped / scenario.targets.stopped).min(1.0),
        legitimate: 25.0 * kept,
        mitigated: 15.0 * mitigated,
        cost: 5.0 * cpu + 5.0 * memory,
    }
}

/// The mean of a wall's scenarios, of each the median of its seeds, and whether it was capped.
pub fn suite(scores: &[&Score]) -> (f64, bool) {
    let mut numbers: Vec<u8> = scores.iter().map(|score| score.scenario).collect();
    numbers.sort_unstable();
    numbers.dedup();
    let of = |number: &u8| {
        let of = scores.iter().filter(|score| score.scenario == *number);
        median(of.map(|score| score.points.sum()).collect())
    };
    let mean = numbers.iter().map(of).sum::<f64>() / numbers.len().max(1) as f64;
    let is_capped = scores.iter().any(|score| {
        CAPPING.contains(&score.scenario) && score.by_mistake.is_some_and(|by_mistake| by_mistake > BY_MISTAKE)
    });
    (if is_capped { mean.min(CAP) } else { mean }, is_capped)
}

/// The one in the middle.
pub fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}

/// One run, looked at.
struct Look<'a> {
    scenario: &'a Scenario,
    settings: &'a Settings,
    played: &'a Played,
}

impl Look<'_> {
    fn moment(&self, seconds: f64) -> f64 {
        self.settings.timing.begins() + seconds * self.settings.timing.stretch
    }

    /// What is asked of a flood that begins small is a moment of its ramp.
    fn mitigation_target(&self) -> f64 {
        let is_ramp = |act: &super::Act| matches!(act.does, Does::Flood(flood) if flood.doubles_every.is_some());
        let stretch = if self.scenario.acts.iter().any(is_ramp) { self.settings.timing.stretch } else { 1.0 };
        self.scenario.targets.mitigated_s * stretch
    }

    fn span(&self) -> (f64, f64) {
        (self.moment(0.0), self.moment(self.scenario.seconds))
    }

    fn attacks(&self) -> impl Iterator<Item = (f64, f64)> {
        let acts = self.scenario.acts.iter().filter(|act| matches!(act.does, Does::Flood(_) | Does::Bots(_)));
        acts.map(|act| (self.moment(act.at), self.moment(act.until)))
    }

    /// When attacks begin: their first frames.
    fn attack_begins(&self) -> Vec<f64> {
        let mut begins: Vec<f64> = self.attacks().map(|(from, _)| self.first_frame(from)).collect();
        begins.sort_by(f64::total_cmp);
        begins.dedup();
        begins
    }

    fn first_frame(&self, from: f64) -> f64 {
        let mut samples = self.played.series.iter().filter(|(at, _)| *at >= from);
        let Some((_, first)) = samples.next() else { return from };
        samples.find(|(_, counted)| counted.attack_sent > first.attack_sent).map_or(from, |(at, _)| at - 0.05)
    }

    /// Frames of the attack between two moments, sent and come through.
    fn attack_between(&self, from: f64, until: f64) -> (f64, f64) {
        let at = |moment: f64| {
            let index = self.played.series.partition_point(|(at, _)| *at <= moment);
            self.played.series.get(index.saturating_sub(1)).map(|(_, counted)| *counted).unwrap_or_default()
        };
        let (then, now) = (at(from), at(until));
        ((now.attack_sent - then.attack_sent) as f64, (now.attack_arrived - then.attack_arrived) as f64)
    }

    /// Until a flood that begins then is mitigated, in seconds.
    fn mitigated_from(&self, begin: f64, end: f64) -> Option<f64> {
        let is_held = |from: f64, until: f64| {
            let (sent, arrived) = self.attack_between(from, until);
            sent > 0.0 && arrived < MITIGATED * sent
        };
        let moments = self.played.series.iter().map(|(at, _)| *at).filter(|at| (begin..end - 0.3).contains(at));
        let mut held = moments.filter(|at| is_held(*at, at + 0.25) && is_held(*at, (at + STAYS_S).min(end)));
        held.next().map(|at| at - begin)
    }

    /// The slowest of those that count.
    fn mitigated(&self) -> Option<f64> {
        let from = self.moment(self.scenario.counts_from);
        let counting: Vec<_> = self.attacks().filter(|(begin, _)| *begin >= from).collect();
        let times: Option<Vec<f64>> =
            counting.iter().map(|(begin, end)| self.mitigated_from(self.first_frame(*begin), *end)).collect();
        times?.into_iter().max_by(f64::total_cmp)
    }

    /// Frames of the attack, and the shares that were stopped of all and from the mitigation on.
    fn stopped(&self, mitigated_s: Option<f64>) -> (u64, Option<f64>, Option<f64>) {
        let (begin, end) = self.span();
        let share = |(sent, arrived): (f64, f64)| (sent > 0.0).then(|| 1.0 - arrived / sent);
        let all = self.attack_between(begin, end + 1.0);
        let from = self.moment(self.scenario.counts_from);
        let counting = self.attack_begins().into_iter().find(|begin| *begin >= from);
        let after =
            counting.zip(mitigated_s).and_then(|(begin, after)| share(self.attack_between(begin + after, end + 1.0)));
        (all.0 as u64, share(all), after)
    }

    fn vectors(&self, said: &[&Said]) -> Vec<String> {
        let mut vectors: Vec<String> = said.iter().flat_map(|said| said.vectors.clone()).collect();
        vectors.sort();
        vectors.dedup();
        vectors
    }

    /// Losses in the scenario beyond those of the quiet phase: of all, and of the group with the most; and how many asked.
    /// Whether what a group loses is held against a filter.
    fn counts(&self, group: &str) -> bool {
        match self.scenario.groups {
            [] => !OFFENDERS.contains(&group),
            named => named.contains(&group),
        }
    }

    /// The loss of all groups that count, of each group, and the requests of the former.
    fn loss(&self, since: f64) -> (f64, Vec<(&'static str, f64)>, usize) {
        let (_, end) = self.span();
        let quiet = self.settings.timing.warm_up_s;
        let lost = |is: &dyn Fn(&str) -> bool, from: f64, until: f64| {
            let asked = self.played.outcomes.iter().filter(|one| (from..until).contains(&one.at) && is(one.group));
            let (mut all, mut lost) = (0, 0);
            for one in asked {
                all += 1;
                lost += usize::from(!one.is_answered);
            }
            (lost as f64 / all.max(1) as f64, all)
        };
        let beyond = |is: &dyn Fn(&str) -> bool| {
            let (during, asked) = lost(is, since, end);
            ((during - lost(is, quiet, self.moment(0.0)).0.min(NOISE)).max(0.0), asked)
        };
        let (all, asked) = beyond(&|group| self.counts(group));
        let mut groups: Vec<&'static str> = self.played.outcomes.iter().map(|one| one.group).collect();
        groups.sort_unstable();
        groups.dedup();
        (all, groups.into_iter().map(|group| (group, beyond(&|of| of == group).0)).collect(), asked)
    }

    fn p99_ratio(&self, since: f64) -> Option<f64> {
        let p99 = |from: f64, until: f64| {
            let of =
                self.played.outcomes.iter().filter(|one| {
                    (from..until).contains(&one.at) && one.is_answered && !OFFENDERS.contains(&one.group)
                });
            let mut times: Vec<f64> = of.map(|one| one.took).collect();
            times.sort_by(f64::total_cmp);
            times.get(times.len() * 99 / 100).copied()
        };
        Some(p99(since, self.span().1)? / p99(self.settings.timing.warm_up_s, self.moment(0.0))?)
    }

    /// Of what is benign, the share that did not come through and was not answered either. What the link has lost is in it. Where
    /// whoever has gone wild is among the clients, and may be held, frames do not say whose they are: requests of all others do.
    fn by_mistake(&self) -> f64 {
        let (begin, _) = self.span();
        if self.scenario.truth == Truth::Misconfiguration {
            return self.loss(begin).0;
        }
        let at = self.played.series.partition_point(|(at, _)| *at <= begin);
        let (Some((_, then)), Some((_, now))) = (self.played.series.get(at), self.played.series.last()) else {
            return 0.0;
        };
        let (sent, arrived) = (now.legit_sent - then.legit_sent, now.legit_arrived - then.legit_arrived);
        let answered = self.played.answered[1].saturating_sub(self.played.answered[0]);
        // A few frames are between two counters.
        sent.saturating_sub(arrived + answered + 20) as f64 / sent.max(1) as f64
    }

    fn lost_before(&self) -> f64 {
        let (begin, _) = self.span();
        let at = self.played.series.partition_point(|(at, _)| *at <= begin);
        let (Some((_, then)), Some((_, now))) = (self.played.series.get(at), self.played.series.last()) else {
            return 0.0;
        };
        let sent = (now.legit_sent - then.legit_sent + now.attack_sent - then.attack_sent) as f64;
        let received = self.played.received[1].saturating_sub(self.played.received[0]) as f64;
        // The device is asked a moment later than the counters.
        ((sent - received - 500.0) / sent.max(1.0)).max(0.0)
    }

    fn cpu(&self) -> Option<[f64; 2]> {
        let [quiet, begin, ended] = self.played.costs?;
        let (from, until) = self.span();
        let quiet_s = from - self.settings.timing.warm_up_s;
        // One that was restarted has begun to count anew.
        let during = if ended.cpu_s < begin.cpu_s { ended.cpu_s } else { ended.cpu_s - begin.cpu_s };
        Some([(begin.cpu_s - quiet.cpu_s) / quiet_s, during / (until - from)])
    }
}

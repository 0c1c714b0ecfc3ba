//! Incidents: what went on, from the first sign to the end, as a record that people and machines read afterwards.
//!
//! Where they are kept is in `store`; the daemon is the only writer.

mod shape;
mod store;
mod texts;

use std::time::{SystemTime, UNIX_EPOCH};

use ipnet::IpNet;
use serde::{Deserialize, Serialize};
pub(crate) use shape::protocol_name;
pub use shape::{Shape, destinations};
pub use store::{Error, Happened, Store};
pub use texts::{customer_notice, isp_request, postmortem};

use crate::detect::{Assessment, Vector, Verdict};

/// Version of the record.
const SCHEMA_VERSION: u32 = 1;
/// Events that a record has at most of what goes on by itself, and as many of what people say and do: the latest are left out, and that
/// is said.
const EVENTS: usize = 1_000;
/// What was done is kept of so many measures at most.
const ACTIONS: usize = 256;
/// Who writes into it by itself.
const BY_ITSELF: [&str; 3] = ["detection", "response", "daemon"];
/// How often the same verdict is told of one that turns to and fro between verdicts of a kind: floods with customers behind them or
/// without, or demand.
const TURNS_MS: u64 = 60_000;

/// Prefixes that are named of those who had gone wild.
const WHO: usize = 32;

/// Where an incident stands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum State {
    /// It goes on.
    #[default]
    Open,
    /// It goes on, and somebody looks after it.
    Acknowledged,
    /// It is over.
    Resolved,
}

impl State {
    /// The name that leaves the process.
    pub const fn label(self) -> &'static str {
        match self {
            Self::Open => "open",
            Self::Acknowledged => "acknowledged",
            Self::Resolved => "resolved",
        }
    }
}

/// Something that happened.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Event {
    /// When, in milliseconds of the Unix epoch.
    pub unix_ms: u64,
    /// Detection, response, or the name of a person.
    pub by: String,
    /// What.
    pub what: String,
}

/// An incident.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Incident {
    /// Version of this shape.
    pub schema_version: u32,
    /// Its name: when it began, in UTC.
    pub id: String,
    /// Where it stands.
    pub state: State,
    /// What goes on, or went on last.
    pub verdict: Verdict,
    /// The kinds of flood.
    pub vectors: Vec<Vector>,
    /// What was told last: an attack stays one in the record, whatever comes after it.
    #[serde(default)]
    pub latest: Verdict,
    /// When each verdict was told last, in milliseconds of the Unix epoch.
    #[serde(default)]
    pub told_unix_ms: Vec<(Verdict, u64)>,
    /// How sure that verdict was at the most.
    pub confidence: f64,
    /// The strongest reasons, in words.
    pub reasons: Vec<String>,
    /// Who had gone wild, where it was a misconfiguration at any time: prefixes (/24, /48), of which there are 32 at most.
    #[serde(default)]
    pub who: Vec<IpNet>,
    /// First sign, in milliseconds of the Unix epoch.
    pub began_unix_ms: u64,
    /// First verdict.
    pub detected_unix_ms: u64,
    /// First measure.
    pub mitigated_unix_ms: Option<u64>,
    /// Last sign, once it is over.
    pub ended_unix_ms: Option<u64>,
    /// Last sign until now.
    #[serde(default)]
    pub last_sign_unix_ms: u64,
    /// The most packets in a second.
    pub peak_packets_per_second: f64,
    /// Megabits a second then, with their Ethernet headers, of all that came in; 0 where they were not counted.
    #[serde(default)]
    pub peak_megabits_per_second: f64,
    /// Packets dropped or answered while it went on; in monitor mode those that would have been.
    pub dropped: u64,
    /// Packets passed while it went on.
    pub passed: u64,
    /// Drops were real.
    pub enforced: bool,
    /// What the flood was for: protocol and port, the most frequent first.
    pub targets: Vec<String>,
    /// The addresses that it was for, with their shares of the packets, the most frequent first; networks where these are many.
    #[serde(default)]
    pub destinations: Vec<(String, f64)>,
    /// What the packets of each kind looked like at their worst.
    #[serde(default)]
    pub shapes: Vec<Shape>,
    /// Where most of it claimed to come from, with its share of the packets.
    pub sources: Vec<(String, f64)>,
    /// Different sources among the samples of the worst second.
    pub source_count: usize,
    /// What was done.
    pub actions: Vec<String>,
    /// What happened, in its order.
    pub timeline: Vec<Event>,
}

/// What a person does with the incident that goes on.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum IncidentChange {
    /// Writes this into its timeline.
    Note(String),
    /// Looks after it.
    Ack,
    /// Says that it is over.
    Resolve,
}

/// Milliseconds of the Unix epoch.
pub fn now_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as u64)
}

/// A moment in UTC, as people write it.
pub fn utc(unix_ms: u64) -> String {
    humantime::format_rfc3339_seconds(UNIX_EPOCH + std::time::Duration::from_millis(unix_ms)).to_string()
}

impl Incident {
    /// One that begins, with what was found.
    pub fn new(began_unix_ms: u64, assessment: &Assessment) -> Self {
        let now = now_ms();
        let id = utc(now).replace([':', '-'], "").replace('T', "-").replace('Z', "");
        let mut incident =
            Self { schema_version: SCHEMA_VERSION, id, began_unix_ms, detected_unix_ms: now, ..Self::default() };
        incident.note_at(began_unix_ms, "detection", "first sign");
        incident.found(assessment);
        incident
    }

    /// Takes in what is found now; says so in the timeline where it is something else than before.
    pub fn found(&mut self, assessment: &Assessment) {
        let new: Vec<_> = assessment.vectors.iter().filter(|vector| !self.vectors.contains(vector)).collect();
        let newcomers: Vec<_> = assessment.who.iter().filter(|prefix| !self.who.contains(prefix)).copied().collect();
        self.who.extend(newcomers.into_iter().take(WHO.saturating_sub(self.who.len())));
        let turns = self.latest != assessment.verdict && !self.turns_back_to(assessment.verdict);
        if turns || !new.is_empty() {
            let vectors: Vec<_> = assessment.vectors.iter().map(|vector| vector.label()).collect();
            let of = if vectors.is_empty() { String::new() } else { format!(" ({})", vectors.join(", ")) };
            let (verdict, sure) = (assessment.verdict.label(), assessment.confidence * 100.0);
            self.note("detection", &format!("{verdict}{of}, {sure:.0} % sure: {}", assessment.reasons.join("; ")));
            // Why it was an attack is not told by what comes after it.
            if assessment.verdict.is_attack() || !self.verdict.is_attack() {
                self.reasons.clone_from(&assessment.reasons);
            }
            self.latest = assessment.verdict;
            self.told_unix_ms.retain(|(verdict, _)| *verdict != assessment.verdict);
            self.told_unix_ms.push((assessment.verdict, now_ms()));
        }
        self.vectors.extend(new);
        if self.verdict.is_attack() && !assessment.verdict.is_attack() {
            return;
        }
        // Of another verdict it says nothing.
        let before = if self.verdict == assessment.verdict { self.confidence } else { 0.0 };
        (self.verdict, self.confidence) = (assessment.verdict, before.max(assessment.confidence));
    }

    /// Whether a verdict is of the kind of the latest, and was told a moment ago.
    fn turns_back_to(&self, verdict: Verdict) -> bool {
        let mut told = self.told_unix_ms.iter().filter(|(of, _)| *of == verdict);
        self.latest.is_attack() == verdict.is_attack()
            && told.any(|(_, unix_ms)| now_ms().saturating_sub(*unix_ms) < TURNS_MS)
    }

    /// Drops are real now.
    pub fn enforces(&mut self) {
        self.enforced = true;
        if !self.actions.is_empty() {
            self.mitigated_unix_ms.get_or_insert_with(now_ms);
        }
    }

    /// Writes a measure down. It mitigates where drops are real.
    pub fn acted(&mut self, what: &str) {
        if self.enforced {
            self.mitigated_unix_ms.get_or_insert_with(now_ms);
        }
        if self.actions.len() < ACTIONS {
            self.actions.push(what.to_owned());
        }
        self.note("response", what);
    }

    /// Writes something into the timeline. `false` where the record is full of the like.
    pub fn note(&mut self, by: &str, what: &str) -> bool {
        self.note_at(now_ms(), by, what)
    }

    fn note_at(&mut self, unix_ms: u64, by: &str, what: &str) -> bool {
        // What goes on by itself takes no room of what people say.
        let is_by_itself = |by: &str| BY_ITSELF.contains(&by);
        let alike = self.timeline.iter().filter(|event| is_by_itself(&event.by) == is_by_itself(by)).count();
        let (is_room, is_last) = (alike < EVENTS, alike == EVENTS - 1);
        if is_room {
            let what = if is_last { "the record is full" } else { what };
            self.timeline.push(Event { unix_ms, by: by.to_owned(), what: what.to_owned() });
        }
        is_room && !is_last
    }

    /// Ends it.
    pub fn resolve(&mut self, by: &str, what: &str) {
        self.state = State::Resolved;
        self.ended_unix_ms.get_or_insert_with(now_ms);
        // There is always room for the end.
        self.timeline.push(Event { unix_ms: now_ms(), by: by.to_owned(), what: what.to_owned() });
    }

    /// Seconds from the first sign to a moment.
    pub fn seconds_to(&self, unix_ms: u64) -> f64 {
        unix_ms.saturating_sub(self.began_unix_ms) as f64 / 1e3
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn how_sure_it_is_is_said_of_this_verdict() {
        let found = |verdict, confidence| Assessment { verdict, confidence, ..Assessment::default() };
        let mut incident = Incident::new(1, &found(Verdict::Surge, 0.99));
        let mut sure = |verdict, confidence| {
            incident.found(&found(verdict, confidence));
            (incident.verdict, incident.confidence)
        };
        assert_eq!(sure(Verdict::Attack, 0.81), (Verdict::Attack, 0.81));
        assert_eq!(sure(Verdict::Attack, 0.9), (Verdict::Attack, 0.9));
        assert_eq!(sure(Verdict::Attack, 0.85), (Verdict::Attack, 0.9));
        assert_eq!(sure(Verdict::Surge, 0.99), (Verdict::Attack, 0.9), "an attack stays one in the record");
        let reasons = |reasons: &str| vec![reasons.to_owned()];
        let attack = Assessment { reasons: reasons("forged"), ..found(Verdict::Attack, 0.9) };
        let mut incident = Incident::new(1, &attack);
        incident.found(&Assessment { reasons: reasons("real clients"), ..found(Verdict::Surge, 0.9) });
        assert_eq!(incident.reasons, ["forged"], "and so does why");
    }

    #[test]
    fn a_full_record_has_room_for_people_and_for_the_end() {
        let mut incident = Incident::default();
        let kept = (0..2 * EVENTS).filter(|number| incident.note("response", &number.to_string())).count();
        assert_eq!((kept, incident.timeline.len()), (EVENTS - 1, EVENTS));
        assert_eq!(incident.timeline.last().map(|event| event.what.as_str()), Some("the record is full"));
        assert!(incident.note("ada", "called the provider"));
        incident.resolve("detection", "over");
        let last: Vec<_> = incident.timeline[EVENTS..].iter().map(|event| event.what.as_str()).collect();
        assert_eq!(last, ["called the provider", "over"]);
        let kept = (0..2 * EVENTS).filter(|_| incident.note("ada", "again")).count();
        assert_eq!(kept, EVENTS - 2, "of people's words too there is an end, and it is said");
    }

    #[test]
    fn a_verdict_that_turns_to_and_fro_is_told_now_and_then() {
        let found =
            |verdict, vectors: &[Vector]| Assessment { verdict, vectors: vectors.to_vec(), ..Assessment::default() };
        let mut incident = Incident::new(1, &found(Verdict::Surge, &[]));
        let begun = incident.timeline.len();
        for verdict in [Verdict::Overload, Verdict::Misconfiguration, Verdict::Surge].repeat(10) {
            incident.found(&found(verdict, &[]));
        }
        assert_eq!(incident.timeline.len(), begun + 2, "each of them once: {:?}", incident.timeline);
        let begun = incident.timeline.len();
        incident.found(&found(Verdict::Attack, &[Vector::SynFlood]));
        incident.found(&found(Verdict::Mixed, &[Vector::SynFlood]));
        incident.found(&found(Verdict::Attack, &[Vector::SynFlood]));
        assert_eq!(
            (incident.timeline.len(), incident.latest),
            (begun + 2, Verdict::Mixed),
            "an attack is something else"
        );
        incident.found(&found(Verdict::Attack, &[Vector::UdpFlood]));
        assert_eq!(incident.timeline.len(), begun + 3, "and so is another flood");
        incident.told_unix_ms.iter_mut().for_each(|(_, unix_ms)| *unix_ms -= TURNS_MS);
        incident.found(&found(Verdict::Mixed, &[]));
        assert_eq!((incident.timeline.len(), incident.latest), (begun + 4, Verdict::Mixed));
    }

    #[test]
    fn who_has_gone_wild_is_kept() {
        let found = |who: &[&str]| Assessment {
            verdict: Verdict::Misconfiguration,
            who: who.iter().map(|prefix| prefix.parse().unwrap()).collect(),
            ..Assessment::default()
        };
        let mut incident = Incident::new(1, &found(&["192.0.2.0/24"]));
        incident.found(&found(&["198.51.100.0/24", "192.0.2.0/24"]));
        incident.found(&found(&[]));
        let who: Vec<_> = incident.who.iter().map(ToString::to_string).collect();
        assert_eq!(who, ["192.0.2.0/24", "198.51.100.0/24"]);
        let many: Vec<_> = (0..100).map(|number| format!("10.0.{number}.0/24")).collect();
        incident.found(&found(&many.iter().map(String::as_str).collect::<Vec<_>>()));
        assert_eq!(incident.who.len(), WHO);
    }

    #[test]
    fn what_is_only_counted_mitigates_nothing() {
        let mut incident = Incident::default();
        incident.acted("drop signature 7");
        assert_eq!((incident.mitigated_unix_ms, incident.actions.len()), (None, 1), "in monitor mode");
        incident.enforces();
        let mitigated = incident.mitigated_unix_ms;
        assert!(mitigated.is_some(), "once drops are real");
        incident.acted("drop signature 8");
        (0..2 * ACTIONS).for_each(|number| incident.acted(&number.to_string()));
        assert_eq!(incident.actions.len(), ACTIONS);
        assert_eq!(incident.mitigated_unix_ms, mitigated, "the first counts");
    }
}

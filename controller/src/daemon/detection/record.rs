//! The record of what goes on: begun, gone on with, written down and closed.

use std::sync::Arc;

use floodwall_common::config::Mode;
use floodwall_common::reason::Verdict as Fate;
use tracing::{info, warn};

use super::super::Daemon;
use super::super::peak::{note_holders, note_peak, note_shapes, note_whom};
use super::Watch;
use crate::dataplane;
use crate::detect::{Assessment, Features, Verdict};
use crate::incident::{Incident, State, now_ms};
use crate::snapshot::Snapshot;

/// How often a record is written while nothing but its numbers changes.
const SAVED_EVERY_NS: u64 = 5_000_000_000;
/// Records that are kept in mind until they can be written.
const UNSAVED: usize = 16;
/// What has to have come of the usual for a first sign.
const RESTLESS: f64 = 2.0;

/// Looks that the usual is the mean of; the first ones count at once.
const LOOKS: u32 = 100;

/// A record that was left open is gone on with, where the last that is known of it is no older.
const GOES_ON_MS: u64 = 600_000;
/// How long it stays open then, until it is known whether it goes on.
const HELD_MS: u64 = 30_000;

/// Records that the daemon before this one has left open: the latest, where it may go on, and the others, which are closed.
fn left_open(mut records: Vec<Incident>, now_ms: u64) -> (Option<Incident>, Vec<Incident>) {
    records.retain(|record| record.state != State::Resolved);
    let goes_on = records.pop_if(|last| now_ms.saturating_sub(last_known_ms(last)) < GOES_ON_MS);
    for record in &mut records {
        record.ended_unix_ms = Some(last_known_ms(record));
        record.resolve("daemon", "nobody saw its end: no daemon ran");
    }
    (goes_on, records)
}

fn last_known_ms(record: &Incident) -> u64 {
    let told = record.timeline.last().map_or(record.began_unix_ms, |event| event.unix_ms);
    told.max(record.last_sign_unix_ms)
}

impl Watch {
    /// Goes on with the record that the daemon before this one has left open.
    pub(super) fn adopt_record(&mut self, daemon: &Daemon) {
        let records = match daemon.store().open_ones() {
            Ok(records) => records,
            Err(error) => return warn!(%error, "records that were left open cannot be read"),
        };
        let now = now_ms();
        let (goes_on, closed) = left_open(records, now);
        self.unsaved.0.extend(closed.into_iter().filter(|record| !daemon.save(record)).take(UNSAVED));
        if let Some(mut record) = goes_on {
            info!(incident = record.id, "gone on with: it was left open");
            self.last_sign_ms = last_known_ms(&record);
            self.held_until_ms = now + HELD_MS;
            record.note("daemon", "the daemon was started again");
            *daemon.incident() = Some(record);
        }
    }

    /// An incident begins where traffic began to be more than usual, not where it is understood.
    pub(super) fn notice_restlessness(&mut self, features: &Features, assessment: &Assessment) {
        let (usual, looks) = &mut self.usual_per_second;
        let is_restless = features.per_second > RESTLESS * usual.max(100.0);
        match (is_restless, self.restless_since_ms) {
            (true, None) => self.restless_since_ms = Some(now_ms()),
            (false, _) => self.restless_since_ms = None,
            (true, Some(_)) => {}
        }
        if assessment.verdict == Verdict::Normal {
            *looks = LOOKS.min(*looks + 1);
            *usual += (features.per_second - *usual) / f64::from(*looks);
        }
    }

    pub(super) fn keep_record(
        &mut self,
        daemon: &Arc<Daemon>,
        snapshot: &Snapshot,
        found: &Assessment,
        features: &Features,
    ) {
        let (counted, by) = (counts(snapshot), (snapshot.mode, snapshot.drops));
        let before = self.counted_then.replace((counted, by));
        if found.verdict != Verdict::Normal {
            self.last_sign_ms = now_ms().saturating_sub(found.sign_was_ns / 1_000_000);
        }
        let mut open = daemon.incident();
        match (&mut *open, found.verdict) {
            (None, Verdict::Normal) => {}
            (None, _) => {
                let began = self.restless_since_ms.unwrap_or_else(now_ms);
                let mut incident = Incident::new(began, found);
                let reasons = found.reasons.join("; ");
                warn!(incident = incident.id, verdict = found.verdict.label(), reasons, "something goes on");
                if snapshot.mode == Mode::Enforce {
                    incident.enforces();
                }
                for present in &self.in_force {
                    incident.acted(&format!("in force from before: {}", present.measure));
                }
                note_peak(&mut incident, &self.detector, features, self.bytes_per_second);
                self.most_held = 0;
                *open = Some(incident);
            }
            // What was left open may go on: that takes a while to be seen.
            (Some(_), Verdict::Normal) if now_ms() < self.held_until_ms => {}
            (Some(incident), Verdict::Normal) => {
                incident.ended_unix_ms = Some(self.last_sign_ms);
                incident.resolve("detection", "nothing out of the ordinary for half a minute");
                info!(incident = incident.id, "over");
            }
            (Some(incident), _) => {
                let known = incident.vectors.len();
                incident.found(found);
                // Who was seen before is not of a kind that was not there yet.
                if incident.vectors.len() > known {
                    note_whom(incident, &self.detector);
                }
            }
        }
        let Some(incident) = &mut *open else { return };
        incident.last_sign_unix_ms = self.last_sign_ms;
        for words in self.prober.told() {
            incident.note("detection", &words);
        }
        // What was counted by another mode or other reasons would be counted anew.
        if let Some((then, _)) = before.filter(|(_, by_then)| *by_then == by) {
            incident.dropped += counted.0.saturating_sub(then.0);
            incident.passed += counted.1.saturating_sub(then.1);
        }
        if snapshot.mode == Mode::Enforce {
            incident.enforces();
        }
        if features.per_second > incident.peak_packets_per_second {
            note_peak(incident, &self.detector, features, self.bytes_per_second);
        }
        note_shapes(incident, &found.current, &self.detector, features);
        if features.held.as_ref().is_some_and(|held| held.slow > self.most_held) {
            self.most_held = note_holders(incident, features);
        }
    }

    /// Writes it down, where that is due.
    pub(super) fn save_record(&mut self, daemon: &Daemon, snapshot: &Snapshot) {
        let (unsaved, tried_ns) = &mut self.unsaved;
        if !unsaved.is_empty() && snapshot.taken_ns.saturating_sub(*tried_ns) >= SAVED_EVERY_NS {
            *tried_ns = snapshot.taken_ns;
            unsaved.retain(|incident| !daemon.save(incident));
        }
        let mut open = daemon.incident();
        let Some(incident) = &mut *open else { return };
        let is_over = incident.state == State::Resolved;
        let is_due = snapshot.taken_ns.saturating_sub(self.saved.1) >= SAVED_EVERY_NS;
        if is_over || is_due || incident.timeline.len() != self.saved.0 {
            self.saved = (incident.timeline.len(), snapshot.taken_ns);
            if !daemon.save(incident) && is_over && self.unsaved.0.len() < UNSAVED {
                self.unsaved.0.push(incident.clone());
            }
        }
        if is_over {
            daemon.check_up.is_over(incident);
            *open = None;
        }
    }
}

/// Packets that drop, in monitor mode those that would, and those that pass.
fn counts(snapshot: &Snapshot) -> (u64, u64) {
    let drops = |cell: &dataplane::Cell| match snapshot.mode {
        Mode::Enforce => cell.verdict != Fate::Pass,
        Mode::Monitor | Mode::Stopped => cell.reason.verdict(snapshot.drops) != Fate::Pass,
    };
    (snapshot.sum(drops).packets, snapshot.sum(|cell| !drops(cell)).packets)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(id: &str, state: State, last_ms: u64) -> Incident {
        let mut record = Incident { id: id.to_owned(), state, began_unix_ms: last_ms - 5, ..Incident::default() };
        record.timeline.push(crate::incident::Event {
            unix_ms: last_ms,
            by: "detection".into(),
            what: "attack".into(),
        });
        record
    }

    #[test]
    fn only_the_latest_record_goes_on_and_only_if_it_is_recent() {
        let now = 10 * GOES_ON_MS;
        let records =
            || vec![record("old", State::Open, GOES_ON_MS), record("seen", State::Acknowledged, now - GOES_ON_MS / 2)];
        let (goes_on, closed) = left_open(records(), now);
        assert_eq!(goes_on.map(|record| (record.id, record.state)), Some(("seen".into(), State::Acknowledged)));
        assert_eq!(closed.iter().map(|record| &*record.id).collect::<Vec<_>>(), ["old"]);
        assert_eq!((closed[0].state, closed[0].ended_unix_ms), (State::Resolved, Some(GOES_ON_MS)));
        // A flood of hours that says nothing new.
        let steady = Incident { last_sign_unix_ms: now - 5_000, ..record("steady", State::Open, GOES_ON_MS) };
        assert_eq!(left_open(vec![steady], now).0.map(|record| record.id), Some("steady".into()));
        let (goes_on, closed) = left_open(records(), now + GOES_ON_MS);
        assert_eq!((goes_on, closed.len()), (None, 2), "both are too old");
        assert_eq!(left_open(vec![record("over", State::Resolved, now)], now), (None, Vec::new()));
    }
}

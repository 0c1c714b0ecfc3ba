//! The two outages that this was made for, played again with Floodwall before the server, and told by its own record: an attack from
//! many addresses and with many patterns, which 35 % of the users felt, and one that 80 % did. Without it they are as bad here.

#![expect(clippy::unwrap_used, reason = "the helpers of tests fail as the tests do: by a panic")]

use std::sync::{Mutex, PoisonError};

use floodwall::configuration::Contacts;
use floodwall::incident::{Incident, postmortem};
use floodwall_tests::scenarios::run::{Settings, allow_many_connections, play};
use floodwall_tests::scenarios::score::{Score, score};
use floodwall_tests::scenarios::walls::Wall;
use floodwall_tests::scenarios::{Act, Does, Flood, Kind, Level, Scenario, Targets, Timing, Truth};

const SETTINGS: Settings = Settings { level: Level::S, timing: Timing::SHORT, swapped: false };
const TARGETS: Targets = Targets { verdict_s: 3.0, mitigated_s: 5.0, stopped: 0.95 };

const fn flood(from: f64, kind: Kind, of_attack: f64) -> Act {
    Act { at: from, until: 12.0, does: Does::Flood(Flood { kind, of_attack, doubles_every: None }) }
}

const fn story(name: &'static str, vectors: &'static [&'static [&'static str]], acts: &'static [Act]) -> Scenario {
    Scenario {
        number: 1,
        name,
        truth: Truth::Attack,
        vectors,
        targets: TARGETS,
        groups: &[],
        always: &[],
        acts,
        seconds: 12.0,
        counts_from: 0.0,
    }
}

/// It began with one pattern, and others were added.
const FIRST: Scenario = story(
    "the first outage",
    &[&["syn-flood"], &["amplification"], &["tcp-reflection"]],
    &[flood(0.0, Kind::BareSyn, 0.4), flood(1.0, Kind::Amplified, 0.3), flood(2.0, Kind::SynAck, 0.3)],
);

/// The whole of it at once.
const SECOND: Scenario = story(
    "the second outage",
    &[&["syn-flood"]],
    &[flood(0.0, Kind::OfferingSyn, 0.8), flood(0.0, Kind::BareSyn, 0.5)],
);

/// One at a time: each takes the machine to itself.
static ALONE: Mutex<()> = Mutex::new(());

/// What came of it, and what was written down.
fn played(story: &Scenario, wall: Wall) -> (Score, Vec<Incident>) {
    let seen = play(story, wall, &SETTINGS, 1).unwrap();
    let score = score(story, wall, &SETTINGS, 1, &seen);
    let Score { verdict_s, mitigated_s, stopped_after, loss, worst_group, .. } = &score;
    println!(
        "{} behind {}: verdict {verdict_s:?} s, mitigated {mitigated_s:?} s, stopped {stopped_after:?}, lost {loss}, {worst_group:?}",
        story.name,
        wall.name()
    );
    let records = seen.incidents.into_iter().map(|record| serde_json::from_value(record).unwrap());
    (score, records.collect())
}

/// Told within three seconds, held within five from the first packet, and what is left to do is to fill in what only people know.
fn told_and_held(story: &Scenario, affected: f64) {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    allow_many_connections().unwrap();
    let (score, records) = played(story, Wall::Floodwall);
    assert!(score.verdict_s.is_some_and(|seconds| seconds < 3.0), "{score:?}");
    assert!(score.mitigated_s.is_some_and(|seconds| seconds < 5.0), "{score:?}\n{records:#?}");
    assert!(score.loss < 0.02, "{:.1} % of requests were lost behind it", score.loss * 100.0);
    assert_eq!(records.len(), 1, "{records:#?}");
    let record = &records[0];
    assert!(record.verdict.is_attack() && record.enforced && record.dropped > 10_000, "{record:#?}");
    for names in story.vectors {
        let named = record.vectors.iter().any(|vector| names.contains(&vector.label()));
        assert!(named, "none of {names:?}: {record:#?}");
    }
    assert!(record.seconds_to(record.detected_unix_ms) < 3.0, "{record:#?}");
    assert!(record.mitigated_unix_ms.is_some_and(|at| record.seconds_to(at) < 5.0), "{record:#?}");
    assert!(record.source_count > 100 && !record.targets.is_empty() && !record.actions.is_empty(), "{record:#?}");
    is_complete(&postmortem(record, &Contacts::default()), record);
    let (without, _) = played(story, Wall::None);
    let lost = without.worst_group.map_or(0.0, |(_, share)| share);
    assert!(lost >= affected, "{:.1} % of those who connect anew were lost without a filter", lost * 100.0);
}

/// All sections are there, each with something in it, and with the numbers of the record.
fn is_complete(draft: &str, record: &Incident) {
    let sections: Vec<_> = draft.split("\n## ").skip(1).filter_map(|section| section.split_once('\n')).collect();
    let titles: Vec<_> = sections.iter().map(|(title, _)| *title).collect();
    let expected = [
        "Issue Summary",
        "Duration",
        "Impact",
        "Root Cause",
        "Timeline",
        "Resolution",
        "Corrective and Preventative Measures",
    ];
    assert_eq!(titles, expected, "{draft}");
    assert!(sections.iter().all(|(_, text)| text.trim().len() > 40), "{draft}");
    for number in [record.dropped.to_string(), format!("{:.0} packets a second", record.peak_packets_per_second)] {
        assert!(draft.contains(&number), "{number}:\n{draft}");
    }
    assert!(record.timeline.iter().all(|event| draft.contains(&event.what.replace('|', "/"))), "{draft}");
    assert!(record.actions.iter().all(|action| draft.contains(action)), "{draft}");
}

#[test]
fn the_first_outage_is_told_and_held() {
    told_and_held(&FIRST, 0.35);
}

#[test]
fn the_second_outage_is_told_and_held() {
    told_and_held(&SECOND, 0.7);
}

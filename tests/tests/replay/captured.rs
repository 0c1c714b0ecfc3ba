//! Captured attacks and captured good traffic, where `FLOODWALL_CAPTURES` names a directory of them.

use std::path::{Path, PathBuf};

use floodwall::detect::Vector;
use floodwall::replay::{Captured, files};
use floodwall_tests::captures::{protected, read};

use super::Seen;

/// The captures that are there, if any.
fn captures() -> Option<PathBuf> {
    let directory = std::env::var_os("FLOODWALL_CAPTURES").map(PathBuf::from);
    if directory.is_none() {
        println!("FLOODWALL_CAPTURES is not set: only what is made up is looked at");
    }
    directory
}

fn captured(directory: &Path, kind: &str) -> Vec<(PathBuf, Vec<Captured>)> {
    let files = files(&[directory.join(kind)]).unwrap();
    files.into_iter().map(|file| (file.clone(), read(&file).unwrap())).collect()
}

/// What a capture is named after, and the kind of flood that this is.
const NAMED: [(&str, Vector); 5] = [
    ("reflection", Vector::TcpReflection),
    ("synflood", Vector::SynFlood),
    (".syn.", Vector::SynFlood),
    ("amp.udp", Vector::Amplification),
    ("amp.dns", Vector::Amplification),
];

/// Two requests a minute from one client: nothing is flooded there.
const NO_FLOOD: &str = "WebDDoS";
/// Packets in a second that something can be said of.
const POPULATED: usize = 40;

/// Seconds from the first packet to the first that begins a second with enough packets to the protected host.
fn first_populated_second(frames: &[Captured]) -> f64 {
    let host = protected(frames).unwrap();
    let is_inward = |captured: &&Captured| {
        floodwall_tests::captures::ends(&captured.frame).is_some_and(|(_, destination)| destination == host)
    };
    let times: Vec<_> = frames.iter().filter(is_inward).map(|captured| captured.at.as_secs_f64()).collect();
    let first = times.windows(POPULATED).find(|times| times[POPULATED - 1] - times[0] <= 1.0).unwrap()[0];
    first - frames[0].at.as_secs_f64()
}

#[test]
fn captured_attacks_are_attacks_within_a_second() {
    let Some(directory) = captures() else { return };
    for (file, frames) in captured(&directory, "attack") {
        let name = file.file_name().unwrap().to_string_lossy().into_owned();
        let seen = Seen::of(&frames, &[]);
        let attack = seen.lines.iter().find(|line| line.verdict.is_attack());
        if name.contains(NO_FLOOD) {
            assert!(attack.is_none(), "{name}\n{}", seen.told());
            continue;
        }
        let attack = attack.unwrap_or_else(|| panic!("{name}: no attack\n{}", seen.told()));
        let named = NAMED.iter().find(|(part, _)| name.to_lowercase().contains(part));
        assert!(named.is_none_or(|(_, vector)| attack.vector == Some(vector.label())), "{name}\n{}", seen.told());
        let late = attack.t - first_populated_second(&frames);
        println!("{name}: {:?} after {late:.2} s", attack.vector);
        assert!(late <= 1.0, "{name}: after {late} s\n{}", seen.told());
    }
}

#[test]
fn captured_good_traffic_is_never_an_attack() {
    let Some(directory) = captures() else { return };
    for kind in ["benign", "mixed"] {
        for (file, frames) in captured(&directory, kind) {
            let seen = Seen::of(&frames, &[]);
            let is_attack = seen.lines.iter().any(|line| line.verdict.is_attack());
            assert!(!is_attack, "{}\n{}", file.display(), seen.told());
        }
    }
}

//! The probe at work: a slice of what is suspected is counted for a second, and not let through for the two that follow. Both are
//! counted by a signature, one by one.

use std::sync::Arc;
use std::time::Duration;

use floodwall_common::signatures::Action;
use tracing::{error, warn};

use super::Daemon;
use crate::dataplane::{Dataplane, Signature, monotonic_ns};
use crate::detect::{Assessment, Features, Group, Window};
use crate::exit::describe;
use crate::history;
use crate::respond::{AUTOMATIC_NAME, PROBED_NS, Policy, Probe, concluded, probe};

/// How often at most.
const EVERY_NS: u64 = 60_000_000_000;
/// How long what was found counts: so long that the next one comes while its verdict is still held.
const COUNTS_NS: u64 = 40_000_000_000;
/// What comes between these two is what came on: senders have noticed by then, and it is not over yet.
const FROM_NS: u64 = 700_000_000;
const UNTIL_NS: u64 = 1_500_000_000;
/// Sentences that wait for an incident to be told in.
const WAITING: usize = 10;

/// How long what comes is counted before it, and how long the signature for that stays where nobody takes it away.
const BEFORE_NS: u64 = 1_000_000_000;
const COUNTED_FOR: Duration = Duration::from_secs(3);
/// Packets a second before it, from which on a ratio says something.
const ENOUGH: f64 = 100.0;

/// Where one stands that goes on.
#[derive(Debug)]
enum Phase {
    /// What comes is counted.
    Before,
    /// Nothing is let through; so many packets a second came before.
    Held(f64),
    /// The same, and what comes on is counted: hits by then, and when.
    Counted(f64, u64, u64),
}

/// One that goes on.
#[derive(Debug)]
struct Running {
    probe: Probe,
    since_ns: u64,
    phase: Phase,
}

/// Probes, one after the other.
#[derive(Debug, Default)]
pub(super) struct Prober {
    turn: u16,
    begun_ns: Option<u64>,
    running: Option<Running>,
    found: Option<(Group, f64, u64)>,
    told: Vec<String>,
}

impl Prober {
    /// What was found lately.
    pub(super) fn found(&self, now_ns: u64) -> Option<(Group, f64)> {
        self.found.filter(|(.., until_ns)| now_ns < *until_ns).map(|(group, ratio, _)| (group, ratio))
    }

    /// What is to be told in the incident.
    pub(super) fn told(&mut self) -> Vec<String> {
        std::mem::take(&mut self.told)
    }

    /// Begins one where it helps, and concludes the one that goes on.
    pub(super) fn tick(
        &mut self,
        daemon: &Arc<Daemon>,
        (assessment, features, window): (&Assessment, &Features, &Window),
        now_ns: u64,
    ) {
        if self.running.is_some() {
            return self.go_on(daemon);
        }
        let is_due = self.begun_ns.is_none_or(|begun_ns| now_ns.saturating_sub(begun_ns) >= EVERY_NS);
        if !daemon.options.probe || !is_due {
            return;
        }
        let Some(probe) = probe(assessment, features, window, self.turn) else { return };
        if daemon.options.respond.of(probe.suspect.vector) != Policy::Act {
            return;
        }
        self.begun_ns = Some(now_ns);
        self.turn = self.turn.wrapping_add(1);
        match arm(&mut daemon.dataplane(), &name(self.turn), &probe, Action::Count) {
            Ok(()) => self.running = Some(Running { probe, since_ns: monotonic_ns(), phase: Phase::Before }),
            Err(failed) => error!(error = describe(&failed), "cannot be probed"),
        }
    }

    /// Goes on with the one that there is, or gives it up where it is too late, or somebody has taken it away.
    fn go_on(&mut self, daemon: &Daemon) {
        let Some(running) = self.running.take() else { return };
        let since_ns = monotonic_ns().saturating_sub(running.since_ns);
        let (due_ns, over_ns) = match running.phase {
            Phase::Before => (BEFORE_NS, 2 * BEFORE_NS),
            Phase::Held(_) => (FROM_NS, UNTIL_NS),
            Phase::Counted(..) => (UNTIL_NS, PROBED_NS),
        };
        if since_ns < due_ns {
            return self.running = Some(running);
        }
        let hits = match hits(&daemon.dataplane(), &name(self.turn)) {
            Ok(Some(hits)) if since_ns < over_ns => hits,
            _ => return,
        };
        let now_ns = monotonic_ns();
        let Running { probe, since_ns: begun_ns, phase } = running;
        match phase {
            Phase::Before => {
                let before = hits as f64 / (now_ns.saturating_sub(begun_ns) as f64 / 1e9);
                if before < ENOUGH {
                    return;
                }
                match arm(&mut daemon.dataplane(), &name(self.turn), &probe, Action::Drop) {
                    Ok(()) => {
                        self.tell(daemon, probe.to_string());
                        self.running = Some(Running { probe, since_ns: monotonic_ns(), phase: Phase::Held(before) });
                    }
                    Err(failed) => error!(error = describe(&failed), "cannot be probed"),
                }
            }
            Phase::Held(before) => {
                let phase = Phase::Counted(before, hits, now_ns);
                self.running = Some(Running { probe, since_ns: begun_ns, phase });
            }
            Phase::Counted(before, from, from_ns) => {
                let seconds = now_ns.saturating_sub(from_ns) as f64 / 1e9;
                let ratio = hits.saturating_sub(from) as f64 / seconds / before;
                self.found = Some((probe.suspect.vector.group(), ratio, now_ns + COUNTS_NS));
                self.tell(daemon, concluded(before, ratio));
            }
        }
    }

    fn tell(&mut self, daemon: &Daemon, words: String) {
        warn!(words, "probe");
        daemon.record(&history::Entry::of_this_process("detection", words.clone()));
        if self.told.len() < WAITING {
            self.told.push(words);
        }
    }
}

fn name(turn: u16) -> String {
    format!("{AUTOMATIC_NAME}probe-{turn}")
}

/// It ends in the kernel, also where nobody is there to end it.
fn arm(dataplane: &mut Dataplane, name: &str, probe: &Probe, action: Action) -> anyhow::Result<()> {
    let (clock, generation) = (dataplane.clock()?, dataplane.config()?.generation);
    let mut wanted = dataplane.signatures()?;
    wanted.retain(|signature| signature.is_live(clock.now()) && signature.name != name);
    let lasts = if action == Action::Drop { Duration::from_nanos(PROBED_NS) } else { COUNTED_FOR };
    wanted.push(Signature::new(name, probe.shape, action, Some(clock.after(lasts)), "a probe"));
    dataplane.install_signatures(&wanted, generation)?;
    Ok(())
}

fn hits(dataplane: &Dataplane, name: &str) -> anyhow::Result<Option<u64>> {
    let signatures = dataplane.signatures()?;
    Ok(signatures.iter().find(|signature| signature.name == name).map(|signature| signature.hits.packets))
}

//! What the daemon does four times a second: reads what came, takes a snapshot, lets detection look at it, shows it.

use std::collections::VecDeque;
use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use floodwall_common::config::Mode;
use tokio::time::MissedTickBehavior;
use tracing::{error, info, warn};

use super::detection::Watch;
use super::guard::Guard;
use super::service_manager::Alive;
use super::{Daemon, NOT_CONFIRMED, View, disarm_without_memory, sampling};
use crate::dataplane::{self, SampleReader, monotonic_ns};
use crate::history;
use crate::snapshot::Snapshot;

/// How often a snapshot is taken.
const TICK: Duration = Duration::from_millis(250);
/// Snapshots that are kept: rates are over the last second.
const HISTORY: usize = 5;
/// How often devices are asked, in ticks.
const DEVICE_TICKS: u64 = 2;

/// The loop: samples, snapshot, sampling rate. A failure is logged once, and the loop goes on: the kernel half does.
pub(super) async fn watch(daemon: &Arc<Daemon>, mut samples: SampleReader) {
    let mut ticks = tokio::time::interval(TICK);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
    let mut history: VecDeque<Arc<Snapshot>> = VecDeque::with_capacity(HISTORY);
    let mut devices = daemon.devices();
    let mut watch = Watch::new(daemon);
    let mut guard = Guard::default();
    let mut failing = false;
    let mut alive = Alive::new();
    for tick in 0u64.. {
        ticks.tick().await;
        watch.look_around(&daemon.dataplane());
        drain(daemon, &mut samples, &mut watch);
        // Before anybody mends it: what was sent meanwhile is not known.
        let disarmed = disarm_without_memory(&mut daemon.dataplane());
        match disarmed {
            Ok(true) => daemon.lacked_memory_ns.store(monotonic_ns(), Ordering::Relaxed),
            Ok(false) => {}
            Err(error) => warn!(%error, "cannot tell whether what is sent is remembered"),
        }
        if tick % DEVICE_TICKS == 0 {
            match dataplane::devices().await {
                Ok(seen) => {
                    devices = seen;
                    guard.look(daemon, &devices);
                    daemon.devices.lock().unwrap_or_else(PoisonError::into_inner).clone_from(&devices);
                }
                Err(error) => warn!(%error, "cannot see the network devices"),
            }
        }
        match daemon.snapshot(&devices) {
            Ok(mut snapshot) => {
                failing = false;
                alive.beat(&snapshot);
                snapshot.situation = Some(watch.tick(daemon, &snapshot));
                daemon.check_up.show(&mut snapshot);
                publish(daemon, &mut history, snapshot);
            }
            Err(error) if !failing => {
                failing = true;
                error!(%error, "cannot read the dataplane; trying on");
            }
            Err(_) => {}
        }
    }
}

fn drain(daemon: &Daemon, samples: &mut SampleReader, watch: &mut Watch) {
    let every = daemon.view().now.sample_every;
    let (mut talkers, mut past) = (daemon.talkers(), daemon.past());
    samples.drain(|sample, frame| {
        watch.observe(&sample, frame, every);
        past.push(&sample);
        talkers.push(sample);
    });
    let now_ns = monotonic_ns();
    talkers.expire(now_ns);
    past.pass(now_ns);
    drop((talkers, past));
    daemon.dataplane().flush_logs();
}

fn publish(daemon: &Daemon, history: &mut VecDeque<Arc<Snapshot>>, snapshot: Snapshot) {
    let now = Arc::new(snapshot);
    let earlier = history.front().cloned();
    if let Some(last) = history.back() {
        sampling::tune(&mut daemon.dataplane(), last, &now);
    }
    if history.len() == HISTORY - 1 {
        history.pop_front();
    }
    let before = history.back().cloned().unwrap_or_else(|| daemon.view().now);
    history.push_back(Arc::clone(&now));
    report_changes(&before, &now);
    if (before.mode, now.mode, now.trial.is_some()) == (Mode::Enforce, Mode::Monitor, true) {
        warn!("{NOT_CONFIRMED}");
        daemon.record(&history::Entry::of_this_process("clock", "mode monitor: not confirmed"));
    }
    daemon.show(View { now, earlier });
}

/// Says when an interface loses or regains its protection.
fn report_changes(before: &Snapshot, now: &Snapshot) {
    for interface in &now.interfaces {
        let slot = interface.protected.slot;
        let was = before.interfaces.iter().find(|other| other.protected.slot == slot);
        let was = was.and_then(|interface| interface.protected.attached);
        let name = interface.protected.name.as_str();
        match (was, interface.protected.attached) {
            (Some(_), None) => error!(interface = name, "the filter is no longer on the device"),
            (None, Some(mode)) => info!(interface = name, xdp = mode.label(), "the filter is on the device"),
            _ => {}
        }
    }
}

//! What systemd is told: ready, alive, reloading, stopping. Nothing where no service manager has asked.

use std::time::Instant;

use sd_notify::NotifyState;
use tracing::debug;

use crate::snapshot::Snapshot;

/// How often systemd hears that the loop turns, at most; it asks for once in 15 s (`WatchdogSec=30`).
const EVERY_SECONDS: u64 = 1;

/// Tells systemd that the loop turns, as long as it does.
pub(super) struct Alive {
    told: Option<Instant>,
}

impl Alive {
    pub(super) const fn new() -> Self {
        Self { told: None }
    }

    /// The loop has read the dataplane.
    pub(super) fn beat(&mut self, now: &Snapshot) {
        if self.told.is_some_and(|told| told.elapsed().as_secs() < EVERY_SECONDS) {
            return;
        }
        self.told = Some(Instant::now());
        let attached = now.interfaces.iter().filter(|interface| interface.protected.attached.is_some()).count();
        let status = format!("{}, on {attached} of {} interfaces", now.mode.label(), now.interfaces.len());
        tell(&[NotifyState::Watchdog, NotifyState::Status(&status)]);
    }
}

/// The daemon answers.
pub(super) fn ready() {
    tell(&[NotifyState::Ready]);
}

/// It reads its configuration file anew; [`ready`] ends that.
pub(super) fn reloading() {
    match NotifyState::monotonic_usec_now() {
        Ok(now) => tell(&[NotifyState::Reloading, now]),
        Err(error) => debug!(%error, "the clock"),
    }
}

/// It ends.
pub(super) fn stopping() {
    tell(&[NotifyState::Stopping]);
}

fn tell(states: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(states) {
        debug!(%error, "the service manager cannot be told");
    }
}

//! Who was here before what goes on now began: kept in the kernel while nothing goes on, so that it is there once somebody has to come first
//! ([ADR 0044](../../../../docs/adr/0044-known-first.md)).

use tracing::warn;

use crate::dataplane::{Dataplane, Verified, monotonic_ns};
use crate::detect::{Assessment, Vector};

/// How long somebody has to be verified until he was here before: longer than it takes until something is found to go on.
const EVERY_NS: u64 = 3_000_000_000;
/// How long after a start, in which a flood may go on that is not told yet.
const BEGINS_NS: u64 = 6_000_000_000;
/// How long after a flood over connections its machines, which are verified, are not taken for somebody who was here.
const AFTER_FLOOD_NS: u64 = 600_000_000_000;
/// How old it may be: of those who came since, none is known.
const FRESH_NS: u64 = 3_600_000_000_000;

/// Who was verified a while ago, and when that was.
pub(super) struct Known {
    then: Option<(Verified, u64)>,
    /// When it was said last who was here.
    said_ns: Option<u64>,
    not_before_ns: u64,
    has_failed: bool,
}

impl Known {
    pub(super) fn new() -> Self {
        Self { then: None, said_ns: None, not_before_ns: monotonic_ns() + BEGINS_NS, has_failed: false }
    }

    /// Whether it is known who was here before.
    pub(super) fn is_fresh(&self, now_ns: u64) -> bool {
        self.said_ns.is_some_and(|said_ns| now_ns.saturating_sub(said_ns) < FRESH_NS)
    }

    /// Says who was here some seconds ago, where nothing has gone on since.
    pub(super) fn keep(&mut self, dataplane: &mut Dataplane, assessment: &Assessment, now_ns: u64) {
        let is_over_connections = |vector: &Vector| matches!(vector, Vector::HttpFlood | Vector::SlowConnections);
        if assessment.vectors.iter().any(is_over_connections) {
            self.not_before_ns = now_ns + AFTER_FLOOD_NS;
        }
        if !assessment.is_quiet() || now_ns < self.not_before_ns {
            // Who has come meanwhile may be of it.
            self.then = None;
            return;
        }
        if self.then.as_ref().is_some_and(|(_, then_ns)| now_ns.saturating_sub(*then_ns) < EVERY_NS) {
            return;
        }
        let said = self.then.take().map(|(verified, _)| dataplane.set_known(&verified)).transpose();
        match said.and_then(|said| Ok((said, dataplane.verified()?))) {
            Ok((said, verified)) => {
                if said.is_some() {
                    (self.said_ns, self.has_failed) = (Some(now_ns), false);
                }
                self.then = Some((verified, now_ns));
            }
            Err(error) => {
                if !std::mem::replace(&mut self.has_failed, true) {
                    warn!(%error, "who was here before is not kept: nobody comes first for that in an overload");
                }
            }
        }
    }
}

//! Who was here before what goes on now began: kept in the kernel while nothing goes on, so that it is there once somebody has to come first
//! ([ADR 0044](../../../../docs/adr/0044-known-first.md)).

use tracing::warn;

use crate::dataplane::{Dataplane, Verified};

/// How long somebody has to be verified until he was here before: longer than it takes until something is found to go on.
const EVERY_NS: u64 = 3_000_000_000;

/// Who was verified a while ago, and when that was.
#[derive(Default)]
pub(super) struct Known {
    then: Option<(Verified, u64)>,
    has_failed: bool,
}

impl Known {
    /// Says who was here some seconds ago, where nothing has gone on since.
    pub(super) fn keep(&mut self, dataplane: &mut Dataplane, is_quiet: bool, now_ns: u64) {
        if !is_quiet {
            // Who has come meanwhile may be of it.
            self.then = None;
            return;
        }
        if self.then.as_ref().is_some_and(|(_, then_ns)| now_ns.saturating_sub(*then_ns) < EVERY_NS) {
            return;
        }
        let then = self.then.take();
        let kept = then.map_or(Ok(()), |(verified, _)| dataplane.set_known(&verified));
        match kept.and_then(|()| dataplane.verified()) {
            Ok(verified) => (self.then, self.has_failed) = (Some((verified, now_ns)), false),
            Err(error) => {
                if !std::mem::replace(&mut self.has_failed, true) {
                    warn!(%error, "who was here before is not kept: nobody comes first in an overload");
                }
            }
        }
    }
}

//! What people have said of measures that are taken by themselves, and what else is no fault of theirs.

use std::sync::PoisonError;
use std::sync::atomic::Ordering;

use floodwall_common::cookie::CookieMode;
use ipnet::IpNet;

use super::Daemon;
use crate::configuration::{Source, VerdictName};
use crate::dataplane::monotonic_ns;

/// Prefixes that are pardoned at most in an incident.
const PARDONED: usize = 4_096;
/// How long after a moment without the memory of what was sent what needs it may be gone for that.
const LACKED_NS: u64 = 3_000_000_000;

impl Daemon {
    /// What the file has drop is the operator's, whoever armed it first.
    pub(super) fn claim_for_file(&self, source: &Source) {
        for (reason, verdict) in source.configuration.policy.iter().flatten() {
            if *verdict == VerdictName::Drop {
                self.automatic.claim(reason.0.label());
            }
        }
        if source.configuration.cookies.as_ref().is_some_and(|cookies| cookies.mode.0 == CookieMode::Auto) {
            self.automatic.claim_cookies();
        }
    }

    /// Whom an operator takes off the deny list is not put there again while the incident lasts.
    pub(super) fn pardon(&self, prefixes: &[IpNet]) {
        let mut pardoned = self.pardoned.lock().unwrap_or_else(PoisonError::into_inner);
        let room = PARDONED.saturating_sub(pardoned.len());
        pardoned.extend(prefixes.iter().take(room));
    }

    pub(super) fn pardoned(&self) -> Vec<IpNet> {
        self.pardoned.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(super) fn end_pardons(&self) {
        self.pardoned.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }

    /// Whether it was not seen a moment ago what is sent, so that what needs that was let go of.
    pub(super) fn lacked_memory(&self) -> bool {
        let at_ns = self.lacked_memory_ns.load(Ordering::Relaxed);
        at_ns != 0 && monotonic_ns().saturating_sub(at_ns) < LACKED_NS
    }
}

//! Kind and reason in one number, for the packet path: a constant in each leaf of the parser, an index at the exit.

use crate::class::{Class, Family, Kind};
use crate::reason::{REASON_SLOTS, Reason};
use crate::verifier;

/// Kind and reason of a packet. It stays in one register where two bytes in a structure would lie on the stack.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Outcome(u64);

impl Outcome {
    const REASON: u64 = REASON_SLOTS as u64 - 1;

    #[inline(always)]
    pub(crate) const fn new(kind: Kind, reason: Reason) -> Self {
        Self(kind.index() as u64 * REASON_SLOTS as u64 + reason as u64)
    }

    #[inline(always)]
    pub(crate) const fn ip(family: Family, class: Class, reason: Reason) -> Self {
        Self::new(Kind::new(family, class), reason)
    }

    /// The same packet, for another reason.
    #[inline(always)]
    pub(crate) const fn because(self, reason: Reason) -> Self {
        Self(self.0 & !Self::REASON | reason as u64)
    }

    /// The same, but the verifier does not know which: what follows is then walked once and not once per leaf of the
    /// parser.
    #[inline(always)]
    pub(crate) fn forgotten(self, noise: u64) -> Self {
        Self(verifier::forget(self.0, noise))
    }

    #[inline(always)]
    pub(crate) const fn is(self, reason: Reason) -> bool {
        self.0 & Self::REASON == reason as u64
    }

    #[inline(always)]
    pub(crate) const fn reason(self) -> Reason {
        // SAFETY: `new` and `because` are the only ways in, and they put a reason there.
        unsafe { core::mem::transmute::<u8, Reason>((self.0 & Self::REASON) as u8) }
    }

    #[inline(always)]
    pub(crate) const fn kind(self) -> Kind {
        Kind::from_masked(self.0 / REASON_SLOTS as u64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kind_and_reason_read_back() {
        for kind in Kind::all_ip().chain([Kind::NOT_IP]) {
            for reason in Reason::ALL {
                let outcome = Outcome::new(kind, Reason::Martian).because(*reason);
                assert_eq!((outcome.kind(), outcome.reason()), (kind, *reason));
                assert!(outcome.is(*reason));
            }
        }
    }
}

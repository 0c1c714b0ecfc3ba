//! Canaries at work: while a signature that detection has armed drops something, a slice of it is left open now and then.

use std::time::Duration;

use floodwall_common::replies::SPAN;
use floodwall_common::signatures::{Action, Range, Shape};
use tracing::{debug, error};

use super::super::Daemon;
use crate::dataplane::{Dataplane, Signature, monotonic_ns};
use crate::detect::{Observed, Vector, Window};
use crate::exit::describe;
use crate::respond::{Found, InForce, Measure, OPEN_NS, Seen, around, automatic_name, slice, suits};

/// How long a signature has to be in force for the first, and what comes between two.
const FIRST_NS: u64 = 5_000_000_000;
const EVERY_NS: u64 = 30_000_000_000;
/// A signature that has dropped nothing for so long has nothing to be asked of.
const USED_NS: u64 = 2_000_000_000;
/// How long whom a slice was open to may be remembered as spoken with.
const FORGOTTEN_NS: u64 = OPEN_NS + (2 << SPAN.generation_bits);
/// What suits a signature above its slice, while that is open, and when that ends where nobody ends it.
const ABOVE: &str = "auto-canary";
const ENDS: Duration = Duration::from_secs(4);

/// A slice that is open.
struct Open {
    vector: Vector,
    found: Found,
    slice: Range,
    since_ns: u64,
}

/// Slices, one after the other.
#[derive(Default)]
pub(super) struct Canaries {
    turn: u16,
    due_ns: u64,
    open: Option<Open>,
    /// Slices that this host has answered lately, of what, and when they were opened.
    answered: Vec<(Shape, Range, u64)>,
}

impl Canaries {
    /// Whether a packet that was dropped is in a slice that has been open lately: that this host speaks with whom it is from comes of that.
    pub(super) fn had_let_in(&self, packet: &Observed) -> bool {
        let is_in = |slice: &Range| packet.ports.is_some_and(|(from, _)| slice.has(from));
        self.answered.iter().any(|(shape, slice, _)| is_in(slice) && suits(shape, packet))
    }

    /// Opens a slice where that is due, or closes the one that is open. A signature that drops clients, and their share of what it drops.
    /// `seen_by` is the window, and whether a packet is from a verified source.
    pub(super) fn tick(
        &mut self,
        daemon: &Daemon,
        in_force: &[InForce],
        seen_by: (&Window, &dyn Fn(&Observed) -> bool),
        now_ns: u64,
    ) -> Option<(Measure, f64)> {
        if let Some(open) = self.open.take_if(|open| now_ns.saturating_sub(open.since_ns) >= OPEN_NS) {
            return close(daemon, open, seen_by);
        }
        if self.open.is_none() && now_ns >= self.due_ns && daemon.options.canary {
            self.open(daemon, in_force, now_ns);
        }
        None
    }

    /// Each time of another signature.
    fn open(&mut self, daemon: &Daemon, in_force: &[InForce], now_ns: u64) {
        let asked = in_force.iter().filter_map(|present| match &present.measure {
            Measure::Signature(vector, found) if present.is_used(now_ns, FIRST_NS, USED_NS) => {
                Some((*vector, found.clone(), slice(&found.shape, self.turn)?))
            }
            _ => None,
        });
        let asked: Vec<_> = asked.collect();
        let Some((vector, found, slice)) = asked.get(usize::from(self.turn) % asked.len().max(1)).cloned() else {
            return;
        };
        self.turn = self.turn.wrapping_add(1);
        self.due_ns = now_ns + EVERY_NS;
        match change(&mut daemon.dataplane(), vector, &found, Some(slice)) {
            Ok(true) => {
                let since_ns = monotonic_ns();
                self.answered.retain(|(.., opened_ns)| since_ns.saturating_sub(*opened_ns) < FORGOTTEN_NS);
                self.answered.push((found.shape, slice, since_ns));
                self.open = Some(Open { vector, found, slice, since_ns });
            }
            Ok(false) => {}
            Err(failed) => error!(error = describe(&failed), "no slice of a signature can be left open"),
        }
    }
}

/// Closes a slice, and says what was seen of it in its last second: what came before may not have been answered yet.
fn close(
    daemon: &Daemon,
    open: Open,
    (window, is_verified): (&Window, &dyn Fn(&Observed) -> bool),
) -> Option<(Measure, f64)> {
    let Open { vector, found, slice, since_ns } = open;
    if let Err(failed) = change(&mut daemon.dataplane(), vector, &found, None) {
        error!(error = describe(&failed), "a slice of a signature cannot be closed: it ends with the signature");
    }
    let seen = Seen::of(window, (&found.shape, slice), since_ns, is_verified);
    let name = automatic_name(vector, &found);
    debug!(name, all = seen.all, of_clients = seen.of_clients, "canary");
    Some((Measure::Signature(vector, found), seen.too_many()?))
}

/// Leaves a slice of a signature open, or closes it. `false` where the signature is not there.
fn change(dataplane: &mut Dataplane, vector: Vector, found: &Found, slice: Option<Range>) -> anyhow::Result<bool> {
    let (clock, generation) = (dataplane.clock()?, dataplane.config()?.generation);
    let (name, mut wanted) = (automatic_name(vector, found), dataplane.signatures()?);
    wanted.retain(|signature| signature.is_live(clock.now()) && signature.name != ABOVE);
    let Some(present) = wanted.iter_mut().find(|signature| signature.name == name) else { return Ok(false) };
    // It keeps its number, its hits and its end.
    match slice.map(|slice| around(&found.shape, slice)) {
        None => present.shape = found.shape,
        Some([below, above]) => {
            present.shape = below;
            wanted.push(Signature::new(ABOVE, above, Action::Drop, Some(clock.after(ENDS)), "beside a canary"));
        }
    }
    dataplane.install_signatures(&wanted, generation)?;
    Ok(true)
}

#[cfg(test)]
mod tests {
    use floodwall_common::signatures::Fragment;

    use super::*;

    /// A flood from the same ports again and again is answered while its slice is open, and remembered for that.
    #[test]
    fn what_a_slice_let_in_is_known_by_its_ports_and_what_it_suits() {
        let shape = Shape { protocol: 17, fragments: 1 << Fragment::None as u8, ..Shape::ANY };
        let slice = slice(&shape, 0).unwrap();
        let canaries = Canaries { answered: vec![(shape, slice, 0)], ..Canaries::default() };
        let from = |port: u16| Observed { protocol: 17, flags: None, ..Observed::segment(1, port, 0, 0) };
        assert!(canaries.had_let_in(&from(slice.first)) && canaries.had_let_in(&from(slice.last)));
        assert!(!canaries.had_let_in(&from(slice.first - 1)) && !canaries.had_let_in(&from(slice.last + 1)));
        assert!(!canaries.had_let_in(&Observed { protocol: 6, ..from(slice.first) }), "it is of something else");
        assert!(!Canaries::default().had_let_in(&from(slice.first)), "nothing was open");
    }
}

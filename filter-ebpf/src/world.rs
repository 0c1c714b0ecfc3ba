//! What a decision has to know, answered by the maps.

use floodwall_common::abi::CpuState;
use floodwall_common::clock::Moment;
use floodwall_common::config::Config;
use floodwall_common::decide::World;
use floodwall_common::limiter::{self, Gate};
use floodwall_common::lists::{List, ListState};
use floodwall_common::meter::{Amount, Meter};
use floodwall_common::packet::{Frame, Source};
use floodwall_common::replies::Conversation;

use crate::{clock, maps};

/// The maps at the moment of a packet, on its CPU.
#[derive(Clone, Copy)]
pub(crate) struct Kernel {
    pub(crate) config: &'static Config,
    pub(crate) cpu: *mut CpuState,
    pub(crate) now: Moment,
}

impl Kernel {
    #[inline(always)]
    pub(crate) fn now() -> Option<Self> {
        let now = clock::now();
        Some(Self::at(maps::this_cpu()?, now))
    }

    #[inline(always)]
    pub(crate) fn at(cpu: *mut CpuState, now: Moment) -> Self {
        Self { config: maps::config(), cpu, now }
    }
}

impl World<'static> for Kernel {
    #[inline(always)]
    fn config(&self) -> &'static Config {
        self.config
    }

    #[inline(always)]
    fn lists(&self) -> ListState {
        // SAFETY: a live word; volatile, as the compiler could read it anew at each use else, and a packet that is on the
        // way while the lists change would be judged by the old ones first and by the new ones then.
        unsafe { (&raw const self.config.lists).read_volatile() }
    }

    #[inline(always)]
    fn is_listed(&mut self, list: List, source: Source, lists: ListState) -> bool {
        maps::listed(list, source, lists).is_some_and(|entry| entry.is_live(self.now))
    }

    #[inline(always)]
    fn may_be_listed(&mut self, source: Source) -> bool {
        maps::may_be_listed(source, self.lists())
    }

    #[inline(always)]
    fn is_unsolicited(&mut self, frame: Frame<'_>) -> bool {
        let claimed = maps::amplifiers().and_then(|ports| Conversation::of_reply(frame, ports));
        let Some(conversation) = claimed else {
            return false;
        };
        let trace = conversation.trace(&self.config.key);
        maps::sent(trace).is_some_and(|line| !line.remembers(trace, self.now))
    }

    #[inline(always)]
    fn admit(&mut self, key: u64, amount: Amount, meter: &Meter) -> bool {
        let place = self.config.key.place(meter.secret(), key);
        // SAFETY: the cell is inside the gate by its mask, and only this CPU touches its gate.
        let cell = unsafe { &mut (&mut (*self.cpu).gate)[place.cell()] };
        if limiter::pass_open_gate(cell, amount.on(meter), meter, self.now) {
            return true;
        }
        let stays_over = limiter::stays_over(cell, maps::likely_entry(place), place, meter, self.now);
        !stays_over && ask(cell, key, amount, meter, self.now)
    }
}

/// Asks the table for a packet that the gate does not let pass by itself. A function of its own, so that the common path
/// keeps its registers to itself.
#[inline(never)]
fn ask(cell: &mut u32, key: u64, amount: Amount, meter: &Meter, now: Moment) -> bool {
    let cost = amount.on(meter);
    match limiter::pass_gate(cell, cost, meter, now) {
        Gate::Pass => true,
        Gate::Ask { charge } => {
            let place = maps::config().key.place(meter.secret(), key);
            limiter::pass_table(maps::bucket(place), place, cost, charge, meter, now)
        }
    }
}

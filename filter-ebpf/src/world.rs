//! What a decision has to know, answered by the maps.

use floodwall_common::abi::CpuState;
use floodwall_common::class::Kind;
use floodwall_common::clock::Moment;
use floodwall_common::closer::{Closer, Memory};
use floodwall_common::config::Config;
use floodwall_common::decide::World;
use floodwall_common::hash::{HashKey, Place};
use floodwall_common::limiter::{self, Gate};
use floodwall_common::lists::{List, ListState};
use floodwall_common::meter::{Amount, Meter};
use floodwall_common::packet::{Frame, Source};
use floodwall_common::replies::{self, Conversation, PortSet};
use floodwall_common::services::PortTable;
use floodwall_common::{closer, first_syn, verified};

use crate::{clock, maps};

/// The maps at the moment of a packet, on its CPU.
pub(crate) struct Kernel {
    pub(crate) config: &'static Config,
    pub(crate) cpu: *mut CpuState,
    pub(crate) now: Moment,
    lists: ListState,
}

impl Kernel {
    #[inline(always)]
    pub(crate) fn now() -> Option<Self> {
        Some(Self::at(maps::this_cpu()?, clock::now()))
    }

    #[inline(always)]
    pub(crate) fn at(cpu: *mut CpuState, now: Moment) -> Self {
        let config = maps::config();
        // SAFETY: a live word; volatile, as each look-up would read it anew else, and a packet that is on the way while
        // the lists change would be judged by the old ones first and by the new ones then.
        let lists = unsafe { (&raw const config.lists).read_volatile() };
        Self { config, cpu, now, lists }
    }
}

impl World<'static> for Kernel {
    #[inline(always)]
    fn config(&self) -> &'static Config {
        self.config
    }

    #[inline(always)]
    fn lists(&self) -> ListState {
        self.lists
    }

    #[inline(always)]
    fn is_listed(&mut self, list: List, source: Source) -> bool {
        maps::listed(list, source, self.lists).is_some_and(|entry| entry.is_live(self.now))
    }

    #[inline(always)]
    fn may_be_listed(&mut self, source: Source) -> bool {
        maps::may_be_listed(source, self.lists)
    }

    #[inline(always)]
    fn look_closer(&mut self, frame: Frame<'_>, key: u64, kind: Kind) -> Closer {
        let (start, end, bytes) = frame.to_raw();
        Closer::from_bits(look_closer(start, end, bytes, key, kind))
    }

    #[inline(always)]
    fn admit(&mut self, key: u64, amount: Amount, meter: &Meter) -> bool {
        let place = self.config.key.place(meter.secret(), key);
        // SAFETY: the cell is inside the gate by its mask, and only this CPU touches its gate.
        let cell = unsafe { &mut (&mut (*self.cpu).gate)[place.cell()] };
        if limiter::pass_open_gate(cell, amount.on(meter), meter, self.now) {
            return true;
        }
        let stays_over =
            maps::bucket(place).is_some_and(|bucket| limiter::stays_over(cell, bucket, place, meter, self.now));
        !stays_over && ask(cell, place, amount, meter, self.now)
    }
}

/// A function of its own: the verifier then knows nothing of how its answer came about, and walks what follows once.
#[inline(never)]
fn look_closer(start: usize, end: usize, bytes: u32, key: u64, kind: Kind) -> u64 {
    let (Some(amplifiers), Some(services)) = (maps::amplifiers(), maps::services()) else {
        return Closer::NOTHING.to_bits();
    };
    // SAFETY: the range of the frame that the caller has.
    let frame = unsafe { Frame::from_raw(start, end, bytes) };
    let config = maps::config();
    let memory = Memories { key: &config.key, now: clock::now(), amplifiers, services };
    closer::look_closer(frame, key, config.meters(kind), &memory).to_bits()
}

/// The memories in the maps at the moment of a packet.
struct Memories {
    key: &'static HashKey,
    now: Moment,
    amplifiers: &'static PortSet,
    services: &'static PortTable,
}

impl Memory for Memories {
    #[inline(always)]
    fn has_sent(&self, conversation: Conversation) -> bool {
        let trace = conversation.trace(self.key);
        // The line is there; a filter that cannot look passes.
        maps::sent(trace).is_none_or(|line| line.remembers(trace, self.now, replies::SPAN))
    }

    #[inline(always)]
    fn is_verified(&self, key: u64) -> bool {
        let trace = verified::trace(self.key, key);
        maps::verified(trace).is_some_and(|line| line.remembers(trace, self.now, verified::SPAN))
    }

    #[inline(always)]
    fn is_first_syn(&self, connection: Conversation) -> bool {
        let trace = connection.trace(self.key);
        maps::first_syns(trace).is_some_and(|line| first_syn::is_first(line, trace, self.now))
    }

    #[inline(always)]
    fn amplifiers(&self) -> &PortSet {
        self.amplifiers
    }

    #[inline(always)]
    fn services(&self) -> &PortTable {
        self.services
    }
}

/// Asks the table for a packet that the gate does not let pass by itself. A function of its own, so that the common path
/// keeps its registers to itself.
#[inline(never)]
fn ask(cell: &mut u32, place: Place, amount: Amount, meter: &Meter, now: Moment) -> bool {
    let cost = amount.on(meter);
    match limiter::pass_gate(cell, cost, meter, now) {
        Gate::Pass => true,
        Gate::Ask { charge } => match maps::bucket(place) {
            Some(bucket) => limiter::pass_table(bucket, place, cost, charge, meter, now),
            // The bucket is there; a filter that cannot look passes.
            None => true,
        },
    }
}

//! What a decision has to know, answered by the maps.

use floodwall_common::abi::CpuState;
use floodwall_common::clock::Moment;
use floodwall_common::config::Config;
use floodwall_common::decide::World;
use floodwall_common::limiter::{self, Gate};
use floodwall_common::limits::{Cost, Meter};
use floodwall_common::lists::List;
use floodwall_common::packet::Source;

use crate::{clock, maps};

/// The maps at the moment of a packet, on its CPU.
pub(crate) struct Kernel {
    pub(crate) config: &'static Config,
    pub(crate) cpu: *mut CpuState,
    pub(crate) now: Moment,
}

impl Kernel {
    #[inline(always)]
    pub(crate) fn now() -> Option<Self> {
        Some(Self { config: maps::config(), cpu: maps::this_cpu()?, now: clock::now() })
    }
}

impl World<'static> for Kernel {
    #[inline(always)]
    fn config(&self) -> &'static Config {
        self.config
    }

    #[inline(always)]
    fn is_listed(&mut self, list: List, source: Source) -> bool {
        maps::listed(list, source, self.config.lists).is_some_and(|entry| entry.is_live(self.now))
    }

    #[inline(always)]
    fn admit(&mut self, key: u64, cost: Cost, meter: &Meter) -> bool {
        let place = self.config.key.place(meter.secret(), key);
        // SAFETY: the cell is inside the gate by its mask, and only this CPU touches its gate.
        let cell = unsafe { &mut (&mut (*self.cpu).gate)[place.cell()] };
        match limiter::pass_gate(cell, cost, meter, self.now) {
            Gate::Pass => true,
            Gate::Ask { charge } => match maps::bucket(place) {
                Some(bucket) => limiter::pass_table(bucket, place, cost, charge, meter, self.now),
                // The bucket is there; a filter that cannot look passes.
                None => true,
            },
        }
    }
}

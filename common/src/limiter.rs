//! The rate limiter: who may send another packet now.
//!
//! Two stages, both meters of arrival times (GCRA), in fixed memory, without a lock, an allocation or an eviction list.
//!
//! 1. **Gate**, per CPU: [`GATE_CELLS`] cells of 32 bits. A cell holds the arrival time of everything that hashes there,
//!    each packet costing `cpus` times its share, so that a source spread over all CPUs still trips it. Up to a quarter
//!    of the tolerance the gate passes by itself, and the table is not touched: a flood from random sources inserts
//!    nothing anywhere. Beyond it the cell is pinned while traffic lasts, and the table decides.
//! 2. **Source table**, shared: [`BUCKETS`] cache lines of 8 entries of 24 bits of tag and 40 bits of arrival time. An
//!    entry in the past is the same as none, so nothing ever has to be collected; the victim is the entry with the
//!    least debt, so a flood evicts those who owe nothing. Over the limit is read-only.
//!
//! What it can cost:
//! - *Collision in the gate*: none in verdicts. Pinned neighbours only send a source to the table, where the first
//!   one of them to cross is charged once what the gate may have let through: a quarter of the tolerance by the share
//!   of one CPU, or one packet.
//! - *Collision in the table* (same bucket, same tag: 2^-38 a pair, not choosable without the key): two sources share
//!   one limit while both are active.
//! - *More than 131,072 sources over their limit at once*: the least indebted lose their entry and begin anew, so the
//!   table errs towards passing.
//! - *What the gate lets pass below its threshold is not charged.* A source that stops for a second whenever it is pinned
//!   gets up to 1.25 of its limit; one that spreads its packets unevenly over CPUs, most on one and a little on each
//!   other, up to 1.5. A source that keeps sending on one CPU, or evenly on all, gets its limit within 2 %.
//! - *A race of CPUs* on one source is settled by compare-and-swap, tried four times; a packet that loses them all passes
//!   uncharged. Bound kept by a test: two CPUs pass at most 1.03 of limits up to 5,000/s.
//! - *Wrap*: an entry that nobody touched for 4.9 h (its tag still in place) can be taken for a debt of less than twice the
//!   tolerance. The source then waits that long at most. Entries that nobody touched for 4.3 to 4.9 h look indebted when a
//!   victim is chosen: where seven of them fill a line, new sources there share one entry meanwhile. A cell that nobody
//!   touched for 73 min can look indebted: its next packet asks the table, and is charged once.

use core::cell::UnsafeCell;

use crate::atomic;
use crate::clock::Moment;
use crate::hash::Place;
use crate::meter::{Cost, GATE_LONGEST, Meter};
use crate::verifier::if_at_most;

/// Cells in the gate of one CPU (128 KiB).
pub const GATE_CELLS: usize = 1 << 15;
/// Cache lines in the source table.
pub const BUCKETS: usize = 1 << 14;
/// Entries in a cache line.
pub const WAYS: usize = 8;

pub(crate) const TIME_BITS: u32 = 40;
pub(crate) const TIME_MASK: u64 = (1 << TIME_BITS) - 1;

/// How long a cell stays pinned after its last packet, about 1 s in 2,048 ns units.
const GATE_HOLD: u32 = 1 << 19;
/// The furthest ahead that a live cell can be, 252 s of 4,398: any later time is a stale cell.
const GATE_WINDOW: u32 = 2 * GATE_LONGEST + 2 * GATE_HOLD;
/// Half of all times: a pinned cell is one that lies so far ahead, and so above every threshold.
const PINNED: u32 = 1 << 31;
/// The most that any meter lets a source owe, 2,199 s of 17,592 s.
const MOST_OWED: u64 = 1 << 37;
/// How often an update that another CPU overtook is tried.
const ATTEMPTS: u32 = 4;

/// A cache line of the source table: entries of tag and arrival time. All zero is empty.
#[repr(C, align(64))]
pub struct Bucket(UnsafeCell<[u64; WAYS]>);

// SAFETY: entries are read whole and changed only by compare-and-swap.
unsafe impl Sync for Bucket {}

impl Bucket {
    /// A bucket with nobody in it.
    pub const fn empty() -> Self {
        Self(UnsafeCell::new([0; WAYS]))
    }

    #[inline(always)]
    fn load(&self, way: usize) -> u64 {
        // SAFETY: in bounds by the mask; entries are only ever written whole, by compare-and-swap.
        unsafe { self.entry(way).read_volatile() }
    }

    #[inline(always)]
    fn entry(&self, way: usize) -> *mut u64 {
        // SAFETY: the mask keeps the pointer inside the bucket.
        unsafe { self.0.get().cast::<u64>().add(way & (WAYS - 1)) }
    }

    #[inline(always)]
    fn replace(&self, way: usize, expected: u64, new: u64) -> bool {
        // SAFETY: `entry` points into this live bucket, and nothing writes entries but this.
        unsafe { atomic::replace(self.entry(way), expected, new) }
    }
}

/// The debt of an arrival time: how far it lies ahead of `now`. What lies further ahead than this meter can have put
/// it is a stale time that the wrap has turned around, and owes nothing.
#[inline(always)]
const fn debt(entry: u64, now: u64, meter: &Meter) -> u64 {
    let ahead = entry.wrapping_sub(now) & TIME_MASK;
    if ahead > meter.stale() { 0 } else { ahead }
}

/// What the gate says to a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Gate {
    /// Passes.
    Pass,
    /// The table decides, and is charged this for what the gate had let pass.
    Ask {
        /// In 16 ns units.
        charge: u64,
    },
}

/// First stage: may a packet of this cost pass without asking the table? `cell` is its source's cell on this CPU.
#[inline(always)]
pub fn pass_gate(cell: &mut u32, cost: Cost, meter: &Meter, now: Moment) -> Gate {
    if pass_open_gate(cell, cost, meter, now) { Gate::Pass } else { ask_table(cell, cost, meter, now) }
}

/// The common case of [`pass_gate`]: whether the packet passes at once. Where not, nothing has changed.
#[inline(always)]
pub fn pass_open_gate(cell: &mut u32, cost: Cost, meter: &Meter, now: Moment) -> bool {
    let debt = gate_debt(*cell, now);
    let passes = debt <= meter.gate_tau();
    if passes {
        *cell = now.gate_units().wrapping_add(debt).wrapping_add(cost.gate);
    }
    passes
}

/// How far a cell lies ahead of now, with [`PINNED`] where it is.
#[inline(always)]
fn gate_debt(cell: u32, now: Moment) -> u32 {
    let ahead = cell.wrapping_sub(now.gate_units());
    // Under a flood from random sources a cell is as often in debt as not: a branch would be mispredicted every other time.
    if_at_most(u64::from(ahead), u64::from(ahead & !PINNED), u64::from(GATE_WINDOW)) as u32
}

#[inline(always)]
fn ask_table(cell: &mut u32, cost: Cost, meter: &Meter, now: Moment) -> Gate {
    let (debt, now) = (gate_debt(*cell, now), now.gate_units());
    if debt == PINNED {
        *cell = now.wrapping_add(cost.gate);
        return Gate::Pass;
    }
    // A pinned cell goes on asking until its time is up: unpinned at the threshold, it would trip again at once, and
    // charge again for what it had not let pass.
    let (pinned, debt) = (debt & PINNED != 0, debt & !PINNED);
    let held = meter.gate_tau() + GATE_HOLD;
    if !pinned || debt < stays_pinned(meter) {
        *cell = now.wrapping_add(if debt > held { debt } else { held }) ^ PINNED;
    }
    if pinned {
        return Gate::Ask { charge: 0 };
    }
    // At least the one packet that the gate lets pass whatever it costs.
    let passed = if meter.gate_charge() > cost.exact { meter.gate_charge() } else { cost.exact };
    Gate::Ask { charge: passed }
}

/// The common case of both stages for the hot source of a flood: whether they refuse the packet and change nothing. The
/// cell stays pinned without help, and the entry that lies where the source is looked for first is its own.
#[inline(always)]
pub fn stays_over(cell: &u32, likely: u64, place: Place, meter: &Meter, now: Moment) -> bool {
    gate_debt(*cell, now) >= PINNED + stays_pinned(meter)
        && place.owns(likely)
        && debt(likely, now.units(), meter) > meter.tau()
}

/// The same of a line of the table, for who is not in the kernel half.
#[inline(always)]
pub fn refuses(cell: &u32, bucket: &Bucket, place: Place, meter: &Meter, now: Moment) -> bool {
    stays_over(cell, bucket.load(place.likely()), place, meter, now)
}

/// The debt from which on a packet does not prolong how long its cell is pinned.
#[inline(always)]
const fn stays_pinned(meter: &Meter) -> u32 {
    meter.gate_tau() + GATE_HOLD / 2
}

/// Second stage: may it, by all that its source has sent? `bucket` is the source's line in the table.
#[inline(always)]
pub fn pass_table(bucket: &Bucket, place: Place, cost: Cost, charge: u64, meter: &Meter, now: Moment) -> bool {
    let (tag, now) = (place.tag(), now.units());
    let way = find(bucket, place, now);
    let mut attempt = 0;
    while attempt < ATTEMPTS {
        let entry = bucket.load(way);
        // Somebody else's entry, then, is the victim: this source owes nothing.
        let debt = if place.owns(entry) { debt(entry, now, meter) } else { 0 };
        if debt > meter.tau() {
            return false;
        }
        let arrival = (now + debt + cost.exact + charge) & TIME_MASK;
        if bucket.replace(way, entry, tag << TIME_BITS | arrival) {
            return true;
        }
        attempt += 1;
    }
    true
}

/// The way of a source; where it has none, its likely way if that owes nothing, else the way of the entry that owes least.
#[inline(always)]
fn find(bucket: &Bucket, place: Place, now: u64) -> usize {
    let likely = place.likely() & (WAYS - 1);
    if place.owns(bucket.load(likely)) {
        return likely;
    }
    let mut way = 0;
    while way < WAYS {
        if place.owns(bucket.load(way)) {
            return way;
        }
        way += 1;
    }
    // Whoever owes nothing there makes room, so that the next packet finds its entry at once.
    if owed(bucket.load(likely), now) == 0 {
        return likely;
    }
    // Under a flood the victim is random: a branch here would be mispredicted every other time.
    let rank = |way: usize| (owed(bucket.load(way), now) as i64) << 3 | way as i64;
    let mut least = rank(0);
    let mut way = 1;
    while way < WAYS {
        let difference = rank(way).wrapping_sub(least);
        least = least.wrapping_add(difference & (difference >> 63));
        way += 1;
    }
    least as usize & (WAYS - 1)
}

/// What an entry owes, whoever's it is. What is further ahead than any meter can have put it is long past.
#[inline(always)]
fn owed(entry: u64, now: u64) -> u64 {
    if entry == 0 {
        return 0;
    }
    let ahead = entry.wrapping_sub(now) & TIME_MASK;
    if_at_most(ahead, ahead, MOST_OWED)
}

/// What the table knows of a source, for `explain`: its debt in nanoseconds, and whether it has an entry at all.
pub fn inspect(bucket: &Bucket, place: Place, meter: &Meter, now: Moment) -> Option<u64> {
    (0..WAYS)
        .map(|way| bucket.load(way))
        .find(|entry| *entry != 0 && place.owns(*entry))
        .map(|entry| debt(entry, now.units(), meter) * 16)
}

/// Whether an entry of the table belongs to a source that owes something at `now`: for occupancy.
pub const fn is_live(entry: u64, now: Moment) -> bool {
    let ahead = entry.wrapping_sub(now.units()) & TIME_MASK;
    entry != 0 && ahead != 0 && ahead <= TIME_MASK / 2
}

//! The counters of the kernel half, summed over CPUs.

use floodwall_common::abi::{Counter, SAMPLE_STREAMS};
use floodwall_common::class::{KIND_SLOTS, Kind};
use floodwall_common::clock::Moment;
use floodwall_common::limiter::{BUCKETS, Bucket, WAYS, is_live};
use floodwall_common::reason::{REASON_SLOTS, Reason, Verdict};
use floodwall_common::signatures::SIGNATURES;

use super::Dataplane;

/// Packets of one reason, kind and verdict on one interface since the maps were made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cell {
    /// What became of them: in monitor mode everything passes.
    pub verdict: Verdict,
    /// Their kind.
    pub kind: Kind,
    /// Their reason.
    pub reason: Reason,
    /// How many.
    pub packets: u64,
    /// Bytes of their frames.
    pub bytes: u64,
}

/// What became of samples, by stream, since the maps were made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SampleCounts {
    /// Samples that found the ring full.
    pub lost: [u64; SAMPLE_STREAMS],
    /// Packets of the stream, as estimated from those that were drawn.
    pub packets: [u64; SAMPLE_STREAMS],
}

impl Dataplane {
    /// The counters of a slot that are not zero.
    pub fn counters(&self, slot: u32) -> Vec<Cell> {
        let mut cells = Vec::new();
        for stopped in [false, true] {
            for kind in (0..KIND_SLOTS as u8).filter_map(Kind::from_index) {
                for reason in Reason::ALL {
                    let counter = self.sum(slot, stopped, kind, *reason);
                    if counter.packets > 0 {
                        let Counter { packets, bytes } = counter;
                        let verdict = reason.carried_out(stopped);
                        cells.push(Cell { verdict, kind, reason: *reason, packets, bytes });
                    }
                }
            }
        }
        cells
    }

    fn sum(&self, slot: u32, stopped: bool, kind: Kind, reason: Reason) -> Counter {
        const _: () = assert!(Reason::ALL.len() <= REASON_SLOTS);
        let mut sum = Counter::default();
        for cpu in self.cpus.iter() {
            let (slot, stopped) = (slot as usize, usize::from(stopped));
            // SAFETY: a live entry of the mapping, indexed inside its bounds; each word is read whole while its CPU may
            // add to it.
            unsafe {
                let counter = &raw const (*cpu).counters[slot][stopped][kind.index() as usize][reason as usize];
                sum.packets += (&raw const (*counter).packets).read_volatile();
                sum.bytes += (&raw const (*counter).bytes).read_volatile();
            }
        }
        sum
    }

    /// Packets that the signatures with this number have suited since the maps were made.
    pub(super) fn signature_counter(&self, number: usize) -> Counter {
        let mut sum = Counter::default();
        for cpu in self.cpus.iter() {
            // SAFETY: as in `sum`.
            unsafe {
                let counter = &raw const (*cpu).signatures[number & (SIGNATURES - 1)];
                sum.packets += (&raw const (*counter).packets).read_volatile();
                sum.bytes += (&raw const (*counter).bytes).read_volatile();
            }
        }
        sum
    }

    /// What became of samples.
    pub fn sample_counts(&self) -> SampleCounts {
        let mut counts = SampleCounts::default();
        for cpu in self.cpus.iter() {
            for stream in 0..SAMPLE_STREAMS {
                // SAFETY: as in `sum`.
                let sampler = unsafe { (&raw const (*cpu).samplers[stream]).read_volatile() };
                counts.lost[stream] += sampler.lost;
                counts.packets[stream] += sampler.packets;
            }
        }
        counts
    }

    /// Sources that owe something at `now`, and the places that there are.
    pub fn source_occupancy(&self, now: Moment) -> (u64, u64) {
        let live = self.sources.iter().map(|bucket| live_entries(bucket, now)).sum();
        (live, (BUCKETS * WAYS) as u64)
    }

    /// A line of the source table.
    pub fn source_bucket(&self, index: usize) -> Option<&Bucket> {
        // SAFETY: a live entry of the mapping; a bucket is read word by word, volatile.
        self.sources.entry(index).map(|bucket| unsafe { &*bucket })
    }
}

fn live_entries(bucket: *const Bucket, now: Moment) -> u64 {
    let words = bucket.cast::<u64>();
    // SAFETY: a bucket is `WAYS` words; each is read whole while the kernel half may replace it.
    (0..WAYS).filter(|way| is_live(unsafe { words.add(*way).read_volatile() }, now)).count() as u64
}

//! What was seen lately, in fixed memory: a Bloom filter of two generations.
//!
//! A memory is an array of [`Line`]s of two words: one for even generations of time, one for odd ones. What is remembered sets
//! four bits in the word of the present generation; what is asked for was there where one of the last two has all four. A word
//! holds the number of its generation, and whoever writes into it in a later one begins with an empty word. So it ages by
//! itself, what is still seen is kept for one to two generations, and nothing that is put in can make it forget. Too much of
//! it only makes it remember what never was.
//!
//! It is small, so that it stays near the CPU: a line that is not costs more than all else that is asked of a packet.
//!
//! *A race of CPUs* on one line is settled by compare-and-swap, tried four times; what loses them all is not remembered.
//! *Wrap*: a word that nobody wrote for 512 generations looks fresh for one.

use core::cell::UnsafeCell;

use crate::atomic;
use crate::clock::Moment;

/// Bits of a word that hold the number of its generation.
const NUMBER: u64 = 0xff;
/// Bits of a word that what is remembered sets.
const BITS: u32 = 4;
/// How often an update that another CPU overtook is tried.
const ATTEMPTS: u32 = 4;

/// How long a memory keeps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span {
    /// A generation is 2 to the power of this, in nanoseconds.
    pub generation_bits: u32,
}

impl Span {
    /// How long it keeps at least, in nanoseconds.
    pub const fn kept_ns(self) -> u64 {
        1 << self.generation_bits
    }

    #[inline(always)]
    const fn generation(self, now: Moment) -> u64 {
        now.ns() >> self.generation_bits
    }
}

/// The keyed hash of what is remembered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Trace(u64);

impl Trace {
    /// From a keyed hash. The low bits of a product know only the low bits of its factors: they are mixed with the high ones.
    #[inline(always)]
    pub(crate) const fn new(hash: u64) -> Self {
        Self(hash ^ hash >> 32)
    }

    /// Its line in a memory of so many, a power of two up to 2^24.
    #[inline(always)]
    pub const fn line(self, lines: usize) -> usize {
        self.0 as usize & (lines - 1)
    }

    /// One of some independent places in a line, below 64.
    #[inline(always)]
    pub(crate) const fn place(self, which: u32) -> u32 {
        (self.0 >> (24 + 8 * which)) as u32 & 63
    }

    /// Its bits in a word, above the number of the generation.
    #[inline(always)]
    const fn bits(self) -> u64 {
        let (mut bits, mut which) = (0, 0);
        while which < BITS {
            bits |= 1 << (8 + ((self.place(which) * 7) >> 3));
            which += 1;
        }
        bits
    }
}

/// A line of a memory. All zero is empty.
#[repr(C, align(16))]
pub struct Line(UnsafeCell<[u64; 2]>);

// SAFETY: words are read whole and changed only by compare-and-swap.
unsafe impl Sync for Line {}

impl Line {
    /// A line with nothing in it.
    pub const fn empty() -> Self {
        Self(UnsafeCell::new([0; 2]))
    }

    #[inline(always)]
    fn word(&self, generation: u64) -> *mut u64 {
        // SAFETY: the mask keeps the pointer inside the line.
        unsafe { self.0.get().cast::<u64>().add(generation as usize & 1) }
    }

    /// Remembers.
    #[inline(always)]
    pub fn remember(&self, trace: Trace, now: Moment, span: Span) {
        let generation = span.generation(now);
        let (word, number, bits) = (self.word(generation), generation >> 1 & NUMBER, trace.bits());
        let mut attempt = 0;
        while attempt < ATTEMPTS {
            // SAFETY: inside this live line.
            let then = unsafe { word.read_volatile() };
            let kept = if then & NUMBER == number { then } else { number };
            // Most find their bits there already: a line that is only read stays shared by all CPUs.
            // SAFETY: a live, aligned word that nothing writes but this.
            if kept | bits == then || unsafe { atomic::replace(word, then, kept | bits) } {
                return;
            }
            attempt += 1;
        }
    }

    /// Whether it is remembered, or looks as if it were.
    #[inline(always)]
    pub fn remembers(&self, trace: Trace, now: Moment, span: Span) -> bool {
        let (generation, bits) = (span.generation(now), trace.bits());
        let has = |generation: u64| {
            // SAFETY: inside this live line.
            let word = unsafe { self.word(generation).read_volatile() };
            (word ^ (bits | generation >> 1 & NUMBER)) & (bits | NUMBER) == 0
        };
        has(generation) || has(generation.wrapping_sub(1))
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::hash::HashKey;

    const KEY: HashKey = HashKey::new([0x2545_f491_4f6c_dd1d, 0xd129_0d3a_77e5_5a3b]);
    const SPAN: Span = Span { generation_bits: 36 };
    const GENERATION: u64 = 1 << 36;
    const NOON: u64 = 40_000 * GENERATION;

    /// A memory on the host.
    pub(crate) struct Memory {
        lines: Vec<Line>,
        span: Span,
    }

    impl Memory {
        pub(crate) fn new(lines: usize, span: Span) -> Self {
            Self { lines: (0..lines).map(|_| Line::empty()).collect(), span }
        }

        pub(crate) fn remember(&self, trace: Trace, now: u64) {
            self.lines[trace.line(self.lines.len())].remember(trace, Moment::from_ns(now), self.span);
        }

        pub(crate) fn remembers(&self, trace: Trace, now: u64) -> bool {
            self.lines[trace.line(self.lines.len())].remembers(trace, Moment::from_ns(now), self.span)
        }
    }

    fn trace(n: u64) -> Trace {
        Trace::new(KEY.scatter(n))
    }

    #[test]
    fn what_was_seen_is_remembered_for_its_time() {
        // Just after a generation began, and just before it ends.
        for (began, kept) in [(NOON, 2 * GENERATION - 1), (NOON + GENERATION - 1, GENERATION)] {
            let memory = Memory::new(1 << 10, SPAN);
            assert!(!memory.remembers(trace(1), began), "nothing yet");
            memory.remember(trace(1), began);
            for after in [0, 1, GENERATION / 2, kept] {
                assert!(memory.remembers(trace(1), began + after), "after {after}");
            }
            assert!(!memory.remembers(trace(1), began + kept + 1));
            memory.remember(trace(1), began + GENERATION);
            assert!(memory.remembers(trace(1), began + kept + 1), "seen again");
            assert!(!memory.remembers(trace(1), began + kept + 1 + GENERATION));
        }
    }

    #[test]
    fn a_generation_begins_with_an_empty_word() {
        let memory = Memory::new(1, SPAN);
        (0..100).for_each(|n| memory.remember(trace(n), NOON));
        memory.remember(trace(1), NOON + 2 * GENERATION);
        let left = (0..100).filter(|n| memory.remembers(trace(*n), NOON + 2 * GENERATION)).count();
        assert!(left < 5, "{left} of an earlier one");
    }

    #[test]
    fn all_that_was_seen_is_remembered_and_little_that_was_not() {
        for (seen, share) in [(10_000, 0.000_1), (100_000, 0.006), (200_000, 0.04)] {
            let memory = Memory::new(1 << 15, SPAN);
            for n in 0..seen {
                memory.remember(trace(n), NOON + n * 1_000);
            }
            let later = NOON + GENERATION + 1;
            assert!((0..seen).all(|n| memory.remembers(trace(n), later)));
            let others = seen..seen + 1_000_000;
            let matches = others.filter(|n| memory.remembers(trace(*n), later)).count();
            println!("{matches} of a million beside {seen}");
            assert!((matches as f64) < share * 1e6, "{matches} of a million beside {seen}");
        }
    }

    #[test]
    fn what_cpus_remember_at_once_is_all_remembered() {
        let memory = Memory::new(1, SPAN);
        std::thread::scope(|scope| {
            for cpu in 0..2 {
                let memory = &memory;
                scope.spawn(move || (0..4).for_each(|n| memory.remember(trace(cpu * 4 + n), NOON)));
            }
        });
        assert!((0..8).all(|n| memory.remembers(trace(n), NOON)));
    }
}

//! What was seen lately, in fixed memory: a Bloom filter whose bits are times.
//!
//! A memory is an array of [`Line`]s, a cache line of 32 cells each. What is remembered leaves the time in three cells of
//! one line; what is asked for was there where all three are young enough. It ages by itself, nothing is ever removed, and
//! nothing that is put in can make it forget. Too much of it only makes it remember what never was.
//!
//! *Wrap*: a cell that nobody touched for 2^16 units looks fresh for as long as it would be kept.

use core::cell::UnsafeCell;

use crate::clock::Moment;

/// Cells in a line.
pub const CELLS: usize = 32;

/// How far a clock may go back, in units.
const SLACK: u16 = 4;

/// How a memory counts time, and how long it keeps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span {
    /// A unit is 2 to the power of this, in nanoseconds. Times are odd numbers of them: an age is right to two.
    pub unit_bits: u32,
    /// Units after which nothing is remembered.
    pub kept: u16,
}

impl Span {
    /// How long it keeps, in nanoseconds.
    pub const fn kept_ns(&self) -> u64 {
        (self.kept as u64) << self.unit_bits
    }

    /// The time in a cell, never zero.
    #[inline(always)]
    const fn time(&self, now: Moment) -> u16 {
        ((now.ns() >> self.unit_bits) as u16) | 1
    }
}

/// The keyed hash of what is remembered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Trace(u64);

impl Trace {
    /// From a hash, all of whose bits count.
    #[inline(always)]
    pub(crate) const fn new(hash: u64) -> Self {
        Self(hash)
    }

    /// Its line in a memory of so many, a power of two up to 2^24.
    #[inline(always)]
    pub const fn line(self, lines: usize) -> usize {
        self.0 as usize & (lines - 1)
    }

    #[inline(always)]
    const fn cell(self, which: u32) -> usize {
        (self.0 >> (24 + 8 * which)) as usize & (CELLS - 1)
    }
}

/// A cache line of a memory. All zero is empty.
#[repr(C, align(64))]
pub struct Line(UnsafeCell<[u16; CELLS]>);

// SAFETY: cells are read and written whole, and of two writers at once each is right.
unsafe impl Sync for Line {}

impl Line {
    /// A line with nothing in it.
    pub const fn empty() -> Self {
        Self(UnsafeCell::new([0; CELLS]))
    }

    /// A copy of a line, to be looked at.
    pub const fn from_cells(cells: [u16; CELLS]) -> Self {
        Self(UnsafeCell::new(cells))
    }

    #[inline(always)]
    fn cell(&self, at: usize) -> *mut u16 {
        // SAFETY: the mask keeps the pointer inside the line.
        unsafe { self.0.get().cast::<u16>().add(at & (CELLS - 1)) }
    }

    /// Remembers.
    #[inline(always)]
    pub fn remember(&self, trace: Trace, now: Moment, span: Span) {
        let time = span.time(now);
        let mut which = 0;
        while which < 3 {
            let cell = self.cell(trace.cell(which));
            // SAFETY: inside this live line. Most find their time there already: a line that is only read stays shared by
            // all CPUs.
            unsafe {
                if cell.read_volatile() != time {
                    cell.write_volatile(time);
                }
            }
            which += 1;
        }
    }

    /// Units since it was last remembered, or looks as if it had been; `None` where it was not, or too long ago.
    #[inline(always)]
    pub fn age(&self, trace: Trace, now: Moment, span: Span) -> Option<u16> {
        let time = span.time(now);
        let mut oldest = 0;
        let mut which = 0;
        while which < 3 {
            // SAFETY: inside this live line.
            let then = unsafe { self.cell(trace.cell(which)).read_volatile() };
            // A clock that went back by a little is no reason to forget.
            let age = time.wrapping_sub(then).wrapping_add(SLACK);
            if then == 0 || age > span.kept + SLACK {
                return None;
            }
            // Others may have renewed a cell, but none is younger than what is asked for.
            if age > oldest {
                oldest = age;
            }
            which += 1;
        }
        Some(oldest.saturating_sub(SLACK))
    }

    /// Whether it is remembered, or looks as if it were.
    #[inline(always)]
    pub fn remembers(&self, trace: Trace, now: Moment, span: Span) -> bool {
        self.age(trace, now, span).is_some()
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::hash::HashKey;

    const KEY: HashKey = HashKey::new([0x2545_f491_4f6c_dd1d, 0xd129_0d3a_77e5_5a3b]);
    const SPAN: Span = Span { unit_bits: 30, kept: 60 };
    const SECOND: u64 = 1 << 30;
    const NOON: u64 = 40_000 * SECOND;

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

        pub(crate) fn age(&self, trace: Trace, now: u64) -> Option<u16> {
            self.lines[trace.line(self.lines.len())].age(trace, Moment::from_ns(now), self.span)
        }

        pub(crate) fn remembers(&self, trace: Trace, now: u64) -> bool {
            self.age(trace, now).is_some()
        }
    }

    fn trace(n: u64) -> Trace {
        Trace::new(KEY.scatter(KEY.scatter(n)))
    }

    #[test]
    fn what_was_seen_is_remembered_for_its_time() {
        let memory = Memory::new(1 << 10, SPAN);
        assert!(!memory.remembers(trace(1), NOON), "nothing yet");
        memory.remember(trace(1), NOON);
        for after in [0, 1, 30, 58] {
            assert!(memory.remembers(trace(1), NOON + after * SECOND), "after {after} s");
            let age = u64::from(memory.age(trace(1), NOON + after * SECOND).unwrap());
            assert!(age.abs_diff(after) < 2, "{age} after {after}");
        }
        assert!(memory.remembers(trace(1), NOON - SECOND), "a clock that went back");
        assert!(!memory.remembers(trace(1), NOON + 62 * SECOND));
        memory.remember(trace(1), NOON + 50 * SECOND);
        assert!(memory.remembers(trace(1), NOON + 100 * SECOND), "seen again");
    }

    #[test]
    fn all_that_was_seen_is_remembered_and_little_that_was_not() {
        for (seen, share) in [(10_000, 0.000_6), (100_000, 0.04)] {
            let memory = Memory::new(1 << 15, SPAN);
            for n in 0..seen {
                memory.remember(trace(n), NOON + n * 1_000);
            }
            assert!((0..seen).all(|n| memory.remembers(trace(n), NOON + 20 * SECOND)));
            let others = seen..seen + 1_000_000;
            let matches = others.filter(|n| memory.remembers(trace(*n), NOON + 20 * SECOND)).count();
            assert!((matches as f64) < share * 1e6, "{matches} of a million beside {seen}");
            println!("{matches} of a million beside {seen}");
        }
    }
}

//! Whether somebody asks twice: a client whose SYN is lost sends it again after a second, most flooding tools do not.
//!
//! While this is armed, the first SYN of a connection is dropped and remembered; the same from [`AGAIN`] on passes. It
//! costs each new connection of an unverified source about a second.
//!
//! The memory is a Bloom filter whose bits are times: an array of [`Line`]s, a cache line of 32 cells each. A SYN leaves the
//! time in three cells of one line; it was there before where all three are young enough.
//!
//! What it can cost ([`LINES`] lines, 2 MiB): every forged SYN leaves a trace too, for eight
//! seconds. Beside 20,000 of them a second 6 % of first SYNs look like second ones and pass, beside 100,000 it is 73 % (a
//! test): it errs towards passing, and SYN cookies are the tool for such floods.

use core::cell::UnsafeCell;

use crate::clock::Moment;
use crate::memory::Trace;

/// Cache lines of the memory (2 MiB).
pub const LINES: usize = 1 << 15;

/// Cells in a line.
const CELLS: usize = 32;
/// A unit of time is 2 to the power of this, in nanoseconds: 134 ms. Times are odd numbers of them: an age is right to two.
const UNIT_BITS: u32 = 27;
/// How long a SYN is remembered, in units: 8 s.
const KEPT: u16 = 60;
/// How far a clock may go back, in units.
const SLACK: u16 = 4;

/// From which age on a SYN is a second one, in units: 0.67 s. Clients wait for a second.
const AGAIN: u16 = 5;

/// A cache line of the memory. All zero is empty.
#[repr(C, align(64))]
pub struct Line(UnsafeCell<[u16; CELLS]>);

// SAFETY: cells are read and written whole, and of two writers at once each is right.
unsafe impl Sync for Line {}

impl Line {
    /// A line with nothing in it.
    pub const fn empty() -> Self {
        Self(UnsafeCell::new([0; CELLS]))
    }

    /// A cell of a trace.
    #[inline(always)]
    fn cell(&self, trace: Trace, which: u32) -> *mut u16 {
        // SAFETY: the mask keeps the pointer inside the line.
        unsafe { self.0.get().cast::<u16>().add(trace.place(which) as usize & (CELLS - 1)) }
    }

    /// Remembers.
    #[inline(always)]
    fn remember(&self, trace: Trace, now: Moment) {
        let time = time(now);
        let mut which = 0;
        while which < 3 {
            let cell = self.cell(trace, which);
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
    fn age(&self, trace: Trace, now: Moment) -> Option<u16> {
        let time = time(now);
        let mut oldest = 0;
        let mut which = 0;
        while which < 3 {
            // SAFETY: inside this live line.
            let then = unsafe { self.cell(trace, which).read_volatile() };
            // A clock that went back by a little is no reason to forget.
            let age = time.wrapping_sub(then).wrapping_add(SLACK);
            if then == 0 || age > KEPT + SLACK {
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
}

/// The time in a cell, never zero. *Wrap*: a cell that nobody touched for 2.4 hours looks fresh for 8 s.
#[inline(always)]
const fn time(now: Moment) -> u16 {
    ((now.ns() >> UNIT_BITS) as u16) | 1
}

/// Whether a SYN is the first of its connection; if so, it is remembered. One that comes too soon after is no second one,
/// and does not count anew.
#[inline(always)]
pub fn is_first(line: &Line, trace: Trace, now: Moment) -> bool {
    match line.age(trace, now) {
        Some(age) => age < AGAIN,
        None => {
            line.remember(trace, now);
            true
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hash::HashKey;
    use crate::replies::Conversation;

    const SECOND: u64 = 1_000_000_000;
    const NOON: u64 = 40_000 * SECOND;

    fn trace(n: u64) -> Trace {
        let key = HashKey::new([0x2545_f491_4f6c_dd1d, 0xd129_0d3a_77e5_5a3b]);
        Conversation { peer: (n, 0), ports: (40_000, 443), protocol: 6 }.trace(&key)
    }

    #[test]
    fn a_syn_that_comes_again_after_a_second_passes() {
        let line = Line::empty();
        let ask = |after_ms: u64| is_first(&line, trace(1), Moment::from_ns(NOON + after_ms * 1_000_000));
        assert!(ask(0));
        assert!(ask(5) && ask(300), "too soon, and does not begin anew");
        assert!(!ask(1_000), "as a client does");
        assert!(!ask(3_000));
        assert!(ask(20_000), "another connection");
    }

    #[test]
    fn a_flood_of_forged_syns_makes_it_pass_and_not_refuse() {
        // What passes of first SYNs, by the rate of forged ones over eight seconds.
        for (rate, passing) in [(5_000, 0.0..0.03), (20_000, 0.03..0.2), (100_000, 0.6..0.9), (500_000, 0.99..1.01)] {
            let lines: Vec<_> = (0..LINES).map(|_| Line::empty()).collect();
            let ask = |n: u64, now: u64| is_first(&lines[trace(n).line(LINES)], trace(n), Moment::from_ns(now));
            for n in 0..rate * 8 {
                let _ = ask(n, NOON + n * SECOND / rate);
            }
            let passed = (0..10_000).filter(|n| !ask((1 << 40) + n, NOON + 8 * SECOND)).count();
            println!("{passed} of 10,000 first SYNs pass beside {rate} forged ones a second");
            assert!(passing.contains(&(passed as f64 / 10_000.0)), "{passed} beside {rate}");
        }
    }
}

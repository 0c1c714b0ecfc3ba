//! Whether somebody asks twice: a client whose SYN is lost sends it again after a second, most flooding tools do not.
//!
//! While this is armed, the first SYN of a connection is dropped and remembered; the same from [`AGAIN`] on passes. It
//! costs each new connection of an unverified source about a second.
//!
//! What it can cost (memory: [`crate::memory`], [`LINES`] lines, 2 MiB): every forged SYN leaves a trace too, for eight
//! seconds. Beside 20,000 of them a second 6 % of first SYNs look like second ones and pass, beside 100,000 it is 73 % (a
//! test): it errs towards passing, and SYN cookies are the tool for such floods.

use crate::clock::Moment;
use crate::memory::{Line, Span, Trace};

/// Cache lines of the memory (2 MiB).
pub const LINES: usize = 1 << 15;

/// How long a SYN is remembered: 8 s, in units of 2^27 ns (134 ms).
pub const SPAN: Span = Span { unit_bits: 27, kept: 60 };

/// From which age on a SYN is a second one, in units: 0.67 s. Clients wait for a second.
const AGAIN: u16 = 5;

/// Whether a SYN is the first of its connection; if so, it is remembered. One that comes too soon after is no second one,
/// and does not count anew.
#[inline(always)]
pub fn is_first(line: &Line, trace: Trace, now: Moment) -> bool {
    match line.age(trace, now, SPAN) {
        Some(age) => age < AGAIN,
        None => {
            line.remember(trace, now, SPAN);
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

//! The kernel's tick counter, and load-time constants about it.

use aya_ebpf::helpers::generated::{bpf_jiffies64, bpf_ktime_get_ns};
use floodwall_common::clock::Moment;

use crate::maps;

/// Nanoseconds of a tick; the controller sets it when loading. Zero where a test sets the time. Being read-only, that
/// question costs nothing: the verifier removes the branch, so that the program under test is the one that is shipped.
#[unsafe(no_mangle)]
static TICK_NS: u64 = 4_000_000;

/// Now, to the tick. The JIT inlines the tick counter: 1 ns, where a nanosecond clock is 20 to 40.
#[inline(always)]
pub(crate) fn now() -> Moment {
    // SAFETY: a constant of this object, changed only before it is loaded; volatile, so that the compiler does not
    // take the value above for the one that the loader writes.
    let tick_ns = unsafe { core::ptr::read_volatile(&raw const TICK_NS) };
    if tick_ns == 0 {
        return Moment::from_ns(maps::test_clock().unwrap_or(0));
    }
    // SAFETY: no arguments, no effects.
    let ticks = unsafe { bpf_jiffies64() };
    Moment::from_ticks(ticks, tick_ns)
}

/// Nanoseconds of `CLOCK_MONOTONIC`, for the slow path.
#[inline(always)]
pub(crate) fn monotonic_ns() -> u64 {
    // SAFETY: no arguments, no effects.
    unsafe { bpf_ktime_get_ns() }
}

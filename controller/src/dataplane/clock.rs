//! The kernel's tick counter, which is the packet path's clock, seen from here.

use std::os::fd::{AsFd, OwnedFd};
use std::sync::OnceLock;
use std::time::Duration;

use aya::Ebpf;
use aya::programs::Xdp;
use floodwall_common::abi::{ClockReading, program};
use floodwall_common::clock::Moment;

use super::error::{Error, Result};
use super::sys::{TestRun, test_run};

/// Length of the kernel's tick. The coarse clocks advance with it and say so.
pub(super) fn tick_ns() -> Result<u64> {
    let mut resolution = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: a live timespec for the kernel to fill.
    if unsafe { libc::clock_getres(libc::CLOCK_MONOTONIC_COARSE, &raw mut resolution) } != 0 {
        return Err(Error::system("read the length of the kernel's tick", std::io::Error::last_os_error()));
    }
    Ok(resolution.tv_nsec as u64)
}

/// Nanoseconds of `CLOCK_MONOTONIC`, as the kernel half has it: without what a time namespace adds.
pub fn monotonic_ns() -> u64 {
    static ADDED: OnceLock<i128> = OnceLock::new();
    let added =
        ADDED.get_or_init(|| added_ns(&std::fs::read_to_string("/proc/self/timens_offsets").unwrap_or_default()));
    (i128::from(read_monotonic_ns()) - added) as u64
}

/// What this process's time namespace adds, by its `timens_offsets`: name, seconds, nanoseconds.
fn added_ns(offsets: &str) -> i128 {
    let line = offsets.lines().find_map(|line| line.strip_prefix("monotonic"));
    let mut numbers = line.unwrap_or_default().split_whitespace().map(|number| number.parse::<i128>().unwrap_or(0));
    numbers.next().unwrap_or(0) * 1_000_000_000 + numbers.next().unwrap_or(0)
}

fn read_monotonic_ns() -> u64 {
    let mut now = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: a live timespec for the kernel to fill; this clock always exists.
    unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &raw mut now) };
    now.tv_sec as u64 * 1_000_000_000 + now.tv_nsec as u64
}

/// How far the packet path's clock is ahead of `CLOCK_MONOTONIC`. The two drift apart by what NTP slews, at most 43 s a
/// day: read anew with every use.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    ahead_ns: i128,
}

impl Clock {
    /// Now, on the packet path's clock.
    pub fn now(&self) -> Moment {
        Moment::from_ns((i128::from(monotonic_ns()) + self.ahead_ns) as u64)
    }

    /// The moment a time to live ends that begins now.
    pub fn after(&self, ttl: Duration) -> Moment {
        let ns = u64::try_from(ttl.as_nanos()).unwrap_or(u64::MAX);
        Moment::from_ns(self.now().ns().saturating_add(ns))
    }
}

/// The program that reads both clocks at once. It has no maps and is never attached.
pub(super) struct ClockProgram {
    program: OwnedFd,
    tick_ns: u64,
}

#[repr(C, align(8))]
struct Aligned<T: ?Sized>(T);

static OBJECT: &Aligned<[u8]> = &Aligned(*include_bytes!(env!("CLOCK_OBJECT")));

impl ClockProgram {
    pub(super) fn load() -> Result<Self> {
        let mut object =
            Ebpf::load(&OBJECT.0).map_err(|error| Error::Rejected { reason: super::root_cause(&error) })?;
        let missing = || Error::Rejected { reason: format!("the object has no program {}", program::CLOCK) };
        let clock: &mut Xdp =
            object.program_mut(program::CLOCK).ok_or_else(missing)?.try_into().map_err(|_| missing())?;
        clock.load().map_err(super::programs::rejected)?;
        let fd = clock.fd().map_err(super::programs::rejected)?.as_fd().try_clone_to_owned();
        let program = fd.map_err(|source| Error::system("keep the clock program", source))?;
        Ok(Self { program, tick_ns: tick_ns()? })
    }

    pub(super) fn read(&self) -> Result<Clock> {
        let run = TestRun { frame: &[0; 64], repeat: 1, live: None, ifindex: 0 };
        let result = test_run(&self.program, run)
            .map_err(|source| Error::privileged("read the kernel's tick counter", source))?;
        let word = |at: usize| {
            let bytes = result.frame.get(at..at + 8).and_then(|bytes| bytes.try_into().ok());
            u64::from_ne_bytes(bytes.unwrap_or_default())
        };
        let ticks = word(std::mem::offset_of!(ClockReading, ticks));
        let monotonic_ns = word(std::mem::offset_of!(ClockReading, monotonic_ns));
        let moment = Moment::from_ticks(ticks, self.tick_ns);
        Ok(Clock { ahead_ns: i128::from(moment.ns()) - i128::from(monotonic_ns) })
    }
}

#[cfg(test)]
mod tests {
    use super::added_ns;

    #[test]
    fn what_a_time_namespace_adds_is_read() {
        assert_eq!(added_ns("monotonic           0         0\nboottime            0         0\n"), 0);
        assert_eq!(added_ns("monotonic    31536000        12\nboottime     0  0\n"), 31_536_000_000_000_012);
        assert_eq!(added_ns("monotonic          -5         0\n"), -5_000_000_000);
        assert_eq!(added_ns(""), 0, "a kernel before 5.6");
    }
}

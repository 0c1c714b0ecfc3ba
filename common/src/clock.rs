//! Time as the limiter sees it.
//!
//! The kernel's tick counter is the one clock that costs nothing on the packet path (the JIT inlines it; a
//! nanosecond clock is a call of 20 to 40 ns). It advances in steps of 1 to 10 ms, so a burst shorter than two
//! steps cannot be kept: [`crate::limits`] never compiles one. It does not run during suspend.

/// A moment, in nanoseconds since an arbitrary start, a multiple of the kernel's tick.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Moment(u64);

impl Moment {
    /// The moment `ns` nanoseconds after the start.
    #[inline(always)]
    pub const fn from_ns(ns: u64) -> Self {
        Self(ns)
    }

    /// The moment of the kernel's tick number `ticks`, each `tick_ns` long.
    #[inline(always)]
    pub const fn from_ticks(ticks: u64, tick_ns: u64) -> Self {
        Self(ticks.wrapping_mul(tick_ns))
    }

    /// Nanoseconds since the start.
    #[inline(always)]
    pub const fn ns(self) -> u64 {
        self.0
    }

    /// In the 16 ns units of the source table (40 bits, wraps after 4.9 h).
    #[inline(always)]
    pub(crate) const fn units(self) -> u64 {
        (self.0 >> 4) & crate::limiter::TIME_MASK
    }

    /// In the 2,048 ns units of the gate (of 32 bits it uses 31, which wrap after 73 min).
    #[inline(always)]
    pub(crate) const fn gate_units(self) -> u32 {
        (self.0 >> 11) as u32
    }
}

//! What lies in the maps, and where they are pinned: the contract between a kernel half and a controller that may be
//! of different builds. Any change of a layout or a name here raises [`ABI_VERSION`]; a golden file holds it to that.

use core::mem::offset_of;

use crate::class::{KIND_SLOTS, Kind};
use crate::labelled_enum;
use crate::limiter::GATE_CELLS;
use crate::reason::REASON_SLOTS;
use crate::signatures::SIGNATURES as SIGNATURE_SLOTS;

/// Version of every layout in this crate that lies in a map, and of the names below.
pub const ABI_VERSION: u32 = 11;

/// Map names, as the kernel and bpftool show them and as the pins are called. At most 15 characters.
pub mod map {
    /// One [`crate::config::Config`]. Written by the controller only.
    pub const CONFIG: &str = "CONFIG";
    /// A [`super::CpuState`] per CPU. Written by the kernel half only, each by its own CPU.
    pub const CPUS: &str = "CPUS";
    /// The source table, one array of [`crate::limiter::Bucket`]s. Written by the kernel half only.
    pub const SOURCES: &str = "SOURCES";
    /// IPv4 tries by bank and list. The controller replaces tries of the idle bank only.
    pub const LISTS_V4: &str = "LISTS_V4";
    /// IPv6 tries by bank and list. The controller replaces tries of the idle bank only.
    pub const LISTS_V6: &str = "LISTS_V6";
    /// A [`crate::lists::Prefilter`] per bank. The controller writes the idle bank only.
    pub const PREFILTER: &str = "PREFILTER";
    /// Ring of [`super::Sample`]. The kernel half produces, the controller consumes.
    pub const SAMPLES: &str = "SAMPLES";
    /// An [`super::InterfaceRecord`] per slot. Written and read by the controller only.
    pub const INTERFACES: &str = "INTERFACES";
    /// The clock that tests set; read only by a program that was loaded for a test.
    pub const TEST_CLOCK: &str = "TEST_CLOCK";
    /// What was sent, a [`crate::memory::Line`] per entry. Written by the kernel half only, where packets leave.
    pub const SENT: &str = "SENT";
    /// One [`crate::replies::PortSet`]: UDP ports that replies come from. Written by the controller only.
    pub const AMPLIFIERS: &str = "AMPLIFIERS";
    /// Sources that completed a handshake, a [`crate::memory::Line`] per entry. Written by the kernel half only, where
    /// packets leave.
    pub const VERIFIED: &str = "VERIFIED";
    /// What was there of [`VERIFIED`] before what goes on now began. Written by the controller only, where somebody has to come first.
    pub const KNOWN: &str = "KNOWN";
    /// First SYNs, a [`crate::first_syn::Line`] per entry. Written by the kernel half only.
    pub const FIRST_SYNS: &str = "FIRST_SYNS";
    /// One [`crate::services::PortTable`]. Written by the controller only, port by port.
    pub const SERVICES: &str = "SERVICES";
    /// A [`crate::signatures::table::Table`] per bank. The controller writes the idle bank only.
    pub const SIGNATURES: &str = "SIGNATURES";
    /// [`crate::signatures::Records`] per bank: what the tables were compiled from. Written and read by the controller only,
    /// the idle bank.
    pub const SIGNATURE_SPECS: &str = "SIGNATURE_SPECS";
    /// All of them.
    pub const ALL: [&str; 17] = [
        CONFIG,
        CPUS,
        SOURCES,
        LISTS_V4,
        LISTS_V6,
        PREFILTER,
        SAMPLES,
        INTERFACES,
        TEST_CLOCK,
        SENT,
        AMPLIFIERS,
        VERIFIED,
        KNOWN,
        FIRST_SYNS,
        SERVICES,
        SIGNATURES,
        SIGNATURE_SPECS,
    ];
}

/// Program names in the object.
pub mod program {
    /// The filter for drivers and MTUs with linear frames.
    pub const FILTER: &str = "floodwall";
    /// The same filter for frames in several fragments (kernel 5.18).
    pub const FILTER_FRAGS: &str = "floodwall_frags";
    /// Remembers what leaves through a protected interface.
    pub const EGRESS: &str = "floodwall_egress";
    /// In an object of its own: answers a test run with the kernel's tick counter beside its monotonic clock.
    pub const CLOCK: &str = "floodwall_clock";
}

/// Load-time constants of the kernel half.
pub mod constant {
    /// Nanoseconds of a kernel tick, `u64`. Zero in tests: time comes from [`super::map::TEST_CLOCK`].
    pub const TICK_NS: &str = "TICK_NS";
    /// Where the counters of the interface lie that this program is attached to: [`super::CpuState::counters_of`], `u64`.
    pub const COUNTERS: &str = "COUNTERS";
}

/// Interfaces that one instance can protect; a power of two, so that an index can be masked.
pub const INTERFACE_SLOTS: usize = 8;
/// Size of the sample ring in bytes.
pub const SAMPLE_RING_BYTES: u32 = 1 << 20;
/// Bytes of the frame that a sample holds.
pub const SAMPLE_BYTES: usize = 128;

/// Packets and bytes of one reason, kind, verdict and interface on one CPU.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Counter {
    /// Frames.
    pub packets: u64,
    /// Bytes of frames, Ethernet header included, checksum not.
    pub bytes: u64,
}

/// Counters of one interface and verdict (as carried out), by kind and reason.
pub type CounterBank = [[Counter; REASON_SLOTS]; KIND_SLOTS];

labelled_enum! {
    /// A stream of samples. Each has an interval and a budget of its own, so that a flood of one leaves enough of the others.
    pub enum Stream {
        /// What passes, but for [`Self::Open`].
        Pass = 0 => "pass",
        /// What drops or is answered, also where monitor mode lets it pass, but for [`Self::Open`].
        Drop = 1 => "drop",
        /// Who begins connections: SYNs that pass, those that are over the cap of connections of their service, and of those that are
        /// answered with a cookie the ones from verified sources, which forged addresses are not.
        Open = 2 => "open",
    }
}

impl Stream {
    /// The stream of packets in a place of [`crate::config::Sampling`].
    pub const BY_PLACE: [Self; STREAM_SLOTS] = [Self::Pass, Self::Drop, Self::Open, Self::Drop];

    /// The place of a packet there, by whether its reason drops (0 or 1): that, and in the next bit whether it is a SYN. No branch, as this
    /// is asked of every packet.
    #[inline(always)]
    pub const fn place(kind: Kind, wanted: u32) -> u32 {
        wanted | kind.syn() << 1
    }
}

/// How many there are.
pub const SAMPLE_STREAMS: usize = Stream::ALL.len();
/// Room for them; a power of two, so that an index can be masked.
pub const STREAM_SLOTS: usize = 4;

/// What a CPU keeps of one stream of samples. Touched by sampled packets only.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Sampler {
    /// Packets that no sample stands for yet: refused by the budget, or lost.
    pub weight: u32,
    /// Samples written in this second.
    pub written: u32,
    /// When this second began, in nanoseconds of `CLOCK_MONOTONIC`.
    pub second_began_ns: u64,
    /// Samples that found the ring full.
    pub lost: u64,
    /// Packets that were of this stream, by those that were drawn: each stands for as many as its interval has.
    pub packets: u64,
}

/// Counters of one interface, by verdict as it was carried out.
pub type InterfaceCounters = [CounterBank; 2];

/// What a CPU keeps for itself. No other CPU writes it, and none has a cache line in common with another.
#[repr(C, align(64))]
pub struct CpuState {
    /// First stage of the limiter.
    pub gate: [u32; GATE_CELLS],
    /// Counters by interface slot.
    pub counters: [InterfaceCounters; INTERFACE_SLOTS],
    /// Streams of samples, by [`Stream`].
    pub samplers: [Sampler; STREAM_SLOTS],
    /// Hits of signatures, by number.
    pub signatures: [Counter; SIGNATURE_SLOTS],
}

impl CpuState {
    /// Where the counters of an interface lie, in bytes from the beginning.
    pub const fn counters_of(slot: usize) -> u64 {
        (offset_of!(Self, counters) + slot * size_of::<InterfaceCounters>()) as u64
    }

    /// The slot of the interface whose counters lie there.
    #[inline(always)]
    pub const fn slot_at(counters: u64) -> u8 {
        ((counters as usize - offset_of!(Self, counters)) / size_of::<InterfaceCounters>()) as u8
    }
}

/// A sampled header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct Sample {
    /// `CLOCK_MONOTONIC`, in nanoseconds.
    pub monotonic_ns: u64,
    /// Packets of its stream and CPU that it stands for.
    pub weight: u32,
    /// Length of the whole frame.
    pub frame_bytes: u32,
    /// Bytes of it in `head`.
    pub head_bytes: u16,
    /// CPU that saw it.
    pub cpu: u16,
    /// Slot of the interface.
    pub slot: u8,
    /// [`crate::reason::Reason`], as its number.
    pub reason: u8,
    /// [`crate::class::Kind`], as its index.
    pub kind: u8,
    /// [`crate::reason::Verdict`] as it was carried out, so `pass` for all in monitor mode.
    pub verdict: u8,
    /// [`Stream`], as its number.
    pub stream: u8,
    /// [`crate::reason::Verdict`] of its reason, so `drop` also where monitor mode lets it pass.
    pub wanted: u8,
    /// Keeps the layout free of hidden bytes.
    pub reserved: [u8; 6],
    /// The first bytes of the frame.
    pub head: [u8; SAMPLE_BYTES],
}

/// An interface that is protected.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct InterfaceRecord {
    /// Its index; zero where the slot is free.
    pub ifindex: u32,
    /// Attached in generic mode.
    pub generic: u32,
    /// When it was attached, in seconds of the Unix epoch.
    pub since_unix_s: u64,
    /// Its name when it was attached, padded with zeros.
    pub name: [u8; 16],
    /// The first bytes of the SHA-256 of the object that its program came from.
    pub object_hash: [u8; 16],
}

/// What the clock program answers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct ClockReading {
    /// The kernel's tick counter.
    pub ticks: u64,
    /// `CLOCK_MONOTONIC` at the same moment, in nanoseconds.
    pub monotonic_ns: u64,
}

#[cfg(feature = "user")]
mod pod {
    use super::{ClockReading, Counter, InterfaceRecord, Sample, Sampler};
    use crate::signatures::{Records, table::Table};
    use crate::{config::Config, lists::ListEntry, services::PortTable};

    // SAFETY: `repr(C)`, integers and arrays of them only, no hidden bytes, valid for every bit pattern.
    unsafe impl aya::Pod for Config {}
    // SAFETY: as above.
    unsafe impl aya::Pod for ListEntry {}
    // SAFETY: as above.
    unsafe impl aya::Pod for InterfaceRecord {}
    // SAFETY: as above.
    unsafe impl aya::Pod for Sample {}
    // SAFETY: as above.
    unsafe impl aya::Pod for Sampler {}
    // SAFETY: as above.
    unsafe impl aya::Pod for Counter {}
    // SAFETY: as above.
    unsafe impl aya::Pod for ClockReading {}
    // SAFETY: as above.
    unsafe impl aya::Pod for PortTable {}
    // SAFETY: as above.
    unsafe impl aya::Pod for Table {}
    // SAFETY: as above.
    unsafe impl aya::Pod for Records {}
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::class::{Class, Family};

    #[test]
    fn only_syns_that_pass_open_connections() {
        for kind in Kind::all_ip().chain([Kind::NOT_IP]) {
            let is_syn = kind.parts().is_some_and(|(_, class)| class == Class::TcpSyn);
            let stream = |wanted: u32| Stream::BY_PLACE[Stream::place(kind, wanted) as usize];
            assert_eq!(stream(0), if is_syn { Stream::Open } else { Stream::Pass }, "{kind:?}");
            assert_eq!(stream(1), Stream::Drop, "{kind:?}");
        }
        assert_eq!(Kind::new(Family::V6, Class::TcpSyn).syn(), 1);
    }

    #[test]
    fn map_names_fit_the_kernel() {
        for name in map::ALL {
            assert!(name.len() <= 15, "{name}");
        }
    }
}

//! The one exit: every packet is counted here, once, under its reason, and perhaps sampled.

use aya_ebpf::bindings::xdp_action;
use aya_ebpf::helpers::generated::{bpf_ringbuf_reserve, bpf_ringbuf_submit};
use aya_ebpf::programs::XdpContext;
use floodwall_common::abi::{CpuState, InterfaceCounters, SAMPLE_BYTES, STREAM_SLOTS, Sample, Stream};
use floodwall_common::class::{KIND_SLOTS, Kind};
use floodwall_common::config::{Config, Sampling};
use floodwall_common::decide::Exit;
use floodwall_common::reason::{Policy, REASON_SLOTS, Reason};

use crate::clock;
use crate::maps::SAMPLES;

/// Where the counters of the interface lie that this program is attached to; the controller sets it when loading.
#[unsafe(no_mangle)]
static COUNTERS: u64 = CpuState::counters_of(0);

/// In place of an action: the kind of a packet that has to be asked more. One number for both, as it stays in a register.
pub(crate) const ARMED: u32 = 1 << 4;

/// What it takes to leave: a packet that nothing more is asked of.
#[derive(Clone, Copy)]
pub(crate) struct Leave<'a> {
    pub(crate) ctx: &'a XdpContext,
    pub(crate) config: &'static Config,
    pub(crate) cpu: *mut CpuState,
    pub(crate) bytes: u32,
    /// A SYN that is answered, from a verified source, or that its service takes no more of.
    pub(crate) opens: bool,
}

impl Exit for Leave<'_> {
    type Answer = u32;

    #[inline(always)]
    fn passed(self, kind: Kind) -> u32 {
        const { assert!(matches!(Reason::Passed.policy(), Policy::Passes)) }
        self.leave(Reason::Passed, kind, || Stream::place(kind, 0), (0, 0))
    }

    #[inline(always)]
    fn over_packet_limit(self, kind: Kind) -> u32 {
        const { assert!(matches!(Reason::PacketLimit.policy(), Policy::Drops)) }
        // A branch, which goes one way for days: there the place in the counters is a constant.
        if self.config.enforces() {
            self.leave(Reason::PacketLimit, kind, || Stream::Drop as u32, (1, 1))
        } else {
            self.leave(
                Reason::PacketLimit,
                kind,
                || Stream::Drop as u32,
                (1, u32::from(self.config.drops_at(clock::now))),
            )
        }
    }

    #[inline(always)]
    fn armed(self, kind: Kind) -> u32 {
        ARMED | u32::from(kind.index())
    }

    #[inline(always)]
    fn because(self, reason: Reason, kind: Kind) -> u32 {
        // In numbers, not in branches: each of them is 0 or 1.
        let wanted = u32::from(self.config.drops.has(reason));
        let dropped = wanted & u32::from(self.config.drops_at(clock::now));
        let place = || if self.opens { Stream::Open as u32 } else { Stream::place(kind, wanted) };
        self.leave(reason, kind, place, (wanted, dropped))
    }
}

impl Leave<'_> {
    /// Counts, samples, and says to the kernel what becomes of the packet.
    #[inline(always)]
    fn leave(self, reason: Reason, kind: Kind, place: impl Fn() -> u32, (wanted, dropped): (u32, u32)) -> u32 {
        let count = count(self.cpu, self.bytes, reason, kind, dropped);
        let sampling = &self.config.sampling;
        if sampling.takes(&place, count) {
            let seen = Seen { bytes: self.bytes, reason, kind, wanted: wanted << 8 | place(), dropped };
            sample(self.ctx, self.cpu, sampling, &seen);
        }
        // Drop is 1, pass is 2.
        xdp_action::XDP_PASS - dropped
    }
}

const _: () = assert!(xdp_action::XDP_PASS - 1 == xdp_action::XDP_DROP);

/// Counts the packet, and says how many like it there have been.
#[inline(always)]
fn count(cpu: *mut CpuState, bytes: u32, reason: Reason, kind: Kind, dropped: u32) -> u64 {
    // SAFETY: a live array entry that only this CPU writes, and the counters of an interface in it.
    let counters = unsafe { &mut *cpu.byte_add(counters_at() as usize).cast::<InterfaceCounters>() };
    let bank = &mut counters[dropped as usize & 1];
    let place = (kind.index() as usize * REASON_SLOTS) | reason as usize;
    let counter = &mut bank.as_flattened_mut()[place & (KIND_SLOTS * REASON_SLOTS - 1)];
    counter.packets += 1;
    counter.bytes += u64::from(bytes);
    counter.packets
}

#[inline(always)]
fn counters_at() -> u64 {
    // SAFETY: a constant of this object, changed only before it is loaded.
    unsafe { core::ptr::read_volatile(&raw const COUNTERS) }
}

/// What a sample says of its packet. Ordered so that the compiler joins no fields to a misaligned word on the stack, which
/// the verifier refuses.
#[repr(C, align(8))]
struct Seen {
    /// The place of its stream, and in the next byte whether the reason drops: all of it is two words on the stack, of which there are few.
    wanted: u32,
    dropped: u32,
    bytes: u32,
    reason: Reason,
    kind: Kind,
}

/// The slow path, taken to its end at most `budget` times a second.
#[inline(never)]
fn sample(ctx: &XdpContext, cpu: *mut CpuState, sampling: &Sampling, seen: &Seen) {
    let (place, stream) = (seen.wanted as u8, stream_of(seen.wanted));
    // SAFETY: a live array entry that only this CPU writes.
    let sampler = unsafe { &mut (&mut (*cpu).samplers)[stream as usize & (STREAM_SLOTS - 1)] };
    let now = clock::monotonic_ns();
    if now.wrapping_sub(sampler.second_began_ns) >= 1_000_000_000 {
        sampler.second_began_ns = now;
        sampler.written = 0;
    }
    let every = sampling.every(place as usize);
    sampler.weight = sampler.weight.saturating_add(every);
    sampler.packets += u64::from(every);
    if sampler.written >= sampling.budget {
        return;
    }
    sampler.written += 1;
    // For development: here the budget bounds it, on the packet path nothing would.
    #[cfg(feature = "log")]
    aya_log_ebpf::debug!(ctx, "{} bytes, kind {}, reason {}", seen.bytes, seen.kind.index(), seen.reason as u8);
    if write(ctx, now, sampler.weight, seen) {
        sampler.weight = 0;
    } else {
        sampler.lost += 1;
    }
}

/// By what [`Seen`] says of it; the table of it would be one more map.
#[inline(always)]
const fn stream_of(wanted: u32) -> u32 {
    const { assert!(Stream::BY_PLACE[3] as u8 == Stream::Drop as u8) }
    match wanted & 3 {
        3 => Stream::Drop as u32,
        place => place,
    }
}

#[inline(always)]
fn write(ctx: &XdpContext, now: u64, weight: u32, seen: &Seen) -> bool {
    // SAFETY: the ring is a map of this object, and the size is that of a sample.
    let place = unsafe { bpf_ringbuf_reserve(SAMPLES.as_ptr(), size_of::<Sample>() as u64, 0) };
    let place = place.cast::<Sample>();
    if place.is_null() {
        return false;
    }
    // SAFETY: the kernel reserved room for a whole sample, aligned to eight bytes, ours until submitted.
    let record = unsafe { &mut *place };
    record.monotonic_ns = now;
    record.weight = weight;
    record.frame_bytes = seen.bytes;
    // SAFETY: no arguments, no effects.
    record.cpu = unsafe { aya_ebpf::helpers::generated::bpf_get_smp_processor_id() } as u16;
    record.slot = CpuState::slot_at(counters_at());
    record.reason = seen.reason as u8;
    record.kind = seen.kind.index();
    record.verdict = seen.dropped as u8;
    record.stream = stream_of(seen.wanted) as u8;
    record.wanted = (seen.wanted >> 8) as u8;
    record.reserved = [0; 6];
    record.head_bytes = copy_head(ctx, &mut record.head);
    // SAFETY: reserved above, submitted once. The controller reads on its own tick: no wake-up per sample.
    unsafe { bpf_ringbuf_submit(place.cast(), u64::from(aya_ebpf::bindings::BPF_RB_NO_WAKEUP)) };
    true
}

/// Copies what is readable of the frame and says how much that was; what lies behind it in `head` is left as it was.
/// By words and not by a helper: the one for it is of kernel 5.18.
#[inline(always)]
fn copy_head(ctx: &XdpContext, head: &mut [u8; SAMPLE_BYTES]) -> u16 {
    let (start, end) = (ctx.data(), ctx.data_end());
    let mut copied = 0;
    while copied < SAMPLE_BYTES {
        if !copy::<8>(start, end, head, copied) {
            break;
        }
        copied += 8;
    }
    // The verifier takes no evidence from a check of the very first bytes; no Ethernet frame ends there.
    if copied == 0 || copied == SAMPLE_BYTES {
        return copied as u16;
    }
    if copy::<4>(start, end, head, copied) {
        copied += 4;
    }
    if copy::<2>(start, end, head, copied) {
        copied += 2;
    }
    if copy::<1>(start, end, head, copied) {
        copied += 1;
    }
    copied as u16
}

#[inline(always)]
fn copy<const N: usize>(start: usize, end: usize, head: &mut [u8; SAMPLE_BYTES], at: usize) -> bool {
    if start + at + N > end {
        return false;
    }
    // SAFETY: just checked to lie inside the frame; `copy_head` keeps `at + N` inside `head`.
    unsafe { *head.as_mut_ptr().add(at).cast::<[u8; N]>() = *((start + at) as *const [u8; N]) };
    true
}

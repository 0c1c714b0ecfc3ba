//! Programs that measure and feed the filter in tests and benches; never shipped, never attached to a real interface.
//!
//! `vary` and `flood` give each packet a source of their own choosing: `vary` hands it to the program under test by a
//! tail call, so that what is measured is the shipped program; `flood` sends it out of an interface.
//!
//! `vary` draws by `bpf_get_prandom_u32`, 20 ns that are part of every figure, the yardstick's too: ratios to
//! `bare_drop` can be compared with those of other filters only where both were measured so. `flood` draws by
//! xorshift, since there a source should cost as little as it can.

#![no_std]
#![no_main]

use core::hint::black_box;

use aya_ebpf::bindings::xdp_action;
use aya_ebpf::btf_maps::{Array, LruHashMap, PerCpuArray, ProgramArray};
use aya_ebpf::helpers::generated::{bpf_get_prandom_u32, bpf_ktime_get_ns, bpf_redirect};
use aya_ebpf::macros::{btf_map, classifier, xdp};
use aya_ebpf::programs::{TcContext, XdpContext};
use floodwall_common::packet::{Frame, Parsed, parse};
use floodwall_common::reason::Reason;

/// Which sources to write into the frames. One value, set by the test, its `state` advanced here.
#[repr(C)]
pub struct Pattern {
    /// State of the generator of `flood`; not zero.
    pub state: u64,
    /// Sources are drawn from this many; zero leaves the frame as it is.
    pub sources: u32,
    /// First address: IPv4, or the upper half of an IPv6 address from bit 32 down.
    pub base: u32,
    /// 4 or 6.
    pub family: u32,
    /// Where `flood` sends.
    pub ifindex: u32,
    /// Nanoseconds from one frame of `flood` to the next; zero for no pace.
    pub interval_ns: u64,
    /// When its next frame is due, on the monotonic clock.
    pub due_ns: u64,
}

#[btf_map]
static PATTERN: Array<Pattern, 1> = Array::new();

#[btf_map]
static TARGET: ProgramArray<1> = ProgramArray::new();

/// The yardstick: drops and does nothing else.
#[xdp]
pub fn bare_drop(_: XdpContext) -> u32 {
    xdp_action::XDP_DROP
}

/// What the peers' usual design keeps of a source.
#[repr(C)]
pub struct Window {
    since_ns: u64,
    packets: u64,
}

#[btf_map]
static WINDOWS: LruHashMap<u32, Window, { 1 << 20 }> = LruHashMap::new();

/// Packets of a source in a window of a second.
const WINDOW_LIMIT: u64 = 1_000;
const WINDOW_NS: u64 = 1_000_000_000;

/// The peers' usual design, for comparison: a map of the kernel's with LRU eviction, and in it a window of a second for each
/// IPv4 source. What is under the limit passes, except to the port that floods of the bench go to.
#[xdp]
pub fn lru_window(ctx: XdpContext) -> u32 {
    let (start, end) = (ctx.data(), ctx.data_end());
    if start + 42 > end {
        return xdp_action::XDP_PASS;
    }
    // SAFETY: checked to lie inside the frame.
    let (kind, head, protocol, source, port) = unsafe {
        (
            *((start + 12) as *const [u8; 2]),
            *((start + 14) as *const u8),
            *((start + 23) as *const u8),
            ((start + 26) as *const u32).read_unaligned(),
            *((start + 36) as *const [u8; 2]),
        )
    };
    if kind != [0x08, 0x00] || head != 0x45 {
        return xdp_action::XDP_PASS;
    }
    // SAFETY: no arguments, no effects.
    let now = unsafe { bpf_ktime_get_ns() };
    match WINDOWS.get_ptr_mut(source) {
        Some(window) => {
            // SAFETY: a live entry; a race of two CPUs costs a count.
            let window = unsafe { &mut *window };
            if now - window.since_ns > WINDOW_NS {
                *window = Window { since_ns: now, packets: 0 };
            }
            window.packets += 1;
            if window.packets > WINDOW_LIMIT {
                return xdp_action::XDP_DROP;
            }
        }
        None => {
            let _ = WINDOWS.insert(source, Window { since_ns: now, packets: 1 }, 0);
        }
    }
    if protocol == UDP && port == FLOODED { xdp_action::XDP_DROP } else { xdp_action::XDP_PASS }
}

const UDP: u8 = 17;
/// Where floods of the bench go: discard, which nobody serves.
const FLOODED: [u8; 2] = [0, 9];

/// The world's end of a link: swallows what is sent to the made-up sources of `flood`, as a router far away would. A veth
/// takes what its peer answers in XDP only where there is a program.
#[xdp]
pub fn world_end(ctx: XdpContext) -> u32 {
    match destination(&ctx) {
        Some([11, _] | [0x3f, 0xff]) => xdp_action::XDP_DROP,
        _ => xdp_action::XDP_PASS,
    }
}

/// Frames that have come through, by the last byte of the address that sent them on the link.
#[btf_map]
static ARRIVED: PerCpuArray<u64, 256> = PerCpuArray::new();

/// Behind a filter: counts what has come through. A filter may not look at these addresses; a test tells by them what it sent.
#[classifier]
pub fn arrived(ctx: TcContext) -> i32 {
    const NEXT: i32 = -1;
    let sender = ctx.data() + 11;
    if sender < ctx.data_end() {
        // SAFETY: checked to lie inside the frame.
        let sender = unsafe { *(sender as *const u8) };
        if let Some(count) = ARRIVED.get_ptr_mut(u32::from(sender)) {
            // SAFETY: a live entry, of this CPU alone.
            unsafe { *count += 1 };
        }
    }
    NEXT
}

/// The first bytes of the address that an untagged frame goes to.
#[inline(always)]
fn destination(ctx: &XdpContext) -> Option<[u8; 2]> {
    let (start, end) = (ctx.data(), ctx.data_end());
    if start + 40 > end {
        return None;
    }
    // SAFETY: checked to lie inside the frame.
    unsafe {
        match *((start + 12) as *const [u8; 2]) {
            [0x08, 0x00] => Some(*((start + 30) as *const [u8; 2])),
            [0x86, 0xdd] => Some(*((start + 38) as *const [u8; 2])),
            _ => None,
        }
    }
}

/// Understands the frame and drops it.
#[xdp]
pub fn parse_drop(ctx: XdpContext) -> u32 {
    // Hidden, as the compiler would work with the pointers behind it in 32 bits, which the verifier refuses.
    let bytes = black_box((ctx.data_end() - ctx.data()) as u32);
    // SAFETY: the kernel keeps this range readable while the program runs.
    let frame = unsafe { Frame::from_raw(ctx.data(), ctx.data_end(), bytes) };
    match parse(frame) {
        Parsed::Packet(packet) if packet.finding as u8 == Reason::Passed as u8 && packet.source.key() != 0 => {
            xdp_action::XDP_DROP
        }
        _ => xdp_action::XDP_PASS,
    }
}

/// Gives the frame its next source, then hands it to the program under test.
#[xdp]
pub fn vary(ctx: XdpContext) -> u32 {
    if next_source(&ctx, prandom).is_none() {
        return xdp_action::XDP_ABORTED;
    }
    // SAFETY: the array holds XDP programs only, by its type.
    unsafe { TARGET.tail_call(&ctx, 0) };
    xdp_action::XDP_ABORTED
}

/// Gives the frame its next source, waits until it is due, then sends it out: an even pace, where a test run by itself
/// sends as fast as it can, until the receiver's ring is full.
#[xdp]
pub fn flood(ctx: XdpContext) -> u32 {
    let Some(pattern) = next_source(&ctx, xorshift) else {
        return xdp_action::XDP_ABORTED;
    };
    wait_until_due();
    // SAFETY: no pointers.
    unsafe { bpf_redirect(pattern.ifindex, 0) as u32 }
}

/// Reads the clock until the next frame is due, a hundred times at most. Who is late by a millisecond does not catch up.
#[inline(always)]
fn wait_until_due() {
    let Some(pattern) = PATTERN.get_ptr_mut(0) else { return };
    // SAFETY: a live entry, used by one CPU.
    let pattern = unsafe { &mut *pattern };
    if pattern.interval_ns == 0 {
        return;
    }
    // SAFETY: no arguments, no effects.
    let clock = || unsafe { bpf_ktime_get_ns() };
    let mut now = clock();
    let mut turns = 0;
    while now < pattern.due_ns && turns < 100 {
        now = clock();
        turns += 1;
    }
    let from = if now > pattern.due_ns + 1_000_000 { now } else { pattern.due_ns };
    pattern.due_ns = from + pattern.interval_ns;
}

#[inline(always)]
fn next_source(ctx: &XdpContext, draw: impl Fn(&mut Pattern) -> u32) -> Option<&'static Pattern> {
    // SAFETY: a live entry; a race of two CPUs on the state only repeats a source.
    let pattern = unsafe { &mut *PATTERN.get_ptr_mut(0)? };
    if pattern.sources == 0 {
        return Some(pattern);
    }
    let address = pattern.base + ((u64::from(draw(pattern)) * u64::from(pattern.sources)) >> 32) as u32;
    match pattern.family {
        4 => write_v4(ctx, address)?,
        _ => write_v6(ctx, address)?,
    }
    Some(pattern)
}

#[inline(always)]
fn prandom(_: &mut Pattern) -> u32 {
    // SAFETY: no arguments, no effects.
    unsafe { bpf_get_prandom_u32() }
}

#[inline(always)]
fn xorshift(pattern: &mut Pattern) -> u32 {
    let mut x = pattern.state;
    x ^= x << 13;
    x ^= x >> 7;
    x ^= x << 17;
    pattern.state = x;
    (x >> 32) as u32
}

/// Writes the source address of an untagged IPv4 frame without options and mends its checksums (RFC 1624).
#[inline(always)]
fn write_v4(ctx: &XdpContext, address: u32) -> Option<()> {
    let start = ctx.data();
    if start + 34 > ctx.data_end() {
        return None;
    }
    // SAFETY: checked to lie inside the frame.
    let (source, checksum) = unsafe { (&mut *((start + 26) as *mut [u8; 4]), &mut *((start + 24) as *mut [u8; 2])) };
    let old = u32::from_be_bytes(*source);
    *checksum = mended(*checksum, u64::from(old), u64::from(address));
    *source = address.to_be_bytes();
    // SAFETY: as above.
    if unsafe { *((start + 23) as *const u8) } == TCP {
        mend_tcp(ctx, 34, u64::from(old), u64::from(address));
    }
    Some(())
}

/// Writes bits 32 to 63 of the source address of an untagged IPv6 frame, another /64 for each value, and mends its checksum.
#[inline(always)]
fn write_v6(ctx: &XdpContext, bits: u32) -> Option<()> {
    let start = ctx.data();
    if start + 54 > ctx.data_end() {
        return None;
    }
    // SAFETY: checked to lie inside the frame.
    let upper = unsafe { &mut *((start + 22) as *mut [u8; 8]) };
    let old = u64::from_be_bytes(*upper);
    let new = old >> 32 << 32 | u64::from(bits);
    // All of the half at once: the program under test reads it so, and would wait for a smaller store to reach the cache.
    // Volatile, so that the compiler does not see that half of it stays.
    // SAFETY: as above.
    unsafe { core::ptr::from_mut(upper).cast::<u64>().write_volatile(new.to_be()) };
    // SAFETY: as above.
    if unsafe { *((start + 20) as *const u8) } == TCP {
        mend_tcp(ctx, 54, old, new);
    }
    Some(())
}

const TCP: u8 = 6;

/// Mends the checksum of the TCP header there: a stack drops the frame else, unseen.
#[inline(always)]
fn mend_tcp(ctx: &XdpContext, header: usize, old: u64, new: u64) {
    let at = ctx.data() + header + 16;
    if at + 2 > ctx.data_end() {
        return;
    }
    // SAFETY: checked to lie inside the frame.
    let checksum = unsafe { &mut *(at as *mut [u8; 2]) };
    *checksum = mended(*checksum, old, new);
}

/// A checksum over words of which these have changed.
#[inline(always)]
fn mended(checksum: [u8; 2], old: u64, new: u64) -> [u8; 2] {
    let halves = |word: u64| (word >> 48) + (word >> 32 & 0xffff) + (word >> 16 & 0xffff) + (word & 0xffff);
    let mut sum = u64::from(!u16::from_be_bytes(checksum)) + halves(!old) + halves(new);
    sum = (sum & 0xffff) + (sum >> 16);
    sum = (sum & 0xffff) + (sum >> 16);
    (!(sum as u16)).to_be_bytes()
}

#[cfg(not(test))]
#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    // Nothing here can panic: the verifier would see the call and refuse the program.
    loop {}
}

#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";

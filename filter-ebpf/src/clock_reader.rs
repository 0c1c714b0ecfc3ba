//! A program of its own, without maps: answers a test run with the kernel's tick counter beside its monotonic clock.
//! The controller converts times to live with it; it is never attached.

#![no_std]
#![no_main]

use aya_ebpf::bindings::xdp_action;
use aya_ebpf::helpers::generated::{bpf_jiffies64, bpf_ktime_get_ns};
use aya_ebpf::macros::xdp;
use aya_ebpf::programs::XdpContext;
use floodwall_common::abi::ClockReading;

/// Writes a [`ClockReading`] over the frame.
#[xdp]
pub fn floodwall_clock(ctx: XdpContext) -> u32 {
    let start = ctx.data();
    if start + size_of::<ClockReading>() > ctx.data_end() {
        return xdp_action::XDP_ABORTED;
    }
    // SAFETY: no arguments, no effects.
    let reading = unsafe { ClockReading { ticks: bpf_jiffies64(), monotonic_ns: bpf_ktime_get_ns() } };
    // SAFETY: just checked to lie inside the frame.
    unsafe { (start as *mut ClockReading).write_unaligned(reading) };
    xdp_action::XDP_PASS
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

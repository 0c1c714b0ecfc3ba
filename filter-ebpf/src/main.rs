//! The kernel half of Floodwall: the hook, as thin as it can be.
//!
//! Everything that can be decided without a map is in `floodwall-common`, which tests run on the host too. Here are the
//! maps, the calls to the kernel, and one exit: counted once, sampled perhaps, passed or dropped.

#![no_std]
#![no_main]

mod clock;
mod exit;
mod maps;
mod world;

use aya_ebpf::{bindings::xdp_action, helpers::generated::bpf_xdp_get_buff_len, macros::xdp, programs::XdpContext};
use floodwall_common::decide::decide;
use floodwall_common::packet::Frame;

use crate::world::Kernel;

/// For linear frames: any kernel, any driver, MTU up to about 3,500.
#[xdp]
pub fn floodwall(ctx: XdpContext) -> u32 {
    filter(&ctx, |start, end| (end - start) as u32)
}

/// For frames in several fragments (kernel 5.18), as a large MTU needs them.
#[xdp(frags)]
pub fn floodwall_frags(ctx: XdpContext) -> u32 {
    // SAFETY: the context is the one that the kernel gave.
    let bytes = unsafe { bpf_xdp_get_buff_len(ctx.ctx) };
    filter(&ctx, |_, _| bytes as u32)
}

#[inline(always)]
fn filter(ctx: &XdpContext, length: impl FnOnce(usize, usize) -> u32) -> u32 {
    // Its map is an array and the entry is there; the verifier wants to hear it. Without it nothing can be counted or
    // judged, and a filter that cannot judge passes.
    let Some(mut kernel) = Kernel::now() else {
        return xdp_action::XDP_PASS;
    };
    let (start, end) = (ctx.data(), ctx.data_end());
    let bytes = length(start, end);
    // SAFETY: the kernel keeps this range readable while the program runs.
    let frame = unsafe { Frame::from_raw(start, end, bytes) };
    let (reason, kind) = decide(frame, &mut kernel);
    exit::leave(ctx, &kernel, bytes, reason, kind)
}

#[cfg(not(test))]
#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    // Nothing here can panic: the verifier would see the call and refuse the program.
    loop {}
}

/// Some helpers are for GPL programs only.
#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";

//! The kernel half of Floodwall: the hook, as thin as it can be.
//!
//! Everything that can be decided without a map is in `floodwall-common`, which tests run on the host too. Here are the
//! maps, the calls to the kernel, and one exit: counted once, sampled perhaps, passed or dropped.

#![no_std]
#![no_main]

mod clock;
mod cookie;
mod egress;
mod exit;
mod maps;
mod world;

use core::hint::{black_box, cold_path};

use aya_ebpf::bindings::{xdp_action, xdp_md};
use aya_ebpf::helpers::generated::bpf_xdp_get_buff_len;
use aya_ebpf::{macros::xdp, programs::XdpContext};
use floodwall_common::abi::CpuState;
use floodwall_common::class::Kind;
use floodwall_common::clock::Moment;
use floodwall_common::decide::{Exit as _, decide, decide_armed, decide_fast};
use floodwall_common::packet::Frame;
use floodwall_common::reason::Reason;

use crate::exit::{ARMED, Leave};
use crate::world::{Armed, Common, Complete, Kernel, anew};

/// For linear frames: any kernel, any driver, MTU up to about 3,500.
#[xdp]
#[inline(always)]
pub fn floodwall(ctx: XdpContext) -> u32 {
    filter(&ctx, |start, end| (end - start) as u32)
}

/// For frames in several fragments (kernel 5.18), as a large MTU needs them.
#[xdp(frags)]
#[inline(always)]
pub fn floodwall_frags(ctx: XdpContext) -> u32 {
    // SAFETY: the context is the one that the kernel gave.
    let bytes = unsafe { bpf_xdp_get_buff_len(ctx.ctx) };
    filter(&ctx, |_, _| bytes as u32)
}

#[inline(always)]
fn filter(ctx: &XdpContext, length: impl FnOnce(usize, usize) -> u32) -> u32 {
    // Its map is an array and the entry is there; the verifier wants to hear it. Without it nothing can be counted or
    // judged, and a filter that cannot judge passes.
    let Some(mut kernel) = Kernel::<Common>::now(ctx.ctx) else {
        cold_path();
        // Hidden, so that the compiler does not keep it in a register for all.
        return black_box(xdp_action::XDP_PASS);
    };
    let bytes = length(ctx.data(), ctx.data_end());
    let exit = Leave { ctx, config: kernel.config, cpu: kernel.cpu, bytes, opens: false };
    let found = match decide_fast(frame(ctx, bytes), &mut kernel, exit) {
        Some(action) if action < ARMED => return action,
        Some(armed) => {
            cold_path();
            let mut kernel = Kernel::<Armed>::at(ctx.ctx, kernel.cpu, kernel.now);
            decide_armed(Kind::from_masked(u64::from(armed)), anew(ctx.ctx, bytes), &mut kernel, exit)
        }
        None => None,
    };
    found.unwrap_or_else(|| {
        cold_path();
        complete(ctx.ctx, kernel.cpu, kernel.now, bytes)
    })
}

/// The whole decision, for the few packets that need it. A function of its own, so that the common path keeps its
/// registers to itself.
#[inline(never)]
fn complete(ctx: *mut xdp_md, cpu: *mut CpuState, now: Moment, bytes: u32) -> u32 {
    let mut kernel = Kernel::<Complete>::at(ctx, cpu, now);
    let ctx = XdpContext::new(ctx);
    let (reason, kind) = decide(frame(&ctx, bytes), &mut kernel);
    let is_shed = reason as u8 == Reason::ConnectionCap as u8;
    let exit = Leave { ctx: &ctx, config: kernel.config, cpu, bytes, opens: kernel.answer.opens() | is_shed };
    let action = exit.because(reason, kind);
    if reason as u8 == Reason::SynCookie as u8 && action == xdp_action::XDP_DROP {
        return cookie::answer(ctx.ctx, kernel.answer, kind);
    }
    action
}

#[inline(always)]
fn frame(ctx: &XdpContext, bytes: u32) -> Frame<'_> {
    // SAFETY: the kernel keeps this range readable while the program runs.
    unsafe { Frame::from_raw(ctx.data(), ctx.data_end(), bytes) }
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

//! What leaves through a protected interface: remembered, so that replies to nothing can be told.

use aya_ebpf::bindings::__sk_buff;
use aya_ebpf::macros::classifier;
use aya_ebpf::programs::TcContext;
use floodwall_common::packet::Frame;
use floodwall_common::replies::Conversation;

use crate::{clock, maps};

/// The packet goes on as if this were not here.
const NEXT: i32 = -1;

/// Remembers what is sent. It changes no packet and stops none.
#[classifier]
pub fn floodwall_egress(ctx: TcContext) -> i32 {
    let buffer: *mut __sk_buff = ctx.skb.skb;
    // SAFETY: the context is the one that the kernel gave, and it keeps this range readable while the program runs.
    let frame = unsafe { Frame::from_raw(ctx.data(), ctx.data_end(), (*buffer).len) };
    if let Some(conversation) = Conversation::of_sent(frame) {
        let trace = conversation.trace(&maps::config().key);
        if let Some(line) = maps::sent(trace) {
            line.remember(trace, clock::now());
        }
    }
    NEXT
}

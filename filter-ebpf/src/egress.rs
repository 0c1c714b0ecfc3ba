//! What leaves through a protected interface: remembered, so that replies to nothing can be told; and to whom, so that
//! who has completed a handshake is known.

use aya_ebpf::bindings::__sk_buff;
use aya_ebpf::macros::classifier;
use aya_ebpf::programs::TcContext;
use floodwall_common::packet::Frame;
use floodwall_common::replies::{self, Conversation};
use floodwall_common::verified;

use crate::{clock, maps};

/// The packet goes on as if this were not here.
const NEXT: i32 = -1;

/// Remembers what is sent. It changes no packet and stops none.
#[classifier]
pub fn floodwall_egress(ctx: TcContext) -> i32 {
    let buffer: *mut __sk_buff = ctx.skb.skb;
    // SAFETY: the context is the one that the kernel gave, and it keeps this range readable while the program runs.
    let frame = unsafe { Frame::from_raw(ctx.data(), ctx.data_end(), (*buffer).len) };
    let (key, now) = (&maps::config().key, clock::now());
    if let Some(conversation) = Conversation::of_sent(frame) {
        let trace = conversation.trace(key);
        maps::sent(trace).remember(trace, now, replies::SPAN);
    }
    if let Some(source) = verified::of_sent(frame) {
        let trace = verified::trace(key, source);
        maps::verified(trace).remember(trace, now, verified::SPAN);
    }
    NEXT
}

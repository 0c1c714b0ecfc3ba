//! SYN cookies: the listener's own, asked of the kernel, and the SYN-ACK that carries it back.

use core::ffi::c_void;
use core::ptr::from_ref;

use aya_ebpf::bindings::{bpf_sock, bpf_sock_tuple, xdp_action, xdp_md};
use aya_ebpf::helpers::generated::{
    bpf_sk_release, bpf_skc_lookup_tcp, bpf_tcp_check_syncookie, bpf_tcp_gen_syncookie, bpf_xdp_adjust_tail,
};
use aya_ebpf::programs::XdpContext;
use floodwall_common::class::Kind;
use floodwall_common::cookie::{
    LONG, LONGEST_SYN, Offer, SHORT, SynAck, fold, header_words, plain_syn, plain_tcp, sum,
};
use floodwall_common::packet::Frame;
use floodwall_common::replies::{self, Conversation};
use floodwall_common::verified;

use crate::{clock, maps};

const V4: usize = 54;
const V6: usize = 74;
const TCP: usize = 20;
/// Words of the longest TCP header, and one that may be read behind it.
const LONGEST: usize = LONGEST_SYN / 4 + 1;

/// The network namespace of the interface.
const THIS_NAMESPACE: u64 = u64::MAX;
/// The state of a socket that listens.
const LISTEN: u32 = 10;

/// What a SYN is answered with. One number, as it crosses a call.
#[derive(Clone, Copy)]
pub(crate) struct Answer(u64);

impl Answer {
    pub(crate) const NONE: Self = Self(0);
    const FOUND: u64 = 1 << 32;
    const OPENS: u64 = 1 << 33;

    /// Whether there is a cookie.
    #[inline(always)]
    pub(crate) const fn is_some(self) -> bool {
        self.0 & Self::FOUND != 0
    }

    /// Whether there is one, for a source that is verified.
    #[inline(always)]
    pub(crate) const fn opens(self) -> bool {
        self.0 & Self::OPENS != 0
    }

    #[inline(always)]
    const fn cookie(self) -> u32 {
        self.0 as u32
    }
}

/// The cookie that a listener has now for this SYN of the source with this key, if it has one.
#[inline(always)]
pub(crate) fn look_for(ctx: *mut xdp_md, key: u64) -> Answer {
    Answer(floodwall_cookie(ctx, key))
}

/// A global function, which the kernel verifies once.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn floodwall_cookie(ctx: *mut xdp_md, key: u64) -> u64 {
    let found = cookie(ctx);
    let trace = verified::trace(&maps::config().key, key);
    if found != 0 && maps::verified(trace).remembers(trace, clock::now(), verified::SPAN) {
        return found | Answer::OPENS;
    }
    found
}

#[inline(always)]
fn cookie(ctx: *mut xdp_md) -> u64 {
    let context = XdpContext::new(ctx);
    if let Some(syn) = plain_syn::<V4>(frame(&context)) {
        return ask::<V4>(&context, syn);
    }
    match plain_syn::<V6>(frame(&context)) {
        Some(syn) => ask::<V6>(&context, syn),
        None => 0,
    }
}

#[inline(always)]
fn frame(ctx: &XdpContext) -> Frame<'_> {
    // SAFETY: the kernel keeps this range readable while the program runs.
    unsafe { Frame::from_raw(ctx.data(), ctx.data_end(), 0) }
}

#[inline(always)]
fn ask<const LENGTH: usize>(ctx: &XdpContext, syn: &[u8; LENGTH]) -> u64 {
    let Some(header) = Header::copy(ctx, LENGTH - TCP) else { return 0 };
    // SAFETY: the kernel checks each of these ranges; what was looked up is released on the only way out.
    let cookie = unsafe {
        let listener = look_up(ctx, syn);
        if listener.is_null() {
            return 0;
        }
        let (ip, ip_bytes) = ip_header(syn);
        let cookie = bpf_tcp_gen_syncookie(
            listener.cast(),
            ip,
            ip_bytes,
            header.words.as_ptr().cast_mut().cast(),
            header.length,
        );
        bpf_sk_release(listener.cast());
        cookie
    };
    // No listener there, or none that has need of one.
    if cookie < 0 { 0 } else { Answer::FOUND | cookie as u64 & 0xffff_ffff }
}

/// The socket that a segment is for: of its connection, or else the listener of its port. Null where nobody is there.
///
/// # Safety
/// What is found has to be released.
#[inline(always)]
unsafe fn look_up<const LENGTH: usize>(ctx: &XdpContext, head: &[u8; LENGTH]) -> *mut bpf_sock {
    // Addresses and ports lie one behind the other in the frame, as in a tuple: 12 bytes or 36.
    let tuple_bytes = if LENGTH == V4 { 12 } else { 36 };
    let tuple = from_ref(&head[LENGTH - TCP + 4 - tuple_bytes]).cast::<bpf_sock_tuple>().cast_mut();
    // SAFETY: the kernel checks the range.
    unsafe { bpf_skc_lookup_tcp(ctx.ctx.cast(), tuple, tuple_bytes as u32, THIS_NAMESPACE, 0) }
}

/// The IP header of a plain segment, as helpers take it.
#[inline(always)]
fn ip_header<const LENGTH: usize>(head: &[u8; LENGTH]) -> (*mut c_void, u32) {
    (from_ref(&head[14]).cast_mut().cast(), (LENGTH - TCP - 14) as u32)
}

/// Whether the stack has a connection of the segment in the frame, or knows its own cookie in it. A global function, which the
/// kernel verifies once.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn floodwall_is_of_the_stack(ctx: *mut xdp_md) -> u32 {
    let context = XdpContext::new(ctx);
    if let Some(segment) = plain_tcp::<V4>(frame(&context)) {
        return u32::from(is_of_the_stack(&context, segment));
    }
    match plain_tcp::<V6>(frame(&context)) {
        Some(segment) => u32::from(is_of_the_stack(&context, segment)),
        None => 0,
    }
}

#[inline(always)]
fn is_of_the_stack<const LENGTH: usize>(ctx: &XdpContext, segment: &[u8; LENGTH]) -> bool {
    // SAFETY: the kernel checks each of these ranges; what was looked up is released on the only way out.
    let (listens, returns_cookie) = unsafe {
        let socket = look_up(ctx, segment);
        if socket.is_null() {
            return false;
        }
        let (ip, ip_bytes) = ip_header(segment);
        let tcp = from_ref(&segment[LENGTH - TCP]).cast_mut().cast();
        let listens = (*socket).state == LISTEN;
        let returns_cookie = listens && bpf_tcp_check_syncookie(socket.cast(), ip, ip_bytes, tcp, TCP as u32) == 0;
        bpf_sk_release(socket.cast());
        (listens, returns_cookie)
    };
    if returns_cookie {
        // Whoever returns one is where he says. What he sends next may come before the stack has made the connection, and
        // carries no cookie that could be checked.
        let trace = Conversation::of_plain(segment).trace(&maps::config().key);
        maps::sent(trace).remember(trace, clock::now(), replies::SPAN);
    }
    returns_cookie || !listens
}

/// A copy of a TCP header with its options: the kernel takes a length that varies of the stack only.
struct Header {
    words: [u32; LONGEST],
    length: u32,
}

impl Header {
    /// The one that begins at this place of the frame.
    #[inline(always)]
    fn copy(ctx: &XdpContext, at: usize) -> Option<Self> {
        let (start, end) = (ctx.data() + (at & 0x3f), ctx.data_end());
        if start + TCP > end {
            return None;
        }
        // SAFETY: just checked to lie inside the frame.
        let data_offset = unsafe { &*((start + 12) as *const u8) };
        let length = header_words(data_offset)?;
        let mut words = [0; LONGEST];
        let mut word = 0;
        while word < LONGEST - 1 {
            // Not asked of the words that every header has: a kernel up to 6.1 would follow the answer that there are none.
            if word >= TCP / 4 && word as u32 >= length {
                break;
            }
            let at = start + word * 4;
            if at + 4 > end {
                return None;
            }
            // SAFETY: just checked to lie inside the frame; a header has no alignment.
            words[word] = unsafe { (at as *const u32).read_unaligned() };
            word += 1;
        }
        // Anew, as the verifier would else walk the rest once for each length at which it left the loop.
        Some(Self { words, length: header_words(data_offset)? * 4 })
    }

    #[inline(always)]
    fn bytes(&self) -> &[u8; LONGEST * 4] {
        // SAFETY: as many bytes, and any bytes are bytes.
        unsafe { &*from_ref(&self.words).cast() }
    }
}

/// What the SYN whose TCP header begins at this place of the frame offers, as the bits of an [`Offer`].
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn floodwall_offer(ctx: *mut xdp_md, at: u32) -> u64 {
    match Header::copy(&XdpContext::new(ctx), at as usize) {
        Some(header) => Offer::read(header.bytes(), header.length as usize).bits(),
        None => 0,
    }
}

/// Makes the SYN in the frame its answer, and says to the kernel what becomes of it. What it offers is found out first, so
/// that the two functions need no room on the stack at once.
#[inline(always)]
pub(crate) fn answer(ctx: *mut xdp_md, with: Answer, kind: Kind) -> u32 {
    let headers = if kind.is_v6() { V6 - TCP } else { V4 - TCP };
    let offer = floodwall_offer(ctx, headers as u32);
    floodwall_syn_ack(ctx, with.cookie(), offer)
}

#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn floodwall_syn_ack(ctx: *mut xdp_md, cookie: u32, offer: u64) -> u32 {
    let offer = Offer::from_bits(offer);
    let context = XdpContext::new(ctx);
    if let Some(syn) = plain_syn::<V4>(frame(&context)) {
        return write::<V4>(&context, syn, cookie, offer);
    }
    match plain_syn::<V6>(frame(&context)) {
        Some(syn) => write::<V6>(&context, syn, cookie, offer),
        None => xdp_action::XDP_DROP,
    }
}

#[inline(always)]
fn write<const LENGTH: usize>(ctx: &XdpContext, syn: &[u8; LENGTH], cookie: u32, offer: Offer) -> u32 {
    let Some(bare) = syn.last_chunk::<TCP>() else { return xdp_action::XDP_DROP };
    let cookies = &maps::config().cookies;
    let milliseconds = || (clock::monotonic_ns() / 1_000_000) as u32;
    let clock = (cookies.timestamps != 0 && offer.has_timestamp()).then(milliseconds);
    let mss = cookies.mss[usize::from(LENGTH == V6)];
    let syn_ack = SynAck::new(bare, offer, cookie, mss, cookies.window_scale as u8, clock);
    if clock.is_some() { send::<LENGTH, LONG>(ctx, &syn_ack) } else { send::<LENGTH, SHORT>(ctx, &syn_ack) }
}

#[inline(always)]
fn send<const LENGTH: usize, const WORDS: usize>(ctx: &XdpContext, syn_ack: &SynAck) -> u32 {
    let headers = LENGTH - TCP;
    let surplus = (headers + WORDS * 4) as i32 - (ctx.data_end() - ctx.data()) as i32;
    // SAFETY: the kernel checks the length; the frame is read anew behind it.
    if unsafe { bpf_xdp_adjust_tail(ctx.ctx, surplus) } != 0 {
        return xdp_action::XDP_DROP;
    }
    let start = ctx.data();
    if start + LENGTH - TCP + WORDS * 4 > ctx.data_end() {
        return xdp_action::XDP_DROP;
    }
    let byte = start as *mut u8;
    // SAFETY: all of it lies inside the frame, by the check above; headers have no alignment.
    unsafe {
        swap::<[u8; 6]>(byte, byte.add(6));
        let tcp = byte.add(headers).cast::<[u32; WORDS]>();
        let mut words = [0; WORDS];
        words.copy_from_slice(&syn_ack.words[..WORDS]);
        tcp.write_unaligned(words);
        let length = (WORDS * 4) as u16;
        let addresses = if LENGTH == V4 {
            swap::<[u8; 4]>(byte.add(26), byte.add(30));
            let ip = byte.add(14).cast::<[u32; 3]>();
            let first = [0x4500_0000 | (20 + u32::from(length)), 0x4000, 64 << 24 | 6 << 16];
            let mut first = [first[0].to_be(), first[1].to_be(), first[2].to_be()];
            let addresses = sum(&byte.add(26).cast::<[u32; 2]>().read_unaligned());
            first[2] |= u32::from_ne_bytes({
                let [low, high] = fold(sum(&first) + addresses).to_ne_bytes();
                [0, 0, low, high]
            });
            ip.write_unaligned(first);
            addresses
        } else {
            swap::<[u8; 16]>(byte.add(22), byte.add(38));
            let first = [0x6000_0000u32.to_be(), (u32::from(length) << 16 | 6 << 8 | 64).to_be()];
            byte.add(14).cast::<[u32; 2]>().write_unaligned(first);
            sum(&byte.add(22).cast::<[u32; 8]>().read_unaligned())
        };
        let pseudo = addresses + u64::from((6u32 << 16 | u32::from(length)).to_be());
        let checksum = fold(sum(&words) + pseudo);
        byte.add(headers + 16).cast::<u16>().write_unaligned(checksum);
    }
    xdp_action::XDP_TX
}

/// Exchanges two places in a frame.
///
/// # Safety
/// Both are inside it, and apart.
#[inline(always)]
unsafe fn swap<T: Copy>(one: *mut u8, other: *mut u8) {
    // SAFETY: by the caller; nothing has an alignment.
    unsafe {
        let (first, second) = (one.cast::<T>().read_unaligned(), other.cast::<T>().read_unaligned());
        one.cast::<T>().write_unaligned(second);
        other.cast::<T>().write_unaligned(first);
    }
}

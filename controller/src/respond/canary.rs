//! A canary: for two seconds a slice of what a signature drops is let through, and it is seen whether those who send it behave as clients
//! do ([ADR 0040](../../../docs/adr/0040-canary.md)): over TCP this host has sent data to them, which it does behind a handshake only; over
//! UDP they go on behind an answer.

use std::collections::HashMap;

use floodwall_common::class::Family;
use floodwall_common::signatures::{Fragment, Range, Shape};

use super::probe::{BLOCK, BLOCKS, FIRST_PORT};
use super::signature::{TCP, UDP};
use super::toll::{Sources, are_few};
use crate::detect::{Observed, Tuple, Window};

/// How long a slice is open.
pub const OPEN_NS: u64 = 2_000_000_000;
/// Source ports of a slice: of a flood from random ports 0.4 %.
const WIDTH: u16 = 256;
/// Conversations in it that say something.
const ENOUGH: usize = 20;
/// How long after its first packet one goes on. What is known of a packet is known a moment after it came.
const GOES_ON_NS: u64 = 300_000_000;
/// The share of them that is of clients, from which on a signature hurts more than it helps.
const TOO_MANY: f64 = 0.1;

/// The source ports that are left open; each turn it is another slice of those that systems of today take their ports from. `None` where it is
/// the source port that a flood is told by, or there is none: later fragments would all pass.
pub fn slice(shape: &Shape, turn: u16) -> Option<Range> {
    let all_have_ports = shape.fragments == 1 << Fragment::None as u8 || shape.asks_ports() || shape.asks_tcp();
    let has_ports = matches!(shape.protocol, TCP | UDP) && all_have_ports;
    let first = FIRST_PORT + turn % BLOCKS * BLOCK;
    (has_ports && shape.source_ports == Range::ANY).then_some(Range { first, last: first + (WIDTH - 1) })
}

/// What suits a signature but is not of the slice: below it, and above it.
pub fn around(shape: &Shape, slice: Range) -> [Shape; 2] {
    let of = |first, last| Shape { source_ports: Range { first, last }, ..*shape };
    [of(0, slice.first - 1), of(slice.last + 1, u16::MAX)]
}

/// What was seen of a slice.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Seen {
    /// Conversations.
    pub all: usize,
    /// Those of clients.
    pub of_clients: usize,
    /// The sources of these, and of all.
    pub sources: [usize; 2],
    /// Some of these were clients before what goes on now.
    pub are_regulars: bool,
}

impl Seen {
    /// What came through since then of what suits a signature, in the window. `is_verified` tells whether this host has sent data to a source over
    /// TCP.
    pub fn of(
        window: &Window,
        (shape, slice): (&Shape, Range),
        since_ns: u64,
        is_verified: impl Fn(&Observed) -> bool,
    ) -> Self {
        let is_let_through = |packet: &&Observed| {
            let is_in = |(from, _): (u16, u16)| slice.has(from);
            packet.at_ns >= since_ns && !packet.is_held && packet.ports.is_some_and(is_in) && suits(shape, packet)
        };
        // Of each its first packet, and whether it goes on.
        let mut conversations: HashMap<Tuple, (&Observed, bool)> = HashMap::new();
        for packet in window.packets().map(|(_, packet)| packet).filter(is_let_through) {
            let Some(tuple) = packet.tuple() else { continue };
            let (first, goes_on) = conversations.entry(tuple).or_insert((packet, false));
            *goes_on |= packet.is_known == Some(true) && packet.at_ns.saturating_sub(first.at_ns) >= GOES_ON_NS;
        }
        let is_client = |(first, goes_on): &&(&Observed, bool)| match shape.protocol {
            TCP => is_verified(first),
            _ => *goes_on,
        };
        let (mut of_clients, mut are_regulars) = (0, false);
        let mut sources = [Sources::default(), Sources::default()];
        for conversation in conversations.values() {
            sources[1].take(conversation.0.source);
            if is_client(&conversation) {
                of_clients += 1;
                sources[0].take(conversation.0.source);
                are_regulars |= window.was_here(conversation.0.source);
            }
        }
        Self { all: conversations.len(), of_clients, sources: sources.map(|of| of.count()), are_regulars }
    }

    /// The share of clients, where that is too much.
    pub fn too_many(self) -> Option<f64> {
        let share = self.of_clients as f64 / self.all.max(1) as f64;
        let [of_clients, all] = self.sources;
        let are_few = !self.are_regulars && are_few(of_clients, all);
        (self.all >= ENOUGH && share >= TOO_MANY && !are_few).then_some(share)
    }
}

/// Whether a packet is one of those that a signature drops, as far as signatures ask that are found by themselves.
pub fn suits(shape: &Shape, packet: &Observed) -> bool {
    let is_of = |bits: u8, place: u32| bits >> place & 1 == 1;
    shape.protocol == u16::from(packet.protocol)
        && is_of(shape.families, packet.source.family() as u32)
        && is_of(shape.fragments, packet.fragment as u32)
        && packet.flags.unwrap_or(0) & shape.flags_mask == shape.flags & shape.flags_mask
        && (shape.asks_layout == 0 || packet.layout == shape.layout)
        && packet.ports.is_some_and(|(_, to)| shape.destination_ports.has(to))
        && shape.lengths.has(packet.length)
        && shape.hops.has(packet.hops.into())
}

const _: () = assert!(Family::V4 as u32 == 0 && FIRST_PORT > WIDTH);

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u64 = 1_000_000_000;
    const SHAPE: Shape = Shape { protocol: UDP, lengths: Range { first: 60, last: 60 }, fragments: 1, ..Shape::ANY };

    #[test]
    fn a_slice_is_another_one_each_turn_and_all_but_it_is_dropped() {
        let slice = slice(&SHAPE, 0).unwrap();
        assert_eq!(slice, Range { first: 49_152, last: 49_407 });
        assert_eq!(super::slice(&SHAPE, 1).map(|slice| slice.first), Some(50_176));
        assert_eq!(super::slice(&SHAPE, BLOCKS).map(|slice| slice.first), Some(49_152));
        let [below, above] = around(&SHAPE, slice);
        assert_eq!((below.source_ports, below.lengths), (Range { first: 0, last: 49_151 }, SHAPE.lengths));
        assert_eq!((above.source_ports, above.lengths), (Range { first: 49_408, last: u16::MAX }, SHAPE.lengths));
        let of_port = Shape { source_ports: Range { first: 53, last: 53 }, ..SHAPE };
        assert_eq!(super::slice(&of_port, 0), None, "it is the port that it is told by");
        assert_eq!(super::slice(&Shape { protocol: 1, ..SHAPE }, 0), None, "no ports");
        assert_eq!(super::slice(&Shape { fragments: Shape::ANY.fragments, ..SHAPE }, 0), None, "some have no ports");
    }

    #[test]
    fn who_goes_on_is_a_client_and_who_only_sends_is_not() {
        let slice = slice(&SHAPE, 0).unwrap();
        let datagram = |port: u16, at_ns, is_known| Observed {
            protocol: 17,
            flags: None,
            layout: 0,
            is_known: Some(is_known),
            ..Observed::segment(u32::from(port), port, at_ns, 0)
        };
        let seen = |clients: u16, others: u16| {
            let mut window = Window::default();
            for number in 0..clients + others {
                window.take(datagram(slice.first + number, 2 * SECOND, true));
                window.take(datagram(slice.first + number, 2 * SECOND + SECOND / 2, number < clients));
            }
            // From before, of other ports, of another length, and dropped: none of it says anything.
            window.take(datagram(slice.last, SECOND, true));
            window.take(datagram(slice.last + 1, 2 * SECOND, true));
            window.take(Observed { length: 61, ..datagram(slice.last, 2 * SECOND, true) });
            window.take(Observed { is_held: true, ..datagram(slice.last, 2 * SECOND, true) });
            Seen::of(&window, (&SHAPE, slice), 2 * SECOND, |_| true)
        };
        let flood = seen(0, 100);
        assert_eq!(
            (flood, flood.too_many()),
            (Seen { all: 100, of_clients: 0, sources: [0, 100], are_regulars: false }, None),
            "answered, and that was all"
        );
        assert_eq!(seen(5, 95).too_many(), None, "one in twenty");
        assert_eq!(seen(30, 70).too_many(), Some(0.3));
        assert_eq!(seen(19, 0).too_many(), None, "too few to say");
    }

    /// Anybody can send an ACK behind a forged SYN: it is this host that knows whom it speaks with.
    #[test]
    fn over_tcp_whom_this_host_has_sent_data_to_is_a_client() {
        let shape = Shape { protocol: TCP, flags: 0x02, flags_mask: 0x12, ..Shape::ANY };
        let slice = slice(&shape, 3).unwrap();
        let mut window = Window::default();
        for number in 0..100 {
            let segment =
                |flags| Observed { is_known: Some(true), ..Observed::segment(number, slice.first, SECOND, flags) };
            window.take(segment(0x02));
            window.take(segment(0x10));
        }
        let seen = Seen::of(&window, (&shape, slice), SECOND, |packet| packet.source.key() < 40);
        assert_eq!(seen, Seen { all: 100, of_clients: 40, sources: [40, 100], are_regulars: false });
        assert!(seen.too_many().is_some() && Seen { sources: [2, 100], ..seen }.too_many().is_none(), "{seen:?}");
    }
}

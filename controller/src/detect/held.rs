//! Connections that are open and ask for nothing: what a source holds of these, by what the host's own stack knows of each. What
//! tells somebody who means to use up all room from customers whose connections rest.
//!
//! A connection at rest on which the last word was this host's is one that is kept for the next request, and no matter here; nor is
//! one on which a request waits for its answer, however long.

use std::collections::{BTreeMap, HashMap};

use floodwall_common::class::Family;
use floodwall_common::packet::Source;

/// How long nothing has to be said after a handshake, in milliseconds: a request comes right behind it.
const SILENT_MS: u32 = 1_000;
/// How long this host has to wait while something comes now and then, and how much later than its last word that has to come.
const WAITED_MS: u32 = 4_000;
const LATER_MS: u32 = 1_000;
/// Bytes that come in a segment, and in a second, where it is no request, no upload and no stream.
const PER_SEGMENT: u64 = 128;
const PER_SECOND: u64 = 50;
/// Slow connections of a source that holds them: browsers open one or two before they need them.
const HOLDS: u32 = 4;
/// Of so many of its connections one may be another: who is served asks for something.
const OTHERS: u32 = 10;
/// Sources that are told at most.
const MOST: usize = 1_024;

/// An open connection, by the host's stack.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Open {
    /// Whose it is.
    pub source: Source,
    /// Milliseconds since this host has said something; where it never has, since the connection is there.
    pub quiet_ms: u32,
    /// Milliseconds since the source has.
    pub unheard_ms: u32,
    /// Bytes that came.
    pub received: u64,
    /// Segments that brought them.
    pub segments: u32,
    /// This host has said something.
    pub has_spoken: bool,
    /// It has more to say, and the source takes nothing.
    pub is_refused: bool,
}

/// How a connection is slow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Slow {
    /// Nobody has said anything.
    Silent,
    /// A few bytes come now and then, and make no request; or an answer that was asked for is not taken.
    Dragged,
}

impl Open {
    fn slow(&self) -> Option<Slow> {
        if self.is_refused {
            return (self.quiet_ms >= WAITED_MS).then_some(Slow::Dragged);
        }
        if self.received == 0 {
            return (!self.has_spoken && self.quiet_ms >= SILENT_MS).then_some(Slow::Silent);
        }
        let is_waited_for = self.quiet_ms >= WAITED_MS && self.unheard_ms.saturating_add(LATER_MS) <= self.quiet_ms;
        let is_little = self.received <= PER_SEGMENT * u64::from(self.segments)
            && self.received * 1_000 <= PER_SECOND * u64::from(self.quiet_ms);
        (is_waited_for && is_little).then_some(Slow::Dragged)
    }
}

/// A source that holds connections and uses none.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Holder {
    /// Who: of IPv6 the /64.
    pub source: Source,
    /// Slow connections of it.
    pub slow: u32,
    /// Others.
    pub others: u32,
    /// When the oldest of the slow ones began to be slow, or before.
    pub since_ns: u64,
}

/// What is open, and what is held.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Held {
    /// Connections that are open, of those that were looked at.
    pub open: usize,
    /// Slow ones of sources that hold several and use none.
    pub slow: usize,
    /// Of these, the share on which a few bytes come now and then, or nothing is taken.
    pub dragged: f64,
    /// How full the queue of the fullest listener is.
    pub fullness: f64,
    /// The ports whose listeners have no room left, and how many connections wait there.
    pub full: BTreeMap<u16, u32>,
    /// Of those who hold them, the share of whose networks nobody was here before. Of whom nobody can say is none of these.
    pub newcomers: f64,
    /// Who holds them: those that hold most first, at most 1,024.
    pub holders: Vec<Holder>,
    /// Who has any open connection, as [`Source::key`].
    pub sources: Vec<(u64, Family)>,
}

impl Held {
    /// What these connections come to.
    pub fn of(open: &[Open], fullness: f64, now_ns: u64) -> Self {
        let mut sources = HashMap::<(u64, Family), (Holder, u32)>::new();
        for one in open {
            let nothing = Holder { source: one.source, slow: 0, others: 0, since_ns: now_ns };
            let key = (one.source.key(), one.source.family());
            let (holder, dragged) = sources.entry(key).or_insert((nothing, 0));
            match one.slow() {
                None => holder.others += 1,
                Some(slow) => {
                    holder.slow += 1;
                    *dragged += u32::from(slow == Slow::Dragged);
                    let since_ns = now_ns.saturating_sub(u64::from(one.quiet_ms) * 1_000_000);
                    holder.since_ns = holder.since_ns.min(since_ns);
                }
            }
        }
        let present = sources.keys().copied().collect();
        let holds = |holder: &Holder| holder.slow >= HOLDS && holder.others * OTHERS <= holder.slow;
        sources.retain(|_, (holder, _)| holds(holder));
        let (slow, dragged) = sources
            .values()
            .fold((0, 0), |sum, (holder, dragged)| (sum.0 + holder.slow as usize, sum.1 + *dragged as usize));
        let mut holders: Vec<_> = sources.into_values().map(|(holder, _)| holder).collect();
        holders.sort_by(|a, b| b.slow.cmp(&a.slow).then_with(|| a.source.halves().cmp(&b.source.halves())));
        holders.truncate(MOST);
        let dragged = dragged as f64 / slow.max(1) as f64;
        Self {
            open: open.len(),
            slow,
            dragged,
            fullness,
            full: BTreeMap::new(),
            newcomers: 0.0,
            holders,
            sources: present,
        }
    }

    /// The share of all that is open which is held.
    pub fn share(&self) -> f64 {
        self.slow as f64 / self.open.max(1) as f64
    }

    /// The same, of whom only those stay named who are certainly new here.
    pub(super) fn judged(mut self, is_new: impl FnMut(&Holder) -> bool) -> Self {
        let all = self.holders.len();
        self.holders.retain(is_new);
        self.newcomers = self.holders.len() as f64 / all.max(1) as f64;
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SILENT: Open = Open {
        source: Source::V4(7),
        quiet_ms: 1_200,
        unheard_ms: 1_200,
        received: 0,
        segments: 0,
        has_spoken: false,
        is_refused: false,
    };

    #[test]
    fn nothing_said_and_a_byte_now_and_then_are_slow() {
        assert_eq!(SILENT.slow(), Some(Slow::Silent));
        assert_eq!(Open { quiet_ms: 900, unheard_ms: 900, ..SILENT }.slow(), None, "it was opened a moment ago");
        let trickle = Open { quiet_ms: 10_000, unheard_ms: 5_000, received: 1, segments: 1, ..SILENT };
        assert_eq!(trickle.slow(), Some(Slow::Dragged));
        let headers = Open { quiet_ms: 30_000, unheard_ms: 9_000, received: 230, segments: 3, ..SILENT };
        assert_eq!(headers.slow(), Some(Slow::Dragged), "half a request, and a line more every ten seconds");
        let tls = Open { quiet_ms: 45_000, unheard_ms: 2_000, received: 700, segments: 7, has_spoken: true, ..SILENT };
        assert_eq!(tls.slow(), Some(Slow::Dragged), "the same behind a handshake of TLS");
    }

    #[test]
    fn customers_whose_connections_rest_are_not() {
        let of = |quiet_ms, unheard_ms, received, segments, has_spoken| {
            Open { quiet_ms, unheard_ms, received, segments, has_spoken, ..SILENT }.slow()
        };
        assert_eq!(of(60_000, 60_050, 900, 3, true), None, "kept for the next request");
        assert_eq!(of(50_000, 49_950, 640, 1, false), None, "a request that waits: a long poll, or a slow service");
        assert_eq!(of(90_000, 40_000, 1_300, 2, true), None, "the second long poll of a connection");
        assert_eq!(of(3_000, 10, 324, 5, true), None, "a WebSocket that is answered");
        assert_eq!(of(25_000, 10, 4_800, 80, true), None, "one that sends more than it is sent");
        assert_eq!(of(30_000, 200, 45_000, 40, false), None, "an upload over a slow link");
        assert_eq!(of(30_000, 9_000, 5_600, 4, false), None, "one that has stalled");
        assert_eq!(of(20_000, 500, 9_000, 90, false), None, "lines of a log that nobody answers");
        assert_eq!(of(30_000, 30_000, 0, 0, true), None, "a greeting that nobody has answered yet");
        let taken = Open { quiet_ms: 900, received: 400, segments: 1, has_spoken: true, is_refused: true, ..SILENT };
        assert_eq!(taken.slow(), None, "a page over a slow link, that waits for room");
        assert_eq!(Open { quiet_ms: 9_000, ..taken }.slow(), Some(Slow::Dragged), "one that is not taken at all");
    }

    fn open(source: u32, count: usize, one: Open) -> Vec<Open> {
        vec![Open { source: Source::V4(source), ..one }; count]
    }

    #[test]
    fn who_uses_some_of_his_connections_holds_none() {
        let served = Open { quiet_ms: 100, unheard_ms: 200, received: 400, segments: 1, has_spoken: true, ..SILENT };
        let all = [
            open(1, 5, SILENT),
            open(2, 3, SILENT),
            open(3, 30, SILENT),
            open(3, 4, served),
            open(4, 12, SILENT),
            open(4, 1, served),
        ];
        let held = Held::of(&all.concat(), 0.5, 10_000_000_000);
        let holders: Vec<_> = held.holders.iter().map(|holder| (holder.source, holder.slow, holder.others)).collect();
        assert_eq!(holders, [(Source::V4(4), 12, 1), (Source::V4(1), 5, 0)], "{held:?}");
        assert_eq!((held.open, held.slow, held.dragged), (55, 17, 0.0), "{held:?}");
        assert_eq!(held.holders[0].since_ns, 8_800_000_000);
    }

    #[test]
    fn who_may_have_been_here_before_is_not_named() {
        let held = Held::of(&[open(1, 5, SILENT), open(2, 5, SILENT), open(3, 5, SILENT)].concat(), 0.0, 0);
        let judged = held.judged(|holder| holder.source == Source::V4(2));
        assert!((judged.newcomers - 1.0 / 3.0).abs() < 1e-9, "{judged:?}");
        assert_eq!(judged.holders.iter().map(|holder| holder.source).collect::<Vec<_>>(), [Source::V4(2)]);
        assert_eq!(judged.slow, 15);
    }
}

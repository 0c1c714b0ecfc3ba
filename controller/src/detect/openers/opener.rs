//! What is known of a source that begins connections.

use floodwall_common::packet::Source;
use floodwall_common::signatures::Layout;

use super::{AGAIN, AGAIN_SECONDS, PERSISTENT, PERSISTENT_NS, PORTS, SECOND_NS, SECONDS, SEEN, SPAN};
use crate::detect::observed::Observed;

/// A second of a source. There are many: the numbers are small.
#[derive(Clone, Copy, Default)]
pub(super) struct Second {
    /// Which it is.
    pub(super) number: u32,
    /// Connections begun in it.
    pub(super) begun: f32,
    /// Samples of these.
    pub(super) samples: u32,
}

/// What is known of a source.
pub(super) struct Opener {
    pub(super) source: Source,
    pub(super) first_ns: u64,
    pub(super) last_ns: u64,
    /// Each of the last seconds.
    pub(super) seconds: [Second; SPAN],
    /// The ports that it has begun from last, and where the next one goes.
    pub(super) ports: ([u16; PORTS], usize),
    /// What its first SYN looked like, and whether all others did.
    pub(super) look: (Layout, u8, u16),
    pub(super) is_one_system: bool,
    /// It has gone on with what this host has sent it.
    pub(super) completes: bool,
    /// This host has sent data there, which it does behind a handshake only, or has an open connection with it; or nobody can say whether
    /// it has.
    pub(super) is_there: bool,
    pub(super) is_held: bool,
}

impl Opener {
    pub(super) const fn of(packet: &Observed) -> Self {
        Self {
            source: packet.source,
            first_ns: packet.at_ns,
            last_ns: packet.at_ns,
            seconds: [Second { number: 0, begun: 0.0, samples: 0 }; SPAN],
            ports: ([0; PORTS], 0),
            look: look(packet),
            is_one_system: true,
            completes: false,
            is_there: false,
            is_held: false,
        }
    }

    /// Whether it begins from a port that it has not begun from lately.
    pub(super) fn is_new(&mut self, port: u16) -> bool {
        let (ports, next) = &mut self.ports;
        let is_new = !ports.contains(&port);
        if is_new {
            ports[*next % PORTS] = port;
            *next += 1;
        }
        is_new
    }

    /// Whether it is persistent as a program is, and people are not.
    pub(super) fn is_machine(&self, now_ns: u64) -> bool {
        self.is_one_system && self.completes && self.is_steady(now_ns, SECONDS) && self.is_persistent(now_ns)
    }

    /// Whether it may become one.
    pub(super) fn begins_again(&self, now_ns: u64) -> bool {
        let (begun, _) = self.since((now_ns / SECOND_NS).saturating_sub(SPAN as u64 - 1));
        self.is_one_system && begun >= AGAIN && self.is_steady(now_ns, AGAIN_SECONDS)
    }

    pub(super) fn is_steady(&self, now_ns: u64, seconds: usize) -> bool {
        let since = (now_ns / SECOND_NS).saturating_sub(SPAN as u64 - 1);
        self.recent(since).filter(|second| second.samples > 0).count() >= seconds
    }

    pub(super) fn recent(&self, since: u64) -> impl Iterator<Item = &Second> {
        self.seconds.iter().filter(move |second| u64::from(second.number) >= since)
    }

    pub(super) fn since(&self, second: u64) -> (f64, u32) {
        self.recent(second).fold((0.0, 0), |sum, second| (sum.0 + f64::from(second.begun), sum.1 + second.samples))
    }

    pub(super) fn is_persistent(&self, now_ns: u64) -> bool {
        let (begun, samples) = self.since((now_ns / SECOND_NS).saturating_sub(SPAN as u64 - 1));
        // Of whoever has only forged SYNs anybody may be the source.
        self.is_there
            && begun >= PERSISTENT
            && samples >= SEEN
            && self.last_ns.saturating_sub(self.first_ns) >= PERSISTENT_NS
            && now_ns.saturating_sub(self.last_ns) < 2 * SECOND_NS
    }
}

/// What the SYNs of one system have in common.
pub(super) const fn look(packet: &Observed) -> (Layout, u8, u16) {
    (packet.layout, packet.hops, packet.length)
}

//! What this host knows of those that packets are from, and of itself.

use std::collections::BTreeSet;

use floodwall_common::packet::Source;
use floodwall_common::replies::Conversation;

use super::super::connections::Lookout;
use crate::dataplane::{Clock, SentReader, monotonic_ns};
use crate::detect::{Group, Handshakes, Held, Host, Observed, Rates};
use crate::pressure::Pressure;
use crate::snapshot::unix_s;

/// How long nothing may be matched by the memory of what was sent, where most of it leaves elsewhere.
const UNMATCHED_NS: u64 = 60_000_000_000;

/// What detection may ask of this host.
#[derive(Default)]
pub(super) struct Live {
    pub(super) sent: Option<SentReader>,
    /// Most of what this host sends leaves through other devices, by their own counts.
    pub(super) sends_elsewhere: bool,
    pub(super) matched_ns: u64,
    pub(super) clock: Option<Clock>,
    pub(super) udp: BTreeSet<u16>,
    pub(super) rates: Option<Rates>,
    pub(super) stack: Option<Handshakes>,
    pub(super) lookout: Lookout,
    pub(super) pressure: Pressure,
    pub(super) probed: Option<(Group, f64)>,
}

impl Host for Live {
    fn has_sent(&self, conversation: Conversation) -> Option<bool> {
        if self.sends_elsewhere && monotonic_ns().saturating_sub(self.matched_ns) > UNMATCHED_NS {
            return None;
        }
        Some(self.sent.as_ref()?.has_sent(conversation, self.clock?))
    }

    fn is_verified(&self, source: Source) -> Option<bool> {
        Some(self.sent.as_ref()?.is_verified(source.key(), self.clock?))
    }

    fn serves_udp(&self, port: u16) -> bool {
        self.udp.contains(&port)
    }

    fn rates(&self) -> Option<Rates> {
        self.rates
    }

    fn stack(&self) -> Option<Handshakes> {
        self.stack
    }

    fn held(&self) -> Option<&Held> {
        self.lookout.held.as_ref()
    }

    fn pressure(&self) -> Pressure {
        self.pressure
    }

    fn probe(&self) -> Option<(Group, f64)> {
        self.probed
    }

    fn unix_hour(&self) -> Option<u64> {
        Some(unix_s() / 3_600)
    }
}

impl Live {
    /// Whether the memory of what was sent has this end in it.
    pub(super) fn knows(&self, packet: &Observed) -> bool {
        packet.is_known == Some(true)
            || self.sent.is_some() && self.sends_elsewhere && {
                let conversation =
                    packet.tuple().map(|tuple| Conversation { protocol: packet.protocol, ..(&tuple).into() });
                let has_sent = |conversation| Some(self.sent.as_ref()?.has_sent(conversation, self.clock?));
                conversation.and_then(has_sent) == Some(true)
            }
    }
}

/// Whether more leaves through other devices than through these: then what is remembered of them may be of little use.
pub(super) fn sends_elsewhere(protected: &[&str]) -> bool {
    let devices = procfs::net::dev_status().unwrap_or_default().into_values();
    let (mut here, mut elsewhere) = (0, 0);
    for device in devices.filter(|device| device.name != "lo") {
        if protected.contains(&device.name.as_str()) {
            here += device.sent_packets;
        } else {
            elsewhere += device.sent_packets;
        }
    }
    elsewhere > here
}

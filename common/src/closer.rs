//! A closer look at a packet, for what somebody has armed: whom it is for, what it answers, who sent it.
//!
//! The headers are read once more, now with both ends. Off the common path: a packet that nobody asks this of never gets
//! here.

use crate::class::Kind;
use crate::config::Config;
use crate::meter::{Ask, Meter, Meters};
use crate::packet::Frame;
use crate::packet::ends::Ends;
use crate::reason::Reason;
use crate::replies::Conversation;
use crate::services::{Transport, is_expected, service_of};

/// What this host remembers and has been told, beside lists and limits.
pub trait Memory {
    /// Whether this host has begun this conversation.
    fn has_sent(&self, conversation: Conversation) -> bool;
    /// Whether the source with this [`crate::packet::Source::key`] has shown that it is where it says.
    fn is_verified(&self, key: u64) -> bool;
    /// Whether it had shown so before what goes on now began.
    fn is_known(&self, key: u64) -> bool;
    /// Whether the stack knows the connection of the packet that is judged, or knows its own cookie in it: a handshake whose answer
    /// did not leave through the stack is remembered nowhere else.
    fn is_of_the_stack(&self) -> bool;
    /// Whether this SYN is the first of its connection: [`crate::first_syn::is_first`].
    fn is_first_syn(&self, connection: Conversation) -> bool;
    /// Whether replies come from this UDP port.
    fn is_amplifier(&self, port: u16) -> bool;
    /// Whether this meter refuses whoever has this key, as far as can be told without a change; where in doubt `false`.
    fn refuses(&self, key: u64, meter: &Meter) -> bool;
    /// The service behind a port, or zero.
    fn service(&self, transport: Transport, port: u16) -> u8;
}

/// What a closer look has found. One number, as it crosses a call in the kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Closer(u64);

impl Closer {
    /// Nothing.
    pub const NOTHING: Self = Self(0);

    const fn because(reason: Reason) -> Self {
        Self(reason as u64)
    }

    const fn of(service: u8) -> Self {
        Self((service as u64) << 8)
    }

    /// As a number.
    #[inline(always)]
    pub const fn to_bits(self) -> u64 {
        self.0
    }

    /// From that number.
    #[inline(always)]
    pub const fn from_bits(bits: u64) -> Self {
        Self(bits)
    }

    /// Whether the cap of its service refuses it, of whatever else it is asked: of its limits, which are charged.
    #[inline(always)]
    pub(crate) const fn is_past_cap(self) -> bool {
        self.0 as u8 == Reason::ServiceCap as u8
    }

    /// Why the packet goes no further, if it does not, for anything but a cap.
    #[inline(always)]
    pub(crate) const fn reason(self) -> Option<Reason> {
        const { assert!(Reason::Passed as u8 == 0) }
        match self.0 as u8 {
            0 => None,
            // One of the few that come from here; a match over all of them would be a table.
            found if found == Reason::NoService as u8 => Some(Reason::NoService),
            found if found == Reason::UnsolicitedReply as u8 => Some(Reason::UnsolicitedReply),
            found if found == Reason::OutOfState as u8 => Some(Reason::OutOfState),
            _ => Some(Reason::FirstSyn),
        }
    }

    /// The service that it is for, or zero; known only where a cap or a lockdown is asked.
    #[inline(always)]
    pub(crate) const fn service(self) -> u8 {
        (self.0 >> 8) as u8
    }
}

/// Looks closer at a packet of a source, for what its meters ask.
#[inline(always)]
pub fn look_closer(frame: Frame<'_>, key: u64, kind: Kind, config: &Config, memory: &impl Memory) -> Closer {
    let meters = config.meters(kind);
    // Later fragments, and what is malformed and passes all the same: others judge these.
    let Some(ends) = Ends::read(frame) else {
        return Closer::NOTHING;
    };
    let service = if meters.ask(Ask::A_SERVICE) { service_of(&ends, memory) } else { 0 };
    if is_locked_out(service, meters) && !is_expected(&ends, memory) {
        return Closer::because(Reason::NoService);
    }
    if is_past_cap(service, key, meters, config, memory) {
        return Closer::because(Reason::ServiceCap);
    }
    if meters.ask(Ask::REPLIES)
        && answers_nothing(Conversation::of_claim(&ends, |port| memory.is_amplifier(port)), memory)
    {
        return Closer::because(Reason::UnsolicitedReply);
    }
    if meters.ask(Ask::STATE) && is_out_of_state(Conversation::of_answer(&ends), key, config, memory) {
        return Closer::because(Reason::OutOfState);
    }
    if meters.ask(Ask::FIRST_SYN)
        && !memory.is_verified(key)
        && let Some(connection) = Conversation::of_answer(&ends)
        && memory.is_first_syn(connection)
    {
        return Closer::because(Reason::FirstSyn);
    }
    Closer::of(service)
}

/// Whether a packet for this service, or none, has to be expected by somebody else.
#[inline(always)]
pub(crate) const fn is_locked_out(service: u8, meters: &Meters) -> bool {
    service == 0 && meters.ask(Ask::LOCKDOWN)
}

/// Whether what a packet claims to answer is nothing that this host has asked.
#[inline(always)]
pub(crate) fn answers_nothing(claim: Option<Conversation>, memory: &impl Memory) -> bool {
    claim.is_some_and(|answered| !memory.has_sent(answered))
}

/// Whether nobody here has spoken on this connection lately, nor with this source. Beside cookies the stack is asked last: what
/// it costs is paid for what is about to be dropped.
#[inline(always)]
pub(crate) fn is_out_of_state(
    connection: Option<Conversation>,
    key: u64,
    config: &Config,
    memory: &impl Memory,
) -> bool {
    connection.is_some_and(|connection| {
        !memory.has_sent(connection)
            && !memory.is_verified(key)
            && (!config.cookies.are_armed() || !memory.is_of_the_stack())
    })
}

/// Whether the cap of the service refuses the source whatever else is found: then nothing dear is asked of a flood. What gets a
/// cookie is never charged to a cap, and so not refused by one; a first SYN is remembered whether or not there is room for it.
#[inline(always)]
pub(crate) fn is_past_cap(service: u8, key: u64, meters: &Meters, config: &Config, memory: &impl Memory) -> bool {
    if service == 0 || !meters.ask(Ask::CAP) || meters.ask(Ask::OF_SYNS) {
        return false;
    }
    let cap = config.cap(service);
    cap.is_armed() && memory.refuses(u64::from(service), cap.open()) && !memory.is_verified(key)
}

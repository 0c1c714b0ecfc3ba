//! A closer look at a packet, for what somebody has armed: whom it is for, what it answers, who sent it.
//!
//! The headers are read once more, now with both ends. Off the common path: a packet that nobody asks this of never gets
//! here.

use crate::meter::{Ask, Meters};
use crate::packet::Frame;
use crate::packet::ends::Ends;
use crate::reason::Reason;
use crate::replies::{Conversation, PortSet};
use crate::services::{PortTable, is_expected, service_of};

/// What this host remembers and has been told, beside lists and limits.
pub trait Memory {
    /// Whether this host has begun this conversation.
    fn has_sent(&self, conversation: Conversation) -> bool;
    /// Whether the source with this [`crate::packet::Source::key`] has shown that it is where it says.
    fn is_verified(&self, key: u64) -> bool;
    /// Whether this SYN is the first of its connection: [`crate::first_syn::is_first`].
    fn is_first_syn(&self, connection: Conversation) -> bool;
    /// The UDP ports that replies come from.
    fn amplifiers(&self) -> &PortSet;
    /// The services behind ports.
    fn services(&self) -> &PortTable;
}

/// What a closer look has found. One number, as it crosses a call in the kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Closer(u64);

impl Closer {
    const VERIFIED: u64 = 1 << 16;

    /// Nothing.
    pub const NOTHING: Self = Self(0);

    const fn because(reason: Reason) -> Self {
        Self(reason as u64)
    }

    const fn of(service: u8, is_verified: bool) -> Self {
        Self((service as u64) << 8 | if is_verified { Self::VERIFIED } else { 0 })
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

    /// Why the packet goes no further, if it does not.
    #[inline(always)]
    pub(crate) const fn reason(self) -> Option<Reason> {
        const { assert!(Reason::Passed as u8 == 0) }
        match self.0 as u8 {
            0 => None,
            // One of the few that come from here; a match over all of them would be a table.
            found if found == Reason::NoService as u8 => Some(Reason::NoService),
            found if found == Reason::UnsolicitedReply as u8 => Some(Reason::UnsolicitedReply),
            _ => Some(Reason::FirstSyn),
        }
    }

    /// The service that it is for, or zero.
    #[inline(always)]
    pub(crate) const fn service(self) -> u8 {
        (self.0 >> 8) as u8
    }

    /// Whether its source is verified; known only where its service is.
    #[inline(always)]
    pub(crate) const fn is_verified(self) -> bool {
        self.0 & Self::VERIFIED != 0
    }
}

/// Looks closer at a packet of a source, for what its meters ask.
#[inline(always)]
pub fn look_closer(frame: Frame<'_>, key: u64, meters: &Meters, memory: &impl Memory) -> Closer {
    // Later fragments, and what is malformed and passes all the same: others judge these.
    let Some(ends) = Ends::read(frame) else {
        return Closer::NOTHING;
    };
    if meters.ask(Ask::LOCKDOWN) && !is_expected(&ends, memory.services(), |answered| memory.has_sent(answered)) {
        return Closer::because(Reason::NoService);
    }
    if meters.ask(Ask::REPLIES)
        && let Some(answered) = Conversation::of_claim(&ends, memory.amplifiers())
        && !memory.has_sent(answered)
    {
        return Closer::because(Reason::UnsolicitedReply);
    }
    if !meters.ask(Ask::THE_SOURCE) {
        return Closer::NOTHING;
    }
    let is_verified = memory.is_verified(key);
    if meters.ask(Ask::FIRST_SYN)
        && !is_verified
        && let Some(connection) = Conversation::of_answer(&ends)
        && memory.is_first_syn(connection)
    {
        return Closer::because(Reason::FirstSyn);
    }
    let service = if meters.ask(Ask::CAP) { service_of(&ends, memory.services()) } else { 0 };
    Closer::of(service, is_verified)
}

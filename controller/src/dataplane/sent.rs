//! What this host has sent lately, and who is verified by it, asked from here: the memories that the kernel half keeps.

use floodwall_common::abi::map;
use floodwall_common::hash::HashKey;
use floodwall_common::memory::Line;
use floodwall_common::replies::{Conversation, LINES, SPAN};
use floodwall_common::verified;

use super::Dataplane;
use super::clock::Clock;
use super::error::Result;
use super::maps::Mapped;

/// A reader of both.
pub struct SentReader {
    lines: Mapped<Line>,
    verified: Mapped<Line>,
    key: HashKey,
}

impl Dataplane {
    /// The memory of what is sent.
    ///
    /// # Errors
    /// Where the maps cannot be opened.
    pub fn sent_reader(&self) -> Result<SentReader> {
        let memory = |name, lines| Mapped::memory(&self.pins, name, lines);
        let (lines, verified) = (memory(map::SENT, LINES)?, memory(map::VERIFIED, verified::LINES)?);
        Ok(SentReader { lines, verified, key: self.config()?.key })
    }
}

impl SentReader {
    /// Whether this host has begun the conversation lately.
    pub fn has_sent(&self, conversation: Conversation, clock: Clock) -> bool {
        self.lines.remembers(conversation.trace(&self.key), clock.now(), SPAN)
    }

    /// Whether the source with this [`floodwall_common::packet::Source::key`] has completed a handshake lately.
    pub fn is_verified(&self, source: u64, clock: Clock) -> bool {
        self.verified.remembers(verified::trace(&self.key, source), clock.now(), verified::SPAN)
    }
}

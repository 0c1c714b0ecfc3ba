//! What this host has sent lately, asked from here: the memory that the kernel half keeps.

use floodwall_common::abi::map;
use floodwall_common::hash::HashKey;
use floodwall_common::memory::Line;
use floodwall_common::replies::{Conversation, LINES, SPAN};

use super::Dataplane;
use super::clock::Clock;
use super::error::Result;
use super::maps::Mapped;

/// A reader of the memory.
pub struct SentReader {
    lines: Mapped<Line>,
    key: HashKey,
}

impl Dataplane {
    /// The memory of what is sent.
    ///
    /// # Errors
    /// Where the maps cannot be opened.
    pub fn sent_reader(&self) -> Result<SentReader> {
        Ok(SentReader { lines: Mapped::memory(&self.pins, map::SENT, LINES)?, key: self.config()?.key })
    }
}

impl SentReader {
    /// Whether this host has begun the conversation lately.
    pub fn has_sent(&self, conversation: Conversation, clock: Clock) -> bool {
        self.lines.remembers(conversation.trace(&self.key), clock.now(), SPAN)
    }
}

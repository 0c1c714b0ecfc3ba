//! What this host has sent lately, asked from here: the memory that the kernel half keeps.

use aya::maps::{Array, Map, MapData};
use floodwall_common::abi::map;
use floodwall_common::hash::HashKey;
use floodwall_common::memory::Line;
use floodwall_common::replies::{Conversation, LINES, SPAN};

use super::clock::Clock;
use super::error::{Error, Result};
use super::{Dataplane, root_cause, typed};

/// A reader of the memory.
pub struct SentReader {
    lines: Array<MapData, [u64; 2]>,
    key: HashKey,
}

impl Dataplane {
    /// The memory of what is sent.
    ///
    /// # Errors
    /// Where the maps cannot be opened.
    pub fn sent_reader(&self) -> Result<SentReader> {
        let failed = |error: &(dyn std::error::Error + 'static)| {
            Error::system("open the memory of what is sent", std::io::Error::other(root_cause(error)))
        };
        let data = MapData::from_pin(self.pins.map(map::SENT)).map_err(|error| failed(&error))?;
        Ok(SentReader { lines: typed(data, Map::Array, Array::try_from)?, key: self.config()?.key })
    }
}

impl SentReader {
    /// Whether this host has begun the conversation lately; where that cannot be read, it has not.
    pub fn has_sent(&self, conversation: Conversation, clock: Clock) -> bool {
        let trace = conversation.trace(&self.key);
        let words = self.lines.get(&(trace.line(LINES) as u32), 0);
        words.is_ok_and(|words| Line::from_words(words).remembers(trace, clock.now(), SPAN))
    }
}

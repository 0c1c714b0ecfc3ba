//! Who changed what in the last minutes, so that of two people who change the same thing the second is told.
//!
//! It stops nobody: what must not be overwritten unseen comes with the generation that it was read at, and is refused.

use std::collections::VecDeque;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use crate::configuration::Change;
use crate::history::Entry;

/// How long it is news.
const LATELY: Duration = Duration::from_secs(600);
/// Changes that are kept in mind.
const KEPT: usize = 256;

/// Changes of the last minutes, the latest last.
#[derive(Debug, Default)]
pub(crate) struct Recent(VecDeque<Known>);

/// One thing that somebody has changed.
#[derive(Debug)]
struct Known {
    at: Instant,
    who: Who,
    user: String,
    change: Change,
}

/// Whom two changes have to have in common to be one person's: user, login, session.
type Who = (u32, Option<IpAddr>, i32);

impl Recent {
    /// Takes a change in, and says who else has changed the same lately, and to what.
    pub(super) fn take(&mut self, session: i32, entry: Entry, at: Instant) -> Option<String> {
        let who = (entry.uid, entry.from, session);
        self.0.retain(|known| at.duration_since(known.at) < LATELY);
        let told: Vec<_> = entry.details.iter().filter_map(|change| self.by_another(who, change, at)).collect();
        for change in entry.details {
            self.0.push_back(Known { at, who, user: entry.user.clone(), change });
        }
        let surplus = self.0.len().saturating_sub(KEPT);
        self.0.drain(..surplus);
        (!told.is_empty()).then(|| format!("{}. Yours is in force now", told.join("; ")))
    }

    fn by_another(&self, who: Who, change: &Change, at: Instant) -> Option<String> {
        let last = self.0.iter().rev().find(|known| known.change.what == change.what)?;
        (last.who != who).then(|| {
            let ago = humantime::format_duration(Duration::from_secs(at.duration_since(last.at).as_secs()));
            let from = last.who.1.map(|from| format!(" from {from}")).unwrap_or_default();
            format!(
                "{} was changed {ago} ago by {}{from} ({} -> {})",
                change.what, last.user, last.change.from, last.change.to
            )
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(uid: u32, what: &str, from: &str, to: &str) -> Entry {
        Entry::new(uid, 1, "socket", "x").with(vec![Change::new(what, from, to)])
    }

    #[test]
    fn the_second_is_told_and_nobody_of_himself() {
        let (mut recent, begun) = (Recent::default(), Instant::now());
        let at = |second| begun + Duration::from_secs(second);
        assert_eq!(recent.take(1, entry(0, "limit udp", "5", "7"), at(0)), None);
        assert_eq!(recent.take(1, entry(0, "limit udp", "7", "8"), at(1)), None, "the same person");
        assert_eq!(recent.take(2, entry(0, "limit tcp", "5", "6"), at(2)), None, "another thing");
        let told = recent.take(2, entry(0, "limit udp", "8", "9"), at(41)).expect("root at another terminal");
        assert_eq!(told, "limit udp was changed 40s ago by root (7 -> 8). Yours is in force now");
        assert_eq!(recent.take(1, entry(0, "limit udp", "9", "1"), at(700)), None, "long ago");
    }

    #[test]
    fn its_memory_is_bounded() {
        let (mut recent, at) = (Recent::default(), Instant::now());
        (0..2_000).for_each(|number| drop(recent.take(1, entry(0, &number.to_string(), "a", "b"), at)));
        assert_eq!(recent.0.len(), KEPT);
    }
}

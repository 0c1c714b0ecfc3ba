//! All that is set, in words: of two of them it is told what a change was from, and to.
//!
//! Lists are not in it: they may have a million entries, and whoever changes one says which.

use std::collections::{BTreeMap, BTreeSet};

use floodwall_common::config::Config;
use floodwall_common::limits::LimitKey;
use floodwall_common::lists::List;
use floodwall_common::reason::Reason;

use crate::api::{ListChange, ServiceView};
use crate::configuration::{Change, service_in_words, signature_in_words};
use crate::dataplane::{self, Dataplane, Switched, cookies_of, group_limits_of, limits_of};

/// What the mode is called in it.
const MODE: &str = "mode";
/// What is said of something that is not there.
const NONE: &str = "none";
/// How many prefixes are named of a change of a list.
const NAMED: usize = 8;

/// What is set, by its name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Picture(BTreeMap<String, String>);

impl Picture {
    /// What is set now.
    ///
    /// # Errors
    /// Where the maps cannot be read.
    pub fn of(dataplane: &Dataplane) -> dataplane::Result<Self> {
        let config = dataplane.config()?;
        let mut all = BTreeMap::from([(MODE.to_owned(), mode_in_words(&config))]);
        for key in LimitKey::all() {
            let limits = limits_of(&config, key);
            all.insert(format!("limit {key}"), format!("{}, {} bytes", limits.packets, limits.bytes));
        }
        for (group, name, limits) in group_limits_of(&config) {
            let text = format!("{}, {} bytes", limits.packets, limits.bytes);
            all.insert(format!("limit {} of group {group}", name.label()), text);
        }
        for (reason, _) in Reason::chosen() {
            all.insert(format!("policy {}", reason.label()), reason.verdict(config.drops).label().to_owned());
        }
        let (mode, answers) = cookies_of(&config);
        all.insert("cookies".to_owned(), format!("{}, {answers} to a subnet", mode.label()));
        for service in dataplane.services()? {
            all.insert(format!("service {}", service.name), service_in_words(&ServiceView::new(&service)));
        }
        for signature in dataplane.signatures()? {
            all.insert(format!("signature {}", signature.name), signature_in_words(&signature));
        }
        let ports: Vec<_> = dataplane.amplifiers()?.iter().map(|port| port.to_string()).collect();
        all.insert("amplifiers".to_owned(), ports.join(" "));
        Ok(Self(all))
    }

    /// What is otherwise in a later one.
    pub fn changes_to(&self, later: &Self) -> Vec<Change> {
        let names: BTreeSet<_> = self.0.keys().chain(later.0.keys()).collect();
        let value = |of: &Self, name: &str| of.0.get(name).cloned().unwrap_or_else(|| NONE.to_owned());
        let changes = names.into_iter().map(|name| Change::new(name, value(self, name), value(later, name)));
        changes.filter(|change| change.from != change.to).collect()
    }
}

fn mode_in_words(config: &Config) -> String {
    let trial = if config.is_on_trial() { ", on trial" } else { "" };
    format!("{}{trial}", config.mode().label())
}

/// What the kill switch has changed, for which no picture is taken: it comes first. Nothing where it was as it is.
pub fn switch_change(switched: &Switched) -> Vec<Change> {
    let change = Change::new(MODE, mode_in_words(&switched.before), mode_in_words(&switched.after));
    Some(change).filter(|change| change.from != change.to).into_iter().collect()
}

/// A change of a list, of which it is known how many entries it had and has.
pub fn list_change(list: List, change: &ListChange, before: usize, after: usize) -> Change {
    let added = change.add.iter().map(|entry| format!("+{}", entry.prefix));
    let removed = change.remove.iter().map(|prefix| format!("-{prefix}"));
    let mut named: Vec<_> = added.chain(removed).take(NAMED).collect();
    let more = (change.add.len() + change.remove.len()).saturating_sub(NAMED);
    if more > 0 {
        named.push(format!("and {more} more"));
    }
    let to = format!("{after} prefixes ({})", named.join(" "));
    // Two people who change two entries do not change the same thing.
    let what = match (change.add.as_slice(), change.remove.as_slice()) {
        ([entry], []) => format!("{} list {}", list.label(), entry.prefix),
        ([], [prefix]) => format!("{} list {prefix}", list.label()),
        _ => format!("{} list", list.label()),
    };
    Change::new(what, format!("{before} prefixes"), to)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn picture(all: &[(&str, &str)]) -> Picture {
        Picture(all.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect())
    }

    #[test]
    fn what_was_changed_was_something_and_is_something_else() {
        let before = picture(&[("limit udp", "5"), ("mode", "monitor"), ("service web", "tcp/80")]);
        let after = picture(&[("limit udp", "7"), ("mode", "monitor"), ("signature x", "drop")]);
        let told: Vec<_> = before.changes_to(&after).iter().map(ToString::to_string).collect();
        assert_eq!(told, ["limit udp: 5 -> 7", "service web: tcp/80 -> none", "signature x: none -> drop"]);
        assert_eq!(after.changes_to(&after), []);
    }

    #[test]
    fn of_a_long_list_some_are_named() {
        let remove = (0..20).map(|last| format!("192.0.2.{last}/32").parse().expect("a prefix")).collect();
        let told = list_change(List::Deny, &ListChange { remove, ..Default::default() }, 20, 0).to_string();
        assert!(told.starts_with("deny list: 20 prefixes -> 0 prefixes (-192.0.2.0/32 "), "{told}");
        assert!(told.contains("-192.0.2.7/32 and 12 more"), "{told}");
    }
}

//! What would lock the operator out, or let everybody in: refused unless he insists, and said whom it would hit.
//!
//! Asked by the daemon of what comes over its API, and by the command line of what was typed, which may know more of who
//! types. What a flag may overrule, and what it cannot, is decided here.

use std::net::IpAddr;
use std::path::Path;

use floodwall_common::limits::LimitName;
use floodwall_common::lists::List;
use ipnet::IpNet;

use crate::api::{EntryView, GroupsChange, LimitView, LimitsChange, ListChange};
use crate::configuration::Source;
use crate::exit::{Exit, Failure};
use crate::peers::{Peer, Role, missed};
use crate::prefixes::overlap;

/// Nobody means a whole /8 of the Internet by one entry.
const TOO_WIDE: u8 = 8;

/// Peers that somebody would miss now. `file` is the configuration file, if one was named: it knows the monitors.
pub fn around(caller: Option<IpAddr>, file: Option<&Path>) -> Vec<Peer> {
    let source = Source::find(file).ok().flatten().unwrap_or_default();
    missed(caller, &source.configuration.monitors())
}

/// Refuses a change of a list that needs to be insisted on, and is not.
///
/// # Errors
/// The first such entry, whom it would hit, and how to insist.
pub fn check_list(list: List, change: &ListChange, peers: &[Peer]) -> Result<(), Failure> {
    change.add.iter().try_for_each(|entry| match list {
        List::Allow => check_allowed(entry, change.force),
        List::Deny => check_denied(entry, change.force, peers),
        List::Groups => Ok(()),
    })
}

fn check_allowed(entry: &EntryView, force: bool) -> Result<(), Failure> {
    if entry.prefix.prefix_len() > TOO_WIDE || force {
        return Ok(());
    }
    let text = format!("{} on the allow list lets {} through", entry.prefix, how_many(entry.prefix));
    Err(Failure::new(Exit::Usage, text).hint("add --force (or --i-know) if that is meant"))
}

fn check_denied(entry: &EntryView, force: bool, peers: &[Peer]) -> Result<(), Failure> {
    let prefix = entry.prefix;
    let hit: Vec<&Peer> = peers.iter().filter(|peer| overlap(prefix, peer.prefix)).collect();
    let is_out = hit.iter().any(|peer| peer.role == Role::Caller) || prefix.prefix_len() < TOO_WIDE;
    let is_insisted_on = force && (!is_out || entry.ttl_s.is_some());
    if is_insisted_on || (hit.is_empty() && prefix.prefix_len() > TOO_WIDE) {
        return Ok(());
    }
    let mut text = format!("{prefix} on the deny list ");
    if hit.is_empty() {
        text += &format!("drops {}", how_many(prefix));
    } else {
        let hit: Vec<_> = hit.iter().map(ToString::to_string).collect();
        text += &format!("would drop {}", hit.join(", "));
    }
    if hit.iter().any(|peer| peer.role == Role::Caller) {
        text += ": you would be locked out";
    }
    let hint = match is_out {
        true => "--force --confirm 60s: it then ends after a minute, so that you can still get back in",
        false => "add --force if that is meant",
    };
    Err(Failure::new(Exit::Usage, text).hint(hint))
}

fn how_many(prefix: IpNet) -> &'static str {
    if prefix.prefix_len() < TOO_WIDE { "nearly everybody" } else { "a large part of the Internet" }
}

/// Refuses limits of zero that are not insisted on.
///
/// # Errors
/// The first such limit, whom it would hit, and how to insist.
pub fn check_limits(change: &LimitsChange, peers: impl FnOnce() -> Vec<Peer>) -> Result<(), Failure> {
    let zero = || change.limits.iter().filter(|limit| is_zero(limit));
    if zero().any(|limit| limit.name == LimitName::Allowed.label()) {
        let text = "the limit of allowed sources cannot be 0: it is what keeps you from being locked out";
        return Err(Failure::new(Exit::Usage, text));
    }
    let Some(limit) = zero().next().filter(|_| !change.force) else { return Ok(()) };
    let text = match &limit.group {
        None => format!("a limit of 0 blocks every {} packet of every source{}", limit.name, sessions(&peers())),
        Some(group) => format!("a limit of 0 blocks every {} packet of the group '{group}'", limit.name),
    };
    let hint = "`off` for no limit, or add --force (--yes-block-all) if that is meant";
    Err(Failure::new(Exit::Usage, text).hint(hint))
}

/// Refuses limits of zero for a group that are not insisted on. Peers that this host needs are on the allow list, which comes first.
///
/// # Errors
/// The first such limit, and how to insist.
pub fn check_groups(change: &GroupsChange) -> Result<(), Failure> {
    let zero = change.add.iter().flat_map(|group| group.limits.iter().map(move |limit| (group, limit)));
    let Some((group, limit)) = zero.into_iter().find(|(_, limit)| is_zero(limit) && !change.force) else {
        return Ok(());
    };
    let text = format!("a limit of 0 blocks every {} packet of the group '{}'", limit.name, group.name);
    Err(Failure::new(Exit::Usage, text).hint("`off` for no limit, or add --force (--yes-block-all) if that is meant"))
}

fn is_zero(limit: &LimitView) -> bool {
    [limit.packets, limit.bytes].into_iter().flatten().any(|rate| rate.per_second == 0)
}

/// Those who are logged in, for whoever is about to block a class.
fn sessions(peers: &[Peer]) -> String {
    let is_session = |peer: &&Peer| matches!(peer.role, Role::Caller | Role::Session);
    let sessions: Vec<_> = peers.iter().filter(is_session).map(ToString::to_string).collect();
    if sessions.is_empty() { String::new() } else { format!(" that is not allowed, of {} too", sessions.join(", ")) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::RateView;

    fn peers() -> Vec<Peer> {
        let peer = |text: &str, role| Peer { prefix: text.parse().expect(text), role };
        vec![
            peer("192.0.2.7/32", Role::Caller),
            peer("198.51.100.1/32", Role::Gateway),
            peer("203.0.113.0/28", Role::Monitor),
        ]
    }

    /// What is said of a deny entry; nothing where it is taken.
    fn said(prefix: &str, force: bool, ttl_s: Option<u64>) -> String {
        let prefix = prefix.parse().expect(prefix);
        let entry = EntryView { prefix, ttl_s, added_unix_s: 0, reason: String::new() };
        let change = ListChange { add: vec![entry], force, ..Default::default() };
        check_list(List::Deny, &change, &peers()).err().map(|failure| failure.to_string()).unwrap_or_default()
    }

    #[test]
    fn a_deny_entry_says_whom_it_would_lock_out() {
        assert_eq!(said("192.0.2.8/32", false, None), "");
        let own = said("192.0.2.0/24", false, None);
        assert!(own.contains("192.0.2.7 (your own session)") && own.contains("locked out"), "{own}");
        assert!(own.contains("--force --confirm"), "{own}");
        assert!(said("192.0.2.0/24", true, None).contains("--confirm"), "not without a way back");
        assert_eq!(said("192.0.2.0/24", true, Some(60)), "");
        assert!(said("198.51.100.0/24", false, Some(60)).contains("198.51.100.1 (gateway)"));
        assert_eq!(said("198.51.100.0/24", true, None), "");
        assert!(said("203.0.113.5/32", false, None).contains("203.0.113.0/28 (monitor)"), "inside of one");
    }

    #[test]
    fn nearly_everybody_takes_more_than_many() {
        assert!(said("0.0.0.0/0", true, None).contains("--confirm") && said("::/0", true, Some(9)).is_empty());
        assert!(said("11.0.0.0/8", false, None).contains("a large part") && said("11.0.0.0/8", true, None).is_empty());
        assert_eq!(said("11.0.0.0/9", false, None), "");
    }

    #[test]
    fn a_limit_of_zero_is_insisted_on() {
        let zero = |name: &str, force| {
            let packets = Some(RateView { per_second: 0, burst: 0 });
            let limit =
                LimitView { name: name.to_owned(), per: "source".to_owned(), group: None, packets, bytes: None };
            let change = LimitsChange { generation: None, limits: vec![limit], force };
            check_limits(&change, peers).err().map(|failure| failure.to_string()).unwrap_or_default()
        };
        let said = zero("tcp", false);
        assert!(said.contains("192.0.2.7 (your own session)") && said.contains("--force"), "{said}");
        assert_eq!(zero("tcp", true), "");
        assert!(zero("allowed", true).contains("locked out"));
    }
}

//! What would lock the operator out, or let everybody in: refused unless he insists, and said whom it would hit.
//!
//! Asked by the daemon of what comes over its API, and by the command line of what was typed, which may know more of who
//! types. What a flag may overrule, and what it cannot, is decided here.

use std::net::IpAddr;
use std::path::Path;

use floodwall_common::limits::LimitName;
use floodwall_common::lists::List;
use ipnet::IpNet;

use crate::api::{EntryView, GroupView, LimitView, LimitsChange, ListChange};
use crate::configuration::Source;
use crate::exit::{Exit, Failure};
use crate::groups::Members;
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

/// Refuses what would be blocked by its group, where that is new and not insisted on: a limit of zero, nearly everybody in such a group,
/// peers that this host needs.
///
/// # Errors
/// The first such group, whom it would hit, and how to insist.
pub fn check_groups(present: &[GroupView], wanted: &[GroupView], force: bool, peers: &[Peer]) -> Result<(), Failure> {
    if force {
        return Ok(());
    }
    let hint = "`off` for no limit, or add --force (--yes-block-all) if that is meant";
    let before = |name: &str| present.iter().find(|group| group.name == name);
    for group in wanted {
        let had = |limit: &LimitView| before(&group.name).is_some_and(|before| before.limits.contains(limit));
        if let Some(limit) = group.limits.iter().find(|limit| is_zero(limit) && !had(limit)) {
            let text = format!("a limit of 0 blocks every {} packet of the group '{}'", limit.name, group.name);
            return Err(Failure::new(Exit::Usage, text).hint(hint));
        }
        let is_new = |prefix: &IpNet| !before(&group.name).is_some_and(|before| before.prefixes.contains(prefix));
        let wide = group.prefixes.iter().find(|prefix| prefix.prefix_len() <= TOO_WIDE && is_new(prefix));
        if let Some(prefix) = wide.filter(|_| blocks(group)) {
            let text = format!("{prefix} in the group '{}' blocks {}", group.name, how_many(*prefix));
            return Err(Failure::new(Exit::Usage, text).hint("add --force if that is meant"));
        }
    }
    let [before, after] = [present, wanted].map(|groups| blocked(groups, peers));
    let hit: Vec<_> = after.into_iter().filter(|peer| !before.contains(peer)).map(|peer| peer.to_string()).collect();
    if hit.is_empty() {
        return Ok(());
    }
    let text = format!("a group that blocks would hold {}", hit.join(", "));
    Err(Failure::new(Exit::Usage, text).hint("allow them first, or add --force if that is meant"))
}

/// Those who are in a group that blocks anything.
fn blocked<'p>(groups: &[GroupView], peers: &'p [Peer]) -> Vec<&'p Peer> {
    let members = Members::of(groups.iter().filter_map(|view| view.group().ok()));
    let is_blocked = |peer: &&Peer| {
        let group = members.group_of(peer.prefix.addr());
        group.is_some_and(|group| groups.iter().any(|view| view.name == group.name && blocks(view)))
    };
    peers.iter().filter(is_blocked).collect()
}

fn blocks(group: &GroupView) -> bool {
    group.limits.iter().any(is_zero)
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
    fn a_group_that_blocks_takes_in_nobody_who_is_needed() {
        let zero = LimitView {
            name: "tcp".to_owned(),
            per: "source".to_owned(),
            group: None,
            packets: Some(RateView { per_second: 0, burst: 0 }),
            bytes: None,
        };
        let group = |name: &str, prefixes: &[&str], limits: &[&LimitView]| GroupView {
            name: name.to_owned(),
            prefixes: prefixes.iter().map(|prefix| prefix.parse().unwrap()).collect(),
            limits: limits.iter().map(|limit| (*limit).clone()).collect(),
        };
        let check = |present: &[GroupView], wanted: &[GroupView], force| {
            check_groups(present, wanted, force, &peers()).err().map(|failure| failure.error).unwrap_or_default()
        };
        let (none, blocking) = ([], [group("bad", &["203.0.113.128/25"], &[&zero])]);
        assert!(check(&none, &blocking, false).contains("every tcp packet of the group 'bad'"));
        assert_eq!(check(&none, &blocking, true), "");
        assert_eq!(check(&blocking, &blocking, false), "", "it does so already");
        let wide = [group("bad", &["203.0.113.128/25", "0.0.0.0/0"], &[&zero])];
        assert!(check(&blocking, &wide, false).contains("blocks nearly everybody"));
        let with_caller = [group("bad", &["203.0.113.128/25", "192.0.2.0/24"], &[&zero])];
        assert!(check(&blocking, &with_caller, false).contains("192.0.2.7"));
        assert_eq!(check(&blocking, &with_caller, true), "");
        // Whoever was kept from it by a nearer group falls into it when that one goes.
        let near = [with_caller[0].clone(), group("near", &["192.0.2.7/32"], &[])];
        assert_eq!(check(&blocking, &near, false), "");
        assert!(check(&near, &with_caller, false).contains("192.0.2.7"));
        // One that blocks nothing may have anybody.
        assert_eq!(check(&none, &[group("all", &["0.0.0.0/0"], &[])], false), "");
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

//! Groups of sources with limits of their own: what may be said of them, and what a change of them comes to.

use std::cmp::Reverse;
use std::collections::{BTreeSet, HashMap};
use std::net::IpAddr;

use floodwall_common::groups::NAME_BYTES;
use floodwall_common::limits::{LimitName, Per};
use floodwall_common::packet::Source;
use ipnet::IpNet;

use crate::api::{self, GroupView, GroupsChange, GroupsView, LimitView, SCHEMA_VERSION};
use crate::configuration::Change;
use crate::control::{self, ListPlan};
use crate::dataplane::{self, Dataplane, Group, check_limits, numbered};
use crate::exit::{Exit, Failure};
use crate::explain::address_of;
use crate::lockout;
use crate::peers::Peer;
use crate::prefixes::overlap;
use crate::respond::{AUTOMATIC_NAME, is_automatic};

/// What there is and how it is changed.
const HINT: &str = "floodwall group list; floodwall group add NAME PREFIX";

/// How many prefixes of a group are named.
const NAMED: usize = 4;

/// The groups.
///
/// # Errors
/// Where the maps cannot be read.
pub fn groups(dataplane: &Dataplane) -> anyhow::Result<GroupsView> {
    // The generation first: what changes while the groups are read makes a change that is based on them fail.
    let generation = dataplane.config()?.generation;
    let groups = dataplane.groups()?.iter().map(|(_, group)| GroupView::new(group)).collect();
    Ok(GroupsView { schema_version: SCHEMA_VERSION, generation, groups })
}

/// A change of groups, worked out from what they are now: what is to be prepared and put in force, and what it comes to in words.
/// `peers` are those whom somebody would miss.
///
/// # Errors
/// Where a name, a prefix or a limit is wrong, two groups have a prefix, there are too many groups, somebody would be locked out, or
/// something has changed since.
pub fn plan(dataplane: &Dataplane, change: &GroupsChange, peers: &[Peer]) -> anyhow::Result<(ListPlan, Vec<Change>)> {
    let mut plan = ListPlan::present(dataplane)?;
    let present = groups(dataplane)?;
    if change.generation.is_some_and(|expected| expected != present.generation) {
        let text = "something was changed since the groups were read. Nothing was changed";
        return Err(Failure::new(Exit::Conflict, text).hint("floodwall group list, then do it again").into());
    }
    let wanted = wanted(&present.groups, change)?;
    lockout::check_groups(&present.groups, &wanted, change.force, peers)?;
    let refuse = |text| Failure::new(Exit::Usage, format!("{text}. Nothing was changed")).hint(HINT);
    let all: Result<Vec<Group>, _> = wanted.iter().map(GroupView::group).collect();
    plan.set_groups(numbered(&*dataplane.config()?, all.map_err(refuse)?)?);
    Ok((plan, changes(&present.groups, &wanted)))
}

/// What the groups are to be.
fn wanted(present: &[GroupView], change: &GroupsChange) -> Result<Vec<GroupView>, Failure> {
    let refuse = |text| Failure::new(Exit::Usage, format!("{text}. Nothing was changed")).hint(HINT);
    let mut wanted = present.to_vec();
    for name in &change.remove {
        let at = wanted.iter().position(|view| view.name == *name).ok_or_else(|| no_group(names_of(&wanted), name))?;
        wanted.remove(at);
    }
    for (at, view) in change.add.iter().enumerate() {
        if change.add[..at].iter().any(|earlier| earlier.name == view.name) {
            return Err(refuse(format!("the group '{}' is added twice", view.name)));
        }
        match wanted.iter_mut().find(|other| other.name == view.name) {
            Some(other) => other.clone_from(view),
            None if is_automatic(&view.name) => {
                return Err(refuse(format!(
                    "'{}': names that begin with '{AUTOMATIC_NAME}' are those of detection",
                    view.name
                )));
            }
            None => wanted.push(view.clone()),
        }
    }
    give_way(&mut wanted);
    match shared_prefix(&wanted) {
        Some((prefix, other, name)) => Err(refuse(format!("{prefix} would be of both '{other}' and '{name}'"))),
        None => Ok(wanted),
    }
}

/// What an operator has in a group of his is in none of detection's.
pub(crate) fn give_way(groups: &mut [GroupView]) {
    let theirs = groups.iter().filter(|view| !is_automatic(&view.name));
    let theirs: Vec<IpNet> = theirs.flat_map(|view| view.prefixes.clone()).collect();
    if theirs.is_empty() {
        return;
    }
    for view in groups.iter_mut().filter(|view| is_automatic(&view.name)) {
        view.prefixes.retain(|prefix| !theirs.iter().any(|other| overlap(*other, *prefix)));
    }
}

/// What is otherwise, in words; of each group with the prefixes that come and go.
pub(crate) fn changes(present: &[GroupView], wanted: &[GroupView]) -> Vec<Change> {
    let of = |all: &[GroupView], name: &str| all.iter().find(|view| view.name == name).cloned();
    let new = wanted.iter().filter(|view| of(present, &view.name).is_none());
    let mut changes = Vec::new();
    for name in present.iter().chain(new).map(|view| &view.name) {
        let (from, to) = (of(present, name), of(wanted, name));
        if from == to {
            continue;
        }
        let words = |view: &Option<GroupView>| view.as_ref().map_or_else(|| "none".to_owned(), group_in_words);
        let moved = match (&from, &to) {
            (Some(from), Some(to)) => moved(&from.prefixes, &to.prefixes),
            _ => String::new(),
        };
        changes.push(Change::new(format!("group {name}"), words(&from), words(&to) + &moved));
    }
    changes
}

/// The prefixes that come and go, the first of them.
fn moved(from: &[IpNet], to: &[IpNet]) -> String {
    let [from, to] = [from, to].map(|prefixes| prefixes.iter().collect::<BTreeSet<_>>());
    let come = to.difference(&from).map(|prefix| format!("+{prefix}"));
    let all: Vec<_> = come.chain(from.difference(&to).map(|prefix| format!("-{prefix}"))).collect();
    let more = all.len().saturating_sub(NAMED);
    match all.iter().take(NAMED).map(String::as_str).collect::<Vec<_>>().join(" ") {
        none if none.is_empty() => none,
        named if more == 0 => format!(" ({named})"),
        named => format!(" ({named} and {more} more)"),
    }
}

/// Which group sources are in.
#[derive(Default)]
pub struct Members {
    groups: Vec<Group>,
    by_prefix: HashMap<IpNet, usize>,
    /// Their lengths, the longest first.
    lengths: Vec<u8>,
}

impl Members {
    /// Who is in these groups.
    pub fn of(groups: impl IntoIterator<Item = Group>) -> Self {
        let groups: Vec<_> = groups.into_iter().collect();
        let numbered = groups.iter().enumerate();
        let by_prefix: HashMap<_, _> =
            numbered.flat_map(|(at, group)| group.prefixes.iter().map(move |prefix| (*prefix, at))).collect();
        let lengths: BTreeSet<_> = by_prefix.keys().map(|prefix| Reverse(prefix.prefix_len())).collect();
        Self { groups, by_prefix, lengths: lengths.into_iter().map(|length| length.0).collect() }
    }

    /// Who is in the groups of a dataplane.
    ///
    /// # Errors
    /// Where the maps cannot be read.
    pub fn read(dataplane: &Dataplane) -> dataplane::Result<Self> {
        Ok(Self::of(dataplane.groups()?.into_iter().map(|(_, group)| group)))
    }

    /// The group that an address is in.
    pub fn group_of(&self, address: IpAddr) -> Option<&Group> {
        let prefix = |length: &u8| IpNet::new(address, *length).ok().map(|prefix| prefix.trunc());
        let at = self.lengths.iter().filter_map(prefix).find_map(|prefix| self.by_prefix.get(&prefix))?;
        self.groups.get(*at)
    }

    /// Whether a source would be under this limit of a group; with none, whether it is under that of everybody. An IPv6 source is
    /// its /64 here.
    pub fn is_under(&self, source: Source, name: LimitName, group: Option<&str>) -> bool {
        let nearest = self.group_of(address_of(source));
        match group {
            Some(group) => nearest.is_some_and(|nearest| nearest.name == group),
            None => !nearest.is_some_and(|nearest| nearest.limits.iter().any(|(of, _)| *of == name)),
        }
    }

    /// Refuses a group that there is not.
    ///
    /// # Errors
    /// Which there are.
    pub fn check(&self, group: Option<&str>) -> Result<(), Failure> {
        let names = || self.groups.iter().map(|group| group.name.as_str());
        match group.filter(|group| !names().any(|name| name == *group)) {
            Some(group) => Err(no_group(names(), group)),
            None => Ok(()),
        }
    }
}

/// What they are called.
pub(crate) fn names_of(groups: &[GroupView]) -> impl Iterator<Item = &str> {
    groups.iter().map(|group| group.name.as_str())
}

/// Says which groups there are, where one is asked for that is none of them.
pub(crate) fn no_group<'g>(names: impl IntoIterator<Item = &'g str>, name: &str) -> Failure {
    let names: Vec<_> = names.into_iter().collect();
    let have = if names.is_empty() { "there are none".to_owned() } else { format!("have: {}", names.join(", ")) };
    Failure::new(Exit::Usage, format!("no group '{name}' ({have})")).hint("floodwall group add NAME PREFIX")
}

/// A prefix that two groups have, and both of them: nobody could say whose it is.
pub(crate) fn shared_prefix(groups: &[GroupView]) -> Option<(IpNet, &str, &str)> {
    let mut known: HashMap<IpNet, &str> = HashMap::new();
    let of = |group: &'_ GroupView| group.prefixes.iter().map(IpNet::trunc).collect::<Vec<_>>();
    for group in groups {
        for prefix in of(group) {
            if let Some(other) = known.insert(prefix, &group.name).filter(|other| *other != group.name) {
                return Some((prefix, other, &group.name));
            }
        }
    }
    None
}

/// Refuses what cannot be the name of a group.
pub(crate) fn check_name(name: &str) -> Result<(), String> {
    api::check_name("group", name, NAME_BYTES)
}

/// The limit with this name that a group can have.
///
/// # Errors
/// Where there is none.
pub(crate) fn group_limit_name(name: &str, per: &str) -> Result<LimitName, Failure> {
    let key = control::limit_key(name, per)?;
    if key.name == LimitName::Allowed || key.per != Per::Source {
        let text = format!("'{key}' is no limit of a group: it has those of its sources, by class");
        return Err(Failure::new(Exit::Usage, text));
    }
    Ok(key.name)
}

/// Who is in a group; of many the first.
pub(crate) fn prefixes_in_words(view: &GroupView) -> String {
    let mut named: Vec<_> = view.prefixes.iter().take(NAMED).map(ToString::to_string).collect();
    if view.prefixes.len() > NAMED {
        named.push(format!("and {} more", view.prefixes.len() - NAMED));
    }
    if named.is_empty() { "no prefix".to_owned() } else { named.join(" ") }
}

/// Who is in a group, and what it has of its own.
pub(crate) fn group_in_words(view: &GroupView) -> String {
    let limits = view.limits.iter().map(|limit| {
        let limits = limit.limits();
        format!("; {} {}, {} bytes", limit.name, limits.packets, limits.bytes)
    });
    std::iter::once(prefixes_in_words(view)).chain(limits).collect()
}

impl GroupView {
    /// A group as it crosses the socket.
    pub fn new(group: &Group) -> Self {
        let limits = group.limits.iter().map(|(name, limits)| LimitView::new((*name).into(), *limits));
        Self { name: group.name.clone(), prefixes: group.prefixes.clone(), limits: limits.collect() }
    }

    /// The group that crossed it.
    ///
    /// # Errors
    /// What is wrong with it, in words.
    pub fn group(&self) -> Result<Group, String> {
        let Self { name, prefixes, limits } = self;
        check_name(name)?;
        let limit = |view: &LimitView| {
            let wrong = |text: String| format!("group '{name}': {text}");
            if let Some(other) = view.group.as_ref().filter(|other| *other != name) {
                return Err(wrong(format!("a limit of '{other}'")));
            }
            let of = group_limit_name(&view.name, &view.per).map_err(|failure| wrong(failure.error))?;
            check_limits(view.limits())
                .map_err(|(unit, error)| wrong(control::refuse_rate(of.into(), view.limits(), unit, error).error))?;
            Ok((of, view.limits()))
        };
        let limits: Vec<(LimitName, _)> = limits.iter().map(limit).collect::<Result<_, String>>()?;
        if let Some((twice, _)) =
            limits.iter().enumerate().find_map(|(at, limit)| limits[..at].iter().find(|other| other.0 == limit.0))
        {
            return Err(format!("group '{name}': two limits '{}'", twice.label()));
        }
        let prefixes = prefixes.iter().map(IpNet::trunc).collect();
        Ok(Group { name: name.clone(), prefixes, limits })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::RateView;

    fn view(name: &str, prefixes: &[&str], limits: &[(&str, &str)]) -> GroupView {
        let limit = |(name, per): &(&str, &str)| LimitView {
            name: (*name).to_owned(),
            per: (*per).to_owned(),
            group: None,
            packets: Some(RateView { per_second: 7, burst: 9 }),
            bytes: None,
        };
        GroupView {
            name: name.to_owned(),
            prefixes: prefixes.iter().map(|prefix| prefix.parse().unwrap()).collect(),
            limits: limits.iter().map(limit).collect(),
        }
    }

    #[test]
    fn a_group_is_what_its_view_says_or_it_is_said_what_is_wrong() {
        let good = view("partners", &["192.0.2.0/24", "2001:db8::/32"], &[("udp", "source"), ("tcp", "source")]);
        assert_eq!(
            group_in_words(&good),
            "192.0.2.0/24 2001:db8::/32; udp 7 per second with a burst of 9, off bytes; \
                                           tcp 7 per second with a burst of 9, off bytes"
        );
        assert_eq!(GroupView::new(&good.group().unwrap()), good);
        for (wrong, said) in [
            (view("", &[], &[]), "no name for a group"),
            (view("seventeen-letters", &[], &[]), "no name for a group"),
            (view("a b", &[], &[]), "no name for a group"),
            (view("a", &[], &[("udpp", "source")]), "no limit 'udpp'"),
            (view("a", &[], &[("allowed", "source")]), "no limit of a group"),
            (view("a", &[], &[("udp", "subnet")]), "no limit of a group"),
            (view("a", &[], &[("udp", "source"), ("udp", "source")]), "two limits 'udp'"),
            (GroupView { limits: vec![good.limits[0].clone().of_group("b")], ..view("a", &[], &[]) }, "a limit of 'b'"),
        ] {
            let error = wrong.group().unwrap_err();
            assert!(error.contains(said), "{error}");
        }
    }

    #[test]
    fn what_an_operator_has_in_a_group_is_in_none_of_detections() {
        let present = [view("auto-misconfig", &["192.0.2.0/24", "198.51.100.0/24"], &[("tcp-syn", "source")])];
        let add = |group: GroupView| GroupsChange { add: vec![group], ..GroupsChange::default() };
        let after = wanted(&present, &add(view("partners", &["192.0.2.7/32"], &[]))).unwrap();
        assert_eq!(after[0].prefixes, ["198.51.100.0/24".parse().unwrap()]);
        assert_eq!(after[1].prefixes, ["192.0.2.7/32".parse().unwrap()]);
        let refused = wanted(&present, &add(view("auto-mine", &[], &[]))).unwrap_err();
        assert!(refused.error.contains("those of detection"), "{}", refused.error);
        let gone = GroupsChange { remove: vec!["auto-misconfig".to_owned()], ..GroupsChange::default() };
        assert_eq!(wanted(&present, &gone).unwrap(), []);
    }

    #[test]
    fn a_source_is_under_the_limit_of_its_nearest_group_or_that_of_everybody() {
        let wide = view("wide", &["10.0.0.0/8", "2001:db8::/32"], &[("udp", "source")]);
        let near = view("near", &["10.1.0.0/16"], &[("tcp", "source")]);
        let members = Members::of([wide, near].map(|view| view.group().unwrap()));
        let under = |address: &str, name| {
            let source = crate::explain::source_of(address.parse().unwrap());
            let of = [Some("wide"), Some("near"), None].into_iter().filter(|of| members.is_under(source, name, *of));
            of.collect::<Vec<_>>()
        };
        assert_eq!(under("10.2.0.1", LimitName::Udp), [Some("wide")]);
        assert_eq!(under("10.2.0.1", LimitName::Tcp), [Some("wide"), None], "it could have one, and has none");
        assert_eq!(under("10.1.0.1", LimitName::Tcp), [Some("near")]);
        assert_eq!(under("10.1.0.1", LimitName::Udp), [Some("near"), None], "nearer, and without one of its own");
        assert_eq!(under("2001:db8:7::1", LimitName::Udp), [Some("wide")]);
        assert_eq!(under("192.0.2.1", LimitName::Udp), [None]);
        assert!(Members::default().is_under(Source::V4(7), LimitName::Udp, None));
        assert!(members.check(Some("near")).is_ok() && members.check(None).is_ok());
        assert_eq!(members.check(Some("far")).unwrap_err().error, "no group 'far' (have: wide, near)");
    }

    #[test]
    fn what_comes_and_goes_of_a_long_group_is_named() {
        let all: Vec<_> = (0..9).map(|n| format!("192.0.2.{n}/32")).collect();
        let all: Vec<_> = all.iter().map(String::as_str).collect();
        let (before, after) = ([view("long", &all[1..], &[])], [view("long", &all[..8], &[]), view("new", &[], &[])]);
        let told: Vec<_> = changes(&before, &after).iter().map(ToString::to_string).collect();
        assert!(told[0].ends_with("and 4 more (+192.0.2.0/32 -192.0.2.8/32)"), "{told:?}");
        assert_eq!(told[1..], ["group new: none -> no prefix"]);
        assert!(changes(&before, &before).is_empty());
    }

    #[test]
    fn a_prefix_is_of_one_group() {
        let (a, b) = (view("a", &["192.0.2.0/24", "192.0.2.0/24"], &[]), view("b", &["192.0.2.0/25"], &[]));
        assert_eq!(shared_prefix(&[a.clone(), b]), None, "the longer one has it");
        let shared = [a, view("c", &["192.0.2.7/24"], &[])];
        assert_eq!(shared_prefix(&shared), Some(("192.0.2.0/24".parse().unwrap(), "a", "c")));
    }
}

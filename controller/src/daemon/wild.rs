//! The group of networks that have gone wild: who of those that are named is put into it, and how it is taken back.

use floodwall_common::config::Config;
use floodwall_common::limits::{LimitName, Rate};
use ipnet::IpNet;

use super::Daemon;
use super::detection::note;
use super::measures::spared;
use crate::audit::LONG_LISTS;
use crate::control::ListPlan;
use crate::dataplane::{Group, group_limits_of, limits_of, numbered};
use crate::prefixes::overlap;
use crate::respond::{GROUP, GroupLimit, Measured};

/// What its label in the file of what is armed begins with.
const LABEL: &str = "group";

/// Puts them into the group, but whom an operator has in a group of his, or who is not to be touched. `false` where what holds for
/// everybody holds them to no more already.
pub(super) fn arm(daemon: &Daemon, limit: &GroupLimit) -> anyhow::Result<bool> {
    let present = daemon.view().now.lists.iter().map(|list| list.entries).sum::<usize>();
    anyhow::ensure!(
        present <= LONG_LISTS,
        "the lists have {present} entries: more than {LONG_LISTS} are not built anew while something goes on"
    );
    let plane = daemon.dataplane();
    let of_everybody = limits_of(&*plane.config()?, LimitName::TcpSyn.into()).packets;
    let is_held = match of_everybody {
        Rate::Off => false,
        Rate::Block => true,
        Rate::Limit { per_second, .. } => per_second <= limit.per_second,
    };
    if is_held {
        return Ok(false);
    }
    let groups = plane.groups()?;
    let ours = groups.iter().find(|(_, group)| group.name == GROUP).map(|(_, group)| group.clone());
    let mut plan = ListPlan::present(&plane)?;
    let others = others(groups);
    let spared = spared(daemon, &plan);
    let kept: Vec<IpNet> = spared.into_iter().chain(others.iter().flat_map(|group| group.prefixes.clone())).collect();
    let is_kept = |prefix: &IpNet| kept.iter().any(|other| overlap(*other, *prefix));
    let (left_out, mut prefixes): (Vec<_>, Vec<_>) = limit.prefixes.iter().copied().partition(is_kept);
    anyhow::ensure!(
        !prefixes.is_empty(),
        "all of them are in groups of an operator, allowed, or missed by somebody here"
    );
    prefixes.sort_unstable();
    let wanted = Group { name: GROUP.to_owned(), prefixes, limits: vec![(LimitName::TcpSyn, limit.limits())] };
    if ours.as_ref().is_some_and(|ours| is_same(ours, &wanted)) {
        return Ok(true);
    }
    plan.set_groups(numbered(&*plane.config()?, others.into_iter().chain([wanted]).collect())?);
    drop(plane);
    install(daemon, plan)?;
    if !left_out.is_empty() {
        let names: Vec<_> = left_out.iter().map(ToString::to_string).collect();
        let names = names.join(", ");
        note(
            daemon,
            &format!("left out of {GROUP}, as in a group of an operator, allowed, or missed by somebody here: {names}"),
        );
    }
    Ok(true)
}

/// Takes the group back, unless somebody has given it another limit meanwhile. However long the lists are: nothing goes on by then.
pub(super) fn disarm(daemon: &Daemon, limit: &GroupLimit) -> anyhow::Result<()> {
    let plane = daemon.dataplane();
    if !is_there(&*plane.config()?, limit) {
        return Ok(());
    }
    let mut plan = ListPlan::present(&plane)?;
    plan.set_groups(numbered(&*plane.config()?, others(plane.groups()?))?);
    drop(plane);
    install(daemon, plan)
}

fn install(daemon: &Daemon, plan: ListPlan) -> anyhow::Result<()> {
    let prepared = plan.prepare()?;
    plan.install(&mut daemon.dataplane(), &prepared)?;
    daemon.forget_list_sizes();
    Ok(())
}

fn others(groups: Vec<(u32, Group)>) -> Vec<Group> {
    groups.into_iter().map(|(_, group)| group).filter(|group| group.name != GROUP).collect()
}

fn is_same(one: &Group, other: &Group) -> bool {
    let mut prefixes = one.prefixes.clone();
    prefixes.sort_unstable();
    (&prefixes, &one.limits) == (&other.prefixes, &other.limits)
}

/// Whether the group has this limit still. Who is in it nobody reads each second: lists may be long.
pub(super) fn is_there(config: &Config, limit: &GroupLimit) -> bool {
    let mut all = group_limits_of(config).into_iter();
    all.any(|(group, name, limits)| group == GROUP && name == LimitName::TcpSyn && limits == limit.limits())
}

/// What it is called in the file of what is armed.
pub(super) fn label_of(limit: &GroupLimit) -> String {
    format!("{LABEL} {GROUP} {}", limit.per_second)
}

/// The group of such a label, as far as it takes that to take it back.
pub(super) fn of_label(label: &str) -> Option<GroupLimit> {
    let per_second = label.strip_prefix(LABEL)?.trim_start().strip_prefix(GROUP)?.trim_start().parse().ok()?;
    Some(GroupLimit { prefixes: Vec::new(), per_second, begun: [0.0; 2], share: 0.0, measured_on: Measured::default() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_group_is_found_again_by_its_label() {
        let limit = of_label("group auto-misconfig 7").unwrap();
        assert_eq!((limit.per_second, label_of(&limit).as_str()), (7, "group auto-misconfig 7"));
        for other in ["cookies", "group auto-misconfig", "group partners 7", "limit udp subnet 300"] {
            assert_eq!(of_label(other), None, "{other}");
        }
    }
}

//! `floodwall group`, and limits that are set for one.

use floodwall_common::limits::LimitName;

use super::args::{AddGroup, Global, Group};
use super::backend::Backend;
use super::show::{Table, rate_cells};
use super::{around, print};
use crate::api::{GroupView, GroupsChange, GroupsView};
use crate::exit::{Exit, Failure};
use crate::groups::{names_of, no_group, prefixes_in_words};
use crate::prefixes;

pub(super) async fn run(global: &Global, verb: Group) -> anyhow::Result<()> {
    let view = Backend::find(global).await?.groups().await?;
    let change = match verb {
        Group::List => return print(global, &view, show),
        Group::Add(add) => add_to(&view, add)?,
        Group::Remove { name, prefixes, force } => remove_from(&view, name, &prefixes, force)?,
    };
    let view = Backend::find(global).await?.change_groups(&change, &around(global)).await?;
    print(global, &view, show)
}

/// `floodwall group`.
pub(super) fn show(view: &GroupsView) -> String {
    if view.groups.is_empty() {
        return "there is no group\n  try: floodwall group add partners 192.0.2.0/24\n".to_owned();
    }
    let mut table = Table::new(&["group", "limit", "packets/s", "burst", "bytes/s", "burst", "prefixes"]);
    for group in &view.groups {
        let mut rows: Vec<_> = group
            .limits
            .iter()
            .map(|limit| {
                let ([pps, packets], [bps, bytes]) = (rate_cells(limit.packets), rate_cells(limit.bytes));
                [String::new(), limit.name.clone(), pps, packets, bps, bytes, String::new()]
            })
            .collect();
        if rows.is_empty() {
            rows.push(["", "as for everybody", "", "", "", "", ""].map(str::to_owned));
        }
        rows[0][0].clone_from(&group.name);
        rows[0][6] = prefixes_in_words(group);
        rows.into_iter().for_each(|row| table.row(row));
    }
    table.render()
}

/// The group as it is, with these prefixes too.
fn add_to(view: &GroupsView, add: AddGroup) -> anyhow::Result<GroupsChange> {
    let present = view.groups.iter().find(|group| group.name == add.name).cloned();
    let new = || GroupView { name: add.name.clone(), prefixes: Vec::new(), limits: Vec::new() };
    let mut group = present.unwrap_or_else(new);
    group.prefixes.extend(add.prefixes.prefixes);
    if let Some(file) = &add.prefixes.file {
        group.prefixes.extend(prefixes::read_file(file)?);
    }
    group.prefixes.sort_unstable();
    group.prefixes.dedup();
    Ok(GroupsChange { generation: Some(view.generation), add: vec![group], force: add.force, ..Default::default() })
}

/// The group without these prefixes; no group, where none is named.
fn remove_from(
    view: &GroupsView,
    name: String,
    prefixes: &[ipnet::IpNet],
    force: bool,
) -> anyhow::Result<GroupsChange> {
    let present = view.groups.iter().find(|group| group.name == name);
    let mut group = present.cloned().ok_or_else(|| no_group(names_of(&view.groups), &name))?;
    let generation = Some(view.generation);
    if prefixes.is_empty() {
        return Ok(GroupsChange { generation, remove: vec![name], force, ..Default::default() });
    }
    if let Some(missing) = prefixes.iter().find(|prefix| !group.prefixes.contains(prefix)) {
        let text = format!("{missing} is not in the group '{name}'. Nothing was changed");
        return Err(Failure::new(Exit::Usage, text).hint("floodwall group list").into());
    }
    group.prefixes.retain(|prefix| !prefixes.contains(prefix));
    Ok(GroupsChange { generation, add: vec![group], force, ..Default::default() })
}

/// Takes limits from a group: they are as for everybody again. Without names, all of them.
pub(super) async fn reset(global: &Global, name: &str, names: &[LimitName]) -> anyhow::Result<GroupsView> {
    let view = Backend::find(global).await?.groups().await?;
    let present = view.groups.iter().find(|group| group.name == name);
    let mut group = present.cloned().ok_or_else(|| no_group(names_of(&view.groups), name))?;
    group.limits.retain(|limit| !names.is_empty() && !names.iter().any(|of| limit.name == of.label()));
    let change = GroupsChange { generation: Some(view.generation), add: vec![group], ..Default::default() };
    Backend::find(global).await?.change_groups(&change, &around(global)).await
}

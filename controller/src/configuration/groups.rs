//! Groups of sources in the files.

use std::collections::BTreeMap;
use std::path::PathBuf;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::read::take_rates;
use super::{Change, Configuration, LimitLabel, List, Prefix, Quantity, Rates, Source};
use crate::api::{GroupView, LimitView};
use crate::control::ListPlan;
use crate::dataplane::{Dataplane, Group, numbered};
use crate::exit::Failure;
use crate::groups::{give_way, shared_prefix};
use crate::respond::{AUTOMATIC_NAME, is_automatic};

/// Sources that have limits of their own.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SourceGroup {
    /// Addresses or prefixes. Where two groups hold a source, the one with the longer prefix has it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(with = "Vec<String>")]
    pub prefixes: Vec<Prefix>,
    /// Files with an address or prefix on each line; `#` begins a comment.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub files: Vec<PathBuf>,
    /// Its limits by class, of one source each. What is not named of a class is the default; a class that is not named is as for
    /// everybody.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub limits: BTreeMap<LimitLabel, Rates>,
}

impl SourceGroup {
    /// Takes what a later file says.
    pub(super) fn take(&mut self, later: Self) {
        self.prefixes.extend(later.prefixes);
        self.files.extend(later.files);
        for (name, rates) in later.limits {
            take_rates(self.limits.entry(name).or_default(), rates);
        }
    }

    /// The group, as it crosses the socket; else which key is wrong, and what with it.
    fn view(&self, name: &str) -> Result<GroupView, (String, String)> {
        let of = |key: &str| format!("groups.{name}{key}");
        if is_automatic(name) {
            return Err((of(""), format!("names that begin with '{AUTOMATIC_NAME}' are those of detection")));
        }
        let list = List { prefixes: self.prefixes.clone(), files: self.files.clone() };
        let mut prefixes = list
            .all()
            .map_err(|failure| (of(""), failure.error.trim_end_matches(". Nothing was changed").to_owned()))?;
        prefixes.sort_unstable();
        prefixes.dedup();
        let mut limits = Vec::new();
        for (label, rates) in &self.limits {
            let key = of(&format!(".limits.{}", label.0.label()));
            if [rates.pps, rates.bps].contains(&Some(Quantity::PerSecond(0))) {
                let text = "0 would block all of it: write \"block\" if that is meant, \"off\" for no limit";
                return Err((key, text.to_owned()));
            }
            let rates = rates.limits(label.0.default_limits()).map_err(|text| (key, text))?;
            limits.push(LimitView::new(label.0.into(), rates));
        }
        let view = GroupView { name: name.to_owned(), prefixes, limits };
        view.group().map_err(|text| (of(""), text))?;
        Ok(view)
    }
}

/// All groups as they are to be, where the files have any.
fn wanted(source: &Source) -> Result<Option<Vec<GroupView>>, Failure> {
    let Some(groups) = &source.configuration.groups else { return Ok(None) };
    let view =
        |(name, group): (&String, &SourceGroup)| group.view(name).map_err(|(key, text)| source.wrong(&key, &text));
    groups.iter().map(view).collect::<Result<_, _>>().map(Some)
}

/// What each file by itself cannot know to be wrong.
pub(super) fn check(source: &Source) -> Result<(), Failure> {
    let groups = wanted(source)?.unwrap_or_default();
    match shared_prefix(&groups) {
        Some((prefix, other, name)) => {
            let text = format!("{prefix} would be of both '{other}' and '{name}'");
            Err(source.wrong(&format!("groups.{name}"), &text))
        }
        None => Ok(()),
    }
}

/// Works in what it takes to have the groups of the files, and no others but those of detection.
pub(super) fn plan(
    dataplane: &Dataplane,
    source: &Source,
    lists: &mut ListPlan,
    changes: &mut Vec<Change>,
) -> anyhow::Result<()> {
    let Some(mut wanted) = wanted(source)? else { return Ok(()) };
    let present: Vec<_> = dataplane.groups()?.iter().map(|(_, group)| GroupView::new(group)).collect();
    wanted.extend(present.iter().filter(|view| is_automatic(&view.name)).cloned());
    give_way(&mut wanted);
    let told = crate::groups::changes(&present, &wanted);
    if !told.is_empty() {
        let groups: Result<Vec<Group>, _> = wanted.iter().map(GroupView::group).collect();
        lists.set_groups(numbered(&*dataplane.config()?, groups.map_err(anyhow::Error::msg)?)?);
    }
    changes.extend(told);
    Ok(())
}

impl Configuration {
    /// What holds of groups with these files: all rates of the classes that they name.
    pub(super) fn groups_with_defaults(&mut self) {
        for group in self.groups.iter_mut().flat_map(BTreeMap::values_mut) {
            for (label, rates) in &mut group.limits {
                if let Ok(limits) = rates.limits(label.0.default_limits()) {
                    *rates = Rates::of(limits);
                }
            }
        }
    }
}

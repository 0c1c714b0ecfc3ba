//! The JSON of groups of sources.

use serde::{Deserialize, Serialize};

use super::LimitView;

/// Groups of sources with limits of their own.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct GroupsView {
    /// Version of this shape.
    pub schema_version: u32,
    /// Counts changes of the configuration: give it back with a change.
    pub generation: u64,
    /// Each of them.
    pub groups: Vec<GroupView>,
}

/// A group.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GroupView {
    /// Its name: 1 to 16 letters, digits, dots, dashes and underscores.
    pub name: String,
    /// Who is in it.
    pub prefixes: Vec<ipnet::IpNet>,
    /// The limits that it has of its own, all per source. What is not here is as for everybody.
    #[serde(default)]
    pub limits: Vec<LimitView>,
}

/// A change of groups: all or nothing. Removed first, then added; one of the same name is replaced.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GroupsChange {
    /// The generation that the change was made from; null for any.
    #[serde(default)]
    pub generation: Option<u64>,
    /// Groups to add.
    #[serde(default)]
    pub add: Vec<GroupView>,
    /// Names of groups to remove.
    #[serde(default)]
    pub remove: Vec<String>,
    /// Also limits of zero, which block.
    #[serde(default)]
    pub force: bool,
}

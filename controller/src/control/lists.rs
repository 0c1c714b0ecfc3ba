//! Changes of the lists, and of who is in a group.

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime};

use floodwall_common::limits::{LimitKey, Limits};
use floodwall_common::lists::{LISTS, List};
use ipnet::IpNet;

use crate::api::{EntryView, ListChange, ListChanged, ListView, SCHEMA_VERSION};
use crate::dataplane::{Clock, Dataplane, Group, Listed, PreparedLists};
use crate::exit::{Exit, Failure};
use crate::prefixes::overlap;

/// The list with this name.
///
/// # Errors
/// Where there is none.
pub fn list_name(name: &str) -> Result<List, Failure> {
    let list = List::from_label(name).filter(|list| *list != List::Groups);
    list.ok_or_else(|| Failure::new(Exit::Usage, format!("no list '{name}' (have: allow, deny)")))
}

/// What is on a list.
///
/// # Errors
/// Where the maps cannot be read.
pub fn list(dataplane: &Dataplane, list: List) -> anyhow::Result<ListView> {
    let (now, generation) = (dataplane.clock()?.now(), dataplane.config()?.generation);
    let live = |entry: &&Listed| entry.until.is_none_or(|until| until > now);
    let entries = dataplane.list(list)?;
    Ok(ListView {
        schema_version: SCHEMA_VERSION,
        list: list.label().to_owned(),
        generation,
        entries: entries.iter().filter(live).map(|entry| EntryView::new(entry, now)).collect(),
    })
}

/// A change of a list, worked out from what is on the lists now.
pub struct ListPlan {
    lists: [BTreeMap<IpNet, Listed>; LISTS],
    /// Where groups change too: all of them.
    groups: Option<Vec<(u32, Group)>>,
    clock: Clock,
    generation: u64,
    before: [usize; LISTS],
    changed: ListChanged,
}

impl ListPlan {
    /// Works out a change: what is to be on all lists afterwards. Ended entries go.
    ///
    /// # Errors
    /// Where the maps cannot be read.
    pub fn new(dataplane: &Dataplane, list: List, change: &ListChange) -> anyhow::Result<Self> {
        let mut plan = Self::present(dataplane)?;
        if list == List::Deny {
            // The allow list wins; what is on it by itself gives way to what somebody denies.
            let gives_way = |allowed: IpNet| change.add.iter().any(|denied| overlap(denied.prefix, allowed));
            plan.lists[List::Allow as usize].retain(|prefix, entry| !(entry.is_automatic() && gives_way(*prefix)));
        }
        plan.change(list, change);
        Ok(plan)
    }

    /// What is to be on a list.
    pub fn entries(&self, list: List) -> impl Iterator<Item = &Listed> {
        self.lists[list as usize].values()
    }

    /// How many entries a list had before.
    pub const fn entries_before(&self, list: List) -> usize {
        self.before[list as usize]
    }

    /// What is on the lists now. Ended entries go.
    ///
    /// # Errors
    /// Where the maps cannot be read.
    pub fn present(dataplane: &Dataplane) -> anyhow::Result<Self> {
        let clock = dataplane.clock()?;
        let now = clock.now();
        let generation = dataplane.config()?.generation;
        let read = |list| -> anyhow::Result<BTreeMap<IpNet, Listed>> {
            let live = |entry: &Listed| entry.until.is_none_or(|until| until > now);
            let entries = dataplane.list(list)?.into_iter();
            Ok(entries.filter(live).map(|entry| (entry.prefix, entry)).collect())
        };
        let lists = [read(List::Allow)?, read(List::Deny)?, read(List::Groups)?];
        let before = lists.each_ref().map(BTreeMap::len);
        Ok(Self { lists, groups: None, clock, generation, before, changed: ListChanged::default() })
    }

    /// Works in a change of a list.
    pub fn change(&mut self, list: List, change: &ListChange) {
        let entries = &mut self.lists[list as usize];
        let prefixes = change.remove.iter().map(IpNet::trunc);
        let missing = prefixes.filter(|prefix| entries.remove(prefix).is_none()).collect();
        for entry in &change.add {
            let prefix = entry.prefix.trunc();
            let until = entry.ttl_s.map(|seconds| self.clock.after(Duration::from_secs(seconds)));
            let listed = Listed { prefix, until, added: SystemTime::now(), note: entry.reason.clone(), group: 0 };
            entries.insert(prefix, listed);
        }
        self.changed = ListChanged { missing, entries: entries.len() };
    }

    /// Has these groups, and no others. Who is in one has its name as the reason.
    pub fn set_groups(&mut self, groups: Vec<(u32, Group)>) {
        let before = std::mem::take(&mut self.lists[List::Groups as usize]);
        let member = |number: u32, prefix: &IpNet, name: &str| {
            let same = before.get(prefix).filter(|before| before.note == name);
            let added = same.map_or_else(SystemTime::now, |before| before.added);
            Listed { prefix: *prefix, until: None, added, note: name.to_owned(), group: number }
        };
        let members = groups.iter().flat_map(|(number, group)| {
            group.prefixes.iter().map(|prefix| (*prefix, member(*number, prefix, &group.name)))
        });
        self.lists[List::Groups as usize] = members.collect();
        self.groups = Some(groups);
    }

    /// The same, for whoever has seen to it that the lists have not changed since, though other things have.
    #[must_use]
    pub fn from_now(self, generation: u64) -> Self {
        Self { generation, ..self }
    }

    /// Builds the lists beside those in force. Takes seconds for a million entries, and no lock.
    ///
    /// # Errors
    /// Where they do not fit.
    pub fn prepare(&self) -> anyhow::Result<PreparedLists> {
        let lists = self.lists.each_ref().map(|list| list.values().cloned().collect::<Vec<_>>());
        Ok(PreparedLists::new(lists.each_ref().map(Vec::as_slice))?)
    }

    /// Puts them in force.
    ///
    /// # Errors
    /// Where something has changed since the plan was made, or they cannot be written: nothing has changed then.
    pub fn install(self, dataplane: &mut Dataplane, prepared: &PreparedLists) -> anyhow::Result<ListChanged> {
        self.install_with(dataplane, prepared, &[])
    }

    /// The same, with limits by the same write: who comes into a group is not to be under other limits meanwhile.
    ///
    /// # Errors
    /// As above, and where a limit cannot be kept.
    pub fn install_with(
        self,
        dataplane: &mut Dataplane,
        prepared: &PreparedLists,
        limits: &[(LimitKey, Limits)],
    ) -> anyhow::Result<ListChanged> {
        dataplane.install(prepared, self.groups.as_deref(), limits, self.generation)?;
        Ok(self.changed)
    }
}

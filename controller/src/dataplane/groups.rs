//! Groups of sources with limits of their own: names and limits in the configuration, who is in them in the tries of the lists.

use std::io;

use floodwall_common::class::{Family, Kind};
use floodwall_common::config::Config;
use floodwall_common::groups::{GROUP_SLOTS, GroupRecord};
use floodwall_common::limits::{LimitName, Limits};
use floodwall_common::lists::List;
use floodwall_common::meter::{Machine, Meters};
use ipnet::IpNet;

use super::error::{Error, Result};
use super::text::{padded, unpadded};
use super::{Dataplane, take_limits};

/// A group of sources.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Group {
    /// Its name, of at most [`floodwall_common::groups::NAME_BYTES`] bytes.
    pub name: String,
    /// Who is in it: of two groups that hold a source, the one with the longer prefix has it.
    pub prefixes: Vec<IpNet>,
    /// The limits that it has of its own, of a source each. All others are as for everybody.
    pub limits: Vec<(LimitName, Limits)>,
}

impl Group {
    fn record(&self) -> GroupRecord {
        let mut record = GroupRecord::new(padded(&self.name));
        self.limits.iter().for_each(|(name, limits)| record.set(*name, [limits.packets.into(), limits.bytes.into()]));
        record
    }
}

impl Dataplane {
    /// The groups, each with its number.
    ///
    /// # Errors
    /// Where the maps cannot be read.
    pub fn groups(&self) -> Result<Vec<(u32, Group)>> {
        let config = self.config()?;
        let has_any = Family::ALL.iter().any(|family| config.lists.has(List::Groups, *family));
        let members = if has_any { self.list(List::Groups)? } else { Vec::new() };
        let prefixes = |number: u32| members.iter().filter(move |member| member.group == number);
        let group = |(number, record): (u32, &GroupRecord)| {
            let limits = LimitName::ALL.iter().filter_map(|name| Some((*name, limits_of(record, *name)?)));
            let prefixes = prefixes(number).map(|member| member.prefix).collect();
            name_of(record).map(|name| (number, Group { name, prefixes, limits: limits.collect() }))
        };
        Ok((0..).zip(&config.group_records).filter_map(group).collect())
    }

    /// Sets limits of groups, all or none. Says which group there is not, and has then changed nothing.
    ///
    /// # Errors
    /// Where a limit cannot be kept, the generation is not the expected one, or the map cannot be written.
    pub fn set_group_limits<'g>(
        &mut self,
        changes: &[(&'g str, LimitName, Limits)],
        expected: Option<u64>,
    ) -> Result<Option<&'g str>> {
        let mut wanted = self.config()?;
        for (group, name, limits) in changes {
            let is_it = |record: &GroupRecord| name_of(record).as_deref() == Some(*group);
            let Some(number) = wanted.group_records.iter().position(is_it) else { return Ok(Some(*group)) };
            let (before, meters) = (wanted.group_records[number], &mut wanted.groups[number]);
            let record = &mut wanted.group_records[number];
            record.set(*name, [limits.packets.into(), limits.bytes.into()]);
            compile(meters, record, self.machine, |of| before.own(of).is_none().then(secrets))?;
        }
        self.change(expected, |config| take_limits(config, &wanted))?;
        Ok(None)
    }
}

/// Compiles groups into a configuration that is not in force.
pub(crate) fn set(config: &mut Config, groups: &[(u32, Group)], machine: Machine) -> Result<()> {
    for (number, meters) in config.groups.iter_mut().enumerate() {
        let of = groups.iter().find(|(of, _)| *of as usize == number);
        let record = of.map_or(GroupRecord::NOBODY, |(_, group)| group.record());
        let before = std::mem::replace(&mut config.group_records[number], record);
        // Another group in the same place begins anew.
        let keeps = |name| before.name == record.name && before.own(name).is_some();
        compile(meters, &record, machine, |of| (!keeps(of)).then(secrets))?;
    }
    Ok(())
}

/// The numbers that groups of these names have, or get.
///
/// # Errors
/// Where there are too many.
pub(crate) fn numbered(config: &Config, groups: Vec<Group>) -> Result<Vec<(u32, Group)>> {
    let known = |name: &str| {
        let mut records = (0..).zip(&config.group_records);
        records.find(|(_, record)| name_of(record).as_deref() == Some(name)).map(|(number, _)| number)
    };
    let mut free: Vec<u32> = (1..GROUP_SLOTS as u32).rev().collect();
    free.retain(|number| !groups.iter().any(|group| known(&group.name) == Some(*number)));
    // Where another group was until now comes last.
    free.sort_by_key(|number| name_of(&config.group_records[*number as usize]).is_none());
    let number = |group: Group| {
        let number = known(&group.name).or_else(|| free.pop());
        Ok((number.ok_or(Error::TooManyGroups { most: GROUP_SLOTS - 1 })?, group))
    };
    groups.into_iter().map(number).collect()
}

/// Compiles what groups have of their own for the machine as it is now. What cannot be kept stays as it was.
pub(super) fn recompile(config: &mut Config, machine: Machine) {
    for (meters, record) in config.groups.iter_mut().zip(&config.group_records) {
        let _ = compile(meters, record, machine, |_| None);
    }
}

/// Gives each kind of packets the group's limits for those that it has of its own. Secrets are drawn where there are to be new ones.
fn compile(
    meters: &mut [Meters],
    record: &GroupRecord,
    machine: Machine,
    draw: impl Fn(LimitName) -> Option<Result<[u64; 2]>>,
) -> Result<()> {
    for kind in Kind::all_ip() {
        let Some((_, class)) = kind.parts() else { continue };
        let (name, meters) = (LimitName::of(class), &mut meters[kind.index() as usize]);
        let Some(limits) = limits_of(record, name) else { continue };
        let secrets = draw(name).transpose()?.unwrap_or([meters.packets.secret(), meters.bytes.secret()]);
        *meters = Meters::new(limits, machine, secrets)
            .map_err(|(unit, _)| Error::LimitOutOfRange { limit: name.into(), unit: unit.label() })?;
    }
    Ok(())
}

/// Has groups ask what everybody is asked, where they have nothing of their own.
pub(super) fn inherit(config: &mut Config) {
    for (meters, record) in config.groups.iter_mut().zip(&config.group_records) {
        let inherits = |kind: &Kind| kind.parts().is_none_or(|(_, class)| record.own(LimitName::of(class)).is_none());
        for kind in Kind::all_ip().filter(inherits).map(|kind| kind.index() as usize) {
            meters[kind] = config.meters[kind];
        }
    }
}

/// The limits that groups have of their own in a configuration.
pub fn group_limits_of(config: &Config) -> Vec<(String, LimitName, Limits)> {
    let named = config.group_records.iter().filter_map(|record| Some((name_of(record)?, record)));
    let own = named.flat_map(|(group, record)| {
        let of = move |name: &LimitName| Some((group.clone(), *name, limits_of(record, *name)?));
        LimitName::ALL.iter().filter_map(of)
    });
    own.collect()
}

/// The limits that a group has of its own by this name.
fn limits_of(record: &GroupRecord, name: LimitName) -> Option<Limits> {
    record.own(name).map(|[packets, bytes]| Limits { packets: packets.into(), bytes: bytes.into() })
}

fn name_of(record: &GroupRecord) -> Option<String> {
    Some(unpadded(&record.name)).filter(|name| !name.is_empty())
}

/// What keeps the sources of a meter apart from those of others.
fn secrets() -> Result<[u64; 2]> {
    let random = || getrandom::u64().map_err(|error| io::Error::other(error.to_string()));
    let drawn = random().and_then(|first| Ok([first, random()?]));
    drawn.map_err(|source| Error::system("draw random numbers", source))
}

#[cfg(test)]
mod tests {
    use floodwall_common::limits::{LimitKey, Rate};

    use super::*;
    use crate::dataplane::{apply, ask_what_is_armed, first_config};

    const MACHINE: Machine = Machine { cpus: 1, tick_ns: 1_000_000 };

    fn group(name: &str) -> Group {
        Group { name: name.to_owned(), prefixes: Vec::new(), limits: Vec::new() }
    }

    #[test]
    fn a_group_keeps_its_number_and_new_ones_take_what_is_free() {
        let mut config = first_config(MACHINE).unwrap();
        config.group_records[5] = group("old").record();
        let numbers = |names: &[&str]| {
            let groups = names.iter().map(|name| group(name)).collect();
            numbered(&config, groups).map(|groups| groups.iter().map(|(number, _)| *number).collect::<Vec<_>>())
        };
        assert_eq!(numbers(&["new", "old", "other"]).unwrap(), [1, 5, 2]);
        config.group_records[1] = group("gone").record();
        let groups = numbered(&config, vec![group("new"), group("old")]).unwrap();
        assert_eq!(groups.iter().map(|(number, _)| *number).collect::<Vec<_>>(), [2, 5], "not where one was until now");
        let numbers = |names: &[&str]| numbered(&config, names.iter().map(|name| group(name)).collect());
        let many: Vec<_> = (0..GROUP_SLOTS).map(|n| format!("g{n}")).collect();
        let many: Vec<_> = many.iter().map(String::as_str).collect();
        assert_eq!(numbers(&many[1..]).unwrap().len(), 15);
        assert!(numbers(&many).unwrap_err().to_string().contains("15"));
    }

    #[test]
    fn what_a_group_has_not_of_its_own_follows_what_holds_for_everybody() {
        let mut config = first_config(MACHINE).unwrap();
        let limit = |per_second| Limits { packets: Rate::Limit { per_second, burst: 10 }, bytes: Rate::Off };
        let record = Group { limits: vec![(LimitName::Udp, limit(7))], ..group("few") }.record();
        compile(&mut config.groups[1], &record, MACHINE, |_| Some(Ok([1, 2]))).unwrap();
        config.group_records[1] = record;
        let rate = |config: &Config, name: LimitName| {
            let is_of = |kind: &Kind| kind.parts().is_some_and(|(_, class)| LimitName::of(class) == name);
            let kind = Kind::all_ip().find(is_of).unwrap();
            (config.meters_in(1, kind).packets, config.meters(kind).packets)
        };
        for per_second in [100, 200] {
            for name in [LimitName::Tcp, LimitName::Udp] {
                apply(&mut config, LimitKey::from(name), limit(per_second), MACHINE).unwrap();
            }
            ask_what_is_armed(&mut config);
            let (of_group, of_all) = rate(&config, LimitName::Tcp);
            assert_eq!(of_group, of_all);
            let (of_group, of_all) = rate(&config, LimitName::Udp);
            assert_eq!(of_group.of_packet(), Meters::new(limit(7), MACHINE, [1, 2]).unwrap().packets.of_packet());
            assert!(of_group != of_all && of_group.secret() == 1);
        }
        // On a machine with other CPUs each of its packets costs the gate another part of the same limit.
        let other = Machine { cpus: 8, ..MACHINE };
        recompile(&mut config, other);
        ask_what_is_armed(&mut config);
        assert_eq!(rate(&config, LimitName::Udp).0, Meters::new(limit(7), other, [1, 2]).unwrap().packets);
        assert_ne!(rate(&config, LimitName::Udp).0, Meters::new(limit(7), MACHINE, [1, 2]).unwrap().packets);
    }
}

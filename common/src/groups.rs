//! Groups of sources that have limits of their own: partners, scanners, a country. Who is in which group the lists say
//! ([`crate::lists::List::Groups`]); what each may send stands in [`crate::config::Config::groups`].

use crate::config::LIMIT_SLOTS;
use crate::limits::{LimitName, RateSpec};

/// Room for groups; a power of two. Of zero, which is no group, there is none.
pub const GROUP_SLOTS: usize = 16;
/// Room for the name of a group.
pub const NAME_BYTES: usize = 16;

/// A group as it was set, for people. The kernel half does not read it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct GroupRecord {
    /// Its name, as UTF-8 padded with zeros; empty where there is none.
    pub name: [u8; NAME_BYTES],
    /// A bit for each [`LimitName`] that it has of its own.
    own: u64,
    /// Those limits, packets and bytes.
    specs: [[RateSpec; 2]; LIMIT_SLOTS],
}

impl GroupRecord {
    /// No group.
    pub const NOBODY: Self = Self::new([0; NAME_BYTES]);

    /// A group for which all limits are as for everybody.
    pub const fn new(name: [u8; NAME_BYTES]) -> Self {
        Self { name, own: 0, specs: [[RateSpec::OFF; 2]; LIMIT_SLOTS] }
    }

    /// What it has of its own of this limit, packets and bytes; `None` where it is as for everybody.
    pub const fn own(&self, name: LimitName) -> Option<[RateSpec; 2]> {
        if self.own >> (name as u32) & 1 == 1 { Some(self.specs[name as usize]) } else { None }
    }

    /// Gives it a limit of its own.
    pub const fn set(&mut self, name: LimitName, specs: [RateSpec; 2]) {
        self.own |= 1 << (name as u32);
        self.specs[name as usize] = specs;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limits::Rate;

    #[test]
    fn what_a_group_has_of_its_own_is_told_from_what_it_has_not() {
        let mut group = GroupRecord::new([b'a'; NAME_BYTES]);
        assert!(LimitName::ALL.iter().all(|name| group.own(*name).is_none()));
        let specs = [RateSpec::from(Rate::Block), RateSpec::OFF];
        group.set(LimitName::Udp, specs);
        assert_eq!(group.own(LimitName::Udp), Some(specs));
        assert_eq!(group.own(LimitName::Tcp), None);
    }
}

//! UDP that has nothing in common but that nobody here wants it: to ports on which nothing listens, and no answer to anything.

use std::collections::HashSet;

use floodwall_common::signatures::Fragment;

use super::good::{ENOUGH, Good, Measured};
use super::signature::{COLLATERAL, COVERS, FLOOD, UDP, share};
use crate::detect::{Group, Observed, Window};

/// What dropping it would do.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Unserved {
    /// The share of the flood that it is.
    pub covers: f64,
    /// The share of good traffic that it is.
    pub collateral: f64,
    /// What this was measured on.
    pub measured_on: Measured,
}

/// Whether most of a flood is such, and good traffic is not. `None` also where it is not seen what this host sends: then nobody can
/// say what an answer is. Packets that this host hands on to others show among the good ones.
pub(super) fn find(window: &Window) -> Option<Unserved> {
    let is_flood = |group: Group, packet: &Observed| group == Group::Udp && packet.is_known == Some(false);
    let all = window.good().iter().chain(window.packets().map(|(_, packet)| packet));
    // Some were seen before anything was heard of the service that they are for. One of last week may be gone.
    let served: HashSet<_> = all.filter(|packet| packet.is_to_service).filter_map(port).collect();
    let is_unserved =
        |packet: &Observed| is_unserved(packet) && port(packet).is_none_or(|port| !served.contains(&port));
    let flood = window.packets().filter(|(group, packet)| is_flood(*group, packet) && !packet.is_held);
    let (flood, unserved) =
        flood.fold((0, 0), |(all, of), (_, packet)| (all + 1, of + usize::from(is_unserved(packet))));
    let good = Good::of(window);
    let (covers, collateral) = (share(unserved, flood), good.share(is_unserved));
    let found = Unserved { covers, collateral, measured_on: good.measured() };
    let is_told_apart = found.covers >= COVERS && found.collateral <= COLLATERAL;
    (flood >= FLOOD && good.len() >= ENOUGH && is_told_apart).then_some(found)
}

fn port(packet: &Observed) -> Option<u16> {
    packet.ports.map(|(_, port)| port)
}

fn is_unserved(packet: &Observed) -> bool {
    u16::from(packet.protocol) == UDP
        && packet.fragment != Fragment::Later
        && !packet.is_to_service
        && packet.is_known != Some(true)
}

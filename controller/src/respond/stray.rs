//! TCP that has nothing in common but that it belongs to no connection of this host.

use std::collections::HashSet;

use super::good::{ENOUGH, Good};
use super::signature::{COLLATERAL, FLOOD, share};
use crate::detect::{Group, Observed, Window};

/// Whether a flood of TCP is such, and good traffic is not. Never where it is not seen what this host sends: then nobody can say what
/// belongs to a connection.
pub(super) fn is_told_apart(window: &Window) -> bool {
    let flood = window.packets().filter(|(_, packet)| is_stray(packet) && !packet.is_held).count();
    let good = Good::of(window);
    flood >= FLOOD && good.len() >= ENOUGH && good.share(is_stray) <= COLLATERAL
}

/// The share of such segments whose senders are seen to send replies to nothing, too: of thousands of reflectors a part is, and of others none.
const OF_REFLECTORS: f64 = 0.2;

/// Whether those who answer what nobody here has asked send segments of no connection beside that.
pub(super) fn is_of_reflectors(window: &Window) -> bool {
    let replies = window.packets().filter(|(group, _)| *group == Group::TcpReplies);
    let reflectors: HashSet<_> = replies.map(|(_, packet)| packet.source.key()).collect();
    let strays: Vec<_> = window.packets().map(|(_, packet)| packet).filter(|packet| is_stray(packet)).collect();
    let of_reflectors = strays.iter().filter(|packet| reflectors.contains(&packet.source.key())).count();
    share(of_reflectors, strays.len()) >= OF_REFLECTORS && is_told_apart(window)
}

/// Whether it is of no connection of this host, as [`Reason::OutOfState`](floodwall_common::reason::Reason) has it.
pub(super) fn is_stray(packet: &Observed) -> bool {
    packet.group() == Group::Tcp && packet.is_known == Some(false)
}

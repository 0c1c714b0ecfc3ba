//! TCP that has nothing in common but that it belongs to no connection of this host.

use super::signature::{COLLATERAL, ENOUGH, FLOOD, good, share};
use crate::detect::{Group, Observed, Window};

/// Whether a flood of TCP is such, and good traffic is not. Never where it is not seen what this host sends: then nobody can say what
/// belongs to a connection.
pub(super) fn is_told_apart(window: &Window) -> bool {
    let flood = window.packets().filter(|(_, packet)| is_stray(packet) && !packet.is_held).count();
    let good = good(window);
    let hurt = good.iter().filter(|packet| is_stray(packet)).count();
    flood >= FLOOD && good.len() >= ENOUGH && share(hurt, good.len()) <= COLLATERAL
}

fn is_stray(packet: &Observed) -> bool {
    packet.group() == Group::Tcp && packet.is_known == Some(false)
}

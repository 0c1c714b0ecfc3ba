//! What stands before the server: Floodwall as it comes, or what others do.

use std::path::PathBuf;

use anyhow::Result;
use clap::ValueEnum;
use serde::Serialize;

use super::peers::Nft;
use super::rig::Rig;
use crate::daemon::{Daemon, Place};
use crate::pins::{Foreign, attach_foreign, attach_world_end};
use crate::topology::PROTECTED;

/// A wall.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Wall {
    /// Floodwall with what it does by default, enforcing, and acting by itself.
    Floodwall,
    /// No filter, and no SYN cookies.
    None,
    /// What the kernel does by default: SYN cookies where a queue is full.
    Cookies,
    /// nftables, 100 packets a second for each source.
    Nft,
    /// A threshold of 20,000 packets a second over five seconds, then bans of the loudest sources, as FastNetMon is set up.
    Threshold,
    /// The usual design of small XDP filters: 1,000 packets a second for each IPv4 source, in a map with LRU eviction.
    XdpLimit,
}

impl Wall {
    /// Its name.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Floodwall => "floodwall",
            Self::None => "none",
            Self::Cookies => "cookies",
            Self::Nft => "nft",
            Self::Threshold => "threshold",
            Self::XdpLimit => "xdp-limit",
        }
    }

    /// Whether it says what goes on.
    pub const fn gives_verdicts(self) -> bool {
        matches!(self, Self::Floodwall)
    }
}

/// A wall that stands, until dropped.
pub struct Standing {
    /// The daemon, where it is Floodwall.
    pub daemon: Option<Daemon>,
    /// The table, where it is of nftables.
    pub nft: Option<Nft>,
    _program: Option<Foreign>,
}

impl Standing {
    /// Puts it up.
    ///
    /// # Errors
    /// Where it does not stand.
    pub fn new(wall: Wall, rig: &Rig, place: &Place) -> Result<Self> {
        let server = &rig.link.server;
        server.set_sysctl("ipv4/tcp_syncookies", u32::from(wall != Wall::None))?;
        let others = |program: Foreign, nft: Option<Nft>| Self { daemon: None, nft, _program: Some(program) };
        let passes = || attach_world_end(server, PROTECTED);
        let standing = match wall {
            Wall::Floodwall => Self { daemon: Some(start(rig, place)?), nft: None, _program: None },
            // The same way through the kernel for all: without a program there is another one for frames.
            Wall::None | Wall::Cookies => others(passes()?, None),
            Wall::Nft => others(passes()?, Some(Nft::limit(server)?)),
            Wall::Threshold => others(passes()?, Some(Nft::threshold(server)?)),
            Wall::XdpLimit => others(attach_foreign(server, PROTECTED, "lru_window")?, None),
        };
        rig.receive_apart()?;
        Ok(standing)
    }

    /// Kills the daemon and starts it again.
    ///
    /// # Errors
    /// Where it does not start.
    pub fn restart(&mut self, rig: &Rig, place: &Place) -> Result<()> {
        if let Some(daemon) = self.daemon.take() {
            daemon.kill()?;
            self.daemon = Some(start(rig, place)?);
        }
        Ok(())
    }
}

fn start(rig: &Rig, place: &Place) -> Result<Daemon> {
    Daemon::start(&rig.link.server, place, &["--interface", PROTECTED, "--mode", "enforce", "--respond", "act"])
}

/// Beside which a daemon keeps its records.
pub fn history(place: &Place) -> PathBuf {
    place.directory().join("history.ndjson")
}

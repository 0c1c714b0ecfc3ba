//! Who was here before what goes on now began: a copy of the memory of verified sources.

use std::os::fd::AsFd as _;

use floodwall_common::abi::map;
use floodwall_common::verified::LINES;

use super::error::{Error, Result};
use super::maps::{Pins, read_section, write_section};
use super::{Dataplane, sys};

/// The memory of verified sources at some moment, as it lies there.
pub type Verified = Box<[u64; 2 * LINES]>;

impl Dataplane {
    /// Who is verified now.
    ///
    /// # Errors
    /// Where the map cannot be read.
    pub fn verified(&self) -> Result<Verified> {
        read_section(open(&self.pins, map::VERIFIED)?.as_fd())
    }

    /// Says that these are the ones who were here before.
    ///
    /// # Errors
    /// Where the map cannot be written.
    pub fn set_known(&mut self, verified: &Verified) -> Result<()> {
        write_section(open(&self.pins, map::KNOWN)?.as_fd(), &**verified)
    }
}

fn open(pins: &Pins, name: &str) -> Result<std::os::fd::OwnedFd> {
    sys::open_pinned(&pins.map(name)).map_err(|error| Error::system("open a memory", error))
}

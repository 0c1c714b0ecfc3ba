//! The wall clock of a daemon under test, which jumps: no machine's clock is set, see `clock.c`.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use crate::daemon::Place;

/// What is preloaded.
const LIBRARY: &str = env!("WALL_CLOCK_LIBRARY");

/// A wall clock that the processes have in whose environment it is.
#[derive(Debug)]
pub struct WallClock {
    ahead_s: PathBuf,
}

impl WallClock {
    /// One that goes right.
    ///
    /// # Errors
    /// Where its file cannot be written.
    pub fn new(place: &Place) -> Result<Self> {
        let clock = Self { ahead_s: place.directory().join("wall-clock") };
        clock.jump(0)?;
        Ok(clock)
    }

    /// From now on it is so many seconds ahead.
    ///
    /// # Errors
    /// Where its file cannot be written.
    pub fn jump(&self, ahead_s: i64) -> Result<()> {
        use std::os::unix::fs::FileExt;
        let file = std::fs::File::options().create(true).write(true).truncate(false).open(&self.ahead_s);
        // In place: the file is mapped.
        Ok(file.context("the wall clock")?.write_all_at(&ahead_s.to_ne_bytes(), 0)?)
    }

    /// What a process has in its environment for it.
    pub fn environment(&self) -> [(&'static str, &OsStr); 2] {
        [("LD_PRELOAD", Path::new(LIBRARY).as_os_str()), ("FLOODWALL_TEST_WALL_CLOCK", self.ahead_s.as_os_str())]
    }
}

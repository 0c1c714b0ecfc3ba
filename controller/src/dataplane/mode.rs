//! Whether drops are real: the mode, the kill switch, and drops on trial.

use aya::maps::{Array, Map};
use floodwall_common::abi::map;
use floodwall_common::clock::Moment;
use floodwall_common::config::{Config, Mode};

use super::error::{Error, Result};
use super::maps::shapes;
use super::{Dataplane, Pins, check_loaded, lock, possible_cpus, read_config, typed, unix_s, write_config};

/// The configuration before the kill switch was turned, and after it.
#[derive(Clone, Debug)]
pub struct Switched {
    /// What was in force.
    pub before: Box<Config>,
    /// What is.
    pub after: Box<Config>,
}

/// The kill switch where no daemon answers: takes the configuration's map and nothing else, so that it works whatever is wrong
/// with the rest. Whoever holds the lock is not waited for either: one that hangs would keep all drops real. Should he
/// change something in this very moment, his word may be the later one; a daemon that goes on finds the request in its socket.
///
/// # Errors
/// Where nothing is pinned, or the map is not of this build or cannot be written.
pub fn stop_pinned(pins: &Pins) -> Result<Switched> {
    check_loaded(pins)?;
    let _lock = lock(pins).ok();
    let all = shapes(possible_cpus()?);
    let shape = all.iter().find(|shape| shape.name == map::CONFIG);
    let shape = shape.ok_or_else(|| Error::NotLoaded { path: pins.directory().to_owned() })?;
    let mut pinned = typed(shape.open(pins)?, Map::Array, Array::try_from)?;
    let before = read_config(&pinned)?;
    let mut after = before.clone();
    turn(&mut after, Config::stop);
    after.generation += 1;
    write_config(&mut pinned, &after)?;
    Ok(Switched { before, after })
}

/// Sets the mode, and since when it is.
fn turn(config: &mut Config, set: impl FnOnce(&mut Config)) {
    let before = config.mode;
    set(config);
    if config.mode != before {
        config.mode_since_unix_s = unix_s();
    }
}

impl Dataplane {
    /// Makes drops real, or not.
    ///
    /// # Errors
    /// Where all dropping is stopped, or the map cannot be written.
    pub fn set_mode(&mut self, mode: Mode) -> Result<()> {
        self.refuse_stopped()?;
        self.change_mode(|config| config.mode = mode as u32)
    }

    /// Makes drops real until a moment on the packet path's clock. The kernel half itself ends them then, whoever is there.
    ///
    /// # Errors
    /// As [`Self::set_mode`].
    pub fn try_enforcing(&mut self, until: Moment) -> Result<()> {
        self.refuse_stopped()?;
        self.change_mode(|config| config.try_enforcing(until))
    }

    /// Has drops that are on trial stay real.
    ///
    /// # Errors
    /// Where the map cannot be written.
    pub fn confirm(&mut self) -> Result<()> {
        self.change_mode(Config::confirm)
    }

    /// Takes the mode of an earlier configuration back, with its trial.
    ///
    /// # Errors
    /// Where the map cannot be written.
    pub fn take_back_mode(&mut self, earlier: &Config) -> Result<()> {
        self.change_mode(|config| (config.mode, config.trial_until_ns) = (earlier.mode, earlier.trial_until_ns))
    }

    /// The kill switch: from now on nothing drops, whatever anybody sets.
    ///
    /// # Errors
    /// Where the map cannot be written.
    pub fn stop(&mut self) -> Result<Switched> {
        self.switch(Config::stop)
    }

    /// Goes on in the mode of before.
    ///
    /// # Errors
    /// Where the map cannot be written.
    pub fn resume(&mut self) -> Result<Switched> {
        self.switch(Config::resume)
    }

    fn switch(&mut self, set: fn(&mut Config)) -> Result<Switched> {
        let before = self.config()?;
        self.change_mode(set)?;
        let mut after = before.clone();
        set(&mut after);
        Ok(Switched { before, after })
    }

    fn refuse_stopped(&self) -> Result<()> {
        if self.config()?.mode() == Mode::Stopped { Err(Error::Stopped) } else { Ok(()) }
    }

    fn change_mode(&mut self, set: impl FnOnce(&mut Config)) -> Result<()> {
        self.change(None, |config| turn(config, set)).map(drop)
    }
}

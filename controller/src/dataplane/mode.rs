//! Whether drops are real: the mode, the kill switch, and drops on trial.

use floodwall_common::clock::Moment;
use floodwall_common::config::{Config, Mode};

use super::error::{Error, Result};
use super::{Dataplane, unix_s};

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
    pub fn stop(&mut self) -> Result<()> {
        self.change_mode(Config::stop)
    }

    /// Goes on in the mode of before.
    ///
    /// # Errors
    /// Where the map cannot be written.
    pub fn resume(&mut self) -> Result<()> {
        self.change_mode(Config::resume)
    }

    fn refuse_stopped(&self) -> Result<()> {
        if self.config()?.mode() == Mode::Stopped { Err(Error::Stopped) } else { Ok(()) }
    }

    fn change_mode(&mut self, set: impl FnOnce(&mut Config)) -> Result<()> {
        let since = unix_s();
        let change = |config: &mut Config| {
            let before = config.mode;
            set(config);
            if config.mode != before {
                config.mode_since_unix_s = since;
            }
        };
        self.change(None, change).map(drop)
    }
}

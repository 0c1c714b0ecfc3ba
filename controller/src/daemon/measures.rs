//! Putting a measure in force and taking it back, and which of them a daemon after this one has to take back.

use std::path::{Path, PathBuf};
use std::time::Duration;

use floodwall_common::abi::Counter;
use floodwall_common::cookie::CookieMode;
use floodwall_common::reason::{Reason, Verdict as Fate};
use floodwall_common::signatures::Action;
use tracing::{error, info, warn};

use super::Daemon;
use crate::api::CookiesChange;
use crate::dataplane::{self, Dataplane, Signature, cookies_of};
use crate::exit::describe;
use crate::respond::{InForce, Measure, STAYS_NS, automatic_name};
use crate::{control, files};

pub(super) const STAYS: Duration = Duration::from_nanos(STAYS_NS);
/// What cookies are called in the file of what is armed.
const COOKIES: &str = "cookies";

/// Puts a measure in force, or prolongs it. `false` where the operator has done the same already: then it is his.
pub(super) fn arm(daemon: &Daemon, measure: &Measure) -> anyhow::Result<bool> {
    let mut dataplane = daemon.dataplane();
    match measure {
        Measure::Drop(reason) => {
            if dataplane.config()?.drops.has(*reason) {
                return Ok(false);
            }
            if dataplane::NEED_MEMORY.contains(reason) {
                let without = dataplane.not_remembered()?;
                anyhow::ensure!(without.is_empty(), "what leaves through {} is not remembered", without.join(", "));
            }
            dataplane.set_policy(*reason, Fate::Drop)?;
        }
        Measure::Cookies => {
            if cookies_of(&dataplane.config()?).0 != CookieMode::Off {
                return Ok(false);
            }
            let change = CookiesChange { mode: CookieMode::Auto.label().to_owned(), answers: None };
            control::set_cookies(&mut dataplane, &change, &daemon.devices())?;
        }
        Measure::Signature(vector, found) => {
            let clock = dataplane.clock()?;
            let generation = dataplane.config()?.generation;
            let name = automatic_name(*vector, found);
            let mut wanted = dataplane.signatures()?;
            wanted.retain(|signature| signature.is_live(clock.now()) && signature.name != name);
            wanted.push(Signature {
                number: None,
                name,
                shape: found.shape,
                action: Action::Drop,
                until: Some(clock.after(STAYS)),
                added: std::time::SystemTime::now(),
                note: "automatic".to_owned(),
                hits: Counter::default(),
            });
            dataplane.install_signatures(&wanted, generation)?;
        }
    }
    drop(dataplane);
    daemon.automatic.set(measure, true);
    Ok(true)
}

/// Takes a measure back.
pub(super) fn disarm(daemon: &Daemon, measure: &Measure) -> anyhow::Result<()> {
    let mut dataplane = daemon.dataplane();
    match measure {
        Measure::Drop(reason) => {
            dataplane.set_policy(*reason, Fate::Pass)?;
        }
        // Whoever has chosen another mode meanwhile wants that.
        Measure::Cookies if cookies_of(&dataplane.config()?).0 != CookieMode::Auto => {}
        Measure::Cookies => {
            let change = CookiesChange { mode: CookieMode::Off.label().to_owned(), answers: None };
            control::set_cookies(&mut dataplane, &change, &daemon.devices())?;
        }
        Measure::Signature(vector, found) => {
            let (name, generation) = (automatic_name(*vector, found), dataplane.config()?.generation);
            let (clock, mut wanted) = (dataplane.clock()?, dataplane.signatures()?);
            wanted.retain(|signature| signature.is_live(clock.now()));
            let before = wanted.len();
            wanted.retain(|signature| signature.name != name);
            // Most have ended by themselves.
            if wanted.len() != before {
                dataplane.install_signatures(&wanted, generation)?;
            }
        }
    }
    drop(dataplane);
    daemon.automatic.set(measure, false);
    Ok(())
}

/// Counts what suits the measures in force, and says which of them somebody else has taken back.
pub(super) fn look_after(dataplane: &Dataplane, in_force: &mut [InForce], now_ns: u64) -> dataplane::Result<Vec<bool>> {
    let (config, signatures, now) = (dataplane.config()?, dataplane.signatures()?, dataplane.clock()?.now());
    let taken_back = in_force.iter_mut().map(|present| match &present.measure {
        Measure::Drop(reason) => !config.drops.has(*reason),
        Measure::Cookies => cookies_of(&config).0 == CookieMode::Off,
        Measure::Signature(vector, found) => {
            let name = automatic_name(*vector, found);
            let there = signatures.iter().find(|signature| signature.name == name && signature.is_live(now));
            if let Some(signature) = there {
                present.count(signature.hits.packets, now_ns);
            }
            there.is_none()
        }
    });
    Ok(taken_back.collect())
}

/// The measures in force that do not end by themselves, kept in a file for the daemon that comes after this one.
pub(super) struct Automatic {
    path: PathBuf,
}

impl Automatic {
    pub(super) fn beside(history: &Path) -> Self {
        Self { path: history.with_file_name("automatic.json") }
    }

    fn read(&self) -> Vec<String> {
        let text = std::fs::read_to_string(&self.path).unwrap_or_default();
        serde_json::from_str(&text).unwrap_or_default()
    }

    fn set(&self, measure: &Measure, in_force: bool) {
        let label = match measure {
            Measure::Drop(reason) => reason.label(),
            Measure::Cookies => COOKIES,
            Measure::Signature(..) => return,
        };
        let mut labels = self.read();
        labels.retain(|other| other != label);
        if in_force {
            labels.push(label.to_owned());
        }
        let text = serde_json::to_string(&labels).unwrap_or_default();
        if let Err(error) = files::replace(&self.path, &text) {
            warn!(%error, path = %self.path.display(), "what is armed cannot be written down");
        }
    }

    /// Takes back what a daemon before this one had armed: what still goes on is found again in a moment.
    pub(super) fn take_back(&self, daemon: &Daemon) {
        for label in self.read() {
            let measure =
                if label == COOKIES { Some(Measure::Cookies) } else { Reason::from_label(&label).map(Measure::Drop) };
            let Some(measure) = measure else { continue };
            match disarm(daemon, &measure) {
                Ok(()) => info!(measure = measure.to_string(), "withdrawn: armed by a daemon before this one"),
                Err(failed) => error!(measure = measure.to_string(), error = describe(&failed), "cannot be withdrawn"),
            }
        }
    }
}

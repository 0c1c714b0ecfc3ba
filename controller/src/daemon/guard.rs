//! Looks whether others have undone anything, and has it mended: within a second, but not again and again.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use tracing::{error, info, warn};

use super::Daemon;
use crate::dataplane::{Device, Mended};
use crate::history;

/// The longest wait before the next attempt at an interface: it doubles from one second.
const LONGEST: Duration = Duration::from_secs(60);
/// An interface that has been well for so long is tried at once again.
const FORGIVEN: Duration = Duration::from_secs(120);

#[derive(Debug, Default)]
pub(super) struct Guard {
    interfaces: HashMap<String, Attempts>,
    pins_refused: bool,
}

#[derive(Debug)]
struct Attempts {
    last: Instant,
    wait: Duration,
}

impl Guard {
    /// Looks once.
    pub(super) fn look(&mut self, daemon: &Daemon, devices: &[Device]) {
        self.interfaces.retain(|_, attempts| attempts.last.elapsed() < FORGIVEN);
        self.pins(daemon);
        let options = &daemon.options;
        let now = Instant::now();
        let mended = daemon
            .dataplane()
            .mend_interfaces(devices, options.allow_generic, options.egress_hook, |name| self.may_try(name, now));
        match mended {
            Ok(mended) => mended.into_iter().for_each(|mended| tell(daemon, mended)),
            Err(error) => warn!(%error, "cannot look after the interfaces"),
        }
    }

    /// Whether it is time to try an interface; if so, that counts as an attempt.
    fn may_try(&mut self, name: &str, now: Instant) -> bool {
        match self.interfaces.get_mut(name) {
            None => {
                self.interfaces.insert(name.to_owned(), Attempts { last: now, wait: Duration::from_secs(1) });
                true
            }
            Some(attempts) if now.duration_since(attempts.last) >= attempts.wait => {
                *attempts = Attempts { last: now, wait: (attempts.wait * 2).min(LONGEST) };
                true
            }
            Some(_) => false,
        }
    }

    fn pins(&mut self, daemon: &Daemon) {
        let mended = daemon.dataplane().mend_pins();
        match mended {
            Ok(0) => self.pins_refused = false,
            Ok(number) => {
                self.pins_refused = false;
                record(daemon, format!("pinned again: {number} maps and links that somebody had removed"));
            }
            Err(error) if !self.pins_refused => {
                self.pins_refused = true;
                error!(%error, "pins are gone and cannot be made again: without this daemon the filter would come off");
            }
            Err(_) => {}
        }
    }
}

fn tell(daemon: &Daemon, mended: Mended) {
    match mended {
        Mended::Attached(interface, mode) => {
            record(daemon, format!("attached again: {interface}, {}", mode.label()));
        }
        Mended::Remembers(interface, hook) => {
            record(daemon, format!("what leaves is remembered again: {interface}, {}", hook.label()));
        }
        Mended::NotAttached(interface, error) => error!(interface, %error, "cannot be attached again"),
        Mended::Renamed(from, to) => {
            info!("the configuration still has the name {from}: the next start will not find it");
            record(daemon, format!("renamed: {from} is {to} now"));
        }
    }
}

fn record(daemon: &Daemon, what: String) {
    daemon.check_up.has_mended();
    daemon.record(&history::Entry::of_this_process("daemon", what));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attempts_grow_rarer() {
        let (mut guard, begun) = (Guard::default(), Instant::now());
        let at = |guard: &mut Guard, second: u64| guard.may_try("eth0", begun + Duration::from_secs(second));
        let tried: Vec<_> = (0..200).filter(|second| at(&mut guard, *second)).collect();
        assert_eq!(tried, [0, 1, 3, 7, 15, 31, 63, 123, 183]);
        assert!(guard.may_try("eth1", begun), "each by itself");
    }
}

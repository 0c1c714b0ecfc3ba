//! What a machine says on its console, taken to pieces: the marks of `init.sh`, the words of the probe and of the
//! tests, and the lines with which kernels announce that they are broken.

use std::time::Duration;

/// What `init.sh` begins its lines with.
const MARK: &str = "floodwall-vm: ";
/// A kernel that has said one of these is not to be believed in what it says afterwards.
const BROKEN: [&str; 7] =
    ["Kernel panic", "rcu: INFO:", "soft lockup", "hard LOCKUP", "BUG: ", "Oops: ", "general protection fault"];

/// What came of loading a program.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Load {
    /// Taken, with the instructions that were verified where the kernel tells.
    Taken(Option<u64>),
    Refused(String),
}

/// A program of the payload that has ended.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Test {
    pub(super) name: String,
    pub(super) is_good: bool,
    pub(super) seconds: u64,
}

/// All that a machine has said that counts.
#[derive(Debug, Default)]
pub(super) struct Console {
    pub(super) has_booted: bool,
    pub(super) linear: Option<Load>,
    pub(super) frags: Option<Load>,
    pub(super) tests: Vec<Test>,
    /// How the kernel is locked down; nothing where it cannot be.
    pub(super) lockdown: Option<String>,
    /// The mark that all was run, without which nothing is a success.
    pub(super) is_complete: bool,
    begun: Duration,
}

/// What a line means to who watches.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Heard {
    Nothing,
    Worth(String),
    Broken,
}

impl Console {
    /// Takes a line that came so long after the start.
    pub(super) fn hear(&mut self, line: &str, at: Duration) -> Heard {
        if let Some((_, mark)) = line.split_once(MARK) {
            return self.hear_mark(mark, at);
        }
        if let Some(load) = line.strip_prefix("load ") {
            self.hear_load(load);
            return Heard::Worth(line.to_owned());
        }
        if BROKEN.iter().any(|words| line.contains(words)) {
            return Heard::Broken;
        }
        let is_worth = line.ends_with("FAILED") || line.contains("panicked at") || line.starts_with("Error: ");
        if is_worth { Heard::Worth(line.to_owned()) } else { Heard::Nothing }
    }

    fn hear_mark(&mut self, mark: &str, at: Duration) -> Heard {
        let words: Vec<_> = mark.split(' ').collect();
        match words.as_slice() {
            ["booted", ..] => self.has_booted = true,
            ["lockdown", how] => self.lockdown = Some((*how).to_owned()),
            ["complete"] => self.is_complete = true,
            ["begin", _] => {
                self.begun = at;
                return Heard::Nothing;
            }
            ["end", name, exit] => {
                let seconds = at.saturating_sub(self.begun).as_secs();
                let test = Test { name: (*name).to_owned(), is_good: *exit == "0", seconds };
                let outcome = if test.is_good { "good" } else { "FAILED" };
                let words = format!("{name}: {outcome} after {seconds} s");
                self.tests.push(test);
                return Heard::Worth(words);
            }
            _ => {}
        }
        Heard::Worth(mark.to_owned())
    }

    fn hear_load(&mut self, words: &str) {
        let Some((variant, outcome)) = words.split_once(' ') else { return };
        let load = match outcome.strip_prefix("refused: ") {
            Some(reason) => Load::Refused(reason.to_owned()),
            None => Load::Taken(outcome.parse().ok()),
        };
        match variant {
            "linear" => self.linear = Some(load),
            "frags" => self.frags = Some(load),
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn console(lines: &[&str]) -> Console {
        let mut console = Console::default();
        for (second, line) in (0..).zip(lines) {
            console.hear(line, Duration::from_secs(second));
        }
        console
    }

    #[test]
    fn the_marks_say_what_was_run_and_for_how_long() {
        let lines = [
            "floodwall-vm: booted 6.1.0",
            "floodwall-vm: lockdown integrity",
            "floodwall-vm: begin table",
            "ok",
            "\rx floodwall-vm: end table 101",
        ];
        let console = console(&lines);
        assert!(console.has_booted && !console.is_complete && console.lockdown.as_deref() == Some("integrity"));
        assert_eq!(console.tests, [Test { name: "table".into(), is_good: false, seconds: 2 }]);
    }

    #[test]
    fn the_probe_says_what_was_loaded() {
        let console = console(&["load linear 77018", "load frags refused: Invalid argument: x"]);
        assert_eq!(console.linear, Some(Load::Taken(Some(77_018))));
        assert_eq!(console.frags, Some(Load::Refused("Invalid argument: x".into())));
    }

    #[test]
    fn a_broken_kernel_is_not_believed() {
        let mut console = Console::default();
        let line = "[    3.1] watchdog: BUG: soft lockup - CPU#0 stuck for 22s!";
        assert_eq!(console.hear(line, Duration::ZERO), Heard::Broken);
        assert_eq!(console.hear("test a ... ok", Duration::ZERO), Heard::Nothing);
    }
}

//! `--watch`: the same question again and again, until somebody interrupts it or no longer reads.
//!
//! Only for verbs that look: what changes something is not to be done every two seconds.

use std::io::{self, Write};
use std::time::Duration;

use tokio::signal::unix::{SignalKind, signal};

use super::args::{Amplifiers, Cli, Config, Cookies, Group, Incident, Limits, List, Policy, Service, Signature, Verb};
use super::{ReaderGone, once, terminal, write_out};
use crate::exit::{Exit, Failure, describe};

/// To the upper left corner, and nothing below it.
const CLEAR: &str = "\x1b[H\x1b[2J\x1b[3J";

/// Asks until it is interrupted; the exit code is then that of the last answer. What cannot be answered at first is an error;
/// later it is said, and asked again: a daemon that is being restarted answers soon.
pub(super) async fn run(cli: Cli, seconds: u32) -> anyhow::Result<Exit> {
    if !only_looks(&cli.verb) {
        let text = "--watch is for verbs that look, and this one does something, or answers but once";
        return Err(Failure::new(Exit::Usage, text).hint("floodwall status --watch").into());
    }
    let takes_screen = !cli.global.json && terminal::is_screen(&io::stdout());
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut last = None;
    loop {
        if takes_screen {
            write_out(CLEAR)?;
        }
        match (once(cli.clone()).await, last) {
            (Ok(exit), _) => last = Some(exit),
            (Err(error), None) => return Err(error),
            (Err(error), _) if error.is::<ReaderGone>() => return Err(error),
            (Err(error), Some(_)) => {
                last = Some(crate::exit::exit_of(&error));
                let _ = writeln!(io::stderr(), "floodwall: {}", describe(&error));
            }
        }
        tokio::select! {
            () = tokio::time::sleep(Duration::from_secs(seconds.into())) => {}
            _ = interrupt.recv() => return Ok(last.unwrap_or(Exit::Done)),
        }
    }
}

fn only_looks(verb: &Verb) -> bool {
    match verb {
        Verb::Status | Verb::Top { .. } | Verb::Explain { .. } | Verb::History { .. } => true,
        Verb::Metrics | Verb::Doctor { .. } | Verb::Audit => true,
        Verb::Limits(verb) => matches!(verb, Limits::Show | Limits::Preview(_)),
        Verb::Policy(verb) => matches!(verb, Policy::Show),
        Verb::Amplifiers(verb) => matches!(verb, Amplifiers::List),
        Verb::Service(verb) => matches!(verb, Service::List),
        Verb::Group(verb) => matches!(verb, Group::List),
        Verb::Cookies(verb) => matches!(verb, Cookies::Show),
        Verb::Signature(verb) => matches!(verb, Signature::List),
        Verb::Allow(verb) | Verb::Deny(verb) => matches!(verb, List::Show),
        Verb::Incident(verb) => matches!(verb, Incident::List { follow: false, .. } | Incident::Show { .. }),
        Verb::Config(verb) => matches!(verb, Config::Check | Config::Show { .. } | Config::Diff),
        Verb::Run(_) | Verb::Mode { .. } | Verb::Confirm | Verb::Stop | Verb::Resume | Verb::Reload(_) => false,
        Verb::Fragments { .. } | Verb::Lockdown { .. } | Verb::Detach { .. } | Verb::Uninstall { .. } => false,
        Verb::Replay(_) | Verb::Runbook { .. } | Verb::Drill(_) | Verb::Completions { .. } | Verb::Man { .. } => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    fn parsed(words: &str) -> Cli {
        Cli::try_parse_from(words.split(' ')).expect(words)
    }

    #[test]
    fn what_looks_may_be_watched_and_what_changes_may_not() {
        for words in
            ["status", "top -n 5", "limits show", "deny list", "signature list", "history", "audit", "config diff"]
        {
            assert!(only_looks(&parsed(&format!("floodwall {words}")).verb), "{words}");
        }
        for words in
            ["mode enforce", "limits reset", "deny add 192.0.2.1", "stop", "reload", "uninstall", "cookies off"]
        {
            assert!(!only_looks(&parsed(&format!("floodwall {words}")).verb), "{words}");
        }
    }

    #[test]
    fn how_often_need_not_be_said() {
        assert_eq!(parsed("floodwall status --watch").global.watch, Some(2));
        assert_eq!(parsed("floodwall top --watch 5 -n 3").global.watch, Some(5));
        assert_eq!(parsed("floodwall status").global.watch, None);
        assert!(Cli::try_parse_from(["floodwall", "status", "--watch", "0"]).is_err());
    }
}

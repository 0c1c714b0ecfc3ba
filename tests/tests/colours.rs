//! Colours, in help and in logs: on a terminal that knows them, and nowhere else unless somebody insists; never where `NO_COLOR` is set.

#![expect(clippy::unwrap_used, reason = "the helpers of tests fail as the tests do: by a panic")]

use std::fs::File;
use std::io::Read;
use std::process::{Command, Stdio};

use floodwall_tests::daemon::binary;
use nix::pty::openpty;

const HELP: &[&str] = &["--help"];
const WRONG: &[&str] = &["status", "--nonsense"];
/// Logs a warning, and ends for want of a BPF file system.
const LOG: &[&str] = &["run", "--interface", "lo", "--interface", "lo", "--metrics", "off", "--bpffs", "/nonexistent"];
const ANSWER: &[&str] = &["config", "show"];

fn command(arguments: &[&str], environment: &[(&str, &str)]) -> Command {
    let mut command = Command::new(binary().unwrap());
    command.args(arguments).env_clear().envs(environment.iter().copied()).stdin(Stdio::null());
    command
}

/// All that it writes to a terminal.
fn on_terminal(arguments: &[&str], environment: &[(&str, &str)]) -> String {
    let terminal = openpty(None, None).unwrap();
    let mut command = command(arguments, environment);
    command.stdout(terminal.slave.try_clone().unwrap()).stderr(terminal.slave);
    let mut child = command.spawn().unwrap();
    // With the last descriptor of its other end, reading ends.
    drop(command);
    let mut bytes = Vec::new();
    let mut seen = File::from(terminal.master);
    let mut part = [0; 4_096];
    while let Ok(read @ 1..) = seen.read(&mut part) {
        bytes.extend(&part[..read]);
    }
    child.wait().unwrap();
    String::from_utf8(bytes).unwrap()
}

/// All that it writes to a pipe.
fn on_pipe(arguments: &[&str], environment: &[(&str, &str)]) -> String {
    let output = command(arguments, environment).output().unwrap();
    String::from_utf8([output.stdout, output.stderr].concat()).unwrap()
}

fn is_coloured(seen: &str) -> bool {
    assert!(seen.len() > 20, "{seen:?}");
    seen.contains("\u{1b}[")
}

#[test]
fn a_terminal_has_colours_unless_somebody_objects() {
    let term = ("TERM", "xterm-256color");
    for arguments in [HELP, WRONG, LOG] {
        let on = |environment: &[(&str, &str)]| is_coloured(&on_terminal(arguments, environment));
        assert!(on(&[term]), "{arguments:?}");
        assert!(!on(&[term, ("NO_COLOR", "1")]), "{arguments:?}");
        assert!(!on(&[term, ("CLICOLOR", "0")]), "{arguments:?}");
        assert!(!on(&[("TERM", "dumb")]) && !on(&[]), "{arguments:?}");
        assert!(!on(&[term, ("NO_COLOR", "1"), ("CLICOLOR_FORCE", "1")]), "{arguments:?}");
    }
    assert!(!is_coloured(&on_terminal(ANSWER, &[term])), "answers have none");
}

#[test]
fn a_pipe_has_none_unless_somebody_insists() {
    for arguments in [HELP, WRONG, LOG] {
        let on = |environment: &[(&str, &str)]| is_coloured(&on_pipe(arguments, environment));
        assert!(!on(&[("TERM", "xterm")]), "{arguments:?}");
        assert!(on(&[("CLICOLOR_FORCE", "1")]), "{arguments:?}");
        assert!(!on(&[("CLICOLOR_FORCE", "1"), ("NO_COLOR", "1")]), "{arguments:?}");
    }
    let json = [LOG, &["--log-json"]].concat();
    assert!(!is_coloured(&on_pipe(&json, &[("CLICOLOR_FORCE", "1")])), "nor what is for programs");
}

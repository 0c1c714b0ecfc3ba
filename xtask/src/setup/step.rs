//! One long step of the set-up: says what it does, shows that it still does it, how long it took,
//! and in a failure the end of what the program said. The whole of it goes to a log file.

use std::fs::File;
use std::io::IsTerminal as _;
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};

use crate::command::{self, shown};

const POLL: Duration = Duration::from_millis(50);
/// A log in CI should show progress, and not be made of it.
const QUIET_INTERVAL: Duration = Duration::from_secs(15);
const LINES_IN_ERROR: usize = 15;

/// A program that installs something.
pub(crate) struct Step {
    title: String,
    command: Command,
    limit: Option<Duration>,
}

impl Step {
    pub(crate) fn new(title: impl Into<String>, command: Command) -> Self {
        Self { title: title.into(), command, limit: None }
    }

    /// Gives up after `limit`: a network that drops packets looks like one that is slow.
    pub(crate) fn within(mut self, limit: Duration) -> Self {
        self.limit = Some(limit);
        self
    }

    pub(crate) fn run(mut self) -> Result<()> {
        let log = self.log_file()?;
        let output = File::create(&log).with_context(|| format!("cannot write {}", log.display()))?;
        let status = self.finish(output)?;
        if status.success() {
            return Ok(());
        }
        let said = std::fs::read(&log).unwrap_or_default();
        let said = last_lines(&String::from_utf8_lossy(&said));
        bail!("`{}` failed ({status}); {} ends:\n{said}", shown(&self.command), log.display());
    }

    fn log_file(&self) -> Result<PathBuf> {
        let logs = command::target_dir()?.join("setup");
        std::fs::create_dir_all(&logs)?;
        let name = self.title.replace(|letter: char| !letter.is_ascii_alphanumeric(), "-");
        Ok(logs.join(name + ".log"))
    }

    fn finish(&mut self, output: File) -> Result<ExitStatus> {
        let start = Instant::now();
        self.command.stdin(Stdio::null()).stdout(output.try_clone()?).stderr(output);
        let child = self.command.spawn();
        let mut child = child.with_context(|| format!("cannot start `{}`", shown(&self.command)))?;
        let mut progress = Progress::begin(&self.title);
        let status = self.wait(&mut child, start, &mut progress);
        progress.end(start.elapsed(), status.as_ref().is_ok_and(ExitStatus::success));
        status
    }

    fn wait(&self, child: &mut Child, start: Instant, progress: &mut Progress) -> Result<ExitStatus> {
        loop {
            if let Some(status) = child.try_wait()? {
                return Ok(status);
            }
            if self.limit.is_some_and(|limit| start.elapsed() > limit) {
                child.kill()?;
                child.wait()?;
                bail!("`{}` took too long", shown(&self.command));
            }
            progress.show(start.elapsed());
            std::thread::sleep(POLL);
        }
    }
}

/// What the user sees while a step runs: a counter on a terminal, now and then a line elsewhere.
struct Progress {
    title: String,
    on_terminal: bool,
    last_shown: Duration,
}

impl Progress {
    fn begin(title: &str) -> Self {
        eprint!("setup: {title} …");
        let on_terminal = std::io::stderr().is_terminal();
        if !on_terminal {
            eprintln!();
        }
        Self { title: title.to_owned(), on_terminal, last_shown: Duration::ZERO }
    }

    fn show(&mut self, elapsed: Duration) {
        let interval = if self.on_terminal { Duration::from_secs(1) } else { QUIET_INTERVAL };
        if elapsed - self.last_shown < interval {
            return;
        }
        self.last_shown = elapsed;
        let (start, end) = if self.on_terminal { ("\r", "") } else { ("", "\n") };
        eprint!("{start}setup: {} … {} s{end}", self.title, elapsed.as_secs());
    }

    fn end(&self, elapsed: Duration, done: bool) {
        let start = if self.on_terminal { "\r\x1b[K" } else { "" };
        let outcome = if done { "done" } else { "failed" };
        eprintln!("{start}setup: {}: {outcome} in {:.1} s", self.title, elapsed.as_secs_f32());
    }
}

fn last_lines(text: &str) -> String {
    let lines: Vec<&str> = text.lines().filter(|line| !line.trim().is_empty()).collect();
    lines[lines.len().saturating_sub(LINES_IN_ERROR)..].join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(script: &str) -> Command {
        let mut command = Command::new("sh");
        command.args(["-c", script]);
        command
    }

    fn error_of(step: Step) -> String {
        match step.run() {
            Ok(()) => panic!("the step was to fail"),
            Err(error) => format!("{error:#}"),
        }
    }

    #[test]
    fn a_failure_shows_the_end_of_what_the_program_said() {
        let script = "for i in $(seq 100); do echo line $i; done; exit 3";
        let error = error_of(Step::new("failing", shell(script)));
        assert!(error.contains("exit status: 3"), "{error}");
        assert!(error.contains("line 100") && error.contains("line 86"), "{error}");
        assert!(!error.contains("line 85"), "{error}");
    }

    #[test]
    fn a_step_that_hangs_is_ended() {
        let hanging = Step::new("hanging", shell("exec sleep 60")).within(Duration::from_millis(1));
        assert!(error_of(hanging).contains("took too long"));
    }

    #[test]
    fn a_step_that_ends_in_time_is_done() {
        let step = Step::new("quick", shell("echo done")).within(Duration::from_secs(60));
        assert!(step.run().is_ok());
    }
}

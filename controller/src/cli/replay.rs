//! `replay`: a line per change of the verdict, and what came of it.

use std::io::Write as _;

use super::args::{Global, Replay};
use super::{ReaderGone, io};
use crate::exit::{Exit, Failure, describe};
use crate::replay::{Line, Options, Summary, files, replay};

pub(super) fn run(global: &Global, asked: &Replay) -> anyhow::Result<()> {
    let options = Options {
        protect: asked.protect.clone(),
        advise: asked.advise,
        speed: asked.speed.0,
        features: asked.features,
    };
    let files = files(&asked.files)?;
    let mut failed = 0;
    for file in &files {
        if !global.json {
            write(&format!("{}\n", file.display()))?;
        }
        let warn = |text: &str| {
            let _ = writeln!(io::stderr(), "floodwall: {text}");
        };
        let tell = |line: &Line| {
            if global.json { write(&format!("{}\n", serde_json::to_string(line)?)) } else { write(&in_words(line)) }
        };
        let summary = match replay(file, &options, warn, tell) {
            // Of many files the others are told all the same.
            Err(error) if files.len() > 1 && !error.is::<ReaderGone>() => {
                let _ = writeln!(io::stderr(), "floodwall: {}", describe(&error));
                failed += 1;
                continue;
            }
            summary => summary?,
        };
        if global.json {
            let mut value = serde_json::json!({ "summary": summary });
            if files.len() > 1 {
                value["file"] = file.display().to_string().into();
            }
            write(&format!("{value}\n"))?;
        } else {
            write(&summary_in_words(&summary))?;
        }
    }
    anyhow::ensure!(
        failed == 0,
        Failure::new(Exit::Configuration, format!("{failed} of {} files could not be replayed", files.len()))
    );
    Ok(())
}

fn write(text: &str) -> anyhow::Result<()> {
    match io::stdout().write_all(text.as_bytes()) {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Err(ReaderGone.into()),
        done => Ok(done?),
    }
}

fn in_words(line: &Line) -> String {
    let what = if line.vectors.is_empty() { String::new() } else { format!(": {}", line.vectors.join(", ")) };
    let sure = line.confidence * 100.0;
    let mut text = format!("{:>9.2} s  {}{what} ({sure:.0} % sure)\n", line.t, line.verdict.label());
    for reason in &line.reasons {
        text += &format!("             - {reason}\n");
    }
    for action in &line.actions {
        text += &format!("             > {action}\n");
    }
    text
}

fn summary_in_words(summary: &Summary) -> String {
    let share = |part: u64| part as f64 * 100.0 / summary.packets.max(1) as f64;
    let mut text = format!(
        "  {} packets to {} in {:.1} s, {} sent: {} dropped ({:.2} %), {} passed\n",
        summary.packets,
        summary.protected.join(", "),
        summary.duration_s,
        summary.sent,
        summary.dropped,
        share(summary.dropped),
        summary.passed,
    );
    for (reason, count) in &summary.dropped_by_reason {
        text += &format!("      {count:>9}  {reason}\n");
    }
    for (group, measured) in summary.features.iter().flatten() {
        text += &format!("      {group}: {measured}\n");
    }
    text
}

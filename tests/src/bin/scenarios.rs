//! The sixteen scenarios of detection, end to end, behind Floodwall and behind what others do. In namespaces of its own.

use std::fs::File;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context as _, Result, ensure};
use clap::{Parser, ValueEnum};
use floodwall_tests::bench::markdown;
use floodwall_tests::scenarios::run::{Settings, allow_many_connections, play};
use floodwall_tests::scenarios::score::{Score, score};
use floodwall_tests::scenarios::table::SCENARIOS;
use floodwall_tests::scenarios::walls::Wall;
use floodwall_tests::scenarios::{Level, Scenario, Timing, report};
use serde::Serialize;

/// Play scenarios of attacks, crowds and mistakes, and score what stands before the server
#[derive(Debug, Parser)]
struct Options {
    /// Only these, by their numbers
    #[arg(long, value_delimiter = ',', value_parser = clap::value_parser!(u8).range(1..=16))]
    only: Vec<u8>,
    /// How often each is played, with another seed: 5, or once where it is short
    #[arg(long, value_parser = clap::value_parser!(u64).range(1..=100))]
    seeds: Option<u64>,
    /// How hard: 20,000 packets a second, which is what it is where it is short, or 100,000
    #[arg(long, value_enum)]
    level: Option<Hardness>,
    /// What is put before the server
    #[arg(long, value_delimiter = ',', value_enum, default_value = "floodwall")]
    wall: Vec<Wall>,
    /// Times as short as they can be: ten minutes for all behind one wall
    #[arg(long)]
    short: bool,
    /// A file of scores, a line each: what is in it is not played again, what is played is added
    #[arg(long, value_name = "FILE")]
    scores: Option<PathBuf>,
    /// What is good has the hardware address of what is not, and the other way round: nothing may change by it
    #[arg(long)]
    swap_macs: bool,
    /// Print JSON
    #[arg(long)]
    json: bool,
    /// Put the table between the marks of this document
    #[arg(long, value_name = "FILE", num_args = 0..=1, default_missing_value = "docs/detection.md")]
    markdown: Option<PathBuf>,
    /// Write what was seen of each run into this directory
    #[arg(long, value_name = "DIRECTORY")]
    record: Option<PathBuf>,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Hardness {
    S,
    M,
}

#[derive(Serialize)]
struct Report<'a> {
    level: Level,
    timing: Timing,
    swapped: bool,
    scores: &'a [Score],
}

fn main() -> ExitCode {
    match run(&Options::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("scenarios: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(options: &Options) -> Result<()> {
    allow_many_connections()?;
    let settings = Settings {
        level: match options.level {
            Some(Hardness::S) => Level::S,
            None if options.short => Level::S,
            Some(Hardness::M) | None => Level::M,
        },
        timing: if options.short { Timing::SHORT } else { Timing::LONG },
        swapped: options.swap_macs,
    };
    let seeds = options.seeds.unwrap_or(if options.short { 1 } else { 5 });
    let mut scores = options.scores.as_deref().map_or(Ok(Vec::new()), |path| kept(path, &settings))?;
    for scenario in SCENARIOS.iter().filter(|one| options.only.is_empty() || options.only.contains(&one.number)) {
        for seed in 1..=seeds {
            for wall in &options.wall {
                let is_this =
                    |score: &Score| (score.scenario, &*score.wall, score.seed) == (scenario.number, wall.name(), seed);
                if scores.iter().any(is_this) {
                    continue;
                }
                let what = || format!("{} {} behind {}", scenario.number, scenario.name, wall.name());
                let score = one(scenario, *wall, &settings, seed, options).with_context(what)?;
                if let Some(path) = &options.scores {
                    keep(path, &score)?;
                }
                scores.push(score);
            }
        }
    }
    if let Some(document) = &options.markdown {
        markdown::write_between(document, "scenarios", &report::markdown(&scores, &settings)?)?;
        eprintln!("scenarios: the table of {} is new", document.display());
    }
    if options.json {
        let report =
            Report { level: settings.level, timing: settings.timing, swapped: settings.swapped, scores: &scores };
        println!("{}", serde_json::to_string_pretty(&report)?);
    } else {
        println!("{}", report::table(&scores));
    }
    Ok(())
}

/// The scores in this file, if there is one. Scores of another form are not mixed with those of this one.
fn kept(path: &Path, settings: &Settings) -> Result<Vec<Score>> {
    if !path.exists() {
        return Ok(Vec::new());
    }
    let text = std::fs::read_to_string(path).with_context(|| format!("read {}", path.display()))?;
    let of_line = |(number, line): (usize, &str)| {
        let place = || format!("{}, line {}", path.display(), number + 1);
        let score: Score = serde_json::from_str(line).with_context(|| format!("{}: no score", place()))?;
        ensure!(score.form == settings.into(), "{}: played at another level, or in other times", place());
        Ok(score)
    };
    text.lines().enumerate().map(of_line).collect()
}

fn keep(path: &Path, score: &Score) -> Result<()> {
    let add = || writeln!(File::options().create(true).append(true).open(path)?, "{}", serde_json::to_string(score)?);
    add().with_context(|| format!("write {}", path.display()))
}

fn one(scenario: &Scenario, wall: Wall, settings: &Settings, seed: u64, options: &Options) -> Result<Score> {
    eprint!("{:>2} {:<32} {:<10} seed {seed}  ", scenario.number, scenario.name, wall.name());
    let played = play(scenario, wall, settings, seed)?;
    let score = score(scenario, wall, settings, seed, &played);
    eprintln!(
        "{:>3.0} points, {} in it; {:.0} % idle, {:.0} % stolen, {:.2} % lost before",
        score.points.sum(),
        score.verdict.as_deref().unwrap_or("nothing said"),
        score.machine.0 * 100.0,
        score.machine.1 * 100.0,
        score.lost_before * 100.0
    );
    if let Some(directory) = &options.record {
        std::fs::create_dir_all(directory)?;
        let path = directory.join(format!("{}-{}-{seed}.json", scenario.number, wall.name()));
        std::fs::write(path, serde_json::to_string_pretty(&played.record())?)?;
    }
    Ok(score)
}

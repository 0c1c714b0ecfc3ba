//! The sixteen scenarios of detection, end to end, behind Floodwall and behind what others do. In namespaces of its own.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context as _, Result};
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
    /// How often each is played, with another seed
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u64).range(1..=100))]
    seeds: u64,
    /// How hard: 20,000 packets a second, or 100,000
    #[arg(long, value_enum, default_value_t = Hardness::S)]
    level: Hardness,
    /// What else is put before the server, after Floodwall
    #[arg(long, value_delimiter = ',', value_enum)]
    peer: Vec<Wall>,
    /// Times as short as they can be, and one seed: less than ten minutes for all
    #[arg(long, conflicts_with_all = ["seeds", "level"])]
    short: bool,
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
            Hardness::S => Level::S,
            Hardness::M => Level::M,
        },
        timing: if options.short { Timing::SHORT } else { Timing::LONG },
        swapped: options.swap_macs,
    };
    let seeds = if options.short { 1 } else { options.seeds };
    let mut walls = vec![Wall::Floodwall];
    walls.extend(options.peer.iter().filter(|wall| **wall != Wall::Floodwall));
    let mut scores = Vec::new();
    let wanted = SCENARIOS.iter().filter(|one| options.only.is_empty() || options.only.contains(&one.number));
    for scenario in wanted {
        for seed in 1..=seeds {
            for wall in &walls {
                let what = || format!("{} {} behind {}", scenario.number, scenario.name, wall.name());
                scores.push(one(scenario, *wall, &settings, seed, options).with_context(what)?);
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

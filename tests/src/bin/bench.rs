//! `bench`: nanoseconds per packet of the loaded filter, by test runs through a wrapper that gives each packet its
//! source; absolute, and as a ratio to a bare drop through the same wrapper in the same run. That attaches nothing: what a
//! driver costs is in the live figures only (`--live`).

use std::path::PathBuf;
use std::time::Instant;

use anyhow::{Context as _, Result};
use clap::Parser;
use floodwall_tests::bench::live::Live;
use floodwall_tests::bench::{self, Figure, Plan, live, markdown};
use serde::Serialize;

/// What a packet costs in the filter, by test runs: the median of interleaved rounds
///
/// Every packet gets its source from a wrapper program, which hands it on by a tail call. The wrapper is part of every
/// figure (about 25 ns), of the bare drop's too; ratios are to that, measured in the same rounds: of IPv4 cases to
/// `bare-drop`, of IPv6 cases to a bare drop of the same IPv6 frames (`bare-drop-v6`). Cases named `two-cores-…` run on
/// two CPUs at once, and their ratio is to the same case on one. The filter is the shipped one with its default limits,
/// enforcing, sampling one packet in 5,000 and at most 1,000 a second and CPU, as the daemon does in a flood; names such as
/// `ladder` say what is armed in it. Cases named `lru-window-…` are the usual design of other filters, and `xdp-filter-…`
/// that program, where it is installed.
#[derive(Parser)]
struct Options {
    /// Print one JSON object on standard output, and the rest on standard error
    #[arg(long)]
    json: bool,
    /// Measure only these cases, and what their ratios are to
    #[arg(long, value_name = "NAMES", value_delimiter = ',', conflicts_with = "markdown")]
    cases: Vec<String>,
    /// Rounds; each measures every case once
    #[arg(long, default_value_t = 11, value_parser = clap::value_parser!(u32).range(1..))]
    rounds: u32,
    /// Packets of each case in each round
    #[arg(long, default_value_t = 2_000_000, value_parser = clap::value_parser!(u32).range(1_000..))]
    packets: u32,
    /// Also measure how exactly a limit is kept while ten million random sources a second churn (takes some seconds)
    #[arg(long)]
    accuracy: bool,
    /// Also measure on links of namespaces, beside clients and other filters (some minutes)
    #[arg(long)]
    live: bool,
    /// Also measure live, and put all tables between the marks of this document
    #[arg(long, value_name = "FILE", num_args = 0..=1, default_missing_value = "docs/performance.md")]
    markdown: Option<PathBuf>,
}

#[derive(Serialize)]
struct Report<'a> {
    cases: &'a [Figure],
    #[serde(skip_serializing_if = "Option::is_none")]
    accuracy: Option<bench::Accuracy>,
    #[serde(skip_serializing_if = "Option::is_none")]
    live: Option<Live>,
}

fn main() -> Result<()> {
    let options = Options::parse();
    let begun = Instant::now();
    let progress = |done: u32| {
        if begun.elapsed().as_secs() >= 2 {
            eprint!("\rround {done} of {}, {} s ", options.rounds, begun.elapsed().as_secs());
        }
    };
    let plan = Plan { cases: options.cases, rounds: options.rounds, packets: options.packets };
    let cases = bench::measure(&plan, progress)?;
    eprintln!("\r{} rounds of {} packets a case, {:.1?}", options.rounds, options.packets, begun.elapsed());
    let accuracy = options.accuracy.then(bench::accuracy).transpose()?;
    let is_live = options.live || options.markdown.is_some();
    let live = is_live.then(|| live::measure(|step| eprintln!("live: {step}"))).transpose()?;
    if let Some(document) = &options.markdown {
        markdown::write(document, &markdown::tables(&cases, live.as_ref())?)?;
        eprintln!("bench: the tables of {} are new", document.display());
    }
    let report = Report { cases: &cases, accuracy, live };
    match options.json {
        true => println!("{}", serde_json::to_string(&report).context("write the report")?),
        false => print(&report),
    }
    Ok(())
}

fn print(report: &Report<'_>) {
    println!("{:<28} {:>8} {:>7}", "case", "ns", "ratio");
    for Figure { name, ns, ratio } in report.cases {
        println!("{name:<28} {ns:>8.1} {ratio:>7.2}");
    }
    if let Some(accuracy) = &report.accuracy {
        println!("\na source at twice its limit passes {:.4} of it", accuracy.twice_the_limit);
        println!(
            "a source at 0.95 of its limit loses {} of {} packets",
            accuracy.innocent_lost, accuracy.innocent_sent
        );
    }
    if let Some(live) = &report.live {
        for taken in &live.taken {
            println!("{:<12} {:>9} sources {:>6.2} Mpps {:>6.2}", taken.wall, taken.sources, taken.mpps, taken.ratio);
        }
        println!("\n100 % is {:.2} Mpps", live.capacity_mpps);
        for noticed in &live.noticed {
            println!(
                "{:<12} {:>4} % {:>6.2} Mpps received {:>6.1} % goodput, p50 {:.2} ms, p99 {:.2} ms",
                noticed.wall,
                noticed.load_percent,
                noticed.received_mpps,
                noticed.goodput * 100.0,
                noticed.p50_ms,
                noticed.p99_ms
            );
        }
    }
}

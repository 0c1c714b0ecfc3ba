//! What a daemon takes that has nothing to do: CPU time over a minute, memory and descriptors, with detection on, as it is
//! installed. It fails where that is a hundredth of a CPU or more, 40 MiB or more, or where memory or descriptors grow.

use std::fs;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use clap::Parser;
use floodwall_tests::daemon::{Daemon, Place};
use floodwall_tests::topology::{PROTECTED, Topology};

/// What a daemon takes that has nothing to do
#[derive(Debug, Parser)]
struct Options {
    /// For how long it is measured
    #[arg(long, default_value_t = 60, value_parser = clap::value_parser!(u64).range(30..=3_600))]
    seconds: u64,
}

/// A start is over after so long: what it takes is not what is measured.
const SETTLES: Duration = Duration::from_secs(10);
/// The share of one CPU, and the memory, that it may not reach.
const CPU_SHARE: f64 = 0.01;
const MEMORY_KB: u64 = 40 << 10;
/// What memory may be more after than before: a cache that fills, and no leak.
const GROWTH_KB: u64 = 1 << 10;

/// What a process has taken by now.
#[derive(Debug)]
struct Taken {
    cpu: Duration,
    resident_kb: u64,
    proportional_kb: u64,
    descriptors: usize,
}

impl Taken {
    fn by(pid: u32) -> Result<Self> {
        let memory = fs::read_to_string(format!("/proc/{pid}/smaps_rollup"))?;
        let kb = |name: &str| -> Result<u64> {
            let line = memory.lines().find_map(|line| line.strip_prefix(name)).context("smaps_rollup")?;
            Ok(line.split_whitespace().next().context("smaps_rollup")?.parse()?)
        };
        let mut cpu_ns = 0;
        for task in fs::read_dir(format!("/proc/{pid}/task"))? {
            // A thread of a pool may end meanwhile.
            let on_cpu = fs::read_to_string(task?.path().join("schedstat")).unwrap_or_default();
            cpu_ns += on_cpu.split(' ').next().and_then(|ns| ns.parse::<u64>().ok()).unwrap_or(0);
        }
        let descriptors = fs::read_dir(format!("/proc/{pid}/fd"))?.count();
        let (resident_kb, proportional_kb) = (kb("Rss:")?, kb("Pss:")?);
        Ok(Self { cpu: Duration::from_nanos(cpu_ns), resident_kb, proportional_kb, descriptors })
    }
}

fn main() -> ExitCode {
    match run(&Options::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("idle: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(options: &Options) -> Result<()> {
    let (topology, place) = (Topology::new(1)?, Place::new()?);
    let daemon = Daemon::start(&topology.server, &place, &["--interface", PROTECTED, "--respond", "act"])?;
    // condition: time itself, of which this is a measurement.
    std::thread::sleep(SETTLES);
    let (before, begun) = (Taken::by(daemon.pid())?, Instant::now());
    // condition: the same.
    std::thread::sleep(Duration::from_secs(options.seconds));
    let (after, elapsed) = (Taken::by(daemon.pid())?, begun.elapsed());
    daemon.stop()?;
    let share = after.cpu.saturating_sub(before.cpu).as_secs_f64() / elapsed.as_secs_f64();
    println!(
        "idle for {:.0} s: {:.2} % of a CPU, {:.1} MiB resident ({:.1} MiB proportional), {} descriptors",
        elapsed.as_secs_f64(),
        share * 100.0,
        after.resident_kb as f64 / 1_024.0,
        after.proportional_kb as f64 / 1_024.0,
        after.descriptors
    );
    ensure!(share > 0.0, "no CPU time was seen: {after:?}");
    ensure!(share < CPU_SHARE, "{:.2} % of a CPU", share * 100.0);
    ensure!(after.resident_kb < MEMORY_KB, "{} KiB", after.resident_kb);
    ensure!(after.resident_kb <= before.resident_kb + GROWTH_KB, "memory grows: {before:?}, then {after:?}");
    ensure!(after.descriptors <= before.descriptors, "descriptors grow: {before:?}, then {after:?}");
    Ok(())
}

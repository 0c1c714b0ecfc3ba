//! A long flood from random sources, during which limits, policies, signatures and lists of a million prefixes change all the
//! time: memory must stay what it is, verified clients must lose nothing, and nothing must fail.

use std::io::{BufWriter, Write as _};
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use clap::Parser;
use floodwall_tests::daemon::{Daemon, Place, all_packets, packets, run_verb};
use floodwall_tests::flood::Flood;
use floodwall_tests::pins::pin;
use floodwall_tests::topology::{PROTECTED, Topology};
use floodwall_tests::traffic::{Clients, Servers, finish};
use serde::Serialize;

/// Change everything during a long flood
#[derive(Debug, Parser)]
struct Options {
    /// For how long
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u64).range(1..=600))]
    minutes: u64,
    /// Prefixes of the lists that take turns
    #[arg(long, default_value_t = 1_000_000, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    prefixes: u32,
    /// Frames a second of the flood; zero for as many as one core can make and receive
    #[arg(long, default_value_t = 0, value_parser = clap::value_parser!(u64).range(0..=10_000_000))]
    pps: u64,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// Verbs that take turns.
const CHANGES: [&str; 10] = [
    "limits set udp --pps 500 --burst 500",
    "policy set bare-syn drop",
    "signature add soak --action drop --proto udp --dst-port 9 --length 40-70",
    "limits set udp --per subnet --pps 100000",
    "mode enforce",
    "limits set udp --pps 2000 --burst 2000",
    "policy set bare-syn pass",
    "signature remove soak",
    "limits set udp --per subnet --pps off",
    "lockdown on",
];
/// Kilobytes by which the daemon may have grown since its first minute, for what the allocator keeps.
const GROWTH: u64 = 16 << 10;
/// Connections that the API may be about to close.
const CONNECTIONS: usize = 4;

/// What was seen.
#[derive(Debug, Default, Serialize)]
struct Report {
    minutes: f64,
    flood_mpps: f64,
    received: u64,
    counted: u64,
    dropped: u64,
    changes: u64,
    list_swaps: u64,
    slowest_swap_s: f64,
    /// Requests over TCP and UDP of verified clients, and how many had no answer.
    requests: u64,
    unanswered: u64,
    p99_ms: f64,
    /// Kilobytes of the daemon, at its largest in the first minute and in the last.
    resident_first_kb: u64,
    resident_last_kb: u64,
    descriptors_first: usize,
    descriptors_last: usize,
    /// Of all maps, in bytes.
    maps_first: u64,
    maps_last: u64,
    /// Lines of the log that are errors.
    errors: Vec<String>,
}

fn main() -> ExitCode {
    match run(&Options::parse()) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("soak: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(options: &Options) -> Result<bool> {
    let (topology, place) = (Topology::new(4)?, Place::new()?);
    let daemon = Daemon::start(&topology.server, &place, &["--interface", PROTECTED, "--mode", "enforce"])?;
    let verb = |words: &str| run_verb(&topology.server, &place, words);
    verb("service add web --port 8080 --proto tcp,udp")?;
    verb("lockdown on")?;
    let (before, received) = topology.settled(&place)?;
    let unseen = received - all_packets(&before);
    let lists = [list(place.directory(), 20, options.prefixes)?, list(place.directory(), 40, options.prefixes)?];
    let servers = Servers::start(&topology.server, &topology.servers())?;
    let duration = Duration::from_secs(60 * options.minutes);
    let clients = Clients {
        servers: topology.servers(),
        sources: topology.clients.clone(),
        requests_per_second: 20,
        duration,
        cpu: 1,
    }
    .start(&topology.world)?;
    let flood = Flood::udp(1 << 24, options.pps, duration);
    let flood = flood.start(&topology.world, topology.target()?, 0)?;
    let begun = Instant::now();
    let mut report = Report { maps_first: map_bytes(&place)?, ..Report::default() };
    let mut next = CHANGES.iter().cycle();
    let mut lists_in_turn = lists.iter().cycle();
    while begun.elapsed() < duration {
        let list = lists_in_turn.next().context("two take turns")?.display().to_string();
        for words in [format!("deny add --file {list} --force --reason soak"), format!("deny remove --file {list}")] {
            let swap = Instant::now();
            verb(&words)?;
            report.list_swaps += 1;
            report.slowest_swap_s = report.slowest_swap_s.max(swap.elapsed().as_secs_f64());
            for words in next.by_ref().take(CHANGES.len() / 2) {
                verb(words)?;
                report.changes += 1;
            }
        }
        let resident = resident_kb(daemon.pid())?;
        let descriptors = std::fs::read_dir(format!("/proc/{}/fd", daemon.pid()))?.count();
        if begun.elapsed() < duration.min(Duration::from_secs(60)) || report.resident_first_kb == 0 {
            report.resident_first_kb = report.resident_first_kb.max(resident);
            report.descriptors_first = report.descriptors_first.max(descriptors);
        }
        if begun.elapsed() + Duration::from_secs(60) > duration {
            report.resident_last_kb = report.resident_last_kb.max(resident);
            report.descriptors_last = report.descriptors_last.max(descriptors);
        }
        eprintln!(
            "{:>4} s, {} swaps, {} changes, {resident} KiB",
            begun.elapsed().as_secs(),
            report.list_swaps,
            report.changes
        );
    }
    let seen = finish(clients)?;
    let sent = flood.join()??;
    let (now, received) = topology.settled(&place)?;
    let log = std::fs::read_to_string(place.log())?;
    report = Report {
        minutes: begun.elapsed().as_secs_f64() / 60.0,
        flood_mpps: sent.packets_per_second() / 1e6,
        received: received - unseen,
        counted: all_packets(&now),
        dropped: ["packet-limit", "denied", "no-service", "signature"]
            .iter()
            .map(|why| packets(&now, "drop", why))
            .sum(),
        requests: seen.tcp.asked + seen.udp.asked,
        unanswered: seen.tcp.asked + seen.udp.asked - seen.tcp.answered - seen.udp.answered,
        p99_ms: seen.tcp.quantile(0.99).as_secs_f64() * 1e3,
        maps_last: map_bytes(&place)?,
        errors: log
            .lines()
            .filter(|line| line.contains("ERROR") || line.contains("panicked"))
            .map(str::to_owned)
            .collect(),
        ..report
    };
    drop(servers);
    daemon.stop()?;
    println!("{}", if options.json { serde_json::to_string(&report)? } else { format!("{report:#?}") });
    Ok(report.held())
}

impl Report {
    fn held(&self) -> bool {
        self.unanswered == 0
            && self.received == self.counted
            && self.errors.is_empty()
            && self.resident_last_kb < self.resident_first_kb + GROWTH
            && self.descriptors_last <= self.descriptors_first + CONNECTIONS
            && self.maps_last == self.maps_first
            && self.dropped > self.received / 2
    }
}

/// A file of so many addresses, each in a /24 of its own as far as they go, none of which is a client's.
fn list(directory: &Path, first: u8, prefixes: u32) -> Result<PathBuf> {
    let path = directory.join(format!("list-{first}"));
    let mut file = BufWriter::new(std::fs::File::create(&path)?);
    for number in 0..prefixes {
        let place = number.wrapping_mul(2_654_435_761) & 0x000f_ffff;
        writeln!(file, "{}", Ipv4Addr::from((u32::from(first) << 24) + (place << 4)))?;
    }
    file.flush()?;
    Ok(path)
}

fn resident_kb(process: u32) -> Result<u64> {
    let text = std::fs::read_to_string(format!("/proc/{process}/status"))?;
    let line = text.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("no VmRSS")?;
    Ok(line.trim().trim_end_matches(" kB").parse()?)
}

/// What the kernel says that the pinned maps take.
fn map_bytes(place: &Place) -> Result<u64> {
    use aya::maps::MapData;
    use floodwall_common::abi::map;
    let bytes = |name: &&str| -> Result<u64> {
        floodwall_tests::kernel::descriptor_figure(MapData::from_pin(pin(place, name))?.fd(), "memlock")
    };
    map::ALL.iter().map(bytes).sum()
}

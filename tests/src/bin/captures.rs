//! What the filter does to captured traffic. Each capture is played to the loaded program in its own time, and what its host
//! sent to the other direction's program, with nothing attached; or, with `--beside`, over a link of namespaces, beside other
//! captures and live clients. Nothing leaves the machine.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use clap::Parser;
use floodwall::api::ServiceView;
use floodwall_common::config::Mode;
use floodwall_common::reason::{Reason, Verdict};
use floodwall_tests::captures::live::{self, Replay};
use floodwall_tests::captures::{ends, files, protected, read};
use floodwall_tests::kernel::{Kernel, Time, Variant, pin_to_cpu};
use serde::Serialize;

/// Play captures to the filter, armed, and show what it drops
#[derive(Debug, Parser)]
struct Options {
    /// Capture files (pcap, pcapng), or directories of them
    #[arg(required = true)]
    paths: Vec<PathBuf>,
    /// Packets a second, in place of the capture's own times
    #[arg(long, value_parser = clap::value_parser!(u64).range(1..=10_000_000))]
    pps: Option<u64>,
    /// Leave the policies of bare-syn and unsolicited-reply at pass
    #[arg(long)]
    unarmed: bool,
    /// Lock down too: what no service expects is dropped
    #[arg(long)]
    lockdown: bool,
    /// Play over a link, beside these captures of legitimate traffic and live clients
    #[arg(long, value_name = "PATH")]
    beside: Vec<PathBuf>,
    /// With `--beside`: for how long at least each capture is played, over and over
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u64).range(1..=600))]
    seconds: u64,
    /// A port that the protected host serves, as tcp/443; may be given several times
    #[arg(long = "service", value_name = "PORT")]
    services: Vec<String>,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// What became of a capture.
#[derive(Debug, Serialize)]
struct Played {
    capture: String,
    /// Frames to the host that is taken to be the protected one.
    received: u64,
    /// Frames that it sent.
    sent: u64,
    dropped: u64,
    /// Drops by reason, the most first.
    reasons: Vec<(&'static str, u64)>,
}

fn main() -> ExitCode {
    match run(&Options::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("captures: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(options: &Options) -> Result<()> {
    if !options.beside.is_empty() {
        return over_a_link(options);
    }
    pin_to_cpu(0)?;
    let mut played = Vec::new();
    for file in files(&options.paths)? {
        eprintln!("playing {}", file.display());
        played.push(play(&file, options).with_context(|| file.display().to_string())?);
    }
    if options.json {
        println!("{}", serde_json::to_string_pretty(&played)?);
        return Ok(());
    }
    println!("{:<44} {:>9} {:>8} {:>9}  reasons", "capture", "received", "sent", "dropped");
    for one in &played {
        let reasons: Vec<_> = one.reasons.iter().map(|(reason, count)| format!("{reason} {count}")).collect();
        let share = one.dropped as f64 / one.received.max(1) as f64 * 100.0;
        println!("{:<44} {:>9} {:>8} {:>7.2} %  {}", one.capture, one.received, one.sent, share, reasons.join(", "));
    }
    Ok(())
}

fn over_a_link(options: &Options) -> Result<()> {
    let beside = files(&options.beside)?;
    let mut verbs = Vec::new();
    if !options.unarmed {
        verbs.extend(ARMED.map(|reason| format!("policy set {} drop", reason.label())));
    }
    if !options.services.is_empty() {
        let (tcp, udp) = (ports(options, "tcp/"), ports(options, "udp/"));
        for (protocol, ports) in [("tcp", tcp), ("udp", udp)].into_iter().filter(|(_, ports)| !ports.is_empty()) {
            verbs.push(format!("service add served-{protocol} --proto {protocol} --port {}", ports.join(",")));
        }
    }
    if options.lockdown {
        verbs.push("service add clients --proto tcp,udp --port 8080".to_owned());
        verbs.push("lockdown on".to_owned());
    }
    let replay = Replay { verbs, beside, pps: options.pps, duration: Duration::from_secs(options.seconds) };
    let mut played = Vec::new();
    for file in files(&options.paths)? {
        eprintln!("playing {} over a link", file.display());
        played.push(live::play(&file, &replay).with_context(|| file.display().to_string())?);
    }
    if options.json {
        println!("{}", serde_json::to_string_pretty(&played)?);
        return Ok(());
    }
    println!("{:<32} {:>9} {:>9} {:>9}  {:>7} {:>7}  clients", "capture", "sent", "pps", "stopped", "beside", "lost");
    for one in &played {
        let (sent, lost) = one.beside.iter().fold((0, 0), |(sent, lost), one| (sent + one.sent, lost + one.lost));
        println!(
            "{:<32} {:>9} {:>9.0} {:>7.2} %  {:>7} {:>7}  TCP {:.2} %, UDP {:.2} %",
            one.capture,
            one.sent,
            one.pps,
            one.stopped() * 100.0,
            sent,
            lost,
            one.tcp * 100.0,
            one.udp * 100.0
        );
    }
    Ok(())
}

/// The ports of a protocol among those that are served.
fn ports<'a>(options: &'a Options, protocol: &str) -> Vec<&'a str> {
    options.services.iter().filter_map(|port| port.strip_prefix(protocol)).collect()
}

/// The policies that are at drop where filters are armed.
const ARMED: [Reason; 2] = [Reason::BareSyn, Reason::UnsolicitedReply];

fn play(path: &Path, options: &Options) -> Result<Played> {
    let frames = read(path)?;
    let host = protected(&frames)?;
    let mut kernel = Kernel::load(Time::Test)?;
    kernel.dataplane.set_mode(Mode::Enforce)?;
    if !options.unarmed {
        for reason in ARMED {
            kernel.dataplane.set_policy(reason, Verdict::Drop)?;
        }
    }
    if !options.services.is_empty() {
        let view = ServiceView { name: "served".to_owned(), ports: options.services.clone(), ..Default::default() };
        kernel.dataplane.set_services(&[view.service().map_err(anyhow::Error::msg)?], None)?;
    }
    if options.lockdown {
        kernel.dataplane.set_policy(Reason::NoService, Verdict::Drop)?;
    }
    let begin = kernel.dataplane.clock()?.now().ns() + 1_000_000_000_000;
    let first = frames.first().map_or(Duration::ZERO, |captured| captured.at);
    let (mut received, mut sent, mut dropped) = (0, 0, 0);
    for (number, captured) in frames.iter().enumerate() {
        let Some((source, destination)) = ends(&captured.frame) else { continue };
        let after = match options.pps {
            Some(pps) => Duration::from_nanos(1_000_000_000 * number as u64 / pps),
            None => captured.at.saturating_sub(first),
        };
        // To the tick, as the shipped clock has it.
        kernel.set_time(begin + after.as_millis() as u64 / 4 * 4_000_000)?;
        if destination == host {
            received += 1;
            dropped += u64::from(kernel.judge(Variant::Linear, &captured.frame)? == Verdict::Drop);
        } else if source == host && captured.frame.len() >= 54 {
            sent += 1;
            kernel.send(&captured.frame)?;
        }
    }
    let counted = kernel.counted();
    let mut reasons: Vec<_> = Reason::ALL
        .iter()
        .map(|reason| {
            let cells = counted.cells().iter();
            let of = cells.filter(|cell| cell.reason == *reason && cell.verdict == Verdict::Drop);
            (reason.label(), of.map(|cell| cell.packets).sum::<u64>())
        })
        .filter(|(_, count)| *count > 0)
        .collect();
    reasons.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
    if counted.packets() != received {
        bail!("{received} frames played, {} counted", counted.packets());
    }
    let capture = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    Ok(Played { capture, received, sent, dropped, reasons })
}

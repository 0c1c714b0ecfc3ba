//! What the filter would have done to captured traffic: each capture is played to the loaded program in its own time, and
//! what its host sent to the other direction's program. Nothing is attached, and nothing leaves the machine.

use std::collections::HashMap;
use std::fs::File;
use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use clap::Parser;
use floodwall::api::ServiceView;
use floodwall_common::config::Mode;
use floodwall_common::reason::{Reason, Verdict};
use floodwall_tests::kernel::{Kernel, Time, Variant, pin_to_cpu};
use pcap_file::pcap::PcapReader;
use pcap_file::pcapng::{Block, PcapNgReader};
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
    /// A port that the protected host serves, as tcp/443; may be given several times
    #[arg(long = "service", value_name = "PORT")]
    services: Vec<String>,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

struct Captured {
    at: Duration,
    frame: Vec<u8>,
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

fn files(paths: &[PathBuf]) -> Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for path in paths {
        if path.is_dir() {
            for entry in path.read_dir()? {
                files.push(entry?.path());
            }
        } else {
            files.push(path.clone());
        }
    }
    let is_capture = |path: &PathBuf| path.extension().is_some_and(|end| end == "pcap" || end == "pcapng");
    files.retain(is_capture);
    files.sort();
    ensure!(!files.is_empty(), "no file there ends with .pcap or .pcapng");
    Ok(files)
}

fn read(path: &Path) -> Result<Vec<Captured>> {
    /// What a pcapng file begins with, in either byte order. Names do not tell.
    const PCAPNG: [u8; 4] = [0x0a, 0x0d, 0x0d, 0x0a];
    let mut file = BufReader::new(File::open(path)?);
    let mut frames = Vec::new();
    if file.fill_buf()?.starts_with(&PCAPNG) {
        let mut reader = PcapNgReader::new(file)?;
        while let Some(block) = reader.next_block() {
            match block {
                Ok(Block::EnhancedPacket(packet)) => {
                    frames.push(Captured { at: packet.timestamp, frame: packet.data.into_owned() });
                }
                Ok(_) => {}
                Err(error) => return cut_off(path, frames, error),
            }
        }
    } else {
        let mut reader = PcapReader::new(file)?;
        ensure!(reader.header().datalink == pcap_file::DataLink::ETHERNET, "not of Ethernet frames");
        while let Some(packet) = reader.next_packet() {
            match packet {
                Ok(packet) => frames.push(Captured { at: packet.timestamp, frame: packet.data.into_owned() }),
                Err(error) => return cut_off(path, frames, error),
            }
        }
    }
    Ok(frames)
}

/// Many published captures end in the middle of a packet: what was whole is played, and that is said.
fn cut_off(path: &Path, frames: Vec<Captured>, error: pcap_file::PcapError) -> Result<Vec<Captured>> {
    ensure!(!frames.is_empty(), error);
    eprintln!("{}: ends after {} packets: {error}", path.display(), frames.len());
    Ok(frames)
}

/// Source and destination of an untagged IP frame.
fn ends(frame: &[u8]) -> Option<(&[u8], &[u8])> {
    match frame.get(12..14)? {
        [8, 0] => Some((frame.get(26..30)?, frame.get(30..34)?)),
        [0x86, 0xdd] => Some((frame.get(22..38)?, frame.get(38..54)?)),
        _ => None,
    }
}

/// The host that most frames go to.
fn protected(frames: &[Captured]) -> Result<Vec<u8>> {
    let mut counts: HashMap<&[u8], u64> = HashMap::new();
    for (_, destination) in frames.iter().filter_map(|captured| ends(&captured.frame)) {
        *counts.entry(destination).or_default() += 1;
    }
    let most = counts.into_iter().max_by_key(|(_, count)| *count);
    Ok(most.context("no IP packet in it")?.0.to_vec())
}

fn play(path: &Path, options: &Options) -> Result<Played> {
    let frames = read(path)?;
    let host = protected(&frames)?;
    let mut kernel = Kernel::load(Time::Test)?;
    kernel.dataplane.set_mode(Mode::Enforce)?;
    if !options.unarmed {
        for reason in [Reason::BareSyn, Reason::UnsolicitedReply] {
            kernel.dataplane.set_policy(reason, Verdict::Drop)?;
        }
    }
    if !options.services.is_empty() {
        let view = ServiceView { name: "served".to_owned(), ports: options.services.clone(), cap: None };
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

//! What is seen while a scenario is played: frames at both ends of the link, what the daemon says, what it costs, and what the
//! machine was busy with.

use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use floodwall::incident::Store;
use serde::Serialize;
use serde_json::Value;

use super::peers::Nft;
use super::rig::{Counted, Rig};
use crate::http::send_unix;

const COUNTED_EVERY: Duration = Duration::from_millis(50);
const ASKED_EVERY: Duration = Duration::from_millis(100);

/// What the daemon has said at a moment.
#[derive(Clone, Debug, Serialize)]
pub struct Said {
    /// Seconds from the begin of the run.
    pub at: f64,
    /// Its verdict.
    pub verdict: String,
    /// The kinds of flood.
    pub vectors: Vec<String>,
    /// How sure.
    pub confidence: f64,
}

/// Frames so far, each with its seconds from the begin of the run.
pub type Series = Vec<(f64, Counted)>;

/// Looks at both until told to stop.
#[derive(Debug, Default)]
pub struct Watch {
    stop: AtomicBool,
    series: Mutex<Series>,
    said: Mutex<Vec<Said>>,
}

impl Watch {
    /// Counts frames.
    pub fn count(&self, rig: &Rig, nft: Option<&Nft>, begun: Instant) {
        while !self.stop.load(Ordering::Relaxed) {
            if let (Ok(counted), Ok(mut series)) = (rig.counted(nft), self.series.lock()) {
                series.push((Instant::now().saturating_duration_since(begun).as_secs_f64(), counted));
            }
            // condition: the next moment.
            std::thread::sleep(COUNTED_EVERY);
        }
    }

    /// Asks the daemon. While it does not answer, nothing is written.
    pub fn ask(&self, socket: &Path, begun: Instant) {
        while !self.stop.load(Ordering::Relaxed) {
            if let (Ok(status), Ok(mut said)) = (status(socket), self.said.lock()) {
                said.extend(of(&status, begun));
            }
            // condition: the next moment.
            std::thread::sleep(ASKED_EVERY);
        }
    }

    /// Ends both.
    pub fn stop(&self) {
        self.stop.store(true, Ordering::Relaxed);
    }

    /// What was seen.
    pub fn take(self) -> (Series, Vec<Said>) {
        (self.series.into_inner().unwrap_or_default(), self.said.into_inner().unwrap_or_default())
    }
}

fn of(status: &Value, begun: Instant) -> Option<Said> {
    let situation = &status["situation"];
    let vectors = situation["vectors"].as_array().into_iter().flatten();
    Some(Said {
        at: Instant::now().saturating_duration_since(begun).as_secs_f64(),
        verdict: situation["verdict"].as_str()?.to_owned(),
        vectors: vectors.filter_map(|vector| Some(vector.as_str()?.to_owned())).collect(),
        confidence: situation["confidence"].as_f64().unwrap_or(0.0),
    })
}

/// The daemon's status.
///
/// # Errors
/// Where it does not answer.
pub fn status(socket: &Path) -> Result<Value> {
    let request = "GET /api/v1/status HTTP/1.1\r\nhost: floodwall\r\nconnection: close\r\n\r\n";
    let answer = send_unix(socket, request.as_bytes())?;
    let (_, body) = answer.split_once("\r\n\r\n").context("an answer without a body")?;
    Ok(serde_json::from_str(body)?)
}

/// What the daemon has written down.
///
/// # Errors
/// Where the records cannot be read.
pub fn incidents(history: &Path) -> Result<Vec<Value>> {
    let incidents = Store::beside(history).all()?;
    Ok(incidents.iter().map(serde_json::to_value).collect::<Result<_, _>>()?)
}

/// What a daemon costs, so far.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub struct Cost {
    /// Seconds of a processor.
    pub cpu_s: f64,
    /// Bytes in memory, without maps.
    pub resident: u64,
    /// Bytes of maps.
    pub maps: u64,
}

impl Cost {
    /// Of this process.
    pub fn of(pid: u32) -> Option<Self> {
        const TICKS: f64 = 100.0;
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
        let number = |index: usize| fields.get(index)?.parse::<u64>().ok();
        let cpu_s = (number(11)? + number(12)?) as f64 / TICKS;
        let resident = (number(21)? * 4_096).saturating_sub(mapped_of(pid));
        Some(Self { cpu_s, resident, maps: maps_of(pid) })
    }
}

/// What is resident of the maps that a process has in its memory: these are counted as maps.
fn mapped_of(pid: u32) -> u64 {
    let smaps = std::fs::read_to_string(format!("/proc/{pid}/smaps")).unwrap_or_default();
    let (mut is_map, mut bytes) = (false, 0);
    for line in smaps.lines() {
        match line.strip_prefix("Rss:") {
            Some(resident) if is_map => {
                let kib = resident.split_whitespace().next().and_then(|kib| kib.parse::<u64>().ok());
                bytes += kib.unwrap_or(0) * 1_024;
            }
            Some(_) => {}
            // The first line of a region ends with what it is of.
            None if line.split_whitespace().next().is_some_and(|range| range.contains('-')) => {
                is_map = line.ends_with("bpf-map");
            }
            None => {}
        }
    }
    bytes
}

/// Memory of the maps that a process has open, each once.
fn maps_of(pid: u32) -> u64 {
    let mut maps = std::collections::BTreeMap::new();
    for entry in std::fs::read_dir(format!("/proc/{pid}/fdinfo")).into_iter().flatten().flatten() {
        let text = std::fs::read_to_string(entry.path()).unwrap_or_default();
        let field = |name: &str| {
            let line = text.lines().find_map(|line| line.strip_prefix(name));
            line.and_then(|value| value.trim().parse::<u64>().ok())
        };
        if let (Some(id), Some(bytes)) = (field("map_id:"), field("memlock:")) {
            maps.insert(id, bytes);
        }
    }
    maps.values().sum()
}

/// How busy all processors were, in hundredths of a second.
#[derive(Clone, Copy, Debug, Default)]
pub struct Machine {
    all: u64,
    idle: u64,
    stolen: u64,
}

impl Machine {
    /// Until now.
    pub fn now() -> Self {
        let stat = std::fs::read_to_string("/proc/stat").unwrap_or_default();
        let line = stat.lines().next().unwrap_or_default();
        let fields: Vec<u64> = line.split_whitespace().skip(1).filter_map(|field| field.parse().ok()).collect();
        let field = |index: usize| fields.get(index).copied().unwrap_or(0);
        Self { all: fields.iter().take(8).sum(), idle: field(3) + field(4), stolen: field(7) }
    }

    /// Shares since then: idle, and given to other machines.
    pub fn since(&self, then: &Self) -> (f64, f64) {
        let all = (self.all - then.all).max(1) as f64;
        ((self.idle - then.idle) as f64 / all, (self.stolen - then.stolen) as f64 / all)
    }
}

//! A capture of an attack played over a link to a protected server, beside captures of legitimate traffic and live clients.
//!
//! Whose a frame is, its sender's hardware address says, which the filter does not read: what has come through is counted by it
//! behind the filter.

use std::os::fd::{AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, anyhow, ensure};
use floodwall_common::reason::Reason;
use nix::sys::socket::{MsgFlags, send};
use serde::Serialize;

use super::{Captured, ends, protected, read};
use crate::daemon::{Daemon, Place, packets, run_verb};
use crate::kernel::pin_to_cpu;
use crate::link::{Senders, packet_socket};
use crate::topology::{PROTECTED, Topology, WORLD};
use crate::traffic::{Clients, Servers, finish};

/// How captures are played.
#[derive(Clone, Debug)]
pub struct Replay {
    /// Verbs of the command line that arm the filter.
    pub verbs: Vec<String>,
    /// Captures of legitimate traffic.
    pub beside: Vec<PathBuf>,
    /// Frames of the attack a second, in place of its own times.
    pub pps: Option<u64>,
    /// For how long; a capture that ends before is begun again.
    pub duration: Duration,
}

/// What became of a capture.
#[derive(Clone, Debug, Serialize)]
pub struct Played {
    /// Its name.
    pub capture: String,
    /// Frames of it that were sent to the host that is taken to be the protected one.
    pub sent: u64,
    /// How many of them came through.
    pub arrived: u64,
    /// Frames of it a second, sent and answers alike.
    pub pps: f64,
    /// What became of the captures beside it.
    pub beside: Vec<Beside>,
    /// Frames that were dropped, by reason.
    pub reasons: Vec<(&'static str, u64)>,
    /// Requests of live clients that were answered, over TCP.
    pub tcp: f64,
    /// And over UDP.
    pub udp: f64,
}

/// What became of a capture of legitimate traffic.
#[derive(Clone, Debug, Serialize)]
pub struct Beside {
    /// Its name.
    pub capture: String,
    /// Frames of it that were sent to its host.
    pub sent: u64,
    /// How many of them did not come through.
    pub lost: u64,
}

impl Played {
    /// Share of the capture that did not come through.
    pub fn stopped(&self) -> f64 {
        1.0 - self.arrived as f64 / self.sent.max(1) as f64
    }
}

/// Last byte of the hardware address of the attack's frames; the captures beside it have those that follow.
const ATTACK: u8 = 0xa0;
/// Longer pauses of a capture are cut to this: some last for minutes.
const LONGEST_PAUSE: Duration = Duration::from_millis(10);
/// What the link is made to take: captures have frames longer than usual, with tags and what network cards have joined. Longer
/// ones are left out.
const MTU: usize = 2_000;
const LONGEST_FRAME: usize = MTU + 14;

/// Plays one.
///
/// # Errors
/// Where a capture cannot be read, or the link not be made.
pub fn play(path: &Path, replay: &Replay) -> Result<Played> {
    let (topology, place) = (Topology::new(2)?, Place::new()?);
    topology.world.ip(&format!("link set {WORLD} mtu {MTU}"))?;
    topology.server.ip(&format!("link set {PROTECTED} mtu {MTU}"))?;
    let daemon = Daemon::start(&topology.server, &place, &["--interface", PROTECTED, "--mode", "enforce"])?;
    for words in &replay.verbs {
        run_verb(&topology.server, &place, words)?;
    }
    let arrivals = Senders::arriving(&topology.server, PROTECTED)?;
    let servers = Servers::start(&topology.server, &topology.servers())?;
    let stop = Arc::new(AtomicBool::new(false));
    let player = |path: &Path, sender, pps| Player::new(path, &topology, sender, pps);
    let attack = player(path, ATTACK, replay.pps)?;
    let besides: Result<Vec<_>> =
        (ATTACK + 1..).zip(&replay.beside).map(|(sender, path)| player(path, sender, None)).collect();
    let clients = Clients {
        servers: topology.servers(),
        sources: topology.clients.clone(),
        requests_per_second: 50,
        duration: replay.duration,
        cpu: 1,
    }
    .start(&topology.world)?;
    let begun = Instant::now();
    let besides: Vec<_> = besides?.into_iter().map(|player| player.start(&stop, 1)).collect();
    let attack = attack.start(&stop, 0);
    let seen = finish(clients)?;
    stop.store(true, Ordering::Relaxed);
    let attack = ended(attack)?;
    let seconds = begun.elapsed().as_secs_f64();
    let besides: Result<Vec<Sent>> = besides.into_iter().map(ended).collect();
    let (now, _) = topology.settled(&place)?;
    let all = besides?.into_iter().zip(&replay.beside).zip(ATTACK + 1..);
    let beside: Result<_> = all
        .map(|((sent, path), sender)| {
            let (capture, sent) = (name(path), sent.to_the_host);
            Ok(Beside { capture, sent, lost: sent.saturating_sub(arrivals.of(sender)?) })
        })
        .collect();
    let dropped = Reason::ALL.iter().map(|reason| (reason.label(), packets(&now, "drop", reason.label())));
    drop(servers);
    daemon.stop()?;
    Ok(Played {
        capture: name(path),
        sent: attack.to_the_host,
        arrived: arrivals.of(ATTACK)?,
        pps: attack.frames as f64 / seconds,
        beside: beside?,
        reasons: dropped.filter(|(_, count)| *count > 0).collect(),
        tcp: seen.tcp.share(),
        udp: seen.udp.share(),
    })
}

fn name(path: &Path) -> String {
    path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default()
}

fn ended(player: JoinHandle<Result<Sent>>) -> Result<Sent> {
    player.join().map_err(|_| anyhow!("a player has failed"))?
}

/// What a player has sent.
#[derive(Clone, Copy, Debug, Default)]
struct Sent {
    /// To the protected host.
    to_the_host: u64,
    /// By it, too.
    frames: u64,
}

/// A capture, and the two ends of the link that it is played at.
struct Player {
    /// Each with its time since the first, and whether the host has received it.
    frames: Vec<(Duration, bool, Vec<u8>)>,
    world: OwnedFd,
    server: OwnedFd,
}

impl Player {
    fn new(path: &Path, topology: &Topology, sender: u8, pps: Option<u64>) -> Result<Self> {
        let captured = read(path)?;
        let host = protected(&captured)?;
        let to_server = [&topology.target()?.mac[..], &[2, 0, 0, 0, 0, sender]].concat();
        let (mut frames, mut at, mut last) = (Vec::new(), Duration::ZERO, None);
        for Captured { at: seen, mut frame, .. } in captured {
            let Some(received) = ends(&frame).and_then(|(from, to)| match () {
                () if to == host => Some(true),
                () if from == host => Some(false),
                () => None,
            }) else {
                continue;
            };
            if frame.len() > LONGEST_FRAME {
                continue;
            }
            let pause = last.replace(seen).map_or(Duration::ZERO, |last| seen.saturating_sub(last));
            at = match pps {
                Some(pps) => Duration::from_nanos(1_000_000_000 * frames.len() as u64 / pps),
                None => at + pause.min(LONGEST_PAUSE),
            };
            if received {
                frame[..12].copy_from_slice(&to_server);
            }
            frames.push((at, received, frame));
        }
        ensure!(!frames.is_empty(), "nothing of {} fits on the link", path.display());
        let world = packet_socket(&topology.world, WORLD)?;
        Ok(Self { frames, world, server: packet_socket(&topology.server, PROTECTED)? })
    }

    fn start(self, stop: &Arc<AtomicBool>, cpu: usize) -> JoinHandle<Result<Sent>> {
        let stop = Arc::clone(stop);
        std::thread::spawn(move || {
            pin_to_cpu(cpu)?;
            self.play(&stop)
        })
    }

    fn play(&self, stop: &AtomicBool) -> Result<Sent> {
        let mut sent = Sent::default();
        loop {
            let begun = Instant::now();
            for (at, received, frame) in &self.frames {
                let mut ahead = at.saturating_sub(begun.elapsed());
                while !ahead.is_zero() {
                    // Short waits are the processor's: a sleep takes longer.
                    if ahead > Duration::from_micros(200) {
                        // condition: the frame's time.
                        std::thread::sleep(ahead - Duration::from_micros(100));
                    }
                    ahead = at.saturating_sub(begun.elapsed());
                }
                if stop.load(Ordering::Relaxed) {
                    return Ok(sent);
                }
                let end = if *received { &self.world } else { &self.server };
                send(end.as_raw_fd(), frame, MsgFlags::empty()).context("send a frame of a capture")?;
                sent.frames += 1;
                sent.to_the_host += u64::from(*received);
            }
        }
    }
}

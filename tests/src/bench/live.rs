//! The bench on a live link: what filters take in on one core, and what clients notice of a flood behind them.

use std::any::Any;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use nix::sched::{CpuSet, sched_setaffinity};
use nix::unistd::Pid;
use serde::Serialize;

use super::{SIXTEEN_MILLION, median, peers};
use crate::daemon::{Daemon, Place, run_verb};
use crate::flood::Flood;
use crate::pins::{attach_foreign, attach_world_end};
use crate::topology::{PROTECTED, Topology};
use crate::traffic::{Clients, Servers, finish};

/// What stands before the server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Wall {
    Nothing,
    BareDrop,
    Floodwall,
    LruWindow,
    XdpFilter,
    Nftables,
    Iptables,
}

impl Wall {
    const EACH: [Self; 7] = [
        Self::BareDrop,
        Self::Floodwall,
        Self::LruWindow,
        Self::XdpFilter,
        Self::Nftables,
        Self::Iptables,
        Self::Nothing,
    ];

    const fn name(self) -> &'static str {
        match self {
            Self::Nothing => "nothing",
            Self::BareDrop => "bare-drop",
            Self::Floodwall => "floodwall",
            Self::LruWindow => "lru-window",
            Self::XdpFilter => "xdp-filter",
            Self::Nftables => "nftables",
            Self::Iptables => "iptables",
        }
    }
}

/// Frames a second that a core takes in, which also sends them.
#[derive(Clone, Debug, Serialize)]
pub struct Taken {
    /// What stands before the server.
    pub wall: &'static str,
    /// Sources of the flood.
    pub sources: u32,
    /// Millions of frames a second: the median of the rounds.
    pub mpps: f64,
    /// To the bare drop of the same flood.
    pub ratio: f64,
}

/// What clients notice of a flood.
#[derive(Clone, Debug, Serialize)]
pub struct Noticed {
    /// What stands before the server.
    pub wall: &'static str,
    /// The flood, in hundredths of what a core takes in that has Floodwall.
    pub load_percent: u32,
    /// Frames a second that were sent.
    pub sent_mpps: f64,
    /// Frames a second that came in.
    pub received_mpps: f64,
    /// Requests over TCP that were answered, of those that a quiet client would have made.
    pub goodput: f64,
    /// Half of the answers came within this.
    pub p50_ms: f64,
    /// 99 of 100 answers came within this.
    pub p99_ms: f64,
}

/// Both.
#[derive(Clone, Debug, Serialize)]
pub struct Live {
    /// What a core takes in.
    pub taken: Vec<Taken>,
    /// Frames a second that the receiving core takes in with Floodwall, in millions: the hundred percent of `noticed`.
    pub capacity_mpps: f64,
    /// What clients notice.
    pub noticed: Vec<Noticed>,
}

const SOURCES: [u32; 3] = [1, 1 << 16, SIXTEEN_MILLION];
const LOADS: [u32; 5] = [0, 25, 50, 75, 100];
const ROUNDS: usize = 3;
/// Addresses of clients.
const CLIENTS: u8 = 4;
/// Requests a second of each.
const REQUESTS: u32 = 100;
/// Where floods and clients are; the servers are on the other.
const WORLD_CPU: usize = 0;
const SERVER_CPU: usize = 1;

/// A link with a wall before its server. The fields are dropped in this order.
struct Stand {
    wall: Wall,
    _attached: Box<dyn Any>,
    topology: Topology,
    _place: Place,
}

impl Stand {
    /// Makes it; nothing where the wall is not installed.
    fn new(wall: Wall) -> Result<Option<Self>> {
        let (topology, place) = (Topology::new(CLIENTS)?, Place::new()?);
        let server = &topology.server;
        // What a test run sends, a veth takes only where there is a program: this one lets all of it pass.
        let passes = || attach_world_end(server, PROTECTED).map(|program| Box::new(program) as Box<dyn Any>);
        let attached = match wall {
            Wall::Nothing => passes()?,
            Wall::Nftables if peers::set_nftables(server)? => passes()?,
            Wall::Iptables if peers::set_iptables(server)? => passes()?,
            Wall::XdpFilter if peers::attach_xdp_filter(server)? => Box::new(()),
            Wall::Nftables | Wall::Iptables | Wall::XdpFilter => return Ok(None),
            Wall::BareDrop => Box::new(attach_foreign(server, PROTECTED, "bare_drop")?),
            Wall::LruWindow => Box::new(attach_foreign(server, PROTECTED, "lru_window")?),
            Wall::Floodwall => {
                let daemon = Daemon::start(server, &place, &["--interface", PROTECTED, "--mode", "enforce"])?;
                for words in ["service add web --port 8080 --proto tcp,udp", "lockdown on"] {
                    run_verb(server, &place, words)?;
                }
                Box::new(daemon)
            }
        };
        Ok(Some(Self { wall, _attached: attached, topology, _place: place }))
    }

    fn flood(&self, sources: u32, packets_per_second: u64, duration: Duration) -> Result<(f64, f64)> {
        let flood = Flood { only_v4: true, gives_way: true, ..Flood::udp(sources, packets_per_second, duration) };
        let (begun, before) = (Instant::now(), self.topology.received()?);
        let sent = flood.start(&self.topology.world, self.topology.target()?, WORLD_CPU)?.join()??;
        let received = (self.topology.received()? - before) as f64;
        Ok((sent.packets_per_second() / 1e6, received / begun.elapsed().as_secs_f64() / 1e6))
    }

    /// Lets the interface be served by kernel threads on the server's CPU, before all processes there, as a network card's
    /// interrupts are.
    fn receive_on_the_servers_cpu(&self) -> Result<()> {
        let before = receiving_threads()?;
        self.topology.server.write_sys(&format!("{PROTECTED}/threaded"), "1")?;
        let mut cpu = CpuSet::new();
        cpu.set(SERVER_CPU)?;
        for thread in receiving_threads()?.into_iter().filter(|thread| !before.contains(thread)) {
            sched_setaffinity(Pid::from_raw(thread), &cpu).context("keep a receiving thread on a CPU")?;
            let priority = libc::sched_param { sched_priority: 1 };
            // SAFETY: a live parameter.
            let set = unsafe { libc::sched_setscheduler(thread, libc::SCHED_FIFO, &raw const priority) };
            ensure!(set == 0, "a receiving thread's priority: {}", std::io::Error::last_os_error());
        }
        Ok(())
    }

    fn noticed(&self, load_percent: u32, capacity_mpps: f64) -> Result<Noticed> {
        const DURATION: Duration = Duration::from_secs(4);
        let clients = Clients {
            servers: self.topology.servers(),
            sources: self.topology.clients.iter().copied().filter(std::net::IpAddr::is_ipv4).collect(),
            requests_per_second: REQUESTS,
            duration: DURATION,
            cpu: WORLD_CPU,
        };
        let running = clients.start(&self.topology.world)?;
        let pps = (capacity_mpps * 1e6) as u64 * u64::from(load_percent) / 100;
        let (sent_mpps, received_mpps) = if pps > 0 { self.flood(SIXTEEN_MILLION, pps, DURATION)? } else { (0.0, 0.0) };
        let tcp = finish(running)?.tcp;
        let due = f64::from(REQUESTS) * DURATION.as_secs_f64() * clients.sources.len() as f64;
        let milliseconds = |share| tcp.quantile(share).as_secs_f64() * 1e3;
        Ok(Noticed {
            wall: self.wall.name(),
            load_percent,
            sent_mpps,
            received_mpps,
            goodput: tcp.answered as f64 / due,
            p50_ms: milliseconds(0.5),
            p99_ms: milliseconds(0.99),
        })
    }
}

/// The kernel's threads that serve interfaces of this name.
fn receiving_threads() -> Result<Vec<i32>> {
    let mut threads = Vec::new();
    for entry in std::fs::read_dir("/proc")? {
        let name = entry?.file_name();
        let Some(process) = name.to_str().and_then(|name| name.parse().ok()) else { continue };
        let comm = std::fs::read_to_string(format!("/proc/{process}/comm")).unwrap_or_default();
        if comm.starts_with(&format!("napi/{PROTECTED}-")) {
            threads.push(process);
        }
    }
    Ok(threads)
}

/// Measures all of it; `progress` hears of each step.
///
/// # Errors
/// Where a link or a wall cannot be made.
pub fn measure(progress: impl Fn(&str)) -> Result<Live> {
    let mut stands = Vec::new();
    for wall in Wall::EACH {
        match Stand::new(wall).with_context(|| wall.name())? {
            Some(stand) => stands.push(stand),
            None => progress(&format!("{} is not installed, and left out", wall.name())),
        }
    }
    let taken = taken(&stands, &progress)?;
    stands.retain(|stand| stand.wall != Wall::BareDrop);
    for stand in &stands {
        stand.receive_on_the_servers_cpu()?;
    }
    let floodwall = stands.iter().find(|stand| stand.wall == Wall::Floodwall).context("Floodwall is one of them")?;
    progress("what the receiving core takes");
    let capacity_mpps = floodwall.flood(SIXTEEN_MILLION, 0, Duration::from_secs(3))?.1;
    let mut noticed = Vec::new();
    for stand in &stands {
        let _servers = Servers::start(&stand.topology.server, &stand.topology.servers())?;
        for load in LOADS {
            progress(&format!("clients behind {}, a flood of {load} %", stand.wall.name()));
            noticed.push(stand.noticed(load, capacity_mpps)?);
        }
    }
    Ok(Live { taken, capacity_mpps, noticed })
}

/// In turns, so that what else the machine does hits each of them.
fn taken(stands: &[Stand], progress: &impl Fn(&str)) -> Result<Vec<Taken>> {
    let mut rounds = vec![Vec::new(); stands.len() * SOURCES.len()];
    for round in 1..=ROUNDS {
        progress(&format!("one core for all, round {round} of {ROUNDS}"));
        for (stand, rounds) in stands.iter().zip(rounds.chunks_mut(SOURCES.len())) {
            for (sources, rounds) in SOURCES.iter().zip(rounds) {
                rounds.push(stand.flood(*sources, 0, Duration::from_millis(500))?.1);
            }
        }
    }
    let medians: Vec<f64> = rounds.iter_mut().map(|rounds| median(rounds)).collect();
    let each = stands
        .iter()
        .flat_map(|stand| SOURCES.iter().enumerate().map(move |(place, sources)| (stand, place, *sources)));
    let bare = medians.get(..SOURCES.len()).context("the bare drop is the first")?;
    let of = |((stand, place, sources), mpps): ((&Stand, usize, u32), &f64)| Taken {
        wall: stand.wall.name(),
        sources,
        mpps: *mpps,
        ratio: mpps / bare[place],
    };
    Ok(each.zip(&medians).map(of).collect())
}

//! `back_off`: what comes on of clients, and of floods, while nothing from one slice of source ports is let through for two seconds.
//! Clients have stacks of the kernel; what comes is counted by signatures of the real filter. It is what a probe may conclude from
//! ([docs/adr/0030](../../../docs/adr/0030-back-off-probe.md)).

use std::net::{IpAddr, SocketAddr};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use clap::Parser;
use floodwall_tests::captures::made::Random;
use floodwall_tests::daemon::{Daemon, Place, run_verb};
use floodwall_tests::topology::{PROTECTED, Topology};
use serde_json::Value;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpSocket, TcpStream, UdpSocket};
use tokio::time::{sleep, sleep_until, timeout};

/// What comes on of clients and floods while a slice of source ports is not let through
#[derive(Debug, Parser)]
struct Options {
    /// Runs of each
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=20))]
    runs: u32,
    /// Only those whose name has this in it
    #[arg(long)]
    only: Option<String>,
}

/// The ports that clients have, and the quarter of them that is not let through. The share of clients in it does not change what
/// becomes of these, and more of them are counted.
const PORTS: &str = "49152 53247";
const SLICE: &str = "50176-51199";
/// Clients are at work for so long before anything is counted, and are counted for so long before it begins.
const WARM_UP: Duration = Duration::from_millis(1_500);
const BEFORE: Duration = Duration::from_secs(1);
/// What comes between these two, after it began, is what came on.
const FROM: Duration = Duration::from_millis(700);
const UNTIL: Duration = Duration::from_millis(1_900);
/// People wait that long.
const PATIENCE: Duration = Duration::from_secs(10);
/// A program that was set up wrongly waits that long, and asks again at once.
const IMPATIENCE: Duration = Duration::from_millis(300);
const QUESTION: usize = 100;
const ANSWER: usize = 8_000;

#[derive(Clone, Copy, Debug)]
enum Case {
    Kept,
    Visits,
    Crowd,
    Uploads,
    Storm,
    Sessions,
    Questions,
    Paced,
    Syns,
}

impl Case {
    const ALL: [Self; 9] = [
        Self::Kept,
        Self::Visits,
        Self::Crowd,
        Self::Uploads,
        Self::Storm,
        Self::Sessions,
        Self::Questions,
        Self::Paced,
        Self::Syns,
    ];

    const fn name(self) -> &'static str {
        match self {
            Self::Kept => "60 browsers, one connection each",
            Self::Visits => "60 browsers, a connection for each page",
            Self::Crowd => "200 visitors/s, who come by themselves",
            Self::Uploads => "16 uploads",
            Self::Storm => "retry storm: 60 clients, 0.3 s, again at once",
            Self::Sessions => "60 sessions over UDP, that wait for answers",
            Self::Questions => "300 questions/s over UDP, a port for each",
            Self::Paced => "UDP at a pace: a flood, or calls",
            Self::Syns => "SYNs at a pace, of machines with stacks",
        }
    }

    /// How long the service takes, in this case.
    const fn service_takes(self) -> Duration {
        Duration::from_millis(if matches!(self, Self::Storm) { 1_200 } else { 5 })
    }

    const fn is_of_udp(self) -> bool {
        matches!(self, Self::Sessions | Self::Questions | Self::Paced)
    }
}

fn main() -> ExitCode {
    match run(&Options::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("back_off: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(options: &Options) -> Result<()> {
    floodwall_tests::scenarios::run::allow_many_connections()?;
    println!("| clients | packets/s of the slice before | SYNs | all other TCP, or UDP |");
    println!("|---|---|---|---|");
    let wanted = |case: &Case| options.only.as_ref().is_none_or(|only| case.name().contains(only.as_str()));
    for case in Case::ALL.into_iter().filter(wanted) {
        let runs = (1..=options.runs).map(|seed| measure(case, u64::from(seed))).collect::<Result<Vec<_>>>()?;
        let before = runs.iter().map(|run| run.before[0] + run.before[1]).sum::<f64>() / runs.len() as f64;
        let of = |which: usize| {
            // Of next to nothing there is no ratio.
            let mut ratios: Vec<_> =
                runs.iter().filter(|run| run.before[which] >= 10.0).map(|run| run.ratio(which)).collect();
            ratios.sort_by(f64::total_cmp);
            match ratios.as_slice() {
                [] => "–".to_owned(),
                ratios => {
                    format!("{:.2} ({:.2} to {:.2})", ratios[ratios.len() / 2], ratios[0], ratios[ratios.len() - 1])
                }
            }
        };
        println!("| {} | {before:.0} | {} | {} |", case.name(), of(0), of(1));
    }
    Ok(())
}

/// Packets a second of the slice, SYNs and others: before, and while they are not let through.
#[derive(Debug)]
struct Measured {
    before: [f64; 2],
    on: [f64; 2],
}

impl Measured {
    fn ratio(&self, which: usize) -> f64 {
        self.on[which] / self.before[which]
    }
}

fn measure(case: Case, seed: u64) -> Result<Measured> {
    let (topology, place) = (Topology::new(20)?, Place::new()?);
    topology
        .world
        .run(|| std::fs::write("/proc/sys/net/ipv4/ip_local_port_range", PORTS))?
        .context("ports of clients")?;
    let _daemon =
        Daemon::start(&topology.server, &place, &["--interface", PROTECTED, "--mode", "enforce", "--respond", "off"])?;
    let verb = |words: &str| run_verb(&topology.server, &place, words);
    let shapes = match case.is_of_udp() {
        true => vec![format!("--proto udp --src-port {SLICE}")],
        false => vec![
            format!("--proto tcp --src-port {SLICE} --flags syn,!ack"),
            format!("--proto tcp --src-port {SLICE} --flags !syn"),
        ],
    };
    for (number, shape) in shapes.iter().enumerate() {
        verb(&format!("signature add seen-{number} {shape} --action count"))?;
    }
    let end = Instant::now() + WARM_UP + BEFORE + UNTIL + Duration::from_secs(2);
    let server = topology.servers()[0];
    let serving = topology.server.spawn(move || serve(server, case.service_takes(), end))?;
    let sources: Vec<_> = topology.clients.iter().filter(|source| source.is_ipv4()).copied().collect();
    let asking = topology.world.spawn(move || ask(case, &sources, server, end, seed))?;
    // condition: these four moments are what is measured.
    std::thread::sleep(WARM_UP);
    let hits = || hits(&verb("signature list --json")?, case);
    let first = hits()?;
    // condition: the second of them.
    std::thread::sleep(BEFORE);
    let second = hits()?;
    for (number, shape) in shapes.iter().enumerate() {
        verb(&format!("signature add slice-{number} {shape} --action drop --ttl 2s"))?;
    }
    let armed = Instant::now();
    // condition: the third.
    std::thread::sleep(FROM.saturating_sub(armed.elapsed()));
    let third = hits()?;
    // condition: the last.
    std::thread::sleep(UNTIL.saturating_sub(armed.elapsed()));
    let fourth = hits()?;
    asking.join()??;
    serving.join()??;
    Ok(Measured { before: rate(&first, &second), on: rate(&third, &fourth) })
}

type Hits = (Instant, [f64; 2]);

fn hits(listed: &str, case: Case) -> Result<Hits> {
    let listed: Value = serde_json::from_str(listed)?;
    let of = |name: &str| {
        let signatures = listed["signatures"].as_array().into_iter().flatten();
        let found = signatures.into_iter().find(|signature| signature["name"] == name);
        found.and_then(|signature| signature["packets"].as_f64()).with_context(|| format!("hits of {name} in {listed}"))
    };
    Ok((Instant::now(), if case.is_of_udp() { [0.0, of("seen-0")?] } else { [of("seen-0")?, of("seen-1")?] }))
}

fn rate(from: &Hits, until: &Hits) -> [f64; 2] {
    let seconds = until.0.duration_since(from.0).as_secs_f64();
    [0, 1].map(|which| (until.1[which] - from.1[which]) / seconds)
}

fn runtime() -> Result<tokio::runtime::Runtime> {
    Ok(tokio::runtime::Builder::new_current_thread().enable_all().build()?)
}

fn serve(address: SocketAddr, takes: Duration, end: Instant) -> Result<()> {
    runtime()?.block_on(async move {
        let socket = TcpSocket::new_v4()?;
        socket.set_reuseaddr(true)?;
        socket.bind(address)?;
        let listener: TcpListener = socket.listen(4_096)?;
        let datagrams = UdpSocket::bind(address).await?;
        tokio::spawn(async move {
            let mut bytes = [0; 2_048];
            while let Ok((length, from)) = datagrams.recv_from(&mut bytes).await {
                let _ = datagrams.send_to(&bytes[..length], from).await;
            }
        });
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(answer(stream, takes));
            }
        });
        // condition: the end of the run.
        sleep_until(end.into()).await;
        Ok(())
    })
}

async fn answer(mut stream: TcpStream, takes: Duration) -> Result<()> {
    let mut question = [0; QUESTION];
    loop {
        stream.read_exact(&mut question).await?;
        if question[0] == b'u' {
            let mut bytes = vec![0; 1 << 16];
            while stream.read(&mut bytes).await? > 0 {}
            return Ok(());
        }
        // condition: what the service takes is part of the case.
        sleep(takes).await;
        stream.write_all(&[b'a'; ANSWER]).await?;
    }
}

/// Sends what the case has until the end.
fn ask(case: Case, sources: &[IpAddr], server: SocketAddr, end: Instant, seed: u64) -> Result<()> {
    ensure!(!sources.is_empty(), "no client");
    let mut random = Random(seed);
    let source = |number: usize| SocketAddr::new(sources[number % sources.len()], 0);
    runtime()?.block_on(async {
        let machines = match case {
            Case::Crowd | Case::Questions | Case::Syns => 0,
            Case::Uploads => 16,
            Case::Paced => 200,
            _ => 60,
        };
        for number in 0..machines {
            let from = source(number);
            tokio::spawn(async move { while work(case, from, server).await.is_err() {} });
            // condition: not all at the same moment.
            sleep(Duration::from_millis(3)).await;
        }
        let per_second = match case {
            Case::Crowd => 200.0,
            Case::Questions => 300.0,
            Case::Syns => 500.0,
            _ => 0.0,
        };
        let (mut due, mut number) = (Instant::now(), 0);
        while per_second > 0.0 && due < end {
            due += Duration::from_secs_f64(random.wait(per_second));
            // condition: the next one comes.
            sleep_until(due.into()).await;
            number += 1;
            tokio::spawn(come(case, source(number), server));
        }
        // condition: the end of the run.
        sleep_until(end.into()).await;
        Ok(())
    })
}

/// One who comes once.
async fn come(case: Case, from: SocketAddr, server: SocketAddr) -> Result<()> {
    match case {
        Case::Crowd => {
            let mut stream = timeout(PATIENCE, connect(from, server)).await??;
            for _ in 0..2 {
                timeout(PATIENCE, page(&mut stream)).await??;
            }
        }
        Case::Questions => {
            let socket = UdpSocket::bind(from).await?;
            for patience in [1, 2] {
                socket.send_to(&[b'q'; QUESTION], server).await?;
                if timeout(Duration::from_secs(patience), socket.recv(&mut [0; QUESTION])).await.is_ok() {
                    break;
                }
            }
        }
        // Let go of before anything can be answered: nothing is sent again.
        _ => drop(timeout(Duration::ZERO, connect(from, server)).await),
    }
    Ok(())
}

/// What one does all the time, until something fails.
async fn work(case: Case, from: SocketAddr, server: SocketAddr) -> Result<()> {
    match case {
        Case::Kept | Case::Visits => loop {
            let mut stream = timeout(PATIENCE, connect(from, server)).await??;
            for _ in 0..if matches!(case, Case::Kept) { u32::MAX } else { 3 } {
                timeout(PATIENCE, page(&mut stream)).await??;
                // condition: whoever reads does not ask.
                sleep(Duration::from_millis(100)).await;
            }
        },
        Case::Uploads => {
            let mut stream = connect(from, server).await?;
            stream.write_all(&[b'u'; QUESTION]).await?;
            loop {
                stream.write_all(&[b'u'; 16_384]).await?;
                // condition: the pace of the link.
                sleep(Duration::from_millis(20)).await;
            }
        }
        Case::Storm => loop {
            let asked = async { page(&mut connect(from, server).await?).await };
            let _ = timeout(IMPATIENCE, asked).await;
        },
        Case::Sessions => {
            let socket = UdpSocket::bind(from).await?;
            loop {
                let mut patience = IMPATIENCE;
                socket.send_to(&[b'q'; QUESTION], server).await?;
                while timeout(patience, socket.recv(&mut [0; QUESTION])).await.is_err() {
                    socket.send_to(&[b'q'; QUESTION], server).await?;
                    patience *= 2;
                }
                // condition: the time between two questions.
                sleep(Duration::from_millis(30)).await;
            }
        }
        _ => {
            let socket = UdpSocket::bind(from).await?;
            loop {
                socket.send_to(&[b'q'; QUESTION], server).await?;
                // condition: the pace.
                sleep(Duration::from_millis(50)).await;
            }
        }
    }
}

async fn connect(from: SocketAddr, server: SocketAddr) -> Result<TcpStream> {
    let socket = TcpSocket::new_v4()?;
    socket.bind(from)?;
    Ok(socket.connect(server).await?)
}

/// Asks for a page, and reads it.
async fn page(stream: &mut TcpStream) -> Result<()> {
    stream.write_all(&[b'g'; QUESTION]).await?;
    let mut page = [0; ANSWER];
    stream.read_exact(&mut page).await?;
    Ok(())
}

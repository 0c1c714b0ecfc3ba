//! The lab: makes a world and a server out of network namespaces, protects the server, sends it legitimate traffic and
//! floods, and shows what happens. Ends with a summary; exit 0 where everything held.

use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::Result;
use clap::Parser;
use floodwall_tests::daemon::{Daemon, Place, all_packets, packets, run_verb, status};
use floodwall_tests::flood::{Flood, Sent};
use floodwall_tests::netns::Namespace;
use floodwall_tests::topology::{PROTECTED, Topology};
use floodwall_tests::traffic::{Clients, Seen, Servers, finish};
use serde_json::Value;

/// A flood against a protected server, in namespaces of its own
#[derive(Debug, Parser)]
struct Options {
    /// Leave the lab up at the end, and say where to look
    #[arg(long)]
    keep: bool,
    /// Seconds of each of the four phases
    #[arg(long, default_value_t = 7, value_parser = clap::value_parser!(u64).range(2..=600))]
    seconds: u64,
    /// Frames a second of the flood
    #[arg(long, default_value_t = 1_000_000, value_parser = clap::value_parser!(u64).range(1_000..=10_000_000))]
    pps: u64,
    /// Print the summary as JSON
    #[arg(long)]
    json: bool,
}

/// A phase: what floods, and how it went.
struct Phase {
    name: &'static str,
    sources: u32,
    sent: Sent,
    received: u64,
    dropped: u64,
    seen: Seen,
}

/// Clients of each family.
const CLIENTS: u8 = 8;
/// Requests a second of each client and protocol.
const REQUESTS: u32 = 50;
/// What a source may send over UDP.
const UDP_PPS: u64 = 100;
const UDP_BURST: u64 = 100;
/// The least share of legitimate requests that has to be answered.
const GOODPUT: f64 = 0.99;

fn main() -> ExitCode {
    match run(&Options::parse()) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("lab: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(options: &Options) -> Result<bool> {
    say("making two namespaces, the world and the server, joined by one link");
    let mut topology =
        Topology::of(Namespace::named("floodwall-world")?, Namespace::named("floodwall-server")?, CLIENTS)?;
    let mut place = Place::at(std::path::PathBuf::from("/run/floodwall-lab"))?;
    say(&format!("attaching to {PROTECTED} of the server: floodwall run --interface {PROTECTED}"));
    let daemon = Daemon::start(&topology.server, &place, &["--interface", PROTECTED, "--respond", "act"])?;
    let verb = |words: &str| run_verb(&topology.server, &place, words);
    for words in [format!("limits set udp --pps {UDP_PPS} --burst {UDP_BURST}"), "mode enforce".to_owned()] {
        say(&format!("floodwall {words}"));
        verb(&words)?;
    }
    let servers = Servers::start(&topology.server, &topology.servers())?;
    // What the device received before it was protected.
    let (before, received) = topology.settled(&place)?;
    let unseen = received - all_packets(&before);

    let mut phases = Vec::new();
    for (name, sources) in [("no flood", 0), ("one source", 1), ("1,000 sources", 1_000), ("random sources", 1 << 24)] {
        phases.push(phase(options, &topology, &place, name, sources)?);
    }
    let summary = Summary::new(&topology, &place, unseen)?;
    if options.json {
        println!("{}", serde_json::to_string_pretty(&summary.json(&phases))?);
    } else {
        println!("\n{}\n{}", summary.table(&phases), verb("status").unwrap_or_default());
        println!("\nfloodwall incident show\n\n{}", verb("incident show").unwrap_or_default());
    }
    let held = summary.verdict(&phases);
    if options.keep {
        topology.world.keep();
        topology.server.keep();
        place.keep();
        std::mem::forget(daemon);
        println!("{}", where_to_look(&place));
    } else {
        daemon.stop()?;
    }
    drop(servers);
    Ok(held)
}

fn phase(options: &Options, topology: &Topology, place: &Place, name: &'static str, sources: u32) -> Result<Phase> {
    let duration = Duration::from_secs(options.seconds);
    say(&format!(
        "{name}: {} s of legitimate TCP and UDP{}",
        options.seconds,
        match sources {
            0 => String::new(),
            _ => format!(", and a UDP flood of {} packets/s", grouped(options.pps)),
        }
    ));
    let before = status(&topology.server, place)?;
    let clients = Clients {
        servers: topology.servers(),
        sources: topology.clients.clone(),
        requests_per_second: REQUESTS,
        cpu: 1,
        duration,
    };
    let clients = clients.start(&topology.world)?;
    let flood = match sources {
        0 => None,
        _ => {
            let flood = Flood::udp(sources, options.pps, duration);
            Some(flood.start(&topology.world, topology.target()?, 0)?)
        }
    };
    show_progress(topology, place, duration);
    let sent = flood.map_or(Ok(Ok(Sent::default())), floodwall_tests::netns::Running::join)??;
    let seen = finish(clients)?;
    let (after, _) = topology.settled(place)?;
    let received = all_packets(&after) - all_packets(&before);
    let dropped = |status: &Value| packets(status, "drop", "packet-limit") + packets(status, "drop", "signature");
    let dropped = dropped(&after) - dropped(&before);
    Ok(Phase { name, sources, sent, received, dropped, seen })
}

/// A line each second: what the filter sees.
fn show_progress(topology: &Topology, place: &Place, duration: Duration) {
    let end = Instant::now() + duration;
    while Instant::now() < end {
        // condition: the next second of the show.
        std::thread::sleep(Duration::from_millis(1_000).min(end.saturating_duration_since(Instant::now())));
        if let Ok(status) = status(&topology.server, place) {
            let rate = |flow: &str| status["interfaces"][0][flow]["packets_per_second"].as_f64().unwrap_or(0.0);
            eprintln!(
                "      passed {:>9}/s   dropped {:>9}/s",
                grouped(rate("passed") as u64),
                grouped(rate("dropped") as u64)
            );
        }
    }
}

struct Summary {
    counted: u64,
    received: u64,
}

impl Summary {
    fn new(topology: &Topology, place: &Place, unseen: u64) -> Result<Self> {
        let (status, received) = topology.settled(place)?;
        Ok(Self { counted: all_packets(&status), received: received - unseen })
    }

    fn table(&self, phases: &[Phase]) -> String {
        let mut text = format!(
            "{:<15} {:>11} {:>9} {:>10} {:>10} {:>9} {:>9}\n",
            "flood", "offered/s", "dropped", "TCP", "UDP", "TCP p99", "UDP p99"
        );
        for phase in phases {
            let dropped = match phase.sent.packets() {
                0 => "-".to_owned(),
                sent => format!("{:.2} %", phase.dropped as f64 / sent as f64 * 100.0),
            };
            let milliseconds = |duration: Duration| format!("{:.1} ms", duration.as_secs_f64() * 1e3);
            text += &format!(
                "{:<15} {:>11} {:>9} {:>8.2} % {:>8.2} % {:>9} {:>9}\n",
                phase.name,
                grouped(phase.sent.packets_per_second() as u64),
                dropped,
                phase.seen.tcp.share() * 100.0,
                phase.seen.udp.share() * 100.0,
                milliseconds(phase.seen.tcp.quantile(0.99)),
                milliseconds(phase.seen.udp.quantile(0.99)),
            );
        }
        text += "\nTCP, UDP: legitimate requests answered within a second. Random sources send one or two packets each: no limit by\n\
                 source can tell them from customers. They pass until detection has found what they have in common.\n";
        text += &format!(
            "\nthe device has received {} frames; the filter has counted {}\n",
            grouped(self.received),
            grouped(self.counted)
        );
        text
    }

    /// What did not hold, if anything.
    fn failures(&self, phases: &[Phase]) -> Vec<String> {
        let mut failures = Vec::new();
        if self.counted != self.received {
            failures.push(format!("{} frames received, {} counted", self.received, self.counted));
        }
        for phase in phases {
            for (what, goodput) in [("TCP", &phase.seen.tcp), ("UDP", &phase.seen.udp)] {
                if goodput.share() < GOODPUT {
                    let share = goodput.share() * 100.0;
                    failures.push(format!("{}: only {share:.2} % of legitimate {what} was answered", phase.name));
                }
            }
            // A second or two until it is found, whatever a machine that stands still makes of it.
            let share = phase.dropped as f64 / phase.sent.packets().max(1) as f64;
            if phase.sources == 1 << 24 && share < 0.5 {
                failures.push(format!("{}: only {:.1} % was dropped", phase.name, share * 100.0));
            }
            // Each source may send its limit in each family. Beside the flood come a dozen packets for each request at most.
            let due = 2.0 * f64::from(phase.sources) * (UDP_BURST as f64 + UDP_PPS as f64 * phase.sent.seconds);
            let legitimate = 12 * (phase.seen.tcp.asked + phase.seen.udp.asked);
            let passed = phase.received - phase.dropped;
            if passed as f64 > 1.05 * due + legitimate as f64 && phase.sources > 0 {
                failures.push(format!("{}: {passed} of {} passed, {due:.0} are due", phase.name, phase.received));
            }
        }
        failures
    }

    fn verdict(&self, phases: &[Phase]) -> bool {
        let failures = self.failures(phases);
        for failure in &failures {
            eprintln!("lab: {failure}");
        }
        if failures.is_empty() {
            say("everything held");
        }
        failures.is_empty()
    }

    fn json(&self, phases: &[Phase]) -> Value {
        let phase = |phase: &Phase| {
            serde_json::json!({
                "flood": phase.name,
                "sent": phase.sent.packets(),
                "offered_per_second": phase.sent.packets_per_second(),
                "dropped": phase.dropped,
                "tcp_answered": phase.seen.tcp.share(),
                "udp_answered": phase.seen.udp.share(),
                "tcp_p99_ms": phase.seen.tcp.quantile(0.99).as_secs_f64() * 1e3,
                "udp_p99_ms": phase.seen.udp.quantile(0.99).as_secs_f64() * 1e3,
            })
        };
        serde_json::json!({
            "phases": phases.iter().map(phase).collect::<Vec<_>>(),
            "received": self.received,
            "counted": self.counted,
            "failures": self.failures(phases),
        })
    }
}

fn where_to_look(place: &Place) -> String {
    format!(
        "The lab is up. Look with, for example:\n\
         \x20 export FLOODWALL_SOCKET={} FLOODWALL_BPFFS={}\n\
         \x20 nsenter --net=/run/netns/floodwall-server floodwall status\n\
         Take it down with:\n\
         \x20 nsenter --net=/run/netns/floodwall-server floodwall detach; pkill -f 'floodwall run --interface {PROTECTED}'\n\
         \x20 ip netns del floodwall-world; ip netns del floodwall-server; umount {}; rm -r {}",
        place.socket().display(),
        place.bpffs().display(),
        place.bpffs().display(),
        place.directory().display(),
    )
}

fn say(text: &str) {
    eprintln!("lab: {text}");
}

/// 1234567 as `1,234,567`.
fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

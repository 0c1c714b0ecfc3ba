//! The measuring half of the bench: the wrapper program, the cases, and the rounds. What it prints is the binary's.

mod accuracy;
mod armed;
pub mod live;
pub mod markdown;
mod peers;

use std::net::{Ipv4Addr, Ipv6Addr, TcpListener};
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Barrier;
use std::thread;

use anyhow::{Context as _, Result, anyhow, bail, ensure};
use aya::Ebpf;
use aya::maps::{Array, MapData, ProgramArray};
use aya::programs::{Xdp, loaded_programs};
use floodwall::dataplane::{TestRun, test_run};
use serde::Serialize;

pub use accuracy::{Accuracy, accuracy};
use armed::{Armed, Filter};
use peers::XdpFilter;

use crate::flood::{self, Pattern};
use crate::frames::{classes_v4, udp_v4, udp_v6};
use crate::kernel::{Kernel, Variant, descriptor_figure, pin_to_cpu};

/// Payload that makes an IPv4 frame one of 60 bytes.
const DATA: usize = 18;
const SIXTEEN_MILLION: u32 = 1 << 24;

/// How much is measured.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Names of the cases to be measured, and what their ratios are to; all where there is none.
    pub cases: Vec<String>,
    /// How often each case is.
    pub rounds: u32,
    /// Packets of a case in a round.
    pub packets: u32,
}

/// What a case costs.
#[derive(Clone, Debug, Serialize)]
pub struct Figure {
    /// Its name, never changed.
    pub name: &'static str,
    /// Median of the rounds, wrapper included.
    pub ns: f64,
    /// To the bare drop of its family, or, on two cores, to the same case on one.
    pub ratio: f64,
}

/// From so many sources; one is drawn as many are, so that it costs the wrapper the same.
const fn v4(sources: u32) -> Pattern {
    Pattern { state: 1, sources, base: 0x0b00_0000, family: 4, ifindex: 0, interval_ns: 0, due_ns: 0 }
}

const fn v6(sources: u32) -> Pattern {
    Pattern { base: 0x000a_0000, family: 6, ..v4(sources) }
}

/// The program that a case measures.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Target {
    Bare,
    Parse,
    Filter(Armed),
    LruWindow,
    XdpFilter,
}

/// What the flood is of.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Sends {
    /// UDP to this port.
    Udp(u16),
    /// TCP segments of no connection, to a port that something listens on.
    Strays,
}

struct Case {
    name: &'static str,
    target: Target,
    pattern: Pattern,
    cpus: usize,
    sends: Sends,
    /// The case that its ratio is to.
    to: &'static str,
}

const fn case(name: &'static str, target: Target, pattern: Pattern) -> Case {
    let to = if pattern.family == 4 { BARE } else { BARE_V6 };
    Case { name, target, pattern, cpus: 1, sends: Sends::Udp(SERVED), to }
}

/// The same, to a port that nobody serves.
const fn astray(name: &'static str, target: Target, pattern: Pattern) -> Case {
    Case { sends: Sends::Udp(UNSERVED), ..case(name, target, pattern) }
}

const fn strays(name: &'static str, armed: Armed) -> Case {
    Case { sends: Sends::Strays, ..case(name, Target::Filter(armed), RANDOM) }
}

const fn on_two(name: &'static str, target: Target, pattern: Pattern, to: &'static str) -> Case {
    Case { cpus: 2, to, ..case(name, target, pattern) }
}

/// The port of the frames, behind which the filters that know services have one.
const SERVED: u16 = 53;
const UNSERVED: u16 = 9;

const BARE: &str = "bare-drop";
const BARE_V6: &str = "bare-drop-v6";

const HOT: Pattern = v4(1);
const FEW: Pattern = v4(1 << 16);
const RANDOM: Pattern = v4(SIXTEEN_MILLION);
const DEFAULT: Target = Target::Filter(Armed::Default);

const CASES: [Case; 28] = [
    case(BARE, Target::Bare, RANDOM),
    case("parse", Target::Parse, RANDOM),
    case("hot-source", DEFAULT, HOT),
    case("under-limit-64k", DEFAULT, FEW),
    case("random-v4-1m", DEFAULT, v4(1 << 20)),
    case("random-v4-16m", DEFAULT, RANDOM),
    case("allow-3", Target::Filter(Armed::Peers), RANDOM),
    case("lists-100", Target::Filter(Armed::Lists), RANDOM),
    case("ladder", Target::Filter(Armed::Ladder), RANDOM),
    case("replies", Target::Filter(Armed::Replies), RANDOM),
    strays("out-of-state", Armed::State),
    strays("out-of-state-cookies", Armed::StateBesideCookies),
    case("services", Target::Filter(Armed::Services), RANDOM),
    case("signatures-256", Target::Filter(Armed::Signatures), RANDOM),
    case("all-but-signatures", Target::Filter(Armed::AllButSignatures), RANDOM),
    case("all", Target::Filter(Armed::All), RANDOM),
    astray("all-no-service", Target::Filter(Armed::All), RANDOM),
    case(BARE_V6, Target::Bare, v6(SIXTEEN_MILLION)),
    case("random-v6", DEFAULT, v6(SIXTEEN_MILLION)),
    on_two("two-cores-bare-drop", Target::Bare, RANDOM, BARE),
    on_two("two-cores-hot-source", DEFAULT, HOT, "hot-source"),
    on_two("two-cores-random-v4-16m", DEFAULT, RANDOM, "random-v4-16m"),
    case("lru-window-hot-source", Target::LruWindow, HOT),
    case("lru-window-under-limit-64k", Target::LruWindow, FEW),
    case("lru-window-random-v4-16m", Target::LruWindow, RANDOM),
    case("xdp-filter-hot-source", Target::XdpFilter, HOT),
    case("xdp-filter-under-limit-64k", Target::XdpFilter, FEW),
    case("xdp-filter-random-v4-16m", Target::XdpFilter, RANDOM),
];

/// The wrapper, and what it hands packets to.
struct Wrapper {
    object: Ebpf,
    vary: OwnedFd,
    pattern: Array<MapData, Pattern>,
    targets: ProgramArray<MapData>,
}

impl Wrapper {
    fn load() -> Result<Self> {
        let mut object = Ebpf::load(flood::object()).context("load the bench programs")?;
        for name in ["vary", "bare_drop", "parse_drop", "lru_window"] {
            xdp(&mut object, name)?.load()?;
        }
        let vary = xdp(&mut object, "vary")?.fd()?.as_fd().try_clone_to_owned()?;
        let pattern = Array::try_from(object.take_map("PATTERN").context("no map PATTERN")?)?;
        let targets = ProgramArray::try_from(object.take_map("TARGET").context("no map TARGET")?)?;
        Ok(Self { object, vary, pattern, targets })
    }

    fn set_pattern(&mut self, pattern: Pattern) -> Result<()> {
        Ok(self.pattern.set(0, pattern, 0)?)
    }

    fn hand_to(&mut self, name: &str) -> Result<()> {
        let program = xdp(&mut self.object, name)?.fd()?.try_clone()?;
        Ok(self.targets.set(0, &program, 0)?)
    }

    fn hand_to_filter(&mut self, kernel: &Kernel) -> Result<()> {
        self.hand_to_loaded(descriptor_figure(kernel.program(Variant::Linear), "prog_id")?)
    }

    fn hand_to_loaded(&mut self, id: u64) -> Result<()> {
        let found = loaded_programs().filter_map(std::result::Result::ok).find(|info| u64::from(info.id()) == id);
        Ok(self.targets.set(0, &found.context("the program is not loaded")?.fd()?, 0)?)
    }

    /// Nanoseconds of this thread per packet. CPU time, so that what else runs here is not in it.
    fn run(&self, frame: &[u8], packets: u32) -> Result<f64> {
        let begun = thread_cpu_ns();
        let run = TestRun { frame, repeat: packets, live: None, ifindex: 0 };
        let result = test_run(&self.vary, run)?;
        ensure!(matches!(result.verdict, 1 | 2), "XDP action {}", result.verdict);
        Ok((thread_cpu_ns() - begun) as f64 / f64::from(packets))
    }

    /// The same on several CPUs at once; the mean of them.
    fn run_on(&self, cpus: usize, frame: &[u8], packets: u32) -> Result<f64> {
        let start = Barrier::new(cpus);
        let one = |cpu: usize| -> Result<f64> {
            let pinned = pin_to_cpu(cpu);
            start.wait();
            pinned?;
            self.run(frame, packets)
        };
        let one = &one;
        let sum: Result<f64> = thread::scope(|scope| {
            let all: Vec<_> = (0..cpus).map(|cpu| scope.spawn(move || one(cpu))).collect();
            all.into_iter().map(|cpu| cpu.join().map_err(|_| anyhow!("a measuring thread failed"))?).sum()
        });
        Ok(sum? / cpus as f64)
    }
}

fn xdp<'a>(object: &'a mut Ebpf, name: &str) -> Result<&'a mut Xdp> {
    Ok(object.program_mut(name).with_context(|| format!("no program {name}"))?.try_into()?)
}

fn thread_cpu_ns() -> u64 {
    let mut now = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: a live timespec for the kernel to fill; this clock always exists.
    unsafe { libc::clock_gettime(libc::CLOCK_THREAD_CPUTIME_ID, &raw mut now) };
    now.tv_sec as u64 * 1_000_000_000 + now.tv_nsec as u64
}

/// Measures every case; `progress` hears of every round that is done.
///
/// # Errors
/// Where the kernel refuses a program or a run.
pub fn measure(plan: &Plan, progress: impl Fn(u32)) -> Result<Vec<Figure>> {
    let online = thread::available_parallelism()?.get();
    let xdp_filter = XdpFilter::install()?;
    if let Some(unknown) = plan.cases.iter().find(|name| !CASES.iter().any(|case| case.name == **name)) {
        bail!("no case {unknown}: there are {}", CASES.map(|case| case.name).join(", "));
    }
    let asked = |name| plan.cases.is_empty() || plan.cases.iter().any(|asked| asked == name);
    let needed = |case: &Case| asked(case.name) || CASES.iter().any(|other| other.to == case.name && asked(other.name));
    let can = |case: &Case| case.cpus <= online && (case.target != Target::XdpFilter || xdp_filter.is_some());
    let cases: Vec<&Case> = CASES.iter().filter(|case| can(case) && needed(case)).collect();
    let loaded = Armed::EACH.into_iter().filter(|armed| cases.iter().any(|case| case.target == Target::Filter(*armed)));
    let mut filters: Vec<Filter> = loaded.map(Filter::load).collect::<Result<_>>()?;
    let mut wrapper = Wrapper::load()?;
    let source = Ipv4Addr::new(11, 0, 0, 1);
    let mut frames = [udp_v4(source, DATA), udp_v6(Ipv6Addr::new(0x2001, 0xdb8, 0, 1, 0, 0, 0, 1), DATA)];
    let [_, mut stray, ..] = classes_v4(source);
    let listener = TcpListener::bind((Ipv4Addr::UNSPECIFIED, 0))?;
    let listens = listener.local_addr()?.port();
    let mut rounds = vec![Vec::new(); cases.len()];
    // One round more than asked: in the first, bursts are used up and caches filled.
    for round in 0..=plan.rounds {
        for (case, rounds) in cases.iter().zip(&mut rounds) {
            match case.target {
                Target::Bare => wrapper.hand_to("bare_drop")?,
                Target::Parse => wrapper.hand_to("parse_drop")?,
                Target::LruWindow => wrapper.hand_to("lru_window")?,
                Target::XdpFilter => wrapper.hand_to_loaded(xdp_filter.as_ref().context("xdp-filter")?.program)?,
                Target::Filter(armed) => {
                    let found = filters.iter().find(|filter| filter.armed == armed);
                    wrapper.hand_to_filter(&found.context("each is loaded")?.kernel)?;
                }
            }
            wrapper.set_pattern(case.pattern)?;
            let is_v6 = case.pattern.family == 6;
            let (frame, to) = match case.sends {
                Sends::Udp(port) => (&mut frames[usize::from(is_v6)], port),
                Sends::Strays => (&mut stray, listens),
            };
            let port = if is_v6 { 56 } else { 36 };
            frame[port..port + 2].copy_from_slice(&to.to_be_bytes());
            let ns = wrapper.run_on(case.cpus, frame, plan.packets)?;
            if round > 0 {
                rounds.push(ns);
            }
        }
        for filter in &mut filters {
            filter.ring.drain()?;
        }
        progress(round);
    }
    // Of cases that belong together some may be missing.
    if plan.cases.is_empty() {
        filters.iter().try_for_each(Filter::check)?;
    }
    let medians: Vec<f64> = rounds.iter_mut().map(|rounds| median(rounds)).collect();
    let named = |name| cases.iter().zip(&medians).find(|(case, _)| case.name == name).map(|(_, ns)| *ns);
    cases
        .iter()
        .zip(&medians)
        .map(|(case, ns)| {
            let ratio = ns / named(case.to).context("every case has one that its ratio is to")?;
            Ok(Figure { name: case.name, ns: (ns * 10.0).round() / 10.0, ratio: (ratio * 1_000.0).round() / 1_000.0 })
        })
        .collect()
}

fn median(values: &mut [f64]) -> f64 {
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    if values.len() % 2 == 1 { values[middle] } else { (values[middle - 1] + values[middle]) / 2.0 }
}

//! The measuring half of the bench: the wrapper program, the cases, and the rounds. What it prints is the binary's.

use std::net::{Ipv4Addr, Ipv6Addr};
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Barrier;
use std::thread;

use anyhow::{Context as _, Result, anyhow, ensure};
use aya::Ebpf;
use aya::maps::{Array, MapData, ProgramArray};
use aya::programs::{Xdp, loaded_programs};
use floodwall::dataplane::{Listed, Signature, TestRun, test_run};
use floodwall_common::config::{Mode, Sampling};
use floodwall_common::limits::{LimitName, Rate};
use floodwall_common::lists::List;
use floodwall_common::reason::{Reason, Verdict};
use floodwall_common::signatures::{Action, Fragment, Range, SIGNATURES, Shape, TcpOption, lay};
use serde::Serialize;

use crate::flood::Pattern;
use crate::frames::{udp_v4, udp_v6};
use crate::kernel::{Kernel, Ring, Time, Variant, descriptor_figure, listed, pin_to_cpu, signature};

/// One packet in so many, as the daemon has it at ten million a second.
const SAMPLED: Sampling = Sampling::new([5_000, 5_000], 1_000);
/// Payload that makes an IPv4 frame one of 60 bytes.
const DATA: usize = 18;
const SIXTEEN_MILLION: u32 = 1 << 24;

#[repr(C, align(8))]
struct Aligned<T: ?Sized>(T);

static OBJECT: &Aligned<[u8]> = &Aligned(*include_bytes!(env!("BENCH_OBJECT")));

/// How much is measured.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
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

/// How exactly a limit is kept beside ten million random sources a second.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Accuracy {
    /// What a source at twice its limit passes, as a share of the limit.
    pub twice_the_limit: f64,
    /// Packets of sources at 0.95 of their limit.
    pub innocent_sent: u64,
    /// How many of them were dropped.
    pub innocent_lost: u64,
}

/// From so many sources; one is drawn as many are, so that it costs the wrapper the same.
const fn v4(sources: u32) -> Pattern {
    Pattern { state: 1, sources, base: 0x0b00_0000, family: 4, ifindex: 0, interval_ns: 0, due_ns: 0 }
}

const fn v6(sources: u32) -> Pattern {
    Pattern { base: 0x000a_0000, family: 6, ..v4(sources) }
}

/// The program that a case measures.
#[derive(Clone, Copy)]
enum Target {
    Bare,
    Parse,
    Filter,
    Listed,
    Signed,
}

struct Case {
    name: &'static str,
    target: Target,
    pattern: Pattern,
    cpus: usize,
    /// The case that its ratio is to.
    to: &'static str,
}

const fn case(name: &'static str, target: Target, pattern: Pattern, cpus: usize, to: &'static str) -> Case {
    Case { name, target, pattern, cpus, to }
}

const BARE: &str = "bare-drop";
const BARE_V6: &str = "bare-drop-v6";

const CASES: [Case; 13] = [
    case(BARE, Target::Bare, v4(SIXTEEN_MILLION), 1, BARE),
    case("parse", Target::Parse, v4(SIXTEEN_MILLION), 1, BARE),
    case("hot-source", Target::Filter, v4(1), 1, BARE),
    case("under-limit-64k", Target::Filter, v4(1 << 16), 1, BARE),
    case("random-v4-1m", Target::Filter, v4(1 << 20), 1, BARE),
    case("random-v4-16m", Target::Filter, v4(SIXTEEN_MILLION), 1, BARE),
    case("lists-100", Target::Listed, v4(SIXTEEN_MILLION), 1, BARE),
    case("signatures-256", Target::Signed, v4(SIXTEEN_MILLION), 1, BARE),
    case(BARE_V6, Target::Bare, v6(SIXTEEN_MILLION), 1, BARE_V6),
    case("random-v6", Target::Filter, v6(SIXTEEN_MILLION), 1, BARE_V6),
    case("two-cores-bare-drop", Target::Bare, v4(SIXTEEN_MILLION), 2, BARE),
    case("two-cores-hot-source", Target::Filter, v4(1), 2, "hot-source"),
    case("two-cores-random-v4-16m", Target::Filter, v4(SIXTEEN_MILLION), 2, "random-v4-16m"),
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
        let mut object = Ebpf::load(&OBJECT.0).context("load the bench programs")?;
        for name in ["vary", "bare_drop", "parse_drop"] {
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
        let id = descriptor_figure(kernel.program(Variant::Linear), "prog_id")?;
        let found = loaded_programs().filter_map(std::result::Result::ok).find(|info| u64::from(info.id()) == id);
        Ok(self.targets.set(0, &found.context("the filter is not loaded")?.fd()?, 0)?)
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

/// A filter as it runs in a flood, and its ring, which somebody has to empty.
struct Filter {
    kernel: Kernel,
    ring: Ring,
}

impl Filter {
    fn load(denied: &[Listed], signatures: &[Signature]) -> Result<Self> {
        let mut kernel = Kernel::load(Time::Ticks)?;
        kernel.replace_list(List::Deny, denied)?;
        kernel.replace_signatures(signatures)?;
        kernel.dataplane.set_mode(Mode::Enforce)?;
        kernel.dataplane.set_sampling(SAMPLED)?;
        let ring = kernel.ring()?;
        Ok(Self { kernel, ring })
    }
}

/// A hundred prefixes of /24 all over the address space; four of them lie where the random sources do, so that about one
/// packet in sixty is near one and one in sixteen thousand on the list.
fn hundred_prefixes() -> Result<Vec<Listed>> {
    (0..100u32)
        .map(|place| {
            let first = if place % 25 == 0 { 11 } else { 20 + place };
            listed(&format!("{first}.{}.{}.0/24", place * 37 % 256, place * 7 % 256), None)
        })
        .collect()
}

/// All the signatures that there may be, of eight shapes. The packets of the cases suit none, but most of the fields of many:
/// those that look at the payload are left until it is read.
fn all_signatures() -> Vec<Signature> {
    let range = |first, last| Range { first, last };
    let udp = Shape { protocol: 17, ..Shape::ANY };
    let shape = |number: u16| match number % 8 {
        0 => Shape { source_ports: range(number, number), lengths: range(400, 1_500), ..udp },
        1 => Shape { destination_ports: range(1_000 + number, 1_010 + number), ..udp },
        2 => Shape { lengths: range(500 + number, 500 + number), ..udp },
        3 => Shape { hops: range(65 + number / 8, 128), lengths: range(46, 46), ..udp },
        4 => Shape { layout: lay(u64::from(number), TcpOption::Mss), asks_layout: 1, ..Shape::ANY },
        5 => Shape { flags: 2, flags_mask: 0x12, destination_ports: range(number, number), ..Shape::ANY },
        6 => Shape {
            payload: u64::from(number) << 56,
            payload_mask: 0xff << 56,
            destination_ports: range(53, 53),
            ..udp
        },
        _ => Shape { fragments: 1 << Fragment::Later as u8, lengths: range(number, 1_500), ..udp },
    };
    let shapes = (0..SIGNATURES as u16).map(shape);
    shapes.enumerate().map(|(number, shape)| signature(&format!("s{number}"), shape, Action::Drop, None)).collect()
}

/// Measures every case; `progress` hears of every round that is done.
///
/// # Errors
/// Where the kernel refuses a program or a run.
pub fn measure(plan: Plan, progress: impl Fn(u32)) -> Result<Vec<Figure>> {
    let online = thread::available_parallelism()?.get();
    let cases: Vec<&Case> = CASES.iter().filter(|case| case.cpus <= online).collect();
    let mut filters =
        [Filter::load(&[], &[])?, Filter::load(&hundred_prefixes()?, &[])?, Filter::load(&[], &all_signatures())?];
    let mut wrapper = Wrapper::load()?;
    let frames =
        [udp_v4(Ipv4Addr::new(11, 0, 0, 1), DATA), udp_v6(Ipv6Addr::new(0x2001, 0xdb8, 0, 1, 0, 0, 0, 1), DATA)];
    let mut rounds = vec![Vec::new(); cases.len()];
    // One round more than asked: in the first, bursts are used up and caches filled.
    for round in 0..=plan.rounds {
        for (case, rounds) in cases.iter().zip(&mut rounds) {
            match case.target {
                Target::Bare => wrapper.hand_to("bare_drop")?,
                Target::Parse => wrapper.hand_to("parse_drop")?,
                Target::Filter => wrapper.hand_to_filter(&filters[0].kernel)?,
                Target::Listed => wrapper.hand_to_filter(&filters[1].kernel)?,
                Target::Signed => wrapper.hand_to_filter(&filters[2].kernel)?,
            }
            wrapper.set_pattern(case.pattern)?;
            let frame = &frames[usize::from(case.pattern.family == 6)];
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
    check(&filters)?;
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

/// What was measured is what the names say: the hot source was dropped, the others passed, lists had their say.
fn check(filters: &[Filter; 3]) -> Result<()> {
    let [filter, lists, signatures] = filters.each_ref().map(|filter| filter.kernel.counted());
    let hits: u64 = filters[2].kernel.dataplane.signatures()?.iter().map(|signature| signature.hits.packets).sum();
    ensure!(
        hits == 0 && signatures.of(Reason::Passed) == signatures.packets(),
        "{hits} hits, {:?}",
        signatures.cells()
    );
    let (passed, limited) = (filter.of(Reason::Passed), filter.of(Reason::PacketLimit));
    ensure!(limited > filter.packets() / 5, "{limited} of {} were over a limit", filter.packets());
    ensure!(passed + limited == filter.packets(), "{:?}", filter.cells());
    ensure!(lists.of(Reason::Denied) > 0 && lists.of(Reason::Passed) > lists.packets() / 2, "{:?}", lists.cells());
    Ok(())
}

fn median(values: &mut [f64]) -> f64 {
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    if values.len() % 2 == 1 { values[middle] } else { (values[middle - 1] + values[middle]) / 2.0 }
}

/// Sends for ten seconds of the test's time, in steps: a hundred thousand packets of random sources in each, what one
/// source at twice its limit sends in that time, and what a hundred at 0.95 of theirs do.
///
/// # Errors
/// Where the kernel refuses a program or a run.
pub fn accuracy() -> Result<Accuracy> {
    const LIMIT: u64 = 1_000;
    const STEPS: u64 = 1_000;
    // Before a repeated run the kernel waits for some milliseconds: shorter steps would be exact, and slow.
    const STEP_NS: u64 = 10_000_000;
    const RANDOM_PER_STEP: u32 = 100_000;
    pin_to_cpu(0)?;
    let mut kernel = Kernel::load(Time::Test)?;
    kernel.set_limit(LimitName::Udp, Rate::Limit { per_second: LIMIT, burst: LIMIT / 10 }, Rate::Off)?;
    kernel.dataplane.set_mode(Mode::Enforce)?;
    let mut wrapper = Wrapper::load()?;
    wrapper.set_pattern(v4(SIXTEEN_MILLION))?;
    wrapper.hand_to_filter(&kernel)?;
    let source = |last: u8| udp_v4(Ipv4Addr::new(198, 51, 100, last), DATA);
    let (random, hot) = (udp_v4(Ipv4Addr::new(11, 0, 0, 1), DATA), source(200));
    let innocent: Vec<_> = (0..100).map(source).collect();
    let passes = |frame: &[u8]| -> Result<bool> { Ok(kernel.judge(Variant::Linear, frame)? == Verdict::Pass) };
    let (mut hot_passed, mut innocent_sent, mut innocent_lost) = (0u64, 0, 0);
    for step in 0..STEPS {
        kernel.set_time(12 * 3_600_000_000_000 + step * STEP_NS)?;
        wrapper.run(&random, RANDOM_PER_STEP)?;
        for _ in 0..20 {
            hot_passed += u64::from(passes(&hot)?);
        }
        for (place, frame) in innocent.iter().enumerate() {
            // Nine and ten in turn are 0.95 of ten.
            for _ in 0..9 + (step + place as u64) % 2 {
                innocent_sent += 1;
                innocent_lost += u64::from(!passes(frame)?);
            }
        }
    }
    let seconds = (STEPS * STEP_NS) as f64 / 1e9;
    let limit = LIMIT as f64 * seconds + LIMIT as f64 / 10.0;
    Ok(Accuracy { twice_the_limit: hot_passed as f64 / limit, innocent_sent, innocent_lost })
}

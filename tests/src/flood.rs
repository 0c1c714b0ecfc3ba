//! A flood: frames that the kernel sends out of an interface itself (live test runs), a million a second on one core.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use aya::maps::Array;
use aya::programs::Xdp;
use aya::{Ebpf, Pod};
use etherparse::PacketBuilder;
use floodwall::dataplane::{TestRun, test_run};

use crate::kernel::pin_to_cpu;
use crate::netns::{Namespace, Running};

/// The object with the generator.
#[repr(C, align(8))]
struct Aligned<T: ?Sized>(T);

static OBJECT: &Aligned<[u8]> = &Aligned(*include_bytes!(env!("BENCH_OBJECT")));

/// The ELF object with the generators and yardsticks.
pub fn object() -> &'static [u8] {
    &OBJECT.0
}

/// Which sources a generator writes into its frames: the kernel half's `Pattern`.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct Pattern {
    /// State of the generator; not zero.
    pub state: u64,
    /// How many sources; zero leaves the frame as it is.
    pub sources: u32,
    /// The first IPv4 address, or bits 32 to 63 of the first IPv6 address.
    pub base: u32,
    /// 4 or 6.
    pub family: u32,
    /// Where the frames go.
    pub ifindex: u32,
    /// Nanoseconds from one frame to the next; zero for no pace.
    pub interval_ns: u64,
    /// When the next frame is due, on the monotonic clock.
    pub due_ns: u64,
}

// SAFETY: `repr(C)` and integers only, no hidden bytes.
unsafe impl Pod for Pattern {}

/// Where sources come from: a range that no route of a test leads to, so that nothing answers.
const BASE_V4: u32 = 0x0b00_0000;
const BASE_V6: u32 = 0x1000_0000;

/// What the frames of a flood are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// UDP to a port where nobody listens.
    Udp,
    /// TCP SYNs to this port, with the options that a client has.
    Syn(u16),
    /// TCP segments to this port, of connections that there are not.
    Ack(u16),
}

/// What to send.
#[derive(Clone, Copy, Debug)]
pub struct Flood {
    /// What the frames are.
    pub kind: Kind,
    /// Sources that take turns at random; up to 2^24.
    pub sources: u32,
    /// Frames a second; half of them IPv4, half IPv6. Zero for as many as there can be.
    pub packets_per_second: u64,
    /// No IPv6 among them.
    pub only_v4: bool,
    /// Whatever else runs on its CPU comes first.
    pub gives_way: bool,
    /// For how long. Who has a pace and does not give way sends all its frames, however long that takes: after a machine
    /// has stood still for seconds it goes on where it was.
    pub duration: Duration,
}

/// What was sent.
#[derive(Clone, Copy, Debug, Default)]
pub struct Sent {
    /// IPv4 frames.
    pub v4: u64,
    /// IPv6 frames.
    pub v6: u64,
    /// How long it took.
    pub seconds: f64,
}

impl Sent {
    /// All frames.
    pub const fn packets(&self) -> u64 {
        self.v4 + self.v6
    }

    /// Frames a second.
    pub fn packets_per_second(&self) -> f64 {
        self.packets() as f64 / self.seconds.max(1e-9)
    }
}

/// The two ends that a flood goes between.
#[derive(Clone, Copy, Debug)]
pub struct Target {
    /// MAC address of the victim.
    pub mac: [u8; 6],
    /// Its addresses.
    pub v4: [u8; 4],
    /// Its addresses.
    pub v6: [u8; 16],
    /// The interface that leads there.
    pub ifindex: u32,
}

impl Flood {
    /// A flood of UDP in both families.
    pub const fn udp(sources: u32, packets_per_second: u64, duration: Duration) -> Self {
        Self { kind: Kind::Udp, sources, packets_per_second, only_v4: false, gives_way: false, duration }
    }

    /// Sends it from inside a namespace, on the CPU `cpu`.
    ///
    /// # Errors
    /// Where the generator cannot be loaded.
    pub fn start(self, namespace: &Namespace, target: Target, cpu: usize) -> Result<Running<Result<Sent>>> {
        namespace.spawn(move || {
            pin_to_cpu(cpu)?;
            if self.gives_way {
                // SAFETY: numbers only; it is about this thread.
                unsafe { libc::setpriority(libc::PRIO_PROCESS, 0, 19) };
            }
            let families: &[u32] = if self.only_v4 { &[4] } else { &[4, 6] };
            let generators: Result<Vec<_>> =
                families.iter().map(|family| Generator::new(*family, &self, &target)).collect();
            self.send(&mut generators?)
        })
    }

    /// One family after the other, a quarter of a second each.
    fn send(&self, generators: &mut [Generator]) -> Result<Sent> {
        let chunk =
            if self.packets_per_second == 0 { AT_ONCE } else { u32::try_from(self.packets_per_second / 4)?.max(1) };
        let begin = Instant::now();
        let mut sent = Sent::default();
        let all = self.packets_per_second as f64 * self.duration.as_secs_f64();
        let paced = self.packets_per_second != 0 && !self.gives_way;
        while if paced { (sent.packets() as f64) < all } else { begin.elapsed() < self.duration } {
            for generator in &mut *generators {
                generator.send(chunk)?;
                let family = if generator.family == 4 { &mut sent.v4 } else { &mut sent.v6 };
                *family += u64::from(chunk);
            }
        }
        sent.seconds = begin.elapsed().as_secs_f64();
        Ok(sent)
    }
}

/// Frames of a call without a pace.
const AT_ONCE: u32 = 500_000;
/// A call of the generator takes so long to set up, however many frames it sends.
const SETUP_NS: u64 = 35_000_000;

struct Generator {
    family: u32,
    program: OwnedFd,
    frame: Vec<u8>,
    _object: Ebpf,
}

impl Generator {
    fn new(family: u32, flood: &Flood, target: &Target) -> Result<Self> {
        let mut object = Ebpf::load(object()).context("load the generator")?;
        let base = if family == 4 { BASE_V4 } else { BASE_V6 };
        let pattern = Pattern {
            state: 0x9e37_79b9_7f4a_7c15,
            sources: flood.sources,
            base,
            family,
            ifindex: target.ifindex,
            interval_ns: ((250_000_000 - SETUP_NS) * 4).checked_div(flood.packets_per_second).unwrap_or(0),
            due_ns: 0,
        };
        let mut map: Array<_, Pattern> = object.take_map("PATTERN").context("PATTERN")?.try_into()?;
        map.set(0, pattern, 0)?;
        let program: &mut Xdp = object.program_mut("flood").context("flood")?.try_into()?;
        program.load()?;
        let program = program.fd()?.as_fd().try_clone_to_owned()?;
        Ok(Self { family, program, frame: frame(flood.kind, family, target)?, _object: object })
    }

    fn send(&mut self, packets: u32) -> Result<()> {
        let run = TestRun { frame: &self.frame, repeat: packets, live: Some(64), ifindex: 0 };
        match test_run(&self.program, run) {
            // It says no more about how many were sent: some of them are missing.
            Err(error) if error.kind() == io::ErrorKind::Interrupted => Ok(()),
            result => result.map(drop).context("send frames (live test run)"),
        }
    }
}

fn frame(kind: Kind, family: u32, target: &Target) -> Result<Vec<u8>> {
    let ethernet = PacketBuilder::ethernet2([2, 0, 0, 0, 0, 0xaa], target.mac);
    let builder = match family {
        4 => ethernet.ipv4([11, 0, 0, 0], target.v4, 64),
        _ => {
            let mut source = [0; 16];
            source[..2].copy_from_slice(&[0x3f, 0xff]);
            source[15] = 1;
            ethernet.ipv6(source, target.v6, 64)
        }
    };
    let mut frame = Vec::new();
    match kind {
        Kind::Udp => builder.udp(4_444, 9).write(&mut frame, &[0x66; 18])?,
        Kind::Syn(port) => {
            const OPTIONS: [u8; 20] = [2, 4, 5, 180, 4, 2, 8, 10, 0, 1, 2, 3, 0, 0, 0, 0, 1, 3, 3, 7];
            let syn = builder.tcp(40_000, port, 1, 64_240).syn();
            syn.options_raw(&OPTIONS)?.write(&mut frame, &[])?;
        }
        Kind::Ack(port) => builder.tcp(40_000, port, 1, 64_240).ack(1).psh().write(&mut frame, &[0x66; 18])?,
    }
    Ok(frame)
}

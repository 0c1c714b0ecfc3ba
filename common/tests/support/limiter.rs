//! The limiter on the host: gates and table in arrays of our own, time by hand, arrivals by a seeded generator.

use floodwall_common::clock::Moment;
use floodwall_common::hash::{HashKey, Place};
use floodwall_common::limiter::{BUCKETS, Bucket, GATE_CELLS, Gate, pass_gate, pass_table, refuses};
use floodwall_common::limits::{Rate, Unit};
use floodwall_common::meter::{Cost, Machine, Meter};

pub(crate) const MS: u64 = 1_000_000;
pub(crate) const SECOND: u64 = 1_000 * MS;
/// A moment far from any wrap.
pub(crate) const NOON: u64 = 12 * 3_600 * SECOND;

const KEY: HashKey = HashKey::new([0x2545_f491_4f6c_dd1d, 0xd129_0d3a_77e5_5a3b]);
const SECRET: u64 = 0x0123_4567_89ab_cdef;

/// Compiles a limit of packets.
pub(crate) fn packets(per_second: u64, burst: u64, cpus: u32, tick_ns: u64) -> Meter {
    meter(Rate::Limit { per_second, burst }, Unit::Packets, cpus, tick_ns)
}

/// Compiles a limit.
pub(crate) fn meter(rate: Rate, unit: Unit, cpus: u32, tick_ns: u64) -> Meter {
    Meter::new(rate, unit, Machine { cpus, tick_ns }, SECRET).unwrap()
}

/// Where a source lies.
pub(crate) fn place(source: u64) -> Place {
    KEY.place(SECRET, source)
}

/// Where the source lies that hashes to zero: its empty entry has its tag.
pub(crate) fn place_zero() -> Place {
    let place = KEY.place(SECRET, SECRET);
    assert_eq!((place.bucket(), place.cell()), (0, 0));
    place
}

/// A source table with nobody in it.
pub(crate) fn table() -> Vec<Bucket> {
    (0..BUCKETS).map(|_| Bucket::empty()).collect()
}

/// A gate with nobody in it.
pub(crate) fn gate() -> Vec<u32> {
    vec![0; GATE_CELLS]
}

/// Both stages, as the kernel half puts them together.
pub(crate) fn admit(gate: &mut [u32], table: &[Bucket], place: Place, cost: Cost, meter: &Meter, now: Moment) -> bool {
    match pass_gate(&mut gate[place.cell()], cost, meter, now) {
        Gate::Pass => true,
        Gate::Ask { charge } => pass_table(&table[place.bucket()], place, cost, charge, meter, now),
    }
}

/// The state of the limiter on a machine, and its clock.
pub(crate) struct Wall {
    gates: Vec<Vec<u32>>,
    table: Vec<Bucket>,
    pub(crate) now_ns: u64,
}

impl Wall {
    /// With so many CPUs, at this time, all state zero.
    pub(crate) fn new(cpus: u32, now_ns: u64) -> Self {
        Self { gates: (0..cpus).map(|_| gate()).collect(), table: table(), now_ns }
    }

    /// A packet that costs what one packet does.
    pub(crate) fn packet(&mut self, cpu: usize, place: Place, meter: &Meter) -> bool {
        self.cost(cpu, place, meter.of_packet(), meter)
    }

    /// A packet of so many bytes.
    pub(crate) fn bytes(&mut self, cpu: usize, place: Place, bytes: u32, meter: &Meter) -> bool {
        self.cost(cpu, place, meter.of_bytes(bytes), meter)
    }

    /// A packet of this cost.
    pub(crate) fn cost(&mut self, cpu: usize, place: Place, cost: Cost, meter: &Meter) -> bool {
        admit(&mut self.gates[cpu], &self.table, place, cost, meter, Moment::from_ns(self.now_ns))
    }

    /// Whether the meter refuses, as far as can be told without a change.
    pub(crate) fn refuses(&self, cpu: usize, place: Place, meter: &Meter) -> bool {
        let now = Moment::from_ns(self.now_ns);
        refuses(&self.gates[cpu][place.cell()], &self.table[place.bucket()], place, meter, now)
    }

    /// How many of `count` packets pass at this moment on one CPU.
    pub(crate) fn volley(&mut self, cpu: usize, place: Place, meter: &Meter, count: u64) -> u64 {
        (0..count).filter(|_| self.packet(cpu, place, meter)).count() as u64
    }
}

/// A source that sends evenly, whatever becomes of it.
#[derive(Clone)]
pub(crate) struct Sender {
    pub(crate) place: Place,
    /// Packets a second.
    pub(crate) per_second: f64,
    /// What it may send already, below one packet, and what came out.
    pub(crate) due: f64,
    pub(crate) sent: u64,
    pub(crate) passed: u64,
}

impl Sender {
    /// The source number `source`; its first packet comes in `phase` of its interval.
    pub(crate) fn new(source: u64, per_second: f64, phase: f64) -> Self {
        Self { place: place(source), per_second, due: phase, sent: 0, passed: 0 }
    }

    /// What it sends in a tick, through a CPU.
    pub(crate) fn tick(&mut self, wall: &mut Wall, cpu: usize, meter: &Meter, tick_ns: u64) {
        self.due += self.per_second * tick_ns as f64 / 1e9;
        while self.due >= 1.0 {
            self.due -= 1.0;
            self.sent += 1;
            self.passed += u64::from(wall.packet(cpu, self.place, meter));
        }
    }
}

/// Random numbers, the same in every run (`SplitMix64`).
pub(crate) struct Random(pub(crate) u64);

impl Random {
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut x = self.0;
        x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        x ^ (x >> 31)
    }

    /// Below `bound`.
    pub(crate) fn below(&mut self, bound: u64) -> u64 {
        ((u128::from(self.next()) * u128::from(bound)) >> 64) as u64
    }
}

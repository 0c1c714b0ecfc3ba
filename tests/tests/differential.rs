//! The loaded filter against `floodwall_common::decide`: the same packets, secrets, limits, lists and time for both,
//! and for every packet the same reason, kind and verdict. A million packets of few sources, so that limits bite.
//!
//! The seed is printed; `FLOODWALL_SEED` repeats a run, `FLOODWALL_PACKETS` makes it longer.

use std::net::IpAddr;
use std::time::Instant;

use anyhow::{Context as _, Result, ensure};
use floodwall::dataplane::{CompiledSignatures, Group, Listed, Service, Signature};
use floodwall::replay::Tables;
use floodwall_common::abi::{Counter, CounterBank};
use floodwall_common::class::{KIND_SLOTS, Kind};
use floodwall_common::clock::Moment;
use floodwall_common::config::{Config, Mode};
use floodwall_common::limits::{LimitKey, LimitName, Limits, Per, Rate, Unit};
use floodwall_common::lists::List;
use floodwall_common::packet::{Frame, Source};
use floodwall_common::reason::{REASON_SLOTS, Reason, Verdict};
use floodwall_common::services::{PortTable, Transport};
use floodwall_common::signatures::{Action, Range, SIGNATURES, Shape, TcpOption, lay};
use floodwall_tests::frames::{classes_v4, classes_v6, udp_v4, udp_v6};
use floodwall_tests::kernel::{Kernel, Time, Variant, listed, pin_to_cpu, signature};
use ipnet::IpNet;
use support::cases;
use support::limiter::Random;

#[path = "../../common/tests/support/mod.rs"]
mod support;

const MS: u64 = 1_000_000;
const SECOND: u64 = 1_000 * MS;
const PACKETS: u64 = 1_000_000;
/// Packets under one configuration.
const ROUND: u64 = 5_000;

/// A prefix on a list, as 128 bits with IPv4 in the upper 32.
#[derive(Clone, Copy)]
struct Entry {
    list: List,
    is_v4: bool,
    bits: u128,
    length: u8,
    until_ns: u64,
}

/// What the maps hold, on the host: the tables that replay has, and lists.
struct State {
    entries: Vec<Entry>,
    tables: Tables,
}

impl State {
    fn judge(&mut self, config: &Config, frame: &[u8]) -> (Reason, Kind) {
        let (entries, now_ns) = (&self.entries, self.tables.now.ns());
        let is_listed = |list, source| is_listed(entries, now_ns, list, source);
        // Cookies take a listener: tests/cookies.rs.
        self.tables.judge(config, Frame::new(frame), is_listed, false)
    }
}

fn is_listed(entries: &[Entry], now_ns: u64, list: List, source: Source) -> bool {
    let (is_v4, bits) = match source {
        Source::V4(address) => (true, u128::from(address) << 96),
        Source::V6(upper, lower) => (false, u128::from(upper) << 64 | u128::from(lower)),
    };
    let covers =
        |entry: &&Entry| entry.length == 0 || (entry.bits ^ bits).checked_shr(128 - u32::from(entry.length)) == Some(0);
    let of_list = entries.iter().filter(|entry| entry.list == list && entry.is_v4 == is_v4);
    of_list.filter(covers).any(|entry| entry.until_ns > now_ns)
}

/// Makes packets, configurations and time.
struct Chance {
    random: Random,
    table: Vec<Vec<u8>>,
}

impl Chance {
    fn new(seed: u64) -> Self {
        let table = cases::all().into_iter().map(|case| case.frame).filter(|frame| (14..1_600).contains(&frame.len()));
        Self { random: Random(seed), table: table.collect() }
    }

    fn below(&mut self, bound: u64) -> u64 {
        self.random.below(bound)
    }

    fn of<T: Copy>(&mut self, values: &[T]) -> T {
        values[self.below(values.len() as u64) as usize]
    }

    /// One of eight neighbours in a /29, in one of four networks; one of them sends as much as the others together.
    fn v4(&mut self) -> [u8; 4] {
        let network = self.of(&[[10, 0, 0], [198, 51, 100], [203, 0, 113], [127, 0, 0]]);
        let host = if self.below(2) == 0 { 1 } else { self.below(8) as u8 };
        [network[0], network[1], network[2], host]
    }

    fn v6(&mut self) -> [u16; 8] {
        let network = self.of(&[0x2001, 0x2a00, 0xfe80]);
        [network, 0xdb8, self.below(2) as u16, self.below(4) as u16, 0, 0, 0, self.below(3) as u16]
    }

    fn frame(&mut self) -> Vec<u8> {
        match self.below(16) {
            0..=8 => {
                let valid = self.valid();
                self.with_ports(valid)
            }
            9 | 10 => self.of_table(),
            11..=13 => self.mutated(),
            14 => self.behind_an_ether_type(),
            _ => (0..14 + self.below(120)).map(|_| self.random.next() as u8).collect(),
        }
    }

    fn valid(&mut self) -> Vec<u8> {
        let class = self.below(12) as usize;
        let (v4, v6, data) = (self.v4().into(), self.v6().into(), self.below(1_400) as usize);
        match class {
            0..=4 => classes_v4(v4)[class].clone(),
            5 => udp_v4(v4, data),
            6..=10 => classes_v6(v6)[class - 6].clone(),
            _ => udp_v6(v6, data),
        }
    }

    fn of_table(&mut self) -> Vec<u8> {
        let place = self.below(self.table.len() as u64) as usize;
        self.table[place].clone()
    }

    fn mutated(&mut self) -> Vec<u8> {
        let mut frame = if self.below(2) == 0 { self.valid() } else { self.of_table() };
        for _ in 0..=self.below(4) {
            let at = self.below(frame.len().min(90) as u64) as usize;
            let byte = self.random.next() as u8;
            frame[at] = self.of(&[byte, frame[at] ^ 1 << (byte & 7), 0, 0xff]);
        }
        match self.below(4) {
            0 => frame.truncate(14 + self.below(frame.len() as u64 - 13) as usize),
            1 => frame.extend([0xa5; 7]),
            _ => {}
        }
        frame
    }

    /// A frame that this host sends: what comes in, with the ends exchanged.
    fn sent(&mut self) -> Vec<u8> {
        let mut frame = self.frame();
        let (ip, length, ports) = match frame.get(12..15) {
            Some([8, 0, _]) => (26, 4, 34),
            Some([0x86, 0xdd, _]) => (22, 16, 54),
            _ => return frame,
        };
        if frame.len() >= ports + 4 {
            let (first, second) = frame[ip..ip + 2 * length].split_at_mut(length);
            first.swap_with_slice(second);
            let (first, second) = frame[ports..ports + 4].split_at_mut(2);
            first.swap_with_slice(second);
        }
        frame
    }

    /// From one of few ports to one of few, half of the time.
    fn with_ports(&mut self, mut frame: Vec<u8>) -> Vec<u8> {
        let at = if frame[12] == 8 { 34 } else { 54 };
        if self.below(2) == 0 && frame.len() >= at + 4 {
            let (source, destination) = (self.of(&[53_u16, 123, 443]), self.of(&[443_u16, 40_000, 53]));
            frame[at..at + 2].copy_from_slice(&source.to_be_bytes());
            frame[at + 2..at + 4].copy_from_slice(&destination.to_be_bytes());
        }
        frame
    }

    fn behind_an_ether_type(&mut self) -> Vec<u8> {
        let mut frame: Vec<u8> = (0..15 + self.below(140)).map(|_| self.random.next() as u8).collect();
        let (ether_type, first) = self.of(&[([8, 0], 0x45), ([8, 0], 0x46), ([0x86, 0xdd], 0x60), ([0x81, 0], 0)]);
        frame[12..14].copy_from_slice(&ether_type);
        frame[14] = first;
        frame
    }

    /// How much later the next packet comes: seldom after a wrap of the gate or of the table, seldom before the last.
    fn step(&mut self, now: u64) -> u64 {
        let tick = MS * (1 + self.below(10));
        match self.below(20_000) {
            0 => now + SECOND * self.below(40_000),
            1 | 2 => now + SECOND * self.below(300),
            3..=5 => now.saturating_sub(self.below(20) * MS),
            6..=100 => now + self.below(3) * SECOND,
            101..=2_000 => now + tick,
            _ => now,
        }
    }

    fn rate(&mut self, unit: Unit, per_second: [u64; 4]) -> Rate {
        match self.below(48) {
            0 => Rate::Block,
            1..=20 => Rate::Off,
            _ => {
                // Often a small burst: only what is over it takes the rest of the path.
                let per_second = self.of(&per_second);
                let room = self.of(&[2, 2, per_second * 2]);
                Rate::Limit { per_second, burst: unit.min_burst() + self.below(room) }
            }
        }
    }

    fn limits(&mut self) -> Vec<(LimitKey, Limits)> {
        let mut one = |key: LimitKey| {
            // Wide limits are seldom set.
            if key.per != Per::Source && self.below(3) > 0 {
                return (key, Limits { packets: Rate::Off, bytes: Rate::Off });
            }
            let packets = self.rate(Unit::Packets, [1, 10, 100, 20_000]);
            (key, Limits { packets, bytes: self.rate(Unit::Bytes, [1_000, 1_000, 20_000, 1_250_000_000]) })
        };
        LimitKey::all().map(&mut one).collect()
    }

    /// Services behind some of the ports that frames have, most of them capped. Their names are their numbers.
    fn services(&mut self) -> Vec<Service> {
        let mut ports =
            vec![(Transport::Tcp, 443), (Transport::Udp, 443), (Transport::Udp, 53), (Transport::Tcp, 40_000)];
        ports.retain(|_| self.below(2) == 0);
        let capped = |(at, port)| {
            let cap = self.rate(Unit::Packets, [10, 10, 100, 20_000]);
            let cap = if cap == Rate::Block { Rate::Off } else { cap };
            let connections = self.rate(Unit::Packets, [10, 10, 100, 20_000]);
            let connections = if connections == Rate::Block { Rate::Off } else { connections };
            Service { cap, connections, ..Service::uncapped(&format!("{}", at + 1), vec![port]) }
        };
        ports.into_iter().enumerate().map(capped).collect()
    }

    fn range(&mut self, values: &[u16]) -> Range {
        let ends = [self.of(values), self.of(values)];
        Range { first: ends[0].min(ends[1]), last: ends[0].max(ends[1]) }
    }

    /// What frames may suit: few fields of each, else none ever does.
    fn shape(&mut self) -> Shape {
        let mut shape = Shape::ANY;
        for _ in 0..=self.below(3) {
            match self.below(8) {
                0 => shape.protocol = self.of(&[6, 17, 1, 58, 132]),
                1 => shape.source_ports = self.range(&[53, 123, 443, 40_000]),
                2 => shape.destination_ports = self.range(&[53, 80, 443, 40_000]),
                3 => shape.lengths = self.range(&[0, 40, 48, 100, 700, 1_500]),
                4 => shape.hops = self.range(&[0, 1, 64, 255]),
                5 => {
                    shape.flags_mask = self.of(&[0x02, 0x12, 0x10, 0xff]);
                    shape.flags = self.of(&[0x02, 0x10, 0x12]) & shape.flags_mask;
                }
                6 => {
                    let options = (0..self.below(3)).map(|_| self.of(TcpOption::ALL)).fold(0, lay);
                    (shape.asks_layout, shape.layout) = (1, options);
                }
                // The bytes that frames of the table are filled with, in five ways.
                _ => {
                    (shape.payload_mask, shape.payload_offset) = self.of(&[
                        (0xff << 56, 0),
                        (0xff << 56, 7),
                        (u64::MAX, 0),
                        (0xf0ff << 48, 64),
                        (0xff << 56, 64),
                    ]);
                    shape.payload = 0x5a5a_5a5a_5a5a_5a5a & shape.payload_mask;
                    if self.below(4) == 0 {
                        shape.payload = self.random.next() & shape.payload_mask;
                    }
                }
            }
        }
        shape.families = self.of(&[1, 2, 3, 3, 3]);
        shape.fragments = self.of(&[1, 2, 4, 7, 7, 7, 7]);
        shape
    }

    /// Mostly none or few, sometimes all that there may be. Those that would take nearly everything are left out.
    fn signatures(&mut self, now_ns: u64) -> Vec<Signature> {
        let count = self.of(&[0, 0, 0, 2, 8, 64, 65, 256]);
        let count = if count == 256 && self.below(3) > 0 { 4 } else { count };
        let mut signatures = Vec::new();
        while signatures.len() < count {
            let shape = self.shape();
            if !shape.is_protocol_only() {
                let ends = self.of(&[u64::MAX, u64::MAX, now_ns, now_ns + 2 * SECOND, now_ns + 600 * SECOND]);
                let until = (ends != u64::MAX).then(|| Moment::from_ns(ends));
                let action = self.of(&[Action::Drop, Action::Count, Action::Count, Action::Count]);
                signatures.push(signature(&format!("s{}", signatures.len()), shape, action, until));
            }
        }
        signatures
    }

    /// Prefixes around the sources, of many lengths; `now_ns` is the test's time.
    fn entries(&mut self, now_ns: u64) -> Vec<Entry> {
        (0..self.below(24))
            .map(|_| {
                let list = self.of(&[List::Allow, List::Deny]);
                let is_v4 = self.below(2) == 0;
                let (bits, lengths) = if is_v4 {
                    (u128::from(u32::from_be_bytes(self.v4())) << 96, [7, 15, 16, 24, 30, 31, 32, 32])
                } else {
                    (std::net::Ipv6Addr::from(self.v6()).to_bits(), [3, 24, 32, 47, 48, 64, 127, 128])
                };
                let length = self.of(&lengths);
                let until_ns = self.of(&[u64::MAX, now_ns + 2 * SECOND, now_ns + 600 * SECOND]);
                Entry { list, is_v4, bits: bits >> (128 - length) << (128 - length), length: length as u8, until_ns }
            })
            .collect()
    }

    /// Groups around the sources, some in others, each with limits of its own for some classes.
    fn groups(&mut self) -> Vec<Group> {
        let mut prefixes = std::collections::BTreeSet::new();
        let count = self.of(&[0, 0, 1, 2, 5, 15]);
        (0..count)
            .map(|number| {
                let of = self.below(4);
                let mut drawn = |chance: &mut Self| {
                    let (address, lengths): (IpAddr, _) = match chance.below(2) {
                        0 => (IpAddr::from(chance.v4()), [8, 24, 29, 30, 31, 32, 32, 32]),
                        _ => (IpAddr::from(chance.v6()), [16, 32, 47, 48, 63, 64, 127, 128]),
                    };
                    IpNet::new(address, chance.of(&lengths))
                        .ok()
                        .map(|prefix| prefix.trunc())
                        .filter(|prefix| prefixes.insert(*prefix))
                };
                let prefixes = (0..of).filter_map(|_| drawn(self)).collect();
                let limits = self.limits().into_iter();
                let limits = limits.filter(|(key, _)| key.per == Per::Source && key.name != LimitName::Allowed);
                let own: Vec<_> =
                    limits.map(|(key, limits)| (key.name, limits)).filter(|_| self.below(2) == 0).collect();
                Group { name: format!("g{number}"), prefixes, limits: own }
            })
            .collect()
    }
}

fn to_listed(entry: &Entry) -> Result<Listed> {
    let address: IpAddr = match entry.is_v4 {
        true => std::net::Ipv4Addr::from_bits((entry.bits >> 96) as u32).into(),
        false => std::net::Ipv6Addr::from_bits(entry.bits).into(),
    };
    let until = (entry.until_ns != u64::MAX).then(|| Moment::from_ns(entry.until_ns));
    listed(&format!("{address}/{}", entry.length), until)
}

/// Sets limits, lists, policies and mode anew, on both sides.
fn reconfigure(chance: &mut Chance, kernel: &mut Kernel, state: &mut State) -> Result<()> {
    if chance.below(4) > 0 {
        let limits = chance.limits();
        kernel.dataplane.set_limits(&limits, None)?;
    }
    state.entries = chance.entries(state.tables.now.ns());
    // A list is a set of prefixes: of two that are the same, the last one holds.
    let same = |a: &Entry, b: &Entry| (a.list, a.is_v4, a.bits, a.length) == (b.list, b.is_v4, b.bits, b.length);
    let entries = std::mem::take(&mut state.entries);
    for (place, entry) in entries.iter().enumerate() {
        if !entries[place + 1..].iter().any(|later| same(entry, later)) {
            state.entries.push(*entry);
        }
    }
    for list in &[List::Allow, List::Deny] {
        let of_list: Result<Vec<_>> = state.entries.iter().filter(|entry| entry.list == *list).map(to_listed).collect();
        kernel.replace_list(*list, &of_list?)?;
    }
    let groups = chance.groups();
    kernel.replace_groups(&groups)?;
    let members =
        (1..).zip(&groups).flat_map(|(number, group)| group.prefixes.iter().map(move |prefix| (*prefix, number)));
    state.tables.groups = members.collect();
    kernel.replace_signatures(&chance.signatures(state.tables.now.ns()))?;
    let bank = kernel.dataplane.config()?.signatures.bank();
    state.tables.signatures = CompiledSignatures::of(&kernel.dataplane.signatures()?, bank)?;
    state.tables.hits = vec![Counter::default(); SIGNATURES];
    let services = chance.services();
    kernel.dataplane.set_services(&services, None)?;
    *state.tables.services = PortTable::empty();
    for service in &services {
        let number = service.name.parse()?;
        service.ports.iter().for_each(|(transport, port)| state.tables.services.set(*transport, *port, number));
    }
    // Any reason, and those that are looked for only where they drop. What no service expects is nearly all of it.
    let seldom = [Verdict::Pass, Verdict::Pass, Verdict::Pass, Verdict::Drop];
    kernel.dataplane.set_policy(Reason::NoService, chance.of(&seldom))?;
    for reason in [chance.of(Reason::ALL), Reason::UnsolicitedReply, Reason::FirstSyn, Reason::OutOfState] {
        kernel.dataplane.set_policy(reason, chance.of(Verdict::ALL))?;
    }
    match chance.of(&[Some(Mode::Enforce), Some(Mode::Enforce), Some(Mode::Monitor), None]) {
        Some(mode) => kernel.dataplane.set_mode(mode)?,
        // On trial, which ends soon.
        None => kernel.dataplane.try_enforcing(Moment::from_ns(state.tables.now.ns() + 1_000_000_000))?,
    }
    Ok(())
}

/// What the model has counted, by verdict.
struct Expected(Box<[CounterBank; 2]>);

impl Expected {
    fn new() -> Self {
        Self(Box::new([[[Default::default(); REASON_SLOTS]; KIND_SLOTS]; 2]))
    }

    /// The counters of the kernel that differ.
    fn differences(&self, kernel: &Kernel) -> Vec<String> {
        let counted = kernel.counted();
        let cells = counted.cells().iter().filter_map(|cell| {
            let expected = self.0[cell.verdict as usize][cell.kind.index() as usize][cell.reason as usize];
            let is_same = (cell.packets, cell.bytes) == (expected.packets, expected.bytes);
            (!is_same).then(|| format!("{cell:?}, but the model has {expected:?}"))
        });
        let mut differences: Vec<_> = cells.collect();
        let total: u64 = self.0.iter().flatten().flatten().map(|counter| counter.packets).sum();
        if counted.packets() != total {
            differences.push(format!("{} packets counted of {total}", counted.packets()));
        }
        differences
    }
}

/// Compares the hits of signatures since they were set, and says how many they were.
fn check_hits(kernel: &Kernel, state: &State) -> Result<u64> {
    let mut hits = 0;
    for signature in kernel.dataplane.signatures()? {
        let expected = signature.number.and_then(|number| state.tables.hits.get(number));
        ensure!(expected == Some(&signature.hits), "{signature:?}, but the model has {expected:?}");
        hits += signature.hits.packets;
    }
    Ok(hits)
}

fn number(variable: &str, default: u64) -> Result<u64> {
    std::env::var(variable).map_or(Ok(default), |text| text.parse().with_context(|| variable.to_owned()))
}

#[test]
fn the_loaded_filter_decides_as_the_model_does() -> Result<()> {
    let nanoseconds = std::time::UNIX_EPOCH.elapsed()?.as_nanos() as u64;
    let (seed, packets) = (number("FLOODWALL_SEED", nanoseconds)?, number("FLOODWALL_PACKETS", PACKETS)?);
    println!("FLOODWALL_SEED={seed}");
    // The model has one gate, that of one CPU.
    pin_to_cpu(0)?;
    let begun = Instant::now();
    let mut chance = Chance::new(seed);
    let mut kernel = Kernel::load(Time::Test)?;
    let mut now_ns = kernel.dataplane.clock()?.now().ns() + 3_600 * SECOND;
    let mut state = State { entries: vec![], tables: Tables::new()? };
    state.tables.amplifiers = kernel.dataplane.amplifiers()?;
    state.tables.now = Moment::from_ns(now_ns);
    let mut hits = 0;
    kernel.set_time(now_ns)?;
    let mut expected = Expected::new();
    let mut reasons = [0u64; REASON_SLOTS];
    let mut config = kernel.dataplane.config()?;
    for packet in 0..packets {
        if packet % ROUND == 0 {
            hits += check_hits(&kernel, &state)?;
            reconfigure(&mut chance, &mut kernel, &mut state)?;
            config = kernel.dataplane.config()?;
        }
        let next = chance.step(now_ns);
        if next != now_ns {
            now_ns = next;
            state.tables.now = Moment::from_ns(now_ns);
            kernel.set_time(now_ns)?;
        }
        if packet % 4 == 0 {
            let frame = chance.sent();
            // A test run of this kind takes no packet without a whole IP header.
            if frame.len() >= 54 {
                kernel.send(&frame)?;
                state.tables.sent(&config, Frame::new(&frame));
            }
        }
        let frame = chance.frame();
        let (reason, kind) = state.judge(&config, &frame);
        let verdict = if config.drops_at(|| state.tables.now) { reason.verdict(config.drops) } else { Verdict::Pass };
        let counter = &mut expected.0[verdict as usize][kind.index() as usize][reason as usize];
        counter.packets += 1;
        counter.bytes += frame.len() as u64;
        reasons[reason as usize] += 1;
        let found = kernel.judge(if packet % 8 == 0 { Variant::Frags } else { Variant::Linear }, &frame)?;
        let differences = expected.differences(&kernel);
        ensure!(
            found == verdict && differences.is_empty(),
            "packet {packet} of seed {seed}: {found:?}, but the model says {verdict:?} for {reason:?} {kind:?}\n\
             {differences:#?}\n{frame:02x?}"
        );
    }
    hits += check_hits(&kernel, &state)?;
    println!("{packets} packets in {:?}, {hits} hits of signatures, 0 mismatches", begun.elapsed());
    assert!(hits > 0 || packets < PACKETS, "no signature ever suited");
    for reason in Reason::ALL {
        println!("{:>20} {}", reason.label(), reasons[*reason as usize]);
        // Cookies take a listener: tests/cookies.rs.
        let is_known = matches!(reason, Reason::SynCookie | Reason::SynAckLimit);
        assert!(reasons[*reason as usize] > 0 || is_known || packets < PACKETS, "{reason:?} never came up");
    }
    Ok(())
}

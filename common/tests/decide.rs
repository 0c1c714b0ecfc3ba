//! The order of the decision, on a model of the maps: lists before everything, what is wrong with a packet before its
//! limits, packets before bytes; and limits that are off or block.

#![allow(clippy::unwrap_used, reason = "tests panic")]

use floodwall_common::class::KIND_SLOTS;
use floodwall_common::config::{Config, LIMIT_SLOTS, Mode, Sampling};
use floodwall_common::decide::{World, decide};
use floodwall_common::hash::HashKey;
use floodwall_common::limits::{Limits, Per, Rate, RateSpec};
use floodwall_common::lists::{List, ListState};
use floodwall_common::meter::{Amount, Machine, Meter, Meters};
use floodwall_common::packet::{Frame, Source};
use floodwall_common::reason::{DropSet, Reason};
use floodwall_common::replies::{Conversation, PortSet};

use support::frames::{SYN, TCP, UDP, V4, V6, tcp, udp};
use support::limiter::{MS, NOON, Wall, place};

mod support;

const MACHINE: Machine = Machine { cpus: 1, tick_ns: MS };

fn meters(packets: Rate, bytes: Rate) -> Meters {
    Meters::new(Limits { packets, bytes }, MACHINE, [1, 2]).unwrap()
}

fn limit(per_second: u64, burst: u64) -> Rate {
    Rate::Limit { per_second, burst }
}

/// All classes under the same limits; allowed sources under ten packets at once.
fn config(packets: Rate, bytes: Rate) -> Config {
    let family = floodwall_common::class::Family::V4;
    Config {
        mode: Mode::Enforce as u32,
        lists: ListState::empty(0).with(List::Allow, family),
        drops: DropSet::standard(),
        sampling: Sampling::new([0, 0], 0),
        key: HashKey::new([1, 1]),
        meters: [meters(packets, bytes); KIND_SLOTS],
        wider: [[meters(Rate::Off, Rate::Off); KIND_SLOTS]; Per::WIDER.len()],
        allowed: meters(limit(10, 10), Rate::Off),
        specs: [[[RateSpec::from(Rate::Off); 2]; LIMIT_SLOTS]; Per::ALL.len()],
        generation: 0,
        mode_since_unix_s: 0,
    }
}

/// The maps, with one source on each list.
struct Model<'w> {
    config: &'w Config,
    wall: Wall,
    asked: u32,
    sent: Vec<Conversation>,
    amplifiers: PortSet,
}

const ALLOWED: [u8; 4] = [198, 51, 100, 1];
const DENIED: [u8; 4] = [198, 51, 100, 2];
const BOTH: [u8; 4] = [198, 51, 100, 3];

impl<'w> World<'w> for Model<'w> {
    fn config(&self) -> &'w Config {
        self.config
    }

    fn is_listed(&mut self, list: List, source: Source, _: ListState) -> bool {
        let is = |address: [u8; 4]| source == Source::V4(u32::from_be_bytes(address));
        match list {
            List::Allow => is(ALLOWED) || is(BOTH),
            List::Deny => is(DENIED) || is(BOTH),
        }
    }

    fn is_unsolicited(&mut self, frame: Frame<'_>) -> bool {
        Conversation::of_reply(frame, &self.amplifiers).is_some_and(|conversation| !self.sent.contains(&conversation))
    }

    fn admit(&mut self, key: u64, amount: Amount, meter: &Meter) -> bool {
        let cost = amount.on(meter);
        self.asked += 1;
        self.wall.cost(0, place(key ^ meter.secret() << 40), cost, meter)
    }
}

impl Model<'_> {
    fn reason(&mut self, frame: &[u8]) -> Reason {
        decide(Frame::new(frame), self).0
    }

    /// The first reason that is not the first one, among a thousand of this frame.
    fn then(&mut self, frame: &[u8]) -> Option<Reason> {
        let first = self.reason(frame);
        (0..1_000).map(|_| self.reason(frame)).find(|reason| *reason != first)
    }
}

fn model(config: &Config) -> Model<'_> {
    let mut amplifiers = PortSet::empty();
    amplifiers.set(53, true);
    Model { config, wall: Wall::new(1, NOON), asked: 0, sent: Vec::new(), amplifiers }
}

#[test]
fn lists_come_before_everything_else() {
    let config = config(limit(100, 50), Rate::Off);
    let mut model = model(&config);
    assert_eq!(model.reason(&V4::from(ALLOWED).frame(TCP, &tcp(0))), Reason::Allowed, "whatever its flags");
    assert_eq!(model.reason(&V4::from(BOTH).frame(UDP, &udp(0))), Reason::Allowed, "allow wins");
    assert_eq!(model.reason(&V4::from(DENIED).frame(TCP, &tcp(0))), Reason::Denied);
    assert_eq!(model.then(&V4::from(ALLOWED).frame(UDP, &udp(0))), Some(Reason::AllowedLimit));
}

#[test]
fn what_is_malformed_drops_before_it_is_charged() {
    let config = config(limit(100, 50), Rate::Off);
    let mut model = model(&config);
    assert_eq!(model.then(&V4::default().frame(TCP, &tcp(0))), None);
    assert_eq!(model.asked, 0, "a packet that drops anyway owes nothing");
    assert_eq!(model.reason(&V4::from([127, 0, 0, 1]).frame(UDP, &udp(0))), Reason::Martian);
    assert_eq!(model.asked, 1, "one that passes does");
    assert_eq!(model.then(&V4::from([127, 0, 0, 1]).frame(UDP, &udp(0))), Some(Reason::PacketLimit));
}

#[test]
fn packets_are_asked_before_bytes() {
    let by_packets = config(limit(100, 50), limit(1_000_000, 1_000_000));
    assert_eq!(model(&by_packets).then(&V6::default().frame(TCP, &tcp(SYN))), Some(Reason::PacketLimit));
    let by_bytes = config(limit(10_000, 10_000), limit(1_000, 20_000));
    assert_eq!(model(&by_bytes).then(&V6::default().frame(TCP, &tcp(SYN))), Some(Reason::ByteLimit));
    let bytes_only = config(Rate::Off, limit(1_000, 20_000));
    assert_eq!(model(&bytes_only).then(&V4::default().frame(UDP, &udp(1_000))), Some(Reason::ByteLimit));
}

#[test]
fn off_asks_nobody_and_block_passes_nothing() {
    let off = config(Rate::Off, Rate::Off);
    let mut model_off = model(&off);
    assert_eq!(model_off.then(&V4::default().frame(UDP, &udp(0))), None);
    assert_eq!(model_off.asked, 0);
    let blocks = [
        (Rate::Block, Rate::Off),
        (Rate::Off, Rate::Block),
        (limit(10, 10), Rate::Block),
        (Rate::Block, limit(1_000, 10_000)),
    ];
    for (packets, bytes) in blocks {
        let config = config(packets, bytes);
        let mut model = model(&config);
        assert_eq!(model.reason(&V4::default().frame(UDP, &udp(0))), Reason::ClassBlocked);
        assert_eq!(model.then(&V4::default().frame(UDP, &udp(0))), None);
        assert_eq!(model.asked, 0, "no state for what is blocked");
        assert_eq!(model.reason(&V4::from(ALLOWED).frame(UDP, &udp(0))), Reason::Allowed);
    }
}

#[test]
fn a_source_is_an_ipv6_64_and_a_limit_is_of_its_source() {
    let config = config(limit(100, 50), Rate::Off);
    let mut model = model(&config);
    assert_eq!(model.then(&V6::from(7 << 40, 1).frame(UDP, &udp(0))), Some(Reason::PacketLimit));
    assert_eq!(model.reason(&V6::from(7 << 40, 99).frame(UDP, &udp(0))), Reason::PacketLimit, "same /64");
    assert_eq!(model.reason(&V6::from(8 << 40, 1).frame(UDP, &udp(0))), Reason::Passed);
}

/// All classes under limits at every level, each level with a secret of its own.
fn ladder(source: Rate, subnet: Rate, network: Rate) -> Config {
    let mut config = config(source, Rate::Off);
    for (level, rate) in [subnet, network].into_iter().enumerate() {
        let secrets = [10 + level as u64, 20 + level as u64];
        let limits = Limits { packets: rate, bytes: Rate::Off };
        config.wider[level] = [Meters::new(limits, MACHINE, secrets).unwrap(); KIND_SLOTS];
        for meters in &mut config.meters {
            meters.set_ask_wider(Per::WIDER[level], rate != Rate::Off);
        }
    }
    config
}

#[test]
fn who_changes_his_address_is_stopped_at_the_narrowest_prefix_that_holds_him() {
    let config = ladder(limit(100, 50), limit(200, 100), limit(400, 200));
    // An IPv6 /64 for each packet, all in one /56; then all in one /48. And the same in IPv4, by /24 and /16.
    let in_56 = |n: u64| V6::from(0x2001_0db8_0000_0000 | (n & 0xff), n).frame(UDP, &udp(0));
    let in_48 = |n: u64| V6::from(0x2001_0db8_0001_0000 | (n % 0xffff), n).frame(UDP, &udp(0));
    let in_24 = |n: u64| V4::from([198, 18, 0, n as u8]).frame(UDP, &udp(0));
    let in_16 = |n: u64| V4::from([198, 19, (n >> 8) as u8, n as u8]).frame(UDP, &udp(0));
    let spread = |frame: &dyn Fn(u64) -> Vec<u8>, step: u64| {
        let mut model = model(&config);
        let reasons: Vec<_> = (0..2_000).map(|n| model.reason(&frame(n * step))).collect();
        let passed = reasons.iter().filter(|reason| **reason == Reason::Passed).count();
        (passed, *reasons.last().unwrap())
    };
    // A burst and what the gate has let pass before it asked: a quarter more at most.
    for (frame, step, burst, reason) in [
        (&in_56 as &dyn Fn(u64) -> Vec<u8>, 1, 100, Reason::SubnetLimit),
        (&in_48, 257, 200, Reason::NetworkLimit),
        (&in_24, 1, 100, Reason::SubnetLimit),
        (&in_16, 257, 200, Reason::NetworkLimit),
    ] {
        let (passed, last) = spread(frame, step);
        assert_eq!(last, reason);
        assert!((burst..burst * 5 / 4 + 2).contains(&passed), "{passed} passed of a burst of {burst} ({reason:?})");
    }
}

#[test]
fn neighbours_far_enough_apart_lose_nothing_to_each_other() {
    let config = ladder(limit(100, 50), limit(200, 100), limit(400, 200));
    let mut model = model(&config);
    // 200 /64 of one /40, each in a /48 of its own, with an attacker among them.
    let neighbour = |n: u64| V6::from(0x2001_0db8_0000_0000 | (n << 16), 1).frame(UDP, &udp(0));
    for n in 0..5_000 {
        let _ = model.reason(&V6::from(0x2001_0db8_00ff_0000 | n, n).frame(UDP, &udp(0)));
    }
    for round in 0..10 {
        for n in 0..200 {
            assert_eq!(model.reason(&neighbour(n)), Reason::Passed, "neighbour {n}, round {round}");
        }
    }
}

#[test]
fn the_narrowest_limit_names_the_reason() {
    let config = ladder(limit(100, 50), limit(100, 50), limit(100, 50));
    assert_eq!(model(&config).then(&V4::default().frame(UDP, &udp(0))), Some(Reason::PacketLimit));
}

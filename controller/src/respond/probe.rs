//! A probe: for two seconds nothing of what is suspected is let through from one slice of source ports. Who waits for answers sends
//! next to nothing then; a flood sends on ([ADR 0030](../../../docs/adr/0030-back-off-probe.md)).

use std::fmt;

use floodwall_common::signatures::{Range, Shape};

use super::good::{ENOUGH, Good, Measured};
use super::signature::UDP;
use crate::detect::{Assessment, Features, Group, MOVED, Observed, Suspect, UNMOVED, Window, unmoved};

/// How long nothing of the slice is let through.
pub const PROBED_NS: u64 = 2_000_000_000;
/// The share of certainty from which on it is worth asking.
const SUSPECTED: f64 = 0.35;
/// How many times the usual it has to be.
const GROWN: f64 = 3.0;
/// Packets a second of the slice from which on a ratio says something.
const COUNTED: f64 = 200.0;
/// The share of good packets that it may hold up.
const COLLATERAL: f64 = 0.05;
/// Where every system of today takes its own ports from, in blocks. A slice is the begin of a block, as narrow as may be.
pub(super) const FIRST_PORT: u16 = 49_152;
pub(super) const BLOCK: u16 = 1_024;
pub(super) const BLOCKS: u16 = 11;
const WIDTHS: [u16; 5] = [64, 128, 256, 512, BLOCK];

/// What is asked.
#[derive(Clone, Debug, PartialEq)]
pub struct Probe {
    /// What is suspected.
    pub suspect: Suspect,
    /// Which packets are not let through.
    pub shape: Shape,
    /// How many of them a second there are, by the sample.
    pub per_second: f64,
    /// The share of good traffic that it holds up.
    pub collateral: f64,
    /// What this was measured on.
    pub measured_on: Measured,
}

/// Whether to ask, and whom: where the host is hard pressed, and one kind of flood is likely but not sure. Each turn it is another block
/// of ports.
pub fn probe(assessment: &Assessment, features: &Features, window: &Window, turn: u16) -> Option<Probe> {
    let suspect = assessment.suspect.filter(|suspect| suspect.confidence >= SUSPECTED)?;
    if !features.is_pressed || !assessment.current.is_empty() || suspect.growth.is_none_or(|growth| growth < GROWN) {
        return None;
    }
    let group = suspect.vector.group();
    // Other kinds are told by who comes again after a second, have no ports, or nobody waits for them.
    let protocol = match group {
        Group::Tcp => super::signature::TCP,
        Group::Udp => UDP,
        _ => return None,
    };
    let (port, _) = features.of(group).destination_port?;
    let first = FIRST_PORT + turn % BLOCKS * BLOCK;
    let shape = |width: u16| Shape {
        protocol,
        source_ports: Range { first, last: first + (width - 1) },
        destination_ports: Range { first: port, last: port },
        ..Shape::ANY
    };
    let is_in = |packet: &Observed, shape: &Shape| {
        u16::from(packet.protocol) == protocol
            && packet.ports.is_some_and(|(from, to)| shape.source_ports.has(from) && shape.destination_ports.has(to))
    };
    // What a sample stands for, so that there are as many as were counted.
    let times = features.of(group).per_second / features.of(group).packets.max(1.0);
    let per_second = |shape: &Shape| {
        let suspected = window.packets().filter(|(of, packet)| *of == group && is_in(packet, shape));
        times * suspected.map(|(_, packet)| f64::from(packet.weight)).sum::<f64>()
    };
    let shape = WIDTHS.into_iter().map(shape).find(|shape| per_second(shape) >= COUNTED)?;
    let good = Good::of(window);
    let collateral = good.share(|packet| is_in(packet, &shape));
    let found = Probe { suspect, shape, per_second: per_second(&shape), collateral, measured_on: good.measured() };
    (good.len() >= ENOUGH && found.collateral <= COLLATERAL).then_some(found)
}

/// What came on while nothing was let through, in words: `ratio` is by how many packets a second there were before.
pub fn concluded(before: f64, ratio: f64) -> String {
    let meaning = match unmoved(ratio) {
        unmoved if unmoved <= MOVED => "whoever sends this waits for answers, as clients do",
        unmoved if unmoved >= UNMOVED => "nobody waits for an answer: a flood, or calls",
        _ => "that says nothing",
    };
    format!("probe: of {before:.0} packets/s {:.0} % came on while none was let through: {meaning}", ratio * 100.0)
}

impl fmt::Display for Probe {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { suspect, shape, per_second, collateral, measured_on } = self;
        let (sure, collateral, seconds) = (suspect.confidence * 100.0, collateral * 100.0, PROBED_NS / 1_000_000_000);
        write!(f, "probe: {} is {sure:.0} % sure: drop signature ", suspect.vector.label())?;
        write!(f, "{} for {seconds} s: some {per_second:.0} packets/s, ", crate::signatures::fields_of(shape))?;
        write!(f, "{collateral:.2} % of {measured_on}")
    }
}

#[cfg(test)]
mod tests {
    use floodwall_common::packet::Source;
    use floodwall_common::signatures::Fragment;

    use super::*;
    use crate::detect::{Aggregate, Vector};

    const SERVICE: u16 = 9_000;

    fn packet(source_port: u16, is_known: bool) -> Observed {
        Observed {
            at_ns: 1,
            weight: 1,
            source: Source::V4(1),
            destination: Source::V4(2),
            protocol: 17,
            fragment: Fragment::None,
            ports: Some((source_port, SERVICE)),
            flags: None,
            layout: 0,
            hops: 57,
            length: 100,
            beginning: None,
            is_malformed: false,
            is_known: Some(is_known),
            is_verified: None,
            is_to_service: true,
            is_held: false,
        }
    }

    /// Datagrams from all ports of clients, and good ones of which so many are from the first slice.
    fn window(good_in_slice: usize) -> Window {
        let mut window = Window::default();
        (FIRST_PORT..FIRST_PORT + BLOCKS * BLOCK).for_each(|port| window.take(packet(port, false)));
        (0..good_in_slice).for_each(|_| window.take(packet(FIRST_PORT, true)));
        (good_in_slice..ENOUGH).for_each(|_| window.take(packet(1_024, true)));
        window
    }

    fn suspected() -> Assessment {
        let suspect = Suspect { vector: Vector::UdpFlood, confidence: 0.6, growth: Some(5.0) };
        Assessment { suspect: Some(suspect), ..Assessment::default() }
    }

    fn pressed() -> Features {
        let mut features = Features { is_pressed: true, ..Features::default() };
        let packets = f64::from(BLOCKS * BLOCK) + ENOUGH as f64;
        features.groups[Group::Udp as usize] =
            Aggregate { packets, per_second: packets, destination_port: Some((SERVICE, 1.0)), ..Aggregate::default() };
        features
    }

    #[test]
    fn a_slice_is_as_narrow_as_may_be_and_another_one_each_turn() {
        let (window, features) = (window(0), pressed());
        let found = probe(&suspected(), &features, &window, 0).unwrap();
        assert_eq!(found.shape.source_ports, Range { first: FIRST_PORT, last: FIRST_PORT + 255 });
        assert_eq!((found.shape.destination_ports, found.per_second), (Range { first: SERVICE, last: SERVICE }, 256.0));
        let firsts =
            (0..BLOCKS + 1).map(|turn| probe(&suspected(), &features, &window, turn).unwrap().shape.source_ports);
        let firsts: Vec<_> = firsts.map(|ports| ports.first).collect();
        assert_eq!((firsts[1], firsts[usize::from(BLOCKS)]), (FIRST_PORT + BLOCK, FIRST_PORT));
    }

    #[test]
    fn nobody_is_asked_where_it_would_not_help_or_would_hurt() {
        let nothing = |assessment: &Assessment, features: &Features, window: &Window| {
            assert_eq!(probe(assessment, features, window, 0), None, "{assessment:?}");
        };
        let plenty = window(0);
        nothing(&suspected(), &Features { is_pressed: false, ..pressed() }, &plenty);
        nothing(&suspected(), &pressed(), &window(ENOUGH / 10));
        nothing(&Assessment { current: vec![Vector::IcmpFlood], ..suspected() }, &pressed(), &plenty);
        let but = |change: fn(&mut Suspect)| {
            let mut assessment = suspected();
            change(assessment.suspect.as_mut().unwrap());
            nothing(&assessment, &pressed(), &plenty);
        };
        but(|suspect| suspect.confidence = 0.3);
        but(|suspect| suspect.growth = Some(2.0));
        but(|suspect| suspect.growth = None);
        but(|suspect| suspect.vector = Vector::SynFlood);
    }

    /// As measured: browsers, a storm, questions that are asked again, a flood.
    #[test]
    fn words_say_what_a_ratio_means() {
        for (ratio, words) in [
            (0.09, "waits for answers"),
            (0.65, "that says nothing"),
            (1.75, "waits for answers"),
            (1.0, "nobody waits for an answer"),
        ] {
            assert!(concluded(300.0, ratio).contains(words), "{ratio}: {}", concluded(300.0, ratio));
        }
    }
}

//! A signature found in the packets of a flood: the fewest fields that most of it has in common and good traffic has not.

use floodwall_common::class::Family;
use floodwall_common::packet::Source;
use floodwall_common::signatures::{Layout, Range, Shape};

use super::good::{ENOUGH, Good, Measured};
use crate::detect::{Features, Group, Observed, Window, is_amplifier};

pub(super) const TCP: u16 = 6;
pub(super) const UDP: u16 = 17;
const SYN: u8 = 0x02;
const ACK: u8 = 0x10;

/// The share of the flood that has a field in common.
const COMMON: f64 = 0.9;
/// The share that is as good as all of it.
const ALL: f64 = 0.98;
/// The share of the flood that a signature has to suit.
pub(super) const COVERS: f64 = 0.8;
/// The share of good traffic that it may suit.
pub(super) const COLLATERAL: f64 = 0.001;
/// Packets of a flood that say what it has in common.
pub(super) const FLOOD: usize = 40;
/// Packets of a flood that are looked at, the latest: more of them say the same, at a cost.
const LATEST: usize = 1 << 13;
/// Good packets among which all of a protocol would show.
const MANY: usize = 1_000;
/// Values of one field that are one range.
const NARROW: u16 = 8;

/// A signature, and what it would do.
#[derive(Clone, Debug, PartialEq)]
pub struct Found {
    /// What it suits.
    pub shape: Shape,
    /// The share of the flood that it suits.
    pub covers: f64,
    /// The share of good traffic that it suits.
    pub collateral: f64,
    /// What this was measured on.
    pub measured_on: Measured,
}

#[derive(Clone, Copy, PartialEq)]
enum Field {
    SourcePort(u16),
    DestinationPort(u16),
    Length(u16, u16),
    Hops(u16, u16),
    Flags(u8),
    Layout(Layout),
}

impl Field {
    fn has(self, packet: &Observed) -> bool {
        match self {
            Self::SourcePort(port) => packet.ports.is_some_and(|ports| ports.0 == port),
            Self::DestinationPort(port) => packet.ports.is_some_and(|ports| ports.1 == port),
            Self::Length(first, last) => (first..=last).contains(&packet.length),
            Self::Hops(first, last) => (first..=last).contains(&u16::from(packet.hops)),
            Self::Flags(flags) => packet.flags == Some(flags),
            Self::Layout(layout) => packet.flags.is_some() && packet.layout == layout,
        }
    }

    fn put(self, shape: &mut Shape) {
        let one = |value: u16| Range { first: value, last: value };
        match self {
            Self::SourcePort(port) => shape.source_ports = one(port),
            Self::DestinationPort(port) => shape.destination_ports = one(port),
            Self::Length(first, last) => shape.lengths = Range { first, last },
            Self::Hops(first, last) => shape.hops = Range { first, last },
            Self::Flags(flags) => (shape.flags, shape.flags_mask) = (flags, u8::MAX),
            Self::Layout(layout) => (shape.layout, shape.asks_layout) = (layout, 1),
        }
    }
}

/// Finds one for the packets of a flood. `None` where they have too little in common, or all of it with good traffic.
pub(super) fn find(window: &Window, is_flood: impl Fn(Group, &Observed) -> bool) -> Option<Found> {
    // What is held already needs no other.
    let is_strange = |packet: &Observed| packet.is_known != Some(true) && !packet.is_held;
    let flood = window.packets().filter(|(group, packet)| is_flood(*group, packet) && is_strange(packet));
    let mut flood: Vec<_> = flood.map(|(_, packet)| packet).collect();
    flood.drain(..flood.len().saturating_sub(LATEST));
    if flood.len() < FLOOD {
        return None;
    }
    let protocol = most(flood.iter().map(|packet| u64::from(packet.protocol)))?;
    let fragment = most(flood.iter().map(|packet| packet.fragment as u64))?;
    // Of one family where nearly all of it is, else of both.
    let family = most(flood.iter().map(|packet| packet.source.family() as u64))?;
    let of_family = flood.iter().filter(|packet| packet.source.family() as u64 == family).count();
    let is_of_one = of_family as f64 >= COMMON * flood.len() as f64;
    let families = if is_of_one { 1 << family } else { Shape::ANY.families };
    let mut shape = Shape { protocol: protocol as u16, families, fragments: 1 << fragment, ..Shape::ANY };
    let begins = |packet: &&Observed| {
        u64::from(packet.protocol) == protocol
            && packet.fragment as u64 == fragment
            && families >> packet.source.family() as u8 & 1 == 1
    };
    let mut left: Vec<_> = flood.iter().copied().filter(begins).collect();
    let good = Good::of(window);
    let mut hurt = good.clone();
    hurt.retain(|packet| begins(&packet));
    // First what keeps good traffic out, then whatever nearly all of the flood has: it is as narrow as the flood is.
    for common in [COMMON, ALL] {
        loop {
            let is_harmless = hurt.share_of(&good) <= COLLATERAL && good.len() >= ENOUGH && names_a_field(&shape);
            if common == COMMON && is_harmless {
                break;
            }
            let narrows = |field: &Field| {
                let mut tried = shape;
                field.put(&mut tried);
                tried != shape
            };
            let is_common = |field: &Field| {
                left.iter().filter(|packet| field.has(packet)).count() as f64 >= common * left.len() as f64
            };
            let hurts = |field: &Field| hurt.iter().filter(|packet| field.has(packet)).count();
            let new = fields(&left).into_iter().filter(|field| narrows(field) && is_common(field));
            let Some(field) = new.min_by_key(hurts) else { break };
            field.put(&mut shape);
            left.retain(|packet| field.has(packet));
            hurt.retain(|packet| field.has(packet));
        }
    }
    let (covers, collateral) = (share(left.len(), flood.len()), hurt.share_of(&good));
    // All of a protocol, only where so much good traffic had none of it. Where hardly any good traffic is known, only what goes to
    // nothing that this host serves: who else was there before a daemon that began in the middle of a flood, nobody knows.
    let is_told_apart = names_a_field(&shape) || good.len() >= MANY;
    let serves_none = || shape.protocol != TCP && !left.iter().any(|packet| packet.is_to_service);
    let is_told_apart = is_told_apart && (good.len() >= ENOUGH || serves_none());
    (covers >= COVERS && collateral <= COLLATERAL && is_told_apart).then_some(Found {
        shape,
        covers,
        collateral,
        measured_on: good.measured(),
    })
}

/// What a source is told apart by: of IPv6 its /64.
pub(super) const fn is_of(source: Source) -> (u64, Family) {
    (source.key(), source.family())
}

/// A part of a number of packets; none of none.
pub(super) fn share(part: usize, all: usize) -> f64 {
    part as f64 / all.max(1) as f64
}

/// Whether clients of this host ask from the ports that amplifiers answer from, as NTP servers do among each other: then what comes
/// from there unasked is no answer.
pub(super) fn is_asked_from_amplifiers(window: &Window) -> bool {
    let asks = |packet: &Observed| {
        u16::from(packet.protocol) == UDP
            && packet.is_known != Some(true)
            && packet.ports.is_some_and(|(from, _)| is_amplifier(from))
    };
    Good::before(window).share(asks) > COLLATERAL
        || window.packets().any(|(_, packet)| packet.is_to_service && asks(packet))
}

/// That of SYNs without TCP options, where most SYNs have none and nearly no good packet is one. Of a few good packets that says nothing.
pub(super) fn bare_syns(features: &Features, window: &Window) -> Option<Found> {
    let shape = Shape { protocol: TCP, flags: SYN, flags_mask: SYN | ACK, asks_layout: 1, ..Shape::ANY };
    let (covers, good) = (features.of(Group::Syn).bare, Good::of(window));
    let collateral = good.share(|packet| packet.group() == Group::Syn && packet.layout == 0);
    let is_told_apart = covers > 0.5 && good.len() >= ENOUGH && collateral <= COLLATERAL;
    is_told_apart.then_some(Found { shape, covers, collateral, measured_on: good.measured() })
}

/// Whether it asks more than a protocol, whole or in fragments.
fn names_a_field(shape: &Shape) -> bool {
    !Shape { fragments: Shape::ANY.fragments, ..*shape }.is_protocol_only()
}

/// What most of these packets may have in common.
fn fields(packets: &[&Observed]) -> Vec<Field> {
    let each = |value: fn(&Observed) -> Option<u64>| packets.iter().filter_map(move |packet| value(packet));
    let mut fields = Vec::new();
    fields.extend(most(each(|packet| Some(packet.ports?.0.into()))).map(|port| Field::SourcePort(port as u16)));
    fields.extend(most(each(|packet| Some(packet.ports?.1.into()))).map(|port| Field::DestinationPort(port as u16)));
    fields.extend(most(each(|packet| Some(packet.flags?.into()))).map(|flags| Field::Flags(flags as u8)));
    fields.extend(most(each(|packet| packet.flags.map(|_| packet.layout))).map(Field::Layout));
    fields.extend(narrow(each(|packet| Some(packet.length.into()))).map(|(first, last)| Field::Length(first, last)));
    fields.extend(narrow(each(|packet| Some(packet.hops.into()))).map(|(first, last)| Field::Hops(first, last)));
    fields
}

/// The most frequent value.
fn most(values: impl Iterator<Item = u64>) -> Option<u64> {
    let mut counts = std::collections::BTreeMap::new();
    values.for_each(|value| *counts.entry(value).or_insert(0) += 1);
    counts.into_iter().max_by_key(|(_, count): &(u64, usize)| *count).map(|(value, _)| value)
}

/// The narrow range around the median.
fn narrow(values: impl Iterator<Item = u64>) -> Option<(u16, u16)> {
    let mut values: Vec<_> = values.map(|value| value as u16).collect();
    values.sort_unstable();
    let (first, last) = (values.get(values.len() / 20)?, values.get(values.len() - 1 - values.len() / 20)?);
    (last - first <= NARROW).then_some((*first, *last))
}

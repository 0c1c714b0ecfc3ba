//! A quick answer in front of the table: whether any signature may suit a packet. Only for packets with nothing wrong, in
//! one piece, which are nearly all; where in doubt, it is yes.
//!
//! Signatures that ask for the same fields are a group, a bit of a byte. For each field, the byte of a value holds the
//! groups in which any signature has it; a packet of whose values no group has all suits nothing. Of a group whose
//! signatures compare the payload at one place, a small set of hashed values says whether any has these bytes.

use super::{Fragment, Range, Record, SIGNATURES, Shape};
use crate::class::KIND_SLOTS;
use crate::frame::be;
use crate::packet::fast::Rest;
use crate::packet::protocol;
use crate::verifier::{forget, index};

/// Groups: bits of a byte.
const GROUPS: usize = 8;
/// The longest packet whose length has a byte of its own; the last byte is for all that are longer.
const LENGTHS: usize = 1 << 11;
/// Words of a set of payloads.
const PAYLOAD_WORDS: usize = 1 << 6;
const PAYLOAD_BITS: u32 = (PAYLOAD_WORDS * 64).ilog2();

/// The groups that have a value, by value.
type Groups<const VALUES: usize> = [u8; VALUES];

/// A place of the payload, and the bits of it that the signatures of a group compare; which values they ask for.
#[derive(Clone, Copy)]
#[repr(C)]
struct Peek {
    mask: u64,
    offset: u64,
    values: [u64; PAYLOAD_WORDS],
}

/// What is asked before the table.
#[derive(Clone, Copy)]
#[repr(C)]
pub(super) struct Hints {
    source_ports: Groups<{ 1 << 16 }>,
    destination_ports: Groups<{ 1 << 16 }>,
    lengths: Groups<LENGTHS>,
    hops: Groups<{ 1 << 8 }>,
    flags: Groups<{ 1 << 8 }>,
    kinds: Groups<KIND_SLOTS>,
    /// Groups of which a [`Peek`] says more.
    peeked: u64,
    peeks: [Peek; GROUPS],
}

/// What signatures of one group have in common: the fields that they ask, and where in the payload they look.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Likeness {
    fields: u8,
    mask: u64,
    offset: u8,
}

impl Likeness {
    fn of(shape: &Shape) -> Self {
        let asks = [
            !shape.source_ports.is_any(),
            !shape.destination_ports.is_any(),
            !shape.lengths.is_any(),
            !shape.hops.is_any(),
            shape.flags_mask != 0,
            shape.asks_layout != 0,
        ];
        let fields = asks.iter().fold(0, |fields, asks| fields << 1 | u8::from(*asks));
        Self { fields, mask: shape.payload_mask, offset: shape.payload_offset }
    }
}

impl Hints {
    /// Compiles those of these signatures, where all was zero.
    pub(super) fn compile(&mut self, records: &[Record; SIGNATURES]) {
        let whole = |shape: &&Shape| shape.fragments >> Fragment::None as u8 & 1 == 1;
        let shapes = || records.iter().filter(|record| record.is_some()).map(|record| &record.shape).filter(whole);
        let mut groups: [Option<Likeness>; GROUPS] = [None; GROUPS];
        for shape in shapes() {
            let group = self.group(&mut groups, Likeness::of(shape));
            self.add(group, shape);
        }
    }

    /// The group of what is alike, a new one while there are any; the last one takes the rest, of which nothing more is known.
    fn group(&mut self, groups: &mut [Option<Likeness>; GROUPS], likeness: Likeness) -> usize {
        if let Some(group) = groups.iter().position(|known| *known == Some(likeness)) {
            return group;
        }
        let Some(group) = groups.iter().position(Option::is_none) else {
            self.peeked &= !(1 << (GROUPS - 1));
            return GROUPS - 1;
        };
        groups[group] = Some(likeness);
        if likeness.mask != 0 {
            self.peeked |= 1 << group;
            self.peeks[group].mask = likeness.mask;
            self.peeks[group].offset = u64::from(likeness.offset);
        }
        group
    }

    fn add(&mut self, group: usize, shape: &Shape) {
        let bit = 1 << group;
        mark(&mut self.source_ports, bit, shape.source_ports);
        mark(&mut self.destination_ports, bit, shape.destination_ports);
        mark(&mut self.hops, bit, shape.hops);
        mark(&mut self.lengths, bit, shape.lengths);
        if shape.lengths.last as usize >= LENGTHS {
            self.lengths[LENGTHS - 1] |= bit;
        }
        for (flags, groups) in self.flags.iter_mut().enumerate() {
            *groups |= if shape.suits_flags(Some(flags as u8)) { bit } else { 0 };
        }
        for (kind, groups) in self.kinds.iter_mut().enumerate() {
            *groups |= if shape.kinds() >> kind & 1 == 1 { bit } else { 0 };
        }
        let place = place(shape.payload);
        self.peeks[group].values[place >> 6] |= 1 << (place & 63);
    }

    /// Whether any signature may suit the packet.
    #[inline(always)]
    pub(super) fn may_suit(&self, packet: &Rest<'_>) -> bool {
        let Some((hops, length)) = packet.hops_and_length() else { return true };
        let length = if length < LENGTHS as u32 { length as usize } else { LENGTHS - 1 };
        let mut left = self.kinds[packet.kind.index() as usize & (KIND_SLOTS - 1)]
            & self.source_ports[index(packet.ports.0)]
            & self.destination_ports[index(packet.ports.1)]
            & self.lengths[length & (LENGTHS - 1)]
            & self.hops[hops as usize];
        let mut header = 8;
        if packet.protocol == protocol::TCP {
            let Some(tcp) = packet.transport.peek::<20>() else { return true };
            left &= self.flags[tcp[13] as usize];
            header = (tcp[12] >> 4) as usize * 4;
        }
        left != 0 && self.may_suit_payload(u64::from(left), packet, header)
    }

    #[inline(always)]
    fn may_suit_payload(&self, left: u64, packet: &Rest<'_>, header: usize) -> bool {
        let noise = self.peeks[0].mask;
        let left = forget(left, noise);
        if left & !self.peeked != 0 {
            return true;
        }
        let mut group = 0;
        while group < GROUPS {
            if left >> group & 1 == 1 {
                let peek = &self.peeks[group];
                let at = packet.transport.behind(header & 0x3f).behind(peek.offset as usize & 0x7f);
                let Some(bytes) = at.peek::<8>() else { return true };
                let place = place(be!(u64, bytes, 0) & peek.mask);
                if peek.values[place >> 6 & (PAYLOAD_WORDS - 1)] >> (place & 63) & 1 == 1 {
                    return true;
                }
            }
            group += 1;
        }
        false
    }
}

/// Marks the values in a range, of those that have a byte.
fn mark(groups: &mut [u8], bit: u8, range: Range) {
    let first = usize::from(range.first).min(groups.len());
    let end = (usize::from(range.last) + 1).min(groups.len());
    if let Some(groups) = groups.get_mut(first..end) {
        groups.iter_mut().for_each(|groups| *groups |= bit);
    }
}

/// The place of a payload in a set.
#[inline(always)]
const fn place(payload: u64) -> usize {
    (payload.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> (u64::BITS - PAYLOAD_BITS)) as usize
}

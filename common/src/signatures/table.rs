//! The table that the packet path asks: which signatures a packet suits, for the same cost whether there is one or all.
//!
//! For each field a row of bits says which signatures a value of it suits; a packet takes one row of each field, and
//! what is in all of them is what it suits. Rows of fields of 8 bits lie at their value. Ports and lengths have a class
//! first, since the ranges of all signatures cut an axis into 513 pieces at most. Layouts of TCP options and bytes of
//! the payload are found by a binary search, and only where a signature is left that asks for them. Payloads may be
//! compared at [`WINDOWS`] places: that, and not the number of signatures, bounds the searches.
//!
//! User space compiles it as a whole; nothing here changes a table in place.

use core::array;
use core::hint::cold_path;

use super::hints::Hints;
use super::{Action, Range, Record, SIGNATURES, Shape, SignatureState, Traits, WINDOWS, WORDS};
use crate::class::Family;
use crate::clock::Moment;
use crate::packet::fast::Rest;
use crate::packet::{Frame, protocol};
use crate::verifier::{forget, index};

/// A set of signatures.
pub type Row = [u64; WORDS];

const NOBODY: Row = [0; WORDS];
const _: () = assert!(WORDS == 4);

/// Classes of an axis, with that of packets that have no such field; a power of two, so that an index can be masked.
const CLASSES: usize = 1 << 10;
const ABSENT: usize = CLASSES - 1;
const PROTOCOLS: usize = 1 << 9;
const FRAGMENTS: usize = 4;
const HOPS: usize = 1 << 8;
/// TCP flags, and packets that have none.
const FLAGS: usize = 1 << 9;
const NO_FLAGS: usize = FLAGS - 1;

/// The ranges of a field of 16 bits.
#[derive(Clone, Copy)]
#[repr(C)]
struct Axis {
    classes: [u16; 1 << 16],
    rows: [Row; CLASSES],
}

/// Sorted values, and the row of each.
#[derive(Clone, Copy)]
#[repr(C)]
struct Keys {
    keys: [u64; SIGNATURES],
    rows: [Row; SIGNATURES],
}

/// Values of [`Keys`] that are searched together.
#[derive(Clone, Copy)]
#[repr(C)]
struct Search {
    /// Where they begin, and how many they are.
    first: u32,
    count: u32,
    /// Signatures that ask for one of them.
    members: Row,
}

/// A place of the payload, and the bits of it that are compared.
#[derive(Clone, Copy)]
#[repr(C)]
struct Window {
    mask: u64,
    offset: u32,
    bytes: u32,
    search: Search,
}

/// A bank of compiled signatures. All zero: none.
#[derive(Clone, Copy)]
#[repr(C)]
pub struct Table {
    protocols: [Row; PROTOCOLS],
    fragments: [Row; FRAGMENTS],
    hops: [Row; HOPS],
    flags: [Row; FLAGS],
    source_ports: Axis,
    destination_ports: Axis,
    lengths: Axis,
    layouts: Keys,
    layout: Search,
    payloads: Keys,
    windows: [Window; WINDOWS],
    /// Windows in use.
    window_count: u64,
    /// When each signature ends.
    until_ns: [u64; SIGNATURES],
    drops: Row,
    counts: Row,
    hints: Hints,
}

/// More places and masks of payloads than the table has room for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TooManyWindows;

impl Table {
    /// Compiles signatures into a table that was all zero, and says what is to be in force once it lies in `bank`.
    ///
    /// # Errors
    /// Where payloads are to be compared in more than [`WINDOWS`] ways.
    pub fn compile(&mut self, records: &[Record; SIGNATURES], bank: u32) -> Result<SignatureState, TooManyWindows> {
        let (mut words, mut kinds) = (0, 0);
        let shape = |number: usize| records.get(number).filter(|record| record.is_some()).map(|record| &record.shape);
        for (number, record) in records.iter().enumerate().filter(|(_, record)| record.is_some()) {
            self.add(number, record);
            self.add_window(number, &record.shape)?;
            kinds |= record.shape.kinds();
            words = number / 64 + 1;
        }
        self.source_ports.compile(&shape, |shape| shape.source_ports);
        self.destination_ports.compile(&shape, |shape| shape.destination_ports);
        self.lengths.compile(&shape, |shape| shape.lengths);
        self.compile_layouts(&shape);
        self.compile_payloads(&shape);
        self.hints.compile(records);
        Ok(SignatureState::new(bank, words as u32, kinds))
    }

    fn add(&mut self, number: usize, record: &Record) {
        let Record { shape, until_ns, action, .. } = record;
        let mark = |row: &mut Row, suits: bool| set(row, number, suits);
        for (index, row) in self.protocols.iter_mut().enumerate() {
            let family = if index >> 8 == 0 { Family::V4 } else { Family::V6 };
            // Whoever asks for what only TCP has is out at once.
            let may_be = !shape.asks_tcp() || index as u8 == protocol::TCP;
            mark(row, may_be && shape.suits_protocol(family, index as u8));
        }
        for (kind, row) in self.fragments.iter_mut().enumerate() {
            mark(row, shape.fragments >> kind & 1 == 1);
        }
        for (hops, row) in self.hops.iter_mut().enumerate() {
            mark(row, shape.suits_hops(hops as u8));
        }
        for (flags, row) in self.flags.iter_mut().enumerate() {
            mark(row, shape.suits_flags((flags < NO_FLAGS).then_some(flags as u8)));
        }
        self.until_ns[number] = *until_ns;
        mark(&mut self.drops, *action == Action::Drop as u64);
        mark(&mut self.counts, *action == Action::Count as u64);
    }

    fn add_window(&mut self, number: usize, shape: &Shape) -> Result<(), TooManyWindows> {
        if !shape.asks_payload() {
            return Ok(());
        }
        let wanted = (shape.payload_mask, u32::from(shape.payload_offset));
        let used = self.window_count as usize;
        let known = self.windows[..used].iter().position(|window| (window.mask, window.offset) == wanted);
        let place = known.unwrap_or(used);
        let window = self.windows.get_mut(place).ok_or(TooManyWindows)?;
        (window.mask, window.offset) = wanted;
        window.bytes = shape.payload_bytes();
        set(&mut window.search.members, number, true);
        self.window_count = used.max(place + 1) as u64;
        Ok(())
    }

    fn compile_layouts<'s>(&mut self, shape: &impl Fn(usize) -> Option<&'s Shape>) {
        let asked = |shape: &Shape| (shape.asks_layout != 0).then_some(shape.layout);
        for number in 0..SIGNATURES {
            set(&mut self.layout.members, number, shape(number).and_then(asked).is_some());
        }
        self.layouts.compile(&mut self.layout, 0, &|number| shape(number).and_then(asked));
    }

    fn compile_payloads<'s>(&mut self, shape: &impl Fn(usize) -> Option<&'s Shape>) {
        let mut first = 0;
        for window in &mut self.windows[..self.window_count as usize] {
            let members = window.search.members;
            let value = |number| if has(&members, number) { shape(number).map(|shape| shape.payload) } else { None };
            first = self.payloads.compile(&mut window.search, first, &value);
        }
    }

    /// Whether any signature may suit a packet with nothing wrong: a quick answer in front of [`Self::judge`].
    #[inline(always)]
    pub fn may_suit(&self, packet: &Rest<'_>) -> bool {
        self.hints.may_suit(packet)
    }

    /// Whether a signature in force has the frame dropped. `hit` hears the number of each signature that counts it, and of
    /// the first that drops it. `words` of a set are in use. `frame` is called twice: between the two the verifier forgets
    /// what it has learned of the first view, and walks what follows once.
    #[inline(always)]
    pub fn judge<'a>(
        &self,
        frame: impl Fn() -> Frame<'a>,
        words: u32,
        now: Moment,
        mut hit: impl FnMut(usize),
    ) -> bool {
        let Some(packet) = Traits::read(frame()) else {
            return false;
        };
        let suited = self.suited(&packet.seen_in(frame()), words);
        if is_nobody(&suited) {
            return false;
        }
        cold_path();
        let mut word = 0;
        while word < WORDS {
            self.first_live(word, suited[word] & self.counts[word], now, |number| {
                hit(number);
                false
            });
            word += 1;
        }
        let mut word = 0;
        while word < WORDS {
            let is_dropped = self.first_live(word, suited[word] & self.drops[word], now, |number| {
                hit(number);
                true
            });
            if is_dropped {
                return true;
            }
            word += 1;
        }
        false
    }

    /// Calls `enough` with the signatures in a word that have not ended, the lowest first, until it says so.
    #[inline(always)]
    fn first_live(&self, word: usize, mut left: u64, now: Moment, mut enough: impl FnMut(usize) -> bool) -> bool {
        let mut turns = 0;
        while left != 0 && turns < 64 {
            let number = (word * 64 + left.trailing_zeros() as usize) & (SIGNATURES - 1);
            left &= left - 1;
            if self.until_ns[number] > now.ns() && enough(number) {
                return true;
            }
            turns += 1;
        }
        false
    }

    /// The signatures that a packet suits, whether or not they have ended.
    #[inline(always)]
    pub fn suited(&self, packet: &Traits<'_>, words: u32) -> Row {
        let protocol = packet.protocol_row;
        let flags = packet.flags().map_or(NO_FLAGS, usize::from);
        // What most packets differ in, from small tables.
        let noise = self.until_ns[0];
        let suited = each(words, noise, |word| {
            self.protocols[protocol & (PROTOCOLS - 1)][word]
                & self.flags[flags & (FLAGS - 1)][word]
                & self.fragments[packet.fragment_row & (FRAGMENTS - 1)][word]
                & self.hops[packet.hops as usize & (HOPS - 1)][word]
        });
        if is_nobody(&suited) {
            return NOBODY;
        }
        let ports = packet.ports();
        let source = self.source_ports.class(ports.map(|ports| ports.0));
        let destination = self.destination_ports.class(ports.map(|ports| ports.1));
        let length = self.lengths.class(Some(packet.length));
        let suited = each(words, noise, |word| {
            suited[word]
                & self.source_ports.rows[source & (CLASSES - 1)][word]
                & self.destination_ports.rows[destination & (CLASSES - 1)][word]
                & self.lengths.rows[length & (CLASSES - 1)][word]
        });
        if is_nobody(&suited) {
            return NOBODY;
        }
        let suited = self.layouts.narrow(suited, &self.layout, || packet.layout());
        self.narrow_by_payload(suited, packet)
    }

    #[inline(always)]
    fn narrow_by_payload(&self, mut suited: Row, packet: &Traits<'_>) -> Row {
        if self.window_count == 0 {
            return suited;
        }
        let (payload, mut place) = (packet.payload(self.until_ns[0]), 0);
        while place < WINDOWS && place < self.window_count as usize {
            let window = &self.windows[place];
            let word = || {
                let read = payload.word(window.offset, window.bytes)?;
                Some(read & window.mask)
            };
            suited = self.payloads.narrow(suited, &window.search, word);
            place += 1;
        }
        suited
    }
}

impl Axis {
    fn compile<'s>(&mut self, shape: &impl Fn(usize) -> Option<&'s Shape>, range: impl Fn(&Shape) -> Range) {
        // A class begins where a range does, and behind where one ends.
        for Range { first, last } in (0..SIGNATURES).filter_map(shape).map(&range) {
            self.classes[first as usize] = 1;
            if let Some(behind) = self.classes.get_mut(last as usize + 1) {
                *behind = 1;
            }
        }
        // No cut at zero: the first class is there without one.
        self.classes[0] = 0;
        let mut class = 0;
        for value in 0..=u16::MAX {
            let begins = value == 0 || self.classes[value as usize] == 1;
            class += self.classes[value as usize];
            self.classes[value as usize] = class;
            if begins {
                fill(&mut self.rows[class as usize], shape, |shape| range(shape).has(value));
            }
        }
        fill(&mut self.rows[ABSENT], shape, |shape| range(shape).is_any());
    }

    #[inline(always)]
    fn class(&self, value: Option<u16>) -> usize {
        match value {
            Some(value) => self.classes[index(value)] as usize,
            None => ABSENT,
        }
    }
}

impl Keys {
    /// Puts the values of signatures from `first` on, sorted, each once; says where they end.
    fn compile(&mut self, search: &mut Search, first: usize, value: &impl Fn(usize) -> Option<u64>) -> usize {
        let mut end = first;
        for key in (0..SIGNATURES).filter_map(value) {
            if !self.keys[first..end].contains(&key) {
                self.keys[end] = key;
                end += 1;
            }
        }
        self.keys[first..end].sort_unstable();
        for place in first..end {
            let key = self.keys[place];
            (0..SIGNATURES).for_each(|number| set(&mut self.rows[place], number, value(number) == Some(key)));
        }
        (search.first, search.count) = (first as u32, (end - first) as u32);
        end
    }

    /// Takes out who asks for another value than the packet has. The value is worked out only where somebody asks.
    #[inline(always)]
    fn narrow(&self, suited: Row, search: &Search, value: impl FnOnce() -> Option<u64>) -> Row {
        let asking = all(|word| suited[word] & search.members[word]);
        if is_nobody(&asking) {
            return suited;
        }
        let place = value().and_then(|value| self.find(search, value));
        let found = place.unwrap_or(0) & (SIGNATURES - 1);
        // Without a branch for each word.
        let mask = u64::from(place.is_some()).wrapping_neg();
        all(|word| {
            forget(suited[word] & (!search.members[word] | (self.rows[found][word] & mask)), search.members[word])
        })
    }

    /// The place of a value.
    #[inline(always)]
    fn find(&self, search: &Search, value: u64) -> Option<usize> {
        let (first, mut count) = (u64::from(search.first), u64::from(search.count));
        let mut at = 0;
        let mut step = SIGNATURES as u64 / 2;
        while step > 0 {
            // Few values take few steps.
            if step < count {
                let key = self.key(first + at + step);
                // Else the verifier would carry what each step teaches it of both into the next one.
                count = forget(count, key);
                at = forget(if at + step < count && key <= value { at + step } else { at }, key);
            }
            step /= 2;
        }
        let key = self.key(first + at);
        (forget(count, key) != 0 && key == value).then_some((first + at) as usize)
    }

    #[inline(always)]
    fn key(&self, place: u64) -> u64 {
        self.keys[place as usize & (SIGNATURES - 1)]
    }
}

/// A word of each for those that are in use. `noise` is for the verifier, that has to forget which of them are.
#[inline(always)]
fn each(words: u32, noise: u64, word: impl Fn(usize) -> u64) -> Row {
    array::from_fn(|place| forget(if (place as u32) < words { word(place) } else { 0 }, noise))
}

/// Without a comparison of arrays, which would be a call.
#[inline(always)]
const fn is_nobody(row: &Row) -> bool {
    row[0] | row[1] | row[2] | row[3] == 0
}

/// A word of each.
#[inline(always)]
fn all(word: impl Fn(usize) -> u64) -> Row {
    array::from_fn(word)
}

fn fill<'s>(row: &mut Row, shape: &impl Fn(usize) -> Option<&'s Shape>, suits: impl Fn(&Shape) -> bool) {
    (0..SIGNATURES).for_each(|number| set(row, number, shape(number).is_some_and(&suits)));
}

fn set(row: &mut Row, number: usize, is_in: bool) {
    row[number / 64] |= u64::from(is_in) << (number % 64);
}

fn has(row: &Row, number: usize) -> bool {
    row[number / 64] >> (number % 64) & 1 == 1
}

//! The allow and deny lists, and who is in a group: what an entry is, and the filter in front of their tries.
//!
//! A list is a set of prefixes with an expiry each. In the kernel it is a longest-prefix trie, which sees only the
//! most specific entry; so an entry carries, beside its own expiry, the latest expiry of all entries that cover it.
//! That makes one look-up exact: an expired /24 inside a live /8 is still listed.

use crate::class::Family;
use crate::clock::Moment;
use crate::labelled_enum;
use crate::packet::Source;

/// The moment of an entry that never expires.
pub const FOREVER: u64 = u64::MAX;
/// Room for the reason that the operator gave.
pub const NOTE_BYTES: usize = 56;
/// Entries that a list may hold.
pub const MAX_ENTRIES: u32 = 1 << 20;

labelled_enum! {
    /// A list of sources.
    pub enum List {
        /// Passes whatever else is true of it.
        Allow = 0 => "allow",
        /// Drops.
        Deny = 1 => "deny",
        /// Has limits of its own: the nearest entry says which group it is in. Its entries never end.
        Groups = 2 => "groups",
    }
}

/// How many there are.
pub const LISTS: usize = List::ALL.len();

/// A key of an IPv4 trie: the address, padded so that the value behind it is aligned.
pub type Key4 = [u8; 8];
/// A key of an IPv6 trie.
pub type Key6 = [u8; 16];

/// What a trie holds of a prefix.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct ListEntry {
    /// The latest expiry of this entry and all that cover it, in [`Moment`] nanoseconds. The kernel half reads only this.
    pub covered_until_ns: u64,
    /// This entry's own expiry.
    pub until_ns: u64,
    /// When it was added, in seconds of the Unix epoch: good until 2106.
    pub added_unix_s: u32,
    /// The number of the group, on [`List::Groups`]; else zero.
    pub group: u32,
    /// Why, as UTF-8 padded with zeros.
    pub note: [u8; NOTE_BYTES],
}

impl ListEntry {
    /// Whether a source that this entry is found for is listed at `now`.
    #[inline(always)]
    pub const fn is_live(&self, now: Moment) -> bool {
        self.covered_until_ns > now.ns()
    }
}

/// Words of a prefilter bitmap.
pub const PREFILTER_WORDS: usize = 1 << 10;

/// Words of the bitmap that is asked next of IPv4.
pub const NEAREST_WORDS: usize = 1 << 13;

/// A bit per /16 (IPv4) or hashed /32 (IPv6) in which a list has anything, and for IPv4 then one per hashed /24 for all lists:
/// most packets end here, for a nanosecond or two instead of the 20 to 80 of a trie. A set bit too many costs time, never a
/// verdict.
#[repr(C)]
pub struct Prefilter {
    /// Bitmaps by list, then by family.
    pub bits: [[[u64; PREFILTER_WORDS]; 2]; LISTS],
    /// Of IPv4, more closely.
    pub nearest: [u64; NEAREST_WORDS],
}

impl Prefilter {
    /// Whether any of these lists has anything near the source.
    #[inline(always)]
    pub fn is_near(&self, source: Source, lists: &[List]) -> bool {
        let (family, bit) = match source {
            Source::V4(address) => (Family::V4, prefilter_bit_v4(address)),
            Source::V6(upper, _) => (Family::V6, prefilter_bit_v6(upper)),
        };
        let word = |list: List| self.bits[list as usize][family as usize][(bit >> 6) as usize & (PREFILTER_WORDS - 1)];
        let is_near = lists.iter().fold(0, |near, list| near | word(*list)) >> (bit & 63) & 1 == 1;
        is_near
            && match source {
                Source::V4(address) => {
                    let bit = nearest_bit(address);
                    self.nearest[(bit >> 6) as usize & (NEAREST_WORDS - 1)] >> (bit & 63) & 1 == 1
                }
                Source::V6(..) => true,
            }
    }
}

/// The prefilter bit of an IPv4 address, below 2^16.
#[inline(always)]
pub const fn prefilter_bit_v4(address: u32) -> u32 {
    address >> 16
}

/// The bit of the /24 of an IPv4 address, below 2^19.
#[inline(always)]
pub const fn nearest_bit(address: u32) -> u32 {
    (address >> 8).wrapping_mul(0x9e37_79b1) >> 13
}

/// The prefilter bit of an IPv6 address with this upper half, below 2^16.
#[inline(always)]
pub const fn prefilter_bit_v6(upper: u64) -> u32 {
    ((upper >> 32) as u32).wrapping_mul(0x9e37_79b1) >> 16
}

/// Which bank of tries and prefilter is in force, and which lists hold anything at all: one word, so that one write
/// changes all lists of both families at once.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(transparent)]
pub struct ListState(u32);

impl ListState {
    /// Bank 0 or 1, with nothing in any list.
    pub const fn empty(bank: u32) -> Self {
        Self(bank & 1)
    }

    /// The same, with something in this list.
    #[must_use]
    pub const fn with(self, list: List, family: Family) -> Self {
        Self(self.0 | Self::bit(list, family))
    }

    /// The bank in force.
    #[inline(always)]
    pub const fn bank(self) -> u32 {
        self.0 & 1
    }

    /// Whether this list has anything of this family.
    #[inline(always)]
    pub const fn has(self, list: List, family: Family) -> bool {
        self.0 & Self::bit(list, family) != 0
    }

    /// Whether all lists are empty.
    #[inline(always)]
    pub const fn is_empty(self) -> bool {
        self.0 >> 1 == 0
    }

    const fn bit(list: List, family: Family) -> u32 {
        2 << (list as u32 * 2 + family as u32)
    }
}

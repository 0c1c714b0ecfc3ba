//! Keyed hash of a source: where its state lies.
//!
//! A bijection of 64 bits with two secret multipliers and a secret per meter. It is no cryptographic hash: two
//! multiplies cost 1 ns where SipHash-1-3 costs 10, and nothing that an attacker can see tells him where a source
//! landed. Keeping the key secret is what makes collisions harmless: they cannot be chosen.
//!
//! Different sources of one meter never share all 64 bits; state keeps 14 bits of place and 24 bits of tag, so two
//! sources share state with a probability of 2^-38 a pair.

use crate::limiter::{BUCKETS, GATE_CELLS, TIME_BITS, WAYS};

/// The secret multipliers, drawn once when the maps are created and kept with them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct HashKey([u64; 2]);

impl HashKey {
    /// A key from random words.
    pub const fn new(random: [u64; 2]) -> Self {
        // Odd multipliers make the multiplication a bijection.
        Self([random[0] | 1, random[1] | 1])
    }

    /// Where the state of `source` lies in a meter with this secret.
    #[inline(always)]
    pub const fn place(&self, secret: u64, source: u64) -> Place {
        let once = (source ^ secret).wrapping_mul(self.0[0]);
        Place { once, twice: (once ^ once >> 32).wrapping_mul(self.0[1]) }
    }

    /// A word multiplied by a secret, its high bits brought down: enough for what is hashed again.
    #[inline(always)]
    pub(crate) const fn fold(&self, word: u64) -> u64 {
        let once = word.wrapping_mul(self.0[0]);
        once ^ once >> 32
    }

    /// A hashed word, of what is no source.
    #[inline(always)]
    pub(crate) const fn scatter(&self, word: u64) -> u64 {
        self.place(0, word).twice
    }
}

/// The hashed key of a source in a domain, after each of the two multiplications.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    once: u64,
    twice: u64,
}

impl Place {
    /// Its cell in the gate: the high bits of a product know all bits of its factors. One multiplication is enough where
    /// neighbours cost each other nothing but time.
    #[inline(always)]
    pub const fn cell(self) -> usize {
        (self.once >> (u64::BITS - GATE_CELLS.ilog2())) as usize
    }

    /// Its bucket in the source table, from the bits below its tag.
    #[inline(always)]
    pub const fn bucket(self) -> usize {
        self.likely() / WAYS
    }

    /// The entry of the source table where it is looked for first: its bucket and its likely way in one number.
    #[inline(always)]
    pub const fn likely(self) -> usize {
        (self.twice >> (TIME_BITS - (BUCKETS * WAYS).ilog2())) as usize & (BUCKETS * WAYS - 1)
    }

    /// What tells it from the others in its bucket.
    #[inline(always)]
    pub(crate) const fn tag(self) -> u64 {
        self.twice >> TIME_BITS
    }

    /// Whether this entry of the source table has its tag.
    #[inline(always)]
    pub(crate) const fn owns(self, entry: u64) -> bool {
        (entry ^ self.twice) >> TIME_BITS == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    const KEY: HashKey = HashKey::new([0x2545_f491_4f6c_dd1d, 0xd129_0d3a_77e5_5a3b]);
    const SECRET: u64 = 0x1234_5678_9abc_def0;

    #[test]
    fn distinct_sources_have_distinct_places() {
        let places: HashSet<u64> = (0..100_000).map(|n| KEY.place(SECRET, n << 32).twice).collect();
        assert_eq!(places.len(), 100_000);
    }

    #[test]
    fn neighbouring_sources_spread_over_cells_and_buckets() {
        let mut cells = vec![0u32; GATE_CELLS];
        let mut buckets = vec![0u32; BUCKETS];
        let sources = 64 * GATE_CELLS as u64;
        for n in 0..sources {
            let place = KEY.place(SECRET, 0x0a00_0000 + n);
            cells[place.cell()] += 1;
            buckets[place.bucket()] += 1;
        }
        // 64 on average in a cell; a Poisson tail of 8 sigma stays under 128.
        assert!(cells.iter().all(|count| (8..128).contains(count)), "max {:?}", cells.iter().max());
        assert!(buckets.iter().all(|count| *count < 256), "max {:?}", buckets.iter().max());
    }

    #[test]
    fn meters_do_not_share_places() {
        assert_ne!(KEY.place(SECRET, 7), KEY.place(SECRET + 1, 7));
    }
}

//! How unlike good packets the packets of a group are: the divergence of their lengths, times to live and layouts of TCP options from
//! those of the good packets that are kept. Histograms of fixed size, so that it costs the same whatever comes.

use super::observed::Observed;

/// Bins of a histogram.
const BINS: usize = 32;
/// Bytes in a bin of lengths, and hops in one of times to live.
const BYTES: u16 = 48;
const HOPS: u8 = 8;
/// Packets on either side of which a divergence is.
const ENOUGH: f64 = 200.0;

/// How unlike they are: the divergence of Jensen and Shannon in bits, 0 where both are the same, and 1 where they have nothing in common.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Unlike {
    /// Of lengths.
    pub lengths: f64,
    /// Of times to live.
    pub hops: f64,
    /// Of layouts of TCP options.
    pub layouts: f64,
}

/// Packets by what they look like.
#[derive(Clone, Debug, Default)]
pub(super) struct Looks {
    packets: f64,
    lengths: [f64; BINS],
    hops: [f64; BINS],
    layouts: [f64; BINS],
}

impl Looks {
    /// Takes a packet in.
    pub(super) fn add(&mut self, packet: &Observed) {
        self.count(packet, f64::from(packet.weight));
    }

    /// Lets go of one that was taken in.
    pub(super) fn remove(&mut self, packet: &Observed) {
        self.count(packet, -f64::from(packet.weight));
    }

    fn count(&mut self, packet: &Observed, weight: f64) {
        self.packets += weight;
        self.lengths[usize::from(packet.length / BYTES).min(BINS - 1)] += weight;
        self.hops[usize::from(packet.hops / HOPS)] += weight;
        // Layouts that fall together look alike: that many are not used.
        self.layouts[(packet.layout.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 59) as usize] += weight;
    }

    /// How unlike the good ones these are. `None` where either are too few to say.
    pub(super) fn unlike(&self, good: &Self) -> Option<Unlike> {
        (self.packets >= ENOUGH && good.packets >= ENOUGH).then(|| Unlike {
            lengths: self.divergence(good, |looks| &looks.lengths),
            hops: self.divergence(good, |looks| &looks.hops),
            layouts: self.divergence(good, |looks| &looks.layouts),
        })
    }

    fn divergence(&self, good: &Self, of: impl Fn(&Self) -> &[f64; BINS]) -> f64 {
        let bits = |part: f64| if part > 0.0 { -part * part.log2() } else { 0.0 };
        let pairs = of(self).iter().zip(of(good)).map(|(these, those)| (these / self.packets, those / good.packets));
        pairs.map(|(p, q)| bits((p + q) / 2.0) - (bits(p) + bits(q)) / 2.0).sum::<f64>().clamp(0.0, 1.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn looks(packets: u32, of: impl Fn(u32) -> (u16, u8, u64)) -> Looks {
        let mut looks = Looks::default();
        for n in 0..packets {
            let (length, hops, layout) = of(n);
            looks.add(&Observed { length, hops, layout, ..Observed::segment(n, 1, 0, 0x10) });
        }
        looks
    }

    #[test]
    fn the_same_diverges_by_nothing_and_what_has_nothing_in_common_by_one_bit() {
        let good = looks(1_000, |n| (40 + n as u16 % 500, 57, 1));
        let same = looks(500, |n| (40 + n as u16 * 7 % 500, 57, 1));
        let unlike = same.unlike(&good).unwrap_or_else(|| panic!("enough of both"));
        assert!(unlike.lengths < 0.05 && unlike.hops == 0.0 && unlike.layouts == 0.0, "{unlike:?}");
        let other = looks(500, |_| (1_500, 242, 0)).unlike(&good).unwrap_or_else(|| panic!("enough of both"));
        assert!(other.lengths > 0.9 && other.hops == 1.0 && other.layouts == 1.0, "{other:?}");
        let half = looks(500, |n| (100, if n % 2 == 0 { 57 } else { 242 }, 1)).unlike(&good);
        assert!(half.is_some_and(|half| (half.hops - 0.311).abs() < 0.001), "{half:?}");
        assert_eq!(looks(199, |_| (100, 57, 1)).unlike(&good), None);
    }

    #[test]
    fn what_is_let_go_of_leaves_nothing_behind() {
        let mut looks = looks(1_000, |n| (n as u16, n as u8, n.into()));
        for n in 0..1_000_u32 {
            let (length, hops, layout) = (n as u16, n as u8, n.into());
            looks.remove(&Observed { length, hops, layout, ..Observed::segment(n, 1, 0, 0x10) });
        }
        let all = [looks.lengths, looks.hops, looks.layouts].concat();
        assert!(looks.packets == 0.0 && all.iter().all(|packets| *packets == 0.0), "{looks:?}");
    }
}

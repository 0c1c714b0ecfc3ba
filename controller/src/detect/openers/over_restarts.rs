//! The networks that were here, over restarts: as bytes for a file.

use std::collections::HashMap;

use floodwall_common::class::Family;

use super::{Following, KNOWN_NS, NETWORKS, Network, REGULAR_NS, SECOND_NS};

/// What a file of networks begins with; the last byte is the version of its shape. Then when it was written, in seconds of the Unix epoch, and
/// connections begun in a second; and of each network its key, its family, and connections that it begins in a second.
const MAGIC: [u8; 8] = *b"fw-nets\x01";
const RECORD: usize = 13;
/// Quiet time that what a daemon before this one has learned of rates counts as.
const TAKEN_OVER_NS: u64 = 60_000_000_000;

impl Following {
    /// The networks that were here, for the daemon that comes after this one.
    pub(in crate::detect) fn to_bytes(&self, unix_s: u64) -> Vec<u8> {
        let mut bytes = MAGIC.to_vec();
        bytes.extend(unix_s.to_le_bytes());
        bytes.extend((self.rate(self.begun, self.joined_ns) as f32).to_le_bytes());
        for ((key, family), network) in self.networks.iter().filter(|(_, network)| self.is_old(network)) {
            bytes.extend(key.to_le_bytes());
            bytes.push(*family as u8);
            bytes.extend((self.rate(network.begun, network.joined_ns) as f32).to_le_bytes());
        }
        bytes
    }

    /// Takes over what the daemon before this one knew, where that is not too long ago: whoever was a client then was one before what goes on now.
    /// `None` where it is of another shape.
    pub(in crate::detect) fn take_over(&mut self, bytes: &[u8], unix_s: u64, now_ns: u64) -> Option<()> {
        let (magic, rest) = bytes.split_first_chunk()?;
        let (written, rest) = rest.split_first_chunk()?;
        let (all, rest) = rest.split_first_chunk()?;
        if *magic != MAGIC || rest.len() % RECORD != 0 || rest.len() / RECORD > NETWORKS {
            return None;
        }
        if unix_s.saturating_sub(u64::from_le_bytes(*written)) >= REGULAR_NS / SECOND_NS {
            return Some(());
        }
        let begun = |rate: &[u8; 4]| {
            let rate = f64::from(f32::from_le_bytes(*rate));
            if rate.is_finite() { rate * TAKEN_OVER_NS as f64 / SECOND_NS as f64 } else { 0.0 }
        };
        let mut networks = HashMap::new();
        for record in rest.chunks_exact(RECORD) {
            let (key, record) = record.split_first_chunk()?;
            let (family, rate) = (Family::from_index(record[0])?, record[1..].first_chunk()?);
            let network = Network { first_ns: 0, last_ns: now_ns, joined_ns: 0, begun: begun(rate) };
            networks.insert((u64::from_le_bytes(*key), family), network);
        }
        self.networks = networks;
        (self.quiet_ns, self.faded_ns, self.begun) = (TAKEN_OVER_NS, TAKEN_OVER_NS, begun(all));
        self.quiet_at_ns = now_ns.max(KNOWN_NS);
        Some(())
    }
}

#[cfg(test)]
mod tests {
    use floodwall_common::packet::Source;

    use super::super::tests::packet;
    use super::*;

    /// A daemon that starts in the middle of it knows who was here before.
    #[test]
    fn networks_are_taken_over_from_the_daemon_before() {
        let mut before = Following::default();
        for tick in 0..600 {
            let now_ns = tick * SECOND_NS / 10;
            before.expire(now_ns, true);
            for port in 0..2 {
                before.take(&packet(0x0a00_0001, (2 * tick + port) as u16, now_ns, 0x02));
            }
            before.take(&packet(0x0a00_0001, (2 * tick) as u16, now_ns, 0x10));
        }
        let bytes = before.to_bytes(1_000_000);
        assert_eq!(bytes.len(), MAGIC.len() + 12 + RECORD);
        // Of the daemon after it: a customer, and one that nobody knows, each so many connections a second for eight.
        let after = |unix_s: u64, per_second: u64| {
            let mut following = Following::default();
            following.take_over(&bytes, unix_s, 5 * SECOND_NS).unwrap();
            for tick in 0..80 {
                let now_ns = 20 * SECOND_NS + tick * SECOND_NS / 10;
                following.expire(now_ns, false);
                for number in 0..per_second / 10 {
                    let port = (10_000 + tick * per_second / 10 + number) as u16;
                    following.take(&packet(0x0a00_0002, port, now_ns, 0x02));
                    following.take(&packet(0x1400_0001, port, now_ns, 0x02));
                }
            }
            following.expire(28 * SECOND_NS, false);
            (following.features(28 * SECOND_NS), following.persistent(false))
        };
        let (openers, sources) = after(1_000_300, 20);
        assert_eq!(sources, [Source::V4(0x1400_0001)], "{openers:?}");
        assert_eq!(openers.persistent, Some(0.5), "{openers:?}");
        assert!(openers.aggregate.is_none_or(|excess| excess.share == 0.0), "as ever");
        let grown = after(1_000_300, 200).0.aggregate.unwrap();
        assert_eq!(grown.networks, ["10.0.0.0/24".parse().unwrap()]);
        assert!((9.0..11.0).contains(&grown.times), "{grown:?}");
        let (openers, _) = after(1_003_600, 20);
        assert_eq!(openers.persistent, None, "an hour later nobody is known");
        let mut following = Following::default();
        for wrong in [&bytes[1..], &bytes[..bytes.len() - 1], &[], &bytes[..7]] {
            assert!(following.take_over(wrong, 1_000_300, 1).is_none());
        }
        assert!(following.networks.is_empty());
    }
}

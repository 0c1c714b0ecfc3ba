//! Who has shown that he is where he says: sources that completed a TCP handshake with this host.
//!
//! The host itself says so: it sends data, or ends a connection, only to who has answered its SYN-ACK. So the program that
//! sees what leaves remembers the addresses that data goes to, for [`SPAN`]: five to ten hours after the last of it. A flood with
//! forged addresses adds nothing, and whatever it sends, it makes nobody be forgotten.
//!
//! What it can cost (memory: [`crate::memory`], [`LINES`] lines, 512 KiB):
//! - *False matches*: a stranger passes as verified with a probability of 0.5 % beside 100,000 verified sources, and of 2.9 %
//!   beside 200,000 (a test). All it gains is its place in the queue: limits stay.
//! - *What an attacker can fake*: whoever owns real addresses can connect from them and is verified, as long as he is on no
//!   list and under his limits. Who sees this host's SYN-ACKs on their way (on the path, or in the same /64) can complete
//!   handshakes for others. Nobody else can: a blind forger has to guess 32 bits of sequence number.
//! - UDP shows nothing here: an answer to a forged question goes out as one to a true one does.

use crate::frame::Frame;
use crate::hash::HashKey;
use crate::memory::{Span, Trace};
use crate::packet::ends::Ends;
use crate::packet::{FIN, RST, SYN, protocol};

/// Lines of the memory (512 KiB).
pub const LINES: usize = 1 << 15;

/// How long a source stays verified: 4.9 to 9.8 hours.
pub const SPAN: Span = Span { generation_bits: 44 };

/// The trace of a source, by its [`crate::packet::Source::key`].
#[inline(always)]
pub const fn trace(key: &HashKey, source: u64) -> Trace {
    Trace::new(key.scatter(source))
}

/// The source that a frame which leaves this host shows to be verified.
#[inline(always)]
pub fn of_sent(frame: Frame<'_>) -> Option<u64> {
    let ends = Ends::read(frame)?;
    if ends.protocol != protocol::TCP {
        return None;
    }
    let header = ends.transport.peek::<14>()?;
    let flags = header[13];
    if flags & (SYN | RST) != 0 {
        return None;
    }
    // A bare ACK can answer a stray packet of a handshake that is not complete.
    let has_data = frame.bytes_from(&ends.transport) > u32::from(header[12] >> 4) * 4;
    (has_data || flags & FIN != 0).then_some(ends.destination.0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::memory::tests::Memory;

    #[test]
    fn few_strangers_pass_as_verified() {
        let key = HashKey::new([0x2545_f491_4f6c_dd1d, 0xd129_0d3a_77e5_5a3b]);
        let now = 100_000_000_000_000;
        for (verified, share) in [(100_000, 0.008), (200_000, 0.04)] {
            let memory = Memory::new(LINES, SPAN);
            for n in 0..verified {
                memory.remember(trace(&key, 0x0b00_0000 + n), now);
            }
            let later = now + SPAN.kept_ns();
            assert!((0..verified).all(|n| memory.remembers(trace(&key, 0x0b00_0000 + n), later)));
            let strangers = (0..1_000_000).filter(|n| memory.remembers(trace(&key, 0xc000_0000 + n), later)).count();
            assert!((strangers as f64) < share * 1e6, "{strangers} of a million beside {verified}");
            println!("{strangers} of a million beside {verified}");
            assert!(!memory.remembers(trace(&key, 0x0b00_0000), now + SPAN.kept_ns() * 2));
        }
    }
}

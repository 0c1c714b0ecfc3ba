//! SYN cookies: what is answered to a SYN in place of the stack, without keeping anything of it.
//!
//! The cookie is that of the listener, so that the stack knows it again when the client returns it and makes the connection
//! by itself. Here is what goes around it: what the client has offered, and the SYN-ACK.

use crate::frame::{Frame, be, field};
use crate::packet::{ACK, SYN};
use crate::verifier::{again, forget};

/// How SYNs are answered. All zero: they are not.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Cookies {
    /// [`CookieMode`], as its number.
    pub mode: u32,
    /// Not zero where the stack takes options out of the timestamp that the client returns.
    pub timestamps: u32,
    /// The window scale that the stack will use.
    pub window_scale: u32,
    /// The largest segments that this host takes, IPv4 and IPv6.
    pub mss: [u16; 2],
}

crate::labelled_enum! {
    /// When SYNs are answered with cookies.
    pub enum CookieMode {
        /// Never: the stack answers.
        Off = 0 => "off",
        /// Where the listener's queue of half-open connections is full.
        Auto = 1 => "auto",
        /// Always.
        Always = 2 => "always",
    }
}

/// Bytes of a TCP header without options.
const TCP: usize = 20;
/// The longest header of a SYN.
pub const LONGEST_SYN: usize = 60;
/// Words of the longest header of a SYN-ACK that is made here.
const WORDS: usize = 10;
/// Options that are looked at. Known clients send five, and as many bytes to fill up.
const MOST_OPTIONS: usize = 12;
/// What the stack too begins with.
const WINDOW: u16 = 64_240;

const END: u8 = 0;
const NOP: u8 = 1;
const MSS: u8 = 2;
const WINDOW_SCALE: u8 = 3;
const SACK_PERMITTED: u8 = 4;
const TIMESTAMP: u8 = 8;

/// What a client has offered. One number each, so that they stay in registers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Offer {
    /// Its timestamp, in network order as it came, if [`Self::has_timestamp`].
    pub timestamp: u32,
    /// Whether it has one.
    pub has_timestamp: bool,
    /// Whether it takes selective acknowledgements.
    pub sack: bool,
    /// Its window scale; 15 for none.
    pub window_scale: u8,
}

impl Offer {
    const NO_SCALE: u8 = 15;
    const SACK: u64 = 1 << 4;
    const HAS_TIMESTAMP: u64 = 1 << 5;

    /// Reads the options of a SYN whose header lies in a buffer that is as long as the longest.
    #[inline(always)]
    pub fn read(header: &[u8; LONGEST_SYN + 4], length: usize) -> Self {
        // In one number that the verifier forgets on each turn: else it walks the rest once for each combination.
        let mut found = u64::from(Self::NO_SCALE);
        let mut timestamp = 0;
        let mut at = TCP;
        let mut options = 0;
        while options < MOST_OPTIONS && at < length {
            options += 1;
            // The masks say to the verifier what the comparisons say to people; and each byte is read by itself, as it takes no
            // misaligned word of the stack.
            let byte = |behind: usize| again(&header[(at + behind) & 0x3f]);
            let kind = byte(0);
            if kind == END {
                break;
            }
            let step = if kind == NOP { 1 } else { byte(1) as usize };
            if step == 0 || at + step > length {
                break;
            }
            match (kind, step) {
                (WINDOW_SCALE, 3) => {
                    let scale = if byte(2) > 14 { 14 } else { byte(2) };
                    found = found & !u64::from(Self::NO_SCALE) | u64::from(scale);
                }
                (SACK_PERMITTED, 2) => found |= Self::SACK,
                (TIMESTAMP, 10) => {
                    timestamp = u32::from_ne_bytes([byte(2), byte(3), byte(4), byte(5)]);
                    found |= Self::HAS_TIMESTAMP;
                }
                _ => {}
            }
            at = forget((at + step) as u64, u64::from(kind)) as usize;
            found = forget(found, u64::from(kind));
        }
        Self {
            timestamp,
            has_timestamp: found & Self::HAS_TIMESTAMP != 0,
            sack: found & Self::SACK != 0,
            window_scale: found as u8 & Self::NO_SCALE,
        }
    }
}

/// The TCP header of a SYN-ACK, and how many words of it count.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SynAck {
    /// In network order, checksum zero.
    pub words: [u32; WORDS],
}

/// Words of a SYN-ACK with a timestamp, and of one without.
pub const LONG: usize = 10;
/// Words of one that has nothing but the largest segment.
pub const SHORT: usize = 6;

impl SynAck {
    /// The answer to a SYN, with a cookie. `milliseconds` is the clock that the stack takes timestamps from. With `None` the
    /// options of the offer are not taken up.
    #[inline(always)]
    pub fn new(syn: &[u8; TCP], offer: Offer, cookie: u32, mss: u16, scale: u8, milliseconds: Option<u32>) -> Self {
        let ports = u32::from_ne_bytes([syn[2], syn[3], syn[0], syn[1]]);
        let acknowledged = be!(u32, syn, 4).wrapping_add(1);
        let length = if milliseconds.is_some() { LONG } else { SHORT };
        let flags = (length as u32) << 28 | u32::from(SYN | ACK) << 16 | u32::from(WINDOW);
        let mut words = [0; WORDS];
        words[0] = ports;
        words[1] = cookie.to_be();
        words[2] = acknowledged.to_be();
        words[3] = flags.to_be();
        words[5] = (u32::from(MSS) << 24 | 4 << 16 | u32::from(mss)).to_be();
        if let Some(milliseconds) = milliseconds {
            let nothing = u32::from(NOP) << 24 | u32::from(NOP) << 16;
            let sack = if offer.sack { u32::from(SACK_PERMITTED) << 24 | 2 << 16 } else { nothing };
            words[6] = (sack | u32::from(TIMESTAMP) << 8 | 10).to_be();
            words[7] = offer.carried_in(milliseconds).to_be();
            words[8] = offer.timestamp;
            let has_scale = offer.window_scale != Offer::NO_SCALE;
            let scaled = u32::from(NOP) << 24 | u32::from(WINDOW_SCALE) << 16 | 3 << 8 | u32::from(scale);
            words[9] = if has_scale { scaled } else { nothing | nothing >> 16 }.to_be();
        }
        Self { words }
    }
}

impl Offer {
    /// A timestamp not later than this that carries what was offered in its lowest six bits, as the stack reads it there.
    #[inline(always)]
    const fn carried_in(&self, milliseconds: u32) -> u32 {
        const BITS: u32 = 6;
        const SACK: u32 = 1 << 4;
        let offered = self.window_scale as u32 | if self.sack { SACK } else { 0 };
        let carrying = milliseconds >> BITS << BITS | offered;
        if carrying > milliseconds { carrying.wrapping_sub(1 << BITS) } else { carrying }
    }
}

/// The frame of a plain SYN: untagged, IPv4 without options or IPv6 without extension headers. `LENGTH` is that of the
/// Ethernet, IP and bare TCP header: 54 or 74.
#[inline(always)]
pub fn plain_syn<'a, const LENGTH: usize>(frame: Frame<'a>) -> Option<&'a [u8; LENGTH]> {
    let head = frame.cursor().peek::<LENGTH>()?;
    let is_plain = match LENGTH {
        54 => head[12..15] == [0x08, 0x00, 0x45] && head[23] == 6 && be!(u16, field::<8, 14, _>(head), 6) & 0x3fff == 0,
        _ => head[12..14] == [0x86, 0xdd] && head[14] >> 4 == 6 && head[20] == 6,
    };
    (is_plain && head[LENGTH - 7] & (SYN | ACK) == SYN).then_some(head)
}

/// The sum of words as the Internet checksum adds them up, not yet folded.
#[inline(always)]
pub fn sum<const N: usize>(words: &[u32; N]) -> u64 {
    let mut sum = 0;
    let mut at = 0;
    while at < N {
        sum += u64::from(words[at]);
        at += 1;
    }
    sum
}

/// The checksum of a sum, as it lies in memory.
#[inline(always)]
pub const fn fold(sum: u64) -> u16 {
    let sum = (sum & 0xffff_ffff) + (sum >> 32);
    let sum = (sum & 0xffff) + (sum >> 16);
    let sum = (sum & 0xffff) + (sum >> 16);
    let sum = (sum & 0xffff) + (sum >> 16);
    !(sum as u16)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header(options: &[u8]) -> ([u8; LONGEST_SYN + 4], usize) {
        let mut header = [0xa5; LONGEST_SYN + 4];
        header[TCP..TCP + options.len()].copy_from_slice(options);
        (header, TCP + options.len())
    }

    fn offer(options: &[u8]) -> Offer {
        let (header, length) = header(options);
        Offer::read(&header, length)
    }

    #[test]
    fn the_options_of_linux_are_read() {
        let linux = [2, 4, 5, 180, 4, 2, 8, 10, 1, 2, 3, 4, 0, 0, 0, 0, 1, 3, 3, 7];
        let timestamp = u32::from_ne_bytes([1, 2, 3, 4]);
        assert_eq!(offer(&linux), Offer { timestamp, has_timestamp: true, sack: true, window_scale: 7 });
    }

    #[test]
    fn broken_options_are_no_offer_and_end() {
        let none = Offer { window_scale: Offer::NO_SCALE, ..Offer::default() };
        assert_eq!(offer(&[]), none);
        assert_eq!(offer(&[0, 4, 2, 0]), none, "behind the end");
        assert_eq!(offer(&[3, 0, 1, 1]), none, "a length of zero");
        assert_eq!(offer(&[5, 255, 4, 2]), none, "beyond the header");
        assert_eq!(offer(&[3, 4, 7, 7]), none, "a wrong length");
        assert_eq!(offer(&[3, 3, 200, 1]).window_scale, 14, "as the stack takes it");
        let mut cut = [1; 40];
        cut[38..].copy_from_slice(&[8, 10]);
        assert_eq!(offer(&cut), none, "a timestamp that is cut off");
    }

    #[test]
    fn any_bytes_are_read_without_a_panic() {
        let mut state = 1u64;
        for _ in 0..100_000 {
            let mut bytes = [0; LONGEST_SYN + 4];
            for byte in &mut bytes {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                *byte = [(state >> 60) as u8, (state >> 33) as u8][(state >> 50) as usize & 1];
            }
            let _ = Offer::read(&bytes, TCP + (state >> 40) as usize % 41);
        }
    }

    #[test]
    fn a_timestamp_carries_the_offer_and_is_never_early() {
        let offer = Offer { timestamp: 0, has_timestamp: true, sack: true, window_scale: 7 };
        for now in [1_000u32, 1_023, 1_024, 123_456_789] {
            let carried = offer.carried_in(now);
            assert_eq!(carried & 0x3f, 0x17);
            assert!(carried <= now && now - carried < 64, "{carried} at {now}");
        }
    }

    #[test]
    fn a_checksum_of_a_sum_with_its_checksum_is_zero() {
        let words = [0x1234_5678, 0xffff_ffff, 0x8000_0001, 7];
        let checksum = fold(sum(&words));
        assert_eq!(fold(sum(&words) + u64::from(checksum)), 0);
    }
}

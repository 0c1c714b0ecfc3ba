//! SYN cookies: what is answered to a SYN in place of the stack, without keeping anything of it.
//!
//! The cookie is that of the listener, so that the stack knows it again when the client returns it and makes the connection
//! by itself. Here is what goes around it: what the client has offered, and the SYN-ACK.

use crate::frame::{Frame, be, field};
use crate::packet::{ACK, SYN};
use crate::verifier::{again, forget, opaque};

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

impl Cookies {
    /// Whether SYNs are answered.
    #[inline(always)]
    pub const fn are_armed(&self) -> bool {
        self.mode != CookieMode::Off as u32
    }
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

/// What a client has offered, in one number: a function can return it, and the verifier can forget it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Offer(u64);

impl Offer {
    const NO_SCALE: u64 = 15;
    const SACK: u64 = 1 << 4;
    const HAS_TIMESTAMP: u64 = 1 << 5;

    /// Reads the options of a SYN whose header lies in a buffer that is as long as the longest.
    #[inline(always)]
    pub fn read(header: &[u8; LONGEST_SYN + 4], length: usize) -> Self {
        // One number that the verifier forgets on each turn: else it walks the rest once for each combination.
        let mut found = Self::NO_SCALE;
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
                    found = found & !Self::NO_SCALE | u64::from(scale);
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
        Self(u64::from(timestamp) << 32 | found & u64::from(u32::MAX))
    }

    /// The number.
    #[inline(always)]
    pub const fn bits(self) -> u64 {
        self.0
    }

    /// What [`Self::bits`] has given.
    #[inline(always)]
    pub const fn from_bits(bits: u64) -> Self {
        Self(bits)
    }

    /// Its timestamp, in network order as it came; zero without one.
    #[inline(always)]
    pub const fn timestamp(self) -> u32 {
        (self.0 >> 32) as u32
    }

    /// Whether it has a timestamp.
    #[inline(always)]
    pub const fn has_timestamp(self) -> bool {
        self.0 & Self::HAS_TIMESTAMP != 0
    }

    /// Whether it takes selective acknowledgements.
    #[inline(always)]
    pub const fn sack(self) -> bool {
        self.0 & Self::SACK != 0
    }

    /// Its window scale, if it has one.
    #[inline(always)]
    pub const fn window_scale(self) -> Option<u8> {
        let scale = self.0 & Self::NO_SCALE;
        if scale == Self::NO_SCALE { None } else { Some(scale as u8) }
    }

    /// A timestamp not later than this that carries what was offered in its lowest six bits, as the stack reads it there:
    /// scale and SACK, where they lie in the number too.
    #[inline(always)]
    const fn carried_in(self, milliseconds: u32) -> u32 {
        const BITS: u32 = 6;
        let offered = (self.0 & (Self::NO_SCALE | Self::SACK)) as u32;
        let carrying = milliseconds >> BITS << BITS | offered;
        if carrying > milliseconds { carrying.wrapping_sub(1 << BITS) } else { carrying }
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
            let sack = if offer.sack() { u32::from(SACK_PERMITTED) << 24 | 2 << 16 } else { nothing };
            words[6] = (sack | u32::from(TIMESTAMP) << 8 | 10).to_be();
            words[7] = offer.carried_in(milliseconds).to_be();
            words[8] = offer.timestamp();
            let scaled = u32::from(NOP) << 24 | u32::from(WINDOW_SCALE) << 16 | 3 << 8 | u32::from(scale);
            words[9] = if offer.window_scale().is_some() { scaled } else { nothing | nothing >> 16 }.to_be();
        }
        Self { words }
    }
}

/// The frame of a plain SYN.
#[inline(always)]
pub fn plain_syn<'a, const LENGTH: usize>(frame: Frame<'a>) -> Option<&'a [u8; LENGTH]> {
    plain_tcp(frame).filter(|head| head[LENGTH - 7] & (SYN | ACK) == SYN)
}

/// The frame of a plain segment: untagged, IPv4 without options or IPv6 without extension headers. `LENGTH` is that of the
/// Ethernet, IP and bare TCP header: 54 or 74.
#[inline(always)]
pub fn plain_tcp<'a, const LENGTH: usize>(frame: Frame<'a>) -> Option<&'a [u8; LENGTH]> {
    let head = frame.cursor().peek::<LENGTH>()?;
    let is_plain = match LENGTH {
        54 => head[12..15] == [0x08, 0x00, 0x45] && head[23] == 6 && be!(u16, field::<8, 14, _>(head), 6) & 0x3fff == 0,
        _ => head[12..14] == [0x86, 0xdd] && head[14] >> 4 == 6 && head[20] == 6,
    };
    is_plain.then_some(head)
}

/// Words of the TCP header of a SYN, or `None` where that is shorter than a header can be. Each call reads the byte anew, so
/// that the verifier knows no more of it than this. Compared in the register that a length is then made of: kernels up to 6.1
/// do not take over what was found out about the byte.
#[inline(always)]
pub fn header_words(data_offset: &u8) -> Option<u32> {
    let words = opaque(u64::from(again(data_offset) >> 4));
    (words > 4).then_some(words as u32)
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

    fn offer(options: &[u8]) -> (Option<u8>, bool, Option<[u8; 4]>) {
        let (header, length) = header(options);
        let offer = Offer::from_bits(Offer::read(&header, length).bits());
        let timestamp = offer.has_timestamp().then(|| offer.timestamp().to_ne_bytes());
        (offer.window_scale(), offer.sack(), timestamp)
    }

    const NONE: (Option<u8>, bool, Option<[u8; 4]>) = (None, false, None);

    #[test]
    fn the_options_of_linux_are_read() {
        let linux = [2, 4, 5, 180, 4, 2, 8, 10, 1, 2, 3, 4, 0, 0, 0, 0, 1, 3, 3, 7];
        assert_eq!(offer(&linux), (Some(7), true, Some([1, 2, 3, 4])));
    }

    #[test]
    fn broken_options_are_no_offer_and_end() {
        assert_eq!(offer(&[]), NONE);
        assert_eq!(offer(&[0, 4, 2, 0]), NONE, "behind the end");
        assert_eq!(offer(&[3, 0, 1, 1]), NONE, "a length of zero");
        assert_eq!(offer(&[5, 255, 4, 2]), NONE, "beyond the header");
        assert_eq!(offer(&[3, 4, 7, 7]), NONE, "a wrong length");
        assert_eq!(offer(&[3, 3, 200, 1]).0, Some(14), "as the stack takes it");
        let mut cut = [1; 40];
        cut[38..].copy_from_slice(&[8, 10]);
        assert_eq!(offer(&cut), NONE, "a timestamp that is cut off");
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
        let (header, length) = header(&[4, 2, 3, 3, 7, 1]);
        let offer = Offer::read(&header, length);
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

//! What signatures tell packets by: fields of the IP and transport headers, and the first bytes behind them. Off the
//! common path. It says nothing about what is wrong with a packet, and nothing at all of one whose IP header is.

use super::{Chain, MAX_VLAN_TAGS, Walk, ether_type, ipv4_header_length, is_extension, is_vlan, protocol};
use crate::class::Family;
use crate::frame::{Cursor, Frame, be, raw};
use crate::labelled_enum;
use crate::verifier::forget;

labelled_enum! {
    /// Which part of a packet a frame has.
    pub enum Fragment {
        /// All of it: it is in no fragments.
        None = 0 => "none",
        /// The first fragment, with the transport header.
        First = 1 => "first",
        /// A later one: its transport header is elsewhere.
        Later = 2 => "later",
    }
}

labelled_enum! {
    /// A TCP option, as layouts name it.
    pub enum TcpOption {
        /// End of the options: what follows is padding.
        End = 1 => "eol",
        /// Nothing.
        Nop = 2 => "nop",
        /// Maximum segment size.
        Mss = 3 => "mss",
        /// Window scale.
        WindowScale = 4 => "ws",
        /// Selective acknowledgements are permitted.
        Sack = 5 => "sack",
        /// Selective acknowledgements.
        SackBlocks = 6 => "sack-blocks",
        /// Timestamps.
        Timestamps = 7 => "ts",
        /// Fast open cookie.
        FastOpen = 8 => "tfo",
        /// MD5 signature.
        Md5 = 9 => "md5",
        /// Authentication.
        Ao = 10 => "ao",
        /// Multipath TCP.
        Multipath = 11 => "mptcp",
        /// Any other kind.
        Other = 14 => "other",
        /// One whose length is impossible: nothing behind it can be read.
        Bad = 15 => "bad",
    }
}

impl TcpOption {
    #[inline(always)]
    const fn of(kind: u8) -> Self {
        match kind {
            0 => Self::End,
            1 => Self::Nop,
            2 => Self::Mss,
            3 => Self::WindowScale,
            4 => Self::Sack,
            5 => Self::SackBlocks,
            8 => Self::Timestamps,
            19 => Self::Md5,
            29 => Self::Ao,
            30 => Self::Multipath,
            34 => Self::FastOpen,
            _ => Self::Other,
        }
    }
}

/// Options that a layout can name.
pub const MAX_LAYOUT: usize = 15;

/// The TCP options of a segment in their order, four bits each; zero for none. A segment with more than [`MAX_LAYOUT`]
/// has all sixteen places taken, and so is like no layout that can be named.
pub type Layout = u64;

/// Adds an option to a layout.
#[inline(always)]
pub const fn lay(layout: Layout, option: TcpOption) -> Layout {
    layout << 4 | option as u64
}

/// What a packet can be told by.
pub struct Traits<'a> {
    /// Address family.
    pub family: Family,
    /// IP protocol, of later fragments too.
    pub protocol: u8,
    /// Which part of the packet this is.
    pub fragment: Fragment,
    /// Time to live, or hop limit.
    pub hops: u8,
    /// Length of the IP packet with its headers, at most 65,535.
    pub length: u16,
    /// The frame that it is in.
    frame: Frame<'a>,
    /// Where in it what follows the IP headers begins.
    transport: usize,
    /// Bytes of it, by the IP header; none in a later fragment.
    bytes: u32,
    /// Protocol and family, and the fragment, as numbers that the verifier knows nothing of.
    pub(crate) protocol_row: usize,
    pub(crate) fragment_row: usize,
}

/// The furthest that what follows the IP headers can begin: a mask.
const FURTHEST: usize = 0x7fff;

/// What both families have.
struct Found {
    family: Family,
    protocol: u8,
    fragment: Fragment,
    hops: u8,
    length: u32,
    bytes: u32,
}

impl Found {
    /// Without what the verifier has learned of it: what follows is then walked once.
    #[inline(always)]
    fn behind<'a>(self, frame: Frame<'a>, transport: &Cursor<'a>, noise: u64) -> Traits<'a> {
        let Self { family, protocol, fragment, hops, length, bytes } = self;
        let forgotten = |value: u64| forget(value, noise);
        Traits {
            family,
            protocol: forgotten(u64::from(protocol)) as u8,
            fragment,
            hops,
            length: forgotten(u64::from(length)) as u16,
            frame,
            transport: forgotten(frame.distance(transport) as u64) as usize,
            bytes: forgotten(u64::from(bytes)) as u32,
            protocol_row: forgotten((family as u64) << 8 | u64::from(protocol)) as usize,
            fragment_row: forgotten(fragment as u64) as usize,
        }
    }
}

impl<'a> Traits<'a> {
    /// Reads them. `None` where this is no IP packet, or one whose IP headers contradict themselves or the frame.
    #[inline(always)]
    pub fn read(frame: Frame<'a>) -> Option<Self> {
        let mut cursor = frame.cursor();
        let mut ether_type = raw!(u16, cursor.take::<14>()?, 12);
        let mut tags = 0;
        while is_vlan(ether_type) && tags < MAX_VLAN_TAGS {
            ether_type = raw!(u16, cursor.take::<4>()?, 2);
            tags += 1;
        }
        let available = frame.bytes_from(&cursor);
        match ether_type {
            ether_type::IPV4 => Self::read_ipv4(frame, cursor, available),
            ether_type::IPV6 => Self::read_ipv6(frame, cursor, available),
            _ => None,
        }
    }

    #[inline(always)]
    fn read_ipv4(frame: Frame<'a>, mut cursor: Cursor<'a>, available: u32) -> Option<Self> {
        let header = cursor.take::<20>()?;
        let header_length = ipv4_header_length(header[0])?;
        let total = u32::from(be!(u16, header, 2));
        if total < header_length || total > available {
            return None;
        }
        let noise = u64::from(be!(u32, header, 12));
        let options = forget(u64::from(header_length - 20), noise) & 0x3f;
        cursor.skip(options as usize)?;
        let (offset, more) = (be!(u16, header, 6) & 0x1fff, be!(u16, header, 6) & 0x2000);
        let (fragment, bytes) = match (offset, more) {
            (0, 0) => (Fragment::None, total - header_length),
            (0, _) => (Fragment::First, total - header_length),
            _ => (Fragment::Later, 0),
        };
        let found = Found { family: Family::V4, protocol: header[9], fragment, hops: header[8], length: total, bytes };
        Some(found.behind(frame, &cursor, noise))
    }

    #[inline(always)]
    fn read_ipv6(frame: Frame<'a>, mut cursor: Cursor<'a>, available: u32) -> Option<Self> {
        let header = cursor.take::<40>()?;
        let payload = u32::from(be!(u16, header, 4));
        let next = header[6];
        if header[0] >> 4 != 6 || payload + 40 > available || (payload == 0 && next == protocol::HOP_BY_HOP) {
            return None;
        }
        let mut chain = Chain { base: cursor, next, walked: 0, first_fragment: false };
        let mut is_later = false;
        if is_extension(next) {
            match chain.walk(payload) {
                Walk::Transport => {}
                Walk::LaterFragment => is_later = true,
                Walk::TooDeep | Walk::CutOff => return None,
            }
        }
        let (fragment, bytes) = match (is_later, chain.first_fragment) {
            (true, _) => (Fragment::Later, 0),
            (false, true) => (Fragment::First, payload.wrapping_sub(chain.walked)),
            (false, false) => (Fragment::None, payload.wrapping_sub(chain.walked)),
        };
        let length = payload + 40;
        let length = if length > 0xffff { 0xffff } else { length };
        let found = Found { family: Family::V6, protocol: chain.next, fragment, hops: header[7], length, bytes };
        Some(found.behind(frame, &chain.cursor(), be!(u64, header, 8)))
    }

    /// The same packet in another view of its frame, of which the verifier has not learned anything yet.
    #[inline(always)]
    pub(crate) fn seen_in(self, frame: Frame<'a>) -> Self {
        Self { frame, ..self }
    }

    #[inline(always)]
    fn transport(&self) -> Cursor<'a> {
        self.frame.cursor().behind(self.transport & FURTHEST)
    }

    /// The transport header, if the packet says that it has one and it is there.
    #[inline(always)]
    fn header<const N: usize>(&self) -> Option<&'a [u8; N]> {
        if (self.bytes as usize) < N {
            return None;
        }
        self.transport().peek::<N>()
    }

    /// Source and destination port, of TCP and UDP.
    #[inline(always)]
    pub fn ports(&self) -> Option<(u16, u16)> {
        match self.protocol {
            protocol::TCP => self.header::<20>().map(|header| (be!(u16, header, 0), be!(u16, header, 2))),
            protocol::UDP => self.header::<8>().map(|header| (be!(u16, header, 0), be!(u16, header, 2))),
            _ => None,
        }
    }

    /// The flags of TCP, from FIN (1) to CWR (128).
    #[inline(always)]
    pub fn flags(&self) -> Option<u8> {
        if self.protocol != protocol::TCP {
            return None;
        }
        self.header::<20>().map(|header| header[13])
    }

    /// Length of the TCP header, where that is possible, and noise for the verifier.
    #[inline(always)]
    fn tcp_header_length(&self) -> Option<(u32, u64)> {
        let header = self.header::<20>()?;
        let length = u32::from(header[12] >> 4) * 4;
        if length < 20 || length > self.bytes {
            return None;
        }
        let noise = u64::from(be!(u32, header, 4));
        Some(((forget(u64::from(length), noise) & 0x3f) as u32, noise))
    }

    /// The layout of the TCP options.
    #[inline(always)]
    pub fn layout(&self) -> Option<Layout> {
        if self.protocol != protocol::TCP {
            return None;
        }
        let (end, noise) = self.tcp_header_length()?;
        let (mut at, mut layout, mut options) = (20, 0, 0);
        while options <= MAX_LAYOUT && at < end {
            let (option, next) = self.option(at, end);
            layout = forget(lay(layout, option), noise);
            at = (forget(u64::from(next), noise) & 0x7f) as u32;
            options += 1;
        }
        Some(layout)
    }

    /// The TCP option at a place of the header, and where the next one begins.
    #[inline(always)]
    fn option(&self, at: u32, end: u32) -> (TcpOption, u32) {
        // From the byte in front of it: the verifier takes no evidence from a check of the first byte behind a pointer.
        let before = self.transport().behind((at.wrapping_sub(1) & 0x3f) as usize);
        let Some([_, kind]) = before.peek::<2>() else {
            return (TcpOption::Bad, end);
        };
        let option = TcpOption::of(*kind);
        match option {
            TcpOption::End => return (option, end),
            TcpOption::Nop => return (option, at + 1),
            _ => {}
        }
        match before.peek::<3>() {
            Some([_, _, length]) if *length >= 2 && at + u32::from(*length) <= end => (option, at + u32::from(*length)),
            _ => (TcpOption::Bad, end),
        }
    }

    /// The first eight bytes of the payload, the first one uppermost; `None` where there are fewer.
    pub fn beginning(&self) -> Option<u64> {
        self.payload(0).word(0, 8)
    }

    /// Where the payload begins behind the IP headers, and how long it is: behind the header of TCP and UDP; of other
    /// protocols all that follows IP. None in a later fragment. `noise` is for the verifier.
    #[inline(always)]
    pub(crate) fn payload(&self, noise: u64) -> Payload<'a> {
        let header = match self.protocol {
            protocol::TCP => self.tcp_header_length().map(|(length, _)| length),
            protocol::UDP => Some(8),
            _ => Some(0),
        };
        let (header, bytes) = match header {
            Some(header) if header <= self.bytes => (header, self.bytes - header),
            _ => (0, 0),
        };
        let start = self.transport as u64 + u64::from(header);
        let before = forget(start.wrapping_sub(1), noise) as usize & FURTHEST;
        Payload { before: self.frame.cursor().behind(before), bytes: forget(u64::from(bytes), noise) as u32 }
    }
}

/// What a packet carries.
#[derive(Clone, Copy)]
pub(crate) struct Payload<'a> {
    /// The byte in front of it, for the same reason as with options.
    before: Cursor<'a>,
    bytes: u32,
}

impl Payload<'_> {
    /// The `bytes` (8 at most) from `offset` (below 128) on, the first one uppermost; what lies behind them may be anything.
    /// `None` where the payload or the readable part of the frame ends before.
    #[inline(always)]
    pub(crate) fn word(&self, offset: u32, bytes: u32) -> Option<u64> {
        if offset + bytes > self.bytes {
            return None;
        }
        let before = self.before.behind((offset & 0x7f) as usize);
        if let Some(bytes) = before.peek::<9>() {
            return Some(be!(u64, bytes, 1));
        }
        let (mut word, mut read) = (0, 0);
        while read < 7 {
            let Some([_, byte]) = before.behind(read).peek::<2>() else {
                break;
            };
            word |= u64::from(*byte) << (56 - 8 * read as u32);
            read += 1;
        }
        (read >= bytes as usize).then_some(word)
    }
}

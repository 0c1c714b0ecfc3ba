//! What is true of the parser's answer to any bytes at all. The property tests and the fuzz target check it.

use floodwall_common::class::{Class, Kind};
use floodwall_common::packet::{Frame, Packet, Parsed, fast, parse};
use floodwall_common::reason::Reason;

/// Where the IP packet lies in a frame, by the frame's own words.
pub(crate) struct Layout {
    /// Where the network header begins.
    pub(crate) link: usize,
    /// Whether it is IPv4; else IPv6.
    pub(crate) is_v4: bool,
    /// Where the packet ends by its own length; at most 64 KiB and a header behind `link`. None where the length is cut.
    pub(crate) end: Option<usize>,
}

/// Reads the tags and the length: a second parser, much smaller than the first.
pub(crate) fn layout(frame: &[u8]) -> Option<Layout> {
    let word = |at: usize| Some(u16::from_be_bytes(frame.get(at..at + 2)?.try_into().ok()?));
    let mut link = 14;
    while matches!(word(link - 2)?, 0x8100 | 0x88a8 | 0x9100) && link < 22 {
        link += 4;
    }
    let is_v4 = match word(link - 2)? {
        0x0800 => true,
        0x86dd => false,
        _ => return None,
    };
    let length = word(link + if is_v4 { 2 } else { 4 });
    let end = length.map(|length| link + usize::from(length) + if is_v4 { 0 } else { 40 });
    Some(Layout { link, is_v4, end })
}

/// Parses all of a slice.
pub(crate) fn parsed(frame: &[u8]) -> Parsed {
    parse(Frame::new(frame))
}

/// Parses a frame of which only the first bytes are readable, as with frames in several pieces.
pub(crate) fn parsed_head(frame: &[u8], readable: usize) -> Parsed {
    let head = &frame[..readable];
    let start = head.as_ptr() as usize;
    // SAFETY: the range is that of `head`, which outlives the call.
    parse(unsafe { Frame::from_raw(start, start + readable, frame.len() as u32) })
}

/// The answer for a frame of another length.
pub(crate) fn with_bytes(parsed: Parsed, bytes: usize) -> Parsed {
    match parsed {
        Parsed::Packet(packet) => Parsed::Packet(Packet { bytes: bytes as u32, ..packet }),
        settled => settled,
    }
}

/// The fast path says what the complete parser says, or nothing; also where only the first bytes are readable.
fn check_fast(frame: &[u8]) {
    for readable in [frame.len(), frame.len().min(54), frame.len() / 2] {
        let head = Frame::cut(&frame[..readable], frame.len() as u32);
        if let Some(answer) = fast::parse(head) {
            assert_eq!(answer, parse(head), "{readable} of {frame:02x?}");
        }
    }
}

/// Checks all of it.
///
/// # Panics
/// Where something is not true.
pub(crate) fn check(frame: &[u8]) -> Parsed {
    check_fast(frame);
    let answer = parsed(frame);
    belongs_to_the_parser(answer, frame.len());
    cut_is_named(frame);
    if let Some(layout) = layout(frame) {
        padding_changes_nothing(frame, &layout, answer);
        later_fragments_end_with_their_header(frame, &layout, answer);
        link_is_transparent(frame, &layout, answer);
    }
    answer
}

/// Every answer has a place in the counters, and a reason that is the parser's to give.
fn belongs_to_the_parser(answer: Parsed, bytes: usize) {
    match answer {
        Parsed::Settled(Reason::NotIp | Reason::VlanDepth | Reason::Encapsulated, kind) => {
            assert_eq!(kind, Kind::NOT_IP, "{answer:?}");
        }
        Parsed::Settled(Reason::Short | Reason::MalformedIp, kind) => {
            assert!(matches!(kind.parts(), None | Some((_, Class::Other))), "{answer:?}");
        }
        Parsed::Settled(Reason::NeighborDiscovery | Reason::PacketTooBig, kind) => {
            assert!(matches!(kind.parts(), Some((_, Class::Icmp))), "{answer:?}");
        }
        Parsed::Packet(packet) => belongs_to_its_class(packet, bytes),
        Parsed::Settled(..) => panic!("{answer:?}"),
    }
}

fn belongs_to_its_class(packet: Packet, bytes: usize) {
    let (family, class) = packet.kind.parts().unwrap();
    assert_eq!(family, packet.source.family());
    assert_eq!(packet.bytes as usize, bytes);
    let fits = match packet.finding {
        Reason::Passed | Reason::Land | Reason::Martian => true,
        Reason::Tunnel | Reason::ExtensionDepth | Reason::MalformedIp => class == Class::Other,
        Reason::BareSyn => class == Class::TcpSyn,
        Reason::MalformedTcp | Reason::ImpossibleFlags => matches!(class, Class::Tcp | Class::TcpSyn),
        Reason::MalformedUdp => class == Class::Udp,
        Reason::MalformedIcmp => class == Class::Icmp,
        _ => false,
    };
    assert!(fits, "{packet:?}");
}

/// Where only a part of the frame is readable, the answer is the same, or says what is cut off.
fn cut_is_named(frame: &[u8]) {
    let whole = parsed(frame);
    for readable in [0, 13, 14, 18, 22, 33, 34, 41, 54, 62, 74].into_iter().filter(|readable| *readable < frame.len()) {
        let head = parsed_head(frame, readable);
        let is_named = match head {
            Parsed::Settled(reason, _) => matches!(reason, Reason::Short | Reason::MalformedIp),
            Parsed::Packet(packet) => {
                let class = packet.kind.parts().map(|(_, class)| class);
                let is_malformed = matches!(
                    packet.finding,
                    Reason::MalformedIp | Reason::MalformedTcp | Reason::MalformedUdp | Reason::MalformedIcmp
                );
                is_malformed || class == Some(Class::Fragment)
            }
        };
        assert!(head == whole || is_named, "{readable} of {frame:02x?}: {head:?}, but {whole:?}");
    }
}

/// What follows the end that the IP header says is nobody's business: neither its bytes nor their number.
fn padding_changes_nothing(frame: &[u8], layout: &Layout, answer: Parsed) {
    let header = layout.link + if layout.is_v4 { 20 } else { 40 };
    let Some(end) = layout.end.filter(|end| (header..=frame.len()).contains(end)) else {
        return;
    };
    for padding in [&[][..], &[0; 7], &[0xff; 64], &[1, 1, 6, 17, 58, 44, 0, 0]] {
        let other = [&frame[..end], padding].concat();
        assert_eq!(parsed(&other), with_bytes(answer, other.len()), "{frame:02x?} with {} behind it", padding.len());
    }
}

/// Whatever stands behind the header of a later fragment, the answer is the same.
fn later_fragments_end_with_their_header(frame: &[u8], layout: &Layout, answer: Parsed) {
    let byte = |at: usize| frame.get(layout.link + at).copied().unwrap_or(0);
    let offset = u16::from_be_bytes([byte(6), byte(7)]);
    let header = match layout.is_v4 {
        true if offset & 0x1fff != 0 => (usize::from(byte(0) & 0x0f) * 4).max(20),
        // A fragment header right behind the IP header.
        false if byte(6) == 44 && u16::from_be_bytes([byte(42), byte(43)]) & 0xfff8 != 0 => 48,
        _ => return,
    };
    for filler in [0, 0x11, 0xff] {
        let mut other = frame.to_vec();
        other.iter_mut().skip(layout.link + header).for_each(|byte| *byte = filler);
        assert_eq!(parsed(&other), answer, "{frame:02x?} depends on bytes behind its header");
    }
}

/// The same packet without tags has the same answer.
fn link_is_transparent(frame: &[u8], layout: &Layout, answer: Parsed) {
    let bare = [&frame[..12], &frame[layout.link - 2..]].concat();
    assert_eq!(parsed(&bare), with_bytes(answer, bare.len()), "{frame:02x?} without its tags");
}

//! Who was asked: which packets that look like replies answer something that this host has sent.
//!
//! A reflected flood is made of replies to questions that somebody else asked in this host's name: answers from
//! amplifiers, SYN-ACKs, resets, ICMP errors. What the host sends is remembered by the tuple that a reply to it would
//! have, for a minute ([`SPAN`]); a reply that is not remembered answers nothing.
//!
//! The memory is that of [`crate::memory`], of [`LINES`] lines.
//!
//! What it can cost:
//! - *False matches.* A reply to nothing passes as one to something with a probability of 1 in 2,400 beside 10,000
//!   conversations, and of 2.6 % beside 100,000 (measured by a test). It errs towards passing; limits come after.
//! - *Only what leaves through a protected interface fills it*, and who returns one of this host's SYN cookies. A stranger can
//!   make this host send (an answer to him), and so can fill it with tuples of his choice of peers; what that buys is that
//!   replies of those peers pass to limits.

use crate::frame::{Cursor, Frame, be};
use crate::hash::HashKey;
use crate::memory::{Span, Trace};
use crate::packet::ends::Ends;
use crate::packet::fast::Rest;
use crate::packet::{ACK, RST, SYN, protocol};
use crate::services::Transport;
use crate::verifier::index;

/// Lines of the memory (512 KiB).
pub const LINES: usize = 1 << 15;
/// How long a question is remembered: 69 to 137 s.
pub const SPAN: Span = Span { generation_bits: 36 };

const ECHO: u8 = 8;
const ECHO_REPLY: u8 = 0;
const ECHO_V6: u8 = 128;
const ECHO_REPLY_V6: u8 = 129;

/// Words of a [`PortSet`].
pub const PORT_WORDS: usize = 1 << 10;

/// A set of ports.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct PortSet {
    words: [u64; PORT_WORDS],
}

impl PortSet {
    /// No port.
    pub const fn empty() -> Self {
        Self { words: [0; PORT_WORDS] }
    }

    /// Whether it holds this port.
    #[inline(always)]
    pub fn has(&self, port: u16) -> bool {
        self.words[index(port) >> 6] >> (port & 63) & 1 == 1
    }

    /// Takes a port in, or out.
    pub const fn set(&mut self, port: u16, member: bool) {
        let (word, bit) = (&mut self.words[(port >> 6) as usize], 1 << (port & 63));
        *word = if member { *word | bit } else { *word & !bit };
    }

    /// The ports that are in it.
    pub fn iter(&self) -> impl Iterator<Item = u16> {
        (0..=u16::MAX).filter(|port| self.has(*port))
    }
}

/// UDP services that answer with more than they are asked, and that floods have come from: port and name.
pub const AMPLIFIERS: &[(u16, &str)] = &[
    (17, "qotd"),
    (19, "chargen"),
    (53, "dns"),
    (69, "tftp"),
    (111, "portmap"),
    (123, "ntp"),
    (137, "netbios"),
    (161, "snmp"),
    (177, "xdmcp"),
    (389, "cldap"),
    (427, "slp"),
    (443, "quic"),
    (500, "isakmp"),
    (520, "rip"),
    (623, "ipmi"),
    (1194, "openvpn"),
    (1434, "mssql"),
    (1604, "citrix"),
    (1701, "l2tp"),
    (1900, "ssdp"),
    (3283, "ard"),
    (3389, "rdp"),
    (3478, "stun"),
    (3702, "ws-discovery"),
    (4500, "ipsec-nat-t"),
    (5060, "sip"),
    (5093, "sentinel"),
    (5351, "nat-pmp"),
    (5353, "mdns"),
    (5683, "coap"),
    (10001, "ubiquiti"),
    (11211, "memcached"),
    (17185, "vxworks"),
    (20800, "call-of-duty"),
    (27015, "source-engine"),
    (30120, "fivem"),
    (30718, "lantronix"),
    (32414, "plex"),
    (33848, "jenkins"),
    (37810, "dvr"),
    (47808, "bacnet"),
];

/// Two ends of a conversation, as a reply to it would name them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Conversation {
    /// The other end: an IPv6 address in two halves; of an IPv4 address the lower half is zero.
    pub peer: (u64, u64),
    /// Its port, then ours; of an ICMP echo its identifier, twice; of other protocols zeros.
    pub ports: (u16, u16),
    /// The IP protocol.
    pub protocol: u8,
}

impl Conversation {
    /// What a frame that leaves this host is part of. `None` for what nobody replies to in a way that is looked at here.
    #[inline(always)]
    pub fn of_sent(frame: Frame<'_>) -> Option<Self> {
        let ends = Ends::read(frame)?;
        if ends.is_icmp() && !matches!(ends.transport.peek::<8>()?[0], ECHO | ECHO_V6) {
            return None;
        }
        // Whoever sends what was never asked for is answered with a reset: that is no conversation.
        if ends.protocol == protocol::TCP && ends.transport.peek::<14>().is_some_and(|tcp| tcp[13] & RST != 0) {
            return None;
        }
        Self::of_asker(&ends)
    }

    /// What a frame that has come in claims to be a reply to. `None` where it claims no such thing: for TCP but SYN-ACK and
    /// RST, UDP but from the ports of `amplifiers`, ICMP but errors and echo replies, and all that cannot be read.
    #[inline(always)]
    pub fn of_reply(frame: Frame<'_>, amplifiers: &PortSet) -> Option<Self> {
        Self::of_claim(&Ends::read(frame)?, |port| amplifiers.has(port))
    }

    /// What a frame that has come in is part of, if this host has begun it. `None` where nobody can have, and of later fragments.
    pub fn of_received(frame: Frame<'_>) -> Option<Self> {
        Self::of_answer(&Ends::read(frame)?)
    }

    #[inline(always)]
    pub(crate) fn of_claim(ends: &Ends<'_>, is_amplifier: impl FnOnce(u16) -> bool) -> Option<Self> {
        let header = ends.transport.peek::<8>()?;
        let ports = (be!(u16, header, 0), be!(u16, header, 2));
        let is_reply = match ends.protocol {
            protocol::TCP => is_tcp_reply(&ends.transport)?,
            protocol::UDP => is_amplifier(ports.0),
            _ if ends.is_icmp() => return Self::of_icmp_reply(ends, header),
            _ => false,
        };
        is_reply.then_some(Self { peer: ends.source, ports, protocol: ends.protocol })
    }

    /// The same of usual headers, in which everything has been found.
    #[inline(always)]
    pub(crate) fn of_usual_claim(packet: &Rest<'_>, is_amplifier: impl FnOnce(u16) -> bool) -> Option<Self> {
        let is_reply = match Transport::either(packet.protocol) {
            Transport::Tcp => is_tcp_reply(&packet.transport)?,
            Transport::Udp => is_amplifier(packet.ports.0),
        };
        is_reply.then_some(Self::of_usual(packet))
    }

    /// What a plain segment that has come in is part of: [`crate::cookie::plain_tcp`].
    #[inline(always)]
    pub fn of_plain<const LENGTH: usize>(head: &[u8; LENGTH]) -> Self {
        let peer = match LENGTH {
            54 => (u64::from(be!(u32, head, 26)), 0),
            _ => (be!(u64, head, 22), be!(u64, head, 30)),
        };
        let ports = head.last_chunk::<20>().map_or((0, 0), |tcp| (be!(u16, tcp, 0), be!(u16, tcp, 2)));
        Self { peer, ports, protocol: protocol::TCP }
    }

    /// What a packet with usual headers is part of.
    #[inline(always)]
    pub(crate) const fn of_usual(packet: &Rest<'_>) -> Self {
        Self { peer: packet.from, ports: packet.ports, protocol: packet.protocol }
    }

    /// What a frame that has come in is part of, if this host has begun it. `None` where nobody can have: an ICMP question.
    #[inline(always)]
    pub(crate) fn of_answer(ends: &Ends<'_>) -> Option<Self> {
        if ends.is_icmp() {
            return Self::of_icmp_reply(ends, ends.transport.peek::<8>()?);
        }
        let ports = match ends.protocol {
            protocol::TCP | protocol::UDP => {
                let header = ends.transport.peek::<4>()?;
                (be!(u16, header, 0), be!(u16, header, 2))
            }
            _ => (0, 0),
        };
        Some(Self { peer: ends.source, ports, protocol: ends.protocol })
    }

    #[inline(always)]
    fn of_icmp_reply(ends: &Ends<'_>, header: &[u8; 8]) -> Option<Self> {
        let inner = ends.transport.behind(8);
        match (ends.protocol, header[0]) {
            (protocol::ICMP, ECHO_REPLY) | (protocol::ICMPV6, ECHO_REPLY_V6) => {
                let identifier = be!(u16, header, 4);
                Some(Self { peer: ends.source, ports: (identifier, identifier), protocol: ends.protocol })
            }
            // Unreachable, source quench, time exceeded, parameter problem: behind it is what we are said to have sent.
            (protocol::ICMP, 3 | 4 | 11 | 12) => Some(Self::of_quoted(Ends::read_ipv4(inner))),
            (protocol::ICMPV6, 1 | 3 | 4) => Some(Self::of_quoted(Ends::read_ipv6(inner))),
            _ => None,
        }
    }

    /// An error that quotes nothing answers nothing.
    #[inline(always)]
    fn of_quoted(quoted: Option<Ends<'_>>) -> Self {
        quoted.and_then(|ends| Self::of_asker(&ends)).unwrap_or(Self::NONE)
    }

    /// A conversation that nobody has: port and protocol are those of no packet.
    const NONE: Self = Self { peer: (0, 0), ports: (0, 0), protocol: 0 };

    /// The conversation of a packet that this host sends.
    #[inline(always)]
    fn of_asker(ends: &Ends<'_>) -> Option<Self> {
        let ports = match ends.protocol {
            protocol::TCP | protocol::UDP => {
                let header = ends.transport.peek::<8>()?;
                (be!(u16, header, 2), be!(u16, header, 0))
            }
            _ if ends.is_icmp() => {
                let header = ends.transport.peek::<8>()?;
                (be!(u16, header, 4), be!(u16, header, 4))
            }
            // For the errors that quote them: SCTP, GRE, ESP.
            _ => (0, 0),
        };
        Some(Self { peer: ends.destination, ports, protocol: ends.protocol })
    }

    /// Where its traces lie.
    #[inline(always)]
    pub const fn trace(&self, key: &HashKey) -> Trace {
        // Each half in turn is multiplied by a secret and folded: three multiplications and the last one of the hash.
        let ends = (self.ports.0 as u64) << 32 | (self.ports.1 as u64) << 16 | self.protocol as u64;
        Trace::new(key.scatter(self.peer.0 ^ key.fold(self.peer.1 ^ key.fold(ends))))
    }
}

/// Whether a segment looks like an answer: a SYN-ACK or a reset.
#[inline(always)]
fn is_tcp_reply(transport: &Cursor<'_>) -> Option<bool> {
    let flags = transport.peek::<14>()?[13];
    Some(flags & RST != 0 || flags & (SYN | ACK) == SYN | ACK)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::memory::tests::Memory;

    const KEY: HashKey = HashKey::new([0x2545_f491_4f6c_dd1d, 0xd129_0d3a_77e5_5a3b]);
    const NOON: u64 = 40_000 << 30;

    fn conversation(n: u64) -> Conversation {
        Conversation { peer: (0x0808_0000 + n, 0), ports: (53, 40_000), protocol: 17 }
    }

    #[test]
    fn a_reply_from_elsewhere_is_not_the_one() {
        let memory = Memory::new(LINES, SPAN);
        let asked = conversation(1);
        memory.remember(asked.trace(&KEY), NOON);
        assert!(memory.remembers(asked.trace(&KEY), NOON));
        let others = [
            conversation(2),
            Conversation { peer: (asked.peer.0, 1), ..asked },
            Conversation { ports: (53, 40_001), ..asked },
            Conversation { ports: (123, 40_000), ..asked },
            Conversation { ports: (40_000, 53), ..asked },
            Conversation { protocol: 6, ..asked },
        ];
        for other in others {
            assert!(!memory.remembers(other.trace(&KEY), NOON), "{other:?}");
        }
    }

    #[test]
    fn a_set_of_ports_holds_what_was_put_in() {
        let mut ports = PortSet::empty();
        for (port, _) in AMPLIFIERS {
            ports.set(*port, true);
        }
        assert!(ports.has(53) && ports.has(47_808) && !ports.has(54));
        assert!(ports.iter().eq(AMPLIFIERS.iter().map(|(port, _)| *port)), "sorted, and each once");
        ports.set(53, false);
        assert!(!ports.has(53));
    }
}

//! What detection knows of a packet: fields of its headers, and whether this host has spoken with whom it claims to be from.

use floodwall_common::class::Class;
use floodwall_common::packet::{Frame, Parsed, Source, addresses, parse};
use floodwall_common::reason::Reason;
use floodwall_common::replies::{AMPLIFIERS, Conversation};
use floodwall_common::signatures::{Fragment, Layout, Traits};

use super::handshakes::Handshakes;
use super::held::Held;
use crate::pressure::Pressure;

const FIN_SYN_RST_ACK: u8 = 0x17;
const SYN: u8 = 0x02;
const RST: u8 = 0x04;
const ACK: u8 = 0x10;

const ICMP: u8 = 1;
const TCP: u8 = 6;
const UDP: u8 = 17;
const ICMPV6: u8 = 58;
/// No protocol has it.
const RESERVED: u8 = 255;

/// What a packet is part of. Each kind of flood has one in which it shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Group {
    /// Connection attempts.
    Syn,
    /// SYN-ACKs and resets that answer nothing, as far as is known.
    TcpReplies,
    /// All other TCP.
    Tcp,
    /// UDP from ports that amplifiers answer from, and that answers nothing, as far as is known.
    UdpReplies,
    /// All other UDP.
    Udp,
    /// ICMP and ICMPv6.
    Icmp,
    /// Later fragments.
    Fragments,
    /// Other protocols, and IP too broken to have one.
    Other,
}

impl Group {
    /// All of them, in the order of their numbers.
    pub const ALL: [Self; 8] =
        [Self::Syn, Self::TcpReplies, Self::Tcp, Self::UdpReplies, Self::Udp, Self::Icmp, Self::Fragments, Self::Other];

    /// The name that leaves the process.
    pub const fn label(self) -> &'static str {
        match self {
            Self::Syn => "syn",
            Self::TcpReplies => "tcp-replies",
            Self::Tcp => "tcp",
            Self::UdpReplies => "udp-replies",
            Self::Udp => "udp",
            Self::Icmp => "icmp",
            Self::Fragments => "fragments",
            Self::Other => "other",
        }
    }

    /// The class that its packets are counted in.
    pub const fn class(self) -> Class {
        match self {
            Self::Syn => Class::TcpSyn,
            Self::TcpReplies | Self::Tcp => Class::Tcp,
            Self::UdpReplies | Self::Udp => Class::Udp,
            Self::Icmp => Class::Icmp,
            Self::Fragments => Class::Fragment,
            Self::Other => Class::Other,
        }
    }
}

/// The two ends of a TCP connection, seen from here.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Tuple {
    /// The other end.
    pub source: (u64, u64),
    /// Its port, then ours.
    pub ports: (u16, u16),
}

impl From<&Tuple> for Conversation {
    fn from(tuple: &Tuple) -> Self {
        Self { peer: tuple.source, ports: tuple.ports, protocol: TCP }
    }
}

/// A packet that came in.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Observed {
    /// When, in nanoseconds.
    pub at_ns: u64,
    /// Packets that it stands for.
    pub weight: u32,
    /// Whom it claims to be from.
    pub source: Source,
    /// Which address it is for.
    pub destination: Source,
    /// IP protocol.
    pub protocol: u8,
    /// Which part of the packet this is.
    pub fragment: Fragment,
    /// Source and destination port, where it has some.
    pub ports: Option<(u16, u16)>,
    /// TCP flags.
    pub flags: Option<u8>,
    /// Layout of the TCP options; zero for none.
    pub layout: Layout,
    /// Time to live.
    pub hops: u8,
    /// Length of the IP packet.
    pub length: u16,
    /// The first eight bytes of what it carries, as one number; `None` where there are fewer.
    pub beginning: Option<u64>,
    /// Its headers contradict themselves.
    pub is_malformed: bool,
    /// Whether this host has spoken with that end; `None` where that cannot be known.
    pub is_known: Option<bool>,
    /// Of TCP of such an end: whether this host has sent data to it, too; `None` where that cannot be known.
    pub is_verified: Option<bool>,
    /// It goes to a UDP port on which this host answers whoever asks.
    pub is_to_service: bool,
    /// It is dropped, or would be in enforce mode.
    pub is_held: bool,
}

/// Packets a second of each class, by its number.
pub type Rates = [f64; Class::ALL.len()];

/// What this host knows of those that a packet may be from.
pub trait Host {
    /// Whether it has sent anything in this conversation lately; `None` where what it sends is not seen.
    fn has_sent(&self, conversation: Conversation) -> Option<bool>;
    /// Whether it has sent data to this source over TCP lately; `None` where that is not seen.
    fn is_verified(&self, _source: Source) -> Option<bool> {
        None
    }
    /// Whether it answers whoever asks on this UDP port.
    fn serves_udp(&self, port: u16) -> bool;
    /// Packets a second of each class, counted one by one, for where the packets seen are a sample.
    fn rates(&self) -> Option<Rates> {
        None
    }
    /// Hours since 1970; `None` where there is no knowing.
    fn unix_hour(&self) -> Option<u64> {
        None
    }
    /// What is open of connections, by the host's own stack; `None` where nobody has looked.
    fn held(&self) -> Option<&Held> {
        None
    }
    /// What this host has no room for, by its own counts.
    fn pressure(&self) -> Pressure {
        Pressure::default()
    }
    /// What came on of a group while none of it was let through, by what there was before, where that was tried lately.
    fn probe(&self) -> Option<(Group, f64)> {
        None
    }
    /// What the host's own stack says of connections, for where too few are sampled to be followed.
    fn stack(&self) -> Option<Handshakes> {
        None
    }
}

#[cfg(test)]
impl Observed {
    /// A segment of TCP to a web server, as tests of connections want it: from there and this port, with these flags.
    pub(crate) fn segment(source: u32, port: u16, at_ns: u64, flags: u8) -> Self {
        Self {
            at_ns,
            weight: 1,
            source: Source::V4(source),
            destination: Source::V4(0xc000_0201),
            protocol: TCP,
            fragment: Fragment::None,
            ports: Some((port, 443)),
            flags: Some(flags),
            layout: 1,
            hops: 57,
            length: 60,
            beginning: None,
            is_malformed: false,
            is_known: None,
            is_verified: None,
            is_to_service: false,
            is_held: false,
        }
    }
}

impl Observed {
    /// What a frame tells. `None` where it is not IP, or its IP header is malformed.
    pub fn of(frame: Frame<'_>, at_ns: u64, weight: u32, is_held: bool, host: &impl Host) -> Option<Self> {
        let Parsed::Packet(packet) = parse(frame) else { return None };
        let Some(traits) = Traits::read(frame) else { return Self::broken(frame, at_ns, weight, is_held, host) };
        let (_, destination) = addresses(frame)?;
        let nothing = Conversation { peer: packet.source.halves(), ports: (0, 0), protocol: traits.protocol };
        let is_known = host.has_sent(Conversation::of_received(frame).unwrap_or(nothing));
        let is_tcp = traits.protocol == TCP;
        let is_to_service = traits.protocol == UDP && traits.ports().is_some_and(|(_, port)| host.serves_udp(port));
        Some(Self {
            at_ns,
            weight,
            source: packet.source,
            destination,
            protocol: traits.protocol,
            fragment: traits.fragment,
            ports: traits.ports(),
            flags: traits.flags(),
            layout: traits.layout().unwrap_or(0),
            hops: traits.hops,
            length: traits.length,
            beginning: traits.beginning(),
            is_malformed: !matches!(packet.finding, Reason::Passed | Reason::Tunnel),
            is_known,
            is_verified: if is_tcp { host.is_verified(packet.source) } else { None },
            is_to_service,
            is_held,
        })
    }

    /// IP that is too broken to say more than whom it claims to be from.
    fn broken(frame: Frame<'_>, at_ns: u64, weight: u32, is_held: bool, host: &impl Host) -> Option<Self> {
        let (source, destination) = addresses(frame)?;
        let nothing = Conversation { peer: source.halves(), ports: (0, 0), protocol: RESERVED };
        Some(Self {
            at_ns,
            weight,
            source,
            destination,
            protocol: RESERVED,
            fragment: Fragment::None,
            ports: None,
            flags: None,
            layout: 0,
            hops: 0,
            length: frame.bytes().min(u16::MAX.into()) as u16,
            beginning: None,
            is_malformed: true,
            is_known: host.has_sent(nothing),
            is_verified: None,
            is_to_service: false,
            is_held,
        })
    }

    /// What it is part of.
    pub fn group(&self) -> Group {
        if self.fragment == Fragment::Later {
            return Group::Fragments;
        }
        let answers_nothing = self.is_known != Some(true);
        match (self.protocol, self.flags.map(|flags| flags & FIN_SYN_RST_ACK), self.ports) {
            (TCP, Some(flags), _) if flags & (SYN | ACK) == SYN => Group::Syn,
            (TCP, Some(flags), _) if answers_nothing && is_reply(flags) => Group::TcpReplies,
            (TCP, ..) => Group::Tcp,
            (UDP, _, Some((from, _))) if answers_nothing && !self.is_to_service && is_amplifier(from) => {
                Group::UdpReplies
            }
            (UDP, ..) => Group::Udp,
            (ICMP | ICMPV6, ..) => Group::Icmp,
            _ => Group::Other,
        }
    }

    /// Whether this host speaks with that end. In a flood of SYNs that are answered the memory of what was sent is full of the answers, and
    /// takes some that were never sent for such: of TCP it takes more than that.
    pub fn is_spoken_with(&self) -> bool {
        self.is_known == Some(true) && self.is_verified != Some(false)
    }

    /// The connection that it is part of.
    pub fn tuple(&self) -> Option<Tuple> {
        Some(Tuple { source: self.source.halves(), ports: self.ports? })
    }

    /// Whether it is a SYN, a segment that acknowledges, or neither.
    pub fn acknowledges(&self) -> bool {
        self.flags.is_some_and(|flags| flags & (SYN | RST | ACK) == ACK)
    }

    /// Whether it is a SYN-ACK.
    pub fn is_syn_ack(&self) -> bool {
        self.flags.is_some_and(|flags| flags & (SYN | ACK) == SYN | ACK)
    }
}

const fn is_reply(flags: u8) -> bool {
    flags & RST != 0 || flags & (SYN | ACK) == SYN | ACK
}

/// Whether floods are known that come from this UDP port.
pub(crate) fn is_amplifier(port: u16) -> bool {
    AMPLIFIERS.iter().any(|(known, _)| *known == port)
}

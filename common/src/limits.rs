//! What an operator may set: rates and bursts, by class and by who shares them; their bounds and their defaults.

use crate::labelled_enum;

/// Fastest packet limit: at one cost unit of 16 ns more would round by over 1 %.
pub const MAX_PACKETS_PER_SECOND: u64 = 1_000_000;
/// Fastest byte limit: 10 Gbit/s from one source.
pub const MAX_BYTES_PER_SECOND: u64 = 1_250_000_000;
/// Slowest byte limit: a frame of 64 KiB is then worth 65 s.
pub const MIN_BYTES_PER_SECOND: u64 = 1_000;
/// A burst may be worth at most this many seconds of its rate: arrival times have to stay far from their wrap.
pub const MAX_BURST_SECONDS: u64 = 500;

labelled_enum! {
    /// What a rate counts.
    pub enum Unit {
        /// Packets per second.
        Packets = 0 => "packets",
        /// Bytes of frames per second.
        Bytes = 1 => "bytes",
    }
}

impl Unit {
    /// The highest rate that can be kept within 2 %.
    pub const fn max_rate(self) -> u64 {
        match self {
            Self::Packets => MAX_PACKETS_PER_SECOND,
            Self::Bytes => MAX_BYTES_PER_SECOND,
        }
    }

    /// The lowest rate: below it one large frame would be worth more time than the arrival times can hold.
    pub const fn min_rate(self) -> u64 {
        match self {
            Self::Packets => 1,
            Self::Bytes => MIN_BYTES_PER_SECOND,
        }
    }

    /// The smallest burst: of bytes a few frames, since the gate lets one pass before anything is charged.
    pub const fn min_burst(self) -> u64 {
        match self {
            Self::Packets => 1,
            Self::Bytes => 10_000,
        }
    }

    /// What one frame counts for on an ordinary link: what the gate may have let pass for nothing.
    pub(crate) const fn usual_packet(self) -> u64 {
        match self {
            Self::Packets => 1,
            Self::Bytes => 1_514,
        }
    }

    /// What one frame can count for at most (generic mode sees segments joined to 64 KiB).
    pub(crate) const fn largest_packet(self) -> u64 {
        match self {
            Self::Packets => 1,
            Self::Bytes => 65_536,
        }
    }
}

/// A limit as the operator says it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rate {
    /// No limit.
    Off,
    /// Nothing passes.
    Block,
    /// At most `burst` at once and `per_second` in the long run.
    Limit {
        /// Packets or bytes per second.
        per_second: u64,
        /// Packets or bytes at once.
        burst: u64,
    },
}

impl core::fmt::Display for Rate {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            Self::Off => f.write_str("off"),
            Self::Block => f.write_str("block"),
            Self::Limit { per_second, burst } => write!(f, "{per_second} per second with a burst of {burst}"),
        }
    }
}

/// Why a rate cannot be kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RateError {
    /// Below [`Unit::min_rate`] or above [`Unit::max_rate`].
    RateOutOfRange,
    /// Below [`Unit::min_burst`], or worth more than [`MAX_BURST_SECONDS`] of the rate.
    BurstOutOfRange,
}

/// A limit as it lies in the map for people to read back: zero means block, `u64::MAX` off.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct RateSpec {
    per_second: u64,
    burst: u64,
}

impl RateSpec {
    /// No limit.
    pub const OFF: Self = Self { per_second: u64::MAX, burst: 0 };
}

impl From<Rate> for RateSpec {
    fn from(rate: Rate) -> Self {
        match rate {
            Rate::Off => Self::OFF,
            Rate::Block => Self { per_second: 0, burst: 0 },
            Rate::Limit { per_second, burst } => Self { per_second, burst },
        }
    }
}

impl From<RateSpec> for Rate {
    fn from(spec: RateSpec) -> Self {
        match spec.per_second {
            u64::MAX => Self::Off,
            0 => Self::Block,
            per_second => Self::Limit { per_second, burst: spec.burst },
        }
    }
}

labelled_enum! {
    /// Who shares a limit. Each level holds the ones before it: who spreads over many sources is stopped at the
    /// narrowest that holds him.
    pub enum Per {
        /// An IPv4 address or an IPv6 /64: what one host has.
        Source = 0 => "source",
        /// An IPv4 /24 or an IPv6 /56: what one customer line or small site has.
        Subnet = 1 => "subnet",
        /// An IPv4 /16 or an IPv6 /48: what one large site or hoster has.
        Network = 2 => "network",
    }
}

impl Per {
    /// The levels that are wider than a source, from narrow to wide.
    pub const WIDER: [Self; 2] = [Self::Subnet, Self::Network];

    /// From the key of a source to that of the prefix it is in. Both families lose eight bits at each level.
    #[inline(always)]
    pub const fn key(self, source: u64) -> u64 {
        source >> (8 * self as u32)
    }

    /// The length of a prefix.
    pub const fn prefix_length(self, family: crate::class::Family) -> u8 {
        let of_source = match family {
            crate::class::Family::V4 => 32,
            crate::class::Family::V6 => 64,
        };
        of_source - 8 * self as u8
    }
}

/// Both limits of a class.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Packets per second.
    pub packets: Rate,
    /// Bytes per second.
    pub bytes: Rate,
}

labelled_enum! {
    /// What a limit applies to: a class of packets, or the sources on the allow list.
    pub enum LimitName {
        /// TCP connection attempts.
        TcpSyn = 0 => "tcp-syn",
        /// All other TCP.
        Tcp = 1 => "tcp",
        /// UDP.
        Udp = 2 => "udp",
        /// ICMP and ICMPv6.
        Icmp = 3 => "icmp",
        /// Fragments without ports.
        Fragment = 4 => "fragment",
        /// Every other IP protocol.
        Other = 5 => "other",
        /// All packets of a source on the allow list: high, so that a spoofed one cannot take the machine.
        Allowed = 6 => "allowed",
    }
}

impl LimitName {
    /// The limit of a class.
    #[inline(always)]
    pub const fn of(class: crate::class::Class) -> Self {
        use crate::class::Class;
        match class {
            Class::TcpSyn => Self::TcpSyn,
            Class::Tcp => Self::Tcp,
            Class::Udp => Self::Udp,
            Class::Icmp => Self::Icmp,
            Class::Fragment => Self::Fragment,
            Class::Other => Self::Other,
        }
    }

    /// What holds where the operator has set nothing. A busy office behind one address stays under these; a
    /// single flooding host does not. Bytes are off: packets are what a flood exhausts first.
    pub const fn default_limits(self) -> Limits {
        let (per_second, burst) = match self {
            Self::TcpSyn => (500, 1_000),
            Self::Tcp => (50_000, 50_000),
            Self::Udp => (5_000, 10_000),
            Self::Icmp => (100, 200),
            Self::Fragment => (5_000, 10_000),
            Self::Other => (20_000, 40_000),
            Self::Allowed => (MAX_PACKETS_PER_SECOND, MAX_PACKETS_PER_SECOND),
        };
        Limits { packets: Rate::Limit { per_second, burst }, bytes: Rate::Off }
    }
}

/// What a limit is of, and who shares it: what it is called by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LimitKey {
    /// A class, or the sources on the allow list.
    pub name: LimitName,
    /// Who shares it.
    pub per: Per,
}

impl LimitKey {
    /// All limits there are: of each class at each level, and of allowed sources.
    pub fn all() -> impl Iterator<Item = Self> {
        let of = |name| Per::ALL.iter().map(move |per| Self { name, per: *per });
        LimitName::ALL.iter().flat_map(move |name| of(*name)).filter(|key| key.exists())
    }

    /// Whether there is such a limit: allowed sources have only their own.
    pub fn exists(self) -> bool {
        self.name != LimitName::Allowed || self.per == Per::Source
    }

    /// What holds where the operator has set nothing: wide limits are his to choose.
    pub const fn default_limits(self) -> Limits {
        match self.per {
            Per::Source => self.name.default_limits(),
            Per::Subnet | Per::Network => Limits { packets: Rate::Off, bytes: Rate::Off },
        }
    }
}

impl From<LimitName> for LimitKey {
    fn from(name: LimitName) -> Self {
        Self { name, per: Per::Source }
    }
}

impl core::fmt::Display for LimitKey {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self.per {
            Per::Source => f.write_str(self.name.label()),
            per => write!(f, "{} per {}", self.name.label(), per.label()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn specs_read_back() {
        for rate in [Rate::Off, Rate::Block, Rate::Limit { per_second: 5, burst: 9 }] {
            assert_eq!(Rate::from(RateSpec::from(rate)), rate);
        }
    }

    #[test]
    fn keys_widen_by_eight_bits_in_both_families() {
        use crate::class::Family;
        for (per, lengths) in Per::ALL.iter().zip([(32, 64), (24, 56), (16, 48)]) {
            assert_eq!((per.prefix_length(Family::V4), per.prefix_length(Family::V6)), lengths);
        }
        assert_eq!(Per::Subnet.key(0xc633_6407), 0x00c6_3364);
        assert_eq!(Per::Network.key(0x2001_0db8_0007_0009), 0x2001_0db8_0007);
    }
}

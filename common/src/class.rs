//! What kind of traffic a packet is: the unit that limits and counters are kept by.

use crate::labelled_enum;

labelled_enum! {
    /// The class of a packet; each has a limit of its own.
    pub enum Class {
        /// TCP with SYN and without ACK: a connection attempt.
        TcpSyn = 0 => "tcp-syn",
        /// All other TCP.
        Tcp = 1 => "tcp",
        /// UDP.
        Udp = 2 => "udp",
        /// ICMP and ICMPv6.
        Icmp = 3 => "icmp",
        /// A fragment whose ports cannot be known: any but the first, or a first one cut before its ports.
        Fragment = 4 => "fragment",
        /// Every other IP protocol, and IP that is too broken to have one.
        Other = 5 => "other",
    }
}

labelled_enum! {
    /// The address family of a packet.
    pub enum Family {
        /// IPv4.
        V4 = 0 => "ipv4",
        /// IPv6.
        V6 = 1 => "ipv6",
    }
}

/// Room for kinds in the counters of the kernel half; a power of two, so that an index can be masked.
pub const KIND_SLOTS: usize = 16;

/// Class and family of an IP packet, or "not IP": the counter index beside the reason.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(transparent)]
pub struct Kind(u8);

impl Kind {
    /// No IP packet.
    pub const NOT_IP: Self = Self(12);

    /// The kind of an IP packet.
    #[inline(always)]
    pub const fn new(family: Family, class: Class) -> Self {
        Self(family as u8 * 6 + class as u8)
    }

    /// Its place in the counters, below [`KIND_SLOTS`].
    #[inline(always)]
    pub const fn index(self) -> u8 {
        self.0
    }

    /// Whether it is of IPv6; never asked of what is not IP.
    #[inline(always)]
    pub const fn is_v6(self) -> bool {
        self.0 >= 6
    }

    /// 1 for a SYN, else 0.
    #[inline(always)]
    pub const fn syn(self) -> u32 {
        const SYNS: u32 = 1 << Kind::new(Family::V4, Class::TcpSyn).0 | 1 << Kind::new(Family::V6, Class::TcpSyn).0;
        SYNS >> (self.0 & (KIND_SLOTS as u8 - 1)) & 1
    }

    /// The kind in a place that [`Kind::index`] has named.
    #[inline(always)]
    pub const fn from_masked(index: u64) -> Self {
        Self((index & (KIND_SLOTS as u64 - 1)) as u8)
    }

    /// The kind in this place of the counters, if there is one.
    pub const fn from_index(index: u8) -> Option<Self> {
        if index <= Self::NOT_IP.0 { Some(Self(index)) } else { None }
    }

    /// All kinds of IP packets.
    pub fn all_ip() -> impl Iterator<Item = Self> {
        (0..Self::NOT_IP.0).map(Self)
    }

    /// Family and class; `None` for what is not IP.
    pub const fn parts(self) -> Option<(Family, Class)> {
        let family = if self.0 < 6 { Family::V4 } else { Family::V6 };
        match Class::from_index(self.0 % 6) {
            Some(class) if self.0 < 12 => Some((family, class)),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_reads_back() {
        for family in Family::ALL {
            for class in Class::ALL {
                let kind = Kind::new(*family, *class);
                assert!((kind.index() as usize) < KIND_SLOTS);
                assert_eq!(kind.parts(), Some((*family, *class)));
                assert_eq!(Kind::from_index(kind.index()), Some(kind));
            }
        }
        assert_eq!(Kind::NOT_IP.parts(), None);
        assert_eq!(Kind::from_index(13), None);
    }
}

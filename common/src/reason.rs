//! Why a packet passed or was dropped: the one result of the packet path.
//!
//! A `Reason` is the counter index, the metrics label, the words of `explain` and the expectation in tests.
//! Append-only: a number is never reused, so that counters and samples keep their meaning across versions.

use crate::labelled_enum;

/// Room for reasons in the counters of the kernel half; a power of two, so that an index can be masked.
pub const REASON_SLOTS: usize = 64;

labelled_enum! {
    /// Why a packet passed or was dropped. Every packet gets exactly one.
    #[must_use]
    pub enum Reason {
        /// Well formed, on no list, within its limits.
        Passed = 0 => "passed",
        /// Source on the allow list.
        Allowed = 1 => "allowed",
        /// Source on the allow list and over the separate, high limit for allowed sources.
        AllowedLimit = 2 => "allowed-limit",
        /// Source on the deny list.
        Denied = 3 => "denied",
        /// Not IP: ARP, LLDP, LACP, 802.1X, PTP and everything else that no filter here judges.
        NotIp = 4 => "not-ip",
        /// Too short to hold the header that it announces before IP: fewer than 14 bytes, or a VLAN tag cut off.
        Short = 5 => "short",
        /// More than two VLAN tags.
        VlanDepth = 6 => "vlan-depth",
        /// PPPoE or MPLS: the IP packet inside is not looked at.
        Encapsulated = 7 => "encapsulated",
        /// GRE, IPIP or 6in4 within the limits of its outer source; the packet inside is not looked at.
        Tunnel = 8 => "tunnel",
        /// IPv6 neighbour discovery with hop limit 255, so from this link: the link dies without it.
        NeighborDiscovery = 9 => "neighbor-discovery",
        /// ICMPv6 packet too big: path MTU discovery dies without it.
        PacketTooBig = 10 => "packet-too-big",
        /// More than eight IPv6 extension headers.
        ExtensionDepth = 11 => "extension-depth",
        /// IP header that contradicts itself or the frame: version, header length, total length.
        MalformedIp = 12 => "malformed-ip",
        /// TCP header that is cut off or whose data offset points outside the packet.
        MalformedTcp = 13 => "malformed-tcp",
        /// UDP header that is cut off or whose length is not that of the packet.
        MalformedUdp = 14 => "malformed-udp",
        /// ICMP or ICMPv6 header that is cut off.
        MalformedIcmp = 15 => "malformed-icmp",
        /// TCP flags that no TCP sends: none, SYN+FIN, SYN+RST, FIN+RST, FIN without ACK.
        ImpossibleFlags = 16 => "impossible-flags",
        /// Source and destination are the same address.
        Land = 17 => "land",
        /// Source that nobody has on the wire: loopback, unspecified, multicast, broadcast, reserved.
        Martian = 18 => "martian",
        /// Source over its packets per second in its class.
        PacketLimit = 19 => "packet-limit",
        /// Source over its bytes per second in its class.
        ByteLimit = 20 => "byte-limit",
        /// The limit of the class is zero: the operator blocks all of it.
        ClassBlocked = 21 => "class-blocked",
        /// All sources of an IPv4 /24 or IPv6 /56 together over their packets or bytes per second in their class.
        SubnetLimit = 22 => "subnet-limit",
        /// All sources of an IPv4 /16 or IPv6 /48 together over theirs.
        NetworkLimit = 23 => "network-limit",
        /// TCP SYN without any option: no operating system sends one, most flooding tools do.
        BareSyn = 24 => "bare-syn",
        /// Looks like a reply, and answers nothing that this host has sent.
        UnsolicitedReply = 25 => "unsolicited-reply",
        /// Suits a signature that drops.
        Signature = 26 => "signature",
        /// While locked down: for no service here, and part of no conversation that this host has begun.
        NoService = 27 => "no-service",
        /// The first SYN of a connection from a source that is not verified.
        FirstSyn = 28 => "first-syn",
        /// To a service over its cap, from a source that is not verified or among too many that are.
        ServiceCap = 29 => "service-cap",
        /// A SYN, answered with a cookie in place of the stack.
        SynCookie = 30 => "syn-cookie",
        /// A SYN that would be answered with a cookie, but its subnet gets no more answers now.
        SynAckLimit = 31 => "syn-ack-limit",
        /// TCP without SYN, of a connection that this host knows nothing of, from a source that is not verified.
        OutOfState = 32 => "out-of-state",
        /// A SYN to a service that takes no more new connections now, from a source that is not verified or among too many that are.
        ConnectionCap = 33 => "connection-cap",
    }
}

labelled_enum! {
    /// What happens to a packet.
    #[must_use]
    pub enum Verdict {
        /// Goes on to the kernel.
        Pass = 0 => "pass",
        /// Ends here.
        Drop = 1 => "drop",
        /// Ends here, and an answer goes back.
        Answer = 2 => "answer",
    }
}

/// Who decides what a [`Reason`] does to a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Policy {
    /// Passes in every configuration.
    Passes,
    /// Drops in every configuration (when enforcing).
    Drops,
    /// Is answered in every configuration (when enforcing).
    Answers,
    /// The operator chooses; this is the default.
    Chosen(Verdict),
}

impl Reason {
    /// What this reason does, and who may change it. The only statement of policy there is.
    pub const fn policy(self) -> Policy {
        match self {
            Self::Passed
            | Self::Allowed
            | Self::NotIp
            | Self::Short
            | Self::Encapsulated
            | Self::Tunnel
            | Self::NeighborDiscovery
            | Self::PacketTooBig => Policy::Passes,
            Self::Denied
            | Self::AllowedLimit
            | Self::PacketLimit
            | Self::ByteLimit
            | Self::ClassBlocked
            | Self::SubnetLimit
            | Self::NetworkLimit
            | Self::Signature
            | Self::ServiceCap
            | Self::ConnectionCap
            | Self::SynAckLimit => Policy::Drops,
            Self::SynCookie => Policy::Answers,
            // The stack behind would refuse these too; here they cost nothing.
            Self::MalformedIp
            | Self::MalformedTcp
            | Self::MalformedUdp
            | Self::MalformedIcmp
            | Self::ImpossibleFlags
            | Self::Land
            | Self::ExtensionDepth => Policy::Chosen(Verdict::Drop),
            // A trunk port or a DHCP server sees these in peace.
            Self::VlanDepth | Self::Martian => Policy::Chosen(Verdict::Pass),
            // For while a flood lasts: some scanner or embedded device sends bare SYNs, replies are known only where what
            // this host sends leaves through a protected interface, as connections are, and a second SYN costs a client a second.
            Self::BareSyn | Self::UnsolicitedReply | Self::NoService | Self::FirstSyn | Self::OutOfState => {
                Policy::Chosen(Verdict::Pass)
            }
        }
    }

    /// The reasons that are the operator's to choose, and what they do where nobody has.
    pub fn chosen() -> impl Iterator<Item = (Self, Verdict)> {
        Self::ALL.iter().filter_map(|reason| match reason.policy() {
            Policy::Chosen(standard) => Some((*reason, standard)),
            _ => None,
        })
    }

    /// What happens to a packet with this reason under `drops`, before the mode is asked.
    #[inline(always)]
    pub const fn verdict(self, drops: DropSet) -> Verdict {
        self.carried_out(drops.has(self))
    }

    /// What has happened to a packet with this reason that went on to the kernel, or did not.
    #[inline(always)]
    pub const fn carried_out(self, stopped: bool) -> Verdict {
        match (stopped, self) {
            (false, _) => Verdict::Pass,
            (true, Self::SynCookie) => Verdict::Answer,
            (true, _) => Verdict::Drop,
        }
    }

    /// What the reason says in a sentence, for people.
    pub const fn sentence(self) -> &'static str {
        match self {
            Self::Passed => "well formed and within its limits",
            Self::Allowed => "the source is on the allow list",
            Self::AllowedLimit => "the source is on the allow list, but over the limit for allowed sources",
            Self::Denied => "the source is on the deny list",
            Self::NotIp => "not an IP packet",
            Self::Short => "the frame ends before its network header",
            Self::VlanDepth => "more than two VLAN tags",
            Self::Encapsulated => "PPPoE or MPLS, not looked into",
            Self::Tunnel => "a tunnel packet within the limits of its outer source",
            Self::NeighborDiscovery => "IPv6 neighbour discovery from this link",
            Self::PacketTooBig => "ICMPv6 packet too big, needed for path MTU discovery",
            Self::ExtensionDepth => "more than eight IPv6 extension headers",
            Self::MalformedIp => "the IP header contradicts itself or the frame",
            Self::MalformedTcp => "the TCP header is cut off or its offset is impossible",
            Self::MalformedUdp => "the UDP header is cut off or its length is wrong",
            Self::MalformedIcmp => "the ICMP header is cut off",
            Self::ImpossibleFlags => "TCP flags that no TCP sends",
            Self::Land => "source and destination are the same address",
            Self::Martian => "a source address that nobody can have",
            Self::PacketLimit => "the source is over its packets per second",
            Self::ByteLimit => "the source is over its bytes per second",
            Self::ClassBlocked => "this class is blocked: its limit is zero",
            Self::SubnetLimit => "its /24 (IPv6: /56) is over a limit for all of it",
            Self::BareSyn => "a connection attempt without TCP options, as flooding tools send it",
            Self::UnsolicitedReply => "looks like a reply, and answers nothing that this host has sent",
            Self::Signature => "suits a signature that the operator has set",
            Self::NoService => "for no service here, while locked down",
            Self::FirstSyn => "the first SYN of a connection: a client sends it again after a second",
            Self::ServiceCap => "the service is over its cap, and the source has no claim to what is left of it",
            Self::ConnectionCap => "the service takes no more new connections now, and who was here before comes first",
            Self::SynCookie => "a SYN, answered with a cookie in place of the stack",
            Self::SynAckLimit => "a SYN whose subnet gets no more answers now",
            Self::OutOfState => "TCP of a connection that this host knows nothing of",
            Self::NetworkLimit => "its /16 (IPv6: /48) is over a limit for all of it",
        }
    }
}

/// The reasons that drop, a bit each, as the kernel half reads them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(transparent)]
pub struct DropSet(u64);

impl DropSet {
    /// What [`Reason::policy`] says where the operator has said nothing.
    pub const fn standard() -> Self {
        let mut bits = 0;
        let mut index = 0;
        while index < Reason::ALL.len() {
            let reason = Reason::ALL[index];
            if !matches!(reason.policy(), Policy::Passes | Policy::Chosen(Verdict::Pass)) {
                bits |= 1 << reason as u8;
            }
            index += 1;
        }
        Self(bits)
    }

    /// Whether this reason drops.
    #[inline(always)]
    pub const fn has(self, reason: Reason) -> bool {
        self.0 >> reason as u8 & 1 == 1
    }

    /// The set with the operator's choice for one reason; `None` where that reason is not his to choose.
    pub const fn choose(self, reason: Reason, verdict: Verdict) -> Option<Self> {
        let bit = 1u64 << reason as u8;
        match (reason.policy(), verdict) {
            (Policy::Chosen(_), Verdict::Drop) => Some(Self(self.0 | bit)),
            (Policy::Chosen(_), Verdict::Pass) => Some(Self(self.0 & !bit)),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_positions_and_fit_the_counters() {
        for (position, reason) in Reason::ALL.iter().enumerate() {
            assert_eq!(*reason as usize, position, "{reason:?}: reasons are append-only");
        }
        assert!(Reason::ALL.len() <= REASON_SLOTS);
    }

    #[test]
    fn labels_are_unique_and_read_back() {
        for reason in Reason::ALL {
            assert_eq!(Reason::from_label(reason.label()), Some(*reason));
            assert_eq!(Reason::from_index(*reason as u8), Some(*reason));
        }
        assert_eq!(Reason::from_index(63), None);
    }

    #[test]
    fn the_operator_chooses_only_what_is_his() {
        let standard = DropSet::standard();
        assert_eq!(Reason::Martian.verdict(standard), Verdict::Pass);
        let strict = standard.choose(Reason::Martian, Verdict::Drop).unwrap();
        assert_eq!(Reason::Martian.verdict(strict), Verdict::Drop);
        assert_eq!(strict.choose(Reason::Martian, Verdict::Pass), Some(standard));
        assert_eq!(standard.choose(Reason::NeighborDiscovery, Verdict::Drop), None);
        assert_eq!(standard.choose(Reason::Denied, Verdict::Pass), None);
    }

    #[test]
    fn the_standard_set_follows_the_policy_of_each_reason() {
        for reason in Reason::ALL {
            let expected = match reason.policy() {
                Policy::Passes => Verdict::Pass,
                Policy::Drops => Verdict::Drop,
                Policy::Answers => Verdict::Answer,
                Policy::Chosen(verdict) => verdict,
            };
            assert_eq!(reason.verdict(DropSet::standard()), expected, "{reason:?}");
        }
    }
}

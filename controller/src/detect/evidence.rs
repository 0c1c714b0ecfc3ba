//! The evidence: for each kind of flood a table of what can be measured, what a measure speaks for, and how much.
//!
//! A line weighs what it measures on a slope between two points, and nothing weighs more than its ends: no single measure
//! decides. The weights are natural logarithms of odds; they add up, beginning with how seldom such a flood is, and their sum is
//! a confidence. What cannot be measured weighs nothing.
//!
//! Volume is no evidence of what it is, with one exception, and that one is stated: what a single source sends. A scan and a
//! flood of one machine differ in nothing else.

mod tables;

use tables::{
    AMPLIFICATION, FRAGMENT_FLOOD, HTTP_FLOOD, ICMP_FLOOD, MISCONFIGURATION, OVERLOAD, PROTOCOL_FLOOD,
    SLOW_CONNECTIONS, SURGE, SYN_FLOOD, TCP_FLOOD, TCP_REFLECTION, UDP_FLOOD,
};

use super::features::{Aggregate, Features};
use super::observed::Group;

/// A kind of flood.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
#[repr(u8)]
pub enum Vector {
    /// Connection attempts that nobody means to complete.
    SynFlood,
    /// SYN-ACKs and resets that others were made to send here.
    TcpReflection,
    /// Answers of amplifiers to questions that others asked in this host's name.
    Amplification,
    /// UDP that nobody here has asked for.
    UdpFlood,
    /// TCP segments of connections that never began.
    TcpFlood,
    /// ICMP.
    IcmpFlood,
    /// Later fragments of packets of which nobody has the first.
    FragmentFlood,
    /// Other IP protocols.
    ProtocolFlood,
    /// Completed connections, more of them than clients make.
    HttpFlood,
    /// Connections that are opened and held, and ask for nothing: room that nobody else has.
    SlowConnections,
}

impl Vector {
    /// All of them.
    pub const ALL: [Self; 10] = [
        Self::SynFlood,
        Self::TcpReflection,
        Self::Amplification,
        Self::UdpFlood,
        Self::TcpFlood,
        Self::IcmpFlood,
        Self::FragmentFlood,
        Self::ProtocolFlood,
        Self::HttpFlood,
        Self::SlowConnections,
    ];

    /// The name that leaves the process.
    pub const fn label(self) -> &'static str {
        match self {
            Self::SynFlood => "syn-flood",
            Self::TcpReflection => "tcp-reflection",
            Self::Amplification => "amplification",
            Self::UdpFlood => "udp-flood",
            Self::TcpFlood => "tcp-flood",
            Self::IcmpFlood => "icmp-flood",
            Self::FragmentFlood => "fragment-flood",
            Self::ProtocolFlood => "protocol-flood",
            Self::HttpFlood => "http-flood",
            Self::SlowConnections => "slow-connections",
        }
    }

    /// The kind of this name.
    pub fn from_label(label: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|vector| vector.label() == label)
    }

    /// In which packets it shows. Slow connections show in none; theirs are segments.
    pub const fn group(self) -> Group {
        match self {
            Self::SynFlood | Self::HttpFlood => Group::Syn,
            Self::TcpReflection => Group::TcpReplies,
            Self::Amplification => Group::UdpReplies,
            Self::UdpFlood => Group::Udp,
            Self::TcpFlood | Self::SlowConnections => Group::Tcp,
            Self::IcmpFlood => Group::Icmp,
            Self::FragmentFlood => Group::Fragments,
            Self::ProtocolFlood => Group::Other,
        }
    }

    /// Packets per second of its group below which nobody is woken: too few to hurt anything. What holds connections sends hardly any.
    pub const fn wakes_at(self) -> f64 {
        match self {
            Self::TcpReflection | Self::Amplification | Self::FragmentFlood => 100.0,
            Self::SynFlood | Self::UdpFlood | Self::IcmpFlood | Self::ProtocolFlood => 300.0,
            Self::HttpFlood => 50.0,
            Self::SlowConnections => 0.0,
            Self::TcpFlood => 1_000.0,
        }
    }

    /// How seldom it is, before anything is measured.
    const fn prior(self) -> f64 {
        match self {
            Self::SynFlood | Self::TcpReflection | Self::Amplification | Self::FragmentFlood => -3.0,
            Self::IcmpFlood | Self::ProtocolFlood => -2.5,
            Self::UdpFlood => -3.5,
            Self::TcpFlood | Self::HttpFlood => -4.0,
            Self::SlowConnections => -6.0,
        }
    }

    /// What speaks for it and against it.
    const fn lines(self) -> &'static [Line] {
        match self {
            Self::SynFlood => SYN_FLOOD,
            Self::TcpReflection => TCP_REFLECTION,
            Self::Amplification => AMPLIFICATION,
            Self::UdpFlood => UDP_FLOOD,
            Self::TcpFlood => TCP_FLOOD,
            Self::IcmpFlood => ICMP_FLOOD,
            Self::FragmentFlood => FRAGMENT_FLOOD,
            Self::ProtocolFlood => PROTOCOL_FLOOD,
            Self::HttpFlood => HTTP_FLOOD,
            Self::SlowConnections => SLOW_CONNECTIONS,
        }
    }
}

/// What may go on where customers are at work.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Demand {
    /// More customers than usual, and they are served.
    Surge,
    /// Customers, more than can be served.
    Overload,
    /// A few clients that ask far more than they mean to.
    Misconfiguration,
}

impl Demand {
    pub(super) const ALL: [Self; 3] = [Self::Surge, Self::Overload, Self::Misconfiguration];

    const fn prior(self) -> f64 {
        match self {
            Self::Surge => -1.5,
            Self::Overload | Self::Misconfiguration => -2.5,
        }
    }

    const fn lines(self) -> &'static [Line] {
        match self {
            Self::Surge => SURGE,
            Self::Overload => OVERLOAD,
            Self::Misconfiguration => MISCONFIGURATION,
        }
    }
}

/// What a line is asked about.
pub(super) struct Case<'a> {
    /// The last second.
    pub(super) features: &'a Features,
    /// The packets of the vector's group.
    pub(super) group: &'a Aggregate,
    /// How many times as many as usual; `None` while nobody knows what is usual.
    pub(super) growth: Option<f64>,
}

/// A number, as people read it.
#[derive(Clone, Copy)]
enum As {
    Share,
    Number,
    Rate,
    /// It is so, or not: the meaning says which.
    Flag,
}

/// One line of the table.
struct Line {
    measure: fn(&Case<'_>) -> Option<f64>,
    /// Two measures and their weights; beyond them it weighs no more.
    slope: [(f64, f64); 2],
    shown: As,
    /// What was measured, behind the number.
    what: &'static str,
    /// What it means where it speaks for the flood, and against it.
    means: [&'static str; 2],
}

const fn line(
    measure: fn(&Case<'_>) -> Option<f64>,
    slope: [(f64, f64); 2],
    shown: As,
    what: &'static str,
    means: [&'static str; 2],
) -> Line {
    Line { measure, slope, shown, what, means }
}

/// What came on while nothing was let through is as much as before, from here on; and up to here it is not.
pub const UNMOVED: f64 = 0.85;
/// See [`UNMOVED`].
pub const MOVED: f64 = 0.35;

/// How little senders care for answers, from 0 to 1, by what came on while none of it was let through. Who sends less waits for
/// answers, and who sends more asks again: both are clients.
pub fn unmoved(ratio: f64) -> f64 {
    (1.0 - (1.0 - ratio).abs()).max(0.0)
}

/// How much likelier a kind of flood is that was there half a minute ago: it comes on, in part or in pulses.
const AGAIN: f64 = 2.5;

/// A line that has been weighed.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Weighed {
    /// For the flood where positive.
    pub(super) weight: f64,
    /// In words.
    pub(super) words: String,
}

/// How sure it is that a flood of this kind goes on, and what says so.
pub(super) fn weigh(vector: Vector, case: &Case<'_>) -> (f64, Vec<Weighed>) {
    let again = if case.features.lately.contains(&vector) { AGAIN } else { 0.0 };
    sum(vector.prior() + again, vector.lines(), case)
}

/// The same of what customers do.
pub(super) fn weigh_demand(demand: Demand, case: &Case<'_>) -> (f64, Vec<Weighed>) {
    sum(demand.prior(), demand.lines(), case)
}

fn sum(prior: f64, lines: &[Line], case: &Case<'_>) -> (f64, Vec<Weighed>) {
    let weighed: Vec<_> = lines.iter().filter_map(|line| line.weigh(case)).collect();
    let sum: f64 = weighed.iter().map(|line| line.weight).sum();
    (1.0 / (1.0 + (-(prior + sum)).exp()), weighed)
}

impl Line {
    fn weigh(&self, case: &Case<'_>) -> Option<Weighed> {
        let measured = (self.measure)(case)?;
        let [(from, at_from), (to, at_to)] = self.slope;
        let along = ((measured - from) / (to - from)).clamp(0.0, 1.0);
        let weight = at_from + along * (at_to - at_from);
        let means = self.means[usize::from(weight < 0.0)];
        let words = match self.shown.number(measured) {
            None => format!("{} {means}", self.what),
            Some(number) => format!("{number} {}: {means}", self.what),
        };
        Some(Weighed { weight, words })
    }
}

impl As {
    fn number(self, value: f64) -> Option<String> {
        Some(match self {
            Self::Share => format!("{:.0} %", value * 100.0),
            Self::Number if value < 10.0 => format!("{value:.1}"),
            Self::Number | Self::Rate => format!("{value:.0}"),
            Self::Flag => return None,
        })
    }
}

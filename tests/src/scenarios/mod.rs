//! Scenarios: what a host may have to live through, end to end over a real link, and how a filter does in it.
//!
//! A scenario is a description; one runner plays all of them. Truth is told by the hardware address of the sender, which no filter
//! here reads. Nothing is set up for a scenario but what a host has anyway.

pub mod flood;
pub mod legit;
pub mod peers;
pub mod report;
pub mod rig;
pub mod run;
pub mod score;
pub mod service;
pub mod table;
pub mod targets;
pub mod walls;
pub mod watch;

use serde::{Deserialize, Serialize};

/// What a scenario is in truth.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Truth {
    /// Nothing out of the ordinary.
    Normal,
    /// More customers than usual, and they can be served.
    Surge,
    /// Customers, more than can be served.
    Overload,
    /// Clients that ask far more than they mean to.
    Misconfiguration,
    /// A flood.
    Attack,
    /// A flood in a surge.
    Mixed,
}

impl Truth {
    /// What Floodwall calls it.
    pub const fn label(self) -> &'static str {
        match self {
            Self::Normal => "normal",
            Self::Surge => "surge",
            Self::Overload => "overload",
            Self::Misconfiguration => "misconfiguration",
            Self::Attack => "attack",
            Self::Mixed => "mixed",
        }
    }

    /// Whether somebody attacks.
    pub const fn is_attack(self) -> bool {
        matches!(self, Self::Attack | Self::Mixed)
    }
}

/// What is asked of a filter in a scenario.
#[derive(Clone, Copy, Debug)]
pub struct Targets {
    /// Seconds from the first packet to the right verdict.
    pub verdict_s: f64,
    /// Seconds from the first packet until less than 5 % of the attack comes through, for two seconds.
    pub mitigated_s: f64,
    /// Share of the attack that is stopped from then on.
    pub stopped: f64,
}

/// A scenario. Times are in seconds from its begin, in the short form; rates in parts of the level's.
#[derive(Clone, Copy, Debug)]
pub struct Scenario {
    /// Its number in the list.
    pub number: u8,
    /// What it is called.
    pub name: &'static str,
    /// What it is.
    pub truth: Truth,
    /// The kinds of flood it has, each of which may be called by any of its names.
    pub vectors: &'static [&'static [&'static str]],
    /// What is asked.
    pub targets: Targets,
    /// The only groups of clients whose losses are the filter's; all but the offenders where there are none named.
    pub groups: &'static [&'static str],
    /// Legitimate traffic that is there from the begin of the warm-up, beside what every scenario has.
    pub always: &'static [Load],
    /// What happens.
    pub acts: &'static [Act],
    /// How long.
    pub seconds: f64,
    /// Floods that begin before are not asked how soon they are mitigated, nor how much of them is stopped.
    pub counts_from: f64,
}

/// Something that happens in a scenario.
#[derive(Clone, Copy, Debug)]
pub struct Act {
    /// From when on.
    pub at: f64,
    /// Until when.
    pub until: f64,
    /// What.
    pub does: Does,
}

/// What happens.
#[derive(Clone, Copy, Debug)]
pub enum Does {
    /// Forged frames.
    Flood(Flood),
    /// Clients with real stacks, that are legitimate.
    Clients(Load),
    /// The same, that are not: they send from the attack's hardware address.
    Bots(Load),
    /// The service is not what it is otherwise.
    Service(Condition),
    /// The daemon is killed, and started again.
    Restart,
}

/// A flood of forged frames.
#[derive(Clone, Copy, Debug)]
pub struct Flood {
    /// What it consists of.
    pub kind: Kind,
    /// Frames a second, in parts of the level's attack.
    pub of_attack: f64,
    /// Where it begins small: seconds in which it doubles, from 50 frames a second.
    pub doubles_every: Option<f64>,
}

/// What the frames of a flood are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// SYNs without options from 300,000 sources, as two hosts forge them.
    BareSyn,
    /// SYNs with the options of real systems, forged times to live, one source in ten from customers' prefixes.
    OfferingSyn,
    /// Answers of DNS, NTP, chargen, SNMP, BACnet and ISAKMP; a quarter later fragments.
    Amplified,
    /// Answers of DNS alone.
    AmplifiedDns,
    /// SYN-ACKs and resets of 7,055 servers.
    SynAck,
    /// ACKs and UDP of 2,000 machines, random data.
    Machines,
    /// ACKs from random sources.
    Ack,
    /// UDP to half of 64 addresses, another half every two seconds.
    Carpet,
    /// UDP and SYNs of one IPv6 /56: another /64 every two seconds, another address for each packet.
    Rotating,
}

/// A load of real clients.
#[derive(Clone, Copy, Debug)]
pub struct Load {
    /// What it is called in the results.
    pub group: &'static str,
    /// Who they are.
    pub who: Who,
    /// How many.
    pub amount: Amount,
    /// Seconds until all of them are there.
    pub ramp_s: f64,
    /// What they do.
    pub way: Way,
    /// Whom they ask.
    pub to: Server,
}

/// How many clients.
#[derive(Clone, Copy, Debug)]
pub enum Amount {
    /// Requests a second, in parts of the level's legitimate traffic.
    OfBase(f64),
    /// Machines that all do it at the same time, in parts of the level's.
    Machines(f64),
}

/// Who the clients are.
#[derive(Clone, Copy, Debug)]
pub enum Who {
    /// Customers that come often, by Zipf's law; one in ten over IPv6.
    Regulars,
    /// Customers that were not here in the warm-up.
    Strangers,
    /// So many addresses from this one on.
    Hosts(u32, u32),
    /// So many IPv6 networks of customers.
    Networks(u32),
    /// The protected host itself.
    Itself,
}

/// What clients do.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Way {
    /// So many connections one after the other, so many requests on each.
    Web(u32, u32),
    /// One connection for as long as it lasts, a request a second.
    Kept,
    /// Opens a connection and resets it.
    Opens,
    /// A datagram of so many bytes, which is answered.
    Datagram(usize),
    /// One connection that sends so many segments a second.
    Upload(f64),
    /// A request a second, each on a connection of its own; where one is not answered in 0.3 s, again at once. So many at a time.
    Storm(u32),
    /// So many requests a second, each on a connection of its own, whatever becomes of them.
    Floods(f64),
    /// So many connections, a byte each now and then.
    Trickle(u32),
}

/// Whom clients ask.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Server {
    /// The protected web server.
    Web,
    /// What takes uploads there.
    Sink,
    /// What answers datagrams there, as QUIC.
    Quic,
    /// What answers datagrams there, as NFS.
    Files,
    /// A resolver in the world.
    Resolver,
    /// A web server in the world.
    Far,
}

/// How the service is.
#[derive(Clone, Copy, Debug)]
pub enum Condition {
    /// Takes so many connections a second, in parts of the legitimate requests.
    Takes(f64),
    /// Takes so many milliseconds for each answer.
    Delays(u64),
    /// Has room for so many connections, in parts of the level's machines.
    Holds(f64),
}

/// How hard it is.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Level {
    /// Its name.
    pub name: &'static str,
    /// Frames a second of an attack.
    pub attack_pps: f64,
    /// Legitimate requests a second.
    pub base_rps: f64,
    /// Share of the machines that the scenarios name.
    pub machines: f64,
}

impl Level {
    /// For every change.
    pub const S: Self = Self { name: "s", attack_pps: 20_000.0, base_rps: 100.0, machines: 0.2 };
    /// For every night.
    pub const M: Self = Self { name: "m", attack_pps: 100_000.0, base_rps: 200.0, machines: 1.0 };
}

/// How long.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Timing {
    /// Legitimate traffic alone, until it is known.
    pub warm_up_s: f64,
    /// The same, which what comes is held against.
    pub quiet_s: f64,
    /// What times of a scenario are multiplied with.
    pub stretch: f64,
    /// After it.
    pub after_s: f64,
}

impl Timing {
    /// Nine minutes for all.
    pub const SHORT: Self = Self { warm_up_s: 11.0, quiet_s: 3.0, stretch: 1.0, after_s: 3.2 };
    /// The usual one.
    pub const LONG: Self = Self { warm_up_s: 20.0, quiet_s: 10.0, stretch: 3.0, after_s: 5.0 };

    /// When the scenario begins, from the begin of the warm-up.
    pub const fn begins(&self) -> f64 {
        self.warm_up_s + self.quiet_s
    }
}

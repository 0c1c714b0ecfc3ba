//! The sixteen scenarios, and the traffic that all of them have. Times are those of the short form.

use super::{Act, Amount, Condition, Does, Flood, Kind, Load, Scenario, Server, Targets, Truth, Way, Who};

const fn act(at: f64, until: f64, does: Does) -> Act {
    Act { at, until, does }
}

const fn flood(kind: Kind, of_attack: f64) -> Does {
    Does::Flood(Flood { kind, of_attack, doubles_every: None })
}

const fn load(group: &'static str, who: Who, amount: Amount, way: Way, to: Server) -> Load {
    Load { group, who, amount, ramp_s: 0.0, way, to }
}

const fn targets(verdict_s: f64, mitigated_s: f64, stopped: f64) -> Targets {
    Targets { verdict_s, mitigated_s, stopped }
}

/// A link layer flood is to be detected within a second, and mitigated within one and a half.
const L4: Targets = targets(1.0, 1.5, 0.99);
const SPOOFED: Targets = targets(1.0, 1.5, 0.995);
/// Where nothing is to be mitigated.
const fn benign(verdict_s: f64) -> Targets {
    targets(verdict_s, f64::INFINITY, 1.0)
}

/// Where addresses of customers with names of their own begin: the gateway of an office, a network of delivery, a partner.
const OFFICE: u32 = 0x14_f0_00_01;
const DELIVERY: u32 = 0x14_f1_00_01;
const MONITORS: u32 = 0x14_f2_00_01;
const CRAWLER: u32 = 0x14_f3_00_01;
const BACKUP: u32 = 0x14_f4_00_01;
const FILES: u32 = 0x14_f5_00_01;
const BATCH: u32 = 0x14_f6_00_01;
/// Twenty in one /24, twenty in the next.
const PARTNER: u32 = 0x14_f7_00_ec;
const MOBILE: u32 = 0x14_f8_00_01;
const BOTS: u32 = 0x1e_00_00_01;
/// Groups that nobody is to be blamed for losing.
pub const OFFENDERS: [&str; 2] = ["bot", "storm"];

/// What every host has: customers, connections that last, its own questions, datagrams.
pub const ALWAYS: [Load; 6] = [
    load("regular", Who::Regulars, Amount::OfBase(0.9), Way::Web(1, 2), Server::Web),
    load("new", Who::Strangers, Amount::OfBase(0.1), Way::Web(1, 2), Server::Web),
    load("established", Who::Hosts(0x14_e0_00_01, 20), Amount::Machines(100.0), Way::Kept, Server::Web),
    load("dns", Who::Itself, Amount::OfBase(0.1), Way::Datagram(60), Server::Resolver),
    load("outbound", Who::Itself, Amount::OfBase(0.05), Way::Web(1, 1), Server::Far),
    load("quic", Who::Regulars, Amount::OfBase(0.2), Way::Datagram(1_200), Server::Quic),
];

/// More of the ordinary, that only comes where it is named.
const BENIGN: [Load; 7] = [
    BATCHES,
    load("nat", Who::Hosts(OFFICE, 1), Amount::OfBase(1.0), Way::Web(1, 2), Server::Web),
    load("cdn", Who::Hosts(DELIVERY, 6), Amount::OfBase(1.3), Way::Web(1, 4), Server::Web),
    load("health", Who::Hosts(MONITORS, 3), Amount::OfBase(0.2), Way::Opens, Server::Web),
    load("crawler", Who::Hosts(CRAWLER, 1), Amount::OfBase(0.25), Way::Web(1, 1), Server::Web),
    load("files", Who::Hosts(FILES, 1), Amount::OfBase(0.5), Way::Datagram(8_000), Server::Files),
    load("backup", Who::Hosts(BACKUP, 1), Amount::Machines(5.0), Way::Upload(2_500.0), Server::Sink),
];

/// Ten times the usual, mostly strangers.
const CROWD: Load = load("crowd", Who::Strangers, Amount::OfBase(9.0), Way::Web(5, 1), Server::Web);

/// A partner's servers ask each second, and do not wait.
const PARTNERS: Load = load("storm", Who::Hosts(PARTNER, 40), Amount::Machines(200.0), Way::Storm(4), Server::Web);
const MOBILES: Load = load("storm", Who::Hosts(MOBILE, 300), Amount::Machines(300.0), Way::Storm(1), Server::Web);
const BATCHES: Load = load("batch", Who::Hosts(BATCH, 1), Amount::OfBase(0.2), Way::Web(1, 5), Server::Web);
/// Machines of somebody who attacks, with stacks of their own.
const fn bots(count: f64, way: Way) -> Does {
    Does::Bots(Load { ramp_s: 1.0, ..load("bot", Who::Hosts(BOTS, 1_500), Amount::Machines(count), way, Server::Web) })
}

/// All of them.
pub const SCENARIOS: &[Scenario] = &[
    Scenario {
        number: 1,
        name: "spoofed SYN flood",
        truth: Truth::Attack,
        vectors: &[&["syn-flood"]],
        targets: SPOOFED,
        groups: &[],
        always: &[],
        acts: &[act(0.0, 12.0, flood(Kind::BareSyn, 1.0))],
        seconds: 12.0,
        counts_from: 0.0,
    },
    Scenario {
        number: 2,
        name: "evasive SYN flood",
        truth: Truth::Attack,
        vectors: &[&["syn-flood"]],
        targets: L4,
        groups: &[],
        always: &[],
        acts: &[act(0.0, 12.0, flood(Kind::OfferingSyn, 0.5))],
        seconds: 12.0,
        counts_from: 0.0,
    },
    Scenario {
        number: 3,
        name: "UDP amplification mix",
        truth: Truth::Attack,
        vectors: &[&["amplification"]],
        targets: SPOOFED,
        groups: &[],
        always: &[load("dns", Who::Itself, Amount::OfBase(0.4), Way::Datagram(60), Server::Resolver)],
        acts: &[act(0.0, 12.0, flood(Kind::Amplified, 1.0))],
        seconds: 12.0,
        counts_from: 0.0,
    },
    Scenario {
        number: 4,
        name: "SYN-ACK reflection",
        truth: Truth::Attack,
        vectors: &[&["tcp-reflection"]],
        targets: SPOOFED,
        groups: &[],
        always: &[load("outbound", Who::Itself, Amount::OfBase(0.15), Way::Web(1, 1), Server::Far)],
        acts: &[act(0.0, 12.0, flood(Kind::SynAck, 0.6))],
        seconds: 12.0,
        counts_from: 0.0,
    },
    Scenario {
        number: 5,
        name: "botnet, UDP and ACK",
        truth: Truth::Attack,
        vectors: &[&["udp-flood", "tcp-flood"]],
        targets: L4,
        groups: &[],
        always: &[],
        acts: &[act(0.0, 12.0, flood(Kind::Machines, 1.0))],
        seconds: 12.0,
        counts_from: 0.0,
    },
    Scenario {
        number: 6,
        name: "carpet bombing",
        truth: Truth::Attack,
        vectors: &[&["udp-flood"]],
        targets: L4,
        groups: &[],
        always: &[],
        acts: &[act(0.0, 14.0, flood(Kind::Carpet, 0.96))],
        seconds: 14.0,
        counts_from: 0.0,
    },
    Scenario {
        number: 7,
        name: "pulse wave, vector switching",
        truth: Truth::Attack,
        vectors: &[&["syn-flood"], &["amplification"], &["tcp-flood"]],
        targets: targets(1.0, 0.2, 0.99),
        groups: &[],
        always: &[],
        acts: &[
            act(0.0, 2.0, flood(Kind::BareSyn, 1.0)),
            act(4.0, 6.0, flood(Kind::AmplifiedDns, 1.0)),
            act(8.0, 10.0, flood(Kind::Ack, 1.0)),
            act(12.0, 14.0, flood(Kind::BareSyn, 1.0)),
            act(16.0, 18.0, flood(Kind::AmplifiedDns, 1.0)),
            act(20.0, 22.0, flood(Kind::Ack, 1.0)),
        ],
        seconds: 22.5,
        counts_from: 12.0,
    },
    Scenario {
        number: 8,
        name: "slow ramp",
        truth: Truth::Attack,
        vectors: &[&["syn-flood"]],
        targets: targets(15.0, 16.0, 0.99),
        groups: &[],
        always: &[],
        acts: &[act(0.0, 24.0, Does::Flood(Flood { kind: Kind::BareSyn, of_attack: 0.5, doubles_every: Some(2.5) }))],
        seconds: 24.0,
        counts_from: 0.0,
    },
    Scenario {
        number: 9,
        name: "HTTP flood, real stacks",
        truth: Truth::Attack,
        vectors: &[&["http-flood"]],
        targets: targets(10.0, 8.0, 0.95),
        groups: &[],
        always: &[],
        acts: &[act(0.0, 18.0, bots(1_500.0, Way::Floods(3.0))), act(0.0, 18.0, Does::Service(Condition::Takes(4.0)))],
        seconds: 18.0,
        counts_from: 0.0,
    },
    Scenario {
        number: 10,
        name: "slow connections",
        truth: Truth::Attack,
        vectors: &[&["slow-connections"]],
        targets: targets(10.0, 10.0, 0.95),
        groups: &[],
        always: &[],
        acts: &[act(0.0, 16.0, bots(800.0, Way::Trickle(5))), act(0.0, 16.0, Does::Service(Condition::Holds(3_000.0)))],
        seconds: 16.0,
        counts_from: 0.0,
    },
    Scenario {
        number: 11,
        name: "IPv6, rotating sources",
        truth: Truth::Attack,
        vectors: &[&["udp-flood", "syn-flood"]],
        targets: L4,
        groups: &[],
        always: &[load("v6", Who::Networks(200), Amount::OfBase(0.5), Way::Web(1, 2), Server::Web)],
        acts: &[act(0.0, 12.0, flood(Kind::Rotating, 0.3))],
        seconds: 12.0,
        counts_from: 0.0,
    },
    Scenario {
        number: 12,
        name: "flash crowd, within capacity",
        truth: Truth::Surge,
        vectors: &[],
        targets: benign(3.0),
        groups: &[],
        always: &[],
        acts: &[act(0.0, 14.0, Does::Clients(Load { ramp_s: 6.0, ..CROWD }))],
        seconds: 14.0,
        counts_from: 0.0,
    },
    Scenario {
        number: 13,
        name: "flash crowd, over capacity",
        truth: Truth::Overload,
        vectors: &[],
        targets: benign(5.0),
        groups: &["established"],
        always: &[],
        acts: &[
            act(0.0, 14.0, Does::Clients(Load { ramp_s: 2.0, ..CROWD })),
            act(0.0, 14.0, Does::Service(Condition::Takes(2.5))),
        ],
        seconds: 14.0,
        counts_from: 0.0,
    },
    Scenario {
        number: 14,
        name: "retry storm of a partner",
        truth: Truth::Misconfiguration,
        vectors: &[],
        targets: benign(15.0),
        groups: &[],
        always: &[PARTNERS],
        acts: &[act(0.0, 16.0, Does::Service(Condition::Delays(1_200))), act(0.0, 16.0, Does::Clients(MOBILES))],
        seconds: 16.0,
        counts_from: 0.0,
    },
    Scenario {
        number: 15,
        name: "benign mix",
        truth: Truth::Normal,
        vectors: &[],
        targets: benign(f64::INFINITY),
        groups: &[],
        always: &BENIGN,
        acts: &[
            act(6.0, 14.0, Does::Clients(Load { amount: Amount::OfBase(0.8), ..BATCHES })),
            act(12.0, 12.0, Does::Restart),
        ],
        seconds: 20.0,
        counts_from: 0.0,
    },
    Scenario {
        number: 16,
        name: "attack in a flash crowd",
        truth: Truth::Mixed,
        vectors: &[&["syn-flood"]],
        // That of an HTTP flood, which is the slower part of it.
        targets: targets(10.0, 8.0, 0.97),
        groups: &[],
        always: &[],
        acts: &[
            act(0.0, 20.0, Does::Clients(Load { ramp_s: 6.0, ..CROWD })),
            act(7.0, 20.0, flood(Kind::OfferingSyn, 0.4)),
            act(7.0, 20.0, bots(300.0, Way::Floods(3.0))),
        ],
        seconds: 20.0,
        counts_from: 0.0,
    },
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_sixteen_are_there_in_order_and_end_when_they_say() {
        assert!(SCENARIOS.iter().map(|scenario| scenario.number).eq(1..=16));
        for scenario in SCENARIOS {
            assert!(scenario.acts.iter().all(|act| act.at <= act.until && act.until <= scenario.seconds));
            assert_eq!(scenario.truth.is_attack(), !scenario.vectors.is_empty(), "{}", scenario.name);
        }
    }
}

//! What is done about an attack, or about clients that ask too much: the narrowest mechanism of the packet path that explains it.

mod canary;
mod denied;
mod good;
mod group;
mod policy;
mod probe;
mod shed;
mod signature;
mod stray;
mod toll;
mod unserved;
mod wide;

use std::fmt;
use std::hash::{DefaultHasher, Hash, Hasher};

use anyhow::Result;
pub use canary::{OPEN_NS, Seen, around, slice, suits};
pub use denied::Denied;
use floodwall_common::abi::Counter;
use floodwall_common::cookie::CookieMode;
use floodwall_common::limits::LimitName;
use floodwall_common::reason::{Reason, Verdict as Fate};
use floodwall_common::signatures::{Action, Fragment};
pub use good::{Collateral, Measured};
pub use group::{GROUP, GroupLimit, is_automatic};
pub use policy::{Cause, Policies, Policy};
pub use probe::{PROBED_NS, Probe, concluded, probe};
pub use shed::Shed;
pub use signature::Found;
use toll::Toll;
pub use unserved::Unserved;
pub use wide::Wide;

use crate::dataplane::{self, Signature};
use crate::detect::{Assessment, Features, Group, Observed, Vector, Verdict, WINDOW_NS, Window};
use crate::replay::Maps;
use crate::signatures::fields_of;

/// How long a measure stays after the last sign: the next pulse finds it in force.
pub const STAYS_NS: u64 = 600_000_000_000;
/// Signatures of its own at the same time.
const SIGNATURES: usize = 8;
/// Signatures in force, advised and taken back while one incident lasts, of which there are no more: a flood may change on and on.
const TOLD: usize = 64;
/// How often more sources are denied, and how often at most while the first of them are: from the eighth time on each waits twice as long as the
/// one before, so that who comes a few at a time does not use them up.
const DENIED_EVERY_NS: u64 = 500_000_000;
const DENIALS_AT_ONCE: usize = 8;
const DENIALS: usize = 24;
/// How often others may take the place of the networks that are held, and how often some of these are let go of.
const GROUPED_EVERY_NS: u64 = 5_000_000_000;
const LET_GO_EVERY_NS: u64 = 60_000_000_000;
/// How long nothing may suit one that makes room for another.
const IDLE_NS: u64 = 10_000_000_000;
/// How long it takes until all packets are judged by what was armed.
const SETTLE_NS: u64 = 200_000_000;

/// What the names of signatures and groups begin with that detection adds.
pub const AUTOMATIC_NAME: &str = "auto-";

/// What the signature for a vector is called: by its kind and its shape, as there may be several.
pub fn automatic_name(vector: Vector, found: &Found) -> String {
    let mut hasher = DefaultHasher::new();
    format!("{:?}", found.shape).hash(&mut hasher);
    format!("{AUTOMATIC_NAME}{}-{:04x}", vector.label(), hasher.finish() & 0xffff)
}

/// Fragments among the answers of amplifiers from which on something is done about them.
const FRAGMENTS: usize = 40;

/// One step.
#[derive(Clone, Debug, PartialEq)]
pub enum Measure {
    /// Packets with this finding are dropped.
    Drop(Reason, Collateral),
    /// SYNs are answered with cookies.
    Cookies,
    /// Packets that suit this are dropped.
    Signature(Vector, Found),
    /// UDP that nothing here listens for, and that answers nothing, is dropped.
    Unserved(Unserved),
    /// Packets of these sources are dropped.
    Deny(Denied),
    /// What a subnet or a network may send is limited.
    Limit(Wide),
    /// No more connections are let begin than the host takes.
    Shed(Shed),
    /// What each source of a few networks may begin is limited.
    Group(GroupLimit),
}

/// A measure in force.
#[derive(Clone, Debug, PartialEq)]
pub struct InForce {
    /// Which.
    pub measure: Measure,
    /// Since when, in nanoseconds.
    pub since_ns: u64,
    /// Until when.
    pub until_ns: u64,
    /// Packets that suited it, and when the last of them was counted: of a signature, and of what is shed.
    hits: (u64, u64),
    /// What it costs those that it is not meant for: of a signature.
    pub toll: Toll,
}

impl InForce {
    /// One that comes in force now.
    pub fn new(measure: Measure, now_ns: u64, until_ns: u64) -> Self {
        Self { measure, since_ns: now_ns, until_ns, hits: (0, now_ns), toll: Toll::default() }
    }

    /// How long it has been in force.
    const fn age_ns(&self, now_ns: u64) -> u64 {
        now_ns.saturating_sub(self.since_ns)
    }

    /// So many packets have suited it until now. Whether that is more than before.
    pub const fn count(&mut self, hits: u64, now_ns: u64) -> bool {
        let has_more = hits != self.hits.0;
        if has_more {
            self.hits = (hits, now_ns);
        }
        has_more
    }

    /// Whether there is nothing left to shed.
    pub const fn is_over(&self, now_ns: u64) -> bool {
        matches!(self.measure, Measure::Shed(_)) && now_ns.saturating_sub(self.hits.1) > shed::OVER_NS
    }

    /// Whether it has been in force for so long, and something has suited it so lately.
    pub const fn is_used(&self, now_ns: u64, for_ns: u64, lately_ns: u64) -> bool {
        self.age_ns(now_ns) >= for_ns && now_ns.saturating_sub(self.hits.1) < lately_ns
    }

    const fn is_signature(&self) -> bool {
        matches!(self.measure, Measure::Signature(..))
    }

    /// Whether it is of networks that have gone wild.
    pub const fn is_group(&self) -> bool {
        matches!(self.measure, Measure::Group(_))
    }

    /// Whether it is a signature that nothing has suited for a while.
    fn is_idle(&self, now_ns: u64) -> bool {
        self.is_signature() && now_ns.saturating_sub(self.hits.1) > IDLE_NS
    }
}

/// The signature that has to make room for another: where there are more than there may be, the one that was of use longest ago.
pub fn surplus(in_force: &[InForce], now_ns: u64) -> Option<usize> {
    let signatures = in_force.iter().filter(|present| present.is_signature()).count();
    let idle = in_force.iter().enumerate().filter(|(_, present)| present.is_idle(now_ns));
    idle.min_by_key(|(_, present)| present.hits.1).map(|(place, _)| place).filter(|_| signatures > SIGNATURES)
}

/// Of what is proposed, that which is not there yet. Another signature of one vector only once the window has nothing left of
/// before the last one, and only so many.
pub fn missing(proposed: Vec<Measure>, in_force: &[InForce], now_ns: u64) -> Vec<Measure> {
    let is_due = |measure: &Measure| match measure {
        Measure::Signature(vector, _) => {
            let of_vector = |present: &&InForce| matches!(&present.measure, Measure::Signature(of, _) if of == vector);
            let is_settled = |present: &InForce| present.age_ns(now_ns) > WINDOW_NS + SETTLE_NS;
            let busy = in_force.iter().filter(|present| present.is_signature() && !present.is_idle(now_ns)).count();
            let told = in_force.iter().filter(|present| present.is_signature()).count();
            in_force.iter().filter(of_vector).all(is_settled) && busy < SIGNATURES && told < TOLD
        }
        Measure::Deny(denied) => {
            let is_alike = |present: &Measure| matches!(present, Measure::Deny(of) if of.vector == denied.vector);
            let mut denials = in_force.iter().filter(|present| is_alike(&present.measure));
            let told = denials.clone().count();
            let gap_ns = DENIED_EVERY_NS << told.saturating_sub(DENIALS_AT_ONCE).min(DENIALS);
            let is_settled = |present: &InForce| present.age_ns(now_ns) >= gap_ns;
            told < DENIALS && denials.all(is_settled)
        }
        Measure::Group(proposed) => {
            let is_settled = |present: &InForce| {
                let has_all = matches!(&present.measure, Measure::Group(of) if of.has_all_of(proposed));
                let every_ns = if has_all { LET_GO_EVERY_NS } else { GROUPED_EVERY_NS };
                present.age_ns(now_ns) >= every_ns
            };
            let mut groups = in_force.iter().filter(|present| present.is_group());
            groups.clone().count() < TOLD && groups.all(is_settled)
        }
        _ => true,
    };
    let is_there = |measure: &Measure| in_force.iter().any(|present| present.measure.does_as(measure));
    let mut missing: Vec<Measure> = Vec::new();
    for measure in proposed.into_iter().filter(|measure| !is_there(measure) && is_due(measure)) {
        // Two kinds of flood may ask for the same.
        if !missing.iter().any(|other| other.does_as(&measure)) {
            missing.push(measure);
        }
    }
    missing
}

impl Measure {
    /// Whether it is meant for what goes on by this verdict: what lasts is prolonged by nothing else.
    pub const fn is_for(&self, verdict: Verdict) -> bool {
        match self {
            Self::Shed(_) => matches!(verdict, Verdict::Overload | Verdict::Mixed),
            Self::Group(_) => matches!(verdict, Verdict::Misconfiguration | Verdict::Mixed),
            _ => verdict.is_attack(),
        }
    }

    /// Whether what stands in the way of one stands in the way of the other.
    pub fn is_like(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Deny(one), Self::Deny(two)) => one.vector == two.vector,
            (Self::Group(_), Self::Group(_)) => true,
            _ => self.does_as(other),
        }
    }

    /// Whether it does the same, whatever was measured of it.
    pub fn does_as(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Signature(one, a), Self::Signature(two, b)) => one == two && a.shape == b.shape,
            (Self::Drop(one, _), Self::Drop(two, _)) => one == two,
            (Self::Unserved(_), Self::Unserved(_)) => true,
            (Self::Limit(one), Self::Limit(two)) => one.key() == two.key(),
            (Self::Shed(one), Self::Shed(two)) => one.port == two.port,
            (Self::Deny(one), Self::Deny(two)) => one.has_all_of(two),
            (Self::Group(one), Self::Group(two)) => one.has_all_of(two) && two.has_all_of(one),
            _ => self == other,
        }
    }
}

impl fmt::Display for Measure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Drop(reason, collateral) => {
                write!(f, "drop {}: {}: {collateral}", reason.label(), reason.sentence())
            }
            Self::Limit(wide) => wide.fmt(f),
            Self::Shed(shed) => shed.fmt(f),
            Self::Group(limit) => limit.fmt(f),
            // What it costs is what a cookie has no room for.
            Self::Cookies => f.write_str(
                "answer SYNs with cookies: who answers is there; nothing is dropped, but connections that begin so may lack window scale \
                 and SACK (cookies show)",
            ),
            Self::Signature(vector, found) => {
                let Found { shape, covers, collateral, measured_on } = found;
                let (covers, collateral) = (covers * 100.0, collateral * 100.0);
                let fields = fields_of(shape);
                if measured_on.packets == 0 && covers == 0.0 {
                    return write!(f, "drop signature {fields}: of the {}, by the daemon before this one", vector.label());
                }
                write!(f, "drop signature {fields}: {covers:.0} % of the {}, ", vector.label())?;
                write!(f, "{collateral:.2} % of {measured_on}")
            }
            Self::Deny(Denied { vector: Vector::SlowConnections, sources, covers, measured_on }) => {
                let (count, covers) = (sources.len(), covers * 100.0);
                write!(f, "deny {count} sources that hold connections open and ask for nothing, and close these: ")?;
                write!(f, "all such hold {covers:.0} % of what is open; these hold {}", measured_on.packets)
            }
            Self::Deny(Denied { sources, covers, measured_on, .. }) => {
                let (count, covers) = (sources.len(), covers * 100.0);
                write!(f, "deny {count} sources that were never here before and begin connections on and on: ")?;
                write!(f, "all such begin {covers:.0} % of the connections; none of {measured_on}")
            }
            Self::Unserved(Unserved { covers, collateral, measured_on }) => {
                let (covers, collateral) = (covers * 100.0, collateral * 100.0);
                write!(f, "drop UDP that nothing here listens for, and that answers nothing: {covers:.0} % of the ")?;
                write!(f, "udp-flood, {collateral:.2} % of {measured_on}")
            }
        }
    }
}

/// Puts measures in force, all of them together.
///
/// # Errors
/// Where they cannot be compiled.
pub fn apply(in_force: &[InForce], maps: &mut Maps) -> Result<()> {
    let mut signatures = Vec::new();
    for InForce { measure, hits, .. } in in_force {
        match measure {
            Measure::Drop(reason, _) => maps.set_policy(*reason, Fate::Drop),
            Measure::Cookies => maps.set_cookies(CookieMode::Always),
            Measure::Unserved(_) => maps.lock_udp(true),
            Measure::Deny(denied) => maps.deny(&denied.sources),
            Measure::Limit(wide) => maps.set_limit(wide.key(), wide.limits())?,
            Measure::Group(limit) => {
                let limits = vec![(LimitName::TcpSyn, limit.limits())];
                maps.set_groups(&[dataplane::Group {
                    name: GROUP.to_owned(),
                    prefixes: limit.prefixes.clone(),
                    limits,
                }])?;
            }
            Measure::Signature(vector, found) if signatures.len() < SIGNATURES => signatures.push(Signature {
                number: Some(signatures.len()),
                name: automatic_name(*vector, found),
                shape: found.shape,
                action: Action::Drop,
                until: None,
                added: std::time::UNIX_EPOCH,
                note: "found by detection".to_owned(),
                hits: Counter { packets: hits.0, ..Counter::default() },
            }),
            Measure::Signature(..) => {}
            // Nothing is shed where no host says that it is full.
            Measure::Shed(_) => {}
        }
    }
    maps.set_signatures(&signatures)
}

/// Whether it is done by naming sources: how many packets they send says nothing of it.
const fn is_by_name(vector: Vector) -> bool {
    matches!(vector, Vector::HttpFlood | Vector::SlowConnections)
}

/// The share of a flood that is held already where nothing more has to be done.
const HELD: f64 = 0.8;

/// What to do about what goes on.
pub fn respond(assessment: &Assessment, features: &Features, window: &Window) -> Vec<Measure> {
    match assessment.verdict {
        Verdict::Attack | Verdict::Mixed => against_floods(assessment, features, window),
        Verdict::Overload => shed::find(features).map(Measure::Shed).into_iter().collect(),
        Verdict::Misconfiguration => {
            group::find(assessment, features, window).map(Measure::Group).into_iter().collect()
        }
        Verdict::Normal | Verdict::Surge => Vec::new(),
    }
}

/// The narrowest mechanism for each kind of flood that goes on and is not held by limits already.
fn against_floods(assessment: &Assessment, features: &Features, window: &Window) -> Vec<Measure> {
    let signature = |vector: Vector| {
        let found = signature::find(window, |group, _| group == vector.group());
        found.map(|found| Measure::Signature(vector, found))
    };
    let drop = |reason: Reason| Measure::Drop(reason, Collateral::of(reason, window));
    let mut measures = Vec::new();
    // They pass where all that has ports is held.
    if assessment.current.contains(&Vector::Amplification) {
        measures.extend(fragments_of_replies(window));
    }
    // They pass where what answers nothing is held.
    if assessment.current.contains(&Vector::TcpReflection) && stray::is_of_reflectors(window) {
        measures.push(drop(Reason::OutOfState));
    }
    let loose = |vector: &&Vector| {
        let group = features.of(vector.group());
        // Who is held by name is not named again, and others are not held by that. A SYN that passes takes room for a minute.
        let fills_queues = **vector == Vector::SynFlood && group.per_second * (1.0 - group.held) > vector.wakes_at();
        is_by_name(**vector) || (group.samples > 0 && group.held < HELD) || fills_queues
    };
    // What has ended is held in mind, but nothing new is done about it: what comes then is not it.
    for vector in assessment.current.iter().filter(loose) {
        // What few networks send these share, whatever they have in common. Whom it denies by name it does not need a rate of.
        if matches!(vector.group(), Group::Syn | Group::Tcp | Group::Udp | Group::Icmp) && !is_by_name(*vector) {
            measures.extend(wide::find(*vector, window).map(Measure::Limit));
        }
        match vector {
            Vector::SynFlood => {
                measures.extend(signature::bare_syns(features, window).map(|found| Measure::Signature(*vector, found)));
                measures.push(Measure::Cookies);
            }
            Vector::TcpReflection | Vector::Amplification => match signature::is_asked_from_amplifiers(window) {
                true => measures.extend(signature(*vector)),
                false => measures.push(drop(Reason::UnsolicitedReply)),
            },
            // Whoever completes connections has an address: that of one machine limits hold, and many are denied by name.
            Vector::HttpFlood => measures.extend(denied::find(features, window).map(Measure::Deny)),
            Vector::SlowConnections => measures.extend(denied::holders(features).map(Measure::Deny)),
            Vector::UdpFlood => match signature(*vector) {
                Some(found) => measures.push(found),
                // Nothing in common but that nobody here wants it.
                None => measures.extend(unserved::find(window).map(Measure::Unserved)),
            },
            // What belongs to no connection is nobody's, whatever it has in common with what customers send.
            Vector::TcpFlood if stray::is_told_apart(window) => measures.push(drop(Reason::OutOfState)),
            Vector::TcpFlood | Vector::IcmpFlood | Vector::FragmentFlood | Vector::ProtocolFlood => {
                measures.extend(signature(*vector));
            }
        }
    }
    measures
}

/// Later fragments of answers have no ports that they could be told by. While a flood of answers goes on, those of UDP are of it, whether
/// or not the first fragment was among the samples.
fn fragments_of_replies(window: &Window) -> Option<Measure> {
    let is_fragment = |group, packet: &Observed| {
        let is_udp = u16::from(packet.protocol) == signature::UDP;
        matches!(group, Group::UdpReplies | Group::Fragments) && packet.fragment == Fragment::Later && is_udp
    };
    let count = window.packets().filter(|(group, packet)| is_fragment(*group, packet)).count();
    let found = signature::find(window, is_fragment).filter(|_| count >= FRAGMENTS);
    found.map(|found| Measure::Signature(Vector::FragmentFlood, found))
}

#[cfg(test)]
mod tests {
    use floodwall_common::packet::Source;
    use floodwall_common::signatures::Shape;

    use super::*;

    const SECOND: u64 = 1_000_000_000;

    /// So many good packets, and so many of one network that nobody knows: with these flags, and without TCP options.
    fn window(good: u32, flood: u32, flags: u8) -> (Features, Window) {
        let mut window = Window::default();
        for number in 0..good {
            let known = Observed::segment(0x0a00_0000 + number, 40_000, SECOND, 0x10);
            window.take(Observed { is_known: Some(true), ..known });
        }
        for number in 0..flood {
            let strange = Observed::segment(0x1400_0000 + number % 200, number as u16, SECOND, flags);
            window.take(Observed { layout: 0, ..strange });
        }
        (window.features(SECOND + SECOND / 10, false, None), window)
    }

    fn found(vector: Vector, (features, window): &(Features, Window)) -> Vec<Measure> {
        let assessment = Assessment { verdict: Verdict::Attack, current: vec![vector], ..Assessment::default() };
        respond(&assessment, features, window)
    }

    #[test]
    fn who_holds_connections_is_no_matter_of_rates() {
        let seen = window(300, 600, 0x10);
        let is_limit = |measure: &Measure| matches!(measure, Measure::Limit(_));
        assert!(!found(Vector::SlowConnections, &seen).iter().any(is_limit));
        assert!(found(Vector::TcpFlood, &seen).iter().any(is_limit), "of a flood they are");
    }

    #[test]
    fn what_two_floods_ask_for_is_done_once() {
        let cookies = || vec![Measure::Cookies, Measure::Drop(Reason::OutOfState, Collateral::default())];
        let twice = [cookies(), cookies()].concat();
        assert_eq!(missing(twice, &[], SECOND).len(), 2);
    }

    /// Where limits hold nearly all of it, what is left may still fill the queue of a listener.
    #[test]
    fn syns_that_pass_are_answered_by_cookies_however_few_of_all_they_are() {
        let mut seen = window(300, 300, 0x02);
        let mut are_cookies = |per_second: f64, held: f64| {
            let group = &mut seen.0.groups[Group::Syn as usize];
            (group.per_second, group.held) = (per_second, held);
            found(Vector::SynFlood, &seen).contains(&Measure::Cookies)
        };
        assert!(are_cookies(15_000.0, 0.97), "450/s");
        assert!(!are_cookies(5_000.0, 0.97), "150/s");
        assert!(are_cookies(1_000.0, 0.5), "nothing holds them");
    }

    /// What is advised is kept for as long as the incident lasts, and a flood may change for days.
    #[test]
    fn there_is_an_end_to_what_is_advised() {
        let signature = |number: usize| {
            let shape = Shape { protocol: number as u16, ..Shape::ANY };
            Measure::Signature(
                Vector::UdpFlood,
                Found { shape, covers: 1.0, collateral: 0.0, measured_on: Measured::default() },
            )
        };
        let mut advised: Vec<InForce> = Vec::new();
        for number in 0..1_000 {
            let now_ns = (number as u64 + 1) * 60 * SECOND;
            let new = missing(vec![signature(number)], &advised, now_ns);
            advised.extend(new.into_iter().map(|measure| InForce::new(measure, now_ns, now_ns + STAYS_NS)));
        }
        assert_eq!(advised.len(), TOLD);
    }

    /// Who serves DNS to resolvers, or NTP to servers, is asked from the ports that amplifiers answer from.
    #[test]
    fn replies_to_nothing_pass_where_somebody_asks_from_ports_of_amplifiers() {
        let drops = |asks: u32| {
            let (features, mut window) = window(300, 600, 0x12);
            for number in 0..asks {
                let (ports, flags) = (Some((53, 53)), None);
                let asking = Observed::segment(0x0a00_0000 + number, 53, SECOND, 0);
                let is_known = Some(false);
                window.take(Observed { protocol: 17, ports, flags, is_known, is_to_service: true, ..asking });
            }
            let is_drop = |measure: &Measure| matches!(measure, Measure::Drop(Reason::UnsolicitedReply, _));
            found(Vector::TcpReflection, &(features, window)).iter().any(is_drop)
        };
        assert_eq!([0, 20].map(drops), [true, false]);
    }

    /// Bots that come a few at a time do not use up what may be denied.
    #[test]
    fn there_is_room_for_those_who_come_later() {
        let denied = |source: u32| {
            let (sources, measured_on) = (vec![Source::V4(source)], Measured::default());
            Measure::Deny(Denied { vector: Vector::HttpFlood, sources, covers: 1.0, measured_on })
        };
        let mut in_force: Vec<InForce> = Vec::new();
        for tick in 0..240 {
            let now_ns = u64::from(tick) * SECOND / 4;
            let new = missing(vec![denied(tick)], &in_force, now_ns);
            in_force.extend(new.into_iter().map(|measure| InForce::new(measure, now_ns, now_ns + STAYS_NS)));
        }
        let at: Vec<_> = in_force.iter().map(|present| present.since_ns as f64 / SECOND as f64).collect();
        assert_eq!(at[..9], [0.0, 0.5, 1.0, 1.5, 2.0, 2.5, 3.0, 3.5, 4.0], "{at:?}");
        assert_eq!(at[9..], [5.0, 7.0, 11.0, 19.0, 35.0], "in a minute");
    }

    #[test]
    fn a_network_that_has_calmed_down_is_let_go_of_after_a_minute() {
        let group = |prefixes: &[&str]| {
            let prefixes = prefixes.iter().map(|prefix| prefix.parse().unwrap()).collect();
            let measured_on = Measured::default();
            Measure::Group(GroupLimit { prefixes, per_second: 5, begun: [1.0; 2], share: 0.0, measured_on })
        };
        let (one, other) = ("192.0.2.0/24", "198.51.100.0/24");
        let both = [InForce::new(group(&[one, other]), 0, STAYS_NS)];
        let is_missing =
            |proposed: &[&str], seconds: u64| !missing(vec![group(proposed)], &both, seconds * SECOND).is_empty();
        assert!(!is_missing(&[other, one], 600), "the same");
        assert!(!is_missing(&[one], 59) && is_missing(&[one], 60), "one of them");
        assert!(!is_missing(&[one, "203.0.113.0/24"], 4) && is_missing(&[one, "203.0.113.0/24"], 5), "another");
    }

    #[test]
    fn of_a_few_good_packets_nobody_can_say_that_none_is_bare() {
        let is_signature = |measure: &Measure| matches!(measure, Measure::Signature(..));
        let with = |good: u32| found(Vector::SynFlood, &window(good, 300, 0x02)).iter().any(is_signature);
        assert_eq!([0, 199, 200].map(with), [false, false, true]);
    }
}

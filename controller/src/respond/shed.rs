//! What is done about customers that are more than can be served: no more connections are let begin than this host takes, and who was
//! here before comes first ([ADR 0041](../../../docs/adr/0041-new-connections.md)). A flood over connections looks like that until those who
//! go on and on are told from customers; so at first whoever has been served since comes last
//! ([ADR 0044](../../../docs/adr/0044-known-first.md)).

use std::fmt;

use floodwall_common::services::Order;

use crate::detect::{Assessment, Features, Group, Vector};

/// Connections a second that find the queue of their listener full, from which on some are refused in front of it.
const FULL: f64 = 10.0;
/// The share of SYNs that are for one port: it is that which is overloaded.
const MOST: f64 = 0.5;
/// How many seconds it takes until it is known to be customers: a flood over connections is told by then.
const OF_CUSTOMERS: u32 = 12;
/// Connections a second that are let begin in any case.
const LEAST: f64 = 10.0;
/// What is let begin of what the host takes, so that its queues empty; and how much more each second while they are shorter than that, or
/// as good as empty.
const LESS: f64 = 0.9;
const MORE: f64 = 1.05;
const SHORT: f64 = 0.5;
const MUCH_MORE: f64 = 1.5;
const EMPTY: f64 = 0.05;
/// How many times of what the host takes may be let begin at most.
const MOST_TIMES: f64 = 4.0;
/// The part of a second's worth that may begin at once.
const AT_ONCE: u64 = 4;
/// How many seconds it takes until a queue shows what was changed.
const SETTLED: u32 = 3;
/// How long nothing has to be refused until it is over.
pub(super) const OVER_NS: u64 = 60_000_000_000;

/// A cap of new connections, and why.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Shed {
    /// The TCP port.
    pub port: u16,
    /// Connections that may be begun in a second.
    pub per_second: u64,
    /// Who comes first.
    pub order: Order,
    /// Connections a second that the host refused when it was found.
    pub refused: f64,
    /// How full the queue of its listener was last: from 0 to 1.
    pub fullness: f64,
    /// Seconds since less was let begin.
    pub settled: u32,
    /// Seconds in which it was no flood over connections.
    pub of_customers: u32,
}

/// The port that is overloaded, where the host refuses connections itself already: then it only says whom.
pub(super) fn find(features: &Features) -> Option<Shed> {
    let pressure = &features.pressure;
    let (port, share) = features.of(Group::Syn).destination_port?;
    let waiting = f64::from(*features.held.as_ref()?.full.get(&port)?);
    let is_overloaded = pressure.full_queues >= FULL && share >= MOST;
    // While queues are full the host takes as many as it can, but for what has filled them in that second. Whether that was
    // in this one nobody knows: what is too little is soon more, as queues get empty.
    let taken = (pressure.accepted - waiting).max(pressure.accepted / 2.0);
    // What is usual it takes, once it goes on after a moment in which it stood still.
    let per_second = least((LESS * taken).max(features.usual_connections.unwrap_or(0.0)));
    let (order, refused) = (Order::KnownFirst, pressure.full_queues);
    is_overloaded.then_some(Shed { port, per_second, order, refused, fullness: 1.0, settled: 0, of_customers: 0 })
}

impl Shed {
    /// How many connections may begin at once.
    pub fn burst(&self) -> u64 {
        (self.per_second / AT_ONCE).max(AT_ONCE)
    }

    /// A second later: with whoever comes first by what goes on now. Who was here before comes first where that is known, and in a flood over
    /// connections; not while SYNs are forged, as these would come before all who have been served.
    #[must_use]
    pub fn ordered(self, assessment: &Assessment, is_known: bool) -> Self {
        let is_http_flood = assessment.vectors.contains(&Vector::HttpFlood);
        let of_customers = if is_http_flood { 0 } else { self.of_customers.saturating_add(1) };
        let order = match () {
            // The vectors of an attack add up: it is those of this moment that count here.
            () if assessment.current.contains(&Vector::SynFlood) => Order::VerifiedFirst,
            () if is_http_flood => Order::KnownFirst,
            () if !is_known || of_customers >= OF_CUSTOMERS => Order::VerifiedFirst,
            () => Order::KnownFirst,
        };
        Self { order, of_customers, ..self }
    }

    /// What is let begin in the next second: less than the host takes while its queues are long and get no shorter, more while they are
    /// short and some are refused here.
    #[must_use]
    pub fn follow(self, accepted: f64, fullness: f64, refuses: bool) -> Self {
        let (is_short, gets_shorter) = (fullness < SHORT, fullness < self.fullness);
        let settled = self.settled.saturating_add(1);
        let present = self.per_second as f64;
        // Others may be refused too: many times of what the host takes is no cap.
        let more = |times: f64| least((times * present).ceil().min((MOST_TIMES * accepted).max(present)));
        let (per_second, settled) = match (is_short, refuses) {
            (true, true) if fullness < EMPTY => (more(MUCH_MORE), settled),
            (true, true) => (more(MORE), settled),
            (false, _) if !gets_shorter && settled > SETTLED => (least(LESS * accepted.min(present)), 0),
            _ => (self.per_second, settled),
        };
        Self { per_second, fullness, settled, ..self }
    }
}

fn least(per_second: f64) -> u64 {
    per_second.max(LEAST) as u64
}

impl fmt::Display for Shed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { port, per_second, order, refused, .. } = self;
        let first = match order {
            Order::KnownFirst => "who was here before this began first, who has been served since last",
            Order::VerifiedFirst => "who has been served before first",
        };
        write!(f, "let {per_second} connections/s begin on TCP port {port}, {first}: ")?;
        write!(f, "the host takes no more, and refused {refused:.0}/s of whomever; what is begun goes on")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::detect::{Aggregate, Held};
    use crate::pressure::Pressure;

    fn of(accepted: f64, full_queues: f64, share: f64) -> Features {
        let pressure = Pressure { accepted, full_queues, ..Pressure::default() };
        let held = Some(Held { full: [(443, 100)].into(), ..Held::default() });
        let mut features = Features { pressure, held, ..Features::default() };
        features.groups[Group::Syn as usize] =
            Aggregate { destination_port: Some((443, share)), ..Aggregate::default() };
        features
    }

    #[test]
    fn it_is_found_where_the_host_refuses_connections_itself() {
        let found = find(&of(500.0, 1_500.0, 0.98));
        let order = Order::KnownFirst;
        let wanted =
            Shed { port: 443, per_second: 360, order, refused: 1_500.0, fullness: 1.0, settled: 0, of_customers: 0 };
        assert_eq!(found, Some(wanted));
        let of_few = find(&of(120.0, 1_500.0, 0.98)).map(|shed| shed.per_second);
        assert_eq!(of_few, Some(54), "what waits may have come before");
        let stood_still = Features { usual_connections: Some(300.0), ..of(120.0, 1_500.0, 0.98) };
        assert_eq!(find(&stood_still).map(|shed| shed.per_second), Some(300), "for a moment");
        assert_eq!(find(&of(500.0, 3.0, 0.98)), None, "it takes all");
        assert_eq!(find(&of(500.0, 1_500.0, 0.3)), None, "of many ports");
        let elsewhere = Features {
            held: Some(Held { full: [(8_080, 100)].into(), ..Held::default() }),
            ..of(500.0, 1_500.0, 0.98)
        };
        assert_eq!(find(&elsewhere), None, "another port has no room");
        assert_eq!(find(&of(0.0, 1_500.0, 0.98)).map(|shed| shed.per_second), Some(10), "a host that takes none");
    }

    /// In a flood those are served most often who ask most often; customers are served once, and want to go on.
    #[test]
    fn who_was_served_comes_first_once_these_are_customers() {
        let at_first = find(&of(500.0, 1_500.0, 0.98)).unwrap_or_else(|| panic!("nothing is found"));
        let after = |shed: Shed, seconds: u32, vectors: &[Vector], is_known| {
            let current = vectors.to_vec();
            let assessment = Assessment { vectors: vectors.to_vec(), current, ..Assessment::default() };
            (0..seconds).fold(shed, |shed, _| shed.ordered(&assessment, is_known))
        };
        let bots = [Vector::HttpFlood];
        assert_eq!(after(at_first, 11, &[], true).order, Order::KnownFirst, "it may be a flood yet");
        assert_eq!(after(at_first, 1, &[], false).order, Order::VerifiedFirst, "nobody knows who was here before");
        assert_eq!(after(at_first, 1, &[Vector::HttpFlood, Vector::SynFlood], true).order, Order::VerifiedFirst);
        let (vectors, current) = (vec![Vector::HttpFlood, Vector::SynFlood], bots.to_vec());
        let of_bots_since = Assessment { vectors, current, ..Assessment::default() };
        assert_eq!(at_first.ordered(&of_bots_since, true).order, Order::KnownFirst, "SYNs were forged for a moment");
        assert_eq!(after(at_first, 1, &bots, false).order, Order::KnownFirst, "newcomers before bots at least");
        let forged = after(at_first, 1, &[Vector::SynFlood], true);
        assert_eq!((forged.order, after(forged, 1, &[], true).order), (Order::VerifiedFirst, Order::KnownFirst));
        let of_customers = after(at_first, 12, &[], true);
        assert_eq!(of_customers.order, Order::VerifiedFirst, "whatever the verdict is by then");
        assert_eq!(after(of_customers, 1, &[Vector::IcmpFlood], true).order, Order::VerifiedFirst);
        assert_eq!(after(of_customers, 1, &bots, true).order, Order::KnownFirst, "bots are among them");
        assert_eq!(after(after(of_customers, 60, &bots, true), 11, &[], true).order, Order::KnownFirst);
        let burst = |per_second| Shed { per_second, ..at_first }.burst();
        assert_eq!([10, 800].map(burst), [4, 200]);
    }

    #[test]
    fn it_follows_what_the_host_takes() {
        let order = Order::KnownFirst;
        let shed =
            Shed { port: 443, per_second: 450, order, refused: 0.0, fullness: 0.8, settled: SETTLED, of_customers: 0 };
        let next = |fullness: f64, refuses| shed.follow(400.0, fullness, refuses).per_second;
        assert_eq!(next(0.9, true), 360, "the queue is long, and gets longer: it takes 400");
        assert_eq!(next(0.7, true), 450, "it gets shorter");
        let again = shed.follow(400.0, 0.9, true).follow(360.0, 0.9, true);
        assert_eq!(again.per_second, 360, "what was changed does not show yet");
        assert_eq!(next(0.1, true), 473, "there is room, and some are refused");
        assert_eq!(next(0.1, false), 450, "nobody is refused");
        let more = (0..100).fold(shed, |shed, _| shed.follow(400.0, 0.0, true)).per_second;
        assert_eq!(more, 1_600, "whoever is refused elsewhere");
        let few = Shed { per_second: 10, ..shed };
        assert_eq!(few.follow(10.0, 0.3, true).per_second, 11, "it grows from the least, too");
        let soon = (0..10).fold(few, |shed, _| shed.follow(shed.per_second as f64, 0.0, true)).per_second;
        assert!((500..1_000).contains(&soon), "a host that stood still for a moment: {soon}");
    }
}

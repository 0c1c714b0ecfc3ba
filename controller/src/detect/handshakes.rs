//! Which of the connections that are begun are completed, and which are tried again. Followed by their tuples, in bounded
//! memory; a connection counts once it is old enough to tell, as one that was begun a moment ago is not yet an abandoned one.

use std::collections::{HashMap, VecDeque};
use std::hash::BuildHasher as _;

use super::observed::{Group, Observed, Tuple};
use super::room::make_room;

/// Connections that are followed at most: of more, only those of one tuple in two, four, eight, are.
const CAPACITY: usize = 1 << 15;
/// How long one is followed after its last SYN: clients wait 1, 2, 4, 8 s from one to the next, and none of these begins anew.
const FOLLOWED_NS: u64 = 20_000_000_000;
/// How long ago those began that shares are of.
const RECENT_NS: u64 = 4_000_000_000;
/// How old it has to be to count as completed or not: longer than a round trip.
const ANSWERED_NS: u64 = 500_000_000;
/// When a client whose SYN was not answered sends it again: all systems of today do after one second.
const RETRY_NS: std::ops::Range<u64> = 700_000_000..1_500_000_000;
/// How long a network has to be known to be that of a regular client, and for how long it stays one.
const HISTORY_NS: u64 = 10_000_000_000;
const REGULAR_NS: u64 = 3_600_000_000_000;
/// Connections that a share is of at least.
const ENOUGH: usize = 20;

/// Shares of the connections begun in the last seconds.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Handshakes {
    /// Connections that are old enough to tell.
    pub begun: usize,
    /// Of these, the share that was completed.
    pub completed: Option<f64>,
    /// Of these, the share that this host answered; `None` where it is not seen what it sends.
    pub answered: Option<f64>,
    /// Of those answered, the share that was completed.
    pub acknowledged: Option<f64>,
    /// Of those not completed, the share whose SYN came again after a second. Where only SYNs are all seen, of those that pass and that
    /// this host has not answered: these were not completed either.
    pub retried: Option<f64>,
    /// Connections completed in a second, as in the last one; for a verdict smoothed over two.
    pub completed_per_second: f64,
    /// The most that one source has completed of these.
    pub most_of_one_source: f64,
    /// Whether that source was a client before; `None` while nobody was there long enough.
    pub is_regular: Option<bool>,
}

impl Handshakes {
    /// Whoever forges a SYN can send an ACK behind it: no larger share is completed than the stack has opened. And of those that never get to
    /// the stack, since too many are begun, few may be followed.
    pub(super) fn at_most(self, stack: &Self) -> Self {
        let least =
            |seen: Option<f64>, opened: Option<f64>| seen.map(|seen| opened.map_or(seen, |opened| opened.min(seen)));
        Self {
            completed: least(self.completed, stack.completed),
            answered: least(self.answered, stack.answered),
            acknowledged: least(self.acknowledged, stack.acknowledged),
            ..self
        }
    }
}

struct Connection {
    begun_ns: u64,
    last_syn_ns: u64,
    is_answered: Option<bool>,
    completed_ns: Option<u64>,
    is_retried: bool,
    /// It did not pass, so that nobody here could answer it.
    is_held: bool,
}

/// The connections that are followed.
#[derive(Default)]
pub(super) struct Followed {
    connections: HashMap<Tuple, Connection>,
    order: VecDeque<(u64, Tuple)>,
    /// Bits that are zero in the hash of a tuple that is followed.
    thinned: u64,
    /// When a packet that passes stood for others last. What drops or is answered is sampled by itself: SYNs that are answered may all
    /// be seen, and what completes them not.
    gap_ns: Option<u64>,
    /// When such a packet was a SYN: these are sampled by themselves too.
    syn_gap_ns: Option<u64>,
    /// When a SYN that drops or is answered did. Of these all that come from verified sources may be seen, and of the others few: what
    /// becomes of the former says nothing of the latter.
    held_gap_ns: Option<u64>,
    /// Networks that have completed a connection: when first, and when last.
    regulars: HashMap<u64, (u64, u64)>,
}

impl Followed {
    /// Takes a packet in. Those that stand for others are no use: the rest of their connection was not seen.
    pub(super) fn take(&mut self, packet: &Observed) {
        let is_syn = packet.group() == Group::Syn;
        let is_held_syn = packet.is_held && is_syn;
        if packet.weight != 1 {
            if !packet.is_held {
                self.gap_ns = Some(packet.at_ns);
                if is_syn {
                    self.syn_gap_ns = Some(packet.at_ns);
                }
            } else if is_held_syn {
                self.held_gap_ns = Some(packet.at_ns);
            }
            return;
        }
        if is_held_syn && is_recent(self.held_gap_ns, packet.at_ns) {
            return;
        }
        let Some(tuple) = packet.tuple() else { return };
        match packet.group() {
            Group::Syn => self.syn(tuple, packet.at_ns, packet.is_held),
            Group::Tcp if packet.acknowledges() => {
                if let Some(connection) = self.connections.get_mut(&tuple)
                    && connection.completed_ns.is_none()
                {
                    connection.completed_ns = Some(packet.at_ns);
                    self.remember(prefix(&tuple.source), packet.at_ns);
                }
            }
            _ => {}
        }
    }

    fn syn(&mut self, tuple: Tuple, at_ns: u64, is_held: bool) {
        if let Some(connection) = self.connections.get_mut(&tuple) {
            connection.is_held |= is_held;
            connection.is_retried |= RETRY_NS.contains(&at_ns.saturating_sub(connection.begun_ns));
            connection.last_syn_ns = at_ns;
            return;
        }
        if self.connections.len() >= CAPACITY {
            self.thin_out();
        }
        if !self.follows(&tuple) {
            return;
        }
        let begun = Connection {
            begun_ns: at_ns,
            last_syn_ns: at_ns,
            is_answered: None,
            completed_ns: None,
            is_retried: false,
            is_held,
        };
        self.connections.insert(tuple, begun);
        self.order.push_back((at_ns, tuple));
    }

    fn follows(&self, tuple: &Tuple) -> bool {
        self.connections.hasher().hash_one(tuple) & self.thinned == 0
    }

    /// Lets go of every other connection. Were it the oldest, a large flood would leave none that is old enough to tell.
    fn thin_out(&mut self) {
        self.thinned = self.thinned << 1 | 1;
        let order = std::mem::take(&mut self.order);
        self.order = order.into_iter().filter(|(_, tuple)| self.follows(tuple)).collect();
        let (hasher, thinned) = (self.connections.hasher().clone(), self.thinned);
        self.connections.retain(|tuple, _| hasher.hash_one(tuple) & thinned == 0);
    }

    fn remember(&mut self, network: u64, at_ns: u64) {
        make_room(&mut self.regulars, &network, CAPACITY, |(_, last_ns)| *last_ns);
        self.regulars.entry(network).or_insert((at_ns, at_ns)).1 = at_ns;
    }

    /// Whether this connection was begun while it was looked at.
    pub(super) fn has_begun(&self, tuple: &Tuple) -> bool {
        self.connections.contains_key(tuple)
    }

    /// Lets go of what is too old.
    pub(super) fn expire(&mut self, now_ns: u64) {
        while let Some((queued_ns, tuple)) = self.order.front().copied() {
            if now_ns.saturating_sub(queued_ns) <= FOLLOWED_NS {
                break;
            }
            self.order.pop_front();
            match self.connections.get(&tuple).map(|connection| connection.last_syn_ns) {
                Some(last_ns) if last_ns > queued_ns => self.order.push_back((last_ns, tuple)),
                _ => drop(self.connections.remove(&tuple)),
            }
        }
        if self.connections.len() < CAPACITY / 4 {
            self.thinned >>= 1;
        }
        self.regulars.retain(|_, (_, last_ns)| now_ns.saturating_sub(*last_ns) < REGULAR_NS);
    }

    /// What they say. `is_answered` tells whether this host has sent anything on a connection, where that is seen.
    pub(super) fn shares(&mut self, now_ns: u64, is_answered: Option<&dyn Fn(&Tuple) -> bool>) -> Handshakes {
        let (mut old, mut completed, mut unanswered, mut retried, mut recent) = (0, 0, 0, 0, 0);
        let (mut answered, mut acknowledged) = (0, 0);
        let mut by_source: HashMap<(u64, u64), u32> = HashMap::new();
        let (has_gaps, has_syn_gaps) = (is_recent(self.gap_ns, now_ns), is_recent(self.syn_gap_ns, now_ns));
        for (tuple, connection) in &mut self.connections {
            if connection.completed_ns.is_some_and(|at| now_ns.saturating_sub(at) < 1_000_000_000) {
                recent += 1;
                *by_source.entry(tuple.source).or_default() += 1;
            }
            let age = now_ns.saturating_sub(connection.begun_ns);
            if !(ANSWERED_NS..RECENT_NS).contains(&age) {
                continue;
            }
            let is_completed = connection.completed_ns.is_some();
            old += 1;
            completed += usize::from(is_completed);
            if let Some(is_answered) = is_answered {
                let is_answered = *connection.is_answered.get_or_insert_with(|| is_answered(tuple));
                answered += usize::from(is_answered);
                acknowledged += usize::from(is_answered && is_completed);
            }
            // What completes them may not have been seen, and was not sent to who has no answer.
            let is_open = match has_gaps {
                true => connection.is_answered == Some(false) && !connection.is_held,
                false => !is_completed,
            };
            // Of those tried again it is known at once, of the others only when the time for that has passed.
            let is_abandoned = is_open && (age >= RETRY_NS.end || connection.is_retried);
            unanswered += usize::from(is_abandoned);
            retried += usize::from(is_abandoned && connection.is_retried);
        }
        let most = by_source.iter().max_by_key(|(source, count)| (**count, **source));
        let has_history = self.regulars.values().any(|(first_ns, _)| now_ns.saturating_sub(*first_ns) >= HISTORY_NS);
        let was_there = |source: &(u64, u64)| {
            let first = self.regulars.get(&prefix(source)).map(|(first_ns, _)| *first_ns);
            first.is_some_and(|first_ns| now_ns.saturating_sub(first_ns) >= HISTORY_NS)
        };
        let of_enough = |part: usize, all: usize| (all >= ENOUGH).then(|| part as f64 / all as f64);
        let share = |part: usize, all: usize| of_enough(part, all).filter(|_| !has_gaps);
        Handshakes {
            begun: old,
            completed: share(completed, old),
            retried: of_enough(retried, unanswered).filter(|_| !has_syn_gaps),
            answered: is_answered.and_then(|_| share(answered, old)),
            acknowledged: is_answered.and_then(|_| share(acknowledged, answered)),
            completed_per_second: f64::from(recent) * (self.thinned + 1) as f64,
            most_of_one_source: most.map_or(0.0, |(_, count)| f64::from(*count)),
            is_regular: most.filter(|_| has_history).map(|(source, _)| was_there(source)),
        }
    }
}

fn is_recent(gap_ns: Option<u64>, now_ns: u64) -> bool {
    gap_ns.is_some_and(|at_ns| now_ns.saturating_sub(at_ns) < RECENT_NS)
}

/// The /24 or /48 of a source.
const fn prefix(source: &(u64, u64)) -> u64 {
    // The upper half of an IPv6 address is never as small as an IPv4 address.
    if source.0 >> 32 == 0 { source.0 >> 8 } else { source.0 >> 16 }
}

#[cfg(test)]
mod tests {

    use super::*;

    const SECOND: u64 = 1_000_000_000;

    fn tuple(number: u32) -> Tuple {
        Tuple { source: (u64::from(number), 0), ports: (40_000, 443) }
    }

    /// Where all SYNs are seen, and of what completes them one packet in four, nobody can say how many are.
    #[test]
    fn of_what_is_seen_in_part_no_share_is_told() {
        let mut followed = Followed::default();
        let packet = |number: u32, at_ns: u64, flags: u8| Observed {
            is_held: flags == 0x02,
            ..Observed::segment(number, 40_000, at_ns, flags)
        };
        let completed = |followed: &mut Followed, now_ns: u64| followed.shares(now_ns, None).completed;
        for number in 0..100 {
            followed.take(&packet(number, SECOND, 0x02));
        }
        assert_eq!(completed(&mut followed, 2 * SECOND), Some(0.0));
        followed.take(&Observed { weight: 4, ..packet(1, 2 * SECOND, 0x10) });
        assert_eq!(completed(&mut followed, 2 * SECOND), None);
        for number in 200..300 {
            followed.take(&packet(number, 7 * SECOND, 0x02));
            followed.take(&packet(number, 7 * SECOND, 0x10));
        }
        assert_eq!(completed(&mut followed, 8 * SECOND), Some(1.0), "all is seen again");
    }

    /// SYNs are sampled by themselves: who tries again is known while all of them are seen, however little is of all else.
    #[test]
    fn who_tries_again_is_told_while_all_syns_are_seen() {
        let syn = |number: u32, at_ns: u64| Observed::segment(number, 40_000, at_ns, 0x02);
        // Nobody is answered but the first fifty; of the others one in two comes again after a second.
        let is_answered = |tuple: &Tuple| tuple.source.0 < 50;
        let retried = |held: bool, weight: u32| {
            let mut followed = Followed::default();
            for number in 0..250 {
                followed.take(&Observed { is_held: held, ..syn(number, SECOND) });
                followed.take(&Observed { weight: 8, ..Observed::segment(number, 40_001, SECOND, 0x10) });
            }
            (50..250).filter(|number| number % 2 == 0).for_each(|number| followed.take(&syn(number, 2 * SECOND)));
            followed.take(&Observed { weight, ..syn(1_000, 2 * SECOND) });
            let now_ns = 3 * SECOND;
            assert_eq!(followed.shares(now_ns, None).retried, None, "it is not seen who is answered");
            let seen = followed.shares(now_ns, Some(&is_answered));
            assert_eq!(seen.completed, None, "of segments only some are seen: {seen:?}");
            seen.retried
        };
        assert_eq!(retried(false, 1), Some(0.5));
        assert_eq!(retried(false, 2), None, "of SYNs only some are seen");
        assert_eq!(retried(true, 1), None, "nobody could answer those");
    }

    #[test]
    fn however_many_were_clients_another_may_become_one() {
        let mut followed = Followed::default();
        (1..=CAPACITY as u64 + 1).for_each(|network| followed.remember(network, network));
        assert!(followed.regulars.contains_key(&(CAPACITY as u64 + 1)) && !followed.regulars.contains_key(&1));
        assert!(followed.regulars.len() <= CAPACITY);
    }

    /// A larger flood than can be followed is told from customers all the same, and is forgotten afterwards.
    #[test]
    fn of_more_than_can_be_followed_some_are() {
        let mut followed = Followed::default();
        let per_second = 3 * CAPACITY as u32;
        for number in 0..per_second {
            followed.syn(tuple(number), u64::from(number) * SECOND / u64::from(per_second), false);
        }
        assert!(followed.connections.len() <= CAPACITY, "{}", followed.connections.len());
        followed.expire(SECOND);
        let seen = followed.shares(SECOND, Some(&|_| true));
        assert!(seen.begun > CAPACITY / 8, "{seen:?}");
        assert_eq!((seen.completed, seen.acknowledged), (Some(0.0), Some(0.0)), "{seen:?}");
        for tick in 0..40 {
            followed.expire(30 * SECOND + tick * SECOND / 10);
        }
        assert_eq!((followed.connections.len(), followed.order.len(), followed.thinned), (0, 0, 0));
    }
}

//! The order of the decision: allow list, deny list, what is wrong with the packet, what nobody expects, a service that is
//! past its cap, replies to nothing, TCP of no connection, first SYNs, signatures, limits of its source, which may be those of
//! its group, of its subnet and network, the caps of its service.
//!
//! One function, called by the kernel half on the packet, by the controller to explain, and by tests as the model that
//! the loaded program is compared with.

use core::hint::cold_path;

use crate::class::Kind;
use crate::closer::{Closer, Memory, answers_nothing, is_locked_out, is_out_of_state, is_past_cap};
use crate::config::Config;
use crate::limits::Per;
use crate::lists::{List, ListState};
use crate::meter::{Amount, Ask, Meter, Meters};
use crate::outcome::Outcome;
use crate::packet::fast::{self, Rest, Usual};
use crate::packet::{Frame, Headers, Source, read};
use crate::reason::Reason;
use crate::replies::Conversation;
use crate::services::{Cap, Transport, is_expected};
use crate::verifier::forget;

/// What a decision has to know beside the packet: the lists and the state of sources. Implemented by the maps of the
/// kernel half, and by a model of them in user space.
pub trait World<'w>: Memory {
    /// What the operator wants.
    fn config(&self) -> &'w Config;
    /// Which lists are in force. Asked once in a decision, whatever an operator changes meanwhile.
    fn lists(&self) -> ListState {
        self.config().lists
    }
    /// Whether the source is on this list now, of those that were in force.
    fn is_listed(&mut self, list: List, source: Source, lists: ListState) -> bool;
    /// The number of the group that the source is in, of those that were in force; zero for none.
    fn group(&mut self, source: Source, lists: ListState) -> u32;
    /// Whether any list may hold the source: a quick answer, and where in doubt `true`.
    fn may_be_listed(&mut self, _source: Source) -> bool {
        true
    }
    /// Whether any list holds the source, or did: for whoever would rather wait for that than be sent to [`decide`].
    fn is_on_a_list(&mut self, source: Source) -> bool {
        self.may_be_listed(source)
    }
    /// Whether any signature may suit the packet: a quick answer, and where in doubt `true`.
    fn may_be_signed(&mut self, _packet: &Rest<'_>) -> bool {
        true
    }
    /// Whether a signature has the frame dropped; counts the hits of those that it suits.
    fn is_signed(&mut self, frame: Frame<'_>) -> bool;
    /// What [`crate::closer::look_closer`] says of the frame: where the maps are apart from the rest, they are asked there.
    fn look_closer(&mut self, frame: Frame<'_>, key: u64, kind: Kind) -> Closer;
    /// Whether the frame, a SYN of the source with this [`Source::key`], is one that a listener has a cookie for now.
    fn has_cookie(&mut self, frame: Frame<'_>, key: u64) -> bool;
    /// Whether a service takes no more new connections, and the source with this [`Source::key`] has to wait: what [`takes_no_more`] says,
    /// which the kernel half asks apart.
    fn takes_no_more(&mut self, service: u8, key: u64) -> bool;
    /// Whether this meter lets the source with this [`Source::key`] send this now; if so, charges it.
    fn admit(&mut self, key: u64, amount: Amount, meter: &Meter) -> bool;
}

/// What becomes of a packet that [`decide_fast`] can judge.
pub trait Exit {
    /// What it answers.
    type Answer;
    /// For a packet that has `Passed`.
    fn passed(self, kind: Kind) -> Self::Answer;
    /// For a packet over its `PacketLimit`.
    fn over_packet_limit(self, kind: Kind) -> Self::Answer;
    /// For any other.
    fn because(self, reason: Reason, kind: Kind) -> Self::Answer;
    /// For one of whose kind mechanisms are armed: [`decide_armed`] has to be asked.
    fn armed(self, kind: Kind) -> Self::Answer;
}

/// What [`decide`] says of nearly every packet while there are only lists and limits of packets per source, for a fraction
/// of what it costs. `None` where only [`decide`] can tell; nothing is charged then.
#[inline(always)]
pub fn decide_fast<'w, E: Exit>(frame: Frame<'_>, world: &mut impl World<'w>, exit: E) -> Option<E::Answer> {
    fast::read(frame, Judge { world, exit })
}

struct Judge<'a, W, E> {
    world: &'a mut W,
    exit: E,
}

impl<'w, W: World<'w>, E: Exit> fast::Next for Judge<'_, W, E> {
    type Answer = E::Answer;

    #[inline(always)]
    fn usual(self, packet: Usual) -> Option<E::Answer> {
        let Self { world, exit } = self;
        let meters = world.config().meters(packet.kind);
        if !meters.ask_packets_only() {
            cold_path();
            if meters.ask_more() {
                return Some(exit.armed(packet.kind));
            }
            if meters.ask(Ask::LISTS) && world.may_be_listed(packet.source()) {
                return None;
            }
            if !meters.ask(Ask::PACKETS) {
                return Some(exit.passed(packet.kind));
            }
        }
        Some(match over_packet_limit(packet.key, meters, world) {
            None => exit.passed(packet.kind),
            Some(_) => exit.over_packet_limit(packet.kind),
        })
    }
}

/// The same where mechanisms are armed; `None` where only [`decide`] can tell, and nothing is charged. Once for all
/// kinds, so that the common path stays small.
#[inline(always)]
pub fn decide_armed<'w, E: Exit>(
    kind: Kind,
    frame: Frame<'_>,
    world: &mut impl World<'w>,
    exit: E,
) -> Option<E::Answer> {
    // What follows is then verified once for all kinds.
    let kind = Kind::from_masked(forget(u64::from(kind.index()), world.config().noise()));
    let meters = world.config().meters(kind);
    let rest = Rest::read(frame, kind)?;
    if meters.ask(Ask::SELDOM) || (meters.ask(Ask::LISTS) && world.is_on_a_list(rest.source())) {
        return None;
    }
    let key = rest.from.0;
    let to = Transport::either(rest.protocol);
    let service = if meters.ask(Ask::A_SERVICE) { world.service(to, rest.ports.1) } else { 0 };
    if is_locked_out(service, meters) && !is_expected(&rest.ends()?, world) {
        return Some(exit.because(Reason::NoService, kind));
    }
    // What is dear is asked of who may still pass; limits of all, or who sends most would get most of what is left.
    let may_pass = !is_past_cap(service, key, meters, world.config(), world);
    let refused = if may_pass
        && meters.ask(Ask::REPLIES)
        && answers_nothing(Conversation::of_usual_claim(&rest, |port| world.is_amplifier(port)), world)
    {
        Some(Reason::UnsolicitedReply)
    } else if may_pass
        && meters.ask(Ask::STATE)
        && is_out_of_state(Some(Conversation::of_usual(&rest)), key, world.config(), world)
    {
        Some(Reason::OutOfState)
    } else if may_pass && meters.ask(Ask::SIGNATURES) && world.may_be_signed(&rest) {
        return None;
    } else {
        match over_all_limits(key, frame.bytes(), kind, meters, world) {
            None if !may_pass => Some(Reason::ServiceCap),
            None if meters.ask(Ask::CAP) && is_over(world.config().cap(service), service, key, world) => {
                Some(Reason::ServiceCap)
            }
            over => over,
        }
    };
    Some(match refused {
        None => exit.passed(kind),
        Some(reason) => exit.because(reason, kind),
    })
}

/// Why this frame passes or drops, and its place in the counters.
#[inline(always)]
pub fn decide<'w>(frame: Frame<'_>, world: &mut impl World<'w>) -> (Reason, Kind) {
    let headers = read(frame);
    let outcome = if headers.settled { headers.outcome } else { judge(&headers, frame, world) };
    (outcome.reason(), outcome.kind())
}

#[inline(always)]
fn judge<'w>(packet: &Headers, frame: Frame<'_>, world: &mut impl World<'w>) -> Outcome {
    let config = world.config();
    let (found, bytes, lists) = (packet.outcome, frame.bytes(), world.lists());
    let mut group = 0;
    if !lists.is_empty() {
        cold_path();
        if world.is_listed(List::Allow, packet.source(), lists) {
            return match over_limits(packet.key, bytes, &config.allowed, world) {
                Some(_) => found.because(Reason::AllowedLimit),
                None => found.because(Reason::Allowed),
            };
        }
        if world.is_listed(List::Deny, packet.source(), lists) {
            return found.because(Reason::Denied);
        }
        group = world.group(packet.source(), lists);
    }
    if !found.is(Reason::Passed) && config.drops.has(found.reason()) {
        return found;
    }
    let meters = config.meters(found.kind());
    let closer = if meters.ask(Ask::A_CLOSER_LOOK) {
        cold_path();
        world.look_closer(frame, packet.key, found.kind())
    } else {
        Closer::NOTHING
    };
    let is_past_cap = closer.is_past_cap();
    if !is_past_cap {
        if let Some(reason) = closer.reason() {
            return found.because(reason);
        }
        if meters.ask(Ask::SIGNATURES) && world.is_signed(frame) {
            return found.because(Reason::Signature);
        }
    }
    let of_source = config.meters_in(group, found.kind());
    if let Some(reason) = over_all_limits(packet.key, bytes, found.kind(), of_source, world) {
        return found.because(reason);
    }
    if is_past_cap {
        return found.because(Reason::ServiceCap);
    }
    if meters.ask(Ask::COOKIE) && world.has_cookie(frame, packet.key) {
        // Answered or not: it never gets to the service, so that its cap is not asked.
        return found.because(answered(packet.key, world));
    }
    // First that of connections: what it refuses is not charged to the other.
    if meters.ask(Ask::CONNECTIONS) && world.takes_no_more(closer.service(), packet.key) {
        return found.because(Reason::ConnectionCap);
    }
    if meters.ask(Ask::CAP) && is_over(config.cap(closer.service()), closer.service(), packet.key, world) {
        return found.because(Reason::ServiceCap);
    }
    found
}

/// The narrowest limit that the packet is over, if any: of its source, its subnet, its network. What a wider limit
/// refuses has been charged to the narrower ones, as in any chain of meters.
#[inline(always)]
fn over_all_limits<'w>(
    key: u64,
    bytes: u32,
    kind: Kind,
    of_source: &Meters,
    world: &mut impl World<'w>,
) -> Option<Reason> {
    const REASONS: [Reason; Per::WIDER.len()] = [Reason::SubnetLimit, Reason::NetworkLimit];
    let config = world.config();
    if let Some(reason) = over_limits(key, bytes, of_source, world) {
        return Some(reason);
    }
    let meters = config.meters(kind);
    let mut level = 0;
    while level < Per::WIDER.len() {
        let per = Per::WIDER[level];
        if meters.ask(Ask::wider(per)) && over_limits(per.key(key), bytes, config.wider(level, kind), world).is_some() {
            return Some(REASONS[level]);
        }
        level += 1;
    }
    None
}

/// Whether a SYN gets its cookie: so many in a second go to a subnet, that nobody can have this host flood it.
#[inline(always)]
fn answered<'w>(key: u64, world: &mut impl World<'w>) -> Reason {
    let subnet = Per::Subnet.key(key);
    if world.admit(subnet, Amount::PACKET, &world.config().cookie_answers) {
        Reason::SynCookie
    } else {
        Reason::SynAckLimit
    }
}

/// Whether the service that the packet is for is over this cap of it, and this source has to wait. Who it is matters only then.
#[inline(always)]
fn is_over<'w>(cap: &Cap, service: u8, key: u64, world: &mut impl World<'w>) -> bool {
    if service == 0 || !cap.is_armed() {
        return false;
    }
    let service = u64::from(service);
    let passes = world.admit(service, Amount::PACKET, cap.open())
        || (world.is_verified(key) && world.admit(service, Amount::PACKET, cap.verified()));
    !passes
}

/// What [`World::takes_no_more`] answers.
#[inline(always)]
pub fn takes_no_more<'w>(service: u8, key: u64, world: &mut impl World<'w>) -> bool {
    let cap = world.config().connection_cap(service);
    let Some(served) = cap.served() else { return is_over(cap.cap(), service, key, world) };
    let of = u64::from(service);
    let passes = world.admit(of, Amount::PACKET, served)
        || (world.is_known(key) && world.admit(of, Amount::PACKET, cap.cap().verified()))
        || (!world.is_verified(key) && world.admit(of, Amount::PACKET, cap.cap().open()));
    !passes
}

/// The limit that the packet is over, if any. Packets are asked before bytes: what is refused for its bytes has used
/// its packet, as in any chain of meters.
#[inline(always)]
fn over_limits<'w>(key: u64, bytes: u32, meters: &Meters, world: &mut impl World<'w>) -> Option<Reason> {
    if meters.ask(Ask::PACKETS)
        && let Some(reason) = over_packet_limit(key, meters, world)
    {
        return Some(reason);
    }
    if !meters.ask_more() {
        return None;
    }
    if meters.ask(Ask::BLOCK) {
        return Some(Reason::ClassBlocked);
    }
    if meters.ask(Ask::BYTES) && !world.admit(key, Amount::bytes(bytes), &meters.bytes) {
        return Some(Reason::ByteLimit);
    }
    None
}

/// The same where packets are all that is limited, which is the rule.
#[inline(always)]
fn over_packet_limit<'w>(key: u64, meters: &Meters, world: &mut impl World<'w>) -> Option<Reason> {
    if world.admit(key, Amount::PACKET, &meters.packets) { None } else { Some(Reason::PacketLimit) }
}

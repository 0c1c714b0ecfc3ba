//! The tables: a line is what is measured, two points of the slope that it weighs on, and what it says in words: what it means
//! where it speaks for it, and where it speaks against it. Set by hand, beside captures and simulations, not fitted to them.

use super::{As, Case, Line, MOVED, UNMOVED, line, unmoved};
use crate::detect::held::Held;
use crate::detect::{Features, Group, Vector};

#[rustfmt::skip]
pub(super) const SYN_FLOOD: &[Line] = &[
    line(bare, [(0.05, -1.0), (0.5, 3.0)], As::Share, "of SYNs have no TCP options",
        ["no operating system sends such", "they look like those of operating systems"]),
    line(acknowledged, [(0.1, 3.0), (0.6, -5.0)], As::Share, "of connections that this host answered were completed",
        ["nobody is behind these addresses", "real clients"]),
    line(completed_unseen, [(0.1, 2.0), (0.6, -5.0)], As::Share, "of connections begun were completed",
        ["nobody is behind these addresses", "real clients"]),
    line(retried, [(0.05, 2.0), (0.4, -6.0)], As::Share, "of unanswered SYNs were retried after 1 s",
        ["no client gives up at once", "real clients"]),
    line(per_source, [(1.2, 1.5), (4.0, -1.5)], As::Number, "SYNs from a source",
        ["addresses are used once and thrown away", "sources come back"]),
    line(per_source, [(5.0, 0.0), (15.0, 3.0)], As::Number, "SYNs from a source in a second",
        ["no client opens so many", ""]),
    line(entropy, [(0.7, -1.5), (0.95, 1.5)], As::Share, "of the possible spread of sources",
        ["as random addresses have it", "as many clients have it"]),
    line(|case| Some(case.group.networks), [(0.92, 0.0), (0.98, 1.0)], As::Share, "of the possible spread of networks",
        ["no real machines are spread so evenly", ""]),
    line(share, [(0.1, -2.5), (0.7, 1.5)], As::Share, "of all packets are SYNs",
        ["connections that carry nothing", "connections carry data"]),
    line(only_source, [(400.0, -4.0), (2_500.0, 5.0)], As::Rate, "SYNs come from one source",
        ["no client opens so many", "a scan, or a busy proxy"]),
    line(rotating, [(0.3, 0.0), (0.9, 4.0)], As::Share, "of SYNs come from another address of the same IPv6 network each",
        ["addresses are used once and thrown away", ""]),
];

#[rustfmt::skip]
pub(super) const TCP_REFLECTION: &[Line] = &[
    line(strangers, [(0.2, -4.0), (0.8, 2.5)], As::Share, "of TCP replies answer nothing that was sent from here",
        ["somebody else asked in this host's name", "this host has asked"]),
    line(|case| Some(case.group.syn_acks), [(0.2, -0.5), (0.6, 1.5)], As::Share, "of TCP replies are SYN-ACKs",
        ["others are made to answer", "resets, as a scan or a crash brings them"]),
    line(entropy, [(0.6, -2.0), (0.9, 1.5)], As::Share, "of the possible spread of sources",
        ["thousands of reflectors", "a few servers"]),
    line(per_source, [(2.0, 1.5), (10.0, -2.0)], As::Number, "replies from a source",
        ["each is asked once or twice", "an exchange"]),
    line(share, [(0.05, -2.5), (0.5, 2.0)], As::Share, "of all packets are TCP replies",
        ["no traffic belongs to them", "they belong to other traffic"]),
];

#[rustfmt::skip]
pub(super) const AMPLIFICATION: &[Line] = &[
    line(strangers, [(0.2, -4.0), (0.8, 2.5)], As::Share, "of UDP replies answer nothing that was sent from here",
        ["somebody else asked in this host's name", "this host has asked"]),
    line(|case| Some(case.group.from_amplifiers), [(0.2, 0.0), (0.9, 2.0)], As::Share, "come from ports of amplifiers",
        ["services that answer with more than they are asked", ""]),
    line(large, [(0.3, 0.0), (0.8, 3.5)], As::Share, "of UDP replies are large, or in fragments",
        ["small questions have small answers", ""]),
    line(rate, [(500.0, 0.0), (3_000.0, 1.5)], As::Rate, "UDP replies",
        ["more than a host asks for", ""]),
    line(entropy, [(0.5, -2.0), (0.85, 1.5)], As::Share, "of the possible spread of sources",
        ["thousands of amplifiers", "a few servers"]),
    line(per_source, [(5.0, 1.5), (40.0, -2.0)], As::Number, "replies from a source in a second",
        ["each is asked a little", "an exchange"]),
    line(share, [(0.05, -2.5), (0.5, 2.0)], As::Share, "of all packets are UDP replies",
        ["they are most of the traffic", "they belong to other traffic"]),
];

#[rustfmt::skip]
pub(super) const UDP_FLOOD: &[Line] = &[
    line(strangers, [(0.1, -4.0), (0.9, 2.0)], As::Share, "of UDP is from ends that this host never answered",
        ["nobody here speaks with them", "they are spoken with"]),
    line(entropy, [(0.6, -1.0), (0.95, 1.5)], As::Share, "of the possible spread of sources",
        ["as random addresses have it", "as a few ends have it"]),
    line(|case| Some(case.features.share_of_udp()), [(0.3, -1.5), (0.9, 1.5)], As::Share, "of all packets are UDP",
        ["nothing else gets through", "among others"]),
    line(|case| Some(case.group.new_ports), [(0.3, 0.0), (0.9, 3.0)], As::Share, "of UDP go to a port of their own",
        ["no service is meant", ""]),
    line(|case| Some(case.group.one_beginning), [(0.5, 0.0), (0.95, 2.5)], As::Share, "of UDP begins with the same bytes",
        ["made by one program", ""]),
    line(asks, [(0.5, 0.0), (0.9, -2.5)], As::Share, "of UDP is for a port on which anybody asks",
        ["", "who asks here is not known yet"]),
    line(|case| Some(case.group.one_length), [(0.3, -0.5), (0.95, 1.5)], As::Share, "of UDP has one length",
        ["made by one program", "lengths differ"]),
    line(only_source, [(2_000.0, -1.5), (15_000.0, 4.0)], As::Rate, "UDP packets come from one source",
        ["more than any client sends", "a stream"]),
    line(rotating, [(0.3, 0.0), (0.9, 4.0)], As::Share, "of UDP comes from another address of the same IPv6 network each",
        ["addresses are used once and thrown away", ""]),
    line(growth, [(2.0, -1.5), (20.0, 2.0)], As::Number, "times the usual UDP",
        ["it was not there before", "as usual"]),
    line(|case| probed(case, Group::Udp), [(MOVED, -5.0), (UNMOVED, 1.5)], As::Share, "of UDP came as before while none was let through",
        ["nobody waits for an answer", "clients wait for answers"]),
];

#[rustfmt::skip]
pub(super) const TCP_FLOOD: &[Line] = &[
    line(strangers, [(0.3, -4.0), (0.8, 4.5)], As::Share, "of TCP is of connections that never began",
        ["made up", "connections that were begun"]),
    line(alone, [(0.4, -1.0), (0.9, 6.0)], As::Share, "of TCP is all that is seen of its connection",
        ["made up", "connections carry data"]),
    line(entropy, [(0.5, -1.0), (0.95, 2.0)], As::Share, "of the possible spread of sources",
        ["as random addresses have it", "as clients have it"]),
    line(per_source, [(3.0, 1.5), (50.0, -1.5)], As::Number, "segments from a source in a second",
        ["addresses are used once and thrown away", "connections carry data"]),
    line(unlike, [(0.1, 0.0), (0.5, 1.0)], As::Share, "of the lengths and TTLs of TCP are other than before",
        ["none of the traffic that was here", ""]),
    line(|case| Some(case.group.malformed), [(0.05, 0.0), (0.3, 4.0)], As::Share, "of TCP has impossible headers",
        ["no TCP sends such", ""]),
    line(only_source, [(10_000.0, -1.0), (60_000.0, 3.0)], As::Rate, "segments come from one source",
        ["more than any client sends", "a transfer"]),
    line(growth, [(2.0, -1.5), (20.0, 2.0)], As::Number, "times the usual TCP",
        ["it was not there before", "as usual"]),
    line(|case| probed(case, Group::Tcp), [(MOVED, -5.0), (UNMOVED, 4.0)], As::Share, "of TCP came as before while none was let through",
        ["nobody waits for an answer", "clients wait for answers"]),
];

#[rustfmt::skip]
pub(super) const ICMP_FLOOD: &[Line] = &[
    line(share, [(0.1, -2.0), (0.5, 2.0)], As::Share, "of all packets are ICMP",
        ["nothing asks for so many", "among others"]),
    line(rate, [(300.0, -2.0), (2_000.0, 2.0)], As::Rate, "ICMP packets",
        ["more than any monitoring sends", "as monitoring sends"]),
    line(large, [(0.2, 0.0), (0.8, 2.0)], As::Share, "of ICMP is large, or in fragments",
        ["no monitoring sends such", ""]),
    line(entropy, [(0.5, 0.0), (0.95, 1.5)], As::Share, "of the possible spread of sources",
        ["as random addresses have it", ""]),
    line(strangers, [(0.1, -2.0), (0.9, 0.5)], As::Share, "of ICMP is from ends that this host does not speak with",
        ["nobody here speaks with them", "they are spoken with"]),
    line(growth, [(2.0, -2.0), (20.0, 1.5)], As::Number, "times the usual ICMP",
        ["it was not there before", "as usual"]),
];

#[rustfmt::skip]
pub(super) const FRAGMENT_FLOOD: &[Line] = &[
    line(strangers, [(0.1, -4.0), (0.9, 2.0)], As::Share, "of fragments are from ends that this host does not speak with",
        ["nobody here speaks with them", "they are spoken with"]),
    line(entropy, [(0.4, -2.0), (0.8, 2.0)], As::Share, "of the possible spread of sources",
        ["many senders of broken packets", "a few ends that send large packets"]),
    line(share, [(0.1, -1.5), (0.5, 1.5)], As::Share, "of all packets are later fragments",
        ["nothing else gets through", "among others"]),
    line(rate, [(300.0, -1.0), (5_000.0, 2.0)], As::Rate, "later fragments",
        ["the stack cannot hold so many", "the stack holds them"]),
    line(growth, [(2.0, -2.0), (20.0, 1.5)], As::Number, "times the usual fragments",
        ["it was not there before", "as usual"]),
];

#[rustfmt::skip]
pub(super) const PROTOCOL_FLOOD: &[Line] = &[
    line(share, [(0.2, -2.0), (0.8, 2.0)], As::Share, "of all packets are of protocols that are neither TCP, UDP nor ICMP",
        ["nothing else gets through", "among others"]),
    line(rate, [(500.0, -2.0), (3_000.0, 2.0)], As::Rate, "such packets",
        ["more than routing and tunnels need", "as routing and tunnels need"]),
    line(|case| Some(case.group.protocols as f64), [(4.0, 0.0), (20.0, 4.0)], As::Number, "protocols",
        ["no host speaks so many", ""]),
    line(strangers, [(0.1, -4.0), (0.9, 1.0)], As::Share, "are from ends that this host does not speak with",
        ["nobody here speaks with them", "they are spoken with"]),
    line(growth, [(2.0, -2.0), (20.0, 1.5)], As::Number, "times the usual",
        ["it was not there before", "as usual"]),
];

#[rustfmt::skip]
pub(super) const HTTP_FLOOD: &[Line] = &[
    line(most_of_one_source, [(30.0, -2.0), (150.0, 4.5)], As::Rate, "connections completed by one source",
        ["more than people open", "as people open them"]),
    line(persistent, [(0.3, 0.0), (0.7, 5.5)], As::Share, "of connections are begun by newcomers that go on and on",
        ["people open a page, and read it", ""]),
    line(|case| Some(case.features.openers.machines as f64), [(15.0, 0.0), (45.0, 6.0)], As::Number, "newcomers go on and on, second after second, each of one system",
        ["programs, not people", ""]),
    line(|case| case.features.openers.regulars_persistent, [(0.05, 0.0), (0.2, -6.0)], As::Share, "of sources that were here before go on and on, too",
        ["", "customers do so here"]),
    line(of_aggregate, [(0.3, 0.0), (0.7, -4.0)], As::Share, "of what is more than usual is begun by a few networks that were here before",
        ["", "one client gone wild"]),
    line(reached, [(0.2, -5.0), (0.6, 1.0)], As::Share, "of connections that could be were completed",
        ["real machines, not forged addresses", "not completed"]),
    line(growth, [(3.0, -2.0), (10.0, 2.0)], As::Number, "times the usual connections",
        ["it was not there before", "as usual"]),
    line(is_regular, [(0.0, 0.0), (1.0, -4.0)], As::Flag, "whoever opens most",
        ["", "was a client before"]),
];

#[rustfmt::skip]
pub(super) const SLOW_CONNECTIONS: &[Line] = &[
    line(|case| Some(held(case)?.share()), [(0.3, -3.0), (0.7, 3.0)], As::Share, "of open connections are of sources that hold several and ask for nothing on any",
        ["customers ask for something", "most are in use"]),
    line(|case| Some(held(case)?.newcomers), [(0.2, -4.0), (0.8, 1.5)], As::Share, "of those who hold them were never here before",
        ["no customers, and no partner's servers", "customers, or the servers of a partner"]),
    line(|case| Some(held(case)?.dragged), [(0.1, 0.0), (0.6, 3.5)], As::Share, "of these get a few bytes now and then, or nothing is taken of their answer",
        ["kept open on purpose", ""]),
    line(|case| Some(held(case)?.fullness), [(0.3, 0.0), (0.8, 3.0)], As::Share, "of a listener's queue is full",
        ["there is no room for others", ""]),
    line(|case| Some(held(case)?.holders.len() as f64), [(2.0, -0.5), (30.0, 1.0)], As::Number, "sources hold them",
        ["many that do the same", "one or two"]),
];

#[rustfmt::skip]
pub(super) const SURGE: &[Line] = &[
    line(growth, [(2.0, -3.0), (4.0, 3.0)], As::Number, "times the usual connections",
        ["more demand", "as usual"]),
    line(completed, [(0.5, -4.0), (0.9, 2.0)], As::Share, "of connections begun were completed",
        ["real clients, and they are served", "many are not"]),
    line(bare, [(0.0, 0.5), (0.3, -4.0)], As::Share, "of SYNs have no TCP options",
        ["they look like those of operating systems", "no operating system sends such"]),
    line(top_share, [(0.3, 0.5), (0.7, -5.0)], As::Share, "of connections are from one source",
        ["many clients", "one client"]),
    line(one_port, [(0.1, -4.0), (0.5, 0.5)], As::Share, "of connections are for one port",
        ["a service", "a scan"]),
    line(of_aggregate, [(0.3, 0.0), (0.7, -5.0)], As::Share, "of what is more than usual is begun by a few networks that were here before",
        ["", "one client"]),
];

#[rustfmt::skip]
pub(super) const OVERLOAD: &[Line] = &[
    line(retried, [(0.1, -4.0), (0.5, 5.0)], As::Share, "of unanswered SYNs were retried after 1 s",
        ["real clients, that want to be served", "nobody waits for an answer"]),
    line(completed, [(0.5, 2.0), (0.85, -3.0)], As::Share, "of connections begun were completed",
        ["more ask than are served: capacity, not an attack", "they are served"]),
    line(|case| case.features.handshakes.answered, [(0.5, 3.0), (0.9, -1.0)], As::Share, "of connections begun were answered by this host",
        ["it takes no more: capacity, not an attack", "it takes them"]),
    line(full_queue, [(0.05, 0.0), (0.3, 4.0)], As::Share, "of connections found the accept queue full",
        ["more are completed than the server takes: capacity, not an attack", ""]),
    line(acknowledged, [(0.2, -4.0), (0.8, 1.0)], As::Share, "of connections that this host answered were completed",
        ["real clients", "nobody is behind these addresses"]),
    line(bare, [(0.0, 0.5), (0.3, -3.0)], As::Share, "of SYNs have no TCP options",
        ["they look like those of operating systems", "no operating system sends such"]),
    line(per_source, [(8.0, 0.5), (50.0, -3.0)], As::Number, "SYNs from a source",
        ["as clients open them", "as scans open them"]),
    line(|case| case.features.openers.again, [(0.4, 0.0), (0.8, -6.0)], As::Share, "of connections are begun by newcomers again and again",
        ["", "it may be programs that ask"]),
    line(one_port, [(0.1, -4.0), (0.5, 0.5)], As::Share, "of connections are for one port",
        ["a service", "a scan"]),
];

#[rustfmt::skip]
pub(super) const MISCONFIGURATION: &[Line] = &[
    line(top_share_unknown, [(0.3, -2.5), (0.8, 2.5)], As::Share, "of connections are from one source",
        ["one client", "many clients"]),
    line(of_aggregate, [(0.3, -2.5), (0.65, 2.5)], As::Share, "of what is more than usual is begun by a few networks that were here before",
        ["one client", "many clients"]),
    line(|case| case.features.openers.aggregate.as_ref().map(|aggregate| aggregate.times), [(3.0, -1.0), (8.0, 2.0)], As::Number, "times what these networks begin otherwise",
        ["no people are so many more at once", "as it may be"]),
    line(growth, [(2.0, -3.0), (5.0, 2.0)], As::Number, "times the usual connections",
        ["it was not there before", "as usual"]),
    line(completed, [(0.3, -3.0), (0.8, 2.0)], As::Share, "of connections begun were completed",
        ["a real client, not forged addresses", "not completed"]),
    line(is_regular_source, [(0.0, -4.0), (1.0, 2.0)], As::Flag, "whoever opens most",
        ["was a client before", "was never here before"]),
];

/// What a probe has found of this group.
fn probed(case: &Case<'_>, group: Group) -> Option<f64> {
    case.features.probe.filter(|(of, _)| *of == group).map(|(_, ratio)| unmoved(ratio))
}

fn bare(case: &Case<'_>) -> Option<f64> {
    Some(case.group.bare)
}

fn large(case: &Case<'_>) -> Option<f64> {
    Some(case.group.large)
}

/// Where what this host sends is seen, strangers say more.
fn alone(case: &Case<'_>) -> Option<f64> {
    case.group.strangers.is_none().then_some(case.group.alone)
}

/// Lengths and times to live alike: one busy client moves the one or the other.
fn unlike(case: &Case<'_>) -> Option<f64> {
    case.group.unlike.map(|unlike| unlike.lengths.min(unlike.hops))
}

/// Where it is known how many usually ask, that says more.
fn asks(case: &Case<'_>) -> Option<f64> {
    const PORTS: [u16; 3] = [53, 123, 443];
    let (port, share) = case.group.destination_port?;
    (case.growth.is_none() && PORTS.contains(&port)).then_some(share)
}

/// Only what has completed a handshake takes a place there; but SYNs that find it full are counted too, forged ones among them. So it says
/// something where those that are answered do complete, and it is the queue of the port that they are for.
fn full_queue(case: &Case<'_>) -> Option<f64> {
    let Features { pressure, held, handshakes, lately, .. } = case.features;
    let (port, _) = case.group.destination_port?;
    let has_no_room = held.as_ref().is_some_and(|held| held.full.contains_key(&port));
    let are_real = handshakes.acknowledged.is_some_and(|share| share >= 0.5);
    let all = pressure.full_queues + pressure.accepted;
    let of_clients = [Vector::SynFlood, Vector::HttpFlood, Vector::SlowConnections];
    let may_be_of_flood = lately.iter().any(|vector| of_clients.contains(vector));
    let says = has_no_room && are_real && !may_be_of_flood && all > 0.0;
    says.then(|| pressure.full_queues / all)
}

fn one_port(case: &Case<'_>) -> Option<f64> {
    Some(case.group.destination_port?.1)
}

fn top_share(case: &Case<'_>) -> Option<f64> {
    Some(case.group.top_source?.1)
}

fn share(case: &Case<'_>) -> Option<f64> {
    Some(case.group.share)
}

fn rate(case: &Case<'_>) -> Option<f64> {
    Some(case.group.per_second)
}

fn entropy(case: &Case<'_>) -> Option<f64> {
    Some(case.group.entropy)
}

fn per_source(case: &Case<'_>) -> Option<f64> {
    Some(case.group.per_source)
}

fn strangers(case: &Case<'_>) -> Option<f64> {
    case.group.strangers
}

fn growth(case: &Case<'_>) -> Option<f64> {
    case.growth
}

fn acknowledged(case: &Case<'_>) -> Option<f64> {
    case.features.handshakes.acknowledged
}

/// Where it is not seen what this host sends, nobody knows whether it has answered.
fn completed_unseen(case: &Case<'_>) -> Option<f64> {
    let handshakes = &case.features.handshakes;
    handshakes.completed.filter(|_| handshakes.answered.is_none())
}

fn is_regular(case: &Case<'_>) -> Option<f64> {
    case.features.handshakes.is_regular.map(|is| if is { 1.0 } else { 0.0 })
}

/// Where networks that were here before are told, it is these that have been clients.
fn is_regular_source(case: &Case<'_>) -> Option<f64> {
    is_regular(case).filter(|_| case.features.openers.aggregate.is_none())
}

/// Where it is not known who was here before.
fn top_share_unknown(case: &Case<'_>) -> Option<f64> {
    top_share(case).filter(|_| case.features.openers.aggregate.is_none())
}

fn of_aggregate(case: &Case<'_>) -> Option<f64> {
    Some(case.features.openers.aggregate.as_ref()?.share)
}

fn persistent(case: &Case<'_>) -> Option<f64> {
    case.features.openers.persistent
}

/// Where many do it, there is no one that does most of it.
fn most_of_one_source(case: &Case<'_>) -> Option<f64> {
    let many = case.features.openers.persistent.is_some_and(|share| share >= 0.3)
        && case.features.openers.persistent_sources > 1;
    (!many && !has_machines(case)).then_some(case.features.handshakes.most_of_one_source)
}

/// So many that a few busy customers are not meant.
fn has_machines(case: &Case<'_>) -> bool {
    case.features.openers.machines >= 15
}

/// What is answered and not completed is of nobody. What is not answered says nothing of who asked. Machines have completed theirs,
/// whatever others do.
fn reached(case: &Case<'_>) -> Option<f64> {
    if has_machines(case) {
        return None;
    }
    if case.features.handshakes.answered.is_some() { acknowledged(case) } else { completed(case) }
}

/// Where the host's connections were looked at.
fn held<'a>(case: &Case<'a>) -> Option<&'a Held> {
    case.features.held.as_ref()
}

fn rotating(case: &Case<'_>) -> Option<f64> {
    Some(case.group.rotating)
}

fn completed(case: &Case<'_>) -> Option<f64> {
    case.features.handshakes.completed
}

fn retried(case: &Case<'_>) -> Option<f64> {
    case.features.handshakes.retried
}

/// What one source sends, where nearly all comes from it.
fn only_source(case: &Case<'_>) -> Option<f64> {
    let (_, share) = case.group.top_source?;
    (share > 0.5).then_some(share * case.group.per_second)
}

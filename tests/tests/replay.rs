//! What replay says of made-up captures, when, and what it does: floods beside customers, and what only looks like one. Of
//! captured ones too, where `FLOODWALL_CAPTURES` names a directory with `attack`, `benign` and `mixed`. Nothing is loaded into a
//! kernel.

#![expect(clippy::unwrap_used, reason = "the helpers of tests fail as the tests do: by a panic")]

use std::net::IpAddr;

use floodwall::detect::{Vector, Verdict};
use floodwall::replay::{Captured, Line, Options, Summary, replay_captured};
use floodwall_common::reason::Verdict as Fate;
use floodwall_tests::captures::made::{EPOCH, HOST, HOST_V6, Made, Random, host_for, is_flood};
use floodwall_tests::captures::packets::{ACK, Ends, GRE, ICMP, LATER, PSH, RST, SYN, Segment, TCP, UDP, tcp, udp};

#[path = "replay/captured.rs"]
mod captured;
#[path = "replay/clients.rs"]
mod clients;
#[path = "replay/networks.rs"]
mod networks;
#[path = "replay/one_way.rs"]
mod one_way;

/// When something begins, in seconds: what is usual is known by then.
const BEGINS: f64 = 12.0;
const ENDS: f64 = BEGINS + 3.0;
/// Connections a second before it.
const USUAL: f64 = 20.0;
/// Packets a second of a flood.
const FLOOD: f64 = 4_000.0;

/// What came of a capture.
struct Seen {
    lines: Vec<Line>,
    summary: Summary,
    /// When a packet came in, since the first; whether it was of the flood; what became of it.
    fates: Vec<(f64, bool, Fate)>,
}

impl Seen {
    fn of(frames: &[Captured], protect: &[IpAddr]) -> Self {
        let (mut lines, mut fates) = (Vec::new(), Vec::new());
        let options = Options { protect: protect.to_vec(), ..Options::default() };
        let tell = |line: &Line| {
            lines.push(line.clone());
            Ok(())
        };
        let judged = |captured: &Captured, fate: Fate| {
            fates.push(((captured.at - frames[0].at).as_secs_f64(), is_flood(captured), fate));
        };
        let summary = replay_captured(frames, &options, tell, judged).unwrap();
        Self { lines, summary, fates }
    }

    /// Times are those of whoever made it.
    fn of_made(made: Made) -> Self {
        let frames = made.frames();
        let mut seen = Self::of(&frames, &[HOST, HOST_V6]);
        let first = (frames[0].at - EPOCH).as_secs_f64();
        seen.lines.iter_mut().for_each(|line| line.t += first);
        seen.fates.iter_mut().for_each(|(at, ..)| *at += first);
        seen
    }

    /// The share of the flood that did not pass, from then on.
    fn stopped(&self, since: f64) -> f64 {
        let flood = self.fates.iter().filter(|(at, is_flood, _)| *is_flood && *at >= since);
        share(flood.map(|(.., fate)| *fate != Fate::Pass))
    }

    /// The share of good packets that were dropped. One that is answered with a cookie is not.
    fn lost(&self) -> f64 {
        let good = self.fates.iter().filter(|(_, is_flood, _)| !*is_flood);
        share(good.map(|(.., fate)| *fate == Fate::Drop))
    }

    /// The first line with this verdict.
    fn first(&self, verdict: Verdict) -> Option<&Line> {
        self.lines.iter().find(|line| line.verdict == verdict)
    }

    fn told(&self) -> String {
        let line = |line: &Line| {
            format!("{:.1} s {} {:?} {:?} {:?}", line.t, line.verdict.label(), line.vectors, line.reasons, line.actions)
        };
        self.lines.iter().map(line).collect::<Vec<_>>().join("\n")
    }
}

fn share(all: impl Iterator<Item = bool>) -> f64 {
    let (mut of, mut count) = (0.0, 0.0);
    for is in all {
        of += f64::from(u8::from(is));
        count += 1.0;
    }
    of / f64::max(count, 1.0)
}

/// What has to come of a flood.
struct Expected {
    vector: Vector,
    /// Seconds from its first packet to the verdict.
    within: f64,
    /// The share of it that is stopped, from then on.
    stopped: f64,
    /// The share of good packets that may be dropped.
    lost: f64,
}

impl Expected {
    const fn of(vector: Vector) -> Self {
        Self { vector, within: 0.5, stopped: 0.99, lost: 0.0 }
    }
}

/// A flood beside customers is told to be what it is, and stopped; the customers are not.
fn attack(expected: &Expected, flood: impl FnOnce(&mut Made)) {
    attack_beside(USUAL, expected, flood);
}

/// The same beside so many connections a second.
fn attack_beside(usual: f64, expected: &Expected, flood: impl FnOnce(&mut Made)) {
    let mut made = Made::new(3);
    made.crowd(0.0..ENDS + 1.0, usual, 1.0);
    flood(&mut made);
    let seen = Seen::of_made(made);
    let told = seen.told();
    let first = seen.lines.first().unwrap();
    assert_eq!((first.verdict, first.vector), (Verdict::Attack, Some(expected.vector.label())), "{told}");
    let late = first.t - BEGINS;
    let (stopped, lost) = (seen.stopped(first.t), seen.lost());
    println!("{}: {late:.1} s, {:.2} % stopped, {:.3} % lost", expected.vector.label(), stopped * 100.0, lost * 100.0);
    assert!((0.0..=expected.within).contains(&late), "after {late} s\n{told}");
    assert!(stopped >= expected.stopped, "{stopped} of it stopped\n{told}");
    assert!(lost <= expected.lost, "{lost} of the good packets lost\n{told}");
    assert_eq!(seen.summary.vectors.len(), 1, "no other kind\n{told}");
    assert_eq!(first.reasons.len(), 3, "{told}");
}

/// Nothing is said, and nothing is dropped.
fn normal(made: Made) {
    let seen = Seen::of_made(made);
    assert!(seen.summary.verdicts.keys().eq(&["normal"]), "{}", seen.told());
    assert_eq!(seen.summary.dropped, 0, "{:?}", seen.summary.dropped_by_reason);
    assert!(seen.summary.packets > 1_000, "{}", seen.summary.packets);
}

fn to_host(source: IpAddr, hops: u16) -> Ends {
    Ends { source, destination: host_for(source), hops: hops as u8 }
}

fn pool(count: usize) -> Vec<IpAddr> {
    let mut random = Random(9);
    (0..count).map(|_| random.address()).collect()
}

/// It takes half a second to know that nobody completes what the host has answered.
const SYN_FLOOD: Expected = Expected { within: 0.75, ..Expected::of(Vector::SynFlood) };

/// SYNs that the host answers, and that nobody completes.
fn syns(
    made: &mut Made,
    during: std::ops::Range<f64>,
    per_second: f64,
    options: &[u8],
    source: fn(&mut Random) -> IpAddr,
) {
    let mut begun = Vec::new();
    made.flood(during, per_second, |random| {
        let (source, port) = (source(random), random.port());
        begun.push((source, port));
        let hops = if options.is_empty() { random.one_of(&[242, 244]) } else { random.number(30..120) };
        let segment = Segment { ports: (port, 443), numbers: (random.bits() as u32, 0), flags: SYN, options, data: 0 };
        (to_host(source, hops), TCP, 0, tcp(&segment))
    });
    for (at, (source, port)) in made.times_of_flood().into_iter().zip(begun) {
        let ends = Ends { source: host_for(source), destination: source, hops: 64 };
        let answer = Segment { ports: (443, port), flags: SYN | ACK, options: &OPTIONS, ..Segment::default() };
        made.segment(at + 0.000_1, ends, &answer);
    }
}

const OPTIONS: [u8; 20] = [2, 4, 5, 180, 4, 2, 8, 10, 0, 0, 0, 0, 0, 0, 0, 0, 1, 3, 3, 7];

#[test]
fn spoofed_syns() {
    attack(&SYN_FLOOD, |made| syns(made, BEGINS..ENDS, FLOOD, &[], Random::address));
}

#[test]
fn spoofed_syns_of_ipv6() {
    attack(&SYN_FLOOD, |made| syns(made, BEGINS..ENDS, FLOOD, &[], Random::address_v6));
}

#[test]
fn spoofed_syns_with_options() {
    attack(&SYN_FLOOD, |made| syns(made, BEGINS..ENDS, FLOOD, &OPTIONS, Random::address));
}

#[test]
fn reflected_syn_acks() {
    let reflectors = pool(3_000);
    let expected = Expected { stopped: 0.995, ..Expected::of(Vector::TcpReflection) };
    attack(&expected, |made| {
        made.downloads(2.0..ENDS, 200.0);
        made.flood(BEGINS..ENDS, FLOOD, |random| {
            let ports = (random.one_of(&[80, 80, 80, 80, 443]), random.port());
            let flags = match random.part() {
                part if part < 0.83 => SYN | ACK,
                part if part < 0.96 => RST,
                _ => ACK,
            };
            let options: &[u8] = if flags == SYN | ACK { &[2, 4, 5, 180] } else { &[] };
            let segment = Segment { ports, numbers: (random.bits() as u32, 1), flags, options, data: 0 };
            (to_host(random.one_of(&reflectors), random.one_of(&[58, 122, 57, 121])), TCP, 0, tcp(&segment))
        });
    });
}

#[test]
fn amplified_answers_beside_a_client_of_the_same_service() {
    let amplifiers = pool(2_000);
    // Fragments are stopped as soon as it is known what they are of.
    let expected = Expected { stopped: 0.98, ..Expected::of(Vector::Amplification) };
    attack(&expected, |made| {
        made.asks(0.0..ENDS, 50.0, 53);
        made.flood(BEGINS..ENDS, FLOOD, |random| {
            let (source, hops) = (random.one_of(&amplifiers), random.number(40..60));
            if random.part() < 0.25 {
                return (to_host(source, hops), UDP, LATER, vec![b'd'; 1_000]);
            }
            let ports = (random.one_of(&[53, 53, 53, 123, 161, 19]), random.port());
            (to_host(source, hops), UDP, 0, udp(ports, usize::from(random.number(200..1_400))))
        });
    });
}

/// Each sends a few hundred times a second: neither their number nor what each sends is that of a reflection of a few packets.
#[test]
fn a_few_reflectors_that_answer_often() {
    let reflectors = pool(500);
    attack(&Expected::of(Vector::TcpReflection), |made| {
        made.flood(BEGINS..BEGINS + 0.5, 10.0 * FLOOD, |random| {
            let options = &[2, 4, 5, 180];
            let segment = Segment { ports: (443, random.port()), flags: SYN | ACK, options, ..Segment::default() };
            (to_host(random.one_of(&reflectors), 57), TCP, 0, tcp(&segment))
        });
    });
}

/// Nothing in it is alike but the protocol, of which there was nothing among so many good packets.
#[test]
fn udp_from_random_sources() {
    attack_beside(4.0 * USUAL, &Expected::of(Vector::UdpFlood), |made| {
        made.flood(BEGINS..ENDS, FLOOD, |random| {
            let ports = (random.port(), random.number(1..65_000));
            let data = usize::from(random.number(0..512));
            (to_host(random.address(), random.number(30..250)), UDP, 0, udp(ports, data))
        });
    });
}

#[test]
fn udp_from_bots() {
    let bots = pool(800);
    attack(&Expected::of(Vector::UdpFlood), |made| {
        made.flood(BEGINS..ENDS, FLOOD, |random| {
            (to_host(random.one_of(&bots), 53), UDP, 0, udp((random.port(), 9_987), 32))
        });
    });
}

#[test]
fn acknowledgements_of_nothing() {
    attack(&Expected::of(Vector::TcpFlood), |made| {
        made.flood(BEGINS..ENDS, FLOOD, |random| {
            let segment = Segment { ports: (random.port(), 443), flags: ACK, ..Segment::default() };
            (to_host(random.address(), 64), TCP, 0, tcp(&segment))
        });
    });
}

/// Nothing in it is alike but that it is of no connection.
#[test]
fn segments_of_nothing() {
    attack(&Expected::of(Vector::TcpFlood), |made| {
        made.flood(BEGINS..ENDS, FLOOD, |random| {
            let (ports, data) = ((random.port(), 443), usize::from(random.number(0..1_200)));
            let flags = random.one_of(&[ACK, PSH | ACK]);
            let segment = Segment { ports, flags, data, ..Segment::default() };
            (to_host(random.address(), random.number(40..64)), TCP, 0, tcp(&segment))
        });
    });
}

#[test]
fn data_of_nothing_from_bots() {
    let bots = pool(800);
    attack(&Expected::of(Vector::TcpFlood), |made| {
        made.flood(BEGINS..ENDS, FLOOD, |random| {
            let segment = Segment { ports: (random.port(), 443), flags: PSH | ACK, data: 400, ..Segment::default() };
            (to_host(random.one_of(&bots), 64), TCP, 0, tcp(&segment))
        });
    });
}

#[test]
fn pings() {
    attack(&Expected::of(Vector::IcmpFlood), |made| {
        made.flood(BEGINS..ENDS, FLOOD, |random| {
            let mut ping = vec![b'q'; 64];
            ping[..4].copy_from_slice(&[8, 0, 0, 0]);
            (to_host(random.address(), 60), ICMP, 0, ping)
        });
    });
}

#[test]
fn later_fragments() {
    attack(&Expected::of(Vector::FragmentFlood), |made| {
        made.flood(BEGINS..ENDS, FLOOD, |random| (to_host(random.address(), 60), UDP, LATER, vec![b'q'; 1_400]));
    });
}

#[test]
fn another_protocol() {
    attack(&Expected::of(Vector::ProtocolFlood), |made| {
        made.flood(BEGINS..ENDS, FLOOD, |random| (to_host(random.address(), 60), GRE, 0, vec![b'q'; 100]));
    });
}

/// What is like the flood but comes after it is not it: monitoring goes on.
#[test]
fn a_monitor_that_pings_after_a_flood_of_pings_is_heard() {
    let echo = |id: u8| {
        let mut ping = vec![b'q'; 56];
        ping[..6].copy_from_slice(&[8, 0, 0, 0, 0, id]);
        ping
    };
    let mut made = Made::new(4);
    made.crowd(0.0..60.0, USUAL, 1.0);
    made.flood(BEGINS..ENDS, FLOOD, |random| {
        (to_host(random.address(), random.number(30..250)), ICMP, 0, vec![b'q'; usize::from(random.number(8..1_200))])
    });
    let monitor = pool(1)[0];
    for second in 0..40 {
        made.packet(ENDS + 2.0 + f64::from(second), to_host(monitor, 60), ICMP, &echo(second as u8));
    }
    let seen = Seen::of_made(made);
    assert!(seen.summary.vectors.contains_key("icmp-flood"), "{}", seen.told());
    let after = seen.fates.iter().filter(|(at, is_flood, _)| !is_flood && *at > ENDS + 1.5);
    let lost = after.filter(|(.., fate)| *fate == Fate::Drop).count();
    assert_eq!(lost, 0, "{}", seen.told());
}

/// A daemon that begins in the middle of a flood knows of nobody who is good: it drops nothing that could be a customer's.
#[test]
fn where_nobody_is_known_no_service_is_closed() {
    let mut made = Made::new(8);
    made.crowd(0.0..ENDS, USUAL, 1.0);
    made.flood(0.0..ENDS, FLOOD, |random| {
        let segment = Segment { ports: (random.port(), 443), flags: ACK, ..Segment::default() };
        (to_host(random.address(), random.number(30..250)), TCP, 0, tcp(&segment))
    });
    let seen = Seen::of_made(made);
    assert_eq!(seen.lost(), 0.0, "{}", seen.told());
}

/// NTP servers ask each other from the port that amplifiers answer from.
#[test]
fn a_server_that_is_asked_from_the_ports_of_amplifiers_goes_on_answering() {
    let (amplifiers, peers) = (pool(2_000), pool(40));
    let mut made = Made::new(9);
    made.crowd(0.0..ENDS, USUAL, 1.0);
    let mut now = 0.0;
    while now < ENDS {
        let peer = made.random.one_of(&peers);
        made.datagram(now, peer, HOST, (123, 123), 48);
        made.datagram(now + 0.000_3, HOST, peer, (123, 123), 48);
        now += 0.05;
    }
    made.flood(BEGINS..ENDS, FLOOD, |random| {
        let ports = (53, random.number(20_000..60_000));
        (to_host(random.one_of(&amplifiers), 57), UDP, 0, udp(ports, 1_300))
    });
    // Peers that were never here before.
    for (number, peer) in pool(80).into_iter().skip(40).enumerate() {
        made.datagram(BEGINS + 1.5 + number as f64 * 0.02, peer, HOST, (123, 123), 48);
    }
    let seen = Seen::of_made(made);
    let first = seen.first(Verdict::Attack).unwrap();
    assert_eq!(first.vector, Some("amplification"), "{}", seen.told());
    assert_eq!(seen.lost(), 0.0, "{}", seen.told());
    assert!(seen.stopped(first.t) > 0.98, "{}\n{}", seen.stopped(first.t), seen.told());
}

#[test]
fn the_next_pulse_is_stopped_from_its_first_packet() {
    let mut made = Made::new(5);
    made.crowd(0.0..22.0, USUAL, 1.0);
    syns(&mut made, BEGINS..BEGINS + 1.5, FLOOD, &[], Random::address);
    let again = BEGINS + 7.0;
    made.flood(again..again + 1.5, FLOOD, |random| {
        let segment = Segment { ports: (random.port(), 443), flags: SYN, ..Segment::default() };
        (to_host(random.address(), 242), TCP, 0, tcp(&segment))
    });
    let seen = Seen::of_made(made);
    let (told, stopped) = (seen.told(), seen.stopped(again));
    assert!(stopped > 0.999, "{stopped}\n{told}");
    let changes = seen.lines.iter().filter(|line| line.actions.is_empty()).count();
    assert!(seen.lines.iter().all(|line| line.verdict == Verdict::Attack) && changes == 0, "one attack\n{told}");
}

#[test]
fn a_flood_that_turns_to_another_is_still_one_attack() {
    let mut made = Made::new(6);
    made.crowd(0.0..ENDS + 4.0, USUAL, 1.0);
    syns(&mut made, BEGINS..ENDS, FLOOD, &[], Random::address);
    made.flood(ENDS..ENDS + 3.0, FLOOD, |random| {
        let data = usize::from(random.number(200..1_400));
        (to_host(random.address(), 57), UDP, 0, udp((53, random.port()), data))
    });
    let seen = Seen::of_made(made);
    let told = seen.told();
    assert!(seen.lines.iter().all(|line| line.verdict == Verdict::Attack), "{told}");
    let amplification = seen.lines.iter().find(|line| line.vectors.contains(&"amplification")).unwrap().t;
    assert!((ENDS..ENDS + 0.5).contains(&amplification), "{amplification}\n{told}");
    assert!(seen.stopped(amplification) > 0.99 && seen.lost() == 0.0, "{told}");
}

#[test]
fn busy_days_are_normal() {
    let mut made = Made::new(7);
    made.crowd(0.0..15.0, 200.0, 1.0);
    normal(made);
}

#[test]
fn downloads_are_normal() {
    let mut made = Made::new(8);
    made.crowd(0.0..10.0, USUAL, 1.0);
    made.downloads(2.0..10.0, 2_000.0);
    normal(made);
}

#[test]
fn quic_is_normal() {
    let mut made = Made::new(9);
    for _ in 0..400 {
        let (client, port) = (made.random.address(), made.random.port());
        let mut now = made.random.between(0.0..12.0);
        for _ in 0..20 {
            let data = usize::from(made.random.number(30..1_200));
            made.datagram(now, client, HOST, (port, 443), data);
            made.datagram(now + 0.01, HOST, client, (443, port), 1_200);
            now += made.random.between(0.01..0.1);
        }
    }
    normal(made);
}

#[test]
fn resolvers_are_normal() {
    let mut made = Made::new(10);
    made.asks(0.0..12.0, 1_000.0, 53);
    normal(made);
}

#[test]
fn authoritative_servers_are_normal() {
    let mut made = Made::new(11);
    // Resolvers of old ask from port 53.
    made.is_asked(0.0..12.0, 1_000.0, 53, &[53]);
    normal(made);
}

#[test]
fn fragments_in_conversation_are_normal() {
    let mut made = Made::new(12);
    made.crowd(0.0..14.0, USUAL, 1.0);
    let server = made.random.address();
    for burst in 0..80 {
        let begins = 3.0 + f64::from(burst) * 0.1;
        made.datagram(begins, HOST, server, (789, 2_049), 120);
        for part in 0..6 {
            let first = begins + 0.002 + f64::from(part) * 0.000_5;
            made.datagram(first, server, HOST, (2_049, 789), 1_472);
            for later in 1..5 {
                made.fragment(first + f64::from(later) * 0.000_05, server, HOST, 1_480);
            }
        }
    }
    normal(made);
}

#[test]
fn a_crowd_that_is_served_is_a_surge() {
    let mut made = Made::new(13);
    made.crowd(0.0..BEGINS, USUAL, 1.0);
    made.crowd(BEGINS..BEGINS + 5.0, 200.0, 1.0);
    let seen = Seen::of_made(made);
    let told = seen.told();
    let first = seen.lines.first().unwrap();
    assert_eq!(first.verdict, Verdict::Surge, "{told}");
    assert!(first.t - BEGINS <= 3.0 && first.actions.is_empty(), "{told}");
    assert!(seen.summary.verdicts.keys().all(|verdict| ["normal", "surge"].contains(verdict)), "{told}");
    assert_eq!(seen.summary.dropped, 0, "{told}");
}

/// A crowd that gets no answer is no attack, whether or not it is known what is usual; and is never dropped.
fn overload(usual: f64, begins: f64) {
    let mut made = Made::new(14);
    if usual > 0.0 {
        made.crowd(0.0..begins, usual, 1.0);
    }
    made.crowd(begins..begins + 5.0, 200.0, 0.25);
    let seen = Seen::of_made(made);
    let told = seen.told();
    let first = seen.first(Verdict::Overload);
    assert!(first.is_some(), "{told}");
    let first = first.unwrap();
    assert!(first.t - begins <= 5.0, "{told}");
    assert!(first.reasons.iter().any(|reason| reason.contains("capacity, not an attack")), "{told}");
    assert!(seen.lines.iter().all(|line| !line.verdict.is_attack()), "{told}");
    assert_eq!(seen.summary.dropped, 0, "{told}");
}

#[test]
fn a_crowd_that_is_not_served_is_an_overload() {
    overload(USUAL, BEGINS);
}

#[test]
fn so_it_is_on_a_fresh_start() {
    overload(0.0, 0.0);
}

#[test]
fn a_client_gone_wild_is_a_misconfiguration() {
    let mut made = Made::new(15);
    made.crowd(0.0..ENDS + 2.0, USUAL, 1.0);
    let address = made.random.address();
    let client = made.client(address);
    made.repeats(0.0..BEGINS, 5.0, client);
    made.repeats(BEGINS..ENDS, 400.0, client);
    let seen = Seen::of_made(made);
    let told = seen.told();
    let first = seen.lines.first().unwrap();
    assert_eq!(first.verdict, Verdict::Misconfiguration, "{told}");
    assert!(first.t - BEGINS <= 2.0, "{told}");
    assert!(seen.lines.iter().all(|line| !line.verdict.is_attack()), "{told}");
    assert!(
        first.actions.iter().all(|action| action.contains("auto-misconfig")) && !first.actions.is_empty(),
        "{told}"
    );
}

#[test]
fn one_that_was_never_here_is_an_attack() {
    let mut made = Made::new(16);
    made.crowd(0.0..ENDS, USUAL, 1.0);
    let address = made.random.address();
    let client = made.client(address);
    made.repeats(BEGINS..ENDS, 400.0, client);
    let seen = Seen::of_made(made);
    let first = seen.lines.first().unwrap();
    assert_eq!((first.verdict, first.vector), (Verdict::Attack, Some("http-flood")), "{}", seen.told());
    assert!(first.t - BEGINS <= 2.0, "{}", seen.told());
}

#[test]
fn a_flood_in_a_crowd_is_both() {
    let mut made = Made::new(17);
    made.crowd(0.0..BEGINS, USUAL, 1.0);
    made.crowd(BEGINS..BEGINS + 6.0, 200.0, 1.0);
    let flood = BEGINS + 3.0;
    syns(&mut made, flood..flood + 2.0, FLOOD, &OPTIONS, Random::address);
    let seen = Seen::of_made(made);
    let told = seen.told();
    assert_eq!(seen.lines.first().unwrap().verdict, Verdict::Surge, "{told}");
    let mixed = seen.first(Verdict::Mixed).unwrap_or_else(|| panic!("not both\n{told}"));
    assert!(mixed.t - flood <= 1.5 && mixed.vector == Some("syn-flood"), "{told}");
    assert!(seen.stopped(mixed.t) >= 0.97 && seen.lost() == 0.0, "{told}");
}

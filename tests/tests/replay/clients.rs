//! Machines that connect like clients and go on and on, a partner gone wild, and UDP that nobody listens for beside some that somebody
//! does.

use std::collections::HashSet;
use std::net::{IpAddr, Ipv4Addr};

use floodwall::detect::{Features, Group, Handshakes, Usually, Verdict, detect};
use floodwall::replay::{Captured, Line, Options, replay_captured};
use floodwall_common::reason::Verdict as Fate;
use floodwall_tests::captures::made::{HOST, HOST_V6, Made};
use floodwall_tests::captures::packets::{UDP, udp};

use super::{BEGINS, ENDS, FLOOD, Seen, USUAL, pool, to_host};

/// So many addresses from this one on.
fn from(first: [u8; 4], count: u32) -> Vec<IpAddr> {
    (0..count).map(|number| Ipv4Addr::from(u32::from_be_bytes(first) + number).into()).collect()
}

/// Each of them connects so many times a second.
fn repeat(made: &mut Made, sources: &[IpAddr], during: std::ops::Range<f64>, per_second: f64) {
    for source in sources {
        let client = made.client(*source);
        made.repeats(during.clone(), per_second, client);
    }
}

/// What was said, and what became of each packet that came in.
fn replayed(made: Made) -> (Vec<Line>, Vec<(Captured, Fate)>) {
    let (frames, mut lines, mut fates) = (made.frames(), Vec::new(), Vec::new());
    let options = Options { protect: vec![HOST, HOST_V6], ..Options::default() };
    let tell = |line: &Line| {
        lines.push(line.clone());
        Ok(())
    };
    replay_captured(&frames, &options, tell, |captured, fate| fates.push((captured.clone(), fate))).unwrap();
    (lines, fates)
}

fn source_of(captured: &Captured) -> Option<IpAddr> {
    let bytes: [u8; 4] = captured.frame.get(26..30)?.try_into().ok()?;
    (captured.frame.get(12..14)? == [0x08, 0x00]).then(|| IpAddr::from(bytes))
}

/// They complete what they begin, and each is slow: what tells them is that they go on, and that nobody of theirs was here before.
#[test]
fn a_swarm_that_goes_on_and_on_is_an_http_flood() {
    let mut made = Made::new(21);
    made.crowd(0.0..BEGINS + 14.0, USUAL, 1.0);
    let bots = from([198, 18, 0, 1], 80);
    let regulars = from([203, 0, 113, 1], 3);
    repeat(&mut made, &regulars, 0.0..BEGINS + 14.0, 3.0);
    repeat(&mut made, &bots, BEGINS..BEGINS + 14.0, 3.0);
    let (lines, fates) = replayed(made);
    let told = format!("{lines:#?}");
    let attack = lines.iter().find(|line| line.verdict.is_attack()).unwrap_or_else(|| panic!("{told}"));
    assert_eq!(attack.vector, Some("http-flood"), "{told}");
    assert!((BEGINS..BEGINS + 8.0).contains(&attack.t), "{told}");
    let bots: HashSet<_> = bots.into_iter().collect();
    let is_bot = |captured: &Captured| source_of(captured).is_some_and(|source| bots.contains(&source));
    let (of_bots, of_others): (Vec<_>, Vec<_>) = fates.iter().partition(|(captured, _)| is_bot(captured));
    assert!(of_others.iter().all(|(_, fate)| *fate == Fate::Pass), "customers were dropped\n{told}");
    let begun = of_bots[0].0.at;
    let late: Vec<_> = of_bots.iter().filter(|(captured, _)| (captured.at - begun).as_secs_f64() > 10.0).collect();
    let stopped = late.iter().filter(|(_, fate)| *fate != Fate::Pass).count() as f64 / late.len() as f64;
    assert!(late.len() > 500 && stopped > 0.9, "{stopped} of {} stopped\n{told}", late.len());
}

/// Customers who open as many pages, each for a while, are none.
#[test]
fn people_who_come_and_go_are_none() {
    let mut made = Made::new(22);
    made.crowd(0.0..BEGINS, USUAL, 1.0);
    made.crowd(BEGINS..BEGINS + 12.0, 250.0, 1.0);
    let (lines, fates) = replayed(made);
    assert!(lines.iter().all(|line| matches!(line.verdict, Verdict::Surge | Verdict::Normal)), "{lines:#?}");
    assert!(fates.iter().all(|(_, fate)| *fate == Fate::Pass));
}

/// Forty servers of one owner ask ten times as often as before: no crowd, and nobody else is meant.
#[test]
fn a_partner_of_many_servers_gone_wild_is_a_misconfiguration_and_named() {
    let mut made = Made::new(23);
    made.crowd(0.0..ENDS + 5.0, USUAL, 1.0);
    let servers = from([20, 247, 0, 236], 40);
    repeat(&mut made, &servers, 0.0..BEGINS, 0.5);
    repeat(&mut made, &servers, BEGINS..ENDS + 5.0, 8.0);
    let (lines, fates) = replayed(made);
    let told = format!("{lines:#?}");
    // More demand is all that can be seen in the first moment.
    let first = lines.iter().find(|line| line.verdict != Verdict::Surge).unwrap_or_else(|| panic!("{told}"));
    assert_eq!(first.verdict, Verdict::Misconfiguration, "{told}");
    assert!(first.t - BEGINS <= 2.0, "{told}");
    let named = &first.reasons[0];
    assert!(named.contains("20.247.0.0/24") && named.contains("20.247.1.0/24"), "{told}");
    for prefix in ["20.247.0.0/24", "20.247.1.0/24"] {
        assert!(first.who.iter().any(|of| of.to_string() == prefix), "{prefix}\n{told}");
    }
    assert!(lines.iter().all(|line| line.who.is_empty() || line.verdict == Verdict::Misconfiguration), "{told}");
    assert!(lines.iter().all(|line| !line.verdict.is_attack()), "{told}");
    // Nobody else is touched, nor what they have open; of what they begin a part is.
    let servers: HashSet<_> = servers.into_iter().collect();
    let is_of_them = |captured: &Captured| source_of(captured).is_some_and(|source| servers.contains(&source));
    let is_syn = |captured: &Captured| captured.frame.get(47).is_some_and(|flags| flags & 0x12 == 0x02);
    let dropped: Vec<_> = fates.iter().filter(|(_, fate)| *fate != Fate::Pass).map(|(captured, _)| captured).collect();
    assert!(dropped.iter().all(|captured| is_of_them(captured) && is_syn(captured)), "{told}");
    assert!(!dropped.is_empty(), "{told}");
}

/// Nothing in it is alike, and there is good UDP besides: what nobody listens for is dropped, and nothing else.
#[test]
fn udp_that_nobody_listens_for() {
    let mut made = Made::new(24);
    made.crowd(0.0..ENDS, 2.0 * USUAL, 1.0);
    made.asks(0.0..ENDS, 40.0, 53);
    made.is_asked(0.0..ENDS, 30.0, 443, &[]);
    let bots = pool(900);
    made.flood(BEGINS..ENDS, FLOOD, |random| {
        let ports = (random.port(), random.port());
        let data = usize::from(random.number(64..1_200));
        (to_host(random.one_of(&bots), random.number(30..250)), UDP, 0, udp(ports, data))
    });
    let seen = Seen::of_made(made);
    let told = seen.told();
    let first = seen.first(Verdict::Attack).unwrap_or_else(|| panic!("{told}"));
    assert_eq!(first.vector, Some("udp-flood"), "{told}");
    let does = |line: &Line| line.actions.iter().any(|action| action.contains("nothing here listens for"));
    assert!(seen.lines.iter().any(does), "{told}");
    let stopped = seen.stopped(first.t);
    assert!(first.t - BEGINS <= 0.5 && stopped > 0.99, "{stopped}\n{told}");
    assert_eq!(seen.lost(), 0.0, "{told}");
    assert!(seen.summary.dropped_by_reason.contains_key("no-service"), "{:?}", seen.summary.dropped_by_reason);
}

/// What was said, with bots and customers apart: shares of these that were stopped in the last seconds.
fn stopped(fates: &[(Captured, Fate)], bots: &[IpAddr], from: f64) -> (f64, f64) {
    let bots: HashSet<_> = bots.iter().copied().collect();
    let begun = fates[0].0.at;
    let late = fates.iter().filter(|(captured, _)| (captured.at - begun).as_secs_f64() > from);
    let is_bot = |captured: &Captured| source_of(captured).is_some_and(|source| bots.contains(&source));
    let (of_bots, of_others): (Vec<_>, Vec<_>) = late.partition(|(captured, _)| is_bot(captured));
    let share = |of: &[&(Captured, Fate)]| {
        of.iter().filter(|(_, fate)| *fate != Fate::Pass).count() as f64 / of.len().max(1) as f64
    };
    (share(&of_bots), share(&of_others))
}

/// One in three connections is theirs: it is not how many they are that tells them, but that no people do so.
#[test]
fn bots_in_a_crowd_are_named_and_nobody_else_is_held() {
    let mut made = Made::new(25);
    made.crowd(0.0..BEGINS, USUAL, 1.0);
    made.crowd(BEGINS..BEGINS + 16.0, 400.0, 1.0);
    let bots = from([198, 18, 0, 1], 60);
    repeat(&mut made, &bots, BEGINS + 2.0..BEGINS + 16.0, 3.0);
    let (lines, fates) = replayed(made);
    let told = format!("{lines:#?}");
    let attack = lines.iter().find(|line| line.verdict.is_attack()).unwrap_or_else(|| panic!("{told}"));
    assert_eq!((attack.verdict, attack.vector), (Verdict::Mixed, Some("http-flood")), "{told}");
    assert!(attack.t - (BEGINS + 2.0) < 8.0, "{told}");
    assert!(attack.reasons.iter().any(|reason| reason.contains("each of one system")), "{told}");
    let (of_bots, of_others) = stopped(&fates, &bots, BEGINS + 13.0);
    assert!(of_bots > 0.95 && of_others == 0.0, "{of_bots} of bots, {of_others} of others\n{told}");
}

/// Many people behind each: they go on and on as well, but not as one system does.
#[test]
fn addresses_of_carriers_in_a_crowd_are_no_bots() {
    let mut made = Made::new(26);
    made.crowd(0.0..BEGINS, USUAL, 1.0);
    made.crowd(BEGINS..BEGINS + 14.0, 400.0, 1.0);
    for address in from([198, 18, 0, 1], 40) {
        for _ in 0..3 {
            repeat(&mut made, &[address], BEGINS..BEGINS + 14.0, 1.0);
        }
    }
    let (lines, fates) = replayed(made);
    assert!(lines.iter().all(|line| matches!(line.verdict, Verdict::Surge | Verdict::Normal)), "{lines:#?}");
    assert!(fates.iter().all(|(_, fate)| *fate == Fate::Pass));
}

/// A service that closes each connection after its answer, and pages that ask every moment: its customers look like machines.
#[test]
fn newcomers_who_do_as_customers_do_are_none() {
    let mut made = Made::new(27);
    made.crowd(0.0..BEGINS, USUAL, 1.0);
    let regulars = from([203, 0, 113, 1], 30);
    repeat(&mut made, &regulars, 0.0..BEGINS + 14.0, 3.0);
    made.crowd(BEGINS..BEGINS + 14.0, 400.0, 1.0);
    repeat(&mut made, &from([198, 18, 0, 1], 60), BEGINS..BEGINS + 14.0, 3.0);
    let (lines, fates) = replayed(made);
    assert!(lines.iter().all(|line| !line.verdict.is_attack()), "{lines:#?}");
    assert!(fates.iter().all(|(_, fate)| *fate == Fate::Pass));
}

/// Nobody knows what is usual.
struct Nothing;

impl Usually for Nothing {
    fn packets(&self, _: Group) -> Option<f64> {
        None
    }

    fn connections(&self) -> Option<f64> {
        None
    }
}

/// Of the same figures, customers who are not served are an overload, and newcomers who begin one connection after the other are none yet.
#[test]
fn what_programs_ask_for_is_not_yet_an_overload() {
    let said = |again: f64| {
        let mut features = Features::default();
        let syns = &mut features.groups[Group::Syn as usize];
        (syns.samples, syns.per_second, syns.per_source) = (400, 900.0, 3.0);
        syns.destination_port = Some((443, 1.0));
        features.handshakes = Handshakes {
            begun: 400,
            completed: Some(0.34),
            answered: Some(0.4),
            acknowledged: Some(1.0),
            completed_per_second: 300.0,
            ..Handshakes::default()
        };
        features.openers.again = Some(again);
        detect(&features, &Nothing).verdict
    };
    assert_eq!(said(0.1), Verdict::Overload);
    assert_eq!(said(0.9), Verdict::Normal);
}

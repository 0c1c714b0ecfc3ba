//! The order of the decision, on a model of the maps: lists before everything, what is wrong with a packet before its
//! limits, packets before bytes; and limits that are off or block.

#![allow(clippy::unwrap_used, reason = "tests panic")]

use floodwall_common::class::{Class, Family, KIND_SLOTS, Kind};
use floodwall_common::config::Config;
use floodwall_common::cookie::CookieMode;
use floodwall_common::groups::GROUP_SLOTS;
use floodwall_common::limits::{Limits, Per, Rate};
use floodwall_common::lists::List;
use floodwall_common::meter::{Ask, Meters};
use floodwall_common::packet::Frame;
use floodwall_common::reason::Reason;
use floodwall_common::replies::Conversation;
use floodwall_common::services::{Cap, ConnectionCap, Order};
use floodwall_common::signatures::Shape;

use support::frames::{SYN, TCP, UDP, V4, V6, tcp, udp};
use support::limiter::MS;
use support::model::{ALLOWED, BOTH, DENIED, GROUP, GROUPED, MACHINE, Model, config, limit, meters, model};

mod support;

#[test]
fn lists_come_before_everything_else() {
    let config = config(limit(100, 50), Rate::Off);
    let mut model = model(&config);
    assert_eq!(model.reason(&V4::from(ALLOWED).frame(TCP, &tcp(0))), Reason::Allowed, "whatever its flags");
    assert_eq!(model.reason(&V4::from(BOTH).frame(UDP, &udp(0))), Reason::Allowed, "allow wins");
    assert_eq!(model.reason(&V4::from(DENIED).frame(TCP, &tcp(0))), Reason::Denied);
    assert_eq!(model.then(&V4::from(ALLOWED).frame(UDP, &udp(0))), Some(Reason::AllowedLimit));
}

#[test]
fn signatures_come_behind_lists_and_before_limits_where_they_are_armed() {
    let mut config = config(limit(100, 50), Rate::Off);
    let udp_only = Shape { protocol: 17, ..Shape::ANY };
    let frames = [V4::default().frame(UDP, &udp(4)), V6::default().frame(UDP, &udp(4))];
    let mut unarmed = model(&config);
    unarmed.signature = Some(udp_only);
    assert_eq!(unarmed.reason(&frames[0]), Reason::Passed, "not asked");
    for meters in &mut config.meters {
        meters.set_ask(Ask::SIGNATURES, true);
    }
    let mut model = model(&config);
    model.signature = Some(udp_only);
    for frame in &frames {
        assert_eq!((model.reason(frame), model.then(frame)), (Reason::Signature, None));
    }
    assert_eq!(model.asked, 0, "a packet that drops anyway owes nothing");
    assert_eq!(model.reason(&V4::from(ALLOWED).frame(UDP, &udp(4))), Reason::Allowed);
    assert_eq!(model.reason(&V4::from(DENIED).frame(UDP, &udp(4))), Reason::Denied);
    let malformed = V4 { total: Some(9), ..V4::default() }.frame(UDP, &udp(4));
    assert_eq!(model.reason(&malformed), Reason::MalformedIp);
    assert_eq!(model.then(&V4::default().frame(TCP, &tcp(SYN))), Some(Reason::PacketLimit), "of no account to others");
}

#[test]
fn what_is_malformed_drops_before_it_is_charged() {
    let config = config(limit(100, 50), Rate::Off);
    let mut model = model(&config);
    assert_eq!(model.then(&V4::default().frame(TCP, &tcp(0))), None);
    assert_eq!(model.asked, 0, "a packet that drops anyway owes nothing");
    assert_eq!(model.reason(&V4::from([127, 0, 0, 1]).frame(UDP, &udp(0))), Reason::Martian);
    assert_eq!(model.asked, 1, "one that passes does");
    assert_eq!(model.then(&V4::from([127, 0, 0, 1]).frame(UDP, &udp(0))), Some(Reason::PacketLimit));
}

#[test]
fn packets_are_asked_before_bytes() {
    let by_packets = config(limit(100, 50), limit(1_000_000, 1_000_000));
    assert_eq!(model(&by_packets).then(&V6::default().frame(TCP, &tcp(SYN))), Some(Reason::PacketLimit));
    let by_bytes = config(limit(10_000, 10_000), limit(1_000, 20_000));
    assert_eq!(model(&by_bytes).then(&V6::default().frame(TCP, &tcp(SYN))), Some(Reason::ByteLimit));
    let bytes_only = config(Rate::Off, limit(1_000, 20_000));
    assert_eq!(model(&bytes_only).then(&V4::default().frame(UDP, &udp(1_000))), Some(Reason::ByteLimit));
}

#[test]
fn off_asks_nobody_and_block_passes_nothing() {
    let off = config(Rate::Off, Rate::Off);
    let mut model_off = model(&off);
    assert_eq!(model_off.then(&V4::default().frame(UDP, &udp(0))), None);
    assert_eq!(model_off.asked, 0);
    let blocks = [
        (Rate::Block, Rate::Off),
        (Rate::Off, Rate::Block),
        (limit(10, 10), Rate::Block),
        (Rate::Block, limit(1_000, 10_000)),
    ];
    for (packets, bytes) in blocks {
        let config = config(packets, bytes);
        let mut model = model(&config);
        assert_eq!(model.reason(&V4::default().frame(UDP, &udp(0))), Reason::ClassBlocked);
        assert_eq!(model.then(&V4::default().frame(UDP, &udp(0))), None);
        assert_eq!(model.asked, 0, "no state for what is blocked");
        assert_eq!(model.reason(&V4::from(ALLOWED).frame(UDP, &udp(0))), Reason::Allowed);
    }
}

#[test]
fn a_source_is_an_ipv6_64_and_a_limit_is_of_its_source() {
    let config = config(limit(100, 50), Rate::Off);
    let mut model = model(&config);
    assert_eq!(model.then(&V6::from(7 << 40, 1).frame(UDP, &udp(0))), Some(Reason::PacketLimit));
    assert_eq!(model.reason(&V6::from(7 << 40, 99).frame(UDP, &udp(0))), Reason::PacketLimit, "same /64");
    assert_eq!(model.reason(&V6::from(8 << 40, 1).frame(UDP, &udp(0))), Reason::Passed);
}

#[test]
fn who_is_in_a_group_has_its_limits_and_everybody_else_those_of_all() {
    let frame = |source| V4::from(source).frame(UDP, &udp(0));
    let grouped = |of_all: Rate, of_group: Rate| {
        let mut config = config(of_all, Rate::Off);
        config.lists = config.lists.with(List::Groups, Family::V4);
        let limits = Limits { packets: of_group, bytes: Rate::Off };
        config.groups[GROUP as usize] = [Meters::new(limits, MACHINE, [3, 4]).unwrap(); KIND_SLOTS];
        config
    };
    let passed = |config: &Config, source: [u8; 4]| {
        let mut model = model(config);
        (0..1_000).filter(|_| model.reason(&frame(source)) == Reason::Passed).count()
    };
    let stranger = [12, 0, 0, 1];
    let lower = grouped(limit(100, 100), limit(10, 10));
    assert!((10..14).contains(&passed(&lower, GROUPED)) && (100..130).contains(&passed(&lower, stranger)));
    let higher = grouped(limit(10, 10), limit(1_000, 500));
    assert!((500..630).contains(&passed(&higher, GROUPED)) && (10..14).contains(&passed(&higher, stranger)));
    // Off for either of them, and blocked.
    let only_group = grouped(Rate::Off, limit(10, 10));
    assert!((10..14).contains(&passed(&only_group, GROUPED)) && passed(&only_group, stranger) == 1_000);
    let only_others = grouped(limit(10, 10), Rate::Off);
    assert!(passed(&only_others, GROUPED) == 1_000 && (10..14).contains(&passed(&only_others, stranger)));
    let blocked = grouped(limit(10, 10), Rate::Block);
    assert_eq!(model(&blocked).reason(&frame(GROUPED)), Reason::ClassBlocked);
    // Lists come first, and limits of prefixes are of all.
    assert_eq!(model(&blocked).reason(&frame(BOTH)), Reason::Allowed);
    let mut ladder = ladder(limit(10, 10), limit(100, 50), Rate::Off);
    ladder.lists = ladder.lists.with(List::Groups, Family::V4);
    ladder.groups = only_others.groups;
    assert_eq!(model(&ladder).then(&frame(GROUPED)), Some(Reason::SubnetLimit));
}

#[test]
fn a_group_of_which_nothing_is_in_force_is_not_asked_for() {
    let mut config = config(limit(1_000, 1_000), Rate::Off);
    config.groups = [[meters(Rate::Block, Rate::Off); KIND_SLOTS]; GROUP_SLOTS];
    assert_eq!(model(&config).reason(&V4::from(GROUPED).frame(UDP, &udp(0))), Reason::Passed);
}

/// All classes under limits at every level, each level with a secret of its own.
fn ladder(source: Rate, subnet: Rate, network: Rate) -> Config {
    let mut config = config(source, Rate::Off);
    for (level, rate) in [subnet, network].into_iter().enumerate() {
        let secrets = [10 + level as u64, 20 + level as u64];
        let limits = Limits { packets: rate, bytes: Rate::Off };
        config.wider[level] = [Meters::new(limits, MACHINE, secrets).unwrap(); KIND_SLOTS];
        for meters in &mut config.meters {
            meters.set_ask(Ask::wider(Per::WIDER[level]), rate != Rate::Off);
        }
    }
    config
}

#[test]
fn who_changes_his_address_is_stopped_at_the_narrowest_prefix_that_holds_him() {
    let config = ladder(limit(100, 50), limit(200, 100), limit(400, 200));
    // An IPv6 /64 for each packet, all in one /56; then all in one /48. And the same in IPv4, by /24 and /16.
    let in_56 = |n: u64| V6::from(0x2001_0db8_0000_0000 | (n & 0xff), n).frame(UDP, &udp(0));
    let in_48 = |n: u64| V6::from(0x2001_0db8_0001_0000 | (n % 0xffff), n).frame(UDP, &udp(0));
    let in_24 = |n: u64| V4::from([198, 18, 0, n as u8]).frame(UDP, &udp(0));
    let in_16 = |n: u64| V4::from([198, 19, (n >> 8) as u8, n as u8]).frame(UDP, &udp(0));
    let spread = |frame: &dyn Fn(u64) -> Vec<u8>, step: u64| {
        let mut model = model(&config);
        let reasons: Vec<_> = (0..2_000).map(|n| model.reason(&frame(n * step))).collect();
        let passed = reasons.iter().filter(|reason| **reason == Reason::Passed).count();
        (passed, *reasons.last().unwrap())
    };
    // A burst and what the gate has let pass before it asked: a quarter more at most.
    for (frame, step, burst, reason) in [
        (&in_56 as &dyn Fn(u64) -> Vec<u8>, 1, 100, Reason::SubnetLimit),
        (&in_48, 257, 200, Reason::NetworkLimit),
        (&in_24, 1, 100, Reason::SubnetLimit),
        (&in_16, 257, 200, Reason::NetworkLimit),
    ] {
        let (passed, last) = spread(frame, step);
        assert_eq!(last, reason);
        assert!((burst..burst * 5 / 4 + 2).contains(&passed), "{passed} passed of a burst of {burst} ({reason:?})");
    }
}

#[test]
fn neighbours_far_enough_apart_lose_nothing_to_each_other() {
    let config = ladder(limit(100, 50), limit(200, 100), limit(400, 200));
    let mut model = model(&config);
    // 200 /64 of one /40, each in a /48 of its own, with an attacker among them.
    let neighbour = |n: u64| V6::from(0x2001_0db8_0000_0000 | (n << 16), 1).frame(UDP, &udp(0));
    for n in 0..5_000 {
        let _ = model.reason(&V6::from(0x2001_0db8_00ff_0000 | n, n).frame(UDP, &udp(0)));
    }
    for round in 0..10 {
        for n in 0..200 {
            assert_eq!(model.reason(&neighbour(n)), Reason::Passed, "neighbour {n}, round {round}");
        }
    }
}

#[test]
fn the_narrowest_limit_names_the_reason() {
    let config = ladder(limit(100, 50), limit(100, 50), limit(100, 50));
    assert_eq!(model(&config).then(&V4::default().frame(UDP, &udp(0))), Some(Reason::PacketLimit));
}

/// No limits but the cap of service 1.
fn capped(per_second: u64, burst: u64) -> Config {
    let mut config = config(limit(1_000_000, 1_000_000), Rate::Off);
    config.caps[1] = Cap::new(limit(per_second, burst), MACHINE, 7).unwrap();
    config.meters.iter_mut().for_each(|meters| meters.set_ask(Ask::CAP, true));
    config
}

fn to(port: u16, mut payload: Vec<u8>) -> Vec<u8> {
    payload[2..4].copy_from_slice(&port.to_be_bytes());
    payload
}

/// Packets of two groups in turn for ten seconds, each so many a second; what passed of each a second.
fn under_cap(strangers: u64, customers: u64) -> (f64, f64) {
    let config = capped(1_000, 500);
    let mut model = model(&config);
    let customer = |n: u64| [11, 0, 0, (n % 200) as u8];
    model.verified = (0..200).map(|n| u64::from(u32::from_be_bytes(customer(n)))).collect();
    let mut passed = [0u64; 2];
    let mut due = [0u64; 2];
    for tick in 1..=10_000u64 {
        for (group, rate) in [strangers, customers].into_iter().enumerate() {
            while due[group] < rate * tick / 1_000 {
                due[group] += 1;
                let n = due[group];
                let source = if group == 0 { [12, (n >> 16) as u8, (n >> 8) as u8, n as u8] } else { customer(n) };
                let frame = V4::from(source).frame(UDP, &to(443, udp(0)));
                passed[group] += u64::from(model.reason(&frame) == Reason::Passed);
            }
        }
        model.wall.now_ns += MS;
    }
    (passed[0] as f64 / 10.0, passed[1] as f64 / 10.0)
}

#[test]
fn under_a_cap_verified_sources_come_first_and_the_others_get_the_rest() {
    // A tenth more for the burst of the first half second.
    let (strangers, customers) = under_cap(100_000, 400);
    assert!(customers > 399.0, "{customers} of 400 a second");
    assert!((570.0..660.0).contains(&strangers), "{strangers} of the 600 a second that are left");
    let (strangers, customers) = under_cap(100_000, 0);
    assert!((970.0..1_060.0).contains(&strangers) && customers == 0.0, "nothing is left unused: {strangers}");
    let (strangers, customers) = under_cap(100_000, 5_000);
    assert!((960.0..1_060.0).contains(&(strangers + customers)), "a cap is a cap: {strangers} + {customers}");
    assert!(customers > 930.0, "{customers}");
    let (strangers, customers) = under_cap(500, 400);
    assert_eq!((strangers, customers), (500.0, 400.0), "below its cap a service loses nothing");
}

#[test]
fn a_cap_is_of_its_service_alone() {
    let config = capped(10, 10);
    let mut model = model(&config);
    assert_eq!(model.then(&V4::default().frame(UDP, &to(443, udp(0)))), Some(Reason::ServiceCap));
    assert_eq!(
        model.reason(&V4::default().frame(TCP, &to(443, tcp(SYN)))),
        Reason::ServiceCap,
        "one cap for all of its ports"
    );
    assert_eq!(model.then(&V4::default().frame(UDP, &to(80, udp(0)))), None);
    assert_eq!(model.reason(&V4::from(ALLOWED).frame(UDP, &to(443, udp(0)))), Reason::Allowed);
}

/// Of SYNs alone, in front of the cap of packets, and behind cookies.
#[test]
fn a_cap_of_connections_is_of_syns_and_charges_nothing_else() {
    let mut config = capped(10, 10);
    config.connection_caps[1] = ConnectionCap::new(limit(10, 10), Order::VerifiedFirst, MACHINE, 8).unwrap();
    config.meters.iter_mut().for_each(|meters| meters.set_ask(Ask::CONNECTIONS, true));
    let syn = |host: u8, port: u16| V4::from([12, 0, 0, host]).frame(TCP, &to(port, tcp(SYN)));
    let mut of_service = model(&config);
    assert_eq!(of_service.then(&syn(1, 443)), Some(Reason::ConnectionCap));
    of_service.verified.push(u64::from(u32::from_be_bytes([12, 0, 0, 2])));
    assert_eq!(of_service.reason(&syn(2, 443)), Reason::Passed, "who is verified comes first");
    let mut other = model(&config);
    assert_eq!(other.then(&syn(1, 80)), None, "another port");
    let mut with_cookies = config;
    with_cookies.meters.iter_mut().for_each(|meters| meters.set_ask(Ask::COOKIE, true));
    let answers = Limits { packets: limit(100_000, 50_000), bytes: Rate::Off };
    with_cookies.cookie_answers = Meters::new(answers, MACHINE, [30, 31]).unwrap().packets;
    assert_eq!(model(&with_cookies).then(&syn(1, 443)), None, "what is answered with a cookie never gets there");
}

/// Who was served since it began comes behind who was not; who was here before it comes first.
#[test]
fn a_cap_of_connections_may_have_who_was_served_since_come_last() {
    let mut config = capped(100, 100);
    config.connection_caps[1] = ConnectionCap::new(limit(100, 100), Order::KnownFirst, MACHINE, 8).unwrap();
    config.caps[1] = Cap::default();
    config.meters.iter_mut().for_each(|meters| meters.set_ask(Ask::CONNECTIONS, true));
    let syn = |host: u8| V4::from([12, 0, 0, host]).frame(TCP, &to(443, tcp(SYN)));
    let key = |host: u8| u64::from(u32::from_be_bytes([12, 0, 0, host]));
    let (served, new, known) = (1, 2, 3);
    let mut model = model(&config);
    model.verified.extend([key(served), key(known)]);
    model.known.push(key(known));
    let mut passes = |host| (0..1_000).filter(|_| model.reason(&syn(host)) == Reason::Passed).count();
    assert_eq!([passes(served), passes(served)], [26, 0], "a quarter of the cap, and what is between two of them");
    assert_eq!([passes(new), passes(served), passes(new)], [24, 0, 0], "half of it");
    assert_eq!([passes(known), passes(new), passes(known)], [50, 0, 0], "all of it");
}

#[test]
fn past_its_cap_a_service_refuses_strangers_before_anything_dear_is_asked() {
    let mut config = capped(10, 10);
    config.meters.iter_mut().for_each(|meters| meters.set_ask(Ask::SIGNATURES, true));
    let mut model = model(&config);
    let frame = |host: u8| V4::from([12, 0, 0, host]).frame(UDP, &to(443, udp(0)));
    assert_eq!(model.then(&frame(1)), Some(Reason::ServiceCap));
    model.signature = Some(Shape { protocol: 17, ..Shape::ANY });
    assert_eq!(model.reason(&frame(2)), Reason::ServiceCap);
    model.verified.push(u64::from(u32::from_be_bytes([12, 0, 0, 3])));
    assert_eq!(model.reason(&frame(3)), Reason::Signature, "of who is verified all is asked");
    assert_eq!(model.reason(&V4::default().frame(UDP, &to(80, udp(0)))), Reason::Signature, "of other ports too");
    assert_eq!(model.reason(&V4::from(DENIED).frame(UDP, &to(443, udp(0)))), Reason::Denied, "lists come first");
}

#[test]
fn what_a_cap_refuses_is_charged_to_its_source_all_the_same() {
    // Nine sources of 2,000 a second, under limits that add up to less than the cap, beside a hundred of 5 a second.
    let mut config = capped(5_000, 2_500);
    let of_udp = Kind::new(Family::V4, Class::Udp).index() as usize;
    let limits = Limits { packets: limit(500, 1_000), bytes: Rate::Off };
    config.meters[of_udp] = Meters::new(limits, MACHINE, [1, 2]).unwrap();
    config.meters[of_udp].set_ask(Ask::CAP, true);
    let mut model = model(&config);
    let send = |model: &mut Model<'_>, group: u8, host: u64| {
        model.reason(&V4::from([11, 0, group, host as u8]).frame(UDP, &to(443, udp(0)))) == Reason::Passed
    };
    let (mut asked, mut answered) = (0, 0);
    for tick in 0..8_000u64 {
        model.wall.now_ns += MS;
        for packet in 0..18 {
            send(&mut model, 1, packet % 9);
        }
        if tick % 2 == 0 {
            let passed = send(&mut model, 2, tick / 2 % 100);
            if tick > 2_000 {
                (asked, answered) = (asked + 1, answered + u64::from(passed));
            }
        }
    }
    assert!(answered * 10 > asked * 9, "{answered} of {asked}");
}

#[test]
fn a_segment_of_no_connection_drops_where_that_is_armed() {
    let mut config = config(limit(1_000_000, 1_000_000), Rate::Off);
    let segment = |source: [u8; 4]| V4::from(source).frame(TCP, &to(443, tcp(0x10)));
    let (stranger, customer) = ([12, 0, 0, 1], [12, 0, 0, 2]);
    assert_eq!(model(&config).reason(&segment(stranger)), Reason::Passed, "not armed");
    let of_tcp = Kind::new(Family::V4, Class::Tcp).index() as usize;
    config.meters[of_tcp].set_ask(Ask::STATE, true);
    let mut model = model(&config);
    assert_eq!(model.reason(&segment(stranger)), Reason::OutOfState);
    assert_eq!(model.reason(&V4::from(stranger).frame(TCP, &to(443, tcp(SYN)))), Reason::Passed, "whoever comes");
    assert_eq!(model.reason(&V4::from(ALLOWED).frame(TCP, &to(443, tcp(0x10)))), Reason::Allowed);
    // The SYN-ACK that this host has sent is enough for the third step of the handshake.
    model.sent.push(Conversation::of_received(Frame::new(&segment(stranger))).unwrap());
    assert_eq!(model.reason(&segment(stranger)), Reason::Passed);
    // Who has been here before may have kept a connection for hours.
    model.verified.push(u64::from(u32::from_be_bytes(customer)));
    assert_eq!(model.reason(&segment(customer)), Reason::Passed);
}

#[test]
fn beside_cookies_the_stack_is_asked_for_the_connection() {
    let mut config = config(limit(1_000_000, 1_000_000), Rate::Off);
    let segment = V4::from([12, 0, 0, 1]).frame(TCP, &to(443, tcp(0x10)));
    config.meters[Kind::new(Family::V4, Class::Tcp).index() as usize].set_ask(Ask::STATE, true);
    let judged = |config: &Config, is_of_the_stack: bool| {
        let mut model = model(config);
        model.is_of_the_stack = is_of_the_stack;
        model.reason(&segment)
    };
    assert_eq!(judged(&config, true), Reason::OutOfState, "without cookies all that is said leaves through the stack");
    config.cookies.mode = CookieMode::Auto as u32;
    assert_eq!(judged(&config, false), Reason::OutOfState);
    assert_eq!(judged(&config, true), Reason::Passed);
}

#[test]
fn locked_down_only_what_is_expected_passes() {
    let mut config = config(limit(1_000_000, 1_000_000), Rate::Off);
    config.meters.iter_mut().for_each(|meters| meters.set_ask(Ask::LOCKDOWN, true));
    let mut model = model(&config);
    let from = |source: [u8; 4]| V4 { source, ..V4::default() };
    let here = V4::default().destination;
    let (udp_here, tcp_here) =
        (|port| V4::default().frame(UDP, &to(port, udp(0))), |port| V4::default().frame(TCP, &to(port, tcp(SYN))));
    assert_eq!(model.reason(&udp_here(443)), Reason::Passed);
    assert_eq!(model.reason(&tcp_here(443)), Reason::Passed);
    assert_eq!(model.reason(&udp_here(80)), Reason::NoService);
    assert_eq!(model.reason(&tcp_here(22)), Reason::NoService);
    assert_eq!(model.reason(&from(ALLOWED).frame(TCP, &to(22, tcp(SYN)))), Reason::Allowed);

    // A conversation that this host has begun.
    let reply = V4::default().frame(UDP, &to(40_000, udp(0)));
    assert_eq!(model.reason(&reply), Reason::NoService);
    let swapped = V4 { source: here, destination: V4::default().source, ..V4::default() };
    let mut asked = udp(0);
    let answer = to(40_000, udp(0));
    asked[..2].copy_from_slice(&answer[2..4]);
    asked[2..4].copy_from_slice(&answer[..2]);
    model.sent.push(Conversation::of_sent(Frame::new(&swapped.frame(UDP, &asked))).unwrap());
    assert_eq!(model.reason(&reply), Reason::Passed);

    // The link that it hangs on: VRRP, DHCP, a router's advertisement.
    let multicast = V4 { destination: [224, 0, 0, 18], ..V4::default() };
    assert_eq!(model.reason(&multicast.frame(112, &[0; 20])), Reason::Passed);
    let mut offer = udp(0);
    offer[..4].copy_from_slice(&[0, 67, 0, 68]);
    assert_eq!(model.reason(&V4::default().frame(UDP, &offer)), Reason::Passed);
    let link_local = V6::from(0xfe80 << 48, 1);
    assert_eq!(model.reason(&link_local.frame(UDP, &to(5_353, udp(0)))), Reason::Passed);
    assert_eq!(model.reason(&V6::default().frame(UDP, &to(5_353, udp(0)))), Reason::NoService);
    assert_eq!(
        model.reason(&V4::default().frame(50, &[0; 40])),
        Reason::NoService,
        "ESP of a tunnel that is none of ours"
    );
}

#[test]
fn a_syn_is_answered_in_place_of_the_stack_but_not_too_many_of_a_subnet() {
    let mut config = capped(10, 10);
    config.meters.iter_mut().for_each(|meters| meters.set_ask(Ask::COOKIE, true));
    let answers = Limits { packets: limit(100, 50), bytes: Rate::Off };
    config.cookie_answers = Meters::new(answers, MACHINE, [30, 31]).unwrap().packets;
    let mut model = model(&config);
    let syn = |host: u8, subnet: u8| V4::from([12, 0, subnet, host]).frame(TCP, &to(443, tcp(SYN)));
    let reasons: Vec<_> = (0..200).map(|host| model.reason(&syn(host, 1))).collect();
    let answered = reasons.iter().filter(|reason| **reason == Reason::SynCookie).count();
    assert!((50..=63).contains(&answered), "{answered} of a burst of 50, and what the gate has let pass");
    assert_eq!(reasons[199], Reason::SynAckLimit);
    assert_eq!(
        model.reason(&syn(1, 2)),
        Reason::SynCookie,
        "another subnet; and no cap is asked of what never arrives"
    );
}

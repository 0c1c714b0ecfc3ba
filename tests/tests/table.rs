//! The packet table on the loaded filter: every frame of the parser's table and every cut of some, in both programs and
//! both modes; and every reason that the decision adds. For each packet its verdict, the one counter that it changed,
//! and that no other changed.

use std::collections::BTreeSet;
use std::net::{Ipv4Addr, Ipv6Addr};

use anyhow::{Context as _, Result};
use floodwall_common::class::{Class, Family, Kind};
use floodwall_common::clock::Moment;
use floodwall_common::config::Mode;
use floodwall_common::limits::{LimitName, MAX_PACKETS_PER_SECOND, Rate};
use floodwall_common::lists::List;
use floodwall_common::packet::{Frame, Parsed, parse};
use floodwall_common::reason::{Reason, Verdict};
use floodwall_common::signatures::{Action, Shape};
use floodwall_tests::frames::{classes_v4, classes_v6, udp_v4, udp_v6};
use floodwall_tests::kernel::{Kernel, Time, Variant, listed, one, pin_to_cpu, signature};
use support::cases::{self, Case};

#[path = "../../common/tests/support/mod.rs"]
mod support;

const SECOND: u64 = 1_000_000_000;
const NOON: u64 = 12 * 3_600 * SECOND;
/// What the kernel takes in a test run: no frame without a whole Ethernet header, and one page of linear data.
const SHORTEST: usize = 14;
const LONGEST_LINEAR: usize = 3_000;

/// What drops where nobody has chosen otherwise, spelled out.
const DROPS: [Reason; 13] = [
    Reason::AllowedLimit,
    Reason::Denied,
    Reason::ExtensionDepth,
    Reason::MalformedIp,
    Reason::MalformedTcp,
    Reason::MalformedUdp,
    Reason::MalformedIcmp,
    Reason::ImpossibleFlags,
    Reason::Land,
    Reason::PacketLimit,
    Reason::ByteLimit,
    Reason::ClassBlocked,
    Reason::Signature,
];

fn carried_out(reason: Reason, mode: Mode) -> Verdict {
    if mode == Mode::Enforce && DROPS.contains(&reason) { Verdict::Drop } else { Verdict::Pass }
}

fn of(parsed: Parsed) -> (Kind, Reason) {
    match parsed {
        Parsed::Settled(reason, kind) => (kind, reason),
        Parsed::Packet(packet) => (packet.kind, packet.finding),
    }
}

fn runs(variant: Variant, frame: &[u8]) -> bool {
    frame.len() >= SHORTEST && (variant == Variant::Frags || frame.len() <= LONGEST_LINEAR)
}

/// The filter in the test's time, and what it has to have counted.
struct Bench {
    kernel: Kernel,
    mode: Mode,
    now: u64,
    sent: u64,
}

impl Bench {
    /// On one CPU: each has a gate of its own.
    fn new() -> Result<Self> {
        pin_to_cpu(0)?;
        let mut bench = Self { kernel: Kernel::load(Time::Test)?, mode: Mode::Monitor, now: NOON, sent: 0 };
        bench.set_mode(Mode::Enforce)?;
        bench.wait(0)?;
        Ok(bench)
    }

    fn set_mode(&mut self, mode: Mode) -> Result<()> {
        self.kernel.dataplane.set_mode(mode)?;
        self.mode = mode;
        Ok(())
    }

    fn wait(&mut self, ns: u64) -> Result<()> {
        self.now += ns;
        self.kernel.set_time(self.now)
    }

    fn list(&mut self, list: List, prefixes: &[(&str, Option<Moment>)]) -> Result<()> {
        let entries: Result<Vec<_>> = prefixes.iter().map(|(prefix, until)| listed(prefix, *until)).collect();
        self.kernel.replace_list(list, &entries?)?;
        Ok(())
    }

    /// Sends a frame; says what is wrong with its verdict or with what was counted, if anything.
    fn wrong(&mut self, variant: Variant, frame: &[u8], kind: Kind, reason: Reason) -> Result<Option<String>> {
        let before = self.kernel.counted();
        let found = self.kernel.judge(variant, frame)?;
        let after = self.kernel.counted();
        self.sent += 1;
        let verdict = carried_out(reason, self.mode);
        let (changed, expected) = (after.since(&before), one(verdict, kind, reason, frame.len()));
        let is_right = found == verdict && changed == expected && after.packets() == self.sent;
        Ok((!is_right).then(|| format!("{found:?} and {changed:?}, but expected {expected:?}; {} sent", self.sent)))
    }

    /// Sends a frame to the linear program.
    #[track_caller]
    fn expect(&mut self, frame: &[u8], class: Class, reason: Reason) -> Result<()> {
        let kind = kind_of(frame, class);
        let wrong = self.wrong(Variant::Linear, frame, kind, reason)?;
        assert_eq!(wrong, None, "{kind:?}");
        Ok(())
    }

    /// Sends a frame until it is no longer passed, and says how many were.
    fn passed_until(&mut self, frame: &[u8], class: Class, passes: Reason, then: Reason) -> Result<u64> {
        let (mut passed, before) = (0, self.kernel.counted());
        while self.kernel.judge(Variant::Linear, frame)? == Verdict::Pass {
            passed += 1;
            assert!(passed < 100_000, "nothing stops it");
        }
        let changed = self.kernel.counted().since(&before);
        self.sent += passed + 1;
        let cells: BTreeSet<_> = changed.iter().map(|cell| (cell.verdict, cell.reason, cell.packets)).collect();
        let expected = BTreeSet::from([(Verdict::Pass, passes, passed), (Verdict::Drop, then, 1)]);
        assert_eq!(cells, expected, "{class:?}");
        Ok(passed)
    }
}

/// Both variants and both modes; each packet a second after the last, so that no limit is met.
fn judge_all(cases: &[Case]) -> Result<(usize, Vec<String>)> {
    let mut bench = Bench::new()?;
    let (mut packets, mut wrong) = (0, vec![]);
    for mode in [Mode::Enforce, Mode::Monitor] {
        bench.set_mode(mode)?;
        for variant in Variant::ALL {
            for case in cases.iter().filter(|case| runs(variant, &case.frame)) {
                bench.wait(SECOND)?;
                let (kind, reason) = of(case.expected);
                let found = bench.wrong(variant, &case.frame, kind, reason).context(case.name.clone())?;
                wrong.extend(found.map(|found| format!("{} ({variant:?}, {mode:?}): {found}", case.name)));
                packets += 1;
            }
        }
    }
    Ok((packets, wrong))
}

#[test]
fn every_frame_of_the_table_has_its_verdict_and_one_counter() -> Result<()> {
    let cases = cases::all();
    let seen: BTreeSet<Reason> = cases.iter().map(|case| of(case.expected).1).collect();
    let (packets, wrong) = judge_all(&cases)?;
    println!("{} frames, {} reasons, {packets} packets", cases.len(), seen.len());
    assert!(packets >= 4 * 80 && wrong.is_empty(), "{} wrong: {:#?}", wrong.len(), &wrong[..wrong.len().min(20)]);
    Ok(())
}

#[test]
fn every_cut_of_a_frame_is_judged_as_the_parser_says() -> Result<()> {
    let representative = [
        "flags 0b00000010",
        "10 words of options",
        "behind tags [88a8, 8100]",
        "eight kinds of length",
        "8 extensions",
        "discovery behind an option",
        "v6 first fragment of tcp",
        "first fragment of icmp",
        "packet too big",
        "mpls behind a tag",
        "later fragment with options",
    ];
    let mut cuts = vec![];
    for case in cases::all() {
        if representative.iter().any(|name| case.name.ends_with(name)) {
            cuts.extend((SHORTEST..case.frame.len()).map(|bytes| {
                let frame = case.frame[..bytes].to_vec();
                Case { name: format!("{} cut to {bytes}", case.name), expected: parse(Frame::new(&frame)), frame }
            }));
        }
    }
    let (packets, wrong) = judge_all(&cuts)?;
    println!("{} cuts, {packets} packets", cuts.len());
    assert!(cuts.len() > 800 && wrong.is_empty(), "{} wrong: {:#?}", wrong.len(), &wrong[..wrong.len().min(20)]);
    Ok(())
}

const V4_SOURCE: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 9);
const V6_SOURCE: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 7, 9, 0, 0, 0, 1);

/// One frame of every class and family.
fn all_classes() -> Vec<(Class, Vec<u8>)> {
    let class = |frames: [Vec<u8>; 6]| Class::ALL.iter().copied().zip(frames).collect::<Vec<_>>();
    [class(classes_v4(V4_SOURCE)), class(classes_v6(V6_SOURCE))].concat()
}

#[test]
fn each_class_has_its_packet_limit_and_only_its_own() -> Result<()> {
    let mut bench = Bench::new()?;
    for (place, name) in LimitName::ALL.iter().enumerate() {
        let burst = 20 + 10 * place as u64;
        bench.kernel.set_limit(*name, Rate::Limit { per_second: 50, burst }, Rate::Off)?;
    }
    for (class, frame) in all_classes() {
        let burst = 20 + 10 * class as u64;
        let passed = bench.passed_until(&frame, class, Reason::Passed, Reason::PacketLimit)?;
        assert!((burst - 1..=burst + 1).contains(&passed), "{class:?}: {passed} of a burst of {burst}");
        bench.expect(&frame, class, Reason::PacketLimit)?;
        bench.wait(SECOND / 10)?;
        let passed = bench.passed_until(&frame, class, Reason::Passed, Reason::PacketLimit)?;
        assert!((4..=6).contains(&passed), "{class:?}: {passed} in a tenth of a second at 50/s");
        bench.set_mode(Mode::Monitor)?;
        bench.expect(&frame, class, Reason::PacketLimit)?;
        bench.set_mode(Mode::Enforce)?;
    }
    assert_eq!(bench.kernel.counted().packets(), bench.sent);
    Ok(())
}

#[test]
fn bytes_are_limited_and_classes_blocked() -> Result<()> {
    let mut bench = Bench::new()?;
    let packets = Rate::Limit { per_second: 100_000, burst: 100_000 };
    let bytes = Rate::Limit { per_second: 200_000, burst: 100_000 };
    for name in LimitName::ALL {
        bench.kernel.set_limit(*name, packets, bytes)?;
    }
    for (class, frame) in all_classes() {
        let passed = bench.passed_until(&frame, class, Reason::Passed, Reason::ByteLimit)? * frame.len() as u64;
        assert!(passed.abs_diff(100_000) <= 2_000, "{class:?}: {passed} bytes at once");
        bench.set_mode(Mode::Monitor)?;
        bench.expect(&frame, class, Reason::ByteLimit)?;
        bench.set_mode(Mode::Enforce)?;
    }
    bench.wait(100 * SECOND)?;
    for (class, frame) in all_classes() {
        bench.kernel.set_limit(LimitName::of(class), Rate::Block, Rate::Off)?;
        bench.expect(&frame, class, Reason::ClassBlocked)?;
        bench.set_mode(Mode::Monitor)?;
        bench.expect(&frame, class, Reason::ClassBlocked)?;
        bench.set_mode(Mode::Enforce)?;
        bench.kernel.set_limit(LimitName::of(class), Rate::Off, Rate::Block)?;
        bench.expect(&frame, class, Reason::ClassBlocked)?;
        bench.kernel.set_limit(LimitName::of(class), Rate::Off, Rate::Off)?;
        bench.expect(&frame, class, Reason::Passed)?;
    }
    Ok(())
}

#[test]
fn lists_are_asked_before_all_else_and_entries_expire() -> Result<()> {
    let mut bench = Bench::new()?;
    // What has expired by the kernel's own clock is not put on a list: the test's clock goes with it.
    bench.now = bench.kernel.dataplane.clock()?.now().ns() + 100 * SECOND;
    bench.wait(0)?;
    let until = Some(Moment::from_ns(bench.now + 10 * SECOND));
    bench.list(List::Deny, &[("198.51.100.0/24", until), ("2001:db8:7::/48", until), ("203.0.113.7/32", None)])?;
    bench.list(List::Allow, &[("203.0.113.7/32", None)])?;
    for (class, frame) in all_classes() {
        bench.expect(&frame, class, Reason::Denied)?;
        bench.set_mode(Mode::Monitor)?;
        bench.expect(&frame, class, Reason::Denied)?;
        bench.set_mode(Mode::Enforce)?;
    }
    let allowed = udp_v4(Ipv4Addr::new(203, 0, 113, 7), 4);
    bench.expect(&allowed, Class::Udp, Reason::Allowed)?;
    for case in cases::all() {
        // From the allowed source, whatever is wrong with it.
        if let Parsed::Packet(packet) = case.expected
            && packet.kind.parts().is_some_and(|(family, _)| family == Family::V4)
            && packet.source.key() == u64::from(u32::from_be_bytes([203, 0, 113, 7]))
            && runs(Variant::Linear, &case.frame)
        {
            let wrong = bench.wrong(Variant::Linear, &case.frame, packet.kind, Reason::Allowed)?;
            assert_eq!(wrong, None, "{}", case.name);
        }
    }
    bench.wait(10 * SECOND - 1)?;
    bench.expect(&udp_v4(V4_SOURCE, 4), Class::Udp, Reason::Denied)?;
    bench.wait(1)?;
    for (class, frame) in all_classes() {
        bench.expect(&frame, class, Reason::Passed)?;
    }
    Ok(())
}

#[test]
fn signatures_drop_or_count_until_they_end_and_yield_to_the_allow_list() -> Result<()> {
    let mut bench = Bench::new()?;
    // Ended entries are not put on a list: the test's clock goes with the kernel's.
    bench.now = bench.kernel.dataplane.clock()?.now().ns() + 100 * SECOND;
    bench.wait(0)?;
    let until = Some(Moment::from_ns(bench.now + 10 * SECOND));
    let hops = |hops| Shape { hops: floodwall_common::signatures::Range { first: hops, last: hops }, ..Shape::ANY };
    // Every frame of the table of classes has 64 hops left.
    let counting = signature("counting", hops(64), Action::Count, None);
    let others = signature("others", hops(63), Action::Drop, None);
    let dropping = signature("dropping", hops(64), Action::Drop, until);
    bench.kernel.replace_signatures(&[counting.clone(), others.clone()])?;
    for (class, frame) in all_classes() {
        bench.expect(&frame, class, Reason::Passed)?;
    }
    let counted = bench.kernel.dataplane.signatures()?;
    let bytes = all_classes().iter().map(|(_, frame)| frame.len() as u64).sum();
    assert_eq!(counted.iter().map(|one| (one.hits.packets, one.hits.bytes)).collect::<Vec<_>>(), [(12, bytes), (0, 0)]);
    bench.kernel.replace_signatures(&[counted[0].clone(), others, dropping])?;
    for (class, frame) in all_classes() {
        bench.expect(&frame, class, Reason::Signature)?;
        let wrong = bench.wrong(Variant::Frags, &frame, kind_of(&frame, class), Reason::Signature)?;
        assert_eq!(wrong, None, "{class:?}");
        bench.set_mode(Mode::Monitor)?;
        bench.expect(&frame, class, Reason::Signature)?;
        bench.set_mode(Mode::Enforce)?;
    }
    let hits = |bench: &Bench| -> Result<Vec<(String, u64)>> {
        Ok(bench.kernel.dataplane.signatures()?.into_iter().map(|one| (one.name, one.hits.packets)).collect())
    };
    let named = |counting, dropping| {
        [("counting", counting), ("others", 0), ("dropping", dropping)].map(|(name, hits)| (name.to_owned(), hits))
    };
    assert_eq!(hits(&bench)?, named(12 + 36, 36), "hits of what stays go on");
    bench.list(List::Deny, &[("198.51.100.9/32", None)])?;
    bench.expect(&udp_v4(V4_SOURCE, 4), Class::Udp, Reason::Denied)?;
    bench.list(List::Allow, &[("198.51.100.9/32", None)])?;
    bench.expect(&udp_v4(V4_SOURCE, 4), Class::Udp, Reason::Allowed)?;
    assert_eq!(hits(&bench)?, named(48, 36), "lists come first");
    bench.wait(10 * SECOND - 1)?;
    bench.expect(&udp_v6(V6_SOURCE, 4), Class::Udp, Reason::Signature)?;
    bench.wait(1)?;
    bench.expect(&udp_v6(V6_SOURCE, 4), Class::Udp, Reason::Passed)?;
    bench.kernel.replace_signatures(&[])?;
    bench.expect(&udp_v6(V6_SOURCE, 4), Class::Udp, Reason::Passed)?;
    assert_eq!(hits(&bench)?, []);
    Ok(())
}

fn kind_of(frame: &[u8], class: Class) -> Kind {
    Kind::new(if frame[12..14] == [0x08, 0x00] { Family::V4 } else { Family::V6 }, class)
}

#[test]
fn allowed_sources_have_one_limit_for_all_classes() -> Result<()> {
    let mut bench = Bench::new()?;
    bench.list(List::Allow, &[("198.51.100.0/24", None), ("2001:db8:7:9::/64", None)])?;
    bench.kernel.set_limit(LimitName::Allowed, Rate::Limit { per_second: 50, burst: 30 }, Rate::Off)?;
    for frames in [classes_v4(V4_SOURCE), classes_v6(V6_SOURCE)] {
        let passed = bench.passed_until(&frames[2], Class::Udp, Reason::Allowed, Reason::AllowedLimit)?;
        assert!((29..=31).contains(&passed), "{passed} of a burst of 30");
        for (class, frame) in Class::ALL.iter().zip(&frames) {
            bench.expect(frame, *class, Reason::AllowedLimit)?;
        }
        bench.set_mode(Mode::Monitor)?;
        bench.expect(&frames[0], Class::TcpSyn, Reason::AllowedLimit)?;
        bench.set_mode(Mode::Enforce)?;
    }
    bench.kernel.set_limit(LimitName::Allowed, Rate::Off, Rate::Limit { per_second: 200_000, burst: 100_000 })?;
    bench.wait(SECOND)?;
    let passed = bench.passed_until(&udp_v4(V4_SOURCE, 58), Class::Udp, Reason::Allowed, Reason::AllowedLimit)?;
    assert!((980..=1_020).contains(&passed), "{passed} frames of 100 bytes of a burst of 100,000");
    bench.kernel.set_limit(LimitName::Allowed, Rate::Block, Rate::Off)?;
    bench.expect(&udp_v6(V6_SOURCE, 4), Class::Udp, Reason::AllowedLimit)
}

#[test]
fn a_change_is_in_force_on_the_next_packet() -> Result<()> {
    let mut bench = Bench::new()?;
    let frames = [udp_v4(V4_SOURCE, 4), udp_v6(V6_SOURCE, 4)];
    let most = Rate::Limit { per_second: MAX_PACKETS_PER_SECOND, burst: MAX_PACKETS_PER_SECOND };
    let (one_a_second, everyone) = (Rate::Limit { per_second: 1, burst: 1 }, [("0.0.0.0/0", None), ("::/0", None)]);
    for frame in &frames {
        bench.wait(SECOND)?;
        bench.expect(frame, Class::Udp, Reason::Passed)?;
        bench.list(List::Deny, &everyone)?;
        bench.expect(frame, Class::Udp, Reason::Denied)?;
        bench.set_mode(Mode::Monitor)?;
        bench.expect(frame, Class::Udp, Reason::Denied)?;
        bench.list(List::Allow, &everyone)?;
        bench.expect(frame, Class::Udp, Reason::Allowed)?;
        bench.set_mode(Mode::Enforce)?;
        bench.list(List::Allow, &[])?;
        bench.expect(frame, Class::Udp, Reason::Denied)?;
        bench.list(List::Deny, &[])?;
        bench.expect(frame, Class::Udp, Reason::Passed)?;
        bench.kernel.set_limit(LimitName::Udp, Rate::Block, Rate::Off)?;
        bench.expect(frame, Class::Udp, Reason::ClassBlocked)?;
        bench.kernel.set_limit(LimitName::Udp, one_a_second, Rate::Off)?;
        bench.passed_until(frame, Class::Udp, Reason::Passed, Reason::PacketLimit)?;
        bench.kernel.set_limit(LimitName::Udp, Rate::Off, Rate::Off)?;
        bench.expect(frame, Class::Udp, Reason::Passed)?;
        bench.kernel.set_limit(LimitName::Udp, most, Rate::Off)?;
    }
    Ok(())
}

#[test]
fn what_the_operator_chooses_is_carried_out_on_the_next_packet() -> Result<()> {
    let mut bench = Bench::new()?;
    let from_loopback = udp_v4(Ipv4Addr::LOCALHOST, 4);
    let kind = Kind::new(Family::V4, Class::Udp);
    bench.expect(&from_loopback, Class::Udp, Reason::Martian)?;
    for (chosen, mode, carried_out) in [
        (Verdict::Drop, Mode::Enforce, Verdict::Drop),
        (Verdict::Drop, Mode::Monitor, Verdict::Pass),
        (Verdict::Pass, Mode::Enforce, Verdict::Pass),
    ] {
        assert!(bench.kernel.dataplane.set_policy(Reason::Martian, chosen)?);
        bench.set_mode(mode)?;
        let before = bench.kernel.counted();
        assert_eq!(bench.kernel.judge(Variant::Linear, &from_loopback)?, carried_out);
        let changed = bench.kernel.counted().since(&before);
        assert_eq!(changed, one(carried_out, kind, Reason::Martian, from_loopback.len()));
    }
    assert!(!bench.kernel.dataplane.set_policy(Reason::NeighborDiscovery, Verdict::Drop)?);
    Ok(())
}

#[test]
fn drops_on_trial_end_at_their_moment_whoever_is_there() -> Result<()> {
    let mut bench = Bench::new()?;
    let (denied, hot) = (udp_v4(Ipv4Addr::new(10, 0, 0, 7), 4), udp_v4(Ipv4Addr::new(10, 0, 0, 8), 4));
    bench.list(List::Deny, &[("10.0.0.7/32", None)])?;
    bench.kernel.set_limit(LimitName::Udp, Rate::Block, Rate::Off)?;
    let end = Moment::from_ns(bench.now + 60 * SECOND);
    bench.kernel.dataplane.try_enforcing(end)?;
    let expected = [(&denied, Reason::Denied), (&hot, Reason::ClassBlocked)];
    for (wait_ns, mode) in
        [(0, Mode::Enforce), (60 * SECOND - 1, Mode::Enforce), (1, Mode::Monitor), (SECOND, Mode::Monitor)]
    {
        bench.wait(wait_ns)?;
        bench.mode = mode;
        for (frame, reason) in expected {
            bench.expect(frame, Class::Udp, reason)?;
        }
    }
    // Of the fast path's one reason to drop too.
    bench.list(List::Deny, &[])?;
    bench.kernel.set_limit(LimitName::Udp, Rate::Limit { per_second: 1, burst: 1 }, Rate::Off)?;
    bench.kernel.dataplane.try_enforcing(Moment::from_ns(bench.now + 1))?;
    bench.passed_until(&hot, Class::Udp, Reason::Passed, Reason::PacketLimit)?;
    bench.wait(1)?;
    bench.mode = Mode::Monitor;
    bench.expect(&hot, Class::Udp, Reason::PacketLimit)?;
    bench.kernel.dataplane.confirm()?;
    bench.mode = Mode::Enforce;
    bench.expect(&hot, Class::Udp, Reason::PacketLimit)
}

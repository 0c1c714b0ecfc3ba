//! The self-test before a new filter is attached: a dozen built frames, judged by the program as this kernel has verified and
//! compiled it, and by [`floodwall_common::decide`]. Where the two differ, nothing is attached.
//!
//! It runs on maps of its own, which are gone afterwards: it counts nothing, charges nobody and samples nothing that lasts. What
//! it does not see is a driver that hands over other bytes than came in.

use std::os::fd::OwnedFd;
use std::time::SystemTime;

use anyhow::Context;
use floodwall_common::config::{Config, Mode};
use floodwall_common::limits::{LimitName, Limits, Rate};
use floodwall_common::lists::List;
use floodwall_common::packet::{Frame, Source};
use floodwall_common::reason::{Reason, Verdict};

use crate::dataplane::{Cell, Dataplane, Listed, PreparedLists, TestRun, test_run};
use crate::exit::{Exit, Failure};
use crate::replay::Tables;

/// A frame, and what it is.
struct Case {
    what: &'static str,
    frame: Vec<u8>,
}

const GOOD: [u8; 4] = [198, 51, 100, 7];
const DENIED: [u8; 4] = [203, 0, 113, 7];
/// Allowed, in a prefix that is denied.
const ALLOWED: [u8; 4] = [203, 0, 113, 8];
const HOST: [u8; 4] = [192, 0, 2, 1];

const TCP: u8 = 6;
const UDP: u8 = 17;
const SCTP: u8 = 132;
/// Packets of one source at once, where one a second may pass.
const FLOOD: u32 = 64;
const FIN: u8 = 0x01;
const SYN: u8 = 0x02;

fn cases() -> Vec<Case> {
    let mut short_header = ipv4(GOOD, UDP, &udp(20));
    short_header[14] = 0x44;
    let mut fragment = ipv4(GOOD, UDP, &udp(20));
    fragment[20..22].copy_from_slice(&100u16.to_be_bytes());
    let mut behind_tag = ipv4(GOOD, TCP, &tcp(SYN));
    behind_tag.splice(12..12, [0x81, 0, 0, 5]);
    let case = |what, frame| Case { what, frame };
    vec![
        case("ARP", ethernet(0x0806, &[0; 46])),
        case("UDP over IPv4", ipv4(GOOD, UDP, &udp(20))),
        case("UDP over IPv6", ipv6(UDP, &udp(20))),
        case("a SYN behind a VLAN tag", behind_tag),
        case("a later fragment", fragment),
        case("an IPv4 header of 16 bytes", short_header),
        case("a UDP length beyond the packet", ipv4(GOOD, UDP, &udp(21))),
        case("SYN and FIN together", ipv4(GOOD, TCP, &tcp(SYN | FIN))),
        case("a packet from its own destination", ipv4(HOST, UDP, &udp(20))),
        case("a denied source", ipv4(DENIED, UDP, &udp(20))),
        case("an allowed source in a denied prefix", ipv4(ALLOWED, UDP, &udp(20))),
        case("ICMP where its limit lets none pass", ipv4(GOOD, 1, &[8, 0, 0, 0, 0, 1, 0, 1])),
    ]
}

fn ethernet(kind: u16, payload: &[u8]) -> Vec<u8> {
    let addresses = [2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2];
    [&addresses, &kind.to_be_bytes()[..], payload].concat()
}

/// Checksums are the stack's: the filter reads none.
fn ipv4(source: [u8; 4], protocol: u8, payload: &[u8]) -> Vec<u8> {
    let length = (20 + payload.len() as u16).to_be_bytes();
    let header = [0x45, 0, length[0], length[1], 0, 1, 0, 0, 64, protocol, 0, 0];
    ethernet(0x0800, &[&header, &source[..], &HOST, payload].concat())
}

fn ipv6(protocol: u8, payload: &[u8]) -> Vec<u8> {
    let length = (payload.len() as u16).to_be_bytes();
    let address = |last| [0x20, 0x01, 0x0d, 0xb8, 0, 0, 0, last, 0, 0, 0, 0, 0, 0, 0, 1];
    let header = [0x60, 0, 0, 0, length[0], length[1], protocol, 64];
    ethernet(0x86dd, &[&header, &address(7)[..], &address(1), payload].concat())
}

/// 20 bytes that say they are so many.
fn udp(length: u16) -> Vec<u8> {
    let ports = [0x30, 0x39, 0x1f, 0x90];
    [&ports, &length.to_be_bytes()[..], &[0; 14]].concat()
}

fn tcp(flags: u8) -> Vec<u8> {
    vec![0x30, 0x39, 0, 80, 0, 0, 0, 1, 0, 0, 0, 0, 0x50, flags, 0x72, 0x10, 0, 0, 0, 0]
}

fn is_listed(list: List, source: Source) -> bool {
    let Source::V4(address) = source else { return false };
    match list {
        List::Allow => address == u32::from_be_bytes(ALLOWED),
        List::Deny => address & 0xffff_ff00 == u32::from_be_bytes(DENIED) & 0xffff_ff00,
        List::Groups => false,
    }
}

/// Tries the filter on maps beside these. Says how many frames it has judged.
///
/// # Errors
/// Where it judges one in another way than it should, or the kernel refuses: nothing is to be attached then.
pub(crate) fn run(dataplane: &Dataplane) -> anyhow::Result<usize> {
    let mut scratch = dataplane.scratch().context("self-test of the filter")?;
    let scratch = scratch.dataplane();
    prepare(scratch).context("self-test of the filter")?;
    let (config, cases, mut frames) = (scratch.config()?, cases(), 0);
    for (number, (variant, frags)) in [("linear frames", false), ("frames in fragments", true)].into_iter().enumerate()
    {
        let program = match scratch.load_for_test(frags, false) {
            // Before 5.18 the kernel has none: what cannot be loaded is not attached either, and that says why.
            Err(_) if frags => continue,
            loaded => loaded?,
        };
        let mut tables = Tables::new()?;
        tables.now = scratch.clock()?.now();
        for case in &cases {
            let expected = expected(&config, &mut tables, &case.frame);
            let (action, counted) = judged(scratch, &program, &case.frame, 1)?;
            if let Some(difference) = difference(&expected, action, &counted) {
                return Err(refusal(case.what, variant, &difference).into());
            }
        }
        // Of a source that nothing was seen of yet.
        let frame = ipv4([198, 51, 100, 100 + number as u8], SCTP, &[0; 24]);
        let (_, counted) = judged(scratch, &program, &frame, FLOOD)?;
        if let Some(difference) = limit_difference(&counted) {
            return Err(refusal("a flood of one source", variant, &difference).into());
        }
        frames += cases.len() + FLOOD as usize;
    }
    Ok(frames)
}

/// Enforcing, with an entry on each list, a limit that lets nothing pass, and one that lets one packet a second.
fn prepare(scratch: &mut Dataplane) -> anyhow::Result<()> {
    let none = Limits { packets: Rate::Block, bytes: Rate::Off };
    let one = Limits { packets: Rate::Limit { per_second: 1, burst: 1 }, bytes: Rate::Off };
    scratch.set_limits(&[(LimitName::Icmp.into(), none), (LimitName::Other.into(), one)], None)?;
    scratch.set_mode(Mode::Enforce)?;
    let entry = |address: [u8; 4], length| -> anyhow::Result<Listed> {
        let prefix = ipnet::Ipv4Net::new(address.into(), length)?.trunc().into();
        Ok(Listed { prefix, until: None, added: SystemTime::UNIX_EPOCH, note: String::new(), group: 0 })
    };
    let lists = PreparedLists::new([&[entry(ALLOWED, 32)?], &[entry(DENIED, 24)?], &[]])?;
    let generation = scratch.config()?.generation;
    scratch.install_lists(&lists, generation)?;
    Ok(())
}

/// The one place in the counters where the model puts a frame.
fn expected(config: &Config, tables: &mut Tables, frame: &[u8]) -> Cell {
    let (reason, kind) = tables.judge(config, Frame::new(frame), is_listed, false);
    Cell { verdict: reason.verdict(config.drops), kind, reason, packets: 1, bytes: frame.len() as u64 }
}

/// What the program does with a frame: its action, and what it has counted.
fn judged(scratch: &Dataplane, program: &OwnedFd, frame: &[u8], repeat: u32) -> anyhow::Result<(u32, Vec<Cell>)> {
    let before = scratch.counters(0);
    let run = TestRun { frame, repeat, live: None, ifindex: 0 };
    let action =
        test_run(program, run).context("the kernel does not run the filter on a frame of the self-test")?.verdict;
    Ok((action, counted(&before, scratch.counters(0))))
}

fn counted(before: &[Cell], after: Vec<Cell>) -> Vec<Cell> {
    let key = |cell: &Cell| (cell.verdict, cell.kind, cell.reason);
    let since = |cell: Cell| {
        let earlier = before.iter().find(|earlier| key(earlier) == key(&cell));
        let (packets, bytes) = earlier.map_or((0, 0), |earlier| (earlier.packets, earlier.bytes));
        Cell { packets: cell.packets.wrapping_sub(packets), bytes: cell.bytes.wrapping_sub(bytes), ..cell }
    };
    after.into_iter().map(since).filter(|cell| (cell.packets, cell.bytes) != (0, 0)).collect()
}

/// What is not as it should be, in words.
fn difference(expected: &Cell, action: u32, counted: &[Cell]) -> Option<String> {
    let wanted = match expected.verdict {
        Verdict::Drop => 1,
        Verdict::Pass => 2,
        Verdict::Answer => 3,
    };
    let words = |cell: &Cell| {
        let (reason, verdict) = (cell.reason.label(), cell.verdict.label());
        format!("{} packets of {} bytes as {reason}, {verdict}", cell.packets, cell.bytes)
    };
    if counted != std::slice::from_ref(expected) {
        let all: Vec<_> = counted.iter().map(words).collect();
        let all = if all.is_empty() { "nothing".to_owned() } else { all.join(" and ") };
        return Some(format!("counts {all} instead of {}", words(expected)));
    }
    (action != wanted)
        .then(|| format!("answers with action {action} instead of {wanted} ({})", expected.verdict.label()))
}

/// Whether a flood was held. Nearly all of it, as this thread may have gone to another CPU in the middle of it.
fn limit_difference(counted: &[Cell]) -> Option<String> {
    let all: u64 = counted.iter().map(|cell| cell.packets).sum();
    let is_over = |cell: &&Cell| (cell.reason, cell.verdict) == (Reason::PacketLimit, Verdict::Drop);
    let dropped: u64 = counted.iter().filter(is_over).map(|cell| cell.packets).sum();
    let is_held = all == u64::from(FLOOD) && (u64::from(FLOOD / 2)..all).contains(&dropped);
    (!is_held).then(|| format!("counts {all} of {FLOOD} packets, and drops {dropped} by a limit of one a second"))
}

fn refusal(what: &str, variant: &str, difference: &str) -> Failure {
    let text = format!("self-test: the filter for {variant} {difference}, of {what}. It was not attached");
    let hint = "this kernel runs the filter in another way than it was written for: take another kernel or build, and report \
                this line with `uname -a`; what is attached already goes on";
    Failure::new(Exit::Environment, text).hint(hint)
}

#[cfg(test)]
mod tests {
    use floodwall_common::class::Family;
    use floodwall_common::lists::ListState;
    use floodwall_common::meter::Machine;

    use super::*;

    fn expectations() -> Vec<(&'static str, Cell)> {
        let machine = Machine { cpus: 1, tick_ns: 1_000_000 };
        let mut config = crate::dataplane::first_config(machine).expect("a configuration");
        config.mode = Mode::Enforce as u32;
        config.lists = ListState::empty(0).with(List::Allow, Family::V4).with(List::Deny, Family::V4);
        let none = Limits { packets: Rate::Block, bytes: Rate::Off };
        crate::dataplane::apply(&mut config, LimitName::Icmp.into(), none, machine).expect("a limit");
        let mut tables = Tables::new().expect("tables");
        cases().into_iter().map(|case| (case.what, expected(&config, &mut tables, &case.frame))).collect()
    }

    #[test]
    fn the_frames_are_what_they_are_called() {
        let reasons: Vec<_> = expectations().into_iter().map(|(_, cell)| (cell.reason, cell.verdict)).collect();
        let expected = [
            (Reason::NotIp, Verdict::Pass),
            (Reason::Passed, Verdict::Pass),
            (Reason::Passed, Verdict::Pass),
            (Reason::BareSyn, Verdict::Pass),
            (Reason::Passed, Verdict::Pass),
            (Reason::MalformedIp, Verdict::Drop),
            (Reason::MalformedUdp, Verdict::Drop),
            (Reason::ImpossibleFlags, Verdict::Drop),
            (Reason::Land, Verdict::Drop),
            (Reason::Denied, Verdict::Drop),
            (Reason::Allowed, Verdict::Pass),
            (Reason::ClassBlocked, Verdict::Drop),
        ];
        assert_eq!(reasons, expected);
    }

    #[test]
    fn whatever_differs_is_told() {
        for (what, expected) in expectations() {
            let action = if expected.verdict == Verdict::Drop { 1 } else { 2 };
            let right = std::slice::from_ref(&expected);
            assert_eq!(difference(&expected, action, right), None, "{what}");
            let said = difference(&expected, 3 - action, right).expect("another action");
            assert!(said.contains(&format!("action {} instead of {action}", 3 - action)), "{said}");
            assert!(difference(&expected, action, &[]).is_some_and(|said| said.contains("counts nothing")), "{what}");
            for wrong in [
                Cell { reason: Reason::VlanDepth, ..expected },
                Cell { bytes: expected.bytes + 1, ..expected },
                Cell { packets: 2, ..expected },
            ] {
                let said = difference(&expected, action, &[wrong]).expect("another count");
                assert!(said.contains("instead of 1 packets"), "{said}");
            }
            let twice = [expected, Cell { reason: Reason::VlanDepth, ..expected }];
            assert!(difference(&expected, action, &twice).is_some(), "{what}");
        }
        let text = refusal("UDP over IPv4", "linear frames", "counts nothing").to_string();
        assert!(text.contains("UDP over IPv4") && text.contains("not attached") && text.contains("try: "), "{text}");
    }

    #[test]
    fn a_flood_has_to_be_held_and_its_first_packet_to_pass() {
        let (_, cell) = expectations().swap_remove(1);
        let cells = |passed, dropped| {
            let over = Cell { reason: Reason::PacketLimit, verdict: Verdict::Drop, packets: dropped, ..cell };
            limit_difference(&[Cell { packets: passed, ..cell }, over])
        };
        assert_eq!((cells(1, 63), cells(2, 62)), (None, None));
        for (passed, dropped) in [(64, 0), (40, 24), (0, 64), (1, 62)] {
            assert!(cells(passed, dropped).is_some_and(|said| said.contains(&format!("drops {dropped} "))), "{passed}");
        }
    }

    #[test]
    fn only_what_is_new_is_counted() {
        let (_, cell) = expectations().swap_remove(1);
        let before = [Cell { packets: 4, bytes: 400, ..cell }];
        let after = vec![Cell { packets: 5, bytes: 400 + cell.bytes, ..cell }];
        assert_eq!(counted(&before, after), [cell]);
        assert_eq!(counted(&before, before.to_vec()), []);
    }
}

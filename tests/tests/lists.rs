//! The lists on the loaded filter: what covers what, for how long, behind a prefilter that must hide nothing, and
//! replaced as a whole under traffic.

use std::net::{Ipv4Addr, Ipv6Addr};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Result, anyhow, ensure};
use floodwall::dataplane::Listed;
use floodwall_common::clock::Moment;
use floodwall_common::config::Mode;
use floodwall_common::limits::{LimitName, Rate};
use floodwall_common::lists::List;
use floodwall_common::reason::Reason;
use floodwall_tests::frames::{udp_v4, udp_v6};
use floodwall_tests::kernel::{Kernel, Time, Variant, listed, pin_to_cpu};
use floodwall_tests::pins::pin;
use floodwall_tests::stand::Stand;
use support::limiter::Random;

#[path = "../../common/tests/support/mod.rs"]
mod support;

const SECOND: u64 = 1_000_000_000;

fn enforcing(time: Time) -> Result<Kernel> {
    let mut kernel = Kernel::load(time)?;
    kernel.dataplane.set_mode(Mode::Enforce)?;
    Ok(kernel)
}

fn is_denied(kernel: &Kernel, frame: &[u8]) -> Result<bool> {
    let before = kernel.counted();
    let verdict = kernel.judge(Variant::Linear, frame)?;
    let changed = kernel.counted().since(&before);
    ensure!(changed.len() == 1 && changed[0].packets == 1 && changed[0].verdict == verdict, "{changed:?}");
    Ok(changed[0].reason == Reason::Denied)
}

fn v4(address: [u8; 4]) -> Vec<u8> {
    udp_v4(address.into(), 4)
}

#[test]
fn an_expired_entry_inside_a_live_wider_one_is_still_listed() -> Result<()> {
    let mut kernel = enforcing(Time::Test)?;
    let now = kernel.dataplane.clock()?.now().ns() + 1_000 * SECOND;
    let at = |seconds: u64| Some(Moment::from_ns(now + seconds * SECOND));
    let entries = [
        listed("10.0.0.0/8", None)?,
        listed("10.1.0.0/16", at(10))?,
        listed("10.1.2.3/32", at(5))?,
        listed("20.0.0.0/8", at(5))?,
        listed("20.1.0.0/16", at(10))?,
        listed("2001:db8::/32", at(20))?,
        listed("2001:db8:1::/48", at(10))?,
    ];
    kernel.replace_list(List::Deny, &entries)?;
    let in_v6 = udp_v6(Ipv6Addr::new(0x2001, 0xdb8, 1, 0, 0, 0, 0, 9), 4);
    // The moment, and what is listed then.
    let expected = [(0, true, true, true), (5, true, true, true), (10, true, false, true), (20, true, false, false)];
    for (seconds, in_10, in_20, v6) in expected {
        kernel.set_time(now + seconds * SECOND)?;
        assert_eq!(is_denied(&kernel, &v4([10, 1, 2, 3]))?, in_10, "10.1.2.3 after {seconds} s");
        assert_eq!(is_denied(&kernel, &v4([20, 1, 2, 3]))?, in_20, "20.1.2.3 after {seconds} s");
        assert_eq!(is_denied(&kernel, &v4([20, 2, 2, 3]))?, seconds < 5, "20.2.2.3 after {seconds} s");
        assert_eq!(is_denied(&kernel, &in_v6)?, v6, "2001:db8:1::9 after {seconds} s");
    }
    Ok(())
}

/// A prefix as 128 bits, IPv4 in the upper 32.
#[derive(Clone, Copy, Debug)]
struct Prefix {
    is_v4: bool,
    bits: u128,
    length: u32,
}

impl Prefix {
    fn random(random: &mut Random, is_v4: bool, shortest: u32) -> Self {
        let width = if is_v4 { 32 } else { 128 };
        let length = shortest + random.below(u64::from(width - shortest) + 1) as u32;
        let bits = u128::from(random.next()) << 64 | u128::from(random.next());
        Self { is_v4, bits: bits & Self::mask(length), length }
    }

    const fn mask(length: u32) -> u128 {
        if length == 0 { 0 } else { u128::MAX << (128 - length) }
    }

    const fn covers(&self, is_v4: bool, bits: u128) -> bool {
        self.is_v4 == is_v4 && (self.bits ^ bits) & Self::mask(self.length) == 0
    }

    fn listed(&self) -> Result<Listed> {
        match self.is_v4 {
            true => listed(&format!("{}/{}", Ipv4Addr::from_bits((self.bits >> 96) as u32), self.length), None),
            false => listed(&format!("{}/{}", Ipv6Addr::from_bits(self.bits), self.length), None),
        }
    }

    /// Its first and last address, those just outside, and one inside.
    fn addresses(&self, random: &mut Random) -> [u128; 5] {
        let last = self.bits | !Self::mask(self.length);
        let step = if self.is_v4 { 1 << 96 } else { 1 };
        let inside =
            self.bits | (u128::from(random.next()) << 64 | u128::from(random.next())) & !Self::mask(self.length);
        [self.bits, last, self.bits.wrapping_sub(step), last.wrapping_add(step), inside]
    }
}

#[test]
fn the_prefilter_hides_no_entry() -> Result<()> {
    let mut random = Random(0x0f1e_2d3c);
    let mut kernel = enforcing(Time::Ticks)?;
    let (mut asked, mut denied) = (0, 0);
    // Short prefixes would cover everything: they come in rounds of their own, with few entries.
    for (entries, shortest) in [(2, 0), (3, 1), (5, 3), (40, 8), (200, 12), (300, 16), (300, 24), (100, 32)] {
        let prefixes: Vec<_> = (0..entries)
            .map(|place| {
                let is_v4 = place % 2 == 0;
                Prefix::random(&mut random, is_v4, shortest)
            })
            .collect();
        let list: Result<Vec<_>> = prefixes.iter().map(Prefix::listed).collect();
        kernel.replace_list(List::Deny, &list?)?;
        for near in &prefixes {
            for bits in near.addresses(&mut random) {
                let bits = if near.is_v4 { bits >> 96 << 96 } else { bits };
                let frame = match near.is_v4 {
                    true => udp_v4(Ipv4Addr::from_bits((bits >> 96) as u32), 4),
                    false => udp_v6(Ipv6Addr::from_bits(bits), 4),
                };
                let expected = prefixes.iter().any(|prefix| prefix.covers(near.is_v4, bits));
                assert_eq!(is_denied(&kernel, &frame)?, expected, "{bits:032x} near {near:?}");
                asked += 1;
                denied += u32::from(expected);
            }
        }
    }
    println!("{asked} addresses, {denied} denied");
    assert!(denied > asked / 3 && denied < asked * 9 / 10, "{denied} of {asked} say little");
    Ok(())
}

/// The sources go from one list to the other and back: whoever sees half of a change finds them on neither, and passes.
#[test]
fn lists_are_replaced_as_a_whole_under_traffic() -> Result<()> {
    const CHANGES: u32 = 60;
    // Several milliseconds: before a repeated run the kernel waits for as long.
    const BATCH: u32 = 50_000;
    let mut kernel = enforcing(Time::Ticks)?;
    kernel.set_limit(LimitName::Allowed, Rate::Off, Rate::Off)?;
    let entries = [listed("198.51.100.0/24", None)?, listed("2001:db8:0:7::/64", None)?];
    let sources = [udp_v4([198, 51, 100, 7].into(), 4), udp_v6(Ipv6Addr::new(0x2001, 0xdb8, 0, 7, 0, 0, 0, 1), 4)];
    kernel.replace_lists(&[], &entries)?;
    // The programs are used while the dataplane is changed: by a second descriptor of the first program.
    let program = kernel.program(Variant::Linear).try_clone()?;
    let stop = AtomicBool::new(false);
    let deadline = Instant::now() + Duration::from_secs(60);
    let (sent, changes) = thread::scope(|scope| {
        let sender = scope.spawn(|| -> Result<u64> {
            pin_to_cpu(1)?;
            let mut sent = 0;
            while !stop.load(Ordering::Relaxed) {
                for frame in &sources {
                    let run = floodwall::dataplane::TestRun { frame, repeat: BATCH, live: None, ifindex: 0 };
                    floodwall::dataplane::test_run(&program, run)?;
                    sent += u64::from(BATCH);
                }
            }
            Ok(sent)
        });
        let changes = (|| -> Result<u32> {
            pin_to_cpu(0)?;
            for change in 0..CHANGES {
                let (allow, deny) = if change % 2 == 0 { (&entries[..], &[][..]) } else { (&[][..], &entries[..]) };
                kernel.replace_lists(allow, deny)?;
                ensure!(Instant::now() < deadline, "{change} changes took a minute");
            }
            Ok(CHANGES)
        })();
        stop.store(true, Ordering::Relaxed);
        let sent = sender.join().map_err(|_| anyhow!("the sender failed"));
        anyhow::Ok((sent??, changes?))
    })?;
    let counted = kernel.counted();
    println!("{sent} packets during {changes} changes");
    // An emulator sends some 400,000 meanwhile, a machine many millions.
    assert!(sent > 2 * u64::from(BATCH), "{sent} packets");
    let (allowed, denied) = (counted.of(Reason::Allowed), counted.of(Reason::Denied));
    assert_eq!((allowed + denied, counted.packets()), (sent, sent), "{:?}", counted.cells());
    assert!(allowed > 0 && denied > 0, "{allowed} allowed, {denied} denied");
    Ok(())
}

/// As another build of this layout leaves them, which pins no tries, and one that was killed between two steps.
#[test]
fn a_trie_is_the_one_that_is_in_the_lists_whatever_is_pinned() -> Result<()> {
    let stand = Stand::new();
    let daemon = stand.run(&[]);
    stand.verb("deny add 192.0.2.1");
    stand.verb("deny add 192.0.2.2");
    daemon.stop()?;
    let are_listed = || {
        let listed = stand.verb("deny list");
        listed.contains("192.0.2.1/32") && listed.contains("192.0.2.2/32")
    };
    // One for each bank: the lists of now, and those of before the second change.
    let pins = [0, 2].map(|bank| pin(&stand.place, &format!("LISTS_V4-{}", bank + List::Deny as usize)));
    ensure!(pins.iter().all(|pin| pin.exists()) && are_listed(), "{pins:?}");
    let aside = pin(&stand.place, "aside");
    for (from, to) in [(&pins[0], &aside), (&pins[1], &pins[0]), (&aside, &pins[1])] {
        std::fs::rename(from, to)?;
    }
    ensure!(are_listed(), "each has the other's place");
    pins.iter().try_for_each(std::fs::remove_file)?;
    ensure!(are_listed(), "none is pinned");
    Ok(())
}

//! One source on two CPUs at once: what the race between them lets pass, and that no packet is lost from the counters.

use std::sync::Barrier;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Result, anyhow};
use floodwall_common::config::Mode;
use floodwall_common::limits::{LimitName, Rate};
use floodwall_common::reason::{Reason, Verdict};
use floodwall_tests::frames::{udp_v4, udp_v6};
use floodwall_tests::kernel::{Kernel, Time, pin_to_cpu};

const CPUS: usize = 2;
/// Several milliseconds: before a repeated run the kernel waits for as long, and the runs have to overlap.
const BATCH: u32 = 200_000;
const AT_LEAST: Duration = Duration::from_millis(2_100);

/// Sends the frame on both CPUs for a while; says how much was sent and how long that took.
fn send_on_both(kernel: &Kernel, frame: &[u8]) -> Result<(u64, Duration)> {
    let start = Barrier::new(CPUS);
    let begun = Instant::now();
    let sender = |cpu| -> Result<u64> {
        let pinned = pin_to_cpu(cpu);
        start.wait();
        pinned?;
        let mut sent = 0;
        while begun.elapsed() < AT_LEAST {
            let _: Verdict = kernel.repeat(frame, BATCH)?;
            sent += u64::from(BATCH);
        }
        Ok(sent)
    };
    let sent = thread::scope(|scope| {
        let senders: Vec<_> = (0..CPUS).map(|cpu| scope.spawn(move || sender(cpu))).collect();
        let sent: Vec<_> = senders.into_iter().map(|sender| sender.join().map_err(|_| anyhow!("a sender"))?).collect();
        sent.into_iter().sum::<Result<u64>>()
    })?;
    Ok((sent, begun.elapsed()))
}

/// What a source on both CPUs passes, as a share of what it may; never more than that, and no packet is missing from the counters.
fn share_passed(kernel: &Kernel, frame: &[u8], per_second: u64, burst: u64) -> Result<f64> {
    let before = kernel.counted();
    let (sent, took) = send_on_both(kernel, frame)?;
    let changed = kernel.counted().since(&before);
    let counted = |reason, verdict| {
        changed.iter().filter(|cell| (cell.reason, cell.verdict) == (reason, verdict)).map(|cell| cell.packets).sum()
    };
    let (passed, dropped): (u64, u64) =
        (counted(Reason::Passed, Verdict::Pass), counted(Reason::PacketLimit, Verdict::Drop));
    let limit = per_second as f64 * took.as_secs_f64() + burst as f64;
    let share = passed as f64 / limit;
    println!("{per_second}/s, burst {burst}: {passed} of {sent} passed in {took:?}, {share:.4} of the limit");
    assert_eq!(passed + dropped, sent, "{changed:?}");
    assert_eq!(kernel.counted().packets() - before.packets(), sent);
    assert!(sent as f64 > 3.0 * limit, "too few packets to be a race: {sent}");
    assert!(share <= 1.03, "{passed} passed, and the limit is {limit:.0}");
    Ok(share)
}

/// Runs of which one has to come near the limit: a machine that stands still at the end of one has passed nothing meanwhile.
const RUNS: u16 = 3;

#[test]
fn two_cpus_together_keep_the_limit_of_a_source() -> Result<()> {
    let mut kernel = Kernel::load(Time::Ticks)?;
    kernel.dataplane.set_mode(Mode::Enforce)?;
    // Bursts of a second and a half: a machine that stands still for less than that has lost nothing of what it may pass.
    for (place, (per_second, burst)) in [(1_000, 1_500), (5_000, 7_500), (100_000, 150_000)].into_iter().enumerate() {
        kernel.set_limit(LimitName::Udp, Rate::Limit { per_second, burst }, Rate::Off)?;
        let mut shares = Vec::new();
        while !shares.iter().any(|share| *share >= 0.95) {
            assert!(shares.len() < usize::from(RUNS), "{shares:?} of the limit");
            // A source of its own, which owes nothing yet.
            let subject = 10 + place as u16 * RUNS + shares.len() as u16;
            let frame = match place % 2 {
                0 => udp_v4([198, 51, 100, subject as u8].into(), 12),
                _ => udp_v6([0x2001, 0xdb8, 0, subject, 0, 0, 0, 1].into(), 12),
            };
            shares.push(share_passed(&kernel, &frame, per_second, burst)?);
        }
    }
    Ok(())
}

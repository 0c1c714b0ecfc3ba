//! Samples of the loaded filter: that the record says what the packet was, that a budget is kept and nothing is
//! forgotten in the weights, and that a full ring is counted.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use floodwall::dataplane::monotonic_ns;
use floodwall_common::abi::{SAMPLE_BYTES, SAMPLE_RING_BYTES, Sample, Stream};
use floodwall_common::class::{Class, Family, Kind};
use floodwall_common::config::{Mode, Sampling};
use floodwall_common::limits::{LimitName, Rate};
use floodwall_common::lists::List;
use floodwall_common::reason::{Reason, Verdict};
use floodwall_tests::frames::{classes_v4, classes_v6, udp_v4, udp_v6};
use floodwall_tests::kernel::{Kernel, Time, Variant, listed, pin_to_cpu};

const CPU: usize = 1;
const PASSES: u8 = Stream::Pass as u8;
const DROPS: u8 = Stream::Drop as u8;
const V4_UDP: Kind = Kind::new(Family::V4, Class::Udp);

/// On one CPU, as budgets and weights are kept by CPU; everything is sampled, up to the budget.
fn sampling(every: u32, budget: u32) -> Result<Kernel> {
    pin_to_cpu(CPU)?;
    let mut kernel = Kernel::load(Time::Ticks)?;
    kernel.dataplane.set_mode(Mode::Enforce)?;
    kernel.replace_list(List::Deny, &[listed("198.51.100.0/24", None)?])?;
    kernel.dataplane.set_sampling(Sampling::new([every; 3], budget))?;
    kernel.set_limit(LimitName::Udp, Rate::Off, Rate::Off)?;
    Ok(kernel)
}

fn passing(bytes: usize) -> Vec<u8> {
    udp_v4([203, 0, 113, 7].into(), bytes)
}

fn dropping() -> Vec<u8> {
    udp_v4([198, 51, 100, 7].into(), 4)
}

#[test]
fn a_sample_says_what_the_packet_was() -> Result<()> {
    let mut kernel = sampling(1, 1_000_000)?;
    let mut ring = kernel.ring()?;
    // Every length of head, and one frame in several pieces.
    for data in (0..200).chain([1_000, 8_000]) {
        let variant = if data > 200 || data % 2 == 0 { Variant::Frags } else { Variant::Linear };
        let frames = [
            (passing(data), Reason::Passed, V4_UDP),
            (dropping(), Reason::Denied, V4_UDP),
            (
                udp_v6([0x2001, 0xdb8, 0, data as u16, 0, 0, 0, 1].into(), data),
                Reason::Passed,
                Kind::new(Family::V6, Class::Udp),
            ),
        ];
        for (frame, reason, kind) in &frames {
            let begun = monotonic_ns();
            let verdict = kernel.judge(variant, frame)?;
            let samples = ring.drain()?;
            let [sample] = samples.as_slice() else { anyhow::bail!("{} samples of one packet", samples.len()) };
            let head = frame.len().min(SAMPLE_BYTES);
            assert_eq!(usize::from(sample.head_bytes), head, "{} bytes", frame.len());
            assert_eq!(sample.head[..head], frame[..head]);
            assert_eq!((sample.frame_bytes as usize, sample.weight), (frame.len(), 1));
            assert_eq!((sample.reason, sample.kind), (*reason as u8, kind.index()));
            assert_eq!((sample.verdict, sample.stream), (verdict as u8, u8::from(*reason == Reason::Denied)));
            assert_eq!((usize::from(sample.cpu), sample.slot), (CPU, 0));
            assert!((begun..=monotonic_ns()).contains(&sample.monotonic_ns));
        }
    }
    kernel.dataplane.set_mode(Mode::Monitor)?;
    assert_eq!(kernel.judge(Variant::Linear, &dropping())?, Verdict::Pass);
    let samples = ring.drain()?;
    let seen: Vec<_> = samples.iter().map(|sample| (sample.verdict, sample.stream)).collect();
    assert_eq!(seen, [(Verdict::Pass as u8, DROPS)], "a drop that monitor mode lets pass");
    assert_eq!(kernel.dataplane.sample_counts().lost, [0; 3]);
    Ok(())
}

#[test]
fn syns_that_pass_have_a_stream_of_their_own() -> Result<()> {
    let kernel = sampling(1, 2)?;
    let mut ring = kernel.ring()?;
    // Of others the budget is used up at once.
    let _: Verdict = kernel.repeat(&passing(4), 1_000)?;
    let others = ring.drain()?;
    ensure!(others.iter().all(|sample| sample.stream == PASSES) && !others.is_empty());
    for classes in [classes_v4([203, 0, 113, 7].into()), classes_v6([0x2001, 0xdb8, 0, 0, 0, 0, 0, 1].into())] {
        let _: Verdict = kernel.judge(Variant::Linear, &classes[0])?;
        let samples = ring.drain()?;
        let seen: Vec<_> = samples.iter().map(|sample| (sample.stream, sample.wanted, sample.weight)).collect();
        assert_eq!(seen, [(Stream::Open as u8, Verdict::Pass as u8, 1)]);
    }
    // One that drops is no different from others that do.
    let _: Verdict = kernel.judge(Variant::Linear, &classes_v4([198, 51, 100, 7].into())[0])?;
    let samples = ring.drain()?;
    assert_eq!(samples.iter().map(|sample| (sample.stream, sample.wanted)).collect::<Vec<_>>(), [(DROPS, DROPS)]);
    assert_eq!(kernel.dataplane.sample_counts().packets, [1_000, 1, 2], "what the budget refused is counted");
    Ok(())
}

#[test]
fn one_in_so_many_is_sampled_and_stands_for_as_many() -> Result<()> {
    const EVERY: u32 = 64;
    const PACKETS: u32 = 64_000;
    let kernel = sampling(EVERY, 1_000_000)?;
    let mut ring = kernel.ring()?;
    for frame in [passing(4), dropping()] {
        for _ in 0..PACKETS / 1_000 {
            let _: Verdict = kernel.repeat(&frame, 1_000)?;
        }
    }
    let samples = ring.drain()?;
    for stream in [PASSES, DROPS] {
        let of_stream = samples.iter().filter(|sample| sample.stream == stream);
        let weights: Vec<u32> = of_stream.map(|sample| sample.weight).collect();
        println!("stream {stream}: {} samples of {PACKETS} packets", weights.len());
        assert!(weights.iter().all(|weight| *weight == EVERY));
        assert!((weights.len() as u32).abs_diff(PACKETS / EVERY) <= PACKETS / EVERY / 50);
    }
    Ok(())
}

/// Sends until a sample comes, at most a few seconds.
fn next_sample(kernel: &Kernel, ring: &mut floodwall_tests::kernel::Ring, sent: &mut u64) -> Result<Vec<Sample>> {
    let deadline = Instant::now() + Duration::from_secs(10);
    loop {
        let _: Verdict = kernel.judge(Variant::Linear, &dropping())?;
        *sent += 1;
        let samples = ring.drain()?;
        if !samples.is_empty() {
            return Ok(samples);
        }
        ensure!(Instant::now() < deadline, "no sample in ten seconds");
    }
}

#[test]
fn the_budget_is_kept_by_stream_and_weights_make_up_for_it() -> Result<()> {
    const BUDGET: u32 = 50;
    let kernel = sampling(1, BUDGET)?;
    let mut ring = kernel.ring()?;
    let mut sent = 0;
    let mut samples = vec![];
    // As much as fits in a third of a second: one second of the sampler, or two.
    let begun = Instant::now();
    while begun.elapsed() < Duration::from_millis(300) {
        let _: Verdict = kernel.repeat(&dropping(), 100)?;
        sent += 100;
    }
    samples.extend(ring.drain()?);
    let first_second = samples.iter().filter(|sample| sample.monotonic_ns < samples[0].monotonic_ns + 1_000_000_000);
    assert_eq!(first_second.count(), BUDGET as usize, "of {sent} packets");
    let more = next_sample(&kernel, &mut ring, &mut sent)?;
    assert!(more[0].monotonic_ns >= samples[0].monotonic_ns + 1_000_000_000, "the next second");
    samples.extend(more);
    let weight: u64 = samples.iter().map(|sample| u64::from(sample.weight)).sum();
    assert_eq!(weight, sent, "every packet is in a weight");
    assert!(sent > 10_000, "{sent} packets are no flood");
    // The other stream has a budget of its own.
    let _: Verdict = kernel.judge(Variant::Linear, &passing(4))?;
    let passes = ring.drain()?;
    assert_eq!(passes.iter().map(|sample| (sample.stream, sample.weight)).collect::<Vec<_>>(), [(PASSES, 1)]);
    assert_eq!(kernel.dataplane.sample_counts().lost, [0; 3]);
    Ok(())
}

#[test]
fn what_the_ring_has_no_room_for_is_counted() -> Result<()> {
    // A header of eight bytes is before each.
    const RECORD: usize = 8 + size_of::<Sample>();
    const ROOM: usize = SAMPLE_RING_BYTES as usize / RECORD;
    const LOST: u32 = 1_000;
    let kernel = sampling(1, 1_000_000)?;
    let mut ring = kernel.ring()?;
    let mut sent = (ROOM as u64) + u64::from(LOST);
    let _: Verdict = kernel.repeat(&dropping(), sent as u32)?;
    let samples = ring.drain()?;
    let lost = kernel.dataplane.sample_counts().lost;
    println!("{} samples in the ring, {lost:?} lost of {sent}", samples.len());
    assert_eq!((samples.len() as u64 + lost[1], lost[0]), (sent, 0));
    assert!(samples.len().abs_diff(ROOM) <= 1, "{} of {ROOM}", samples.len());
    let next = next_sample(&kernel, &mut ring, &mut sent)?;
    assert_eq!(u64::from(next[0].weight), lost[1] + 1, "it stands for those that were lost");
    assert_eq!(kernel.counted().of(Reason::Denied), sent, "what is lost is counted all the same");
    Ok(())
}

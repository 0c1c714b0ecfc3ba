//! Random arrivals against the one promise: never more than `burst + rate · t`, and the slack that is stated here.

#![allow(clippy::unwrap_used, reason = "tests panic")]

use floodwall_common::meter::Meter;
use proptest::collection::vec;
use proptest::prelude::*;

use support::limiter::{MS, NOON, SECOND, Wall, packets, place};

mod support;

/// A pause and what is sent after it.
#[derive(Clone, Copy, Debug)]
struct Volley {
    ticks: u64,
    cpu: usize,
    packets: u64,
}

fn volleys(cpus: usize) -> impl Strategy<Value = Vec<Volley>> {
    let ticks = prop_oneof![3 => 0..4u64, 3 => 0..100u64, 1 => 0..1_500u64];
    let packets = prop_oneof![4 => 1..5u64, 2 => 1..200u64, 1 => 1..5_000u64];
    let volley = (ticks, 0..cpus, packets).prop_map(|(ticks, cpu, packets)| Volley { ticks, cpu, packets });
    vec(volley, 1..120)
}

/// What passes of each volley, with its time.
fn passed(meter: &Meter, cpus: usize, tick_ns: u64, volleys: &[Volley]) -> Vec<(u64, u64)> {
    let mut wall = Wall::new(cpus as u32, NOON);
    let mut passed = vec![];
    for volley in volleys {
        wall.now_ns += volley.ticks * tick_ns;
        passed.push((wall.now_ns, wall.volley(volley.cpu, place(7), meter, volley.packets)));
    }
    passed
}

/// The most that passed beyond what `rate` allows, over all spans of time that begin with a volley.
fn largest_excess(passed: &[(u64, u64)], rate: f64) -> f64 {
    let mut excess = 0f64;
    for (place, (began, _)) in passed.iter().enumerate() {
        let mut sum = 0;
        for (at, count) in &passed[place..] {
            sum += count;
            excess = excess.max(sum as f64 - (at - began) as f64 * rate / 1e9);
        }
    }
    excess
}

/// No burst is shorter than two ticks.
fn effective_burst(rate: u64, burst: u64, tick_ns: u64) -> f64 {
    (burst as f64).max(1.0 + 2.0 * (tick_ns * rate) as f64 / SECOND as f64)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1_500, failure_persistence: None, ..ProptestConfig::default() })]

    /// A source that does not pause for half a second, on one CPU: its cell stays pinned, and the table sees all of it. Two
    /// packets of slack for what the gate lets pass before it asks.
    #[test]
    fn without_pauses_one_cpu_never_passes_more_than_burst_and_rate(
        volleys in volleys(1),
        rate in prop::sample::select(vec![1u64, 10, 100, 1_000, 10_000, 100_000]),
        burst in 1..3_000u64,
        tick_ms in prop::sample::select(vec![1u64, 4, 10]),
    ) {
        let burst = burst.min(rate * 500);
        let meter = packets(rate, burst, 1, tick_ms * MS);
        let volleys: Vec<Volley> = volleys.into_iter().map(|v| Volley { ticks: v.ticks % (500 / tick_ms), ..v }).collect();
        let passed = passed(&meter, 1, tick_ms * MS, &volleys);
        // Costs are rounded to 16 ns: up to 0.1 % at these rates.
        let excess = largest_excess(&passed, rate as f64 * 1.001);
        prop_assert!(excess <= effective_burst(rate, burst, tick_ms * MS) + 2.0, "{excess} of {burst}");
    }

    /// Any source on any CPUs. What a gate lets pass below its share of the rate is never charged, so that a source which
    /// spreads itself unevenly, over CPUs or over time, has at most its rate by the gates, its rate by the table, a
    /// quarter of its burst more, and two packets for each gate.
    #[test]
    fn no_pattern_passes_twice_the_limit(
        volleys in volleys(8),
        cpus in prop::sample::select(vec![1usize, 2, 4, 8]),
        rate in prop::sample::select(vec![10u64, 100, 1_000, 10_000]),
        burst in 1..3_000u64,
    ) {
        let burst = burst.min(rate * 500);
        let meter = packets(rate, burst, cpus as u32, 4 * MS);
        let volleys: Vec<Volley> = volleys.into_iter().map(|v| Volley { cpu: v.cpu % cpus, ..v }).collect();
        let passed = passed(&meter, cpus, 4 * MS, &volleys);
        let excess = largest_excess(&passed, rate as f64 * 2.0);
        let burst = effective_burst(rate, burst, 4 * MS);
        prop_assert!(excess <= burst * 1.25 + 2.0 * cpus as f64, "{excess} of {burst}");
    }
}

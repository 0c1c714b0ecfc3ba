//! One source on several CPUs: spread over their gates, and racing for its entry in the table. Each test prints what
//! it measured.

#![allow(clippy::unwrap_used, reason = "tests panic")]

use std::sync::Barrier;
use std::thread;

use floodwall_common::clock::Moment;
use floodwall_common::limiter::Bucket;
use floodwall_common::meter::Meter;

use support::limiter::{MS, NOON, Random, SECOND, Wall, admit, gate, packets, place, table};

mod support;

const TICK_NS: u64 = 4 * MS;
const TICKS_PER_SECOND: u64 = SECOND / TICK_NS;

/// What passes of a source, in limits, when each CPU gets its share (in percent) of `load` times the limit.
fn passed_of(limit: u64, burst: u64, load: f64, shares: &[f64]) -> f64 {
    let cpus = shares.len();
    let meter = packets(limit, burst, cpus as u32, TICK_NS);
    let mut wall = Wall::new(cpus as u32, NOON);
    let mut due = vec![0.0; cpus];
    let (mut passed, seconds) = (0, 20);
    for tick in 0..(seconds + 2) * TICKS_PER_SECOND {
        wall.now_ns += TICK_NS;
        for cpu in 0..cpus {
            due[cpu] += limit as f64 * load * shares[cpu] / 100.0 / TICKS_PER_SECOND as f64;
            let count = due[cpu] as u64;
            due[cpu] -= count as f64;
            let of_tick = wall.volley(cpu, place(7), &meter, count);
            // The burst is spent in the first two seconds.
            passed += if tick < 2 * TICKS_PER_SECOND { 0 } else { of_tick };
        }
    }
    passed as f64 / (limit * seconds) as f64
}

/// The shares of eight CPUs when a source has so many flows, and a hash spreads them.
fn hashed(flows: u64, random: &mut Random) -> [f64; 8] {
    let mut shares = [0.0; 8];
    for _ in 0..flows {
        shares[random.below(8) as usize] += 100.0 / flows as f64;
    }
    shares
}

#[test]
fn a_source_whose_flows_are_hashed_to_eight_cpus_gets_one_limit() {
    let mut random = Random(8);
    for (flows, load) in [(1, 2.0), (2, 2.0), (256, 2.0), (1_000, 2.0), (64, 4.0), (64, 20.0)] {
        let ratios = [(); 40].map(|()| passed_of(1_000, 100, load, &hashed(flows, &mut random)));
        let (most, mean) = (ratios.iter().fold(0.0f64, |a, b| a.max(*b)), ratios.iter().sum::<f64>() / 40.0);
        println!("{flows} flows on 8 CPUs, {load} times the limit: {mean:.4}, at most {most:.4}");
        assert!(mean <= 1.06, "{flows} flows at {load}: {mean}");
    }
}

/// The worst that a source can do: each CPU but one gets just what its gate passes by itself.
#[test]
fn no_spread_over_eight_cpus_passes_twice_the_limit() {
    let spreads = [
        (2.0, [65.0, 5.0, 5.0, 5.0, 5.0, 5.0, 5.0, 5.0]),
        (2.0, [50.0, 20.0, 10.0, 10.0, 4.0, 3.0, 2.0, 1.0]),
        (2.0, [100.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0]),
        (2.0, [12.5; 8]),
        (4.0, [79.0, 3.0, 3.0, 3.0, 3.0, 3.0, 3.0, 3.0]),
    ];
    let mut random = Random(8);
    let hashed = [16, 32, 64, 64].map(|flows| (2.0, hashed(flows, &mut random)));
    for (load, shares) in spreads.into_iter().chain(hashed) {
        let ratio = passed_of(1_000, 100, load, &shares);
        println!("{load} times the limit in shares of {shares:.0?} %: {ratio:.4}");
        assert!((0.98..=2.0 - 1.0 / 8.0).contains(&ratio), "{shares:?}: {ratio}");
    }
}

/// Sends `per_tick` packets a tick from each of two threads, each with a gate of its own, and says what passed.
fn race(meter: &Meter, per_tick: u64, ticks: u64) -> u64 {
    let (table, barrier) = (table(), Barrier::new(2));
    thread::scope(|scope| {
        let racers = [0, 1].map(|_| scope.spawn(|| racer(&table, &barrier, meter, per_tick, ticks)));
        racers.map(|racer| racer.join().unwrap()).iter().sum()
    })
}

fn racer(table: &[Bucket], barrier: &Barrier, meter: &Meter, per_tick: u64, ticks: u64) -> u64 {
    let mut gate = gate();
    let mut passed = 0;
    for tick in 0..ticks {
        let now = Moment::from_ticks(NOON / TICK_NS + tick, TICK_NS);
        barrier.wait();
        let of_tick =
            (0..per_tick).filter(|_| admit(&mut gate, table, place(7), meter.of_packet(), meter, now)).count();
        passed += of_tick as u64;
    }
    passed
}

#[test]
fn two_cpus_that_race_get_one_limit() {
    // At the higher limits a loop that does nothing else contends with every packet that passes.
    for (limit, load, bound) in
        [(1_000, 2, 1.03), (5_000, 2, 1.03), (5_000, 20, 1.03), (100_000, 2, 1.2), (100_000, 20, 1.2)]
    {
        let (ticks, burst) = (40 * TICKS_PER_SECOND, limit / 10);
        let passed = race(&packets(limit, burst, 2, TICK_NS), limit * load / 2 / TICKS_PER_SECOND, ticks);
        let ratio = passed as f64 / (limit * 40 + burst) as f64;
        println!("two threads, limit {limit}/s at {load} times: {ratio:.4}");
        assert!((0.98..=bound).contains(&ratio), "limit {limit}: {ratio}");
    }
}

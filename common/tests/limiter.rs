//! What the limiter promises whatever the arrivals and the clock do: never more than burst and rate allow, nothing kept
//! from those who owe nothing, across every wrap of its clocks and every change of a limit.

#![allow(clippy::unwrap_used, reason = "tests panic")]

use floodwall_common::limits::{MAX_BURST_SECONDS, MIN_BYTES_PER_SECOND, Rate, Unit};
use floodwall_common::meter::Meter;

use support::limiter::{MS, NOON, Random, SECOND, Sender, Wall, meter, packets, place, place_zero};

mod support;

const TICK_NS: u64 = 4 * MS;
/// The gate's clock turns around after 2^31 units of 2,048 ns.
const GATE_WRAP_NS: u64 = 1 << 42;
/// The table's clock turns around after 2^40 units of 16 ns.
const TABLE_WRAP_NS: u64 = 1 << 44;
const DAY_NS: u64 = 86_400 * SECOND;

fn kilo(cpus: u32) -> Meter {
    packets(1_000, 400, cpus, TICK_NS)
}

/// Sends twice the limit for some seconds and says what passed, in limits.
fn hot(wall: &mut Wall, meter: &Meter, limit: u64, seconds: u64) -> f64 {
    let mut sender = Sender::new(7, limit as f64 * 2.0, 0.0);
    for _ in 0..seconds * SECOND / TICK_NS {
        wall.now_ns += TICK_NS;
        sender.tick(wall, 0, meter, TICK_NS);
    }
    sender.passed as f64 / (limit * seconds) as f64
}

#[test]
fn a_new_source_has_its_burst_and_no_more() {
    for cpus in [1, 2, 8] {
        for burst in [1, 2, 40, 400, 5_000] {
            let meter = packets(1_000, burst, cpus, TICK_NS);
            let passed = Wall::new(cpus, NOON).volley(0, place(7), &meter, 20_000);
            println!("{cpus} CPUs, burst {burst}: {passed}");
            // Two ticks are worth 8 packets: no burst is less. The gate lets one more through than it charges.
            let full = burst.max(9);
            let rounding = 1 + full / 1_000;
            assert!((full - rounding..=full + 2).contains(&passed), "{cpus} CPUs, burst {burst}: {passed}");
        }
    }
}

/// Bursts with silence between them, below the limit in the long run and far below the burst at once.
#[test]
fn bursts_below_the_limit_lose_nothing() {
    let mut losers = vec![];
    for (cpus, limit, burst) in [(1, 500, 1_000), (2, 500, 1_000), (8, 5_000, 10_000), (1, 5_000, 10_000), (2, 1, 100)]
    {
        for period_ms in [200, 500, 900, 1_000, 1_100, 1_200, 1_400, 1_600, 2_000, 5_000] {
            let packets_each = limit * 95 * period_ms / 100_000;
            if packets_each == 0 || packets_each > burst * 3 / 5 {
                continue;
            }
            let (meter, mut wall) = (packets(limit, burst, cpus, TICK_NS), Wall::new(cpus, NOON));
            let mut lost = 0;
            for _ in 0..200 {
                wall.now_ns += period_ms * MS;
                lost += packets_each - wall.volley(0, place(7), &meter, packets_each);
            }
            let share = lost as f64 / (packets_each * 200) as f64;
            if lost > 0 {
                losers.push(format!(
                    "{cpus} CPUs, {limit}/s, burst {burst}: {packets_each} each {period_ms} ms lose {share:.3}"
                ));
            }
        }
    }
    assert!(losers.is_empty(), "{}", losers.join("\n"));
}

#[test]
fn the_same_moment_gives_nothing_twice() {
    let meter = kilo(1);
    let mut wall = Wall::new(1, NOON);
    wall.volley(0, place(7), &meter, 1_000);
    assert_eq!(wall.volley(0, place(7), &meter, 1_000_000), 0);
}

#[test]
fn a_clock_that_goes_back_locks_nobody_out_and_gives_no_second_burst() {
    for back in [1, 15, 16, 1_024, TICK_NS, 10 * TICK_NS, 300 * MS] {
        let meter = kilo(1);
        let mut wall = Wall::new(1, NOON);
        let first = wall.volley(0, place(7), &meter, 1_000);
        wall.now_ns -= back;
        assert_eq!(wall.volley(0, place(7), &meter, 1_000), 0, "{back} ns back after {first}");
    }
    for back in [SECOND, 60 * SECOND, 3_600 * SECOND, NOON] {
        let meter = kilo(1);
        let mut wall = Wall::new(1, NOON);
        wall.volley(0, place(7), &meter, 1_000);
        wall.now_ns -= back;
        wall.volley(0, place(7), &meter, 1_000);
        // Twice the tolerance is what a wrong time can be taken for.
        wall.now_ns += 2 * SECOND;
        assert!(wall.volley(0, place(7), &meter, 1_000) >= 400 - 100, "{back} ns back");
    }
}

#[test]
fn a_source_that_was_away_for_600_days_has_its_budget() {
    let fresh = Wall::new(2, NOON).volley(0, place(7), &kilo(2), 1_000);
    let mut least = u64::MAX;
    for more in 0..500 {
        let mut wall = Wall::new(2, NOON);
        hot(&mut wall, &kilo(2), 1_000, 3);
        wall.now_ns += 600 * DAY_NS + more * 61 * SECOND;
        let passed = wall.volley(0, place(7), &kilo(2), 1_000);
        least = least.min(passed);
        // A cell of the gate that the wrap has turned around charges a quarter of the burst by CPU.
        assert!((fresh - 50 - 1..=fresh).contains(&passed), "600 days and {more} minutes: {passed} of {fresh}");
    }
    println!("fresh {fresh}, least after 600 days {least}");
}

#[test]
fn the_wraps_of_both_clocks_change_nothing() {
    for wrap in [GATE_WRAP_NS, TABLE_WRAP_NS, 5 * GATE_WRAP_NS, 1 << 45] {
        let meter = kilo(1);
        let mut wall = Wall::new(1, wrap - 4 * SECOND);
        hot(&mut wall, &meter, 1_000, 2);
        let ratio = hot(&mut wall, &meter, 1_000, 4);
        println!("across {wrap} ns: {ratio:.4}");
        assert!((0.98..=1.02).contains(&ratio), "{wrap}: {ratio}");
    }
    for wrap in [GATE_WRAP_NS, TABLE_WRAP_NS] {
        let mut wall = Wall::new(1, wrap - 4 * SECOND);
        let mut innocent = Sender::new(9, 950.0, 0.0);
        for _ in 0..8 * SECOND / TICK_NS {
            wall.now_ns += TICK_NS;
            innocent.tick(&mut wall, 0, &kilo(1), TICK_NS);
        }
        assert_eq!(innocent.sent, innocent.passed, "{wrap}");
    }
}

#[test]
fn an_empty_table_owes_nothing_just_before_a_wrap() {
    let fresh = Wall::new(2, NOON).volley(0, place(7), &kilo(2), 1_000);
    for wrap in [GATE_WRAP_NS, TABLE_WRAP_NS] {
        for before in [TICK_NS, 100 * MS, 500 * MS, SECOND, 10 * SECOND, 200 * SECOND] {
            let passed = Wall::new(2, wrap - before).volley(0, place(7), &kilo(2), 1_000);
            // An empty cell is taken for a debt there, and charges what a gate may let pass: an eighth of the burst.
            assert!((fresh - 50 - 1..=fresh).contains(&passed), "{before} ns before {wrap}: {passed} of {fresh}");
        }
    }
}

/// One source in 16 million has the tag of an empty entry: it waits once for twice the tolerance at most.
#[test]
fn the_source_whose_tag_is_zero_is_not_locked_out() {
    for before in [TICK_NS, 100 * MS, 500 * MS, SECOND, 10 * SECOND] {
        let mut wall = Wall::new(1, TABLE_WRAP_NS - before);
        let passed = wall.volley(0, place_zero(), &kilo(1), 1_000);
        wall.now_ns += 2 * SECOND;
        let later = wall.volley(0, place_zero(), &kilo(1), 1_000);
        println!("{} ms before the wrap: {passed}, {later} two seconds later", before / MS);
        assert!(later >= 300, "{before} ns before the wrap: {later}");
    }
}

#[test]
fn a_limit_that_is_lowered_holds_at_once() {
    let (high, low) = (packets(10_000, 20_000, 1, TICK_NS), packets(100, 20, 1, TICK_NS));
    let mut wall = Wall::new(1, NOON);
    hot(&mut wall, &high, 10_000, 5);
    let mut sender = Sender::new(7, 20_000.0, 0.0);
    for _ in 0..20 * SECOND / TICK_NS {
        wall.now_ns += TICK_NS;
        sender.tick(&mut wall, 0, &low, TICK_NS);
    }
    println!("after 10,000/s, 100/s for 20 s: {} passed", sender.passed);
    assert!((20 * 100 - 300..=20 * 100 + 25).contains(&sender.passed), "{}", sender.passed);
}

#[test]
fn a_limit_that_is_raised_holds_at_once() {
    let (low, high) = (packets(10, 5_000, 1, TICK_NS), packets(1_000, 100, 1, TICK_NS));
    let mut wall = Wall::new(1, NOON);
    wall.volley(0, place(7), &low, 10_000);
    let ratio = hot(&mut wall, &high, 1_000, 10);
    println!("after a debt of 500 s: {ratio:.4}");
    assert!((0.9..=1.02).contains(&ratio), "{ratio}");
}

/// Frames of all sizes up to 64 KiB at one rate; says how many bytes passed beyond burst and rate, in bytes.
fn excess_of_bytes(per_second: u64, burst: u64, cpus: u32, offered: u64) -> i64 {
    let meter = meter(Rate::Limit { per_second, burst }, Unit::Bytes, cpus, TICK_NS);
    let (mut wall, mut random) = (Wall::new(cpus, NOON), Random(burst));
    let (mut passed, mut due) = (0u64, 0u64);
    // As long as a hundred of the largest frames take, or ten minutes.
    let ticks = (100 * 65_536 / per_second).clamp(10, 600) * SECOND / TICK_NS;
    for _ in 0..ticks {
        wall.now_ns += TICK_NS;
        due += per_second * offered * TICK_NS / MS;
        while due >= 1_000 * 64 {
            let bytes = [64, 576, 1_514, 9_014, 65_536][random.below(5) as usize];
            due = due.saturating_sub(1_000 * u64::from(bytes));
            let cpu = random.below(u64::from(cpus)) as usize;
            passed += if wall.bytes(cpu, place(7), bytes, &meter) { u64::from(bytes) } else { 0 };
        }
    }
    passed as i64 - (per_second * ticks * TICK_NS / SECOND + burst) as i64
}

#[test]
fn byte_limits_hold_with_frames_of_all_sizes() {
    for per_second in [MIN_BYTES_PER_SECOND, 10_000, 1_000_000, 100_000_000] {
        for burst in [10_000, 15_140, per_second.max(10_000), per_second * 10] {
            let excess = excess_of_bytes(per_second, burst, 1, 4);
            let slack = 2 * 65_536 + (2 * TICK_NS * per_second / SECOND) as i64 + (per_second * 6 / 100) as i64;
            println!("{per_second} B/s, burst {burst}: {excess} bytes beyond");
            assert!(excess <= slack, "{per_second} B/s, burst {burst}: {excess} beyond");
        }
    }
}

#[test]
fn the_longest_burst_at_the_lowest_rate_stays_clear_of_the_wrap() {
    let burst = MIN_BYTES_PER_SECOND * MAX_BURST_SECONDS;
    let meter = meter(Rate::Limit { per_second: MIN_BYTES_PER_SECOND, burst }, Unit::Bytes, 1, TICK_NS);
    let mut wall = Wall::new(1, NOON);
    let first = (0..100).filter(|_| wall.bytes(0, place(7), 65_536, &meter)).count();
    assert!((7..=9).contains(&first), "{first} frames of 64 KiB in 500,000 bytes");
    let later = (0..1_311)
        .filter(|_| {
            wall.now_ns += SECOND;
            wall.bytes(0, place(7), 65_536, &meter)
        })
        .count();
    assert!((18..=21).contains(&later), "{later} frames of 64 KiB in the 1,311 s that are worth 20");
}

#[test]
fn two_sources_in_one_place_share_one_limit() {
    let meter = kilo(1);
    let mut wall = Wall::new(1, NOON);
    let mut twins = [Sender::new(7, 1_000.0, 0.0), Sender::new(7, 1_000.0, 0.5)];
    let mut other = Sender::new(8, 950.0, 0.0);
    for tick in 0..22 * SECOND / TICK_NS {
        wall.now_ns += TICK_NS;
        for sender in twins.iter_mut().chain([&mut other]) {
            sender.tick(&mut wall, 0, &meter, TICK_NS);
            if tick < 2 * SECOND / TICK_NS {
                (sender.sent, sender.passed) = (0, 0);
            }
        }
    }
    let shares = twins.map(|twin| twin.passed as f64 / 20_000.0);
    println!("two sources in one place: {shares:.4?} of the limit");
    assert!((0.98..=1.02).contains(&(shares[0] + shares[1])));
    assert_eq!(other.sent, other.passed);
}

/// Eight sources in one line of the table, at every time of its clock: empty and stale entries make room before one that
/// owes, however far ahead their times look.
#[test]
fn sources_in_one_line_of_the_table_keep_their_limits_at_any_time() {
    let line = place(7).bucket();
    let places: Vec<_> = (0..).map(place).filter(|place| place.bucket() == line).take(8).collect();
    let meter = packets(1_000, 400, 1, TICK_NS);
    for eighth in 0..8 {
        let mut wall = Wall::new(1, DAY_NS / TABLE_WRAP_NS * TABLE_WRAP_NS + eighth * (TABLE_WRAP_NS / 8) + SECOND);
        for round in 0..2 {
            let mut passed = [0_u64; 8];
            for _ in 0..5 * SECOND / TICK_NS {
                wall.now_ns += TICK_NS;
                for (passed, place) in passed.iter_mut().zip(&places) {
                    *passed += (0..8).filter(|_| wall.packet(0, *place, &meter)).count() as u64;
                }
            }
            // 5,000 by the rate, 400 at once, and a little for the gate.
            assert!(
                passed.iter().all(|passed| (5_200..5_500).contains(passed)),
                "{eighth}/8, round {round}: {passed:?}"
            );
            // Long enough for these times to lie on the other side of the clock.
            wall.now_ns += TABLE_WRAP_NS / 2;
        }
    }
}

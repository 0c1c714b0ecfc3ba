//! How exact the limiter is while random sources churn through it: at 10 million packets a second, each from a
//! source of its own, over two CPUs, at virtual time. Each test prints what it measured.

#![allow(clippy::unwrap_used, reason = "tests panic")]

use floodwall_common::meter::Meter;

use support::limiter::{MS, NOON, Random, SECOND, Sender, Wall, packets, place};

mod support;

const CPUS: u32 = 2;
const CHURN_PER_SECOND: u64 = 10_000_000;
const WARM_UP_NS: u64 = SECOND;
const MEASURED_NS: u64 = 3 * SECOND;
const LIMITS: [u64; 4] = [100, 500, 1_000, 5_000];
const INNOCENT: u64 = 1_000;

/// Sources that are watched while others churn.
struct Crowd {
    wall: Wall,
    meter: Meter,
    tick_ns: u64,
    random: Random,
    senders: Vec<Sender>,
}

impl Crowd {
    fn new(limit: u64, burst: u64, tick_ns: u64, senders: Vec<Sender>) -> Self {
        let meter = packets(limit, burst, CPUS, tick_ns);
        Self { wall: Wall::new(CPUS, NOON), meter, tick_ns, random: Random(limit), senders }
    }

    fn run(&mut self, time_ns: u64) {
        for _ in 0..time_ns / self.tick_ns {
            self.wall.now_ns += self.tick_ns;
            self.churn();
            for (cpu, sender) in self.senders.iter_mut().enumerate() {
                sender.tick(&mut self.wall, cpu % CPUS as usize, &self.meter, self.tick_ns);
            }
            self.churn();
        }
    }

    /// Half of the random packets of a tick.
    fn churn(&mut self) {
        for packet in 0..CHURN_PER_SECOND * self.tick_ns / SECOND / 2 {
            let source = u64::from(self.random.next() as u32);
            self.wall.packet(packet as usize % CPUS as usize, place(source), &self.meter);
        }
    }

    /// Runs past the burst, forgets that, and measures.
    fn measure(&mut self) {
        self.run(WARM_UP_NS);
        for sender in &mut self.senders {
            (sender.sent, sender.passed) = (0, 0);
        }
        self.run(MEASURED_NS);
    }
}

/// The first sends twice its limit, the others 0.95 of it.
fn one_hot_among_innocent(limit: u64) -> Vec<Sender> {
    let innocent =
        (1..=INNOCENT).map(|source| Sender::new(source << 40, limit as f64 * 0.95, source as f64 / INNOCENT as f64));
    [Sender::new(1 << 60, limit as f64 * 2.0, 0.0)].into_iter().chain(innocent).collect()
}

fn accurate_with_ticks_of(tick_ns: u64) {
    for limit in LIMITS {
        let mut crowd = Crowd::new(limit, limit / 10, tick_ns, one_hot_among_innocent(limit));
        crowd.measure();
        let (hot, innocent) = crowd.senders.split_first().unwrap();
        let ratio = hot.passed as f64 / (limit as f64 * MEASURED_NS as f64 / 1e9);
        let sent: u64 = innocent.iter().map(|sender| sender.sent).sum();
        let lost: u64 = innocent.iter().map(|sender| sender.sent - sender.passed).sum();
        let losers = innocent.iter().filter(|sender| sender.passed < sender.sent).count();
        let tick = tick_ns / MS;
        println!(
            "tick {tick} ms, limit {limit}/s: hot {ratio:.4}; {INNOCENT} at 0.95 lost {lost} of {sent} ({losers} sources)"
        );
        assert!((0.98..=1.02).contains(&ratio), "limit {limit}: {ratio}");
        assert_eq!(lost, 0, "limit {limit}: {losers} sources");
    }
}

#[test]
fn twice_the_limit_gets_the_limit_with_ticks_of_1_ms() {
    accurate_with_ticks_of(MS);
}

#[test]
fn twice_the_limit_gets_the_limit_with_ticks_of_4_ms() {
    accurate_with_ticks_of(4 * MS);
}

#[test]
fn twice_the_limit_gets_the_limit_with_ticks_of_10_ms() {
    accurate_with_ticks_of(10 * MS);
}

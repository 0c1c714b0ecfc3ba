//! How exactly a limit is kept, in the test's own time.

use std::net::Ipv4Addr;

use anyhow::Result;
use floodwall_common::config::Mode;
use floodwall_common::limits::{LimitName, Rate};
use floodwall_common::reason::Verdict;
use serde::Serialize;

use super::{DATA, SIXTEEN_MILLION, Wrapper, v4};
use crate::frames::udp_v4;
use crate::kernel::{Kernel, Time, Variant, pin_to_cpu};

/// How exactly a limit is kept beside ten million random sources a second.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Accuracy {
    /// What a source at twice its limit passes, as a share of the limit.
    pub twice_the_limit: f64,
    /// Packets of sources at 0.95 of their limit.
    pub innocent_sent: u64,
    /// How many of them were dropped.
    pub innocent_lost: u64,
}

/// Sends for ten seconds of the test's time, in steps: a hundred thousand packets of random sources in each, what one
/// source at twice its limit sends in that time, and what a hundred at 0.95 of theirs do.
///
/// # Errors
/// Where the kernel refuses a program or a run.
pub fn accuracy() -> Result<Accuracy> {
    const LIMIT: u64 = 1_000;
    const STEPS: u64 = 1_000;
    // Before a repeated run the kernel waits for some milliseconds: shorter steps would be exact, and slow.
    const STEP_NS: u64 = 10_000_000;
    const RANDOM_PER_STEP: u32 = 100_000;
    pin_to_cpu(0)?;
    let mut kernel = Kernel::load(Time::Test)?;
    kernel.set_limit(LimitName::Udp, Rate::Limit { per_second: LIMIT, burst: LIMIT / 10 }, Rate::Off)?;
    kernel.dataplane.set_mode(Mode::Enforce)?;
    let mut wrapper = Wrapper::load()?;
    wrapper.set_pattern(v4(SIXTEEN_MILLION))?;
    wrapper.hand_to_filter(&kernel)?;
    let source = |last: u8| udp_v4(Ipv4Addr::new(198, 51, 100, last), DATA);
    let (random, hot) = (udp_v4(Ipv4Addr::new(11, 0, 0, 1), DATA), source(200));
    let innocent: Vec<_> = (0..100).map(source).collect();
    let passes = |frame: &[u8]| -> Result<bool> { Ok(kernel.judge(Variant::Linear, frame)? == Verdict::Pass) };
    let (mut hot_passed, mut innocent_sent, mut innocent_lost) = (0u64, 0, 0);
    for step in 0..STEPS {
        kernel.set_time(12 * 3_600_000_000_000 + step * STEP_NS)?;
        wrapper.run(&random, RANDOM_PER_STEP)?;
        for _ in 0..20 {
            hot_passed += u64::from(passes(&hot)?);
        }
        for (place, frame) in innocent.iter().enumerate() {
            // Nine and ten in turn are 0.95 of ten.
            for _ in 0..9 + (step + place as u64) % 2 {
                innocent_sent += 1;
                innocent_lost += u64::from(!passes(frame)?);
            }
        }
    }
    let seconds = (STEPS * STEP_NS) as f64 / 1e9;
    let limit = LIMIT as f64 * seconds + LIMIT as f64 / 10.0;
    Ok(Accuracy { twice_the_limit: hot_passed as f64 / limit, innocent_sent, innocent_lost })
}

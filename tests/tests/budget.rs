//! What the filter costs a kernel to hold: instructions that its verifier walks, and memory of its maps. Both are
//! fixed when it is loaded; this keeps them from growing unnoticed.

use anyhow::Result;
use aya::maps::MapData;
use floodwall_common::abi::map;
use floodwall_common::config::Mode;
use floodwall_common::reason::{Reason, Verdict};
use floodwall_tests::frames::udp_v4;
use floodwall_tests::kernel::{Kernel, Time, Variant, descriptor_figure};

/// The kernel refuses a program at one million. Half of that is left to kernels whose verifier prunes less.
const MAX_VERIFIED: u64 = 500_000;
const MAX_MAP_BYTES: u64 = 64 << 20;

#[test]
fn programs_and_maps_keep_their_budgets() -> Result<()> {
    let mut kernel = Kernel::load(Time::Ticks)?;
    for variant in Variant::ALL {
        let verified = descriptor_figure(kernel.program(variant), "verified_insns")?;
        println!("{:<20} {verified:>10} instructions verified of {MAX_VERIFIED}", format!("{variant:?}"));
        assert!((1..=MAX_VERIFIED).contains(&verified), "{variant:?}: {verified}");
    }
    let mut total = 0;
    for name in map::ALL {
        let bytes = descriptor_figure(MapData::from_pin(kernel.pin(name))?.fd(), "memlock")?;
        println!("{name:<20} {bytes:>10} bytes");
        // Kernels before 6.4 count values times their size, and a ring has no values.
        assert!(bytes > 0 || name == map::SAMPLES, "{name}: the kernel says nothing of it");
        total += bytes;
    }
    println!("{:<20} {total:>10} bytes of {MAX_MAP_BYTES}", "all maps");
    assert!(total <= MAX_MAP_BYTES);
    // What was measured is the filter, and works.
    kernel.dataplane.set_mode(Mode::Enforce)?;
    assert_eq!(kernel.judge(Variant::Linear, &udp_v4([203, 0, 113, 7].into(), 4))?, Verdict::Pass);
    assert_eq!(kernel.counted().of(Reason::Passed), 1);
    Ok(())
}

//! Limits per subnet and network on the loaded filter: who changes his address is stopped at the narrowest prefix that
//! holds him, and his neighbours lose nothing.

use std::net::Ipv6Addr;

use anyhow::Result;
use floodwall_common::class::Class;
use floodwall_common::config::Mode;
use floodwall_common::limits::{LimitKey, LimitName, Per, Rate};
use floodwall_common::reason::{Reason, Verdict};
use floodwall_tests::frames::udp_v6;
use floodwall_tests::kernel::{Kernel, Time, Variant, pin_to_cpu};

const MS: u64 = 1_000_000;
const SECONDS: u64 = 20;
const NEIGHBOURS: u64 = 200;

fn udp(per: Per) -> LimitKey {
    LimitKey { name: LimitName::of(Class::Udp), per }
}

fn address(prefix: u64, host: u64) -> Ipv6Addr {
    Ipv6Addr::from(u128::from(prefix) << 64 | u128::from(host))
}

/// A new /64 every two seconds and a new address with each packet, all in one /56: 30,000 a second, where one /64 may send
/// 5,000 and one /56 6,000. Beside him, in the same /40, 200 customers with 100 a second each.
#[test]
fn a_rotating_attacker_is_held_by_his_56_and_his_neighbours_lose_nothing() -> Result<()> {
    const ATTACKER: u64 = 0x2001_0db8_00aa_bb00;
    pin_to_cpu(0)?;
    let mut kernel = Kernel::load(Time::Test)?;
    kernel.dataplane.set_mode(Mode::Enforce)?;
    let subnet = Rate::Limit { per_second: 6_000, burst: 12_000 };
    kernel.set_limit(udp(Per::Subnet), subnet, Rate::Off)?;
    kernel.set_limit(udp(Per::Network), Rate::Limit { per_second: 50_000, burst: 50_000 }, Rate::Off)?;
    let begin = kernel.dataplane.clock()?.now().ns() + 100 * 1_000 * MS;
    let (mut attacks, mut passed, mut lost) = (0_u64, 0_u64, 0_u64);
    for now in 0..SECONDS * 1_000 {
        kernel.set_time(begin + now * MS)?;
        for packet in 0..30 {
            let frame = udp_v6(address(ATTACKER | (now / 2_000), now * 30 + packet), 4);
            attacks += 1;
            passed += u64::from(kernel.judge(Variant::Linear, &frame)? == Verdict::Pass);
        }
        // Each neighbour once in ten milliseconds.
        for neighbour in (now % 10..NEIGHBOURS).step_by(10) {
            let frame = udp_v6(address(0x2001_0db8_0000_0007 | (neighbour << 16), 1), 4);
            lost += u64::from(kernel.judge(Variant::Linear, &frame)? == Verdict::Drop);
        }
    }
    let due = 12_000 + 6_000 * SECONDS;
    println!("{passed} of {attacks} passed, {due} are due; neighbours lost {lost} of {}", NEIGHBOURS * 100 * SECONDS);
    assert_eq!(lost, 0);
    assert!(passed <= due * 102 / 100 && passed >= due * 95 / 100, "{passed} passed, {due} are due");
    let counted = kernel.counted();
    assert!(counted.of(Reason::SubnetLimit) > 0, "{counted:?}");
    assert_eq!(counted.of(Reason::NetworkLimit), 0, "his /56 is narrower than his /48");
    Ok(())
}

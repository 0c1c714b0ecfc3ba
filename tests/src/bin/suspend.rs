//! `suspend`: puts the machine that it runs on to sleep for some seconds, with a daemon that drops, and looks whether all is as it was
//! afterwards. `cargo xtask vm` runs it in its emulated machines; never run it on one that somebody uses.

use std::fs;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use floodwall_tests::daemon::{packets, wait_for};
use floodwall_tests::flood::Flood;
use floodwall_tests::stand::Stand;

/// How long the machine is to sleep.
const ASLEEP_S: u64 = 40;
/// How long what ends by itself is to last, all of which the machine has to be awake for.
const LASTS_S: u64 = 60;
const ALARM: &str = "/sys/class/rtc/rtc0/wakealarm";

fn main() -> Result<()> {
    let stand = Stand::new();
    let daemon = stand.run(&["--mode", "enforce"]);
    stand.verb("limits set udp --pps 4444");
    stand.verb("deny add 11.0.0.0/8 3fff::/16 --force");
    stand.verb(&format!("deny add 192.0.2.1 --ttl {LASTS_S}s"));
    let begun = Instant::now();
    drops(&stand)?;
    let (before, awake) = (stand.status(), begun.elapsed());
    fall_asleep()?;
    let after = stand.status();
    ensure!(after["attached"] == true && after["daemon"] == true && after["mode"] == "enforce", "{after}");
    ensure!(packets(&after, "drop", "denied") >= packets(&before, "drop", "denied"), "counters went back: {after}");
    let listed = stand.json("deny list");
    let entry = listed["entries"].as_array().and_then(|all| all.iter().find(|entry| entry["prefix"] == "192.0.2.1/32"));
    let left = entry.and_then(|entry| entry["ttl_s"].as_u64()).with_context(|| format!("it has ended: {listed}"))?;
    // By the time that the machine was awake.
    let least = LASTS_S.saturating_sub(begun.elapsed().as_secs() + 5);
    ensure!(left >= least && left <= LASTS_S, "{left} s left, of {LASTS_S} after {:?} awake", begun.elapsed());
    drops(&stand)?;
    ensure!(stand.verb("limits show").contains("4444"), "the limit");
    let has_ended = || (!stand.verb("deny list").contains("192.0.2.1/32")).then_some(());
    wait_for("the entry to end", has_ended)?;
    let log = fs::read_to_string(stand.place.log())?;
    ensure!(!log.contains("ERROR") && !log.contains("panicked"), "{log}");
    daemon.stop()?;
    println!("suspended for {ASLEEP_S} s after {awake:?}, {left} s of {LASTS_S} s were left");
    Ok(())
}

/// Denied sources are dropped.
fn drops(stand: &Stand) -> Result<()> {
    let dropped = || packets(&stand.status(), "drop", "denied");
    let before = dropped();
    let flood = Flood::udp(1_000, 2_000, Duration::from_millis(500));
    flood.start(&stand.topology.world, stand.topology.target()?, 0)?.join().ok().context("the flood")??;
    wait_for("drops", || (dropped() > before + 200).then_some(()))
}

/// To memory, until the alarm of the clock. The clock that counts sleep says whether it was one; the other one stands still.
fn fall_asleep() -> Result<()> {
    let (awake, slept) = (Instant::now(), since_boot_s()?);
    fs::write(ALARM, format!("+{ASLEEP_S}")).context(ALARM)?;
    fs::write("/sys/power/state", "mem").context("this kernel does not suspend to memory")?;
    let (awake, slept) = (awake.elapsed(), since_boot_s()? - slept);
    ensure!(slept >= ASLEEP_S as f64 / 2.0 && awake.as_secs_f64() < slept / 2.0, "it did not sleep: {slept} {awake:?}");
    Ok(())
}

fn since_boot_s() -> Result<f64> {
    let uptime = fs::read_to_string("/proc/uptime")?;
    Ok(uptime.split(' ').next().context("/proc/uptime")?.parse()?)
}

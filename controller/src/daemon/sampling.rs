//! How often headers are sampled: so that about as many come in at 100 packets a second as at ten million.

use floodwall_common::abi::{SAMPLE_STREAMS, Stream};
use floodwall_common::config::Sampling;
use tracing::debug;

use crate::dataplane::Dataplane;
use crate::snapshot::Snapshot;

/// Samples a second that are wanted of each stream. Of those who begin connections more: one who goes on and on has to be seen to.
const TARGETS_PER_SECOND: [f64; SAMPLE_STREAMS] = {
    let mut targets = [4_000.0; SAMPLE_STREAMS];
    targets[Stream::Open as usize] = 10_000.0;
    targets
};
/// Samples a second that a CPU may write of each stream, however wrong the interval is.
const BUDGET_PER_SECOND: u32 = 4_000;
/// Every one where little comes in, so that connections can be followed. A flood begins at this interval: its first packets find
/// the budget used up, and cost a look at it.
const SMALLEST_INTERVAL: u32 = 1;

/// Follows the traffic between two snapshots. What cannot be written is tried again at the next one.
pub(super) fn tune(dataplane: &mut Dataplane, before: &Snapshot, now: &Snapshot) {
    let seconds = now.taken_ns.saturating_sub(before.taken_ns) as f64 / 1e9;
    if seconds <= 0.0 {
        return;
    }
    let every = std::array::from_fn(|stream| {
        let packets = now.samples.packets[stream].saturating_sub(before.samples.packets[stream]);
        interval(now.sample_every[stream], packets as f64 / seconds, TARGETS_PER_SECOND[stream])
    });
    if every != now.sample_every {
        debug!(?every, "sampling interval");
        if let Err(error) = dataplane.set_sampling(Sampling::new(every, BUDGET_PER_SECOND)) {
            debug!(%error, "cannot change the sampling interval");
        }
    }
}

/// The interval for so many packets a second, of which so many are wanted; the present one where it is within a third of that.
fn interval(present: u32, packets_per_second: f64, wanted_per_second: f64) -> u32 {
    let wanted = (packets_per_second / wanted_per_second).ceil().max(f64::from(SMALLEST_INTERVAL));
    let ratio = wanted / f64::from(present.max(1));
    if (0.67..1.5).contains(&ratio) { present } else { wanted as u32 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn follows_the_traffic_without_trembling() {
        assert_eq!(interval(64, 0.0, 4e3), SMALLEST_INTERVAL);
        assert_eq!(interval(8, 10_000_000.0, 4e3), 2_500);
        assert_eq!(interval(2_500, 9_000_000.0, 4e3), 2_500);
        assert_eq!(interval(2_500, 1_000_000.0, 4e3), 250);
    }
}

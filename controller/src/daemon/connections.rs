//! Looking at what connections are open, when that is worth it and at a bounded cost; and closing those of whom is denied for them.

use std::collections::{BTreeMap, HashSet};
use std::fs::read_to_string;

use floodwall_common::class::Family;
use floodwall_common::config::Mode;
use floodwall_common::packet::Source;
use ipnet::IpNet;
use tracing::{info, warn};

use super::Daemon;
use super::measures::{self, prefix_of};
use crate::control::ListPlan;
use crate::dataplane::{self, Connection, Queue, monotonic_ns};
use crate::detect::{Held, Open};
use crate::prefixes::overlap;
use crate::respond::Denied;

/// How often it is looked at most.
const EVERY_NS: u64 = 500_000_000;
/// Sockets in use below which nobody looks.
const WORTH: u64 = 50;
/// Connections that are read at most.
const MOST: usize = 8_192;
/// A look may take one part in so many of the time.
const ONE_PART_IN: u64 = 50;
/// A queue that is fuller has no room left for all who come.
const FULL: f64 = 0.9;
/// How often it is read again while connections are closed.
const ROUNDS: usize = 16;

/// What was seen last.
#[derive(Default)]
pub(super) struct Lookout {
    pub(super) held: Option<Held>,
    /// The queue of each port, where that was looked at since somebody asked.
    queues: Option<BTreeMap<u16, Queue>>,
    due_ns: u64,
    has_failed: bool,
}

impl Lookout {
    /// The queue of each port, where nobody has asked since it was looked at.
    pub(super) fn take_queues(&mut self) -> Option<BTreeMap<u16, Queue>> {
        self.queues.take()
    }

    /// Looks, where it is time and enough is open.
    pub(super) fn look(&mut self, now_ns: u64) {
        if now_ns < self.due_ns {
            return;
        }
        self.due_ns = now_ns + EVERY_NS;
        self.held = None;
        if in_use() < WORTH {
            return;
        }
        let began_ns = monotonic_ns();
        match dataplane::connections(MOST) {
            Ok(seen) => {
                let open: Vec<_> = seen.open.iter().map(open).collect();
                let fullness = seen.queues.values().map(|queue| queue.fullness).fold(0.0, f64::max);
                let full = seen.queues.iter().filter(|(_, queue)| queue.fullness >= FULL);
                let full = full.map(|(port, queue)| (*port, queue.waiting)).collect();
                self.held = Some(Held { full, ..Held::of(&open, fullness, now_ns) });
                self.queues = Some(seen.queues);
                self.has_failed = false;
            }
            Err(error) if !self.has_failed => {
                self.has_failed = true;
                warn!(%error, "the kernel does not show what is open: slow connections are not told");
            }
            Err(_) => {}
        }
        let took_ns = monotonic_ns().saturating_sub(began_ns);
        self.due_ns = self.due_ns.max(now_ns + ONE_PART_IN * took_ns);
    }
}

/// Closes what denied sources have open, but of those whom somebody here would miss, and only where drops are real: a connection that is
/// closed is gone, whatever the mode. In words, what came of it; `None` where drops are not real.
pub(super) fn close(daemon: &Daemon, denied: &Denied) -> Option<String> {
    let spared =
        match is_enforcing(daemon).map_err(anyhow::Error::from).and_then(|is| is.then(|| spared(daemon)).transpose()) {
            Ok(Some(spared)) => spared,
            Ok(None) => return None,
            Err(error) => {
                warn!(%error, "connections of denied sources are not closed");
                return Some(format!("no connection is closed: {error:#}"));
            }
        };
    let is_missed = |source: &Source| spared.iter().any(|prefix| overlap(*prefix, prefix_of(*source)));
    let keys: HashSet<_> = denied.sources.iter().filter(|source| !is_missed(source)).copied().map(key).collect();
    let mut closed = 0;
    for _ in 0..ROUNDS {
        let round = dataplane::connections(MOST).and_then(|seen| {
            dataplane::close(seen.open.iter().filter(|connection| keys.contains(&key(connection.peer))))
        });
        match round {
            Ok(0) => break,
            Ok(count) => closed += count,
            Err(error) => {
                warn!(%error, closed, "connections of denied sources cannot be closed");
                return Some(format!(
                    "closed {closed} connections, and no more: {error}: they stay until the server gives them up"
                ));
            }
        }
    }
    info!(closed, "connections of denied sources");
    Some(format!("closed {closed} connections"))
}

/// Whose connections are not closed.
fn spared(daemon: &Daemon) -> anyhow::Result<Vec<IpNet>> {
    let plan = ListPlan::present(&daemon.dataplane())?;
    Ok(measures::spared(daemon, &plan))
}

fn is_enforcing(daemon: &Daemon) -> dataplane::Result<bool> {
    let plane = daemon.dataplane();
    Ok(plane.config()?.mode_at(plane.clock()?.now()) == Mode::Enforce)
}

const fn open(connection: &Connection) -> Open {
    let Connection { peer, quiet_ms, unheard_ms, received, segments, has_spoken, is_refused, .. } = *connection;
    Open { source: peer, quiet_ms, unheard_ms, received, segments, has_spoken, is_refused }
}

/// What a source is told by: of IPv6 the /64.
const fn key(source: Source) -> (u64, Family) {
    (source.key(), source.family())
}

/// TCP sockets in use, of this network namespace.
fn in_use() -> u64 {
    let of = |path| read_to_string(path).map_or(0, |text| in_use_of(&text));
    of("/proc/net/sockstat") + of("/proc/net/sockstat6")
}

fn in_use_of(text: &str) -> u64 {
    let mut lines = text.lines().filter_map(|line| line.strip_prefix("TCP: ").or_else(|| line.strip_prefix("TCP6: ")));
    let in_use = lines.next().and_then(|line| line.split_whitespace().nth(1)?.parse().ok());
    in_use.unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sockets_in_use_are_counted_by_family() {
        assert_eq!(
            in_use_of("sockets: used 300\nTCP: inuse 812 orphan 0 tw 7 alloc 815 mem 3\nUDP: inuse 9 mem 1\n"),
            812
        );
        assert_eq!(in_use_of("TCP6: inuse 12\nUDP6: inuse 3\n"), 12);
        assert_eq!(in_use_of(""), 0);
    }
}

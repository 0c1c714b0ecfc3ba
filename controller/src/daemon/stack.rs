//! What the host's own stack says of connections and ports: counted by the kernel, whatever is sampled.

use std::collections::BTreeSet;
use std::fs::read_to_string;

use crate::detect::Handshakes;

/// Connection attempts in a second that a share is of at least.
const ENOUGH: f64 = 20.0;

/// Packets that a host has no room for in a second, from which on it is hard pressed.
const PRESSED: f64 = 10.0;

/// Counters of the stack.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Stack {
    /// Connections that were completed from outside.
    completed: f64,
    /// SYNs and handshakes that were dropped since a listener takes no more.
    refused: f64,
    /// Datagrams that were dropped since whom they were for takes no more.
    overrun: f64,
    /// TCP segments that came to this host, and packets that only passed through.
    segments: f64,
    forwarded: f64,
}

impl Stack {
    /// Reads them. Where a counter is not there it stays zero.
    pub(super) fn read() -> Self {
        let (snmp, netstat) = (text("/proc/net/snmp"), text("/proc/net/netstat"));
        Self {
            completed: counter(&snmp, "Tcp", "PassiveOpens"),
            refused: counter(&netstat, "TcpExt", "ListenDrops"),
            overrun: counter(&snmp, "Udp", "RcvbufErrors") + counter_v6(&text("/proc/net/snmp6"), "Udp6RcvbufErrors"),
            segments: counter(&snmp, "Tcp", "InSegs"),
            forwarded: counter(&snmp, "Ip", "ForwDatagrams"),
        }
    }

    /// What they say of a time in which so many SYNs were passed to the stack. `None` where there were too few, or where
    /// packets pass through this host to others, whose stacks nobody here sees.
    pub(super) fn handshakes(self, before: Self, seconds: f64, syns: f64, tcp: f64) -> Option<Handshakes> {
        let since = |now: f64, before: f64| (now - before).max(0.0);
        let is_ours = since(self.segments, before.segments) >= tcp / 2.0
            && since(self.forwarded, before.forwarded) <= since(self.segments, before.segments) / 10.0;
        if syns < ENOUGH || !is_ours || seconds <= 0.0 {
            return None;
        }
        let (completed, refused) = (since(self.completed, before.completed), since(self.refused, before.refused));
        let answered = (syns - refused).max(0.0);
        Some(Handshakes {
            begun: syns as usize,
            completed: Some((completed / syns).min(1.0)),
            answered: Some(answered / syns),
            acknowledged: (answered >= ENOUGH).then(|| (completed / answered).min(1.0)),
            completed_per_second: completed / seconds,
            ..Handshakes::default()
        })
    }

    /// Whether there was more in this time than there is room for.
    pub(super) fn is_pressed(self, before: Self, seconds: f64) -> bool {
        let since = |now: f64, before: f64| (now - before).max(0.0);
        since(self.refused, before.refused) + since(self.overrun, before.overrun) >= PRESSED * seconds
    }
}

/// A counter of the file of IPv6, a line each.
fn counter_v6(text: &str, name: &str) -> f64 {
    let lines = text.lines().filter_map(|line| line.split_once(char::is_whitespace));
    let found = lines.into_iter().find(|(of, _)| *of == name);
    found.and_then(|(_, value)| value.trim().parse().ok()).unwrap_or(0.0)
}

fn text(path: &str) -> String {
    read_to_string(path).unwrap_or_default()
}

/// A counter of a file that has a line of names and then a line of values for each part.
fn counter(text: &str, part: &str, name: &str) -> f64 {
    let mut lines = text.lines().filter_map(|line| line.strip_prefix(part)?.strip_prefix(':'));
    let (Some(names), Some(values)) = (lines.next(), lines.next()) else { return 0.0 };
    let at = names.split_whitespace().position(|other| other == name);
    at.and_then(|at| values.split_whitespace().nth(at)?.parse().ok()).unwrap_or(0.0)
}

/// The UDP ports on which something here answers whoever asks: sockets without a peer.
pub(super) fn udp_services() -> BTreeSet<u16> {
    let sockets = procfs::net::udp().into_iter().chain(procfs::net::udp6()).flatten();
    sockets.filter(|socket| socket.remote_address.port() == 0).map(|socket| socket.local_address.port()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const SNMP: &str = "Ip: Forwarding ForwDatagrams\nIp: 1 7\nTcp: ActiveOpens PassiveOpens InSegs\nTcp: 5 60 900\n";

    #[test]
    fn counters_are_found_by_name() {
        assert_eq!(counter(SNMP, "Tcp", "PassiveOpens"), 60.0);
        assert_eq!(counter(SNMP, "Ip", "ForwDatagrams"), 7.0);
        assert_eq!(counter(SNMP, "Tcp", "Nothing"), 0.0);
        assert_eq!(counter("", "Tcp", "InSegs"), 0.0);
    }

    #[test]
    fn a_full_listener_and_forged_addresses_look_different() {
        let before = Stack::default();
        let full = Stack { completed: 100.0, refused: 900.0, segments: 3_000.0, ..Stack::default() };
        let shares = full.handshakes(before, 1.0, 1_000.0, 3_000.0).unwrap();
        assert_eq!((shares.answered, shares.acknowledged), (Some(0.1), Some(1.0)));
        let forged = Stack { completed: 10.0, segments: 3_000.0, ..Stack::default() };
        let shares = forged.handshakes(before, 1.0, 1_000.0, 3_000.0).unwrap();
        assert_eq!((shares.answered, shares.acknowledged), (Some(1.0), Some(0.01)));
        let router = Stack { segments: 10.0, forwarded: 3_000.0, ..Stack::default() };
        assert_eq!(router.handshakes(before, 1.0, 1_000.0, 3_000.0), None);
        assert!(full.is_pressed(before, 1.0) && !forged.is_pressed(before, 1.0));
    }

    #[test]
    fn datagrams_without_room_are_pressure_too() {
        assert_eq!(
            counter_v6("Udp6InErrors                    \t3\nUdp6RcvbufErrors \t70\n", "Udp6RcvbufErrors"),
            70.0
        );
        let (before, now) = (Stack { overrun: 50.0, ..Stack::default() }, Stack { overrun: 70.0, ..Stack::default() });
        assert!(now.is_pressed(before, 1.0) && !now.is_pressed(before, 3.0));
    }
}

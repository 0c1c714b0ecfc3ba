//! What the host's own stack says of connections and ports: counted by the kernel, whatever is sampled.

use std::collections::{BTreeSet, VecDeque};
use std::fs::read_to_string;

use crate::detect::Handshakes;
use crate::pressure::Pressure;

/// Connection attempts in a second that a share is of at least.
const ENOUGH: f64 = 20.0;
const SECOND_NS: u64 = 1_000_000_000;
/// How often they are read.
const EVERY_NS: u64 = SECOND_NS / 2;

/// Counters of the stack.
#[derive(Clone, Debug, Default)]
pub(super) struct Stack {
    /// Connections that were completed from outside.
    completed: f64,
    /// SYNs and handshakes that were dropped since a listener takes no more.
    refused: f64,
    /// Datagrams that were dropped since whom they were for takes no more.
    overrun: f64,
    /// Of those refused, such as found the queue of their listener full.
    full_queues: f64,
    /// Cookies that the stack has sent, and that came back.
    cookies: [f64; 2],
    /// Packets that a processor had no room for in its backlog.
    backlog: f64,
    /// Packets that a protected device had no room for.
    device: f64,
    /// Of each processor: time in all, and time for packets.
    processors: Vec<[f64; 2]>,
    /// TCP segments that came to this host, and packets that only passed through.
    segments: f64,
    forwarded: f64,
}

/// Packets of TCP that were meant for the stack.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Came {
    /// SYNs that were passed to it.
    pub(super) syns: f64,
    /// SYNs that were shed in front of it, as it takes no more.
    pub(super) shed: f64,
    /// All that was passed to it.
    pub(super) tcp: f64,
}

/// What the stack has counted within the last second.
#[derive(Default)]
pub(super) struct Readings(VecDeque<(Stack, u64, Came)>);

impl Readings {
    /// Takes in what it has counted by now, and says what that comes to since a second ago. A connection takes a round trip to be
    /// completed: over less than a second too many would be on their way.
    pub(super) fn take(
        &mut self,
        read: impl FnOnce() -> Stack,
        now_ns: u64,
        came: Came,
    ) -> Option<(Option<Handshakes>, Pressure)> {
        // Ticks are not exact.
        if self.0.back().is_some_and(|(_, then_ns, _)| now_ns.saturating_sub(*then_ns) < EVERY_NS - EVERY_NS / 8) {
            return None;
        }
        let now = read();
        while self.0.get(1).is_some_and(|(_, then_ns, _)| now_ns.saturating_sub(*then_ns) >= SECOND_NS) {
            self.0.pop_front();
        }
        let since = self.0.front().filter(|(_, then_ns, _)| now_ns.saturating_sub(*then_ns) >= SECOND_NS);
        let found = since.map(|(then, then_ns, came_then)| {
            let seconds = (now_ns - then_ns) as f64 / 1e9;
            (now.handshakes(then, seconds, came.since(came_then)), now.pressure(then, seconds))
        });
        self.0.push_back((now, now_ns, came));
        found
    }
}

impl Came {
    pub(super) fn since(self, before: &Self) -> Self {
        let since = |now: f64, before: f64| (now - before).max(0.0);
        Self {
            syns: since(self.syns, before.syns),
            shed: since(self.shed, before.shed),
            tcp: since(self.tcp, before.tcp),
        }
    }
}

impl Stack {
    /// Reads them, with those of the protected devices. Where a counter is not there it stays zero.
    pub(super) fn read(protected: &BTreeSet<String>) -> Self {
        let (snmp, netstat) = (text("/proc/net/snmp"), text("/proc/net/netstat"));
        Self {
            completed: counter(&snmp, "Tcp", "PassiveOpens"),
            refused: counter(&netstat, "TcpExt", "ListenDrops"),
            full_queues: counter(&netstat, "TcpExt", "ListenOverflows"),
            cookies: ["SyncookiesSent", "SyncookiesRecv"].map(|name| counter(&netstat, "TcpExt", name)),
            backlog: backlog_drops(&text("/proc/net/softnet_stat")),
            device: device_drops(protected),
            processors: processors(&text("/proc/stat")),
            overrun: counter(&snmp, "Udp", "RcvbufErrors") + counter_v6(&text("/proc/net/snmp6"), "Udp6RcvbufErrors"),
            segments: counter(&snmp, "Tcp", "InSegs"),
            forwarded: counter(&snmp, "Ip", "ForwDatagrams"),
        }
    }

    /// What they say of a time in which that came. `None` where there were too few, or where
    /// packets pass through this host to others, whose stacks nobody here sees.
    pub(super) fn handshakes(&self, before: &Self, seconds: f64, came: Came) -> Option<Handshakes> {
        let Came { syns, shed, tcp } = came;
        let since = |now: f64, before: f64| (now - before).max(0.0);
        let is_ours = since(self.segments, before.segments) >= tcp / 2.0
            && since(self.forwarded, before.forwarded) <= since(self.segments, before.segments) / 10.0;
        if syns < ENOUGH || !is_ours || seconds <= 0.0 {
            return None;
        }
        let (completed, refused) = (since(self.completed, before.completed), since(self.refused, before.refused));
        let answered = (syns - refused).max(0.0);
        let begun = syns + shed;
        Some(Handshakes {
            begun: begun as usize,
            completed: Some((completed / begun).min(1.0)),
            answered: Some(answered / begun),
            acknowledged: (answered >= ENOUGH).then(|| (completed / answered).min(1.0)),
            completed_per_second: completed / seconds,
            ..Handshakes::default()
        })
    }

    /// What there was no room for in this time.
    pub(super) fn pressure(&self, before: &Self, seconds: f64) -> Pressure {
        let rate = |now: f64, before: f64| (now - before).max(0.0) / seconds;
        let pairs = self.processors.iter().zip(&before.processors);
        let shares = pairs.map(|(now, then)| (now[1] - then[1]) / (now[0] - then[0]).max(1.0));
        Pressure {
            accepted: rate(self.completed, before.completed),
            connections: rate(self.refused, before.refused),
            full_queues: rate(self.full_queues, before.full_queues),
            datagrams: rate(self.overrun, before.overrun),
            backlog: rate(self.backlog, before.backlog),
            device: rate(self.device, before.device),
            cookies_sent: rate(self.cookies[0], before.cookies[0]),
            cookies_received: rate(self.cookies[1], before.cookies[1]),
            softirq: shares.fold(0.0, f64::max).clamp(0.0, 1.0),
        }
    }
}

/// Packets that processors had no room for: a line for each, in which the second number is that, in hexadecimal digits.
fn backlog_drops(text: &str) -> f64 {
    let of_line = |line: &str| u64::from_str_radix(line.split_whitespace().nth(1)?, 16).ok();
    text.lines().filter_map(of_line).sum::<u64>() as f64
}

/// Packets that these devices have dropped on their way in. What the filter drops is not among them.
fn device_drops(protected: &BTreeSet<String>) -> f64 {
    let devices = procfs::net::dev_status().unwrap_or_default().into_values();
    devices.filter(|device| protected.contains(&device.name)).map(|device| device.recv_drop).sum::<u64>() as f64
}

/// Of each processor the time in all and that for packets, in ticks: `cpu0 user nice system idle iowait irq softirq steal …`.
fn processors(text: &str) -> Vec<[f64; 2]> {
    let lines = text.lines().filter(|line| line.starts_with("cpu") && !line.starts_with("cpu "));
    let of_line = |line: &str| {
        // What guests take is in the first two already.
        let times: Vec<f64> = line.split_whitespace().skip(1).take(8).filter_map(|time| time.parse().ok()).collect();
        [times.iter().sum(), times.get(6).copied().unwrap_or(0.0)]
    };
    lines.map(of_line).collect()
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
    fn what_is_counted_is_of_the_last_second_at_any_moment() {
        let mut readings = Readings::default();
        // Refused from the fourth second on, a hundred a quarter of it. Each second quarter it is read.
        let refused = |tick: u64| Stack { full_queues: (tick.saturating_sub(16) * 100) as f64, ..Stack::default() };
        let mut at = |tick: u64| readings.take(|| refused(tick), tick * SECOND_NS / 4, Came::default());
        let found: Vec<_> = (0..24).map(|tick| at(tick).map(|(_, pressure)| pressure.full_queues)).collect();
        assert_eq!(found[..6], [None, None, None, None, Some(0.0), None]);
        assert_eq!(found[16..22], [Some(0.0), None, Some(200.0), None, Some(400.0), None]);
        // Whoever stood still for a while has a longer one.
        let late = readings.take(|| refused(32), 8 * SECOND_NS, Came::default());
        assert_eq!(late.map(|(_, pressure)| pressure.full_queues.round()), Some(400.0));
    }

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
        let came = Came { syns: 1_000.0, shed: 0.0, tcp: 3_000.0 };
        let shares = full.handshakes(&before, 1.0, came).unwrap();
        assert_eq!((shares.answered, shares.acknowledged), (Some(0.1), Some(1.0)));
        let served = Stack { completed: 100.0, segments: 3_000.0, ..Stack::default() };
        let shares = served.handshakes(&before, 1.0, Came { syns: 100.0, shed: 900.0, ..came }).unwrap();
        assert_eq!((shares.answered, shares.acknowledged), (Some(0.1), Some(1.0)), "the rest is shed in front of it");
        let forged = Stack { completed: 10.0, segments: 3_000.0, ..Stack::default() };
        let shares = forged.handshakes(&before, 1.0, came).unwrap();
        assert_eq!((shares.answered, shares.acknowledged), (Some(1.0), Some(0.01)));
        let router = Stack { segments: 10.0, forwarded: 3_000.0, ..Stack::default() };
        assert_eq!(router.handshakes(&before, 1.0, came), None);
        assert!(full.pressure(&before, 1.0).is_high() && !forged.pressure(&before, 1.0).is_high());
    }

    #[test]
    fn backlogs_and_processors_are_read() {
        assert_eq!(backlog_drops("0000aaaa 0000000a 00000001 0\n0000bbbb 00000010 00000000 0\n"), 26.0);
        let stat = "cpu  9 9 9 9 9 9 9 9 0 0\ncpu0 10 0 10 70 0 0 10 0 5 0\ncpu1 0 0 0 50 0 0 50 0 0 0\nintr 1\n";
        let now = Stack { processors: processors(stat), backlog: 26.0, ..Stack::default() };
        assert_eq!(now.processors, [[100.0, 10.0], [100.0, 50.0]]);
        let before = Stack { processors: vec![[0.0, 0.0]; 2], ..Stack::default() };
        let pressure = now.pressure(&before, 2.0);
        assert_eq!((pressure.softirq, pressure.backlog), (0.5, 13.0));
        assert_eq!(
            now.pressure(&Stack::default(), 1.0).softirq,
            0.0,
            "of processors that were not there nobody can say"
        );
    }

    #[test]
    fn datagrams_without_room_are_pressure_too() {
        assert_eq!(
            counter_v6("Udp6InErrors                    \t3\nUdp6RcvbufErrors \t70\n", "Udp6RcvbufErrors"),
            70.0
        );
        let (before, now) = (Stack { overrun: 50.0, ..Stack::default() }, Stack { overrun: 70.0, ..Stack::default() });
        assert!(now.pressure(&before, 1.0).is_high() && !now.pressure(&before, 3.0).is_high());
    }
}

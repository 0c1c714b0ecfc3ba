//! How hard the host is pressed: what it had no room for in the last second, by its own counts.

use std::fmt;

use serde::{Deserialize, Serialize};

/// Packets and connections that a host has no room for in a second, from which on it is hard pressed.
const REFUSED: f64 = 10.0;
/// The share of one processor that is taken by packets, from which on it is.
const BUSY: f64 = 0.9;

/// What there was no room for, a second each, and how busy the host is with packets.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Pressure {
    /// Connections from outside that were opened.
    pub accepted: f64,
    /// Connections that no listener had room for: SYNs and handshakes that were dropped.
    pub connections: f64,
    /// Of these, such as found the queue of their listener full: what listens there does not accept them fast enough.
    pub full_queues: f64,
    /// Datagrams that the socket which they were for had no room for.
    pub datagrams: f64,
    /// Packets that a processor had no room for in its backlog.
    pub backlog: f64,
    /// Packets that a protected device had no room for, or dropped before the filter saw them.
    pub device: f64,
    /// SYN cookies that the host's stack has sent, and that came back to it.
    pub cookies_sent: f64,
    /// See above.
    pub cookies_received: f64,
    /// The share of its time that the processor which is busiest with packets gives them (softirq), from 0 to 1.
    pub softirq: f64,
}

impl Pressure {
    /// All that there was no room for.
    fn refused(&self) -> [(f64, &'static str); 4] {
        [
            (self.connections, "connections/s that no listener has room for"),
            (self.datagrams, "datagrams/s that no socket has room for"),
            (self.backlog, "packets/s that no processor has room for"),
            (self.device, "packets/s that the device has no room for"),
        ]
    }

    /// Whether that is more than the host can take.
    pub fn is_high(&self) -> bool {
        self.refused().iter().map(|(number, _)| number).sum::<f64>() >= REFUSED || self.softirq >= BUSY
    }
}

impl fmt::Display for Pressure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (number, what) in self.refused().iter().filter(|(number, _)| *number >= 1.0) {
            write!(f, "{number:.0} {what}, ")?;
        }
        write!(f, "{:.0} % of the busiest processor for packets", self.softirq * 100.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_is_pressed_by_what_it_refuses_or_by_packets_alone() {
        let idle = Pressure { softirq: 0.2, connections: 3.0, ..Pressure::default() };
        assert!(!idle.is_high());
        for high in [
            Pressure { connections: 12.0, ..idle },
            Pressure { datagrams: 4.0, backlog: 4.0, ..idle },
            Pressure { device: 500.0, ..idle },
            Pressure { softirq: 0.97, ..idle },
        ] {
            assert!(high.is_high(), "{high}");
        }
        let words = Pressure { connections: 412.0, softirq: 0.31, ..Pressure::default() }.to_string();
        assert_eq!(words, "412 connections/s that no listener has room for, 31 % of the busiest processor for packets");
    }
}

//! What was seen in the worst second of an incident, and who holds connections.

use std::collections::HashMap;

use crate::detect::{Detector, Features, Holder, Vector};
use crate::incident::Incident;

/// Sources and targets that a record names.
const NAMED: usize = 5;

/// Keeps what was seen in the worst second.
pub(super) fn note_peak(incident: &mut Incident, detector: &Detector, features: &Features) {
    incident.peak_packets_per_second = features.per_second;
    note_whom(incident, detector);
}

/// Keeps from whom and for what the kinds of flood of the incident are now.
pub(super) fn note_whom(incident: &mut Incident, detector: &Detector) {
    let mut sources = HashMap::<String, f64>::new();
    let mut targets = HashMap::<String, f64>::new();
    let groups: Vec<_> = incident.vectors.iter().map(|vector| vector.group()).collect();
    let mut all = 0.0;
    for (_, packet) in detector.window().packets().filter(|(group, _)| groups.is_empty() || groups.contains(group)) {
        let weight = f64::from(packet.weight);
        all += weight;
        *sources.entry(crate::talkers::source_name(packet.source)).or_default() += weight;
        let port = packet.ports.map_or_else(String::new, |(_, port)| format!(" port {port}"));
        *targets.entry(format!("{}{port}", protocol_name(packet.protocol))).or_default() += weight;
    }
    incident.source_count = sources.len();
    incident.sources = most(sources, all);
    incident.targets =
        most(targets, all).into_iter().filter(|(_, share)| *share >= 0.05).map(|(name, _)| name).collect();
}

/// Who holds connections shows in no packets: where nothing else goes on, it is those that are named. Connections that they hold.
pub(super) fn note_holders(incident: &mut Incident, features: &Features) -> usize {
    let is_all = incident.vectors == [Vector::SlowConnections];
    let Some(held) = features.held.as_ref().filter(|held| is_all && !held.holders.is_empty()) else { return 0 };
    let of = |holder: &Holder| (crate::talkers::source_name(holder.source), f64::from(holder.slow));
    incident.source_count = held.holders.len();
    incident.sources = most(held.holders.iter().map(of).collect(), held.slow.max(1) as f64);
    held.slow
}

fn protocol_name(protocol: u8) -> String {
    match protocol {
        1 => "ICMP".to_owned(),
        6 => "TCP".to_owned(),
        17 => "UDP".to_owned(),
        58 => "ICMPv6".to_owned(),
        other => format!("IP protocol {other}"),
    }
}

fn most(weights: HashMap<String, f64>, all: f64) -> Vec<(String, f64)> {
    let mut shares: Vec<_> = weights.into_iter().map(|(name, weight)| (name, weight / all)).collect();
    shares.sort_by(|a, b| b.1.total_cmp(&a.1).then_with(|| a.0.cmp(&b.0)));
    shares.truncate(NAMED);
    shares
}

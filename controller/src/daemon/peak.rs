//! What was seen in the worst second of an incident, and of each kind of flood in its own, and who holds connections.

use std::collections::HashMap;

use crate::detect::{Detector, Features, Holder, Observed, Vector};
use crate::incident::{Incident, Shape, destinations, protocol_name};

/// Sources and targets that a record names.
const NAMED: usize = 5;
/// How many times as much of a kind has to come for another look at its packets.
const WORSE: f64 = 1.1;

/// Keeps what was seen in the worst second, in which so many bytes came.
pub(super) fn note_peak(incident: &mut Incident, detector: &Detector, features: &Features, bytes_per_second: f64) {
    incident.peak_packets_per_second = features.per_second;
    incident.peak_megabits_per_second = bytes_per_second * 8.0 / 1e6;
    note_whom(incident, detector);
}

/// Keeps from whom and for what the kinds of flood of the incident are now.
pub(super) fn note_whom(incident: &mut Incident, detector: &Detector) {
    let mut sources = HashMap::<String, f64>::new();
    let mut targets = HashMap::<String, f64>::new();
    let groups: Vec<_> = incident.vectors.iter().map(|vector| vector.group()).collect();
    let mut all = 0.0;
    let of_incident = detector.window().packets().filter(|(group, _)| groups.is_empty() || groups.contains(group));
    let packets: Vec<_> = of_incident.map(|(_, packet)| packet).collect();
    for packet in &packets {
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
    incident.destinations = destinations(packets.into_iter());
}

/// Keeps what the packets of each kind that goes on look like, where there are more of them than ever. Those of ends that this host
/// speaks with are not of it.
pub(super) fn note_shapes(incident: &mut Incident, current: &[Vector], detector: &Detector, features: &Features) {
    for vector in current {
        let per_second = features.of(vector.group()).per_second;
        let known = incident.shapes.iter().position(|shape| shape.vector == *vector);
        if known.is_some_and(|place| per_second < WORSE * incident.shapes[place].packets_per_second) {
            continue;
        }
        let is_of = |packet: &Observed| packet.is_known != Some(true);
        let packets = detector.window().packets().filter(|(group, packet)| *group == vector.group() && is_of(packet));
        match (Shape::of(*vector, per_second, packets.map(|(_, packet)| packet)), known) {
            (Some(shape), Some(place)) => incident.shapes[place] = shape,
            (Some(shape), None) => incident.shapes.push(shape),
            (None, _) => {}
        }
    }
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

fn most(weights: HashMap<String, f64>, all: f64) -> Vec<(String, f64)> {
    let mut shares: Vec<_> = weights.into_iter().map(|(name, weight)| (name, weight / all)).collect();
    shares.sort_by(|a, b| b.1.total_cmp(&a.1).then_with(|| a.0.cmp(&b.0)));
    shares.truncate(NAMED);
    shares
}

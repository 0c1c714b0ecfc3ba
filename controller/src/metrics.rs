//! What Prometheus scrapes: a view of the snapshot, and nothing beside it. docs/metrics.md describes each name.

use floodwall_common::abi::Stream;
use floodwall_common::class::Family;
use floodwall_common::config::Mode;
use floodwall_common::limits::{LimitName, Rate};
use floodwall_common::reason::Verdict;
use prometheus::core::Collector;
use prometheus::proto::MetricFamily;
use prometheus::{Encoder, GaugeVec, IntCounterVec, IntGaugeVec, Opts, Registry, TextEncoder};

use crate::dataplane::{AttachMode, Cell};
use crate::detect::{self, Group, Vector};
use crate::history::Origin;
use crate::incident::State;
use crate::latencies::LatencyMetric;
use crate::snapshot::{Snapshot, class_of};

/// The content type of [`render`].
pub const CONTENT_TYPE: &str = prometheus::TEXT_FORMAT;

/// Renders a snapshot in the text format.
///
/// # Errors
/// Where a metric is misnamed: a bug that the tests catch.
pub fn render(snapshot: &Snapshot) -> prometheus::Result<String> {
    let registry = Registry::new();
    let families = [traffic(snapshot)?, limits(snapshot)?, state(snapshot)?, situation(snapshot)?, tables(snapshot)?];
    for collector in families.into_iter().flatten() {
        registry.register(collector)?;
    }
    let mut text = Vec::new();
    let gathered: Vec<MetricFamily> = registry.gather();
    TextEncoder::new().encode(&gathered, &mut text)?;
    Ok(String::from_utf8_lossy(&text).into_owned())
}

type Collectors = prometheus::Result<Vec<Box<dyn Collector>>>;

fn counter(name: &str, help: &str, labels: &[&str]) -> prometheus::Result<IntCounterVec> {
    IntCounterVec::new(Opts::new(name, help), labels)
}

fn gauge(name: &str, help: &str, labels: &[&str]) -> prometheus::Result<IntGaugeVec> {
    IntGaugeVec::new(Opts::new(name, help), labels)
}

fn traffic(snapshot: &Snapshot) -> Collectors {
    let by_reason = ["interface", "verdict", "reason"];
    let by_class = ["interface", "verdict", "class", "family"];
    let packets = counter("floodwall_packets_total", "Packets by what became of them and why.", &by_reason)?;
    let bytes = counter("floodwall_bytes_total", "Bytes of frames by what became of them and why.", &by_reason)?;
    let class_packets =
        counter("floodwall_class_packets_total", "IP packets by class and what became of them.", &by_class)?;
    let class_bytes =
        counter("floodwall_class_bytes_total", "Bytes of IP frames by class and what became of them.", &by_class)?;
    let would_drop = counter(
        "floodwall_would_drop_packets_total",
        "Packets that passed in monitor mode and that enforce mode would have dropped.",
        &["interface", "reason"],
    )?;
    for interface in &snapshot.interfaces {
        let name = interface.protected.name.as_str();
        for cell in &interface.cells {
            let (verdict, reason) = (cell.verdict.label(), cell.reason.label());
            packets.with_label_values(&[name, verdict, reason]).inc_by(cell.packets);
            bytes.with_label_values(&[name, verdict, reason]).inc_by(cell.bytes);
            if let Some((class, family)) = class_of(cell) {
                let labels = [name, verdict, class.label(), family.label()];
                class_packets.with_label_values(&labels).inc_by(cell.packets);
                class_bytes.with_label_values(&labels).inc_by(cell.bytes);
            }
            if would_drop_cell(snapshot, cell) {
                would_drop.with_label_values(&[name, reason]).inc_by(cell.packets);
            }
        }
    }
    Ok(vec![Box::new(packets), Box::new(bytes), Box::new(class_packets), Box::new(class_bytes), Box::new(would_drop)])
}

fn would_drop_cell(snapshot: &Snapshot, cell: &Cell) -> bool {
    cell.verdict == Verdict::Pass && cell.reason.verdict(snapshot.drops) == Verdict::Drop
}

fn limits(snapshot: &Snapshot) -> Collectors {
    let labels = ["limit", "per"];
    let vec = |name: &str, help: &str| GaugeVec::new(Opts::new(name, help), &labels);
    let pps =
        vec("floodwall_limit_packets_per_second", "Packets per second, by who shares the limit; +Inf for no limit.")?;
    let packet_burst =
        vec("floodwall_limit_burst_packets", "Packets at once, by who shares the limit; +Inf for no limit.")?;
    let bps = vec("floodwall_limit_bytes_per_second", "Bytes per second, by who shares the limit; +Inf for no limit.")?;
    let byte_burst = vec("floodwall_limit_burst_bytes", "Bytes at once, by who shares the limit; +Inf for no limit.")?;
    for (key, limits) in &snapshot.limits {
        let labels = [key.name.label(), key.per.label()];
        for (rate, per_second, burst) in [(limits.packets, &pps, &packet_burst), (limits.bytes, &bps, &byte_burst)] {
            let (rate, at_once) = per_second_and_burst(rate);
            per_second.with_label_values(&labels).set(rate);
            burst.with_label_values(&labels).set(at_once);
        }
    }
    let labels = ["group", "limit"];
    let vec = |name: &str, help: &str| GaugeVec::new(Opts::new(name, help), &labels);
    let of_group = [
        vec(
            "floodwall_group_limit_packets_per_second",
            "Packets per second of a source in a group; +Inf for no limit.",
        )?,
        vec("floodwall_group_limit_bytes_per_second", "Bytes per second of a source in a group; +Inf for no limit.")?,
    ];
    for (group, name, limits) in &snapshot.group_limits {
        for (gauge, rate) in of_group.iter().zip([limits.packets, limits.bytes]) {
            gauge.with_label_values(&[group, name.label()]).set(per_second_and_burst(rate).0);
        }
    }
    let [group_pps, group_bps] = of_group;
    let of_service = |name: &str, help: &str| GaugeVec::new(Opts::new(name, help), &["service"]);
    let [cap, connection_cap] = [
        of_service("floodwall_service_cap_packets_per_second", "Packets per second to a service; +Inf for no cap.")?,
        of_service(
            "floodwall_service_cap_connections_per_second",
            "New connections per second to a service; +Inf for no cap.",
        )?,
    ];
    for (name, rates) in &snapshot.caps {
        for (gauge, rate) in [&cap, &connection_cap].into_iter().zip(rates) {
            gauge.with_label_values(&[name]).set(per_second_and_burst(*rate).0);
        }
    }
    Ok(vec![
        Box::new(pps),
        Box::new(packet_burst),
        Box::new(bps),
        Box::new(byte_burst),
        Box::new(group_pps),
        Box::new(group_bps),
        Box::new(cap),
        Box::new(connection_cap),
    ])
}

fn per_second_and_burst(rate: Rate) -> (f64, f64) {
    match rate {
        Rate::Off => (f64::INFINITY, f64::INFINITY),
        Rate::Block => (0.0, 0.0),
        Rate::Limit { per_second, burst } => (per_second as f64, burst as f64),
    }
}

fn state(snapshot: &Snapshot) -> Collectors {
    let mode = gauge("floodwall_mode", "1 for the mode in force.", &["mode"])?;
    for each in Mode::ALL {
        mode.with_label_values(&[each.label()]).set(i64::from(*each == snapshot.mode));
    }
    let attached = gauge(
        "floodwall_xdp_attached",
        "1 where the device has the filter in this mode, by what the device says.",
        &["interface", "mode"],
    )?;
    for interface in &snapshot.interfaces {
        for each in AttachMode::ALL {
            let on = interface.protected.attached == Some(each);
            attached.with_label_values(&[&interface.protected.name, each.label()]).set(i64::from(on));
        }
    }
    let egress = gauge(
        "floodwall_egress_attached",
        "1 where what leaves through the interface is remembered, so that replies can be told.",
        &["interface"],
    )?;
    for interface in &snapshot.interfaces {
        let on = interface.protected.egress_hook.is_some();
        egress.with_label_values(&[&interface.protected.name]).set(i64::from(on));
    }
    let degraded = gauge("floodwall_degraded", "1 where an interface is not protected, or not natively.", &[])?;
    let native = |interface: &crate::snapshot::Interface| interface.protected.attached == Some(AttachMode::Native);
    let healthy = snapshot.is_attached() && snapshot.interfaces.iter().all(native);
    degraded.with_label_values(&[] as &[&str]).set(i64::from(!healthy));
    let build = gauge("floodwall_build_info", "1; the labels say which build runs.", &["version", "abi"])?;
    let abi = floodwall_common::abi::ABI_VERSION.to_string();
    build.with_label_values(&[env!("CARGO_PKG_VERSION"), &abi]).set(1);
    Ok(vec![Box::new(mode), Box::new(attached), Box::new(egress), Box::new(degraded), Box::new(build)])
}

fn situation(snapshot: &Snapshot) -> Collectors {
    let verdict = gauge("floodwall_verdict", "1 for what goes on, by detection.", &["verdict"])?;
    let attack = gauge("floodwall_attack_active", "1 for each kind of flood that goes on.", &["vector"])?;
    let none: [&str; 0] = [];
    let sure = Opts::new("floodwall_verdict_confidence_ratio", "How sure that is, from 0 to 1.");
    let sure = GaugeVec::new(sure, &none)?;
    let measures =
        gauge("floodwall_automatic_measures", "Measures that detection has armed and that are in force.", &none)?;
    let open = gauge(
        "floodwall_connections_open",
        "Connections that are open, of 8,192 that are looked at; absent where too few are to be looked at.",
        &none,
    )?;
    let held = gauge(
        "floodwall_connections_held",
        "Of these, connections that ask for nothing, of sources that hold several such and use none.",
        &none,
    )?;
    let state = gauge("floodwall_incident_state", "1 for where the incident stands that goes on.", &["state"])?;
    let most = gauge(
        "floodwall_source_peak_packets_per_second",
        "The most packets that one source has sent in a second of the last ten minutes, by the sample.",
        &["limit"],
    )?;
    let drill =
        gauge("floodwall_drill_active", "1 while a drill goes on: the alert fires, and there is no attack.", &none)?;
    let findings =
        gauge("floodwall_audit_findings", "Findings of the last audit, by how much they matter.", &["severity"])?;
    let mended = counter(
        "floodwall_mended_total",
        "Things that others had undone and that the daemon did again: attachments, pins, names.",
        &none,
    )?;
    let changes = counter(
        "floodwall_changes_total",
        "Changes since the daemon's start, by whose word they were. The history says which.",
        &["by"],
    )?;
    let [detected, mitigated] = snapshot.check_up.as_ref().map_or_else(Default::default, |check_up| check_up.latencies);
    let detection = LatencyMetric::new(
        "floodwall_detection_seconds",
        "From the first sign of an incident to the verdict, of incidents that are over.",
        detected,
    )?;
    let mitigation = LatencyMetric::new(
        "floodwall_mitigation_seconds",
        "From the first sign of an incident to the first measure, of incidents that are over.",
        mitigated,
    )?;
    let usual = GaugeVec::new(
        Opts::new(
            "floodwall_usual_packets_per_second",
            "Packets of a group that are usual in a second at this hour, from all sources; absent while nobody knows.",
        ),
        &["group"],
    )?;
    let usual_connections = GaugeVec::new(
        Opts::new(
            "floodwall_usual_connections_per_second",
            "Connections that are usually completed in a second at this hour; absent while nobody knows.",
        ),
        &none,
    )?;
    if let Some(check_up) = &snapshot.check_up {
        mended.with_label_values(&none).inc_by(check_up.mended);
        for (origin, number) in Origin::ALL.iter().zip(check_up.changes) {
            changes.with_label_values(&[origin.label()]).inc_by(number);
        }
        drill.with_label_values(&none).set(i64::from(check_up.drill));
        for (severity, number) in ["warning", "problem"].into_iter().zip(check_up.findings.into_iter().flatten()) {
            findings.with_label_values(&[severity]).set(number as i64);
        }
    }
    let refused = GaugeVec::new(
        Opts::new(
            "floodwall_host_refused_per_second",
            "What the host had no room for in the last second, by what it was.",
        ),
        &["what"],
    )?;
    let softirq = GaugeVec::new(
        Opts::new(
            "floodwall_host_softirq_ratio",
            "Share of its time that the processor which is busiest with packets gives them.",
        ),
        &none,
    )?;
    // Without a daemon nobody looks.
    if let Some(situation) = &snapshot.situation {
        for each in detect::Verdict::ALL {
            verdict.with_label_values(&[each.label()]).set(i64::from(each == situation.verdict));
        }
        for each in Vector::ALL {
            attack.with_label_values(&[each.label()]).set(i64::from(situation.vectors.contains(&each)));
        }
        let pressure = &situation.pressure;
        for (what, number) in [
            ("connections", pressure.connections),
            ("datagrams", pressure.datagrams),
            ("backlog", pressure.backlog),
            ("device", pressure.device),
        ] {
            refused.with_label_values(&[what]).set(number);
        }
        softirq.with_label_values(&none).set(pressure.softirq);
        sure.with_label_values(&none).set(situation.confidence);
        measures.with_label_values(&none).set(situation.measures as i64);
        for (gauge, number) in [(&open, situation.open_connections), (&held, situation.held_connections)] {
            number.iter().for_each(|number| gauge.with_label_values(&none).set(*number as i64));
        }
        for each in [State::Open, State::Acknowledged] {
            state.with_label_values(&[each.label()]).set(i64::from(situation.incident_state == Some(each)));
        }
        let (packets, connections) = &situation.usual;
        for (group, packets) in Group::ALL.iter().zip(packets) {
            packets.iter().for_each(|packets| usual.with_label_values(&[group.label()]).set(*packets));
        }
        connections.iter().for_each(|connections| usual_connections.with_label_values(&none).set(*connections));
        // Who is allowed is under a limit of his own, and not sampled by it.
        for name in LimitName::ALL.iter().filter(|name| **name != LimitName::Allowed) {
            let packets = situation.most_of_a_source[*name as usize];
            most.with_label_values(&[name.label()]).set(i64::try_from(packets).unwrap_or(i64::MAX));
        }
    }
    Ok(vec![
        Box::new(verdict),
        Box::new(attack),
        Box::new(sure),
        Box::new(refused),
        Box::new(softirq),
        Box::new(measures),
        Box::new(open),
        Box::new(held),
        Box::new(state),
        Box::new(most),
        Box::new(usual),
        Box::new(usual_connections),
        Box::new(drill),
        Box::new(findings),
        Box::new(mended),
        Box::new(changes),
        Box::new(detection),
        Box::new(mitigation),
    ])
}

fn tables(snapshot: &Snapshot) -> Collectors {
    let none: [&str; 0] = [];
    let sources = gauge("floodwall_sources", "Sources that owe something: entries of the source table in use.", &none)?;
    sources.with_label_values(&none).set(snapshot.sources as i64);
    let capacity = gauge("floodwall_sources_capacity", "Entries of the source table.", &none)?;
    capacity.with_label_values(&none).set(snapshot.source_capacity as i64);
    let entries = gauge("floodwall_list_entries", "Entries of a list.", &["list", "family"])?;
    for size in &snapshot.lists {
        let family: Family = size.family;
        entries.with_label_values(&[size.list.label(), family.label()]).set(size.entries as i64);
    }
    let list_capacity = gauge("floodwall_list_capacity", "Entries that a list may hold.", &none)?;
    list_capacity.with_label_values(&none).set(snapshot.list_capacity as i64);
    let signatures = gauge("floodwall_signatures", "Signatures in force.", &none)?;
    signatures.with_label_values(&none).set(snapshot.signatures as i64);
    let lost = counter(
        "floodwall_samples_lost_total",
        "Sampled headers that found the ring full. Counters are exact all the same.",
        &["stream"],
    )?;
    let packets = counter(
        "floodwall_stream_packets_total",
        "Packets of each stream of samples, as estimated from those that were drawn.",
        &["stream"],
    )?;
    let every = gauge("floodwall_sample_interval_packets", "One packet in so many is sampled.", &["stream"])?;
    for stream in Stream::ALL {
        lost.with_label_values(&[stream.label()]).inc_by(snapshot.samples.lost[*stream as usize]);
        packets.with_label_values(&[stream.label()]).inc_by(snapshot.samples.packets[*stream as usize]);
        every.with_label_values(&[stream.label()]).set(i64::from(snapshot.sample_every[*stream as usize]));
    }
    Ok(vec![
        Box::new(sources),
        Box::new(capacity),
        Box::new(entries),
        Box::new(list_capacity),
        Box::new(signatures),
        Box::new(lost),
        Box::new(packets),
        Box::new(every),
    ])
}

//! An incident as texts that people send: a draft of the postmortem, a request to the provider, a notice to customers. Numbers
//! are filled in; what only people know is marked.

use std::fmt::Write;
use std::time::Duration;

use super::{Incident, State, utc};
use crate::configuration::Contacts;
use crate::detect::Verdict;

/// Sources with less than this share of the packets are not named to the provider.
const NAMED: f64 = 0.01;
/// What only people know.
const TO_FILL_IN: &str = "_to be filled in_";

/// A draft of the postmortem, in Markdown.
pub fn postmortem(incident: &Incident, contacts: &Contacts) -> String {
    let mut text = String::new();
    let _ = write!(
        text,
        "# Postmortem: {what} on {date}\n\n\
         Incident {id}, {state}. Draft by Floodwall; {TO_FILL_IN} marks what only people know.\n\n\
         ## Issue Summary\n\n{summary}\n\n\
         ## Duration\n\n{duration}\n\n\
         ## Impact\n\n{impact}\n\n\
         Users affected: {TO_FILL_IN}\n\n\
         ## Root Cause\n\n{cause}\n\n\
         Why it was possible: {TO_FILL_IN}\n\n\
         ## Timeline\n\n{timeline}\n\
         ## Resolution\n\n{resolution}\n\n\
         ## Corrective and Preventative Measures\n\n{measures}",
        what = what(incident),
        date = utc(incident.began_unix_ms),
        id = incident.id,
        state = incident.state.label(),
        summary = summary(incident),
        duration = duration(incident),
        impact = impact(incident),
        cause = cause(incident),
        timeline = timeline(incident),
        resolution = resolution(incident),
        measures = measures(incident, contacts),
    );
    text
}

fn what(incident: &Incident) -> String {
    let vectors: Vec<_> = incident.vectors.iter().map(|vector| vector.label()).collect();
    match incident.verdict {
        Verdict::Attack => vectors.join(" and "),
        Verdict::Mixed => format!("{} within a surge of customers", vectors.join(" and ")),
        Verdict::Surge => "surge of customers".to_owned(),
        Verdict::Overload => "overload by customers".to_owned(),
        Verdict::Misconfiguration => "client gone wild (misconfiguration)".to_owned(),
        Verdict::Normal => "nothing out of the ordinary".to_owned(),
    }
}

fn summary(incident: &Incident) -> String {
    format!(
        "On {} this host saw a {}: at its peak {}, {} to {}.{} Floodwall was {:.0} % sure, because\n\n{}",
        utc(incident.began_unix_ms),
        what(incident),
        peak(incident),
        from(incident),
        to(incident),
        whose(incident).map(|whose| format!(" Gone wild had {whose}.")).unwrap_or_default(),
        incident.confidence * 100.0,
        list(&incident.reasons),
    )
}

fn from(incident: &Incident) -> String {
    match incident.source_count {
        0 => "from sources that were not sampled".to_owned(),
        1 => "from one source".to_owned(),
        count => format!("from {count} different sources among the sampled packets of the worst second"),
    }
}

/// The networks of whoever had gone wild.
fn whose(incident: &Incident) -> Option<String> {
    let who: Vec<_> = incident.who.iter().map(ToString::to_string).collect();
    (!who.is_empty()).then(|| who.join(", "))
}

fn to(incident: &Incident) -> String {
    if incident.targets.is_empty() { "no port in particular".to_owned() } else { incident.targets.join(", ") }
}

/// The most that came in, of all.
fn peak(incident: &Incident) -> String {
    let packets = format!("{:.0} packets a second", incident.peak_packets_per_second);
    match incident.peak_megabits_per_second {
        // Records of before have none.
        0.0 => packets,
        megabits => format!("{packets} ({megabits:.1} Mbit/s)"),
    }
}

/// The addresses that it was for.
fn destinations(incident: &Incident) -> String {
    let address = |(name, share): &(String, f64)| format!("{name} ({:.1} %)", share * 100.0);
    match &incident.destinations[..] {
        [] => format!("{TO_FILL_IN} (address)"),
        all => all.iter().map(address).collect::<Vec<_>>().join(", "),
    }
}

fn list(items: &[String]) -> String {
    items.iter().map(|item| format!("- {item}\n")).collect::<String>().trim_end().to_owned()
}

fn duration(incident: &Incident) -> String {
    let seconds = |unix_ms: u64| incident.seconds_to(unix_ms);
    let mut lines = vec![
        format!("| first sign | {} | |", utc(incident.began_unix_ms)),
        format!("| verdict | {} | {:.1} s |", utc(incident.detected_unix_ms), seconds(incident.detected_unix_ms)),
    ];
    match incident.mitigated_unix_ms {
        Some(at) => lines.push(format!("| first measure | {} | {:.1} s |", utc(at), seconds(at))),
        None => lines.push("| first measure | none | |".to_owned()),
    }
    match incident.ended_unix_ms {
        Some(at) => {
            let lasted = humantime::format_duration(Duration::from_secs(seconds(at) as u64));
            lines.push(format!("| last sign | {} | {lasted} |", utc(at)));
        }
        None => lines.push("| last sign | it goes on | |".to_owned()),
    }
    format!("| | when | after |\n|---|---|---|\n{}", lines.join("\n"))
}

fn impact(incident: &Incident) -> String {
    let dropped = if incident.enforced { "dropped at the NIC" } else { "would have been dropped (monitor mode)" };
    let all = (incident.dropped + incident.passed).max(1) as f64;
    format!(
        "{} packets {dropped}, {} passed ({:.2} %).",
        incident.dropped,
        incident.passed,
        incident.passed as f64 * 100.0 / all
    )
}

fn cause(incident: &Incident) -> String {
    let sources: Vec<_> =
        incident.sources.iter().map(|(source, share)| format!("{source} ({:.1} %)", share * 100.0)).collect();
    let sources = if sources.is_empty() { "none stands out".to_owned() } else { sources.join(", ") };
    let whose = whose(incident).map(|whose| {
        format!(" Networks that began many times what comes from there otherwise: {whose}. What happened there: {TO_FILL_IN}.")
    });
    let mut text = format!(
        "A {} to {}, {}.{} Sources that sent most: {sources}.",
        what(incident),
        destinations(incident),
        to(incident),
        whose.unwrap_or_default()
    );
    for shape in &incident.shapes {
        let _ =
            write!(text, "\n\n{}, {} at its peak:\n\n{}", shape.vector.label(), shape.volume(), list(&shape.lines()));
    }
    text
}

fn timeline(incident: &Incident) -> String {
    let mut text = "| UTC | by | what |\n|---|---|---|\n".to_owned();
    for event in &incident.timeline {
        let what = event.what.replace('|', "/");
        let _ = writeln!(text, "| {} | {} | {what} |", utc(event.unix_ms), event.by);
    }
    text
}

fn resolution(incident: &Incident) -> String {
    let actions = if incident.actions.is_empty() { "Nothing was done.".to_owned() } else { list(&incident.actions) };
    match incident.state {
        State::Resolved => actions,
        _ => format!("It goes on. Until now:\n\n{actions}"),
    }
}

fn measures(incident: &Incident, contacts: &Contacts) -> String {
    let mut items = vec![format!("Who notices next time, and how: {TO_FILL_IN}")];
    if !incident.enforced {
        items.push("Floodwall only watched: `floodwall mode enforce` lets it drop".to_owned());
    }
    if incident.actions.is_empty() {
        items.push(
            "Nothing was armed: `respond = \"act\"` in the configuration lets Floodwall arm what it proposes"
                .to_owned(),
        );
    }
    items.push(format!("What the provider ({}) filters on request: {TO_FILL_IN}", known(contacts.provider.as_ref())));
    items.push(format!("Owner and date of each measure: {TO_FILL_IN}"));
    list(&items) + "\n"
}

fn known(contact: Option<&String>) -> &str {
    contact.map_or(TO_FILL_IN, String::as_str)
}

/// A request to the provider, as plain text.
pub fn isp_request(incident: &Incident, contacts: &Contacts) -> String {
    let mut text = format!(
        "To: {provider}\n\
         Subject: request to filter a {what}, since {since}\n\n\
         We are the target of a {what} since {since} (incident {id}).\n\n\
         Target: {destinations}, {to}\n\
         Peak: {peak}, of all that came in\n\
         Origin: {from}\n",
        provider = known(contacts.provider.as_ref()),
        what = what(incident),
        since = utc(incident.began_unix_ms),
        id = incident.id,
        destinations = destinations(incident),
        to = to(incident),
        peak = peak(incident),
        from = from(incident),
    );
    if let Some(whose) = whose(incident) {
        let _ = writeln!(text, "Networks of a client that has gone wild: {whose}");
    }
    // Of forged addresses none is of any use to him.
    let are_forged = !incident.shapes.is_empty() && incident.shapes.iter().all(|shape| shape.is_forged);
    for (source, share) in incident.sources.iter().filter(|(_, share)| *share >= NAMED && !are_forged) {
        let _ = writeln!(text, "  {source}: {:.1} % of the sampled packets", share * 100.0);
    }
    for shape in &incident.shapes {
        let _ = writeln!(text, "\nPackets of the {}, {} at its peak:", shape.vector.label(), shape.volume());
        for line in shape.lines() {
            let _ = writeln!(text, "  {line}");
        }
    }
    text += "\nIt is told by:\n";
    for line in incident.reasons.iter().chain(&incident.actions) {
        let _ = writeln!(text, "  - {line}");
    }
    let _ = write!(
        text,
        "\nPlease filter or rate-limit this traffic before it reaches our link, and tell us what you see.\n\
         {}; our link is loaded all the same.\n\n\
         Contact: {}\n",
        match incident.enforced && incident.dropped > 0 {
            true => "We drop what we can of it at our host",
            false => "We do not drop it at our host",
        },
        known(contacts.operator.as_ref())
    );
    text
}

/// A notice to customers, as plain text: of what goes on or went on, what is done about it, and by whom.
pub fn customer_notice(incident: &Incident) -> String {
    let since = utc(incident.began_unix_ms);
    let is_filtered = incident.enforced && incident.dropped > 0;
    let (was, is) = match (incident.verdict.is_attack(), is_filtered) {
        (true, true) => (
            "traffic that was not from customers, and filtered it",
            "traffic that is not from customers, and filters it",
        ),
        (true, false) => ("traffic that was not from customers", "traffic that is not from customers"),
        (false, _) if incident.verdict == Verdict::Misconfiguration => (
            "far more requests than usual, most of them from the systems of one client",
            "far more requests than usual, most of them from the systems of one client",
        ),
        (false, _) => ("far more requests than usual", "far more requests than usual"),
    };
    let who = match incident.state {
        State::Acknowledged => "Our engineers are at work on it.",
        _ => "It was noticed at once and is being watched.",
    };
    match (incident.state, incident.ended_unix_ms) {
        (State::Resolved, Some(ended)) => format!(
            "Between {since} and {} our service received {was}. If you saw errors or slow pages in that time, please try again; \
             nothing else is needed from you.\n\
             What was affected: {TO_FILL_IN}\n",
            utc(ended)
        ),
        _ => format!(
            "Since {since} our service receives {is}. {who} Pages may be slow or fail to load; your data is not affected.\n\
             What is affected: {TO_FILL_IN}. Next update: {TO_FILL_IN}\n"
        ),
    }
}

#[cfg(test)]
mod tests {
    use floodwall_common::packet::Source;

    use super::*;
    use crate::detect::{Observed, Vector};
    use crate::incident::Shape;

    /// A record of this kind of flood, of these packets to one address.
    fn incident(vector: Vector, packets: &[Observed]) -> Incident {
        let share = 1.0 / packets.len() as f64;
        Incident {
            verdict: Verdict::Attack,
            vectors: vec![vector],
            peak_packets_per_second: 60_000.0,
            peak_megabits_per_second: 221.0,
            destinations: crate::incident::destinations(packets.iter()),
            shapes: Shape::of(vector, 50_000.0, packets.iter()).into_iter().collect(),
            sources: packets.iter().map(|packet| (crate::talkers::source_name(packet.source), share)).collect(),
            source_count: packets.len(),
            ..Incident::default()
        }
    }

    #[test]
    fn the_provider_is_told_where_reflectors_are_and_their_port() {
        let reply = |n: u32| Observed {
            destination: Source::V4(0xcb00_7107),
            protocol: 17,
            ports: Some((53, 1_024 + (n * 97 % 60_000) as u16)),
            flags: None,
            length: 468,
            hops: [57, 243][n as usize % 2],
            // Half of one /24, the others in many of one /16.
            ..Observed::segment(
                if n.is_multiple_of(2) { 0xc633_6400 + n % 250 } else { 0x1405_0000 + (n * 131 % 65_536) },
                53,
                0,
                0,
            )
        };
        let incident = incident(Vector::Amplification, &(0..500).map(reply).collect::<Vec<_>>());
        let text = isp_request(&incident, &Contacts::default());
        for line in [
            "Target: 203.0.113.7 (100.0 %)",
            "Peak: 60000 packets a second (221.0 Mbit/s), of all that came in\n",
            "Packets of the amplification, 50000 packets a second, 187.2 Mbit/s at its peak:\n",
            "  protocol: UDP\n",
            "  source port: 53\n",
            "  length: 468 bytes\n",
            "  TTL: 57 (50 %), 243 (50 %)\n",
            "  from: 198.51.100.0/24 (50 %), 20.5.0.0/16 (50 %)\n",
        ] {
            assert!(text.contains(line), "{line}: {text}");
        }
        assert!(!text.contains("TCP flags") && !text.contains("fragments") && !text.contains("forged"), "{text}");
        let draft = postmortem(&incident, &Contacts::default());
        let cause = draft.split("## ").find(|section| section.starts_with("Root Cause")).unwrap_or_default();
        assert!(cause.contains("- source port: 53\n") && cause.contains("203.0.113.7"), "{draft}");
    }

    #[test]
    fn of_forged_addresses_the_provider_is_told_none() {
        let syn = |n: u32| Observed {
            length: 40,
            hops: 242,
            ..Observed::segment(n.wrapping_mul(2_654_435_761), 4_000, 0, 0x02)
        };
        let incident = incident(Vector::SynFlood, &(1..=60).map(syn).collect::<Vec<_>>());
        let named = incident.sources.iter().filter(|(_, share)| *share >= NAMED).count();
        assert_eq!(named, 60, "each has more than a hundredth of so few samples");
        let text = isp_request(&incident, &Contacts::default());
        assert!(text.contains("forged most likely. No prefix is of use"), "{text}");
        assert!(incident.sources.iter().all(|(source, _)| !text.contains(source.as_str())), "{text}");
        assert!(text.contains("  TCP flags: SYN\n") && text.contains("  length: 40 bytes\n"), "{text}");
    }

    /// What was written before there were shapes.
    #[test]
    fn an_old_record_is_read_and_told() {
        let mut record = serde_json::to_value(incident(Vector::UdpFlood, &[])).unwrap_or_default();
        for new in ["peak_megabits_per_second", "destinations", "shapes"] {
            record.as_object_mut().and_then(|record| record.remove(new)).unwrap_or_else(|| panic!("no {new}"));
        }
        let old: Incident = serde_json::from_value(record).unwrap_or_else(|error| panic!("{error}"));
        let text = isp_request(&old, &Contacts::default());
        assert!(text.contains("Peak: 60000 packets a second, of all that came in\n"), "{text}");
        assert!(text.contains("Target: _to be filled in_ (address)"), "{text}");
    }

    /// What is not filtered is not said to be, and each state has words of its own.
    #[test]
    fn customers_are_told_what_is_so() {
        let open = Incident { verdict: Verdict::Attack, dropped: 7, ..Incident::default() };
        assert!(!customer_notice(&open).contains("filter"), "monitor mode");
        let enforced = Incident { enforced: true, ..open.clone() };
        assert!(customer_notice(&enforced).contains("filters it"));
        assert!(!customer_notice(&Incident { dropped: 0, ..enforced.clone() }).contains("filter"), "nothing is armed");
        let acknowledged = Incident { state: State::Acknowledged, ..enforced.clone() };
        let over = Incident { state: State::Resolved, ended_unix_ms: Some(9_000), ..enforced.clone() };
        assert!(customer_notice(&over).contains("filtered it"));
        assert!(!customer_notice(&open).contains("engineers"), "whom it has reached nobody knows");
        let all = [&open, &enforced, &acknowledged, &over].map(customer_notice);
        assert!((1..all.len()).all(|n| !all[..n].contains(&all[n])), "{all:?}");
    }

    #[test]
    fn whoever_has_gone_wild_is_named_to_those_who_may_know() {
        let who = vec!["198.51.100.0/24".parse().unwrap()];
        let incident = Incident { verdict: Verdict::Misconfiguration, who, ..Incident::default() };
        let (draft, request) =
            (postmortem(&incident, &Contacts::default()), isp_request(&incident, &Contacts::default()));
        let named = |text: &str| text.matches("198.51.100.0/24").count();
        assert_eq!((named(&draft), named(&request)), (2, 1), "{draft}\n{request}");
        let notice = customer_notice(&incident);
        assert!(notice.contains("one client") && named(&notice) == 0, "{notice}");
    }
}

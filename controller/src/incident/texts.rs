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
        Verdict::Misconfiguration => "misconfigured client".to_owned(),
        Verdict::Normal => "nothing out of the ordinary".to_owned(),
    }
}

fn summary(incident: &Incident) -> String {
    format!(
        "On {} this host saw a {}: at its peak {:.0} packets a second, {} to {}. Floodwall was {:.0} % sure, because\n\n{}",
        utc(incident.began_unix_ms),
        what(incident),
        incident.peak_packets_per_second,
        from(incident),
        to(incident),
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

fn to(incident: &Incident) -> String {
    if incident.targets.is_empty() { "no port in particular".to_owned() } else { incident.targets.join(", ") }
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
    format!("A {} to {}. Sources that sent most: {sources}.", what(incident), to(incident))
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
    if incident.mitigated_unix_ms.is_none() {
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
         Target: {TO_FILL_IN} (address), {to}\n\
         Peak: {peak:.0} packets a second\n\
         Origin: {from}\n",
        provider = known(contacts.provider.as_ref()),
        what = what(incident),
        since = utc(incident.began_unix_ms),
        id = incident.id,
        to = to(incident),
        peak = incident.peak_packets_per_second,
        from = from(incident),
    );
    // Of forged addresses none is of any use to him.
    for (source, share) in incident.sources.iter().filter(|(_, share)| *share >= NAMED) {
        let _ = writeln!(text, "  {source}: {:.1} % of the sampled packets", share * 100.0);
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
        (false, _) => ("far more requests than usual", "far more requests than usual"),
    };
    let who = match incident.state {
        State::Acknowledged => "Our engineers are at work on it.",
        _ => "It was noticed by itself, and our engineers are being called.",
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
    use super::*;

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
        let all = [&open, &enforced, &acknowledged, &over].map(customer_notice);
        assert!((1..all.len()).all(|n| !all[..n].contains(&all[n])), "{all:?}");
    }
}

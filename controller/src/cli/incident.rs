//! `floodwall incident`.

use std::time::Duration;

use super::args::{Drill, Global, Incident, Text};
use super::backend::Backend;
use super::client::Client;
use super::{print, write_out};
use crate::api::{DrillRequest, IncidentsView, SCHEMA_VERSION, Status};
use crate::configuration::Source;
use crate::exit::{Exit, Failure};
use crate::incident::{self, Happened, IncidentChange, Store, customer_notice, isp_request, postmortem, utc};

/// How often it is looked whether something has happened.
const FOLLOWED_EVERY: Duration = Duration::from_millis(250);

pub(super) async fn run(global: &Global, verb: Incident) -> anyhow::Result<()> {
    match verb {
        Incident::List { follow: true, after } => follow(global, after).await,
        Incident::List { .. } => print(global, &all(global).await?, |view| list(&view.incidents)),
        Incident::Show { id } => print(global, &one(global, id).await?, show),
        Incident::Note { text } => change(global, &IncidentChange::Note(text)).await,
        Incident::Ack => change(global, &IncidentChange::Ack).await,
        Incident::Resolve => change(global, &IncidentChange::Resolve).await,
        Incident::Export { id, format } => export(global, id, format).await,
        Incident::IspRequest { id } => export(global, id, Text::IspRequest).await,
        Incident::CustomerNotice { id } => export(global, id, Text::CustomerNotice).await,
    }
}

async fn export(global: &Global, id: Option<String>, format: Text) -> anyhow::Result<()> {
    let incident = one(global, id).await?;
    let source = Source::find(global.config.as_deref()).ok().flatten().unwrap_or_default();
    let contacts = source.configuration.contacts.unwrap_or_default();
    let global = Global { json: global.json || format == Text::Json, ..global.clone() };
    print(&global, &incident, |incident| match format {
        Text::Markdown | Text::Json => postmortem(incident, &contacts),
        Text::IspRequest => isp_request(incident, &contacts),
        Text::CustomerNotice => customer_notice(incident),
    })
}

/// Has the alert of a drill fire, or writes down that it was received.
pub(super) async fn drill(global: &Global, verb: Drill) -> anyhow::Result<()> {
    let request = match verb {
        Drill::Start { lasts } => DrillRequest::Start { seconds: lasts.as_secs() },
        Drill::Received { text } => DrillRequest::Received(text),
    };
    let status: Status = Backend::daemon(global).await?.post("/api/v1/drill", &request).await?;
    print(global, &status, |_| match &request {
        DrillRequest::Start { seconds } => format!(
            "FloodwallDrill fires for {seconds} s, once Prometheus has scraped it. Nothing else changes.\n\
             Whoever it reaches: floodwall drill received \"name, by what\"\n"
        ),
        DrillRequest::Received(_) => "written down\n".to_owned(),
    })
}

async fn change(global: &Global, change: &IncidentChange) -> anyhow::Result<()> {
    let changed: incident::Incident = Backend::daemon(global).await?.post("/api/v1/incidents", change).await?;
    print(global, &changed, show)
}

async fn all(global: &Global) -> anyhow::Result<IncidentsView> {
    match Client::connect(&global.socket).await? {
        Some(client) => client.get("/api/v1/incidents").await,
        None => {
            let incidents = Store::beside(&global.history).all()?;
            Ok(IncidentsView { schema_version: SCHEMA_VERSION, incidents })
        }
    }
}

/// Prints what happens, a line of JSON each, until somebody stops it; with the daemon or without.
async fn follow(global: &Global, after: Option<i64>) -> anyhow::Result<()> {
    let store = Store::beside(&global.history);
    let mut after = match after {
        Some(after) => after,
        None => store.latest()?,
    };
    loop {
        match Client::connect(&global.socket).await? {
            // It ends each answer after a while; a daemon that ends does so sooner.
            Some(client) => {
                let path = format!("/api/v1/events?follow=true&after={after}");
                let ended = client.lines(&path, |line| tell(&serde_json::from_str(line)?, &mut after)).await;
                ended.or_else(|error| if error.is::<hyper::Error>() { Ok(()) } else { Err(error) })?;
            }
            None => store.since(after)?.iter().try_for_each(|happened| tell(happened, &mut after))?,
        }
        // The next moment.
        tokio::time::sleep(FOLLOWED_EVERY).await;
    }
}

fn tell(happened: &Happened, after: &mut i64) -> anyhow::Result<()> {
    *after = happened.number;
    write_out(&format!("{}\n", serde_json::to_string(happened)?))
}

async fn one(global: &Global, id: Option<String>) -> anyhow::Result<incident::Incident> {
    let all = all(global).await?.incidents;
    let found = match &id {
        None => all.into_iter().next_back(),
        Some(id) => all.into_iter().find(|incident| incident.id == *id),
    };
    found.ok_or_else(|| {
        let text = id.map_or_else(|| "there was no incident".to_owned(), |id| format!("no incident '{id}'"));
        Failure::new(Exit::Usage, text).hint("floodwall incident list").into()
    })
}

fn list(all: &[incident::Incident]) -> String {
    if all.is_empty() {
        return "there was no incident\n".to_owned();
    }
    let mut table = super::show::Table::new(&["incident", "state", "verdict", "kinds", "began", "peak packets/s"]);
    for incident in all {
        let vectors: Vec<_> = incident.vectors.iter().map(|vector| vector.label()).collect();
        table.row([
            incident.id.clone(),
            incident.state.label().to_owned(),
            incident.verdict.label().to_owned(),
            vectors.join(", "),
            utc(incident.began_unix_ms),
            format!("{:.0}", incident.peak_packets_per_second),
        ]);
    }
    table.render()
}

fn show(incident: &incident::Incident) -> String {
    let vectors: Vec<_> = incident.vectors.iter().map(|vector| vector.label()).collect();
    let mut text = format!(
        "{}  {}  {} {}\n  {:.0} % sure, peak {:.0} packets/s, {} dropped, {} passed\n  detected after {:.1} s",
        incident.id,
        incident.state.label(),
        incident.verdict.label(),
        vectors.join(", "),
        incident.confidence * 100.0,
        incident.peak_packets_per_second,
        incident.dropped,
        incident.passed,
        incident.seconds_to(incident.detected_unix_ms),
    );
    if let Some(at) = incident.mitigated_unix_ms {
        text += &format!(", first measure after {:.1} s", incident.seconds_to(at));
    }
    text += "\n\n";
    for event in &incident.timeline {
        text += &format!("  {}  {:<10} {}\n", utc(event.unix_ms), event.by, event.what);
    }
    text
}

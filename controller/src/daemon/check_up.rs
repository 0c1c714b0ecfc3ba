//! What the daemon knows for `audit`: when metrics were read last, whether a drill goes on, and what was found last.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use floodwall_common::lists::List;
use tracing::warn;

use super::Daemon;
use crate::api::DrillRequest;
use crate::audit::{Facts, audit};
use crate::configuration::{Plan, Source};
use crate::dataplane::monotonic_ns;
use crate::doctor::{Diagnosis, Severity};
use crate::exit::{Exit, Failure, describe};
use crate::groups::Members;
use crate::history::{DRILL, DRILL_RECEIVED, Origin};
use crate::incident::Incident;
use crate::latencies::Latencies;
use crate::listeners;
use crate::snapshot::{CheckUp, Snapshot};

/// How often it is looked without being asked.
const EVERY: Duration = Duration::from_secs(3_600);
/// Changes that are searched for drills.
const CHANGES: usize = 10_000;
/// The longest drill.
const LONGEST_S: u64 = 3_600;

/// Moments are nanoseconds of `CLOCK_MONOTONIC`; 0 for never.
#[derive(Debug, Default)]
pub(crate) struct State {
    scraped_ns: AtomicU64,
    drill_until_ns: AtomicU64,
    mended: AtomicU64,
    changes: [AtomicU64; Origin::ALL.len()],
    latencies: Mutex<[Latencies; 2]>,
    found: Mutex<Option<Diagnosis>>,
}

impl State {
    /// Somebody has read the metrics.
    pub(super) fn was_scraped(&self) {
        self.scraped_ns.store(monotonic_ns(), Ordering::Relaxed);
    }

    /// Something was changed, by this word.
    pub(super) fn has_changed(&self, origin: Origin) {
        self.changes[origin as usize].fetch_add(1, Ordering::Relaxed);
    }

    /// Something that others had undone was done again.
    pub(super) fn has_mended(&self) {
        self.mended.fetch_add(1, Ordering::Relaxed);
    }

    /// An incident is over.
    pub(super) fn is_over(&self, incident: &Incident) {
        let [detection, mitigation] = &mut *self.latencies.lock().unwrap_or_else(PoisonError::into_inner);
        detection.add(incident.seconds_to(incident.detected_unix_ms));
        incident.mitigated_unix_ms.into_iter().for_each(|at| mitigation.add(incident.seconds_to(at)));
    }

    /// Does what was asked of a drill, and says it in words.
    pub(super) fn drill(&self, request: &DrillRequest) -> Result<String, Failure> {
        match request {
            DrillRequest::Start { seconds: seconds @ 1..=LONGEST_S } => {
                self.drill_until_ns.store(monotonic_ns() + seconds * 1_000_000_000, Ordering::Relaxed);
                Ok(format!("{DRILL}, {seconds} s"))
            }
            DrillRequest::Start { .. } => {
                let text = format!("a drill lasts 1 to {LONGEST_S} s");
                Err(Failure::new(Exit::Usage, text).hint("--for 5m"))
            }
            DrillRequest::Received(text) => Ok(format!("{DRILL_RECEIVED}: {}", text.replace(char::is_control, " "))),
        }
    }

    /// What of it everybody may see.
    pub(super) fn show(&self, snapshot: &mut Snapshot) {
        let found = self.found.lock().unwrap_or_else(PoisonError::into_inner);
        let count = |diagnosis: &Diagnosis, severity| {
            diagnosis.findings.iter().filter(|finding| finding.severity == severity).count()
        };
        snapshot.check_up = Some(CheckUp {
            latencies: *self.latencies.lock().unwrap_or_else(PoisonError::into_inner),
            mended: self.mended.load(Ordering::Relaxed),
            changes: self.changes.each_ref().map(|number| number.load(Ordering::Relaxed)),
            drill: self.drill_until_ns.load(Ordering::Relaxed) > snapshot.taken_ns,
            findings: found
                .as_ref()
                .map(|all| [Severity::Warning, Severity::Problem].map(|severity| count(all, severity))),
        });
    }
}

impl Daemon {
    /// Looks at what runs. Takes a while where lists are long.
    pub(crate) fn audit(&self) -> anyhow::Result<Diagnosis> {
        let source = Source::find(self.options.file.as_deref()).ok().flatten();
        let history = self.history(CHANGES)?;
        let listening = listeners::for_others()?;
        let plane = self.dataplane();
        let drift = match &source {
            Some(source) => Plan::new(&plane, source, None)?.changes.len(),
            None => 0,
        };
        let lists = [plane.list(List::Allow)?, plane.list(List::Deny)?];
        let members = Members::read(&plane)?;
        let services: Vec<_> = plane.services()?.into_iter().flat_map(|service| service.ports).collect();
        drop(plane);
        let now = self.view().now;
        let scraped_ns = self.check_up.scraped_ns.load(Ordering::Relaxed);
        let diagnosis = audit(&Facts {
            mode: (now.mode, now.mode_since_unix_s),
            respond: &self.options.respond,
            limits: &now.limits,
            past: &self.past(),
            entries: now.lists.iter().map(|list| list.entries).sum(),
            group_limits: &now.group_limits,
            members: &members,
            lists: [&lists[0], &lists[1]],
            services: &services,
            listening: &listening,
            configuration: source.as_ref().map(|source| &source.configuration),
            drift,
            history: &history,
            unread_s: (scraped_ns != 0).then(|| monotonic_ns().saturating_sub(scraped_ns) / 1_000_000_000),
            now: SystemTime::now(),
        });
        *self.check_up.found.lock().unwrap_or_else(PoisonError::into_inner) = Some(diagnosis.clone());
        Ok(diagnosis)
    }
}

/// Looks once an hour at what runs, for the metrics.
pub(super) async fn audit_by_itself(daemon: &Arc<Daemon>) {
    let mut ticks = tokio::time::interval(EVERY);
    loop {
        ticks.tick().await;
        let daemon = Arc::clone(daemon);
        if let Ok(Err(error)) = tokio::task::spawn_blocking(move || daemon.audit()).await {
            warn!("no audit: {}", describe(&error));
        }
    }
}

//! The API: HTTP and JSON. docs/api.md describes it.

use std::net::IpAddr;
use std::sync::Arc;

use axum::extract::{DefaultBodyLimit, Path, Query, Request, State};
use axum::http::header::CONTENT_TYPE;
use axum::http::{HeaderValue, StatusCode};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use floodwall_common::cookie::CookieMode;
use floodwall_common::limits::Per;
use floodwall_common::lists::List;
use floodwall_common::reason::Verdict;
use serde::Deserialize;
use tracing::warn;

use super::access::{Token, check_token};
use super::server::Caller;
use super::{Daemon, events};
use crate::api::{
    AmplifiersChange, AmplifiersView, CookiesChange, CookiesView, DetachRequest, DrillRequest, ExplainView,
    GroupsChange, GroupsView, HistoryView, IncidentsView, LimitsChange, LimitsView, ListChange, ListChanged, ListView,
    ModeChange, PolicyEntry, PolicyView, ReloadRequest, Reloaded, SCHEMA_VERSION, ServicesChange, ServicesView,
    SignaturesChange, SignaturesView, Status, TopView, VERSION_HEADER,
};
use crate::configuration::Change;
use crate::dataplane::{self, Switched, monotonic_ns};
use crate::detect;
use crate::doctor::Diagnosis;
use crate::exit::{Exit, Failure, describe, exit_of};
use crate::groups::{self, Members};
use crate::incident::{self, Incident, IncidentChange};
use crate::picture::{list_change, switch_change};
use crate::preview::{PreviewView, preview};
use crate::talkers::By;
use crate::{control, explain, lockout, metrics};

/// Bytes of a request.
const BODY_BYTES: usize = 1 << 20;
/// Bytes of a change of a list: a million prefixes come in one, so that they come as a whole.
const LIST_BODY_BYTES: usize = 128 << 20;

type Shared = State<Arc<Daemon>>;

/// What may be read without being anybody: on loopback TCP.
pub(super) fn read_only(daemon: Arc<Daemon>) -> Router {
    reads().layer(middleware::from_fn(check_version)).with_state(daemon)
}

/// What those may read who have a socket for it.
pub(super) fn look(daemon: Arc<Daemon>) -> Router {
    of_members().layer(middleware::from_fn(check_version)).with_state(daemon)
}

/// Everything, for whoever has the token.
pub(super) fn with_token(daemon: Arc<Daemon>, token: Token) -> Router {
    control(daemon).layer(middleware::from_fn_with_state(token, check_token))
}

/// Everything: on the control socket.
pub(super) fn control(daemon: Arc<Daemon>) -> Router {
    let list_body = DefaultBodyLimit::max(LIST_BODY_BYTES);
    let writes = Router::new()
        .route("/api/v1/limits", post(change_limits))
        .route("/api/v1/mode", post(set_mode))
        .route("/api/v1/policy", post(set_policy))
        .route("/api/v1/amplifiers", post(change_amplifiers))
        .route("/api/v1/services", post(change_services))
        .route("/api/v1/cookies", post(set_cookies))
        .route("/api/v1/signatures", post(change_signatures))
        .route("/api/v1/confirm", post(confirm))
        .route("/api/v1/stop", post(stop))
        .route("/api/v1/resume", post(resume))
        .route("/api/v1/drill", post(drill))
        .route("/api/v1/reload", post(reload))
        .route("/api/v1/detach", post(detach));
    let lists = Router::new()
        .route("/api/v1/lists/{list}", post(change_list))
        .route("/api/v1/groups", post(change_groups))
        .layer(list_body);
    of_members()
        .route("/api/v1/incidents", post(change_incident))
        .merge(writes.layer(DefaultBodyLimit::max(BODY_BYTES)))
        .merge(lists)
        .layer(middleware::from_fn(check_version))
        .with_state(daemon)
}

/// What those may read of whom it is known who they are.
fn of_members() -> Router<Arc<Daemon>> {
    reads()
        .route("/api/v1/history", get(history_of))
        .route("/api/v1/audit", get(audit))
        .route("/api/v1/incidents", get(incidents))
        .route("/api/v1/events", get(events))
        .route("/api/v1/incidents/{id}", get(incident))
}

fn reads() -> Router<Arc<Daemon>> {
    Router::new()
        .route("/metrics", get(scrape))
        .route("/healthz", get(healthz))
        .route("/api/v1/status", get(status))
        .route("/api/v1/limits", get(limits))
        .route("/api/v1/limits/preview", get(preview_limit))
        .route("/api/v1/policy", get(policies))
        .route("/api/v1/amplifiers", get(amplifiers))
        .route("/api/v1/services", get(services))
        .route("/api/v1/cookies", get(cookies))
        .route("/api/v1/signatures", get(signatures))
        .route("/api/v1/lists/{list}", get(list))
        .route("/api/v1/groups", get(groups_of))
        .route("/api/v1/top", get(top))
        .route("/api/v1/explain", get(explain))
}

/// A caller of another version is told so before anything happens. One that names none is curl, and welcome.
async fn check_version(request: Request, next: Next) -> Response {
    let ours = SCHEMA_VERSION.to_string();
    let theirs = request.headers().get(VERSION_HEADER).map(|version| version.as_bytes().to_vec());
    if theirs.as_ref().is_some_and(|theirs| theirs != ours.as_bytes()) {
        let theirs = String::from_utf8_lossy(&theirs.unwrap_or_default()).into_owned();
        let text = format!("the daemon speaks API version {ours}, the caller {theirs}");
        let failure = Failure::new(Exit::Conflict, text).hint("use the floodwall of the same version as the daemon");
        return ApiError(failure.into()).into_response();
    }
    let mut response = next.run(request).await;
    if let Ok(version) = HeaderValue::from_str(&ours) {
        response.headers_mut().insert(VERSION_HEADER, version);
    }
    response
}

/// An error as JSON, with the status that its exit code means.
struct ApiError(anyhow::Error);

impl<E: Into<anyhow::Error>> From<E> for ApiError {
    fn from(error: E) -> Self {
        Self(error.into())
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let exit = exit_of(&self.0);
        let status = match exit {
            Exit::Usage | Exit::Configuration => StatusCode::BAD_REQUEST,
            Exit::Conflict => StatusCode::CONFLICT,
            _ => StatusCode::INTERNAL_SERVER_ERROR,
        };
        let failure = match self.0.downcast::<Failure>() {
            Ok(failure) => failure,
            Err(error) => Failure::new(exit, describe(&error)),
        };
        (status, Json(failure)).into_response()
    }
}

type Answer<T> = Result<Json<T>, ApiError>;

/// Runs something that may take long on a thread of its own.
async fn blocking<T: Send + 'static>(
    daemon: Arc<Daemon>,
    work: impl FnOnce(&Daemon) -> anyhow::Result<T> + Send + 'static,
) -> anyhow::Result<T> {
    tokio::task::spawn_blocking(move || work(&daemon)).await?
}

/// Writes down who changed what, then makes the change visible. `why` is what he says where he has not said it of the whole.
async fn changed(
    daemon: &Daemon,
    who: &Caller,
    what: String,
    details: Vec<Change>,
    why: Option<&str>,
) -> Result<(), ApiError> {
    daemon.record_of(who, who.entry(what).with(details).because(why.map(str::to_owned)));
    daemon.refresh().await?;
    Ok(())
}

/// Who asks; the read-only listener has no such routes.
type Who = axum::Extension<Caller>;

async fn scrape(State(daemon): Shared) -> Result<Response, ApiError> {
    daemon.check_up.was_scraped();
    let text = metrics::render(&daemon.view().now)?;
    Ok(([(CONTENT_TYPE, metrics::CONTENT_TYPE)], text).into_response())
}

async fn healthz(State(daemon): Shared) -> (StatusCode, &'static str) {
    match daemon.view().now.is_attached() {
        true => (StatusCode::OK, "ok\n"),
        false => (StatusCode::SERVICE_UNAVAILABLE, "not attached: see floodwall status\n"),
    }
}

async fn status(State(daemon): Shared) -> Json<Status> {
    let view = daemon.view();
    Json(Status::new(&view.now, view.earlier.as_deref(), true))
}

async fn limits(State(daemon): Shared) -> Answer<LimitsView> {
    Ok(Json(control::limits(&daemon.dataplane())?))
}

async fn change_limits(
    State(daemon): Shared,
    axum::Extension(who): Who,
    Json(change): Json<LimitsChange>,
) -> Answer<LimitsView> {
    lockout::check_limits(&change, || daemon.around(who.address()))?;
    let (view, details) = daemon.change(|plane| control::change_limits(plane, &change))?;
    changed(&daemon, &who, format!("limits {}", change.in_words()), details, None).await?;
    Ok(Json(view))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct PreviewQuery {
    name: String,
    per: Option<String>,
    group: Option<String>,
    pps: u64,
    burst: Option<u64>,
}

async fn preview_limit(State(daemon): Shared, Query(query): Query<PreviewQuery>) -> Answer<PreviewView> {
    let per = query.per.as_deref().unwrap_or("source");
    let key = control::limit_key(&query.name, per)?;
    if query.group.is_some() {
        groups::group_limit_name(&query.name, per)?;
    }
    let limit = control::rate_to_preview(key, query.pps, query.burst)?;
    let work = move |daemon: &Daemon| {
        let members = Members::read(&daemon.dataplane())?;
        let group = query.group.as_deref();
        members.check(group)?;
        // A wider limit is of all sources in a prefix, whatever group they are in.
        let is_under = |source| key.per != Per::Source || members.is_under(source, key.name, group);
        Ok(preview(&daemon.past(), key, group, limit, is_under))
    };
    Ok(Json(blocking(daemon, work).await?))
}

async fn set_mode(State(daemon): Shared, axum::Extension(who): Who, Json(change): Json<ModeChange>) -> Answer<Status> {
    let ((), details) = daemon.change(|plane| control::set_mode(plane, &change))?;
    let trial = change.confirm_s.map(|seconds| format!(", to be confirmed within {seconds} s")).unwrap_or_default();
    changed(&daemon, &who, format!("mode {}{trial}", change.mode), details, None).await?;
    Ok(status(State(daemon)).await)
}

async fn confirm(State(daemon): Shared, axum::Extension(who): Who) -> Answer<Status> {
    let ((), details) = daemon.change(control::confirm)?;
    changed(&daemon, &who, "confirm".to_owned(), details, None).await?;
    Ok(status(State(daemon)).await)
}

async fn stop(State(daemon): Shared, axum::Extension(who): Who) -> Answer<Status> {
    let switched = daemon.dataplane().stop()?;
    Ok(Json(after_switch(&daemon, &who, "stop", &switched).await))
}

async fn resume(State(daemon): Shared, axum::Extension(who): Who) -> Answer<Status> {
    let switched = daemon.dataplane().resume()?;
    Ok(Json(after_switch(&daemon, &who, "resume", &switched).await))
}

/// What comes once the kill switch is turned: that it cannot be shown is no reason to say that it is not.
async fn after_switch(daemon: &Daemon, who: &Caller, what: &str, switched: &Switched) -> Status {
    if changed(daemon, who, what.to_owned(), switch_change(switched), None).await.is_err() {
        warn!(what, "done, but what is shown is of before");
    }
    let view = daemon.view();
    let mode = switched.after.mode().label().to_owned();
    Status { mode, ..Status::new(&view.now, view.earlier.as_deref(), true) }
}

async fn policies(State(daemon): Shared) -> Answer<PolicyView> {
    Ok(Json(control::policies(&daemon.dataplane())?))
}

async fn set_policy(
    State(daemon): Shared,
    axum::Extension(who): Who,
    Json(entry): Json<PolicyEntry>,
) -> Answer<PolicyView> {
    let (view, details) = daemon.change(|plane| control::set_policy(plane, &entry))?;
    if entry.verdict == Verdict::Drop.label() {
        daemon.automatic.claim(&entry.reason);
    }
    changed(&daemon, &who, format!("policy {} {}", entry.reason, entry.verdict), details, None).await?;
    Ok(Json(view))
}

async fn amplifiers(State(daemon): Shared) -> Answer<AmplifiersView> {
    Ok(Json(control::amplifiers(&daemon.dataplane())?))
}

async fn change_amplifiers(
    State(daemon): Shared,
    axum::Extension(who): Who,
    Json(change): Json<AmplifiersChange>,
) -> Answer<AmplifiersView> {
    let (view, details) = daemon.change(|plane| control::change_amplifiers(plane, &change))?;
    let reset = if change.reset { " reset" } else { "" };
    changed(&daemon, &who, format!("amplifiers{reset} +{:?} -{:?}", change.add, change.remove), details, None).await?;
    Ok(Json(view))
}

async fn services(State(daemon): Shared) -> Answer<ServicesView> {
    Ok(Json(control::services(&daemon.dataplane())?))
}

async fn change_services(
    State(daemon): Shared,
    axum::Extension(who): Who,
    Json(change): Json<ServicesChange>,
) -> Answer<ServicesView> {
    let (view, details) = daemon.change(|plane| control::change_services(plane, &change))?;
    let added: Vec<_> = change.add.iter().map(|service| service.name.as_str()).collect();
    changed(&daemon, &who, format!("services +{added:?} -{:?}", change.remove), details, None).await?;
    Ok(Json(view))
}

async fn cookies(State(daemon): Shared) -> Answer<CookiesView> {
    Ok(Json(control::cookies(&daemon.dataplane())?))
}

async fn set_cookies(
    State(daemon): Shared,
    axum::Extension(who): Who,
    Json(change): Json<CookiesChange>,
) -> Answer<CookiesView> {
    let devices = dataplane::devices().await?;
    let (view, details) = daemon.change(|plane| control::set_cookies(plane, &change, &devices))?;
    if change.mode == CookieMode::Auto.label() {
        daemon.automatic.claim_cookies();
    }
    changed(&daemon, &who, format!("cookies {}", change.mode), details, None).await?;
    Ok(Json(view))
}

async fn signatures(State(daemon): Shared) -> Answer<SignaturesView> {
    Ok(Json(blocking(daemon, |daemon| control::signatures(&daemon.dataplane())).await?))
}

async fn change_signatures(
    State(daemon): Shared,
    axum::Extension(who): Who,
    Json(change): Json<SignaturesChange>,
) -> Answer<SignaturesView> {
    let names: Vec<_> = change.add.iter().map(|signature| signature.name.as_str()).collect();
    let what = format!("signatures +{names:?} -{:?}", change.remove);
    let why = change.add.first().map(|signature| signature.reason.clone());
    let work = move |daemon: &Daemon| daemon.change(|plane| control::change_signatures(plane, &change));
    let (view, details) = blocking(Arc::clone(&daemon), work).await?;
    changed(&daemon, &who, what, details, why.as_deref()).await?;
    Ok(Json(view))
}

async fn list(State(daemon): Shared, Path(name): Path<String>) -> Answer<ListView> {
    let list = control::list_name(&name)?;
    Ok(Json(blocking(daemon, move |daemon| control::list(&daemon.dataplane(), list)).await?))
}

/// Memory that is free here, but that the allocator keeps: after a list of a million some hundred megabytes.
fn give_memory_back() {
    // SAFETY: touches nothing that is in use.
    #[cfg(target_env = "gnu")]
    unsafe {
        libc::malloc_trim(0);
    }
}

async fn change_list(
    State(daemon): Shared,
    axum::Extension(who): Who,
    Path(name): Path<String>,
    Json(change): Json<ListChange>,
) -> Answer<ListChanged> {
    let list = control::list_name(&name)?;
    let what = format!("{name} +{} -{}", change.add.len(), change.remove.len());
    let why = change.add.first().map(|entry| entry.reason.clone());
    let caller = who.clone();
    // Others go on changing things while long lists are built; one who does makes this change fail, and nothing happens.
    let work = move |daemon: &Daemon| {
        lockout::check_list(list, &change, &daemon.around(caller.address()))?;
        let plan = control::ListPlan::new(&daemon.dataplane(), list, &change)?;
        let (prepared, before) = (plan.prepare()?, plan.entries_before(list));
        let changed = plan.install(&mut daemon.dataplane(), &prepared)?;
        let details = list_change(list, &change, before, changed.entries);
        if list == List::Deny {
            daemon.pardon(&change.remove);
        }
        Ok((changed, details))
    };
    let (result, details) = blocking(Arc::clone(&daemon), work).await?;
    tokio::task::spawn_blocking(give_memory_back);
    daemon.forget_list_sizes();
    changed(&daemon, &who, what, vec![details], why.as_deref()).await?;
    Ok(Json(result))
}

async fn groups_of(State(daemon): Shared) -> Answer<GroupsView> {
    Ok(Json(blocking(daemon, |daemon| groups::groups(&daemon.dataplane())).await?))
}

async fn change_groups(
    State(daemon): Shared,
    axum::Extension(who): Who,
    Json(change): Json<GroupsChange>,
) -> Answer<GroupsView> {
    let names: Vec<_> = change.add.iter().map(|group| group.name.as_str()).collect();
    let what = format!("groups +{names:?} -{:?}", change.remove);
    let caller = who.clone();
    let work = move |daemon: &Daemon| {
        let peers = daemon.around(caller.address());
        let (plan, details) = groups::plan(&daemon.dataplane(), &change, &peers)?;
        let prepared = plan.prepare()?;
        let mut dataplane = daemon.dataplane();
        plan.install(&mut dataplane, &prepared)?;
        Ok((groups::groups(&dataplane)?, details))
    };
    let (view, details) = blocking(Arc::clone(&daemon), work).await?;
    daemon.forget_list_sizes();
    changed(&daemon, &who, what, details, None).await?;
    Ok(Json(view))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct TopQuery {
    #[serde(default)]
    by: By,
    n: Option<usize>,
}

async fn top(State(daemon): Shared, Query(query): Query<TopQuery>) -> Json<TopView> {
    Json(daemon.talkers().top(query.by, query.n.unwrap_or(20).min(1_000), monotonic_ns()))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ExplainQuery {
    source: IpAddr,
}

async fn explain(State(daemon): Shared, Query(query): Query<ExplainQuery>) -> Answer<ExplainView> {
    let recent = daemon.talkers().of(explain::source_of(query.source), monotonic_ns());
    let work = move |daemon: &Daemon| Ok(explain::explain(&daemon.dataplane(), query.source, recent)?);
    Ok(Json(blocking(daemon, work).await?))
}

async fn reload(
    State(daemon): Shared,
    axum::Extension(who): Who,
    request: Option<Json<Option<ReloadRequest>>>,
) -> Answer<Reloaded> {
    let request = request.and_then(|Json(request)| request).unwrap_or_default();
    let reloaded = daemon.reload(request.confirm_s).await?;
    // It has made itself visible already.
    daemon.record_of(&who, who.entry(reloaded.in_words()).with(reloaded.changes.clone()));
    Ok(Json(reloaded))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct HistoryQuery {
    n: Option<usize>,
}

async fn history_of(State(daemon): Shared, Query(query): Query<HistoryQuery>) -> Answer<HistoryView> {
    let changes = blocking(daemon, move |daemon| daemon.history(query.n.unwrap_or(20))).await?;
    Ok(Json(HistoryView { schema_version: SCHEMA_VERSION, changes }))
}

async fn detach(
    State(daemon): Shared,
    axum::Extension(who): Who,
    Json(request): Json<DetachRequest>,
) -> Answer<Vec<String>> {
    let detached = daemon.dataplane().detach(request.interface.as_deref())?;
    if detached.is_empty() {
        warn!("nothing to detach");
    }
    changed(&daemon, &who, format!("detach {}", detached.join(", ")), Vec::new(), None).await?;
    Ok(Json(detached))
}

async fn audit(State(daemon): Shared) -> Answer<Diagnosis> {
    let diagnosis = blocking(Arc::clone(&daemon), Daemon::audit).await?;
    daemon.refresh().await?;
    Ok(Json(diagnosis))
}

async fn drill(State(daemon): Shared, axum::Extension(who): Who, Json(request): Json<DrillRequest>) -> Answer<Status> {
    let what = daemon.check_up.drill(&request)?;
    changed(&daemon, &who, what, Vec::new(), None).await?;
    Ok(status(State(daemon)).await)
}

async fn incidents(State(daemon): Shared) -> Answer<IncidentsView> {
    let open = daemon.incident().clone();
    let mut all = blocking(daemon, |daemon| Ok(daemon.store().all()?)).await?;
    // What is in memory is newer.
    if let Some(open) = open {
        all.retain(|incident| incident.id != open.id);
        all.push(open);
    }
    Ok(Json(IncidentsView { schema_version: SCHEMA_VERSION, incidents: all }))
}

async fn incident(State(daemon): Shared, Path(id): Path<String>) -> Answer<Incident> {
    if let Some(open) = daemon.incident().as_ref().filter(|open| open.id == id) {
        return Ok(Json(open.clone()));
    }
    let name = id.clone();
    let found = blocking(daemon, move |daemon| Ok(daemon.store().load(&name)?)).await?;
    let none = || Failure::new(Exit::Usage, format!("no incident '{id}'")).hint("floodwall incident list");
    Ok(Json(found.ok_or_else(none)?))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct EventsQuery {
    #[serde(default)]
    after: i64,
    /// Hold the answer open for what is still to happen.
    #[serde(default)]
    follow: bool,
}

/// What has happened in incidents, a line of JSON each.
async fn events(State(daemon): Shared, Query(query): Query<EventsQuery>) -> Result<Response, ApiError> {
    let content_type = [(CONTENT_TYPE, "application/x-ndjson")];
    if query.follow {
        return Ok((content_type, events::follow(daemon, query.after)?).into_response());
    }
    let events = blocking(daemon, move |daemon| Ok(daemon.store().since(query.after)?)).await?;
    Ok((content_type, events::lines(&events)?).into_response())
}

async fn change_incident(
    State(daemon): Shared,
    axum::Extension(who): Who,
    Json(change): Json<IncidentChange>,
) -> Answer<Incident> {
    let by = who.entry(String::new()).user;
    // Ended while it goes on, another would begin at once, without what was said of this one.
    let goes_on = daemon.view().now.situation.as_ref().map(|situation| situation.verdict).unwrap_or_default();
    let changed = {
        let mut open = daemon.incident();
        let none = || Failure::new(Exit::Usage, "no incident goes on").hint("floodwall incident list");
        let incident = open.as_mut().ok_or_else(none)?;
        match change {
            IncidentChange::Note(text) if !incident.note(&by, &text) => {
                let text = "the record is full of what people have said: this is not in it";
                return Err(Failure::new(Exit::Conflict, text).into());
            }
            IncidentChange::Note(_) => {}
            IncidentChange::Ack => {
                incident.state = incident::State::Acknowledged;
                incident.note(&by, "acknowledged");
            }
            IncidentChange::Resolve if goes_on != detect::Verdict::Normal => {
                let text = format!("it goes on still: {}", goes_on.label());
                let hint = "floodwall incident ack says that you look after it, note what you know of it; half a quiet minute ends it";
                return Err(Failure::new(Exit::Conflict, text).hint(hint).into());
            }
            IncidentChange::Resolve => incident.resolve(&by, "resolved"),
        }
        incident.clone()
    };
    Ok(Json(changed))
}

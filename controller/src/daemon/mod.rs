//! The daemon: attaches, then takes a snapshot four times a second and serves it until it is told to stop.
//!
//! It drops nothing itself: that is the kernel half's, which goes on where this ends. Stopping it, cleanly or not, leaves
//! the protection as it is; only `--detach-on-exit` and `floodwall detach` take it off.

pub mod access;
mod check_up;
mod claims;
mod connections;
mod deadline;
mod detection;
mod events;
mod guard;
mod http;
mod measures;
mod peak;
mod probing;
mod recent;
mod sampling;
mod server;
mod service_manager;
mod stack;
mod watching;
mod wild;

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use floodwall_common::config::Mode;
use floodwall_common::reason::Verdict;
use ipnet::IpNet;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::watch;
use tracing::{error, info, warn};

use self::deadline::Deadline;
use self::measures::Automatic;
use self::recent::Recent;
use self::server::Caller;
use crate::api::{Reloaded, SCHEMA_VERSION};
use crate::configuration::{Change, DEFAULT_PATH, LastGood, Plan, ReasonLabel, Source};
use crate::dataplane::{self, Dataplane, Device, EgressHook, MadeOf, NEED_MEMORY, Outcome, Pins};
use crate::exit::{Exit, Failure, describe};
use crate::incident::{Incident, Store};
use crate::past::Past;
use crate::peers::Peer;
use crate::picture::Picture;
use crate::respond::Policies;
use crate::snapshot::{ListSizes, Snapshot};
use crate::talkers::Talkers;
use crate::{control, history, lockout, self_test};

/// How long loading and attaching may take, all interfaces together: it is half a second, and half a minute in an emulator. A service
/// manager waits for 90 s.
const LONGEST_LOAD: Duration = Duration::from_secs(60);

/// What is said when a trial has ended.
const NOT_CONFIRMED: &str = "drops were real on trial, and nobody has confirmed them: nothing is dropped any more; `floodwall mode \
                             enforce` makes them real again";

/// What the daemon is told.
#[derive(Clone, Debug)]
pub struct Options {
    /// Interfaces to protect.
    pub interfaces: Vec<String>,
    /// Generic mode will do.
    pub allow_generic: bool,
    /// How what leaves is to be seen, where the kernel can.
    pub egress_hook: EgressHook,
    /// Mode to set at the start; `None` leaves it as it is, monitor at first.
    pub mode: Option<Mode>,
    /// Where that makes drops real: for so many seconds only, unless they are confirmed.
    pub confirm_s: Option<u64>,
    /// Where the maps are pinned.
    pub bpffs: PathBuf,
    /// The control socket.
    pub socket: PathBuf,
    /// Where Prometheus scrapes; `None` for nowhere.
    pub metrics: Option<SocketAddr>,
    /// Where whoever has the token may do everything; `None` for nowhere.
    pub api: Option<(SocketAddr, access::Token)>,
    /// The group whose members may look, on a socket of their own.
    pub read_group: String,
    /// Take the filter off again at the end.
    pub detach_on_exit: bool,
    /// What is done about what goes on.
    pub respond: Policies,
    /// Where a verdict is unsure and the host hard pressed, a slice of what is suspected may be held up for two seconds.
    pub probe: bool,
    /// Whether a slice of what a signature drops is left open now and then.
    pub canary: bool,
    /// Where it is written who changed what.
    pub history: PathBuf,
    /// The configuration file, if one was named; else the usual one, where it is there.
    pub file: Option<PathBuf>,
    /// What it said.
    pub source: Option<Source>,
}

impl Options {
    /// What was said at the command line counts more than the file.
    fn overrule(&self, source: &mut Source) {
        if self.mode.is_some() {
            source.configuration.mode = None;
        }
    }

    /// Keeps what has come in force, for a start without its file.
    fn keep(&self, source: &Source) {
        if let Err(error) = LastGood::beside(&self.history).keep(source) {
            warn!(%error, "the configuration that came in force cannot be kept for a start without its file");
        }
    }

    /// What the files say otherwise than what the daemon was started with.
    fn needs_restart(&self, now: &Source) -> Vec<String> {
        let before = self.source.as_ref().map(|source| source.configuration.clone()).unwrap_or_default();
        let now = &now.configuration;
        let changed = [
            ("interfaces", before.interfaces != now.interfaces),
            ("allow_generic", before.allow_generic != now.allow_generic),
            ("metrics", before.metrics != now.metrics),
            ("metrics_public", before.metrics_public != now.metrics_public),
            ("log", before.log != now.log),
            ("respond", before.respond != now.respond),
            ("respond_to", before.respond_to != now.respond_to),
            ("probe", before.probe != now.probe),
            ("canary", before.canary != now.canary),
            ("api", (&before.api, &before.api_token_file) != (&now.api, &now.api_token_file)),
            ("read_group", before.read_group != now.read_group),
        ];
        changed.into_iter().filter(|(_, changed)| *changed).map(|(what, _)| what.to_owned()).collect()
    }
}

/// What the daemon's parts share.
pub(crate) struct Daemon {
    dataplane: Mutex<Dataplane>,
    talkers: Mutex<Talkers>,
    past: Mutex<Past>,
    check_up: check_up::State,
    recent: Mutex<Recent>,
    views: watch::Sender<View>,
    options: Options,
    /// Known until the lists change or an entry ends: counting them is a walk.
    list_sizes: Mutex<Option<ListSizes>>,
    /// The incident that is open.
    incident: Mutex<Option<Incident>>,
    store: Store,
    streams: events::Streams,
    automatic: Automatic,
    /// Whom an operator has taken off the deny list while the incident lasts.
    pardoned: Mutex<Vec<IpNet>>,
    /// When it was not seen last what is sent; 0 for never.
    lacked_memory_ns: AtomicU64,
    devices: Mutex<Vec<Device>>,
}

/// The last snapshots.
#[derive(Clone)]
pub(crate) struct View {
    pub(crate) now: Arc<Snapshot>,
    /// One of about a second ago.
    pub(crate) earlier: Option<Arc<Snapshot>>,
}

impl Daemon {
    /// The dataplane. A panic elsewhere does not make it unusable: the kernel has the state.
    pub(crate) fn dataplane(&self) -> MutexGuard<'_, Dataplane> {
        self.dataplane.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn talkers(&self) -> MutexGuard<'_, Talkers> {
        self.talkers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The incident that is open.
    pub(crate) fn incident(&self) -> MutexGuard<'_, Option<Incident>> {
        self.incident.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The records of all incidents.
    pub(crate) fn store(&self) -> &Store {
        &self.store
    }

    /// Writes a record, and says whether it is written. Where that cannot be done, the incident goes on in memory.
    fn save(&self, incident: &Incident) -> bool {
        let saved = self.store.save(incident);
        if let Err(error) = &saved {
            error!(%error, incident = incident.id, "the record cannot be written, and is tried again; all else goes on");
        }
        saved.is_ok()
    }

    /// The network devices, as they were seen last.
    fn devices(&self) -> Vec<Device> {
        self.devices.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(crate) fn past(&self) -> MutexGuard<'_, Past> {
        self.past.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn view(&self) -> View {
        self.views.borrow().clone()
    }

    /// Has the lists counted again.
    pub(crate) fn forget_list_sizes(&self) {
        *self.list_sizes.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    fn snapshot(&self, devices: &[Device]) -> dataplane::Result<Snapshot> {
        let dataplane = self.dataplane();
        let mut known = self.list_sizes.lock().unwrap_or_else(PoisonError::into_inner);
        let now = dataplane.clock()?.now();
        let sizes = match known.take() {
            Some(sizes) if sizes.hold_at(now) => sizes,
            _ => ListSizes::count(&dataplane, now)?,
        };
        let snapshot = Snapshot::take(&dataplane, devices, sizes.clone());
        *known = Some(sizes);
        snapshot
    }

    /// Reads the configuration file anew, and puts what it says in force: all of it or nothing. Drops are then on trial for so
    /// many seconds, if that is asked.
    pub(crate) async fn reload(self: &Arc<Self>, confirm_s: Option<u64>) -> anyhow::Result<Reloaded> {
        let devices = dataplane::devices().await?;
        let daemon = Arc::clone(self);
        let work = move || {
            let none =
                || Failure::new(Exit::Configuration, format!("there is no {DEFAULT_PATH}")).hint("run --config <path>");
            let found = Source::find(daemon.options.file.as_deref())?.ok_or_else(none)?;
            let mut source = found.clone();
            daemon.options.overrule(&mut source);
            let automatic = source.configuration.automatic();
            let plan = Plan::new(&daemon.dataplane(), &source, Some(&automatic))?;
            // Without the lock: lists of a million take seconds.
            let prepared = plan.prepare()?;
            let mut plane = daemon.dataplane();
            let changes = prepared.apply(&mut plane, &devices, confirm_s)?;
            let config = plane.config()?;
            drop(plane);
            report(&changes);
            daemon.claim_for_file(&source);
            daemon.options.keep(&found);
            let confirm_within_s = confirm_s.filter(|_| config.is_on_trial() && !changes.is_empty());
            daemon.forget_list_sizes();
            let needs_restart = daemon.options.needs_restart(&source);
            let files = source.files.iter().map(|file| file.display().to_string()).collect();
            anyhow::Ok(Reloaded { schema_version: SCHEMA_VERSION, files, changes, needs_restart, confirm_within_s })
        };
        service_manager::reloading();
        let reloaded = tokio::task::spawn_blocking(work).await;
        service_manager::ready();
        let reloaded = reloaded??;
        for what in &reloaded.needs_restart {
            warn!(what, "has changed in the configuration file: it takes a restart");
        }
        if let Err(error) = self.refresh().await {
            warn!(%error, "reloaded, but what is shown is of before");
        }
        Ok(reloaded)
    }

    /// Changes something, and says what that has changed. What cannot be read is not told, which is no reason not to do it.
    pub(crate) fn change<T>(
        &self,
        work: impl FnOnce(&mut Dataplane) -> anyhow::Result<T>,
    ) -> anyhow::Result<(T, Vec<Change>)> {
        let mut plane = self.dataplane();
        let before = Picture::of(&plane).ok();
        let done = work(&mut plane)?;
        let both = before.zip(Picture::of(&plane).ok());
        Ok((done, both.map(|(before, after)| before.changes_to(&after)).unwrap_or_default()))
    }

    /// Writes down what somebody has changed, and tells him where another has changed the same lately.
    fn record_of(&self, who: &Caller, entry: history::Entry) {
        self.record(&entry);
        if let Some(incident) = &mut *self.incident() {
            incident.note(&entry.user, &entry.change);
        }
        let mut recent = self.recent.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(told) = recent.take(who.peer.session(), entry, Instant::now()) {
            who.tell(told);
        }
    }

    /// Writes down who changed what. The change holds whether or not that can be done.
    pub(crate) fn record(&self, entry: &history::Entry) {
        let details = entry.details.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ");
        let (from, why) = (entry.from.map(|from| from.to_string()), entry.why.as_deref());
        info!(
            user = entry.user,
            uid = entry.uid,
            pid = entry.pid,
            from,
            change = entry.change,
            details,
            why,
            "changed"
        );
        self.check_up.has_changed(entry.origin());
        if let Err(error) = history::append(&self.options.history, entry) {
            warn!(%error, path = %self.options.history.display(), "who changed what cannot be written down");
        }
    }

    /// The last changes.
    pub(crate) fn history(&self, number: usize) -> anyhow::Result<Vec<history::Entry>> {
        let path = &self.options.history;
        history::last(path, number).with_context(|| format!("cannot read {}", path.display()))
    }

    /// Peers that somebody would miss, and who of them asks.
    pub(crate) fn around(&self, caller: Option<IpAddr>) -> Vec<Peer> {
        lockout::around(caller, self.options.file.as_deref())
    }

    /// Takes a snapshot now: after a change, so that who made it sees it.
    pub(crate) async fn refresh(&self) -> dataplane::Result<()> {
        let mut snapshot = self.snapshot(&dataplane::devices().await?)?;
        snapshot.situation.clone_from(&self.view().now.situation);
        self.check_up.show(&mut snapshot);
        let earlier = self.view().earlier;
        self.show(View { now: Arc::new(snapshot), earlier });
        Ok(())
    }

    /// Shows a view, unless one is shown that was taken later: after a change, for who made it.
    fn show(&self, view: View) {
        self.views.send_if_modified(|shown| {
            let is_newer = view.now.taken_ns > shown.now.taken_ns;
            if is_newer {
                *shown = view;
            }
            is_newer
        });
    }
}

/// Runs until SIGINT or SIGTERM.
///
/// # Errors
/// Where it cannot start; whatever it had attached by then stays attached.
pub async fn run(options: Options) -> anyhow::Result<()> {
    // Before anybody can see that the daemon runs, and ask it to stop.
    let mut stop = StopSignals::catch()?;
    let hangup = signal(SignalKind::hangup())?;
    let devices = dataplane::devices().await?;
    let wanted = wanted(&options.interfaces, &devices)?;
    // What can fail without a trace comes first.
    let metrics = match options.metrics {
        Some(address) => Some(server::bind_tcp(address, "metrics").await?),
        None => None,
    };
    let api = match &options.api {
        Some((address, _)) => Some(server::bind_tcp(*address, "api").await?),
        None => None,
    };
    let mut plane = Dataplane::open_or_create(Pins::new(&options.bpffs))?;
    let socket = server::bind_unix(&options.socket, server::GROUP)?;
    let read = server::bind_read(&options.socket, &options.read_group)?;
    let mut is_tested = false;
    let in_time = Deadline::new(LONGEST_LOAD, end_late);
    for device in wanted {
        if !is_tested && plane.takes_new_program(device)? {
            let frames = self_test::run(&plane)?;
            info!(frames, "self-test passed: the filter judges as it should");
            is_tested = true;
        }
        announce(device, plane.attach(device, options.allow_generic)?);
        match plane.remember_sent(device, options.egress_hook) {
            Ok(hook) => info!(interface = device.name, hook = hook.label(), "what leaves is remembered"),
            Err(error) => warn!(interface = device.name, %error, "unsolicited replies cannot be told"),
        }
    }
    drop(in_time);
    let devices = dataplane::devices().await?;
    let mut source = options.source.clone().unwrap_or_default();
    options.overrule(&mut source);
    without_memory(&plane, &mut source)?;
    let automatic = source.configuration.automatic();
    let changes = Plan::new(&plane, &source, Some(&automatic))?.prepare()?.apply(&mut plane, &devices, None)?;
    report(&changes);
    options.source.iter().for_each(|source| options.keep(source));
    if let Some(mode) = options.mode {
        first_mode(&mut plane, mode, options.confirm_s)?;
    }
    disarm_without_memory(&mut plane)?;
    let sizes = ListSizes::count(&plane, plane.clock()?.now())?;
    let first = Arc::new(Snapshot::take(&plane, &devices, sizes)?);
    let samples = plane.samples()?;
    let mode = first.mode;
    let (views, _) = watch::channel(View { now: first, earlier: None });
    let daemon = Arc::new(Daemon {
        dataplane: Mutex::new(plane),
        talkers: Mutex::default(),
        past: Mutex::default(),
        check_up: check_up::State::default(),
        recent: Mutex::default(),
        views,
        options: options.clone(),
        list_sizes: Mutex::default(),
        incident: Mutex::default(),
        store: Store::beside(&options.history),
        streams: events::Streams::default(),
        automatic: Automatic::beside(&options.history),
        pardoned: Mutex::default(),
        lacked_memory_ns: AtomicU64::new(0),
        devices: Mutex::new(devices),
    });
    daemon.claim_for_file(&source);
    daemon.automatic.take_back(&daemon);
    let for_api = match &options.api {
        Some((_, token)) => http::with_token(Arc::clone(&daemon), token.clone()),
        None => axum::Router::new(),
    };
    info!(socket = %options.socket.display(), mode = mode.label(), "ready");
    if mode == Mode::Stopped {
        warn!("all dropping is stopped; `floodwall resume` lets it go on");
    }
    match (mode, daemon.view().now.trial) {
        (Mode::Enforce, Some(left)) => {
            warn!(seconds = left.as_secs(), "on trial: `floodwall confirm` keeps drops real")
        }
        (Mode::Monitor, Some(_)) => warn!("{NOT_CONFIRMED}"),
        (Mode::Monitor, None) => info!("monitor mode: nothing is dropped; `floodwall mode enforce` makes drops real"),
        _ => {}
    }
    service_manager::ready();
    tokio::select! {
        () = watching::watch(&daemon, samples) => {}
        () = server::serve_unix(Some(socket), http::control(Arc::clone(&daemon))) => {}
        () = server::serve_unix(read, http::look(Arc::clone(&daemon))) => {}
        () = server::serve_tcp(metrics, http::read_only(Arc::clone(&daemon))) => {}
        () = server::serve_tcp(api, for_api) => {}
        () = reload_on_signal(&daemon, hangup) => {}
        () = check_up::audit_by_itself(&daemon) => {}
        signal = stop.next() => info!(signal, "stopping"),
    }
    service_manager::stopping();
    let _ = std::fs::remove_file(&options.socket);
    let _ = std::fs::remove_file(access::read_socket(&options.socket));
    if options.detach_on_exit {
        let interfaces = daemon.dataplane().detach(None)?;
        info!(interfaces = interfaces.join(", "), "detached");
    } else if daemon.view().now.interfaces.iter().any(|interface| interface.protected.attached.is_some()) {
        info!("the filter stays attached; `floodwall detach` takes it off");
    }
    Ok(())
}

/// Where what is sent is not remembered, the file's word for what needs that is passed over at the start: better the rest of
/// it than no daemon.
fn without_memory(plane: &Dataplane, source: &mut Source) -> dataplane::Result<()> {
    let Some(policy) = &mut source.configuration.policy else { return Ok(()) };
    let without = plane.not_remembered()?.join(", ");
    for reason in NEED_MEMORY.into_iter().filter(|_| !without.is_empty()) {
        if policy.remove(&ReasonLabel(reason)).is_some() {
            error!(
                interfaces = without,
                reason = reason.label(),
                "what is sent is not remembered; the file's policy is passed over"
            );
        }
    }
    Ok(())
}

/// Sets the mode of the start. A service manager may have started this again: a trial is neither confirmed by that nor begun anew,
/// and whoever has stopped all dropping has the last word.
fn first_mode(plane: &mut Dataplane, mode: Mode, confirm_s: Option<u64>) -> anyhow::Result<()> {
    let config = plane.config()?;
    if config.mode() == Mode::Stopped {
        warn!("{}", dataplane::Error::Stopped);
        return Ok(());
    }
    match (mode, confirm_s) {
        (Mode::Enforce, _) if config.is_on_trial() => warn!("drops were made real on trial, which stays as it is"),
        (Mode::Enforce, Some(seconds)) if !config.enforces() => control::try_enforcing(plane, seconds)?,
        _ => plane.set_mode(mode)?,
    }
    Ok(())
}

/// Ends a start that the kernel keeps waiting. What it works on for this process it then gives up.
fn end_late() {
    error!(
        seconds = LONGEST_LOAD.as_secs(),
        "the kernel has not taken the filter in time, so the start is given up: report this with `uname -r`"
    );
    std::process::exit(Exit::Environment as i32);
}

fn report(changes: &[Change]) {
    for change in changes {
        info!(%change, "by the configuration");
    }
}

/// Reads the files anew whenever somebody sends SIGHUP. What is wrong with them changes nothing.
async fn reload_on_signal(daemon: &Arc<Daemon>, mut hangup: Signal) {
    while hangup.recv().await.is_some() {
        match daemon.reload(None).await {
            Ok(reloaded) if reloaded.changes.is_empty() => info!("reloaded: nothing has changed"),
            Ok(reloaded) => {
                let entry = history::Entry::of_this_process("signal", reloaded.in_words());
                daemon.record(&entry.with(reloaded.changes));
            }
            Err(error) => error!("not reloaded, all is as it was: {}", describe(&error)),
        }
    }
}

fn wanted<'a>(names: &[String], devices: &'a [Device]) -> anyhow::Result<Vec<&'a Device>> {
    let mut wanted: Vec<&Device> = Vec::new();
    for name in names {
        let device = dataplane::find(devices, name)?;
        let carriers = dataplane::carriers(devices, device);
        if carriers.is_empty() {
            let text = format!("'{name}' has no member to attach to");
            return Err(Failure::new(Exit::Environment, text).hint("give the bond a member first").into());
        }
        if device.made_of != MadeOf::Itself {
            let at: Vec<_> = carriers.iter().map(|carrier| carrier.name.as_str()).collect();
            info!(
                interface = name,
                at = at.join(", "),
                "packets of a bond come in at its members, of a VLAN at its parent"
            );
        }
        for device in carriers {
            if wanted.iter().any(|other| other.ifindex == device.ifindex) {
                warn!(interface = device.name, "named twice; taken once");
            } else {
                wanted.push(device);
            }
        }
    }
    if wanted.is_empty() {
        let hint = "floodwall run --interface <name>";
        return Err(Failure::new(Exit::Usage, "no interface to protect").hint(hint).into());
    }
    Ok(wanted)
}

/// Where what is sent is not remembered, every reply would be one to nothing: better the flood's than none at all.
fn disarm_without_memory(plane: &mut Dataplane) -> dataplane::Result<bool> {
    let drops = plane.config()?.drops;
    let armed: Vec<_> = NEED_MEMORY.into_iter().filter(|reason| drops.has(*reason)).collect();
    if armed.is_empty() {
        return Ok(false);
    }
    let without = plane.not_remembered()?.join(", ");
    for reason in armed.into_iter().filter(|_| !without.is_empty()) {
        plane.set_policy(reason, Verdict::Pass)?;
        error!(
            interfaces = without,
            reason = reason.label(),
            "what is sent is not remembered; the reason is set to pass"
        );
    }
    Ok(!without.is_empty())
}

fn announce(device: &Device, outcome: Outcome) {
    let interface = device.name.as_str();
    match outcome {
        Outcome::Attached(mode) => info!(interface, xdp = mode.label(), "attached"),
        Outcome::Adopted(mode) => info!(interface, xdp = mode.label(), "adopted: it was protected already"),
        Outcome::Replaced(mode) => info!(interface, xdp = mode.label(), "replaced the program in place"),
    }
}

/// The signals that end the daemon, caught from the moment that this is made.
struct StopSignals {
    interrupt: Signal,
    terminate: Signal,
}

impl StopSignals {
    fn catch() -> std::io::Result<Self> {
        Ok(Self { interrupt: signal(SignalKind::interrupt())?, terminate: signal(SignalKind::terminate())? })
    }

    async fn next(&mut self) -> &'static str {
        tokio::select! {
            _ = self.interrupt.recv() => "SIGINT",
            _ = self.terminate.recv() => "SIGTERM",
        }
    }
}

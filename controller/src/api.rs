//! The JSON that crosses the socket, and that `--json` prints: the same types on both sides.
//!
//! Additions keep [`SCHEMA_VERSION`]; a change of meaning or a removal raises it. Rates are numbers with their unit in
//! the name; times are seconds of the Unix epoch; sources are addresses (IPv4) or prefixes (IPv6 /64).

use std::path::PathBuf;

use floodwall_common::reason::{Reason, Verdict};
use serde::{Deserialize, Serialize};

use crate::configuration::Change;
use crate::dataplane::{AttachMode, Cell, EgressHook, Listed};
use crate::history;
use crate::incident::Incident;
use crate::snapshot::{Interface, Situation, Snapshot};

mod armed;
mod groups;
mod limits;
mod signatures;

pub(crate) use armed::check_name;
pub use armed::{
    AmplifierView, AmplifiersChange, AmplifiersView, CookiesChange, CookiesView, ServiceView, ServicesChange,
    ServicesView,
};
pub use groups::{GroupView, GroupsChange, GroupsView};
pub use limits::{LimitView, LimitsChange, LimitsView, RateView};
pub use signatures::{SignatureFields, SignatureView, SignaturesChange, SignaturesView};

/// Version of these shapes.
pub const SCHEMA_VERSION: u32 = 1;

/// The header by which both sides name their version.
pub const VERSION_HEADER: &str = "floodwall-api";

/// The header by which a caller says why he changes something.
pub const WHY_HEADER: &str = "floodwall-why";

/// The header of an answer that has a word for whoever asked, beside the answer.
pub const TOLD_HEADER: &str = "floodwall-told";

/// Where the socket is unless somebody says otherwise.
pub const DEFAULT_SOCKET: &str = "/run/floodwall/floodwall.sock";

/// What `floodwall status` says.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Status {
    /// Version of this shape.
    pub schema_version: u32,
    /// Version of the program that answered.
    pub version: String,
    /// Answered by a running daemon, or read from the pinned maps.
    pub daemon: bool,
    /// `monitor` or `enforce`.
    pub mode: String,
    /// Since when.
    pub mode_since_unix_s: u64,
    /// Where drops are real on trial only: seconds that are left to confirm them, 0 where they have ended. Else null.
    #[serde(default)]
    pub confirm_within_s: Option<u64>,
    /// Every interface that is meant to be protected is.
    pub attached: bool,
    /// Each of them.
    pub interfaces: Vec<InterfaceStatus>,
    /// Sources that owe something now.
    pub sources: u64,
    /// Sources that can be remembered.
    pub source_capacity: u64,
    /// Entries on the allow list.
    pub allow_entries: usize,
    /// Those of them that are there by themselves.
    #[serde(default)]
    pub allow_automatic: usize,
    /// Entries on the deny list.
    pub deny_entries: usize,
    /// Sampled headers that found the ring full.
    pub samples_lost: u64,
    /// Counts changes of the configuration.
    pub generation: u64,
    /// Reasons that drop because somebody has armed them.
    #[serde(default)]
    pub armed: Vec<String>,
    /// What goes on, by detection; null without a daemon.
    #[serde(default)]
    pub situation: Option<Situation>,
}

/// An interface in a [`Status`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct InterfaceStatus {
    /// Its name when it was attached.
    pub name: String,
    /// Its index.
    pub ifindex: u32,
    /// How the filter is on the device now; null where it is not.
    pub attached: Option<AttachMode>,
    /// What leaves through it is remembered, so that replies to nothing can be told.
    pub remembers_sent: bool,
    /// How it is seen; null where it is not.
    #[serde(default)]
    pub egress_hook: Option<EgressHook>,
    /// Since when it is protected.
    pub since_unix_s: u64,
    /// What passed.
    pub passed: Flow,
    /// What was dropped.
    pub dropped: Flow,
    /// What was answered here: SYNs, with cookies.
    #[serde(default)]
    pub answered: Flow,
    /// What passed though its reason drops: in monitor mode.
    pub would_drop: Flow,
    /// By reason and verdict, the most first.
    pub reasons: Vec<ReasonStatus>,
}

/// Packets and bytes, in all and now.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Flow {
    /// Frames.
    pub packets: u64,
    /// Bytes of frames.
    pub bytes: u64,
    /// Frames per second over the last second; null without a daemon.
    pub packets_per_second: Option<f64>,
    /// Bytes per second over the last second; null without a daemon.
    pub bytes_per_second: Option<f64>,
}

/// A reason in an [`InterfaceStatus`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ReasonStatus {
    /// Its label.
    pub reason: String,
    /// `pass` or `drop`.
    pub verdict: String,
    /// How many.
    #[serde(flatten)]
    pub flow: Flow,
}

impl Status {
    /// A snapshot, and the rates since an earlier one.
    pub fn new(now: &Snapshot, earlier: Option<&Snapshot>, daemon: bool) -> Self {
        let entries = |name| now.lists.iter().filter(|size| size.list == name).map(|size| size.entries).sum();
        Self {
            schema_version: SCHEMA_VERSION,
            version: env!("CARGO_PKG_VERSION").to_owned(),
            daemon,
            mode: now.mode.label().to_owned(),
            mode_since_unix_s: now.mode_since_unix_s,
            confirm_within_s: now.trial.map(|left| left.as_nanos().div_ceil(1_000_000_000) as u64),
            attached: now.is_attached(),
            interfaces: now.interfaces.iter().map(|interface| interface_status(interface, now, earlier)).collect(),
            sources: now.sources,
            source_capacity: now.source_capacity,
            allow_entries: entries(floodwall_common::lists::List::Allow),
            allow_automatic: now.allow_automatic,
            deny_entries: entries(floodwall_common::lists::List::Deny),
            samples_lost: now.samples.lost.iter().sum(),
            generation: now.generation,
            armed: armed(now),
            situation: now.situation.clone(),
        }
    }
}

fn armed(now: &Snapshot) -> Vec<String> {
    let armed = now.policies().filter(|(_, verdict, standard)| (*verdict, *standard) == (Verdict::Drop, Verdict::Pass));
    armed.map(|(reason, ..)| reason.label().to_owned()).collect()
}

fn interface_status(interface: &Interface, now: &Snapshot, earlier: Option<&Snapshot>) -> InterfaceStatus {
    let before = earlier.and_then(|earlier| {
        let slot = interface.protected.slot;
        let interface = earlier.interfaces.iter().find(|before| before.protected.slot == slot)?;
        Some((interface, now.taken_ns.saturating_sub(earlier.taken_ns) as f64 / 1e9))
    });
    let flow = |pick: &dyn Fn(&Cell) -> bool| {
        let count = interface.sum(pick);
        let rates = before.filter(|(_, seconds)| *seconds > 0.0);
        let since = rates.map(|(before, seconds)| (count.since(before.sum(pick)), seconds));
        Flow {
            packets: count.packets,
            bytes: count.bytes,
            packets_per_second: since.map(|(count, seconds)| count.packets as f64 / seconds),
            bytes_per_second: since.map(|(count, seconds)| count.bytes as f64 / seconds),
        }
    };
    let drops = |cell: &Cell| cell.reason.verdict(now.drops) == Verdict::Drop;
    let mut reasons = Vec::new();
    for reason in Reason::ALL {
        for verdict in Verdict::ALL {
            let flow = flow(&|cell| cell.reason == *reason && cell.verdict == *verdict);
            if flow.packets > 0 {
                let (reason, verdict) = (reason.label().to_owned(), verdict.label().to_owned());
                reasons.push(ReasonStatus { reason, verdict, flow });
            }
        }
    }
    reasons.sort_by_key(|reason| std::cmp::Reverse(reason.flow.packets));
    InterfaceStatus {
        name: interface.protected.name.clone(),
        ifindex: interface.protected.ifindex,
        attached: interface.protected.attached,
        remembers_sent: interface.protected.egress_hook.is_some(),
        egress_hook: interface.protected.egress_hook,
        since_unix_s: interface.protected.since_unix_s,
        passed: flow(&|cell| cell.verdict == Verdict::Pass),
        dropped: flow(&|cell| cell.verdict == Verdict::Drop),
        answered: flow(&|cell| cell.verdict == Verdict::Answer),
        would_drop: flow(&|cell| cell.verdict == Verdict::Pass && drops(cell)),
        reasons,
    }
}

/// What the operator has chosen for the reasons that are his.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PolicyView {
    /// Version of this shape.
    pub schema_version: u32,
    /// Each of them.
    pub policies: Vec<PolicyEntry>,
}

/// A choice.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PolicyEntry {
    /// The reason.
    pub reason: String,
    /// `pass` or `drop`.
    pub verdict: String,
    /// What it is where nobody has chosen.
    #[serde(default)]
    pub default: Option<String>,
}

/// `{"mode": "enforce"}`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ModeChange {
    /// `monitor` or `enforce`.
    pub mode: String,
    /// With `enforce`: monitor again after so many seconds, unless it is confirmed.
    #[serde(default)]
    pub confirm_s: Option<u64>,
}

/// How a configuration file is read anew.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ReloadRequest {
    /// Drops are real for so many seconds only, unless they are confirmed.
    #[serde(default)]
    pub confirm_s: Option<u64>,
}

/// A drill: the alert without an attack.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum DrillRequest {
    /// Have the alert fire.
    Start {
        /// For how long, at most an hour.
        seconds: u64,
    },
    /// Write down that it reached somebody.
    Received(String),
}

/// What reading the configuration file anew came to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reloaded {
    /// Version of this shape.
    pub schema_version: u32,
    /// The files, in the order in which they were read.
    pub files: Vec<String>,
    /// What is in force now and was not before.
    pub changes: Vec<Change>,
    /// What has changed in the files and takes a restart of the daemon.
    pub needs_restart: Vec<String>,
    /// Drops are on trial for so many seconds.
    #[serde(default)]
    pub confirm_within_s: Option<u64>,
}

impl Reloaded {
    /// What it was, for who reads who did what.
    pub fn in_words(&self) -> String {
        format!("reload, {} changes", self.changes.len())
    }
}

/// Who did what.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HistoryView {
    /// Version of this shape.
    pub schema_version: u32,
    /// The last changes, the latest last.
    pub changes: Vec<history::Entry>,
}

/// The records of all incidents.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct IncidentsView {
    /// Version of this shape.
    pub schema_version: u32,
    /// The latest last.
    pub incidents: Vec<Incident>,
}

/// What to take the filter off.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DetachRequest {
    /// One interface; null for all.
    #[serde(default)]
    pub interface: Option<String>,
}

/// What `floodwall uninstall` has done.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Uninstalled {
    /// Version of this shape.
    pub schema_version: u32,
    /// The interfaces that the filter was taken off.
    pub interfaces: Vec<String>,
    /// Files and directories that are gone, that of the pins among them.
    pub removed: Vec<PathBuf>,
    /// Those that are left for `--purge`.
    pub kept: Vec<PathBuf>,
}

/// What is on a list.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ListView {
    /// Version of this shape.
    pub schema_version: u32,
    /// `allow` or `deny`.
    pub list: String,
    /// Counts changes of the configuration.
    pub generation: u64,
    /// Its entries, by prefix.
    pub entries: Vec<EntryView>,
}

/// An entry of a list.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EntryView {
    /// The prefix.
    pub prefix: ipnet::IpNet,
    /// Seconds until it ends; null for never.
    #[serde(default)]
    pub ttl_s: Option<u64>,
    /// When it was added.
    #[serde(default)]
    pub added_unix_s: u64,
    /// Why.
    #[serde(default)]
    pub reason: String,
}

impl EntryView {
    /// An entry, seen at `now` on the packet path's clock.
    pub fn new(entry: &Listed, now: floodwall_common::clock::Moment) -> Self {
        let added = entry.added.duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
        let left = |until: floodwall_common::clock::Moment| until.ns().saturating_sub(now.ns()).div_ceil(1_000_000_000);
        Self {
            prefix: entry.prefix,
            ttl_s: entry.until.map(left),
            added_unix_s: added.as_secs(),
            reason: entry.note.clone(),
        }
    }
}

/// A change of a list: all or nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ListChange {
    /// Entries to add; one that is there already is replaced.
    #[serde(default)]
    pub add: Vec<EntryView>,
    /// Prefixes to remove.
    #[serde(default)]
    pub remove: Vec<ipnet::IpNet>,
    /// Also what would hit a large part of the Internet, or peers that this host needs.
    #[serde(default)]
    pub force: bool,
}

/// What a change of a list came to.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ListChanged {
    /// Prefixes that were to be removed and were not there.
    pub missing: Vec<ipnet::IpNet>,
    /// Entries on the list now.
    pub entries: usize,
}

/// Who sends most.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TopView {
    /// Version of this shape.
    pub schema_version: u32,
    /// How far back it looks.
    pub window_s: f64,
    /// What it is sorted by.
    pub by: String,
    /// Sampled headers that it is estimated from.
    pub samples: usize,
    /// The first ones.
    pub talkers: Vec<TalkerView>,
}

/// A source in a [`TopView`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TalkerView {
    /// The address, or the /64 of an IPv6 source.
    pub source: String,
    /// Estimated from samples.
    pub packets_per_second: f64,
    /// Estimated from samples.
    pub bytes_per_second: f64,
    /// Estimated from samples: dropped, or in monitor mode what would be.
    pub dropped_per_second: f64,
    /// Of all packets.
    pub share: f64,
    /// The reason of most of its packets.
    pub reason: String,
    /// Samples of it: how sure the estimate is.
    pub samples: usize,
}

/// What would happen to a source now.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ExplainView {
    /// Version of this shape.
    pub schema_version: u32,
    /// The source.
    pub source: String,
    /// `pass` or `drop` of a well-formed packet, by class, is in `limits`; this is the verdict of the lists alone where
    /// they have one, else null.
    pub list_verdict: Option<String>,
    /// It has completed a handshake with this host in the last six hours, so that it comes first where a service is over
    /// its cap.
    #[serde(default)]
    pub verified: bool,
    /// The group that it is in: limits that the group has of its own take the place of those of everybody.
    #[serde(default)]
    pub group: Option<String>,
    /// The whole answer, in a sentence.
    pub summary: String,
    /// Entries that cover the source, of both lists and of groups.
    pub entries: Vec<CoveringEntry>,
    /// Each limit and where the source stands.
    pub limits: Vec<LimitStanding>,
    /// Signatures in force: they judge a packet before limits do, and by other things than its source.
    #[serde(default)]
    pub signatures: usize,
    /// What was seen of it in the last seconds.
    pub recent: Option<TalkerView>,
}

/// A list entry that covers a source.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CoveringEntry {
    /// `allow`, `deny` or `groups`.
    pub list: String,
    /// The entry.
    #[serde(flatten)]
    pub entry: EntryView,
}

/// Where a source stands with a limit.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct LimitStanding {
    /// The limit.
    pub name: String,
    /// Who shares it.
    pub per: String,
    /// The group whose limit it is; null where it is everybody's.
    #[serde(default)]
    pub group: Option<String>,
    /// `packets` or `bytes`.
    pub unit: String,
    /// The rate.
    pub per_second: u64,
    /// The burst.
    pub burst: u64,
    /// Share of the burst that is used up; over 1 where it is over.
    pub used: f64,
    /// What would happen to its next packet of this class.
    pub verdict: String,
    /// Milliseconds until a packet would pass; zero where one would now, nothing where none ever would.
    pub next_allowed_ms: Option<f64>,
}

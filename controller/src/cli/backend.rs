//! Who answers a verb: the daemon, or the pinned maps where there is none.

use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::time::Duration;

use anyhow::{Context, anyhow};
use floodwall_common::lists::List;
use serde::de::DeserializeOwned;

use super::args::Global;
use super::client::Client;
use crate::api::{
    AmplifiersChange, AmplifiersView, CookiesChange, CookiesView, DetachRequest, GroupsChange, GroupsView, HistoryView,
    LimitsChange, LimitsView, ListChange, ListChanged, ListView, ModeChange, PolicyEntry, PolicyView, SCHEMA_VERSION,
    ServicesChange, ServicesView, SignaturesChange, SignaturesView, Status,
};
use crate::configuration::Change;
use crate::control::{self, ListPlan};
use crate::dataplane::{self, Access, Dataplane, Pins};
use crate::exit::{Exit, Failure, describe};
use crate::groups;
use crate::history;
use crate::peers::Peer;
use crate::picture::{Picture, switch_change};
use crate::snapshot::{ListSizes, Snapshot};

/// Answers verbs.
pub(super) enum Backend {
    /// A running daemon.
    Daemon(Client),
    /// The pinned maps.
    Pins(PathBuf),
}

impl Backend {
    pub(super) async fn find(global: &Global) -> anyhow::Result<Self> {
        Ok(match Client::connect(&global.socket).await? {
            Some(client) => Self::Daemon(client.because(global.why.as_deref())),
            None => Self::Pins(global.bpffs.clone()),
        })
    }

    /// For verbs that only a daemon can answer.
    pub(super) async fn daemon(global: &Global) -> anyhow::Result<Client> {
        let client = Client::connect(&global.socket).await?.map(|client| client.because(global.why.as_deref()));
        client.ok_or_else(|| {
            let text = format!("no daemon answers on {}", global.socket.display());
            Failure::new(Exit::Environment, text).hint("floodwall run --interface <name>, or name its --socket").into()
        })
    }

    pub(super) async fn status(self) -> anyhow::Result<Status> {
        match self {
            Self::Daemon(client) => client.get("/api/v1/status").await,
            Self::Pins(bpffs) => shown(bpffs).await,
        }
    }

    pub(super) async fn metrics(self) -> anyhow::Result<String> {
        match self {
            Self::Daemon(client) => client.text("/metrics").await,
            Self::Pins(bpffs) => Ok(crate::metrics::render(&snapshot(bpffs).await?)?),
        }
    }

    pub(super) async fn limits(self) -> anyhow::Result<LimitsView> {
        self.read("/api/v1/limits", control::limits).await
    }

    pub(super) async fn change_limits(self, change: &LimitsChange) -> anyhow::Result<LimitsView> {
        match self {
            Self::Daemon(client) => client.post("/api/v1/limits", change).await,
            Self::Pins(bpffs) => control::change_limits(&mut open(bpffs, Access::Write)?, change),
        }
    }

    pub(super) async fn set_mode(self, change: &ModeChange) -> anyhow::Result<Status> {
        match self {
            Self::Daemon(client) => client.post("/api/v1/mode", change).await,
            Self::Pins(bpffs) => {
                control::set_mode(&mut open(bpffs.clone(), Access::Write)?, change)?;
                shown(bpffs).await
            }
        }
    }

    /// Keeps drops that are on trial.
    pub(super) async fn confirm(self) -> anyhow::Result<Status> {
        match self {
            Self::Daemon(client) => client.post("/api/v1/confirm", &()).await,
            Self::Pins(bpffs) => {
                control::confirm(&mut open(bpffs.clone(), Access::Write)?)?;
                shown(bpffs).await
            }
        }
    }

    /// The last changes.
    pub(super) async fn history(self, path: &Path, number: u32) -> anyhow::Result<HistoryView> {
        match self {
            Self::Daemon(client) => client.get(&format!("/api/v1/history?n={number}")).await,
            Self::Pins(_) => {
                let changes = history::last(path, number as usize);
                let changes = changes.with_context(|| format!("cannot read {}", path.display()))?;
                Ok(HistoryView { schema_version: SCHEMA_VERSION, changes })
            }
        }
    }

    /// The kill switch. A daemon that hangs or refuses does not keep drops real: the maps are written in its place, where this
    /// process may. No status where that cannot be read: the switch is turned all the same.
    pub(super) async fn stop(global: &Global) -> anyhow::Result<Option<Status>> {
        let asked = async {
            match Self::find(global).await? {
                Self::Daemon(client) => client.post("/api/v1/stop", &()).await.map(Some),
                Self::Pins(_) => Ok(None),
            }
        };
        let refused = match tokio::time::timeout(STOP_PATIENCE, asked).await {
            Ok(Ok(Some(status))) => return Ok(Some(status)),
            Ok(Ok(None)) => None,
            Ok(Err(error)) => Some(error),
            Err(_) => Some(anyhow!("the daemon has not answered within {} s", STOP_PATIENCE.as_secs())),
        };
        let switched = match (dataplane::stop_pinned(&Pins::new(&global.bpffs)), refused) {
            (Err(error), None) => return Err(error.into()),
            (Err(error), Some(refused)) => return Err(refused.context(format!("the maps cannot be written: {error}"))),
            (Ok(switched), None) => switched,
            (Ok(switched), Some(refused)) => {
                eprintln!("floodwall: {}: the maps were written in its place", describe(&refused));
                switched
            }
        };
        let _ = BEFORE.set(Before::Switched(switch_change(&switched)));
        let status = shown(global.bpffs.clone()).await;
        if let Err(error) = &status {
            eprintln!("floodwall: all dropping is stopped; what else is set cannot be read: {}", describe(error));
        }
        Ok(status.ok())
    }

    /// Has it go on.
    pub(super) async fn resume(self) -> anyhow::Result<Status> {
        match self {
            Self::Daemon(client) => client.post("/api/v1/resume", &()).await,
            Self::Pins(bpffs) => {
                open(bpffs.clone(), Access::Write)?.resume()?;
                shown(bpffs).await
            }
        }
    }

    pub(super) async fn policies(self) -> anyhow::Result<PolicyView> {
        self.read("/api/v1/policy", control::policies).await
    }

    pub(super) async fn set_policy(self, entry: &PolicyEntry) -> anyhow::Result<PolicyView> {
        match self {
            Self::Daemon(client) => client.post("/api/v1/policy", entry).await,
            Self::Pins(bpffs) => control::set_policy(&mut open(bpffs, Access::Write)?, entry),
        }
    }

    pub(super) async fn amplifiers(self) -> anyhow::Result<AmplifiersView> {
        self.read("/api/v1/amplifiers", control::amplifiers).await
    }

    pub(super) async fn change_amplifiers(self, change: &AmplifiersChange) -> anyhow::Result<AmplifiersView> {
        match self {
            Self::Daemon(client) => client.post("/api/v1/amplifiers", change).await,
            Self::Pins(bpffs) => control::change_amplifiers(&mut open(bpffs, Access::Write)?, change),
        }
    }

    pub(super) async fn services(self) -> anyhow::Result<ServicesView> {
        self.read("/api/v1/services", control::services).await
    }

    pub(super) async fn change_services(self, change: &ServicesChange) -> anyhow::Result<ServicesView> {
        match self {
            Self::Daemon(client) => client.post("/api/v1/services", change).await,
            Self::Pins(bpffs) => control::change_services(&mut open(bpffs, Access::Write)?, change),
        }
    }

    pub(super) async fn cookies(self) -> anyhow::Result<CookiesView> {
        self.read("/api/v1/cookies", control::cookies).await
    }

    pub(super) async fn set_cookies(self, change: &CookiesChange) -> anyhow::Result<CookiesView> {
        match self {
            Self::Daemon(client) => client.post("/api/v1/cookies", change).await,
            Self::Pins(bpffs) => {
                let devices = dataplane::devices().await?;
                control::set_cookies(&mut open(bpffs, Access::Write)?, change, &devices)
            }
        }
    }

    pub(super) async fn signatures(self) -> anyhow::Result<SignaturesView> {
        self.read("/api/v1/signatures", control::signatures).await
    }

    pub(super) async fn change_signatures(self, change: &SignaturesChange) -> anyhow::Result<SignaturesView> {
        match self {
            Self::Daemon(client) => client.post("/api/v1/signatures", change).await,
            Self::Pins(bpffs) => control::change_signatures(&mut open(bpffs, Access::Write)?, change),
        }
    }

    pub(super) async fn list(self, list: List) -> anyhow::Result<ListView> {
        let path = format!("/api/v1/lists/{}", list.label());
        self.read(&path, |dataplane| control::list(dataplane, list)).await
    }

    pub(super) async fn change_list(self, list: List, change: &ListChange) -> anyhow::Result<ListChanged> {
        match self {
            Self::Daemon(client) => client.post(&format!("/api/v1/lists/{}", list.label()), change).await,
            Self::Pins(bpffs) => {
                let mut dataplane = open(bpffs, Access::Write)?;
                let plan = ListPlan::new(&dataplane, list, change)?;
                let prepared = plan.prepare()?;
                plan.install(&mut dataplane, &prepared)
            }
        }
    }

    pub(super) async fn groups(self) -> anyhow::Result<GroupsView> {
        self.read("/api/v1/groups", groups::groups).await
    }

    /// `peers` are those whom somebody would miss; a daemon knows them itself.
    pub(super) async fn change_groups(self, change: &GroupsChange, peers: &[Peer]) -> anyhow::Result<GroupsView> {
        match self {
            Self::Daemon(client) => client.post("/api/v1/groups", change).await,
            Self::Pins(bpffs) => {
                let mut dataplane = open(bpffs, Access::Write)?;
                let (plan, _) = groups::plan(&dataplane, change, peers)?;
                let prepared = plan.prepare()?;
                plan.install(&mut dataplane, &prepared)?;
                groups::groups(&dataplane)
            }
        }
    }

    /// Without a daemon there is nobody to keep the maps for: detaching everything removes them too.
    pub(super) async fn detach(self, interface: Option<&str>) -> anyhow::Result<Vec<String>> {
        match self {
            Self::Daemon(client) => {
                let request = DetachRequest { interface: interface.map(str::to_owned) };
                client.post("/api/v1/detach", &request).await
            }
            Self::Pins(bpffs) => {
                let pins = Pins::new(&bpffs);
                let mut plane = match open(bpffs, Access::Write) {
                    // Not of this version, so not to be read; but it is ours to remove.
                    Err(dataplane::Error::ForeignPin { .. }) => {
                        dataplane::remove_pins(&pins)?;
                        return Ok(vec!["everything pinned".to_owned()]);
                    }
                    opened => opened?,
                };
                let mut detached = plane.detach(interface)?;
                if plane.protected(&[])?.is_empty() {
                    plane.remove()?;
                    detached.push("the pinned maps".to_owned());
                }
                Ok(detached)
            }
        }
    }

    async fn read<T: DeserializeOwned>(
        self,
        path: &str,
        offline: impl FnOnce(&Dataplane) -> anyhow::Result<T>,
    ) -> anyhow::Result<T> {
        match self {
            Self::Daemon(client) => client.get(path).await,
            Self::Pins(bpffs) => offline(&open(bpffs, Access::Read)?),
        }
    }
}

/// How long the kill switch waits for a daemon, which needs some milliseconds.
const STOP_PATIENCE: Duration = Duration::from_secs(2);

/// What was set when this process opened the maps to change them: it is then written down by whoever runs the verb.
static BEFORE: OnceLock<Before> = OnceLock::new();

enum Before {
    /// All that was set, where it could be read.
    All(Option<Picture>),
    /// What the kill switch has changed, which reads nothing beforehand.
    Switched(Vec<Change>),
}

/// What this process has changed without a daemon; `None` where it was not to change anything.
pub(super) fn changed_maps(bpffs: &Path) -> Option<Vec<Change>> {
    let before = match BEFORE.get()? {
        Before::Switched(changes) => return Some(changes.clone()),
        Before::All(before) => before.as_ref(),
    };
    // Maps that are gone, as after a detach, say nothing.
    let after = || Picture::of(&open(bpffs.to_owned(), Access::Read).ok()?).ok();
    Some(before.and_then(|before| Some(before.changes_to(&after()?))).unwrap_or_default())
}

fn open(bpffs: PathBuf, access: Access) -> dataplane::Result<Dataplane> {
    let plane = Dataplane::open(Pins::new(bpffs), access)?;
    if access == Access::Write {
        BEFORE.get_or_init(|| Before::All(Picture::of(&plane).ok()));
    }
    Ok(plane)
}

async fn shown(bpffs: PathBuf) -> anyhow::Result<Status> {
    Ok(Status::new(&snapshot(bpffs).await?, None, false))
}

async fn snapshot(bpffs: PathBuf) -> dataplane::Result<Snapshot> {
    let plane = open(bpffs, Access::Read)?;
    let devices = dataplane::devices().await?;
    let sizes = ListSizes::count(&plane, plane.clock()?.now())?;
    Snapshot::take(&plane, &devices, sizes)
}

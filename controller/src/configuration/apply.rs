//! From what the files say to what is in force: which changes that takes, and all of them or none.

use std::collections::BTreeSet;

use anyhow::Context;
use floodwall_common::config::{Config, Mode};
use floodwall_common::cookie::CookieMode;
use floodwall_common::limits::{LimitKey, Limits, Rate};
use floodwall_common::lists::List;
use floodwall_common::reason::{Reason, Verdict};
use floodwall_common::replies::PortSet;
use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use super::{Configuration, ModeName, Source, VerdictName, groups, signatures};
use crate::api::{
    CookiesChange, EntryView, ListChange, PolicyEntry, RateView, ServiceView, ServicesChange, SignaturesChange,
};
use crate::control::{self, ListPlan};
use crate::dataplane::{Dataplane, Device, PreparedLists, cookies_of, is_automatic, limits_of};
use crate::exit::{Exit, Failure};
use crate::peers::Peer;
use crate::prefixes::overlap;

/// What entries of lists that come from the files have as their reason: by that they are found again.
pub(super) const FROM_FILE: &str = "configuration file";

/// A change, in words.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Change {
    /// What is changed.
    pub what: String,
    /// What it was.
    pub from: String,
    /// What it is to be.
    pub to: String,
}

impl Change {
    pub(crate) fn new(what: impl Into<String>, from: impl ToString, to: impl ToString) -> Self {
        Self { what: what.into(), from: from.to_string(), to: to.to_string() }
    }
}

impl std::fmt::Display for Change {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}: {} -> {}", self.what, self.from, self.to)
    }
}

/// The changes that it takes.
#[derive(Default)]
pub struct Plan {
    settings: Settings,
    lists: Option<ListPlan>,
    generation: u64,
    /// All of them, in words.
    pub changes: Vec<Change>,
}

/// What is set by one call each.
#[derive(Default)]
struct Settings {
    limits: Vec<(LimitKey, Limits)>,
    policy: Vec<(Reason, Verdict)>,
    services: Option<ServicesChange>,
    signatures: Option<SignaturesChange>,
    amplifiers: Option<PortSet>,
    cookies: Option<CookiesChange>,
    mode: Option<Mode>,
}

impl Plan {
    /// Works out what it takes. Nothing is changed. `automatic` are the peers that are to be on the allow list by themselves;
    /// `None` leaves those as they are.
    ///
    /// # Errors
    /// Where what the files say cannot be, or the maps cannot be read.
    pub fn new(dataplane: &Dataplane, source: &Source, automatic: Option<&[Peer]>) -> anyhow::Result<Self> {
        let configuration = &source.configuration;
        let present = dataplane.config()?;
        let mut plan = Self { generation: present.generation, ..Self::default() };
        plan.limits(&present, source)?;
        plan.policy(&present, configuration);
        plan.services(dataplane, source)?;
        plan.settings.signatures = signatures::plan(dataplane, source, &mut plan.changes)?;
        plan.settings.amplifiers = signatures::plan_amplifiers(dataplane, configuration, &mut plan.changes)?;
        plan.cookies(&present, configuration);
        plan.lists(dataplane, source, automatic)?;
        plan.mode(&present, configuration);
        Ok(plan)
    }

    fn limits(&mut self, present: &Config, source: &Source) -> Result<(), Failure> {
        for (key, wanted) in source.configuration.wanted_limits().unwrap_or_default() {
            let of = format!("limits.{}", key.name.label());
            let (wanted, present) = (wanted.map_err(|text| source.wrong(&of, &text))?, limits_of(present, key));
            if wanted != present {
                let text = |limits: Limits| format!("{}, {} bytes", limits.packets, limits.bytes);
                self.changes.push(Change::new(format!("limit {key}"), text(present), text(wanted)));
                self.settings.limits.push((key, wanted));
            }
        }
        Ok(())
    }

    fn policy(&mut self, present: &Config, configuration: &Configuration) {
        let Some(named) = &configuration.policy else { return };
        for (reason, standard) in Reason::chosen() {
            let wanted = match named.get(&super::ReasonLabel(reason)) {
                None => standard,
                Some(VerdictName::Pass) => Verdict::Pass,
                Some(VerdictName::Drop) => Verdict::Drop,
            };
            let present = reason.verdict(present.drops);
            if wanted != present {
                let what = format!("policy {}", reason.label());
                self.changes.push(Change::new(what, present.label(), wanted.label()));
                self.settings.policy.push((reason, wanted));
            }
        }
    }

    fn services(&mut self, dataplane: &Dataplane, source: &Source) -> anyhow::Result<()> {
        let Some(wanted) = source.configuration.wanted_services() else { return Ok(()) };
        let normal = |view: &ServiceView| view.service().map(|service| ServiceView::new(&service));
        let wanted: Vec<_> = wanted.iter().map(normal).collect::<Result<_, _>>().map_err(anyhow::Error::msg)?;
        let mut present: Vec<_> = dataplane.services()?.iter().map(ServiceView::new).collect();
        // What is there by itself goes by itself.
        present.retain(|view| !is_automatic(&view.name));
        present.iter_mut().for_each(|view| (view.shed_per_second, view.shed_order) = (None, None));
        let mut change = ServicesChange::default();
        for view in &present {
            if !wanted.iter().any(|other| other.name == view.name) {
                self.changes.push(Change::new(format!("service {}", view.name), service_in_words(view), "none"));
                change.remove.push(view.name.clone());
            }
        }
        for view in wanted.iter().filter(|view| !present.contains(view)) {
            let before = present.iter().find(|other| other.name == view.name);
            let before = before.map_or_else(|| "none".to_owned(), service_in_words);
            self.changes.push(Change::new(format!("service {}", view.name), before, service_in_words(view)));
            change.add.push(view.clone());
        }
        self.settings.services = (change != ServicesChange::default()).then_some(change);
        Ok(())
    }

    fn cookies(&mut self, present: &Config, configuration: &Configuration) {
        let Some(wanted) = configuration.cookies else { return };
        let (mode, answers) = cookies_of(present);
        let wanted_answers = wanted.answers_pps.map(|per_second| Rate::Limit { per_second, burst: per_second });
        if wanted.mode.0 == mode && wanted_answers.is_none_or(|wanted| wanted == answers) {
            return;
        }
        let text = |mode: CookieMode, answers: Rate| format!("{}, {answers} to a subnet", mode.label());
        let to = text(wanted.mode.0, wanted_answers.unwrap_or(answers));
        self.changes.push(Change::new("cookies", text(mode, answers), to));
        let answers = wanted_answers.and_then(RateView::of);
        self.settings.cookies = Some(CookiesChange { mode: wanted.mode.0.label().to_owned(), answers });
    }

    fn lists(&mut self, dataplane: &Dataplane, source: &Source, automatic: Option<&[Peer]>) -> anyhow::Result<()> {
        let configuration = &source.configuration;
        let mut plan = ListPlan::present(dataplane)?;
        let before = self.changes.len();
        // What is denied first: what is allowed by itself gives way to it.
        for (list, wanted) in [(List::Deny, &configuration.deny), (List::Allow, &configuration.allow)] {
            let Some(wanted) = wanted else { continue };
            let change = from_file(&plan, list, wanted.all()?);
            if change != ListChange::default() {
                let to = format!("{} added, {} removed", change.add.len(), change.remove.len());
                let from = format!("{} prefixes", plan.entries(list).count());
                self.changes.push(Change::new(format!("{} list", list.label()), from, to));
                plan.change(list, &change);
            }
        }
        if let Some(peers) = automatic {
            let (change, peers) = by_itself(&plan, peers);
            if change != ListChange::default() {
                let to = peers.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
                let from = plan.entries(List::Allow).filter(|entry| entry.is_automatic()).count();
                self.changes.push(Change::new("allowed by itself", format!("{from} prefixes"), format!("[{to}]")));
                plan.change(List::Allow, &change);
            }
        }
        groups::plan(dataplane, source, &mut plan, &mut self.changes)?;
        self.lists = (self.changes.len() > before).then_some(plan);
        Ok(())
    }

    fn mode(&mut self, present: &Config, configuration: &Configuration) {
        let Some(wanted) = configuration.mode else { return };
        let wanted = match wanted {
            ModeName::Monitor => Mode::Monitor,
            ModeName::Enforce => Mode::Enforce,
        };
        // As it was set: a trial is not confirmed by a file, nor begun anew once it has ended.
        let present = present.mode();
        // Whoever has stopped all dropping has the last word.
        if present != wanted && present != Mode::Stopped {
            self.changes.push(Change::new("mode", present.label(), wanted.label()));
            self.settings.mode = Some(wanted);
        }
    }

    /// Builds its lists beside those in force: what takes long, and what most likely fails. Takes no lock.
    ///
    /// # Errors
    /// Where they do not fit.
    pub fn prepare(self) -> anyhow::Result<PreparedPlan> {
        let lists = match self.lists {
            Some(plan) => Some((plan.prepare()?, plan)),
            None => None,
        };
        Ok(PreparedPlan { settings: self.settings, lists, generation: self.generation, changes: self.changes })
    }
}

/// The changes that it takes, of which the longest is done.
pub struct PreparedPlan {
    settings: Settings,
    lists: Option<(PreparedLists, ListPlan)>,
    generation: u64,
    changes: Vec<Change>,
}

impl PreparedPlan {
    /// Makes all of the changes, or none: what was made is taken back where a later one is refused. Where drops are then real,
    /// they are for so many seconds only, if that is asked, unless they are confirmed.
    ///
    /// # Errors
    /// Where one is refused, or something has changed since the plan was made.
    pub fn apply(
        self,
        dataplane: &mut Dataplane,
        devices: &[Device],
        confirm_s: Option<u64>,
    ) -> anyhow::Result<Vec<Change>> {
        let Self { settings, lists, generation, changes } = self;
        if dataplane.config()?.generation != generation {
            let text = "something was changed while the configuration was read. Nothing of it is in force";
            return Err(Failure::new(Exit::Conflict, text).hint("do it again").into());
        }
        let (before, mode) = (Settings::present(dataplane)?, dataplane.config()?);
        let signatures = dataplane.signatures()?;
        let will_drop = settings.mode.unwrap_or(mode.mode()) == Mode::Enforce;
        let trial_s = confirm_s.filter(|_| will_drop && !changes.is_empty());
        if let Err(refused) = put_in_force(&settings, lists, trial_s, dataplane, devices) {
            before
                .take_back(dataplane, devices)
                .and_then(|()| signatures::take_back(dataplane, &signatures))
                .and_then(|()| Ok(dataplane.take_back_mode(&mode)?))
                .with_context(|| format!("{refused:#}; and what had been changed by then could not be taken back"))?;
            return Err(refused);
        }
        Ok(changes)
    }
}

fn put_in_force(
    settings: &Settings,
    lists: Option<(PreparedLists, ListPlan)>,
    trial_s: Option<u64>,
    dataplane: &mut Dataplane,
    devices: &[Device],
) -> anyhow::Result<()> {
    // Nothing is to drop by a configuration that is half there: monitor comes first, enforce last. What drops already does so
    // on trial from the first change on.
    match (settings.mode, trial_s) {
        (Some(Mode::Monitor), _) => dataplane.set_mode(Mode::Monitor)?,
        (None, Some(seconds)) => control::try_enforcing(dataplane, seconds)?,
        _ => {}
    }
    // Limits and lists by one write: who comes into a group is under its limits or under those of before.
    settings.set(dataplane, devices, lists.is_none())?;
    if let Some((prepared, plan)) = lists {
        let generation = dataplane.config()?.generation;
        plan.from_now(generation).install_with(dataplane, &prepared, &settings.limits)?;
    }
    match (settings.mode, trial_s) {
        (Some(Mode::Enforce), None) => dataplane.set_mode(Mode::Enforce)?,
        (Some(Mode::Enforce), Some(seconds)) => control::try_enforcing(dataplane, seconds)?,
        _ => {}
    }
    Ok(())
}

impl Settings {
    /// As it is now.
    fn present(dataplane: &Dataplane) -> anyhow::Result<Self> {
        let config = dataplane.config()?;
        let (mode, answers) = cookies_of(&config);
        Ok(Self {
            limits: LimitKey::all().map(|key| (key, limits_of(&config, key))).collect(),
            policy: Reason::chosen().map(|(reason, _)| (reason, reason.verdict(config.drops))).collect(),
            services: Some(ServicesChange {
                add: dataplane.services()?.iter().map(ServiceView::new).collect(),
                ..Default::default()
            }),
            // By a call of their own: they keep their hits.
            signatures: None,
            amplifiers: Some(dataplane.amplifiers()?),
            cookies: Some(CookiesChange { mode: mode.label().to_owned(), answers: RateView::of(answers) }),
            mode: None,
        })
    }

    /// Makes it what is in force again: services that it does not have go.
    fn take_back(mut self, dataplane: &mut Dataplane, devices: &[Device]) -> anyhow::Result<()> {
        // What has not changed needs no check again.
        let (mode, answers) = cookies_of(&*dataplane.config()?);
        let present = CookiesChange { mode: mode.label().to_owned(), answers: RateView::of(answers) };
        self.cookies = self.cookies.filter(|before| *before != present);
        if let Some(change) = &mut self.services {
            let known = |name: &String| change.add.iter().any(|view| view.name == *name);
            let names = dataplane.services()?.into_iter().map(|service| service.name);
            change.remove = names.filter(|name| !known(name)).collect();
        }
        self.set(dataplane, devices, true)
    }

    /// Sets all of it but the mode, and where that is said the limits, by the same calls as the verbs, and so with their checks.
    fn set(&self, dataplane: &mut Dataplane, devices: &[Device], with_limits: bool) -> anyhow::Result<()> {
        if with_limits && !self.limits.is_empty() {
            dataplane.set_limits(&self.limits, None)?;
        }
        if let Some(change) = &self.services {
            control::change_services(dataplane, change)?;
        }
        if let Some(change) = &self.signatures {
            control::change_signatures(dataplane, change)?;
        }
        if let Some(ports) = self.amplifiers {
            dataplane.set_amplifiers(ports)?;
        }
        if let Some(change) = &self.cookies {
            control::set_cookies(dataplane, change, devices)?;
        }
        for (reason, verdict) in &self.policy {
            let (reason, verdict) = (reason.label().to_owned(), verdict.label().to_owned());
            control::set_policy(dataplane, &PolicyEntry { reason, verdict, default: None })?;
        }
        Ok(())
    }
}

/// What it takes to have these prefixes of the files on a list, and no others of them.
fn from_file(plan: &ListPlan, list: List, wanted: Vec<IpNet>) -> ListChange {
    let wanted: BTreeSet<_> = wanted.into_iter().collect();
    // One that ends is not what the file asks for, nor is one that is there by itself.
    let stays = plan.entries(list).filter(|entry| entry.until.is_none() && !entry.is_automatic());
    let known: BTreeSet<_> = stays.map(|entry| entry.prefix).collect();
    let ours = plan.entries(list).filter(|entry| entry.note == FROM_FILE).map(|entry| entry.prefix);
    let remove = ours.filter(|prefix| !wanted.contains(prefix)).collect();
    let new = wanted.iter().filter(|prefix| !known.contains(*prefix));
    let entry = |prefix| EntryView { prefix, ttl_s: None, added_unix_s: 0, reason: FROM_FILE.to_owned() };
    ListChange { add: new.map(|prefix| entry(*prefix)).collect(), remove, force: false }
}

/// What it takes to have these peers on the allow list, and no others by themselves; and which of them that are. Somebody's
/// word counts more: who is denied is none, and who is allowed already needs nothing.
fn by_itself<'a>(plan: &ListPlan, peers: &'a [Peer]) -> (ListChange, Vec<&'a Peer>) {
    let is_denied = |peer: &Peer| plan.entries(List::Deny).any(|entry| overlap(entry.prefix, peer.prefix));
    let is_allowed = |peer: &Peer| {
        let mut words = plan.entries(List::Allow).filter(|entry| !entry.is_automatic());
        words.any(|entry| entry.prefix.contains(&peer.prefix) && entry.until.is_none())
    };
    let peers: Vec<_> = peers.iter().filter(|peer| !is_denied(peer) && !is_allowed(peer)).collect();
    let present: BTreeSet<_> = plan.entries(List::Allow).map(|entry| entry.prefix).collect();
    let ours = plan.entries(List::Allow).filter(|entry| entry.is_automatic()).map(|entry| entry.prefix);
    let remove = ours.filter(|prefix| !peers.iter().any(|peer| peer.prefix == *prefix)).collect();
    let add = peers.iter().filter(|peer| !present.contains(&peer.prefix)).map(|peer| peer.entry()).collect();
    (ListChange { add, remove, force: false }, peers)
}

/// Ports and cap of a service.
pub(crate) fn service_in_words(view: &ServiceView) -> String {
    let cap = view.cap.map_or_else(String::new, |cap| format!(", at most {}/s", cap.per_second));
    let connections = view.connections_per_second.map(|most| format!(", at most {most} new connections/s"));
    format!("{}{cap}{}", view.ports.join(" "), connections.unwrap_or_default())
}

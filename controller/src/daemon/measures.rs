//! Putting a measure in force and taking it back, and which of them a daemon after this one has to take back.

use std::collections::BTreeSet;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use floodwall_common::class::Family;
use floodwall_common::cookie::CookieMode;
use floodwall_common::limits::{LimitName, Per, Rate};
use floodwall_common::lists::List;
use floodwall_common::packet::Source;
use floodwall_common::reason::{Reason, Verdict as Fate};
use floodwall_common::services::Order;
use floodwall_common::signatures::Action;
use ipnet::{IpNet, Ipv6Net};
use tracing::{error, info, warn};

use super::{Daemon, wild};
use crate::api::{CookiesChange, EntryView, ListChange, RateView};
use crate::audit::LONG_LISTS;
use crate::control::ListPlan;
use crate::dataplane::{
    self, Dataplane, Listed, Signature, UNNAMED, cookies_of, is_of_udp_only, limits_of, monotonic_ns,
};
use crate::detect::Vector;
use crate::exit::describe;
use crate::prefixes::overlap;
use crate::respond::{
    AUTOMATIC_NAME, Collateral, Denied, Found, InForce, Measure, Measured, STAYS_NS, Shed, Unserved, Wide,
    automatic_name,
};
use crate::{control, files};

pub(super) const STAYS: Duration = Duration::from_nanos(STAYS_NS);
/// What cookies are called in the file of what is armed.
const COOKIES: &str = "cookies";
/// What it begins with where connections to a port are shed.
const SHED: &str = "shed ";
/// The reasons of what is on the deny list by itself.
const DENIED: [&str; 2] = ["detection: goes on and on", "detection: holds connections and asks for nothing"];

/// Puts a measure in force, or prolongs it. `false` where the operator has done the same already: then it is his.
pub(super) fn arm(daemon: &Daemon, measure: &Measure, listening: &BTreeSet<u16>) -> anyhow::Result<bool> {
    let mut dataplane = daemon.dataplane();
    match measure {
        Measure::Drop(reason, _) => {
            if dataplane.config()?.drops.has(*reason) {
                return Ok(false);
            }
            check_memory(&dataplane, *reason)?;
            dataplane.set_policy(*reason, Fate::Drop)?;
        }
        Measure::Cookies => {
            if cookies_of(&*dataplane.config()?).0 != CookieMode::Off {
                return Ok(false);
            }
            let change = CookiesChange { mode: CookieMode::Auto.label().to_owned(), answers: None };
            control::set_cookies(&mut dataplane, &change, &daemon.devices())?;
        }
        Measure::Unserved(_) => {
            check_memory(&dataplane, Reason::NoService)?;
            if !dataplane.lock_udp(listening)? {
                return Ok(false);
            }
        }
        Measure::Limit(wide) => {
            let present = limits_of(&*dataplane.config()?, wide.key());
            if present != wide.key().default_limits() && present != wide.limits() {
                return Ok(false);
            }
            dataplane.set_limits(&[(wide.key(), wide.limits())], None)?;
        }
        Measure::Shed(shed) => {
            let rate = RateView::rate(Some(RateView { per_second: shed.per_second, burst: shed.burst() }));
            let is_there = dataplane.shed_on(shed.port)? == Some((rate, shed.order));
            if !is_there && !dataplane.shed(shed.port, rate, shed.order)? {
                return Ok(false);
            }
        }
        Measure::Deny(denied) => {
            change_denied(daemon, &mut dataplane, denied, true)?;
            daemon.forget_list_sizes();
        }
        Measure::Group(limit) => {
            // Lists are built without the lock.
            drop(dataplane);
            if !wild::arm(daemon, limit)? {
                return Ok(false);
            }
            daemon.automatic.set(measure, true);
            return Ok(true);
        }
        Measure::Signature(vector, found) => {
            let clock = dataplane.clock()?;
            let generation = dataplane.config()?.generation;
            let name = automatic_name(*vector, found);
            let mut wanted = dataplane.signatures()?;
            wanted.retain(|signature| signature.is_live(clock.now()) && signature.name != name);
            wanted.push(Signature::new(&name, found.shape, Action::Drop, Some(clock.after(STAYS)), "automatic"));
            dataplane.install_signatures(&wanted, generation)?;
        }
    }
    drop(dataplane);
    daemon.automatic.set(measure, true);
    Ok(true)
}

/// Puts sources on the deny list for a while, but whom somebody here would miss; or takes them off again.
fn change_denied(daemon: &Daemon, dataplane: &mut Dataplane, denied: &Denied, is_denied: bool) -> anyhow::Result<()> {
    let (present, most) = (daemon.view().now.lists.iter().map(|list| list.entries).sum::<usize>(), LONG_LISTS);
    anyhow::ensure!(
        present <= most,
        "the lists have {present} entries: more than {most} are not built anew in a flood"
    );
    let mut plan = ListPlan::present(dataplane)?;
    let spared = spared(daemon, &plan);
    let is_missed = |prefix: IpNet| spared.iter().any(|other| overlap(*other, prefix));
    let is_ours = |listed: &Listed| DENIED.contains(&listed.note.as_str());
    let theirs: Vec<_> =
        plan.entries(List::Deny).filter(|listed| !is_ours(listed)).map(|listed| listed.prefix).collect();
    let mut prefixes: Vec<_> = denied.sources.iter().map(|source| prefix_of(*source)).collect();
    // What an operator has denied stays as he has denied it.
    prefixes.retain(|prefix| !theirs.contains(prefix) && !is_missed(*prefix));
    anyhow::ensure!(
        !is_denied || !prefixes.is_empty(),
        "all of them are denied by an operator, allowed, or missed by somebody here"
    );
    let reason = DENIED[usize::from(denied.vector == Vector::SlowConnections)];
    let entry = |prefix| EntryView { prefix, ttl_s: Some(STAYS.as_secs()), added_unix_s: 0, reason: reason.to_owned() };
    let change = match is_denied {
        true => ListChange { add: prefixes.into_iter().map(entry).collect(), ..ListChange::default() },
        false => ListChange { remove: prefixes, ..ListChange::default() },
    };
    plan.change(List::Deny, &change);
    let prepared = plan.prepare()?;
    plan.install(dataplane, &prepared)?;
    Ok(())
}

/// Whom no measure that is taken by itself touches: who is on the allow list, whom somebody here would miss, and whom an operator has taken
/// off the deny list while this goes on.
pub(super) fn spared(daemon: &Daemon, plan: &ListPlan) -> Vec<IpNet> {
    let allowed = plan.entries(List::Allow).map(|listed| listed.prefix);
    let missed = daemon.around(None).into_iter().map(|peer| peer.prefix);
    allowed.chain(missed).chain(daemon.pardoned()).collect()
}

pub(super) fn prefix_of(source: Source) -> IpNet {
    match source {
        Source::V4(address) => IpNet::V4(Ipv4Addr::from(address).into()),
        Source::V6(upper, _) => IpNet::V6(Ipv6Net::new_assert(
            Ipv6Addr::from(u128::from(upper) << 64),
            Per::Source.prefix_length(Family::V6),
        )),
    }
}

/// Where what is sent is not remembered, every answer would be one to nothing.
fn check_memory(dataplane: &Dataplane, reason: Reason) -> anyhow::Result<()> {
    if dataplane::NEED_MEMORY.contains(&reason) {
        let without = dataplane.not_remembered()?;
        anyhow::ensure!(without.is_empty(), "what leaves through {} is not remembered", without.join(", "));
    }
    Ok(())
}

/// Takes a measure back.
pub(super) fn disarm(daemon: &Daemon, measure: &Measure) -> anyhow::Result<()> {
    let mut dataplane = daemon.dataplane();
    match measure {
        Measure::Drop(reason, _) => {
            dataplane.set_policy(*reason, Fate::Pass)?;
        }
        // Whoever has chosen another mode meanwhile wants that.
        Measure::Cookies if cookies_of(&*dataplane.config()?).0 != CookieMode::Auto => {}
        Measure::Cookies => {
            let change = CookiesChange { mode: CookieMode::Off.label().to_owned(), answers: None };
            control::set_cookies(&mut dataplane, &change, &daemon.devices())?;
        }
        Measure::Unserved(_) => dataplane.unlock_udp()?,
        // Whoever has set another meanwhile wants that.
        Measure::Limit(wide) if limits_of(&*dataplane.config()?, wide.key()) != wide.limits() => {}
        Measure::Limit(wide) => {
            dataplane.set_limits(&[(wide.key(), wide.key().default_limits())], None)?;
        }
        Measure::Shed(shed) => drop(dataplane.shed(shed.port, Rate::Off, shed.order)?),
        Measure::Deny(denied) => {
            change_denied(daemon, &mut dataplane, denied, false)?;
            daemon.forget_list_sizes();
        }
        Measure::Group(limit) => {
            drop(dataplane);
            wild::disarm(daemon, limit)?;
            daemon.automatic.set(measure, false);
            return Ok(());
        }
        Measure::Signature(vector, found) => {
            let (name, generation) = (automatic_name(*vector, found), dataplane.config()?.generation);
            let (clock, mut wanted) = (dataplane.clock()?, dataplane.signatures()?);
            wanted.retain(|signature| signature.is_live(clock.now()));
            let before = wanted.len();
            wanted.retain(|signature| signature.name != name);
            // Most have ended by themselves.
            if wanted.len() != before {
                dataplane.install_signatures(&wanted, generation)?;
            }
        }
    }
    drop(dataplane);
    daemon.automatic.set(measure, false);
    Ok(())
}

/// What a measure that does not end by itself is called in the file of what is armed.
fn label_of(measure: &Measure) -> Option<String> {
    match measure {
        Measure::Drop(reason, _) => Some(reason.label().to_owned()),
        Measure::Cookies => Some(COOKIES.to_owned()),
        Measure::Unserved(_) => Some(UNNAMED.to_owned()),
        Measure::Limit(wide) => Some(label_of_limit(wide)),
        Measure::Shed(shed) => Some(format!("{SHED}{}", shed.port)),
        Measure::Group(limit) => Some(wild::label_of(limit)),
        Measure::Signature(..) | Measure::Deny(_) => None,
    }
}

/// What a limit is called in the file of what is armed.
fn label_of_limit(wide: &Wide) -> String {
    format!("limit {} {} {}", wide.name.label(), wide.per.label(), wide.packets_per_second)
}

/// The port of such a label. What was let begin of it says nothing any more.
fn shed_of_label(label: &str) -> Option<Measure> {
    let port = label.strip_prefix(SHED)?.parse().ok()?;
    let order = Order::VerifiedFirst;
    Some(Measure::Shed(Shed { port, per_second: 0, order, refused: 0.0, fullness: 0.0, settled: 0, of_customers: 0 }))
}

/// What a daemon before this one has armed: what it takes of good traffic is not kept.
fn dropping(reason: Reason) -> Measure {
    Measure::Drop(reason, Collateral::default())
}

/// The limit of such a label.
fn limit_of_label(label: &str) -> Option<Measure> {
    let mut words = label.strip_prefix("limit ")?.split(' ');
    let (name, per) = (LimitName::from_label(words.next()?)?, Per::from_label(words.next()?)?);
    let packets_per_second = words.next()?.parse().ok()?;
    let (networks, covers, collateral, measured_on) = (Vec::new(), 0.0, 0.0, Measured::default());
    Some(Measure::Limit(Wide { name, per, packets_per_second, networks, covers, collateral, measured_on }))
}

/// Counts what suits the measures in force, and says which of them somebody else has taken back.
pub(super) fn look_after(dataplane: &Dataplane, in_force: &mut [InForce], now_ns: u64) -> dataplane::Result<Vec<bool>> {
    let (config, signatures, now) = (dataplane.config()?, dataplane.signatures()?, dataplane.clock()?.now());
    let is_taken_back = |present: &mut InForce| match &present.measure {
        Measure::Drop(reason, _) => Ok(!config.drops.has(*reason)),
        Measure::Cookies => Ok(cookies_of(&config).0 == CookieMode::Off),
        // Lists may be long: nobody reads them each second. Each entry ends by itself.
        Measure::Deny(_) => Ok(false),
        Measure::Limit(wide) => Ok(limits_of(&config, wide.key()) != wide.limits()),
        Measure::Group(limit) => Ok(!wild::is_there(&config, limit)),
        Measure::Shed(shed) => Ok(dataplane.shed_on(shed.port)?.is_none()),
        Measure::Unserved(_) => Ok(!config.drops.has(Reason::NoService) || !is_of_udp_only(&config)),
        Measure::Signature(vector, found) => {
            let name = automatic_name(*vector, found);
            let there = signatures.iter().find(|signature| signature.name == name && signature.is_live(now));
            if let Some(signature) = there {
                present.count(signature.hits.packets, now_ns);
            }
            Ok(there.is_none())
        }
    };
    in_force.iter_mut().map(is_taken_back).collect()
}

/// Signatures of a daemon before this one that have not ended yet: they are looked after as its own.
pub(super) fn left_in_force(dataplane: &Dataplane) -> dataplane::Result<Vec<InForce>> {
    let (now, now_ns) = (dataplane.clock()?.now(), monotonic_ns());
    let adopted = |signature: Signature| {
        let until_ns = now_ns + signature.until.filter(|until| *until > now)?.ns().saturating_sub(now.ns());
        let (vector, _) = signature.name.strip_prefix(AUTOMATIC_NAME)?.rsplit_once('-')?;
        let (vector, measured_on) = (Vector::from_label(vector)?, Measured::default());
        let found = Found { shape: signature.shape, covers: 0.0, collateral: 0.0, measured_on };
        // Of one in the middle of a canary a part is missing.
        let is_whole = automatic_name(vector, &found) == signature.name;
        is_whole.then(|| InForce::new(Measure::Signature(vector, found), now_ns, until_ns))
    };
    Ok(dataplane.signatures()?.into_iter().filter_map(adopted).collect())
}

/// The measures in force that do not end by themselves, kept in a file for the daemon that comes after this one.
pub(super) struct Automatic {
    path: PathBuf,
    /// What somebody has chosen himself since it was armed: it is his then.
    claimed: Mutex<BTreeSet<String>>,
}

impl Automatic {
    pub(super) fn beside(history: &Path) -> Self {
        Self { path: history.with_file_name("automatic.json"), claimed: Mutex::default() }
    }

    /// An operator, or his file, has this reason drop.
    pub(super) fn claim(&self, reason: &str) {
        self.claimed.lock().unwrap_or_else(PoisonError::into_inner).insert(reason.to_owned());
        self.write(reason, false);
    }

    /// The same of cookies.
    pub(super) fn claim_cookies(&self) {
        self.claim(COOKIES);
    }

    /// Whether somebody has chosen the same himself since it was armed.
    pub(super) fn is_anothers(&self, measure: &Measure) -> bool {
        let claimed = self.claimed.lock().unwrap_or_else(PoisonError::into_inner);
        label_of(measure).is_some_and(|label| claimed.contains(&label))
    }

    fn read(&self) -> Vec<String> {
        let text = std::fs::read_to_string(&self.path).unwrap_or_default();
        serde_json::from_str(&text).unwrap_or_default()
    }

    fn set(&self, measure: &Measure, in_force: bool) {
        let Some(label) = label_of(measure) else { return };
        self.claimed.lock().unwrap_or_else(PoisonError::into_inner).remove(&label);
        self.write(&label, in_force);
    }

    fn write(&self, label: &str, in_force: bool) {
        let mut labels = self.read();
        if labels.iter().any(|other| other == label) == in_force {
            return;
        }
        // There is one group at a time.
        let is_group = |label: &str| wild::of_label(label).is_some();
        labels.retain(|other| other != label && !(is_group(other) && is_group(label)));
        if in_force {
            labels.push(label.to_owned());
        }
        let text = serde_json::to_string(&labels).unwrap_or_default();
        if let Err(error) = files::replace(&self.path, &text) {
            warn!(%error, path = %self.path.display(), "what is armed cannot be written down");
        }
    }

    /// Takes back what a daemon before this one had armed: what still goes on is found again in a moment.
    pub(super) fn take_back(&self, daemon: &Daemon) {
        for label in self.read() {
            let measure = match label.as_str() {
                COOKIES => Some(Measure::Cookies),
                UNNAMED => {
                    Some(Measure::Unserved(Unserved { covers: 0.0, collateral: 0.0, measured_on: Measured::default() }))
                }
                label => limit_of_label(label)
                    .or_else(|| shed_of_label(label))
                    .or_else(|| wild::of_label(label).map(Measure::Group))
                    .or_else(|| Some(dropping(Reason::from_label(label)?))),
            };
            let Some(measure) = measure else { continue };
            match disarm(daemon, &measure) {
                Ok(()) => info!(measure = measure.to_string(), "withdrawn: armed by a daemon before this one"),
                Err(failed) => error!(measure = measure.to_string(), error = describe(&failed), "cannot be withdrawn"),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_an_operator_has_chosen_himself_is_not_taken_back() {
        let directory = std::env::temp_dir().join(format!("floodwall-automatic-{}", std::process::id()));
        std::fs::create_dir_all(&directory).unwrap();
        let automatic = Automatic::beside(&directory.join("history.ndjson"));
        let (replies, stray) = (dropping(Reason::UnsolicitedReply), dropping(Reason::OutOfState));
        for measure in [&replies, &stray, &Measure::Cookies] {
            automatic.set(measure, true);
        }
        automatic.claim(Reason::UnsolicitedReply.label());
        automatic.claim_cookies();
        assert!(automatic.is_anothers(&replies) && automatic.is_anothers(&Measure::Cookies));
        assert!(!automatic.is_anothers(&stray));
        assert_eq!(automatic.read(), ["out-of-state"], "a daemon after this one leaves the others alone, too");
        automatic.set(&replies, true);
        assert!(!automatic.is_anothers(&replies), "armed anew, it is no longer his");
        std::fs::remove_dir_all(&directory).unwrap();
    }

    #[test]
    fn there_is_one_group_in_the_file() {
        let directory = std::env::temp_dir().join(format!("floodwall-group-{}", std::process::id()));
        std::fs::create_dir_all(&directory).unwrap();
        let automatic = Automatic::beside(&directory.join("history.ndjson"));
        let group = |label: &str| Measure::Group(wild::of_label(label).unwrap());
        automatic.set(&Measure::Cookies, true);
        automatic.set(&group("group auto-misconfig 7"), true);
        automatic.set(&group("group auto-misconfig 9"), true);
        assert_eq!(automatic.read(), ["cookies", "group auto-misconfig 9"]);
        std::fs::remove_dir_all(&directory).unwrap();
    }

    #[test]
    fn a_limit_is_found_again_by_its_label() {
        let limit = limit_of_label("limit udp subnet 300").unwrap();
        let Measure::Limit(wide) = &limit else { panic!("{limit:?}") };
        assert_eq!((wide.name, wide.per, wide.packets_per_second), (LimitName::Udp, Per::Subnet, 300));
        assert_eq!(label_of_limit(wide), "limit udp subnet 300");
        for other in ["cookies", "out-of-state", "limit udp", "limit udp subnet many", "limit nothing subnet 3"] {
            assert_eq!(limit_of_label(other), None, "{other}");
        }
    }
}

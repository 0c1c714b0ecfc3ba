//! What each verb does to the dataplane: called by the daemon's handlers, and by the command line where no daemon runs.

mod lists;

use std::time::Duration;

use floodwall_common::config::Mode;
use floodwall_common::cookie::CookieMode;
use floodwall_common::limits::{
    LimitKey, LimitName, Limits, MAX_BURST_SECONDS, MAX_PACKETS_PER_SECOND, Per, Rate, RateError, Unit,
};
use floodwall_common::reason::{Reason, Verdict};
use floodwall_common::replies::AMPLIFIERS;
use floodwall_common::signatures::{Action, SIGNATURES, Shape};

use crate::api::{
    AmplifierView, AmplifiersChange, AmplifiersView, CookiesChange, CookiesView, LimitView, LimitsChange, LimitsView,
    ModeChange, PolicyEntry, PolicyView, RateView, SCHEMA_VERSION, ServiceView, ServicesChange, ServicesView,
    SignatureView, SignaturesChange, SignaturesView,
};
use crate::dataplane::{
    Clock, Dataplane, Device, NEED_MEMORY, Service, Signature, Stack, check_limits, cookies_of, give_way,
    group_limits_of, is_automatic, known_amplifiers, limits_of,
};
use crate::exit::{Exit, Failure};
use crate::groups::{group_limit_name, groups, names_of, no_group};
use crate::signatures::shape_of;

pub use lists::{ListPlan, list, list_name};

/// All limits.
///
/// # Errors
/// Where the configuration cannot be read.
pub fn limits(dataplane: &Dataplane) -> anyhow::Result<LimitsView> {
    let config = dataplane.config()?;
    let limits = LimitKey::all().map(|key| LimitView::new(key, limits_of(&config, key)));
    let of_groups = group_limits_of(&config).into_iter();
    let of_groups = of_groups.map(|(group, name, limits)| LimitView::new(name.into(), limits).of_group(&group));
    let limits = limits.chain(of_groups).collect();
    Ok(LimitsView { schema_version: SCHEMA_VERSION, generation: config.generation, limits })
}

/// Sets limits, all or none.
///
/// # Errors
/// Where a name, a rate or the generation is wrong: nothing has changed then.
pub fn change_limits(dataplane: &mut Dataplane, change: &LimitsChange) -> anyhow::Result<LimitsView> {
    let (mut changes, mut of_groups) = (Vec::new(), Vec::new());
    for limit in &change.limits {
        let (key, limits) = (limit_key(&limit.name, &limit.per)?, limit.limits());
        if key.per != Per::Source && [limits.packets, limits.bytes].contains(&Rate::Block) {
            let text = format!("{key}: only the limit per source can be 0, which blocks all of the class");
            return Err(Failure::new(Exit::Usage, text).into());
        }
        check_limits(limits).map_err(|(unit, error)| refuse_rate(key, limits, unit, error))?;
        match &limit.group {
            None => changes.push((key, limits)),
            Some(group) => of_groups.push((group.as_str(), group_limit_name(&limit.name, &limit.per)?, limits)),
        }
    }
    if !of_groups.is_empty() {
        if !changes.is_empty() {
            let text = "limits of groups and limits of everybody are set by requests of their own";
            return Err(Failure::new(Exit::Usage, text).into());
        }
        if let Some(group) = dataplane.set_group_limits(&of_groups, change.generation)? {
            return Err(no_group(names_of(&groups(dataplane)?.groups), group).into());
        }
        return limits(dataplane);
    }
    if changes.is_empty() {
        changes = LimitKey::all().map(|key| (key, key.default_limits())).collect();
    }
    dataplane.set_limits(&changes, change.generation)?;
    limits(dataplane)
}

/// The rate of a limit that is not to be set but looked at; without a burst, one second of it.
///
/// # Errors
/// Where no limit can be so, or this one is not of packets that are sampled as what they are.
pub fn rate_to_preview(key: LimitKey, per_second: u64, burst: Option<u64>) -> Result<RateView, Failure> {
    if key.name == LimitName::Allowed {
        return Err(Failure::new(Exit::Usage, "what allowed sources send is not kept: no preview of their limit"));
    }
    let view = RateView { per_second, burst: burst.unwrap_or(per_second) };
    let limits = Limits { packets: Rate::Limit { per_second, burst: view.burst }, bytes: Rate::Off };
    check_limits(limits).map_err(|(unit, error)| refuse_rate(key, limits, unit, error))?;
    Ok(view)
}

/// The limit with this name.
///
/// # Errors
/// Where there is none.
pub fn limit_name(name: &str) -> Result<LimitName, Failure> {
    LimitName::from_label(name).ok_or_else(|| {
        let names: Vec<_> = LimitName::ALL.iter().map(|name| name.label()).collect();
        Failure::new(Exit::Usage, format!("no limit '{name}' (have: {})", names.join(", ")))
    })
}

/// The limit with this name, of who shares it.
///
/// # Errors
/// Where there is none.
pub fn limit_key(name: &str, per: &str) -> Result<LimitKey, Failure> {
    let name = limit_name(name)?;
    let per = Per::from_label(per).ok_or_else(|| {
        let names: Vec<_> = Per::ALL.iter().map(|per| per.label()).collect();
        Failure::new(Exit::Usage, format!("no limit per '{per}' (have: {})", names.join(", ")))
    })?;
    let key = LimitKey { name, per };
    if key.exists() {
        return Ok(key);
    }
    Err(Failure::new(Exit::Usage, format!("no limit '{key}': '{}' is per source only", name.label())))
}

pub(crate) fn refuse_rate(key: LimitKey, limits: Limits, unit: Unit, error: RateError) -> Failure {
    let rate = match unit {
        Unit::Packets => limits.packets,
        Unit::Bytes => limits.bytes,
    };
    let text = match error {
        RateError::RateOutOfRange => format!(
            "{key}: {rate} is out of range: {} per second go from {} to {}",
            unit.label(),
            unit.min_rate(),
            unit.max_rate()
        ),
        RateError::BurstOutOfRange => format!(
            "{key}: {rate} is out of range: a burst goes from {} {} to {MAX_BURST_SECONDS} seconds of its rate",
            unit.min_burst(),
            unit.label()
        ),
    };
    Failure::new(Exit::Usage, text)
}

/// Makes drops real, or not; with a time to confirm, on trial only.
///
/// # Errors
/// Where the mode is unknown or cannot be written, or there is nothing to try.
pub fn set_mode(dataplane: &mut Dataplane, change: &ModeChange) -> anyhow::Result<()> {
    let mode = Mode::from_label(&change.mode)
        .filter(|mode| *mode != Mode::Stopped)
        .ok_or_else(|| Failure::new(Exit::Usage, format!("no mode '{}' (have: monitor, enforce)", change.mode)))?;
    match change.confirm_s {
        None => Ok(dataplane.set_mode(mode)?),
        Some(_) if mode == Mode::Monitor => {
            Err(Failure::new(Exit::Usage, "monitor mode drops nothing: there is nothing to confirm").into())
        }
        Some(_) if dataplane.config()?.enforces() => {
            let text = "drops are real already, and not on trial: there is nothing to confirm";
            Err(Failure::new(Exit::Conflict, text).hint("floodwall status").into())
        }
        Some(seconds) => try_enforcing(dataplane, seconds),
    }
}

/// Makes drops real for so many seconds, unless they are confirmed.
///
/// # Errors
/// Where all dropping is stopped, or the mode cannot be written.
pub fn try_enforcing(dataplane: &mut Dataplane, seconds: u64) -> anyhow::Result<()> {
    let until = dataplane.clock()?.after(Duration::from_secs(seconds));
    Ok(dataplane.try_enforcing(until)?)
}

/// Has drops that are on trial stay real.
///
/// # Errors
/// Where they are not, or no longer.
pub fn confirm(dataplane: &mut Dataplane) -> anyhow::Result<()> {
    let (config, now) = (dataplane.config()?, dataplane.clock()?.now());
    if !config.is_on_trial() {
        return Err(Failure::new(Exit::Conflict, "nothing waits to be confirmed").hint("floodwall status").into());
    }
    if config.trial_until_ns <= now.ns() {
        let text = "the time to confirm is over: nothing is dropped any more";
        return Err(Failure::new(Exit::Conflict, text).hint("floodwall mode enforce --confirm 60s").into());
    }
    Ok(dataplane.confirm()?)
}

/// What the operator has chosen.
///
/// # Errors
/// Where the configuration cannot be read.
pub fn policies(dataplane: &Dataplane) -> anyhow::Result<PolicyView> {
    let drops = dataplane.config()?.drops;
    let policies = Reason::chosen().map(|(reason, standard)| PolicyEntry {
        reason: reason.label().to_owned(),
        verdict: reason.verdict(drops).label().to_owned(),
        default: Some(standard.label().to_owned()),
    });
    Ok(PolicyView { schema_version: SCHEMA_VERSION, policies: policies.collect() })
}

/// Chooses what a reason does.
///
/// # Errors
/// Where the reason or the verdict is unknown, or not to be chosen.
pub fn set_policy(dataplane: &mut Dataplane, entry: &PolicyEntry) -> anyhow::Result<PolicyView> {
    let verdict = Verdict::from_label(&entry.verdict)
        .filter(|verdict| *verdict != Verdict::Answer)
        .ok_or_else(|| Failure::new(Exit::Usage, format!("no verdict '{}' (have: pass, drop)", entry.verdict)))?;
    if verdict == Verdict::Drop && NEED_MEMORY.iter().any(|reason| reason.label() == entry.reason) {
        check_memory(dataplane)?;
    }
    let chosen = match Reason::from_label(&entry.reason) {
        Some(reason) => dataplane.set_policy(reason, verdict)?,
        None => false,
    };
    let view = policies(dataplane)?;
    if !chosen {
        let names: Vec<_> = view.policies.iter().map(|policy| policy.reason.as_str()).collect();
        let text = format!("'{}' is not a reason to choose for (have: {})", entry.reason, names.join(", "));
        return Err(Failure::new(Exit::Usage, text).into());
    }
    Ok(view)
}

/// Where what is sent is not remembered, every reply would be one to nothing.
fn check_memory(dataplane: &Dataplane) -> anyhow::Result<()> {
    let without = dataplane.not_remembered()?;
    if without.is_empty() {
        return Ok(());
    }
    let text =
        format!("what leaves through {} is not remembered: all that answers it would be dropped", without.join(", "));
    let hint = "a daemon that starts sees to that (floodwall run), and says in its log why it cannot";
    Err(Failure::new(Exit::Environment, text).hint(hint).into())
}

/// The UDP ports that replies are looked for from.
///
/// # Errors
/// Where the map cannot be read.
pub fn amplifiers(dataplane: &Dataplane) -> anyhow::Result<AmplifiersView> {
    let service = |port| AMPLIFIERS.iter().find(|(known, _)| *known == port).map(|(_, name)| (*name).to_owned());
    let ports = dataplane.amplifiers()?;
    let ports = ports.iter().map(|port| AmplifierView { port, service: service(port) }).collect();
    Ok(AmplifiersView { schema_version: SCHEMA_VERSION, ports })
}

/// Changes them.
///
/// # Errors
/// Where the map cannot be written: nothing has changed then.
pub fn change_amplifiers(dataplane: &mut Dataplane, change: &AmplifiersChange) -> anyhow::Result<AmplifiersView> {
    let mut ports = if change.reset { known_amplifiers() } else { dataplane.amplifiers()? };
    change.remove.iter().for_each(|port| ports.set(*port, false));
    change.add.iter().for_each(|port| ports.set(*port, true));
    dataplane.set_amplifiers(ports)?;
    amplifiers(dataplane)
}

/// What this host serves.
///
/// # Errors
/// Where the maps cannot be read.
pub fn services(dataplane: &Dataplane) -> anyhow::Result<ServicesView> {
    let generation = dataplane.config()?.generation;
    let services = dataplane.services()?.iter().map(ServiceView::new).collect();
    Ok(ServicesView { schema_version: SCHEMA_VERSION, generation, services })
}

/// Changes what this host serves: all of it or nothing.
///
/// # Errors
/// Where a name, a port or a cap is wrong, or two services are behind one port: nothing has changed then.
pub fn change_services(dataplane: &mut Dataplane, change: &ServicesChange) -> anyhow::Result<ServicesView> {
    let mut wanted = dataplane.services()?;
    for name in &change.remove {
        let at = wanted.iter().position(|service| service.name == *name).ok_or_else(|| no_service(&wanted, name))?;
        wanted.remove(at);
    }
    for view in &change.add {
        let service = view.service().map_err(|text| Failure::new(Exit::Usage, text))?;
        if is_automatic(&service.name) {
            let text = format!("'{}' is what detection calls ports that have no service", service.name);
            return Err(Failure::new(Exit::Usage, text).hint("choose another name").into());
        }
        if let Some(cap) = [service.cap, service.connections].into_iter().find(|cap| !dataplane.check_cap(*cap)) {
            let text = format!("{}: a cap of {cap} is out of range", service.name);
            let hint = format!(
                "1 to {MAX_PACKETS_PER_SECOND} packets or connections per second, a burst of up to {MAX_BURST_SECONDS} s"
            );
            return Err(Failure::new(Exit::Usage, text).hint(hint).into());
        }
        wanted.retain(|other| other.name != service.name);
        wanted.push(service);
    }
    give_way(&mut wanted);
    for (at, service) in wanted.iter().enumerate() {
        refuse_shared_ports(service, &wanted[at + 1..])?;
    }
    dataplane.set_services(&wanted, change.generation)?;
    services(dataplane)
}

fn no_service(services: &[Service], name: &str) -> Failure {
    let names: Vec<_> = services.iter().map(|service| service.name.as_str()).collect();
    Failure::new(Exit::Usage, format!("no service '{name}' (have: {})", names.join(", ")))
}

pub(crate) fn refuse_shared_ports(service: &Service, others: &[Service]) -> Result<(), Failure> {
    for (transport, port) in &service.ports {
        if let Some(other) = others.iter().find(|other| other.ports.contains(&(*transport, *port))) {
            let text = format!("{}/{port} would be of both '{}' and '{}'", transport.label(), service.name, other.name);
            let hint = "a port has one service: remove one of them, or name the other ports only";
            return Err(Failure::new(Exit::Usage, text).hint(hint));
        }
    }
    Ok(())
}

/// How SYNs are answered.
///
/// # Errors
/// Where the configuration or the settings of the stack cannot be read.
pub fn cookies(dataplane: &Dataplane) -> anyhow::Result<CookiesView> {
    let (mode, answers) = cookies_of(&*dataplane.config()?);
    let stack = Stack::read()?;
    Ok(CookiesView {
        schema_version: SCHEMA_VERSION,
        mode: mode.label().to_owned(),
        answers: RateView::of(answers),
        tcp_syncookies: stack.syncookies,
        tcp_timestamps: stack.timestamps,
        keeps_options: stack.keeps_options(),
    })
}

/// Sets how SYNs are answered. `devices` are those of the moment: segments have to fit into the smallest MTU.
///
/// # Errors
/// Where the mode is unknown, the stack is not set up for it, or the limit cannot be kept: nothing has changed then.
pub fn set_cookies(
    dataplane: &mut Dataplane,
    change: &CookiesChange,
    devices: &[Device],
) -> anyhow::Result<CookiesView> {
    let mode = CookieMode::from_label(&change.mode)
        .ok_or_else(|| Failure::new(Exit::Usage, format!("no mode '{}' (have: off, auto, always)", change.mode)))?;
    let stack = Stack::read()?;
    check_stack(mode, stack)?;
    let (_, present) = cookies_of(&*dataplane.config()?);
    let answers = change.answers.map_or(present, |answers| RateView::rate(Some(answers)));
    if answers == Rate::Block {
        let text = "a limit of 0 answers drops every new connection: `cookies off` leaves them to the stack";
        return Err(Failure::new(Exit::Usage, text).into());
    }
    let protected = dataplane.protected(devices)?;
    let is_protected = |device: &&Device| protected.iter().any(|interface| interface.ifindex == device.ifindex);
    let mtu = devices.iter().filter(is_protected).map(|device| device.mtu).min().unwrap_or(1_500);
    dataplane.set_cookies(mode, answers, mtu, stack)?;
    cookies(dataplane)
}

/// The stack knows a cookie again only where it may make some itself.
fn check_stack(mode: CookieMode, stack: Stack) -> Result<(), Failure> {
    let needed = match mode {
        CookieMode::Off => return Ok(()),
        CookieMode::Auto => 1,
        CookieMode::Always => 2,
    };
    match stack.syncookies {
        None => Err(Failure::new(Exit::Environment, "this kernel has no SYN cookies (CONFIG_SYN_COOKIES)")
            .hint("floodwall policy set first-syn drop, or bare-syn")),
        Some(set) if set < needed => {
            let text = format!(
                "net.ipv4.tcp_syncookies is {set}: the stack has no cookies to give out in mode {}",
                mode.label()
            );
            Err(Failure::new(Exit::Environment, text).hint(format!("sysctl -w net.ipv4.tcp_syncookies={needed}")))
        }
        Some(_) => Ok(()),
    }
}

/// The signatures, also those that have ended and are still there.
///
/// # Errors
/// Where the maps cannot be read.
pub fn signatures(dataplane: &Dataplane) -> anyhow::Result<SignaturesView> {
    let now = dataplane.clock()?.now();
    let generation = dataplane.config()?.generation;
    let signatures = dataplane.signatures()?;
    let signatures = signatures.iter().map(|signature| SignatureView::new(signature, now)).collect();
    Ok(SignaturesView { schema_version: SCHEMA_VERSION, generation, room: SIGNATURES, signatures })
}

/// Changes them: what is to be removed goes first, what has ended goes too, then comes what is to be added.
///
/// # Errors
/// Where a name is unknown or taken, a signature means nothing or too much, or there is no room: nothing has changed then.
pub fn change_signatures(dataplane: &mut Dataplane, change: &SignaturesChange) -> anyhow::Result<SignaturesView> {
    let clock = dataplane.clock()?;
    let generation = change.generation.unwrap_or(dataplane.config()?.generation);
    let mut wanted = dataplane.signatures()?;
    for name in &change.remove {
        let place = wanted.iter().position(|signature| signature.name == *name);
        let place = place.ok_or_else(|| {
            let text = format!("no signature '{name}'. Nothing was changed");
            Failure::new(Exit::Usage, text).hint("floodwall signature list")
        })?;
        wanted.remove(place);
    }
    wanted.retain(|signature| signature.is_live(clock.now()));
    for view in &change.add {
        if wanted.iter().any(|signature| signature.name == view.name) {
            let text = format!("there is a signature '{}' already. Nothing was changed", view.name);
            let hint = format!("another name, or first: floodwall signature remove {}", view.name);
            return Err(Failure::new(Exit::Usage, text).hint(hint).into());
        }
        wanted.push(new_signature(view, clock, change.force)?);
    }
    dataplane.install_signatures(&wanted, generation)?;
    signatures(dataplane)
}

fn new_signature(view: &SignatureView, clock: Clock, force: bool) -> Result<Signature, Failure> {
    let shape = shape_of(view)?;
    let refuse =
        |text: String| Failure::new(Exit::Usage, format!("signature '{}': {text}. Nothing was changed", view.name));
    let action = Action::from_label(&view.action)
        .ok_or_else(|| refuse(format!("action: '{}' is not drop or count", view.action)))?;
    if let Some(text) = too_wide(&shape, force) {
        let hint = match shape.is_any() {
            true => "name at least one field; see --help",
            false => "name another field (ports, length, flags, payload), or add --force if that is meant",
        };
        return Err(refuse(text.to_owned()).hint(hint));
    }
    let until = view.ttl_s.map(|seconds| clock.after(Duration::from_secs(seconds)));
    Ok(Signature::new(&view.name, shape, action, until, &view.reason))
}

/// What a signature would take that is not told apart by anything.
pub(crate) fn too_wide(shape: &Shape, force: bool) -> Option<&'static str> {
    match (shape.is_any(), shape.is_protocol_only() && !force) {
        (true, _) => Some("it would suit every packet"),
        (_, true) => Some("it would suit all of a protocol"),
        _ => None,
    }
}

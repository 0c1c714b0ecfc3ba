//! What would happen to a source now, and why: the steps of the decision, with the state that each would find.

use std::net::IpAddr;

use floodwall_common::class::{Class, Kind};
use floodwall_common::clock::Moment;
use floodwall_common::config::{Config, Mode};
use floodwall_common::limiter::inspect;
use floodwall_common::limits::{LimitKey, LimitName, Limits, Per, Rate, Unit};
use floodwall_common::lists::List;
use floodwall_common::meter::{Meter, Meters};
use floodwall_common::packet::Source;
use floodwall_common::reason::Verdict;

use crate::api::{CoveringEntry, EntryView, ExplainView, LimitStanding, SCHEMA_VERSION, TalkerView};
use crate::dataplane::{self, Dataplane, Group, limits_of};
use crate::talkers::source_name;

/// Explains a source. `recent` is what was sampled of it.
///
/// # Errors
/// Where a map cannot be read.
pub fn explain(dataplane: &Dataplane, address: IpAddr, recent: Option<TalkerView>) -> dataplane::Result<ExplainView> {
    let config = dataplane.config()?;
    let now = dataplane.clock()?.now();
    let source = source_of(address);
    let entries = covering(dataplane, address, now)?;
    let on = |list: List| entries.iter().find(|entry| entry.list == list.label());
    let list_verdict = match (on(List::Allow), on(List::Deny)) {
        (Some(_), _) => Some(Verdict::Pass),
        (None, Some(_)) => Some(Verdict::Drop),
        (None, None) => None,
    };
    let group = dataplane.groups()?.into_iter().find(|(_, group)| {
        let nearest = entries.iter().filter(|entry| entry.list == List::Groups.label());
        let nearest = nearest.max_by_key(|entry| entry.entry.prefix.prefix_len());
        nearest.is_some_and(|nearest| group.prefixes.contains(&nearest.entry.prefix))
    });
    // A denied source never gets as far as its limits.
    let limits = match list_verdict {
        Some(Verdict::Drop) => Vec::new(),
        verdict => standings(dataplane, &config, source, now, verdict.is_some(), group.as_ref()),
    };
    let summary = summary(config.mode_at(now), source, on(List::Allow), on(List::Deny), &limits);
    Ok(ExplainView {
        schema_version: SCHEMA_VERSION,
        source: source_name(source),
        list_verdict: list_verdict.map(|verdict| verdict.label().to_owned()),
        verified: dataplane.is_verified(source.key())?,
        group: group.map(|(_, group)| group.name),
        summary,
        entries,
        limits,
        signatures: dataplane.signatures()?.iter().filter(|signature| signature.is_live(now)).count(),
        recent,
    })
}

/// The source that packets from an address have.
pub fn source_of(address: IpAddr) -> Source {
    match address {
        IpAddr::V4(address) => Source::V4(u32::from(address)),
        IpAddr::V6(address) => {
            let bits = u128::from(address);
            Source::V6((bits >> 64) as u64, bits as u64)
        }
    }
}

/// The address that a source has.
pub fn address_of(source: Source) -> IpAddr {
    match source {
        Source::V4(address) => IpAddr::V4(address.into()),
        Source::V6(upper, lower) => IpAddr::V6((u128::from(upper) << 64 | u128::from(lower)).into()),
    }
}

fn covering(dataplane: &Dataplane, address: IpAddr, now: Moment) -> dataplane::Result<Vec<CoveringEntry>> {
    let mut covering = Vec::new();
    for list in List::ALL {
        let live =
            |entry: &&dataplane::Listed| entry.prefix.contains(&address) && entry.until.is_none_or(|until| until > now);
        for entry in dataplane.list(*list)?.iter().filter(live) {
            covering.push(CoveringEntry { list: list.label().to_owned(), entry: EntryView::new(entry, now) });
        }
    }
    Ok(covering)
}

fn standings(
    dataplane: &Dataplane,
    config: &Config,
    source: Source,
    now: Moment,
    allowed: bool,
    group: Option<&(u32, Group)>,
) -> Vec<LimitStanding> {
    let mut standings = Vec::new();
    for Asked { key, limits, meters, group } in asked(config, source, allowed, group) {
        let rates = [(Unit::Packets, limits.packets, &meters.packets), (Unit::Bytes, limits.bytes, &meters.bytes)];
        for (unit, rate, meter) in rates {
            let debt_ns = debt_ns(dataplane, config, key.per.key(source.key()), meter, now);
            let standing = standing(key, unit, rate, meter, debt_ns);
            standings.extend(standing.map(|standing| LimitStanding { group: group.clone(), ..standing }));
        }
    }
    standings
}

/// A limit that packets of a source are asked.
struct Asked<'c> {
    key: LimitKey,
    limits: Limits,
    meters: &'c Meters,
    /// The group whose own it is.
    group: Option<String>,
}

/// The limits that a source is asked, of each kind from narrow to wide.
fn asked<'c>(config: &'c Config, source: Source, allowed: bool, group: Option<&(u32, Group)>) -> Vec<Asked<'c>> {
    let of_all = |key, meters| Asked { key, limits: limits_of(config, key), meters, group: None };
    if allowed {
        return vec![of_all(LimitName::Allowed.into(), &config.allowed)];
    }
    let mut asked = Vec::new();
    for class in Class::ALL {
        let (kind, name) = (Kind::new(source.family(), *class), LimitName::of(*class));
        let own = group.and_then(|(number, group)| {
            let limits = group.limits.iter().find(|(of, _)| *of == name)?.1;
            let meters = config.meters_in(*number, kind);
            Some(Asked { key: name.into(), limits, meters, group: Some(group.name.clone()) })
        });
        asked.push(own.unwrap_or_else(|| of_all(name.into(), config.meters(kind))));
        let wider = Per::WIDER.into_iter().enumerate();
        asked.extend(wider.map(|(level, per)| of_all(LimitKey { name, per }, config.wider(level, kind))));
    }
    asked
}

fn debt_ns(dataplane: &Dataplane, config: &Config, key: u64, meter: &Meter, now: Moment) -> u64 {
    let place = config.key.place(meter.secret(), key);
    dataplane.source_bucket(place.bucket()).and_then(|bucket| inspect(bucket, place, meter, now)).unwrap_or(0)
}

fn standing(key: LimitKey, unit: Unit, rate: Rate, meter: &Meter, debt_ns: u64) -> Option<LimitStanding> {
    let (per_second, burst) = match rate {
        Rate::Off => return None,
        Rate::Block => (0, 0),
        Rate::Limit { per_second, burst } => (per_second, burst),
    };
    let tolerance_ns = meter.tolerance_ns();
    let over = rate == Rate::Block || debt_ns > tolerance_ns;
    let verdict = if over { Verdict::Drop } else { Verdict::Pass };
    Some(LimitStanding {
        name: key.name.label().to_owned(),
        per: key.per.label().to_owned(),
        group: None,
        unit: unit.label().to_owned(),
        per_second,
        burst,
        used: debt_ns as f64 / tolerance_ns.max(1) as f64,
        verdict: verdict.label().to_owned(),
        next_allowed_ms: (rate != Rate::Block).then(|| debt_ns.saturating_sub(tolerance_ns) as f64 / 1e6),
    })
}

fn summary(
    mode: Mode,
    source: Source,
    allow: Option<&CoveringEntry>,
    deny: Option<&CoveringEntry>,
    limits: &[LimitStanding],
) -> String {
    let name = source_name(source);
    let monitor = match mode {
        Mode::Enforce => "",
        Mode::Monitor => " (monitor mode: would be; nothing is dropped)",
        Mode::Stopped => " (stopped: would be; nothing is dropped until `floodwall resume`)",
    };
    let over: Vec<_> = limits.iter().filter(|limit| limit.verdict == Verdict::Drop.label()).collect();
    let describe = |limit: &&LimitStanding| {
        let LimitStanding { name, per, group, unit, per_second, .. } = limit;
        let of_group = group.as_ref().map(|group| format!(" in group {group}")).unwrap_or_default();
        format!("{name} {unit} per {per}{of_group} ({per_second}/s)")
    };
    let over_text = over.iter().map(describe).collect::<Vec<_>>().join(", ");
    match (allow, deny, over.is_empty()) {
        (Some(entry), _, true) => format!("{name} passes: it is on the allow list, as {}", entry.entry.prefix),
        (Some(_), _, false) => format!("{name} is dropped{monitor}: it is on the allow list, but over {over_text}"),
        (None, Some(entry), _) => {
            format!("{name} is dropped{monitor}: it is on the deny list, as {}", entry.entry.prefix)
        }
        (None, None, false) => format!("{name} is dropped{monitor} where it is over its limit: {over_text}"),
        (None, None, true) => format!("{name} passes: it is on no list and within its limits"),
    }
}

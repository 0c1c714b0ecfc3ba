//! `floodwall audit`: the regular check-up of what runs. The doctor looks before something is attached; this looks at what has
//! become of it since: limits against what sources really send, lists that have grown old, people that nobody could call.
//!
//! A function of what was read: [`Facts`] in, findings out, in the doctor's shape.

use std::time::{Duration, SystemTime};

use floodwall_common::config::Mode;
use floodwall_common::limits::{LimitKey, LimitName, Limits, Per, Rate};
use floodwall_common::services::Transport;
use ipnet::IpNet;

use crate::configuration::Configuration;
use crate::dataplane::Listed;
use crate::doctor::{Diagnosis, Finding, Severity, finding};
use crate::groups::Members;
use crate::history::{DRILL, DRILL_RECEIVED, Entry};
use crate::past::Past;
use crate::respond::{Cause, Policies, is_automatic};

/// Sources that a percentile of their peaks is worth something of.
const ENOUGH_SOURCES: usize = 50;
/// A limit this many times above what nearly all sources send stops hardly anybody.
const TOO_HIGH: u64 = 100;
const DAY_S: u64 = 24 * 3_600;
/// How long drops may stay unreal before somebody should decide.
const MONITOR_S: u64 = 3 * DAY_S;
/// How old a drill may be.
const DRILL_S: u64 = 180 * DAY_S;
/// How old an entry of a list may be before somebody should look at it again.
const STALE: Duration = Duration::from_secs(365 * DAY_S);
/// Metrics that nobody has read for so long make no alert.
const UNREAD_S: u64 = 300;

/// What was read to judge by.
pub struct Facts<'a> {
    /// The mode, and since when, in seconds of the Unix epoch.
    pub mode: (Mode, u64),
    /// What is done about an attack.
    pub respond: &'a Policies,
    /// The limits in force.
    pub limits: &'a [(LimitKey, Limits)],
    /// What sources have sent.
    pub past: &'a Past,
    /// Entries of all lists, with those of groups.
    pub entries: usize,
    /// The limits that groups have of their own.
    pub group_limits: &'a [(String, LimitName, Limits)],
    /// Which group sources are in.
    pub members: &'a Members,
    /// The allow list and the deny list.
    pub lists: [&'a [Listed]; 2],
    /// The ports of the services.
    pub services: &'a [(Transport, u16)],
    /// What this host listens on for others.
    pub listening: &'a [(Transport, u16)],
    /// What the file says; `None` where there is none.
    pub configuration: Option<&'a Configuration>,
    /// How much of it is not in force.
    pub drift: usize,
    /// What was changed, the latest last.
    pub history: &'a [Entry],
    /// For how long nobody has read the metrics; `None` where nobody ever has.
    pub unread_s: Option<u64>,
    /// Now.
    pub now: SystemTime,
}

/// Entries of all lists with which they are still built anew in a flood.
pub(crate) const LONG_LISTS: usize = 50_000;

/// Judges.
pub fn audit(facts: &Facts) -> Diagnosis {
    let mut findings = vec![mode(facts), respond(facts), configuration(facts)];
    findings.extend(limits(facts));
    findings.extend(automatic_groups(facts));
    let [allow, deny] = facts.lists;
    findings.extend([long(facts.entries), wide(allow), stale(allow, facts.now), ended_badly(deny, facts.now)]);
    findings.extend([
        monitors(facts),
        services(facts),
        contacts(facts),
        drill(facts),
        notification(facts),
        metrics(facts),
    ]);
    Diagnosis::new(findings)
}

fn unix_s(now: SystemTime) -> u64 {
    now.duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

fn mode(facts: &Facts) -> Finding {
    let (mode, since) = facts.mode;
    let days = unix_s(facts.now).saturating_sub(since) / DAY_S;
    match mode {
        Mode::Enforce => finding("mode", Severity::Good, "drops are real", None),
        Mode::Stopped => finding("mode", Severity::Problem, "all dropping is stopped", Some("floodwall resume")),
        Mode::Monitor if days * DAY_S >= MONITOR_S => {
            let what = format!("monitor mode for {days} days: nothing is dropped");
            finding("mode", Severity::Problem, what, Some("floodwall mode enforce --confirm 60s"))
        }
        Mode::Monitor => {
            let what = "monitor mode: nothing is dropped yet";
            finding("mode", Severity::Warning, what, Some("floodwall mode enforce --confirm 60s"))
        }
    }
}

fn respond(facts: &Facts) -> Finding {
    let id = "respond";
    let waiting = facts.respond.waiting();
    if waiting.is_empty() {
        return finding(id, Severity::Good, "an attack that is found is acted upon", None);
    }
    let names = waiting.iter().map(|cause| cause.label()).collect::<Vec<_>>().join(", ");
    let names = if waiting.len() == Cause::all().count() { "an attack".to_owned() } else { names };
    let what = format!("{names} will wait for somebody who is awake: nothing is armed by itself");
    finding(
        id,
        Severity::Warning,
        what,
        Some("respond = \"act\" in the configuration, no other word in [respond_to], and a restart"),
    )
}

fn configuration(facts: &Facts) -> Finding {
    let id = "configuration";
    match (facts.configuration, facts.drift) {
        (None, _) => {
            let what = "there is no configuration file: what was set by hand is known to nobody else";
            finding(
                id,
                Severity::Warning,
                what,
                Some("write it into /etc/floodwall/floodwall.toml; floodwall limits set --save does so for limits"),
            )
        }
        (Some(_), 0) => finding(id, Severity::Good, "what the file says is in force", None),
        (Some(_), drift) => {
            let what = format!("{drift} settings in force are not what the file says");
            finding(id, Severity::Warning, what, Some("floodwall config diff, then floodwall reload or mend the file"))
        }
    }
}

/// Each limit that can be judged; where none can, that is said.
fn limits(facts: &Facts) -> Vec<Finding> {
    let of_all = facts.limits.iter().filter_map(|(key, limits)| limit(facts, *key, None, limits.packets));
    let of_group =
        |(group, name, limits): &(String, LimitName, Limits)| limit(facts, (*name).into(), Some(group), limits.packets);
    let of_operators = facts.group_limits.iter().filter(|(group, ..)| !is_automatic(group));
    let judged: Vec<_> = of_all.chain(of_operators.filter_map(of_group)).collect();
    if judged.is_empty() {
        let what = format!("fewer than {ENOUGH_SOURCES} sources of any class were seen: limits cannot be judged yet");
        return vec![finding("limits", Severity::Good, what, None)];
    }
    judged
}

/// Groups that detection has made: somebody should know of them.
fn automatic_groups(facts: &Facts) -> Vec<Finding> {
    let of_detection = facts.group_limits.iter().filter(|(group, ..)| is_automatic(group));
    let found = of_detection.map(|(group, name, limits)| {
        let what = format!("detection holds the group {group} to {} ({})", limits.packets, name.label());
        finding(
            &format!("group-{group}"),
            Severity::Warning,
            what,
            Some("floodwall group list, and call whoever is in it"),
        )
    });
    found.collect()
}

/// A limit against what ninety-nine of a hundred sources have sent at most; nothing where too few were seen.
fn limit(facts: &Facts, key: LimitKey, group: Option<&str>, rate: Rate) -> Option<Finding> {
    if key.per != Per::Source || key.name == LimitName::Allowed {
        return None;
    }
    let peaks = facts.past.peaks(key.name, |source| facts.members.is_under(source, key.name, group));
    if peaks.len() < ENOUGH_SOURCES {
        return None;
    }
    let p99 = peaks[peaks.len() * 99 / 100];
    let (id, name) = match group {
        None => (format!("limit-{}", key.name.label()), key.name.label().to_owned()),
        Some(group) => (format!("limit-{}-{group}", key.name.label()), format!("{} --group {group}", key.name.label())),
    };
    let seen = format!("99 % of {} sources stayed below {p99} packets/s", peaks.len());
    Some(match rate {
        Rate::Off => finding(
            &id,
            Severity::Warning,
            format!("no limit; {seen}"),
            Some(&format!("floodwall limits set {name} --pps {}", suggested(p99))),
        ),
        Rate::Limit { per_second, .. } if per_second < p99 => {
            let what = format!("{per_second} packets/s is below what sources really send: {seen}");
            finding(
                &id,
                Severity::Problem,
                what,
                Some(&format!("floodwall limits preview {name} --pps {}", suggested(p99))),
            )
        }
        Rate::Limit { per_second, .. } if per_second > TOO_HIGH * p99.max(1) => {
            let what = format!("{per_second} packets/s stops hardly anybody: {seen}");
            finding(
                &id,
                Severity::Warning,
                what,
                Some(&format!("floodwall limits preview {name} --pps {}", suggested(p99))),
            )
        }
        Rate::Limit { per_second, .. } => finding(&id, Severity::Good, format!("{per_second} packets/s; {seen}"), None),
        Rate::Block => finding(&id, Severity::Good, "blocked", None),
    })
}

/// Room above what is usual, and never so little that a page with many pictures is over it.
fn suggested(p99: u64) -> u64 {
    (p99 * 3).max(100)
}

fn named(entries: &[&Listed]) -> String {
    let mut names: Vec<_> = entries.iter().take(3).map(|entry| entry.prefix.to_string()).collect();
    if entries.len() > names.len() {
        names.push(format!("{} more", entries.len() - names.len()));
    }
    names.join(", ")
}

/// Lists that are too long to be built anew in a flood.
fn long(entries: usize) -> Finding {
    let id = "lists-long";
    if entries <= LONG_LISTS {
        return finding(id, Severity::Good, format!("{entries} entries on all lists"), None);
    }
    let what =
        format!("{entries} entries on all lists: with more than {LONG_LISTS}, detection denies no single sources");
    finding(id, Severity::Warning, what, Some("join prefixes, or leave it to limits and signatures"))
}

fn wide(allow: &[Listed]) -> Finding {
    const WIDEST: [u8; 2] = [16, 32];
    let is_wide = |entry: &&Listed| match entry.prefix {
        IpNet::V4(prefix) => prefix.prefix_len() < WIDEST[0],
        IpNet::V6(prefix) => prefix.prefix_len() < WIDEST[1],
    };
    let wide: Vec<_> = allow.iter().filter(is_wide).collect();
    let id = "allow-list-wide";
    if wide.is_empty() {
        return finding(id, Severity::Good, "no entry of the allow list is wider than /16, or /32 of IPv6", None);
    }
    let what = format!("the allow list lets large parts of the Internet through: {}", named(&wide));
    finding(id, Severity::Problem, what, Some("floodwall allow remove <prefix>, and add what is meant"))
}

fn old(entries: &[Listed], now: SystemTime) -> Vec<&Listed> {
    let is_old = |entry: &&Listed| {
        entry.until.is_none() && !entry.is_automatic() && now.duration_since(entry.added).is_ok_and(|age| age > STALE)
    };
    entries.iter().filter(is_old).collect()
}

fn stale(allow: &[Listed], now: SystemTime) -> Finding {
    let id = "allow-list-stale";
    match old(allow, now).as_slice() {
        [] => finding(id, Severity::Good, "no entry of the allow list is older than a year", None),
        old => {
            let what = format!("allowed for more than a year, and perhaps another's by now: {}", named(old));
            finding(id, Severity::Warning, what, Some("floodwall allow list; add what is still right anew"))
        }
    }
}

fn ended_badly(deny: &[Listed], now: SystemTime) -> Finding {
    let id = "deny-list-stale";
    match old(deny, now).as_slice() {
        [] => finding(id, Severity::Good, "no entry of the deny list is older than a year", None),
        old => {
            let what = format!("denied for more than a year, and perhaps a customer's by now: {}", named(old));
            finding(id, Severity::Warning, what, Some("floodwall deny remove <prefix>, or deny add it with --ttl"))
        }
    }
}

fn monitors(facts: &Facts) -> Finding {
    let id = "monitors";
    let monitors = facts.configuration.map(Configuration::monitors).unwrap_or_default();
    let is_allowed = |monitor: &IpNet| facts.lists[0].iter().any(|entry| entry.prefix.contains(monitor));
    let outside: Vec<_> = monitors.iter().filter(|monitor| !is_allowed(monitor)).map(IpNet::to_string).collect();
    match (monitors.len(), outside.as_slice()) {
        (0, _) => {
            let what = "no monitor is named: health checks could be dropped, and the host be taken out of service";
            finding(id, Severity::Warning, what, Some("monitors = [\"…\"] in the configuration"))
        }
        (_, []) => finding(id, Severity::Good, format!("{} monitors are allowed", monitors.len()), None),
        (_, outside) => {
            let what = format!("monitors that are not allowed: {}", outside.join(", "));
            finding(id, Severity::Problem, what, Some("floodwall reload, or floodwall allow add <address>"))
        }
    }
}

fn services(facts: &Facts) -> Finding {
    let id = "services";
    let label = |(transport, port): &(Transport, u16)| format!("{}/{port}", transport.label());
    let without: Vec<_> = facts.listening.iter().filter(|port| !facts.services.contains(port)).map(label).collect();
    if without.is_empty() {
        return finding(id, Severity::Good, "all that this host listens on is a service", None);
    }
    let what = format!("listened on, and no service: {}. Lockdown would drop what comes for them", without.join(", "));
    finding(id, Severity::Warning, what, Some("floodwall service add --listen, or stop listening"))
}

fn contacts(facts: &Facts) -> Finding {
    let contacts = facts.configuration.and_then(|configuration| configuration.contacts.as_ref());
    match contacts.and_then(|contacts| contacts.provider.as_ref()) {
        Some(provider) => finding("contacts", Severity::Good, format!("the provider: {provider}"), None),
        None => {
            let what = "nobody is named to call at the provider: what fills the link, only he can stop";
            finding("contacts", Severity::Problem, what, Some("[contacts] provider = \"…\" in the configuration"))
        }
    }
}

/// When something was last written down that begins so.
fn last(facts: &Facts, what: &str) -> Option<u64> {
    facts.history.iter().rev().find(|entry| entry.change.starts_with(what)).map(|entry| entry.unix_s)
}

fn drill(facts: &Facts) -> Finding {
    let ages = last(facts, DRILL).map(|at| unix_s(facts.now).saturating_sub(at));
    match ages {
        Some(age) if age < DRILL_S => {
            finding("drill", Severity::Good, format!("the last drill was {} days ago", age / DAY_S), None)
        }
        age => {
            let what = age.map_or_else(
                || "there was no drill yet".to_owned(),
                |age| format!("the last drill was {} days ago", age / DAY_S),
            );
            finding(
                "drill",
                Severity::Warning,
                what,
                Some("floodwall drill start; floodwall runbook FloodwallDrill says how"),
            )
        }
    }
}

fn notification(facts: &Facts) -> Finding {
    let id = "notification";
    match (last(facts, DRILL), last(facts, DRILL_RECEIVED)) {
        (Some(began), Some(received)) if received >= began => {
            finding(id, Severity::Good, "the alert of the last drill was received", None)
        }
        _ => {
            let what = "nobody has said that an alert of Floodwall reached them";
            finding(
                id,
                Severity::Warning,
                what,
                Some("floodwall drill start, then floodwall drill received \"who, by what\""),
            )
        }
    }
}

fn metrics(facts: &Facts) -> Finding {
    let id = "metrics";
    match facts.unread_s {
        Some(age) if age < UNREAD_S => finding(id, Severity::Good, format!("metrics were read {age} s ago"), None),
        _ => {
            let what = "nobody reads the metrics: no alert can fire";
            finding(id, Severity::Problem, what, Some("have Prometheus scrape them: deploy/prometheus/scrape.yml"))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    use crate::past::tests::sample;
    use crate::respond::Policy;
    use floodwall_common::reason::Reason;

    /// A host on which all is well, changed as a test wants.
    static ACT: Policies = Policies { other: Policy::Act, named: BTreeMap::new() };
    static ADVISE: Policies = Policies { other: Policy::Advise, named: BTreeMap::new() };

    fn judged(change: impl for<'a> FnOnce(&mut Facts<'a>)) -> Diagnosis {
        judged_of(&Past::default(), &[], change)
    }

    fn judged_of(past: &Past, limits: &[(LimitKey, Limits)], change: impl for<'a> FnOnce(&mut Facts<'a>)) -> Diagnosis {
        let now = SystemTime::now();
        let allow = [listed("198.51.100.7/32", now)];
        let mut configuration = Configuration::default();
        configuration.monitors = Some(vec![crate::configuration::Prefix(allow[0].prefix)]);
        configuration.contacts =
            Some(crate::configuration::Contacts { provider: Some("noc".to_owned()), ..Default::default() });
        let history = [DRILL, DRILL_RECEIVED].map(|change| Entry::new(0, 1, "socket", change));
        let mut facts = Facts {
            mode: (Mode::Enforce, 0),
            respond: &ACT,
            limits,
            past,
            entries: 0,
            group_limits: &[],
            members: &Members::default(),
            lists: [&allow, &[]],
            services: &[(Transport::Tcp, 443)],
            listening: &[(Transport::Tcp, 443)],
            configuration: Some(&configuration),
            drift: 0,
            history: &history,
            unread_s: Some(10),
            now,
        };
        change(&mut facts);
        audit(&facts)
    }

    fn listed(prefix: &str, added: SystemTime) -> Listed {
        Listed { prefix: prefix.parse().unwrap(), until: None, added, note: "by hand".to_owned(), group: 0 }
    }

    fn severity(diagnosis: &Diagnosis, id: &str) -> Severity {
        diagnosis.findings.iter().find(|finding| finding.id == id).unwrap().severity
    }

    #[test]
    fn lists_that_are_too_long_for_detection_are_said_and_groups_are_judged_too() {
        assert_eq!(severity(&judged(|facts| facts.entries = LONG_LISTS), "lists-long"), Severity::Good);
        assert_eq!(severity(&judged(|facts| facts.entries = LONG_LISTS + 1), "lists-long"), Severity::Warning);
        let mut past = Past::default();
        (0..150).for_each(|source| past.push(&sample(5, source, 400, Reason::Passed)));
        past.pass(6_000_000_000);
        let limits = |per_second| Limits { packets: Rate::Limit { per_second, burst: 1 }, bytes: Rate::Off };
        let group = crate::dataplane::Group {
            name: "few".to_owned(),
            prefixes: vec!["0.0.0.0/25".parse().unwrap()],
            limits: vec![(LimitName::Udp, limits(300))],
        };
        let members: &'static Members = Box::leak(Box::new(Members::of([group])));
        let own: &'static [_] = Box::leak(Box::new([("few".to_owned(), LimitName::Udp, limits(300))]));
        let all = [(LimitKey::from(LimitName::Udp), limits(1_200))];
        let found = judged_of(&past, &all, |facts| {
            facts.members = members;
            facts.group_limits = own;
        });
        assert_eq!(severity(&found, "limit-udp-few"), Severity::Problem);
        // Of the others there are too few to say anything.
        assert!(!found.findings.iter().any(|finding| finding.id == "limit-udp"));
    }

    #[test]
    fn all_is_well_where_all_is_well() {
        let diagnosis = judged(|_| {});
        assert_eq!(diagnosis.severity, Severity::Good, "{diagnosis:#?}");
    }

    #[test]
    fn each_thing_that_is_missing_is_found() {
        const NOTHING: &[Entry] = &[];
        let found = |id: &str, change: fn(&mut Facts<'_>)| severity(&judged(change), id);
        assert_eq!(found("mode", |facts| facts.mode = (Mode::Monitor, 0)), Severity::Problem);
        assert_eq!(found("mode", |facts| facts.mode = (Mode::Stopped, 0)), Severity::Problem);
        assert_eq!(found("respond", |facts| facts.respond = &ADVISE), Severity::Warning);
        assert_eq!(found("configuration", |facts| facts.drift = 2), Severity::Warning);
        assert_eq!(found("contacts", |facts| facts.configuration = None), Severity::Problem);
        assert_eq!(found("monitors", |facts| facts.lists = [&[], &[]]), Severity::Problem);
        assert_eq!(found("services", |facts| facts.listening = &[(Transport::Udp, 443)]), Severity::Warning);
        assert_eq!(found("drill", |facts| facts.history = NOTHING), Severity::Warning);
        assert_eq!(found("notification", |facts| facts.history = &facts.history[..1]), Severity::Warning);
        assert_eq!(found("metrics", |facts| facts.unread_s = Some(3_600)), Severity::Problem);
        assert_eq!(found("metrics", |facts| facts.unread_s = None), Severity::Problem);
    }

    #[test]
    fn lists_grow_old_and_wide() {
        let long_ago = SystemTime::now() - 2 * STALE;
        let (old, wide) = ([listed("203.0.113.0/24", long_ago)], [listed("10.0.0.0/8", SystemTime::now())]);
        assert_eq!(severity(&audit_lists(&old, &[]), "allow-list-stale"), Severity::Warning);
        assert_eq!(severity(&audit_lists(&[], &old), "deny-list-stale"), Severity::Warning);
        assert_eq!(severity(&audit_lists(&wide, &[]), "allow-list-wide"), Severity::Problem);
    }

    fn audit_lists(allow: &[Listed], deny: &[Listed]) -> Diagnosis {
        let now = SystemTime::now();
        Diagnosis::new(vec![wide(allow), stale(allow, now), ended_badly(deny, now)])
    }

    #[test]
    fn limits_are_held_against_what_sources_send() {
        let mut past = Past::default();
        (0..200).for_each(|source| past.push(&sample(5, source, 400, Reason::Passed)));
        past.pass(6_000_000_000);
        let key = LimitKey::from(LimitName::Udp);
        let found = |per_second| {
            let packets = Rate::Limit { per_second, burst: per_second };
            let limits = [(key, Limits { packets, bytes: Rate::Off })];
            severity(&judged_of(&past, &limits, |_| {}), "limit-udp")
        };
        assert_eq!((found(300), found(1_200), found(100_000)), (Severity::Problem, Severity::Good, Severity::Warning));
        // Where none can be judged it is said that none is.
        let unjudged = |past: &Past, limits: &[(LimitKey, Limits)]| {
            judged_of(past, limits, |_| {}).findings.iter().any(|found| found.id == "limits")
        };
        let limits = [(key, Limits { packets: Rate::Off, bytes: Rate::Off })];
        assert!(unjudged(&Past::default(), &limits) && !unjudged(&past, &limits));
    }
}

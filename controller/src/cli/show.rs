//! How answers look to people.

use std::fmt::Write;
use std::time::{Duration, UNIX_EPOCH};

use floodwall_common::limits::Per;
use floodwall_common::lists::List;

use crate::api::{
    AmplifiersView, CookiesView, CoveringEntry, EntryView, ExplainView, Flow, HistoryView, InterfaceStatus, LimitView,
    LimitsView, ListView, PolicyView, RateView, Reloaded, ServicesView, SignatureView, SignaturesView, Status, TopView,
    Uninstalled,
};
use crate::dataplane::EgressHook;
use crate::detect::Verdict;
use crate::doctor::{Diagnosis, Severity};
use crate::snapshot::Situation;
use crate::snapshot::unix_s;

/// A table: columns as wide as their widest cell, numbers to the right.
pub(super) struct Table {
    rows: Vec<Vec<String>>,
}

impl Table {
    pub(super) fn new(head: &[&str]) -> Self {
        Self { rows: vec![head.iter().map(|cell| (*cell).to_owned()).collect()] }
    }

    pub(super) fn row(&mut self, cells: impl IntoIterator<Item = String>) {
        self.rows.push(cells.into_iter().collect());
    }

    pub(super) fn render(&self) -> String {
        let columns = self.rows.iter().map(Vec::len).max().unwrap_or(0);
        let width = |column: usize| {
            self.rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count()).max().unwrap_or(0)
        };
        let widths: Vec<_> = (0..columns).map(width).collect();
        let is_number = |column: usize| {
            self.rows[1..]
                .iter()
                .filter_map(|row| row.get(column))
                .all(|cell| cell.is_empty() || cell.starts_with(|first: char| first.is_ascii_digit() || first == '-'))
        };
        let numbers: Vec<_> = (0..columns).map(is_number).collect();
        let mut text = String::new();
        for row in &self.rows {
            let cells = row.iter().enumerate().map(|(column, cell)| match numbers[column] {
                true => format!("{cell:>width$}", width = widths[column]),
                false => format!("{cell:<width$}", width = widths[column]),
            });
            let line = cells.collect::<Vec<_>>().join("  ");
            text.push_str(line.trim_end());
            text.push('\n');
        }
        text
    }
}

/// 1234567 as `1.23 M`.
pub(super) fn short(value: f64) -> String {
    let steps = [(1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")];
    match steps.iter().find(|(step, _)| value >= *step) {
        Some((step, unit)) => {
            let scaled = value / step;
            let digits = if scaled >= 100.0 {
                0
            } else if scaled >= 10.0 {
                1
            } else {
                2
            };
            format!("{scaled:.digits$} {unit}")
        }
        None => format!("{value:.0}"),
    }
}

fn rate(value: Option<f64>) -> String {
    value.map_or("-".to_owned(), short)
}

fn ago(since_unix_s: u64) -> String {
    let seconds = unix_s().saturating_sub(since_unix_s);
    // Two units are enough for a person: 3days 4h, not 3days 4h 12m 7s.
    let coarse = match seconds {
        0..3_600 => seconds,
        3_600..86_400 => seconds / 60 * 60,
        _ => seconds / 3_600 * 3_600,
    };
    humantime::format_duration(Duration::from_secs(coarse)).to_string()
}

/// `floodwall status`.
pub(super) fn status(status: &Status) -> String {
    let mut text = headline(status) + "\n";
    if let Some(situation) = status.situation.as_ref().filter(|situation| situation.verdict != Verdict::Normal) {
        text += &going(situation);
    }
    for interface in &status.interfaces {
        text += &interface_block(interface);
    }
    let _ = write!(
        text,
        "\nsources owing  {} of {}\nallow / deny   {} / {} entries",
        status.sources, status.source_capacity, status.allow_entries, status.deny_entries
    );
    text += &match status.allow_automatic {
        0 => "\n".to_owned(),
        automatic => format!(", {automatic} of them allowed by themselves: floodwall allow list\n"),
    };
    if !status.armed.is_empty() {
        let _ = writeln!(text, "armed          {}", status.armed.join(", "));
    }
    if status.samples_lost > 0 {
        let _ = writeln!(text, "samples lost   {} (top is an estimate; counters are exact)", status.samples_lost);
    }
    if !status.daemon {
        text += "\nno daemon runs: this is read from the pinned maps, which go on filtering. Start it: floodwall run\n";
    }
    text
}

fn going(situation: &Situation) -> String {
    let vectors: Vec<_> = situation.vectors.iter().map(|vector| vector.label()).collect();
    let of = if vectors.is_empty() { String::new() } else { format!(": {}", vectors.join(", ")) };
    let verdict = situation.verdict.label().to_uppercase();
    let mut text = format!("\n{verdict}{of} ({:.0} % sure)\n", situation.confidence * 100.0);
    for reason in &situation.reasons {
        let _ = writeln!(text, "  - {reason}");
    }
    if !situation.who.is_empty() {
        let who: Vec<_> = situation.who.iter().map(ToString::to_string).collect();
        let _ = writeln!(text, "  who: {}", who.join(", "));
    }
    if situation.pressure.is_high() {
        let _ = writeln!(text, "  this host is hard pressed: {}", situation.pressure);
    }
    if let Some(incident) = &situation.incident {
        let _ = writeln!(text, "  more: floodwall incident show {incident}");
    }
    text
}

fn headline(status: &Status) -> String {
    let since = ago(status.mode_since_unix_s);
    if status.interfaces.is_empty() {
        return "NOT ATTACHED: no interface is protected\n  try: floodwall run --interface <name>".to_owned();
    }
    if let (true, Some(seconds)) = (status.attached && status.mode != "stopped", status.confirm_within_s) {
        return match seconds {
            0 => "MONITORING: drops were on trial, and nobody has confirmed them: nothing is dropped\n  try: floodwall mode enforce, with --confirm 60s if you are not sure".to_owned(),
            seconds => format!("ENFORCING on trial: monitor mode again in {seconds} s\n  try: floodwall confirm, if all is as it should be"),
        };
    }
    match (status.attached, status.mode.as_str()) {
        (false, _) => "NOT ATTACHED: packets go past the filter on at least one interface\n  try: floodwall run --interface <name>".to_owned(),
        (true, "enforce") => format!("ENFORCING for {since}: floods are dropped"),
        (true, "stopped") => format!("STOPPED for {since}: nothing is dropped, whatever is set\n  try: floodwall resume"),
        (true, _) => format!("MONITORING for {since}: nothing is dropped\n  try: floodwall mode enforce, when the numbers under \"would drop\" are right"),
    }
}

fn interface_block(interface: &InterfaceStatus) -> String {
    let attached = interface.attached.map_or("NOT ATTACHED", |mode| mode.label());
    let mut text = format!("\n{}  {attached}, protected for {}\n", interface.name, ago(interface.since_unix_s));
    if interface.attached.is_some() && !interface.remembers_sent {
        text += "  what leaves is not remembered, so unsolicited-reply cannot be armed: the daemon's log says why\n";
    }
    if interface.egress_hook == Some(EgressHook::Clsact) {
        text += "  what leaves is seen by a filter on its clsact qdisc, not by TCX\n";
    }
    let mut table = Table::new(&["", "packets", "bytes", "packets/s", "bytes/s"]);
    let mut row = |name: String, flow: &Flow| {
        table.row([
            name,
            short(flow.packets as f64),
            short(flow.bytes as f64),
            rate(flow.packets_per_second),
            rate(flow.bytes_per_second),
        ]);
    };
    row("  passed".to_owned(), &interface.passed);
    row("  dropped".to_owned(), &interface.dropped);
    if interface.answered.packets > 0 {
        row("  answered".to_owned(), &interface.answered);
    }
    if interface.would_drop.packets > 0 {
        row("  would drop".to_owned(), &interface.would_drop);
    }
    for reason in &interface.reasons {
        row(format!("    {} {}", reason.verdict, reason.reason), &reason.flow);
    }
    text += &table.render();
    text
}

/// `floodwall mode`.
pub(super) fn mode(status: &Status) -> String {
    headline(status) + "\n"
}

/// `floodwall limits`.
pub(super) fn limits(view: &LimitsView) -> String {
    let mut table = Table::new(&["limit", "per", "packets/s", "burst", "bytes/s", "burst"]);
    // Of the wider limits, only those that somebody has set: there are two for each class.
    let is_set = |limit: &&LimitView| limit.per == Per::Source.label() || (limit.packets, limit.bytes) != (None, None);
    for limit in view.limits.iter().filter(is_set) {
        let [pps, packets] = rate_cells(limit.packets);
        let [bps, bytes] = rate_cells(limit.bytes);
        table.row([limit.name.clone(), who_shares(&limit.per, limit.group.as_deref()), pps, packets, bps, bytes]);
    }
    table.render()
}

/// A source, a subnet or a network; a source in a group.
pub(super) fn who_shares(per: &str, group: Option<&str>) -> String {
    group.map_or_else(|| per.to_owned(), |group| format!("{per} in {group}"))
}

pub(super) fn rate_cells(rate: Option<RateView>) -> [String; 2] {
    match rate {
        None => ["-".to_owned(), String::new()],
        Some(RateView { per_second: 0, .. }) => ["0 (blocked)".to_owned(), String::new()],
        Some(RateView { per_second, burst }) => [per_second.to_string(), burst.to_string()],
    }
}

/// `floodwall policy`.
pub(super) fn policies(view: &PolicyView) -> String {
    let mut table = Table::new(&["reason", "in enforce mode", "default"]);
    for policy in &view.policies {
        table.row([policy.reason.clone(), policy.verdict.clone(), policy.default.clone().unwrap_or_default()]);
    }
    table.render()
}

/// `floodwall amplifiers`.
pub(super) fn amplifiers(view: &AmplifiersView) -> String {
    let mut table = Table::new(&["port", "service"]);
    for port in &view.ports {
        table.row([port.port.to_string(), port.service.clone().unwrap_or_else(|| "(yours)".to_owned())]);
    }
    table.render()
}

/// `floodwall service`.
pub(super) fn services(view: &ServicesView) -> String {
    if view.services.is_empty() {
        return "no service is named\n  try: floodwall service add web --port 443\n".to_owned();
    }
    let mut table = Table::new(&["service", "cap, packets/s", "burst", "connections/s", "ports"]);
    for service in &view.services {
        let cap = service
            .cap
            .map_or(("off".to_owned(), String::new()), |cap| (cap.per_second.to_string(), cap.burst.to_string()));
        let order = service.shed_order.as_deref().unwrap_or_default();
        let connections = match (service.connections_per_second, service.shed_per_second) {
            (Some(most), _) => most.to_string(),
            (None, Some(most)) => format!("{most} (overload is shed, {order})"),
            (None, None) => "off".to_owned(),
        };
        table.row([service.name.clone(), cap.0, cap.1, connections, service.ports.join(" ")]);
    }
    table.render()
}

/// `floodwall cookies`.
pub(super) fn cookies(view: &CookiesView) -> String {
    let when = match view.mode.as_str() {
        "off" => "the stack answers all SYNs",
        "auto" => "SYNs are answered where the listener's queue is full",
        _ => "every SYN to a listener is answered",
    };
    let answers = view.answers.map_or("no limit".to_owned(), |answers| format!("{}/s", answers.per_second));
    let syncookies = view.tcp_syncookies.map_or("not there".to_owned(), |set| set.to_string());
    let options = match view.keeps_options {
        true => "window scale, SACK and timestamps are kept",
        false => {
            "connections are without window scale, SACK and timestamps (sysctl -w net.ipv4.tcp_timestamps=2 keeps them)"
        }
    };
    format!(
        "cookies        {}: {when}\nanswers        {answers} to one /24 (IPv6: /56)\ntcp_syncookies {syncookies}\n\
         tcp_timestamps {}: {options}\n",
        view.mode, view.tcp_timestamps
    )
}

/// `floodwall signature`.
pub(super) fn signatures(view: &SignaturesView) -> String {
    if view.signatures.is_empty() {
        return "there are no signatures\n".to_owned();
    }
    let mut table = Table::new(&["signature", "action", "packets", "bytes", "ends in", "suits", "reason"]);
    for signature in &view.signatures {
        table.row([
            signature.name.clone(),
            signature.action.clone(),
            signature.packets.to_string(),
            signature.bytes.to_string(),
            signature_ends_in(signature),
            signature.fields.to_string(),
            signature.reason.clone(),
        ]);
    }
    format!("{}\n{} of {}\n", table.render(), view.signatures.len(), view.room)
}

fn signature_ends_in(signature: &SignatureView) -> String {
    match (signature.ended, signature.ttl_s) {
        (true, _) => "ended".to_owned(),
        (false, None) => "never".to_owned(),
        (false, Some(seconds)) => humantime::format_duration(Duration::from_secs(seconds)).to_string(),
    }
}

/// `floodwall allow list`, `floodwall deny list`.
pub(super) fn list(view: &ListView) -> String {
    if view.entries.is_empty() {
        return format!("the {} list is empty\n", view.list);
    }
    let mut table = Table::new(&["prefix", "ends in", "added", "reason"]);
    for entry in &view.entries {
        table.row([entry.prefix.to_string(), ends_in(entry), added(entry), entry.reason.clone()]);
    }
    table.render()
}

fn ends_in(entry: &EntryView) -> String {
    entry
        .ttl_s
        .map_or("never".to_owned(), |seconds| humantime::format_duration(Duration::from_secs(seconds)).to_string())
}

fn added(entry: &EntryView) -> String {
    humantime::format_rfc3339_seconds(UNIX_EPOCH + Duration::from_secs(entry.added_unix_s)).to_string()
}

/// `floodwall top`.
pub(super) fn top(view: &TopView) -> String {
    if view.talkers.is_empty() {
        return format!("nothing to show by {} in the last {:.0} s\n", view.by, view.window_s);
    }
    let mut table = Table::new(&["source", "packets/s", "bytes/s", "dropped/s", "share", "mostly"]);
    for talker in &view.talkers {
        table.row([
            talker.source.clone(),
            short(talker.packets_per_second),
            short(talker.bytes_per_second),
            short(talker.dropped_per_second),
            format!("{:.1} %", talker.share * 100.0),
            talker.reason.clone(),
        ]);
    }
    format!("{}\nestimated from {} sampled headers of {:.0} s\n", table.render(), view.samples, view.window_s)
}

/// `floodwall explain`.
pub(super) fn explain(view: &ExplainView) -> String {
    let mut text = format!("{}\n", view.summary);
    if view.verified {
        text += "  verified: it has completed a handshake with this host in the last six hours\n";
    }
    for covering in &view.entries {
        let CoveringEntry { list, entry } = covering;
        let reason = if entry.reason.is_empty() { String::new() } else { format!(", \"{}\"", entry.reason) };
        let list = if list == List::Groups.label() { "group".to_owned() } else { format!("{list} list") };
        let _ = writeln!(text, "  {list}: {} (ends: {}{reason})", entry.prefix, ends_in(entry));
    }
    let mut table = Table::new(&["limit", "per", "of", "per second", "burst", "used", "next packet", "allowed in"]);
    for limit in &view.limits {
        table.row([
            limit.name.clone(),
            who_shares(&limit.per, limit.group.as_deref()),
            limit.unit.clone(),
            limit.per_second.to_string(),
            limit.burst.to_string(),
            format!("{:.0} %", limit.used * 100.0),
            limit.verdict.clone(),
            match limit.next_allowed_ms {
                None => "never".to_owned(),
                Some(0.0) => "now".to_owned(),
                Some(milliseconds) => format!("{milliseconds:.1} ms"),
            },
        ]);
    }
    if !view.limits.is_empty() {
        let _ = write!(text, "\n{}", table.render());
    }
    if view.signatures > 0 {
        let _ = writeln!(
            text,
            "\n{} signatures are in force: they judge its packets before limits do (floodwall signature list)",
            view.signatures
        );
    }
    match &view.recent {
        Some(seen) => {
            let _ = writeln!(
                text,
                "\nlast seconds: {} packets/s, {} bytes/s, {} packets/s dropped; mostly {} ({} samples)",
                short(seen.packets_per_second),
                short(seen.bytes_per_second),
                short(seen.dropped_per_second),
                seen.reason,
                seen.samples
            );
        }
        None => text += "\nlast seconds: no packet of it was sampled\n",
    }
    text
}

/// `floodwall history`.
pub(super) fn history(view: &HistoryView) -> String {
    if view.changes.is_empty() {
        return "nothing has been changed\n".to_owned();
    }
    let mut table = Table::new(&["ago", "who", "pid", "through", "change"]);
    for entry in &view.changes {
        let who = entry.from.map_or_else(|| entry.user.clone(), |from| format!("{} from {from}", entry.user));
        let why = entry.why.as_ref().map(|why| format!("  \"{why}\"")).unwrap_or_default();
        let change = format!("{}{why}", entry.change);
        table.row([ago(entry.unix_s), who, entry.pid.to_string(), entry.through.clone(), change]);
        for detail in &entry.details {
            let mut line = [""; 4].map(str::to_owned).to_vec();
            line.push(format!("  {detail}"));
            table.row(line);
        }
    }
    table.render()
}

/// `floodwall uninstall`.
pub(super) fn uninstalled(view: &Uninstalled) -> String {
    let mut text: String = view.interfaces.iter().map(|name| format!("detached: {name}\n")).collect();
    view.removed.iter().for_each(|path| text += &format!("removed:  {}\n", path.display()));
    if text.is_empty() {
        text += "nothing to remove\n";
    }
    view.kept.iter().for_each(|path| text += &format!("kept:     {}   (--purge removes it)\n", path.display()));
    text
}

/// `floodwall doctor`.
pub(super) fn diagnosis(diagnosis: &Diagnosis, heads: [&str; 3]) -> String {
    let mut text = format!("{}\n\n", heads[diagnosis.severity as usize]);
    for finding in &diagnosis.findings {
        let mark = match finding.severity {
            Severity::Good => "  ",
            Severity::Warning => "! ",
            Severity::Problem => "!!",
        };
        let interface = finding.interface.as_ref().map(|name| format!("{name}: ")).unwrap_or_default();
        let _ = writeln!(text, "{mark} {:<16} {interface}{}", finding.id, finding.what);
        if let Some(mend) = finding.mend.as_ref().filter(|_| finding.severity != Severity::Good) {
            let _ = writeln!(text, "   {:<16}   try: {mend}", "");
        }
    }
    text
}

/// What a reload has changed.
pub(super) fn reloaded(reloaded: &Reloaded) -> String {
    let mut text = format!("read {}\n", reloaded.files.join(", "));
    for change in &reloaded.changes {
        text += &format!("  {change}\n");
    }
    if reloaded.changes.is_empty() {
        text += "  nothing has changed\n";
    }
    for what in &reloaded.needs_restart {
        text += &format!("  {what}: takes a restart of the daemon\n");
    }
    if let Some(seconds) = reloaded.confirm_within_s {
        text += &format!("monitor mode in {seconds} s, unless this comes first: floodwall confirm\n");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_short() {
        for (value, text) in [(0.0, "0"), (999.0, "999"), (1_234.0, "1.23 k"), (56_789.0, "56.8 k"), (1.5e9, "1.50 G")]
        {
            assert_eq!(short(value), text);
        }
    }

    #[test]
    fn tables_align() {
        let mut table = Table::new(&["name", "n"]);
        table.row(["a".to_owned(), "1".to_owned()]);
        table.row(["long".to_owned(), "100".to_owned()]);
        assert_eq!(table.render(), "name    n\na       1\nlong  100\n");
    }
}

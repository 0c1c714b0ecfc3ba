//! `floodwall runbook`: what to do when an alert fires, without a network.

use crate::exit::{Exit, Failure};

const PAGE: &str = include_str!("../../../docs/runbooks.md");

/// The runbooks, by the alert that they are for.
fn runbooks() -> impl Iterator<Item = (&'static str, &'static str)> {
    PAGE.split("\n## ").skip(1).filter_map(|section| section.split_once('\n'))
}

/// One of them, or the names of all.
pub(super) fn text(name: Option<&str>) -> Result<String, Failure> {
    let names = || runbooks().map(|(name, _)| format!("{name}\n")).collect::<String>();
    let Some(wanted) = name else { return Ok(names()) };
    let found = runbooks().find(|(name, _)| name.eq_ignore_ascii_case(wanted));
    let none = || {
        let text = format!("there is no runbook '{wanted}'");
        Failure::new(Exit::Usage, text).hint(format!("one of {}", names().trim_end().replace('\n', ", ")))
    };
    found.map(|(name, text)| format!("{name}\n\n{}\n", text.trim())).ok_or_else(none)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn each_alert_has_a_runbook_and_says_where_it_is() {
        let rules = include_str!("../../../deploy/prometheus/alerts.yml");
        let after = |line: &'static str, begin: &str| line.trim().strip_prefix(begin).map(str::to_owned);
        let alerts: BTreeSet<_> = rules.lines().filter_map(|line| after(line, "- alert: ")).collect();
        let runbooks: BTreeSet<_> = runbooks().map(|(name, _)| name.to_owned()).collect();
        assert_eq!(alerts, runbooks);
        let urls: BTreeSet<_> = rules.lines().filter_map(|line| after(line, "runbook_url: ")).collect();
        let url =
            |name: &String| format!("\"file:///usr/share/doc/floodwall/manual/runbooks.md#{}\"", name.to_lowercase());
        assert_eq!(urls, alerts.iter().map(url).collect());
    }

    #[test]
    fn one_is_found_by_its_name_and_the_others_are_named() {
        assert!(text(Some("floodwallattack")).is_ok_and(|text| text.contains("isp-request") && !text.contains("## ")));
        assert!(text(Some("x")).is_err_and(|failure| failure.to_string().contains("no runbook 'x'")));
        assert!(text(None).is_ok_and(|text| text.lines().any(|name| name == "FloodwallDrill")));
    }
}

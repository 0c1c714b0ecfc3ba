//! The reference in `docs` is complete, and has nothing that is not there: verbs and flags of the command line, keys of the
//! configuration file. Metrics and reasons are `cargo xtask tidy`'s, which reads them off the source; these are known only to a
//! program that is built.

use std::collections::BTreeSet;
use std::path::Path;

use clap::{Command, CommandFactory};
use schemars::schema_for;
use serde_json::Value;

use super::args::Cli;
use crate::configuration::Configuration;

fn manual(name: &str) -> String {
    std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs").join(name)).unwrap()
}

/// The headings of a page, each with what stands below it.
fn sections(page: &str) -> Vec<(&str, &str)> {
    page.split("\n## ").skip(1).filter_map(|section| section.split_once('\n')).collect()
}

/// The words of a row's first cell that are set as code.
fn row(line: &str) -> Vec<&str> {
    let cell = line.strip_prefix("| ").and_then(|rest| rest.split(" | ").next()).unwrap_or_default();
    cell.split('`').skip(1).step_by(2).collect()
}

/// The flags of a verb and of all below it.
fn flags(verb: &Command) -> BTreeSet<String> {
    let own = verb.get_arguments().filter(|argument| !argument.is_global_set());
    let own = own.flat_map(|argument| argument.get_long_and_visible_aliases().unwrap_or_default());
    let own = own.filter(|name| !["help", "version"].contains(name)).map(|name| format!("--{name}"));
    own.chain(verb.get_subcommands().flat_map(flags)).collect()
}

fn names(text: &str, word: &str) -> bool {
    let is_part = |letter: char| letter.is_ascii_alphanumeric() || "-_".contains(letter);
    text.match_indices(word)
        .any(|(at, _)| !text[..at].ends_with(is_part) && !text[at + word.len()..].starts_with(is_part))
}

#[test]
fn every_verb_and_flag_is_in_the_manual() {
    let (page, cli) = (manual("cli.md"), Cli::command());
    let sections = sections(&page);
    let below = |heading: &str| sections.iter().find(|(title, _)| title.split(", ").any(|word| word == heading));
    for verb in cli.get_subcommands().filter(|verb| verb.get_name() != "help") {
        let name = verb.get_name();
        let Some((_, text)) = below(name) else { panic!("docs/cli.md has no section of `{name}`") };
        for below in verb.get_subcommands() {
            assert!(names(text, below.get_name()), "docs/cli.md does not name `{name} {}`", below.get_name());
        }
        for flag in flags(verb) {
            assert!(names(text, &flag), "docs/cli.md does not name {flag} of `{name}`");
        }
    }
    let Some((_, text)) = below("Flags of every verb") else { panic!("docs/cli.md has no flags of every verb") };
    for argument in cli.get_arguments().filter(|argument| argument.is_global_set()) {
        assert!(names(text, &format!("--{}", argument.get_long().unwrap())), "docs/cli.md does not name {argument}");
    }
}

#[test]
fn no_flag_is_in_the_manual_that_is_not_there() {
    let (page, cli) = (manual("cli.md"), Cli::command());
    let global = ["--socket", "--bpffs", "--config", "--history", "--json", "--watch", "--why", "--help", "--version"];
    let there: BTreeSet<_> = flags(&cli).into_iter().chain(global.map(str::to_owned)).collect();
    let rows = page.lines().flat_map(row).flat_map(|code| code.split([' ', '|']));
    let flags: Vec<_> = rows.filter(|word| word.starts_with("--")).collect();
    assert!(flags.len() > 20, "the rule reads no rows of flags: {flags:?}");
    let gone: Vec<_> = flags.into_iter().filter(|flag| !there.contains(*flag)).collect();
    assert!(gone.is_empty(), "{gone:?}");
}

/// The keys below a schema, with dots; what the user names himself is `*`.
fn keys(schema: &Value, all: &Value, above: &str, found: &mut BTreeSet<String>) {
    let named =
        schema["$ref"].as_str().or_else(|| schema["anyOf"].as_array()?.iter().find_map(|one| one["$ref"].as_str()));
    if let Some(name) = named.and_then(|name| name.strip_prefix("#/$defs/")) {
        return keys(&all["$defs"][name], all, above, found);
    }
    let path = |name: &str| if above.is_empty() { name.to_owned() } else { format!("{above}.{name}") };
    match (schema["properties"].as_object(), &schema["additionalProperties"]) {
        (Some(properties), _) => properties.iter().for_each(|(name, below)| keys(below, all, &path(name), found)),
        (None, Value::Object(_)) => keys(&schema["additionalProperties"], all, &path("*"), found),
        _ => drop(found.insert(above.to_owned())),
    }
}

/// The keys that the manual has a row for: `.burst` behind `limits.<name>.pps` is `limits.<name>.burst`.
fn documented() -> Vec<String> {
    let page = manual("configuration.md");
    let text = sections(&page).into_iter().find(|(title, _)| *title == "Keys").unwrap().1.to_owned();
    let mut keys: Vec<String> = Vec::new();
    for line in text.lines() {
        let mut above = "";
        for word in row(line) {
            keys.push(word.strip_prefix('.').map_or_else(|| word.to_owned(), |last| format!("{above}.{last}")));
            above = if word.starts_with('.') { above } else { word.rsplit_once('.').map_or(word, |(above, _)| above) };
        }
    }
    keys
}

/// Whether a row is of this key, or of a table that has it.
fn is_of(row: &str, key: &str) -> bool {
    let (row, key): (Vec<_>, Vec<_>) = (row.split('.').collect(), key.split('.').collect());
    row.len() <= key.len() && row.iter().zip(key).all(|(row, key)| row.starts_with('<') || *row == key)
}

#[test]
fn every_key_is_in_the_manual_and_no_other() {
    let schema = serde_json::to_value(schema_for!(Configuration)).unwrap();
    let mut there = BTreeSet::new();
    keys(&schema, &schema, "", &mut there);
    let rows = documented();
    assert!(there.len() > 50 && rows.len() > 20, "{there:?} {rows:?}");
    for key in &there {
        assert!(rows.iter().any(|row| is_of(row, key)), "docs/configuration.md has no row of `{key}`");
    }
    for row in rows {
        assert!(there.iter().any(|key| is_of(&row, key)), "`{row}` of docs/configuration.md is no key");
    }
}

//! `floodwall config`.

use std::collections::BTreeMap;

use schemars::schema_for;
use serde::Serialize;

use super::args::{Config, Global};
use super::{print, write_out};
use crate::api::SCHEMA_VERSION;
use crate::configuration::{Change, Configuration, DEFAULT_PATH, Plan, Source};
use crate::dataplane::{Access, Dataplane, Pins};
use crate::exit::{Exit, Failure};

pub(super) fn run(global: &Global, verb: &Config) -> anyhow::Result<Exit> {
    match verb {
        Config::Check => check(global)?,
        Config::Show { origin } => show(global, *origin)?,
        Config::Diff => {
            let dataplane = Dataplane::open(Pins::new(&global.bpffs), Access::Read)?;
            let plan = Plan::new(&dataplane, &found(global)?, None)?;
            let differing = Differing { schema_version: SCHEMA_VERSION, changes: plan.changes };
            print(global, &differing, |differing| match differing.changes.as_slice() {
                [] => "nothing: what the files say is in force\n".to_owned(),
                changes => changes.iter().map(|change| format!("{change}\n")).collect(),
            })?;
        }
        Config::Schema => write_out(&(serde_json::to_string_pretty(&schema_for!(Configuration))? + "\n"))?,
    }
    Ok(Exit::Done)
}

/// What it would take to put the files in force.
#[derive(Serialize)]
struct Differing {
    schema_version: u32,
    changes: Vec<Change>,
}

fn found(global: &Global) -> anyhow::Result<Source> {
    let none = || Failure::new(Exit::Configuration, format!("there is no {DEFAULT_PATH}")).hint("--config <path>");
    Ok(Source::find(global.config.as_deref())?.ok_or_else(none)?)
}

fn check(global: &Global) -> anyhow::Result<()> {
    #[derive(Serialize)]
    struct Checked {
        schema_version: u32,
        files: Vec<String>,
        keys: usize,
    }
    let source = found(global)?;
    let files: Vec<_> = source.files.iter().map(|file| file.display().to_string()).collect();
    let checked = Checked { schema_version: SCHEMA_VERSION, files, keys: source.origins.len() };
    print(global, &checked, |checked| format!("{}: right, {} keys\n", checked.files.join(", "), checked.keys))
}

/// A key, its value as it would stand in a file, and where it is from.
#[derive(Serialize)]
struct Shown {
    key: String,
    value: serde_json::Value,
    origin: String,
}

/// All of them.
#[derive(Serialize)]
struct AllShown {
    schema_version: u32,
    keys: Vec<Shown>,
}

fn show(global: &Global, with_origin: bool) -> anyhow::Result<()> {
    let source = Source::find(global.config.as_deref())?.unwrap_or_default();
    let mut keys = BTreeMap::new();
    flatten(serde_json::to_value(source.configuration.with_defaults())?, "", &mut keys);
    let origin = |key: &str| source.origins.get(key).cloned().unwrap_or_else(|| "default".to_owned());
    let shown = keys.into_iter().map(|(key, value)| Shown { origin: origin(&key), key, value });
    let shown = AllShown { schema_version: SCHEMA_VERSION, keys: shown.collect() };
    let line = |Shown { key, value, origin }: &Shown| match with_origin {
        true => format!("{:<40} # {origin}\n", format!("{key} = {value}")),
        false => format!("{key} = {value}\n"),
    };
    print(global, &shown, |shown| shown.keys.iter().map(line).collect())
}

fn flatten(value: serde_json::Value, above: &str, found: &mut BTreeMap<String, serde_json::Value>) {
    match value {
        serde_json::Value::Object(inner) => {
            for (name, value) in inner {
                flatten(value, &if above.is_empty() { name } else { format!("{above}.{name}") }, found);
            }
        }
        value => drop(found.insert(above.to_owned(), value)),
    }
}

//! Writing a limit back into the file, with its comments as they were.

use std::io::Write;
use std::path::Path;

use anyhow::Context;
use floodwall_common::limits::{LimitKey, Limits, Per, Rate};
use toml_edit::{DocumentMut, Item, Table, Value};

use super::Source;
use crate::exit::{Exit, Failure};

/// Puts a limit, of everybody or of a group, into the file, which is made where there is none. All else in it stays as it is.
///
/// # Errors
/// Where the file is wrong already, would be, or cannot be written: it is as before then.
pub fn save_limit(path: &Path, key: LimitKey, group: Option<&str>, limits: Limits) -> anyhow::Result<()> {
    let text = match std::fs::read_to_string(path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => String::new(),
        read => read.with_context(|| format!("cannot read {}", path.display()))?,
    };
    let mut document: DocumentMut = text.parse().map_err(|error| {
        Failure::new(Exit::Configuration, format!("{}: {error}", path.display())).hint("floodwall config check")
    })?;
    let mut above: &mut dyn toml_edit::TableLike = document.as_table_mut();
    if let Some(group) = group {
        above = table(table(above, "groups", true)?, group, true)?;
    }
    let all = table(above, "limits", true)?;
    let mut of = table(all, key.name.label(), false)?;
    if key.per != Per::Source {
        of = table(of, key.per.label(), false)?;
    }
    set(of, ["pps", "burst"], limits.packets);
    set(of, ["bps", "byte_burst"], limits.bytes);
    let written = document.to_string();
    Source::of_text(&written)?;
    replace(path, &written).with_context(|| format!("cannot write {}", path.display()))
}

fn table<'a>(
    above: &'a mut dyn toml_edit::TableLike,
    name: &str,
    is_implicit: bool,
) -> anyhow::Result<&'a mut dyn toml_edit::TableLike> {
    let mut new = Table::new();
    new.set_implicit(is_implicit);
    let item = above.entry(name).or_insert(Item::Table(new));
    item.as_table_like_mut().with_context(|| format!("'{name}' is no table"))
}

fn set(table: &mut dyn toml_edit::TableLike, [rate_key, burst_key]: [&str; 2], rate: Rate) {
    let number = |number: u64| Value::from(i64::try_from(number).unwrap_or(i64::MAX));
    let (rate, burst) = match rate {
        Rate::Off => (Value::from("off"), None),
        Rate::Block => (Value::from("block"), None),
        Rate::Limit { per_second, burst } => (number(per_second), Some(number(burst))),
    };
    put(table, rate_key, rate);
    match burst {
        Some(burst) => put(table, burst_key, burst),
        None => drop(table.remove(burst_key)),
    }
}

/// A value in the place of another keeps what stands beside it.
fn put(table: &mut dyn toml_edit::TableLike, key: &str, value: Value) {
    match table.get_mut(key).and_then(Item::as_value_mut) {
        Some(present) => {
            let decor = present.decor().clone();
            *present = value;
            *present.decor_mut() = decor;
        }
        None => drop(table.insert(key, Item::Value(value))),
    }
}

/// Whole or not at all, whatever happens meanwhile.
fn replace(path: &Path, text: &str) -> std::io::Result<()> {
    let beside = path.with_extension("toml.new");
    let mode = std::fs::metadata(path).ok().map(|metadata| metadata.permissions());
    let mut file = std::fs::File::create(&beside)?;
    if let Some(mode) = mode {
        file.set_permissions(mode)?;
    }
    file.write_all(text.as_bytes())?;
    file.sync_all()?;
    std::fs::rename(&beside, path)
}

#[cfg(test)]
mod tests {
    use super::*;
    use floodwall_common::limits::LimitName;

    #[test]
    fn a_limit_is_written_and_comments_stay() {
        let directory = std::env::temp_dir().join(format!("floodwall-save-{}", std::process::id()));
        std::fs::create_dir_all(&directory).unwrap();
        let path = directory.join("floodwall.toml");
        let before = "# ours\nmode = \"monitor\"\n\n[limits.udp] # game servers\npps = 5 # measured\nburst = 7\n";
        std::fs::write(&path, before).unwrap();
        let key = LimitKey::from(LimitName::Udp);
        let limits = Limits { packets: Rate::Limit { per_second: 2_000, burst: 4_000 }, bytes: Rate::Off };
        save_limit(&path, key, None, limits).unwrap();
        let expected = before.replace("pps = 5", "pps = 2000").replace("burst = 7\n", "burst = 4000\nbps = \"off\"\n");
        assert_eq!(std::fs::read_to_string(&path).unwrap(), expected);
        save_limit(&path, LimitKey { per: Per::Subnet, ..key }, None, limits).unwrap();
        let text = std::fs::read_to_string(&path).unwrap();
        assert!(text.starts_with(&expected) && text.contains("[limits.udp.subnet]\npps = 2000"), "{text}");
        save_limit(&path, key, Some("partners"), limits).unwrap();
        let text = std::fs::read_to_string(&path).unwrap();
        assert!(text.starts_with(&expected) && text.contains("[groups.partners.limits.udp]\npps = 2000"), "{text}");
        // A file that is wrong stays as it is.
        std::fs::write(&path, "mod = 1\n").unwrap();
        assert!(save_limit(&path, key, None, limits).is_err());
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "mod = 1\n");
        std::fs::remove_dir_all(directory).unwrap();
    }
}

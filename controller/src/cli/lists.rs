//! `floodwall allow` and `floodwall deny`.

use floodwall_common::lists::List;
use ipnet::IpNet;

use super::args::{self, Add, Global, Prefixes};
use super::backend::Backend;
use super::{around, print, show};
use crate::api::{EntryView, ListChange};
use crate::exit::{Exit, Failure};
use crate::{lockout, prefixes};

pub(super) async fn run(global: &Global, list: List, verb: args::List) -> anyhow::Result<()> {
    match verb {
        args::List::Show => {
            let view = Backend::find(global).await?.list(list).await?;
            print(global, &view, show::list)
        }
        args::List::Add(add) => {
            let force = add.force;
            let change = ListChange { add: entries(add)?, remove: Vec::new(), force };
            lockout::check_list(list, &change, &around(global))?;
            let changed = Backend::find(global).await?.change_list(list, &change).await?;
            print(global, &changed, |changed| {
                format!("{}: {} added, {} on the list\n", list.label(), change.add.len(), changed.entries)
            })
        }
        args::List::Remove(prefixes) => {
            let change = ListChange { remove: named(prefixes)?, ..Default::default() };
            let changed = Backend::find(global).await?.change_list(list, &change).await?;
            let removed = change.remove.len() - changed.missing.len();
            print(global, &changed, |changed| {
                format!("{}: {removed} removed, {} on the list\n", list.label(), changed.entries)
            })?;
            match changed.missing.as_slice() {
                [] => Ok(()),
                missing => {
                    let named: Vec<_> = missing.iter().take(NAMED).map(ToString::to_string).collect();
                    let more = missing.len().saturating_sub(NAMED);
                    let more = if more > 0 { format!(" and {more} more") } else { String::new() };
                    let text = format!("not on the {} list: {}{more}", list.label(), named.join(", "));
                    let hint = format!("floodwall {} list", list.label());
                    Err(Failure::new(Exit::Failed, text).hint(hint).into())
                }
            }
        }
    }
}

/// How many prefixes an error names.
const NAMED: usize = 10;

/// All of them, those in a file too.
fn named(prefixes: Prefixes) -> anyhow::Result<Vec<IpNet>> {
    let mut all = prefixes.prefixes;
    if let Some(file) = &prefixes.file {
        all.extend(prefixes::read_file(file)?);
    }
    Ok(all)
}

fn entries(mut add: Add) -> anyhow::Result<Vec<EntryView>> {
    let prefixes = named(std::mem::take(&mut add.prefixes))?;
    let ttl_s = add.ttl.or(add.confirm).map(|ttl| ttl.as_secs());
    let entry = |prefix| EntryView { prefix, ttl_s, added_unix_s: 0, reason: add.reason.clone() };
    Ok(prefixes.into_iter().map(entry).collect())
}

//! `floodwall allow` and `floodwall deny`.

use std::net::IpAddr;

use floodwall_common::lists::List;
use ipnet::IpNet;

use super::args::{self, Add, Global, Prefixes};
use super::backend::Backend;
use super::{print, show};
use crate::api::{EntryView, ListChange};
use crate::exit::{Exit, Failure};
use crate::prefixes;

pub(super) async fn run(global: &Global, list: List, verb: args::List) -> anyhow::Result<()> {
    match verb {
        args::List::Show => {
            let view = Backend::find(global).await?.list(list).await?;
            print(global, &view, show::list)
        }
        args::List::Add(add) => {
            let change = ListChange { add: entries(list, add)?, remove: Vec::new() };
            let changed = Backend::find(global).await?.change_list(list, &change).await?;
            print(global, &changed, |changed| {
                format!("{}: {} added, {} on the list\n", list.label(), change.add.len(), changed.entries)
            })
        }
        args::List::Remove(prefixes) => {
            let change = ListChange { add: Vec::new(), remove: named(prefixes)? };
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

fn entries(list: List, mut add: Add) -> anyhow::Result<Vec<EntryView>> {
    let prefixes = named(std::mem::take(&mut add.prefixes))?;
    for prefix in &prefixes {
        refuse_dangerous(list, *prefix, &add)?;
    }
    let ttl_s = add.ttl.or(add.confirm).map(|ttl| ttl.as_secs());
    let entry = |prefix| EntryView { prefix, ttl_s, added_unix_s: 0, reason: add.reason.clone() };
    Ok(prefixes.into_iter().map(entry).collect())
}

/// What would lock the operator out, or let everybody in.
fn refuse_dangerous(list: List, prefix: IpNet, add: &Add) -> Result<(), Failure> {
    // Nobody means a whole /7 of the Internet by one entry.
    let everybody = prefix.prefix_len() < 8;
    match list {
        List::Allow if everybody && !add.force => {
            let text = format!("{prefix} on the allow list lets nearly everybody through");
            Err(Failure::new(Exit::Usage, text).hint("add --force (or --i-know) if that is meant"))
        }
        List::Deny => {
            let peer = ssh_peer().filter(|peer| prefix.contains(peer));
            let text = match (everybody, peer) {
                (_, Some(peer)) => {
                    format!("{prefix} covers {peer}, from where you are logged in: you would be locked out")
                }
                (true, None) => format!("{prefix} on the deny list drops nearly everybody"),
                (false, None) => return Ok(()),
            };
            if add.force && add.confirm.is_some() {
                return Ok(());
            }
            Err(Failure::new(Exit::Usage, text)
                .hint("--force --confirm 60s: it then ends after a minute, so that you can still get back in"))
        }
        List::Allow => Ok(()),
    }
}

/// Where the operator's own session comes from.
fn ssh_peer() -> Option<IpAddr> {
    std::env::var("SSH_CONNECTION").ok()?.split(' ').next()?.parse().ok()
}

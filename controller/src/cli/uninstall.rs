//! `floodwall uninstall`: nothing of it is left in the kernel, and with `--purge` no file of it either. It asks no daemon,
//! and refuses while one runs: whoever keeps it running would have it attach again.

use std::fs;
use std::io;
use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};

use super::args::Global;
use super::client::Client;
use super::{print, record, show};
use crate::api::{DEFAULT_SOCKET, SCHEMA_VERSION, Uninstalled};
use crate::configuration::{self, LastGood};
use crate::dataplane::{self, Pins};
use crate::exit::{Exit, Failure};
use crate::history;

pub(super) async fn run(global: &Global, purge: bool) -> anyhow::Result<()> {
    if Client::connect(&global.socket).await?.is_some() {
        let text = format!("the daemon runs: it answers on {}. Nothing was removed", global.socket.display());
        let hint = "systemctl disable --now floodwall, or stop it the way that it was started; then repeat";
        return Err(Failure::new(Exit::Conflict, text).hint(hint).into());
    }
    let gone = dataplane::uninstall(&Pins::new(&global.bpffs), &dataplane::devices().await?)?;
    if gone.directory.is_some() && !purge {
        record(global, Vec::new());
    }
    let mut removed: Vec<PathBuf> = gone.directory.into_iter().collect();
    removed.extend(remove_socket(&global.socket)?);
    let mut kept = files(global);
    kept.retain(|path| path.exists());
    if purge {
        for path in kept.drain(..) {
            remove(&path)?;
            removed.push(path);
        }
    }
    let uninstalled = Uninstalled { schema_version: SCHEMA_VERSION, interfaces: gone.interfaces, removed, kept };
    print(global, &uninstalled, show::uninstalled)
}

/// Configuration and state: their directories, or the files that somebody has named in their place.
fn files(global: &Global) -> Vec<PathBuf> {
    let configuration = global.config.as_deref().unwrap_or(Path::new(configuration::DEFAULT_PATH));
    let mut files = directory_or_file(configuration, configuration::DEFAULT_PATH);
    files.extend(directory_or_file(&global.history, history::DEFAULT_PATH));
    if global.history != Path::new(history::DEFAULT_PATH) {
        files.push(history::put_aside(&global.history));
        files.push(LastGood::beside(&global.history).path().to_owned());
    }
    files
}

/// A usual path is in a directory that is Floodwall's own; of another place only the file is.
fn directory_or_file(path: &Path, usual: &str) -> Vec<PathBuf> {
    let directory = path.parent().filter(|_| path == Path::new(usual));
    vec![directory.unwrap_or(path).to_owned()]
}

/// A socket that nobody answers on, and its directory where that is Floodwall's own and empty.
fn remove_socket(path: &Path) -> anyhow::Result<Option<PathBuf>> {
    let was_there = fs::symlink_metadata(path).is_ok_and(|file| file.file_type().is_socket());
    if was_there {
        remove(path)?;
    }
    if let Some(directory) = path.parent().filter(|_| path == Path::new(DEFAULT_SOCKET)) {
        // One that is not there, or in which somebody else has put something, is as good.
        let _ = fs::remove_dir(directory);
    }
    Ok(Some(path.to_owned()).filter(|_| was_there))
}

fn remove(path: &Path) -> anyhow::Result<()> {
    let removed = if path.is_dir() { fs::remove_dir_all(path) } else { fs::remove_file(path) };
    match removed {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            let text = format!("cannot remove {}: {error}", path.display());
            Err(Failure::new(Exit::Environment, text).hint("run as root").into())
        }
        _ => Ok(()),
    }
}

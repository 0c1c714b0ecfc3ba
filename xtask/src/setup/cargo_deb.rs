//! cargo-deb, which makes the Debian package, into a directory of our own, where its version is known.

use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context as _, Result, bail};

use crate::setup::step::Step;
use crate::toolchain;

const VERSION: &str = "3.8.0";

/// Where it is.
pub(crate) fn program() -> Result<PathBuf> {
    let program = directory()?.join("bin/cargo-deb");
    if !program.is_file() {
        bail!("cargo-deb is missing: bring it with `cargo xtask setup`");
    }
    Ok(program)
}

/// Builds it where it is missing, in about a minute on two cores.
pub(super) fn install() -> Result<()> {
    if program().is_ok() {
        return Ok(());
    }
    let mut install = Command::new(std::env::var_os("CARGO").unwrap_or("cargo".into()));
    // It packs a few megabytes: not optimising it halves the wait, and costs a second or two.
    install.args(["install", "--locked", "--debug", "--config", "profile.dev.debug=0"]);
    install.args(["cargo-deb", "--version", VERSION, "--root"]).arg(directory()?);
    Step::new("building cargo-deb (about a minute)", install).run()
}

fn directory() -> Result<PathBuf> {
    let cache = toolchain::cache_dir().context("set HOME: cargo-deb is kept in ~/.cache")?;
    Ok(cache.join(format!("cargo-deb-{VERSION}")))
}

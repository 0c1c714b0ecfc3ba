//! `fuzz`: feeds made-up packets to the parser for a while. cargo-fuzz is installed into our own
//! directory, and runs with the nightly compiler, or with the current one made to act like it.

use std::fs;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, bail};
use clap::Args;

use crate::{command, toolchain};

const CARGO_FUZZ: &str = "0.13.2";
const FUZZ_DIR: &str = "common/fuzz";

/// Feed made-up packets to the parser
#[derive(Args)]
pub(crate) struct Options {
    /// One fuzz target, instead of all in turn
    target: Option<String>,
    /// For how long each target runs
    #[arg(long, default_value_t = 60, value_name = "N")]
    seconds: u64,
}

pub(crate) fn fuzz(options: &Options) -> Result<()> {
    let cargo_fuzz = cargo_fuzz()?;
    for target in targets(options)? {
        let mut fuzz = Command::new(&cargo_fuzz);
        fuzz.current_dir(command::repository());
        fuzz.args(["fuzz", "run", "--fuzz-dir", FUZZ_DIR, &target, "--"]);
        fuzz.arg(format!("-max_total_time={}", options.seconds));
        command::run(use_nightly(&mut fuzz))
            .with_context(|| format!("a finding of `{target}` is in {FUZZ_DIR}/artifacts: make a test case of it"))?;
    }
    Ok(())
}

fn targets(options: &Options) -> Result<Vec<String>> {
    if let Some(target) = &options.target {
        return Ok(vec![target.clone()]);
    }
    let dir = command::repository().join(FUZZ_DIR).join("fuzz_targets");
    let files = fs::read_dir(&dir).with_context(|| format!("cannot read {}", dir.display()))?;
    let names = files.flatten().map(|file| file.path().with_extension(""));
    let mut names: Vec<String> = names.filter_map(|path| Some(path.file_name()?.to_str()?.to_owned())).collect();
    names.sort();
    if names.is_empty() {
        bail!("{} has no fuzz target", dir.display());
    }
    Ok(names)
}

/// cargo-fuzz, installed if it is not here yet.
fn cargo_fuzz() -> Result<PathBuf> {
    let cache = toolchain::cache_dir().context("set HOME: cargo-fuzz is kept in ~/.cache")?;
    let root = cache.join(format!("cargo-fuzz-{CARGO_FUZZ}"));
    let program = root.join("bin/cargo-fuzz");
    if !program.exists() {
        let mut install = command::cargo();
        install.args(["install", "cargo-fuzz", "--version", CARGO_FUZZ, "--locked", "--root"]);
        command::run(install.arg(&root))?;
    }
    Ok(program)
}

/// Sanitizers are unstable: nightly has them, and any other compiler if it is told to.
fn use_nightly(fuzz: &mut Command) -> &mut Command {
    let nightly = Command::new("rustup")
        .args(["run", "nightly", "rustc", "--version"])
        .env("RUSTUP_AUTO_INSTALL", "0")
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status();
    match nightly {
        Ok(status) if status.success() => fuzz.env_remove("CARGO").env("RUSTUP_TOOLCHAIN", "nightly"),
        _ => fuzz.env("RUSTC_BOOTSTRAP", "1"),
    }
}

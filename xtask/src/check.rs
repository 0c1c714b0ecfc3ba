//! `fmt`, `lint` and `ci`: what is checked without running the product. The kernel half and the
//! fuzz targets are workspaces of their own, so each command goes through all of them.

use std::path::PathBuf;
use std::time::Instant;

use anyhow::{Result, anyhow, bail};
use clap::Args;

use crate::setup::{Scope, setup};
use crate::{command, deployment, toolchain};

/// The workspaces beside the main one.
const KERNEL_HALF: &str = "filter-ebpf";
const FUZZ_TARGETS: &str = "common/fuzz";

/// Format the code
#[derive(Args)]
pub(crate) struct FmtOptions {
    /// Change nothing, and fail if something would
    #[arg(long)]
    check: bool,
}

pub(crate) fn fmt(options: &FmtOptions) -> Result<()> {
    let outcomes = ["", KERNEL_HALF, FUZZ_TARGETS].map(|workspace| fmt_in(workspace, options));
    let failed = outcomes.into_iter().filter(Result::is_err).count();
    if failed > 0 && options.check {
        bail!("the code is not formatted: run `cargo xtask fmt`");
    }
    if failed > 0 {
        bail!("the formatter failed: `rustup component add rustfmt` if it is missing");
    }
    Ok(())
}

fn fmt_in(workspace: &str, options: &FmtOptions) -> Result<()> {
    let manifest = command::repository().join(workspace).join("Cargo.toml");
    if !manifest.exists() {
        return Ok(());
    }
    let mut cargo = command::cargo();
    cargo.arg("fmt").arg("--manifest-path").arg(manifest);
    if workspace.is_empty() {
        cargo.arg("--all");
    }
    if options.check {
        cargo.arg("--check");
    }
    command::run(&mut cargo)
}

pub(crate) fn lint() -> Result<()> {
    setup(Scope::Everything)?;
    let outcomes = [lint_host(), lint_kernel_half(), deployment::lint()];
    outcomes.into_iter().collect()
}

fn lint_host() -> Result<()> {
    let mut cargo = command::cargo();
    cargo.args(["clippy", "--workspace", "--all-targets", "--locked", "--", "--deny", "warnings"]);
    command::run(&mut cargo)
}

/// With the clippy that came with the compiler of the kernel half: it has to read the same `core`.
fn lint_kernel_half() -> Result<()> {
    let compiler = toolchain::compiler().map_err(|missing| anyhow!(missing))?;
    let linker = toolchain::linker().map_err(|missing| anyhow!(missing))?;
    let clippy = clippy(&compiler);
    if !clippy.exists() {
        bail!("{} is missing: bring it with `cargo xtask setup`", clippy.display());
    }
    let dir = command::repository().join(KERNEL_HALF);
    let mut cargo = toolchain::command(&clippy, &compiler, &linker, &dir);
    cargo.env("CARGO", compiler.cargo());
    cargo.args(["clippy", "--release", "--locked"]).args(toolchain::TARGET_ARGS);
    cargo.arg("--target-dir").arg(command::target_dir()?.join("ebpf"));
    command::run(cargo.args(["--", "--deny", "warnings"]))
}

/// The clippy that came with `compiler`.
pub(crate) fn clippy(compiler: &toolchain::Compiler) -> PathBuf {
    compiler.sysroot.join("bin/cargo-clippy")
}

/// Each check as its own command, as a developer types it. The cheapest go first, and all are run.
pub(crate) fn ci() -> Result<()> {
    let checks: [&[&str]; 5] = [&["setup"], &["fmt", "--check"], &["tidy"], &["lint"], &["test"]];
    let failed = checks.map(report).iter().filter(|outcome| outcome.is_err()).count();
    if failed > 0 {
        bail!("ci: {failed} of {} failed", checks.len());
    }
    Ok(())
}

fn report(check: &[&str]) -> Result<()> {
    let start = Instant::now();
    let outcome = command::run(command::cargo().arg("xtask").args(check));
    let word = if outcome.is_ok() { "good" } else { "FAILED" };
    eprintln!("ci: {}: {word} after {} s", check.join(" "), start.elapsed().as_secs());
    outcome
}

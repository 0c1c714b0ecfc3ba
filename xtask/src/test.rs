//! `test`: sets up and runs every test. Those of the BPF programs and the namespaces need root.

use std::process::Command;

use anyhow::{Context as _, Result, bail};
use clap::Args;

use crate::setup::{Scope, setup};
use crate::{command, package, system};

/// Set up, and run every test
#[derive(Args)]
pub(crate) struct Options {
    /// Passed to `cargo test` instead of `--workspace`, to run some of them
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, value_name = "ARGUMENTS")]
    selection: Vec<String>,
}

pub(crate) fn test(options: &Options) -> Result<()> {
    setup(Scope::Test)?;
    build_daemon()?;
    let daemon = command::target_dir()?.join("debug/floodwall");
    let deb = package::debian(&daemon, package::Effort::Quick)?;
    let mut cargo = command::cargo();
    cargo.args(["test", "--locked"]);
    match options.selection.as_slice() {
        [] => cargo.arg("--workspace"),
        selection => cargo.args(selection),
    };
    cargo.env("FLOODWALL_BIN", daemon).env("FLOODWALL_DEB", deb);
    if !system::is_root() {
        run_tests_as_root(&mut cargo)?;
    }
    command::run(&mut cargo)
}

/// Some tests start the daemon, which `cargo test` builds for the tests of its own package only.
fn build_daemon() -> Result<()> {
    let mut cargo = command::cargo();
    command::run(cargo.args(["build", "--profile", "test", "--locked", "--package", "floodwall"]))
}

fn run_tests_as_root(cargo: &mut Command) -> Result<()> {
    if !system::has("sudo") {
        bail!("the tests attach BPF programs and make namespaces: run this as root, or with sudo");
    }
    eprintln!("the tests attach BPF programs and make namespaces, so they run under sudo");
    cargo.env(runner_variable(&host()?), "sudo -E");
    Ok(())
}

fn runner_variable(host: &str) -> String {
    format!("CARGO_TARGET_{}_RUNNER", host.to_uppercase().replace('-', "_"))
}

/// The target that the compiler builds for here.
fn host() -> Result<String> {
    let version = Command::new("rustc").arg("-vV").output().context("cannot start rustc")?;
    let version = String::from_utf8_lossy(&version.stdout).into_owned();
    let host = version.lines().find_map(|line| line.strip_prefix("host: "));
    Ok(host.context("`rustc -vV` names no host")?.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_runner_is_set_for_the_target_of_the_host() {
        let variable = runner_variable("x86_64-unknown-linux-gnu");
        assert_eq!(variable, "CARGO_TARGET_X86_64_UNKNOWN_LINUX_GNU_RUNNER");
    }
}

//! `run`: shows Floodwall at work in a lab of namespaces, or protects the interfaces that are named.
//! Both become the program that does it, so that Ctrl-C and the exit code are that program's.

use std::ffi::OsStr;
use std::path::PathBuf;

use anyhow::Result;
use clap::Args;

use crate::setup::{Scope, setup};
use crate::{command, system};

/// See it at work in a lab, or protect real interfaces with `--interface`
#[derive(Args)]
pub(crate) struct Options {
    /// Protect this interface until stopped, instead of the lab; may be given several times
    #[arg(long, value_name = "NAME")]
    interface: Vec<String>,
    /// Leave the lab standing, and say where to look
    #[arg(long, conflicts_with = "interface")]
    keep: bool,
    /// For how long the lab sends traffic
    #[arg(long, conflicts_with = "interface", value_name = "N")]
    seconds: Option<u64>,
    /// Passed on as they are: to `floodwall run`, or to the lab
    #[arg(last = true, value_name = "ARGUMENTS")]
    passed_on: Vec<String>,
}

impl Options {
    fn lab_arguments(&self) -> Vec<String> {
        let keep = self.keep.then(|| "--keep".to_owned());
        let seconds = self.seconds.map(|seconds| ["--seconds".to_owned(), seconds.to_string()]);
        let own = keep.into_iter().chain(seconds.into_iter().flatten());
        own.chain(self.passed_on.iter().cloned()).collect()
    }

    pub(crate) fn daemon_arguments(&self) -> Vec<String> {
        let interfaces = self.interface.iter().flat_map(|name| ["--interface", name]);
        let own = std::iter::once("run").chain(interfaces).map(str::to_owned);
        own.chain(self.passed_on.iter().cloned()).collect()
    }
}

pub(crate) fn run(options: &Options) -> Result<()> {
    if options.interface.is_empty() { lab(options) } else { protect(options) }
}

fn lab(options: &Options) -> Result<()> {
    setup(Scope::Lab)?;
    build(&["floodwall", "floodwall-tests"], &["floodwall", "lab"])?;
    let daemon = binary("floodwall")?;
    let daemon = [("FLOODWALL_BIN", daemon.as_os_str())];
    let mut lab = command::as_root(binary("lab")?, &daemon)?;
    lab.args(options.lab_arguments());
    command::replace_self(lab)
}

fn protect(options: &Options) -> Result<()> {
    setup(Scope::Build)?;
    build(&["floodwall"], &["floodwall"])?;
    system::mount_bpf_file_system()?;
    let mut daemon = command::as_root(binary("floodwall")?, &[])?;
    daemon.args(options.daemon_arguments());
    command::replace_self(daemon)
}

/// Builds `binaries` of `packages` as they are shipped.
pub(crate) fn build(packages: &[&str], binaries: &[&str]) -> Result<()> {
    let mut cargo = command::cargo();
    cargo.args(["build", "--release", "--locked"]);
    cargo.args(packages.iter().flat_map(|package| ["--package", package]));
    cargo.args(binaries.iter().flat_map(|binary| ["--bin", binary]));
    command::run(&mut cargo)
}

/// Where cargo has put what `build` built.
pub(crate) fn binary(name: impl AsRef<OsStr>) -> Result<PathBuf> {
    Ok(command::target_dir()?.join("release").join(name.as_ref()))
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;

    #[derive(clap::Parser)]
    struct Line {
        #[command(flatten)]
        options: Options,
    }

    fn options(line: &str) -> Options {
        match Line::try_parse_from(line.split(' ')) {
            Ok(line) => line.options,
            Err(error) => panic!("{line}: {error}"),
        }
    }

    #[test]
    fn interfaces_go_to_the_daemon_before_what_is_passed_on() {
        let options = options("run --interface eth0 --interface eth1 -- --mode enforce");
        let expected = ["run", "--interface", "eth0", "--interface", "eth1", "--mode", "enforce"];
        assert_eq!(options.daemon_arguments(), expected);
    }

    #[test]
    fn the_lab_is_told_what_it_was_asked_for() {
        let expected = ["--keep", "--seconds", "5", "--flood", "1000"];
        let options = options("run --seconds 5 --keep -- --flood 1000");
        assert_eq!(options.lab_arguments(), expected);
    }

    #[test]
    fn options_of_the_lab_do_not_go_with_an_interface() {
        assert!(Line::try_parse_from(["run", "--interface", "eth0", "--keep"]).is_err());
    }
}

//! `build`: the daemon, with the packet filter inside it.

use anyhow::Result;
use clap::Args;

use crate::command;
use crate::setup::{Scope, setup};

/// Build the daemon and the packet filter that it carries
#[derive(Args)]
pub(crate) struct Options {
    /// Optimised, as it is shipped
    #[arg(long)]
    release: bool,
}

pub(crate) fn build(options: &Options) -> Result<()> {
    setup(Scope::Build)?;
    let mut cargo = command::cargo();
    cargo.args(["build", "--locked", "--package", "floodwall"]);
    if options.release {
        cargo.arg("--release");
    }
    command::run(&mut cargo)
}

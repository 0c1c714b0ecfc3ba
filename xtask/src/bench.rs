//! `bench`: what a packet costs. The measuring program is in `tests`; its standard output is left
//! alone, so that `--json` prints one object and nothing else.

use anyhow::Result;
use clap::Args;

use crate::setup::{Scope, setup};
use crate::{command, run};

/// Measure what a packet costs, in each case
#[derive(Args)]
pub(crate) struct Options {
    /// Passed on to the measuring program, such as `--json`; with `--live` or `--markdown` other filters are installed, to be
    /// measured beside this one
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, value_name = "ARGUMENTS")]
    passed_on: Vec<String>,
}

pub(crate) fn bench(options: &Options) -> Result<()> {
    let is_live = options.passed_on.iter().any(|argument| argument == "--live" || argument.starts_with("--markdown"));
    setup(if is_live { Scope::Peers } else { Scope::Build })?;
    run::build(&["floodwall", "floodwall-tests"], &["floodwall", "bench"])?;
    let daemon = run::binary("floodwall")?;
    let mut bench = command::as_root(run::binary("bench")?, &[("FLOODWALL_BIN", daemon.as_os_str())])?;
    bench.args(&options.passed_on);
    command::replace_self(bench)
}

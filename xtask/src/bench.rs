//! `bench`: what a packet costs. The measuring program is in `tests`; its standard output is left
//! alone, so that `--json` prints one object and nothing else.

use anyhow::Result;
use clap::Args;

use crate::setup::{Scope, setup};
use crate::{command, run};

/// Measure what a packet costs, in each case
#[derive(Args)]
pub(crate) struct Options {
    /// Passed on to the measuring program, such as `--json`
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, value_name = "ARGUMENTS")]
    passed_on: Vec<String>,
}

pub(crate) fn bench(options: &Options) -> Result<()> {
    setup(Scope::Build)?;
    run::build(&["floodwall-tests"], &["bench"])?;
    let mut bench = command::as_root(run::binary("bench")?, &[])?;
    bench.args(&options.passed_on);
    command::replace_self(bench)
}

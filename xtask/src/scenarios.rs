//! `scenarios`: attacks, crowds and mistakes end to end, and points for what stands before the server. The program is in `tests`.

use anyhow::Result;
use clap::Args;

use crate::setup::{Scope, setup};
use crate::{command, run};

/// Play the scenarios of detection end to end, and score them
#[derive(Args)]
pub(crate) struct Options {
    /// Passed on to the playing program, such as `--short`, `--only 1,12` or `--markdown`; with `--wall` other filters are
    /// installed, to be played behind as well
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, value_name = "ARGUMENTS")]
    passed_on: Vec<String>,
}

pub(crate) fn scenarios(options: &Options) -> Result<()> {
    let has_walls = options.passed_on.iter().any(|argument| argument.starts_with("--wall"));
    setup(if has_walls { Scope::Peers } else { Scope::Lab })?;
    run::build(&["floodwall", "floodwall-tests"], &["floodwall", "scenarios"])?;
    let daemon = run::binary("floodwall")?;
    let mut scenarios = command::as_root(run::binary("scenarios")?, &[("FLOODWALL_BIN", daemon.as_os_str())])?;
    scenarios.args(&options.passed_on);
    command::replace_self(scenarios)
}

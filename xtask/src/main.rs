//! `cargo xtask`: everything that a developer or a newcomer runs, one file for each task.
//! It drives cargo and the system's own tools, and holds no logic of the product.

use std::process::ExitCode;

use anyhow::Result;
use clap::{Parser, Subcommand};

mod bench;
mod build;
mod check;
mod command;
mod deployment;
mod fuzz;
mod package;
mod run;
mod scenarios;
mod setup;
mod system;
mod test;
mod tidy;
#[path = "../../filter-ebpf/toolchain.rs"]
mod toolchain;
mod vm;

/// The tasks of Floodwall's developers
#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask")]
struct Invocation {
    #[command(subcommand)]
    task: Task,
}

#[derive(Subcommand)]
enum Task {
    Setup(setup::Options),
    Build(build::Options),
    Run(run::Options),
    Test(test::Options),
    Bench(bench::Options),
    Scenarios(scenarios::Options),
    Fmt(check::FmtOptions),
    /// Clippy on both halves, a warning is an error; the service and the manifests
    Lint,
    /// The house rules that clippy does not know
    Tidy,
    /// Exactly what the continuous integration runs
    Ci,
    Fuzz(fuzz::Options),
    Vm(vm::Options),
    Package(package::Options),
}

fn main() -> ExitCode {
    let invocation = Invocation::parse_from(without_separator(std::env::args().collect()));
    match perform(invocation.task) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn perform(task: Task) -> Result<()> {
    match task {
        Task::Setup(options) => setup::setup(options.scope()),
        Task::Build(options) => build::build(&options),
        Task::Run(options) => run::run(&options),
        Task::Test(options) => test::test(&options),
        Task::Bench(options) => bench::bench(&options),
        Task::Scenarios(options) => scenarios::scenarios(&options),
        Task::Fmt(options) => check::fmt(&options),
        Task::Lint => check::lint(),
        Task::Tidy => tidy::tidy(),
        Task::Ci => check::ci(),
        Task::Fuzz(options) => fuzz::fuzz(&options),
        Task::Vm(options) => vm::vm(&options),
        Task::Package(options) => package::package(&options),
    }
}

/// `cargo xtask run -- --interface eth0` is how cargo's own commands are used, and means the same
/// as without the `--`. One that comes later is left: it parts our options from those passed on.
fn without_separator(mut arguments: Vec<String>) -> Vec<String> {
    if arguments.get(2).is_some_and(|argument| argument == "--") {
        arguments.remove(2);
    }
    arguments
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(line: &str) -> Task {
        let arguments = line.split(' ').map(str::to_owned).collect();
        match Invocation::try_parse_from(without_separator(arguments)) {
            Ok(invocation) => invocation.task,
            Err(error) => panic!("{line}: {error}"),
        }
    }

    #[test]
    fn a_separator_right_after_the_task_means_nothing() {
        for line in ["xtask run --interface eth0", "xtask run -- --interface eth0"] {
            let Task::Run(options) = parsed(line) else { panic!("{line} is not `run`") };
            assert_eq!(options.daemon_arguments(), ["run", "--interface", "eth0"], "{line}");
        }
    }

    #[test]
    fn a_later_separator_is_left() {
        let Task::Run(options) = parsed("xtask run -- --interface eth0 -- --mode enforce") else { panic!("not `run`") };
        let expected = ["run", "--interface", "eth0", "--mode", "enforce"];
        assert_eq!(options.daemon_arguments(), expected);
    }

    #[test]
    fn the_command_line_is_well_formed() {
        use clap::CommandFactory as _;
        Invocation::command().debug_assert();
    }
}

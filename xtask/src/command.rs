//! Starting other programs: cargo, and what has to run as root. It prints to standard error only,
//! because standard output belongs to what the task is asked for (`bench --json`).

use std::ffi::OsStr;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail};

use crate::system;

/// The root of the repository.
pub(crate) fn repository() -> &'static Path {
    let manifest_dir = Path::new(env!("CARGO_MANIFEST_DIR"));
    manifest_dir.parent().unwrap_or(manifest_dir)
}

/// Where cargo puts what it builds, read off our own place in it: `<target>/debug/xtask`.
pub(crate) fn target_dir() -> Result<PathBuf> {
    let own = std::env::current_exe().context("cannot find out where xtask itself is")?;
    let target_dir = own.ancestors().nth(2);
    Ok(target_dir.with_context(|| format!("{} is in no target directory", own.display()))?.into())
}

/// The cargo that started us, in the root of the repository.
pub(crate) fn cargo() -> Command {
    let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or("cargo".into()));
    cargo.current_dir(repository());
    cargo
}

/// Shows `command`, runs it to its end, and fails if it does.
pub(crate) fn run(command: &mut Command) -> Result<()> {
    let line = shown(command);
    eprintln!("$ {line}");
    let status = command.status().with_context(|| format!("cannot start `{line}`"))?;
    if !status.success() {
        bail!("`{line}` failed ({status})");
    }
    Ok(())
}

/// Becomes `command`, so that signals and the exit code are its own. Returns only on failure.
pub(crate) fn replace_self(mut command: Command) -> Result<()> {
    let line = shown(&command);
    eprintln!("$ {line}");
    let error = command.exec();
    Err(error).with_context(|| format!("cannot start `{line}`"))
}

/// `program` as root, with `variables` in its environment, through sudo if we are not root.
pub(crate) fn as_root(program: impl AsRef<OsStr>, variables: &[(&str, &OsStr)]) -> Result<Command> {
    if system::is_root() {
        let mut command = Command::new(program);
        command.envs(variables.iter().copied());
        return Ok(command);
    }
    let mut command = sudo()?;
    command.arg("env");
    for (name, value) in variables {
        let mut assignment = std::ffi::OsString::from(name);
        assignment.push("=");
        assignment.push(value);
        command.arg(assignment);
    }
    command.arg(program);
    Ok(command)
}

/// sudo, which asks for a password only where somebody can type one.
fn sudo() -> Result<Command> {
    if !system::has("sudo") {
        bail!("this needs root, and there is no sudo here: run it again as root");
    }
    let mut sudo = Command::new("sudo");
    if !system::is_interactive() {
        sudo.arg("--non-interactive");
    }
    Ok(sudo)
}

/// The command as one would type it, with programs by their name.
pub(crate) fn shown(command: &Command) -> String {
    let program = Path::new(command.get_program());
    let name = program.file_name().unwrap_or(command.get_program());
    let words = std::iter::once(name).chain(command.get_args());
    words.map(|word| word.to_string_lossy()).collect::<Vec<_>>().join(" ")
}

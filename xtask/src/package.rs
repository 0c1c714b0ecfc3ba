//! `package`: the Debian package and the static tarball, in `target/package`. What each contains is in the metadata of the
//! controller's manifest and in `tarball.rs`; this brings what is built or generated to where they take it from.

use std::fs::{self, File};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Instant;

use anyhow::{Context as _, Result, bail};
use clap::Args;

use crate::setup::{Scope, cargo_deb, setup};
use crate::{command, run};

mod tarball;

/// Make the Debian package and the static tarball
#[derive(Args)]
pub(crate) struct Options {
    /// Only the Debian package, of the binary that the tests use: quick, and not to be shipped
    #[arg(long)]
    debug: bool,
}

/// What is generated for the shells, each in a file of the name that its shell looks for.
const COMPLETIONS: [(&str, &str); 3] = [("bash", "floodwall"), ("zsh", "_floodwall"), ("fish", "floodwall.fish")];

pub(crate) fn package(options: &Options) -> Result<()> {
    let start = Instant::now();
    setup(Scope::Package)?;
    let packages = if options.debug {
        build_debug()?;
        vec![debian(&command::target_dir()?.join("debug/floodwall"), Effort::Quick)?]
    } else {
        run::build(&["floodwall"], &["floodwall"])?;
        let static_binary = tarball::build()?;
        vec![debian(&run::binary("floodwall")?, Effort::Full)?, tarball::pack(&static_binary)?]
    };
    let sums = sums(&packages)?;
    for (package, sum) in packages.iter().zip(sums.lines()) {
        let (sum, _) = sum.split_once(' ').context("sha256sum has said something else")?;
        println!("{}  {} bytes  sha256 {sum}", package.display(), fs::metadata(package)?.len());
    }
    eprintln!("package: done after {} s", start.elapsed().as_secs());
    Ok(())
}

/// How hard a package is compressed.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Effort {
    Quick,
    Full,
}

/// Packs a binary for Debian, with what it generates itself and what is in `deploy` and `docs`.
pub(crate) fn debian(binary: &Path, effort: Effort) -> Result<PathBuf> {
    stage(binary)?;
    let package = directory().join("floodwall.deb");
    let mut deb = Command::new(cargo_deb::program()?);
    deb.current_dir(command::repository()).args(["deb", "--no-build", "--locked", "--quiet", "--package", "floodwall"]);
    deb.arg("--output").arg(&package);
    if effort == Effort::Quick {
        deb.arg("--fast");
    }
    command::run(&mut deb)?;
    Ok(package)
}

/// Where the packages are made.
fn directory() -> PathBuf {
    command::repository().join("target/package")
}

/// Brings the binary, without the symbols that only a debugger wants, and what it generates to where packages take it from.
fn stage(binary: &Path) -> Result<PathBuf> {
    let files = directory().join("files");
    if files.exists() {
        fs::remove_dir_all(&files).context("cannot clear what was packed before")?;
    }
    fs::create_dir_all(files.join("completions"))?;
    let staged = files.join("floodwall");
    command::run(Command::new("strip").arg("-o").arg(&staged).arg(binary))?;
    command::run(Command::new(&staged).arg("man").arg(files.join("man")))?;
    // As Debian wants them; cargo-deb would do it too, in ten seconds.
    command::run(Command::new("gzip").args(["--best", "--no-name", "--recursive"]).arg(files.join("man")))?;
    for (shell, name) in COMPLETIONS {
        let text = said(Command::new(&staged).args(["completions", shell]))?;
        fs::write(files.join("completions").join(name), text)?;
    }
    Ok(files)
}

fn build_debug() -> Result<()> {
    command::run(command::cargo().args(["build", "--locked", "--package", "floodwall"]))
}

/// The checksums, also in a file of their own for who downloads the packages.
fn sums(packages: &[PathBuf]) -> Result<String> {
    let names = packages.iter().filter_map(|package| package.file_name());
    let sums = said(Command::new("sha256sum").current_dir(directory()).args(names))?;
    File::create(directory().join("SHA256SUMS"))?.write_all(&sums)?;
    Ok(String::from_utf8_lossy(&sums).into_owned())
}

/// What a program says on its standard output.
fn said(command: &mut Command) -> Result<Vec<u8>> {
    let line = command::shown(command);
    let output = command.stderr(Stdio::inherit()).output().with_context(|| format!("cannot start `{line}`"))?;
    if !output.status.success() {
        bail!("`{line}` failed ({})", output.status);
    }
    Ok(output.stdout)
}

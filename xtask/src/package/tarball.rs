//! The tarball for every other Linux: one program that needs no library of the host, and the files beside it.
//! It is linked against the C library that comes with the compiler for that, so no other target has to be installed.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result};

use super::{directory, said, stage};
use crate::command;

const TARGET: &str = "x86_64-unknown-linux-gnu";
/// What of the repository goes beside the program: what is copied, and where to.
const FILES: [(&str, &str); 10] = [
    ("README.md", "README.md"),
    ("CHANGELOG.md", "CHANGELOG.md"),
    ("LICENSE-APACHE", "LICENSE-APACHE"),
    ("LICENSE-MIT", "LICENSE-MIT"),
    ("docs", "docs"),
    ("deploy/floodwall.toml", "floodwall.toml"),
    ("deploy/systemd/floodwall.service", "floodwall.service"),
    ("deploy/prometheus", "prometheus"),
    ("deploy/container", "container"),
    ("deploy/kubernetes", "kubernetes"),
];

/// Builds the program. In a target directory of its own: with other flags cargo would build the usual one anew each time.
pub(super) fn build() -> Result<PathBuf> {
    let target_dir = directory().join("build");
    let mut cargo = command::cargo();
    cargo.args(["build", "--release", "--locked", "--package", "floodwall", "--target", TARGET, "--target-dir"]);
    cargo.arg(&target_dir).env("RUSTFLAGS", "-Ctarget-feature=+crt-static");
    command::run(&mut cargo)?;
    Ok(target_dir.join(TARGET).join("release/floodwall"))
}

/// Packs it, after it has run where there is nothing else.
pub(super) fn pack(program: &Path) -> Result<PathBuf> {
    let files = stage(program)?;
    let version = version_alone(&files.join("floodwall"))?;
    for (from, to) in FILES {
        command::run(Command::new("cp").arg("-r").arg(command::repository().join(from)).arg(files.join(to)))?;
    }
    let name = format!("floodwall-{version}-x86_64-linux");
    let tarball = directory().join(format!("{name}.tar.gz"));
    let mut tar = Command::new("tar");
    tar.arg("--create").arg("--gzip").arg("--file").arg(&tarball).arg("--directory").arg(&files);
    // The same files make the same tarball, whoever packs them.
    tar.args(["--sort=name", "--owner=0", "--group=0", "--numeric-owner", "--mtime=@0"]);
    command::run(tar.arg(format!("--transform=s,^\\.,{name},")).arg("."))?;
    Ok(tarball)
}

/// The version, as the program says it in a root without any other file: a program that wants a library does not start there.
fn version_alone(program: &Path) -> Result<String> {
    let root = directory().join("empty");
    fs::create_dir_all(&root)?;
    fs::copy(program, root.join("floodwall"))?;
    let said = said(command::as_root("chroot", &[])?.arg(&root).args(["/floodwall", "--version"]));
    fs::remove_dir_all(&root)?;
    let said = String::from_utf8(said.context("the program does not run where there is nothing else")?)?;
    let version = said.trim().rsplit_once(' ').map(|(_, version)| version.to_owned());
    version.with_context(|| format!("`floodwall --version` has said: {said}"))
}

//! What runs inside the emulated machine: the daemon and the tests, linked statically, with a shell, iproute2 and the
//! libraries that these want, as an archive that a kernel unpacks into its memory. The same for every kernel.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, bail};

use crate::{command, system};

/// The C library comes with the compiler for linking statically, so no other target has to be installed.
const TARGET: &str = "x86_64-unknown-linux-gnu";
/// Asks whether the filter loads: run before all tests.
const PROBE: &str = "probe";
/// The tests, in this order.
pub(super) const TESTS: [&str; 8] =
    ["budget", "table", "differential", "lists", "lifecycle", "replies", "traffic_control", SUSPEND];
/// The one of them that is a program of its own: no machine but an emulated one is put to sleep for a test.
const SUSPEND: &str = "suspend";
/// Those of them that say what they have measured.
const TALKING: [&str; 2] = ["budget", "differential"];
const INIT: &str = include_str!("init.sh");

/// The archive without the kernel's own modules.
pub(super) struct Payload {
    pub(super) archive: PathBuf,
}

/// Builds it, anew where the sources have changed. `only` names the tests that are run; all where it is empty.
pub(super) fn build(vm: &Path, only: &[String]) -> Result<Payload> {
    let programs = compile(&vm.join("build"))?;
    let root = vm.join("root");
    if root.exists() {
        fs::remove_dir_all(&root)?;
    }
    for directory in ["bin", "usr/sbin", "payload.d"] {
        fs::create_dir_all(root.join(directory))?;
    }
    write_program(&root.join("init"), INIT.as_bytes())?;
    let tests = TESTS.into_iter().filter(|test| only.is_empty() || only.iter().any(|wanted| wanted == test));
    let line = |name: &str| format!("{name} {}\n", if TALKING.contains(&name) { "--nocapture" } else { "" });
    fs::write(root.join("payload"), std::iter::once(PROBE).chain(tests).map(line).collect::<String>())?;
    for (name, program) in programs {
        copy(&program, &root.join("payload.d").join(name))?;
    }
    bring(&root, "busybox", "bin/busybox")?;
    bring(&root, "ip", "usr/sbin/ip")?;
    bring(&root, "tc", "usr/sbin/tc")?;
    let payload = Payload { archive: vm.join("payload.cpio") };
    pack(&root, &payload.archive)?;
    Ok(payload)
}

/// The programs by name.
fn compile(target_dir: &Path) -> Result<Vec<(String, PathBuf)>> {
    let mut cargo = command::cargo();
    cargo.args(["build", "--locked", "--target", TARGET, "--message-format", "json-render-diagnostics"]);
    cargo.arg("--target-dir").arg(target_dir);
    cargo.args(["--package", "floodwall", "--package", "floodwall-tests", "--bin", "floodwall"]);
    cargo.args(["--bin", PROBE, "--bin", SUSPEND]);
    cargo.args(TESTS.iter().filter(|name| **name != SUSPEND).flat_map(|name| ["--test", name]));
    cargo.env("RUSTFLAGS", "-Ctarget-feature=+crt-static");
    // An archive in memory: what is not needed there only makes the boot longer.
    cargo.env("CARGO_PROFILE_DEV_DEBUG", "0").env("CARGO_PROFILE_DEV_STRIP", "true");
    eprintln!("$ {}", command::shown(&cargo));
    let output = cargo.stderr(Stdio::inherit()).output().context("cannot start cargo")?;
    if !output.status.success() {
        bail!("the payload does not build: see above");
    }
    let programs = executables(&String::from_utf8_lossy(&output.stdout));
    let is_built = |name: &&str| programs.iter().any(|(built, _)| built == name);
    match TESTS.into_iter().chain([PROBE, "floodwall"]).find(|name| !is_built(name)) {
        Some(missing) => bail!("cargo has not said where it built `{missing}`"),
        None => Ok(programs),
    }
}

/// What cargo says to have built: the value of `executable` in its messages, by its name without cargo's hash.
fn executables(messages: &str) -> Vec<(String, PathBuf)> {
    let value = |line: &str| Some(PathBuf::from(line.split_once("\"executable\":\"")?.1.split('"').next()?));
    let named = |path: PathBuf| {
        let stem = path.file_name()?.to_str()?.to_owned();
        let name = stem.rsplit_once('-').map_or(stem.as_str(), |(name, _)| name).to_owned();
        Some((name, path))
    };
    messages.lines().filter_map(value).filter_map(named).collect()
}

/// A program of this machine, with the libraries that it names.
fn bring(root: &Path, name: &str, place: &str) -> Result<()> {
    let program = system::find(name).with_context(|| format!("`{name}` is missing: run `cargo xtask vm` again"))?;
    copy(&program, &root.join(place))?;
    let listed = Command::new("ldd").arg(&program).output().context("cannot start ldd")?;
    for library in libraries(&String::from_utf8_lossy(&listed.stdout)) {
        let place = root.join(library.strip_prefix("/").unwrap_or(&library));
        fs::create_dir_all(place.parent().unwrap_or(root))?;
        copy(&library, &place)?;
    }
    Ok(())
}

/// The paths in what ldd prints; none for what is linked statically.
fn libraries(listed: &str) -> Vec<PathBuf> {
    let words = listed.lines().filter_map(|line| line.split_whitespace().find(|word| word.starts_with('/')));
    words.map(PathBuf::from).collect()
}

fn copy(from: &Path, to: &Path) -> Result<()> {
    fs::copy(from, to).map(drop).with_context(|| format!("cannot copy {} to {}", from.display(), to.display()))
}

fn write_program(path: &Path, text: &[u8]) -> Result<()> {
    fs::write(path, text)?;
    Ok(fs::set_permissions(path, fs::Permissions::from_mode(0o755))?)
}

/// Packs a directory as kernels unpack it. Several such archives may follow one another.
pub(super) fn pack(directory: &Path, archive: &Path) -> Result<()> {
    let mut shell = Command::new("sh");
    shell.args(["-c", "find . | cpio --create --format=newc --quiet --owner=0:0 >\"$0\""]).arg(archive);
    let packed = shell.current_dir(directory).status().context("cannot start sh")?;
    if !packed.success() {
        bail!("cpio cannot pack {}", directory.display());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_programs_are_found_in_what_cargo_says() {
        let messages = "{\"reason\":\"compiler-artifact\",\"executable\":null}\n\
            {\"target\":{\"name\":\"table\"},\"executable\":\"/t/deps/table-0123abcd\",\"fresh\":true}\n\
            {\"target\":{\"name\":\"floodwall\"},\"executable\":\"/t/floodwall\",\"fresh\":true}\n";
        let expected = [("table", "/t/deps/table-0123abcd"), ("floodwall", "/t/floodwall")];
        assert_eq!(executables(messages), expected.map(|(name, path)| (name.to_owned(), PathBuf::from(path))));
    }

    #[test]
    fn libraries_are_read_off_what_the_linker_lists() {
        let listed = "\tlinux-vdso.so.1 (0x7ff)\n\tlibc.so.6 => /lib/x/libc.so.6 (0x7f)\n\t/lib64/ld.so.2 (0x7f)\n";
        assert_eq!(libraries(listed), [PathBuf::from("/lib/x/libc.so.6"), PathBuf::from("/lib64/ld.so.2")]);
        assert!(libraries("\tnot a dynamic executable\n").is_empty());
    }
}

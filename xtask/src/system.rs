//! What this machine is and has. Reads only, but for the mount of the BPF file system.

use std::io::IsTerminal as _;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::{env, fs};

use anyhow::{Context as _, Result};

use crate::command;

const BPF_FILE_SYSTEM: &str = "/sys/fs/bpf";

/// Whether we run as root. A process owns its directory in /proc under its effective user.
pub(crate) fn is_root() -> bool {
    fs::metadata("/proc/self").is_ok_and(|process| process.uid() == 0)
}

/// Whether somebody sits at a terminal and can be asked.
pub(crate) fn is_interactive() -> bool {
    env::var_os("CI").is_none() && std::io::stdin().is_terminal()
}

/// Whether systemd would start a service that a package brings.
pub(crate) fn runs_systemd() -> bool {
    Path::new("/run/systemd/system").is_dir()
}

/// Whether `program` can be called by its name.
pub(crate) fn has(program: &str) -> bool {
    find(program).is_some()
}

/// Where `program` is. The directories of root's tools count too: a user's PATH may lack them.
pub(crate) fn find(program: &str) -> Option<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    let places = env::split_paths(&path).chain(["/usr/sbin".into(), "/sbin".into()]);
    places.map(|place| place.join(program)).find(|file| is_executable(file))
}

fn is_executable(file: &Path) -> bool {
    fs::metadata(file).is_ok_and(|file| file.is_file() && file.permissions().mode() & 0o111 != 0)
}

/// Mounts the BPF file system, in which the daemon pins its maps, where nobody has.
pub(crate) fn mount_bpf_file_system() -> Result<()> {
    let mounts = fs::read_to_string("/proc/self/mounts").context("cannot read the mount table")?;
    if has_bpf_file_system(&mounts) {
        return Ok(());
    }
    let mut mount = command::as_root("mount", &[])?;
    command::run(mount.args(["-t", "bpf", "bpf", BPF_FILE_SYSTEM]))
        .with_context(|| format!("the daemon pins its maps in {BPF_FILE_SYSTEM}: mount it first"))
}

fn has_bpf_file_system(mounts: &str) -> bool {
    mounts.lines().any(|mount| {
        let mut fields = mount.split(' ').skip(1);
        fields.next() == Some(BPF_FILE_SYSTEM) && fields.next() == Some("bpf")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mounted_bpf_file_system_is_seen() {
        let mounts = "proc /proc proc rw 0 0\nbpf /sys/fs/bpf bpf rw,nosuid 0 0\n";
        assert!(has_bpf_file_system(mounts));
    }

    #[test]
    fn another_file_system_in_its_place_does_not_count() {
        assert!(!has_bpf_file_system("tmpfs /sys/fs/bpf tmpfs rw 0 0\nbpf /mnt bpf rw 0 0\n"));
    }

    #[test]
    fn programs_are_found_by_name_only_if_they_can_be_run() {
        assert!(has("sh"));
        assert!(!has("no-such-program-of-floodwall"));
        assert!(!is_executable(Path::new("/etc/passwd")));
    }
}

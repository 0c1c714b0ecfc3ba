//! A root to install packages in: the system of this machine below, and what is written above it in memory, so that
//! everything that was written can be listed, and is gone with the value. A root made anew by debootstrap would be cleaner
//! by nothing that matters here, and take a download and minutes.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};

use anyhow::{Context, Result, ensure};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::unistd::chroot;

use crate::netns::Namespace;

static COUNT: AtomicU32 = AtomicU32::new(0);

/// The root. `/run` and `/tmp` are empty in it, and its BPF file system is its own.
#[derive(Debug)]
pub struct Root {
    memory: PathBuf,
    /// In the order in which they were mounted.
    mounts: Vec<PathBuf>,
}

/// What has become of a path of the system below.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Written {
    /// It was not there before.
    New,
    /// It has been written to, or something in it.
    Changed,
    /// It is there no longer.
    Removed,
}

impl Root {
    /// Makes one.
    ///
    /// # Errors
    /// Where it cannot be mounted: it takes root.
    pub fn new() -> Result<Self> {
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let memory = std::env::temp_dir().join(format!("floodwall-root-{}-{number}", std::process::id()));
        fs::create_dir(&memory)?;
        let mut root = Self { memory: memory.clone(), mounts: Vec::new() };
        root.mount("tmpfs", &memory, None)?;
        let [upper, work, merged] = ["upper", "work", "merged"].map(|name| memory.join(name));
        for directory in [&upper, &work, &merged] {
            fs::create_dir(directory)?;
        }
        let layers = format!("lowerdir=/,upperdir={},workdir={}", upper.display(), work.display());
        root.mount("overlay", &merged, Some(&layers))?;
        // A sysfs of its own: what is mounted in one that is shared would show on the host.
        for (kind, place) in
            [("proc", "proc"), ("sysfs", "sys"), ("bpf", "sys/fs/bpf"), ("tmpfs", "run"), ("tmpfs", "tmp")]
        {
            root.mount(kind, &merged.join(place), None)?;
        }
        let devices = merged.join("dev");
        mount(Some("/dev"), &devices, None::<&str>, MsFlags::MS_BIND, None::<&str>).context("bind /dev")?;
        root.mounts.push(devices);
        Ok(root)
    }

    fn mount(&mut self, kind: &str, place: &Path, options: Option<&str>) -> Result<()> {
        mount(Some(kind), place, Some(kind), MsFlags::empty(), options)
            .with_context(|| format!("mount {kind} at {}", place.display()))?;
        self.mounts.push(place.to_owned());
        Ok(())
    }

    /// A path inside, as it is from outside.
    pub fn path(&self, inside: &str) -> PathBuf {
        self.memory.join("merged").join(inside.trim_start_matches('/'))
    }

    /// A command that will run inside, in a network namespace.
    ///
    /// # Errors
    /// Where the namespace is gone.
    pub fn command(&self, namespace: &Namespace, program: &str) -> Result<Command> {
        let mut command = namespace.command(program)?;
        let merged = self.path("/");
        command.env_clear().env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin").env("DEBIAN_FRONTEND", "noninteractive");
        let enter = move || {
            chroot(&merged)?;
            std::env::set_current_dir("/")
        };
        // SAFETY: chroot and chdir are async-signal-safe, and the path was allocated before the fork.
        unsafe { command.pre_exec(enter) };
        Ok(command)
    }

    /// What has been written so far, by its path.
    ///
    /// # Errors
    /// Where it cannot be listed.
    pub fn written(&self) -> Result<BTreeMap<PathBuf, Written>> {
        let mut written = BTreeMap::new();
        self.list(Path::new(""), &mut written)?;
        Ok(written)
    }

    fn list(&self, directory: &Path, written: &mut BTreeMap<PathBuf, Written>) -> Result<()> {
        for entry in fs::read_dir(self.memory.join("upper").join(directory))? {
            let entry = entry?;
            let path = directory.join(entry.file_name());
            let (metadata, below) = (entry.metadata()?, Path::new("/").join(&path));
            // How an overlay says that what is below is not there.
            let removed = metadata.file_type().is_char_device() && metadata.rdev() == 0;
            let is_below = below.symlink_metadata().is_ok();
            let what = match (removed, is_below) {
                (true, false) => continue,
                (true, true) => Written::Removed,
                (false, true) => Written::Changed,
                (false, false) => Written::New,
            };
            if metadata.is_dir() {
                self.list(&path, written)?;
            }
            written.insert(below, what);
        }
        Ok(())
    }
}

impl Drop for Root {
    fn drop(&mut self) {
        for place in self.mounts.iter().rev() {
            let _ = umount2(place, MntFlags::MNT_DETACH);
        }
        let _ = fs::remove_dir(&self.memory);
    }
}

/// The package under test.
///
/// # Errors
/// Where nobody has said where it is.
pub fn package() -> Result<PathBuf> {
    let hint = "`cargo xtask test` makes the package; or `cargo xtask package --debug`, and name it in FLOODWALL_DEB";
    let path = PathBuf::from(std::env::var_os("FLOODWALL_DEB").context(hint)?);
    ensure!(path.is_file(), "there is no {}: {hint}", path.display());
    Ok(path)
}

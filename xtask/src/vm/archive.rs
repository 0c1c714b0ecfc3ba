//! Debian's archive with suites that this machine does not have: an apt of its own beside the system's, which learns
//! nothing of it. The mirror is the one that the machine is configured for; only the suites are others.

use std::cmp::Ordering;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};

use super::{NEWEST, mirror};
use crate::setup::step::Step;

/// What every kernel package is found by.
const META_PACKAGE: &str = "linux-image-amd64";
/// Lists that are younger are not asked for again.
const LISTS_LAST: Duration = Duration::from_secs(24 * 3_600);

/// The archive, and the kernels in it.
pub(super) struct Archive {
    directory: PathBuf,
    versions: Vec<Version>,
}

/// A version of the kernel packages, such as `6.1.192-2`.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Version(String);

impl Version {
    pub(super) fn new(text: &str) -> Self {
        Self(text.to_owned())
    }

    pub(super) fn text(&self) -> &str {
        &self.0
    }

    /// The numbers that features go by.
    pub(super) fn major_minor(&self) -> (u32, u32) {
        let mut numbers = self.0.split(['.', '-']).map_while(|number| number.parse().ok());
        (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0))
    }

    fn begins_with(&self, wanted: &str) -> bool {
        let rest = self.0.strip_prefix(wanted);
        rest.is_some_and(|rest| wanted.ends_with(|end: char| !end.is_ascii_digit()) || !rest.starts_with(is_digit))
    }
}

fn is_digit(letter: char) -> bool {
    letter.is_ascii_digit()
}

impl Archive {
    /// Asks the mirror what it has, unless it was asked lately.
    pub(super) fn open(vm: &Path) -> Result<Self> {
        let directory = vm.join("apt");
        let mut archive = Self { directory, versions: vec![] };
        archive.prepare()?;
        if archive.is_old() {
            archive.update()?;
        }
        archive.versions = archive.known()?;
        if archive.versions.is_empty() {
            bail!("the mirror has no {META_PACKAGE}: a Debian mirror is needed in /etc/apt/sources.list.d");
        }
        Ok(archive)
    }

    /// All kernels, the newest first.
    pub(super) fn versions(&self) -> &[Version] {
        &self.versions
    }

    /// The newest kernel whose version begins so.
    pub(super) fn find(&self, wanted: &str) -> Option<&Version> {
        self.versions.iter().find(|version| wanted == NEWEST || version.begins_with(wanted))
    }

    /// Where kernels of this archive are kept.
    pub(super) fn kernels(&self) -> PathBuf {
        self.directory.with_file_name("kernels")
    }

    /// Downloads the packages of a kernel into `into`.
    pub(super) fn download(&self, version: &Version, into: &Path) -> Result<()> {
        let packages = self.packages(version)?;
        let mut apt = self.apt("apt-get");
        apt.arg("download").args(packages).current_dir(into);
        Step::new(format!("downloading the kernel {}", version.text()), apt).run()
    }

    fn prepare(&self) -> Result<()> {
        for directory in ["state/lists/partial", "cache/archives/partial", "etc"] {
            fs::create_dir_all(self.directory.join(directory))?;
        }
        let status = self.directory.join("state/status");
        fs::write(&status, "").with_context(|| format!("cannot write {}", status.display()))
    }

    fn is_old(&self) -> bool {
        let asked = fs::metadata(self.directory.join("state/asked")).and_then(|asked| asked.modified());
        !asked.is_ok_and(|asked| asked.elapsed().is_ok_and(|age| age < LISTS_LAST))
    }

    /// A suite that the mirror does not have leaves the others good, so what is found decides.
    fn update(&self) -> Result<()> {
        fs::write(self.directory.join("etc/sources.list"), mirror::sources()?)?;
        let mut apt = self.apt("apt-get");
        apt.arg("update");
        if let Err(error) = Step::new("asking the mirror for other suites", apt).run() {
            eprintln!("vm: going on with the suites that there are: {error:#}");
        }
        Ok(fs::write(self.directory.join("state/asked"), "")?)
    }

    fn apt(&self, program: &str) -> Command {
        let mut apt = Command::new(program);
        let at = |name| self.directory.join(name).display().to_string();
        for (option, value) in [
            ("Dir::State", at("state")),
            ("Dir::State::status", at("state/status")),
            ("Dir::Cache", at("cache")),
            ("Dir::Etc::sourcelist", at("etc/sources.list")),
            ("Dir::Etc::sourceparts", "-".into()),
            ("Acquire::Languages", "none".into()),
            // The sandbox's user may not read a developer's directory; signatures are checked all the same.
            ("APT::Sandbox::User", String::new()),
        ] {
            apt.arg("-o").arg(format!("{option}={value}"));
        }
        apt.args(["-o", "Acquire::IndexTargets::deb::DEP-11::DefaultEnabled=false"]);
        apt.env("LC_ALL", "C");
        apt
    }

    fn show(&self, packages: &str) -> Result<String> {
        let shown = self.apt("apt-cache").args(["show", "--all-versions", packages]).output()?;
        Ok(String::from_utf8_lossy(&shown.stdout).into_owned())
    }

    fn known(&self) -> Result<Vec<Version>> {
        let shown = self.show(META_PACKAGE)?;
        let mut versions: Vec<_> = fields(&shown, "Version").map(Version::new).collect();
        versions.sort_by(|one, other| newer_first(one.text(), other.text()));
        versions.dedup();
        Ok(versions)
    }

    /// The packages that have the kernel and its modules, as `name=version`: newer kernels are parted into several.
    fn packages(&self, version: &Version) -> Result<Vec<String>> {
        let mut packages = vec![format!("{META_PACKAGE}={}", version.text())];
        let mut seen = 0;
        while let Some(package) = packages.get(seen) {
            let shown = self.show(package)?;
            for needed in fields(&shown, "Depends").flat_map(|depends| kernel_packages(depends, version.text())) {
                if !packages.contains(&needed) {
                    packages.push(needed);
                }
            }
            seen += 1;
        }
        Ok(packages)
    }
}

fn fields<'t>(shown: &'t str, name: &'t str) -> impl Iterator<Item = &'t str> {
    shown.lines().filter_map(move |line| line.strip_prefix(name)?.strip_prefix(": "))
}

/// Those of the same version that have a part of the kernel.
fn kernel_packages<'t>(depends: &'t str, version: &'t str) -> impl Iterator<Item = String> + 't {
    let of_kernel =
        |name: &str| ["linux-image-", "linux-binary-", "linux-modules-"].iter().any(|p| name.starts_with(p));
    depends.split(", ").filter_map(move |needed| {
        let (name, condition) = needed.split_once(' ')?;
        (of_kernel(name) && condition == format!("(= {version})")).then(|| format!("{name}={version}"))
    })
}

/// As dpkg orders versions.
fn newer_first(one: &str, other: &str) -> Ordering {
    let is = |relation| {
        let compared = Command::new("dpkg").args(["--compare-versions", one, relation, other]).status();
        compared.is_ok_and(|status| status.success())
    };
    match (is("gt"), is("lt")) {
        (true, _) => Ordering::Less,
        (_, true) => Ordering::Greater,
        _ => Ordering::Equal,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_version_is_asked_for_by_whole_numbers() {
        let version = Version::new("6.12.107-1");
        assert_eq!(version.major_minor(), (6, 12));
        assert!(version.begins_with("6.12") && version.begins_with("6.12.107-1"));
        assert!(!version.begins_with("6.1") && !version.begins_with("5.10"));
    }

    #[test]
    fn the_parts_of_a_kernel_are_followed_and_nothing_else() {
        let depends = "kmod, linux-base-7.3.4-amd64 (= 7.3.4-1), linux-binary-7.3.4-amd64 (= 7.3.4-1)";
        let packages: Vec<_> = kernel_packages(depends, "7.3.4-1").collect();
        assert_eq!(packages, ["linux-binary-7.3.4-amd64=7.3.4-1"]);
    }
}

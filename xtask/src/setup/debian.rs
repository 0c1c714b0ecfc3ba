//! Debian packages, by apt. No service that a package brings is left running or enabled.

use std::ffi::OsStr;
use std::process::Command;

use anyhow::{Context as _, Result, bail};

use crate::setup::step::Step;
use crate::{command, system};

/// Services of the packages above. The tests start programs of their own.
const SERVICES: [&str; 1] = ["prometheus.service"];

/// Installs `packages`, or says what the administrator has to do.
pub(crate) fn install(packages: &[&str]) -> Result<()> {
    if !system::has("apt-get") {
        bail!("{} missing, and no apt-get here: {}", packages.join(", "), ADVICE);
    }
    if !system::is_root() && !system::has("sudo") {
        bail!("packages are missing and this is not root, so do as root:\n{}", by_hand(packages));
    }
    update();
    let services = Services::held_back(packages)?;
    let installed = install_now(packages);
    services.release()?;
    installed.with_context(|| format!("apt-get did not install {}; {ADVICE}", packages.join(", ")))
}

const ADVICE: &str = "install the like of them another way: `rustup component add rust-src` for \
    the compiler, bpf-linker 0.13 in PATH or named by BPF_LINKER, iproute2 and prometheus";

fn by_hand(packages: &[&str]) -> String {
    let install = format!("apt-get install --no-install-recommends {}", packages.join(" "));
    format!("  apt-get update\n  {install}\nand then run this again")
}

/// One source that does not answer leaves the others good, so the installation decides.
fn update() {
    let updated = apt().map(|mut apt| {
        apt.arg("update");
        Step::new("asking for the list of packages", apt)
    });
    if let Err(error) = updated.and_then(Step::run) {
        eprintln!("setup: going on with the lists that there are: {error:#}");
    }
}

fn install_now(packages: &[&str]) -> Result<()> {
    let mut apt = apt()?;
    apt.args(["install", "-y", "--no-install-recommends"]).args(packages);
    Step::new(format!("installing {}", packages.join(", ")), apt).run()
}

fn apt() -> Result<Command> {
    let quiet = [
        ("DEBIAN_FRONTEND", OsStr::new("noninteractive")),
        // What sysvinit's scripts go by: in the single-user runlevel no service is started.
        ("RUNLEVEL", OsStr::new("1")),
    ];
    let mut apt = command::as_root("apt-get", &quiet)?;
    apt.args(["-q", "-o", "DPkg::Lock::Timeout=120"]);
    Ok(apt)
}

/// Services that systemd must not start while their package is installed, nor later.
struct Services {
    units: Vec<&'static str>,
}

impl Services {
    fn held_back(packages: &[&str]) -> Result<Self> {
        let units = if system::runs_systemd() { units_of(packages) } else { vec![] };
        let services = Self { units };
        // In /run only: a machine that loses power half-way has them unmasked again.
        services.systemctl(&["mask", "--runtime"])?;
        Ok(services)
    }

    fn release(&self) -> Result<()> {
        self.systemctl(&["unmask", "--runtime"])?;
        self.systemctl(&["disable", "--now"])
    }

    fn systemctl(&self, verb: &[&str]) -> Result<()> {
        if self.units.is_empty() {
            return Ok(());
        }
        let mut systemctl = command::as_root("systemctl", &[])?;
        systemctl.args(verb).args(&self.units);
        Step::new(format!("keeping {} from running: {}", self.units.join(", "), verb[0]), systemctl).run()
    }
}

fn units_of(packages: &[&str]) -> Vec<&'static str> {
    let of_a_package = |unit: &&str| packages.iter().any(|package| unit.starts_with(package));
    SERVICES.into_iter().filter(of_a_package).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_service_is_held_back_only_if_its_package_is_installed() {
        assert_eq!(units_of(&["iproute2", "prometheus"]), ["prometheus.service"]);
        assert!(units_of(&["iproute2"]).is_empty());
    }

    #[test]
    fn without_root_the_user_is_told_the_exact_commands() {
        let advice = by_hand(&["iproute2", "prometheus"]);
        assert!(advice.contains("\n  apt-get install --no-install-recommends iproute2 prometheus\n"));
    }
}

//! Which suites are asked of which address. The addresses are those that the machine is configured for, so that whoever
//! has a mirror of his own uses it here too; only the suites are others.

use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, Result, bail};

/// Each part of the archive with the suites that are asked for: the kernels 5.10, 6.1, 6.12, and what is newest.
const SUITES: [&str; 6] = ["bullseye", "bookworm", "bookworm-backports", "trixie", "trixie-backports", "sid"];
const SECURITY_SUITES: [&str; 3] = ["bullseye-security", "bookworm-security", "trixie-security"];
const KEYRING: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";

/// The lines of a `sources.list`.
pub(super) fn sources() -> Result<String> {
    let targets = Command::new("apt-get")
        .args(["indextargets", "--format", "$(REPO_URI) $(RELEASE)", "Created-By: Packages"])
        .output()
        .context("cannot start apt-get, which knows the mirror: this task needs Debian")?;
    derived(&String::from_utf8_lossy(&targets.stdout))
}

/// The suites to ask for, at the addresses that apt knows: `address suite` lines.
fn derived(targets: &str) -> Result<String> {
    let signed = if Path::new(KEYRING).exists() { format!("[signed-by={KEYRING}] ") } else { String::new() };
    let mut lines = vec![];
    for line in targets.lines() {
        let Some((address, suite)) = line.split_once(' ') else { continue };
        let name = suite.split('-').next().unwrap_or(suite);
        let suites = match suite.strip_prefix(name) {
            Some("") if SUITES.contains(&name) || name == "stable" => &SUITES[..],
            Some("-security") if SECURITY_SUITES.contains(&suite) || name == "stable" => &SECURITY_SUITES[..],
            _ => continue,
        };
        lines.extend(suites.iter().map(|suite| format!("deb {signed}{address} {suite} main\n")));
    }
    lines.sort();
    lines.dedup();
    if lines.is_empty() {
        bail!("apt has no suite of Debian configured: add a Debian mirror in /etc/apt/sources.list.d");
    }
    Ok(lines.concat())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_suites_are_others() {
        let targets = "http://mirror.example/debian/ bookworm\nhttp://mirror.example/debian/ bookworm-updates\n\
            http://mirror.example/security/ bookworm-security\nhttps://other.example/ nodistro\n";
        let Ok(sources) = derived(targets) else { panic!("no sources") };
        assert!(sources.contains("http://mirror.example/debian/ trixie-backports main\n"), "{sources}");
        assert!(sources.contains("http://mirror.example/security/ bullseye-security main\n"), "{sources}");
        assert_eq!(sources.lines().count(), SUITES.len() + SECURITY_SUITES.len());
    }

    #[test]
    fn without_debian_there_is_nothing_to_ask() {
        assert!(derived("http://mirror.example/ubuntu/ jammy\n").is_err());
    }
}

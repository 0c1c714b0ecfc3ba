//! `setup`: makes a fresh machine ready to build, run or test, and is quick where it is ready.
//! It looks for what is needed and not for how it came: a tool from any source will do.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use clap::Args;

use crate::{check, system, toolchain};

pub(crate) mod cargo_deb;
mod debian;
mod linker;
mod rustup;
pub(crate) mod step;
pub(crate) mod validators;

/// Install what building, testing and linting need
#[derive(Args)]
pub(crate) struct Options {
    /// Only what building needs, without the tools of the lab, the tests and the linter
    #[arg(long)]
    build_only: bool,
}

impl Options {
    pub(crate) fn scope(&self) -> Scope {
        if self.build_only { Scope::Build } else { Scope::Everything }
    }
}

/// What the machine is made ready for. Each includes those before it; but packing is not for the lab, and peers are for the
/// bench alone.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Scope {
    Build,
    Package,
    Lab,
    Test,
    Everything,
    Emulator,
    Peers,
}

impl Scope {
    fn includes(self, other: Self) -> bool {
        match self {
            Self::Lab => other == Self::Build || other == Self::Lab,
            Self::Peers => Self::Lab.includes(other) || other == Self::Peers,
            _ => other <= self,
        }
    }
}

/// A program that the host has to have, and the Debian package that brings it.
struct Tool {
    program: &'static str,
    package: &'static str,
    scope: Scope,
}

/// No C compiler among them: without one, cargo could not have linked this very program.
const TOOLS: [Tool; 13] = [
    Tool { program: "systemd-analyze", package: "systemd", scope: Scope::Everything },
    Tool { program: "dpkg-shlibdeps", package: "dpkg-dev", scope: Scope::Package },
    Tool { program: "ip", package: "iproute2", scope: Scope::Lab },
    Tool { program: "prometheus", package: "prometheus", scope: Scope::Test },
    Tool { program: "promtool", package: "prometheus", scope: Scope::Test },
    Tool { program: "qemu-system-x86_64", package: "qemu-system-x86", scope: Scope::Emulator },
    Tool { program: "busybox", package: "busybox-static", scope: Scope::Emulator },
    Tool { program: "cpio", package: "cpio", scope: Scope::Emulator },
    Tool { program: "xz", package: "xz-utils", scope: Scope::Emulator },
    Tool { program: "zstd", package: "zstd", scope: Scope::Emulator },
    Tool { program: "xdp-filter", package: "xdp-tools", scope: Scope::Peers },
    Tool { program: "nft", package: "nftables", scope: Scope::Peers },
    Tool { program: "iptables", package: "iptables", scope: Scope::Peers },
];

/// Worth a word on how long it took.
const NOTICEABLE: Duration = Duration::from_secs(2);

/// Installs what is missing for `scope`.
pub(crate) fn setup(scope: Scope) -> Result<()> {
    let start = Instant::now();
    let validators = if scope.includes(Scope::Everything) { validators::packages() } else { vec![] };
    let packages = [compiler_packages(scope), linker::packages(), tool_packages(scope), validators].concat();
    if !packages.is_empty() {
        debian::install(&packages)?;
    }
    if toolchain::linker().is_err() {
        linker::build()?;
    }
    if scope.includes(Scope::Package) {
        cargo_deb::install()?;
    }
    if scope.includes(Scope::Everything) {
        validators::install()?;
    }
    confirm(scope)?;
    match start.elapsed() {
        elapsed if elapsed > NOTICEABLE => eprintln!("setup: ready after {} s", elapsed.as_secs()),
        _ => eprintln!("setup: ready"),
    }
    Ok(())
}

fn tool_packages(scope: Scope) -> Vec<&'static str> {
    let mut packages: Vec<_> = missing_tools(scope).map(|tool| tool.package).collect();
    packages.dedup();
    packages
}

fn missing_tools(scope: Scope) -> impl Iterator<Item = &'static Tool> {
    TOOLS.iter().filter(move |tool| scope.includes(tool.scope) && !system::has(tool.program))
}

/// A compiler for the kernel half comes from rustup where it can, else from Debian.
fn compiler_packages(scope: Scope) -> Vec<&'static str> {
    let compiler = toolchain::compiler().or_else(|_| rustup::install_compiler());
    let has_clippy = compiler.as_ref().is_ok_and(|compiler| check::clippy(compiler).exists());
    let mut packages = vec![];
    if compiler.is_err() {
        packages.extend(["rustc-web", "rust-web-src"]);
    }
    // The kernel half is linted by its own compiler's clippy, which reads the same `core`.
    let from_debian = compiler.map_or(true, |compiler| compiler.sysroot == Path::new("/usr"));
    if scope.includes(Scope::Everything) && from_debian && !has_clippy {
        packages.push("rust-web-clippy");
    }
    packages
}

/// Everything that is missing still, reported at once.
fn confirm(scope: Scope) -> Result<()> {
    let mut findings: Vec<String> =
        missing_tools(scope).map(|tool| format!("`{}` (Debian package {})", tool.program, tool.package)).collect();
    findings.extend(toolchain::compiler().err());
    findings.extend(toolchain::linker().err());
    if findings.is_empty() {
        return Ok(());
    }
    bail!("set-up is not complete, still missing:\n  - {}", findings.join("\n  - "))
}

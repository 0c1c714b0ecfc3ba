//! A compiler for the kernel half by rustup: the current one with the source of its library, or a
//! pinned one where the current is too new for the linker. Either can be refused, by a mirror that
//! has not all of it or by no network at all, and then `setup` looks elsewhere.

use std::process::Command;
use std::time::Duration;

use crate::setup::step::Step;
use crate::{system, toolchain};

/// Three megabytes: more time than this, and there is no network to speak of.
const COMPONENT_LIMIT: Duration = Duration::from_secs(60);
const TOOLCHAIN_LIMIT: Duration = Duration::from_secs(600);

/// Adds what the search of `toolchain` looks for, and searches again.
pub(crate) fn install_compiler() -> Result<toolchain::Compiler, String> {
    if system::has("rustup") {
        if current_is_too_new() { install_pinned() } else { add_to_current() }
    }
    toolchain::compiler()
}

fn current_is_too_new() -> bool {
    toolchain::llvm_major("rustc".as_ref()).is_none_or(|llvm| llvm > toolchain::LLVM_MAJOR)
}

fn add_to_current() {
    let mut rustup = Command::new("rustup");
    rustup.args(["component", "add", "rust-src", "clippy"]);
    attempt(Step::new("adding the library source to the compiler", rustup).within(COMPONENT_LIMIT));
}

fn install_pinned() {
    let mut rustup = Command::new("rustup");
    rustup.args(["toolchain", "install", toolchain::PINNED_TOOLCHAIN, "--profile", "minimal"]);
    rustup.args(["--component", "rust-src", "--component", "clippy", "--no-self-update"]);
    let title = format!("installing the compiler {}", toolchain::PINNED_TOOLCHAIN);
    attempt(Step::new(title, rustup).within(TOOLCHAIN_LIMIT));
}

fn attempt(step: Step) {
    if let Err(error) = step.run() {
        eprintln!("setup: not with rustup, then: {error:#}");
    }
}

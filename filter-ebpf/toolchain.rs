//! Which compiler and linker build the kernel half, and a cargo command that uses them.
//! Shared by path between the build step (`build_object.rs`) and `xtask`, whose `setup` installs
//! what this search misses. It installs nothing itself.

use std::env;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// The target of the kernel half. Its `core` cannot be downloaded, only built.
pub(crate) const TARGET: &str = "bpfel-unknown-none";
/// What every cargo command for the kernel half takes.
pub(crate) const TARGET_ARGS: [&str; 3] = ["-Zbuild-std=core", "--target", TARGET];
/// The newest LLVM that a compiler may have: the linker reads its bitcode, and has this one.
pub(crate) const LLVM_MAJOR: u32 = 22;
/// The toolchain that `cargo xtask setup` installs where the current one is too new.
pub(crate) const PINNED_TOOLCHAIN: &str = "1.95.0";
/// The linker that `cargo xtask setup` installs, below its cache directory.
pub(crate) const LINKER: &str = "bpf-linker-0.13.0";

/// A compiler that can build `core`: its library comes with the source.
pub(crate) struct Compiler {
    /// Where the compiler and its library are installed.
    pub(crate) sysroot: PathBuf,
}

impl Compiler {
    /// The compiler itself, without the proxy that may stand in front of it.
    pub(crate) fn rustc(&self) -> PathBuf {
        self.sysroot.join("bin/rustc")
    }

    /// The cargo that came with the compiler, else the one that runs now.
    pub(crate) fn cargo(&self) -> PathBuf {
        let own = self.sysroot.join("bin/cargo");
        if own.exists() { own } else { variable("CARGO", "cargo") }
    }
}

/// The compiler for the kernel half, or what is missing and what mends it.
pub(crate) fn compiler() -> Result<Compiler, String> {
    if let Some(chosen) = env::var_os("EBPF_RUSTC") {
        let unusable = format!("EBPF_RUSTC={} has no library source (rust-src)", chosen.display());
        return with_source(Command::new(chosen)).ok_or(unusable);
    }
    let candidates = [
        Command::new(variable("RUSTC", "rustc")),
        toolchain(PINNED_TOOLCHAIN),
        toolchain("nightly"),
        Command::new("/usr/bin/rustc"),
    ];
    let missing = format!(
        "the BPF programs need a rustc with its library source (rust-src) and an LLVM up to \
         {LLVM_MAJOR}: run `cargo xtask setup`, or set EBPF_RUSTC"
    );
    candidates.into_iter().filter_map(with_source).find(is_old_enough).ok_or(missing)
}

fn toolchain(name: &str) -> Command {
    let mut rustc = Command::new("rustup");
    rustc.args(["run", name, "rustc"]).env("RUSTUP_AUTO_INSTALL", "0");
    rustc
}

fn with_source(mut rustc: Command) -> Option<Compiler> {
    let answer = rustc.args(["--print", "sysroot"]).stderr(Stdio::null()).output().ok()?;
    let sysroot = PathBuf::from(String::from_utf8(answer.stdout).ok()?.trim());
    sysroot.join("lib/rustlib/src/rust/library/core").exists().then_some(Compiler { sysroot })
}

fn is_old_enough(compiler: &Compiler) -> bool {
    llvm_major(&compiler.rustc()).is_some_and(|llvm| llvm <= LLVM_MAJOR)
}

/// The LLVM inside `rustc`; none if there is no such compiler.
pub(crate) fn llvm_major(rustc: &Path) -> Option<u32> {
    let answer = Command::new(rustc).arg("-vV").stderr(Stdio::null()).output().ok()?;
    let version = String::from_utf8(answer.stdout).ok()?;
    let llvm = version.lines().find_map(|line| line.strip_prefix("LLVM version: "))?;
    llvm.split('.').next()?.parse().ok()
}

/// The linker for the kernel half, or what is missing and what mends it. The one that setup
/// installed goes before any in PATH, whose LLVM may be too old.
pub(crate) fn linker() -> Result<PathBuf, String> {
    if let Some(chosen) = env::var_os("BPF_LINKER") {
        return Ok(chosen.into());
    }
    let path = env::var_os("PATH").unwrap_or_default();
    cache_dir()
        .map(|cache| cache.join(LINKER).join("bin"))
        .into_iter()
        .chain(env::split_paths(&path))
        .map(|dir| dir.join("bpf-linker"))
        .find(|linker| linker.is_file())
        .ok_or("the BPF programs need bpf-linker: run `cargo xtask setup`, or set BPF_LINKER".into())
}

/// Where the tools live that only Floodwall needs.
pub(crate) fn cache_dir() -> Option<PathBuf> {
    let home = || Some(PathBuf::from(env::var_os("HOME")?).join(".cache"));
    let cache = env::var_os("XDG_CACHE_HOME").map(PathBuf::from).or_else(home)?;
    Some(cache.join("floodwall"))
}

/// A cargo `program` in `dir` that works for the kernel half and hears nothing of the host build.
pub(crate) fn command(program: &Path, compiler: &Compiler, linker: &Path, dir: &Path) -> Command {
    let mut command = Command::new(program);
    let names = env::vars_os().map(|(name, _)| name);
    for name in names.filter(|name| speaks_of_the_host_build(&name.to_string_lossy())) {
        command.env_remove(name);
    }
    // An empty wrapper wins over one in the user's own cargo configuration, too.
    command.env("RUSTC_WRAPPER", "").env("RUSTC_WORKSPACE_WRAPPER", "");
    // Only here: in a cargo configuration it would reach every build script of the host.
    command.env("RUSTC", compiler.rustc()).env("RUSTC_BOOTSTRAP", "1");
    command.env("CARGO_TARGET_BPFEL_UNKNOWN_NONE_LINKER", linker);
    command.env("CARGO_ENCODED_RUSTFLAGS", rustflags(compiler, dir).join("\u{1f}"));
    command.current_dir(dir);
    command
}

fn speaks_of_the_host_build(variable: &str) -> bool {
    let of_the_machine =
        ["CARGO_HOME", "CARGO_HTTP_", "CARGO_MAKEFLAGS", "CARGO_NET_", "CARGO_REGISTR", "CARGO_TERM_", "RUSTUP_HOME"];
    (variable.starts_with("CARGO") || variable.starts_with("RUST"))
        && !of_the_machine.iter().any(|kept| variable.starts_with(kept))
}

/// Debug information is what the BTF is made from. No path of this machine gets into the object.
fn rustflags(compiler: &Compiler, dir: &Path) -> [String; 7] {
    let home = variable("HOME", "/").join(".cargo");
    let cargo_home = env::var_os("CARGO_HOME").map_or(home, PathBuf::from);
    let flag = |flag: &str| flag.to_owned();
    let hide = |dir: &Path, name| format!("--remap-path-prefix={}={name}", dir.display());
    [
        flag("-Cdebuginfo=2"),
        flag("-Ctarget-cpu=v3"),
        flag("-Clink-arg=--btf"),
        // The parser's unaligned reads become one load each; the verifier allows them.
        flag("-Clink-arg=--cpu-features=+allows-misaligned-mem-access"),
        hide(&cargo_home, "/cargo"),
        hide(&compiler.sysroot, "/rust"),
        hide(dir.parent().unwrap_or(dir), "/floodwall"),
    ]
}

fn variable(name: &str, default: &str) -> PathBuf {
    env::var_os(name).map_or_else(|| default.into(), PathBuf::from)
}

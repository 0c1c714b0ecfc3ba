//! The build step of the kernel half: builds one BPF program for the crate that embeds it.
//! `controller/build.rs` and `tests/build.rs` include this file by path. It installs nothing and
//! downloads nothing but locked crates: what is missing comes with `cargo xtask setup`.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::{env, fs};

mod toolchain;

/// Builds `bin` and leaves the path of its object in the compile-time variable `variable`.
pub(crate) fn embed(bin: &str, variable: &str, features: &[&str]) {
    match object(bin, features) {
        Ok(path) => println!("cargo::rustc-env={variable}={}", path.display()),
        Err(reason) => println!("cargo::error={reason}"),
    }
}

fn object(bin: &str, features: &[&str]) -> Result<PathBuf, String> {
    // Asked when run, not when compiled: two checkouts may share a target directory.
    let manifest = env::var_os("CARGO_MANIFEST_DIR").ok_or("only a build script has CARGO_MANIFEST_DIR")?;
    let crate_dir = Path::new(&manifest).with_file_name("filter-ebpf");
    let out_dir = PathBuf::from(env::var_os("OUT_DIR").ok_or("only a build script has OUT_DIR")?);
    rebuild_when_changed(&crate_dir);
    let built = match env::var_os("EBPF_OBJECT_DIR") {
        Some(prebuilt) => prebuilt_object(&PathBuf::from(prebuilt).join(bin))?,
        None => build(&crate_dir, &target_dir(&out_dir), bin, features)?,
    };
    // A copy of its own: a build with other features overwrites the one in the shared directory.
    let object = out_dir.join(format!("{bin}.o"));
    fs::copy(&built, &object).map_err(|error| format!("cannot copy {}: {error}", built.display()))?;
    Ok(object)
}

fn rebuild_when_changed(crate_dir: &Path) {
    for path in ["src", "Cargo.toml", "Cargo.lock", "../common/src", "../common/Cargo.toml"] {
        println!("cargo::rerun-if-changed={}", crate_dir.join(path).display());
    }
    for variable in ["EBPF_OBJECT_DIR", "EBPF_RUSTC", "BPF_LINKER", "XDG_CACHE_HOME"] {
        println!("cargo::rerun-if-env-changed={variable}");
    }
}

fn prebuilt_object(path: &Path) -> Result<PathBuf, String> {
    println!("cargo::rerun-if-changed={}", path.display());
    let missing = || format!("EBPF_OBJECT_DIR is set, but {} is not a file", path.display());
    path.is_file().then(|| path.to_owned()).ok_or_else(missing)
}

/// One directory for all embedding crates, beside the host's profiles: `core` is built once.
fn target_dir(out_dir: &Path) -> PathBuf {
    let host_target = out_dir.ancestors().find(|dir| dir.join("CACHEDIR.TAG").exists());
    host_target.unwrap_or(out_dir).join("ebpf")
}

fn build(dir: &Path, target_dir: &Path, bin: &str, features: &[&str]) -> Result<PathBuf, String> {
    let compiler = toolchain::compiler()?;
    let linker = toolchain::linker()?;
    println!("cargo::rerun-if-changed={}", linker.display());
    let mut cargo = toolchain::command(&compiler.cargo(), &compiler, &linker, dir);
    cargo.args(["build", "--release", "--locked"]).args(toolchain::TARGET_ARGS);
    cargo.args(["--bin", bin, "--features", &features.join(",")]);
    cargo.arg("--target-dir").arg(target_dir);
    // Standard output belongs to the directives of the build script.
    let status = cargo.stdin(Stdio::null()).stdout(Stdio::null()).status();
    let status = status.map_err(|error| format!("cannot start {cargo:?}: {error}"))?;
    if !status.success() {
        println!("cargo::error=the BPF program `{bin}` does not build; its compiler says below why");
        // Only for a build script that ends like this, cargo shows what went to standard error.
        std::process::exit(1);
    }
    Ok(target_dir.join(toolchain::TARGET).join("release").join(bin))
}

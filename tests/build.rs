//! Embeds the programs that only measurements load, such as the bare drop that all else is held against, and builds the clock
//! that only tests preload.

#[path = "../filter-ebpf/build_object.rs"]
mod build_object;

use std::path::PathBuf;
use std::process::Command;

fn main() {
    build_object::embed("bench", "BENCH_OBJECT", &[]);
    build_wall_clock();
}

/// A library for the loader of dynamic programs, by the C compiler that links this program too.
fn build_wall_clock() {
    let source = "src/clock.c";
    println!("cargo::rerun-if-changed={source}");
    println!("cargo::rerun-if-env-changed=CC");
    let library = PathBuf::from(std::env::var_os("OUT_DIR").unwrap_or_default()).join("wall_clock.so");
    let compiler = std::env::var_os("CC").unwrap_or_else(|| "cc".into());
    let built =
        Command::new(&compiler).args(["-shared", "-fPIC", "-O1", "-Wall", "-o"]).arg(&library).arg(source).status();
    assert!(built.is_ok_and(|exit| exit.success()), "{compiler:?} does not build {source}");
    println!("cargo::rustc-env=WALL_CLOCK_LIBRARY={}", library.display());
}

//! `vm`: boots unmodified Debian kernels in an emulator, loads the filter on each, and runs the tests that depend on
//! the kernel: what its verifier takes, and that the loaded filter does the same everywhere. Emulated without KVM, so
//! it measures no speed. It is no part of the continuous integration: it downloads some 400 MB at first.

use std::fs;
use std::time::Instant;

use anyhow::{Context as _, Result, bail};
use clap::Args;

use crate::command;
use crate::setup::{Scope, setup};

mod archive;
mod console;
mod guest;
mod kernel;
mod mirror;
mod modules;
mod payload;
mod report;

use archive::Archive;
use report::Row;

/// The oldest kernel that has to take the filter, as the README promises it. Those below are booted to see how they
/// refuse it, and fail nothing.
const FLOOR: (u32, u32) = (5, 15);
/// The oldest kernel that has to take the program for frames in fragments, too.
const FRAGS_FLOOR: (u32, u32) = (5, 18);
/// The beginnings of versions that are asked for where nobody says others.
const KERNELS: [&str; 4] = ["5.10", "6.1", "6.12", NEWEST];
const NEWEST: &str = "newest";

/// Boot Debian's kernels in an emulator, and run the filter's tests on each
#[derive(Args)]
pub(crate) struct Options {
    /// The beginning of a version, such as 6.1, or `newest`; may be given several times
    #[arg(long, value_name = "VERSION", default_values = KERNELS)]
    kernel: Vec<String>,
    /// Only these tests, beside the question whether the filter loads, which is always asked; may be given several times
    #[arg(long, value_name = "TEST", value_parser = payload::TESTS)]
    only: Vec<String>,
    /// Boot them locked down, as machines with secure boot may be
    #[arg(long, value_parser = ["integrity", "confidentiality"])]
    lockdown: Option<String>,
    /// Only say which kernels the mirror has
    #[arg(long)]
    list: bool,
    /// Print the result as JSON on standard output
    #[arg(long)]
    json: bool,
}

pub(crate) fn vm(options: &Options) -> Result<()> {
    if !cfg!(target_arch = "x86_64") {
        bail!("the kernels and the payload are for x86-64: run this on such a machine");
    }
    setup(Scope::Emulator)?;
    let directory = command::target_dir()?.join("vm");
    fs::create_dir_all(&directory).with_context(|| format!("cannot make {}", directory.display()))?;
    let archive = Archive::open(&directory)?;
    if options.list {
        list(&archive);
        return Ok(());
    }
    let payload = payload::build(&directory, &options.only)?;
    let lockdown = options.lockdown.as_deref();
    let rows: Vec<Row> = options.kernel.iter().map(|wanted| examine(&archive, &payload, wanted, lockdown)).collect();
    if options.json {
        println!("{}", report::json(&rows));
    } else {
        println!("{}", report::table(&rows));
    }
    let failed: Vec<_> = rows.iter().filter(|row| !row.is_good()).map(|row| row.asked.as_str()).collect();
    if !failed.is_empty() {
        bail!("not good on {}; what the machines said is in {}", failed.join(", "), directory.display());
    }
    Ok(())
}

fn list(archive: &Archive) {
    for version in archive.versions() {
        let asked: Vec<_> = KERNELS.into_iter().filter(|wanted| archive.find(wanted) == Some(version)).collect();
        println!("{:<24} {}", version.text(), asked.join(" "));
    }
}

/// Boots one kernel. What goes wrong is part of the result: the other kernels are still looked at.
fn examine(archive: &Archive, payload: &payload::Payload, wanted: &str, lockdown: Option<&str>) -> Row {
    let start = Instant::now();
    let Some(version) = archive.find(wanted) else {
        eprintln!(
            "vm: {wanted}: no suite of the configured Debian mirror has such a kernel; `--list` says which it has"
        );
        return Row::missing(wanted);
    };
    let console = kernel::prepare(archive, version).and_then(|kernel| guest::run(&kernel, payload, lockdown));
    let mut row = match console {
        Ok(console) if lockdown.is_some_and(|wanted| console.lockdown.as_deref() != Some(wanted)) => {
            Row::failed(wanted, version, format!("not locked down, but {:?}", console.lockdown))
        }
        Ok(console) => Row::new(wanted, version, console),
        Err(error) => {
            eprintln!("vm: {wanted}: {error:#}");
            Row::failed(wanted, version, format!("{error:#}"))
        }
    };
    row.seconds = start.elapsed().as_secs();
    row
}

//! `probe`: whether the kernel that runs takes the filter, and how many instructions its verifier walks. It loads both
//! programs on maps of their own, attaches nothing, and says for each what came of it: `load linear 12345`. It
//! fails where the program for linear frames is refused, as nothing can be protected then.

use std::process::ExitCode;

use anyhow::Result;
use floodwall::dataplane::{Dataplane, Pins};
use floodwall_tests::kernel::{Bpffs, Variant, descriptor_figure};

fn main() -> ExitCode {
    let mut exit = ExitCode::SUCCESS;
    for variant in Variant::ALL {
        let name = format!("{variant:?}").to_lowercase();
        match load(variant) {
            Ok(Some(verified)) => println!("load {name} {verified}"),
            // Kernels before 5.16 do not say.
            Ok(None) => println!("load {name} ?"),
            Err(error) => {
                println!("load {name} refused: {}", format!("{error:#}").replace('\n', " "));
                if variant == Variant::Linear {
                    exit = ExitCode::FAILURE;
                }
            }
        }
    }
    exit
}

fn load(variant: Variant) -> Result<Option<u64>> {
    let bpffs = Bpffs::mount()?;
    let dataplane = Dataplane::open_or_create(Pins::new(bpffs.path()))?;
    let program = dataplane.load_for_test(variant == Variant::Frags, false)?;
    Ok(descriptor_figure(program, "verified_insns").ok())
}

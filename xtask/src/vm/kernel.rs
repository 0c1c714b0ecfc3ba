//! A kernel as the emulator takes it: its image and a few modules, unpacked from Debian's packages and kept. Nothing is
//! installed, and nothing in it is changed but the compression of the modules.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result};

use super::archive::{Archive, Version};
use super::modules;
use crate::setup::step::Step;

/// What the tests need; what these depend on comes with them. The last two see what leaves where there is no TCX.
const MODULES: [&str; 4] = ["veth", "bridge", "sch_ingress", "cls_bpf"];

/// A kernel that is ready to boot.
pub(super) struct Kernel {
    /// Where it is kept, with the modules in `modules/`.
    pub(super) directory: PathBuf,
    pub(super) version: String,
}

impl Kernel {
    pub(super) fn image(&self) -> PathBuf {
        self.directory.join("vmlinuz")
    }

    pub(super) fn modules(&self) -> PathBuf {
        self.directory.join("modules")
    }

    /// The file that names the modules that it was made for.
    fn wanted(&self) -> PathBuf {
        self.directory.join("wanted")
    }

    fn is_complete(&self) -> bool {
        fs::read_to_string(self.wanted()).is_ok_and(|wanted| wanted == MODULES.join(" "))
    }
}

/// Fetches a kernel, unless it is here.
pub(super) fn prepare(archive: &Archive, version: &Version) -> Result<Kernel> {
    let directory = archive.kernels().join(version.text().replace(['~', '+', ':'], "-"));
    let kernel = Kernel { directory, version: version.text().to_owned() };
    if kernel.is_complete() {
        return Ok(kernel);
    }
    let unpacked = kernel.directory.join("unpacked");
    if kernel.directory.exists() {
        fs::remove_dir_all(&kernel.directory)?;
    }
    fs::create_dir_all(&unpacked).with_context(|| format!("cannot make {}", unpacked.display()))?;
    archive.download(version, &kernel.directory)?;
    unpack(&kernel.directory, &unpacked)?;
    modules::collect(&unpacked, &kernel.modules(), &MODULES)?;
    fs::rename(image_in(&unpacked)?, kernel.image())?;
    fs::remove_dir_all(&unpacked)?;
    // Last, as it is what says that all is here.
    fs::write(kernel.wanted(), MODULES.join(" "))?;
    Ok(kernel)
}

fn unpack(packages: &Path, into: &Path) -> Result<()> {
    for file in fs::read_dir(packages)?.flatten().map(|file| file.path()) {
        if file.extension().is_some_and(|extension| extension == "deb") {
            let mut dpkg = Command::new("dpkg-deb");
            dpkg.arg("--extract").arg(&file).arg(into);
            let name = file.file_name().unwrap_or_default().to_string_lossy().into_owned();
            Step::new(format!("unpacking {name}"), dpkg).run()?;
            fs::remove_file(&file)?;
        }
    }
    Ok(())
}

fn image_in(unpacked: &Path) -> Result<PathBuf> {
    let images = modules::files(&unpacked.join("boot"))?.into_iter().chain(modules::files(&unpacked.join("usr"))?);
    let is_image = |file: &PathBuf| file.file_name().is_some_and(|name| name.to_string_lossy().starts_with("vmlinuz"));
    images.into_iter().find(is_image).context("the packages have no kernel image: has their layout changed?")
}

//! The modules of an unpacked kernel that the tests need, with those that these depend on, in the order to load them.
//! Read from the modules themselves: the index that `modprobe` reads is only made where a kernel is installed.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail};

/// The file that names the modules in the order to load them.
pub(super) const ORDER: &str = "order";

/// Puts `wanted` and what they depend on into `into`, not compressed. What is built into the kernel is none.
pub(super) fn collect(unpacked: &Path, into: &Path, wanted: &[&str]) -> Result<()> {
    fs::create_dir_all(into)?;
    let modules = files(unpacked)?.into_iter().filter_map(|file| Some((module_name(&file)?, file)));
    let mut collection = Collection { modules: modules.collect(), into: into.to_owned(), order: vec![] };
    for name in wanted {
        collection.add(name)?;
    }
    fs::write(into.join(ORDER), collection.order.join("\n") + "\n")?;
    Ok(())
}

struct Collection {
    modules: BTreeMap<String, PathBuf>,
    into: PathBuf,
    order: Vec<String>,
}

impl Collection {
    fn add(&mut self, name: &str) -> Result<()> {
        let Some(file) = self.modules.get(name).filter(|_| !self.order.iter().any(|known| known == name)) else {
            return Ok(());
        };
        let module = decompressed(file)?;
        fs::write(self.into.join(name), &module)?;
        for needed in depends(&module) {
            self.add(&needed)?;
        }
        self.order.push(name.to_owned());
        Ok(())
    }
}

/// `veth` of `…/veth.ko.xz`. Dashes count as underscores.
fn module_name(file: &Path) -> Option<String> {
    let (name, compression) = file.file_name()?.to_str()?.split_once(".ko")?;
    ["", ".xz", ".zst"].contains(&compression).then(|| name.replace('-', "_"))
}

fn decompressed(file: &Path) -> Result<Vec<u8>> {
    let program = match file.extension().and_then(|extension| extension.to_str()) {
        Some("xz") => "xz",
        Some("zst") => "zstd",
        _ => return fs::read(file).with_context(|| format!("cannot read {}", file.display())),
    };
    let output = Command::new(program).args(["--decompress", "--stdout"]).arg(file).output();
    let output = output.with_context(|| format!("cannot start {program}"))?;
    if !output.status.success() {
        bail!("{program} cannot read {}: {}", file.display(), String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(output.stdout)
}

/// What a module says that it needs: `depends=` and a list, between zeros.
fn depends(module: &[u8]) -> Vec<String> {
    let mut strings = module.split(|byte| *byte == 0);
    let list = strings.find_map(|string| string.strip_prefix(b"depends="));
    let list = String::from_utf8_lossy(list.unwrap_or_default()).into_owned();
    list.split(',').filter(|name| !name.is_empty()).map(|name| name.replace('-', "_")).collect()
}

/// All files in a directory and below; none where there is no directory.
pub(super) fn files(directory: &Path) -> Result<Vec<PathBuf>> {
    let mut files = vec![];
    let mut directories = vec![directory.to_owned()];
    while let Some(directory) = directories.pop().filter(|directory| directory.exists()) {
        for entry in fs::read_dir(&directory)? {
            let entry = entry?;
            if entry.file_type()?.is_dir() { directories.push(entry.path()) } else { files.push(entry.path()) }
        }
    }
    Ok(files)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_needs_of_a_module_are_read_from_it() {
        assert_eq!(depends(b"\x7fELF\0license=GPL\0depends=stp,x-llc\0name=bridge\0"), ["stp", "x_llc"]);
        assert!(depends(b"license=GPL\0depends=\0name=veth\0").is_empty());
    }

    #[test]
    fn modules_are_known_by_name_compressed_or_not() {
        let name = |file: &str| module_name(Path::new(file));
        assert_eq!(name("/a/virtio-net.ko"), Some("virtio_net".into()));
        assert_eq!(name("/a/veth.ko.xz"), Some("veth".into()));
        assert_eq!(name("/a/veth.ko.sig"), None);
        assert_eq!(name("/a/modules.order"), None);
    }
}

//! Files that are written whole or not at all.

use std::fs::File;
use std::io::{self, Write};
use std::path::Path;

/// Puts a file with these bytes in the place of the one that may be there, by one rename, once it is on the disk: a machine that
/// loses its power has the one or the other.
///
/// # Errors
/// Where it cannot be written; the one before stays.
pub(crate) fn replace(path: &Path, bytes: impl AsRef<[u8]>) -> io::Result<()> {
    if let Some(directory) = path.parent() {
        std::fs::create_dir_all(directory)?;
    }
    let aside = path.with_extension("new");
    let mut file = File::create(&aside)?;
    file.write_all(bytes.as_ref())?;
    file.sync_all()?;
    std::fs::rename(aside, path)
}

//! Files that are written whole or not at all.

use std::io;
use std::path::Path;

/// Puts a file with this text in the place of the one that may be there, by one rename.
///
/// # Errors
/// Where it cannot be written; the one before stays.
pub(crate) fn replace(path: &Path, text: &str) -> io::Result<()> {
    if let Some(directory) = path.parent() {
        std::fs::create_dir_all(directory)?;
    }
    let aside = path.with_extension("new");
    std::fs::write(&aside, text)?;
    std::fs::rename(aside, path)
}

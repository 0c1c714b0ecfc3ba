//! The last configuration that came in force, kept beside the history: what a daemon starts with whose file is gone.
//!
//! Only where the file is missing. One that is there and wrong is somebody's mistake of now, and is told as such.

use std::io;
use std::path::{Path, PathBuf};

use super::read::{DEFAULT_PATH, read_once};
use super::{Configuration, Source};
use crate::files;

/// What the first line begins with, and its end: the file that it was read from is between them.
const HEAD: &str = "# The configuration of floodwall that came in force last, version 1, of ";
const TAIL: &str = ". Written by the daemon, over all that stands here.";

/// Where it is kept.
#[derive(Clone, Debug)]
pub struct LastGood(PathBuf);

impl LastGood {
    /// Beside the history.
    pub fn beside(history: &Path) -> Self {
        Self(history.with_file_name("last-good.toml"))
    }

    /// The file that it is kept in.
    pub fn path(&self) -> &Path {
        &self.0
    }

    /// Keeps what has come in force. Lists in files of their own are named, not copied.
    ///
    /// # Errors
    /// Where it cannot be written; the one before stays.
    pub fn keep(&self, source: &Source) -> io::Result<()> {
        let Some(file) = source.files.first().filter(|file| **file != self.0) else { return Ok(()) };
        let text = toml::to_string(&source.configuration).map_err(io::Error::other)?;
        files::replace(&self.0, format!("{HEAD}{}{TAIL}\n{text}", file.display()))
    }

    /// What was kept of this file, where that is gone. The mode is left out: whoever lost a file has not said that drops are to be
    /// real.
    pub fn instead_of(&self, named: Option<&Path>) -> Option<Source> {
        let file = named.unwrap_or(Path::new(DEFAULT_PATH));
        if file.exists() {
            return None;
        }
        let text = read_once(&self.0).ok()?;
        let of = text.lines().next()?.strip_prefix(HEAD)?.strip_suffix(TAIL)?;
        if Path::new(of) != file {
            return None;
        }
        let mut source = Source::read_alone(&self.0, &text).ok()?;
        source.configuration = Configuration { mode: None, ..source.configuration };
        Some(source)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::configuration::ModeName;

    #[test]
    fn what_was_in_force_is_kept_whole_and_found_again_without_its_file() {
        let directory = std::env::temp_dir().join(format!("floodwall-last-good-{}", std::process::id()));
        std::fs::create_dir_all(&directory).expect("made");
        let (file, kept) = (directory.join("floodwall.toml"), LastGood::beside(&directory.join("history.ndjson")));
        std::fs::write(
            &file,
            "mode = \"enforce\"\ninterfaces = [\"eth0\"]\nmonitors = [\"192.0.2.9\"]\n[limits.udp]\npps = 7\nsubnet = { pps = 70 }\n\
             [limits.icmp]\npps = \"off\"\n[policy]\nbare-syn = \"drop\"\n[services.web]\nports = [\"tcp/80\"]\n[cookies]\nmode = \"auto\"\n\
             [signatures.x]\naction = \"drop\"\nproto = \"udp\"\nsrc_port = 53\n[deny]\nprefixes = [\"203.0.113.0/24\"]\n[respond_to]\nudp-flood = \"off\"\n",
        )
        .expect("written");
        assert!(kept.instead_of(Some(&file)).is_none(), "nothing was kept yet");
        let source = Source::read(&file).expect("right");
        kept.keep(&source).expect("kept");
        assert!(kept.instead_of(Some(&file)).is_none(), "the file is there");
        std::fs::remove_file(&file).expect("removed");
        let found = kept.instead_of(Some(&file)).expect("found");
        assert_eq!(source.configuration.mode, Some(ModeName::Enforce));
        assert_eq!(found.configuration, Configuration { mode: None, ..source.configuration });
        // It does not keep itself, and is nobody else's.
        kept.keep(&found).expect("nothing to do");
        assert!(kept.instead_of(Some(&file)).is_some());
        assert!(kept.instead_of(Some(&directory.join("other.toml"))).is_none());
        std::fs::remove_dir_all(directory).expect("removed");
    }
}

//! What is usual, what good traffic is like, and who was here: kept in files beside the history, for the daemon that comes after this one.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use tracing::warn;

use crate::dataplane::monotonic_ns;
use crate::detect::{Baseline, Detector, Week};
use crate::files;
use crate::snapshot::unix_s;

/// How often they are written, where there is anything new.
const EVERY_NS: u64 = 300_000_000_000;

/// The files, and when they were written last.
pub(super) struct Kept {
    usual: PathBuf,
    good: PathBuf,
    networks: PathBuf,
    written_ns: u64,
}

impl Kept {
    pub(super) fn beside(history: &Path) -> Self {
        let beside = |name| history.with_file_name(name);
        Self {
            usual: beside("baseline.json"),
            good: beside("good-packets.bin"),
            networks: beside("networks.bin"),
            written_ns: monotonic_ns(),
        }
    }

    /// A detector that knows what the daemon before this one has learned.
    pub(super) fn detector(&self) -> Detector {
        let usual = learned(&self.usual, |bytes| Baseline::of_json(std::str::from_utf8(bytes).ok()?));
        let good = learned(&self.good, |bytes| Week::of_bytes(bytes, unix_s() / 3_600));
        let mut detector = Detector::knowing(usual.unwrap_or_default(), good.unwrap_or_default());
        learned(&self.networks, |bytes| detector.take_over(bytes, unix_s(), monotonic_ns()));
        detector
    }

    /// Writes them, where that is due. Of what is good there is nothing new while anything goes on.
    pub(super) fn keep(&mut self, detector: &mut Detector, now_ns: u64) {
        if now_ns.saturating_sub(self.written_ns) < EVERY_NS {
            return;
        }
        self.written_ns = now_ns;
        let usual = serde_json::to_vec(detector.baseline()).unwrap_or_default();
        let good = detector.week().changed();
        let networks = detector.networks(unix_s());
        for (path, bytes) in [(&self.usual, Some(usual)), (&self.good, good), (&self.networks, Some(networks))] {
            if let Some(Err(error)) = bytes.map(|bytes| files::replace(path, bytes)) {
                warn!(%error, path = %path.display(), "what was learned cannot be kept");
            }
        }
    }
}

/// What is in a file. What cannot be read is put aside, and learned anew.
fn learned<T>(path: &Path, read: impl FnOnce(&[u8]) -> Option<T>) -> Option<T> {
    let bytes = match std::fs::read(path) {
        Ok(bytes) => bytes,
        Err(error) => {
            if error.kind() != ErrorKind::NotFound {
                warn!(%error, path = %path.display(), "what was learned cannot be read, and is learned anew");
            }
            return None;
        }
    };
    let learned = read(&bytes);
    if learned.is_none() {
        let mut aside = path.as_os_str().to_owned();
        aside.push(".bad");
        let kept = std::fs::rename(path, &aside).is_ok();
        let (path, aside) = (path.display(), Path::new(&aside).display());
        warn!(%path, %aside, kept, "that is nothing of this version: learned anew");
    }
    learned
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_be_read_is_put_aside_and_learned_anew() {
        let directory = std::env::temp_dir().join(format!("floodwall-kept-{}", std::process::id()));
        std::fs::create_dir_all(&directory).unwrap();
        let mut kept = Kept::beside(&directory.join("history.ndjson"));
        let files = || {
            let mut names: Vec<_> =
                std::fs::read_dir(&directory).unwrap().map(|file| file.unwrap().file_name()).collect();
            names.sort();
            names
        };
        let mut detector = kept.detector();
        assert!(files().is_empty(), "there was nothing");
        kept.keep(&mut detector, kept.written_ns + EVERY_NS - 1);
        assert!(files().is_empty(), "not yet");
        kept.keep(&mut detector, kept.written_ns + EVERY_NS);
        assert_eq!(files(), ["baseline.json", "networks.bin"], "nothing good was seen");
        std::fs::write(directory.join("good-packets.bin"), "half of it").unwrap();
        std::fs::write(directory.join("baseline.json"), "{}").unwrap();
        kept.detector();
        assert_eq!(files(), ["baseline.json.bad", "good-packets.bin.bad", "networks.bin"]);
        std::fs::write(directory.join("networks.bin"), "what is this").unwrap();
        kept.detector();
        assert_eq!(files(), ["baseline.json.bad", "good-packets.bin.bad", "networks.bin.bad"]);
        std::fs::remove_dir_all(&directory).unwrap();
    }
}

//! Who did what: a line for each change, appended to a file that nobody here ever rewrites.
//!
//! The file is a help, not a lock: where it cannot be written the change holds all the same, and the log says so.

use std::fs::{self, File};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::net::IpAddr;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use nix::unistd::{Uid, User, getpid, getuid};
use serde::{Deserialize, Serialize};

use crate::configuration::Change;

/// Where it is unless somebody says otherwise.
pub const DEFAULT_PATH: &str = "/var/lib/floodwall/history.ndjson";
/// What the entry of a drill begins with, and that of somebody who was reached by it.
pub const DRILL: &str = "drill: began";
/// See [`DRILL`].
pub const DRILL_RECEIVED: &str = "drill: received";
/// A file that has grown to this is put aside as `….1`, in place of the one before.
const LONGEST: u64 = 8 << 20;
/// What is read of it at most.
const READ: u64 = 1 << 20;

/// A change.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// When, in seconds of the Unix epoch.
    pub unix_s: u64,
    /// Who, by the credentials of his process; the name, where there is one.
    pub user: String,
    /// His number.
    pub uid: u32,
    /// His process.
    pub pid: i32,
    /// Through the daemon's socket, by the maps without a daemon, or by the daemon itself.
    pub through: String,
    /// From where he is logged in, or showed the token, where that is to be seen.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<IpAddr>,
    /// What he did.
    pub change: String,
    /// What that has changed, from what, and to what. A list has its sizes and the first prefixes.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub details: Vec<Change>,
    /// Why, in his words.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub why: Option<String>,
}

/// Whose word a change was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// Somebody's, by a verb, the API, the file or a signal.
    Operator,
    /// The daemon's own: what others had undone, and trials that ended.
    Daemon,
    /// What detection has found.
    Detection,
}

impl Origin {
    /// All of them, by their number.
    pub const ALL: [Self; 3] = [Self::Operator, Self::Daemon, Self::Detection];

    /// The name that leaves the process.
    pub const fn label(self) -> &'static str {
        match self {
            Self::Operator => "operator",
            Self::Daemon => "daemon",
            Self::Detection => "detection",
        }
    }
}

impl Entry {
    /// A change of now, by whoever runs this process.
    pub fn of_this_process(through: &str, change: impl Into<String>) -> Self {
        Self::new(getuid().as_raw(), getpid().as_raw(), through, change)
    }

    /// A change of now, by whoever has the token of the API and is there. No user, and no process.
    pub fn of_token(from: IpAddr, change: impl Into<String>) -> Self {
        let unix_s = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
        let (user, through) = ("api token".to_owned(), format!("tcp {from}"));
        let (from, change) = (Some(from), change.into());
        Self { unix_s, user, uid: u32::MAX, pid: 0, through, from, change, details: Vec::new(), why: None }
    }

    /// A change of now.
    pub fn new(uid: u32, pid: i32, through: &str, change: impl Into<String>) -> Self {
        let unix_s = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
        let user = User::from_uid(Uid::from_raw(uid)).ok().flatten().map_or_else(|| uid.to_string(), |user| user.name);
        let (through, change) = (through.to_owned(), change.into());
        Self { unix_s, user, uid, pid, through, from: None, change, details: Vec::new(), why: None }
    }

    /// The same, by somebody who is logged in from there.
    #[must_use]
    pub fn from(self, from: Option<IpAddr>) -> Self {
        Self { from, ..self }
    }

    /// The same, with what it has changed.
    #[must_use]
    pub fn with(self, details: Vec<Change>) -> Self {
        Self { details, ..self }
    }

    /// The same, for this reason, where there is none yet.
    #[must_use]
    pub fn because(self, why: Option<String>) -> Self {
        Self { why: self.why.or(why).filter(|why| !why.is_empty()), ..self }
    }

    /// Whose word it was.
    pub fn origin(&self) -> Origin {
        match self.through.as_str() {
            "daemon" | "clock" => Origin::Daemon,
            "detection" => Origin::Detection,
            _ => Origin::Operator,
        }
    }
}

/// Appends a line.
///
/// # Errors
/// Where the file cannot be written.
pub fn append(path: &Path, entry: &Entry) -> io::Result<()> {
    if let Some(directory) = path.parent() {
        fs::create_dir_all(directory)?;
    }
    if fs::metadata(path).is_ok_and(|metadata| metadata.len() > LONGEST) {
        fs::rename(path, put_aside(path))?;
    }
    let mut line = serde_json::to_vec(entry)?;
    line.push(b'\n');
    // One write, so that lines of two processes stay apart.
    File::options().create(true).append(true).mode(0o640).open(path)?.write_all(&line)
}

/// Where the file goes that has grown long.
pub fn put_aside(path: &Path) -> PathBuf {
    path.with_extension("ndjson.1")
}

/// The last so many changes, the latest last. Lines that are none, as after a full disk, are left out.
///
/// # Errors
/// Where the file cannot be read; where it is not there, nothing has been changed.
pub fn last(path: &Path, number: usize) -> io::Result<Vec<Entry>> {
    let mut file = match File::open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        opened => opened?,
    };
    let length = file.metadata()?.len();
    file.seek(SeekFrom::Start(length.saturating_sub(READ)))?;
    let mut bytes = Vec::new();
    file.take(READ).read_to_end(&mut bytes)?;
    let text = String::from_utf8_lossy(&bytes);
    let entries: Vec<_> = text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect();
    Ok(entries[entries.len().saturating_sub(number)..].to_vec())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn changes_are_appended_and_read_back() {
        let directory = std::env::temp_dir().join(format!("floodwall-history-{}", std::process::id()));
        let path = directory.join("history.ndjson");
        assert_eq!(last(&path, 5).unwrap(), []);
        let entries: Vec<_> = (0..7).map(|pid| Entry::new(0, pid, "socket", format!("mode {pid}"))).collect();
        entries.iter().for_each(|entry| append(&path, entry).unwrap());
        assert_eq!(last(&path, 3).unwrap(), entries[4..]);
        assert_eq!((last(&path, 100).unwrap().len(), entries[0].user.as_str()), (7, "root"));
        // Half a line, as a full disk leaves it, costs that line and no other.
        File::options().append(true).open(&path).unwrap().write_all(b"{\"unix_s\": 1, \"us\n").unwrap();
        append(&path, &entries[0]).unwrap();
        let said = File::options().append(true).open(&path);
        // As versions before this one wrote it.
        let old = br#"{"unix_s":1,"user":"root","uid":0,"pid":1,"through":"socket","change":"stop"}"#;
        said.unwrap().write_all(&[&old[..], b"\n"].concat()).unwrap();
        assert_eq!(last(&path, 1).unwrap()[0].change, "stop");
        append(&path, &entries[0]).unwrap();
        assert_eq!(last(&path, 3).unwrap()[0], entries[0]);
        // A long one is put aside.
        File::options().write(true).open(&path).unwrap().set_len(LONGEST + 1).unwrap();
        append(&path, &entries[1]).unwrap();
        assert_eq!(last(&path, 9).unwrap(), [entries[1].clone()]);
        assert!(directory.join("history.ndjson.1").exists());
        fs::remove_dir_all(directory).unwrap();
    }
}

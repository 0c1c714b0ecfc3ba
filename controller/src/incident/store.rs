//! Where incidents are kept: one SQLite file, that anybody can open with `sqlite3`. A record is written whole or not at all, and what
//! happened stands in a table of its own, in the order in which it did, for whoever follows it.
//!
//! The daemon is the only writer. A file that is broken is put aside, and a new one begun; one of a newer version is left as it is, and
//! nothing is kept then. Neither is anything that protection waits for.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rusqlite::{Connection, ErrorCode, OpenFlags, OptionalExtension as _, Transaction, params};
use serde::{Deserialize, Serialize};
use tracing::warn;

use super::{Event, Incident};

/// Version of the tables: that of the file.
const TABLES: u32 = 1;
/// How long somebody who reads may keep the daemon from writing.
const PATIENCE: Duration = Duration::from_millis(100);
/// Events that are handed out at once.
const BATCH: u32 = 1_000;

const MAKE: &str = "
    CREATE TABLE incident (
        id TEXT PRIMARY KEY,
        began_unix_ms INTEGER NOT NULL,
        state TEXT NOT NULL,
        verdict TEXT NOT NULL,
        record TEXT NOT NULL
    );
    CREATE TABLE event (
        number INTEGER PRIMARY KEY AUTOINCREMENT,
        incident TEXT NOT NULL REFERENCES incident (id),
        unix_ms INTEGER NOT NULL,
        by TEXT NOT NULL,
        what TEXT NOT NULL
    );
    CREATE INDEX event_of ON event (incident);
";

/// Why a record cannot be written or read.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// By the database.
    #[error("{}: {source}", path.display())]
    Database {
        /// The file.
        path: PathBuf,
        /// What it says.
        source: rusqlite::Error,
    },
    /// By a floodwall that is newer than this one.
    #[error("{} is of a newer floodwall (version {found} of its tables, this one knows {TABLES})", path.display())]
    Newer {
        /// The file.
        path: PathBuf,
        /// Its version.
        found: u32,
    },
    /// The record itself, or a file of an earlier version.
    #[error(transparent)]
    Record(#[from] io::Error),
}

/// Something that happened in an incident, for whoever follows.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Happened {
    /// Version of this shape.
    pub schema_version: u32,
    /// Its number: the next ones are higher.
    pub number: i64,
    /// In which incident.
    pub incident: String,
    /// Where that stands now.
    pub state: String,
    /// What that is now.
    pub verdict: String,
    /// When, by whom, and what.
    #[serde(flatten)]
    pub event: Event,
}

/// The records.
#[derive(Debug)]
pub struct Store {
    path: PathBuf,
    /// Where earlier versions kept them, a file each.
    files: PathBuf,
    connection: Mutex<Option<Connection>>,
}

impl Store {
    /// Those beside a history.
    pub fn beside(history: &Path) -> Self {
        let directory = history.parent().unwrap_or(Path::new("."));
        Self { path: directory.join("incidents.db"), files: directory.join("incidents"), connection: Mutex::default() }
    }

    /// Writes one, whole or not at all, and what has happened in it since the last time.
    ///
    /// # Errors
    /// Where it cannot be written; the one before stays.
    pub fn save(&self, incident: &Incident) -> Result<(), Error> {
        let mut connection = self.connection();
        let result = match &mut *connection {
            Some(connection) => self.write(connection, incident),
            none => self.open().and_then(|opened| self.write(none.insert(opened), incident)),
        };
        if result.is_err() {
            // Opened anew the next time: the disk may have room again, or the file be gone.
            *connection = None;
        }
        result
    }

    /// One of them; `None` where there is none of this name.
    ///
    /// # Errors
    /// Where it cannot be read.
    pub fn load(&self, id: &str) -> Result<Option<Incident>, Error> {
        Ok(self.all()?.into_iter().find(|incident| incident.id == id))
    }

    /// All of them, the latest last. What is no record is left out.
    ///
    /// # Errors
    /// Where the file cannot be read; where there is none, there were none but those of earlier versions.
    pub fn all(&self) -> Result<Vec<Incident>, Error> {
        self.records("SELECT record FROM incident ORDER BY began_unix_ms, id")
    }

    /// Those that are not over, the latest last.
    ///
    /// # Errors
    /// As [`Self::all`].
    pub fn open_ones(&self) -> Result<Vec<Incident>, Error> {
        self.records("SELECT record FROM incident WHERE state <> 'resolved' ORDER BY began_unix_ms, id")
    }

    fn records(&self, query: &str) -> Result<Vec<Incident>, Error> {
        let Some(connection) = self.reader()? else { return self.earlier() };
        let read = || -> rusqlite::Result<Vec<String>> {
            let mut all = connection.prepare(query)?;
            all.query_map([], |row| row.get(0))?.collect()
        };
        let records = read().map_err(|source| self.failed(source))?;
        Ok(records.iter().filter_map(|record| serde_json::from_str(record).ok()).collect())
    }

    /// What has happened since the event of this number, in its order; at most a thousand of it.
    ///
    /// # Errors
    /// Where the file cannot be read.
    pub fn since(&self, number: i64) -> Result<Vec<Happened>, Error> {
        let Some(connection) = self.reader()? else { return Ok(Vec::new()) };
        let read = || -> rusqlite::Result<Vec<Happened>> {
            let mut events = connection.prepare(
                "SELECT number, incident, state, verdict, unix_ms, by, what FROM event JOIN incident ON id = incident
                 WHERE number > ?1 ORDER BY number LIMIT ?2",
            )?;
            let happened = |row: &rusqlite::Row<'_>| {
                Ok(Happened {
                    schema_version: super::SCHEMA_VERSION,
                    number: row.get(0)?,
                    incident: row.get(1)?,
                    state: row.get(2)?,
                    verdict: row.get(3)?,
                    event: Event { unix_ms: row.get::<_, i64>(4)? as u64, by: row.get(5)?, what: row.get(6)? },
                })
            };
            events.query_map(params![number, BATCH], happened)?.collect()
        };
        read().map_err(|source| self.failed(source))
    }

    /// The number of the latest event; zero where there is none.
    ///
    /// # Errors
    /// Where the file cannot be read.
    pub fn latest(&self) -> Result<i64, Error> {
        let Some(connection) = self.reader()? else { return Ok(0) };
        let latest = connection.query_row("SELECT coalesce(max(number), 0) FROM event", [], |row| row.get(0));
        latest.map_err(|source| self.failed(source))
    }

    fn connection(&self) -> MutexGuard<'_, Option<Connection>> {
        self.connection.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn failed(&self, source: rusqlite::Error) -> Error {
        Error::Database { path: self.path.clone(), source }
    }

    /// For one who only looks; `None` where nothing was written yet.
    fn reader(&self) -> Result<Option<Connection>, Error> {
        if !self.path.exists() {
            return Ok(None);
        }
        let opened = Connection::open_with_flags(&self.path, OpenFlags::SQLITE_OPEN_READ_ONLY);
        let connection = opened.map_err(|source| self.failed(source))?;
        self.check(&connection)?;
        Ok(Some(connection))
    }

    /// For the one who writes. What is no database is put aside, and kept.
    fn open(&self) -> Result<Connection, Error> {
        match self.open_as_it_is() {
            Err(Error::Database { source, .. }) if is_broken(&source) => {
                let aside = self.path.with_extension(format!("db.bad-{}", super::now_ms()));
                fs::rename(&self.path, &aside)?;
                warn!(error = %source, aside = %aside.display(), "the records cannot be read: put aside, and begun anew");
                self.open_as_it_is()
            }
            opened => opened,
        }
    }

    fn open_as_it_is(&self) -> Result<Connection, Error> {
        if let Some(directory) = self.path.parent() {
            fs::create_dir_all(directory)?;
        }
        let mut connection = Connection::open(&self.path).map_err(|source| self.failed(source))?;
        let version = self.check(&connection)?;
        let earlier = if version == 0 { self.earlier()? } else { Vec::new() };
        let mut prepare = || -> rusqlite::Result<()> {
            connection.busy_timeout(PATIENCE)?;
            // A crash of the machine may cost the last moments, and never what was there before; nothing waits for the disk.
            connection.pragma_update(None, "journal_mode", "WAL")?;
            connection.pragma_update(None, "synchronous", "NORMAL")?;
            if version == 0 {
                let making = connection.transaction()?;
                making.execute_batch(MAKE)?;
                for incident in &earlier {
                    put(&making, incident)?;
                }
                making.pragma_update(None, "user_version", TABLES)?;
                making.commit()?;
            }
            Ok(())
        };
        prepare().map_err(|source| self.failed(source))?;
        Ok(connection)
    }

    /// The version of its tables: zero of one that has none.
    fn check(&self, connection: &Connection) -> Result<u32, Error> {
        let version = connection.query_row("PRAGMA user_version", [], |row| row.get(0));
        match version.map_err(|source| self.failed(source))? {
            found if found > TABLES => Err(Error::Newer { path: self.path.clone(), found }),
            found => Ok(found),
        }
    }

    fn write(&self, connection: &mut Connection, incident: &Incident) -> Result<(), Error> {
        let mut write = || -> rusqlite::Result<()> {
            let writing = connection.transaction()?;
            put(&writing, incident)?;
            writing.commit()
        };
        write().map_err(|source| self.failed(source))
    }

    /// The records of earlier versions. What is none is left out.
    fn earlier(&self) -> Result<Vec<Incident>, Error> {
        let entries = match fs::read_dir(&self.files) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            entries => entries?,
        };
        let records = entries.filter_map(|entry| fs::read(entry.ok()?.path()).ok());
        let records = records.filter_map(|record| serde_json::from_slice::<Incident>(&record).ok());
        let by_id: BTreeMap<_, _> = records.map(|incident| (incident.id.clone(), incident)).collect();
        Ok(by_id.into_values().collect())
    }
}

fn put(writing: &Transaction<'_>, incident: &Incident) -> rusqlite::Result<()> {
    let record =
        serde_json::to_string(incident).map_err(|error| rusqlite::Error::ToSqlConversionFailure(error.into()))?;
    writing.execute(
        "INSERT INTO incident (id, began_unix_ms, state, verdict, record) VALUES (?1, ?2, ?3, ?4, ?5)
         ON CONFLICT (id) DO UPDATE SET state = ?3, verdict = ?4, record = ?5",
        params![incident.id, incident.began_unix_ms as i64, incident.state.label(), incident.verdict.label(), record],
    )?;
    let known: Option<i64> = writing
        .query_row("SELECT count(*) FROM event WHERE incident = ?1", [&incident.id], |row| row.get(0))
        .optional()?;
    for event in incident.timeline.iter().skip(known.unwrap_or(0) as usize) {
        writing.execute(
            "INSERT INTO event (incident, unix_ms, by, what) VALUES (?1, ?2, ?3, ?4)",
            params![incident.id, event.unix_ms as i64, event.by, event.what],
        )?;
    }
    Ok(())
}

/// Whether it is the file that is to blame, and not the disk.
fn is_broken(error: &rusqlite::Error) -> bool {
    matches!(error.sqlite_error_code(), Some(ErrorCode::NotADatabase | ErrorCode::DatabaseCorrupt))
}

#[cfg(test)]
mod tests {
    use crate::detect::{Assessment, Verdict};

    use super::*;

    /// A directory, gone with this value.
    struct Scratch(PathBuf);

    impl Scratch {
        fn new() -> Self {
            let name = format!("floodwall-incidents-{}-{:x}", std::process::id(), getrandom::u64().unwrap());
            let path = std::env::temp_dir().join(name);
            fs::create_dir(&path).unwrap();
            Self(path)
        }

        fn store(&self) -> Store {
            Store::beside(&self.0.join("history.ndjson"))
        }
    }

    impl Drop for Scratch {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    fn attack() -> Incident {
        let found = Assessment { verdict: Verdict::Attack, confidence: 0.97, ..Assessment::default() };
        Incident::new(1_700_000_000_000, &found)
    }

    #[test]
    fn a_record_comes_back_as_it_was_and_its_events_once_each() {
        let place = Scratch::new();
        let (store, mut incident) = (place.store(), attack());
        assert_eq!((store.all().unwrap(), store.latest().unwrap()), (Vec::new(), 0), "nothing yet");
        store.save(&incident).unwrap();
        let before = store.latest().unwrap();
        incident.note("eva", "called the provider");
        incident.resolve("detection", "over");
        store.save(&incident).unwrap();
        assert_eq!(store.all().unwrap(), [incident.clone()]);
        assert_eq!(store.load(&incident.id).unwrap().as_ref(), Some(&incident));
        assert_eq!(store.load("no such").unwrap(), None);
        let new = store.since(before).unwrap();
        let what: Vec<_> = new.iter().map(|happened| happened.event.what.as_str()).collect();
        assert_eq!(what, ["called the provider", "over"]);
        assert!(new.iter().all(|happened| happened.state == "resolved" && happened.incident == incident.id));
        assert_eq!(store.since(0).unwrap().len(), incident.timeline.len());
    }

    /// The daemon is killed between two writes: what was written is there, and goes on.
    #[test]
    fn another_daemon_goes_on_with_what_is_there() {
        let place = Scratch::new();
        let mut incident = attack();
        let killed = place.store();
        killed.save(&incident).unwrap();
        std::mem::forget(killed);
        incident.note("eva", "again");
        let store = place.store();
        store.save(&incident).unwrap();
        assert_eq!(store.all().unwrap(), [incident.clone()]);
        assert_eq!(store.since(0).unwrap().len(), incident.timeline.len());
    }

    #[test]
    fn files_of_earlier_versions_are_taken_in_once() {
        let place = Scratch::new();
        let incident = attack();
        fs::create_dir(place.0.join("incidents")).unwrap();
        let file = place.0.join("incidents").join(format!("{}.json", incident.id));
        fs::write(&file, serde_json::to_string_pretty(&incident).unwrap()).unwrap();
        fs::write(place.0.join("incidents/not-one.json"), "{").unwrap();
        let store = place.store();
        assert_eq!(store.all().unwrap(), std::slice::from_ref(&incident), "read where they are");
        let mut next = Incident { id: "next".to_owned(), began_unix_ms: u64::MAX >> 1, ..incident.clone() };
        store.save(&next).unwrap();
        assert_eq!(store.all().unwrap(), [incident.clone(), next.clone()]);
        fs::write(&file, serde_json::to_string(&Incident { dropped: 1, ..incident.clone() }).unwrap()).unwrap();
        next.note("eva", "later");
        let store = place.store();
        store.save(&next).unwrap();
        assert_eq!(store.all().unwrap(), [incident, next]);
    }

    #[test]
    fn a_broken_file_is_put_aside_and_one_of_a_newer_version_is_left_alone() {
        let place = Scratch::new();
        let (path, incident) = (place.0.join("incidents.db"), attack());
        fs::write(&path, vec![b'x'; 8_192]).unwrap();
        assert!(place.store().all().is_err());
        let store = place.store();
        store.save(&incident).unwrap();
        assert_eq!(store.all().unwrap(), std::slice::from_ref(&incident));
        let aside = fs::read_dir(&place.0).unwrap().filter_map(|entry| entry.unwrap().file_name().into_string().ok());
        assert_eq!(aside.filter(|name| name.starts_with("incidents.db.bad-")).count(), 1);
        Connection::open(&path).unwrap().pragma_update(None, "user_version", TABLES + 1).unwrap();
        let store = place.store();
        let refused = store.save(&incident).unwrap_err().to_string();
        assert!(refused.contains("newer"), "{refused}");
        assert!(matches!(store.all(), Err(Error::Newer { found: 2, .. })));
    }
}

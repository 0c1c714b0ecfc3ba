//! Signatures in the kernel: compiled into the bank that is not in force, then put in force by one word.
//!
//! Their numbers are those of their counters. A signature keeps its number for as long as it is there, and what the
//! number had counted before is kept beside its definition: counters are written by the kernel half only.

use std::io;
use std::os::fd::AsFd as _;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use aya::maps::{Array, MapData, MapError};
use floodwall_common::abi::Counter;
use floodwall_common::clock::Moment;
use floodwall_common::lists::FOREVER;
use floodwall_common::signatures::table::Table;
use floodwall_common::signatures::{Action, Record, Records, SIGNATURES, Shape, SignatureState};

use super::error::{Error, Result};
use super::maps::write_bank;
use super::text::{padded, unpadded};
use super::{Dataplane, root_cause, sys};

/// How often a reader without the lock tries to get a bank that nobody changes meanwhile.
const TRIES: u32 = 8;

/// A signature.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Signature {
    /// Its number, below [`SIGNATURES`]; `None` of one that is to be added.
    pub number: Option<usize>,
    /// What people call it.
    pub name: String,
    /// Which packets it suits.
    pub shape: Shape,
    /// What becomes of them.
    pub action: Action,
    /// When it ends, on the packet path's clock; `None` for never.
    pub until: Option<Moment>,
    /// When it was added.
    pub added: SystemTime,
    /// Why.
    pub note: String,
    /// Packets that it has suited since then.
    pub hits: Counter,
}

impl Signature {
    /// One that is to be added now, for this reason.
    pub fn new(name: &str, shape: Shape, action: Action, until: Option<Moment>, note: &str) -> Self {
        let (name, note, hits) = (name.to_owned(), note.to_owned(), Counter::default());
        Self { number: None, name, shape, action, until, added: SystemTime::now(), note, hits }
    }

    /// Whether it has not ended.
    pub fn is_live(&self, now: Moment) -> bool {
        self.until.is_none_or(|until| until > now)
    }
}

/// The maps of the signatures.
pub(super) struct SignatureMaps {
    pub(super) tables: MapData,
    pub(super) records: Array<MapData, Records>,
}

/// A bank of signatures, as it is put in force.
pub struct CompiledSignatures {
    /// What it was compiled from.
    pub records: Box<Records>,
    /// What the packet path asks.
    pub table: Box<Table>,
    /// The word that puts it in force.
    pub state: SignatureState,
}

impl CompiledSignatures {
    /// Compiles those of these signatures that have a number.
    ///
    /// # Errors
    /// As [`Self::new`].
    pub fn of(signatures: &[Signature], bank: u32) -> Result<Self> {
        let mut records = Box::new(Records([Record::NONE; SIGNATURES]));
        for signature in signatures {
            if let Some(number) = signature.number.filter(|number| *number < SIGNATURES) {
                records.0[number] = record(signature);
            }
        }
        Self::new(records, bank)
    }

    /// Compiles definitions for a bank.
    ///
    /// # Errors
    /// Where payloads are to be compared in more ways than there is room for.
    pub fn new(records: Box<Records>, bank: u32) -> Result<Self> {
        // SAFETY: integers only: all zero is a value, the table of no signature.
        let mut table = unsafe { Box::<Table>::new_zeroed().assume_init() };
        let state = table.compile(&records.0, bank).map_err(|_| Error::TooManyWindows)?;
        Ok(Self { records, table, state })
    }
}

impl Dataplane {
    /// The signatures, by number.
    ///
    /// # Errors
    /// Where the maps cannot be read, or are changed all the time.
    pub fn signatures(&self) -> Result<Vec<Signature>> {
        let mut config = self.config()?;
        for _ in 0..TRIES {
            if config.signatures.words() == 0 {
                return Ok(Vec::new());
            }
            let records = self.signatures.records.get(&config.signatures.bank(), 0).map_err(unreadable)?;
            let numbered = records.0.iter().enumerate().filter(|(_, record)| record.is_some());
            let signatures = numbered.map(|(number, record)| self.signature(number, record)).collect();
            // A bank is written while it is idle, so one that was in force all the time was whole.
            let after = self.config()?;
            if after.generation == config.generation {
                return Ok(signatures);
            }
            config = after;
        }
        Err(Error::Changed { expected: config.generation, found: self.config()?.generation })
    }

    fn signature(&self, number: usize, record: &Record) -> Signature {
        let counted = self.signature_counter(number);
        Signature {
            number: Some(number),
            name: unpadded(&record.name),
            shape: record.shape,
            action: Action::from_index(record.action as u8).unwrap_or(Action::Count),
            until: (record.until_ns != FOREVER).then(|| Moment::from_ns(record.until_ns)),
            added: UNIX_EPOCH + Duration::from_secs(record.added_unix_s),
            note: unpadded(&record.note),
            hits: Counter {
                packets: counted.packets.saturating_sub(record.before.packets),
                bytes: counted.bytes.saturating_sub(record.before.bytes),
            },
        }
    }

    /// Puts these signatures in force, as a whole: every packet is judged by all of the old ones or all of the new. Those
    /// that have a number keep it, and with it their hits.
    ///
    /// # Errors
    /// Where there are too many, the configuration has changed since they were read, or they cannot be written: nothing
    /// has changed then.
    pub fn install_signatures(&mut self, wanted: &[Signature], expected: u64) -> Result<u64> {
        let config = self.config()?;
        if config.generation != expected {
            return Err(Error::Changed { expected, found: config.generation });
        }
        if wanted.len() > SIGNATURES {
            return Err(Error::TooManySignatures { wanted: wanted.len() });
        }
        // A packet may still be on its way through the bank that the last change has put out of force, and count there.
        sys::wait_for_programs().map_err(|source| Error::privileged("wait for packets on their way", source))?;
        let bank = config.signatures.bank() ^ 1;
        let compiled = CompiledSignatures::new(self.records(wanted, config.signatures)?, bank)?;
        // By reference: half a megabyte is no value for a stack.
        let (table, records): (&Table, &Records) = (&compiled.table, &compiled.records);
        write_bank(self.signatures.tables.fd().as_fd(), bank, table)?;
        self.signatures.records.set(bank, records, 0).map_err(unwritable)?;
        self.change(Some(expected), |config| config.signatures = compiled.state)
    }

    fn records(&self, wanted: &[Signature], in_force: SignatureState) -> Result<Box<Records>> {
        let old = match in_force.words() {
            0 => Records([Record::NONE; SIGNATURES]),
            _ => self.signatures.records.get(&in_force.bank(), 0).map_err(unreadable)?,
        };
        let mut new = Box::new(Records([Record::NONE; SIGNATURES]));
        for signature in wanted {
            if let Some(number) = signature.number.filter(|number| *number < SIGNATURES) {
                new.0[number] = Record { before: old.0[number].before, ..record(signature) };
            }
        }
        for signature in wanted.iter().filter(|signature| signature.number.is_none()) {
            // Rather one that no signature in force counts under.
            let is_free = |number: &usize| !new.0[*number].is_some();
            let unused = |number: &usize| is_free(number) && !old.0[*number].is_some();
            let number = (0..SIGNATURES).find(unused).or_else(|| (0..SIGNATURES).find(is_free));
            let number = number.ok_or(Error::TooManySignatures { wanted: wanted.len() })?;
            new.0[number] = Record { before: self.signature_counter(number), ..record(signature) };
        }
        Ok(new)
    }
}

fn record(signature: &Signature) -> Record {
    Record {
        shape: signature.shape,
        until_ns: signature.until.map_or(FOREVER, Moment::ns),
        added_unix_s: signature.added.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs(),
        before: Counter::default(),
        action: signature.action as u64,
        name: padded(&signature.name),
        note: padded(&signature.note),
    }
}

fn unreadable(error: MapError) -> Error {
    Error::system("read the signatures", io::Error::other(root_cause(&error)))
}

fn unwritable(error: MapError) -> Error {
    Error::system("write the signatures; nothing was changed", io::Error::other(root_cause(&error)))
}

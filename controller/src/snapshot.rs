//! What the dataplane looked like at one moment: immutable, and the source of every view. There is no second counter.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use floodwall_common::abi::SAMPLE_STREAMS;
use floodwall_common::class::{Class, Family};
use floodwall_common::clock::Moment;
use floodwall_common::config::{Config, LIMIT_SLOTS, Mode};
use floodwall_common::limits::{LimitKey, LimitName, Limits, Rate};
use floodwall_common::lists::{List, MAX_ENTRIES};
use floodwall_common::reason::{DropSet, Reason, Verdict};

use crate::dataplane::{
    self, Cell, Dataplane, Device, Protected, SampleCounts, caps_of, group_limits_of, limits_of, monotonic_ns,
};
use crate::detect::{self, Group, Vector};
use crate::history::Origin;
use crate::incident;
use crate::latencies::Latencies;
use crate::pressure::Pressure;
use serde::{Deserialize, Serialize};

/// Packets and bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Count {
    /// Frames.
    pub packets: u64,
    /// Bytes of frames.
    pub bytes: u64,
}

impl std::ops::AddAssign<Cell> for Count {
    fn add_assign(&mut self, cell: Cell) {
        self.packets += cell.packets;
        self.bytes += cell.bytes;
    }
}

impl Count {
    /// What came since an earlier count.
    #[must_use]
    pub const fn since(self, earlier: Self) -> Self {
        Self { packets: self.packets.saturating_sub(earlier.packets), bytes: self.bytes.saturating_sub(earlier.bytes) }
    }
}

/// An interface and its counters.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Interface {
    /// Whether and how it is protected.
    pub protected: Protected,
    /// Its counters that are not zero.
    pub cells: Vec<Cell>,
}

impl Interface {
    /// The sum of the cells that a condition picks.
    pub fn sum(&self, pick: impl Fn(&Cell) -> bool) -> Count {
        sum(&self.cells, pick)
    }
}

fn sum<'a>(cells: impl IntoIterator<Item = &'a Cell>, pick: impl Fn(&Cell) -> bool) -> Count {
    let mut sum = Count::default();
    cells.into_iter().filter(|cell| pick(cell)).for_each(|cell| sum += *cell);
    sum
}

/// Entries of a list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ListSize {
    /// Which.
    pub list: List,
    /// Of which family.
    pub family: Family,
    /// How many.
    pub entries: usize,
}

/// What goes on, by detection.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Situation {
    /// What it is.
    pub verdict: detect::Verdict,
    /// The kinds of flood, the largest first.
    pub vectors: Vec<Vector>,
    /// How sure that is, from 0 to 1.
    pub confidence: f64,
    /// The strongest reasons, in words.
    pub reasons: Vec<String>,
    /// Who has gone wild, where it is a misconfiguration: prefixes, at most eight.
    #[serde(default)]
    pub who: Vec<ipnet::IpNet>,
    /// The incident that is open.
    pub incident: Option<String>,
    /// Where the incident that is open stands.
    #[serde(default)]
    pub incident_state: Option<incident::State>,
    /// Measures that are in force by themselves.
    pub measures: usize,
    /// Connections that are open, of 8,192 that are looked at at most; `None` where too few are to be looked at, or none is seen.
    pub open_connections: Option<usize>,
    /// Of these, connections that ask for nothing, of sources that hold several such and use none.
    pub held_connections: Option<usize>,
    /// What the host had no room for in the last second.
    #[serde(default)]
    pub pressure: Pressure,
    /// The most packets that one source has sent in a second of the last minutes, by limit: for metrics only.
    #[serde(skip)]
    pub most_of_a_source: [u64; LIMIT_SLOTS],
    /// Packets of each group, and connections completed, that are usual in a second of this hour; `None` while nobody knows: for metrics
    /// only.
    #[serde(skip)]
    pub usual: ([Option<f64>; Group::ALL.len()], Option<f64>),
}

/// What is known of the check-up.
#[derive(Clone, Debug, PartialEq)]
pub struct CheckUp {
    /// Of the incidents that are over, how long it took from the first sign to the verdict, and to the first measure.
    pub latencies: [Latencies; 2],
    /// Things that others had undone and that were done again.
    pub mended: u64,
    /// Changes since the daemon's start, by whose word they were.
    pub changes: [u64; Origin::ALL.len()],
    /// A drill goes on.
    pub drill: bool,
    /// Warnings and problems of the last audit; `None` before the first.
    pub findings: Option<[usize; 2]>,
}

/// The dataplane at one moment.
#[derive(Clone, Debug)]
pub struct Snapshot {
    /// When, in nanoseconds of `CLOCK_MONOTONIC`.
    pub taken_ns: u64,
    /// Whether drops are real.
    pub mode: Mode,
    /// Since when, in seconds of the Unix epoch.
    pub mode_since_unix_s: u64,
    /// Where drops are, or were, real on trial only: for how long yet.
    pub trial: Option<Duration>,
    /// Counts changes of the configuration.
    pub generation: u64,
    /// Reasons that drop.
    pub drops: DropSet,
    /// Limits as they were set.
    pub limits: Vec<(LimitKey, Limits)>,
    /// Limits that groups of sources have of their own.
    pub group_limits: Vec<(String, LimitName, Limits)>,
    /// Services and their caps: of packets, and of new connections.
    pub caps: Vec<(String, [Rate; 2])>,
    /// Interfaces that are meant to be protected.
    pub interfaces: Vec<Interface>,
    /// Sizes of the lists.
    pub lists: Vec<ListSize>,
    /// Entries that are on the allow list by themselves.
    pub allow_automatic: usize,
    /// Signatures in force.
    pub signatures: usize,
    /// Entries that a list may hold.
    pub list_capacity: usize,
    /// Sources that owe something now.
    pub sources: u64,
    /// Sources that can be remembered.
    pub source_capacity: u64,
    /// What became of samples.
    pub samples: SampleCounts,
    /// One packet in so many is sampled, by stream.
    pub sample_every: [u32; SAMPLE_STREAMS],
    /// What goes on; `None` without a daemon.
    pub situation: Option<Situation>,
    /// The check-up; `None` without a daemon.
    pub check_up: Option<CheckUp>,
}

impl Snapshot {
    /// The sum of the cells of all interfaces that a condition picks.
    pub fn sum(&self, pick: impl Fn(&Cell) -> bool) -> Count {
        sum(self.interfaces.iter().flat_map(|interface| &interface.cells), pick)
    }

    /// Reads it. `devices` are those of the moment; `lists` the sizes of the lists.
    ///
    /// # Errors
    /// Where a map cannot be read.
    pub fn take(dataplane: &Dataplane, devices: &[Device], lists: ListSizes) -> dataplane::Result<Self> {
        let config = dataplane.config()?;
        let now = dataplane.clock()?.now();
        let (sources, source_capacity) = dataplane.source_occupancy(now);
        let interfaces = dataplane.protected(devices)?.into_iter().map(|protected| {
            let cells = dataplane.counters(protected.slot);
            Interface { protected, cells }
        });
        Ok(Self {
            taken_ns: monotonic_ns(),
            mode: config.mode_at(now),
            mode_since_unix_s: config.mode_since_unix_s,
            trial: trial_left(&config, now),
            generation: config.generation,
            drops: config.drops,
            limits: LimitKey::all().map(|key| (key, limits_of(&config, key))).collect(),
            group_limits: group_limits_of(&config),
            caps: caps_of(&config),
            interfaces: interfaces.collect(),
            lists: lists.sizes,
            allow_automatic: lists.automatic,
            signatures: dataplane.signatures()?.iter().filter(|signature| signature.is_live(now)).count(),
            list_capacity: MAX_ENTRIES as usize,
            sources,
            source_capacity,
            samples: dataplane.sample_counts(),
            sample_every: std::array::from_fn(|stream| config.sampling.every(stream)),
            situation: None,
            check_up: None,
        })
    }

    /// Whether every interface that is meant to be protected is.
    pub fn is_attached(&self) -> bool {
        !self.interfaces.is_empty() && self.interfaces.iter().all(|interface| interface.protected.attached.is_some())
    }

    /// Reasons that the operator chooses for, and what they do.
    pub fn policies(&self) -> impl Iterator<Item = (Reason, Verdict, Verdict)> {
        let drops = self.drops;
        Reason::chosen().map(move |(reason, standard)| (reason, reason.verdict(drops), standard))
    }
}

/// What is left of a trial; nothing where it has ended, and `None` where there is none.
fn trial_left(config: &Config, now: Moment) -> Option<Duration> {
    config.is_on_trial().then(|| Duration::from_nanos(config.trial_until_ns.saturating_sub(now.ns())))
}

/// The sizes of all lists, and until when they hold.
#[derive(Clone, Debug)]
pub struct ListSizes {
    sizes: Vec<ListSize>,
    automatic: usize,
    first_end: Option<Moment>,
}

impl ListSizes {
    /// Counts the entries that have not ended: a walk through the tries, so not for every tick.
    ///
    /// # Errors
    /// Where the maps cannot be read.
    pub fn count(dataplane: &Dataplane, now: Moment) -> dataplane::Result<Self> {
        let mut counted = Self { sizes: Vec::new(), automatic: 0, first_end: None };
        for list in List::ALL {
            let mut entries = dataplane.list(*list)?;
            entries.retain(|entry| entry.until.is_none_or(|until| until > now));
            let ends = entries.iter().filter_map(|entry| entry.until);
            counted.automatic += entries.iter().filter(|entry| entry.is_automatic()).count();
            counted.first_end = ends.chain(counted.first_end).min();
            let v4 = entries.iter().filter(|entry| entry.prefix.addr().is_ipv4()).count();
            counted.sizes.push(ListSize { list: *list, family: Family::V4, entries: v4 });
            counted.sizes.push(ListSize { list: *list, family: Family::V6, entries: entries.len() - v4 });
        }
        Ok(counted)
    }

    /// Whether no entry has ended since.
    pub fn hold_at(&self, now: Moment) -> bool {
        self.first_end.is_none_or(|end| end > now)
    }
}

/// Class and family of a cell; `None` for what is not IP.
pub fn class_of(cell: &Cell) -> Option<(Class, Family)> {
    cell.kind.parts().map(|(family, class)| (class, family))
}

/// Now, in seconds of the Unix epoch.
pub fn unix_s() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()
}

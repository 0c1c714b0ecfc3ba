//! The kernel half as the controller sees it: the only module that knows aya, bpf(2) and netlink.
//!
//! [`Dataplane`] is what is pinned: maps, links, and the lock that keeps writers apart. It works with the daemon and
//! without it. It judges nothing and keeps no copy of what the kernel has: every question is a read.

mod clock;
mod compile;
mod cookies;
mod counters;
mod device;
mod egress;
mod error;
mod ethtool;
mod groups;
mod interfaces;
mod known;
mod lists;
mod maps;
mod mend;
mod mode;
mod netlink;
mod object;
mod programs;
mod refusal;
mod samples;
mod scratch;
mod sent;
mod services;
mod signatures;
mod sockets;
mod sys;
mod text;
mod traffic_control;
mod uninstall;

use std::fs::{DirBuilder, File};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::DirBuilderExt;
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use aya::maps::{Array, Map, MapData, RingBuf};
use floodwall_common::abi::{CpuState, InterfaceRecord, map};
use floodwall_common::config::{Config, Sampling};
use floodwall_common::limiter::{BUCKETS, Bucket};
use floodwall_common::limits::{LimitKey, Limits, RateError, Unit};
use floodwall_common::lists::List;
use floodwall_common::meter::{Machine, Meter, Meters};
use floodwall_common::reason::{Reason, Verdict};
use nix::fcntl::{Flock, FlockArg};

pub use clock::{Clock, monotonic_ns};
pub use compile::limits_of;
pub use cookies::{DEFAULT_ANSWERS, Stack, cookies_of};
pub use counters::{Cell, SampleCounts};
pub use device::{AttachMode, Device, DeviceXdp, MadeOf, carriers, devices, find};
pub use egress::{EgressHook, NEED_MEMORY, known_amplifiers};
pub use error::{Error, Result};
pub use ethtool::active_features;
pub use groups::{Group, group_limits_of};
pub(crate) use groups::{numbered, set as set_groups};
pub use interfaces::{Outcome, Protected};
pub use known::Verified;
pub use lists::{Listed, PreparedLists};
pub use maps::{Mapped, Pins};
pub use mend::Mended;
pub use mode::{Switched, stop_pinned};
pub use object::hash as object_hash;
pub use samples::{Sample, SampleReader};
pub use scratch::Scratch;
pub use sent::SentReader;
pub(crate) use services::give_way;
pub use services::{Service, UNNAMED, caps_of, is_automatic, is_of_udp_only};
pub use signatures::{CompiledSignatures, Signature};
pub use sockets::{Connection, Connections, Queue, close, connections};
pub use sys::{TestRun, TestRunResult, test_run};
pub use text::kept_note;
pub use uninstall::{Uninstalled, uninstall};

pub(crate) use compile::{apply, ask_what_is_armed, first_config};
use lists::Tries;
use maps::{Shape, shapes};
use programs::{Constants, Variant};
pub(crate) use services::record_of_unnamed;
use signatures::SignatureMaps;

/// Whether the caller will change anything.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// Only looks.
    Read,
    /// Changes: nobody else may meanwhile.
    Write,
}

/// The pinned maps and links.
pub struct Dataplane {
    pins: Pins,
    machine: Machine,
    possible_cpus: u32,
    config: Array<MapData, Config>,
    cpus: Mapped<CpuState>,
    sources: Mapped<Bucket>,
    tries: Tries,
    signatures: SignatureMaps,
    interfaces: Array<MapData, InterfaceRecord>,
    clock: clock::ClockProgram,
    /// Held as long as this lives. Where it is a link, closing it would not detach: the pin holds it too.
    links: Vec<(u32, OwnedFd)>,
    /// The same of the programs that remember what is sent.
    sent_links: Vec<(u32, OwnedFd)>,
    /// The programs of filters that do so where there can be no link.
    sent_filters: Vec<(u32, OwnedFd)>,
    /// Every pinned map, so that it can be pinned again.
    held: Vec<(&'static str, OwnedFd)>,
    lock: Option<Flock<File>>,
    /// The kernel half's own logs, of the programs that this process has loaded.
    #[cfg(feature = "ebpf-log")]
    logs: Vec<aya_log::EbpfLogger<&'static dyn log::Log>>,
}

impl Dataplane {
    /// Opens what is pinned.
    ///
    /// # Errors
    /// Where nothing is, or something else, or another process holds it.
    pub fn open(pins: Pins, access: Access) -> Result<Self> {
        check_loaded(&pins)?;
        let lock = match access {
            Access::Read => None,
            Access::Write => Some(lock(&pins)?),
        };
        Self::open_maps(pins, lock)
    }

    /// Opens what is pinned, or creates it: in monitor mode, with default limits and empty lists.
    ///
    /// # Errors
    /// Where the environment does not allow it, or what is pinned is in use and not of this build.
    pub fn open_or_create(pins: Pins) -> Result<Self> {
        check_bpffs(&pins)?;
        create_directory(&pins)?;
        let lock = lock(&pins)?;
        if let Err(error) = check_shapes(&pins) {
            if has_live_link(&pins) {
                return Err(error);
            }
            clear(&pins)?;
            create_directory(&pins)?;
            create_maps(&pins)?;
        }
        let mut dataplane = Self::open_maps(pins, Some(lock))?;
        dataplane.recompile()?;
        Ok(dataplane)
    }

    /// Compiles the limits for the machine as it is now: it may have other CPUs than when they were set.
    fn recompile(&mut self) -> Result<()> {
        let (limits, machine) = (self.limits()?, self.machine);
        self.change(None, |config| {
            // As below: where one cannot be kept now, the old ones stay.
            let _ = services::compile(config, machine);
            let (answers, secret) = (config.cookie_spec.into(), config.cookie_answers.secret());
            config.cookie_answers =
                Meter::new(answers, Unit::Packets, machine, secret).unwrap_or(config.cookie_answers);
            for (key, limits) in limits {
                // They were kept before; where they cannot be now, the old meters stay.
                let _ = apply(config, key, limits, machine);
            }
            groups::recompile(config, machine);
            config.generation -= 1;
        })
        .map(drop)
    }

    fn open_maps(pins: Pins, lock: Option<Flock<File>>) -> Result<Self> {
        let possible_cpus = possible_cpus()?;
        let shapes = shapes(possible_cpus);
        let open = |name: &str| -> Result<MapData> {
            let shape = shapes.iter().find(|shape| shape.name == name);
            shape.map_or_else(|| Err(Error::NotLoaded { path: pins.map(name) }), |shape| shape.open(&pins))
        };
        let cpus = Mapped::new(open(map::CPUS)?.fd().as_fd(), possible_cpus as usize)?;
        let sources = Mapped::new(open(map::SOURCES)?.fd().as_fd(), BUCKETS)?;
        let (v4, v6, prefilter) = (open(map::LISTS_V4)?, open(map::LISTS_V6)?, open(map::PREFILTER)?);
        let tries = Tries::open(&pins, v4, v6, prefilter)?;
        let signatures = SignatureMaps {
            tables: open(map::SIGNATURES)?,
            records: typed(open(map::SIGNATURE_SPECS)?, Map::Array, Array::try_from)?,
        };
        let config = typed(open(map::CONFIG)?, Map::Array, Array::try_from)?;
        let interfaces = typed(open(map::INTERFACES)?, Map::Array, Array::try_from)?;
        let machine = Machine { cpus: online_cpus(), tick_ns: clock::tick_ns()? };
        let clock = clock::ClockProgram::load()?;
        let mut dataplane = Self {
            pins,
            machine,
            possible_cpus,
            config,
            cpus,
            sources,
            tries,
            signatures,
            interfaces,
            clock,
            links: Vec::new(),
            sent_links: Vec::new(),
            sent_filters: Vec::new(),
            held: Vec::new(),
            lock,
            #[cfg(feature = "ebpf-log")]
            logs: Vec::new(),
        };
        for shape in &shapes {
            let held = sys::open_pinned(&dataplane.pins.map(shape.name));
            dataplane.held.push((shape.name, held.map_err(|source| Error::system("open a map", source))?));
        }
        dataplane.links = dataplane.open_links("")?;
        dataplane.sent_links = dataplane.open_links(maps::SENT_SUFFIX)?;
        dataplane.sent_filters = dataplane.open_links(maps::SENT_FILTER_SUFFIX)?;
        Ok(dataplane)
    }

    /// Hands what the kernel half has logged to the log; nothing in a build without the feature `ebpf-log`.
    pub fn flush_logs(&mut self) {
        #[cfg(feature = "ebpf-log")]
        self.logs.iter_mut().for_each(aya_log::EbpfLogger::flush);
    }

    #[cfg(feature = "ebpf-log")]
    fn follow_logs(&mut self, object: &mut aya::Ebpf) {
        match aya_log::EbpfLogger::init(object) {
            Ok(logger) => self.logs.push(logger),
            Err(error) => tracing::warn!(%error, "the kernel half's logs cannot be read"),
        }
    }

    /// Where it is pinned.
    pub fn pins(&self) -> &Pins {
        &self.pins
    }

    /// The packet path's clock.
    ///
    /// # Errors
    /// Where the kernel does not run the clock program.
    pub fn clock(&self) -> Result<Clock> {
        self.clock.read()
    }

    /// The configuration in force.
    ///
    /// # Errors
    /// Where the map cannot be read.
    pub fn config(&self) -> Result<Box<Config>> {
        read_config(&self.config)
    }

    /// Changes the configuration in one write: the next packet sees it. `expected` is the generation that the caller
    /// has seen; where it is given and another is in force, nothing changes.
    fn change(&mut self, expected: Option<u64>, change: impl FnOnce(&mut Config)) -> Result<u64> {
        let mut config = self.config()?;
        if let Some(expected) = expected.filter(|expected| *expected != config.generation) {
            return Err(Error::Changed { expected, found: config.generation });
        }
        change(&mut config);
        ask_what_is_armed(&mut config);
        config.generation += 1;
        write_config(&mut self.config, &config)?;
        Ok(config.generation)
    }

    /// Chooses what a reason does. `false` where that is not for the operator to choose.
    ///
    /// # Errors
    /// Where the map cannot be written.
    pub fn set_policy(&mut self, reason: Reason, verdict: Verdict) -> Result<bool> {
        if reason == Reason::NoService {
            // Whoever chooses himself means all of it.
            self.unlock_udp()?;
        }
        match self.config()?.drops.choose(reason, verdict) {
            Some(drops) => self.change(None, |config| config.drops = drops).map(|_| true),
            None => Ok(false),
        }
    }

    /// Sets how many headers are sampled.
    ///
    /// # Errors
    /// Where the map cannot be written.
    pub fn set_sampling(&mut self, sampling: Sampling) -> Result<()> {
        if self.config()?.sampling == sampling {
            return Ok(());
        }
        // The controller's own tuning, not somebody's change: the generation stays.
        self.change(None, |config| {
            config.sampling = sampling;
            config.generation -= 1;
        })
        .map(drop)
    }

    /// The limits as they were set.
    ///
    /// # Errors
    /// Where the map cannot be read.
    pub fn limits(&self) -> Result<Vec<(LimitKey, Limits)>> {
        let config = self.config()?;
        Ok(LimitKey::all().map(|key| (key, limits_of(&config, key))).collect())
    }

    /// Sets limits, all or none: the next packet is judged by them.
    ///
    /// # Errors
    /// Where a limit cannot be kept, the generation is not the expected one, or the map cannot be written.
    pub fn set_limits(&mut self, changes: &[(LimitKey, Limits)], expected: Option<u64>) -> Result<u64> {
        let mut wanted = self.config()?;
        set_limits(&mut wanted, changes, self.machine)?;
        self.change(expected, |config| take_limits(config, &wanted))
    }

    /// What is on a list.
    ///
    /// # Errors
    /// Where the maps cannot be read.
    pub fn list(&self, list: List) -> Result<Vec<Listed>> {
        self.tries.read(list, self.config()?.lists.bank())
    }

    /// Puts prepared lists in force, as a whole: every packet is judged by all of the old ones or all of the new.
    ///
    /// # Errors
    /// Where the configuration has changed since the lists were read, or they cannot be written: nothing has changed then.
    pub fn install_lists(&mut self, prepared: &PreparedLists, expected: u64) -> Result<u64> {
        self.install(prepared, None, &[], expected)
    }

    /// The same, with groups, which the lists have to be of, and limits, by the same write.
    ///
    /// # Errors
    /// As above, and where a limit cannot be kept.
    pub fn install(
        &mut self,
        prepared: &PreparedLists,
        groups: Option<&[(u32, Group)]>,
        limits: &[(LimitKey, Limits)],
        expected: u64,
    ) -> Result<u64> {
        let mut wanted = self.config()?;
        if wanted.generation != expected {
            return Err(Error::Changed { expected, found: wanted.generation });
        }
        set_limits(&mut wanted, limits, self.machine)?;
        if let Some(groups) = groups {
            groups::set(&mut wanted, groups, self.machine)?;
        }
        let state = self.tries.install(&self.pins, wanted.lists.bank() ^ 1, prepared)?;
        self.change(Some(expected), |config| {
            config.lists = state;
            take_limits(config, &wanted);
        })
    }

    /// Loads the filter as it would be attached, for test runs: at the moment that the test clock says where
    /// `test_clock` is set.
    ///
    /// # Errors
    /// Where the kernel refuses it.
    pub fn load_for_test(&self, frags: bool, test_clock: bool) -> Result<OwnedFd> {
        let variant = if frags { Variant::Frags } else { Variant::Linear };
        programs::verify(&mut self.object_for_test(test_clock)?, variant)
    }

    /// The same of the program that remembers what is sent.
    ///
    /// # Errors
    /// Where the kernel refuses it.
    pub fn load_egress_for_test(&self, test_clock: bool) -> Result<OwnedFd> {
        egress::verify(&mut self.object_for_test(test_clock)?)
    }

    fn object_for_test(&self, test_clock: bool) -> Result<aya::Ebpf> {
        let (config, tick_ns, cpus) = (self.config()?, self.machine.tick_ns, self.possible_cpus);
        programs::load(&self.pins, &Constants { config: &config, slot: 0, tick_ns, cpus, test_clock })
    }

    /// Sets the clock of programs that were loaded for a test with one.
    ///
    /// # Errors
    /// Where the map cannot be written.
    pub fn set_test_clock(&self, now: floodwall_common::clock::Moment) -> Result<()> {
        let map = MapData::from_pin(self.pins.map(map::TEST_CLOCK))
            .map_err(|error| Error::system("open the test clock", io::Error::other(root_cause(&error))))?;
        let mut clock: Array<MapData, u64> = typed(map, Map::Array, Array::try_from)?;
        clock
            .set(0, now.ns(), 0)
            .map_err(|error| Error::system("set the test clock", io::Error::other(root_cause(&error))))
    }

    /// Removes every pin. What is attached is detached by that.
    ///
    /// # Errors
    /// Where a pin cannot be removed.
    pub fn remove(self) -> Result<()> {
        clear(&self.pins)
    }

    /// The ring of samples. One reader at a time: what it reads is gone.
    ///
    /// # Errors
    /// Where the ring cannot be opened.
    pub fn samples(&self) -> Result<SampleReader> {
        let ring = MapData::from_pin(self.pins.map(map::SAMPLES))
            .and_then(|data| RingBuf::try_from(Map::RingBuf(data)))
            .map_err(|error| Error::system("open the sample ring", io::Error::other(root_cause(&error))))?;
        Ok(SampleReader::new(ring))
    }
}

/// Removes every pin without reading one: for what another build has left.
///
/// # Errors
/// Where a pin cannot be removed, or another process holds them.
pub fn remove_pins(pins: &Pins) -> Result<()> {
    let _lock = lock(pins)?;
    // Detached by name: a link whose pin is gone ends only when the kernel gets round to it.
    for entry in std::fs::read_dir(pins.links()).into_iter().flatten().flatten() {
        if let Ok(link) = sys::open_pinned(&entry.path()) {
            let _ = sys::link_detach(link.as_fd());
        }
        if let Some(ifindex) = entry.file_name().to_str().and_then(|name| name.parse().ok()) {
            traffic_control::detach(ifindex);
        }
    }
    clear(pins)
}

fn create_maps(pins: &Pins) -> Result<()> {
    lists::create(pins)?;
    maps::create_sections(pins)?;
    let tick_ns = clock::tick_ns()?;
    let config = first_config(Machine { cpus: online_cpus(), tick_ns })?;
    let constants = Constants { config: &config, slot: 0, tick_ns, cpus: possible_cpus()?, test_clock: false };
    programs::load(pins, &constants)?;
    egress::write_amplifiers(pins, known_amplifiers())
}

fn check_shapes(pins: &Pins) -> Result<()> {
    shapes(possible_cpus()?).iter().try_for_each(|shape: &Shape| shape.open(pins).map(drop))
}

fn has_live_link(pins: &Pins) -> bool {
    let links = std::fs::read_dir(pins.links()).into_iter().flatten().flatten();
    links
        .filter_map(|entry| sys::open_pinned(&entry.path()).ok())
        .any(|link| sys::link_info(link.as_fd()).is_ok_and(|info| info.ifindex != 0))
}

fn check_bpffs(pins: &Pins) -> Result<()> {
    if is_bpf_file_system(pins.root()) {
        return Ok(());
    }
    Err(Error::NoBpfFileSystem { path: pins.root().to_owned() })
}

/// Whether a BPF file system is mounted here.
pub fn is_bpf_file_system(path: &Path) -> bool {
    const BPF_FS_MAGIC: i64 = 0xcafe_4a11;
    let kind = nix::sys::statfs::statfs(path).map(|info| info.filesystem_type().0);
    kind.is_ok_and(|kind| kind == BPF_FS_MAGIC)
}

fn create_directory(pins: &Pins) -> Result<()> {
    let path = pins.links();
    DirBuilder::new().recursive(true).mode(0o700).create(&path).map_err(|source| Error::PinDirectory {
        path,
        root: pins.root().to_owned(),
        source,
    })
}

/// Locks the directory above that of this version: that one may be cleared and made anew by who holds the lock.
fn check_loaded(pins: &Pins) -> Result<()> {
    match std::fs::metadata(pins.map(map::CONFIG)) {
        Ok(_) => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
            Err(Error::privileged("look into the BPF file system", error))
        }
        Err(_) => check_bpffs(pins).and(Err(Error::NotLoaded { path: pins.directory().to_owned() })),
    }
}

fn read_config(config: &Array<MapData, Config>) -> Result<Box<Config>> {
    let failed = |error| Error::system("read the configuration", io::Error::other(root_cause(&error)));
    config.get(&0, 0).map(Box::new).map_err(failed)
}

fn write_config(config: &mut Array<MapData, Config>, wanted: &Config) -> Result<()> {
    let failed = |error| Error::system("write the configuration", io::Error::other(root_cause(&error)));
    config.set(0, wanted, 0).map_err(failed)
}

fn lock(pins: &Pins) -> Result<Flock<File>> {
    let path = pins.home();
    let directory = File::open(&path).map_err(|source| Error::PinDirectory {
        path: path.clone(),
        root: pins.root().to_owned(),
        source,
    })?;
    Flock::lock(directory, FlockArg::LockExclusiveNonblock).map_err(|(_, _)| Error::Locked { path })
}

fn clear(pins: &Pins) -> Result<()> {
    let failed = |source| Error::system(format!("remove {}", pins.directory().display()), source);
    remove_tree(pins.directory()).map_err(failed)
}

/// bpffs has plain files and directories only, but refuses what `remove_dir_all` asks of it.
fn remove_tree(directory: &Path) -> io::Result<()> {
    for entry in std::fs::read_dir(directory)? {
        let entry = entry?;
        let path = entry.path();
        if entry.file_type()?.is_dir() { remove_tree(&path)? } else { std::fs::remove_file(&path)? }
    }
    std::fs::remove_dir(directory)
}

fn typed<T>(
    data: MapData,
    kind: impl FnOnce(MapData) -> Map,
    of: impl FnOnce(Map) -> Result<T, aya::maps::MapError>,
) -> Result<T> {
    of(kind(data)).map_err(|error| Error::system("open a map", io::Error::other(root_cause(&error))))
}

fn possible_cpus() -> Result<u32> {
    aya::util::nr_cpus().map(|cpus| cpus as u32).map_err(|(path, error)| Error::system(format!("read {path}"), error))
}

/// CPUs that packets of one source may be spread over.
fn online_cpus() -> u32 {
    aya::util::online_cpus().map_or(1, |cpus| cpus.len() as u32)
}

fn unix_s() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()
}

/// The innermost cause of an error: libraries wrap it in words that say less.
fn root_cause(error: &(dyn std::error::Error + 'static)) -> String {
    let mut cause = error;
    while let Some(inner) = cause.source() {
        cause = inner;
    }
    cause.to_string()
}
/// Whether limits can be kept, on any machine.
///
/// # Errors
/// The unit of the rate that cannot, and what is wrong with it.
pub fn check_limits(limits: Limits) -> std::result::Result<(), (Unit, RateError)> {
    Meters::new(limits, Machine { cpus: 1, tick_ns: 1_000_000 }, [0, 0]).map(drop)
}

/// Compiles limits into a configuration that is not in force.
fn set_limits(config: &mut Config, changes: &[(LimitKey, Limits)], machine: Machine) -> Result<()> {
    for (key, limits) in changes {
        apply(config, *key, *limits, machine)
            .map_err(|(unit, _)| Error::LimitOutOfRange { limit: *key, unit: unit.label() })?;
    }
    Ok(())
}

/// Takes all limits, of everybody and of groups, from another configuration.
fn take_limits(config: &mut Config, wanted: &Config) {
    config.meters = wanted.meters;
    config.wider = wanted.wider;
    config.allowed = wanted.allowed;
    config.specs = wanted.specs;
    config.groups = wanted.groups;
    config.group_records = wanted.group_records;
}

//! The maps as they are pinned: what each must look like, and how they are read.
//!
//! aya takes a pinned map as it is, whatever its size; so each is compared with what this build would make before
//! anything uses it.

use std::marker::PhantomData;
use std::num::NonZeroUsize;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::{Path, PathBuf};
use std::ptr::NonNull;

use aya::maps::{MapData, MapType};
use floodwall_common::abi::{ABI_VERSION, CpuState, INTERFACE_SLOTS, InterfaceRecord, SAMPLE_RING_BYTES, map};
use floodwall_common::clock::Moment;
use floodwall_common::config::Config;
use floodwall_common::limiter::{BUCKETS, Bucket};
use floodwall_common::lists::Prefilter;
use floodwall_common::memory::{Line, Span, Trace};
use floodwall_common::replies::PortSet;
use floodwall_common::services::PortTable;
use floodwall_common::signatures::Records;
use floodwall_common::signatures::table::Table;
use floodwall_common::{first_syn, replies, verified};

use super::error::{Error, Result};
use super::lists;
use super::sys;

/// What the object calls a map. Those that are data sections have pins of another name: bpffs takes no dots.
pub(super) fn in_object(name: &str) -> &str {
    match name {
        map::CONFIG => ".data.config",
        map::SOURCES => ".bss.sources",
        map::SENT => ".bss.sent",
        map::VERIFIED => ".bss.verified",
        map::KNOWN => ".bss.known",
        map::SERVICES => ".bss.services",
        map::AMPLIFIERS => ".bss.amplifiers",
        map::PREFILTER => ".bss.prefilter",
        map::SIGNATURES => ".bss.signatures",
        name => name,
    }
}

/// The maps that are data sections and are not set anew by loading: the loader would write zeros over what is there.
pub(super) fn kept_sections() -> impl Iterator<Item = &'static str> {
    map::ALL.into_iter().filter(|name| in_object(name).starts_with(".bss"))
}

/// What the pin of a link in the other direction ends with.
pub(super) const SENT_SUFFIX: &str = "-sent";
/// And that of the program of a filter there.
pub(super) const SENT_FILTER_SUFFIX: &str = "-sent-filter";

/// The directory on the BPF file system.
const HOME: &str = "floodwall";
/// In it, the directory of maps that are there for a moment.
const SCRATCH: &str = "self-test";

/// Where everything is pinned: one directory per ABI version, so that two versions never mistake each other's maps.
#[derive(Clone, Debug)]
pub struct Pins {
    root: PathBuf,
    directory: PathBuf,
}

impl Pins {
    /// The pins on this BPF file system.
    pub fn new(bpffs: impl Into<PathBuf>) -> Self {
        let root = bpffs.into();
        let directory = root.join(HOME).join(format!("v{ABI_VERSION}"));
        Self { root, directory }
    }

    /// Other pins beside these, of maps that are there for a moment.
    pub(super) fn scratch(&self) -> Self {
        Self { root: self.root.clone(), directory: self.home().join(SCRATCH) }
    }

    /// The BPF file system.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// The directory of all ABI versions.
    pub fn home(&self) -> PathBuf {
        self.root.join(HOME)
    }

    /// The directory of this ABI version.
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// The pin of a map.
    pub(super) fn map(&self, name: &str) -> PathBuf {
        self.directory.join(name)
    }

    /// The pin of a trie of lists: of this slot of that map.
    pub(super) fn trie(&self, name: &str, slot: usize) -> PathBuf {
        self.directory.join(format!("{name}-{slot}"))
    }

    /// The directory of the links.
    pub(super) fn links(&self) -> PathBuf {
        self.directory.join("links")
    }

    /// The pin of a device's link. By index, since a name may have characters that bpffs refuses, and may change.
    pub(super) fn link(&self, ifindex: u32) -> PathBuf {
        self.links().join(ifindex.to_string())
    }

    /// The pin of the link that remembers what leaves through a device.
    pub(super) fn sent_link(&self, ifindex: u32) -> PathBuf {
        self.links().join(format!("{ifindex}{SENT_SUFFIX}"))
    }

    /// The pin of the program of the filter that does so where the kernel has no such link.
    pub(super) fn sent_filter(&self, ifindex: u32) -> PathBuf {
        self.links().join(format!("{ifindex}{SENT_FILTER_SUFFIX}"))
    }
}

/// Banks of what is replaced as a whole: one is in force, the other one idle.
const BANKS: usize = 2;

/// What a map must look like.
pub(super) struct Shape {
    pub(super) name: &'static str,
    kind: MapType,
    key_bytes: u32,
    value_bytes: u32,
    entries: u32,
}

/// The maps of this build on a machine with so many possible CPUs.
pub(super) fn shapes(cpus: u32) -> [Shape; map::ALL.len()] {
    let array = |name, value_bytes: usize, entries: usize| Shape {
        name,
        kind: MapType::Array,
        key_bytes: 4,
        value_bytes: value_bytes as u32,
        entries: entries as u32,
    };
    let tries = |name| Shape { name, kind: MapType::ArrayOfMaps, key_bytes: 4, value_bytes: 4, entries: lists::SLOTS };
    [
        array(map::CONFIG, size_of::<Config>(), 1),
        array(map::CPUS, size_of::<CpuState>(), cpus as usize),
        array(map::SOURCES, size_of::<Bucket>() * BUCKETS, 1),
        tries(map::LISTS_V4),
        tries(map::LISTS_V6),
        array(map::PREFILTER, size_of::<[Prefilter; BANKS]>(), 1),
        Shape { name: map::SAMPLES, kind: MapType::RingBuf, key_bytes: 0, value_bytes: 0, entries: SAMPLE_RING_BYTES },
        array(map::INTERFACES, size_of::<InterfaceRecord>(), INTERFACE_SLOTS),
        array(map::TEST_CLOCK, size_of::<u64>(), 1),
        array(map::SENT, size_of::<Line>() * replies::LINES, 1),
        array(map::AMPLIFIERS, size_of::<PortSet>(), 1),
        array(map::VERIFIED, size_of::<Line>() * verified::LINES, 1),
        array(map::KNOWN, size_of::<Line>() * verified::LINES, 1),
        array(map::FIRST_SYNS, size_of::<first_syn::Line>(), first_syn::LINES),
        array(map::SERVICES, size_of::<PortTable>(), 1),
        array(map::SIGNATURES, size_of::<[Table; BANKS]>(), 1),
        array(map::SIGNATURE_SPECS, size_of::<Records>(), 2),
    ]
}

/// Makes the maps that are data sections of the object, and pins them: the loader would make them so that they cannot be
/// mapped into memory. One that can be begins with a page, and so with a cache line.
pub(super) fn create_sections(pins: &Pins) -> Result<()> {
    let is_section = |shape: &&Shape| in_object(shape.name) != shape.name;
    shapes(1).iter().filter(is_section).try_for_each(|shape| {
        let new = sys::NewMap {
            kind: sys::MAP_TYPE_ARRAY,
            key_bytes: shape.key_bytes,
            value_bytes: shape.value_bytes,
            entries: shape.entries,
            flags: sys::MMAPABLE,
        };
        sys::create_map(shape.name, new, None)
            .and_then(|map| sys::pin(map.as_fd(), &pins.map(shape.name)))
            .map_err(|source| Error::privileged("create the filter's maps", source))
    })
}

impl Shape {
    /// Opens the pinned map if it has this shape.
    pub(super) fn open(&self, pins: &Pins) -> Result<MapData> {
        let path = pins.map(self.name);
        let foreign = |what: String| Error::ForeignPin { path: path.clone(), what };
        let opened = MapData::from_pin(&path).map_err(|error| foreign(super::root_cause(&error)))?;
        let info = opened.info().map_err(|error| foreign(super::root_cause(&error)))?;
        let kind = info.map_type().map_err(|error| foreign(super::root_cause(&error)))?;
        let found = (info.key_size(), info.value_size(), info.max_entries());
        let wanted = (self.key_bytes, self.value_bytes, self.entries);
        if kind != self.kind || found != wanted {
            return Err(foreign(format!(
                "{kind:?} with key, value, entries {found:?} instead of {:?} with {wanted:?}",
                self.kind
            )));
        }
        Ok(opened)
    }
}

/// An array of the kernel, in this process's memory: reading it takes no system call.
///
/// The kernel half writes it meanwhile: words are read one by one, each whole, and are a little apart in time.
pub struct Mapped<T> {
    memory: NonNull<T>,
    bytes: NonZeroUsize,
    entries: usize,
    shared: PhantomData<T>,
}

// SAFETY: the memory is the kernel's, mapped for as long as this value lives, and read word by word; who writes keeps his to himself.
unsafe impl<T> Send for Mapped<T> {}
// SAFETY: as above.
unsafe impl<T> Sync for Mapped<T> {}

impl<T> Mapped<T> {
    /// Maps an array of `entries` values that was made to be mapped.
    pub(super) fn new(array: BorrowedFd<'_>, entries: usize) -> Result<Self> {
        Self::map(array, entries, libc::PROT_READ)
    }

    fn map(array: BorrowedFd<'_>, entries: usize, protection: i32) -> Result<Self> {
        use std::os::fd::AsRawFd;
        const { assert!(size_of::<T>().is_multiple_of(8), "the kernel rounds entries up to eight bytes") };
        let bytes = size_of::<T>() * entries;
        let failed = || Error::system("map a map of the filter into memory", std::io::Error::last_os_error());
        let bytes = NonZeroUsize::new(bytes.next_multiple_of(4096)).ok_or_else(failed)?;
        // SAFETY: a new mapping at an address of the kernel's choosing; nothing else is touched.
        let memory = unsafe {
            libc::mmap(std::ptr::null_mut(), bytes.get(), protection, libc::MAP_SHARED, array.as_fd().as_raw_fd(), 0)
        };
        if memory == libc::MAP_FAILED {
            return Err(failed());
        }
        let memory = NonNull::new(memory.cast()).ok_or_else(failed)?;
        Ok(Self { memory, bytes, entries, shared: PhantomData })
    }

    /// The entry at an index, for reading word by word.
    pub(super) fn entry(&self, index: usize) -> Option<*const T> {
        // SAFETY: inside the mapping, which holds `entries` values.
        (index < self.entries).then(|| unsafe { self.memory.as_ptr().add(index).cast_const() })
    }

    /// Pointers to all entries.
    pub(super) fn iter(&self) -> impl Iterator<Item = *const T> {
        (0..self.entries).filter_map(|index| self.entry(index))
    }
}

/// Writes a bank that is not in force, of a section that has one after the other.
pub(super) fn write_bank<T: aya::Pod>(section: BorrowedFd<'_>, bank: u32, value: &T) -> Result<()> {
    let banks = Mapped::<T>::map(section, BANKS, libc::PROT_READ | libc::PROT_WRITE)?;
    let none = || Error::system("write a bank", std::io::Error::from(std::io::ErrorKind::InvalidInput));
    let idle = banks.entry(bank as usize).ok_or_else(none)?;
    // SAFETY: inside the mapping, which may be written; no packet reads a bank that is not in force, and there is one writer.
    unsafe { idle.cast_mut().copy_from_nonoverlapping(value, 1) };
    Ok(())
}

/// What a section holds. On the heap from the beginning: it may be larger than a thread's stack can bear a few times over.
pub(super) fn read_section<T: aya::Pod>(section: BorrowedFd<'_>) -> Result<Box<T>> {
    let section = Mapped::<T>::map(section, 1, libc::PROT_READ)?;
    let none = || Error::system("read a section", std::io::Error::from(std::io::ErrorKind::InvalidInput));
    let mut value = Box::<T>::new_uninit();
    // SAFETY: both are of this type, which any bytes are a value of, and of its size.
    unsafe {
        value.as_mut_ptr().copy_from_nonoverlapping(section.entry(0).ok_or_else(none)?, 1);
        Ok(value.assume_init())
    }
}

/// Replaces what a section holds, word by word: packets see some of each meanwhile.
pub(super) fn write_section<T: aya::Pod>(section: BorrowedFd<'_>, value: &T) -> Result<()> {
    let section = Mapped::<T>::map(section, 1, libc::PROT_READ | libc::PROT_WRITE)?;
    let none = || Error::system("write a section", std::io::Error::from(std::io::ErrorKind::InvalidInput));
    let whole = section.entry(0).ok_or_else(none)?;
    // SAFETY: inside the mapping, which may be written; there is one writer.
    unsafe { whole.cast_mut().copy_from_nonoverlapping(value, 1) };
    Ok(())
}

impl Mapped<Line> {
    /// The memory pinned under this name, of so many lines.
    pub(super) fn memory(pins: &Pins, name: &str, lines: usize) -> Result<Self> {
        let pinned = sys::open_pinned(&pins.map(name)).map_err(|error| Error::system("open a memory", error))?;
        Self::new(pinned.as_fd(), lines)
    }

    /// Whether it holds this trace, by the clock of the filter.
    pub(super) fn remembers(&self, trace: Trace, now: Moment, span: Span) -> bool {
        // SAFETY: a live entry of the mapping; a line is read word by word, volatile.
        self.entry(trace.line(self.entries)).is_some_and(|line| unsafe { &*line }.remembers(trace, now, span))
    }
}

impl<T> Drop for Mapped<T> {
    fn drop(&mut self) {
        // SAFETY: the mapping that `new` made; nothing points into it any more.
        unsafe { libc::munmap(self.memory.as_ptr().cast(), self.bytes.get()) };
    }
}

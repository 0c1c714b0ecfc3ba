//! The allow and deny lists and who is in a group, in the kernel: built beside the ones in force, then put in force by one word.

use std::net::IpAddr;
use std::os::fd::{AsFd as _, OwnedFd};
use std::path::PathBuf;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use aya::maps::lpm_trie::{Key, LpmTrie};
use aya::maps::{ArrayOfMaps, Map, MapData, MapError};
use aya::sys::SyscallError;
use floodwall_common::abi::map;
use floodwall_common::class::Family;
use floodwall_common::clock::Moment;
use floodwall_common::lists::{
    FOREVER, Key4, Key6, LISTS, List, ListEntry, ListState, MAX_ENTRIES, NEAREST_WORDS, PREFILTER_WORDS, Prefilter,
    nearest_bit, prefilter_bit_v4, prefilter_bit_v6,
};
use ipnet::IpNet;

use super::error::{Error, Result};
use super::maps::{Pins, write_bank};
use super::text::{padded, unpadded};
use super::{root_cause, sys};
use crate::peers::AUTOMATIC;

/// The kernel wants this flag of every trie: nodes are allocated as they come.
const BPF_F_NO_PREALLOC: u32 = 1;
/// Banks times lists.
pub(super) const SLOTS: u32 = 2 * LISTS as u32;

/// A prefix on a list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listed {
    /// The prefix.
    pub prefix: IpNet,
    /// When it ends, on the packet path's clock; `None` for never.
    pub until: Option<Moment>,
    /// When it was added.
    pub added: SystemTime,
    /// Why.
    pub note: String,
    /// The number of the group, on [`List::Groups`]; else zero.
    pub group: u32,
}

impl Listed {
    /// Whether nobody has put it there: it came by itself.
    pub fn is_automatic(&self) -> bool {
        self.note.starts_with(AUTOMATIC)
    }
}

/// The maps of the lists.
pub(super) struct Tries {
    v4: TriesOf<Key4>,
    v6: TriesOf<Key6>,
    prefilter: MapData,
}

/// The tries of one family, by bank and list.
struct TriesOf<K> {
    outer: ArrayOfMaps<MapData, Trie<K>>,
    outer_fd: OwnedFd,
    name: &'static str,
    /// Those that are in there, each pinned by itself: opening one by its number takes CAP_SYS_ADMIN.
    held: [Option<OwnedFd>; SLOTS as usize],
}

type Trie<K> = LpmTrie<MapData, K, ListEntry>;

impl<K: aya::Pod> TriesOf<K> {
    fn open(pins: &Pins, name: &'static str, outer: MapData) -> Result<Self> {
        let outer_fd = outer.fd().as_fd().try_clone_to_owned();
        let outer_fd = outer_fd.map_err(|source| Error::system("open the lists", source))?;
        let outer = ArrayOfMaps::try_from(Map::ArrayOfMaps(outer)).map_err(unreadable)?;
        let held = std::array::from_fn(|slot| sys::open_pinned(&pins.trie(name, slot)).ok());
        Ok(Self { outer, outer_fd, name, held })
    }

    /// What is in a slot; nothing where no trie was ever put in.
    fn get(&self, slot: u32) -> Result<Option<Trie<K>>> {
        let number = sys::map_in(self.outer_fd.as_fd(), slot);
        let number = number.map_err(|source| Error::system("read the lists", source))?;
        let (Some(number), Some(held)) = (number, &self.held[slot as usize]) else { return self.by_number(slot) };
        let held = held.try_clone().map_err(|source| Error::system("read the lists", source))?;
        let held = MapData::from_fd(held).map_err(unreadable)?;
        // Another build may have put one in and not pinned it.
        match held.info().map_err(unreadable)?.id() == number {
            true => LpmTrie::try_from(Map::LpmTrie(held)).map(Some).map_err(unreadable),
            false => self.by_number(slot),
        }
    }

    fn by_number(&self, slot: u32) -> Result<Option<Trie<K>>> {
        match self.outer.get(&slot, 0) {
            Ok(trie) => Ok(Some(trie)),
            Err(MapError::KeyNotFound) => Ok(None),
            Err(error) => Err(unreadable(error)),
        }
    }

    /// Puts a trie in. Where it cannot be pinned, as where the BPF file system was wiped, that is made up for with the other pins.
    fn set(&mut self, pins: &Pins, slot: u32, new: &NewTrie<K>) -> Result<()> {
        self.outer.set(slot, &new.trie, 0).map_err(unwritable)?;
        let held = new.fd.try_clone();
        let held = held.map_err(|source| Error::system("write the lists; nothing was changed", source))?;
        let path = pins.trie(self.name, slot as usize);
        let _ = std::fs::remove_file(&path);
        let _ = sys::pin(held.as_fd(), &path);
        self.held[slot as usize] = Some(held);
        Ok(())
    }

    fn pins<'a>(&'a self, pins: &'a Pins) -> impl Iterator<Item = (PathBuf, &'a OwnedFd)> {
        let named =
            move |(slot, held): (usize, &'a Option<OwnedFd>)| Some((pins.trie(self.name, slot), held.as_ref()?));
        self.held.iter().enumerate().filter_map(named)
    }
}

/// A [`Prefilter`], as the loader's library takes it.
#[derive(Clone, Copy)]
#[repr(transparent)]
pub(super) struct PrefilterWords([u64; WORDS]);

/// Words of the bitmaps in front of the one that is asked next.
const NEAR_WORDS: usize = PREFILTER_WORDS * 2 * LISTS;
const WORDS: usize = NEAR_WORDS + NEAREST_WORDS;

const _: () = assert!(size_of::<PrefilterWords>() == size_of::<Prefilter>());

// SAFETY: integers only.
unsafe impl aya::Pod for PrefilterWords {}

/// Makes and pins the maps that the tries are put into, before the loader's library would. It gives their template the
/// types of keys and values (BTF), which the tries made here have not, and kernels 5.15 to 6.1 then refuse to put these
/// in: they compare where in a value a timer lies, which "in no types" and "nowhere in these types" answer differently.
pub(super) fn create(pins: &Pins) -> Result<()> {
    let failed = |source| Error::privileged("create the maps of the lists", source);
    for (name, data_bytes) in [(map::LISTS_V4, size_of::<Key4>()), (map::LISTS_V6, size_of::<Key6>())] {
        // How many entries is of no account to what may be put in, and this the least memory to ask for.
        let template = sys::create_map("", trie_of(data_bytes, 1), None).map_err(failed)?;
        let tries =
            sys::NewMap { kind: sys::MAP_TYPE_ARRAY_OF_MAPS, key_bytes: 4, value_bytes: 4, entries: SLOTS, flags: 0 };
        let outer = sys::create_map(name, tries, Some(template.as_fd())).map_err(failed)?;
        sys::pin(outer.as_fd(), &pins.map(name)).map_err(failed)?;
    }
    Ok(())
}

impl Tries {
    pub(super) fn open(pins: &Pins, v4: MapData, v6: MapData, prefilter: MapData) -> Result<Self> {
        let (v4, v6) = (TriesOf::open(pins, map::LISTS_V4, v4)?, TriesOf::open(pins, map::LISTS_V6, v6)?);
        Ok(Self { v4, v6, prefilter })
    }

    /// Where the tries are pinned.
    pub(super) fn pins<'a>(&'a self, pins: &'a Pins) -> impl Iterator<Item = (PathBuf, &'a OwnedFd)> {
        self.v4.pins(pins).chain(self.v6.pins(pins))
    }

    /// What is on a list in this bank.
    pub(super) fn read(&self, list: List, bank: u32) -> Result<Vec<Listed>> {
        let slot = slot(bank, list);
        let mut entries = Vec::new();
        if let Some(trie) = self.v4.get(slot)? {
            for item in trie.iter() {
                let (key, entry) = item.map_err(unreadable)?;
                let data: Key4 = key.data();
                let address = IpAddr::from([data[0], data[1], data[2], data[3]]);
                entries.extend(listed(address, key.prefix_len(), &entry));
            }
        }
        if let Some(trie) = self.v6.get(slot)? {
            for item in trie.iter() {
                let (key, entry) = item.map_err(unreadable)?;
                entries.extend(listed(IpAddr::from(key.data()), key.prefix_len(), &entry));
            }
        }
        entries.sort_by_key(|entry| entry.prefix);
        Ok(entries)
    }

    /// Puts prepared lists into a bank that is not in force. Says what it holds; it comes in force when that is written to
    /// the configuration.
    pub(super) fn install(&mut self, pins: &Pins, bank: u32, prepared: &PreparedLists) -> Result<ListState> {
        for (list, tries) in List::ALL.iter().zip(&prepared.tries) {
            self.v4.set(pins, slot(bank, *list), &tries.v4)?;
            self.v6.set(pins, slot(bank, *list), &tries.v6)?;
        }
        write_bank(self.prefilter.fd().as_fd(), bank, &*prepared.words)?;
        let state = ListState::empty(bank);
        Ok(prepared.holds.iter().fold(state, |state, (list, family)| state.with(*list, *family)))
    }
}

/// All lists in tries of their own, that nothing looks at yet. Making them takes seconds for a million entries, and needs
/// no lock.
pub struct PreparedLists {
    tries: Vec<PreparedTries>,
    words: Box<PrefilterWords>,
    holds: Vec<(List, Family)>,
}

struct PreparedTries {
    v4: NewTrie<Key4>,
    v6: NewTrie<Key6>,
}

/// A trie that is in no list yet.
struct NewTrie<K> {
    trie: Trie<K>,
    fd: OwnedFd,
}

impl<K: aya::Pod> NewTrie<K> {
    fn new() -> Result<Self> {
        let failed = |source| Error::privileged("create the maps of the lists", source);
        let fd = sys::create_map("", trie_of(size_of::<K>(), MAX_ENTRIES), None).map_err(failed)?;
        let data = MapData::from_fd(fd.try_clone().map_err(failed)?).map_err(unwritable)?;
        Ok(Self { trie: LpmTrie::try_from(Map::LpmTrie(data)).map_err(unwritable)?, fd })
    }
}

/// The shape of a trie of so many entries: in front of the data of a key is the length of its prefix.
const fn trie_of(data_bytes: usize, entries: u32) -> sys::NewMap {
    let key_bytes = (size_of::<u32>() + data_bytes) as u32;
    let value_bytes = size_of::<ListEntry>() as u32;
    sys::NewMap { kind: sys::MAP_TYPE_LPM_TRIE, key_bytes, value_bytes, entries, flags: BPF_F_NO_PREALLOC }
}

impl PreparedLists {
    /// Builds the tries, of all lists in the order of their numbers.
    ///
    /// # Errors
    /// Where a list is too long, or the kernel has no memory for it.
    pub fn new(lists: [&[Listed]; LISTS]) -> Result<Self> {
        let mut words = Box::new(PrefilterWords([0; WORDS]));
        let mut holds = Vec::new();
        let mut build = |list: List, entries: &[Listed]| -> Result<PreparedTries> {
            if entries.len() > MAX_ENTRIES as usize {
                return Err(Error::ListFull { list: list.label(), entries: entries.len(), room: MAX_ENTRIES });
            }
            let tries = PreparedTries::new(entries)?;
            entries.iter().for_each(|entry| words.mark(list, entry.prefix));
            let has = |family: Family| entries.iter().any(|entry| family_of(entry.prefix) == family);
            holds.extend(Family::ALL.iter().filter(|family| has(**family)).map(|family| (list, *family)));
            Ok(tries)
        };
        let tries = List::ALL.iter().zip(lists).map(|(list, entries)| build(*list, entries)).collect::<Result<_>>()?;
        Ok(Self { tries, words, holds })
    }
}

impl PreparedTries {
    fn new(entries: &[Listed]) -> Result<Self> {
        let (mut v4, mut v6) = (NewTrie::new()?, NewTrie::new()?);
        for (entry, covered_until_ns) in with_cover(entries) {
            let value = value(entry, covered_until_ns);
            match entry.prefix {
                IpNet::V4(prefix) => {
                    let mut data = Key4::default();
                    data[..4].copy_from_slice(&prefix.network().octets());
                    let key = Key::new(u32::from(prefix.prefix_len()), data);
                    patiently(|| v4.trie.insert(&key, value, 0)).map_err(unwritable)?;
                }
                IpNet::V6(prefix) => {
                    let key = Key::new(u32::from(prefix.prefix_len()), prefix.network().octets());
                    patiently(|| v6.trie.insert(&key, value, 0)).map_err(unwritable)?;
                }
            }
        }
        Ok(Self { v4, v6 })
    }
}

/// How long an entry waits for memory.
const PATIENCE: Duration = Duration::from_secs(2);

/// Writes an entry, again where the kernel has no memory. It takes that of a trie from what is free at this moment; where the
/// rest is full of files that could be read anew, as it is on every machine after a while, it makes room behind our back, and
/// soon.
fn patiently(mut write: impl FnMut() -> Result<(), MapError>) -> Result<(), MapError> {
    let begun = Instant::now();
    loop {
        match write() {
            Err(MapError::SyscallError(error)) if is_passing(&error) && begun.elapsed() < PATIENCE => {
                // condition: free memory, asked for by trying.
                std::thread::sleep(Duration::from_millis(1));
            }
            done => return done,
        }
    }
}

fn is_passing(error: &SyscallError) -> bool {
    error.io_error.raw_os_error() == Some(libc::ENOMEM)
}

const fn family_of(prefix: IpNet) -> Family {
    match prefix {
        IpNet::V4(_) => Family::V4,
        IpNet::V6(_) => Family::V6,
    }
}

const fn slot(bank: u32, list: List) -> u32 {
    bank * LISTS as u32 + list as u32
}

fn unreadable(error: MapError) -> Error {
    Error::system("read the lists", std::io::Error::other(root_cause(&error)))
}

fn unwritable(error: MapError) -> Error {
    Error::system("write the lists; nothing was changed", std::io::Error::other(root_cause(&error)))
}

fn listed(address: IpAddr, length: u32, entry: &ListEntry) -> Option<Listed> {
    Some(Listed {
        prefix: IpNet::new(address, u8::try_from(length).ok()?).ok()?,
        until: (entry.until_ns != FOREVER).then(|| Moment::from_ns(entry.until_ns)),
        added: UNIX_EPOCH + Duration::from_secs(entry.added_unix_s.into()),
        note: unpadded(&entry.note),
        group: entry.group,
    })
}

fn value(entry: &Listed, covered_until_ns: u64) -> ListEntry {
    let added = entry.added.duration_since(UNIX_EPOCH).unwrap_or_default();
    let note = padded(&entry.note);
    let added_unix_s = u32::try_from(added.as_secs()).unwrap_or(u32::MAX);
    ListEntry { covered_until_ns, until_ns: until_ns(entry), added_unix_s, group: entry.group, note }
}

fn until_ns(entry: &Listed) -> u64 {
    entry.until.map_or(FOREVER, Moment::ns)
}

/// Every entry with the latest expiry of all that cover it: what a look-up of the longest match has to know of the
/// shorter ones.
fn with_cover(entries: &[Listed]) -> Vec<(&Listed, u64)> {
    let mut sorted: Vec<_> = entries.iter().collect();
    // A prefix sorts before what it covers.
    sorted.sort_by_key(|entry| (entry.prefix.network(), entry.prefix.prefix_len()));
    let mut covers: Vec<(IpNet, u64)> = Vec::new();
    let mut result = Vec::with_capacity(sorted.len());
    for entry in sorted {
        while covers.last().is_some_and(|(cover, _)| !cover.contains(&entry.prefix)) {
            covers.pop();
        }
        let above = covers.last().map_or(0, |(_, until)| *until);
        let until = until_ns(entry).max(above);
        covers.push((entry.prefix, until));
        result.push((entry, until));
    }
    result
}

impl PrefilterWords {
    fn mark(&mut self, list: List, prefix: IpNet) {
        match prefix {
            IpNet::V4(prefix) => {
                let (first, last) = (u32::from(prefix.network()), u32::from(prefix.broadcast()));
                (prefilter_bit_v4(first)..=prefilter_bit_v4(last)).for_each(|bit| self.set(list, Family::V4, bit));
                (first >> 8..=last >> 8).for_each(|near| self.set_nearest(nearest_bit(near << 8)));
            }
            // The bit is a hash of the first 32: a shorter prefix may be anywhere.
            IpNet::V6(prefix) if prefix.prefix_len() < 32 => {
                (0..PREFILTER_WORDS as u32 * 64).for_each(|bit| self.set(list, Family::V6, bit));
            }
            IpNet::V6(prefix) => {
                let upper = (u128::from(prefix.network()) >> 64) as u64;
                self.set(list, Family::V6, prefilter_bit_v6(upper));
            }
        }
    }

    fn set_nearest(&mut self, bit: u32) {
        self.0[NEAR_WORDS + (bit >> 6) as usize] |= 1 << (bit & 63);
    }

    fn set(&mut self, list: List, family: Family, bit: u32) {
        let words = (list as usize * 2 + family as usize) * PREFILTER_WORDS;
        self.0[words + (bit >> 6) as usize] |= 1 << (bit & 63);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use floodwall_common::lists::NOTE_BYTES;

    #[test]
    fn a_moment_without_memory_is_waited_for_and_nothing_else() {
        let failed = |code| {
            let io_error = std::io::Error::from_raw_os_error(code);
            Err(MapError::SyscallError(SyscallError { call: "bpf_map_update_elem", io_error }))
        };
        let mut tries = 0;
        let written = patiently(|| {
            tries += 1;
            if tries < 4 { failed(libc::ENOMEM) } else { Ok(()) }
        });
        assert!(written.is_ok() && tries == 4, "{written:?} after {tries}");
        let mut tries = 0;
        let refused = patiently(|| {
            tries += 1;
            failed(libc::ENOSPC)
        });
        assert!(refused.is_err() && tries == 1, "{refused:?} after {tries}");
    }

    fn entry(prefix: &str, until: Option<u64>) -> Listed {
        Listed {
            prefix: prefix.parse().expect("a prefix"),
            until: until.map(Moment::from_ns),
            added: UNIX_EPOCH,
            note: String::new(),
            group: 0,
        }
    }

    fn covers(entries: &[Listed]) -> Vec<(String, u64)> {
        with_cover(entries).into_iter().map(|(entry, until)| (entry.prefix.to_string(), until)).collect()
    }

    #[test]
    fn an_entry_lives_as_long_as_what_covers_it() {
        let entries = [
            entry("10.1.2.0/24", Some(5)),
            entry("10.0.0.0/8", Some(9)),
            entry("10.1.0.0/16", Some(7)),
            entry("11.0.0.0/8", Some(1)),
            entry("10.200.0.0/16", None),
            entry("10.200.1.1/32", Some(2)),
            entry("2001:db8::/32", Some(3)),
            entry("2001:db8:1::/48", Some(2)),
        ];
        let expected = [
            ("10.0.0.0/8", 9),
            ("10.1.0.0/16", 9),
            ("10.1.2.0/24", 9),
            ("10.200.0.0/16", FOREVER),
            ("10.200.1.1/32", FOREVER),
            ("11.0.0.0/8", 1),
            ("2001:db8::/32", 3),
            ("2001:db8:1::/48", 3),
        ];
        let expected: Vec<_> = expected.iter().map(|(prefix, until)| ((*prefix).to_owned(), *until)).collect();
        assert_eq!(covers(&entries), expected);
    }

    #[test]
    fn a_note_is_cut_between_characters() {
        let mut long = entry("10.0.0.0/8", None);
        long.note = "é".repeat(40);
        let value = value(&long, FOREVER);
        let read = listed("10.0.0.0".parse().expect("an address"), 8, &value).expect("an entry");
        assert_eq!(read.note, "é".repeat(NOTE_BYTES / 2));
        assert_eq!(read.until, None);
    }

    #[test]
    fn the_prefilter_covers_all_of_a_prefix() {
        let mut words = PrefilterWords([0; WORDS]);
        words.mark(List::Deny, "10.0.0.0/15".parse().expect("a prefix"));
        let set = |words: &[u64]| words.iter().map(|word| word.count_ones()).sum::<u32>();
        let (bits, nearest) = words.0.split_at(NEAR_WORDS);
        assert_eq!(set(bits), 2);
        assert!((0x0a00_0000..0x0a02_0000_u32).step_by(256).all(|address| {
            let bit = nearest_bit(address);
            nearest[(bit >> 6) as usize] >> (bit & 63) & 1 == 1
        }));
        assert!((200..=512).contains(&set(nearest)), "{}", set(nearest));
        words.mark(List::Deny, "0.0.0.0/0".parse().expect("a prefix"));
        words.mark(List::Allow, "2000::/3".parse().expect("a prefix"));
        let (bits, nearest) = words.0.split_at(NEAR_WORDS);
        assert_eq!((set(bits), set(nearest)), (2 * 65_536, NEAREST_WORDS as u32 * 64));
    }
}

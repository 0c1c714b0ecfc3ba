//! The maps. Who writes, who reads, the bound and what happens when full stands at each name in `floodwall_common::abi`.

use core::cell::UnsafeCell;
use core::mem::MaybeUninit;

use aya_ebpf::btf_maps::lpm_trie::Key;
use aya_ebpf::btf_maps::{Array, ArrayOfMaps, LpmTrie};
use aya_ebpf::helpers::generated::bpf_get_smp_processor_id;
use aya_ebpf::macros::btf_map;
use floodwall_common::abi::{CpuState, INTERFACE_SLOTS, InterfaceRecord, SAMPLE_RING_BYTES};
use floodwall_common::config::Config;
use floodwall_common::hash::Place;
use floodwall_common::limiter::{BUCKETS, Bucket};
use floodwall_common::lists::{Key4, Key6, LISTS, List, ListEntry, ListState, MAX_ENTRIES, Prefilter};
use floodwall_common::memory::{Line, Trace};
use floodwall_common::packet::Source;
use floodwall_common::replies::PortSet;
use floodwall_common::services::PortTable;
use floodwall_common::signatures::Records;
use floodwall_common::signatures::table::Table;
use floodwall_common::{first_syn, replies, verified};

/// The controller maps these into its memory: a snapshot costs no system call.
const MMAPABLE: usize = aya_ebpf::bindings::BPF_F_MMAPABLE as usize;
/// Set when loading, to the number of possible CPUs.
const CPU_COUNT: usize = 1;
/// Banks times lists.
const TRIES: usize = 2 * LISTS;

/// A data section and not an array, so that reading it takes no look-up: two instructions a word instead of twelve.
#[unsafe(link_section = ".data.config")]
#[unsafe(no_mangle)]
static CONFIG: Section<Config> = Section::zeroed();

/// A value that this half only reads.
#[repr(transparent)]
struct Section<T>(UnsafeCell<MaybeUninit<T>>);

// SAFETY: this half only reads it; the controller replaces it from outside, word by word.
unsafe impl<T> Sync for Section<T> {}

impl<T> Section<T> {
    const fn zeroed() -> Self {
        Self(UnsafeCell::new(MaybeUninit::zeroed()))
    }

    /// What it holds.
    #[inline(always)]
    const fn get(&'static self) -> &'static T {
        // SAFETY: each of these is made of integers only, so that any bytes are a value.
        unsafe { (*self.0.get()).assume_init_ref() }
    }
}

#[btf_map]
static CPUS: Array<CpuState, CPU_COUNT, MMAPABLE> = Array::new();

// Data sections for the same reason. The controller sees to it that loading does not write zeros over what is there.

#[unsafe(link_section = ".bss.sources")]
#[unsafe(no_mangle)]
static SOURCES: [Bucket; BUCKETS] = [const { Bucket::empty() }; BUCKETS];

#[unsafe(link_section = ".bss.sent")]
#[unsafe(no_mangle)]
static SENT: [Line; replies::LINES] = [const { Line::empty() }; replies::LINES];

#[unsafe(link_section = ".bss.verified")]
#[unsafe(no_mangle)]
static VERIFIED: [Line; verified::LINES] = [const { Line::empty() }; verified::LINES];

#[unsafe(link_section = ".bss.known")]
#[unsafe(no_mangle)]
static KNOWN: [Line; verified::LINES] = [const { Line::empty() }; verified::LINES];

#[unsafe(link_section = ".bss.services")]
#[unsafe(no_mangle)]
static SERVICES: Section<PortTable> = Section::zeroed();

#[unsafe(link_section = ".bss.amplifiers")]
#[unsafe(no_mangle)]
static AMPLIFIERS: Section<PortSet> = Section::zeroed();

#[unsafe(link_section = ".bss.prefilter")]
#[unsafe(no_mangle)]
static PREFILTER: Section<[Prefilter; 2]> = Section::zeroed();

#[unsafe(link_section = ".bss.signatures")]
#[unsafe(no_mangle)]
static SIGNATURES: Section<[Table; 2]> = Section::zeroed();

#[btf_map]
static INTERFACES: Array<InterfaceRecord, INTERFACE_SLOTS> = Array::new();

#[btf_map]
static FIRST_SYNS: Array<first_syn::Line, { first_syn::LINES }> = Array::new();

#[btf_map]
static SIGNATURE_SPECS: Array<Records, 2> = Array::new();

#[btf_map]
static TEST_CLOCK: Array<u64, 1, MMAPABLE> = Array::new();

type Trie4 = LpmTrie<Key4, ListEntry, { MAX_ENTRIES as usize }>;
type Trie6 = LpmTrie<Key6, ListEntry, { MAX_ENTRIES as usize }>;

#[btf_map]
static LISTS_V4: ArrayOfMaps<Trie4, TRIES> = ArrayOfMaps::new();

#[btf_map]
static LISTS_V6: ArrayOfMaps<Trie6, TRIES> = ArrayOfMaps::new();

#[btf_map]
pub(crate) static SAMPLES: SampleRing = SampleRing::new();

/// A ring buffer without key and value types, which libbpf and bpftool refuse on one.
#[repr(C)]
pub(crate) struct SampleRing {
    r#type: *const [i32; aya_ebpf::bindings::bpf_map_type::BPF_MAP_TYPE_RINGBUF as usize],
    max_entries: *const [i32; SAMPLE_RING_BYTES as usize],
}

// SAFETY: a definition for the loader; the kernel's helpers synchronise.
unsafe impl Sync for SampleRing {}

impl SampleRing {
    const fn new() -> Self {
        Self { r#type: core::ptr::null(), max_entries: core::ptr::null() }
    }

    pub(crate) fn as_ptr(&self) -> *mut core::ffi::c_void {
        core::ptr::from_ref(self).cast_mut().cast()
    }
}

/// What the operator wants.
#[inline(always)]
pub(crate) fn config() -> &'static Config {
    CONFIG.get()
}

/// The state of this CPU. Only this CPU writes it, and packets on one CPU come one after the other.
#[inline(always)]
pub(crate) fn this_cpu() -> Option<*mut CpuState> {
    // SAFETY: no arguments, no effects.
    let cpu = unsafe { bpf_get_smp_processor_id() };
    CPUS.get_ptr_mut(cpu)
}

/// A line of the source table.
#[inline(always)]
pub(crate) fn bucket(place: Place) -> &'static Bucket {
    &SOURCES[place.bucket() & (BUCKETS - 1)]
}

/// The entry of the source table where a source is looked for first.
#[inline(always)]
pub(crate) fn likely_entry(place: Place) -> u64 {
    // SAFETY: entries are words, as many as that index can name, and written whole.
    unsafe { (&raw const SOURCES).cast::<u64>().add(place.likely()).read_volatile() }
}

/// The line of the memory of what was sent that a trace lies in.
#[inline(always)]
pub(crate) fn sent(trace: Trace) -> &'static Line {
    &SENT[trace.line(replies::LINES)]
}

/// The line of the memory of verified sources that a trace lies in.
#[inline(always)]
pub(crate) fn verified(trace: Trace) -> &'static Line {
    &VERIFIED[trace.line(verified::LINES)]
}

/// The line of what was there of it before.
#[inline(always)]
pub(crate) fn known(trace: Trace) -> &'static Line {
    &KNOWN[trace.line(verified::LINES)]
}

/// The line of the memory of first SYNs that a trace lies in.
#[inline(always)]
pub(crate) fn first_syns(trace: Trace) -> Option<&'static first_syn::Line> {
    FIRST_SYNS.get(trace.line(first_syn::LINES) as u32)
}

/// The services behind ports.
#[inline(always)]
pub(crate) fn services() -> &'static PortTable {
    SERVICES.get()
}

/// The UDP ports that replies come from.
#[inline(always)]
pub(crate) fn amplifiers() -> &'static PortSet {
    AMPLIFIERS.get()
}

/// A bank of signatures.
#[inline(always)]
pub(crate) fn signatures(bank: u32) -> &'static Table {
    &SIGNATURES.get()[bank as usize & 1]
}

/// The clock of a test, in nanoseconds.
#[inline(always)]
pub(crate) fn test_clock() -> Option<u64> {
    // SAFETY: a live array entry; tests write it whole.
    TEST_CLOCK.get_ptr(0).map(|ns| unsafe { ns.read_volatile() })
}

/// The entry that a list has for a source.
#[inline(always)]
pub(crate) fn listed(list: List, source: Source, state: ListState) -> Option<&'static ListEntry> {
    if !state.has(list, source.family()) || !is_near(list, source, state.bank()) {
        return None;
    }
    look_up(list, source, state.bank())
}

/// Whether the prefilter has anything near the source in any list.
#[inline(always)]
pub(crate) fn may_be_listed(source: Source, state: ListState) -> bool {
    prefilter(state.bank()).is_near(source, List::ALL)
}

/// Whether the prefilter has anything near the source.
#[inline(always)]
fn is_near(list: List, source: Source, bank: u32) -> bool {
    prefilter(bank).is_near(source, &[list])
}

#[inline(always)]
fn prefilter(bank: u32) -> &'static Prefilter {
    &PREFILTER.get()[bank as usize & 1]
}

/// The slow half: two look-ups in the kernel, for sources near a listed prefix.
#[inline(always)]
fn look_up(list: List, source: Source, bank: u32) -> Option<&'static ListEntry> {
    let trie = bank * LISTS as u32 + list as u32;
    match source {
        Source::V4(address) => {
            let key = AlignedKey { hole: 0, prefix_length: 32, data: u64::from(address.to_be()) };
            LISTS_V4.get(trie)?.get(key.as_trie_key())
        }
        Source::V6(upper, lower) => {
            let key = AlignedKey { hole: 0, prefix_length: 128, data: [upper.to_be(), lower.to_be()] };
            LISTS_V6.get(trie)?.get(key.as_trie_key())
        }
    }
}

/// A trie's key with a hole in front, so that its data is aligned: the verifier refuses a misaligned word on the stack.
#[repr(C, align(8))]
struct AlignedKey<D> {
    hole: u32,
    prefix_length: u32,
    data: D,
}

impl<D> AlignedKey<D> {
    #[inline(always)]
    fn as_trie_key<K>(&self) -> &Key<K> {
        const { assert!(size_of::<K>() == size_of::<D>() && align_of::<Key<K>>() == 1) };
        // SAFETY: behind the hole lie a prefix length and data, packed as in a key of this size.
        unsafe { &*(&raw const self.prefix_length).cast() }
    }
}

//! What can go wrong between the controller and the kernel, so that a caller can tell and a person knows what to do.

use std::io;
use std::path::PathBuf;

use floodwall_common::limits::LimitKey;
use floodwall_common::signatures::{SIGNATURES, WINDOWS};

use crate::capabilities;
use crate::exit::Exit;

/// A failure of the dataplane.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The directory for pins is not on a BPF file system.
    #[error(
        "{path} is not a BPF file system\n  try: mount -t bpf bpf {path}   (or name another with --bpffs)",
        path = path.display()
    )]
    NoBpfFileSystem {
        /// Where it should be.
        path: PathBuf,
    },
    /// The pins cannot be made.
    #[error("cannot create {path}: {source}\n  try: run as root; if it is mounted read-only: mount -o remount,rw {root}",
        path = path.display(), root = root.display())]
    PinDirectory {
        /// The directory.
        path: PathBuf,
        /// The file system that it is on.
        root: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Nothing is pinned where it should be.
    #[error("no filter is loaded: nothing is pinned at {path}\n  try: floodwall run --interface <name>", path = path.display())]
    NotLoaded {
        /// Where it should be.
        path: PathBuf,
    },
    /// What is pinned is not what this build makes.
    #[error("{path} is not what this version of floodwall makes: {what}\n  try: floodwall detach   (removes it), then start again",
        path = path.display())]
    ForeignPin {
        /// The pin.
        path: PathBuf,
        /// The difference.
        what: String,
    },
    /// Another process holds the pins.
    #[error("another floodwall works on {path}\n  try: use its socket (--socket), or stop it", path = path.display())]
    Locked {
        /// The directory.
        path: PathBuf,
    },
    /// The process lacks a capability.
    #[error("not permitted to {action}: {why}\n  try: {mend}")]
    NotPermitted {
        /// What was tried.
        action: &'static str,
        /// What is missing, as far as that can be seen.
        why: String,
        /// What to do about it.
        mend: &'static str,
    },
    /// There is no such interface.
    #[error("no interface '{name}' (have: {have})")]
    NoInterface {
        /// The name.
        name: String,
        /// Those that there are.
        have: String,
    },
    /// All slots are taken.
    #[error("cannot protect '{name}': {slots} interfaces are protected already, and there is room for no more")]
    NoSlot {
        /// The interface.
        name: String,
        /// How many there are.
        slots: usize,
    },
    /// The kill switch is on.
    #[error("all dropping has been stopped: the mode stays as it is\n  try: floodwall resume")]
    Stopped,
    /// Another XDP program is on the device.
    #[error(
        "another XDP program is on '{interface}': id {program_id}{name}, in {mode} mode. It is left alone\n  try: \
        ask its owner to remove it (bpftool net show dev {interface} says more; `ip link set dev {interface} xdp off` removes one \
        that is not held by a link)"
    )]
    ForeignProgram {
        /// The interface.
        interface: String,
        /// The program's number.
        program_id: u32,
        /// `, name 'x'`, where the kernel tells.
        name: String,
        /// How it is attached.
        mode: &'static str,
    },
    /// The driver does not run XDP.
    #[error(
        "the driver of '{interface}' has no native XDP ({source})\n  try: --allow-generic (slower: the kernel has built the packet by then)"
    )]
    NoNativeXdp {
        /// The interface.
        interface: String,
        /// What the kernel said.
        source: io::Error,
    },
    /// The device is set up in a way that XDP cannot run with.
    #[error("'{interface}' refuses native XDP: {why} ({source}{said})\n  try: {mend}")]
    DeviceRefuses {
        /// The interface.
        interface: String,
        /// What of its set-up is in the way.
        why: String,
        /// `: "words"` of its driver, where it has said any.
        said: String,
        /// The command that mends it.
        mend: String,
        /// What the kernel said.
        source: io::Error,
    },
    /// The kernel refused the program.
    #[error(
        "the kernel refused the filter program: {reason}\n  try: check that this process has CAP_PERFMON, and that the kernel is \
        5.15 or newer; report this with `uname -r`"
    )]
    Rejected {
        /// Why.
        reason: String,
    },
    /// A value changed between being read and being written.
    #[error(
        "changed since it was read (generation {found}, expected {expected})\n  try: look at it again, then repeat"
    )]
    Changed {
        /// The generation that the caller had seen.
        expected: u64,
        /// The one in force.
        found: u64,
    },
    /// There is no hook where packets leave.
    #[error(
        "what leaves through {interface} cannot be seen: this kernel has no TCX (6.6 has), and refuses a filter on a clsact \
         qdisc ({source}). All else works; unsolicited replies cannot be told\n  try: modprobe -a sch_ingress cls_bpf; \
         tc qdisc show dev {interface}   (one of the kind `ingress` has to be `clsact`)"
    )]
    NoEgressHook {
        /// The interface.
        interface: String,
        /// What the kernel said.
        source: io::Error,
    },
    /// A limit that no meter can keep.
    #[error("limit {limit}: its {unit} are out of range. Nothing was changed")]
    LimitOutOfRange {
        /// The limit.
        limit: LimitKey,
        /// `packets` or `bytes`.
        unit: &'static str,
    },
    /// A cap that no meter can keep.
    #[error(
        "a cap of {cap} is out of range: packets per second go from 1 to 1000000, the burst to 500 seconds of that"
    )]
    CapOutOfRange {
        /// The cap.
        cap: String,
    },
    /// More services than there is room for.
    #[error("there is room for {most} services. Nothing was changed")]
    TooManyServices {
        /// How many there can be.
        most: usize,
    },
    /// More groups than there is room for.
    #[error("there is room for {most} groups. Nothing was changed")]
    TooManyGroups {
        /// How many there can be.
        most: usize,
    },
    /// More entries than a list can hold.
    #[error("{list} list: {entries} entries, and room for {room}. Nothing was changed")]
    ListFull {
        /// The list.
        list: &'static str,
        /// What was asked.
        entries: usize,
        /// What fits.
        room: u32,
    },
    /// More signatures than there is room for.
    #[error(
        "{wanted} signatures, and room for {SIGNATURES}. Nothing was changed\n  try: floodwall signature remove <name>"
    )]
    TooManySignatures {
        /// What was asked.
        wanted: usize,
    },
    /// Payloads are to be compared in too many ways.
    #[error(
        "signatures would look at payloads in more than {WINDOWS} ways: each offset and mask is one. Nothing was changed\n  \
         try: an offset and bytes that another signature compares too (floodwall signature list)"
    )]
    TooManyWindows,
    /// A system call failed for no reason known here.
    #[error("cannot {action}: {source}")]
    System {
        /// What was tried.
        action: String,
        /// What the kernel said.
        source: io::Error,
    },
}

impl Error {
    /// The exit code that it means.
    pub const fn exit(&self) -> Exit {
        match self {
            Self::NoBpfFileSystem { .. }
            | Self::PinDirectory { .. }
            | Self::NotLoaded { .. }
            | Self::NotPermitted { .. }
            | Self::NoInterface { .. }
            | Self::NoNativeXdp { .. }
            | Self::DeviceRefuses { .. }
            | Self::NoEgressHook { .. }
            | Self::Rejected { .. } => Exit::Environment,
            Self::ForeignPin { .. }
            | Self::Locked { .. }
            | Self::ForeignProgram { .. }
            | Self::NoSlot { .. }
            | Self::Stopped
            | Self::Changed { .. } => Exit::Conflict,
            Self::TooManySignatures { .. } | Self::TooManyWindows => Exit::Usage,
            Self::ListFull { .. }
            | Self::LimitOutOfRange { .. }
            | Self::CapOutOfRange { .. }
            | Self::TooManyServices { .. }
            | Self::TooManyGroups { .. } => Exit::Configuration,
            Self::System { .. } => Exit::Failed,
        }
    }

    /// A system call that failed: says the capability where that is what is missing.
    pub(super) fn system(action: impl Into<String>, source: io::Error) -> Self {
        Self::System { action: action.into(), source }
    }

    /// The same for calls that take capabilities.
    pub(super) fn privileged(action: &'static str, source: io::Error) -> Self {
        match source.raw_os_error() {
            Some(libc::EPERM | libc::EACCES) => {
                let (why, mend) = capabilities::why_refused();
                Self::NotPermitted { action, why, mend }
            }
            _ => Self::system(action, source),
        }
    }
}

/// Result of the dataplane.
pub type Result<T, E = Error> = std::result::Result<T, E>;

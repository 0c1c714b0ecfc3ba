//! The calls of `bpf(2)` that aya does not offer: links that name what they replace, detach, information, test runs.

use std::ffi::CString;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

const BPF_MAP_CREATE: libc::c_long = 0;
const BPF_MAP_LOOKUP_ELEM: libc::c_long = 1;
const BPF_MAP_UPDATE_ELEM: libc::c_long = 2;
const BPF_OBJ_PIN: libc::c_long = 6;
const BPF_OBJ_GET: libc::c_long = 7;
const BPF_PROG_TEST_RUN: libc::c_long = 10;
const BPF_PROG_GET_FD_BY_ID: libc::c_long = 13;
const BPF_OBJ_GET_INFO_BY_FD: libc::c_long = 15;
const BPF_LINK_CREATE: libc::c_long = 28;
const BPF_LINK_UPDATE: libc::c_long = 29;
const BPF_LINK_DETACH: libc::c_long = 34;

const BPF_XDP: u32 = 37;
const BPF_TCX_EGRESS: u32 = 47;
const BPF_F_REPLACE: u32 = 1 << 2;

/// Where a program is put on a device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Hook {
    /// XDP in the network stack.
    Generic,
    /// XDP in the driver.
    Native,
    /// TCX, where packets leave (kernel 6.6).
    Egress,
}

impl Hook {
    const fn attach_type(self) -> u32 {
        match self {
            Self::Generic | Self::Native => BPF_XDP,
            Self::Egress => BPF_TCX_EGRESS,
        }
    }

    const fn flags(self) -> u32 {
        match self {
            Self::Generic => 1 << 1,
            Self::Native => 1 << 2,
            Self::Egress => 0,
        }
    }
}

/// Issues `bpf(command, attributes)`.
fn bpf<T>(command: libc::c_long, attributes: &mut T) -> io::Result<libc::c_long> {
    // SAFETY: `attributes` is a live `repr(C)` value of the size given; the kernel reads and writes inside it only, and
    // the pointers in it are those of live buffers of the lengths beside them.
    let result = unsafe { libc::syscall(libc::SYS_bpf, command, std::ptr::from_mut(attributes), size_of::<T>()) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}

fn new_fd(result: libc::c_long) -> OwnedFd {
    // SAFETY: the kernel returned a new descriptor that nothing else owns.
    unsafe { OwnedFd::from_raw_fd(result as i32) }
}

fn path_string(path: &Path) -> io::Result<CString> {
    CString::new(path.as_os_str().as_bytes()).map_err(|_| io::Error::from(io::ErrorKind::InvalidInput))
}

pub(super) const MAP_TYPE_ARRAY: u32 = 2;
pub(super) const MAP_TYPE_LPM_TRIE: u32 = 11;
pub(super) const MAP_TYPE_ARRAY_OF_MAPS: u32 = 12;

/// A map that can be mapped into memory.
pub(super) const MMAPABLE: u32 = 1 << 10;

/// What a map is to be like.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub(super) struct NewMap {
    pub(super) kind: u32,
    pub(super) key_bytes: u32,
    pub(super) value_bytes: u32,
    pub(super) entries: u32,
    pub(super) flags: u32,
}

/// Makes a map without types (BTF). A map of maps takes as its values maps like `inner`. A name has at most 15
/// characters; more are cut off.
pub(super) fn create_map(name: &str, map: NewMap, inner: Option<BorrowedFd<'_>>) -> io::Result<OwnedFd> {
    #[repr(C)]
    struct Attributes {
        map: NewMap,
        inner_map_fd: u32,
        numa_node: u32,
        name: [u8; 16],
    }
    let mut attributes = Attributes {
        map,
        inner_map_fd: inner.map_or(0, |inner| inner.as_raw_fd() as u32),
        numa_node: 0,
        name: [0; 16],
    };
    attributes.name.iter_mut().take(15).zip(name.bytes()).for_each(|(place, letter)| *place = letter);
    bpf(BPF_MAP_CREATE, &mut attributes).map(new_fd)
}

/// Waits until all runs of programs that have begun by now are over. A change of any map of maps waits for that before it
/// returns (kernel commit 1ae80cf31938, older than 5.15), and this makes one to change.
pub(super) fn wait_for_programs() -> io::Result<()> {
    let array = NewMap { kind: MAP_TYPE_ARRAY, key_bytes: 4, value_bytes: 4, entries: 1, flags: 0 };
    let inner = create_map("", array, None)?;
    let outer = create_map("", NewMap { kind: MAP_TYPE_ARRAY_OF_MAPS, ..array }, Some(inner.as_fd()))?;
    let (key, value) = (0u32, inner.as_raw_fd());
    let mut attributes = ElementAttributes {
        map_fd: outer.as_raw_fd() as u32,
        reserved: 0,
        key: std::ptr::from_ref(&key) as u64,
        value: std::ptr::from_ref(&value) as u64,
        flags: 0,
    };
    bpf(BPF_MAP_UPDATE_ELEM, &mut attributes).map(drop)
}

#[repr(C)]
struct ElementAttributes {
    map_fd: u32,
    reserved: u32,
    key: u64,
    value: u64,
    flags: u64,
}

#[repr(C)]
#[derive(Default)]
struct ObjectAttributes {
    pathname: u64,
    fd: u32,
    flags: u32,
}

/// The number of the map that is in this slot of an array of maps; `None` where none is.
pub(super) fn map_in(array: BorrowedFd<'_>, slot: u32) -> io::Result<Option<u32>> {
    let mut number = 0u32;
    let (key, value) = (&raw const slot as u64, &raw mut number as u64);
    let mut attributes = ElementAttributes { map_fd: array.as_raw_fd() as u32, reserved: 0, key, value, flags: 0 };
    match bpf(BPF_MAP_LOOKUP_ELEM, &mut attributes) {
        Ok(_) => Ok(Some(number)),
        Err(error) if error.raw_os_error() == Some(libc::ENOENT) => Ok(None),
        Err(error) => Err(error),
    }
}

/// Pins an object at a path of a BPF file system.
pub(super) fn pin(object: BorrowedFd<'_>, path: &Path) -> io::Result<()> {
    let path = path_string(path)?;
    let fd = object.as_raw_fd() as u32;
    let mut attributes = ObjectAttributes { pathname: path.as_ptr() as u64, fd, ..Default::default() };
    bpf(BPF_OBJ_PIN, &mut attributes).map(drop)
}

/// Makes a descriptor that of another object: its owner then owns that.
pub(super) fn redirect(descriptor: BorrowedFd<'_>, to: BorrowedFd<'_>) -> io::Result<()> {
    // SAFETY: both are open, and the number stays one; what it meant is closed by that.
    let result = unsafe { libc::dup3(to.as_raw_fd(), descriptor.as_raw_fd(), libc::O_CLOEXEC) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Opens the object pinned at a path.
pub(super) fn open_pinned(path: &Path) -> io::Result<OwnedFd> {
    let path = path_string(path)?;
    let mut attributes = ObjectAttributes { pathname: path.as_ptr() as u64, ..Default::default() };
    bpf(BPF_OBJ_GET, &mut attributes).map(new_fd)
}

/// Attaches a program to a device, and nowhere else: no silent fallback to another kind of attachment.
pub(super) fn link_create(program: BorrowedFd<'_>, ifindex: u32, hook: Hook) -> io::Result<OwnedFd> {
    #[repr(C)]
    struct Attributes {
        program_fd: u32,
        ifindex: u32,
        attach_type: u32,
        flags: u32,
        rest: [u64; 4],
    }
    let mut attributes = Attributes {
        program_fd: program.as_raw_fd() as u32,
        ifindex,
        attach_type: hook.attach_type(),
        flags: hook.flags(),
        rest: [0; 4],
    };
    bpf(BPF_LINK_CREATE, &mut attributes).map(new_fd)
}

/// Puts `new` into a link, between two packets; where `old` is given, only if that is there.
pub(super) fn link_replace(link: BorrowedFd<'_>, new: BorrowedFd<'_>, old: Option<BorrowedFd<'_>>) -> io::Result<()> {
    #[repr(C)]
    struct Attributes {
        link_fd: u32,
        new_program_fd: u32,
        flags: u32,
        old_program_fd: u32,
    }
    let mut attributes = Attributes {
        link_fd: link.as_raw_fd() as u32,
        new_program_fd: new.as_raw_fd() as u32,
        flags: if old.is_some() { BPF_F_REPLACE } else { 0 },
        old_program_fd: old.map_or(0, |old| old.as_raw_fd() as u32),
    };
    bpf(BPF_LINK_UPDATE, &mut attributes).map(drop)
}

/// Takes a link's program off its device at once, whoever else holds the link.
pub(super) fn link_detach(link: BorrowedFd<'_>) -> io::Result<()> {
    let mut attributes = u64::from(link.as_raw_fd() as u32);
    bpf(BPF_LINK_DETACH, &mut attributes).map(drop)
}

/// What a link says of itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct LinkInfo {
    pub(super) program_id: u32,
    /// Zero where the device is gone.
    pub(super) ifindex: u32,
}

#[repr(C)]
struct InfoAttributes {
    fd: u32,
    length: u32,
    info: u64,
}

fn information<T>(object: BorrowedFd<'_>, info: &mut T) -> io::Result<()> {
    let mut attributes = InfoAttributes {
        fd: object.as_raw_fd() as u32,
        length: size_of::<T>() as u32,
        info: std::ptr::from_mut(info) as u64,
    };
    bpf(BPF_OBJ_GET_INFO_BY_FD, &mut attributes).map(drop)
}

/// Which program a link holds, on which device.
pub(super) fn link_info(link: BorrowedFd<'_>) -> io::Result<LinkInfo> {
    const BPF_LINK_TYPE_XDP: u32 = 6;
    const BPF_LINK_TYPE_TCX: u32 = 11;
    #[repr(C)]
    #[derive(Default)]
    struct Info {
        kind: u32,
        id: u32,
        program_id: u32,
        padding: u32,
        ifindex: u32,
        rest: [u32; 7],
    }
    let mut info = Info::default();
    information(link, &mut info)?;
    if ![BPF_LINK_TYPE_XDP, BPF_LINK_TYPE_TCX].contains(&info.kind) {
        return Err(io::Error::from(io::ErrorKind::InvalidData));
    }
    Ok(LinkInfo { program_id: info.program_id, ifindex: info.ifindex })
}

/// A program by its number. Needs CAP_SYS_ADMIN.
pub(super) fn program_by_id(id: u32) -> io::Result<OwnedFd> {
    let mut attributes = [id, 0, 0];
    bpf(BPF_PROG_GET_FD_BY_ID, &mut attributes).map(new_fd)
}

/// Number and name of a program.
pub(super) fn program_info(program: BorrowedFd<'_>) -> io::Result<(u32, String)> {
    #[repr(C)]
    #[derive(Default)]
    struct Info {
        kind: u32,
        id: u32,
        tag: [u8; 8],
        code_bytes: [u32; 2],
        code: [u64; 2],
        loaded_ns: u64,
        created_by_uid: u32,
        map_count: u32,
        map_ids: u64,
        name: [u8; 16],
    }
    // The kernel copies as much as fits: the fields up to the name.
    let mut info = Info::default();
    information(program, &mut info)?;
    let length = info.name.iter().position(|byte| *byte == 0).unwrap_or(info.name.len());
    Ok((info.id, String::from_utf8_lossy(&info.name[..length]).into_owned()))
}

/// What to run a program on, and how often.
#[derive(Clone, Copy, Debug)]
pub struct TestRun<'a> {
    /// The frame.
    pub frame: &'a [u8],
    /// How often.
    pub repeat: u32,
    /// Let the kernel act on the verdict: a packet generator. The value is the batch size.
    pub live: Option<u32>,
    /// The device that the frame claims to have come from.
    pub ifindex: u32,
}

/// What came of a test run.
#[derive(Clone, Debug)]
pub struct TestRunResult {
    /// The program's verdict.
    pub verdict: u32,
    /// Mean duration of a run, in nanoseconds.
    pub duration_ns: u32,
    /// The frame afterwards.
    pub frame: Vec<u8>,
}

/// Runs a loaded XDP program on a frame.
///
/// # Errors
/// As `BPF_PROG_TEST_RUN`: `EINVAL` for a frame under 14 bytes (kernel 6.1).
pub fn test_run(program: impl AsFd, run: TestRun<'_>) -> io::Result<TestRunResult> {
    const LIVE_FRAMES: u32 = 1 << 1;
    #[repr(C)]
    #[derive(Default)]
    struct Attributes {
        program_fd: u32,
        verdict: u32,
        frame_in: u32,
        frame_out: u32,
        data_in: u64,
        data_out: u64,
        repeat: u32,
        duration: u32,
        context_in: u32,
        context_out: u32,
        context_in_at: u64,
        context_out_at: u64,
        flags: u32,
        cpu: u32,
        batch: u32,
        padding: u32,
    }
    #[repr(C)]
    struct Context {
        data: u32,
        data_end: u32,
        data_meta: u32,
        ingress_ifindex: u32,
        rx_queue: u32,
        egress_ifindex: u32,
    }
    let context = Context {
        data: 0,
        data_end: run.frame.len() as u32,
        data_meta: 0,
        ingress_ifindex: run.ifindex,
        rx_queue: 0,
        egress_ifindex: 0,
    };
    let mut out = vec![0; if run.live.is_some() { 0 } else { run.frame.len() + 256 }];
    let mut attributes = Attributes {
        program_fd: program.as_fd().as_raw_fd() as u32,
        frame_in: run.frame.len() as u32,
        data_in: run.frame.as_ptr() as u64,
        frame_out: out.len() as u32,
        data_out: if out.is_empty() { 0 } else { out.as_mut_ptr() as u64 },
        repeat: run.repeat,
        flags: if run.live.is_some() { LIVE_FRAMES } else { 0 },
        batch: run.live.unwrap_or(0),
        ..Default::default()
    };
    if run.ifindex != 0 {
        attributes.context_in = size_of::<Context>() as u32;
        attributes.context_in_at = std::ptr::from_ref(&context) as u64;
    }
    bpf(BPF_PROG_TEST_RUN, &mut attributes)?;
    out.truncate(attributes.frame_out as usize);
    Ok(TestRunResult { verdict: attributes.verdict, duration_ns: attributes.duration, frame: out })
}

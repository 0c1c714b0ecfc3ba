//! What another build, or another program, might have left in the kernel: made on purpose.

use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use aya::Ebpf;
use aya::maps::{Array, Map, MapData, MapInfo, loaded_maps};
use aya::programs::{Xdp, XdpMode, loaded_programs};
use floodwall::dataplane::Pins;
use floodwall_common::abi::{INTERFACE_SLOTS, InterfaceRecord};

use crate::daemon::Place;
use crate::flood::object;
use crate::netns::Namespace;

/// Where a map is pinned.
pub fn pin(place: &Place, name: &str) -> PathBuf {
    Pins::new(place.bpffs()).directory().join(name)
}

/// The pinned maps, by their numbers: to ask later whether anything of them is left.
#[derive(Debug)]
pub struct Loaded {
    maps: Vec<u32>,
}

impl Loaded {
    /// Those that are pinned now, which have to be some.
    ///
    /// # Errors
    /// Where they cannot be asked.
    pub fn now(bpffs: &Path) -> Result<Self> {
        let mut maps = Vec::new();
        for entry in std::fs::read_dir(Pins::new(bpffs).directory())? {
            let entry = entry?;
            if entry.file_type()?.is_file() {
                maps.push(MapInfo::from_pin(entry.path())?.id());
            }
        }
        ensure!(!maps.is_empty(), "nothing is pinned");
        Ok(Self { maps })
    }

    /// Whether neither these maps nor a program that uses one of them is in the kernel.
    ///
    /// # Errors
    /// Where the kernel does not say.
    pub fn is_gone(&self) -> Result<bool> {
        for map in loaded_maps() {
            if self.maps.contains(&map?.id()) {
                return Ok(false);
            }
        }
        for program in loaded_programs() {
            let used = program?.map_ids()?.unwrap_or_default();
            if used.iter().any(|map| self.maps.contains(map)) {
                return Ok(false);
            }
        }
        Ok(true)
    }
}

/// Makes every attached program look like one of another build.
///
/// # Errors
/// Where nothing is pinned.
pub fn forget_object_hash(place: &Place) -> Result<()> {
    let data = MapData::from_pin(pin(place, "INTERFACES"))?;
    let mut interfaces: Array<MapData, InterfaceRecord> = Map::Array(data).try_into()?;
    for slot in 0..INTERFACE_SLOTS as u32 {
        let record = interfaces.get(&slot, 0)?;
        interfaces.set(slot, InterfaceRecord { object_hash: [0; 16], ..record }, 0)?;
    }
    Ok(())
}

/// Puts an array with one small entry where a map of ours should be pinned.
///
/// # Errors
/// Where it cannot be pinned.
pub fn replace_by_smaller_array(place: &Place, name: &str) -> Result<()> {
    let path = pin(place, name);
    if let Some(directory) = path.parent() {
        std::fs::create_dir_all(directory)?;
    }
    let _ = std::fs::remove_file(&path);
    let small = Array::<MapData, u32>::create(1, 0)?;
    small.pin(&path).context("pin the small map")?;
    Ok(())
}

/// A program of somebody else on an interface, gone with this value.
#[derive(Debug)]
pub struct Foreign {
    _object: Ebpf,
}

/// Attaches the world's end: it swallows what goes to made-up sources. A veth takes what its peer answers in XDP only where
/// there is a program.
///
/// # Errors
/// Where the interface takes none.
pub fn attach_world_end(namespace: &Namespace, interface: &str) -> Result<Foreign> {
    attach_foreign(namespace, interface, "world_end")
}

/// Attaches one of the bench's programs.
///
/// # Errors
/// Where the interface takes none.
pub fn attach_foreign(namespace: &Namespace, interface: &str, name: &'static str) -> Result<Foreign> {
    let interface = interface.to_owned();
    namespace.run(move || -> Result<Foreign> {
        let mut object = Ebpf::load(object())?;
        let program: &mut Xdp = object.program_mut(name).context(name)?.try_into()?;
        program.load()?;
        program.attach(&interface, XdpMode::Driver)?;
        Ok(Foreign { _object: object })
    })?
}

/// Opens whatever is pinned here.
fn open_pinned(pin: &Path) -> Result<OwnedFd> {
    const BPF_OBJ_GET: libc::c_int = 7;
    let path = std::ffi::CString::new(pin.as_os_str().as_encoded_bytes())?;
    let attributes = [path.as_ptr() as u64, 0];
    // SAFETY: the attributes of this command are a path and flags, and outlive the call.
    let fd = unsafe { libc::syscall(libc::SYS_bpf, BPF_OBJ_GET, attributes.as_ptr(), size_of_val(&attributes)) };
    ensure!(fd >= 0, "{}: {}", pin.display(), std::io::Error::last_os_error());
    // SAFETY: a new descriptor that nobody else has.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as i32) })
}

/// Takes the filter off a device behind the daemon's back, as `bpftool link detach` does.
///
/// # Errors
/// Where there is no such link.
pub fn detach_link(place: &Place, ifindex: u32) -> Result<()> {
    const BPF_LINK_DETACH: libc::c_int = 34;
    let pin = Pins::new(place.bpffs()).directory().join("links").join(ifindex.to_string());
    let link = open_pinned(&pin)?;
    let attributes = [link.as_raw_fd(), 0];
    // SAFETY: the attributes of this command are a descriptor, and outlive the call.
    let done = unsafe { libc::syscall(libc::SYS_bpf, BPF_LINK_DETACH, attributes.as_ptr(), size_of_val(&attributes)) };
    ensure!(done == 0, "detach: {}", std::io::Error::last_os_error());
    Ok(())
}

/// Removes every pin, as a careless `rm -r` does.
///
/// # Errors
/// Where one cannot be removed.
pub fn wipe(place: &Place) -> Result<()> {
    let home = Pins::new(place.bpffs()).home();
    let done = std::process::Command::new("rm").arg("-r").arg(&home).status()?;
    ensure!(done.success(), "rm -r {}", home.display());
    Ok(())
}

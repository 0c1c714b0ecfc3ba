//! What another build, or another program, might have left in the kernel: made on purpose.

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

//! What another build, or another program, might have left in the kernel: made on purpose.

use std::path::PathBuf;

use anyhow::{Context, Result};
use aya::Ebpf;
use aya::maps::{Array, Map, MapData};
use aya::programs::{Xdp, XdpMode};
use floodwall::dataplane::Pins;
use floodwall_common::abi::{INTERFACE_SLOTS, InterfaceRecord};

use crate::daemon::Place;
use crate::flood::object;
use crate::netns::Namespace;

/// Where a map is pinned.
pub fn pin(place: &Place, name: &str) -> PathBuf {
    Pins::new(place.bpffs()).directory().join(name)
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

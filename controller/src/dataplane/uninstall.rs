//! Leaves nothing of Floodwall in the kernel: the attachments and pins of every layout of the maps, whichever build made
//! them. It reads no map, so it needs none to be right; files outside the BPF file system are not its concern.

use std::io;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};

use super::device::Device;
use super::error::{Error, Result};
use super::maps::{Pins, SENT_FILTER_SUFFIX, SENT_SUFFIX};
use super::sys::{self, LinkInfo};
use super::{check_bpffs, lock, remove_tree, traffic_control};

/// What is no longer in the kernel.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Uninstalled {
    /// The interfaces that the filter was taken off.
    pub interfaces: Vec<String>,
    /// The directory of the pins; `None` where there was none.
    pub directory: Option<PathBuf>,
}

/// Takes the filter off every interface, and removes every pin. `devices` give the interfaces their names.
///
/// # Errors
/// Where another process holds the pins, or the kernel refuses. What was removed until then stays so.
pub fn uninstall(pins: &Pins, devices: &[Device]) -> Result<Uninstalled> {
    check_bpffs(pins)?;
    let directory = pins.home();
    match std::fs::metadata(&directory) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Uninstalled::default()),
        Err(error) => return Err(Error::privileged("look into the BPF file system", error)),
        Ok(_) => {}
    }
    let _lock = lock(pins)?;
    let mut interfaces = Vec::new();
    for layout in entries(&directory)? {
        for path in entries(&layout.join("links"))? {
            if let Some(ifindex) = sent_filter(&path) {
                traffic_control::detach(ifindex);
                continue;
            }
            let link = detach(&path)?.filter(|_| !path.to_string_lossy().ends_with(SENT_SUFFIX));
            interfaces.extend(link.map(|link| name(link, devices)));
        }
    }
    remove_tree(&directory).map_err(|source| failed("remove", &directory, source))?;
    Ok(Uninstalled { interfaces, directory: Some(directory) })
}

/// The device that the program at this pin is a filter on.
fn sent_filter(pin: &Path) -> Option<u32> {
    pin.file_name()?.to_str()?.strip_suffix(SENT_FILTER_SUFFIX)?.parse().ok()
}

/// Detached by name: a link whose pin is gone ends only when the kernel gets round to it. `None` where there is no link, or
/// where its device is gone.
fn detach(pin: &Path) -> Result<Option<LinkInfo>> {
    let Ok(link) = sys::open_pinned(pin) else { return Ok(None) };
    let Ok(info) = sys::link_info(link.as_fd()) else { return Ok(None) };
    match sys::link_detach(link.as_fd()) {
        Err(error) if error.raw_os_error() != Some(libc::ENOLINK) => Err(Error::privileged("detach the filter", error)),
        _ => Ok(Some(info).filter(|info| info.ifindex != 0)),
    }
}

/// An index means a device only in its own network namespace: one that does not run this program is another.
fn name(link: LinkInfo, devices: &[Device]) -> String {
    let runs_it = |device: &&Device| device.xdp.is_some_and(|xdp| xdp.program_id == link.program_id);
    let device = devices.iter().filter(|device| device.ifindex == link.ifindex).find(runs_it);
    device.map_or_else(
        || format!("interface {} of another network namespace", link.ifindex),
        |device| device.name.clone(),
    )
}

fn entries(directory: &Path) -> Result<Vec<PathBuf>> {
    let listed = match std::fs::read_dir(directory) {
        Err(error) if [io::ErrorKind::NotFound, io::ErrorKind::NotADirectory].contains(&error.kind()) => {
            return Ok(Vec::new());
        }
        listed => listed.map_err(|source| failed("list", directory, source))?,
    };
    Ok(listed.flatten().map(|entry| entry.path()).collect())
}

fn failed(action: &str, directory: &Path, source: io::Error) -> Error {
    Error::system(format!("{action} {}", directory.display()), source)
}

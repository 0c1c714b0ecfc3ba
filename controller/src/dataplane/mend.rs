//! What others have undone is done again, where that is safe: a filter that was taken off or whose device was made anew, a
//! device that has another name, pins that are gone. Never over somebody else's program, and never what the operator took off.

use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;

use super::device::{AttachMode, Device};
use super::egress::EgressHook;
use super::error::{Error, Result};
use super::text::padded;
use super::{Dataplane, check_bpffs, create_directory, lock, sys};

/// What was found undone, and what became of it.
#[derive(Debug)]
pub enum Mended {
    /// The filter was no longer on the interface, and is again.
    Attached(String, AttachMode),
    /// The same, but it cannot be.
    NotAttached(String, Error),
    /// What leaves was no longer remembered, and is again.
    Remembers(String, EgressHook),
    /// An interface has another name now.
    Renamed(String, String),
}

impl Dataplane {
    /// Puts the filter back on interfaces that are meant to have it, have no other, and are there. `may_try` says whether one is
    /// to be tried now. How what leaves is to be seen is asked anew too.
    ///
    /// # Errors
    /// Where the maps cannot be read or written.
    pub fn mend_interfaces(
        &mut self,
        devices: &[Device],
        allow_generic: bool,
        hook: EgressHook,
        mut may_try: impl FnMut(&str) -> bool,
    ) -> Result<Vec<Mended>> {
        let mut mended = Vec::new();
        for protected in self.protected(devices)? {
            let name = protected.name;
            let same = devices.iter().find(|device| device.ifindex == protected.ifindex);
            if protected.attached.is_some() {
                let Some(device) = same else { continue };
                if protected.egress_hook.is_none() && may_try(&format!("{name}, what leaves")) {
                    // Where it cannot be, the start has said so.
                    mended.extend(self.remember_sent(device, hook).map(|hook| Mended::Remembers(name.clone(), hook)));
                }
                if device.name != name {
                    self.rename(protected.slot, device)?;
                    mended.push(Mended::Renamed(name, device.name.clone()));
                }
                continue;
            }
            // An index may be another device's by now: the name has to be right too.
            let device = devices.iter().find(|device| device.name == name && device.xdp.is_none());
            let Some(device) = device.filter(|_| may_try(&name)) else { continue };
            mended.push(match self.attach(device, allow_generic) {
                Ok(outcome) => {
                    // Where it cannot be, replies are not told: the reasons that need it are disarmed, and that is said.
                    let _ = self.remember_sent(device, hook);
                    Mended::Attached(name, outcome.mode())
                }
                Err(error) => Mended::NotAttached(name, error),
            });
        }
        Ok(mended)
    }

    fn rename(&mut self, slot: u32, device: &Device) -> Result<()> {
        let mut record = self.record(slot)?;
        record.name = padded(&device.name);
        self.set_record(slot, record)
    }

    /// Pins again what is no longer pinned, of what this process holds. Says how much that was. Without a pin the next daemon
    /// would find neither the maps nor the links, and with this one's end the filter would come off.
    ///
    /// # Errors
    /// Where there is no BPF file system any more, or it refuses.
    pub fn mend_pins(&mut self) -> Result<usize> {
        let missing = self.missing_pins();
        if missing.is_empty() {
            return Ok(0);
        }
        check_bpffs(&self.pins)?;
        create_directory(&self.pins)?;
        self.lock_again()?;
        for (path, held) in &missing {
            sys::pin(held.as_fd(), path).map_err(|source| Error::system("pin again what was removed", source))?;
        }
        Ok(missing.len())
    }

    fn missing_pins(&self) -> Vec<(PathBuf, std::os::fd::OwnedFd)> {
        let pins = &self.pins;
        let maps = self.held.iter().map(|(name, held)| (pins.map(name), held));
        let links = self.links.iter().map(|(ifindex, link)| (pins.link(*ifindex), link));
        let sent = self.sent_links.iter().map(|(ifindex, link)| (pins.sent_link(*ifindex), link));
        let filters = self.sent_filters.iter().map(|(ifindex, program)| (pins.sent_filter(*ifindex), program));
        let tries = self.tries.pins(pins);
        let all = maps.chain(tries).chain(links).chain(sent).chain(filters).filter(|(path, _)| !path.exists());
        all.filter_map(|(path, held)| Some((path, held.try_clone().ok()?))).collect()
    }

    /// The lock is on a directory: one that was made anew is another.
    fn lock_again(&mut self) -> Result<()> {
        let Some(held) = &self.lock else { return Ok(()) };
        let inode = |metadata: std::io::Result<std::fs::Metadata>| metadata.map(|metadata| metadata.ino()).ok();
        if inode(held.metadata()) != inode(std::fs::metadata(self.pins.home())) {
            self.lock = Some(lock(&self.pins)?);
        }
        Ok(())
    }
}

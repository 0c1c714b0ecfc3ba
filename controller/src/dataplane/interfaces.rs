//! The interfaces that are protected: attach, adopt, replace in place, detach; never over somebody else's program.

use std::io;
use std::os::fd::{AsFd, OwnedFd};

use floodwall_common::abi::{INTERFACE_SLOTS, InterfaceRecord};

use super::device::{AttachMode, Device, DeviceXdp};
use super::egress::EgressHook;
use super::error::{Error, Result};
use super::programs::{self, Constants, Variant};
use super::text::{padded, unpadded};
use super::{Dataplane, object, root_cause, sys, unix_s};

/// An interface that the pins say is protected, and what its device says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Protected {
    /// Its slot in the counters.
    pub slot: u32,
    /// Its name when it was attached.
    pub name: String,
    /// Its index.
    pub ifindex: u32,
    /// When it was attached, in seconds of the Unix epoch.
    pub since_unix_s: u64,
    /// How the filter is on the device now; `None` where it is not.
    pub attached: Option<AttachMode>,
    /// How what leaves through it is seen, so that replies can be told; `None` where it is not remembered.
    pub egress_hook: Option<EgressHook>,
}

/// What became of an interface that was to be protected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Newly attached.
    Attached(AttachMode),
    /// It was protected already, by this very program.
    Adopted(AttachMode),
    /// It was protected already, and its program was replaced by this one between two packets.
    Replaced(AttachMode),
}

impl Outcome {
    /// How it is on the device.
    pub const fn mode(self) -> AttachMode {
        match self {
            Self::Attached(mode) | Self::Adopted(mode) | Self::Replaced(mode) => mode,
        }
    }
}

impl Dataplane {
    /// Protects a device: adopts what is there, or attaches.
    ///
    /// # Errors
    /// Where another program is there, or the device or the kernel refuses.
    pub fn attach(&mut self, device: &Device, allow_generic: bool) -> Result<Outcome> {
        let record = self.record_of(device.ifindex)?;
        let ours = self.links.iter().position(|(ifindex, _)| *ifindex == device.ifindex);
        match (ours, device.xdp) {
            (Some(at), Some(on_device)) if self.holds(at, on_device.program_id)? => {
                self.adopt(at, device, on_device, record)
            }
            (_, Some(_)) => Err(programs::foreign(device)),
            (stale, None) => {
                if let Some(at) = stale {
                    self.forget_link(at);
                }
                self.attach_anew(device, record, allow_generic)
            }
        }
    }

    /// Whether protecting a device would put a program on it that does not run there: `false` where it is adopted, or refused.
    ///
    /// # Errors
    /// Where the pins cannot be asked.
    pub fn takes_new_program(&self, device: &Device) -> Result<bool> {
        let ours = self.links.iter().position(|(ifindex, _)| *ifindex == device.ifindex);
        match (ours, device.xdp) {
            (Some(at), Some(on_device)) if self.holds(at, on_device.program_id)? => {
                let record = self.record_of(device.ifindex)?;
                Ok(record.is_none_or(|(_, record)| record.object_hash != object::hash()))
            }
            (_, on_device) => Ok(on_device.is_none()),
        }
    }

    fn holds(&self, at: usize, program_id: u32) -> Result<bool> {
        let info = sys::link_info(self.links[at].1.as_fd());
        Ok(info.map_err(|source| Error::system("ask a link for its program", source))?.program_id == program_id)
    }

    fn adopt(
        &mut self,
        at: usize,
        device: &Device,
        on_device: DeviceXdp,
        record: Option<(u32, InterfaceRecord)>,
    ) -> Result<Outcome> {
        let (slot, mut record) = match record {
            Some(found) => found,
            None => (self.free_slot(&device.name)?, InterfaceRecord::default()),
        };
        if record.object_hash == object::hash() {
            return Ok(Outcome::Adopted(on_device.mode));
        }
        let mut object = self.load(slot)?;
        // Opening a program by its number takes CAP_SYS_ADMIN. Without it the replacement is not conditional on the old
        // program; the lock keeps others of this kind out meanwhile.
        let old = sys::program_by_id(on_device.program_id).ok();
        let variants = [Variant::Linear, Variant::Frags];
        let replace = |variant, object: &mut aya::Ebpf| -> Result<io::Result<()>> {
            let new = programs::verify(object, variant)?;
            Ok(sys::link_replace(self.links[at].1.as_fd(), new.as_fd(), old.as_ref().map(AsFd::as_fd)))
        };
        // The kernel refuses a program that does not fit the device's MTU: then it is the other.
        let mut replaced = replace(variants[0], &mut object)?;
        if replaced.is_err() {
            replaced = replace(variants[1], &mut object)?;
        }
        replaced.map_err(|source| Error::system("replace the program in place", source))?;
        #[cfg(feature = "ebpf-log")]
        self.follow_logs(&mut object);
        record.object_hash = object::hash();
        self.write_record(slot, device, on_device.mode, record.since_unix_s)?;
        Ok(Outcome::Replaced(on_device.mode))
    }

    fn attach_anew(
        &mut self,
        device: &Device,
        record: Option<(u32, InterfaceRecord)>,
        allow_generic: bool,
    ) -> Result<Outcome> {
        let slot = match record {
            Some((slot, _)) => slot,
            None => self.slot_of_former(device)?.map_or_else(|| self.free_slot(&device.name), Ok)?,
        };
        let mut object = self.load(slot)?;
        let attached = programs::attach(&mut object, device, allow_generic)?;
        #[cfg(feature = "ebpf-log")]
        self.follow_logs(&mut object);
        let path = self.pins.link(device.ifindex);
        let _ = std::fs::remove_file(&path);
        // Dropping the link on an error takes the filter off again: nothing half done stays behind.
        sys::pin(attached.link.as_fd(), &path).map_err(|source| Error::system("pin the attachment", source))?;
        self.write_record(slot, device, attached.mode, unix_s())?;
        self.links.push((device.ifindex, attached.link));
        Ok(Outcome::Attached(attached.mode))
    }

    pub(super) fn load(&self, slot: u32) -> Result<aya::Ebpf> {
        let constants = Constants {
            config: &*self.config()?,
            slot,
            tick_ns: self.machine.tick_ns,
            cpus: self.possible_cpus,
            test_clock: false,
        };
        programs::load(&self.pins, &constants)
    }

    /// Takes the filter off an interface, or off all. Says which.
    ///
    /// # Errors
    /// Where the kernel refuses.
    pub fn detach(&mut self, name: Option<&str>) -> Result<Vec<String>> {
        let mut detached = Vec::new();
        for slot in 0..INTERFACE_SLOTS as u32 {
            let record = self.record(slot)?;
            if record.ifindex == 0 || name.is_some_and(|name| name != interface_name(&record)) {
                continue;
            }
            if let Some(at) = self.links.iter().position(|(ifindex, _)| *ifindex == record.ifindex) {
                let refused = |source| Error::privileged("detach the filter", source);
                match sys::link_detach(self.links[at].1.as_fd()) {
                    Err(error) if error.raw_os_error() != Some(libc::ENOLINK) => return Err(refused(error)),
                    _ => self.forget_link(at),
                }
            }
            self.forget_sent(record.ifindex);
            detached.push(interface_name(&record));
            self.set_record(slot, InterfaceRecord::default())?;
        }
        Ok(detached)
    }

    /// The interfaces that are meant to be protected, and whether they are, by what their devices say.
    ///
    /// # Errors
    /// Where the maps cannot be read.
    pub fn protected(&self, devices: &[Device]) -> Result<Vec<Protected>> {
        let mut protected = Vec::new();
        for slot in 0..INTERFACE_SLOTS as u32 {
            let record = self.record(slot)?;
            if record.ifindex == 0 {
                continue;
            }
            let device = devices.iter().find(|device| device.ifindex == record.ifindex);
            let link = self.links.iter().position(|(ifindex, _)| *ifindex == record.ifindex);
            let attached = match (device.and_then(|device| device.xdp), link) {
                (Some(xdp), Some(at)) if self.holds(at, xdp.program_id).unwrap_or(false) => Some(xdp.mode),
                _ => None,
            };
            protected.push(Protected {
                slot,
                name: interface_name(&record),
                ifindex: record.ifindex,
                since_unix_s: record.since_unix_s,
                attached,
                egress_hook: self.egress_hook(record.ifindex),
            });
        }
        Ok(protected)
    }

    pub(super) fn record(&self, slot: u32) -> Result<InterfaceRecord> {
        self.interfaces
            .get(&slot, 0)
            .map_err(|error| Error::system("read the protected interfaces", io::Error::other(root_cause(&error))))
    }

    pub(super) fn set_record(&mut self, slot: u32, record: InterfaceRecord) -> Result<()> {
        self.interfaces
            .set(slot, record, 0)
            .map_err(|error| Error::system("write the protected interfaces", io::Error::other(root_cause(&error))))
    }

    fn record_of(&self, ifindex: u32) -> Result<Option<(u32, InterfaceRecord)>> {
        for slot in 0..INTERFACE_SLOTS as u32 {
            let record = self.record(slot)?;
            if record.ifindex == ifindex {
                return Ok(Some((slot, record)));
            }
        }
        Ok(None)
    }

    fn free_slot(&self, name: &str) -> Result<u32> {
        match self.record_of(0)? {
            Some((slot, _)) => Ok(slot),
            None => Err(Error::NoSlot { name: name.to_owned(), slots: INTERFACE_SLOTS }),
        }
    }

    /// The slot of a device of the same name that is gone: this one takes its place.
    fn slot_of_former(&mut self, device: &Device) -> Result<Option<u32>> {
        for slot in 0..INTERFACE_SLOTS as u32 {
            let record = self.record(slot)?;
            if record.ifindex == 0 || interface_name(&record) != device.name {
                continue;
            }
            let link = self.links.iter().position(|(ifindex, _)| *ifindex == record.ifindex);
            let alive = |at: usize| sys::link_info(self.links[at].1.as_fd()).is_ok_and(|info| info.ifindex != 0);
            if link.is_some_and(alive) {
                continue;
            }
            if let Some(at) = link {
                self.forget_link(at);
            }
            return Ok(Some(slot));
        }
        Ok(None)
    }

    fn write_record(&mut self, slot: u32, device: &Device, mode: AttachMode, since_unix_s: u64) -> Result<()> {
        let name = padded(&device.name);
        let generic = u32::from(mode == AttachMode::Generic);
        let record =
            InterfaceRecord { ifindex: device.ifindex, generic, since_unix_s, name, object_hash: object::hash() };
        self.set_record(slot, record)
    }

    /// What is pinned for devices, of the names that end so, by the index of the device.
    pub(super) fn open_links(&self, suffix: &str) -> Result<Vec<(u32, OwnedFd)>> {
        let mut links = Vec::new();
        let entries = match std::fs::read_dir(self.pins.links()) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(links),
            Err(source) => return Err(Error::system("list the attachments", source)),
        };
        for entry in entries.flatten() {
            let Some(ifindex) = entry.file_name().to_str().and_then(|name| name.strip_suffix(suffix)?.parse().ok())
            else {
                continue;
            };
            if let Ok(link) = sys::open_pinned(&entry.path()) {
                links.push((ifindex, link));
            }
        }
        Ok(links)
    }

    fn forget_link(&mut self, at: usize) {
        let (ifindex, link) = self.links.swap_remove(at);
        drop(link);
        // Gone already is as good.
        let _ = std::fs::remove_file(self.pins.link(ifindex));
        self.forget_sent(ifindex);
    }
}

pub(super) fn interface_name(record: &InterfaceRecord) -> String {
    unpadded(&record.name)
}

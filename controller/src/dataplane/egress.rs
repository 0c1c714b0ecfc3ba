//! The other direction: a program that remembers what leaves through a protected interface, and the table of ports that
//! replies come from. Without it no reply can be told from a flood, and nothing else is lost.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use aya::maps::{Array, Map, MapData};
use aya::programs::SchedClassifier;
use floodwall_common::abi::{map, program};
use floodwall_common::class::Class;
use floodwall_common::reason::Reason;
use floodwall_common::replies::{AMPLIFIERS, PortSet};

use super::device::Device;
use super::error::{Error, Result};
use super::sys::{self, Hook};
use super::{Dataplane, Pins, programs, root_cause, traffic_control, typed};

/// The reasons that are told by what was sent: without that, all of their packets would be dropped.
pub const NEED_MEMORY: [Reason; 3] = [Reason::UnsolicitedReply, Reason::NoService, Reason::OutOfState];

const ATTACH: &str = "attach the program that remembers what is sent";

/// The classes that have packets that look like replies.
pub(super) const CLASSES_WITH_REPLIES: [Class; 3] = [Class::Tcp, Class::Udp, Class::Icmp];

/// How what leaves through a device is seen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum EgressHook {
    /// By a link, where the kernel has that (6.6).
    #[default]
    Tcx,
    /// By a filter on a clsact qdisc.
    Clsact,
}

impl EgressHook {
    /// The name that leaves the process.
    pub const fn label(self) -> &'static str {
        match self {
            Self::Tcx => "tcx",
            Self::Clsact => "clsact",
        }
    }
}

/// A [`PortSet`], as the loader's library takes it.
#[derive(Clone, Copy)]
#[repr(transparent)]
struct Ports(PortSet);

// SAFETY: integers only.
unsafe impl aya::Pod for Ports {}

impl Dataplane {
    /// Remembers from now on what leaves through a device. What is there of an earlier build is replaced in place. A kernel
    /// without TCX is asked for a clsact qdisc instead. Says by which it is seen.
    ///
    /// # Errors
    /// Where the kernel refuses.
    pub fn remember_sent(&mut self, device: &Device, hook: EgressHook) -> Result<EgressHook> {
        let mut object = self.load(0)?;
        let program = verify(&mut object)?;
        // The new one is there before the other goes: what is sent meanwhile is remembered too.
        if hook == EgressHook::Tcx && self.link_sent(device, program.as_fd())? {
            self.forget_sent_filter(device.ifindex);
            return Ok(EgressHook::Tcx);
        }
        self.filter_sent(device, program)?;
        self.forget_sent_link(device.ifindex);
        Ok(EgressHook::Clsact)
    }

    /// `false` where the kernel has no TCX.
    fn link_sent(&mut self, device: &Device, program: BorrowedFd<'_>) -> Result<bool> {
        if let Some(link) = self.sent_link(device.ifindex) {
            return sys::link_replace(link.as_fd(), program, None)
                .map(|()| true)
                .map_err(|source| Error::system("replace the program that remembers what is sent", source));
        }
        self.forget_sent_link(device.ifindex);
        let link = match sys::link_create(program, device.ifindex, Hook::Egress) {
            Err(refusal) if refusal.raw_os_error() == Some(libc::EINVAL) => return Ok(false),
            created => created.map_err(|source| Error::privileged(ATTACH, source))?,
        };
        let path = self.pins.sent_link(device.ifindex);
        sys::pin(link.as_fd(), &path).map_err(|source| Error::system("pin the attachment", source))?;
        self.sent_links.push((device.ifindex, link));
        Ok(true)
    }

    /// A filter cannot be pinned. Its program is, so that it can be told from one that writes to other maps.
    fn filter_sent(&mut self, device: &Device, program: OwnedFd) -> Result<()> {
        let ifindex = device.ifindex;
        traffic_control::attach(program.as_fd(), ifindex).map_err(|source| match source.raw_os_error() {
            Some(libc::EPERM) => Error::privileged(ATTACH, source),
            _ => Error::NoEgressHook { interface: device.name.clone(), source },
        })?;
        let path = self.pins.sent_filter(ifindex);
        let _ = std::fs::remove_file(&path);
        if let Err(source) = sys::pin(program.as_fd(), &path) {
            self.forget_sent_filter(ifindex);
            return Err(Error::system("pin the program that remembers what is sent", source));
        }
        self.sent_filters.retain(|(of, _)| *of != ifindex);
        self.sent_filters.push((ifindex, program));
        Ok(())
    }

    /// The protected interfaces whose sent packets are not remembered, by name.
    ///
    /// # Errors
    /// Where the maps cannot be read.
    pub fn not_remembered(&self) -> Result<Vec<String>> {
        let protected = self.protected(&[])?.into_iter();
        Ok(protected.filter(|interface| interface.egress_hook.is_none()).map(|interface| interface.name).collect())
    }

    /// How what leaves through a device is seen, where it is remembered.
    pub(super) fn egress_hook(&self, ifindex: u32) -> Option<EgressHook> {
        if self.sent_link(ifindex).is_some() {
            return Some(EgressHook::Tcx);
        }
        let (_, program) = self.sent_filters.iter().find(|(of, _)| *of == ifindex)?;
        let (number, _) = sys::program_info(program.as_fd()).ok()?;
        (traffic_control::program_on(ifindex) == Some(number)).then_some(EgressHook::Clsact)
    }

    fn sent_link(&self, ifindex: u32) -> Option<&OwnedFd> {
        let links = self.sent_links.iter().filter(|(of, _)| *of == ifindex).map(|(_, link)| link);
        links.into_iter().find(|link| sys::link_info(link.as_fd()).is_ok_and(|info| info.ifindex == ifindex))
    }

    /// Takes the program off a device again. One that is gone is as good.
    pub(super) fn forget_sent(&mut self, ifindex: u32) {
        self.forget_sent_link(ifindex);
        self.forget_sent_filter(ifindex);
    }

    fn forget_sent_link(&mut self, ifindex: u32) {
        for (_, link) in self.sent_links.extract_if(.., |(of, _)| *of == ifindex) {
            let _ = sys::link_detach(link.as_fd());
        }
        let _ = std::fs::remove_file(self.pins.sent_link(ifindex));
    }

    fn forget_sent_filter(&mut self, ifindex: u32) {
        traffic_control::detach(ifindex);
        self.sent_filters.retain(|(of, _)| *of != ifindex);
        let _ = std::fs::remove_file(self.pins.sent_filter(ifindex));
    }

    /// The UDP ports that replies come from.
    ///
    /// # Errors
    /// Where the map cannot be read.
    pub fn amplifiers(&self) -> Result<PortSet> {
        let ports = open(&self.pins)?.get(&0, 0);
        Ok(ports.map_err(|error| failed("read", &error))?.0)
    }

    /// Sets the UDP ports that replies come from.
    ///
    /// # Errors
    /// Where the map cannot be written.
    pub fn set_amplifiers(&mut self, ports: PortSet) -> Result<()> {
        write_amplifiers(&self.pins, ports)
    }
}

/// The ports that floods have come from.
pub fn known_amplifiers() -> PortSet {
    let mut ports = PortSet::empty();
    AMPLIFIERS.iter().for_each(|(port, _)| ports.set(*port, true));
    ports
}

pub(super) fn write_amplifiers(pins: &Pins, ports: PortSet) -> Result<()> {
    open(pins)?.set(0, Ports(ports), 0).map_err(|error| failed("write", &error))
}

fn open(pins: &Pins) -> Result<Array<MapData, Ports>> {
    let data = MapData::from_pin(pins.map(map::AMPLIFIERS)).map_err(|error| failed("open", &error))?;
    typed(data, Map::Array, Array::try_from)
}

fn failed(what: &str, error: &(dyn std::error::Error + 'static)) -> Error {
    Error::system(format!("{what} the ports of amplifiers"), io::Error::other(root_cause(error)))
}

pub(super) fn verify(object: &mut aya::Ebpf) -> Result<OwnedFd> {
    let missing = || Error::Rejected { reason: format!("the object has no program {}", program::EGRESS) };
    let found: Option<&mut aya::programs::Program> = object.program_mut(program::EGRESS);
    let classifier: &mut SchedClassifier = found.ok_or_else(missing)?.try_into().map_err(|_| missing())?;
    classifier.load().map_err(programs::rejected)?;
    let fd = classifier.fd().map_err(programs::rejected)?;
    fd.as_fd().try_clone_to_owned().map_err(|source| Error::system("keep the program", source))
}

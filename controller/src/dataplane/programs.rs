//! Loading the filter and putting it on a device: adopt, replace, or attach anew, and never over somebody else's.

use std::io;
use std::os::fd::{AsFd, OwnedFd};

use aya::maps::Map;
use aya::programs::{ProgramError, Xdp};
use aya::{Ebpf, EbpfLoader};
use floodwall_common::abi::{CpuState, constant, map, program};
use floodwall_common::config::Config;

use super::device::{AttachMode, Device};
use super::error::{Error, Result};
use super::maps::{Pins, in_object, kept_sections};
use super::refusal::{self, LINEAR_MTU};
use super::sys::{self, Hook};
use super::{object, root_cause};
use crate::capabilities;

/// What a load fixes.
pub(super) struct Constants<'a> {
    /// The configuration in force: loading writes it into the section again, so it has to be the current one.
    pub(super) config: &'a Config,
    pub(super) slot: u32,
    pub(super) tick_ns: u64,
    /// Possible CPUs.
    pub(super) cpus: u32,
    /// Time comes from the test clock.
    pub(super) test_clock: bool,
}

/// Creates the maps that are not pinned yet, opens those that are, and reads the programs.
pub(super) fn load(pins: &Pins, constants: &Constants<'_>) -> Result<Ebpf> {
    let counters = CpuState::counters_of(constants.slot as usize);
    // Zero has the program ask the test clock.
    let tick_ns = if constants.test_clock { 0 } else { constants.tick_ns };
    let mut loader = EbpfLoader::new();
    loader
        .override_global(map::CONFIG, constants.config, true)
        .override_global(constant::COUNTERS, &counters, true)
        .override_global(constant::TICK_NS, &tick_ns, true)
        .map_max_entries(map::CPUS, constants.cpus);
    for name in map::ALL.into_iter().filter(|name| !kept_sections().any(|kept| kept == *name)) {
        loader.map_pin_path(in_object(name), pins.map(name));
    }
    let object = loader.load(object::bytes()).map_err(|error| match os_error(&error) {
        Some(source) => Error::privileged("create the filter's maps", source),
        None => Error::Rejected { reason: root_cause(&error) },
    })?;
    kept_sections().try_for_each(|name| share(pins, &object, name))?;
    Ok(object)
}

/// Gives the programs what is pinned under this name. The loader writes zeros into the map of a section, so it was not given the
/// pinned one but has made its own; programs name their maps by descriptors, and those are handed to the kernel later.
fn share(pins: &Pins, object: &Ebpf, name: &str) -> Result<()> {
    let Some(Map::Array(own)) = object.map(in_object(name)) else {
        return Err(Error::Rejected { reason: format!("the object has no map {}", in_object(name)) });
    };
    sys::open_pinned(&pins.map(name))
        .and_then(|pinned| sys::redirect(own.fd().as_fd(), pinned.as_fd()))
        .map_err(|source| Error::privileged("open the filter's maps", source))
}

/// The two programs of the object: for linear frames, and for frames in fragments.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Variant {
    Linear,
    Frags,
}

impl Variant {
    const fn program(self) -> &'static str {
        match self {
            Self::Linear => program::FILTER,
            Self::Frags => program::FILTER_FRAGS,
        }
    }
}

/// Has the kernel verify a program, and returns it.
pub(super) fn verify(object: &mut Ebpf, variant: Variant) -> Result<OwnedFd> {
    let name = variant.program();
    let missing = || Error::Rejected { reason: format!("the object has no XDP program {name}") };
    let xdp: &mut Xdp = object.program_mut(name).ok_or_else(missing)?.try_into().map_err(|_| missing())?;
    if xdp.fd().is_err() {
        xdp.load().map_err(rejected)?;
    }
    let fd = xdp.fd().map_err(rejected)?;
    fd.as_fd().try_clone_to_owned().map_err(|source| Error::system("keep the program", source))
}

/// A program that the kernel did not take: the last words of its verifier.
pub(super) fn rejected(error: ProgramError) -> Error {
    match error {
        ProgramError::LoadError { io_error, verifier_log } => {
            // Without CAP_PERFMON the verifier takes no program that compares addresses, and says so in its own words.
            let lacks_right = io_error.raw_os_error() == Some(libc::EACCES) && !capabilities::missing().is_empty();
            if io_error.raw_os_error() == Some(libc::EPERM) || lacks_right {
                return Error::privileged("load the filter program", io_error);
            }
            match last_words(&verifier_log.to_string()) {
                words if words.is_empty() => Error::Rejected { reason: io_error.to_string() },
                words => Error::Rejected { reason: format!("{io_error}: {words}") },
            }
        }
        other => Error::Rejected { reason: root_cause(&other) },
    }
}

/// What the verifier stumbled over: the end of its log, without the statistics that follow.
fn last_words(log: &str) -> String {
    let is_statistics =
        |line: &str| ["processed ", "verification time ", "stack depth "].iter().any(|words| line.starts_with(words));
    let said = log.lines().filter(|line| !line.trim().is_empty() && !is_statistics(line));
    let said: Vec<_> = said.collect();
    said[said.len().saturating_sub(4)..].join(" / ")
}

fn os_error(error: &(dyn std::error::Error + 'static)) -> Option<io::Error> {
    let mut cause = Some(error);
    while let Some(error) = cause {
        if let Some(code) = error.downcast_ref::<io::Error>().and_then(io::Error::raw_os_error) {
            return Some(io::Error::from_raw_os_error(code));
        }
        cause = error.source();
    }
    None
}

/// A program on a device, held by a link.
pub(super) struct Attached {
    pub(super) link: OwnedFd,
    pub(super) mode: AttachMode,
}

/// Puts a program on a device that has none: natively, for linear frames or else for fragments; or else generically,
/// where that is allowed.
pub(super) fn attach(object: &mut Ebpf, device: &Device, allow_generic: bool) -> Result<Attached> {
    let native = |object: &mut Ebpf, variant| -> Result<io::Result<OwnedFd>> {
        let program = verify(object, variant)?;
        Ok(sys::link_create(program.as_fd(), device.ifindex, Hook::Native))
    };
    let mut refusal = match native(object, Variant::Linear)? {
        Ok(link) => return Ok(Attached { link, mode: AttachMode::Native }),
        Err(refusal) => refusal,
    };
    let mut variant = Variant::Linear;
    if may_be_about_frame_size(&refusal, device) {
        match native(object, Variant::Frags) {
            Ok(Ok(link)) => return Ok(Attached { link, mode: AttachMode::Native }),
            Ok(Err(second)) => (variant, refusal) = (Variant::Frags, second),
            // Kernels before 5.18 do not take that program: what the device has said of the other one counts.
            Err(_) => {}
        }
    }
    if !is_of_the_device(&refusal) {
        return Err(refused(device, refusal));
    }
    if allow_generic {
        let program = verify(object, Variant::Linear)?;
        return sys::link_create(program.as_fd(), device.ifindex, Hook::Generic)
            .map(|link| Attached { link, mode: AttachMode::Generic })
            .map_err(|source| refused(device, source));
    }
    Err(refusal::of(device, verify(object, variant)?.as_fd(), refusal))
}

/// What drivers answer when a linear frame of this MTU would not fit: `ERANGE` by most, `EINVAL` by some, and by a few that they
/// cannot at all.
fn may_be_about_frame_size(error: &io::Error, device: &Device) -> bool {
    let is_large = device.mtu > LINEAR_MTU;
    matches!(error.raw_os_error(), Some(libc::ERANGE | libc::EINVAL)) || is_large && is_of_the_device(error)
}

/// Whether it is the device or its driver that does not want a program as it is set up, and generic mode might do.
fn is_of_the_device(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EOPNOTSUPP | libc::ERANGE | libc::EINVAL | libc::ENOSPC))
}

fn refused(device: &Device, source: io::Error) -> Error {
    match source.raw_os_error() {
        Some(libc::EBUSY | libc::EEXIST) => foreign(device),
        _ => Error::privileged("attach the filter", source),
    }
}

/// The error that names the program of somebody else.
pub(super) fn foreign(device: &Device) -> Error {
    let (program_id, mode) =
        device.xdp.map_or((0, AttachMode::Native), |attached| (attached.program_id, attached.mode));
    let name = sys::program_by_id(program_id).and_then(|program| sys::program_info(program.as_fd()));
    let name = name.map_or(String::new(), |(_, name)| format!(", name '{name}'"));
    Error::ForeignProgram { interface: device.name.clone(), program_id, name, mode: mode.label() }
}

#[cfg(test)]
mod tests {
    use super::last_words;

    #[test]
    fn the_reason_of_a_refusal_is_not_buried_in_statistics() {
        let log = "BPF_STX uses reserved fields\nverification time 2746 usec\nstack depth 0+0+0\n\
            processed 0 insns (limit 1000000) max_states_per_insn 0\n\n";
        assert_eq!(last_words(log), "BPF_STX uses reserved fields");
        assert_eq!(last_words("1\n2\n3\n4\n5\n"), "2 / 3 / 4 / 5");
        assert_eq!(last_words(""), "");
    }
}

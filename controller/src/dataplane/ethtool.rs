//! Which of a device's features are on, by their names in the kernel, and how many queues it has: what `ethtool -k` and `-l` show.
//! It changes nothing.

use std::collections::BTreeSet;
use std::ffi::c_void;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

use super::text::padded;

/// Requests of `linux/ethtool.h`, the same since 2.6.39.
const GET_STRINGS: u32 = 0x1b;
const GET_SET_INFO: u32 = 0x37;
const GET_FEATURES: u32 = 0x3a;
const GET_CHANNELS: u32 = 0x3c;
/// The set of strings that names features.
const FEATURES: u32 = 4;
/// Bytes of each string.
const NAME_BYTES: usize = 32;
/// Of `linux/sockios.h`.
const SIOCETHTOOL: libc::Ioctl = 0x8946;
/// More features than any kernel has: 64 in 6.18.
const MAX_FEATURES: u32 = 1_024;

#[repr(C)]
struct Request {
    interface: [u8; libc::IFNAMSIZ],
    data: *mut c_void,
    padding: [u8; 16],
}

/// Queues of one kind: those in use, and as many as there can be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Queues {
    pub(super) used: u32,
    pub(super) most: u32,
}

/// The queues of a device: of those that only receive, and of those that send too.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Channels {
    pub(super) receiving: Queues,
    pub(super) combined: Queues,
}

/// A socket to ask of a device what ethtool shows: each question is words with a command in front, and room for the answer.
struct Asking {
    socket: OwnedFd,
    interface: [u8; libc::IFNAMSIZ],
}

impl Asking {
    fn of(interface: &str) -> io::Result<Self> {
        // SAFETY: no arguments but numbers; what is returned is checked, and owned here alone.
        let socket = unsafe {
            match libc::socket(libc::AF_INET, libc::SOCK_DGRAM | libc::SOCK_CLOEXEC, 0) {
                refused if refused < 0 => return Err(io::Error::last_os_error()),
                socket => OwnedFd::from_raw_fd(socket),
            }
        };
        Ok(Self { socket, interface: padded(interface) })
    }

    fn ask(&self, words: &mut [u32]) -> io::Result<()> {
        let mut request = Request { interface: self.interface, data: words.as_mut_ptr().cast(), padding: [0; 16] };
        // SAFETY: a request as the kernel reads it; what it writes fits into `words`, whose room is said in them.
        match unsafe { libc::ioctl(self.socket.as_raw_fd(), SIOCETHTOOL, &raw mut request) } {
            0 => Ok(()),
            _ => Err(io::Error::last_os_error()),
        }
    }
}

/// The queues of this device.
///
/// # Errors
/// Where there is no such device, or its driver does not say.
pub(super) fn channels(interface: &str) -> io::Result<Channels> {
    // cmd; the most that receive, send, do something else, do both; and as many of each as are used.
    let mut words = [GET_CHANNELS, 0, 0, 0, 0, 0, 0, 0, 0];
    Asking::of(interface)?.ask(&mut words)?;
    let [_, most_receiving, _, _, most_combined, receiving, _, _, combined] = words;
    Ok(Channels {
        receiving: Queues { used: receiving, most: most_receiving },
        combined: Queues { used: combined, most: most_combined },
    })
}

/// The features of this device that are on.
///
/// # Errors
/// Where there is no such device, or the kernel does not say.
pub fn active_features(interface: &str) -> io::Result<BTreeSet<String>> {
    let device = Asking::of(interface)?;
    // cmd, reserved, mask of sets in two words, and the number of strings of the one set.
    let mut info = [GET_SET_INFO, 0, 0, 0, 0];
    info[if cfg!(target_endian = "little") { 2 } else { 3 }] = 1 << FEATURES;
    device.ask(&mut info)?;
    let count = info[4].min(MAX_FEATURES);
    let mut strings = vec![0; 3 + count as usize * NAME_BYTES / 4];
    strings[..3].copy_from_slice(&[GET_STRINGS, FEATURES, count]);
    device.ask(&mut strings)?;
    // cmd, number of blocks, and for each 32 features: available, requested, active, never changed.
    let blocks = count.div_ceil(32);
    let mut features = vec![0; 2 + 4 * blocks as usize];
    features[..2].copy_from_slice(&[GET_FEATURES, blocks]);
    device.ask(&mut features)?;
    let names: Vec<u8> = strings[3..].iter().flat_map(|word| word.to_ne_bytes()).collect();
    Ok(active(&names, &features[2..]))
}

/// The names whose bit is set in the third word of their block.
fn active(names: &[u8], blocks: &[u32]) -> BTreeSet<String> {
    let is_on = |at: usize| blocks.get(at / 32 * 4 + 2).is_some_and(|bits| bits >> (at % 32) & 1 == 1);
    let on = names.chunks_exact(NAME_BYTES).enumerate().filter(|(at, _)| is_on(*at));
    on.map(|(_, name)| super::text::unpadded(name)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_feature_is_on_by_its_bit() {
        let names: Vec<u8> = (0..40).flat_map(|at| padded::<NAME_BYTES>(&format!("feature-{at}"))).collect();
        // Available, requested, active, never changed; twice.
        let blocks = [u32::MAX, 0, 1 << 3, 0, u32::MAX, 0, 1 << 7, u32::MAX];
        assert_eq!(active(&names, &blocks).into_iter().collect::<Vec<_>>(), ["feature-3", "feature-39"]);
        assert!(active(&names, &[]).is_empty());
    }

    #[test]
    fn a_device_that_is_not_there_is_an_error() {
        assert!(active_features("nowhere0").is_err());
        // Every network namespace has one.
        assert!(active_features("lo").is_ok_and(|on| on.contains("rx-checksum")));
    }
}

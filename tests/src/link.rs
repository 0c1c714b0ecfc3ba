//! The two ends of a link, below all stacks: counts frames by the hardware address of their sender, which a filter does not read,
//! and sends frames as they are.

use std::os::fd::{AsRawFd, OwnedFd};

use anyhow::{Context as _, Result, ensure};
use aya::Ebpf;
use aya::maps::{MapData, PerCpuArray};
use aya::programs::{SchedClassifier, TcAttachType};
use nix::sys::socket::{AddressFamily, SockFlag, SockType, socket};

use crate::flood::object;
use crate::netns::Namespace;

/// Counts frames, by the last byte of their sender's hardware address.
pub struct Senders {
    counts: PerCpuArray<MapData, u64>,
    _object: Ebpf,
}

impl Senders {
    /// Those that come through to the stack of a namespace.
    ///
    /// # Errors
    /// Where the interface takes no program.
    pub fn arriving(namespace: &Namespace, interface: &str) -> Result<Self> {
        Self::attach(namespace, interface, TcAttachType::Ingress)
    }

    /// Those that leave it.
    ///
    /// # Errors
    /// As [`Self::arriving`].
    pub fn leaving(namespace: &Namespace, interface: &str) -> Result<Self> {
        Self::attach(namespace, interface, TcAttachType::Egress)
    }

    fn attach(namespace: &Namespace, interface: &str, way: TcAttachType) -> Result<Self> {
        let interface = interface.to_owned();
        namespace.run(move || {
            let mut object = Ebpf::load(object()).context("load the counter")?;
            let program: &mut SchedClassifier = object.program_mut("arrived").context("arrived")?.try_into()?;
            program.load()?;
            program.attach(&interface, way).context("count by sender")?;
            let counts = PerCpuArray::try_from(object.take_map("ARRIVED").context("ARRIVED")?)?;
            Ok(Self { counts, _object: object })
        })?
    }

    /// Frames of a sender so far.
    ///
    /// # Errors
    /// Where the map cannot be read.
    pub fn of(&self, sender: u8) -> Result<u64> {
        Ok(self.counts.get(&u32::from(sender), 0)?.iter().sum())
    }
}

/// A socket that sends frames out of an interface as they are, and receives none.
///
/// # Errors
/// Where it cannot be opened: it takes root.
pub fn packet_socket(namespace: &Namespace, interface: &'static str) -> Result<OwnedFd> {
    let ifindex = i32::try_from(namespace.ifindex(interface)?)?;
    namespace
        .run(move || -> Result<OwnedFd> {
            let socket = socket(AddressFamily::Packet, SockType::Raw, SockFlag::SOCK_CLOEXEC, None)?;
            let address = libc::sockaddr_ll {
                sll_family: libc::AF_PACKET as u16,
                sll_protocol: 0,
                sll_ifindex: ifindex,
                sll_hatype: 0,
                sll_pkttype: 0,
                sll_halen: 0,
                sll_addr: [0; 8],
            };
            let length = size_of::<libc::sockaddr_ll>() as u32;
            // SAFETY: a live address of its own type and length.
            let bound = unsafe { libc::bind(socket.as_raw_fd(), (&raw const address).cast(), length) };
            ensure!(bound == 0, "bind to {interface}: {}", std::io::Error::last_os_error());
            Ok(socket)
        })?
        .with_context(|| format!("open a packet socket on {interface}"))
}

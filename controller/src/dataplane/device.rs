//! Network devices as netlink tells of them: what XDP program is on which. Health is read here, not from a pin.

use std::io;

use futures_util::TryStreamExt;
use netlink_packet_route::link::{InfoKind, LinkAttribute, LinkInfo, LinkMessage, LinkXdp, XdpAttached};

use super::error::{Error, Result};

/// How XDP runs on a device.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum AttachMode {
    /// In the driver, before the kernel builds anything for the packet.
    Native,
    /// In the network stack, after it has.
    Generic,
    /// On the network card.
    Offload,
}

impl AttachMode {
    /// Every mode.
    pub const ALL: [Self; 3] = [Self::Native, Self::Generic, Self::Offload];

    /// The name that leaves the process.
    pub const fn label(self) -> &'static str {
        match self {
            Self::Native => "native",
            Self::Generic => "generic",
            Self::Offload => "offload",
        }
    }
}

/// An XDP program on a device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DeviceXdp {
    /// How it is attached.
    pub mode: AttachMode,
    /// The program's number.
    pub program_id: u32,
}

/// A network device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Device {
    /// Its name now.
    pub name: String,
    /// Its index.
    pub ifindex: u32,
    /// Its MTU.
    pub mtu: u32,
    /// The XDP program on it.
    pub xdp: Option<DeviceXdp>,
    /// What it is made of.
    pub made_of: MadeOf,
    /// The bond (or bridge, or team) that it is a member of, by index.
    pub master: Option<u32>,
}

/// What a device is made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MadeOf {
    /// Nothing else: packets come in here.
    Itself,
    /// Its members.
    Members,
    /// The device with this index, as a VLAN of it.
    Parent(u32),
}

/// All devices of this network namespace.
///
/// # Errors
/// Where netlink does not answer.
pub async fn devices() -> Result<Vec<Device>> {
    let failed = |source| Error::system("ask the kernel for its network devices (netlink)", source);
    let (connection, handle, _) = rtnetlink::new_connection().map_err(failed)?;
    let connection = tokio::spawn(connection);
    let answer: Result<Vec<_>, _> = handle.link().get().execute().map_ok(Device::from).try_collect().await;
    connection.abort();
    answer.map_err(|error| failed(io::Error::other(error)))
}

/// The device of this name.
///
/// # Errors
/// Where there is none; the message says which there are.
pub fn find<'a>(devices: &'a [Device], name: &str) -> Result<&'a Device> {
    devices.iter().find(|device| device.name == name).ok_or_else(|| {
        let have: Vec<_> = devices.iter().map(|device| device.name.as_str()).collect();
        Error::NoInterface { name: name.to_owned(), have: have.join(", ") }
    })
}

/// The devices that packets of this one come in through: its members where it is a bond, its parent where it is a VLAN, else
/// itself. A filter on them sees every packet first, and natively.
pub fn carriers<'a>(devices: &'a [Device], device: &'a Device) -> Vec<&'a Device> {
    // A VLAN of a bond is two steps; more than a few there are not.
    let mut carriers = vec![device];
    for _ in 0..4 {
        let below = |device: &&'a Device| -> Vec<&'a Device> {
            let of = |wanted: &dyn Fn(&Device) -> bool| devices.iter().filter(|device| wanted(device)).collect();
            match device.made_of {
                MadeOf::Itself => vec![*device],
                MadeOf::Members => of(&|member| member.master == Some(device.ifindex)),
                MadeOf::Parent(parent) => of(&|other| other.ifindex == parent),
            }
        };
        carriers = carriers.iter().flat_map(below).collect();
    }
    carriers
}

impl From<LinkMessage> for Device {
    fn from(message: LinkMessage) -> Self {
        let mut device = Self {
            name: String::new(),
            ifindex: message.header.index,
            mtu: 0,
            xdp: None,
            made_of: MadeOf::Itself,
            master: None,
        };
        let (mut parent, mut kind) = (None, None);
        for attribute in message.attributes {
            match attribute {
                LinkAttribute::IfName(name) => device.name = name,
                LinkAttribute::Mtu(mtu) => device.mtu = mtu,
                LinkAttribute::Xdp(xdp) => device.xdp = attached(&xdp),
                LinkAttribute::Controller(master) => device.master = Some(master),
                LinkAttribute::Link(index) => parent = Some(index),
                LinkAttribute::LinkInfo(infos) => kind = infos.into_iter().find_map(kind_of),
                _ => {}
            }
        }
        device.made_of = match (kind, parent) {
            (Some(InfoKind::Bond), _) => MadeOf::Members,
            (Some(InfoKind::Vlan), Some(parent)) => MadeOf::Parent(parent),
            _ => MadeOf::Itself,
        };
        device
    }
}

fn kind_of(info: LinkInfo) -> Option<InfoKind> {
    if let LinkInfo::Kind(kind) = info { Some(kind) } else { None }
}

fn attached(attributes: &[LinkXdp]) -> Option<DeviceXdp> {
    let mode = attributes.iter().find_map(|attribute| match attribute {
        LinkXdp::Attached(XdpAttached::Driver | XdpAttached::Multiple) => Some(AttachMode::Native),
        LinkXdp::Attached(XdpAttached::SocketBuffer) => Some(AttachMode::Generic),
        LinkXdp::Attached(XdpAttached::Hardware) => Some(AttachMode::Offload),
        _ => None,
    })?;
    let by_mode = |attribute: &LinkXdp| match (attribute, mode) {
        (LinkXdp::DrvProgId(id), AttachMode::Native)
        | (LinkXdp::SkbProgId(id), AttachMode::Generic)
        | (LinkXdp::HwProgId(id), AttachMode::Offload) => Some(*id),
        _ => None,
    };
    let any = |attribute: &LinkXdp| match attribute {
        LinkXdp::ProgId(id) => Some(*id),
        _ => None,
    };
    let program_id = attributes.iter().find_map(by_mode).or_else(|| attributes.iter().find_map(any))?;
    Some(DeviceXdp { mode, program_id })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn device(name: &str, ifindex: u32, made_of: MadeOf, master: Option<u32>) -> Device {
        Device { name: name.to_owned(), ifindex, mtu: 1_500, xdp: None, made_of, master }
    }

    #[test]
    fn bonds_are_protected_at_their_members_and_vlans_at_their_parents() {
        let devices = [
            device("eth0", 1, MadeOf::Itself, Some(3)),
            device("eth1", 2, MadeOf::Itself, Some(3)),
            device("bond0", 3, MadeOf::Members, None),
            device("bond0.7", 4, MadeOf::Parent(3), None),
            device("eth2", 5, MadeOf::Itself, None),
            device("eth2.9", 6, MadeOf::Parent(5), None),
            device("bond1", 7, MadeOf::Members, None),
        ];
        let names = |at: usize| -> Vec<&str> {
            carriers(&devices, &devices[at]).into_iter().map(|device| device.name.as_str()).collect()
        };
        assert_eq!(names(4), ["eth2"]);
        assert_eq!(names(2), ["eth0", "eth1"]);
        assert_eq!(names(3), ["eth0", "eth1"], "a VLAN of a bond");
        assert_eq!(names(5), ["eth2"]);
        assert!(names(6).is_empty(), "a bond without members");
    }
}

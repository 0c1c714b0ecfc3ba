//! Network devices as netlink tells of them: what XDP program is on which. Health is read here, not from a pin.

use std::io;

use futures_util::TryStreamExt;
use netlink_packet_route::link::{LinkAttribute, LinkMessage, LinkXdp, XdpAttached};

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

impl From<LinkMessage> for Device {
    fn from(message: LinkMessage) -> Self {
        let mut device = Self { name: String::new(), ifindex: message.header.index, mtu: 0, xdp: None };
        for attribute in message.attributes {
            match attribute {
                LinkAttribute::IfName(name) => device.name = name,
                LinkAttribute::Mtu(mtu) => device.mtu = mtu,
                LinkAttribute::Xdp(xdp) => device.xdp = attached(&xdp),
                _ => {}
            }
        }
        device
    }
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

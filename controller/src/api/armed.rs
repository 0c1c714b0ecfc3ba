//! The JSON of what an operator arms: amplifiers, services, cookies.

use floodwall_common::limits::Rate;
use floodwall_common::services::{NAME_BYTES, Transport};
use serde::{Deserialize, Serialize};

use super::RateView;
use crate::dataplane::Service;

/// UDP ports that replies are looked for from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AmplifiersView {
    /// Version of this shape.
    pub schema_version: u32,
    /// Each of them.
    pub ports: Vec<AmplifierView>,
}

/// One of them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AmplifierView {
    /// The port.
    pub port: u16,
    /// The service that floods have come from, where that is known.
    pub service: Option<String>,
}

/// A change of them: all or nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AmplifiersChange {
    /// Back to the known ones first.
    #[serde(default)]
    pub reset: bool,
    /// Ports to take in.
    #[serde(default)]
    pub add: Vec<u16>,
    /// Ports to take out.
    #[serde(default)]
    pub remove: Vec<u16>,
}

/// What this host serves.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServicesView {
    /// Version of this shape.
    pub schema_version: u32,
    /// Counts changes of the configuration: give it back with a change.
    pub generation: u64,
    /// Each of them.
    pub services: Vec<ServiceView>,
}

/// A service.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ServiceView {
    /// Its name: 1 to 16 letters, digits, dots, dashes and underscores.
    pub name: String,
    /// Its ports: `tcp/443` or `udp/8000-8010`.
    pub ports: Vec<String>,
    /// Packets to it from all sources together; null for no cap.
    #[serde(default)]
    pub cap: Option<RateView>,
    /// Connections that are begun with it in a second, from all sources together; null for no cap.
    #[serde(default)]
    pub connections_per_second: Option<u64>,
    /// The same while an overload is shed; null where none is. Said, and not to be set.
    #[serde(default)]
    pub shed_per_second: Option<u64>,
    /// Who comes first then: `known-first` or `verified-first`; null where nothing is shed.
    #[serde(default)]
    pub shed_order: Option<String>,
}

/// A change of services: all or nothing. Removed first, then added; one of the same name is replaced.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ServicesChange {
    /// The generation that the change was made from; null for any.
    #[serde(default)]
    pub generation: Option<u64>,
    /// Services to add.
    #[serde(default)]
    pub add: Vec<ServiceView>,
    /// Names of services to remove.
    #[serde(default)]
    pub remove: Vec<String>,
}

/// Refuses what cannot be the name of something that an operator names, such as a service: `most` bytes have room.
pub(crate) fn check_name(what: &str, name: &str, most: usize) -> Result<(), String> {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b".-_".contains(&byte);
    if (1..=most).contains(&name.len()) && name.bytes().all(plain) {
        return Ok(());
    }
    Err(format!("'{name}' is no name for a {what}: 1 to {most} letters, digits, dots, dashes and underscores"))
}

impl ServiceView {
    /// A service as it crosses the socket.
    pub fn new(service: &Service) -> Self {
        let mut ports: Vec<(Transport, u16, u16)> = Vec::new();
        for (transport, port) in &service.ports {
            match ports.last_mut() {
                Some((of, _, last)) if of == transport && last.checked_add(1) == Some(*port) => *last = *port,
                _ => ports.push((*transport, *port, *port)),
            }
        }
        let text = |(transport, first, last): &(Transport, u16, u16)| match first == last {
            true => format!("{}/{first}", transport.label()),
            false => format!("{}/{first}-{last}", transport.label()),
        };
        let per_second = |rate| RateView::of(rate).map(|rate| rate.per_second);
        Self {
            name: service.name.clone(),
            ports: ports.iter().map(text).collect(),
            cap: RateView::of(service.cap),
            connections_per_second: per_second(service.connections),
            shed_per_second: per_second(service.shed),
            shed_order: per_second(service.shed).map(|_| service.shed_order.label().to_owned()),
        }
    }

    /// The service that crossed it.
    ///
    /// # Errors
    /// What is wrong with it, in words.
    pub fn service(&self) -> Result<Service, String> {
        check_name("service", &self.name, NAME_BYTES)?;
        let mut ports = Vec::new();
        for text in &self.ports {
            ports.extend(
                parse_ports(text).ok_or_else(|| {
                    format!("'{text}' is not a port of a service, for example tcp/443 or udp/8000-8010")
                })?,
            );
        }
        if ports.is_empty() {
            return Err(format!("service '{}' has no port", self.name));
        }
        ports.sort_unstable();
        ports.dedup();
        let cap = RateView::rate(self.cap);
        let connections = self.connections_per_second.map(connections);
        if cap == Rate::Block || connections == Some(Rate::Block) {
            return Err(format!("service '{}': a cap of 0 drops all of it; lockdown without it does that", self.name));
        }
        let connections = connections.unwrap_or(Rate::Off);
        Ok(Service { cap, connections, ..Service::uncapped(&self.name, ports) })
    }
}

/// A cap of new connections: a second's worth at once.
const fn connections(per_second: u64) -> Rate {
    RateView::rate(Some(RateView { per_second, burst: per_second }))
}

fn parse_ports(text: &str) -> Option<impl Iterator<Item = (Transport, u16)> + use<>> {
    let (transport, ports) = text.split_once('/')?;
    let transport = Transport::from_label(transport)?;
    let (first, last) = ports.split_once('-').unwrap_or((ports, ports));
    let (first, last) = (first.parse::<u16>().ok()?, last.parse::<u16>().ok()?);
    (first > 0 && first <= last).then(|| (first..=last).map(move |port| (transport, port)))
}

/// How SYNs are answered.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CookiesView {
    /// Version of this shape.
    pub schema_version: u32,
    /// `off`, `auto` or `always`.
    pub mode: String,
    /// SYN-ACKs to one subnet; null for no limit.
    pub answers: Option<RateView>,
    /// `net.ipv4.tcp_syncookies`; null where the kernel has no SYN cookies.
    pub tcp_syncookies: Option<u32>,
    /// `net.ipv4.tcp_timestamps`.
    pub tcp_timestamps: u32,
    /// Window scale, selective acknowledgements and timestamps survive a cookie.
    pub keeps_options: bool,
}

/// A change of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CookiesChange {
    /// `off`, `auto` or `always`.
    pub mode: String,
    /// SYN-ACKs to one subnet; null leaves them as they are.
    #[serde(default)]
    pub answers: Option<RateView>,
}

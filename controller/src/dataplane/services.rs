//! What this host serves: names, ports and caps, kept in the maps alone.

use std::collections::BTreeSet;
use std::os::fd::{AsFd as _, OwnedFd};

use floodwall_common::abi::map;
use floodwall_common::config::Config;
use floodwall_common::limits::{Rate, RateSpec};
use floodwall_common::meter::Machine;
use floodwall_common::reason::{Reason, Verdict};
use floodwall_common::services::{Cap, ConnectionCap, Order, PortTable, SERVICE_SLOTS, ServiceRecord, Transport};

use super::error::{Error, Result};
use super::maps::{read_section, write_section};
use super::text::{padded, unpadded};
use super::{Dataplane, Pins, sys};

/// The service of what listens on UDP and has no other, while it is UDP alone that is locked down: as long as it is there, the
/// lockdown is of UDP only, and where it goes the lockdown ends with it.
pub const UNNAMED: &str = "auto-udp";
/// What the service of a TCP port that has no other begins with, while connections to it are shed.
const SHED: &str = "auto-tcp-";

/// Something that this host serves.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Service {
    /// Its name, of at most [`NAME_BYTES`] bytes.
    pub name: String,
    /// The ports that it is behind, sorted.
    pub ports: Vec<(Transport, u16)>,
    /// Packets a second to it from all sources together.
    pub cap: Rate,
    /// Connections that are begun with it in a second, from all sources together.
    pub connections: Rate,
    /// The same while an overload is shed. [`Dataplane::set_services`] leaves it as it is.
    pub shed: Rate,
    /// Who comes first then.
    pub shed_order: Order,
}

impl Service {
    /// One without a cap.
    pub fn uncapped(name: &str, ports: Vec<(Transport, u16)>) -> Self {
        let (name, off) = (name.to_owned(), Rate::Off);
        Self { name, ports, cap: off, connections: off, shed: off, shed_order: Order::VerifiedFirst }
    }
}

impl Dataplane {
    /// What this host serves.
    ///
    /// # Errors
    /// Where the maps cannot be read.
    pub fn services(&self) -> Result<Vec<Service>> {
        let (config, ports) = (self.config()?, read_ports(&self.pins)?);
        let mut services = Vec::new();
        for (number, record) in config.services.iter().enumerate().skip(1) {
            if let Some(name) = name_of(record) {
                let ports = ports_of(&ports, number as u8);
                let (cap, connections, shed) = (record.cap.into(), record.connections.into(), record.shed.into());
                let shed_order = record.shed_order();
                services.push(Service { name, ports, cap, connections, shed, shed_order });
            }
        }
        Ok(services)
    }

    /// Sets what this host serves. A service that keeps its name keeps what its cap has counted.
    ///
    /// # Errors
    /// Where there are too many, a cap cannot be kept, the generation is not the expected one, or a map cannot be written.
    pub fn set_services(&mut self, services: &[Service], expected: Option<u64>) -> Result<u64> {
        let config = self.config()?;
        let numbers = numbers(&config, services)?;
        let (mut wanted, before) = (config.clone(), read_ports(&self.pins)?);
        wanted.services = [ServiceRecord::NOBODY; SERVICE_SLOTS];
        let mut table = Box::new(PortTable::empty());
        for (service, number) in services.iter().zip(numbers) {
            let (at, name) = (usize::from(number), padded(&service.name));
            // What is shed is shed of a port.
            let is_as_before = config.services[at].name == name && ports_of(&before, number) == service.ports;
            let record = ServiceRecord::new(name, service.cap.into(), service.connections.into());
            // Nor beside a cap that somebody has set.
            let is_shed = is_as_before && service.connections == Rate::Off;
            let before = if is_shed { config.services[at] } else { record };
            wanted.services[at] = ServiceRecord { shed: before.shed, shed_order: before.shed_order, ..record };
            service.ports.iter().for_each(|(transport, port)| table.set(*transport, *port, number));
        }
        compile(&mut wanted, self.machine)?;
        // A port that leads to a service without a cap passes; so the caps come first.
        let generation = self.change(expected, |config| {
            if is_of_udp_only(config) && !is_of_udp_only(&wanted) {
                config.drops = config.drops.choose(Reason::NoService, Verdict::Pass).unwrap_or(config.drops);
            }
            config.services = wanted.services;
            config.caps = wanted.caps;
            config.connection_caps = wanted.connection_caps;
        })?;
        write_section(open_ports(&self.pins)?.as_fd(), &*table)?;
        Ok(generation)
    }

    /// Drops UDP that neither a service nor any of these ports expects, and that answers nothing; more ports where it does so already.
    /// `false` where all is locked down.
    ///
    /// # Errors
    /// Where there is no room for another service, or the maps cannot be written.
    pub fn lock_udp(&mut self, listening: &BTreeSet<u16>) -> Result<bool> {
        let config = self.config()?;
        if config.drops.has(Reason::NoService) && !is_of_udp_only(&config) {
            return Ok(false);
        }
        let mut services = self.services()?;
        services.retain(|service| service.name != UNNAMED);
        let ports = listening.iter().map(|port| (Transport::Udp, *port)).collect();
        services.push(Service::uncapped(UNNAMED, ports));
        give_way(&mut services);
        // What listens is known before anything is dropped for not being listened for.
        self.set_services(&services, None)?;
        self.change(None, |config| {
            config.drops = config.drops.choose(Reason::NoService, Verdict::Drop).unwrap_or(config.drops);
        })?;
        Ok(true)
    }

    /// Ends that, if it is in force.
    ///
    /// # Errors
    /// Where the maps cannot be written.
    pub fn unlock_udp(&mut self) -> Result<()> {
        let mut services = self.services()?;
        let before = services.len();
        services.retain(|service| service.name != UNNAMED);
        if services.len() != before {
            self.set_services(&services, None)?;
        }
        Ok(())
    }

    /// Lets no more connections be begun on this TCP port than these, in this order, for a while; [`Rate::Off`] ends it. `false` where the service
    /// there has a cap that somebody has set, or where all but services is locked down and there is none.
    ///
    /// # Errors
    /// Where there is no room for another service, the rate cannot be kept, or the maps cannot be written.
    pub fn shed(&mut self, port: u16, rate: Rate, order: Order) -> Result<bool> {
        let (name, place) = (shed_name(port), (Transport::Tcp, port));
        let mut services = self.services()?;
        let at = services.iter().position(|service| service.ports.contains(&place));
        let is_unnamed = at.is_none_or(|at| services[at].name == name);
        if at.is_some_and(|at| services[at].connections != Rate::Off) && rate != Rate::Off {
            return Ok(false);
        }
        if at.is_none() && rate != Rate::Off {
            let config = self.config()?;
            if config.drops.has(Reason::NoService) && !is_of_udp_only(&config) {
                return Ok(false);
            }
            services.push(Service::uncapped(&name, vec![place]));
            self.set_services(&services, None)?;
        }
        let name = at.map_or(name, |at| services[at].name.clone());
        let mut wanted = self.config()?.clone();
        let named = wanted.services.iter_mut().find(|record| name_of(record).as_ref() == Some(&name));
        let Some(record) = named else { return Ok(true) };
        (record.shed, record.shed_order) = (rate.into(), order as u64);
        compile(&mut wanted, self.machine)?;
        self.change(None, |config| {
            config.services = wanted.services;
            config.connection_caps = wanted.connection_caps;
        })?;
        if is_unnamed && rate == Rate::Off {
            services.retain(|service| service.name != name);
            self.set_services(&services, None)?;
        }
        Ok(true)
    }

    /// The connections that may be begun on this TCP port in a second, and in which order, where they are shed.
    ///
    /// # Errors
    /// Where the maps cannot be read.
    pub fn shed_on(&self, port: u16) -> Result<Option<(Rate, Order)>> {
        let number = read_ports(&self.pins)?.service(Transport::Tcp, port);
        let record = self.config()?.services[usize::from(number) % SERVICE_SLOTS];
        Ok(Some((Rate::from(record.shed), record.shed_order())).filter(|(rate, _)| *rate != Rate::Off))
    }

    /// Whether a cap can be kept on this machine.
    pub fn check_cap(&self, cap: Rate) -> bool {
        Cap::new(cap, self.machine, 0).is_ok()
    }

    /// Whether the source with this key has completed a handshake lately.
    ///
    /// # Errors
    /// Where the maps cannot be read.
    pub fn is_verified(&self, source: u64) -> Result<bool> {
        Ok(self.sent_reader()?.is_verified(source, self.clock()?))
    }
}

/// Compiles the caps of all services as they stand there.
pub(crate) fn compile(config: &mut Config, machine: Machine) -> Result<()> {
    for number in 0..SERVICE_SLOTS {
        let record = config.services[number];
        let (rate, (connections, order)) = (record.cap.into(), record.connections_in_force());
        let (cap, of_connections) = (&mut config.caps[number], &mut config.connection_caps[number]);
        let out_of_range = |rate: Rate| Error::CapOutOfRange { cap: rate.to_string() };
        *cap = Cap::new(rate, machine, cap.secret()).map_err(|_| out_of_range(rate))?;
        *of_connections = ConnectionCap::new(connections.into(), order, machine, of_connections.secret())
            .map_err(|_| out_of_range(connections.into()))?;
    }
    Ok(())
}

/// What says that it is UDP alone that is locked down.
pub(crate) fn record_of_unnamed() -> ServiceRecord {
    ServiceRecord::new(padded(UNNAMED), RateSpec::OFF, RateSpec::OFF)
}

/// The service of a TCP port that has no other, while connections to it are shed.
fn shed_name(port: u16) -> String {
    format!("{SHED}{port}")
}

/// Whether nobody has named this service: it is there by itself, for a while.
pub fn is_automatic(name: &str) -> bool {
    name == UNNAMED || name.starts_with(SHED)
}

/// Whether it is UDP alone that is locked down, if anything is.
pub fn is_of_udp_only(config: &Config) -> bool {
    config.services.iter().any(|record| record.name == padded(UNNAMED))
}

/// What is a service by itself gives way to those that somebody names.
pub(crate) fn give_way(services: &mut Vec<Service>) {
    let named: Vec<_> = services
        .iter()
        .filter(|service| !is_automatic(&service.name))
        .flat_map(|service| service.ports.clone())
        .collect();
    for unnamed in services.iter_mut().filter(|service| is_automatic(&service.name)) {
        unnamed.ports.retain(|port| !named.contains(port));
    }
    services.retain(|service| !service.name.starts_with(SHED) || !service.ports.is_empty());
}

/// The services and their caps that lie in a configuration: of packets, and of new connections.
pub fn caps_of(config: &Config) -> Vec<(String, [Rate; 2])> {
    let caps = |record: &ServiceRecord| [record.cap.into(), record.connections_in_force().0.into()];
    config.services.iter().filter_map(|record| Some((name_of(record)?, caps(record)))).collect()
}

/// The number that each service has, or gets.
fn numbers(config: &Config, services: &[Service]) -> Result<Vec<u8>> {
    let known = |name: &str| {
        let mut records = config.services.iter().enumerate().skip(1);
        records.find(|(_, record)| name_of(record).as_deref() == Some(name)).map(|(number, _)| number as u8)
    };
    let mut taken: Vec<u8> = services.iter().filter_map(|service| known(&service.name)).collect();
    let mut numbers = Vec::new();
    for service in services {
        let number = match known(&service.name) {
            Some(number) => number,
            None => {
                let free = (1..SERVICE_SLOTS as u8).find(|number| !taken.contains(number));
                let number = free.ok_or(Error::TooManyServices { most: SERVICE_SLOTS - 1 })?;
                taken.push(number);
                number
            }
        };
        numbers.push(number);
    }
    Ok(numbers)
}

fn ports_of(table: &PortTable, number: u8) -> Vec<(Transport, u16)> {
    let of = |transport: Transport| {
        (0..=u16::MAX).filter(move |port| table.service(transport, *port) == number).map(move |port| (transport, port))
    };
    Transport::ALL.iter().copied().flat_map(of).collect()
}

fn name_of(record: &ServiceRecord) -> Option<String> {
    Some(unpadded(&record.name)).filter(|name| !name.is_empty())
}

fn read_ports(pins: &Pins) -> Result<Box<PortTable>> {
    read_section(open_ports(pins)?.as_fd())
}

fn open_ports(pins: &Pins) -> Result<OwnedFd> {
    sys::open_pinned(&pins.map(map::SERVICES)).map_err(|error| Error::system("open the services", error))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_a_service_by_itself_gives_way() {
        let service = |name: &str, ports: &[u16]| {
            Service::uncapped(name, ports.iter().map(|port| (Transport::Udp, *port)).collect())
        };
        let shed = Service::uncapped("auto-tcp-443", vec![(Transport::Tcp, 443)]);
        let web = Service::uncapped("web", vec![(Transport::Tcp, 443)]);
        let mut services = vec![service(UNNAMED, &[53, 123]), service("dns", &[53]), shed.clone()];
        give_way(&mut services);
        assert_eq!(services, [service(UNNAMED, &[123]), service("dns", &[53]), shed]);
        services = vec![service(UNNAMED, &[53, 123]), service("dns", &[53]), services[2].clone(), web.clone()];
        give_way(&mut services);
        assert_eq!(services, [service(UNNAMED, &[123]), service("dns", &[53]), web]);
    }
}

//! What this host serves: names, ports and caps, kept in the maps alone.

use std::collections::BTreeSet;
use std::os::fd::{AsFd as _, OwnedFd};

use floodwall_common::abi::map;
use floodwall_common::config::Config;
use floodwall_common::limits::{Rate, RateSpec};
use floodwall_common::reason::{Reason, Verdict};
use floodwall_common::services::{Cap, NAME_BYTES, PortTable, SERVICE_SLOTS, ServiceRecord, Transport};
use floodwall_common::verified;

use super::error::{Error, Result};
use super::maps::{Mapped, read_section, write_section};
use super::text::{padded, unpadded};
use super::{Dataplane, Pins, sys};

/// The service of what listens on UDP and has no other, while it is UDP alone that is locked down: as long as it is there, the
/// lockdown is of UDP only, and where it goes the lockdown ends with it.
pub const UNNAMED: &str = "auto-udp";

/// Something that this host serves.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Service {
    /// Its name, of at most [`NAME_BYTES`] bytes.
    pub name: String,
    /// The ports that it is behind, sorted.
    pub ports: Vec<(Transport, u16)>,
    /// Packets a second to it from all sources together.
    pub cap: Rate,
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
                services.push(Service { name, ports, cap: record.cap.into() });
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
        let mut wanted = config.clone();
        wanted.services = [NOBODY; SERVICE_SLOTS];
        for (number, cap) in wanted.caps.iter_mut().enumerate() {
            *cap = self.cap(Rate::Off, config.caps[number].secret())?;
        }
        let mut table = Box::new(PortTable::empty());
        for (service, number) in services.iter().zip(numbers) {
            let at = usize::from(number);
            wanted.services[at] = ServiceRecord { name: padded(&service.name), cap: service.cap.into() };
            wanted.caps[at] = self.cap(service.cap, config.caps[at].secret())?;
            service.ports.iter().for_each(|(transport, port)| table.set(*transport, *port, number));
        }
        // A port that leads to a service without a cap passes; so the caps come first.
        let generation = self.change(expected, |config| {
            if is_of_udp_only(config) && !is_of_udp_only(&wanted) {
                config.drops = config.drops.choose(Reason::NoService, Verdict::Pass).unwrap_or(config.drops);
            }
            config.services = wanted.services;
            config.caps = wanted.caps;
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
        services.push(Service { name: UNNAMED.to_owned(), ports, cap: Rate::Off });
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

    /// Whether a cap can be kept on this machine.
    pub fn check_cap(&self, cap: Rate) -> bool {
        self.cap(cap, 0).is_ok()
    }

    fn cap(&self, rate: Rate, secret: u64) -> Result<Cap> {
        Cap::new(rate, self.machine, secret).map_err(|_| Error::CapOutOfRange { cap: rate.to_string() })
    }

    /// Whether the source with this key has completed a handshake lately.
    ///
    /// # Errors
    /// Where the maps cannot be read.
    pub fn is_verified(&self, source: u64) -> Result<bool> {
        let trace = verified::trace(&self.config()?.key, source);
        let memory = Mapped::memory(&self.pins, map::VERIFIED, verified::LINES)?;
        Ok(memory.remembers(trace, self.clock()?.now(), verified::SPAN))
    }
}

/// No service.
pub(crate) const NOBODY: ServiceRecord = ServiceRecord { name: [0; NAME_BYTES], cap: RateSpec::OFF };

/// What says that it is UDP alone that is locked down.
pub(crate) fn record_of_unnamed() -> ServiceRecord {
    ServiceRecord { name: padded(UNNAMED), cap: RateSpec::OFF }
}

/// Whether it is UDP alone that is locked down, if anything is.
pub fn is_of_udp_only(config: &Config) -> bool {
    config.services.iter().any(|record| record.name == padded(UNNAMED))
}

/// What is a service by itself gives way to those that somebody names.
pub(crate) fn give_way(services: &mut [Service]) {
    let named: Vec<_> =
        services.iter().filter(|service| service.name != UNNAMED).flat_map(|service| service.ports.clone()).collect();
    for unnamed in services.iter_mut().filter(|service| service.name == UNNAMED) {
        unnamed.ports.retain(|port| !named.contains(port));
    }
}

/// The services and their caps that lie in a configuration.
pub fn caps_of(config: &Config) -> Vec<(String, Rate)> {
    config.services.iter().filter_map(|record| Some((name_of(record)?, record.cap.into()))).collect()
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
        let service = |name: &str, ports: &[u16]| Service {
            name: name.to_owned(),
            ports: ports.iter().map(|port| (Transport::Udp, *port)).collect(),
            cap: Rate::Off,
        };
        let mut services = [service(UNNAMED, &[53, 123]), service("dns", &[53])];
        give_way(&mut services);
        assert_eq!(services, [service(UNNAMED, &[123]), service("dns", &[53])]);
    }
}

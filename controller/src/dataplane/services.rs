//! What this host serves: names, ports and caps, kept in the maps alone.

use std::io;

use aya::maps::{Array, Map, MapData};
use floodwall_common::abi::map;
use floodwall_common::config::Config;
use floodwall_common::limits::{Rate, RateSpec};
use floodwall_common::services::{Cap, NAME_BYTES, PortTable, SERVICE_SLOTS, ServiceRecord, Transport};
use floodwall_common::verified;

use super::error::{Error, Result};
use super::maps::Mapped;
use super::text::{padded, unpadded};
use super::{Dataplane, Pins, root_cause, typed};

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
        let mut wanted = config;
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
            config.services = wanted.services;
            config.caps = wanted.caps;
        })?;
        open_ports(&self.pins)?.set(0, *table, 0).map_err(|error| failed("write", &error))?;
        Ok(generation)
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

pub(super) const NOBODY: ServiceRecord = ServiceRecord { name: [0; NAME_BYTES], cap: RateSpec::OFF };

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
    open_ports(pins)?.get(&0, 0).map(Box::new).map_err(|error| failed("read", &error))
}

fn open_ports(pins: &Pins) -> Result<Array<MapData, PortTable>> {
    let data = MapData::from_pin(pins.map(map::SERVICES)).map_err(|error| failed("open", &error))?;
    typed(data, Map::Array, Array::try_from)
}

fn failed(what: &str, error: &(dyn std::error::Error + 'static)) -> Error {
    Error::system(format!("{what} the services"), io::Error::other(root_cause(error)))
}

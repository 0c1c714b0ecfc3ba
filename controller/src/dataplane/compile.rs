//! What an operator has set, compiled to what packets are asked.

use std::io;

use floodwall_common::abi::SAMPLE_STREAMS;
use floodwall_common::class::{Class, KIND_SLOTS, Kind};
use floodwall_common::config::{Config, LIMIT_SLOTS, Mode, Sampling};
use floodwall_common::cookie::Cookies;
use floodwall_common::groups::{GROUP_SLOTS, GroupRecord};
use floodwall_common::hash::HashKey;
use floodwall_common::limits::{LimitKey, LimitName, Limits, Per, RateError, RateSpec, Unit};
use floodwall_common::lists::ListState;
use floodwall_common::meter::{Ask, Machine, Meters};
use floodwall_common::reason::{DropSet, Reason};
use floodwall_common::services::{Cap, ConnectionCap, Order, SERVICE_SLOTS, ServiceRecord};
use floodwall_common::signatures::SignatureState;

use super::cookies::DEFAULT_ANSWERS;
use super::error::{Error, Result};
use super::{egress, groups, services, unix_s};

/// How often headers are sampled where nobody has said: by stream, one in so many.
const DEFAULT_SAMPLING: Sampling = Sampling::new([64; SAMPLE_STREAMS], 1_000);

/// The limits that lie in a configuration.
pub fn limits_of(config: &Config, key: LimitKey) -> Limits {
    let [packets, bytes] = config.specs[key.per as usize][key.name as usize];
    Limits { packets: packets.into(), bytes: bytes.into() }
}

pub(crate) fn apply(
    config: &mut Config,
    key: LimitKey,
    limits: Limits,
    machine: Machine,
) -> Result<(), (Unit, RateError)> {
    let recompile = |meters: &Meters| Meters::new(limits, machine, [meters.packets.secret(), meters.bytes.secret()]);
    if key.name == LimitName::Allowed {
        config.allowed = recompile(&config.allowed)?;
    }
    let of_class = |kind: &Kind| kind.parts().is_some_and(|(_, class)| LimitName::of(class) == key.name);
    for kind in Kind::all_ip().filter(of_class).map(|kind| kind.index() as usize) {
        let meters = match Per::WIDER.iter().position(|per| *per == key.per) {
            Some(level) => &mut config.wider[level][kind],
            None => &mut config.meters[kind],
        };
        *meters = recompile(meters)?;
    }
    config.specs[key.per as usize][key.name as usize] = [limits.packets.into(), limits.bytes.into()];
    Ok(())
}

/// Says at each kind what its packets are asked beside the packets per second of their source: what nobody has armed is
/// not asked. Every change of the configuration ends with this.
pub(crate) fn ask_what_is_armed(config: &mut Config) {
    let drops = config.drops;
    let has_lists = !config.lists.is_empty();
    let has_cookies = config.cookies.are_armed();
    let locks_udp = drops.has(Reason::NoService);
    let locks_all = locks_udp && !services::is_of_udp_only(config);
    let has_cap = config.caps.iter().any(Cap::is_armed);
    let has_connection_cap = config.connection_caps.iter().any(ConnectionCap::is_armed);
    for kind in Kind::all_ip() {
        let index = kind.index() as usize;
        for (level, per) in Per::WIDER.iter().enumerate() {
            let ask = config.wider[level][index].is_armed();
            config.meters[index].set_ask(Ask::wider(*per), ask);
        }
        let Some((_, class)) = kind.parts() else { continue };
        let armed = [
            (Ask::LISTS, has_lists),
            (Ask::REPLIES, drops.has(Reason::UnsolicitedReply) && egress::CLASSES_WITH_REPLIES.contains(&class)),
            (Ask::SIGNATURES, config.signatures.has(kind)),
            (Ask::LOCKDOWN, locks_all && class != Class::Fragment || locks_udp && class == Class::Udp),
            (Ask::STATE, drops.has(Reason::OutOfState) && class == Class::Tcp),
            (Ask::FIRST_SYN, drops.has(Reason::FirstSyn) && class == Class::TcpSyn),
            (Ask::COOKIE, has_cookies && class == Class::TcpSyn),
            (Ask::CONNECTIONS, has_connection_cap && class == Class::TcpSyn),
            (Ask::CAP, has_cap && matches!(class, Class::TcpSyn | Class::Tcp | Class::Udp)),
        ];
        armed.into_iter().for_each(|(what, ask)| config.meters[index].set_ask(what, ask));
    }
    groups::inherit(config);
}

/// The configuration of a first start: monitor mode, default limits, empty lists, secrets drawn anew.
pub(crate) fn first_config(machine: Machine) -> Result<Config> {
    let random = || -> Result<u64> {
        getrandom::u64().map_err(|error| Error::system("draw random numbers", io::Error::other(error.to_string())))
    };
    let off = RateSpec::from(floodwall_common::limits::Rate::Off);
    let unlimited = || -> Result<Meters> {
        let off = floodwall_common::limits::Rate::Off;
        let secrets = [random()?, random()?];
        Meters::new(Limits { packets: off, bytes: off }, machine, secrets)
            .map_err(|_| Error::system("compile limits", io::Error::other("no limit was refused")))
    };
    let mut config = Config {
        mode: Mode::Monitor as u32,
        lists: ListState::default(),
        drops: DropSet::standard(),
        sampling: DEFAULT_SAMPLING,
        key: HashKey::new([random()?, random()?]),
        meters: [Meters::default(); KIND_SLOTS],
        wider: [[Meters::default(); KIND_SLOTS]; Per::WIDER.len()],
        groups: [[Meters::default(); KIND_SLOTS]; GROUP_SLOTS],
        allowed: unlimited()?,
        caps: [Cap::default(); SERVICE_SLOTS],
        connection_caps: [ConnectionCap::default(); SERVICE_SLOTS],
        cookies: Cookies::default(),
        cookie_answers: unlimited()?.packets,
        signatures: SignatureState::default(),
        trial_until_ns: 0,
        cookie_spec: DEFAULT_ANSWERS.into(),
        services: [ServiceRecord::NOBODY; SERVICE_SLOTS],
        group_records: [GroupRecord::NOBODY; GROUP_SLOTS],
        specs: [[[off; 2]; LIMIT_SLOTS]; Per::ALL.len()],
        generation: 1,
        mode_since_unix_s: unix_s(),
    };
    for meters in config.meters.iter_mut().chain(config.wider.as_flattened_mut()) {
        *meters = unlimited()?;
    }
    let (none, out_of_range) =
        (floodwall_common::limits::Rate::Off, |_| Error::CapOutOfRange { cap: "off".to_owned() });
    for (cap, of_connections) in config.caps.iter_mut().zip(&mut config.connection_caps) {
        *cap = Cap::new(none, machine, random()?).map_err(out_of_range)?;
        *of_connections = ConnectionCap::new(none, Order::VerifiedFirst, machine, random()?).map_err(out_of_range)?;
    }
    for key in LimitKey::all() {
        apply(&mut config, key, key.default_limits(), machine)
            .map_err(|(unit, _)| Error::system("compile limits", io::Error::other(unit.label())))?;
    }
    ask_what_is_armed(&mut config);
    Ok(config)
}

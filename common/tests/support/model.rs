//! The maps as the decision sees them, in user space.

use floodwall_common::class::{Family, KIND_SLOTS, Kind};
use floodwall_common::closer::{Closer, Memory, look_closer};
use floodwall_common::config::{Config, LIMIT_SLOTS, Mode, Sampling};
use floodwall_common::cookie::Cookies;
use floodwall_common::decide::{World, decide, takes_no_more};
use floodwall_common::groups::{GROUP_SLOTS, GroupRecord};
use floodwall_common::hash::HashKey;
use floodwall_common::limits::{Limits, Per, Rate, RateSpec};
use floodwall_common::lists::{List, ListState};
use floodwall_common::meter::{Amount, Machine, Meter, Meters};
use floodwall_common::packet::{Frame, Source};
use floodwall_common::reason::{DropSet, Reason};
use floodwall_common::replies::{Conversation, PortSet};
use floodwall_common::services::{Cap, ConnectionCap, PortTable, SERVICE_SLOTS, ServiceRecord, Transport};
use floodwall_common::signatures::{Shape, SignatureState, Traits};

use super::limiter::{MS, NOON, Wall, place};

pub(crate) const MACHINE: Machine = Machine { cpus: 1, tick_ns: MS };

pub(crate) fn meters(packets: Rate, bytes: Rate) -> Meters {
    Meters::new(Limits { packets, bytes }, MACHINE, [1, 2]).unwrap()
}

pub(crate) fn limit(per_second: u64, burst: u64) -> Rate {
    Rate::Limit { per_second, burst }
}

/// All classes under the same limits; allowed sources under ten packets at once.
pub(crate) fn config(packets: Rate, bytes: Rate) -> Config {
    let family = Family::V4;
    Config {
        mode: Mode::Enforce as u32,
        lists: ListState::empty(0).with(List::Allow, family),
        drops: DropSet::standard(),
        sampling: Sampling::new([0; 3], 0),
        key: HashKey::new([1, 1]),
        meters: [meters(packets, bytes); KIND_SLOTS],
        wider: [[meters(Rate::Off, Rate::Off); KIND_SLOTS]; Per::WIDER.len()],
        groups: [[meters(packets, bytes); KIND_SLOTS]; GROUP_SLOTS],
        allowed: meters(limit(10, 10), Rate::Off),
        caps: [Cap::default(); SERVICE_SLOTS],
        connection_caps: [ConnectionCap::default(); SERVICE_SLOTS],
        cookies: Cookies::default(),
        cookie_answers: Meter::default(),
        signatures: SignatureState::default(),
        trial_until_ns: 0,
        cookie_spec: RateSpec::OFF,
        services: [ServiceRecord::NOBODY; SERVICE_SLOTS],
        group_records: [GroupRecord::NOBODY; GROUP_SLOTS],
        specs: [[[RateSpec::from(Rate::Off); 2]; LIMIT_SLOTS]; Per::ALL.len()],
        generation: 0,
        mode_since_unix_s: 0,
    }
}

/// The maps, with one source on each list.
pub(crate) struct Model<'w> {
    pub(crate) config: &'w Config,
    pub(crate) wall: Wall,
    pub(crate) asked: u32,
    pub(crate) sent: Vec<Conversation>,
    pub(crate) is_of_the_stack: bool,
    pub(crate) amplifiers: PortSet,
    pub(crate) verified: Vec<u64>,
    pub(crate) known: Vec<u64>,
    pub(crate) services: Box<PortTable>,
    pub(crate) signature: Option<Shape>,
}

pub(crate) const ALLOWED: [u8; 4] = [198, 51, 100, 1];
pub(crate) const DENIED: [u8; 4] = [198, 51, 100, 2];
pub(crate) const BOTH: [u8; 4] = [198, 51, 100, 3];
pub(crate) const GROUPED: [u8; 4] = [198, 51, 100, 4];
pub(crate) const GROUP: u32 = 3;

impl<'w> World<'w> for Model<'w> {
    fn config(&self) -> &'w Config {
        self.config
    }

    fn is_listed(&mut self, list: List, source: Source, _: ListState) -> bool {
        let is = |address: [u8; 4]| source == Source::V4(u32::from_be_bytes(address));
        match list {
            List::Allow => is(ALLOWED) || is(BOTH),
            List::Deny => is(DENIED) || is(BOTH),
            List::Groups => is(GROUPED),
        }
    }

    fn group(&mut self, source: Source, lists: ListState) -> u32 {
        let has_any = lists.has(List::Groups, source.family());
        u32::from(has_any && self.is_listed(List::Groups, source, lists)) * GROUP
    }

    fn is_signed(&mut self, frame: Frame<'_>) -> bool {
        let packet = Traits::read(frame);
        self.signature.is_some_and(|shape| packet.is_some_and(|packet| shape.suits(&packet)))
    }

    fn look_closer(&mut self, frame: Frame<'_>, key: u64, kind: Kind) -> Closer {
        look_closer(frame, key, kind, self.config, self)
    }

    fn has_cookie(&mut self, _: Frame<'_>, _: u64) -> bool {
        true
    }

    fn takes_no_more(&mut self, service: u8, key: u64) -> bool {
        takes_no_more(service, key, self)
    }

    fn admit(&mut self, key: u64, amount: Amount, meter: &Meter) -> bool {
        let cost = amount.on(meter);
        self.asked += 1;
        self.wall.cost(0, place(key ^ meter.secret() << 40), cost, meter)
    }
}

impl Memory for Model<'_> {
    fn has_sent(&self, conversation: Conversation) -> bool {
        self.sent.contains(&conversation)
    }

    fn is_verified(&self, key: u64) -> bool {
        self.verified.contains(&key)
    }

    fn is_known(&self, key: u64) -> bool {
        self.known.contains(&key)
    }

    fn is_of_the_stack(&self) -> bool {
        self.is_of_the_stack
    }

    fn is_first_syn(&self, _: Conversation) -> bool {
        true
    }

    fn is_amplifier(&self, port: u16) -> bool {
        self.amplifiers.has(port)
    }

    fn refuses(&self, key: u64, meter: &Meter) -> bool {
        self.wall.refuses(0, place(key ^ meter.secret() << 40), meter)
    }

    fn service(&self, transport: Transport, port: u16) -> u8 {
        self.services.service(transport, port)
    }
}

impl Model<'_> {
    pub(crate) fn reason(&mut self, frame: &[u8]) -> Reason {
        decide(Frame::new(frame), self).0
    }

    /// The first reason that is not the first one, among a thousand of this frame.
    pub(crate) fn then(&mut self, frame: &[u8]) -> Option<Reason> {
        let first = self.reason(frame);
        (0..1_000).map(|_| self.reason(frame)).find(|reason| *reason != first)
    }
}

pub(crate) fn model(config: &Config) -> Model<'_> {
    let mut amplifiers = PortSet::empty();
    amplifiers.set(53, true);
    let mut services = Box::new(PortTable::empty());
    services.set(Transport::Tcp, 443, 1);
    services.set(Transport::Udp, 443, 1);
    let wall = Wall::new(1, NOON);
    Model {
        config,
        wall,
        asked: 0,
        sent: Vec::new(),
        is_of_the_stack: false,
        amplifiers,
        verified: Vec::new(),
        known: Vec::new(),
        services,
        signature: None,
    }
}

//! The maps of the packet path on the heap: `decide` asks them for what it asks the kernel's.

use std::collections::HashSet;

use anyhow::Result;
use floodwall_common::abi::Counter;
use floodwall_common::class::{Family, Kind};
use floodwall_common::clock::Moment;
use floodwall_common::closer::{self, Closer, look_closer};
use floodwall_common::config::{Config, Mode};
use floodwall_common::cookie::CookieMode;
use floodwall_common::decide::{World, decide, takes_no_more};
use floodwall_common::limiter::{BUCKETS, Bucket, GATE_CELLS, Gate, pass_gate, pass_table, refuses};
use floodwall_common::limits::{LimitKey, Limits};
use floodwall_common::lists::{List, ListState};
use floodwall_common::memory::{Line, Span, Trace};
use floodwall_common::meter::{Amount, Machine, Meter};
use floodwall_common::packet::{Frame, Source};
use floodwall_common::reason::{Reason, Verdict};
use floodwall_common::replies::{self, Conversation, PortSet};
use floodwall_common::services::{PortTable, SERVICE_SLOTS, ServiceRecord, Transport};
use floodwall_common::signatures::SIGNATURES;
use floodwall_common::{first_syn, verified};
use ipnet::IpNet;

use crate::dataplane::{
    CompiledSignatures, Group, Signature, apply, ask_what_is_armed, first_config, known_amplifiers, record_of_unnamed,
    set_groups,
};
use crate::explain::address_of;

/// The service of what listens on UDP: the last one, since others have the first.
const UNNAMED_SERVICE: usize = SERVICE_SLOTS - 1;
/// One CPU that always knows the time.
const MACHINE: Machine = Machine { cpus: 1, tick_ns: 1_000_000 };

struct Memory {
    lines: Vec<Line>,
    span: Span,
}

impl Memory {
    fn new(lines: usize, span: Span) -> Self {
        Self { lines: (0..lines).map(|_| Line::empty()).collect(), span }
    }

    fn line(&self, trace: Trace) -> &Line {
        &self.lines[trace.line(self.lines.len())]
    }

    fn remember(&self, trace: Trace, now: Moment) {
        self.line(trace).remember(trace, now, self.span);
    }

    fn remembers(&self, trace: Trace, now: Moment) -> bool {
        self.line(trace).remembers(trace, now, self.span)
    }
}

/// What the kernel half has in maps, and the configuration.
pub struct Maps {
    config: Config,
    tables: Tables,
    denied: HashSet<(u64, Family)>,
}

/// What the kernel half has in maps, but the configuration and the lists.
pub struct Tables {
    gate: Vec<u32>,
    table: Vec<Bucket>,
    sent: Memory,
    verified: Memory,
    first_syns: Vec<first_syn::Line>,
    /// The UDP ports that replies come from.
    pub amplifiers: PortSet,
    /// Which ports are of which service.
    pub services: Box<PortTable>,
    /// The signatures in force.
    pub signatures: CompiledSignatures,
    /// The prefixes of groups, and the number of each group.
    pub groups: Vec<(IpNet, u32)>,
    /// What suited each of them, by its number.
    pub hits: Vec<Counter>,
    /// The moment at which packets are judged.
    pub now: Moment,
}

impl Tables {
    /// Empty ones, but for the amplifiers that are known.
    ///
    /// # Errors
    /// Where no signatures at all cannot be compiled.
    pub fn new() -> Result<Self> {
        Ok(Self {
            gate: vec![0; GATE_CELLS],
            table: (0..BUCKETS).map(|_| Bucket::empty()).collect(),
            sent: Memory::new(replies::LINES, replies::SPAN),
            verified: Memory::new(verified::LINES, verified::SPAN),
            first_syns: (0..first_syn::LINES).map(|_| first_syn::Line::empty()).collect(),
            amplifiers: known_amplifiers(),
            services: Box::new(PortTable::empty()),
            groups: Vec::new(),
            signatures: CompiledSignatures::of(&[], 0)?,
            hits: vec![Counter::default(); SIGNATURES],
            now: Moment::from_ns(0),
        })
    }

    /// Remembers a frame that the host sends.
    pub fn sent(&mut self, config: &Config, frame: Frame<'_>) {
        if let Some(conversation) = Conversation::of_sent(frame) {
            self.sent.remember(conversation.trace(&config.key), self.now);
        }
        if let Some(source) = verified::of_sent(frame) {
            self.verified.remember(verified::trace(&config.key, source), self.now);
        }
    }

    /// What a frame is found to be, and its place in the counters. `is_listed` answers for the lists; `listens` says whether there
    /// is a listener wherever a SYN goes, which takes cookies.
    pub fn judge(
        &mut self,
        config: &Config,
        frame: Frame<'_>,
        is_listed: impl FnMut(List, Source) -> bool,
        listens: bool,
    ) -> (Reason, Kind) {
        decide(frame, &mut Judge { config, tables: self, is_listed, listens })
    }
}

impl Maps {
    /// Those of a first start, enforcing: default limits, nothing armed, empty lists.
    ///
    /// # Errors
    /// Where no random numbers can be had.
    pub fn new() -> Result<Self> {
        let mut config = first_config(MACHINE)?;
        config.mode = Mode::Enforce as u32;
        Ok(Self { config, tables: Tables::new()?, denied: HashSet::new() })
    }

    /// Why a frame passes or drops, and what becomes of it.
    pub fn judge(&mut self, frame: Frame<'_>, now: Moment) -> (Reason, Kind, Verdict) {
        self.tables.now = now;
        // Nobody is on the lists but whom detection denies, and a host that is flooded with SYNs is taken to listen where they go.
        let denied = &self.denied;
        let is_listed = |list, source: Source| list == List::Deny && denied.contains(&(source.key(), source.family()));
        let (reason, kind) = self.tables.judge(&self.config, frame, is_listed, true);
        (reason, kind, reason.verdict(self.config.drops))
    }

    /// Remembers a frame that the host sends.
    pub fn sent(&mut self, frame: Frame<'_>, now: Moment) {
        self.tables.now = now;
        self.tables.sent(&self.config, frame);
    }

    /// Whether the host has begun this conversation lately.
    pub fn has_sent(&self, conversation: Conversation, now: Moment) -> bool {
        self.tables.sent.remembers(conversation.trace(&self.config.key), now)
    }

    /// What has suited each signature, by its number.
    pub fn hits(&self) -> &[Counter] {
        &self.tables.hits
    }

    /// Whether packets with this reason are dropped.
    pub fn drops(&self, reason: Reason) -> bool {
        self.config.drops.has(reason)
    }

    /// Chooses what a reason comes to.
    pub fn set_policy(&mut self, reason: Reason, verdict: Verdict) {
        self.config.drops = self.config.drops.choose(reason, verdict).unwrap_or(self.config.drops);
        ask_what_is_armed(&mut self.config);
    }

    /// Drops what these sources send.
    pub fn deny(&mut self, sources: &[Source]) {
        self.denied.extend(sources.iter().map(|source| (source.key(), source.family())));
        self.ask_lists();
    }

    /// Takes all of them off the list.
    pub fn deny_nobody(&mut self) {
        self.denied.clear();
        self.ask_lists();
    }

    /// Has these groups, and no others.
    ///
    /// # Errors
    /// Where a limit cannot be kept.
    pub fn set_groups(&mut self, groups: &[Group]) -> Result<()> {
        let numbered: Vec<_> = (1..).zip(groups.iter().cloned()).collect();
        set_groups(&mut self.config, &numbered, MACHINE)?;
        let members =
            numbered.iter().flat_map(|(number, group)| group.prefixes.iter().map(|prefix| (*prefix, *number)));
        self.tables.groups = members.collect();
        self.ask_lists();
        Ok(())
    }

    /// Has the packet path ask the lists that have anything.
    fn ask_lists(&mut self) {
        let denied = self.denied.iter().map(|(_, family)| (List::Deny, *family));
        let family = |prefix: &IpNet| if prefix.addr().is_ipv4() { Family::V4 } else { Family::V6 };
        let members = self.tables.groups.iter().map(|(prefix, _)| (List::Groups, family(prefix)));
        let state = ListState::default();
        self.config.lists = denied.chain(members).fold(state, |state, (list, family)| state.with(list, family));
        ask_what_is_armed(&mut self.config);
    }

    /// Drops UDP that nothing listens for, and that answers nothing; or no more.
    pub fn lock_udp(&mut self, locks: bool) {
        self.config.services[UNNAMED_SERVICE] = if locks { record_of_unnamed() } else { ServiceRecord::NOBODY };
        self.set_policy(Reason::NoService, if locks { Verdict::Drop } else { Verdict::Pass });
    }

    /// Says that something listens on a UDP port.
    pub fn listen_udp(&mut self, port: u16) {
        self.tables.services.set(Transport::Udp, port, UNNAMED_SERVICE as u8);
    }

    /// Sets a limit.
    ///
    /// # Errors
    /// Where it cannot be kept.
    pub fn set_limit(&mut self, key: LimitKey, limits: Limits) -> Result<()> {
        let set = apply(&mut self.config, key, limits, MACHINE);
        set.map_err(|(unit, error)| anyhow::anyhow!("the limit of {} cannot be kept: {error:?}", unit.label()))?;
        ask_what_is_armed(&mut self.config);
        Ok(())
    }

    /// Chooses how SYNs are answered.
    pub fn set_cookies(&mut self, mode: CookieMode) {
        self.config.cookies.mode = mode as u32;
        ask_what_is_armed(&mut self.config);
    }

    /// Puts signatures in force.
    ///
    /// # Errors
    /// Where they cannot be compiled.
    pub fn set_signatures(&mut self, signatures: &[Signature]) -> Result<()> {
        for (number, signature) in signatures.iter().enumerate() {
            self.tables.hits[number] = signature.hits;
        }
        self.tables.signatures = CompiledSignatures::of(signatures, 0)?;
        self.config.signatures = self.tables.signatures.state;
        ask_what_is_armed(&mut self.config);
        Ok(())
    }
}

struct Judge<'c, 't, L> {
    config: &'c Config,
    tables: &'t mut Tables,
    is_listed: L,
    listens: bool,
}

impl<'c, L: FnMut(List, Source) -> bool> World<'c> for Judge<'c, '_, L> {
    fn config(&self) -> &'c Config {
        self.config
    }

    fn is_listed(&mut self, list: List, source: Source, _: ListState) -> bool {
        (self.is_listed)(list, source)
    }

    fn group(&mut self, source: Source, _: ListState) -> u32 {
        let address = address_of(source);
        let holding = self.tables.groups.iter().filter(|(prefix, _)| prefix.contains(&address));
        holding.max_by_key(|(prefix, _)| prefix.prefix_len()).map_or(0, |(_, group)| *group)
    }

    fn is_signed(&mut self, frame: Frame<'_>) -> bool {
        let Tables { signatures, hits, now, .. } = &mut *self.tables;
        signatures.table.judge(
            || frame,
            signatures.state.words(),
            *now,
            |number| {
                if let Some(hits) = hits.get_mut(number) {
                    hits.packets += 1;
                    hits.bytes += u64::from(frame.bytes());
                }
            },
        )
    }

    fn look_closer(&mut self, frame: Frame<'_>, key: u64, kind: Kind) -> Closer {
        look_closer(frame, key, kind, self.config, self)
    }

    fn has_cookie(&mut self, _: Frame<'_>, _: u64) -> bool {
        self.listens && self.config.cookies.are_armed()
    }

    fn takes_no_more(&mut self, service: u8, key: u64) -> bool {
        takes_no_more(service, key, self)
    }

    fn admit(&mut self, key: u64, amount: Amount, meter: &Meter) -> bool {
        let cost = amount.on(meter);
        let place = self.config.key.place(meter.secret(), key);
        match pass_gate(&mut self.tables.gate[place.cell()], cost, meter, self.tables.now) {
            Gate::Pass => true,
            Gate::Ask { charge } => {
                pass_table(&self.tables.table[place.bucket()], place, cost, charge, meter, self.tables.now)
            }
        }
    }
}

impl<L> closer::Memory for Judge<'_, '_, L> {
    fn has_sent(&self, conversation: Conversation) -> bool {
        self.tables.sent.remembers(conversation.trace(&self.config.key), self.tables.now)
    }

    fn is_verified(&self, key: u64) -> bool {
        self.tables.verified.remembers(verified::trace(&self.config.key, key), self.tables.now)
    }

    /// Nothing is shed in a capture.
    fn is_known(&self, _: u64) -> bool {
        false
    }

    /// What the host answered is in the capture, and was remembered then.
    fn is_of_the_stack(&self) -> bool {
        false
    }

    fn is_first_syn(&self, connection: Conversation) -> bool {
        let trace = connection.trace(&self.config.key);
        first_syn::is_first(&self.tables.first_syns[trace.line(first_syn::LINES)], trace, self.tables.now)
    }

    fn is_amplifier(&self, port: u16) -> bool {
        self.tables.amplifiers.has(port)
    }

    fn refuses(&self, key: u64, meter: &Meter) -> bool {
        let place = self.config.key.place(meter.secret(), key);
        refuses(&self.tables.gate[place.cell()], &self.tables.table[place.bucket()], place, meter, self.tables.now)
    }

    fn service(&self, transport: Transport, port: u16) -> u8 {
        self.tables.services.service(transport, port)
    }
}

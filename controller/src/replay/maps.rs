//! The maps of the packet path on the heap: `decide` asks them for what it asks the kernel's.

use anyhow::Result;
use floodwall_common::abi::Counter;
use floodwall_common::class::Kind;
use floodwall_common::clock::Moment;
use floodwall_common::closer::{self, Closer, look_closer};
use floodwall_common::config::{Config, Mode};
use floodwall_common::cookie::CookieMode;
use floodwall_common::decide::{World, decide};
use floodwall_common::limiter::{BUCKETS, Bucket, GATE_CELLS, Gate, pass_gate, pass_table};
use floodwall_common::lists::{List, ListState};
use floodwall_common::memory::{Line, Span, Trace};
use floodwall_common::meter::{Amount, Machine, Meter};
use floodwall_common::packet::{Frame, Source};
use floodwall_common::reason::{Reason, Verdict};
use floodwall_common::replies::{self, Conversation, PortSet};
use floodwall_common::services::{PortTable, Transport};
use floodwall_common::signatures::SIGNATURES;
use floodwall_common::{first_syn, verified};

use crate::dataplane::{CompiledSignatures, Signature, ask_what_is_armed, first_config, known_amplifiers};

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

/// What the kernel half has in maps.
pub struct Maps {
    config: Config,
    state: State,
}

struct State {
    gate: Vec<u32>,
    table: Vec<Bucket>,
    sent: Memory,
    verified: Memory,
    first_syns: Vec<first_syn::Line>,
    amplifiers: PortSet,
    services: Box<PortTable>,
    signatures: CompiledSignatures,
    hits: Vec<Counter>,
    now: Moment,
}

impl Maps {
    /// Those of a first start, enforcing: default limits, nothing armed, empty lists.
    ///
    /// # Errors
    /// Where no random numbers can be had.
    pub fn new() -> Result<Self> {
        let mut config = first_config(MACHINE)?;
        config.mode = Mode::Enforce as u32;
        let state = State {
            gate: vec![0; GATE_CELLS],
            table: (0..BUCKETS).map(|_| Bucket::empty()).collect(),
            sent: Memory::new(replies::LINES, replies::SPAN),
            verified: Memory::new(verified::LINES, verified::SPAN),
            first_syns: (0..first_syn::LINES).map(|_| first_syn::Line::empty()).collect(),
            amplifiers: known_amplifiers(),
            services: Box::new(PortTable::empty()),
            signatures: CompiledSignatures::of(&[], 0)?,
            hits: vec![Counter::default(); SIGNATURES],
            now: Moment::from_ns(0),
        };
        Ok(Self { config, state })
    }

    /// Why a frame passes or drops, and what becomes of it.
    pub fn judge(&mut self, frame: Frame<'_>, now: Moment) -> (Reason, Kind, Verdict) {
        self.state.now = now;
        let Self { config, state } = self;
        let (reason, kind) = decide(frame, &mut Judge { config, state });
        (reason, kind, reason.verdict(config.drops))
    }

    /// Remembers a frame that the host sends.
    pub fn sent(&mut self, frame: Frame<'_>, now: Moment) {
        let key = &self.config.key;
        if let Some(conversation) = Conversation::of_sent(frame) {
            self.state.sent.remember(conversation.trace(key), now);
        }
        if let Some(source) = verified::of_sent(frame) {
            self.state.verified.remember(verified::trace(key, source), now);
        }
    }

    /// Whether the host has begun this conversation lately.
    pub fn has_sent(&self, conversation: Conversation, now: Moment) -> bool {
        self.state.sent.remembers(conversation.trace(&self.config.key), now)
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
        self.state.signatures = CompiledSignatures::of(signatures, 0)?;
        self.config.signatures = self.state.signatures.state;
        ask_what_is_armed(&mut self.config);
        Ok(())
    }
}

struct Judge<'a> {
    config: &'a Config,
    state: &'a mut State,
}

impl<'a> World<'a> for Judge<'a> {
    fn config(&self) -> &'a Config {
        self.config
    }

    fn is_listed(&mut self, _: List, _: Source, _: ListState) -> bool {
        // There is nothing on the lists of a first start.
        false
    }

    fn is_signed(&mut self, frame: Frame<'_>) -> bool {
        let State { signatures, hits, now, .. } = &mut *self.state;
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
        look_closer(frame, key, self.config.meters(kind), self)
    }

    fn has_cookie(&mut self, _: Frame<'_>) -> bool {
        // A host that is flooded with SYNs is taken to listen where they go.
        self.config.cookies.mode != CookieMode::Off as u32
    }

    fn admit(&mut self, key: u64, amount: Amount, meter: &Meter) -> bool {
        let cost = amount.on(meter);
        let place = self.config.key.place(meter.secret(), key);
        match pass_gate(&mut self.state.gate[place.cell()], cost, meter, self.state.now) {
            Gate::Pass => true,
            Gate::Ask { charge } => {
                pass_table(&self.state.table[place.bucket()], place, cost, charge, meter, self.state.now)
            }
        }
    }
}

impl closer::Memory for Judge<'_> {
    fn has_sent(&self, conversation: Conversation) -> bool {
        self.state.sent.remembers(conversation.trace(&self.config.key), self.state.now)
    }

    fn is_verified(&self, key: u64) -> bool {
        self.state.verified.remembers(verified::trace(&self.config.key, key), self.state.now)
    }

    fn is_first_syn(&self, connection: Conversation) -> bool {
        let trace = connection.trace(&self.config.key);
        first_syn::is_first(&self.state.first_syns[trace.line(first_syn::LINES)], trace, self.state.now)
    }

    fn is_amplifier(&self, port: u16) -> bool {
        self.state.amplifiers.has(port)
    }

    fn service(&self, transport: Transport, port: u16) -> u8 {
        self.state.services.service(transport, port)
    }
}

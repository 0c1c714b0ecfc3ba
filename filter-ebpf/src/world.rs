//! What a decision has to know, answered by the maps.

use core::marker::PhantomData;

use aya_ebpf::bindings::xdp_md;
use aya_ebpf::programs::XdpContext;
use floodwall_common::abi::CpuState;
use floodwall_common::class::{Family, Kind};
use floodwall_common::clock::Moment;
use floodwall_common::closer::{Closer, Memory};
use floodwall_common::config::Config;
use floodwall_common::decide::{self, World};
use floodwall_common::hash::Place;
use floodwall_common::limiter::{self, Gate};
use floodwall_common::lists::{List, ListState};
use floodwall_common::meter::{Amount, Meter};
use floodwall_common::packet::fast::Rest;
use floodwall_common::packet::{Frame, Source};
use floodwall_common::replies::{self, Conversation};
use floodwall_common::services::Transport;
use floodwall_common::signatures::SIGNATURES;
use floodwall_common::{closer, first_syn, verified};

use crate::cookie::Answer;
use crate::{clock, cookie, maps};

/// How a meter is asked.
pub(crate) trait How {
    /// Whether its gate, and whether all of it is asked in place; what is not in place is a call.
    const IN_PLACE: (bool, bool);
}

/// On the common path, where one meter is asked.
#[derive(Clone, Copy)]
pub(crate) struct Common;
/// Where several may be asked, and most packets pass all gates.
#[derive(Clone, Copy)]
pub(crate) struct Armed;
/// In the complete decision.
#[derive(Clone, Copy)]
pub(crate) struct Complete;

impl How for Common {
    const IN_PLACE: (bool, bool) = (true, true);
}

impl How for Armed {
    const IN_PLACE: (bool, bool) = (true, false);
}

impl How for Complete {
    const IN_PLACE: (bool, bool) = (false, false);
}

/// The maps at the moment of a packet, on its CPU.
#[derive(Clone, Copy)]
pub(crate) struct Kernel<H> {
    pub(crate) ctx: *mut xdp_md,
    pub(crate) config: &'static Config,
    pub(crate) cpu: *mut CpuState,
    pub(crate) now: Moment,
    /// What a SYN is answered with, where it is.
    pub(crate) answer: Answer,
    how: PhantomData<H>,
}

impl<H: How> Kernel<H> {
    #[inline(always)]
    pub(crate) fn now(ctx: *mut xdp_md) -> Option<Self> {
        let now = clock::now();
        Some(Self::at(ctx, maps::this_cpu()?, now))
    }

    #[inline(always)]
    pub(crate) fn at(ctx: *mut xdp_md, cpu: *mut CpuState, now: Moment) -> Self {
        Self { ctx, config: maps::config(), cpu, now, answer: Answer::NONE, how: PhantomData }
    }

    /// The cell of a source in the gate of this CPU.
    #[inline(always)]
    fn cell(&mut self, place: Place) -> &mut u32 {
        // SAFETY: inside the gate by its mask, and only this CPU touches its gate.
        unsafe { &mut (&mut (*self.cpu).gate)[place.cell()] }
    }

    /// What is in it.
    #[inline(always)]
    fn in_cell(&self, place: Place) -> u32 {
        // SAFETY: as above.
        unsafe { (&(*self.cpu).gate)[place.cell()] }
    }
}

impl<H: How> World<'static> for Kernel<H> {
    #[inline(always)]
    fn config(&self) -> &'static Config {
        self.config
    }

    #[inline(always)]
    fn lists(&self) -> ListState {
        // SAFETY: a live word; volatile, as the compiler could read it anew at each use else, and a packet that is on the
        // way while the lists change would be judged by the old ones first and by the new ones then.
        unsafe { (&raw const self.config.lists).read_volatile() }
    }

    #[inline(always)]
    fn is_listed(&mut self, list: List, source: Source, lists: ListState) -> bool {
        maps::listed(list, source, lists).is_some_and(|entry| entry.is_live(self.now))
    }

    #[inline(always)]
    fn group(&mut self, source: Source, lists: ListState) -> u32 {
        maps::listed(List::Groups, source, lists).map_or(0, |entry| entry.group)
    }

    #[inline(always)]
    fn may_be_listed(&mut self, source: Source) -> bool {
        maps::may_be_listed(source, self.lists())
    }

    #[inline(always)]
    fn is_on_a_list(&mut self, source: Source) -> bool {
        let (upper, lower) = source.halves();
        self.may_be_listed(source) && floodwall_is_listed(upper, lower, source.family() as u32) != 0
    }

    #[inline(always)]
    fn may_be_signed(&mut self, packet: &Rest<'_>) -> bool {
        // SAFETY: a live word; volatile, so that bank and words are those of one change.
        let state = unsafe { (&raw const self.config.signatures).read_volatile() };
        maps::signatures(state.bank()).may_suit(packet)
    }

    #[inline(always)]
    fn is_signed(&mut self, frame: Frame<'_>) -> bool {
        floodwall_is_signed(self.ctx, frame.bytes()) != 0
    }

    #[inline(always)]
    fn look_closer(&mut self, _: Frame<'_>, key: u64, kind: Kind) -> Closer {
        Closer::from_bits(floodwall_look_closer(self.ctx, key, u32::from(kind.index())))
    }

    #[inline(always)]
    fn has_cookie(&mut self, _: Frame<'_>, key: u64) -> bool {
        self.answer = cookie::look_for(self.ctx, key);
        self.answer.is_some()
    }

    #[inline(always)]
    fn takes_no_more(&mut self, service: u8, key: u64) -> bool {
        floodwall_takes_no_more(key, u32::from(service)) != 0
    }

    #[inline(always)]
    fn admit(&mut self, key: u64, amount: Amount, meter: &Meter) -> bool {
        let (gate_in_place, table_in_place) = H::IN_PLACE;
        if gate_in_place {
            let (place, now) = (self.config.key.place(meter.secret(), key), self.now);
            let cell = self.cell(place);
            if limiter::pass_open_gate(cell, amount.on(meter), meter, now) {
                return true;
            }
            if limiter::stays_over(cell, maps::likely_entry(place), place, meter, now) {
                return false;
            }
            if table_in_place {
                return ask(cell, key, amount, meter, now);
            }
        }
        let place = core::ptr::from_ref(meter) as usize - core::ptr::from_ref(self.config) as usize;
        floodwall_admit(key, amount.to_bits(), place as u32) != 0
    }
}

/// Whether any list has an entry for the source, whether or not it has ended. A global function: the kernel verifies it once,
/// by itself, and not for every way that leads to it.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn floodwall_is_listed(upper: u64, lower: u64, family: u32) -> u32 {
    let source = if family == Family::V4 as u32 { Source::V4(upper as u32) } else { Source::V6(upper, lower) };
    // SAFETY: a live word; volatile, so that it is read once.
    let state = unsafe { (&raw const maps::config().lists).read_volatile() };
    let is_on = |list| maps::listed(list, source, state).is_some();
    u32::from(is_on(List::Allow) || is_on(List::Deny) || is_on(List::Groups))
}

/// Asks the meter at this place in the configuration. A global function too.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn floodwall_admit(key: u64, amount: u32, meter: u32) -> u32 {
    const LAST: usize = size_of::<Config>() - size_of::<Meter>();
    let (place, Some(mut kernel)) = (meter as usize, Kernel::<Common>::now(core::ptr::null_mut())) else { return 1 };
    // Nobody asks for another place; the verifier wants to hear it.
    if place > LAST {
        return 1;
    }
    // SAFETY: inside the configuration, at a meter.
    let meter = unsafe { &*core::ptr::from_ref(maps::config()).byte_add(place).cast::<Meter>() };
    u32::from(kernel.admit(key, Amount::from_bits(amount), meter))
}

/// Asks the cap of new connections of a service; a global function too.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn floodwall_takes_no_more(key: u64, service: u32) -> u32 {
    let Some(mut kernel) = Kernel::<Complete>::now(core::ptr::null_mut()) else { return 0 };
    u32::from(decide::takes_no_more(service as u8, key, &mut kernel))
}

/// Takes the closer look; a global function too.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn floodwall_look_closer(ctx: *mut xdp_md, key: u64, kind: u32) -> u64 {
    let Some(kernel) = Kernel::<Complete>::now(ctx) else { return Closer::NOTHING.to_bits() };
    let ctx = XdpContext::new(ctx);
    let (start, end) = (ctx.data(), ctx.data_end());
    // SAFETY: the kernel keeps this range readable while the program runs.
    let frame = unsafe { Frame::from_raw(start, end, (end - start) as u32) };
    closer::look_closer(frame, key, Kind::from_masked(u64::from(kind)), kernel.config, &kernel).to_bits()
}

impl<H: How> Memory for Kernel<H> {
    #[inline(always)]
    fn has_sent(&self, conversation: Conversation) -> bool {
        let trace = conversation.trace(&self.config.key);
        maps::sent(trace).remembers(trace, self.now, replies::SPAN)
    }

    #[inline(always)]
    fn is_verified(&self, key: u64) -> bool {
        let trace = verified::trace(&self.config.key, key);
        maps::verified(trace).remembers(trace, self.now, verified::SPAN)
    }

    #[inline(always)]
    fn is_known(&self, key: u64) -> bool {
        let trace = verified::trace(&self.config.key, key);
        maps::known(trace).remembers(trace, self.now, verified::SPAN)
    }

    #[inline(always)]
    fn is_of_the_stack(&self) -> bool {
        cookie::floodwall_is_of_the_stack(self.ctx) != 0
    }

    #[inline(always)]
    fn is_first_syn(&self, connection: Conversation) -> bool {
        let trace = connection.trace(&self.config.key);
        maps::first_syns(trace).is_some_and(|line| first_syn::is_first(line, trace, self.now))
    }

    #[inline(always)]
    fn is_amplifier(&self, port: u16) -> bool {
        maps::amplifiers().has(port)
    }

    #[inline(always)]
    fn refuses(&self, key: u64, meter: &Meter) -> bool {
        let place = self.config.key.place(meter.secret(), key);
        limiter::stays_over(&self.in_cell(place), maps::likely_entry(place), place, meter, self.now)
    }

    #[inline(always)]
    fn service(&self, transport: Transport, port: u16) -> u8 {
        maps::services().service(transport, port)
    }
}

/// The frame, read again from the context: a view of which the verifier has learned nothing yet.
#[inline(always)]
pub(crate) fn anew<'a>(ctx: *mut xdp_md, bytes: u32) -> Frame<'a> {
    // SAFETY: the context is the one that the kernel gave, and it keeps this range readable while the program runs; volatile,
    // so that the compiler does not take what it has already read.
    unsafe {
        let start = (&raw const (*ctx).data).read_volatile() as usize;
        let end = (&raw const (*ctx).data_end).read_volatile() as usize;
        Frame::from_raw(start, end, bytes)
    }
}

/// Whether a signature in force has the frame of so many bytes dropped; counts the hits. A global function too.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn floodwall_is_signed(ctx: *mut xdp_md, bytes: u32) -> u32 {
    // SAFETY: a live word; volatile, so that it is read once: bank and words are those of one change.
    let state = unsafe { (&raw const maps::config().signatures).read_volatile() };
    let Some(cpu) = maps::this_cpu() else { return 0 };
    let is_dropped = maps::signatures(state.bank()).judge(
        || anew(ctx, bytes),
        state.words(),
        clock::now(),
        |number| {
            // SAFETY: a live array entry that only this CPU writes.
            let counter = unsafe { &mut (&mut (*cpu).signatures)[number & (SIGNATURES - 1)] };
            counter.packets += 1;
            counter.bytes += u64::from(bytes);
        },
    );
    u32::from(is_dropped)
}

/// Asks the table for a packet that the gate does not let pass by itself. A function of its own, so that the common path
/// keeps its registers to itself.
#[inline(never)]
fn ask(cell: &mut u32, key: u64, amount: Amount, meter: &Meter, now: Moment) -> bool {
    let cost = amount.on(meter);
    match limiter::pass_gate(cell, cost, meter, now) {
        Gate::Pass => true,
        Gate::Ask { charge } => {
            let place = maps::config().key.place(meter.secret(), key);
            limiter::pass_table(maps::bucket(place), place, cost, charge, meter, now)
        }
    }
}

//! The one value that steers the packet path. The controller writes it, the kernel half reads it on every packet.
//!
//! It is written as a whole; a packet on another CPU may meanwhile see the old cost beside the new tolerance of a
//! limit, for nanoseconds. Mode and lists are one word each and change at once; a kind that is not asked for lists yet, or
//! no more, is one that finds them empty.

use core::hint::cold_path;
use core::mem::offset_of;

use crate::abi::{SAMPLE_STREAMS, STREAM_SLOTS, Stream};
use crate::class::{KIND_SLOTS, Kind};
use crate::clock::Moment;
use crate::cookie::Cookies;
use crate::groups::{GROUP_SLOTS, GroupRecord};
use crate::hash::HashKey;
use crate::labelled_enum;
use crate::limits::{LimitName, Per, RateSpec};
use crate::lists::ListState;
use crate::meter::{Meter, Meters};
use crate::reason::DropSet;
use crate::services::{Cap, ConnectionCap, SERVICE_SLOTS, ServiceRecord};
use crate::signatures::SignatureState;
use crate::verifier::opaque;

labelled_enum! {
    /// Whether drops are real.
    pub enum Mode {
        /// What would be dropped is counted under its reason and passes.
        Monitor = 0 => "monitor",
        /// Drops are drops.
        Enforce = 1 => "enforce",
        /// The kill switch: as in monitor mode, whatever anybody sets, until it is resumed.
        Stopped = 2 => "stopped",
    }
}

/// A bit of the mode's word beside [`Mode::Stopped`]: drops were real before.
const WAS_ENFORCING: u32 = 4;
/// A bit beside [`Mode::Enforce`] or [`WAS_ENFORCING`]: only until [`Config::trial_until_ns`].
const ON_TRIAL: u32 = 8;
/// The mode's word while drops are on trial.
const TRIAL: u32 = Mode::Enforce as u32 | ON_TRIAL;

/// Room for limits; a power of two.
pub const LIMIT_SLOTS: usize = 8;

const _: () = assert!(LimitName::ALL.len() <= LIMIT_SLOTS && Per::WIDER.len() == 2);

/// How many headers go to the sample ring, by the place of their [`Stream`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Sampling {
    /// The highest of the thresholds: what is not below this is no sample of any stream.
    highest: u64,
    /// A packet is sampled where the golden-ratio sequence of its counter falls below this: 2^64 / `every`, 0 for none.
    thresholds: [u64; STREAM_SLOTS],
    /// One packet in so many, on average; zero for none.
    every: [u32; STREAM_SLOTS],
    /// At most so many samples a second, on each CPU and stream.
    pub budget: u32,
    /// Puts the meters behind it at the beginning of a cache line.
    reserved: [u32; 9],
}

impl Sampling {
    /// Samples one in `every` packets of each stream, and at most `budget` a second on each CPU and stream.
    pub const fn new(every: [u32; SAMPLE_STREAMS], budget: u32) -> Self {
        const fn threshold(every: u32) -> u64 {
            match every {
                0 => 0,
                every => u64::MAX / every as u64,
            }
        }
        let (thresholds, every_of) = ([0; STREAM_SLOTS], [0; STREAM_SLOTS]);
        let mut sampling = Self { highest: 0, thresholds, every: every_of, budget, reserved: [0; 9] };
        let mut place = 0;
        while place < STREAM_SLOTS {
            sampling.every[place] = every[Stream::BY_PLACE[place] as usize];
            let threshold = threshold(sampling.every[place]);
            sampling.thresholds[place] = threshold;
            if threshold > sampling.highest {
                sampling.highest = threshold;
            }
            place += 1;
        }
        sampling
    }

    /// One packet in so many of those in a place; of a [`Stream`], its number is one.
    #[inline(always)]
    pub const fn every(&self, place: usize) -> u32 {
        self.every[place & (STREAM_SLOTS - 1)]
    }

    /// Whether the packet in a place ([`Stream::place`]) that made its counter `count` is a sample. Multiples of the golden ratio fall evenly into
    /// the unit interval and into every residue class of `count`: no rhythm of the traffic hides from them, and no
    /// state and no random number is needed.
    #[inline(always)]
    pub fn takes(&self, place: impl FnOnce() -> u32, count: u64) -> bool {
        let drawn = count.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        if drawn >= self.highest {
            return false;
        }
        cold_path();
        // The compiler knows that it needs no mask, and a verifier may not.
        drawn < self.thresholds[opaque(u64::from(place())) as usize & (STREAM_SLOTS - 1)]
    }
}

/// Everything the packet path is told.
#[derive(Clone, Copy, Debug, PartialEq)]
#[repr(C)]
pub struct Config {
    /// [`Mode`], as its number.
    pub mode: u32,
    /// The list bank in force and the lists that hold anything.
    pub lists: ListState,
    /// The reasons that drop.
    pub drops: DropSet,
    /// Where sources lie.
    pub key: HashKey,
    /// Sample ring budget.
    pub sampling: Sampling,
    /// Compiled limits of one source, by [`Kind`]. They say which of the wider ones are to be asked too.
    pub meters: [Meters; KIND_SLOTS],
    /// Compiled limits of [`Per::WIDER`], by [`Kind`].
    pub wider: [[Meters; KIND_SLOTS]; Per::WIDER.len()],
    /// Compiled limit of sources on the allow list, all classes and families together.
    pub allowed: Meters,
    /// Compiled caps of services, by number; of zero, which is no service, there is none.
    pub caps: [Cap; SERVICE_SLOTS],
    /// The same of new connections: asked of SYNs alone.
    pub connection_caps: [ConnectionCap; SERVICE_SLOTS],
    /// How SYNs are answered.
    pub cookies: Cookies,
    /// SYN-ACKs with cookies to one subnet: what keeps this host from being a reflector.
    pub cookie_answers: Meter,
    /// The signatures in force.
    pub signatures: SignatureState,
    /// When drops that are on trial end to be real, in [`Moment`] nanoseconds. Read only while they are.
    pub trial_until_ns: u64,
    /// Compiled limits of one source in a group, by group and [`Kind`]: where the group has none of its own, those of everybody.
    /// Behind all else that packets are asked: an instruction of the kernel's machine reaches 32 KiB from the beginning.
    pub groups: [[Meters; KIND_SLOTS]; GROUP_SLOTS],
    /// For people: that limit as it was set. The kernel half does not read it.
    pub cookie_spec: RateSpec,
    /// For people: the services, by number. The kernel half does not read it.
    pub services: [ServiceRecord; SERVICE_SLOTS],
    /// For people: the groups, by number. The kernel half does not read it.
    pub group_records: [GroupRecord; GROUP_SLOTS],
    /// For people: the limits as they were set, packets and bytes, by [`Per`] and [`LimitName`]. The kernel half does
    /// not read it.
    pub specs: [[[RateSpec; 2]; LIMIT_SLOTS]; Per::ALL.len()],
    /// Counts changes, so that two writers notice each other. The kernel half does not read it.
    pub generation: u64,
    /// When the mode was set, in seconds of the Unix epoch. The kernel half does not read it.
    pub mode_since_unix_s: u64,
}

// A usual packet reads the first cache line, and one of its kind.
const _: () = assert!(offset_of!(Config, sampling) + offset_of!(Sampling, highest) < 64);
const _: () = assert!(offset_of!(Config, meters) % 64 == 0 && size_of::<Meters>() == 128);
const _: () = assert!(offset_of!(Config, groups) < 1 << 15);

impl Config {
    /// The mode as it was set, of its word: also of a trial that has ended.
    pub const fn mode(&self) -> Mode {
        match self.mode {
            1 | TRIAL => Mode::Enforce,
            word if word & Mode::Stopped as u32 != 0 => Mode::Stopped,
            _ => Mode::Monitor,
        }
    }

    /// The mode that packets are judged in at this moment.
    pub const fn mode_at(&self, now: Moment) -> Mode {
        match self.mode() {
            Mode::Enforce if self.is_on_trial() && self.trial_until_ns <= now.ns() => Mode::Monitor,
            mode => mode,
        }
    }

    /// Stops all dropping, and keeps in mind what the mode was.
    pub const fn stop(&mut self) {
        if !matches!(self.mode(), Mode::Stopped) {
            let was = if matches!(self.mode(), Mode::Enforce) { WAS_ENFORCING } else { 0 };
            self.mode = Mode::Stopped as u32 | was | self.mode & ON_TRIAL;
        }
    }

    /// Goes on as before it was stopped.
    pub const fn resume(&mut self) {
        if matches!(self.mode(), Mode::Stopped) {
            let was = if self.mode & WAS_ENFORCING != 0 { Mode::Enforce as u32 } else { Mode::Monitor as u32 };
            self.mode = was | self.mode & ON_TRIAL;
        }
    }

    /// Makes drops real, and not for longer than this unless they are confirmed.
    pub const fn try_enforcing(&mut self, until: Moment) {
        self.trial_until_ns = until.ns();
        self.mode = TRIAL;
    }

    /// Whether drops are, or were, real on trial only.
    pub const fn is_on_trial(&self) -> bool {
        self.mode & ON_TRIAL != 0
    }

    /// Ends the trial: drops stay real.
    pub const fn confirm(&mut self) {
        self.mode &= !ON_TRIAL;
    }

    /// Whether drops are real, and not on trial only.
    #[inline(always)]
    pub const fn enforces(&self) -> bool {
        self.mode == Mode::Enforce as u32
    }

    /// Whether a packet that is to be dropped now is. The clock is read only while drops are on trial.
    #[inline(always)]
    pub fn drops_at(&self, now: impl FnOnce() -> Moment) -> bool {
        if self.enforces() {
            return true;
        }
        cold_path();
        self.mode == TRIAL && self.trial_until_ns > now().ns()
    }

    /// The meters of a kind of packets at a wider level, by its place in [`Per::WIDER`].
    #[inline(always)]
    pub const fn wider(&self, level: usize, kind: Kind) -> &Meters {
        &self.wider[level & 1][kind.index() as usize & (KIND_SLOTS - 1)]
    }

    /// The meters of a kind of packets, for a source in this group; zero is none.
    #[inline(always)]
    pub const fn meters_in(&self, group: u32, kind: Kind) -> &Meters {
        if group == 0 {
            return self.meters(kind);
        }
        &self.groups[group as usize & (GROUP_SLOTS - 1)][kind.index() as usize & (KIND_SLOTS - 1)]
    }

    /// The cap of a service.
    #[inline(always)]
    pub const fn cap(&self, service: u8) -> &Cap {
        &self.caps[service as usize & (SERVICE_SLOTS - 1)]
    }

    /// The cap of its new connections.
    #[inline(always)]
    pub const fn connection_cap(&self, service: u8) -> &ConnectionCap {
        &self.connection_caps[service as usize & (SERVICE_SLOTS - 1)]
    }

    /// Some number that the verifier knows nothing of.
    #[inline(always)]
    pub(crate) const fn noise(&self) -> u64 {
        self.generation
    }

    /// The meters of a kind of packets.
    #[inline(always)]
    pub const fn meters(&self, kind: Kind) -> &Meters {
        &self.meters[kind.index() as usize & (KIND_SLOTS - 1)]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_stopped_goes_on_as_before() {
        // SAFETY: integers only.
        let mut config: Config = unsafe { core::mem::zeroed() };
        for before in [Mode::Monitor, Mode::Enforce] {
            config.mode = before as u32;
            config.stop();
            config.stop();
            assert_eq!((config.mode(), config.enforces(), config.mode & 1), (Mode::Stopped, false, 0));
            config.resume();
            config.resume();
            assert_eq!(config.mode(), before);
        }
    }

    #[test]
    fn a_trial_ends_by_itself_unless_it_is_confirmed() {
        // SAFETY: integers only.
        let mut config: Config = unsafe { core::mem::zeroed() };
        let (before, end) = (Moment::from_ns(99), Moment::from_ns(100));
        let at = |config: &Config, now: Moment| {
            assert_eq!(config.drops_at(|| now), config.mode_at(now) == Mode::Enforce);
            config.mode_at(now)
        };
        config.try_enforcing(end);
        assert_eq!((at(&config, before), at(&config, end)), (Mode::Enforce, Mode::Monitor));
        assert!(config.is_on_trial() && config.mode() == Mode::Enforce, "as it was set");
        // Neither lost nor confirmed by being stopped.
        config.stop();
        assert_eq!((at(&config, before), config.is_on_trial()), (Mode::Stopped, true));
        config.resume();
        assert_eq!((at(&config, before), at(&config, end)), (Mode::Enforce, Mode::Monitor));
        config.confirm();
        assert_eq!((at(&config, end), config.enforces(), config.is_on_trial()), (Mode::Enforce, true, false));
    }
}

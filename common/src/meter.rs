//! Limits as the packet path reads them: rates compiled to arrival times.
//!
//! A limit is a rate and a burst. The packet path knows neither: it adds a cost per packet (or byte) to the arrival
//! time of a source and compares the debt with a tolerance (GCRA, the leaky bucket as a meter). All the arithmetic that
//! can be done ahead is done here, once per change.

use crate::limits::{Limits, MAX_BURST_SECONDS, Per, Rate, RateError, Unit};

const UNITS_PER_SECOND: u64 = 1_000_000_000 / 16;
const COST_FRACTION_BITS: u32 = 16;
const COST_HALF: u64 = 1 << (COST_FRACTION_BITS - 1);

/// The longest quarter of a tolerance in the gate's units of 2,048 ns: 125 s. No packet costs more there.
pub(crate) const GATE_LONGEST: u32 = (MAX_BURST_SECONDS * 1_000_000_000 / 4 / 2048) as u32;

/// What the arithmetic has to know of the machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Machine {
    /// CPUs that a source may be spread over.
    pub cpus: u32,
    /// Length of the kernel's tick.
    pub tick_ns: u64,
}

/// A limit as the packet path reads it. All zero: no limit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Meter {
    /// Cost of one packet in 16 ns units; of one byte in 2^-16 of that. Zero where there is no limit.
    cost: u64,
    /// Tolerance: the debt in 16 ns units up to which a source passes.
    tau: u64,
    /// The highest debt that this meter can have made, and room for a changed limit; any more is a stale time.
    stale: u64,
    /// What the gate of one CPU can have let through before it asks the table, in 16 ns units.
    gate_charge: u64,
    /// A quarter of the tolerance in 2,048 ns units: the debt up to which the gate passes by itself.
    gate_tau: u32,
    /// Cost of one packet on the gate; of bytes it is worked out per packet.
    gate_cost: u32,
    /// CPUs that a source may be spread over.
    spread: u32,
    /// Keeps the layout free of hidden bytes.
    reserved: u32,
    /// What keeps the sources of this meter apart from those of others.
    pub(crate) secret: u64,
}

/// What one packet costs: in the table, and on the gate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cost {
    /// In 16 ns units.
    pub(crate) exact: u64,
    /// In 2,048 ns units, for all CPUs.
    pub(crate) gate: u32,
}

/// What a meter counts of a packet: one, or its bytes. A single number, so that it takes one register.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Amount(u32);

impl Amount {
    /// The packet. No frame has zero bytes.
    pub const PACKET: Self = Self(0);

    /// Its bytes.
    #[inline(always)]
    pub const fn bytes(bytes: u32) -> Self {
        Self(bytes)
    }

    /// As a number.
    #[inline(always)]
    pub const fn to_bits(self) -> u32 {
        self.0
    }

    /// From that number.
    #[inline(always)]
    pub const fn from_bits(bits: u32) -> Self {
        Self(bits)
    }

    /// What this costs on a meter.
    #[inline(always)]
    pub const fn on(self, meter: &Meter) -> Cost {
        match self {
            Self::PACKET => meter.of_packet(),
            Self(bytes) => meter.of_bytes(bytes),
        }
    }
}

impl Meter {
    /// Compiles a rate for a machine. `secret` stays that of the meter that this one replaces.
    ///
    /// # Errors
    /// Where the rate or its burst cannot be kept within 2 %.
    pub fn new(rate: Rate, unit: Unit, machine: Machine, secret: u64) -> Result<Self, RateError> {
        let Rate::Limit { per_second, burst } = rate else {
            return Ok(Self { secret, ..Self::default() });
        };
        let Machine { cpus, tick_ns } = machine;
        if per_second < unit.min_rate() || per_second > unit.max_rate() {
            return Err(RateError::RateOutOfRange);
        }
        if burst < unit.min_burst() || burst > per_second * MAX_BURST_SECONDS {
            return Err(RateError::BurstOutOfRange);
        }
        let fraction = (UNITS_PER_SECOND << COST_FRACTION_BITS) / per_second;
        let time = |amount: u64| ((u128::from(amount) * u128::from(fraction)) >> COST_FRACTION_BITS) as u64;
        let packet = (fraction + COST_HALF) >> COST_FRACTION_BITS;
        // Arrival times only move with the tick: two of them have to fit in the burst.
        let tau = time(burst - 1).max(2 * tick_ns / 16);
        let spread = spread(cpus);
        let gate_charge = (tau / 4 / u64::from(spread)).max(time(unit.usual_packet()));
        Ok(Self {
            cost: match unit {
                Unit::Packets => packet,
                Unit::Bytes => fraction,
            },
            tau,
            stale: 2 * tau + 2 * time(unit.largest_packet()) + gate_charge,
            gate_charge,
            gate_tau: (tau / 4 / 128) as u32,
            gate_cost: gate_cost(packet, spread),
            spread,
            reserved: 0,
            secret,
        })
    }

    /// Whether there is any limit.
    pub const fn is_armed(&self) -> bool {
        self.cost != 0
    }

    /// What keeps the sources of this meter apart from those of others.
    pub const fn secret(&self) -> u64 {
        self.secret
    }

    /// The debt up to which a source passes, in nanoseconds.
    pub const fn tolerance_ns(&self) -> u64 {
        self.tau * 16
    }

    /// Cost of a packet, where this meter counts packets.
    #[inline(always)]
    pub const fn of_packet(&self) -> Cost {
        Cost { exact: self.cost, gate: self.gate_cost }
    }

    /// Cost of a packet of so many bytes, where this meter counts bytes.
    #[inline(always)]
    pub const fn of_bytes(&self, bytes: u32) -> Cost {
        let exact = (self.cost.wrapping_mul(bytes as u64) + COST_HALF) >> COST_FRACTION_BITS;
        Cost { exact, gate: gate_cost(exact, self.spread) }
    }

    /// The same meter with half of the tolerance: whoever is refused by it leaves the other half to those who are not.
    pub(crate) const fn with_half_the_tolerance(self) -> Self {
        Self { tau: self.tau / 2, ..self }
    }

    #[inline(always)]
    pub(crate) const fn tau(&self) -> u64 {
        self.tau
    }

    #[inline(always)]
    pub(crate) const fn stale(&self) -> u64 {
        self.stale
    }

    #[inline(always)]
    pub(crate) const fn gate_tau(&self) -> u32 {
        self.gate_tau
    }

    #[inline(always)]
    pub(crate) const fn gate_charge(&self) -> u64 {
        self.gate_charge
    }
}

/// How much dearer a packet is on the gate of one CPU than in the table. Once per CPU would be right for a source that is
/// spread evenly; twice leaves half as much room to one that is not.
const fn spread(cpus: u32) -> u32 {
    if cpus > 1 { 2 * cpus } else { 1 }
}

/// From 16 ns units to the gate's, times the spread; rounded up, and never so far that it could be taken for a stale time.
#[inline(always)]
const fn gate_cost(exact: u64, spread: u32) -> u32 {
    let cost = (exact.wrapping_mul(spread as u64) + 127) >> 7;
    if cost > GATE_LONGEST as u64 { GATE_LONGEST } else { cost as u32 }
}

/// Both meters of a limit, and what a packet of this kind is asked: what nobody has armed costs nothing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Meters {
    /// Packets per second.
    pub packets: Meter,
    /// [`Ask`], as bits: one load decides what there is to do.
    asked: u64,
    /// Bytes per second.
    pub bytes: Meter,
    /// Makes the size a power of two: the packet path finds the meters of a kind by a shift.
    reserved: u64,
}

const _: () = assert!(size_of::<Meters>() == 128);

/// Something that a packet may have to pass.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ask(u64);

impl Ask {
    /// The packets of its source.
    pub const PACKETS: Self = Self(1);
    /// The lists.
    pub const LISTS: Self = Self(2);
    /// What is above these two is seldom asked.
    const USUAL: Self = Self(Self::PACKETS.0 | Self::LISTS.0);
    /// The bytes of its source.
    pub const BYTES: Self = Self(4);
    /// Nothing passes.
    pub const BLOCK: Self = Self(8);
    /// The limits of its subnet.
    pub const SUBNET: Self = Self(16);
    /// The limits of its network.
    pub const NETWORK: Self = Self(32);
    /// If it looks like a reply: whether it answers something.
    pub const REPLIES: Self = Self(64);
    /// Whether a signature suits it.
    pub const SIGNATURES: Self = Self(128);
    /// The cap of its service.
    pub const CAP: Self = Self(256);
    /// Whether somebody expects it.
    pub const LOCKDOWN: Self = Self(512);
    /// Whether it was sent before.
    pub const FIRST_SYN: Self = Self(1_024);

    /// What takes to know the service.
    pub(crate) const A_SERVICE: Self = Self(Self::LOCKDOWN.0 | Self::CAP.0 | Self::CONNECTIONS.0);
    /// Any of what takes a closer look.
    pub(crate) const A_CLOSER_LOOK: Self =
        Self(Self::REPLIES.0 | Self::A_SERVICE.0 | Self::FIRST_SYN.0 | Self::STATE.0);
    /// What is asked of SYNs alone.
    pub(crate) const OF_SYNS: Self = Self(Self::FIRST_SYN.0 | Self::COOKIE.0 | Self::CONNECTIONS.0);
    /// What only the complete decision knows: of some SYNs, and of what passes in no case.
    pub(crate) const SELDOM: Self = Self(Self::BLOCK.0 | Self::OF_SYNS.0);

    /// Whether it is answered with a cookie.
    pub const COOKIE: Self = Self(2_048);
    /// Whether its connection is known.
    pub const STATE: Self = Self(4_096);
    /// Whether its service takes another connection.
    pub const CONNECTIONS: Self = Self(8_192);

    /// The limits of a level that is wider than a source.
    pub const fn wider(per: Per) -> Self {
        match per {
            Per::Source => Self(0),
            Per::Subnet => Self::SUBNET,
            Per::Network => Self::NETWORK,
        }
    }
}

impl Meters {
    /// Compiles both limits; the secrets stay those of the meters that these replace.
    ///
    /// # Errors
    /// Where a rate or its burst cannot be kept within 2 %.
    pub fn new(limits: Limits, machine: Machine, secrets: [u64; 2]) -> Result<Self, (Unit, RateError)> {
        let meter = |rate, unit, secret| Meter::new(rate, unit, machine, secret).map_err(|error| (unit, error));
        let packets = meter(limits.packets, Unit::Packets, secrets[0])?;
        let bytes = meter(limits.bytes, Unit::Bytes, secrets[1])?;
        let mut asked = 0;
        if packets.is_armed() {
            asked |= Ask::PACKETS.0;
        }
        if bytes.is_armed() {
            asked |= Ask::BYTES.0;
        }
        if limits.packets == Rate::Block || limits.bytes == Rate::Block {
            asked = Ask::BLOCK.0;
        }
        Ok(Self { packets, asked, bytes, reserved: 0 })
    }

    /// Whether a packet has to pass this, or any of these.
    #[inline(always)]
    pub const fn ask(&self, what: Ask) -> bool {
        self.asked & what.0 != 0
    }

    /// Says whether a packet has to pass this.
    pub const fn set_ask(&mut self, what: Ask, ask: bool) {
        self.asked = if ask { self.asked | what.0 } else { self.asked & !what.0 };
    }

    /// Whether packets are limited, nothing else is asked, and all lists are empty: the rule.
    #[inline(always)]
    pub const fn ask_packets_only(&self) -> bool {
        self.asked == Ask::PACKETS.0
    }

    /// Whether anything but packets of the source is asked: what is seldom so.
    #[inline(always)]
    pub const fn ask_more(&self) -> bool {
        self.asked > Ask::USUAL.0
    }

    /// Whether there is any limit in here.
    pub const fn is_armed(&self) -> bool {
        self.asked & (Ask::PACKETS.0 | Ask::BYTES.0 | Ask::BLOCK.0) != 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limits::{LimitName, MAX_BYTES_PER_SECOND, MAX_PACKETS_PER_SECOND};

    const MACHINE: Machine = Machine { cpus: 2, tick_ns: 4_000_000 };

    fn meter(per_second: u64, burst: u64) -> Result<Meter, RateError> {
        Meter::new(Rate::Limit { per_second, burst }, Unit::Packets, MACHINE, 0)
    }

    #[test]
    fn a_rate_becomes_a_cost_and_a_tolerance() {
        let meter = meter(1_000, 101).unwrap();
        assert_eq!(meter.of_packet(), Cost { exact: 62_500, gate: 1_954 }, "1 ms; twice that on each of two CPUs");
        assert_eq!(meter.tau(), 6_250_000, "100 ms");
        assert_eq!(meter.gate_tau(), 12_207, "25 ms in 2,048 ns units");
        assert_eq!(meter.gate_charge(), 390_625, "a quarter of 25 ms");
    }

    #[test]
    fn a_burst_below_two_ticks_is_raised_to_two() {
        assert_eq!(meter(1_000_000, 1).unwrap().tau(), 2 * MACHINE.tick_ns / 16);
    }

    #[test]
    fn what_cannot_be_kept_is_refused() {
        assert_eq!(meter(0, 1), Err(RateError::RateOutOfRange));
        assert_eq!(meter(MAX_PACKETS_PER_SECOND + 1, 1), Err(RateError::RateOutOfRange));
        assert_eq!(meter(10, 0), Err(RateError::BurstOutOfRange));
        assert_eq!(meter(10, 5_001), Err(RateError::BurstOutOfRange));
        assert!(meter(10, 5_000).is_ok());
        assert!(meter(u64::MAX, u64::MAX).is_err());
    }

    #[test]
    fn costs_are_within_one_percent_up_to_the_highest_rate() {
        for rate in [1, 7, 999, 77_777, 333_333, MAX_PACKETS_PER_SECOND] {
            let cost = meter(rate, 1).unwrap().of_packet().exact;
            let exact = 1e9 / 16.0 / rate as f64;
            assert!((cost as f64 / exact - 1.0).abs() < 0.01, "{rate}: {cost} for {exact}");
        }
        let bytes = |per_second, burst| Rate::Limit { per_second, burst };
        let refused = Meter::new(bytes(1_000, 9_999), Unit::Bytes, MACHINE, 0);
        assert_eq!(refused, Err(RateError::BurstOutOfRange), "less than a few frames");
        let bytes = bytes(MAX_BYTES_PER_SECOND, 1_000_000);
        let meter = Meter::new(bytes, Unit::Bytes, MACHINE, 0).unwrap();
        assert_eq!(meter.of_bytes(1500).exact, 75);
        assert!(meter.of_bytes(60).exact >= 3);
    }

    #[test]
    fn the_defaults_compile() {
        for name in LimitName::ALL {
            let meters = Meters::new(name.default_limits(), MACHINE, [1, 2]).unwrap();
            assert!(meters.ask_packets_only());
        }
    }
}

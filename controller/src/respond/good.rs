//! Good traffic that a measure is held against before it is taken: what came while nothing was going on, in the last minutes and in each
//! hour of the last two weeks, and what comes now from ends that this host speaks with.

use std::fmt;

use floodwall_common::reason::Reason;
use floodwall_common::signatures::Fragment;

use super::signature::{UDP, share};
use super::stray::is_stray;
use crate::detect::{Group, HOURS, Observed, Window, is_amplifier};

/// Good packets that a share of says something.
pub(super) const ENOUGH: usize = 200;

/// What a share of good traffic was measured on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Measured {
    /// Packets.
    pub packets: usize,
    /// Hours of the week that some of them are of; none where all came lately.
    pub hours: usize,
}

impl fmt::Display for Measured {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { packets, hours } = self;
        write!(f, "{packets} good packets before it")?;
        if *hours > 0 { write!(f, " (of lately, and of {hours} of the {HOURS} hours of a week)") } else { Ok(()) }
    }
}

/// What dropping by a finding alone takes of good traffic.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Collateral {
    /// The share that has that finding, of the packets that it can be said of.
    pub share: f64,
    /// Those.
    pub measured_on: Measured,
}

impl Collateral {
    /// What has this finding among the good packets of which it is known whether they answer anything. Of ICMP nobody can say it.
    pub(super) fn of(reason: Reason, window: &Window) -> Self {
        let mut good = Good::of(window);
        good.retain(|packet| packet.is_known.is_some());
        let has_it: fn(&Observed) -> bool = match reason {
            Reason::OutOfState => is_stray,
            _ => is_unsolicited,
        };
        Self { share: good.share(has_it), measured_on: good.measured() }
    }
}

impl fmt::Display for Collateral {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.measured_on.packets {
            0 => f.write_str("no good packet is known that could say what else it drops"),
            _ => write!(f, "{:.2} % of {}", self.share * 100.0, self.measured_on),
        }
    }
}

/// Whether it answers nothing that this host has sent, as [`Reason::UnsolicitedReply`] has it: of TCP, and from ports of amplifiers.
fn is_unsolicited(packet: &Observed) -> bool {
    let is_of_amplifier = || {
        let from = packet.ports.map(|(from, _)| from);
        u16::from(packet.protocol) == UDP && packet.fragment != Fragment::Later && from.is_some_and(is_amplifier)
    };
    packet.is_known == Some(false) && (packet.group() == Group::TcpReplies || is_of_amplifier())
}

/// Good packets, or some of them.
#[derive(Clone)]
pub(super) struct Good<'a> {
    lately: Vec<&'a Observed>,
    week: Vec<&'a Observed>,
    hours: usize,
}

impl<'a> Good<'a> {
    /// What came while nothing was going on.
    pub(super) fn before(window: &'a Window) -> Self {
        let week: Vec<_> = window.good_of_the_week().collect();
        let hours = if week.is_empty() { 0 } else { window.hours_of_the_week() };
        Self { lately: window.good().iter().collect(), week, hours }
    }

    /// The same, and what comes now from whom this host speaks with.
    pub(super) fn of(window: &'a Window) -> Self {
        let known = window.packets().map(|(_, packet)| packet).filter(|packet| packet.is_spoken_with());
        let mut good = Self::before(window);
        good.lately.extend(known);
        good
    }

    pub(super) fn len(&self) -> usize {
        self.lately.len() + self.week.len()
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &'a Observed> {
        self.lately.iter().chain(&self.week).copied()
    }

    pub(super) fn retain(&mut self, is: impl Fn(&Observed) -> bool) {
        self.lately.retain(|packet| is(packet));
        self.week.retain(|packet| is(packet));
    }

    /// The share that these are of all: of what came lately or of the last two weeks, whichever is larger, as a week is not to hide what
    /// only the last minutes have, nor these what only a week has.
    pub(super) fn share_of(&self, all: &Self) -> f64 {
        let parts = [(&self.lately, &all.lately), (&self.week, &all.week)];
        let shares = parts.into_iter().filter(|(_, all)| all.len() >= ENOUGH);
        shares.map(|(some, all)| share(some.len(), all.len())).fold(share(self.len(), all.len()), f64::max)
    }

    /// The share that is so, of lately or of the last two weeks.
    pub(super) fn share(&self, is: impl Fn(&Observed) -> bool) -> f64 {
        let mut some = self.clone();
        some.retain(is);
        some.share_of(self)
    }

    pub(super) const fn measured(&self) -> Measured {
        Measured { packets: self.lately.len() + self.week.len(), hours: self.hours }
    }
}

#[cfg(test)]
mod tests {
    use floodwall_common::packet::Source;

    use super::super::{Measure, respond};
    use super::*;
    use crate::detect::{Assessment, Vector, Verdict};

    const SECOND: u64 = 1_000_000_000;
    /// A Tuesday at ten, as any other hour counts from it.
    const TUESDAY: u64 = 24 * 5 + 10;

    fn segment(number: u32) -> Observed {
        Observed { is_known: Some(true), ..Observed::segment(0x0a00_0000 + number, 40_000, SECOND, 0x10) }
    }

    /// A datagram, such as those that come to a service from whoever wants something of it.
    fn datagram(number: u32) -> Observed {
        Observed {
            source: Source::V4(0x1400_0000 + 7_919 * number),
            protocol: 17,
            ports: Some((1_024 + (number * 31) as u16, 9_000)),
            flags: None,
            layout: 0,
            length: 100,
            is_known: Some(false),
            is_verified: None,
            is_to_service: true,
            ..segment(0)
        }
    }

    /// All hours of a week but one with nothing but TCP, and this in the one that is left.
    fn week(of_tuesday: fn(u32) -> Observed) -> Vec<(u64, Observed)> {
        let others = (TUESDAY + 1..TUESDAY + HOURS as u64).flat_map(|hour| (0..128).map(move |n| (hour, segment(n))));
        (0..128).map(|number| (TUESDAY, of_tuesday(number))).chain(others).collect()
    }

    /// What is done about a flood, by whom that is known which came before it.
    fn signature(mut window: Window, vector: Vector, flood: fn(u32) -> Observed) -> Option<Measured> {
        (0..1_000).for_each(|number| window.take(flood(number)));
        let features = window.features(SECOND + SECOND / 10, false, None);
        let verdict = Verdict::Attack;
        let attack = Assessment { verdict, current: vec![vector], ..Assessment::default() };
        let measures = respond(&attack, &features, &window);
        measures.into_iter().find_map(|measure| match measure {
            Measure::Signature(_, found) => Some(found.measured_on),
            _ => None,
        })
    }

    #[test]
    fn what_looks_like_the_customers_of_last_tuesday_gets_no_signature() {
        let found = |week: &[(u64, Observed)]| {
            let mut window = Window::after_restart(week);
            (0..300).for_each(|number| window.take(segment(number)));
            signature(window, Vector::UdpFlood, datagram)
        };
        assert_eq!(found(&[]), Some(Measured { packets: 300, hours: 0 }), "nobody knows of them");
        assert_eq!(found(&week(segment)), Some(Measured { packets: 300 + 21_504, hours: 168 }), "there were none");
        assert_eq!(found(&week(datagram)), None);
    }

    #[test]
    fn it_is_said_what_dropping_by_a_finding_takes() {
        let of_nobody = |flags| Observed { is_known: Some(false), flags: Some(flags), ..segment(7) };
        let answer = |is_known| Observed { ports: Some((53, 40_000)), is_known, ..datagram(1) };
        let mut window = Window::default();
        (0..993).map(segment).for_each(|packet| window.take(packet));
        let odd = [of_nobody(0x12), of_nobody(0x04), answer(Some(false)), of_nobody(0x10), answer(Some(true))];
        odd.into_iter().chain([answer(None), datagram(2)]).for_each(|packet| window.take(packet));
        // Of those that are not known only what is good counts: nothing of it is here.
        assert_eq!(Collateral::of(Reason::UnsolicitedReply, &window).share, 0.0);
        let week: Vec<_> = window.packets().map(|(_, packet)| (TUESDAY, *packet)).collect();
        let week: Vec<_> = week.chunks(100).enumerate().flat_map(|(hour, some)| in_hour(hour, some)).collect();
        let window = Window::after_restart(&week);
        let taken = |reason| Collateral::of(reason, &window);
        let said = taken(Reason::UnsolicitedReply).to_string();
        assert_eq!(said, "0.30 % of 999 good packets before it (of lately, and of 10 of the 168 hours of a week)");
        assert_eq!(taken(Reason::OutOfState).share, 1.0 / 999.0);
        let nothing = Collateral::of(Reason::OutOfState, &Window::default()).to_string();
        assert!(nothing.starts_with("no good packet is known"), "{nothing}");
    }

    fn in_hour(hour: usize, packets: &[(u64, Observed)]) -> Vec<(u64, Observed)> {
        packets.iter().map(|(first, packet)| (first + hour as u64, *packet)).collect()
    }

    #[test]
    fn a_daemon_that_starts_in_a_flood_knows_what_is_good() {
        let bare = |number| Observed { layout: 0, flags: Some(0x02), is_known: Some(false), ..datagram_as_tcp(number) };
        let found = |week: &[(u64, Observed)]| signature(Window::after_restart(week), Vector::SynFlood, bare);
        assert_eq!(found(&[]), None);
        let measured = found(&week(segment)).unwrap_or_default();
        assert_eq!(measured, Measured { packets: 21_504, hours: 168 });
        assert_eq!(
            measured.to_string(),
            "21504 good packets before it (of lately, and of 168 of the 168 hours of a week)"
        );
    }

    fn datagram_as_tcp(number: u32) -> Observed {
        Observed { protocol: 6, is_to_service: false, ..datagram(number) }
    }

    #[test]
    fn neither_a_week_nor_the_last_minutes_hide_what_the_other_has() {
        let is_odd = |packet: &Observed| packet.length == 1_000;
        for odd_one in [0, 1] {
            let odd = |packet: Observed, where_it_is| match odd_one == where_it_is {
                true => Observed { length: 1_000, ..packet },
                false => packet,
            };
            let mut week = week(segment);
            week.iter_mut().skip(50).step_by(430).for_each(|(_, packet)| *packet = odd(*packet, 0));
            let mut window = Window::after_restart(&week);
            (0..4_000).map(segment).for_each(|packet| window.take(packet));
            (0..10).for_each(|number| window.take(odd(segment(number), 1)));
            let share = Good::of(&window).share(is_odd);
            assert!((0.0022..0.0026).contains(&share), "{odd_one}: {share}");
        }
    }
}

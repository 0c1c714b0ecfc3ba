//! Good traffic of the last two weeks: a few packets of each hour of the week, drawn evenly from all of that hour, and kept over restarts.
//! So a measure can say what it would have done to them. No rate can be made of them.

use std::hash::{BuildHasher as _, RandomState};

use floodwall_common::packet::Source;
use floodwall_common::signatures::Fragment;

use super::baseline::HOURS;
use super::observed::Observed;

/// Packets that are kept of each hour of the week.
const OF_AN_HOUR: usize = 128;
/// How long they are kept at most, in hours.
const KEPT_HOURS: u32 = 2 * HOURS as u32;
/// What a file of them begins with; the last byte is the version of its shape.
const MAGIC: [u8; 8] = *b"fw-good\x01";
/// What follows: the hour that goes on, and how many packets came in it. Then packets, in so many bytes each.
const HEAD: usize = MAGIC.len() + 12;
const RECORD: usize = 31;

#[derive(Clone, Copy, Debug)]
struct Kept {
    /// When it came, in hours since 1970.
    hour: u32,
    packet: Observed,
}

/// Good packets by the hour of the week.
pub struct Week {
    /// 21,504 at most. None of them is held by anything.
    hours: Vec<Vec<Kept>>,
    /// The hour that goes on, and packets that came in it.
    present: (u32, u64),
    random: RandomState,
    is_changed: bool,
}

impl Default for Week {
    fn default() -> Self {
        Self { hours: vec![Vec::new(); HOURS], present: (0, 0), random: RandomState::new(), is_changed: false }
    }
}

impl Week {
    /// Takes a good packet in, in this hour since 1970. Of those of an hour each stays as likely as any other; they take the places of those
    /// that were kept of the same hour a week ago.
    pub(super) fn take(&mut self, hour: u64, packet: &Observed) {
        let hour = hour as u32;
        if self.present.0 != hour {
            self.begin(hour);
        }
        self.present.1 += 1;
        self.is_changed = true;
        let seen = self.present.1;
        let drawn = self.random.hash_one(seen) % seen;
        let of_hour = &mut self.hours[hour as usize % HOURS];
        let kept = Kept { hour, packet: lasting(packet) };
        if of_hour.len() < OF_AN_HOUR {
            of_hour.push(kept);
        } else if let Some(older) = of_hour.iter_mut().find(|other| other.hour != hour) {
            *older = kept;
        } else if let Some(other) = of_hour.get_mut(drawn as usize) {
            *other = kept;
        }
    }

    /// Lets go of what is too old in this hour. A clock that was set back forgets nothing.
    fn expire(&mut self, hour: u32) {
        self.hours.iter_mut().for_each(|of_hour| of_hour.retain(|kept| kept.hour.saturating_add(KEPT_HOURS) >= hour));
    }

    fn begin(&mut self, hour: u32) {
        self.expire(hour);
        let before = self.hours[hour as usize % HOURS].iter().filter(|kept| kept.hour == hour).count();
        self.present = (hour, before as u64);
    }

    /// Those that came before this moment, in nanoseconds as this daemon counts them: all that a daemon before it has kept, too.
    pub(super) fn before(&self, at_ns: u64) -> impl Iterator<Item = &Observed> {
        self.hours.iter().flatten().map(|kept| &kept.packet).filter(move |packet| packet.at_ns < at_ns)
    }

    /// Hours of the week that some are kept of.
    pub fn hours(&self) -> usize {
        self.hours.iter().filter(|of_hour| !of_hour.is_empty()).count()
    }

    /// All of it for a file, where it has changed since the last time.
    pub fn changed(&mut self) -> Option<Vec<u8>> {
        if !std::mem::take(&mut self.is_changed) {
            return None;
        }
        let mut bytes = MAGIC.to_vec();
        bytes.extend(self.present.0.to_le_bytes());
        bytes.extend(self.present.1.to_le_bytes());
        self.hours.iter().flatten().for_each(|kept| put(kept, &mut bytes));
        Some(bytes)
    }

    /// What was kept in a file and is not too old in this hour since 1970. `None` where it is of another shape.
    pub fn of_bytes(bytes: &[u8], hour: u64) -> Option<Self> {
        let mut head = Reader(bytes.get(..HEAD)?);
        if head.take()? != MAGIC {
            return None;
        }
        let present = (u32::from_le_bytes(head.take()?), u64::from_le_bytes(head.take()?));
        let mut week = Self { present, ..Self::default() };
        for record in bytes[HEAD..].chunks(RECORD) {
            let kept = read(record)?;
            let of_hour = &mut week.hours[kept.hour as usize % HOURS];
            if of_hour.len() == OF_AN_HOUR {
                return None;
            }
            of_hour.push(kept);
        }
        week.expire(hour as u32);
        Some(week)
    }
}

/// What of a packet means the same a week later, and of an IPv6 source its network.
fn lasting(packet: &Observed) -> Observed {
    let source = match packet.source {
        Source::V6(upper, _) => Source::V6(upper, 0),
        v4 @ Source::V4(_) => v4,
    };
    Observed { source, destination: UNKEPT, weight: 1, beginning: None, is_verified: None, ..*packet }
}

/// Which address of this host a packet was for is not kept.
const UNKEPT: Source = Source::V4(0);

const V6: u16 = 1;
const HAS_PORTS: u16 = 1 << 1;
const HAS_FLAGS: u16 = 1 << 2;
const IS_MALFORMED: u16 = 1 << 3;
const IS_TO_SERVICE: u16 = 1 << 4;
const IS_SEEN: u16 = 1 << 5;
const IS_KNOWN: u16 = 1 << 6;
const FRAGMENT_BIT: u32 = 7;

fn put(Kept { hour, packet }: &Kept, bytes: &mut Vec<u8>) {
    let when = |is: bool, bit: u16| if is { bit } else { 0 };
    let bits = when(matches!(packet.source, Source::V6(..)), V6)
        | when(packet.ports.is_some(), HAS_PORTS)
        | when(packet.flags.is_some(), HAS_FLAGS)
        | when(packet.is_malformed, IS_MALFORMED)
        | when(packet.is_to_service, IS_TO_SERVICE)
        | when(packet.is_known.is_some(), IS_SEEN)
        | when(packet.is_known == Some(true), IS_KNOWN)
        | (packet.fragment as u16) << FRAGMENT_BIT;
    let (from, to) = packet.ports.unwrap_or_default();
    bytes.extend(hour.to_le_bytes());
    bytes.extend(packet.source.key().to_le_bytes());
    bytes.extend(packet.layout.to_le_bytes());
    [from, to, packet.length, bits].iter().for_each(|number| bytes.extend(number.to_le_bytes()));
    bytes.extend([packet.protocol, packet.hops, packet.flags.unwrap_or_default()]);
}

fn read(record: &[u8]) -> Option<Kept> {
    let mut reader = Reader(record);
    let hour = u32::from_le_bytes(reader.take()?);
    let (key, layout) = (u64::from_le_bytes(reader.take()?), u64::from_le_bytes(reader.take()?));
    let mut short = || reader.take().map(u16::from_le_bytes);
    let (from, to, length, bits) = (short()?, short()?, short()?, short()?);
    let [protocol, hops, flags] = reader.take()?;
    let has = |bit: u16| bits & bit != 0;
    let packet = Observed {
        at_ns: 0,
        weight: 1,
        destination: UNKEPT,
        source: if has(V6) { Source::V6(key, 0) } else { Source::V4(key.try_into().ok()?) },
        protocol,
        fragment: Fragment::from_index((bits >> FRAGMENT_BIT).try_into().ok()?)?,
        ports: has(HAS_PORTS).then_some((from, to)),
        flags: has(HAS_FLAGS).then_some(flags),
        layout,
        hops,
        length,
        beginning: None,
        is_malformed: has(IS_MALFORMED),
        is_known: has(IS_SEEN).then_some(has(IS_KNOWN)),
        is_verified: None,
        is_to_service: has(IS_TO_SERVICE),
        is_held: false,
    };
    Some(Kept { hour, packet })
}

/// Bytes that are read from the first on.
struct Reader<'a>(&'a [u8]);

impl Reader<'_> {
    fn take<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (first, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(*first)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MONDAY: u64 = 4_000 * HOURS as u64;

    fn packet(number: u32) -> Observed {
        Observed::segment(number, 40_000, u64::from(number) + 1, 0x10)
    }

    fn sources(week: &Week) -> Vec<u64> {
        week.before(u64::MAX).map(|packet| packet.source.key()).collect()
    }

    #[test]
    fn of_an_hour_any_packet_is_kept_as_likely_as_another() {
        let mut quarters = [0; 4];
        for _ in 0..20 {
            let mut week = Week::default();
            (0..4_000).for_each(|number| week.take(MONDAY, &packet(number)));
            assert_eq!(sources(&week).len(), OF_AN_HOUR);
            sources(&week).iter().for_each(|source| quarters[*source as usize / 1_000] += 1);
        }
        // 640 of each, and five deviations from that.
        assert!(quarters.iter().all(|quarter| (530..750).contains(quarter)), "{quarters:?}");
    }

    #[test]
    fn an_hour_takes_the_place_of_the_same_a_week_ago_and_two_weeks_are_kept() {
        let mut week = Week::default();
        (0..500).for_each(|number| week.take(MONDAY, &packet(number)));
        (500..530).for_each(|number| week.take(MONDAY + HOURS as u64, &packet(number)));
        let new = sources(&week).iter().filter(|source| **source >= 500).count();
        assert_eq!((new, sources(&week).len(), week.hours()), (30, OF_AN_HOUR, 1), "each that is new, and older ones");
        let later = MONDAY + 2 * HOURS as u64;
        week.take(later + 1, &packet(600));
        assert_eq!((sources(&week).len(), week.hours()), (31, 2), "of two weeks ago none is left");
        week.take(7, &packet(601));
        assert_eq!((sources(&week).len(), week.hours()), (32, 3), "a clock that was set back");
    }

    #[test]
    fn there_is_a_bound_to_all_of_it() {
        let mut week = Week::default();
        for hour in 0..3 * HOURS as u64 {
            (0..200).for_each(|number| week.take(MONDAY + hour, &packet(number)));
        }
        assert_eq!((sources(&week).len(), week.hours()), (OF_AN_HOUR * HOURS, HOURS));
        assert_eq!(week.changed().map(|bytes| bytes.len()), Some(HEAD + RECORD * OF_AN_HOUR * HOURS));
        assert_eq!(week.changed(), None, "it is written once");
    }

    #[test]
    fn what_was_kept_is_the_same_and_what_is_none_of_it_is_refused() {
        let odd = Observed {
            source: Source::V6(0x2001_0db8_0000_0001, 7),
            ports: None,
            flags: None,
            layout: 0x1234_5678_9abc_def0,
            fragment: Fragment::Later,
            protocol: 17,
            is_malformed: true,
            is_known: Some(false),
            is_verified: None,
            is_to_service: true,
            ..packet(1)
        };
        let mut week = Week::default();
        let packets = [odd, Observed { is_known: Some(true), ..packet(2) }, Observed { weight: 9, ..packet(3) }];
        packets.iter().for_each(|packet| week.take(MONDAY, packet));
        let bytes = week.changed().unwrap_or_default();
        let kept = Week::of_bytes(&bytes, MONDAY).unwrap_or_default();
        let wanted: Vec<_> = packets.iter().map(|packet| Observed { at_ns: 0, ..lasting(packet) }).collect();
        assert_eq!(kept.before(1).copied().collect::<Vec<_>>(), wanted);
        assert_eq!((kept.present, kept.hours()), ((MONDAY as u32, 3), 1), "the hour goes on");
        let later = Week::of_bytes(&bytes, MONDAY + 2 * HOURS as u64 + 1);
        assert_eq!(later.map(|week| week.hours()), Some(0), "too old");
        let other_version = [&bytes[..7], &[2], &bytes[8..]].concat();
        let many = [&bytes[..HEAD], &bytes[HEAD..HEAD + RECORD].repeat(OF_AN_HOUR + 1)].concat();
        for wrong in [&[][..], b"{}", &other_version, &bytes[..bytes.len() - 1], &many] {
            assert!(Week::of_bytes(wrong, MONDAY).is_none(), "{} bytes", wrong.len());
        }
    }
}

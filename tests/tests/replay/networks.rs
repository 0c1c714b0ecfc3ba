//! Floods from many addresses of few networks: the narrowest limit that these share holds them, and their neighbours lose nothing.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use floodwall::detect::Verdict;
use floodwall_common::reason::Verdict as Fate;
use floodwall_tests::captures::made::{Made, Random};
use floodwall_tests::captures::packets::{UDP, udp};

use super::{BEGINS, ENDS, FLOOD, Seen, USUAL, to_host};

const fn v6(upper: u64, lower: u64) -> IpAddr {
    IpAddr::V6(Ipv6Addr::from_bits((upper as u128) << 64 | lower as u128))
}

/// A /56, and customers in others of the same /40.
const FLOODING: u64 = 0x2a10_0100_00ff_ff00;
const NEIGHBOURS: u64 = 0x2a10_0100_0001_0000;

/// UDP that has nothing in common, from such sources, beside customers.
fn seen(neighbours: &[IpAddr], source: impl Fn(&mut Random) -> IpAddr) -> Seen {
    let mut made = Made::new(11);
    made.crowd(0.0..ENDS + 1.0, USUAL, 1.0);
    for neighbour in neighbours {
        let client = made.client(*neighbour);
        made.repeats(1.0..ENDS, 1.0, client);
    }
    made.flood(BEGINS..ENDS, FLOOD, |random| {
        let ports = (random.port(), random.number(1..65_000));
        let (source, hops, data) = (source(random), random.number(30..250), usize::from(random.number(0..512)));
        (to_host(source, hops), UDP, 0, udp(ports, data))
    });
    Seen::of_made(made)
}

/// What is limited, and that the customers have lost nothing by it.
fn limited(seen: &Seen) -> Option<String> {
    let told = seen.told();
    assert!(seen.first(Verdict::Attack).is_some(), "{told}");
    assert!(seen.lost() < f64::EPSILON, "{} of the good packets lost\n{told}", seen.lost());
    let actions = || seen.lines.iter().flat_map(|line| &line.actions);
    actions().find(|action| action.starts_with("limit ")).cloned()
}

#[test]
fn what_rotates_inside_a_56_is_held_by_it_and_its_neighbours_are_not() {
    let neighbours: Vec<_> = (0..40).map(|number| v6(NEIGHBOURS + (number << 8), 1)).collect();
    let seen = seen(&neighbours, |random| v6(FLOODING | random.bits() & 0xff, random.bits()));
    let limit = limited(&seen).unwrap_or_else(|| panic!("{}", seen.told()));
    assert!(limit.starts_with("limit udp of each subnet (/24, /56) to 300/s"), "{limit}");
    assert!(limit.contains("from 2a10:100:ff:ff00::/56; 0.00 %"), "{limit}");
    let stopped = seen.stopped(BEGINS + 1.0);
    assert!(stopped >= 0.9, "{stopped}");
}

#[test]
fn what_rotates_over_more_than_a_56_is_held_by_its_48() {
    let seen = seen(&[], |random| v6(0x2a10_0100_00ff_0000 | random.bits() & 0xffff, random.bits()));
    let limit = limited(&seen).unwrap_or_else(|| panic!("{}", seen.told()));
    assert!(limit.starts_with("limit udp of each network (/16, /48) to 300/s"), "{limit}");
    assert!(limit.contains("from 2a10:100:ff::/48;"), "{limit}");
}

#[test]
fn many_addresses_of_few_24_are_held_by_these() {
    let seen = seen(&[], |random| Ipv4Addr::from_bits(0xc612_0000 | random.bits() as u32 & 0x1ff).into());
    let limit = limited(&seen).unwrap_or_else(|| panic!("{}", seen.told()));
    assert!(limit.starts_with("limit udp of each subnet (/24, /56) to 300/s"), "{limit}");
    assert!(limit.contains("198.18.0.0/24") && limit.contains("198.18.1.0/24"), "{limit}");
}

/// Random sources are of no network, and where customers are at home no limit is set that holds them too.
#[test]
fn no_limit_holds_random_sources_or_the_networks_of_customers() {
    assert_eq!(limited(&seen(&[], Random::address)), None);
    let customers: Vec<_> = (1..=40).map(|number| Ipv4Addr::new(198, 18, 0, number).into()).collect();
    let seen = seen(&customers, |random| Ipv4Addr::from_bits(0xc612_0000 | random.bits() as u32 & 0xff).into());
    assert_eq!(limited(&seen), None);
}

/// Ten minutes after the last sign nothing of it is left: what comes at once then is more than the limit took, and passes.
#[test]
fn it_is_taken_back() {
    let mut made = Made::new(12);
    made.crowd(0.0..ENDS, USUAL, 1.0);
    let mut flood = |during, per_second| {
        made.flood(during, per_second, |random| {
            let (source, ports) = (v6(FLOODING | random.bits() & 0xff, random.bits()), (random.port(), random.port()));
            (to_host(source, 57), UDP, 0, udp(ports, usize::from(random.number(0..512))))
        });
    };
    flood(BEGINS..ENDS, FLOOD);
    // Over before anything is asked about it.
    let later = ENDS + 640.0;
    flood(later..later + 0.02, 50_000.0);
    let seen = Seen::of_made(made);
    assert!(limited(&seen).is_some(), "{}", seen.told());
    let after: Vec<_> = seen.fates.iter().filter(|(at, ..)| *at >= later).map(|(.., fate)| *fate).collect();
    assert!(
        after.len() > 900 && after.iter().all(|fate| *fate == Fate::Pass),
        "{} of {}",
        after.len(),
        seen.fates.len()
    );
    assert!(seen.stopped(BEGINS + 1.0) < 1.0);
}

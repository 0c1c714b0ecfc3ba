//! What a limit would have dropped, from what was sampled of real traffic over a link; and nothing is dropped by asking.

#![expect(clippy::unwrap_used, reason = "the helpers of tests fail as the tests do: by a panic")]

use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::time::{Duration, Instant};

use floodwall_tests::daemon::{Daemon, Place, floodwall, run_verb, status, wait_for};
use floodwall_tests::topology::{PROTECTED, Topology};
use serde_json::Value;

const CLIENT: Ipv4Addr = Ipv4Addr::new(10, 66, 1, 1);
const SERVER: Ipv4Addr = Ipv4Addr::new(10, 66, 0, 1);

/// Sends so many datagrams a second from one source.
fn send(topology: &Topology, per_second: u32, time: Duration) {
    let work = move || {
        let socket = UdpSocket::bind((CLIENT, 0)).unwrap();
        let begun = Instant::now();
        for number in 0.. {
            if begun.elapsed() >= time {
                break;
            }
            let _ = socket.send_to(&[0; 64], SocketAddr::from((SERVER, 9)));
            let due = Duration::from_secs_f64(f64::from(number) / f64::from(per_second));
            // condition: the pace.
            std::thread::sleep(due.saturating_sub(begun.elapsed()));
        }
    };
    topology.world.run(work).unwrap();
}

#[test]
fn a_preview_names_who_would_lose_and_drops_nothing() {
    let (topology, place) = (Topology::new(1).unwrap(), Place::new().unwrap());
    let daemon = Daemon::start(&topology.server, &place, &["--interface", PROTECTED]).unwrap();
    let verb = |words: &str| run_verb(&topology.server, &place, words).unwrap();
    let preview =
        |words: &str| -> Value { serde_json::from_str(&verb(&format!("limits preview {words} --json"))).unwrap() };
    assert!(verb("limits preview tcp --pps 500").contains("no tcp packet"));
    send(&topology, 2_000, Duration::from_secs(4));
    let seen = wait_for("seconds that are over", || {
        let view = preview("udp --pps 500 --burst 100");
        (view["seen_packets"].as_u64() >= Some(6_000)).then_some(view)
    });
    let view = seen.unwrap();
    let share = view["dropped_share"].as_f64().unwrap();
    // Of about 2,000 a second 500 pass; a machine that sends less than it was told loses less.
    assert!((0.3..0.85).contains(&share), "{view}");
    let (low, high) = (view["dropped_share_low"].as_f64(), view["dropped_share_high"].as_f64());
    assert!(low <= Some(share) && high >= Some(share) && low < high, "{view}");
    assert_eq!(view["dropped"][0]["source"], CLIENT.to_string());
    assert_eq!(preview("udp --pps 500 --per subnet")["dropped"][0]["source"], "10.66.1.0/24");
    assert_eq!(preview("udp --pps 100000")["dropped_share"], 0.0);
    let said = verb("limits preview udp --pps 500");
    assert!(said.contains("would have dropped") && said.contains("sampled headers"), "{said}");
    let refused = |words: &str| {
        let words: Vec<_> = ["limits", "preview"].into_iter().chain(words.split(' ')).collect();
        floodwall(&topology.server, &place, &words).unwrap().status.code()
    };
    for words in ["udp --pps 0", "quic --pps 5", "allowed --pps 5", "udp --pps 5 --burst 5000000"] {
        assert_eq!(refused(words), Some(2), "{words}");
    }
    assert_eq!(
        status(&topology.server, &place).unwrap()["interfaces"][0]["would_drop"]["packets"],
        0,
        "nothing was set"
    );
    daemon.stop().unwrap();
}

//! `floodwall stop`: one write, which comes before everything else that a change takes, whatever is wrong with the daemon or the maps.

#![expect(clippy::unwrap_used, reason = "the helpers of tests fail as the tests do: by a panic")]

use std::time::Instant;

use aya::maps::{Array, Map, MapData};
use floodwall_common::config::{Config, Mode};
use floodwall_tests::daemon::{DEADLINE, wait_for};
use floodwall_tests::pins::pin;
use floodwall_tests::stand::Stand;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};

/// The mode that packets are judged in: what is pinned, asked of nobody.
fn mode(stand: &Stand) -> Mode {
    let pinned = MapData::from_pin(pin(&stand.place, "CONFIG")).unwrap();
    let config: Array<MapData, Config> = Map::Array(pinned).try_into().unwrap();
    config.get(&0, 0).unwrap().mode()
}

/// What the last change has changed.
fn details(stand: &Stand, change: &str) -> Value {
    let last = stand.changes().pop().unwrap();
    assert_eq!(last["change"], change);
    last["details"].clone()
}

#[test]
fn it_is_written_down_with_the_mode_and_nothing_else() {
    let stand = Stand::new();
    let daemon = stand.run(&["--mode", "enforce"]);
    let stopped = json!([{ "what": "mode", "from": "enforce", "to": "stopped" }]);
    let resumed = json!([{ "what": "mode", "from": "stopped", "to": "enforce" }]);
    stand.verb("stop --why drill");
    assert_eq!(details(&stand, "stop"), stopped);
    assert_eq!(stand.changes().pop().unwrap()["why"], "drill");
    // Once more is no other change; and others change what they like meanwhile.
    stand.verb("stop");
    assert_eq!(details(&stand, "stop"), Value::Null);
    stand.verb("limits set udp --pps 4444");
    stand.verb("resume");
    assert_eq!((details(&stand, "resume"), mode(&stand)), (resumed.clone(), Mode::Enforce));
    daemon.stop().unwrap();
    stand.verb("stop");
    assert_eq!((details(&stand, "stop"), mode(&stand)), (stopped, Mode::Stopped));
    stand.verb("resume");
    assert_eq!(details(&stand, "resume"), resumed);
}

#[test]
fn it_needs_the_configuration_and_none_of_the_other_maps() {
    let stand = Stand::new();
    stand.run(&["--mode", "enforce"]).stop().unwrap();
    let config = pin(&stand.place, "CONFIG");
    for entry in std::fs::read_dir(config.parent().unwrap()).unwrap() {
        let path = entry.unwrap().path();
        if path.is_file() && path != config {
            std::fs::remove_file(path).unwrap();
        }
    }
    assert_eq!(stand.exit("mode monitor").0, Some(5), "everything else takes all of them");
    assert_eq!(mode(&stand), Mode::Enforce);
    let (exit, said) = stand.exit("stop");
    assert!(exit == Some(0) && said.contains("all dropping is stopped"), "{exit:?} {said}");
    assert_eq!(mode(&stand), Mode::Stopped);
    let written = std::fs::read_to_string(stand.place.directory().join("history.ndjson")).unwrap();
    assert!(written.lines().last().unwrap().contains(r#""to":"stopped""#), "{written}");
}

#[test]
fn f60_a_daemon_that_hangs_does_not_keep_drops_real() {
    let stand = Stand::new();
    let daemon = stand.run(&["--mode", "enforce"]);
    let pid = Pid::from_raw(daemon.pid() as i32);
    kill(pid, Signal::SIGSTOP).unwrap();
    let (begun, (exit, said)) = (Instant::now(), stand.exit("stop"));
    assert!(exit == Some(0) && said.contains("has not answered"), "{exit:?} {said}");
    assert!(mode(&stand) == Mode::Stopped && begun.elapsed() < DEADLINE, "{:?}", begun.elapsed());
    // Once it goes on, it knows, and does what still waits in its socket.
    kill(pid, Signal::SIGCONT).unwrap();
    stand.wait_for_mode("stopped");
    wait_for("both to be written down", || {
        (stand.changes().iter().filter(|entry| entry["change"] == "stop").count() == 2).then_some(())
    })
    .unwrap();
    assert_eq!(mode(&stand), Mode::Stopped);
    daemon.stop().unwrap();
}

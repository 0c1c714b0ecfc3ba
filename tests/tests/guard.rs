//! What others undo behind the daemon's back is noticed within a second, told, and mended where that is safe.

#![expect(clippy::unwrap_used, reason = "the helpers of tests fail as the tests do: by a panic")]

use std::time::{Duration, Instant};

use floodwall_tests::daemon::{Daemon, Place, metric, run_verb, status, wait_for};
use floodwall_tests::netns::{Namespace, join};
use floodwall_tests::pins::{Loaded, attach_foreign, detach_link, wipe};
use floodwall_tests::topology::{PROTECTED, Topology, WORLD};
use serde_json::Value;

const ARGUMENTS: [&str; 6] = ["--interface", PROTECTED, "--mode", "enforce", "--metrics", "off"];

struct Scene {
    topology: Topology,
    place: Place,
}

impl Scene {
    fn new() -> (Self, Daemon) {
        let (topology, place) = (Topology::new(1).unwrap(), Place::new().unwrap());
        let daemon = Daemon::start(&topology.server, &place, &ARGUMENTS).unwrap();
        (Self { topology, place }, daemon)
    }

    fn interface(&self) -> Value {
        status(&self.topology.server, &self.place).unwrap()["interfaces"][0].clone()
    }

    fn is_attached(&self) -> bool {
        self.interface()["attached"] == "native"
    }

    fn history(&self) -> String {
        run_verb(&self.topology.server, &self.place, "history").unwrap()
    }

    /// Waits until the history tells of it and the filter is there, and says how long that took.
    fn mended(&self, what: &str) -> Duration {
        let begun = Instant::now();
        wait_for(what, || (self.history().contains(what) && self.is_attached()).then_some(()))
            .map_err(|error| format!("{error}\n{}\n{}", self.history(), self.interface()))
            .unwrap();
        begun.elapsed()
    }

    fn mendings(&self) -> f64 {
        metric(&self.topology.server, &self.place, "floodwall_mended_total", &[]).unwrap()
    }
}

#[test]
fn a_filter_that_somebody_takes_off_is_put_back_and_what_the_operator_takes_off_is_not() {
    let (scene, _daemon) = Scene::new();
    let ifindex = scene.topology.server.ifindex(PROTECTED).unwrap();
    detach_link(&scene.place, ifindex).unwrap();
    let took = scene.mended("attached again: eth0");
    assert!(took < Duration::from_secs(4), "{took:?}");
    assert_eq!(scene.mendings(), 1.0);
    assert_eq!(scene.interface()["remembers_sent"], true, "{}", scene.interface());
    // Somebody else's program is left alone. Detached again within two minutes, it waits a second before it tries.
    detach_link(&scene.place, ifindex).unwrap();
    let foreign = attach_foreign(&scene.topology.server, PROTECTED, "bare_drop");
    if let Ok(foreign) = foreign {
        wait_for("the status to tell", || (!scene.is_attached()).then_some(())).unwrap();
        drop(foreign);
    }
    wait_for("the filter", || scene.is_attached().then_some(())).unwrap();
    let before = scene.mendings();
    run_verb(&scene.topology.server, &scene.place, "detach").unwrap();
    let end = Instant::now() + Duration::from_secs(3);
    while Instant::now() < end {
        // condition: several looks of the daemon, none of which is to find anything to mend.
        std::thread::sleep(Duration::from_millis(200));
        assert!(status(&scene.topology.server, &scene.place).unwrap()["interfaces"][0].is_null());
    }
    assert_eq!(scene.mendings(), before);
}

#[test]
fn an_interface_that_is_made_anew_or_renamed_or_was_elsewhere_is_protected() {
    let (scene, _daemon) = Scene::new();
    let (world, server) = (&scene.topology.world, &scene.topology.server);
    run_verb(server, &scene.place, "deny add 203.0.113.0/24").unwrap();
    server.ip(&format!("link del {PROTECTED}")).unwrap();
    wait_for("the status to tell", || (!scene.is_attached()).then_some(())).unwrap();
    join(world, WORLD, server, PROTECTED).unwrap();
    scene.mended("attached again: eth0");
    assert!(run_verb(server, &scene.place, "deny list").unwrap().contains("203.0.113.0/24"), "nothing is lost");
    server.ip(&format!("link set {PROTECTED} down")).unwrap();
    server.ip(&format!("link set {PROTECTED} name lan7")).unwrap();
    server.ip("link set lan7 up").unwrap();
    scene.mended("renamed: eth0 is lan7 now");
    assert_eq!(scene.interface()["name"], "lan7");
    // Elsewhere it is not protected; back here it is.
    let elsewhere = Namespace::new("elsewhere").unwrap();
    server.ip(&format!("link set lan7 netns {}", elsewhere.name())).unwrap();
    wait_for("the status to tell", || (!scene.is_attached()).then_some(())).unwrap();
    elsewhere.ip(&format!("link set lan7 netns {}", server.name())).unwrap();
    server.ip("link set lan7 up").unwrap();
    wait_for("the filter", || scene.is_attached().then_some(()))
        .unwrap_or_else(|error| panic!("{error}\n{}", scene.history()));
}

#[test]
fn pins_that_are_wiped_are_made_again_and_the_next_daemon_finds_all() {
    let (scene, daemon) = Scene::new();
    let (server, place) = (&scene.topology.server, &scene.place);
    run_verb(server, place, "deny add 203.0.113.0/24").unwrap();
    let maps = Loaded::now(&place.bpffs()).unwrap();
    wipe(place).unwrap();
    scene.mended("pinned again");
    // Without the pins the filter would go with the daemon.
    daemon.kill().unwrap();
    let device = || status(server, place).unwrap()["interfaces"][0]["attached"].clone();
    assert_eq!(device(), "native");
    let _next = Daemon::start(server, place, &ARGUMENTS).unwrap();
    assert!(scene.is_attached());
    assert!(run_verb(server, place, "deny list").unwrap().contains("203.0.113.0/24"));
    assert!(!maps.is_gone().unwrap(), "the same maps");
}

//! Where records cannot be kept: the disk is full, the file is broken, another program holds it, or a newer floodwall has made it. What
//! protects goes on, it is said, and nothing that was written is lost.

#![expect(clippy::unwrap_used, reason = "the helpers of tests fail as the tests do: by a panic")]

use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use anyhow::Context as _;
use floodwall::detect::{Assessment, Verdict};
use floodwall::incident::{Incident, Store};
use floodwall_tests::daemon::{Daemon, Place, packets, run_verb, status, wait_for};
use floodwall_tests::flood::Flood;
use floodwall_tests::netns::Running;
use floodwall_tests::topology::{PROTECTED, Topology};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use rusqlite::Connection;

/// Packets a second, and for how long: it is named, held and not yet over.
const RATE: u64 = 20_000;
const LASTS: Duration = Duration::from_secs(8);

/// A flood takes a CPU to itself: one at a time.
static ALONE: Mutex<()> = Mutex::new(());

/// A disk of its own for the records, gone with this value.
struct Disk(PathBuf);

impl Disk {
    fn new(place: &Place) -> Self {
        let path = place.directory().join("records");
        std::fs::create_dir(&path).unwrap();
        mount(Some("records"), &path, Some("tmpfs"), MsFlags::empty(), Some("size=1m")).unwrap();
        Self(path)
    }

    fn database(&self) -> PathBuf {
        self.0.join("incidents.db")
    }

    /// One from before, written whole.
    fn with_a_record(&self) -> Incident {
        let found = Assessment { verdict: Verdict::Attack, confidence: 0.97, ..Assessment::default() };
        let mut incident = Incident::new(1_700_000_000_000, &found);
        incident.id = "20231114-221320".to_owned();
        incident.resolve("eva", "over");
        self.store().save(&incident).unwrap();
        incident
    }

    fn store(&self) -> Store {
        Store::beside(&self.0.join("history.ndjson"))
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _ = umount2(&self.0, MntFlags::MNT_DETACH);
    }
}

struct Scene {
    topology: Topology,
    disk: Disk,
    place: Place,
    daemon: Daemon,
}

impl Scene {
    /// A daemon that acts, with its records as `prepare` has left them.
    fn new(prepare: impl FnOnce(&Disk)) -> Self {
        let (topology, place) = (Topology::new(1).unwrap(), Place::new().unwrap());
        let disk = Disk::new(&place);
        prepare(&disk);
        let history = disk.0.join("history.ndjson");
        let arguments = ["--interface", PROTECTED, "--mode", "enforce", "--respond", "act", "--history"];
        let arguments = [&arguments[..], &[history.to_str().unwrap()]].concat();
        let daemon = Daemon::start(&topology.server, &place, &arguments).unwrap();
        Self { topology, disk, place, daemon }
    }

    fn log(&self) -> String {
        std::fs::read_to_string(self.place.log()).unwrap()
    }

    fn verb(&self, words: &str) -> String {
        run_verb(&self.topology.server, &self.place, words).unwrap()
    }

    /// A flood is named and held, whatever becomes of the record.
    fn is_protected(&self) -> Running<anyhow::Result<floodwall_tests::flood::Sent>> {
        let flood = Flood { only_v4: true, ..Flood::udp(1 << 20, RATE, LASTS) };
        let flood = flood.start(&self.topology.world, self.topology.target().unwrap(), 0).unwrap();
        let held = wait_for("the flood to be named and held", || {
            let now = status(&self.topology.server, &self.place).ok()?;
            let held = packets(&now, "drop", "signature") + packets(&now, "drop", "no-service");
            (now["situation"]["verdict"] == "attack" && held > RATE / 4).then_some(())
        });
        held.with_context(|| self.log()).unwrap();
        flood
    }
}

#[test]
fn a_full_disk_is_told_and_what_was_written_stays() {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let scene = Scene::new(|disk| drop(disk.with_a_record()));
    let before = scene.disk.store().all().unwrap();
    // All that is left.
    let filled = std::io::copy(&mut std::io::repeat(0), &mut std::fs::File::create(scene.disk.0.join("room")).unwrap());
    assert!(filled.is_err());
    scene.is_protected().join().unwrap().unwrap();
    assert!(scene.log().contains("the record cannot be written"), "{}", scene.log());
    // With room again, the one that goes on is written whole.
    std::fs::remove_file(scene.disk.0.join("room")).unwrap();
    let all = wait_for("the record", || scene.disk.store().all().ok().filter(|all| all.len() == 2)).unwrap();
    assert_eq!((&all[0], all[1].verdict), (&before[0], Verdict::Attack));
    assert!(all[1].timeline[0].what.contains("first sign"), "{:?}", all[1].timeline);
}

#[test]
fn a_broken_file_is_put_aside_and_begun_anew() {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let broken = vec![b'x'; 8_192];
    let scene = Scene::new(|disk| std::fs::write(disk.database(), &broken).unwrap());
    let flood = scene.is_protected();
    wait_for("the record", || scene.disk.store().all().ok().filter(|all| all.len() == 1)).unwrap();
    assert!(scene.log().contains("put aside, and begun anew"), "{}", scene.log());
    let names = std::fs::read_dir(&scene.disk.0).unwrap().map(|entry| entry.unwrap().path());
    let aside: Vec<_> = names.filter(|path| path.to_string_lossy().contains("incidents.db.bad-")).collect();
    assert_eq!(aside.len(), 1, "{aside:?}");
    assert_eq!(std::fs::read(&aside[0]).unwrap(), broken, "for whoever can read it");
    flood.join().unwrap().unwrap();
}

#[test]
fn one_that_somebody_holds_is_written_when_he_lets_go() {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let scene = Scene::new(|disk| drop(disk.with_a_record()));
    let holder = Connection::open(scene.disk.database()).unwrap();
    holder.execute_batch("BEGIN IMMEDIATE").unwrap();
    scene.is_protected().join().unwrap().unwrap();
    assert!(scene.log().contains("database is locked"), "{}", scene.log());
    scene.verb("incident note while-it-was-held");
    assert_eq!(scene.disk.store().all().unwrap().len(), 1, "who reads is not kept from it");
    holder.execute_batch("ROLLBACK").unwrap();
    let all = wait_for("the record", || {
        let all = scene.disk.store().all().ok()?;
        let is_there = all.last()?.timeline.iter().any(|event| event.what == "while-it-was-held");
        is_there.then_some(all)
    });
    let all = all.unwrap_or_else(|error| panic!("{error}\n{}", scene.log()));
    let events: Vec<_> = scene.disk.store().since(0).unwrap().into_iter().map(|happened| happened.event).collect();
    let timelines: Vec<_> = all.into_iter().flat_map(|incident| incident.timeline).collect();
    assert_eq!(events, timelines, "each once, and none is missing");
}

#[test]
fn one_of_a_newer_version_is_not_touched() {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let scene = Scene::new(|disk| {
        disk.with_a_record();
        let made = Connection::open(disk.database()).unwrap();
        made.pragma_update(None, "user_version", 99).unwrap();
        made.pragma_update(None, "journal_mode", "DELETE").unwrap();
    });
    let before = std::fs::read(scene.disk.database()).unwrap();
    scene.is_protected().join().unwrap().unwrap();
    assert!(scene.log().contains("is of a newer floodwall (version 99"), "{}", scene.log());
    assert_eq!(std::fs::read(scene.disk.database()).unwrap(), before);
    let Scene { daemon, disk, topology: _topology, place: _place } = scene;
    daemon.stop().unwrap();
    assert_eq!(std::fs::read(disk.database()).unwrap(), before);
}

//! A world and a server behind the filter, and where the daemon of the server has its files: what most tests of the binary begin
//! with. It fails as tests do, by a panic.

#![expect(clippy::unwrap_used, reason = "it is for tests only, and fails as they do")]

use serde_json::Value;

use crate::daemon::{Daemon, Place, floodwall, run_verb, status, wait_for};
use crate::topology::{PROTECTED, Topology};

/// See the module.
#[derive(Debug)]
pub struct Stand {
    /// The two ends of the link.
    pub topology: Topology,
    /// The daemon's files.
    pub place: Place,
}

impl Default for Stand {
    fn default() -> Self {
        Self::new()
    }
}

impl Stand {
    /// One with one client, and nothing attached.
    pub fn new() -> Self {
        Self { topology: Topology::new(1).unwrap(), place: Place::new().unwrap() }
    }

    /// A daemon that protects the server, with more arguments.
    pub fn run(&self, more: &[&str]) -> Daemon {
        Daemon::start(&self.topology.server, &self.place, &[&["--interface", PROTECTED], more].concat()).unwrap()
    }

    /// What a verb says, which has to succeed.
    pub fn verb(&self, words: &str) -> String {
        run_verb(&self.topology.server, &self.place, words).unwrap()
    }

    /// The exit code of a verb, and what it says on standard error.
    pub fn exit(&self, words: &str) -> (Option<i32>, String) {
        let output = floodwall(&self.topology.server, &self.place, &words.split(' ').collect::<Vec<_>>()).unwrap();
        (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
    }

    /// What a verb says as JSON.
    pub fn json(&self, words: &str) -> Value {
        serde_json::from_str(&self.verb(&format!("{words} --json"))).unwrap()
    }

    /// `floodwall status`.
    pub fn status(&self) -> Value {
        status(&self.topology.server, &self.place).unwrap()
    }

    /// Waits until the status has this mode.
    pub fn wait_for_mode(&self, mode: &str) {
        wait_for(mode, || (self.status()["mode"] == mode).then_some(())).unwrap();
    }

    /// Writes the configuration file.
    pub fn write(&self, file: &str) {
        std::fs::write(self.place.directory().join("floodwall.toml"), file).unwrap();
    }

    /// The changes that were written down, the latest last.
    pub fn changes(&self) -> Vec<Value> {
        self.json("history")["changes"].as_array().unwrap().clone()
    }
}

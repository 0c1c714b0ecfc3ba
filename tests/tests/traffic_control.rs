//! What is sent, seen by a filter on a clsact qdisc, as on kernels without TCX: it is replaced without a gap, leaves what others
//! have there alone, and where it is lost nothing stays armed.

use std::net::{Ipv4Addr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use floodwall_tests::daemon::{Daemon, Place, floodwall, floodwall_ok, run_verb, status, wait_for};
use floodwall_tests::netns::{Running, join};
use floodwall_tests::topology::{PROTECTED, Topology, WORLD as WORLD_LINK};
use serde_json::Value;

const WORLD: Ipv4Addr = Ipv4Addr::new(10, 66, 1, 1);
const SERVER: Ipv4Addr = Ipv4Addr::new(10, 66, 0, 1);
const DNS: u16 = 53;
const PATIENCE: Duration = Duration::from_secs(5);
/// A filter that matches nothing, in front of all others, as somebody else may have it.
const FOREIGN: &str = "filter add dev eth0 egress prio 1 handle 7 bpf bytecode 1,6;0;0;0 skip_hw";

struct Scene {
    topology: Topology,
    place: Place,
}

impl Scene {
    fn new() -> Result<Self> {
        Ok(Self { topology: Topology::new(1)?, place: Place::new()? })
    }

    fn start(&self, hook: &str) -> Result<Daemon> {
        let arguments = ["--interface", PROTECTED, "--mode", "enforce", "--egress-hook", hook];
        Daemon::start(&self.topology.server, &self.place, &arguments)
    }

    fn verb(&self, words: &str) -> Result<String> {
        run_verb(&self.topology.server, &self.place, words)
    }

    fn egress_hook(&self) -> Result<Value> {
        Ok(status(&self.topology.server, &self.place)?["interfaces"][0]["egress_hook"].clone())
    }

    fn is_armed(&self) -> Result<bool> {
        let shown: Value = serde_json::from_str(&self.verb("policy show --json")?)?;
        let policies = shown["policies"].as_array().context("policies")?;
        Ok(policies.iter().any(|policy| policy["reason"] == "unsolicited-reply" && policy["verdict"] == "drop"))
    }

    /// What `tc` says. A semicolon stands for a blank inside an argument.
    fn tc(&self, words: &str) -> Result<String> {
        let words: Vec<_> = words.split(' ').map(|word| word.replace(';', " ")).collect();
        let output = self.topology.server.command("tc")?.args(&words).output().context("run tc")?;
        let said = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "tc {}: {said}", words.join(" "));
        Ok(String::from_utf8(output.stdout)?)
    }

    /// Filters of what leaves, as `tc` lists them.
    fn filters(&self) -> Result<Vec<String>> {
        let listed = self.tc("filter show dev eth0 egress")?;
        Ok(listed.lines().filter(|line| line.contains(" handle ")).map(str::to_owned).collect())
    }

    fn qdiscs(&self) -> Result<String> {
        self.tc("qdisc show dev eth0")
    }
}

/// Kernels have it from 6.6 on.
fn has_tcx() -> Result<bool> {
    let release = std::fs::read_to_string("/proc/sys/kernel/osrelease")?;
    let mut numbers = release.split('.').map(str::parse);
    let (major, minor): (u32, u32) =
        (numbers.next().context("a version")??, numbers.next().context("a minor version")??);
    Ok((major, minor) >= (6, 6))
}

fn is_ours(filter: &str) -> bool {
    filter.contains("pref 1 ") && filter.contains("handle 0xf100d floodwall_egress direct-action")
}

/// Somebody who answers everything that he is asked, and somebody who asks, each question from a new port.
struct Conversations {
    is_over: Arc<AtomicBool>,
    asker: Running<Result<u32>>,
    resolver: Running<Result<()>>,
}

impl Conversations {
    fn start(topology: &Topology) -> Result<Self> {
        let is_over = Arc::new(AtomicBool::new(false));
        let over = Arc::clone(&is_over);
        let socket = topology.world.run(|| UdpSocket::bind((WORLD, DNS)))??;
        socket.set_read_timeout(Some(Duration::from_millis(100)))?;
        let resolver = topology.world.spawn(move || -> Result<()> {
            let mut bytes = [0; 64];
            while !over.load(Ordering::Relaxed) {
                if let Ok((length, from)) = socket.recv_from(&mut bytes) {
                    socket.send_to(&bytes[..length], from)?;
                }
            }
            Ok(())
        })?;
        let over = Arc::clone(&is_over);
        let asker = topology.server.spawn(move || -> Result<u32> {
            let mut answered = 0;
            while !over.load(Ordering::Relaxed) {
                let socket = UdpSocket::bind((SERVER, 0))?;
                socket.set_read_timeout(Some(PATIENCE))?;
                socket.send_to(b"question", (WORLD, DNS))?;
                let from = socket.local_addr()?;
                socket.recv_from(&mut [0; 64]).with_context(|| format!("the answer to {from}, after {answered}"))?;
                answered += 1;
            }
            Ok(answered)
        })?;
        Ok(Self { is_over, asker, resolver })
    }

    /// How many questions were answered: all of them.
    fn end(self) -> Result<u32> {
        self.is_over.store(true, Ordering::Relaxed);
        let answered = self.asker.join()?;
        self.resolver.join()??;
        answered
    }
}

#[test]
fn a_second_start_replaces_it_without_a_gap() -> Result<()> {
    let scene = Scene::new()?;
    let daemon = scene.start("clsact")?;
    ensure!(scene.egress_hook()? == "clsact");
    scene.verb("policy set unsolicited-reply drop")?;
    scene.verb("limits set udp --pps off")?;
    let first = scene.filters()?;
    let conversations = Conversations::start(&scene.topology)?;
    daemon.kill()?;
    ensure!(scene.egress_hook()? == "clsact", "without a daemon");
    let _daemon = scene.start("clsact")?;
    let second = scene.filters()?;
    let answered = conversations.end()?;
    ensure!(answered > 10, "{answered} questions");
    ensure!(first.len() == 1 && second.len() == 1 && first != second, "{first:?} became {second:?}");
    ensure!([&first, &second].into_iter().flatten().all(|filter| is_ours(filter)), "{first:?} and {second:?}");
    ensure!(scene.egress_hook()? == "clsact" && scene.is_armed()?);
    Ok(())
}

#[test]
fn one_way_takes_over_from_the_other() -> Result<()> {
    let scene = Scene::new()?;
    let has_tcx = has_tcx()?;
    let usual = if has_tcx { "tcx" } else { "clsact" };
    scene.start("tcx")?.stop()?;
    ensure!(scene.egress_hook()? == usual);
    scene.verb("policy set unsolicited-reply drop")?;
    scene.start("clsact")?.stop()?;
    ensure!(scene.egress_hook()? == "clsact" && scene.filters()?.len() == 1 && scene.is_armed()?);
    let _daemon = scene.start("tcx")?;
    ensure!(scene.egress_hook()? == usual && scene.is_armed()?);
    ensure!(scene.filters()?.is_empty() == has_tcx && scene.qdiscs()?.contains("clsact") != has_tcx);
    Ok(())
}

#[test]
fn what_others_have_on_the_qdisc_stays() -> Result<()> {
    let scene = Scene::new()?;
    scene.tc("qdisc add dev eth0 clsact")?;
    scene.tc(FOREIGN)?;
    let theirs = scene.filters()?;
    let daemon = scene.start("clsact")?;
    let both = scene.filters()?;
    ensure!(both.len() == 2 && both.iter().filter(|filter| is_ours(filter)).count() == 1, "{both:?}");
    scene.verb("policy set unsolicited-reply drop")?;
    let answered = Conversations::start(&scene.topology)?;
    // condition: some questions are asked; each waits for its answer.
    std::thread::sleep(Duration::from_millis(100));
    ensure!(answered.end()? > 0);
    scene.verb("detach")?;
    drop(daemon);
    ensure!(scene.filters()? == theirs, "{:?}", scene.filters());
    ensure!(scene.qdiscs()?.contains("clsact"));

    scene.tc("filter del dev eth0 egress")?;
    let _daemon = scene.start("clsact")?;
    scene.verb("detach")?;
    ensure!(!scene.qdiscs()?.contains("clsact"), "nothing was on it");
    Ok(())
}

#[test]
fn a_qdisc_that_cannot_show_what_leaves_is_left_alone() -> Result<()> {
    let scene = Scene::new()?;
    scene.tc("qdisc add dev eth0 ingress")?;
    let _daemon = scene.start("clsact")?;
    ensure!(scene.egress_hook()?.is_null());
    let refused = floodwall(&scene.topology.server, &scene.place, &["policy", "set", "unsolicited-reply", "drop"])?;
    ensure!(refused.status.code() == Some(4), "{refused:?}");
    let log = std::fs::read_to_string(scene.place.log())?;
    ensure!(log.contains("one of the kind `ingress` has to be `clsact`"), "{log}");
    ensure!(scene.tc("filter show dev eth0 ingress")?.is_empty() && scene.qdiscs()?.contains("ingress"));
    Ok(())
}

#[test]
fn in_its_place_it_takes_nobody_elses_for_its_own() -> Result<()> {
    let scene = Scene::new()?;
    scene.tc("qdisc add dev eth0 clsact")?;
    scene.tc(&FOREIGN.replace("handle 7", "handle 0xf100d"))?;
    let theirs = scene.filters()?;
    let _daemon = scene.start("clsact")?;
    ensure!(scene.egress_hook()?.is_null());
    scene.verb("detach")?;
    ensure!(scene.filters()? == theirs, "{:?}", scene.filters());
    Ok(())
}

#[test]
fn where_somebody_takes_it_away_nothing_stays_armed() -> Result<()> {
    let scene = Scene::new()?;
    let _daemon = scene.start("clsact")?;
    scene.verb("policy set unsolicited-reply drop")?;
    scene.tc("qdisc del dev eth0 clsact")?;
    wait_for("the daemon to disarm", || (!scene.is_armed().ok()?).then_some(()))?;
    wait_for("the filter to be back", || (scene.egress_hook().ok()? == "clsact").then_some(()))?;
    ensure!(!scene.is_armed()?, "what was disarmed is the operator's to arm");
    Ok(())
}

#[test]
fn an_interface_that_is_made_anew_is_seen_again() -> Result<()> {
    let scene = Scene::new()?;
    let _daemon = scene.start("clsact")?;
    scene.verb("policy set unsolicited-reply drop")?;
    scene.topology.server.ip(&format!("link del {PROTECTED}"))?;
    wait_for("the daemon to disarm", || (!scene.is_armed().ok()?).then_some(()))?;
    join(&scene.topology.world, WORLD_LINK, &scene.topology.server, PROTECTED)?;
    wait_for("the filter to be back", || (scene.egress_hook().ok()? == "clsact").then_some(()))?;
    ensure!(scene.filters()?.iter().all(|filter| is_ours(filter)));
    floodwall_ok(&scene.topology.server, &scene.place, &["policy", "set", "unsolicited-reply", "drop"])?;
    Ok(())
}

/// What is pinned was made by another build, so that nothing of it can be read.
#[test]
fn what_another_build_has_left_goes_with_detach() -> Result<()> {
    let scene = Scene::new()?;
    scene.start("clsact")?.kill()?;
    floodwall_tests::pins::replace_by_smaller_array(&scene.place, "CPUS")?;
    scene.verb("detach")?;
    ensure!(scene.filters().is_ok_and(|filters| filters.is_empty()) && !scene.qdiscs()?.contains("clsact"));
    Ok(())
}

//! Signatures from the command line to the packet: over a real link, with the daemon and without it; and that a change of
//! them is whole under traffic.

use std::net::{Ipv4Addr, UdpSocket};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, anyhow, ensure};
use floodwall::dataplane::{TestRun, test_run};
use floodwall_common::config::Mode;
use floodwall_common::limits::{LimitName, Rate};
use floodwall_common::reason::Reason;
use floodwall_common::signatures::{Action, Range, SIGNATURES, Shape};
use floodwall_tests::daemon::{Daemon, Place, floodwall, metric, packets, run_verb, status, wait_for};
use floodwall_tests::frames::udp_v4;
use floodwall_tests::http::send_unix;
use floodwall_tests::kernel::{Kernel, Time, Variant, pin_to_cpu, signature};
use floodwall_tests::topology::{PROTECTED, Topology};
use serde_json::{Value, json};

const WORLD: Ipv4Addr = Ipv4Addr::new(10, 66, 1, 1);
const SERVER: Ipv4Addr = Ipv4Addr::new(10, 66, 0, 1);
const PATIENCE: Duration = Duration::from_secs(5);

struct Scene {
    topology: Topology,
    place: Place,
    daemon: Option<Daemon>,
    sender: UdpSocket,
    receiver: UdpSocket,
}

impl Scene {
    fn new() -> Result<Self> {
        let (topology, place) = (Topology::new(1)?, Place::new()?);
        let daemon = Daemon::start(&topology.server, &place, &["--interface", PROTECTED, "--mode", "enforce"])?;
        let sender = topology.world.run(|| UdpSocket::bind((WORLD, 0)))??;
        let receiver = topology.server.run(|| UdpSocket::bind((SERVER, 0)))??;
        receiver.set_read_timeout(Some(PATIENCE))?;
        Ok(Self { topology, place, daemon: Some(daemon), sender, receiver })
    }

    fn verb(&self, words: &str) -> Result<String> {
        run_verb(&self.topology.server, &self.place, words)
    }

    /// What a verb that is refused says. It has to change nothing.
    fn refused(&self, words: &str) -> Result<String> {
        let before = self.list()?["generation"].clone();
        let output = floodwall(&self.topology.server, &self.place, &words.split(' ').collect::<Vec<_>>())?;
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        ensure!(output.status.code() == Some(2), "{words}: {output:?}");
        ensure!(self.list()?["generation"] == before, "{words} has changed something");
        Ok(said)
    }

    fn list(&self) -> Result<Value> {
        Ok(serde_json::from_str(&self.verb("signature list --json")?)?)
    }

    fn of(&self, name: &str) -> Result<Value> {
        let view = self.list()?;
        let named = view["signatures"].as_array().into_iter().flatten().find(|signature| signature["name"] == name);
        named.cloned().with_context(|| format!("no {name} in {view}"))
    }

    fn hits(&self, name: &str) -> Result<u64> {
        self.of(name)?["packets"].as_u64().context("no packets")
    }

    fn send(&self, text: &str) -> Result<()> {
        self.sender.send_to(text.as_bytes(), self.receiver.local_addr()?)?;
        Ok(())
    }

    /// The next datagram that has come through.
    fn received(&self) -> Result<String> {
        let mut bytes = [0; 64];
        let (length, _) = self.receiver.recv_from(&mut bytes).context("a datagram that passes")?;
        Ok(String::from_utf8_lossy(&bytes[..length]).into_owned())
    }

    /// Sends what the signature suits, and then what it does not: what comes through first says what became of it.
    fn passes(&self, text: &str) -> Result<bool> {
        self.send(text)?;
        self.send("innocent")?;
        let first = self.received()?;
        if first == text {
            ensure!(self.received()? == "innocent");
        }
        Ok(first == text)
    }

    fn reason(&self, verdict: &str) -> Result<u64> {
        Ok(packets(&status(&self.topology.server, &self.place)?, verdict, "signature"))
    }
}

/// "flood" in hex, at the beginning.
const FLOOD: &str = "--proto udp --payload 666c6f6f64@0";

#[test]
fn what_a_signature_suits_is_dropped_or_counted_and_the_rest_passes() -> Result<()> {
    let scene = Scene::new()?;
    ensure!(scene.passes("flood 1")?, "nothing is set yet");
    scene.verb(&format!("signature add watched {FLOOD} --action count"))?;
    ensure!(scene.passes("flood 2")? && scene.hits("watched")? == 1);
    let port = scene.receiver.local_addr()?.port();
    let shown = scene.verb(&format!(
        "signature add dropped {FLOOD} --dst-port {port} --length 33-40 --hops 1-255 --fragment none --action drop --reason test"
    ))?;
    ensure!(shown.contains("payload=666c6f6f64@0") && shown.contains("2 of 256") && shown.contains("test"), "{shown}");
    ensure!(!scene.passes("flood 3")?);
    ensure!((scene.hits("watched")?, scene.hits("dropped")?) == (2, 1));
    ensure!(scene.of("dropped")?["bytes"] == 14 + 28 + 7, "bytes of the frame");
    wait_for("the reason in the status", || (scene.reason("drop").ok()? == 1).then_some(()))?;
    let gauge = metric(&scene.topology.server, &scene.place, "floodwall_signatures", &[])?;
    ensure!((gauge - 2.0).abs() < 0.1, "{gauge} signatures");
    let explained = scene.verb("explain 10.66.1.1")?;
    ensure!(explained.contains("2 signatures are in force"), "{explained}");

    scene.verb("mode monitor")?;
    ensure!(scene.passes("flood 4")?, "monitor mode drops nothing");
    ensure!(scene.hits("dropped")? == 2, "and counts");
    wait_for("the reason in the status", || (scene.reason("pass").ok()? == 1).then_some(()))?;
    scene.verb("mode enforce")?;
    scene.verb("allow add 10.66.1.1")?;
    ensure!(scene.passes("flood 5")? && scene.hits("dropped")? == 2, "the allow list wins");
    scene.verb("allow remove 10.66.1.1")?;
    ensure!(!scene.passes("flood 6")?);
    scene.verb("signature remove dropped")?;
    ensure!(scene.passes("flood 7")? && scene.hits("watched")? == 5, "others keep their hits: {}", scene.list()?);
    Ok(())
}

#[test]
fn it_ends_by_itself_and_goes_with_the_next_change() -> Result<()> {
    let scene = Scene::new()?;
    scene.verb(&format!("signature add short {FLOOD} --action drop --ttl 3s"))?;
    ensure!(!scene.passes("flood 1")?, "not yet: {}", scene.list()?);
    wait_for("it to end", || (scene.of("short").ok()?["ended"] == true).then_some(()))?;
    ensure!(scene.verb("signature list")?.contains("ended"));
    ensure!(scene.passes("flood 2")? && scene.hits("short")? == 1);
    wait_for("the gauge to follow", || {
        (metric(&scene.topology.server, &scene.place, "floodwall_signatures", &[]).ok()? < 0.5).then_some(())
    })?;
    scene.verb("signature add other --proto udp --dst-port 9 --action drop")?;
    ensure!(scene.of("short").is_err(), "gone");
    scene.verb(&format!("signature add short {FLOOD} --action drop"))?;
    ensure!(scene.hits("short")? == 0, "a new one begins anew");
    ensure!(!scene.passes("flood 3")?);
    Ok(())
}

#[test]
fn signatures_outlive_the_daemon_and_can_be_changed_without_it() -> Result<()> {
    let mut scene = Scene::new()?;
    scene.verb(&format!("signature add kept {FLOOD} --action drop --reason why"))?;
    ensure!(!scene.passes("flood 1")?);
    scene.daemon.take().context("a daemon")?.kill()?;
    ensure!(!scene.passes("flood 2")? && scene.hits("kept")? == 2, "read from the pinned maps");
    scene.verb(&format!("signature add offline {FLOOD} --action count"))?;
    scene.verb("signature add second --proto tcp --flags syn,!ack --options mss,sack,ts,nop,ws --action drop")?;
    ensure!(!scene.passes("flood 3")? && scene.hits("offline")? == 1 && scene.hits("kept")? == 3);
    scene.verb("signature remove second kept")?;
    ensure!(scene.passes("flood 4")?);
    scene.refused("signature remove kept")?;
    scene.verb(&format!("signature add again {FLOOD} --action drop --ttl 1h"))?;
    scene.daemon = Some(Daemon::start(&scene.topology.server, &scene.place, &["--interface", PROTECTED])?);
    ensure!(!scene.passes("flood 5")?, "adopted");
    let again = scene.of("again")?;
    ensure!(again["ttl_s"].as_u64().is_some_and(|left| left > 3_000) && again["packets"] == 1, "{again}");
    ensure!(scene.hits("offline")? == 3);
    Ok(())
}

#[test]
fn what_means_nothing_or_too_much_is_refused_and_changes_nothing() -> Result<()> {
    let scene = Scene::new()?;
    scene.verb("signature add one --proto udp --src-port 53 --action drop")?;
    for (words, said) in [
        ("signature add x --action drop", "every packet"),
        ("signature add x --length 0-65535 --action drop", "every packet"),
        ("signature add x --proto udp --action drop", "--force"),
        ("signature add one --proto udp --src-port 54 --action drop", "already"),
        ("signature add x --proto icmp --src-port 53 --action drop", "ports"),
        ("signature add x --proto udp --flags syn --action drop", "only TCP"),
        ("signature add x --fragment later --dst-port 53 --action drop", "later fragments"),
        ("signature add x --proto udp --dst-port 70000 --action drop", "65535"),
        ("signature add x --payload 00 --action drop", "@"),
        ("signature add a/b --dst-port 53 --action drop", "no name"),
        ("signature add x --dst-port 53", "--action"),
        ("signature add x --dst-port 53 --action pass", "count"),
        ("signature add x --dst-port 53 --action drop --ttl 5", "duration"),
        ("signature remove one two", "no signature 'two'"),
    ] {
        let error = scene.refused(words)?;
        ensure!(error.contains(said), "{words}: {error}");
    }
    ensure!(scene.list()?["signatures"].as_array().map(Vec::len) == Some(1));
    scene.verb("signature add all-of-a-protocol --proto 47 --force --action drop")?;
    scene.verb("signature remove one all-of-a-protocol")?;
    ensure!(scene.verb("signature list")? == "there are no signatures\n");

    // All that there may be in one request, but not one more.
    let post = |count: usize| -> Result<String> {
        let port = |number: usize| json!({"destination_ports": (number + 1).to_string()});
        let one = |number: usize| json!({"name": format!("s{number}"), "action": "count", "fields": port(number)});
        let body = json!({"add": (0..count).map(one).collect::<Vec<_>>()}).to_string();
        let head =
            "POST /api/v1/signatures HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\nconnection: close\r\n";
        let request = format!("{head}content-length: {}\r\n\r\n{body}", body.len());
        send_unix(&scene.place.socket(), request.as_bytes())
    };
    let answer = post(SIGNATURES + 1)?;
    ensure!(answer.starts_with("HTTP/1.1 400") && answer.contains("257 signatures"), "{answer}");
    ensure!(scene.verb("signature list")? == "there are no signatures\n", "nothing of it");
    let answer = post(SIGNATURES)?;
    ensure!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    let error = scene.refused("signature add one-more --dst-port 7 --action drop")?;
    ensure!(error.contains("257 signatures") && error.contains("signature remove"), "{error}");
    ensure!(scene.passes("flood")?, "they count ports up to 256 only");
    Ok(())
}

/// Of two sets each drops all that is sent, by different fields: whoever sees half of a change lets something pass.
#[test]
fn a_change_is_whole_under_traffic() -> Result<()> {
    const CHANGES: u32 = 60;
    const BATCH: u32 = 50_000;
    let mut kernel = Kernel::load(Time::Ticks)?;
    kernel.dataplane.set_mode(Mode::Enforce)?;
    kernel.set_limit(LimitName::Udp, Rate::Off, Rate::Off)?;
    let frame = udp_v4([198, 51, 100, 7].into(), 18);
    let range = |number| Range { first: number, last: number };
    let by_port = Shape { destination_ports: range(53), ..Shape::ANY };
    let by_length = Shape { lengths: range(46), hops: range(64), ..Shape::ANY };
    let other = Shape { source_ports: range(1), ..Shape::ANY };
    // The one that drops has another number, and another word, in each set.
    let mut first: Vec<_> = (0..100).map(|n| signature(&format!("other{n}"), other, Action::Drop, None)).collect();
    first.push(signature("port", by_port, Action::Drop, None));
    let second = vec![signature("length", by_length, Action::Drop, None)];
    kernel.replace_signatures(&first)?;
    let program = kernel.program(Variant::Linear).try_clone()?;
    let stop = AtomicBool::new(false);
    let deadline = Instant::now() + Duration::from_secs(60);
    let sent = thread::scope(|scope| {
        let sender = scope.spawn(|| -> Result<u64> {
            pin_to_cpu(1)?;
            let mut sent = 0;
            while !stop.load(Ordering::Relaxed) {
                test_run(&program, TestRun { frame: &frame, repeat: BATCH, live: None, ifindex: 0 })?;
                sent += u64::from(BATCH);
            }
            Ok(sent)
        });
        let changes = (|| -> Result<()> {
            pin_to_cpu(0)?;
            for change in 0..CHANGES {
                kernel.replace_signatures(if change % 2 == 0 { &second } else { &first })?;
                ensure!(Instant::now() < deadline, "{change} changes took a minute");
            }
            Ok(())
        })();
        stop.store(true, Ordering::Relaxed);
        let sent = sender.join().map_err(|_| anyhow!("the sender failed"));
        changes?;
        sent?
    })?;
    let counted = kernel.counted();
    println!("{sent} packets during {CHANGES} changes");
    ensure!(sent > 2 * u64::from(BATCH), "{sent} packets");
    ensure!((counted.of(Reason::Signature), counted.packets()) == (sent, sent), "{:?}", counted.cells());
    Ok(())
}

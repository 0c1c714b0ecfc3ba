//! Replies over a real link: this host's own clients get their answers while replies to nothing are dropped, however what
//! is sent is seen. `traffic_control.rs` has what belongs to one way of seeing it.

use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use floodwall_tests::daemon::{Daemon, Place, floodwall, floodwall_ok, packets, run_verb, status, wait_for};
use floodwall_tests::topology::{PROTECTED, Topology};

const WORLD: Ipv4Addr = Ipv4Addr::new(10, 66, 1, 1);
const SERVER: Ipv4Addr = Ipv4Addr::new(10, 66, 0, 1);
const DNS: u16 = 53;
const HOOKS: [&str; 2] = ["tcx", "clsact"];
const PATIENCE: Duration = Duration::from_secs(5);

struct Scene {
    topology: Topology,
    place: Place,
    _daemon: Daemon,
}

impl Scene {
    fn new() -> Result<Self> {
        Self::with_hook("tcx")
    }

    /// Where the kernel has no TCX, it is a clsact qdisc in any case.
    fn with_hook(hook: &str) -> Result<Self> {
        let (topology, place) = (Topology::new(1)?, Place::new()?);
        let arguments = ["--interface", PROTECTED, "--mode", "enforce", "--egress-hook", hook];
        let daemon = Daemon::start(&topology.server, &place, &arguments)?;
        Ok(Self { topology, place, _daemon: daemon })
    }

    fn verb(&self, words: &str) -> Result<String> {
        run_verb(&self.topology.server, &self.place, words)
    }

    fn unsolicited(&self) -> Result<u64> {
        Ok(packets(&status(&self.topology.server, &self.place)?, "drop", "unsolicited-reply"))
    }
}

#[test]
fn what_was_asked_is_answered_and_what_was_not_is_dropped() -> Result<()> {
    HOOKS.into_iter().try_for_each(|hook| asks_and_is_answered(&Scene::with_hook(hook)?))
}

/// A UDP socket of the world's on the port of DNS, that answers what it is asked, and one of the server's that asks.
fn asks_and_is_answered(scene: &Scene) -> Result<()> {
    scene.verb("policy set unsolicited-reply drop")?;
    let resolver = scene.topology.world.run(|| UdpSocket::bind((WORLD, DNS)))??;
    let client = scene.topology.server.run(|| UdpSocket::bind((SERVER, 0)))??;
    for socket in [&resolver, &client] {
        socket.set_read_timeout(Some(PATIENCE))?;
    }
    let asked = client.local_addr()?;
    let mut bytes = [0; 64];

    // Nobody has asked yet.
    resolver.send_to(b"spoofed", asked)?;
    wait_for("the reply to nothing to be dropped", || (scene.unsolicited().ok()? == 1).then_some(()))?;

    client.send_to(b"question", (WORLD, DNS))?;
    let (length, from) = resolver.recv_from(&mut bytes)?;
    ensure!(&bytes[..length] == b"question");
    resolver.send_to(b"answer", from)?;
    let (length, _) = client.recv_from(&mut bytes).context("the answer")?;
    ensure!(&bytes[..length] == b"answer", "not even what was dropped before");

    // To another port of the server's: that one has asked nothing.
    resolver.send_to(b"spoofed", SocketAddr::from((SERVER, asked.port() ^ 1)))?;
    wait_for("the second to be dropped", || (scene.unsolicited().ok()? == 2).then_some(()))?;

    scene.verb("policy set unsolicited-reply pass")?;
    client.set_nonblocking(false)?;
    let other = scene.topology.server.run(|| UdpSocket::bind((SERVER, 0)))??;
    other.set_read_timeout(Some(PATIENCE))?;
    resolver.send_to(b"unasked", other.local_addr()?)?;
    other.recv_from(&mut bytes).context("disarmed, all pass")?;
    Ok(())
}

#[test]
fn connections_of_this_host_are_made_and_refused_as_ever() -> Result<()> {
    let scene = Scene::new()?;
    scene.verb("policy set unsolicited-reply drop")?;
    let listener = scene.topology.world.run(|| TcpListener::bind((WORLD, 443)))??;
    let connect = |port: u16| {
        let address = SocketAddr::from((WORLD, port));
        scene.topology.server.run(move || TcpStream::connect_timeout(&address, PATIENCE))
    };
    let stream = connect(443)?.context("a SYN-ACK to a SYN of ours")?;
    drop((listener.accept()?, stream));
    let refused = connect(444)?.err().context("nobody listens there")?;
    ensure!(refused.kind() == std::io::ErrorKind::ConnectionRefused, "the RST came through: {refused}");
    ensure!(scene.unsolicited()? == 0);
    Ok(())
}

#[test]
fn it_outlives_the_daemon_and_goes_with_detach() -> Result<()> {
    HOOKS.into_iter().try_for_each(|hook| outlives_the_daemon(Scene::with_hook(hook)?, hook))
}

fn outlives_the_daemon(scene: Scene, hook: &str) -> Result<()> {
    let Scene { topology, place, _daemon: daemon } = scene;
    floodwall_ok(&topology.server, &place, &["policy", "set", "unsolicited-reply", "drop"])?;
    daemon.kill()?;
    let client = topology.server.run(|| UdpSocket::bind((SERVER, 0)))??;
    let resolver = topology.world.run(|| UdpSocket::bind((WORLD, DNS)))??;
    client.set_read_timeout(Some(PATIENCE))?;
    client.send_to(b"question", (WORLD, DNS))?;
    resolver.send_to(b"answer", client.local_addr()?)?;
    client.recv_from(&mut [0; 64]).context("remembered without a daemon")?;
    let daemon = Daemon::start(&topology.server, &place, &["--interface", PROTECTED, "--egress-hook", hook])?;
    let view = status(&topology.server, &place)?;
    ensure!(view["interfaces"][0]["remembers_sent"] == true, "adopted: {view}");
    let policies = floodwall_ok(&topology.server, &place, &["policy", "show", "--json"])?;
    ensure!(policies.contains("\"unsolicited-reply\",\n      \"verdict\": \"drop\""), "armed still: {policies}");
    floodwall_ok(&topology.server, &place, &["detach"])?;
    drop(daemon);
    let links = std::fs::read_dir(place.bpffs().join("floodwall")).map(Iterator::count).unwrap_or(0);
    ensure!(links <= 1, "{links} directories");
    Ok(())
}

#[test]
fn amplifiers_are_listed_and_changed() -> Result<()> {
    let scene = Scene::new()?;
    ensure!(scene.verb("amplifiers list")?.contains("11211  memcached"));
    ensure!(!scene.verb("amplifiers remove 53 123")?.contains(" dns"));
    ensure!(scene.verb("amplifiers add 3074")?.contains("3074"));
    let reset = scene.verb("amplifiers reset")?;
    ensure!(reset.contains(" dns") && !reset.contains("3074"));
    let wrong = floodwall(&scene.topology.server, &scene.place, &["amplifiers", "add", "70000"])?;
    ensure!(wrong.status.code() == Some(2), "{wrong:?}");
    Ok(())
}

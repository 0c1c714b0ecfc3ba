//! Services, their caps, lockdown and first SYNs: over a real link with real connections, and by test runs where the time
//! matters.

use std::collections::BTreeSet;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use floodwall::dataplane::Service;
use floodwall_common::config::Mode;
use floodwall_common::limits::{LimitName, Rate};
use floodwall_common::reason::{Reason, Verdict};
use floodwall_common::services::{Order, Transport};
use floodwall_tests::daemon::{Daemon, Place, floodwall, floodwall_ok, metric, packets, run_verb, status, wait_for};
use floodwall_tests::frames::{classes_v4, udp_v4};
use floodwall_tests::kernel::{Kernel, Time, Variant};
use floodwall_tests::topology::{PROTECTED, Topology};

const WORLD: Ipv4Addr = Ipv4Addr::new(10, 66, 1, 1);
const SERVER: Ipv4Addr = Ipv4Addr::new(10, 66, 0, 1);
const PATIENCE: Duration = Duration::from_secs(5);
const SECOND: u64 = 1_000_000_000;
const VERIFIED: Order = Order::VerifiedFirst;
const NOON: u64 = 12 * 3_600 * SECOND;

struct Scene {
    topology: Topology,
    place: Place,
    daemon: Daemon,
}

impl Scene {
    fn new() -> Result<Self> {
        let (topology, place) = (Topology::new(1)?, Place::new()?);
        let daemon = Daemon::start(&topology.server, &place, &["--interface", PROTECTED, "--mode", "enforce"])?;
        Ok(Self { topology, place, daemon })
    }

    fn verb(&self, words: &str) -> Result<String> {
        run_verb(&self.topology.server, &self.place, words)
    }

    fn refused(&self, words: &str) -> Result<String> {
        let output = floodwall(&self.topology.server, &self.place, &words.split(' ').collect::<Vec<_>>())?;
        ensure!(output.status.code() == Some(2), "{words}: {output:?}");
        Ok(String::from_utf8_lossy(&output.stderr).into_owned())
    }

    fn dropped(&self, reason: &str) -> Result<u64> {
        Ok(packets(&status(&self.topology.server, &self.place)?, "drop", reason))
    }

    fn listen(&self, port: u16) -> Result<TcpListener> {
        Ok(self.topology.server.run(move || TcpListener::bind((SERVER, port)))??)
    }

    fn connect(&self, port: u16, patience: Duration) -> Result<std::io::Result<TcpStream>> {
        let address = SocketAddr::from((SERVER, port));
        self.topology.world.run(move || TcpStream::connect_timeout(&address, patience))
    }

    /// A connection on which the server has sent something, so that its client is verified.
    fn converse(&self, listener: &TcpListener) -> Result<()> {
        use std::io::{Read as _, Write as _};
        let mut client = self.connect(listener.local_addr()?.port(), PATIENCE)??;
        let (mut server, _) = listener.accept()?;
        server.write_all(b"welcome")?;
        client.set_read_timeout(Some(PATIENCE))?;
        client.read_exact(&mut [0; 7]).context("what the server sends")
    }
}

#[test]
fn services_are_named_listed_and_kept() -> Result<()> {
    let scene = Scene::new()?;
    ensure!(scene.verb("service list")?.contains("no service"));
    let listed = scene.verb("service add web --port 443 --port 8000-8010 --proto tcp --proto udp --cap-pps 5000")?;
    for part in ["web", "5000", "2500", "tcp/443", "tcp/8000-8010", "udp/8000-8010"] {
        ensure!(listed.contains(part), "{part} in {listed}");
    }
    scene.verb("service add ssh --port 22")?;
    ensure!(scene.refused("service add other --port 8005")?.contains("tcp/8005 would be of both 'web' and 'other'"));
    ensure!(scene.refused("service add bad/name --port 1")?.contains("no name for a service"));
    ensure!(scene.refused("service add x --port 10-9")?.contains("tcp/10-9"));
    ensure!(scene.refused("service add x --port 0")?.contains("tcp/0"));
    ensure!(scene.refused("service add x --port 1 --cap-pps 2000000")?.contains("out of range"));
    ensure!(scene.refused("service remove nobody")?.contains("no service 'nobody' (have: web, ssh)"));
    let many: Vec<String> = (0..32).map(|n| format!("s{n}")).collect();
    for name in &many[..29] {
        scene.verb(&format!(
            "service add {name} --port {}",
            100 + name.len() as u16 * 1_000 + name[1..].parse::<u16>()?
        ))?;
    }
    let full = floodwall(&scene.topology.server, &scene.place, &["service", "add", "one-more", "--port", "9"])?;
    ensure!(full.status.code() == Some(3), "{full:?}");
    ensure!(!scene.verb("service list")?.contains("one-more"));

    // Kept without a daemon, and changed there.
    let Scene { topology, place, daemon } = scene;
    daemon.kill()?;
    let listed = floodwall_ok(&topology.server, &place, &["service", "remove", "ssh"])?;
    ensure!(listed.contains("web") && !listed.contains("ssh"));
    let cap = metric(&topology.server, &place, "floodwall_service_cap_packets_per_second", &["service=\"web\""])?;
    ensure!(cap == 5_000.0, "{cap}");
    Ok(())
}

#[test]
fn locked_down_services_are_reached_and_nothing_else() -> Result<()> {
    let scene = Scene::new()?;
    ensure!(scene.refused("lockdown on")?.contains("no service is named"));
    let (web, admin) = (scene.listen(443)?, scene.listen(22)?);
    scene.verb("service add web --port 443")?;
    // A session that is there goes on.
    scene.verb("lockdown on")?;
    scene.connect(443, PATIENCE)?.context("a service")?;
    let refused = scene.connect(22, Duration::from_millis(300))?.err().context("no service")?;
    ensure!(refused.kind() == std::io::ErrorKind::TimedOut, "{refused}");
    ensure!(scene.dropped("no-service")? > 0);
    // What this host asks is answered, what it has not is not.
    let client = scene.topology.server.run(|| UdpSocket::bind((SERVER, 0)))??;
    let peer = scene.topology.world.run(|| UdpSocket::bind((WORLD, 9_999)))??;
    client.set_read_timeout(Some(PATIENCE))?;
    let dropped = scene.dropped("no-service")?;
    peer.send_to(b"unasked", client.local_addr()?)?;
    wait_for("that to be dropped", || (scene.dropped("no-service").ok()? > dropped).then_some(()))?;
    client.send_to(b"question", (WORLD, 9_999))?;
    peer.send_to(b"answer", client.local_addr()?)?;
    let mut bytes = [0; 16];
    let (length, _) = client.recv_from(&mut bytes)?;
    ensure!(&bytes[..length] == b"answer");

    // All that listens, at once.
    let listed = scene.verb("service add --listen")?;
    ensure!(listed.contains("tcp-22") && !listed.contains("tcp-443"), "what has a name keeps it: {listed}");
    scene.verb("lockdown off")?;
    scene.connect(22, PATIENCE)?.context("unlocked")?;
    drop((web, admin));
    Ok(())
}

#[test]
fn who_completes_a_handshake_is_verified_and_nobody_else() -> Result<()> {
    let scene = Scene::new()?;
    let listener = scene.listen(443)?;
    let is_verified = |scene: &Scene| -> Result<bool> {
        Ok(scene.verb(&format!("explain {WORLD} --json"))?.contains("\"verified\": true"))
    };
    let stranger = scene.topology.world.run(|| UdpSocket::bind((WORLD, 0)))??;
    stranger.send_to(b"hello", (SERVER, 443))?;
    let _ = scene.connect(444, PATIENCE)?;
    ensure!(!is_verified(&scene)?, "a refused connection and a datagram show nothing");
    scene.converse(&listener)?;
    ensure!(is_verified(&scene)?);

    // Its first SYN passes where those of strangers do not.
    scene.verb("policy set first-syn drop")?;
    scene.connect(443, Duration::from_millis(500))?.context("a verified source")?;
    ensure!(scene.dropped("first-syn")? == 0);
    Ok(())
}

#[test]
fn a_stranger_connects_with_his_second_syn() -> Result<()> {
    let scene = Scene::new()?;
    let _listener = scene.listen(443)?;
    scene.verb("policy set first-syn drop")?;
    scene.connect(443, PATIENCE)?.context("the kernel sends its SYN again after a second")?;
    ensure!(scene.dropped("first-syn")? == 1);
    Ok(())
}

/// The filter, armed by hand, in the test's time.
struct Bench {
    kernel: Kernel,
    now: u64,
}

impl Bench {
    fn new() -> Result<Self> {
        let mut kernel = Kernel::load(Time::Test)?;
        kernel.dataplane.set_mode(Mode::Enforce)?;
        kernel.set_time(NOON)?;
        for name in [LimitName::Udp, LimitName::Tcp, LimitName::TcpSyn] {
            kernel.set_limit(name, Rate::Off, Rate::Off)?;
        }
        Ok(Self { kernel, now: NOON })
    }

    fn wait(&mut self, ns: u64) -> Result<()> {
        self.now += ns;
        self.kernel.set_time(self.now)
    }

    fn passes(&self, frame: &[u8]) -> Result<bool> {
        Ok(self.kernel.judge(Variant::Linear, frame)? == Verdict::Pass)
    }
}

/// A frame that the server sends to who sent this one, with data.
fn answer(frame: &[u8]) -> Vec<u8> {
    let mut answer = frame.to_vec();
    answer[26..34].rotate_left(4);
    answer[34..38].rotate_left(2);
    answer.extend([0; 8]);
    answer
}

#[test]
fn over_its_cap_a_service_is_there_for_who_is_verified() -> Result<()> {
    let mut bench = Bench::new()?;
    let strangers: Vec<_> = (0..200).map(|n| udp_v4([198, 51, 100, n].into(), 0)).collect();
    let customer = &classes_v4([203, 0, 113, 1].into())[1];
    let ports = |frame: &[u8]| u16::from_be_bytes([frame[36], frame[37]]);
    let service = Service {
        cap: Rate::Limit { per_second: 1_000, burst: 400 },
        ..Service::uncapped("web", vec![(Transport::Udp, ports(&strangers[0])), (Transport::Tcp, ports(customer))])
    };
    bench.kernel.dataplane.set_services(std::slice::from_ref(&service), None)?;
    bench.kernel.send(&answer(customer))?;
    // Ten seconds of a flood of 20,000 a second, and a customer of 100 a second.
    let (mut flood, mut lost) = (0, 0);
    for _ in 0..1_000 {
        bench.wait(SECOND / 100)?;
        for stranger in &strangers {
            flood += u64::from(bench.passes(stranger)?);
        }
        lost += u64::from(!bench.passes(customer)?);
    }
    println!("{flood} of the flood's 200,000 passed, the customer lost {lost} of 1,000");
    ensure!(lost == 0);
    ensure!((8_800..=9_500).contains(&flood), "{flood} of the 9,000 and a burst that the cap leaves");
    ensure!(bench.kernel.counted().of(Reason::ServiceCap) == 200_000 - flood);

    // Without the cap nothing is asked.
    let off = Service { cap: Rate::Off, ..service };
    bench.kernel.dataplane.set_services(&[off], None)?;
    for stranger in &strangers {
        ensure!(bench.passes(stranger)?);
    }
    Ok(())
}

/// While nobody knows whether it is a flood: a bot that was served once does not stand in the way of those who were not, and who was here
/// before does not wait at all.
#[test]
fn who_has_been_served_since_an_overload_began_comes_last() -> Result<()> {
    let mut bench = Bench::new()?;
    let frames = |net: [u8; 3], count: u8| (0..count).map(move |n| classes_v4([net[0], net[1], net[2], n].into()));
    let bots: Vec<_> = frames([198, 51, 100], 200).collect();
    let (known, new) = (classes_v4([203, 0, 113, 1].into()), frames([100, 64, 1], 20).collect::<Vec<_>>());
    let port = u16::from_be_bytes([known[0][36], known[0][37]]);
    bench.kernel.send(&answer(&known[1]))?;
    let before = bench.kernel.dataplane.verified()?;
    bench.kernel.dataplane.set_known(&before)?;
    for bot in &bots {
        bench.kernel.send(&answer(&bot[1]))?;
    }
    for (order, is_kept) in [(Order::KnownFirst, true), (VERIFIED, false)] {
        let per_second = Rate::Limit { per_second: 1_000, burst: 250 };
        ensure!(bench.kernel.dataplane.shed(port, per_second, order)?);
        let (mut of_bots, mut lost_new, mut lost_known) = (0, 0, 0);
        for round in 0..1_000 {
            bench.wait(SECOND / 100)?;
            for bot in &bots {
                of_bots += u64::from(bench.passes(&bot[0])?);
            }
            lost_new += u64::from(!bench.passes(&new[round % new.len()][0])?);
            lost_known += u64::from(!bench.passes(&known[0])?);
        }
        println!(
            "{order:?}: {of_bots} of bots' 200,000 SYNs passed, {lost_new} of 1,000 new and {lost_known} of 1,000 known lost"
        );
        if is_kept {
            ensure!((lost_new, lost_known) == (0, 0));
            ensure!((7_700..=8_300).contains(&of_bots), "{of_bots} of the 8,000 and a burst that are left");
        } else {
            ensure!(lost_new > 900, "bots take all of it: {lost_new}");
        }
    }
    Ok(())
}

/// Where a service takes no more connections: who was here before begins some first, and what is begun goes on.
#[test]
fn of_new_connections_too_many_are_refused_and_who_was_here_before_comes_first() -> Result<()> {
    let mut bench = Bench::new()?;
    let strangers: Vec<_> = (0..200).map(|n| classes_v4([198, 51, 100, n].into())).collect();
    let customer = classes_v4([203, 0, 113, 1].into());
    let port = u16::from_be_bytes([customer[0][36], customer[0][37]]);
    bench.kernel.send(&answer(&customer[1]))?;
    for is_operators in [false, true] {
        let per_second = Rate::Limit { per_second: 1_000, burst: 1_000 };
        let before = bench.kernel.counted().of(Reason::ConnectionCap);
        match is_operators {
            false => ensure!(bench.kernel.dataplane.shed(port, per_second, VERIFIED)?),
            true => {
                let web = Service::uncapped("web", vec![(Transport::Tcp, port)]);
                let web = Service { connections: per_second, ..web };
                bench.kernel.dataplane.set_services(&[web], None)?;
                ensure!(!bench.kernel.dataplane.shed(port, per_second, VERIFIED)?, "it is the operator's");
            }
        }
        let (mut begun, mut lost) = (0, 0);
        for _ in 0..1_000 {
            bench.wait(SECOND / 100)?;
            for stranger in &strangers {
                begun += u64::from(bench.passes(&stranger[0])?);
            }
            lost += u64::from(!bench.passes(&customer[0])?);
        }
        println!("{begun} of the crowd's 200,000 SYNs passed, the customer lost {lost} of 1,000");
        ensure!(lost == 0);
        ensure!((8_800..=9_700).contains(&begun), "{begun} of the 9,000 and a burst that the cap leaves");
        ensure!(bench.kernel.counted().of(Reason::ConnectionCap) - before == 200_000 - begun);
        ensure!(bench.passes(&strangers[7][1])? && bench.passes(&strangers[7][2])?, "all but SYNs is not asked");
    }
    // What is shed ends, and its service with it.
    bench.kernel.dataplane.set_services(&[], None)?;
    let ten = Rate::Limit { per_second: 10, burst: 10 };
    ensure!(
        bench.kernel.dataplane.shed(port, ten, VERIFIED)?
            && bench.kernel.dataplane.shed_on(port)? == Some((ten, VERIFIED))
    );
    ensure!(bench.kernel.dataplane.services()?.len() == 1);
    ensure!(bench.kernel.dataplane.shed(port, Rate::Off, VERIFIED)? && bench.kernel.dataplane.shed_on(port)?.is_none());
    ensure!(bench.kernel.dataplane.services()?.is_empty());
    for stranger in &strangers {
        ensure!(bench.passes(&stranger[0])?);
    }
    // Of a service that somebody has named it ends, and the service stays.
    let web = Service::uncapped("web", vec![(Transport::Tcp, port)]);
    bench.kernel.dataplane.set_services(std::slice::from_ref(&web), None)?;
    ensure!(bench.kernel.dataplane.shed(port, ten, VERIFIED)?);
    ensure!(bench.kernel.dataplane.services()? == [Service { shed: ten, ..web.clone() }]);
    ensure!(bench.kernel.dataplane.shed(port, Rate::Off, VERIFIED)? && bench.kernel.dataplane.services()? == [web]);
    // Locked down, no port is opened by it.
    bench.kernel.dataplane.set_policy(Reason::NoService, Verdict::Drop)?;
    ensure!(!bench.kernel.dataplane.shed(port + 1, ten, VERIFIED)?);
    Ok(())
}

#[test]
fn a_first_syn_passes_when_it_comes_again() -> Result<()> {
    let mut bench = Bench::new()?;
    bench.kernel.dataplane.set_policy(Reason::FirstSyn, Verdict::Drop)?;
    let syn = &classes_v4([203, 0, 113, 9].into())[0];
    ensure!(!bench.passes(syn)? && !bench.passes(syn)?, "and again at once");
    bench.wait(SECOND)?;
    ensure!(bench.passes(syn)?);
    bench.wait(20 * SECOND)?;
    ensure!(!bench.passes(syn)?, "another connection");
    // Verified by what is sent to it.
    bench.kernel.send(&answer(syn))?;
    ensure!(!bench.passes(syn)?, "not by a SYN-ACK");
    bench.kernel.send(&answer(&classes_v4([203, 0, 113, 9].into())[1]))?;
    ensure!(bench.passes(syn)?);
    ensure!(bench.kernel.counted().of(Reason::FirstSyn) == 4);
    Ok(())
}

/// Of UDP only: what listens is let through, all else that is not UDP too, and whoever takes the service away ends it.
#[test]
fn a_lockdown_of_udp_is_of_nothing_else_and_ends_with_its_service() -> Result<()> {
    let mut bench = Bench::new()?;
    let [syn, tcp, datagram, icmp, ..] = classes_v4([203, 0, 113, 9].into());
    let port = u16::from_be_bytes([datagram[36], datagram[37]]);
    let locks = |bench: &Bench| -> Result<(bool, bool)> {
        let others = [&syn, &tcp, &icmp].iter().map(|frame| bench.passes(frame)).collect::<Result<Vec<_>>>()?;
        Ok((!bench.passes(&datagram)?, others.contains(&false)))
    };
    ensure!(locks(&bench)? == (false, false));
    ensure!(bench.kernel.dataplane.lock_udp(&BTreeSet::new())?);
    ensure!(locks(&bench)? == (true, false), "{:?}", locks(&bench)?);
    ensure!(bench.kernel.dataplane.lock_udp(&BTreeSet::from([port]))?);
    ensure!(locks(&bench)? == (false, false), "somebody listens now");
    ensure!(bench.kernel.dataplane.lock_udp(&BTreeSet::new())?);
    // Whoever removes its service ends it, and never has all the rest locked down.
    bench.kernel.dataplane.set_services(&[], None)?;
    ensure!(locks(&bench)? == (false, false));
    ensure!(!bench.kernel.dataplane.config()?.drops.has(Reason::NoService));
    // Whoever locks down himself means all of it, and that is not touched.
    ensure!(bench.kernel.dataplane.lock_udp(&BTreeSet::new())?);
    bench.kernel.dataplane.set_policy(Reason::NoService, Verdict::Drop)?;
    ensure!(locks(&bench)? == (true, true));
    ensure!(!bench.kernel.dataplane.lock_udp(&BTreeSet::new())?, "it is the operator's");
    bench.kernel.dataplane.unlock_udp()?;
    ensure!(locks(&bench)? == (true, true));
    Ok(())
}

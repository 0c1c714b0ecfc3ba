//! SYN cookies with a real listener: connections are made by them with all their options, forged SYNs leave nothing behind,
//! and what the stack is not set up for is refused.

use std::io::{Read as _, Write as _};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsRawFd as _;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use floodwall_tests::daemon::{Daemon, Place, floodwall, metric, packets, run_verb, status, wait_for};
use floodwall_tests::pins::{Foreign, attach_world_end};
use floodwall_tests::topology::{PROTECTED, Topology, WORLD};

const SERVER_V4: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 66, 0, 1));
const SERVER_V6: IpAddr = IpAddr::V6(Ipv6Addr::new(0xfd66, 0, 0, 0, 0, 0, 0, 1));
const PORT: u16 = 443;
const PATIENCE: Duration = Duration::from_secs(5);

/// In `tcp_info.tcpi_options`.
const TIMESTAMPS: u8 = 1;
const SACK: u8 = 2;
const WINDOW_SCALE: u8 = 4;

struct Scene {
    topology: Topology,
    place: Place,
    _daemon: Daemon,
    _peer: Foreign,
}

impl Scene {
    /// With the stack's settings for cookies and for timestamps.
    fn new(syncookies: u32, timestamps: u32) -> Result<Self> {
        let (topology, place) = (Topology::new(1)?, Place::new()?);
        topology.server.set_sysctl("ipv4/tcp_syncookies", syncookies)?;
        topology.server.set_sysctl("ipv4/tcp_timestamps", timestamps)?;
        let daemon = Daemon::start(&topology.server, &place, &["--interface", PROTECTED, "--mode", "enforce"])?;
        let peer = attach_world_end(&topology.world, WORLD)?;
        Ok(Self { topology, place, _daemon: daemon, _peer: peer })
    }

    fn verb(&self, words: &str) -> Result<String> {
        run_verb(&self.topology.server, &self.place, words)
    }

    /// How many SYNs were answered here, once the filter has counted nothing more.
    fn answered(&self) -> Result<u64> {
        Ok(packets(&self.topology.settled(&self.place)?.0, "answer", "syn-cookie"))
    }

    /// A connection on which a megabyte goes each way; the options that it has.
    fn converse(&self, server: IpAddr) -> Result<u8> {
        let address = SocketAddr::from((server, PORT));
        let listener = self.topology.server.run(move || TcpListener::bind(address))??;
        let mut client = self.topology.world.run(move || TcpStream::connect_timeout(&address, PATIENCE))??;
        let (mut accepted, _) = listener.accept()?;
        for stream in [&client, &accepted] {
            stream.set_read_timeout(Some(PATIENCE))?;
            stream.set_write_timeout(Some(PATIENCE))?;
        }
        let data: Vec<u8> = (0..1 << 20).map(|n| (n * 7) as u8).collect();
        let sent = data.clone();
        let echo = std::thread::spawn(move || -> std::io::Result<TcpStream> {
            let mut bytes = vec![0; 1 << 20];
            accepted.read_exact(&mut bytes)?;
            accepted.write_all(&bytes)?;
            Ok(accepted)
        });
        let mut writer = client.try_clone()?;
        let write = std::thread::spawn(move || writer.write_all(&sent));
        let mut bytes = vec![0; 1 << 20];
        client.read_exact(&mut bytes).context("a megabyte comes back")?;
        ensure!(bytes == data);
        write.join().ok().context("the writer")??;
        let accepted = echo.join().ok().context("the server")??;
        options(&accepted)
    }
}

/// What a connection has agreed on.
fn options(stream: &TcpStream) -> Result<u8> {
    let mut info = [0u8; 104];
    let mut length = info.len() as libc::socklen_t;
    // SAFETY: a buffer of this length, and its length.
    let result = unsafe {
        libc::getsockopt(
            stream.as_raw_fd(),
            libc::IPPROTO_TCP,
            libc::TCP_INFO,
            info.as_mut_ptr().cast(),
            &raw mut length,
        )
    };
    ensure!(result == 0, std::io::Error::last_os_error());
    Ok(info[5])
}

#[test]
fn connections_are_made_by_cookies_in_both_families() -> Result<()> {
    let scene = Scene::new(2, 2)?;
    scene.verb("cookies always")?;
    for (count, server) in [SERVER_V4, SERVER_V6].into_iter().enumerate() {
        let agreed = scene.converse(server)?;
        ensure!(scene.answered()? == count as u64 + 1, "{server} was answered by the stack");
        ensure!(
            agreed & (TIMESTAMPS | SACK | WINDOW_SCALE) == TIMESTAMPS | SACK | WINDOW_SCALE,
            "{server}: {agreed:#x}"
        );
    }
    scene.verb("cookies off")?;
    scene.converse(SERVER_V4)?;
    ensure!(scene.answered()? == 2, "off is off");
    Ok(())
}

/// Beside a flood of forged SYNs it is seen who begins connections.
#[test]
fn syns_of_who_is_verified_are_samples_of_their_own() -> Result<()> {
    let scene = Scene::new(2, 2)?;
    scene.verb("cookies always")?;
    let opened = || metric(&scene.topology.server, &scene.place, "floodwall_stream_packets_total", &["open"]);
    for server in [SERVER_V4, SERVER_V6] {
        let before = opened()?;
        scene.converse(server)?;
        let answered = scene.answered()?;
        ensure!(opened()? == before, "{server}: nobody is verified by a SYN, nor before");
        scene.converse(server)?;
        ensure!(scene.answered()? == answered + 1, "a cookie for each");
        ensure!(opened()? == before + 1.0, "{server}: who has been here before");
    }
    Ok(())
}

#[test]
fn without_timestamps_to_carry_them_options_are_lost_and_connections_are_not() -> Result<()> {
    let scene = Scene::new(2, 1)?;
    ensure!(scene.verb("cookies always")?.contains("without window scale"));
    for server in [SERVER_V4, SERVER_V6] {
        ensure!(scene.converse(server)? & WINDOW_SCALE == 0);
    }
    ensure!(scene.answered()? == 2);
    Ok(())
}

#[test]
fn in_monitor_mode_and_without_a_listener_the_stack_answers() -> Result<()> {
    let scene = Scene::new(2, 2)?;
    scene.verb("cookies always")?;
    let address = SocketAddr::from((SERVER_V4, PORT));
    let refused = scene.topology.world.run(move || TcpStream::connect_timeout(&address, PATIENCE))?;
    ensure!(refused.err().map(|error| error.kind()) == Some(std::io::ErrorKind::ConnectionRefused), "nobody listens");
    scene.verb("mode monitor")?;
    scene.converse(SERVER_V4)?;
    ensure!(scene.answered()? == 0);
    let (now, _) = scene.topology.settled(&scene.place)?;
    ensure!(packets(&now, "pass", "syn-cookie") == 1, "{now}");
    Ok(())
}

#[test]
fn auto_answers_only_where_the_queue_is_full() -> Result<()> {
    let scene = Scene::new(1, 2)?;
    scene.verb("cookies auto")?;
    scene.converse(SERVER_V4)?;
    ensure!(scene.answered()? == 0, "nothing presses");
    Ok(())
}

#[test]
fn what_the_stack_is_not_set_up_for_is_refused() -> Result<()> {
    let scene = Scene::new(1, 1)?;
    let refuse = |words: &[&str], exit: i32, says: &str| -> Result<()> {
        let output = floodwall(&scene.topology.server, &scene.place, words)?;
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        ensure!(output.status.code() == Some(exit) && said.contains(says), "{words:?}: {output:?}");
        Ok(())
    };
    refuse(&["cookies", "always"], 4, "sysctl -w net.ipv4.tcp_syncookies=2")?;
    refuse(&["cookies", "always", "--answers-pps", "0"], 2, "burst")?;
    ensure!(scene.verb("cookies show")?.contains("cookies        off"));
    scene.topology.server.set_sysctl("ipv4/tcp_syncookies", 0)?;
    refuse(&["cookies", "auto"], 4, "sysctl -w net.ipv4.tcp_syncookies=1")?;
    Ok(())
}

#[test]
fn no_subnet_gets_more_answers_than_its_limit() -> Result<()> {
    let scene = Scene::new(2, 2)?;
    scene.verb("cookies always --answers-pps 5")?;
    let address = SocketAddr::from((SERVER_V4, PORT));
    let _listener = scene.topology.server.run(move || TcpListener::bind(address))??;
    // Connection attempts of one subnet: a burst of five and what the gate lets through are answered, the rest waits.
    let attempts = 40;
    for _ in 0..attempts {
        let _ = scene.topology.world.run(move || TcpStream::connect_timeout(&address, Duration::from_millis(20)))?;
    }
    let now = wait_for("every attempt to be counted", || {
        let now = status(&scene.topology.server, &scene.place).ok()?;
        let all = packets(&now, "answer", "syn-cookie") + packets(&now, "drop", "syn-ack-limit");
        (all >= attempts).then_some(now)
    })?;
    let limited = packets(&now, "drop", "syn-ack-limit");
    ensure!(limited > 0, "{now}");
    ensure!((5..=25).contains(&packets(&now, "answer", "syn-cookie")), "{now}");
    Ok(())
}

//! New connections during a SYN flood from forged addresses: in peace, with the flood and SYN cookies at the NIC, and with
//! the flood and no filter. In namespaces of its own; the server is nginx where it is installed, else one of this process.

use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::process::{Child, Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use clap::Parser;
use floodwall_tests::daemon::{Daemon, Place, floodwall_ok, packets, status, wait_for};
use floodwall_tests::flood::{Flood, Kind};
use floodwall_tests::pins::attach_world_end;
use floodwall_tests::topology::{PROTECTED, Topology, WORLD};
use serde::Serialize;

/// Connect during a SYN flood
#[derive(Debug, Parser)]
struct Options {
    /// SYNs a second of the flood
    #[arg(long, default_value_t = 500_000, value_parser = clap::value_parser!(u64).range(1_000..=5_000_000))]
    pps: u64,
    /// Connections of each phase and family
    #[arg(long, default_value_t = 300, value_parser = clap::value_parser!(u32).range(10..=100_000))]
    connections: u32,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

const PORT: u16 = 8_080;
/// No SYN is sent again before this: a connection that takes longer has lost one.
const PATIENCE: Duration = Duration::from_millis(900);
const GOOD: f64 = 0.99;

/// How connecting went in a phase.
#[derive(Debug, Serialize)]
struct Phase {
    phase: &'static str,
    family: &'static str,
    attempts: usize,
    connected: usize,
    p50_ms: f64,
    p99_ms: f64,
    /// SYNs a second that were sent meanwhile.
    flood_pps: f64,
    /// Frames a second that the server's device took in: a stack that cannot keep up leaves the rest in the ring, full.
    received_pps: f64,
    /// SYNs that were answered at the NIC by the end of the phase.
    answered: u64,
}

impl Phase {
    fn share(&self) -> f64 {
        self.connected as f64 / self.attempts as f64
    }
}

/// The server, ended with this value.
enum Server {
    Nginx(Child),
    /// Accepts until this process ends.
    Own,
}

impl Drop for Server {
    fn drop(&mut self) {
        if let Self::Nginx(child) = self {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

fn main() -> ExitCode {
    match run(&Options::parse()) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("syn_flood: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(options: &Options) -> Result<bool> {
    let (topology, place) = (Topology::new(1)?, Place::new()?);
    topology.server.set_sysctl("ipv4/tcp_syncookies", 2)?;
    topology.server.set_sysctl("ipv4/tcp_timestamps", 2)?;
    // The kernel answers forged addresses too, so they have to lead somewhere: to the world, which swallows them.
    topology.server.ip(&format!("route add default via 10.66.1.1 dev {PROTECTED}"))?;
    topology.server.ip(&format!("-6 route add default via fd66:1:1::1 dev {PROTECTED}"))?;
    let _world = attach_world_end(&topology.world, WORLD)?;
    let server = serve(&topology, &place)?;
    println!("server: {}", if matches!(server, Server::Nginx(_)) { "nginx" } else { "of this process" });
    let daemon = Daemon::start(&topology.server, &place, &["--interface", PROTECTED, "--mode", "enforce"])?;
    floodwall_ok(&topology.server, &place, &["cookies", "always"])?;
    // What a real client may do in a second is not the question here.
    floodwall_ok(&topology.server, &place, &["limits", "set", "tcp-syn", "--pps", "100000"])?;
    let mut phases = connect_all("quiet", &topology, &place, options, false)?;
    phases.extend(connect_all("flood, cookies at the NIC", &topology, &place, options, true)?);
    floodwall_ok(&topology.server, &place, &["detach"])?;
    drop(daemon);
    // What a test run sends, a veth takes only where there is a program: this one lets all of it pass.
    let _passes = attach_world_end(&topology.server, PROTECTED)?;
    phases.extend(connect_all("flood, the kernel's cookies", &topology, &place, options, true)?);
    topology.server.set_sysctl("ipv4/tcp_syncookies", 0)?;
    phases.extend(connect_all("flood, no cookies", &topology, &place, options, true)?);
    // On a busy machine five milliseconds are one turn of somebody else's.
    let held = phases[2..4]
        .iter()
        .zip(&phases[..2])
        .all(|(flood, quiet)| flood.share() >= GOOD && flood.p99_ms < (2.0 * quiet.p99_ms).max(quiet.p99_ms + 5.0));
    if options.json {
        println!("{}", serde_json::to_string_pretty(&phases)?);
    } else {
        show(&phases);
    }
    Ok(held)
}

fn show(phases: &[Phase]) {
    println!(
        "{:<28} {:<5} {:>10} {:>9} {:>9} {:>10} {:>10}",
        "phase", "", "connected", "p50 ms", "p99 ms", "sent/s", "received/s"
    );
    for phase in phases {
        println!(
            "{:<28} {:<5} {:>8.2} % {:>9.2} {:>9.2} {:>10.0} {:>10.0}",
            phase.phase,
            phase.family,
            phase.share() * 100.0,
            phase.p50_ms,
            phase.p99_ms,
            phase.flood_pps,
            phase.received_pps
        );
    }
}

/// Both families one after the other, a flood beside them or none.
fn connect_all(
    phase: &'static str,
    topology: &Topology,
    place: &Place,
    options: &Options,
    with_flood: bool,
) -> Result<Vec<Phase>> {
    eprintln!("{phase} …");
    let mut phases = Vec::new();
    for address in topology.servers() {
        let connections = options.connections;
        let flood = Flood { kind: Kind::Syn(PORT), ..Flood::udp(1 << 24, options.pps, Duration::from_secs(8)) };
        let running = match with_flood {
            true => Some(flood.start(&topology.world, topology.target()?, 1)?),
            false => None,
        };
        if with_flood {
            let before = topology.received()?;
            wait_for("the flood to arrive", || (topology.received().ok()? > before + 10_000).then_some(()))?;
        }
        let (begun, before) = (Instant::now(), topology.received()?);
        let times = topology.world.run(move || connect(address, connections))?;
        let received_pps = (topology.received()? - before) as f64 / begun.elapsed().as_secs_f64();
        let sent = match running {
            Some(running) => running.join()??.packets_per_second(),
            None => 0.0,
        };
        let answered = status(&topology.server, place).map_or(0, |now| packets(&now, "answer", "syn-cookie"));
        phases.push(Phase { flood_pps: sent, received_pps, answered, ..of(phase, address.ip(), &times) });
    }
    Ok(phases)
}

fn of(phase: &'static str, address: IpAddr, times: &[Option<Duration>]) -> Phase {
    let mut connected: Vec<f64> = times.iter().flatten().map(|time| time.as_secs_f64() * 1e3).collect();
    connected.sort_by(f64::total_cmp);
    let quantile = |share: f64| match connected.len() {
        0 => f64::NAN,
        count => connected[((count - 1) as f64 * share) as usize],
    };
    Phase {
        phase,
        family: if address.is_ipv4() { "IPv4" } else { "IPv6" },
        attempts: times.len(),
        connected: connected.len(),
        p50_ms: quantile(0.5),
        p99_ms: quantile(0.99),
        flood_pps: 0.0,
        received_pps: 0.0,
        answered: 0,
    }
}

/// Connects so many times, ten milliseconds apart; how long each took, or nothing where it was not in time.
fn connect(address: SocketAddr, times: u32) -> Vec<Option<Duration>> {
    let deadline = Instant::now() + Duration::from_secs(7);
    let mut taken = Vec::new();
    for _ in 0..times {
        // What is still going when the flood ends says nothing of it.
        if Instant::now() > deadline {
            break;
        }
        let begun = Instant::now();
        taken.push(TcpStream::connect_timeout(&address, PATIENCE).is_ok().then(|| begun.elapsed()));
        // condition: the next client, a hundred a second.
        std::thread::sleep(Duration::from_millis(10));
    }
    taken
}

fn serve(topology: &Topology, place: &Place) -> Result<Server> {
    if Command::new("nginx").arg("-v").stderr(Stdio::null()).status().is_ok_and(|status| status.success()) {
        return nginx(topology, place);
    }
    let addresses = topology.servers();
    let (v4, v6) = topology
        .server
        .run(move || -> Result<_> { Ok((TcpListener::bind(addresses[0])?, TcpListener::bind(addresses[1])?)) })??;
    for listener in [v4, v6] {
        std::thread::spawn(move || while listener.accept().is_ok() {});
    }
    Ok(Server::Own)
}

fn nginx(topology: &Topology, place: &Place) -> Result<Server> {
    let directory = place.directory().join("nginx");
    std::fs::create_dir_all(&directory)?;
    let configuration = directory.join("nginx.conf");
    let path = directory.display();
    // One process, so that nothing is left when it is ended.
    let text = format!(
        "daemon off; master_process off; pid {path}/pid; error_log {path}/error.log; events {{ worker_connections 4096; }}\n\
         http {{ access_log off; client_body_temp_path {path}/b; proxy_temp_path {path}/p; fastcgi_temp_path {path}/f;\n\
         uwsgi_temp_path {path}/u; scgi_temp_path {path}/s;\n\
         server {{ listen {PORT}; listen [::]:{PORT}; return 204; }} }}\n"
    );
    std::fs::write(&configuration, text)?;
    let child = topology
        .server
        .command("nginx")?
        .args(["-c", &configuration.display().to_string(), "-p", &path.to_string()])
        .spawn()
        .context("start nginx")?;
    let server = Server::Nginx(child);
    let address = topology.servers()[0];
    wait_for("nginx to listen", || {
        topology.world.run(move || TcpStream::connect_timeout(&address, PATIENCE)).ok()?.ok()
    })?;
    Ok(server)
}

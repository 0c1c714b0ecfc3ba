//! TCP of no connection: a flood of segments is dropped while connections are made and used, old ones too.

use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use floodwall_tests::daemon::{Daemon, Place, packets, run_verb, status, wait_for};
use floodwall_tests::flood::{Flood, Kind};
use floodwall_tests::pins::attach_world_end;
use floodwall_tests::topology::{PROTECTED, Topology, WORLD};

const PATIENCE: Duration = Duration::from_secs(5);

#[test]
fn segments_of_no_connection_drop_and_connections_go_on() -> Result<()> {
    let (topology, place) = (Topology::new(1)?, Place::new()?);
    let _daemon =
        Daemon::start(&topology.server, &place, &["--interface", PROTECTED, "--mode", "enforce", "--respond", "off"])?;
    let verb = |words: &str| run_verb(&topology.server, &place, words);
    let address = topology.servers()[0];
    let listener = topology.server.run(move || TcpListener::bind(address))??;
    let connect = || -> Result<(TcpStream, TcpStream)> {
        let stream = topology.world.run(move || TcpStream::connect_timeout(&address, PATIENCE))??;
        let (accepted, _) = listener.accept()?;
        [&stream, &accepted].iter().try_for_each(|end| end.set_read_timeout(Some(PATIENCE)))?;
        Ok((stream, accepted))
    };
    let mut old = connect()?;
    exchange(&mut old).context("before it is armed")?;

    let flood = Flood { kind: Kind::Ack(address.port()), ..Flood::udp(1 << 20, 20_000, Duration::from_secs(2)) };
    let dropped = || Ok::<_, anyhow::Error>(packets(&status(&topology.server, &place)?, "drop", "out-of-state"));
    flood.start(&topology.world, topology.target()?, 0)?.join().context("the flood")??;
    ensure!(dropped()? == 0, "not armed: all pass");

    verb("policy set out-of-state drop")?;
    let running = flood.start(&topology.world, topology.target()?, 0)?;
    wait_for("the flood to be dropped", || (dropped().ok()? > 1_000).then_some(()))?;
    exchange(&mut old).context("a connection from before, in the flood")?;
    let mut new = connect().context("a new connection, in the flood")?;
    exchange(&mut new)?;
    let sent = running.join().context("the flood")??;
    topology.settled(&place)?;
    let share = dropped()? as f64 / sent.packets() as f64;
    ensure!(share > 0.999, "{share} of {} dropped", sent.packets());

    Ok(())
}

/// The answer with a cookie leaves unseen: only the stack knows who returns one, and what he says at once belongs to it.
#[test]
fn beside_cookies_who_returns_one_is_in_state_and_nobody_else() -> Result<()> {
    let (topology, place) = (Topology::new(1)?, Place::new()?);
    topology.server.set_sysctl("ipv4/tcp_syncookies", 2)?;
    let _daemon =
        Daemon::start(&topology.server, &place, &["--interface", PROTECTED, "--mode", "enforce", "--respond", "off"])?;
    let _peer = attach_world_end(&topology.world, WORLD)?;
    let verb = |words: &str| run_verb(&topology.server, &place, words);
    let count = |verdict: &str, reason: &str| {
        Ok::<_, anyhow::Error>(packets(&status(&topology.server, &place)?, verdict, reason))
    };
    verb("cookies always")?;
    verb("policy set out-of-state drop")?;
    let cut_off = |connections: u64| -> Result<()> {
        topology.settled(&place)?;
        ensure!(count("answer", "syn-cookie")? == connections, "{} were answered here", count("answer", "syn-cookie")?);
        ensure!(count("drop", "out-of-state")? == 0, "a customer's segments were dropped");
        Ok(())
    };
    for (number, address) in topology.servers().into_iter().enumerate() {
        let listener = topology.server.run(move || TcpListener::bind(address))??;
        let mut client = topology.world.run(move || TcpStream::connect_timeout(&address, PATIENCE))??;
        // Longer than a segment, and sent before this host has said anything on the connection.
        let request = [7; 8_000];
        client.write_all(&request)?;
        let (mut accepted, _) = listener.accept()?;
        [&client, &accepted].iter().try_for_each(|end| end.set_read_timeout(Some(PATIENCE)))?;
        accepted.read_exact(&mut [0; 8_000]).context("the request")?;
        cut_off(number as u64 + 1)?;
        exchange(&mut (client, accepted))?;
    }
    let port = topology.servers()[0].port();
    let listener = topology.server.run(move || TcpListener::bind((std::net::Ipv4Addr::UNSPECIFIED, port)))??;
    let flood = Flood { kind: Kind::Ack(port), ..Flood::udp(1 << 20, 20_000, Duration::from_secs(2)) };
    let sent = flood.start(&topology.world, topology.target()?, 0)?.join().context("the flood")??;
    topology.settled(&place)?;
    let share = count("drop", "out-of-state")? as f64 / sent.packets() as f64;
    ensure!(share > 0.999, "{share} of {} dropped, past a listener", sent.packets());
    drop(listener);
    Ok(())
}

/// A byte each way.
fn exchange((client, server): &mut (TcpStream, TcpStream)) -> Result<()> {
    let mut byte = [0];
    client.write_all(b"?")?;
    server.read_exact(&mut byte)?;
    server.write_all(b"!")?;
    Ok(client.read_exact(&mut byte)?)
}

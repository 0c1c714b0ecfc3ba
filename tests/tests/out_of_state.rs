//! TCP of no connection: a flood of segments is dropped while connections are made and used, old ones too.

use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use floodwall_tests::daemon::{Daemon, Place, packets, run_verb, status, wait_for};
use floodwall_tests::flood::{Flood, Kind};
use floodwall_tests::topology::{PROTECTED, Topology};

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

    // While SYNs get cookies it rests: only the stack knows who has answered one.
    verb("cookies auto")?;
    let before = dropped()?;
    flood.start(&topology.world, topology.target()?, 0)?.join().context("the flood")??;
    ensure!(dropped()? == before, "it rests");
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

//! Servers: of the protected host, and those in the world that it asks itself. A request says how long its answer is to be.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpSocket, TcpStream, UdpSocket};
use tokio::sync::Semaphore;

use super::rig::at;
use super::{Condition, Server};

/// Bytes of a request; its first four are the length of the answer.
pub const REQUEST: usize = 304;
/// Of connections that nobody has taken yet.
const BACKLOG: u32 = 512;
/// A second's worth of connections is never saved up.
const SAVED: f64 = 20.0;
const ROOM: usize = 100_000;

/// A condition of the service, and its time.
#[derive(Clone, Copy, Debug)]
pub struct During {
    /// From when on.
    pub from: Instant,
    /// Until when.
    pub until: Instant,
    /// What. Rates are whole numbers here.
    pub condition: Condition,
}

/// The service, and how it is when.
#[derive(Clone, Debug, Default)]
pub struct Service {
    /// Its conditions.
    pub conditions: Vec<During>,
}

impl Service {
    fn now<T>(&self, pick: impl Fn(Condition) -> Option<T>) -> Option<T> {
        let now = Instant::now();
        let current = self.conditions.iter().filter(|during| (during.from..during.until).contains(&now));
        current.filter_map(|during| pick(during.condition)).next()
    }

    fn takes(&self) -> Option<f64> {
        self.now(|condition| if let Condition::Takes(takes) = condition { Some(takes) } else { None })
    }

    fn delay(&self) -> Option<u64> {
        self.now(|condition| if let Condition::Delays(ms) = condition { Some(ms) } else { None })
    }

    fn room(&self) -> usize {
        let holds = self.now(|condition| if let Condition::Holds(holds) = condition { Some(holds) } else { None });
        holds.map_or(ROOM, |holds| holds as usize)
    }

    /// Serves the protected host until then.
    ///
    /// # Errors
    /// Where an address cannot be bound.
    pub async fn serve(self, until: Instant) -> Result<()> {
        let service = Arc::new(self);
        for is_v4 in [true, false] {
            let listener = listen(at(Server::Web, is_v4))?;
            tokio::spawn(web(Arc::clone(&service), listener));
        }
        tokio::spawn(swallow(listen(at(Server::Sink, true))?));
        for (server, is_v4) in [(Server::Quic, true), (Server::Quic, false), (Server::Files, true)] {
            tokio::spawn(echo(UdpSocket::bind(at(server, is_v4)).await?));
        }
        // condition: the end of the run.
        tokio::time::sleep_until(until.into()).await;
        Ok(())
    }
}

/// Serves in the world until then.
///
/// # Errors
/// Where an address cannot be bound.
pub async fn serve_far() -> Result<()> {
    tokio::spawn(web(Arc::new(Service::default()), listen(at(Server::Far, true))?));
    tokio::spawn(echo(UdpSocket::bind(at(Server::Resolver, true)).await?));
    Ok(())
}

fn listen(address: SocketAddr) -> Result<TcpListener> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    socket.set_reuseaddr(true)?;
    socket.bind(address).with_context(|| format!("bind {address}"))?;
    Ok(socket.listen(BACKLOG)?)
}

/// Takes connections as fast as it may.
async fn web(service: Arc<Service>, listener: TcpListener) {
    let open = Arc::new(Semaphore::new(ROOM));
    let (mut saved, mut then) = (SAVED, Instant::now());
    loop {
        if let Some(takes) = service.takes() {
            let now = Instant::now();
            saved = (saved + takes * now.duration_since(then).as_secs_f64()).min(SAVED);
            then = now;
            if saved < 1.0 {
                // condition: the next connection that it may take.
                tokio::time::sleep(Duration::from_millis(2)).await;
                continue;
            }
            saved -= 1.0;
        }
        if ROOM - open.available_permits() >= service.room() {
            // condition: room for another connection.
            tokio::time::sleep(Duration::from_millis(5)).await;
            continue;
        }
        let Ok((stream, _)) = listener.accept().await else { continue };
        let Ok(permit) = Arc::clone(&open).acquire_owned().await else { return };
        let service = Arc::clone(&service);
        tokio::spawn(async move {
            let _ = answer(&service, stream).await;
            drop(permit);
        });
    }
}

async fn answer(service: &Service, mut stream: TcpStream) -> std::io::Result<()> {
    stream.set_nodelay(true)?;
    let (mut request, text) = ([0; REQUEST], vec![b'w'; 1 << 17]);
    loop {
        stream.read_exact(&mut request).await?;
        if let Some(ms) = service.delay() {
            // condition: a slow service is what is played.
            tokio::time::sleep(Duration::from_millis(ms)).await;
        }
        let length = u32::from_be_bytes([request[0], request[1], request[2], request[3]]) as usize;
        stream.write_all(&text[..length.min(text.len())]).await?;
    }
}

async fn swallow(listener: TcpListener) {
    while let Ok((mut stream, _)) = listener.accept().await {
        tokio::spawn(async move {
            let mut bytes = vec![0; 1 << 16];
            while stream.read(&mut bytes).await.is_ok_and(|count| count > 0) {}
        });
    }
}

/// Answers datagrams with as much.
async fn echo(socket: UdpSocket) {
    let mut bytes = vec![0; 1 << 16];
    loop {
        if let Ok((length, client)) = socket.recv_from(&mut bytes).await {
            let _ = socket.send_to(&bytes[..length], client).await;
        }
    }
}

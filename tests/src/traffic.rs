//! Legitimate traffic beside a flood: clients that ask over TCP and UDP, IPv4 and IPv6, and count what is answered.

use std::io::{ErrorKind, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use nix::sys::socket::{AddressFamily, SockFlag, SockType, SockaddrStorage};

use crate::kernel::pin_to_cpu;
use crate::netns::{Namespace, Running};

/// Bytes of a request and of its answer.
const MESSAGE: usize = 256;
/// How long a client waits for an answer before it counts as lost.
const PATIENCE: Duration = Duration::from_millis(1_000);
/// The CPU of the servers; a flood is sent on the other.
const CPU: usize = 1;

/// What the clients of one kind have seen.
#[derive(Clone, Debug, Default)]
pub struct Goodput {
    /// Requests.
    pub asked: u64,
    /// Answers in time.
    pub answered: u64,
    /// Times from request to answer.
    pub latencies: Vec<Duration>,
}

impl Goodput {
    /// Share of requests that were answered.
    pub fn share(&self) -> f64 {
        self.answered as f64 / (self.asked.max(1)) as f64
    }

    /// The time within which so large a share of the answers came.
    pub fn quantile(&self, share: f64) -> Duration {
        let mut sorted = self.latencies.clone();
        sorted.sort_unstable();
        let index = (sorted.len() as f64 * share) as usize;
        sorted.get(index.min(sorted.len().saturating_sub(1))).copied().unwrap_or_default()
    }

    fn add(&mut self, other: Self) {
        self.asked += other.asked;
        self.answered += other.answered;
        self.latencies.extend(other.latencies);
    }
}

/// Servers that answer what they are asked, until dropped.
#[derive(Debug)]
pub struct Servers {
    stop: Arc<AtomicBool>,
}

impl Servers {
    /// Starts a TCP and a UDP server on each address.
    ///
    /// # Errors
    /// Where an address cannot be bound.
    pub fn start(namespace: &Namespace, addresses: &[SocketAddr]) -> Result<Self> {
        let stop = Arc::new(AtomicBool::new(false));
        for address in addresses.iter().copied() {
            let tcp = namespace.run(move || TcpListener::bind(address))?.with_context(|| format!("bind {address}"))?;
            let udp = namespace.run(move || UdpSocket::bind(address))?.with_context(|| format!("bind {address}"))?;
            tcp.set_nonblocking(true)?;
            udp.set_read_timeout(Some(Duration::from_millis(100)))?;
            let ended = Arc::clone(&stop);
            std::thread::spawn(move || serve_tcp(&tcp, &ended));
            let ended = Arc::clone(&stop);
            std::thread::spawn(move || serve_udp(&udp, &ended));
        }
        Ok(Self { stop })
    }
}

impl Drop for Servers {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

fn serve_udp(socket: &UdpSocket, stop: &AtomicBool) {
    let _ = pin_to_cpu(CPU);
    let mut message = [0; MESSAGE];
    while !stop.load(Ordering::Relaxed) {
        if let Ok((length, client)) = socket.recv_from(&mut message) {
            let _ = socket.send_to(&message[..length], client);
        }
    }
}

fn serve_tcp(listener: &TcpListener, stop: &AtomicBool) {
    let _ = pin_to_cpu(CPU);
    while !stop.load(Ordering::Relaxed) {
        match listener.accept() {
            Ok((stream, _)) => {
                std::thread::spawn(move || answer(stream));
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                // condition: the next connection; accept is asked again at once after.
                std::thread::sleep(Duration::from_millis(1));
            }
            Err(_) => return,
        }
    }
}

fn answer(mut stream: TcpStream) {
    let _ = stream.set_nonblocking(false);
    let _ = stream.set_nodelay(true);
    let mut message = [0; MESSAGE];
    while stream.read_exact(&mut message).is_ok() && stream.write_all(&message).is_ok() {}
}

/// Clients, and what they do for how long.
#[derive(Clone, Debug)]
pub struct Clients {
    /// The servers to ask, each from sources of its family.
    pub servers: Vec<SocketAddr>,
    /// The addresses to ask from.
    pub sources: Vec<IpAddr>,
    /// Requests a second of each client, TCP and UDP alike.
    pub requests_per_second: u32,
    /// For how long.
    pub duration: Duration,
    /// The CPU that they run on.
    pub cpu: usize,
}

/// What the clients saw, TCP and UDP.
#[derive(Clone, Debug, Default)]
pub struct Seen {
    /// Over TCP: one connection in ten requests is new.
    pub tcp: Goodput,
    /// Over UDP.
    pub udp: Goodput,
}

impl Clients {
    /// Starts a TCP and a UDP client on each source.
    ///
    /// # Errors
    /// Where the namespace is gone.
    pub fn start(&self, namespace: &Namespace) -> Result<Vec<Running<Seen>>> {
        let mut running = Vec::new();
        for source in &self.sources {
            let Some(server) = self.servers.iter().find(|server| server.is_ipv4() == source.is_ipv4()) else {
                continue;
            };
            let (source, server, cpu) = (*source, *server, self.cpu);
            let (rate, duration) = (self.requests_per_second, self.duration);
            running.push(namespace.spawn(move || {
                let _ = pin_to_cpu(cpu);
                Seen { tcp: ask_tcp(source, server, rate, duration), ..Seen::default() }
            })?);
            running.push(namespace.spawn(move || {
                let _ = pin_to_cpu(cpu);
                Seen { udp: ask_udp(source, server, rate, duration), ..Seen::default() }
            })?);
        }
        Ok(running)
    }
}

/// Waits for clients and adds up what they saw.
///
/// # Errors
/// Where one panicked.
pub fn finish(clients: Vec<Running<Seen>>) -> Result<Seen> {
    let mut all = Seen::default();
    for client in clients {
        let seen = client.join()?;
        all.tcp.add(seen.tcp);
        all.udp.add(seen.udp);
    }
    Ok(all)
}

/// Asks at a rate, in turn: a request whose turn came while another waited for its answer is asked late, not left out.
fn ask(rate: u32, duration: Duration, mut exchange: impl FnMut(u64) -> bool) -> Goodput {
    let begin = Instant::now();
    let mut goodput = Goodput::default();
    while begin.elapsed() < duration {
        let asked = Instant::now();
        goodput.asked += 1;
        if exchange(goodput.asked) {
            goodput.answered += 1;
            goodput.latencies.push(asked.elapsed());
        }
        let due = Duration::from_secs_f64(goodput.asked as f64 / f64::from(rate));
        // condition: the pace.
        std::thread::sleep(due.saturating_sub(begin.elapsed()));
    }
    goodput
}

fn ask_udp(source: IpAddr, server: SocketAddr, rate: u32, duration: Duration) -> Goodput {
    let socket = UdpSocket::bind((source, 0)).and_then(|socket| {
        socket.connect(server)?;
        socket.set_read_timeout(Some(PATIENCE))?;
        Ok(socket)
    });
    ask(rate, duration, |number| {
        let Ok(socket) = &socket else { return false };
        let mut message = [0; MESSAGE];
        message[..8].copy_from_slice(&number.to_be_bytes());
        if socket.send(&message).is_err() {
            return false;
        }
        let mut answer = [0; MESSAGE];
        // An answer that comes late belongs to an earlier request.
        while socket.recv(&mut answer).is_ok() {
            if answer[..8] == message[..8] {
                return true;
            }
        }
        false
    })
}

fn ask_tcp(source: IpAddr, server: SocketAddr, rate: u32, duration: Duration) -> Goodput {
    let mut connection: Option<TcpStream> = None;
    ask(rate, duration, |number| {
        if number % 10 == 1 {
            connection = None;
        }
        let stream = match connection.take() {
            Some(stream) => Ok(stream),
            None => connect(source, server),
        };
        let Ok(mut stream) = stream else { return false };
        let message = [number as u8; MESSAGE];
        let mut answer = [0; MESSAGE];
        let answered =
            stream.write_all(&message).is_ok() && stream.read_exact(&mut answer).is_ok() && answer == message;
        if answered {
            connection = Some(stream);
        }
        answered
    })
}

/// Connects from a chosen address.
fn connect(source: IpAddr, server: SocketAddr) -> Result<TcpStream> {
    use nix::sys::socket::{bind, connect, socket};
    use std::os::fd::AsRawFd;
    let family = if server.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 };
    let socket = socket(family, SockType::Stream, SockFlag::SOCK_CLOEXEC, None)?;
    let stream = TcpStream::from(socket);
    stream.set_read_timeout(Some(PATIENCE))?;
    // On Linux the send timeout bounds connect too.
    stream.set_write_timeout(Some(PATIENCE))?;
    stream.set_nodelay(true)?;
    bind(stream.as_raw_fd(), &SockaddrStorage::from(SocketAddr::new(source, 0)))?;
    connect(stream.as_raw_fd(), &SockaddrStorage::from(server))?;
    Ok(stream)
}

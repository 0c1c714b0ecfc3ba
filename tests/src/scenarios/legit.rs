//! Clients with real stacks, from thousands of addresses, and what they see. Those of the attacker are clients, too.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use serde::Serialize;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpSocket, TcpStream, UdpSocket};
use tokio::time::{sleep, sleep_until, timeout};

use super::rig::{SERVER_V4, at};
use super::service::REQUEST;
use super::{Amount, Level, Load, Server, Way, Who};
use crate::captures::made::Random;

/// A request that takes longer is lost.
const PATIENCE: Duration = Duration::from_secs(3);
/// How long clients of a storm wait.
const IMPATIENCE: Duration = Duration::from_millis(300);
/// A datagram that is not answered in this time is lost: nobody sends it again here.
const ANSWERED_IN: Duration = Duration::from_secs(1);
/// Customers.
const REGULARS: f64 = 6_000.0;
const CUSTOMERS: f64 = 10_000.0;
/// Their networks: IPv4 /24, IPv6 /64.
const NETWORKS_V4: u32 = 3_000;
const NETWORKS_V6: u32 = 1_500;
const SHARE_V6: f64 = 0.1;

/// A request, and what became of it.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Outcome {
    /// Whose it was.
    pub group: &'static str,
    /// Seconds from the begin of the run to the question.
    pub at: f64,
    /// It was answered in time.
    pub is_answered: bool,
    /// Seconds to the answer.
    pub took: f64,
}

/// What all clients saw.
#[derive(Clone, Debug)]
pub struct Outcomes {
    begun: Instant,
    all: Arc<Mutex<Vec<Outcome>>>,
}

impl Outcomes {
    /// None yet, of a run that began then.
    pub fn new(begun: Instant) -> Self {
        Self { begun, all: Arc::default() }
    }

    fn put(&self, group: &'static str, asked: Instant, is_answered: bool) {
        let at = asked.saturating_duration_since(self.begun).as_secs_f64();
        let outcome = Outcome { group, at, is_answered, took: asked.elapsed().as_secs_f64() };
        self.all.lock().unwrap_or_else(PoisonError::into_inner).push(outcome);
    }

    /// All of them.
    pub fn take(&self) -> Vec<Outcome> {
        std::mem::take(&mut self.all.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// A load and its time.
#[derive(Clone, Debug)]
pub struct Planned {
    /// What.
    pub load: Load,
    /// From when on.
    pub from: Instant,
    /// Until when.
    pub until: Instant,
    /// Its ramp.
    pub ramp: Duration,
}

/// Lets clients loose. To be called in a runtime, in their namespace.
pub fn start(planned: Planned, level: &Level, outcomes: &Outcomes, seed: u64) {
    let outcomes = outcomes.clone();
    match planned.load.amount {
        Amount::Machines(machines) => {
            let count = (machines * level.machines).round().max(1.0) as u32;
            let mut random = Random(seed);
            for number in 0..count {
                let (planned, outcomes) = (planned.clone(), outcomes.clone());
                let client = Client::new(&planned.load, number, Random(random.bits()), outcomes);
                let later = planned.ramp.mul_f64(f64::from(number) / f64::from(count));
                tokio::spawn(async move {
                    // Not all at the same moment.
                    let later = later + Duration::from_millis(u64::from(number * 37 % 1_000));
                    // condition: its turn.
                    sleep_until((planned.from + later).into()).await;
                    client.work(planned.until).await;
                });
            }
        }
        Amount::OfBase(times) => {
            let requests = match planned.load.way {
                Way::Web(connections, requests) => connections * requests,
                _ => 1,
            };
            let per_second = times * level.base_rps / f64::from(requests);
            tokio::spawn(arrive(planned, per_second, outcomes, Random(seed)));
        }
    }
}

/// Clients come by themselves, so many a second.
async fn arrive(planned: Planned, per_second: f64, outcomes: Outcomes, mut random: Random) {
    // condition: the time of the load.
    sleep_until(planned.from.into()).await;
    let (mut due, mut number) = (planned.from, 0);
    while due < planned.until {
        let since = due.duration_since(planned.from).as_secs_f64() + 0.05;
        let grown = if planned.ramp.is_zero() { 1.0 } else { (since / planned.ramp.as_secs_f64()).min(1.0) };
        due += Duration::from_secs_f64(random.wait(per_second * grown).min(1.0));
        // condition: the next client.
        sleep_until(due.into()).await;
        number += 1;
        let client = Client::new(&planned.load, number, Random(random.bits()), outcomes.clone());
        tokio::spawn(client.visit());
    }
}

struct Client {
    group: &'static str,
    source: IpAddr,
    server: SocketAddr,
    way: Way,
    random: Random,
    outcomes: Outcomes,
}

impl Client {
    fn new(load: &Load, number: u32, mut random: Random, outcomes: Outcomes) -> Self {
        let source = source(load.who, number, &mut random);
        let server = at(load.to, source.is_ipv4());
        Self { group: load.group, source, server, way: load.way, random, outcomes }
    }

    /// What a client does once.
    async fn visit(mut self) {
        match self.way {
            Way::Web(connections, requests) => {
                for _ in 0..connections {
                    self.ask_on_one(requests).await;
                }
            }
            Way::Opens => {
                let asked = Instant::now();
                let opened = timeout(PATIENCE, connect(self.source, self.server)).await;
                let is_open = matches!(&opened, Ok(Ok(stream)) if stream.set_zero_linger().is_ok());
                self.outcomes.put(self.group, asked, is_open);
            }
            Way::Datagram(bytes) => {
                let asked = Instant::now();
                let answered = timeout(ANSWERED_IN, exchange(self.source, self.server, bytes)).await;
                self.outcomes.put(self.group, asked, matches!(answered, Ok(Ok(()))));
            }
            _ => {}
        }
    }

    /// What a machine does all the time.
    async fn work(mut self, until: Instant) {
        match self.way {
            Way::Kept => self.keep(until).await,
            Way::Upload(per_second) => self.upload(per_second, until).await,
            Way::Trickle(connections) => self.trickle(connections, until).await,
            Way::Storm(at_once) => self.storm(at_once, until).await,
            Way::Floods(per_second) => {
                while Instant::now() < until {
                    let again = self.again(Way::Web(1, 1));
                    tokio::spawn(again.visit());
                    // condition: the pace.
                    sleep(Duration::from_secs_f64(1.0 / per_second)).await;
                }
            }
            Way::Web(..) | Way::Opens | Way::Datagram(_) => {}
        }
    }

    fn again(&mut self, way: Way) -> Self {
        let (group, source, server) = (self.group, self.source, self.server);
        Self { group, source, server, way, random: Random(self.random.bits()), outcomes: self.outcomes.clone() }
    }

    /// A connection and its requests. Where it breaks, the rest is not asked.
    async fn ask_on_one(&mut self, requests: u32) {
        let mut stream = None;
        for number in 0..requests {
            let asked = Instant::now();
            let length = self.answer_length();
            let answered = timeout(PATIENCE, async {
                let mut open = match stream.take() {
                    Some(open) => open,
                    None => connect(self.source, self.server).await?,
                };
                ask(&mut open, length).await?;
                io::Result::Ok(open)
            })
            .await;
            stream = answered.ok().and_then(Result::ok);
            self.outcomes.put(self.group, asked, stream.is_some());
            if stream.is_none() {
                return;
            }
            if number + 1 < requests {
                // condition: a person who reads.
                sleep(Duration::from_secs_f64(self.random.between(0.02..0.3))).await;
            }
        }
    }

    /// Answers are a few kilobytes, some are many.
    fn answer_length(&mut self) -> u32 {
        let sum: f64 = (0..6).map(|_| self.random.part()).sum();
        ((8.8 + (sum - 3.0) * 1.2).exp() as u32).clamp(300, 120_000)
    }

    async fn keep(&mut self, until: Instant) {
        while Instant::now() < until {
            let Ok(Ok(mut stream)) = timeout(PATIENCE, connect(self.source, self.server)).await else {
                self.outcomes.put(self.group, Instant::now(), false);
                continue;
            };
            while Instant::now() < until {
                let asked = Instant::now();
                let length = self.answer_length();
                let is_answered = matches!(timeout(PATIENCE, ask(&mut stream, length)).await, Ok(Ok(())));
                self.outcomes.put(self.group, asked, is_answered);
                if !is_answered {
                    break;
                }
                // condition: the pace.
                sleep(Duration::from_secs(1)).await;
            }
        }
    }

    async fn upload(&mut self, per_second: f64, until: Instant) {
        const SEGMENT: usize = 1_400;
        let Ok(mut stream) = connect(self.source, self.server).await else {
            return self.outcomes.put(self.group, Instant::now(), false);
        };
        let bytes = vec![b'u'; (per_second * SEGMENT as f64 / 50.0) as usize];
        while Instant::now() < until {
            let asked = Instant::now();
            let is_sent = matches!(timeout(PATIENCE, stream.write_all(&bytes)).await, Ok(Ok(())));
            self.outcomes.put(self.group, asked, is_sent);
            // condition: the pace.
            sleep(Duration::from_millis(20)).await;
        }
    }

    async fn trickle(&mut self, connections: u32, until: Instant) {
        let mut open = Vec::new();
        while Instant::now() < until {
            if open.len() < connections as usize {
                if let Ok(Ok(stream)) = timeout(PATIENCE, connect(self.source, self.server)).await {
                    open.push(stream);
                }
                continue;
            }
            // condition: the pace.
            sleep(Duration::from_secs(5)).await;
            // What was closed is opened again.
            let mut kept = Vec::new();
            for mut stream in open {
                if stream.write_all(b"x").await.is_ok() {
                    kept.push(stream);
                }
            }
            open = kept;
        }
    }

    async fn storm(&mut self, at_once: u32, until: Instant) {
        for _ in 0..at_once {
            let mut one = self.again(Way::Storm(1));
            tokio::spawn(async move {
                while Instant::now() < until {
                    let asked = Instant::now();
                    let length = one.answer_length();
                    let request = async {
                        let mut stream = connect(one.source, one.server).await?;
                        ask(&mut stream, length).await
                    };
                    let is_answered = matches!(timeout(IMPATIENCE, request).await, Ok(Ok(())));
                    one.outcomes.put(one.group, asked, is_answered);
                    if is_answered {
                        // condition: the pace.
                        sleep(Duration::from_secs(u64::from(at_once))).await;
                    }
                }
            });
        }
    }
}

/// From a chosen address.
async fn connect(source: IpAddr, server: SocketAddr) -> io::Result<TcpStream> {
    let socket = if server.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    socket.bind((source, 0).into())?;
    let stream = socket.connect(server).await?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

async fn ask(stream: &mut TcpStream, length: u32) -> io::Result<()> {
    let mut request = [b'r'; REQUEST];
    request[..4].copy_from_slice(&length.to_be_bytes());
    stream.write_all(&request).await?;
    let (mut left, mut bytes) = (length as usize, vec![0; 1 << 14]);
    while left > 0 {
        match stream.read(&mut bytes).await? {
            0 => return Err(io::ErrorKind::UnexpectedEof.into()),
            count => left = left.saturating_sub(count),
        }
    }
    Ok(())
}

async fn exchange(source: IpAddr, server: SocketAddr, bytes: usize) -> io::Result<()> {
    let socket = UdpSocket::bind((source, 0)).await?;
    socket.connect(server).await?;
    let mut message = vec![b'q'; bytes];
    socket.send(&message).await?;
    socket.recv(&mut message).await.map(drop)
}

fn source(who: Who, number: u32, random: &mut Random) -> IpAddr {
    match who {
        Who::Itself => SERVER_V4.into(),
        Who::Hosts(first, count) => Ipv4Addr::from(first + number % count).into(),
        Who::Networks(count) => customer_v6(number % count),
        Who::Regulars => customer(REGULARS.powf(random.part()) as u32, random),
        Who::Strangers => customer(random.between(REGULARS..CUSTOMERS * 3.0) as u32, random),
    }
}

fn customer(number: u32, random: &mut Random) -> IpAddr {
    match random.part() < SHARE_V6 {
        true => customer_v6(number % NETWORKS_V6),
        false => Ipv4Addr::from(network_of(number) | (1 + number.wrapping_mul(0x85eb_ca6b) % 253)).into(),
    }
}

fn customer_v6(network: u32) -> IpAddr {
    let network = 0x2a10_0100_0000_0000 | u64::from(network * 37 % 0x80) << 16 | u64::from(network);
    Ipv6Addr::from(u128::from(network) << 64 | 0x10).into()
}

/// The /24 that a customer is in.
pub(super) fn network_of(number: u32) -> u32 {
    0x1400_0000 | (number.wrapping_mul(0x9e37_79b1) % NETWORKS_V4) << 8
}

/// Whose stack clients of this load use.
pub fn is_of_the_host(load: &Load) -> bool {
    matches!(load.to, Server::Resolver | Server::Far)
}

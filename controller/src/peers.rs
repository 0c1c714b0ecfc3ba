//! Peers that this host must not lose: who is logged in over SSH, its gateways and resolvers, and what monitors it.
//!
//! It looks, and judges nothing. What cannot be read is as if it were not there: this is a help, and never stops anything.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::Path;

use ipnet::IpNet;
use procfs::net::{TcpNetEntry, TcpState};
use procfs::process::Process;

use crate::api::EntryView;

/// What the reason of an entry begins with that is on the allow list by itself: by that it is found again.
pub const AUTOMATIC: &str = "automatic: ";
/// How long such an entry of somebody who is logged in stays: his address may be another's tomorrow.
const SESSION_TTL_S: u64 = 24 * 3_600;

/// What a peer is to this host.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Role {
    /// Whoever asks for something now is logged in from there.
    Caller,
    /// Somebody is logged in from there.
    Session,
    /// Packets leave through it.
    Gateway,
    /// It answers this host's DNS questions.
    Resolver,
    /// The configuration file names it.
    Monitor,
}

impl Role {
    /// The name that leaves the process.
    pub const fn label(self) -> &'static str {
        match self {
            Self::Caller => "your own session",
            Self::Session => "ssh session",
            Self::Gateway => "gateway",
            Self::Resolver => "resolver",
            Self::Monitor => "monitor",
        }
    }
}

/// A peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Peer {
    /// Its address, or where it is anywhere in.
    pub prefix: IpNet,
    /// What it is.
    pub role: Role,
}

impl Peer {
    fn new(role: Role, address: IpAddr) -> Self {
        Self { prefix: address.to_canonical().into(), role }
    }

    /// The entry by which it is on the allow list by itself.
    pub fn entry(&self) -> EntryView {
        let ttl_s = (self.role == Role::Session).then_some(SESSION_TTL_S);
        EntryView { prefix: self.prefix, ttl_s, added_unix_s: 0, reason: format!("{AUTOMATIC}{}", self.role.label()) }
    }
}

impl std::fmt::Display for Peer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let is_address = self.prefix.prefix_len() == self.prefix.max_prefix_len();
        let place = if is_address { self.prefix.addr().to_string() } else { self.prefix.to_string() };
        write!(f, "{place} ({})", self.role.label())
    }
}

/// Peers that are to be let in without being asked for: those of whom it is known who they are. A mere connection to sshd
/// is none: whoever guesses passwords has one.
pub fn trusted(monitors: &[IpNet]) -> Vec<Peer> {
    let own = caller(std::process::id() as i32);
    let sessions = own.into_iter().chain(logins()).map(|address| Peer::new(Role::Session, address));
    normal(sessions.chain(infrastructure(monitors)))
}

/// Peers that somebody would miss: the one who asks, and also those that only have a connection to sshd.
pub fn missed(caller: Option<IpAddr>, monitors: &[IpNet]) -> Vec<Peer> {
    let caller = caller.map(|address| Peer::new(Role::Caller, address));
    let sessions = logins().into_iter().chain(ssh_connections()).map(|address| Peer::new(Role::Session, address));
    normal(caller.into_iter().chain(sessions).chain(infrastructure(monitors)))
}

fn infrastructure(monitors: &[IpNet]) -> impl Iterator<Item = Peer> {
    let of = |role: Role, addresses: Vec<IpAddr>| addresses.into_iter().map(move |address| Peer::new(role, address));
    let monitors = monitors.iter().map(|prefix| Peer { prefix: prefix.trunc(), role: Role::Monitor });
    of(Role::Gateway, gateways()).chain(of(Role::Resolver, resolvers())).chain(monitors.collect::<Vec<_>>())
}

/// Each prefix once, as the first that it is; none of this host itself.
fn normal(peers: impl Iterator<Item = Peer>) -> Vec<Peer> {
    let mut known: Vec<Peer> = Vec::new();
    for peer in peers {
        let address = peer.prefix.addr();
        let is_nobody = address.is_loopback() || address.is_unspecified() || address.is_multicast();
        if !is_nobody && !known.iter().any(|other| other.prefix == peer.prefix) {
            known.push(peer);
        }
    }
    known
}

/// From where the user of a process is logged in. Its ancestors are asked too: sudo takes the variable away.
pub fn caller(pid: i32) -> Option<IpAddr> {
    /// Deeper than shells and session tools are stacked.
    const ANCESTORS: usize = 16;
    let mut process = Process::new(pid).ok()?;
    for _ in 0..ANCESTORS {
        let environment = process.environ().unwrap_or_default();
        if let Some(value) = environment.get(std::ffi::OsStr::new("SSH_CONNECTION")) {
            return value.to_str().and_then(client_of);
        }
        process = process.stat().and_then(|stat| Process::new(stat.ppid)).ok()?;
    }
    None
}

/// The client of `SSH_CONNECTION`.
fn client_of(connection: &str) -> Option<IpAddr> {
    connection.split(' ').next()?.parse().ok()
}

/// From where people are logged in, as systemd-logind says: sshd tells it after it has checked who they are.
fn logins() -> Vec<IpAddr> {
    let sessions = std::fs::read_dir("/run/systemd/sessions").into_iter().flatten().flatten();
    sessions.filter_map(|session| login_of(&std::fs::read_to_string(session.path()).ok()?)).collect()
}

fn login_of(session: &str) -> Option<IpAddr> {
    session.lines().find_map(|line| line.strip_prefix("REMOTE_HOST="))?.parse().ok()
}

/// Whoever has a connection to sshd, logged in or not.
fn ssh_connections() -> Vec<IpAddr> {
    let ports = ssh_ports();
    let all = [procfs::net::tcp(), procfs::net::tcp6()].into_iter().flatten().flatten();
    let to_ssh =
        |entry: &TcpNetEntry| entry.state == TcpState::Established && ports.contains(&entry.local_address.port());
    all.filter(to_ssh).map(|entry| entry.remote_address.ip()).collect()
}

/// Where sshd listens: as its configuration says, else 22.
fn ssh_ports() -> Vec<u16> {
    let directory = std::fs::read_dir("/etc/ssh/sshd_config.d").into_iter().flatten().flatten();
    let files = directory.map(|entry| entry.path()).chain([Path::new("/etc/ssh/sshd_config").to_owned()]);
    let texts = files.filter_map(|path| std::fs::read_to_string(path).ok());
    let mut ports: Vec<_> = texts.flat_map(|text| ports_of(&text)).collect();
    if ports.is_empty() {
        ports.push(22);
    }
    ports
}

fn ports_of(sshd_config: &str) -> Vec<u16> {
    let words = sshd_config.lines().map(str::split_whitespace);
    words
        .filter_map(|mut words| words.next()?.eq_ignore_ascii_case("port").then(|| words.next()?.parse().ok())?)
        .collect()
}

/// Default gateways of the main routing table.
fn gateways() -> Vec<IpAddr> {
    let v4 = procfs::net::route().unwrap_or_default().into_iter();
    let v4 = v4.filter(|route| route.destination.is_unspecified() && route.mask.is_unspecified());
    let v4 = v4.map(|route| route.gateway).filter(|gateway| *gateway != Ipv4Addr::UNSPECIFIED).map(IpAddr::from);
    let v6 = std::fs::read_to_string("/proc/net/ipv6_route").unwrap_or_default();
    v4.chain(v6.lines().filter_map(gateway_v6).map(IpAddr::from)).collect()
}

/// The gateway of a line of `/proc/net/ipv6_route`, where that is a default route: destination, its length, source, its
/// length, next hop.
fn gateway_v6(line: &str) -> Option<Ipv6Addr> {
    let words: Vec<_> = line.split_whitespace().collect();
    let address = |text: &str| u128::from_str_radix(text, 16).ok().map(Ipv6Addr::from);
    let is_default = address(words.first()?)?.is_unspecified() && *words.get(1)? == "00";
    address(words.get(4)?).filter(|gateway| is_default && !gateway.is_unspecified())
}

/// Name servers; where those are a resolver on this host, the ones that it asks.
fn resolvers() -> Vec<IpAddr> {
    let read = |path: &str| name_servers(&std::fs::read_to_string(path).unwrap_or_default());
    let mut all = read("/etc/resolv.conf");
    if all.iter().all(IpAddr::is_loopback) {
        all = read("/run/systemd/resolve/resolv.conf");
    }
    all
}

fn name_servers(resolv_conf: &str) -> Vec<IpAddr> {
    let lines = resolv_conf.lines().filter_map(|line| line.trim().strip_prefix("nameserver"));
    // A scope, as in `fe80::1%eth0`, is of no account to a list.
    lines.filter_map(|rest| rest.split_whitespace().next()?.split('%').next()?.parse().ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read, Write};
    use std::process::Stdio;

    fn address(text: &str) -> IpAddr {
        text.parse().expect(text)
    }

    #[test]
    fn what_the_system_says_is_read() {
        assert_eq!(client_of("192.0.2.7 50000 10.0.0.1 22"), Some(address("192.0.2.7")));
        assert_eq!(client_of(""), None);
        assert_eq!(login_of("UID=0\nREMOTE=1\nREMOTE_HOST=2001:db8::7\nSERVICE=sshd\n"), Some(address("2001:db8::7")));
        assert_eq!(login_of("UID=0\nREMOTE_HOST=a.example.net\n"), None, "a name is no address");
        assert_eq!(ports_of("# Port 1\nPort 2222\nport  22\nPermitRootLogin no\nPort x\n"), [2_222, 22]);
        let text = "# nameserver 192.0.2.9\nnameserver 192.0.2.53\n nameserver fe80::1%eth0\nsearch example.net\n";
        assert_eq!(name_servers(text), [address("192.0.2.53"), address("fe80::1")]);
    }

    #[test]
    fn a_process_says_from_where_its_user_is_logged_in() {
        let mut echo = std::process::Command::new("cat");
        echo.env("SSH_CONNECTION", "192.0.2.7 50000 10.0.0.1 22").stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut echo = echo.spawn().expect("a process");
        // Until it answers it may not have its environment yet.
        echo.stdin.as_mut().expect("its input").write_all(b"x").expect("written");
        echo.stdout.as_mut().expect("its output").read_exact(&mut [0]).expect("read");
        assert_eq!(caller(echo.id() as i32), Some(address("192.0.2.7")));
        echo.kill().expect("killed");
        echo.wait().expect("gone");
    }

    #[test]
    fn a_default_route_has_a_gateway() {
        let zero = "0".repeat(32);
        let line = |destination: &str, length: &str| {
            format!(
                "{destination} {length} {zero} 00 fe800000000000000000000000000001 00000400 00000001 0 00000003 eth0"
            )
        };
        assert_eq!(gateway_v6(&line(&zero, "00")), Some("fe80::1".parse().expect("an address")));
        assert_eq!(gateway_v6(&line("20010db8000000000000000000000000", "20")), None);
        assert_eq!(gateway_v6(""), None);
    }

    #[test]
    fn each_peer_is_one_and_this_host_is_none() {
        let peers = [
            Peer::new(Role::Caller, address("::ffff:192.0.2.7")),
            Peer::new(Role::Session, address("192.0.2.7")),
            Peer::new(Role::Resolver, address("127.0.0.53")),
        ];
        let normal = normal(peers.into_iter());
        assert_eq!(normal, [Peer { prefix: address("192.0.2.7").into(), role: Role::Caller }]);
    }
}

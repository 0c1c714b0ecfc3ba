//! The TCP connections of this host, as the kernel's table of sockets has them (`sock_diag`): read in bounded time, and closed.
//!
//! Only sockets of this network namespace are in it. What a router hands on to others is not.

use std::collections::BTreeMap;
use std::io;

use floodwall_common::packet::Source;
use rtnetlink::sys::protocols::NETLINK_SOCK_DIAG;
use rtnetlink::sys::{Socket, SocketAddr};

const SOCK_DIAG_BY_FAMILY: u16 = 20;
const SOCK_DESTROY: u16 = 21;
const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;
const NLM_F_REQUEST: u16 = 1;
const NLM_F_ACK: u16 = 4;
const NLM_F_DUMP: u16 = 0x300;
/// The attribute with `struct tcp_info`, and the bit that asks for it.
const INET_DIAG_INFO: u16 = 2;
const WITH_INFO: u8 = 1 << (INET_DIAG_INFO - 1);
const ESTABLISHED: u32 = 1 << 1;
const LISTEN: u32 = 1 << 10;
/// Bytes of `struct nlmsghdr`, of `struct inet_diag_sockid`, and of `struct inet_diag_msg`.
const HEADER: usize = 16;
const ID: usize = 48;
const MESSAGE: usize = 72;

/// An open connection that somebody else began with this host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Connection {
    /// The other end.
    pub peer: Source,
    /// Milliseconds since this host has sent data; where it never has, since the connection is there.
    pub quiet_ms: u32,
    /// Milliseconds since data came; where none ever has, since the connection is there.
    pub unheard_ms: u32,
    /// Bytes that have come.
    pub received: u64,
    /// Segments with data that have come.
    pub segments: u32,
    /// This host has sent data.
    pub has_spoken: bool,
    /// This host has something to send, and the other end takes none of it: its window is closed.
    pub is_refused: bool,
    /// Family and name of the socket, to close it by.
    name: (u8, [u8; ID]),
}

/// What is open.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Connections {
    /// Those that were read.
    pub open: Vec<Connection>,
    /// The queues of listeners, by port.
    pub queues: BTreeMap<u16, Queue>,
}

/// Connections that nobody has taken yet, of all listeners on a port.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Queue {
    /// How many there are.
    pub waiting: u32,
    /// How full they are where it is fullest, from 0 to 1: all of one address together, as one of several workers that hangs is not all of them.
    pub fullness: f64,
}

/// Connections to ports that something here listens on; of more than `most`, as many as that: the table is in the order of a keyed
/// hash, so they are a sample.
///
/// # Errors
/// Where the kernel does not say.
pub fn connections(most: usize) -> io::Result<Connections> {
    let mut listeners = BTreeMap::<(u16, u8, [u8; 16]), (u32, u32)>::new();
    dump(LISTEN, 0, |entry| {
        let mut address = [0; 16];
        address.copy_from_slice(&entry[8..24]);
        let (waiting, room) = listeners.entry((port_at(entry, 4), entry[0], address)).or_default();
        // Of a listener these are connections that wait, and how many may.
        *waiting = waiting.saturating_add(u32_at(entry, 56));
        *room = room.saturating_add(u32_at(entry, 60));
        true
    })?;
    let mut queues = BTreeMap::<u16, Queue>::new();
    for ((port, ..), (waiting, room)) in listeners {
        let queue = queues.entry(port).or_default();
        queue.waiting = queue.waiting.saturating_add(waiting);
        queue.fullness = queue.fullness.max(f64::from(waiting) / f64::from(room.max(1))).min(1.0);
    }
    let mut open = Vec::new();
    dump(ESTABLISHED, WITH_INFO, |entry| {
        if queues.contains_key(&port_at(entry, 4)) {
            open.extend(connection(entry));
        }
        open.len() < most
    })?;
    Ok(Connections { open, queues })
}

/// Closes connections: both ends are told. How many were there still.
///
/// # Errors
/// Where the kernel cannot (it takes `CONFIG_INET_DIAG_DESTROY`), or refuses.
pub fn close<'a>(connections: impl IntoIterator<Item = &'a Connection>) -> io::Result<usize> {
    let socket = open()?;
    let mut closed = 0;
    for connection in connections {
        let (family, id) = connection.name;
        socket.send(&request(SOCK_DESTROY, NLM_F_REQUEST | NLM_F_ACK, family, 0, u32::MAX, &id), 0)?;
        let (answer, _) = socket.recv_from_full()?;
        match error_of(&answer) {
            None => closed += 1,
            // Somebody else was first.
            Some(error) if error.raw_os_error() == Some(libc::ENOENT) => {}
            Some(error) => return Err(error),
        }
    }
    Ok(closed)
}

fn open() -> io::Result<Socket> {
    let socket = Socket::new(NETLINK_SOCK_DIAG)?;
    socket.connect(&SocketAddr::new(0, 0))?;
    Ok(socket)
}

/// Shows all sockets in these states, until it is enough. The kernel goes on with its table only as far as it is read.
fn dump(states: u32, with: u8, mut is_more_wanted: impl FnMut(&[u8]) -> bool) -> io::Result<()> {
    for family in [libc::AF_INET, libc::AF_INET6] {
        let socket = open()?;
        let ask = request(SOCK_DIAG_BY_FAMILY, NLM_F_REQUEST | NLM_F_DUMP, family as u8, with, states, &[0; ID]);
        socket.send(&ask, 0)?;
        'answers: loop {
            let (datagram, _) = socket.recv_from_full()?;
            let mut rest = datagram.as_slice();
            while rest.len() >= HEADER {
                let length = (u32_at(rest, 0) as usize).clamp(HEADER, rest.len());
                match u16_at(rest, 4) {
                    NLMSG_DONE => break 'answers,
                    NLMSG_ERROR => return Err(error_of(rest).unwrap_or_else(|| io::ErrorKind::Other.into())),
                    _ if length < HEADER + MESSAGE => {}
                    _ if !is_more_wanted(&rest[HEADER..length]) => return Ok(()),
                    _ => {}
                }
                rest = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
            }
        }
    }
    Ok(())
}

/// `struct inet_diag_req_v2` behind its header.
fn request(kind: u16, flags: u16, family: u8, with: u8, states: u32, id: &[u8; ID]) -> Vec<u8> {
    let length = HEADER + 8 + ID;
    let mut bytes = Vec::with_capacity(length);
    bytes.extend((length as u32).to_ne_bytes());
    bytes.extend(kind.to_ne_bytes());
    bytes.extend(flags.to_ne_bytes());
    bytes.extend([0; 8]);
    bytes.extend([family, libc::IPPROTO_TCP as u8, with, 0]);
    bytes.extend(states.to_ne_bytes());
    bytes.extend(id);
    bytes
}

/// What an answer to a change says; `None` where it is done.
fn error_of(answer: &[u8]) -> Option<io::Error> {
    let is_answer = answer.len() >= HEADER + 4 && u16_at(answer, 4) == NLMSG_ERROR;
    let code = if is_answer { u32_at(answer, HEADER) as i32 } else { -libc::EPROTO };
    (code != 0).then(|| io::Error::from_raw_os_error(code.saturating_abs()))
}

/// One `struct inet_diag_msg` and what follows it. `None` where the kernel does not say how it goes on with it.
fn connection(entry: &[u8]) -> Option<Connection> {
    let info = attribute(entry.get(MESSAGE..)?, INET_DIAG_INFO)?;
    // `struct tcp_info`: data_segs_out is the last that is asked for, and there since Linux 4.6.
    let field = |at: usize| Some(u32::from_ne_bytes(info.get(at..at + 4)?.try_into().ok()?));
    let id: [u8; ID] = entry.get(4..4 + ID)?.try_into().ok()?;
    Some(Connection {
        peer: source(entry[0], id.get(20..36)?.try_into().ok()?),
        quiet_ms: field(44)?,
        unheard_ms: field(52)?,
        received: u64::from_ne_bytes(info.get(128..136)?.try_into().ok()?),
        segments: field(152)?,
        has_spoken: field(156)? > 0,
        // Nothing that was sent is under way, and yet something waits.
        is_refused: field(144)? > 0 && field(24)? == 0,
        name: (entry[0], id),
    })
}

/// An address as the kernel has it here. IPv4 that came to an IPv6 socket is IPv4.
fn source(family: u8, bytes: [u8; 16]) -> Source {
    let v4 = |at: usize| Source::V4(u32::from_be_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]]));
    let whole = u128::from_be_bytes(bytes);
    match whole >> 32 {
        _ if i32::from(family) == libc::AF_INET => v4(0),
        0xffff => v4(12),
        _ => Source::V6((whole >> 64) as u64, whole as u64),
    }
}

fn attribute(mut rest: &[u8], wanted: u16) -> Option<&[u8]> {
    while rest.len() >= 4 {
        let length = usize::from(u16_at(rest, 0)).clamp(4, rest.len());
        if u16_at(rest, 2) == wanted {
            return Some(&rest[4..length]);
        }
        rest = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
    }
    None
}

fn u16_at(bytes: &[u8], at: usize) -> u16 {
    u16::from_ne_bytes([bytes[at], bytes[at + 1]])
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_ne_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}

fn port_at(bytes: &[u8], at: usize) -> u16 {
    u16::from_be_bytes([bytes[at], bytes[at + 1]])
}

#[cfg(test)]
mod tests {
    use std::io::{Read as _, Write as _};
    use std::net::{Ipv4Addr, TcpListener, TcpStream};
    use std::time::{Duration, Instant};

    use super::*;

    #[test]
    fn ipv4_behind_an_ipv6_socket_is_ipv4() {
        let mut mapped = [0; 16];
        mapped[10..].copy_from_slice(&[0xff, 0xff, 192, 0, 2, 7]);
        assert_eq!(source(libc::AF_INET6 as u8, mapped), Source::V4(0xc000_0207));
        let v6 = u128::from("2001:db8::7".parse::<std::net::Ipv6Addr>().unwrap());
        assert_eq!(source(libc::AF_INET6 as u8, v6.to_be_bytes()), Source::V6((v6 >> 64) as u64, 7));
    }

    #[test]
    fn an_answer_that_is_cut_off_is_an_error() {
        assert!(error_of(&[0; 8]).is_some());
        assert_eq!(attribute(&[8, 0, 2, 0, 1, 2], 2), Some(&[1, 2][..]));
        assert_eq!(attribute(&[1], 2), None);
    }

    /// The table of this host's own kernel, by which loopback is as good as any.
    #[test]
    fn what_somebody_has_said_shows_and_what_is_closed_is_gone() {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let mut client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (mut server, _) = listener.accept().unwrap();
        client.write_all(b"x").unwrap();
        server.read_exact(&mut [0]).unwrap();
        let port = client.local_addr().unwrap().port();
        let ours = || {
            let all = connections(1 << 16).unwrap().open;
            all.into_iter().filter(|one| port_at(&one.name.1, 2) == port).collect::<Vec<_>>()
        };
        let open = ours();
        assert_eq!(open.len(), 1, "only the end that was connected to: {open:?}");
        assert_eq!((open[0].received, open[0].segments, open[0].has_spoken), (1, 1, false), "{open:?}");
        server.write_all(b"answer").unwrap();
        client.read_exact(&mut [0; 6]).unwrap();
        assert!(ours()[0].has_spoken && !ours()[0].is_refused);
        server.set_nonblocking(true).unwrap();
        while server.write(&[0; 1 << 16]).is_ok() {}
        let deadline = Instant::now() + Duration::from_secs(10);
        while !ours()[0].is_refused {
            assert!(Instant::now() < deadline, "what nobody reads is refused in the end: {:?}", ours());
        }
        match close(&open) {
            Ok(closed) => {
                assert_eq!((closed, close(&open).unwrap()), (1, 0), "there, and then not any more");
                assert!(client.write_all(b"more").is_err(), "the other end is told");
                assert_eq!(ours(), []);
            }
            Err(error) => assert_eq!(error.raw_os_error(), Some(libc::EPERM), "only root may close them: {error}"),
        }
    }
}

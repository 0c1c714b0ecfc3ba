//! The listeners: the control socket for those who may change things, a second one and loopback TCP for those who look, and
//! TCP for those who have the token.
//!
//! Every connection is bounded: one request, so many seconds, so many bytes, so many connections at once.

use std::convert::Infallible;
use std::net::{IpAddr, SocketAddr};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::Context;
use axum::Router;
use axum::body::Body;
use axum::extract::Request;
use axum::http::{HeaderMap, HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use nix::unistd::{Group, Pid, Uid, User, getsid};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, UnixListener, UnixStream};
use tokio::sync::Semaphore;
use tower::ServiceExt;
use tracing::{debug, warn};

use super::access::read_socket;
use crate::api::{TOLD_HEADER, WHY_HEADER};
use crate::exit::{Exit, Failure};
use crate::{history, peers};

/// Connections at once, on each listener.
const CONNECTIONS: usize = 64;
/// Time to send the head of a request.
const HEAD_TIMEOUT: Duration = Duration::from_secs(5);
/// Bytes of a reason that are kept.
const WHY_BYTES: usize = 256;
/// Time from the first byte to the last.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(60);
/// Bytes of a request's head.
const HEAD_BYTES: usize = 16 * 1024;
/// The group whose members may use the control socket, where it exists.
pub(super) const GROUP: &str = "floodwall";

/// Who asks for something, and why.
#[derive(Clone, Debug)]
pub(super) struct Caller {
    pub(super) peer: Peer,
    why: Option<String>,
    /// What he is told beside the answer.
    told: Arc<Mutex<Option<String>>>,
}

impl Caller {
    fn new(peer: Peer, headers: &HeaderMap) -> Self {
        let why = headers.get(WHY_HEADER).map(|why| String::from_utf8_lossy(why.as_bytes()).into_owned());
        let why = why.map(|why| why.chars().take(WHY_BYTES).map(|c| if c.is_control() { ' ' } else { c }).collect());
        Self { peer, why, told: Arc::default() }
    }

    /// From where he is logged in, as far as that can be seen.
    pub(super) fn address(&self) -> Option<IpAddr> {
        self.peer.address()
    }

    /// What he has done.
    pub(super) fn entry(&self, change: String) -> history::Entry {
        let entry = match self.peer {
            Peer::Process { uid, pid } => history::Entry::new(uid, pid, "socket", change).from(self.address()),
            Peer::Token { from } => history::Entry::of_token(from, change),
        };
        entry.because(self.why.clone())
    }

    /// Tells him something beside the answer.
    pub(super) fn tell(&self, what: String) {
        *self.told.lock().unwrap_or_else(PoisonError::into_inner) = Some(what);
    }

    fn answer(&self, mut response: Response) -> Response {
        let told = self.told.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(told) = told.and_then(|told| HeaderValue::from_bytes(told.as_bytes()).ok()) {
            response.headers_mut().insert(TOLD_HEADER, told);
        }
        response
    }
}

/// Who is at the other end.
#[derive(Clone, Copy, Debug)]
pub(super) enum Peer {
    /// A process on a socket, by what the kernel says of it.
    Process { uid: u32, pid: i32 },
    /// Whoever has the token, from there.
    Token { from: IpAddr },
}

impl Peer {
    /// The session of his process: of two people at two terminals that are both root, each has one.
    pub(super) fn session(&self) -> i32 {
        match self {
            Self::Process { pid, .. } => getsid(Some(Pid::from_raw(*pid))).map_or(0, Pid::as_raw),
            Self::Token { .. } => 0,
        }
    }

    /// From where he is logged in, as far as that can be seen.
    pub(super) fn address(&self) -> Option<IpAddr> {
        match self {
            Self::Process { pid, .. } => peers::caller(*pid),
            Self::Token { from } => Some(*from),
        }
    }
}

/// Binds the socket of those who may only look, where the group exists.
pub(super) fn bind_read(control: &Path, group: &str) -> anyhow::Result<Option<UnixListener>> {
    if !matches!(Group::from_name(group), Ok(Some(_))) {
        return Ok(None);
    }
    bind_unix(&read_socket(control), group).map(Some)
}

/// Binds a socket: 0660, for the group where there is one. A socket that nobody answers on is replaced.
pub(super) fn bind_unix(path: &Path, group: &str) -> anyhow::Result<UnixListener> {
    let environment = |what: String| Failure::new(Exit::Environment, what);
    if let Some(directory) = path.parent().filter(|directory| !directory.exists()) {
        std::fs::create_dir_all(directory)
            .map_err(|error| environment(format!("cannot create {}: {error}", directory.display())))?;
    }
    if path.exists() {
        if std::os::unix::net::UnixStream::connect(path).is_ok() {
            let text = format!("another floodwall answers on {}", path.display());
            return Err(Failure::new(Exit::Conflict, text).hint("stop it, or give this one another --socket").into());
        }
        std::fs::remove_file(path).with_context(|| format!("cannot remove the old socket {}", path.display()))?;
    }
    let listener =
        UnixListener::bind(path).map_err(|error| environment(format!("cannot bind {}: {error}", path.display())))?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o660))?;
    if let Ok(Some(group)) = Group::from_name(group) {
        nix::unistd::chown(path, None, Some(group.gid))?;
    }
    Ok(listener)
}

/// Binds a port, for what a flag of this name asks.
pub(super) async fn bind_tcp(address: SocketAddr, what: &str) -> anyhow::Result<TcpListener> {
    TcpListener::bind(address).await.map_err(|error| {
        let text = format!("cannot listen on {address} for {what}: {error}");
        Failure::new(Exit::Environment, text).hint(format!("--{what} <address>:<another port>, or --{what} off")).into()
    })
}

/// A socket, and who may use it.
pub(super) struct Control {
    listener: UnixListener,
    router: Router,
    group: Option<u32>,
}

impl Control {
    pub(super) fn new(listener: UnixListener, router: Router) -> Self {
        let path = listener.local_addr().ok().and_then(|address| address.as_pathname().map(PathBuf::from));
        let group = path.and_then(|path| std::fs::metadata(path).ok()).map(|metadata| metadata.gid());
        Self { listener, router, group }
    }

    /// Serves until dropped.
    pub(super) async fn serve(self) {
        let room = Arc::new(Semaphore::new(CONNECTIONS));
        loop {
            let Ok(permit) = Arc::clone(&room).acquire_owned().await else { return };
            let stream = match self.listener.accept().await {
                Ok((stream, _)) => stream,
                Err(error) => {
                    refused_by_kernel(&error).await;
                    continue;
                }
            };
            let Some(peer) = self.admit(&stream) else { continue };
            let router = self.router.clone();
            tokio::spawn(async move {
                serve(stream, router, peer).await;
                drop(permit);
            });
        }
    }

    /// Root, the daemon's own user, and members of the socket's group. Everybody else is told nothing.
    fn admit(&self, stream: &UnixStream) -> Option<Peer> {
        let credentials = stream.peer_cred().ok()?;
        let (uid, pid) = (credentials.uid(), credentials.pid().unwrap_or(0));
        let own = Uid::effective().as_raw();
        let in_group = || self.group.is_some_and(|group| group != 0 && is_member(uid, credentials.gid(), group));
        if uid == 0 || uid == own || in_group() {
            return Some(Peer::Process { uid, pid });
        }
        warn!(uid, pid, "refused on the control socket");
        None
    }
}

fn is_member(uid: u32, gid: u32, group: u32) -> bool {
    if gid == group {
        return true;
    }
    let user = User::from_uid(Uid::from_raw(uid)).ok().flatten();
    let members = Group::from_gid(group.into()).ok().flatten().map(|group| group.mem).unwrap_or_default();
    user.is_some_and(|user| user.gid.as_raw() == group || members.contains(&user.name))
}

/// Serves a socket until dropped; for ever nothing where there is none.
pub(super) async fn serve_unix(listener: Option<UnixListener>, router: Router) {
    match listener {
        Some(listener) => Control::new(listener, router).serve().await,
        None => std::future::pending().await,
    }
}

/// Serves a port until dropped; for ever nothing where there is none. Who asks is whoever has the token: the router asks for it
/// before it lets anybody change anything.
pub(super) async fn serve_tcp(listener: Option<TcpListener>, router: Router) {
    let Some(listener) = listener else { return std::future::pending().await };
    let room = Arc::new(Semaphore::new(CONNECTIONS));
    loop {
        let Ok(permit) = Arc::clone(&room).acquire_owned().await else { return };
        let (stream, from) = match listener.accept().await {
            Ok((stream, from)) => (stream, from.ip().to_canonical()),
            Err(error) => {
                refused_by_kernel(&error).await;
                continue;
            }
        };
        let router = router.clone();
        tokio::spawn(async move {
            serve(stream, router, Peer::Token { from }).await;
            drop(permit);
        });
    }
}

/// Out of descriptors, most likely: others have to go first.
async fn refused_by_kernel(error: &std::io::Error) {
    warn!(%error, "cannot accept a connection");
    tokio::time::sleep(Duration::from_millis(100)).await;
}

async fn serve(stream: impl AsyncRead + AsyncWrite + Unpin + 'static, router: Router, peer: Peer) {
    let service = tower::service_fn(move |mut request: Request<hyper::body::Incoming>| {
        let caller = Caller::new(peer, request.headers());
        request.extensions_mut().insert(caller.clone());
        // By itself: whoever hangs up does not end half way what he has asked for, nor keep it out of the history.
        let answered = tokio::spawn(router.clone().oneshot(request.map(Body::new)));
        async move {
            Ok::<_, Infallible>(match answered.await {
                Ok(answer) => caller.answer(answer.unwrap_or_else(|never| match never {})),
                Err(_) => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
            })
        }
    });
    let connection = hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT)
        .keep_alive(false)
        // Who has hung up before his request was read is not asked whether he meant it.
        .half_close(true)
        .max_buf_size(HEAD_BYTES)
        .serve_connection(TokioIo::new(stream), TowerToHyperService::new(service));
    match tokio::time::timeout(REQUEST_TIMEOUT, connection).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => debug!(%error, "connection"),
        Err(_) => debug!("connection took too long"),
    }
}

//! The two listeners: the control socket for those who may change things, and loopback TCP for those who look.
//!
//! Every connection is bounded: one request, so many seconds, so many bytes, so many connections at once.

use std::convert::Infallible;
use std::net::{IpAddr, SocketAddr};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use axum::Router;
use axum::body::Body;
use axum::extract::Request;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use nix::unistd::{Group, Uid, User};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, UnixListener, UnixStream};
use tokio::sync::Semaphore;
use tower::ServiceExt;
use tracing::{debug, warn};

use super::{Daemon, http};
use crate::exit::{Exit, Failure};
use crate::{history, peers};

/// Connections at once, on each listener.
const CONNECTIONS: usize = 64;
/// Time to send the head of a request.
const HEAD_TIMEOUT: Duration = Duration::from_secs(5);
/// Time from the first byte to the last.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(60);
/// Bytes of a request's head.
const HEAD_BYTES: usize = 16 * 1024;
/// The group whose members may use the socket, where it exists.
const GROUP: &str = "floodwall";

/// Who is at the other end of the control socket.
#[derive(Clone, Copy, Debug)]
pub(super) struct Peer {
    pub(super) uid: u32,
    pub(super) pid: i32,
}

impl Peer {
    /// From where he is logged in, as far as that can be seen.
    pub(super) fn address(&self) -> Option<IpAddr> {
        peers::caller(self.pid)
    }

    /// What he has changed.
    pub(super) fn entry(&self, change: String) -> history::Entry {
        history::Entry::new(self.uid, self.pid, "socket", change)
    }
}

/// Binds the control socket: 0660, for the group where there is one. A socket that nobody answers on is replaced.
pub(super) fn bind_unix(path: &Path) -> anyhow::Result<UnixListener> {
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
    if let Ok(Some(group)) = Group::from_name(GROUP) {
        nix::unistd::chown(path, None, Some(group.gid))?;
    }
    Ok(listener)
}

/// Binds the metrics port.
pub(super) async fn bind_tcp(address: SocketAddr) -> anyhow::Result<TcpListener> {
    TcpListener::bind(address).await.map_err(|error| {
        let text = format!("cannot listen on {address} for metrics: {error}");
        Failure::new(Exit::Environment, text).hint("--metrics 127.0.0.1:<another port>, or --metrics off").into()
    })
}

/// The control socket.
pub(super) struct Control {
    listener: UnixListener,
    router: Router,
    group: Option<u32>,
}

impl Control {
    pub(super) fn new(listener: UnixListener, daemon: Arc<Daemon>) -> Self {
        let path = listener.local_addr().ok().and_then(|address| address.as_pathname().map(PathBuf::from));
        let group = path.and_then(|path| std::fs::metadata(path).ok()).map(|metadata| metadata.gid());
        Self { listener, router: http::control(daemon), group }
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
                serve(stream, router, Some(peer)).await;
                drop(permit);
            });
        }
    }

    /// Root, the daemon's own user, and members of the socket's group. Everybody else is told nothing.
    fn admit(&self, stream: &UnixStream) -> Option<Peer> {
        let credentials = stream.peer_cred().ok()?;
        let peer = Peer { uid: credentials.uid(), pid: credentials.pid().unwrap_or(0) };
        let own = Uid::effective().as_raw();
        let in_group = || self.group.is_some_and(|group| group != 0 && is_member(peer.uid, credentials.gid(), group));
        if peer.uid == 0 || peer.uid == own || in_group() {
            return Some(peer);
        }
        warn!(uid = peer.uid, pid = peer.pid, "refused on the control socket");
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

/// Serves metrics and read-only answers until dropped; for ever nothing where there is no listener.
pub(super) async fn serve_metrics(listener: Option<TcpListener>, daemon: Arc<Daemon>) {
    let Some(listener) = listener else { return std::future::pending().await };
    let router = http::read_only(daemon);
    let room = Arc::new(Semaphore::new(CONNECTIONS));
    loop {
        let Ok(permit) = Arc::clone(&room).acquire_owned().await else { return };
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(error) => {
                refused_by_kernel(&error).await;
                continue;
            }
        };
        let router = router.clone();
        tokio::spawn(async move {
            serve(stream, router, None).await;
            drop(permit);
        });
    }
}

/// Out of descriptors, most likely: others have to go first.
async fn refused_by_kernel(error: &std::io::Error) {
    warn!(%error, "cannot accept a connection");
    tokio::time::sleep(Duration::from_millis(100)).await;
}

async fn serve(stream: impl AsyncRead + AsyncWrite + Unpin + 'static, router: Router, peer: Option<Peer>) {
    let service = tower::service_fn(move |mut request: Request<hyper::body::Incoming>| {
        if let Some(peer) = peer {
            request.extensions_mut().insert(peer);
        }
        let router = router.clone();
        async move {
            Ok::<_, Infallible>(router.oneshot(request.map(Body::new)).await.unwrap_or_else(|never| match never {}))
        }
    });
    let connection = hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT)
        .keep_alive(false)
        .max_buf_size(HEAD_BYTES)
        .serve_connection(TokioIo::new(stream), TowerToHyperService::new(service));
    match tokio::time::timeout(REQUEST_TIMEOUT, connection).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => debug!(%error, "connection"),
        Err(_) => debug!("connection took too long"),
    }
}

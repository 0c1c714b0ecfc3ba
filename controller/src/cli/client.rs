//! Talking to the daemon: HTTP over its socket.

use std::io;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, anyhow, bail};
use http_body_util::{BodyExt, Full};
use hyper::body::{Bytes, Incoming};
use hyper::header::HeaderValue;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::net::UnixStream;
use tokio::task::JoinHandle;

use crate::api::{SCHEMA_VERSION, TOLD_HEADER, VERSION_HEADER, WHY_HEADER};
use crate::daemon::access::read_socket;
use crate::exit::{Exit, Failure};

/// How long an answer may take: a list of a million prefixes takes seconds.
const PATIENCE: Duration = Duration::from_secs(60);

/// A connection to the daemon, for one request.
pub(super) struct Client {
    stream: UnixStream,
    /// It is the socket of those who may only look.
    only_looks: bool,
    why: Option<String>,
}

impl Client {
    /// Connects; `None` where no daemon answers on the socket.
    pub(super) async fn connect(socket: &Path) -> anyhow::Result<Option<Self>> {
        match UnixStream::connect(socket).await {
            Ok(stream) => Ok(Some(Self { stream, only_looks: false, why: None })),
            Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused) => {
                Ok(None)
            }
            Err(error) => {
                if let Ok(stream) = UnixStream::connect(read_socket(socket)).await {
                    return Ok(Some(Self { stream, only_looks: true, why: None }));
                }
                let text = format!("cannot reach the daemon at {}: {error}", socket.display());
                Err(Failure::new(Exit::Environment, text)
                    .hint("run as root, or as a member of the socket's group")
                    .into())
            }
        }
    }

    /// The same, with what the history is to have as the reason.
    pub(super) fn because(self, why: Option<&str>) -> Self {
        Self { why: why.map(|why| why.replace(char::is_control, " ")), ..self }
    }

    /// Asks for a page as it is.
    pub(super) async fn text(self, path: &str) -> anyhow::Result<String> {
        let bytes = self.request(Method::GET, path, Bytes::new()).await?;
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    }

    /// Asks for lines, and hands each that is not empty over as it comes, until the daemon ends the answer.
    pub(super) async fn lines(
        self,
        path: &str,
        mut take: impl FnMut(&str) -> anyhow::Result<()>,
    ) -> anyhow::Result<()> {
        let (response, connection) = self.ask(Method::GET, path, Bytes::new()).await?;
        let (status, mut body, mut text) = (response.status(), response.into_body(), Vec::new());
        if status != StatusCode::OK {
            return Err(refused(status, &body.collect().await?.to_bytes()));
        }
        while let Some(frame) = body.frame().await {
            text.extend_from_slice(frame?.data_ref().map_or(&[], |data| &data[..]));
            while let Some(end) = text.iter().position(|byte| *byte == b'\n') {
                let line: Vec<_> = text.drain(..=end).collect();
                let line = String::from_utf8_lossy(&line);
                if !line.trim_end().is_empty() {
                    take(line.trim_end())?;
                }
            }
        }
        connection.abort();
        Ok(())
    }

    /// Asks for a value.
    pub(super) async fn get<T: DeserializeOwned>(self, path: &str) -> anyhow::Result<T> {
        let bytes = self.request(Method::GET, path, Bytes::new()).await?;
        serde_json::from_slice(&bytes).context("the daemon's answer is not what this version expects")
    }

    /// Changes something.
    pub(super) async fn post<T: DeserializeOwned>(self, path: &str, body: &impl Serialize) -> anyhow::Result<T> {
        if self.only_looks {
            let text = "you may look, and change nothing";
            let hint = "run as root, or as a member of the control socket's group";
            return Err(Failure::new(Exit::Environment, text).hint(hint).into());
        }
        let body = serde_json::to_vec(body)?.into();
        let bytes = self.request(Method::POST, path, body).await?;
        serde_json::from_slice(&bytes).context("the daemon's answer is not what this version expects")
    }

    async fn request(self, method: Method, path: &str, body: Bytes) -> anyhow::Result<Bytes> {
        match tokio::time::timeout(PATIENCE, self.exchange(method, path, body)).await {
            Ok(answer) => answer,
            Err(_) => bail!("the daemon did not answer within {} s", PATIENCE.as_secs()),
        }
    }

    async fn ask(
        self,
        method: Method,
        path: &str,
        body: Bytes,
    ) -> anyhow::Result<(Response<Incoming>, JoinHandle<hyper::Result<()>>)> {
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(self.stream)).await?;
        let connection = tokio::spawn(connection);
        let mut request = Request::builder()
            .method(method)
            .uri(path)
            .header("host", "floodwall")
            .header("content-type", "application/json")
            .header(VERSION_HEADER, SCHEMA_VERSION.to_string());
        if let Some(why) = self.why {
            request = request.header(WHY_HEADER, HeaderValue::from_bytes(why.as_bytes())?);
        }
        let request = request.body(Full::new(body))?;
        let response = sender.send_request(request).await.context("the daemon closed the connection")?;
        Ok((response, connection))
    }

    async fn exchange(self, method: Method, path: &str, body: Bytes) -> anyhow::Result<Bytes> {
        let (response, connection) = self.ask(method, path, body).await?;
        let status = response.status();
        if let Some(told) = response.headers().get(TOLD_HEADER) {
            eprintln!("floodwall: {}", String::from_utf8_lossy(told.as_bytes()));
        }
        let bytes = response.into_body().collect().await?.to_bytes();
        connection.abort();
        if status == StatusCode::OK { Ok(bytes) } else { Err(refused(status, &bytes)) }
    }
}

/// What the daemon says where it does not do what it is asked.
fn refused(status: StatusCode, bytes: &[u8]) -> anyhow::Error {
    match serde_json::from_slice::<Failure>(bytes) {
        Ok(failure) => failure.into(),
        Err(_) => anyhow!("the daemon answered {status}: {}", String::from_utf8_lossy(bytes).trim()),
    }
}

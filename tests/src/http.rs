//! The little HTTP that tests speak themselves, so that they can also speak it badly.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result};

use crate::netns::Namespace;

/// The body of a page on a TCP port of a namespace.
///
/// # Errors
/// Where nothing answers, or not well.
pub fn get(namespace: &Namespace, address: SocketAddr, path: &str) -> Result<String> {
    let request = format!("GET {path} HTTP/1.1\r\nhost: test\r\nconnection: close\r\n\r\n");
    let answer = namespace.run(move || -> Result<String> {
        let mut stream = TcpStream::connect(address)?;
        exchange(&mut stream, request.as_bytes())
    })??;
    let (head, body) = answer.split_once("\r\n\r\n").context("an answer without a body")?;
    anyhow::ensure!(head.starts_with("HTTP/1.1 200"), "{head}");
    Ok(body.to_owned())
}

/// What a Unix socket answers to these bytes.
///
/// # Errors
/// Where nobody listens, or no end comes in time.
pub fn send_unix(socket: &Path, bytes: &[u8]) -> Result<String> {
    let mut stream = UnixStream::connect(socket)?;
    stream.set_read_timeout(Some(Duration::from_secs(20)))?;
    // A server that has heard enough closes while this still writes.
    let _ = stream.write_all(bytes);
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer);
    Ok(String::from_utf8_lossy(&answer).into_owned())
}

fn exchange(stream: &mut TcpStream, request: &[u8]) -> Result<String> {
    stream.set_read_timeout(Some(Duration::from_secs(20)))?;
    stream.write_all(request)?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer)?;
    Ok(String::from_utf8_lossy(&answer).into_owned())
}

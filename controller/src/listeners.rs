//! What this host listens on, by what the kernel says.

use std::net::IpAddr;
use std::ops::RangeInclusive;

use floodwall_common::services::Transport;
use procfs::net::{TcpState, UdpState};

/// The ports that the kernel gives whoever asks for any.
pub fn given() -> RangeInclusive<u16> {
    let given = std::fs::read_to_string("/proc/sys/net/ipv4/ip_local_port_range").unwrap_or_default();
    let mut bounds = given.split_whitespace().filter_map(|bound| bound.parse::<u16>().ok());
    bounds.next().unwrap_or(32_768)..=bounds.next().unwrap_or(60_999)
}

/// The ports that this host listens on for others: TCP listeners, and UDP sockets that are bound to a port which the
/// kernel gives nobody by itself.
///
/// # Errors
/// Where `/proc` does not say.
pub fn for_others() -> anyhow::Result<Vec<(Transport, u16)>> {
    let given = given();
    let for_others = |address: IpAddr| !address.is_loopback();
    let mut ports = Vec::new();
    for entry in procfs::net::tcp()?.into_iter().chain(procfs::net::tcp6().unwrap_or_default()) {
        if entry.state == TcpState::Listen && for_others(entry.local_address.ip()) {
            ports.push((Transport::Tcp, entry.local_address.port()));
        }
    }
    for entry in procfs::net::udp()?.into_iter().chain(procfs::net::udp6().unwrap_or_default()) {
        let port = entry.local_address.port();
        if entry.state == UdpState::Close && for_others(entry.local_address.ip()) && !given.contains(&port) {
            ports.push((Transport::Udp, port));
        }
    }
    ports.sort_unstable();
    ports.dedup();
    Ok(ports)
}

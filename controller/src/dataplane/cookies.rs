//! SYN cookies: what the stack has to be set up like, and what the packet path has to know of it.

use std::io;

use floodwall_common::config::Config;
use floodwall_common::cookie::{CookieMode, Cookies};
use floodwall_common::limits::{Rate, Unit};
use floodwall_common::meter::Meter;

use super::Dataplane;
use super::error::{Error, Result};

/// SYN-ACKs a second to a subnet where nobody has said otherwise.
pub const DEFAULT_ANSWERS: Rate = Rate::Limit { per_second: 1_000, burst: 1_000 };

/// What the stack of this network namespace is set up like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stack {
    /// `net.ipv4.tcp_syncookies`: 0 never, 1 under pressure, 2 always; `None` where the kernel has none.
    pub syncookies: Option<u32>,
    /// `net.ipv4.tcp_timestamps`: 2 is without a random offset.
    pub timestamps: u32,
    /// The window scale of new connections.
    pub window_scale: u32,
}

impl Stack {
    /// Reads it.
    ///
    /// # Errors
    /// Where the kernel does not say.
    pub fn read() -> Result<Self> {
        let syncookies = match number("ipv4/tcp_syncookies") {
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            read => Some(read.map_err(failed)?),
        };
        let timestamps = number("ipv4/tcp_timestamps").map_err(failed)?;
        let receive = text("ipv4/tcp_rmem").map_err(failed)?;
        let most = receive.split_whitespace().nth(2).and_then(|most| most.parse::<u64>().ok()).unwrap_or(0);
        let most = most.max(number("core/rmem_max").map_or(0, u64::from));
        let window_scale = if number("ipv4/tcp_window_scaling").is_ok_and(|on| on == 0) { 0 } else { scale(most) };
        Ok(Self { syncookies, timestamps, window_scale })
    }

    /// Whether options survive: the stack takes them out of timestamps that it has not shifted.
    pub const fn keeps_options(&self) -> bool {
        self.timestamps == 2
    }
}

/// The window scale that the stack takes for so large a receive buffer.
fn scale(most: u64) -> u32 {
    most.checked_ilog2().map_or(0, |bits| bits.saturating_sub(15).min(14))
}

fn text(name: &str) -> io::Result<String> {
    std::fs::read_to_string(format!("/proc/sys/net/{name}"))
}

fn number(name: &str) -> io::Result<u32> {
    text(name)?.trim().parse().map_err(io::Error::other)
}

fn failed(source: io::Error) -> Error {
    Error::system("read the settings of TCP under /proc/sys/net", source)
}

/// How SYNs are answered, as it lies in a configuration.
pub fn cookies_of(config: &Config) -> (CookieMode, Rate) {
    let mode = CookieMode::from_index(config.cookies.mode as u8).unwrap_or(CookieMode::Off);
    (mode, config.cookie_spec.into())
}

impl Dataplane {
    /// Sets how SYNs are answered: with at most so many answers to a subnet, segments as an MTU has room for, and options
    /// as the stack takes them.
    ///
    /// # Errors
    /// Where the limit cannot be kept, or the map cannot be written.
    pub fn set_cookies(&mut self, mode: CookieMode, answers: Rate, mtu: u32, stack: Stack) -> Result<()> {
        let secret = self.config()?.cookie_answers.secret();
        let meter = Meter::new(answers, Unit::Packets, self.machine, secret)
            .map_err(|_| Error::CapOutOfRange { cap: answers.to_string() })?;
        let segment = |headers: u32| mtu.saturating_sub(headers).clamp(536, u32::from(u16::MAX)) as u16;
        let cookies = Cookies {
            mode: mode as u32,
            timestamps: u32::from(stack.keeps_options()),
            window_scale: stack.window_scale,
            mss: [segment(40), segment(60)],
        };
        self.change(None, |config| {
            config.cookies = cookies;
            config.cookie_answers = meter;
            config.cookie_spec = answers.into();
        })
        .map(drop)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_window_scale_is_that_of_the_stack() {
        // From a kernel: 6 MiB have a scale of 7, 64 MiB of 11, 64 KiB of 1.
        assert_eq!([6 << 20, 64 << 20, 64 << 10, 30_000, 0].map(scale), [7, 11, 1, 0, 0]);
    }
}

//! What stands in the way at the host: the kernel, what this process may do, settings, the clock, and ports that are taken.

use std::fs;
use std::net::SocketAddr;
use std::path::Path;

use procfs::net::TcpState;
use procfs::process::{FDTarget, Process};

use super::{Finding, Severity, finding, read};
use crate::configuration::{Configuration, DEFAULT_METRICS};
use crate::dataplane;

pub(super) fn findings(bpffs: &Path, configuration: &Configuration) -> Vec<Finding> {
    let mut findings = vec![kernel(&read("/proc/sys/kernel/osrelease"))];
    findings.push(capabilities(&crate::capabilities::missing()));
    findings.push(bpf_file_system(bpffs));
    findings.push(jit(&read("/proc/sys/net/core/bpf_jit_enable")));
    findings.push(syn_cookies(&read("/proc/sys/net/ipv4/tcp_syncookies")));
    findings.push(clock(is_synchronised()));
    let metrics = configuration.metrics.clone().unwrap_or_else(|| DEFAULT_METRICS.to_string());
    findings.push(port("metrics-port", "metrics", &metrics, listener));
    findings.extend(configuration.api.as_ref().map(|api| port("api-port", "api", api, listener)));
    findings
}

/// Major and minor number of a kernel's release.
fn version(release: &str) -> Option<(u32, u32)> {
    let mut numbers = release.split(|byte: char| !byte.is_ascii_digit()).map(str::parse);
    Some((numbers.next()?.ok()?, numbers.next()?.ok()?))
}

fn kernel(release: &str) -> Finding {
    let id = "kernel-version";
    match version(release) {
        None => finding(id, Severity::Warning, format!("kernel {release}: its version cannot be read"), None),
        Some(found) if found < (5, 15) => {
            let what = format!("kernel {release}: the filter takes 5.15");
            finding(id, Severity::Problem, what, Some("boot a newer kernel; docs/kernels.md says why"))
        }
        Some(found) if found < (6, 6) => {
            let what =
                format!("kernel {release}: without TCX (6.6), so what leaves is seen by a filter on a clsact qdisc");
            finding(id, Severity::Good, what, None)
        }
        Some(_) => finding(id, Severity::Good, format!("kernel {release}"), None),
    }
}

fn capabilities(missing: &[&str]) -> Finding {
    let id = "capabilities";
    match missing {
        [] => finding(id, Severity::Good, "CAP_BPF, CAP_PERFMON and CAP_NET_ADMIN are there", None),
        missing => {
            let what = format!("{} missing: this process may not load or attach the filter", missing.join(", "));
            finding(id, Severity::Problem, what, Some("run it as root, or by the systemd unit"))
        }
    }
}

fn bpf_file_system(path: &Path) -> Finding {
    let id = "bpf-file-system";
    if dataplane::is_bpf_file_system(path) {
        return finding(id, Severity::Good, format!("{} is a BPF file system", path.display()), None);
    }
    let mend = format!("mount -t bpf bpf {}", path.display());
    finding(id, Severity::Problem, format!("{} is not a BPF file system", path.display()), Some(&mend))
}

fn jit(enabled: &str) -> Finding {
    let id = "bpf-jit";
    match enabled {
        "0" => {
            let what = "the JIT compiler for BPF is off: the filter is interpreted, many times slower";
            finding(id, Severity::Warning, what, Some("sysctl -w net.core.bpf_jit_enable=1"))
        }
        "" => {
            let what = "net.core.bpf_jit_enable is not to be seen: no JIT compiler, or not the first network namespace";
            finding(id, Severity::Warning, what, Some("look at it in the host's network namespace"))
        }
        _ => finding(id, Severity::Good, "the JIT compiler for BPF is on", None),
    }
}

fn syn_cookies(set: &str) -> Finding {
    let id = "syn-cookies";
    match set {
        "" => finding(id, Severity::Warning, "this kernel has no SYN cookies", None),
        "0" => {
            let what = "net.ipv4.tcp_syncookies is 0: `cookies auto` takes 1, `always` 2";
            finding(id, Severity::Warning, what, Some("sysctl -w net.ipv4.tcp_syncookies=1"))
        }
        set => finding(id, Severity::Good, format!("net.ipv4.tcp_syncookies is {set}"), None),
    }
}

/// Whether something keeps the kernel's wall clock right; `None` where it does not say.
fn is_synchronised() -> Option<bool> {
    // SAFETY: integers only: all zero is a value, and asks for no change.
    let mut state = unsafe { std::mem::zeroed::<libc::timex>() };
    // SAFETY: the kernel writes the state into a value of its own shape.
    let answer = unsafe { libc::adjtimex(&raw mut state) };
    (answer >= 0).then_some(state.status & libc::STA_UNSYNC == 0)
}

/// The filter's own clock is the kernel's ticks, which nobody sets: this one is for what people read.
fn clock(is_synchronised: Option<bool>) -> Finding {
    let id = "clock";
    match is_synchronised {
        Some(true) => finding(id, Severity::Good, "the clock is synchronised", None),
        Some(false) => {
            let what = "the clock is not synchronised: records of incidents and changes will have its time. Limits and expiries \
                        go by another, which nobody sets";
            finding(id, Severity::Warning, what, Some("timedatectl set-ntp true"))
        }
        None => finding(id, Severity::Good, "the kernel does not say whether the clock is synchronised", None),
    }
}

/// Who listens where another could then not.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Listener {
    /// Name and number of its process; `None` where that is not to be seen.
    process: Option<(String, i32)>,
}

/// Who has this address, or one that excludes it.
fn listener(address: SocketAddr) -> Option<Listener> {
    let all = procfs::net::tcp().unwrap_or_default().into_iter().chain(procfs::net::tcp6().unwrap_or_default());
    let excludes = |other: SocketAddr| {
        let is_same = other.ip().to_canonical() == address.ip().to_canonical();
        other.port() == address.port() && (is_same || other.ip().is_unspecified() || address.ip().is_unspecified())
    };
    let mut listening = all.filter(|entry| entry.state == TcpState::Listen);
    let inode = listening.find(|entry| excludes(entry.local_address))?.inode;
    let has_it = |process: &Process| {
        let open = process.fd().into_iter().flatten().flatten();
        open.into_iter().any(|fd| fd.target == FDTarget::Socket(inode))
    };
    let process = procfs::process::all_processes().into_iter().flatten().flatten().find(has_it);
    let named = process.and_then(|process| {
        let name = fs::read_to_string(format!("/proc/{}/comm", process.pid)).ok()?;
        Some((name.trim().to_owned(), process.pid))
    });
    Some(Listener { process: named })
}

/// Whether the daemon can have this address.
fn port(id: &str, key: &str, text: &str, listener: impl FnOnce(SocketAddr) -> Option<Listener>) -> Finding {
    const OWN: &str = "floodwall";
    if text == "off" {
        return finding(id, Severity::Good, format!("{key} is off"), None);
    }
    let Ok(address) = text.parse::<SocketAddr>() else {
        let what = format!("{key} '{text}' is not an address with a port, or off");
        return finding(id, Severity::Problem, what, Some("floodwall config check"));
    };
    match listener(address) {
        None => finding(id, Severity::Good, format!("{key} on {address}: nobody listens there"), None),
        Some(Listener { process: Some((name, number)) }) if name == OWN => {
            finding(id, Severity::Good, format!("{key} on {address}: the daemon listens there, process {number}"), None)
        }
        Some(Listener { process }) => {
            let who = process.map_or("a process that is not to be seen".to_owned(), |(name, number)| {
                format!("'{name}', process {number},")
            });
            let mend = format!("another port: {key} = \"{}:{}\"", address.ip(), address.port().wrapping_add(1).max(1));
            let what = format!("{key} on {address}: {who} listens there, so the daemon would not start");
            finding(id, Severity::Problem, what, Some(&mend))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kernels_are_told_by_what_they_lack() {
        let severity = |release| kernel(release).severity;
        assert_eq!(severity("5.10.0-28-amd64"), Severity::Problem);
        assert!(kernel("6.1.0-56-amd64").what.contains("clsact"));
        assert!(!kernel("6.6.1").what.contains("clsact"));
        assert_eq!((severity("6.6.1"), severity("10.0.0-rc1")), (Severity::Good, Severity::Good));
        assert_eq!(severity("a strange one"), Severity::Warning);
    }

    #[test]
    fn a_capability_that_is_missing_is_named() {
        assert_eq!(capabilities(&[]).severity, Severity::Good);
        assert!(capabilities(&["CAP_PERFMON"]).what.starts_with("CAP_PERFMON missing"));
    }

    #[test]
    fn settings_are_judged() {
        assert_eq!(
            (jit("0").severity, jit("1").severity, jit("").severity),
            (Severity::Warning, Severity::Good, Severity::Warning)
        );
        assert_eq!((syn_cookies("0").severity, syn_cookies("1").severity), (Severity::Warning, Severity::Good));
    }

    #[test]
    fn a_clock_that_nothing_keeps_right_is_a_warning() {
        assert_eq!((clock(Some(true)).severity, clock(None).severity), (Severity::Good, Severity::Good));
        let found = clock(Some(false));
        assert_eq!((found.severity, found.mend.as_deref()), (Severity::Warning, Some("timedatectl set-ntp true")));
    }

    #[test]
    fn a_port_is_free_ours_or_taken() {
        let of = |text: &str, process: Option<Option<(&str, i32)>>| {
            let listener =
                process.map(|process| Listener { process: process.map(|(name, number)| (name.to_owned(), number)) });
            port("metrics-port", "metrics", text, |_| listener)
        };
        let address = "127.0.0.1:9557";
        assert_eq!(of("off", Some(None)).severity, Severity::Good);
        assert_eq!(of(address, None).severity, Severity::Good);
        assert_eq!(of(address, Some(Some(("floodwall", 7)))).severity, Severity::Good);
        let taken = of(address, Some(Some(("node_exporter", 7))));
        assert!(taken.severity == Severity::Problem && taken.what.contains("'node_exporter', process 7"), "{taken:?}");
        assert_eq!(taken.mend.as_deref(), Some("another port: metrics = \"127.0.0.1:9558\""));
        assert_eq!(of(address, Some(None)).severity, Severity::Problem);
        assert_eq!(of("9557", None).severity, Severity::Problem);
    }

    #[test]
    fn who_listens_is_found() {
        let socket = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = socket.local_addr().expect("its address");
        let own = std::process::id() as i32;
        let number = |address| listener(address).and_then(|found| found.process).map(|(_, number)| number);
        assert_eq!(number(address), Some(own));
        assert_eq!(number(SocketAddr::new("0.0.0.0".parse().expect("an address"), address.port())), Some(own));
        drop(socket);
        assert_eq!(listener(address), None);
    }
}

//! `floodwall doctor`: what stands in the way of protecting an interface, before anything is attached. Each finding has an
//! identifier that stays, and says what mends it. It changes nothing.

use std::fs;
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::dataplane::{self, Device, MadeOf};

/// How much a finding matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// As it should be.
    Good,
    /// It works, but slower, or with less.
    Warning,
    /// It will not work.
    Problem,
}

/// What was found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Finding {
    /// Identifier, never changed.
    pub id: String,
    /// How much it matters.
    pub severity: Severity,
    /// The interface that it is about; null for the host.
    pub interface: Option<String>,
    /// What it is.
    pub what: String,
    /// What mends it; null where nothing has to be.
    pub mend: Option<String>,
}

/// All of them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Diagnosis {
    /// Version of this shape.
    pub schema_version: u32,
    /// The worst of them.
    pub severity: Severity,
    /// In the order in which they matter to a start.
    pub findings: Vec<Finding>,
}

impl Diagnosis {
    /// Of all findings.
    pub fn new(findings: Vec<Finding>) -> Self {
        let severity = findings.iter().map(|finding| finding.severity).max().unwrap_or(Severity::Good);
        Self { schema_version: crate::api::SCHEMA_VERSION, severity, findings }
    }
}

/// Looks at the host, and at these interfaces.
///
/// # Errors
/// Where the network devices cannot be asked, or one is not there.
pub async fn diagnose(bpffs: &Path, interfaces: &[String]) -> anyhow::Result<Diagnosis> {
    let devices = dataplane::devices().await?;
    let mut findings = vec![kernel(&read("/proc/sys/kernel/osrelease"))];
    findings.push(capabilities(effective_capabilities(&read("/proc/self/status"))));
    findings.push(bpf_file_system(bpffs));
    findings.push(jit(&read("/proc/sys/net/core/bpf_jit_enable")));
    findings.push(syn_cookies(&read("/proc/sys/net/ipv4/tcp_syncookies")));
    for name in interfaces {
        let device = dataplane::find(&devices, name)?;
        let carriers = dataplane::carriers(&devices, device);
        findings.push(made_of(device, &carriers));
        for carrier in carriers {
            findings.extend(of_device(carrier));
        }
    }
    Ok(Diagnosis::new(findings))
}

fn read(path: &str) -> String {
    fs::read_to_string(path).map(|text| text.trim().to_owned()).unwrap_or_default()
}

/// A finding about the host.
pub(crate) fn finding(id: &str, severity: Severity, what: impl Into<String>, mend: Option<&str>) -> Finding {
    Finding { id: id.to_owned(), severity, interface: None, what: what.into(), mend: mend.map(str::to_owned) }
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

/// The bits of `CapEff`.
fn effective_capabilities(status: &str) -> u64 {
    let line = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
    line.and_then(|bits| u64::from_str_radix(bits.trim(), 16).ok()).unwrap_or(0)
}

fn capabilities(effective: u64) -> Finding {
    const NEEDED: [(&str, u32); 3] = [("CAP_NET_ADMIN", 12), ("CAP_PERFMON", 38), ("CAP_BPF", 39)];
    let missing: Vec<_> = NEEDED.iter().filter(|(_, bit)| effective >> bit & 1 == 0).map(|(name, _)| *name).collect();
    let id = "capabilities";
    match missing.as_slice() {
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

fn made_of(device: &Device, carriers: &[&Device]) -> Finding {
    let interface = Some(device.name.clone());
    let names: Vec<_> = carriers.iter().map(|carrier| carrier.name.as_str()).collect();
    let found = match (device.made_of, names.as_slice()) {
        (MadeOf::Itself, _) => finding("interface", Severity::Good, "it is there", None),
        (_, []) => {
            finding("interface", Severity::Problem, "it has no member to attach to", Some("give the bond a member"))
        }
        (_, names) => {
            let what = format!("its packets come in at {}: the filter attaches there", names.join(", "));
            finding("interface", Severity::Good, what, None)
        }
    };
    Finding { interface, ..found }
}

fn of_device(device: &Device) -> Vec<Finding> {
    let class = Path::new("/sys/class/net").join(&device.name);
    let driver = fs::read_link(class.join("device/driver")).ok();
    let driver = driver.and_then(|path| path.file_name().map(|name| name.to_string_lossy().into_owned()));
    let queues = fs::read_dir(class.join("queues")).map(|entries| {
        let names = entries.flatten().map(|entry| entry.file_name());
        names.filter(|name| name.to_string_lossy().starts_with("rx-")).count()
    });
    let cpus = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let all = [
        xdp(device),
        mtu(device.mtu),
        queue_count(queues.unwrap_or(0), cpus),
        finding(
            "driver",
            Severity::Good,
            driver.map_or("a virtual device".to_owned(), |name| format!("driver {name}")),
            None,
        ),
    ];
    all.map(|found| Finding { interface: Some(device.name.clone()), ..found }).into()
}

/// Another program on the hook, as far as the device tells.
fn xdp(device: &Device) -> Finding {
    let id = "xdp-program";
    match device.xdp {
        None => finding(id, Severity::Good, "no XDP program is on it", None),
        Some(xdp) => {
            let what = format!("an XDP program is on it, number {}, {} mode", xdp.program_id, xdp.mode.label());
            let mend = format!("if it is not Floodwall's: ask its owner (bpftool net show dev {})", device.name);
            finding(id, Severity::Warning, what, Some(&mend))
        }
    }
}

fn mtu(mtu: u32) -> Finding {
    /// Above it drivers need a program for frames in fragments.
    const LINEAR: u32 = 3_498;
    let id = "mtu";
    match mtu {
        mtu if mtu > LINEAR => {
            let what = format!("MTU {mtu}: frames come in fragments, which takes kernel 5.18 and a driver that can");
            finding(id, Severity::Warning, what, Some("an MTU of 1500, if the start is refused"))
        }
        mtu => finding(id, Severity::Good, format!("MTU {mtu}"), None),
    }
}

fn queue_count(queues: usize, cpus: usize) -> Finding {
    let id = "queues";
    if queues < cpus && cpus > 1 {
        let what = format!("{queues} receive queues for {cpus} CPUs: a flood is filtered by {queues} of them");
        return finding(
            id,
            Severity::Warning,
            what,
            Some("ethtool -L <interface> combined <CPUs>, where the card can"),
        );
    }
    finding(id, Severity::Good, format!("{queues} receive queues for {cpus} CPUs"), None)
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
        let all = 1 << 12 | 1 << 38 | 1 << 39;
        assert_eq!(capabilities(all).severity, Severity::Good);
        assert!(capabilities(all & !(1 << 38)).what.starts_with("CAP_PERFMON missing"));
        assert_eq!(effective_capabilities("Name:\tx\nCapEff:\t0000008000001000\n"), 1 << 12 | 1 << 39);
    }

    #[test]
    fn settings_are_judged() {
        assert_eq!(
            (jit("0").severity, jit("1").severity, jit("").severity),
            (Severity::Warning, Severity::Good, Severity::Warning)
        );
        assert_eq!((mtu(1_500).severity, mtu(9_000).severity), (Severity::Good, Severity::Warning));
        assert_eq!((queue_count(1, 8).severity, queue_count(8, 8).severity), (Severity::Warning, Severity::Good));
        assert_eq!((syn_cookies("0").severity, syn_cookies("1").severity), (Severity::Warning, Severity::Good));
    }
}

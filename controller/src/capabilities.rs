//! What this process may do, as far as the kernel says so beforehand: the three capabilities that the filter takes.

use std::fs;

/// Names and bits of what it takes: to attach, to load a program that looks into packets, to make maps.
const NEEDED: [(&str, u32); 3] = [("CAP_NET_ADMIN", 12), ("CAP_PERFMON", 38), ("CAP_BPF", 39)];

/// Those that are missing. None of this process where `/proc` cannot be read.
pub fn missing() -> Vec<&'static str> {
    fs::read_to_string("/proc/self/status").map_or_else(|_| Vec::new(), |status| missing_of(&status))
}

/// Those that are missing by a process's `status`.
pub fn missing_of(status: &str) -> Vec<&'static str> {
    let line = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
    let effective = line.and_then(|bits| u64::from_str_radix(bits.trim(), 16).ok()).unwrap_or(0);
    NEEDED.iter().filter(|(_, bit)| effective >> bit & 1 == 0).map(|(name, _)| *name).collect()
}

/// Why something is refused, and what mends it.
pub fn why_refused() -> (String, &'static str) {
    why(&missing())
}

/// A kernel that is locked down is none of it: that takes nothing away that the filter needs.
fn why(missing: &[&str]) -> (String, &'static str) {
    match missing {
        [] => (
            "the capabilities are there, so something else forbids it".to_owned(),
            "look for a user namespace (a rootless container), a seccomp filter, or SELinux and AppArmor in the kernel's log",
        ),
        [one] => (format!("{one} is missing"), "run as root, by the systemd unit, or give this capability"),
        more => {
            (format!("{} are missing", more.join(", ")), "run as root, by the systemd unit, or give these capabilities")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_missing_is_named_and_nothing_else() {
        let of = |effective: u64| missing_of(&format!("Name:\tx\nCapEff:\t{effective:016x}\n"));
        let all = 1 << 12 | 1 << 38 | 1 << 39;
        assert_eq!(of(all), [] as [&str; 0]);
        assert_eq!(of(all & !(1 << 38)), ["CAP_PERFMON"]);
        assert_eq!(of(0), ["CAP_NET_ADMIN", "CAP_PERFMON", "CAP_BPF"]);
    }

    #[test]
    fn where_nothing_is_missing_something_else_is_to_blame() {
        assert_eq!(why(&["CAP_BPF"]).0, "CAP_BPF is missing");
        assert!(why(&[]).0.contains("something else") && why(&[]).1.contains("SELinux"));
    }
}

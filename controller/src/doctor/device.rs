//! What stands in the way at a device: its hook, its frames, its queues and interrupts, and what the card does to packets
//! before the filter sees them.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use super::{Finding, Severity, finding, read};
use crate::dataplane::{self, Device, MadeOf};

pub(super) fn made_of(device: &Device, carriers: &[&Device]) -> Finding {
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

pub(super) fn findings(device: &Device) -> Vec<Finding> {
    let class = Path::new("/sys/class/net").join(&device.name);
    let driver = fs::read_link(class.join("device/driver")).ok();
    let driver = driver.and_then(|path| path.file_name().map(|name| name.to_string_lossy().into_owned()));
    let queues = fs::read_dir(class.join("queues")).map(|entries| {
        let names = entries.flatten().map(|entry| entry.file_name());
        names.filter(|name| name.to_string_lossy().starts_with("rx-")).count()
    });
    let cpus = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let on = dataplane::active_features(&device.name).ok();
    let all = [
        xdp(device),
        mtu(device.mtu),
        receive_offload(&device.name, on.as_ref()),
        vlan_offload(on.as_ref()),
        queue_count(queues.unwrap_or(0), cpus),
        interrupts(&affinities(&class), cpus),
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

/// Whether the card joins packets before the filter could judge each: many drivers refuse XDP then.
fn receive_offload(name: &str, on: Option<&BTreeSet<String>>) -> Finding {
    const JOINING: [(&str, &str, &str); 2] = [
        ("rx-lro", "large receive offload", "lro off"),
        ("rx-gro-hw", "generic receive offload in the card", "rx-gro-hw off"),
    ];
    let id = "receive-offload";
    let Some(on) = on else {
        return finding(id, Severity::Good, "the driver does not say what it offloads", None);
    };
    let joining: Vec<_> = JOINING.iter().filter(|(feature, ..)| on.contains(*feature)).collect();
    if joining.is_empty() {
        return finding(id, Severity::Good, "the card joins no packets", None);
    }
    let words: Vec<_> = joining.iter().map(|(_, words, _)| *words).collect();
    let flags: Vec<_> = joining.iter().map(|(.., flag)| *flag).collect();
    let what = format!("{} is on: many drivers refuse a filter in native mode then", words.join(" and "));
    finding(id, Severity::Warning, what, Some(&format!("ethtool -K {name} {}", flags.join(" "))))
}

/// Whether the card takes VLAN tags off. No fault: what is behind a tag is judged with it and without it.
fn vlan_offload(on: Option<&BTreeSet<String>>) -> Finding {
    let what = if on.is_some_and(|on| on.contains("rx-vlan-hw-parse")) {
        "the card may take a VLAN tag off before the filter sees it: packets are judged the same by what is behind the tag, \
         and of stacked tags `vlan-depth` counts one fewer"
    } else {
        "VLAN tags are left on: the filter looks behind two of them"
    };
    finding("vlan-offload", Severity::Good, what, None)
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

/// The interrupts of a device that somebody handles, each with the CPUs that it goes to.
fn affinities(class: &Path) -> Vec<(u32, String)> {
    // A virtio device has them at the PCI device that it lies on.
    let places = ["device/msi_irqs", "device/../msi_irqs"].map(|place| class.join(place));
    let listed = places.iter().find_map(|place| fs::read_dir(place).ok());
    let numbers = listed.into_iter().flatten().flatten();
    let numbers = numbers.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    let handled = handled(&read("/proc/interrupts"));
    let affinity = |number: u32| {
        let of = |name: &str| read(&format!("/proc/irq/{number}/{name}"));
        // Where it goes, or else where it may go.
        let effective = of("effective_affinity_list");
        (number, if effective.is_empty() { of("smp_affinity_list") } else { effective })
    };
    numbers.filter(|number| handled.contains(number)).map(affinity).collect()
}

/// The numbers that `/proc/interrupts` has a line of: those that a driver has asked for.
fn handled(interrupts: &str) -> BTreeSet<u32> {
    interrupts.lines().filter_map(|line| line.split_once(':')?.0.trim().parse().ok()).collect()
}

/// The CPUs of a list such as `0-3,8`.
fn cpus_of(list: &str) -> BTreeSet<u32> {
    let range = |part: &str| {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        Some(first.trim().parse::<u32>().ok()?..=last.trim().parse().ok()?)
    };
    list.split(',').filter_map(range).flatten().collect()
}

/// Whether interrupts are spread: the CPU that takes one filters what it announces.
fn interrupts(affinities: &[(u32, String)], cpus: usize) -> Finding {
    let id = "interrupts";
    let to: BTreeSet<u32> = affinities.iter().flat_map(|(_, list)| cpus_of(list)).collect();
    match (affinities, to.first()) {
        ([], _) | (_, None) => finding(id, Severity::Good, "it has no interrupts of its own to spread", None),
        ([_, _, ..], Some(cpu)) if to.len() == 1 && cpus > 1 => {
            let what = format!("all {} interrupts go to CPU {cpu}: it alone filters every packet", affinities.len());
            let numbers: Vec<_> = affinities.iter().map(|(number, _)| number.to_string()).collect();
            let mend = format!(
                "systemctl start irqbalance; or for each of {}: echo <CPU> > /proc/irq/<number>/smp_affinity_list",
                numbers.join(" ")
            );
            finding(id, Severity::Warning, what, Some(&mend))
        }
        (_, Some(_)) => {
            let what = format!("{} interrupts on {} of {cpus} CPUs", affinities.len(), to.len());
            finding(id, Severity::Good, what, None)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_are_judged() {
        assert_eq!((mtu(1_500).severity, mtu(9_000).severity), (Severity::Good, Severity::Warning));
        assert_eq!((queue_count(1, 8).severity, queue_count(8, 8).severity), (Severity::Warning, Severity::Good));
    }

    #[test]
    fn what_joins_packets_is_named_with_what_turns_it_off() {
        let on = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<BTreeSet<_>>();
        let found = receive_offload("eth0", Some(&on(&["rx-lro", "rx-gro"])));
        let mend = Some("ethtool -K eth0 lro off".to_owned());
        assert_eq!((found.severity, found.mend), (Severity::Warning, mend));
        let found = receive_offload("eth0", Some(&on(&["rx-lro", "rx-gro-hw"])));
        assert_eq!(found.mend.as_deref(), Some("ethtool -K eth0 lro off rx-gro-hw off"));
        assert!(found.what.contains("large receive offload and generic"), "{}", found.what);
        // What the kernel joins after the filter is no concern of it.
        assert_eq!(receive_offload("eth0", Some(&on(&["rx-gro"]))).severity, Severity::Good);
        assert_eq!(receive_offload("eth0", None).severity, Severity::Good);
    }

    #[test]
    fn a_tag_that_the_card_takes_off_is_no_fault_but_is_told() {
        let found = vlan_offload(Some(&BTreeSet::from(["rx-vlan-hw-parse".to_owned()])));
        assert!(found.severity == Severity::Good && found.what.contains("take a VLAN tag off"), "{}", found.what);
        assert!(vlan_offload(Some(&BTreeSet::new())).what.contains("left on"));
    }

    #[test]
    fn interrupts_on_one_cpu_are_told_with_their_numbers() {
        let of = |lists: &[&str]| {
            let numbered = lists.iter().enumerate().map(|(at, list)| (at as u32 + 24, (*list).to_owned()));
            interrupts(&numbered.collect::<Vec<_>>(), 4)
        };
        let one = of(&["2", "2", "2"]);
        assert!(one.severity == Severity::Warning && one.what.contains("all 3 interrupts go to CPU 2"), "{}", one.what);
        assert!(one.mend.is_some_and(|mend| mend.contains("24 25 26")));
        assert_eq!(of(&["0", "1"]).what, "2 interrupts on 2 of 4 CPUs");
        // One interrupt has nowhere to be spread to: `queues` says that there is one.
        assert_eq!((of(&["2"]).severity, of(&[]).severity), (Severity::Good, Severity::Good));
        assert_eq!(interrupts(&[(24, "0".to_owned()), (25, "0".to_owned())], 1).severity, Severity::Good);
    }

    #[test]
    fn lists_of_cpus_and_interrupts_are_read() {
        assert_eq!(cpus_of("0-2,8").into_iter().collect::<Vec<_>>(), [0, 1, 2, 8]);
        assert_eq!(cpus_of("3\n").into_iter().collect::<Vec<_>>(), [3]);
        assert!(cpus_of("").is_empty() && cpus_of("x-2").is_empty());
        let text = "           CPU0       CPU1\n  1:          9          0   IO-APIC   1-edge      i8042\n\
                    25:          0    1234567   PCI-MSIX-0000:00:03.0   1-edge      virtio0-input.0\nNMI:          0          0   Non-maskable interrupts\n";
        assert_eq!(handled(text).into_iter().collect::<Vec<_>>(), [1, 25]);
    }
}

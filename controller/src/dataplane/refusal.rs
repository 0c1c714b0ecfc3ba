//! Why a driver takes no program, told by its own words where the kernel hands them on, else by the number of the error and by how the
//! device is set up; and the one command that mends it.

use std::io;
use std::os::fd::{AsRawFd as _, BorrowedFd};

use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::link::{LinkAttribute, LinkMessage, LinkXdp};

use super::device::Device;
use super::error::Error;
use super::ethtool::{self, Channels};
use super::netlink::ask_for_words;

/// Above it drivers that want each frame in one page refuse.
pub(super) const LINEAR_MTU: u32 = 3_498;
/// What any driver takes.
const USUAL_MTU: u32 = 1_500;
/// Flags of an XDP program: only where there is none, and natively.
const IF_NOEXIST: u32 = 1;
const NATIVE: u32 = 1 << 2;

/// How a device is set up, as far as that makes drivers refuse.
#[derive(Clone, Debug)]
struct Setup {
    mtu: u32,
    /// What joins packets in the card, as `ethtool -K` names it.
    joining: Vec<&'static str>,
    channels: Option<Channels>,
}

/// What makes a driver refuse.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Cause {
    FrameSize,
    Joining,
    Queues,
    /// It cannot at all.
    NoXdp,
    Unknown,
}

/// The error of a device that has refused a program in native mode.
pub(super) fn of(device: &Device, program: BorrowedFd<'_>, source: io::Error) -> Error {
    let said = words(device, program);
    let on = ethtool::active_features(&device.name).unwrap_or_default();
    let joining = [("rx-lro", "lro"), ("rx-gro-hw", "rx-gro-hw")];
    let joining = joining.into_iter().filter(|(feature, _)| on.contains(*feature)).map(|(_, flag)| flag);
    let setup = Setup { mtu: device.mtu, joining: joining.collect(), channels: ethtool::channels(&device.name).ok() };
    error(&device.name, &setup, said, source)
}

fn error(interface: &str, setup: &Setup, said: Option<String>, source: io::Error) -> Error {
    let cause = cause(setup, said.as_deref(), source.raw_os_error());
    let interface = interface.to_owned();
    if cause == Cause::NoXdp {
        return Error::NoNativeXdp { interface, source };
    }
    let (why, mend) = in_words(&interface, setup, cause, said.as_deref().unwrap_or_default());
    let said = said.map(|said| format!(": \"{said}\"")).unwrap_or_default();
    Error::DeviceRefuses { interface, why, said, mend, source }
}

/// Asks once more by netlink, which hands on the words of a driver; a link is refused without any.
fn words(device: &Device, program: BorrowedFd<'_>) -> Option<String> {
    let set = |fd: i32, flags: u32| {
        let mut message = LinkMessage::default();
        message.header.index = device.ifindex;
        message.attributes.push(LinkAttribute::Xdp(vec![LinkXdp::Fd(fd), LinkXdp::Flags(flags)]));
        ask_for_words(RouteNetlinkMessage::SetLink(message), 0)
    };
    match set(program.as_raw_fd(), NATIVE | IF_NOEXIST) {
        Err(refused) => refused.said,
        // Set up otherwise in this very moment. What no link holds is not left there.
        Ok(_) => {
            let _ = set(-1, NATIVE);
            None
        }
    }
}

fn cause(setup: &Setup, said: Option<&str>, errno: Option<i32>) -> Cause {
    let said = said.unwrap_or_default().to_lowercase();
    let names = |words: &[&str]| words.iter().any(|word| said.contains(word));
    let uses_many = |channels: Channels| channels.combined.used * 2 > channels.combined.most;
    match errno {
        _ if names(&["lro", "gro_hw", "hw-gro", "hw gro"]) => Cause::Joining,
        _ if names(&["mtu", "jumbo", "frame size"]) => Cause::FrameSize,
        _ if names(&["queue", "channel", "tx ring", "tx rings"]) => Cause::Queues,
        Some(libc::EOPNOTSUPP) => Cause::NoXdp,
        Some(libc::ERANGE) => Cause::FrameSize,
        Some(libc::ENOSPC) => Cause::Queues,
        _ if setup.mtu > LINEAR_MTU => Cause::FrameSize,
        _ if !setup.joining.is_empty() => Cause::Joining,
        _ if setup.channels.is_some_and(uses_many) => Cause::Queues,
        _ => Cause::Unknown,
    }
}

/// Why, and what mends it.
fn in_words(interface: &str, setup: &Setup, cause: Cause, said: &str) -> (String, String) {
    let mtu = setup.mtu;
    match cause {
        Cause::FrameSize if said.to_lowercase().contains("peer") || mtu <= USUAL_MTU => (
            "the MTU at the other end of it is too large".to_owned(),
            format!("ip link set dev <the other end> mtu {USUAL_MTU}"),
        ),
        Cause::FrameSize => {
            (format!("its MTU of {mtu} is too large"), format!("ip link set dev {interface} mtu {USUAL_MTU}"))
        }
        Cause::Joining => {
            let flags = if setup.joining.is_empty() { &["lro", "rx-gro-hw"] } else { setup.joining.as_slice() };
            let off: Vec<_> = flags.iter().map(|flag| format!("{flag} off")).collect();
            (
                "its card joins packets before the filter could see each".to_owned(),
                format!("ethtool -K {interface} {}", off.join(" ")),
            )
        }
        Cause::Queues => queues(interface, setup.channels, said),
        Cause::NoXdp | Cause::Unknown => (
            format!("not for its MTU of {mtu}, nor for what its card joins"),
            format!("dmesg | grep {interface}   (the driver may have said why), or --allow-generic (slower)"),
        ),
    }
}

fn queues(interface: &str, channels: Option<Channels>, said: &str) -> (String, String) {
    let Some(Channels { receiving, combined }) = channels else {
        let why = "it has not the queues for it".to_owned();
        return (
            why,
            format!("ethtool -L {interface} combined <half of what `ethtool -l {interface}` shows as in use>"),
        );
    };
    // A veth hands what its peer sends to a queue of the same number.
    if said.contains("not less than peer") {
        let why = format!("it receives on {} queues, and its peer sends on more", receiving.used);
        return match receiving.most > receiving.used {
            true => (why, format!("ethtool -L {interface} rx {}", receiving.most)),
            false => (why, format!("ethtool -L <its peer> tx {}", receiving.used)),
        };
    }
    let why = format!("it has no queues left for it, with {} of {} in use", combined.used, combined.most);
    (why, format!("ethtool -L {interface} combined {}", (combined.most / 2).max(1)))
}

#[cfg(test)]
mod tests {
    use super::super::ethtool::Queues;
    use super::*;

    fn channels(receiving: (u32, u32), combined: (u32, u32)) -> Option<Channels> {
        let queues = |(used, most)| Queues { used, most };
        Some(Channels { receiving: queues(receiving), combined: queues(combined) })
    }

    fn setup(mtu: u32) -> Setup {
        Setup { mtu, joining: Vec::new(), channels: channels((0, 0), (2, 8)) }
    }

    fn told(setup: &Setup, said: &str, errno: i32) -> String {
        let said = Some(said.to_owned()).filter(|said| !said.is_empty());
        error("eth0", setup, said, io::Error::from_raw_os_error(errno)).to_string()
    }

    #[test]
    fn each_cause_has_a_message_of_its_own_with_the_command_that_mends_it() {
        let joins = Setup { joining: vec!["lro"], ..setup(1_500) };
        let busy = Setup { channels: channels((0, 0), (8, 8)), ..setup(1_500) };
        let veth = |most| Setup { channels: channels((1, most), (0, 0)), ..setup(1_500) };
        let silent = Setup { channels: None, ..setup(1_500) };
        // As drivers of 6.18 say it, and without a word.
        for (setup, said, errno, why, mend) in [
            (&setup(9_000), "", libc::ERANGE, "its MTU of 9000", "try: ip link set dev eth0 mtu 1500"),
            (&setup(9_000), "", libc::EINVAL, "its MTU of 9000", "try: ip link set dev eth0 mtu 1500"),
            (
                &setup(9_000),
                "single-buffer XDP requires MTU less than 3530",
                libc::EINVAL,
                "less than 3530",
                "mtu 1500",
            ),
            (
                &setup(9_000),
                "MTU 9000 larger than 3498 without XDP frag support",
                libc::EOPNOTSUPP,
                "its MTU of 9000",
                "mtu 1500",
            ),
            (
                &setup(1_500),
                "Peer MTU is too large to set XDP",
                libc::ERANGE,
                "the other end",
                "dev <the other end> mtu 1500",
            ),
            (&joins, "", libc::EINVAL, "joins packets", "try: ethtool -K eth0 lro off"),
            (
                &setup(1_500),
                "can't set XDP while HW-GRO/LRO is on, disable them first",
                libc::EINVAL,
                "joins packets",
                "try: ethtool -K eth0 lro off rx-gro-hw off",
            ),
            (
                &setup(1_500),
                "Can't set XDP while host is implementing GRO_HW/CSUM, disable GRO_HW/CSUM first",
                libc::EOPNOTSUPP,
                "joins",
                "rx-gro-hw off",
            ),
            (&busy, "", libc::EINVAL, "8 of 8 in use", "try: ethtool -L eth0 combined 4"),
            (
                &busy,
                "Failed to set xdp program, there is no enough space for allocating XDP queues, Check the dmesg for more info",
                libc::EINVAL,
                "8 of 8",
                "try: ethtool -L eth0 combined 4",
            ),
            (
                &silent,
                "XDP needs a channel of its own",
                libc::EINVAL,
                "not the queues",
                "ethtool -L eth0 combined <half",
            ),
            (
                &veth(4),
                "XDP expects number of rx queues not less than peer tx queues",
                libc::ENOSPC,
                "its peer sends on more",
                "try: ethtool -L eth0 rx 4",
            ),
            (
                &veth(1),
                "XDP expects number of rx queues not less than peer tx queues",
                libc::ENOSPC,
                "its peer",
                "try: ethtool -L <its peer> tx 1",
            ),
            (&setup(1_500), "", libc::EINVAL, "not for its MTU", "try: dmesg"),
        ] {
            let told = told(setup, said, errno);
            assert!(told.contains(why) && told.contains(mend) && told.contains(said), "{said} {errno}: {told}");
            let commands = ["ip link", "ethtool -K", "ethtool -L", "dmesg"];
            let mend = told.split("try: ").nth(1).unwrap_or_default();
            assert_eq!(commands.iter().filter(|command| mend.contains(*command)).count(), 1, "one command: {told}");
        }
    }

    #[test]
    fn a_driver_without_xdp_is_told_from_one_that_refuses() {
        let said = "Underlying driver does not support XDP in native mode";
        for said in [said, ""] {
            let told = told(&setup(9_000), said, libc::EOPNOTSUPP);
            assert!(told.contains("no native XDP") && told.contains("--allow-generic"), "{told}");
        }
    }
}

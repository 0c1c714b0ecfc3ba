//! The older way to see what leaves: a filter of traffic control (cls_bpf on a clsact qdisc), asked for by netlink. It stays
//! on its device when we end, and ends with the device. It has a place and a name of its own; what others have there is left
//! alone.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

use floodwall_common::abi::program;
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::tc::{
    TcAttribute, TcBpfFlags, TcFilterBpf, TcFilterBpfOption, TcHandle, TcMessage, TcOption, TcU32OptionFlags,
};
use rtnetlink::packet_core::{NLM_F_CREATE, NLM_F_DUMP, NLM_F_ECHO, NLM_F_EXCL};

use super::netlink::ask;

/// Before all others: one that is further on may never be asked. Ours leaves every packet to the next.
const PRIORITY: u16 = 1;
/// Ours among the filters of that priority.
const HANDLE: u32 = 0xf100d;
const CLSACT: &str = "clsact";
const INGRESS: TcHandle = TcHandle { major: u16::MAX, minor: TcHandle::MIN_INGRESS };
const EGRESS: TcHandle = TcHandle { major: u16::MAX, minor: TcHandle::MIN_EGRESS };

/// Shows a program what leaves through a device. One of ours that is there is replaced between two packets.
pub(super) fn attach(program: BorrowedFd<'_>, ifindex: u32) -> io::Result<()> {
    let is_new = add_clsact(ifindex)?;
    // In a place that is not known to be ours, nothing is replaced.
    let flags = if program_on(ifindex).is_some() { 0 } else { NLM_F_CREATE | NLM_F_EXCL };
    let options = [
        TcFilterBpfOption::ProgFd(program.as_raw_fd() as u32),
        TcFilterBpfOption::ProgName(program::EGRESS.to_owned()),
        TcFilterBpfOption::Flags(TcBpfFlags::DirectAction),
        // The kernel replaces only what has the same flags here: this one stays.
        TcFilterBpfOption::FlagsGeneric(TcU32OptionFlags::SkipHw),
    ];
    let mut message = place(ifindex);
    message.attributes.push(TcAttribute::Options(options.map(TcOption::Bpf).into()));
    let attached = ask(RouteNetlinkMessage::NewTrafficFilter(message), flags).map(drop);
    if attached.is_err() && is_new {
        remove_clsact(ifindex);
    }
    attached
}

/// The number of our program on a device.
pub(super) fn program_on(ifindex: u32) -> Option<u32> {
    let answers = ask(RouteNetlinkMessage::GetTrafficFilter(place(ifindex)), 0).ok()?;
    answers.into_iter().find_map(|answer| match answer {
        RouteNetlinkMessage::NewTrafficFilter(filter) => our_program(&filter),
        _ => None,
    })
}

/// Takes our program off a device, and the qdisc too where nothing else is on it. What is not there is as good.
pub(super) fn detach(ifindex: u32) {
    if program_on(ifindex).is_some() && ask(RouteNetlinkMessage::DelTrafficFilter(place(ifindex)), 0).is_ok() {
        remove_clsact(ifindex);
    }
}

/// Our place among the filters of a device.
fn place(ifindex: u32) -> TcMessage {
    let mut message = at(ifindex, EGRESS);
    message.header.handle = HANDLE.into();
    let every_protocol = (libc::ETH_P_ALL as u16).to_be();
    message.header.info = TcHandle { major: PRIORITY, minor: every_protocol }.into();
    message.attributes.push(TcAttribute::Kind(TcFilterBpf::KIND.to_owned()));
    message
}

fn at(ifindex: u32, parent: TcHandle) -> TcMessage {
    let mut message = TcMessage::with_index(ifindex as i32);
    message.header.parent = parent;
    message
}

/// The number of a filter's program, where that has our name.
fn our_program(filter: &TcMessage) -> Option<u32> {
    let options = filter.attributes.iter().find_map(|attribute| match attribute {
        TcAttribute::Options(options) => Some(options),
        _ => None,
    })?;
    let has_name = |option: &TcOption| match option {
        TcOption::Bpf(TcFilterBpfOption::ProgName(name)) => name == program::EGRESS,
        _ => false,
    };
    let number = |option: &TcOption| match option {
        TcOption::Bpf(TcFilterBpfOption::ProgId(number)) => Some(*number),
        _ => None,
    };
    options.iter().any(has_name).then(|| options.iter().find_map(number)).flatten()
}

fn clsact(ifindex: u32) -> TcMessage {
    let mut message = at(ifindex, TcHandle::CLSACT);
    message.header.handle = TcHandle { major: u16::MAX, minor: 0 };
    message.attributes.push(TcAttribute::Kind(CLSACT.to_owned()));
    message
}

/// Gives a device the qdisc that has filters for what leaves. `false` where it has it already.
fn add_clsact(ifindex: u32) -> io::Result<bool> {
    match ask(RouteNetlinkMessage::NewQueueDiscipline(clsact(ifindex)), NLM_F_CREATE | NLM_F_EXCL) {
        Err(error) if error.raw_os_error() == Some(libc::EEXIST) => {
            // An `ingress` qdisc would take the filter too, and show it what comes in.
            ask(RouteNetlinkMessage::GetQueueDiscipline(clsact(ifindex)), 0).map(|_| false)
        }
        added => added.map(|_| true),
    }
}

/// Takes the qdisc off a device that has no filter on it, nor shares those of others. The kernel has no word for that, so who
/// adds one at this very moment loses it.
fn remove_clsact(ifindex: u32) {
    let is_empty = |parent| {
        let filters = ask(RouteNetlinkMessage::GetTrafficFilter(at(ifindex, parent)), NLM_F_DUMP);
        filters.is_ok_and(|filters| filters.is_empty())
    };
    if !shares_filters(ifindex) && is_empty(INGRESS) && is_empty(EGRESS) {
        // Where it is gone already, or stays, what was ours is off.
        let _ = ask(RouteNetlinkMessage::DelQueueDiscipline(clsact(ifindex)), 0);
    }
}

/// Whether the filters of the qdisc are those of other devices too.
fn shares_filters(ifindex: u32) -> bool {
    const BLOCKS: [u16; 2] = [13, 14];
    let is_block = |attribute: &TcAttribute| {
        use rtnetlink::packet_core::Nla as _;
        BLOCKS.contains(&attribute.kind())
    };
    let found = ask(RouteNetlinkMessage::GetQueueDiscipline(clsact(ifindex)), NLM_F_ECHO);
    found.into_iter().flatten().any(|answer| match answer {
        RouteNetlinkMessage::NewQueueDiscipline(qdisc) => qdisc.attributes.iter().any(is_block),
        _ => false,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn filter(options: &[TcFilterBpfOption]) -> TcMessage {
        let mut message = place(7);
        message.attributes.push(TcAttribute::Options(options.iter().cloned().map(TcOption::Bpf).collect()));
        message
    }

    #[test]
    fn a_filter_is_ours_by_its_name() {
        let name = |name: &str| TcFilterBpfOption::ProgName(name.to_owned());
        let number = TcFilterBpfOption::ProgId(42);
        assert_eq!(our_program(&filter(&[name("floodwall_egress"), number.clone()])), Some(42));
        assert_eq!(our_program(&filter(&[name("cil_to_netdev"), number.clone()])), None);
        assert_eq!(our_program(&filter(&[number])), None);
        assert_eq!(our_program(&at(7, EGRESS)), None);
    }
}

//! The layout of everything that lies in a map, against `abi.golden`. A kernel half and a controller of different builds
//! agree on nothing else; so a layout that changes is a new version. Only what is public has an offset here.
//!
//! `BLESS=1 cargo test -p floodwall-common --test abi` writes the golden file anew.

#![allow(clippy::unwrap_used, reason = "tests panic")]

use std::fmt::Write as _;
use std::mem::offset_of;
use std::{env, fs};

use floodwall_common::abi::{
    ABI_VERSION, ClockReading, Counter, CpuState, InterfaceRecord, Sample, Sampler, constant, map, program,
};
use floodwall_common::class::Kind;
use floodwall_common::config::{Config, Sampling};
use floodwall_common::groups::GroupRecord;
use floodwall_common::hash::HashKey;
use floodwall_common::limiter::Bucket;
use floodwall_common::limits::{LimitName, RateSpec};
use floodwall_common::lists::{Key4, Key6, List, ListEntry, ListState, Prefilter};
use floodwall_common::meter::{Meter, Meters};
use floodwall_common::reason::{DropSet, Reason};
use floodwall_common::signatures::table::Table;
use floodwall_common::signatures::{Action, Fragment, Range, Record, Records, Shape, SignatureState, TcpOption};

const GOLDEN: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/abi.golden");

/// A line with size and alignment of a type, and one for the offset of each field.
macro_rules! layout {
    ($out:ident, $type:ident $( { $( $field:ident ),+ $(,)? } )?) => {
        let name = stringify!($type);
        writeln!($out, "{name}: size {} align {}", size_of::<$type>(), align_of::<$type>()).unwrap();
        $( $( writeln!($out, "{name}.{}: offset {}", stringify!($field), offset_of!($type, $field)).unwrap(); )+ )?
    };
}

fn layouts() -> String {
    let mut out = String::new();
    layout!(
        out,
        Config {
            mode,
            lists,
            drops,
            sampling,
            key,
            meters,
            wider,
            groups,
            allowed,
            signatures,
            trial_until_ns,
            group_records,
            specs,
            generation,
            mode_since_unix_s
        }
    );
    layout!(out, Sampling { budget });
    layout!(out, Meters { packets, bytes });
    layout!(out, Meter);
    layout!(out, GroupRecord { name });
    layout!(out, RateSpec);
    layout!(out, HashKey);
    layout!(out, DropSet);
    layout!(out, ListState);
    layout!(out, Key4);
    layout!(out, Key6);
    layout!(out, ListEntry { covered_until_ns, until_ns, added_unix_s, group, note });
    layout!(out, Prefilter { bits });
    layout!(out, Bucket);
    layout!(out, CpuState { samplers, gate, counters, signatures });
    layout!(out, Sampler { weight, written, second_began_ns, lost, packets });
    layout!(out, Counter { packets, bytes });
    layout!(
        out,
        Sample {
            monotonic_ns,
            weight,
            frame_bytes,
            head_bytes,
            cpu,
            slot,
            reason,
            kind,
            verdict,
            stream,
            wanted,
            reserved,
            head,
        }
    );
    layout!(out, InterfaceRecord { ifindex, generic, since_unix_s, name, object_hash });
    layout!(out, ClockReading { ticks, monotonic_ns });
    layout!(out, SignatureState);
    layout!(out, Table);
    layout!(out, Records);
    layout!(out, Record { shape, until_ns, added_unix_s, before, action, name, note });
    layout!(
        out,
        Shape {
            protocol,
            families,
            fragments,
            flags,
            flags_mask,
            asks_layout,
            payload_offset,
            source_ports,
            destination_ports,
            lengths,
            hops,
            layout,
            payload,
            payload_mask,
        }
    );
    layout!(out, Range { first, last });
    out
}

/// What a number in a map means.
fn numbers() -> String {
    let mut out = String::new();
    for reason in Reason::ALL {
        writeln!(out, "reason {}: {}", *reason as u8, reason.label()).unwrap();
    }
    for kind in Kind::all_ip() {
        let (family, class) = kind.parts().unwrap();
        writeln!(out, "kind {}: {} {}", kind.index(), family.label(), class.label()).unwrap();
    }
    writeln!(out, "kind {}: not ip", Kind::NOT_IP.index()).unwrap();
    for list in List::ALL {
        writeln!(out, "list {}: {}", *list as u8, list.label()).unwrap();
    }
    for action in Action::ALL {
        writeln!(out, "action {}: {}", *action as u8, action.label()).unwrap();
    }
    for fragment in Fragment::ALL {
        writeln!(out, "fragment {}: {}", *fragment as u8, fragment.label()).unwrap();
    }
    for option in TcpOption::ALL {
        writeln!(out, "option {}: {}", *option as u8, option.label()).unwrap();
    }
    for limit in LimitName::ALL {
        writeln!(out, "limit {}: {}", *limit as u8, limit.label()).unwrap();
    }
    out
}

fn names() -> String {
    let mut out = String::new();
    for name in map::ALL {
        writeln!(out, "map {name}").unwrap();
    }
    for name in [program::FILTER, program::FILTER_FRAGS, program::CLOCK] {
        writeln!(out, "program {name}").unwrap();
    }
    for name in [constant::TICK_NS, constant::COUNTERS] {
        writeln!(out, "constant {name}").unwrap();
    }
    out
}

#[test]
fn the_layout_is_that_of_its_version() {
    let now = format!("abi-version: {ABI_VERSION}\n{}{}{}", layouts(), numbers(), names());
    if env::var_os("BLESS").is_some() {
        fs::write(GOLDEN, &now).unwrap();
        return;
    }
    let golden = fs::read_to_string(GOLDEN).unwrap_or_default();
    let was: Vec<&str> = golden.lines().filter(|line| !now.lines().any(|other| other == *line)).collect();
    let is: Vec<&str> = now.lines().filter(|line| !golden.lines().any(|other| other == *line)).collect();
    assert!(golden == now, "raise ABI_VERSION and regenerate with BLESS=1\nwas: {was:#?}\nis: {is:#?}");
}

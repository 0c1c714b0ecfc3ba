//! What may be typed of services, groups and signatures.

use std::time::Duration;

use clap::{Args, Subcommand, ValueEnum};
use ipnet::IpNet;

use super::{Prefixes, at_once, duration, prefix};

#[derive(Clone, Debug, Subcommand)]
pub(in crate::cli) enum Service {
    /// Show the services
    List,
    /// Add a service, or replace the one of that name
    Add(AddService),
    /// Remove services
    Remove {
        /// Their names
        #[arg(required = true)]
        names: Vec<String>,
    },
}

#[derive(Clone, Debug, Args)]
pub(in crate::cli) struct AddService {
    /// What to call it: up to 16 letters, digits, dots, dashes and underscores
    #[arg(required_unless_present = "listen", conflicts_with = "listen")]
    pub(in crate::cli) name: Option<String>,
    /// A port that it is behind, or several as 80,8000-8010; may be given several times
    #[arg(
        long = "port",
        value_name = "PORT",
        value_delimiter = ',',
        required_unless_present = "listen",
        conflicts_with = "listen"
    )]
    pub(in crate::cli) ports: Vec<String>,
    /// Its protocol, or both as tcp,udp
    #[arg(long, value_enum, value_delimiter = ',', default_values_t = [Proto::Tcp])]
    pub(in crate::cli) proto: Vec<Proto>,
    /// Packets per second to it from all sources together; verified sources come first. Without it there is no cap
    #[arg(long, value_name = "PACKETS", value_parser = at_once)]
    pub(in crate::cli) cap_pps: Option<u64>,
    /// Packets at once; without it, half a second of --cap-pps
    #[arg(long, value_name = "PACKETS", value_parser = at_once, requires = "cap_pps")]
    pub(in crate::cli) cap_burst: Option<u64>,
    /// New connections per second to it from all sources together; sources that were here before come first. Without it there is no cap
    #[arg(long, value_name = "CONNECTIONS", value_parser = at_once)]
    pub(in crate::cli) connections_per_second: Option<u64>,
    /// Take every port that this host listens on for others, each as a service of its own
    #[arg(long)]
    pub(in crate::cli) listen: bool,
}

#[derive(Clone, Debug, Subcommand)]
pub(in crate::cli) enum Group {
    /// Show the groups and their limits
    List,
    /// Add a group, or prefixes to it. Limits: floodwall limits set udp --group NAME --pps 500
    Add(AddGroup),
    /// Remove prefixes from a group; without any, the group and its limits
    Remove {
        /// Its name
        name: String,
        /// Addresses or prefixes
        #[arg(value_parser = prefix)]
        prefixes: Vec<IpNet>,
        /// Do it though a group that blocks would then hold somebody whom this host needs
        #[arg(long)]
        force: bool,
    },
}

#[derive(Clone, Debug, Args)]
pub(in crate::cli) struct AddGroup {
    /// What to call it: up to 16 letters, digits, dots, dashes and underscores
    pub(in crate::cli) name: String,
    #[command(flatten)]
    pub(in crate::cli) prefixes: Prefixes,
    /// Do it though the group blocks, and would hold nearly everybody, or somebody whom this host needs
    #[arg(long)]
    pub(in crate::cli) force: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(in crate::cli) enum Proto {
    Tcp,
    Udp,
}

impl Proto {
    pub(in crate::cli) const fn label(self) -> &'static str {
        match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
        }
    }
}

#[derive(Clone, Debug, Subcommand)]
pub(in crate::cli) enum Signature {
    /// Add a signature: it suits packets that have all that is named
    Add(Box<AddSignature>),
    /// Show the signatures and their hits
    List,
    /// Remove signatures
    Remove {
        /// Their names
        #[arg(required = true)]
        names: Vec<String>,
    },
}

#[derive(Clone, Debug, Args)]
pub(in crate::cli) struct AddSignature {
    /// What to call it: letters, digits, '-', '_' and '.'
    pub(in crate::cli) name: String,
    /// drop: the packets end here; count: they are counted, and judged as if this were not there
    #[arg(long, value_enum)]
    pub(in crate::cli) action: ActionName,
    /// ipv4 or ipv6
    #[arg(long, value_name = "FAMILY")]
    pub(in crate::cli) family: Option<String>,
    /// tcp, udp, icmp, icmpv6 or a number
    #[arg(long, visible_alias = "protocol", value_name = "PROTOCOL")]
    pub(in crate::cli) proto: Option<String>,
    /// Source port, or a range of them
    #[arg(long, value_name = "A[-B]")]
    pub(in crate::cli) src_port: Option<String>,
    /// Destination port, or a range of them
    #[arg(long, value_name = "A[-B]")]
    pub(in crate::cli) dst_port: Option<String>,
    /// Bytes of the IP packet with its headers
    #[arg(long, value_name = "A[-B]")]
    pub(in crate::cli) length: Option<String>,
    /// Time to live, or hop limit, as it comes in
    #[arg(long, visible_alias = "ttl-range", value_name = "A[-B]")]
    pub(in crate::cli) hops: Option<String>,
    /// TCP flags: fin, syn, rst, psh, ack, urg, ece, cwr; `!` for not set
    #[arg(long, value_name = "SYN,!ACK")]
    pub(in crate::cli) flags: Option<String>,
    /// TCP options, all of them in their order, or `none`: mss,sack,ts,nop,ws
    #[arg(long, value_name = "KINDS")]
    pub(in crate::cli) options: Option<String>,
    /// none, first or later; several with commas
    #[arg(long, value_name = "WHICH")]
    pub(in crate::cli) fragment: Option<String>,
    /// Bytes of the payload in hex, `??` for any, and where they begin: d9ff????@0
    #[arg(long, value_name = "HEX@OFFSET")]
    pub(in crate::cli) payload: Option<String>,
    /// Ends by itself after this time, for example 1h
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    pub(in crate::cli) ttl: Option<Duration>,
    /// Why: up to 56 bytes are kept
    #[arg(long, default_value = "")]
    pub(in crate::cli) reason: String,
    /// Take all of a protocol
    #[arg(long)]
    pub(in crate::cli) force: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(in crate::cli) enum ActionName {
    Drop,
    Count,
}

impl ActionName {
    pub(in crate::cli) const fn label(self) -> &'static str {
        match self {
            Self::Drop => "drop",
            Self::Count => "count",
        }
    }
}

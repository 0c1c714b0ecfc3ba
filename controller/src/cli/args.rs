//! What may be typed, and its meaning checked as far as the words alone tell.

mod armed;
mod incidents;

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use clap::builder::PossibleValuesParser;
use clap::{ArgAction, Args, Parser, Subcommand, ValueEnum};
use floodwall_common::limits::Per;
use ipnet::IpNet;

pub(super) use self::armed::{AddGroup, AddService, AddSignature, Group, Service, Signature};
pub(super) use self::incidents::{Drill, Incident, Replay, Text};
use crate::api::DEFAULT_SOCKET;
use crate::configuration::Quantity;
use crate::dataplane::EgressHook;
use crate::talkers::By;
use crate::{history, prefixes, respond};

/// Drops floods at the NIC.
#[derive(Clone, Debug, Parser)]
#[command(name = "floodwall", version, propagate_version = true, arg_required_else_help = true)]
pub(super) struct Cli {
    #[command(flatten)]
    pub(super) global: Global,
    #[command(subcommand)]
    pub(super) verb: Verb,
}

/// What every verb takes.
#[derive(Clone, Debug, Args)]
pub(super) struct Global {
    /// The daemon's control socket
    #[arg(long, global = true, env = "FLOODWALL_SOCKET", default_value = DEFAULT_SOCKET, value_name = "PATH")]
    pub(super) socket: PathBuf,
    /// The BPF file system that holds the pinned maps
    #[arg(long, global = true, env = "FLOODWALL_BPFFS", default_value = "/sys/fs/bpf", value_name = "PATH")]
    pub(super) bpffs: PathBuf,
    /// The configuration file; without it, /etc/floodwall/floodwall.toml where it is there
    #[arg(long, global = true, env = "FLOODWALL_CONFIG", value_name = "PATH")]
    pub(super) config: Option<PathBuf>,
    /// Where it is written who changed what
    #[arg(long, global = true, env = "FLOODWALL_HISTORY", default_value = history::DEFAULT_PATH, value_name = "PATH")]
    pub(super) history: PathBuf,
    /// Print JSON
    #[arg(long, global = true)]
    pub(super) json: bool,
    /// Why something is changed: written into the history
    #[arg(long, global = true, value_name = "TEXT")]
    pub(super) why: Option<String>,
    /// Ask again every so many seconds, 2 if not said, until interrupted. Only for verbs that look
    #[arg(long, global = true, value_name = "SECONDS", num_args = 0..=1, default_missing_value = "2",
        value_parser = clap::value_parser!(u32).range(1..=3600))]
    pub(super) watch: Option<u32>,
}

#[derive(Clone, Debug, Subcommand)]
pub(super) enum Verb {
    /// Protect interfaces: the daemon
    Run(Run),
    /// Attached? Enforcing? What passes, what is dropped, and why
    Status,
    /// Show or set what one source may send
    #[command(subcommand)]
    Limits(Limits),
    /// Whether drops are real
    Mode {
        /// monitor: count what would be dropped; enforce: drop it
        mode: ModeName,
        #[command(flatten)]
        trial: Trial,
    },
    /// Keep drops that `--confirm` has made real
    Confirm,
    /// The kill switch: nothing drops from now on, whatever anybody or anything sets
    Stop,
    /// Go on as before `stop`
    Resume,
    /// Show or choose what malformed and odd packets come to
    #[command(subcommand)]
    Policy(Policy),
    /// Show or change the UDP ports that answers are looked for from
    #[command(subcommand)]
    Amplifiers(Amplifiers),
    /// Name what this host serves, and cap it
    #[command(subcommand)]
    Service(Service),
    /// Name sources that have limits of their own
    #[command(subcommand)]
    Group(Group),
    /// Choose what becomes of fragments whose ports cannot be known
    Fragments {
        /// limit: by the limit `fragment`, back at its default; drop: all of them; pass: all of them
        policy: FragmentPolicy,
    },
    /// Show or choose whether SYNs are answered with cookies
    #[command(subcommand)]
    Cookies(Cookies),
    /// Drop what no service expects, and nobody here has asked for
    Lockdown {
        /// on, or off
        state: Switch,
        /// Do it though there is no service: only answers to what this host asks then pass
        #[arg(long)]
        force: bool,
    },
    /// Show or change what floods are known by beside their sources
    #[command(subcommand)]
    Signature(Signature),
    /// Sources that always pass
    #[command(subcommand)]
    Allow(List),
    /// Sources that never pass
    #[command(subcommand)]
    Deny(List),
    /// Who sends most, and who is dropped
    Top {
        /// What to sort by
        #[arg(long, value_enum, default_value_t)]
        by: By,
        /// How many
        #[arg(short, long, default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..=1000))]
        number: u32,
    },
    /// What would happen to a source now, and why
    Explain {
        /// An IPv4 or IPv6 address
        source: IpAddr,
    },
    /// What went on: the record of each attack, surge and overload, as texts to send
    #[command(subcommand)]
    Incident(Incident),
    /// What the packet path and detection say of a capture, in virtual time; nothing is loaded or sent
    Replay(Replay),
    /// What Prometheus would scrape
    Metrics,
    /// What stands in the way of protecting an interface, and what mends it
    Doctor {
        /// Look at this interface; may be given several times. Without it, at those of the configuration file
        #[arg(short, long = "interface", visible_alias = "iface", value_name = "NAME", value_parser = interface_name,
            action = ArgAction::Append)]
        interfaces: Vec<String>,
        /// The same, without the flag
        #[arg(value_name = "INTERFACE", value_parser = interface_name)]
        named: Vec<String>,
    },
    /// What of it that runs somebody should look at: limits, lists, people to call, drills
    Audit,
    /// What to do when an alert fires; without a name, which there are
    Runbook {
        /// The alert
        name: Option<String>,
    },
    /// Have the alert `FloodwallDrill` fire, and say that it was received
    #[command(subcommand)]
    Drill(Drill),
    /// Check or show the configuration file
    #[command(subcommand)]
    Config(Config),
    /// Have the daemon read its configuration file anew: all of it comes in force, or nothing
    #[command(visible_alias = "apply")]
    Reload(Trial),
    /// Who changed what, and when
    History {
        /// How many changes, the latest last
        #[arg(short, long, default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..=10_000))]
        number: u32,
    },
    /// Print completions for a shell
    Completions {
        /// bash, zsh, fish, elvish or powershell
        shell: clap_complete::Shell,
    },
    /// Write the man pages, one for each verb
    Man {
        /// Where to
        directory: PathBuf,
    },
    /// Take the filter off
    Detach {
        /// Only off this interface
        #[arg(long, value_name = "NAME", value_parser = interface_name)]
        interface: Option<String>,
    },
    /// Leave nothing in the kernel: off all interfaces, all that is pinned removed. Not while the daemon runs
    Uninstall {
        /// Remove configuration and history too
        #[arg(long)]
        purge: bool,
    },
}

#[derive(Clone, Debug, Args)]
pub(super) struct Trial {
    /// Monitor mode again after this time, for example 60s, unless `floodwall confirm` comes first, daemon or none
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    pub(super) confirm: Option<Duration>,
}

impl Trial {
    pub(super) fn seconds(&self) -> Option<u64> {
        self.confirm.map(|time| time.as_secs())
    }
}

#[derive(Clone, Debug, Args)]
pub(super) struct Run {
    /// An interface to protect; may be given several times
    #[arg(short, long = "interface", visible_alias = "iface", value_name = "NAME", value_parser = interface_name,
        action = ArgAction::Append)]
    pub(super) interfaces: Vec<String>,
    /// Accept generic XDP where the driver has no native one (slower)
    #[arg(long)]
    pub(super) allow_generic: bool,
    /// How to see what leaves; where the kernel has no TCX it is clsact in any case
    #[arg(long, value_enum, default_value_t, hide = true)]
    pub(super) egress_hook: EgressHook,
    /// Mode to start in; without it the mode stays what it is, monitor at first
    #[arg(long, value_enum)]
    pub(super) mode: Option<ModeName>,
    /// With --mode enforce: monitor mode again after this time, unless `floodwall confirm` comes first
    #[arg(long, value_name = "DURATION", value_parser = duration, requires = "mode")]
    pub(super) confirm: Option<Duration>,
    /// Where to serve metrics, or `off`; without it 127.0.0.1:9557
    #[arg(long, value_name = "ADDRESS:PORT", value_parser = metrics_address)]
    pub(super) metrics: Option<MetricsAddress>,
    /// Serve metrics on an address that others can reach
    #[arg(long)]
    pub(super) metrics_public: bool,
    /// Serve the whole API there to whoever has the token, or `off`. Not encrypted
    #[arg(long, value_name = "ADDRESS:PORT", value_parser = metrics_address)]
    pub(super) api: Option<MetricsAddress>,
    /// The file that has the token; without it the credential `api-token`, or FLOODWALL_API_TOKEN
    #[arg(long, value_name = "PATH")]
    pub(super) api_token_file: Option<PathBuf>,
    /// Take the filter off again when stopped
    #[arg(long)]
    pub(super) detach_on_exit: bool,
    /// What to do about an attack that is found: off, advise, or act (the default): arm the narrowest mechanism for ten minutes
    #[arg(long, value_enum)]
    pub(super) respond: Option<respond::Policy>,
    /// Log as JSON
    #[arg(long)]
    pub(super) log_json: bool,
}

#[derive(Clone, Debug, Subcommand)]
pub(super) enum Config {
    /// Say whether the files are right, and if not, where
    Check,
    /// Show what the files say, and the defaults of the rest
    Show {
        /// Say of each key where it is from
        #[arg(long)]
        origin: bool,
    },
    /// Show what a reload would change
    Diff,
    /// Print the JSON Schema of the file, for editors
    Schema,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum ModeName {
    Monitor,
    Enforce,
}

impl ModeName {
    pub(super) const fn label(self) -> &'static str {
        match self {
            Self::Monitor => "monitor",
            Self::Enforce => "enforce",
        }
    }
}

#[derive(Clone, Debug, Subcommand)]
pub(super) enum Limits {
    /// Show the limits in force
    Show,
    /// Set a limit; what is not named stays
    Set(SetLimit),
    /// What a limit would have dropped of the last minutes; sets nothing
    Preview(PreviewLimit),
    /// Back to the defaults
    Reset {
        /// Only these
        names: Vec<String>,
        /// Those that this group of sources has of its own: they are as for everybody again
        #[arg(long, value_name = "NAME")]
        group: Option<String>,
    },
}

#[derive(Clone, Debug, Args)]
pub(super) struct PreviewLimit {
    /// tcp-syn, tcp, udp, icmp, fragment or other
    pub(super) name: String,
    /// Who would share the limit: one source, or all of an IPv4 /24 or IPv6 /56 (subnet), or of a /16 or /48 (network)
    #[arg(long, value_name = "WHO", default_value = "source", value_parser = who_shares())]
    pub(super) per: String,
    /// Only of sources in this group; without it, of those that are in no group with such a limit of its own
    #[arg(long, value_name = "NAME", conflicts_with = "per")]
    pub(super) group: Option<String>,
    /// Packets per second
    #[arg(long, value_name = "PACKETS", value_parser = whole_number)]
    pub(super) pps: u64,
    /// Packets at once; without it, one second of --pps
    #[arg(long, value_name = "PACKETS", value_parser = at_once)]
    pub(super) burst: Option<u64>,
}

#[derive(Clone, Debug, Args)]
#[command(group = clap::ArgGroup::new("what").required(true).multiple(true).args(["pps", "burst", "bps", "byte_burst"]))]
pub(super) struct SetLimit {
    /// tcp-syn, tcp, udp, icmp, fragment, other, or allowed
    pub(super) name: String,
    /// Who shares the limit: one source, or all of an IPv4 /24 or IPv6 /56 (subnet), or of a /16 or /48 (network)
    #[arg(long, value_name = "WHO", default_value = "source", value_parser = who_shares())]
    pub(super) per: String,
    /// Only for sources in this group, in place of what holds for everybody
    #[arg(long, value_name = "NAME", conflicts_with = "per")]
    pub(super) group: Option<String>,
    /// Packets per second, or `off`
    #[arg(long, value_name = "PACKETS", value_parser = quantity)]
    pub(super) pps: Option<Quantity>,
    /// Packets at once; without it, one second of --pps
    #[arg(long, value_name = "PACKETS", value_parser = at_once)]
    pub(super) burst: Option<u64>,
    /// Bytes per second, or `off`
    #[arg(long, value_name = "BYTES", value_parser = quantity)]
    pub(super) bps: Option<Quantity>,
    /// Bytes at once; without it, one second of --bps
    #[arg(long, value_name = "BYTES", value_parser = at_once)]
    pub(super) byte_burst: Option<u64>,
    /// Do it though a limit of 0 blocks all of this class
    #[arg(long, visible_alias = "yes-block-all")]
    pub(super) force: bool,
    /// Write it into the configuration file too
    #[arg(long)]
    pub(super) save: bool,
}

fn who_shares() -> PossibleValuesParser {
    PossibleValuesParser::new(Per::ALL.iter().map(|per| per.label()))
}

#[derive(Clone, Debug, Subcommand)]
pub(super) enum Amplifiers {
    /// Show the ports
    List,
    /// Look for answers from these ports too
    Add {
        /// UDP ports
        #[arg(required = true)]
        ports: Vec<u16>,
    },
    /// No longer look for answers from these
    Remove {
        /// UDP ports
        #[arg(required = true)]
        ports: Vec<u16>,
    },
    /// Back to the ports that floods are known to come from
    Reset,
}

#[derive(Clone, Debug, Subcommand)]
pub(super) enum Cookies {
    /// Show how SYNs are answered, and how the stack is set up for it
    Show,
    /// The stack answers
    Off,
    /// Answer where a listener's queue of half-open connections is full
    Auto(Answers),
    /// Answer every SYN to a listener
    Always(Answers),
}

#[derive(Clone, Debug, Args)]
pub(super) struct Answers {
    /// Answers per second to one subnet (IPv4 /24, IPv6 /56); without it, what it is
    #[arg(long, value_name = "PACKETS", value_parser = at_once)]
    pub(super) answers_pps: Option<u64>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum FragmentPolicy {
    Limit,
    Drop,
    Pass,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum Switch {
    On,
    Off,
}

#[derive(Clone, Debug, Subcommand)]
pub(super) enum Policy {
    /// Show what each of these reasons does
    Show,
    /// Choose what a reason does
    Set {
        /// For example martian, or malformed-udp
        reason: String,
        /// What it does in enforce mode
        verdict: VerdictName,
    },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum VerdictName {
    Pass,
    Drop,
}

impl VerdictName {
    pub(super) const fn label(self) -> &'static str {
        match self {
            Self::Pass => "pass",
            Self::Drop => "drop",
        }
    }
}

#[derive(Clone, Debug, Subcommand)]
pub(super) enum List {
    /// Add prefixes
    Add(Add),
    /// Remove prefixes
    Remove(Prefixes),
    /// Show the list
    #[command(name = "list")]
    Show,
}

#[derive(Clone, Debug, Default, Args)]
pub(super) struct Prefixes {
    /// Addresses or prefixes
    #[arg(value_parser = prefix, required_unless_present = "file")]
    pub(super) prefixes: Vec<IpNet>,
    /// A file with an address or prefix on each line; `#` begins a comment
    #[arg(long, value_name = "PATH")]
    pub(super) file: Option<PathBuf>,
}

#[derive(Clone, Debug, Args)]
pub(super) struct Add {
    #[command(flatten)]
    pub(super) prefixes: Prefixes,
    /// Ends by itself after this time, for example 1h
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    pub(super) ttl: Option<Duration>,
    /// Why: up to 56 bytes are kept
    #[arg(long, default_value = "")]
    pub(super) reason: String,
    /// Do it though it is dangerous
    #[arg(long, visible_alias = "i-know")]
    pub(super) force: bool,
    /// With --force, for a prefix that might lock you out: it ends after this time, unless you repeat the command with a
    /// longer one
    #[arg(long, value_name = "DURATION", value_parser = duration, requires = "force", conflicts_with = "ttl")]
    pub(super) confirm: Option<Duration>,
}

/// A name that the kernel could have for an interface; what it has is asked later.
fn interface_name(text: &str) -> Result<String, String> {
    let fits = !text.is_empty() && text.len() <= 15;
    let plain = text.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'/' && byte != b':');
    if fits && plain && text != "." && text != ".." {
        return Ok(text.to_owned());
    }
    Err("an interface name has 1 to 15 printable characters, without '/', ':' and blanks".to_owned())
}

fn quantity(text: &str) -> Result<Quantity, String> {
    if text == "off" {
        return Ok(Quantity::Off);
    }
    whole_number(text).map(Quantity::PerSecond).map_err(|error| format!("{error}, or `off`"))
}

fn at_once(text: &str) -> Result<u64, String> {
    let number = whole_number(text)?;
    if (1..=u64::from(u32::MAX)).contains(&number) {
        return Ok(number);
    }
    Err(format!("a burst is a whole number from 1 to {}", u32::MAX))
}

fn whole_number(text: &str) -> Result<u64, String> {
    let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let number = if digits { text.parse().ok() } else { None };
    number.ok_or_else(|| "a whole number without unit, for example 2000".to_owned())
}

fn duration(text: &str) -> Result<Duration, String> {
    let duration = humantime::parse_duration(text)
        .map_err(|error| format!("{error}; a duration is a number and a unit, for example 90s, 15m or 1h30m"))?;
    if duration.as_secs() == 0 {
        return Err("the shortest time is 1s".to_owned());
    }
    Ok(duration)
}

/// An address or a prefix. Bits behind the prefix are cut off, and said so.
pub(super) fn prefix(text: &str) -> Result<IpNet, String> {
    let prefix = prefixes::parse(text)?;
    if text.contains('/') && text.parse() != Ok(prefix) {
        eprintln!("floodwall: {text} has bits behind its prefix: taken as {prefix}");
    }
    Ok(prefix)
}

/// Where metrics are served.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct MetricsAddress(pub(super) Option<SocketAddr>);

pub(super) fn metrics_address(text: &str) -> Result<MetricsAddress, String> {
    if text == "off" {
        return Ok(MetricsAddress(None));
    }
    let address = text.parse().map_err(|_| "an address and a port, for example 127.0.0.1:9557, or `off`".to_owned())?;
    Ok(MetricsAddress(Some(address)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn numbers_are_whole_and_plain() {
        assert_eq!(quantity("2000"), Ok(Quantity::PerSecond(2_000)));
        assert_eq!(quantity("off"), Ok(Quantity::Off));
        for bad in ["", "-1", "1e30", "NaN", "10kpps", "18446744073709551616", "+5", " 5", "0x10"] {
            assert!(quantity(bad).is_err(), "{bad}");
        }
        assert!(at_once("0").is_err() && at_once("4294967296").is_err());
    }

    #[test]
    fn prefixes_are_normalised_or_refused() {
        assert_eq!(prefix("10.0.0.1/8").map(|prefix| prefix.to_string()), Ok("10.0.0.0/8".to_owned()));
        assert_eq!(prefix("2001:db8::1").map(|prefix| prefix.to_string()), Ok("2001:db8::1/128".to_owned()));
        for bad in ["10.0.0.1/33", "10.0.0", "::/129", "example.org", ""] {
            assert!(prefix(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn interface_names_are_ones_the_kernel_could_have() {
        for good in ["eth0", "eth0.100", "wlp0s20f3", "a"] {
            assert!(interface_name(good).is_ok(), "{good}");
        }
        for bad in ["", "e\0", "eth 0", "eth\n0", "a/b", ".", "..", "sixteen-letters-", &"x".repeat(300)] {
            assert!(interface_name(bad).is_err(), "{bad:?}");
        }
    }
}

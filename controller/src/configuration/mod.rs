//! The configuration file: what it may say, who said it, and what it changes.
//!
//! `floodwall.toml` and then, by name, the files of `conf.d` beside it. A later file wins, key by key. A section that no file
//! has leaves what is in force alone; of a section that one has, all is as the files say, or the default.

mod apply;
mod groups;
mod last_good;
mod read;
mod save;
mod signatures;

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use floodwall_common::cookie::CookieMode;
use floodwall_common::limits::{LimitKey, LimitName, Limits, Per, Rate};
use floodwall_common::reason::{Reason, Verdict};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

pub(crate) use apply::service_in_words;
pub use apply::{Change, Plan, PreparedPlan};
pub use groups::SourceGroup;
pub use last_good::LastGood;
pub use read::{DEFAULT_PATH, Origins, Source};
pub use save::save_limit;
pub(crate) use signatures::signature_in_words;
pub use signatures::{ActionName, Amplifiers, Field, Signature};

use crate::api::{RateView, ServiceView};
use crate::peers::{Peer, trusted};
use crate::respond::{Cause, Policies, Policy};

/// Where metrics are served unless somebody says otherwise.
pub const DEFAULT_METRICS: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 9557);

/// The group whose members may look, where nobody names another.
pub const READ_GROUP: &str = "floodwall-read";

/// What the files say. All of it is optional.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Configuration {
    /// Interfaces to protect.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub interfaces: Option<Vec<String>>,
    /// Accept generic XDP where the driver has no native one. Default: false.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub allow_generic: Option<bool>,
    /// `monitor` counts what would be dropped, `enforce` drops it. Default: as it is, monitor at first.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mode: Option<ModeName>,
    /// Where to serve metrics, or `off`. Default: 127.0.0.1:9557.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub metrics: Option<String>,
    /// Serve metrics on an address that others can reach. Default: false.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub metrics_public: Option<bool>,
    /// Where whoever has the token may use the whole API, over TCP without encryption. Default: nowhere.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub api: Option<String>,
    /// The file that has the token. Default: the credential `api-token`, or `FLOODWALL_API_TOKEN`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub api_token_file: Option<std::path::PathBuf>,
    /// The group whose members may look at everything, and change nothing. Default: floodwall-read, where it exists.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub read_group: Option<String>,
    /// How to log. Default: text.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub log: Option<LogFormat>,
    /// What is done about an attack that is found, or about clients that ask too much: `act` arms the narrowest mechanism for ten minutes at a time, `advise` says what
    /// it would do, `off` does nothing. Default: act. In monitor mode nothing is dropped, whatever is armed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub respond: Option<Policy>,
    /// The same for single kinds of floods, and for `overload` and `misconfiguration`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub respond_to: Option<BTreeMap<CauseLabel, Policy>>,
    /// Where a verdict is unsure and the host hard pressed, hold up a slice of what is suspected for two seconds, once a minute at
    /// most, to see whether its senders back off. Default: true.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub probe: Option<bool>,
    /// While a signature that was found drops something, leave a slice of it open for two seconds, twice a minute at most, to see whether
    /// clients are among what it drops: then it is withdrawn. Default: true.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub canary: Option<bool>,
    /// Allow who is logged in over SSH, gateways, resolvers and `monitors` without being asked. Default: true.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub auto_allow: Option<bool>,
    /// What monitors this host: addresses or prefixes.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<Vec<String>>")]
    pub monitors: Option<Vec<Prefix>>,
    /// Whom to call.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub contacts: Option<Contacts>,
    /// Limits by class.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub limits: Option<BTreeMap<LimitLabel, Limit>>,
    /// What reasons do that are the operator's to choose: `pass` or `drop`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub policy: Option<BTreeMap<ReasonLabel, VerdictName>>,
    /// What this host serves, by name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub services: Option<BTreeMap<String, Service>>,
    /// Sources that have limits of their own, by name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub groups: Option<BTreeMap<String, SourceGroup>>,
    /// What floods are known by beside their sources, by name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub signatures: Option<BTreeMap<String, Signature>>,
    /// UDP ports that answers are looked for from, where `unsolicited-reply` drops.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub amplifiers: Option<Amplifiers>,
    /// Whether SYNs are answered with cookies.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cookies: Option<Cookies>,
    /// Sources that always pass.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub allow: Option<List>,
    /// Sources that never pass.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub deny: Option<List>,
}

/// Makes a closed set of labels a value of the files; a wrong one is told with the nearest right one.
macro_rules! label {
    ($(#[$meta:meta])* $name:ident, $inner:ty, $what:literal, $labels:expr, $of:expr) => {
        $(#[$meta])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
        pub struct $name(pub $inner);

        impl Serialize for $name {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_str(self.0.label())
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let text = std::borrow::Cow::<str>::deserialize(deserializer)?;
                let of: fn(&str) -> Option<$inner> = $of;
                of(&text).map(Self).ok_or_else(|| {
                    let labels: Vec<&str> = $labels;
                    serde::de::Error::custom(read::not_one_of($what, &text, &labels))
                })
            }
        }

        impl JsonSchema for $name {
            fn schema_name() -> std::borrow::Cow<'static, str> {
                stringify!($name).into()
            }
            fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
                let labels: Vec<&str> = $labels;
                schemars::json_schema!({ "type": "string", "enum": labels })
            }
        }
    };
}

label!(
    /// A limit.
    LimitLabel,
    LimitName,
    "limit",
    LimitName::ALL.iter().map(|name| name.label()).collect(),
    LimitName::from_label
);
label!(
    /// A reason that is the operator's to choose.
    ReasonLabel,
    Reason,
    "reason to choose for",
    Reason::chosen().map(|(reason, _)| reason.label()).collect(),
    |text| Reason::chosen().map(|(reason, _)| reason).find(|reason| reason.label() == text)
);
label!(
    /// What is responded to: a kind of flood, or clients that ask too much.
    CauseLabel,
    Cause,
    "cause to respond to",
    Cause::all().map(Cause::label).collect(),
    Cause::from_label
);
label!(
    /// When SYNs are answered.
    CookieLabel,
    CookieMode,
    "mode of cookies",
    CookieMode::ALL.iter().map(|mode| mode.label()).collect(),
    CookieMode::from_label
);

/// Whether drops are real.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum ModeName {
    /// They are counted, and pass.
    Monitor,
    /// They are.
    Enforce,
}

/// What a reason does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum VerdictName {
    /// Its packets pass, as far as limits let them.
    Pass,
    /// They drop.
    Drop,
}

/// How the daemon logs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// For people.
    Text,
    /// For machines.
    Json,
}

/// A rate: a whole number, `off` or `block`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Quantity {
    /// No limit.
    Off,
    /// Nothing passes.
    Block,
    /// So many a second.
    PerSecond(u64),
}

impl Serialize for Quantity {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Off => serializer.serialize_str("off"),
            Self::Block => serializer.serialize_str("block"),
            Self::PerSecond(number) => serializer.serialize_u64(*number),
        }
    }
}

impl<'de> Deserialize<'de> for Quantity {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;
        impl serde::de::Visitor<'_> for Visitor {
            type Value = Quantity;
            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("a whole number, \"off\" or \"block\"")
            }
            fn visit_i64<E: serde::de::Error>(self, number: i64) -> Result<Quantity, E> {
                let wrong = || E::invalid_value(serde::de::Unexpected::Signed(number), &self);
                u64::try_from(number).map(Quantity::PerSecond).map_err(|_| wrong())
            }
            fn visit_u64<E: serde::de::Error>(self, number: u64) -> Result<Quantity, E> {
                Ok(Quantity::PerSecond(number))
            }
            fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Quantity, E> {
                match text {
                    "off" => Ok(Quantity::Off),
                    "block" => Ok(Quantity::Block),
                    _ => Err(E::invalid_value(serde::de::Unexpected::Str(text), &self)),
                }
            }
        }
        deserializer.deserialize_any(Visitor)
    }
}

impl JsonSchema for Quantity {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Quantity".into()
    }
    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({ "anyOf": [{ "type": "integer", "minimum": 1 }, { "enum": ["off", "block"] }] })
    }
}

/// A limit: what is not named is the default.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Limit {
    /// Packets per second of a source, `off` or `block`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pps: Option<Quantity>,
    /// Packets at once. Default: one second of `pps`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub burst: Option<u64>,
    /// Bytes per second of a source, or `off`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bps: Option<Quantity>,
    /// Bytes at once. Default: one second of `bps`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub byte_burst: Option<u64>,
    /// The same for all of an IPv4 /24 or IPv6 /56 together.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub subnet: Option<Box<Rates>>,
    /// The same for all of an IPv4 /16 or IPv6 /48 together.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub network: Option<Box<Rates>>,
}

/// Packets and bytes: what is not named is the default.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Rates {
    /// Packets per second, or `off`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pps: Option<Quantity>,
    /// Packets at once. Default: one second of `pps`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub burst: Option<u64>,
    /// Bytes per second, or `off`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bps: Option<Quantity>,
    /// Bytes at once. Default: one second of `bps`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub byte_burst: Option<u64>,
}

/// A service.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Service {
    /// Its ports, as `tcp/443` or `udp/8000-8010`.
    pub ports: Vec<String>,
    /// Packets per second to it from all sources together. Default: no cap.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cap_pps: Option<u64>,
    /// Packets at once. Default: half a second of `cap_pps`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cap_burst: Option<u64>,
    /// New connections per second to it from all sources together; sources that were here before come first. Default: no cap.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub connections_per_second: Option<u64>,
}

/// How SYNs are answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Cookies {
    /// `off`, `auto` or `always`.
    pub mode: CookieLabel,
    /// Answers per second to one subnet. Default: as it is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub answers_pps: Option<u64>,
}

/// Prefixes, here and in files of their own. What was put on the list by hand stays beside them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct List {
    /// Addresses or prefixes.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(with = "Vec<String>")]
    pub prefixes: Vec<Prefix>,
    /// Files with an address or prefix on each line; `#` begins a comment.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub files: Vec<std::path::PathBuf>,
}

/// Whom to call while something goes on; texts of incidents and `audit` use it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Contacts {
    /// Who filters before the link: the network operators of the provider.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub provider: Option<String>,
    /// Who answers for this host.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub operator: Option<String>,
}

/// An address or a prefix.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Prefix(pub ipnet::IpNet);

impl<'de> Deserialize<'de> for Prefix {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<str>::deserialize(deserializer)?;
        crate::prefixes::parse(&text)
            .map(Self)
            .map_err(|expected| serde::de::Error::custom(format!("'{text}' is not {expected}")))
    }
}

impl Configuration {
    /// What holds where nobody says anything.
    pub fn defaults() -> Self {
        let limit = |name: LimitName| {
            let Rates { pps, burst, bps, byte_burst } = Rates::of(name.default_limits());
            (LimitLabel(name), Limit { pps, burst, bps, byte_burst, subnet: None, network: None })
        };
        let verdict = |verdict| if verdict == Verdict::Drop { VerdictName::Drop } else { VerdictName::Pass };
        Self {
            allow_generic: Some(false),
            mode: Some(ModeName::Monitor),
            metrics: Some(DEFAULT_METRICS.to_string()),
            metrics_public: Some(false),
            read_group: Some(READ_GROUP.to_owned()),
            log: Some(LogFormat::Text),
            respond: Some(Policy::default()),
            probe: Some(true),
            canary: Some(true),
            auto_allow: Some(true),
            limits: Some(LimitName::ALL.iter().map(|name| limit(*name)).collect()),
            policy: Some(Reason::chosen().map(|(reason, standard)| (ReasonLabel(reason), verdict(standard))).collect()),
            cookies: Some(Cookies { mode: CookieLabel(CookieMode::Off), answers_pps: None }),
            ..Self::default()
        }
    }

    /// All that holds with these files: what they say, and the defaults of the rest.
    pub fn with_defaults(&self) -> Self {
        let mut all = Self::defaults();
        all.take(self.clone());
        all.groups_with_defaults();
        let Some(wanted) = all.wanted_limits() else { return all };
        for (key, limits) in wanted {
            let Ok(limits) = limits else { continue };
            let limit = all.limits.get_or_insert_default().entry(LimitLabel(key.name)).or_default();
            let rates = Rates::of(limits);
            match key.per {
                Per::Source => {
                    Rates { pps: limit.pps, burst: limit.burst, bps: limit.bps, byte_burst: limit.byte_burst } = rates;
                }
                Per::Subnet if limit.subnet.is_some() => limit.subnet = Some(Box::new(rates)),
                Per::Network if limit.network.is_some() => limit.network = Some(Box::new(rates)),
                Per::Subnet | Per::Network => {}
            }
        }
        all
    }

    /// All limits as they are to be, where the files have any; of each its name and what was wrong with it.
    fn wanted_limits(&self) -> Option<Vec<(LimitKey, Result<Limits, String>)>> {
        let named = self.limits.as_ref()?;
        let wanted = |key: LimitKey| {
            let limit = named.get(&LimitLabel(key.name));
            let limits = match key.per {
                Per::Source => limit.map(Limit::rates),
                Per::Subnet => limit.and_then(|limit| limit.subnet.as_deref().cloned()),
                Per::Network => limit.and_then(|limit| limit.network.as_deref().cloned()),
            };
            limits.map_or(Ok(key.default_limits()), |rates| rates.limits(key.default_limits()))
        };
        Some(LimitKey::all().map(|key| (key, wanted(key))).collect())
    }

    /// What is done about each cause; a word at the command line counts for all of them.
    pub fn policies(&self, flag: Option<Policy>) -> Policies {
        let named = self.respond_to.iter().flatten().filter(|_| flag.is_none());
        Policies {
            other: flag.or(self.respond).unwrap_or_default(),
            named: named.map(|(cause, policy)| (cause.0, *policy)).collect(),
        }
    }

    /// What monitors this host.
    pub fn monitors(&self) -> Vec<ipnet::IpNet> {
        self.monitors.iter().flatten().map(|prefix| prefix.0).collect()
    }

    /// Peers that are to be on the allow list without being put there.
    pub fn automatic(&self) -> Vec<Peer> {
        if self.auto_allow == Some(false) { Vec::new() } else { trusted(&self.monitors()) }
    }

    /// The services, as they cross the socket.
    fn wanted_services(&self) -> Option<Vec<ServiceView>> {
        let services = self.services.as_ref()?.iter();
        Some(services.map(|(name, service)| service.view(name)).collect())
    }
}

impl Service {
    fn view(&self, name: &str) -> ServiceView {
        let cap = self.cap_pps.map(|per_second| RateView::cap(per_second, self.cap_burst));
        let connections_per_second = self.connections_per_second;
        let (name, ports) = (name.to_owned(), self.ports.clone());
        ServiceView { name, ports, cap, connections_per_second, ..ServiceView::default() }
    }
}

impl Limit {
    /// Its rates, without those of the prefixes.
    const fn rates(&self) -> Rates {
        Rates { pps: self.pps, burst: self.burst, bps: self.bps, byte_burst: self.byte_burst }
    }
}

impl Rates {
    const fn of(limits: Limits) -> Self {
        let ((pps, burst), (bps, byte_burst)) = (in_file(limits.packets), in_file(limits.bytes));
        Self { pps, burst, bps, byte_burst }
    }

    fn limits(&self, default: Limits) -> Result<Limits, String> {
        let packets = rate((self.pps, self.burst), default.packets).ok_or("burst needs pps to go with")?;
        let bytes = rate((self.bps, self.byte_burst), default.bytes).ok_or("byte_burst needs bps to go with")?;
        Ok(Limits { packets, bytes })
    }
}

/// A rate with its burst as a file has them.
const fn in_file(rate: Rate) -> (Option<Quantity>, Option<u64>) {
    match rate {
        Rate::Off => (Some(Quantity::Off), None),
        Rate::Block => (Some(Quantity::Block), None),
        Rate::Limit { per_second, burst } => (Some(Quantity::PerSecond(per_second)), Some(burst)),
    }
}

/// A rate with its burst, of which what is not named stays. `None` where a burst has no rate to go with.
pub(crate) fn rate((quantity, burst): (Option<Quantity>, Option<u64>), default: Rate) -> Option<Rate> {
    match (quantity, burst, default) {
        (None, None, default) => Some(default),
        (Some(Quantity::Off), None, _) => Some(Rate::Off),
        (Some(Quantity::Block | Quantity::PerSecond(0)), None, _) => Some(Rate::Block),
        (Some(Quantity::PerSecond(per_second @ 1..)), burst, _) => {
            Some(Rate::Limit { per_second, burst: burst.unwrap_or(per_second) })
        }
        (None, Some(burst), Rate::Limit { per_second, .. }) => Some(Rate::Limit { per_second, burst }),
        _ => None,
    }
}

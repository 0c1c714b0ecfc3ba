//! The JSON of limits.

use floodwall_common::limits::{LimitKey, Limits, Per, Rate};
use serde::{Deserialize, Serialize};

/// A rate: null is no limit, and zero per second blocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RateView {
    /// Packets or bytes per second.
    pub per_second: u64,
    /// Packets or bytes at once.
    pub burst: u64,
}

impl RateView {
    /// A rate as it crosses the socket.
    pub const fn of(rate: Rate) -> Option<Self> {
        match rate {
            Rate::Off => None,
            Rate::Block => Some(Self { per_second: 0, burst: 0 }),
            Rate::Limit { per_second, burst } => Some(Self { per_second, burst }),
        }
    }

    /// The cap of a service; without a burst, half a second of it.
    pub fn cap(per_second: u64, burst: Option<u64>) -> Self {
        Self { per_second, burst: burst.unwrap_or_else(|| (per_second / 2).max(1)) }
    }

    /// The rate that crossed it.
    pub const fn rate(view: Option<Self>) -> Rate {
        match view {
            None => Rate::Off,
            Some(Self { per_second: 0, .. }) => Rate::Block,
            Some(Self { per_second, burst }) => Rate::Limit { per_second, burst },
        }
    }
}

/// A limit.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LimitView {
    /// `tcp-syn`, `tcp`, `udp`, `icmp`, `fragment`, `other` or `allowed`.
    pub name: String,
    /// Who shares it: `source`, `subnet` or `network`.
    #[serde(default = "per_source")]
    pub per: String,
    /// The group of sources that it is of; null for everybody.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub group: Option<String>,
    /// Packets.
    pub packets: Option<RateView>,
    /// Bytes.
    pub bytes: Option<RateView>,
}

fn per_source() -> String {
    Per::Source.label().to_owned()
}

impl LimitView {
    /// A limit as it crosses the socket.
    pub fn new(key: LimitKey, limits: Limits) -> Self {
        let (name, per) = (key.name.label().to_owned(), key.per.label().to_owned());
        Self { name, per, group: None, packets: RateView::of(limits.packets), bytes: RateView::of(limits.bytes) }
    }

    /// The same, as one of a group.
    #[must_use]
    pub fn of_group(self, group: &str) -> Self {
        Self { group: Some(group.to_owned()), ..self }
    }

    /// Whether it is this one, of everybody.
    pub fn is(&self, key: LimitKey) -> bool {
        self.group.is_none() && self.name == key.name.label() && self.per == key.per.label()
    }

    /// What it says.
    pub const fn limits(&self) -> Limits {
        Limits { packets: RateView::rate(self.packets), bytes: RateView::rate(self.bytes) }
    }
}

/// All limits.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LimitsView {
    /// Version of this shape.
    pub schema_version: u32,
    /// Counts changes of the configuration: give it back with a change.
    pub generation: u64,
    /// Each limit.
    pub limits: Vec<LimitView>,
}

/// A change of limits: all or none.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LimitsChange {
    /// The generation that the change was made from; null for any.
    #[serde(default)]
    pub generation: Option<u64>,
    /// The limits to set. Empty: back to the defaults.
    pub limits: Vec<LimitView>,
    /// Also limits of zero, which block.
    #[serde(default)]
    pub force: bool,
}

impl LimitsChange {
    /// Which limits it is of.
    pub fn in_words(&self) -> String {
        let name = |limit: &LimitView| match &limit.group {
            None => format!("{} per {}", limit.name, limit.per),
            Some(group) => format!("{} of group {group}", limit.name),
        };
        let names: Vec<_> = self.limits.iter().map(name).collect();
        if names.is_empty() { "reset".to_owned() } else { names.join(", ") }
    }
}

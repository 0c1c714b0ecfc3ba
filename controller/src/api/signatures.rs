//! The JSON of signatures.

use std::fmt::{Display, Formatter};
use std::time::UNIX_EPOCH;

use floodwall_common::clock::Moment;
use serde::{Deserialize, Serialize};

use crate::dataplane::Signature;

/// The signatures.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SignaturesView {
    /// Version of this shape.
    pub schema_version: u32,
    /// Counts changes of the configuration.
    pub generation: u64,
    /// Signatures that there may be.
    pub room: usize,
    /// Each of them, by number.
    pub signatures: Vec<SignatureView>,
}

/// A signature.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SignatureView {
    /// Its name.
    pub name: String,
    /// `drop` or `count`.
    pub action: String,
    /// What it looks at.
    #[serde(default)]
    pub fields: SignatureFields,
    /// Seconds until it ends; null for never.
    #[serde(default)]
    pub ttl_s: Option<u64>,
    /// Why.
    #[serde(default)]
    pub reason: String,
    /// When it was added.
    #[serde(default)]
    pub added_unix_s: u64,
    /// It has ended, and goes with the next change.
    #[serde(default)]
    pub ended: bool,
    /// Packets that it has suited since it was added.
    #[serde(default)]
    pub packets: u64,
    /// Bytes of their frames.
    #[serde(default)]
    pub bytes: u64,
}

/// What a signature looks at, as it is typed; what is left out may be anything.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct SignatureFields {
    /// `ipv4` or `ipv6`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub family: Option<String>,
    /// `tcp`, `udp`, `icmp`, `icmpv6` or a number.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub protocol: Option<String>,
    /// A port, or a range: `53`, `1024-65535`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub source_ports: Option<String>,
    /// The same.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub destination_ports: Option<String>,
    /// Length of the IP packet with its headers, in bytes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub length: Option<String>,
    /// Time to live, or hop limit.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hops: Option<String>,
    /// TCP flags: `syn,!ack`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub flags: Option<String>,
    /// TCP options in their order: `mss,sack,ts,nop,ws`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub options: Option<String>,
    /// `none`, `first`, `later`, or several of them.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fragment: Option<String>,
    /// Bytes of the payload: `d9ff????@0`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub payload: Option<String>,
}

impl Display for SignatureFields {
    fn fmt(&self, f: &mut Formatter<'_>) -> std::fmt::Result {
        let named = [
            ("family", &self.family),
            ("proto", &self.protocol),
            ("src-port", &self.source_ports),
            ("dst-port", &self.destination_ports),
            ("length", &self.length),
            ("hops", &self.hops),
            ("flags", &self.flags),
            ("options", &self.options),
            ("fragment", &self.fragment),
            ("payload", &self.payload),
        ];
        let words = named.iter().filter_map(|(name, value)| value.as_ref().map(|value| format!("{name}={value}")));
        f.write_str(&words.collect::<Vec<_>>().join(" "))
    }
}

impl SignatureView {
    /// A signature, seen at `now` on the packet path's clock.
    pub fn new(signature: &Signature, now: Moment) -> Self {
        let added = signature.added.duration_since(UNIX_EPOCH).unwrap_or_default();
        Self {
            name: signature.name.clone(),
            action: signature.action.label().to_owned(),
            fields: crate::signatures::fields_of(&signature.shape),
            ttl_s: signature.until.map(|until| until.ns().saturating_sub(now.ns()).div_ceil(1_000_000_000)),
            reason: signature.note.clone(),
            added_unix_s: added.as_secs(),
            ended: !signature.is_live(now),
            packets: signature.hits.packets,
            bytes: signature.hits.bytes,
        }
    }
}

/// A change of signatures: all or nothing. What has ended goes with it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SignaturesChange {
    /// The generation that the change was made from; null for any.
    #[serde(default)]
    pub generation: Option<u64>,
    /// Names to remove; that goes first.
    #[serde(default)]
    pub remove: Vec<String>,
    /// Signatures to add.
    #[serde(default)]
    pub add: Vec<SignatureView>,
    /// Also those that take all of a protocol.
    #[serde(default)]
    pub force: bool,
}

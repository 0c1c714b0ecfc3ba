//! Signatures and ports of amplifiers in the file: their shape, what is wrong with them, and which changes they take. What
//! detection has added and what ends by itself is not the file's, and is left alone.

use floodwall_common::abi::Counter;
use floodwall_common::replies::PortSet;
use floodwall_common::signatures::{Action, SIGNATURES};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::apply::{Change, FROM_FILE};
use super::{Configuration, Source};
use crate::api::{SignatureFields, SignatureView, SignaturesChange};
use crate::control;
use crate::dataplane::{self, CompiledSignatures, Dataplane, known_amplifiers};
use crate::exit::Failure;
use crate::respond::AUTOMATIC_NAME;
use crate::signatures::{check_name, fields_of, shape_of_fields};

/// A signature: what its packets have in common. What is not named may be anything.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Signature {
    /// `drop`: the packets end here. `count`: they are counted, and judged as if it were not there.
    pub action: ActionName,
    /// `ipv4` or `ipv6`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub family: Option<Field>,
    /// `tcp`, `udp`, `icmp`, `icmpv6` or a number.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub proto: Option<Field>,
    /// Source port, or a range of them: `53`, `"1024-65535"`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub src_port: Option<Field>,
    /// Destination port, or a range of them.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dst_port: Option<Field>,
    /// Bytes of the IP packet with its headers.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub length: Option<Field>,
    /// Time to live, or hop limit, as it comes in.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hops: Option<Field>,
    /// TCP flags: `"syn,!ack"`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub flags: Option<Field>,
    /// TCP options, all of them in their order, or `none`: `"mss,sack,ts,nop,ws"`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub options: Option<Field>,
    /// `none`, `first` or `later`; several with commas.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fragment: Option<Field>,
    /// Bytes of the payload in hex, `??` for any, and where they begin: `"d9ff????@0"`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub payload: Option<Field>,
    /// Why: up to 56 bytes are kept. Default: `configuration file`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Take all of a protocol or a family. Default: false.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub force: Option<bool>,
}

/// What becomes of packets that a signature suits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum ActionName {
    /// They end here.
    Drop,
    /// They are counted.
    Count,
}

/// A field of a signature: text, or a whole number as it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Field(pub String);

impl Serialize for Field {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self.0.parse::<u64>() {
            Ok(number) => serializer.serialize_u64(number),
            Err(_) => serializer.serialize_str(&self.0),
        }
    }
}

impl<'de> Deserialize<'de> for Field {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;
        impl serde::de::Visitor<'_> for Visitor {
            type Value = Field;
            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("text or a whole number")
            }
            fn visit_i64<E: serde::de::Error>(self, number: i64) -> Result<Field, E> {
                Ok(Field(number.to_string()))
            }
            fn visit_u64<E: serde::de::Error>(self, number: u64) -> Result<Field, E> {
                Ok(Field(number.to_string()))
            }
            fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Field, E> {
                Ok(Field(text.to_owned()))
            }
        }
        deserializer.deserialize_any(Visitor)
    }
}

impl JsonSchema for Field {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Field".into()
    }
    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({ "anyOf": [{ "type": "integer", "minimum": 0 }, { "type": "string" }] })
    }
}

/// UDP ports that answers are looked for from.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Amplifiers {
    /// These, instead of those that floods are known to come from.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ports: Option<Vec<u16>>,
    /// These too.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub add: Vec<u16>,
    /// All but these.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub remove: Vec<u16>,
}

impl Amplifiers {
    fn wanted(&self) -> PortSet {
        let mut ports = match &self.ports {
            None => known_amplifiers(),
            Some(named) => with(PortSet::empty(), named, true),
        };
        ports = with(ports, &self.add, true);
        with(ports, &self.remove, false)
    }

    /// Takes what a later file says: of other ports instead of the known ones the later, all else adds up.
    pub(super) fn take(&mut self, later: Self) {
        if later.ports.is_some() {
            self.ports = later.ports;
        }
        self.add.extend(later.add);
        self.remove.extend(later.remove);
    }
}

fn with(mut ports: PortSet, named: &[u16], is_one: bool) -> PortSet {
    named.iter().for_each(|port| ports.set(*port, is_one));
    ports
}

impl Signature {
    fn fields(&self) -> SignatureFields {
        let text = |field: &Option<Field>| field.as_ref().map(|field| field.0.clone());
        SignatureFields {
            family: text(&self.family),
            protocol: text(&self.proto),
            source_ports: text(&self.src_port),
            destination_ports: text(&self.dst_port),
            length: text(&self.length),
            hops: text(&self.hops),
            flags: text(&self.flags),
            options: text(&self.options),
            fragment: text(&self.fragment),
            payload: text(&self.payload),
        }
    }

    /// As it would be in force, but for its number and its age.
    fn wanted(&self, name: &str, source: &Source) -> Result<dataplane::Signature, Failure> {
        let of = format!("signatures.{name}");
        check_name(name).map_err(|failure| source.wrong(&of, &failure.error))?;
        if name.starts_with(AUTOMATIC_NAME) {
            return Err(source.wrong(&of, &format!("names that begin with '{AUTOMATIC_NAME}' are those of detection")));
        }
        let shape = shape_of_fields(&self.fields())
            .map_err(|(field, expected)| source.wrong(&format!("{of}.{}", key_of(field)), &expected))?;
        if let Some(text) = control::too_wide(&shape, self.force == Some(true)) {
            let failure = source.wrong(&of, text);
            return Err(if shape.is_any() { failure } else { failure.hint("force = true, if that is meant") });
        }
        let action = if self.action == ActionName::Drop { Action::Drop } else { Action::Count };
        let note = dataplane::kept_note(self.reason.as_deref().unwrap_or(FROM_FILE));
        let (number, hits, added) = (None, Counter::default(), std::time::SystemTime::now());
        Ok(dataplane::Signature { number, name: name.to_owned(), shape, action, until: None, added, note, hits })
    }
}

/// The key of the file for what the verb calls a field in words.
fn key_of(field: &str) -> &str {
    match field {
        "protocol" => "proto",
        "source port" => "src_port",
        "destination port" => "dst_port",
        field => field,
    }
}

/// What is wrong with signatures and ports of amplifiers of the files.
pub(super) fn check(source: &Source) -> Result<(), Failure> {
    let wanted = wanted(source)?.unwrap_or_default();
    if wanted.len() > SIGNATURES {
        return Err(source.wrong("signatures", &format!("{} are more than the {SIGNATURES} that fit", wanted.len())));
    }
    let numbered = wanted.into_iter().enumerate();
    let numbered: Vec<_> =
        numbered.map(|(at, signature)| dataplane::Signature { number: Some(at), ..signature }).collect();
    CompiledSignatures::of(&numbered, 0).map_err(|error| source.wrong("signatures", &error.to_string()))?;
    let Some(amplifiers) = &source.configuration.amplifiers else { return Ok(()) };
    match amplifiers.add.iter().find(|port| amplifiers.remove.contains(port)) {
        Some(port) => Err(source.wrong("amplifiers.add", &format!("{port} is to be removed as well"))),
        None => Ok(()),
    }
}

/// All signatures of the files; `None` where no file has a section of them.
fn wanted(source: &Source) -> Result<Option<Vec<dataplane::Signature>>, Failure> {
    let Some(named) = &source.configuration.signatures else { return Ok(None) };
    named.iter().map(|(name, signature)| signature.wanted(name, source)).collect::<Result<_, _>>().map(Some)
}

/// What it takes to have the signatures of the files in force. What ends by itself is not theirs, unless they have its name.
pub(super) fn plan(
    dataplane: &Dataplane,
    source: &Source,
    changes: &mut Vec<Change>,
) -> anyhow::Result<Option<SignaturesChange>> {
    let Some(wanted) = wanted(source)? else { return Ok(None) };
    let now = dataplane.clock()?.now();
    let present = dataplane.signatures()?;
    let present: Vec<_> = present.iter().filter(|signature| signature.is_live(now)).collect();
    let mut change = SignaturesChange { force: true, ..SignaturesChange::default() };
    let is_named = |name: &str| wanted.iter().any(|signature| signature.name == *name);
    for gone in present.iter().filter(|signature| signature.until.is_none() && !is_named(&signature.name)) {
        changes.push(Change::new(format!("signature {}", gone.name), signature_in_words(gone), "none"));
        change.remove.push(gone.name.clone());
    }
    for signature in &wanted {
        let before = present.iter().find(|present| present.name == signature.name);
        if before.is_some_and(|before| is_same(before, signature)) {
            continue;
        }
        change.remove.extend(before.map(|before| before.name.clone()));
        let from = before.map_or_else(|| "none".to_owned(), |before| signature_in_words(before));
        changes.push(Change::new(format!("signature {}", signature.name), from, signature_in_words(signature)));
        change.add.push(SignatureView::new(signature, now));
    }
    Ok((!(change.add.is_empty() && change.remove.is_empty())).then_some(change))
}

/// What it takes to have the ports of the files in force.
pub(super) fn plan_amplifiers(
    dataplane: &Dataplane,
    configuration: &Configuration,
    changes: &mut Vec<Change>,
) -> anyhow::Result<Option<PortSet>> {
    let Some(wanted) = configuration.amplifiers.as_ref().map(Amplifiers::wanted) else { return Ok(None) };
    let present = dataplane.amplifiers()?;
    let missing = |of: &PortSet, from: &PortSet| {
        let ports = of.iter().filter(|port| !from.has(*port)).map(|port| port.to_string());
        ports.collect::<Vec<_>>().join(" ")
    };
    let (added, removed) = (missing(&wanted, &present), missing(&present, &wanted));
    if added.is_empty() && removed.is_empty() {
        return Ok(None);
    }
    let parts = [("added", added), ("removed", removed)];
    let parts = parts.iter().filter(|(_, ports)| !ports.is_empty()).map(|(what, ports)| format!("{ports} {what}"));
    let to = parts.collect::<Vec<_>>().join(", ");
    changes.push(Change::new("amplifiers", format!("{} ports", present.iter().count()), to));
    Ok(Some(wanted))
}

/// Makes the signatures what they were. One that had gone counts its hits anew: its counter may be another's by now.
pub(super) fn take_back(dataplane: &mut Dataplane, before: &[dataplane::Signature]) -> anyhow::Result<()> {
    let present = dataplane.signatures()?;
    let stays = |signature: &dataplane::Signature| {
        let key = |of: &dataplane::Signature| (of.number, of.added, of.until);
        present.iter().any(|present| is_same(present, signature) && key(present) == key(signature))
    };
    if present.len() == before.len() && before.iter().all(stays) {
        return Ok(());
    }
    let number = |signature: &dataplane::Signature| signature.number.filter(|_| stays(signature));
    let wanted = before.iter().map(|signature| dataplane::Signature { number: number(signature), ..signature.clone() });
    let generation = dataplane.config()?.generation;
    dataplane.install_signatures(&wanted.collect::<Vec<_>>(), generation)?;
    Ok(())
}

/// Whether one does what the other does, for the same reason and as long.
fn is_same(one: &dataplane::Signature, other: &dataplane::Signature) -> bool {
    let key = |of: &dataplane::Signature| (of.name.clone(), of.shape, of.action, of.until, of.note.clone());
    key(one) == key(other)
}

/// Action and fields of a signature.
pub(crate) fn signature_in_words(signature: &dataplane::Signature) -> String {
    format!("{} {}", signature.action.label(), fields_of(&signature.shape))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_wrong_is_told_with_its_line() {
        for (text, place, said) in [
            ("[signatures.x]\naction = \"drpo\"", "floodwall.toml:2:10: unknown variant `drpo`", "drop"),
            ("[signatures.x]\nproto = \"udp\"", "floodwall.toml:1:1: missing field `action`", ""),
            (
                "[signatures.x]\naction = \"drop\"\nsrc_prot = 53",
                "floodwall.toml:3:1: unknown field `src_prot`",
                "did you mean `src_port`",
            ),
            (
                "[signatures.x]\naction = \"drop\"\nsrc_port = 65536",
                "floodwall.toml:3: signatures.x.src_port: '65536' is not",
                "from 0 to 65535",
            ),
            (
                "[signatures.x]\naction = \"drop\"\nproto = \"udp\"\nflags = \"syn\"",
                "floodwall.toml:3: signatures.x.proto",
                "only TCP has flags",
            ),
            ("[signatures.x]\naction = \"drop\"", "floodwall.toml:2: signatures.x: it would suit every packet", ""),
            (
                "[signatures.x]\naction = \"drop\"\nproto = 47",
                "signatures.x: it would suit all of a protocol",
                "force = true",
            ),
            (
                "[signatures.\"a b\"]\naction = \"drop\"\nproto = 47",
                "floodwall.toml:2: signatures.a b: 'a b' is no name",
                "letters",
            ),
            (
                "[signatures.auto-x]\naction = \"drop\"\nsrc_port = 47",
                "floodwall.toml:2: signatures.auto-x",
                "detection",
            ),
            ("[amplifiers]\nadd = [70000]", "floodwall.toml:2:8: invalid value: integer `70000`", "u16"),
            (
                "[amplifiers]\nadd = [53]\nremove = [53]",
                "floodwall.toml:2: amplifiers.add: 53 is to be removed as well",
                "",
            ),
        ] {
            let error = Source::of_text(text).expect_err(text).to_string();
            assert!(error.contains(place) && error.contains(said), "{text:?}: {error}");
        }
    }

    #[test]
    fn more_than_fit_are_refused_before_anything_is_changed() {
        let text = |number: usize| {
            let one = |at: usize| format!("[signatures.s{at}]\naction = \"count\"\nsrc_port = {}\n", at + 1);
            (0..number).map(one).collect::<String>()
        };
        assert!(Source::of_text(&text(SIGNATURES)).is_ok());
        let error = Source::of_text(&text(SIGNATURES + 1)).expect_err("one too many").to_string();
        assert!(error.contains("257 are more than the 256"), "{error}");
        // Payloads at more places than are compared.
        let one = |at: usize| format!("[signatures.s{at}]\naction = \"count\"\npayload = \"0a@{at}\"\n");
        let error = Source::of_text(&(0..9).map(one).collect::<String>()).expect_err("too many places").to_string();
        assert!(error.contains("signatures"), "{error}");
    }

    #[test]
    fn a_number_is_written_as_it_is_typed() {
        let text = "[signatures.x]\naction = \"count\"\nsrc_port = 53\nlength = \"100-200\"\nproto = \"udp\"\n";
        let source = Source::of_text(text).expect("it is right");
        let shown = serde_json::to_value(&source.configuration).expect("it can be shown");
        assert_eq!(shown["signatures"]["x"]["src_port"], 53);
        let wanted = wanted(&source).expect("it is right").expect("a section");
        assert_eq!(signature_in_words(&wanted[0]), "count proto=udp src-port=53 length=100-200");
        assert_eq!(wanted[0].note, FROM_FILE);
    }

    #[test]
    fn ports_are_the_known_ones_unless_others_are_named() {
        let wanted = |text: &str| {
            let source = Source::of_text(text).expect(text);
            source.configuration.amplifiers.expect(text).wanted().iter().collect::<Vec<_>>()
        };
        let known: Vec<_> = known_amplifiers().iter().collect();
        assert_eq!(wanted("[amplifiers]\n"), known);
        assert_eq!(wanted("[amplifiers]\nports = [53, 7]\nadd = [9]\n"), [7, 9, 53]);
        let but_one: Vec<_> = known.iter().copied().filter(|port| *port != 500).collect();
        assert_eq!(wanted("[amplifiers]\nremove = [500]\n"), but_one);
    }
}

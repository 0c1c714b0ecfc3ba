//! Signatures in words: what an operator types and reads, and what of it means nothing. It changes nothing.

use std::fmt::{Display, Write};

use floodwall_common::class::Family;
use floodwall_common::signatures::{
    Fragment, Layout, MAX_LAYOUT, MAX_OFFSET, NAME_BYTES, Range, Shape, TcpOption, lay,
};

use crate::api::{SignatureFields, SignatureView};
use crate::exit::{Exit, Failure};

const TCP: u16 = 6;
const UDP: u16 = 17;
const PROTOCOLS: [(&str, u16); 4] = [("tcp", TCP), ("udp", UDP), ("icmp", 1), ("icmpv6", 58)];
/// TCP flags, from the lowest bit on.
const FLAGS: [&str; 8] = ["fin", "syn", "rst", "psh", "ack", "urg", "ece", "cwr"];
const NO_OPTIONS: &str = "none";

/// What a signature looks at.
///
/// # Errors
/// What is wrong, in which signature and field, and what would be right.
pub fn shape_of(view: &SignatureView) -> Result<Shape, Failure> {
    check_name(&view.name)?;
    let wrong = |field: &str, expected: String| {
        Failure::new(Exit::Usage, format!("signature '{}': {field}: {expected}. Nothing was changed", view.name))
    };
    shape_of_fields(&view.fields).map_err(|(field, expected)| wrong(field, expected))
}

/// The same without its name.
///
/// # Errors
/// The field that is wrong, and what would be right.
pub(crate) fn shape_of_fields(fields: &SignatureFields) -> Result<Shape, (&'static str, String)> {
    let shape = read(fields)?;
    match contradiction(&shape) {
        Some((field, why)) => Err((field, why.to_owned())),
        None => Ok(shape),
    }
}

pub(crate) fn check_name(name: &str) -> Result<(), Failure> {
    let is_plain = name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte));
    if (1..=NAME_BYTES).contains(&name.len()) && is_plain && !name.starts_with('-') {
        return Ok(());
    }
    let text = format!("'{name}' is no name for a signature: 1 to {NAME_BYTES} letters, digits, '-', '_' and '.'");
    Err(Failure::new(Exit::Usage, text))
}

type Field<T> = Result<T, (&'static str, String)>;

fn read(fields: &SignatureFields) -> Field<Shape> {
    let mut shape = Shape::ANY;
    if let Some(text) = &fields.family {
        let family = Family::from_label(text).ok_or_else(|| ("family", not(text, "ipv4 or ipv6")))?;
        shape.families = 1 << family as u8;
    }
    if let Some(text) = &fields.protocol {
        shape.protocol = protocol(text).ok_or_else(|| ("protocol", not(text, "tcp, udp, icmp, icmpv6 or 0 to 255")))?;
    }
    shape.source_ports = range("source port", fields.source_ports.as_deref(), u16::MAX)?;
    shape.destination_ports = range("destination port", fields.destination_ports.as_deref(), u16::MAX)?;
    shape.lengths = range("length", fields.length.as_deref(), u16::MAX)?;
    shape.hops = range("hops", fields.hops.as_deref(), 255)?;
    if let Some(text) = &fields.flags {
        (shape.flags, shape.flags_mask) = flags(text).map_err(|error| ("flags", error))?;
    }
    if let Some(text) = &fields.options {
        (shape.layout, shape.asks_layout) = (layout(text).map_err(|error| ("options", error))?, 1);
    }
    if let Some(text) = &fields.fragment {
        shape.fragments = fragments(text).map_err(|error| ("fragment", error))?;
    }
    if let Some(text) = &fields.payload {
        payload(text, &mut shape).map_err(|error| ("payload", error))?;
    }
    Ok(shape)
}

fn not(text: &str, expected: impl Display) -> String {
    format!("'{text}' is not {expected}")
}

fn protocol(text: &str) -> Option<u16> {
    let named = PROTOCOLS.iter().find(|(name, _)| *name == text).map(|(_, number)| *number);
    named.or_else(|| number(text, 255))
}

/// A number in plain digits.
fn number(text: &str, highest: u16) -> Option<u16> {
    let is_plain = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let number = if is_plain { text.parse().ok() } else { None };
    number.filter(|number| *number <= highest)
}

fn range(field: &'static str, text: Option<&str>, highest: u16) -> Field<Range> {
    let Some(text) = text else {
        return Ok(Range::ANY);
    };
    let expected = || (field, not(text, format!("a number or a range such as 20-60, from 0 to {highest}")));
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    let range = Range {
        first: number(first, highest).ok_or_else(expected)?,
        last: number(last, highest).ok_or_else(expected)?,
    };
    if range.first > range.last {
        return Err((field, format!("'{text}' ends before it begins")));
    }
    Ok(if (range.first, range.last) == (0, highest) { Range::ANY } else { range })
}

fn flags(text: &str) -> Result<(u8, u8), String> {
    let (mut values, mut mask) = (0, 0);
    for word in text.split(',') {
        let (name, is_set) = word.strip_prefix('!').map_or((word, true), |name| (name, false));
        let place = FLAGS.iter().position(|flag| *flag == name);
        let bit = 1 << place.ok_or_else(|| not(word, format!("one of {}, with '!' for not set", FLAGS.join(", "))))?;
        if mask & bit != 0 {
            return Err(format!("'{name}' is named twice"));
        }
        mask |= bit;
        values |= if is_set { bit } else { 0 };
    }
    Ok((values, mask))
}

fn layout(text: &str) -> Result<Layout, String> {
    if text == NO_OPTIONS {
        return Ok(0);
    }
    let names = text.split(',');
    if names.clone().count() > MAX_LAYOUT {
        return Err(format!("more than {MAX_LAYOUT} options"));
    }
    names.into_iter().try_fold(0, |layout, name| {
        let option = TcpOption::from_label(name).ok_or_else(|| {
            let known: Vec<_> = TcpOption::ALL.iter().map(|option| option.label()).collect();
            not(name, format!("one of {}, or {NO_OPTIONS} alone", known.join(", ")))
        })?;
        Ok(lay(layout, option))
    })
}

fn fragments(text: &str) -> Result<u8, String> {
    text.split(',').try_fold(0, |bits, name| {
        let fragment = Fragment::from_label(name).ok_or_else(|| not(name, "one of none, first, later"))?;
        Ok(bits | 1 << fragment as u8)
    })
}

/// `HEX@OFFSET`, with `?` for a digit that may be any.
fn payload(text: &str, shape: &mut Shape) -> Result<(), String> {
    let expected = || {
        let form = "bytes in hex, '??' for any, and where they begin: for example d9ff????@0";
        format!("{} (1 to 8 bytes, offset up to {MAX_OFFSET})", not(text, form))
    };
    let (digits, offset) = text.split_once('@').ok_or_else(expected)?;
    let offset = number(offset, u16::from(MAX_OFFSET)).ok_or_else(expected)?;
    if digits.len() % 2 != 0 || !(2..=16).contains(&digits.len()) {
        return Err(expected());
    }
    let (mut value, mut mask) = (0u64, 0u64);
    for digit in digits.chars() {
        let (bits, looked_at) = match digit {
            '?' => (0, 0),
            digit => (u64::from(digit.to_digit(16).ok_or_else(expected)?), 0xf),
        };
        (value, mask) = (value << 4 | bits, mask << 4 | looked_at);
    }
    if mask == 0 {
        return Err(format!("'{text}' compares nothing"));
    }
    let unused = 64 - 4 * digits.len() as u32;
    // What is compared begins with the first byte that is looked at: the same bytes are then the same window.
    let leading = (mask << unused).leading_zeros() / 8;
    let offset = u32::from(offset) + leading;
    shape.payload_offset = u8::try_from(offset).ok().filter(|offset| *offset <= MAX_OFFSET).ok_or_else(expected)?;
    (shape.payload, shape.payload_mask) = (value << unused << (8 * leading), mask << unused << (8 * leading));
    Ok(())
}

/// A field that no packet can have together with the others, and why.
fn contradiction(shape: &Shape) -> Option<(&'static str, &'static str)> {
    let is = |protocols: &[u16]| shape.protocol == Shape::ANY_PROTOCOL || protocols.contains(&shape.protocol);
    let needs_header = shape.asks_ports() || shape.asks_tcp() || shape.asks_payload();
    if shape.asks_ports() && !is(&[TCP, UDP]) {
        return Some(("protocol", "only TCP and UDP have ports; leave the ports out, or name tcp or udp"));
    }
    if shape.asks_tcp() && !is(&[TCP]) {
        return Some(("protocol", "only TCP has flags and options; leave them out, or name tcp"));
    }
    if shape.fragments == 1 << Fragment::Later as u8 && needs_header {
        return Some(("fragment", "later fragments have no ports, flags, options or payload to look at"));
    }
    None
}

/// What a signature looks at, as an operator would have typed it.
pub fn fields_of(shape: &Shape) -> SignatureFields {
    let families = Family::ALL.iter().filter(|family| shape.families >> **family as u8 & 1 == 1);
    let labels: Vec<_> = families.map(|family| family.label()).collect();
    SignatureFields {
        family: (labels.len() == 1).then(|| labels.concat()),
        protocol: (shape.protocol != Shape::ANY_PROTOCOL).then(|| protocol_words(shape.protocol)),
        source_ports: range_words(shape.source_ports),
        destination_ports: range_words(shape.destination_ports),
        length: range_words(shape.lengths),
        hops: range_words(shape.hops),
        flags: (shape.flags_mask != 0).then(|| flag_words(shape)),
        options: (shape.asks_layout != 0).then(|| layout_words(shape.layout)),
        fragment: fragment_words(shape),
        payload: shape.asks_payload().then(|| payload_words(shape)),
    }
}

fn protocol_words(protocol: u16) -> String {
    let named = PROTOCOLS.iter().find(|(_, number)| *number == protocol);
    named.map_or_else(|| protocol.to_string(), |(name, _)| (*name).to_owned())
}

fn range_words(range: Range) -> Option<String> {
    match range {
        Range::ANY => None,
        Range { first, last } if first == last => Some(first.to_string()),
        Range { first, last } => Some(format!("{first}-{last}")),
    }
}

/// TCP flags by their names, as `SYN+ACK`.
pub(crate) fn flag_names(flags: u8) -> String {
    let set = FLAGS.iter().enumerate().filter(|(bit, _)| flags >> bit & 1 == 1);
    let names: Vec<_> = set.map(|(_, name)| name.to_uppercase()).collect();
    if names.is_empty() { "none".to_owned() } else { names.join("+") }
}

fn flag_words(shape: &Shape) -> String {
    let asked = FLAGS.iter().enumerate().filter(|(bit, _)| shape.flags_mask >> bit & 1 == 1);
    let words = asked.map(|(bit, name)| match shape.flags >> bit & 1 {
        1 => (*name).to_owned(),
        _ => format!("!{name}"),
    });
    words.collect::<Vec<_>>().join(",")
}

fn layout_words(layout: Layout) -> String {
    let codes = (0..16).rev().map(|place| (layout >> (4 * place) & 0xf) as u8);
    let names: Vec<_> = codes.filter_map(TcpOption::from_index).map(TcpOption::label).collect();
    if names.is_empty() { NO_OPTIONS.to_owned() } else { names.join(",") }
}

fn fragment_words(shape: &Shape) -> Option<String> {
    let kinds = Fragment::ALL.iter().filter(|kind| shape.fragments >> **kind as u8 & 1 == 1);
    let labels: Vec<_> = kinds.map(|kind| kind.label()).collect();
    (labels.len() < Fragment::ALL.len()).then(|| labels.join(","))
}

fn payload_words(shape: &Shape) -> String {
    let mut text = String::new();
    for digit in 0..2 * shape.payload_bytes() {
        let shift = 60 - 4 * digit;
        // A mask of less than a digit cannot be typed.
        let _ = match shape.payload_mask >> shift & 0xf {
            0 => write!(text, "?"),
            _ => write!(text, "{:x}", shape.payload >> shift & 0xf),
        };
    }
    let _ = write!(text, "@{}", shape.payload_offset);
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    type Place = fn(&mut SignatureFields) -> &mut Option<String>;

    fn shape(fields: &[(Place, &str)]) -> Result<Shape, String> {
        let mut view = SignatureView { name: "x".to_owned(), ..SignatureView::default() };
        for (place, text) in fields {
            *place(&mut view.fields) = Some((*text).to_owned());
        }
        shape_of(&view).map_err(|failure| failure.to_string())
    }

    const PROTOCOL: Place = |fields| &mut fields.protocol;
    const FAMILY: Place = |fields| &mut fields.family;
    const SOURCE: Place = |fields| &mut fields.source_ports;
    const DESTINATION: Place = |fields| &mut fields.destination_ports;
    const LENGTH: Place = |fields| &mut fields.length;
    const HOPS: Place = |fields| &mut fields.hops;
    const FLAGS: Place = |fields| &mut fields.flags;
    const OPTIONS: Place = |fields| &mut fields.options;
    const FRAGMENT: Place = |fields| &mut fields.fragment;
    const PAYLOAD: Place = |fields| &mut fields.payload;

    #[test]
    fn what_is_typed_is_shown_again() {
        for fields in [
            &[(PROTOCOL, "udp"), (SOURCE, "53"), (LENGTH, "1000-1500"), (FAMILY, "ipv6")][..],
            &[(PROTOCOL, "tcp"), (FLAGS, "syn,!ack"), (OPTIONS, "mss,sack,ts,nop,ws"), (HOPS, "60-64")],
            &[(PROTOCOL, "47"), (FRAGMENT, "first,later")],
            &[(DESTINATION, "80-443"), (OPTIONS, "none"), (FRAGMENT, "none")],
            &[(PAYLOAD, "d9ff????0?1a@12")],
        ] {
            let shape = shape(fields).expect("a shape");
            let mut shown = fields_of(&shape);
            for (place, text) in fields {
                assert_eq!(place(&mut shown).take().as_deref(), Some(*text));
            }
            assert_eq!(shown, SignatureFields::default(), "nothing else");
        }
    }

    #[test]
    fn ranges_of_everything_ask_nothing() {
        for (place, text) in [(SOURCE, "0-65535"), (LENGTH, "0-65535"), (HOPS, "0-255"), (FRAGMENT, "none,first,later")]
        {
            assert_eq!(shape(&[(place, text)]), Ok(Shape::ANY), "{text}");
        }
    }

    #[test]
    fn leading_bytes_that_may_be_any_move_the_window() {
        let moved = shape(&[(PAYLOAD, "????0a@3")]).expect("a shape");
        assert_eq!(Ok(moved), shape(&[(PAYLOAD, "0a??@5")]), "the same bytes are the same window");
        assert_eq!((moved.payload_offset, moved.payload_bytes()), (5, 1));
        assert!(shape(&[(PAYLOAD, "??0a@64")]).is_err(), "too far");
    }

    #[test]
    fn what_means_nothing_is_refused_with_what_would() {
        for (place, text, said) in [
            (PROTOCOL, "sctp2", "icmpv6"),
            (PROTOCOL, "256", "0 to 255"),
            (FAMILY, "v4", "ipv4"),
            (SOURCE, "65536", "65535"),
            (SOURCE, "-1", "range"),
            (SOURCE, "+1", "range"),
            (SOURCE, "5-", "range"),
            (SOURCE, "9-5", "ends before"),
            (HOPS, "256", "255"),
            (FLAGS, "syn,xyz", "psh"),
            (FLAGS, "syn,!syn", "twice"),
            (FLAGS, "", "fin"),
            (OPTIONS, "mss,none", "sack-blocks"),
            (OPTIONS, &["nop"; 16].join(","), "15"),
            (FRAGMENT, "some", "later"),
            (PAYLOAD, "0a", "@"),
            (PAYLOAD, "0@1", "hex"),
            (PAYLOAD, "@1", "hex"),
            (PAYLOAD, "0g@1", "hex"),
            (PAYLOAD, "00@65", "64"),
            (PAYLOAD, "001122334455667788@0", "8 bytes"),
            (PAYLOAD, "????@0", "compares nothing"),
        ] {
            let error = shape(&[(place, text)]).expect_err(text);
            assert!(error.contains(said) && error.contains("signature 'x'"), "{text}: {error}");
        }
    }

    #[test]
    fn fields_that_no_packet_has_together_are_refused() {
        for fields in [
            [(PROTOCOL, "icmp"), (SOURCE, "53")],
            [(PROTOCOL, "47"), (DESTINATION, "53")],
            [(PROTOCOL, "udp"), (FLAGS, "syn")],
            [(PROTOCOL, "udp"), (OPTIONS, "none")],
            [(FRAGMENT, "later"), (SOURCE, "53")],
            [(FRAGMENT, "later"), (PAYLOAD, "00@0")],
        ] {
            assert!(shape(&fields).is_err());
        }
    }

    #[test]
    fn names_are_plain_and_short() {
        let named = |name: &str| shape_of(&SignatureView { name: name.to_owned(), ..SignatureView::default() });
        assert!(named("dns-reflection_2.v4").is_ok() && named(&"x".repeat(32)).is_ok());
        for bad in ["", "-x", "a b", "é", "a/b", &"x".repeat(33)] {
            assert!(named(bad).is_err(), "{bad}");
        }
    }
}

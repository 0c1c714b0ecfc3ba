//! Addresses and prefixes as people write them, by themselves and in files.

use std::net::IpAddr;
use std::path::Path;

use ipnet::IpNet;

use crate::exit::{Exit, Failure};

/// An address or a prefix; bits behind the prefix are cut off.
///
/// # Errors
/// What would have been right.
pub fn parse(text: &str) -> Result<IpNet, String> {
    let parsed = text.parse::<IpNet>().or_else(|_| text.parse::<IpAddr>().map(IpNet::from));
    let expected = "an address or a prefix, for example 203.0.113.7, 203.0.113.0/24 or 2001:db8::/32";
    parsed.map(|prefix| prefix.trunc()).map_err(|_| expected.to_owned())
}

/// Whether any address is in both.
pub fn overlap(one: IpNet, other: IpNet) -> bool {
    one.contains(&other) || other.contains(&one)
}

/// The prefixes in a file, one on each line, `#` begins a comment: all of them, or none.
///
/// # Errors
/// Where it cannot be read, or a line is none: which one.
pub fn read_file(path: &Path) -> Result<Vec<IpNet>, Failure> {
    let unreadable = |error| Failure::new(Exit::Configuration, format!("cannot read {}: {error}", path.display()));
    let text = std::fs::read_to_string(path).map_err(unreadable)?;
    let mut prefixes = Vec::new();
    for (index, line) in text.lines().enumerate() {
        let entry = line.split('#').next().unwrap_or("").trim();
        if entry.is_empty() {
            continue;
        }
        let parsed = parse(entry).map_err(|expected| {
            let text = format!("{}:{}: '{entry}' is not {expected}. Nothing was changed", path.display(), index + 1);
            Failure::new(Exit::Configuration, text)
        });
        prefixes.push(parsed?);
    }
    Ok(prefixes)
}

//! Captured traffic, as it is read from files.

pub mod live;
pub mod made;
pub mod packets;

use std::collections::HashMap;
use std::path::Path;

use anyhow::{Context as _, Result};
pub use floodwall::replay::{Captured, files};

/// The frames of a capture. Where it ends in the middle of a packet, that is said.
///
/// # Errors
/// Where it is none.
pub fn read(path: &Path) -> Result<Vec<Captured>> {
    floodwall::replay::read(path, |text| eprintln!("{text}"))
}

/// Source and destination of an IP frame, behind up to two VLAN tags.
pub fn ends(frame: &[u8]) -> Option<(&[u8], &[u8])> {
    let mut kind = 12;
    while kind < 20 && matches!(frame.get(kind..kind + 2)?, [0x81, 0x00] | [0x88, 0xa8]) {
        kind += 4;
    }
    let at = |first: usize, length: usize| frame.get(kind + first..kind + first + length);
    match frame.get(kind..kind + 2)? {
        [0x08, 0x00] => Some((at(14, 4)?, at(18, 4)?)),
        [0x86, 0xdd] => Some((at(10, 16)?, at(26, 16)?)),
        _ => None,
    }
}

/// The host that most frames go to: it is taken for the protected one.
///
/// # Errors
/// Where no frame is IP.
pub fn protected(frames: &[Captured]) -> Result<Vec<u8>> {
    let mut counts: HashMap<&[u8], u64> = HashMap::new();
    for (_, destination) in frames.iter().filter_map(|captured| ends(&captured.frame)) {
        *counts.entry(destination).or_default() += 1;
    }
    let most = counts.into_iter().max_by_key(|(_, count)| *count);
    Ok(most.context("no IP packet in it")?.0.to_vec())
}

#[cfg(test)]
mod tests {
    use super::ends;

    #[test]
    fn ends_are_read_behind_tags() {
        let mut frame = vec![0; 12];
        frame.extend([0x81, 0, 0, 7, 0x08, 0x00, 0x45]);
        frame.resize(30, 0);
        frame.extend([10, 0, 0, 1, 10, 0, 0, 2]);
        assert_eq!(ends(&frame), Some((&[10, 0, 0, 1][..], &[10, 0, 0, 2][..])));
        assert_eq!(ends(&frame[..37]), None);
    }
}

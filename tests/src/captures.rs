//! Captured traffic, as it is read from files.

pub mod live;

use std::collections::HashMap;
use std::fs::File;
use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use pcap_file::pcap::PcapReader;
use pcap_file::pcapng::{Block, PcapNgReader};

/// A frame, and when it was seen.
#[derive(Clone, Debug)]
pub struct Captured {
    /// Since the Unix epoch.
    pub at: Duration,
    /// Its bytes.
    pub frame: Vec<u8>,
}

/// The captures among files and directories.
///
/// # Errors
/// Where there is none.
pub fn files(paths: &[PathBuf]) -> Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for path in paths {
        if path.is_dir() {
            for entry in path.read_dir()? {
                files.push(entry?.path());
            }
        } else {
            files.push(path.clone());
        }
    }
    let is_capture = |path: &PathBuf| path.extension().is_some_and(|end| end == "pcap" || end == "pcapng");
    files.retain(is_capture);
    files.sort();
    ensure!(!files.is_empty(), "no file there ends with .pcap or .pcapng");
    Ok(files)
}

/// The frames of a capture.
///
/// # Errors
/// Where it is none, or not of Ethernet frames.
pub fn read(path: &Path) -> Result<Vec<Captured>> {
    /// What a pcapng file begins with, in either byte order. Names do not tell.
    const PCAPNG: [u8; 4] = [0x0a, 0x0d, 0x0d, 0x0a];
    let mut file = BufReader::new(File::open(path)?);
    let mut frames = Vec::new();
    if file.fill_buf()?.starts_with(&PCAPNG) {
        let mut reader = PcapNgReader::new(file)?;
        while let Some(block) = reader.next_block() {
            match block {
                Ok(Block::EnhancedPacket(packet)) => {
                    frames.push(Captured { at: packet.timestamp, frame: packet.data.into_owned() });
                }
                Ok(_) => {}
                Err(error) => return cut_off(path, frames, error),
            }
        }
    } else {
        let mut reader = PcapReader::new(file)?;
        ensure!(reader.header().datalink == pcap_file::DataLink::ETHERNET, "not of Ethernet frames");
        while let Some(packet) = reader.next_packet() {
            match packet {
                Ok(packet) => frames.push(Captured { at: packet.timestamp, frame: packet.data.into_owned() }),
                Err(error) => return cut_off(path, frames, error),
            }
        }
    }
    Ok(frames)
}

/// Many published captures end in the middle of a packet: what was whole is played, and that is said.
fn cut_off(path: &Path, frames: Vec<Captured>, error: pcap_file::PcapError) -> Result<Vec<Captured>> {
    ensure!(!frames.is_empty(), error);
    eprintln!("{}: ends after {} packets: {error}", path.display(), frames.len());
    Ok(frames)
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

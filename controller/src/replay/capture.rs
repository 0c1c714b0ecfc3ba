//! Captured traffic, as it is read from files: pcap and pcapng, of Ethernet, of bare IP, of Linux "any" devices.

use std::fs::File;
use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use pcap_file::pcap::PcapReader;
use pcap_file::pcapng::blocks::interface_description::InterfaceDescriptionOption;
use pcap_file::pcapng::{Block, PcapNgReader};
use pcap_file::{DataLink, PcapError};

use crate::exit::{Exit, Failure};

/// A frame, and when it was seen.
#[derive(Clone, Debug)]
pub struct Captured {
    /// Since the Unix epoch.
    pub at: Duration,
    /// How long it was on the wire.
    pub bytes: u32,
    /// What was kept of it.
    pub frame: Vec<u8>,
}

/// The files that are named, and the captures in the directories that are.
///
/// # Errors
/// Where there is none.
pub fn files(paths: &[PathBuf]) -> Result<Vec<PathBuf>> {
    let is_capture = |path: &PathBuf| path.extension().is_some_and(|end| end == "pcap" || end == "pcapng");
    let mut files = Vec::new();
    for path in paths {
        if path.is_dir() {
            let entries = path.read_dir()?.map(|entry| Ok(entry?.path())).collect::<Result<Vec<_>>>()?;
            files.extend(entries.into_iter().filter(is_capture));
        } else {
            files.push(path.clone());
        }
    }
    files.sort();
    ensure!(!files.is_empty(), unreadable("no file there ends with .pcap or .pcapng".to_owned()));
    Ok(files)
}

/// The frames of a capture, by their time. Of a file that ends in the middle of a packet, those before it: published captures
/// often do. Why it ended is said to `cut_off`.
///
/// # Errors
/// Where it is no capture, or of a link that is not known here.
pub fn read(path: &Path, cut_off: impl FnOnce(&str)) -> Result<Vec<Captured>> {
    /// What a pcapng file begins with, in either byte order. Names do not tell.
    const PCAPNG: [u8; 4] = [0x0a, 0x0d, 0x0d, 0x0a];
    let cannot = |error| unreadable(format!("cannot read {}: {error}", path.display()));
    let mut file = BufReader::new(File::open(path).map_err(cannot)?);
    let head = file.fill_buf().map_err(cannot)?;
    ensure!(!head.is_empty(), unreadable(format!("{}: is empty", path.display())));
    let is_pcapng = head.starts_with(&PCAPNG);
    let mut frames = Vec::new();
    let ended = if is_pcapng { read_pcapng(file, &mut frames) } else { read_pcap(file, &mut frames) };
    match ended {
        Ok(()) => {}
        Err(error) if !frames.is_empty() && error.is::<PcapError>() => {
            cut_off(&format!("{}: ends after {} packets: {error}", path.display(), frames.len()));
        }
        Err(error) => bail!(unreadable(format!("{}: no capture that can be read: {error:#}", path.display()))),
    }
    frames.sort_by_key(|captured: &Captured| captured.at);
    Ok(frames)
}

fn unreadable(error: String) -> Failure {
    Failure::new(Exit::Configuration, error)
}

fn read_pcap(file: BufReader<File>, frames: &mut Vec<Captured>) -> Result<()> {
    let mut reader = PcapReader::new(file)?;
    let header = reader.header();
    let link = Link::of(header.datalink)?;
    // What a header says of the longest packet is often not so, and no reason to end there.
    while let Some(packet) = reader.next_raw_packet() {
        let mut packet = packet?;
        packet.orig_len = packet.orig_len.max(packet.incl_len);
        let packet = packet.try_into_pcap_packet(header.ts_resolution, u32::MAX)?;
        frames.extend(link.captured(packet.timestamp, packet.orig_len, &packet.data));
    }
    Ok(())
}

fn read_pcapng(file: BufReader<File>, frames: &mut Vec<Captured>) -> Result<()> {
    let mut reader = PcapNgReader::new(file)?;
    let mut interfaces: Vec<(Result<Link>, Ticks)> = Vec::new();
    let mut unknown = false;
    while let Some(block) = reader.next_block() {
        let (interface, ticks, bytes, data) = match block? {
            Block::SectionHeader(_) => {
                interfaces.clear();
                continue;
            }
            Block::InterfaceDescription(interface) => {
                interfaces.push((Link::of(interface.linktype), Ticks::of(&interface.options)));
                continue;
            }
            // The library takes ticks for nanoseconds, whatever the interface says that they are.
            Block::EnhancedPacket(packet) => {
                (packet.interface_id, packet.timestamp.as_nanos(), packet.original_len, packet.data)
            }
            Block::Packet(packet) => {
                (packet.interface_id.into(), packet.timestamp.into(), packet.original_len, packet.data)
            }
            _ => continue,
        };
        let of =
            interfaces.get(interface as usize).context("a packet of an interface that the file does not describe")?;
        match of {
            (Ok(link), unit) => frames.extend(link.captured(unit.at(ticks), bytes, &data)),
            // Others of the file may be of a link that is known.
            (Err(_), _) => unknown = true,
        }
    }
    if unknown && frames.is_empty() {
        interfaces.into_iter().try_for_each(|(link, _)| link.map(drop))?;
    }
    Ok(())
}

/// What the time of a packet counts.
#[derive(Clone, Copy)]
struct Ticks {
    per_second: u128,
    offset_s: u64,
}

impl Ticks {
    /// Microseconds, unless the interface says otherwise: a power of ten, or with the highest bit one of two.
    fn of(options: &[InterfaceDescriptionOption<'_>]) -> Self {
        let mut ticks = Self { per_second: 1_000_000, offset_s: 0 };
        for option in options {
            match option {
                InterfaceDescriptionOption::IfTsResol(power @ 0..=18) => {
                    ticks.per_second = 10_u128.pow((*power).into())
                }
                InterfaceDescriptionOption::IfTsResol(power @ 0x80..=0xbf) => ticks.per_second = 1 << (power & 0x7f),
                InterfaceDescriptionOption::IfTsOffset(seconds) => ticks.offset_s = *seconds,
                _ => {}
            }
        }
        ticks
    }

    fn at(self, ticks: u128) -> Duration {
        let nanoseconds = ticks * 1_000_000_000 / self.per_second;
        let since = Duration::new((nanoseconds / 1_000_000_000) as u64, (nanoseconds % 1_000_000_000) as u32);
        since.saturating_add(Duration::from_secs(self.offset_s))
    }
}

/// What stands before the IP header.
#[derive(Clone, Copy)]
enum Link {
    Ethernet,
    /// Nothing.
    Ip,
    /// So many bytes, of which two at this place are an EtherType.
    Cooked {
        length: usize,
        ether_type: usize,
    },
    /// Four bytes that say nothing that the IP header does not.
    Loopback,
}

impl Link {
    fn of(link: DataLink) -> Result<Self> {
        Ok(match link {
            DataLink::ETHERNET => Self::Ethernet,
            DataLink::RAW | DataLink::IPV4 | DataLink::IPV6 | DataLink::Unknown(12 | 14) => Self::Ip,
            DataLink::LINUX_SLL => Self::Cooked { length: 16, ether_type: 14 },
            DataLink::LINUX_SLL2 => Self::Cooked { length: 20, ether_type: 0 },
            DataLink::NULL | DataLink::LOOP => Self::Loopback,
            other => bail!("link type {other:?} is not known here: Ethernet, raw IP, Linux cooked and loopback are"),
        })
    }

    /// The packet as a frame of Ethernet: without addresses where the file has none. `None` where it is cut off before IP.
    fn captured(self, at: Duration, bytes: u32, data: &[u8]) -> Option<Captured> {
        let (ether_type, ip) = match self {
            Self::Ethernet => return Some(Captured { at, bytes: bytes.max(data.len() as u32), frame: data.to_vec() }),
            Self::Cooked { length, ether_type } => {
                (data.get(ether_type..ether_type + 2)?.try_into().ok()?, data.get(length..)?)
            }
            Self::Ip => (ether_type_of(data)?, data),
            Self::Loopback => (ether_type_of(data.get(4..)?)?, data.get(4..)?),
        };
        let mut frame = vec![0; 12];
        frame.extend::<[u8; 2]>(ether_type);
        frame.extend(ip);
        let cut = (bytes as usize).saturating_sub(data.len());
        Some(Captured { at, bytes: (frame.len() + cut) as u32, frame })
    }
}

fn ether_type_of(ip: &[u8]) -> Option<[u8; 2]> {
    match ip.first()? >> 4 {
        4 => Some([0x08, 0x00]),
        6 => Some([0x86, 0xdd]),
        _ => None,
    }
}

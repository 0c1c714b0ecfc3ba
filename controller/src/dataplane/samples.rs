//! Sampled headers, out of the ring.

use aya::maps::{MapData, RingBuf};
use floodwall_common::abi::{self, Stream};
use floodwall_common::class::Kind;
use floodwall_common::packet::{Frame, Parsed, Source, parse};
use floodwall_common::reason::{Reason, Verdict};

/// A sampled packet, in the controller's terms.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Sample {
    /// `CLOCK_MONOTONIC`, in nanoseconds.
    pub monotonic_ns: u64,
    /// Packets that it stands for.
    pub weight: u32,
    /// Length of its frame.
    pub frame_bytes: u32,
    /// Slot of its interface.
    pub slot: u8,
    /// Why it passed or was dropped.
    pub reason: Reason,
    /// Its kind.
    pub kind: Kind,
    /// The stream that it is of.
    pub stream: Stream,
    /// Its reason drops, or would in enforce mode.
    pub drops: bool,
    /// It was dropped.
    pub dropped: bool,
    /// Who claims to have sent it; `None` where it is not IP.
    pub source: Option<Source>,
}

/// The reader's end of the ring.
pub struct SampleReader {
    ring: RingBuf<MapData>,
}

impl SampleReader {
    pub(super) fn new(ring: RingBuf<MapData>) -> Self {
        Self { ring }
    }

    /// Hands what is in the ring to `each`, with the head of its frame. A record that is none of ours is skipped.
    pub fn drain(&mut self, mut each: impl FnMut(Sample, Frame<'_>)) {
        while let Some(record) = self.ring.next() {
            decode(&record, &mut each);
        }
    }
}

fn decode(record: &[u8], each: &mut impl FnMut(Sample, Frame<'_>)) -> Option<()> {
    if record.len() < size_of::<abi::Sample>() {
        return None;
    }
    // SAFETY: long enough, integers only, and read without regard to alignment.
    let raw: abi::Sample = unsafe { record.as_ptr().cast::<abi::Sample>().read_unaligned() };
    let head = raw.head.get(..usize::from(raw.head_bytes))?;
    let frame = Frame::cut(head, raw.frame_bytes);
    let source = match parse(frame) {
        Parsed::Packet(packet) => Some(packet.source),
        Parsed::Settled(..) => None,
    };
    let reason = Reason::from_index(raw.reason)?;
    let drops = |stopped: bool| reason.carried_out(stopped) == Verdict::Drop;
    let sample = Sample {
        monotonic_ns: raw.monotonic_ns,
        weight: raw.weight,
        frame_bytes: raw.frame_bytes,
        slot: raw.slot,
        reason,
        kind: Kind::from_index(raw.kind)?,
        stream: Stream::from_index(raw.stream)?,
        drops: drops(raw.wanted == 1),
        dropped: drops(raw.verdict == 1),
        source,
    };
    each(sample, frame);
    Some(())
}

//! An orderly run: packets of one stream that come in sequence, in time, through one tap, each once.
//!
//! ```text
//!   packet ─▶ Run::look ─┬─ next as expected ──▶ running values, one slot, two counters      nine of ten and more
//!                        ├─ behind a gap ──────▶ the same, and the Stream counts what is missing
//!                        └─ anything else ─────▶ Stream: takes the run back, observes, lends the next one
//! ```
//!
//! What such a packet changes in all of a stream's rooms is the same few numbers and sums. They lie here, side by side, while
//! a run lasts: half a KiB, where the whole stream spreads over several, and memory is what a packet costs where there are
//! many streams. The rooms lend their running values and take them back; the arithmetic is theirs, so that a figure does
//! not tell how it came about. What only counts packets is added up when the run ends.

use super::{legs, quality, raw};
use crate::dedup::{Signature, Tail};
use crate::packet::{MediaId, Nanos, RtpPacket};

/// See the module. What a packet is first compared with comes first. With its stream's key it takes eight lines of memory,
/// and every octet of them is used.
#[derive(Clone, Debug)]
#[repr(C)]
pub struct Run {
    /// Low half of the number of the next packet.
    next: u16,
    pub(super) payload_type: u8,
    pub(super) hashed: bool,
    pub(super) media: MediaId,
    pub(super) numbers: raw::Numbers,
    /// What ranks higher does not belong in the sketch.
    sketch_most: u32,
    /// Low half of the number that ends it: there is no slot for that packet, or tshark counts a cycle.
    end: u16,
    ticks_per_ms: u8,
    pub(super) tap: Signature,
    pub(super) slots: Tail,
    pub(super) quality: quality::Running,
    pub(super) raw: raw::Running,
}

/// What a stream lends to a run.
pub(super) struct Parts {
    /// Low half of its newest number.
    pub(super) seq: u16,
    pub(super) payload_type: u8,
    pub(super) media: MediaId,
    pub(super) tap: Signature,
    pub(super) slots: Tail,
    /// Packets for which there are slots.
    pub(super) room: u64,
    pub(super) numbers: raw::Numbers,
    pub(super) raw: raw::Running,
    pub(super) ticks_per_ms: u8,
    pub(super) quality: quality::Running,
    pub(super) sketch_most: u32,
    /// Have fingerprints been hashes before?
    pub(super) hashed: bool,
}

/// What a run makes of a packet before it takes it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Look {
    /// It is not the one that should come next.
    Other,
    /// It is, and what is left of the stream has to do something first: [`super::stream::Rest::serve`].
    Serve,
    /// It is, and that is all.
    Next,
}

impl Run {
    pub(super) fn new(parts: Parts) -> Self {
        let Parts { seq, payload_type, media, tap, slots, room, numbers, raw, ticks_per_ms, .. } = parts;
        let next = seq.wrapping_add(1);
        Self {
            next,
            payload_type,
            hashed: parts.hashed,
            media,
            numbers,
            sketch_most: parts.sketch_most,
            end: end(next, room, numbers),
            ticks_per_ms,
            tap,
            slots,
            quality: parts.quality,
            raw,
        }
    }

    /// Is it the next packet: in sequence, through the same tap, and about the same?
    #[inline]
    pub fn look(&self, packet: &RtpPacket) -> Look {
        let seq = packet.rtp.seq;
        if seq != self.next || seq == self.end || !self.is_alike(packet) {
            Look::Other
        } else if self.needs_service(packet) {
            Look::Serve
        } else {
            Look::Next
        }
    }

    /// Is it the next packet but for some that are missing? How many are.
    #[cold]
    pub fn look_beyond(&self, packet: &RtpPacket) -> Option<u16> {
        let missing = packet.rtp.seq.wrapping_sub(self.next);
        // What ends the run ends it for those behind it, too.
        let is_near = (1..=MOST_MISSING).contains(&missing) && missing < self.end.wrapping_sub(self.next);
        let is_alike = self.is_alike(packet) && (self.hashed || !packet.fingerprint.hashed);
        (is_near && is_alike).then_some(missing)
    }

    /// Is it, whatever its number, a packet like those before it, through the same tap?
    #[inline]
    fn is_alike(&self, packet: &RtpPacket) -> bool {
        let rtp = &packet.rtp;
        rtp.payload_type == self.payload_type
            && !rtp.marker
            && self.numbers.is_in_time(rtp.timestamp)
            && packet.media == self.media
            && packet.tap_time == packet.time
            && self.tap.is_of(&packet.evidence)
    }

    /// Has what is left of the stream to do something before it is taken?
    #[inline]
    pub(super) fn needs_service(&self, packet: &RtpPacket) -> bool {
        self.quality.is_due(packet.time) || legs::may_belong(packet, self.sketch_most)
    }

    /// Takes the next packet. False, with nothing changed, if its time is out of the ordinary, or if it does not go on as the
    /// ones before it. `depth_ns` is that of the fixed de-jitter buffer.
    #[inline]
    pub fn take(&mut self, packet: &RtpPacket, epoch: Nanos, depth_ns: f64) -> bool {
        let (ns, ticks) = self.quality.since_last(packet.time, packet.rtp.timestamp);
        let Some(linked) = self.slots.link(packet, ns, ticks, self.hashed) else { return false };
        if !self.count(packet, epoch, depth_ns) {
            return false;
        }
        self.slots.append(packet, linked);
        true
    }

    /// All of it but for the slot. What is measured of a packet is the same behind a gap.
    #[inline]
    pub(super) fn count(&mut self, packet: &RtpPacket, epoch: Nanos, depth_ns: f64) -> bool {
        let rtp = &packet.rtp;
        if !self.quality.step(packet.time, rtp.timestamp, packet.number, depth_ns) {
            return false;
        }
        let t = raw::relative_ms(packet.time, epoch);
        self.raw.step(self.numbers.ticks(rtp.timestamp), f64::from(self.ticks_per_ms), t, packet.number);
        self.next = rtp.seq.wrapping_add(1);
        true
    }

    /// Goes on with these slots, in which there is so much room.
    pub(super) fn go_on(&mut self, slots: Tail, room: u64) {
        self.slots = slots;
        self.end = end(self.next, room, self.numbers);
    }

    /// Makes more room if it is for the lack of it that this packet is not the next. A young stream's run thus outgrows its
    /// room without an end.
    #[cold]
    pub fn outgrows(&mut self, packet: &RtpPacket) -> bool {
        let next = self.next;
        if packet.rtp.seq != next || self.end != next || self.numbers.plain_until(next) == next {
            return false;
        }
        let Some(room) = self.slots.grow(next) else { return false };
        self.end = end(next, room, self.numbers);
        true
    }

    /// Begins another block of the drift if the packet that comes at `time` does not belong in this one.
    pub(super) fn turn(&mut self, time: Nanos, turn: impl FnOnce(&mut quality::Running)) {
        if self.quality.is_due(time) {
            turn(&mut self.quality);
        }
    }

    /// The highest rank that may belong in the sketch.
    pub(super) fn set_sketch(&mut self, most: u32) {
        self.sketch_most = most;
    }

    /// The memory outside of it that the next packet will need.
    #[inline]
    pub(crate) fn beyond(&self) -> (Option<&u64>, &[u8]) {
        (self.slots.beyond(self.next), self.quality.counters())
    }

    /// Time of the last packet.
    pub fn last_seen(&self) -> Nanos {
        self.quality.time()
    }
}

/// Packets that may be missing in a row: more than fit in what is an interruption, even at 10 ms.
const MOST_MISSING: u16 = 64;

/// The low half of the number that ends a run which goes on with `next` and has so much room.
fn end(next: u16, room: u64, numbers: raw::Numbers) -> u16 {
    let plain_until = numbers.plain_until(next);
    // What is of consequence comes within a cycle; is there less room?
    let few = u16::try_from(room).ok().filter(|room| *room < plain_until.wrapping_sub(next));
    few.map_or(plain_until, |room| next.wrapping_add(room))
}

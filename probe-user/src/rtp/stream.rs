//! One media stream: a sender's packets of one SSRC from one address to another.

mod key;
mod lending;
mod parts;
mod rest;

use std::sync::Arc;

use super::codec::{self, Announcement};
use super::events::Events;
use super::legs::Sketch;
use super::quality::{Quality, QualityInterval, Settings};
use super::raw::RawLedger;
use super::sequence::{Sequence, Step};
use super::unique::Placed;
use crate::dedup::reference::{self, By, Reference};
use crate::dedup::stats::Copy;
use crate::dedup::window::{DEPTH, DupWindow, MAX_TAPS, Seen};
use crate::dedup::{CopyStats, Explanation, FrameClass, explain};
use crate::packet::{Evidence, MediaId, Nanos, RtpPacket};

pub use key::{KeyWords, StreamKey};
pub use parts::{StreamParts, TapPart};
pub use rest::Rest;

/// Counters that only grow; an interval is the difference of two.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    /// Frames as captured.
    pub frames: u64,
    /// First copies.
    pub packets: u64,
    /// What the sender sent, by its numbers.
    pub expected: u64,
    /// Proven copies.
    pub copies: u64,
}

/// Numbers so far behind that RFC 3550 A.1 does not believe them (MAX_MISORDER), and not so far that they are ahead.
const LAGGING: std::ops::Range<u64> = 100..8_192;

/// See the module. 1.8 KiB, of which a [`Rest`] of 0.3 stays beside a run, and what grows with need: the window up to 1 KiB (3
/// where packets are not alike), the two histograms up to 0.4 each (a live one has two more), the drift up to 0.5. Where several
/// taps see it, 5.5 KiB and 2 KiB for each copy a packet more.
#[derive(Clone, Debug)]
pub struct Stream {
    key: StreamKey,
    number: u64,
    media: MediaId,
    announcement: Arc<Announcement>,
    first_seen: Nanos,
    last_seen: Nanos,
    /// Frames by payload type, in order of appearance: one or two, seldom more. The first is here, as most streams have
    /// no other, and a line of memory is what a packet costs where there are many streams.
    first_type: (u8, u64),
    other_types: Vec<(u8, u64)>,
    clocks: Clocks,
    encapsulation: crate::packet::Encapsulation,
    sequence: Sequence,
    window: DupWindow,
    /// Which tap's times count; only where several taps see this stream.
    reference: Option<Box<Reference>>,
    /// Frames, whatever carried them.
    frames: u64,
    /// None as long as all came inside rpcap or HEP, which tshark does not open.
    raw: Option<RawLedger>,
    quality: Quality,
    copies: CopyStats,
    old_copies: u64,
    conflicts: u64,
    too_old: u64,
    strays: u64,
    stray: Option<Box<RtpPacket>>,
    hashed_fingerprints: bool,
    interval_began_with: Totals,
    /// What tells its other legs. See [`super::legs`].
    sketch: Sketch,
    events: Events,
}

/// One interval of a stream, closed.
#[derive(Clone, Debug)]
pub struct IntervalSummary {
    /// Growth of the totals in it.
    pub totals: Totals,
    /// What the network did in it.
    pub quality: QualityInterval,
}

impl Stream {
    /// A stream that begins with `packet`. `number` is its place in the order of appearance.
    pub fn new(packet: &RtpPacket, number: u64, epoch: Nanos, announcement: Arc<Announcement>) -> Self {
        Self::judged(packet, number, epoch, announcement, Arc::default())
    }

    /// The same, with quality judged as the operator chose.
    pub fn judged(
        packet: &RtpPacket,
        number: u64,
        epoch: Nanos,
        announcement: Arc<Announcement>,
        settings: Arc<Settings>,
    ) -> Self {
        let sequence = Sequence::new(packet.rtp.seq);
        let first = sequence.first();
        let clocks = Clocks::of(packet.rtp.payload_type, &announcement);
        let placed = Placed { seq: first, clock_rate: clocks.timed, restarted: false, by: By::OnlyTap };
        let mut stream = Self {
            key: packet.into(),
            number,
            media: packet.media,
            first_seen: packet.time,
            last_seen: packet.time,
            first_type: (packet.rtp.payload_type, 1),
            other_types: Vec::new(),
            clocks,
            encapsulation: packet.evidence.encapsulation,
            sequence,
            window: DupWindow::new(first, packet),
            reference: None,
            frames: 1,
            raw: begin_raw(packet, epoch),
            quality: Quality::new(packet, placed, settings),
            copies: CopyStats::default(),
            old_copies: 0,
            conflicts: 0,
            too_old: 0,
            strays: 0,
            stray: None,
            hashed_fingerprints: packet.fingerprint.hashed,
            interval_began_with: Totals::default(),
            sketch: Sketch::default(),
            events: Events::default(),
            announcement,
        };
        stream.look_beside(packet);
        stream
    }

    /// Counts one more frame of this stream, and says what it is.
    pub fn observe(&mut self, packet: &RtpPacket, epoch: Nanos) -> FrameClass {
        self.last_seen = self.last_seen.max(packet.time);
        self.hashed_fingerprints |= packet.fingerprint.hashed;
        self.count_type(packet.rtp.payload_type, 1);
        let wireshark_rate = self.clocks_of(packet.rtp.payload_type).wireshark;
        self.frames += 1;
        match &mut self.raw {
            Some(raw) if packet.evidence.encapsulation.is_opened_by_tshark() => {
                raw.observe(packet, epoch, wireshark_rate);
            }
            Some(_) => {}
            None => self.raw = begin_raw(packet, epoch),
        }
        if let Some(class) = self.lagging(packet) {
            return class;
        }
        match self.sequence.observe(packet.rtp.seq) {
            Step::Number(seq) => self.place(seq, packet),
            Step::Stray { candidate } => self.set_aside(packet, candidate),
            Step::Restart { stray, number } => self.restart(stray, number, packet),
        }
    }

    #[inline]
    fn count_type(&mut self, number: u8, more: u64) {
        if self.first_type.0 == number {
            self.first_type.1 += more;
            return;
        }
        match self.other_types.iter_mut().find(|(other, _)| *other == number) {
            Some((_, frames)) => *frames += more,
            None => self.other_types.push((number, more)),
        }
    }

    fn payload_types(&self) -> impl Iterator<Item = (u8, u64)> {
        std::iter::once(self.first_type).chain(self.other_types.iter().copied())
    }

    /// What a payload type means here; asked of the signalling when it changes, not for every packet.
    #[inline]
    fn clocks_of(&mut self, number: u8) -> Clocks {
        if self.clocks.payload_type != number {
            self.clocks = Clocks::of(number, &self.announcement);
        }
        self.clocks
    }

    /// Judges what comes so late that RFC 3550 would no longer believe its number: behind a slow tunnel, two such in
    /// a row would look like a restart. What the window proves to be a copy is one. What is older still, and comes by
    /// another tap than the one that counts, says nothing about the sender.
    fn lagging(&mut self, packet: &RtpPacket) -> Option<FrameClass> {
        #[expect(clippy::cast_possible_truncation, reason = "the low half is the number on the wire")]
        let behind = u64::from((self.window.top() as u16).wrapping_sub(packet.rtp.seq));
        if !LAGGING.contains(&behind) {
            return None;
        }
        if let Some(seq) = self.window.recall(packet, behind) {
            return Some(self.place(seq, packet));
        }
        let reference = self.reference.as_ref().filter(|_| behind >= DEPTH)?;
        let current = self.window.tap_at(reference.current())?;
        let signature = Evidence { ip_id: 0, ..packet.evidence };
        (signature != *current).then(|| {
            self.too_old += 1;
            FrameClass::Unplaced
        })
    }

    fn place(&mut self, seq: u64, packet: &RtpPacket) -> FrameClass {
        let quality = &mut self.quality;
        match self.window.observe(seq, packet, |came| quality.settled(came)) {
            Seen::First => {
                self.first(seq, packet);
                FrameClass::Unique
            }
            Seen::Copy(original) => {
                if !original.again {
                    self.seen_elsewhere(seq, packet);
                }
                self.count_copy(original.explanation, original.time, original.number, packet)
            }
            Seen::OldCopy => {
                self.old_copies += 1;
                FrameClass::OldCopy
            }
            Seen::Conflict => {
                self.conflicts += 1;
                FrameClass::Conflict
            }
            Seen::TooOld => {
                self.too_old += 1;
                FrameClass::Unplaced
            }
        }
    }

    fn count_copy(
        &mut self,
        explanation: Explanation,
        original_time: Nanos,
        original: u64,
        packet: &RtpPacket,
    ) -> FrameClass {
        let copy = Copy { explanation, original_time, original, time: packet.time, number: packet.number };
        self.copies.observe(&copy);
        FrameClass::copy(&copy)
    }

    /// The first sighting of a packet: counted now, or as soon as the reference tap has seen it.
    fn first(&mut self, seq: u64, packet: &RtpPacket) {
        let tap = self.window.tap();
        if self.reference.is_none() && self.window.tap_count() > 1 {
            self.reference = Some(Box::new(Reference::new(self.quality.packets())));
        }
        match &mut self.reference {
            Some(reference) if tap < MAX_TAPS => {
                for placed in reference.first(seq, packet, tap).into_iter().flatten() {
                    self.count_placed(&placed);
                }
            }
            _ => self.count_first(seq, packet, false),
        }
    }

    /// Another tap has seen a packet.
    #[cold]
    fn seen_elsewhere(&mut self, seq: u64, packet: &RtpPacket) {
        let (tap, packets) = (self.window.tap(), self.quality.packets());
        if tap >= MAX_TAPS {
            return;
        }
        let reference = self.reference.get_or_insert_with(|| Box::new(Reference::new(packets)));
        if let Some(placed) = reference.again(seq, packet, tap) {
            self.count_placed(&placed);
        }
    }

    /// Counts the packet that still waits for the reference tap.
    fn release(&mut self) {
        if let Some(placed) = self.reference.as_mut().and_then(|reference| reference.release()) {
            self.count_placed(&placed);
        }
    }

    /// What is not about time or loss: events, and what tells other legs.
    #[inline]
    fn look_beside(&mut self, packet: &RtpPacket) {
        self.sketch.observe(packet);
        if packet.payload_head.is_some() && self.clocks_of(packet.rtp.payload_type).is_event {
            self.events.observe(packet);
        }
    }

    fn count_first(&mut self, seq: u64, packet: &RtpPacket, restarted: bool) {
        self.look_beside(packet);
        let clock_rate = self.clocks_of(packet.rtp.payload_type).timed;
        self.quality.first_copy(packet, Placed { seq, clock_rate, restarted, by: By::OnlyTap });
    }

    /// The same of what may have waited for the reference tap.
    fn count_placed(&mut self, placed: &reference::Placed) {
        let reference::Placed { seq, packet, by } = placed;
        self.look_beside(packet);
        let clock_rate = self.clocks_of(packet.rtp.payload_type).timed;
        let placed = Placed { seq: *seq, clock_rate, restarted: false, by: *by };
        self.quality.first_copy(packet, placed);
    }

    /// A packet whose number nobody believes yet. Its copies are copies all the same.
    fn set_aside(&mut self, packet: &RtpPacket, candidate: bool) -> FrameClass {
        if let Some(stray) = self.stray.as_deref()
            && stray.rtp == packet.rtp
        {
            let (time, number) = (stray.time, stray.number);
            let explanation = explain(&stray.evidence, &packet.evidence);
            return self.count_copy(explanation, time, number, packet);
        }
        self.strays += 1;
        if candidate {
            self.stray = Some(Box::new(*packet));
        }
        FrameClass::Unique
    }

    fn restart(&mut self, stray_seq: u64, seq: u64, packet: &RtpPacket) -> FrameClass {
        self.release();
        let quality = &mut self.quality;
        if let Some(stray) = self.stray.take() {
            self.strays -= 1;
            self.window.restart(stray_seq, &stray, |came| quality.settled(came));
            let tap = self.window.tap();
            let timed = self.reference.as_ref().map_or(*stray, |reference| reference.at_once(&stray, tap));
            self.count_first(stray_seq, &timed, true);
        } else {
            self.window.restart(stray_seq, packet, |came| quality.settled(came));
        }
        self.place(seq, packet)
    }

    /// The signalling has said something about this stream since it began.
    pub fn announce(&mut self, media: MediaId, announcement: Arc<Announcement>) {
        self.media = media;
        self.clocks = Clocks::of(self.clocks.payload_type, &announcement);
        self.announcement = announcement;
    }

    /// Closes the running interval and begins the next.
    pub fn close_interval(&mut self) -> IntervalSummary {
        let totals = self.totals();
        let before = std::mem::replace(&mut self.interval_began_with, totals);
        IntervalSummary {
            totals: Totals {
                frames: totals.frames - before.frames,
                packets: totals.packets - before.packets,
                expected: totals.expected.saturating_sub(before.expected),
                copies: totals.copies - before.copies,
            },
            quality: self.quality.close_interval(),
        }
    }

    /// Everything so far.
    pub fn totals(&self) -> Totals {
        Totals {
            frames: self.frames,
            packets: self.quality.packets() + u64::from(self.is_holding()),
            expected: self.sequence.expected(),
            copies: self.copies.total() + self.old_copies,
        }
    }

    fn is_holding(&self) -> bool {
        self.reference.as_ref().is_some_and(|reference| reference.is_holding())
    }

    /// Is this more than a lucky byte pattern: announced, or two consecutive numbers (RFC 3550, A.1)?
    pub fn is_valid(&self) -> bool {
        self.media != MediaId::UNANNOUNCED || self.sequence.is_valid()
    }

    /// Identity.
    pub fn key(&self) -> &StreamKey {
        &self.key
    }

    /// Place in the order of appearance.
    pub fn number(&self) -> u64 {
        self.number
    }

    /// What the signalling said.
    pub fn media(&self) -> MediaId {
        self.media
    }

    /// The same in full.
    pub fn announcement(&self) -> &Arc<Announcement> {
        &self.announcement
    }

    /// What the network did to it.
    pub fn quality(&self) -> &Quality {
        &self.quality
    }

    /// Time of the last frame.
    pub fn last_seen(&self) -> Nanos {
        self.last_seen
    }

    /// What its first packet came in.
    pub fn encapsulation(&self) -> crate::packet::Encapsulation {
        self.encapsulation
    }
}

/// The ledger that equals tshark's begins with what tshark would see.
fn begin_raw(packet: &RtpPacket, epoch: Nanos) -> Option<RawLedger> {
    packet.evidence.encapsulation.is_opened_by_tshark().then(|| RawLedger::new(packet, epoch))
}

/// What the signalling says of one payload type of a stream, the one that came last.
#[derive(Clone, Copy, Debug)]
struct Clocks {
    payload_type: u8,
    is_event: bool,
    /// The clock of a packet whose timestamp advances with time; events (RFC 4733) stand still.
    timed: Option<u32>,
    /// The rate that tshark takes.
    wireshark: Option<u32>,
}

impl Clocks {
    #[cold]
    fn of(payload_type: u8, announcement: &Announcement) -> Self {
        let is_event = announcement.is_event(payload_type);
        let timed = if is_event { None } else { codec::clock_rate(payload_type, announcement) };
        let wireshark = codec::wireshark_clock_rate(payload_type, announcement);
        Self { payload_type, is_event, timed, wireshark }
    }
}

#[cfg(test)]
#[path = "stream_tests.rs"]
mod tests;

//! One media stream: a sender's packets of one SSRC from one address to another.

mod rest;

use std::sync::Arc;

use super::codec::{self, Announcement, static_payload};
use super::events::Events;
use super::legs::Sketch;
use super::loss::LossPattern;
use super::quality::{Quality, QualityInterval, QualityParts, Settings};
use super::rate::RateSource;
use super::raw::{self, RawLedger};
use super::run::{Parts, Run};
use super::sequence::{Sequence, Step};
use super::unique::{Interruption, LedgerReport, Placed};
use crate::dedup::reference::{self, By, Reference};
use crate::dedup::stats::Copy;
use crate::dedup::window::{DEPTH, DupWindow, MAX_TAPS, Seen};
use crate::dedup::{CopyStats, Explanation, FrameClass, Tail, explain};
use crate::histogram::MicrosHistogram;
use crate::packet::{Evidence, Flow, FlowWords, MediaId, Nanos, RtpPacket};

pub use rest::Rest;

/// What makes two packets the same stream. Not the VLAN, the MACs, the tunnel or the tap: those are evidence.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct StreamKey {
    /// Innermost addresses and ports.
    pub flow: Flow,
    /// Synchronisation source.
    pub ssrc: u32,
}

impl From<&RtpPacket> for StreamKey {
    fn from(packet: &RtpPacket) -> Self {
        KeyWords::from(packet).into()
    }
}

/// A [`StreamKey`] as numbers, for tables: it is hashed and compared in registers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct KeyWords {
    /// Innermost addresses and ports.
    pub flow: FlowWords,
    /// Synchronisation source.
    pub ssrc: u32,
}

impl From<&RtpPacket> for KeyWords {
    #[inline]
    fn from(packet: &RtpPacket) -> Self {
        Self { flow: packet.flow, ssrc: packet.rtp.ssrc }
    }
}

impl From<KeyWords> for StreamKey {
    fn from(KeyWords { flow, ssrc }: KeyWords) -> Self {
        Self { flow: flow.into(), ssrc }
    }
}

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

/// Packets of a run that is long: five seconds at 20 ms, half of a usual interval. Of a stream that loses one packet of a
/// hundred, one run of thirteen is as long.
const LONG_RUN: u64 = 256;

/// See the module. 1.7 KiB, of which a [`Rest`] of 0.2 stays beside a run, and what grows with need: the window up to 1 KiB (3
/// where packets are not alike), the two histograms up to 0.4 each (a live one has two more), drift and sketch up to 1. Where several taps see it, 5.5 KiB and 2 KiB for each copy a packet more.
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

    /// Begins a run behind `packet`, which was observed last, if it and the stream are as ordinary as one must be.
    pub fn lend(&mut self, packet: &RtpPacket) -> Option<Run> {
        #[expect(clippy::cast_possible_truncation, reason = "the low half is the number on the wire")]
        let newest = self.window.top() as u16;
        let is_ordinary = packet.tap_time == packet.time
            && self.last_seen == packet.time
            && self.media == packet.media
            && self.clocks.payload_type == packet.rtp.payload_type
            && packet.rtp.seq == newest
            && self.window.tap() == 0
            && packet.evidence.encapsulation.is_opened_by_tshark();
        if is_ordinary { self.lend_again() } else { None }
    }

    /// The same of a stream that nothing has come to since its last run.
    pub fn lend_again(&mut self) -> Option<Run> {
        let Clocks { payload_type, is_event, timed, wireshark } = self.clocks;
        if is_event || self.reference.is_some() {
            return None;
        }
        let top = self.sequence.lend().filter(|seq| *seq == self.window.top())?;
        #[expect(clippy::cast_possible_truncation, reason = "the low half is the number on the wire")]
        let seq = top as u16;
        let rate = wireshark?;
        let (numbers, raw) = self.raw.as_ref()?.lend(seq, payload_type, rate)?;
        let ticks_per_ms = u8::try_from(raw::ticks_per_ms(rate)).ok()?;
        let tap = self.window.only_tap()?;
        let quality = self.quality.lend(top, self.last_seen, payload_type, timed)?;
        let (slots, room) = self.window.lend();
        Some(Run::new(Parts {
            seq,
            payload_type,
            media: self.media,
            tap,
            slots,
            room,
            numbers,
            raw,
            ticks_per_ms,
            quality,
            sketch_most: self.sketch.most(),
            hashed: self.hashed_fingerprints,
        }))
    }

    /// Does what a run asks for before it takes `packet`.
    pub fn serve(&mut self, run: &mut Run, packet: &RtpPacket) {
        run.turn(packet.time, |quality| self.quality.turn(quality, packet.time));
        self.sketch.observe(packet);
        run.set_sketch(self.sketch.most());
    }

    /// Has it shown few packets, and none of them lost, out of order or late? Then only a counter that is full ends its
    /// runs, and it rests at once.
    pub fn is_young_and_calm(&self) -> bool {
        let is_marked = self.raw.as_ref().is_none_or(RawLedger::is_marked);
        self.frames < LONG_RUN && !is_marked && self.quality.is_calm()
    }

    /// Has its run lasted for long?
    pub fn is_at_rest(&self, run: &Run) -> bool {
        self.packets_of(run) >= LONG_RUN
    }

    /// Packets that its run has taken.
    fn packets_of(&self, run: &Run) -> u64 {
        self.raw.as_ref().map_or(0, |ledger| ledger.packets_until(&run.raw))
    }

    /// As [`Stream::is_valid`], of a stream that was lent to a run.
    pub fn is_valid_with(&self, run: &Run) -> bool {
        self.is_valid() || self.packets_of(run) > 0
    }

    /// What has to be kept of it beside the run that it was lent to; nothing of a stream that has no raw ledger, as it has no
    /// run.
    pub fn into_rest(mut self: Box<Self>, run: &Run) -> Option<Rest> {
        let ledger = self.raw.take()?;
        Some(Rest::new(*self, ledger, run))
    }

    /// Goes on where a run has come to.
    pub fn take_back(&mut self, mut run: Run) {
        let packets = self.packets_of(&run);
        let last = (run.quality.time(), run.quality.timestamp());
        self.place_run(&mut run.slots, packets, last);
        let Run { raw, quality, .. } = run;
        self.last_seen = quality.time();
        if let Some(ledger) = &mut self.raw {
            #[expect(clippy::cast_possible_truncation, reason = "the low half is the number on the wire")]
            ledger.take_back(raw, self.sequence.top() as u16, quality.time());
        }
        self.quality.take_back(quality, packets);
    }

    /// Places the packets of a run, each the next one: numbers, frames, slots. The last came at `time` and bore `timestamp`.
    fn place_run(&mut self, slots: &mut Tail, packets: u64, (time, timestamp): (Nanos, u32)) {
        self.count_type(self.clocks.payload_type, packets);
        self.frames += packets;
        self.sequence.take_back(packets);
        let quality = &mut self.quality;
        self.window.take_back(slots, packets, (time, timestamp), |came, count| {
            if came {
                quality.settled_in_time(count);
            } else {
                (0..count).for_each(|_| quality.settled(false));
            }
        });
    }

    /// Takes a packet before which so many are missing, and lets the run go on behind it: all that was measured stays with the
    /// run. False, with nothing changed, if the run cannot take it.
    pub fn bridge(
        &mut self,
        run: &mut Run,
        packet: &RtpPacket,
        missing: u16,
        epoch: Nanos,
        depth_ns: f64,
    ) -> bool {
        if run.needs_service(packet) {
            self.serve(run, packet);
        }
        let packets = self.packets_of(run);
        let last = (run.quality.time(), run.quality.timestamp());
        if !run.count(packet, epoch, depth_ns) {
            return false;
        }
        self.place_run(&mut run.slots, packets, last);
        self.count_type(self.clocks.payload_type, 1);
        self.frames += 1;
        let seq = self.sequence.skip(u64::from(missing));
        let quality = &mut self.quality;
        self.window.observe(seq, packet, |came| quality.settled(came));
        let (slots, room) = self.window.lend();
        run.go_on(slots, room);
        self.quality.skip(packets + 1, u64::from(missing));
        if let Some(ledger) = &mut self.raw {
            ledger.skip(&run.raw);
        }
        true
    }

    /// The payload type that the stream is about: of those that carry speech, as far as is known, the one with
    /// most frames. Comfort noise and digits come between, and an unannounced dynamic type could be either.
    pub fn main_payload_type(&self) -> u8 {
        let is_speech = |number| {
            !codec::is_comfort_noise(number)
                && match self.announcement.payload(number) {
                    Some(payload) => !codec::is_event(&payload.name),
                    None => static_payload(number).is_some(),
                }
        };
        let most = self.payload_types().max_by_key(|(number, frames)| (is_speech(*number), *frames));
        most.map_or(0, |(number, _)| number)
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

    /// The same if there are several; nothing where one tap sees it all.
    pub fn several_taps(&self) -> Vec<TapPart> {
        if self.window.tap_count() > 1 { self.taps() } else { Vec::new() }
    }

    /// Through which taps this stream is seen, in order of appearance.
    pub fn taps(&self) -> Vec<TapPart> {
        let part = |(at, evidence): (usize, Evidence)| {
            let count = self.reference.as_ref().and_then(|reference| reference.taps().get(at));
            let current = self.reference.as_ref().map_or(0, |reference| reference.current());
            TapPart {
                evidence,
                reference: self.window.tap_at(current).copied().unwrap_or(evidence),
                packets: count.map_or(self.totals().packets, |count| count.packets),
                late_ns: count.map_or(Some((0, 0)), reference::TapCount::late_ns),
                first: count.and_then(|count| count.first).filter(|_| at > 0).unwrap_or(self.first_seen),
                last: count.map_or(self.last_seen, |count| count.last),
            }
        };
        self.window.taps().enumerate().map(part).collect()
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

    /// The raw ledger so far.
    pub fn raw_report(&self) -> LedgerReport {
        self.raw.as_ref().map_or_else(LedgerReport::nothing, RawLedger::report)
    }

    /// What the network did to it.
    pub fn quality(&self) -> &Quality {
        &self.quality
    }

    /// Copies so far, by cause.
    pub fn causes(&self) -> Vec<crate::dedup::stats::CauseReport> {
        self.copies.causes(self.quality.packets())
    }

    /// Time of the last frame.
    pub fn last_seen(&self) -> Nanos {
        self.last_seen
    }

    /// What its first packet came in.
    pub fn encapsulation(&self) -> crate::packet::Encapsulation {
        self.encapsulation
    }

    /// Name of the codec, if anybody said or the payload type is static.
    pub fn codec(&self) -> Option<&str> {
        codec::name(self.main_payload_type(), &self.announcement)
    }

    /// Format parameters of the codec, if SDP has any.
    pub fn codec_parameters(&self) -> Option<&str> {
        self.announcement.parameters(self.main_payload_type())
    }

    /// Clock rate of the codec, and who says so.
    pub fn clock_rate(&self) -> Option<(u32, RateSource)> {
        let number = self.main_payload_type();
        codec::sourced_clock_rate(number, &self.announcement)
            .or_else(|| self.quality.estimated_rate(number).map(|rate| (rate, RateSource::Estimated)))
    }

    /// The parts that a report is made of. Closes what is still open, hence by value of a clone or at the end.
    pub fn into_parts(mut self) -> StreamParts {
        self.release();
        let taps = self.taps();
        let quality = &mut self.quality;
        self.window.drain(|came| quality.settled(came));
        let totals = self.totals();
        let clock_rate = self.clock_rate();
        let rate = clock_rate.map(|(rate, _)| rate);
        let unique = self.quality.ledger(totals.expected, rate);
        let (valid, codec) = (self.is_valid(), self.codec().map(ToOwned::to_owned));
        let (payload_type, codec_parameters) =
            (self.main_payload_type(), self.codec_parameters().map(ToOwned::to_owned));
        let reordered = self.quality.late();
        let (interruptions, interruption_count) = self.quality.interruptions();
        let interruptions = interruptions.to_vec();
        let (loss, jitter, quality) = self.quality.into_parts();
        StreamParts {
            valid,
            payload_type,
            codec,
            codec_parameters,
            clock_rate: rate,
            clock_rate_source: clock_rate.map(|(_, source)| source),
            raw_end: self.raw.as_ref().map_or(self.first_seen, RawLedger::end),
            raw_marked: self.raw.as_ref().is_some_and(RawLedger::is_marked),
            raw: self.raw.as_ref().map_or_else(LedgerReport::nothing, RawLedger::report),
            unique,
            reordered,
            interruptions,
            interruption_count,
            restarts: self.sequence.restarts(),
            key: self.key,
            number: self.number,
            media: self.media,
            announcement: self.announcement,
            first_seen: self.first_seen,
            last_seen: self.last_seen,
            payload_types: {
                let mut numbers: Vec<_> = std::iter::once(self.first_type)
                    .chain(self.other_types)
                    .map(|(number, _)| number)
                    .collect();
                numbers.sort_unstable();
                numbers
            },
            encapsulation: self.encapsulation,
            loss,
            filled_in: self.reference.as_ref().map_or(0, |reference| reference.filled_in()),
            taps,
            copies: self.copies,
            old_copies: self.old_copies,
            conflicts: self.conflicts,
            too_old: self.too_old,
            strays: self.strays,
            hashed_fingerprints: self.hashed_fingerprints,
            jitter,
            quality,
            sketch: self.sketch,
            events: self.events,
        }
    }
}

/// The ledger that equals tshark's begins with what tshark would see.
fn begin_raw(packet: &RtpPacket, epoch: Nanos) -> Option<RawLedger> {
    packet.evidence.encapsulation.is_opened_by_tshark().then(|| RawLedger::new(packet, epoch))
}

/// One tap's part in a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TapPart {
    /// Its signature: evidence without the IP ID.
    pub evidence: Evidence,
    /// That of the tap whose times count.
    pub reference: Evidence,
    /// Packets that it saw.
    pub packets: u64,
    /// How late it is after the reference, median and spread; unknown before both saw the same packet.
    pub late_ns: Option<(i64, i64)>,
    /// When it saw its first packet.
    pub first: Nanos,
    /// When it saw its last.
    pub last: Nanos,
}

/// A stream taken apart for its report.
#[derive(Clone, Debug)]
pub struct StreamParts {
    /// Identity.
    pub key: StreamKey,
    /// Place in the order of appearance.
    pub number: u64,
    /// What the signalling said, as an index.
    pub media: MediaId,
    /// What the signalling said.
    pub announcement: Arc<Announcement>,
    /// Announced, or past RFC 3550's probation; the others are byte patterns.
    pub valid: bool,
    /// The payload type that it is about.
    pub payload_type: u8,
    /// Name of the codec.
    pub codec: Option<String>,
    /// Its format parameters in the SDP.
    pub codec_parameters: Option<String>,
    /// Its clock rate in Hz.
    pub clock_rate: Option<u32>,
    /// Who says so.
    pub clock_rate_source: Option<RateSource>,
    /// Time of the first frame.
    pub first_seen: Nanos,
    /// Time of the last.
    pub last_seen: Nanos,
    /// Payload types seen, ascending.
    pub payload_types: Vec<u8>,
    /// Encapsulation of the first frame.
    pub encapsulation: crate::packet::Encapsulation,
    /// As captured.
    pub raw: super::unique::LedgerReport,
    /// Time of the frame that `raw` counted last.
    pub raw_end: Nanos,
    /// Would tshark mark the stream?
    pub raw_marked: bool,
    /// Copies removed.
    pub unique: super::unique::LedgerReport,
    /// Packets after a later one.
    pub reordered: u64,
    /// Where arrivals and timestamps parted company; the first few.
    pub interruptions: Vec<Interruption>,
    /// How often they did.
    pub interruption_count: u64,
    /// Times the numbering began anew.
    pub restarts: u32,
    /// Loss in sequence order.
    pub loss: LossPattern,
    /// Proven copies by cause.
    pub copies: CopyStats,
    /// Packets that the reference tap missed, and another's copy stands for.
    pub filled_in: u64,
    /// Through which taps it was seen.
    pub taps: Vec<TapPart>,
    /// Copies too long after their originals to be explained.
    pub old_copies: u64,
    /// Same number, other content.
    pub conflicts: u64,
    /// Too old to be told from a copy.
    pub too_old: u64,
    /// Numbers that nobody believed.
    pub strays: u64,
    /// Were payload bytes hashed because the UDP checksum was of no use?
    pub hashed_fingerprints: bool,
    /// Jitter samples |D| of the whole life.
    pub jitter: MicrosHistogram,
    /// What else the network did.
    pub quality: QualityParts,
    /// What tells its other legs.
    pub sketch: Sketch,
    /// Telephone events.
    pub events: Events,
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

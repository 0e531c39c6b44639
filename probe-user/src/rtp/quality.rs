//! Everything behind a first copy: what the network did to a stream, and how it would have sounded.
//!
//! ```text
//!   first_copy ─▶ timeline ─┬─▶ unique: loss, jitter, interruptions ─▶ |D| distribution
//!                           ├─▶ drift: the sender's clock
//!                           ├─▶ delay: variation over the quickest ──▶ PDV distribution
//!                           └─▶ playout: too late to be played? ─┐ remembered until
//!   settled ────────────────────────────────────────────────────┴▶ loss: runs, bursts and gaps
//! ```
//!
//! The stream places packets (which are copies? which numbers?) and tells [`Quality`] of each first copy, in order of
//! arrival, and of each number's end, in order of sequence. All time here is the tap's own.

mod rest;

use std::sync::Arc;

use serde::Serialize;

use super::codec::is_comfort_noise;
use super::delay::DelayReference;
use super::drift::{Block, ClockDrift, Drift};
use super::impairment::Declared;
use super::incidents::{Incidents, MarkerRestart, SPIKE_NS};
use super::loss::{Fate, LossPattern};
use super::playout::{Buffers, JitterBuffer, Playout, PlayoutReport};
use super::rate::RateEstimate;
use super::timeline::{Segment, Timeline};
use super::unique::{
    self, INTERRUPTION_NS, Interruption, LedgerReport, Placed, UniqueLedger, jumped, whole_ns,
};
use crate::dedup::window::DEPTH;
use crate::histogram::{Distribution, MicrosHistogram, Pair};
use crate::packet::{Nanos, RtpPacket};

pub(super) use rest::{Before, Began, Parted, Rest, Stood, Troubles};

/// A marker after a silence of more than this, by the sender's clock, begins a talkspurt. Packets are 60 ms at most;
/// a marker after less ends a picture, or is set on every packet.
const SILENCE_NS: f64 = 60e6;
/// Changes of codec that are listed; all are counted.
const MAX_CHANGES: usize = 8;

/// How quality is judged: the operator's choice.
#[derive(Clone, Debug, PartialEq)]
pub struct Settings {
    /// The de-jitter buffer whose discards count as loss.
    pub jitter_buffer: JitterBuffer,
    /// Codec impairments of the operator's own.
    pub impairments: Declared,
}

impl Settings {
    /// A buffer of 60 ms, and only what is published.
    pub const USUAL: Self = Self { jitter_buffer: JitterBuffer::USUAL, impairments: Declared::NONE };
}

impl Default for Settings {
    fn default() -> Self {
        Self::USUAL
    }
}

/// The stream went on with another payload type that carries media.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct CodecChange {
    /// When.
    #[serde(skip)]
    pub at: Nanos,
    /// First frame of the new one.
    pub packet: u64,
    /// Payload type before.
    pub from: u8,
    /// Payload type since.
    pub to: u8,
}

/// See the module.
#[derive(Clone, Debug)]
pub struct Quality {
    settings: Arc<Settings>,
    timeline: Timeline,
    unique: UniqueLedger,
    drift: Drift,
    delay: DelayReference,
    playout: Playout,
    loss: LossPattern,
    discards: Discards,
    jitter: Distribution,
    variation: Distribution,
    estimate: Option<Box<RateEstimate>>,
    /// Payload type of the last packet with a clock, comfort noise apart.
    codec: Option<u8>,
    changes: Vec<CodecChange>,
    change_count: u64,
    interruption: Option<Interruption>,
    discarded_before: u64,
    /// Absent in a stream that had none.
    incidents: Option<Box<Incidents>>,
}

/// One interval, closed.
#[derive(Clone, Debug, Default)]
pub struct QualityInterval {
    /// Samples of |D|.
    pub jitter: MicrosHistogram,
    /// Samples of delay variation.
    pub variation: MicrosHistogram,
    /// The heaviest interruption that ended in it.
    pub interruption: Option<Interruption>,
    /// Packets of it that were too late for the buffer that judges.
    pub discarded: u64,
}

/// What is left of it for a report, besides the ledger.
#[derive(Clone, Debug)]
pub struct QualityParts {
    /// How it was judged.
    pub settings: Arc<Settings>,
    /// Samples of delay variation.
    pub variation: MicrosHistogram,
    /// What the buffers did, if a packet had a clock.
    pub playout: Option<PlayoutReport>,
    /// Packets too late for the buffer that judges.
    pub discarded: u64,
    /// The clock rate of an unannounced payload type, or why there is none.
    pub estimate: Option<RateEstimate>,
    /// The first changes of codec.
    pub changes: Vec<CodecChange>,
    /// All of them.
    pub change_count: u64,
    /// Jitter spikes, and markers that began another time line.
    pub incidents: Incidents,
}

impl Quality {
    /// Begins with a stream's first packet.
    pub fn new(packet: &RtpPacket, placed: Placed, settings: Arc<Settings>) -> Self {
        let mut quality = Self {
            timeline: Timeline::default(),
            unique: UniqueLedger::new(packet, placed),
            drift: Drift::default(),
            delay: DelayReference::default(),
            playout: Playout::new(settings.jitter_buffer),
            loss: LossPattern::default(),
            discards: Discards::new(placed.seq),
            jitter: Distribution::default(),
            variation: Distribution::default(),
            estimate: placed.clock_rate.is_none().then(|| Box::new(RateEstimate::new(packet, placed.seq))),
            codec: None,
            changes: Vec::new(),
            change_count: 0,
            interruption: None,
            discarded_before: 0,
            incidents: None,
            settings,
        };
        if let Some(rate) = placed.clock_rate {
            let at = packet.tap_time;
            quality.timeline.place(at, packet.rtp.timestamp, rate, None, true, true);
            quality.stand(packet, placed.seq, 0.0, true, true, 0.0);
        }
        quality
    }

    /// The first copy of one more packet, in order of arrival.
    pub fn first_copy(&mut self, packet: &RtpPacket, placed: Placed) {
        self.discards.place(placed.seq);
        if self.unique.takes_in_place(packet, placed) {
            self.unique.count_in_place(placed.seq);
            return;
        }
        let placed =
            Placed { clock_rate: placed.clock_rate.or_else(|| self.estimated(packet, placed.seq)), ..placed };
        let (at, timestamp) = (packet.tap_time, packet.rtp.timestamp);
        let measured = placed.clock_rate.and_then(|rate| self.timeline.measure(at, timestamp, rate));
        let seen = self.unique.observe(packet, placed, measured);
        if let Some(found) = seen.interruption
            && self.interruption.is_none_or(|heaviest| heaviest.weight() < found.weight())
        {
            self.interruption = Some(found);
        }
        if let Some(jitter_ns) = seen.jitter_ns {
            self.jitter.record_ns(jitter_ns);
        }
        let Some(rate) = placed.clock_rate else { return };
        let standing = self.timeline.place(at, timestamp, rate, measured, seen.breaks, seen.is_regular);
        let is_spurt = standing.begins
            || seen.after_noise
            || packet.rtp.marker && measured.is_some_and(|measured| measured.nominal_ns > SILENCE_NS);
        if let Some(measured) = measured.filter(|_| standing.begins && packet.rtp.marker && !seen.breaks) {
            let jump_s = -measured.difference_ns() / 1e9;
            let restart = MarkerRestart { at: packet.time, packet: packet.number, jump_s };
            self.incidents.get_or_insert_default().restarted(restart);
        }
        let rise_ns = measured.map_or(0.0, |measured| measured.difference_ns());
        self.stand(packet, placed.seq, standing.transit_ns, standing.begins, is_spurt, rise_ns);
    }

    /// A packet with a clock, where it stands on its time line. Comfort noise is not played in time, and says little
    /// of queues: it is sent when nobody listens for it.
    fn stand(
        &mut self,
        packet: &RtpPacket,
        seq: u64,
        transit_ns: f64,
        begins: bool,
        is_spurt: bool,
        rise_ns: f64,
    ) {
        let at = packet.tap_time;
        self.unique.weigh_skew(transit_ns);
        self.drift.observe(at, transit_ns, begins);
        let variation_ns = self.delay.observe(at, transit_ns, self.drift.slope(), begins);
        if is_comfort_noise(packet.rtp.payload_type) {
            return;
        }
        if self.codec != Some(packet.rtp.payload_type) {
            self.change_codec(packet);
        }
        if variation_ns >= SPIKE_NS {
            self.incidents.get_or_insert_default().late(packet.time, packet.number, variation_ns, rise_ns);
        }
        self.variation.record_ns(whole_ns(variation_ns));
        if self.playout.observe(transit_ns, variation_ns, is_spurt, packet.number) {
            self.discards.discard(seq);
        }
    }

    #[cold]
    fn change_codec(&mut self, packet: &RtpPacket) {
        let to = packet.rtp.payload_type;
        let Some(from) = self.codec.replace(to) else { return };
        self.change_count += 1;
        if self.changes.len() < MAX_CHANGES {
            self.changes.push(CodecChange { at: packet.time, packet: packet.number, from, to });
        }
    }

    /// The clock rate of a payload type that nobody announced.
    #[cold]
    fn estimated(&mut self, packet: &RtpPacket, seq: u64) -> Option<u32> {
        let Some(estimate) = &mut self.estimate else {
            self.estimate = Some(Box::new(RateEstimate::new(packet, seq)));
            return None;
        };
        estimate.observe(packet, seq)
    }

    /// The next number in sequence is settled: did it ever come?
    pub fn settled(&mut self, came: bool) {
        let discarded = self.discards.settle();
        self.loss.settle(match (came, discarded) {
            (false, _) => Fate::Lost,
            (true, true) => Fate::Discarded,
            (true, false) => Fate::Received,
        });
    }

    /// So many numbers are settled, all of which came.
    pub(super) fn settled_in_time(&mut self, mut count: u64) {
        // As long as some are marked as discarded, each is looked at.
        while count > 0 && !self.discards.are_none() {
            self.settled(true);
            count -= 1;
        }
        self.discards.settle_many(count);
        self.loss.receive(count);
    }

    /// What a run takes along, if the stream stands at number `seq`, which came at `time` with this payload type and was an
    /// ordinary one. `timed` is the clock rate that the signalling knows.
    pub(super) fn lend(
        &mut self,
        seq: u64,
        time: Nanos,
        payload_type: u8,
        timed: Option<u32>,
    ) -> Option<Running> {
        let rate = timed.or_else(|| self.estimated_rate(payload_type))?;
        if self.codec != Some(payload_type) || is_comfort_noise(payload_type) {
            return None;
        }
        let unique = self.unique.lend(seq, time, payload_type)?;
        let (timestamp, segment) = self.timeline.lend(time, rate)?;
        let (block, slope) = self.drift.lend()?;
        let buffers = self.playout.lend()?;
        let (pair, counts) = Pair::lend([&mut self.jitter, &mut self.variation]);
        Some(Running {
            time,
            timestamp,
            segment,
            unique,
            block,
            slope,
            delay: self.delay,
            buffers,
            counts,
            pair,
        })
    }

    /// Goes on where a run of `packets` has come to. Whoever places packets has told of their numbers.
    pub(super) fn take_back(&mut self, running: Running, packets: u64) {
        let Running { time, timestamp, segment, unique, block, slope: _, delay, buffers, counts, pair } =
            running;
        self.timeline.take_back(segment, time, timestamp);
        self.unique.take_back(unique, packets, time);
        self.drift.take_back(block);
        self.delay = delay;
        self.playout.take_back(buffers, packets);
        pair.take_back(&counts, [&mut self.jitter, &mut self.variation], packets);
    }

    /// A run goes on behind so many missing packets, and has taken so many, the first behind them included.
    pub(super) fn skip(&mut self, packets: u64, missing: u64) {
        self.unique.skip(packets, missing);
        self.playout.count(packets);
        self.jitter.count(packets);
        self.variation.count(packets);
    }

    /// Closes a run's block of the drift, and begins one with what comes at `time`.
    pub(super) fn turn(&mut self, running: &mut Running, time: Nanos) {
        self.drift.take_back(running.block);
        (running.block, running.slope) = self.drift.turn(time);
    }

    /// Closes the running interval and begins the next.
    pub fn close_interval(&mut self) -> QualityInterval {
        let discarded = self.playout.discarded();
        QualityInterval {
            jitter: self.jitter.close_interval(),
            variation: self.variation.close_interval(),
            interruption: self.interruption.take(),
            discarded: discarded - std::mem::replace(&mut self.discarded_before, discarded),
        }
    }

    /// First copies so far.
    pub fn packets(&self) -> u64 {
        self.unique.packets()
    }

    /// Has nothing come late, or after an interruption?
    pub(super) fn is_calm(&self) -> bool {
        self.incidents.is_none() && self.playout.discarded() == 0 && self.unique.interruptions().1 == 0
    }

    /// How bursty loss and discards have been (G.107, BurstR).
    pub fn burst_ratio(&self) -> f64 {
        self.loss.burst_ratio()
    }

    /// How it is judged.
    pub fn settings(&self) -> &Arc<Settings> {
        &self.settings
    }

    /// The clock rate that was estimated for an unannounced payload type.
    pub fn estimated_rate(&self, payload_type: u8) -> Option<u32> {
        self.estimate.as_ref()?.found(payload_type)
    }

    /// Packets that came after a later one.
    pub fn late(&self) -> u64 {
        self.unique.reordered()
    }

    /// The heaviest interruptions, and how many there were.
    pub fn interruptions(&self) -> (&[Interruption], u64) {
        self.unique.interruptions()
    }

    /// The ledger; what the stream knows of it goes in.
    pub fn ledger(&self, expected: u64, clock_rate: Option<u32>) -> LedgerReport {
        let drift: Result<ClockDrift, _> = match clock_rate {
            Some(_) => self.drift.estimate(),
            None => Err("clock rate unknown"),
        };
        self.unique.report(expected, clock_rate, drift)
    }

    /// Takes it apart at the end: loss in sequence order, samples of |D|, and the rest.
    pub fn into_parts(self) -> (LossPattern, MicrosHistogram, QualityParts) {
        let parts = QualityParts {
            settings: self.settings,
            variation: self.variation.into_life(),
            discarded: self.playout.discarded(),
            playout: self.playout.report(),
            estimate: self.estimate.map(|estimate| *estimate),
            changes: self.changes,
            change_count: self.change_count,
            incidents: self.incidents.map_or_else(Incidents::default, |incidents| *incidents),
        };
        (self.loss, self.jitter.into_life(), parts)
    }
}

/// What nearly every packet changes.
#[derive(Clone, Debug)]
pub(super) struct Running {
    time: Nanos,
    segment: Segment,
    unique: unique::Running,
    block: Block,
    slope: f64,
    delay: DelayReference,
    buffers: Buffers,
    /// Of |D| and of delay variation.
    counts: Box<[u8]>,
    pair: Pair,
    timestamp: u32,
}

impl Running {
    /// Has the block of the drift come to its end by then? Then [`Quality::turn`] has to begin another.
    #[inline]
    pub(super) fn is_due(&self, time: Nanos) -> bool {
        !self.block.has(time)
    }

    /// Nanoseconds and ticks since the last packet.
    #[inline]
    pub(super) fn since_last(&self, time: Nanos, timestamp: u32) -> (i64, u32) {
        (time.since(self.time), timestamp.wrapping_sub(self.timestamp))
    }

    /// Takes the next packet: in sequence, not marked, on the same clock. False, with no figure changed, if there is anything
    /// about it that more has to know of than is here. `depth_ns` is that of the fixed buffer.
    #[inline]
    pub(super) fn step(&mut self, time: Nanos, timestamp: u32, number: u64, depth_ns: f64) -> bool {
        let (arrival_ns, ticks) = self.since_last(time, timestamp);
        if !(0..INTERRUPTION_NS).contains(&arrival_ns) {
            return false;
        }
        // So little time has passed that a timestamp cannot have gone round.
        let ticks = i64::from(ticks.cast_signed());
        let measured = self.segment.measure(arrival_ns, ticks);
        let (sums, transit_ns) = self.segment.after(&measured);
        // If the run does not take the packet, the whole stream does, and begins the same block with it.
        if self.delay.is_over(time) {
            self.delay.turn(time, transit_ns);
        }
        let (variation_ns, is_quickest) = self.delay.variation(time, transit_ns, self.slope);
        let is_late = self.buffers.misses_fixed(transit_ns, depth_ns)
            || self.buffers.misses_adaptive(variation_ns)
            || variation_ns >= SPIKE_NS;
        let amount_ns = measured.difference_ns().abs();
        if jumped(&measured) || is_late {
            return false;
        }
        let values = [few_ns(amount_ns), few_ns(variation_ns)];
        if !self.pair.record(&mut self.counts, values) {
            let is_wider = self.pair.reach(&mut self.counts, values);
            if !(is_wider && self.pair.record(&mut self.counts, values)) {
                return false;
            }
        }
        self.unique.weigh_delta(arrival_ns, number);
        self.unique.weigh_jitter(amount_ns);
        self.unique.weigh_skew(transit_ns);
        self.block.step(time, transit_ns);
        self.buffers.adapt(variation_ns, false);
        if is_quickest {
            self.delay.quickest(time, transit_ns);
        }
        self.segment.go_on(sums);
        (self.time, self.timestamp) = (time, timestamp);
        true
    }

    /// Time of the last packet.
    pub(super) fn time(&self) -> Nanos {
        self.time
    }

    /// Timestamp of the last packet.
    pub(super) fn timestamp(&self) -> u32 {
        self.timestamp
    }

    /// The memory outside of it that the next packet will need some of.
    pub(super) fn counters(&self) -> &[u8] {
        self.pair.low(&self.counts)
    }
}

/// [`whole_ns`] of what neither jumped nor came late, which is less than a second: in 32 bits, that is four instructions, not
/// eleven.
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "never negative, and saturates")]
#[inline]
fn few_ns(amount: f64) -> u32 {
    amount as u32
}

/// Which of the numbers that are not settled were discarded by the de-jitter buffer: one bit each, as many as the window
/// of copies holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Discards {
    bits: u128,
    /// The next number to be settled.
    next: u64,
    /// None has been yet since the numbering began, so an earlier one may still be put before it.
    is_fresh: bool,
}

impl Discards {
    fn new(first: u64) -> Self {
        Self { bits: 0, next: first, is_fresh: true }
    }

    /// A number came up.
    fn place(&mut self, seq: u64) {
        if seq >= self.next.saturating_add(2 * DEPTH) {
            // The numbering began anew, and everything before it is settled.
            *self = Self::new(seq);
        } else if self.is_fresh {
            self.next = self.next.min(seq);
        }
    }

    fn discard(&mut self, seq: u64) {
        // One that is settled already does not matter any more, and its bit stands for another number.
        if seq >= self.next {
            self.bits |= 1 << (seq % DEPTH);
        }
    }

    /// Are none of the numbers that are not settled?
    fn are_none(&self) -> bool {
        self.bits == 0
    }

    /// So many numbers are settled, none of which was discarded.
    fn settle_many(&mut self, count: u64) {
        self.next += count;
        self.is_fresh &= count == 0;
    }

    /// The next number is settled: was it discarded?
    fn settle(&mut self) -> bool {
        let bit = 1 << (self.next % DEPTH);
        let discarded = self.bits & bit != 0;
        self.bits &= !bit;
        self.next += 1;
        self.is_fresh = false;
        discarded
    }
}

#[cfg(test)]
#[path = "quality_tests.rs"]
mod tests;

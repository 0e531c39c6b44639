//! The stream health log: one entry per stream and interval, and whatever else an operator should see go by.
//!
//! An [`Entry`] has two forms, a line of text and a JSON object, made from the same values. Text is aligned and
//! begins with a time and a word: `ok`, `dup`, `gap`, `jit`, `far`, `hole`, `loss`, `end`, `call`, `tunl`, `find`,
//! `probe`, `shed`, `sum`.

mod format;

use std::collections::BTreeMap;
use std::sync::Arc;

use anstyle::AnsiColor;
use serde::Serialize;

pub use self::format::Format;
use super::call_entry::CallEntry;
use super::contract::{Finding, Percentiles, StreamReport};
use super::forensics::Explanation;
use crate::decode::CarrierReport;
use crate::dedup::stats::CauseReport;
use crate::dedup::topology::TapReport;
use crate::packet::{Encapsulation, Endpoint};
use crate::pipeline::shard::IntervalLine;
use crate::rtcp::News;
use crate::rtp::StreamKey;
use crate::rtp::codec;
use crate::rtp::opinion::Heard;
use crate::rtp::stream::TapPart;
use crate::rtp::unique::Interruption;

/// Loss from which a line is no longer `ok`, in percent. G.711 with concealment loses a tenth of a MOS at 1 %.
const LOSS_PERCENT: f64 = 1.0;
/// Jitter (p99) from which a line is no longer `ok`: what a usual 40 ms de-jitter buffer holds.
const JITTER_US: f64 = 40_000.0;
/// Copies a packet from which a stream is `dup`.
const DUP_COPIES: f64 = 1.05;
/// One entry of the log.
#[derive(Clone, Debug, Serialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum Entry {
    /// A step of the start.
    Start {
        /// What was done, and what came of it.
        message: String,
    },
    /// A stream in one interval.
    Stream(Box<StreamEntry>),
    /// A stream's whole life.
    StreamEnd(Box<EndEntry>),
    /// A call began, was answered, or ended.
    Call(Box<CallEntry>),
    /// Packets come inside a tunnel that was not seen before.
    Tunnel(CarrierReport),
    /// Something to know.
    Finding(Finding),
    /// The probe lost frames since the last entry.
    Loss(LossEntry),
    /// Media sessions are left out, more or fewer than before, or no longer.
    Shed(ShedEntry),
    /// A tap began or ceased to show what another shows.
    Tap(Box<TapEntry>),
    /// The interval as a whole.
    Summary(SummaryEntry),
}

/// A stream in one interval.
#[derive(Clone, Debug, Serialize)]
pub struct StreamEntry {
    /// `ok`, `dup`, `gap`, `jit`, `far`, `hole`, `loss`.
    pub status: Status,
    /// Sender.
    pub src: Endpoint,
    /// Receiver.
    pub dst: Endpoint,
    /// `0x%08x`.
    pub ssrc: String,
    /// Codec, if known.
    pub codec: Option<String>,
    /// The call.
    pub call_id: Option<Arc<str>>,
    /// Frames in this interval, copies included.
    pub frames: u64,
    /// First copies in this interval.
    pub packets: u64,
    /// Lost in this interval, copies removed.
    pub lost: u64,
    /// The same in percent.
    pub lost_percent: f64,
    /// The probe itself lost frames in this interval, so `lost` may be its own loss.
    pub loss_is_upper_bound: bool,
    /// The probe was overloaded and shed it in this interval.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub is_shed: bool,
    /// As captured, since the stream began: what tshark would say.
    pub raw_lost_percent: f64,
    /// Jitter of this interval.
    pub jitter_percentiles_us: Option<Percentiles>,
    /// Delay over the quickest packet lately, of this interval.
    pub pdv_percentiles_us: Option<Percentiles>,
    /// Packets of this interval that came too late for the de-jitter buffer.
    pub discarded: u64,
    /// The same in percent of those expected.
    pub discarded_percent: f64,
    /// Listening quality of this interval.
    pub mos: Option<f64>,
    /// Why there is none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mos_absent_because: Option<String>,
    /// Frames a packet in this interval.
    pub copies_per_packet: f64,
    /// Copies since the stream began, by cause.
    pub causes: Vec<CauseReport>,
    /// The taps that see it, if there are several.
    #[serde(skip)]
    pub taps: Vec<TapPart>,
    /// The longest interruption that ended in this interval.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub interruption: Option<Interruption>,
    /// Why it was, and what the signalling did when it began and ended.
    #[serde(flatten)]
    pub explanation: Option<Explanation>,
    /// What its receiver reported in this interval.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub far_end: Option<FarEndEntry>,
    /// Did it come in no tunnel? Else nothing of it was shed.
    #[serde(skip)]
    pub(super) is_plain: bool,
    /// What it is joined by.
    #[serde(skip)]
    pub(super) key: StreamKey,
}

/// What a stream's receiver reported in an interval.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct FarEndEntry {
    /// Lost since the report before, in percent: the worst report of the interval.
    pub lost_percent: f64,
    /// From the probe to the receiver and back.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub round_trip_ms: Option<f64>,
}

/// The word a stream's line begins with; the worst that applies.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Status {
    /// Nothing to see.
    Ok,
    /// Frames are copied; the stream itself is fine.
    Dup,
    /// Interrupted, without loss: the sender paused.
    Gap,
    /// Jitter beyond a usual de-jitter buffer.
    Jit,
    /// Whole here, but its receiver lost packets.
    Far,
    /// Packets are missing, but the probe itself lost frames in this interval.
    Hole,
    /// Packets are lost.
    Loss,
}

impl Status {
    /// All of them, the best first.
    pub const ALL: [Self; 7] = [Self::Ok, Self::Dup, Self::Gap, Self::Jit, Self::Far, Self::Hole, Self::Loss];

    /// The word.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Dup => "dup",
            Self::Gap => "gap",
            Self::Jit => "jit",
            Self::Far => "far",
            Self::Hole => "hole",
            Self::Loss => "loss",
        }
    }

    const fn colour(self) -> AnsiColor {
        match self {
            Self::Ok => AnsiColor::Green,
            Self::Dup => AnsiColor::Cyan,
            Self::Gap | Self::Jit | Self::Far | Self::Hole => AnsiColor::Yellow,
            Self::Loss => AnsiColor::Red,
        }
    }
}

/// A stream's whole life.
#[derive(Clone, Debug, Serialize)]
pub struct EndEntry {
    /// Why it ended: `silent`, `evicted`, `finished`.
    pub ended: &'static str,
    /// Everything about it.
    #[serde(flatten)]
    pub report: StreamReport,
}

/// A tap's news.
#[derive(Clone, Debug, Serialize)]
pub struct TapEntry {
    /// "appeared" or "vanished".
    pub change: &'static str,
    /// The tap; its counts are those of one stream.
    #[serde(flatten)]
    pub tap: TapReport,
}

/// Frames that the probe lost.
#[derive(Clone, Debug, Serialize)]
pub struct LossEntry {
    /// Since the last entry, by name; only those that grew.
    pub losses: BTreeMap<&'static str, u64>,
    /// What helps.
    pub advice: &'static str,
}

/// How much of the media is shed from now on.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ShedEntry {
    /// "began", "raised", "lowered" or "ended".
    pub change: &'static str,
    /// Media sessions shed, in percent of those that configuration does not leave out.
    pub percent: f64,
    /// Frames of RTP that were left out since it began.
    pub frames: u64,
    /// What helps; empty where it grows no worse.
    pub advice: &'static str,
}

/// The interval as a whole.
#[derive(Clone, Debug, Default, Serialize)]
pub struct SummaryEntry {
    /// Calls in progress.
    pub calls: u64,
    /// Streams heard in this interval.
    pub streams: u64,
    /// Of them, by status.
    pub by_status: BTreeMap<&'static str, u64>,
    /// Frames matched since the start.
    pub matched: u64,
    /// Frames analysed since the start.
    pub analysed: u64,
    /// Frames lost since the start, by name.
    pub losses: BTreeMap<&'static str, u64>,
    /// Frames matched, and neither analysed nor lost at this moment.
    pub in_flight: u64,
    /// The fullest that any ring was since the last summary, in percent: at 100 frames are lost.
    pub ring_peak_percent: u64,
    /// Media sessions shed at its end, in percent of those that configuration does not leave out.
    #[serde(skip_serializing_if = "is_none")]
    pub shed_percent: f64,
    /// Lines of streams, and of their ends, left out in this interval.
    #[serde(skip_serializing_if = "is_zero")]
    pub lines_left_out: u64,
    /// Lines of calls left out in this interval.
    #[serde(skip_serializing_if = "is_zero")]
    pub call_lines_left_out: u64,
    /// Events that were dropped since the start, because the control plane was behind: lines are missing.
    #[serde(skip_serializing_if = "is_zero")]
    pub events_dropped: u64,
    /// Announced media that had no room since the start, here or in the kernel's table: its streams may have no call.
    #[serde(skip_serializing_if = "is_zero")]
    pub announcements_given_up: u64,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "the signature that serde asks for")]
fn is_none(percent: &f64) -> bool {
    *percent == 0.0
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "the signature that serde asks for")]
fn is_zero(number: &u64) -> bool {
    *number == 0
}

impl StreamEntry {
    /// From what a shard sends at the end of an interval.
    pub fn new(line: IntervalLine) -> Self {
        let totals = line.summary.totals;
        let lost = totals.expected.saturating_sub(totals.packets);
        let percent = |count: u64| {
            if totals.expected == 0 { 0.0 } else { count as f64 * 100.0 / totals.expected as f64 }
        };
        let network = line.summary.quality;
        let (lost_percent, discarded_percent) = (percent(lost), percent(network.discarded));
        let jitter = Percentiles::of(&network.jitter);
        let copies_per_packet = if totals.packets == 0 {
            1.0
        } else {
            (totals.packets + totals.copies) as f64 / totals.packets as f64
        };
        let status = if lost_percent >= LOSS_PERCENT {
            Status::Loss
        } else if discarded_percent >= LOSS_PERCENT || jitter.is_some_and(|jitter| jitter.p99 >= JITTER_US) {
            Status::Jit
        } else if network.interruption.is_some() {
            Status::Gap
        } else if copies_per_packet > DUP_COPIES || totals.packets == 0 && totals.copies > 0 {
            Status::Dup
        } else {
            Status::Ok
        };
        // Frames that are neither first copies nor copies: their numbers could not be believed.
        let is_unplaced = totals.packets == 0 && totals.frames > totals.copies;
        let status = if is_unplaced { status.max(Status::Jit) } else { status };
        let quality = match totals.packets {
            0 => Err(if is_unplaced {
                "no packet could be placed in this interval".to_owned()
            } else {
                "only copies in this interval".to_owned()
            }),
            _ => Heard {
                codec: (line.codec.clone())
                    .ok_or_else(|| codec::unknown_because(line.payload_type, &line.announcement)),
                parameters: line.codec_parameters,
                loss_percent: percent(lost + network.discarded),
                burst_ratio: line.burst_ratio,
                is_buffered: network.variation.count() > 0,
                settings: line.settings,
            }
            .listening(),
        };
        Self {
            status,
            src: line.key.flow.src,
            dst: line.key.flow.dst,
            ssrc: format!("0x{:08x}", line.key.ssrc),
            codec: line.codec,
            call_id: line.announcement.call_id.clone(),
            frames: totals.frames,
            packets: totals.packets,
            lost,
            lost_percent,
            loss_is_upper_bound: false,
            is_shed: false,
            raw_lost_percent: line.raw_lost_percent,
            jitter_percentiles_us: jitter,
            pdv_percentiles_us: Percentiles::of(&network.variation),
            discarded: network.discarded,
            discarded_percent,
            mos: quality.as_ref().ok().map(|mos| mos.value),
            mos_absent_because: quality.err(),
            copies_per_packet,
            causes: line.causes,
            taps: line.taps,
            interruption: network.interruption,
            explanation: None,
            far_end: None,
            is_plain: line.encapsulation == Encapsulation::NONE,
            key: line.key,
        }
    }
}

#[cfg(test)]
impl StreamEntry {
    /// An interval in which nothing came.
    pub(super) fn nothing(status: Status) -> Self {
        let key = StreamKey::from(&crate::rtp::testing::packet(0));
        Self {
            status,
            src: key.flow.src,
            dst: key.flow.dst,
            ssrc: format!("0x{:08x}", key.ssrc),
            codec: None,
            call_id: None,
            frames: 0,
            packets: 0,
            lost: 0,
            lost_percent: 0.0,
            loss_is_upper_bound: false,
            is_shed: false,
            raw_lost_percent: 0.0,
            jitter_percentiles_us: None,
            pdv_percentiles_us: None,
            discarded: 0,
            discarded_percent: 0.0,
            mos: None,
            mos_absent_because: None,
            copies_per_packet: 1.0,
            causes: Vec::new(),
            taps: Vec::new(),
            interruption: None,
            explanation: None,
            far_end: None,
            is_plain: true,
            key,
        }
    }
}

impl StreamEntry {
    /// Its receiver's word on this interval. A stream that is lost beyond this point is not well.
    pub(super) fn hear(&mut self, news: &News) {
        self.far_end =
            Some(FarEndEntry { lost_percent: news.lost_percent, round_trip_ms: news.round_trip_ms });
        if self.is_lost_beyond() {
            self.status = self.status.max(Status::Far);
        }
    }

    fn is_lost_beyond(&self) -> bool {
        self.far_end.is_some_and(|far| far.lost_percent >= self.lost_percent + LOSS_PERCENT)
    }

    /// The probe itself lost frames in this interval: what is missing is not held against the network.
    pub fn doubt_loss(&mut self) {
        if self.lost == 0 {
            return;
        }
        self.loss_is_upper_bound = true;
        self.status = Status::Hole;
        self.mos = None;
        self.mos_absent_because = Some("the probe itself lost frames".to_owned());
    }
}

#[cfg(test)]
mod tests;

//! One stream of `streams[]`: what is said of it, and how that comes from what its shard kept.

use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;

use super::{Delays, Distributions, Percentiles};
use crate::dedup::stats::CauseReport;
use crate::packet::{Endpoint, Nanos};
use crate::report::joins::{self, Identity, RedundancyReport};
use crate::report::left_out::ShedPeriod;
use crate::report::troubles::{
    CodecChangeReport, InterruptionReport, MarkerReport, Predecessor, SpikeReport,
};
use crate::rtcp::StreamRtcp;
use crate::rtp::codec;
use crate::rtp::events::EventReport;
use crate::rtp::legs::LegReport;
use crate::rtp::loss::BurstReport;
use crate::rtp::opinion::{Heard, Mos};
use crate::rtp::playout::PlayoutReport;
use crate::rtp::quality::CodecChange;
use crate::rtp::rate::{RateEstimate, RateSource};
use crate::rtp::stream::{StreamParts, TapPart};
use crate::rtp::unique::LedgerReport;

/// One stream.
#[derive(Clone, Debug, Serialize)]
pub struct StreamReport {
    /// Sender.
    pub src: Endpoint,
    /// Receiver.
    pub dst: Endpoint,
    /// `0x%08x`.
    pub ssrc: String,
    /// Payload types seen, ascending.
    pub payload_types: Vec<u8>,
    /// Codec, if known.
    pub codec: Option<String>,
    /// Its clock rate in Hz, if known.
    pub clock_rate: Option<u32>,
    /// Who says so: "sdp", "static" (RFC 3551), or "estimated".
    pub clock_rate_source: Option<RateSource>,
    /// From what it was estimated, or why it is not known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub clock_rate_because: Option<String>,
    /// The call it belongs to.
    pub call_id: Option<Arc<str>>,
    /// By what it was found to belong to it: "destination" or "source" (announced), "ice-candidate", "rtcp" (a port for
    /// RTCP), "symmetric-rtp" (learned from packets), "same-media" (as another stream of the call), or "ssrc" (announced).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub linked_by: Option<&'static str>,
    /// Other calls that had announced the same endpoint at the time, as the second call of a B2BUA does.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub shared_with: Vec<Arc<str>>,
    /// Why there is no call, where there is none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub call_absent_because: Option<String>,
    /// "none", or the path of encapsulations.
    pub encapsulation: String,
    /// Is the payload encrypted, as far as SDP and what else was seen say?
    pub encrypted: bool,
    /// Where that is from.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub encrypted_because: Option<&'static str>,
    /// Seconds from the start of the capture to the first frame.
    pub start_s: f64,
    /// To the last frame as captured.
    pub end_s: f64,
    /// Would tshark mark it with an X: a sequence error as captured, or a timestamp before the first?
    pub marked_by_tshark: bool,
    /// As captured: every frame, as tshark 4.0 counts.
    pub raw: LedgerReport,
    /// Why `raw` is empty, where it is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub raw_absent_because: Option<&'static str>,
    /// With copies removed.
    pub unique: LedgerReport,
    /// What became of each packet and each frame.
    pub delivery: Delivery,
    /// The probe itself lost frames, so `unique.lost` may be its own loss, in part or in whole.
    pub loss_is_upper_bound: bool,
    /// When the probe shed it, in its time or next to it; absent if never.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub shed: Vec<ShedPeriod>,
    /// What of `unique` was out of order.
    pub reordered: u64,
    /// What of `unique` its reference tap missed, so that another tap's copy stands for it.
    pub filled_in: u64,
    /// Through which taps it was seen; summed up in [`Report::taps`](super::Report::taps).
    #[serde(skip)]
    pub taps: Vec<TapPart>,
    /// Times the numbering began anew.
    pub restarts: u32,
    /// Same sequence number, other content.
    pub conflicts: u64,
    /// Packets outside of what could be judged: numbers not believed, or too old.
    pub unplaced: u64,
    /// |D| of RFC 3550, in microseconds: HdrHistogram V2, compressed, base64.
    pub jitter_histogram: Option<String>,
    /// The same as percentiles.
    pub jitter_percentiles_us: Option<Percentiles>,
    /// Why there is no jitter, where there is none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub jitter_absent_because: Option<String>,
    /// Delay over the quickest packet lately (RFC 5481, PDV), in microseconds: HdrHistogram V2, compressed, base64.
    pub pdv_histogram: Option<String>,
    /// The same as percentiles.
    pub pdv_percentiles_us: Option<Percentiles>,
    /// What de-jitter buffers would have discarded; null without a clock.
    pub jitter_buffer: Option<PlayoutReport>,
    /// RFC 3611 bursts and gaps.
    pub bursts: BurstReport,
    /// Listening quality (MOS-LQ).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mos: Option<Mos>,
    /// Why there is none, where there is none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mos_absent_because: Option<String>,
    /// Conversational quality (MOS-CQ): the same with delay.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mos_cq: Option<Mos>,
    /// Why there is none, where there is none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mos_cq_absent_because: Option<String>,
    /// Copies.
    pub duplicates: DuplicateReport,
    /// The stream that this one goes on from, if it does.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub continues: Option<Predecessor>,
    /// Of `unique.lost`, the packets missing while the call was fax, or while the capture itself paused: the network has not lost
    /// them, and `mos` is judged without.
    pub excused: u64,
    /// Pauses and timestamp jumps; the heaviest.
    pub interruptions: Vec<InterruptionReport>,
    /// How many there were.
    pub interruption_count: u64,
    /// The first changes of the payload type that carries the media.
    pub codec_changes: Vec<CodecChangeReport>,
    /// How many there were.
    pub codec_change_count: u64,
    /// Runs of packets much later than the quickest; the worst.
    pub jitter_spikes: Vec<SpikeReport>,
    /// How many there were.
    pub jitter_spike_count: u64,
    /// Markers from which on timestamps stand otherwise to time; the first few.
    pub marker_restarts: Vec<MarkerReport>,
    /// How many there were.
    pub marker_restart_count: u64,
    /// What its ends say of it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rtcp: Option<StreamRtcp>,
    /// Why they say nothing, where they do not.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rtcp_absent_because: Option<&'static str>,
    /// Telephone events (RFC 4733); the first few.
    pub events: Vec<EventReport>,
    /// How many there were.
    pub event_count: u64,
    /// How it is sent twice on purpose, if it is.
    pub redundancy: Vec<RedundancyReport>,
    /// The same stream under other addresses.
    pub legs: Vec<LegReport>,
    /// What it is joined by.
    #[serde(skip)]
    pub(crate) identity: Identity,
    /// What the scores are computed from.
    #[serde(skip)]
    pub heard: Heard,
    /// The histograms, until they are summed up.
    #[serde(skip)]
    pub delays: Option<Box<Delays>>,
}

/// What became of what was sent: `expected = received + lost`, and every frame that was captured and is RTP is one of
/// `received`, `duplicate`, `conflict`, or `unplaced`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Delivery {
    /// Packets that the sender sent, by its numbers.
    pub expected: u64,
    /// Of them, those that came.
    pub received: u64,
    /// Those that never came.
    pub lost: u64,
    /// Of those received, the ones that came after a later one.
    pub late: u64,
    /// Of those received, the ones too late for the de-jitter buffer that judges.
    pub discarded: u64,
    /// Frames beyond the first of each packet.
    pub duplicate: u64,
    /// Frames of the same number with other content.
    pub conflict: u64,
    /// Frames whose number is not believed, or that came more than 128 numbers late.
    pub unplaced: u64,
}

/// The copies of one stream.
#[derive(Clone, Debug, Serialize)]
pub struct DuplicateReport {
    /// Frames a packet: 1 is as it should be.
    pub copies_per_packet: f64,
    /// Frames beyond the first of each packet.
    pub total: u64,
    /// Of those, the ones whose original was no longer remembered, so that no cause can be given.
    pub unexplained: u64,
    /// How a payload was recognised: by its UDP checksum, or by a hash of its first bytes.
    pub proof: &'static str,
    /// By cause and difference, most frequent first.
    pub causes: Vec<CauseReport>,
}

impl StreamReport {
    /// Of many streams, in order of appearance, timed from the first frame of the capture.
    pub fn list(mut streams: Vec<StreamParts>, first: Option<Nanos>) -> Vec<Self> {
        streams.sort_by_key(|stream| (stream.number, stream.key));
        let report = |stream: StreamParts| {
            let start_s = first.map_or(0.0, |first| stream.first_seen.since(first) as f64 / 1e9);
            Self::new(stream, start_s)
        };
        streams.into_iter().map(report).collect()
    }

    /// From a stream taken apart. `start_s` is that of its first frame.
    pub fn new(parts: StreamParts, start_s: f64) -> Self {
        let identity = Identity::of(&parts);
        let packet_ms = if parts.unique.delta_ms.mean > 0.0 { parts.unique.delta_ms.mean } else { 20.0 };
        let quality = parts.quality;
        let unplayed = parts.unique.lost.max(0).unsigned_abs() + quality.discarded;
        let unknown = codec::unknown_because(parts.payload_type, &parts.announcement);
        let heard = Heard {
            codec: parts.codec.clone().ok_or_else(|| unknown.clone()),
            parameters: parts.codec_parameters,
            loss_percent: unplayed as f64 * 100.0 / parts.unique.expected.max(1) as f64,
            burst_ratio: parts.loss.burst_ratio(),
            is_buffered: quality.playout.is_some(),
            settings: quality.settings,
        };
        let delays = Delays { jitter: parts.jitter, variation: quality.variation };
        let Distributions { jitter_histogram, jitter_percentiles_us, pdv_histogram, pdv_percentiles_us } =
            delays.report();
        let (mos, mos_absent_because) = apart(heard.listening());
        let (mos_cq, mos_cq_absent_because) = apart(heard.conversational(None));
        let time_s = |at: Nanos| start_s + at.since(parts.first_seen) as f64 / 1e9;
        let announcement = &parts.announcement;
        let codec_name = |number: u8| codec::name(number, announcement).map(str::to_owned);
        let codec_change = |change: CodecChange| CodecChangeReport {
            time_s: time_s(change.at),
            from_codec: codec_name(change.from),
            to_codec: codec_name(change.to),
            change,
            near: None,
        };
        let (markers, marker_restart_count) = quality.incidents.restarts();
        let marker_restarts = markers.iter().map(|marker| MarkerReport::new(*marker, time_s)).collect();
        let (spikes, jitter_spike_count) = quality.incidents.spikes();
        let jitter_spikes = spikes.into_iter().map(|spike| SpikeReport::new(spike, time_s)).collect();
        let estimate = quality.estimate.as_ref().map(|rate: &RateEstimate| rate.because(&unknown));
        let redundancy = joins::redundancy(&parts.announcement, &parts.payload_types);
        let (events, event_count) = parts.events.list();
        let events = events
            .iter()
            .map(|event| {
                let since_start_s = event.at.since(parts.first_seen) as f64 / 1e9;
                EventReport::new(event, start_s + since_start_s, parts.clock_rate)
            })
            .collect();
        let copies = parts.copies.total() + parts.old_copies;
        let packets = parts.unique.packets.max(1);
        let mut causes = parts.copies.causes(packets);
        #[expect(clippy::cast_possible_truncation, reason = "seconds of a capture")]
        let start = Nanos(parts.first_seen.0.wrapping_add_signed(-((start_s * 1e9) as i64)));
        for cause in &mut causes {
            cause.time_from(start);
        }
        Self {
            src: parts.key.flow.src,
            dst: parts.key.flow.dst,
            ssrc: format!("0x{:08x}", parts.key.ssrc),
            call_id: parts.announcement.call_id.clone(),
            call_absent_because: parts
                .announcement
                .call_id
                .is_none()
                .then(|| "no SDP that was seen announces its addresses".to_owned()),
            linked_by: None,
            shared_with: Vec::new(),
            encapsulation: parts.encapsulation.to_string(),
            encrypted: parts.announcement.encrypted,
            encrypted_because: parts.announcement.encrypted.then_some("SDP says so (SAVP or a=crypto)"),
            start_s,
            delivery: Delivery {
                expected: parts.unique.expected,
                received: parts.unique.packets,
                lost: parts.unique.lost.max(0).unsigned_abs(),
                late: parts.reordered,
                discarded: quality.discarded,
                duplicate: copies,
                conflict: parts.conflicts,
                unplaced: parts.strays + parts.too_old,
            },
            end_s: start_s + parts.raw_end.since(parts.first_seen) as f64 / 1e9,
            marked_by_tshark: parts.raw_marked,
            reordered: parts.reordered,
            filled_in: parts.filled_in,
            taps: parts.taps,
            restarts: parts.restarts,
            conflicts: parts.conflicts,
            unplaced: parts.strays + parts.too_old,
            jitter_absent_because: jitter_percentiles_us.is_none().then(|| {
                match (parts.clock_rate, &estimate) {
                    (None, Some(reason)) => reason.clone(),
                    (None, None) => format!("clock rate unknown: {unknown}"),
                    (Some(_), _) => "no two packets in a row that could be compared".to_owned(),
                }
            }),
            jitter_histogram,
            jitter_percentiles_us,
            pdv_histogram,
            pdv_percentiles_us,
            jitter_buffer: quality.playout,
            clock_rate_source: parts.clock_rate_source,
            clock_rate_because: estimate
                .filter(|_| matches!(parts.clock_rate_source, None | Some(RateSource::Estimated))),
            codec_changes: quality.changes.into_iter().map(codec_change).collect(),
            codec_change_count: quality.change_count,
            jitter_spikes,
            jitter_spike_count,
            marker_restarts,
            marker_restart_count,
            continues: None,
            bursts: parts.loss.bursts(packet_ms),
            mos,
            mos_absent_because,
            mos_cq,
            mos_cq_absent_because,
            heard,
            delays: Some(Box::new(delays)),
            duplicates: DuplicateReport {
                copies_per_packet: (packets + copies) as f64 / packets as f64,
                total: copies,
                unexplained: parts.old_copies,
                proof: if parts.hashed_fingerprints { "payload bytes" } else { "UDP checksum" },
                causes,
            },
            interruptions: parts
                .interruptions
                .into_iter()
                .map(|gap| InterruptionReport::new(gap, time_s(gap.at)))
                .collect(),
            interruption_count: parts.interruption_count,
            excused: 0,
            payload_types: parts.payload_types,
            codec: parts.codec,
            clock_rate: parts.clock_rate,
            raw_absent_because: (parts.raw.packets == 0)
                .then_some("seen only inside a tunnel that tshark does not open (rpcap, HEP)"),
            raw: parts.raw,
            unique: parts.unique,
            loss_is_upper_bound: false,
            shed: Vec::new(),
            rtcp: None,
            rtcp_absent_because: Some("not looked for before the end of the capture"),
            events,
            event_count,
            redundancy,
            legs: Vec::new(),
            identity,
        }
    }

    /// What is missing where the network is not to blame is no loss that a listener heard, as far as is known.
    pub(in crate::report) fn excuse(&mut self) {
        let excuses = self.interruptions.iter().filter(|found| found.explanation.is_excuse());
        self.excused = excuses.map(|found| found.gap.missing).sum();
        if self.excused > 0 && !self.loss_is_upper_bound && !self.is_shed() {
            let unplayed = self.lost_on_the_way() + self.delivery.discarded;
            let expected = self.unique.expected.saturating_sub(self.excused).max(1);
            self.heard.loss_percent = unplayed as f64 * 100.0 / expected as f64;
            // How the rest of it came is not known apart from the hole.
            self.heard.burst_ratio = 1.0;
            (self.mos, self.mos_absent_because) = apart(self.heard.listening());
            self.set_one_way_delay(self.rtcp.as_ref().and_then(StreamRtcp::one_way_delay));
        }
    }

    /// Packets lost for which the network is to blame.
    pub(in crate::report) fn lost_on_the_way(&self) -> u64 {
        self.unique.lost.max(0).unsigned_abs().saturating_sub(self.excused)
    }

    /// The same in percent.
    pub(in crate::report) fn lost_on_the_way_percent(&self) -> f64 {
        match self.excused {
            0 => self.unique.lost_percent,
            excused => {
                let expected = self.unique.expected.saturating_sub(excused).max(1);
                self.lost_on_the_way() as f64 * 100.0 / expected as f64
            }
        }
    }

    /// When its first frame came, by the clock that stamps frames.
    pub(in crate::report) fn first_seen(&self) -> Nanos {
        self.identity.first_seen
    }

    /// The one-way delay is known, or it is known that nobody knows it.
    pub fn set_one_way_delay(&mut self, one_way: Option<Duration>) {
        if !self.loss_is_upper_bound && !self.is_shed() {
            (self.mos_cq, self.mos_cq_absent_because) = apart(self.heard.conversational(one_way));
        }
    }

    /// The probe itself lost frames: what is missing here may be among them, and is not held against the network.
    pub(in crate::report) fn doubt_loss(&mut self) {
        if self.unique.lost > 0 {
            self.loss_is_upper_bound = true;
            let reason =
                || Some("the probe itself lost frames, so the network's loss is not known".to_owned());
            (self.mos, self.mos_absent_because) = (None, reason());
            (self.mos_cq, self.mos_cq_absent_because) = (None, reason());
        }
    }
}

/// A value, or why there is none.
fn apart<T>(result: Result<T, String>) -> (Option<T>, Option<String>) {
    match result {
        Ok(value) => (Some(value), None),
        Err(reason) => (None, Some(reason)),
    }
}

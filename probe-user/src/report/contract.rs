//! The JSON document of `analyze --json` and of `run --report`. Additions are free, renames are not.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use probe_ebpf::Verdict;
use probe_ebpf::classify::VERDICTS;
use serde::Serialize;

use super::call_media::{self, CallFinding};
use super::joins::{self, BesideReport, Identity, RedundancyReport};
use super::left_out::{CutReport, SamplingReport, ShedPeriod, SheddingReport};
use super::problems::{self, ByCall};
use super::related::{self, Namesakes};
use super::troubles::{
    CodecChangeReport, InterruptionReport, MarkerReport, Moments, Predecessor, SpikeReport,
};
use crate::decode::{CarrierReport, Opened, Refused, RemoteCapture};
use crate::dedup::stats::{CauseReport, Session};
use crate::dedup::topology::{self, TapReport};
use crate::histogram::MicrosHistogram;
use crate::packet::{Endpoint, Nanos};
use crate::pipeline::Loss;
use crate::pipeline::receiver::Remains;
use crate::pipeline::shed::History;
use crate::pipeline::times::FrameTimes;
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
use crate::sip::signalling::GivenUp;
use crate::sip::{CallReport, SignallingReport, SipReport};

/// The whole document.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// What made it.
    pub generator: Generator,
    /// What was captured, and what was lost.
    pub capture: CaptureReport,
    /// All media together.
    pub media: MediaReport,
    /// Media streams, in order of appearance.
    pub streams: Vec<StreamReport>,
    /// Calls, in the order in which they began.
    pub calls: Vec<CallWithStreams>,
    /// Where the capture sees the media, and how often.
    pub taps: Vec<TapReport>,
    /// All signalling.
    pub sip: SipReport,
    /// What signalling had to give up for want of room.
    pub given_up: GivenUp,
    /// What it all means.
    pub findings: Vec<Finding>,
}

impl Report {
    /// Puts the parts together, joins streams to calls, and draws conclusions.
    pub fn new(capture: CaptureReport, mut streams: Vec<StreamReport>, signalling: SignallingReport) -> Self {
        let own_losses = || Loss::ALL.into_iter().filter(|loss| loss.is_own());
        let is_doubted =
            own_losses().any(|loss| capture.losses.get(loss.name()).is_some_and(|frames| *frames > 0));
        if is_doubted {
            streams.iter_mut().for_each(StreamReport::doubt_loss);
        }
        call_media::link(&mut streams, &signalling, &capture);
        let namesakes = Namesakes::of(&signalling.calls);
        let mut of_calls: Vec<Vec<usize>> = vec![Vec::new(); signalling.calls.len()];
        for (at, stream) in streams.iter().enumerate() {
            for call_id in stream.call_id.iter().chain(&stream.shared_with) {
                for call in namesakes.heard_in(call_id, stream.first_seen(), stream.identity.last_seen) {
                    of_calls.get_mut(call).into_iter().for_each(|its| its.push(at));
                }
            }
        }
        Moments::of(&signalling.calls, &namesakes).join(&mut streams, is_doubted, &capture.times.silences);
        let media = MediaReport::of(&streams);
        let join = |(call, heard): (CallReport, Vec<usize>)| {
            let mut its = Vec::new();
            let mut delays = Delays::default();
            for stream in heard.into_iter().filter_map(|at| streams.get(at)) {
                delays.merge(stream.delays.as_deref());
                its.push(StreamRef { src: stream.src, dst: stream.dst, ssrc: stream.ssrc.clone() });
            }
            CallWithStreams {
                streams: its,
                media_absent_because: None,
                media_findings: Vec::new(),
                fax_packets: 0,
                worst_stream: None,
                problems: Vec::new(),
                distributions: delays.report(),
                call,
            }
        };
        let mut calls: Vec<CallWithStreams> = signalling.calls.into_iter().zip(of_calls).map(join).collect();
        related::join_legs(&mut calls, &streams);
        call_media::judge(&mut calls, &streams, &capture, signalling.sip.captured);
        let by_call = ByCall::of(&streams);
        for call in &mut calls {
            let its = by_call.streams_of(call);
            (call.worst_stream, call.problems) = (problems::worst(&its), problems::of(call, &its));
        }
        let carriers = capture.tunnels.carriers.as_slice();
        let name = |cause: &mut CauseReport| {
            cause.carrier = Session::find(carriers, cause.session, cause.layer).or(cause.carrier.take());
        };
        for stream in &mut streams {
            stream.duplicates.causes.iter_mut().for_each(name);
        }
        let mut sip = signalling.sip;
        sip.causes.iter_mut().for_each(name);
        let mut taps =
            topology::sum_up(&streams.iter().map(|stream| stream.taps.as_slice()).collect::<Vec<_>>());
        // They are summed up, and would be most of the report's memory.
        for stream in &mut streams {
            stream.delays = None;
        }
        for tap in &mut taps {
            tap.carrier = Session::find(carriers, tap.session, None);
        }
        let mut report = Self {
            generator: Generator::default(),
            taps,
            capture,
            media,
            calls,
            streams,
            sip,
            given_up: signalling.given_up,
            findings: Vec::new(),
        };
        report.findings = super::findings::find(&report);
        report
    }

    /// Shows the digits of telephone events, which are hidden otherwise: they can be somebody's PIN.
    pub fn show_digits(&mut self) {
        self.streams.iter_mut().flat_map(|stream| &mut stream.events).for_each(EventReport::show);
    }
}

/// A call and the streams that belong to it.
#[derive(Clone, Debug, Serialize)]
pub struct CallWithStreams {
    /// The call.
    #[serde(flatten)]
    pub call: CallReport,
    /// Its streams.
    pub streams: Vec<StreamRef>,
    /// UDPTL datagrams of its fax (T.38).
    pub fax_packets: u64,
    /// Why there is neither, where there is neither.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub media_absent_because: Option<String>,
    /// What its media does that its signalling does not lead to expect.
    pub media_findings: Vec<CallFinding>,
    /// Of `streams`, the one that sounds worst.
    pub worst_stream: Option<usize>,
    /// What of it deserves a look, `media_findings` included.
    pub problems: Vec<CallFinding>,
    /// Of all of them together.
    #[serde(flatten)]
    pub distributions: Distributions,
}

/// All media of the capture together, copies removed.
#[derive(Clone, Debug, Default, Serialize)]
pub struct MediaReport {
    /// Streams.
    pub streams: u64,
    /// First copies.
    pub packets: u64,
    /// What their numbers say was sent.
    pub expected: u64,
    /// Expected, and never came.
    pub lost: u64,
    /// Came, but too late for the de-jitter buffer that judges.
    pub discarded: u64,
    /// Of all of them together.
    #[serde(flatten)]
    pub distributions: Distributions,
}

impl MediaReport {
    fn of(streams: &[StreamReport]) -> Self {
        let sum = |of: fn(&StreamReport) -> u64| streams.iter().map(of).sum();
        let mut delays = Delays::default();
        for stream in streams {
            delays.merge(stream.delays.as_deref());
        }
        Self {
            streams: streams.len() as u64,
            packets: sum(|stream| stream.unique.packets),
            expected: sum(|stream| stream.unique.expected),
            lost: sum(|stream| stream.unique.lost.max(0).unsigned_abs()),
            discarded: sum(|stream| stream.bursts.discarded),
            distributions: delays.report(),
        }
    }
}

/// Jitter and delay variation of several streams together. Null where no stream had a clock.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Distributions {
    /// |D| of RFC 3550, in microseconds: HdrHistogram V2, compressed, base64.
    pub jitter_histogram: Option<String>,
    /// The same as percentiles.
    pub jitter_percentiles_us: Option<Percentiles>,
    /// Delay over the quickest packet lately, in the same form.
    pub pdv_histogram: Option<String>,
    /// The same as percentiles.
    pub pdv_percentiles_us: Option<Percentiles>,
}

/// The histograms behind [`Distributions`].
#[derive(Clone, Debug, Default)]
pub struct Delays {
    jitter: MicrosHistogram,
    variation: MicrosHistogram,
}

impl Delays {
    fn merge(&mut self, other: Option<&Self>) {
        if let Some(other) = other {
            self.jitter.merge(&other.jitter);
            self.variation.merge(&other.variation);
        }
    }

    /// Serialising into memory fails only on a histogram too large for its format.
    fn report(&self) -> Distributions {
        let (jitter, variation) = (Percentiles::of(&self.jitter), Percentiles::of(&self.variation));
        Distributions {
            jitter_histogram: jitter.and_then(|_| self.jitter.to_v2_base64()),
            jitter_percentiles_us: jitter,
            pdv_histogram: variation.and_then(|_| self.variation.to_v2_base64()),
            pdv_percentiles_us: variation,
        }
    }
}

/// What identifies a stream in `streams[]`.
#[derive(Clone, Debug, Serialize)]
pub struct StreamRef {
    /// Sender.
    pub src: Endpoint,
    /// Receiver.
    pub dst: Endpoint,
    /// `0x%08x`.
    pub ssrc: String,
}

/// Name and version of the program.
#[derive(Clone, Debug, Serialize)]
pub struct Generator {
    /// `voxprobe`.
    pub name: &'static str,
    /// Its version.
    pub version: &'static str,
    /// Whose figures the raw ledgers equal.
    pub compat: &'static str,
}

impl Default for Generator {
    fn default() -> Self {
        Self {
            name: "voxprobe",
            version: env!("CARGO_PKG_VERSION"),
            compat: crate::rtp::raw::Compat::default().name(),
        }
    }
}

/// The capture as a whole.
#[derive(Clone, Debug, Default, Serialize)]
pub struct CaptureReport {
    /// Files or interfaces.
    pub sources: Vec<String>,
    /// Frames read from the files; live, frames that the programs saw.
    pub packets: u64,
    /// Their bytes on the wire; live, those of matched frames only.
    pub bytes: u64,
    /// First to last frame.
    pub duration_s: f64,
    /// Where times step back, and where nothing was captured; live, neither is looked for.
    pub times: FrameTimes,
    /// What the filter matched: frames of SIP, RTP, RTCP, fragments of UDP, tunnels; and `unpacked`.
    pub matched: u64,
    /// Of those, datagrams found in byte streams that carry captured frames (rpcap, HEP over TCP): each is a unit besides
    /// the frames that carried it.
    pub unpacked: u64,
    /// Those that reached the analysis. `matched = analysed + sum(losses)`.
    pub analysed: u64,
    /// Matched frames that were lost, by name.
    pub losses: BTreeMap<&'static str, u64>,
    /// All frames by verdict.
    pub verdicts: BTreeMap<&'static str, u64>,
    /// Tunnels that were opened, and what was not believed to be one.
    pub tunnels: TunnelReport,
    /// Remote captures (rpcap) that were themselves captured, and what they say they dropped: loss that the capture made.
    pub remote_captures: Vec<RemoteCapture>,
    /// `media_other` and `rtcp`: what came to media ports and is not RTP.
    #[serde(flatten)]
    pub beside: BesideReport,
    /// What `--sample` keeps; absent without it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sampling: Option<SamplingReport>,
    /// What was shed because the probe did not keep up; absent if nothing was.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub shedding: Option<SheddingReport>,
    /// What was cut of whole frames by `--snap`; absent if nothing was.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cut: Option<CutReport>,
    /// What was left out when.
    #[serde(skip)]
    pub history: History,
    /// What else should be known of the input: cut short, unreadable link types, evictions.
    pub notes: Vec<String>,
}

/// Tunnels.
#[derive(Clone, Debug, Default, Serialize)]
pub struct TunnelReport {
    /// Opened, by path, most frames first.
    pub opened: Vec<Opened>,
    /// Refused, by layer and reason. Such a frame is taken for what it is otherwise.
    pub refused: Vec<Refused>,
    /// The sessions that carried something, in order of appearance.
    pub carriers: Vec<CarrierReport>,
    /// Frames of sessions beyond the bound; they count as the last one's.
    pub carriers_shared: u64,
}

impl TunnelReport {
    /// What a receiver found.
    pub fn of(remains: &Remains) -> Self {
        Self {
            opened: remains.tunnels.opened(),
            refused: remains.tunnels.refused(),
            carriers: remains.carriers.clone(),
            carriers_shared: remains.carriers_shared,
        }
    }
}

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
    /// Through which taps it was seen; summed up in [`Report::taps`].
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

/// Percentiles of a distribution in microseconds.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Percentiles {
    /// Median.
    pub p50: f64,
    /// 90 % are not above.
    pub p90: f64,
    /// 99 % are not above.
    pub p99: f64,
    /// 99.9 % are not above.
    pub p999: f64,
    /// Largest, exact.
    pub max: f64,
}

impl Percentiles {
    /// Of a histogram; `None` if it is empty.
    pub fn of(histogram: &MicrosHistogram) -> Option<Self> {
        let max_ns = histogram.max_ns()?;
        Some(Self {
            p50: histogram.percentile_us(50.0)?,
            p90: histogram.percentile_us(90.0)?,
            p99: histogram.percentile_us(99.0)?,
            p999: histogram.percentile_us(99.9)?,
            max: max_ns as f64 / 1000.0,
        })
    }
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

/// Something that the operator should know.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Finding {
    /// Stable identifier.
    pub id: &'static str,
    /// How bad.
    pub severity: Severity,
    /// One line.
    pub title: String,
    /// What was seen.
    pub detail: String,
    /// What to do.
    pub advice: String,
    /// Frame numbers of examples.
    pub evidence: Vec<u64>,
}

/// How bad a finding is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// Good to know.
    Info,
    /// Distorts what is seen.
    Warn,
    /// Hurts calls.
    Bad,
}

/// Counts by verdict, all names.
pub fn verdicts_by_name(verdicts: &[u64; VERDICTS]) -> BTreeMap<&'static str, u64> {
    Verdict::ALL.iter().map(|verdict| verdict.name()).zip(verdicts.iter().copied()).collect()
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
    pub(super) fn excuse(&mut self) {
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
    pub(super) fn lost_on_the_way(&self) -> u64 {
        self.unique.lost.max(0).unsigned_abs().saturating_sub(self.excused)
    }

    /// The same in percent.
    pub(super) fn lost_on_the_way_percent(&self) -> f64 {
        match self.excused {
            0 => self.unique.lost_percent,
            excused => {
                let expected = self.unique.expected.saturating_sub(excused).max(1);
                self.lost_on_the_way() as f64 * 100.0 / expected as f64
            }
        }
    }

    /// When its first frame came, by the clock that stamps frames.
    pub(super) fn first_seen(&self) -> Nanos {
        self.identity.first_seen
    }

    /// The one-way delay is known, or it is known that nobody knows it.
    pub fn set_one_way_delay(&mut self, one_way: Option<Duration>) {
        if !self.loss_is_upper_bound && !self.is_shed() {
            (self.mos_cq, self.mos_cq_absent_because) = apart(self.heard.conversational(one_way));
        }
    }

    /// The probe itself lost frames: what is missing here may be among them, and is not held against the network.
    pub(super) fn doubt_loss(&mut self) {
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

#[cfg(test)]
#[path = "contract_testing.rs"]
pub(super) mod testing;

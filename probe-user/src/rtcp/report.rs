//! What RTCP says of a stream, joined to it.
//!
//! A sender's own reports belong to the stream of its SSRC between the same two hosts; ports differ by the very use of
//! them (RTCP has the next port, or one of its own). Blocks about the SSRC belong to it if they come from the stream's
//! receiver. Where no host fits (RTCP goes by another way, RFC 3605) and only one stream has the SSRC, the SSRC decides, and
//! `joined_by` says so.

use std::time::Duration;

use rustc_hash::FxHashMap;
use serde::Serialize;

use super::tracker::{Participant, ParticipantKey, Reception, RoundTrip, Tracker};
use super::xr::{StatisticsSummary, VoipMetrics};
use crate::packet::{Endpoint, Flow, Nanos};
use crate::rtp::StreamKey;

/// Blocks without anything in them from which a receiver is taken not to measure.
const EMPTY_REPORTS: u64 = 3;
/// Packets between a receiver's first and last report from which its share of loss is one.
const MEASURED_PACKETS: u32 = 50;
/// Longest jitter that is believed, in ms.
const MAX_JITTER_MS: f64 = 60_000.0;
/// Deviation of a media clock beyond which the fault is the wall clock's, in ppm.
const MAX_SKEW_PPM: f64 = 50_000.0;

/// Everything that RTCP says of one stream.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct StreamRtcp {
    /// "addresses", or "ssrc".
    pub joined_by: &'static str,
    /// Sender reports of its sender.
    pub sender_reports: u64,
    /// Report blocks about it, of the one receiver that reported most.
    pub receiver_reports: u64,
    /// Packets sent, by the last sender report.
    pub packets_sent: Option<u32>,
    /// Octets of payload sent, likewise.
    pub octets_sent: Option<u32>,
    /// The sender's canonical name.
    pub cname: Option<String>,
    /// The sender's leave.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bye: Option<ByeReport>,
    /// The sender's media clock against its wall clock.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sender_clock: Option<ClockReport>,
    /// Why it is not there.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sender_clock_absent_because: Option<&'static str>,
    /// Round trip of the whole path: the sum of the two below, if both are known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub round_trip_ms: Option<RoundTripReport>,
    /// From the probe to the stream's receiver and back.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub round_trip_to_receiver_ms: Option<RoundTripReport>,
    /// From the probe to the stream's sender and back.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub round_trip_to_sender_ms: Option<RoundTripReport>,
    /// Why there is none of the whole path.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub round_trip_absent_because: Option<&'static str>,
    /// What the receiver says of the stream.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub far_end: Option<FarEnd>,
    /// Why it says nothing.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub far_end_absent_because: Option<&'static str>,
}

impl StreamRtcp {
    /// Half the mean round trip of the whole path: an estimate, as the ways there and back may differ.
    pub fn one_way_delay(&self) -> Option<Duration> {
        self.round_trip_ms.map(|round_trip| Duration::from_secs_f64(round_trip.mean / 2_000.0))
    }
}

/// A participant's leave.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ByeReport {
    /// Its frame.
    pub frame: u64,
    /// Its reason, if it gave one.
    pub reason: Option<String>,
}

/// A media clock against the wall clock of the same sender.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct ClockReport {
    /// How much faster the media clock runs than its nominal rate, in millionths.
    pub skew_ppm: f64,
    /// Reports that it was found by.
    pub reports: u64,
    /// Seconds that they span.
    pub span_s: f64,
}

/// Round trips in ms.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct RoundTripReport {
    /// Shortest.
    pub min: f64,
    /// Mean.
    pub mean: f64,
    /// Longest.
    pub max: f64,
    /// How many.
    pub samples: u64,
}

impl RoundTripReport {
    fn of(round_trip: &RoundTrip) -> Option<Self> {
        (round_trip.samples > 0).then(|| Self {
            min: round_trip.min_ns as f64 / 1e6,
            mean: round_trip.sum_ns as f64 / round_trip.samples as f64 / 1e6,
            max: round_trip.max_ns as f64 / 1e6,
            samples: round_trip.samples,
        })
    }

    /// Of both sides of the probe: extremes add up to bounds, which no packet need have reached.
    fn sum(a: Self, b: Self) -> Self {
        Self {
            min: a.min + b.min,
            mean: a.mean + b.mean,
            max: a.max + b.max,
            samples: a.samples.min(b.samples),
        }
    }
}

/// What a stream's receiver says of it.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct FarEnd {
    /// From where it reports.
    pub src: Endpoint,
    /// Under which SSRC, `0x%08x`.
    pub ssrc: String,
    /// How often.
    pub reports: u64,
    /// Lost of what it expected, in percent, between its first and last report.
    pub lost_percent: Option<f64>,
    /// Lost since it began to receive; negative with duplicates.
    pub cumulative_lost: i32,
    /// Lost since the report before, 0 to 1: the last, and the worst.
    pub fraction_lost: LastAndMax,
    /// Interarrival jitter; absent without a clock rate.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub jitter_ms: Option<FarJitter>,
    /// Extended highest sequence number received.
    pub highest_seq: u32,
    /// Seconds from the last report to the stream's last packet: what happened then, it does not tell.
    pub silent_s: f64,
    /// XR VoIP metrics, the last.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub voip_metrics: Option<VoipMetrics>,
    /// XR statistics summary, the last.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub statistics_summary: Option<StatisticsSummary>,
}

/// A figure of the last report, and the greatest of all.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct LastAndMax {
    /// Of the last.
    pub last: f64,
    /// The greatest.
    pub max: f64,
}

/// Jitter of a receiver's reports in ms.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct FarJitter {
    /// Of the last.
    pub last: f64,
    /// Mean of all.
    pub mean: f64,
    /// The greatest.
    pub max: f64,
}

/// What is needed of a stream to join RTCP to it.
#[derive(Clone, Copy, Debug)]
pub struct Joinable {
    /// Identity.
    pub key: StreamKey,
    /// Clock rate in Hz, if known.
    pub clock_rate: Option<u32>,
    /// Time of the last frame.
    pub last_seen: Nanos,
    /// Is its media encrypted?
    pub is_encrypted: bool,
}

/// RTCP of each stream, in their order: what it says, or why it says nothing.
pub fn join(tracker: &Tracker, streams: &[Joinable]) -> Vec<Result<StreamRtcp, &'static str>> {
    let mut by_ssrc: FxHashMap<u32, Vec<usize>> = FxHashMap::default();
    for (at, stream) in streams.iter().enumerate() {
        by_ssrc.entry(stream.key.ssrc).or_default().push(at);
    }
    let mut of_stream: Vec<Parts<'_>> = streams.iter().map(|_| Parts::default()).collect();
    for (key, participant) in tracker.participants() {
        let concerned = by_ssrc.get(&key.ssrc).map_or(&[][..], Vec::as_slice);
        for (at, by_address) in matching(streams, concerned, |flow| is_along(&key.flow, flow)) {
            if let Some(parts) = of_stream.get_mut(at) {
                parts.senders.push((by_address, participant));
            }
        }
        for reception in &participant.receptions {
            let concerned = by_ssrc.get(&reception.ssrc).map_or(&[][..], Vec::as_slice);
            for (at, by_address) in matching(streams, concerned, |flow| is_against(&key.flow, flow)) {
                if let Some(parts) = of_stream.get_mut(at) {
                    parts.receptions.push((by_address, key, reception));
                }
            }
        }
    }
    streams.iter().zip(of_stream).map(|(stream, parts)| parts.report(tracker, stream)).collect()
}

/// Streams whose hosts fit; else the only one there is.
fn matching<'a>(
    streams: &'a [Joinable],
    concerned: &'a [usize],
    fits: impl Fn(&Flow) -> bool + 'a,
) -> impl Iterator<Item = (usize, bool)> + 'a {
    let fits = move |at: &usize| streams.get(*at).is_some_and(|stream| fits(&stream.key.flow));
    let any = concerned.iter().any(&fits);
    let alone = concerned.len() == 1 && !any;
    concerned.iter().copied().filter(move |at| alone || fits(at)).map(move |at| (at, any))
}

fn is_along(reports: &Flow, stream: &Flow) -> bool {
    reports.src.address == stream.src.address && reports.dst.address == stream.dst.address
}

fn is_against(reports: &Flow, stream: &Flow) -> bool {
    reports.src.address == stream.dst.address && reports.dst.address == stream.src.address
}

/// What was found for one stream; with each, whether its hosts fit.
#[derive(Default)]
struct Parts<'a> {
    senders: Vec<(bool, &'a Participant)>,
    receptions: Vec<(bool, &'a ParticipantKey, &'a Reception)>,
}

impl Parts<'_> {
    fn report(&self, tracker: &Tracker, stream: &Joinable) -> Result<StreamRtcp, &'static str> {
        if self.senders.is_empty() && self.receptions.is_empty() {
            let is_encrypted = tracker.is_encrypted(&stream.key.flow);
            return Err(if is_encrypted {
                "encrypted (SRTCP)"
            } else if stream.is_encrypted {
                "no RTCP was seen; the media is encrypted, so it would be, too"
            } else {
                "no RTCP was seen"
            });
        }
        let by_address = self
            .senders
            .iter()
            .map(|(by, _)| *by)
            .chain(self.receptions.iter().map(|(by, ..)| *by))
            .all(|by| by);
        let mut report =
            StreamRtcp { joined_by: if by_address { "addresses" } else { "ssrc" }, ..StreamRtcp::default() };
        self.add_sender(&mut report, stream.clock_rate);
        self.add_far_end(&mut report, stream);
        let (near, far) = (report.round_trip_to_sender_ms, report.round_trip_to_receiver_ms);
        report.round_trip_ms = near.zip(far).map(|(near, far)| RoundTripReport::sum(near, far));
        report.round_trip_absent_because = match (near, far) {
            (Some(_), Some(_)) => None,
            (None, None) => Some("no report answers another one that was seen here"),
            (None, Some(_)) => Some("no answer of the sender's to a report of the receiver's"),
            (Some(_), None) => Some("no answer of the receiver's to a report of the sender's"),
        };
        Ok(report)
    }

    /// The sender's own reports. Several flows of one: the one with most.
    fn add_sender(&self, report: &mut StreamRtcp, clock_rate: Option<u32>) {
        let mut near = RoundTrip::default();
        for (_, participant) in &self.senders {
            participant.receptions.iter().for_each(|reception| near.merge(&reception.round_trip));
        }
        report.round_trip_to_sender_ms = RoundTripReport::of(&near);
        let most = self.senders.iter().map(|(_, sender)| *sender).max_by_key(|sender| sender.sender_reports);
        let Some(sender) = most else {
            report.sender_clock_absent_because = Some("no sender report");
            return;
        };
        report.sender_reports = sender.sender_reports;
        report.packets_sent = sender.last_info.map(|info| info.packets);
        report.octets_sent = sender.last_info.map(|info| info.octets);
        report.cname = self.senders.iter().find_map(|(_, sender)| sender.name.as_deref()).map(str::to_owned);
        let bye = self.senders.iter().find_map(|(_, sender)| sender.bye.as_ref());
        report.bye =
            bye.map(|bye| ByeReport { frame: bye.number, reason: bye.reason.as_deref().map(str::to_owned) });
        let clock = sender.clock.rate_hz().and_then(|hz| {
            let nominal = clock_rate.filter(|rate| *rate > 0).ok_or("clock rate unknown")?;
            let skew_ppm = (hz / f64::from(nominal) - 1.0) * 1e6;
            let (reports, span_s) = sender.clock.span();
            if skew_ppm.abs() > MAX_SKEW_PPM {
                return Err("the NTP times of its reports do not advance with its media");
            }
            Ok(ClockReport { skew_ppm, reports, span_s })
        });
        match clock {
            Ok(clock) => report.sender_clock = Some(clock),
            Err(reason) => report.sender_clock_absent_because = Some(reason),
        }
    }

    fn add_far_end(&self, report: &mut StreamRtcp, stream: &Joinable) {
        let mut far = RoundTrip::default();
        self.receptions.iter().for_each(|(.., reception)| far.merge(&reception.round_trip));
        report.round_trip_to_receiver_ms = RoundTripReport::of(&far);
        let most = self.receptions.iter().max_by_key(|(.., reception)| reception.reports);
        let Some((_, key, reception)) = most else {
            report.far_end_absent_because = Some("no receiver reports on it");
            return;
        };
        report.receiver_reports = reception.reports;
        let says_nothing =
            reception.reports >= EMPTY_REPORTS && reception.is_empty && report.sender_reports > 0;
        if says_nothing && reception.voip.is_none() && reception.statistics.is_none() {
            report.far_end_absent_because = Some(
                "its report blocks are empty: no loss, no jitter, and none of the sender's reports, although they were sent",
            );
            return;
        }
        let ms =
            |ticks: f64| stream.clock_rate.filter(|rate| *rate > 0).map(|rate| ticks * 1e3 / f64::from(rate));
        let jitter_ms = || {
            let last = ms(f64::from(reception.last.jitter))?;
            let mean = ms(reception.jitter_sum as f64 / reception.reports.max(1) as f64)?;
            let max = ms(f64::from(reception.jitter_max))?;
            (max <= MAX_JITTER_MS && reception.reports > 0).then_some(FarJitter { last, mean, max })
        };
        report.far_end = Some(FarEnd {
            src: key.flow.src,
            ssrc: format!("0x{:08x}", key.ssrc),
            reports: reception.reports,
            lost_percent: lost_percent(reception),
            cumulative_lost: reception.last.cumulative_lost,
            fraction_lost: LastAndMax {
                last: f64::from(reception.last.fraction_lost) / 256.0,
                max: f64::from(reception.worst_fraction) / 256.0,
            },
            jitter_ms: jitter_ms(),
            highest_seq: reception.last.highest_seq,
            silent_s: if reception.reports == 0 {
                0.0
            } else {
                (stream.last_seen.since(reception.last_time) as f64 / 1e9).max(0.0)
            },
            voip_metrics: reception.voip,
            statistics_summary: reception.statistics,
        });
    }
}

/// Between the first and the last report; of a single one, what it says of the time before it.
fn lost_percent(reception: &Reception) -> Option<f64> {
    let (first, last) = (&reception.first, &reception.last);
    match reception.reports {
        0 => None,
        1 => Some(f64::from(last.fraction_lost) * 100.0 / 256.0),
        _ => {
            let expected =
                last.highest_seq.checked_sub(first.highest_seq).filter(|e| *e >= MEASURED_PACKETS)?;
            let lost = i64::from(last.cumulative_lost) - i64::from(first.cumulative_lost);
            // A receiver that began anew has other bases.
            (lost <= i64::from(expected)).then(|| lost as f64 * 100.0 / f64::from(expected))
        }
    }
}

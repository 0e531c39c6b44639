//! What RTCP says of a stream, joined to it.
//!
//! A sender's own reports belong to the stream of its SSRC between the same two hosts; ports differ by the very use of
//! them (RTCP has the next port, or one of its own). Blocks about the SSRC belong to it if they come from the stream's
//! receiver. Where no host fits (RTCP goes by another way, RFC 3605) and only one stream has the SSRC, the SSRC decides, and
//! `joined_by` says so.

use std::time::Duration;

use rustc_hash::FxHashMap;
use serde::Serialize;

use super::tracker::{Bye, Participant, ParticipantKey, Reception, RoundTrip, Tracker};
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
///
/// Streams of one SSRC between the same hosts share what was found: matching each with each would take the product of both,
/// and a flood has tens of thousands on either side.
pub fn join(tracker: &Tracker, streams: &[Joinable]) -> Vec<Result<StreamRtcp, &'static str>> {
    let mut found = Groups::default();
    for stream in streams {
        let group = group(stream.key.ssrc, &stream.key.flow);
        found.parts.entry(group).or_default();
        found.alone.entry(stream.key.ssrc).and_modify(|only| *only = None).or_insert(Some(group));
    }
    for (key, participant) in tracker.participants() {
        if let Some((parts, by_address)) = found.parts_of(group(key.ssrc, &key.flow)) {
            parts.add_participant(by_address, participant);
        }
        let media = Flow { src: key.flow.dst, dst: key.flow.src };
        for reception in &participant.receptions {
            if let Some((parts, by_address)) = found.parts_of(group(reception.ssrc, &media)) {
                parts.add_reception(by_address, key, reception);
            }
        }
    }
    let nothing = Parts::default();
    let parts_of = |stream: &Joinable| {
        found.parts.get(&group(stream.key.ssrc, &stream.key.flow)).unwrap_or(&nothing).report(tracker, stream)
    };
    streams.iter().map(parts_of).collect()
}

/// An SSRC, and the hosts that its media goes from and to.
type Group = (u32, [u8; 16], [u8; 16]);

fn group(ssrc: u32, media: &Flow) -> Group {
    (ssrc, media.src.address, media.dst.address)
}

#[derive(Default)]
struct Groups<'a> {
    parts: FxHashMap<Group, Parts<'a>>,
    /// The group of an SSRC that only one stream has.
    alone: FxHashMap<u32, Option<Group>>,
}

impl<'a> Groups<'a> {
    /// That of the streams whose hosts fit, else of the only one there is; and whether hosts fit.
    fn parts_of(&mut self, group: Group) -> Option<(&mut Parts<'a>, bool)> {
        let by_address = self.parts.contains_key(&group);
        let group = if by_address { group } else { (*self.alone.get(&group.0)?)? };
        Some((self.parts.get_mut(&group)?, by_address))
    }
}

/// What was found for the streams of a group.
#[derive(Default)]
struct Parts<'a> {
    /// Some of it was joined by the SSRC alone.
    by_ssrc: bool,
    /// Of the sender's flows, that with most reports.
    sender: Option<&'a Participant>,
    name: Option<&'a str>,
    bye: Option<&'a Bye>,
    to_sender: RoundTrip,
    /// Of the receivers, the one that reported most.
    reception: Option<(&'a ParticipantKey, &'a Reception)>,
    to_receiver: RoundTrip,
}

impl<'a> Parts<'a> {
    fn add_participant(&mut self, by_address: bool, participant: &'a Participant) {
        self.by_ssrc |= !by_address;
        participant.receptions.iter().for_each(|reception| self.to_sender.merge(&reception.round_trip));
        if self.sender.is_none_or(|most| participant.sender_reports >= most.sender_reports) {
            self.sender = Some(participant);
        }
        self.name = self.name.or(participant.name.as_deref());
        self.bye = self.bye.or(participant.bye.as_ref());
    }

    fn add_reception(&mut self, by_address: bool, key: &'a ParticipantKey, reception: &'a Reception) {
        self.by_ssrc |= !by_address;
        self.to_receiver.merge(&reception.round_trip);
        if self.reception.is_none_or(|(_, most)| reception.reports >= most.reports) {
            self.reception = Some((key, reception));
        }
    }

    fn report(&self, tracker: &Tracker, stream: &Joinable) -> Result<StreamRtcp, &'static str> {
        if self.sender.is_none() && self.reception.is_none() {
            let is_encrypted = tracker.is_encrypted(&stream.key.flow);
            return Err(if is_encrypted {
                "encrypted (SRTCP)"
            } else if stream.is_encrypted {
                "no RTCP was seen; the media is encrypted, so it would be, too"
            } else {
                "no RTCP was seen"
            });
        }
        let joined_by = if self.by_ssrc { "ssrc" } else { "addresses" };
        let mut report = StreamRtcp { joined_by, ..StreamRtcp::default() };
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

    /// The sender's own reports.
    fn add_sender(&self, report: &mut StreamRtcp, clock_rate: Option<u32>) {
        report.round_trip_to_sender_ms = RoundTripReport::of(&self.to_sender);
        let Some(sender) = self.sender else {
            report.sender_clock_absent_because = Some("no sender report");
            return;
        };
        report.sender_reports = sender.sender_reports;
        report.packets_sent = sender.last_info.map(|info| info.packets);
        report.octets_sent = sender.last_info.map(|info| info.octets);
        report.cname = self.name.map(str::to_owned);
        report.bye = self
            .bye
            .map(|bye| ByeReport { frame: bye.number, reason: bye.reason.as_deref().map(str::to_owned) });
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
        report.round_trip_to_receiver_ms = RoundTripReport::of(&self.to_receiver);
        let Some((key, reception)) = self.reception else {
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

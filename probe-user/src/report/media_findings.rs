//! Findings from what the ends say of their streams, and from how streams belong together.

use super::contract::{Finding, Report, Severity, StreamReport};
use super::words;
use crate::rtcp::report::{FarEnd, RoundTripReport};
use crate::rtp::legs::Relation;

/// Points of percent by which two measures of one loss must differ to be told: what the last seconds of a stream, which no
/// report covers, can make of a minute.
const DISAGREEMENT: f64 = 1.0;
/// Packets that must have been sent for a share of them to be one.
const ENOUGH_PACKETS: u64 = 100;
/// Round trip that is heard, in ms: 150 each way is what a conversation bears (ITU-T G.114).
const LONG_ROUND_TRIP_MS: f64 = 300.0;
/// Of a stream's time, what its far end's reports must cover to have seen what we miss: loss here in the seconds after the
/// last report is loss that nobody there has told yet.
const COVERED: f64 = 0.8;

/// All of them.
pub(super) fn find(report: &Report) -> impl Iterator<Item = Finding> {
    let found = [
        far_end_loses_more(report),
        far_end_loses_less(report),
        far_end_reports_nothing(report),
        long_round_trip(report),
        declared_redundancy(report),
        same_stream_elsewhere(report),
        sent_back(report),
        digits_without_end(report),
    ];
    found.into_iter().flatten()
}

/// Did its receiver have what is missing here? Then nobody hears that loss.
pub(super) fn is_lost_by_the_capture(stream: &StreamReport) -> bool {
    compared(std::slice::from_ref(stream)).next().is_some_and(|(_, far, more)| {
        let is_covered = far.silent_s <= stream.unique.duration_s * (1.0 - COVERED) && far.reports > 1;
        more <= -DISAGREEMENT && is_covered
    })
}

/// Streams that both ends measured, by how much more the far end lost, in points of percent.
fn compared(streams: &[StreamReport]) -> impl Iterator<Item = (&StreamReport, &FarEnd, f64)> {
    streams.iter().filter_map(|stream| {
        let far = stream.rtcp.as_ref()?.far_end.as_ref()?;
        // Its reports tell of the time in which it was shed, too.
        let is_measured =
            stream.unique.expected >= ENOUGH_PACKETS && !stream.loss_is_upper_bound && !stream.is_shed();
        let more = far.lost_percent? - stream.unique.lost_percent;
        is_measured.then_some((stream, far, more))
    })
}

fn figures(stream: &StreamReport, far: &FarEnd) -> String {
    let jitter = match (&far.jitter_ms, &stream.jitter_percentiles_us) {
        (Some(there), Some(_)) => {
            format!("; jitter {:.1} ms there, {:.1} ms here", there.mean, stream.unique.jitter_ms.mean)
        }
        _ => String::new(),
    };
    format!(
        "{} → {} {}: its receiver lost {:.1} % between its first and last of {}, here {:.1} % are missing{jitter}",
        stream.src,
        stream.dst,
        stream.ssrc,
        far.lost_percent.unwrap_or_default(),
        words::count(far.reports, "report"),
        stream.unique.lost_percent,
    )
}

fn far_end_loses_more(report: &Report) -> Option<Finding> {
    let apart: Vec<_> = compared(&report.streams).filter(|(.., more)| *more >= DISAGREEMENT).collect();
    let (stream, far, _) = apart.iter().max_by(|(.., a), (.., b)| a.total_cmp(b))?;
    Some(Finding {
        id: "far-end-loses-more",
        severity: Severity::Bad,
        title: format!(
            "{} lost more beyond this point than before it",
            words::count(apart.len() as u64, "stream")
        ),
        detail: format!(
            "{}. What is missing there and not here was lost on the way from here.",
            figures(stream, far)
        ),
        advice: format!(
            "look at the path from here to {}; what was measured here says nothing of what is heard there",
            stream.dst
        ),
        evidence: Vec::new(),
    })
}

fn far_end_loses_less(report: &Report) -> Option<Finding> {
    let apart: Vec<_> =
        compared(&report.streams).filter(|(stream, ..)| is_lost_by_the_capture(stream)).collect();
    let (stream, far, _) = apart.iter().min_by(|(.., a), (.., b)| a.total_cmp(b))?;
    Some(Finding {
        id: "capture-loses-more",
        severity: Severity::Warn,
        title: format!("{} lost less than this capture shows", words::count(apart.len() as u64, "stream")),
        detail: format!(
            "{}. What arrived there was sent and passed: it is missing from the capture only.",
            figures(stream, far)
        ),
        advice: "look for an overloaded mirror port, or a capture filter, before the network is blamed"
            .to_owned(),
        evidence: Vec::new(),
    })
}

fn far_end_reports_nothing(report: &Report) -> Option<Finding> {
    let mute = |stream: &&StreamReport| {
        let rtcp = stream.rtcp.as_ref();
        rtcp.is_some_and(|rtcp| rtcp.receiver_reports > 0 && rtcp.far_end_absent_because.is_some())
    };
    let streams: Vec<_> = report.streams.iter().filter(mute).collect();
    let first = streams.first()?;
    Some(Finding {
        id: "far-end-does-not-measure",
        severity: Severity::Info,
        title: format!(
            "the receivers of {} send reports with nothing in them",
            words::count(streams.len() as u64, "stream")
        ),
        detail: format!(
            "{} → {}: no loss, no jitter and no trace of the sender's reports in all of them. That is no perfect call; the \
             receiver does not fill them in.",
            first.src, first.dst
        ),
        advice: String::new(),
        evidence: Vec::new(),
    })
}

fn long_round_trip(report: &Report) -> Option<Finding> {
    let slow: Vec<_> = report
        .streams
        .iter()
        .filter_map(|stream| {
            let rtcp = stream.rtcp.as_ref()?;
            let mean = rtcp.round_trip_ms?.mean;
            (mean >= LONG_ROUND_TRIP_MS).then_some((stream, rtcp, mean))
        })
        .collect();
    let (stream, rtcp, mean) = slow.iter().max_by(|(.., a), (.., b)| a.total_cmp(b))?;
    let side = |part: Option<RoundTripReport>| part.map_or(0.0, |part| part.mean);
    Some(Finding {
        id: "long-round-trip",
        severity: Severity::Warn,
        title: format!(
            "a round trip of {mean:.0} ms: {} whose ends talk over each other",
            words::count(slow.len() as u64, "stream")
        ),
        detail: format!(
            "{} → {}: {:.0} ms from here to its sender and back, {:.0} ms to its receiver, by RTCP. De-jitter buffers and \
             codecs come on top.",
            stream.src,
            stream.dst,
            side(rtcp.round_trip_to_sender_ms),
            side(rtcp.round_trip_to_receiver_ms),
        ),
        advice: "look at the longer side: the route, or a queue that is always full".to_owned(),
        evidence: Vec::new(),
    })
}

fn declared_redundancy(report: &Report) -> Option<Finding> {
    let declared: Vec<_> = report.streams.iter().filter(|stream| !stream.redundancy.is_empty()).collect();
    let first = declared.first()?;
    let ways: Vec<_> =
        first.redundancy.iter().map(|way| format!("{} ({})", way.kind, way.declared_by)).collect();
    Some(Finding {
        id: "declared-redundancy",
        severity: Severity::Info,
        title: format!("{} sent twice on purpose", words::count(declared.len() as u64, "stream")),
        detail: format!(
            "{} → {} {}: {}. Its second copies are protection against loss: neither an error nor the capture's.",
            first.src,
            first.dst,
            first.ssrc,
            ways.join(", ")
        ),
        advice: String::new(),
        evidence: Vec::new(),
    })
}

fn same_stream_elsewhere(report: &Report) -> Option<Finding> {
    let is_passed_on = |relation: Relation| matches!(relation, Relation::Nat | Relation::Relay);
    let mut passed_on = report
        .streams
        .iter()
        .flat_map(|stream| stream.legs.iter().map(move |leg| (stream, leg)))
        // Each pair once, from the leg that came first.
        .filter(|(_, leg)| is_passed_on(leg.relation) && leg.delay_ms.p50 >= 0.0);
    let (stream, leg) = passed_on.next()?;
    let count = 1 + passed_on.count() as u64;
    let by = if leg.relation == Relation::Nat { "a NAT" } else { "a relay (SBC, B2BUA)" };
    Some(Finding {
        id: "same-stream-elsewhere",
        severity: Severity::Info,
        title: format!("{} seen on both sides of a NAT or a relay", words::count(count, "stream")),
        detail: format!(
            "{} → {} is the stream {} → {}, passed on by {by} after {:.2} ms (median; {:.0} % of the packets match). Each is \
             listed with its own figures, and neither counts as copies of the other.",
            stream.src, stream.dst, leg.src, leg.dst, leg.delay_ms.p50, leg.matched_percent,
        ),
        advice: String::new(),
        evidence: Vec::new(),
    })
}

/// What an echo test does on purpose; elsewhere the speaker hears himself.
fn sent_back(report: &Report) -> Option<Finding> {
    let mut echoes = report
        .streams
        .iter()
        .flat_map(|stream| stream.legs.iter().map(move |leg| (stream, leg)))
        // Each pair once, from the one that came first.
        .filter(|(_, leg)| leg.relation == Relation::Echo && leg.delay_ms.p50 >= 0.0);
    let (stream, leg) = echoes.next()?;
    let count = 1 + echoes.count() as u64;
    Some(Finding {
        id: "stream-sent-back",
        severity: Severity::Info,
        title: format!("{} sent back to its sender", words::count(count, "stream")),
        detail: format!(
            "{} → {} comes back from there packet by packet after {:.2} ms (median; {:.0} % of the packets match), under the \
             same SSRC and numbers. Its figures are those of one stream, seen twice.",
            stream.src, stream.dst, leg.delay_ms.p50, leg.matched_percent,
        ),
        advice: "an echo test does so; in a call between people, look for a loop: who speaks hears himself"
            .to_owned(),
        evidence: Vec::new(),
    })
}

fn digits_without_end(report: &Report) -> Option<Finding> {
    let mut endless = report
        .streams
        .iter()
        // The end may have been left out.
        .filter(|stream| !stream.is_shed())
        .flat_map(|stream| stream.events.iter().map(move |event| (stream, event)))
        // The tones of a fax or a modem are often announced once.
        .filter(|(_, event)| event.end_packets == 0 && event.is_key());
    let (stream, event) = endless.next()?;
    let count = 1 + endless.count() as u64;
    Some(Finding {
        id: "digit-without-end",
        severity: Severity::Warn,
        title: format!("{} without an end", words::count(count, "telephone event")),
        detail: format!(
            "{} → {}: all packets that say that a digit is over are missing (three are sent, RFC 4733, 2.5.1.4). A receiver \
             may hear it too long, or twice.",
            stream.src, stream.dst
        ),
        advice: String::new(),
        evidence: vec![event.frame],
    })
}

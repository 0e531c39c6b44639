//! The media of a ladder: where each stream begins, falls silent, comes back, changes and ends.

use std::fmt::Write as _;

use super::super::contract::StreamReport;
use super::super::forensics::SignallingMoment;
use super::super::troubles::{Continuation, Predecessor};
use super::{Kind, Participants, Row, words};
use crate::packet::Nanos;

/// Spikes and markers shown of one stream, the first of each; the page of a stream has them all.
const MAX_CHANGES: usize = 3;

/// Rows for the streams of the ladder's calls. `place` is where in the ladder a call stands.
pub(super) fn rows(
    streams: &[StreamReport],
    place: impl Fn(&str, Nanos) -> Option<usize>,
    participants: &mut Participants,
) -> Vec<Row> {
    let mut rows = Vec::new();
    for stream in streams {
        let mut its = stream.call_id.iter().chain(&stream.shared_with);
        let Some(call) = its.find_map(|id| place(id, stream.first_seen())) else { continue };
        let (from, to) = (participants.of(stream.src), participants.of(stream.dst));
        let row = |at_s, frame, kind, label, notes| Row {
            at_s,
            frame,
            call,
            kind,
            from,
            to,
            label,
            notes,
            copies: None,
            ssrc: Some(stream.ssrc.clone()),
        };
        let codec = stream.codec.as_deref().unwrap_or("?");
        let label = begin(stream, first_codec(stream).unwrap_or(codec));
        let notes = stream.continues.iter().map(Predecessor::sentence).collect();
        rows.push(row(stream.start_s, 0, Kind::Media, label, notes));
        for found in stream.interruptions.iter().filter(|found| found.gap.is_silence()) {
            let explanation = &found.explanation;
            let mut notes: Vec<_> =
                explanation.began_at.iter().map(|at| format!("began {}", at.phrase())).collect();
            notes.push(explanation.because.clone());
            let label = format!("{} silent", words::silence(found.gap.silence_s));
            rows.push(row(found.time_s - found.gap.silence_s, 0, Kind::Silence, label, notes));
            let notes = explanation.ended_at.iter().map(SignallingMoment::phrase).collect();
            rows.push(row(
                found.time_s,
                found.gap.packet,
                Kind::Resumed,
                format!("RTP {codec} again"),
                notes,
            ));
        }
        for (at_s, frame, label, near) in changes(stream) {
            rows.push(row(
                at_s,
                frame,
                Kind::Change,
                label,
                near.iter().map(SignallingMoment::phrase).collect(),
            ));
        }
        let end_s = stream.start_s + stream.unique.duration_s;
        rows.push(row(end_s, 0, Kind::MediaEnd, format!("RTP {codec} ends"), vec![figures(stream)]));
    }
    rows
}

fn begin(stream: &StreamReport, codec: &str) -> String {
    let codec = words::printable(codec);
    match stream.continues.as_ref().map(|before| before.how) {
        Some(Continuation::SsrcChanged) => format!("RTP {codec}, another SSRC"),
        Some(Continuation::Moved) => format!("RTP {codec}, moved"),
        None => format!("RTP {codec}"),
    }
}

/// The codec that a stream began with, where it changed.
fn first_codec(stream: &StreamReport) -> Option<&str> {
    stream.codec_changes.first()?.from_codec.as_deref()
}

/// Changes within a stream, and what the signalling did then.
fn changes(stream: &StreamReport) -> Vec<(f64, u64, String, Option<SignallingMoment>)> {
    let codecs = stream.codec_changes.iter().take(MAX_CHANGES).map(|change| {
        let to = change.to_codec.clone().unwrap_or_else(|| format!("payload type {}", change.change.to));
        (change.time_s, change.change.packet, format!("RTP now {to}"), change.near.clone())
    });
    let spikes = stream.jitter_spikes.iter().take(MAX_CHANGES).map(|spike| {
        let label = format!("up to {:.0} ms late", spike.worst_ms);
        (spike.time_s, spike.packet, label, spike.near.clone())
    });
    let markers = stream.marker_restarts.iter().take(MAX_CHANGES).map(|marker| {
        let label = format!("timestamp jumps {} s", words::signed(marker.jump_s, 2));
        (marker.time_s, marker.packet, label, marker.near.clone())
    });
    codecs.chain(spikes).chain(markers).collect()
}

/// "300 packets, lost 0.0 %, p99 1.7 ms, MOS 4.4".
fn figures(stream: &StreamReport) -> String {
    let bound = if stream.loss_is_upper_bound { "≤" } else { "" };
    let mut text = format!(
        "{}, lost {bound}{:.1} %",
        words::count(stream.unique.packets, "packet"),
        stream.unique.lost_percent
    );
    if let Some(jitter) = &stream.jitter_percentiles_us {
        let _ = write!(text, ", p99 {} ms", words::ms(jitter.p99));
    }
    if let Some(mos) = &stream.mos {
        let _ = write!(text, ", MOS {:.1}", mos.value);
    }
    text
}

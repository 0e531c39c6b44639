//! What happened to a stream, and what happened in its call at that time: the parts of the report in which both meet.
//!
//! Streams live in shards and calls on the receive thread, so they are joined when the report is made: by Call-ID, and, for
//! what a stream's own call does not explain, by the other leg of the same media.

use std::collections::hash_map::Entry;
use std::sync::Arc;

use rustc_hash::FxHashMap;
use serde::Serialize;

use super::contract::StreamReport;
use super::forensics::{Explanation, Meanwhile, SignallingMoment, Told, changes_media};
use super::holes::Holes;
use super::related::Namesakes;
use crate::packet::{Endpoint, Nanos};
use crate::pipeline::times::Silence;
use crate::rtp::incidents::{MarkerRestart, Spike};
use crate::rtp::quality::CodecChange;
use crate::rtp::unique::Interruption;
use crate::sip::CallReport;

/// A stream that begins so long after another ended may be the same conversation gone on.
const GOES_ON_S: f64 = 60.0;
/// The same with another SSRC and another endpoint: only within a call, and at once.
const MOVES_S: f64 = 10.0;
/// What overlaps by more than this are two streams at one time, as BUNDLE has them.
const OVERLAP_S: f64 = 0.5;
/// Streams that ended lately, of one pair of endpoints or one SSRC, that are looked at: more is a flood.
const LOOKED_AT: usize = 8;

/// A pause or a timestamp jump, and what the signalling did at its ends.
#[derive(Clone, Debug, Serialize)]
pub struct InterruptionReport {
    /// "gap", "timestamp_jump", or "restart".
    pub kind: &'static str,
    /// When it ended: seconds from the start of the capture.
    pub time_s: f64,
    /// The interruption.
    #[serde(flatten)]
    pub gap: Interruption,
    /// By how much timestamp and time parted company across it, in seconds.
    pub jump_s: Option<f64>,
    /// Why it was.
    #[serde(flatten)]
    pub explanation: Explanation,
}

impl InterruptionReport {
    /// Of an interruption that ended so many seconds after the start of the capture.
    pub fn new(gap: Interruption, time_s: f64) -> Self {
        let explanation = Explanation::new(&gap, Meanwhile::Ordinary, &[]);
        Self { kind: gap.kind(), time_s, gap, jump_s: gap.jump_s(), explanation }
    }

    /// All of it in a sentence.
    pub fn sentence(&self) -> String {
        self.explanation.sentence(&self.gap)
    }
}

/// The stream went on with another codec.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct CodecChangeReport {
    /// Seconds from the start of the capture.
    pub time_s: f64,
    /// Where.
    #[serde(flatten)]
    pub change: CodecChange,
    /// Name of the codec before, if known.
    pub from_codec: Option<String>,
    /// And after.
    pub to_codec: Option<String>,
    /// What the signalling did then.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub near: Option<SignallingMoment>,
}

/// Packets that came much later than the quickest ones.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct SpikeReport {
    /// Seconds from the start of the capture to the first of them.
    pub time_s: f64,
    /// Its frame.
    pub packet: u64,
    /// To the last of them.
    pub until_s: f64,
    /// The greatest delay over the quickest packet.
    pub worst_ms: f64,
    /// How many were late by 60 ms or more.
    pub packets: u64,
    /// The delay came from one packet to the next and stayed: a sender that paused without counting it, or a longer way.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub is_step: bool,
    /// What the signalling did when it began.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub near: Option<SignallingMoment>,
    #[serde(skip)]
    at: Nanos,
}

/// A marker from which on timestamps stand otherwise to time: another source took over.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct MarkerReport {
    /// Seconds from the start of the capture.
    pub time_s: f64,
    /// Its frame.
    pub packet: u64,
    /// By how much timestamp and time parted company.
    pub jump_s: f64,
    /// What the signalling did then.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub near: Option<SignallingMoment>,
    #[serde(skip)]
    at: Nanos,
}

impl SpikeReport {
    /// Of a spike in a stream for whose times `time_s` counts seconds.
    pub(super) fn new(spike: Spike, time_s: impl Fn(Nanos) -> f64) -> Self {
        Self {
            time_s: time_s(spike.at),
            packet: spike.packet,
            until_s: time_s(spike.until),
            worst_ms: spike.worst_ms,
            packets: spike.packets,
            is_step: spike.is_step(),
            near: None,
            at: spike.at,
        }
    }
}

impl MarkerReport {
    /// Of a marker in a stream for whose times `time_s` counts seconds.
    pub(super) fn new(restart: MarkerRestart, time_s: impl Fn(Nanos) -> f64) -> Self {
        let MarkerRestart { at, packet, jump_s } = restart;
        Self { time_s: time_s(at), packet, jump_s, near: None, at }
    }
}

/// How a stream goes on with what another began.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Continuation {
    /// Between the same endpoints under another SSRC.
    SsrcChanged,
    /// Under the same SSRC to or from another endpoint.
    Moved,
}

/// The stream that this one goes on from: one conversation, two streams.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Predecessor {
    /// How.
    pub how: Continuation,
    /// Its sender.
    pub src: Endpoint,
    /// Its receiver.
    pub dst: Endpoint,
    /// `0x%08x`.
    pub ssrc: String,
    /// From its last packet to the first of this one.
    pub gap_ms: f64,
    /// What the signalling did when this one began.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub near: Option<SignallingMoment>,
}

impl Predecessor {
    /// "SSRC changed from 0x11111111, 4 ms after re-INVITE", "goes on from 10.0.0.1:4000 → 10.0.0.2:5000".
    pub fn sentence(&self) -> String {
        let what = match self.how {
            Continuation::SsrcChanged => format!("SSRC changed from {}", self.ssrc),
            Continuation::Moved => format!("moved here from {} → {}", self.src, self.dst),
        };
        match &self.near {
            Some(moment) => format!("{what}, {}", moment.phrase()),
            None => what,
        }
    }
}

/// What the calls have to say to the streams.
pub(super) struct Moments<'a> {
    calls: &'a [CallReport],
    namesakes: &'a Namesakes,
}

impl<'a> Moments<'a> {
    /// Of all calls of a report.
    pub(super) fn of(calls: &'a [CallReport], namesakes: &'a Namesakes) -> Self {
        Self { calls, namesakes }
    }

    /// Joins every stream to the moments of its call, and of the calls of its other legs. `is_doubted`: the probe itself lost
    /// frames. In `silences` no frame of any kind was captured.
    pub(super) fn join(&self, streams: &mut [StreamReport], is_doubted: bool, silences: &[Silence]) {
        let holes = Holes::of(streams, silences);
        let predecessors = predecessors(streams);
        let of_legs = self.calls_of_legs(streams);
        for ((stream, predecessor), others) in streams.iter_mut().zip(predecessors).zip(of_legs) {
            let told = self.told(stream, &others);
            let near = |at| SignallingMoment::nearest(at, &told, changes_media);
            stream.continues =
                predecessor.map(|found| Predecessor { near: near(stream.first_seen()), ..found });
            let flow = stream.identity.key.flow;
            let is_fax =
                |gap: &Interruption| self.own_calls(stream).any(|call| call.media.is_fax_during(gap));
            let meanwhile = |gap: &Interruption| {
                if is_doubted || !stream.shed.is_empty() {
                    Meanwhile::ProbeLost
                } else if gap.is_silence() && is_fax(gap) {
                    Meanwhile::Fax
                } else if holes.are_of_the_capture(gap, flow) {
                    Meanwhile::NothingCaptured
                } else {
                    Meanwhile::Ordinary
                }
            };
            let explain =
                |found: &InterruptionReport| Explanation::new(&found.gap, meanwhile(&found.gap), &told);
            let explanations: Vec<_> = stream.interruptions.iter().map(explain).collect();
            for (found, explanation) in stream.interruptions.iter_mut().zip(explanations) {
                found.explanation = explanation;
            }
            stream.excuse();
            stream.codec_changes.iter_mut().for_each(|change| change.near = near(change.change.at));
            stream.jitter_spikes.iter_mut().for_each(|spike| spike.near = near(spike.at));
            stream.marker_restarts.iter_mut().for_each(|marker| marker.near = near(marker.at));
        }
    }

    /// The calls with this Call-ID that a stream is heard in.
    fn heard_in(
        &self,
        stream: &StreamReport,
        call_id: &str,
    ) -> impl Iterator<Item = &'a CallReport> + use<'a> {
        let calls = self.calls;
        let heard_in = self.namesakes.heard_in(call_id, stream.first_seen(), stream.identity.last_seen);
        heard_in.filter_map(|at| calls.get(at))
    }

    fn own_calls(&self, stream: &StreamReport) -> impl Iterator<Item = &'a CallReport> {
        stream.call_id.as_deref().into_iter().flat_map(|call_id| self.heard_in(stream, call_id))
    }

    /// The moments of the calls that a stream is heard in, and of its other legs' calls at the time.
    fn told(&self, stream: &StreamReport, others: &[Arc<str>]) -> Vec<Told> {
        let calls = |call_id: &str| self.heard_in(stream, call_id);
        let own = self.own_calls(stream).flat_map(|call| &call.moments);
        let own = own.map(|moment| Told::own(*moment));
        let others = others.iter().flat_map(|id| calls(id)).flat_map(|call| {
            let of_call = || Some(Arc::clone(&call.call_id));
            call.moments.iter().map(move |moment| Told { of_call: of_call(), moment: *moment })
        });
        own.chain(others).collect()
    }

    /// For each stream the calls of its other legs, without its own.
    fn calls_of_legs(&self, streams: &[StreamReport]) -> Vec<Vec<Arc<str>>> {
        let has_legs = |stream: &&StreamReport| !stream.legs.is_empty();
        if self.calls.is_empty() || !streams.iter().any(|stream| has_legs(&stream)) {
            return vec![Vec::new(); streams.len()];
        }
        let call_of: FxHashMap<_, _> = streams
            .iter()
            .filter(has_legs)
            .filter_map(|stream| Some(((stream.src, stream.dst, &*stream.ssrc), stream.call_id.as_ref()?)))
            .collect();
        let of = |stream: &StreamReport| {
            let mut others: Vec<Arc<str>> = Vec::new();
            for leg in &stream.legs {
                let Some(&call_id) = call_of.get(&(leg.src, leg.dst, &*stream.ssrc)) else { continue };
                if Some(call_id) != stream.call_id.as_ref() && !others.contains(call_id) {
                    others.push(Arc::clone(call_id));
                }
            }
            others
        };
        streams.iter().map(of).collect()
    }
}

/// What two streams have in common that may be one conversation.
#[derive(PartialEq, Eq, Hash)]
enum Common<'a> {
    Flow(Endpoint, Endpoint),
    Ssrc(&'a str),
    /// A call, and the sender's endpoint in it or the receiver's.
    Sender(&'a str, Endpoint),
    Receiver(&'a str, Endpoint),
}

impl<'a> Common<'a> {
    fn of(stream: &'a StreamReport) -> Vec<Self> {
        let mut common = vec![Self::Flow(stream.src, stream.dst), Self::Ssrc(&stream.ssrc)];
        if let Some(call_id) = &stream.call_id {
            common.extend([Self::Sender(call_id, stream.src), Self::Receiver(call_id, stream.dst)]);
        }
        common
    }

    /// How `after` goes on from `before`, which have this in common, if it does.
    fn continuation(&self, before: &StreamReport, after: &StreamReport) -> Option<Continuation> {
        let apart_s = after.start_s - before.end_s;
        let one_end = (before.src == after.src) != (before.dst == after.dst);
        let (how, within_s, holds) = match self {
            Self::Flow(..) => (Continuation::SsrcChanged, GOES_ON_S, before.ssrc != after.ssrc),
            // Both ends at once are another stream of a sender that is short of numbers.
            Self::Ssrc(_) => (Continuation::Moved, GOES_ON_S, one_end),
            Self::Sender(..) | Self::Receiver(..) => (Continuation::Moved, MOVES_S, one_end),
        };
        (holds && (-OVERLAP_S..=within_s).contains(&apart_s)).then_some(how)
    }
}

/// For each stream the one that it goes on from, if any.
fn predecessors(streams: &[StreamReport]) -> Vec<Option<Predecessor>> {
    let mut known: FxHashMap<Common<'_>, Vec<&StreamReport>> = FxHashMap::default();
    let mut order: Vec<(usize, &StreamReport)> = streams.iter().enumerate().collect();
    order.sort_by(|(_, a), (_, b)| a.start_s.total_cmp(&b.start_s));
    let mut found = vec![None; streams.len()];
    for (at, stream) in order {
        let mut best: Option<(&StreamReport, Continuation)> = None;
        for common in Common::of(stream) {
            let before = known.entry(common);
            let common = before.key();
            let continued: Vec<_> = match &before {
                Entry::Occupied(before) => before
                    .get()
                    .iter()
                    .filter_map(|before| Some((*before, common.continuation(before, stream)?)))
                    .collect(),
                Entry::Vacant(_) => Vec::new(),
            };
            let is_later = |(before, _): &(&StreamReport, _)| {
                best.as_ref().is_none_or(|(best, _)| before.end_s > best.end_s)
            };
            best = continued
                .into_iter()
                .filter(is_later)
                .max_by(|(a, _), (b, _)| a.end_s.total_cmp(&b.end_s))
                .or(best);
            let list = before.or_default();
            if list.len() == LOOKED_AT {
                list.remove(0);
            }
            list.push(stream);
        }
        if let (Some((before, how)), Some(slot)) = (best, found.get_mut(at)) {
            *slot = Some(Predecessor {
                how,
                src: before.src,
                dst: before.dst,
                ssrc: before.ssrc.clone(),
                gap_ms: (stream.start_s - before.end_s) * 1e3,
                near: None,
            });
        }
    }
    found
}

#[cfg(test)]
#[path = "troubles_tests.rs"]
mod tests;

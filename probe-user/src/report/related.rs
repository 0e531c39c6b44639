//! Which calls belong together, beyond what the signalling says, and which only seem to.
//!
//! Two sides of one conversation are told by their media: a B2BUA that passes it on as it is gives its other call another
//! Call-ID, other tags and other addresses, but not another SSRC and payload. Two calls under one Call-ID, of a user agent
//! that begins to count anew, are told apart by time.

use std::sync::Arc;

use rustc_hash::FxHashMap;

use super::contract::{CallWithStreams, StreamReport};
use super::words;
use crate::packet::Nanos;
use crate::rtp::legs::Relation as LegRelation;
use crate::sip::CallReport;
use crate::sip::report::{Related, Relation};

/// Calls that one is related to; a conference bridge that only relays has no more parties.
const MAX_RELATED: usize = 16;

/// Calls of one Call-ID that a stream or a message is looked for in; more at one time is a flood.
const MAX_HEARD_IN: usize = 16;

/// Calls by Call-ID, which several may bear one after the other: when each of them began, and its place among all calls.
pub(super) struct Namesakes(FxHashMap<Arc<str>, Vec<(Nanos, usize)>>);

impl Namesakes {
    /// Of all calls.
    pub(super) fn of<'a>(calls: impl IntoIterator<Item = &'a CallReport>) -> Self {
        let mut begins: FxHashMap<Arc<str>, Vec<(Nanos, usize)>> = FxHashMap::default();
        for (at, call) in calls.into_iter().enumerate() {
            begins.entry(Arc::clone(&call.call_id)).or_default().push((call.began, at));
        }
        for begins in begins.values_mut() {
            begins.sort_unstable();
        }
        Self(begins)
    }

    /// The places of the calls that what bears their Call-ID from `first` to `last` belongs to: the one that was the latest at
    /// `first`, and those that began meanwhile, at most 16. What is from before all of them is the first one's.
    pub(super) fn heard_in<'a>(
        &'a self,
        call_id: &str,
        first: Nanos,
        last: Nanos,
    ) -> impl Iterator<Item = usize> + use<'a> {
        let begins = self.0.get(call_id).map_or(&[][..], Vec::as_slice);
        let latest = latest(begins, first).unwrap_or(first);
        let from = begins.partition_point(|(began, _)| *began < latest);
        let until = begins.partition_point(|(began, _)| *began <= last.max(latest));
        let heard = begins.get(from..until).unwrap_or_default();
        heard.iter().take(MAX_HEARD_IN).map(|(_, at)| *at)
    }

    /// Does what bears this call's Call-ID at `time` belong to it?
    pub(super) fn is_of(&self, call: &CallReport, time: Nanos) -> bool {
        self.0.get(&call.call_id).and_then(|begins| latest(begins, time)) == Some(call.began)
    }
}

/// When the latest call began at `time`, or the first after it.
fn latest(begins: &[(Nanos, usize)], time: Nanos) -> Option<Nanos> {
    let begun = begins.partition_point(|(began, _)| *began <= time);
    begins.get(begun.saturating_sub(1)).map(|(began, _)| *began)
}

/// Joins calls whose streams are legs of each other.
pub(super) fn join_legs(calls: &mut [CallWithStreams], streams: &[StreamReport]) {
    let is_passed_on = |relation| matches!(relation, LegRelation::Nat | LegRelation::Relay);
    if calls.len() < 2 || streams.iter().all(|stream| stream.legs.is_empty()) {
        return;
    }
    let stream_of: FxHashMap<_, _> =
        streams.iter().map(|stream| ((stream.src, stream.dst, &*stream.ssrc), stream)).collect();
    let at: FxHashMap<Arc<str>, usize> =
        calls.iter().zip(0..).map(|(call, at)| (Arc::clone(&call.call.call_id), at)).collect();
    for stream in streams {
        for leg in stream.legs.iter().filter(|leg| is_passed_on(leg.relation)) {
            let other = stream_of.get(&(leg.src, leg.dst, &*stream.ssrc));
            let Some((own, other)) =
                stream.call_id.as_ref().zip(other.and_then(|other| other.call_id.as_ref()))
            else {
                continue;
            };
            let call = at.get(own).and_then(|at| calls.get_mut(*at)).filter(|_| own != other);
            let Some(related) = call.map(|call| &mut call.call.related) else { continue };
            if related.len() < MAX_RELATED && related.iter().all(|known| known.call_id != *other) {
                let delay = words::delay(leg.delay_ms.p50.abs() * 1e3);
                let side = if leg.delay_ms.p50 < 0.0 { "earlier" } else { "later" };
                related.push(Related {
                    call_id: Arc::clone(other),
                    relation: Relation::B2buaLeg,
                    because: format!("same SSRC and payload on both sides, {delay} {side} there").into(),
                });
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::contract::testing::{call, stream};
    use super::*;
    use crate::rtp::legs::{Delay, LegReport};

    /// Two streams of one SSRC, each the other's leg, in these calls.
    fn legs(relation: LegRelation, ids: [Option<&str>; 2]) -> Vec<StreamReport> {
        let mut streams = vec![stream(), stream()];
        (streams[1].src.port, streams[1].dst.port) = (4_002, 5_002);
        let ends: Vec<_> = streams.iter().map(|stream| (stream.src, stream.dst)).collect();
        for (((stream, id), (src, dst)), ms) in
            streams.iter_mut().zip(ids).zip(ends.into_iter().rev()).zip([0.4, -0.4])
        {
            stream.call_id = id.map(Arc::from);
            let delay_ms = Delay { min: ms, p50: ms, max: ms };
            stream.legs =
                vec![LegReport { src, dst, relation, matched_percent: 100.0, delay_ms, compared: 16 }];
        }
        streams
    }

    fn related(streams: &[StreamReport]) -> Vec<Vec<(String, String)>> {
        let mut calls = vec![call("phone-side"), call("trunk-side")];
        join_legs(&mut calls, streams);
        let of = |call: CallWithStreams| {
            call.call
                .related
                .into_iter()
                .map(|other| (other.call_id.to_string(), other.because.to_string()))
                .collect()
        };
        calls.into_iter().map(of).collect()
    }

    #[test]
    fn calls_that_share_their_media_are_legs_of_each_other() {
        let found = related(&legs(LegRelation::Relay, [Some("phone-side"), Some("trunk-side")]));
        let because = |side| format!("same SSRC and payload on both sides, 400 us {side} there");
        assert_eq!(
            found,
            [
                vec![("trunk-side".to_owned(), because("later"))],
                vec![("phone-side".to_owned(), because("earlier"))]
            ]
        );
    }

    #[test]
    fn calls_under_one_call_id_are_told_apart_by_time() {
        let began = |s: u64| CallReport { began: Nanos(s * 1_000_000_000), ..call("again").call };
        let calls = [began(10), began(20), call("other").call];
        let namesakes = Namesakes::of(&calls);
        let heard = |call_id, from: u64, to: u64| {
            let [first, last] = [from, to].map(|s| Nanos(s * 1_000_000_000));
            namesakes.heard_in(call_id, first, last).collect::<Vec<_>>()
        };
        let owner = |s: u64| heard("again", s, s);
        assert_eq!([5, 10, 19, 20, 99].map(owner), [[0], [0], [0], [1], [1]]);
        assert_eq!(
            [heard("other", 0, 0), heard("other", 9, 99), heard("nobody's", 0, 99)],
            [vec![2], vec![2], vec![]]
        );
        assert_eq!(
            [heard("again", 1, 5), heard("again", 11, 15), heard("again", 11, 25), heard("again", 21, 25)],
            [vec![0], vec![0], vec![0, 1], vec![1]]
        );
    }

    #[test]
    fn a_stream_through_a_flood_of_calls_of_one_call_id_is_of_a_few_of_them() {
        let calls: Vec<_> =
            (0..1_000).map(|ms| CallReport { began: Nanos(ms * 1_000_000), ..call("again").call }).collect();
        let namesakes = Namesakes::of(&calls);
        let heard: Vec<_> = namesakes.heard_in("again", Nanos(500_000_000), Nanos(900_000_000)).collect();
        assert_eq!(heard, (500..516).collect::<Vec<_>>());
    }

    #[test]
    fn one_call_on_both_sides_of_a_nat_and_a_stream_sent_twice_on_purpose_are_no_legs() {
        let none = [Vec::new(), Vec::new()];
        assert_eq!(related(&legs(LegRelation::Nat, [Some("phone-side"), Some("phone-side")])), none);
        assert_eq!(related(&legs(LegRelation::Redundant, [Some("phone-side"), Some("trunk-side")])), none);
        assert_eq!(related(&legs(LegRelation::Relay, [Some("phone-side"), None])), none);
    }
}

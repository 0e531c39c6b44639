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

/// Calls that bear one Call-ID one after the other: when each of them began.
pub(super) struct Namesakes(FxHashMap<Arc<str>, Vec<Nanos>>);

impl Namesakes {
    /// Of all calls, in the order in which they began.
    pub(super) fn of<'a>(calls: impl IntoIterator<Item = &'a CallReport>) -> Self {
        let mut begins: FxHashMap<Arc<str>, Vec<Nanos>> = FxHashMap::default();
        for call in calls {
            begins.entry(Arc::clone(&call.call_id)).or_default().push(call.began);
        }
        begins.retain(|_, begins| begins.len() > 1);
        Self(begins)
    }

    /// Does a stream that bears this call's Call-ID and was heard from `first` to `last` belong to it? One that is heard in
    /// several belongs to all of them.
    pub(super) fn has_heard(&self, call: &CallReport, first: Nanos, last: Nanos) -> bool {
        self.is_of(call, first) || (first..=last).contains(&call.began)
    }

    /// Does what bears this call's Call-ID at `time` belong to it? What is from before all of them is the first one's.
    pub(super) fn is_of(&self, call: &CallReport, time: Nanos) -> bool {
        let Some(begins) = self.0.get(&call.call_id) else { return true };
        let last = begins.iter().rev().find(|began| **began <= time).or_else(|| begins.first());
        last == Some(&call.began)
    }
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
        let owner = |s: u64| {
            calls.iter().take(2).position(|call| namesakes.is_of(call, Nanos(s * 1_000_000_000))).unwrap()
        };
        assert_eq!([5, 10, 19, 20, 99].map(owner), [0, 0, 0, 1, 1]);
        assert!(namesakes.is_of(&calls[2], Nanos(0)));
        let heard = |from: u64, to: u64| {
            let times = [from, to].map(|s| Nanos(s * 1_000_000_000));
            [0, 1].map(|at| namesakes.has_heard(&calls[at], times[0], times[1]))
        };
        assert_eq!(
            [heard(11, 15), heard(11, 25), heard(21, 25)],
            [[true, false], [true, true], [false, true]]
        );
    }

    #[test]
    fn one_call_on_both_sides_of_a_nat_and_a_stream_sent_twice_on_purpose_are_no_legs() {
        let none = [Vec::new(), Vec::new()];
        assert_eq!(related(&legs(LegRelation::Nat, [Some("phone-side"), Some("phone-side")])), none);
        assert_eq!(related(&legs(LegRelation::Redundant, [Some("phone-side"), Some("trunk-side")])), none);
        assert_eq!(related(&legs(LegRelation::Relay, [Some("phone-side"), None])), none);
    }
}

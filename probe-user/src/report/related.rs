//! Calls that are two sides of one conversation, told by their media: a B2BUA that passes media on as it is gives its
//! other call another Call-ID, other tags and other addresses, but not another SSRC and payload.

use std::sync::Arc;

use rustc_hash::FxHashMap;

use super::contract::{CallWithStreams, StreamReport};
use super::words;
use crate::rtp::legs::Relation as LegRelation;
use crate::sip::report::{Related, Relation};

/// Calls that one is related to; a conference bridge that only relays has no more parties.
const MAX_RELATED: usize = 16;

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
    fn one_call_on_both_sides_of_a_nat_and_a_stream_sent_twice_on_purpose_are_no_legs() {
        let none = [Vec::new(), Vec::new()];
        assert_eq!(related(&legs(LegRelation::Nat, [Some("phone-side"), Some("phone-side")])), none);
        assert_eq!(related(&legs(LegRelation::Redundant, [Some("phone-side"), Some("trunk-side")])), none);
        assert_eq!(related(&legs(LegRelation::Relay, [Some("phone-side"), None])), none);
    }
}

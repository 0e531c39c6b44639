//! Calls and their media side by side: which stream is whose and by what, why one is without the other, and what does not
//! fit together.
//!
//! ```text
//!   calls: lines with an address, agreements ─▶ Places ─┬▶ linked   streams: linked_by, shared_with, or why there is no call
//!   streams: from, to, when ─────────────────────────────┼▶ absent   calls: why there is no media
//!                                                        └▶ judged   calls: one-way audio, media after BYE, NAT, …
//! ```
//!
//! A stream's call is decided packet by packet, where the packet is received (`sip::media`). Here, with everything seen,
//! the rest is told: other calls that announced the same endpoint meanwhile, as the two calls of one B2BUA do, have the
//! stream as well; and a stream at addresses that nobody announced is a call's if it is the same media as one of its
//! streams, on the other side of a NAT or a relay, or has an SSRC that one call alone announced (RFC 5576).

mod absent;
mod judged;
mod linked;

use std::sync::Arc;

use rustc_hash::{FxHashMap, FxHashSet};
use serde::Serialize;

use super::contract::{CallWithStreams, CaptureReport, StreamReport};
use super::problems::ByCall;
use crate::packet::{Endpoint, MediaId, Nanos};
use crate::sip::calls::What;
use crate::sip::{CallLine, CallReport, CapturedReport, SignallingReport};

pub(super) use self::judged::Facts;

/// Something about a call's media that its signalling does not lead to expect.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct CallFinding {
    /// Stable identifier: "one-way-audio", "no-media", "media-after-bye", …
    pub id: &'static str,
    /// What was seen, in a sentence.
    pub text: String,
}

/// By what an endpoint belongs to a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum By {
    Media,
    Candidate,
    Rtcp,
}

/// A line of a call, at an endpoint of its own.
#[derive(Clone, Copy)]
struct Place<'a> {
    call: &'a CallReport,
    line: &'a CallLine,
}

impl Place<'_> {
    /// Was it announced, and its call not over, at some time between these two?
    fn is_meanwhile(&self, first: Nanos, last: Nanos) -> bool {
        let end = self.line.ended.or_else(|| end_of(self.call).map(|(time, _)| time));
        self.line.info.announced_time <= last && end.is_none_or(|end| end >= first)
    }
}

/// Which endpoints were announced, by whom.
struct Places<'a> {
    /// In the order in which they were announced.
    by_endpoint: FxHashMap<(Endpoint, By), Vec<Place<'a>>>,
    /// By what an endpoint is a call's own: as that of media, if it is that of media and of something else.
    own: FxHashMap<(Endpoint, &'a str), By>,
    /// An endpoint and its call by address alone, for a hint.
    by_address: FxHashMap<[u8; 16], (Endpoint, &'a CallReport)>,
}

impl<'a> Places<'a> {
    fn of(calls: impl Iterator<Item = &'a CallReport>) -> Self {
        let mut places = Self {
            by_endpoint: FxHashMap::default(),
            own: FxHashMap::default(),
            by_address: FxHashMap::default(),
        };
        for call in calls {
            for line in &call.media.lines {
                let mut add = |endpoint, by| {
                    places.by_endpoint.entry((endpoint, by)).or_default().push(Place { call, line });
                    let known = places.own.entry((endpoint, &*call.call_id)).or_insert(by);
                    if by == By::Media {
                        *known = by;
                    }
                };
                add(line.info.endpoint, By::Media);
                line.info.rtcp.into_iter().for_each(|rtcp| add(rtcp, By::Rtcp));
                line.info.candidates.iter().for_each(|candidate| add(candidate.endpoint, By::Candidate));
                places.by_address.insert(line.info.endpoint.address, (line.info.endpoint, call));
            }
        }
        for places in places.by_endpoint.values_mut() {
            places.sort_by_key(|place| place.line.info.announced_time);
        }
        places
    }

    fn at(&self, endpoint: Endpoint, by: By) -> &[Place<'a>] {
        self.by_endpoint.get(&(endpoint, by)).map_or(&[], Vec::as_slice)
    }

    /// Of those at an endpoint by `by`, the ones announced up to a time, and those announced later.
    fn until(&self, endpoint: Endpoint, by: By, time: Nanos) -> (&[Place<'a>], &[Place<'a>]) {
        let places = self.at(endpoint, by);
        places.split_at(places.partition_point(|place| place.line.info.announced_time <= time))
    }
}

/// Between which endpoints there were streams, and whose.
#[derive(Default)]
struct Carried<'a> {
    by_endpoint: FxHashMap<Endpoint, Option<&'a Arc<str>>>,
    addresses: FxHashSet<[u8; 16]>,
    /// Some stream has its other direction in the capture.
    has_both_ways: bool,
}

impl<'a> Carried<'a> {
    fn of(streams: &'a [StreamReport]) -> Self {
        let mut carried = Self::default();
        let flows: FxHashSet<_> = streams.iter().map(|stream| (stream.src, stream.dst)).collect();
        for stream in streams {
            for endpoint in [stream.src, stream.dst] {
                carried.by_endpoint.insert(endpoint, stream.call_id.as_ref());
                carried.addresses.insert(endpoint.address);
            }
            carried.has_both_ways |= flows.contains(&(stream.dst, stream.src));
        }
        carried
    }
}

/// Says of each stream by what it belongs to its call, or why it has none.
pub(super) fn link(streams: &mut [StreamReport], signalling: &SignallingReport, capture: &CaptureReport) {
    linked::link(streams, signalling, capture);
}

/// Says of each call what its media does, or why there is none.
pub(super) fn judge(
    calls: &mut [CallWithStreams],
    streams: &[StreamReport],
    capture: &CaptureReport,
    captured: CapturedReport,
) {
    let carried = Carried::of(streams);
    let by_call = ByCall::of(streams);
    for call in calls {
        call.fax_packets = fax_packets(&call.call, capture);
        let left_out = capture.why_left_out(call.call.began, call.call.last_seen);
        let its: Vec<_> = by_call.streams_of(call).into_iter().map(Facts::of).collect();
        if its.is_empty() && call.fax_packets == 0 {
            let because = absent::because(&call.call, &carried, left_out, captured);
            call.media_absent_because = Some(because);
        }
        // Where nobody's media was captured, signalling is all that was asked for.
        let absent_because = call.media_absent_because.as_deref().filter(|_| !streams.is_empty());
        let seen =
            judged::Seen { absent_because, has_both_ways: carried.has_both_ways, is_all: left_out.is_none() };
        call.media_findings = judged::findings(&call.call, &its, seen);
    }
}

fn fax_packets(call: &CallReport, capture: &CaptureReport) -> u64 {
    let count = |id: MediaId| capture.beside.fax.get(&id).copied().unwrap_or(0);
    if call.media.has_fax() { call.media.ids().map(count).sum() } else { 0 }
}

/// When a call ended, and by what, as far as was seen.
fn end_of(call: &CallReport) -> Option<(Nanos, What)> {
    let ends = |what: What| matches!(what, What::Bye | What::Cancel | What::Failure(_) | What::LostSight);
    let last = call.moments.iter().rfind(|moment| ends(moment.what));
    last.filter(|_| call.state.is_over()).map(|moment| (moment.time, moment.what))
}

/// When it was answered.
fn answer_of(call: &CallReport) -> Option<Nanos> {
    call.moments.iter().find(|moment| moment.what == What::Answer).map(|moment| moment.time)
}

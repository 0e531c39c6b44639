//! Which stream is whose, by what, and why some are nobody's.

use std::sync::Arc;

use probe_ebpf::Verdict;
use rustc_hash::FxHashMap;

use super::{By, Place, Places};
use crate::packet::Endpoint;
use crate::report::contract::{CaptureReport, StreamReport};
use crate::report::words;
use crate::rtp::legs::Relation;
use crate::sip::SignallingReport;

pub(super) fn link(streams: &mut [StreamReport], signalling: &SignallingReport, capture: &CaptureReport) {
    let places = Places::of(signalling.calls.iter());
    let mut calls_of_ssrc: FxHashMap<u32, Vec<&Arc<str>>> = FxHashMap::default();
    for call in &signalling.calls {
        for ssrc in call.media.lines.iter().flat_map(|line| &line.info.ssrcs) {
            let calls = calls_of_ssrc.entry(*ssrc).or_default();
            if !calls.contains(&&call.call_id) {
                calls.push(&call.call_id);
            }
        }
    }
    let by_flow: FxHashMap<(Endpoint, Endpoint), Arc<str>> = streams
        .iter()
        .filter_map(|stream| Some(((stream.src, stream.dst), Arc::clone(stream.call_id.as_ref()?))))
        .collect();
    let because = Because { places: &places, signalling, capture };
    for stream in streams {
        if let Some(call_id) = stream.call_id.clone() {
            stream.linked_by = Some(linked_by(&places, stream, &call_id));
            stream.shared_with = shared_with(&places, stream, &call_id);
            continue;
        }
        let same_media = || {
            let mut passed_on = stream.legs.iter().filter(|leg| leg.relation != Relation::Redundant);
            passed_on.find_map(|leg| by_flow.get(&(leg.src, leg.dst)).cloned())
        };
        let announced_ssrc = || match calls_of_ssrc.get(&stream.identity.key.ssrc).map(Vec::as_slice) {
            Some([call_id]) => Some(Arc::clone(call_id)),
            _ => None,
        };
        let found = same_media().map(|call_id| (call_id, "same-media"));
        match found.or_else(|| announced_ssrc().map(|call_id| (call_id, "ssrc"))) {
            Some((call_id, by)) => {
                (stream.call_id, stream.linked_by) = (Some(call_id), Some(by));
                stream.call_absent_because = None;
            }
            None => stream.call_absent_because = Some(because.of(stream)),
        }
    }
}

/// By what a packet of the stream was found to be the call's.
fn linked_by(places: &Places<'_>, stream: &StreamReport, call_id: &Arc<str>) -> &'static str {
    let at = |endpoint| {
        let mut own = places.at(endpoint).iter().filter(|place| place.call.call_id == *call_id);
        own.clone().find(|place| place.by == By::Media).or_else(|| own.next()).map(|place| place.by)
    };
    match (at(stream.dst), at(stream.src)) {
        (Some(By::Media), _) => "destination",
        (Some(By::Candidate), _) | (None, Some(By::Candidate)) => "ice-candidate",
        (Some(By::Rtcp), _) | (None, Some(By::Rtcp)) => "rtcp",
        (None, Some(By::Media)) => "source",
        // Neither was announced: it goes where somebody who sends to the call comes from.
        (None, None) => "symmetric-rtp",
    }
}

/// Other calls that wanted media at the same endpoint at the time.
fn shared_with(places: &Places<'_>, stream: &StreamReport, call_id: &Arc<str>) -> Vec<Arc<str>> {
    /// A flood of calls may announce one endpoint.
    const MAX_SHARED: usize = 8;
    let others = |endpoint| {
        places.at(endpoint).iter().filter(|place| {
            let (first, last) = (stream.identity.first_seen, stream.identity.last_seen);
            place.by == By::Media && place.call.call_id != *call_id && place.is_meanwhile(first, last)
        })
    };
    let mut found: Vec<Arc<str>> = Vec::new();
    let is_to_an_announced = places.at(stream.dst).iter().any(|place| place.by == By::Media);
    for place in others(if is_to_an_announced { stream.dst } else { stream.src }) {
        if found.len() < MAX_SHARED && !found.contains(&place.call.call_id) {
            found.push(Arc::clone(&place.call.call_id));
        }
    }
    found
}

/// What there is to explain by.
struct Because<'a> {
    places: &'a Places<'a>,
    signalling: &'a SignallingReport,
    capture: &'a CaptureReport,
}

impl Because<'_> {
    /// Why a stream has no call.
    fn of(&self, stream: &StreamReport) -> String {
        let sip = &self.signalling.sip;
        let tls = self.capture.verdicts.get(Verdict::SipTls.name()).copied().unwrap_or(0);
        let encrypted = || format!("signalling is encrypted ({} of TLS)", words::count(tls, "frame"));
        if sip.messages == 0 && sip.captured.cut > 0 {
            return format!("no whole SIP message in the capture: {}", words::cut(sip.captured));
        }
        if sip.messages == 0 {
            return if tls > 0 { encrypted() } else { "no SIP in the capture".to_owned() };
        }
        let announced: Vec<_> = [stream.dst, stream.src]
            .into_iter()
            .flat_map(|endpoint| self.places.at(endpoint).iter().map(move |place| (endpoint, place)))
            .filter(|(_, place)| place.by != By::Rtcp)
            .collect();
        if let Some(reason) = at_another_time(stream, &announced) {
            return reason;
        }
        let has_no_sdp = || self.signalling.calls.iter().all(|call| call.media.descriptions == 0);
        let mut reason = if has_no_sdp() && sip.captured.cut > 0 {
            format!("no SDP is left in the capture: {}", words::cut(sip.captured))
        } else if has_no_sdp() {
            format!(
                "no SDP in the capture: {}, none with a description",
                words::count(sip.messages, "message")
            )
        } else {
            let near = [stream.src, stream.dst]
                .iter()
                .find_map(|endpoint| self.places.by_address.get(&endpoint.address));
            let near = near.map_or_else(String::new, |(endpoint, call)| {
                format!("; call {} announced {endpoint}, of the same host", short(&call.call_id))
            });
            format!("no SDP announced {} or {}{near}", stream.src, stream.dst)
        };
        let given_up = self.signalling.given_up;
        let lines = given_up.media_lines + given_up.ended_calls + given_up.live_calls;
        if lines > 0 {
            reason.push_str("; announcements had to make room for others, and it may have been one of them");
        } else if tls > 0 {
            reason = format!("{reason}; other {}", encrypted());
        }
        reason
    }
}

/// Its endpoints were announced, but not while it lasted.
fn at_another_time(stream: &StreamReport, announced: &[(Endpoint, &Place<'_>)]) -> Option<String> {
    let (first, last) = (stream.identity.first_seen, stream.identity.last_seen);
    let later = announced.iter().filter(|(_, place)| place.line.info.announced_time > last);
    if let Some((endpoint, place)) = later.min_by_key(|(_, place)| place.line.info.announced_time) {
        return Some(format!(
            "{endpoint} was announced, but the SDP of call {} (frame {}) came {:.1} s after the last packet",
            short(&place.call.call_id),
            place.line.info.announced_at,
            place.line.info.announced_time.since(last) as f64 / 1e9,
        ));
    }
    let (endpoint, place) = announced.last()?;
    let end = place.line.ended.or_else(|| super::end_of(place.call).map(|(time, _)| time));
    Some(match end.filter(|end| *end < first) {
        Some(end) => format!(
            "{endpoint} was announced, but call {} had given it up {:.1} s before the first packet",
            short(&place.call.call_id),
            first.since(end) as f64 / 1e9
        ),
        None => format!(
            "{endpoint} was announced by call {}, but no packet came while it was known",
            short(&place.call.call_id)
        ),
    })
}

fn short(call_id: &str) -> String {
    words::printable(words::short_call_id(call_id))
}

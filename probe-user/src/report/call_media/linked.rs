//! Which stream is whose, by what, and why some are nobody's.

use std::sync::Arc;

use probe_ebpf::Verdict;
use rustc_hash::FxHashMap;

use super::{By, Places};
use crate::packet::Endpoint;
use crate::report::contract::{CaptureReport, StreamReport};
use crate::report::words;
use crate::rtp::legs::Relation;
use crate::sip::SignallingReport;

pub(super) fn link(streams: &mut [StreamReport], signalling: &SignallingReport, capture: &CaptureReport) {
    let places = Places::of(signalling.calls.iter());
    // None where several calls announced it.
    let mut call_of_ssrc: FxHashMap<u32, Option<&Arc<str>>> = FxHashMap::default();
    for call in &signalling.calls {
        for ssrc in call.media.lines.iter().flat_map(|line| &line.info.ssrcs) {
            let known = call_of_ssrc.entry(*ssrc).or_insert(Some(&call.call_id));
            *known = known.filter(|call_id| **call_id == call.call_id);
        }
    }
    let by_flow: FxHashMap<(Endpoint, Endpoint), Arc<str>> = streams
        .iter()
        .filter_map(|stream| Some(((stream.src, stream.dst), Arc::clone(stream.call_id.as_ref()?))))
        .collect();
    let has_sdp = signalling.calls.iter().any(|call| call.media.descriptions > 0);
    let because = Because { places: &places, signalling, capture, has_sdp };
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
        let announced_ssrc =
            || call_of_ssrc.get(&stream.identity.key.ssrc).copied().flatten().map(Arc::clone);
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
    let at = |endpoint| places.own.get(&(endpoint, &**call_id)).copied();
    match (at(stream.dst), at(stream.src)) {
        (Some(By::Media), _) => "destination",
        (Some(By::Candidate), _) | (None, Some(By::Candidate)) => "ice-candidate",
        (Some(By::Rtcp), _) | (None, Some(By::Rtcp)) => "rtcp",
        (None, Some(By::Media)) => "source",
        // Neither was announced: it goes where somebody who sends to the call comes from.
        (None, None) => "symmetric-rtp",
    }
}

/// Other calls that wanted media at the same endpoint at the time, in the order in which they announced it. A port that many
/// more calls had since is no longer that of the earlier ones, even if their end was not seen.
fn shared_with(places: &Places<'_>, stream: &StreamReport, call_id: &Arc<str>) -> Vec<Arc<str>> {
    /// A flood of calls may announce one endpoint.
    const MAX_SHARED: usize = 8;
    const LOOKED_AT: usize = 64;
    let (first, last) = (stream.identity.first_seen, stream.identity.last_seen);
    let is_to_an_announced = !places.at(stream.dst, By::Media).is_empty();
    let endpoint = if is_to_an_announced { stream.dst } else { stream.src };
    let (announced, _) = places.until(endpoint, By::Media, last);
    let mut found: Vec<Arc<str>> = Vec::new();
    for place in announced.iter().rev().take(LOOKED_AT) {
        let other = &place.call.call_id;
        let is_new = other != call_id && !found.contains(other);
        if is_new && found.len() < MAX_SHARED && place.is_meanwhile(first, last) {
            found.push(Arc::clone(other));
        }
    }
    found.reverse();
    found
}

/// What there is to explain by.
struct Because<'a> {
    places: &'a Places<'a>,
    signalling: &'a SignallingReport,
    capture: &'a CaptureReport,
    /// Some call has a description that was read.
    has_sdp: bool,
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
        if let Some(reason) = self.at_another_time(stream) {
            return reason;
        }
        let mut reason = if self.has_sdp {
            let near = [stream.src, stream.dst]
                .iter()
                .find_map(|endpoint| self.places.by_address.get(&endpoint.address));
            let near = near.map_or_else(String::new, |(endpoint, call)| {
                format!("; call {} announced {endpoint}, of the same host", short(&call.call_id))
            });
            format!("no SDP announced {} or {}{near}", stream.src, stream.dst)
        } else if sip.captured.cut > 0 {
            format!("no SDP is left in the capture: {}", words::cut(sip.captured))
        } else {
            format!(
                "no SDP in the capture: {}, none with a description",
                words::count(sip.messages, "message")
            )
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

    /// Its endpoints were announced, but not while it lasted.
    fn at_another_time(&self, stream: &StreamReport) -> Option<String> {
        let (first, last) = (stream.identity.first_seen, stream.identity.last_seen);
        let announced = |endpoint| {
            let split = |by| (endpoint, self.places.until(endpoint, by, last));
            [By::Media, By::Candidate].map(split)
        };
        let announced = [stream.dst, stream.src].map(announced).concat();
        let later = announced.iter().filter_map(|(endpoint, (_, later))| Some((endpoint, later.first()?)));
        if let Some((endpoint, place)) = later.min_by_key(|(_, place)| place.line.info.announced_time) {
            return Some(format!(
                "{endpoint} was announced, but the SDP of call {} (frame {}) came {:.1} s after the last packet",
                short(&place.call.call_id),
                place.line.info.announced_at,
                place.line.info.announced_time.since(last) as f64 / 1e9,
            ));
        }
        let before = announced.iter().filter_map(|(endpoint, (before, _))| Some((endpoint, before.last()?)));
        let (endpoint, place) = before.max_by_key(|(_, place)| place.line.info.announced_time)?;
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
}

fn short(call_id: &str) -> String {
    words::printable(words::short_call_id(call_id))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::packet::{MediaId, Nanos};
    use crate::report::contract::testing::{call, stream};
    use crate::sip::calls::{CallState, Moment, What};
    use crate::sip::sdp::{Direction, MediaKind, Protocol};
    use crate::sip::{CallLine, CallReport, MediaInfo, Side};

    const S: u64 = 1_000_000_000;

    /// A call whose caller announced `endpoint` in second `from`, and that a BYE ended in second `until`, if one did.
    fn announced(call_id: &str, endpoint: Endpoint, from: u64, until: Option<u64>) -> CallReport {
        let mut call = CallReport { began: Nanos(from * S), ..call(call_id).call };
        let info = MediaInfo {
            call_id: call_id.into(),
            kind: MediaKind::Audio,
            protocol: Protocol::Rtp,
            endpoint,
            rtcp: None,
            candidates: Box::default(),
            ssrcs: Box::default(),
            formats: Box::default(),
            ptime_ms: None,
            srtp: false,
            redundancy: None,
            direction: Direction::SendRecv,
            announced_at: from,
            announced_time: Nanos(from * S),
        };
        call.media.descriptions = 1;
        call.media.lines =
            vec![CallLine { id: MediaId(1), side: Side::Caller, info: info.into(), ended: None }];
        if let Some(until) = until {
            call.state = CallState::Ended;
            call.moments = vec![Moment { time: Nanos(until * S), number: 0, what: What::Bye }];
        }
        call
    }

    /// A stream to the port of these calls from one second to another, joined to the call with this Call-ID, or to none.
    fn linked(calls: Vec<CallReport>, own: Option<&str>, first: u64, last: u64) -> StreamReport {
        let mut streams = vec![stream()];
        streams[0].call_id = own.map(Arc::from);
        (streams[0].identity.first_seen, streams[0].identity.last_seen) = (Nanos(first * S), Nanos(last * S));
        let mut signalling = SignallingReport { calls, ..SignallingReport::default() };
        signalling.sip.messages = 1;
        link(&mut streams, &signalling, &CaptureReport::default());
        streams.remove(0)
    }

    #[test]
    fn a_stream_at_a_port_of_many_calls_is_shared_with_those_that_had_it_at_the_time() {
        let port = stream().dst;
        let one_after_the_other = |n: u64| announced(&format!("c{n}"), port, 10 * n, Some(10 * n + 9));
        let shared = |calls: Vec<CallReport>| linked(calls, Some("c700"), 7_001, 7_008).shared_with;
        let calls: Vec<_> = (0..1_000).map(one_after_the_other).collect();
        assert!(shared(calls.clone()).is_empty());
        let mut both = calls.clone();
        both.extend([announced("early", port, 6_995, Some(7_020)), announced("late", port, 7_005, None)]);
        assert_eq!(shared(both), ["early".into(), "late".into()]);
        // None of them ever ended: the latest.
        let open: Vec<_> = (0..1_000).map(|n| announced(&format!("c{n}"), port, 10 * n, None)).collect();
        let latest: Vec<Arc<str>> = (692..700).map(|n| format!("c{n}").into()).collect();
        assert_eq!(shared(open), latest);
    }

    #[test]
    fn a_stream_before_or_after_all_calls_of_its_port_says_how_far() {
        let port = stream().dst;
        let calls = || vec![announced("b", port, 40, Some(49)), announced("a", port, 20, Some(29))];
        let because = |first, last| linked(calls(), None, first, last).call_absent_because.unwrap();
        assert!(because(5, 18).contains("call a (frame 20) came 2.0 s after"), "{}", because(5, 18));
        assert!(because(31, 35).contains("call b (frame 40) came 5.0 s after"));
        assert!(because(52, 55).contains("call b had given it up 3.0 s before"));
    }

    #[test]
    fn by_what_a_stream_was_joined_is_told_of_its_own_call() {
        let (to, from) = (stream().dst, stream().src);
        let calls = || vec![announced("a", to, 1, None), announced("b", from, 1, None)];
        let by = |own| linked(calls(), Some(own), 2, 3).linked_by;
        assert_eq!([by("a"), by("b"), by("c")], [Some("destination"), Some("source"), Some("symmetric-rtp")]);
    }

    #[test]
    fn an_ssrc_is_a_call_s_that_alone_announced_it() {
        let elsewhere = Endpoint { port: 9, ..stream().dst };
        let ssrc = stream().identity.key.ssrc;
        let with_ssrc = |call_id: &str| {
            let mut call = announced(call_id, elsewhere, 1, None);
            let line = &mut call.media.lines[0];
            line.info = MediaInfo { ssrcs: [ssrc, ssrc].into(), ..MediaInfo::clone(&line.info) }.into();
            call
        };
        let found = |calls: &[&str]| {
            linked(calls.iter().map(|call_id| with_ssrc(call_id)).collect(), None, 2, 3).call_id
        };
        assert_eq!(found(&["a"]).as_deref(), Some("a"));
        assert_eq!(found(&["a", "b", "a"]), None);
    }
}

//! What the media of a call does that its signalling does not lead to expect.

use super::{CallFinding, answer_of, end_of};
use crate::packet::{Endpoint, Flow, Nanos};
use crate::report::contract::StreamReport;
use crate::report::words;
use crate::rtp::codec;
use crate::sip::calls::What;
use crate::sip::{CallReport, Side};

/// How long both sides have agreed to be heard before silence of one is told: voice activity detection and a slow start
/// make less.
const ONE_WAY_NS: i64 = 2_000_000_000;
/// The answer may come this much later than the media it allows, by another way.
const BEFORE_ANSWER_NS: i64 = 100_000_000;
/// Packets under way, and a phone that stops a little later.
const AFTER_BYE_NS: i64 = 200_000_000;
/// How near to an agreement on fax audio ends if it ends for that.
const FAX_NS: std::ops::Range<i64> = -2_000_000_000..5_000_000_000;

/// What is asked of a stream. In a report as it is, and live while it goes on.
#[derive(Clone, Debug)]
pub(in crate::report) struct Facts<'a> {
    pub(in crate::report) flow: Flow,
    pub(in crate::report) first: Nanos,
    pub(in crate::report) last: Nanos,
    pub(in crate::report) packets: u64,
    pub(in crate::report) payload_types: &'a [u8],
    /// Another call announced the same endpoint, and may be the one that goes on.
    pub(in crate::report) is_shared: bool,
}

impl<'a> Facts<'a> {
    pub(super) fn of(stream: &'a StreamReport) -> Self {
        Self {
            flow: stream.identity.key.flow,
            first: stream.identity.first_seen,
            last: stream.identity.last_seen,
            packets: stream.unique.packets,
            payload_types: &stream.payload_types,
            is_shared: !stream.shared_with.is_empty(),
        }
    }

    /// Who of the call sends it, by the line that it goes to, else by the one that it comes from.
    fn sender(&self, call: &CallReport) -> Option<Side> {
        let to = call.media.at(self.flow.dst).map(|line| line.side.other());
        to.or_else(|| call.media.at(self.flow.src).map(|line| line.side))
    }

    fn between(&self) -> String {
        format!("{} → {}", self.flow.src, self.flow.dst)
    }
}

/// What is known of the media that there is none of.
#[derive(Clone, Copy, Debug)]
pub(super) struct Seen<'a> {
    /// Why the call has none, where there is any in the capture.
    pub(super) absent_because: Option<&'a str>,
    /// The capture sees both directions of anything.
    pub(super) has_both_ways: bool,
    /// The probe left nothing out in the call's time. Else what is missing says nothing.
    pub(super) is_all: bool,
}

/// All there is to tell of a call with these streams.
pub(super) fn findings(call: &CallReport, streams: &[Facts<'_>], seen: Seen<'_>) -> Vec<CallFinding> {
    let missing = |find: fn(&CallReport, &[Facts<'_>], Seen<'_>) -> Option<CallFinding>| {
        if seen.is_all { find(call, streams, seen) } else { None }
    };
    let found = [
        missing(one_way),
        missing(no_media),
        before_answer(call, streams),
        after_bye(call, streams),
        ended_with_fax(call, streams),
    ];
    let mut found: Vec<_> = found.into_iter().flatten().collect();
    found.extend(streams.iter().find_map(|stream| other_codec(call, stream)));
    found.extend([Side::Caller, Side::Called].into_iter().filter_map(|side| elsewhere(call, streams, side)));
    found
}

/// For how long after the answer both sides have wanted the caller, and the called, to send.
fn expected(call: &CallReport, streams: &[Facts<'_>]) -> Option<(i64, i64)> {
    let answered = answer_of(call)?;
    let heard = streams.iter().map(|stream| stream.last).max().unwrap_or_default().max(call.last_seen);
    let end = end_of(call).map_or(heard, |(time, _)| time);
    let agreements = &call.media.agreements;
    let (mut caller, mut called) = (0, 0);
    for (at, agreed) in agreements.iter().enumerate() {
        let until = agreements.get(at + 1).map_or(end, |next| next.time);
        let lasted = until.since(agreed.time.max(answered)).max(0);
        caller += if agreed.caller_sends { lasted } else { 0 };
        called += if agreed.called_sends { lasted } else { 0 };
    }
    Some((caller, called))
}

fn one_way(call: &CallReport, streams: &[Facts<'_>], seen: Seen<'_>) -> Option<CallFinding> {
    let (caller_ns, called_ns) = expected(call, streams)?;
    let senders: Option<Vec<_>> = streams.iter().map(|stream| stream.sender(call)).collect();
    let senders = senders?;
    let is_heard = |side| senders.contains(&side);
    let (silent, silent_ns) = match (is_heard(Side::Caller), is_heard(Side::Called)) {
        (true, false) => (Side::Called, called_ns),
        (false, true) => (Side::Caller, caller_ns),
        _ => return None,
    };
    if silent_ns < ONE_WAY_NS {
        return None;
    }
    let packets: u64 = streams.iter().map(|stream| stream.packets).sum();
    let (id, caution) = if seen.has_both_ways {
        ("one-way-audio", "")
    } else {
        let caution = "; no stream of the capture has its other direction in it, so it may be the capture that sees one only";
        ("one-direction-only", caution)
    };
    Some(CallFinding {
        id,
        text: format!(
            "{} of {}, none of {} in the {:.1} s in which both wanted it to send{caution}",
            words::count(packets, "packet"),
            silent.other().name(),
            silent.name(),
            silent_ns as f64 / 1e9,
        ),
    })
}

fn no_media(call: &CallReport, streams: &[Facts<'_>], seen: Seen<'_>) -> Option<CallFinding> {
    let reason = seen.absent_because.filter(|_| streams.is_empty())?;
    let (caller_ns, called_ns) = expected(call, streams)?;
    (caller_ns.max(called_ns) >= ONE_WAY_NS).then(|| CallFinding {
        id: "no-media",
        text: format!("answered, and for {:.1} s no media: {reason}", caller_ns.max(called_ns) as f64 / 1e9),
    })
}

fn before_answer(call: &CallReport, streams: &[Facts<'_>]) -> Option<CallFinding> {
    let answered = answer_of(call)?;
    let called = call.media.lines.iter().filter(|line| line.side == Side::Called);
    let announced = called.map(|line| line.info.announced_time).min()?;
    let is_early = |stream: &&Facts<'_>| {
        stream.sender(call) == Some(Side::Called)
            && stream.first >= call.began
            && announced.since(stream.first) >= BEFORE_ANSWER_NS
            && answered.since(stream.first) >= BEFORE_ANSWER_NS
    };
    let stream = streams.iter().filter(is_early).min_by_key(|stream| stream.first)?;
    Some(CallFinding {
        id: "media-before-answer",
        text: format!(
            "{}: the called sent media {:.0} ms before the answer, and no provisional response with SDP announced it",
            stream.between(),
            answered.since(stream.first) as f64 / 1e6
        ),
    })
}

fn after_bye(call: &CallReport, streams: &[Facts<'_>]) -> Option<CallFinding> {
    let bye = end_of(call).filter(|(_, what)| *what == What::Bye)?.0;
    let goes_on = |stream: &&Facts<'_>| {
        !stream.is_shared && stream.first < bye && stream.last.since(bye) >= AFTER_BYE_NS
    };
    let stream = streams.iter().filter(goes_on).max_by_key(|stream| stream.last)?;
    Some(CallFinding {
        id: "media-after-bye",
        text: format!(
            "{} went on for {:.1} s after the BYE",
            stream.between(),
            stream.last.since(bye) as f64 / 1e9
        ),
    })
}

fn ended_with_fax(call: &CallReport, streams: &[Facts<'_>]) -> Option<CallFinding> {
    let agreed = call.media.agreements.iter().find(|agreed| agreed.is_fax)?;
    let ends_there = |stream: &Facts<'_>| FAX_NS.contains(&stream.last.since(agreed.time));
    (!streams.is_empty() && streams.iter().any(ends_there)).then(|| CallFinding {
        id: "audio-ended-with-fax",
        text: format!(
            "audio ended with the agreement on T.38 fax (frame {}): nothing was lost there",
            agreed.number
        ),
    })
}

/// Packets of a payload type that their receiver did not announce. Comfort noise is sent by many without a word.
fn other_codec(call: &CallReport, stream: &Facts<'_>) -> Option<CallFinding> {
    let lines = || call.media.lines.iter().filter(|line| line.info.endpoint == stream.flow.dst);
    let formats = || lines().flat_map(|line| &line.info.formats).map(|format| format.payload_type);
    let is_strange =
        |number: &&u8| !codec::is_comfort_noise(**number) && !formats().any(|known| known == **number);
    let strange = stream.payload_types.iter().find(is_strange).filter(|_| formats().next().is_some())?;
    let name = codec::static_payload(*strange).map_or_else(String::new, |(name, _)| format!(" ({name})"));
    let mut known: Vec<_> = formats().collect();
    known.sort_unstable();
    known.dedup();
    let known: Vec<_> = known.iter().map(u8::to_string).collect();
    Some(CallFinding {
        id: "codec-mismatch",
        text: format!(
            "{}: packets of payload type {strange}{name}, but {} announced {}",
            stream.between(),
            stream.flow.dst,
            known.join(", ")
        ),
    })
}

/// A side sends from where it announced nothing: by another port of its host, or through a NAT.
fn elsewhere(call: &CallReport, streams: &[Facts<'_>], side: Side) -> Option<CallFinding> {
    let lines: Vec<_> = call.media.lines.iter().filter(|line| line.side == side).collect();
    let is_own = |endpoint: Endpoint| {
        lines.iter().any(|line| line.info.endpoint == endpoint || line.info.has_candidate(endpoint))
    };
    let is_there =
        |stream: &&Facts<'_>| call.media.at(stream.flow.dst).is_some_and(|line| line.side == side.other());
    // A hop that passes media on announces for itself: what comes from any announced place explains the call.
    if streams.iter().filter(is_there).any(|stream| is_own(stream.flow.src)) {
        return None;
    }
    let stream = streams.iter().filter(is_there).max_by_key(|stream| stream.packets)?;
    let source = stream.flow.src;
    let same_host = lines.iter().rev().find(|line| line.info.endpoint.address == source.address);
    let line = same_host.or_else(|| lines.last())?;
    let (id, why) = if same_host.is_some() {
        ("asymmetric-ports", "another port of the same host")
    } else {
        ("nat-rewritten-address", "a NAT or a relay on the way rewrites it")
    };
    Some(CallFinding {
        id,
        text: format!(
            "the SDP of {} says {}, its packets come from {source}: {why}",
            side.name(),
            line.info.endpoint
        ),
    })
}

//! The messages of a ladder: their labels, and what is noted beside them.

use std::sync::Arc;

use rustc_hash::FxHashMap;

use super::{Kind, Participants, Row, words};
use crate::dedup::Cause;
use crate::packet::{Flow, Nanos};
use crate::sip::sdp::{Direction, MediaKind, Protocol};
use crate::sip::transcript::{About, Copies, Described, Line, Said, Transcript};
use crate::sip::{Repeat, Timer};

/// A row for each message. `place` is where in the ladder a call stands.
pub(super) fn rows(
    transcript: &Transcript,
    place: impl Fn(&str, Nanos) -> Option<usize>,
    participants: &mut Participants,
) -> Vec<Row> {
    let forks = Forks::of(transcript);
    let mut described = Descriptions::default();
    let mut sent = Sent::default();
    let mut rows = Vec::new();
    for line in transcript.lines() {
        let Some(call) = place(&line.call_id, line.time) else { continue };
        let mut notes = Vec::new();
        // What was sent before says nothing new.
        if line.repeat.is_none() {
            notes.extend(line.about.iter().map(about));
            notes.extend(challenge(line));
            notes.extend(described.note(line));
            notes.extend(forks.note(line));
        }
        let since_ms = sent.since(line);
        notes.extend(line.repeat.map(|repeat| repeated(repeat, since_ms)));
        rows.push(Row {
            at_s: line.time.since(transcript.epoch()) as f64 / 1e9,
            frame: line.number,
            call,
            kind: Kind::Message,
            from: participants.of(line.flow.src),
            to: participants.of(line.flow.dst),
            label: label(line),
            notes,
            copies: captured(&line.copies),
            ssrc: None,
        });
    }
    rows
}

/// "INVITE #2", "200 OK (INVITE #2)".
fn label(line: &Line) -> String {
    match (&line.said, &line.cseq) {
        (Said::Request(method), Some((number, _))) => format!("{method} #{number}"),
        (Said::Request(method), None) => method.to_string(),
        (Said::Response(code, reason), cseq) => {
            let status = format!("{code} {reason}");
            match cseq {
                Some((number, method)) => format!("{} ({method} #{number})", status.trim_end()),
                None => status.trim_end().to_owned(),
            }
        }
    }
}

fn about(about: &About) -> String {
    match about {
        About::Credentials => "with credentials".to_owned(),
        About::Target(uri) => match uri.split_once('?') {
            Some((target, headers)) if headers.contains("Replaces=") => format!("to {target}, attended"),
            Some((target, _)) => format!("to {target}"),
            None => format!("to {uri}"),
        },
        About::Progress(status) => format!("the new call: {status}"),
        About::Replaces(call_id) => format!("replaces call {}", words::short_call_id(call_id)),
        About::Reason(reason) => format!("because {reason}"),
    }
}

fn challenge(line: &Line) -> Option<String> {
    matches!(line.said, Said::Response(401 | 407, _)).then(|| "asks for credentials: ordinary".to_owned())
}

/// What each party of each call has described last: what it says again, or a proxy passes on, is not said again.
#[derive(Default)]
struct Descriptions(FxHashMap<Party, (Vec<Described>, Flow)>);

/// A call, and the tag of one who speaks in it.
type Party = (Arc<str>, Option<Box<str>>);

impl Descriptions {
    /// What is new in a message's SDP.
    fn note(&mut self, line: &Line) -> Option<String> {
        if line.media.is_empty() {
            return None;
        }
        let is_request = matches!(line.said, Said::Request(_));
        let sender = if is_request { &line.from_tag } else { &line.to_tag };
        let key = (Arc::clone(&line.call_id), sender.clone());
        let Some((before, flow)) = self.0.insert(key, (line.media.clone(), line.flow)) else {
            let said: Vec<_> = line.media.iter().map(in_full).collect();
            return Some(said.join(", "));
        };
        let mut said = Vec::new();
        for (at, now) in line.media.iter().enumerate() {
            match before.get(at).filter(|before| before.kind == now.kind) {
                Some(before) => said.extend(changes(before, now, is_request)),
                None => said.push(format!("adds {}", in_full(now))),
            }
        }
        // On its next hop, or to another branch, it is the same by nature.
        if said.is_empty() && flow == line.flow {
            said.push("SDP unchanged".to_owned());
        }
        (!said.is_empty()).then(|| said.join(", "))
    }
}

/// "PCMU PCMA at 10.16.0.11:16384", "hold (sendonly)".
fn in_full(media: &Described) -> String {
    let kind = match media.kind {
        MediaKind::Audio => "",
        MediaKind::Video => "video ",
        MediaKind::Other => "other media ",
    };
    let is_rtp = media.protocol == Protocol::Rtp;
    let kind = if is_rtp { kind.to_owned() } else { format!("{} ", media.protocol.name()) };
    let Some(endpoint) = media.endpoint else { return format!("{kind}refused") };
    let direction = match media.direction {
        Direction::SendRecv => String::new(),
        direction => format!(", {}", direction.attribute()),
    };
    // Formats of RTP have names; those of others are words of their own ("t38").
    let codecs = if is_rtp { format!("{} ", media.codecs) } else { String::new() };
    format!("{kind}{codecs}at {endpoint}{direction}")
}

fn changes(before: &Described, now: &Described, is_request: bool) -> Vec<String> {
    let mut said = Vec::new();
    if before.direction != now.direction {
        said.push(match now.direction {
            Direction::SendRecv if is_request => "resumes (sendrecv)".to_owned(),
            direction if is_request => format!("hold ({})", direction.attribute()),
            direction => direction.attribute().to_owned(),
        });
    }
    if before.endpoint != now.endpoint {
        said.push(match now.endpoint {
            Some(endpoint) => format!("moved to {endpoint}"),
            None => "refused".to_owned(),
        });
    }
    // An offer lists more than an answer; the first is the one that is wanted.
    let wanted = |media: &Described| media.codecs.split(' ').next().map(str::to_owned);
    if wanted(before) != wanted(now) {
        said.push(format!("now {}", now.codecs));
    }
    said
}

/// Responses to a call's first INVITE that bear several To tags: the branches of a fork, in order of appearance.
struct Forks(FxHashMap<Arc<str>, Branches>);

/// Of one call: the caller's tag, and those of who answered.
#[derive(Default)]
struct Branches {
    caller: Option<Box<str>>,
    answering: Vec<Box<str>>,
}

impl Forks {
    fn of(transcript: &Transcript) -> Self {
        let mut calls: FxHashMap<Arc<str>, Branches> = FxHashMap::default();
        for line in transcript.lines() {
            let branches = calls.entry(Arc::clone(&line.call_id)).or_default();
            if line.to_tag.is_none() && branches.caller.is_none() {
                branches.caller.clone_from(&line.from_tag);
            }
            let tag = line.to_tag.as_ref().filter(|_| is_answer(line, branches));
            if let Some(tag) = tag.filter(|tag| !branches.answering.contains(tag)) {
                branches.answering.push(tag.clone());
            }
        }
        Self(calls)
    }

    fn note(&self, line: &Line) -> Option<String> {
        let branches = self.0.get(&line.call_id).filter(|branches| branches.answering.len() > 1)?;
        let tag = line.to_tag.as_ref().filter(|_| is_answer(line, branches))?;
        let branch = branches.answering.iter().position(|known| known == tag)?;
        Some(format!("fork {}", branch + 1))
    }
}

/// A response of one who was called to the caller's INVITE; 100 has no tag that matters.
fn is_answer(line: &Line, branches: &Branches) -> bool {
    matches!(line.said, Said::Response(101.., _))
        && line.from_tag == branches.caller
        && line.cseq.as_ref().is_some_and(|(_, method)| **method == *"INVITE")
}

/// When each message was sent last, to say after how long it was sent again.
#[derive(Default)]
struct Sent(FxHashMap<(Arc<str>, Flow, String), Nanos>);

impl Sent {
    fn since(&mut self, line: &Line) -> Option<f64> {
        let tag = line.to_tag.as_deref().unwrap_or_default();
        let identity = format!("{} {tag}", label(line));
        let key = (Arc::clone(&line.call_id), line.flow, identity);
        let before = self.0.insert(key, line.time)?;
        Some(line.time.since(before) as f64 / 1e6)
    }
}

/// Why a message was sent again, and how long after it was sent before.
fn repeated(repeat: Repeat, since_ms: Option<f64>) -> String {
    let why = match repeat {
        Repeat::Timer(Timer::TwoHundred) => "no ACK".to_owned(),
        Repeat::Timer(Timer::Provisional) => "no PRACK".to_owned(),
        Repeat::Timer(timer) => format!("timer {}", timer.name()),
        Repeat::Echo => "so was what it answers".to_owned(),
        Repeat::Unscheduled => "by no timer".to_owned(),
    };
    match since_ms {
        Some(ms) => format!("sent again: {why}, {:.2} s", ms / 1e3),
        None => format!("sent again: {why}"),
    }
}

/// How often a message was captured, and why: `x4: 2 taps x rpcap`.
pub(super) fn captured(copies: &[Copies]) -> Option<String> {
    let total: u32 = 1 + copies.iter().map(|kind| kind.count).sum::<u32>();
    if total == 1 {
        return None;
    }
    let tunnelled = |kind: &&Copies| kind.cause == Cause::Encapsulated;
    let inside: u32 = copies.iter().filter(tunnelled).map(|kind| kind.count).sum();
    let taps = total - inside;
    let layers: Vec<_> = copies.iter().filter(tunnelled).filter_map(|kind| kind.layer).collect();
    if let ([layer], true) = (layers.as_slice(), taps > 1 && inside == taps) {
        return Some(format!("x{total}: {taps} taps x {}", layer.name()));
    }
    let kinds: Vec<_> = copies
        .iter()
        .map(|kind| match kind.layer.filter(|_| kind.cause == Cause::Encapsulated) {
            Some(layer) => layer.name(),
            None => kind.cause.label(),
        })
        .collect();
    Some(format!("x{total}: {}", kinds.join(", ")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::packet::Endpoint;

    #[test]
    fn media_that_is_no_rtp_is_told_by_what_it_is() {
        let described = |kind, protocol, codecs: &str| Described {
            kind,
            protocol,
            endpoint: Some(Endpoint::v4([10, 0, 0, 1], 4000)),
            codecs: codecs.into(),
            direction: Direction::SendRecv,
        };
        for (media, expected) in [
            (described(MediaKind::Audio, Protocol::Rtp, "PCMU"), "PCMU at 10.0.0.1:4000"),
            (described(MediaKind::Video, Protocol::Rtp, "H264"), "video H264 at 10.0.0.1:4000"),
            (described(MediaKind::Other, Protocol::Udptl, ""), "T.38 fax at 10.0.0.1:4000"),
            (described(MediaKind::Other, Protocol::Msrp, ""), "MSRP messages at 10.0.0.1:4000"),
        ] {
            assert_eq!(in_full(&media), expected);
        }
        let refused = Described { endpoint: None, ..described(MediaKind::Other, Protocol::Udptl, "") };
        assert_eq!(in_full(&refused), "T.38 fax refused");
    }
}

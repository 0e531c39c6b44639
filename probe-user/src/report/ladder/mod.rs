//! Calls as a ladder: who said what to whom, what was heard meanwhile, and what was only captured twice.
//!
//! ```text
//!   Transcript ─▶ said ──┐
//!                        ├─▶ Ladder: rows in the order of time ─▶ draw: text of 100 columns, or JSON
//!   Report ─────▶ heard ─┘
//! ```
//!
//! A message stands once, however often it was captured; a retransmission stands for itself, with the timer that
//! made it. Media stands where it begins, falls silent, comes back and ends, with what became of it. Calls that belong
//! together, as a transfer's or the legs of a B2BUA, stand in one ladder and are told apart by letters.

mod draw;
mod heard;
mod said;

use std::net::IpAddr;

use serde::Serialize;

use super::call_media::CallFinding;
use super::contract::{CallWithStreams, Report};
use super::related::Namesakes;
use super::words;
use crate::packet::{Endpoint, Nanos};
use crate::sip::CallState;
use crate::sip::report::Relation;
use crate::sip::transcript::Transcript;

/// Calls drawn in one ladder: the letters of an alphabet are more than anybody follows.
pub const MAX_CALLS: usize = 8;

/// See the module.
#[derive(Debug, Serialize)]
pub struct Ladder {
    /// Call-ID of the call that was asked for.
    pub call_id: String,
    /// URIs of caller and called.
    pub parties: (String, String),
    /// All calls in it; that one is the first.
    pub calls: Vec<LadderCall>,
    /// Who takes part, in order of appearance: an address, with its port where two share one.
    pub participants: Vec<String>,
    /// What happened, in the order of time.
    pub rows: Vec<Row>,
    /// Messages for which there was no room.
    pub left_out: u64,
}

/// One call of a ladder.
#[derive(Debug, Serialize)]
pub struct LadderCall {
    /// What its rows begin with, where there are several: "A", "B", ….
    pub letter: char,
    /// Call-ID.
    pub call_id: String,
    /// URI of the caller.
    pub from: String,
    /// URI of the called.
    pub to: String,
    /// What became of it: "ended by caller after 9.4s".
    pub outcome: String,
    /// What it has to do with the others; none for the first.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub related: Vec<String>,
    /// What of it deserves a look.
    pub problems: Vec<CallFinding>,
}

/// One row.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Row {
    /// Seconds since the capture began.
    pub at_s: f64,
    /// Its frame; 0 where it is no frame's.
    pub frame: u64,
    /// Index of its call in `calls`.
    pub call: usize,
    /// What kind it is of.
    pub kind: Kind,
    /// Index of the participant that it comes from.
    pub from: usize,
    /// Index of the participant that it goes to.
    pub to: usize,
    /// Method, status, or what is to say of the media.
    pub label: String,
    /// What is to say besides: SDP, retransmission, figures.
    pub notes: Vec<String>,
    /// How often a message was captured, if more than once, and why: "x4: 2 taps x rpcap".
    #[serde(skip_serializing_if = "Option::is_none")]
    pub copies: Option<String>,
    /// Of media, `0x%08x`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ssrc: Option<String>,
}

/// Kinds of rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// A SIP message.
    Message,
    /// A media stream begins.
    Media,
    /// A media stream falls silent.
    Silence,
    /// It comes back.
    Resumed,
    /// It changes: another codec, a spike of jitter, another time line.
    Change,
    /// It ends.
    MediaEnd,
}

/// Which characters a terminal can show.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Charset {
    /// Lines and arrows.
    Utf8,
    /// What every terminal and every mail has.
    Ascii,
}

impl Ladder {
    /// Of calls of a report, from what was said in them. The first is the one that was asked for.
    pub fn new(report: &Report, calls: &[&CallWithStreams], transcript: &Transcript) -> Self {
        let namesakes = Namesakes::of(report.calls.iter().map(|call| &call.call));
        let place = |call_id: &str, time: Nanos| {
            calls.iter().position(|call| *call.call.call_id == *call_id && namesakes.is_of(&call.call, time))
        };
        let is_one_host = transcript.lines().any(|line| line.flow.src.address == line.flow.dst.address);
        let mut participants = Participants { all: Vec::new(), with_ports: is_one_host };
        let mut rows = said::rows(transcript, place, &mut participants);
        rows.extend(heard::rows(&report.streams, place, &mut participants));
        rows.sort_by(|a, b| a.at_s.total_cmp(&b.at_s).then(a.kind.cmp(&b.kind)));
        let ladder_call = |(call, letter): (&&CallWithStreams, char)| LadderCall {
            letter,
            call_id: call.call.call_id.to_string(),
            from: call.call.from.to_string(),
            to: call.call.to.to_string(),
            outcome: outcome(call),
            related: related(call, calls),
            problems: call.problems.clone(),
        };
        let listed: Vec<_> = calls.iter().zip('A'..).map(ladder_call).collect();
        let first = listed.first();
        Self {
            call_id: first.map(|call| call.call_id.clone()).unwrap_or_default(),
            parties: first.map(|call| (call.from.clone(), call.to.clone())).unwrap_or_default(),
            calls: listed,
            participants: participants.names(),
            rows,
            left_out: transcript.left_out(),
        }
    }

    /// As text, in lines of at most a hundred columns.
    pub fn render(&self, charset: Charset) -> String {
        draw::render(self, charset)
    }
}

/// The calls that belong to some, themselves first, then those related to them, and to those.
pub fn family<'a>(report: &'a Report, calls: &[&'a CallWithStreams]) -> Vec<&'a CallWithStreams> {
    let mut family: Vec<_> = calls.iter().copied().take(MAX_CALLS).collect();
    let mut at = 0;
    while let Some(member) = family.get(at).copied() {
        for related in &member.call.related {
            let is_known = family.iter().any(|known| known.call.call_id == related.call_id);
            let other = report.calls.iter().find(|other| other.call.call_id == related.call_id);
            if let Some(other) = other.filter(|_| !is_known && family.len() < MAX_CALLS) {
                family.push(other);
            }
        }
        at += 1;
    }
    family
}

/// What became of a call, in words.
fn outcome(call: &CallWithStreams) -> String {
    let report = &call.call;
    let mut text = match (report.state, report.final_code) {
        (CallState::Failed(_), Some(code)) => format!("failed with {code}"),
        (state, _) => state.word().to_owned(),
    };
    if report.state == CallState::Answered {
        text.push_str(", to the end of the capture");
    }
    if let Some(who) = report.ended_by {
        text.push_str(" by ");
        text.push_str(who);
    }
    if let Some(talked_ms) = report.talked_ms {
        text.push_str(" after ");
        text.push_str(&words::span(talked_ms));
    }
    if let Some(reason) = &report.disconnect_reason {
        text.push_str(": ");
        text.push_str(reason);
    }
    text
}

/// What a call has to do with others of the ladder that come before it.
fn related(call: &CallWithStreams, calls: &[&CallWithStreams]) -> Vec<String> {
    let say = |(other, letter): (&&CallWithStreams, char)| {
        if other.call.call_id == call.call.call_id {
            return Some(format!("the Call-ID of {letter} again"));
        }
        let related = call.call.related.iter().find(|related| related.call_id == other.call.call_id)?;
        let what = match related.relation {
            Relation::TransferTarget => "transferred as",
            Relation::TransferredFrom => "made by the transfer of",
            Relation::Replaces => "takes the place of",
            Relation::ReplacedBy => "replaced by",
            Relation::B2buaLeg => "other leg of",
        };
        Some(format!("{what} {letter} ({})", related.because))
    };
    let before = calls.iter().zip('A'..).take_while(|(other, _)| !std::ptr::eq(**other, call));
    before.filter_map(say).collect()
}

/// Who takes part.
struct Participants {
    all: Vec<Endpoint>,
    /// Do several of them share an address, so that the port tells them apart?
    with_ports: bool,
}

impl Participants {
    fn of(&mut self, endpoint: Endpoint) -> usize {
        let is_same =
            |known: &Endpoint| known.address == endpoint.address && (!self.with_ports || *known == endpoint);
        self.all.iter().position(is_same).unwrap_or_else(|| {
            self.all.push(endpoint);
            self.all.len() - 1
        })
    }

    fn names(&self) -> Vec<String> {
        let name = |endpoint: &Endpoint| match endpoint.ip() {
            _ if self.with_ports => endpoint.to_string(),
            IpAddr::V4(address) => address.to_string(),
            IpAddr::V6(address) => address.to_string(),
        };
        self.all.iter().map(name).collect()
    }
}

#[cfg(test)]
mod tests;

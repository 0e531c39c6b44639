//! What was said in the calls that somebody asked for, message by message: what a ladder is drawn from.
//!
//! ```text
//!   Signalling ─┬─ a message, counted once ─────▶ Line
//!               └─ a copy of it ────────────────▶ Line::copies of that line
//! ```
//!
//! Kept only for calls named beforehand, and bounded: a call list is read first, then the capture again.

use std::sync::Arc;

use rustc_hash::FxHashSet;

use super::call::{Sighting, shortened};
use super::copies::Repeat;
use super::message::{Message, StartLine};
use super::sdp::{self, Direction};
use crate::dedup::Cause;
use crate::packet::{Evidence, Flow, Layer, Nanos};

/// Messages kept; a call of an hour has some hundred.
const MAX_LINES: usize = 20_000;
/// Kinds of copies told apart at one message.
const MAX_KINDS: usize = 8;
/// Characters kept of a reason phrase: what comes after is cut anyway.
const MAX_REASON: usize = 48;

/// See the module.
#[derive(Debug)]
pub struct Transcript {
    call_ids: FxHashSet<Arc<str>>,
    lines: Vec<Line>,
    left_out: u64,
    epoch: Nanos,
}

/// One message, sent once.
#[derive(Clone, Debug, PartialEq)]
pub struct Line {
    /// When it was first seen.
    pub time: Nanos,
    /// In which frame.
    pub number: u64,
    /// From whom to whom.
    pub flow: Flow,
    /// Its call.
    pub call_id: Arc<str>,
    /// Method of a request, or code and reason of a response.
    pub label: Box<str>,
    /// What it answers, for a response: number and method of CSeq.
    pub answers: Option<(u32, Box<str>)>,
    /// The direction that its SDP asks for, if it has SDP with media.
    pub sdp: Option<Direction>,
    /// Why it was sent again, if it was.
    pub repeat: Option<Repeat>,
    /// Copies that were captured of it, by kind.
    pub copies: Vec<Copies>,
    /// It turned out to be a copy itself.
    is_copy: bool,
}

/// Copies of one message of one kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Copies {
    /// Why there are any.
    pub cause: Cause,
    /// The innermost tunnel around them.
    pub layer: Option<Layer>,
    /// How many.
    pub count: u32,
}

impl Transcript {
    /// Of these calls.
    pub fn of(call_ids: impl IntoIterator<Item = Arc<str>>) -> Self {
        Self {
            call_ids: call_ids.into_iter().collect(),
            lines: Vec::new(),
            left_out: 0,
            epoch: Nanos::default(),
        }
    }

    /// The time of the capture's first frame, from which seconds count.
    pub fn epoch(&self) -> Nanos {
        self.epoch
    }

    /// Sets it.
    pub fn set_epoch(&mut self, epoch: Nanos) {
        self.epoch = epoch;
    }

    /// The messages, in the order of the capture.
    pub fn lines(&self) -> impl Iterator<Item = &Line> {
        self.lines.iter().filter(|line| !line.is_copy)
    }

    /// Messages for which there was no room.
    pub fn left_out(&self) -> u64 {
        self.left_out
    }

    /// Takes a message of any call. Gives its place, if it is of a call that was asked for.
    pub(super) fn message(
        &mut self,
        at: Sighting,
        message: &Message<'_>,
        repeat: Option<Repeat>,
    ) -> Option<u32> {
        let call_id = self.call_ids.get(&*String::from_utf8_lossy(shortened(message.call_id)))?;
        if self.lines.len() >= MAX_LINES {
            self.left_out += 1;
            return None;
        }
        let place = u32::try_from(self.lines.len()).ok()?;
        let (label, answers) = match message.start {
            StartLine::Request { method, .. } => (method.into(), None),
            StartLine::Response { code, reason } => {
                let reason: String = String::from_utf8_lossy(reason).chars().take(MAX_REASON).collect();
                let answers = message.cseq.map(|cseq| (cseq.number, cseq.method.into()));
                (format!("{code} {reason}").trim_end().into(), answers)
            }
        };
        let description = (!message.is_encoded && !message.body.is_empty())
            .then(|| sdp::describe(message.content_type, message.body))
            .flatten();
        self.lines.push(Line {
            time: at.time,
            number: at.number,
            flow: at.flow,
            call_id: Arc::clone(call_id),
            label,
            answers,
            sdp: description.and_then(|described| described.lines.first().map(|line| line.direction)),
            repeat,
            copies: Vec::new(),
            is_copy: false,
        });
        Some(place)
    }

    /// The message at `place` was captured again.
    pub(super) fn copy(&mut self, place: u32, cause: Cause, evidence: &Evidence) {
        if let Some(line) = self.line(place) {
            line.count_copy(cause, evidence.encapsulation.layers().last());
        }
    }

    /// The message at `place`, taken for a repeat before its tap was known to be always so late, is a copy of that in
    /// frame `original`.
    pub(super) fn was_copy(&mut self, place: u32, original: u64, cause: Cause) {
        if let Some(line) = self.line(place) {
            line.is_copy = true;
        }
        if let Some(line) = self.lines.iter_mut().rev().find(|line| line.number == original) {
            line.count_copy(cause, None);
        }
    }

    /// The message at `place` was the beginning of one that has a line of its own.
    pub(super) fn was_none(&mut self, place: u32) {
        if let Some(line) = self.line(place) {
            line.is_copy = true;
        }
    }

    fn line(&mut self, place: u32) -> Option<&mut Line> {
        self.lines.get_mut(usize::try_from(place).ok()?)
    }

    /// Frame `number` turns out to have been sent again for this reason.
    pub(super) fn explain(&mut self, number: u64, repeat: Repeat) {
        for line in self.lines.iter_mut().rev().filter(|line| line.number == number) {
            line.repeat = Some(repeat);
        }
    }
}

impl Line {
    fn count_copy(&mut self, cause: Cause, layer: Option<Layer>) {
        let known = self.copies.iter().position(|kind| (kind.cause, kind.layer) == (cause, layer));
        let at = known.unwrap_or_else(|| {
            if self.copies.len() < MAX_KINDS {
                self.copies.push(Copies { cause, layer, count: 0 });
            }
            self.copies.len() - 1
        });
        if let Some(kind) = self.copies.get_mut(at) {
            kind.count += 1;
        }
    }
}

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

use super::call::{Sighting, name_text};
use super::copies::Repeat;
use super::message::{Address, Message, StartLine};
use super::sdp::{self, Direction, MediaKind, MediaLine, Protocol};
use crate::dedup::Cause;
use crate::packet::{Endpoint, Evidence, Flow, Layer, Nanos};
use crate::rtp::codec;

/// Messages kept; a call of an hour has some hundred.
const MAX_LINES: usize = 20_000;
/// Kinds of copies told apart at one message.
const MAX_KINDS: usize = 8;
/// Characters kept of a reason phrase, a target, a tag: what comes after is cut anyway.
const MAX_TEXT: usize = 48;
/// Media lines kept of one SDP.
const MAX_OFFERED: usize = 4;
/// Codecs named of one media line; the first is the one that is wanted.
const MAX_CODECS: usize = 3;

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
    /// Method or status.
    pub said: Said,
    /// Number and method of CSeq.
    pub cseq: Option<(u32, Box<str>)>,
    /// The From tag: who sent a request, and whom a response answers.
    pub from_tag: Option<Box<str>>,
    /// The To tag: who answers, and so which branch of a fork.
    pub to_tag: Option<Box<str>>,
    /// The media that its SDP describes, the first few lines.
    pub media: Vec<Described>,
    /// What else it says that matters to the call.
    pub about: Vec<About>,
    /// Why it was sent again, if it was.
    pub repeat: Option<Repeat>,
    /// Copies that were captured of it, by kind.
    pub copies: Vec<Copies>,
    /// It turned out to be a copy itself.
    is_copy: bool,
}

/// The start of a message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Said {
    /// A method.
    Request(Box<str>),
    /// A status code and its reason phrase.
    Response(u16, Box<str>),
}

/// One media line of an SDP.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Described {
    /// What kind of media.
    pub kind: MediaKind,
    /// Over what it goes.
    pub protocol: Protocol,
    /// Where its author wants to receive it; `None` if the line is refused.
    pub endpoint: Option<Endpoint>,
    /// Names of the codecs, the preferred one first: "PCMU PCMA events".
    pub codecs: Box<str>,
    /// Who sends.
    pub direction: Direction,
}

impl Described {
    fn of(line: &MediaLine) -> Self {
        let name = |format: &sdp::Format| match &format.codec {
            // RFC 4733, in a word.
            Some(codec) if codec::is_event(&codec.name) => "events".to_owned(),
            Some(codec) => codec.name.to_string(),
            None => codec::static_payload(format.payload_type)
                .map_or_else(|| format.payload_type.to_string(), |(name, _)| name.to_owned()),
        };
        let mut codecs: Vec<_> = line.formats.iter().take(MAX_CODECS).map(name).collect();
        if line.formats.len() > MAX_CODECS {
            codecs.push(format!("+{}", line.formats.len() - MAX_CODECS));
        }
        Self {
            kind: line.kind,
            protocol: line.protocol,
            endpoint: line.endpoint,
            codecs: codecs.join(" ").into(),
            direction: line.direction,
        }
    }
}

/// What a message says besides its start line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum About {
    /// It brings the credentials that a 401 or 407 asked for.
    Credentials,
    /// REFER: whom to call.
    Target(Box<str>),
    /// NOTIFY of a transfer: the status line of the new call.
    Progress(Box<str>),
    /// INVITE or REFER: the call that is to be replaced.
    Replaces(Box<str>),
    /// Why (RFC 3326).
    Reason(Box<str>),
}

impl About {
    fn of(message: &Message<'_>) -> Vec<Self> {
        let mut about = Vec::new();
        let header = |long, compact| message.header(long, compact).map(text);
        if header("authorization", None).or_else(|| header("proxy-authorization", None)).is_some() {
            about.push(Self::Credentials);
        }
        match message.method() {
            "REFER" => {
                let target = message.header("refer-to", Some(b'r'));
                about.extend(target.map(|value| Self::Target(text(Address::parse(value).uri))));
            }
            "NOTIFY" => {
                let fragment = Message::parse(message.body).ok();
                if let Some(StartLine::Response { code, reason }) = fragment.map(|fragment| fragment.start) {
                    about.push(Self::Progress(status(code, reason).into()));
                }
            }
            _ => {}
        }
        about.extend(
            header("replaces", None)
                .map(|value| Self::Replaces(value.split(';').next().unwrap_or_default().into())),
        );
        about.extend(header("reason", None).map(Self::Reason));
        about
    }
}

fn text(bytes: &[u8]) -> Box<str> {
    String::from_utf8_lossy(bytes).chars().take(MAX_TEXT).collect()
}

fn status(code: u16, reason: &[u8]) -> String {
    format!("{code} {}", text(reason)).trim_end().to_owned()
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
        let call_id = self.call_ids.get(&*name_text(message.call_id))?;
        if self.lines.len() >= MAX_LINES {
            self.left_out += 1;
            return None;
        }
        let place = u32::try_from(self.lines.len()).ok()?;
        let said = match message.start {
            StartLine::Request { method, .. } => Said::Request(method.into()),
            StartLine::Response { code, reason } => Said::Response(code, text(reason)),
        };
        let description = (!message.is_encoded && !message.body.is_empty())
            .then(|| sdp::describe(message.content_type, message.body))
            .flatten();
        let lines = description.iter().flat_map(|described| described.lines.iter().take(MAX_OFFERED));
        self.lines.push(Line {
            time: at.time,
            number: at.number,
            flow: at.flow,
            call_id: Arc::clone(call_id),
            said,
            cseq: message.cseq.map(|cseq| (cseq.number, cseq.method.into())),
            from_tag: message.from().tag.map(text),
            to_tag: message.to().tag.map(text),
            media: lines.map(Described::of).collect(),
            about: About::of(message),
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

//! TCP segments put in order, each direction of a connection for itself.
//!
//! ```text
//!   sequence numbers ───────────────────────────────────────────▶
//!   ▓▓▓▓▓▓▓▓▓▓▓▓▒▒▒▒▒▒▒            ░░░░░░░░░░░     ░░░░░
//!   read        unfinished ▲ next  early          early
//!                          └─ gap ─┘
//! ```
//!
//! Order means something in signalling: a CANCEL follows its INVITE. So a segment that comes early is held until the gap
//! before it is filled. That is given up when the gap is `WAIT_NS` old, or when more is held than `MAX_EARLY` segments or
//! `MAX_EARLY_BYTES` of one stream or `MAX_HELD` of all: then the gap is counted, and reading goes on behind it.
//!
//! A capture may begin in the middle of a connection. A first segment that is no beginning is held likewise, in case the one
//! before it was only overtaken, until a beginning comes behind it.
//!
//! A segment that is far from its stream belongs to a new connection on old ports. Flags are not asked: the kernel keeps segments
//! without data to itself, SYN and FIN among them. A new connection that begins less than `WINDOW` before the old one's end
//! would be taken for old data; one in 4,000 does.
//!
//! Nothing here knows SIP. What cuts the bytes into messages says how many it could not use yet ([`Streams::keep`]), and they are
//! put before the next. Copies of segments do not come here: they were found before.

use std::borrow::Cow;
use std::collections::VecDeque;

use rustc_hash::FxHashMap;
use serde::Serialize;

use crate::packet::{Flow, Nanos};
use crate::sequence::{advanced, distance};

/// Streams remembered: two of each of 65,536 connections. An idle one takes some 200 bytes.
const MAX_STREAMS: usize = 131_072;
/// Streams in use that are passed over before one of them gives way all the same.
const MAX_CHANCES: usize = 64;
/// How long a gap may last: a sender repeats a lost segment after 200 ms or more (RFC 6298 says a second, systems do not wait so
/// long), and a segment that was only overtaken comes within milliseconds. What the capture lacks never comes.
const WAIT_NS: i64 = 500_000_000;
/// Early segments of one stream.
const MAX_EARLY: usize = 64;
/// Their bytes: two segments of the greatest length.
const MAX_EARLY_BYTES: usize = 128 << 10;
/// Bytes held of one unfinished message: what is longer is no SIP message.
pub const MAX_UNFINISHED: usize = 64 << 10;
/// Frames remembered of one unfinished message: so many bytes in segments of 1,400.
const MAX_PARTS: usize = 47;
/// Bytes held of all streams.
const MAX_HELD: usize = 16 << 20;
/// How far from its stream a segment may be: the receive window of most systems.
const WINDOW: u32 = 1 << 20;

/// Streams by direction. `T` is what comes with a segment; `S` is what the reader remembers of a stream.
#[derive(Debug)]
pub struct Streams<T, S> {
    by_flow: FxHashMap<Flow, Stream<T, S>>,
    /// In the order in which they are considered when room is needed.
    candidates: VecDeque<Flow>,
    /// Those with early segments, and since when.
    waiting: VecDeque<(Nanos, Flow)>,
    held: usize,
    figures: TcpFigures,
}

/// What became of segments with SIP.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct TcpFigures {
    /// Segments that came before one that precedes them.
    pub out_of_order: u64,
    /// Segments that brought nothing new, copies apart.
    pub retransmissions: u64,
    /// Gaps that nothing filled in time.
    pub gaps: u64,
    /// Directions of connections whose beginning is not in the capture.
    pub mid_stream: u64,
    /// Directions of connections that were forgotten, for want of room, with bytes that were not read.
    pub given_up: u64,
}

#[derive(Debug)]
struct Stream<T, S> {
    /// Sequence number of the first byte that was seen in order; none before there is one.
    start: u32,
    /// That of the byte to be read next.
    next: Option<u32>,
    was_used: bool,
    is_waiting: bool,
    /// In order of their sequence numbers.
    early: VecDeque<Early<T>>,
    unfinished: Vec<u8>,
    needs: Needs,
    /// Frames that `unfinished` came in; the first few.
    parts: Vec<u64>,
    state: S,
}

/// A segment that was held.
#[derive(Debug)]
pub struct Early<T> {
    seq: u32,
    since: Nanos,
    /// Its bytes that are new.
    pub bytes: Vec<u8>,
    /// What came with it.
    pub tag: T,
}

impl<T> Early<T> {
    fn end(&self) -> u32 {
        advanced(self.seq, self.bytes.len())
    }
}

/// What to do with a segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Accepted<'a> {
    /// These bytes of it are next.
    Next(&'a [u8]),
    /// It lies before all that was seen of its stream, and is to be read for itself.
    Before,
    /// It is early. [`Streams::follow`] gives it in time.
    Held,
    /// Early as well, and not to be waited for, as more is held than may be, or a message begins here: [`Streams::give_up`], then [`Streams::follow`].
    Full,
    /// All of it was seen before.
    Old,
}

/// What an unfinished message waits for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Needs {
    /// Any more.
    #[default]
    More,
    /// An empty line.
    EmptyLine,
    /// So many bytes in all.
    Bytes(usize),
}

/// Bytes to read messages from.
#[derive(Debug)]
pub struct Readable<'a> {
    /// What was unfinished, and what came now.
    pub bytes: Cow<'a, [u8]>,
    /// Frames that the unfinished part came in.
    pub parts: Vec<u64>,
}

impl<T, S> Default for Streams<T, S> {
    fn default() -> Self {
        Self {
            by_flow: FxHashMap::default(),
            candidates: VecDeque::new(),
            waiting: VecDeque::new(),
            held: 0,
            figures: TcpFigures::default(),
        }
    }
}

impl<T, S: Default> Streams<T, S> {
    /// Is a segment with that sequence number one of another connection than its flow was until now? Then what is held of
    /// the old one is to be read first, see [`Self::restart`].
    pub fn is_another(&self, flow: &Flow, seq: u32) -> bool {
        let known = self.by_flow.get(flow).and_then(Stream::position);
        known.is_some_and(|known| distance(known, seq).unsigned_abs() > WINDOW)
    }

    /// Forgets a connection.
    pub fn restart(&mut self, flow: &Flow) {
        if let Some(stream) = self.by_flow.get_mut(flow) {
            self.held -= stream.held();
            *stream = Stream { is_waiting: stream.is_waiting, ..Stream::default() };
        }
    }

    /// Sorts a segment into its stream. `is_beginning`: could nothing belong before it?
    pub fn accept<'a>(
        &mut self,
        flow: Flow,
        seq: u32,
        payload: &'a [u8],
        is_beginning: impl FnOnce() -> bool,
        time: Nanos,
        tag: T,
    ) -> Accepted<'a> {
        if !self.by_flow.contains_key(&flow) {
            self.make_room();
            self.candidates.push_back(flow);
        }
        let stream = self.by_flow.entry(flow).or_default();
        stream.was_used = true;
        let end = advanced(seq, payload.len());
        let Some(next) = stream.next else {
            let is_beginning = is_beginning();
            if is_beginning && stream.early.is_empty() {
                (stream.start, stream.next) = (seq, Some(end));
                return Accepted::Next(payload);
            }
            let accepted = self.hold(flow, seq, payload, time, tag);
            if is_beginning && accepted == Accepted::Held {
                if !self.is_first(&flow, seq) {
                    // What is held before it is the end of something, and has waited long enough.
                    return Accepted::Full;
                }
                self.begin_at(&flow, seq);
            }
            return accepted;
        };
        let ahead = distance(next, seq);
        if ahead > 0 {
            return self.hold(flow, seq, payload, time, tag);
        }
        if distance(next, end) <= 0 {
            // As far back as nothing was seen of it, it is not old.
            if distance(end, stream.start) >= 0 && !payload.is_empty() {
                stream.start = seq;
                return Accepted::Before;
            }
            self.figures.retransmissions += 1;
            return Accepted::Old;
        }
        stream.next = Some(end);
        let old = usize::try_from(ahead.unsigned_abs()).unwrap_or(usize::MAX);
        Accepted::Next(payload.get(old..).unwrap_or_default())
    }

    /// The held segment that continues what was read, if there is one.
    pub fn follow(&mut self, flow: &Flow) -> Option<Early<T>> {
        let stream = self.by_flow.get_mut(flow)?;
        let next = stream.next?;
        loop {
            let first = stream.early.front()?;
            if distance(next, first.seq) > 0 {
                return None;
            }
            let mut first = stream.early.pop_front()?;
            self.held -= first.bytes.len();
            if distance(next, first.end()) <= 0 {
                continue;
            }
            let old = usize::try_from(distance(first.seq, next)).unwrap_or(0);
            first.bytes.drain(..old.min(first.bytes.len()));
            stream.next = Some(advanced(next, first.bytes.len()));
            return Some(first);
        }
    }

    /// Gives a gap up: what was held behind it is next. `true` if a message was unfinished before it.
    pub fn give_up(&mut self, flow: &Flow) -> bool {
        let Some(stream) = self.by_flow.get_mut(flow) else { return false };
        let Some(first) = stream.early.front() else { return false };
        let seq = first.seq;
        if stream.next.is_none() {
            self.figures.mid_stream += 1;
            stream.start = seq;
        } else {
            self.figures.gaps += 1;
        }
        stream.next = Some(seq);
        self.held -= stream.unfinished.len();
        stream.parts.clear();
        stream.needs = Needs::More;
        !std::mem::take(&mut stream.unfinished).is_empty()
    }

    /// Is anything held of a stream behind a gap?
    pub fn is_waiting(&self, flow: &Flow) -> bool {
        self.by_flow.get(flow).is_some_and(|stream| !stream.early.is_empty())
    }

    /// Is a message of it unfinished?
    pub fn is_unfinished(&self, flow: &Flow) -> bool {
        self.by_flow.get(flow).is_some_and(|stream| !stream.unfinished.is_empty())
    }

    /// A stream whose gap has lasted too long.
    pub fn overdue(&mut self, now: Nanos) -> Option<Flow> {
        while let Some(&(since, flow)) = self.waiting.front() {
            if now.since(since) <= WAIT_NS {
                return None;
            }
            self.waiting.pop_front();
            let Some(stream) = self.by_flow.get_mut(&flow) else { continue };
            stream.is_waiting = false;
            // The gap may be another one than when the wait began.
            let Some(since) = stream.early.iter().map(|early| early.since).min() else { continue };
            stream.is_waiting = true;
            if now.since(since) > WAIT_NS {
                // There may be another gap behind this one.
                self.waiting.push_back((now, flow));
                return Some(flow);
            }
            self.waiting.push_back((since, flow));
        }
        None
    }

    /// Any stream with a gap: at the end of a capture nothing is waited for.
    pub fn any_waiting(&mut self) -> Option<Flow> {
        while let Some(&(_, flow)) = self.waiting.front() {
            match self.by_flow.get_mut(&flow) {
                Some(stream) if !stream.early.is_empty() => return Some(flow),
                Some(stream) => stream.is_waiting = false,
                None => {}
            }
            self.waiting.pop_front();
        }
        None
    }

    /// Joins bytes that are next to what was unfinished. `None` if that still waits for more.
    pub fn join<'a>(&mut self, flow: &Flow, fresh: Cow<'a, [u8]>, frame: u64) -> Option<Readable<'a>> {
        let stream = self.by_flow.get_mut(flow)?;
        if stream.unfinished.is_empty() {
            return Some(Readable { bytes: fresh, parts: Vec::new() });
        }
        let before = stream.unfinished.len();
        stream.unfinished.extend_from_slice(&fresh);
        let is_enough = stream.unfinished.len() > MAX_UNFINISHED
            || self.held + fresh.len() > MAX_HELD
            || match stream.needs {
                Needs::More => true,
                Needs::Bytes(count) => stream.unfinished.len() >= count,
                Needs::EmptyLine => {
                    let from = before.saturating_sub(3);
                    has_empty_line(stream.unfinished.get(from..).unwrap_or_default())
                }
            };
        if is_enough {
            self.held -= before;
            let bytes = Cow::Owned(std::mem::take(&mut stream.unfinished));
            return Some(Readable { bytes, parts: std::mem::take(&mut stream.parts) });
        }
        self.held += fresh.len();
        if stream.parts.len() < MAX_PARTS {
            stream.parts.push(frame);
        }
        None
    }

    /// Keeps the beginning of a message until it continues. `false` if there is no room for it.
    pub fn keep(&mut self, flow: &Flow, rest: &[u8], needs: Needs, parts: &[u64]) -> bool {
        let is_room = rest.len() <= MAX_UNFINISHED && self.held + rest.len() <= MAX_HELD;
        if let Some(stream) = self.by_flow.get_mut(flow).filter(|_| is_room) {
            stream.unfinished = rest.to_vec();
            stream.needs = needs;
            stream.parts.clear();
            stream.parts.extend(parts.iter().take(MAX_PARTS));
            self.held += rest.len();
        }
        is_room
    }

    /// What the reader remembers of a stream.
    pub fn state(&self, flow: &Flow) -> Option<&S> {
        self.by_flow.get(flow).map(|stream| &stream.state)
    }

    /// The same, to change it.
    pub fn state_mut(&mut self, flow: &Flow) -> Option<&mut S> {
        self.by_flow.get_mut(flow).map(|stream| &mut stream.state)
    }

    /// Counters.
    pub fn figures(&self) -> &TcpFigures {
        &self.figures
    }

    /// The same, for what only the reader knows.
    pub fn figures_mut(&mut self) -> &mut TcpFigures {
        &mut self.figures
    }

    /// Streams remembered, and bytes held of them.
    pub fn size(&self) -> (usize, usize) {
        (self.by_flow.len(), self.held)
    }

    fn hold<'a>(&mut self, flow: Flow, seq: u32, payload: &[u8], time: Nanos, tag: T) -> Accepted<'a> {
        let Some(stream) = self.by_flow.get_mut(&flow) else { return Accepted::Old };
        let end = advanced(seq, payload.len());
        let covers = |early: &Early<T>| distance(early.seq, seq) >= 0 && distance(end, early.end()) >= 0;
        if stream.early.iter().any(covers) {
            self.figures.retransmissions += 1;
            return Accepted::Old;
        }
        let at = stream.early.partition_point(|early| distance(early.seq, seq) >= 0);
        if stream.next.is_some() || at < stream.early.len() {
            self.figures.out_of_order += 1;
        }
        stream.early.insert(at, Early { seq, since: time, bytes: payload.to_vec(), tag });
        self.held += payload.len();
        if !stream.is_waiting {
            stream.is_waiting = true;
            if self.waiting.len() >= MAX_STREAMS {
                // Of streams that are forgotten, or fill up by themselves.
                self.waiting.pop_front();
            }
            self.waiting.push_back((time, flow));
        }
        let bytes: usize = stream.early.iter().map(|early| early.bytes.len()).sum();
        let is_full = stream.early.len() > MAX_EARLY || bytes > MAX_EARLY_BYTES || self.held > MAX_HELD;
        if is_full { Accepted::Full } else { Accepted::Held }
    }

    fn is_first(&self, flow: &Flow, seq: u32) -> bool {
        let first = self.by_flow.get(flow).and_then(|stream| stream.early.front());
        first.is_some_and(|first| first.seq == seq)
    }

    fn begin_at(&mut self, flow: &Flow, seq: u32) {
        if let Some(stream) = self.by_flow.get_mut(flow) {
            (stream.start, stream.next) = (seq, Some(seq));
        }
    }

    /// The stream goes that was not used for longest, or nearly.
    fn make_room(&mut self) {
        let mut chances = MAX_CHANCES;
        while self.by_flow.len() >= MAX_STREAMS {
            let Some(flow) = self.candidates.pop_front() else { return };
            let Some(stream) = self.by_flow.get_mut(&flow) else { continue };
            if stream.was_used && chances > 0 {
                chances -= 1;
                stream.was_used = false;
                self.candidates.push_back(flow);
                continue;
            }
            let held = stream.held();
            self.held -= held;
            self.figures.given_up += u64::from(held > 0);
            self.by_flow.remove(&flow);
        }
    }
}

impl<T, S: Default> Default for Stream<T, S> {
    fn default() -> Self {
        Self {
            start: 0,
            next: None,
            was_used: false,
            is_waiting: false,
            early: VecDeque::new(),
            unfinished: Vec::new(),
            needs: Needs::More,
            parts: Vec::new(),
            state: S::default(),
        }
    }
}

impl<T, S> Stream<T, S> {
    /// Where the stream stands, as far as that is known.
    fn position(&self) -> Option<u32> {
        self.next.or_else(|| self.early.front().map(|first| first.seq))
    }

    fn held(&self) -> usize {
        self.unfinished.len() + self.early.iter().map(|early| early.bytes.len()).sum::<usize>()
    }
}

fn has_empty_line(bytes: &[u8]) -> bool {
    let mut ends = bytes.iter().enumerate().filter(|(_, byte)| **byte == b'\n').map(|(at, _)| at);
    ends.any(|at| matches!(bytes.get(at + 1..), Some([b'\n', ..] | [b'\r', b'\n', ..])))
}

#[cfg(test)]
#[path = "reassembly_tests.rs"]
mod tests;

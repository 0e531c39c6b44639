//! Byte streams that carry captured frames: TCP segments in, whole messages out.
//!
//! ```text
//!   sequence numbers ─────────────────────────────────────────────▶
//!   run ▓▓▓▓▓▓▓▓▓▓▒▒▒        hole        run ░░░▓▓▓▓▓▓▓▓▓▓▓▓▓▒▒
//!       read      tail (unfinished)          head (before the first message that was recognised)
//! ```
//!
//! The capture of a capture lacks segments, has them twice, or begins in the middle. So nothing waits: what can be read
//! is read when it comes. A hole starts a new run, in which reading goes on at the first header that proves to be one;
//! when the hole is filled, the tail before it and the head behind it make a whole.
//!
//! Every message that was read is remembered by its place and content. That is how a copy of a segment yields nothing a
//! second time, however it was cut; and how a generator is read that writes whole messages under sequence numbers that
//! make no sense: other content at the same place is no copy.
//!
//! Bounded: connections (the longest unused goes), runs and bytes of each (the oldest run goes), messages remembered.

mod framing;

use std::collections::VecDeque;
use std::hash::Hasher as _;

use rustc_hash::{FxHashMap, FxHashSet, FxHasher};

use self::framing::{Found, Measure};
pub(super) use self::framing::{Framing, Messages};
use crate::packet::{Carrier, Encapsulation, Flow};
use crate::sequence::{advanced, distance};

/// Connections read at once, each direction one.
const MAX_STREAMS: usize = 64;
/// Runs of one stream, so holes between them.
const MAX_RUNS: usize = 8;
/// Bytes that one stream holds: unfinished messages, and what could not be read yet.
const MAX_HELD: usize = 256 << 10;
/// Messages remembered of one stream: a quarter of a second of 4,000 frames a second.
const MAX_REMEMBERED: usize = 1024;
/// Segments remembered of one stream, to say which of them held the beginning of what a later one completed: more than
/// carry the longest message.
const MAX_SEGMENTS: usize = 256;
/// How far from what was read a segment may be to belong to it.
const WINDOW: u32 = 1 << 20;
/// Doubtful bytes that are looked through with every segment. More of them are only when a sixteenth has come on top: a doubt
/// may last for a message of 64 KiB, and whoever sends headers without end must not have all of it read with each.
const DOUBTFUL: usize = 4 << 10;

/// What identifies a stream: the same connection seen inside another tunnel is another stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Key {
    pub(super) flow: Flow,
    pub(super) path: Encapsulation,
    pub(super) carrier: Carrier,
}

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Streams {
    by_key: FxHashMap<Key, Stream>,
    clock: u64,
    /// Frames that held other parts of what the last frame completed.
    parts: Vec<u64>,
}

#[derive(Debug)]
struct Stream {
    framing: Framing,
    used: u64,
    /// In the order of sequence numbers.
    runs: Vec<Run>,
    read: Read,
    scratch: Vec<u8>,
    /// The last segments: where they lay, and in which frames.
    segments: VecDeque<Piece>,
}

/// A segment, and the frame that held it.
#[derive(Clone, Copy, Debug)]
struct Piece {
    start: u32,
    end: u32,
    number: u64,
}

/// Consecutive bytes.
#[derive(Debug)]
struct Run {
    /// Sequence number of its first byte that may still be unread.
    start: u32,
    /// That of the byte after its last.
    next: u32,
    /// Its first bytes, if the first message that was recognised begins behind them.
    head: Vec<u8>,
    /// Its last bytes: an unfinished message, or all of them if none was recognised yet.
    tail: Vec<u8>,
    /// Does a message begin where `tail` does?
    in_step: bool,
    /// Was any message recognised in it?
    recognised: bool,
    /// Out of step: where in `tail` to look on.
    looked: usize,
    /// How long `tail` must be for that to be worth it again.
    look_at: usize,
}

/// Messages that were read: their places and contents.
#[derive(Debug, Default)]
struct Read {
    known: FxHashSet<(u32, u64)>,
    order: VecDeque<(u32, u64)>,
}

impl Streams {
    pub(super) fn is_empty(&self) -> bool {
        self.by_key.is_empty()
    }

    /// How a stream is framed that was seen before.
    pub(super) fn framing(&self, key: &Key) -> Option<Framing> {
        self.by_key.get(key).map(|stream| stream.framing)
    }

    /// Takes a segment, by its first sequence number and its frame's. `messages` then holds what it completed.
    pub(super) fn take(
        &mut self,
        key: Key,
        framing: Framing,
        (seq, number): (u32, u64),
        payload: &[u8],
        messages: &mut Messages,
    ) {
        messages.clear();
        self.clock += 1;
        if !self.by_key.contains_key(&key) && self.by_key.len() >= MAX_STREAMS {
            let longest_unused =
                self.by_key.iter().min_by_key(|(_, stream)| stream.used).map(|(key, _)| *key);
            longest_unused.and_then(|key| self.by_key.remove(&key));
        }
        let stream = self.by_key.entry(key).or_insert_with(|| Stream {
            framing,
            used: 0,
            runs: Vec::new(),
            read: Read::default(),
            scratch: Vec::new(),
            segments: VecDeque::new(),
        });
        stream.used = self.clock;
        stream.take(seq, payload, messages);
        stream.note_parts(
            Piece { start: seq, end: advanced(seq, payload.len()), number },
            messages,
            &mut self.parts,
        );
    }

    /// Frames that held other parts of what came since the last call.
    pub(super) fn take_parts(&mut self) -> Vec<u64> {
        std::mem::take(&mut self.parts)
    }
}

impl Stream {
    fn take(&mut self, seq: u32, payload: &[u8], messages: &mut Messages) {
        if let Some(last) = self.runs.last()
            && distance(last.next, seq).unsigned_abs() > WINDOW
        {
            // Another connection on these ports, or numbers without sense: neither continues what there is.
            self.runs.clear();
        }
        if self.framing.is_whole(payload) {
            self.take_whole(seq, payload, messages);
        } else {
            self.fill(seq, payload, Some(messages));
        }
        self.make_room();
    }

    /// Names the frames that held what was completed, besides the segment's own, and remembers it.
    fn note_parts(&mut self, segment: Piece, messages: &Messages, parts: &mut Vec<u64>) {
        for (start, length) in messages.places() {
            let end = advanced(start, length);
            if distance(segment.start, start) >= 0 && distance(end, segment.end) >= 0 {
                continue;
            }
            let held = |piece: &&Piece| distance(piece.start, end) > 0 && distance(start, piece.end) > 0;
            parts.extend(self.segments.iter().filter(held).map(|piece| piece.number));
        }
        if self.segments.len() == MAX_SEGMENTS {
            self.segments.pop_front();
        }
        self.segments.push_back(segment);
    }

    /// Whole messages: read for themselves, wherever they claim to be, unless they were.
    fn take_whole(&mut self, seq: u32, payload: &[u8], messages: &mut Messages) {
        let (mut at, mut rest) = (seq, payload);
        while let Measure::Long(length) = self.framing.measure(rest) {
            let Some((message, behind)) = rest.split_at_checked(length) else { break };
            // Old and further back than is remembered: whether it was read is not known. TCP says that it was.
            let is_forgotten = self.is_read(at) && !self.read.reaches(at);
            if !is_forgotten && self.read.is_new(at, message) {
                messages.push(at, message);
            }
            (at, rest) = (advanced(at, length), behind);
        }
        self.fill(seq, payload, None);
    }

    fn is_read(&self, at: u32) -> bool {
        self.runs.iter().any(|run| run.holds(at))
    }

    /// Puts a segment where it belongs, piece by piece if parts of it are there already. With `messages`, reads what
    /// becomes readable; without, it was read.
    fn fill(&mut self, seq: u32, payload: &[u8], mut messages: Option<&mut Messages>) {
        let (mut at, mut rest) = (seq, payload);
        while !rest.is_empty() {
            if let Some(run) = self.runs.iter().find(|run| run.holds(at)) {
                let old = usize::try_from(distance(at, run.next)).unwrap_or(usize::MAX);
                let Some(fresh) = rest.get(old..) else { return };
                (at, rest) = (run.next, fresh);
                continue;
            }
            let index = match self.runs.iter().position(|run| run.next == at) {
                Some(index) => index,
                None => self.begin(at),
            };
            let following = self.runs.get(index + 1).map(|run| distance(at, run.start));
            let room = following.and_then(|room| usize::try_from(room).ok()).unwrap_or(usize::MAX);
            let (piece, behind) = rest.split_at(room.min(rest.len()));
            let Some(run) = self.runs.get_mut(index) else { return };
            run.next = advanced(run.next, piece.len());
            if let Some(messages) = messages.as_deref_mut() {
                run.tail.extend_from_slice(piece);
                run.read(self.framing, &mut self.read, messages, &mut self.scratch);
            } else {
                run.tail.clear();
                (run.in_step, run.recognised, run.looked) = (true, true, 0);
            }
            if piece.len() == room {
                self.join(index, messages.as_deref_mut());
            }
            (at, rest) = (advanced(at, piece.len()), behind);
        }
    }

    /// A new run at `at`, in its place among the others.
    fn begin(&mut self, at: u32) -> usize {
        let index = self.runs.iter().take_while(|run| distance(run.start, at) > 0).count();
        let run = Run {
            start: at,
            next: at,
            head: Vec::new(),
            tail: Vec::new(),
            in_step: false,
            recognised: false,
            looked: 0,
            look_at: 0,
        };
        self.runs.insert(index, run);
        index
    }

    /// The hole between two runs is filled: what was cut there is made whole.
    fn join(&mut self, index: usize, messages: Option<&mut Messages>) {
        if index + 1 >= self.runs.len() {
            return;
        }
        let following = self.runs.remove(index + 1);
        let Some(run) = self.runs.get_mut(index) else { return };
        let between = if following.recognised { &following.head } else { &following.tail };
        run.tail.extend_from_slice(between);
        run.next = advanced(following.start, between.len());
        let mut unread = Messages::default();
        run.look_at = 0;
        run.read(self.framing, &mut self.read, messages.unwrap_or(&mut unread), &mut self.scratch);
        if following.recognised {
            if !run.recognised {
                // All of it lies before the first message that was recognised.
                run.head = std::mem::take(&mut run.tail);
            }
            // Otherwise what is left before a message that was recognised is none.
            run.tail = following.tail;
            (run.in_step, run.recognised, run.looked) = (following.in_step, true, following.looked);
            run.look_at = following.look_at;
        }
        run.next = following.next;
    }

    /// The oldest runs go; the newest is where the stream goes on.
    fn make_room(&mut self) {
        let held = |runs: &[Run]| runs.iter().map(|run| run.head.len() + run.tail.len()).sum::<usize>();
        while self.runs.len() > MAX_RUNS || self.runs.len() > 1 && held(&self.runs) > MAX_HELD {
            self.runs.remove(0);
        }
        if let Some(run) = self.runs.first_mut()
            && run.head.len() + run.tail.len() > MAX_HELD
        {
            // One run alone: no message is so long, so nothing of it was recognised.
            run.head.clear();
            run.tail.clear();
            (run.in_step, run.looked, run.look_at) = (false, 0, 0);
        }
    }
}

impl Run {
    fn holds(&self, at: u32) -> bool {
        distance(self.start, at) >= 0 && distance(at, self.next) > 0
    }

    /// Reads the messages in `tail`.
    fn read(&mut self, framing: Framing, read: &mut Read, messages: &mut Messages, scratch: &mut Vec<u8>) {
        let base = self.next.wrapping_sub(u32::try_from(self.tail.len()).unwrap_or(0));
        std::mem::swap(&mut self.tail, scratch);
        self.tail.clear();
        let bytes = scratch.as_slice();
        let mut at = 0;
        let mut look_from = self.looked;
        while let Some(rest) = bytes.get(at..).filter(|rest| !rest.is_empty()) {
            if !self.in_step {
                if bytes.len() - at < self.look_at {
                    break;
                }
                self.look_at = 0;
                match framing.find(bytes, look_from.max(at)) {
                    Found::At(found) => {
                        if !self.recognised {
                            self.head.extend_from_slice(bytes.get(..found).unwrap_or_default());
                        }
                        (at, self.in_step, self.recognised) = (found, true, true);
                        continue;
                    }
                    Found::LookAgainFrom(from) => {
                        look_from = from;
                        let doubtful = bytes.len().saturating_sub(from);
                        if doubtful > DOUBTFUL {
                            self.look_at = bytes.len() - at + doubtful / 16;
                        }
                        break;
                    }
                }
            }
            match framing.measure(rest) {
                Measure::Long(length) => {
                    let Some(message) = rest.get(..length) else { break };
                    let seq = advanced(base, at);
                    if read.is_new(seq, message) {
                        messages.push(seq, message);
                    }
                    at += length;
                }
                Measure::More => break,
                Measure::Bad => {
                    self.in_step = false;
                    look_from = at + 1;
                }
            }
        }
        self.tail.extend_from_slice(bytes.get(at..).unwrap_or_default());
        self.looked = look_from.saturating_sub(at);
    }
}

impl Read {
    /// Remembers a message. `false` if it was.
    fn is_new(&mut self, at: u32, message: &[u8]) -> bool {
        let mut hasher = FxHasher::default();
        hasher.write(message);
        let entry = (at, hasher.finish());
        if !self.known.insert(entry) {
            return false;
        }
        self.order.push_back(entry);
        if self.order.len() > MAX_REMEMBERED
            && let Some(oldest) = self.order.pop_front()
        {
            self.known.remove(&oldest);
        }
        true
    }

    /// Is what was read at `at` still remembered?
    fn reaches(&self, at: u32) -> bool {
        self.order.len() < MAX_REMEMBERED
            || self.order.front().is_some_and(|(oldest, _)| distance(*oldest, at) >= 0)
    }
}

#[cfg(test)]
#[path = "tests.rs"]
mod tests;

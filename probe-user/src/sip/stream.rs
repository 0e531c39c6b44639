//! SIP over TCP: segments in order, cut into messages by Content-Length.
//!
//! A segment that ends inside a message is held until the next one continues it. A segment that comes early
//! leaves a gap: what was held is lost and counted, and reading goes on at the next start line. Holding early
//! segments back until the gap is filled is left to a full reassembly.

use std::borrow::Cow;
use std::collections::VecDeque;

use rustc_hash::FxHashMap;

use crate::packet::Flow;

/// Connections remembered, each direction one. Idle ones hold 40 bytes.
const MAX_STREAMS: usize = 16_384;
/// Bytes held of one unfinished message: a SIP message over 64 KiB is not one.
const MAX_HELD: usize = 65_536;
/// Bytes held of all of them.
const MAX_HELD_TOTAL: usize = 16 << 20;
/// Frames remembered of one unfinished message: 64 KiB in segments of 1,400 bytes.
const MAX_PARTS: usize = 47;

/// Streams by direction.
#[derive(Debug, Default)]
pub(super) struct Streams {
    by_flow: FxHashMap<Flow, Stream>,
    oldest: VecDeque<Flow>,
    held: usize,
}

#[derive(Debug)]
struct Stream {
    next: u32,
    held: Vec<u8>,
    /// Frames that `held` came in; the first few.
    parts: Vec<u64>,
}

/// What a segment adds.
#[derive(Debug)]
pub(super) enum Segment<'a> {
    /// Bytes to read messages from, and whether a message was cut off by a gap before them.
    /// `parts` are the frames, besides this one, that the first message in them came in.
    Fresh { bytes: Cow<'a, [u8]>, lost_message: bool, parts: Vec<u64> },
    /// Nothing: all of it was seen before (a TCP retransmission).
    Old,
}

impl Streams {
    /// Sorts a segment into its stream.
    pub(super) fn accept<'a>(&mut self, flow: Flow, seq: u32, payload: &'a [u8]) -> Segment<'a> {
        // A segment is at most 64 KiB.
        let length = u32::try_from(payload.len()).unwrap_or(u32::MAX);
        if !self.by_flow.contains_key(&flow) {
            self.make_room();
            self.oldest.push_back(flow);
            self.by_flow.insert(flow, Stream { next: seq, held: Vec::new(), parts: Vec::new() });
        }
        let Some(stream) = self.by_flow.get_mut(&flow) else { return Segment::Old };
        let ahead = seq.wrapping_sub(stream.next).cast_signed();
        let overlap = usize::try_from(ahead.unsigned_abs()).unwrap_or(usize::MAX);
        // A jump far back is a new connection on old ports, not an old segment.
        let fresh = if ahead >= 0 || overlap > MAX_HELD {
            payload
        } else {
            match payload.get(overlap..) {
                Some(fresh) if !fresh.is_empty() => fresh,
                _ => return Segment::Old,
            }
        };
        stream.next = seq.wrapping_add(length);
        let mut held = std::mem::take(&mut stream.held);
        let parts = std::mem::take(&mut stream.parts);
        self.held -= held.len();
        let is_gap = ahead > 0 || overlap > MAX_HELD;
        let lost_message = is_gap && !held.is_empty();
        if held.is_empty() || is_gap {
            return Segment::Fresh { bytes: Cow::Borrowed(fresh), lost_message, parts: Vec::new() };
        }
        held.extend_from_slice(fresh);
        Segment::Fresh { bytes: Cow::Owned(held), lost_message, parts }
    }

    /// Holds the beginning of a message until it continues. `false` if there is no room for it.
    /// `parts` are the frames that it came in.
    pub(super) fn hold(&mut self, flow: &Flow, rest: &[u8], parts: &[u64]) -> bool {
        let is_room = rest.len() <= MAX_HELD && self.held + rest.len() <= MAX_HELD_TOTAL;
        if let Some(stream) = self.by_flow.get_mut(flow).filter(|_| is_room) {
            stream.held = rest.to_vec();
            stream.parts.extend(parts.iter().take(MAX_PARTS));
            self.held += rest.len();
        }
        is_room
    }

    fn make_room(&mut self) {
        while self.oldest.len() >= MAX_STREAMS {
            let gone = self.oldest.pop_front().and_then(|flow| self.by_flow.remove(&flow));
            self.held -= gone.map_or(0, |stream| stream.held.len());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::packet::Endpoint;

    fn flow(port: u16) -> Flow {
        Flow { src: Endpoint::v4([10, 0, 0, 1], port), dst: Endpoint::v4([10, 0, 0, 2], 5060) }
    }

    fn fresh(segment: Segment<'_>) -> Option<(Vec<u8>, bool)> {
        match segment {
            Segment::Fresh { bytes, lost_message, .. } => Some((bytes.into_owned(), lost_message)),
            Segment::Old => None,
        }
    }

    #[test]
    fn held_bytes_continue_across_a_wrap_and_old_segments_add_nothing() {
        let mut streams = Streams::default();
        let first = fresh(streams.accept(flow(1), u32::MAX - 1, b"abc"));
        assert_eq!(first, Some((b"abc".to_vec(), false)));
        assert!(streams.hold(&flow(1), b"bc", &[]));
        assert_eq!(fresh(streams.accept(flow(1), u32::MAX - 1, b"abc")), None);
        assert_eq!(fresh(streams.accept(flow(1), 0, b"cde")), Some((b"bcde".to_vec(), false)));
    }

    #[test]
    fn gap_loses_what_was_held_and_says_so() {
        let mut streams = Streams::default();
        streams.accept(flow(1), 100, b"abc");
        streams.hold(&flow(1), b"abc", &[]);
        assert_eq!(fresh(streams.accept(flow(1), 110, b"x")), Some((b"x".to_vec(), true)));
        assert_eq!(streams.held, 0);
    }

    #[test]
    fn flood_of_half_messages_stays_bounded() {
        let mut streams = Streams::default();
        let half = vec![b'x'; 4096];
        for n in 0..40_000_u32 {
            let flow = Flow { src: Endpoint::v4(n.to_be_bytes(), 1), ..flow(1) };
            streams.accept(flow, 0, &half);
            streams.hold(&flow, &half, &[]);
        }
        assert!(streams.by_flow.len() <= MAX_STREAMS && streams.held <= MAX_HELD_TOTAL);
        assert_eq!(streams.held, streams.by_flow.values().map(|s| s.held.len()).sum::<usize>());
    }
}

//! Datagrams of which a tap captured only the beginning, and the same datagrams whole.
//!
//! ```text
//!   tap with a snap length:   INVITE sip:bob@…  Via: SIP/2.0/UDP …|          cut
//!   tap without:              INVITE sip:bob@…  Via: SIP/2.0/UDP … v=0 …     whole
//!                             └── equal ──────────────────────────┘ and one UDP length, one flow, one moment
//! ```
//!
//! A hash of the whole payload finds no such copy. So the datagrams of the copy window are kept, and what has the same
//! flow, the same length by UDP and the same bytes as far as both were captured, is the same. Nothing is compared
//! while nothing is cut.

use std::collections::VecDeque;

use serde::Serialize;

use super::copies::Key;
use crate::dedup::FrameClass;
use crate::dedup::cluster::LATE_WINDOW_NS;
use crate::packet::{Evidence, Flow, Nanos};

/// Datagrams kept: the window of 8,000 a second.
const MAX_KEPT: usize = 1_024;
/// Bytes of them.
const MAX_BYTES: usize = 4 << 20;

/// The `captured` of the report: how much of SIP the capture holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct CapturedReport {
    /// Frames with SIP, copies apart.
    pub frames: u64,
    /// Of them, those of which nobody captured more than the beginning.
    pub cut: u64,
    /// The most bytes of SIP that there are of one of those.
    pub cut_at_bytes: usize,
}

impl CapturedReport {
    /// Takes a frame of which `captured` bytes of `length` are there.
    pub(super) fn note(&mut self, captured: usize, length: usize) {
        self.frames += 1;
        if captured < length {
            self.cut += 1;
            self.cut_at_bytes = self.cut_at_bytes.max(captured);
        }
    }

    /// The rest of one came from elsewhere.
    pub(super) fn was_completed(&mut self) {
        self.cut = self.cut.saturating_sub(1);
    }

    /// Is so much cut that what is missing means nothing?
    pub fn is_most(&self) -> bool {
        self.cut * 2 >= self.frames.max(1)
    }
}

/// A datagram as it was captured.
#[derive(Debug)]
pub(super) struct Captured {
    pub(super) time: Nanos,
    pub(super) number: u64,
    pub(super) flow: Flow,
    /// By UDP.
    pub(super) length: usize,
    /// Under which it was counted.
    pub(super) key: Key,
    /// What it was, before anything is known of a whole one.
    pub(super) class: FrameClass,
    pub(super) is_defective: bool,
    pub(super) evidence: Evidence,
    pub(super) bytes: Box<[u8]>,
}

impl Captured {
    fn is_cut(&self) -> bool {
        self.bytes.len() < self.length
    }
}

/// What can be read of a datagram of `length` bytes: a line that the capture cut off would be another Call-ID.
pub(super) fn whole_lines(bytes: &[u8], length: usize) -> &[u8] {
    let end = bytes.iter().rposition(|&byte| byte == b'\n').filter(|_| bytes.len() < length);
    end.and_then(|end| bytes.get(..=end)).unwrap_or(bytes)
}

/// Those of the last moment. See the module.
#[derive(Debug, Default)]
pub(super) struct Recent {
    kept: VecDeque<Captured>,
    bytes: usize,
    /// How many of them are cut.
    cut: usize,
}

impl Recent {
    /// Of what is this, captured at `time`, the rest or the beginning? The latest counts, and a whole one before a cut one.
    fn find(&mut self, time: Nanos, flow: &Flow, payload: &[u8], length: usize) -> Option<usize> {
        self.forget(time);
        let is_cut = payload.len() < length;
        if payload.is_empty() || !is_cut && self.cut == 0 {
            return None;
        }
        let is_same = |held: &&Captured| {
            let common = held.bytes.len().min(payload.len());
            (is_cut || held.is_cut())
                && held.length == length
                && held.flow == *flow
                && common > 0
                && held.bytes.get(..common) == payload.get(..common)
        };
        let whole = self.kept.iter().rposition(|held| !held.is_cut() && is_same(&held));
        whole.or_else(|| self.kept.iter().rposition(|held| is_same(&held)))
    }

    /// Under which key the beginning of a datagram was seen before, whole or cut.
    pub(super) fn known(&mut self, time: Nanos, flow: &Flow, payload: &[u8], length: usize) -> Option<Key> {
        let at = self.find(time, flow, payload, length)?;
        self.kept.get(at).map(|held| held.key)
    }

    /// What was seen of a whole datagram before, cut. It is no longer kept.
    pub(super) fn take_cut(&mut self, time: Nanos, flow: &Flow, payload: &[u8]) -> Option<Captured> {
        let at = self.find(time, flow, payload, payload.len())?;
        let cut = self.kept.remove(at)?;
        self.cut -= usize::from(cut.is_cut());
        self.bytes -= cut.bytes.len();
        Some(cut)
    }

    pub(super) fn keep(&mut self, captured: Captured) {
        self.cut += usize::from(captured.is_cut());
        self.bytes += captured.bytes.len();
        self.kept.push_back(captured);
        while self.kept.len() > MAX_KEPT || self.bytes > MAX_BYTES {
            self.drop_oldest();
        }
    }

    fn forget(&mut self, now: Nanos) {
        while self.kept.front().is_some_and(|oldest| now.since(oldest.time) > LATE_WINDOW_NS) {
            self.drop_oldest();
        }
    }

    fn drop_oldest(&mut self) {
        if let Some(oldest) = self.kept.pop_front() {
            self.cut -= usize::from(oldest.is_cut());
            self.bytes -= oldest.bytes.len();
        }
    }
}

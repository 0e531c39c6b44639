//! The same RTCP datagram again, from another tap or out of a tunnel, within a moment.
//!
//! Nobody sends the same RTCP twice within an eighth of a second (RFC 3550, 6.2 has seconds between reports, and a sender's
//! are stamped), so time and identity suffice; the causes of copies are told by the media itself.

use std::collections::VecDeque;
use std::hash::Hasher;

use rustc_hash::{FxHashMap, FxHasher};

use crate::packet::{Flow, Nanos};

/// As for SIP: a copy out of a tunnel may be that late.
const WINDOW_NS: i64 = crate::sip::copies::LATE_WINDOW_NS;
/// Datagrams remembered: the window of 64,000 a second, which is what 300,000 participants send.
const MAX_REMEMBERED: usize = 8_192;

/// What was seen in the last moment.
#[derive(Debug, Default)]
pub(super) struct Copies {
    seen: FxHashMap<(Flow, u64), Nanos>,
    oldest: VecDeque<(Nanos, (Flow, u64))>,
}

impl Copies {
    /// Was it seen before? Remembers it if not.
    pub(super) fn is_copy(&mut self, flow: Flow, payload: &[u8], time: Nanos) -> bool {
        while let Some(&(seen, key)) = self.oldest.front()
            && (time.since(seen) > WINDOW_NS || self.oldest.len() >= MAX_REMEMBERED)
        {
            self.oldest.pop_front();
            self.seen.remove(&key);
        }
        let mut hasher = FxHasher::default();
        hasher.write(payload);
        let key = (flow, hasher.finish());
        if self.seen.contains_key(&key) {
            return true;
        }
        self.seen.insert(key, time);
        self.oldest.push_back((time, key));
        false
    }
}

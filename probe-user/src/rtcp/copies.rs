//! The same RTCP datagram again, from another tap or out of a tunnel.
//!
//! A sender's reports are stamped and never equal, and a receiver's are seconds apart (RFC 3550, 6.2). So what is equal within two
//! seconds is a copy, however late its tunnel is, or says nothing new. The causes of copies are told by the media itself.

use std::collections::VecDeque;
use std::hash::Hasher;

use rustc_hash::{FxHashMap, FxHasher};

use crate::packet::{Flow, Nanos};

/// See the module.
const WINDOW_NS: i64 = 2_000_000_000;
/// Datagrams remembered: the window of 8,000 a second, which is what 40,000 participants send. 2 MiB.
const MAX_REMEMBERED: usize = 16_384;

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

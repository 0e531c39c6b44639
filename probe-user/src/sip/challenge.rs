//! Which request is one that comes again with credentials, as a 401 or 407 asked for.

use std::collections::VecDeque;
use std::hash::Hasher as _;

use rustc_hash::{FxHashMap, FxHasher};

use super::message::Message;

/// Challenges remembered, the oldest give way: 16 bytes each. A phone answers at once.
const MAX_CHALLENGES: usize = 16_384;

/// Challenges that nobody has answered yet, by Call-ID and method: the CSeq that was challenged.
#[derive(Debug, Default)]
pub(super) struct Challenges {
    open: FxHashMap<u64, u32>,
    oldest: VecDeque<u64>,
}

impl Challenges {
    /// Takes a message that was not sent before. Is it the request that a challenge asked for?
    pub(super) fn observe(&mut self, message: &Message<'_>) -> bool {
        let Some(cseq) = &message.cseq else { return false };
        let mut hasher = FxHasher::default();
        hasher.write(message.call_id);
        hasher.write(cseq.method.as_bytes());
        let key = hasher.finish();
        match message.status() {
            Some(401 | 407) => {
                if self.open.insert(key, cseq.number).is_none() {
                    self.oldest.push_back(key);
                }
                if self.oldest.len() > MAX_CHALLENGES
                    && let Some(gone) = self.oldest.pop_front()
                {
                    self.open.remove(&gone);
                }
                false
            }
            Some(_) => false,
            None => {
                let has_credentials = || {
                    message.header("authorization", None).is_some()
                        || message.header("proxy-authorization", None).is_some()
                };
                // An ACK to the challenge has its CSeq number, and another method.
                self.open.contains_key(&key) && has_credentials() && self.open.remove(&key).is_some()
            }
        }
    }
}

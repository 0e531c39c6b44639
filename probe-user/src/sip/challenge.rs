//! Which request is one that comes again with credentials, as a 401 or 407 asked for, and which of those are refused again.
//!
//! ```text
//!   request ─▶ 401 ─▶ request with credentials ─▶ 200            ordinary
//!                                              └▶ 401 ─▶ … ─▶ 401   refused: a wrong password, or one that is guessed
//! ```

use std::collections::VecDeque;
use std::hash::Hasher as _;

use rustc_hash::{FxHashMap, FxHasher};
use serde::Serialize;

use super::message::Message;

/// Challenges remembered, the oldest give way: 32 bytes each. A phone answers at once.
const MAX_CHALLENGES: usize = 16_384;
/// Refusals of credentials from which it is no accident: a proxy and a server behind it may each ask once, and a nonce
/// may be too old.
pub const REFUSED_OFTEN: u32 = 2;

/// The `auth_refused` of the report.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct AuthRefused {
    /// Requests whose credentials were refused twice or more and that got no other final answer, by Call-ID and method.
    pub requests: u64,
    /// 401 and 407 that they got.
    pub challenges: u64,
    /// Frame of the first refusal of one of them.
    pub first_frame: Option<u64>,
}

/// What a message is to a challenge.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Challenged {
    /// Nothing.
    No,
    /// The request that it asked for.
    Retry,
    /// Another, in answer to credentials.
    Refused,
}

/// Challenges that nobody has answered yet, or only with credentials that may be refused, by Call-ID and method.
#[derive(Debug, Default)]
pub(super) struct Challenges {
    open: FxHashMap<u64, Open>,
    oldest: VecDeque<u64>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Open {
    /// CSeq of the request with credentials, once it came.
    retry: Option<u32>,
    challenges: u32,
    /// Of them, those that refuse credentials.
    refusals: u32,
    first_refusal: u64,
}

impl Challenges {
    /// Takes a message that was not sent before, of frame `number`.
    pub(super) fn observe(&mut self, number: u64, message: &Message<'_>) -> Challenged {
        let Some(cseq) = &message.cseq else { return Challenged::No };
        let mut hasher = FxHasher::default();
        hasher.write(message.call_id);
        hasher.write(cseq.method.as_bytes());
        let key = hasher.finish();
        match message.status() {
            Some(401 | 407) => self.challenge(key, number, cseq.number, message),
            Some(200..) => {
                // Another answer than that: whoever it was, the credentials were good.
                if self.open.get(&key).is_some_and(|open| open.retry.is_some()) {
                    self.open.remove(&key);
                }
                Challenged::No
            }
            Some(_) => Challenged::No,
            None => {
                let has_credentials = || {
                    message.header("authorization", None).is_some()
                        || message.header("proxy-authorization", None).is_some()
                };
                // An ACK to the challenge has its CSeq number, and another method.
                match self.open.get_mut(&key).filter(|open| open.retry.is_none() && has_credentials()) {
                    Some(open) => {
                        open.retry = Some(cseq.number);
                        Challenged::Retry
                    }
                    None => Challenged::No,
                }
            }
        }
    }

    fn challenge(&mut self, key: u64, number: u64, cseq: u32, message: &Message<'_>) -> Challenged {
        if !self.open.contains_key(&key) {
            self.oldest.push_back(key);
        }
        let open = self.open.entry(key).or_default();
        open.challenges += 1;
        let is_refusal = open.retry.take() == Some(cseq) && !is_stale(message);
        if is_refusal {
            open.refusals += 1;
            if open.refusals == 1 {
                open.first_refusal = number;
            }
        }
        if self.oldest.len() > MAX_CHALLENGES
            && let Some(gone) = self.oldest.pop_front()
        {
            self.open.remove(&gone);
        }
        if is_refusal { Challenged::Refused } else { Challenged::No }
    }

    /// Those whose credentials are refused, as far as is known.
    pub(super) fn refused(&self) -> AuthRefused {
        let refused = || self.open.values().filter(|open| open.refusals >= REFUSED_OFTEN);
        AuthRefused {
            requests: refused().count() as u64,
            challenges: refused().map(|open| u64::from(open.challenges)).sum(),
            first_frame: refused().map(|open| open.first_refusal).min(),
        }
    }
}

/// The credentials were good, the nonce too old (RFC 7616, 3.3).
fn is_stale(message: &Message<'_>) -> bool {
    let challenge = message.header("www-authenticate", None);
    let challenge = challenge.or_else(|| message.header("proxy-authenticate", None)).unwrap_or_default();
    challenge.to_ascii_lowercase().windows(10).any(|part| part == b"stale=true")
}

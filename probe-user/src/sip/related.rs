//! Which calls have to do with each other, as one of them says in a header.
//!
//! ```text
//!   call B: X-Call-ID: A ──▶ A known?  yes ─▶ A and B are related, each is told
//!                                      no ──▶ awaited under A ──▶ A begins ─▶ related
//! ```
//!
//! Back-to-back user agents write the Call-ID of the one leg into a header of the other, each vendor into one of its
//! own; Replaces (RFC 3891) names the call whose place is taken. Which call comes first makes no difference.

use std::collections::VecDeque;
use std::sync::Arc;

use rustc_hash::FxHashMap;

use super::call::name_text;
use super::message::Message;
use super::report::Relation;
use super::transfer::Replaces;

/// Calls awaited at one time, some 100 bytes each; the one awaited longest gives way.
const MAX_AWAITED: usize = 16_384;
/// Calls awaited under one Call-ID: nobody has more legs.
const MAX_PER_NAME: usize = 8;

/// Headers that carry the Call-ID of a back-to-back user agent's other leg.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LegHeaders(Arc<[Box<str>]>);

impl LegHeaders {
    /// Known without being told: what Homer, sngrep and the usual scripts of proxies know.
    pub const USUAL: [&str; 4] = ["X-Call-ID", "X-CID", "X-Orig-Call-ID", "X-Original-Call-ID"];

    /// The usual ones, and these.
    pub fn and<'a>(more: impl IntoIterator<Item = &'a str>) -> Self {
        Self(Self::USUAL.into_iter().chain(more).map(Into::into).collect())
    }

    /// The one of this name, in any case, as it was given.
    fn find(&self, name: &[u8]) -> Option<&str> {
        self.0.iter().map(|known| &**known).find(|known| name.eq_ignore_ascii_case(known.as_bytes()))
    }
}

impl Default for LegHeaders {
    fn default() -> Self {
        Self::and([])
    }
}

/// A relation that a call claims to another.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Claim {
    /// Who claims it.
    pub(super) serial: u64,
    /// What the other is to it.
    pub(super) relation: Relation,
    pub(super) because: Box<str>,
}

/// Claims to calls that have not been seen.
#[derive(Debug)]
pub(super) struct Relations {
    headers: LegHeaders,
    awaited: FxHashMap<Box<str>, Waiting>,
    /// Names in the order in which they were awaited, with the number that tells a name from its next time.
    oldest: VecDeque<(u64, Box<str>)>,
    next: u64,
    forgotten: u64,
}

#[derive(Debug)]
struct Waiting {
    number: u64,
    claims: Vec<Claim>,
}

impl Relations {
    /// With these headers for legs.
    pub(super) fn new(headers: LegHeaders) -> Self {
        Self { headers, awaited: FxHashMap::default(), oldest: VecDeque::new(), next: 0, forgotten: 0 }
    }

    /// What an INVITE claims, and of which Call-ID.
    pub(super) fn claims(&self, serial: u64, message: &Message<'_>) -> Vec<(Box<str>, Claim)> {
        let mut claims = Vec::new();
        if let Some(replaces) = Replaces::of(message) {
            let because = "Replaces in the INVITE".into();
            claims.push((replaces.call_id, Claim { serial, relation: Relation::Replaces, because }));
        }
        for header in message.headers() {
            let Some(name) = self.headers.find(header.name) else { continue };
            // The message's own Call-ID names nobody else.
            if header.value.is_empty() || header.value == message.call_id || claims.len() >= MAX_PER_NAME {
                continue;
            }
            let call_id = name_text(header.value).into();
            let because = format!("{name} in the INVITE").into();
            claims.push((call_id, Claim { serial, relation: Relation::B2buaLeg, because }));
        }
        claims
    }

    /// Keeps a claim until the call that it names begins.
    pub(super) fn await_call(&mut self, call_id: Box<str>, claim: Claim) {
        if let Some(Waiting { claims, .. }) = self.awaited.get_mut(&call_id) {
            if claims.len() < MAX_PER_NAME && !claims.contains(&claim) {
                claims.push(claim);
            }
            return;
        }
        let is_waiting = |awaited: &FxHashMap<Box<str>, Waiting>, (number, name): &(u64, Box<str>)| {
            awaited.get(name).is_some_and(|waiting| waiting.number == *number)
        };
        while self.awaited.len() >= MAX_AWAITED {
            let Some(gone) = self.oldest.pop_front() else { break };
            if is_waiting(&self.awaited, &gone) {
                self.awaited.remove(&gone.1);
                self.forgotten += 1;
            }
        }
        if self.oldest.len() >= 2 * MAX_AWAITED {
            self.oldest.retain(|name| is_waiting(&self.awaited, name));
        }
        self.next += 1;
        self.oldest.push_back((self.next, call_id.clone()));
        self.awaited.insert(call_id, Waiting { number: self.next, claims: vec![claim] });
    }

    /// Claims to the call that begins now.
    pub(super) fn begun(&mut self, call_id: &str) -> Vec<Claim> {
        self.awaited.remove(call_id).map(|waiting| waiting.claims).unwrap_or_default()
    }

    /// Claims given up for want of room.
    pub(super) fn forgotten(&self) -> u64 {
        self.forgotten
    }
}

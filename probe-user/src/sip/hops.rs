//! The INVITE that makes a call, on each hop where the capture shows it.
//!
//! ```text
//!   caller ── branch a ──▶ proxy ─┬─ branch b ──▶ one fork
//!           the first hop         └─ branch c ──▶ another
//! ```
//!
//! The first one seen is the nearest to the caller. A refusal there is the call's; one behind it is only a fork's or a
//! hop's, and the proxy may try elsewhere, until every hop was refused.

use super::call::{Sighting, hash, tag_hash};
use super::message::Message;
use crate::packet::{Endpoint, Nanos};

/// Hops that are told apart.
const MAX_HOPS: usize = 8;

/// The caller's tag and the CSeq number: what an INVITE keeps on all its way, and an attempt has of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Origin {
    pub(super) caller: u64,
    pub(super) cseq: u32,
}

impl Origin {
    pub(super) fn of(message: &Message<'_>) -> Self {
        let cseq = message.cseq.map_or(0, |cseq| cseq.number);
        Self { caller: tag_hash(message.from().tag), cseq }
    }
}

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Hops {
    known: Vec<Hop>,
    /// The latest refusal, when it was first seen.
    refused: Option<Refusal>,
}

#[derive(Clone, Copy, Debug)]
struct Hop {
    origin: Origin,
    branch: u64,
    sent_by: Endpoint,
    frame: u64,
    is_refused: bool,
}

#[derive(Clone, Copy, Debug)]
struct Refusal {
    code: u16,
    called: u64,
    at: Nanos,
}

/// What the caller's ACK says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Acknowledged {
    /// There was a 2xx: the ACK is a transaction of its own (RFC 3261, 13.2.2.4).
    Answer,
    /// There was a refusal: it belongs to the INVITE's transaction (17.1.1.3).
    Refusal,
}

impl Hops {
    /// Was no INVITE seen that makes the call?
    pub(super) fn is_empty(&self) -> bool {
        self.known.is_empty()
    }

    /// Is this INVITE a later attempt of the same caller?
    pub(super) fn is_further(&self, message: &Message<'_>) -> bool {
        let Origin { caller, cseq } = Origin::of(message);
        self.known.first().is_some_and(|first| first.origin.caller == caller && first.origin.cseq < cseq)
    }

    /// Another attempt begins.
    pub(super) fn clear(&mut self) {
        self.known.clear();
        self.refused = None;
    }

    /// The INVITE was seen here.
    pub(super) fn note(&mut self, at: Sighting, message: &Message<'_>) {
        let (origin, branch) = (Origin::of(message), hash(&message.branch()));
        let is_known = self.known.iter().any(|known| (known.origin, known.branch) == (origin, branch));
        if !is_known && self.known.len() < MAX_HOPS {
            // Most calls are seen on one hop.
            self.known.reserve_exact(1);
            self.known.push(Hop {
                origin,
                branch,
                sent_by: at.flow.src,
                frame: at.number,
                is_refused: false,
            });
        }
    }

    /// The INVITE that was noted of the beginning in this frame is known whole now.
    pub(super) fn complete(&mut self, frame: u64, message: &Message<'_>) {
        let (origin, branch) = (Origin::of(message), hash(&message.branch()));
        let is_it = |hop: &Hop| hop.frame != frame && (hop.origin, hop.branch) == (origin, branch);
        if self.known.iter().any(is_it) {
            self.known.retain(|hop| hop.frame != frame);
        } else if let Some(hop) = self.known.iter_mut().find(|hop| hop.frame == frame) {
            (hop.origin, hop.branch) = (origin, branch);
        }
    }

    /// Is this a response to that INVITE, on whatever hop?
    pub(super) fn are_answered_by(&self, message: &Message<'_>) -> bool {
        let origin = Origin::of(message);
        self.known.iter().any(|hop| hop.origin == origin)
    }

    /// Is the message part of the INVITE's transaction on a hop behind the first?
    pub(super) fn is_behind(&self, message: &Message<'_>) -> bool {
        let branch = hash(&message.branch());
        self.known.iter().position(|hop| hop.branch == branch).is_some_and(|place| place > 0)
    }

    /// Is the tag that of a caller? A back-to-back user agent is one on its hop.
    pub(super) fn have_caller(&self, tag: u64) -> bool {
        self.known.iter().any(|hop| hop.origin.caller == tag)
    }

    /// The INVITE is refused here. Gives since when the call is: it may have been seen on hops behind first.
    pub(super) fn refuse(&mut self, at: Sighting, message: &Message<'_>, code: u16) -> Option<Nanos> {
        let branch = hash(&message.branch());
        let called = tag_hash(message.to().tag);
        let is_same = |refusal: &Refusal| (refusal.code, refusal.called) == (code, called);
        let since = self.refused.filter(is_same).map_or(at.time, |refusal| refusal.at);
        self.refused = Some(Refusal { code, called, at: since });
        if let Some(hop) = self.known.iter_mut().find(|hop| hop.branch == branch) {
            hop.is_refused = true;
        }
        let is_over = !self.is_behind(message) || self.known.iter().all(|hop| hop.is_refused);
        is_over.then_some(since)
    }

    /// What the latest refusal was, on whatever hop.
    pub(super) fn refused(&self) -> Option<u16> {
        self.refused.map(|refusal| refusal.code)
    }

    /// What an ACK says, if it is the caller's own.
    pub(super) fn acknowledged(&self, at: Sighting, message: &Message<'_>) -> Option<Acknowledged> {
        let first = self.known.first()?;
        if first.origin != Origin::of(message) || first.sent_by != at.flow.src {
            return None;
        }
        let branch = hash(&message.branch());
        if self.known.iter().any(|hop| hop.branch == branch) {
            return Some(Acknowledged::Refusal);
        }
        message.to().tag.is_some().then_some(Acknowledged::Answer)
    }
}

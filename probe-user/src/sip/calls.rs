//! Calls: what INVITE began, by Call-ID, from first ring to the end, and who ended it.
//!
//! ```text
//!   message ─▶ Call-ID ─▶ call ─▶ state, figures, moments
//!                          ├─▶ transfer: which REFER made it
//!                          ├─▶ related: which other call it names
//!                          └─▶ sight: when it will have been silent for too long
//! ```
//!
//! A call here is all dialogs with one Call-ID that an INVITE makes, or that were found in progress by what belongs into
//! one only: a response to INVITE, a BYE, PRACK or UPDATE. Registrations, pings, subscriptions and messages outside a call
//! are counted in the totals and are no calls. A transfer by REFER belongs to the call that carries the REFER; the call
//! that it makes is another, and is related to it.
//!
//! Repeats of a message (the same bytes again) change nothing but the counts. When all places are taken, the
//! call that ended first makes room, and if none has ended, the oldest; both are counted. So it is when the media lines of
//! all calls together, and what their parties offered, hold 8 KiB a place: most calls announce a tenth of that, some of WebRTC more.

use std::collections::VecDeque;
use std::sync::Arc;

use rustc_hash::FxHashMap;

use super::call::{Call, Sighting, name_text, tag_hash};
use super::copies::{Repeat, Timer};
use super::media::MediaTable;
use super::message::Message;
use super::related::{Claim, LegHeaders, Relations};
pub use super::report::{CallEvent, CallReport, CallState, Moment, What};
use super::report::{Related, Relation};
use super::sight::{self, Sight};
use super::transfer::{self, Awaited};
use crate::packet::{Flow, Nanos};

/// Calls kept by default, ended ones included: 100,000 take well under 1 GiB.
pub const MAX_CALLS: usize = 100_000;
/// Bytes of announced media lines for each place of a call. Two lines of a telephone hold less than 1 KiB, of a browser 8:
/// at the default bound it is 780 MiB together. Without it, descriptions made for the purpose held 4 GiB.
const MEDIA_BYTES: usize = 8_192;
/// Relations told of one call.
const MAX_RELATED: usize = 8;
/// When a Call-ID may be used again although its call has not ended, as far as was seen: 64 T1.
const REUSE_NS: i64 = 32_000_000_000;

/// All calls. See the module's text.
#[derive(Debug)]
pub struct Calls {
    by_id: FxHashMap<Arc<str>, u64>,
    by_serial: FxHashMap<u64, Box<Call>>,
    next: u64,
    live: usize,
    bound: usize,
    /// Bytes that what was announced in all calls holds.
    media_bytes: usize,
    ended: VecDeque<u64>,
    begun: VecDeque<u64>,
    events: Vec<CallEvent>,
    is_followed: bool,
    refers: Awaited,
    relations: Relations,
    sight: Sight,
    lost_sight: u64,
    evicted_ended: u64,
    evicted_live: u64,
}

impl Calls {
    pub(super) fn new(max_calls: usize, leg_headers: LegHeaders, has_events: bool) -> Self {
        Self {
            by_id: FxHashMap::default(),
            by_serial: FxHashMap::default(),
            next: 0,
            live: 0,
            bound: max_calls.max(1),
            media_bytes: 0,
            ended: VecDeque::new(),
            begun: VecDeque::new(),
            events: Vec::new(),
            is_followed: has_events,
            refers: Awaited::default(),
            relations: Relations::new(leg_headers),
            sight: Sight::default(),
            lost_sight: 0,
            evicted_ended: 0,
            evicted_live: 0,
        }
    }

    /// Calls kept, ended ones included.
    pub fn len(&self) -> usize {
        self.by_serial.len()
    }

    /// Was there none?
    pub fn is_empty(&self) -> bool {
        self.by_serial.is_empty()
    }

    /// Calls that are not over. Counted as they begin and end: there are many, and each round asks.
    pub fn live(&self) -> usize {
        self.live
    }

    /// Calls that began, those given up since included.
    pub(super) fn count_begun(&self) -> u64 {
        self.next
    }

    /// Calls given up for want of room: ended ones, and such that were not over.
    pub fn evicted(&self) -> (u64, u64) {
        (self.evicted_ended, self.evicted_live)
    }

    /// Calls that were silent for too long. One that came back and was lost again counts twice.
    pub fn lost_sight(&self) -> u64 {
        self.lost_sight
    }

    /// REFERs and names of other calls given up for want of room: `related` may lack these.
    pub fn relations_forgotten(&self) -> u64 {
        self.refers.forgotten() + self.relations.forgotten()
    }

    /// The call that has this Call-ID now.
    pub fn find(&self, call_id: &str) -> Option<&CallReport> {
        Some(&self.by_serial.get(self.by_id.get(call_id)?)?.report)
    }

    /// All calls, in the order in which they began.
    pub fn reports(&self) -> Vec<&CallReport> {
        let mut calls: Vec<_> = self.by_serial.iter().collect();
        calls.sort_unstable_by_key(|(serial, _)| **serial);
        calls.into_iter().map(|(_, call)| &call.report).collect()
    }

    /// What changed since the last call; empty unless asked for at the beginning.
    pub fn drain_events(&mut self) -> std::vec::Drain<'_, CallEvent> {
        self.events.drain(..)
    }

    /// Lets packet time pass: calls of which nothing is heard any more are over.
    pub(super) fn advance(&mut self, now: Nanos, media: &mut MediaTable) {
        while let Some(serial) = self.sight.next(now) {
            let Some(call) = self.by_serial.get_mut(&serial) else { continue };
            call.is_watched = false;
            if call.report.state.is_over() {
                continue;
            }
            let deadline = sight::deadline(call, media);
            if deadline > now {
                self.watch(serial, now, deadline);
                continue;
            }
            let what = call.lose_sight(now, media);
            let at = Sighting { time: now, ..call.latest };
            self.lost_sight += 1;
            self.follow(serial, at, [Some(what), None], false, media);
        }
    }

    /// Takes a message into its call, if it has one, and its SDP into the media table.
    pub(super) fn observe(
        &mut self,
        at: Sighting,
        message: &Message<'_>,
        repeat: Option<Repeat>,
        media: &mut MediaTable,
    ) -> Option<u64> {
        let (serial, is_begun) = self.serial(at, message, repeat.is_some())?;
        let call = self.by_serial.get_mut(&serial)?;
        call.report.messages += 1;
        call.report.last_seen = call.report.last_seen.max(at.time);
        match repeat {
            Some(Repeat::Timer(timer)) => call.repeated(timer, 1),
            Some(_) => {}
            None => {
                let was_over = call.report.state.is_over();
                let held_bytes = call.held_bytes();
                let moved = call.advance(at, message, media);
                let held = call.negotiate(at, message, media);
                self.media_bytes = self.media_bytes + call.held_bytes() - held_bytes;
                self.follow(serial, at, [moved, held], was_over, media);
                self.relate(serial, at, message, is_begun);
            }
        }
        Some(serial)
    }

    /// A message that was taken into its call as far as it was captured is known whole now.
    pub(super) fn complete(
        &mut self,
        serial: u64,
        at: Sighting,
        cut: (u64, bool),
        message: &Message<'_>,
        media: &mut MediaTable,
    ) {
        let Some(call) = self.by_serial.get_mut(&serial) else { return };
        let was_over = call.report.state.is_over();
        let held_bytes = call.held_bytes();
        let happened = call.complete(at, cut, message, media);
        self.media_bytes = self.media_bytes + call.held_bytes() - held_bytes;
        let is_begun = call.report.first_frame == cut.0;
        self.follow(serial, at, happened, was_over, media);
        self.relate(serial, at, message, is_begun);
    }

    /// Remembers and tells what a message did to its call.
    fn follow(
        &mut self,
        serial: u64,
        at: Sighting,
        happened: [Option<What>; 2],
        was_over: bool,
        media: &MediaTable,
    ) {
        let Some(call) = self.by_serial.get_mut(&serial) else { return };
        for what in happened.into_iter().flatten() {
            let moment = call.remember(at, what);
            if self.is_followed {
                self.events.push(event(&call.report, moment, at.flow));
            }
        }
        let is_over = call.report.state.is_over();
        match (was_over, is_over) {
            (false, true) => self.live -= 1,
            (true, false) => self.live += 1,
            _ => {}
        }
        if is_over && !was_over {
            // It may be kept for long.
            call.report.moments.shrink_to_fit();
            self.ended.push_back(serial);
        }
        if !is_over && !call.is_watched {
            let deadline = sight::deadline(call, media);
            self.watch(serial, at.time, deadline);
        }
    }

    fn watch(&mut self, serial: u64, now: Nanos, deadline: Nanos) {
        if let Some(call) = self.by_serial.get_mut(&serial) {
            call.is_watched = true;
            self.sight.watch(serial, now, deadline);
        }
    }

    /// Joins calls by what a message says of others.
    fn relate(&mut self, serial: u64, at: Sighting, message: &Message<'_>, is_begun: bool) {
        match (message.method(), message.status()) {
            ("INVITE", None) if is_begun => self.relate_new(serial, at, message),
            ("REFER", None) => self.refers.expect(serial, at, message),
            ("REFER", Some(300..=699)) => {
                let cseq = message.cseq.map(|cseq| cseq.number);
                let transfers = self.by_serial.get(&serial).map(|call| &call.report.transfers);
                let refused = transfers.and_then(|all| all.iter().rfind(|one| Some(one.cseq) == cseq));
                if let Some(refused) = refused {
                    self.refers.refused(refused.frame);
                }
            }
            _ => {}
        }
    }

    fn relate_new(&mut self, serial: u64, at: Sighting, message: &Message<'_>) {
        let Some(call) = self.by_serial.get(&serial) else { return };
        let call_id = Arc::clone(&call.report.call_id);
        for claim in self.relations.begun(&call_id) {
            self.link(serial, at, &claim);
        }
        for (name, claim) in self.relations.claims(serial, message) {
            match self.by_id.get(&*name) {
                Some(&named) => self.link(named, at, &claim),
                None => self.relations.await_call(name, claim),
            }
        }
        let Some(made) = self.refers.made(serial, at, message) else { return };
        if let Some(by) = self.by_serial.get_mut(&made.by) {
            transfer::note_made(&mut by.report, made.frame, &call_id);
        }
        let because = made.because;
        self.link(made.by, at, &Claim { serial, relation: Relation::TransferredFrom, because });
    }

    /// The call `named` is what another one claims. Each is told of the other.
    fn link(&mut self, named: u64, at: Sighting, claim: &Claim) {
        if named == claim.serial {
            return;
        }
        let id = |serial| Some(Arc::clone(&self.by_serial.get(&serial)?.report.call_id));
        let (Some(named_id), Some(claimant_id)) = (id(named), id(claim.serial)) else { return };
        let mut tell = |serial, call_id, relation| {
            let Some(call) = self.by_serial.get_mut(&serial) else { return };
            let related = &mut call.report.related;
            let is_known =
                related.iter().any(|known| (&known.call_id, known.relation) == (&call_id, relation));
            if !is_known && related.len() < MAX_RELATED {
                related.push(Related { call_id, relation, because: claim.because.clone() });
            }
        };
        tell(claim.serial, named_id, claim.relation);
        tell(named, claimant_id, claim.relation.inverse());
        if claim.relation == Relation::Replaces
            && let Some(call) = self.by_serial.get_mut(&named)
        {
            let moment = call.remember(at, What::Replaced);
            if self.is_followed {
                self.events.push(event(&call.report, moment, at.flow));
            }
        }
    }

    pub(super) fn note_copy(&mut self, serial: u64) {
        if let Some(call) = self.by_serial.get_mut(&serial) {
            call.report.message_copies += 1;
        }
    }

    /// What had been counted as a message was a copy.
    pub(super) fn note_was_copy(&mut self, serial: u64) {
        if let Some(call) = self.by_serial.get_mut(&serial) {
            call.report.messages = call.report.messages.saturating_sub(1);
            call.report.message_copies += 1;
        }
    }

    /// What had been counted as a message is counted for itself.
    pub(super) fn note_was_none(&mut self, serial: u64) {
        if let Some(call) = self.by_serial.get_mut(&serial) {
            call.report.messages = call.report.messages.saturating_sub(1);
        }
    }

    /// A message counted before turns out to have been sent again by this timer.
    pub(super) fn note_retransmission(&mut self, serial: u64, timer: Timer) {
        if let Some(call) = self.by_serial.get_mut(&serial) {
            call.repeated(timer, 1);
        }
    }

    /// A 401 or 407 answers credentials.
    pub(super) fn note_refused_credentials(&mut self, serial: u64) {
        if let Some(call) = self.by_serial.get_mut(&serial) {
            call.report.credentials_refused += 1;
        }
    }

    /// The call of a message, and whether it begins with it: by Call-ID, or a new one if the message begins or betrays one.
    fn serial(&mut self, at: Sighting, message: &Message<'_>, is_repeat: bool) -> Option<(u64, bool)> {
        let id = name_text(message.call_id);
        if id.is_empty() {
            return None;
        }
        let begins = message.status().is_none() && message.method() == "INVITE" && message.to().tag.is_none();
        if let Some(&serial) = self.by_id.get(&*id) {
            let call = self.by_serial.get(&serial).filter(|_| begins && !is_repeat);
            if !call.is_some_and(|call| is_reused(call, at.time, tag_hash(message.from().tag))) {
                return Some((serial, false));
            }
        }
        if !matches!(message.method(), "INVITE" | "BYE" | "PRACK" | "UPDATE") {
            return None;
        }
        self.make_room();
        let call_id: Arc<str> = id.into();
        let serial = self.next;
        self.next += 1;
        self.live += 1;
        self.by_id.insert(Arc::clone(&call_id), serial);
        self.begun.push_back(serial);
        self.by_serial.insert(serial, Box::new(Call::new(call_id, at, message, begins)));
        Some((serial, true))
    }

    fn make_room(&mut self) {
        while self.by_serial.len() >= self.bound || self.media_bytes > self.bound.saturating_mul(MEDIA_BYTES)
        {
            let (serial, ended) = match self.ended.pop_front() {
                Some(serial) => (serial, true),
                None => match self.begun.pop_front() {
                    Some(serial) => (serial, false),
                    None => return,
                },
            };
            let Some(call) = self.by_serial.get(&serial) else { continue };
            // A call that failed may have been tried again since.
            if ended && !call.report.state.is_over() {
                continue;
            }
            let call_id = Arc::clone(&call.report.call_id);
            self.live -= usize::from(!call.report.state.is_over());
            self.evicted_ended += u64::from(ended);
            self.evicted_live += u64::from(!ended);
            self.media_bytes -= call.held_bytes();
            self.by_serial.remove(&serial);
            if self.by_id.get(&call_id) == Some(&serial) {
                self.by_id.remove(&call_id);
            }
        }
        // Entries of calls that went by another queue.
        if self.begun.len() > 2 * self.bound {
            self.begun.retain(|serial| self.by_serial.contains_key(serial));
        }
        if self.ended.len() > 2 * self.bound {
            let mut seen = rustc_hash::FxHashSet::default();
            self.ended.retain(|serial| self.by_serial.contains_key(serial) && seen.insert(*serial));
        }
        self.sight.forget(self.bound, |serial| self.by_serial.contains_key(&serial));
    }
}

/// Is an INVITE with this From tag the beginning of another call with the same Call-ID? One that was refused comes again
/// with the tag it had; and a back-to-back user agent that keeps the Call-ID sends its own INVITE before the answer.
fn is_reused(call: &Call, now: Nanos, caller_tag: u64) -> bool {
    let is_other = call.caller_tag != caller_tag;
    let is_long_ago = |then: Nanos| now.since(then) > REUSE_NS;
    match call.report.state {
        CallState::Ended => is_other || is_long_ago(call.report.last_seen),
        CallState::Cancelled | CallState::Failed(_) | CallState::LostSight => is_other,
        CallState::Answered => is_other && is_long_ago(call.report.began),
        CallState::Inviting | CallState::Challenged | CallState::Ringing => false,
    }
}

fn event(call: &CallReport, moment: Moment, flow: Flow) -> CallEvent {
    CallEvent { call_id: Arc::clone(&call.call_id), moment, flow, state: call.state, figures: call.figures() }
}

//! Calls: what INVITE began, by Call-ID, from first ring to the end, and who ended it.
//!
//! A call here is a dialog that an INVITE makes, or that was found in progress by a response to INVITE or a BYE.
//! Registrations, pings, subscriptions and messages outside a call are counted in the totals and are no calls.
//! A transfer by REFER belongs to the call that carries the REFER; the call that it makes is another.
//!
//! Repeats of a message (the same bytes again) change nothing but the counts. When all places are taken, the
//! call that ended first makes room, and if none has ended, the oldest; both are counted.

use std::collections::VecDeque;
use std::sync::Arc;

use rustc_hash::FxHashMap;

use super::call::{Call, Sighting, shortened, tag_hash};
use super::copies::{Repeat, Timer};
use super::media::MediaTable;
use super::message::Message;
pub use super::report::{CallEvent, CallReport, CallState, Moment, What};

/// Calls kept by default, ended ones included: 100,000 take well under 1 GiB.
pub const MAX_CALLS: usize = 100_000;

/// All calls. See the module's text.
#[derive(Debug)]
pub struct Calls {
    by_id: FxHashMap<Arc<str>, u64>,
    by_serial: FxHashMap<u64, Call>,
    next: u64,
    bound: usize,
    ended: VecDeque<u64>,
    begun: VecDeque<u64>,
    events: Vec<CallEvent>,
    is_followed: bool,
    evicted_ended: u64,
    evicted_live: u64,
}

impl Calls {
    pub(super) fn new(max_calls: usize, has_events: bool) -> Self {
        Self {
            by_id: FxHashMap::default(),
            by_serial: FxHashMap::default(),
            next: 0,
            bound: max_calls.max(1),
            ended: VecDeque::new(),
            begun: VecDeque::new(),
            events: Vec::new(),
            is_followed: has_events,
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

    /// Calls that are not over.
    pub fn live(&self) -> usize {
        self.by_serial.values().filter(|call| !call.report.state.is_over()).count()
    }

    /// Calls given up for want of room: ended ones, and such that were not over.
    pub fn evicted(&self) -> (u64, u64) {
        (self.evicted_ended, self.evicted_live)
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

    /// Takes a message into its call, if it has one, and its SDP into the media table.
    pub(super) fn observe(
        &mut self,
        at: Sighting,
        message: &Message<'_>,
        repeat: Option<Repeat>,
        media: &mut MediaTable,
    ) -> Option<u64> {
        let serial = self.serial(at, message, repeat.is_some())?;
        let call = self.by_serial.get_mut(&serial)?;
        call.report.messages += 1;
        call.report.last_seen = call.report.last_seen.max(at.time);
        match repeat {
            Some(Repeat::Timer(timer)) => call.repeated(timer, 1),
            Some(_) => {}
            None => {
                let was_over = call.report.state.is_over();
                let moment = call.advance(at, message, media);
                call.negotiate(at, message, media);
                self.follow(serial, at, moment, was_over);
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
        let moment = call.complete(at, cut, message, media);
        self.follow(serial, at, moment, was_over);
    }

    /// Remembers and tells what a message did to its call.
    fn follow(&mut self, serial: u64, at: Sighting, what: Option<What>, was_over: bool) {
        let Some(call) = self.by_serial.get_mut(&serial) else { return };
        if let Some(what) = what {
            let moment = call.remember(at, what);
            if self.is_followed {
                self.events.push(CallEvent {
                    call_id: Arc::clone(&call.report.call_id),
                    moment,
                    state: call.report.state,
                    figures: call.report.figures(),
                });
            }
        }
        if call.report.state.is_over() && !was_over {
            self.ended.push_back(serial);
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

    pub(super) fn note_retransmission(&mut self, serial: u64, timer: Timer) {
        if let Some(call) = self.by_serial.get_mut(&serial) {
            call.repeated(timer, 1);
        }
    }

    /// The call of a message: by Call-ID, or a new one if the message begins or betrays one.
    fn serial(&mut self, at: Sighting, message: &Message<'_>, is_repeat: bool) -> Option<u64> {
        let id = String::from_utf8_lossy(shortened(message.call_id));
        if id.is_empty() {
            return None;
        }
        let begins = message.status().is_none() && message.method() == "INVITE" && message.to().tag.is_none();
        if let Some(&serial) = self.by_id.get(&*id) {
            let reused = begins
                && !is_repeat
                && self.by_serial.get(&serial).is_some_and(|call| {
                    call.report.state == CallState::Ended && call.caller_tag != tag_hash(message.from().tag)
                });
            if !reused {
                return Some(serial);
            }
        }
        if !matches!(message.method(), "INVITE" | "BYE") {
            return None;
        }
        self.make_room();
        let call_id: Arc<str> = id.into();
        let serial = self.next;
        self.next += 1;
        self.by_id.insert(Arc::clone(&call_id), serial);
        self.begun.push_back(serial);
        self.by_serial.insert(serial, Call::new(call_id, at, message, begins));
        Some(serial)
    }

    fn make_room(&mut self) {
        while self.by_serial.len() >= self.bound {
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
            self.evicted_ended += u64::from(ended);
            self.evicted_live += u64::from(!ended);
            self.by_serial.remove(&serial);
            if self.by_id.get(&call_id) == Some(&serial) {
                self.by_id.remove(&call_id);
            }
        }
        // Entries of calls that went by the other queue.
        if self.begun.len() > 2 * self.bound {
            self.begun.retain(|serial| self.by_serial.contains_key(serial));
        }
        if self.ended.len() > 2 * self.bound {
            let mut seen = rustc_hash::FxHashSet::default();
            self.ended.retain(|serial| self.by_serial.contains_key(serial) && seen.insert(*serial));
        }
    }
}

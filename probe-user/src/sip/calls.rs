//! Calls: what INVITE began, by Call-ID, from first ring to the end, and who ended it.
//!
//! A call here is a dialog that an INVITE makes, or that was found in progress by a response to INVITE or a BYE.
//! Registrations, pings, subscriptions and messages outside a call are counted in the totals and are no calls.
//! A transfer by REFER belongs to the call that carries the REFER; the call that it makes is another.
//!
//! Repeats of a message (the same bytes again) change nothing but the counts. When all places are taken, the
//! call that ended first makes room, and if none has ended, the oldest; both are counted.

use std::collections::VecDeque;
use std::fmt;
use std::sync::Arc;

use rustc_hash::FxHashMap;
use serde::{Serialize, Serializer};

use super::announced::CallMedia;
use super::call::{Call, Sighting, shortened, tag_hash};
use super::copies::Repeat;
use super::media::MediaTable;
use super::message::Message;
use super::sdp::Direction;
use crate::packet::Nanos;

/// Calls kept by default, ended ones included: 100,000 take well under 1 GiB.
pub const MAX_CALLS: usize = 100_000;
/// What a call has come to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum CallState {
    /// INVITE is out, nothing but 100 came back.
    Inviting,
    /// 401 or 407: the caller has to say who it is, and then invites again.
    Challenged,
    /// 101 to 199.
    Ringing,
    /// 2xx.
    Answered,
    /// BYE.
    Ended,
    /// The caller gave up (CANCEL, 487).
    Cancelled,
    /// Refused with this code.
    Failed(u16),
}

impl CallState {
    /// The word of reports: the code of a failure is `final_code`.
    pub fn word(self) -> &'static str {
        match self {
            Self::Inviting => "inviting",
            Self::Challenged => "challenged",
            Self::Ringing => "ringing",
            Self::Answered => "answered",
            Self::Ended => "ended",
            Self::Cancelled => "cancelled",
            Self::Failed(_) => "failed",
        }
    }

    /// Is it over?
    pub fn is_over(self) -> bool {
        matches!(self, Self::Ended | Self::Cancelled | Self::Failed(_))
    }
}

impl Serialize for CallState {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.word())
    }
}

/// Something that happened in a call, for joining with what happened to its media at that time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Moment {
    /// When it was seen.
    pub time: Nanos,
    /// In which frame.
    pub number: u64,
    /// What.
    pub what: What,
}

/// Kinds of [`Moment`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum What {
    /// First INVITE.
    Invite,
    /// 401 or 407.
    Challenge(u16),
    /// First ringing, or other progress.
    Ringing(u16),
    /// 2xx to the first INVITE.
    Answer,
    /// INVITE within the call.
    ReInvite,
    /// SDP that says hold, by its direction.
    Hold(Direction),
    /// REFER.
    Refer,
    /// NOTIFY of a transfer's progress, with the status that it reports.
    Notify(u16),
    /// CANCEL.
    Cancel,
    /// BYE.
    Bye,
    /// Final refusal of the call.
    Failure(u16),
}

impl fmt::Display for What {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Invite => f.write_str("INVITE"),
            Self::Challenge(code) => write!(f, "{code}, asked for credentials"),
            Self::Ringing(code) => write!(f, "{code}, ringing"),
            Self::Answer => f.write_str("answered"),
            Self::ReInvite => f.write_str("re-INVITE"),
            Self::Hold(direction) => write!(f, "hold ({})", direction.attribute()),
            Self::Refer => f.write_str("REFER: transfer"),
            Self::Notify(status) => write!(f, "NOTIFY: transfer {status}"),
            Self::Cancel => f.write_str("CANCEL"),
            Self::Bye => f.write_str("BYE"),
            Self::Failure(code) => write!(f, "failed with {code}"),
        }
    }
}

/// One REFER and what became of it.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Transfer {
    /// When REFER was seen, in seconds after the call's first message.
    #[serde(serialize_with = "seconds")]
    pub at_s: Nanos,
    /// Frame number of the REFER.
    pub frame: u64,
    /// Who asked for it (From).
    pub by: Box<str>,
    /// Whom to call (Refer-To).
    pub target: Box<str>,
    /// Status of the answer to REFER; 202 is usual.
    pub answer: Option<u16>,
    /// Last status that NOTIFY reported of the new call.
    pub outcome: Option<u16>,
    /// From REFER to the NOTIFY with a final status, in milliseconds.
    pub completed_ms: Option<f64>,
    #[serde(skip)]
    pub(super) seen: Nanos,
    #[serde(skip)]
    pub(super) cseq: u32,
}

/// A call as a report shows it. `streams` is joined by the caller, from [`CallReport::media`] or Call-ID.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct CallReport {
    /// Call-ID.
    pub call_id: Arc<str>,
    /// URI of the caller.
    pub from: Box<str>,
    /// URI of the called.
    pub to: Box<str>,
    /// What it has come to.
    pub state: CallState,
    /// Status that refused or cancelled it.
    pub final_code: Option<u16>,
    /// "caller" or "called", if BYE was seen and the caller is known.
    pub ended_by: Option<&'static str>,
    /// First INVITE to first 2xx, in milliseconds.
    pub setup_ms: Option<f64>,
    /// First INVITE to first 101 to 199: the post-dial delay, in milliseconds.
    pub ringing_ms: Option<f64>,
    /// 2xx to BYE, in milliseconds.
    pub talked_ms: Option<f64>,
    /// Messages, without copies.
    pub messages: u64,
    /// Copies of them.
    pub message_copies: u64,
    /// Those of `messages` that a timer repeated.
    pub retransmissions: u64,
    /// 401 and 407, each counted once.
    pub auth_challenges: u64,
    /// INVITEs within the call: hold, resume, codec change, refresh.
    pub reinvites: u64,
    /// REFERs.
    pub transfers: Vec<Transfer>,
    /// The call began before the capture, or its INVITE was not seen.
    pub seen_from_the_middle: bool,
    /// What it announced and agreed on.
    #[serde(skip)]
    pub media: CallMedia,
    /// What happened when.
    #[serde(skip)]
    pub moments: Vec<Moment>,
    /// Frame number of its first message.
    pub first_frame: u64,
    /// Time of its first message.
    #[serde(skip)]
    pub began: Nanos,
    /// Time of its last message.
    #[serde(skip)]
    pub last_seen: Nanos,
}

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

/// A change of a call, for the health log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CallEvent {
    /// Call-ID.
    pub call_id: Arc<str>,
    /// What happened, when, in which frame.
    pub moment: Moment,
    /// The state after it.
    pub state: CallState,
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
            Some(Repeat::Timer(_)) => call.report.retransmissions += 1,
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

    pub(super) fn note_retransmissions(&mut self, serial: u64, more: u64) {
        if let Some(call) = self.by_serial.get_mut(&serial) {
            call.report.retransmissions += more;
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

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde's signature")]
fn seconds<S: Serializer>(time: &Nanos, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_f64(time.0 as f64 / 1e9)
}

//! Calls: what INVITE began, by Call-ID, from first ring to the end, and who ended it.
//!
//! A call here is a dialog that an INVITE makes, or that was found in progress by a response to INVITE or a BYE.
//! Registrations, pings, subscriptions and messages outside a call are counted in the totals and are no calls.
//! A transfer by REFER belongs to the call that carries the REFER; the call that it makes is another.
//!
//! Repeats of a message (the same bytes again) change nothing but the counts. When all places are taken, the
//! call that ended first makes room, and if none has ended, the oldest; both are counted.

use std::collections::VecDeque;
use std::hash::{BuildHasher, BuildHasherDefault};
use std::sync::Arc;

use rustc_hash::{FxHashMap, FxHasher};
use serde::{Serialize, Serializer};

use super::copies::Repeat;
use super::media::MediaTable;
use super::message::{Address, Message};
use super::sdp::{self, Direction};
use crate::packet::{Flow, MediaId, Nanos};

/// Calls kept by default, ended ones included: 100,000 take well under 1 GiB.
pub const MAX_CALLS: usize = 100_000;
/// Moments kept of one call; a call of an hour with session refreshes has some twenty.
const MAX_MOMENTS: usize = 48;
/// Parties of a call that may announce media: two, and a few per fork or hop.
const MAX_PARTIES: usize = 16;
const MAX_TRANSFERS: usize = 16;
/// Bytes kept of a URI or a Call-ID.
const MAX_TEXT: usize = 256;

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
    seen: Nanos,
    #[serde(skip)]
    cseq: u32,
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
    /// Lines announced in it.
    #[serde(skip)]
    pub media: Vec<MediaId>,
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
    calls: FxHashMap<u64, Call>,
    next: u64,
    max_calls: usize,
    ended: VecDeque<u64>,
    begun: VecDeque<u64>,
    events: Vec<CallEvent>,
    has_events: bool,
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

#[derive(Debug)]
struct Call {
    report: CallReport,
    caller_tag: u64,
    answered: Option<Nanos>,
    parties: Vec<Party>,
}

/// Whoever sends SDP in a call, as one hop sees it: a proxy that rewrites SDP must not replace the
/// caller's own lines.
#[derive(Debug)]
struct Party {
    key: u64,
    lines: Vec<MediaId>,
}

/// When and where a message was seen.
#[derive(Clone, Copy, Debug)]
pub(super) struct Sighting {
    pub(super) time: Nanos,
    pub(super) number: u64,
    pub(super) flow: Flow,
}

impl Calls {
    pub(super) fn new(max_calls: usize, has_events: bool) -> Self {
        Self {
            by_id: FxHashMap::default(),
            calls: FxHashMap::default(),
            next: 0,
            max_calls: max_calls.max(1),
            ended: VecDeque::new(),
            begun: VecDeque::new(),
            events: Vec::new(),
            has_events,
            evicted_ended: 0,
            evicted_live: 0,
        }
    }

    /// Calls kept, ended ones included.
    pub fn len(&self) -> usize {
        self.calls.len()
    }

    /// Was there none?
    pub fn is_empty(&self) -> bool {
        self.calls.is_empty()
    }

    /// Calls that are not over.
    pub fn live(&self) -> usize {
        self.calls.values().filter(|call| !call.report.state.is_over()).count()
    }

    /// Calls given up for want of room: ended ones, and such that were not over.
    pub fn evicted(&self) -> (u64, u64) {
        (self.evicted_ended, self.evicted_live)
    }

    /// The call that has this Call-ID now.
    pub fn find(&self, call_id: &str) -> Option<&CallReport> {
        Some(&self.calls.get(self.by_id.get(call_id)?)?.report)
    }

    /// All calls, in the order in which they began.
    pub fn reports(&self) -> Vec<&CallReport> {
        let mut calls: Vec<_> = self.calls.iter().collect();
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
        let call = self.calls.get_mut(&serial)?;
        call.report.messages += 1;
        call.report.last_seen = call.report.last_seen.max(at.time);
        match repeat {
            Some(Repeat::Timer(_)) => call.report.retransmissions += 1,
            Some(_) => {}
            None => {
                let was_over = call.report.state.is_over();
                let moment = call.advance(at, message, media);
                call.negotiate(at, message, media);
                if let Some(what) = moment {
                    let moment = call.remember(at, what);
                    if self.has_events {
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
        }
        Some(serial)
    }

    pub(super) fn note_copy(&mut self, serial: u64) {
        if let Some(call) = self.calls.get_mut(&serial) {
            call.report.message_copies += 1;
        }
    }

    pub(super) fn note_retransmissions(&mut self, serial: u64, more: u64) {
        if let Some(call) = self.calls.get_mut(&serial) {
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
                && self.calls.get(&serial).is_some_and(|call| {
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
        self.calls.insert(serial, Call::new(call_id, at, message, begins));
        Some(serial)
    }

    fn make_room(&mut self) {
        while self.calls.len() >= self.max_calls {
            let (serial, ended) = match self.ended.pop_front() {
                Some(serial) => (serial, true),
                None => match self.begun.pop_front() {
                    Some(serial) => (serial, false),
                    None => return,
                },
            };
            let Some(call) = self.calls.get(&serial) else { continue };
            // A call that failed may have been tried again since.
            if ended && !call.report.state.is_over() {
                continue;
            }
            let call_id = Arc::clone(&call.report.call_id);
            self.evicted_ended += u64::from(ended);
            self.evicted_live += u64::from(!ended);
            self.calls.remove(&serial);
            if self.by_id.get(&call_id) == Some(&serial) {
                self.by_id.remove(&call_id);
            }
        }
        // Entries of calls that went by the other queue.
        if self.begun.len() > 2 * self.max_calls {
            self.begun.retain(|serial| self.calls.contains_key(serial));
        }
        if self.ended.len() > 2 * self.max_calls {
            let mut seen = rustc_hash::FxHashSet::default();
            self.ended.retain(|serial| self.calls.contains_key(serial) && seen.insert(*serial));
        }
    }
}

impl Call {
    fn new(call_id: Arc<str>, at: Sighting, message: &Message<'_>, begins: bool) -> Self {
        let (from, to) = (message.from(), message.to());
        // Within a dialog the From of a BYE may be the called.
        let is_callers = message.method() == "INVITE";
        Self {
            report: CallReport {
                call_id,
                from: uri_text(&from),
                to: uri_text(&to),
                state: CallState::Inviting,
                final_code: None,
                ended_by: None,
                setup_ms: None,
                ringing_ms: None,
                talked_ms: None,
                messages: 0,
                message_copies: 0,
                retransmissions: 0,
                auth_challenges: 0,
                reinvites: 0,
                transfers: Vec::new(),
                seen_from_the_middle: !begins,
                media: Vec::new(),
                moments: Vec::new(),
                first_frame: at.number,
                began: at.time,
                last_seen: at.time,
            },
            caller_tag: if is_callers { tag_hash(from.tag) } else { 0 },
            answered: None,
            parties: Vec::new(),
        }
    }

    /// Moves the state. Gives what is worth remembering.
    fn advance(&mut self, at: Sighting, message: &Message<'_>, media: &mut MediaTable) -> Option<What> {
        match message.status() {
            None => self.request(at, message, media),
            Some(code) => self.response(at, message, code, media),
        }
    }

    fn request(&mut self, at: Sighting, message: &Message<'_>, media: &mut MediaTable) -> Option<What> {
        match message.method() {
            "INVITE" if message.to().tag.is_some() => {
                if self.report.seen_from_the_middle && self.report.state == CallState::Inviting {
                    self.report.state = CallState::Answered;
                }
                self.report.reinvites += 1;
                Some(What::ReInvite)
            }
            "INVITE" => match self.report.state {
                CallState::Challenged | CallState::Failed(_) | CallState::Cancelled => {
                    self.report.state = CallState::Inviting;
                    self.report.final_code = None;
                    None
                }
                CallState::Inviting if self.report.messages == 1 => Some(What::Invite),
                _ => None,
            },
            "CANCEL" => {
                // If a 2xx wins the race, it opens the lines again.
                if !matches!(self.report.state, CallState::Answered | CallState::Ended) {
                    self.withdraw(at, media);
                }
                Some(What::Cancel)
            }
            "BYE" => {
                if self.report.state == CallState::Ended {
                    return None; // the same BYE on the next hop, or both hung up at once
                }
                self.report.state = CallState::Ended;
                self.report.talked_ms = self.answered.map(|answered| millis(at.time, answered));
                if self.caller_tag != 0 {
                    let is_caller = self.caller_tag == tag_hash(message.from().tag);
                    self.report.ended_by = Some(if is_caller { "caller" } else { "called" });
                }
                self.withdraw(at, media);
                Some(What::Bye)
            }
            "REFER" => {
                self.refer(at, message);
                Some(What::Refer)
            }
            "NOTIFY" => self.notify(at, message),
            _ => None,
        }
    }

    fn response(
        &mut self,
        at: Sighting,
        message: &Message<'_>,
        code: u16,
        media: &mut MediaTable,
    ) -> Option<What> {
        let is_challenge = matches!(code, 401 | 407);
        self.report.auth_challenges += u64::from(is_challenge);
        if message.method() == "REFER" {
            let cseq = message.cseq.map(|cseq| cseq.number);
            let transfer = self.report.transfers.iter_mut().rev().find(|t| Some(t.cseq) == cseq);
            if let Some(transfer) = transfer {
                transfer.answer = Some(code);
            }
            return None;
        }
        if message.method() != "INVITE" {
            return None;
        }
        let state = self.report.state;
        let is_open = matches!(state, CallState::Inviting | CallState::Ringing | CallState::Challenged);
        match code {
            101..=199 if is_open => {
                let is_first = state != CallState::Ringing;
                self.report.state = CallState::Ringing;
                if self.report.ringing_ms.is_none() && !self.report.seen_from_the_middle {
                    self.report.ringing_ms = Some(millis(at.time, self.report.began));
                }
                is_first.then_some(What::Ringing(code))
            }
            200..=299 if !matches!(state, CallState::Answered | CallState::Ended) => {
                self.report.state = CallState::Answered;
                self.report.final_code = None;
                self.answered = Some(at.time);
                if !self.report.seen_from_the_middle {
                    self.report.setup_ms = Some(millis(at.time, self.report.began));
                }
                // Another branch may have failed before.
                for id in self.parties.iter().flat_map(|party| &party.lines) {
                    media.reopen(*id, at.time);
                }
                Some(What::Answer)
            }
            300..=699 if is_open => {
                self.report.state = match code {
                    401 | 407 => CallState::Challenged,
                    487 => CallState::Cancelled,
                    _ => CallState::Failed(code),
                };
                self.report.final_code = (!is_challenge).then_some(code);
                self.withdraw(at, media);
                Some(if is_challenge { What::Challenge(code) } else { What::Failure(code) })
            }
            _ => None,
        }
    }

    fn refer(&mut self, at: Sighting, message: &Message<'_>) {
        if self.report.transfers.len() >= MAX_TRANSFERS {
            return;
        }
        let target = Address::parse(message.header("refer-to", Some(b'r')).unwrap_or_default());
        self.report.transfers.push(Transfer {
            at_s: Nanos(at.time.0.saturating_sub(self.report.began.0)),
            frame: at.number,
            by: uri_text(&message.from()),
            target: uri_text(&target),
            answer: None,
            outcome: None,
            completed_ms: None,
            seen: at.time,
            cseq: message.cseq.map_or(0, |cseq| cseq.number),
        });
    }

    /// A NOTIFY of `Event: refer` carries the new call's status line (RFC 3515, 2.4.5); its `id` is REFER's CSeq.
    fn notify(&mut self, at: Sighting, message: &Message<'_>) -> Option<What> {
        let event = message.header("event", Some(b'o'))?;
        let fragment = Message::parse(message.body).ok()?;
        let code = fragment.status()?;
        let id =
            super::message::parameter(event, b"id").and_then(|id| std::str::from_utf8(id).ok()?.parse().ok());
        let transfers = &mut self.report.transfers;
        let named = transfers.iter().rposition(|t| Some(t.cseq) == id);
        let index = named.or(transfers.len().checked_sub(1))?;
        let transfer = transfers.get_mut(index)?;
        transfer.outcome = Some(code);
        if code >= 200 && transfer.completed_ms.is_none() {
            transfer.completed_ms = Some(millis(at.time, transfer.seen));
        }
        Some(What::Notify(code))
    }

    /// Offers and answers. SDP elsewhere (the capabilities in an answer to OPTIONS) announces nothing.
    fn negotiate(&mut self, at: Sighting, message: &Message<'_>, media: &mut MediaTable) {
        let negotiates = matches!(message.method(), "INVITE" | "ACK" | "PRACK" | "UPDATE");
        if !negotiates
            || message.body.is_empty()
            || message.is_encoded
            || self.report.state == CallState::Ended
            || message.status().is_some_and(|code| code >= 300)
        {
            return;
        }
        let Some(description) = sdp::describe(message.content_type, message.body) else { return };
        if description.lines.is_empty() {
            return;
        }
        let hold = description.lines.iter().map(|line| line.direction).find(|d| *d != Direction::SendRecv);
        if let Some(direction) = hold.filter(|_| message.status().is_none()) {
            self.remember(at, What::Hold(direction));
        }
        let mut lines = Vec::with_capacity(description.lines.len());
        for line in &description.lines {
            let Some(id) = media.announce(&self.report.call_id, line, at.time, at.number) else { continue };
            lines.push(id);
            if !self.report.media.contains(&id) && self.report.media.len() < 4 * MAX_PARTIES {
                self.report.media.push(id);
            }
        }
        let key = party_key(message, &at.flow);
        let known = self.parties.iter().position(|party| party.key == key);
        if known.is_none() && self.parties.len() >= MAX_PARTIES {
            let oldest = self.parties.remove(0);
            withdraw_all(&oldest.lines, &[], at, media);
        }
        match known.and_then(|index| self.parties.get_mut(index)) {
            Some(party) => {
                let before = std::mem::replace(&mut party.lines, lines);
                let kept: Vec<_> =
                    self.parties.iter().flat_map(|party| party.lines.iter().copied()).collect();
                withdraw_all(&before, &kept, at, media);
            }
            None => self.parties.push(Party { key, lines }),
        }
    }

    fn withdraw(&self, at: Sighting, media: &mut MediaTable) {
        for party in &self.parties {
            withdraw_all(&party.lines, &[], at, media);
        }
    }

    fn remember(&mut self, at: Sighting, what: What) -> Moment {
        let moment = Moment { time: at.time, number: at.number, what };
        if self.report.moments.len() < MAX_MOMENTS {
            self.report.moments.push(moment);
        }
        moment
    }
}

fn withdraw_all(lines: &[MediaId], except: &[MediaId], at: Sighting, media: &mut MediaTable) {
    for id in lines.iter().filter(|id| !except.contains(id)) {
        media.withdraw(*id, at.time);
    }
}

fn party_key(message: &Message<'_>, flow: &Flow) -> u64 {
    BuildHasherDefault::<FxHasher>::default().hash_one((message.sender_tag(), flow.src, flow.dst))
}

/// Zero is "unknown".
fn tag_hash(tag: Option<&[u8]>) -> u64 {
    tag.map_or(0, |tag| BuildHasherDefault::<FxHasher>::default().hash_one(tag) | 1)
}

fn shortened(bytes: &[u8]) -> &[u8] {
    bytes.get(..MAX_TEXT).unwrap_or(bytes)
}

fn uri_text(address: &Address<'_>) -> Box<str> {
    String::from_utf8_lossy(shortened(address.uri)).into()
}

fn millis(later: Nanos, earlier: Nanos) -> f64 {
    later.since(earlier) as f64 / 1e6
}

fn seconds<S: Serializer>(time: &Nanos, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_f64(time.0 as f64 / 1e9)
}

//! One call: how each message moves it, and what SDP it carries.
//!
//! ```text
//!              ┌── 401, 407 ──▶ challenged ──┐
//!              │                             │ INVITE again
//!   INVITE ─▶ inviting ◀─────────────────────┘
//!              ├── 101..199 ──▶ ringing ──┐
//!              ├── 2xx ───────────────────┴──▶ answered ── BYE ──▶ ended
//!              └── 3xx..6xx ──▶ failed, cancelled (487)
//! ```
//!
//! The capture may show a call on several hops, or half of it. So a refusal fails the call when it answers the INVITE that
//! was seen first, which is the hop nearest to the caller, or when every hop was refused; until then a proxy may try
//! elsewhere. A 2xx answers the call on whatever hop. Where responses are not seen, an ACK of the caller in a transaction of
//! its own says that there was a 2xx (RFC 3261, 17.1.1.3 and 13.2.2.4).

use std::borrow::Cow;
use std::hash::{BuildHasher, BuildHasherDefault};
use std::sync::Arc;

use rustc_hash::FxHasher;

use super::copies::Timer;
use super::dialog::Answered;
use super::hold::{Asked, Changed, Holds};
use super::hops::{Acknowledged, Hops, Origin};
use super::media::MediaTable;
use super::message::{Address, Message};
use super::negotiation::Negotiation;
use super::reason;
use super::report::{CallReport, CallState, Moment, What};
use super::sdp::Direction;
use super::text::number;
use super::transfer;
use crate::packet::{Flow, Nanos};

/// Moments kept of one call; a call of an hour with session refreshes has some twenty.
const MAX_MOMENTS: usize = 48;
/// Requests within the call that are known again on their next hop.
const MAX_RECENT: usize = 8;
/// Bytes kept of a URI or a Call-ID.
const MAX_TEXT: usize = 256;

/// A call, and what it needs to remember to go on.
#[derive(Debug)]
pub(super) struct Call {
    pub(super) report: CallReport,
    /// Hash of the caller's tag; 0 if unknown.
    pub(super) caller_tag: u64,
    /// Where the INVITE that makes the call was seen.
    hops: Hops,
    rang: Option<Nanos>,
    answered: Option<Nanos>,
    /// An ACK says that there was a 2xx, which was not seen.
    is_answer_inferred: bool,
    /// CANCEL of the caller was seen.
    is_cancelled: bool,
    /// What it was before it was lost sight of.
    before_lost: CallState,
    holds: Holds,
    /// Requests within the call, by method, sender and CSeq: on the next hop they are the same.
    recent: [u64; MAX_RECENT],
    latest_recent: usize,
    /// Is it in the queue of calls that may fall silent?
    pub(super) is_watched: bool,
    /// Its last message that was not sent before.
    pub(super) latest: Sighting,
    negotiation: Negotiation,
}

/// When and where a message was seen.
#[derive(Clone, Copy, Debug)]
pub(super) struct Sighting {
    pub(super) time: Nanos,
    pub(super) number: u64,
    pub(super) flow: Flow,
}

impl Call {
    pub(super) fn new(call_id: Arc<str>, at: Sighting, message: &Message<'_>, begins: bool) -> Self {
        let mut call = Self {
            report: CallReport {
                call_id,
                seen_from_the_middle: !begins,
                first_frame: at.number,
                began: at.time,
                last_seen: at.time,
                ..CallReport::default()
            },
            caller_tag: 0,
            hops: Hops::default(),
            rang: None,
            answered: None,
            is_answer_inferred: false,
            is_cancelled: false,
            before_lost: CallState::Inviting,
            holds: Holds::default(),
            recent: [0; MAX_RECENT],
            latest_recent: 0,
            is_watched: false,
            latest: at,
            negotiation: Negotiation::default(),
        };
        call.name_parties(message);
        call
    }

    /// Bytes that what was announced in it takes in memory.
    pub(super) fn held_bytes(&self) -> usize {
        self.report.media.held_bytes + self.negotiation.held_bytes()
    }

    /// A timer sent messages of it again.
    pub(super) fn repeated(&mut self, timer: Timer, more: u32) {
        self.report.retransmissions += u64::from(more);
        self.report.timers.add(timer, more);
    }

    /// Moves the state. Gives what is worth remembering.
    pub(super) fn advance(
        &mut self,
        at: Sighting,
        message: &Message<'_>,
        media: &mut MediaTable,
    ) -> Option<What> {
        self.latest = at;
        if self.report.state == CallState::LostSight {
            self.report.state = self.before_lost;
        }
        match message.status() {
            None => self.request(at, message, media),
            Some(code) => self.response(at, message, code, media),
        }
    }

    /// The message of frame `cut_frame` is known whole now: what its beginning could not say. A response was
    /// not understood without its CSeq. Gives what is worth remembering.
    pub(super) fn complete(
        &mut self,
        at: Sighting,
        (cut_frame, was_understood): (u64, bool),
        message: &Message<'_>,
        media: &mut MediaTable,
    ) -> [Option<What>; 2] {
        if self.report.first_frame == cut_frame {
            self.name_parties(message);
        }
        let what = match (message.status(), message.method()) {
            (None, "INVITE") => {
                self.hops.complete(cut_frame, message);
                None
            }
            (None, "REFER") => {
                self.report.transfers.retain(|transfer| transfer.frame != cut_frame);
                transfer::refer(&mut self.report, at, message);
                None
            }
            (None, "NOTIFY") => transfer::notify(&mut self.report, at, message),
            (Some(code), _) if !was_understood => {
                let counted = u64::from(matches!(code, 401 | 407));
                self.report.auth_challenges = self.report.auth_challenges.saturating_sub(counted);
                self.response(at, message, code, media)
            }
            _ => None,
        };
        [what, self.negotiate(at, message, media)]
    }

    fn name_parties(&mut self, message: &Message<'_>) {
        let (from, to) = (message.from(), message.to());
        self.report.from = uri_text(&from).into();
        self.report.to = uri_text(&to).into();
        // Within a dialog the From of any request may be the called; a response to INVITE is likely to the first.
        let is_callers = message.method() == "INVITE" && (message.status().is_some() || to.tag.is_none());
        self.caller_tag = if is_callers { tag_hash(from.tag) } else { 0 };
    }

    fn request(&mut self, at: Sighting, message: &Message<'_>, media: &mut MediaTable) -> Option<What> {
        if message.header("session-expires", Some(b'x')).is_some() {
            self.take_session_timer(message);
        }
        match message.method() {
            "INVITE" if self.is_within(message) => {
                if self.report.seen_from_the_middle && self.report.state == CallState::Inviting {
                    self.report.state = CallState::Answered;
                }
                let is_new = self.is_new(message);
                self.report.reinvites += u64::from(is_new);
                is_new.then_some(What::ReInvite)
            }
            "INVITE" => self.invite(at, message),
            "ACK" => {
                self.acknowledge(at, message);
                None
            }
            "PRACK" => {
                self.report.prack += u32::from(self.is_new(message));
                None
            }
            "UPDATE" => {
                let is_new = self.is_new(message);
                self.report.updates += u32::from(is_new);
                is_new.then_some(What::Update)
            }
            "CANCEL" => self.cancel(at, message, media),
            "BYE" => self.end(at, message, media),
            "REFER" => self.is_new(message).then(|| {
                transfer::refer(&mut self.report, at, message);
                What::Refer
            }),
            "NOTIFY" => transfer::notify(&mut self.report, at, message).filter(|_| self.is_new(message)),
            _ => None,
        }
    }

    /// Is this INVITE one within the call? A challenged one comes again, from some user agents with the tag of
    /// the refusal.
    fn is_within(&self, message: &Message<'_>) -> bool {
        let is_established = matches!(self.report.state, CallState::Answered | CallState::Ended);
        message.to().tag.is_some() && (is_established || self.report.seen_from_the_middle)
    }

    /// An INVITE that makes the call: the first, the same on the next hop, or the next attempt.
    fn invite(&mut self, at: Sighting, message: &Message<'_>) -> Option<What> {
        let is_refused =
            matches!(self.report.state, CallState::Challenged | CallState::Failed(_) | CallState::Cancelled);
        let is_answered = self.report.state == CallState::Answered && !self.is_answer_inferred;
        let is_attempt =
            is_refused || !is_answered && !self.report.state.is_over() && self.hops.is_further(message);
        if is_attempt {
            self.hops.clear();
            self.report.state = CallState::Inviting;
            self.report.final_code = None;
            self.report.ended_by = None;
            self.report.disconnect_reason = None;
            (self.is_cancelled, self.is_answer_inferred) = (false, false);
        }
        let is_new = self.report.state == CallState::Inviting && !self.report.seen_from_the_middle;
        let is_first = self.hops.is_empty() && !is_attempt && is_new;
        self.hops.note(at, message);
        is_first.then_some(What::Invite)
    }

    /// The caller acknowledges what may not have been seen.
    fn acknowledge(&mut self, at: Sighting, message: &Message<'_>) {
        if !self.is_open() {
            return;
        }
        match self.hops.acknowledged(at, message) {
            // Of the challenge: some user agents give it a branch of its own.
            Some(Acknowledged::Answer) if self.report.state == CallState::Challenged => return,
            Some(Acknowledged::Answer) => {
                self.report.state = CallState::Answered;
                self.is_answer_inferred = true;
                self.answered = Some(at.time);
            }
            Some(Acknowledged::Refusal) if self.is_cancelled => self.give_up(),
            _ => return,
        }
        self.stop_ringing(at.time);
    }

    /// The caller gave up.
    fn give_up(&mut self) {
        self.report.state = CallState::Cancelled;
        self.report.ended_by = Some("caller");
    }

    /// Has the INVITE no final response yet? A challenge is none for the call.
    fn is_open(&self) -> bool {
        matches!(self.report.state, CallState::Inviting | CallState::Ringing | CallState::Challenged)
    }

    /// The caller gives up, or a proxy gives up one of its forks, which is not the call.
    fn cancel(&mut self, at: Sighting, message: &Message<'_>, media: &mut MediaTable) -> Option<What> {
        if self.hops.is_behind(message) || self.is_cancelled {
            return None;
        }
        self.is_cancelled = true;
        // If a 2xx wins the race, it opens the lines again.
        if self.is_open() {
            self.report.disconnect_reason = reason::of(message);
            self.negotiation.withdraw(at, media);
        }
        Some(What::Cancel)
    }

    /// A BYE, or a response to one that was not seen.
    fn end(&mut self, at: Sighting, message: &Message<'_>, media: &mut MediaTable) -> Option<What> {
        // The same BYE on the next hop, or both hung up at once.
        if self.report.state == CallState::Ended {
            return None;
        }
        let (from, to) = (tag_hash(message.from().tag), tag_hash(message.to().tag));
        if !self.report.dialogs.end(from, to) {
            return None;
        }
        self.report.state = CallState::Ended;
        self.report.talked_ms = self.answered.and_then(|answered| millis(at.time, answered));
        self.stop_ringing(at.time);
        self.holds.end(at.time, &mut self.report.held);
        self.report.ended_by = self.party(from);
        if message.status().is_none() {
            self.report.disconnect_reason = reason::of(message);
        }
        self.negotiation.withdraw(at, media);
        // Nothing opens it again, and it may be kept for long.
        (self.negotiation, self.hops) = (Negotiation::default(), Hops::default());
        Some(What::Bye)
    }

    /// "caller" or "called", if the caller is known.
    fn party(&self, tag: u64) -> Option<&'static str> {
        let is_caller = tag == self.caller_tag || self.hops.have_caller(tag);
        (self.caller_tag != 0).then_some(if is_caller { "caller" } else { "called" })
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
        match message.method() {
            "INVITE" => self.invite_response(at, message, code, media),
            "UPDATE" if code >= 300 => {
                self.refuse_hold(message);
                None
            }
            "BYE" if code >= 200 && !is_challenge => self.end(at, message, media),
            "REFER" => {
                transfer::answer(&mut self.report, message, code);
                None
            }
            _ => None,
        }
    }

    fn invite_response(
        &mut self,
        at: Sighting,
        message: &Message<'_>,
        code: u16,
        media: &mut MediaTable,
    ) -> Option<What> {
        if !self.hops.are_answered_by(message) && !self.hops.is_empty() && !self.is_open() {
            if code >= 300 {
                self.refuse_hold(message);
            } else if code >= 200 {
                self.take_session_timer(message);
            }
            return None;
        }
        let called = tag_hash(message.to().tag);
        let answer = self.report.dialogs.respond(Origin::of(message), called, code, || contact(message));
        self.report.forks = self.report.forks.max(self.report.dialogs.forks());
        match code {
            101..=199 => self.ringing(at, code),
            200..=299 => self.answer(at, message, answer, media),
            300..=699 => self.refusal(at, message, code, media),
            _ => None,
        }
    }

    fn ringing(&mut self, at: Sighting, code: u16) -> Option<What> {
        if !self.is_open() {
            return None;
        }
        let is_first = self.report.state != CallState::Ringing;
        self.report.state = CallState::Ringing;
        self.rang.get_or_insert(at.time);
        if self.report.ringing_ms.is_none() && !self.report.seen_from_the_middle {
            self.report.ringing_ms = millis(at.time, self.report.began);
        }
        is_first.then_some(What::Ringing(code))
    }

    fn answer(
        &mut self,
        at: Sighting,
        message: &Message<'_>,
        answer: Answered,
        media: &mut MediaTable,
    ) -> Option<What> {
        self.take_session_timer(message);
        match self.report.state {
            CallState::Answered if answer == Answered::Another => return Some(What::ForkAnswered),
            CallState::Answered | CallState::Ended => return None,
            _ => {}
        }
        self.report.state = CallState::Answered;
        self.report.final_code = None;
        self.report.ended_by = None;
        self.report.disconnect_reason = None;
        self.answered = Some(at.time);
        self.report.rang_ms = None;
        self.stop_ringing(at.time);
        if !self.report.seen_from_the_middle {
            self.report.setup_ms = millis(at.time, self.report.began);
        }
        // Another branch may have failed before.
        self.negotiation.reopen(at, media);
        Some(What::Answer)
    }

    fn refusal(
        &mut self,
        at: Sighting,
        message: &Message<'_>,
        code: u16,
        media: &mut MediaTable,
    ) -> Option<What> {
        let since = self.hops.refuse(at, message, code).filter(|_| self.is_open())?;
        let is_challenge = matches!(code, 401 | 407);
        match code {
            401 | 407 => self.report.state = CallState::Challenged,
            487 if self.is_cancelled => self.give_up(),
            487 => self.report.state = CallState::Cancelled,
            _ => self.report.state = CallState::Failed(code),
        }
        self.report.final_code = (!is_challenge).then_some(code);
        if !is_challenge {
            self.stop_ringing(since);
            let said = self.report.disconnect_reason.take();
            self.report.disconnect_reason = said.or_else(|| reason::of(message));
        }
        self.negotiation.withdraw(at, media);
        Some(if is_challenge { What::Challenge(code) } else { What::Failure(code) })
    }

    fn stop_ringing(&mut self, now: Nanos) {
        if self.report.rang_ms.is_none() {
            self.report.rang_ms = self.rang.and_then(|rang| millis(now, rang));
        }
    }

    /// Nothing was heard of it for too long. It is over for us: as what, as far as was seen.
    pub(super) fn lose_sight(&mut self, now: Nanos, media: &mut MediaTable) -> What {
        self.before_lost = self.report.state;
        let mut what = What::LostSight;
        match self.hops.refused() {
            _ if self.is_open() && self.is_cancelled => self.give_up(),
            Some(code) if self.is_open() => {
                self.report.final_code = Some(code);
                self.report.state = CallState::Failed(code);
                what = What::Failure(code);
            }
            _ => self.report.state = CallState::LostSight,
        }
        self.negotiation.withdraw(Sighting { time: now, ..self.latest }, media);
        what
    }

    /// Session-Expires (RFC 4028) of a request or a 2xx: within it, the call is refreshed or over.
    fn take_session_timer(&mut self, message: &Message<'_>) {
        let value = message.header("session-expires", Some(b'x')).unwrap_or_default();
        let digits = value.split(|b| !b.is_ascii_digit()).next().unwrap_or_default();
        self.report.session_expires_s = number(digits).or(self.report.session_expires_s);
    }

    /// Takes the SDP of a message, if it is an offer or an answer. Gives what is worth remembering.
    pub(super) fn negotiate(
        &mut self,
        at: Sighting,
        message: &Message<'_>,
        media: &mut MediaTable,
    ) -> Option<What> {
        if self.report.state == CallState::Ended {
            return None;
        }
        let taken = self.negotiation.take(at, message, &self.report.call_id, &mut self.report.media, media);
        let direction = taken?;
        match self.report.state {
            CallState::Ringing => {
                self.report.early_media |= message.status().is_some_and(|code| code < 200);
                None
            }
            CallState::Answered => self.hold(at, message, direction),
            _ => None,
        }
    }

    fn hold(&mut self, at: Sighting, message: &Message<'_>, direction: Direction) -> Option<What> {
        // What a response answers is no hold of its own, and the first ACK may end an offer of the called.
        if message.status().is_some() || message.to().tag.is_none() {
            return None;
        }
        let by = tag_hash(message.from().tag);
        let asked = Asked {
            by,
            name: self.party(by),
            cseq: message.cseq.map_or(0, |cseq| cseq.number),
            direction,
            time: at.time,
            began: self.report.began,
        };
        Some(match self.holds.ask(asked, &mut self.report.held)? {
            Changed::Held => {
                self.report.holds += 1;
                What::Hold(direction)
            }
            Changed::Resumed => What::Resume,
        })
    }

    /// The request that a response refuses may have asked for hold.
    fn refuse_hold(&mut self, message: &Message<'_>) {
        let by = tag_hash(message.from().tag);
        let cseq = message.cseq.map_or(0, |cseq| cseq.number);
        if self.holds.refuse(by, cseq, &mut self.report.held) == Some(Changed::Held) {
            self.report.holds = self.report.holds.saturating_sub(1);
        }
    }

    pub(super) fn remember(&mut self, at: Sighting, what: What) -> Moment {
        let moment = Moment { time: at.time, number: at.number, what };
        if self.report.moments.len() < MAX_MOMENTS {
            self.report.moments.push(moment);
        }
        moment
    }

    /// Was this request not seen on another hop already?
    fn is_new(&mut self, message: &Message<'_>) -> bool {
        let cseq = message.cseq.map_or(0, |cseq| cseq.number);
        let name = hash(&(message.method(), message.from().tag, cseq));
        if self.recent.contains(&name) {
            return false;
        }
        self.latest_recent = (self.latest_recent + 1) % MAX_RECENT;
        if let Some(place) = self.recent.get_mut(self.latest_recent) {
            *place = name;
        }
        true
    }
}

fn contact(message: &Message<'_>) -> Box<str> {
    uri_text(&Address::parse(message.header("contact", Some(b'm')).unwrap_or_default()))
}

pub(super) fn hash<T: std::hash::Hash>(value: &T) -> u64 {
    BuildHasherDefault::<FxHasher>::default().hash_one(value) | 1
}

/// Zero is "unknown".
pub(super) fn tag_hash(tag: Option<&[u8]>) -> u64 {
    tag.map_or(0, |tag| hash(&tag))
}

/// What is told of a URI.
fn shortened(bytes: &[u8]) -> &[u8] {
    bytes.get(..MAX_TEXT).unwrap_or(bytes)
}

/// What is kept of a name by which others are found: a Call-ID, a user. One that is too long ends in a hash of all of it, so
/// that it is not taken for another that begins alike.
pub(super) fn name(bytes: &[u8]) -> Cow<'_, [u8]> {
    if bytes.len() <= MAX_TEXT {
        return Cow::Borrowed(bytes);
    }
    let end = format!("~{:016x}", hash(&bytes));
    Cow::Owned([bytes.get(..MAX_TEXT - end.len()).unwrap_or_default(), end.as_bytes()].concat())
}

/// The same as text.
pub(super) fn name_text(bytes: &[u8]) -> Cow<'_, str> {
    match name(bytes) {
        Cow::Borrowed(bytes) => String::from_utf8_lossy(bytes),
        Cow::Owned(bytes) => String::from_utf8_lossy(&bytes).into_owned().into(),
    }
}

pub(super) fn uri_text(address: &Address<'_>) -> Box<str> {
    String::from_utf8_lossy(shortened(address.uri)).into()
}

/// From one message to another; `None` where the capture's times run backwards between them.
pub(super) fn millis(later: Nanos, earlier: Nanos) -> Option<f64> {
    u64::try_from(later.since(earlier)).ok().map(|ns| ns as f64 / 1e6)
}

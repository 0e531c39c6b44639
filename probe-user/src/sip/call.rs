//! One call: how each message moves it, and what SDP it carries.

use std::hash::{BuildHasher, BuildHasherDefault};
use std::sync::Arc;

use rustc_hash::FxHasher;

use super::copies::Timer;
use super::media::MediaTable;
use super::message::{Address, Message};
use super::negotiation::Negotiation;
use super::report::{CallReport, CallState, Moment, Transfer, What};
use super::text::parameter;
use crate::packet::{Flow, Nanos};

/// Moments kept of one call; a call of an hour with session refreshes has some twenty.
const MAX_MOMENTS: usize = 48;
const MAX_TRANSFERS: usize = 16;
/// Bytes kept of a URI or a Call-ID.
const MAX_TEXT: usize = 256;

/// A call, and what it needs to remember to go on.
#[derive(Debug)]
pub(super) struct Call {
    pub(super) report: CallReport,
    /// Hash of the caller's tag; 0 if unknown.
    pub(super) caller_tag: u64,
    answered: Option<Nanos>,
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
        let (from, to) = (message.from(), message.to());
        // Within a dialog the From of a BYE may be the called.
        let is_callers = message.method() == "INVITE";
        Self {
            report: CallReport {
                call_id,
                from: uri_text(&from).into(),
                to: uri_text(&to).into(),
                seen_from_the_middle: !begins,
                first_frame: at.number,
                began: at.time,
                last_seen: at.time,
                ..CallReport::default()
            },
            caller_tag: if is_callers { tag_hash(from.tag) } else { 0 },
            answered: None,
            negotiation: Negotiation::default(),
        }
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
    ) -> Option<What> {
        if self.report.first_frame == cut_frame {
            self.report.from = uri_text(&message.from()).into();
            self.report.to = uri_text(&message.to()).into();
            self.caller_tag = if message.method() == "INVITE" { tag_hash(message.from().tag) } else { 0 };
        }
        let what = match (message.status(), message.method()) {
            (None, "REFER") => {
                self.report.transfers.retain(|transfer| transfer.frame != cut_frame);
                self.refer(at, message);
                None
            }
            (None, "NOTIFY") => self.notify(at, message),
            (Some(code), _) if !was_understood => {
                let counted = u64::from(matches!(code, 401 | 407));
                self.report.auth_challenges = self.report.auth_challenges.saturating_sub(counted);
                self.response(at, message, code, media)
            }
            _ => None,
        };
        self.negotiate(at, message, media);
        what
    }

    fn request(&mut self, at: Sighting, message: &Message<'_>, media: &mut MediaTable) -> Option<What> {
        match message.method() {
            // A challenged INVITE comes again, from some user agents with the tag of the refusal.
            "INVITE" if message.to().tag.is_some() && self.report.state != CallState::Challenged => {
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
                    self.negotiation.withdraw(at, media);
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
                self.negotiation.withdraw(at, media);
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
                self.negotiation.reopen(at, media);
                Some(What::Answer)
            }
            300..=699 if is_open => {
                self.report.state = match code {
                    401 | 407 => CallState::Challenged,
                    487 => CallState::Cancelled,
                    _ => CallState::Failed(code),
                };
                self.report.final_code = (!is_challenge).then_some(code);
                self.negotiation.withdraw(at, media);
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
            ..Transfer::default()
        });
    }

    /// A NOTIFY of `Event: refer` carries the new call's status line (RFC 3515, 2.4.5); its `id` is REFER's CSeq.
    fn notify(&mut self, at: Sighting, message: &Message<'_>) -> Option<What> {
        let event = message.header("event", Some(b'o'))?;
        let fragment = Message::parse(message.body).ok()?;
        let code = fragment.status()?;
        let id = parameter(event, b"id").and_then(|id| std::str::from_utf8(id).ok()?.parse().ok());
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

    /// Takes the SDP of a message, if it is an offer or an answer.
    pub(super) fn negotiate(&mut self, at: Sighting, message: &Message<'_>, media: &mut MediaTable) {
        if self.report.state == CallState::Ended {
            return;
        }
        let hold = self.negotiation.take(at, message, &self.report.call_id, &mut self.report.media, media);
        if let Some(direction) = hold {
            self.remember(at, What::Hold(direction));
        }
    }

    pub(super) fn remember(&mut self, at: Sighting, what: What) -> Moment {
        let moment = Moment { time: at.time, number: at.number, what };
        if self.report.moments.len() < MAX_MOMENTS {
            self.report.moments.push(moment);
        }
        moment
    }
}

/// Zero is "unknown".
pub(super) fn tag_hash(tag: Option<&[u8]>) -> u64 {
    tag.map_or(0, |tag| BuildHasherDefault::<FxHasher>::default().hash_one(tag) | 1)
}

pub(super) fn shortened(bytes: &[u8]) -> &[u8] {
    bytes.get(..MAX_TEXT).unwrap_or(bytes)
}

fn uri_text(address: &Address<'_>) -> Box<str> {
    String::from_utf8_lossy(shortened(address.uri)).into()
}

fn millis(later: Nanos, earlier: Nanos) -> f64 {
    later.since(earlier) as f64 / 1e6
}

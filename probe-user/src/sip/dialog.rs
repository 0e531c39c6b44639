//! The dialogs that one call's INVITE makes: one per answering user agent, by the tags of both (RFC 3261, 12).
//!
//! A proxy that forks sends one INVITE to several user agents, and each answers with a To tag of its own: several
//! may ring, and even two may answer. Hops of the same request carry the same tags, so they are one dialog here
//! however often they pass. A back-to-back user agent that keeps the Call-ID has a caller's tag of its own: its
//! dialogs are another group, and no forks of the first.

use serde::{Serialize, Serializer};

use super::hops::Origin;

/// Dialogs kept of a call; an INVITE is rarely forked to more than a hunt group.
const MAX_DIALOGS: usize = 16;

/// One user agent that answered an INVITE, and what came of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Dialog {
    /// Where it says it can be reached (Contact); empty if it did not say.
    pub contact: Box<str>,
    /// What it has come to.
    pub state: DialogState,
    /// Status that refused.
    pub code: Option<u16>,
    #[serde(skip)]
    origin: Origin,
    #[serde(skip)]
    called: u64,
}

/// What a [`Dialog`] has come to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum DialogState {
    /// It rings.
    Early,
    /// 2xx.
    Answered,
    /// 3xx to 6xx.
    Refused,
    /// 487, or another fork answered first.
    Cancelled,
    /// BYE.
    Ended,
}

/// What a response did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Answered {
    /// Nothing that the call is answered by.
    No,
    /// The first 2xx of this INVITE, or that one again.
    First,
    /// 2xx of another fork, after one had answered.
    Another,
}

/// All dialogs of a call. As JSON a list.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Dialogs {
    known: Vec<Dialog>,
}

impl Dialogs {
    /// In the order in which they showed.
    pub fn iter(&self) -> impl Iterator<Item = &Dialog> {
        self.known.iter()
    }

    /// Is the call that of one caller and one called?
    pub(super) fn are_plain(&self) -> bool {
        self.known.len() < 2
    }

    /// Takes a response to an INVITE that makes a call.
    pub(super) fn respond(
        &mut self,
        origin: Origin,
        called: u64,
        code: u16,
        contact: impl FnOnce() -> Box<str>,
    ) -> Answered {
        let is_answered = self.known.iter().any(|dialog| {
            dialog.origin == origin && dialog.called != called && dialog.state == DialogState::Answered
        });
        let position =
            self.known.iter().position(|dialog| (dialog.origin, dialog.called) == (origin, called));
        let dialog = match position {
            Some(at) => self.known.get_mut(at),
            None if makes_dialog(called, code) && self.known.len() < MAX_DIALOGS => {
                let contact = contact();
                // Most calls are not forked.
                self.known.reserve_exact(1);
                self.known.push(Dialog { contact, state: DialogState::Early, code: None, origin, called });
                self.known.last_mut()
            }
            None => None,
        };
        let Some(dialog) = dialog.filter(|dialog| dialog.state == DialogState::Early) else {
            return if (200..300).contains(&code) { Answered::First } else { Answered::No };
        };
        dialog.state = match code {
            200..=299 => DialogState::Answered,
            487 => DialogState::Cancelled,
            300..=699 => DialogState::Refused,
            _ => DialogState::Early,
        };
        dialog.code = (code >= 300).then_some(code);
        match code {
            200..=299 if is_answered => Answered::Another,
            200..=299 => Answered::First,
            _ => Answered::No,
        }
    }

    /// A BYE of the user agents with these tags. Is the call over? It is unless the same caller still has another
    /// dialog that was answered, as after two forks answered. What is not known cannot keep a call open.
    pub(super) fn end(&mut self, a: u64, b: u64) -> bool {
        let is_it = |dialog: &Dialog| {
            (dialog.origin.caller, dialog.called) == (a, b) || (dialog.origin.caller, dialog.called) == (b, a)
        };
        let Some(dialog) = self.known.iter_mut().find(|dialog| is_it(dialog)) else { return true };
        dialog.state = DialogState::Ended;
        let caller = dialog.origin.caller;
        !self
            .known
            .iter()
            .any(|dialog| dialog.origin.caller == caller && dialog.state == DialogState::Answered)
    }

    /// Different To tags in responses to one INVITE.
    pub(super) fn forks(&self) -> u16 {
        let siblings = |one: &Dialog| self.known.iter().filter(|other| other.origin == one.origin).count();
        let most = self.known.iter().map(siblings).max().unwrap_or(0);
        u16::try_from(most).unwrap_or(u16::MAX)
    }
}

impl Serialize for Dialogs {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(&self.known)
    }
}

/// Is a tag that was not known before that of an answering user agent? 100 is a hop's own, and a challenge, a
/// timeout and 487 carry the tag of the proxy that makes them.
fn makes_dialog(called: u64, code: u16) -> bool {
    called != 0 && !matches!(code, 100 | 401 | 407 | 408 | 487)
}

#[cfg(test)]
mod tests {
    use super::*;

    const ORIGIN: Origin = Origin { caller: 1, cseq: 1 };

    fn respond(dialogs: &mut Dialogs, called: u64, code: u16) -> Answered {
        dialogs.respond(ORIGIN, called, code, || format!("sip:{called}@x").into())
    }

    #[test]
    fn forks_ring_answer_and_are_cancelled_each_for_itself() {
        let mut dialogs = Dialogs::default();
        for (called, code) in [(10, 180), (11, 180), (12, 486), (10, 200), (11, 487), (99, 487), (98, 408)] {
            respond(&mut dialogs, called, code);
        }
        let found: Vec<_> = dialogs.iter().map(|dialog| (dialog.called, dialog.state, dialog.code)).collect();
        let expected = [
            (10, DialogState::Answered, None),
            (11, DialogState::Cancelled, Some(487)),
            (12, DialogState::Refused, Some(486)),
        ];
        assert_eq!(found, expected);
        assert_eq!(dialogs.forks(), 3);
    }

    #[test]
    fn call_of_two_answers_ends_with_its_last_bye() {
        let mut dialogs = Dialogs::default();
        assert_eq!(respond(&mut dialogs, 10, 200), Answered::First);
        assert_eq!(respond(&mut dialogs, 11, 200), Answered::Another);
        assert_eq!(respond(&mut dialogs, 10, 200), Answered::First, "the hop above repeats it");
        assert!(!dialogs.end(1, 11));
        assert!(dialogs.end(10, 1), "whoever hangs up");
        assert!(Dialogs::default().end(5, 6));
    }

    #[test]
    fn challenge_and_next_attempt_are_no_forks() {
        let mut dialogs = Dialogs::default();
        respond(&mut dialogs, 7, 407);
        respond(&mut dialogs, 8, 486);
        dialogs.respond(Origin { cseq: 2, ..ORIGIN }, 9, 200, Box::default);
        dialogs.respond(Origin { caller: 5, cseq: 1 }, 10, 200, Box::default);
        assert_eq!(dialogs.forks(), 1);
    }
}

//! Who put whom on hold, and for how long (RFC 3264, 8.4).
//!
//! Hold is what a party asks for within the call: SDP in INVITE, UPDATE or ACK that says it will not receive. What the
//! other one answers to that (`recvonly`, `inactive`) is no hold of its own. A request that is refused holds nobody.

use serde::Serialize;

use super::sdp::Direction;
use crate::packet::Nanos;

/// Holds told one by one; further ones are only counted.
const MAX_HOLDS: usize = 16;

/// One time on hold.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Hold {
    /// Who held the other: "caller" or "called"; null if the caller is not known.
    pub by: Option<&'static str>,
    /// When, in seconds after the call's first message.
    pub at_s: f64,
    /// What its SDP asked for: "sendonly" is usual with music, "inactive" without.
    pub direction: &'static str,
    /// Until it was resumed or the call ended, in milliseconds; null if neither was seen.
    pub lasted_ms: Option<f64>,
}

/// Who holds now.
#[derive(Debug, Default)]
pub(super) struct Holds {
    /// A party by its tag.
    open: Vec<Open>,
    /// The latest change, while it may still be refused.
    latest: Option<Change>,
}

#[derive(Clone, Copy, Debug)]
struct Open {
    by: u64,
    since: Nanos,
    /// Its place in the report, if there was room.
    place: Option<usize>,
}

#[derive(Clone, Copy, Debug)]
struct Change {
    by: u64,
    cseq: u32,
    before: Option<Open>,
}

/// What SDP changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Changed {
    Held,
    Resumed,
}

/// SDP within the call: whose, in which request, when, and since when the call goes on.
#[derive(Clone, Copy, Debug)]
pub(super) struct Asked {
    pub(super) by: u64,
    pub(super) name: Option<&'static str>,
    pub(super) cseq: u32,
    pub(super) direction: Direction,
    pub(super) time: Nanos,
    pub(super) began: Nanos,
}

impl Holds {
    /// Takes what a party asks for. `told` is the report's list.
    pub(super) fn ask(&mut self, asked: Asked, told: &mut Vec<Hold>) -> Option<Changed> {
        let holds = matches!(asked.direction, Direction::SendOnly | Direction::Inactive);
        let before = self.open.iter().position(|open| open.by == asked.by);
        match (holds, before) {
            (true, None) => {
                let place = (told.len() < MAX_HOLDS).then_some(told.len());
                if place.is_some() {
                    told.push(Hold {
                        by: asked.name,
                        at_s: asked.time.since(asked.began) as f64 / 1e9,
                        direction: asked.direction.attribute(),
                        lasted_ms: None,
                    });
                }
                // Two parties of a call; a third is a change of tags, and the oldest hold is not known to go on.
                if self.open.len() >= 4 {
                    self.open.remove(0);
                }
                self.open.push(Open { by: asked.by, since: asked.time, place });
                self.latest = Some(Change { by: asked.by, cseq: asked.cseq, before: None });
                Some(Changed::Held)
            }
            (false, Some(at)) if asked.direction == Direction::SendRecv => {
                let before = self.open.remove(at);
                before.close(asked.time, told);
                self.latest = Some(Change { by: asked.by, cseq: asked.cseq, before: Some(before) });
                Some(Changed::Resumed)
            }
            _ => None,
        }
    }

    /// That request was refused: what it changed is as before. Gives what is taken back.
    pub(super) fn refuse(&mut self, by: u64, cseq: u32, told: &mut Vec<Hold>) -> Option<Changed> {
        let change = self.latest.take_if(|change| change.by == by && change.cseq == cseq)?;
        if let Some(before) = change.before {
            if let Some(hold) = before.place.and_then(|place| told.get_mut(place)) {
                hold.lasted_ms = None;
            }
            self.open.push(before);
            return Some(Changed::Resumed);
        }
        let at = self.open.iter().position(|open| open.by == by)?;
        if self.open.remove(at).place.is_some() {
            told.pop();
        }
        Some(Changed::Held)
    }

    /// The call is over, and so is every hold.
    pub(super) fn end(&mut self, now: Nanos, told: &mut [Hold]) {
        for open in self.open.drain(..) {
            open.close(now, told);
        }
    }
}

impl Open {
    fn close(self, now: Nanos, told: &mut [Hold]) {
        if let Some(hold) = self.place.and_then(|place| told.get_mut(place)) {
            hold.lasted_ms = Some(now.since(self.since) as f64 / 1e6);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ask(
        holds: &mut Holds,
        told: &mut Vec<Hold>,
        by: u64,
        cseq: u32,
        direction: Direction,
    ) -> Option<Changed> {
        let time = Nanos(u64::from(cseq) * 1_000_000_000);
        holds.ask(Asked { by, name: Some("caller"), cseq, direction, time, began: Nanos(0) }, told)
    }

    #[test]
    fn each_party_holds_for_itself_and_an_answer_is_no_hold() {
        let (mut holds, mut told) = (Holds::default(), Vec::new());
        assert_eq!(ask(&mut holds, &mut told, 1, 1, Direction::SendOnly), Some(Changed::Held));
        assert_eq!(ask(&mut holds, &mut told, 1, 2, Direction::Inactive), None, "it holds already");
        assert_eq!(ask(&mut holds, &mut told, 2, 3, Direction::Inactive), Some(Changed::Held));
        assert_eq!(ask(&mut holds, &mut told, 2, 4, Direction::RecvOnly), None);
        assert_eq!(ask(&mut holds, &mut told, 1, 5, Direction::SendRecv), Some(Changed::Resumed));
        holds.end(Nanos(9_000_000_000), &mut told);
        let lasted: Vec<_> = told.iter().map(|hold| (hold.at_s, hold.lasted_ms)).collect();
        assert_eq!(lasted, [(1.0, Some(4000.0)), (3.0, Some(6000.0))]);
    }

    #[test]
    fn refused_change_is_none() {
        let (mut holds, mut told) = (Holds::default(), Vec::new());
        ask(&mut holds, &mut told, 1, 1, Direction::SendOnly);
        assert_eq!(holds.refuse(1, 9, &mut told), None, "another request");
        assert_eq!(holds.refuse(1, 1, &mut told), Some(Changed::Held));
        assert!(told.is_empty());
        ask(&mut holds, &mut told, 1, 2, Direction::SendOnly);
        ask(&mut holds, &mut told, 1, 3, Direction::SendRecv);
        assert_eq!(holds.refuse(1, 3, &mut told), Some(Changed::Resumed));
        holds.end(Nanos(7_000_000_000), &mut told);
        assert_eq!(told[0].lasted_ms, Some(5000.0));
    }
}

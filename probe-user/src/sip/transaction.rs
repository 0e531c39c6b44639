//! Transactions: which requests were answered, how, and which were not (RFC 3261, 17).
//!
//! A transaction is a request on one hop, by Call-ID, CSeq, method and the branch of the topmost Via; its responses carry
//! the same. A request that passes a proxy is two of them. ACK is none of its own. Repeats are left out by the caller.
//!
//! Most of what is counted here belongs to no call: registrations, pings, subscriptions, messages.

use std::collections::VecDeque;
use std::collections::hash_map::Entry;
use std::hash::{BuildHasher, BuildHasherDefault};

use rustc_hash::{FxHashMap, FxHasher};
use serde::Serialize;
use serde::ser::{SerializeMap, Serializer};

use super::call::Sighting;
use super::message::Message;
use super::silent::{Asked, SilentReport};
use crate::packet::Nanos;

/// Transactions that wait for an answer, 32 bytes each with their place in the queue: 32 s of 4,000 a second.
const MAX_OPEN: usize = 131_072;
/// A client gives up after 64 T1 (timers B and F).
const PATIENCE: u64 = 32_000_000_000;
/// With a provisional response an INVITE may go on for minutes (timer C, RFC 3261, 16.6).
const RINGING: u64 = 300_000_000_000;
/// Methods told apart; a flood of invented ones adds up under the last.
const MAX_METHODS: usize = 24;

/// What became of the transactions of one method.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Outcomes {
    /// Requests seen, each hop for itself, repeats apart.
    pub requests: u64,
    /// Accepted.
    #[serde(rename = "2xx")]
    pub success: u64,
    /// Redirected.
    #[serde(rename = "3xx")]
    pub redirected: u64,
    /// 401 and 407.
    pub challenged: u64,
    /// Other refusals of the request.
    #[serde(rename = "4xx")]
    pub refused: u64,
    /// Failures of the server.
    #[serde(rename = "5xx")]
    pub failed: u64,
    /// Declined everywhere.
    #[serde(rename = "6xx")]
    pub declined: u64,
    /// No final response for as long as a client waits.
    pub unanswered: u64,
    /// No final response yet.
    pub open: u64,
    /// Forgotten before an answer, for want of room.
    pub forgotten: u64,
    /// Final responses without a request: it was not captured, or was forgotten.
    pub request_not_seen: u64,
}

/// Outcomes by method. As JSON an object.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ByMethod(Vec<(Box<str>, Outcomes)>);

impl ByMethod {
    /// Of one method.
    pub fn of(&self, method: &str) -> Outcomes {
        self.iter().find(|(name, _)| *name == method).map_or(Outcomes::default(), |(_, outcomes)| outcomes)
    }

    /// All methods that were seen.
    pub fn iter(&self) -> impl Iterator<Item = (&str, Outcomes)> {
        self.0.iter().map(|(name, outcomes)| (&**name, *outcomes))
    }

    fn place(&mut self, method: &str) -> usize {
        let find = |all: &[(Box<str>, Outcomes)], name: &str| all.iter().position(|(n, _)| **n == *name);
        if let Some(known) = find(&self.0, method) {
            return known;
        }
        let name = if self.0.len() < MAX_METHODS { method } else { "other" };
        find(&self.0, name).unwrap_or_else(|| {
            self.0.push((name.into(), Outcomes::default()));
            self.0.len() - 1
        })
    }

    fn get_mut(&mut self, place: usize) -> Option<&mut Outcomes> {
        self.0.get_mut(place).map(|(_, outcomes)| outcomes)
    }
}

impl Serialize for ByMethod {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(self.0.len()))?;
        for (name, outcomes) in self.iter() {
            map.serialize_entry(name, &outcomes)?;
        }
        map.end()
    }
}

/// The final response that a request got.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Answer {
    pub(super) code: u16,
    /// The REGISTER asked to be forgotten (Expires: 0).
    pub(super) removes: bool,
}

/// Transactions without a final response, and the outcomes of all.
#[derive(Debug, Default)]
pub(super) struct Transactions {
    open: FxHashMap<u64, Open>,
    /// By the time when they are looked at, which is in order.
    due: VecDeque<(Nanos, u64)>,
    outcomes: ByMethod,
    asked: Asked,
    /// Of the last frame.
    now: Nanos,
}

#[derive(Clone, Copy, Debug)]
struct Open {
    method: u8,
    /// Who was asked, if that is watched.
    to: Option<u16>,
    rings: bool,
    /// A final response came; kept, as forks may bring another.
    is_answered: bool,
    removes: bool,
    asked: Nanos,
}

impl Transactions {
    /// Takes a message that was not sent before. Gives the final response to a request that was seen.
    pub(super) fn observe(&mut self, at: Sighting, message: &Message<'_>) -> Option<Answer> {
        self.advance(at.time);
        let method = message.method();
        let key = key(message);
        match message.status() {
            None => {
                let to = self.asked.ask(at, message);
                if !method.is_empty() && method != "ACK" {
                    self.ask(at.time, key, to, message);
                }
                None
            }
            Some(code) => {
                self.asked.answer(at, self.open.get(&key).and_then(|open| open.to));
                if method.is_empty() { None } else { self.answer(key, method, code) }
            }
        }
    }

    fn ask(&mut self, now: Nanos, key: u64, to: Option<u16>, message: &Message<'_>) {
        let method = message.method();
        let place = self.outcomes.place(method);
        let Entry::Vacant(vacant) = self.open.entry(key) else { return };
        let removes = method == "REGISTER" && removes(message);
        let method = u8::try_from(place).unwrap_or(u8::MAX);
        vacant.insert(Open { method, to, rings: false, is_answered: false, removes, asked: now });
        self.due.push_back((Nanos(now.0.saturating_add(PATIENCE)), key));
        if let Some(outcomes) = self.outcomes.get_mut(place) {
            outcomes.requests += 1;
        }
        while self.due.len() > MAX_OPEN {
            let Some((_, gone)) = self.due.pop_front() else { break };
            let Some(open) = self.open.remove(&gone).filter(|open| !open.is_answered) else { continue };
            if let Some(outcomes) = self.outcomes.get_mut(usize::from(open.method)) {
                outcomes.forgotten += 1;
            }
        }
    }

    fn answer(&mut self, key: u64, method: &str, code: u16) -> Option<Answer> {
        let open = self.open.get_mut(&key);
        if code < 200 {
            if let Some(open) = open {
                open.rings = true;
            }
            return None;
        }
        let Some(open) = open else {
            let place = self.outcomes.place(method);
            if let Some(outcomes) = self.outcomes.get_mut(place) {
                outcomes.request_not_seen += 1;
            }
            return None;
        };
        if open.is_answered {
            return None;
        }
        open.is_answered = true;
        let removes = open.removes;
        let outcomes = self.outcomes.get_mut(usize::from(open.method))?;
        let count = match code {
            401 | 407 => &mut outcomes.challenged,
            300..=399 => &mut outcomes.redirected,
            400..=499 => &mut outcomes.refused,
            500..=599 => &mut outcomes.failed,
            600.. => &mut outcomes.declined,
            _ => &mut outcomes.success,
        };
        *count += 1;
        Some(Answer { code, removes })
    }

    /// Lets packet time pass: nobody waits any longer for what is due.
    pub(super) fn advance(&mut self, now: Nanos) {
        self.now = now;
        while let Some(&(due, key)) = self.due.front()
            && due <= now
        {
            self.due.pop_front();
            let Some(open) = self.open.get(&key).copied() else { continue };
            let waits = open.rings && !open.is_answered && now.0.saturating_sub(open.asked.0) < RINGING;
            // At the end of all times that a file can claim there is no later: it would be due again at once, without end.
            if waits && let Some(later) = now.0.checked_add(PATIENCE) {
                self.due.push_back((Nanos(later), key));
                continue;
            }
            self.open.remove(&key);
            if let Some(outcomes) = self.outcomes.get_mut(usize::from(open.method))
                && !open.is_answered
            {
                outcomes.unanswered += 1;
            }
        }
    }

    /// Who answers nothing.
    pub(super) fn silent(&self) -> SilentReport {
        self.asked.report(self.now)
    }

    /// How often what was sent proves that somebody answered, whether that was captured or not.
    pub(super) fn proofs_of_answers(&self) -> u64 {
        self.asked.proofs()
    }

    /// What has become of all so far.
    pub(super) fn outcomes(&self) -> ByMethod {
        let mut outcomes = self.outcomes.clone();
        for open in self.open.values().filter(|open| !open.is_answered) {
            if let Some(of) = outcomes.get_mut(usize::from(open.method)) {
                of.open += 1;
            }
        }
        outcomes
    }
}

fn key(message: &Message<'_>) -> u64 {
    let cseq = message.cseq.map_or(0, |cseq| cseq.number);
    let name = (message.call_id, message.branch(), cseq, message.method());
    BuildHasherDefault::<FxHasher>::default().hash_one(name)
}

/// Does a REGISTER remove its binding (RFC 3261, 10.2.2)?
fn removes(message: &Message<'_>) -> bool {
    let contact = message.header("contact", Some(b'm')).unwrap_or_default();
    let own = super::text::parameter(contact, b"expires").and_then(super::text::number::<u32>);
    own.or_else(|| message.expires()) == Some(0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::packet::{Endpoint, Flow};

    fn observe(transactions: &mut Transactions, seconds: u64, text: &str, branch: &str) -> Option<Answer> {
        let text = format!(
            "{text}\r\nVia: SIP/2.0/UDP h;branch={branch}\r\nFrom: <sip:a@x>;tag=1\r\nTo: <sip:a@x>\r\nCall-ID: c\r\n\r\n"
        );
        let flow = Flow { src: Endpoint::v4([10, 0, 0, 1], 5060), dst: Endpoint::v4([10, 0, 0, 2], 5060) };
        let at = Sighting { time: Nanos(seconds * 1_000_000_000), number: 1, flow };
        transactions.observe(at, &Message::parse(text.as_bytes()).unwrap())
    }

    #[test]
    fn each_request_comes_to_one_outcome() {
        let mut all = Transactions::default();
        let options = "OPTIONS sip:a@x SIP/2.0\r\nCSeq: 1 OPTIONS";
        for (branch, answer) in
            [("a", Some("200 OK")), ("b", Some("404 No")), ("c", None), ("d", Some("401 Who"))]
        {
            observe(&mut all, 1, options, branch);
            if let Some(answer) = answer {
                let response = format!("SIP/2.0 {answer}\r\nCSeq: 1 OPTIONS");
                assert!(observe(&mut all, 2, &response, branch).is_some());
                assert_eq!(observe(&mut all, 2, &response, branch), None, "another fork's");
            }
        }
        observe(&mut all, 3, "SIP/2.0 503 No\r\nCSeq: 1 OPTIONS", "unknown");
        observe(&mut all, 34, options, "late");
        let expected = Outcomes {
            requests: 5,
            success: 1,
            refused: 1,
            challenged: 1,
            unanswered: 1,
            open: 1,
            request_not_seen: 1,
            ..Outcomes::default()
        };
        assert_eq!(all.outcomes().of("OPTIONS"), expected);
    }

    #[test]
    fn invite_that_rings_is_waited_for() {
        let mut all = Transactions::default();
        observe(&mut all, 0, "INVITE sip:a@x SIP/2.0\r\nCSeq: 1 INVITE", "a");
        observe(&mut all, 1, "SIP/2.0 180 Ringing\r\nCSeq: 1 INVITE", "a");
        for seconds in [40, 80, 120] {
            observe(&mut all, seconds, "OPTIONS sip:a@x SIP/2.0\r\nCSeq: 1 OPTIONS", "o");
        }
        assert_eq!(all.outcomes().of("INVITE").open, 1);
        let answer = observe(&mut all, 130, "SIP/2.0 200 OK\r\nCSeq: 1 INVITE", "a");
        assert_eq!(answer, Some(Answer { code: 200, removes: false }));
    }

    /// A file may claim any time, and with the last of all there is nothing left to wait for.
    #[test]
    fn invite_that_rings_at_the_end_of_all_times_is_not_waited_for() {
        let mut all = Transactions::default();
        let last_second = u64::MAX / 1_000_000_000;
        observe(&mut all, last_second, "INVITE sip:a@x SIP/2.0\r\nCSeq: 1 INVITE", "a");
        observe(&mut all, last_second, "SIP/2.0 180 Ringing\r\nCSeq: 1 INVITE", "a");
        all.advance(Nanos(u64::MAX));
        assert_eq!(all.outcomes().of("INVITE").open, 0);
    }

    #[test]
    fn flood_of_requests_and_methods_stays_bounded() {
        let mut all = Transactions::default();
        for n in 0..MAX_OPEN + 1_000 {
            let method = format!("M{}", n % 50);
            observe(&mut all, 1, &format!("{method} sip:a@x SIP/2.0\r\nCSeq: 1 {method}"), &format!("{n}"));
        }
        let outcomes = all.outcomes();
        let sum = |of: fn(Outcomes) -> u64| outcomes.iter().map(|(_, outcomes)| of(outcomes)).sum::<u64>();
        assert_eq!(sum(|of| of.requests), (MAX_OPEN + 1_000) as u64);
        assert_eq!((sum(|of| of.open), sum(|of| of.forgotten)), (MAX_OPEN as u64, 1_000));
        assert_eq!(outcomes.iter().count(), MAX_METHODS + 1);
    }
}

//! What was counted of all signalling.
//!
//! Messages are counted as they were sent: copies apart, retransmissions included. Messages and copies together are
//! what a tool that knows no copies counts (`sip,stat` of tshark).

use serde::Serialize;
use serde::ser::{SerializeMap, Serializer};

use super::call::{Sighting, name_text};
use super::challenge::AuthRefused;
use super::copies::{Repeat, Timer};
use super::cut::CapturedReport;
use super::defects::Defects;
use super::encrypted::EncryptedReport;
use super::message::{Malformed, Message};
use super::reassembly::TcpFigures;
use super::registrations::RegistrationReport;
use super::silent::SilentReport;
use super::sources::Suspect;
use super::transaction::ByMethod;
use crate::dedup::stats::CauseReport;
use crate::packet::Endpoint;

/// Method names kept apart; a flood of invented ones adds up under `other`.
const MAX_METHODS: usize = 64;
const FIRST_CODE: u16 = 100;
const CODES: usize = 600;

/// Counters of one kind of message.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Tally {
    /// Sent: copies removed, retransmissions included.
    pub messages: u64,
    /// Frames captured beyond the first.
    pub copies: u64,
}

/// Requests by method and responses by status code.
#[derive(Clone, Debug)]
pub struct Kinds {
    codes: Vec<Tally>,
    methods: Vec<(Box<str>, Tally)>,
}

impl Default for Kinds {
    fn default() -> Self {
        Self { codes: vec![Tally::default(); CODES], methods: Vec::new() }
    }
}

impl Kinds {
    /// Counts a message. Gives the place where its copies are counted.
    pub(super) fn count(&mut self, status: Option<u16>, method: &str) -> usize {
        let place = match status {
            Some(code) => usize::from(code.saturating_sub(FIRST_CODE)),
            None => CODES + self.method(method),
        };
        if let Some(tally) = self.tally(place) {
            tally.messages += 1;
        }
        place
    }

    pub(super) fn count_copy(&mut self, place: usize) {
        if let Some(tally) = self.tally(place) {
            tally.copies += 1;
        }
    }

    /// What was counted as a message was a copy.
    fn was_copy(&mut self, place: usize) {
        if let Some(tally) = self.tally(place) {
            tally.messages = tally.messages.saturating_sub(1);
            tally.copies += 1;
        }
    }

    /// Requests of a method.
    pub fn requests(&self, method: &str) -> Tally {
        self.methods.iter().find(|(name, _)| **name == *method).map_or(Tally::default(), |(_, tally)| *tally)
    }

    /// Responses with a status code.
    pub fn responses(&self, code: u16) -> Tally {
        let place = code.checked_sub(FIRST_CODE).map(usize::from);
        place.and_then(|place| self.codes.get(place)).copied().unwrap_or_default()
    }

    /// Are there any responses?
    pub fn has_responses(&self) -> bool {
        self.codes.iter().any(|tally| tally.messages > 0)
    }

    /// What was seen: `INVITE`, …, `200`, ….
    pub fn iter(&self) -> impl Iterator<Item = (String, Tally)> {
        let methods = self.methods.iter().map(|(name, tally)| (name.to_string(), *tally));
        let codes = (FIRST_CODE..).zip(&self.codes).filter(|(_, tally)| **tally != Tally::default());
        methods.chain(codes.map(|(code, tally)| (code.to_string(), *tally)))
    }

    fn tally(&mut self, place: usize) -> Option<&mut Tally> {
        match place.checked_sub(CODES) {
            None => self.codes.get_mut(place),
            Some(method) => self.methods.get_mut(method).map(|(_, tally)| tally),
        }
    }

    fn method(&mut self, name: &str) -> usize {
        let position =
            |methods: &[(Box<str>, Tally)], name: &str| methods.iter().position(|(n, _)| **n == *name);
        if let Some(known) = position(&self.methods, name) {
            return known;
        }
        let name = if self.methods.len() < MAX_METHODS { name } else { "other" };
        position(&self.methods, name).unwrap_or_else(|| {
            self.methods.push((name.into(), Tally::default()));
            self.methods.len() - 1
        })
    }
}

impl Serialize for Kinds {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        for (name, tally) in self.iter() {
            map.serialize_entry(&name, &tally)?;
        }
        map.end()
    }
}

/// Retransmissions by the timer that made them, and repeats that none did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Repeats {
    /// INVITE without any response.
    pub timer_a: u64,
    /// Another request without a final response.
    pub timer_e: u64,
    /// A refusal of INVITE without ACK.
    pub timer_g: u64,
    /// 2xx to INVITE without ACK.
    pub two_hundred: u64,
    /// A reliable provisional response without PRACK.
    pub provisional: u64,
    /// Sent again because what they answer was.
    pub echoes: u64,
    /// Neither.
    pub unscheduled: u64,
}

impl Repeats {
    /// Those that a timer made.
    pub fn retransmissions(&self) -> u64 {
        self.timer_a + self.timer_e + self.timer_g + self.two_hundred + self.provisional
    }

    /// Counts a repeat, and `explained` earlier ones of its message that it explains.
    pub(super) fn count(&mut self, repeat: Repeat, explained: u64) {
        *self.of(repeat) += 1 + explained;
        self.unscheduled = self.unscheduled.saturating_sub(explained);
    }

    fn of(&mut self, repeat: Repeat) -> &mut u64 {
        match repeat {
            Repeat::Timer(Timer::A) => &mut self.timer_a,
            Repeat::Timer(Timer::E) => &mut self.timer_e,
            Repeat::Timer(Timer::G) => &mut self.timer_g,
            Repeat::Timer(Timer::TwoHundred) => &mut self.two_hundred,
            Repeat::Timer(Timer::Provisional) => &mut self.provisional,
            Repeat::Echo => &mut self.echoes,
            Repeat::Unscheduled => &mut self.unscheduled,
        }
    }
}

/// One message that was sent again.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Retransmitted {
    /// Whose timer: "A", "E", "G", "2xx", "1xx"; or "none".
    pub timer: &'static str,
    /// What was sent: a method, or a status code with its method.
    pub message: String,
    /// Frame of the transmission before.
    pub of: u64,
    /// Frame of this one.
    pub frame: u64,
    /// This long after it, in milliseconds.
    pub gap_ms: f64,
    /// Who sent it.
    pub from: Endpoint,
    /// Who should have answered, and did not in time.
    pub to: Endpoint,
    /// Its call.
    pub call_id: String,
}

impl Retransmitted {
    fn new(at: Sighting, message: &Message<'_>, timer: &'static str, of: u64, gap_ns: i64) -> Self {
        let method: String = message.method().chars().take(MAX_METHOD).collect();
        Self {
            timer,
            message: message.status().map_or(method.clone(), |code| format!("{code} to {method}")),
            of,
            frame: at.number,
            gap_ms: gap_ns as f64 / 1e6,
            from: at.flow.src,
            to: at.flow.dst,
            call_id: name_text(message.call_id).into_owned(),
        }
    }
}

/// A frame on a SIP port that holds no message.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Unreadable {
    /// Its number.
    pub frame: u64,
    /// Why.
    #[serde(serialize_with = "in_words")]
    pub reason: Malformed,
}

/// A message that could be read in spite of its defects.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Defective {
    /// Its frame.
    pub frame: u64,
    /// What is wrong with it.
    pub defects: Defects,
}

fn in_words<S: Serializer>(reason: &Malformed, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(reason)
}

/// Frames that are named.
pub(super) const MAX_UNREADABLE: usize = 16;
/// Examples of retransmissions that are kept.
const MAX_EXAMPLES: usize = 16;
/// Characters of a method that are shown.
const MAX_METHOD: usize = 32;

impl SipReport {
    /// Keeps a retransmission as an example, if there is room.
    pub(super) fn keep_example(
        &mut self,
        at: Sighting,
        message: &Message<'_>,
        timer: Timer,
        of: u64,
        gap_ns: i64,
    ) {
        if self.retransmitted.len() < MAX_EXAMPLES {
            self.retransmitted.push(Retransmitted::new(at, message, timer.name(), of, gap_ns));
        }
    }

    /// The same of one that no timer sent.
    pub(super) fn keep_unscheduled(&mut self, at: Sighting, message: &Message<'_>, of: u64, gap_ns: i64) {
        if self.unscheduled.len() < MAX_EXAMPLES {
            self.unscheduled.push(Retransmitted::new(at, message, "none", of, gap_ns));
        }
    }

    /// The repeat in this frame has found its reason.
    pub(super) fn is_explained(&mut self, frame: u64) {
        self.unscheduled.retain(|again| again.frame != frame);
    }

    /// Counts a message's defects, if it has any, and keeps the first few.
    pub(super) fn note_defects(&mut self, frame: u64, defects: Defects) {
        self.defective += u64::from(defects.any());
        if defects.any() && self.defects.len() < MAX_UNREADABLE {
            self.defects.push(Defective { frame, defects });
        }
    }

    /// What was counted as a repeated message was a copy.
    pub(super) fn was_copy(&mut self, place: usize, was_defective: bool, repeat: Repeat) {
        self.messages = self.messages.saturating_sub(1);
        self.defective = self.defective.saturating_sub(u64::from(was_defective));
        self.copies += 1;
        self.kinds.was_copy(place);
        let count = self.repeats.of(repeat);
        *count = count.saturating_sub(1);
    }

    /// What was counted as a message was the beginning of one that is counted for itself.
    pub(super) fn uncount(&mut self, place: usize, was_defective: bool) {
        self.messages = self.messages.saturating_sub(1);
        self.defective = self.defective.saturating_sub(u64::from(was_defective));
        let is_challenge = [401, 407].contains(&(place + usize::from(FIRST_CODE)));
        self.auth_challenges = self.auth_challenges.saturating_sub(u64::from(is_challenge));
        if let Some(tally) = self.kinds.tally(place) {
            tally.messages = tally.messages.saturating_sub(1);
        }
    }
}

/// The `sip` object of the report, and the counters while they count.
#[derive(Clone, Debug, Default, Serialize)]
pub struct SipReport {
    /// Sent on the wire: copies removed, retransmissions included.
    pub messages: u64,
    /// Frames captured beyond the first.
    pub copies: u64,
    /// Those of `messages` that repeat an earlier one by a timer.
    pub retransmissions: u64,
    /// 401 and 407, repeats apart.
    pub auth_challenges: u64,
    /// Whose credentials are refused. Filled when a report is made.
    pub auth_refused: AuthRefused,
    /// Datagrams and streams on a SIP port that hold no message.
    pub malformed: u64,
    /// Messages with a defect that did not prevent reading.
    pub defective: u64,
    /// The first few of `defective`, and what is wrong with them.
    pub defects: Vec<Defective>,
    /// Datagrams of line ends only.
    pub keep_alives: u64,
    /// Messages over TCP that a gap or the limit of memory cut off.
    pub sip_tcp_partial: u64,
    /// TCP segments that brought nothing new.
    pub tcp_retransmissions: u64,
    /// What became of TCP segments. Filled when a report is made.
    pub tcp: TcpFigures,
    /// Frames of WebSocket (RFC 7118), those of control included.
    pub websocket_frames: u64,
    /// Signalling over TLS. Filled when a report is made.
    pub encrypted: EncryptedReport,
    /// How much of the frames was captured.
    pub captured: CapturedReport,
    /// Frames that hold no message, the first few of `malformed`, and why.
    pub unreadable: Vec<Unreadable>,
    /// Repeats by their reason.
    pub repeats: Repeats,
    /// By method and status code.
    pub kinds: Kinds,
    /// Pairs of hosts of which only one sent SIP.
    pub pairs_one_way: u64,
    /// Pairs of hosts that both did.
    pub pairs_both_ways: u64,
    /// Calls that were neither ended nor heard of any more: no SIP and no media for too long.
    pub calls_lost_sight: u64,
    /// What became of requests, by method, each hop for itself.
    pub transactions: ByMethod,
    /// Who was asked and answers nothing. Filled when a report is made.
    pub silent: SilentReport,
    /// ACK, BYE and PRACK with a To tag: somebody answered, whether it was captured or not. Filled when a report is made.
    pub proofs_of_answers: u64,
    /// What became of registrations.
    pub registrations: RegistrationReport,
    /// Who floods, scans, or is refused again and again.
    pub suspects: Vec<Suspect>,
    /// Examples of retransmissions, the first few.
    pub retransmitted: Vec<Retransmitted>,
    /// Examples of repeats that no timer explains, the first few.
    pub unscheduled: Vec<Retransmitted>,
    /// Copies by cause. Filled when a report is made.
    pub causes: Vec<CauseReport>,
}

//! The tracker that all SIP passes through, in the order of the capture.
//!
//! ```text
//!   datagram ─▶ copy? ──yes─▶ counted with its original, and its cause
//!                 │no
//!                 ▼
//!     (TCP: stream) ─▶ message ─▶ repeat? ─▶ totals ─▶ call ─▶ media table ─▶ kernel's map
//! ```
//!
//! One thread owns it: the one that receives packets, so that an SDP takes effect before the next packet.
//! No clocks, no I/O: the same packets give the same answers.

use rustc_hash::FxHashMap;
use serde::Serialize;

use super::call::Sighting;
use super::calls::{CallEvent, CallReport, Calls, MAX_CALLS};
use super::challenge::{Challenged, Challenges};
use super::copies::{Again, Key, Noted, Repeat, Seen, Transmissions, Transport, Unexplained};
use super::cut::{self, Captured, Recent};
use super::encrypted::{Encrypted, EncryptedReport};
use super::media::{self, MediaTable};
use super::message::{self, Malformed, Message};
use super::reassembly::{Streams, TcpFigures};
use super::registrations::Registrations;
use super::related::LegHeaders;
use super::sources::{Effect, Sources};
use super::totals::{MAX_UNREADABLE, SipReport, Unreadable};
use super::transaction::Transactions;
use super::transcript::Transcript;
use crate::dedup::stats::Copy;
use crate::dedup::{Cause, CopyStats, FrameClass};
use crate::packet::{Evidence, Flow, Nanos};

#[path = "connections.rs"]
mod connections;

use self::connections::{Frame, Protocol};

/// Pairs of hosts told apart; more make no difference to whether any is seen both ways.
const MAX_PAIRS: usize = 4_096;

/// Bounds, and what the caller wants to follow.
#[derive(Clone, Debug)]
pub struct Limits {
    /// Calls kept, ended ones included.
    pub calls: usize,
    /// Media lines announced at one time.
    pub media_lines: usize,
    /// How long packets still belong to a call that has ended. tshark never ends it: a comparison needs forever.
    pub grace: Nanos,
    /// Take as announced what `m=` and `c=` say and nothing else, as tshark does: see [`MediaTable::literal`].
    pub literal: bool,
    /// Keep changes of endpoints for [`MediaTable::drain_changes`]: for the kernel's map.
    pub follow_endpoints: bool,
    /// Keep changes of calls for [`Signalling::drain_events`]: for the health log.
    pub follow_calls: bool,
    /// Headers that carry the Call-ID of a back-to-back user agent's other leg.
    pub leg_headers: LegHeaders,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            calls: MAX_CALLS,
            media_lines: media::MAX_LINES,
            grace: media::GRACE,
            literal: false,
            follow_endpoints: false,
            follow_calls: false,
            leg_headers: LegHeaders::default(),
        }
    }
}

/// What a frame turned out to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Observed {
    /// One message, or several in a stream's segment.
    Messages {
        /// How many.
        count: u32,
        /// Whether the last of them was sent before.
        repeat: Option<Repeat>,
    },
    /// The frame with number `of`, captured again.
    Copy {
        /// Number of the original.
        of: u64,
        /// Why there are two.
        cause: Cause,
    },
    /// Line ends only.
    KeepAlive,
    /// A part of a stream that completes no message.
    Part,
    /// No message.
    Malformed(Malformed),
}

/// All signalling of a capture. See the module's text.
#[derive(Debug)]
pub struct Signalling {
    media: MediaTable,
    calls: Calls,
    totals: SipReport,
    copies: CopyStats,
    transmissions: Transmissions,
    streams: Streams<Frame, Protocol>,
    encrypted: Encrypted,
    challenges: Challenges,
    transactions: Transactions,
    registrations: Registrations,
    sources: Sources,
    /// Datagrams of the last moment, to know again what was captured in part.
    recent: Recent,
    /// What was said in some calls, if anybody asks.
    transcript: Option<Transcript>,
    /// Who sent to whom, by pair of hosts, the smaller first: 1, or 2 the other way.
    pairs: FxHashMap<[[u8; 16]; 2], u8>,
    /// Of the frame that was observed last.
    class: FrameClass,
    /// What the last frame told of earlier ones.
    told: Vec<Told>,
}

/// What a frame tells of an earlier one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Told {
    /// The first of these frames holds a part of the message that the second completed.
    Part(u64, u64),
    /// This earlier frame was something else than it seemed.
    Was(u64, FrameClass),
}

/// What there is to say at the end, or now.
///
/// As JSON, `calls` and `sip` of the contract; what was given up for want of room is shown beside them.
#[derive(Clone, Debug, Default, Serialize)]
pub struct SignallingReport {
    /// Calls, in the order in which they began.
    pub calls: Vec<CallReport>,
    /// All signalling.
    pub sip: SipReport,
    /// What was given up for want of room.
    pub given_up: GivenUp,
}

/// What was given up for want of room.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct GivenUp {
    /// Calls that had ended.
    pub ended_calls: u64,
    /// Calls that had not.
    pub live_calls: u64,
    /// Announced media lines.
    pub media_lines: u64,
    /// ICE candidates, and addresses learned from packets, for which there was no room.
    pub endpoints: u64,
    /// Transmissions that a timer could still repeat: `retransmissions` may be low by these.
    pub transmissions: u64,
    /// REFERs whose call was awaited, and names of other calls: `related` may lack these.
    pub relations: u64,
}

impl Default for Signalling {
    fn default() -> Self {
        Self::new(Limits::default())
    }
}

impl Signalling {
    /// An empty tracker.
    pub fn new(limits: Limits) -> Self {
        let media = MediaTable::new(limits.media_lines).with_grace(limits.grace);
        let media = if limits.literal { media.literal() } else { media };
        Self {
            media: if limits.follow_endpoints { media.followed() } else { media },
            calls: Calls::new(limits.calls, limits.leg_headers, limits.follow_calls),
            totals: SipReport::default(),
            copies: CopyStats::default(),
            transmissions: Transmissions::default(),
            streams: Streams::default(),
            encrypted: Encrypted::default(),
            challenges: Challenges::default(),
            transactions: Transactions::default(),
            registrations: Registrations::default(),
            sources: Sources::default(),
            recent: Recent::default(),
            transcript: None,
            pairs: FxHashMap::default(),
            class: FrameClass::Other,
            told: Vec::new(),
        }
    }

    /// Keeps what is said in the calls of `transcript`.
    #[must_use]
    pub fn transcribing(mut self, transcript: Transcript) -> Self {
        self.transcript = Some(transcript);
        self
    }

    /// What was said in the calls that were asked for.
    pub fn take_transcript(&mut self) -> Option<Transcript> {
        self.transcript.take()
    }

    /// Takes the payload of a frame on a SIP port: of a datagram, or of a TCP segment.
    pub fn observe(
        &mut self,
        time: Nanos,
        number: u64,
        flow: Flow,
        transport: Transport,
        evidence: &Evidence,
        payload: &[u8],
    ) -> Observed {
        self.observe_part(time, number, flow, transport, evidence, payload, payload.len())
    }

    /// The same of a payload of `length` bytes, of which perhaps only the first were captured.
    #[expect(clippy::too_many_arguments, reason = "a datagram, taken apart by who has it")]
    pub fn observe_part(
        &mut self,
        time: Nanos,
        number: u64,
        flow: Flow,
        transport: Transport,
        evidence: &Evidence,
        payload: &[u8],
        length: usize,
    ) -> Observed {
        self.told.clear();
        self.advance(time);
        self.class = FrameClass::Other;
        let is_datagram = transport == Transport::Udp;
        if is_datagram && message::is_keep_alive(payload) {
            self.totals.keep_alives += 1;
            return Observed::KeepAlive;
        }
        let key = match transport {
            Transport::Udp if payload.len() < length => self
                .recent
                .known(time, &flow, payload, length)
                .unwrap_or_else(|| Key::datagram(flow, payload)),
            Transport::Udp => {
                if let Some(cut) = self.recent.take_cut(time, &flow, payload) {
                    return self.complete(Sighting { time, number, flow }, evidence, payload, &cut);
                }
                Key::datagram(flow, payload)
            }
            Transport::Tcp { seq } => Key::segment(flow, seq, payload),
        };
        let seen = self.transmissions.observe(key, time, number, evidence);
        self.revise();
        if let Seen::Copy(copy) = seen {
            self.class = FrameClass::copy(&copy);
            // Of half a message, of junk: no copy of a message. Of a segment that is held, it may turn out to be one.
            if !self.transmissions.noted(&key).is_empty() {
                self.copies.observe(&copy);
            } else if !is_datagram {
                self.transmissions.keep_copy(&key, copy, evidence);
            }
            return self.copied(&key, &copy, evidence);
        }
        let at = Sighting { time, number, flow };
        self.class = FrameClass::Unique;
        self.totals.captured.note(payload.len(), length);
        match transport {
            Transport::Udp => {
                let parsed = Message::parse(cut::whole_lines(payload, length));
                let captured = Captured {
                    time,
                    number,
                    flow,
                    length,
                    key,
                    class: FrameClass::Unique,
                    is_defective: parsed.as_ref().is_ok_and(|message| message.defects.any()),
                    evidence: *evidence,
                    bytes: payload.into(),
                };
                let observed = self.message(at, &key, seen, parsed);
                self.recent.keep(Captured { class: self.class, ..captured });
                observed
            }
            Transport::Tcp { seq } => self.segment(at, &key, seq, evidence, payload, length),
        }
    }

    /// What the frame is that was observed last.
    pub fn class(&self) -> FrameClass {
        self.class
    }

    /// What that frame told of earlier ones.
    pub fn told(&self) -> &[Told] {
        &self.told
    }

    /// Lets packet time pass, so that ended calls give up their endpoints, silent ones do not stay open, and gaps in streams
    /// are given up.
    pub fn advance(&mut self, now: Nanos) {
        self.media.advance(now);
        self.transactions.advance(now);
        self.give_up_old_gaps(now);
        self.calls.advance(now, &mut self.media);
    }

    /// Signalling that cannot be read.
    pub fn encrypted(&self) -> &EncryptedReport {
        self.encrypted.report()
    }

    /// Announced media.
    pub fn media(&self) -> &MediaTable {
        &self.media
    }

    /// Announced media, to touch lines that carry packets and to drain changes.
    pub fn media_mut(&mut self) -> &mut MediaTable {
        &mut self.media
    }

    /// Calls as they are now.
    pub fn calls(&self) -> &Calls {
        &self.calls
    }

    /// Counters as they are now.
    pub fn totals(&self) -> &SipReport {
        &self.totals
    }

    /// Copies as they are now.
    pub fn copies(&self) -> &CopyStats {
        &self.copies
    }

    /// Changes of calls since the last time.
    pub fn drain_events(&mut self) -> std::vec::Drain<'_, CallEvent> {
        self.calls.drain_events()
    }

    /// The report on what was seen so far.
    pub fn report(&self) -> SignallingReport {
        let (ended_calls, live_calls) = self.calls.evicted();
        SignallingReport {
            sip: SipReport {
                causes: self.copies.causes_of_many(self.totals.messages),
                encrypted: self.encrypted.report().clone(),
                tcp: TcpFigures {
                    retransmissions: self.totals.tcp_retransmissions,
                    ..*self.streams.figures()
                },
                pairs_one_way: self.pairs.values().filter(|seen| **seen != 3).count() as u64,
                pairs_both_ways: self.pairs.values().filter(|seen| **seen == 3).count() as u64,
                calls_lost_sight: self.calls.lost_sight(),
                transactions: self.transactions.outcomes(),
                auth_refused: self.challenges.refused(),
                silent: self.transactions.silent(),
                proofs_of_answers: self.transactions.proofs_of_answers(),
                registrations: self.registrations.report(),
                suspects: self.sources.suspects(),
                ..self.totals.clone()
            },
            calls: self.calls.reports().into_iter().cloned().collect(),
            given_up: GivenUp {
                ended_calls,
                live_calls,
                media_lines: self.media.evicted() + self.media.given_up(),
                endpoints: self.media.endpoints_refused(),
                transmissions: self.transmissions.forgotten(),
                relations: self.calls.relations_forgotten(),
            },
        }
    }

    /// Counts what a datagram holds.
    fn message(
        &mut self,
        at: Sighting,
        key: &Key,
        seen: Seen,
        parsed: Result<Message<'_>, Malformed>,
    ) -> Observed {
        match parsed {
            Ok(message) => {
                let repeat = self.count(at, key, seen, Transport::Udp, &message);
                Observed::Messages { count: 1, repeat }
            }
            Err(malformed) => {
                self.note_malformed(at.number, malformed);
                Observed::Malformed(malformed)
            }
        }
    }

    fn note_malformed(&mut self, frame: u64, malformed: Malformed) {
        self.totals.malformed += 1;
        if self.totals.unreadable.len() < MAX_UNREADABLE {
            self.totals.unreadable.push(Unreadable { frame, reason: malformed });
        }
    }

    /// A datagram whose beginning alone was captured before: this is the message, and that its copy.
    fn complete(&mut self, at: Sighting, evidence: &Evidence, payload: &[u8], cut: &Captured) -> Observed {
        let key = Key::datagram(at.flow, payload);
        self.totals.captured.was_completed();
        let counted = self.transmissions.remove(&cut.key);
        let seen = self.transmissions.observe(key, at.time, at.number, evidence);
        self.revise();
        self.class = FrameClass::Unique;
        let parsed = Message::parse(payload);
        let observed = match (seen, parsed) {
            // It was seen whole before: the beginning was its copy, and so is this.
            (Seen::Copy(copy), _) => {
                self.class = FrameClass::copy(&copy);
                self.retract(&counted, cut);
                self.copies.observe(&copy);
                self.copied(&key, &copy, evidence)
            }
            (Seen::First, Ok(message)) if !counted.is_empty() => {
                self.read_on(at, &key, counted, cut, &message);
                Observed::Messages { count: 1, repeat: None }
            }
            (seen, parsed) => {
                self.retract(&counted, cut);
                self.message(at, &key, seen, parsed)
            }
        };
        if let Seen::Copy(copy) = self.transmissions.observe(key, cut.time, cut.number, &cut.evidence) {
            self.told.push(Told::Was(cut.number, FrameClass::copy(&copy)));
            self.copies.observe(&copy);
            self.copied(&key, &copy, &cut.evidence);
        }
        let (class, bytes) = (self.class, payload.into());
        self.recent.keep(Captured {
            time: at.time,
            number: at.number,
            flow: at.flow,
            length: payload.len(),
            key,
            class,
            bytes,
            is_defective: false,
            evidence: *evidence,
        });
        observed
    }

    /// What was counted of a message's beginning was not a message of its own.
    fn retract(&mut self, counted: &[Noted], cut: &Captured) {
        if counted.is_empty() {
            self.totals.malformed = self.totals.malformed.saturating_sub(1);
            self.totals.unreadable.retain(|unreadable| unreadable.frame != cut.number);
        }
        self.totals.defects.retain(|defective| defective.frame != cut.number);
        for noted in counted {
            self.totals.uncount(noted.tally, cut.is_defective);
            if let Some(call) = noted.call {
                self.calls.note_was_none(call);
            }
            if let (Some(kept), Some(line)) = (&mut self.transcript, noted.line) {
                kept.was_none(line);
            }
        }
    }

    /// Reads the rest of a message that was counted when its beginning was seen.
    fn read_on(
        &mut self,
        at: Sighting,
        key: &Key,
        counted: Vec<Noted>,
        cut: &Captured,
        message: &Message<'_>,
    ) {
        let challenged = self.challenges.observe(cut.number, message);
        self.class = if challenged == Challenged::Retry { FrameClass::AuthRetry } else { cut.class };
        self.totals.defective = self.totals.defective.saturating_sub(u64::from(cut.is_defective));
        self.totals.defects.retain(|defective| defective.frame != cut.number);
        self.totals.note_defects(at.number, message.defects);
        let begun = Message::parse(cut::whole_lines(&cut.bytes, cut.length));
        let was_understood = begun.is_ok_and(|begun| begun.method() == message.method());
        for mut noted in counted {
            match noted.call {
                Some(call) => {
                    let begun = (cut.number, was_understood);
                    self.calls.complete(call, at, begun, message, &mut self.media);
                }
                None => noted.call = self.calls.observe(at, message, None, &mut self.media),
            }
            if noted.line.is_none() {
                noted.line = self.transcript.as_mut().and_then(|kept| kept.message(at, message, None));
            }
            self.transmissions.note(key, noted);
        }
    }

    /// Counts a transmission of a message and takes it into its call.
    fn count(
        &mut self,
        at: Sighting,
        key: &Key,
        seen: Seen,
        transport: Transport,
        message: &Message<'_>,
    ) -> Option<Repeat> {
        let repeat = match seen {
            Seen::Again { of, gap_ns, is_elsewhere } => {
                let again = Unexplained { gap_ns, number: at.number, of, is_elsewhere };
                let (repeat, explained) = self.transmissions.classify(key, message, transport, again);
                self.class = match repeat {
                    Repeat::Timer(timer) => {
                        self.totals.keep_example(at, message, timer, of, gap_ns);
                        FrameClass::Retransmission { of, timer }
                    }
                    Repeat::Echo => FrameClass::Echo { of },
                    Repeat::Unscheduled => {
                        self.totals.keep_unscheduled(at, message, of, gap_ns);
                        FrameClass::Unscheduled { of }
                    }
                };
                if let (Repeat::Timer(timer), Some((number, of))) = (repeat, explained) {
                    self.totals.is_explained(number);
                    self.told.push(Told::Was(number, FrameClass::Retransmission { of, timer }));
                    if let Some(kept) = &mut self.transcript {
                        kept.explain(number, repeat);
                    }
                }
                Some((repeat, u64::from(explained.is_some())))
            }
            Seen::First | Seen::Copy(_) => None,
        };
        let challenged = match repeat {
            None => self.challenges.observe(at.number, message),
            Some(_) => Challenged::No,
        };
        if challenged == Challenged::Retry {
            self.class = FrameClass::AuthRetry;
        }
        self.note_direction(&at.flow);
        self.totals.messages += 1;
        self.totals.note_defects(at.number, message.defects);
        let tally = self.totals.kinds.count(message.status(), message.method());
        if repeat.is_none() && matches!(message.status(), Some(401 | 407)) {
            self.totals.auth_challenges += 1;
        }
        let before = (self.calls.count_begun(), self.calls.evicted().1);
        let call = self.calls.observe(at, message, repeat.map(|(repeat, _)| repeat), &mut self.media);
        if let (Some(call), Challenged::Refused) = (call, challenged) {
            self.calls.note_refused_credentials(call);
        }
        if repeat.is_none() {
            let (begun, live) = (self.calls.count_begun(), self.calls.evicted().1);
            self.answer(at, message, Effect { began: begun > before.0, made_room: live - before.1 });
        }
        if let Some((repeat, explained)) = repeat {
            self.totals.repeats.count(repeat, explained);
            self.totals.retransmissions = self.totals.repeats.retransmissions();
            if let (Some(call), Repeat::Timer(timer), 1) = (call, repeat, explained) {
                self.calls.note_retransmission(call, timer);
            }
        }
        self.transmissions.clear_noted(key);
        let repeat = repeat.map(|(repeat, _)| repeat);
        let line = self.transcript.as_mut().and_then(|kept| kept.message(at, message, repeat));
        self.transmissions.note(key, Noted { tally, is_defective: message.defects.any(), call, line });
        repeat
    }

    /// Joins requests and their answers, in calls and outside.
    fn answer(&mut self, at: Sighting, message: &Message<'_>, effect: Effect) {
        let answer = self.transactions.observe(at, message);
        if message.method() == "REGISTER" {
            self.registrations.observe(message, answer);
        }
        self.sources.observe(at, message, answer, effect);
    }

    fn note_direction(&mut self, flow: &Flow) {
        let (src, dst) = (flow.src.address, flow.dst.address);
        let (pair, way) = if src <= dst { ([src, dst], 1) } else { ([dst, src], 2) };
        if self.pairs.len() < MAX_PAIRS || self.pairs.contains_key(&pair) {
            *self.pairs.entry(pair).or_default() |= way;
        }
    }

    /// Sets right what earlier frames were taken for before their place was known to be always so late.
    fn revise(&mut self) {
        for (copy, repeat, noted) in self.transmissions.drain_revised() {
            self.told.push(Told::Was(copy.number, FrameClass::copy(&copy)));
            let repeat = match repeat {
                Again::Message(repeat) => repeat,
                Again::Segment(evidence, of) => {
                    self.was_no_segment(&copy, &evidence, &of);
                    continue;
                }
            };
            self.copies.observe(&copy);
            self.totals.is_explained(copy.number);
            self.totals.defects.retain(|defective| defective.frame != copy.number);
            for noted in noted {
                self.totals.was_copy(noted.tally, noted.is_defective, repeat);
                if let Some(call) = noted.call {
                    self.calls.note_was_copy(call);
                }
                if let (Some(kept), Some(line)) = (&mut self.transcript, noted.line) {
                    kept.was_copy(line, copy.original, copy.explanation.cause);
                }
            }
        }
    }

    fn count_copies(&mut self, noted: &[Noted], cause: Cause, evidence: &Evidence) {
        for noted in noted {
            self.totals.copies += 1;
            self.totals.kinds.count_copy(noted.tally);
            if let Some(call) = noted.call {
                self.calls.note_copy(call);
            }
            if let (Some(kept), Some(line)) = (&mut self.transcript, noted.line) {
                kept.copy(line, cause, evidence);
            }
        }
    }

    /// Counts a copy of what `key` was counted as.
    fn copied(&mut self, key: &Key, copy: &Copy, evidence: &Evidence) -> Observed {
        let noted = self.transmissions.noted(key).to_vec();
        let cause = copy.explanation.cause;
        self.count_copies(&noted, cause, evidence);
        Observed::Copy { of: copy.original, cause }
    }
}

#[cfg(test)]
#[path = "wire_testing.rs"]
mod testing;

#[cfg(test)]
#[path = "dialogs_tests.rs"]
mod dialogs_tests;

#[cfg(test)]
#[path = "dialogs_properties.rs"]
mod dialogs_properties;

#[cfg(test)]
#[path = "transfers_tests.rs"]
mod transfers_tests;

#[cfg(test)]
#[path = "sources_tests.rs"]
mod sources_tests;

#[cfg(test)]
#[path = "unheard_tests.rs"]
mod unheard_tests;

#[cfg(test)]
#[path = "stories_tests.rs"]
mod tests;

#[cfg(test)]
#[path = "captures_tests.rs"]
mod captures_tests;

#[cfg(test)]
#[path = "cost_tests.rs"]
mod cost_tests;

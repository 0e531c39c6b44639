//! What comes over TCP: segments in order, by what they carry cut into messages, and those counted like any other.
//!
//! ```text
//!   segment ─▶ copy? ─▶ order (reassembly) ─▶ SIP        ─▶ by Content-Length ─┐
//!                                          ├▶ WebSocket  ─▶ by frame ──────────┼▶ count
//!                                          ├▶ out of step ▶ next start line ───┘
//!                                          └▶ TLS ─▶ encrypted: counted
//! ```
//!
//! A message is booked at the frame that completed it, and its time is that frame's; of what a gap held back, the time of
//! the frame that filled the gap, as the receiver had it no earlier.

use std::borrow::Cow;

use super::super::encrypted::is_record;
use super::super::message::{self, Beginning, Front, Malformed, Message, find_beginning};
use super::super::reassembly::{Accepted, Needs, Readable};
use super::super::websocket::{self, Handshake};
use super::{
    Copy, Evidence, Flow, FrameClass, Key, Nanos, Noted, Observed, Seen, Sighting, Signalling, Told,
    Transport,
};

/// What a direction of a connection carries.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Protocol {
    /// Nothing was read of it yet.
    #[default]
    Unknown,
    /// SIP, and a message begins where the next byte is.
    Sip,
    /// SIP, and where the next message begins is not known.
    OutOfStep,
    /// Frames of WebSocket.
    WebSocket,
    /// Nothing that is known here, so far.
    Other,
}

/// A segment as it was seen.
#[derive(Clone, Copy, Debug)]
pub(super) struct Frame {
    at: Sighting,
    key: Key,
    seq: u32,
    evidence: Evidence,
}

/// What reading came to.
struct Reading {
    observed: Observed,
    /// Class of the last message.
    class: FrameClass,
}

impl Signalling {
    /// Takes a segment on a port of SIP over TLS: counted as encrypted, unless it is SIP in clear.
    #[expect(clippy::too_many_arguments, reason = "a datagram, taken apart by who has it")]
    pub fn observe_tls(
        &mut self,
        time: Nanos,
        number: u64,
        flow: Flow,
        seq: u32,
        evidence: &Evidence,
        payload: &[u8],
        length: usize,
    ) -> Observed {
        let is_clear = |flow: &Flow| {
            let protocol = self.streams.state(flow);
            matches!(protocol, Some(Protocol::Sip | Protocol::OutOfStep | Protocol::WebSocket))
        };
        let reversed = Flow { src: flow.dst, dst: flow.src };
        if message::begins_like_sip(payload) || is_clear(&flow) || is_clear(&reversed) {
            return self.observe_part(time, number, flow, Transport::Tcp { seq }, evidence, payload, length);
        }
        self.told.clear();
        self.advance(time);
        self.class = FrameClass::Other;
        self.encrypted.observe(&flow, seq, length);
        Observed::Part
    }

    /// Reads what a segment of so many bytes makes readable.
    pub(super) fn segment(
        &mut self,
        at: Sighting,
        key: &Key,
        seq: u32,
        evidence: &Evidence,
        payload: &[u8],
        length: usize,
    ) -> Observed {
        let flow = at.flow;
        if self.is_encrypted(&flow, payload) {
            self.encrypted.observe(&flow, seq, length);
            return Observed::Part;
        }
        if self.streams.is_another(&flow, seq) {
            self.read_past_gaps(&flow);
            self.lose_unfinished(&flow);
            self.streams.restart(&flow);
        }
        let frame = Frame { at, key: *key, seq, evidence: *evidence };
        let is_beginning = || {
            message::could_be_first(payload)
                || Handshake::read(payload) != Handshake::None
                || websocket::begins_with_sip(payload)
        };
        match self.streams.accept(flow, seq, payload, is_beginning, at.time, frame) {
            Accepted::Old => {
                self.totals.tcp_retransmissions += 1;
                self.class = FrameClass::TcpRetransmission;
                self.transmissions.repeat_segment(key, at.number, evidence);
                Observed::Part
            }
            Accepted::Before => {
                self.transmissions.clear_noted(key);
                self.read_apart(&frame, payload)
            }
            Accepted::Held => {
                self.transmissions.clear_noted(key);
                self.read_on_from(at, Observed::Part)
            }
            Accepted::Full => {
                self.transmissions.clear_noted(key);
                self.give_up_gap(&flow);
                Observed::Part
            }
            Accepted::Next(fresh) => {
                self.transmissions.clear_noted(key);
                let own = self.read(at, &frame, Cow::Borrowed(fresh));
                self.class = own.class;
                self.read_on_from(at, own.observed)
            }
        }
    }

    /// Gives up gaps that have lasted too long.
    pub(super) fn give_up_old_gaps(&mut self, now: Nanos) {
        while let Some(flow) = self.streams.overdue(now) {
            self.give_up_gap(&flow);
        }
    }

    /// Reads all that is still held behind gaps: nothing more comes.
    pub fn finish(&mut self) {
        self.told.clear();
        while let Some(flow) = self.streams.any_waiting() {
            self.give_up_gap(&flow);
        }
    }

    /// Is this known to be encrypted, or does a connection begin that is?
    fn is_encrypted(&self, flow: &Flow, payload: &[u8]) -> bool {
        match self.streams.state(flow) {
            Some(Protocol::Sip | Protocol::OutOfStep | Protocol::WebSocket) => false,
            Some(Protocol::Unknown | Protocol::Other) | None => {
                self.encrypted.knows(flow) || is_record(payload)
            }
        }
    }

    /// Reads held segments that continue what this frame brought. They are booked at their own frames.
    fn read_on_from(&mut self, at: Sighting, mut observed: Observed) -> Observed {
        let class = self.class;
        while let Some(early) = self.streams.follow(&at.flow) {
            let read = self.read_held(at, &early.tag, early.bytes);
            observed = observed.and(read);
        }
        self.class = class;
        observed
    }

    /// Reads what is behind a gap.
    fn give_up_gap(&mut self, flow: &Flow) {
        let class = self.class;
        self.totals.sip_tcp_partial += u64::from(self.streams.give_up(flow));
        if let Some(protocol) = self.streams.state_mut(flow) {
            *protocol = match *protocol {
                Protocol::Sip => Protocol::OutOfStep,
                Protocol::WebSocket => Protocol::Other,
                protocol => protocol,
            };
        }
        let mut latest: Option<Sighting> = None;
        while let Some(early) = self.streams.follow(flow) {
            let own = early.tag.at;
            let at = latest.filter(|latest| latest.time > own.time).unwrap_or(own);
            latest = Some(at);
            self.read_held(at, &early.tag, early.bytes);
        }
        self.class = class;
    }

    fn read_past_gaps(&mut self, flow: &Flow) {
        while self.streams.is_waiting(flow) {
            self.give_up_gap(flow);
        }
    }

    fn read_held(&mut self, at: Sighting, frame: &Frame, bytes: Vec<u8>) -> Observed {
        let Reading { observed, class } = self.read(at, frame, Cow::Owned(bytes));
        if matches!(observed, Observed::Messages { .. }) {
            self.told.push(Told::Was(frame.at.number, class));
        }
        // Copies of it that came while it was held were copies of nothing yet.
        for (copy, evidence) in self.transmissions.take_copies(&frame.key) {
            let noted = self.transmissions.noted(&frame.key).to_vec();
            if !noted.is_empty() {
                self.copies.observe(&copy);
            }
            self.count_copies(&noted, copy.explanation.cause, &evidence);
        }
        observed
    }

    /// Reads a segment from before all that was seen of its stream: whole messages in it, and no more.
    fn read_apart(&mut self, frame: &Frame, payload: &[u8]) -> Observed {
        let mut observed = Observed::Part;
        let mut rest = payload;
        while let Front::Message(message, length) = message::split(rest) {
            observed = self.message_in_stream(
                frame.at,
                frame,
                rest.get(..length).unwrap_or_default(),
                &message,
                observed,
            );
            rest = rest.get(length..).unwrap_or_default();
        }
        self.totals.sip_tcp_partial += u64::from(!message::is_keep_alive(rest));
        observed
    }

    /// Reads bytes that continue their stream.
    fn read(&mut self, at: Sighting, frame: &Frame, fresh: Cow<'_, [u8]>) -> Reading {
        let flow = at.flow;
        let class = std::mem::replace(&mut self.class, FrameClass::Unique);
        let Some(Readable { bytes, mut parts }) = self.streams.join(&flow, fresh, frame.at.number) else {
            return Reading { observed: Observed::Part, class };
        };
        let mut protocol = self.streams.state(&flow).copied().unwrap_or_default();
        if protocol == Protocol::Other && parts.is_empty() && websocket::begins_with_sip(&bytes) {
            protocol = Protocol::WebSocket;
        }
        let mut observed = Observed::Part;
        let mut rest = &*bytes;
        while !rest.is_empty() {
            let step = match protocol {
                Protocol::Unknown => self.recognise(&mut protocol, rest),
                Protocol::Sip => sip(rest),
                Protocol::OutOfStep | Protocol::Other => out_of_step(&mut protocol, rest),
                Protocol::WebSocket => frames(rest),
            };
            let length = match step {
                Step::Skip(length) => {
                    if length > 0 {
                        parts.clear();
                    }
                    length
                }
                Step::KeepAlive(length) => {
                    if matches!(observed, Observed::Part) {
                        self.totals.keep_alives += 1;
                        observed = Observed::KeepAlive;
                    }
                    length
                }
                Step::Message(message, length) => {
                    let taken = rest.get(..length).unwrap_or_default();
                    observed = self.message_in_stream(at, frame, taken, &message, observed);
                    self.told.extend(parts.drain(..).map(|part| Told::Part(part, frame.at.number)));
                    length
                }
                Step::Framed { payload, length, frames } => {
                    self.totals.websocket_frames += frames;
                    observed = self.framed(at, frame, &payload, observed);
                    self.told.extend(parts.drain(..).map(|part| Told::Part(part, frame.at.number)));
                    length
                }
                Step::Control(length) => {
                    self.totals.websocket_frames += 1;
                    length
                }
                Step::Wait(needs) => {
                    parts.push(frame.at.number);
                    if !self.streams.keep(&flow, rest, needs, &parts) {
                        self.totals.sip_tcp_partial += 1;
                        protocol = if protocol == Protocol::WebSocket {
                            Protocol::Other
                        } else {
                            Protocol::OutOfStep
                        };
                    }
                    break;
                }
                Step::Lost(malformed, length) => {
                    // The rest of a message whose beginning was not captured, a head without end, or no SIP at all.
                    if length > 0 {
                        parts.clear();
                    }
                    self.totals.sip_tcp_partial += 1;
                    if matches!(observed, Observed::Part) {
                        observed = Observed::Malformed(malformed);
                    }
                    protocol = if protocol == Protocol::Sip { Protocol::OutOfStep } else { Protocol::Other };
                    length
                }
                Step::Known => 0,
            };
            rest = rest.get(length..).unwrap_or_default();
        }
        if let Some(state) = self.streams.state_mut(&flow) {
            *state = protocol;
        }
        Reading { observed, class: self.class }
    }

    /// What a stream carries, by its first bytes.
    fn recognise<'a>(&mut self, protocol: &mut Protocol, bytes: &'a [u8]) -> Step<'a> {
        match Handshake::read(bytes) {
            Handshake::Upgrade(length) => {
                *protocol = Protocol::WebSocket;
                return Step::Skip(length);
            }
            Handshake::Incomplete => return Step::Wait(Needs::EmptyLine),
            Handshake::Http(_) | Handshake::None => {}
        }
        if websocket::begins_with_sip(bytes) {
            self.streams.figures_mut().mid_stream += 1;
            *protocol = Protocol::WebSocket;
            return Step::Known;
        }
        // Junk before the start line is the stream's own; before the first one it is the end of a message.
        if !message::could_be_first(bytes) {
            return Step::Lost(Malformed::NoStartLine { searched: bytes.len() }, 0);
        }
        let step = sip(bytes);
        if matches!(step, Step::Message(..))
            || matches!(step, Step::Wait(_)) && message::begins_like_sip(bytes)
        {
            *protocol = Protocol::Sip;
        }
        step
    }

    /// Counts a message of a stream at the frame that completed it.
    fn message_in_stream(
        &mut self,
        at: Sighting,
        frame: &Frame,
        bytes: &[u8],
        message: &Message<'_>,
        before: Observed,
    ) -> Observed {
        let key = Key::in_stream(at.flow, bytes);
        let seen = match self.transmissions.observe(key, at.time, at.number, &frame.evidence) {
            Seen::Copy(copy) => {
                Seen::Again { of: copy.original, gap_ns: copy.delay_ns(), is_elsewhere: true }
            }
            seen => seen,
        };
        let repeat = self.count(at, &key, seen, Transport::Tcp { seq: frame.seq }, message);
        for noted in self.transmissions.noted(&key).to_vec() {
            self.transmissions.note(&frame.key, noted);
        }
        before.and(Observed::Messages { count: 1, repeat })
    }

    /// Counts what a frame of WebSocket carries.
    fn framed(&mut self, at: Sighting, frame: &Frame, payload: &[u8], before: Observed) -> Observed {
        match Message::parse(payload) {
            Ok(message) => self.message_in_stream(at, frame, payload, &message, before),
            Err(Malformed::KeepAlive) => {
                self.totals.keep_alives += 1;
                before.and(Observed::KeepAlive)
            }
            Err(malformed) => {
                self.note_malformed(at.number, malformed);
                before.and(Observed::Malformed(malformed))
            }
        }
    }

    /// What was taken for a segment that TCP sent again is a copy of what was read of the first.
    pub(super) fn was_no_segment(&mut self, copy: &Copy, evidence: &Evidence, noted: &[Noted]) {
        self.totals.tcp_retransmissions = self.totals.tcp_retransmissions.saturating_sub(1);
        if !noted.is_empty() {
            self.copies.observe(copy);
        }
        self.count_copies(noted, copy.explanation.cause, evidence);
    }

    fn lose_unfinished(&mut self, flow: &Flow) {
        self.totals.sip_tcp_partial += u64::from(self.streams.is_unfinished(flow));
    }
}

impl Observed {
    /// Of two findings of one frame, what there is to say. Messages add up.
    fn and(self, later: Self) -> Self {
        match (self, later) {
            (Self::Messages { count, .. }, Self::Messages { count: more, repeat }) => {
                Self::Messages { count: count + more, repeat }
            }
            (Self::Messages { .. }, _) | (_, Self::Part) => self,
            (_, later) => later,
        }
    }
}

/// What stands at the front of a stream.
enum Step<'a> {
    /// A message of so many bytes.
    Message(Message<'a>, usize),
    /// A message of WebSocket.
    Framed { payload: Cow<'a, [u8]>, length: usize, frames: u64 },
    /// A frame of WebSocket that carries none.
    Control(usize),
    /// So many bytes of line ends.
    KeepAlive(usize),
    /// So many bytes that no message is in.
    Skip(usize),
    /// The beginning of something.
    Wait(Needs),
    /// No message, and none begins in so many bytes: what follows is to be looked for.
    Lost(Malformed, usize),
    /// What the stream carries is known now.
    Known,
}

fn sip(bytes: &[u8]) -> Step<'_> {
    match message::split(bytes) {
        Front::Message(message, length) => Step::Message(message, length),
        Front::KeepAlive(length) => Step::KeepAlive(length),
        Front::Incomplete(needs) => Step::Wait(needs),
        Front::Endless(length) => Step::Lost(Malformed::EndlessHead, length),
        Front::Malformed(malformed) => Step::Lost(malformed, 0),
    }
}

fn out_of_step<'a>(protocol: &mut Protocol, bytes: &'a [u8]) -> Step<'a> {
    match find_beginning(bytes) {
        Beginning::At(at) => {
            *protocol = Protocol::Sip;
            Step::Skip(at)
        }
        Beginning::NotBefore(0) => Step::Wait(Needs::More),
        Beginning::NotBefore(at) => Step::Skip(at),
    }
}

fn frames(bytes: &[u8]) -> Step<'_> {
    match websocket::split(bytes) {
        websocket::Front::Message { payload, length, frames } => Step::Framed { payload, length, frames },
        websocket::Front::Other(length) => Step::Control(length),
        websocket::Front::Incomplete(count) => Step::Wait(Needs::Bytes(count)),
        websocket::Front::Malformed => Step::Lost(Malformed::NoFrame, 0),
    }
}

#[cfg(test)]
#[path = "connections_tests.rs"]
mod tests;

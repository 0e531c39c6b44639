//! One call's offers and answers (RFC 3264): what each party announces, and what becomes of it in the media table.
//!
//! ```text
//!   offer   INVITE, UPDATE, PRACK; or a response to an INVITE that had none     announced at once, beside what is in force
//!   answer  1xx, 2xx; or ACK, PRACK                                             the offer is in force, what it replaces goes
//!   refusal 3xx to 6xx within the call                                          the offer goes, what was in force stays
//! ```
//!
//! An offer is in the table before it is answered: media may come with the answer, or before it. A party is whoever sends
//! SDP, as one hop sees it: a proxy that rewrites SDP must not replace the caller's own lines, and each branch of a fork
//! answers for itself. Who of them answers finally ends the lines of the others.

use std::hash::{BuildHasher, BuildHasherDefault};
use std::sync::Arc;

use rustc_hash::FxHasher;

use super::announced::{Agreement, CallMedia, Side};
use super::call::{Sighting, tag_hash};
use super::media::MediaTable;
use super::message::Message;
use super::sdp::{self, Description, Direction, MediaKind, MediaLine, Protocol};
use crate::packet::{Flow, MediaId};

/// Parties of a call that may announce media: two, and a few per fork or hop.
const MAX_PARTIES: usize = 16;

/// Who announced what in a call.
#[derive(Debug, Default)]
pub(super) struct Negotiation {
    parties: Vec<Party>,
    /// Hash of the caller's tag; 0 before it is known.
    caller: u64,
}

/// Whoever sends SDP in a call, as one hop sees it.
#[derive(Debug)]
struct Party {
    key: u64,
    tag: u64,
    side: Side,
    /// In force, in the order of its description.
    lines: Vec<Line>,
    /// Announced and not answered yet.
    offer: Option<Offer>,
    /// CSeq of the exchange that `lines` are from.
    settled: Option<u32>,
    /// They are those of a final answer, or of an offer that got one.
    is_final: bool,
}

#[derive(Debug)]
struct Offer {
    cseq: Option<u32>,
    /// Made by a response, so that a request answers it.
    by_response: bool,
    lines: Vec<Line>,
}

/// One media line of a description.
#[derive(Clone, Debug)]
struct Line {
    /// `None` if there is nowhere to send to.
    id: Option<MediaId>,
    protocol: Protocol,
    direction: Direction,
    refused: bool,
    mid: Option<Box<str>>,
}

/// What all steps of one message need.
struct Step<'a> {
    at: Sighting,
    cseq: Option<u32>,
    known: &'a mut CallMedia,
    media: &'a mut MediaTable,
}

impl Negotiation {
    /// Takes the SDP of a message, if it is an offer or an answer, and the refusal of one: SDP elsewhere (the capabilities
    /// in an answer to OPTIONS) announces nothing. `known` collects what the call said. Gives the direction that is
    /// asked for.
    pub(super) fn take(
        &mut self,
        at: Sighting,
        message: &Message<'_>,
        call_id: &Arc<str>,
        known: &mut CallMedia,
        media: &mut MediaTable,
    ) -> Option<Direction> {
        let mut step = Step { at, cseq: message.cseq.map(|cseq| cseq.number), known, media };
        if message.method() == "INVITE" && message.status().is_none() && message.to().tag.is_none() {
            self.caller = tag_hash(Some(message.sender_tag()));
        }
        match message.method() {
            "INVITE" | "ACK" | "PRACK" | "UPDATE" => {}
            "INFO" => {
                self.trickle(message, &mut step);
                return None;
            }
            _ => return None,
        }
        if message.status().is_some_and(|code| code >= 300) {
            self.refuse(message, &mut step);
            return None;
        }
        if message.body.is_empty() {
            return None;
        }
        if message.is_encoded {
            step.known.encoded += 1;
            return None;
        }
        let description = sdp::describe(message.content_type, message.body)?;
        step.media.give_up(description.given_up);
        step.known.descriptions += 1;
        if description.lines.is_empty() {
            return None;
        }
        let party = self.party(message, &mut step);
        let side = self.parties.get(party)?.side;
        let lines = step.announce(&description, call_id, side);
        match self.offerer(message, at, step.cseq) {
            Some(offerer) => self.answer(party, offerer, &lines, message, &mut step),
            None => self.offer(party, lines, message, &mut step),
        }
        let is_talk = |line: &&MediaLine| !line.refused && line.kind == MediaKind::Audio;
        description.lines.iter().find(is_talk).or(description.lines.first()).map(asked)
    }

    /// Bytes that it takes in memory, as far as they depend on who announced what.
    pub(super) fn held_bytes(&self) -> usize {
        let of = |line: &Line| size_of::<Line>() + line.mid.as_ref().map_or(0, |mid| mid.len());
        let offered =
            |party: &Party| party.offer.iter().flat_map(|offer| &offer.lines).map(of).sum::<usize>();
        let lines = |party: &Party| size_of::<Party>() + party.lines.iter().map(of).sum::<usize>();
        self.parties.iter().map(|party| lines(party) + offered(party)).sum()
    }

    /// The call is over: its lines go after the grace.
    pub(super) fn withdraw(&self, at: Sighting, media: &mut MediaTable) {
        for id in self.parties.iter().flat_map(Party::ids) {
            media.withdraw(id, at.time);
        }
    }

    /// It is not over after all: another branch had failed before.
    pub(super) fn reopen(&self, at: Sighting, media: &mut MediaTable) {
        for id in self.parties.iter().flat_map(Party::ids) {
            media.reopen(id, at.time);
        }
    }

    /// A party offers: its lines are announced beside those in force. An earlier offer must have been answered
    /// (RFC 3264, 4), so where its answer was not seen, it is in force now.
    fn offer(&mut self, party: usize, lines: Vec<Line>, message: &Message<'_>, step: &mut Step<'_>) {
        let by_response = message.status().is_some();
        let Some(party) = self.parties.get_mut(party) else { return };
        let offer = Offer { cseq: step.cseq, by_response, lines };
        let Some(unanswered) = party.offer.replace(offer) else { return };
        let before = std::mem::replace(&mut party.lines, unanswered.lines);
        self.retire(&before, step);
    }

    /// A party answers the offer of another one, which is thereby in force. A provisional answer is said again by the
    /// final one, and may be said by several branches of a fork.
    fn answer(
        &mut self,
        party: usize,
        offerer: usize,
        lines: &[Line],
        message: &Message<'_>,
        step: &mut Step<'_>,
    ) {
        let is_final = message.status().is_none_or(|code| code >= 200);
        let mut before = Vec::new();
        if let Some(offerer) = self.parties.get_mut(offerer) {
            if let Some(offer) = offerer.offer.take() {
                offerer.settled = offer.cseq;
                before.append(&mut std::mem::replace(&mut offerer.lines, offer.lines));
            }
            offerer.is_final = is_final;
        }
        let offered = self.parties.get(offerer).map(|party| party.lines.clone()).unwrap_or_default();
        if let Some(party) = self.parties.get_mut(party) {
            before.append(&mut std::mem::replace(&mut party.lines, lines.to_vec()));
            (party.settled, party.is_final) = (step.cseq, is_final);
        }
        if is_final {
            before.append(&mut self.drop_refused(offerer, lines));
            before.append(&mut self.drop_forks(party, step.cseq));
        }
        self.retire(&before, step);
        for (offered, answered) in offered.iter().zip(lines) {
            if let (Some(offered), Some(answered)) = (offered.id, answered.id) {
                step.media.pair(offered, answered);
            }
        }
        if let Some(offerer) = self.parties.get(offerer) {
            step.agree(offerer.side, &offered, lines);
        }
    }

    /// Nothing comes to a line that the answer refuses.
    fn drop_refused(&mut self, offerer: usize, answer: &[Line]) -> Vec<Line> {
        let Some(offerer) = self.parties.get_mut(offerer) else { return Vec::new() };
        let refused = offerer.lines.iter_mut().zip(answer).filter(|(_, answered)| answered.refused);
        refused
            .map(|(offered, _)| {
                let gone = offered.clone();
                offered.id = None;
                gone
            })
            .collect()
    }

    /// One branch of a fork answered; the others are cancelled, and their early media ends.
    fn drop_forks(&mut self, answerer: usize, cseq: Option<u32>) -> Vec<Line> {
        let Some(Party { tag, side, .. }) = self.parties.get(answerer) else { return Vec::new() };
        let (tag, side) = (*tag, *side);
        let is_loser = |party: &&mut Party| {
            !party.is_final && party.side == side && party.tag != tag && party.settled == cseq
        };
        self.parties.iter_mut().filter(is_loser).flat_map(|party| std::mem::take(&mut party.lines)).collect()
    }

    /// A change of the call was refused: what was in force before goes on. If there was nothing yet, the call itself
    /// failed, which its state decides.
    fn refuse(&mut self, message: &Message<'_>, step: &mut Step<'_>) {
        let Some(at) = self.offerer(message, step.at, step.cseq) else { return };
        let Some(offerer) = self.parties.get_mut(at).filter(|party| !party.lines.is_empty()) else { return };
        let Some(offer) = offerer.offer.take() else { return };
        let stay: Vec<_> = offerer.lines.iter().filter_map(|line| line.id).collect();
        self.retire(&offer.lines, step);
        for id in stay {
            step.media.reopen(id, step.at.time);
        }
    }

    /// Candidates that come one after the other, in an INFO (RFC 8840).
    fn trickle(&mut self, message: &Message<'_>, step: &mut Step<'_>) {
        if message.status().is_some() || message.body.is_empty() || message.is_encoded {
            return;
        }
        let Some(fragment) = sdp::describe(message.content_type, message.body) else { return };
        let key = party_key(message.sender_tag(), &step.at.flow);
        let Some(party) = self.parties.iter_mut().find(|party| party.key == key) else { return };
        let side = party.side;
        for of in fragment.lines.iter().filter(|line| !line.candidates.is_empty()) {
            let lines = party.offer.as_mut().map_or(&mut party.lines, |offer| &mut offer.lines);
            let is_named = |line: &&mut Line| line.id.is_some() && line.mid == of.mid;
            let Some(line) = lines.iter_mut().find(is_named) else { continue };
            let successor = line.id.and_then(|id| step.media.extend(id, &of.candidates, step.at.time));
            if let Some(id) = successor {
                line.id = Some(id);
                step.known.announce(id, side, step.media.info(id));
            }
        }
    }

    /// Lines that nobody in the call has any more end.
    fn retire(&self, lines: &[Line], step: &mut Step<'_>) {
        for id in lines.iter().filter_map(|line| line.id) {
            if !self.parties.iter().flat_map(Party::ids).any(|kept| kept == id) {
                step.media.withdraw(id, step.at.time);
                step.known.end(id, step.at.time);
            }
        }
    }

    /// The party that sends the message, by its place. The oldest makes room.
    fn party(&mut self, message: &Message<'_>, step: &mut Step<'_>) -> usize {
        let key = party_key(message.sender_tag(), &step.at.flow);
        if let Some(known) = self.parties.iter().position(|party| party.key == key) {
            return known;
        }
        if self.parties.len() >= MAX_PARTIES {
            let oldest = self.parties.remove(0);
            self.retire(&oldest.lines, step);
            self.retire(&oldest.offer.map(|offer| offer.lines).unwrap_or_default(), step);
        }
        let tag = tag_hash(Some(message.sender_tag()));
        if self.caller == 0 {
            self.caller = tag;
        }
        let side = if tag == self.caller { Side::Caller } else { Side::Called };
        self.parties.push(Party {
            key,
            tag,
            side,
            lines: Vec::new(),
            offer: None,
            settled: None,
            is_final: false,
        });
        self.parties.len() - 1
    }

    /// Whose offer the message answers, or refuses: that of the other party, on the same hop if it was seen there.
    fn offerer(&self, message: &Message<'_>, at: Sighting, cseq: Option<u32>) -> Option<usize> {
        let is_response = message.status().is_some();
        let other = if is_response { message.from() } else { message.to() }.tag.unwrap_or_default();
        let back = Flow { src: at.flow.dst, dst: at.flow.src };
        let (tag, here) = (tag_hash(Some(other)), party_key(other, &back));
        let is_it = |party: &Party| {
            let is_open = party.offer.as_ref().is_some_and(|offer| match message.method() {
                _ if is_response => !offer.by_response && offer.cseq == cseq,
                "ACK" => offer.by_response && offer.cseq == cseq,
                // Of the response that it acknowledges it repeats the CSeq elsewhere (RAck), not as its own.
                "PRACK" => offer.by_response,
                _ => false,
            });
            let is_settled = is_response && party.offer.is_none() && party.settled == cseq;
            party.tag == tag && (is_open || is_settled && cseq.is_some())
        };
        let on_this_hop = self.parties.iter().rposition(|party| party.key == here && is_it(party));
        on_this_hop.or_else(|| self.parties.iter().rposition(is_it))
    }
}

impl Party {
    fn ids(&self) -> impl Iterator<Item = MediaId> {
        let offered = self.offer.iter().flat_map(|offer| &offer.lines);
        self.lines.iter().chain(offered).filter_map(|line| line.id)
    }
}

impl Step<'_> {
    /// Announces the lines of a description.
    fn announce(&mut self, description: &Description, call_id: &Arc<str>, side: Side) -> Vec<Line> {
        let line = |line: &MediaLine| {
            self.known.count(line);
            let own = line.rides_on.is_none();
            let id = own.then(|| self.media.announce(call_id, line, self.at.time, self.at.number)).flatten();
            if let Some(id) = id {
                self.known.announce(id, side, self.media.info(id));
            }
            Line {
                id,
                protocol: line.protocol,
                direction: line.direction,
                refused: line.refused,
                mid: line.mid.clone(),
            }
        };
        description.lines.iter().map(line).collect()
    }

    /// Remembers what an offer and its answer come to.
    fn agree(&mut self, offerer: Side, offered: &[Line], answered: &[Line]) {
        let pairs = || offered.iter().zip(answered).filter(|(_, answer)| !answer.refused);
        let sends = |from: &Line, to: &Line| {
            from.protocol == Protocol::Rtp
                && from.direction.sends()
                && to.direction.receives()
                && to.id.is_some()
        };
        let offerer_sends = pairs().any(|(offer, answer)| sends(offer, answer));
        let answerer_sends = pairs().any(|(offer, answer)| sends(answer, offer));
        self.known.agree(Agreement {
            time: self.at.time,
            number: self.at.number,
            caller_sends: offerer.of(offerer_sends, answerer_sends),
            called_sends: offerer.of(answerer_sends, offerer_sends),
            is_fax: pairs().any(|(_, answer)| answer.protocol == Protocol::Udptl),
        });
    }
}

/// The direction that a line asks for. An address of 0.0.0.0 is the old way to hold (RFC 2543).
fn asked(line: &MediaLine) -> Direction {
    match line.direction {
        Direction::SendRecv if line.endpoint.is_none() && !line.refused => Direction::SendOnly,
        direction => direction,
    }
}

/// Whoever has this tag, on the hop where it sends from `flow.src` to `flow.dst`.
fn party_key(tag: &[u8], flow: &Flow) -> u64 {
    BuildHasherDefault::<FxHasher>::default().hash_one((tag, flow.src, flow.dst))
}

#[cfg(test)]
#[path = "negotiation_tests.rs"]
mod tests;

//! One call's offers and answers: what each party announces, and what becomes of it in the media table.

use std::hash::{BuildHasher, BuildHasherDefault};
use std::sync::Arc;

use rustc_hash::FxHasher;

use super::call::Sighting;
use super::media::MediaTable;
use super::message::Message;
use super::sdp::{self, Direction};
use crate::packet::{Flow, MediaId};

/// Parties of a call that may announce media: two, and a few per fork or hop.
const MAX_PARTIES: usize = 16;
/// Lines remembered of a call for its report.
const MAX_LINES: usize = 4 * MAX_PARTIES;

/// Who announced what in a call.
#[derive(Debug, Default)]
pub(super) struct Negotiation {
    parties: Vec<Party>,
}

/// Whoever sends SDP in a call, as one hop sees it: a proxy that rewrites SDP must not replace the
/// caller's own lines.
#[derive(Debug)]
struct Party {
    key: u64,
    lines: Vec<MediaId>,
}

impl Negotiation {
    /// Takes the SDP of a message, if it is an offer or an answer: SDP elsewhere (the capabilities in an answer to
    /// OPTIONS) announces nothing. `known` collects the lines of the call. Gives the direction that the first line asks for.
    pub(super) fn take(
        &mut self,
        at: Sighting,
        message: &Message<'_>,
        call_id: &Arc<str>,
        known: &mut Vec<MediaId>,
        media: &mut MediaTable,
    ) -> Option<Direction> {
        let negotiates = matches!(message.method(), "INVITE" | "ACK" | "PRACK" | "UPDATE");
        if !negotiates
            || message.body.is_empty()
            || message.is_encoded
            || message.status().is_some_and(|code| code >= 300)
        {
            return None;
        }
        let description = sdp::describe(message.content_type, message.body)?;
        media.give_up(description.given_up);
        if description.lines.is_empty() {
            return None;
        }
        let direction = description.lines.first().map(|line| line.direction);
        let mut lines = Vec::with_capacity(description.lines.len());
        for line in &description.lines {
            let Some(id) = media.announce(call_id, line, at.time, at.number) else { continue };
            lines.push(id);
            if !known.contains(&id) && known.len() < MAX_LINES {
                known.push(id);
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
        direction
    }

    /// The call is over: its lines go after the grace.
    pub(super) fn withdraw(&self, at: Sighting, media: &mut MediaTable) {
        for party in &self.parties {
            withdraw_all(&party.lines, &[], at, media);
        }
    }

    /// It is not over after all: another branch had failed before.
    pub(super) fn reopen(&self, at: Sighting, media: &mut MediaTable) {
        for id in self.parties.iter().flat_map(|party| &party.lines) {
            media.reopen(*id, at.time);
        }
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

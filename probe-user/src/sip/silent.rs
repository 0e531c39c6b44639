//! Who answers no request: it is down, a firewall is in between, or its answers take a way that is not captured.
//!
//! Only who answered nothing at all is told. Of one that answers some, the outcomes of transactions say how many not.

use rustc_hash::FxHashMap;
use serde::Serialize;

use super::call::Sighting;
use super::message::Message;
use crate::packet::{Endpoint, Nanos};

/// Endpoints that are told apart: those beyond are not watched. 64 bytes each.
const MAX_ASKED: usize = 4_096;
/// Endpoints that are named.
const MAX_NAMED: usize = 16;
/// For so long one is not called silent: 100 comes after 200 ms at the latest, and the intervals of timer E end at
/// T2 (RFC 3261, 17.2.1 and 17.1.2.2).
const PATIENCE_NS: u64 = 4_000_000_000;
/// Characters kept of a method.
const MAX_METHOD: usize = 32;

/// The `silent` of the report.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct SilentReport {
    /// Endpoints that were asked, and answered nothing.
    pub endpoints: u64,
    /// Requests to them, repeats apart.
    pub requests: u64,
    /// The first few of them.
    pub named: Vec<Silent>,
}

/// One that answers nothing.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Silent {
    /// Where it was asked.
    pub endpoint: Endpoint,
    /// Who asked first.
    pub from: Endpoint,
    /// The method of the first request.
    pub method: Box<str>,
    /// Requests, repeats apart.
    pub requests: u64,
    /// Frame of the first.
    pub first_frame: u64,
}

/// Who was asked.
#[derive(Debug, Default)]
pub(super) struct Asked {
    all: Vec<One>,
    by_endpoint: FxHashMap<Endpoint, usize>,
    /// ACK, BYE and PRACK with a To tag: somebody answered, whether it was captured or not.
    proofs: u64,
}

#[derive(Debug)]
struct One {
    silent: Silent,
    since: Nanos,
    /// An answer was seen, or what proves one.
    has_answered: bool,
}

impl Asked {
    /// Takes a request that was not sent before. Gives its place, by which its answers are noted.
    pub(super) fn ask(&mut self, at: Sighting, message: &Message<'_>) -> Option<u16> {
        let is_proof = matches!(message.method(), "ACK" | "BYE" | "PRACK") && message.to().tag.is_some();
        self.proofs += u64::from(is_proof);
        let place = match self.by_endpoint.get(&at.flow.dst) {
            Some(&known) => known,
            // An ACK asks for nothing.
            None if self.all.len() == MAX_ASKED || message.method() == "ACK" => return None,
            None => {
                let silent = Silent {
                    endpoint: at.flow.dst,
                    from: at.flow.src,
                    method: message.method().chars().take(MAX_METHOD).collect(),
                    requests: 0,
                    first_frame: at.number,
                };
                self.by_endpoint.insert(at.flow.dst, self.all.len());
                self.all.push(One { silent, since: at.time, has_answered: false });
                self.all.len() - 1
            }
        };
        let one = self.all.get_mut(place)?;
        one.has_answered |= is_proof;
        one.silent.requests += u64::from(message.method() != "ACK");
        u16::try_from(place).ok()
    }

    /// Takes a response, final or not, to a request that was sent to `place`, if that was seen.
    pub(super) fn answer(&mut self, at: Sighting, place: Option<u16>) {
        let by_sender = self.by_endpoint.get(&at.flow.src).copied();
        for place in place.map(usize::from).into_iter().chain(by_sender) {
            if let Some(one) = self.all.get_mut(place) {
                one.has_answered = true;
            }
        }
    }

    /// How often what was sent proves that somebody answered.
    pub(super) fn proofs(&self) -> u64 {
        self.proofs
    }

    /// Who has answered nothing so far.
    pub(super) fn report(&self, now: Nanos) -> SilentReport {
        let is_silent = |one: &&One| !one.has_answered && now.0.saturating_sub(one.since.0) >= PATIENCE_NS;
        let silent = || self.all.iter().filter(is_silent);
        SilentReport {
            endpoints: silent().count() as u64,
            requests: silent().map(|one| one.silent.requests).sum(),
            named: silent().take(MAX_NAMED).map(|one| one.silent.clone()).collect(),
        }
    }
}

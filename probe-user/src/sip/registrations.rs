//! What became of registrations (RFC 3261, 10).

use std::collections::BTreeMap;
use std::hash::{BuildHasher, BuildHasherDefault};

use rustc_hash::{FxHashSet, FxHasher};
use serde::Serialize;

use super::message::Message;
use super::text::{number, parameter};
use super::transaction::Answer;

/// Users told apart: 16 bytes each.
const MAX_USERS: usize = 65_536;
/// User agents told apart; the rest is not named.
const MAX_AGENTS: usize = 16;
/// Characters kept of a user agent's name.
const MAX_NAME: usize = 64;

/// The `registrations` of the report.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct RegistrationReport {
    /// Accepted with 2xx, refreshes included.
    pub accepted: u64,
    /// Of these, asked to be forgotten (Expires: 0).
    pub removed: u64,
    /// Asked for credentials: 401 and 407.
    pub challenged: u64,
    /// Refused with any other status, by status.
    pub refused: BTreeMap<u16, u64>,
    /// Users that were accepted at least once; at most 65,536 are told apart.
    pub users: u64,
    /// Shortest and longest time that a registrar granted, in seconds.
    pub expires_s: Option<(u32, u32)>,
    /// Who registers (User-Agent), with how many requests; the first few kinds.
    pub user_agents: Vec<Agent>,
}

/// A kind of user agent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Agent {
    /// As it names itself.
    pub name: Box<str>,
    /// REGISTERs from it, repeats apart.
    pub requests: u64,
}

/// Counts registrations.
#[derive(Debug, Default)]
pub(super) struct Registrations {
    report: RegistrationReport,
    users: FxHashSet<u64>,
}

impl Registrations {
    /// Takes a message of a REGISTER transaction that was not sent before, and the answer that it is, if it is one.
    pub(super) fn observe(&mut self, message: &Message<'_>, answer: Option<Answer>) {
        if message.status().is_none() {
            self.note_agent(message);
        }
        let Some(Answer { code, removes }) = answer else { return };
        match code {
            200..=299 => {
                self.report.accepted += 1;
                self.report.removed += u64::from(removes);
                self.note_user(message.to().uri);
                if let Some(granted) = granted(message).filter(|_| !removes) {
                    let (least, most) = self.report.expires_s.unwrap_or((granted, granted));
                    self.report.expires_s = Some((least.min(granted), most.max(granted)));
                }
            }
            401 | 407 => self.report.challenged += 1,
            _ => *self.report.refused.entry(code).or_default() += 1,
        }
    }

    /// So far.
    pub(super) fn report(&self) -> RegistrationReport {
        RegistrationReport { users: self.users.len() as u64, ..self.report.clone() }
    }

    fn note_user(&mut self, uri: &[u8]) {
        if self.users.len() < MAX_USERS {
            self.users.insert(BuildHasherDefault::<FxHasher>::default().hash_one(uri));
        }
    }

    fn note_agent(&mut self, message: &Message<'_>) {
        let Some(name) = message.header("user-agent", None) else { return };
        let name = String::from_utf8_lossy(name.get(..MAX_NAME).unwrap_or(name));
        let agents = &mut self.report.user_agents;
        if let Some(agent) = agents.iter_mut().find(|agent| *agent.name == *name) {
            agent.requests += 1;
        } else if agents.len() < MAX_AGENTS {
            agents.push(Agent { name: name.into(), requests: 1 });
        }
    }
}

/// For how long a 2xx registers: its Contact says it, else Expires (RFC 3261, 10.2.4).
fn granted(message: &Message<'_>) -> Option<u32> {
    let contact = message.header("contact", Some(b'm')).unwrap_or_default();
    parameter(contact, b"expires").and_then(number).or_else(|| message.expires())
}

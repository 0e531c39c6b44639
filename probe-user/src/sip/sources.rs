//! Who sends requests that lead to nothing: floods, scanners, and refused registrations, by source address.
//!
//! Each source is judged by the answers that it gets, as one that nobody refuses is a trunk, however much it sends.
//! Users are counted with a bitmap of 1,024 bits (linear counting), so "users" is about right up to some thousands.
//! 4,096 sources are kept, 1.3 MB; when a further one comes, the one seen first gives way unless it is a suspect.

use std::collections::VecDeque;
use std::hash::{BuildHasher, BuildHasherDefault};
use std::net::{IpAddr, Ipv6Addr};

use rustc_hash::{FxHashMap, FxHasher};
use serde::Serialize;

use super::call::Sighting;
use super::message::Message;
use super::transaction::Answer;
use crate::packet::Nanos;

const MAX_SOURCES: usize = 4_096;
/// Sources that are passed over when one has to give way.
const PASSED_OVER: usize = 16;
/// Sources told in a report.
const MAX_TOLD: usize = 32;
/// Calls begun in a second from which a source is a flood, if hardly any of them rings or is answered.
const FLOOD_PER_SECOND: u32 = 100;
/// Refusals, and users asked for, from which a source is a scanner.
const SCAN: u64 = 20;
/// One answer that accepts for so many that refuse is luck.
const LUCK: u64 = 10;
/// Names of tools that are used for nothing else (User-Agent, in lower case).
const SCANNERS: [&str; 7] =
    ["friendly-scanner", "sipvicious", "sundayddr", "sip-scan", "sipcli", "pplsip", "vaxsipuseragent"];
/// Characters kept of a name.
const MAX_NAME: usize = 64;

/// Why a source is named.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Suspicion {
    /// INVITEs faster than anybody calls, nearly all without ringing or an answer; or calls had to make room for them.
    InviteFlood,
    /// A scanner by its name, or many users asked for and refused.
    Scan,
    /// Registrations refused again and again: passwords are guessed, or one is wrong.
    RefusedRegistrations,
}

/// A source that is named, and why.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Suspect {
    /// Why.
    pub kind: Suspicion,
    /// Its address; null for all sources together, when a flood has too many of them.
    pub address: Option<IpAddr>,
    /// As it names itself.
    pub user_agent: Option<Box<str>>,
    /// Frame of its first request.
    pub first_frame: u64,
    /// Requests outside calls, repeats apart.
    pub requests: u64,
    /// Users that it asked for, about.
    pub users: u64,
    /// Requests that were accepted.
    pub accepted: u64,
    /// Refused with 3xx to 6xx.
    pub refused: u64,
    /// Asked for credentials.
    pub challenged: u64,
    /// Calls that it began.
    pub calls: u64,
    /// Most calls that it began in one second.
    pub peak_calls_per_s: u32,
    /// Calls of others, not over yet, that had to make room.
    pub made_room: u64,
    /// It got in, once.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub got_in: Option<GotIn>,
}

/// A registration that was accepted after many were refused.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct GotIn {
    /// Frame of the 2xx.
    pub frame: u64,
    /// URI of the user (To), its first 64 bytes.
    pub user: Box<str>,
    /// Registrations from this source that were refused or challenged before.
    pub refused_before: u64,
}

/// All sources. See the module's text.
#[derive(Debug, Default)]
pub(super) struct Sources {
    by_address: FxHashMap<[u8; 16], Box<Source>>,
    first: VecDeque<[u8; 16]>,
    all: Source,
    /// Addresses, and not users, for all together.
    addresses: Bitmap,
    has_responses: bool,
}

#[derive(Debug, Default)]
struct Source {
    first_frame: u64,
    user_agent: Option<Box<str>>,
    is_scanner: bool,
    requests: u64,
    users: Bitmap,
    accepted: u64,
    refused: u64,
    challenged: u64,
    /// Of `refused` and `challenged`, REGISTERs.
    registrations_refused: u64,
    registrations_accepted: u64,
    got_in: Option<Box<GotIn>>,
    calls: u64,
    calls_answered: u64,
    /// Responses that say somebody rings: a call that may be answered yet.
    calls_rang: u64,
    made_room: u64,
    second: u64,
    in_second: u32,
    peak: u32,
}

/// What a request did to the table of calls.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Effect {
    pub(super) began: bool,
    /// Live calls that made room.
    pub(super) made_room: u64,
}

impl Sources {
    /// Takes a message that was not sent before: a request from a source, or the answer to one.
    pub(super) fn observe(
        &mut self,
        at: Sighting,
        message: &Message<'_>,
        answer: Option<Answer>,
        effect: Effect,
    ) {
        let method = message.method();
        if !matches!(method, "INVITE" | "REGISTER" | "OPTIONS" | "SUBSCRIBE") {
            return;
        }
        match (message.status(), answer) {
            (None, _) if message.to().tag.is_none() => self.request(at, message, effect),
            (Some(101..=199), _) if method == "INVITE" => {
                let source = self.by_address.get_mut(&at.flow.dst.address);
                for source in source.map(|source| &mut **source).into_iter().chain([&mut self.all]) {
                    source.calls_rang += 1;
                }
            }
            (Some(_), Some(answer)) => {
                self.has_responses = true;
                let source = self.by_address.get_mut(&at.flow.dst.address);
                for source in source.map(|source| &mut **source).into_iter().chain([&mut self.all]) {
                    source.answer(at.number, message, answer.code);
                }
            }
            _ => {}
        }
    }

    fn request(&mut self, at: Sighting, message: &Message<'_>, effect: Effect) {
        let address = at.flow.src.address;
        self.addresses.insert(&address);
        self.all.request(at, message, effect);
        if !self.by_address.contains_key(&address) {
            self.make_room();
            self.first.push_back(address);
        }
        self.by_address.entry(address).or_default().request(at, message, effect);
    }

    fn make_room(&mut self) {
        let mut passed_over = 0;
        while self.by_address.len() >= MAX_SOURCES {
            let Some(address) = self.first.pop_front() else { return };
            let source = self.by_address.get(&address);
            if passed_over < PASSED_OVER && source.is_some_and(|source| self.judge(source).is_some()) {
                passed_over += 1;
                self.first.push_back(address);
                continue;
            }
            self.by_address.remove(&address);
        }
    }

    /// Those that are named, the busiest first.
    pub(super) fn suspects(&self) -> Vec<Suspect> {
        let mut named: Vec<_> = self
            .by_address
            .iter()
            .filter_map(|(address, source)| {
                let address = Ipv6Addr::from(*address).to_canonical();
                Some(source.told(self.judge(source)?, Some(address), source.users.count()))
            })
            .collect();
        let is_flood = |suspect: &Suspect| suspect.kind == Suspicion::InviteFlood;
        let by_named: u64 = named.iter().filter(|suspect| is_flood(suspect)).map(|one| one.calls).sum();
        // A flood whose sources are too many to be floods each.
        if self.all.made_room > 0 && self.all.is_ignored() && by_named < self.all.calls / 2 {
            named.push(self.all.told(Suspicion::InviteFlood, None, self.addresses.count()));
        }
        named.sort_by(|a, b| b.requests.cmp(&a.requests).then(a.address.cmp(&b.address)));
        named.truncate(MAX_TOLD);
        named
    }

    fn judge(&self, source: &Source) -> Option<Suspicion> {
        // Where no response at all was captured, a trunk looks like a flood.
        let is_fast = source.peak >= FLOOD_PER_SECOND && self.has_responses;
        let is_flood = source.is_ignored() && (is_fast || source.made_room >= u64::from(FLOOD_PER_SECOND));
        let registrations = source.registrations_refused;
        let is_refused = source.refused.saturating_add(source.challenged) >= SCAN
            && source.accepted.saturating_mul(LUCK) < source.refused.saturating_add(source.challenged);
        if is_flood {
            Some(Suspicion::InviteFlood)
        } else if source.is_scanner || is_refused && source.users.count() >= SCAN {
            Some(Suspicion::Scan)
        } else if registrations >= SCAN && source.registrations_accepted.saturating_mul(LUCK) < registrations
        {
            Some(Suspicion::RefusedRegistrations)
        } else {
            None
        }
    }
}

impl Source {
    fn request(&mut self, at: Sighting, message: &Message<'_>, effect: Effect) {
        if self.requests == 0 {
            self.first_frame = at.number;
            let name = message.header("user-agent", None);
            self.user_agent =
                name.map(|name| String::from_utf8_lossy(name.get(..MAX_NAME).unwrap_or(name)).into());
            self.is_scanner = self.user_agent.as_deref().is_some_and(is_scanner);
        }
        self.requests += 1;
        self.users.insert(message.to().uri);
        self.made_room += effect.made_room;
        if effect.began {
            self.calls += 1;
            self.count_in_second(at.time);
        }
    }

    fn count_in_second(&mut self, now: Nanos) {
        let second = now.0 / 1_000_000_000;
        if second != self.second {
            (self.second, self.in_second) = (second, 0);
        }
        self.in_second = self.in_second.saturating_add(1);
        self.peak = self.peak.max(self.in_second);
    }

    /// Does hardly any of its calls ring anywhere, or get an answer?
    fn is_ignored(&self) -> bool {
        self.calls_answered.saturating_add(self.calls_rang).saturating_mul(LUCK) < self.calls
    }

    fn answer(&mut self, frame: u64, message: &Message<'_>, code: u16) {
        let method = message.method();
        let is_registration = method == "REGISTER";
        if is_registration && code < 300 && self.registrations_refused >= SCAN && self.got_in.is_none() {
            let user = message.to().uri;
            self.got_in = Some(Box::new(GotIn {
                frame,
                user: String::from_utf8_lossy(user.get(..MAX_NAME).unwrap_or(user)).into(),
                refused_before: self.registrations_refused,
            }));
        }
        match code {
            200..=299 => {
                self.accepted += 1;
                self.registrations_accepted += u64::from(is_registration);
                self.calls_answered += u64::from(method == "INVITE");
            }
            401 | 407 => self.challenged += 1,
            _ => self.refused += 1,
        }
        self.registrations_refused += u64::from(is_registration && code >= 300);
    }

    fn told(&self, kind: Suspicion, address: Option<IpAddr>, users: u64) -> Suspect {
        Suspect {
            kind,
            address,
            user_agent: self.user_agent.clone().filter(|_| address.is_some()),
            first_frame: self.first_frame,
            requests: self.requests,
            users,
            accepted: self.accepted,
            refused: self.refused,
            challenged: self.challenged,
            calls: self.calls,
            peak_calls_per_s: self.peak,
            made_room: self.made_room,
            got_in: self.got_in.as_deref().cloned(),
        }
    }
}

fn is_scanner(name: &str) -> bool {
    let name = name.to_ascii_lowercase();
    SCANNERS.iter().any(|scanner| name.contains(scanner))
}

/// A set that only knows how many it holds, about.
#[derive(Debug, Default)]
struct Bitmap([u64; BITS as usize / 64]);

const BITS: u32 = 1_024;

impl Bitmap {
    fn insert(&mut self, value: &[u8]) {
        // FxHash's high bits are its better ones.
        let bit = BuildHasherDefault::<FxHasher>::default().hash_one(value) >> 54;
        let word = usize::try_from(bit / 64).ok().and_then(|word| self.0.get_mut(word));
        if let Some(word) = word {
            *word |= 1 << (bit % 64);
        }
    }

    /// Linear counting (Whang et al., 1990). A full bitmap says the most that it can tell.
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "at most 7,098")]
    fn count(&self) -> u64 {
        let empty = self.0.iter().map(|word| word.count_zeros()).sum::<u32>().max(1);
        (f64::from(BITS) * (f64::from(BITS) / f64::from(empty)).ln()).round() as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bitmap_counts_about_right() {
        for n in [1_u32, 20, 300, 3_000] {
            let mut bitmap = Bitmap::default();
            (0..n).for_each(|user| bitmap.insert(format!("sip:{user}@pbx.example").as_bytes()));
            let (count, n) = (bitmap.count() as f64, f64::from(n));
            assert!((count - n).abs() <= n / 5.0 + 1.0, "{n}: {count}");
        }
    }

    #[test]
    fn scanners_are_known_by_name() {
        assert!(is_scanner("Friendly-Scanner 0.1") && !is_scanner("Asterisk PBX 20"));
    }
}

//! Who owns an endpoint, and by what right; and what the kernel's map has to be told of it.
//!
//! An endpoint has one owner. A claim takes it from an owner of the same rank or a lower one, so the latest announcement
//! wins, and a guess never takes what somebody said. What loses its endpoint does not get it back from here.

use std::hash::{Hash, Hasher};

use rustc_hash::FxHashMap;

use super::generations::{Generations, Groups};
use crate::packet::{Endpoint, MediaId};

/// By what right, the weakest first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Rank {
    /// It sent media to an announced endpoint, so it receives there as well (symmetric RTP, RFC 4961).
    Learned,
    /// Where RTCP of the line is to come; mostly a guess.
    Rtcp,
    /// An ICE candidate.
    Candidate,
    /// The address and port of the media line.
    Media,
}

impl Rank {
    /// May media come there, rather than shall it?
    fn is_possible(self) -> bool {
        matches!(self, Self::Learned | Self::Candidate)
    }
}

/// Who owns an endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Claim {
    pub(super) id: MediaId,
    pub(super) rank: Rank,
}

/// What the kernel's endpoint map has to follow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EndpointChange {
    /// Announced.
    Added(Endpoint),
    /// No longer.
    Removed(Endpoint),
}

/// See the module.
#[derive(Debug)]
pub(super) struct Owners {
    by_endpoint: FxHashMap<Key, Claim>,
    /// As many as the kernel's map holds.
    bound: usize,
    /// Those of them that are candidates or learned: at most a quarter of the bound, so that what was said has room.
    possible: usize,
    changes: Vec<EndpointChange>,
    is_followed: bool,
    refused: u64,
    generations: Generations,
}

impl Owners {
    pub(super) fn new(bound: usize) -> Self {
        Self {
            by_endpoint: FxHashMap::default(),
            bound,
            possible: 0,
            changes: Vec::new(),
            is_followed: false,
            refused: 0,
            generations: Generations::default(),
        }
    }

    /// Records changes from now on.
    pub(super) fn follow(&mut self) {
        self.is_followed = true;
    }

    pub(super) fn drain_changes(&mut self) -> std::vec::Drain<'_, EndpointChange> {
        self.changes.drain(..)
    }

    /// Candidates and learned endpoints for which there was no room.
    pub(super) fn refused(&self) -> u64 {
        self.refused
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.by_endpoint.len()
    }

    /// Has a line with its RTCP room?
    pub(super) fn has_room(&self) -> bool {
        self.by_endpoint.len() + 2 <= self.bound
    }

    #[inline]
    pub(super) fn owner(&self, endpoint: Endpoint) -> Option<Claim> {
        self.by_endpoint.get(&Key::from(endpoint)).copied()
    }

    /// As long as this is the same for a flow, so are the owners of its ends. Never 0.
    #[inline]
    pub(super) fn generation(&self, groups: Groups) -> u64 {
        self.generations.of(groups)
    }

    #[inline]
    pub(super) fn is_owned(&self, key: &probe_ebpf::EndpointKey) -> bool {
        self.by_endpoint.contains_key(&Key::from(*key))
    }

    /// Makes `by` the owner, if its rank allows. Gives the line that thereby lost its media's endpoint.
    pub(super) fn claim(&mut self, endpoint: Endpoint, by: Claim) -> Option<MediaId> {
        use std::collections::hash_map::Entry;
        let has_room = !by.rank.is_possible() || self.possible < self.bound / 4;
        let before = match self.by_endpoint.entry(Key::from(endpoint)) {
            Entry::Vacant(_) if !has_room => {
                self.refused += 1;
                return None;
            }
            Entry::Vacant(free) => {
                free.insert(by);
                if self.is_followed {
                    self.changes.push(EndpointChange::Added(endpoint));
                }
                None
            }
            Entry::Occupied(mut held) if held.get().rank <= by.rank => Some(held.insert(by)),
            Entry::Occupied(_) => return None,
        };
        self.generations.change(endpoint);
        self.possible += usize::from(by.rank.is_possible());
        self.possible -= usize::from(before.is_some_and(|before| before.rank.is_possible()));
        before.filter(|before| before.rank == Rank::Media && before.id != by.id).map(|before| before.id)
    }

    /// Nobody's any more, if it was that line's.
    pub(super) fn release(&mut self, endpoint: Endpoint, id: MediaId) {
        let key = Key::from(endpoint);
        if let Some(held) = self.by_endpoint.get(&key).filter(|held| held.id == id) {
            self.possible -= usize::from(held.rank.is_possible());
            self.by_endpoint.remove(&key);
            self.generations.change(endpoint);
            if self.is_followed {
                self.changes.push(EndpointChange::Removed(endpoint));
            }
        }
    }
}

/// An endpoint as the table hashes it: three words, where the derived hash would walk sixteen bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Key {
    high: u64,
    low: u64,
    port: u16,
}

impl Hash for Key {
    #[inline]
    fn hash<H: Hasher>(&self, state: &mut H) {
        // IPv4 differs in the low word only; folding the words saves a round.
        state.write_u64(self.high ^ self.low.rotate_left(17) ^ (u64::from(self.port) << 1));
    }
}

impl From<Endpoint> for Key {
    #[inline]
    fn from(endpoint: Endpoint) -> Self {
        let [a0, a1, a2, a3, a4, a5, a6, a7, b0, b1, b2, b3, b4, b5, b6, b7] = endpoint.address;
        Self {
            high: u64::from_ne_bytes([a0, a1, a2, a3, a4, a5, a6, a7]),
            low: u64::from_ne_bytes([b0, b1, b2, b3, b4, b5, b6, b7]),
            port: endpoint.port,
        }
    }
}

impl From<probe_ebpf::EndpointKey> for Key {
    #[inline]
    fn from(key: probe_ebpf::EndpointKey) -> Self {
        let [a, b, c, d] = key.address.map(u32::to_ne_bytes);
        let [high, low] = [[a, b], [c, d]].map(|[a, b]| {
            let ([a0, a1, a2, a3], [b0, b1, b2, b3]) = (a, b);
            u64::from_ne_bytes([a0, a1, a2, a3, b0, b1, b2, b3])
        });
        #[expect(clippy::cast_possible_truncation, reason = "a port, widened for the kernel's key")]
        Self { high, low, port: key.port as u16 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const AT: Endpoint = Endpoint { address: [7; 16], port: 4000 };

    fn claim(id: u32, rank: Rank) -> Claim {
        Claim { id: MediaId(id), rank }
    }

    #[test]
    fn a_claim_takes_from_its_equals_and_from_those_below() {
        let order = [Rank::Learned, Rank::Rtcp, Rank::Candidate, Rank::Media];
        for (held_at, held) in order.into_iter().enumerate() {
            for (by_at, by) in order.into_iter().enumerate() {
                let mut owners = Owners::new(10);
                owners.claim(AT, claim(1, held));
                let lost = owners.claim(AT, claim(2, by));
                let owner = if by_at >= held_at { 2 } else { 1 };
                assert_eq!(owners.owner(AT).map(|claim| claim.id.0), Some(owner), "{by:?} from {held:?}");
                assert_eq!(lost.is_some(), (held, by) == (Rank::Media, Rank::Media));
            }
        }
    }

    #[test]
    fn what_is_only_possible_has_a_quarter_of_the_map_and_the_rest_is_counted() {
        let mut owners = Owners::new(8);
        let at = |port| Endpoint { port, ..AT };
        for port in 0..5 {
            owners.claim(at(port), claim(1, if port % 2 == 0 { Rank::Candidate } else { Rank::Learned }));
        }
        assert_eq!((owners.len(), owners.refused()), (2, 3));
        // One of them becomes a line's own, which makes room for another.
        owners.claim(at(0), claim(1, Rank::Media));
        owners.claim(at(2), claim(1, Rank::Candidate));
        owners.release(at(1), MediaId(1));
        owners.claim(at(3), claim(1, Rank::Learned));
        assert_eq!((owners.len(), owners.possible, owners.refused()), (3, 2, 3));
        (10..13).for_each(|port| {
            owners.claim(at(port), claim(2, Rank::Media));
        });
        assert!(owners.has_room());
        owners.claim(at(13), claim(2, Rank::Media));
        assert!(!owners.has_room());
    }
}

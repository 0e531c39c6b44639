//! Where in the table a stream is: open addressing, one line of memory a look-up.
//!
//! An entry is a place and the upper half of the key's hash: eight bytes, eight entries a line, at most half of them used.
//! The key itself lies with the stream, where it is needed anyway; where an entry belongs can be told from itself. Room for
//! all streams is taken at the start, and costs nothing until it is used.

use std::hash::{BuildHasher as _, RandomState};

use super::memory::{huge_zeros, prefetch};
use crate::rtp::KeyWords;

/// See the module.
#[derive(Debug)]
pub(super) struct Index {
    secret: Secret,
    /// Half of the hash above, place and one below; 0 is free.
    entries: Vec<u64>,
    /// By how much a hash is shifted to say where its entry belongs.
    shift: u32,
    len: usize,
}

/// Entries at the start, at most, for 16,777,216 streams: 256 MiB of addresses. More streams make it double when they come.
const MOST_AT_FIRST: usize = 1 << 25;

/// Hash of a key, by an index's [`Secret`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Hash(u64);

impl Hash {
    fn tag(self) -> u64 {
        self.0 & !PLACE
    }
}

/// What a hash depends on besides the key, another in each index: whoever may send here cannot make keys that crowd in one
/// place. Only where a key is found depends on it, and nothing that anybody is told.
#[derive(Clone, Copy, Debug)]
struct Secret([u64; 4]);

impl Secret {
    /// The system's random numbers, stretched as the standard library's maps do.
    fn new() -> Self {
        let random = RandomState::new();
        Self([0, 1, 2, 3].map(|word: u64| random.hash_one(word)))
    }

    /// Five words, mixed by three multiplications whose halves are folded (as wyhash does).
    #[inline]
    fn hash(&self, key: &KeyWords) -> Hash {
        let ([src, src_low], [dst, dst_low]) = (key.flow.src().address, key.flow.dst().address);
        let ports = u64::from(key.flow.ports()) << 32;
        let [first, second, third, last] = self.0;
        let mixed = folded((ports | u64::from(key.ssrc)) ^ first, src_low ^ second);
        Hash(folded(folded(mixed ^ dst_low, src ^ third) ^ dst, last))
    }
}

/// Both halves of a product, one on the other.
#[inline]
#[expect(clippy::cast_possible_truncation, reason = "each half for itself")]
fn folded(a: u64, b: u64) -> u64 {
    let product = u128::from(a) * u128::from(b);
    product as u64 ^ (product >> 64) as u64
}

/// The lower half of an entry.
const PLACE: u64 = 0xffff_ffff;

impl Index {
    /// Room for so many streams.
    pub(super) fn new(streams: usize) -> Self {
        let count = streams.saturating_mul(2).clamp(16, MOST_AT_FIRST).next_power_of_two();
        Self::with_entries(count, Secret::new())
    }

    fn with_entries(count: usize, secret: Secret) -> Self {
        Self { secret, entries: huge_zeros(count), shift: 64 - count.trailing_zeros(), len: 0 }
    }

    /// How this index calls a key.
    #[inline]
    pub(super) fn hash(&self, key: &KeyWords) -> Hash {
        self.secret.hash(key)
    }

    /// Asks for the line where the search for a key begins.
    #[inline]
    pub(super) fn prefetch(&self, hash: Hash) {
        if let Some(entry) = self.entries.get(self.home(hash.0)) {
            prefetch(entry);
        }
    }

    /// The place of the key that has this hash, and of which `is_it` says so by its place.
    #[inline]
    pub(super) fn find(&self, hash: Hash, mut is_it: impl FnMut(usize) -> bool) -> Option<usize> {
        self.search(hash, |place| is_it(place as usize)).map(|place| place as usize)
    }

    /// The place of the first key whose hash is this one, as far as entries tell: nearly always the one that is looked for.
    #[inline]
    pub(super) fn first(&self, hash: Hash) -> Option<u32> {
        self.search(hash, |_| true)
    }

    /// Half of the entries are free, so that a search always ends.
    #[inline]
    fn search(&self, hash: Hash, mut is_it: impl FnMut(u32) -> bool) -> Option<u32> {
        let mask = self.entries.len() - 1;
        let mut at = self.home(hash.0);
        loop {
            let entry = *self.entries.get(at & mask).filter(|entry| **entry != 0)?;
            if (entry ^ hash.0) & !PLACE == 0 && is_it(place(entry)) {
                return Some(place(entry));
            }
            at += 1;
        }
    }

    /// Notes that a key, which is not in it, has a place.
    pub(super) fn insert(&mut self, hash: Hash, place: usize) {
        if (self.len + 1) * 2 > self.entries.len() {
            self.grow();
        }
        self.put(hash.tag() | (place as u64 + 1));
    }

    fn put(&mut self, entry: u64) {
        let free = self.from(self.home(entry)).find(|at| self.entries.get(*at) == Some(&0));
        if let Some(place) = free.and_then(|at| self.entries.get_mut(at)) {
            *place = entry;
            self.len += 1;
        }
    }

    #[cold]
    fn grow(&mut self) {
        let before = std::mem::replace(self, Self::with_entries(self.entries.len() * 2, self.secret));
        before.entries.into_iter().filter(|entry| *entry != 0).for_each(|entry| self.put(entry));
    }

    /// The key with this hash moved from one place to another.
    pub(super) fn relocate(&mut self, hash: Hash, from: usize, to: usize) {
        let found = self.run(hash).find(|(_, entry)| place(*entry) as usize == from);
        if let Some(entry) = found.and_then(|(at, _)| self.entries.get_mut(at)) {
            *entry = hash.tag() | (to as u64 + 1);
        }
    }

    /// Forgets a key by its place. What follows moves up, so that searches find no hole.
    pub(super) fn remove(&mut self, hash: Hash, at: usize) {
        let Some((mut hole, _)) = self.run(hash).find(|(_, entry)| place(*entry) as usize == at) else {
            return;
        };
        let mask = self.entries.len() - 1;
        let mut next = (hole + 1) & mask;
        while let Some(entry) = self.entries.get(next).copied().filter(|entry| *entry != 0) {
            // May it stand in the hole: does it belong there, or before?
            if next.wrapping_sub(self.home(entry)) & mask >= next.wrapping_sub(hole) & mask {
                self.set(hole, entry);
                hole = next;
            }
            next = (next + 1) & mask;
        }
        self.set(hole, 0);
        self.len -= 1;
    }

    fn set(&mut self, at: usize, value: u64) {
        if let Some(entry) = self.entries.get_mut(at) {
            *entry = value;
        }
    }

    /// Forgets all keys.
    pub(super) fn clear(&mut self) {
        self.entries.fill(0);
        self.len = 0;
    }

    #[inline]
    fn home(&self, hash_or_entry: u64) -> usize {
        usize::try_from(hash_or_entry >> self.shift).unwrap_or(0)
    }

    /// All places of entries, from one on and round.
    fn from(&self, home: usize) -> impl Iterator<Item = usize> + use<> {
        let mask = self.entries.len() - 1;
        (0..=mask).map(move |step| (home + step) & mask)
    }

    /// The entries in use from a key's home on.
    #[inline]
    fn run(&self, hash: Hash) -> impl Iterator<Item = (usize, u64)> + '_ {
        self.from(self.home(hash.0))
            .map_while(|at| self.entries.get(at).filter(|entry| **entry != 0).map(|entry| (at, *entry)))
    }
}

#[inline]
#[expect(clippy::cast_possible_truncation, reason = "the lower half is what is asked for")]
fn place(entry: u64) -> u32 {
    (entry as u32).wrapping_sub(1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Any hash finds its place, whatever came and went: as a map does. Hashes are few, so that entries crowd.
    fn play(steps: &[(u64, bool)]) -> Result<(), TestCaseError> {
        let mut index = Index::new(4);
        let mut places: Vec<Hash> = Vec::new();
        for (hash, comes) in steps {
            if *comes || places.is_empty() {
                let hash = Hash(hash.wrapping_mul(0x0800_0001_0000_0000));
                index.insert(hash, places.len());
                places.push(hash);
            } else {
                let at = usize::try_from(*hash).unwrap() % places.len();
                let last = places.len() - 1;
                index.remove(places[at], at);
                places.swap_remove(at);
                if let Some(moved) = places.get(at) {
                    index.relocate(*moved, last, at);
                }
            }
            prop_assert_eq!(index.len, places.len());
            for (at, hash) in places.iter().enumerate() {
                prop_assert_eq!(index.find(*hash, |place| place == at), Some(at));
            }
            prop_assert_eq!(index.find(Hash(!0), |_| true), None);
        }
        Ok(())
    }

    proptest! {
        #[test]
        fn a_place_is_found_as_long_as_it_is_there(
            steps in prop::collection::vec((0_u64..40, prop::bool::weighted(0.6)), 0..300),
        ) {
            play(&steps)?;
        }
    }

    fn key(ssrc: u32, host: u8) -> KeyWords {
        let mut flow = crate::rtp::testing::flow();
        flow.src.address[15] = host;
        KeyWords { flow: flow.into(), ssrc }
    }

    /// Of 4,096 keys, how many of as many places are hit. By chance it is 63 %.
    fn spread(keys: impl Iterator<Item = KeyWords>) -> usize {
        let index = Index::new(4);
        let mut used: Vec<u64> = keys.take(1 << 12).map(|key| index.hash(&key).0 >> 52).collect();
        used.sort_unstable();
        used.dedup();
        used.len()
    }

    #[test]
    fn keys_spread_whatever_they_differ_in() {
        let spreads = [
            spread((0..).map(|ssrc| key(ssrc, 1))),
            spread((0..).map(|ssrc| key(ssrc << 20, 1))),
            spread((0..).map(|ssrc| key(ssrc / 256, u8::try_from(ssrc % 256).unwrap()))),
        ];
        assert!(spreads.iter().all(|used| (2_400..2_800).contains(used)), "{spreads:?}");
    }

    #[test]
    fn keys_that_crowd_in_one_index_do_not_in_another() {
        let (one, other) = (Index::new(4), Index::new(4));
        let crowd: Vec<_> =
            (0..1 << 20).map(|ssrc| key(ssrc, 1)).filter(|key| one.hash(key).0 >> 52 == 7).collect();
        assert!(crowd.len() > 100, "{}", crowd.len());
        let mut places: Vec<_> = crowd.iter().map(|key| other.hash(key).0 >> 52).collect();
        places.sort_unstable();
        places.dedup();
        assert!(places.len() * 10 > crowd.len() * 9, "{} of {}", places.len(), crowd.len());
    }
}

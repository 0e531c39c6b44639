//! What was found of flows, kept for their next packets: as much memory as there are flows, up to a bound.
//!
//! ```text
//!   hash ─▶ numbers   │ 0 │ tag 7 │ tag 2 │ 0 │ …      a row is searched from a hash's place on
//!                             │       │
//!   kept              [ 0 ][ 1 ][ 2 ] … [ 7 ]          side by side, in order of appearance
//! ```
//!
//! Of the numbers at most half are used, and tags tell nearly all of them apart: so all flows are found, most with the first
//! question. Twenty thousand flows take 256 KiB of numbers, which stay in the second-level cache.
//!
//! At the bound all is forgotten. What is alive is back with its next packet, and what has ended takes no place any more; to know
//! which is which would cost each packet a write. As there must have come as many flows as are forgotten, each of them pays for
//! learning one again at most.
//!
//! Hashes have no secret. Whoever makes flows that crowd in one row has them displace each other, and nothing else.

use std::iter;

use crate::pipeline::memory::prefetch;

/// Something that is kept.
pub(crate) trait Kept {
    /// Of what it is found by.
    fn hash(&self) -> Hash;
}

/// The upper half of a hash, whose upper bits are the better ones.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Hash(u32);

impl Hash {
    /// Of what has no flow.
    pub(crate) const NONE: Self = Self(0);
}

impl From<u64> for Hash {
    #[inline]
    fn from(hash: u64) -> Self {
        Self((hash >> 32) as u32)
    }
}

/// Which of those that are kept. It may be another's later, or nobody's: whoever keeps it has to ask whose it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Number(u32);

impl Number {
    /// Nobody's.
    pub(crate) const NONE: Self = Self(u32::MAX);
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Memo<T> {
    /// A tag and a number from 1; 0 is free. A row more than there are places, so that a search has no need to turn round.
    numbers: Box<[u32]>,
    /// By how much a hash is shifted to say its place.
    shift: u32,
    kept: Vec<T>,
    /// How many may be kept.
    most: usize,
}

/// How many are asked for at once: each has some 100 ns until its turn comes.
pub(crate) const AHEAD: usize = 16;
/// Numbers that are looked at, at most: a line of memory or two.
const ROW: usize = 16;
/// Places at first, as a power of two: 4 KiB.
const FIRST: u32 = 10;
/// Bits of a number.
const BITS: u32 = 20;
const NUMBER: u32 = (1 << BITS) - 1;

impl<T: Kept> Memo<T> {
    /// An empty one of so many at most, and never more than a million.
    pub(crate) fn new(most: usize) -> Self {
        let most = most.clamp(1, NUMBER as usize);
        Self { numbers: free(FIRST), shift: u32::BITS - FIRST, kept: Vec::new(), most }
    }

    /// Asks for the memory of those that are looked for next, and says where each is, as far as its hash tells.
    #[inline]
    pub(crate) fn ask_ahead(&self, hashes: impl Iterator<Item = Hash>) -> [Number; AHEAD] {
        let mut numbers = [Number::NONE; AHEAD];
        for (number, hash) in numbers.iter_mut().zip(hashes) {
            *number = self.first(hash);
            if let Some(kept) = self.get(*number) {
                prefetch(kept);
            }
        }
        numbers
    }

    /// The first that has a hash's tag: nearly always the one that is looked for.
    #[inline]
    fn first(&self, hash: Hash) -> Number {
        let entry = self.numbers.get(self.place(hash)).copied().unwrap_or(0);
        if has_tag(entry, hash) { number(entry) } else { self.beside(hash) }
    }

    /// The same where another is at its place.
    #[inline(never)]
    fn beside(&self, hash: Hash) -> Number {
        self.alike(hash).next().unwrap_or(Number::NONE)
    }

    /// The one that has this hash, and of which `is_it` says so.
    pub(crate) fn find(&self, hash: Hash, is_it: impl Fn(&T) -> bool) -> Option<Number> {
        self.alike(hash).find(|number| self.get(*number).is_some_and(&is_it))
    }

    /// All that have a hash's tag.
    #[inline]
    fn alike(&self, hash: Hash) -> impl Iterator<Item = Number> {
        let row = self.numbers.get(self.place(hash)..).and_then(<[u32]>::first_chunk::<ROW>);
        let used = row.into_iter().flatten().take_while(|entry| **entry != 0);
        used.filter(move |entry| has_tag(**entry, hash)).map(|entry| number(*entry))
    }

    #[inline]
    pub(crate) fn get(&self, Number(number): Number) -> Option<&T> {
        self.kept.get(number as usize)
    }

    #[inline]
    pub(crate) fn get_mut(&mut self, Number(number): Number) -> Option<&mut T> {
        self.kept.get_mut(number as usize)
    }

    /// Keeps one that is not yet.
    #[cold]
    pub(crate) fn keep(&mut self, value: T) {
        if self.kept.len() == self.most {
            self.kept.clear();
            self.numbers.fill(0);
        }
        if 2 * self.kept.len() >= 1 << (u32::BITS - self.shift) {
            self.grow();
        }
        let hash = value.hash();
        let next = self.kept.len();
        let Some(row) = self.row_mut(hash) else { return };
        if let Some(free) = row.iter_mut().find(|entry| **entry == 0) {
            *free = entry(hash, next);
            self.kept.push(value);
            return;
        }
        // It is crowded: the first gives up its number.
        let [first, ..] = row;
        let at = number(*first);
        *first = entry(hash, at.0 as usize);
        if let Some(displaced) = self.get_mut(at) {
            *displaced = value;
        }
    }

    fn grow(&mut self) {
        self.shift -= 1;
        self.numbers = free(u32::BITS - self.shift);
        for number in 0..self.kept.len() {
            let Some(hash) = self.kept.get(number).map(Kept::hash) else { return };
            let row = self.row_mut(hash);
            // Crowds cannot be larger now; what yet finds no place is lost until it is kept again.
            if let Some(free) = row.and_then(|row| row.iter_mut().find(|entry| **entry == 0)) {
                *free = entry(hash, number);
            }
        }
    }

    #[inline]
    fn place(&self, Hash(hash): Hash) -> usize {
        (hash >> self.shift) as usize
    }

    fn row_mut(&mut self, hash: Hash) -> Option<&mut [u32; ROW]> {
        let place = self.place(hash);
        self.numbers.get_mut(place..)?.first_chunk_mut()
    }

    /// How many are kept.
    #[cfg(test)]
    pub(crate) fn len(&self) -> usize {
        self.kept.len()
    }
}

/// Numbers for so many places, as a power of two.
fn free(places: u32) -> Box<[u32]> {
    iter::repeat_n(0, (1 << places) + ROW).collect()
}

/// The lower bits of a hash, where a number has none.
#[inline]
fn tag(Hash(hash): Hash) -> u32 {
    hash << BITS
}

/// Is it of a flow that has this hash? Nearly always of the one; or free, where the tag is none.
#[inline]
fn has_tag(entry: u32, hash: Hash) -> bool {
    (entry ^ tag(hash)) & !NUMBER == 0
}

/// That of an entry; [`Number::NONE`] if it is free.
#[inline]
fn number(entry: u32) -> Number {
    Number((entry & NUMBER).wrapping_sub(1))
}

#[expect(clippy::cast_possible_truncation, reason = "no more are kept than numbers have bits for")]
fn entry(hash: Hash, number: usize) -> u32 {
    tag(hash) | (number as u32 + 1)
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;

    /// Its hash is its own choice.
    #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
    struct Flow(u32, u32);

    impl Kept for Flow {
        fn hash(&self) -> super::Hash {
            super::Hash(self.0)
        }
    }

    impl Memo<Flow> {
        fn has(&self, flow: Flow) -> bool {
            self.find(flow.hash(), |kept| *kept == flow).is_some()
        }
    }

    /// So many, whose hashes are spread.
    fn flows(count: u32) -> impl Iterator<Item = Flow> {
        (0..count).map(|flow| Flow(flow.wrapping_mul(0x9e37_79b9), flow))
    }

    #[test]
    fn all_are_found_however_many_there_are() {
        let mut memo = Memo::new(1 << 17);
        for flow in flows(100_000) {
            assert!(!memo.has(flow), "before it came");
            memo.keep(flow);
        }
        assert_eq!(flows(100_000).filter(|flow| memo.has(*flow)).count(), 100_000);
        assert_eq!(memo.numbers.len(), (1 << 18) + ROW);
        let is_first = |flow: &Flow| memo.get(memo.first(flow.hash())) == Some(flow);
        assert!(flows(100_000).filter(is_first).count() > 99_000);
    }

    #[test]
    fn at_the_bound_all_is_forgotten_and_those_that_come_are_known() {
        let mut memo = Memo::new(1_000);
        flows(1_000).for_each(|flow| memo.keep(flow));
        assert_eq!((memo.len(), flows(1_000).all(|flow| memo.has(flow))), (1_000, true));
        let [new, old] = [Flow(7, 1_000), Flow(0, 0)];
        memo.keep(new);
        assert_eq!((memo.len(), memo.has(new), memo.has(old)), (1, true, false));
        memo.keep(old);
        assert!(memo.has(new) && memo.has(old));
    }

    #[test]
    fn a_crowd_displaces_only_itself() {
        let mut memo = Memo::new(1 << 17);
        let crowd = |count| (0..count).map(|flow| Flow(!0 << 12, flow));
        let others: Vec<_> = flows(400).collect();
        for flow in &others {
            memo.keep(*flow);
        }
        crowd(10_000).for_each(|flow| memo.keep(flow));
        assert_eq!(crowd(10_000).filter(|flow| memo.has(*flow)).count(), ROW);
        assert!(memo.has(Flow(!0 << 12, 9_999)), "the last is known");
        assert!(others.iter().all(|flow| memo.has(*flow)));
        assert!(memo.len() <= 400 + ROW && memo.numbers.len() == (1 << FIRST) + ROW);
    }

    proptest! {
        /// Who is found was kept, and who was just kept is found, whatever their hashes and the bound are.
        #[test]
        fn what_is_found_was_kept(
            steps in vec((prop_oneof![0..4_u32, any::<u32>()], 0..3_u32), 0..3_000),
            most in 1..2_000_usize,
        ) {
            let mut memo = Memo::new(most);
            let mut came = HashSet::new();
            for (hash, flow) in steps {
                let flow = Flow(hash, flow);
                prop_assert!(!memo.has(flow) || came.contains(&flow));
                if !memo.has(flow) {
                    memo.keep(flow);
                    came.insert(flow);
                }
                prop_assert!(memo.has(flow) && memo.len() <= most);
                let first = memo.first(flow.hash());
                prop_assert!(first == Number::NONE || memo.get(first).is_some_and(|first| came.contains(first)));
            }
        }
    }
}

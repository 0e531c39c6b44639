//! When each stream is looked at: once an interval, and never all of many at once.
//!
//! ```text
//!   spoke 0 ─▶ stream ─▶ stream ─┐        an interval turns the wheel once, in as many parts as there are streams
//!      ▲                         │        for; a part is some spokes in a row, and its streams are closed
//!      └─────────────────────────┘        between two packets, or ended if they were silent for too long
//!   spoke 1 ─▶ …
//! ```
//!
//! A stream that talks has its next packet within 20 ms. So if all intervals ended at one moment, all streams would have
//! to be closed within those 20 ms: one second of work for a million of them. Ends that are spread over the interval cost
//! the same in all, and never more at a time than a part holds.
//!
//! The spoke of a stream is told by the number of its first frame, which is the same however many shards there are, and which no
//! sender chooses: a part is no larger than the others. A spoke is a ring of places, so that a stream comes and goes in no
//! time that depends on how many there are.

use std::ops::Range;

/// Spokes, hence parts at most. With 1,000,000 streams a spoke has about 1,000.
pub const SPOKES: usize = 1 << 10;

/// Streams that there is room for at the start, at most: 128 MiB of addresses.
const MOST_AT_FIRST: usize = 1 << 24;

/// One of several parts of the streams, which are looked at one after the other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Part {
    /// Which, from 0.
    pub index: u16,
    /// Of how many: a power of two, [`SPOKES`] at most.
    pub of: u16,
}

impl Part {
    /// All streams.
    pub const WHOLE: Self = Self { index: 0, of: 1 };

    /// Does the interval begin with it?
    pub fn is_first(self) -> bool {
        self.index == 0
    }

    /// Does the interval end with it?
    pub fn is_last(self) -> bool {
        self.index + 1 == self.of
    }

    fn spokes(self) -> Range<usize> {
        let each = SPOKES / usize::from(self.of.max(1));
        let first = usize::from(self.index) * each;
        first..first + each
    }
}

/// Rings of places, one a spoke. See the module's text.
#[derive(Debug)]
pub(super) struct Wheel {
    /// The spokes' own links first, then one for each place.
    links: Vec<Link>,
}

#[derive(Clone, Copy, Debug)]
struct Link {
    next: u32,
    before: u32,
}

impl Wheel {
    /// A wheel with room for so many streams, which costs nothing until it is used.
    pub(super) fn new(streams: usize) -> Self {
        let mut wheel = Self { links: Vec::with_capacity(SPOKES + streams.min(MOST_AT_FIRST)) };
        wheel.clear();
        wheel
    }

    /// Adds the next place, for a stream whose first frame had this number.
    pub(super) fn push(&mut self, number: u64) {
        let spoke = spoke_of(number);
        let (own, before) = (number_of(self.links.len()), self.link(spoke).before);
        self.links.push(Link { next: spoke, before });
        self.join(before, own);
        self.join(own, spoke);
    }

    /// Takes a place out; the last takes its number.
    pub(super) fn swap_remove(&mut self, place: usize) {
        let at = number_of(SPOKES + place);
        let Link { next, before } = self.link(at);
        self.join(before, next);
        let last = self.links.len().saturating_sub(1);
        let moved = self.link(number_of(last));
        self.links.truncate(last);
        if last > SPOKES + place {
            self.join(moved.before, at);
            self.join(at, moved.next);
        }
    }

    /// The places of a part.
    pub(super) fn places(&self, part: Part) -> impl Iterator<Item = usize> + '_ {
        part.spokes().map(number_of).flat_map(move |spoke| {
            let after = move |at: u32| Some(self.link(at).next).filter(|next| *next != spoke);
            std::iter::successors(after(spoke), move |at| after(*at)).map(|at| at as usize - SPOKES)
        })
    }

    /// Forgets all places.
    pub(super) fn clear(&mut self) {
        self.links.clear();
        self.links.extend((0..SPOKES).map(number_of).map(|own| Link { next: own, before: own }));
    }

    fn link(&self, at: u32) -> Link {
        self.links.get(at as usize).copied().unwrap_or(Link { next: at, before: at })
    }

    /// Lets one follow another.
    fn join(&mut self, before: u32, next: u32) {
        if let Some(link) = self.links.get_mut(before as usize) {
            link.next = next;
        }
        if let Some(link) = self.links.get_mut(next as usize) {
            link.before = before;
        }
    }
}

/// Numbers that follow each other are spread evenly (Fibonacci hashing).
fn spoke_of(number: u64) -> u32 {
    const MIX: u64 = 0x9e37_79b9_7f4a_7c15;
    u32::try_from(number.wrapping_mul(MIX) >> (u64::BITS - SPOKES.ilog2())).unwrap_or(0)
}

/// Places are numbered by 32 bits, as in the index.
#[expect(clippy::cast_possible_truncation, reason = "the index has no larger ones")]
fn number_of(at: usize) -> u32 {
    at as u32
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Parts of all sizes.
    fn parts() -> impl Strategy<Value = u16> {
        (0..=SPOKES.ilog2()).prop_map(|power| 1 << power)
    }

    proptest! {
        /// As a list that is looked through from end to end: whatever came and went, each is in one part, and always in that.
        #[test]
        fn a_turn_shows_each_place_once_and_in_the_part_of_its_first_frame(
            steps in prop::collection::vec((any::<u64>(), prop::bool::weighted(0.7)), 0..400),
            of in parts(),
        ) {
            let (mut wheel, mut list) = (Wheel::new(4), Vec::new());
            for (value, comes) in steps {
                if comes || list.is_empty() {
                    wheel.push(value % 5_000);
                    list.push(value % 5_000);
                } else {
                    let at = usize::try_from(value).unwrap() % list.len();
                    wheel.swap_remove(at);
                    list.swap_remove(at);
                }
            }
            for index in 0..of {
                let part = Part { index, of };
                let mut shown: Vec<_> = wheel.places(part).collect();
                shown.sort_unstable();
                let naive: Vec<_> = (0..list.len())
                    .filter(|at| part.spokes().contains(&(spoke_of(list[*at]) as usize)))
                    .collect();
                prop_assert_eq!(shown, naive);
            }
        }
    }

    #[test]
    fn parts_are_even_whatever_frames_streams_begin_with() {
        // Each frame a stream; every 50th; and every 1,597th, which comes back nearly to the same spoke.
        for apart in [1, 50, 1_597] {
            let mut wheel = Wheel::new(100_000);
            (0..100_000).for_each(|stream| wheel.push(stream * apart));
            let sizes = (0..64).map(|index| wheel.places(Part { index, of: 64 }).count());
            let (least, most) =
                sizes.fold((usize::MAX, 0), |(least, most), size| (least.min(size), most.max(size)));
            assert!(least > 1_400 && most < 1_725, "{apart} apart: {least} to {most}");
        }
    }

    #[test]
    fn an_interval_has_a_first_and_a_last_part() {
        assert!(Part::WHOLE.is_first() && Part::WHOLE.is_last());
        let last = Part { index: 7, of: 8 };
        assert!(!last.is_first() && last.is_last());
        assert_eq!(last.spokes(), 896..SPOKES);
    }
}

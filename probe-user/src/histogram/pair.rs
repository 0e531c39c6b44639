//! Two distributions that count with every packet, as a run has them: their counters in one piece of memory.

use super::{Cells, Distribution, GROUP, count, place, span};

/// Where in that memory which counters are, and the range of what was counted.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Pair {
    least_ns: [u32; 2],
    most_ns: [u32; 2],
    /// The first bucket of each that has a counter.
    first: [u8; 2],
    /// Groups of octets before the second one's counters.
    split: u8,
    /// Bit 0: the first one's counters are tall; bit 1: the second's.
    tall: u8,
}

impl Pair {
    /// Takes the counters of both.
    pub(crate) fn lend(distributions: [&mut Distribution; 2]) -> (Self, Box<[u8]>) {
        let [one, other] = distributions.map(|distribution| &mut distribution.interval.cells);
        let counts = [&*one.counts, &*other.counts].concat().into_boxed_slice();
        let mut pair = Self {
            least_ns: [u32::MAX; 2],
            most_ns: [0; 2],
            first: [one.first, other.first],
            split: u8::try_from(one.counts.len() / GROUP).unwrap_or(0),
            tall: u8::from(one.is_tall) | u8::from(other.is_tall) << 1,
        };
        for (cells, (least, most)) in
            [one, other].into_iter().zip(pair.least_ns.iter_mut().zip(&mut pair.most_ns))
        {
            // A range that is too wide to be taken along stays.
            let narrow = |ns| u32::try_from(ns).ok();
            if let (Some(min), Some(max)) = (narrow(cells.min_ns), narrow(cells.max_ns)) {
                (*least, *most) = (min, max);
                *cells = Cells::default();
            }
            cells.counts = Box::default();
        }
        (pair, counts)
    }

    /// Gives the counters back, after so many values each.
    pub(crate) fn take_back(self, counts: &[u8], distributions: [&mut Distribution; 2], values: u64) {
        let halves: [&[u8]; 2] = self.halves(counts).into();
        let ranges = self.least_ns.into_iter().zip(self.most_ns);
        for (at, ((distribution, counts), (least, most))) in
            distributions.into_iter().zip(halves).zip(ranges).enumerate()
        {
            let cells = &mut distribution.interval.cells;
            cells.counts = counts.into();
            cells.is_tall = self.tall >> at & 1 != 0;
            cells.first = self.first.get(at).copied().unwrap_or(0);
            if least <= most {
                cells.min_ns = cells.min_ns.min(least.into());
                cells.max_ns = cells.max_ns.max(most.into());
            }
            distribution.interval.count += values;
        }
    }

    fn halves<'a>(&self, counts: &'a [u8]) -> (&'a [u8], &'a [u8]) {
        counts.split_at_checked(usize::from(self.split) * GROUP).unwrap_or_default()
    }

    /// The places of a value of each, if both have one whose counter is not full.
    #[inline]
    pub(crate) fn place(&self, counts: &[u8], values_ns: [u64; 2]) -> Option<[usize; 2]> {
        let ([a, b], [first_a, first_b]) = (values_ns, self.first);
        let (one, other) = self.halves(counts);
        let is_narrow = (a | b) >> u32::BITS == 0;
        let places =
            [place(one, first_a, self.tall & 1 != 0, a)?, place(other, first_b, self.tall & 2 != 0, b)?];
        is_narrow.then_some(places)
    }

    /// Counts a value of each, whose counters are there.
    #[inline]
    pub(crate) fn count(&mut self, counts: &mut [u8], places: [usize; 2], values_ns: [u64; 2]) {
        let Some((one, other)) = counts.split_at_mut_checked(usize::from(self.split) * GROUP) else { return };
        let [a, b] = places;
        count(one, self.tall & 1 != 0, a);
        count(other, self.tall & 2 != 0, b);
        for ((value, least), most) in values_ns.into_iter().zip(&mut self.least_ns).zip(&mut self.most_ns) {
            let value = u32::try_from(value).unwrap_or(u32::MAX);
            (*least, *most) = ((*least).min(value), (*most).max(value));
        }
    }

    /// What of the counters nearly every packet needs some of: their low octets.
    pub(crate) fn low<'a>(&self, counts: &'a [u8]) -> [&'a [u8]; 2] {
        let (one, other) = self.halves(counts);
        let low = |half: &'a [u8], bit| half.get(..span(half, self.tall & bit != 0)).unwrap_or_default();
        [low(one, 1), low(other, 2)]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        /// Lending, counting and taking back is recording.
        #[test]
        fn a_pair_counts_what_two_distributions_do(
            values in prop::collection::vec((0_u64..80_000_000, prop_oneof![0_u64..9_000, 0_u64..9_000_000_000]), 1..900),
        ) {
            let mut alone: [Distribution; 2] = Default::default();
            let [mut one, mut other] = alone.clone();
            let (mut pair, mut counts) = Pair::lend([&mut one, &mut other]);
            let mut lent = 0;
            for values in values.into_iter().map(<[u64; 2]>::from) {
                for (distribution, value) in alone.iter_mut().zip(values) {
                    distribution.record_ns(value);
                }
                if let Some(places) = pair.place(&counts, values) {
                    pair.count(&mut counts, places, values);
                    lent += 1;
                } else {
                    pair.take_back(&counts, [&mut one, &mut other], lent);
                    one.record_ns(values[0]);
                    other.record_ns(values[1]);
                    (pair, counts) = Pair::lend([&mut one, &mut other]);
                    lent = 0;
                }
            }
            pair.take_back(&counts, [&mut one, &mut other], lent);
            prop_assert_eq!([one, other].map(Distribution::into_life), alone.map(Distribution::into_life));
        }
    }
}

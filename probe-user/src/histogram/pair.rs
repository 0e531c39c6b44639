//! Two distributions that count with every packet, as a run has them: their counters in one piece of memory.
//!
//! ```text
//!   low octets of the one ─ of the other │ high octets of the one ─ of the other
//!   └────────── always ──────────────────┘ └───────── if one of the two needs them ┘
//! ```

use super::{Cells, Distribution, GROUP, bucket, carry, has_room};

/// Where in that memory which counters are, and the range of what was counted.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Pair {
    least_ns: [u32; 2],
    most_ns: [u32; 2],
    /// The first bucket of each that has a counter.
    first: [u8; 2],
    /// How many of each have one: 192 at most.
    span: [u8; 2],
}

impl Pair {
    /// Takes the counters of both.
    pub(crate) fn lend(distributions: [&mut Distribution; 2]) -> (Self, Box<[u8]>) {
        let mut cells = distributions.map(|distribution| &mut distribution.interval.cells);
        if cells.iter().any(|cells| cells.is_tall) {
            for cells in cells.iter_mut().filter(|cells| !cells.is_tall) {
                cells.lay_out(usize::from(cells.first), cells.span(), true);
            }
        }
        let [one, other] = cells;
        let spans = [one.span(), other.span()];
        let ((low, high), (other_low, other_high)) =
            (one.counts.split_at(spans[0]), other.counts.split_at(spans[1]));
        let counts = [low, other_low, high, other_high].concat().into_boxed_slice();
        let mut pair = Self {
            least_ns: [u32::MAX; 2],
            most_ns: [0; 2],
            first: [one.first, other.first],
            span: spans.map(|span| u8::try_from(span).unwrap_or(0)),
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
        let (low, high) = counts.split_at_checked(self.low_octets()).unwrap_or_default();
        let split = |octets: &'_ [u8]| {
            let (one, other) = octets.split_at_checked(usize::from(self.span[0])).unwrap_or_default();
            [one.to_vec(), other.to_vec()]
        };
        let halves = split(low).into_iter().zip(split(high));
        let ranges = self.least_ns.into_iter().zip(self.most_ns);
        for (((distribution, first), (low, high)), (least, most)) in
            distributions.into_iter().zip(self.first).zip(halves).zip(ranges)
        {
            let cells = &mut distribution.interval.cells;
            cells.is_tall = !high.is_empty();
            cells.counts = [low, high].concat().into_boxed_slice();
            cells.first = first;
            if least <= most {
                cells.min_ns = cells.min_ns.min(least.into());
                cells.max_ns = cells.max_ns.max(most.into());
            }
            distribution.count(values);
        }
    }

    /// Counts a value of each, if both have a counter that is not full. False, with nothing counted, if not.
    #[inline]
    pub(crate) fn record(&mut self, counts: &mut [u8], values_ns: [u32; 2]) -> bool {
        let [value, other_value] = values_ns;
        let ([first, other_first], [span, other_span]) = (self.first, self.span);
        let at = bucket(value / 1000).wrapping_sub(usize::from(first));
        let other_at = bucket(other_value / 1000).wrapping_sub(usize::from(other_first));
        let span = usize::from(span);
        if at >= span || other_at >= usize::from(other_span) {
            return false;
        }
        let other_at = span + other_at;
        let (Some(&count), Some(&other_count)) = (counts.get(at), counts.get(other_at)) else { return false };
        let is_full = count == u8::MAX || other_count == u8::MAX;
        if is_full && !self.carry(counts, [(at, count), (other_at, other_count)]) {
            return false;
        }
        if let Some(place) = counts.get_mut(at) {
            *place = count.wrapping_add(1);
        }
        if let Some(place) = counts.get_mut(other_at) {
            *place = other_count.wrapping_add(1);
        }
        let ([least, other_least], [most, other_most]) = (self.least_ns, self.most_ns);
        if value < least || value > most || other_value < other_least || other_value > other_most {
            self.widen(values_ns);
        }
        true
    }

    /// Makes counters for values that have none, as a distribution by itself would. False if all were there: then one is full.
    ///
    /// A stream's first packets need new ones every other time; the run would end, and the stream be joined, for each.
    #[cold]
    pub(crate) fn reach(&mut self, counts: &mut Box<[u8]>, values_ns: [u32; 2]) -> bool {
        let before = *self;
        for ((first, span), value) in self.first.iter_mut().zip(&mut self.span).zip(values_ns) {
            let group = bucket(value / 1000) / GROUP * GROUP;
            let (from, to) = (usize::from(*first), usize::from(*first) + usize::from(*span));
            let (from, to) =
                if *span == 0 { (group, group + GROUP) } else { (from.min(group), to.max(group + GROUP)) };
            let narrow = |buckets| u8::try_from(buckets).unwrap_or(0);
            (*first, *span) = (narrow(from), narrow(to - from));
        }
        if (self.first, self.span) == (before.first, before.span) {
            return false;
        }
        let (low, low_before) = (self.low_octets(), before.low_octets());
        let rows = if counts.len() > low_before { 2 } else { 1 };
        let mut wider = vec![0; rows * low].into_boxed_slice();
        for (to, from) in wider.chunks_mut(low).zip(counts.chunks(low_before.max(1))) {
            let [span, other_span] = self.span.map(usize::from);
            let halves = [(0, 0, span), (usize::from(before.span[0]), span, other_span)];
            for ((old, new, room), at) in halves.into_iter().zip(0..) {
                let (Some(first), Some(first_before)) = (self.first.get(at), before.first.get(at)) else {
                    continue;
                };
                let skipped = usize::from(first_before.saturating_sub(*first));
                let counted = before.span.get(at).copied().map_or(0, usize::from);
                let to = to.iter_mut().skip(new).take(room).skip(skipped);
                to.zip(from.iter().skip(old).take(counted)).for_each(|(to, from)| *to = *from);
            }
        }
        *counts = wider;
        true
    }

    /// Carries what is about to run over low octets. False, with nothing carried, if there is no room for it.
    #[cold]
    fn carry(&self, counts: &mut [u8], low: [(usize, u8); 2]) -> bool {
        let full = low.into_iter().filter(|(_, count)| *count == u8::MAX);
        let high = full.map(|(at, _)| self.low_octets() + at);
        if !high.clone().all(|high| has_room(counts, high)) {
            return false;
        }
        high.for_each(|high| carry(counts, high));
        true
    }

    /// Seldom: most values are neither the least nor the greatest of a stream so far.
    #[cold]
    fn widen(&mut self, values_ns: [u32; 2]) {
        for ((value, least), most) in values_ns.into_iter().zip(&mut self.least_ns).zip(&mut self.most_ns) {
            (*least, *most) = ((*least).min(value), (*most).max(value));
        }
    }

    #[inline]
    fn low_octets(&self) -> usize {
        let [one, other] = self.span;
        usize::from(one) + usize::from(other)
    }

    /// What of the counters nearly every packet needs some of: the low octets of both.
    #[inline]
    pub(crate) fn low<'a>(&self, counts: &'a [u8]) -> &'a [u8] {
        counts.get(..self.low_octets()).unwrap_or_default()
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
            values in prop::collection::vec(
                (
                    prop_oneof![Just(7_000_u32), 0_u32..80_000_000, any::<u32>()],
                    prop_oneof![0_u32..9_000, 0_u32..90_000_000, any::<u32>()],
                ),
                1..2_000,
            ),
            wide in prop::option::of(any::<u64>()),
            reaches in any::<bool>(),
        ) {
            let mut alone: [Distribution; 2] = Default::default();
            // A range that a pair does not take along.
            if let Some(ns) = wide {
                alone[1].record_ns(ns);
            }
            let [mut one, mut other] = alone.clone();
            let (mut pair, mut counts) = Pair::lend([&mut one, &mut other]);
            let mut lent = 0;
            for values in values.into_iter().map(<[u32; 2]>::from) {
                for (distribution, value) in alone.iter_mut().zip(values) {
                    distribution.record_ns(value.into());
                }
                if pair.record(&mut counts, values)
                    || reaches && pair.reach(&mut counts, values) && pair.record(&mut counts, values)
                {
                    lent += 1;
                } else {
                    pair.take_back(&counts, [&mut one, &mut other], lent);
                    one.record_ns(values[0].into());
                    other.record_ns(values[1].into());
                    (pair, counts) = Pair::lend([&mut one, &mut other]);
                    lent = 0;
                }
            }
            pair.take_back(&counts, [&mut one, &mut other], lent);
            prop_assert_eq!([one, other].map(Distribution::into_life), alone.map(Distribution::into_life));
        }
    }

    #[test]
    fn a_full_low_octet_carries_while_there_is_a_high_one() {
        let [mut one, mut other]: [Distribution; 2] = Default::default();
        for n in 0..300_u64 {
            one.record_ns(5_000);
            other.record_ns(n * 1_000);
        }
        let (mut pair, mut counts) = Pair::lend([&mut one, &mut other]);
        let mut taken = 0;
        while pair.record(&mut counts, [5_000, 0]) {
            taken += 1;
        }
        // The first has two octets, hence the second as well.
        assert_eq!(taken, 65_535 - 300);
        pair.take_back(&counts, [&mut one, &mut other], taken);
        let [one, other] = [one, other].map(Distribution::into_life);
        assert_eq!((one.count(), one.cells.get(5), other.cells.get(0)), (65_535, 65_535, 65_236));
    }
}

//! How long records waited to be taken, from their stamps: how many, and how long at most.
//!
//! The clock is read for 64 records at once, and not for every one. None of them had waited longer when it was taken than the
//! first had when the last one was, so each counts as that old: what this says is never too little.

use std::array;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::capture::clock;

/// Steps an octave: an age is told up to a quarter too high.
const STEPS_LOG2: u32 = 2;
const STEPS: usize = 1 << STEPS_LOG2;
/// Up to 2^40 ns, which are 18 minutes, and whatever is more.
const OCTAVES: usize = 40;
const BUCKETS: usize = OCTAVES * STEPS;

/// Records that count as old as the first of them.
const TOGETHER: u64 = 64;

/// Written by the reader, read by whoever reports.
#[derive(Debug)]
pub(super) struct Shared {
    counts: [AtomicU64; BUCKETS],
    longest_ns: AtomicU64,
}

/// The records of a round, as they are taken.
pub(crate) struct Taking<'a> {
    shared: &'a Shared,
    /// Of the first that is not counted yet.
    stamp_ns: u64,
    records: u64,
}

impl<'a> Taking<'a> {
    pub(super) fn new(shared: &'a Shared) -> Self {
        Self { shared, stamp_ns: 0, records: 0 }
    }

    /// A record with this stamp was taken. Stamps come in order.
    #[inline]
    pub(crate) fn taken(&mut self, stamp_ns: u64) {
        if self.records == 0 {
            self.stamp_ns = stamp_ns;
        }
        self.records += 1;
        if self.records == TOGETHER {
            self.count();
        }
    }

    fn count(&mut self) {
        self.shared.note(clock::monotonic_ns().saturating_sub(self.stamp_ns), self.records);
        self.records = 0;
    }
}

impl Drop for Taking<'_> {
    fn drop(&mut self) {
        if self.records > 0 {
            self.count();
        }
    }
}

/// What was counted in some time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ages {
    counts: [u64; BUCKETS],
    longest: Duration,
}

impl Shared {
    pub(super) fn new() -> Self {
        Self { counts: array::from_fn(|_| AtomicU64::new(0)), longest_ns: AtomicU64::new(0) }
    }

    /// So many records are no older than that.
    pub(super) fn note(&self, age_ns: u64, records: u64) {
        if let Some(count) = self.counts.get(bucket(age_ns)) {
            count.fetch_add(records, Ordering::Relaxed);
        }
        self.longest_ns.fetch_max(age_ns, Ordering::Relaxed);
    }

    /// What was counted since this was last called.
    pub(super) fn take(&self) -> Ages {
        Ages {
            counts: array::from_fn(|at| {
                self.counts.get(at).map_or(0, |count| count.swap(0, Ordering::Relaxed))
            }),
            longest: Duration::from_nanos(self.longest_ns.swap(0, Ordering::Relaxed)),
        }
    }
}

impl Ages {
    /// So many of a hundred records waited no longer. `None` if there were none.
    pub fn percentile(&self, percent: f64) -> Option<Duration> {
        let all: u64 = self.counts.iter().sum();
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a rank: 1..=all")]
        let rank = ((percent * all as f64 / 100.0).ceil() as u64).clamp(1, all.max(1));
        let mut seen = 0;
        let at = self.counts.iter().position(|count| {
            seen += count;
            seen >= rank
        })?;
        Some(Duration::from_nanos(highest(at)).min(self.longest))
    }

    /// No record waited longer.
    pub fn longest(&self) -> Duration {
        self.longest
    }
}

fn bucket(age_ns: u64) -> usize {
    let octave = age_ns.max(STEPS as u64).ilog2();
    let step = usize::try_from(age_ns.max(STEPS as u64) >> (octave - STEPS_LOG2)).unwrap_or(0) % STEPS;
    (octave as usize * STEPS + step).min(BUCKETS - 1)
}

/// The highest age of a bucket.
fn highest(bucket: usize) -> u64 {
    let (octave, step) = (bucket / STEPS, bucket % STEPS);
    if bucket == BUCKETS - 1 { u64::MAX } else { ((STEPS + step + 1) << octave >> STEPS_LOG2) as u64 - 1 }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_record_counts_as_old_as_the_first_of_those_it_is_counted_with() {
        let shared = Shared::new();
        let started_ns = clock::monotonic_ns();
        let mut taking = Taking::new(&shared);
        // Of 74 records the first 64 are two seconds old, and ten one.
        for number in 0..TOGETHER + 10 {
            taking.taken(started_ns - if number < TOGETHER { 2_000_000_000 } else { 1_000_000_000 });
        }
        drop(taking);
        drop(Taking::new(&shared));
        let ages = shared.take();
        let seconds = |percent| ages.percentile(percent).unwrap().as_secs_f64();
        assert!((1.0..1.3).contains(&seconds(10.0 / 74.0 * 100.0)), "{ages:?}");
        assert!((2.0..2.6).contains(&seconds(11.0 / 74.0 * 100.0)), "{ages:?}");
    }

    #[test]
    fn ages_are_told_by_how_many_records_have_them() {
        let shared = Shared::new();
        assert_eq!(shared.take().percentile(50.0), None);
        // Of ten thousand, one in a hundred waits two milliseconds, and one round longer than any should.
        for (age_us, records) in [(500, 9_890), (2_000, 100), (70_000, 10)] {
            shared.note(age_us * 1_000, records);
        }
        let ages = shared.take();
        let us = |percent| ages.percentile(percent).unwrap().as_micros();
        assert!(
            (500..625).contains(&us(50.0)) && (2_000..2_500).contains(&us(99.0)),
            "{} {}",
            us(50.0),
            us(99.0)
        );
        assert!((2_000..2_500).contains(&us(99.9)));
        assert_eq!((us(99.95), ages.longest()), (70_000, Duration::from_millis(70)));
        assert_eq!((shared.take().percentile(99.0), shared.take().longest()), (None, Duration::ZERO));
    }

    proptest! {
        #[test]
        fn an_age_is_told_at_most_a_quarter_too_high(octave in 0_u32..64, bits in any::<u64>()) {
            let age_ns = bits >> octave;
            let shared = Shared::new();
            shared.note(age_ns, 1);
            // So that the bucket's end is told, and not this record's age.
            shared.longest_ns.store(u64::MAX, Ordering::Relaxed);
            let told = shared.take().percentile(100.0).unwrap().as_nanos();
            let (least, most) = (u128::from(age_ns), u128::from(age_ns) * 5 / 4 + 4);
            prop_assert!(told >= least && (told <= most || age_ns >= 1 << (OCTAVES - 1)), "{age_ns}: {told}");
        }
    }
}

//! When rounds are due: an interval is one, or with many streams several, spread over it.
//!
//! ```text
//!   interval  |────────── 1 ──────────|────────── 2 ──────────|       few streams: all are closed at its end
//!             ╵                       1                       1
//!   interval  |────────── 1 ──────────|────────── 2 ──────────|       many: a part of them at a time. Each is closed
//!                                     1  2  3  4  5  6  7  8  1  …    once an interval, always at the same time of it
//! ```
//!
//! Intervals do not overlap: the next one begins when all rounds of the last are through, late if need be, and is no shorter
//! for it. Parts get smaller when streams get more, and never larger again, so that a stream's interval is as long
//! as another, but for the few in which that happens.

use std::time::Duration;

use super::wheel::{Part, SPOKES};
use crate::packet::Nanos;

/// Streams of a part, at most and about. To close so many takes up to 11 ms on a busy machine, less than half of what the
/// default ring holds at 10 Gb/s of G.711; `voxlab core-cost --interval` measures.
const PART: usize = 2_048;

/// See the module.
#[derive(Debug)]
pub(super) struct Rounds {
    length_ns: u64,
    /// When the first round of the running interval is due.
    begins: Nanos,
    next: u16,
    parts: u16,
}

impl Rounds {
    /// The first interval begins now, so its rounds are due when it has passed.
    pub(super) fn new(now: Nanos, length: Duration) -> Self {
        let length_ns = u64::try_from(length.as_nanos()).unwrap_or(u64::MAX);
        Self { length_ns, begins: Nanos(now.0.saturating_add(length_ns)), next: 0, parts: 1 }
    }

    /// The part whose round is due, if one is. With so many streams now.
    pub(super) fn due(&mut self, now: Nanos, streams: usize) -> Option<Part> {
        let shift = self.length_ns / u64::from(self.parts) * u64::from(self.next);
        if now.0 < self.begins.0.saturating_add(shift) {
            return None;
        }
        if self.next == 0 {
            self.parts = self.parts.max(parts(streams));
        }
        let part = Part { index: self.next, of: self.parts };
        self.next += 1;
        if part.is_last() {
            self.next = 0;
            self.begins = Nanos(self.begins.0.saturating_add(self.length_ns).max(now.0));
        }
        Some(part)
    }
}

/// In how many parts so many streams are looked at.
fn parts(streams: usize) -> u16 {
    let parts = streams.div_ceil(PART).clamp(1, SPOKES).next_power_of_two();
    u16::try_from(parts).unwrap_or(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u64 = 1_000_000_000;

    fn rounds() -> Rounds {
        Rounds::new(Nanos(0), Duration::from_secs(8))
    }

    /// What is due at each of these seconds, one a look.
    fn due(
        rounds: &mut Rounds,
        seconds: impl IntoIterator<Item = u64>,
        streams: usize,
    ) -> Vec<(u64, u16, u16)> {
        let due =
            |second| rounds.due(Nanos(second * SECOND), streams).map(|part| (second, part.index, part.of));
        seconds.into_iter().filter_map(due).collect()
    }

    #[test]
    fn few_streams_have_one_round_an_interval() {
        assert_eq!(due(&mut rounds(), 0..=24, PART), [(8, 0, 1), (16, 0, 1), (24, 0, 1)]);
    }

    #[test]
    fn many_are_spread_over_it() {
        let spread = [(8, 0, 4), (10, 1, 4), (12, 2, 4), (14, 3, 4), (16, 0, 4)];
        assert_eq!(due(&mut rounds(), 0..=17, 3 * PART), spread);
    }

    #[test]
    fn parts_change_between_intervals_only_and_never_grow_again() {
        let mut rounds = rounds();
        assert_eq!(due(&mut rounds, 0..=11, 2 * PART), [(8, 0, 2)]);
        assert_eq!(due(&mut rounds, 12..=17, 4 * PART), [(12, 1, 2), (16, 0, 4)]);
        assert_eq!(due(&mut rounds, 18..=24, 1), [(18, 1, 4), (20, 2, 4), (22, 3, 4), (24, 0, 4)]);
    }

    #[test]
    fn a_thread_that_was_late_catches_up_one_round_a_look_and_intervals_do_not_overlap() {
        let mut rounds = rounds();
        assert_eq!(due(&mut rounds, 0..=8, 2 * PART), [(8, 0, 2)]);
        // Its second round was due at 12, and it comes 9 s late: the next interval begins then, not at 16.
        assert_eq!(due(&mut rounds, [21, 21, 21], 1), [(21, 1, 2), (21, 0, 2)]);
        assert_eq!(due(&mut rounds, [24, 25, 28, 29], 1), [(25, 1, 2), (29, 0, 2)]);
    }

    #[test]
    fn a_spoke_is_the_smallest_part() {
        assert_eq!(usize::from(parts(usize::MAX)), SPOKES);
        assert_eq!([parts(0), parts(PART), parts(PART + 1)], [1, 1, 2]);
    }
}

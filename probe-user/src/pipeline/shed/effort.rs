//! What the sessions that are kept cost the receive thread.
//!
//! ```text
//!   time that it worked
//!   ────────────────────────────────────────── = its share that is asked for: above 1 the rings fill
//!   time in which came what it took meanwhile
//! ```
//!
//! A thread that keeps up takes a second's records in a second, and rests in between; one that does not works all the time and
//! takes less. The stamps of the records tell, whatever the records and the rings are like. What lies in a ring came before
//! the level changed last, and is counted as part of what was kept then.

use std::collections::VecDeque;

use crate::packet::Nanos;

/// How long what was measured counts: a stream's cost falls within its first second, and a pause of the thread is over after some
/// milliseconds.
const MEMORY_NS: f64 = 50e6;

/// See the module.
#[derive(Clone, Debug, Default)]
pub(super) struct Effort {
    /// Time that it worked, of late, for each bucket of sessions that was kept.
    worked_ns: f64,
    /// Time in which came what it took.
    came_ns: f64,
    /// Of changes of the level that the thread has not reached: when, and how many buckets were kept until then.
    ahead: VecDeque<(Nanos, u32)>,
}

impl Effort {
    /// The thread worked so long of `elapsed_ns`, got from one stamp to another, and `kept` buckets are kept now.
    pub(super) fn note(
        &mut self,
        kept: u32,
        (worked_ns, elapsed_ns): (i64, i64),
        (from, to): (Nanos, Nanos),
    ) {
        while self.ahead.front().is_some_and(|(changed, _)| *changed <= from) {
            self.ahead.pop_front();
        }
        let kept = self.ahead.front().map_or(kept, |(_, kept)| *kept).max(1);
        let weight = MEMORY_NS / (MEMORY_NS + elapsed_ns.max(0) as f64);
        self.worked_ns = self.worked_ns * weight + worked_ns.max(0) as f64 / f64::from(kept);
        self.came_ns = self.came_ns * weight + to.since(from).max(0) as f64;
    }

    /// So many buckets were kept until now.
    pub(super) fn changed(&mut self, now: Nanos, kept: u32) {
        self.ahead.push_back((now, kept));
    }

    /// How many buckets ask for so much of the thread.
    pub(super) fn buckets_for(&self, share: f64) -> f64 {
        share * self.came_ns / self.worked_ns.max(1.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: i64 = 1_000_000;

    fn at(ms: u64) -> Nanos {
        Nanos(ms * 1_000_000)
    }

    #[test]
    fn a_thread_that_rests_half_of_the_time_can_take_twice_as_much() {
        let mut effort = Effort::default();
        for look in 1..100 {
            effort.note(100, (5 * MS, 10 * MS), (at(look * 10), at(look * 10 + 10)));
        }
        assert!((effort.buckets_for(1.0) - 200.0).abs() < 1e-6, "{effort:?}");
    }

    #[test]
    fn one_that_falls_behind_can_take_the_part_that_it_took() {
        let mut effort = Effort::default();
        for look in 1..100 {
            effort.note(200, (10 * MS, 10 * MS), (at(look * 4), at(look * 4 + 4)));
        }
        assert!((effort.buckets_for(1.0) - 80.0).abs() < 1e-6, "{effort:?}");
    }

    #[test]
    fn what_came_before_a_change_is_part_of_what_was_kept_then() {
        let mut effort = Effort::default();
        // Half of what 200 buckets send, and from 200 ms on, when it is 100 ms behind, half of the buckets.
        let (mut came, mut took) = (0, 5);
        for look in 0..60 {
            if look == 20 {
                effort.changed(at(200), 200);
            }
            took = if came < 200 { took } else { 10 };
            effort.note(if look < 20 { 200 } else { 100 }, (10 * MS, 10 * MS), (at(came), at(came + took)));
            assert!((effort.buckets_for(1.0) - 100.0).abs() < 1e-6, "{came}: {effort:?}");
            came += took;
        }
        assert!(effort.ahead.is_empty());
    }
}

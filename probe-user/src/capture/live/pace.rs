//! How long the receive thread sleeps when the rings were nearly empty.
//!
//! A sleep costs the same 5 to 25 microseconds however long it is, so the longest one that keeps the promise is the
//! cheapest: less than a millisecond from a packet's stamp to its analysis while packets come. When none comes there is
//! nothing to be late for, and sleeps get longer.

use std::time::Duration;

/// A nap while records come. With the wake-up after it, and the round that another ring's record waited for, a record is
/// less than a millisecond old when it is taken. At 5 Mpps, 10 Gb/s of G.711, 4,000 records gather, a thirtieth of
/// the default ring.
const BUSY: Duration = Duration::from_micros(800);
/// Rounds in a row that took nothing, after which naps double.
const PATIENCE: u32 = 16;
/// How often naps double: up to 6.4 ms.
const DOUBLINGS: u32 = 3;

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Pace {
    /// Rounds in a row that took nothing.
    quiet: u32,
}

impl Pace {
    /// How long to sleep after a round that took so many records.
    pub(super) fn nap(&mut self, taken: usize) -> Duration {
        self.quiet = if taken == 0 { self.quiet.saturating_add(1) } else { 0 };
        BUSY * (1 << (self.quiet / PATIENCE).min(DOUBLINGS))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn naps_are_short_while_records_come_however_few() {
        let mut pace = Pace::default();
        for taken in [1, 4_095, 0, 0, 1, 7] {
            assert_eq!(pace.nap(taken), BUSY, "after {taken}");
        }
        assert!(BUSY < Duration::from_millis(1));
    }

    #[test]
    fn naps_get_longer_in_silence_up_to_a_bound_and_short_again_with_the_first_record() {
        let mut pace = Pace::default();
        let naps: Vec<_> = (0..1_000).map(|_| pace.nap(0)).collect();
        assert!(naps.is_sorted());
        assert_eq!((naps[0], naps[999]), (BUSY, BUSY * 8));
        // 156 naps a second, at 25 microseconds each, are 0.4 % of a core.
        let slept: Duration = naps.iter().sum();
        assert!(slept > Duration::from_secs(6), "{slept:?}");
        assert_eq!(pace.nap(1), BUSY);
    }
}

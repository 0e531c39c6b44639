//! Packet delay variation: how much longer than the quickest a packet took.
//!
//! RFC 5481 calls it PDV, and takes the least delay of the whole interval as its reference. A probe that runs for days
//! has none; here the reference is the quickest packet of the last 4 to 8 s. That follows a route that changes, and
//! clocks that drift: what is known of the drift so far is taken out of the reference as it ages.

use crate::packet::Nanos;

/// Half of what the reference remembers.
const BLOCK_NS: i64 = 4_000_000_000;

/// See the module.
#[derive(Clone, Copy, Debug)]
pub struct DelayReference {
    began: Nanos,
    current: Quickest,
    previous: Quickest,
}

impl Default for DelayReference {
    fn default() -> Self {
        Self { began: Nanos::default(), current: Quickest::NONE, previous: Quickest::NONE }
    }
}

/// The quickest packet of a block.
#[derive(Clone, Copy, Debug)]
struct Quickest {
    at: Nanos,
    transit_ns: f64,
}

impl Quickest {
    /// Any packet is quicker.
    const NONE: Self = Self { at: Nanos(0), transit_ns: f64::INFINITY };

    /// What it would take at `at`, if the clocks part by `slope`.
    fn by(&self, at: Nanos, slope: f64) -> f64 {
        self.transit_ns + slope * at.since(self.at) as f64
    }
}

impl DelayReference {
    /// The delay variation of a packet in nanoseconds, never negative. `slope` is that of the transit by drift.
    pub fn observe(&mut self, at: Nanos, transit_ns: f64, slope: f64, begins: bool) -> f64 {
        if begins {
            let own = Quickest { at, transit_ns };
            *self = Self { began: at, current: own, previous: Quickest::NONE };
            return 0.0;
        }
        if self.is_over(at) {
            self.turn(at, transit_ns);
        }
        let (variation_ns, is_quickest) = self.variation(at, transit_ns, slope);
        if is_quickest {
            self.quickest(at, transit_ns);
        }
        variation_ns
    }

    /// Does what comes at `at` begin another block?
    #[inline]
    pub(super) fn is_over(&self, at: Nanos) -> bool {
        at.since(self.began) >= BLOCK_NS
    }

    /// Begins another block with a packet. To do it once more with the same packet changes nothing.
    #[cold]
    pub(super) fn turn(&mut self, at: Nanos, transit_ns: f64) {
        if self.is_over(at) {
            // Nothing of a block that came before a silence is a reference any more.
            let is_next = at.since(self.began) < 2 * BLOCK_NS;
            self.previous = if is_next { self.current } else { Quickest::NONE };
            (self.began, self.current) = (at, Quickest { at, transit_ns });
        }
    }

    /// The delay variation of a packet in this block, and whether it is the quickest of it.
    #[inline]
    pub(super) fn variation(&self, at: Nanos, transit_ns: f64, slope: f64) -> (f64, bool) {
        let (current, previous) = (self.current.by(at, slope), self.previous.by(at, slope));
        let reference = if previous < current { previous } else { current };
        let over = transit_ns - reference;
        (if over > 0.0 { over } else { 0.0 }, transit_ns <= current)
    }

    /// A packet is the quickest of this block.
    #[inline]
    pub(super) fn quickest(&mut self, at: Nanos, transit_ns: f64) {
        self.current = Quickest { at, transit_ns };
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Of packets every 20 ms with these transits in milliseconds.
    fn variation(transits_ms: &[f64], slope: f64) -> Vec<f64> {
        let mut reference = DelayReference::default();
        (0_u64..)
            .zip(transits_ms)
            .map(|(n, ms)| reference.observe(Nanos(n * 20_000_000), ms * 1e6, slope, n == 0) / 1e6)
            .collect()
    }

    #[test]
    fn delay_counts_from_the_quickest_so_far() {
        assert_eq!(variation(&[0.0, 5.0, -3.0, 0.0, 40.0], 0.0), [0.0, 5.0, 0.0, 3.0, 43.0]);
    }

    #[test]
    fn a_longer_route_is_forgotten_after_eight_seconds() {
        let transits: Vec<_> = (0..1_000).map(|n| if n < 100 { 0.0 } else { 30.0 }).collect();
        let got = variation(&transits, 0.0);
        assert_eq!((got[150], got[999]), (30.0, 0.0));
    }

    #[test]
    fn drift_that_is_known_is_no_delay() {
        // A sender 500 ppm slow: 10 us more with each packet.
        let transits: Vec<_> = (0..1_000).map(|n| f64::from(n) * 0.01).collect();
        let worst = |slope| variation(&transits, slope).into_iter().fold(0.0, f64::max);
        assert!(worst(500e-6) < 1e-6 && worst(0.0) > 1.0);
    }

    proptest! {
        /// A run begins a block, and the whole stream may do so again with the same packet: that changes nothing.
        #[test]
        fn beginning_a_block_beforehand_changes_nothing(
            packets in prop::collection::vec((0_u64..9_000, -50_i32..50), 1..60),
            slope in prop_oneof![Just(0.0), -1e-4..1e-4],
        ) {
            let [mut at_once, mut twice] = [DelayReference::default(); 2];
            let mut at = Nanos(1_000_000_000);
            for (n, (ms, late_ms)) in packets.into_iter().enumerate() {
                at.0 += ms * 1_000_000;
                let transit_ns = f64::from(late_ms) * 1e6;
                if n > 0 && twice.is_over(at) {
                    twice.turn(at, transit_ns);
                }
                let variations = [&mut at_once, &mut twice].map(|reference| {
                    reference.observe(at, transit_ns, slope, n == 0).to_bits()
                });
                prop_assert_eq!(variations[0], variations[1]);
                prop_assert_eq!(format!("{at_once:?}"), format!("{twice:?}"));
            }
        }
    }
}

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
        let own = Quickest { at, transit_ns };
        if begins {
            *self = Self { began: at, current: own, previous: Quickest::NONE };
            return 0.0;
        }
        if at.since(self.began) >= BLOCK_NS {
            // Nothing of a block that came before a silence is a reference any more.
            let is_next = at.since(self.began) < 2 * BLOCK_NS;
            self.previous = if is_next { self.current } else { Quickest::NONE };
            (self.began, self.current) = (at, own);
        }
        let current = self.current.by(at, slope);
        if transit_ns <= current {
            self.current = own;
        }
        let reference = current.min(self.previous.by(at, slope));
        (transit_ns - reference).max(0.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
}

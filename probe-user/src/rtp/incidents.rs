//! Moments of a stream that are told beside the signalling: jitter spikes, and markers at which the sender's time line
//! began anew, as it does when another source takes over.
//!
//! ```text
//!   delay over the quickest packet     ▁▁▁▂▁▁█▇▅▃▁▁▁▁▁▁▃▇▂▁▁
//!   spikes (60 ms or more)                   └─┘      └┘        one ends after half a second without a late packet
//! ```
//!
//! A queue fills packet by packet, and what it held up comes bunched together when it drains. A sender that pauses without counting
//! it, or a way that becomes longer, makes all packets late by as much, from one to the next, and then they keep their distance: such a
//! spike is a step. Which of the two it was, one stream does not tell.
//!
//! A stream without either, which is nearly every one, has none of this.

use crate::packet::Nanos;

/// Delay over the quickest packet that makes a spike: what a usual de-jitter buffer holds.
pub const SPIKE_NS: f64 = 60e6;
/// Late packets closer together than this are one spike.
const APART_NS: i64 = 500_000_000;
/// How long packets have to stay late to be a step, and how near to each other: a packet is 60 ms at most.
const STAYS_NS: i64 = 1_000_000_000;
const STEADY_NS: i64 = 60_000_000;
/// What of the delay has to come at once, and to stay.
const AT_ONCE: f64 = 0.75;
/// Incidents of each kind that are kept: of spikes the worst, of markers the first. All are counted.
const KEPT: usize = 8;

/// A run of late packets.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Spike {
    /// The first of them.
    pub at: Nanos,
    /// Its frame.
    pub packet: u64,
    /// The last of them.
    pub until: Nanos,
    /// Delay of the latest over the quickest packet, in milliseconds.
    pub worst_ms: f64,
    /// How many packets were late.
    pub packets: u64,
    /// The delay of the first, if it came at once, and has not sunk since.
    stands_ms: Option<f64>,
}

impl Spike {
    /// Was it no delay that came and went, but one that came from one packet to the next and stayed?
    pub fn is_step(&self) -> bool {
        let lasted_ns = self.until.since(self.at);
        let is_steady = i64::try_from(self.packets).is_ok_and(|packets| lasted_ns <= packets * STEADY_NS);
        self.stands_ms.is_some() && lasted_ns >= STAYS_NS && is_steady
    }
}

/// A marker from which on timestamps stand otherwise to time than before.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct MarkerRestart {
    /// When.
    pub at: Nanos,
    /// Its frame.
    pub packet: u64,
    /// By how much timestamp and time parted company, in seconds; negative if the timestamp fell behind.
    pub jump_s: f64,
}

/// See the module.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Incidents {
    /// The last one may still grow.
    spikes: Vec<Spike>,
    spike_count: u64,
    restarts: Vec<MarkerRestart>,
    restart_count: u64,
}

impl Incidents {
    /// A packet that was late by [`SPIKE_NS`] or more; `rise_ns` later than the one before it.
    pub fn late(&mut self, at: Nanos, packet: u64, variation_ns: f64, rise_ns: f64) {
        let late_ms = variation_ns / 1e6;
        if let Some(last) = self.spikes.last_mut().filter(|last| at.since(last.until) <= APART_NS) {
            last.until = last.until.max(at);
            last.worst_ms = last.worst_ms.max(late_ms);
            last.packets += 1;
            last.stands_ms = last.stands_ms.filter(|first| late_ms >= AT_ONCE * first);
            return;
        }
        self.spike_count += 1;
        if self.spikes.len() > KEPT {
            self.forget_the_least();
        }
        let stands_ms = (rise_ns >= AT_ONCE * variation_ns).then_some(late_ms);
        self.spikes.push(Spike { at, packet, until: at, worst_ms: late_ms, packets: 1, stands_ms });
    }

    /// A marker restart.
    pub fn restarted(&mut self, restart: MarkerRestart) {
        self.restart_count += 1;
        if self.restarts.len() < KEPT {
            self.restarts.push(restart);
        }
    }

    /// The worst spikes in order of time, and how many there were.
    pub fn spikes(mut self) -> (Vec<Spike>, u64) {
        if self.spikes.len() > KEPT {
            self.forget_the_least();
        }
        (self.spikes, self.spike_count)
    }

    /// The first marker restarts, and how many there were.
    pub fn restarts(&self) -> (&[MarkerRestart], u64) {
        (&self.restarts, self.restart_count)
    }

    fn forget_the_least(&mut self) {
        let least = self.spikes.iter().enumerate().min_by(|(_, a), (_, b)| a.worst_ms.total_cmp(&b.worst_ms));
        if let Some((at, _)) = least {
            self.spikes.remove(at);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ms(ms: u64) -> Nanos {
        Nanos(ms * 1_000_000)
    }

    #[test]
    fn late_packets_close_together_are_one_spike_and_the_worst_are_kept() {
        let mut incidents = Incidents::default();
        for (spike, worst) in
            (0_u64..).zip([90.0, 70.0, 300.0, 80.0, 65.0, 100.0, 120.0, 61.0, 200.0, 75.0, 66.0])
        {
            let at = spike * 2_000;
            incidents.late(ms(at), spike, 61e6, 30e6);
            incidents.late(ms(at + 400), 1_000, worst * 1e6, 0.0);
            incidents.late(ms(at + 800), 1_000, 62e6, 0.0);
        }
        let (spikes, count) = incidents.spikes();
        assert_eq!((spikes.len(), count), (KEPT, 11));
        let (at, until) = (ms(4_000), ms(4_800));
        let third = Spike { at, packet: 2, until, worst_ms: 300.0, packets: 3, stands_ms: None };
        assert_eq!(spikes[2], third);
        let kept: Vec<_> = spikes.iter().map(|spike| spike.worst_ms.round()).collect();
        assert_eq!(kept, [90.0, 70.0, 300.0, 80.0, 100.0, 120.0, 200.0, 75.0]);
    }

    #[test]
    fn the_first_marker_restarts_are_kept_and_all_are_counted() {
        let mut incidents = Incidents::default();
        (0..20).for_each(|n| incidents.restarted(MarkerRestart { at: ms(n), packet: n, jump_s: 1.5 }));
        let (kept, count) = incidents.restarts();
        assert_eq!((kept.len(), kept[0].packet, count), (KEPT, 0, 20));
    }
}

//! What the times of the frames say of the capture itself: where they step back, and where nothing at all was captured.
//!
//! A capture's times run on, but for queues that overtake each other by microseconds. They step back where files were joined
//! in the wrong order or a clock was set, and then nothing that is measured across the step is true. Long silences are
//! remembered because a stream that is silent meanwhile, and no longer, was not interrupted by the network.

use serde::Serialize;

use crate::packet::Nanos;

/// So much before the frame before it is no disorder of queues any more.
const STEP_BACK_NS: i64 = 1_000_000_000;
/// So long without any frame is remembered. Where there is any traffic, something is sent every few seconds.
const SILENCE_NS: i64 = SILENCE.cast_signed();
const SILENCE: u64 = 30_000_000_000;
/// Silences remembered, the longest.
const MAX_SILENCES: usize = 16;
/// Steps back whose frames are told.
const MAX_EXAMPLES: usize = 4;

/// The times of frames, one after the other.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct FrameTimes {
    /// How often a frame's time is more than a second before that of the frame before it.
    pub steps_back: u64,
    /// By how much at most, in seconds.
    pub furthest_back_s: f64,
    /// The frames after the first few steps.
    #[serde(skip)]
    pub stepped_at: Vec<u64>,
    /// Times without a frame of any kind, of 30 s and more: the 16 longest, the longest first.
    pub silences: Vec<Silence>,
    #[serde(skip)]
    latest: Option<Latest>,
}

/// Nothing at all was captured from the one frame to the other.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Silence {
    /// The last frame before it.
    #[serde(skip)]
    pub from: Nanos,
    /// The first after it.
    #[serde(skip)]
    pub until: Nanos,
    /// Number of that one.
    pub packet: u64,
    /// How long it was.
    pub silence_s: f64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Latest {
    /// Of the frame that came last.
    time: Nanos,
    /// Of all.
    highest: Nanos,
}

impl FrameTimes {
    /// Takes the next frame's time.
    #[inline]
    pub fn observe(&mut self, time: Nanos, packet: u64) {
        match &mut self.latest {
            // In order, as nearly all are: neither a step back nor a silence.
            Some(Latest { time: before, highest })
                if before == highest && time >= *before && time.0 - before.0 < SILENCE =>
            {
                (*before, *highest) = (time, time);
            }
            _ => self.observe_any(time, packet),
        }
    }

    /// The latest of all.
    pub(super) fn latest(&self) -> Option<Nanos> {
        self.latest.map(|latest| latest.highest)
    }

    fn observe_any(&mut self, time: Nanos, packet: u64) {
        let Some(latest) = &mut self.latest else {
            self.latest = Some(Latest { time, highest: time });
            return;
        };
        let before = *latest;
        *latest = Latest { time, highest: before.highest.max(time) };
        if before.time.since(time) > STEP_BACK_NS {
            self.note_step(before.time.since(time), packet);
        }
        if time.since(before.highest) >= SILENCE_NS {
            self.note_silence(before.highest, time, packet);
        }
    }

    /// Takes what comes next: the times of `first` and of the frames after it, which are numbered after `before`.
    pub(super) fn add(&mut self, first: Option<Nanos>, next: &Self, before: u64) {
        let (Some(first), Some(latest)) = (first, next.latest) else { return };
        let highest = self.latest.map(|latest| latest.highest);
        self.observe(first, before + 1);
        self.steps_back += next.steps_back;
        self.furthest_back_s = self.furthest_back_s.max(next.furthest_back_s);
        let room = MAX_EXAMPLES.saturating_sub(self.stepped_at.len());
        self.stepped_at.extend(next.stepped_at.iter().take(room).map(|packet| before + packet));
        for silence in &next.silences {
            let from = highest.map_or(silence.from, |highest| highest.max(silence.from));
            if silence.until.since(from) >= SILENCE_NS {
                self.note_silence(from, silence.until, before + silence.packet);
            }
        }
        let highest = highest.map_or(latest.highest, |highest| highest.max(latest.highest));
        self.latest = Some(Latest { time: latest.time, highest });
    }

    #[cold]
    fn note_step(&mut self, back_ns: i64, packet: u64) {
        self.steps_back += 1;
        self.furthest_back_s = self.furthest_back_s.max(back_ns as f64 / 1e9);
        if self.stepped_at.len() < MAX_EXAMPLES {
            self.stepped_at.push(packet);
        }
    }

    #[cold]
    fn note_silence(&mut self, from: Nanos, until: Nanos, packet: u64) {
        let silence_s = until.since(from) as f64 / 1e9;
        let at = self.silences.partition_point(|known| known.silence_s >= silence_s);
        self.silences.insert(at, Silence { from, until, packet, silence_s });
        self.silences.truncate(MAX_SILENCES);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn of(times_s: &[u64]) -> FrameTimes {
        let mut times = FrameTimes::default();
        for (time, packet) in times_s.iter().zip(1..) {
            times.observe(Nanos(time * 1_000_000_000), packet);
        }
        times
    }

    fn silences(times: &FrameTimes) -> Vec<(f64, u64)> {
        times.silences.iter().map(|silence| (silence.silence_s, silence.packet)).collect()
    }

    #[test]
    fn times_that_run_back_are_told_by_the_step() {
        let times = of(&[100, 101, 100, 99, 40, 41, 102, 5]);
        assert_eq!((times.steps_back, times.furthest_back_s), (2, 97.0));
        assert_eq!(times.stepped_at, [5, 8]);
        assert!(times.silences.is_empty(), "from 41 to 102 nothing is missing: {times:?}");
        assert_eq!(of(&[5, 6, 7, 6, 8]).steps_back, 0);
    }

    #[test]
    fn a_silence_is_one_of_all_frames() {
        assert_eq!(silences(&of(&[0, 29, 60, 61, 200, 230])), [(139.0, 5), (31.0, 3), (30.0, 6)]);
        let many: Vec<u64> = (0..100).map(|n| n * n * 31).collect();
        assert_eq!(silences(&of(&many)).len(), MAX_SILENCES);
        assert_eq!(silences(&of(&many))[0], (f64::from((99 * 99 - 98 * 98) * 31), 100));
    }

    proptest! {
        /// Read in parts, as files and stretches are, it is the same.
        #[test]
        fn parts_add_up_to_the_whole(
            times in proptest::collection::vec(0..200_u64, 0..16),
            cuts in proptest::collection::vec(0..16_usize, 0..3),
        ) {
            let mut cuts: Vec<_> = cuts.into_iter().map(|cut| cut.min(times.len())).collect();
            cuts.extend([0, times.len()]);
            cuts.sort_unstable();
            let mut sum = FrameTimes::default();
            for part in cuts.windows(2) {
                let part_s = &times[part[0]..part[1]];
                let first = part_s.first().map(|s| Nanos(s * 1_000_000_000));
                sum.add(first, &of(part_s), part[0] as u64);
            }
            prop_assert_eq!(sum, of(&times));
        }
    }
}

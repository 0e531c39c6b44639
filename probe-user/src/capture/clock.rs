//! From the kernel's clock to wall time.
//!
//! Records carry CLOCK_MONOTONIC, which never steps; people want the time of day, which does. Analysis uses
//! the former only. For display one offset is measured at the start and again each second: the real-time clock
//! is read between two readings of the monotonic one, several times, and the tightest bracket wins, so that a
//! preemption in between cannot shift it.
//!
//! A small difference to the last offset is slewed over the next second, so that displayed times keep their
//! order. A large one is a step of the wall clock: it is followed at once, and reported.

use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};

use crate::packet::Nanos;

/// CLOCK_MONOTONIC, the clock of `bpf_ktime_get_ns`.
pub fn monotonic_ns() -> u64 {
    nanoseconds(ClockId::Monotonic).cast_unsigned()
}

/// Nanoseconds since 1970, UTC.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct WallNanos(pub i64);

/// Both clocks at one moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reading {
    /// Kernel's monotonic clock.
    pub monotonic: Nanos,
    /// Wall clock.
    pub wall: WallNanos,
}

impl Reading {
    /// Reads both clocks, as close together as `ATTEMPTS` tries can get them.
    pub fn take() -> Self {
        const ATTEMPTS: usize = 8;
        let attempt = |_| {
            let before = monotonic_ns();
            let wall = nanoseconds(ClockId::Realtime);
            let width = monotonic_ns() - before;
            (width, Self { monotonic: Nanos(before + width / 2), wall: WallNanos(wall) })
        };
        let (first_width, first) = attempt(0);
        let tighter = |best: (u64, Self), next: (u64, Self)| if next.0 < best.0 { next } else { best };
        (1..ATTEMPTS).map(attempt).fold((first_width, first), tighter).1
    }

    fn offset_ns(&self) -> i64 {
        self.wall.0.wrapping_sub(self.monotonic.0.cast_signed())
    }
}

/// Maps a source's time to wall time.
#[derive(Clone, Debug)]
pub struct WallClock {
    /// Wall minus source time at `since`.
    offset_ns: i64,
    since: Nanos,
    /// What is to be added to the offset during the second after `since`.
    slew_ns: i64,
}

/// The wall clock was set: by how much it moved.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WallStep {
    /// Positive if it was set forward.
    pub by_ns: i64,
}

impl WallClock {
    /// Differences beyond this are steps, those below are slewed: a hundred times what a preempted reading is
    /// off by, and less than the 128 ms below which time daemons do not step.
    pub const STEP: Duration = Duration::from_millis(10);
    /// The time between two readings, and that over which a difference is slewed.
    pub const INTERVAL: Duration = Duration::from_secs(1);

    /// For capture files, whose times are wall times.
    pub const IDENTITY: Self = Self { offset_ns: 0, since: Nanos(0), slew_ns: 0 };

    /// For live capture, from a reading at its start.
    pub fn starting_at(reading: Reading) -> Self {
        Self { offset_ns: reading.offset_ns(), since: reading.monotonic, slew_ns: 0 }
    }

    /// The wall time of a moment.
    pub fn wall(&self, time: Nanos) -> WallNanos {
        WallNanos(time.0.cast_signed().wrapping_add(self.offset_at(time)))
    }

    /// Takes a new reading into account. Says so if the wall clock was set meanwhile.
    pub fn update(&mut self, reading: Reading) -> Option<WallStep> {
        let current = self.offset_at(reading.monotonic);
        let error = reading.offset_ns().wrapping_sub(current);
        let is_step = error.unsigned_abs() > nanos_of(Self::STEP).unsigned_abs();
        *self = if is_step {
            Self::starting_at(reading)
        } else {
            Self { offset_ns: current, since: reading.monotonic, slew_ns: error }
        };
        is_step.then_some(WallStep { by_ns: error })
    }

    fn offset_at(&self, time: Nanos) -> i64 {
        let interval = nanos_of(Self::INTERVAL);
        let elapsed = time.since(self.since).clamp(0, interval);
        // At most 1e7 * 1e9: no overflow.
        self.offset_ns.wrapping_add(self.slew_ns * elapsed / interval)
    }
}

fn nanoseconds(clock: ClockId) -> i64 {
    let time = clock_gettime(clock);
    time.tv_sec.wrapping_mul(1_000_000_000).wrapping_add(time.tv_nsec)
}

fn nanos_of(duration: Duration) -> i64 {
    i64::try_from(duration.as_nanos()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u64 = 1_000_000_000;

    fn reading(monotonic: u64, offset: i64) -> Reading {
        Reading { monotonic: Nanos(monotonic), wall: WallNanos(monotonic.cast_signed() + offset) }
    }

    #[test]
    fn a_files_time_is_its_wall_time() {
        let time = Nanos(1_700_000_000 * SECOND + 5);
        assert_eq!(WallClock::IDENTITY.wall(time), WallNanos(1_700_000_000_000_000_005));
    }

    #[test]
    fn a_small_difference_is_slewed_and_never_turns_time_back() {
        let mut clock = WallClock::starting_at(reading(SECOND, 1_000));
        assert_eq!(clock.update(reading(2 * SECOND, -8_999_000)), None);
        let times: Vec<_> = (0..=20).map(|step| clock.wall(Nanos(2 * SECOND + step * SECOND / 20))).collect();
        assert!(times.is_sorted(), "{times:?}");
        assert_eq!(clock.wall(Nanos(2 * SECOND)).0, 2_000_001_000);
        assert_eq!(clock.wall(Nanos(3 * SECOND)).0, 3_000_000_000 - 8_999_000);
        assert_eq!(clock.wall(Nanos(9 * SECOND)).0, 9_000_000_000 - 8_999_000);
    }

    #[test]
    fn a_step_is_followed_at_once_and_reported() {
        let mut clock = WallClock::starting_at(reading(SECOND, 0));
        let hour = 3_600_000_000_000;
        assert_eq!(clock.update(reading(2 * SECOND, hour)), Some(WallStep { by_ns: hour }));
        assert_eq!(clock.wall(Nanos(2 * SECOND)).0, 2_000_000_000 + hour);
        assert_eq!(clock.update(reading(3 * SECOND, 0)), Some(WallStep { by_ns: -hour }));
    }

    #[test]
    fn a_record_from_before_the_reading_uses_its_offset() {
        let clock = WallClock::starting_at(reading(5 * SECOND, 7));
        assert_eq!(clock.wall(Nanos(4 * SECOND)), WallNanos(4_000_000_007));
    }

    #[test]
    fn a_reading_agrees_with_the_system() {
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
        let read = Reading::take().wall.0;
        let difference = i128::from(read) - i128::try_from(now.as_nanos()).unwrap();
        assert!(difference.abs() < 5_000_000_000, "{difference} ns apart");
    }
}

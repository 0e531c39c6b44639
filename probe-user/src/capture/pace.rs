//! How long the receive thread sleeps when what waited for it is taken.
//!
//! A wake-up costs some 15 microseconds, however long the sleep was, and a record a hundredth of that. So what a sleep may
//! gather is a matter of how much comes, and that is told by the last 20 milliseconds, in which every call sends:
//!
//! ```text
//!   records a second      a round every        because
//!   none                  10 ms                there is nothing to be late for
//!   up to 2,000           3.2 ms               20 calls are not worth a wake-up for every other packet
//!   up to 420,000         0.95 ms              a record is taken within a millisecond, or little more
//!   up to 1,000,000       400 records          from here on a wake-up is a small part of what they cost together
//!   more                  0.4 ms
//! ```
//!
//! Rounds have a beat, so that one which takes long does not add to what records of the next one wait for. Where they take
//! longer than their beat the thread still sleeps a little: rounds of few records cost more than those of many. All naps are
//! 50 microseconds shorter than is meant, by which the kernel may let a thread oversleep (timer slack).

use std::time::Duration;

/// What is counted together: the packet time of nearly all codecs.
const WINDOW_NS: u64 = 20_000_000;
/// In silence. At 5 Mpps, 10 Gb/s of G.711, the default ring holds two and a half of them.
const SILENT: Duration = Duration::from_micros(9_950);
/// While few records come.
const FEW: Duration = Duration::from_micros(3_150);
/// Records of a window that are not few any more.
const MANY: u64 = 40;
/// While many come, at most and at least.
const BUSY: Duration = Duration::from_micros(900);
const BUSIEST: Duration = Duration::from_micros(350);
/// Records that are worth a wake-up of their own, which is a quarter of what they cost.
const WORTH: u64 = 400;
/// The least that is worth falling asleep for.
const LEAST: Duration = Duration::from_micros(100);

/// See the module. Times are of the monotonic clock.
#[derive(Debug, Default)]
pub(super) struct Pace {
    round_ns: u64,
    window_ns: u64,
    /// Records of the window that began then.
    taken: u64,
    /// Those of the one before, as if it had been as long as it should.
    before: u64,
}

impl Pace {
    /// A round that began then took so many records.
    pub(super) fn count(&mut self, taken: usize, round_ns: u64) {
        self.round_ns = round_ns;
        self.taken += taken as u64;
        let length_ns = round_ns.saturating_sub(self.window_ns);
        if length_ns >= WINDOW_NS {
            self.before = (self.taken * WINDOW_NS).div_ceil(length_ns);
            (self.window_ns, self.taken) = (round_ns, 0);
        }
    }

    /// How long to sleep now, after the last round.
    pub(super) fn nap(&self, now_ns: u64) -> Duration {
        let beat = match self.before.max(self.taken) {
            0 => SILENT,
            few if few < MANY => FEW,
            many => Duration::from_nanos(WINDOW_NS * WORTH / many).clamp(BUSIEST, BUSY),
        };
        beat.saturating_sub(Duration::from_nanos(now_ns.saturating_sub(self.round_ns))).max(LEAST)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const START_NS: u64 = 5_000_000_000;

    /// A thread that takes what has come, each record in this time, and sleeps.
    struct Thread {
        pace: Pace,
        now_ns: u64,
        record_ns: u64,
        /// Records that have come and were not taken, in nanoseconds of waiting for the next one.
        credit_ns: u64,
        naps: Vec<Duration>,
    }

    impl Thread {
        fn new(record_ns: u64) -> Self {
            Self { pace: Pace::default(), now_ns: START_NS, record_ns, credit_ns: 0, naps: Vec::new() }
        }

        /// For so long a record comes every so often, or none. Returns the naps.
        fn receive(&mut self, every_ns: Option<u64>, length_ns: u64) -> Vec<Duration> {
            let end_ns = self.now_ns + length_ns;
            while self.now_ns < end_ns {
                let taken = every_ns.map_or(0, |every_ns| self.credit_ns / every_ns);
                self.credit_ns -= taken * every_ns.unwrap_or(0);
                self.pace.count(usize::try_from(taken).unwrap(), self.now_ns);
                let over_ns = self.now_ns + taken * self.record_ns;
                let nap = self.pace.nap(over_ns);
                let passed_ns = over_ns - self.now_ns + u64::try_from(nap.as_nanos()).unwrap();
                self.now_ns += passed_ns;
                self.credit_ns += every_ns.map_or(0, |_| passed_ns);
                self.naps.push(nap);
            }
            std::mem::take(&mut self.naps)
        }
    }

    /// The nap of a thread that has come to rest at a rate.
    fn settled(per_second: u64, record_ns: u64) -> Duration {
        let every_ns = 1_000_000_000_u64.checked_div(per_second);
        *Thread::new(record_ns).receive(every_ns, 1_000_000_000).last().unwrap()
    }

    #[test]
    fn naps_are_as_long_as_what_comes_allows() {
        let naps = [0, 500, 1_900, 5_000, 250_000, 1_000_000, 5_000_000].map(|rate| settled(rate, 0));
        let gathered = Duration::from_micros(400);
        assert_eq!(naps, [SILENT, FEW, FEW, BUSY, BUSY, gathered, BUSIEST]);
    }

    #[test]
    fn rounds_have_a_beat_however_long_they_take() {
        // A fifth of the time goes by with records of a microsecond.
        assert_eq!(settled(200_000, 1_000), BUSY * 4 / 5);
        // All of it: 4.5 million records of 200 ns are nine tenths of the time.
        assert_eq!(settled(4_500_000, 200), LEAST);
    }

    #[test]
    fn the_first_records_end_long_naps_at_once_and_the_last_are_remembered_for_two_windows() {
        let mut thread = Thread::new(0);
        let silent = thread.receive(None, 1_000_000_000);
        assert_eq!(silent.iter().filter(|nap| **nap == SILENT).count(), silent.len());
        let busy = thread.receive(Some(4_000), 100_000_000);
        assert_eq!((busy[0], busy[1], busy[busy.len() - 1]), (SILENT, BUSY, BUSY));
        let after: Duration =
            thread.receive(None, 1_000_000_000).iter().take_while(|nap| **nap < SILENT).sum();
        assert!((20..=45).contains(&after.as_millis()), "{after:?}");
    }

    #[test]
    fn a_pause_of_the_thread_is_no_rate() {
        let mut pace = Pace::default();
        pace.count(0, START_NS);
        // What gathered in a second is what came in a second.
        pace.count(250_000, START_NS + 50 * WINDOW_NS);
        assert_eq!(pace.nap(START_NS + 50 * WINDOW_NS), BUSY);
        pace.count(1, START_NS + 51 * WINDOW_NS);
        assert_eq!(pace.nap(START_NS + 51 * WINDOW_NS), FEW);
    }
}

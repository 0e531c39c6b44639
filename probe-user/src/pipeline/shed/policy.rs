//! How much is shed: a level from how full the rings are, free of I/O and clocks.
//!
//! ```text
//!   a ring over half full, twice in a row, and not draining ─▶ a quarter less of the sessions is kept
//!   the same with a ring nearly full, or something lost     ─▶ half of them
//!   a ring full, drained, and full again within 10 s        ─▶ half of them
//!   something lost behind the rings                         ─▶ half of them, and then a look at what came of it
//!   all rings quiet for the patience                        ─▶ half as many again are kept
//! ```
//!
//! So it sheds within 50 ms, well before a ring is full, and one pause of the reader, after which a full ring drains, sheds
//! nothing: what it lost is lost. A shard that pauses loses at each look until it wakes, whatever is shed, so its losses count once
//! in a while. A load that stays above what can be taken would come back with every step down: each step that fails doubles the
//! patience, and one that holds beyond the last failure shows that the load has gone, and sets it back.

use probe_ebpf::flow::BUCKETS;

use crate::packet::Nanos;

/// Between two looks: five rounds of the receive thread at 2 Mpps, a tenth of what the default ring lasts at 1 Mpps.
const LOOK_NS: i64 = 10_000_000;
/// Half full: from here on there is as much time left as was lost.
const HALF: u64 = 500;
/// The next look may come too late.
const NEARLY_FULL: u64 = 900;
/// There was no room, or hardly any: frames were lost.
const FULL: u64 = 980;
/// What was lost behind the rings is answered, and the answer takes so long to be felt: what is in the rings already is on
/// its way there, and a shard may wait for its turn on a CPU.
const ANSWER_NS: i64 = 100_000_000;
/// Pauses of the reader so near to each other that the next one is to be expected.
const AGAIN_NS: i64 = 10_000_000_000;
/// What a reader that naps finds after a nap is no pressure.
const QUIET: u64 = 250;
/// Quiet time before a step down, at first and at most.
const PATIENCE_NS: i64 = 3_000_000_000;
const MOST_PATIENCE_NS: i64 = 300_000_000_000;

/// What the receive thread sees of the load.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Pressure {
    /// How full the fullest ring or socket is, in thousandths.
    pub fullest: u64,
    /// Packets lost behind the rings, since the start.
    pub lost: u64,
}

/// See the module.
#[derive(Clone, Debug)]
pub struct Policy {
    /// What configuration leaves out anyway.
    floor: u32,
    level: u32,
    looked: Nanos,
    before: Pressure,
    quiet_since: Nanos,
    /// When a ring was full the last time.
    full: Option<Nanos>,
    /// When a loss behind the rings was answered the last time.
    answered: Option<Nanos>,
    patience_ns: i64,
    /// The last step down, until a step up answers it.
    lowered: Option<Nanos>,
    /// Buckets kept when the load came back the last time.
    failed_at: u32,
}

impl Policy {
    /// Nothing is shed, whatever `floor` leaves out.
    pub fn new(floor: u32, now: Nanos) -> Self {
        Self {
            floor,
            level: floor,
            looked: now,
            before: Pressure::default(),
            quiet_since: now,
            full: None,
            answered: None,
            patience_ns: PATIENCE_NS,
            lowered: None,
            failed_at: BUCKETS,
        }
    }

    /// Sessions of buckets below it are left out.
    pub fn level(&self) -> u32 {
        self.level
    }

    /// Looks at the load. A new level, if there is to be one.
    pub fn look(&mut self, now: Nanos, pressure: Pressure) -> Option<u32> {
        if now.since(self.looked) < LOOK_NS {
            return None;
        }
        self.looked = now;
        let before = std::mem::replace(&mut self.before, pressure);
        let lost = pressure.lost > before.lost;
        if lost || pressure.fullest >= QUIET {
            self.quiet_since = now;
        }
        let is_over =
            pressure.fullest >= HALF && before.fullest >= HALF && pressure.fullest >= before.fullest;
        let is_lost = lost && self.answered.is_none_or(|last| now.since(last) >= ANSWER_NS);
        if is_lost {
            self.answered = Some(now);
        }
        let level = if is_lost || is_over || self.is_full_again(now, pressure, before) {
            self.raised(now, is_lost || pressure.fullest >= NEARLY_FULL)
        } else if self.level > self.floor && now.since(self.quiet_since) >= self.patience_ns {
            self.lowered(now)
        } else {
            self.level
        };
        let is_new = level != self.level;
        self.level = level;
        is_new.then_some(level)
    }

    /// Is a ring full that was not at the look before, and for the second time lately?
    fn is_full_again(&mut self, now: Nanos, pressure: Pressure, before: Pressure) -> bool {
        if pressure.fullest < FULL || before.fullest >= FULL {
            return false;
        }
        self.full.replace(now).is_some_and(|last| now.since(last) < AGAIN_NS)
    }

    /// The level where less is kept.
    fn raised(&mut self, now: Nanos, is_urgent: bool) -> u32 {
        let kept = BUCKETS - self.level;
        if let Some(lowered) = self.lowered.take()
            && now.since(lowered) < self.patience_ns
        {
            self.failed_at = kept;
            self.patience_ns = (self.patience_ns * 2).min(MOST_PATIENCE_NS);
        }
        let less = if is_urgent { kept.div_ceil(2) } else { kept.div_ceil(4) };
        self.level + less
    }

    /// The level where more is kept.
    fn lowered(&mut self, now: Nanos) -> u32 {
        let kept = BUCKETS - self.level;
        if kept >= self.failed_at {
            (self.patience_ns, self.failed_at) = (PATIENCE_NS, BUCKETS);
        }
        (self.quiet_since, self.lowered) = (now, Some(now));
        let more = (kept / 2).max(1);
        self.level.saturating_sub(more).max(self.floor)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: u64 = 1_000_000;

    /// A ring that holds a hundred milliseconds of all sessions, a reader that can take some of them, and what came of it.
    struct Simulated {
        policy: Policy,
        now: Nanos,
        /// Filled, in sessions times milliseconds, of 25,600.
        filled: f64,
        overflowed: f64,
        changes: Vec<(u64, u32)>,
    }

    impl Simulated {
        fn new(floor: u32) -> Self {
            let policy = Policy::new(floor, Nanos(0));
            Self { policy, now: Nanos(0), filled: 0.0, overflowed: 0.0, changes: Vec::new() }
        }

        /// Lets it run for so long, with a reader that can take so much of what all sessions send.
        fn run(&mut self, ms: u64, capacity: f64) -> &mut Self {
            for _ in 0..ms / 10 {
                self.now.0 += 10 * MS;
                let kept = f64::from(BUCKETS - self.policy.level());
                let filled = (self.filled + 10.0 * (kept - 256.0 * capacity)).max(0.0);
                self.overflowed += (filled - 25_600.0).max(0.0);
                self.filled = filled.min(25_600.0);
                self.look();
            }
            self
        }

        fn look(&mut self) {
            #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "0 to 1000")]
            let fullest = (self.filled / 25.6) as u64;
            if let Some(level) = self.policy.look(self.now, Pressure { fullest, lost: 0 }) {
                self.changes.push((self.now.0 / MS, level));
            }
        }

        fn ups(&self) -> usize {
            self.changes.windows(2).filter(|pair| pair[1].1 > pair[0].1).count()
        }
    }

    #[test]
    fn a_load_that_can_be_taken_sheds_nothing() {
        let mut quiet = Simulated::new(0);
        assert_eq!(quiet.run(60_000, 1.01).changes, []);
    }

    #[test]
    fn an_overload_is_shed_before_anything_overflows() {
        for capacity in [0.9, 0.7, 0.5, 0.3] {
            let mut load = Simulated::new(0);
            load.run(1_000, capacity);
            let kept = f64::from(BUCKETS - load.policy.level()) / 256.0;
            assert!(load.overflowed == 0.0, "{capacity}: {:?}", load.changes);
            assert!(kept < capacity && kept > capacity / 2.0, "{capacity}: {kept} kept, {:?}", load.changes);
        }
    }

    #[test]
    fn after_a_burst_the_level_returns_step_by_step() {
        let mut load = Simulated::new(0);
        load.run(1_000, 0.5);
        load.run(60_000, 2.0);
        assert_eq!(load.policy.level(), 0, "{:?}", load.changes);
        let highest = load.changes.iter().map(|(_, level)| *level).max();
        let sinking: Vec<_> = load.changes.iter().skip_while(|(_, level)| Some(*level) < highest).collect();
        assert!(sinking.len() > 2, "{:?}", load.changes);
        for pair in sinking.windows(2) {
            assert!(pair[1].1 < pair[0].1 && pair[1].0 >= pair[0].0 + 3_000, "{:?}", load.changes);
        }
    }

    #[test]
    fn a_load_that_stays_is_tried_ever_more_rarely() {
        let mut load = Simulated::new(0);
        load.run(3_600_000, 0.4);
        assert!(load.ups() < 60, "{} rises in an hour: {:?}", load.ups(), load.changes);
        let late = load.changes.iter().filter(|(ms, _)| *ms > 1_800_000).count();
        assert!(late < 40, "{late} changes in the last half hour: {:?}", load.changes);
        // It goes, and within minutes all is taken again.
        load.run(1_200_000, 2.0);
        assert_eq!(load.policy.level(), 0, "{:?}", load.changes);
    }

    #[test]
    fn a_reader_that_pauses_again_and_again_has_less_to_catch_up_with() {
        let mut policy = Policy::new(0, Nanos(0));
        let mut levels = Vec::new();
        for pause in 0..3 {
            for (ms, fullest) in [(10, 1_000), (20, 300), (30, 0)] {
                let now = Nanos((pause * 4_000 + ms) * MS);
                levels.extend(policy.look(now, Pressure { fullest, lost: 0 }));
            }
        }
        assert_eq!(levels, [128, 192]);
    }

    #[test]
    fn a_pause_of_the_reader_sheds_nothing() {
        let mut policy = Policy::new(0, Nanos(0));
        let full = |now: u64, fullest| (Nanos(now * MS), Pressure { fullest, lost: 0 });
        for (now, pressure) in [full(10, 0), full(140, 990), full(150, 800), full(160, 600), full(170, 400)] {
            assert_eq!(policy.look(now, pressure), None, "{now:?}");
        }
    }

    #[test]
    fn losses_behind_the_rings_halve_what_is_kept_at_once_and_looks_are_apart() {
        let mut policy = Policy::new(0, Nanos(0));
        let lost = |now: u64, lost| (Nanos(now * MS), Pressure { fullest: 0, lost });
        let looks = [lost(10, 5), lost(12, 50), lost(110, 60), lost(120, 60), lost(210, 70)];
        let levels = looks.map(|(now, pressure)| policy.look(now, pressure));
        assert_eq!(levels, [Some(128), None, Some(192), None, Some(224)]);
    }

    #[test]
    fn a_shard_that_pauses_sheds_half_and_not_all() {
        let mut policy = Policy::new(0, Nanos(0));
        let mut levels = Vec::new();
        // It has no turn for 90 ms, and loses all the time.
        for look in 1..1_000_u64 {
            let pressure = Pressure { fullest: 0, lost: look.min(9) * 1_000 };
            levels.extend(policy.look(Nanos(look * 10 * MS), pressure));
        }
        assert_eq!(levels, [128, 64, 0]);
    }

    #[test]
    fn a_shard_that_cannot_take_a_quarter_is_left_with_less_within_half_a_second() {
        let mut policy = Policy::new(0, Nanos(0));
        let mut lost = 0;
        for look in 1..=50_u64 {
            lost += u64::from(policy.level() < 192);
            policy.look(Nanos(look * 10 * MS), Pressure { fullest: 0, lost });
        }
        assert_eq!(policy.level(), 192);
    }

    #[test]
    fn it_goes_up_to_everything_and_never_below_what_is_left_out_anyway() {
        let mut load = Simulated::new(192);
        load.run(2_000, 0.0);
        assert_eq!(load.policy.level(), BUCKETS);
        load.run(600_000, 2.0);
        assert_eq!(load.policy.level(), 192);
        assert!(load.changes.iter().all(|(_, level)| *level >= 192));
    }
}

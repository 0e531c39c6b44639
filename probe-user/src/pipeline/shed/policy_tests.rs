//! What the level does to a simulated reader: a ring, a thread that takes what it can, sessions that are dear while they are new.

use std::collections::VecDeque;

use super::*;

const MS: u64 = 1_000_000;
/// A step of the simulation.
const STEP_MS: u64 = 5;
/// What the ring holds, in milliseconds of all sessions.
const RING_MS: f64 = 100.0;

/// How a thread fares with the sessions of all buckets.
#[derive(Clone, Copy)]
struct Load {
    /// What it can take of them, as a share.
    capacity: f64,
    /// How many times as much a packet costs in the first second of its stream.
    young: f64,
    /// The share of the thread that something else takes.
    beside: f64,
    /// The thread has no CPU for so many milliseconds of each second.
    paused_ms: u64,
}

impl Load {
    fn of(capacity: f64) -> Self {
        Self { capacity, young: 1.0, beside: 0.0, paused_ms: 0 }
    }
}

struct Simulated {
    policy: Policy,
    now: Nanos,
    /// By the millisecond in which it came: so many milliseconds of all sessions, and the thread's time for it.
    ring: VecDeque<(Nanos, f64, f64)>,
    filled: f64,
    /// Buckets that are taken, and since when, the oldest first.
    taken_since: Vec<(Nanos, u32)>,
    idle_ns: f64,
    taken: f64,
    overflowed: f64,
    changes: Vec<(u64, u32)>,
}

impl Simulated {
    fn new(floor: u32) -> Self {
        Self {
            policy: Policy::new(floor, Nanos(0)),
            now: Nanos(0),
            ring: VecDeque::new(),
            filled: 0.0,
            taken_since: vec![(Nanos(0), BUCKETS - floor)],
            idle_ns: 0.0,
            taken: 0.0,
            overflowed: 0.0,
            changes: Vec::new(),
        }
    }

    /// Lets it run for so long.
    fn run(&mut self, ms: u64, load: Load) -> &mut Self {
        for _ in 0..ms / STEP_MS {
            self.now.0 += STEP_MS * MS;
            self.arrive(load);
            if self.now.0 / MS % 1_000 >= load.paused_ms {
                self.take(load);
                self.look();
            }
        }
        self
    }

    fn arrive(&mut self, load: Load) {
        let part = STEP_MS as f64 / f64::from(BUCKETS);
        let cost = |since| if self.now.since(since) < 1_000_000_000 { load.young } else { 1.0 };
        let (mut came, mut work) = (0.0, 0.0);
        for (since, buckets) in &self.taken_since {
            came += f64::from(*buckets) * part;
            work += f64::from(*buckets) * part * cost(*since) / load.capacity;
        }
        let fits = came.min(RING_MS - self.filled);
        self.overflowed += came - fits;
        if fits > 0.0 {
            self.ring.push_back((self.now, fits, work * fits / came));
            self.filled += fits;
        }
    }

    fn take(&mut self, load: Load) {
        let mut left = STEP_MS as f64 * (1.0 - load.beside);
        while let Some((_, amount, work)) = self.ring.front_mut() {
            let part = (left / *work).min(1.0);
            left -= *work * part;
            self.filled -= *amount * part;
            self.taken += *amount * part;
            (*amount, *work) = (*amount * (1.0 - part), *work * (1.0 - part));
            if part < 1.0 {
                return;
            }
            self.ring.pop_front();
        }
        self.filled = 0.0;
        self.idle_ns += left * MS as f64;
    }

    fn look(&mut self) {
        let reached = self.ring.front().map_or(self.now, |(came, ..)| *came);
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "not much")]
        let (fullest, idle_ns) = ((self.filled / RING_MS * 1e3) as u64, self.idle_ns as i64);
        if let Some(level) = self.policy.look(self.now, Pressure { fullest, lost: 0, idle_ns, reached }) {
            self.changes.push((self.now.0 / MS, level));
            self.follow();
        }
    }

    /// Those that are shed are those that came last.
    fn follow(&mut self) {
        let kept = self.policy.kept();
        let mut taken: u32 = self.taken_since.iter().map(|(_, buckets)| buckets).sum();
        if kept > taken {
            self.taken_since.push((self.now, kept - taken));
        }
        while taken > kept
            && let Some((since, buckets)) = self.taken_since.pop()
        {
            taken -= buckets;
            self.taken_since.push((since, buckets.min(kept.saturating_sub(taken))));
            taken += buckets.min(kept.saturating_sub(taken));
            self.taken_since.retain(|(_, buckets)| *buckets > 0);
        }
    }

    fn kept(&self) -> f64 {
        f64::from(self.policy.kept()) / f64::from(BUCKETS)
    }

    /// Of the thread, in a time that begins now.
    fn idle_for(&mut self, ms: u64, load: Load) -> f64 {
        let before = self.idle_ns;
        self.run(ms, load);
        (self.idle_ns - before) / (ms * MS) as f64
    }

    fn changes_after(&self, ms: u64) -> usize {
        self.changes.iter().filter(|(at, _)| *at > ms).count()
    }
}

#[test]
fn a_load_that_can_be_taken_sheds_nothing() {
    let mut quiet = Simulated::new(0);
    assert_eq!(quiet.run(60_000, Load::of(1.01)).changes, []);
}

#[test]
fn an_overload_is_shed_before_anything_overflows_and_nothing_is_left_out_that_can_be_taken() {
    for capacity in [0.9, 0.7, 0.5, 0.3, 0.1, 0.02] {
        let mut load = Simulated::new(0);
        load.run(1_000, Load::of(capacity));
        assert!(load.overflowed == 0.0, "{capacity}: {:?}", load.changes);
        assert!(load.kept() < capacity, "{capacity}: {} kept, {:?}", load.kept(), load.changes);
        load.run(7_000, Load::of(capacity));
        let idle = load.idle_for(1_000, Load::of(capacity));
        assert!(idle < 0.1 || capacity < 0.1, "{capacity}: {idle} idle, {:?}", load.changes);
        assert!(load.overflowed == 0.0, "{capacity}: {:?}", load.changes);
    }
}

#[test]
fn streams_that_begin_at_once_are_dear_for_a_second_and_then_all_are_taken_that_can_be() {
    let cases = [(1.1, 3.0), (1.1, 2.0), (0.8, 3.0), (0.5, 3.0), (0.3, 2.0), (2.0, 3.0), (1.5, 2.0)];
    // Where something else takes the thread's time, each step is told to be dearer than it is.
    let besides = |case| [(case, 0.0, 11_000), (case, 0.1, 15_000)];
    for ((capacity, young), beside, settles_ms) in cases.into_iter().flat_map(besides) {
        let load = Load { young, beside, ..Load::of(capacity) };
        let mut streams = Simulated::new(0);
        streams.run(1_000, load);
        assert!(streams.overflowed == 0.0, "{capacity} {young}: {:?}", streams.changes);
        streams.run(settles_ms, load);
        let settled = streams.changes.len();
        let idle = streams.idle_for(60_000, load);
        let told =
            format!("{capacity} {young}: {idle:.3} idle, {} lost, {:?}", streams.overflowed, streams.changes);
        assert!(idle < 0.1 || streams.policy.level() == 0, "{told}");
        assert!(streams.changes.len() <= settled + 1 && streams.overflowed == 0.0, "{told}");
    }
}

#[test]
fn after_a_burst_the_level_returns_step_by_step() {
    let mut load = Simulated::new(0);
    load.run(1_000, Load::of(0.5));
    load.run(10_000, Load::of(2.0));
    assert_eq!(load.policy.level(), 0, "{:?}", load.changes);
    let highest = load.changes.iter().map(|(_, level)| *level).max();
    let sinking: Vec<_> = load.changes.iter().skip_while(|(_, level)| Some(*level) < highest).collect();
    assert!(sinking.len() > 2, "{:?}", load.changes);
    for pair in sinking.windows(2) {
        assert!(pair[1].1 < pair[0].1 && pair[1].0 >= pair[0].0 + 1_000, "{:?}", load.changes);
    }
}

#[test]
fn a_load_that_stays_meets_a_level_that_stays() {
    let paused = Load { paused_ms: 20, ..Load::of(0.7) };
    let young = |young| Load { young, ..Load::of(0.4) };
    for (load, most) in [(Load::of(0.4), 0), (young(2.0), 0), (young(3.0), 0), (young(5.0), 40), (paused, 0)]
    {
        let mut hour = Simulated::new(0);
        hour.run(3_600_000, load);
        assert!(hour.changes_after(20_000) <= most, "{} {:?}", hour.changes_after(20_000), hour.changes);
        // It goes, and within some seconds all is taken again.
        hour.run(20_000, Load::of(2.0));
        assert_eq!(hour.policy.level(), 0, "{:?}", hour.changes);
    }
}

#[test]
fn a_load_that_comes_and_goes_is_followed_ever_more_rarely() {
    for seconds in [1, 3, 10, 60] {
        let mut hour = Simulated::new(0);
        for _ in 0..1_800 / seconds {
            hour.run(seconds * 1_000, Load { young: 3.0, ..Load::of(0.6) });
            hour.run(seconds * 1_000, Load { young: 3.0, ..Load::of(0.35) });
        }
        let late = hour.changes_after(600_000);
        assert!(late < 60, "{late} changes in 50 minutes, every {seconds} s: {:?}", hour.changes);
    }
}

#[test]
fn what_is_lost_all_the_same_is_tried_ever_more_rarely() {
    // A shard that loses whatever is more than a quarter, while the receive thread rests.
    let mut policy = Policy::new(0, Nanos(0));
    let (mut lost, mut changes) = (0, Vec::new());
    for look in 1..=360_000_u64 {
        let now = Nanos(look * 10 * MS);
        lost += u64::from(policy.level() < 192);
        let idle_ns = i64::try_from(now.0 / 2).unwrap();
        changes.extend(
            policy.look(now, Pressure { fullest: 0, lost, idle_ns, reached: now }).map(|_| look / 100),
        );
    }
    let late = changes.iter().filter(|second| **second > 1_800).count();
    assert!(changes.len() < 80 && late < 24, "{late} changes in the last half hour: {changes:?}");
}

/// Looks at a ring, and a thread that has nothing else to do.
fn looks(policy: &mut Policy, looks: impl IntoIterator<Item = (u64, u64, u64)>) -> Vec<Option<u32>> {
    let look = |(ms, fullest, lost)| {
        let now = Nanos(ms * MS);
        let idle_ns = i64::try_from(now.0).unwrap();
        policy.look(now, Pressure { fullest, lost, idle_ns, reached: now })
    };
    looks.into_iter().map(look).collect()
}

#[test]
fn a_reader_that_pauses_again_and_again_has_less_to_catch_up_with() {
    let mut policy = Policy::new(0, Nanos(0));
    let pauses = (0..3)
        .flat_map(|pause| [(10, 1_000), (20, 300), (30, 0)].map(|(ms, full)| (pause * 900 + ms, full, 0)));
    let levels = looks(&mut policy, pauses);
    assert_eq!(levels.into_iter().flatten().collect::<Vec<_>>(), [128, 192]);
}

#[test]
fn a_pause_of_the_reader_sheds_nothing() {
    let mut policy = Policy::new(0, Nanos(0));
    let full = [(10, 0, 0), (140, 990, 0), (150, 800, 0), (160, 600, 0), (170, 400, 0)];
    assert_eq!(looks(&mut policy, full), [None; 5]);
}

#[test]
fn losses_behind_the_rings_halve_what_is_kept_at_once_and_looks_are_apart() {
    let mut policy = Policy::new(0, Nanos(0));
    let lost = [(10, 0, 5), (12, 0, 50), (110, 0, 60), (120, 0, 60), (210, 0, 70)];
    assert_eq!(looks(&mut policy, lost), [Some(128), None, Some(192), None, Some(224)]);
}

#[test]
fn a_shard_that_pauses_sheds_half_and_not_all() {
    let mut policy = Policy::new(0, Nanos(0));
    // It has no turn for 90 ms, and loses all the time.
    let levels = looks(&mut policy, (1..1_000).map(|look| (look * 10, 0, look.min(9) * 1_000)));
    assert_eq!(levels.into_iter().flatten().collect::<Vec<_>>(), [128, 0]);
}

#[test]
fn it_goes_up_to_everything_and_never_below_what_is_left_out_anyway() {
    let mut load = Simulated::new(192);
    load.run(2_000, Load::of(0.001));
    assert_eq!(load.policy.level(), BUCKETS);
    load.run(600_000, Load::of(2.0));
    assert_eq!(load.policy.level(), 192);
    assert!(load.changes.iter().all(|(_, level)| *level >= 192));
}

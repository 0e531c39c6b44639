//! How much is shed: a level from how full the rings are and what the receive thread has to spare, free of I/O and clocks.
//!
//! ```text
//!   a ring over half full, twice in a row, and not draining ─▶ as many sessions are kept as the thread can take
//!   the same with a full ring, or something lost behind it  ─▶ half of them at most
//!   a ring full, drained, and full again within 10 s        ─▶ the same
//!   all rings quiet for a second, and the thread rests      ─▶ two fifths are added of what it could take besides
//! ```
//!
//! So it sheds within 50 ms, well before a ring is full, and one pause of the reader, after which a full ring drains, sheds
//! nothing: what it lost is lost. How much can be taken is [measured](Effort), not tried: a load that stays meets a level that
//! stays. Sessions that come back begin as new streams, which cost several times as much for a second: hence no more of what
//! there is room for. At three times, that second just fits.
//!
//! Where it failed nevertheless, because something else than this thread has no more room, or because others want its CPU now and
//! then, it goes again only after a patience, which doubles with each time, and if the thread rested all that time.
//! A shard that pauses loses at each look until it wakes, whatever is shed, so its losses count once in a while.

use probe_ebpf::flow::BUCKETS;

use super::effort::Effort;
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
/// Pauses of the reader so near to each other that the next one is to be expected; a step so near that it is to blame.
const LATELY_NS: i64 = 10_000_000_000;
/// What a reader that naps finds after a nap is no pressure.
const QUIET: u64 = 250;
/// Share of the thread that is asked for after a step up: with the rest it empties the rings.
const AFTER_UP: f64 = 0.8;
/// The most that is asked for after a step down, and what is enough: a second is told from the next no better.
const AFTER_DOWN: f64 = 0.95;
const ENOUGH: f64 = 0.9;
/// Where a bucket costs no more than this part of what it did, the load is another.
const LESS: f64 = 0.5;
/// A difference that is none.
const SLIGHTLY_LESS: f64 = 0.875;
/// Between two steps down: so long sessions that came back are dear.
const STEP_NS: i64 = 1_000_000_000;
/// For so long at a time it is measured what the thread has to spare.
const PART_NS: i64 = STEP_NS / 2;
/// The part of the room there is that a step down takes, at first and at least.
const STRIDE: f64 = 0.4;
const LEAST_STRIDE: f64 = STRIDE / 4.0;
/// And no less than one bucket for so many that are kept: each step is told.
const LEAST: u32 = 32;
/// Quiet time before a step to where it failed, at first and at most.
const PATIENCE_NS: i64 = STEP_NS;
const MOST_PATIENCE_NS: i64 = 300_000_000_000;
/// After so long without a step up, the next one is another load's.
const FORGOTTEN_NS: i64 = 2 * MOST_PATIENCE_NS;

/// What the receive thread sees of the load.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Pressure {
    /// How full the fullest ring or socket is, in thousandths.
    pub fullest: u64,
    /// Packets lost behind the rings, since the start.
    pub lost: u64,
    /// Time that the thread had nothing to do, since the start.
    pub idle_ns: i64,
    /// It has taken all that was stamped before.
    pub reached: Nanos,
}

/// See the module.
#[derive(Clone, Debug)]
pub struct Policy {
    /// What configuration leaves out anyway.
    floor: u32,
    level: u32,
    looked: Nanos,
    before: Pressure,
    effort: Effort,
    /// When a ring was full the last time.
    full: Option<Nanos>,
    /// When a loss behind the rings was answered the last time.
    answered: Option<Nanos>,
    quiet: Quiet,
    /// When the level changed the last time.
    changed: Nanos,
    patience_ns: i64,
    /// The part of the room there is that a step down takes.
    stride: f64,
    /// Where it failed, unless that held since.
    failed: Option<Failed>,
    /// When that was.
    raised: Nanos,
    /// The last step down, until one up answers it: when, and how many buckets were kept until then.
    lowered: Option<(Nanos, u32)>,
}

/// Buckets that were too many to keep, the fewest of several times.
#[derive(Clone, Copy, Debug)]
struct Failed {
    kept: u32,
    /// How many the thread could have taken, by what was measured then.
    fits: f64,
}

/// A time in which all rings were quiet, the level stayed, and the thread had something to spare.
#[derive(Clone, Copy, Debug)]
struct Quiet {
    since: Nanos,
    /// The part of it that is measured now, and how long the thread had been idle when it began.
    began: Nanos,
    idle_ns: i64,
    /// The largest share of the thread that was asked for in any part of it.
    most: f64,
}

impl Quiet {
    fn new(now: Nanos, idle_ns: i64) -> Self {
        Self { since: now, began: now, idle_ns, most: 0.0 }
    }

    /// The share of the thread that was asked for in a part of it that ends now. It may end the whole of it.
    fn part(&mut self, now: Nanos, idle_ns: i64) -> f64 {
        let idle = (idle_ns - self.idle_ns) as f64 / now.since(self.began) as f64;
        let share = (1.0 - idle).clamp(0.01, 1.0);
        *self = if share < ENOUGH {
            Self { since: self.since, began: now, idle_ns, most: self.most.max(share) }
        } else {
            Self::new(now, idle_ns)
        };
        share
    }
}

impl Policy {
    /// Nothing is shed, whatever `floor` leaves out.
    pub fn new(floor: u32, now: Nanos) -> Self {
        Self {
            floor,
            level: floor,
            looked: now,
            before: Pressure { reached: now, ..Pressure::default() },
            effort: Effort::default(),
            full: None,
            answered: None,
            quiet: Quiet::new(now, 0),
            changed: now,
            patience_ns: PATIENCE_NS,
            stride: STRIDE,
            failed: None,
            raised: now,
            lowered: None,
        }
    }

    /// Sessions of buckets below it are left out.
    pub fn level(&self) -> u32 {
        self.level
    }

    /// Looks at the load. A new level, if there is to be one.
    pub fn look(&mut self, now: Nanos, pressure: Pressure) -> Option<u32> {
        let elapsed_ns = now.since(self.looked);
        if elapsed_ns < LOOK_NS {
            return None;
        }
        self.looked = now;
        let before = std::mem::replace(&mut self.before, pressure);
        let worked_ns = elapsed_ns - (pressure.idle_ns - before.idle_ns);
        self.effort.note(self.kept(), (worked_ns, elapsed_ns), (before.reached, pressure.reached));
        let lost = pressure.lost > before.lost;
        if lost || pressure.fullest >= QUIET {
            self.quiet = Quiet::new(now, pressure.idle_ns);
        }
        let is_over =
            pressure.fullest >= HALF && before.fullest >= HALF && pressure.fullest >= before.fullest;
        let is_lost = lost && self.answered.is_none_or(|last| now.since(last) >= ANSWER_NS);
        if is_lost {
            self.answered = Some(now);
        }
        let is_over = is_over && (pressure.fullest >= NEARLY_FULL || self.is_answered(pressure.reached));
        let kept = if is_lost || is_over || self.is_full_again(now, pressure, before) {
            self.fewer(now, is_lost || pressure.fullest >= FULL)
        } else if self.level > self.floor && now.since(self.quiet.began) >= PART_NS {
            self.more(now, pressure.idle_ns)
        } else {
            self.kept()
        };
        self.keep(kept, now, pressure.idle_ns)
    }

    /// Has the last step up shown what it does, or is it known that it was not enough?
    fn is_answered(&self, reached: Nanos) -> bool {
        reached >= self.raised || self.effort.buckets_for(1.0) < f64::from(self.kept()) * SLIGHTLY_LESS
    }

    /// Buckets that are kept.
    fn kept(&self) -> u32 {
        BUCKETS - self.level
    }

    /// From now on so many are.
    fn keep(&mut self, kept: u32, now: Nanos, idle_ns: i64) -> Option<u32> {
        let before = self.kept();
        if kept == before {
            return None;
        }
        self.effort.changed(now, before);
        self.changed = now;
        self.quiet = Quiet::new(now, idle_ns);
        self.level = BUCKETS - kept;
        Some(self.level)
    }

    /// Is a ring full that was not at the look before, and for the second time lately?
    fn is_full_again(&mut self, now: Nanos, pressure: Pressure, before: Pressure) -> bool {
        if pressure.fullest < FULL || before.fullest >= FULL {
            return false;
        }
        self.full.replace(now).is_some_and(|last| now.since(last) < LATELY_NS)
    }

    /// Buckets to keep where those that are kept are too many.
    fn fewer(&mut self, now: Nanos, is_urgent: bool) -> u32 {
        let kept = self.kept();
        let lowered = self.lowered.take();
        if self.failed.is_none() && now.since(self.raised) >= FORGOTTEN_NS {
            (self.patience_ns, self.stride) = (PATIENCE_NS, STRIDE);
        } else if lowered.is_some() {
            self.patience_ns = (self.patience_ns * 2).min(MOST_PATIENCE_NS);
        }
        let fits = self.effort.buckets_for(1.0);
        self.failed = Some(Failed { kept: self.failed.map_or(kept, |failed| failed.kept.min(kept)), fits });
        self.raised = now;
        let (half, most) = (kept / 2, kept - kept.div_ceil(8));
        let fits = match lowered {
            // Before that step all was well.
            Some((at, held)) if now.since(at) < LATELY_NS => {
                self.stride = (self.stride / 2.0).max(LEAST_STRIDE);
                held
            }
            // What was lost is not among what was measured.
            _ if is_urgent => half,
            _ => whole(self.effort.buckets_for(AFTER_UP)),
        };
        // Nothing that is seen once justifies more.
        fits.clamp(half, most)
    }

    /// Buckets to keep after a quiet time, if the thread has something to spare.
    fn more(&mut self, now: Nanos, idle_ns: i64) -> u32 {
        let kept = self.kept();
        let share = self.quiet.part(now, idle_ns);
        let is_patient = now.since(self.quiet.since) >= self.patience_ns;
        let asked_for = if is_patient { self.quiet.most } else { share };
        if asked_for >= ENOUGH || now.since(self.changed) < STEP_NS {
            return kept;
        }
        // It holds, or the load is another.
        let is_over = |failed: &Failed| kept >= failed.kept || self.effort.buckets_for(LESS) > failed.fits;
        self.failed = self.failed.filter(|failed| !is_over(failed));
        // To where it failed with patience only, and then not far beyond.
        let tried = self.failed.map_or(u32::MAX, |Failed { kept, .. }| {
            let some = kept.div_ceil(8);
            if is_patient { kept + some } else { kept - some }
        });
        let room = f64::from(kept.max(1)) * (AFTER_DOWN / asked_for - 1.0);
        let least = kept.div_ceil(LEAST).max(1);
        let more = whole(room * self.stride).clamp(least, kept.max(1)).min(tried.saturating_sub(kept));
        let more = if more < least { 0 } else { more.min(self.level - self.floor) };
        if more > 0 {
            self.lowered = Some((now, kept));
        }
        kept + more
    }
}

/// Whole buckets of so many, up to all.
fn whole(buckets: f64) -> u32 {
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "0 to 256")]
    let whole = buckets.clamp(0.0, f64::from(BUCKETS)) as u32;
    whole
}

#[cfg(test)]
#[path = "policy_tests.rs"]
mod tests;

//! The sender's clock against the tap's, in parts per million.
//!
//! Queues only ever add delay, so the least transit of a block of packets is nearly free of them. The slope through
//! those minima is Theil's and Sen's: the median of the slopes between all pairs, which a third of outliers does not
//! move. Pairs never span an interruption or a timestamp jump: those are events, and no drift.
//!
//! ```text
//!   transit │      ·  ·        ·            pairs 1-2, 1-3, 2-3 │ 4-5   : median slope
//!           │ · ·●·  ·●· ·· ●··   · ●·  ·●
//!           └───block──┴────────┴──┴──── time       ● least of its block
//! ```
//!
//! Some senders pause without counting it, for less than an interruption takes, and some queues stand for seconds: then the
//! minima step, once, and stay. Where a block differs from the next by much more than blocks usually do, it is a step,
//! and pairs do not span it either. A wrong clock rate makes all of them differ, by as much, and is none.
//!
//! Memory is bounded: when the blocks are used up, neighbours become one and blocks twice as long.

use serde::Serialize;

use crate::packet::Nanos;

/// Blocks remembered; 16 bytes each.
const MAX_POINTS: usize = 32;
/// First length of a block.
const BLOCK_NS: u64 = 1_000_000_000;
/// Regular packets over so much time, segments added up, make a figure. At 8 s, a jitter of 1 ms in the minima is
/// 125 ppm; below, the figure would say more about queues than about clocks.
const LEAST_SPAN_NS: i64 = 8_000_000_000;
/// Pairs of blocks that make a figure: six blocks in a row.
const LEAST_PAIRS: usize = 15;
/// Blocks in a row before the quick slope is trusted: with fewer it would bring more error than it takes out.
const QUICK_POINTS: usize = 12;
/// What a step is at least: queues move the minima by a few milliseconds, and clocks by less.
const STEP_NS: f64 = 10e6;
/// A figure that is less certain than this, over its whole confidence interval in ppm, is none.
const LEAST_CERTAIN_PPM: f64 = 2_000.0;
/// A quick slope beyond this is no clock's, but a step that the quick method does not see.
const QUICK_MOST: f64 = 1e-3;
/// Of the normal distribution, for 95 % confidence.
const Z95: f64 = 1.959_964;

/// See the module.
#[derive(Clone, Debug, Default)]
pub struct Drift {
    points: Points,
    block: Option<Block>,
    slope: f64,
}

/// The blocks that have closed, which are what is left of it beside an orderly run.
#[derive(Clone, Debug, Default)]
pub(super) struct Points {
    /// No longer than there are points: most streams have few.
    list: Box<[Point]>,
    /// A bit for each that begins a segment.
    firsts: u32,
    /// The next one will.
    is_next_first: bool,
    /// Blocks are `BLOCK_NS << doublings` long.
    doublings: u8,
}

/// The least transit of a block.
#[derive(Clone, Copy, Debug)]
struct Point {
    at: Nanos,
    transit_ns: f64,
}

/// The block that is being filled, and its least transit.
#[derive(Clone, Copy, Debug)]
pub(super) struct Block {
    until: Nanos,
    at: Nanos,
    transit_ns: f64,
}

impl Block {
    /// Does it take what comes at `at`?
    #[inline]
    pub(super) fn has(&self, at: Nanos) -> bool {
        at.since(self.until) < 0
    }

    fn is_empty(&self) -> bool {
        self.transit_ns == f64::INFINITY
    }

    fn point(&self) -> Point {
        Point { at: self.at, transit_ns: self.transit_ns }
    }

    #[inline]
    pub(super) fn step(&mut self, at: Nanos, transit_ns: f64) {
        if transit_ns < self.transit_ns {
            (self.at, self.transit_ns) = (at, transit_ns);
        }
    }
}

/// The estimate.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct ClockDrift {
    /// Parts per million; positive if the sender's clock is fast.
    pub ppm: f64,
    /// 95 % confidence interval of it.
    pub ppm_ci: [f64; 2],
}

impl Drift {
    /// Takes one packet's transit. `begins`: not to be compared with what came before.
    pub fn observe(&mut self, at: Nanos, transit_ns: f64, begins: bool) {
        if begins {
            self.close();
            self.points.is_next_first = true;
        }
        match &mut self.block {
            Some(block) if block.has(at) => block.step(at, transit_ns),
            _ => {
                self.close();
                self.block = Some(Block { until: self.points.end(at), at, transit_ns });
            }
        }
    }

    /// What a run takes along: the block, and the slope, which stays while it is filled.
    pub(super) fn lend(&self) -> Option<(Block, f64)> {
        self.block.map(|block| (block, self.slope))
    }

    /// Goes on where a run has come to.
    pub(super) fn take_back(&mut self, block: Block) {
        self.block = (!block.is_empty()).then_some(block);
    }

    /// Closes the block, and begins one at `at` that has nothing in it yet. With it, the slope from now on.
    pub(super) fn turn(&mut self, at: Nanos) -> (Block, f64) {
        self.close();
        (Block { until: self.points.end(at), at, transit_ns: f64::INFINITY }, self.slope)
    }

    /// What is left of it beside the run that it was lent to.
    pub(super) fn into_rest(self) -> Points {
        self.points
    }

    /// The same, whole again: without the block, which the run has.
    pub(super) fn of_rest(points: Points, slope: f64) -> Self {
        Self { points, block: None, slope }
    }

    /// Nanoseconds of transit a nanosecond, as far as is known yet: a quick estimate, for following a reference.
    pub fn slope(&self) -> f64 {
        self.slope
    }

    #[cold]
    fn close(&mut self) {
        let Some(block) = self.block.take() else { return };
        self.points.push(block.point());
        self.slope = self.points.quick_slope().filter(|slope| slope.abs() <= QUICK_MOST).unwrap_or(0.0);
    }

    /// The slope over all segments.
    ///
    /// # Errors
    /// Why there is none, in words for the report.
    pub fn estimate(&self) -> Result<ClockDrift, &'static str> {
        let mut list = self.points.list.to_vec();
        list.extend(self.block.map(|block| block.point()));
        let segments = segments(&list, self.points.all_firsts());
        let is_step = steps(&segments);
        let mut slopes = Vec::with_capacity(MAX_POINTS * MAX_POINTS / 2);
        let (mut span_ns, mut variance) = (0_i64, 0.0);
        for segment in segments.iter().flat_map(|segment| segment.chunk_by(|a, b| !is_step(a, b))) {
            for (at, a) in segment.iter().enumerate() {
                slopes.extend(segment.iter().skip(at + 1).filter_map(|b| slope(a, b)));
            }
            if let [first, .., last] = segment {
                let n = segment.len() as f64;
                span_ns = span_ns.saturating_add(last.at.since(first.at));
                variance += n * (n - 1.0) * (2.0 * n + 5.0) / 18.0;
            }
        }
        if span_ns < LEAST_SPAN_NS || slopes.len() < LEAST_PAIRS {
            return Err("too short: less than 8 s of regular packets between interruptions and steps");
        }
        slopes.sort_unstable_by(f64::total_cmp);
        let count = slopes.len() as f64;
        // Sen 1968: the ranks between which the true slope lies, by the variance of Kendall's S over segments.
        let spread = Z95 * variance.sqrt();
        let at = |rank: f64| {
            #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a rank in the list")]
            let rank = rank.clamp(0.0, count - 1.0) as usize;
            // Transit grows when the sender is slow. Tenths are more than anybody can be sure of.
            slopes.get(rank).map_or(0.0, |slope| (-slope * 1e7).round() / 10.0)
        };
        let middle = f64::midpoint(at(((count - 1.0) / 2.0).floor()), at(((count - 1.0) / 2.0).ceil()));
        let (low, high) = (((count - spread) / 2.0).floor() - 1.0, f64::midpoint(count, spread).ceil());
        let ppm_ci @ [low, high] = [at(high), at(low)];
        if high - low > LEAST_CERTAIN_PPM {
            return Err(
                "uncertain by more than 2,000 ppm: the sender pauses without counting, or queues stand",
            );
        }
        Ok(ClockDrift { ppm: middle, ppm_ci })
    }
}

impl Points {
    /// When a block that begins then ends.
    fn end(&self, began: Nanos) -> Nanos {
        Nanos(began.0.wrapping_add(BLOCK_NS << self.doublings))
    }

    fn push(&mut self, point: Point) {
        if self.list.len() == MAX_POINTS {
            self.thin();
        }
        let mut list = std::mem::take(&mut self.list).into_vec();
        self.firsts |= u32::from(std::mem::take(&mut self.is_next_first)) << list.len();
        list.reserve_exact(1);
        list.push(point);
        self.list = list.into_boxed_slice();
    }

    /// Makes room: neighbours of one segment become one, and those without a neighbour go, as they say nothing. Then
    /// the oldest go, until half is free.
    fn thin(&mut self) {
        let mut kept: Vec<Point> = Vec::with_capacity(MAX_POINTS);
        let mut firsts = 0_u32;
        let segments = segments(&self.list, self.firsts.into());
        // What comes next does not belong to the one before, if its own has gone.
        self.is_next_first |= segments.last().is_some_and(|segment| segment.len() == 1);
        for segment in segments.into_iter().filter(|segment| segment.len() > 1) {
            firsts |= 1 << kept.len();
            kept.extend(segment.chunks(2).filter_map(|pair| {
                pair.iter().copied().reduce(|a, b| if b.transit_ns < a.transit_ns { b } else { a })
            }));
        }
        let surplus = kept.len().saturating_sub(MAX_POINTS / 2);
        self.list = kept.split_off(surplus).into_boxed_slice();
        self.firsts = firsts >> surplus;
        self.doublings = (self.doublings + 1).min(24);
    }

    /// The same bits, with that of the block which is being filled.
    fn all_firsts(&self) -> u64 {
        u64::from(self.firsts) | u64::from(self.is_next_first) << self.list.len()
    }

    /// Theil's abbreviated method on the last segment: each point of its first half against the one half a
    /// segment later. Sixteen slopes at most, so a stream can afford it with every block.
    fn quick_slope(&self) -> Option<f64> {
        let from = self.firsts.checked_ilog2().unwrap_or(0);
        let points = self.list.get(from as usize..).filter(|points| points.len() >= QUICK_POINTS)?;
        let half = points.len() / 2;
        let mut slopes = [0.0; MAX_POINTS / 2];
        let mut count = 0;
        for (slot, (a, b)) in slopes.iter_mut().zip(points.iter().zip(points.iter().skip(half))) {
            *slot = slope(a, b)?;
            count += 1;
        }
        let slopes = slopes.get_mut(..count)?;
        slopes.sort_unstable_by(f64::total_cmp);
        slopes.get(count / 2).copied()
    }
}

/// The points of each segment; a bit of `firsts` says where one begins.
fn segments(points: &[Point], firsts: u64) -> Vec<&[Point]> {
    let starts = (1..points.len()).filter(|at| firsts >> at & 1 != 0);
    let ends = starts.clone().chain([points.len()]);
    std::iter::once(0).chain(starts).zip(ends).filter_map(|(start, end)| points.get(start..end)).collect()
}

/// Tells where neighbouring minima differ by much more than neighbours usually do.
fn steps(segments: &[&[Point]]) -> impl Fn(&Point, &Point) -> bool + use<> {
    let pairs = segments.iter().flat_map(|segment| segment.iter().zip(segment.iter().skip(1)));
    let usual = median(pairs.clone().filter_map(|(a, b)| slope(a, b)).collect());
    let deviation =
        move |a: &Point, b: &Point| (b.transit_ns - a.transit_ns - usual * b.at.since(a.at) as f64).abs();
    let most = (8.0 * median(pairs.map(|(a, b)| deviation(a, b)).collect())).max(STEP_NS);
    move |a, b| deviation(a, b) > most
}

fn median(mut values: Vec<f64>) -> f64 {
    let middle = values.len() / 2;
    values.sort_unstable_by(f64::total_cmp);
    values.get(middle).copied().unwrap_or(0.0)
}

fn slope(a: &Point, b: &Point) -> Option<f64> {
    let elapsed = b.at.since(a.at);
    (elapsed > 0).then(|| (b.transit_ns - a.transit_ns) / elapsed as f64)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// `seconds` of packets every 20 ms from a clock that is off by `ppm`, queueing as `queue` says.
    fn run(drift: &mut Drift, from_s: u64, seconds: u64, ppm: f64, begins: bool, queue: impl Fn(u64) -> f64) {
        for n in 0..seconds * 50 {
            let at = Nanos(from_s * 1_000_000_000 + n * 20_000_000);
            let elapsed = n as f64 * 2e7;
            drift.observe(at, -elapsed * ppm / 1e6 + queue(n), begins && n == 0);
        }
    }

    /// Up to `most_ns`, without order (splitmix64).
    fn noise(n: u64, most_ns: f64) -> f64 {
        let mut z = n.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) >> 11) as f64 / (1_u64 << 53) as f64 * most_ns
    }

    #[test]
    fn a_clock_is_measured_through_jitter() {
        for ppm in [-300.0, -20.0, 0.0, 55.0, 1000.0] {
            let mut drift = Drift::default();
            run(&mut drift, 1, 120, ppm, true, |n| noise(n, 10e6));
            let got = drift.estimate().unwrap();
            assert!((got.ppm - ppm).abs() < 10.0, "{ppm}: {got:?}");
            assert!(got.ppm_ci[1] - got.ppm_ci[0] < 40.0, "{got:?}");
        }
    }

    #[test]
    fn the_confidence_interval_holds_the_truth_as_often_as_it_says() {
        let held = (0..200_u64).filter(|seed| {
            let mut drift = Drift::default();
            run(&mut drift, 1, 30, 50.0, true, |n| noise(n + seed * 100_000, 20e6));
            let [low, high] = drift.estimate().unwrap().ppm_ci;
            (low..=high).contains(&50.0)
        });
        // 95 % of 200 are 190; three standard deviations are 9.
        let held = held.count();
        assert!(held >= 181, "{held} of 200");
    }

    #[test]
    fn a_queue_that_stands_for_a_quarter_of_the_call_is_no_drift() {
        let mut drift = Drift::default();
        run(&mut drift, 1, 60, 0.0, true, |n| if (1_000..1_750).contains(&n) { 80e6 } else { noise(n, 1e6) });
        assert!(drift.estimate().unwrap().ppm.abs() < 20.0, "{:?}", drift.estimate());
    }

    #[test]
    fn jumps_between_segments_are_no_drift_however_large() {
        let mut drift = Drift::default();
        for part in 0..4 {
            run(&mut drift, 1 + part * 12, 10, 40.0, true, |n| part as f64 * 2.56e9 + noise(n, 0.2e6));
        }
        let got = drift.estimate().unwrap();
        assert!((got.ppm - 40.0).abs() < 10.0, "{got:?}");
    }

    #[test]
    fn pauses_that_a_sender_does_not_count_are_steps_and_no_drift() {
        let mut drift = Drift::default();
        let pauses = [150, 161, 162, 215, 350, 361, 620, 900];
        let late = |n: u64| pauses.iter().filter(|pause| **pause <= n).count() as f64 * 150e6;
        run(&mut drift, 1, 30, 30.0, true, |n| late(n) + noise(n, 0.2e6));
        let got = drift.estimate().unwrap();
        assert!((got.ppm - 30.0).abs() < 15.0, "{got:?}");
        assert!(drift.slope().abs() < QUICK_MOST);
    }

    /// Each begins with the packet after an interruption, and ends with its block: alone, it says nothing, and goes.
    #[test]
    fn what_follows_a_point_that_was_alone_when_room_was_made_stays_apart_from_what_was_before() {
        let mut drift = Drift::default();
        run(&mut drift, 1, MAX_POINTS as u64 - 1, 0.0, true, |_| 0.0);
        // The 32nd point, and the block that is closed into the room of it, are of another segment, five seconds later.
        run(&mut drift, 37, 3, 0.0, true, |_| 2e9);
        let lengths = |drift: &Drift| -> Vec<usize> {
            let points = &drift.points;
            segments(&points.list, points.firsts.into()).into_iter().map(<[Point]>::len).collect()
        };
        assert_eq!(lengths(&drift), [16, 1]);
        assert!(drift.slope().abs() < 1e-9);
    }

    #[test]
    fn a_sender_that_pauses_in_most_seconds_has_no_drift_but_a_reason() {
        let mut drift = Drift::default();
        // One packet of forty comes 70 ms later than it should, and so do all after it.
        let late: Vec<_> = (0..1_500)
            .scan(0.0, |late, n| {
                *late += if noise(n, 1.0) < 0.025 { 70e6 } else { 0.0 };
                Some(*late)
            })
            .collect();
        run(&mut drift, 1, 30, 0.0, true, |n| late[usize::try_from(n).unwrap()]);
        assert!(drift.estimate().unwrap_err().starts_with("uncertain"));
    }

    #[test]
    fn a_wrong_clock_rate_is_no_step_however_wrong() {
        for ppm in [12_500.0, -500_000.0, 1_000_000.0] {
            let mut drift = Drift::default();
            run(&mut drift, 1, 30, ppm, true, |n| noise(n, 5e6));
            let got = drift.estimate().unwrap();
            assert!((got.ppm / ppm - 1.0).abs() < 0.01, "{ppm}: {got:?}");
        }
    }

    #[test]
    fn a_short_stream_has_no_drift_but_a_reason() {
        let mut drift = Drift::default();
        run(&mut drift, 1, 7, 50.0, true, |_| 0.0);
        assert!(drift.estimate().unwrap_err().starts_with("too short"));
    }

    #[test]
    fn a_day_takes_no_more_memory_than_half_a_minute() {
        let mut drift = Drift::default();
        for n in 0..86_400_u64 {
            drift.observe(Nanos(n * 1_000_000_000), -(n as f64) * 25e3 + noise(n, 5e6), n == 0);
        }
        assert!(drift.points.list.len() <= MAX_POINTS);
        let got = drift.estimate().unwrap();
        assert!((got.ppm - 25.0).abs() < 0.5, "{got:?}");
    }

    proptest! {
        #[test]
        fn whatever_comes_memory_is_bounded_and_numbers_are_finite(
            steps in prop::collection::vec((0_u64..5_000_000_000, -1e12..1e12_f64, prop::bool::weighted(0.2)), 1..600)
        ) {
            let mut drift = Drift::default();
            let mut at = 0;
            for (step, transit, begins) in steps {
                at += step;
                drift.observe(Nanos(at), transit, begins);
                prop_assert!(drift.points.list.len() <= MAX_POINTS);
            }
            if let Ok(got) = drift.estimate() {
                prop_assert!(got.ppm.is_finite() && got.ppm_ci[0] <= got.ppm && got.ppm <= got.ppm_ci[1]);
            }
        }
    }
}

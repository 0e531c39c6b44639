//! What was left out of the media, by configuration or by overload, and whose it was.
//!
//! Nothing that was left out is held against the network, or against a call: a stream that was shed says so and has no
//! score, a call of that time is not said to be without media, and what a far end reports of that time is not compared.

use serde::Serialize;

use super::contract::{CaptureReport, StreamReport};
use super::health::{ShedEntry, Status, StreamEntry};
use crate::packet::Nanos;
use crate::pipeline::Loss;
use crate::pipeline::live::Outcome;
use crate::pipeline::shed::{History, Period};

/// Packets that are missed this long before a stream's first or after its last are its own: no codec pauses longer between
/// two packets without a word, and more than this is never under way.
pub(super) const EDGE_NS: u64 = 1_000_000_000;
/// What reports of a receiver cover: the longest distance of two of them, with one lost.
const REPORTS_NS: u64 = 15_000_000_000;
/// Periods told of one stream.
const MAX_PERIODS: usize = 16;

/// Why a stream that was shed has no score.
const NO_SCORE: &str = "the probe was overloaded and shed this session";
/// Why one has none that is here although its session is left out: fragments always are taken.
const IN_PART: &str = "--sample leaves out this session, but for its fragments";

/// What `--sample` keeps.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct SamplingReport {
    /// Media sessions kept, in percent of all.
    pub kept_percent: f64,
}

/// Frames that are taken whole and were longer than that.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct CutReport {
    /// Bytes taken of them.
    pub snap_bytes: u16,
    /// How many there were.
    pub frames: u64,
    /// Of them, SIP: what a message says after the cut, often its SDP, is not known.
    pub sip_frames: u64,
}

impl CutReport {
    /// Of a run, if anything was.
    pub(super) fn of(outcome: &Outcome) -> Option<Self> {
        let frames = outcome.counters.total().cut;
        let Outcome { snap_bytes, remains, .. } = outcome;
        (frames > 0).then_some(Self { snap_bytes: *snap_bytes, frames, sip_frames: remains.sip_frames_cut })
    }
}

/// What was shed, and when.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct SheddingReport {
    /// For how long anything was.
    pub seconds: f64,
    /// The most that was shed at a time, in percent of the media sessions that are not left out anyway.
    pub highest_percent: f64,
    /// Streams listed that were shed for a time.
    pub streams: u64,
    /// From when on how much; the last 1,024 changes.
    pub changes: Vec<SheddingChange>,
}

/// A new level.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct SheddingChange {
    /// Seconds since the capture began.
    pub time_s: f64,
    /// Shed from then on, in percent of the media sessions.
    pub percent: f64,
}

/// A time in which a stream was shed.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct ShedPeriod {
    /// Seconds since the capture began.
    pub from_s: f64,
    /// Likewise; null if it lasted to the end.
    pub to_s: Option<f64>,
}

impl ShedPeriod {
    fn new(period: &Period, started: Nanos) -> Self {
        let seconds = |at: Nanos| at.since(started) as f64 / 1e9;
        Self { from_s: seconds(period.from), to_s: period.until.map(seconds) }
    }
}

impl CaptureReport {
    /// Takes in what was left out of a capture that `started` and ended then, and whose streams these are.
    pub(super) fn leave_out(
        &mut self,
        history: History,
        streams: &[StreamReport],
        [started, ended]: [Nanos; 2],
    ) {
        self.sampling = history
            .is_sampled()
            .then(|| SamplingReport { kept_percent: 100.0 - history.sampled_out_percent() });
        self.shedding = history.has_shed().then(|| SheddingReport {
            seconds: history.seconds(ended),
            highest_percent: history.shed_percent(history.highest()),
            streams: streams.iter().filter(|stream| stream.is_shed()).count() as u64,
            changes: history
                .changes()
                .map(|(at, level)| SheddingChange {
                    time_s: at.since(started) as f64 / 1e9,
                    percent: history.shed_percent(level),
                })
                .collect(),
        });
        self.history = history;
    }

    /// Why media of the time between these two may be missing, if it may.
    pub(super) fn why_left_out(&self, first: Nanos, last: Nanos) -> Option<&'static str> {
        if self.history.is_any_shed(first, last) {
            Some("media was shed at the time, as the probe was overloaded: its own may have been")
        } else if self.history.is_sampled() {
            Some("--sample keeps the media of some sessions only: its own may have been left out")
        } else {
            None
        }
    }

    /// Frames of RTP that were left out.
    pub(super) fn left_out(&self) -> u64 {
        [Loss::Shed, Loss::SampledOut].iter().filter_map(|loss| self.losses.get(loss.name())).sum()
    }
}

impl StreamReport {
    /// Was it shed for a time?
    pub(super) fn is_shed(&self) -> bool {
        !self.shed.is_empty()
    }

    /// Notes when it was shed, or that it is left out by configuration. What came in a tunnel never is.
    pub(super) fn mark_shed(&mut self, history: &History, started: Nanos) {
        if self.encapsulation != "none" {
            return;
        }
        if history.samples_out(self.identity.key.flow.bucket()) {
            return self.lack_score(IN_PART);
        }
        let first = Nanos(self.identity.first_seen.0.saturating_sub(EDGE_NS));
        let last = Nanos(self.identity.last_seen.0.saturating_add(EDGE_NS));
        let periods = history.periods_between(self.identity.key.flow.bucket(), first, last);
        self.shed = periods.iter().take(MAX_PERIODS).map(|period| ShedPeriod::new(period, started)).collect();
        if self.is_shed() {
            self.lack_score(NO_SCORE);
        }
    }

    fn lack_score(&mut self, reason: &str) {
        self.doubt_loss();
        (self.mos, self.mos_absent_because) = (None, Some(reason.to_owned()));
        (self.mos_cq, self.mos_cq_absent_because) = (None, Some(reason.to_owned()));
    }
}

/// What was left out in an interval.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Interval {
    /// Those below it are left out by configuration.
    floor: u32,
    /// Sessions of buckets below it were shed at some time in the interval, or just before.
    shed_below: u32,
    /// Or in the time that a report of a far end covers.
    unreported_below: u32,
}

impl Interval {
    /// From `began` to `now`.
    pub(super) fn of(history: &History, began: Nanos, now: Nanos) -> Self {
        let back = |ns| Nanos(began.0.saturating_sub(ns));
        Self {
            floor: history.floor(),
            shed_below: history.highest_between(back(EDGE_NS), now),
            unreported_below: history.highest_between(back(REPORTS_NS), now),
        }
    }

    /// Can what its far end reports be compared with what came here?
    pub(super) fn is_comparable(self, line: &StreamEntry) -> bool {
        !line.is_plain || u32::from(line.key.flow.bucket()) >= self.unreported_below
    }

    /// Marks a line of a stream that was shed in the interval.
    pub(super) fn mark(self, line: &mut StreamEntry) {
        let bucket = u32::from(line.key.flow.bucket());
        if line.is_plain && bucket < self.shed_below {
            line.doubt_loss();
            let is_sampled_out = bucket < self.floor;
            (line.is_shed, line.status) = (!is_sampled_out, Status::Hole);
            let reason = if is_sampled_out { IN_PART } else { NO_SCORE };
            (line.mos, line.mos_absent_because) = (None, Some(reason.to_owned()));
        }
    }
}

/// What is to be told of a change from one level to another, with so many frames shed since it began.
pub(super) fn told(history: &History, before: u32, frames: u64) -> ShedEntry {
    let (level, percent) = (history.level(), history.shed_percent(history.level()));
    let none = history.shed_percent(before) == 0.0;
    let change = match () {
        () if percent == 0.0 => "ended",
        () if none => "began",
        () if level > before => "raised",
        () => "lowered",
    };
    ShedEntry { change, percent, frames, advice: if level > before { Loss::Shed.advice() } else { "" } }
}

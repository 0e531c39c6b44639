//! What the rounds of an interval add up to, until the interval is told as a whole.
//!
//! Of many streams only the worst lines are kept, as many as are shown, and what all of them add up to: memory does not grow
//! with the streams. Where all lines are shown, each round's go on at once.

use std::collections::{BTreeMap, HashMap};

use super::contract::Finding;
use super::findings::{self, CopiedLines};
use super::health::StreamEntry;
use crate::capture::live::Occupancy;
use crate::dedup::stats::CauseReport;
use crate::packet::Nanos;
use crate::rtcp::News;

/// A stream's line, and when its interval ended.
pub(super) type Line = (Nanos, StreamEntry);

/// The sender that a report is about, and between which hosts: SSRC, sender, reporter.
type About = (u32, [u8; 16], [u8; 16]);

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Interval {
    /// Which, from 1.
    pub(super) number: u64,
    /// Streams heard.
    pub(super) streams: u64,
    /// Of them, by status.
    pub(super) by_status: BTreeMap<&'static str, u64>,
    /// Lines of streams and of their ends that are not shown.
    pub(super) lines_left_out: u64,
    /// Ends of streams that are.
    pub(super) ends_shown: usize,
    /// The fullest that any ring was.
    pub(super) ring_peak_percent: u64,
    /// The worst lines so far.
    worst: Vec<Line>,
    /// What receivers said of the streams.
    reports: HashMap<About, News>,
    copied: CopiedLines,
}

impl Interval {
    /// The interval of this number, of which nothing is known yet.
    pub(super) fn new(number: u64) -> Self {
        Self { number, ..Self::default() }
    }

    /// Takes what receivers reported; the worst of several reports on one stream.
    pub(super) fn report(&mut self, news: Vec<News>) {
        for news in news {
            let about = (news.ssrc, news.flow.dst.address, news.flow.src.address);
            let worst = self.reports.entry(about).or_insert(news);
            if news.lost_percent > worst.lost_percent {
                *worst = news;
            }
        }
    }

    /// Gives a line what its receiver said of it.
    pub(super) fn join_report(&self, line: &mut StreamEntry) {
        if let Some(news) = self.reports.get(&(line.key.ssrc, line.src.address, line.dst.address)) {
            line.hear(news);
        }
    }

    /// Takes the lines of a round that ended then. Returns those that are to be told now: all, if all are shown.
    pub(super) fn hear(&mut self, at: Nanos, lines: Vec<StreamEntry>, shown: usize) -> Vec<Line> {
        self.streams += lines.len() as u64;
        for line in &lines {
            *self.by_status.entry(line.status.word()).or_insert(0) += 1;
        }
        self.copied.hear(&lines);
        let lines = lines.into_iter().map(|line| (at, line));
        if shown == usize::MAX {
            return in_order(lines.collect());
        }
        self.worst.extend(lines);
        if let Some(left_out) = self.worst.len().checked_sub(shown).filter(|left_out| *left_out > 0) {
            let lost = |line: &StreamEntry| line.lost_percent;
            self.worst.sort_by(|(_, a), (_, b)| b.status.cmp(&a.status).then(lost(b).total_cmp(&lost(a))));
            self.worst.truncate(shown);
            self.lines_left_out += left_out as u64;
        }
        Vec::new()
    }

    /// Notes how full the rings were since the last round.
    pub(super) fn look_at(&mut self, rings: &[Occupancy]) {
        let fullest = rings.iter().map(|ring| ring.highest_bytes * 100 / ring.size_bytes.max(1)).max();
        self.ring_peak_percent = self.ring_peak_percent.max(fullest.unwrap_or(0));
    }

    /// Is every frame copied? `name` fills in a tunnel's session.
    pub(super) fn find_copies(&self, name: impl Fn(&mut CauseReport)) -> Option<Finding> {
        findings::live_copies(&self.copied, name)
    }

    /// The worst lines, in the order of calls.
    pub(super) fn take_worst(&mut self) -> Vec<Line> {
        in_order(std::mem::take(&mut self.worst))
    }
}

fn in_order(mut lines: Vec<Line>) -> Vec<Line> {
    lines.sort_by(|(_, a), (_, b)| (&a.call_id, a.src, a.dst).cmp(&(&b.call_id, b.src, b.dst)));
    lines
}

//! What was found about copies: how many of which kind, how late, with examples.

use serde::Serialize;

use super::cause::{Cause, Differs, explain};
use crate::histogram::MicrosHistogram;
use crate::packet::Evidence;

/// Kinds told apart in one account. Two taps make one kind, four taps at most six; the rest adds up in the last.
const MAX_KINDS: usize = 12;
/// Examples kept of each kind: enough to look them up in Wireshark.
const EXAMPLES: usize = 3;

/// The account of copies of one stream, or of all SIP.
#[derive(Clone, Debug, Default)]
pub struct CopyStats {
    kinds: Vec<Kind>,
    total: u64,
}

#[derive(Clone, Debug)]
struct Kind {
    cause: Cause,
    differs: Differs,
    count: u64,
    delays: MicrosHistogram,
    examples: Vec<(u64, u64)>,
}

impl CopyStats {
    /// Adds one copy, seen `delay_ns` after its original; the numbers are those of the two frames.
    pub fn observe(
        &mut self,
        original: &Evidence,
        copy: &Evidence,
        delay_ns: i64,
        original_number: u64,
        copy_number: u64,
    ) -> (Cause, Differs) {
        let (cause, differs) = explain(original, copy);
        self.total += 1;
        let found = self.kinds.iter().position(|k| k.cause == cause && k.differs == differs);
        let at = found.unwrap_or_else(|| {
            if self.kinds.len() < MAX_KINDS {
                self.kinds.push(Kind::new(cause, differs));
            }
            self.kinds.len() - 1
        });
        if let Some(kind) = self.kinds.get_mut(at) {
            kind.count += 1;
            kind.delays.record_ns(delay_ns.unsigned_abs());
            if kind.examples.len() < EXAMPLES {
                kind.examples.push((original_number, copy_number));
            }
        }
        (cause, differs)
    }

    /// Copies counted.
    pub fn total(&self) -> u64 {
        self.total
    }

    /// Adds all of `other`.
    pub fn merge(&mut self, other: &Self) {
        self.total += other.total;
        for theirs in &other.kinds {
            let found =
                self.kinds.iter().position(|k| k.cause == theirs.cause && k.differs == theirs.differs);
            match found
                .or((self.kinds.len() == MAX_KINDS).then_some(MAX_KINDS - 1))
                .and_then(|at| self.kinds.get_mut(at))
            {
                Some(mine) => {
                    mine.count += theirs.count;
                    mine.delays.merge(&theirs.delays);
                    let room = EXAMPLES.saturating_sub(mine.examples.len());
                    mine.examples.extend(theirs.examples.iter().take(room));
                }
                None => self.kinds.push(theirs.clone()),
            }
        }
    }

    /// Adds up the reports of several accounts, kind by kind. Delay percentiles do not add: those of the most
    /// frequent report stand for all, the ends are exact.
    pub fn sum_up<'a>(reports: impl Iterator<Item = &'a CauseReport>) -> Vec<CauseReport> {
        let mut sums: Vec<(CauseReport, u64)> = Vec::new();
        for report in reports {
            match sums.iter_mut().find(|(sum, _)| sum.cause == report.cause && sum.differs == report.differs)
            {
                None => sums.push((report.clone(), report.count)),
                Some((sum, most)) => {
                    sum.count += report.count;
                    if report.count > *most {
                        *most = report.count;
                        (sum.delay_us.p50, sum.delay_us.p99) = (report.delay_us.p50, report.delay_us.p99);
                    }
                    sum.delay_us.min = sum.delay_us.min.min(report.delay_us.min);
                    sum.delay_us.max = sum.delay_us.max.max(report.delay_us.max);
                    let room = EXAMPLES.saturating_sub(sum.examples.len());
                    sum.examples.extend(report.examples.iter().take(room));
                }
            }
        }
        let mut causes: Vec<_> = sums.into_iter().map(|(sum, _)| sum).collect();
        causes.sort_by(|a, b| b.count.cmp(&a.count).then(a.cause.cmp(&b.cause)));
        causes
    }

    /// The kinds as a report shows them, most frequent first.
    pub fn causes(&self) -> Vec<CauseReport> {
        let mut causes: Vec<_> = self.kinds.iter().map(Kind::report).collect();
        causes.sort_by(|a, b| b.count.cmp(&a.count).then(a.cause.cmp(&b.cause)));
        causes
    }
}

impl Kind {
    fn new(cause: Cause, differs: Differs) -> Self {
        Self { cause, differs, count: 0, delays: MicrosHistogram::default(), examples: Vec::new() }
    }

    fn report(&self) -> CauseReport {
        CauseReport {
            cause: self.cause,
            count: self.count,
            differs: self.differs,
            delay_us: DelayReport {
                min: self.delays.min_ns().unwrap_or(0) as f64 / 1000.0,
                p50: self.delays.percentile_us(50.0).unwrap_or(0.0),
                p99: self.delays.percentile_us(99.0).unwrap_or(0.0),
                max: self.delays.max_ns().unwrap_or(0) as f64 / 1000.0,
            },
            examples: self.examples.clone(),
        }
    }
}

/// One kind of copy.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct CauseReport {
    /// Why.
    pub cause: Cause,
    /// Copies of this kind.
    pub count: u64,
    /// In what original and copy differ.
    pub differs: Differs,
    /// How long after the original, in microseconds.
    pub delay_us: DelayReport,
    /// Frame numbers of examples: original and copy.
    pub examples: Vec<(u64, u64)>,
}

/// Distribution of the delay between original and copy, in microseconds. Ends are exact.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct DelayReport {
    /// Shortest.
    pub min: f64,
    /// Median.
    pub p50: f64,
    /// 99 % are not later.
    pub p99: f64,
    /// Longest.
    pub max: f64,
}

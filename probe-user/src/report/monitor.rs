//! From events to entries: what the control plane of a live probe keeps between two intervals.

use std::collections::BTreeMap;

use super::contract::{CaptureReport, Report, StreamReport, verdicts_by_name};
use super::findings;
use super::health::{CallEntry, EndEntry, Entry, LossEntry, StreamEntry, SummaryEntry};
use crate::capture::live::{KernelCounters, Occupancy};
use crate::packet::Nanos;
use crate::pipeline::live::{Outcome, add_kernel_losses};
use crate::pipeline::shard::ReceiverStatus;
use crate::pipeline::table::End;
use crate::pipeline::{Account, Event, Loss};
use crate::rtp::stream::StreamParts;

/// Streams that ended before the end and are kept for the final report; later ones are in the log, and counted.
const MAX_ENDED: usize = 10_000;

/// See the module.
#[derive(Debug)]
pub struct Monitor {
    started: Nanos,
    shards: usize,
    lines_shown: usize,
    entries: Vec<Entry>,
    lines: Vec<StreamEntry>,
    done: usize,
    receiver: Option<ReceiverStatus>,
    shard_analysed: u64,
    finished_analysed: u64,
    evicted: u64,
    events_dropped: u64,
    reported: Account,
    ended: Vec<StreamParts>,
    ended_left_out: u64,
    copies_found: bool,
    /// Flows that looked like RTP and never proved to be.
    patterns: u64,
}

impl Monitor {
    /// For a probe that started then, with so many shards, showing so many stream lines an interval.
    pub fn new(started: Nanos, shards: usize, lines_shown: usize) -> Self {
        Self {
            started,
            shards,
            lines_shown,
            entries: Vec::new(),
            lines: Vec::new(),
            done: 0,
            receiver: None,
            shard_analysed: 0,
            finished_analysed: 0,
            evicted: 0,
            events_dropped: 0,
            reported: Account::default(),
            ended: Vec::new(),
            ended_left_out: 0,
            copies_found: false,
            patterns: 0,
        }
    }

    /// Takes one event. True if it completed an interval, which is then to be [closed](Self::close).
    pub fn take(&mut self, event: Event) -> bool {
        match event {
            Event::Interval(line) => {
                let entry = StreamEntry::new(*line);
                // Silent in this interval: its end will be told when it is one.
                if entry.frames > 0 {
                    self.lines.push(entry);
                }
            }
            Event::Ended(parts, end) => self.end(*parts, end),
            Event::IntervalDone(status) => {
                self.done += 1;
                self.shard_analysed += status.analysed;
            }
            Event::Finished(status) => {
                self.finished_analysed += status.analysed;
                self.evicted += status.evicted;
                self.events_dropped += status.events_dropped;
            }
            Event::Receiver(status) => self.receiver = Some(status),
            Event::Call(event) => self.entries.push(Entry::Call(CallEntry::new(&event))),
        }
        self.done == self.shards && self.receiver.is_some()
    }

    fn end(&mut self, parts: StreamParts, end: End) {
        if !parts.valid {
            self.patterns += 1;
            return;
        }
        if end != End::Finished {
            let ended = match end {
                End::Silent => "silent",
                End::Evicted => "evicted",
                End::Finished => "finished",
            };
            let start_s = parts.first_seen.since(self.started) as f64 / 1e9;
            let report = StreamReport::new(parts.clone(), start_s);
            self.entries.push(Entry::StreamEnd(Box::new(EndEntry { ended, report })));
        }
        // Those that the end finds in the table are bounded by it.
        if end == End::Finished || self.ended.len() < MAX_ENDED {
            self.ended.push(parts);
        } else {
            self.ended_left_out += 1;
        }
    }

    /// Turns what was gathered into entries: worst streams first, then losses, then the sum.
    pub fn close(&mut self, counters: &KernelCounters, rings: &[Occupancy]) {
        let Some(receiver) = self.receiver.take() else { return };
        let mut account = receiver.account;
        account.analysed += std::mem::take(&mut self.shard_analysed);
        account.matched = counters.matched();
        add_kernel_losses(&mut account, counters);
        self.done = 0;

        let mut lines = std::mem::take(&mut self.lines);
        if account.lost_by_the_probe() > self.reported.lost_by_the_probe() {
            lines.iter_mut().for_each(StreamEntry::doubt_loss);
        }
        let mut by_status = BTreeMap::new();
        for line in &lines {
            *by_status.entry(line.status.word()).or_insert(0) += 1;
        }
        self.find_copies(&lines);
        let streams = lines.len() as u64;
        let left_out = lines.len().saturating_sub(self.lines_shown);
        if left_out > 0 {
            lines.sort_by(|a, b| b.status.cmp(&a.status).then(b.lost_percent.total_cmp(&a.lost_percent)));
            lines.truncate(self.lines_shown);
        }
        lines.sort_by(|a, b| (&a.call_id, a.src, a.dst).cmp(&(&b.call_id, b.src, b.dst)));
        self.entries.extend(lines.into_iter().map(|line| Entry::Stream(Box::new(line))));
        self.report_losses(&account);
        self.entries.push(Entry::Summary(SummaryEntry {
            calls: receiver.calls,
            streams,
            by_status,
            matched: account.matched,
            analysed: account.analysed,
            losses: account.losses(),
            in_flight: account.unaccounted().max(0).unsigned_abs(),
            ring_peak_percent: peak_percent(rings),
            lines_left_out: left_out as u64,
        }));
        self.reported = account;
    }

    /// A line when the probe itself lost something since the last one.
    fn report_losses(&mut self, account: &Account) {
        let grown: BTreeMap<_, _> = Loss::ALL
            .into_iter()
            .map(|loss| (loss, account.lost_to(loss).saturating_sub(self.reported.lost_to(loss))))
            .filter(|(_, frames)| *frames > 0)
            .collect();
        let Some((worst, _)) = grown.iter().max_by_key(|(_, frames)| **frames) else { return };
        let advice = worst.advice();
        let losses = grown.into_iter().map(|(loss, frames)| (loss.name(), frames)).collect();
        self.entries.push(Entry::Loss(LossEntry { losses, advice }));
    }

    /// Says once that every frame is copied, and again after it had stopped.
    fn find_copies(&mut self, lines: &[StreamEntry]) {
        let finding = findings::live_copies(lines);
        let found = finding.is_some();
        if let Some(finding) = finding.filter(|_| !self.copies_found) {
            self.entries.push(Entry::Finding(finding));
        }
        self.copies_found = found;
    }

    /// The entries since the last call.
    pub fn drain(&mut self) -> std::vec::Drain<'_, Entry> {
        self.entries.drain(..)
    }

    /// The final report, and its entries: every stream, every finding, the sum. The text log gets the report
    /// itself instead of the first two.
    pub fn finish(&mut self, outcome: Outcome, interfaces: &[String], is_text: bool) -> Report {
        let mut account = outcome.remains.account;
        account.analysed += self.finished_analysed;
        self.lines.clear();
        let (first, last) = (outcome.remains.first, outcome.remains.last);
        let mut notes = Vec::new();
        if self.ended_left_out > 0 {
            notes.push(format!("{} more streams ended; their lines are in the log", self.ended_left_out));
        }
        if self.evicted > 0 {
            notes.push(format!("{} streams had to make room for others (--max-streams)", self.evicted));
        }
        if self.events_dropped > 0 {
            notes
                .push(format!("{} log lines were dropped because the log was too slow", self.events_dropped));
        }
        if self.patterns > 0 {
            notes.push(format!(
                "{} UDP flows looked like RTP but never had two consecutive sequence numbers",
                self.patterns
            ));
        }
        let total = outcome.counters.total();
        if total.cut > 0 {
            notes.push(format!("{} frames were longer than 16 KiB and were cut", total.cut));
        }
        if outcome.remains.endpoints_refused > 0 {
            notes.push(format!(
                "{} announced endpoints did not fit the kernel's table; their media was taken by --rtp-ports only",
                outcome.remains.endpoints_refused
            ));
        }
        let unknown: u64 = outcome.counters.unknown.verdicts.iter().sum();
        if unknown > 0 {
            notes.push(format!("{unknown} frames came from an interface that was renumbered meanwhile"));
        }
        let capture = CaptureReport {
            sources: interfaces.to_vec(),
            packets: total.verdicts.iter().sum(),
            bytes: total.matched_bytes,
            duration_s: first.map_or(0.0, |first| last.since(first) as f64 / 1e9),
            matched: account.matched,
            analysed: account.analysed,
            losses: account.losses(),
            verdicts: verdicts_by_name(&total.verdicts),
            notes,
        };
        let streams = StreamReport::list(std::mem::take(&mut self.ended), Some(self.started));
        let calls =
            outcome.remains.signalling.calls.iter().filter(|call| !call.state.is_over()).count() as u64;
        let mut report = Report::new(capture, streams, outcome.remains.signalling);
        // Live, there is no file in which anybody could look up a frame.
        report.findings.iter_mut().for_each(|finding| finding.evidence.clear());
        if !is_text {
            let ends = report.streams.iter().cloned().map(|report| EndEntry { ended: "finished", report });
            self.entries.extend(ends.map(|end| Entry::StreamEnd(Box::new(end))));
            self.entries.extend(report.findings.iter().cloned().map(Entry::Finding));
        }
        self.report_losses(&account);
        self.entries.push(Entry::Summary(SummaryEntry {
            calls,
            streams: report.streams.len() as u64,
            by_status: BTreeMap::new(),
            matched: account.matched,
            analysed: account.analysed,
            losses: account.losses(),
            in_flight: account.unaccounted().max(0).unsigned_abs(),
            ring_peak_percent: 0,
            lines_left_out: 0,
        }));
        report
    }
}

fn peak_percent(rings: &[Occupancy]) -> u64 {
    rings.iter().map(|ring| ring.highest_bytes * 100 / ring.size_bytes.max(1)).max().unwrap_or(0)
}

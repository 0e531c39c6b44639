//! From events to entries: what the control plane of a live probe keeps between two intervals.
//!
//! Intervals are numbered rounds, because events can be dropped when the control plane is behind: a round is over
//! when all shards and the receiver have told it, or when something of a later one comes. So a round that lacks
//! an event costs lines of its own, and never those of the rounds after it.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::Arc;

use super::call_desk::CallDesk;
use super::call_entry::CallEntry;
use super::contract::{CaptureReport, Report, StreamReport, TunnelReport, verdicts_by_name};
use super::forensics::{Explanation, Told, changes_media};
use super::health::{EndEntry, Entry, LossEntry, StreamEntry, SummaryEntry, TapEntry};
use super::left_out::{self, CutReport, Interval};
use super::{findings, joins};
use crate::capture::live::{KernelCounters, Occupancy};
use crate::decode::CarrierReport;
use crate::dedup::stats::{CauseReport, Session};
use crate::dedup::topology::{Change, Watch};
use crate::packet::{Encapsulation, Nanos};
use crate::pipeline::live::{Outcome, add_kernel_losses};
use crate::pipeline::shard::{ReceiverStatus, ShardStatus};
use crate::pipeline::shed::{History, SharedHistory};
use crate::pipeline::table::End;
use crate::pipeline::{Account, Event, Loss};
use crate::rtcp::News;
use crate::rtp::stream::StreamParts;
use crate::sip::CallEvent;
use crate::sip::calls::Moment;

/// Streams that ended before the end and are kept for the final report; later ones are in the log, and counted.
const MAX_ENDED: usize = 10_000;
/// Ends told in one interval: a scanner can make streams end as fast as it makes them begin.
const MAX_END_LINES: usize = 1_000;
/// REFERs, holds, re-INVITEs and BYEs that are remembered for the pauses that they make.
const MAX_MOMENTS: usize = 4_096;
/// Carriers of tunnels that the log tells; there can be a thousand in a mobile network.
const MAX_CARRIER_LINES: u16 = 32;

/// An entry, and when what it tells was so.
#[derive(Clone, Debug)]
pub struct Stamped {
    /// By the clock that stamps frames; `None` is now.
    pub at: Option<Nanos>,
    /// What it tells.
    pub entry: Entry,
}

impl Stamped {
    fn call((at, entry): (Nanos, CallEntry)) -> Self {
        Self { at: Some(at), entry: Entry::Call(Box::new(entry)) }
    }
}

/// See the module.
#[derive(Debug)]
pub struct Monitor {
    started: Nanos,
    lines_shown: usize,
    /// What is left out of the media.
    shedding: SharedHistory,
    /// The level that was told last.
    told_level: u32,
    /// When the round that is gathered began.
    began: Nanos,
    entries: Vec<Stamped>,
    /// The round that is gathered.
    round: u64,
    lines: Vec<StreamEntry>,
    /// What receivers said of them.
    reports: Vec<News>,
    ends: Vec<EndEntry>,
    ends_left_out: u64,
    receiver: Option<ReceiverStatus>,
    /// What began a later round before this one was complete.
    next: Option<Event>,
    /// The last that each shard told: replaced, so that what is dropped is made good by the next.
    shards: Vec<ShardStatus>,
    finished: ShardStatus,
    reported: Account,
    losses_grew: bool,
    /// The end of the last round in which the probe itself lost frames.
    lost_until: Option<Nanos>,
    ended: Vec<StreamParts>,
    ended_left_out: u64,
    copies_found: bool,
    taps: Watch,
    /// REFERs and the like of late, with their Call-IDs.
    moments: VecDeque<(Arc<str>, Moment)>,
    /// Calls in progress, and what their media is like.
    desk: CallDesk,
    /// Tunnels' sessions that were told.
    sessions: Vec<CarrierReport>,
    /// Flows that looked like RTP and never proved to be.
    patterns: u64,
}

impl Monitor {
    /// For a probe that started then, with so many shards, showing so many stream lines an interval.
    pub fn new(started: Nanos, shards: usize, lines_shown: usize) -> Self {
        Self {
            started,
            lines_shown,
            shedding: SharedHistory::default(),
            told_level: 0,
            began: started,
            entries: Vec::new(),
            round: 0,
            lines: Vec::new(),
            reports: Vec::new(),
            ends: Vec::new(),
            ends_left_out: 0,
            receiver: None,
            next: None,
            shards: vec![ShardStatus::default(); shards],
            finished: ShardStatus::default(),
            reported: Account::default(),
            losses_grew: false,
            lost_until: None,
            ended: Vec::new(),
            ended_left_out: 0,
            copies_found: false,
            taps: Watch::default(),
            moments: VecDeque::new(),
            desk: CallDesk::default(),
            sessions: Vec::new(),
            patterns: 0,
        }
    }

    /// Of a probe that may leave out media, which is told here.
    #[must_use]
    pub fn following(mut self, shedding: SharedHistory) -> Self {
        self.told_level = shedding.read().level();
        Self { shedding, ..self }
    }

    /// Tells when more is shed, or less, than when it was last asked.
    pub fn tell_shedding(&mut self) {
        let history = self.shedding.read();
        if history.level() != self.told_level {
            let entry = Entry::Shed(left_out::told(&history, self.told_level));
            self.told_level = history.level();
            self.entries.push(Stamped { at: history.changes().last().map(|(at, _)| at), entry });
        }
    }

    /// Takes one event. True if it completed an interval, which is then to be [closed](Self::close).
    pub fn take(&mut self, event: Event) -> bool {
        let round = match &event {
            Event::Interval(line) => line.round,
            Event::IntervalDone(status) => status.round,
            Event::Receiver(status) => status.round,
            Event::Ended(..)
            | Event::Finished(_)
            | Event::Call(_)
            | Event::Carrier(_)
            | Event::Reports(_) => self.round,
        };
        if round > self.round {
            if self.receiver.is_some() {
                self.next = Some(event);
                return true;
            }
            // Without the receiver's word there is no account to close it with: its lines are lost.
            self.begin(round);
        }
        self.gather(event, round == self.round);
        self.receiver.is_some() && self.shards.iter().all(|shard| shard.round >= self.round)
    }

    fn begin(&mut self, round: u64) {
        self.round = round;
        self.lines.clear();
        self.receiver = None;
    }

    /// Takes an event of this round, or a late one of a round that was closed without it.
    fn gather(&mut self, event: Event, is_current: bool) {
        match event {
            Event::Interval(line) if is_current => self.lines.push(StreamEntry::new(*line)),
            Event::Receiver(status) if is_current => self.receiver = Some(status),
            // The list is the report's; the first ones tell what is going on.
            Event::Carrier(carrier) if carrier.carrier.0 <= MAX_CARRIER_LINES => {
                let at = Some(carrier.first_seen);
                self.sessions.push(carrier);
                self.entries.push(Stamped { at, entry: Entry::Tunnel(carrier) });
            }
            Event::Interval(_) | Event::Receiver(_) | Event::Carrier(_) => {}
            Event::IntervalDone(status) => {
                if let Some(shard) = self.shards.get_mut(status.shard) {
                    *shard = status;
                }
            }
            Event::Reports(news) => self.reports = news,
            Event::Ended(parts, end) => self.end(*parts, end),
            Event::Finished(status) => {
                self.finished.analysed += status.analysed;
                self.finished.evicted += status.evicted;
                self.finished.events_dropped += status.events_dropped;
            }
            Event::Call(event) => {
                self.remember(&event);
                let time = event.moment.time;
                self.entries.extend(self.desk.event(event).map(|entry| Stamped::call((time, entry))));
            }
        }
    }

    /// Keeps what may have made a sender pause, until the pause is told; the oldest makes room.
    fn remember(&mut self, event: &CallEvent) {
        if !changes_media(event.moment.what) {
            return;
        }
        if self.moments.len() == MAX_MOMENTS {
            self.moments.pop_front();
        }
        self.moments.push_back((Arc::clone(&event.call_id), event.moment));
    }

    /// Joins pauses to the signalling at their beginning.
    fn join_moments(&self, lines: &mut [StreamEntry]) {
        for line in lines {
            let Some(gap) = &line.interruption else { continue };
            let its = self.moments.iter().filter(|(of, _)| Some(of) == line.call_id.as_ref());
            let told: Vec<_> = its.map(|(_, moment)| Told::own(*moment)).collect();
            line.explanation = Some(Explanation::new(gap, line.loss_is_upper_bound, &told));
        }
    }

    /// Says which taps began or ceased to show what others show.
    fn watch_taps(&mut self, lines: &[StreamEntry], at: Option<Nanos>) {
        let now = at.unwrap_or_default();
        for change in self.taps.round(now, lines.iter().map(|line| line.taps.as_slice())) {
            let (change, mut tap) = match change {
                Change::Appeared(tap) => ("appeared", tap),
                Change::Vanished(tap) => ("vanished", tap),
            };
            tap.carrier = Session::find(&self.sessions, tap.session, None);
            self.entries.push(Stamped { at, entry: Entry::Tap(Box::new(TapEntry { change, tap })) });
        }
    }

    fn end(&mut self, parts: StreamParts, end: End) {
        if !parts.valid {
            self.patterns += 1;
            return;
        }
        if end != End::Finished {
            let ended = match end {
                End::Shed => "shed",
                End::Silent if self.was_shed(&parts) => "shed",
                End::Silent => "silent",
                End::Evicted => "evicted",
                End::Finished => "finished",
            };
            if self.ends.len() < self.lines_shown.min(MAX_END_LINES) {
                let start_s = parts.first_seen.since(self.started) as f64 / 1e9;
                self.ends.push(EndEntry { ended, report: StreamReport::new(parts.clone(), start_s) });
            } else {
                self.ends_left_out += 1;
            }
        }
        // Those that the end finds in the table are bounded by it.
        if end == End::Finished || self.ended.len() < MAX_ENDED {
            self.ended.push(parts);
        } else {
            self.ended_left_out += 1;
        }
    }

    /// Was it shed when it fell silent?
    fn was_shed(&self, parts: &StreamParts) -> bool {
        let Nanos(last) = parts.last_seen;
        let level = self.shedding.read().highest_between(parts.last_seen, Nanos(last + left_out::EDGE_NS));
        parts.encapsulation == Encapsulation::NONE && u32::from(parts.key.flow.bucket()) < level
    }

    /// Turns what was gathered into entries: streams that ended, worst streams first, then losses, then the sum.
    pub fn close(&mut self, counters: &KernelCounters, rings: &[Occupancy]) {
        let Some(receiver) = self.receiver.take() else { return };
        let mut account = receiver.account;
        account.analysed += self.shards.iter().map(|shard| shard.analysed).sum::<u64>();
        account.matched = counters.matched() + account.unpacked;
        add_kernel_losses(&mut account, counters);

        let history = self.shedding.read();
        let left_out = Interval::of(&history, std::mem::replace(&mut self.began, receiver.now), receiver.now);
        let mut lines = std::mem::take(&mut self.lines);
        join_reports(&mut lines, &std::mem::take(&mut self.reports), left_out);
        // The interval after it, too: a hole is found by the packet that follows it.
        let grew = account.lost_by_the_probe() > self.reported.lost_by_the_probe();
        if grew {
            self.lost_until = Some(receiver.now);
        }
        if grew || self.losses_grew {
            lines.iter_mut().for_each(StreamEntry::doubt_loss);
        }
        for line in &mut lines {
            left_out.mark(line);
        }
        self.join_moments(&mut lines);
        self.losses_grew = grew;
        let at = Some(receiver.now);
        for line in &lines {
            self.desk.hear(line);
        }
        let ends_left_out = self.tell_ends(at, &history);
        let mut by_status = BTreeMap::new();
        for line in &lines {
            *by_status.entry(line.status.word()).or_insert(0) += 1;
        }
        let call_lines_left_out = self.tell_calls(at, &history);
        self.watch_taps(&lines, at);
        self.find_copies(&lines, at);
        let streams = lines.len() as u64;
        let left_out = lines.len().saturating_sub(self.lines_shown);
        if left_out > 0 {
            lines.sort_by(|a, b| b.status.cmp(&a.status).then(b.lost_percent.total_cmp(&a.lost_percent)));
            lines.truncate(self.lines_shown);
        }
        lines.sort_by(|a, b| (&a.call_id, a.src, a.dst).cmp(&(&b.call_id, b.src, b.dst)));
        let entry = |line| Stamped { at, entry: Entry::Stream(Box::new(line)) };
        self.entries.extend(lines.into_iter().map(entry));
        self.report_losses(&account, at);
        let shards_dropped: u64 = self.shards.iter().map(|shard| shard.events_dropped).sum();
        let entry = Entry::Summary(SummaryEntry {
            calls: receiver.calls,
            streams,
            by_status,
            matched: account.matched,
            analysed: account.analysed,
            losses: account.losses(),
            in_flight: account.unaccounted().max(0).unsigned_abs(),
            ring_peak_percent: peak_percent(rings),
            shed_percent: history.shed_percent(history.level()),
            lines_left_out: left_out as u64 + ends_left_out,
            call_lines_left_out,
            events_dropped: receiver.events_dropped + shards_dropped,
            announcements_given_up: receiver.announcements_given_up,
        });
        self.entries.push(Stamped { at, entry });
        self.reported = account;
        self.begin(self.round + 1);
        if let Some(event) = self.next.take() {
            // One event does not complete a round: it takes the receiver's and a shard's.
            self.take(event);
        }
    }

    /// The ends of this round; the loss of a stream that lived when the probe lost frames is doubted. Returns how
    /// many there was no room for.
    fn tell_ends(&mut self, at: Option<Nanos>, history: &History) -> u64 {
        let lost_until_s = self.lost_until.map(|time| time.since(self.started) as f64 / 1e9);
        for mut end in std::mem::take(&mut self.ends) {
            if lost_until_s.is_some_and(|time| end.report.start_s <= time) {
                end.report.doubt_loss();
            }
            end.report.mark_shed(history, self.started);
            self.entries.push(Stamped { at, entry: Entry::StreamEnd(Box::new(end)) });
        }
        std::mem::take(&mut self.ends_left_out)
    }

    /// The calls that ended in this round, and whoever floods. Returns how many lines of calls were left out.
    fn tell_calls(&mut self, at: Option<Nanos>, history: &History) -> u64 {
        let (ended, flood, left_out) = self.desk.close(history);
        self.entries.extend(ended.into_iter().map(Stamped::call));
        self.entries.extend(flood.map(|finding| Stamped { at, entry: Entry::Finding(finding) }));
        left_out
    }

    /// A line when the probe itself lost something since the last one.
    fn report_losses(&mut self, account: &Account, at: Option<Nanos>) {
        let grown: BTreeMap<_, _> = Loss::ALL
            .into_iter()
            .map(|loss| (loss, account.lost_to(loss).saturating_sub(self.reported.lost_to(loss))))
            .filter(|(loss, frames)| *frames > 0 && *loss != Loss::SampledOut)
            .collect();
        let Some((worst, _)) = grown.iter().max_by_key(|(_, frames)| **frames) else { return };
        let advice = worst.advice();
        let losses = grown.into_iter().map(|(loss, frames)| (loss.name(), frames)).collect();
        self.entries.push(Stamped { at, entry: Entry::Loss(LossEntry { losses, advice }) });
    }

    /// Says once that every frame is copied, and again after it had stopped.
    fn find_copies(&mut self, lines: &[StreamEntry], at: Option<Nanos>) {
        let session = |cause: &mut CauseReport| {
            cause.carrier = Session::find(&self.sessions, cause.session, cause.layer);
        };
        let finding = findings::live_copies(lines, session);
        let found = finding.is_some();
        if let Some(finding) = finding.filter(|_| !self.copies_found) {
            self.entries.push(Stamped { at, entry: Entry::Finding(finding) });
        }
        self.copies_found = found;
    }

    /// The entries since the last call.
    pub fn drain(&mut self) -> std::vec::Drain<'_, Stamped> {
        self.entries.drain(..)
    }

    /// The final report, and its entries: every stream, every finding, the sum. The text log gets the report
    /// itself instead of the first two.
    pub fn finish(&mut self, outcome: Outcome, interfaces: &[String], is_text: bool) -> Report {
        let mut account = outcome.remains.account;
        account.analysed += self.finished.analysed;
        self.lines.clear();
        if account.lost_by_the_probe() > self.reported.lost_by_the_probe() {
            self.lost_until = Some(outcome.remains.last);
        }
        let history = self.shedding.read();
        let ends_left_out = self.tell_ends(None, &history);
        let (first, last) = (outcome.remains.first, outcome.remains.last);
        let mut notes = Vec::new();
        if self.ended_left_out > 0 {
            notes.push(format!(
                "{} more streams ended and are not listed; the log told their ends, up to its limit of lines",
                self.ended_left_out
            ));
        }
        if self.finished.evicted > 0 {
            notes.push(format!(
                "{} streams had to make room for others (--max-streams)",
                self.finished.evicted
            ));
        }
        let events_dropped = self.finished.events_dropped + outcome.remains.events_dropped;
        if events_dropped > 0 {
            notes.push(format!(
                "{events_dropped} events were dropped because the control plane was too slow: lines are missing \
                 from the log, and streams that ended may be missing here"
            ));
        }
        if self.patterns > 0 {
            notes.push(format!(
                "{} UDP flows looked like RTP but never had two consecutive sequence numbers",
                self.patterns
            ));
        }
        let total = outcome.counters.total();
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
            tunnels: TunnelReport::of(&outcome.remains),
            remote_captures: outcome.remains.remote_captures.clone(),
            unpacked: account.unpacked,
            matched: account.matched,
            analysed: account.analysed,
            losses: account.losses(),
            verdicts: verdicts_by_name(&total.verdicts),
            cut: CutReport::of(&outcome),
            notes,
            ..CaptureReport::default()
        };
        let mut streams = StreamReport::list(std::mem::take(&mut self.ended), Some(self.started));
        for stream in &mut streams {
            stream.mark_shed(&history, self.started);
        }
        let mut capture =
            CaptureReport { beside: joins::join(&mut streams, &outcome.remains.beside), ..capture };
        capture.leave_out(history.clone(), &streams, [self.started, last]);
        let calls =
            outcome.remains.signalling.calls.iter().filter(|call| !call.state.is_over()).count() as u64;
        let mut report = Report::new(capture, streams, outcome.remains.signalling);
        let ended = self.desk.finish(&report.calls, &report.streams);
        self.entries.extend(ended.into_iter().map(Stamped::call));
        // Live, there is no file in which anybody could look up a frame.
        report.findings.iter_mut().for_each(|finding| finding.evidence.clear());
        if !is_text {
            let ends = report.streams.iter().cloned().map(|report| EndEntry { ended: "finished", report });
            let entries = ends.map(|end| Entry::StreamEnd(Box::new(end)));
            let entries = entries.chain(report.findings.iter().cloned().map(Entry::Finding));
            self.entries.extend(entries.map(|entry| Stamped { at: None, entry }));
        }
        self.report_losses(&account, None);
        let entry = Entry::Summary(SummaryEntry {
            calls,
            streams: report.streams.len() as u64,
            by_status: BTreeMap::new(),
            matched: account.matched,
            analysed: account.analysed,
            losses: account.losses(),
            in_flight: account.unaccounted().max(0).unsigned_abs(),
            ring_peak_percent: 0,
            shed_percent: history.shed_percent(history.level()),
            lines_left_out: ends_left_out,
            call_lines_left_out: 0,
            events_dropped,
            announcements_given_up: report.given_up.media_lines + outcome.remains.endpoints_refused,
        });
        self.entries.push(Stamped { at: None, entry });
        report
    }
}

fn peak_percent(rings: &[Occupancy]) -> u64 {
    rings.iter().map(|ring| ring.highest_bytes * 100 / ring.size_bytes.max(1)).max().unwrap_or(0)
}

/// Gives each line what its receiver said of it in this interval; the worst of several reports.
fn join_reports(lines: &mut [StreamEntry], reports: &[News], left_out: Interval) {
    let mut by_stream: HashMap<_, &News> = HashMap::new();
    for news in reports {
        let worst =
            by_stream.entry((news.ssrc, news.flow.dst.address, news.flow.src.address)).or_insert(news);
        if news.lost_percent > worst.lost_percent {
            *worst = news;
        }
    }
    if by_stream.is_empty() {
        return;
    }
    for line in lines.iter_mut().filter(|line| left_out.is_comparable(line)) {
        if let Some(news) = by_stream.get(&(line.key.ssrc, line.src.address, line.dst.address)) {
            line.hear(news);
        }
    }
}

#[cfg(test)]
#[path = "monitor_tests.rs"]
mod tests;

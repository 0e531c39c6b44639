//! From events to entries: what the control plane of a live probe keeps between two intervals.
//!
//! An interval is one round, or with many streams several, each of which closes a part of them. Rounds are numbered, because
//! events can be dropped when the control plane is behind: a round is over when all shards and the receiver have told it, or
//! when something of a later one comes. So a round that lacks an event costs lines of its own, and never those of the
//! rounds after it. What the rounds of an interval add up to is told at its end.

use std::collections::BTreeMap;

use super::call_desk::CallDesk;
use super::call_entry::CallEntry;
use super::contract::{CaptureReport, Report, StreamReport, TunnelReport, verdicts_by_name};
use super::forensics::{Explanation, Meanwhile, Told, changes_media};
use super::health::{EndEntry, Entry, LossEntry, StreamEntry, SummaryEntry, TapEntry};
use super::interval::{self, Interval};
use super::joins;
use super::left_out::{self, CutReport};
use super::moments::Moments;
use crate::capture::live::{KernelCounters, Occupancy};
use crate::decode::CarrierReport;
use crate::dedup::stats::{CauseReport, Session};
use crate::dedup::topology::{Change, Watch};
use crate::packet::{Encapsulation, Nanos};
use crate::pipeline::live::{Outcome, add_kernel_losses};
use crate::pipeline::shard::{ReceiverStatus, ShardStatus};
use crate::pipeline::shed::{History, SharedHistory};
use crate::pipeline::table::End;
use crate::pipeline::wheel::Part;
use crate::pipeline::{Account, Event, Loss};
use crate::rtp::stream::StreamParts;
use crate::sip::CallEvent;

/// Streams that ended before the end and are kept for the final report; later ones are in the log, and counted.
const MAX_ENDED: usize = 10_000;
/// Ends told in one interval: a scanner can make streams end as fast as it makes them begin.
const MAX_END_LINES: usize = 1_000;
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
    /// The level that was told last, and the frames that had been shed when it was the last time that of none.
    told_level: u32,
    shed_before: u64,
    /// When the interval before the running one began, and when that one did.
    begun: [Nanos; 2],
    entries: Vec<Stamped>,
    /// The round that is gathered.
    round: u64,
    lines: Vec<StreamEntry>,
    ends: Vec<EndEntry>,
    /// What the rounds of this interval add up to.
    interval: Interval,
    receiver: Option<ReceiverStatus>,
    /// What began a later round before this one was complete.
    next: Option<Event>,
    /// The last that each shard told: replaced, so that what is dropped is made good by the next.
    shards: Vec<ShardStatus>,
    finished: ShardStatus,
    reported: Account,
    /// Frames that the probe itself had lost by the last round.
    lost: u64,
    /// The end of the last round in which the probe itself lost frames.
    lost_until: Option<Nanos>,
    /// The last interval with lines that may have a hole of that round.
    doubted_until: u64,
    ended: Vec<StreamParts>,
    ended_left_out: u64,
    copies_found: bool,
    taps: Watch,
    /// REFERs and the like of late, for the pauses that they make.
    moments: Moments,
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
            shed_before: 0,
            begun: [started; 2],
            entries: Vec::new(),
            round: 0,
            lines: Vec::new(),
            ends: Vec::new(),
            interval: Interval::new(1),
            receiver: None,
            next: None,
            shards: vec![ShardStatus::default(); shards],
            finished: ShardStatus::default(),
            reported: Account::default(),
            lost: 0,
            lost_until: None,
            doubted_until: 0,
            ended: Vec::new(),
            ended_left_out: 0,
            copies_found: false,
            taps: Watch::default(),
            moments: Moments::default(),
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

    /// Tells when more is shed, or less, than when it was last asked. `counters` are asked for only then.
    ///
    /// # Errors
    /// As of `counters`.
    pub fn tell_shedding<E>(
        &mut self,
        counters: impl FnOnce() -> Result<KernelCounters, E>,
    ) -> Result<(), E> {
        if self.shedding.ask(History::level) == self.told_level {
            return Ok(());
        }
        let history = self.shedding.read();
        let mut account = Account::default();
        add_kernel_losses(&mut account, &counters()?);
        let shed = account.lost_to(Loss::Shed);
        let told = left_out::told(&history, self.told_level, shed.saturating_sub(self.shed_before));
        if told.change == "ended" {
            self.shed_before = shed;
        }
        self.told_level = history.level();
        self.entries
            .push(Stamped { at: history.changes().last().map(|(at, _)| at), entry: Entry::Shed(told) });
        Ok(())
    }

    /// Takes one event. True if it completed a round, which is then to be [closed](Self::close).
    pub fn take(&mut self, event: Event) -> bool {
        let round = match &event {
            Event::Interval(line) => line.round,
            Event::RoundDone(status) => status.round,
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
            Event::RoundDone(status) => {
                if let Some(shard) = self.shards.get_mut(status.shard) {
                    *shard = status;
                }
            }
            Event::Reports(news) => self.interval.report(news),
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

    /// Keeps what may have made a sender pause, until the pause is told.
    fn remember(&mut self, event: &CallEvent) {
        if changes_media(event.moment.what) {
            self.moments.note(&event.call_id, event.moment);
        }
    }

    /// Joins a pause to the signalling at its beginning.
    fn join_moments(&self, line: &mut StreamEntry) {
        let Some(gap) = &line.interruption else { return };
        let its = line.call_id.as_deref().map_or(&[][..], |call_id| self.moments.of(call_id));
        let told: Vec<_> = its.iter().map(|moment| Told::own(*moment)).collect();
        let meanwhile = if line.loss_is_upper_bound { Meanwhile::ProbeLost } else { Meanwhile::Ordinary };
        line.explanation = Some(Explanation::new(gap, meanwhile, &told));
    }

    /// Says which taps began or ceased to show what others show.
    fn watch_taps(&mut self, now: Nanos) {
        let at = Some(now);
        for change in self.taps.close(now) {
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
            if self.interval.ends_shown < self.lines_shown.min(MAX_END_LINES) {
                self.interval.ends_shown += 1;
                let start_s = parts.first_seen.since(self.started) as f64 / 1e9;
                self.ends.push(EndEntry { ended, report: StreamReport::new(parts.clone(), start_s) });
            } else {
                self.interval.lines_left_out += 1;
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
        let bucket = parts.key.flow.bucket();
        let was_shed = |history: &History| {
            let level = history.highest_between(parts.last_seen, Nanos(last + left_out::EDGE_NS));
            !history.samples_out(bucket) && u32::from(bucket) < level
        };
        parts.encapsulation == Encapsulation::NONE && self.shedding.ask(was_shed)
    }

    /// Turns what was gathered of a round into entries, and with the last of an interval what all of them add up to: streams
    /// that ended, worst streams first, then losses, then the sum.
    pub fn close(&mut self, counters: &KernelCounters, rings: &[Occupancy]) {
        let Some(receiver) = self.receiver.take() else { return };
        let mut account = receiver.account;
        account.analysed += self.shards.iter().map(|shard| shard.analysed).sum::<u64>();
        account.matched = counters.matched() + account.unpacked;
        add_kernel_losses(&mut account, counters);

        let history = self.shedding.read();
        if receiver.part.is_first() {
            let [_, before] = self.begun;
            self.begun = [before, receiver.now];
        }
        // Of a part that is closed later in the interval it is more than its lines are about.
        let left_out = left_out::Interval::of(&history, self.begun[0], receiver.now);
        if self.interval.number != receiver.interval {
            // The last round of the one before was dropped.
            self.interval = Interval::new(receiver.interval);
        }
        self.note_losses(&account, &receiver);
        self.interval.look_at(rings);
        let mut lines = std::mem::take(&mut self.lines);
        for line in &mut lines {
            if left_out.is_comparable(line) {
                self.interval.join_report(line);
            }
            if receiver.interval <= self.doubted_until {
                line.doubt_loss();
            }
            left_out.mark(line);
            self.join_moments(line);
            self.desk.hear(line);
            self.taps.hear(&line.taps);
        }
        self.tell_ends(Some(receiver.now), &history);
        let told = self.interval.hear(receiver.now, lines, self.lines_shown);
        if receiver.part.is_last() {
            self.close_interval(&receiver, account, &history, told);
        } else {
            self.tell_lines(told);
        }
        self.begin(self.round + 1);
        if let Some(event) = self.next.take() {
            // One event does not complete a round: it takes the receiver's and a shard's.
            self.take(event);
        }
    }

    /// Which lines may have a hole that the probe made since the last round: those of the interval that it is in, and of the one
    /// after it, because a hole is found by the packet that follows it. Streams that this interval has closed already
    /// are in it with the next.
    fn note_losses(&mut self, account: &Account, receiver: &ReceiverStatus) {
        let lost = account.lost_by_the_probe();
        if lost > self.lost {
            self.lost_until = Some(receiver.now);
            self.doubted_until = receiver.interval + if receiver.part.is_first() { 1 } else { 2 };
        }
        self.lost = lost;
    }

    /// Tells an interval as a whole, after its last round and that round's lines.
    fn close_interval(
        &mut self,
        receiver: &ReceiverStatus,
        account: Account,
        history: &History,
        told: Vec<interval::Line>,
    ) {
        let now = receiver.now;
        let at = Some(now);
        let call_lines_left_out = self.tell_calls(at, receiver.part == Part::WHOLE, history);
        self.watch_taps(now);
        self.find_copies(at);
        self.tell_lines(told);
        let worst = self.interval.take_worst();
        self.tell_lines(worst);
        self.report_losses(&account, at);
        let shards_dropped: u64 = self.shards.iter().map(|shard| shard.events_dropped).sum();
        let interval = std::mem::replace(&mut self.interval, Interval::new(receiver.interval + 1));
        let entry = Entry::Summary(SummaryEntry {
            calls: receiver.calls,
            streams: interval.streams,
            by_status: interval.by_status,
            matched: account.matched,
            analysed: account.analysed,
            losses: account.losses(),
            in_flight: account.unaccounted().max(0).unsigned_abs(),
            ring_peak_percent: interval.ring_peak_percent,
            shed_percent: history.shed_percent(history.level()),
            lines_left_out: interval.lines_left_out,
            call_lines_left_out,
            events_dropped: receiver.events_dropped + shards_dropped,
            announcements_given_up: receiver.announcements_given_up,
        });
        self.entries.push(Stamped { at, entry });
        self.reported = account;
    }

    fn tell_lines(&mut self, lines: Vec<interval::Line>) {
        let entry = |(at, line)| Stamped { at: Some(at), entry: Entry::Stream(Box::new(line)) };
        self.entries.extend(lines.into_iter().map(entry));
    }

    /// The ends of this round; the loss of a stream that lived when the probe lost frames is doubted.
    fn tell_ends(&mut self, at: Option<Nanos>, history: &History) {
        let lost_until_s = self.lost_until.map(|time| time.since(self.started) as f64 / 1e9);
        for mut end in std::mem::take(&mut self.ends) {
            if lost_until_s.is_some_and(|time| end.report.start_s <= time) {
                end.report.doubt_loss();
            }
            end.report.mark_shed(history, self.started);
            self.entries.push(Stamped { at, entry: Entry::StreamEnd(Box::new(end)) });
        }
    }

    /// The calls that ended in this interval, and whoever floods. Returns how many lines of calls were left out.
    fn tell_calls(&mut self, at: Option<Nanos>, is_at_once: bool, history: &History) -> u64 {
        let (ended, flood, left_out) = self.desk.close(is_at_once, history);
        self.entries.extend(ended.into_iter().map(Stamped::call));
        self.entries.extend(flood.map(|finding| Stamped { at, entry: Entry::Finding(finding) }));
        left_out
    }

    /// A line when the probe itself lost something since the last one. What was left out on purpose has lines of its own.
    fn report_losses(&mut self, account: &Account, at: Option<Nanos>) {
        let grown: BTreeMap<_, _> = Loss::ALL
            .into_iter()
            .map(|loss| (loss, account.lost_to(loss).saturating_sub(self.reported.lost_to(loss))))
            .filter(|(loss, frames)| *frames > 0 && !loss.is_on_purpose())
            .collect();
        let Some((worst, _)) = grown.iter().max_by_key(|(_, frames)| **frames) else { return };
        let advice = worst.advice();
        let losses = grown.into_iter().map(|(loss, frames)| (loss.name(), frames)).collect();
        self.entries.push(Stamped { at, entry: Entry::Loss(LossEntry { losses, advice }) });
    }

    /// Says once that every frame is copied, and again after it had stopped.
    fn find_copies(&mut self, at: Option<Nanos>) {
        let session = |cause: &mut CauseReport| {
            cause.carrier = Session::find(&self.sessions, cause.session, cause.layer);
        };
        let finding = self.interval.find_copies(session);
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
        if account.lost_by_the_probe() > self.lost {
            self.lost_until = Some(outcome.remains.last);
        }
        let history = self.shedding.read();
        self.tell_ends(None, &history);
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
            lines_left_out: self.interval.lines_left_out,
            call_lines_left_out: 0,
            events_dropped,
            announcements_given_up: report.given_up.media_lines + outcome.remains.endpoints_refused,
        });
        self.entries.push(Stamped { at: None, entry });
        report
    }
}

#[cfg(test)]
#[path = "monitor_tests.rs"]
mod tests;

//! Calls of a live probe: what their streams were like in each interval, until their end is told.
//!
//! ```text
//!   event of a call ──▶ told at once, up to a bound; an end waits for the interval to close
//!   stream's interval ─▶ added to its call                    │
//!   interval closes ────────────────────────────────────────▶ ends are told, with worst stream and problems
//! ```
//!
//! A flood of INVITEs is told once, and its calls are counted, not told. Only a call that somebody answered with more than
//! 100 is remembered, so that a flood displaces none.

use std::collections::VecDeque;
use std::net::IpAddr;
use std::sync::Arc;

use rustc_hash::FxHashMap;

use super::call_entry::{CallEnd, CallEntry, WorstStream};
use super::call_media::CallFinding;
use super::contract::{CallWithStreams, Finding, Severity, StreamReport};
use super::forensics::{Cause, Explanation};
use super::health::StreamEntry;
use super::problems::{self, ByCall};
use super::words;
use crate::packet::{Endpoint, Nanos};
use crate::pipeline::shed::History;
use crate::rtp::StreamKey;
use crate::rtp::unique::Interruption;
use crate::sip::calls::What;
use crate::sip::{CallEvent, CallState};

/// Calls remembered at one time; the oldest gives way, and its end is told without its media.
const MAX_CALLS: usize = 65_536;
/// Streams of one call that are told apart.
const MAX_STREAMS: usize = 8;
/// Interruptions remembered of one call.
const MAX_INTERRUPTIONS: usize = 4;
/// Lines of calls in one interval, ends apart; and as many ends.
const MAX_LINES: usize = 1_000;
/// Sources told apart in one interval.
const MAX_SOURCES: usize = 4_096;
/// Calls begun in one second by one source, from which they are a flood if hardly any is answered.
const FLOOD_PER_SECOND: u64 = 100;
/// One call in so many that rings makes a source a trunk.
const HARDLY_ANY: u64 = 10;
/// A direction that is silent for so long in a call that was answered is missed.
const MISSED_MS: f64 = 2_000.0;
/// Loss, and what came too late, that is heard, in percent.
const AUDIBLE_PERCENT: f64 = 1.0;

/// See the module.
#[derive(Debug, Default)]
pub(super) struct CallDesk {
    calls: FxHashMap<Arc<str>, Watched>,
    order: VecDeque<Arc<str>>,
    /// Ends of the running interval.
    ended: Vec<CallEvent>,
    /// Ends of the interval before, whose last lines are still to come.
    waiting: Vec<CallEvent>,
    told: usize,
    left_out: u64,
    sources: FxHashMap<IpAddr, Source>,
    /// Who floods, and was told.
    flooding: Vec<IpAddr>,
}

/// The end of a call, and when it was.
type Ended = (Nanos, CallEntry);

/// The streams of a call so far.
#[derive(Debug, Default)]
struct Watched {
    streams: Vec<Heard>,
    problems: Vec<CallFinding>,
}

/// One stream so far.
#[derive(Clone, Debug)]
struct Heard {
    key: StreamKey,
    codec: Option<String>,
    packets: u64,
    expected: u64,
    lost: u64,
    discarded: u64,
    is_doubted: bool,
    jitter_p99_us: Option<f64>,
    mos: Option<f64>,
}

/// What one source began in the running interval.
#[derive(Debug, Default)]
struct Source {
    /// Start of the running second.
    second: Nanos,
    in_second: u64,
    peak: u64,
    begun: u64,
    ringing: u64,
}

impl CallDesk {
    /// Takes a call's news. Gives what is to be told at once.
    pub(super) fn event(&mut self, event: CallEvent) -> Option<CallEntry> {
        self.count(&event);
        if matches!(event.state, CallState::Ringing | CallState::Answered) {
            self.watch(&event.call_id);
        }
        let is_end = event.state.is_over()
            && matches!(event.moment.what, What::Bye | What::Failure(_) | What::LostSight);
        if is_end {
            if self.ended.len() < MAX_LINES {
                self.ended.push(event);
            } else {
                self.left_out += 1;
                self.calls.remove(&event.call_id);
            }
            return None;
        }
        if self.told == MAX_LINES {
            self.left_out += 1;
            return None;
        }
        self.told += 1;
        Some(CallEntry::new(&event))
    }

    fn watch(&mut self, call_id: &Arc<str>) {
        if self.calls.contains_key(call_id) {
            return;
        }
        while self.calls.len() >= MAX_CALLS {
            let Some(oldest) = self.order.pop_front() else { break };
            self.calls.remove(&oldest);
        }
        // Calls that ended left their places in it.
        if self.order.len() > 2 * MAX_CALLS {
            self.order.retain(|call_id| self.calls.contains_key(call_id));
        }
        self.order.push_back(Arc::clone(call_id));
        self.calls.insert(Arc::clone(call_id), Watched::default());
    }

    /// Counts who begins calls, and how many of them ring.
    fn count(&mut self, event: &CallEvent) {
        let (is_begun, source) = match event.moment.what {
            What::Invite => (true, event.flow.src),
            What::Ringing(_) | What::Answer => (false, event.flow.dst),
            _ => return,
        };
        let address = source.ip();
        if self.sources.len() >= MAX_SOURCES && !self.sources.contains_key(&address) {
            return;
        }
        let source = self.sources.entry(address).or_default();
        if !is_begun {
            source.ringing += 1;
            return;
        }
        source.begun += 1;
        if event.moment.time.since(source.second) >= 1_000_000_000 {
            (source.second, source.in_second) = (event.moment.time, 0);
        }
        source.in_second += 1;
        source.peak = source.peak.max(source.in_second);
    }

    /// Takes a stream's interval into its call.
    pub(super) fn hear(&mut self, line: &StreamEntry) {
        let call = line.call_id.as_ref().and_then(|call_id| self.calls.get_mut(call_id));
        if let Some(call) = call {
            call.hear(line);
        }
    }

    /// The interval closes: the ends of its calls, floods that began in it, and how many lines were left out. Where its
    /// streams were closed one after the other, some before a call's end, the ends wait for an interval more.
    pub(super) fn close(
        &mut self,
        is_at_once: bool,
        history: &History,
    ) -> (Vec<Ended>, Option<Finding>, u64) {
        let mut due = std::mem::take(&mut self.waiting);
        let ended = std::mem::take(&mut self.ended);
        if is_at_once {
            due.extend(ended);
        } else {
            self.waiting = ended;
        }
        let mut entries = Vec::with_capacity(due.len());
        for event in due {
            let watched = self.calls.remove(&event.call_id).unwrap_or_default();
            let end = Some(watched.end(&event, history));
            entries.push((event.moment.time, CallEntry { end, ..CallEntry::new(&event) }));
        }
        let left_out = std::mem::take(&mut self.left_out);
        self.told = 0;
        (entries, self.flood(left_out), left_out)
    }

    /// The probe ends: the ends that wait are told with what the report says of their media.
    pub(super) fn finish(&mut self, calls: &[CallWithStreams], streams: &[StreamReport]) -> Vec<Ended> {
        let mut ended = std::mem::take(&mut self.waiting);
        ended.append(&mut self.ended);
        if ended.is_empty() {
            return Vec::new();
        }
        let by_call = ByCall::of(streams);
        // Of several with one Call-ID the last.
        let at: FxHashMap<&str, &CallWithStreams> =
            calls.iter().map(|call| (&*call.call.call_id, call)).collect();
        let entry = |event: CallEvent| {
            let call = at.get(&*event.call_id);
            // One that had to make room is in no report, but its streams may be.
            let its =
                call.map_or_else(|| by_call.get(&event.call_id).to_vec(), |call| by_call.streams_of(call));
            let worst = problems::worst(&its).and_then(|at| its.get(at));
            let end = CallEnd {
                stream_count: its.len(),
                worst_stream: worst.map(|stream| WorstStream::of(stream)),
                problems: call.map(|call| call.problems.clone()).unwrap_or_default(),
            };
            (event.moment.time, CallEntry { end: Some(end), ..CallEntry::new(&event) })
        };
        ended.into_iter().map(entry).collect()
    }

    /// Who began calls faster than anybody calls, hardly any of which rang; told once until it stops.
    fn flood(&mut self, left_out: u64) -> Option<Finding> {
        let sources = std::mem::take(&mut self.sources);
        let is_flood =
            |source: &Source| source.peak >= FLOOD_PER_SECOND && source.ringing * HARDLY_ANY < source.begun;
        let mut floods: Vec<_> = sources.into_iter().filter(|(_, source)| is_flood(source)).collect();
        floods.sort_by_key(|(address, source)| (std::cmp::Reverse(source.peak), *address));
        let before =
            std::mem::replace(&mut self.flooding, floods.iter().map(|(address, _)| *address).collect());
        let (address, source) = floods.iter().find(|(address, _)| !before.contains(address))?;
        let others = match floods.len() - 1 {
            0 => String::new(),
            more => format!("; {} more", words::count(more as u64, "source")),
        };
        let lines = match left_out {
            0 => String::new(),
            count => format!(
                " {} of calls are left out in this interval, and counted.",
                words::count(count, "line")
            ),
        };
        Some(Finding {
            id: "invite-flood",
            severity: Severity::Bad,
            title: format!("INVITE flood from {address}: {} in 1 s", words::count(source.peak, "call")),
            detail: format!(
                "{} begun in this interval, of which {} rang{others}.{lines}",
                words::count(source.begun, "call"),
                words::thousands(source.ringing)
            ),
            advice: format!("block {address} before it reaches the PBX, or slow it down there"),
            evidence: Vec::new(),
        })
    }
}

impl Watched {
    fn hear(&mut self, line: &StreamEntry) {
        if let (Some(gap), Some(explanation)) = (&line.interruption, &line.explanation) {
            self.note(line, gap, explanation);
        }
        let known = self.streams.iter().position(|stream| stream.key == line.key);
        let at = known.unwrap_or_else(|| {
            if self.streams.len() < MAX_STREAMS {
                self.streams.push(Heard::new(line.key));
            }
            self.streams.len().saturating_sub(1)
        });
        if let Some(stream) = self.streams.get_mut(at) {
            stream.add(line);
        }
    }

    fn note(&mut self, line: &StreamEntry, gap: &Interruption, explanation: &Explanation) {
        let is_told =
            explanation.cause != Cause::Hold && (!explanation.is_pause() || explanation.began_at.is_some());
        if is_told && self.problems.len() < MAX_INTERRUPTIONS {
            let text = format!("{} → {}: {}", line.src, line.dst, explanation.sentence(gap));
            self.problems.push(CallFinding { id: "interrupted", text });
        }
    }

    /// What there is to say of it, now that it is over.
    fn end(mut self, event: &CallEvent, history: &History) -> CallEnd {
        let mut problems: Vec<_> = self.missing(event, history).into_iter().collect();
        problems.extend(self.streams.iter().filter_map(Heard::lossy));
        problems.append(&mut self.problems);
        let worst = self.streams.iter().max_by(|a, b| {
            let jitter = |stream: &Heard| stream.jitter_p99_us.unwrap_or_default();
            a.missed_percent().total_cmp(&b.missed_percent()).then(jitter(a).total_cmp(&jitter(b)))
        });
        CallEnd { stream_count: self.streams.len(), worst_stream: worst.map(Heard::report), problems }
    }

    /// Media that a call of some length should have had, unless it may have been left out.
    fn missing(&self, event: &CallEvent, history: &History) -> Option<CallFinding> {
        let talked_ms = event.figures.talked_ms.filter(|talked_ms| *talked_ms >= MISSED_MS)?;
        let ended = event.moment.time;
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "the length of a call; saturates"
        )]
        let answered = Nanos(ended.0.saturating_sub((talked_ms * 1e6) as u64));
        let may_be_left_out = history.is_sampled() || history.is_any_shed(answered, ended);
        if event.state != CallState::Ended || may_be_left_out {
            return None;
        }
        let Some(first) = self.streams.first() else {
            return Some(CallFinding { id: "no-media", text: "no media was seen".to_owned() });
        };
        let host = |endpoint: Endpoint| endpoint.address;
        let goes_back = |stream: &Heard| {
            let (there, back) = (first.key.flow, stream.key.flow);
            host(there.src) == host(back.dst) || host(there.dst) == host(back.src)
        };
        let is_one_way = !self.streams.iter().any(goes_back);
        is_one_way.then(|| CallFinding {
            id: "one-way-audio",
            text: format!("one-way: only {} → {} was heard here", first.key.flow.src, first.key.flow.dst),
        })
    }
}

impl Heard {
    fn new(key: StreamKey) -> Self {
        Self {
            key,
            codec: None,
            packets: 0,
            expected: 0,
            lost: 0,
            discarded: 0,
            is_doubted: false,
            jitter_p99_us: None,
            mos: None,
        }
    }

    fn add(&mut self, line: &StreamEntry) {
        self.packets += line.packets;
        self.expected += line.packets + line.lost;
        self.lost += line.lost;
        self.discarded += line.discarded;
        self.is_doubted |= line.loss_is_upper_bound;
        self.codec.clone_from(&line.codec);
        let jitter = line.jitter_percentiles_us.as_ref().map(|jitter| jitter.p99);
        self.jitter_p99_us = self.jitter_p99_us.into_iter().chain(jitter).reduce(f64::max);
        self.mos = self.mos.into_iter().chain(line.mos).reduce(f64::min);
    }

    fn percent(&self, packets: u64) -> f64 {
        packets as f64 * 100.0 / self.expected.max(1) as f64
    }

    fn missed_percent(&self) -> f64 {
        self.percent(self.lost + self.discarded)
    }

    fn lossy(&self) -> Option<CallFinding> {
        let is_heard = |packets| self.percent(packets) >= AUDIBLE_PERCENT;
        let (id, what) = if self.is_doubted {
            return None;
        } else if is_heard(self.lost) {
            ("packets-lost", format!("lost {:.1} %", self.percent(self.lost)))
        } else if is_heard(self.discarded) {
            ("late-for-jitter-buffer", format!("{:.1} % came too late", self.percent(self.discarded)))
        } else {
            return None;
        };
        Some(CallFinding { id, text: format!("{} → {}: {what}", self.key.flow.src, self.key.flow.dst) })
    }

    fn report(&self) -> WorstStream {
        WorstStream {
            src: self.key.flow.src,
            dst: self.key.flow.dst,
            ssrc: format!("0x{:08x}", self.key.ssrc),
            codec: self.codec.clone(),
            lost_percent: self.percent(self.lost),
            loss_is_upper_bound: self.is_doubted,
            jitter_p99_us: self.jitter_p99_us,
            mos: self.mos,
        }
    }
}

impl WorstStream {
    fn of(stream: &StreamReport) -> Self {
        Self {
            src: stream.src,
            dst: stream.dst,
            ssrc: stream.ssrc.clone(),
            codec: stream.codec.clone(),
            lost_percent: stream.unique.lost_percent,
            loss_is_upper_bound: stream.loss_is_upper_bound,
            jitter_p99_us: stream.jitter_percentiles_us.as_ref().map(|jitter| jitter.p99),
            mos: stream.mos.as_ref().map(|mos| mos.value),
        }
    }
}

#[cfg(test)]
#[path = "call_desk_tests.rs"]
mod tests;

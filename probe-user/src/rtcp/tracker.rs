//! Who has said what: participants by flow and SSRC, bounded.
//!
//! A participant is kept by the flow of its reports and the SSRC that it reports under. Under it lie the times of its
//! last reports, by which an answer in the other direction is measured, and its blocks about others.

use rustc_hash::{FxHashMap, FxHashSet};
use serde::Serialize;

use super::clock::SenderClock;
use super::copies::Copies;
use super::wire::{self, Ntp, Refusal, ReportBlock, SenderInfo, Statement};
use super::xr::{StatisticsSummary, VoipMetrics};
use crate::decode::Datagram;
use crate::packet::{Flow, Nanos};

/// Participants kept: two of each of 16,384 streams, 20 MiB at most. At the bound the one of a few that was silent
/// longest goes, and is counted.
pub const MAX_PARTICIPANTS: usize = 32_768;
/// Senders that one participant may report on: a conference bridge has a few. Further ones are counted, not kept.
const MAX_RECEPTIONS: usize = 8;
/// Reports that an answer may still name: 40 s at the usual interval.
const MAX_SENT: usize = 8;
/// Participants compared when one has to go.
const EVICTION_SAMPLE: usize = 16;
/// Blocks told at the end of an interval; an interval with more tells of the first.
const MAX_NEWS: usize = 4_096;
/// Octets kept of a name or a reason.
const MAX_TEXT: usize = 64;
/// Longest round trip that is believed.
const MAX_ROUND_TRIP_NS: i64 = 60_000_000_000;
/// An answer's delay is counted in 15 us and often rounded to milliseconds: so much less than nothing is nothing.
const ROUNDING_NS: i64 = 5_000_000;

/// Datagrams by what became of them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct RtcpTotals {
    /// Read; copies removed.
    pub read: u64,
    /// Captured again.
    pub copies: u64,
    /// SRTCP: nothing in it can be read.
    pub encrypted: u64,
    /// Not wholly in the capture.
    pub cut: u64,
    /// Lengths that do not add up: no RTCP, or a broken one.
    pub malformed: u64,
    /// Packets inside of those that were read, whose counts do not fit them.
    pub refused_packets: u64,
    /// Report blocks that contradict themselves.
    pub implausible_blocks: u64,
    /// Answers that give no round trip: earlier than what they answer, or later than a minute.
    pub implausible_round_trips: u64,
    /// Participants that had to make room.
    pub participants_evicted: u64,
    /// Report blocks for which a participant had no room.
    pub blocks_left_out: u64,
}

/// See the module.
#[derive(Debug, Default)]
pub struct Tracker {
    participants: FxHashMap<ParticipantKey, Participant>,
    /// Keys in order of appearance, to take samples of.
    order: Vec<ParticipantKey>,
    hand: usize,
    copies: Copies,
    /// Pairs of hosts between which SRTCP was seen, the lesser address first.
    encrypted: FxHashSet<Hosts>,
    news: Vec<News>,
    totals: RtcpTotals,
}

/// One report block of the interval, for the health log.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct News {
    /// The reporter's flow: against that of the media.
    pub flow: Flow,
    /// The sender it is about.
    pub ssrc: u32,
    /// Lost since the report before, in percent.
    pub lost_percent: f64,
    /// From the probe to the reporter and back, if the block answers a report that was seen.
    pub round_trip_ms: Option<f64>,
}

/// Who reports.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ParticipantKey {
    /// From where to where its reports go.
    pub flow: Flow,
    /// Under which SSRC.
    pub ssrc: u32,
}

/// One participant's reports.
#[derive(Debug)]
pub(super) struct Participant {
    pub(super) last_seen: Nanos,
    pub(super) sender_reports: u64,
    pub(super) last_info: Option<SenderInfo>,
    pub(super) clock: SenderClock,
    pub(super) name: Option<Box<str>>,
    pub(super) bye: Option<Bye>,
    /// Middle NTP times of its reports and when each passed here, oldest first.
    sent: Vec<(u32, Nanos)>,
    pub(super) receptions: Vec<Reception>,
}

/// A participant's leave.
#[derive(Clone, Debug)]
pub(super) struct Bye {
    pub(super) number: u64,
    pub(super) reason: Option<Box<str>>,
}

/// What a participant says of one sender.
#[derive(Debug, Default)]
pub(super) struct Reception {
    pub(super) ssrc: u32,
    pub(super) reports: u64,
    pub(super) first: ReportBlock,
    pub(super) last: ReportBlock,
    pub(super) last_time: Nanos,
    pub(super) worst_fraction: u8,
    pub(super) jitter_sum: u64,
    pub(super) jitter_max: u32,
    /// No block had anything filled in but the sequence number.
    pub(super) is_empty: bool,
    /// From here to this participant and back, by its answers to that sender.
    pub(super) round_trip: RoundTrip,
    pub(super) voip: Option<VoipMetrics>,
    pub(super) statistics: Option<StatisticsSummary>,
}

/// Round trips between the probe and one end.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct RoundTrip {
    pub(super) samples: u64,
    pub(super) sum_ns: i64,
    pub(super) min_ns: i64,
    pub(super) max_ns: i64,
}

impl RoundTrip {
    fn observe(&mut self, ns: i64) {
        self.min_ns = if self.samples == 0 { ns } else { self.min_ns.min(ns) };
        self.max_ns = self.max_ns.max(ns);
        self.sum_ns = self.sum_ns.saturating_add(ns);
        self.samples += 1;
    }

    pub(super) fn merge(&mut self, other: &Self) {
        if other.samples == 0 {
            return;
        }
        self.min_ns = if self.samples == 0 { other.min_ns } else { self.min_ns.min(other.min_ns) };
        self.max_ns = self.max_ns.max(other.max_ns);
        self.sum_ns = self.sum_ns.saturating_add(other.sum_ns);
        self.samples += other.samples;
    }
}

impl Tracker {
    /// Takes one datagram that the classifier calls RTCP.
    pub fn observe(&mut self, datagram: &Datagram<'_>) {
        let Datagram { time, number, flow, payload, cut, .. } = *datagram;
        if self.copies.is_copy(flow, payload, time) {
            self.totals.copies += 1;
            return;
        }
        let at = Sighting { time, number };
        let read = wire::read(payload, cut, |ssrc, statement| {
            self.take(at, ParticipantKey { flow, ssrc }, statement);
        });
        match read {
            Ok(refused) => {
                self.totals.read += 1;
                self.totals.refused_packets += refused;
            }
            Err(Refusal::Cut) => self.totals.cut += 1,
            Err(Refusal::Malformed) => self.totals.malformed += 1,
            Err(Refusal::Encrypted) => {
                self.totals.encrypted += 1;
                if self.encrypted.len() < MAX_PARTICIPANTS {
                    self.encrypted.insert(hosts(&flow));
                }
            }
        }
    }

    fn take(&mut self, at: Sighting, key: ParticipantKey, statement: Statement<'_>) {
        let round_trip = match &statement {
            Statement::Block(block) if !block.is_plausible() => {
                self.totals.implausible_blocks += 1;
                return;
            }
            Statement::Block(block) => self.round_trip(at, key, block.ssrc, block.last_report, block.delay),
            Statement::Answer(answers) => {
                for answer in answers.iter() {
                    let found = self.round_trip(at, key, answer.ssrc, answer.last_time, answer.delay);
                    if let (Some(ns), Some(reception)) = (found, self.reception(at, key, answer.ssrc)) {
                        reception.round_trip.observe(ns);
                    }
                }
                return;
            }
            _ => None,
        };
        match statement {
            Statement::Sender(info) => {
                let participant = self.participant(at, key);
                participant.sender_reports += 1;
                participant.last_info = Some(info);
                participant.clock.observe(&info);
                participant.sends(info.ntp, at.time);
            }
            Statement::ReferenceTime(ntp) => self.participant(at, key).sends(ntp, at.time),
            Statement::Block(block) => {
                let Some(reception) = self.reception(at, key, block.ssrc) else { return };
                reception.observe(&block, at.time);
                if let Some(ns) = round_trip {
                    reception.round_trip.observe(ns);
                }
                if self.news.len() < MAX_NEWS {
                    self.news.push(News {
                        flow: key.flow,
                        ssrc: block.ssrc,
                        lost_percent: f64::from(block.fraction_lost) * 100.0 / 256.0,
                        round_trip_ms: round_trip.map(|ns| ns as f64 / 1e6),
                    });
                }
            }
            Statement::Name(name) => {
                let participant = self.participant(at, key);
                if participant.name.is_none() {
                    participant.name = Some(text(name));
                }
            }
            Statement::Bye(reason) => {
                let bye = Bye { number: at.number, reason: reason.map(text) };
                self.participant(at, key).bye.get_or_insert(bye);
            }
            Statement::Voip(metrics) => {
                if let Some(reception) = self.reception(at, key, metrics.ssrc) {
                    reception.voip = Some(metrics);
                }
            }
            Statement::Statistics(summary) => {
                if let Some(reception) = self.reception(at, key, summary.ssrc) {
                    reception.statistics = Some(summary);
                }
            }
            Statement::Receiver | Statement::Other | Statement::Answer(_) => {
                self.participant(at, key);
            }
        }
    }

    /// From the report that `by` answers, as it passed here, to the answer, less what `by` held it.
    fn round_trip(
        &mut self,
        at: Sighting,
        by: ParticipantKey,
        sender: u32,
        named: u32,
        held: u32,
    ) -> Option<i64> {
        if named == 0 {
            return None;
        }
        let flow = Flow { src: by.flow.dst, dst: by.flow.src };
        let sent = self.participants.get(&ParticipantKey { flow, ssrc: sender })?.sent_at(named)?;
        let held_ns = i64::from(held).saturating_mul(1_000_000_000) >> 16;
        let ns = at.time.since(sent) - held_ns;
        if !(-ROUNDING_NS..=MAX_ROUND_TRIP_NS).contains(&ns) {
            self.totals.implausible_round_trips += 1;
            return None;
        }
        Some(ns.max(0))
    }

    fn participant(&mut self, at: Sighting, key: ParticipantKey) -> &mut Participant {
        if !self.participants.contains_key(&key) {
            if self.participants.len() >= MAX_PARTICIPANTS {
                self.evict();
            }
            self.order.push(key);
        }
        let participant = self.participants.entry(key).or_insert_with(Participant::new);
        participant.last_seen = at.time;
        participant
    }

    fn reception(&mut self, at: Sighting, key: ParticipantKey, ssrc: u32) -> Option<&mut Reception> {
        let receptions = &mut self.participant(at, key).receptions;
        let found = receptions.iter().position(|reception| reception.ssrc == ssrc);
        let index = found.unwrap_or(receptions.len());
        if index == MAX_RECEPTIONS {
            self.totals.blocks_left_out += 1;
            return None;
        }
        // A second borrow: the first must not outlive the count above.
        let receptions = &mut self.participants.get_mut(&key)?.receptions;
        if index == receptions.len() {
            receptions.push(Reception { ssrc, is_empty: true, ..Reception::default() });
        }
        receptions.get_mut(index)
    }

    fn evict(&mut self) {
        let count = self.order.len();
        let silent =
            (0..EVICTION_SAMPLE.min(count)).map(|step| (self.hand + step) % count).min_by_key(|&at| {
                let key = self.order.get(at)?;
                Some(self.participants.get(key)?.last_seen)
            });
        let Some(at) = silent else { return };
        self.hand = (self.hand + EVICTION_SAMPLE) % count;
        let key = self.order.swap_remove(at);
        self.participants.remove(&key);
        self.totals.participants_evicted += 1;
    }

    /// Report blocks since the last call, the first few thousand.
    pub fn take_news(&mut self) -> Vec<News> {
        std::mem::take(&mut self.news)
    }

    /// Datagrams by what became of them.
    pub fn totals(&self) -> &RtcpTotals {
        &self.totals
    }

    pub(super) fn participants(&self) -> impl Iterator<Item = (&ParticipantKey, &Participant)> {
        // In order of appearance: a map's order is nobody's.
        self.order.iter().filter_map(|key| self.participants.get_key_value(key))
    }

    /// Was SRTCP seen between the two hosts of a flow?
    pub(super) fn is_encrypted(&self, flow: &Flow) -> bool {
        self.encrypted.contains(&hosts(flow))
    }
}

type Hosts = ([u8; 16], [u8; 16]);

fn hosts(flow: &Flow) -> Hosts {
    let (a, b) = (flow.src.address, flow.dst.address);
    (a.min(b), a.max(b))
}

/// When and in which frame a statement was seen.
#[derive(Clone, Copy, Debug)]
struct Sighting {
    time: Nanos,
    number: u64,
}

impl Participant {
    fn new() -> Self {
        Self {
            last_seen: Nanos::default(),
            sender_reports: 0,
            last_info: None,
            clock: SenderClock::default(),
            name: None,
            bye: None,
            sent: Vec::new(),
            receptions: Vec::new(),
        }
    }

    fn sends(&mut self, ntp: Ntp, time: Nanos) {
        if self.sent.len() == MAX_SENT {
            self.sent.remove(0);
        }
        self.sent.push((ntp.middle(), time));
    }

    fn sent_at(&self, middle: u32) -> Option<Nanos> {
        self.sent.iter().rev().find(|(sent, _)| *sent == middle).map(|(_, time)| *time)
    }
}

impl Reception {
    fn observe(&mut self, block: &ReportBlock, time: Nanos) {
        if self.reports == 0 {
            self.first = *block;
        }
        self.reports += 1;
        self.last = *block;
        self.last_time = time;
        self.worst_fraction = self.worst_fraction.max(block.fraction_lost);
        self.jitter_max = self.jitter_max.max(block.jitter);
        self.jitter_sum = self.jitter_sum.saturating_add(u64::from(block.jitter));
        self.is_empty &= block.is_empty();
    }
}

/// What a name says, as far as it can be printed.
fn text(octets: &[u8]) -> Box<str> {
    let octets = octets.get(..MAX_TEXT).unwrap_or(octets);
    String::from_utf8_lossy(octets)
        .chars()
        .map(|c| if c.is_control() { '\u{fffd}' } else { c })
        .collect::<String>()
        .into()
}

#[cfg(test)]
#[path = "tracker_tests.rs"]
mod tests;

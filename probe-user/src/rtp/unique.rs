//! The ledger of first copies: what the network did, with the capture's own repetitions taken out.
//!
//! Jitter is RFC 3550's (A.8) with the exact clock rate, and starts afresh wherever arrival and timestamp
//! are not meant to agree: after a marker, comfort noise, an event, another payload type, a restart. Without
//! that, DTMF and talkspurts make spikes that no network made. What happens there instead is kept as an
//! [`Interruption`]. All time is the tap's own ([`RtpPacket::tap_time`]): a tunnel's queue is no jitter.

use serde::Serialize;

use super::codec::is_comfort_noise;
use super::drift::ClockDrift;
use super::timeline::Measured;
use crate::dedup::reference::By;
use crate::packet::{Nanos, RtpPacket};

/// A pause or a timestamp jump of at least this is told to the operator.
pub(super) const INTERRUPTION_NS: i64 = 400_000_000;
/// Interruptions kept of one stream, the heaviest; all are counted.
const MAX_INTERRUPTIONS: usize = 16;

/// One ledger in the words of the contract; both ledgers have the same.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct LedgerReport {
    /// Frames, or packets, counted.
    pub packets: u64,
    /// What the sequence numbers say was sent.
    pub expected: u64,
    /// Expected and not counted; negative in the raw ledger when there are copies.
    pub lost: i64,
    /// Of the expected.
    pub lost_percent: f64,
    /// Steps in the sequence that were not by one.
    pub sequence_errors: u64,
    /// Time between arrivals.
    pub delta_ms: Delta,
    /// Smoothed inter-arrival jitter (RFC 3550, 6.4.1).
    pub jitter_ms: Spread,
    /// Timestamps against arrival; positive if the sender's clock is ahead.
    pub skew_ms: Skew,
    /// Sender's clock against ours over the whole stream; `None` where it is not known.
    pub clock_drift_ms: Option<f64>,
    /// The same in percent.
    pub clock_drift_percent: Option<f64>,
    /// Clock rate as measured.
    pub clock_hz: Option<f64>,
    /// First to last arrival.
    pub duration_s: f64,
    /// What only the ledger of first copies has.
    #[serde(flatten)]
    pub first_copies: Option<FirstCopies>,
}

impl LedgerReport {
    /// The ledger of no frames.
    pub fn nothing() -> Self {
        let none = Spread { min: -1.0, mean: 0.0, max: 0.0 };
        Self {
            packets: 0,
            expected: 0,
            lost: 0,
            lost_percent: 0.0,
            sequence_errors: 0,
            delta_ms: Delta { min: -1.0, mean: 0.0, max: 0.0, max_packet: 0 },
            jitter_ms: none,
            skew_ms: Skew { max: 0.0 },
            clock_drift_ms: None,
            clock_drift_percent: None,
            clock_hz: None,
            duration_s: 0.0,
            first_copies: None,
        }
    }
}

/// What the ledger of first copies says beyond tshark's words. Copies change nothing in it, so it does not count them.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct FirstCopies {
    /// Of the packets, those that came after a later one (RFC 3550, A.1). They are received, not lost.
    pub late: u64,
    /// Sender's clock against the tap's in parts per million, positive if it is fast.
    pub clock_drift_ppm: Option<f64>,
    /// 95 % confidence interval of it.
    pub clock_drift_ppm_ci: Option<[f64; 2]>,
    /// Why there is no drift, where there is none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub clock_drift_absent_because: Option<&'static str>,
}

/// Distances between arrivals in milliseconds.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Delta {
    /// Shortest; -1 if there was none (tshark prints that).
    pub min: f64,
    /// Mean.
    pub mean: f64,
    /// Longest.
    pub max: f64,
    /// Number of the frame that ended the longest; 0 if there was none.
    pub max_packet: u64,
}

/// A range of milliseconds.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Spread {
    /// Least; -1 if there was none.
    pub min: f64,
    /// Mean.
    pub mean: f64,
    /// Most.
    pub max: f64,
}

/// Skew in milliseconds.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Skew {
    /// The largest by amount, with its sign.
    pub max: f64,
}

/// Arrivals and timestamps parted company.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Interruption {
    /// When the stream came back.
    #[serde(skip)]
    pub at: Nanos,
    /// Frame that ended it.
    pub packet: u64,
    /// Time without packets, in seconds.
    pub silence_s: f64,
    /// By how much the timestamp moved meanwhile, in seconds; `None` without a clock rate.
    pub timestamp_s: Option<f64>,
    /// Sequence numbers missing across it: zero means that the sender paused, else the network lost them.
    pub missing: u64,
    /// The numbering jumped across it, so that `missing` says nothing: the sender restarted, or 3,000 packets or
    /// more were lost (RFC 3550, A.1, believes no wider gap).
    pub restarted: bool,
}

impl Interruption {
    /// When the last packet before it came.
    pub fn began(&self) -> Nanos {
        #[expect(clippy::cast_possible_truncation, reason = "a time between packets")]
        Nanos(self.at.0.saturating_add_signed(-((self.silence_s * 1e9) as i64)))
    }

    /// Did the timestamp run on through the silence, as that of a sender does which did not pause?
    pub fn timestamp_ran_on(&self) -> bool {
        self.timestamp_s.is_some_and(|moved| (moved - self.silence_s).abs() < 0.5)
    }

    /// What it is: the numbering began anew, packets failed to come, or the timestamp alone jumped.
    pub fn kind(&self) -> &'static str {
        if self.restarted {
            "restart"
        } else if self.is_silence() {
            "gap"
        } else {
            "timestamp_jump"
        }
    }

    /// By how much timestamp and time parted company across it, in seconds; negative if the timestamp fell behind.
    pub fn jump_s(&self) -> Option<f64> {
        self.timestamp_s.map(|moved| moved - self.silence_s)
    }

    /// How bad it is, for choosing the one to tell: loss before a pause, then the longest.
    pub fn weight(&self) -> (bool, f64) {
        (self.missing > 0 || self.restarted, self.silence_s)
    }

    /// Did packets fail to come, or was it the timestamp alone that jumped?
    pub fn is_silence(&self) -> bool {
        self.silence_s * 1e9 >= INTERRUPTION_NS as f64
    }
}

/// What a stream knows of a packet that the ledger does not.
#[derive(Clone, Copy, Debug)]
pub struct Placed {
    /// Extended sequence number.
    pub seq: u64,
    /// Clock rate of its payload type in Hz, if known and if its timestamps advance with time. What is unknown may be
    /// estimated (see [`super::rate`]).
    pub clock_rate: Option<u32>,
    /// Did the numbering begin anew with it?
    pub restarted: bool,
    /// What its time means.
    pub by: By,
}

/// See the module.
#[derive(Clone, Debug)]
pub struct UniqueLedger {
    counts: Counts,
    first: Nanos,
    last: Last,
    top_seq: u64,
    running: Running,
    troubles: Troubles,
}

/// What counts every packet, or nearly every.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Counts {
    packets: u64,
    weighed: u64,
    pub(super) jitter_samples: u64,
}

impl Counts {
    /// Of so many packets, each of which but the first could be compared with the one before it.
    pub(super) fn of_regular(packets: u64) -> Self {
        let compared = packets.saturating_sub(1);
        Self { packets, weighed: compared, jitter_samples: compared }
    }
}

/// What a stream without loss has none of.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Troubles {
    reordered: u64,
    gaps: u64,
    interruptions: Vec<Interruption>,
    interruption_count: u64,
}

/// What nearly every packet changes.
#[derive(Clone, Copy, Debug)]
pub(super) struct Running {
    delta_min_ms: f64,
    delta_sum_ms: f64,
    delta_max_ms: f64,
    delta_max_packet: u64,
    jitter_ns: f64,
    jitter_min_ns: f64,
    jitter_max_ns: f64,
    jitter_sum_ns: f64,
    skew_ns: f64,
}

/// The previous first copy, in order of arrival.
#[derive(Clone, Copy, Debug)]
struct Last {
    time: Nanos,
    payload_type: u8,
    timed: bool,
}

/// What the ledger makes of a packet.
#[derive(Clone, Copy, Debug)]
pub struct Observed {
    /// |D| of RFC 3550, where it may be taken.
    pub jitter_ns: Option<u64>,
    /// Nothing that it says of time may be compared with what came before.
    pub breaks: bool,
    /// No marker, no comfort noise, none before it.
    pub is_regular: bool,
    /// The first after comfort noise.
    pub after_noise: bool,
    /// The interruption that it ended.
    pub interruption: Option<Interruption>,
}

impl UniqueLedger {
    /// Begins with a stream's first packet.
    pub fn new(packet: &RtpPacket, placed: Placed) -> Self {
        Self {
            counts: Counts::of_regular(1),
            first: packet.tap_time,
            last: Last::of(packet, placed),
            top_seq: placed.seq,
            running: Running {
                delta_min_ms: f64::INFINITY,
                delta_sum_ms: 0.0,
                delta_max_ms: 0.0,
                delta_max_packet: 0,
                jitter_ns: 0.0,
                jitter_min_ns: f64::INFINITY,
                jitter_max_ns: 0.0,
                jitter_sum_ns: 0.0,
                skew_ns: 0.0,
            },
            troubles: Troubles::default(),
        }
    }

    /// Is it late here only by way of the tap that showed it? Then its neighbours have been compared across it, and
    /// nothing is to be measured: neither its order nor its time.
    pub fn takes_in_place(&self, packet: &RtpPacket, placed: Placed) -> bool {
        match placed.by {
            By::OnlyTap => false,
            By::Timeline => placed.seq < self.top_seq && packet.tap_time <= self.last.time,
            By::Untimed => true,
        }
    }

    /// Counts such a packet.
    pub fn count_in_place(&mut self, seq: u64) {
        self.counts.packets += 1;
        self.top_seq = self.top_seq.max(seq);
    }

    /// Counts the first copy of one more packet. `measured` is against the last one on the same clock.
    pub fn observe(&mut self, packet: &RtpPacket, placed: Placed, measured: Option<Measured>) -> Observed {
        let arrival_ns = packet.tap_time.since(self.last.time);
        let direct = measured.filter(|_| self.last.timed);
        let late = placed.seq < self.top_seq;
        let missing = placed.seq.saturating_sub(self.top_seq).saturating_sub(1);

        self.counts.packets += 1;
        if late {
            self.troubles.reordered += 1;
        } else {
            if missing > 0 && !placed.restarted {
                self.troubles.gaps += 1;
            }
            self.top_seq = placed.seq;
        }
        let after_noise = is_comfort_noise(self.last.payload_type);
        let is_regular = !packet.rtp.marker && !is_comfort_noise(packet.rtp.payload_type) && !after_noise;
        if is_regular {
            self.counts.weighed += 1;
            self.running.weigh_delta(arrival_ns, packet.number);
        }
        let resync = !is_regular || placed.restarted || packet.rtp.payload_type != self.last.payload_type;
        let interruption = (arrival_ns >= INTERRUPTION_NS && !after_noise
            || direct.is_some_and(|measured| jumped(&measured)))
        .then(|| Interruption {
            at: packet.time,
            packet: packet.number,
            silence_s: arrival_ns as f64 / 1e9,
            timestamp_s: direct.map(|measured| measured.nominal_ns / 1e9),
            missing: if placed.restarted { 0 } else { missing },
            restarted: placed.restarted,
        });
        let jitter_ns = direct.filter(|_| !resync && interruption.is_none()).map(|measured| {
            let amount_ns = measured.difference_ns().abs();
            self.counts.jitter_samples += 1;
            self.running.weigh_jitter(amount_ns);
            whole_ns(amount_ns)
        });
        if let Some(found) = interruption {
            self.troubles.interruption_count += 1;
            self.keep(found);
        }
        self.last = Last::of(packet, placed);
        let breaks =
            interruption.is_some() || placed.restarted || measured.is_some_and(|measured| jumped(&measured));
        Observed { jitter_ns, breaks, is_regular, after_noise, interruption }
    }

    /// Counts where a packet stands on its sender's time line.
    pub fn weigh_skew(&mut self, transit_ns: f64) {
        self.running.weigh_skew(transit_ns);
    }

    /// What a run takes along, if the ledger stands at number `seq`, which came at `time` with this payload type and a
    /// clock.
    pub(super) fn lend(&self, seq: u64, time: Nanos, payload_type: u8) -> Option<Running> {
        let Last { time: last, payload_type: before, timed } = self.last;
        let stands = self.top_seq == seq && last == time && before == payload_type && timed;
        stands.then_some(self.running)
    }

    /// Goes on where a run of `packets` has come to.
    pub(super) fn take_back(&mut self, running: Running, packets: u64, end: Nanos) {
        self.running = running;
        self.count(packets);
        self.last.time = end;
    }

    /// A run goes on behind so many missing packets, and has taken so many, the first behind them included.
    pub(super) fn skip(&mut self, packets: u64, missing: u64) {
        self.count(packets);
        self.top_seq += missing;
        self.troubles.gaps += 1;
    }

    fn count(&mut self, packets: u64) {
        self.counts.packets += packets;
        self.top_seq += packets;
        self.counts.weighed += packets;
        self.counts.jitter_samples += packets;
    }

    /// What is left of it beside the run that it was lent to: counts, when it began, and troubles.
    pub(super) fn into_rest(self) -> (Counts, Nanos, Troubles) {
        (self.counts, self.first, self.troubles)
    }

    /// The same, whole again: as it was lent to a run behind number `seq`.
    pub(super) fn of_rest(
        (counts, first, troubles): (Counts, Nanos, Troubles),
        running: Running,
        (top_seq, payload_type): (u64, u8),
    ) -> Self {
        let last = Last { time: Nanos::default(), payload_type, timed: true };
        Self { counts, first, last, top_seq, running, troubles }
    }

    /// Keeps an interruption; when there is no room, in place of the least.
    fn keep(&mut self, found: Interruption) {
        if self.troubles.interruptions.len() < MAX_INTERRUPTIONS {
            self.troubles.interruptions.push(found);
            return;
        }
        let lighter = |a: &Interruption, b: &Interruption| {
            let ((a_bad, a_s), (b_bad, b_s)) = (a.weight(), b.weight());
            a_bad.cmp(&b_bad).then(a_s.total_cmp(&b_s))
        };
        if let Some(least) = self.troubles.interruptions.iter_mut().min_by(|a, b| lighter(a, b))
            && lighter(least, &found).is_lt()
        {
            *least = found;
        }
    }

    /// The ledger in the words of the contract. `expected` comes from the stream's sequence, `drift` from its time
    /// line.
    pub fn report(
        &self,
        expected: u64,
        clock_rate: Option<u32>,
        drift: Result<ClockDrift, &'static str>,
    ) -> LedgerReport {
        let running = &self.running;
        let lost = expected.saturating_sub(self.counts.packets);
        let duration_ms = self.last.time.since(self.first) as f64 / 1e6;
        let known = drift.ok();
        let fast = known.map(|drift| drift.ppm / 1e6);
        LedgerReport {
            packets: self.counts.packets,
            expected,
            lost: lost.cast_signed(),
            lost_percent: if expected == 0 { 0.0 } else { lost as f64 * 100.0 / expected as f64 },
            sequence_errors: self.troubles.gaps + self.troubles.reordered,
            delta_ms: Delta {
                min: if self.counts.weighed == 0 { -1.0 } else { running.delta_min_ms },
                mean: mean(running.delta_sum_ms, self.counts.weighed),
                max: running.delta_max_ms,
                max_packet: running.delta_max_packet,
            },
            jitter_ms: Spread {
                min: if self.counts.jitter_samples == 0 { -1.0 } else { running.jitter_min_ns / 1e6 },
                mean: mean(running.jitter_sum_ns, self.counts.jitter_samples) / 1e6,
                max: running.jitter_max_ns / 1e6,
            },
            skew_ms: Skew { max: running.skew_ns / 1e6 },
            clock_drift_ms: fast.map(|fast| duration_ms * fast),
            clock_drift_percent: fast.map(|fast| 100.0 * fast),
            clock_hz: fast.zip(clock_rate).map(|(fast, rate)| (1.0 + fast) * f64::from(rate)),
            duration_s: duration_ms / 1e3,
            first_copies: Some(FirstCopies {
                late: self.troubles.reordered,
                clock_drift_ppm: known.map(|drift| drift.ppm),
                clock_drift_ppm_ci: known.map(|drift| drift.ppm_ci),
                clock_drift_absent_because: drift.err(),
            }),
        }
    }

    /// First copies counted.
    pub fn packets(&self) -> u64 {
        self.counts.packets
    }

    /// Packets that came after a later one.
    pub fn reordered(&self) -> u64 {
        self.troubles.reordered
    }

    /// The heaviest interruptions, and how many there were.
    pub fn interruptions(&self) -> (&[Interruption], u64) {
        (&self.troubles.interruptions, self.troubles.interruption_count)
    }
}

impl Running {
    /// Counts a distance between arrivals, which ended with the packet of that number.
    #[inline]
    pub(super) fn weigh_delta(&mut self, arrival_ns: i64, number: u64) {
        let delta_ms = arrival_ns as f64 / 1e6;
        self.delta_sum_ms += delta_ms;
        // Not `f64::min` and `max`: those are five instructions for the sake of NaN, which is not less than anything here.
        if delta_ms < self.delta_min_ms {
            self.delta_min_ms = delta_ms;
        }
        if delta_ms > self.delta_max_ms {
            (self.delta_max_ms, self.delta_max_packet) = (delta_ms, number);
        }
    }

    /// Counts one |D|.
    #[inline]
    pub(super) fn weigh_jitter(&mut self, amount_ns: f64) {
        let jitter_ns = self.jitter_ns + (amount_ns - self.jitter_ns) / 16.0;
        self.jitter_ns = jitter_ns;
        if jitter_ns < self.jitter_min_ns {
            self.jitter_min_ns = jitter_ns;
        }
        if jitter_ns > self.jitter_max_ns {
            self.jitter_max_ns = jitter_ns;
        }
        self.jitter_sum_ns += jitter_ns;
    }

    /// Counts where a packet stands on its sender's time line.
    #[inline]
    pub(super) fn weigh_skew(&mut self, transit_ns: f64) {
        if transit_ns.abs() > self.skew_ns.abs() {
            self.skew_ns = -transit_ns;
        }
    }
}

impl Last {
    fn of(packet: &RtpPacket, placed: Placed) -> Self {
        Self {
            time: packet.tap_time,
            payload_type: packet.rtp.payload_type,
            timed: placed.clock_rate.is_some(),
        }
    }
}

/// An amount of time for a distribution.
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "never negative, and saturates")]
pub(super) fn whole_ns(amount: f64) -> u64 {
    amount as u64
}

/// Did the timestamp move by something else than time, beyond any jitter?
pub(super) fn jumped(measured: &Measured) -> bool {
    measured.difference_ns().abs() >= 2.5 * INTERRUPTION_NS as f64
}

fn mean(sum: f64, count: u64) -> f64 {
    if count == 0 { 0.0 } else { sum / count as f64 }
}

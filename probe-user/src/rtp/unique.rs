//! The ledger of first copies: what the network did, with the capture's own repetitions taken out.
//!
//! Jitter is RFC 3550's (A.8) with the exact clock rate, and starts afresh wherever arrival and timestamp
//! are not meant to agree: after a marker, comfort noise, an event, another payload type, a restart. Without
//! that, DTMF and talkspurts make spikes that no network made. What happens there instead is kept as an
//! [`Interruption`].

use serde::Serialize;

use super::codec::is_comfort_noise;
use crate::histogram::MicrosHistogram;
use crate::packet::{Nanos, RtpPacket};

/// A pause or a timestamp jump of at least this is told to the operator.
const INTERRUPTION_NS: i64 = 400_000_000;
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
    /// Sender's clock against ours over the whole stream; `None` without a clock rate or with one packet.
    pub clock_drift_ms: Option<f64>,
    /// The same in percent.
    pub clock_drift_percent: Option<f64>,
    /// Clock rate as measured.
    pub clock_hz: Option<f64>,
    /// First to last arrival.
    pub duration_s: f64,
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
    /// Did the timestamp run on through the silence, as that of a sender does which did not pause?
    pub fn timestamp_ran_on(&self) -> bool {
        self.timestamp_s.is_some_and(|moved| (moved - self.silence_s).abs() < 0.5)
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
    /// Clock rate of its payload type in Hz, if known and if its timestamps advance with time.
    pub clock_rate: Option<u32>,
    /// Did the numbering begin anew with it?
    pub restarted: bool,
}

/// See the module.
#[derive(Clone, Debug)]
pub struct UniqueLedger {
    packets: u64,
    reordered: u64,
    gaps: u64,
    first: Nanos,
    last: Last,
    top_seq: u64,
    weighed: u64,
    delta_min_ms: f64,
    delta_sum_ms: f64,
    delta_max_ms: f64,
    delta_max_packet: u64,
    jitter_ns: f64,
    jitter_samples: u64,
    jitter_min_ns: f64,
    jitter_max_ns: f64,
    jitter_sum_ns: f64,
    clock: ClockFit,
    interruptions: Vec<Interruption>,
    interruption_count: u64,
}

/// The previous first copy, in order of arrival.
#[derive(Clone, Copy, Debug)]
struct Last {
    time: Nanos,
    timestamp: u32,
    payload_type: u8,
    timed: bool,
}

impl UniqueLedger {
    /// Begins with a stream's first packet.
    pub fn new(packet: &RtpPacket, placed: Placed) -> Self {
        Self {
            packets: 1,
            reordered: 0,
            gaps: 0,
            first: packet.tap_time,
            last: Last::of(packet, placed),
            top_seq: placed.seq,
            weighed: 0,
            delta_min_ms: -1.0,
            delta_sum_ms: 0.0,
            delta_max_ms: 0.0,
            delta_max_packet: 0,
            jitter_ns: 0.0,
            jitter_samples: 0,
            jitter_min_ns: f64::INFINITY,
            jitter_max_ns: 0.0,
            jitter_sum_ns: 0.0,
            clock: ClockFit::default(),
            interruptions: Vec::new(),
            interruption_count: 0,
        }
    }

    /// Counts the first copy of one more packet. Jitter samples go to `jitter`; an interruption that it ended
    /// is returned.
    pub fn observe(
        &mut self,
        packet: &RtpPacket,
        placed: Placed,
        jitter: &mut MicrosHistogram,
    ) -> Option<Interruption> {
        let arrival_ns = packet.tap_time.since(self.last.time);
        let ticks = packet.rtp.timestamp.wrapping_sub(self.last.timestamp).cast_signed();
        let timestamp_ns = placed.clock_rate.filter(|_| self.last.timed).map(|rate| ticks_to_ns(ticks, rate));
        let late = placed.seq < self.top_seq;
        let missing = placed.seq.saturating_sub(self.top_seq).saturating_sub(1);

        self.packets += 1;
        if late {
            self.reordered += 1;
        } else {
            if missing > 0 && !placed.restarted {
                self.gaps += 1;
            }
            self.top_seq = placed.seq;
        }
        let after_noise = is_comfort_noise(self.last.payload_type);
        let regular = !packet.rtp.marker && !is_comfort_noise(packet.rtp.payload_type) && !after_noise;
        if regular {
            self.weigh_delta(arrival_ns, packet.number);
        }
        let resync = !regular || placed.restarted || packet.rtp.payload_type != self.last.payload_type;
        let mut interruption = None;
        if arrival_ns >= INTERRUPTION_NS && !after_noise
            || timestamp_ns.is_some_and(|ns| jumped(ns, arrival_ns))
        {
            interruption = Some(Interruption {
                at: packet.time,
                packet: packet.number,
                silence_s: arrival_ns as f64 / 1e9,
                timestamp_s: timestamp_ns.map(|ns| ns / 1e9),
                missing: if placed.restarted { 0 } else { missing },
                restarted: placed.restarted,
            });
        }
        if let Some(timestamp_ns) = timestamp_ns.filter(|_| !resync && interruption.is_none()) {
            self.weigh_jitter(arrival_ns, timestamp_ns, jitter);
        }
        if let Some(found) = interruption {
            self.interruption_count += 1;
            self.keep(found);
        }
        self.last = Last::of(packet, placed);
        interruption
    }

    /// Keeps an interruption; when there is no room, in place of the least.
    fn keep(&mut self, found: Interruption) {
        if self.interruptions.len() < MAX_INTERRUPTIONS {
            self.interruptions.push(found);
            return;
        }
        let lighter = |a: &Interruption, b: &Interruption| {
            let ((a_bad, a_s), (b_bad, b_s)) = (a.weight(), b.weight());
            a_bad.cmp(&b_bad).then(a_s.total_cmp(&b_s))
        };
        if let Some(least) = self.interruptions.iter_mut().min_by(|a, b| lighter(a, b))
            && lighter(least, &found).is_lt()
        {
            *least = found;
        }
    }

    fn weigh_delta(&mut self, arrival_ns: i64, number: u64) {
        let delta_ms = arrival_ns as f64 / 1e6;
        self.weighed += 1;
        self.delta_sum_ms += delta_ms;
        self.delta_min_ms = if self.weighed == 1 { delta_ms } else { self.delta_min_ms.min(delta_ms) };
        if delta_ms > self.delta_max_ms {
            self.delta_max_ms = delta_ms;
            self.delta_max_packet = number;
        }
    }

    fn weigh_jitter(&mut self, arrival_ns: i64, timestamp_ns: f64, histogram: &mut MicrosHistogram) {
        let difference = (arrival_ns as f64 - timestamp_ns).abs();
        self.jitter_ns += (difference - self.jitter_ns) / 16.0;
        self.jitter_samples += 1;
        self.jitter_min_ns = self.jitter_min_ns.min(self.jitter_ns);
        self.jitter_max_ns = self.jitter_max_ns.max(self.jitter_ns);
        self.jitter_sum_ns += self.jitter_ns;
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "an amount of nanoseconds"
        )]
        histogram.record_ns(difference as u64);
        self.clock.add(arrival_ns as f64 / 1e6, timestamp_ns / 1e6);
    }

    /// The ledger in the words of the contract. `expected` comes from the stream's sequence.
    pub fn report(&self, expected: u64, clock_rate: Option<u32>) -> LedgerReport {
        let lost = expected.saturating_sub(self.packets);
        let duration_ms = self.last.time.since(self.first) as f64 / 1e6;
        let slope = self.clock.slope();
        LedgerReport {
            packets: self.packets,
            expected,
            lost: lost.cast_signed(),
            lost_percent: if expected == 0 { 0.0 } else { lost as f64 * 100.0 / expected as f64 },
            sequence_errors: self.gaps + self.reordered,
            delta_ms: Delta {
                min: self.delta_min_ms,
                mean: mean(self.delta_sum_ms, self.weighed),
                max: self.delta_max_ms,
                max_packet: self.delta_max_packet,
            },
            jitter_ms: Spread {
                min: if self.jitter_samples == 0 { -1.0 } else { self.jitter_min_ns / 1e6 },
                mean: mean(self.jitter_sum_ns, self.jitter_samples) / 1e6,
                max: self.jitter_max_ns / 1e6,
            },
            skew_ms: Skew { max: self.clock.max_skew_ms },
            clock_drift_ms: slope.map(|x| duration_ms * (x - 1.0)),
            clock_drift_percent: slope.map(|x| 100.0 * (x - 1.0)),
            clock_hz: slope.zip(clock_rate).map(|(x, rate)| x * f64::from(rate)),
            duration_s: duration_ms / 1e3,
        }
    }

    /// First copies counted.
    pub fn packets(&self) -> u64 {
        self.packets
    }

    /// Packets that came after a later one.
    pub fn reordered(&self) -> u64 {
        self.reordered
    }

    /// The heaviest interruptions, and how many there were.
    pub fn interruptions(&self) -> (&[Interruption], u64) {
        (&self.interruptions, self.interruption_count)
    }
}

impl Last {
    fn of(packet: &RtpPacket, placed: Placed) -> Self {
        Self {
            time: packet.tap_time,
            timestamp: packet.rtp.timestamp,
            payload_type: packet.rtp.payload_type,
            timed: placed.clock_rate.is_some(),
        }
    }
}

/// Least squares of timestamps over arrivals, both as sums of regular steps only: a pause or a jump is not
/// drift, and is left out of both.
#[derive(Clone, Debug, Default)]
struct ClockFit {
    arrival_ms: f64,
    nominal_ms: f64,
    n: f64,
    sum_x: f64,
    sum_y: f64,
    sum_xx: f64,
    sum_xy: f64,
    max_skew_ms: f64,
}

impl ClockFit {
    fn add(&mut self, arrival_ms: f64, nominal_ms: f64) {
        self.arrival_ms += arrival_ms;
        self.nominal_ms += nominal_ms;
        let (x, y) = (self.arrival_ms, self.nominal_ms);
        self.n += 1.0;
        self.sum_x += x;
        self.sum_y += y;
        self.sum_xx += x * x;
        self.sum_xy += x * y;
        if (y - x).abs() > self.max_skew_ms.abs() {
            self.max_skew_ms = y - x;
        }
    }

    fn slope(&self) -> Option<f64> {
        let divisor = self.n * self.sum_xx - self.sum_x * self.sum_x;
        (self.n >= 2.0 && divisor > 0.0).then(|| (self.n * self.sum_xy - self.sum_x * self.sum_y) / divisor)
    }
}

/// Did the timestamp move by something else than time, beyond any jitter?
fn jumped(timestamp_ns: f64, arrival_ns: i64) -> bool {
    (timestamp_ns - arrival_ns as f64).abs() >= 2.5 * INTERRUPTION_NS as f64
}

fn ticks_to_ns(ticks: i32, rate: u32) -> f64 {
    f64::from(ticks) * 1e9 / f64::from(rate)
}

fn mean(sum: f64, count: u64) -> f64 {
    if count == 0 { 0.0 } else { sum / count as f64 }
}

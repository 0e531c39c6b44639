//! The ledger of frames as captured: what tshark 4.0 computes, to the digit.
//!
//! The rules, their oddities included, are those of `../shared/reference/wireshark_rtp.md`, section 3 ("era A",
//! tshark 4.0.17), numbered as there in the comments. Copies and late packets count, the clock is
//! a whole number of ticks a millisecond, and the means are not arithmetic means. That is the point: an
//! operator can put the two side by side. What is true stands in [`super::unique`].
//!
//! Later versions of Wireshark count otherwise, in two steps that the specification describes (section 7). None of
//! them can be run against this code yet, so [`Compat`] has one value.

use super::codec::is_comfort_noise;
use super::unique::LedgerReport;
use crate::packet::{Nanos, RtpPacket};

/// Whose figures the raw ledger has to equal. A version is added once `cargo xtask conformance` has compared it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Compat {
    /// Wireshark and tshark 4.0: compared with 4.0.17.
    #[default]
    Wireshark40,
}

impl Compat {
    /// As on the command line and in the report.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Wireshark40 => "wireshark-4.0",
        }
    }
}

/// See the module. Times are milliseconds since the first frame of the capture.
#[derive(Clone, Debug)]
pub struct RawLedger {
    numbers: Numbers,
    running: Running,
    payload_type: u8,
    last_seq_seen: u16,
    last_seq: u16,
    clock_rate: u32,
    cycles: u32,
    faults: Faults,
    end: Nanos,
}

/// What makes tshark mark a stream.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Faults {
    sequence_errors: u64,
    wrong_timestamps: u64,
}

/// Where sequence numbers and timestamps began, by which tshark judges those that follow.
#[derive(Clone, Copy, Debug)]
pub(super) struct Numbers {
    first_timestamp: u32,
    first_seq: u16,
    under: bool,
}

/// What every frame changes.
#[derive(Clone, Copy, Debug)]
pub(super) struct Running {
    packets: u64,
    start_ms: f64,
    last_ms: f64,
    last_nominal_ms: f64,
    jitter_ms: f64,
    max_delta_ms: f64,
    max_delta_packet: u64,
    min_delta_ms: f64,
    max_jitter_ms: f64,
    min_jitter_ms: f64,
    /// Of deltas and of jitter, side by side as the sums are: what is done to neighbours is one instruction.
    mean_ms: [f64; 2],
    max_skew_ms: f64,
    sum_t: f64,
    sum_ts: f64,
    sum_tt: f64,
    sum_tts: f64,
}

impl RawLedger {
    /// Begins with a stream's first frame. `epoch` is the time of the capture's first.
    pub fn new(packet: &RtpPacket, epoch: Nanos) -> Self {
        let t = relative_ms(packet.time, epoch);
        let seq = packet.rtp.seq;
        Self {
            numbers: Numbers { first_timestamp: packet.rtp.timestamp, first_seq: seq, under: false },
            running: Running::new(t),
            payload_type: packet.rtp.payload_type,
            last_seq_seen: seq,
            last_seq: seq,
            clock_rate: 0,
            cycles: 0,
            faults: Faults::default(),
            end: packet.time,
        }
    }

    /// Counts one more frame, whose payload type has the clock rate that tshark would use.
    pub fn observe(&mut self, packet: &RtpPacket, epoch: Nanos, clock_rate: Option<u32>) {
        let rtp = &packet.rtp;
        let t = relative_ms(packet.time, epoch);
        let in_time = self.numbers.is_in_time(rtp.timestamp); // 1
        if in_time {
            self.cycles += u32::from(self.numbers.begins_cycle(rtp.seq, self.last_seq_seen)); // 2
        }
        self.check_sequence(rtp.seq, in_time); // 3
        let comfort_noise = is_comfort_noise(rtp.payload_type); // 4
        let after_comfort_noise = is_comfort_noise(self.payload_type);
        self.payload_type = rtp.payload_type;
        if in_time {
            if let Some(rate) = clock_rate {
                let ticks = self.numbers.ticks(rtp.timestamp);
                self.running.measure(ticks, f64::from(ticks_per_ms(rate)), t); // 5
                self.clock_rate = rate;
            }
            if !rtp.marker && !comfort_noise && !after_comfort_noise {
                self.running.weigh(t, packet.number, clock_rate.is_some()); // 7
            }
            self.running.last_ms = t; // 8
        }
        self.last_seq_seen = rtp.seq;
        self.faults.wrong_timestamps += u64::from(!in_time);
        self.end = packet.time;
        self.running.packets += 1;
    }

    fn check_sequence(&mut self, seq: u16, in_time: bool) {
        let (seq_wide, last) = (i32::from(seq), i32::from(self.last_seq));
        if in_time && (last + 1 == seq_wide || (last == 65_535 && seq == 0)) {
            self.last_seq = seq;
        } else if in_time && (last + 1 < seq_wide || last - seq_wide > 0xff00) {
            self.last_seq = seq;
            self.faults.sequence_errors += 1;
        } else if last + 1 > seq_wide {
            self.faults.sequence_errors += 1;
        }
    }

    /// What a run takes along, if the ledger stands at number `seq` with this payload type and clock rate.
    pub(super) fn lend(&self, seq: u16, payload_type: u8, rate: u32) -> Option<(Numbers, Running)> {
        let stands = self.last_seq == seq
            && self.payload_type == payload_type
            && self.clock_rate == rate
            && rate >= 1000;
        stands.then_some((self.numbers, self.running))
    }

    /// How many packets a run has counted since it was lent.
    pub(super) fn packets_until(&self, running: &Running) -> u64 {
        running.packets - self.running.packets
    }

    /// Goes on where a run has come to: `seq` was its last number.
    pub(super) fn take_back(&mut self, running: Running, seq: u16, end: Nanos) {
        (self.running, self.end) = (running, end);
        (self.last_seq, self.last_seq_seen) = (seq, seq);
    }

    /// A run goes on behind a gap, of which it counted the first packet last.
    pub(super) fn skip(&mut self, running: &Running) {
        self.running.packets = running.packets;
        self.faults.sequence_errors += 1;
    }

    /// What is left of it beside the run that it was lent to: frames, cycles, and faults.
    pub(super) fn into_rest(self) -> (u64, u32, Faults) {
        (self.running.packets, self.cycles, self.faults)
    }

    /// The same, whole again: as it was lent to a run behind a number, with packets of a type and a clock rate.
    pub(super) fn of_rest(
        (packets, cycles, faults): (u64, u32, Faults),
        (numbers, running): (Numbers, Running),
        (seq, payload_type, clock_rate): (u16, u8, u32),
    ) -> Self {
        Self {
            numbers,
            running: Running { packets, ..running },
            payload_type,
            last_seq_seen: seq,
            last_seq: seq,
            clock_rate,
            cycles,
            faults,
            end: Nanos::default(),
        }
    }

    /// Frames counted.
    pub fn packets(&self) -> u64 {
        self.running.packets
    }

    /// Time of the last frame, which in a capture out of order need not be the latest.
    pub fn end(&self) -> Nanos {
        self.end
    }

    /// Would tshark mark the stream with an X: a sequence error, or a timestamp before the first?
    pub fn is_marked(&self) -> bool {
        self.faults != Faults::default()
    }

    /// The ledger in the words of the contract.
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        clippy::cast_possible_wrap,
        reason = "tshark computes in 32 bits and lets them wrap; so must this"
    )]
    pub fn report(&self) -> LedgerReport {
        let Self { numbers, running, .. } = self;
        let expected = (i32::from(self.last_seq_seen))
            .wrapping_add((self.cycles as i32).wrapping_mul(65_536))
            .wrapping_sub(i32::from(numbers.first_seq))
            .wrapping_add(1) as u32;
        let lost = expected.wrapping_sub(running.packets as u32) as i32;
        let lost_percent =
            if expected == 0 { 0.0 } else { f64::from(lost.wrapping_mul(100)) / f64::from(expected) };
        let duration_ms = running.last_ms - running.start_ms;
        let slope = running.slope();
        let [mean_delta_ms, mean_jitter_ms] = running.mean_ms;
        LedgerReport {
            packets: running.packets,
            expected: u64::from(expected),
            lost: i64::from(lost),
            lost_percent,
            sequence_errors: self.faults.sequence_errors,
            delta_ms: super::unique::Delta {
                min: or_minus_one(running.min_delta_ms),
                mean: mean_delta_ms,
                max: running.max_delta_ms,
                max_packet: running.max_delta_packet,
            },
            jitter_ms: super::unique::Spread {
                min: or_minus_one(running.min_jitter_ms),
                mean: mean_jitter_ms,
                max: running.max_jitter_ms,
            },
            skew_ms: super::unique::Skew { max: running.max_skew_ms },
            // Without a clock Wireshark shows zeros; the unique ledger shows nothing.
            clock_drift_ms: Some(slope.map_or(0.0, |x| duration_ms * (x - 1.0))),
            clock_drift_percent: Some(slope.map_or(0.0, |x| 100.0 * (x - 1.0))),
            clock_hz: Some(slope.map_or(0.0, |x| x * f64::from((f64::from(self.clock_rate) * x) as u32))),
            duration_s: duration_ms / 1000.0,
            first_copies: None,
        }
    }
}

impl Numbers {
    /// Is a timestamp not before the stream's first?
    #[inline]
    pub(super) fn is_in_time(self, timestamp: u32) -> bool {
        // tshark counts one less across the wrap.
        let (ahead, wraps) = timestamp.overflowing_sub(self.first_timestamp);
        ahead.wrapping_sub(u32::from(wraps)) < 0x8000_0000
    }

    /// Ticks since the stream's first timestamp.
    #[inline]
    pub(super) fn ticks(self, timestamp: u32) -> u32 {
        timestamp.wrapping_sub(self.first_timestamp)
    }

    /// Does a new cycle of sequence numbers begin?
    fn begins_cycle(&mut self, seq: u16, last: u16) -> bool {
        let begins = seq < self.first_seq || (seq == 0 && last == u16::MAX);
        if begins && !self.under {
            self.under = true;
            return true;
        }
        if !begins && seq > self.first_seq {
            self.under = false;
        }
        false
    }

    /// The first number from `next` on, which follows the last one, that is of consequence to the count of cycles.
    pub(super) fn plain_until(self, next: u16) -> u16 {
        let is_before_first = next < self.first_seq;
        match next {
            0 => 0,
            _ if self.under != is_before_first => next,
            _ if is_before_first => self.first_seq,
            _ => 0,
        }
    }
}

impl Running {
    /// Frames counted.
    pub(super) fn packets(&self) -> u64 {
        self.packets
    }

    fn new(t: f64) -> Self {
        Self {
            packets: 1,
            start_ms: t,
            last_ms: t,
            last_nominal_ms: 0.0,
            jitter_ms: 0.0,
            max_delta_ms: 0.0,
            max_delta_packet: 0,
            min_delta_ms: NONE,
            max_jitter_ms: 0.0,
            min_jitter_ms: NONE,
            mean_ms: [0.0; 2],
            max_skew_ms: 0.0,
            sum_t: 0.0,
            sum_ts: 0.0,
            sum_tt: 0.0,
            sum_tts: 0.0,
        }
    }

    /// One more frame with a clock, in time, neither marked nor comfort noise.
    #[inline]
    pub(super) fn step(&mut self, ticks: u32, ticks_per_ms: f64, t: f64, number: u64) {
        self.measure(ticks, ticks_per_ms, t);
        self.weigh(t, number, true);
        self.last_ms = t;
        self.packets += 1;
    }

    #[inline]
    fn measure(&mut self, ticks: u32, ticks_per_ms: f64, t: f64) {
        let arrival = t - self.start_ms;
        let nominal = f64::from(ticks) / ticks_per_ms;
        let expected = self.last_ms + (nominal - self.last_nominal_ms);
        let difference = (t - expected).abs();
        self.jitter_ms = (15.0 * self.jitter_ms + difference) / 16.0;
        self.last_nominal_ms = nominal;
        let skew_ms = nominal - arrival;
        if skew_ms.abs() > self.max_skew_ms.abs() {
            self.max_skew_ms = skew_ms;
        }
        self.sum_t += arrival;
        self.sum_ts += nominal;
        self.sum_tt += arrival * arrival;
        self.sum_tts += arrival * nominal;
    }

    #[inline]
    fn weigh(&mut self, t: f64, number: u64, has_clock: bool) {
        // Of a signed number, which one instruction makes a float of.
        let n = self.packets.cast_signed() as f64;
        let (delta_ms, jitter_ms) = (t - self.last_ms, self.jitter_ms);
        let [mean_delta_ms, mean_jitter_ms] = self.mean_ms;
        let mean_ms =
            [(mean_delta_ms * (n - 1.0) + delta_ms) / n, (mean_jitter_ms * (n - 1.0) + jitter_ms) / n];
        self.mean_ms = if has_clock { mean_ms } else { [mean_ms[0], mean_jitter_ms] };
        if delta_ms > self.max_delta_ms {
            (self.max_delta_ms, self.max_delta_packet) = (delta_ms, number);
        }
        if delta_ms < self.min_delta_ms {
            self.min_delta_ms = or_none(delta_ms);
        }
        if has_clock {
            if jitter_ms > self.max_jitter_ms {
                self.max_jitter_ms = jitter_ms;
            }
            if jitter_ms < self.min_jitter_ms {
                self.min_jitter_ms = jitter_ms;
            }
        }
    }

    /// Milliseconds by the sender's clock a millisecond by ours; `None` if no frame had a clock.
    fn slope(&self) -> Option<f64> {
        let n = self.packets as f64;
        (self.sum_tt > 0.0).then(|| {
            (n * self.sum_tts - self.sum_t * self.sum_ts) / (n * self.sum_tt - self.sum_t * self.sum_t)
        })
    }
}

/// tshark divides by whole ticks a millisecond.
pub(super) fn ticks_per_ms(rate: u32) -> u32 {
    rate / 1000
}

/// Milliseconds as tshark has them: whole seconds and the rest are converted apart.
#[inline]
pub(super) fn relative_ms(time: Nanos, epoch: Nanos) -> f64 {
    let ns = time.since(epoch);
    (ns / 1_000_000_000) as f64 * 1000.0 + (ns % 1_000_000_000) as f64 / 1_000_000.0
}

/// A minimum that there is not yet. tshark has -1 for it, which a report says; here anything is less.
const NONE: f64 = f64::INFINITY;

/// A new minimum. One of -1, which captures out of order can have, is none to tshark, whatever came before.
#[expect(clippy::float_cmp, reason = "tshark compares so")]
#[cold]
fn or_none(least: f64) -> f64 {
    if least == -1.0 { NONE } else { least }
}

/// A minimum as tshark has it.
fn or_minus_one(least: f64) -> f64 {
    if least == NONE { -1.0 } else { least }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rtp::testing::packet;
    use proptest::prelude::*;

    /// k copies of every frame read as -100(k-1) % loss: the signature of the story.
    #[test]
    fn every_frame_twice_reads_as_minus_one_hundred_percent() {
        let epoch = packet(0).time;
        let mut ledger = RawLedger::new(&packet(0), epoch);
        let mut copy = packet(0);
        copy.time.0 += 38_000;
        ledger.observe(&copy, epoch, Some(8000));
        for seq in 1..656 {
            let mut copy = packet(seq);
            ledger.observe(&copy, epoch, Some(8000));
            copy.time.0 += 38_000;
            ledger.observe(&copy, epoch, Some(8000));
        }
        let report = ledger.report();
        assert_eq!((report.packets, report.expected, report.lost), (1312, 656, -656));
        assert_eq!(report.sequence_errors, 656);
        assert!((report.lost_percent + 100.0).abs() < 1e-9);
    }

    #[test]
    fn a_late_packet_costs_two_errors() {
        let epoch = packet(0).time;
        let mut ledger = RawLedger::new(&packet(0), epoch);
        for seq in [1, 3, 2, 4] {
            ledger.observe(&packet(seq), epoch, Some(8000));
        }
        assert_eq!((ledger.report().sequence_errors, ledger.report().lost), (2, 0));
    }

    #[test]
    fn a_minimum_that_was_never_set_prints_as_minus_one() {
        let report = RawLedger::new(&packet(0), packet(0).time).report();
        assert_eq!((report.delta_ms.min, report.jitter_ms.min), (-1.0, -1.0));
        assert_eq!(report.clock_drift_ms, Some(0.0));
    }

    proptest! {
        /// A run ends where the rules that are asked for each packet would have ended it.
        #[test]
        fn numbers_are_plain_until_one_begins_a_cycle(
            first_seq in any::<u16>(),
            under in any::<bool>(),
            next in prop_oneof![Just(0_u16), Just(1), any::<u16>()],
        ) {
            let numbers = Numbers { first_timestamp: 0, first_seq, under };
            let is_plain = |seq: u16| seq != 0 && under == (seq < first_seq);
            let plain = (0..=u16::MAX).take_while(|step| is_plain(next.wrapping_add(*step))).count();
            prop_assert_eq!(usize::from(numbers.plain_until(next).wrapping_sub(next)), plain);
        }

        #[test]
        fn in_time_is_what_tshark_says(first_timestamp in any::<u32>(), timestamp in any::<u32>()) {
            let numbers = Numbers { first_timestamp, first_seq: 0, under: false };
            let ahead = if timestamp >= first_timestamp {
                timestamp - first_timestamp
            } else {
                (u32::MAX - first_timestamp).wrapping_add(timestamp)
            };
            prop_assert_eq!(numbers.is_in_time(timestamp), ahead < 0x8000_0000);
        }

        /// Its figures, written as tshark writes them: -1 is "none yet", also where it was computed.
        #[test]
        fn minima_and_means_are_those_of_tshark(
            times in prop::collection::vec(prop_oneof![0_u16..2_000, 990_u16..1_010], 1..60),
            clocks in prop::collection::vec(any::<bool>(), 60),
        ) {
            let times: Vec<_> = times.into_iter().map(f64::from).collect();
            let mut running = Running::new(1_000.0);
            let (mut last, mut n) = (1_000.0, 1.0);
            let [mut min_delta, mut min_jitter] = [-1.0_f64; 2];
            let [mut mean_delta, mut mean_jitter] = [0.0; 2];
            for (t, has_clock) in times.into_iter().zip(clocks) {
                if has_clock {
                    running.measure(8, 8.0, t);
                }
                running.weigh(t, 1, has_clock);
                let (delta, jitter) = (t - last, running.jitter_ms);
                let is_none = |least: f64| least.to_bits() == (-1.0_f64).to_bits();
                let least = |so_far: f64, value| if is_none(so_far) { value } else { so_far.min(value) };
                min_delta = least(min_delta, delta);
                mean_delta = (mean_delta * (n - 1.0) + delta) / n;
                if has_clock {
                    min_jitter = least(min_jitter, jitter);
                    mean_jitter = (mean_jitter * (n - 1.0) + jitter) / n;
                }
                (running.last_ms, running.packets, last, n) = (t, running.packets + 1, t, n + 1.0);
                prop_assert_eq!(or_minus_one(running.min_delta_ms).to_bits(), min_delta.to_bits());
                prop_assert_eq!(or_minus_one(running.min_jitter_ms).to_bits(), min_jitter.to_bits());
                prop_assert_eq!(running.mean_ms.map(f64::to_bits), [mean_delta, mean_jitter].map(f64::to_bits));
            }
        }
    }
}

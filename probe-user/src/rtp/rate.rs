//! The clock rate of a payload type that nobody announced, from timestamps against arrivals.
//!
//! Ticks and time are added up over packets with consecutive numbers, until a second of them has gone by. What comes
//! out is no measurement of a clock but a choice among the rates that codecs use: they lie 8 % apart and more, a
//! second of packets is good to 2 %. Without a match there is no rate, and jitter stays out: an invented one would
//! make an invented jitter.

use serde::Serialize;

use crate::packet::{Nanos, RtpPacket};

/// Clock rates of RTP payload formats in use.
const KNOWN: [u32; 10] = [8000, 11_025, 12_000, 16_000, 22_050, 24_000, 32_000, 44_100, 48_000, 90_000];
/// How far from one of them a measurement may be.
const TOLERANCE: f64 = 0.02;
/// Time added up before the first look; each later look takes twice as much.
const FIRST_LOOK_NS: i64 = 1_000_000_000;
/// After so much without a match there is none.
const LAST_LOOK_NS: i64 = 16_000_000_000;
/// A step that took longer is a pause, and says nothing of the rate.
const PAUSE_NS: i64 = 400_000_000;

/// Where a clock rate comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum RateSource {
    /// `a=rtpmap`.
    Sdp,
    /// The table of RFC 3551.
    Static,
    /// [`RateEstimate`].
    Estimated,
}

/// See the module.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RateEstimate {
    payload_type: u8,
    found: Option<u32>,
    seq: u64,
    arrival: Nanos,
    timestamp: u32,
    elapsed_ns: i64,
    ticks: i64,
    look_at_ns: i64,
}

impl RateEstimate {
    /// Begins with a packet.
    pub fn new(packet: &RtpPacket, seq: u64) -> Self {
        Self {
            payload_type: packet.rtp.payload_type,
            found: None,
            seq,
            arrival: packet.tap_time,
            timestamp: packet.rtp.timestamp,
            elapsed_ns: 0,
            ticks: 0,
            look_at_ns: FIRST_LOOK_NS,
        }
    }

    /// Takes one more packet; its clock rate, as soon as it is known.
    pub fn observe(&mut self, packet: &RtpPacket, seq: u64) -> Option<u32> {
        if packet.rtp.payload_type != self.payload_type {
            *self = Self::new(packet, seq);
            return None;
        }
        if self.found.is_some() || self.look_at_ns > LAST_LOOK_NS {
            return self.found;
        }
        let elapsed = packet.tap_time.since(self.arrival);
        if seq == self.seq.wrapping_add(1) && !packet.rtp.marker && (0..PAUSE_NS).contains(&elapsed) {
            self.elapsed_ns += elapsed;
            self.ticks += i64::from(packet.rtp.timestamp.wrapping_sub(self.timestamp).cast_signed());
        }
        (self.seq, self.arrival, self.timestamp) = (seq, packet.tap_time, packet.rtp.timestamp);
        if self.elapsed_ns >= self.look_at_ns {
            self.found = nearest_known(self.measured_hz());
            self.look_at_ns *= 2;
        }
        self.found
    }

    /// The rate that was chosen for a payload type.
    pub fn found(&self, payload_type: u8) -> Option<u32> {
        self.found.filter(|_| payload_type == self.payload_type)
    }

    /// Ticks a second, as far as they were added up.
    pub fn measured_hz(&self) -> f64 {
        if self.elapsed_ns == 0 { 0.0 } else { self.ticks as f64 * 1e9 / self.elapsed_ns as f64 }
    }

    /// In words: from what the rate was chosen, or why none was, where `unknown` is why it had to be.
    pub fn because(&self, unknown: &str) -> String {
        let seconds = self.elapsed_ns as f64 / 1e9;
        let measured =
            format!("timestamps advance by {:.0} a second, over {seconds:.1} s", self.measured_hz());
        match self.found {
            Some(_) => format!("{unknown}; {measured}"),
            None if self.elapsed_ns < FIRST_LOOK_NS => {
                format!("clock rate unknown: {unknown}; less than 1 s to estimate it from")
            }
            None => format!("clock rate unknown: {unknown}; {measured}, which no codec does"),
        }
    }
}

fn nearest_known(measured_hz: f64) -> Option<u32> {
    KNOWN.into_iter().find(|&rate| (measured_hz / f64::from(rate) - 1.0).abs() <= TOLERANCE)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rtp::testing::packet;

    /// Packets every 20 ms with so many ticks each, up to `jitter_ns` late; what is estimated, and after which.
    fn estimate(ticks: u32, count: u64, jitter_ns: u64) -> (Option<u32>, u64, RateEstimate) {
        let with = |n: u64| {
            let mut packet = packet(n);
            packet.rtp.payload_type = 111;
            packet.rtp.timestamp = u32::MAX.wrapping_add(u32::try_from(n).unwrap().wrapping_mul(ticks));
            packet.tap_time.0 += n.wrapping_mul(0x9e37_79b9) % (jitter_ns + 1);
            packet
        };
        let mut estimate = RateEstimate::new(&with(0), 0);
        for n in 1..count {
            if let Some(rate) = estimate.observe(&with(n), n) {
                return (Some(rate), n, estimate);
            }
        }
        (None, count, estimate)
    }

    #[test]
    fn rates_in_use_are_told_apart_through_jitter_after_a_second() {
        for (ticks, rate) in
            [(160, 8000), (320, 16_000), (640, 32_000), (882, 44_100), (960, 48_000), (1_800, 90_000)]
        {
            let (found, after, _) = estimate(ticks, 500, 15_000_000);
            assert_eq!(found, Some(rate));
            assert!(after < 110, "{after}");
        }
    }

    #[test]
    fn what_is_no_rate_in_use_gets_none_and_a_reason() {
        let (found, _, standing) = estimate(200, 2_000, 0);
        assert_eq!(found, None);
        let because = standing.because("no SDP");
        assert!(because.contains("no SDP; timestamps advance by 10000 a second"), "{because}");
        // Digits: the timestamp stands still.
        assert_eq!(estimate(0, 2_000, 0).0, None);
        assert!(estimate(160, 10, 0).2.because("no SDP").contains("less than 1 s"));
    }

    #[test]
    fn lost_packets_and_pauses_do_not_change_the_estimate() {
        let mut estimate: Option<RateEstimate> = None;
        let mut found = None;
        for n in (0..300).filter(|n| n % 7 != 3) {
            let mut packet = packet(n);
            packet.rtp.payload_type = 96;
            // A pause of 2 s that the timestamp does not count.
            packet.tap_time.0 += if n > 30 { 2_000_000_000 } else { 0 };
            match &mut estimate {
                None => estimate = Some(RateEstimate::new(&packet, n)),
                Some(estimate) => found = found.or(estimate.observe(&packet, n)),
            }
        }
        assert_eq!(found, Some(8000));
    }
}

//! A sender's two clocks: what its reports say of them.

use super::wire::{Ntp, SenderInfo};

/// The line through (NTP time, RTP timestamp) of a sender's reports, by least squares, without keeping them.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct SenderClock {
    first: Option<(Ntp, u32)>,
    last: (Ntp, u32),
    /// Timestamps since the first report, unwrapped.
    ticks: f64,
    count: u64,
    mean_x: f64,
    mean_y: f64,
    sum_xx: f64,
    sum_xy: f64,
    /// Reports whose wall clock did not advance.
    backward: u64,
}

impl SenderClock {
    pub(super) fn observe(&mut self, info: &SenderInfo) {
        let Some((first, _)) = self.first else {
            self.first = Some((info.ntp, info.rtp));
            self.last = (info.ntp, info.rtp);
            self.add(0.0, 0.0);
            return;
        };
        let (last_ntp, last_rtp) = self.last;
        if info.ntp.since(last_ntp) <= 0.0 {
            self.backward += 1;
            return;
        }
        self.ticks += f64::from(info.rtp.wrapping_sub(last_rtp).cast_signed());
        self.last = (info.ntp, info.rtp);
        self.add(info.ntp.since(first), self.ticks);
    }

    /// One more point (Welford).
    fn add(&mut self, x: f64, y: f64) {
        self.count += 1;
        let count = self.count as f64;
        let (dx, dy) = (x - self.mean_x, y - self.mean_y);
        self.mean_x += dx / count;
        self.mean_y += dy / count;
        self.sum_xx += dx * (x - self.mean_x);
        self.sum_xy += dx * (y - self.mean_y);
    }

    /// Reports on the line, and the seconds that they span.
    pub(super) fn span(&self) -> (u64, f64) {
        (self.count, self.first.map_or(0.0, |(first, _)| self.last.0.since(first)))
    }

    /// Timestamp units a second of the sender's wall clock. At least three reports over ten seconds: a report is
    /// stamped to a millisecond or two, which is 200 ppm of ten seconds.
    pub(super) fn rate_hz(&self) -> Result<f64, &'static str> {
        let (count, span_s) = self.span();
        match count {
            0 => Err("no sender report"),
            _ if self.backward > 0 => Err("the NTP time of its reports does not advance"),
            _ if count < 3 || span_s < 10.0 => Err("less than three sender reports over ten seconds"),
            _ => Ok(self.sum_xy / self.sum_xx),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(seconds: f64, rtp: u32) -> SenderInfo {
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a test's times")]
        let ntp = Ntp((3_900_000_000.0_f64.mul_add(4_294_967_296.0, seconds * 4_294_967_296.0)) as u64);
        SenderInfo { ntp, rtp, packets: 0, octets: 0 }
    }

    #[test]
    fn a_media_clock_that_is_100_ppm_fast_is_seen_across_the_wrap_of_its_timestamps() {
        let mut clock = SenderClock::default();
        for step in 0..20_u32 {
            clock.observe(&report(f64::from(step) * 5.0, 0xffff_0000_u32.wrapping_add(step * 40_004)));
        }
        let ppm = (clock.rate_hz().unwrap() / 8_000.0 - 1.0) * 1e6;
        assert!((ppm - 100.0).abs() < 1.0, "{ppm}");
        assert_eq!(clock.span().0, 20);
    }

    #[test]
    fn a_wall_clock_that_stands_still_is_no_measure() {
        let mut clock = SenderClock::default();
        (0..5).for_each(|step| clock.observe(&report(0.0, step * 40_000)));
        assert_eq!(clock.rate_hz(), Err("the NTP time of its reports does not advance"));
    }
}

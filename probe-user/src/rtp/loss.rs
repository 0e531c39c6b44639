//! Loss in sequence order: run lengths, and bursts and gaps as RFC 3611, 4.7.2 and appendix A.2 define them.
//!
//! To a listener a packet that comes too late is as good as lost. So bursts and gaps, and the burst ratio, count what
//! was lost *or* discarded by the simulated de-jitter buffer, as the RFC has it; run lengths count what was lost.

use serde::Serialize;

/// Packets received in a row that end a burst (RFC 3611, 4.7.2: Gmin, recommended value).
const GMIN: u32 = 16;
/// Run lengths told apart; the last counts all longer ones.
const RUNS: usize = 10;

/// What became of a packet that was sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// It came in time.
    Received,
    /// It never came.
    Lost,
    /// It came too late for the de-jitter buffer.
    Discarded,
}

/// The loss pattern of one stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LossPattern {
    received: u64,
    lost: u64,
    discarded: u64,
    /// Received since the last loss.
    since_loss: u32,
    /// Losses in the current burst candidate.
    in_burst: u32,
    c11: u64,
    c13: u64,
    c14: u64,
    c22: u64,
    c23: u64,
    c33: u64,
    /// Runs of packets that could not be played, lost or discarded.
    unplayed_runs: u64,
    run: u32,
    runs: [u32; RUNS],
}

impl Default for LossPattern {
    fn default() -> Self {
        // The first loss of a stream is isolated, not the end of a burst: hence a candidate of one that nobody lost.
        Self {
            received: 0,
            lost: 0,
            discarded: 0,
            since_loss: 0,
            in_burst: 1,
            c11: 0,
            c13: 0,
            c14: 0,
            c22: 0,
            c23: 0,
            c33: 0,
            unplayed_runs: 0,
            run: 0,
            runs: [0; RUNS],
        }
    }
}

impl LossPattern {
    /// So many packets, none of them lost or discarded.
    pub(super) fn of_received(received: u64) -> Self {
        Self { received, since_loss: u32::try_from(received).unwrap_or(u32::MAX), ..Self::default() }
    }

    /// Packets that came in time.
    pub(super) fn received(&self) -> u64 {
        self.received
    }

    /// The next packets in sequence, all of which came in time.
    pub(super) fn receive(&mut self, packets: u64) {
        if packets > 0 {
            self.received += packets;
            self.since_loss = self.since_loss.saturating_add(u32::try_from(packets).unwrap_or(u32::MAX));
            self.end_run();
        }
    }

    /// The next packet in sequence: what became of it?
    pub fn settle(&mut self, fate: Fate) {
        match fate {
            Fate::Received => {
                self.receive(1);
                return;
            }
            Fate::Lost => {
                self.run = self.run.saturating_add(1);
                self.lost += 1;
            }
            Fate::Discarded => {
                self.discarded += 1;
                self.end_run();
            }
        }
        let is_first = self.unplayed() == 1;
        self.unplayed_runs += u64::from(self.since_loss > 0 || is_first);
        if self.since_loss >= GMIN || is_first {
            if self.in_burst == 1 {
                self.c14 += 1;
            } else {
                self.c13 += 1;
            }
            self.in_burst = 1;
            self.c11 += u64::from(self.since_loss);
        } else {
            self.in_burst = self.in_burst.saturating_add(1);
            if self.since_loss == 0 {
                self.c33 += 1;
            } else {
                self.c23 += 1;
                self.c22 += u64::from(self.since_loss - 1);
            }
        }
        self.since_loss = 0;
    }

    fn end_run(&mut self) {
        if self.run > 0 {
            let at = (self.run as usize).min(RUNS) - 1;
            if let Some(count) = self.runs.get_mut(at) {
                *count += 1;
            }
            self.run = 0;
        }
    }

    /// How many runs of one, two, … ten or more consecutive losses there were.
    pub fn runs(&self) -> [u32; RUNS] {
        let mut closed = self.clone();
        closed.end_run();
        closed.runs
    }

    /// Mean observed burst length over that of random loss (G.107, BurstR): 1 is random, more is bursty.
    pub fn burst_ratio(&self) -> f64 {
        let total = self.received + self.unplayed();
        if self.unplayed_runs == 0 {
            return 1.0;
        }
        let unplayed = self.unplayed() as f64;
        ((unplayed / self.unplayed_runs as f64) * (1.0 - unplayed / total as f64)).max(1.0)
    }

    /// Lost or discarded.
    fn unplayed(&self) -> u64 {
        self.lost + self.discarded
    }

    /// Bursts and gaps, for packets of `packet_ms` each. Densities are fractions of packets lost or discarded.
    pub fn bursts(&self, packet_ms: f64) -> BurstReport {
        let (c31, c32) = (self.c13, self.c23);
        let total = self.c11 + self.c14 + self.c13 + self.c22 + self.c23 + c31 + c32 + self.c33;
        let p32 = if c32 == 0 { 0.0 } else { c32 as f64 / (c31 + c32 + self.c33) as f64 };
        let p23 =
            if self.c22 + self.c23 < 1 { 1.0 } else { 1.0 - self.c22 as f64 / (self.c22 + self.c23) as f64 };
        let gap_losses = self.c11 + self.c14;
        let (mut gap_ms, mut burst_ms) = (0.0, 0.0);
        if self.c13 > 0 {
            gap_ms = (self.c11 + self.c14 + self.c13) as f64 * packet_ms / self.c13 as f64;
            burst_ms = total as f64 * packet_ms / self.c13 as f64 - gap_ms;
        }
        BurstReport {
            gmin: GMIN,
            lost: self.lost,
            discarded: self.discarded,
            burst_density: if self.c23 + self.c33 == 0 { 0.0 } else { p23 / (p23 + p32) },
            gap_density: if gap_losses == 0 { 0.0 } else { self.c14 as f64 / gap_losses as f64 },
            burst_duration_ms: burst_ms,
            gap_duration_ms: gap_ms,
            loss_runs: self.runs(),
        }
    }
}

/// RFC 3611's burst and gap metrics in plain units.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct BurstReport {
    /// Packets received in a row that end a burst.
    pub gmin: u32,
    /// Packets that never came.
    pub lost: u64,
    /// Packets that came too late for the de-jitter buffer that judges.
    pub discarded: u64,
    /// Fraction lost or discarded inside bursts.
    pub burst_density: f64,
    /// Fraction lost or discarded in the gaps between them.
    pub gap_density: f64,
    /// Mean length of a burst.
    pub burst_duration_ms: f64,
    /// Mean length of a gap.
    pub gap_duration_ms: f64,
    /// Runs of 1, 2, … 9, and 10 or more consecutive losses.
    pub loss_runs: [u32; RUNS],
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(pattern: &str) -> LossPattern {
        let mut loss = LossPattern::default();
        pattern.chars().for_each(|c| {
            loss.settle(match c {
                '.' => Fate::Received,
                'x' => Fate::Lost,
                _ => Fate::Discarded,
            });
        });
        loss
    }

    #[test]
    fn an_isolated_loss_is_no_burst() {
        let report = of(&format!("{}x{}", ".".repeat(40), ".".repeat(40))).bursts(20.0);
        assert_eq!((report.burst_density, report.burst_duration_ms), (0.0, 0.0));
        assert!(report.gap_density > 0.0);
    }

    #[test]
    fn run_lengths_are_counted_also_at_the_end() {
        let loss = of(&format!("..x..xx..{}..xxx", "x".repeat(14)));
        assert_eq!(loss.runs(), [1, 1, 1, 0, 0, 0, 0, 0, 0, 1]);
    }

    #[test]
    fn what_comes_too_late_bursts_with_what_is_lost_but_makes_no_run_of_loss() {
        let (lost, mixed) = (format!("{0}xxxx{0}", ".".repeat(40)), format!("{0}xdxd{0}", ".".repeat(40)));
        let (lost, mixed) = (of(&lost), of(&mixed));
        assert_eq!(
            (lost.runs()[..4].to_vec(), mixed.runs()[..4].to_vec()),
            (vec![0, 0, 0, 1], vec![2, 0, 0, 0])
        );
        let (by_loss, by_both) = (lost.bursts(20.0), mixed.bursts(20.0));
        assert_eq!((by_both.lost, by_both.discarded), (2, 2));
        assert_eq!(by_loss.burst_density.to_bits(), by_both.burst_density.to_bits());
        assert_eq!(lost.burst_ratio().to_bits(), mixed.burst_ratio().to_bits());
    }

    /// By hand after appendix A.2: one burst of 1 0 1 1 (c22 1, c23 1, c33 1), then a gap that an isolated loss
    /// (c13: the burst ended) and another (c14) end.
    #[test]
    fn the_counters_are_those_of_the_appendix() {
        let dots = |count| ".".repeat(count);
        let loss = of(&format!("{}x..xx{}x{}x{}", dots(20), dots(20), dots(30), dots(5)));
        let counters = [loss.c11, loss.c13, loss.c14, loss.c22, loss.c23, loss.c33];
        assert_eq!(counters, [20 + 20 + 30, 1, 2, 1, 1, 1]);
        // p32 = c32 / (c31 + c32 + c33) = 1/3, p23 = 1 - c22 / (c22 + c23) = 1/2.
        let report = loss.bursts(20.0);
        assert!((report.burst_density - 0.5 / (0.5 + 1.0 / 3.0)).abs() < 1e-12);
        assert!((report.gap_density - 2.0 / 72.0).abs() < 1e-12);
        assert!((report.gap_duration_ms - 73.0 * 20.0).abs() < 1e-9);
        // ctotal = 70 + 2 + 1 + 1 + 1 + c31 1 + c32 1 + 1 = 78.
        assert!((report.burst_duration_ms - (78.0 * 20.0 - 73.0 * 20.0)).abs() < 1e-9);
    }

    #[test]
    fn consecutive_loss_is_burstier_than_random() {
        let scattered = of(&"...................x".repeat(20));
        let clustered = of(&format!("{}{}", ".".repeat(380), "xx..xx..xx..xx..xx..xxxxxxxxxx"));
        assert!((scattered.burst_ratio() - 1.0).abs() < 1e-9);
        assert!(clustered.burst_ratio() > 2.0);
        assert!(clustered.bursts(20.0).burst_density > 0.5);
    }
}

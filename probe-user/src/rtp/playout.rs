//! What a de-jitter buffer would have thrown away: packets that came, but too late to be played.
//!
//! Two are simulated for every stream, and cost no memory, as nobody plays anything:
//!
//! - **fixed**: the first packet of a talkspurt waits for the buffer's depth, and each later one is due as much after
//!   it as their timestamps say. One that comes after it is due is discarded. After 16 discards in a row the buffer
//!   begins afresh with the next packet: real ones do, or their user would hear nothing any more.
//! - **adaptive**: the depth follows the traffic: 4 times the mean delay variation, at least 10 ms and at most 200 ms.
//!   It rises at once to what it has just missed and a quarter more, and sinks slowly, by 1/512 a packet (to a third in
//!   10 s at 20 ms).
//!
//! Nothing is ever too early for them: both hold whatever waits.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use serde::Serialize;

/// Discards in a row after which the fixed buffer begins afresh.
const FRESH_AFTER: u32 = 16;
/// Range of the adaptive buffer's depth.
const LEAST_NS: f64 = 10e6;
const MOST_NS: f64 = 200e6;
/// Frames named of those discarded.
const EXAMPLES: usize = 4;

/// The buffer whose discards count as loss, in bursts and scores.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum JitterBuffer {
    /// Always as deep.
    Fixed(Duration),
    /// As deep as the traffic needs.
    Adaptive,
}

impl JitterBuffer {
    /// 60 ms: three packets of 20 ms, as many telephones have it.
    pub const USUAL: Self = Self::Fixed(USUAL_DEPTH);
    /// The deepest that can be asked for: who waits longer does not converse.
    pub const DEEPEST: Duration = Duration::from_secs(10);

    fn depth(self) -> Duration {
        match self {
            Self::Fixed(depth) => depth,
            Self::Adaptive => USUAL_DEPTH,
        }
    }

    /// How long the fixed one makes the first packet wait, whichever of them judges.
    pub fn depth_ns(self) -> f64 {
        self.depth().as_secs_f64() * 1e9
    }
}

const USUAL_DEPTH: Duration = Duration::from_millis(60);

impl fmt::Display for JitterBuffer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Fixed(depth) => write!(f, "a jitter buffer of {} ms", depth.as_millis()),
            Self::Adaptive => f.write_str("an adaptive jitter buffer"),
        }
    }
}

impl FromStr for JitterBuffer {
    type Err = String;

    /// `60ms`, or `adaptive`.
    fn from_str(text: &str) -> Result<Self, String> {
        if text == "adaptive" {
            return Ok(Self::Adaptive);
        }
        let depth = humantime::parse_duration(text).map_err(|error| format!("{error}; or say: adaptive"))?;
        if depth > Self::DEEPEST {
            return Err("deeper than 10 s".to_owned());
        }
        Ok(Self::Fixed(depth))
    }
}

/// See the module.
#[derive(Clone, Copy, Debug)]
pub struct Playout {
    judge: JitterBuffer,
    depth_ns: f64,
    buffers: Buffers,
    packets: u64,
    in_a_row: u32,
    discards: Discards,
}

/// What a stream whose packets come in time has none of.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Discards {
    fixed: u64,
    fresh_starts: u64,
    adaptive: u64,
    examples: [u64; EXAMPLES],
}

/// Where both buffers stand.
#[expect(clippy::struct_field_names, reason = "the unit is in the name, and they are all times")]
#[derive(Clone, Copy, Debug)]
pub(super) struct Buffers {
    /// Transit of the packet that set the pace.
    pace_ns: f64,
    target_ns: f64,
    variation_ns: f64,
    target_sum_ns: f64,
    target_max_ns: f64,
}

impl Buffers {
    fn new() -> Self {
        Self { pace_ns: 0.0, target_ns: LEAST_NS, variation_ns: 0.0, target_sum_ns: 0.0, target_max_ns: 0.0 }
    }

    /// Is a packet too late for the fixed one, which is so deep?
    #[inline]
    pub(super) fn misses_fixed(&self, transit_ns: f64, depth_ns: f64) -> bool {
        transit_ns - self.pace_ns > depth_ns
    }

    /// Is it too late for the adaptive one?
    #[inline]
    pub(super) fn misses_adaptive(&self, variation_ns: f64) -> bool {
        variation_ns > self.target_ns
    }

    /// A packet came, in time for the adaptive one or not.
    #[inline]
    pub(super) fn adapt(&mut self, variation_ns: f64, is_late: bool) {
        self.target_sum_ns += self.target_ns;
        // Not `f64::max`, which is five instructions for the sake of NaN.
        if self.target_ns > self.target_max_ns {
            self.target_max_ns = self.target_ns;
        }
        self.variation_ns += (variation_ns - self.variation_ns) / 64.0;
        let floor = (4.0 * self.variation_ns).clamp(LEAST_NS, MOST_NS);
        self.target_ns = if is_late {
            (1.25 * variation_ns).clamp(LEAST_NS, MOST_NS)
        } else {
            let sunk = self.target_ns - self.target_ns / 512.0;
            if sunk > floor { sunk } else { floor }
        };
    }
}

/// What two buffers would have done with one stream.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct PlayoutReport {
    /// Packets that were played or discarded: those with a clock, without comfort noise and events.
    pub packets: u64,
    /// Whose discards count in `bursts` and in the scores: "fixed" or "adaptive".
    pub judge: &'static str,
    /// The fixed one.
    pub fixed: FixedReport,
    /// The adaptive one.
    pub adaptive: AdaptiveReport,
    /// Frames of the first discards by the judge.
    pub examples: Vec<u64>,
}

/// The fixed buffer.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct FixedReport {
    /// Depth.
    pub depth_ms: f64,
    /// Packets too late for it.
    pub discarded: u64,
    /// The same in percent of the packets.
    pub discarded_percent: f64,
    /// Times it began afresh after 16 discards in a row.
    pub fresh_starts: u64,
}

/// The adaptive buffer.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct AdaptiveReport {
    /// Mean depth.
    pub depth_mean_ms: f64,
    /// Greatest depth.
    pub depth_max_ms: f64,
    /// Packets too late for it.
    pub discarded: u64,
    /// The same in percent of the packets.
    pub discarded_percent: f64,
}

impl Playout {
    /// Buffers that nothing has come to yet; `judge` is the one that decides.
    pub fn new(judge: JitterBuffer) -> Self {
        Self {
            judge,
            depth_ns: judge.depth_ns(),
            buffers: Buffers::new(),
            packets: 0,
            in_a_row: 0,
            discards: Discards::default(),
        }
    }

    /// A packet arrives: is it too late for the buffer that judges? `variation_ns` is its delay over the quickest
    /// lately, `is_spurt` says that it is the first after a silence.
    pub fn observe(&mut self, transit_ns: f64, variation_ns: f64, is_spurt: bool, number: u64) -> bool {
        self.packets += 1;
        let by_fixed = self.fixed(transit_ns, is_spurt);
        let by_adaptive = self.adaptive(variation_ns);
        let discarded = match self.judge {
            JitterBuffer::Fixed(_) => by_fixed,
            JitterBuffer::Adaptive => by_adaptive,
        };
        if discarded {
            self.note(number);
        }
        discarded
    }

    fn fixed(&mut self, transit_ns: f64, is_spurt: bool) -> bool {
        if is_spurt || self.in_a_row >= FRESH_AFTER {
            self.discards.fresh_starts += u64::from(!is_spurt);
            self.buffers.pace_ns = transit_ns;
            self.in_a_row = 0;
            return false;
        }
        let is_late = self.buffers.misses_fixed(transit_ns, self.depth_ns);
        self.in_a_row = if is_late { self.in_a_row + 1 } else { 0 };
        self.discards.fixed += u64::from(is_late);
        is_late
    }

    fn adaptive(&mut self, variation_ns: f64) -> bool {
        let is_late = self.buffers.misses_adaptive(variation_ns);
        self.discards.adaptive += u64::from(is_late);
        self.buffers.adapt(variation_ns, is_late);
        is_late
    }

    /// What a run takes along, if neither buffer is in trouble.
    pub(super) fn lend(&self) -> Option<Buffers> {
        (self.in_a_row == 0).then_some(self.buffers)
    }

    /// Goes on where a run of `packets` has come to: all were in time.
    pub(super) fn take_back(&mut self, buffers: Buffers, packets: u64) {
        self.buffers = buffers;
        self.count(packets);
    }

    /// So many packets of a run were in time.
    pub(super) fn count(&mut self, packets: u64) {
        self.packets += packets;
    }

    /// What is left of it beside the run that it was lent to: packets, and what was discarded of them.
    pub(super) fn into_rest(self) -> (u64, Discards) {
        (self.packets, self.discards)
    }

    /// The same, whole again.
    pub(super) fn of_rest(
        judge: JitterBuffer,
        (packets, discards): (u64, Discards),
        buffers: Buffers,
    ) -> Self {
        Self { judge, depth_ns: judge.depth_ns(), buffers, packets, in_a_row: 0, discards }
    }

    #[cold]
    fn note(&mut self, number: u64) {
        if let Some(free) = self.discards.examples.iter_mut().find(|example| **example == 0) {
            *free = number;
        }
    }

    /// Packets that the judge discarded.
    pub fn discarded(&self) -> u64 {
        match self.judge {
            JitterBuffer::Fixed(_) => self.discards.fixed,
            JitterBuffer::Adaptive => self.discards.adaptive,
        }
    }

    /// The judge.
    pub fn judge(&self) -> JitterBuffer {
        self.judge
    }

    /// What both did; `None` if no packet had a clock.
    pub fn report(&self) -> Option<PlayoutReport> {
        if self.packets == 0 {
            return None;
        }
        let packets = self.packets as f64;
        Some(PlayoutReport {
            packets: self.packets,
            judge: match self.judge {
                JitterBuffer::Fixed(_) => "fixed",
                JitterBuffer::Adaptive => "adaptive",
            },
            fixed: FixedReport {
                depth_ms: self.depth_ns / 1e6,
                discarded: self.discards.fixed,
                discarded_percent: self.discards.fixed as f64 * 100.0 / packets,
                fresh_starts: self.discards.fresh_starts,
            },
            adaptive: AdaptiveReport {
                depth_mean_ms: self.buffers.target_sum_ns / packets / 1e6,
                depth_max_ms: self.buffers.target_max_ns / 1e6,
                discarded: self.discards.adaptive,
                discarded_percent: self.discards.adaptive as f64 * 100.0 / packets,
            },
            examples: self.discards.examples.into_iter().filter(|number| *number > 0).collect(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Feeds transits in milliseconds; the first begins a spurt. Which were discarded?
    fn late(judge: JitterBuffer, transits_ms: &[f64]) -> (Vec<usize>, PlayoutReport) {
        let mut playout = Playout::new(judge);
        let mut least = f64::INFINITY;
        let mut late = Vec::new();
        for (n, ms) in transits_ms.iter().enumerate() {
            least = least.min(*ms);
            if playout.observe(ms * 1e6, (ms - least) * 1e6, n == 0, n as u64 + 1) {
                late.push(n);
            }
        }
        (late, playout.report().unwrap())
    }

    #[test]
    fn a_fixed_buffer_discards_what_is_later_than_its_depth() {
        let (late, report) = late(JitterBuffer::USUAL, &[0.0, 59.9, 60.0, 60.1, 0.0, 300.0, -20.0]);
        assert_eq!(late, [3, 5]);
        let fixed = report.fixed;
        assert_eq!((fixed.depth_ms, fixed.discarded, fixed.fresh_starts, report.packets), (60.0, 2, 0, 7));
        assert_eq!(report.examples, [4, 6]);
    }

    #[test]
    fn a_late_first_packet_makes_the_buffer_deeper_by_as_much() {
        let (late, _) = late(JitterBuffer::USUAL, &[50.0, 109.0, 0.0, 111.0]);
        assert_eq!(late, [3]);
    }

    #[test]
    fn after_sixteen_in_a_row_it_begins_afresh() {
        let mut transits = vec![0.0; 10];
        transits.extend([100.0; 100]);
        let (late, report) = late(JitterBuffer::USUAL, &transits);
        assert_eq!((late.len(), report.fixed.fresh_starts), (16, 1));
    }

    #[test]
    fn an_adaptive_buffer_learns_from_the_first_spike_and_forgets() {
        let mut transits = vec![0.0; 100];
        for n in [20, 30, 40] {
            transits[n] = 80.0;
        }
        // 20 s later its depth is down again.
        transits.extend([0.0; 1_500]);
        transits.push(80.0);
        let (late, report) = late(JitterBuffer::Adaptive, &transits);
        assert_eq!(late, [20, 1_600]);
        assert_eq!(report.adaptive.depth_max_ms.to_bits(), 100_f64.to_bits());
        assert!(report.adaptive.depth_mean_ms < 40.0, "{report:?}");
    }

    #[test]
    fn the_option_reads_as_people_write_it() {
        assert_eq!("60ms".parse(), Ok(JitterBuffer::USUAL));
        assert_eq!("adaptive".parse(), Ok(JitterBuffer::Adaptive));
        assert!("60".parse::<JitterBuffer>().is_err() && "1h".parse::<JitterBuffer>().is_err());
        assert_eq!(JitterBuffer::USUAL.to_string(), "a jitter buffer of 60 ms");
    }
}

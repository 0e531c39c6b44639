//! Arrivals against timestamps: how late each packet is on its sender's own time line.
//!
//! ```text
//!   arrival   ──┬─────┬─────┬───── silence ─────┬─────┬──      by the tap's clock
//!   timestamp ──┬─────┬─────┬──┬─────┬──                       by the sender's
//!               └ segment 1 ┘  └ segment 2 ┘                   transit = arrival - timestamp, 0 where one begins
//! ```
//!
//! A segment ends where the two are not meant to agree: at an interruption, a timestamp jump, another clock rate.
//! Nothing is compared across its ends. Within it, transit wanders with queues (jitter, delay variation) and
//! with the clocks (drift).

use crate::packet::Nanos;

/// At a marker, or around comfort noise, arrivals and timestamps that disagree by so much begin a segment: a sender
/// that did not count its silence, not a queue.
const RESYNC_NS: f64 = 100e6;

/// One packet against the one before it on the same clock.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Measured {
    /// Time between their arrivals.
    pub arrival_ns: i64,
    /// Time between their timestamps.
    pub nominal_ns: f64,
    ticks: i64,
}

impl Measured {
    /// D of RFC 3550, 6.4.1: how much later than its predecessor this one is.
    pub fn difference_ns(&self) -> f64 {
        self.arrival_ns as f64 - self.nominal_ns
    }
}

/// See the module.
#[derive(Clone, Debug, Default)]
pub struct Timeline {
    rate: u32,
    ticks_per_ns: f64,
    anchor: Option<Anchor>,
    segment: Segment,
}

/// The last packet that was placed on the line.
#[derive(Clone, Copy, Debug)]
struct Anchor {
    arrival: Nanos,
    timestamp: u32,
}

/// How far a segment has come.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Segment {
    ns_per_tick: f64,
    arrival_ns: i64,
    ticks: i64,
}

impl Segment {
    #[inline]
    pub(super) fn measure(&self, arrival_ns: i64, ticks: i64) -> Measured {
        Measured { arrival_ns, nominal_ns: ticks as f64 * self.ns_per_tick, ticks }
    }

    /// Takes a packet that continues it; its transit in nanoseconds.
    fn step(&mut self, measured: &Measured) -> f64 {
        let (arrival_ns, ticks) = (measured.arrival_ns, measured.ticks);
        self.go_on((self.arrival_ns.saturating_add(arrival_ns), self.ticks.saturating_add(ticks)));
        self.transit_ns((self.arrival_ns, self.ticks))
    }

    /// Its sums after a packet of an orderly run, and where that packet stands. Such a packet adds less than 0.4 s, so that the
    /// sums are those of [`Segment::step`]: it would take a century of them to come to where those saturate.
    #[inline]
    pub(super) fn after(&self, measured: &Measured) -> ((i64, i64), f64) {
        let sums =
            (self.arrival_ns.wrapping_add(measured.arrival_ns), self.ticks.wrapping_add(measured.ticks));
        (sums, self.transit_ns(sums))
    }

    /// Has come to these sums.
    #[inline]
    pub(super) fn go_on(&mut self, sums: (i64, i64)) {
        (self.arrival_ns, self.ticks) = sums;
    }

    /// From the sums, so that rounding does not add up over a long call.
    #[inline]
    fn transit_ns(&self, (arrival_ns, ticks): (i64, i64)) -> f64 {
        arrival_ns as f64 - ticks as f64 * self.ns_per_tick
    }
}

/// Where a packet stands.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Standing {
    /// Later than the first packet of its segment by so much; negative if that one was late itself.
    pub transit_ns: f64,
    /// It begins a segment.
    pub begins: bool,
}

impl Timeline {
    /// Measures a packet against the last one placed. `None` if there is none on this clock.
    pub fn measure(&self, arrival: Nanos, timestamp: u32, rate: u32) -> Option<Measured> {
        let anchor = self.anchor.filter(|_| rate == self.rate)?;
        let arrival_ns = arrival.since(anchor.arrival);
        let ticks = i64::from(timestamp.wrapping_sub(anchor.timestamp).cast_signed());
        let ticks = nearest(ticks, arrival_ns as f64 * self.ticks_per_ns);
        Some(self.segment.measure(arrival_ns, ticks))
    }

    /// What a run takes along, if the last packet came at `time` and is on this clock: its timestamp, and the segment.
    pub(super) fn lend(&self, time: Nanos, rate: u32) -> Option<(u32, Segment)> {
        let anchor = self.anchor.filter(|anchor| anchor.arrival == time && rate == self.rate)?;
        Some((anchor.timestamp, self.segment))
    }

    /// The clock rate, which is what is left of it beside the run that it was lent to.
    pub(super) fn rate(&self) -> u32 {
        self.rate
    }

    /// The same, whole again.
    pub(super) fn of_rest(rate: u32) -> Self {
        Self { rate, ticks_per_ns: ticks_per_ns(rate), ..Self::default() }
    }

    /// Goes on where a run has come to.
    pub(super) fn take_back(&mut self, segment: Segment, arrival: Nanos, timestamp: u32) {
        self.segment = segment;
        self.anchor = Some(Anchor { arrival, timestamp });
    }

    /// Places a packet, as it was measured. `breaks`: it is known to begin a segment; `is_regular`: no marker, no
    /// comfort noise before it or in it.
    pub fn place(
        &mut self,
        arrival: Nanos,
        timestamp: u32,
        rate: u32,
        measured: Option<Measured>,
        breaks: bool,
        is_regular: bool,
    ) -> Standing {
        self.anchor = Some(Anchor { arrival, timestamp });
        let continues =
            measured.filter(|measured| !breaks && (is_regular || measured.difference_ns().abs() < RESYNC_NS));
        let Some(measured) = continues else {
            if rate != self.rate {
                self.rate = rate;
                self.segment.ns_per_tick = 1e9 / f64::from(rate);
                self.ticks_per_ns = ticks_per_ns(rate);
            }
            (self.segment.arrival_ns, self.segment.ticks) = (0, 0);
            return Standing { transit_ns: 0.0, begins: true };
        };
        Standing { transit_ns: self.segment.step(&measured), begins: false }
    }
}

fn ticks_per_ns(rate: u32) -> f64 {
    f64::from(rate) / 1e9
}

/// A timestamp has 32 bits: of the steps that look alike, the one nearest to the time that passed. It matters after
/// silences of 2^31 ticks, which are 74 hours at 8 kHz, and 6.6 at 90 kHz.
fn nearest(ticks: i64, by_time: f64) -> i64 {
    const HALF: f64 = (1_u64 << 30) as f64;
    if by_time.abs() < HALF {
        return ticks;
    }
    #[expect(clippy::cast_possible_truncation, reason = "saturates, and so does the sum")]
    let cycles = ((by_time - ticks as f64) / (1_u64 << 32) as f64).round() as i64;
    ticks.saturating_add(cycles.saturating_mul(1 << 32))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const RATE: u32 = 8000;

    fn transits(packets: &[(u64, u32)]) -> Vec<Standing> {
        let mut line = Timeline::default();
        packets
            .iter()
            .map(|(ms, timestamp)| {
                let arrival = Nanos(1_000_000_000 + ms * 1_000_000);
                let measured = line.measure(arrival, *timestamp, RATE);
                line.place(arrival, *timestamp, RATE, measured, false, true)
            })
            .collect()
    }

    #[test]
    fn transit_is_lateness_against_the_first_packet_also_out_of_order() {
        let got = transits(&[(0, 0), (25, 160), (60, 480), (61, 320), (80, 640)]);
        let transit: Vec<_> = got.iter().map(|standing| standing.transit_ns / 1e6).collect();
        assert_eq!(transit, [0.0, 5.0, 0.0, 21.0, 0.0]);
    }

    #[test]
    fn the_wrap_of_the_timestamp_is_no_jump() {
        let got = transits(&[(0, u32::MAX - 159), (20, 0), (40, 160)]);
        assert!(got.iter().all(|standing| standing.transit_ns == 0.0));
    }

    #[test]
    fn a_silence_beyond_half_the_timestamps_range_is_read_by_the_time_that_passed() {
        // 100 hours at 8 kHz are 2.88e9 ticks, more than 2^31.
        let ticks = 100 * 3600 * 8000_u64;
        let timestamp = u32::try_from(ticks & 0xffff_ffff).unwrap();
        let got =
            transits(&[(0, 0), (100 * 3600 * 1000, timestamp), (100 * 3600 * 1000 + 20, timestamp + 160)]);
        assert!(got.iter().all(|standing| standing.transit_ns.abs() < 1.0), "{got:?}");
        // And one of more than a whole cycle.
        let ticks = 200 * 3600 * 8000_u64;
        let timestamp = u32::try_from(ticks & 0xffff_ffff).unwrap();
        assert!(transits(&[(0, 0), (200 * 3600 * 1000, timestamp)])[1].transit_ns.abs() < 1.0);
    }

    #[test]
    fn another_clock_rate_and_a_marker_that_did_not_count_its_silence_begin_a_segment() {
        let mut line = Timeline::default();
        let mut place = |ms: u64, timestamp, rate, is_regular| {
            let arrival = Nanos(1_000_000_000 + ms * 1_000_000);
            let measured = line.measure(arrival, timestamp, rate);
            line.place(arrival, timestamp, rate, measured, false, is_regular).begins
        };
        let begins = [
            place(0, 0, 8000, true),
            place(20, 160, 8000, true),
            place(40, 640, 16_000, true),
            // Counted: the timestamp went on through 300 ms of silence.
            place(340, 5_440, 16_000, false),
            // Not counted.
            place(640, 5_760, 16_000, false),
        ];
        assert_eq!(begins, [true, false, true, false, true]);
    }

    proptest! {
        #[test]
        fn a_run_goes_on_as_the_line_does(
            steps in prop::collection::vec((0_i64..400_000_000, -20_000_i64..20_000), 1..100),
            rate in 1_000_u32..100_000,
        ) {
            let mut segment = Segment { ns_per_tick: 1e9 / f64::from(rate), ..Segment::default() };
            let mut run = segment;
            for (arrival_ns, ticks) in steps {
                let measured = segment.measure(arrival_ns, ticks);
                let (sums, transit_ns) = run.after(&measured);
                run.go_on(sums);
                prop_assert_eq!(segment.step(&measured).to_bits(), transit_ns.to_bits());
                prop_assert_eq!((segment.arrival_ns, segment.ticks), sums);
            }
        }
    }
}

//! What was found about copies: how many of which kind, how late, from when to when, with examples.
//!
//! A kind is a cause, the set of differences, and the tunnel's session. One frame shows only its differences; what
//! needs many (whether the capture or the network made the copies, and how sure that is) is judged here.

use serde::Serialize;

use super::cause::{Cause, Differs, Explanation};
use crate::decode;
use crate::histogram::MicrosHistogram;
use crate::packet::{Carrier, Encapsulation, Layer, Nanos};

/// Kinds told apart in one account. Two taps make one kind, four taps at most six; the rest adds up in the last.
const MAX_KINDS: usize = 12;
/// Examples kept of each kind: enough to look them up in Wireshark.
const EXAMPLES: usize = 3;
/// Copies from which a judgement on their delays says anything.
const JUDGED_FROM: u64 = 5;
/// A capture that copies anything copies nearly all; what copies less than this of a stream may be the network.
const SOME: f64 = 0.5;

/// The account of copies of one stream, or of all SIP.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CopyStats {
    kinds: Vec<Kind>,
    total: u64,
}

/// One copy and its original.
#[derive(Clone, Copy, Debug)]
pub struct Copy {
    /// In what they differ, and why.
    pub explanation: Explanation,
    /// When the original was seen.
    pub original_time: Nanos,
    /// Frame number of the original.
    pub original: u64,
    /// When the copy was seen.
    pub time: Nanos,
    /// Frame number of the copy.
    pub number: u64,
}

impl Copy {
    /// How much later it came, in nanoseconds.
    pub fn delay_ns(&self) -> i64 {
        self.time.since(self.original_time)
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Kind {
    explanation: Explanation,
    count: u64,
    delays: MicrosHistogram,
    first: Nanos,
    last: Nanos,
    examples: Vec<(u64, u64)>,
}

impl CopyStats {
    /// Adds one copy.
    pub fn observe(&mut self, copy: &Copy) {
        self.total += 1;
        let found = self.kinds.iter().position(|kind| kind.explanation == copy.explanation);
        let at = found.unwrap_or_else(|| {
            if self.kinds.len() < MAX_KINDS {
                self.kinds.push(Kind::new(copy));
            }
            self.kinds.len() - 1
        });
        if let Some(kind) = self.kinds.get_mut(at) {
            kind.count += 1;
            kind.last = kind.last.max(copy.time);
            kind.delays.record_ns(copy.delay_ns().unsigned_abs());
            if kind.examples.len() < EXAMPLES {
                kind.examples.push((copy.original, copy.number));
            }
        }
    }

    /// Copies counted.
    pub fn total(&self) -> u64 {
        self.total
    }

    /// Adds up the reports of several accounts, kind by kind. Delay percentiles do not add: those of the most
    /// frequent report stand for all, the ends are exact. Shares are weighed by their packets.
    pub fn sum_up<'a>(reports: impl Iterator<Item = &'a CauseReport>) -> Vec<CauseReport> {
        let mut sums: Vec<(CauseReport, u64, f64)> = Vec::new();
        let packets = |report: &CauseReport| {
            if report.share > 0.0 { report.count as f64 / report.share } else { 0.0 }
        };
        for report in reports {
            match sums.iter_mut().find(|(sum, ..)| sum.is_alike(report)) {
                None => sums.push((report.clone(), report.count, packets(report))),
                Some((sum, most, of)) => {
                    sum.count += report.count;
                    *of += packets(report);
                    if report.count > *most {
                        *most = report.count;
                        (sum.delay_us.p50, sum.delay_us.p99) = (report.delay_us.p50, report.delay_us.p99);
                        sum.confidence = report.confidence;
                    }
                    sum.delay_us.min = sum.delay_us.min.min(report.delay_us.min);
                    sum.delay_us.max = sum.delay_us.max.max(report.delay_us.max);
                    sum.first = sum.first.min(report.first);
                    sum.last = sum.last.max(report.last);
                    sum.first_s = earlier(sum.first_s, report.first_s, f64::min);
                    sum.last_s = earlier(sum.last_s, report.last_s, f64::max);
                    let room = EXAMPLES.saturating_sub(sum.examples.len());
                    sum.examples.extend(report.examples.iter().take(room));
                }
            }
        }
        let share = |(mut sum, _, of): (CauseReport, u64, f64)| {
            sum.share = if of > 0.0 { sum.count as f64 / of } else { 0.0 };
            sum
        };
        let mut causes: Vec<_> = sums.into_iter().map(share).collect();
        causes.sort_by(|a, b| b.count.cmp(&a.count).then(a.cause.cmp(&b.cause)));
        causes
    }

    /// The kinds as a report shows them, most frequent first, held against so many first copies.
    pub fn causes(&self, packets: u64) -> Vec<CauseReport> {
        self.report(|kind| kind.report(packets, kind.is_of_the_network(packets)))
    }

    /// The same where the copies are of many senders: what some of them lack and others have is no sign of the network.
    pub fn causes_of_many(&self, packets: u64) -> Vec<CauseReport> {
        self.report(|kind| kind.report(packets, false))
    }

    fn report(&self, report: impl Fn(&Kind) -> CauseReport) -> Vec<CauseReport> {
        let mut causes: Vec<_> = self.kinds.iter().map(report).collect();
        causes.sort_by(|a, b| b.count.cmp(&a.count).then(a.cause.cmp(&b.cause)));
        causes
    }
}

fn earlier(a: Option<f64>, b: Option<f64>, of: fn(f64, f64) -> f64) -> Option<f64> {
    a.zip(b).map(|(a, b)| of(a, b)).or(a).or(b)
}

impl Kind {
    fn new(copy: &Copy) -> Self {
        Self {
            explanation: copy.explanation,
            count: 0,
            delays: MicrosHistogram::default(),
            first: copy.time,
            last: copy.time,
            examples: Vec::new(),
        }
    }

    /// Some packets of one sender, not all, at the same place, unevenly late: no capture does that.
    fn is_of_the_network(&self, packets: u64) -> bool {
        let share = self.count as f64 / packets.max(1) as f64;
        let is_judged = self.count >= JUDGED_FROM;
        self.explanation.cause == Cause::SamePoint && is_judged && share < SOME && !self.is_steady()
    }

    fn report(&self, packets: u64, is_network: bool) -> CauseReport {
        let Explanation { cause, differs, layer, carrier } = self.explanation;
        let share = self.count as f64 / packets.max(1) as f64;
        let steady = self.is_steady();
        let is_judged = self.count >= JUDGED_FROM;
        let whole = (share - share.round()).abs() < 0.1 && share.round() >= 1.0;
        let confidence = match (is_judged, is_network || steady, is_network || whole) {
            (false, ..) | (_, false, false) => Confidence::Low,
            (true, true, true) => Confidence::High,
            _ => Confidence::Medium,
        };
        CauseReport {
            cause: if is_network { Cause::Network } else { cause },
            count: self.count,
            differs,
            layer: layer.map(Layer::name),
            session: carrier,
            carrier: None,
            share,
            confidence,
            delay_us: DelayReport {
                min: self.delays.min_ns().unwrap_or(0) as f64 / 1000.0,
                p50: self.delays.percentile_us(50.0).unwrap_or(0.0),
                p99: self.delays.percentile_us(99.0).unwrap_or(0.0),
                max: self.delays.max_ns().unwrap_or(0) as f64 / 1000.0,
            },
            first: self.first,
            last: self.last,
            first_s: None,
            last_s: None,
            examples: self.examples.clone(),
        }
    }

    /// Are the delays nearly constant, as a mirror's are: 80 % of them within 100 us, or within half of the median?
    fn is_steady(&self) -> bool {
        let at = |percent| self.delays.percentile_us(percent).unwrap_or(0.0);
        at(90.0) - at(10.0) <= f64::max(100.0, at(50.0) / 2.0)
    }
}

/// How sure a cause is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Confidence {
    /// Few copies, or neither of the signs.
    Low,
    /// One sign: the delay is nearly constant, or the copies a packet are nearly a whole number.
    Medium,
    /// Both.
    High,
}

/// One kind of copy.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct CauseReport {
    /// Why.
    pub cause: Cause,
    /// Copies of this kind.
    pub count: u64,
    /// In what they differ from the sightings that they resemble most.
    pub differs: Differs,
    /// Of `encapsulated`: what only one of the two came in; of several layers the innermost that carries captures, else the
    /// innermost.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub layer: Option<&'static str>,
    /// The tunnel's session, as the decoder counts them.
    #[serde(skip)]
    pub session: Carrier,
    /// The same in full: who carried it to whom, on which port.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub carrier: Option<Session>,
    /// Copies of this kind a packet.
    pub share: f64,
    /// How sure the cause is: a constant delay, and a whole number of copies a packet, are signs of a capture's copy.
    pub confidence: Confidence,
    /// How late, in microseconds.
    pub delay_us: DelayReport,
    /// Time of the first.
    #[serde(skip)]
    pub first: Nanos,
    /// Time of the last.
    #[serde(skip)]
    pub last: Nanos,
    /// The first, in seconds from the start of the capture.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub first_s: Option<f64>,
    /// The last, likewise.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_s: Option<f64>,
    /// Examples: frame numbers of the original and of the copy.
    pub examples: Vec<(u64, u64)>,
}

impl CauseReport {
    /// Are they of one kind?
    fn is_alike(&self, other: &Self) -> bool {
        (self.cause, self.differs, self.layer, self.session)
            == (other.cause, other.differs, other.layer, other.session)
    }

    /// Tells when it began and ended, from the start of the capture.
    pub fn time_from(&mut self, start: Nanos) {
        self.first_s = Some(self.first.since(start) as f64 / 1e9);
        self.last_s = Some(self.last.since(start) as f64 / 1e9);
    }
}

/// Who carried a tunnel's copies.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Session {
    /// "tcp", "udp", "ip".
    pub transport: &'static str,
    /// The port by which the tunnel is known; absent where it has none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub port: Option<u16>,
    /// Who sends it: address, or address and port.
    pub from: String,
    /// To whom.
    pub to: String,
}

impl Session {
    /// The session of `layer`, or of the innermost tunnel, that carrier `number` is or comes in. `carriers` are in the order
    /// of their numbers.
    pub fn find(carriers: &[decode::CarrierReport], number: Carrier, layer: Option<&str>) -> Option<Self> {
        let by_number = |number: Carrier| {
            carriers.get(carriers.binary_search_by_key(&number, |carrier| carrier.carrier).ok()?)
        };
        let innermost = by_number(number)?;
        let is_meant = |carrier: &&decode::CarrierReport| {
            layer.is_none_or(|layer| carrier.path.layers().last().is_some_and(|last| last.name() == layer))
        };
        let outwards = std::iter::successors(Some(innermost), |carrier| by_number(carrier.outer));
        Some(Self::new(outwards.take(Encapsulation::MAX_LAYERS).find(is_meant).unwrap_or(innermost)))
    }

    /// From what the decoder knows of a session.
    pub fn new(carrier: &decode::CarrierReport) -> Self {
        let decode::CarrierReport { src, dst, transport, port, .. } = *carrier;
        let (transport, port) = match transport {
            decode::Transport::Tcp => ("tcp", Some(port)),
            decode::Transport::Udp => ("udp", Some(port)),
            decode::Transport::Ip => ("ip", None),
        };
        Self { transport, port, from: src.to_string(), to: dst.to_string() }
    }

    /// What excludes it, as a capture filter says it.
    pub fn filter(&self) -> String {
        match self.port {
            Some(port) => format!("not ({} port {port})", self.transport),
            None => format!("not (host {} and host {})", self.from, self.to),
        }
    }
}

/// Delays of copies in microseconds.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct DelayReport {
    /// Shortest.
    pub min: f64,
    /// Median.
    pub p50: f64,
    /// 99 % are not above.
    pub p99: f64,
    /// Longest.
    pub max: f64,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dedup::explain;
    use crate::rtp::testing::packet;

    fn account(delays_us: impl Iterator<Item = u64>) -> CopyStats {
        let seen = packet(1).evidence;
        let mut stats = CopyStats::default();
        for (number, delay) in (1..).zip(delays_us) {
            let original_time = Nanos(number * 20_000_000);
            let time = Nanos(original_time.0 + delay * 1_000);
            let explanation = explain(&seen, &seen);
            stats.observe(&Copy { explanation, original_time, original: number, time, number: number + 1 });
        }
        stats
    }

    #[test]
    fn copies_of_all_packets_with_a_constant_delay_are_the_captures() {
        let causes = account((0..100).map(|n| 30 + n % 5)).causes(100);
        assert_eq!((causes[0].cause, causes[0].confidence), (Cause::SamePoint, Confidence::High));
        assert!((causes[0].share - 1.0).abs() < 1e-9);
        assert_eq!((causes[0].first, causes[0].last), (Nanos(20_030_000), Nanos(2_000_034_000)));
    }

    #[test]
    fn some_packets_with_uneven_delays_are_the_networks() {
        let causes = account((0..20).map(|n| 200 + n * n * 37)).causes(100);
        assert_eq!((causes[0].cause, causes[0].confidence), (Cause::Network, Confidence::High));
        // All of them, as unevenly: the capture's, and less sure.
        let causes = account((0..20).map(|n| 200 + n * n * 37)).causes(20);
        assert_eq!((causes[0].cause, causes[0].confidence), (Cause::SamePoint, Confidence::Medium));
    }

    #[test]
    fn sums_weigh_shares_by_packets() {
        let (all, half) =
            (account([30; 10].into_iter()).causes(10), account([31; 10].into_iter()).causes(20));
        let sum = CopyStats::sum_up(all.iter().chain(&half));
        assert_eq!((sum.len(), sum[0].count), (1, 20));
        assert!((sum[0].share - 20.0 / 30.0).abs() < 1e-9);
    }
}

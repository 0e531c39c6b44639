//! The JSON document of `analyze --json` and of `run --report`. Additions are free, renames are not.

mod stream;

use std::collections::BTreeMap;

use probe_ebpf::Verdict;
use probe_ebpf::classify::VERDICTS;
use serde::Serialize;

pub use self::stream::{Delivery, DuplicateReport, StreamReport};
use super::call_media::{self, CallFinding};
use super::joins::BesideReport;
use super::left_out::{CutReport, SamplingReport, SheddingReport};
use super::problems::{self, ByCall};
use super::related::{self, Namesakes};
use super::troubles::Moments;
use crate::decode::{CarrierReport, Opened, Refused, RemoteCapture};
use crate::dedup::stats::{CauseReport, Session};
use crate::dedup::topology::{self, TapReport};
use crate::histogram::MicrosHistogram;
use crate::packet::Endpoint;
use crate::pipeline::Loss;
use crate::pipeline::receiver::Remains;
use crate::pipeline::shed::History;
use crate::pipeline::times::FrameTimes;
use crate::rtp::events::EventReport;
use crate::sip::signalling::GivenUp;
use crate::sip::{CallReport, SignallingReport, SipReport};

/// The whole document.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// What made it.
    pub generator: Generator,
    /// What was captured, and what was lost.
    pub capture: CaptureReport,
    /// All media together.
    pub media: MediaReport,
    /// Media streams, in order of appearance.
    pub streams: Vec<StreamReport>,
    /// Calls, in the order in which they began.
    pub calls: Vec<CallWithStreams>,
    /// Where the capture sees the media, and how often.
    pub taps: Vec<TapReport>,
    /// All signalling.
    pub sip: SipReport,
    /// What signalling had to give up for want of room.
    pub given_up: GivenUp,
    /// What it all means.
    pub findings: Vec<Finding>,
}

impl Report {
    /// Puts the parts together, joins streams to calls, and draws conclusions.
    pub fn new(capture: CaptureReport, mut streams: Vec<StreamReport>, signalling: SignallingReport) -> Self {
        let own_losses = || Loss::ALL.into_iter().filter(|loss| loss.is_own());
        let is_doubted =
            own_losses().any(|loss| capture.losses.get(loss.name()).is_some_and(|frames| *frames > 0));
        if is_doubted {
            streams.iter_mut().for_each(StreamReport::doubt_loss);
        }
        call_media::link(&mut streams, &signalling, &capture);
        let namesakes = Namesakes::of(&signalling.calls);
        let mut of_calls: Vec<Vec<usize>> = vec![Vec::new(); signalling.calls.len()];
        for (at, stream) in streams.iter().enumerate() {
            for call_id in stream.call_id.iter().chain(&stream.shared_with) {
                for call in namesakes.heard_in(call_id, stream.first_seen(), stream.identity.last_seen) {
                    of_calls.get_mut(call).into_iter().for_each(|its| its.push(at));
                }
            }
        }
        Moments::of(&signalling.calls, &namesakes).join(&mut streams, is_doubted, &capture.times.silences);
        let media = MediaReport::of(&streams);
        let join = |(call, heard): (CallReport, Vec<usize>)| {
            let mut its = Vec::new();
            let mut delays = Delays::default();
            for stream in heard.into_iter().filter_map(|at| streams.get(at)) {
                delays.merge(stream.delays.as_deref());
                its.push(StreamRef { src: stream.src, dst: stream.dst, ssrc: stream.ssrc.clone() });
            }
            CallWithStreams {
                streams: its,
                media_absent_because: None,
                media_findings: Vec::new(),
                fax_packets: 0,
                worst_stream: None,
                problems: Vec::new(),
                distributions: delays.report(),
                call,
            }
        };
        let mut calls: Vec<CallWithStreams> = signalling.calls.into_iter().zip(of_calls).map(join).collect();
        related::join_legs(&mut calls, &streams);
        call_media::judge(&mut calls, &streams, &capture, signalling.sip.captured);
        let by_call = ByCall::of(&streams);
        for call in &mut calls {
            let its = by_call.streams_of(call);
            (call.worst_stream, call.problems) = (problems::worst(&its), problems::of(call, &its));
        }
        let carriers = capture.tunnels.carriers.as_slice();
        let name = |cause: &mut CauseReport| {
            cause.carrier = Session::find(carriers, cause.session, cause.layer).or(cause.carrier.take());
        };
        for stream in &mut streams {
            stream.duplicates.causes.iter_mut().for_each(name);
        }
        let mut sip = signalling.sip;
        sip.causes.iter_mut().for_each(name);
        let mut taps =
            topology::sum_up(&streams.iter().map(|stream| stream.taps.as_slice()).collect::<Vec<_>>());
        // They are summed up, and would be most of the report's memory.
        for stream in &mut streams {
            stream.delays = None;
        }
        for tap in &mut taps {
            tap.carrier = Session::find(carriers, tap.session, None);
        }
        let mut report = Self {
            generator: Generator::default(),
            taps,
            capture,
            media,
            calls,
            streams,
            sip,
            given_up: signalling.given_up,
            findings: Vec::new(),
        };
        report.findings = super::findings::find(&report);
        report
    }

    /// Shows the digits of telephone events, which are hidden otherwise: they can be somebody's PIN.
    pub fn show_digits(&mut self) {
        self.streams.iter_mut().flat_map(|stream| &mut stream.events).for_each(EventReport::show);
    }
}

/// A call and the streams that belong to it.
#[derive(Clone, Debug, Serialize)]
pub struct CallWithStreams {
    /// The call.
    #[serde(flatten)]
    pub call: CallReport,
    /// Its streams.
    pub streams: Vec<StreamRef>,
    /// UDPTL datagrams of its fax (T.38).
    pub fax_packets: u64,
    /// Why there is neither, where there is neither.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub media_absent_because: Option<String>,
    /// What its media does that its signalling does not lead to expect.
    pub media_findings: Vec<CallFinding>,
    /// Of `streams`, the one that sounds worst.
    pub worst_stream: Option<usize>,
    /// What of it deserves a look, `media_findings` included.
    pub problems: Vec<CallFinding>,
    /// Of all of them together.
    #[serde(flatten)]
    pub distributions: Distributions,
}

/// All media of the capture together, copies removed.
#[derive(Clone, Debug, Default, Serialize)]
pub struct MediaReport {
    /// Streams.
    pub streams: u64,
    /// First copies.
    pub packets: u64,
    /// What their numbers say was sent.
    pub expected: u64,
    /// Expected, and never came.
    pub lost: u64,
    /// Came, but too late for the de-jitter buffer that judges.
    pub discarded: u64,
    /// Of all of them together.
    #[serde(flatten)]
    pub distributions: Distributions,
}

impl MediaReport {
    fn of(streams: &[StreamReport]) -> Self {
        let sum = |of: fn(&StreamReport) -> u64| streams.iter().map(of).sum();
        let mut delays = Delays::default();
        for stream in streams {
            delays.merge(stream.delays.as_deref());
        }
        Self {
            streams: streams.len() as u64,
            packets: sum(|stream| stream.unique.packets),
            expected: sum(|stream| stream.unique.expected),
            lost: sum(|stream| stream.unique.lost.max(0).unsigned_abs()),
            discarded: sum(|stream| stream.bursts.discarded),
            distributions: delays.report(),
        }
    }
}

/// Jitter and delay variation of several streams together. Null where no stream had a clock.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Distributions {
    /// |D| of RFC 3550, in microseconds: HdrHistogram V2, compressed, base64.
    pub jitter_histogram: Option<String>,
    /// The same as percentiles.
    pub jitter_percentiles_us: Option<Percentiles>,
    /// Delay over the quickest packet lately, in the same form.
    pub pdv_histogram: Option<String>,
    /// The same as percentiles.
    pub pdv_percentiles_us: Option<Percentiles>,
}

/// The histograms behind [`Distributions`].
#[derive(Clone, Debug, Default)]
pub struct Delays {
    jitter: MicrosHistogram,
    variation: MicrosHistogram,
}

impl Delays {
    fn merge(&mut self, other: Option<&Self>) {
        if let Some(other) = other {
            self.jitter.merge(&other.jitter);
            self.variation.merge(&other.variation);
        }
    }

    /// Serialising into memory fails only on a histogram too large for its format.
    fn report(&self) -> Distributions {
        let (jitter, variation) = (Percentiles::of(&self.jitter), Percentiles::of(&self.variation));
        Distributions {
            jitter_histogram: jitter.and_then(|_| self.jitter.to_v2_base64()),
            jitter_percentiles_us: jitter,
            pdv_histogram: variation.and_then(|_| self.variation.to_v2_base64()),
            pdv_percentiles_us: variation,
        }
    }
}

/// Percentiles of a distribution in microseconds.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Percentiles {
    /// Median.
    pub p50: f64,
    /// 90 % are not above.
    pub p90: f64,
    /// 99 % are not above.
    pub p99: f64,
    /// 99.9 % are not above.
    pub p999: f64,
    /// Largest, exact.
    pub max: f64,
}

impl Percentiles {
    /// Of a histogram; `None` if it is empty.
    pub fn of(histogram: &MicrosHistogram) -> Option<Self> {
        let max_ns = histogram.max_ns()?;
        Some(Self {
            p50: histogram.percentile_us(50.0)?,
            p90: histogram.percentile_us(90.0)?,
            p99: histogram.percentile_us(99.0)?,
            p999: histogram.percentile_us(99.9)?,
            max: max_ns as f64 / 1000.0,
        })
    }
}

/// What identifies a stream in `streams[]`.
#[derive(Clone, Debug, Serialize)]
pub struct StreamRef {
    /// Sender.
    pub src: Endpoint,
    /// Receiver.
    pub dst: Endpoint,
    /// `0x%08x`.
    pub ssrc: String,
}

/// Name and version of the program.
#[derive(Clone, Debug, Serialize)]
pub struct Generator {
    /// `voxprobe`.
    pub name: &'static str,
    /// Its version.
    pub version: &'static str,
    /// Whose figures the raw ledgers equal.
    pub compat: &'static str,
}

impl Default for Generator {
    fn default() -> Self {
        Self {
            name: "voxprobe",
            version: env!("CARGO_PKG_VERSION"),
            compat: crate::rtp::raw::Compat::default().name(),
        }
    }
}

/// The capture as a whole.
#[derive(Clone, Debug, Default, Serialize)]
pub struct CaptureReport {
    /// Files or interfaces.
    pub sources: Vec<String>,
    /// Frames read from the files; live, frames that the programs saw.
    pub packets: u64,
    /// Their bytes on the wire; live, those of matched frames only.
    pub bytes: u64,
    /// First to last frame.
    pub duration_s: f64,
    /// Where times step back, and where nothing was captured; live, neither is looked for.
    pub times: FrameTimes,
    /// What the filter matched: frames of SIP, RTP, RTCP, fragments of UDP, tunnels; and `unpacked`.
    pub matched: u64,
    /// Of those, datagrams found in byte streams that carry captured frames (rpcap, HEP over TCP): each is a unit besides
    /// the frames that carried it.
    pub unpacked: u64,
    /// Those that reached the analysis. `matched = analysed + sum(losses)`.
    pub analysed: u64,
    /// Matched frames that were lost, by name.
    pub losses: BTreeMap<&'static str, u64>,
    /// All frames by verdict.
    pub verdicts: BTreeMap<&'static str, u64>,
    /// Tunnels that were opened, and what was not believed to be one.
    pub tunnels: TunnelReport,
    /// Remote captures (rpcap) that were themselves captured, and what they say they dropped: loss that the capture made.
    pub remote_captures: Vec<RemoteCapture>,
    /// `media_other` and `rtcp`: what came to media ports and is not RTP.
    #[serde(flatten)]
    pub beside: BesideReport,
    /// What `--sample` keeps; absent without it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sampling: Option<SamplingReport>,
    /// What was shed because the probe did not keep up; absent if nothing was.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub shedding: Option<SheddingReport>,
    /// What was cut of whole frames by `--snap`; absent if nothing was.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cut: Option<CutReport>,
    /// What was left out when.
    #[serde(skip)]
    pub history: History,
    /// What else should be known of the input: cut short, unreadable link types, evictions.
    pub notes: Vec<String>,
}

/// Tunnels.
#[derive(Clone, Debug, Default, Serialize)]
pub struct TunnelReport {
    /// Opened, by path, most frames first.
    pub opened: Vec<Opened>,
    /// Refused, by layer and reason. Such a frame is taken for what it is otherwise.
    pub refused: Vec<Refused>,
    /// The sessions that carried something, in order of appearance.
    pub carriers: Vec<CarrierReport>,
    /// Frames of sessions beyond the bound; they count as the last one's.
    pub carriers_shared: u64,
}

impl TunnelReport {
    /// What a receiver found.
    pub fn of(remains: &Remains) -> Self {
        Self {
            opened: remains.tunnels.opened(),
            refused: remains.tunnels.refused(),
            carriers: remains.carriers.clone(),
            carriers_shared: remains.carriers_shared,
        }
    }
}

/// Something that the operator should know.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Finding {
    /// Stable identifier.
    pub id: &'static str,
    /// How bad.
    pub severity: Severity,
    /// One line.
    pub title: String,
    /// What was seen.
    pub detail: String,
    /// What to do.
    pub advice: String,
    /// Frame numbers of examples.
    pub evidence: Vec<u64>,
}

/// How bad a finding is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// Good to know.
    Info,
    /// Distorts what is seen.
    Warn,
    /// Hurts calls.
    Bad,
}

/// Counts by verdict, all names.
pub fn verdicts_by_name(verdicts: &[u64; VERDICTS]) -> BTreeMap<&'static str, u64> {
    Verdict::ALL.iter().map(|verdict| verdict.name()).zip(verdicts.iter().copied()).collect()
}

#[cfg(test)]
#[path = "contract_testing.rs"]
pub(super) mod testing;

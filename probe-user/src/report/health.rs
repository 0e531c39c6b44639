//! The stream health log: one entry per stream and interval, and whatever else an operator should see go by.
//!
//! An [`Entry`] has two forms, a line of text and a JSON object, made from the same values. Text is aligned and
//! begins with a time and a word: `ok`, `dup`, `gap`, `jit`, `far`, `hole`, `loss`, `end`, `call`, `tunl`, `find`,
//! `probe`, `sum`.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::Arc;

use anstyle::{AnsiColor, Style};
use jiff::Timestamp;
use jiff::tz::TimeZone;
use serde::Serialize;

use super::call_entry::CallEntry;
use super::contract::{Finding, Percentiles, Severity, StreamReport};
use super::forensics::Explanation;
use super::words;
use crate::decode::{CarrierReport, Transport};
use crate::dedup::stats::CauseReport;
use crate::dedup::topology::TapReport;
use crate::packet::Endpoint;
use crate::pipeline::shard::IntervalLine;
use crate::rtcp::News;
use crate::rtp::StreamKey;
use crate::rtp::opinion::Heard;
use crate::rtp::stream::TapPart;
use crate::rtp::unique::Interruption;

/// Loss from which a line is no longer `ok`, in percent. G.711 with concealment loses a tenth of a MOS at 1 %.
const LOSS_PERCENT: f64 = 1.0;
/// Jitter (p99) from which a line is no longer `ok`: what a usual 40 ms de-jitter buffer holds.
const JITTER_US: f64 = 40_000.0;

/// Round trip from which a line tells it: 150 ms each way is what a conversation bears (ITU-T G.114).
const LONG_ROUND_TRIP_MS: f64 = 300.0;
/// Copies a packet from which a stream is `dup`.
const DUP_COPIES: f64 = 1.05;
/// Copies a packet from which one speaks of every frame; below, some are copied.
const EVERY_FRAME: f64 = 1.5;
/// Ring occupancy that an operator should hear of before anything is lost.
const RING_PEAK_PERCENT: u64 = 50;

/// One entry of the log.
#[derive(Clone, Debug, Serialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum Entry {
    /// A step of the start.
    Start {
        /// What was done, and what came of it.
        message: String,
    },
    /// A stream in one interval.
    Stream(Box<StreamEntry>),
    /// A stream's whole life.
    StreamEnd(Box<EndEntry>),
    /// A call began, was answered, or ended.
    Call(Box<CallEntry>),
    /// Packets come inside a tunnel that was not seen before.
    Tunnel(CarrierReport),
    /// Something to know.
    Finding(Finding),
    /// The probe lost frames since the last entry.
    Loss(LossEntry),
    /// A tap began or ceased to show what another shows.
    Tap(Box<TapEntry>),
    /// The interval as a whole.
    Summary(SummaryEntry),
}

/// A stream in one interval.
#[derive(Clone, Debug, Serialize)]
pub struct StreamEntry {
    /// `ok`, `dup`, `gap`, `jit`, `far`, `hole`, `loss`.
    pub status: Status,
    /// Sender.
    pub src: Endpoint,
    /// Receiver.
    pub dst: Endpoint,
    /// `0x%08x`.
    pub ssrc: String,
    /// Codec, if known.
    pub codec: Option<String>,
    /// The call.
    pub call_id: Option<Arc<str>>,
    /// Frames in this interval, copies included.
    pub frames: u64,
    /// First copies in this interval.
    pub packets: u64,
    /// Lost in this interval, copies removed.
    pub lost: u64,
    /// The same in percent.
    pub lost_percent: f64,
    /// The probe itself lost frames in this interval, so `lost` may be its own loss.
    pub loss_is_upper_bound: bool,
    /// As captured, since the stream began: what tshark would say.
    pub raw_lost_percent: f64,
    /// Jitter of this interval.
    pub jitter_percentiles_us: Option<Percentiles>,
    /// Delay over the quickest packet lately, of this interval.
    pub pdv_percentiles_us: Option<Percentiles>,
    /// Packets of this interval that came too late for the de-jitter buffer.
    pub discarded: u64,
    /// The same in percent of those expected.
    pub discarded_percent: f64,
    /// Listening quality of this interval.
    pub mos: Option<f64>,
    /// Why there is none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mos_absent_because: Option<String>,
    /// Frames a packet in this interval.
    pub copies_per_packet: f64,
    /// Copies since the stream began, by cause.
    pub causes: Vec<CauseReport>,
    /// The taps that see it, if there are several.
    #[serde(skip)]
    pub taps: Vec<TapPart>,
    /// The longest interruption that ended in this interval.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub interruption: Option<Interruption>,
    /// Why it was, and what the signalling did when it began and ended.
    #[serde(flatten)]
    pub explanation: Option<Explanation>,
    /// What its receiver reported in this interval.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub far_end: Option<FarEndEntry>,
    /// What it is joined by.
    #[serde(skip)]
    pub(super) key: StreamKey,
}

/// What a stream's receiver reported in an interval.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct FarEndEntry {
    /// Lost since the report before, in percent: the worst report of the interval.
    pub lost_percent: f64,
    /// From the probe to the receiver and back.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub round_trip_ms: Option<f64>,
}

/// The word a stream's line begins with; the worst that applies.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Status {
    /// Nothing to see.
    Ok,
    /// Frames are copied; the stream itself is fine.
    Dup,
    /// Interrupted, without loss: the sender paused.
    Gap,
    /// Jitter beyond a usual de-jitter buffer.
    Jit,
    /// Whole here, but its receiver lost packets.
    Far,
    /// Packets are missing, but the probe itself lost frames in this interval.
    Hole,
    /// Packets are lost.
    Loss,
}

impl Status {
    /// The word.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Dup => "dup",
            Self::Gap => "gap",
            Self::Jit => "jit",
            Self::Far => "far",
            Self::Hole => "hole",
            Self::Loss => "loss",
        }
    }

    const fn colour(self) -> AnsiColor {
        match self {
            Self::Ok => AnsiColor::Green,
            Self::Dup => AnsiColor::Cyan,
            Self::Gap | Self::Jit | Self::Far | Self::Hole => AnsiColor::Yellow,
            Self::Loss => AnsiColor::Red,
        }
    }
}

/// A stream's whole life.
#[derive(Clone, Debug, Serialize)]
pub struct EndEntry {
    /// Why it ended: `silent`, `evicted`, `finished`.
    pub ended: &'static str,
    /// Everything about it.
    #[serde(flatten)]
    pub report: StreamReport,
}

/// A tap's news.
#[derive(Clone, Debug, Serialize)]
pub struct TapEntry {
    /// "appeared" or "vanished".
    pub change: &'static str,
    /// The tap; its counts are those of one stream.
    #[serde(flatten)]
    pub tap: TapReport,
}

/// Frames that the probe lost.
#[derive(Clone, Debug, Serialize)]
pub struct LossEntry {
    /// Since the last entry, by name; only those that grew.
    pub losses: BTreeMap<&'static str, u64>,
    /// What helps.
    pub advice: &'static str,
}

/// The interval as a whole.
#[derive(Clone, Debug, Default, Serialize)]
pub struct SummaryEntry {
    /// Calls in progress.
    pub calls: u64,
    /// Streams heard in this interval.
    pub streams: u64,
    /// Of them, by status.
    pub by_status: BTreeMap<&'static str, u64>,
    /// Frames matched since the start.
    pub matched: u64,
    /// Frames analysed since the start.
    pub analysed: u64,
    /// Frames lost since the start, by name.
    pub losses: BTreeMap<&'static str, u64>,
    /// Frames matched, and neither analysed nor lost at this moment.
    pub in_flight: u64,
    /// The fullest that any ring was since the last summary, in percent: at 100 frames are lost.
    pub ring_peak_percent: u64,
    /// Lines of streams, and of their ends, left out in this interval.
    #[serde(skip_serializing_if = "is_zero")]
    pub lines_left_out: u64,
    /// Lines of calls left out in this interval.
    #[serde(skip_serializing_if = "is_zero")]
    pub call_lines_left_out: u64,
    /// Events that were dropped since the start, because the control plane was behind: lines are missing.
    #[serde(skip_serializing_if = "is_zero")]
    pub events_dropped: u64,
    /// Announced media that had no room since the start, here or in the kernel's table: its streams may have no call.
    #[serde(skip_serializing_if = "is_zero")]
    pub announcements_given_up: u64,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "the signature that serde asks for")]
fn is_zero(number: &u64) -> bool {
    *number == 0
}

impl StreamEntry {
    /// From what a shard sends at the end of an interval.
    pub fn new(line: IntervalLine) -> Self {
        let totals = line.summary.totals;
        let lost = totals.expected.saturating_sub(totals.packets);
        let percent = |count: u64| {
            if totals.expected == 0 { 0.0 } else { count as f64 * 100.0 / totals.expected as f64 }
        };
        let network = line.summary.quality;
        let (lost_percent, discarded_percent) = (percent(lost), percent(network.discarded));
        let jitter = Percentiles::of(&network.jitter);
        let copies_per_packet = if totals.packets == 0 {
            1.0
        } else {
            (totals.packets + totals.copies) as f64 / totals.packets as f64
        };
        let status = if lost_percent >= LOSS_PERCENT {
            Status::Loss
        } else if discarded_percent >= LOSS_PERCENT || jitter.is_some_and(|jitter| jitter.p99 >= JITTER_US) {
            Status::Jit
        } else if network.interruption.is_some() {
            Status::Gap
        } else if copies_per_packet > DUP_COPIES || totals.packets == 0 && totals.copies > 0 {
            Status::Dup
        } else {
            Status::Ok
        };
        // Frames that are neither first copies nor copies: their numbers could not be believed.
        let is_unplaced = totals.packets == 0 && totals.frames > totals.copies;
        let status = if is_unplaced { status.max(Status::Jit) } else { status };
        let quality = match totals.packets {
            0 => Err(if is_unplaced {
                "no packet could be placed in this interval".to_owned()
            } else {
                "only copies in this interval".to_owned()
            }),
            _ => Heard {
                codec: line.codec.clone(),
                parameters: line.codec_parameters,
                loss_percent: percent(lost + network.discarded),
                burst_ratio: line.burst_ratio,
                is_buffered: network.variation.count() > 0,
                settings: line.settings,
            }
            .listening(),
        };
        Self {
            status,
            src: line.key.flow.src,
            dst: line.key.flow.dst,
            ssrc: format!("0x{:08x}", line.key.ssrc),
            codec: line.codec,
            call_id: line.announcement.call_id.clone(),
            frames: totals.frames,
            packets: totals.packets,
            lost,
            lost_percent,
            loss_is_upper_bound: false,
            raw_lost_percent: line.raw_lost_percent,
            jitter_percentiles_us: jitter,
            pdv_percentiles_us: Percentiles::of(&network.variation),
            discarded: network.discarded,
            discarded_percent,
            mos: quality.as_ref().ok().map(|mos| mos.value),
            mos_absent_because: quality.err(),
            copies_per_packet,
            causes: line.causes,
            taps: line.taps,
            interruption: network.interruption,
            explanation: None,
            far_end: None,
            key: line.key,
        }
    }
}

#[cfg(test)]
impl StreamEntry {
    /// An interval in which nothing came.
    pub(super) fn nothing(status: Status) -> Self {
        let key = StreamKey::from(&crate::rtp::testing::packet(0));
        Self {
            status,
            src: key.flow.src,
            dst: key.flow.dst,
            ssrc: format!("0x{:08x}", key.ssrc),
            codec: None,
            call_id: None,
            frames: 0,
            packets: 0,
            lost: 0,
            lost_percent: 0.0,
            loss_is_upper_bound: false,
            raw_lost_percent: 0.0,
            jitter_percentiles_us: None,
            pdv_percentiles_us: None,
            discarded: 0,
            discarded_percent: 0.0,
            mos: None,
            mos_absent_because: None,
            copies_per_packet: 1.0,
            causes: Vec::new(),
            taps: Vec::new(),
            interruption: None,
            explanation: None,
            far_end: None,
            key,
        }
    }
}

impl StreamEntry {
    /// Its receiver's word on this interval. A stream that is lost beyond this point is not well.
    pub(super) fn hear(&mut self, news: &News) {
        self.far_end =
            Some(FarEndEntry { lost_percent: news.lost_percent, round_trip_ms: news.round_trip_ms });
        if self.is_lost_beyond() {
            self.status = self.status.max(Status::Far);
        }
    }

    fn is_lost_beyond(&self) -> bool {
        self.far_end.is_some_and(|far| far.lost_percent >= self.lost_percent + LOSS_PERCENT)
    }

    /// The probe itself lost frames in this interval: what is missing is not held against the network.
    pub fn doubt_loss(&mut self) {
        if self.lost == 0 {
            return;
        }
        self.loss_is_upper_bound = true;
        self.status = Status::Hole;
        self.mos = None;
        self.mos_absent_because = Some("the probe itself lost frames".to_owned());
    }
}

/// Writes entries in one of the two forms.
#[derive(Debug)]
pub struct Format {
    json: bool,
    colour: bool,
    /// Widths grow with what was seen, so that columns stay aligned without being wide from the start.
    endpoint_width: usize,
    codec_width: usize,
}

impl Format {
    /// JSON lines, or text with or without colour.
    pub fn new(json: bool, colour: bool) -> Self {
        Self { json, colour, endpoint_width: 21, codec_width: 4 }
    }

    /// One line, without its end.
    pub fn line(&mut self, time: Timestamp, entry: &Entry) -> String {
        if self.json {
            return json_line(time, entry);
        }
        let (word, colour, text) = match entry {
            Entry::Start { message } => ("start", AnsiColor::Blue, message.clone()),
            Entry::Stream(stream) => (stream.status.word(), stream.status.colour(), self.stream(stream)),
            Entry::StreamEnd(end) => ("end", AnsiColor::BrightBlack, self.stream_end(end)),
            Entry::Call(call) => ("call", AnsiColor::Magenta, call.text()),
            Entry::Tunnel(carrier) => ("tunl", AnsiColor::Blue, tunnel_text(carrier)),
            Entry::Finding(finding) => ("find", severity_colour(finding.severity), finding_text(finding)),
            Entry::Tap(tap) => ("tap", AnsiColor::Cyan, tap_text(tap)),
            Entry::Loss(loss) => ("probe", AnsiColor::Red, loss_text(loss)),
            Entry::Summary(summary) => ("sum", AnsiColor::White, summary_text(summary)),
        };
        let clock = time.to_zoned(TimeZone::system()).strftime("%H:%M:%S").to_string();
        if !self.colour {
            return format!("{clock}  {word:<5} {text}");
        }
        let style = Style::new().bold().fg_color(Some(colour.into()));
        format!("{clock}  {style}{word:<5}{style:#} {text}")
    }

    fn stream(&mut self, stream: &StreamEntry) -> String {
        let mut text = self.who(stream.src, stream.dst, stream.codec.as_deref());
        let bound = if stream.loss_is_upper_bound { "≤" } else { " " };
        let _ = write!(text, "{:>6} pkt  lost{bound}{:>4.1} %", stream.packets, stream.lost_percent);
        if stream.copies_per_packet > DUP_COPIES {
            let _ = write!(
                text,
                " (as captured {:.1} %: {}{})",
                stream.raw_lost_percent,
                copies_text(stream.copies_per_packet),
                stream.causes.first().map(|cause| format!(", {}", words::cause(cause))).unwrap_or_default(),
            );
        }
        push_jitter(&mut text, stream.jitter_percentiles_us.as_ref());
        push_late(&mut text, stream.discarded_percent);
        match (&stream.mos, &stream.mos_absent_because) {
            (Some(mos), _) => {
                let _ = write!(text, "  MOS {mos:.1}");
            }
            (None, Some(reason)) => {
                let _ = write!(text, "  MOS - ({reason})");
            }
            (None, None) => {}
        }
        if let (Some(gap), Some(explanation)) = (&stream.interruption, &stream.explanation) {
            let _ = write!(text, "  {}", explanation.sentence(gap));
        }
        if let Some(far) = &stream.far_end {
            if stream.is_lost_beyond() {
                let _ = write!(text, "  far end lost {:.1} %", far.lost_percent);
            }
            if let Some(ms) = far.round_trip_ms.filter(|ms| *ms >= LONG_ROUND_TRIP_MS) {
                let _ = write!(text, "  {ms:.0} ms to the far end and back");
            }
        }
        push_call(&mut text, stream.call_id.as_deref());
        text
    }

    fn stream_end(&mut self, end: &EndEntry) -> String {
        let report = &end.report;
        let mut text = self.who(report.src, report.dst, report.codec.as_deref());
        let _ = write!(
            text,
            "{:>6} pkt in {:.1} s, lost {}{} ({:.1} %)",
            report.unique.packets,
            report.unique.duration_s,
            if report.loss_is_upper_bound { "≤" } else { "" },
            report.unique.lost,
            report.unique.lost_percent,
        );
        if report.duplicates.copies_per_packet > DUP_COPIES {
            let _ = write!(text, ", {}", copies_text(report.duplicates.copies_per_packet));
        }
        push_jitter(&mut text, report.jitter_percentiles_us.as_ref());
        push_late(&mut text, report.bursts.discarded as f64 * 100.0 / report.unique.expected.max(1) as f64);
        if let Some(mos) = &report.mos {
            let _ = write!(text, "  MOS {:.1}", mos.value);
        }
        let _ = write!(text, "  {}", end.ended);
        push_call(&mut text, report.call_id.as_deref());
        text
    }

    fn who(&mut self, src: Endpoint, dst: Endpoint, codec: Option<&str>) -> String {
        let (src, dst, codec) = (src.to_string(), dst.to_string(), words::printable(codec.unwrap_or("?")));
        self.endpoint_width = self.endpoint_width.max(src.len()).max(dst.len()).min(47);
        self.codec_width = self.codec_width.max(codec.len()).min(16);
        let (width, codec_width) = (self.endpoint_width, self.codec_width);
        format!("{src:>width$} → {dst:<width$}  {codec:<codec_width$}")
    }
}

fn push_jitter(text: &mut String, jitter: Option<&Percentiles>) {
    match jitter {
        Some(jitter) => {
            let _ = write!(text, "  jitter p50 {} p99 {} ms", words::ms(jitter.p50), words::ms(jitter.p99));
        }
        None => text.push_str("  jitter - (clock rate unknown)"),
    }
}

/// What the de-jitter buffer would have thrown away; nothing is what one expects.
fn push_late(text: &mut String, percent: f64) {
    if percent > 0.0 {
        let _ = write!(text, "  too late {percent:.1} %");
    }
}

fn push_call(text: &mut String, call_id: Option<&str>) {
    match call_id {
        Some(call_id) => {
            let _ = write!(text, "  call {}", words::printable(words::short_call_id(call_id)));
        }
        None => text.push_str("  call - (no SDP seen)"),
    }
}

fn copies_text(copies_per_packet: f64) -> String {
    if copies_per_packet >= EVERY_FRAME {
        format!("every frame {}", words::times(copies_per_packet))
    } else {
        format!("{:.0} % copied", (copies_per_packet - 1.0) * 100.0)
    }
}

fn tunnel_text(carrier: &CarrierReport) -> String {
    let CarrierReport { path, src, dst, transport, port, session, .. } = carrier;
    let over = match transport {
        Transport::Ip => format!("IP protocol {port}"),
        Transport::Udp => format!("UDP port {port}"),
        Transport::Tcp => format!("TCP port {port}"),
    };
    let session = if *session == 0 { String::new() } else { format!(", session {session}") };
    format!("{src} → {dst}  {path} ({over}{session}): opened, what is inside is analysed")
}

fn tap_text(entry: &TapEntry) -> String {
    let tap = &entry.tap;
    let place = match (&tap.carrier, tap.encapsulation.as_str()) {
        (_, "none") => format!("interface {}", tap.interface),
        (Some(session), path) => match session.port {
            Some(port) => format!("inside {path}, {} port {port},", session.transport.to_uppercase()),
            None => format!("inside {path}"),
        },
        (None, path) => format!("inside {path}"),
    };
    let late = tap.late_us.map(|late| format!(", +{}", words::delay(late.max(0.0)))).unwrap_or_default();
    let differs = words::fields(tap.differs);
    let what = match entry.change {
        "appeared" => "shows again what another tap shows",
        _ => "no longer shows it",
    };
    format!("{}: {place} {what} ({differs}{late})", entry.change)
}

fn finding_text(finding: &Finding) -> String {
    let Finding { title, detail, advice, .. } = finding;
    if advice.is_empty() { format!("{title}: {detail}") } else { format!("{title}: {detail} → {advice}") }
}

fn loss_text(loss: &LossEntry) -> String {
    let what: Vec<_> =
        loss.losses.iter().map(|(name, frames)| format!("{} {name}", words::thousands(*frames))).collect();
    format!("the probe itself lost frames: {}; {}", what.join(", "), loss.advice)
}

fn summary_text(summary: &SummaryEntry) -> String {
    let statuses: Vec<_> = summary.by_status.iter().map(|(word, count)| format!("{count} {word}")).collect();
    let lost: u64 = summary.losses.values().sum();
    let mut text = format!(
        "{}, {}{}, {} frames matched = {} analysed + {} lost",
        words::count(summary.calls, "call"),
        words::count(summary.streams, "stream"),
        if statuses.is_empty() { String::new() } else { format!(" ({})", statuses.join(", ")) },
        words::thousands(summary.matched),
        words::thousands(summary.analysed),
        words::thousands(lost),
    );
    if summary.in_flight > 0 {
        let _ = write!(text, " + {} in flight", words::thousands(summary.in_flight));
    }
    if summary.ring_peak_percent >= RING_PEAK_PERCENT {
        let _ = write!(text, "; a ring was {} % full (--ring-size)", summary.ring_peak_percent);
    }
    if summary.lines_left_out > 0 {
        let _ = write!(
            text,
            "; {} more stream lines left out (--lines)",
            words::thousands(summary.lines_left_out)
        );
    }
    if summary.call_lines_left_out > 0 {
        let _ = write!(text, "; {} more call lines left out", words::thousands(summary.call_lines_left_out));
    }
    if summary.events_dropped > 0 {
        let _ = write!(
            text,
            "; {} dropped since the start, so lines are missing: the machine is too busy",
            words::count(summary.events_dropped, "event")
        );
    }
    if summary.announcements_given_up > 0 {
        let _ = write!(
            text,
            "; no room for {} of media since the start, so streams may have no call",
            words::count(summary.announcements_given_up, "announcement")
        );
    }
    text
}

const fn severity_colour(severity: Severity) -> AnsiColor {
    match severity {
        Severity::Info => AnsiColor::Blue,
        Severity::Warn => AnsiColor::Yellow,
        Severity::Bad => AnsiColor::Red,
    }
}

fn json_line(time: Timestamp, entry: &Entry) -> String {
    #[derive(Serialize)]
    struct Line<'a> {
        time: String,
        #[serde(flatten)]
        entry: &'a Entry,
    }
    let line = Line { time: format!("{time:.6}"), entry };
    serde_json::to_string(&line)
        .unwrap_or_else(|error| format!("{{\"type\":\"error\",\"message\":\"{error}\"}}"))
}

#[cfg(test)]
#[path = "health_tests.rs"]
mod tests;

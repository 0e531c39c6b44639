//! Entries as lines: text that is aligned and begins with a time and a word, or a JSON object.

use std::fmt::Write as _;

use anstyle::{AnsiColor, Style};
use jiff::Timestamp;
use jiff::tz::TimeZone;
use serde::Serialize;

use super::super::contract::{Finding, Percentiles, Severity};
use super::super::{json, words};
use super::{DUP_COPIES, EndEntry, Entry, LossEntry, ShedEntry, StreamEntry, SummaryEntry, TapEntry};
use crate::decode::{CarrierReport, Transport};
use crate::packet::Endpoint;
use crate::pipeline::Loss;

/// Ring occupancy that an operator should hear of before anything is lost.
const RING_PEAK_PERCENT: u64 = 50;
/// Copies a packet from which one speaks of every frame; below, some are copied.
const EVERY_FRAME: f64 = 1.5;
/// Round trip from which a line tells it: 150 ms each way is what a conversation bears (ITU-T G.114).
const LONG_ROUND_TRIP_MS: f64 = 300.0;

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
            Entry::Shed(shed) => ("shed", AnsiColor::Red, shed_text(shed)),
            Entry::Summary(summary) => ("sum", AnsiColor::White, summary_text(summary)),
        };
        // Whatever sentence a peer's words stand in, they end no line and command no terminal.
        let text = words::printable(&text);
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
        push_call(&mut text, stream.call_id.as_deref(), None);
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
        push_call(&mut text, report.call_id.as_deref(), report.call_absent_because.as_deref());
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

/// The call, or why there is none: at a stream's end that is known better.
fn push_call(text: &mut String, call_id: Option<&str>, absent_because: Option<&str>) {
    let said = match call_id {
        Some(call_id) => words::printable(words::short_call_id(call_id)),
        None => format!("- ({})", words::printable(absent_because.unwrap_or("no SDP seen"))),
    };
    let _ = write!(text, "  call {said}");
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

fn shed_text(shed: &ShedEntry) -> String {
    let ShedEntry { change, percent, frames, advice } = shed;
    let so_far = format!("{} frames of them so far", words::thousands(*frames));
    match *change {
        "ended" => format!(
            "ended: all media sessions are taken again; {} frames of RTP were left out",
            words::thousands(*frames)
        ),
        "began" => format!(
            "began: the probe does not keep up, so {percent:.0} % of the media sessions are left out, whole ones; SIP and \
             RTCP are not; {advice}"
        ),
        "raised" if *percent >= 100.0 => format!(
            "raised: all media sessions are left out, {so_far}; if that is not enough it is no media that is too much, but SIP, \
             fragments or tunnels; {advice}"
        ),
        "raised" => format!("raised: {percent:.0} % of the media sessions are left out, {so_far}; {advice}"),
        _ => format!("lowered: {percent:.0} % of the media sessions are left out, {so_far}"),
    }
}

fn summary_text(summary: &SummaryEntry) -> String {
    let statuses: Vec<_> = summary.by_status.iter().map(|(word, count)| format!("{count} {word}")).collect();
    let of = |loss: Loss| summary.losses.get(loss.name()).copied().unwrap_or(0);
    let decided = [(Loss::Shed, "shed"), (Loss::SampledOut, "sampled out")];
    let lost = summary.losses.values().sum::<u64>() - decided.iter().map(|(loss, _)| of(*loss)).sum::<u64>();
    let mut text = format!(
        "{}, {}{}, {} frames matched = {} analysed + {} lost",
        words::count(summary.calls, "call"),
        words::count(summary.streams, "stream"),
        if statuses.is_empty() { String::new() } else { format!(" ({})", statuses.join(", ")) },
        words::thousands(summary.matched),
        words::thousands(summary.analysed),
        words::thousands(lost),
    );
    for (loss, what) in decided.into_iter().filter(|(loss, _)| of(*loss) > 0) {
        let _ = write!(text, " + {} {what}", words::thousands(of(loss)));
    }
    if summary.in_flight > 0 {
        let _ = write!(text, " + {} in flight", words::thousands(summary.in_flight));
    }
    if summary.ring_peak_percent >= RING_PEAK_PERCENT {
        let _ = write!(text, "; a ring was {} % full (--ring-size)", summary.ring_peak_percent);
    }
    if summary.shed_percent > 0.0 {
        let _ = write!(text, "; {:.0} % of the media sessions are shed", summary.shed_percent);
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
    json::line(&line).unwrap_or_else(|error| format!("{{\"type\":\"error\",\"message\":\"{error}\"}}"))
}

//! The report for people: findings first, then calls, then streams. Fits 120 columns.

use std::fmt::Write as _;

use super::contract::{Report, Severity, StreamReport};
use super::words;

const WIDTH: usize = 118;

/// The whole report as text.
pub fn render(report: &Report) -> String {
    let mut out = String::new();
    capture(&mut out, report);
    findings(&mut out, report);
    calls(&mut out, report);
    streams(&mut out, report);
    out
}

fn capture(out: &mut String, report: &Report) {
    let capture = &report.capture;
    let _ = writeln!(
        out,
        "{}: {} frames, {}, {:.1} s",
        capture.sources.join(", "),
        words::thousands(capture.packets),
        words::bytes(capture.bytes),
        capture.duration_s,
    );
    let lost: u64 = capture.losses.values().sum();
    let _ = write!(
        out,
        "{} matched (SIP, RTP, RTCP, fragments) = {} analysed + {} lost",
        words::thousands(capture.matched),
        words::thousands(capture.analysed),
        words::thousands(lost),
    );
    if lost > 0 {
        let named: Vec<_> =
            capture.losses.iter().filter(|(_, n)| **n > 0).map(|(name, n)| format!("{n} {name}")).collect();
        let _ = write!(out, ": {}", named.join(", "));
    }
    out.push('\n');
    for note in &capture.notes {
        let _ = writeln!(out, "note: {note}");
    }
}

fn findings(out: &mut String, report: &Report) {
    let _ = writeln!(out, "\nFINDINGS");
    if report.findings.is_empty() {
        let _ = writeln!(out, "  none: nothing in this capture needs attention");
    }
    for finding in &report.findings {
        let mark = match finding.severity {
            Severity::Info => "info",
            Severity::Warn => "warn",
            Severity::Bad => "BAD ",
        };
        let _ = writeln!(out, "  {mark}  {}", finding.title);
        wrap(out, &finding.detail, 8);
        if !finding.advice.is_empty() {
            wrap(out, &format!("→ {}", finding.advice), 8);
        }
        if !finding.evidence.is_empty() {
            let numbers: Vec<_> = finding.evidence.iter().map(u64::to_string).collect();
            wrap(out, &format!("frames {}", numbers.join(", ")), 8);
        }
    }
}

fn calls(out: &mut String, report: &Report) {
    let _ = writeln!(
        out,
        "\nCALLS  {}, {} SIP messages, {} captured copies, {} retransmissions, {} authentication challenges",
        report.calls.len(),
        words::thousands(report.sip.messages),
        words::thousands(report.sip.copies),
        words::thousands(report.sip.retransmissions),
        words::thousands(report.sip.auth_challenges),
    );
    for super::contract::CallWithStreams { call, .. } in &report.calls {
        let setup = call.setup_ms.map_or_else(|| "-".to_owned(), |ms| format!("{ms:.0} ms"));
        let _ = writeln!(
            out,
            "  {:<10} {:<22} → {:<22} {:<10} setup {:>8}  {:>3} messages{}",
            words::printable(words::short_call_id(&call.call_id)),
            clip(&words::printable(&call.from), 22),
            clip(&words::printable(&call.to), 22),
            clip(call.state.word(), 10),
            setup,
            call.messages,
            if call.message_copies > 0 {
                format!(" (+{} copies)", call.message_copies)
            } else {
                String::new()
            },
        );
    }
}

fn streams(out: &mut String, report: &Report) {
    let _ = writeln!(out, "\nSTREAMS  {}", report.streams.len());
    if report.streams.is_empty() {
        return;
    }
    let width = report
        .streams
        .iter()
        .map(|s| s.src.to_string().len().max(s.dst.to_string().len()))
        .max()
        .unwrap_or(0);
    // Two addresses side by side leave no room for the figures when they are IPv6.
    let stacked = width > 24;
    let head = if stacked {
        format!("{:<width$}", "from, to")
    } else {
        format!("{:<width$}   {:<width$}", "from", "to")
    };
    let _ = writeln!(
        out,
        "  {head}  {:<8} {:>7} {:>7} {:>9} {:>6} {:>7} {:>7} {:>4}  {:<8}",
        "codec", "packets", "lost %", "captured", "copies", "p50 ms", "p99 ms", "MOS", "call"
    );
    for stream in &report.streams {
        let who = if stacked {
            let _ = writeln!(out, "  {}", stream.src);
            format!("{:<width$}", stream.dst.to_string())
        } else {
            format!("{:<width$} → {:<width$}", stream.src.to_string(), stream.dst.to_string())
        };
        let _ = writeln!(out, "  {who}  {}", figures(stream));
    }
    let _ = writeln!(
        out,
        "  \"lost %\" and jitter are of first copies; \"captured\" is the loss that tshark 4.0 would print, copies included."
    );
    for stream in &report.streams {
        reasons(out, stream);
    }
}

fn figures(stream: &StreamReport) -> String {
    let jitter = |pick: fn(&super::contract::Percentiles) -> f64| {
        stream.jitter_percentiles_us.as_ref().map_or_else(|| "-".to_owned(), |jitter| words::ms(pick(jitter)))
    };
    format!(
        "{:<8} {:>7} {:>7.1} {:>9.1} {:>6.2} {:>7} {:>7} {:>4}  {:<8}",
        clip(&words::printable(stream.codec.as_deref().unwrap_or("?")), 8),
        stream.unique.packets,
        stream.unique.lost_percent,
        stream.raw.lost_percent,
        stream.duplicates.copies_per_packet,
        jitter(|p| p.p50),
        jitter(|p| p.p99),
        stream.mos.as_ref().map_or_else(|| "-".to_owned(), |mos| format!("{:.1}", mos.value)),
        stream
            .call_id
            .as_deref()
            .map_or_else(|| "-".to_owned(), |id| words::printable(words::short_call_id(id))),
    )
}

/// What a dash in the table means, and what the copies are.
fn reasons(out: &mut String, stream: &StreamReport) {
    let mut lines = Vec::new();
    lines.extend(stream.jitter_absent_because.as_ref().map(|reason| format!("no jitter: {reason}")));
    lines.extend(stream.mos_absent_because.as_ref().map(|reason| format!("no MOS: {reason}")));
    lines.extend(
        stream
            .duplicates
            .causes
            .iter()
            .map(|cause| format!("{} copies, {}", cause.count, words::cause(cause))),
    );
    if lines.is_empty() {
        return;
    }
    let _ = writeln!(out, "  {} → {} {}", stream.src, stream.dst, stream.ssrc);
    for line in &lines {
        wrap(out, line, 6);
    }
}

/// Writes `text` in lines of at most [`WIDTH`] columns, all indented.
fn wrap(out: &mut String, text: &str, indent: usize) {
    let mut column = 0;
    for word in text.split_whitespace() {
        let length = word.chars().count();
        if column == 0 {
            let _ = write!(out, "{:indent$}{word}", "");
            column = indent + length;
        } else if column + 1 + length > WIDTH {
            let _ = write!(out, "\n{:indent$}{word}", "");
            column = indent + length;
        } else {
            let _ = write!(out, " {word}");
            column += 1 + length;
        }
    }
    out.push('\n');
}

fn clip(text: &str, width: usize) -> String {
    if text.chars().count() <= width {
        return text.to_owned();
    }
    text.chars().take(width.saturating_sub(1)).chain(['…']).collect()
}

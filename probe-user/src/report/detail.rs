//! One stream in full: `voxprobe analyze --stream`.
//!
//! Both ledgers stand side by side, because their difference is what the copies did to the figures; then what lies
//! behind the figures of first copies: the distribution, the losses, the silences, the copies by cause.

use std::fmt::Write as _;

use super::chart;
use super::contract::{Percentiles, Report, StreamReport};
use super::forensics::SignallingMoment;
use super::page::{self, Page, clip};
use super::words;
use crate::rtp::opinion::Mos;
use crate::rtp::unique::LedgerReport;

/// All streams of the report, one after the other, as plain text.
pub fn render(report: &Report) -> String {
    write(Page::new(false, page::WIDTH), report)
}

/// The same in so many columns, with styles, to be printed through `anstream`.
pub fn render_styled(report: &Report, width: usize) -> String {
    write(Page::new(true, width), report)
}

fn write(mut page: Page, report: &Report) -> String {
    for (at, stream) in report.streams.iter().enumerate() {
        if at > 0 {
            page.wrap("", 0);
        }
        identity(&mut page, stream);
        ledgers(&mut page, stream);
        jitter(&mut page, stream);
        delay(&mut page, stream);
        losses(&mut page, stream);
        interruptions(&mut page, stream);
        copies(&mut page, stream);
        quality(&mut page, stream);
    }
    page.into_text()
}

fn identity(page: &mut Page, stream: &StreamReport) {
    let (src, rest) = (format!("{} →", stream.src), format!("{}  {}", stream.dst, stream.ssrc));
    page.styled(page::HEADING, &src);
    let mut taken = page::columns(&src) + 1 + page::columns(&rest);
    if taken <= page.width() {
        page.styled(page::HEADING, " ");
    } else {
        // Two IPv6 addresses in full.
        page.styled(page::HEADING, "\n  ");
        taken = 2 + page::columns(&rest);
    }
    page.styled(page::HEADING, &rest);
    let codec = words::printable(stream.codec.as_deref().unwrap_or("codec unknown"));
    let clock =
        stream.clock_rate.map_or_else(|| "clock rate unknown".to_owned(), |rate| format!("{rate} Hz"));
    page.flow(taken, &format!("  {codec}, {clock}"), 2);
    let types: Vec<_> = stream.payload_types.iter().map(u8::to_string).collect();
    let mut seen = format!(
        "seen from {:.6} to {:.6} s, payload type {}",
        stream.start_s,
        stream.end_s,
        types.join(" and ")
    );
    if stream.encapsulation != "none" {
        let _ = write!(seen, ", inside {}", stream.encapsulation);
    }
    if stream.encrypted {
        seen.push_str(", encrypted");
    }
    page.wrap(&seen, 2);
    match (&stream.call_id, &stream.call_absent_because) {
        (Some(call_id), _) => page.wrap(&format!("call {}", words::printable(call_id)), 2),
        (None, Some(reason)) => page.wrap(&format!("no call: {reason}"), 2),
        (None, None) => {}
    }
}

/// A figure of a ledger: its name, and how it is printed.
type Figure = (&'static str, fn(&LedgerReport) -> String);

/// Named as in Wireshark's RTP analysis, with its digits.
const FIGURES: [Figure; 17] = [
    ("packets", |ledger| words::thousands(ledger.packets)),
    ("expected", |ledger| words::thousands(ledger.expected)),
    ("lost", |ledger| ledger.lost.to_string()),
    ("lost (%)", |ledger| format!("{:.2}", ledger.lost_percent)),
    ("sequence errors", |ledger| words::thousands(ledger.sequence_errors)),
    ("max delta (ms)", |ledger| format!("{:.3}", ledger.delta_ms.max)),
    ("  at frame", |ledger| words::thousands(ledger.delta_ms.max_packet)),
    ("mean delta (ms)", |ledger| format!("{:.3}", ledger.delta_ms.mean)),
    ("min delta (ms)", |ledger| format!("{:.3}", ledger.delta_ms.min)),
    ("max jitter (ms)", |ledger| format!("{:.3}", ledger.jitter_ms.max)),
    ("mean jitter (ms)", |ledger| format!("{:.3}", ledger.jitter_ms.mean)),
    ("min jitter (ms)", |ledger| format!("{:.3}", ledger.jitter_ms.min)),
    ("max skew (ms)", |ledger| format!("{:.3}", ledger.skew_ms.max)),
    ("clock drift (ms)", |ledger| optional(ledger.clock_drift_ms, 0)),
    ("clock drift (%)", |ledger| optional(ledger.clock_drift_percent, 2)),
    ("clock (Hz)", |ledger| optional(ledger.clock_hz, 0)),
    ("duration (s)", |ledger| format!("{:.2}", ledger.duration_s)),
];

fn optional(value: Option<f64>, digits: usize) -> String {
    value.map_or_else(|| "-".to_owned(), |value| words::decimal(value, digits))
}

fn ledgers(page: &mut Page, stream: &StreamReport) {
    page.section("LEDGERS", "as captured: every frame, the figures of Wireshark 4.0; unique: copies removed");
    let _ = writeln!(page, "  {:<18} {:>14} {:>14}", "", "as captured", "unique");
    for (name, figure) in FIGURES {
        let _ = writeln!(page, "  {name:<18} {:>14} {:>14}", figure(&stream.raw), figure(&stream.unique));
    }
    clock(page, stream);
    let counts = [
        (stream.reordered, "packet", "out of order"),
        (u64::from(stream.restarts), "restart", "of the numbering"),
        (stream.conflicts, "frame", "under a number that was taken by other content"),
        (stream.unplaced, "frame", "not placed: the number not believed, or too old to be told from a copy"),
    ];
    for (count, noun, what) in counts.into_iter().filter(|(count, ..)| *count > 0) {
        page.wrap(&format!("{} {what}", words::count(count, noun)), 2);
    }
    if stream.loss_is_upper_bound {
        page.wrap("the probe itself lost frames: the loss here may be its own, in part or in whole", 2);
    }
    if !stream.shed.is_empty() {
        let until = |to_s: Option<f64>| to_s.map_or("the end".to_owned(), |to_s| format!("{to_s:.1} s"));
        let times =
            stream.shed.iter().map(|period| format!("{:.1} s to {}", period.from_s, until(period.to_s)));
        let times = times.collect::<Vec<_>>().join(", ");
        page.wrap(&format!("the probe was overloaded and shed it: {times}"), 2);
    }
}

/// The sender's clock, as far as it is known.
fn clock(page: &mut Page, stream: &StreamReport) {
    let Some(own) = stream.unique.first_copies else { return };
    match (own.clock_drift_ppm, own.clock_drift_ppm_ci, own.clock_drift_absent_because) {
        (Some(ppm), Some([low, high]), _) => {
            let [ppm, low, high] = [ppm, low, high].map(|ppm| words::signed(ppm, 1));
            let said =
                format!("the sender's clock: {ppm} ppm between interruptions, 95 % sure: {low} to {high}");
            page.wrap(&said, 2);
        }
        (_, _, Some(reason)) => page.wrap(&format!("no clock drift: {reason}"), 2),
        _ => {}
    }
    if let Some(reason) = &stream.clock_rate_because {
        page.wrap(&format!("clock rate: {reason}"), 2);
    }
}

/// How deep a buffer has to be, and what two of them would have thrown away.
fn delay(page: &mut Page, stream: &StreamReport) {
    let (Some(delay), Some(buffer)) = (stream.pdv_percentiles_us, &stream.jitter_buffer) else { return };
    let said = format!(
        "over the quickest packet, ms: p50 {}, p90 {}, p99 {}, p99.9 {}, max {}",
        words::ms(delay.p50),
        words::ms(delay.p90),
        words::ms(delay.p99),
        words::ms(delay.p999),
        words::ms(delay.max)
    );
    page.section("DELAY", &said);
    let (fixed, adaptive) = (buffer.fixed, buffer.adaptive);
    let said = format!(
        "too late for a jitter buffer of {:.0} ms: {} ({:.1} %); for an adaptive one, {:.0} ms deep on average: {} ({:.1} %)",
        fixed.depth_ms,
        words::thousands(fixed.discarded),
        fixed.discarded_percent,
        adaptive.depth_mean_ms,
        words::thousands(adaptive.discarded),
        adaptive.discarded_percent
    );
    page.wrap(&said, 2);
}

fn jitter(page: &mut Page, stream: &StreamReport) {
    let Some(Percentiles { p50, p90, p99, p999, max }) = stream.jitter_percentiles_us else {
        let reason = stream.jitter_absent_because.as_deref().unwrap_or("not measured");
        return page.section("JITTER", &format!("none: {reason}"));
    };
    let said = format!(
        "|D| between first copies, ms: p50 {}, p90 {}, p99 {}, p99.9 {}, max {}",
        words::ms(p50),
        words::ms(p90),
        words::ms(p99),
        words::ms(p999),
        words::ms(max)
    );
    page.section("JITTER", &said);
    let width = page.width();
    let histogram = stream.jitter_histogram.as_deref().and_then(chart::decode);
    for line in histogram.iter().flat_map(|histogram| chart::lines(histogram, width)) {
        let _ = writeln!(page, "{line}");
    }
}

fn losses(page: &mut Page, stream: &StreamReport) {
    let bursts = &stream.bursts;
    let runs: Vec<_> = bursts.loss_runs.iter().zip(1_u32..).filter(|(count, _)| **count > 0).collect();
    if runs.is_empty() {
        page.section("LOSS", "none, copies removed");
        if bursts.discarded > 0 {
            burst_lengths(page, stream);
        }
        return;
    }
    let longest = u32::try_from(bursts.loss_runs.len()).unwrap_or(u32::MAX);
    let run = |(count, length): (&_, u32)| {
        let more = if length == longest { " or more" } else { "" };
        format!("{count} of {length}{more}")
    };
    let said: Vec<_> = runs.into_iter().map(run).collect();
    page.section("LOSS", &format!("runs of consecutive packets: {}", said.join(", ")));
    burst_lengths(page, stream);
}

fn burst_lengths(page: &mut Page, stream: &StreamReport) {
    let bursts = &stream.bursts;
    page.wrap(
        &format!(
            "bursts of lost and late (RFC 3611, Gmin {}): {:.1} % within, {:.0} ms long; between them {:.2} %, {:.0} ms long",
            bursts.gmin,
            bursts.burst_density * 100.0,
            bursts.burst_duration_ms,
            bursts.gap_density * 100.0,
            bursts.gap_duration_ms
        ),
        2,
    );
}

fn interruptions(page: &mut Page, stream: &StreamReport) {
    let shown = stream.interruptions.len();
    let count = usize::try_from(stream.interruption_count).unwrap_or(usize::MAX);
    let rest = if count > shown { format!("{count}, the heaviest {shown} here") } else { count.to_string() };
    page.section("INTERRUPTIONS", &rest);
    for interruption in &stream.interruptions {
        let gap = &interruption.gap;
        let mut said = format!("frame {:<9} {:.3} s without packets", gap.packet, gap.silence_s);
        if let Some(moved) = gap.timestamp_s {
            let _ = write!(said, ", the timestamp moved by {moved:.3} s");
        }
        for (verb, moment) in
            [("began", &interruption.explanation.began_at), ("ended", &interruption.explanation.ended_at)]
        {
            if let Some(moment) = moment {
                let _ = write!(said, "; {verb} {} (frame {})", moment.phrase(), moment.frame);
            }
        }
        let _ = write!(said, ": {}", interruption.explanation.because);
        page.hang("  ", &said, 18);
    }
    changes(page, stream);
}

/// What else befell it, and what the signalling did then.
fn changes(page: &mut Page, stream: &StreamReport) {
    let near = |moment: &Option<SignallingMoment>| {
        moment.as_ref().map_or_else(String::new, |moment| format!(", {}", moment.phrase()))
    };
    let mut said: Vec<(u64, String)> = Vec::new();
    for change in &stream.codec_changes {
        let name = |codec: &Option<String>, number: u8| {
            codec.as_deref().map_or_else(|| format!("payload type {number}"), words::printable)
        };
        let (from, to) =
            (name(&change.from_codec, change.change.from), name(&change.to_codec, change.change.to));
        said.push((change.change.packet, format!("codec: {from}, then {to}{}", near(&change.near))));
    }
    for spike in &stream.jitter_spikes {
        let text = format!(
            "{} up to {:.0} ms late within {:.2} s{}{}",
            words::count(spike.packets, "packet"),
            spike.worst_ms,
            spike.until_s - spike.time_s,
            if spike.is_step {
                ", at once and all of them: the sender paused, or the way became longer"
            } else {
                ""
            },
            near(&spike.near)
        );
        said.push((spike.packet, text));
    }
    for marker in &stream.marker_restarts {
        let jump = words::signed(marker.jump_s, 2);
        said.push((marker.packet, format!("marker: the timestamp jumped by {jump} s{}", near(&marker.near))));
    }
    said.sort();
    if let Some(predecessor) = &stream.continues {
        page.wrap(&predecessor.sentence(), 2);
    }
    for (frame, text) in said {
        page.hang("  ", &format!("frame {frame:<9} {text}"), 18);
    }
}

fn copies(page: &mut Page, stream: &StreamReport) {
    let duplicates = &stream.duplicates;
    if duplicates.total == 0 {
        return page.section("COPIES", "none");
    }
    let said = format!(
        "{}: each packet {}, told by {}",
        words::thousands(duplicates.total),
        words::times(duplicates.copies_per_packet),
        duplicates.proof
    );
    page.section("COPIES", &said);
    for cause in &duplicates.causes {
        let mut said = format!("{:>9} {}", words::thousands(cause.count), words::cause(cause));
        let pairs: Vec<_> =
            cause.examples.iter().map(|(original, copy)| format!("{copy} of {original}")).collect();
        if !pairs.is_empty() {
            let _ = write!(said, "; frames {}", pairs.join(", "));
        }
        page.hang("  ", &said, 12);
    }
    if duplicates.unexplained > 0 {
        let said = format!(
            "{:>9} without a cause: the original was no longer remembered",
            words::thousands(duplicates.unexplained)
        );
        page.hang("  ", &said, 12);
    }
}

fn quality(page: &mut Page, stream: &StreamReport) {
    match (&stream.mos, &stream.mos_absent_because) {
        (Some(mos), _) => {
            let Mos { value, scale, r_factor, assumptions, .. } = mos;
            let said = format!("MOS {value:.2} ({}), R {r_factor:.1}: {assumptions}", scale.word());
            page.section("QUALITY", &said);
        }
        (None, reason) => {
            let reason = reason.as_deref().unwrap_or("not estimated");
            page.section("QUALITY", &format!("no MOS: {}", clip(&words::printable(reason), 400)));
        }
    }
    if let Some(Mos { value, r_factor, assumptions, .. }) = &stream.mos_cq {
        page.wrap(&format!("in conversation {value:.2}, R {r_factor:.1}: {assumptions}"), 2);
    }
}

#[cfg(test)]
mod tests {
    use super::super::contract::testing::{interrupted, report};
    use super::*;

    #[test]
    fn no_line_is_wider_than_the_page_and_nothing_is_obeyed() {
        let mut wide = interrupted(3_599.99, 123_456, false);
        let v6: std::net::SocketAddr = "[2001:db8:1111:2222:3333:4444:5555:6666]:40000".parse().unwrap();
        (wide.src, wide.dst) = (v6.into(), v6.into());
        wide.codec = Some("\u{1b}telephone-event".repeat(9));
        wide.call_id = Some("\u{202e}@host".repeat(40).into());
        wide.payload_types = (0..128).collect();
        wide.encapsulation = "vlan/gre/erspan2/vxlan/gtp/rpcap".to_owned();
        (wide.conflicts, wide.unplaced, wide.restarts) = (1 << 40, 1 << 40, u32::MAX);
        (wide.raw.packets, wide.raw.lost, wide.raw.delta_ms.max) = (u64::from(u32::MAX), -4_294_967_296, 1e9);
        wide.bursts.loss_runs = [u32::MAX; 10];
        let moment = SignallingMoment {
            event: "REFER ".repeat(30),
            frame: u64::MAX,
            after_ms: -1e9,
            of_call: Some("\u{202e}".repeat(9).into()),
        };
        wide.interruptions[0].explanation.began_at = Some(moment);
        (wide.duplicates.total, wide.duplicates.unexplained) = (1 << 40, 1 << 40);
        (wide.mos, wide.mos_absent_because) = (None, Some("word ".repeat(60)));
        let text = render(&report(vec![wide.clone(), wide]));
        for line in text.lines() {
            assert!(page::columns(line) <= page::WIDTH, "{} columns: {line}", page::columns(line));
        }
        assert!(!text.contains(['\u{1b}', '\u{202e}']), "{text}");
    }

    #[test]
    fn styles_change_no_word() {
        let report = report(vec![interrupted(1.8, 0, false)]);
        let styled = render_styled(&report, page::WIDTH);
        assert_ne!(styled, render(&report));
        assert_eq!(anstream::adapter::strip_str(&styled).to_string(), render(&report));
    }
}

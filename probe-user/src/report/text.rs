//! The report for people: findings first, then calls, then streams.

use std::fmt::Write as _;

use super::contract::{Report, Severity, StreamReport};
use super::page::{self, Page, cell, clip};
use super::troubles::Predecessor;
use super::words;

/// Calls listed; a file of a day has thousands, and another command for them.
const MAX_CALLS: usize = 100;
/// Columns from which a stream's line has all figures.
const WIDE: usize = 115;

/// The whole report as plain text.
pub fn render(report: &Report) -> String {
    write(Page::new(false, page::WIDTH), report)
}

/// The same in so many columns, with styles, to be printed through `anstream`.
pub fn render_styled(report: &Report, width: usize) -> String {
    write(Page::new(true, width), report)
}

fn write(mut page: Page, report: &Report) -> String {
    capture(&mut page, report);
    findings(&mut page, report);
    calls(&mut page, report);
    streams(&mut page, report);
    page.into_text()
}

fn capture(page: &mut Page, report: &Report) {
    let capture = &report.capture;
    let read = format!(
        "{}: {}, {}, {}",
        words::printable(&capture.sources.join(", ")),
        words::count(capture.packets, "frame"),
        words::bytes(capture.bytes),
        words::seconds(capture.duration_s),
    );
    page.hang("", &read, 2);
    let left_out = capture.left_out();
    let lost = capture.losses.values().sum::<u64>() - left_out;
    let unpacked = match capture.unpacked {
        0 => String::new(),
        count => format!("; {} of them inside segments", words::thousands(count)),
    };
    let mut account = format!(
        "{} matched (SIP, RTP, RTCP, fragments, tunnels{unpacked}) = {} analysed + {} lost",
        words::thousands(capture.matched),
        words::thousands(capture.analysed),
        words::thousands(lost),
    );
    if left_out > 0 {
        let _ = write!(account, " + {} left out", words::thousands(left_out));
    }
    if lost + left_out > 0 {
        let named: Vec<_> =
            capture.losses.iter().filter(|(_, n)| **n > 0).map(|(name, n)| format!("{n} {name}")).collect();
        let _ = write!(account, ": {}", named.join(", "));
    }
    page.hang("", &account, 2);
    if let Some(sampling) = capture.sampling {
        let kept = format!(
            "{:.1} % of the media sessions were kept (--sample), whole ones; what is said of media is of those",
            sampling.kept_percent
        );
        page.hang("sampled: ", &kept, 9);
    }
    for note in &capture.notes {
        page.hang("note: ", &words::printable(note), 6);
    }
}

fn findings(page: &mut Page, report: &Report) {
    page.section("FINDINGS", "");
    if report.findings.is_empty() {
        page.wrap("none: nothing in this capture needs attention", 2);
    }
    for finding in &report.findings {
        let (style, mark) = match finding.severity {
            Severity::Info => (page::INFO, "  info  "),
            Severity::Warn => (page::WARN, "  warn  "),
            Severity::Bad => (page::BAD, "  BAD   "),
        };
        page.styled(style, mark);
        page.flow(8, &finding.title, 8);
        page.wrap(&finding.detail, 8);
        if !finding.advice.is_empty() {
            page.styled(page::ADVICE, "        →");
            page.flow(9, &format!(" {}", finding.advice), 8);
        }
        if !finding.evidence.is_empty() {
            let numbers: Vec<_> = finding.evidence.iter().map(u64::to_string).collect();
            page.wrap(&format!("frames {}", numbers.join(", ")), 8);
        }
    }
}

fn calls(page: &mut Page, report: &Report) {
    let sum = format!(
        "{}{}, {}, {} captured copies, {}, {}",
        report.calls.len(),
        if report.calls.len() > 1 { format!(" ({})", super::calls::by_state(report)) } else { String::new() },
        words::count(report.sip.messages, "SIP message"),
        words::thousands(report.sip.copies),
        words::count(report.sip.retransmissions, "retransmission"),
        words::count(report.sip.auth_challenges, "authentication challenge"),
    );
    page.section("CALLS", &sum);
    if report.calls.is_empty() {
        return;
    }
    // Those that deserve a look first.
    let (told, quiet): (Vec<_>, Vec<_>) = report.calls.iter().partition(|call| !call.problems.is_empty());
    let listed: Vec<_> = told.into_iter().chain(quiet).take(MAX_CALLS).collect();
    super::calls::table(page, report, &listed, false);
    let rest = report.calls.len() - listed.len();
    if rest > 0 {
        let rest = words::count(rest as u64, "more call");
        page.wrap(&format!("{rest}: voxprobe calls lists them, and filters"), 0);
    }
}

fn streams(page: &mut Page, report: &Report) {
    page.section("STREAMS", &report.streams.len().to_string());
    if report.streams.is_empty() {
        return;
    }
    let is_wide = page.width() >= WIDE;
    let endpoints = report.streams.iter().flat_map(|stream| [stream.src, stream.dst]);
    let width = endpoints.map(|endpoint| endpoint.to_string().len()).max().unwrap_or(0);
    let lines: Vec<_> = report.streams.iter().map(|stream| (stream, figures(stream, is_wide))).collect();
    let room = |(_, figures): &(_, String)| page.width().saturating_sub(page::columns(figures));
    let layout = Layout::of(width, lines.iter().map(room).min().unwrap_or(0));
    let (from, to) = (cell("from", width), cell("to", width));
    let head = match layout {
        Layout::Beside => format!("  {from}   {to}"),
        Layout::Stacked => format!("  {}", cell("from, to", width)),
        Layout::Above => "  from, to\n".to_owned(),
    };
    let columns = if is_wide {
        "codec    packets  lost %  captured copies  p50 ms  p99 ms  MOS  call"
    } else {
        "codec    packets lost% captured p99ms MOS call"
    };
    let _ = writeln!(page, "{head}  {columns}");
    for (stream, figures) in lines {
        let (src, dst) = (cell(&stream.src.to_string(), width), cell(&stream.dst.to_string(), width));
        let who = match layout {
            Layout::Beside => format!("  {src} → {dst}"),
            Layout::Stacked => format!("  {}\n  {dst}", src.trim_end()),
            Layout::Above => format!("  {}\n  {}\n", src.trim_end(), dst.trim_end()),
        };
        let _ = writeln!(page, "{who}  {figures}");
    }
    page.hang(
        "  ",
        "\"lost %\" and jitter (p99) are of first copies; \"captured\" is the loss that tshark 4.0 would print, copies \
         included.",
        2,
    );
    for stream in &report.streams {
        reasons(page, stream);
    }
}

/// Where the two addresses of a stream stand. The longest of all decides, so that columns are columns.
#[derive(Clone, Copy)]
enum Layout {
    /// In one line with the figures: IPv4 but for the longest.
    Beside,
    /// The sender above: short IPv6.
    Stacked,
    /// Both above: IPv6 in full.
    Above,
}

impl Layout {
    /// For addresses of `width` columns, where the figures leave `room`.
    fn of(width: usize, room: usize) -> Self {
        // Two blanks before the addresses and two after; three with the arrow between.
        if 2 * width + 7 <= room {
            Self::Beside
        } else if width + 4 <= room {
            Self::Stacked
        } else {
            Self::Above
        }
    }
}

fn figures(stream: &StreamReport, is_wide: bool) -> String {
    let jitter = |pick: fn(&super::contract::Percentiles) -> f64| {
        stream.jitter_percentiles_us.as_ref().map_or_else(|| "-".to_owned(), |jitter| words::ms(pick(jitter)))
    };
    let codec = cell(&words::printable(stream.codec.as_deref().unwrap_or("?")), 8);
    let (packets, lost, captured) =
        (stream.unique.packets, stream.unique.lost_percent, stream.raw.lost_percent);
    let (p50, p99) = (jitter(|p| p.p50), jitter(|p| p.p99));
    let mos = stream.mos.as_ref().map_or_else(|| "-".to_owned(), |mos| format!("{:.1}", mos.value));
    let call = stream.call_id.as_deref().map_or_else(|| "-".to_owned(), short);
    if is_wide {
        let copies = stream.duplicates.copies_per_packet;
        return format!(
            "{codec} {packets:>7} {lost:>7.1} {captured:>9.1} {copies:>6.2} {p50:>7} {p99:>7} {mos:>4}  {call}"
        );
    }
    format!("{codec} {packets:>7} {lost:>5.1} {captured:>8.1} {p99:>5} {mos:>3} {call}")
}

/// A Call-ID in eight columns, also if it is made of what has to be escaped.
fn short(call_id: &str) -> String {
    clip(&words::printable(words::short_call_id(call_id)), 8)
}

/// What a dash in the table means, and what the copies are.
fn reasons(page: &mut Page, stream: &StreamReport) {
    let mut lines = Vec::new();
    lines.extend(
        stream.call_absent_because.as_ref().map(|reason| format!("no call: {}", words::printable(reason))),
    );
    lines.extend(stream.continues.as_ref().map(Predecessor::sentence));
    lines.extend(stream.jitter_absent_because.as_ref().map(|reason| format!("no jitter: {reason}")));
    lines.extend(stream.mos_absent_because.as_ref().map(|reason| format!("no MOS: {reason}")));
    lines.extend(
        stream
            .duplicates
            .causes
            .iter()
            .map(|cause| format!("copied {}: {}", words::count(cause.count, "time"), words::cause(cause))),
    );
    if stream.conflicts > 0 {
        lines.push(format!(
            "{} under a number that was taken by other content",
            words::count(stream.conflicts, "frame")
        ));
    }
    if stream.unplaced > 0 {
        lines.push(format!(
            "{} not placed: the number too far off to be believed, or too late to be told from a copy",
            words::count(stream.unplaced, "frame")
        ));
    }
    if lines.is_empty() {
        return;
    }
    page.hang("  ", &format!("{} → {} {}", stream.src, stream.dst, stream.ssrc), 2);
    for line in &lines {
        page.wrap(line, 6);
    }
}

#[cfg(test)]
mod tests {
    use super::super::contract::testing::{call, interrupted, report, stream};
    use super::*;
    use crate::packet::Endpoint;

    /// Everything as wide as it can come.
    fn widest(src: &str, dst: &str) -> Report {
        let endpoint = |text: &str| Endpoint::from(text.parse::<std::net::SocketAddr>().unwrap());
        let mut wide = interrupted(3_599.99, 123_456, false);
        (wide.src, wide.dst) = (endpoint(src), endpoint(dst));
        (wide.conflicts, wide.unplaced) = (1_234_567, 1_234_567);
        wide.call_id = Some("\u{1b}\u{1b}\u{1b}\u{1b}\u{1b}\u{1b}\u{1b}\u{1b}@host".into());
        wide.codec = Some("telephone-event".to_owned());
        wide.unique.packets = 9_999_999;
        wide.unique.lost_percent = 100.0;
        wide.raw.lost_percent = -99_999.9;
        wide.duplicates.copies_per_packet = 999.99;
        wide.mos_absent_because = Some("word ".repeat(60));
        let mut report = report(vec![wide, stream()]);
        report.capture.sources = vec!["/a/very/long/path".repeat(20), "short.pcap".to_owned()];
        report.capture.notes = vec![format!("{}: begins too early", "/another".repeat(30))];
        for (index, losses) in report.capture.losses.values_mut().enumerate() {
            *losses = 1_000_000_000 + index as u64;
        }
        (report.sip.messages, report.sip.copies) = (123_456_789, 123_456_789);
        (report.sip.retransmissions, report.sip.auth_challenges) = (123_456_789, 123_456_789);
        report.findings.extend(super::super::findings::find(&report));
        for finding in &mut report.findings {
            finding.title = finding.title.repeat(4);
            finding.evidence = (1_000_000_000..1_000_000_020).collect();
        }
        let mut call = call(&"\u{202e}".repeat(8));
        call.call.from = format!("sip:{}@example.com", "a".repeat(99)).into();
        call.call.to = format!("sip:{}@example.com", "\u{7}".repeat(99)).into();
        call.call.setup_ms = Some(123_456_789.0);
        (call.call.messages, call.call.message_copies) = (1_234_567, 1_234_567);
        call.call.state = crate::sip::calls::CallState::Challenged;
        report.calls.push(call);
        report
    }

    #[test]
    fn no_line_is_wider_than_the_page() {
        let v6 = "[2001:db8:1111:2222:3333:4444:5555:6666]:40000";
        let pairs = [
            ("10.0.0.1:4000", "10.0.0.2:5000"),
            ("192.168.100.10:40000", "192.168.100.11:40002"),
            ("192.168.100.100:40000", "192.168.100.101:40002"),
            ("[2001:db8::1]:40000", "10.0.0.2:5000"),
            ("[2001:db8:1111:2222:3333::6666]:40000", "[2001:db8::1]:40000"),
            (v6, v6),
        ];
        for (src, dst) in pairs {
            for width in [80, page::WIDTH, 120] {
                let text = anstream::adapter::strip_str(&render_styled(&widest(src, dst), width)).to_string();
                for line in text.lines() {
                    assert!(page::columns(line) <= width, "{} columns: {line}", page::columns(line));
                }
                assert!(text.contains(src) && text.contains(dst), "{text}");
            }
        }
    }

    #[test]
    fn what_the_network_named_commands_no_terminal() {
        let evil = "\u{1b}[2J\u{9b}31m\u{202e}\u{2028}x\n";
        let mut named = stream();
        (named.call_id, named.codec) = (None, Some(evil.to_owned()));
        named.call_absent_because = Some(format!("no SDP of {evil}"));
        named.jitter_absent_because = Some(format!("no clock of {evil}"));
        (named.mos, named.mos_absent_because) =
            (None, Some(format!("no impairment factor is published for {evil}")));
        let mut report = report(vec![named]);
        let mut call = call(evil);
        (call.call.from, call.call.to) = (evil.into(), evil.into());
        (call.call.disconnect_reason, call.media_absent_because) = (Some(evil.into()), Some(evil.to_owned()));
        call.problems.push(super::super::call_media::CallFinding { id: "failed", text: evil.to_owned() });
        report.calls.push(call);
        report.capture.notes.push(evil.to_owned());
        report.capture.sources.push(evil.to_owned());
        report.findings.push(super::super::contract::Finding {
            id: "packets-lost",
            severity: Severity::Bad,
            title: evil.to_owned(),
            detail: evil.to_owned(),
            advice: evil.to_owned(),
            evidence: Vec::new(),
        });
        for text in [render(&report), super::super::detail::render(&report)] {
            let is_safe = |c: char| c == '\n' || !c.is_control() && !matches!(c, '\u{202e}' | '\u{2028}');
            assert!(text.chars().all(is_safe), "{text:?}");
            assert!(text.contains("no impairment factor is published for"), "{text}");
        }
    }

    #[test]
    fn addresses_share_a_line_as_long_as_there_is_room() {
        let lines = |src: &str, dst: &str, width| {
            let mut stream = stream();
            stream.src = src.parse::<std::net::SocketAddr>().unwrap().into();
            stream.dst = dst.parse::<std::net::SocketAddr>().unwrap().into();
            anstream::adapter::strip_str(&render_styled(&report(vec![stream]), width))
                .to_string()
                .lines()
                .filter(|line| line.contains(":40002"))
                .map(str::to_owned)
                .collect::<Vec<_>>()
        };
        let beside = lines("192.168.100.10:40000", "192.168.100.11:40002", page::WIDTH);
        assert!(beside[0].contains("40000 → 192") && beside[0].contains("PCMU"), "{beside:?}");
        let stacked = lines("[2001:db8:1111:2222::1]:40000", "[2001:db8::1]:40002", page::WIDTH);
        assert!(stacked[0].starts_with("  [2001:db8::1]:40002            PCMU"), "{stacked:?}");
        let v6 = "[2001:db8:1111:2222:3333:4444:5555:6666]";
        let above = lines(&format!("{v6}:40000"), &format!("{v6}:40002"), 80);
        assert_eq!(above[0], format!("  {v6}:40002"));
    }
}

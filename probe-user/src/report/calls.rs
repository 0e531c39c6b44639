//! The list of calls for people: one line a call, its media's worst beside it. Fits 120 columns.

use std::fmt::Write as _;

use super::contract::{CallWithStreams, Report, StreamReport};
use super::page::clip;
use super::words;

/// The list.
pub fn render(report: &Report) -> String {
    let mut out = String::new();
    if report.calls.is_empty() {
        out.push_str("no calls: no INVITE, and nothing that belongs to one\n");
        return out;
    }
    let _ = writeln!(
        out,
        "{:>8}  {:<8}  {:<16}   {:<16}  {:<13} {:>8} {:>7}  {:<6} {:>4} {:>6}  media",
        "frame", "call", "from", "to", "state", "setup ms", "talk s", "by", "msgs", "copies"
    );
    for call in &report.calls {
        let _ = writeln!(out, "{}", line(report, call).trim_end());
    }
    out
}

fn line(report: &Report, CallWithStreams { call, .. }: &CallWithStreams) -> String {
    let state = call
        .final_code
        .map_or_else(|| call.state.word().to_owned(), |code| format!("{} {code}", call.state.word()));
    let number = |value: Option<f64>, digits: usize| {
        value.map_or_else(|| "-".to_owned(), |value| format!("{value:.digits$}"))
    };
    format!(
        "{:>8}  {:<8}  {:<16} → {:<16}  {:<13} {:>8} {:>7}  {:<6} {:>4} {:>6}  {}",
        call.first_frame,
        clip(&words::printable(words::short_call_id(&call.call_id)), 8),
        clip(&words::printable(user(&call.from)), 16),
        clip(&words::printable(user(&call.to)), 16),
        clip(&state, 13),
        number(call.setup_ms, 0),
        number(call.talked_ms.map(|ms| ms / 1e3), 1),
        call.ended_by.unwrap_or("-"),
        call.messages,
        call.message_copies,
        media(report, &call.call_id),
    )
}

/// How many streams, and the worst of them.
fn media(report: &Report, call_id: &str) -> String {
    let its: Vec<&StreamReport> =
        report.streams.iter().filter(|stream| stream.call_id.as_deref() == Some(call_id)).collect();
    let worst = its.iter().map(|stream| stream.unique.lost_percent).fold(0.0, f64::max);
    match its.len() {
        0 => "none".to_owned(),
        count if worst > 0.0 => format!("{count}, {worst:.1} %"),
        count => count.to_string(),
    }
}

/// A URI without its scheme: in a list of calls that is what tells two apart.
fn user(uri: &str) -> &str {
    uri.split_once(':').map_or(uri, |(_, rest)| rest)
}

#[cfg(test)]
mod tests {
    use super::super::contract::testing::{report, stream};
    use super::*;
    use crate::sip::calls::CallState;

    fn call(id: &str) -> CallWithStreams {
        let mut call = super::super::contract::testing::call(id);
        call.call.from = format!("sip:{}@pbx.example", "1".repeat(40)).into();
        call.call.to = "sip:\u{1b}[2J@pbx.example".into();
        (call.call.state, call.call.final_code) = (CallState::Failed(486), Some(486));
        call.call.ended_by = Some("caller");
        (call.call.setup_ms, call.call.talked_ms) = (Some(12_345_678.0), Some(3_600_000.0));
        (call.call.messages, call.call.message_copies) = (1_234, 123_456);
        call.call.first_frame = 12_345_678;
        call
    }

    #[test]
    fn a_line_fits_however_long_its_parts_are_and_obeys_no_escape() {
        let mut lossy = stream();
        lossy.call_id = Some("a84b4c76e66710@phone".into());
        lossy.unique.lost_percent = 12.34;
        let mut report = report(vec![lossy]);
        report.calls = vec![call("a84b4c76e66710@phone"), call("b")];
        let text = render(&report);
        assert!(text.lines().all(|line| line.chars().count() <= 120), "{text}");
        assert!(!text.contains('\u{1b}'), "{text:?}");
        assert!(text.lines().nth(1).is_some_and(|line| line.ends_with("1, 12.3 %")), "{text}");
        assert!(text.lines().nth(2).is_some_and(|line| line.ends_with("none")), "{text}");
    }
}

//! The list of calls for people: one line a call, and below it what of the call deserves a look.
//!
//! Three groups of columns: how it was set up and ended, how often its messages were seen, and the worst stream of its
//! media. The page's width decides how much of the names is shown; below 100 columns the second group is left out.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use serde::ser::{Error as _, SerializeSeq as _};
use serde::{Serialize, Serializer};
use serde_json::Value;

use super::contract::{CallWithStreams, Report, StreamReport};
use super::page::{self, Page, cell, clip};
use super::problems::{self, ByCall};
use super::words;
use crate::sip::CallState;
use crate::sip::report::Relation;

/// Columns of everything but the names.
const FIGURES: usize = 79;
/// The same without what a narrow page leaves out.
const FEWER_FIGURES: usize = 56;
/// Columns before what is said below a call.
const BELOW: usize = 9;
/// Problems told below a call.
const MAX_PROBLEMS: usize = 3;
/// Kinds of messages named where there is no call.
const KINDS: usize = 6;

/// How the list is written.
#[derive(Clone, Copy, Debug)]
pub struct Style {
    /// Columns of a line.
    pub width: usize,
    /// With colours, to be printed through `anstream`.
    pub is_styled: bool,
    /// Nothing below the lines.
    pub is_brief: bool,
}

impl Default for Style {
    fn default() -> Self {
        Self { width: page::WIDTH, is_styled: false, is_brief: false }
    }
}

/// The list of all calls of a report.
pub fn render(report: &Report, style: Style) -> String {
    let mut page = Page::new(style.is_styled, style.width);
    let calls: Vec<_> = report.calls.iter().collect();
    table(&mut page, report, &calls, style.is_brief);
    page.into_text()
}

/// The calls as JSON, each with its streams in full in place of their names.
#[derive(Clone, Copy, Debug)]
pub struct InFull<'a>(pub &'a Report);

impl Serialize for InFull<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let Self(report) = self;
        let by_call = ByCall::of(&report.streams);
        let mut list = serializer.serialize_seq(Some(report.calls.len()))?;
        for call in &report.calls {
            // One after the other: as values, those of a long capture would take more memory than all else.
            list.serialize_element(&with_streams(call, &by_call).map_err(S::Error::custom)?)?;
        }
        list.end()
    }
}

fn with_streams(call: &CallWithStreams, by_call: &ByCall<'_>) -> serde_json::Result<Value> {
    let mut value = serde_json::to_value(call)?;
    if let Some(fields) = value.as_object_mut() {
        fields.insert("streams".to_owned(), serde_json::to_value(by_call.streams_of(call))?);
    }
    Ok(value)
}

/// What there is where there is no call.
pub fn what_else(report: &Report) -> String {
    if report.sip.messages == 0 {
        let verdicts = report.capture.verdicts.iter().filter(|(_, frames)| **frames > 0);
        let said: Vec<_> =
            verdicts.map(|(name, frames)| format!("{} {name}", words::thousands(*frames))).collect();
        return format!("no SIP in {}: {}", words::count(report.capture.packets, "frame"), said.join(", "));
    }
    let mut kinds: Vec<_> = report.sip.kinds.iter().filter(|(_, tally)| tally.messages > 0).collect();
    kinds.sort_by_key(|(_, tally)| std::cmp::Reverse(tally.messages));
    let rest = kinds.len().saturating_sub(KINDS);
    let mut said: Vec<_> = kinds
        .iter()
        .take(KINDS)
        .map(|(name, tally)| format!("{} {}", words::thousands(tally.messages), words::printable(name)))
        .collect();
    if rest > 0 {
        said.push(format!("{rest} more kinds"));
    }
    format!("{}, none of a call: {}", words::count(report.sip.messages, "SIP message"), said.join(", "))
}

/// Calls by the word of their state: "10 ended, 2 failed".
pub fn by_state(report: &Report) -> String {
    let mut states: BTreeMap<&str, u64> = BTreeMap::new();
    for call in &report.calls {
        *states.entry(call.call.state.word()).or_default() += 1;
    }
    let said: Vec<_> =
        states.iter().map(|(word, count)| format!("{} {word}", words::thousands(*count))).collect();
    said.join(", ")
}

/// Writes these calls.
pub(super) fn table(page: &mut Page, report: &Report, calls: &[&CallWithStreams], is_brief: bool) {
    let is_narrow = page.width() < page::WIDTH;
    let names = page.width() - if is_narrow { FEWER_FIGURES } else { FIGURES };
    let by_call = ByCall::of(&report.streams);
    page.styled(page::HEADING, &head(names, is_narrow));
    page.wrap("", 0);
    for call in calls {
        let streams = &by_call.streams_of(call);
        let line = Columns::of(call, streams).line(names, is_narrow);
        let _ = writeln!(page, "{}", line.trim_end());
        if is_brief {
            continue;
        }
        for relation in relations(call) {
            page.hang(&" ".repeat(BELOW), &format!("↳ {relation}"), BELOW + 2);
        }
        if let Some(reason) =
            call.media_absent_because.as_deref().filter(|_| streams.is_empty() && should_have_media(call))
        {
            page.styled(page::WARN, &format!("{:BELOW$}no media: ", ""));
            page.flow(BELOW + 10, &words::printable(reason), BELOW + 2);
        }
        for problem in call.problems.iter().take(MAX_PROBLEMS) {
            page.styled(page::WARN, &format!("{:BELOW$}! ", ""));
            page.flow(BELOW + 2, &words::printable(&problem.text), BELOW + 2);
        }
        if call.problems.len() > MAX_PROBLEMS {
            page.wrap(&format!("  and {} more (--json)", call.problems.len() - MAX_PROBLEMS), BELOW);
        }
    }
}

fn head(names: usize, is_narrow: bool) -> String {
    let names = cell("from → to", names);
    let text = if is_narrow {
        format!("call     {names} state      setup   talk by     lost%   p99 MOS")
    } else {
        format!("call     {names} state        PDD setup   talk by     msgs  copy again lost%   p99 MOS")
    };
    text.trim_end().to_owned()
}

/// What other calls have to do with it, and transfers of which no other call was seen.
fn relations(call: &CallWithStreams) -> Vec<String> {
    let related = call.call.related.iter().map(|related| {
        let other = words::printable(words::short_call_id(&related.call_id));
        let because = words::printable(&related.because);
        let what = match related.relation {
            Relation::TransferTarget => format!("transferred as call {other}"),
            Relation::TransferredFrom => format!("made by a transfer of call {other}"),
            Relation::Replaces => format!("takes the place of call {other}"),
            Relation::ReplacedBy => format!("call {other} takes its place"),
            Relation::B2buaLeg => format!("other leg of a B2BUA: call {other}"),
        };
        format!("{what} ({because})")
    });
    let unseen = call.call.transfers.iter().filter(|transfer| transfer.new_call.is_none());
    let transfers = unseen.map(|transfer| {
        let status = |code: Option<u16>| code.map_or_else(|| "nothing".to_owned(), |code| code.to_string());
        format!(
            "transfer to {}: REFER answered with {}, NOTIFY said {}",
            words::printable(words::party(&transfer.target)),
            status(transfer.answer),
            status(transfer.outcome)
        )
    });
    related.chain(transfers).collect()
}

/// A call that was answered should have media, and one that was never heard of again may.
fn should_have_media(call: &CallWithStreams) -> bool {
    matches!(call.call.state, CallState::Answered | CallState::Ended)
}

/// The columns of one line.
struct Columns {
    call: String,
    from: String,
    to: String,
    state: String,
    waits: [String; 3],
    by: &'static str,
    counts: [String; 3],
    media: [String; 3],
}

impl Columns {
    fn of(call: &CallWithStreams, streams: &[&StreamReport]) -> Self {
        let report = &call.call;
        let state = match (report.state, report.final_code) {
            (CallState::Failed(_), Some(code)) => format!("{} {code}", report.state.word()),
            _ => report.state.word().to_owned(),
        };
        let span = |ms: Option<f64>| ms.map_or_else(|| "-".to_owned(), words::span);
        let more =
            |count: u64| if count == 0 { "-".to_owned() } else { format!("+{}", words::compact(count)) };
        let worst = problems::worst(streams).and_then(|at| streams.get(at));
        let figure = |text: Option<String>| text.unwrap_or_else(|| "-".to_owned());
        Self {
            call: clip(&words::printable(words::short_call_id(&report.call_id)), 8),
            from: words::printable(words::party(&report.from)),
            to: words::printable(words::party(&report.to)),
            state,
            waits: [report.ringing_ms, report.setup_ms, report.talked_ms].map(span),
            by: report.ended_by.unwrap_or("-"),
            counts: [
                words::compact(report.messages),
                more(report.message_copies),
                more(report.retransmissions),
            ],
            media: [
                figure(worst.map(|stream| {
                    let bound = if stream.loss_is_upper_bound { "≤" } else { "" };
                    format!("{bound}{:.1}", stream.unique.lost_percent)
                })),
                figure(worst.and_then(|stream| Some(words::ms(stream.jitter_percentiles_us.as_ref()?.p99)))),
                figure(worst.and_then(|stream| Some(format!("{:.1}", stream.mos.as_ref()?.value)))),
            ],
        }
    }

    fn line(&self, names: usize, is_narrow: bool) -> String {
        let Self { call, state, waits: [pdd, setup, talk], by, .. } = self;
        let [messages, copies, again] = &self.counts;
        let [lost, jitter, mos] = &self.media;
        let call = cell(call, 8);
        let names = cell(&self.names(names), names);
        let (state, setup, talk) = (cell(state, 10), clip(setup, 5), clip(talk, 6));
        let media = format!("{:>5} {:>5} {mos:>3}", clip(lost, 5), clip(jitter, 5));
        if is_narrow {
            return format!("{call} {names} {state} {setup:>5} {talk:>6} {by:<6} {media}");
        }
        let counts = format!("{:>4} {:>5} {:>5}", clip(messages, 4), clip(copies, 5), clip(again, 5));
        format!("{call} {names} {state} {:>5} {setup:>5} {talk:>6} {by:<6} {counts} {media}", clip(pdd, 5))
    }

    /// Both parties; where they do not fit, the longer gives way first.
    fn names(&self, width: usize) -> String {
        let room = width.saturating_sub(3);
        let (from, to) = (page::columns(&self.from), page::columns(&self.to));
        let (from_room, to_room) = if from + to <= room {
            (from, to)
        } else {
            let half = room / 2;
            if from <= half {
                (from, room - from)
            } else if to <= room - half {
                (room - to, to)
            } else {
                (half, room - half)
            }
        };
        format!("{} → {}", clip(&self.from, from_room), clip(&self.to, to_room))
    }
}

#[cfg(test)]
#[path = "calls_tests.rs"]
mod tests;

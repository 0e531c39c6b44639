//! Why a call has no media.

use super::{Carried, end_of};
use crate::report::words;
use crate::sip::calls::{CallState, What};
use crate::sip::sdp::Direction;
use crate::sip::{CallLine, CallReport, CapturedReport, Side};

/// In words, the nearest reason first: what the call came to, what it said of media, what was left out by the probe, what was
/// captured there.
pub(super) fn because(
    call: &CallReport,
    carried: &Carried<'_>,
    left_out: Option<&str>,
    captured: CapturedReport,
) -> String {
    unanswered(call)
        .or_else(|| undescribed(call, captured))
        .or_else(|| left_out.map(str::to_owned))
        .unwrap_or_else(|| nothing_came(call, carried))
}

/// There was nothing to talk about, or nobody to.
fn unanswered(call: &CallReport) -> Option<String> {
    let is_early = call.media.lines.iter().any(|line| line.side == Side::Called);
    if is_early {
        return None;
    }
    match call.state {
        CallState::Failed(code) => Some(format!("it failed with {code} before there was any media")),
        CallState::Cancelled => Some("it was cancelled before there was any media".to_owned()),
        CallState::Inviting | CallState::Challenged => Some("no answer to its INVITE was seen".to_owned()),
        CallState::Ringing => {
            Some("it was still ringing, without early media, at the last message seen".to_owned())
        }
        CallState::Answered | CallState::Ended | CallState::LostSight => None,
    }
}

/// It announced no place where media could come to.
fn undescribed(call: &CallReport, captured: CapturedReport) -> Option<String> {
    let media = &call.media;
    if !media.lines.is_empty() {
        return None;
    }
    let bodies = |count: u32| words::count(u64::from(count), "description");
    Some(if media.descriptions == 0 && media.encoded > 0 {
        format!("its SDP is compressed ({} with Content-Encoding) and was not read", bodies(media.encoded))
    } else if media.descriptions == 0 && captured.cut > 0 {
        format!("no SDP is left of its messages: {}", words::cut(captured))
    } else if media.descriptions == 0 && call.seen_from_the_middle {
        "its beginning was not captured, and no SDP after it".to_owned()
    } else if media.descriptions == 0 {
        "no SDP was seen in its messages".to_owned()
    } else if let Some(protocol) = media.other {
        format!("it announced {} only", protocol.name())
    } else if media.without_address > 0 {
        "its SDP names no address to send to: on hold (0.0.0.0), or a host name".to_owned()
    } else if media.refused > 0 {
        "all its media lines were refused (port 0)".to_owned()
    } else {
        format!("{} read, and none has a media line", bodies(media.descriptions))
    })
}

/// It announced where, and nothing was captured there.
fn nothing_came(call: &CallReport, carried: &Carried<'_>) -> String {
    let lines = &call.media.lines;
    let other = lines.iter().find_map(|line| {
        let owner = (*carried.by_endpoint.get(&line.info.endpoint)?)?;
        (*owner != call.call_id).then_some((line, owner))
    });
    if let Some((line, owner)) = other {
        return format!(
            "what was captured at {} belongs to call {}, which announced it, too",
            line.info.endpoint,
            words::printable(words::short_call_id(owner))
        );
    }
    let places = places(lines);
    let is_held = |line: &CallLine| matches!(line.info.direction, Direction::Inactive | Direction::SendOnly);
    if !call.media.agreements.is_empty()
        && call.media.agreements.iter().all(|agreed| !agreed.caller_sends && !agreed.called_sends)
        && lines.iter().any(is_held)
    {
        return format!("it was on hold all the time ({places})");
    }
    let seen = |side| lines.iter().any(|line| line.side == side);
    let one_sided = match (seen(Side::Caller), seen(Side::Called)) {
        (true, false) => "; the SDP of the called was not seen",
        (false, true) => "; the SDP of the caller was not seen",
        _ => "",
    };
    let elsewhere = lines.iter().find(|line| carried.addresses.contains(&line.info.endpoint.address));
    let around = match elsewhere {
        Some(line) => format!("; RTP of {} goes by other ports", line.info.endpoint.ip()),
        None if carried.by_endpoint.is_empty() => "; there is no RTP in the capture at all".to_owned(),
        None => String::new(),
    };
    let lasted = match end_of(call) {
        Some((time, What::Bye)) => {
            let seconds = super::answer_of(call).map(|answered| time.since(answered) as f64 / 1e9);
            seconds.filter(|seconds| *seconds < 1.0).map_or("", |_| "; it lasted less than a second")
        }
        _ => "",
    };
    format!("nothing was captured to or from {places}{one_sided}{around}{lasted}")
}

/// "10.0.0.1:4000 and 10.0.0.2:5000", the first few.
fn places(lines: &[CallLine]) -> String {
    const MAX_PLACES: usize = 4;
    let mut names: Vec<String> = Vec::new();
    for name in lines.iter().map(|line| line.info.endpoint.to_string()) {
        if !names.contains(&name) {
            names.push(name);
        }
    }
    let more = names.len().saturating_sub(MAX_PLACES);
    names.truncate(MAX_PLACES);
    let last = if more > 0 { Some(format!("{more} more")) } else { names.pop() };
    match (names.is_empty(), last) {
        (_, None) => String::new(),
        (true, Some(last)) => last,
        (false, Some(last)) => format!("{} and {last}", names.join(", ")),
    }
}

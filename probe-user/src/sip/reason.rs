//! Why a call ended, in the words of whoever ended it.
//!
//! A Reason header says it best (RFC 3326), for that of another network, too; Asterisk says the same in
//! headers of its own. Where nobody says anything, a refusal has its reason phrase, and a BYE has nothing.

use std::sync::Arc;

use super::message::{Message, StartLine};
use super::text::{number, parameter, trim, values};

/// Characters kept of a text.
const MAX_TEXT: usize = 80;

/// What a request or response says of the end of its call; `None` if nothing.
pub(super) fn of(message: &Message<'_>) -> Option<Arc<str>> {
    given(message).or_else(|| asterisks(message)).or_else(|| match message.start {
        StartLine::Response { reason, .. } if !reason.is_empty() => Some(text(reason).into()),
        _ => None,
    })
}

/// The Reason header: Q.850's if there are several, as it says what happened behind the gateway.
fn given(message: &Message<'_>) -> Option<Arc<str>> {
    let named = message.headers().filter(|header| header.name.eq_ignore_ascii_case(b"reason"));
    let mut first = None;
    for value in named.flat_map(|header| values(header.value)) {
        let protocol = value.split(|&b| b == b';').next().map(trim).unwrap_or_default();
        let cause = parameter(value, b"cause").and_then(number::<u16>);
        let is_q850 = protocol.eq_ignore_ascii_case(b"Q.850");
        let said = parameter(value, b"text").map(text).filter(|said| !said.is_empty());
        let said = said.or_else(|| cause.filter(|_| is_q850).and_then(q850).map(str::to_owned));
        let protocol = if is_q850 { "Q.850".to_owned() } else { text(protocol) };
        let reason = match (cause, said) {
            (Some(cause), Some(said)) => format!("{protocol};cause={cause} {said}"),
            (Some(cause), None) => format!("{protocol};cause={cause}"),
            (None, Some(said)) => format!("{protocol} {said}"),
            (None, None) => continue,
        };
        if is_q850 {
            return Some(reason.into());
        }
        first = first.or(Some(reason));
    }
    first.map(Into::into)
}

/// Asterisk's own headers; its codes are those of Q.850.
fn asterisks(message: &Message<'_>) -> Option<Arc<str>> {
    let said = message.header("x-asterisk-hangupcause", None).map(text);
    let cause = message.header("x-asterisk-hangupcausecode", None).and_then(number::<u16>);
    match (cause, said) {
        (Some(cause), Some(said)) => Some(format!("Q.850;cause={cause} {said}").into()),
        (Some(cause), None) => Some(format!("Q.850;cause={cause} {}", q850(cause)?).into()),
        (None, said) => said.map(Into::into),
    }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).chars().filter(|c| !c.is_control()).take(MAX_TEXT).collect()
}

/// The names of ITU-T Q.850, 2.2.7.
fn q850(cause: u16) -> Option<&'static str> {
    Some(match cause {
        1 => "Unallocated (unassigned) number",
        2 => "No route to specified transit network",
        3 => "No route to destination",
        6 => "Channel unacceptable",
        16 => "Normal call clearing",
        17 => "User busy",
        18 => "No user responding",
        19 => "No answer from user (user alerted)",
        20 => "Subscriber absent",
        21 => "Call rejected",
        22 => "Number changed",
        23 => "Redirection to new destination",
        25 => "Exchange routing error",
        26 => "Non-selected user clearing",
        27 => "Destination out of order",
        28 => "Invalid number format (address incomplete)",
        29 => "Facility rejected",
        31 => "Normal, unspecified",
        34 => "No circuit/channel available",
        38 => "Network out of order",
        41 => "Temporary failure",
        42 => "Switching equipment congestion",
        43 => "Access information discarded",
        44 => "Requested circuit/channel not available",
        47 => "Resource unavailable, unspecified",
        50 => "Requested facility not subscribed",
        55 => "Incoming calls barred within CUG",
        57 => "Bearer capability not authorized",
        58 => "Bearer capability not presently available",
        63 => "Service or option not available, unspecified",
        65 => "Bearer capability not implemented",
        69 => "Requested facility not implemented",
        79 => "Service or option not implemented, unspecified",
        87 => "User not member of CUG",
        88 => "Incompatible destination",
        95 => "Invalid message, unspecified",
        96 => "Mandatory information element is missing",
        102 => "Recovery on timer expiry",
        111 => "Protocol error, unspecified",
        127 => "Interworking, unspecified",
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reasons_are_told_in_the_words_of_the_message() {
        let table = [
            (
                "BYE sip:a@b SIP/2.0\r\nReason: Q.850;cause=16;text=\"Normal clearing\"",
                "Q.850;cause=16 Normal clearing",
            ),
            (
                "BYE sip:a@b SIP/2.0\r\nReason: q.850 ; cause=34",
                "Q.850;cause=34 No circuit/channel available",
            ),
            (
                "CANCEL sip:a@b SIP/2.0\r\nReason: SIP;cause=200;text=\"Call completed elsewhere\"",
                "SIP;cause=200 Call completed elsewhere",
            ),
            (
                "BYE sip:a@b SIP/2.0\r\nReason: SIP;cause=480, Q.850;cause=19;text=\"x, y\"",
                "Q.850;cause=19 x, y",
            ),
            (
                "BYE sip:a@b SIP/2.0\r\nX-Asterisk-HangupCause: Normal Clearing\r\nX-Asterisk-HangupCauseCode: 16",
                "Q.850;cause=16 Normal Clearing",
            ),
            ("SIP/2.0 486 Busy Here", "Busy Here"),
            ("SIP/2.0 503 Unavailable\r\nReason: Q.850;cause=199", "Q.850;cause=199"),
        ];
        for (head, expected) in table {
            let bytes = format!("{head}\r\n\r\n");
            let reason = of(&Message::parse(bytes.as_bytes()).unwrap());
            assert_eq!(reason.as_deref(), Some(expected), "{head}");
        }
        assert_eq!(of(&Message::parse(b"BYE sip:a@b SIP/2.0\r\nReason: ;;\r\n\r\n").unwrap()), None);
        assert_eq!(of(&Message::parse(b"SIP/2.0 486\r\n\r\n").unwrap()), None);
    }
}

//! Findings about calls whose media is not as their signalling leads to expect, and about media without a call.

use super::EXAMPLES;
use crate::report::contract::{CallWithStreams, Finding, Report, Severity};
use crate::report::words;

/// One kind of what `media_findings` of a call tells: how bad, what the calls have or do, and what to do about it.
struct Kind {
    id: &'static str,
    severity: Severity,
    does: &'static str,
    advice: &'static str,
}

const KINDS: [Kind; 9] = [
    Kind {
        id: "one-way-audio",
        severity: Severity::Bad,
        does: "with audio in one direction only",
        advice: "follow the silent side: does it send (a capture next to it shows), to which address does the SDP that it got \
                 point, and does a NAT or a firewall let that through",
    },
    Kind {
        id: "one-direction-only",
        severity: Severity::Warn,
        does: "of which one direction of the audio is captured",
        advice: "capture where both directions pass (both directions of the mirror port, or both interfaces); if they do, \
                 it is one-way audio",
    },
    Kind {
        id: "no-media",
        severity: Severity::Warn,
        does: "answered without media",
        advice: "check that the capture sees the way of the media: the SDP names the addresses, and media may take another \
                 path than SIP",
    },
    Kind {
        id: "codec-mismatch",
        severity: Severity::Warn,
        does: "with packets of a payload type that was not announced",
        advice: "a receiver drops or plays noise what it did not announce: look at the answer that the sender got",
    },
    Kind {
        id: "media-after-bye",
        severity: Severity::Info,
        does: "whose media went on after the BYE",
        advice: "a gateway that does not stop keeps ports and sends into the next call on them: check that the BYE reached it",
    },
    Kind {
        id: "media-before-answer",
        severity: Severity::Info,
        does: "with media before the answer that nothing announced",
        advice: "early media needs SDP in a 183 or 180, or the caller may not play it",
    },
    Kind {
        id: "nat-rewritten-address",
        severity: Severity::Info,
        does: "whose media comes from another address than its SDP says",
        advice: "linked all the same. Who believes the SDP instead of the packets (RFC 4961) sends to nowhere: one-way audio \
                 begins here",
    },
    Kind {
        id: "asymmetric-ports",
        severity: Severity::Info,
        does: "whose media is sent from another port than it is received on",
        advice: "legal, but a NAT in between lets nothing back in",
    },
    Kind {
        id: "audio-ended-with-fax",
        severity: Severity::Info,
        does: "that turned to T.38 fax",
        advice: "",
    },
];

/// All of these.
pub(super) fn find(report: &Report) -> Vec<Finding> {
    let mut found: Vec<_> = KINDS.iter().filter_map(|kind| of_kind(report, kind)).collect();
    found.extend(without_call(report));
    found
}

fn of_kind(report: &Report, kind: &Kind) -> Option<Finding> {
    let told = |call: &CallWithStreams| {
        call.media_findings.iter().find(|found| found.id == kind.id).map(|found| found.text.clone())
    };
    let calls: Vec<_> = report.calls.iter().filter_map(|call| Some((call, told(call)?))).collect();
    let (call, text) = calls.first()?;
    Some(Finding {
        id: kind.id,
        severity: kind.severity,
        title: format!("{} {}", words::count(calls.len() as u64, "call"), kind.does),
        detail: format!("Call {}: {text}.", words::printable(words::short_call_id(&call.call.call_id))),
        advice: kind.advice.to_owned(),
        evidence: calls.iter().take(EXAMPLES).map(|(call, _)| call.call.first_frame).collect(),
    })
}

/// Where there is SIP, media that belongs to none of it.
fn without_call(report: &Report) -> Option<Finding> {
    let lonely = |stream: &&crate::report::contract::StreamReport| stream.call_id.is_none();
    let streams: Vec<_> = report.streams.iter().filter(lonely).collect();
    let first = streams.first().filter(|_| report.sip.messages > 0)?;
    Some(Finding {
        id: "media-without-call",
        severity: Severity::Info,
        title: format!(
            "{} of {} with no call",
            words::count(streams.len() as u64, "stream"),
            words::thousands(report.streams.len() as u64)
        ),
        detail: format!(
            "{} → {} {}: {}.",
            first.src,
            first.dst,
            first.ssrc,
            first.call_absent_because.as_deref().unwrap_or_default()
        ),
        advice: "capture where its signalling passes, too; each stream says for itself why it has no call"
            .to_owned(),
        evidence: Vec::new(),
    })
}

#[cfg(test)]
mod tests {
    use super::super::find;
    use crate::report::call_media::CallFinding;
    use crate::report::contract::testing::{call, report, stream};

    #[test]
    fn calls_of_one_kind_are_one_finding_with_their_frames() {
        let mut report = report(vec![stream()]);
        for frame in [7, 9] {
            let mut told = call("a84b4c76e66710");
            told.call.first_frame = frame;
            told.media_findings
                .push(CallFinding { id: "one-way-audio", text: "none of the caller".to_owned() });
            report.calls.push(told);
        }
        report.sip.messages = 4;
        let findings = find(&report);
        let found = findings.iter().find(|finding| finding.id == "one-way-audio").unwrap();
        assert_eq!(found.title, "2 calls with audio in one direction only");
        assert_eq!(
            (found.detail.as_str(), &found.evidence[..]),
            ("Call a84b4c76: none of the caller.", &[7, 9][..])
        );
        let lonely = findings.iter().find(|finding| finding.id == "media-without-call").unwrap();
        assert!(
            lonely.title.starts_with("1 stream of 1 with no call")
                && lonely.detail.ends_with("no SIP in the capture."),
            "{lonely:?}"
        );
    }
}

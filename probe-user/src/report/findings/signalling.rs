//! What signalling shows beside calls: floods, scans, refused registrations, who never answers, calls that fell silent, and
//! frames of which the half is missing.

use super::super::contract::{CallWithStreams, Finding, Report, Severity};
use super::super::words;
use crate::sip::CallState;
use crate::sip::silent::Silent;
use crate::sip::sources::{GotIn, Suspect, Suspicion};

/// Suspects named in one finding; the report lists the others.
const NAMED: usize = 3;

/// All of them.
pub(super) fn find(report: &Report) -> Vec<Finding> {
    let kinds = [Suspicion::InviteFlood, Suspicion::Scan, Suspicion::RefusedRegistrations];
    let mut findings: Vec<_> = got_in(report).into_iter().collect();
    findings.extend(kinds.into_iter().filter_map(|kind| suspects(report, kind)));
    findings.extend(lost_sight(report));
    findings.extend(defects(report));
    findings
}

/// What is not in the capture: it explains others.
pub(super) fn unheard(report: &Report) -> Vec<Finding> {
    frames_cut(report).into_iter().chain(unanswered(report)).chain(unacknowledged(report)).collect()
}

/// Calls whose answer the caller never acknowledged, as far as the called knows: it gives them up after 32 s.
fn unacknowledged(report: &Report) -> Option<Finding> {
    let told = |call: &CallWithStreams| {
        call.problems.iter().find(|problem| problem.id == "no-ack").map(|problem| problem.text.clone())
    };
    let calls: Vec<_> = report.calls.iter().filter_map(|call| Some((call, told(call)?))).collect();
    let (first, text) = calls.first()?;
    Some(Finding {
        id: "no-ack",
        severity: Severity::Bad,
        title: format!("{} of which no ACK reached the called", words::count(calls.len() as u64, "call")),
        detail: format!("Call {}: {text}.", words::short_call_id(&first.call.call_id)),
        advice: "the ACK goes where the Contact and the Record-Route of the 2xx say: see whether the caller can reach that \
                 address, or a NAT put a private one there"
            .to_owned(),
        evidence: calls.iter().take(NAMED).map(|(call, _)| call.call.first_frame).collect(),
    })
}

/// What is wrong with messages; where frames are cut, that is what is wrong.
fn defects(report: &Report) -> Option<Finding> {
    let sip = &report.sip;
    if sip.malformed + sip.defective + sip.sip_tcp_partial == 0 || sip.captured.is_most() {
        return None;
    }
    let parts = [
        (sip.defective, "SIP message", "with a defect"),
        (sip.malformed, "frame", "without a message that can be read"),
        (sip.sip_tcp_partial, "message", "over TCP that breaks off"),
    ];
    let said = parts.iter().filter(|(count, ..)| *count > 0);
    let said: Vec<_> =
        said.map(|(count, noun, what)| format!("{} {what}", words::count(*count, noun))).collect();
    let defective = sip.defects.iter().map(|one| {
        let names: Vec<_> = one.defects.names().map(|name| name.replace('_', " ")).collect();
        format!("frame {}: {}", one.frame, names.join(", "))
    });
    let unreadable = sip.unreadable.iter().map(|one| format!("frame {}: {}", one.frame, one.reason));
    let examples: Vec<_> = defective.take(NAMED).chain(unreadable.take(NAMED)).collect();
    let frames = sip.defects.iter().map(|one| one.frame).take(NAMED);
    Some(Finding {
        id: "sip-defects",
        severity: Severity::Info,
        title: said.join(", "),
        detail: format!(
            "{}Read as far as could be; a peer may refuse it.",
            if examples.is_empty() { String::new() } else { format!("{}. ", examples.join("; ")) }
        ),
        advice: "sip.defects and sip.unreadable in --json name more of them".to_owned(),
        evidence: frames.chain(sip.unreadable.iter().map(|one| one.frame).take(NAMED)).collect(),
    })
}

/// A snap length of the capture that is too short for SIP. The probe's own is told with what else it cut.
fn frames_cut(report: &Report) -> Option<Finding> {
    let captured = report.sip.captured;
    (captured.cut > 0 && report.capture.cut.is_none()).then(|| Finding {
        id: "frames-cut",
        severity: Severity::Warn,
        title: words::cut(captured),
        detail: "The capture holds their beginning only (its snap length), so headers and SDP are missing: calls, \
                 addresses of media and codecs may not be known, and what is said to be missing may have been sent."
            .to_owned(),
        advice: "capture whole frames: tcpdump -s 0, or without -s".to_owned(),
        evidence: Vec::new(),
    })
}

/// Endpoints that answered nothing at all.
fn unanswered(report: &Report) -> Option<Finding> {
    let silent = &report.sip.silent;
    let first = silent.named.first()?;
    let to = match silent.endpoints {
        1 => first.endpoint.to_string(),
        count => words::count(count, "endpoint"),
    };
    let told = |one: &Silent| {
        format!(
            "{}: {} from {}, the first {}",
            one.endpoint,
            words::count(one.requests, "request"),
            one.from,
            one.method
        )
    };
    let mut detail: Vec<String> = silent.named.iter().take(NAMED).map(told).collect();
    if silent.endpoints > NAMED as u64 {
        detail.push(format!("{} more", words::thousands(silent.endpoints - NAMED as u64)));
    }
    Some(Finding {
        id: "requests-unanswered",
        severity: Severity::Warn,
        title: format!(
            "{} to {to} {} never answered",
            words::count(silent.requests, "request"),
            if silent.requests == 1 { "was" } else { "were" }
        ),
        detail: format!(
            "{}. Not even a provisional response came, and nothing else shows that there was any. Repeats are not \
             counted.",
            detail.join("; ")
        ),
        advice: "see whether it is up, listens on that port, and gets through a firewall; if it does answer, its answers \
                 take a way that is not captured"
            .to_owned(),
        evidence: silent.named.iter().take(NAMED).map(|one| one.first_frame).collect(),
    })
}

/// Of those that guess passwords, the ones that found one.
fn got_in(report: &Report) -> Option<Finding> {
    let found: Vec<_> = (report.sip.suspects.iter())
        .filter_map(|suspect| Some((suspect, suspect.got_in.as_ref()?)))
        .collect();
    let (first, got_in) = found.first()?;
    let who = |suspect: &Suspect| {
        suspect.address.map_or_else(|| "several sources".to_owned(), |address| address.to_string())
    };
    let told = |(suspect, got_in): &(&Suspect, &GotIn)| {
        format!(
            "{}: a REGISTER for {} was accepted after {} that were not",
            who(suspect),
            got_in.user,
            words::thousands(got_in.refused_before)
        )
    };
    let detail: Vec<_> = found.iter().take(NAMED).map(told).collect();
    Some(Finding {
        id: "account-taken",
        severity: Severity::Bad,
        title: format!("{} got into the account {}", who(first), got_in.user),
        detail: format!("{}. A password was guessed, or its owner found it at last.", detail.join("; ")),
        advice:
            "change the password of the account, look for calls that were made with it, and block the source"
                .to_owned(),
        evidence: found.iter().take(NAMED).map(|(_, got_in)| got_in.frame).collect(),
    })
}

fn suspects(report: &Report, kind: Suspicion) -> Option<Finding> {
    let suspects: Vec<&Suspect> = report.sip.suspects.iter().filter(|one| one.kind == kind).collect();
    let first = suspects.first()?;
    let mut detail: Vec<String> = suspects.iter().take(NAMED).map(|suspect| told(suspect)).collect();
    if suspects.len() > NAMED {
        detail.push(format!("{} more", suspects.len() - NAMED));
    }
    let (id, severity, title, advice) = match kind {
        Suspicion::InviteFlood => (
            "invite-flood",
            Severity::Bad,
            format!(
                "INVITE flood: {} calls began in one second",
                words::thousands(first.peak_calls_per_s.into())
            ),
            "block the source at the edge, and limit INVITEs per source there; calls that made room are missing in this report",
        ),
        Suspicion::Scan => (
            "sip-scan",
            Severity::Warn,
            format!("{} scanning for users", words::count(suspects.len() as u64, "source")),
            "block the source at the edge; if it is a monitor of your own, let it ask for users that exist",
        ),
        Suspicion::RefusedRegistrations => (
            "registrations-refused",
            Severity::Warn,
            format!(
                "registrations from {} are refused again and again",
                words::count(suspects.len() as u64, "source")
            ),
            "one user: its password is wrong; many users, or a source that you do not know: passwords are being guessed, block it",
        ),
    };
    let evidence = suspects.iter().take(NAMED).map(|suspect| suspect.first_frame).collect();
    Some(Finding {
        id,
        severity,
        title,
        detail: format!("{}.", detail.join("; ")),
        advice: advice.to_owned(),
        evidence,
    })
}

fn told(suspect: &Suspect) -> String {
    let who = suspect.address.map_or_else(
        || format!("about {} sources together", words::thousands(suspect.users)),
        |address| address.to_string(),
    );
    let agent = suspect.user_agent.as_deref().map(|name| format!(" ({})", words::printable(name)));
    let who = format!("{who}{}", agent.unwrap_or_default());
    let count = words::thousands;
    match suspect.kind {
        Suspicion::InviteFlood => format!(
            "{who}: {} calls, up to {} in one second, {} of its requests accepted; {} calls that were not over had to make room",
            count(suspect.calls),
            count(suspect.peak_calls_per_s.into()),
            count(suspect.accepted),
            count(suspect.made_room),
        ),
        Suspicion::Scan => format!(
            "{who}: {} requests for about {} users, {} accepted, {} refused, {} asked for credentials",
            count(suspect.requests),
            count(suspect.users),
            count(suspect.accepted),
            count(suspect.refused),
            count(suspect.challenged),
        ),
        Suspicion::RefusedRegistrations => format!(
            "{who}: {} requests for about {} users, {} accepted, {} asked for credentials, {} refused",
            count(suspect.requests),
            count(suspect.users),
            count(suspect.accepted),
            count(suspect.challenged),
            count(suspect.refused),
        ),
    }
}

fn lost_sight(report: &Report) -> Option<Finding> {
    // Times that calls were given up are not calls: one may come back, and be given up again.
    let mut lost = report.calls.iter().filter(|call| call.call.state == CallState::LostSight);
    let first = lost.next()?;
    Some(Finding {
        id: "calls-lost-sight",
        severity: Severity::Info,
        title: format!("{} neither ended nor heard of any more", words::count(1 + lost.count() as u64, "call")),
        detail: "Unanswered calls are given up after 5 minutes without SIP, answered ones after 30 minutes without SIP and \
                 media, or after their Session-Expires."
            .to_owned(),
        advice: "look whether BYE takes another path than INVITE (no Record-Route), or was lost by the capture".to_owned(),
        evidence: vec![first.call.first_frame],
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::packet::Endpoint;
    use crate::report::call_media::CallFinding;
    use crate::report::contract::testing::{call, report};
    use crate::sip::CapturedReport;
    use crate::sip::message::Malformed;
    use crate::sip::silent::SilentReport;
    use crate::sip::totals::{Defective, Unreadable};

    #[test]
    fn who_never_answers_is_named_with_what_was_asked() {
        let silent = |host: u8| Silent {
            endpoint: Endpoint::v4([10, 0, 0, host], 5060),
            from: Endpoint::v4([10, 0, 0, 1], 5060),
            method: "INVITE".into(),
            requests: 3,
            first_frame: host.into(),
        };
        let mut report = report(Vec::new());
        assert_eq!(unheard(&report), []);
        report.sip.silent = SilentReport { endpoints: 1, requests: 3, named: vec![silent(2)] };
        let found = unheard(&report).remove(0);
        assert_eq!(found.title, "3 requests to 10.0.0.2:5060 were never answered");
        assert!(found.detail.starts_with("10.0.0.2:5060: 3 requests from 10.0.0.1:5060, the first INVITE. "));
        let named = (2..7).map(silent).collect();
        report.sip.silent = SilentReport { endpoints: 5, requests: 15, named };
        let found = unheard(&report).remove(0);
        assert_eq!((found.id, &found.evidence[..]), ("requests-unanswered", &[2, 3, 4][..]));
        assert_eq!(found.title, "15 requests to 5 endpoints were never answered");
        assert!(found.detail.contains("; 2 more. "), "{}", found.detail);
    }

    #[test]
    fn what_is_wrong_with_messages_is_told_with_its_frames_unless_the_capture_cut_them() {
        let mut report = report(Vec::new());
        (report.sip.defective, report.sip.malformed) = (2, 1);
        let message =
            crate::sip::message::Message::parse(b"OPTIONS sip:a SIP/2.0\r\nno colon\r\n\r\n").unwrap();
        report.sip.defects.push(Defective { frame: 7, defects: message.defects });
        report.sip.unreadable.push(Unreadable { frame: 9, reason: Malformed::KeepAlive });
        let found = find(&report).remove(0);
        assert_eq!((found.id, &found.evidence[..]), ("sip-defects", &[7, 9][..]));
        assert_eq!(found.title, "2 SIP messages with a defect, 1 frame without a message that can be read");
        assert!(found.detail.contains("frame 7: missing header, ") && found.detail.contains("not a header"));
        report.sip.captured = CapturedReport { frames: 3, cut: 3, cut_at_bytes: 158 };
        assert_eq!(find(&report), []);
    }

    #[test]
    fn a_source_that_got_in_is_worse_than_one_that_tries() {
        let mut report = report(Vec::new());
        report.sip.suspects.push(Suspect {
            kind: Suspicion::RefusedRegistrations,
            address: Some([203, 0, 113, 9].into()),
            user_agent: None,
            first_frame: 1,
            requests: 100,
            users: 1,
            accepted: 1,
            refused: 0,
            challenged: 99,
            calls: 0,
            peak_calls_per_s: 0,
            made_room: 0,
            got_in: Some(GotIn { frame: 200, user: "sip:100@pbx".into(), refused_before: 99 }),
        });
        let found = find(&report);
        let told: Vec<_> = found.iter().map(|found| (found.id, found.severity)).collect();
        assert_eq!(told, [("account-taken", Severity::Bad), ("registrations-refused", Severity::Warn)]);
        assert_eq!(found[0].title, "203.0.113.9 got into the account sip:100@pbx");
        assert_eq!(found[0].evidence, [200]);
    }

    #[test]
    fn calls_that_were_lost_sight_of_are_counted_not_the_times() {
        let mut report = report(Vec::new());
        report.sip.calls_lost_sight = 3;
        assert_eq!(find(&report), []);
        let mut lost = call("a");
        lost.call.state = CallState::LostSight;
        report.calls.push(lost);
        assert_eq!(find(&report)[0].title, "1 call neither ended nor heard of any more");
    }

    #[test]
    fn calls_without_an_ack_are_one_finding() {
        let mut report = report(Vec::new());
        let mut unheard_of = call("a");
        unheard_of.problems.push(CallFinding { id: "no-ack", text: "no ACK".to_owned() });
        report.calls.push(unheard_of);
        let found = unheard(&report).remove(0);
        assert_eq!((found.id, found.severity), ("no-ack", Severity::Bad));
        assert_eq!(found.title, "1 call of which no ACK reached the called");
    }

    #[test]
    fn a_snap_length_too_short_for_sip_is_told() {
        let mut report = report(Vec::new());
        report.sip.captured = CapturedReport { frames: 306, cut: 6, cut_at_bytes: 158 };
        let found = unheard(&report).remove(0);
        assert_eq!((found.id, found.severity), ("frames-cut", Severity::Warn));
        assert_eq!(found.title, "6 of 306 SIP frames are cut after 158 bytes of SIP");
    }
}

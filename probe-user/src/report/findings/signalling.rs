//! What signalling shows beside calls: floods, scans, refused registrations, calls that fell silent.

use super::super::contract::{Finding, Report, Severity};
use super::super::words;
use crate::sip::sources::{Suspect, Suspicion};

/// Suspects named in one finding; the report lists the others.
const NAMED: usize = 3;

/// All of them.
pub(super) fn find(report: &Report) -> Vec<Finding> {
    let kinds = [Suspicion::InviteFlood, Suspicion::Scan, Suspicion::RefusedRegistrations];
    let mut findings: Vec<_> = kinds.into_iter().filter_map(|kind| suspects(report, kind)).collect();
    findings.extend(lost_sight(report));
    findings
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
    let lost = report.sip.calls_lost_sight;
    let first = report.calls.iter().find(|call| call.call.state == crate::sip::CallState::LostSight);
    (lost > 0).then(|| Finding {
        id: "calls-lost-sight",
        severity: Severity::Info,
        title: format!("{} neither ended nor heard of any more", words::count(lost, "call")),
        detail: "Unanswered calls are given up after 5 minutes without SIP, answered ones after 30 minutes without SIP and \
                 media, or after their Session-Expires."
            .to_owned(),
        advice: "look whether BYE takes another path than INVITE (no Record-Route), or was lost by the capture".to_owned(),
        evidence: first.map(|call| call.call.first_frame).into_iter().collect(),
    })
}

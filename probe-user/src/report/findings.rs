//! From figures to sentences: what was found, what it means, what to do.
//!
//! Written for somebody who, as the author of the story put it, "does not have a ton of experience with VoIP".
//! Every finding names the frames that prove it.

use super::contract::{Finding, InterruptionReport, Report, Severity, StreamReport};
use super::health::StreamEntry;
use super::words;
use crate::dedup::stats::{CauseReport, CopyStats};
use crate::pipeline::Loss;

/// Copies a packet, beyond the first, from which "every frame" is said.
const MOST: f64 = 0.5;
/// Loss that is heard, in percent.
const AUDIBLE_LOSS: f64 = 1.0;
/// Examples named in one finding.
const EXAMPLES: usize = 6;

/// All findings of a report, worst first; what explains others comes before what it explains.
pub fn find(report: &Report) -> Vec<Finding> {
    let mut findings = Vec::new();
    findings.extend(lost_by_the_probe(report));
    findings.extend(frames_copied(report));
    findings.extend(copies_not_retransmissions(report));
    findings.extend(packets_lost(report));
    findings.extend(retransmissions(report));
    findings.extend(interrupted(report));
    findings.extend(authentication(report));
    findings.extend(fragments_incomplete(report));
    findings.extend(nothing_there(report));
    findings.sort_by_key(|finding| std::cmp::Reverse(finding.severity));
    findings
}

/// Adds up copies of streams and of SIP. The counts are of the same kind: frames beyond a first.
fn copied(
    streams: &[StreamReport],
    sip: (u64, u64),
    sip_causes: &[CauseReport],
) -> (u64, u64, Vec<CauseReport>) {
    let packets = streams.iter().map(|stream| stream.unique.packets).sum::<u64>() + sip.0;
    let copies = streams.iter().map(|stream| stream.duplicates.total).sum::<u64>() + sip.1;
    let all = streams.iter().flat_map(|stream| &stream.duplicates.causes).chain(sip_causes);
    (packets, copies, CopyStats::sum_up(all))
}

fn frames_copied(report: &Report) -> Option<Finding> {
    let sip = &report.sip;
    let (packets, copies, causes) = copied(&report.streams, (sip.messages, sip.copies), &sip.causes);
    if copies == 0 || packets == 0 {
        return None;
    }
    let ratio = copies as f64 / packets as f64;
    let examples =
        causes.iter().flat_map(|cause| &cause.examples).flat_map(|(a, b)| [*a, *b]).take(EXAMPLES).collect();
    let kinds: Vec<_> = causes
        .iter()
        .map(|cause| format!("{} copies {}", words::thousands(cause.count), words::cause(cause)))
        .collect();
    let meaning =
        causes.first().map(|cause| format!(" That means: {}.", cause.cause.meaning())).unwrap_or_default();
    let advice = causes.first().map(advice).unwrap_or_default();
    let (id, title, severity) = if ratio >= MOST {
        let title = format!("each frame was captured {}", words::times(1.0 + ratio));
        ("every-frame-copied", title, Severity::Warn)
    } else {
        let title = format!(
            "{} of {} packets were captured more than once",
            words::thousands(copies),
            words::thousands(packets)
        );
        ("some-frames-copied", title, Severity::Info)
    };
    Some(Finding {
        id,
        severity,
        title,
        detail: format!(
            "{}.{meaning} This is the capture, not the network: no congestion, no retransmission. \
             Loss and jitter below are computed after the copies were removed.",
            kinds.join("; ")
        ),
        advice,
        evidence: examples,
    })
}

/// What to do about copies. Those that one host shows arriving and leaving were asked for.
fn advice(cause: &CauseReport) -> String {
    if cause.differs.names().any(|name| name == "direction") {
        return "the capture watches what arrives and what leaves: without --egress each frame shows once"
            .to_owned();
    }
    cause.cause.advice().to_owned()
}

/// What a running probe says as soon as it sees that most frames come more than once.
pub fn live_copies(lines: &[StreamEntry]) -> Option<Finding> {
    let packets: u64 = lines.iter().map(|line| line.packets).sum();
    let frames: u64 = lines.iter().map(|line| line.frames).sum();
    let ratio = frames as f64 / packets.max(1) as f64;
    if packets == 0 || ratio < 1.0 + MOST {
        return None;
    }
    let causes = CopyStats::sum_up(lines.iter().flat_map(|line| &line.causes));
    let main = causes.first()?;
    Some(Finding {
        id: "every-frame-copied",
        severity: Severity::Warn,
        title: format!("each frame is captured {}", words::times(ratio)),
        detail: format!(
            "{}: {}. The streams' figures have copies removed.",
            words::cause(main),
            main.cause.meaning()
        ),
        advice: advice(main),
        // Live, there is no file in which anybody could look up a frame.
        evidence: Vec::new(),
    })
}

fn copies_not_retransmissions(report: &Report) -> Option<Finding> {
    let sip = &report.sip;
    if sip.copies == 0 {
        return None;
    }
    Some(Finding {
        id: "copies-not-retransmissions",
        severity: Severity::Info,
        title: format!(
            "{} repeated SIP frames are copies, not retransmissions",
            words::thousands(sip.copies)
        ),
        detail: format!(
            "{} SIP messages were sent; {} of them repeat an earlier one by a timer. A retransmission comes 500 ms \
             or more after the message it repeats (RFC 3261, timers A, E and G), a copy within microseconds.",
            words::thousands(sip.messages),
            words::thousands(sip.retransmissions),
        ),
        advice: String::new(),
        evidence: sip
            .causes
            .iter()
            .flat_map(|cause| &cause.examples)
            .flat_map(|(a, b)| [*a, *b])
            .take(EXAMPLES)
            .collect(),
    })
}

fn packets_lost(report: &Report) -> Option<Finding> {
    let lossy: Vec<_> = report
        .streams
        .iter()
        .filter(|stream| stream.unique.lost_percent >= AUDIBLE_LOSS && !stream.loss_is_upper_bound)
        .collect();
    let worst = lossy.iter().max_by(|a, b| a.unique.lost_percent.total_cmp(&b.unique.lost_percent))?;
    Some(Finding {
        id: "packets-lost",
        severity: Severity::Bad,
        title: format!("{} lost packets that a listener hears", words::count(lossy.len() as u64, "stream")),
        detail: format!(
            "Worst: {} → {}, {} of {} packets ({:.1} %), copies removed.",
            worst.src,
            worst.dst,
            words::thousands(worst.unique.lost.unsigned_abs()),
            words::thousands(worst.unique.expected),
            worst.unique.lost_percent,
        ),
        advice: "compare with a capture nearer to the sender: where the loss begins is where to look"
            .to_owned(),
        evidence: vec![worst.unique.delta_ms.max_packet],
    })
}

fn retransmissions(report: &Report) -> Option<Finding> {
    let sip = &report.sip;
    let calls = report.calls.iter().filter(|of| of.call.retransmissions > 0).count();
    (sip.retransmissions > 0).then(|| Finding {
        id: "real-retransmissions",
        severity: Severity::Warn,
        title: format!("{} SIP messages were really sent again", words::thousands(sip.retransmissions)),
        detail: format!(
            "In {}. The sender's timer ran out before an answer came (RFC 3261, 17).",
            words::count(calls as u64, "call")
        ),
        advice: "look for loss or a slow answer on the way to whoever should have answered".to_owned(),
        evidence: Vec::new(),
    })
}

fn interrupted(report: &Report) -> Option<Finding> {
    let longest = report
        .streams
        .iter()
        .flat_map(|stream| stream.interruptions.iter().map(move |gap| (stream, gap)))
        .filter(|(_, found)| found.gap.is_silence())
        .max_by(|(_, a), (_, b)| a.gap.silence_s.total_cmp(&b.gap.silence_s))?;
    let (stream, InterruptionReport { gap, began_at }) = longest;
    let interrupted =
        |stream: &&StreamReport| stream.interruptions.iter().any(|found| found.gap.is_silence());
    let count = report.streams.iter().filter(interrupted).count() as u64;
    let why = if gap.missing == 0 {
        "No sequence number is missing across it: the sender paused, as at hold or transfer, and nothing was lost."
    } else if stream.loss_is_upper_bound {
        "Sequence numbers are missing across it, but the probe itself lost frames and may have made the hole."
    } else {
        "Sequence numbers are missing across it: the packets were sent and did not arrive here."
    };
    if let Some(moment) = began_at {
        return Some(Finding {
            id: "gap-at-transfer",
            severity: if gap.missing == 0 { Severity::Info } else { Severity::Warn },
            title: format!("{:.2} s without packets, begun at {}", gap.silence_s, moment.event),
            detail: format!(
                "{} → {}, call {}: the last packet before it came {:.0} ms {} the {} (frame {}). {why}",
                stream.src,
                stream.dst,
                words::printable(words::short_call_id(stream.call_id.as_deref().unwrap_or("-"))),
                moment.after_ms.abs(),
                if moment.after_ms < 0.0 { "before" } else { "after" },
                moment.event,
                moment.frame,
            ),
            advice: "what is heard there is the transfer itself: music on hold, or silence if there is none"
                .to_owned(),
            evidence: vec![moment.frame, gap.packet],
        });
    }
    Some(Finding {
        id: "stream-interrupted",
        severity: if gap.missing == 0 || stream.loss_is_upper_bound {
            Severity::Info
        } else {
            Severity::Warn
        },
        title: format!(
            "{} with pauses, the longest of {:.2} s",
            words::count(count, "stream"),
            gap.silence_s
        ),
        detail: format!("{} → {}. {why}", stream.src, stream.dst),
        advice: String::new(),
        evidence: vec![gap.packet],
    })
}

fn authentication(report: &Report) -> Option<Finding> {
    let challenges = report.sip.auth_challenges;
    (challenges > 0).then(|| Finding {
        id: "authentication-retry",
        severity: Severity::Info,
        title: format!("{}: ordinary", words::count(challenges, "authentication challenge")),
        detail: "A 401 or 407 asks the caller for credentials; the same request follows with them and a new CSeq. \
                 It is neither an error nor a retransmission."
            .to_owned(),
        advice: String::new(),
        evidence: Vec::new(),
    })
}

fn lost_by_the_probe(report: &Report) -> Option<Finding> {
    let own = || Loss::ALL.into_iter().filter(|loss| loss.is_own());
    let count = |loss: &Loss| report.capture.losses.get(loss.name()).copied().unwrap_or(0);
    let lost: u64 = own().map(|loss| count(&loss)).sum();
    let worst = own().max_by_key(count)?;
    (lost > 0).then(|| Finding {
        id: "loss-made-by-the-capture",
        severity: Severity::Bad,
        title: format!("the probe itself lost {} frames", words::thousands(lost)),
        detail: format!(
            "Of {} matched; most of them under \"{}\". Packets missing from streams may be among them, so their loss \
             ({} streams) is an upper bound and is not held against the network.",
            words::thousands(report.capture.matched),
            worst.name(),
            report.streams.iter().filter(|stream| stream.loss_is_upper_bound).count(),
        ),
        advice: worst.advice().to_owned(),
        evidence: Vec::new(),
    })
}

fn fragments_incomplete(report: &Report) -> Option<Finding> {
    let lost = report.capture.losses.get(Loss::FragmentIncomplete.name()).copied().unwrap_or(0);
    (lost > 0).then(|| Finding {
        id: "fragments-incomplete",
        severity: Severity::Info,
        title: format!("{} belong to datagrams that never became whole", words::count(lost, "IP fragment")),
        detail: "The other parts are not in the capture; SIP in them, if it was SIP, is missing here."
            .to_owned(),
        advice: Loss::FragmentIncomplete.advice().to_owned(),
        evidence: Vec::new(),
    })
}

fn nothing_there(report: &Report) -> Option<Finding> {
    let quiet = report.streams.is_empty() && report.sip.messages == 0;
    quiet.then(|| Finding {
        id: "nothing-found",
        severity: Severity::Info,
        title: "no SIP and no RTP in here".to_owned(),
        detail: format!("{} frames were read.", words::thousands(report.capture.packets)),
        advice: "check the SIP ports (--sip-ports); RTP without SIP on unusual ports needs --rtp any"
            .to_owned(),
        evidence: Vec::new(),
    })
}

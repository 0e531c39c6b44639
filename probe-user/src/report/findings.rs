//! From figures to sentences: what was found, what it means, what to do.
//!
//! Written for somebody who, as the author of the story put it, "does not have a ton of experience with VoIP".
//! Every finding names the frames that prove it.

mod calls;
mod capture;
mod copies;
mod lacking;
mod quality;
mod signalling;

pub(super) use self::copies::{CopiedLines, live as live_copies};

use probe_ebpf::Verdict;

use super::contract::{Finding, Report, Severity, StreamReport};
use super::forensics::Cause;
use super::troubles::InterruptionReport;
use super::{media_findings, words};
use crate::pipeline::Loss;

/// Examples named in one finding.
const EXAMPLES: usize = 6;
/// Verdicts named where nothing was found.
const VERDICTS: usize = 4;

/// Loss that is heard, in percent.
const AUDIBLE_LOSS: f64 = 1.0;
/// Loss that hurts whatever the codec does about it, in percent.
const BAD_LOSS: f64 = 3.0;
/// Below, many listeners are dissatisfied (ITU-T G.109).
const BAD_MOS: f64 = 4.0;
/// Packets that should have come, from which a share of loss is one that somebody hears: a second of speech.
const HEARD_PACKETS: u64 = 50;
/// Frames that do not fit their stream, in percent of its frames, from which the stream is in doubt.
const DOUBTFUL_FRAMES: f64 = 1.0;

/// All findings of a report, worst first; what explains others comes before what it explains.
pub fn find(report: &Report) -> Vec<Finding> {
    let mut findings = Vec::new();
    findings.extend(account_does_not_balance(report));
    findings.extend(lost_by_the_probe(report));
    findings.extend(shed_by_the_probe(report));
    findings.extend(frames_cut(report));
    findings.extend(super::remote::dropped(report));
    findings.extend(signalling::unheard(report));
    findings.extend(capture::find(report));
    findings.extend(copies::find(report));
    findings.extend(lacking::find(report));
    findings.extend(packets_lost(report));
    findings.extend(interrupted(report));
    findings.extend(calls::find(report));
    findings.extend(quality::find(report));
    findings.extend(same_number_other_content(report));
    findings.extend(packets_not_placed(report));
    findings.extend(credentials_refused(report));
    findings.extend(authentication(report));
    findings.extend(signalling::find(report));
    findings.extend(media_findings::find(report));
    findings.extend(fragments_incomplete(report));
    findings.extend(nothing_there(report));
    findings.sort_by_key(|finding| std::cmp::Reverse(finding.severity));
    findings
}

fn packets_lost(report: &Report) -> Option<Finding> {
    let is_lossy = |stream: &&StreamReport| {
        stream.lost_on_the_way_percent() >= AUDIBLE_LOSS
            && !stream.loss_is_upper_bound
            && !media_findings::is_lost_by_the_capture(stream)
    };
    let (heard, brief): (Vec<_>, Vec<_>) =
        report.streams.iter().filter(is_lossy).partition(|stream| stream.unique.expected >= HEARD_PACKETS);
    let (streams, what) = if heard.is_empty() {
        (&brief, "lost packets")
    } else {
        (&heard, "lost packets that a listener hears")
    };
    let percent = |stream: &StreamReport| stream.lost_on_the_way_percent();
    let worst = streams.iter().max_by(|a, b| percent(a).total_cmp(&percent(b)))?;
    let is_bad = |stream: &&StreamReport| {
        percent(stream) >= BAD_LOSS || stream.mos.as_ref().is_some_and(|mos| mos.value < BAD_MOS)
    };
    let severity = if heard.iter().any(is_bad) { Severity::Bad } else { Severity::Warn };
    let also = if heard.is_empty() || brief.is_empty() {
        String::new()
    } else {
        format!(
            " {} of less than {HEARD_PACKETS} packets lost some, too.",
            words::count(brief.len() as u64, "stream")
        )
    };
    let after = worst.unique.delta_ms.max_packet;
    Some(Finding {
        id: "packets-lost",
        severity,
        title: format!("{} {what}", words::count(streams.len() as u64, "stream")),
        detail: format!(
            "Worst: {} → {}, {} of {} packets ({:.1} %), copies removed.{also}",
            worst.src,
            worst.dst,
            words::thousands(worst.lost_on_the_way()),
            words::thousands(worst.unique.expected.saturating_sub(worst.excused)),
            percent(worst),
        ),
        advice: "compare with a capture nearer to the sender: where the loss begins is where to look"
            .to_owned(),
        // 0: no packet came after another.
        evidence: if after == 0 { Vec::new() } else { vec![after] },
    })
}

fn interrupted(report: &Report) -> Option<Finding> {
    let is_told = |found: &InterruptionReport| {
        found.gap.is_silence() && found.explanation.cause != Cause::CapturePaused
    };
    let worst = report
        .streams
        .iter()
        .flat_map(|stream| stream.interruptions.iter().map(move |gap| (stream, gap)))
        .filter(|(_, found)| is_told(found))
        .max_by(|(_, a), (_, b)| {
            let ((a_lost, a_long), (b_lost, b_long)) = (a.gap.weight(), b.gap.weight());
            a_lost.cmp(&b_lost).then(a_long.total_cmp(&b_long))
        })?;
    let (stream, InterruptionReport { gap, explanation, .. }) = worst;
    let interrupted = |stream: &&StreamReport| stream.interruptions.iter().any(is_told);
    let count = report.streams.iter().filter(interrupted).count() as u64;
    let is_pause = explanation.is_pause();
    let because = &explanation.because;
    let severity = if is_pause || own_losses(report) > 0 { Severity::Info } else { Severity::Warn };
    let near = [("began", &explanation.began_at), ("ended", &explanation.ended_at)];
    let near = near.iter().filter_map(|(verb, moment)| Some((verb, moment.as_ref()?)));
    let said: Vec<_> = near
        .clone()
        .map(|(verb, moment)| format!("{verb} {} (frame {})", moment.phrase(), moment.frame))
        .collect();
    let evidence = near.map(|(_, moment)| moment.frame).chain([gap.packet]).collect();
    let who = format!("{} → {}", stream.src, stream.dst);
    let Some(moment) = &explanation.began_at else {
        return Some(Finding {
            id: "stream-interrupted",
            severity,
            title: format!(
                "{} with {}, the {} of {}",
                words::count(count, "stream"),
                if is_pause { "pauses" } else { "interruptions" },
                if is_pause { "longest" } else { "worst" },
                words::silence(gap.silence_s)
            ),
            detail: format!("{}: {because}.", [who].into_iter().chain(said).collect::<Vec<_>>().join(", ")),
            advice: String::new(),
            evidence,
        });
    };
    let advice = match explanation.cause {
        Cause::Hold => "who is held hears music only if the PBX sends some: look at its music on hold",
        _ if is_pause => {
            "what is heard there is the transfer itself: music on hold, or silence if there is none"
        }
        _ => "",
    };
    Some(Finding {
        id: "gap-at-transfer",
        severity,
        title: format!("{} without packets, begun at the {}", words::silence(gap.silence_s), moment.name()),
        detail: format!(
            "{who}, call {}, {}: {because}.",
            words::printable(words::short_call_id(stream.call_id.as_deref().unwrap_or("-"))),
            said.join(", "),
        ),
        advice: advice.to_owned(),
        evidence,
    })
}

/// Frames that do not fit their streams: how many, in how many streams, and the stream with the largest share.
fn misfits(report: &Report, of: fn(&StreamReport) -> u64) -> Option<(u64, u64, &StreamReport, f64)> {
    let share = |stream: &StreamReport| of(stream) as f64 * 100.0 / stream.raw.packets.max(1) as f64;
    let concerned: Vec<_> = report.streams.iter().filter(|stream| of(stream) > 0).collect();
    let worst = concerned.iter().copied().max_by(|a, b| share(a).total_cmp(&share(b)))?;
    Some((concerned.iter().map(|stream| of(stream)).sum(), concerned.len() as u64, worst, share(worst)))
}

fn doubt(percent: f64) -> Severity {
    if percent > DOUBTFUL_FRAMES { Severity::Warn } else { Severity::Info }
}

fn same_number_other_content(report: &Report) -> Option<Finding> {
    let (frames, streams, worst, percent) = misfits(report, |stream| stream.conflicts)?;
    Some(Finding {
        id: "same-number-other-content",
        severity: doubt(percent),
        title: format!("{} came under a number that was taken", words::count(frames, "frame")),
        detail: format!(
            "In {}, with another timestamp, payload type, length or payload than the packet that came first under it: \
             no copies. Worst: {} → {} {}, {percent:.1} % of its frames. Two senders share an SSRC, or something \
             between two capture points rewrites the payload (encrypts, transcodes).",
            words::count(streams, "stream"),
            worst.src,
            worst.dst,
            worst.ssrc,
        ),
        advice: format!(
            "in Wireshark, sort rtp.ssrc == {} by rtp.seq and compare two of a number",
            worst.ssrc
        ),
        evidence: Vec::new(),
    })
}

fn packets_not_placed(report: &Report) -> Option<Finding> {
    let (frames, streams, worst, percent) = misfits(report, |stream| stream.unplaced)?;
    Some(Finding {
        id: "packets-not-placed",
        severity: doubt(percent),
        title: format!("{} have no place in their streams", words::count(frames, "frame")),
        detail: format!(
            "In {}: the sequence number is too far off to be believed, or came too late to be told from a copy. They \
             count as received in \"captured\" only. Worst: {} → {} {}, {percent:.1} % of its frames.",
            words::count(streams, "stream"),
            worst.src,
            worst.dst,
            worst.ssrc,
        ),
        advice:
            "look for two senders with one SSRC, or for a second capture point that lags by more than 2 s"
                .to_owned(),
        evidence: Vec::new(),
    })
}

fn account_does_not_balance(report: &Report) -> Option<Finding> {
    let capture = &report.capture;
    let lost: u64 = capture.losses.values().sum();
    let found = capture.analysed.saturating_add(lost);
    (capture.matched != found).then(|| Finding {
        id: "account-does-not-balance",
        severity: Severity::Bad,
        title: format!(
            "{} are unaccounted for",
            words::count(capture.matched.abs_diff(found), "matched frame")
        ),
        detail: format!(
            "{} were matched, but {} analysed and {} lost under a name. The probe has an error, and no figure of this \
             report can be relied on.",
            words::thousands(capture.matched),
            words::thousands(capture.analysed),
            words::thousands(lost),
        ),
        advice: "please report this, with the capture if it may be shared".to_owned(),
        evidence: Vec::new(),
    })
}

/// 401 and 407 that led to nothing.
fn credentials_refused(report: &Report) -> Option<Finding> {
    let refused = report.sip.auth_refused;
    (refused.requests > 0).then(|| Finding {
        id: "credentials-refused",
        severity: Severity::Warn,
        title: format!(
            "credentials of {} are refused again and again",
            words::count(refused.requests, "request")
        ),
        detail: format!(
            "{} came, twice or more each in answer to credentials, and no other final answer: the caller or phone does \
             not get in.",
            words::count(refused.challenges, "challenge"),
        ),
        advice: "compare user, password and realm on both sides; whoever guesses passwords looks the same".to_owned(),
        evidence: refused.first_frame.into_iter().collect(),
    })
}

fn authentication(report: &Report) -> Option<Finding> {
    let guessed: u64 = report.sip.suspects.iter().map(|suspect| suspect.challenged).sum();
    let refused = report.sip.auth_refused.challenges.max(guessed);
    let challenges = report.sip.auth_challenges.saturating_sub(refused);
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

/// Frames that the probe itself lost.
fn own_losses(report: &Report) -> u64 {
    let count = |loss: Loss| report.capture.losses.get(loss.name()).copied().unwrap_or(0);
    Loss::ALL.into_iter().filter(|loss| loss.is_own()).map(count).sum()
}

fn lost_by_the_probe(report: &Report) -> Option<Finding> {
    let own = || Loss::ALL.into_iter().filter(|loss| loss.is_own());
    let count = |loss: &Loss| report.capture.losses.get(loss.name()).copied().unwrap_or(0);
    let lost = own_losses(report);
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

/// Media sessions that were left out because the probe did not keep up.
fn shed_by_the_probe(report: &Report) -> Option<Finding> {
    let shedding = report.capture.shedding.as_ref()?;
    let frames = report.capture.losses.get(Loss::Shed.name()).copied().unwrap_or(0);
    Some(Finding {
        id: "shed-by-probe",
        severity: Severity::Warn,
        title: format!(
            "the probe was overloaded and left out up to {:.0} % of the media sessions",
            shedding.highest_percent
        ),
        detail: format!(
            "For {:.1} s in all, {} of RTP, whole sessions. {} listed here were shed for a time: each has what was seen of \
             it, no score, and no loss is held against the network. What was not shed is complete, and so are SIP and RTCP.",
            shedding.seconds,
            words::count(frames, "frame"),
            words::count(shedding.streams, "stream"),
        ),
        advice: Loss::Shed.advice().to_owned(),
        evidence: Vec::new(),
    })
}

/// Whole frames that `--snap` cut.
fn frames_cut(report: &Report) -> Option<Finding> {
    let cut = report.capture.cut?;
    Some(Finding {
        id: "frames-cut",
        severity: if cut.sip_frames > 0 { Severity::Warn } else { Severity::Info },
        title: format!(
            "{} longer than {} bytes were cut, {} with SIP",
            words::count(cut.frames, "frame"),
            words::thousands(u64::from(cut.snap_bytes)),
            words::thousands(cut.sip_frames)
        ),
        detail: "What comes after the cut is not known: of SIP the end of the SDP, or all of it, so media may have no call; \
                 of a fragment the rest of its datagram; of a tunnel what its last bytes carry."
            .to_owned(),
        advice: if cut.sip_frames > 0 { "raise --snap".to_owned() } else { String::new() },
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
    if !report.streams.is_empty() || report.sip.messages > 0 {
        return None;
    }
    let left_out = report.capture.left_out();
    let alike =
        report.capture.verdicts.get(Verdict::Rtp.name()).copied().unwrap_or(0).saturating_sub(left_out);
    if alike == 0 && left_out > 0 {
        return None;
    }
    if alike > 0 {
        return Some(Finding {
            id: "nothing-found",
            severity: Severity::Info,
            title: format!(
                "{} RTP, but no flow has two consecutive sequence numbers",
                if alike == 1 {
                    "1 frame looks like".to_owned()
                } else {
                    format!("{} frames look like", words::thousands(alike))
                }
            ),
            detail: format!("Of {} read, none is SIP.", words::count(report.capture.packets, "frame")),
            advice: "list them as they are with --rtp any".to_owned(),
            evidence: Vec::new(),
        });
    }
    let mut verdicts: Vec<_> = report.capture.verdicts.iter().filter(|(_, frames)| **frames > 0).collect();
    verdicts.sort_by_key(|(_, frames)| std::cmp::Reverse(**frames));
    let most = verdicts.iter().take(VERDICTS);
    let most: Vec<_> = most.map(|(name, frames)| format!("{} {name}", words::thousands(**frames))).collect();
    let read = words::count(report.capture.packets, "frame");
    let is_on_sip_ports = verdicts.iter().any(|(name, _)| matches!(**name, "sip_udp" | "sip_tcp"));
    Some(Finding {
        id: "nothing-found",
        severity: Severity::Info,
        title: if is_on_sip_ports {
            "what uses the SIP ports holds no whole message".to_owned()
        } else {
            "no SIP and no RTP in here".to_owned()
        },
        detail: if most.is_empty() {
            format!("{read} read.")
        } else {
            format!("{read} read: {}.", most.join(", "))
        },
        advice: if report.capture.packets == 0 {
            "check that it is the right interface, and that the mirror port sends".to_owned()
        } else if is_on_sip_ports {
            "check that frames are captured whole, and that the SIP ports (--sip-ports) carry SIP".to_owned()
        } else {
            "check the SIP ports (--sip-ports); RTP without SIP on unusual ports needs --rtp any".to_owned()
        },
        evidence: Vec::new(),
    })
}

#[cfg(test)]
mod tests {
    use super::super::contract::CaptureReport;
    use super::super::contract::testing::{found, interrupted, report, stream};
    use super::*;
    use crate::sip::{AuthRefused, SignallingReport};

    fn lossy(expected: u64, lost: u64, after: u64) -> StreamReport {
        let mut stream = stream();
        stream.unique.expected = expected;
        stream.unique.lost = lost.cast_signed();
        stream.unique.lost_percent = lost as f64 * 100.0 / expected as f64;
        stream.unique.delta_ms.max_packet = after;
        stream
    }

    #[test]
    fn a_clean_stream_has_nothing_to_tell() {
        assert_eq!(report(vec![stream()]).findings, []);
    }

    #[test]
    fn loss_is_held_to_be_heard_from_a_second_of_speech_on() {
        let brief = report(vec![lossy(3, 1, 0)]);
        let finding = found(&brief.findings, "packets-lost");
        assert_eq!((finding.severity, finding.evidence.as_slice()), (Severity::Warn, [].as_slice()));
        assert_eq!(finding.title, "1 stream lost packets");
        for (lost, severity) in [(1, Severity::Warn), (2, Severity::Bad)] {
            let both = report(vec![lossy(3, 1, 0), lossy(50, lost, 77)]);
            let finding = found(&both.findings, "packets-lost");
            assert_eq!(
                (finding.severity, finding.evidence.as_slice()),
                (severity, [77].as_slice()),
                "{lost}"
            );
            assert!(finding.detail.contains(&format!("{lost} of 50 packets")), "{}", finding.detail);
        }
    }

    #[test]
    fn loss_is_told_before_a_longer_pause_and_a_jump_of_the_numbering_is_no_pause() {
        let pause = report(vec![interrupted(30.0, 0, false)]);
        assert_eq!(found(&pause.findings, "stream-interrupted").severity, Severity::Info);
        for (missing, restarted, says) in [(40, false, "lost on the way here"), (0, true, "ran on: loss")] {
            let report = report(vec![interrupted(30.0, 0, false), interrupted(1.0, missing, restarted)]);
            let finding = found(&report.findings, "stream-interrupted");
            assert_eq!(finding.severity, Severity::Warn);
            assert!(finding.title.contains("1.00 s") && finding.detail.contains(says), "{finding:?}");
        }
    }

    #[test]
    fn challenges_are_ordinary_but_for_those_that_led_to_nothing() {
        let mut report = report(vec![stream()]);
        let titles = |report: &Report, id: &str| -> Vec<String> {
            let found = find(report).into_iter().filter(|finding| finding.id == id);
            found.map(|finding| finding.title).collect()
        };
        report.sip.auth_challenges = 5;
        let ordinary = "authentication-retry";
        assert_eq!(titles(&report, ordinary), ["5 authentication challenges: ordinary"]);
        report.sip.auth_refused = AuthRefused { requests: 1, challenges: 4, first_frame: Some(6) };
        assert_eq!(titles(&report, ordinary), ["1 authentication challenge: ordinary"]);
        let refused = "credentials of 1 request are refused again and again";
        assert_eq!(titles(&report, "credentials-refused"), [refused]);
        report.sip.auth_challenges = 4;
        assert!(titles(&report, ordinary).is_empty());
    }

    #[test]
    fn a_hole_that_the_probe_may_have_made_is_not_held_against_the_network() {
        for (missing, restarted) in [(40, false), (0, true)] {
            let capture =
                CaptureReport { losses: [(Loss::RingFull.name(), 7)].into(), ..report(Vec::new()).capture };
            let streams = vec![interrupted(1.0, missing, restarted)];
            let report = Report::new(capture, streams, SignallingReport::default());
            let finding = found(&report.findings, "stream-interrupted");
            assert_eq!(finding.severity, Severity::Info);
            assert!(finding.detail.contains("the probe itself lost frames"), "{}", finding.detail);
        }
    }

    #[test]
    fn frames_that_do_not_fit_are_told_and_in_number_are_a_warning() {
        let misfit = |conflicts, unplaced| {
            let mut stream = StreamReport { conflicts, unplaced, ..stream() };
            stream.raw.packets = 1_000;
            report(vec![stream])
        };
        for (frames, severity) in [(10, Severity::Info), (11, Severity::Warn)] {
            assert_eq!(found(&misfit(frames, 0).findings, "same-number-other-content").severity, severity);
            assert_eq!(found(&misfit(0, frames).findings, "packets-not-placed").severity, severity);
        }
    }

    #[test]
    fn an_account_that_does_not_balance_is_told_first() {
        let mut report = report(vec![lossy(100, 50, 1)]);
        report.capture.matched += 3;
        let findings = find(&report);
        assert_eq!(findings[0].id, "account-does-not-balance");
        assert_eq!(findings[0].title, "3 matched frames are unaccounted for");
    }

    #[test]
    fn frames_on_sip_ports_without_a_whole_message_are_not_said_to_be_none() {
        let mut report = report(Vec::new());
        report.capture.packets = 12;
        report.capture.verdicts.insert("sip_tcp", 12);
        let finding = &find(&report)[0];
        assert_eq!(finding.title, "what uses the SIP ports holds no whole message");
        assert!(finding.advice.contains("captured whole"));
    }

    #[test]
    fn frames_that_look_like_rtp_are_not_nothing() {
        let mut report = report(Vec::new());
        assert_eq!(find(&report)[0].title, "no SIP and no RTP in here");
        report.capture.verdicts.insert("rtp", 12);
        let finding = &find(&report)[0];
        assert!(finding.title.starts_with("12 frames look like RTP"), "{}", finding.title);
        assert!(finding.advice.contains("--rtp any"));
    }
}

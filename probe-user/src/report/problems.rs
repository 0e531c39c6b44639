//! What of a call deserves a look: how it failed, what was lost, who stopped sending and when.
//!
//! A call without an entry is one that nobody has to open. The list of calls filters by it, the report's text tells it
//! beside the call, and the health log at the call's end.

use rustc_hash::FxHashMap;

use super::call_media::CallFinding;
use super::contract::{CallWithStreams, StreamReport};
use super::forensics::Cause;
use super::troubles::InterruptionReport;
use super::words;
use crate::packet::Endpoint;
use crate::sip::{CallState, REFUSED_OFTEN, Timer};

/// Loss, and packets too late for the de-jitter buffer, that are heard, in percent.
const AUDIBLE_PERCENT: f64 = 1.0;
/// Interruptions told of one call; a mute microphone without comfort noise makes hundreds.
const MAX_INTERRUPTIONS: usize = 4;

/// The streams of each call, in order of appearance.
pub(super) struct ByCall<'a> {
    by_id: FxHashMap<&'a str, Vec<&'a StreamReport>>,
    /// Several of one name came one after the other: after a silence, or after they were shed.
    by_name: FxHashMap<(Endpoint, Endpoint, &'a str), Vec<&'a StreamReport>>,
}

impl<'a> ByCall<'a> {
    /// Of all streams.
    pub(super) fn of(streams: &'a [StreamReport]) -> Self {
        let mut by_id: FxHashMap<&str, Vec<&StreamReport>> = FxHashMap::default();
        for stream in streams {
            for call_id in stream.call_id.iter().chain(&stream.shared_with) {
                by_id.entry(call_id).or_default().push(stream);
            }
        }
        let mut by_name: FxHashMap<_, Vec<_>> = FxHashMap::default();
        for stream in streams {
            by_name.entry((stream.src, stream.dst, stream.ssrc.as_str())).or_default().push(stream);
        }
        Self { by_id, by_name }
    }

    /// Those under this Call-ID, which several calls may have borne.
    pub(super) fn get(&self, call_id: &str) -> &[&'a StreamReport] {
        self.by_id.get(call_id).map_or(&[], Vec::as_slice)
    }

    /// Those of this call, in the order in which it lists them.
    pub(super) fn streams_of(&self, call: &CallWithStreams) -> Vec<&'a StreamReport> {
        // The first one that the call names so, the second, …
        let mut before: FxHashMap<(Endpoint, Endpoint, &str), usize> = FxHashMap::default();
        let mut found = Vec::with_capacity(call.streams.len());
        for named in &call.streams {
            let name = (named.src, named.dst, named.ssrc.as_str());
            let Some(its) = self.by_name.get(&name) else { continue };
            let nth = if its.len() > 1 { before.entry(name).or_default() } else { &mut 0 };
            found.extend(its.get(*nth).or(its.last()));
            *nth += 1;
        }
        found
    }
}

/// The stream that sounds worst: by what was lost or came too late, then by jitter.
pub(super) fn worst(streams: &[&StreamReport]) -> Option<usize> {
    let badness = |stream: &StreamReport| {
        let jitter = stream.jitter_percentiles_us.as_ref().map_or(0.0, |jitter| jitter.p99);
        (missed_percent(stream), jitter)
    };
    let worst = streams.iter().enumerate().max_by(|(_, a), (_, b)| {
        let ((a_missed, a_jitter), (b_missed, b_jitter)) = (badness(a), badness(b));
        a_missed.total_cmp(&b_missed).then(a_jitter.total_cmp(&b_jitter))
    });
    worst.map(|(at, _)| at)
}

/// Lost, or too late to be played, in percent.
fn missed_percent(stream: &StreamReport) -> f64 {
    (stream.lost_on_the_way() as f64 + stream.delivery.discarded as f64) * 100.0
        / stream.unique.expected.max(1) as f64
}

/// 2xx sent again, from which nobody acknowledges it: 19.5 s of 32 (RFC 3261, 13.3.1.4).
const UNACKNOWLEDGED: u32 = 7;

/// What is to say of a call with these streams; the worst first.
pub(super) fn of(call: &CallWithStreams, streams: &[&StreamReport]) -> Vec<CallFinding> {
    let mut found: Vec<_> = failure(call).into_iter().chain(credentials(call)).collect();
    found.extend(call.media_findings.iter().cloned());
    found.extend(streams.iter().filter_map(|stream| lossy(stream)));
    found.extend(interruptions(streams));
    found.extend(no_ack(call).or_else(|| sent_again(call)));
    found
}

/// Refused by something that is no decision of a person: not busy, not declined, not given up.
fn failure(call: &CallWithStreams) -> Option<CallFinding> {
    let CallState::Failed(code) = call.call.state else { return None };
    let is_decision = matches!(code, 300..=399 | 486 | 600 | 603);
    (!is_decision).then(|| CallFinding { id: "failed", text: format!("the call failed with {code}") })
}

/// Refused again and again, and nothing came of it.
fn credentials(call: &CallWithStreams) -> Option<CallFinding> {
    let refused = call.call.credentials_refused;
    let is_accepted = matches!(call.call.state, CallState::Answered | CallState::Ended);
    (refused >= REFUSED_OFTEN && !is_accepted).then(|| CallFinding {
        id: "credentials-refused",
        text: format!("the caller's credentials were refused {refused} times: a wrong user or password"),
    })
}

/// The called sends its 2xx again until it gives up, as it would not once the ACK had reached it.
fn no_ack(call: &CallWithStreams) -> Option<CallFinding> {
    let again = call.call.timers.of(Timer::TwoHundred);
    (again >= UNACKNOWLEDGED).then(|| {
        let end = match call.call.ended_by {
            Some("called") => ", which hung up",
            _ => "",
        };
        CallFinding {
            id: "no-ack",
            text: format!(
                "the answer was sent {} times: the ACK never reached the called{end}. Look at Contact, Record-Route, NAT",
                again + 1
            ),
        }
    })
}

fn lossy(stream: &StreamReport) -> Option<CallFinding> {
    let (lost, late) = (
        stream.lost_on_the_way_percent(),
        stream.delivery.discarded as f64 * 100.0 / stream.unique.expected.max(1) as f64,
    );
    let (id, what) = if stream.loss_is_upper_bound || lost.max(late) < AUDIBLE_PERCENT {
        return None;
    } else if lost >= late {
        ("packets-lost", format!("lost {lost:.1} %"))
    } else {
        ("late-for-jitter-buffer", format!("{late:.1} % came too late for the jitter buffer"))
    };
    Some(CallFinding { id, text: format!("{} → {}: {what}", stream.src, stream.dst) })
}

/// Silences with something missing, and pauses that the signalling was near to without having agreed on them. The same
/// silence in both directions is one.
fn interruptions(streams: &[&StreamReport]) -> Vec<CallFinding> {
    let mut told: Vec<(&StreamReport, &InterruptionReport, u64)> = Vec::new();
    // By what began them, as there may be as many streams as somebody sends SSRCs.
    let mut known: FxHashMap<(Cause, u64), usize> = FxHashMap::default();
    for stream in streams {
        for found in stream.interruptions.iter().filter(|found| found.gap.is_silence()) {
            let explanation = &found.explanation;
            let is_agreed = matches!(explanation.cause, Cause::Hold | Cause::CallEnded);
            // What the capture did is told once, of the capture.
            if is_agreed
                || explanation.is_excuse()
                || explanation.is_pause() && explanation.began_at.is_none()
            {
                continue;
            }
            let same = explanation.began_at.as_ref().map(|moment| {
                let next = told.len();
                *known.entry((explanation.cause, moment.frame)).or_insert(next)
            });
            match same.and_then(|at| told.get_mut(at)) {
                Some((_, longest, streams)) => {
                    *streams += 1;
                    if found.gap.silence_s > longest.gap.silence_s {
                        *longest = found;
                    }
                }
                None => told.push((stream, found, 1)),
            }
        }
    }
    told.sort_by(|(_, a, _), (_, b, _)| {
        let ((a_bad, a_s), (b_bad, b_s)) = (a.gap.weight(), b.gap.weight());
        b_bad.cmp(&a_bad).then(b_s.total_cmp(&a_s))
    });
    told.truncate(MAX_INTERRUPTIONS);
    let finding = |(stream, found, count): (&StreamReport, &InterruptionReport, u64)| {
        let who = match count {
            1 => format!("{} → {}", stream.src, stream.dst),
            _ => words::count(count, "stream"),
        };
        CallFinding { id: "interrupted", text: format!("{who}: {}", found.sentence()) }
    };
    told.into_iter().map(finding).collect()
}

fn sent_again(call: &CallWithStreams) -> Option<CallFinding> {
    let again = call.call.retransmissions;
    (again > 0).then(|| CallFinding {
        id: "retransmissions",
        text: format!("{} sent again by a timer: no answer came in time", words::count(again, "message")),
    })
}

#[cfg(test)]
mod tests {
    use super::super::contract::testing::{call, interrupted, named, stream};
    use super::super::forensics::SignallingMoment;
    use super::*;

    fn ids(found: &[CallFinding]) -> Vec<&str> {
        found.iter().map(|finding| finding.id).collect()
    }

    #[test]
    fn a_call_without_a_fault_has_nothing_to_say_and_a_decision_is_no_fault() {
        let (mut call, stream) = (call("a"), stream());
        for code in [486, 603, 302] {
            call.call.state = CallState::Failed(code);
            assert_eq!(of(&call, &[&stream]), []);
        }
        call.call.state = CallState::Failed(503);
        assert_eq!(ids(&of(&call, &[&stream])), ["failed"]);
    }

    #[test]
    fn credentials_that_nobody_accepts_are_told_until_somebody_does() {
        let mut call = call("a");
        (call.call.state, call.call.credentials_refused) = (CallState::Challenged, 1);
        assert_eq!(of(&call, &[]), []);
        call.call.credentials_refused = 2;
        assert_eq!(ids(&of(&call, &[])), ["credentials-refused"]);
        call.call.state = CallState::Answered;
        assert_eq!(of(&call, &[]), []);
    }

    #[test]
    fn an_answer_that_is_sent_until_its_sender_gives_up_had_no_ack() {
        let mut call = call("a");
        (call.call.state, call.call.ended_by) = (CallState::Ended, Some("called"));
        (0..3).for_each(|_| call.call.timers.add(Timer::TwoHundred, 1));
        call.call.retransmissions = 3;
        assert_eq!(ids(&of(&call, &[])), ["retransmissions"]);
        call.call.timers.add(Timer::TwoHundred, 6);
        let found = of(&call, &[]);
        assert_eq!(ids(&found), ["no-ack"]);
        assert!(
            found[0]
                .text
                .starts_with("the answer was sent 10 times: the ACK never reached the called, which")
        );
    }

    #[test]
    fn the_worst_stream_is_the_one_that_missed_most() {
        let (clean, mut lossy, mut late) = (stream(), stream(), stream());
        (lossy.unique.expected, lossy.unique.lost, lossy.unique.lost_percent) = (100, 3, 3.0);
        (late.unique.expected, late.delivery.discarded) = (100, 5);
        assert_eq!(worst(&[&clean, &lossy, &late]), Some(2));
        assert_eq!(worst(&[]), None);
        let found = of(&call("a"), &[&clean, &lossy, &late]);
        assert_eq!(ids(&found), ["packets-lost", "late-for-jitter-buffer"]);
        assert_eq!(found[1].text, "10.0.0.1:4000 → 10.0.0.2:5000: 5.0 % came too late for the jitter buffer");
    }

    #[test]
    fn one_transfer_that_silenced_both_directions_is_told_once_and_a_mute_microphone_not_at_all() {
        let (mut there, mut back) = (interrupted(1.7, 0, false), interrupted(1.81, 0, false));
        for stream in [&mut there, &mut back] {
            let refer = SignallingMoment {
                event: "REFER: transfer".to_owned(),
                frame: 77,
                after_ms: 8.0,
                of_call: None,
            };
            stream.interruptions[0].explanation.began_at = Some(refer);
        }
        let found = of(&call("a"), &[&there, &back, &interrupted(9.0, 0, false)]);
        assert_eq!(ids(&found), ["interrupted"]);
        assert!(
            found[0].text.starts_with("2 streams: 1.81 s without packets, began 8 ms after REFER"),
            "{found:?}"
        );
        assert_eq!(ids(&of(&call("a"), &[&interrupted(1.0, 50, false)])), ["interrupted"]);
    }

    #[test]
    fn what_began_by_another_moment_is_another_interruption_however_many_streams_there_are() {
        let began = |stream: u64| {
            // Three streams a moment, and each third moment is that of a hold, which was agreed.
            let mut report = interrupted(1.0 + stream as f64 / 1e3, 5, false);
            let explanation = &mut report.interruptions[0].explanation;
            let frame = stream / 3;
            if frame % 3 == 2 {
                explanation.cause = Cause::Hold;
            }
            let event = "re-INVITE".to_owned();
            explanation.began_at = Some(SignallingMoment { event, frame, after_ms: 8.0, of_call: None });
            report
        };
        let streams: Vec<_> = (0..900).map(began).collect();
        let found = interruptions(&streams.iter().collect::<Vec<_>>());
        assert_eq!(found.len(), MAX_INTERRUPTIONS);
        // The longest are those of the last moments that were no hold's: frames 298, 297, 295, 294.
        for (finding, longest) in found.iter().zip([896, 893, 887, 884]) {
            let silence = format!("3 streams: {:.2} s without packets", 1.0 + f64::from(longest) / 1e3);
            assert!(finding.text.starts_with(&silence), "{silence}: {}", finding.text);
        }
    }

    #[test]
    fn streams_of_one_name_are_given_to_the_call_each_once_in_their_order() {
        let mut streams: Vec<_> = (0..300).map(|_| stream()).collect();
        for (at, stream) in (0_u32..).zip(&mut streams) {
            stream.start_s = f64::from(at);
            stream.ssrc = format!("0x{:08x}", at % 3);
        }
        let mut call = call("a");
        call.streams = streams.iter().map(named).collect();
        // One that the call names more often than it came is the last again.
        call.streams.push(named(&streams[0]));
        let by_call = ByCall::of(&streams);
        let given: Vec<_> = by_call.streams_of(&call).iter().map(|stream| stream.start_s).collect();
        let expected: Vec<_> = (0..300).chain([297]).map(f64::from).collect();
        assert_eq!(given, expected);
    }
}

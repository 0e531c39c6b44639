//! What is told of live calls, when, and what is left out.

use super::super::health::Status;
use super::*;
use crate::packet::Flow;
use crate::rtp::testing::{flow, packet};
use crate::sip::calls::Moment;
use crate::sip::report::Figures;

fn event(call_id: &str, ms: u64, what: What, state: CallState) -> CallEvent {
    let Flow { src, dst } = flow();
    let is_response = matches!(what, What::Ringing(_) | What::Answer);
    CallEvent {
        call_id: call_id.into(),
        moment: Moment { time: Nanos(ms * 1_000_000), number: ms, what },
        flow: if is_response { Flow { src: dst, dst: src } } else { Flow { src, dst } },
        state,
        figures: Figures {
            from: "sip:1001@pbx".into(),
            to: "sip:200@pbx".into(),
            ringing_ms: Some(609.0),
            setup_ms: Some(910.0),
            talked_ms: Some(9_400.0),
            ended_by: Some("caller"),
            ..Figures::default()
        },
    }
}

/// An interval of a call's stream: its packets and losses.
fn line(call_id: &str, is_back: bool, packets: u64, lost: u64) -> StreamEntry {
    let mut key = StreamKey::from(&packet(0));
    if is_back {
        key.flow = Flow { src: key.flow.dst, dst: key.flow.src };
    }
    StreamEntry {
        call_id: Some(call_id.into()),
        src: key.flow.src,
        dst: key.flow.dst,
        key,
        packets,
        lost,
        mos: Some(4.4 - lost as f64 / 10.0),
        ..StreamEntry::nothing(Status::Ok)
    }
}

fn answered(desk: &mut CallDesk, call_id: &str) {
    desk.event(event(call_id, 0, What::Invite, CallState::Inviting));
    desk.event(event(call_id, 500, What::Ringing(180), CallState::Ringing));
    desk.event(event(call_id, 900, What::Answer, CallState::Answered));
}

fn ends(desk: &mut CallDesk, call_id: &str) -> (String, CallEnd) {
    assert!(
        desk.event(event(call_id, 9_000, What::Bye, CallState::Ended)).is_none(),
        "it waits for the interval"
    );
    let (mut ended, ..) = desk.close(true, &History::default());
    let (at, entry) = ended.remove(0);
    assert_eq!(at, Nanos(9_000_000_000));
    (entry.text(), entry.end.unwrap())
}

#[test]
fn begin_ringing_and_answer_are_told_at_once_with_their_times() {
    let mut desk = CallDesk::default();
    let mut text = |what, state| desk.event(event("a84b4c76@x", 0, what, state)).unwrap().text();
    assert_eq!(text(What::Invite, CallState::Inviting), "a84b4c76  inviting  INVITE  1001 → 200");
    assert_eq!(text(What::Ringing(180), CallState::Ringing), "a84b4c76  ringing  180 after 609ms");
    assert_eq!(text(What::Answer, CallState::Answered), "a84b4c76  answered after 910ms");
    assert_eq!(text(What::Refer, CallState::Answered), "a84b4c76  answered  REFER: transfer");
}

#[test]
fn the_end_tells_who_hung_up_and_the_worst_stream_over_all_intervals() {
    let mut desk = CallDesk::default();
    answered(&mut desk, "a84b4c76@x");
    for (is_back, lost) in [(false, 0), (true, 10), (false, 0), (true, 0)] {
        desk.hear(&line("a84b4c76@x", is_back, 100 - lost, lost));
    }
    let (text, end) = ends(&mut desk, "a84b4c76@x");
    assert_eq!(
        text,
        "a84b4c76  ended  BYE  1001 → 200  by caller after 9.4s  worst of 2 streams: 10.0.0.2:5000 → 10.0.0.1:4000 lost \
         5.0 % MOS 3.4"
    );
    assert_eq!(end.stream_count, 2);
    assert!(desk.calls.is_empty());
}

#[test]
fn one_way_audio_and_no_media_are_named_and_a_short_call_misses_nothing() {
    let ids = |end: &CallEnd| end.problems.iter().map(|problem| problem.id).collect::<Vec<_>>();
    let mut desk = CallDesk::default();
    answered(&mut desk, "a");
    assert_eq!(ids(&ends(&mut desk, "a").1), ["no-media"]);
    answered(&mut desk, "b");
    desk.hear(&line("b", false, 100, 0));
    let (text, end) = ends(&mut desk, "b");
    assert_eq!(ids(&end), ["one-way-audio"]);
    assert!(text.ends_with("; one-way: only 10.0.0.1:4000 → 10.0.0.2:5000 was heard here"), "{text}");
    answered(&mut desk, "c");
    let mut short = event("c", 1_000, What::Bye, CallState::Ended);
    short.figures.talked_ms = Some(800.0);
    desk.event(short);
    assert_eq!(ids(desk.close(true, &History::default()).0[0].1.end.as_ref().unwrap()), [""; 0]);
}

#[test]
fn a_gap_at_the_transfer_is_told_at_the_end_again() {
    let mut desk = CallDesk::default();
    answered(&mut desk, "a");
    let gap = Interruption {
        at: Nanos(5_000_000_000),
        packet: 9,
        silence_s: 1.81,
        timestamp_s: Some(0.02),
        missing: 0,
        restarted: false,
    };
    let refer = Moment { time: Nanos(3_182_000_000), number: 7, what: What::Refer };
    let explanation = Explanation::new(
        &gap,
        super::super::forensics::Meanwhile::Ordinary,
        &[super::super::forensics::Told::own(refer)],
    );
    let mut interrupted = line("a", false, 100, 0);
    (interrupted.interruption, interrupted.explanation) = (Some(gap), Some(explanation));
    desk.hear(&interrupted);
    desk.hear(&line("a", true, 100, 0));
    let (text, end) = ends(&mut desk, "a");
    assert_eq!(end.problems.len(), 1);
    assert!(text.contains("1.81 s without packets, began 8 ms after REFER: the sender stopped"), "{text}");
}

#[test]
fn a_flood_is_told_once_and_displaces_no_call_that_rang() {
    let mut desk = CallDesk::default();
    answered(&mut desk, "real");
    let flood = |desk: &mut CallDesk, second: u64| {
        let told = (0..5_000).filter(|n| {
            let begin =
                event(&format!("{second}-{n}"), second * 1_000 + n / 6, What::Invite, CallState::Inviting);
            desk.event(begin).is_some()
        });
        told.count()
    };
    assert_eq!(flood(&mut desk, 10), MAX_LINES - 3);
    let (_, finding, left_out) = desk.close(true, &History::default());
    let finding = finding.unwrap();
    assert_eq!(left_out, 4_003);
    assert_eq!(finding.title, "INVITE flood from 10.0.0.1: 5,000 calls in 1 s");
    assert!(finding.detail.contains("4,003 lines of calls are left out"), "{}", finding.detail);
    assert_eq!(desk.calls.len(), 1);
    flood(&mut desk, 20);
    assert!(desk.close(true, &History::default()).1.is_none(), "it was told");
    desk.close(true, &History::default());
    flood(&mut desk, 40);
    assert!(desk.close(true, &History::default()).1.is_some(), "it had stopped, and came back");
}

#[test]
fn a_trunk_whose_calls_ring_is_no_flood() {
    let mut desk = CallDesk::default();
    for n in 0..500 {
        desk.event(event(&n.to_string(), n, What::Invite, CallState::Inviting));
        desk.event(event(&n.to_string(), n, What::Ringing(180), CallState::Ringing));
    }
    assert!(desk.close(true, &History::default()).1.is_none());
}

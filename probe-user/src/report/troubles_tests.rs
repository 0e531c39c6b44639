//! Which streams are one conversation, and what their calls did at the time.

use super::super::contract::testing::{call, interrupted, stream};
use super::super::contract::{CaptureReport, Report};
use super::super::forensics::Cause;
use super::*;
use crate::rtp::legs::{Delay, LegReport, Relation};
use crate::sip::SignallingReport;
use crate::sip::calls::{Moment, What};
use crate::sip::sdp::Direction;

/// A stream of a call, between these ports, with this SSRC, that was heard from and to these seconds.
fn heard(ports: (u16, u16), ssrc: &str, from_s: f64, to_s: f64) -> StreamReport {
    let mut stream = stream();
    stream.src.port = ports.0;
    stream.dst.port = ports.1;
    stream.ssrc = ssrc.to_owned();
    (stream.start_s, stream.end_s) = (from_s, to_s);
    stream
}

fn how(streams: &[StreamReport]) -> Vec<Option<Continuation>> {
    predecessors(streams).into_iter().map(|found| found.map(|found| found.how)).collect()
}

#[test]
fn another_ssrc_between_the_same_endpoints_goes_on_and_two_at_a_time_do_not() {
    let after = [heard((1, 2), "0xa", 0.0, 5.0), heard((1, 2), "0xb", 5.02, 9.0)];
    assert_eq!(how(&after), [None, Some(Continuation::SsrcChanged)]);
    let found = predecessors(&after).remove(1).unwrap();
    assert_eq!((found.ssrc.as_str(), found.gap_ms.round()), ("0xa", 20.0));
    assert_eq!(how(&[heard((1, 2), "0xa", 0.0, 9.0), heard((1, 2), "0xb", 5.0, 9.0)]), [None, None]);
    assert_eq!(how(&[heard((1, 2), "0xa", 0.0, 5.0), heard((1, 2), "0xb", 90.0, 99.0)]), [None, None]);
}

#[test]
fn a_port_that_moved_keeps_its_ssrc_and_one_of_its_ends() {
    let moved = [heard((1, 2), "0xa", 0.0, 5.0), heard((1, 4), "0xa", 5.1, 9.0)];
    assert_eq!(how(&moved), [None, Some(Continuation::Moved)]);
    assert_eq!(how(&[heard((1, 2), "0xa", 0.0, 5.0), heard((3, 4), "0xa", 5.1, 9.0)]), [None, None]);
}

#[test]
fn within_a_call_a_sender_may_move_under_another_ssrc() {
    let mut moved = [heard((1, 2), "0xa", 0.0, 5.0), heard((1, 4), "0xb", 5.1, 9.0)];
    assert_eq!(how(&moved), [None, None]);
    for stream in &mut moved {
        stream.call_id = Some("a84b".into());
    }
    assert_eq!(how(&moved), [None, Some(Continuation::Moved)]);
}

#[test]
fn a_flood_of_ssrcs_between_two_endpoints_costs_a_look_at_a_few() {
    let flood: Vec<_> = (0..1_000).map(|n| heard((1, 2), &format!("0x{n:08x}"), 0.1, 0.1)).collect();
    assert!(how(&flood).iter().skip(1).all(|found| *found == Some(Continuation::SsrcChanged)));
}

#[test]
fn a_pause_is_joined_to_the_refer_on_the_other_leg_of_the_same_media() {
    let mut legs = vec![interrupted(1.8, 0, false), interrupted(1.8, 0, false)];
    legs[1].src.port = 4_002;
    for (stream, call_id) in legs.iter_mut().zip(["phone-side", "trunk-side"]) {
        stream.call_id = Some(call_id.into());
    }
    let leg = |other: &StreamReport| LegReport {
        src: other.src,
        dst: other.dst,
        relation: Relation::Relay,
        matched_percent: 100.0,
        delay_ms: Delay { min: 0.0, p50: 0.0, max: 0.0 },
        compared: 16,
    };
    let refs = [leg(&legs[1]), leg(&legs[0])];
    for (stream, leg) in legs.iter_mut().zip(refs) {
        stream.legs = vec![leg];
    }
    let began = legs[0].interruptions[0].gap.began();
    let mut calls = [call("phone-side").call, call("trunk-side").call];
    calls[0].moments = vec![Moment { time: Nanos(began.0 - 3_000_000), number: 77, what: What::Refer }];
    let signalling = SignallingReport { calls: calls.into(), ..SignallingReport::default() };
    let report = Report::new(CaptureReport::default(), legs, signalling);
    let began_at = |at: usize| report.streams[at].interruptions[0].explanation.began_at.clone().unwrap();
    assert_eq!((began_at(0).frame, began_at(0).of_call), (77, None));
    assert_eq!((began_at(1).frame, began_at(1).of_call.as_deref()), (77, Some("phone-side")));
}

#[test]
fn a_pause_is_not_held_against_an_earlier_call_of_the_same_call_id() {
    let mut paused = interrupted(1.8, 0, false);
    paused.call_id = Some("again".into());
    let before = |s: u64| Nanos(paused.first_seen().0 - s * 1_000_000_000);
    let mut calls = [call("again").call, call("again").call];
    (calls[0].began, calls[1].began) = (before(60), before(1));
    calls[0].moments = vec![Moment { time: before(50), number: 7, what: What::Hold(Direction::SendOnly) }];
    let report = |calls: &[CallReport]| {
        let signalling = SignallingReport { calls: calls.to_vec(), ..SignallingReport::default() };
        Report::new(CaptureReport::default(), vec![paused.clone()], signalling)
    };
    let cause = |report: &Report| report.streams[0].interruptions[0].explanation.cause;
    let of_two = report(&calls);
    assert_eq!(cause(&of_two), Cause::SenderPaused);
    assert_eq!(of_two.calls.iter().map(|call| call.streams.len()).collect::<Vec<_>>(), [0, 1]);
    assert!(of_two.calls[0].media_absent_because.is_some() && of_two.calls[1].media_absent_because.is_none());
    assert_eq!(cause(&report(&calls[..1])), Cause::Hold);
}

//! What a capture does not hold: answers that nobody gave, answers that passed elsewhere, and the rest of frames.

use super::testing::*;
use super::*;
use crate::packet::Endpoint;
use crate::sip::CapturedReport;
use crate::sip::silent::{Silent, SilentReport};

#[test]
fn who_answers_no_request_and_no_repeat_is_silent() {
    let mut wire = Wire::new();
    for ms in [0, 500, 1_500, 3_500, 7_500] {
        wire.send(ms, PHONE, &request("INVITE", 1, ""));
    }
    let pbx = Silent {
        endpoint: Endpoint::v4(PBX, 5060),
        from: Endpoint::v4(PHONE, 5060),
        method: "INVITE".into(),
        requests: 1,
        first_frame: 1,
    };
    let sip = wire.probe.report().sip;
    assert_eq!(sip.silent, SilentReport { endpoints: 1, requests: 1, named: vec![pbx] });
    assert_eq!(sip.proofs_of_answers, 0);
}

#[test]
fn who_had_no_time_to_answer_or_has_begun_to_is_not_silent() {
    let mut wire = Wire::new();
    wire.send(0, PHONE, &request("INVITE", 1, ""));
    wire.send(500, PHONE, &request("INVITE", 1, ""));
    assert_eq!(wire.probe.report().sip.silent, SilentReport::default(), "the capture ends too early");
    wire.send(1_500, PBX, &response(100, "1 INVITE"));
    wire.send(60_000, PHONE, &request("OPTIONS", 2, ""));
    assert_eq!(wire.probe.report().sip.silent, SilentReport::default(), "it said 100");
}

#[test]
fn answers_that_passed_elsewhere_are_proved_by_what_follows_them() {
    let mut wire = Wire::new();
    wire.send(0, PHONE, &request("INVITE", 1, ""));
    wire.send(2_000, PHONE, &request("ACK", 1, "bob"));
    wire.send(60_000, PHONE, &request("BYE", 2, "bob"));
    let sip = wire.probe.report().sip;
    assert_eq!((sip.silent, sip.proofs_of_answers), (SilentReport::default(), 2));
}

#[test]
fn frames_of_which_only_the_beginning_was_captured_are_counted_until_the_rest_is_found() {
    let mut wire = Wire::new();
    let text = with_sdp(&request("INVITE", 1, ""), PHONE, 4000);
    let flow = Flow { src: Endpoint::v4(PHONE, 5060), dst: Endpoint::v4(PBX, 5060) };
    let begun = &text.as_bytes()[..158];
    wire.probe.observe_part(Nanos(0), 1, flow, Transport::Udp, &seen(), begun, text.len());
    let cut = CapturedReport { frames: 1, cut: 1, cut_at_bytes: 158 };
    assert_eq!(wire.probe.report().sip.captured, cut);
    assert!(cut.is_most());
    wire.probe.observe(Nanos(MS), 2, flow, Transport::Udp, &seen(), text.as_bytes());
    let captured = wire.probe.report().sip.captured;
    assert_eq!((captured.frames, captured.cut, captured.is_most()), (1, 0, false));
}

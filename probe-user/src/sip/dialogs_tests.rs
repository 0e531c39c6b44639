//! States of calls: forks, hops, halves of calls, holds, and what makes an end.

use super::testing::*;
use super::*;
use crate::sip::Timer;
use crate::sip::calls::{CallState, What};
use crate::sip::dialog::DialogState;
use crate::sip::sdp::Direction;

/// What came of the only call.
fn only(wire: &Wire) -> CallReport {
    let report = wire.probe.report();
    let [call] = &report.calls[..] else { panic!("{:?}", report.calls) };
    call.clone()
}

fn happened(wire: &Wire) -> Vec<What> {
    only(wire).moments.iter().map(|moment| moment.what).collect()
}

/// A response by the user agent with this tag, of the transaction with this branch.
fn by(tag: &str, branch: &str, code: u16, cseq: &str) -> String {
    head(&format!("SIP/2.0 {code} Some"), cseq, tag, &format!("Contact: <sip:{tag}@10.0.0.9>\r\n\r\n"))
        .replace("branch=z9hG4bK1INVITE", &format!("branch={branch}"))
}

fn on(branch: &str, message: &str) -> String {
    message.replace("branch=z9hG4bK1INVITE", &format!("branch={branch}"))
}

#[test]
fn early_media_is_sdp_before_the_answer() {
    for (message, expected) in [
        (with_sdp(&response(183, "1 INVITE"), PBX, 6000), true),
        (response(180, "1 INVITE"), false),
        (with_sdp(&response(200, "1 INVITE"), PBX, 6000), false),
    ] {
        let mut wire = Wire::new();
        wire.send(0, PHONE, &request("INVITE", 1, ""));
        wire.send(50, PBX, &message);
        assert_eq!(only(&wire).early_media, expected, "{message}");
    }
}

#[test]
fn forks_are_told_one_by_one_and_their_refusals_are_not_the_calls() {
    let mut wire = Wire::new();
    let invite = request("INVITE", 1, "");
    for (ms, from, text) in [
        (0, PHONE, on("a", &invite)),
        (2, PBX, on("b", &invite)),
        (3, PBX, on("c", &invite)),
        (50, PHONE, by("bob", "b", 180, "1 INVITE")),
        (60, PHONE, by("eve", "c", 486, "1 INVITE")),
        (70, PBX, by("bob", "a", 180, "1 INVITE")),
        (900, PHONE, by("bob", "b", 200, "1 INVITE")),
        (901, PBX, by("bob", "a", 200, "1 INVITE")),
    ] {
        wire.send(ms, from, &text);
    }
    let call = only(&wire);
    assert_eq!((call.state, call.final_code, call.forks), (CallState::Answered, None, 2));
    assert_eq!((call.ringing_ms, call.rang_ms, call.setup_ms), (Some(50.0), Some(850.0), Some(900.0)));
    let forks: Vec<_> = call.dialogs.iter().map(|fork| (&*fork.contact, fork.state, fork.code)).collect();
    let expected = [
        ("sip:bob@10.0.0.9", DialogState::Answered, None),
        ("sip:eve@10.0.0.9", DialogState::Refused, Some(486)),
    ];
    assert_eq!(forks, expected);
    assert_eq!(happened(&wire), [What::Invite, What::Ringing(180), What::Answer]);
}

#[test]
fn call_that_every_fork_refuses_fails_when_the_caller_hears_it() {
    let mut wire = Wire::new();
    let invite = request("INVITE", 1, "");
    wire.send(0, PHONE, &on("a", &invite));
    wire.send(2, PBX, &on("b", &invite));
    wire.send(60, PHONE, &by("eve", "b", 486, "1 INVITE"));
    assert_eq!(only(&wire).state, CallState::Inviting, "the proxy may try elsewhere");
    wire.send(63, PBX, &by("eve", "a", 486, "1 INVITE"));
    let call = only(&wire);
    assert_eq!((call.state, call.final_code), (CallState::Failed(486), Some(486)));
    assert_eq!(call.disconnect_reason.as_deref(), Some("Some"));
}

#[test]
fn two_forks_that_answer_are_one_call_until_both_have_ended() {
    let mut wire = Wire::new();
    wire.send(0, PHONE, &request("INVITE", 1, ""));
    wire.send(500, PBX, &response(200, "1 INVITE"));
    wire.send(510, PBX, &response(200, "1 INVITE").replace("tag=bob", "tag=eve"));
    wire.send(530, PHONE, &request("BYE", 2, "eve"));
    assert_eq!(only(&wire).state, CallState::Answered);
    wire.send(9500, PHONE, &request("BYE", 2, "bob"));
    let call = only(&wire);
    assert_eq!((call.state, call.talked_ms, call.forks), (CallState::Ended, Some(9000.0), 2));
    assert_eq!(happened(&wire), [What::Invite, What::Answer, What::ForkAnswered, What::Bye]);
}

#[test]
fn cancel_is_the_callers_unless_a_2xx_wins() {
    for (code, state) in [(487, CallState::Cancelled), (200, CallState::Answered)] {
        let mut wire = Wire::new();
        wire.send(0, PHONE, &request("INVITE", 1, ""));
        wire.send(100, PBX, &response(180, "1 INVITE"));
        let cancel = head(
            "CANCEL sip:bob@pbx SIP/2.0",
            "1 CANCEL",
            "",
            "Reason: SIP;cause=200;text=\"Call completed elsewhere\"\r\n\r\n",
        );
        wire.send(900, PHONE, &cancel.replace("bK1CANCEL", "bK1INVITE"));
        wire.send(910, PBX, &response(code, "1 INVITE"));
        let call = only(&wire);
        assert_eq!((call.state, call.rang_ms), (state, Some(810.0)));
        let is_cancelled = code == 487;
        assert_eq!(call.ended_by, is_cancelled.then_some("caller"));
        let reason = "SIP;cause=200 Call completed elsewhere";
        assert_eq!(call.disconnect_reason.as_deref(), is_cancelled.then_some(reason));
    }
}

#[test]
fn credentials_and_other_attempts_are_the_same_call() {
    for (code, more) in [(401, ""), (302, "Contact: <sip:new@pbx>\r\n"), (422, ""), (486, "")] {
        let mut wire = Wire::new();
        wire.send(0, PHONE, &request("INVITE", 1, ""));
        let refusal = head(&format!("SIP/2.0 {code} No"), "1 INVITE", "bob", &format!("{more}\r\n"));
        wire.send(9, PBX, &refusal);
        wire.send(20, PHONE, &request("INVITE", 2, ""));
        let call = only(&wire);
        assert_eq!((call.state, call.final_code, call.reinvites), (CallState::Inviting, None, 0), "{code}");
        wire.send(900, PBX, &response(200, "2 INVITE"));
        let call = only(&wire);
        assert_eq!(
            (call.state, call.disconnect_reason, call.forks),
            (CallState::Answered, None, 1),
            "{code}"
        );
    }
}

#[test]
fn attempt_whose_refusal_was_not_captured_is_an_attempt() {
    let mut wire = Wire::new();
    wire.send(0, PHONE, &request("INVITE", 1, ""));
    wire.send(20, PHONE, &request("INVITE", 2, ""));
    wire.send(30, PBX, &response(486, "2 INVITE"));
    assert_eq!(only(&wire).state, CallState::Failed(486));
}

#[test]
fn half_of_a_call_says_what_it_can() {
    // What the caller sends.
    let mut wire = Wire::new();
    wire.send(0, PHONE, &request("INVITE", 1, ""));
    wire.send(900, PHONE, &request("ACK", 1, "bob"));
    let call = only(&wire);
    assert_eq!((call.state, call.setup_ms), (CallState::Answered, None));
    wire.send(5900, PHONE, &request("BYE", 2, "bob"));
    let call = only(&wire);
    assert_eq!((call.state, call.talked_ms, call.ended_by), (CallState::Ended, Some(5000.0), Some("caller")));
    // What the caller gets.
    let mut wire = Wire::new();
    wire.send(0, PBX, &response(180, "1 INVITE"));
    wire.send(900, PBX, &response(200, "1 INVITE"));
    wire.send(5900, PBX, &response(200, "2 BYE"));
    let call = only(&wire);
    assert_eq!((call.state, call.talked_ms, call.ended_by), (CallState::Ended, Some(5000.0), Some("caller")));
    assert!(call.seen_from_the_middle && call.setup_ms.is_none());
    // An ACK to a refusal has the branch of its INVITE.
    let mut wire = Wire::new();
    wire.send(0, PHONE, &request("INVITE", 1, ""));
    wire.send(900, PHONE, &request("ACK", 1, "bob").replace("bK1ACK", "bK1INVITE"));
    assert_eq!(only(&wire).state, CallState::Inviting);
}

#[test]
fn call_is_found_in_its_middle_by_what_belongs_to_no_other() {
    for method in ["INVITE", "UPDATE", "PRACK", "BYE"] {
        let mut wire = Wire::new();
        wire.send(0, PHONE, &request(method, 7, "bob"));
        assert!(only(&wire).seen_from_the_middle, "{method}");
    }
    for method in ["OPTIONS", "NOTIFY", "ACK", "INFO", "SUBSCRIBE"] {
        let mut wire = Wire::new();
        wire.send(0, PHONE, &request(method, 7, "bob"));
        assert!(wire.probe.calls().is_empty(), "{method}");
    }
}

fn answered() -> Wire {
    let mut wire = Wire::new();
    wire.send(0, PHONE, &with_sdp(&request("INVITE", 1, ""), PHONE, 4000));
    wire.send(9, PBX, &with_sdp(&response(200, "1 INVITE"), PBX, 6000));
    wire
}

/// SDP of a request within the call, that asks for this direction.
fn asking(method: &str, cseq: u32, direction: &str) -> String {
    let plain = with_sdp(&request(method, cseq, "bob"), PHONE, 4000).replace("Content-Length: ", "X-Was: ");
    format!("{plain}a={direction}\r\n")
}

#[test]
fn hold_and_resume_by_reinvite_and_update_say_who_and_how_long() {
    let mut wire = answered();
    wire.send(1000, PHONE, &asking("INVITE", 2, "sendonly"));
    wire.send(
        1500,
        PBX,
        &asking("UPDATE", 1, "inactive")
            .replace("tag=ann", "tag=x")
            .replace("tag=bob", "tag=ann")
            .replace("tag=x", "tag=bob"),
    );
    wire.send(3000, PHONE, &asking("INVITE", 3, "sendrecv"));
    let call = only(&wire);
    let held: Vec<_> = call.held.iter().map(|hold| (hold.by, hold.direction, hold.lasted_ms)).collect();
    assert_eq!(held, [(Some("caller"), "sendonly", Some(2000.0)), (Some("called"), "inactive", None)]);
    assert_eq!((call.holds, call.reinvites, call.updates), (2, 2, 1));
    let expected = [
        What::Invite,
        What::Answer,
        What::ReInvite,
        What::Hold(Direction::SendOnly),
        What::Update,
        What::Hold(Direction::Inactive),
        What::ReInvite,
        What::Resume,
    ];
    assert_eq!(happened(&wire), expected);
    assert_eq!(wire.probe.drain_events().count(), expected.len());
}

#[test]
fn hold_is_told_once_on_two_hops_and_not_at_all_if_refused() {
    let mut wire = answered();
    let hold = asking("INVITE", 2, "inactive");
    wire.send(1000, PHONE, &hold);
    wire.send(1002, PHONE, &hold.replace("z9hG4bK", "z9hG4bK-next-hop-"));
    assert_eq!((only(&wire).holds, only(&wire).reinvites), (1, 1));
    wire.send(1010, PBX, &response(491, "2 INVITE"));
    let call = only(&wire);
    assert_eq!((call.holds, call.held, call.state), (0, Vec::new(), CallState::Answered));
}

#[test]
fn old_way_to_hold_is_a_connection_to_nowhere() {
    let mut wire = answered();
    wire.send(1000, PHONE, &with_sdp(&request("INVITE", 2, "bob"), [0; 4], 4000));
    assert_eq!(only(&wire).holds, 1);
}

#[test]
fn reliable_provisionals_updates_and_session_timers_are_noted() {
    let mut wire = Wire::new();
    wire.send(0, PHONE, &request("INVITE", 1, ""));
    wire.send(50, PBX, &head("SIP/2.0 183 Progress", "1 INVITE", "bob", "RSeq: 1\r\n\r\n"));
    wire.send(60, PHONE, &head("PRACK sip:bob@pbx SIP/2.0", "2 PRACK", "bob", "RAck: 1 1 INVITE\r\n\r\n"));
    wire.send(70, PHONE, &request("UPDATE", 3, "bob"));
    wire.send(99, PBX, &head("SIP/2.0 200 OK", "1 INVITE", "bob", "x: 90;refresher=uac\r\n\r\n"));
    let call = only(&wire);
    assert_eq!((call.prack, call.updates, call.session_expires_s), (1, 1, Some(90)));
}

#[test]
fn bye_says_why_and_its_timer_is_told_by_call() {
    let mut wire = answered();
    let bye = head("BYE sip:bob@pbx SIP/2.0", "2 BYE", "bob", "Reason: Q.850;cause=16\r\n\r\n");
    for ms in [1000, 1500, 2500] {
        wire.send(ms, PHONE, &bye);
    }
    let call = only(&wire);
    assert_eq!(call.disconnect_reason.as_deref(), Some("Q.850;cause=16 Normal call clearing"));
    assert_eq!((call.retransmissions, call.timers.of(Timer::E), call.timers.of(Timer::A)), (2, 2, 0));
    assert_eq!(wire.probe.report().sip.transactions.of("BYE").open, 1, "nobody answered");
}

#[test]
fn call_id_is_used_again_by_another_call_and_kept_by_the_same() {
    // After BYE, with another tag or much later; after a refusal, with another tag only.
    let other = |text: String| text.replace("tag=ann", "tag=other");
    let table: [(&str, u64, bool, usize); 6] = [
        ("BYE", 1_000, true, 2),
        ("BYE", 1_000, false, 1),
        ("BYE", 60_000, false, 2),
        ("486", 60_000, false, 1),
        ("486", 1_000, true, 2),
        ("", 60_000, true, 2),
    ];
    for (end, ms, is_other, calls) in table {
        let mut wire = Wire::new();
        wire.send(0, PHONE, &request("INVITE", 1, ""));
        match end {
            "BYE" => wire.send(9, PHONE, &request("BYE", 2, "bob")),
            "486" => wire.send(9, PBX, &response(486, "1 INVITE")),
            _ => wire.send(9, PBX, &response(200, "1 INVITE")),
        };
        let again = request("INVITE", 3, "");
        wire.send(ms, PHONE, &if is_other { other(again) } else { again });
        assert_eq!(wire.probe.report().calls.len(), calls, "{end:?} {ms} {is_other}");
    }
    // A back-to-back user agent that keeps the Call-ID.
    let mut wire = Wire::new();
    wire.send(0, PHONE, &request("INVITE", 1, ""));
    wire.send(5, PBX, &on("b", &other(request("INVITE", 1, ""))));
    wire.send(50, PHONE, &on("b", &other(response(200, "1 INVITE"))));
    wire.send(52, PBX, &response(200, "1 INVITE"));
    wire.send(5_000, PHONE, &request("BYE", 2, "bob"));
    let call = only(&wire);
    assert_eq!((call.state, call.forks, call.ended_by), (CallState::Ended, 1, Some("caller")));
}

/// As sipp does it: the ACK has a branch of its own, and the INVITE that follows bears the tag of the refusal.
#[test]
fn an_ack_of_a_challenge_is_no_answer_whatever_its_branch() {
    let mut wire = Wire::new();
    wire.send(0, PHONE, &request("INVITE", 1, ""));
    wire.send(5, PBX, &response(407, "1 INVITE"));
    wire.send(10, PHONE, &request("ACK", 1, "bob"));
    assert_eq!(only(&wire).state, CallState::Challenged);
    wire.send(12, PHONE, &request("INVITE", 2, "bob"));
    wire.send(300, PBX, &response(180, "2 INVITE"));
    wire.send(900, PBX, &response(200, "2 INVITE"));
    wire.send(905, PHONE, &request("ACK", 2, "bob"));
    let call = only(&wire);
    assert_eq!((call.state, call.reinvites, call.setup_ms), (CallState::Answered, 0, Some(900.0)));
}

//! Stories with exact expectations: what two people with the capture open would say.

use super::testing::*;
use super::*;
use crate::packet::{Carrier, Encapsulation, Endpoint, Layer, MediaId, Tap};
use crate::sip::calls::{CallState, What};
use crate::sip::copies::Timer;
use crate::sip::media::EndpointChange;
use crate::sip::totals::{Repeats, Tally};

const CALL_MESSAGES: u64 = 16;

/// Two taps, of which one captures the first `snap` octets of each message.
fn snapped(snap: usize, cut_first: bool) -> Signalling {
    let other = Evidence { dst_mac: [9; 6], ..seen() };
    let sdp = "v=0\r\nc=IN IP4 10.0.0.1\r\nm=audio 4000 RTP/AVP 0\r\n";
    let head = |start: &str, cseq: &str, rest: &str| {
        format!(
            "{start}\r\nVia: SIP/2.0/UDP 10.0.0.1;branch=z9hG4bKa\r\nFrom: <sip:a@x>;tag=1\r\n\
             To: <sip:b@x>\r\nCall-ID: cut\r\nCSeq: {cseq}\r\n{rest}"
        )
    };
    let invite = head(
        "INVITE sip:b@x SIP/2.0",
        "1 INVITE",
        &format!("Content-Type: application/sdp\r\nContent-Length: {}\r\n\r\n{sdp}", sdp.len()),
    );
    let sent = [
        (0, PHONE, invite.clone()),
        (500, PHONE, invite),
        (520, PBX, head("SIP/2.0 401 Unauthorized", "1 INVITE", "\r\n")),
        (530, PHONE, head("ACK sip:b@x SIP/2.0", "1 ACK", "\r\n")),
    ];
    let mut probe = Signalling::default();
    for (at, (ms, from, text)) in (0_u64..).zip(&sent) {
        let to = if *from == PHONE { PBX } else { PHONE };
        let flow = Flow { src: Endpoint::v4(*from, 5060), dst: Endpoint::v4(to, 5060) };
        let bytes = text.as_bytes();
        for (order, is_cut) in [(0, cut_first), (1, !cut_first)] {
            let time = Nanos((ms * 1_000 + order * 40) * 1_000);
            let (evidence, there) = if is_cut { (&other, &bytes[..snap]) } else { (&seen(), bytes) };
            let number = 2 * at + order + 1;
            probe.observe_part(time, number, flow, Transport::Udp, evidence, there, bytes.len());
        }
    }
    probe
}

#[test]
fn a_tap_with_a_shorter_snap_length_shows_copies_whichever_comes_first() {
    // From half a start line to all but the end of the shortest.
    for snap in 8..131 {
        for cut_first in [false, true] {
            let probe = snapped(snap, cut_first);
            let totals = probe.totals();
            let counted = (totals.messages, totals.copies, totals.retransmissions, totals.auth_challenges);
            let other = (totals.malformed, totals.defective, probe.copies().total());
            let call = &probe.calls().reports()[0];
            let of_call = (call.messages, call.message_copies, call.retransmissions, call.auth_challenges);
            let case = format!("{snap} octets, cut first: {cut_first}");
            assert_eq!((counted, of_call), ((4, 4, 1, 1), (4, 4, 1, 1)), "{case}");
            assert_eq!(other, (0, 0, 4), "{case}");
            assert_eq!(
                (probe.calls().len(), call.state, call.media.lines.len()),
                (1, CallState::Challenged, 1)
            );
        }
    }
}

#[test]
fn call_with_challenge_and_transfer_is_told_as_it_was() {
    let mut wire = Wire::new();
    whole_call(&mut wire);
    let report = wire.probe.report();
    let [call] = &report.calls[..] else { panic!("{:?}", report.calls) };
    assert_eq!((&*call.call_id, &*call.from, &*call.to), ("one", "sip:ann@pbx", "sip:bob@pbx"));
    assert_eq!((call.state, call.ended_by, call.final_code), (CallState::Ended, Some("called"), None));
    assert_eq!((call.setup_ms, call.ringing_ms, call.talked_ms), (Some(2012.0), Some(300.0), Some(8000.0)));
    assert_eq!((call.messages, call.message_copies, call.retransmissions), (CALL_MESSAGES, 0, 0));
    assert_eq!((call.auth_challenges, call.reinvites, call.seen_from_the_middle), (1, 0, false));
    let [transfer] = &call.transfers[..] else { panic!("{:?}", call.transfers) };
    assert_eq!((&*transfer.by, &*transfer.target), ("sip:ann@pbx", "sip:carol@pbx?Replaces=x"));
    assert_eq!(
        (transfer.answer, transfer.outcome, transfer.completed_ms),
        (Some(202), Some(200), Some(1500.0))
    );
    let what: Vec<_> = call.moments.iter().map(|moment| moment.what).collect();
    let expected = [
        What::Invite,
        What::Challenge(407),
        What::Ringing(180),
        What::Answer,
        What::Refer,
        What::Notify(100),
        What::Notify(200),
        What::Bye,
    ];
    assert_eq!(what, expected);
    assert_eq!(wire.probe.drain_events().count(), expected.len());
    assert_eq!(
        (report.sip.messages, report.sip.auth_challenges, report.sip.malformed),
        (CALL_MESSAGES, 1, 0)
    );
    assert_eq!(report.sip.kinds.requests("INVITE"), Tally { messages: 2, copies: 0 });
    assert_eq!(report.sip.kinds.responses(200), Tally { messages: 4, copies: 0 });
}

#[test]
fn story_of_four_captures_counts_no_retransmission() {
    let mut wire = Wire::tapped_as_in_the_story();
    whole_call(&mut wire);
    let report = wire.probe.report();
    let sip = &report.sip;
    assert_eq!((sip.messages, sip.copies, sip.retransmissions), (CALL_MESSAGES, 3 * CALL_MESSAGES, 0));
    assert_eq!((sip.auth_challenges, sip.repeats), (1, Repeats::default()));
    assert_eq!(sip.kinds.responses(407), Tally { messages: 1, copies: 3 });
    let call = &report.calls[0];
    assert_eq!(
        (call.messages, call.message_copies, call.transfers.len()),
        (CALL_MESSAGES, 3 * CALL_MESSAGES, 1)
    );
    let causes: Vec<_> = sip.causes.iter().map(|cause| (cause.cause, cause.count)).collect();
    assert_eq!(causes.iter().map(|(_, count)| count).sum::<u64>(), sip.copies);
    let product = [(Cause::ReEmitted, CALL_MESSAGES), (Cause::Encapsulated, 2 * CALL_MESSAGES)];
    assert!(product.iter().all(|kind| causes.contains(kind)) && causes.len() == 2, "{causes:?}");
    assert!(sip.causes.iter().any(|cause| cause.examples[0] == (1, 2)));
}

#[test]
fn each_retransmission_has_its_own_copies() {
    let mut wire = Wire::tapped_as_in_the_story();
    let invite = request("INVITE", 1, "");
    for ms in [0, 500, 1503, 3490, 7500, 15_500, 31_500] {
        wire.send(ms, PHONE, &invite);
    }
    let report = wire.probe.report();
    assert_eq!((report.sip.messages, report.sip.copies, report.sip.retransmissions), (7, 21, 6));
    assert_eq!(report.sip.repeats, Repeats { timer_a: 6, ..Repeats::default() });
    assert_eq!((report.calls[0].retransmissions, report.calls[0].message_copies), (6, 21));
}

#[test]
fn each_timer_is_known_by_its_gaps() {
    let e = [0, 500, 1500, 3500, 7500, 11_500, 15_500];
    let table: [(String, &[u64], Repeats); 6] = [
        (request("BYE", 5, "bob"), &e, Repeats { timer_e: 6, ..Repeats::default() }),
        (response(486, "1 INVITE"), &e, Repeats { timer_g: 6, ..Repeats::default() }),
        (
            response(200, "1 INVITE"),
            &[0, 605, 1620, 3640, 7690],
            Repeats { two_hundred: 4, ..Repeats::default() },
        ),
        // Two of the four were not captured.
        (request("OPTIONS", 1, ""), &[0, 3500, 7500], Repeats { timer_e: 2, ..Repeats::default() }),
        // An ACK and a 200 to BYE are sent again because something else was.
        (request("ACK", 1, "bob"), &[0, 500, 1500], Repeats { echoes: 2, ..Repeats::default() }),
        (request("OPTIONS", 1, ""), &[0, 900], Repeats { unscheduled: 1, ..Repeats::default() }),
    ];
    for (message, times, expected) in table {
        let mut wire = Wire::new();
        for ms in times {
            wire.send(*ms, PHONE, &message);
        }
        assert_eq!(wire.probe.totals().repeats, expected, "{message}");
    }
}

#[test]
fn shortened_t1_is_learned_from_its_doubling() {
    let mut wire = Wire::new();
    let repeats: Vec<_> = [0, 200, 600, 1400, 3000]
        .into_iter()
        .map(|ms| wire.send(ms, PHONE, &request("INVITE", 1, "")))
        .map(|observed| match observed {
            Observed::Messages { repeat, .. } => repeat,
            other => panic!("{other:?}"),
        })
        .collect();
    let a = Some(Repeat::Timer(Timer::A));
    assert_eq!(repeats, [None, Some(Repeat::Unscheduled), a, a, a]);
    let report = wire.probe.report();
    assert_eq!(report.sip.repeats, Repeats { timer_a: 4, ..Repeats::default() });
    assert_eq!((report.sip.retransmissions, report.calls[0].retransmissions), (4, 4));
    assert_eq!(report.sip.unscheduled, [], "the first has found its reason");
}

/// Always 100 ms late at one tap: as a copy may be, but under other IP IDs it was sent anew each time.
#[test]
fn a_t1_of_100_ms_is_a_timer_and_no_copy_that_is_always_late() {
    let mut wire = Wire::new();
    let flow = Flow { src: Endpoint::v4(PHONE, 5060), dst: Endpoint::v4(PBX, 5060) };
    let mut ip_id = 0;
    for message in 0..6_u32 {
        let text = request("OPTIONS", message, "");
        for ms in [0, 100, 300, 700] {
            ip_id += 1;
            wire.capture(u64::from(message) * 40_000 + ms, 0, flow, &Evidence { ip_id, ..seen() }, &text);
        }
    }
    let sip = wire.probe.report().sip;
    assert_eq!(sip.repeats, Repeats { timer_e: 18, ..Repeats::default() });
    assert_eq!((sip.messages, sip.copies, sip.retransmissions, sip.unscheduled.len()), (24, 0, 18, 0));
}

/// A short gap that doubles at another tap may be that tap's lateness.
#[test]
fn a_tap_that_is_late_is_no_timer_with_a_short_t1() {
    let rpcap = Encapsulation::NONE.with(Layer::Rpcap).unwrap();
    let late = Evidence { encapsulation: rpcap, carrier: Carrier(1), ..seen() };
    for (third, expected) in [(seen(), 1), (late, 0)] {
        let mut wire = Wire::new();
        let flow = Flow { src: Endpoint::v4(PHONE, 5060), dst: Endpoint::v4(PBX, 5060) };
        let text = request("OPTIONS", 1, "");
        for (ms, evidence) in [(0, seen()), (90, seen()), (270, third)] {
            wire.capture(ms, 0, flow, &evidence, &text);
        }
        let sip = wire.probe.report().sip;
        let told: Vec<_> =
            sip.unscheduled.iter().map(|again| (again.of, again.frame, again.gap_ms)).collect();
        let unexplained = [(1, 2, 90.0), (2, 3, 180.0)];
        assert_eq!(told, if expected == 0 { &unexplained[..] } else { &[] });
        assert_eq!((sip.repeats.timer_e, sip.repeats.unscheduled), (2 * expected, 2 - 2 * expected));
    }
}

#[test]
fn reliable_provisional_runs_a_timer_and_plain_ringing_does_not() {
    for (more, expected) in [
        ("RSeq: 1\r\n\r\n", Repeats { provisional: 2, ..Repeats::default() }),
        ("\r\n", Repeats { echoes: 2, ..Repeats::default() }),
    ] {
        let mut wire = Wire::new();
        for ms in [0, 500, 1500] {
            wire.send(ms, PBX, &head("SIP/2.0 183 Progress", "1 INVITE", "bob", more));
        }
        assert_eq!(wire.probe.totals().repeats, expected);
    }
}

#[test]
fn another_branch_is_another_transaction() {
    let mut wire = Wire::new();
    for n in 0..5_u64 {
        let again = request("REGISTER", 1, "").replace("z9hG4bK", &format!("z9hG4bK-{n}-"));
        wire.send(n * 500, PHONE, &again);
    }
    let totals = wire.probe.totals();
    assert_eq!((totals.messages, totals.retransmissions, totals.copies), (5, 0, 0));
    assert!(wire.probe.calls().is_empty(), "a registration is no call");
}

#[test]
fn late_frame_is_a_copy_only_from_another_tap() {
    let elsewhere = Evidence { tap: Tap::new(1, false), ..seen() };
    let flow = Flow { src: Endpoint::v4(PHONE, 5060), dst: Endpoint::v4(PBX, 5060) };
    let options = request("OPTIONS", 1, "");
    for (us, evidence, is_copy) in [
        (19_000, seen(), true),
        (21_000, seen(), false),
        (120_000, elsewhere, true),
        (126_000, elsewhere, false),
    ] {
        let mut wire = Wire::new();
        wire.send(0, PHONE, &options);
        let observed = wire.capture(0, us, flow, &evidence, &options);
        assert_eq!(matches!(observed, Observed::Copy { of: 1, .. }), is_copy, "{us} us");
    }
}

#[test]
fn media_follows_offer_answer_and_end() {
    let mut wire = Wire::new();
    whole_call(&mut wire);
    let media = wire.probe.media();
    let (offer, answer) = (media.lookup(&rtp(PHONE, 4000)), media.lookup(&rtp(PBX, 6000)));
    assert!(wire.probe.report().calls[0].media.ids().eq([offer, answer]));
    assert_eq!(&*media.info(answer).unwrap().call_id, "one");
    assert_eq!(media.info(offer).unwrap().announced_at, 1);
    wire.probe.advance(Nanos(10_012 * MS + media::GRACE.0));
    assert_eq!(wire.probe.media().lookup(&rtp(PHONE, 4000)), MediaId::UNANNOUNCED);
    let changes = wire.probe.media_mut().drain_changes().collect::<Vec<_>>();
    let added = changes.iter().filter(|change| matches!(change, EndpointChange::Added(_))).count();
    assert_eq!((added, changes.len()), (4, 8), "RTP and RTCP, on and off");
}

#[test]
fn hold_moves_nothing_and_a_new_port_replaces_the_old_after_the_grace() {
    let mut wire = Wire::new();
    wire.send(0, PHONE, &with_sdp(&request("INVITE", 1, ""), PHONE, 4000));
    wire.send(9, PBX, &with_sdp(&response(200, "1 INVITE"), PBX, 6000));
    let hold = with_sdp(&request("INVITE", 2, "bob"), PHONE, 4000)
        .replace("RTP/AVP 0\r\n", "RTP/AVP 0\r\na=sendonly\r\n");
    let hold = hold.replace("Content-Length: ", "X-Was: ");
    wire.send(100, PHONE, &hold);
    wire.send(9000, PHONE, &with_sdp(&request("INVITE", 3, "bob"), PHONE, 4400));
    wire.probe.advance(Nanos(9000 * MS + media::GRACE.0));
    assert_ne!(wire.probe.media().lookup(&rtp(PHONE, 4000)), MediaId::UNANNOUNCED, "not answered yet");
    wire.send(20_000, PBX, &with_sdp(&response(200, "3 INVITE"), PBX, 6000));
    let media = wire.probe.media();
    assert_ne!(media.lookup(&rtp(PHONE, 4000)), MediaId::UNANNOUNCED);
    assert_ne!(media.lookup(&rtp(PHONE, 4400)), MediaId::UNANNOUNCED);
    wire.probe.advance(Nanos(20_000 * MS + media::GRACE.0));
    assert_eq!(wire.probe.media().lookup(&rtp(PHONE, 4000)), MediaId::UNANNOUNCED);
    let report = wire.probe.report();
    let holds = report.calls[0].moments.iter().filter(|m| matches!(m.what, What::Hold(_))).count();
    assert_eq!((report.calls[0].reinvites, holds, report.calls[0].state), (2, 1, CallState::Answered));
}

#[test]
fn refused_reinvite_does_not_fail_the_call() {
    let mut wire = Wire::new();
    wire.send(0, PHONE, &request("INVITE", 1, ""));
    wire.send(9, PBX, &response(200, "1 INVITE"));
    wire.send(100, PHONE, &request("INVITE", 2, "bob"));
    wire.send(109, PBX, &response(488, "2 INVITE"));
    assert_eq!(wire.probe.report().calls[0].state, CallState::Answered);
}

#[test]
fn refusals_and_cancels_have_their_words_and_withdraw_the_offer() {
    for (code, cancel, word) in [(486, false, "failed"), (487, true, "cancelled"), (401, false, "challenged")]
    {
        let mut wire = Wire::new();
        wire.send(0, PHONE, &with_sdp(&request("INVITE", 1, ""), PHONE, 4000));
        wire.send(5, PBX, &response(180, "1 INVITE"));
        if cancel {
            wire.send(8, PHONE, &request("CANCEL", 1, ""));
        }
        wire.send(9, PBX, &response(code, "1 INVITE"));
        wire.probe.advance(Nanos(9 * MS + media::GRACE.0));
        assert_eq!(wire.probe.report().calls[0].state.word(), word);
        assert!(wire.probe.media().is_empty(), "{code}");
        // A fork's other branch may still answer.
        wire.send(6000, PBX, &response(200, "1 INVITE"));
        assert_ne!(wire.probe.media().lookup(&rtp(PHONE, 4000)), MediaId::UNANNOUNCED, "{code}");
        assert_eq!(wire.probe.report().calls[0].setup_ms, Some(6000.0));
    }
}

#[test]
fn call_id_that_is_used_again_is_another_call() {
    let mut wire = Wire::new();
    wire.send(0, PHONE, &request("INVITE", 1, ""));
    wire.send(9, PHONE, &request("BYE", 2, "bob"));
    wire.send(9000, PHONE, &request("INVITE", 1, "").replace("tag=ann", "tag=other"));
    let states: Vec<_> = wire.probe.report().calls.iter().map(|call| call.state).collect();
    assert_eq!(states, [CallState::Ended, CallState::Inviting]);
}

#[test]
fn messages_in_a_stream_are_found_wherever_segments_end() {
    let one = request("INVITE", 1, "").replace("\r\n\r\n", "\r\nl: 0\r\n\r\n");
    let two = request("ACK", 1, "bob").replace("\r\n\r\n", "\r\nl: 3\r\n\r\nabc");
    let stream = [one.as_bytes(), two.as_bytes(), b"\r\n\r\n", one.as_bytes()].concat();
    for cut in 1..stream.len() {
        let mut wire = Wire::new();
        wire.segment(0, &stream[..cut]);
        wire.segment(1, &stream[cut..]);
        let totals = wire.probe.totals();
        assert_eq!((totals.messages, totals.sip_tcp_partial, totals.malformed), (3, 0, 0), "cut at {cut}");
    }
}

#[test]
fn segments_sent_or_captured_again_add_no_message() {
    let mut wire = Wire::new();
    let text = request("OPTIONS", 1, "").replace("\r\n\r\n", "\r\nl: 0\r\n\r\n");
    wire.segment(0, text.as_bytes());
    wire.tcp_seq = 1;
    assert!(matches!(wire.segment(1, text.as_bytes()), Observed::Copy { of: 1, .. }));
    wire.tcp_seq = 1;
    assert_eq!(wire.segment(300, text.as_bytes()), Observed::Part);
    let totals = wire.probe.totals();
    assert_eq!((totals.messages, totals.copies, totals.tcp_retransmissions), (1, 1, 1));
    assert_eq!(totals.kinds.requests("OPTIONS"), Tally { messages: 1, copies: 1 });
}

#[test]
fn keep_alives_and_other_protocols_are_named_not_counted_as_messages() {
    let mut wire = Wire::new();
    assert_eq!(wire.send(0, PHONE, "\r\n\r\n"), Observed::KeepAlive);
    assert!(matches!(wire.send(1, PHONE, "GET / HTTP/1.1\r\n\r\n"), Observed::Malformed(_)));
    let totals = wire.probe.totals();
    assert_eq!((totals.messages, totals.keep_alives, totals.malformed), (0, 1, 1));
}

#[test]
fn flood_of_new_calls_stays_bounded_and_is_counted() {
    let limits = Limits { calls: 500, media_lines: 300, ..Limits::default() };
    let mut wire = Wire { probe: Signalling::new(limits), ..Wire::new() };
    for n in 0..20_000_u64 {
        let method = format!("X{n}");
        let invite =
            with_sdp(&request("INVITE", 1, ""), PHONE, 1024 + 2 * u16::try_from(n % 30_000).unwrap());
        wire.send(n, PHONE, &invite.replace("Call-ID: one", &format!("Call-ID: {n}")));
        if n % 3 == 0 {
            let bye = request("BYE", 2, "bob").replace("Call-ID: one", &format!("Call-ID: {n}"));
            wire.send(n, PHONE, &bye);
        }
        wire.send(n, PHONE, &request(&method, 1, ""));
    }
    let report = wire.probe.report();
    assert_eq!((report.calls.len(), wire.probe.media().len()), (500, 300));
    let given_up = report.given_up;
    assert_eq!(given_up.ended_calls + given_up.live_calls, 19_500);
    assert!(given_up.ended_calls > 6000 && given_up.media_lines > 0, "{given_up:?}");
    assert!(report.sip.kinds.iter().count() <= 66);
}

#[test]
fn flood_of_large_descriptions_stays_bounded_in_bytes() {
    let limits = Limits { calls: 50, ..Limits::default() };
    let mut wire = Wire { probe: Signalling::new(limits), ..Wire::new() };
    let text = "x".repeat(1_000);
    let sections = (0..16_u16)
        .map(|n| {
            format!("m=audio {} RTP/AVP 96\r\na=rtpmap:96 {text}/8000\r\na=fmtp:96 {text}\r\n", 5_000 + 2 * n)
        })
        .collect::<Vec<_>>()
        .concat();
    let sdp = format!("v=0\r\nc=IN IP4 10.0.0.1\r\n{sections}");
    let head = request("INVITE", 1, "");
    let head = head.strip_suffix("\r\n").unwrap();
    for n in 0..2_000_u64 {
        let invite =
            format!("{head}Content-Type: application/sdp\r\nContent-Length: {}\r\n\r\n{sdp}", sdp.len());
        wire.send(n, PHONE, &invite.replace("Call-ID: one", &format!("Call-ID: {n}")));
    }
    let report = wire.probe.report();
    let bytes = |call: &CallReport| call.media.lines.iter().map(|line| line.info.held_bytes()).sum::<usize>();
    let all: Vec<_> = report.calls.iter().map(bytes).collect();
    assert!(all.iter().all(|bytes| (16 * 320..16 * 1_024).contains(bytes)), "{all:?}");
    assert!((50 * 6_000..50 * 8_192 + 16_384).contains(&all.iter().sum::<usize>()), "{all:?}");
    assert_eq!(report.given_up.live_calls, 2_000 - all.len() as u64);
}

/// Who describes himself under ever other tags is as many parties, each with lines of its own, and names for them.
#[test]
fn flood_of_parties_stays_bounded_in_bytes() {
    let limits = Limits { calls: 10, ..Limits::default() };
    let mut wire = Wire { probe: Signalling::new(limits), ..Wire::new() };
    let mid = "m".repeat(1_000);
    let sections =
        (0..16).map(|_| format!("m=audio 0 RTP/AVP 0\r\na=mid:{mid}\r\n")).collect::<Vec<_>>().concat();
    let sdp = format!("v=0\r\nc=IN IP4 10.0.0.1\r\n{sections}");
    let body = format!("Content-Type: application/sdp\r\nContent-Length: {}\r\n\r\n{sdp}", sdp.len());
    for call in 0..40_u64 {
        for party in 0..16 {
            let head = request("INVITE", 1, "bob");
            let head = head.strip_suffix("\r\n").unwrap().replace("tag=", &format!("tag={party}"));
            wire.send(
                call,
                PHONE,
                &format!("{head}{body}").replace("Call-ID: one", &format!("Call-ID: {call}")),
            );
        }
    }
    let kept = wire.probe.report().calls.len();
    assert!((4..10).contains(&kept), "{kept} calls of 16 parties with 16 lines each");
}

#[test]
fn copy_of_junk_is_no_copy_of_a_message() {
    let mut wire = Wire::tapped_as_in_the_story();
    wire.send(0, PHONE, "GET / HTTP/1.1\r\n\r\n");
    let report = wire.probe.report();
    assert_eq!((report.sip.malformed, report.sip.copies, report.sip.causes.len()), (1, 0, 0));
}

#[test]
fn call_takes_less_than_a_kibibyte_before_its_texts() {
    assert!(size_of::<crate::sip::CallReport>() < 512, "{}", size_of::<crate::sip::CallReport>());
    assert!(size_of::<crate::sip::calls::Moment>() <= 32);
}

mod properties {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        /// Frames of a real call in any order, at any time, from any tap, with bytes changed: each is accounted for once,
        /// and the kernel's map is what the table says.
        #[test]
        fn every_frame_is_accounted_for_and_the_kernel_follows(
            steps in proptest::collection::vec((0..16_usize, 0..4000_u64, 0..3_u16, any::<Option<(u16, u8)>>()), 1..120),
        ) {
            let mut story = Wire::new();
            whole_call(&mut story);
            let mut wire = Wire::new();
            let mut kernel = BTreeSet::new();
            let (mut messages, mut copies, mut others, mut ms) = (0, 0, 0, 0);
            for (which, pause, tap, edit) in steps {
                ms += pause * pause / 4000;
                let (flow, text) = &story.sent[which];
                let mut bytes = text.clone().into_bytes();
                if let Some((at, byte)) = edit {
                    let at = usize::from(at) % bytes.len();
                    bytes[at] = byte;
                }
                let evidence = Evidence { tap: Tap::new(tap, false), ..seen() };
                let time = Nanos(ms * MS);
                match wire.probe.observe(time, ms, *flow, Transport::Udp, &evidence, &bytes) {
                    Observed::Messages { count, .. } => messages += u64::from(count),
                    Observed::Copy { .. } => copies += 1,
                    _ => others += 1,
                }
                for change in wire.probe.media_mut().drain_changes() {
                    match change {
                        EndpointChange::Added(endpoint) => prop_assert!(kernel.insert(endpoint)),
                        EndpointChange::Removed(endpoint) => prop_assert!(kernel.remove(&endpoint)),
                    }
                }
            }
            let report = wire.probe.report();
            let sip = &report.sip;
            prop_assert_eq!(sip.messages, messages);
            prop_assert_eq!(sip.malformed + sip.keep_alives, others);
            prop_assert!(sip.copies <= copies);
            let by_kind: u64 = sip.kinds.iter().map(|(_, tally)| tally.messages).sum();
            prop_assert_eq!(by_kind, messages);
            prop_assert_eq!(sip.retransmissions, sip.repeats.retransmissions());
            prop_assert!(report.calls.iter().map(|call| call.messages).sum::<u64>() <= messages);
            for endpoint in &kernel {
                prop_assert!(probe_ebpf::Endpoints::is_announced(wire.probe.media(), &endpoint.key()));
            }
            wire.probe.advance(Nanos((ms + 10_000_000) * MS));
        }
    }
}

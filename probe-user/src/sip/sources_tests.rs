//! Requests outside calls, sources that flood, scan or are refused, and calls that fall silent.

use super::testing::*;
use super::*;
use crate::packet::MediaId;
use crate::sip::calls::{CallState, What};
use crate::sip::sources::Suspicion;

const SECOND: u64 = 1_000;

fn register(n: u32, more: &str) -> String {
    head("REGISTER sip:pbx SIP/2.0", &format!("{n} REGISTER"), "", &format!("{more}\r\n"))
        .replace("bob@pbx", "ann@pbx")
}

#[test]
fn registrations_are_told_by_what_came_of_them() {
    let mut wire = Wire::new();
    let agent = "User-Agent: Phone 1\r\n";
    for (n, more, code, answer) in [
        (1, agent, 401, ""),
        (2, agent, 200, "Contact: <sip:ann@10.0.0.1>;expires=120\r\n"),
        (3, agent, 200, "Expires: 3600\r\n"),
        (4, "Contact: *\r\nExpires: 0\r\n", 200, ""),
        (5, "", 403, ""),
    ] {
        wire.send(u64::from(n) * SECOND, PHONE, &register(n, more));
        let answer =
            head(&format!("SIP/2.0 {code} X"), &format!("{n} REGISTER"), "r", &format!("{answer}\r\n"));
        wire.send(u64::from(n) * SECOND + 5, PBX, &answer.replace("bob@pbx", "ann@pbx"));
    }
    wire.send(9 * SECOND, PHONE, &register(6, ""));
    let sip = wire.probe.report().sip;
    let told = &sip.registrations;
    assert_eq!((told.accepted, told.removed, told.challenged, told.users), (3, 1, 1, 1));
    assert_eq!(told.refused.iter().map(|(code, count)| (*code, *count)).collect::<Vec<_>>(), [(403, 1)]);
    assert_eq!(told.expires_s, Some((120, 3600)));
    assert_eq!((&*told.user_agents[0].name, told.user_agents[0].requests), ("Phone 1", 3));
    let outcomes = sip.transactions.of("REGISTER");
    assert_eq!((outcomes.requests, outcomes.success, outcomes.refused, outcomes.open), (6, 3, 1, 1));
    assert!(wire.probe.calls().is_empty() && sip.suspects.is_empty());
}

/// The only suspect.
fn suspect(wire: &Wire) -> crate::sip::sources::Suspect {
    let suspects = wire.probe.report().sip.suspects;
    let [suspect] = &suspects[..] else { panic!("{suspects:?}") };
    suspect.clone()
}

#[test]
fn passwords_that_are_refused_again_and_again_name_their_source() {
    let mut wire = Wire::new();
    for n in 1..=25 {
        wire.send(u64::from(n) * 100, PHONE, &register(n, ""));
        let answer = head("SIP/2.0 401 Unauthorized", &format!("{n} REGISTER"), "r", "\r\n");
        wire.send(u64::from(n) * 100 + 5, PBX, &answer);
    }
    let suspect = suspect(&wire);
    assert_eq!((suspect.kind, suspect.challenged), (Suspicion::RefusedRegistrations, 25));
    assert_eq!(suspect.address.map(|address| address.to_string()).as_deref(), Some("10.0.0.1"));
    assert_eq!(suspect.got_in, None);
}

#[test]
fn a_password_that_was_guessed_names_the_account_and_the_frame() {
    let mut wire = Wire::new();
    let tries = 30;
    for n in 1..=tries {
        wire.send(u64::from(n) * 100, PHONE, &register(n, ""));
        let status = if n == tries { "200 OK" } else { "403 Forbidden" };
        let answer = head(&format!("SIP/2.0 {status}"), &format!("{n} REGISTER"), "r", "\r\n");
        wire.send(u64::from(n) * 100 + 5, PBX, &answer.replace("bob@pbx", "ann@pbx"));
    }
    let got_in = suspect(&wire).got_in.unwrap();
    assert_eq!((got_in.frame, &*got_in.user, got_in.refused_before), (60, "sip:ann@pbx", 29));
}

/// INVITEs with credentials, each answered so.
fn with_credentials(codes: &[u16], challenge: &str) -> Wire {
    let mut wire = Wire::new();
    for (cseq, &code) in (1_u32..).zip(codes) {
        let credentials = if cseq == 1 { "" } else { "Proxy-Authorization: Digest username=\"ann\"\r\n" };
        let invite =
            head("INVITE sip:bob@pbx SIP/2.0", &format!("{cseq} INVITE"), "", &format!("{credentials}\r\n"));
        let at = u64::from(cseq) * 100;
        wire.send(at, PHONE, &invite);
        let more = format!("Proxy-Authenticate: {challenge}\r\n\r\n");
        wire.send(at + 5, PBX, &head(&format!("SIP/2.0 {code} X"), &format!("{cseq} INVITE"), "bob", &more));
        wire.send(at + 10, PHONE, &request("ACK", cseq, "bob"));
    }
    wire
}

#[test]
fn credentials_that_are_refused_twice_and_never_accepted_are_told() {
    let digest = "Digest realm=\"pbx\", nonce=\"1\"";
    let report = with_credentials(&[407, 407, 407], digest).probe.report();
    let refused = report.sip.auth_refused;
    assert_eq!((refused.requests, refused.challenges, refused.first_frame), (1, 3, Some(5)));
    assert_eq!((report.calls[0].auth_challenges, report.calls[0].credentials_refused), (3, 2));
}

#[test]
fn a_typing_error_a_second_challenge_and_an_old_nonce_are_ordinary() {
    let digest = "Digest realm=\"pbx\", nonce=\"1\"";
    for (codes, challenge) in [
        (&[407, 200][..], digest),
        (&[407, 401, 200], digest),
        (&[407, 407, 407, 200], digest),
        (&[407, 407], digest),
        (&[407, 407, 407], "Digest realm=\"pbx\", nonce=\"2\", Stale=TRUE"),
    ] {
        let refused = with_credentials(codes, challenge).probe.report().sip.auth_refused;
        assert_eq!(refused, crate::sip::AuthRefused::default(), "{codes:?} {challenge}");
    }
}

#[test]
fn scanners_are_known_by_name_and_by_users_that_do_not_exist() {
    let named = head("OPTIONS sip:100@pbx SIP/2.0", "1 OPTIONS", "", "User-Agent: friendly-scanner\r\n\r\n");
    let mut wire = Wire::new();
    wire.send(0, PHONE, &named);
    assert_eq!(suspect(&wire).kind, Suspicion::Scan);
    for (code, is_scan) in [(404, true), (200, false)] {
        let mut wire = Wire::new();
        for n in 0..40_u32 {
            let user = |text: String| text.replace("bob@pbx", &format!("{n}@pbx"));
            let cseq = format!("{n} OPTIONS");
            wire.send(u64::from(n) * 10, PHONE, &user(request("OPTIONS", n, "")));
            wire.send(u64::from(n) * 10 + 5, PBX, &user(response(code, &cseq)));
        }
        let suspects = wire.probe.report().sip.suspects;
        assert_eq!(suspects.len(), usize::from(is_scan), "{code}: {suspects:?}");
    }
}

/// Calls begun at once, of which a share is answered, with room for so many.
fn burst(calls: u32, is_answered: impl Fn(u32) -> bool, room: usize, from: impl Fn(u32) -> [u8; 4]) -> Wire {
    let mut wire = Wire::new();
    wire.probe = Signalling::new(Limits { calls: room, ..Limits::default() });
    for n in 0..calls {
        let of = |text: String| text.replace("Call-ID: one", &format!("Call-ID: {n}"));
        let flow = Flow {
            src: crate::packet::Endpoint::v4(from(n), 5060),
            dst: crate::packet::Endpoint::v4(PBX, 5060),
        };
        wire.capture(u64::from(n) * 2, 0, flow, &seen(), &of(request("INVITE", 1, "")));
        if is_answered(n) {
            let back = Flow { src: flow.dst, dst: flow.src };
            wire.capture(u64::from(n) * 2 + 1, 0, back, &seen(), &of(response(200, "1 INVITE")));
        }
    }
    wire
}

#[test]
fn flood_of_invites_is_named_with_its_source_and_a_trunk_is_not() {
    let flood = suspect(&burst(2_000, |n| n % 100 == 0, 500, |_| PHONE));
    assert_eq!((flood.kind, flood.calls, flood.peak_calls_per_s), (Suspicion::InviteFlood, 2_000, 500));
    assert_eq!((flood.made_room, flood.accepted), (1_500, 20));
    let trunk = burst(2_000, |n| n % 2 == 0, 5_000, |_| PHONE);
    assert_eq!(trunk.probe.report().sip.suspects, []);
    // At the capture's end most of them may ring still.
    let mut ringing = burst(2_000, |n| n == 0, 5_000, |_| PHONE);
    for n in 0..2_000 {
        let of = response(180, "1 INVITE").replace("Call-ID: one", &format!("Call-ID: {n}"));
        ringing.send(5_000 + n, PBX, &of);
    }
    assert_eq!(ringing.probe.report().sip.suspects, []);
}

#[test]
fn flood_from_everywhere_is_named_without_a_source() {
    let from = |n: u32| {
        let [_, a, b, c] = n.to_be_bytes();
        [11, a, b, c]
    };
    let flood = suspect(&burst(6_000, |_| false, 500, from));
    assert_eq!((flood.address, flood.calls, flood.made_room), (None, 6_000, 5_500));
    assert!((4_800..7_200).contains(&flood.users), "{}", flood.users);
}

#[test]
fn call_of_which_nothing_is_heard_any_more_is_lost_sight_of_and_comes_back() {
    let mut wire = Wire::new();
    wire.send(0, PHONE, &with_sdp(&request("INVITE", 1, ""), PHONE, 4000));
    wire.send(9, PBX, &with_sdp(&response(200, "1 INVITE"), PBX, 6000));
    let state = |wire: &Wire| wire.probe.calls().find("one").unwrap().state;
    let (media, at) =
        (wire.probe.media().lookup(&rtp(PHONE, 4000)), |seconds: u64| Nanos(seconds * 1_000 * MS));
    assert_ne!(media, MediaId::UNANNOUNCED);
    wire.probe.media_mut().touch(media, at(1_700));
    wire.probe.advance(at(3_400));
    assert_eq!(state(&wire), CallState::Answered, "its media was seen");
    wire.probe.advance(at(3_501));
    assert_eq!((state(&wire), wire.probe.calls().live()), (CallState::LostSight, 0));
    assert_eq!(wire.probe.drain_events().next_back().unwrap().moment.what, What::LostSight);
    wire.send(3_600 * SECOND, PHONE, &request("INVITE", 2, "bob"));
    assert_eq!((state(&wire), wire.probe.calls().live()), (CallState::Answered, 1));
    wire.probe.advance(at(9_000));
    assert_eq!((state(&wire), wire.probe.report().sip.calls_lost_sight), (CallState::LostSight, 2));
}

#[test]
fn what_is_lost_sight_of_is_what_was_known_of_it() {
    let cancel = request("CANCEL", 1, "").replace("bK1CANCEL", "bK1INVITE");
    let timer = head("SIP/2.0 200 OK", "1 INVITE", "bob", "Session-Expires: 90\r\n\r\n");
    let behind = request("INVITE", 1, "").replace("bK1INVITE", "bK-b");
    let refused = response(486, "1 INVITE").replace("bK1INVITE", "bK-b");
    let table = [
        (vec![], 301, CallState::LostSight),
        (vec![(PBX, response(180, "1 INVITE"))], 301, CallState::LostSight),
        (vec![(PHONE, cancel)], 301, CallState::Cancelled),
        (vec![(PBX, timer)], 123, CallState::LostSight),
        (vec![(PBX, behind), (PHONE, refused)], 301, CallState::Failed(486)),
    ];
    for (messages, seconds, state) in table {
        let mut wire = Wire::new();
        wire.send(0, PHONE, &request("INVITE", 1, ""));
        for (from, text) in &messages {
            wire.send(5, *from, text);
        }
        let now = |wire: &Wire| wire.probe.calls().find("one").unwrap().state;
        wire.probe.advance(Nanos((seconds - 2) * 1_000 * MS));
        assert!(!now(&wire).is_over(), "{messages:?}");
        wire.probe.advance(Nanos(seconds * 1_000 * MS));
        assert_eq!(now(&wire), state, "{messages:?}");
    }
}

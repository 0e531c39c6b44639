//! Whatever comes in whatever order: no panic, and every count adds up.

use proptest::prelude::*;

use super::testing::*;
use super::*;
use crate::sip::calls::CallState;

const METHODS: [&str; 10] =
    ["INVITE", "ACK", "CANCEL", "BYE", "PRACK", "UPDATE", "REFER", "NOTIFY", "OPTIONS", "REGISTER"];
const CODES: [u16; 10] = [100, 180, 183, 200, 202, 302, 401, 486, 487, 603];
const MORE: [&str; 8] = [
    "",
    "Replaces: 1;to-tag=a;from-tag=b\r\n",
    "X-CID: 2\r\n",
    "Refer-To: <sip:carol@pbx?Replaces=2%3Bto-tag%3Da>\r\nReferred-By: <sip:ann@pbx>\r\n",
    "Session-Expires: 90\r\nRSeq: 1\r\n",
    "Event: refer\r\n",
    "Reason: Q.850;cause=16\r\n",
    "Referred-By: <sip:ann@pbx>\r\n",
];

#[derive(Clone, Debug)]
struct Step {
    pause_ms: u64,
    is_phones: bool,
    /// A request of this method, or a response of this code to it.
    method: &'static str,
    code: Option<u16>,
    call: u8,
    tags: (u8, u8),
    cseq: u32,
    branch: u8,
    more: &'static str,
    /// Direction of its SDP, if it has any.
    sdp: Option<&'static str>,
}

fn step() -> impl Strategy<Value = Step> {
    let sdp =
        proptest::option::of(proptest::sample::select(vec!["sendrecv", "sendonly", "recvonly", "inactive"]));
    let code = proptest::option::of(proptest::sample::select(CODES.to_vec()));
    let who = (any::<bool>(), 0..3_u8, (0..3_u8, 0..3_u8), 1..4_u32, 0..4_u8);
    let what =
        (proptest::sample::select(METHODS.to_vec()), code, proptest::sample::select(MORE.to_vec()), sdp);
    let pause = prop_oneof![8 => 0..700_u64, 1 => Just(40_000_u64), 1 => Just(2_000_000_u64)];
    (pause, who, what).prop_map(
        |(pause_ms, (is_phones, call, tags, cseq, branch), (method, code, more, sdp))| Step {
            pause_ms,
            is_phones,
            method,
            code,
            call,
            tags,
            cseq,
            branch,
            more,
            sdp,
        },
    )
}

fn text(step: &Step) -> String {
    let start = step.code.map_or_else(
        || format!("{} sip:bob@pbx SIP/2.0", step.method),
        |code| format!("SIP/2.0 {code} Some"),
    );
    let tag = |n: u8| if n == 0 { String::new() } else { format!(";tag={n}") };
    let body = step.sdp.map_or(String::new(), |direction| {
        format!("v=0\r\nc=IN IP4 10.0.0.1\r\nm=audio 4000 RTP/AVP 0\r\na={direction}\r\n")
    });
    format!(
        "{start}\r\nVia: SIP/2.0/UDP h;branch=z9hG4bK{}\r\nFrom: <sip:ann@pbx>{}\r\nTo: <sip:bob@pbx>{}\r\nCall-ID: {}\r\n\
         CSeq: {} {}\r\n{}Content-Type: application/sdp\r\nContent-Length: {}\r\n\r\n{body}",
        step.branch,
        tag(step.tags.0 + 1),
        tag(step.tags.1),
        step.call,
        step.cseq,
        step.method,
        step.more,
        body.len()
    )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn every_count_adds_up(steps in proptest::collection::vec(step(), 1..80), room in 1..5_usize) {
        let mut wire = Wire::new();
        wire.probe = Signalling::new(Limits { calls: room, follow_calls: true, ..Limits::default() });
        let mut ms = 0;
        for step in &steps {
            ms += step.pause_ms;
            wire.send(ms, if step.is_phones { PHONE } else { PBX }, &text(step));
            let calls = wire.probe.calls();
            let live = calls.reports().iter().filter(|call| !call.state.is_over()).count();
            prop_assert_eq!(calls.live(), live);
        }
        wire.probe.advance(Nanos((ms + 10_000_000) * MS));
        prop_assert_eq!(wire.probe.calls().live(), 0, "nothing stays open for ever");
        let events: Vec<_> = wire.probe.drain_events().collect();
        let report = wire.probe.report();
        for (method, outcomes) in report.sip.transactions.iter() {
            let known = outcomes.success
                + outcomes.redirected
                + outcomes.challenged
                + outcomes.refused
                + outcomes.failed
                + outcomes.declined;
            let rest = outcomes.unanswered + outcomes.open + outcomes.forgotten;
            prop_assert_eq!(outcomes.requests, known + rest, "{}", method);
        }
        prop_assert!(report.calls.len() <= room);
        for call in &report.calls {
            let by_timer: u32 = call.timers.iter().map(|(_, count)| count).sum();
            prop_assert_eq!(call.retransmissions, u64::from(by_timer));
            prop_assert!(call.held.len() <= call.holds as usize);
            prop_assert!(usize::from(call.forks) <= call.dialogs.iter().count());
            prop_assert!(call.talked_ms.is_none() || call.state == CallState::Ended);
            prop_assert!(call.ended_by.is_none() || matches!(call.state, CallState::Ended | CallState::Cancelled));
            prop_assert!(events.iter().filter(|event| event.call_id == call.call_id).count() >= call.moments.len());
        }
    }
}

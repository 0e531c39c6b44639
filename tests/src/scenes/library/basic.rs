//! Calls as they begin and end (RFC 3261), and what timers send again.

use super::{Scene, answer, established, offer, phone_to_pbx, scene, set_up, talk};
use crate::scenes::call::{Call, Side, with_sdp};
use crate::scenes::party::Party;
use crate::scenes::speech::Speech;
use crate::scenes::stage::Stage;
use crate::sip::message::Message;

pub(super) const SCENES: &[Scene] = &[
    scene("plain", "a call: rings, is answered, ends", plain),
    scene("ended-by-called", "the called hangs up, and says why (Reason, Q.850)", ended_by_called),
    scene("challenged", "407 first, then with credentials", challenged),
    scene("busy", "486", busy),
    scene("cancelled", "the caller gives up while it rings: CANCEL, 487", cancelled),
    scene(
        "cancel-too-late",
        "CANCEL and 200 cross: the call is answered, and the caller hangs up",
        cancel_too_late,
    ),
    scene("no-answer", "408 after half a minute of ringing", no_answer),
    scene("unauthorized", "407, and the caller has no credentials", unauthorized),
    scene("redirected", "302, and the caller leaves it at that", redirected),
    scene("redirect-followed", "302, and the caller calls the other address", redirect_followed),
    scene("invite-again", "no answer to the INVITE at first: timer A twice", invite_again),
    scene("answer-again", "the ACK is lost: 200 again after 0.5 and 1.5 s", answer_again),
    scene("refusal-again", "the ACK of a refusal is lost: timer G", refusal_again),
    scene("bye-again", "no answer to BYE at first: timer E twice", bye_again),
    scene("bye-lost", "the end of the call is not in the capture", bye_lost),
    scene("from-the-middle", "the beginning of the call is not in the capture", from_the_middle),
    scene("call-id-reused", "two calls, one after the other, with one Call-ID", call_id_reused),
    scene("ringing", "the capture ends while it rings", ringing),
    scene("ipv6", "a call over IPv6", ipv6),
    scene("fragments", "an offer too long for one frame", fragments),
];

fn plain(stage: &mut Stage) {
    let mut call = established(stage);
    talk(stage, &call, 3_000);
    call.hang_up(stage, Side::Caller);
}

fn ended_by_called(stage: &mut Stage) {
    let mut call = established(stage);
    talk(stage, &call, 2_000);
    let bye =
        call.request(Side::Called, "BYE").with("Reason", "Q.850;cause=16;text=\"Normal call clearing\"");
    call.hang_up_with(stage, Side::Called, &bye);
    stage.call(call.index).disconnect_reason = Some("cause=16");
}

fn challenge(stage: &mut Stage, call: &mut Call) {
    let offer = offer(&call.caller);
    let invite = call.invite(stage, Some(&offer));
    stage.wait(12);
    // A proxy on the way asks: the tag is its own.
    let refusal = Message::response(407, "Proxy Authentication Required", &invite, "proxy")
        .with("Proxy-Authenticate", "Digest realm=\"pbx.example\",nonce=\"1a2b\",algorithm=MD5");
    call.respond(stage, &invite, &refusal);
    stage.wait(7);
    call.ack(stage, false, None);
    stage.wait(2);
}

fn challenged(stage: &mut Stage) {
    let mut call = phone_to_pbx(stage);
    challenge(stage, &mut call);
    let sdp = offer(&call.caller);
    let credentials = "Digest username=\"1001\",realm=\"pbx.example\",nonce=\"1a2b\",uri=\"sip:200@10.7.0.5\",response=\"0f\"";
    let invite = call.request(Side::Caller, "INVITE").with("Proxy-Authorization", credentials);
    let (invite, _) = call.invite_with(stage, &with_sdp(invite, Some(&sdp)));
    stage.wait(30);
    call.reply(stage, &invite, 180, "Ringing");
    stage.wait(900);
    let sdp = answer(&call.called);
    call.reply_sdp(stage, &invite, 200, &sdp);
    stage.wait(9);
    call.ack(stage, true, None);
    talk(stage, &call, 2_000);
    call.hang_up(stage, Side::Caller);
}

fn unauthorized(stage: &mut Stage) {
    let mut call = phone_to_pbx(stage);
    challenge(stage, &mut call);
    stage.wait(3_000);
}

/// Rings and is refused.
fn refused(stage: &mut Stage, code: u16, reason: &str, ring_ms: u64) -> Call {
    let mut call = phone_to_pbx(stage);
    let offer = offer(&call.caller);
    let invite = call.invite(stage, Some(&offer));
    stage.wait(8);
    call.trying(stage, &invite);
    if ring_ms > 0 {
        stage.wait(40);
        call.reply(stage, &invite, 180, "Ringing");
    }
    stage.wait(ring_ms + 60);
    call.reply(stage, &invite, code, reason);
    stage.wait(8);
    call.ack(stage, false, None);
    call
}

fn busy(stage: &mut Stage) {
    let call = refused(stage, 486, "Busy Here", 0);
    stage.call(call.index).disconnect_reason = Some("Busy Here");
}

fn no_answer(stage: &mut Stage) {
    let call = refused(stage, 408, "Request Timeout", 30_000);
    stage.call(call.index).disconnect_reason = Some("Request Timeout");
}

fn redirected(stage: &mut Stage) {
    refused(stage, 302, "Moved Temporarily", 0);
}

fn redirect_followed(stage: &mut Stage) {
    let mut call = phone_to_pbx(stage);
    let sdp = offer(&call.caller);
    let invite = call.invite(stage, Some(&sdp));
    stage.wait(20);
    let elsewhere = Party::server(9);
    let moved =
        call.response(&invite, 302, "Moved Temporarily").with("Contact", format!("<{}>", elsewhere.uri()));
    call.respond(stage, &invite, &moved);
    stage.wait(6);
    call.ack(stage, false, None);
    stage.call(call.index).final_code = None;
    let tag = stage.word();
    let mut there = call.with_called(&elsewhere, &tag);
    stage.wait(4);
    set_up(stage, &mut there);
    talk(stage, &there, 2_000);
    there.hang_up(stage, Side::Caller);
}

fn cancelled(stage: &mut Stage) {
    let mut call = phone_to_pbx(stage);
    let offer = offer(&call.caller);
    let invite = call.invite(stage, Some(&offer));
    stage.wait(9);
    call.trying(stage, &invite);
    stage.wait(60);
    call.reply(stage, &invite, 180, "Ringing");
    stage.wait(4_000);
    call.cancel(stage);
    stage.wait(5);
    call.reply(stage, &invite, 487, "Request Terminated");
    stage.wait(7);
    call.ack(stage, false, None);
    stage.call(call.index).ended_by = Some("caller");
}

fn cancel_too_late(stage: &mut Stage) {
    let mut call = phone_to_pbx(stage);
    let offer = offer(&call.caller);
    let invite = call.invite(stage, Some(&offer));
    stage.wait(60);
    call.reply(stage, &invite, 180, "Ringing");
    stage.wait(2_000);
    let answer = answer(&call.called);
    call.reply_sdp(stage, &invite, 200, &answer);
    stage.wait(1);
    // Sent before the 200 arrived.
    call.cancel(stage);
    stage.wait(4);
    call.ack(stage, true, None);
    stage.wait(30);
    call.hang_up(stage, Side::Caller);
}

fn invite_again(stage: &mut Stage) {
    let mut call = phone_to_pbx(stage);
    let sdp = offer(&call.caller);
    let invite = with_sdp(call.request(Side::Caller, "INVITE"), Some(&sdp));
    let (invite, sent) = call.invite_with(stage, &invite);
    for ms in [502, 1_003] {
        stage.wait(ms);
        stage.again(sent, "A");
    }
    stage.wait(20);
    call.reply(stage, &invite, 180, "Ringing");
    stage.wait(700);
    let answer = answer(&call.called);
    call.reply_sdp(stage, &invite, 200, &answer);
    stage.wait(11);
    call.ack(stage, true, None);
    talk(stage, &call, 1_000);
    call.hang_up(stage, Side::Caller);
}

fn answer_again(stage: &mut Stage) {
    let mut call = phone_to_pbx(stage);
    let sdp = offer(&call.caller);
    let invite = call.invite(stage, Some(&sdp));
    stage.wait(60);
    call.reply(stage, &invite, 180, "Ringing");
    stage.wait(800);
    let answer = answer(&call.called);
    let sent = call.reply_sdp(stage, &invite, 200, &answer);
    for ms in [501, 1_002] {
        stage.wait(ms);
        stage.again(sent, "2xx");
    }
    stage.wait(11);
    call.ack(stage, true, None);
    talk(stage, &call, 1_000);
    call.hang_up(stage, Side::Called);
}

fn refusal_again(stage: &mut Stage) {
    let mut call = phone_to_pbx(stage);
    let sdp = offer(&call.caller);
    let invite = call.invite(stage, Some(&sdp));
    stage.wait(60);
    let sent = call.reply(stage, &invite, 480, "Temporarily Unavailable");
    for ms in [503, 1_004] {
        stage.wait(ms);
        stage.again(sent, "G");
    }
    stage.wait(9);
    call.ack(stage, false, None);
}

fn bye_again(stage: &mut Stage) {
    let mut call = established(stage);
    talk(stage, &call, 2_000);
    let talked = (stage.now_ns - call.answered_ns()) as f64 / 1e6;
    let bye = call.request(Side::Caller, "BYE");
    let (arrived, sent) = call.send(stage, Side::Caller, &bye);
    for ms in [501, 1_001] {
        stage.wait(ms);
        stage.again(sent, "E");
    }
    stage.wait(5);
    call.reply(stage, &arrived, 200, "OK");
    let truth = stage.call(call.index);
    (truth.state, truth.ended_by, truth.talked_ms) = ("ended", Some("caller"), Some(talked));
}

fn bye_lost(stage: &mut Stage) {
    let call = established(stage);
    talk(stage, &call, 3_000);
}

fn from_the_middle(stage: &mut Stage) {
    let mut call = phone_to_pbx(stage).in_progress();
    let (from, to, now_ns) = (call.caller.media, call.called.media, stage.now_ns);
    for (from, to) in [(from, to), (to, from)] {
        stage.speak(&Speech::new(from, to, now_ns, 2_000).absent("SDP"));
    }
    stage.wait(2_040);
    call.hang_up(stage, Side::Called);
    let truth = stage.call(call.index);
    (truth.seen_from_the_middle, truth.ended_by) = (true, None);
}

fn call_id_reused(stage: &mut Stage) {
    let mut first = established(stage);
    talk(stage, &first, 1_000);
    first.hang_up(stage, Side::Caller);
    stage.wait(40_000);
    let mut second = first.again(stage);
    set_up(stage, &mut second);
    let (a, b, now_ns) = (second.caller.media, second.called.media, stage.now_ns);
    for (from, to, ssrc) in [(a, b, 0x7171_0000), (b, a, 0x7171_0001)] {
        stage.speak(&Speech::new(from, to, now_ns, 1_500).ssrc(ssrc).of(second.index));
    }
    stage.wait(1_540);
    second.hang_up(stage, Side::Called);
}

fn ringing(stage: &mut Stage) {
    let mut call = phone_to_pbx(stage);
    let sdp = offer(&call.caller);
    let invite = call.invite(stage, Some(&sdp));
    stage.wait(60);
    call.reply(stage, &invite, 180, "Ringing");
    stage.wait(1_000);
    // Something else, so that the capture goes on.
    super::outside::ping(stage);
}

fn ipv6(stage: &mut Stage) {
    let mut call = Call::new(stage, &Party::phone(1).v6(), &Party::pbx().v6());
    set_up(stage, &mut call);
    talk(stage, &call, 2_000);
    call.hang_up(stage, Side::Caller);
}

fn fragments(stage: &mut Stage) {
    let mut call = phone_to_pbx(stage);
    let mut long = offer(&call.caller);
    for number in 1..40 {
        long = long.attribute(&format!("x-padding:{number} this line makes the offer longer than a frame"));
    }
    let answer = answer(&call.called);
    call.set_up(stage, &long, &answer, 800);
    talk(stage, &call, 1_000);
    call.hang_up(stage, Side::Caller);
}

//! Offers and answers: where they stand, and what changes during a call (RFC 3264, 3262, 3311, 4028).

use super::{Scene, answer, established, offer, one_way, phone_to_pbx, scene, talk};
use crate::g711::Law;
use crate::scenes::call::{Call, Side, with_sdp};
use crate::scenes::sdp::{PCMA, audio};
use crate::scenes::speech::Speech;
use crate::scenes::stage::Stage;
use crate::sip::message::Message;

pub(super) const SCENES: &[Scene] = &[
    scene("early-media", "183 with SDP: announcements before the answer", early_media),
    scene("prack", "a reliable 183 and its PRACK (100rel)", prack),
    scene("late-offer", "INVITE without SDP: the offer is in the 200, the answer in the ACK", late_offer),
    scene("codec-change", "re-INVITE from PCMU to PCMA", codec_change),
    scene("port-move", "re-INVITE: the called receives on another port", port_move),
    scene("hold-sendonly", "hold by sendonly, music for the held, resume", hold_sendonly),
    scene("hold-inactive", "hold by inactive, resume", hold_inactive),
    scene("hold-zero", "hold as of old, by 0.0.0.0, resume", hold_zero),
    scene("held-at-the-end", "the called hangs up while on hold", held_at_the_end),
    scene("update", "UPDATE with SDP before the answer", update),
    scene("session-refresh", "refreshed by UPDATE and by re-INVITE, nothing changes", session_refresh),
    scene("glare", "two re-INVITEs cross: 491, and once more", glare),
];

/// An INVITE that arrived, after its 100.
fn invited(stage: &mut Stage, call: &mut Call) -> Message {
    let sdp = offer(&call.caller);
    let invite = call.request(Side::Caller, "INVITE").with("Supported", "100rel, timer");
    let (invite, _) = call.invite_with(stage, &with_sdp(invite, Some(&sdp)));
    stage.wait(9);
    call.trying(stage, &invite);
    stage.wait(70);
    invite
}

fn early_media(stage: &mut Stage) {
    let mut call = phone_to_pbx(stage);
    let invite = invited(stage, &mut call);
    let sdp = answer(&call.called);
    call.reply_sdp(stage, &invite, 183, &sdp);
    stage.wait(30);
    one_way(stage, &call, Side::Called, 3_200);
    stage.wait(1_200);
    call.reply_sdp(stage, &invite, 200, &sdp);
    stage.wait(11);
    call.ack(stage, true, None);
    one_way(stage, &call, Side::Caller, 1_900);
    stage.wait(2_050);
    call.hang_up(stage, Side::Caller);
}

/// A reliable 183 with SDP, its PRACK, and the answer to that.
fn reliable_progress(stage: &mut Stage, call: &mut Call, invite: &Message) {
    let sdp = answer(&call.called);
    let progress =
        call.response(invite, 183, "Session Progress").with("Require", "100rel").with("RSeq", 4_711);
    call.respond(stage, invite, &with_sdp(progress, Some(&sdp)));
    stage.wait(8);
    let number = invite.cseq().map_or(1, |(number, _)| number);
    let prack = call.request(Side::Caller, "PRACK").with("RAck", format!("4711 {number} INVITE"));
    call.transact(stage, Side::Caller, &prack, 200, "OK");
    stage.call(call.index).prack += 1;
}

fn prack(stage: &mut Stage) {
    let mut call = phone_to_pbx(stage);
    let invite = invited(stage, &mut call);
    reliable_progress(stage, &mut call, &invite);
    stage.wait(200);
    call.reply(stage, &invite, 180, "Ringing");
    stage.wait(1_000);
    call.reply(stage, &invite, 200, "OK");
    stage.wait(9);
    call.ack(stage, true, None);
    talk(stage, &call, 2_000);
    call.hang_up(stage, Side::Caller);
}

fn late_offer(stage: &mut Stage) {
    let mut call = phone_to_pbx(stage);
    let invite = call.invite(stage, None);
    stage.wait(60);
    call.reply(stage, &invite, 180, "Ringing");
    stage.wait(900);
    let sdp = offer(&call.called);
    call.reply_sdp(stage, &invite, 200, &sdp);
    stage.wait(12);
    let sdp = answer(&call.caller);
    call.ack(stage, true, Some(&sdp));
    talk(stage, &call, 2_000);
    call.hang_up(stage, Side::Caller);
}

fn codec_change(stage: &mut Stage) {
    let mut call = established(stage);
    talk(stage, &call, 1_500);
    let (offer, answer) =
        (audio(call.caller.media, &[PCMA]).version(2), audio(call.called.media, &[PCMA]).version(2));
    call.reinvite(stage, Side::Caller, &offer, &answer);
    stage.wait(5);
    let now_ns = stage.now_ns;
    for (from, to) in [(call.caller.media, call.called.media), (call.called.media, call.caller.media)] {
        stage.speak(&Speech::new(from, to, now_ns, 1_500).of(call.index).law(Law::A));
    }
    stage.wait(1_540);
    call.hang_up(stage, Side::Caller);
}

fn port_move(stage: &mut Stage) {
    let mut call = established(stage);
    talk(stage, &call, 1_500);
    let old = answer(&call.caller).version(2);
    call.called.media.set_port(20_100);
    let moved = offer(&call.called).version(2);
    call.reinvite(stage, Side::Called, &moved, &old);
    stage.wait(5);
    talk(stage, &call, 1_500);
    call.hang_up(stage, Side::Caller);
}

/// Hold by the caller with this direction, and the direction of the answer.
fn hold(stage: &mut Stage, call: &mut Call, direction: &'static str, answered: &'static str) {
    let (hold, held) = (
        offer(&call.caller).version(2).direction(direction),
        answer(&call.called).version(2).direction(answered),
    );
    call.reinvite(stage, Side::Caller, &hold, &held);
    stage.call(call.index).holds += 1;
}

fn resume(stage: &mut Stage, call: &mut Call) {
    let (back, agreed) = (offer(&call.caller).version(3), answer(&call.called).version(3));
    call.reinvite(stage, Side::Caller, &back, &agreed);
    stage.wait(4);
}

fn hold_sendonly(stage: &mut Stage) {
    let mut call = established(stage);
    talk(stage, &call, 1_200);
    hold(stage, &mut call, "sendonly", "recvonly");
    one_way(stage, &call, Side::Caller, 2_000);
    stage.wait(2_020);
    resume(stage, &mut call);
    talk(stage, &call, 1_200);
    call.hang_up(stage, Side::Caller);
}

fn hold_inactive(stage: &mut Stage) {
    let mut call = established(stage);
    talk(stage, &call, 1_200);
    hold(stage, &mut call, "inactive", "inactive");
    stage.wait(2_000);
    resume(stage, &mut call);
    talk(stage, &call, 1_200);
    call.hang_up(stage, Side::Called);
}

fn hold_zero(stage: &mut Stage) {
    let mut call = established(stage);
    talk(stage, &call, 1_200);
    let (hold, held) =
        (offer(&call.caller).version(2).connection("0.0.0.0"), answer(&call.called).version(2));
    call.reinvite(stage, Side::Caller, &hold, &held);
    stage.call(call.index).holds += 1;
    stage.wait(2_000);
    resume(stage, &mut call);
    talk(stage, &call, 1_200);
    call.hang_up(stage, Side::Caller);
}

fn held_at_the_end(stage: &mut Stage) {
    let mut call = established(stage);
    talk(stage, &call, 1_200);
    hold(stage, &mut call, "inactive", "inactive");
    stage.wait(5_000);
    call.hang_up(stage, Side::Called);
}

fn update(stage: &mut Stage) {
    let mut call = phone_to_pbx(stage);
    let invite = invited(stage, &mut call);
    reliable_progress(stage, &mut call, &invite);
    stage.wait(30);
    let update = with_sdp(call.request(Side::Caller, "UPDATE"), Some(&offer(&call.caller).version(2)));
    let (arrived, _) = call.send(stage, Side::Caller, &update);
    stage.wait(9);
    let sdp = answer(&call.called).version(2);
    call.reply_sdp(stage, &arrived, 200, &sdp);
    stage.call(call.index).updates += 1;
    stage.wait(40);
    call.reply(stage, &invite, 180, "Ringing");
    stage.wait(1_000);
    call.reply(stage, &invite, 200, "OK");
    stage.wait(9);
    call.ack(stage, true, None);
    talk(stage, &call, 2_000);
    call.hang_up(stage, Side::Caller);
}

fn session_refresh(stage: &mut Stage) {
    let mut call = established(stage);
    talk(stage, &call, 1_000);
    let refresh = call.request(Side::Caller, "UPDATE").with("Session-Expires", "1800;refresher=uac");
    call.transact(stage, Side::Caller, &refresh, 200, "OK");
    stage.call(call.index).updates += 1;
    talk(stage, &call, 1_000);
    let (same, too) = (offer(&call.caller), answer(&call.called));
    call.reinvite(stage, Side::Caller, &same, &too);
    talk(stage, &call, 1_000);
    call.hang_up(stage, Side::Caller);
}

fn glare(stage: &mut Stage) {
    let mut call = established(stage);
    talk(stage, &call, 1_000);
    let refused = with_sdp(call.request(Side::Called, "INVITE"), Some(&offer(&call.called).version(2)));
    let (arrived, _) = call.send(stage, Side::Called, &refused);
    stage.call(call.index).reinvites += 1;
    stage.wait(4);
    call.reply(stage, &arrived, 491, "Request Pending");
    stage.wait(4);
    call.ack_refused(stage, Side::Called, &refused);
    stage.wait(2_300);
    let (moved, agreed) = (offer(&call.called).version(3), answer(&call.caller).version(2));
    call.reinvite(stage, Side::Called, &moved, &agreed);
    talk(stage, &call, 1_000);
    call.hang_up(stage, Side::Caller);
}

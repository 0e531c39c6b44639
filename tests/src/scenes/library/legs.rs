//! One conversation in several pieces: proxies (one Call-ID, several hops) and back-to-back user agents (several Call-IDs).

use super::{Scene, answer, established, offer, scene, talk};
use crate::scenes::call::{Call, Side, with_sdp};
use crate::scenes::party::Party;
use crate::scenes::speech::Speech;
use crate::scenes::stage::Stage;
use crate::scenes::truth::Related;

pub(super) const SCENES: &[Scene] = &[
    scene(
        "proxied",
        "two proxies with Record-Route: each message on three hops, none of them a copy",
        proxied,
    ),
    scene("proxied-cancelled", "the same, given up while it rings", proxied_cancelled),
    scene("b2bua-header", "a B2BUA names the other leg in X-Call-ID", b2bua_header),
    scene(
        "b2bua-media",
        "a B2BUA relays media as it is: same SSRC and payload, nothing else in common",
        b2bua_media,
    ),
    scene("two-strangers", "two calls at once that have nothing to do with each other", strangers),
];

fn through_two(stage: &mut Stage) -> Call {
    Call::new(stage, &Party::phone(1), &Party::phone(2)).through(&[Party::server(1), Party::server(2)])
}

fn proxied(stage: &mut Stage) {
    let mut call = through_two(stage);
    super::set_up(stage, &mut call);
    talk(stage, &call, 2_000);
    call.hang_up(stage, Side::Called);
}

fn proxied_cancelled(stage: &mut Stage) {
    let mut call = through_two(stage);
    let sdp = offer(&call.caller);
    let invite = call.invite(stage, Some(&sdp));
    stage.wait(40);
    call.reply(stage, &invite, 180, "Ringing");
    stage.wait(3_000);
    call.cancel(stage);
    stage.wait(3);
    call.reply(stage, &invite, 487, "Request Terminated");
    stage.wait(3);
    call.ack(stage, false, None);
    stage.call(call.index).ended_by = Some("caller");
}

/// Two calls that a B2BUA makes one of; the second names the first in this header.
fn bridged(stage: &mut Stage, leg_header: Option<&str>) -> (Call, Call) {
    let b2bua = Party::server(3);
    let mut first = Call::new(stage, &Party::phone(1), &b2bua);
    let sdp = offer(&first.caller);
    let invite = first.invite(stage, Some(&sdp));
    stage.wait(3);
    first.trying(stage, &invite);
    stage.wait(2);
    let mut second = Call::new(stage, &b2bua.media_port(30_100), &Party::phone(2));
    let mut onward = second.request(Side::Caller, "INVITE");
    if let Some(name) = leg_header {
        onward = onward.with(name, &first.id);
    }
    let sdp = offer(&second.caller);
    let (onward, _) = second.invite_with(stage, &with_sdp(onward, Some(&sdp)));
    stage.wait(40);
    second.reply(stage, &onward, 180, "Ringing");
    stage.wait(1);
    first.reply(stage, &invite, 180, "Ringing");
    stage.wait(1_400);
    let sdp = answer(&second.called);
    second.reply_sdp(stage, &onward, 200, &sdp);
    stage.wait(3);
    second.ack(stage, true, None);
    let sdp = answer(&first.called);
    first.reply_sdp(stage, &invite, 200, &sdp);
    stage.wait(6);
    first.ack(stage, true, None);
    (first, second)
}

/// Each is the other's leg.
fn are_legs(stage: &mut Stage, first: &Call, second: &Call) {
    for (one, other) in [(first, second), (second, first)] {
        let related = Related { call_id: other.id.clone(), relation: "b2bua-leg" };
        stage.call(one.index).related.push(related);
    }
}

fn end_both(stage: &mut Stage, first: &mut Call, second: &mut Call) {
    first.hang_up(stage, Side::Caller);
    second.hang_up(stage, Side::Caller);
}

fn b2bua_header(stage: &mut Stage) {
    let (mut first, mut second) = bridged(stage, Some("X-Call-ID"));
    let then_ns = stage.now_ns;
    talk(stage, &first, 1_500);
    stage.now_ns = then_ns;
    talk(stage, &second, 1_500);
    end_both(stage, &mut first, &mut second);
    are_legs(stage, &first, &second);
}

fn b2bua_media(stage: &mut Stage) {
    let (mut first, mut second) = bridged(stage, None);
    let now_ns = stage.now_ns;
    let (alice, left) = (first.caller.media, first.called.media);
    let (right, bob) = (second.caller.media, second.called.media);
    let relay_ns = 700_000;
    let spoken = [
        (alice, left, 0x0a11_ce00, first.index, 0),
        (right, bob, 0x0a11_ce00, second.index, relay_ns),
        (bob, right, 0x0b0b_0b0b, second.index, 0),
        (left, alice, 0x0b0b_0b0b, first.index, relay_ns),
    ];
    for (from, to, ssrc, call, late_ns) in spoken {
        stage.speak(&Speech::new(from, to, now_ns + late_ns, 1_500).ssrc(ssrc).of(call));
    }
    stage.wait(1_540);
    end_both(stage, &mut first, &mut second);
    are_legs(stage, &first, &second);
}

fn strangers(stage: &mut Stage) {
    let mut one = established(stage);
    let mut other = Call::new(stage, &Party::phone(7), &Party::phone(8));
    super::set_up(stage, &mut other);
    let then_ns = stage.now_ns;
    talk(stage, &one, 1_500);
    stage.now_ns = then_ns;
    talk(stage, &other, 1_500);
    one.hang_up(stage, Side::Caller);
    other.hang_up(stage, Side::Called);
}

//! Transfers: REFER (RFC 3515, 5589) with and without Replaces (RFC 3891).

use super::{Scene, answer, offer, scene, set_up, talk};
use crate::scenes::call::{Call, Side, with_sdp};
use crate::scenes::party::Party;
use crate::scenes::stage::Stage;
use crate::scenes::truth::{Related, TransferTruth};
use crate::sip::message::Message;

pub(super) const SCENES: &[Scene] = &[
    scene("transfer-blind", "the called sends the caller on to a third", blind),
    scene(
        "transfer-attended",
        "the called asks the third first, and then connects the two (Replaces)",
        attended,
    ),
    scene("transfer-refused", "REFER is refused with 603, the call goes on", refused),
    scene("transfer-fails", "the third is busy: NOTIFY says 486, the call goes on", fails),
    scene("replaced", "a call is picked up by another phone (INVITE with Replaces)", replaced),
];

/// Called refers the caller to this URI; the answer's code.
fn refer(stage: &mut Stage, call: &mut Call, to: &str, code: u16, reason: &str) {
    let by = format!("<sip:{}@{}>", call.called.user, call.called.sip.ip());
    let refer = call.request(Side::Called, "REFER").with("Refer-To", to).with("Referred-By", by);
    call.transact(stage, Side::Called, &refer, code, reason);
}

/// The caller says how the transfer goes.
fn notify(stage: &mut Stage, call: &mut Call, progress: &str) {
    let state = if progress.starts_with('1') { "active;expires=60" } else { "terminated;reason=noresource" };
    let notify = call
        .request(Side::Caller, "NOTIFY")
        .with("Event", "refer")
        .with("Subscription-State", state)
        .with_body("message/sipfrag;version=2.0", format!("SIP/2.0 {progress}\r\n"));
    call.transact(stage, Side::Caller, &notify, 200, "OK");
}

fn relate(stage: &mut Stage, call: usize, relation: &'static str, other: &Call) {
    let related = Related { call_id: other.id.clone(), relation };
    stage.call(call).related.push(related);
}

/// Both ways.
fn transferred(stage: &mut Stage, old: &Call, new: &Call) {
    relate(stage, old.index, "transfer-target", new);
    relate(stage, new.index, "transferred-from", old);
}

/// The caller's phone calls a third on behalf of the called.
fn new_call(stage: &mut Stage, old: &Call, third: &Party) -> Call {
    Call::new(stage, &old.caller.clone().media_port(16_400), third)
}

fn invite_for(stage: &mut Stage, old: &Call, new: &mut Call, replaces: Option<&str>) -> Message {
    let by = format!("<sip:{}@{}>", old.called.user, old.called.sip.ip());
    let mut invite = new.request(Side::Caller, "INVITE").with("Referred-By", by);
    if let Some(replaces) = replaces {
        invite = invite.with("Replaces", replaces);
    }
    let sdp = offer(&new.caller);
    new.invite_with(stage, &with_sdp(invite, Some(&sdp))).0
}

fn blind(stage: &mut Stage) {
    let mut old = Call::new(stage, &Party::phone(1), &Party::phone(2));
    set_up(stage, &mut old);
    talk(stage, &old, 1_500);
    let third = Party::phone(3);
    refer(stage, &mut old, &format!("<{}>", third.uri()), 202, "Accepted");
    notify(stage, &mut old, "100 Trying");
    let mut new = new_call(stage, &old, &third);
    let invite = invite_for(stage, &old, &mut new, None);
    stage.wait(50);
    new.reply(stage, &invite, 180, "Ringing");
    stage.wait(1_200);
    let sdp = answer(&new.called);
    new.reply_sdp(stage, &invite, 200, &sdp);
    stage.wait(8);
    new.ack(stage, true, None);
    notify(stage, &mut old, "200 OK");
    old.hang_up(stage, Side::Called);
    talk(stage, &new, 1_500);
    new.hang_up(stage, Side::Caller);
    stage.call(old.index).transfers = vec![TransferTruth {
        kind: "blind",
        answer: Some(202),
        outcome: Some(200),
        replaces: None,
        new_call: Some(new.id.clone()),
    }];
    transferred(stage, &old, &new);
}

fn attended(stage: &mut Stage) {
    let mut old = Call::new(stage, &Party::phone(1), &Party::phone(2));
    set_up(stage, &mut old);
    talk(stage, &old, 1_000);
    let (hold, held) = (
        offer(&old.called).version(2).direction("sendonly"),
        answer(&old.caller).version(2).direction("recvonly"),
    );
    old.reinvite(stage, Side::Called, &hold, &held);
    stage.call(old.index).holds = 1;
    // The one who transfers asks the third.
    let third = Party::phone(3);
    let mut asking = Call::new(stage, &Party::phone(2).media_port(16_410), &third);
    set_up(stage, &mut asking);
    talk(stage, &asking, 1_000);
    let replaces = format!("{};to-tag={};from-tag={}", asking.id, asking.called_tag, asking.caller_tag);
    let escaped = replaces.replace('@', "%40").replace(';', "%3B").replace('=', "%3D");
    refer(stage, &mut old, &format!("<{}?Replaces={escaped}>", third.uri()), 202, "Accepted");
    notify(stage, &mut old, "100 Trying");
    let mut new = new_call(stage, &old, &third.media_port(16_420));
    let invite = invite_for(stage, &old, &mut new, Some(&replaces));
    stage.wait(20);
    let sdp = answer(&new.called);
    new.reply_sdp(stage, &invite, 200, &sdp);
    stage.wait(8);
    new.ack(stage, true, None);
    asking.hang_up(stage, Side::Called);
    notify(stage, &mut old, "200 OK");
    old.hang_up(stage, Side::Called);
    talk(stage, &new, 1_500);
    new.hang_up(stage, Side::Called);
    stage.call(old.index).transfers = vec![TransferTruth {
        kind: "attended",
        answer: Some(202),
        outcome: Some(200),
        replaces: Some(asking.id.clone()),
        new_call: Some(new.id.clone()),
    }];
    transferred(stage, &old, &new);
    relate(stage, new.index, "replaces", &asking);
    relate(stage, asking.index, "replaced-by", &new);
}

fn refused(stage: &mut Stage) {
    let mut call = Call::new(stage, &Party::phone(1), &Party::phone(2));
    set_up(stage, &mut call);
    talk(stage, &call, 1_000);
    refer(stage, &mut call, "<sip:1003@10.16.0.13>", 603, "Decline");
    talk(stage, &call, 1_000);
    call.hang_up(stage, Side::Caller);
    stage.call(call.index).transfers = vec![TransferTruth {
        kind: "blind",
        answer: Some(603),
        outcome: None,
        replaces: None,
        new_call: None,
    }];
}

fn fails(stage: &mut Stage) {
    let mut old = Call::new(stage, &Party::phone(1), &Party::phone(2));
    set_up(stage, &mut old);
    talk(stage, &old, 1_000);
    let third = Party::phone(3);
    refer(stage, &mut old, &format!("<{}>", third.uri()), 202, "Accepted");
    notify(stage, &mut old, "100 Trying");
    let mut new = new_call(stage, &old, &third);
    let invite = invite_for(stage, &old, &mut new, None);
    stage.wait(40);
    new.reply(stage, &invite, 486, "Busy Here");
    stage.wait(4);
    new.ack(stage, false, None);
    notify(stage, &mut old, "486 Busy Here");
    talk(stage, &old, 1_000);
    old.hang_up(stage, Side::Caller);
    stage.call(old.index).transfers = vec![TransferTruth {
        kind: "blind",
        answer: Some(202),
        outcome: Some(486),
        replaces: None,
        new_call: Some(new.id.clone()),
    }];
    transferred(stage, &old, &new);
}

fn replaced(stage: &mut Stage) {
    let mut old = Call::new(stage, &Party::phone(1), &Party::phone(2));
    set_up(stage, &mut old);
    talk(stage, &old, 1_000);
    let mut new = Call::new(stage, &Party::phone(3), &Party::phone(1).media_port(16_430));
    let replaces = format!("{};to-tag={};from-tag={}", old.id, old.caller_tag, old.called_tag);
    let invite = new.request(Side::Caller, "INVITE").with("Replaces", replaces);
    let sdp = offer(&new.caller);
    let (invite, _) = new.invite_with(stage, &with_sdp(invite, Some(&sdp)));
    stage.wait(10);
    let sdp = answer(&new.called);
    new.reply_sdp(stage, &invite, 200, &sdp);
    stage.wait(8);
    new.ack(stage, true, None);
    old.hang_up(stage, Side::Caller);
    talk(stage, &new, 1_200);
    new.hang_up(stage, Side::Caller);
    relate(stage, new.index, "replaces", &old);
    relate(stage, old.index, "replaced-by", &new);
}

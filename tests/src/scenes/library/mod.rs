//! The scenes. Each file holds those of one topic, and what they have in common.

mod basic;
mod forks;
mod legs;
mod media;
mod offers;
mod outside;
mod transfers;
mod transports;

use super::Scene;
use super::call::{Call, Side};
use super::party::Party;
use super::sdp::{EVENTS, PCMA, PCMU, Sdp, audio};
use super::speech::Speech;
use super::stage::Stage;

/// All of them.
pub(super) fn all() -> Vec<Scene> {
    [
        basic::SCENES,
        forks::SCENES,
        offers::SCENES,
        transfers::SCENES,
        legs::SCENES,
        outside::SCENES,
        transports::SCENES,
        media::SCENES,
    ]
    .concat()
}

const fn scene(name: &'static str, about: &'static str, play: fn(&mut Stage)) -> Scene {
    Scene { name, about, play }
}

/// A phone, the PBX, and a call between them that is still to be made.
fn phone_to_pbx(stage: &mut Stage) -> Call {
    Call::new(stage, &Party::phone(1), &Party::pbx())
}

fn offer(party: &Party) -> Sdp {
    audio(party.media, &[PCMU, PCMA, EVENTS])
}

fn answer(party: &Party) -> Sdp {
    audio(party.media, &[PCMU, EVENTS])
}

/// An ordinary call up to its ACK.
fn established(stage: &mut Stage) -> Call {
    let mut call = phone_to_pbx(stage);
    set_up(stage, &mut call);
    call
}

fn set_up(stage: &mut Stage, call: &mut Call) {
    let (offer, answer) = (offer(&call.caller), answer(&call.called));
    call.set_up(stage, &offer, &answer, 1_300);
}

/// Both talk for so long, from now on.
fn talk(stage: &mut Stage, call: &Call, ms: u64) {
    one_way(stage, call, Side::Caller, ms);
    one_way(stage, call, Side::Called, ms);
    stage.wait(ms + 20);
}

/// One talks for so long, from now on; no time passes.
fn one_way(stage: &mut Stage, call: &Call, side: Side, ms: u64) {
    let (from, to) = match side {
        Side::Caller => (call.caller.media, call.called.media),
        Side::Called => (call.called.media, call.caller.media),
    };
    let start_ns = stage.now_ns;
    stage.speak(&Speech::new(from, to, start_ns, ms).of(call.index));
}

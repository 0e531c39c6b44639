//! Forked calls: a proxy rings several at once (RFC 3261, 16.6 and 13.2.2.4).
//!
//! ```text
//!   alice ── INVITE ──▶ proxy ─┬─ INVITE ──▶ 1002     each with a branch of its own; each answers with a tag of its own
//!                              └─ INVITE ──▶ 1003
//! ```

use super::{Scene, answer, offer, scene, talk};
use crate::scenes::call::{Call, Side, forwarded};
use crate::scenes::party::Party;
use crate::scenes::stage::Stage;
use crate::sip::message::Message;

pub(super) const SCENES: &[Scene] = &[
    scene("forked-two", "two ring, one answers, the other is cancelled", two),
    scene("forked-three", "three ring: one is busy, one answers, one is cancelled", three),
    scene("forked-two-answers", "both answer; the caller ends the second at once", two_answers),
    scene("forked-all-busy", "two branches, both busy: one 486 comes back", all_busy),
];

/// One branch of a fork.
struct Branch {
    /// The call as this branch knows it.
    call: Call,
    /// What arrived at its phone.
    invite: Message,
}

/// The forking proxy.
struct Fork {
    proxy: Party,
    branches: Vec<Branch>,
}

impl Fork {
    /// Alice calls; the proxy tries these phones.
    fn new(stage: &mut Stage, phones: &[u8]) -> (Call, Self) {
        let proxy = Party::server(1);
        let mut call = Call::new(stage, &Party::phone(1), &proxy);
        let sdp = offer(&call.caller);
        let invite = call.invite(stage, Some(&sdp));
        stage.wait(4);
        call.trying(stage, &invite);
        let branches = phones
            .iter()
            .map(|index| {
                let phone = Party::phone(*index);
                let tag = stage.word();
                let mut invite = forwarded(&invite, &proxy);
                let via = format!("{}{index}", invite.text("Via"));
                invite = invite.without_first("Record-Route").without_first("Via").on_top("Via", via);
                invite.start = format!("INVITE {} SIP/2.0", phone.uri());
                stage.wait(1);
                stage.say(&proxy, &phone, &invite);
                Branch { call: call.with_called(&phone, &tag), invite }
            })
            .collect();
        (call, Self { proxy, branches })
    }

    /// A phone answers the proxy; the caller hears of it if `relayed`. Figures count on the call.
    fn says(&mut self, stage: &mut Stage, call: &mut Call, at: usize, response: &Reply) {
        let branch = &mut self.branches[at];
        let Reply { code, reason, with_sdp, relayed } = *response;
        let mut message = branch.call.response(&branch.invite, code, reason);
        if with_sdp {
            message = message.with_body("application/sdp", answer(&branch.call.called).text());
        }
        stage.say(&branch.call.called, &self.proxy, &message);
        if relayed {
            // The caller's figures begin where the response was first seen.
            call.note(stage, &message);
            stage.wait(2);
            stage.say(&self.proxy, &call.caller, &message.without_first("Via"));
        }
        if code >= 300 {
            stage.wait(3);
            let ack = self.own(at, "ACK");
            stage.say(&self.proxy, &self.branches[at].call.called.clone(), &ack);
        }
    }

    /// The proxy cancels a branch: CANCEL, 200, 487, ACK.
    fn cancels(&mut self, stage: &mut Stage, call: &mut Call, at: usize) {
        let cancel = self.own(at, "CANCEL");
        let phone = self.branches[at].call.called.clone();
        stage.say(&self.proxy, &phone, &cancel);
        stage.wait(6);
        let agreed = self.branches[at].call.response(&cancel, 200, "OK");
        stage.say(&phone, &self.proxy, &agreed);
        stage.wait(2);
        self.says(stage, call, at, &Reply { relayed: false, ..Reply::of(487, "Request Terminated") });
    }

    /// A request of the proxy within a branch's INVITE transaction.
    fn own(&self, at: usize, method: &str) -> Message {
        let invite = &self.branches[at].invite;
        let to = match method {
            "ACK" => format!("{};tag={}", invite.text("To"), self.branches[at].call.called_tag),
            _ => invite.text("To").to_owned(),
        };
        let number = invite.cseq().map_or(1, |(number, _)| number);
        let uri = self.branches[at].call.called.uri();
        Message::request(method, &uri)
            .with("Via", invite.text("Via"))
            .with("From", invite.text("From"))
            .with("To", to)
            .with("Call-ID", invite.text("Call-ID"))
            .with("CSeq", format!("{number} {method}"))
    }
}

#[derive(Clone, Copy)]
struct Reply {
    code: u16,
    reason: &'static str,
    with_sdp: bool,
    relayed: bool,
}

impl Reply {
    const OK: Self = Self { code: 200, reason: "OK", with_sdp: true, relayed: true };
    const RINGING: Self = Self::of(180, "Ringing");

    const fn of(code: u16, reason: &'static str) -> Self {
        Self { code, reason, with_sdp: false, relayed: true }
    }
}

/// The call goes on with the phone of this branch, directly.
fn goes_on(stage: &mut Stage, call: &mut Call, fork: &Fork, at: usize) {
    call.settle(&fork.branches[at].call);
    stage.wait(5);
    call.ack(stage, true, None);
}

fn two(stage: &mut Stage) {
    let (mut call, mut fork) = Fork::new(stage, &[2, 3]);
    for at in [0, 1] {
        stage.wait(50);
        fork.says(stage, &mut call, at, &Reply::RINGING);
    }
    stage.wait(2_000);
    fork.says(stage, &mut call, 0, &Reply::OK);
    fork.cancels(stage, &mut call, 1);
    goes_on(stage, &mut call, &fork, 0);
    stage.call(call.index).forks = Some(2);
    talk(stage, &call, 2_000);
    call.hang_up(stage, Side::Caller);
}

fn three(stage: &mut Stage) {
    let (mut call, mut fork) = Fork::new(stage, &[2, 3, 4]);
    stage.wait(50);
    fork.says(stage, &mut call, 0, &Reply::RINGING);
    stage.wait(20);
    // The proxy keeps the best refusal to itself while others ring.
    fork.says(stage, &mut call, 1, &Reply { relayed: false, ..Reply::of(486, "Busy Here") });
    stage.wait(10);
    fork.says(stage, &mut call, 2, &Reply::RINGING);
    stage.wait(3_000);
    fork.says(stage, &mut call, 2, &Reply::OK);
    fork.cancels(stage, &mut call, 0);
    goes_on(stage, &mut call, &fork, 2);
    stage.call(call.index).forks = Some(3);
    talk(stage, &call, 2_000);
    call.hang_up(stage, Side::Called);
}

fn two_answers(stage: &mut Stage) {
    let (mut call, mut fork) = Fork::new(stage, &[2, 3]);
    for at in [0, 1] {
        stage.wait(50);
        fork.says(stage, &mut call, at, &Reply::RINGING);
    }
    stage.wait(1_500);
    fork.says(stage, &mut call, 0, &Reply::OK);
    fork.says(stage, &mut call, 1, &Reply::OK);
    let mut second = call.clone();
    second.settle(&fork.branches[1].call);
    goes_on(stage, &mut call, &fork, 0);
    second.ack(stage, true, None);
    stage.wait(5);
    // What RFC 3261, 13.2.2.4 asks for: the other dialog is acknowledged and ended.
    let bye = second.request(Side::Caller, "BYE");
    second.transact(stage, Side::Caller, &bye, 200, "OK");
    stage.call(call.index).forks = Some(2);
    talk(stage, &call, 2_000);
    call.hang_up(stage, Side::Caller);
}

fn all_busy(stage: &mut Stage) {
    let (mut call, mut fork) = Fork::new(stage, &[2, 3]);
    stage.wait(50);
    fork.says(stage, &mut call, 0, &Reply { relayed: false, ..Reply::of(486, "Busy Here") });
    stage.wait(50);
    fork.says(stage, &mut call, 1, &Reply::of(486, "Busy Here"));
    stage.wait(4);
    call.settle(&fork.branches[1].call);
    call.ack_hop(stage, &fork.proxy);
    let truth = stage.call(call.index);
    (truth.forks, truth.state, truth.final_code) = (Some(2), "failed", Some(486));
}

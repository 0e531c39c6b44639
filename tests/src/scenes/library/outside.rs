//! What is no call: registrations, pings, subscriptions, messages.

use super::{Scene, scene};
use crate::scenes::call::{Call, Side};
use crate::scenes::party::Party;
use crate::scenes::stage::Stage;

pub(super) const SCENES: &[Scene] = &[
    scene("registrations", "five phones register: 401, and then with credentials", registrations),
    scene("pings", "OPTIONS both ways, most of them answered", pings),
    scene("messages", "SUBSCRIBE, NOTIFY and MESSAGE outside of any call", messages),
];

fn registrations(stage: &mut Stage) {
    let registrar = Party::pbx();
    for index in 1..=5 {
        let phone = Party::phone(index);
        let mut dialog = Call::outside(stage, &phone, &registrar);
        let register = dialog.request(Side::Caller, "REGISTER").with("Expires", 300);
        let (arrived, _) = dialog.send(stage, Side::Caller, &register);
        stage.wait(8);
        let refusal = dialog
            .response(&arrived, 401, "Unauthorized")
            .with("WWW-Authenticate", "Digest realm=\"pbx.example\",nonce=\"77aa\",algorithm=MD5");
        dialog.send(stage, Side::Called, &refusal);
        stage.wait(6);
        let credentials = format!(
            "Digest username=\"{}\",realm=\"pbx.example\",nonce=\"77aa\",response=\"0f\"",
            phone.user
        );
        let again =
            dialog.request(Side::Caller, "REGISTER").with("Authorization", credentials).with("Expires", 300);
        dialog.transact(stage, Side::Caller, &again, 200, "OK");
        stage.wait(120);
    }
}

/// A ping that is answered.
pub(super) fn ping(stage: &mut Stage) {
    let mut dialog = Call::outside(stage, &Party::pbx(), &Party::phone(5));
    let options = dialog.request(Side::Caller, "OPTIONS");
    dialog.transact(stage, Side::Caller, &options, 200, "OK");
}

fn pings(stage: &mut Stage) {
    for index in 1..=4 {
        let (pbx, phone) = (Party::pbx(), Party::phone(index));
        for (from, to) in [(&pbx, &phone), (&phone, &pbx)] {
            let mut dialog = Call::outside(stage, from, to);
            let options = dialog.request(Side::Caller, "OPTIONS");
            dialog.transact(stage, Side::Caller, &options, 200, "OK");
            stage.wait(50);
        }
    }
    let mut deaf = Call::outside(stage, &Party::pbx(), &Party::phone(9));
    let options = deaf.request(Side::Caller, "OPTIONS");
    deaf.send(stage, Side::Caller, &options);
}

fn messages(stage: &mut Stage) {
    let mut dialog = Call::outside(stage, &Party::phone(1), &Party::pbx());
    let subscribe = dialog.request(Side::Caller, "SUBSCRIBE").with("Event", "message-summary");
    dialog.transact(stage, Side::Caller, &subscribe, 200, "OK");
    let notify = dialog
        .request(Side::Called, "NOTIFY")
        .with("Event", "message-summary")
        .with("Subscription-State", "active;expires=600")
        .with_body("application/simple-message-summary", "Messages-Waiting: no\r\n".to_owned());
    dialog.transact(stage, Side::Called, &notify, 200, "OK");
    let mut text = Call::outside(stage, &Party::phone(1), &Party::phone(2));
    let message = text.request(Side::Caller, "MESSAGE").with_body("text/plain", "Static again?".to_owned());
    text.transact(stage, Side::Caller, &message, 200, "OK");
}

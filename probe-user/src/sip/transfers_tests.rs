//! Calls that make, replace or bridge each other.

use super::testing::*;
use super::*;
use crate::sip::calls::What;
use crate::sip::report::{Relation, TransferKind};

/// Messages of a call with this Call-ID; the phone's user is Ann, the PBX's Bob.
fn of(call_id: &str, text: &str) -> String {
    text.replace("Call-ID: one", &format!("Call-ID: {call_id}"))
}

fn invite(call_id: &str, from: &str, to: &str, more: &str) -> String {
    let text = head(&format!("INVITE {to} SIP/2.0"), "1 INVITE", "", &format!("{more}\r\n"));
    of(call_id, &text.replace("sip:ann@pbx", from).replace("To: <sip:bob@pbx>", &format!("To: <{to}>")))
}

/// Ann talks to Bob, and sends him on.
fn referred(target: &str) -> Wire {
    let mut wire = Wire::new();
    wire.send(0, PHONE, &request("INVITE", 1, ""));
    wire.send(9, PBX, &response(200, "1 INVITE"));
    let refer = format!("Refer-To: <{target}>\r\n\r\n");
    wire.send(5000, PHONE, &head("REFER sip:bob@pbx SIP/2.0", "2 REFER", "bob", &refer));
    wire
}

fn related(wire: &Wire, call_id: &str) -> Vec<(String, Relation)> {
    let call = wire.probe.calls().find(call_id).unwrap_or_else(|| panic!("{call_id}"));
    call.related.iter().map(|other| (other.call_id.to_string(), other.relation)).collect()
}

#[test]
fn blind_transfer_finds_its_call_by_each_sign() {
    let table = [
        ("Referred-By", invite("two", "sip:any@x", "sip:routed@x", "Referred-By: <sip:ann@other>\r\n")),
        ("to carol, 40 ms after", invite("two", "sip:bob@x", "sip:carol@elsewhere", "")),
        // The PBX calls by itself, in whose name it likes.
        ("to carol, 40 ms after", invite("two", "sip:0800@x", "sip:carol@x", "")),
    ];
    for (sign, made) in table {
        let mut wire = referred("sip:carol@pbx");
        wire.send(5040, PBX, &made);
        let transfer = &wire.probe.calls().find("one").unwrap().transfers[0];
        assert_eq!((transfer.kind, transfer.new_call.as_deref()), (TransferKind::Blind, Some("two")));
        assert_eq!(related(&wire, "one"), [("two".to_owned(), Relation::TransferTarget)]);
        assert_eq!(related(&wire, "two"), [("one".to_owned(), Relation::TransferredFrom)]);
        let because = &wire.probe.calls().find("two").unwrap().related[0].because;
        assert!(because.contains(sign), "{because}");
    }
}

/// Users, and Call-IDs, that begin alike for longer than is kept of them.
#[test]
fn names_that_differ_after_what_is_kept_of_them_are_not_the_same() {
    let long = |end: &str| format!("{}{end}", "x".repeat(300));
    let uri = |end: &str| format!("sip:{}@pbx", long(end));
    for (called, is_made) in [(uri("1"), true), (uri("2"), false)] {
        let mut wire = referred(&uri("1"));
        wire.send(5040, PBX, &invite("two", "sip:bob@x", &called, ""));
        let transfer = &wire.probe.calls().find("one").unwrap().transfers[0];
        assert_eq!(transfer.new_call.is_some(), is_made);
    }
    let mut wire = Wire::new();
    for (ms, end) in [(0, "1"), (9, "2")] {
        wire.send(ms, PHONE, &of(&long(end), &request("INVITE", 1, "")));
    }
    wire.send(
        20,
        PHONE,
        &invite("of-the-second", "sip:bob@x", "sip:carol@x", &format!("X-Call-ID: {}\r\n", long("2"))),
    );
    let calls = wire.probe.calls();
    assert_eq!(calls.len(), 3);
    let ids: Vec<_> = calls.reports().iter().map(|call| call.call_id.to_string()).collect();
    assert!(ids.iter().all(|id| id.len() <= 256) && ids[0] != ids[1], "{ids:?}");
    assert_eq!(related(&wire, "of-the-second"), [(ids[1].clone(), Relation::B2buaLeg)]);
}

#[test]
fn call_of_nobody_who_was_referred_is_no_transfer() {
    let stranger = invite("two", "sip:dan@x", "sip:carol@x", "");
    let elsewhere = invite("two", "sip:bob@x", "sip:dave@x", "");
    for (ms, from, text) in [(5040, PHONE, &stranger), (5040, PBX, &elsewhere), (40_000, PBX, &stranger)] {
        let mut wire = referred("sip:carol@pbx");
        wire.send(ms, from, text);
        assert_eq!(related(&wire, "one"), []);
    }
    let mut wire = referred("sip:carol@pbx");
    wire.send(5005, PBX, &response(603, "2 REFER"));
    wire.send(5040, PBX, &invite("two", "sip:bob@x", "sip:carol@x", ""));
    assert_eq!(related(&wire, "two"), [], "the REFER was refused");
    assert_eq!(wire.probe.calls().find("one").unwrap().transfers[0].answer, Some(603));
}

#[test]
fn attended_transfer_replaces_the_call_that_was_asked_first() {
    let mut wire = Wire::new();
    wire.send(0, PHONE, &invite("asked", "sip:ann@pbx", "sip:carol@pbx", ""));
    let mut after = referred("sip:carol@pbx?Replaces=asked%3Bto-tag%3Dc%3Bfrom-tag%3Dann");
    after.send(5001, PHONE, &invite("asked", "sip:ann@pbx", "sip:carol@pbx", ""));
    after.send(
        5040,
        PBX,
        &invite("two", "sip:bob@x", "sip:c@x", "Replaces: asked;to-tag=c;from-tag=ann\r\n"),
    );
    let transfer = &after.probe.calls().find("one").unwrap().transfers[0];
    assert_eq!((transfer.kind, transfer.replaces.as_deref()), (TransferKind::Attended, Some("asked")));
    assert_eq!(transfer.new_call.as_deref(), Some("two"));
    assert_eq!(related(&after, "asked"), [("two".to_owned(), Relation::ReplacedBy)]);
    let expected = [("asked".to_owned(), Relation::Replaces), ("one".to_owned(), Relation::TransferredFrom)];
    assert_eq!(related(&after, "two"), expected);
    let moments = &after.probe.calls().find("asked").unwrap().moments;
    assert_eq!(moments.last().unwrap().what, What::Replaced);
}

#[test]
fn refer_on_two_hops_is_one_transfer() {
    let mut wire = referred("sip:carol@pbx");
    let refer = head("REFER sip:bob@pbx SIP/2.0", "2 REFER", "bob", "Refer-To: <sip:carol@pbx>\r\n\r\n");
    wire.send(5003, PBX, &refer.replace("z9hG4bK", "z9hG4bK-hop-"));
    assert_eq!(wire.probe.calls().find("one").unwrap().transfers.len(), 1);
}

#[test]
fn legs_are_joined_by_header_whichever_comes_first() {
    let first = invite("a", "sip:ann@pbx", "sip:bob@pbx", "");
    for (name, is_known) in
        [("X-Call-ID", true), ("x-cid", true), ("X-Other-Leg", true), ("X-Nothing", false)]
    {
        let second = invite("b", "sip:ann@pbx", "sip:bob@pbx", &format!("{name}: a\r\n"));
        for order in [[&first, &second], [&second, &first]] {
            let leg_headers = LegHeaders::and(["X-Other-Leg"]);
            let mut wire = Wire::new();
            wire.probe = Signalling::new(Limits { leg_headers, ..Limits::default() });
            for (ms, text) in (0..).zip(order) {
                wire.send(ms, PHONE, text);
            }
            let leg = |id: &str| if is_known { vec![(id.to_owned(), Relation::B2buaLeg)] } else { vec![] };
            assert_eq!((related(&wire, "a"), related(&wire, "b")), (leg("b"), leg("a")), "{name}");
        }
    }
}

#[test]
fn names_of_calls_that_never_come_are_bounded_and_counted() {
    let mut wire = Wire::new();
    for n in 0..20_000_u32 {
        wire.send(
            n.into(),
            PHONE,
            &invite(&format!("c{n}"), "sip:a@x", "sip:b@x", &format!("X-CID: none{n}\r\n")),
        );
    }
    assert_eq!(wire.probe.report().given_up.relations, 20_000 - 16_384);
}

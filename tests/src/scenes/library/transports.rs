//! What carries SIP: TCP with all that happens to segments, WebSocket (RFC 7118), TLS.

use serde_json::json;

use super::{Scene, answer, offer, scene, talk};
use crate::scenes::call::{Call, Side, with_sdp};
use crate::scenes::party::Party;
use crate::scenes::speech::Speech;
use crate::scenes::stage::{Delivery, Stage};
use crate::scenes::websocket;
use crate::sip::message::Message;

pub(super) const SCENES: &[Scene] = &[
    scene("tcp", "a call over TCP, a segment for each message", tcp),
    scene("tcp-cut", "segments of 137 octets: cut anywhere", tcp_cut),
    scene("tcp-reordered", "each message's first segment comes after its second", tcp_reordered),
    scene("tcp-repeated", "each message's first segment is sent once more", tcp_repeated),
    scene("tcp-together", "ringing and answer in one segment", tcp_together),
    scene("tcp-lost", "the capture lacks a segment of the 180; what follows is read", tcp_lost),
    scene("tcp-mid-stream", "the capture begins in the middle of a message", tcp_mid_stream),
    scene("websocket", "SIP in WebSocket frames: handshake, masked requests", over_websocket),
    scene("tls", "signalling is encrypted, the media is not", tls),
];

fn ends(port: u16, transport: &'static str) -> (Party, Party) {
    (Party::phone(1).over(transport, 40_001), Party::pbx().over(transport, port))
}

/// A call over TCP, cut as `delivery` says from its beginning on.
fn call_over_tcp(stage: &mut Stage, delivery: Delivery) {
    let (phone, pbx) = ends(5060, "TCP");
    stage.connect(&phone, &pbx);
    stage.delivery = delivery;
    let mut call = Call::new(stage, &phone, &pbx);
    super::set_up(stage, &mut call);
    talk(stage, &call, 1_500);
    call.hang_up(stage, Side::Caller);
}

fn tcp(stage: &mut Stage) {
    call_over_tcp(stage, Delivery::Whole);
}

fn tcp_cut(stage: &mut Stage) {
    call_over_tcp(stage, Delivery::Cut(137));
}

fn tcp_reordered(stage: &mut Stage) {
    call_over_tcp(stage, Delivery::Reordered(300));
}

fn tcp_repeated(stage: &mut Stage) {
    call_over_tcp(stage, Delivery::Repeated(200));
}

fn tcp_together(stage: &mut Stage) {
    let (phone, pbx) = ends(5060, "TCP");
    stage.connect(&phone, &pbx);
    let mut call = Call::new(stage, &phone, &pbx);
    let sdp = offer(&phone);
    let invite = call.invite(stage, Some(&sdp));
    stage.wait(60);
    let both = [
        call.response(&invite, 180, "Ringing"),
        with_sdp(call.response(&invite, 200, "OK"), Some(&answer(&pbx))),
    ];
    for response in &both {
        call.note(stage, response);
    }
    stage.say_together(&pbx, &phone, &both);
    stage.wait(8);
    call.ack(stage, true, None);
    talk(stage, &call, 1_500);
    call.hang_up(stage, Side::Called);
}

fn tcp_lost(stage: &mut Stage) {
    let (phone, pbx) = ends(5060, "TCP");
    stage.connect(&phone, &pbx);
    let mut call = Call::new(stage, &phone, &pbx);
    let sdp = offer(&phone);
    let invite = call.invite(stage, Some(&sdp));
    stage.wait(30);
    stage.delivery = Delivery::Lost(200);
    let ringing = call.response(&invite, 180, "Ringing");
    call.send(stage, Side::Called, &ringing);
    stage.delivery = Delivery::Whole;
    stage.wait(900);
    let sdp = answer(&pbx);
    call.reply_sdp(stage, &invite, 200, &sdp);
    stage.wait(8);
    call.ack(stage, true, None);
    talk(stage, &call, 1_500);
    call.hang_up(stage, Side::Caller);
    stage.truth().facts.insert("/sip/sip_tcp_partial", json!(1));
}

fn tcp_mid_stream(stage: &mut Stage) {
    let (phone, pbx) = ends(5060, "TCP");
    stage.join(&phone, &pbx);
    // The end of some message that began before the capture did.
    let mut before = Call::outside(stage, &phone, &pbx);
    let earlier =
        before.request(Side::Caller, "INFO").with_body("application/dtmf-relay", "Signal=5\r\n".to_owned());
    let text = earlier.to_string();
    stage.bytes(&phone, &pbx, &text.as_bytes()[text.len() / 2..]);
    stage.wait(100);
    let mut call = Call::new(stage, &phone, &pbx);
    super::set_up(stage, &mut call);
    talk(stage, &call, 1_500);
    call.hang_up(stage, Side::Caller);
}

fn over_websocket(stage: &mut Stage) {
    let (phone, pbx) = ends(5060, "WS");
    stage.connect(&phone, &pbx);
    stage.bytes(&phone, &pbx, websocket::REQUEST.as_bytes());
    stage.wait(2);
    stage.bytes(&pbx, &phone, websocket::RESPONSE.as_bytes());
    stage.wait(30);
    let mut call = Call::new(stage, &phone, &pbx);
    let mut frames = 0;
    let mut framed = |stage: &mut Stage, side: Side, message: &Message| {
        frames += 1;
        match side {
            Side::Caller => {
                let mask = [0x37, 0xfa, 0x21, 0x3d];
                stage.wrapped(&phone, &pbx, message, &websocket::frame(message, Some(mask)));
            }
            Side::Called => stage.wrapped(&pbx, &phone, message, &websocket::frame(message, None)),
        }
    };
    let invite = with_sdp(call.request(Side::Caller, "INVITE"), Some(&offer(&phone)));
    call.begin(stage, &invite);
    framed(stage, Side::Caller, &invite);
    stage.wait(60);
    for (response, later_ms) in [
        (call.response(&invite, 180, "Ringing"), 900),
        (with_sdp(call.response(&invite, 200, "OK"), Some(&answer(&pbx))), 10),
    ] {
        call.note(stage, &response);
        framed(stage, Side::Called, &response);
        stage.wait(later_ms);
    }
    let ack = call.ack_message();
    framed(stage, Side::Caller, &ack);
    talk(stage, &call, 1_500);
    let bye = call.request(Side::Caller, "BYE");
    call.ends(stage, Side::Caller);
    framed(stage, Side::Caller, &bye);
    stage.wait(9);
    let agreed = call.response(&bye, 200, "OK");
    framed(stage, Side::Called, &agreed);
    stage.truth().facts.insert("/sip/websocket_frames", json!(frames));
}

/// A TLS 1.2 record (RFC 5246, 6.2.1).
fn record(kind: u8, octets: usize) -> Vec<u8> {
    let length = u16::try_from(octets).unwrap_or(u16::MAX).to_be_bytes();
    let noise = (0..octets).map(|at| (at.wrapping_mul(167) ^ (at >> 3)).to_le_bytes()[0]);
    [kind, 3, 3].into_iter().chain(length).chain(noise).collect()
}

fn tls(stage: &mut Stage) {
    const HANDSHAKE: u8 = 22;
    const APPLICATION_DATA: u8 = 23;
    let (phone, pbx) = ends(5061, "TLS");
    stage.connect(&phone, &pbx);
    for (from, to, octets) in
        [(&phone, &pbx, 210), (&pbx, &phone, 1_200), (&phone, &pbx, 120), (&pbx, &phone, 60)]
    {
        stage.bytes(from, to, &record(HANDSHAKE, octets));
        stage.wait(8);
    }
    for (from, to, octets) in
        [(&phone, &pbx, 980), (&pbx, &phone, 330), (&pbx, &phone, 860), (&phone, &pbx, 400)]
    {
        stage.bytes(from, to, &record(APPLICATION_DATA, octets));
        stage.wait(40);
    }
    let now_ns = stage.now_ns;
    for (from, to) in [(phone.media, pbx.media), (pbx.media, phone.media)] {
        stage.speak(&Speech::new(from, to, now_ns, 2_000).absent("encrypted"));
    }
    stage.wait(2_040);
    stage.bytes(&phone, &pbx, &record(APPLICATION_DATA, 420));
    stage.truth().facts.insert("/sip/encrypted/connections", json!(1));
}

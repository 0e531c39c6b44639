//! Where media goes, and what is wrong with it: addresses that SDP announces in every way there is, and media that is
//! missing, early, late, or from elsewhere.

use std::net::SocketAddr;

use serde_json::json;

use super::{Scene, answer, established, offer, one_way, phone_to_pbx, scene, set_up, talk};
use crate::scenes::call::{Call, Side};
use crate::scenes::party::Party;
use crate::scenes::sdp::{PCMU, Sdp, audio};
use crate::scenes::speech::{Speech, sender_report};
use crate::scenes::stage::Stage;

pub(super) const SCENES: &[Scene] = &[
    scene("rtcp", "RTCP on the next port, as it always was", rtcp_next),
    scene("rtcp-mux", "RTCP on the port of RTP (RFC 5761)", rtcp_mux),
    scene("rtcp-attribute", "RTCP on a port that a=rtcp names (RFC 3605)", rtcp_attribute),
    scene("bundle", "audio and video on one port (BUNDLE)", bundle),
    scene("ice", "media by way of a candidate, not of the address in c=", ice),
    scene("nat", "SDP says a private address, the packets come from a public one (symmetric RTP)", nat),
    scene("one-way", "only the caller is heard, beside a call in which both are", one_way_audio),
    scene(
        "one-direction",
        "only the caller is heard, and nobody else is there to tell call from capture",
        one_direction,
    ),
    scene("no-media", "answered, and nobody says a thing, beside a call in which both do", no_media),
    scene("signalling-only", "the same alone: the capture may be of signalling only", signalling_only),
    scene("media-after-bye", "the called goes on for 1.5 s after BYE", media_after_bye),
    scene(
        "media-before-answer",
        "the called talks 0.8 s before it answers, and announced nothing",
        media_before_answer,
    ),
    scene("codec-mismatch", "PCMU was agreed, A-law is sent", codec_mismatch),
    scene("rejected-line", "the video line is rejected with port 0", rejected_line),
    scene("t38", "a fax: re-INVITE to T.38, UDPTL instead of RTP", t38),
    scene("no-sip", "media, and no SIP at all", no_sip),
    scene("port-reused", "two calls, one after the other, on the same ports", port_reused),
];

fn call_with(stage: &mut Stage, offer: &Sdp, answer: &Sdp) -> Call {
    let mut call = phone_to_pbx(stage);
    call.set_up(stage, offer, answer, 1_000);
    call
}

fn port(mut at: SocketAddr, port: u16) -> SocketAddr {
    at.set_port(port);
    at
}

/// Both talk for 12 s, and report every 5 s to these ports.
fn talk_and_report(stage: &mut Stage, call: &Call, to_called: u16, to_caller: u16) {
    let begins_ns = stage.now_ns;
    let (a, b) = (call.caller.media, call.called.media);
    talk(stage, call, 12_000);
    let end_ns = stage.now_ns;
    for (from, to, from_port, to_port) in [(a, b, to_caller, to_called), (b, a, to_called, to_caller)] {
        let ssrc = Speech::new(from, to, 0, 0).ssrc;
        for seconds in [5, 10] {
            stage.now_ns = begins_ns + u64::from(seconds) * 1_000_000_000;
            let report = sender_report(ssrc, seconds, seconds * 50);
            stage.datagram(port(from, from_port), port(to, to_port), &report);
        }
        stage.stream(from, to).sender_reports = Some(2);
    }
    stage.now_ns = end_ns;
}

fn rtcp_next(stage: &mut Stage) {
    let mut call = established(stage);
    talk_and_report(stage, &call, 20_001, 16_385);
    call.hang_up(stage, Side::Caller);
    stage.truth().facts.insert("/capture/rtcp/read", json!(4));
}

fn rtcp_mux(stage: &mut Stage) {
    let (a, b) = (Party::phone(1), Party::pbx());
    let (offer, answer) = (offer(&a).attribute("rtcp-mux"), answer(&b).attribute("rtcp-mux"));
    let mut call = call_with(stage, &offer, &answer);
    talk_and_report(stage, &call, 20_000, 16_384);
    call.hang_up(stage, Side::Caller);
    stage.truth().facts.insert("/capture/rtcp/read", json!(4));
}

fn rtcp_attribute(stage: &mut Stage) {
    let (a, b) = (Party::phone(1), Party::pbx());
    let (offer, answer) = (
        offer(&a).attribute("rtcp:53020"),
        answer(&b).attribute(&format!("rtcp:43021 IN IP4 {}", b.media.ip())),
    );
    let mut call = call_with(stage, &offer, &answer);
    talk_and_report(stage, &call, 43_021, 53_020);
    call.hang_up(stage, Side::Caller);
    stage.truth().facts.insert("/capture/rtcp/read", json!(4));
}

fn bundle(stage: &mut Stage) {
    let (a, b) = (Party::phone(1), Party::pbx());
    let bundled = |party: &Party, port: u16| {
        let video =
            format!("m=video {port} RTP/AVP 96\na=rtpmap:96 VP8/90000\na=mid:1\na=rtcp-mux\na=sendrecv");
        let audio = audio(party.media, &[PCMU]).session("group:BUNDLE 0 1");
        audio.attribute("mid:0").attribute("rtcp-mux").line(&video)
    };
    // The offer's second port is one that nobody uses once the answer bundles.
    let (offer, answer) = (bundled(&a, 16_390), bundled(&b, b.media.port()));
    let mut call = call_with(stage, &offer, &answer);
    let now_ns = stage.now_ns;
    for (from, to, ssrc) in [(a.media, b.media, 0x0111_0000), (b.media, a.media, 0x0222_0000)] {
        stage.speak(&Speech::new(from, to, now_ns, 2_000).ssrc(ssrc).of(call.index));
        stage.speak(&Speech::new(from, to, now_ns, 2_000).ssrc(ssrc + 1).of(call.index).video());
    }
    stage.wait(2_040);
    call.hang_up(stage, Side::Caller);
}

fn ice(stage: &mut Stage) {
    let (a, b) = (Party::phone(1), Party::pbx());
    let relayed = SocketAddr::from(([198, 51, 100, 99], 50_000));
    let offer = offer(&a)
        .session("ice-ufrag:F7gI")
        .session("ice-pwd:x9cml/YzichV2+XlhiMu8gAbCdEfGh")
        .attribute("candidate:1 1 UDP 2130706431 10.16.0.11 16384 typ host")
        .attribute("candidate:2 1 UDP 1694498815 198.51.100.7 40000 typ srflx raddr 10.16.0.11 rport 16384")
        .attribute("candidate:3 1 UDP 16777215 198.51.100.99 50000 typ relay raddr 198.51.100.7 rport 40000")
        .attribute("end-of-candidates");
    let answer = answer(&b)
        .session("ice-lite")
        .session("ice-ufrag:9uB6")
        .session("ice-pwd:YH75Fviy6338Vbrhrlp8Yh7rAbCdEfGh")
        .attribute("candidate:1 1 UDP 2130706431 10.7.0.5 20000 typ host");
    let mut call = call_with(stage, &offer, &answer);
    let now_ns = stage.now_ns;
    for (from, to) in [(relayed, b.media), (b.media, relayed)] {
        stage.speak(&Speech::new(from, to, now_ns, 2_500).of(call.index));
    }
    stage.wait(2_540);
    call.hang_up(stage, Side::Caller);
}

fn nat(stage: &mut Stage) {
    let mut phone = Party::phone(1);
    phone.sip = SocketAddr::from(([203, 0, 113, 5], 5_062));
    phone.media = SocketAddr::from(([192, 168, 1, 10], 4_000));
    let public = SocketAddr::from(([203, 0, 113, 5], 61_234));
    let mut call = Call::new(stage, &phone, &Party::pbx());
    set_up(stage, &mut call);
    let (pbx, now_ns) = (call.called.media, stage.now_ns);
    stage.speak(&Speech::new(public, pbx, now_ns, 3_000).of(call.index));
    // The PBX learns where to send from what arrives.
    stage.speak(&Speech::new(pbx, public, now_ns + 60_000_000, 2_900).of(call.index));
    stage.wait(3_040);
    call.hang_up(stage, Side::Caller);
    stage.call(call.index).media_findings = vec!["nat-rewritten-address"];
}

/// A call between others in which both talk: media of both directions is in the capture.
fn beside(stage: &mut Stage) {
    let mut call = Call::new(stage, &Party::phone(7), &Party::phone(8));
    set_up(stage, &mut call);
    talk(stage, &call, 2_000);
    call.hang_up(stage, Side::Caller);
}

/// Only the caller is heard.
fn mute(stage: &mut Stage) -> Call {
    let mut call = established(stage);
    one_way(stage, &call, Side::Caller, 6_000);
    stage.wait(6_040);
    call.hang_up(stage, Side::Caller);
    call
}

fn one_way_audio(stage: &mut Stage) {
    beside(stage);
    let call = mute(stage);
    stage.call(call.index).media_findings = vec!["one-way-audio"];
}

fn one_direction(stage: &mut Stage) {
    let call = mute(stage);
    stage.call(call.index).media_findings = vec!["one-direction-only"];
}

/// Nobody is heard.
fn silent(stage: &mut Stage) -> Call {
    let mut call = established(stage);
    stage.wait(6_000);
    call.hang_up(stage, Side::Caller);
    call
}

fn no_media(stage: &mut Stage) {
    beside(stage);
    let call = silent(stage);
    stage.call(call.index).media_findings = vec!["no-media"];
}

fn signalling_only(stage: &mut Stage) {
    silent(stage);
}

fn media_after_bye(stage: &mut Stage) {
    let mut call = established(stage);
    one_way(stage, &call, Side::Caller, 2_000);
    one_way(stage, &call, Side::Called, 3_500);
    stage.wait(2_000);
    call.hang_up(stage, Side::Caller);
    stage.call(call.index).media_findings = vec!["media-after-bye"];
}

fn media_before_answer(stage: &mut Stage) {
    let mut call = phone_to_pbx(stage);
    let sdp = offer(&call.caller);
    let invite = call.invite(stage, Some(&sdp));
    stage.wait(60);
    call.reply(stage, &invite, 180, "Ringing");
    stage.wait(1_000);
    one_way(stage, &call, Side::Called, 2_800);
    stage.wait(800);
    let sdp = answer(&call.called);
    call.reply_sdp(stage, &invite, 200, &sdp);
    stage.wait(11);
    call.ack(stage, true, None);
    one_way(stage, &call, Side::Caller, 1_950);
    stage.wait(2_040);
    call.hang_up(stage, Side::Caller);
    stage.call(call.index).media_findings = vec!["media-before-answer"];
}

fn codec_mismatch(stage: &mut Stage) {
    let (a, b) = (Party::phone(1), Party::pbx());
    let mut call = call_with(stage, &audio(a.media, &[PCMU]), &audio(b.media, &[PCMU]));
    one_way(stage, &call, Side::Caller, 2_000);
    let wrong = Speech::new(b.media, a.media, stage.now_ns, 2_000).of(call.index);
    stage.speak(&wrong.law(crate::g711::Law::A));
    stage.wait(2_040);
    call.hang_up(stage, Side::Caller);
    stage.call(call.index).media_findings = vec!["codec-mismatch"];
}

fn rejected_line(stage: &mut Stage) {
    let (a, b) = (Party::phone(1), Party::pbx());
    let offer = offer(&a).line("m=video 16390 RTP/AVP 96\na=rtpmap:96 VP8/90000\na=sendrecv");
    let answer = answer(&b).line("m=video 0 RTP/AVP 96");
    let mut call = call_with(stage, &offer, &answer);
    talk(stage, &call, 2_500);
    call.hang_up(stage, Side::Caller);
}

/// A UDPTL packet with one octet of T.30 indication, no redundancy (T.38, annex A).
fn udptl(number: u16) -> Vec<u8> {
    let [high, low] = number.to_be_bytes();
    vec![high, low, 1, 6, 0, 0]
}

fn t38(stage: &mut Stage) {
    const PACKETS: u16 = 60;
    let mut call = established(stage);
    talk(stage, &call, 2_000);
    let fax = |at: SocketAddr| {
        let lines =
            format!("m=image {} udptl t38\na=T38FaxVersion:0\na=T38FaxUdpEC:t38UDPRedundancy", at.port());
        audio(at, &[]).version(2).line(&lines)
    };
    let (offer, answer) = (fax(call.called.media), fax(call.caller.media));
    call.reinvite(stage, Side::Called, &offer, &answer);
    stage.wait(20);
    for number in 0..PACKETS {
        stage.wait(40);
        stage.datagram(call.caller.media, call.called.media, &udptl(number));
        stage.datagram(call.called.media, call.caller.media, &udptl(number));
    }
    stage.wait(100);
    call.hang_up(stage, Side::Caller);
    stage.call(call.index).media_findings = vec!["audio-ended-with-fax"];
    stage.truth().facts.insert("/capture/media_other/udptl", json!(2 * PACKETS));
}

fn no_sip(stage: &mut Stage) {
    let (a, b) = (Party::phone(1).media, Party::pbx().media);
    for (from, to) in [(a, b), (b, a)] {
        stage.speak(&Speech::new(from, to, 0, 3_000).absent("no SIP"));
    }
}

fn port_reused(stage: &mut Stage) {
    for ssrc in [0x5151_0000, 0x5252_0000] {
        let mut call = established(stage);
        let (a, b, now_ns) = (call.caller.media, call.called.media, stage.now_ns);
        stage.speak(&Speech::new(a, b, now_ns, 1_500).ssrc(ssrc).of(call.index));
        stage.speak(&Speech::new(b, a, now_ns, 1_500).ssrc(ssrc + 1).of(call.index));
        stage.wait(1_540);
        call.hang_up(stage, Side::Caller);
        stage.wait(2_000);
    }
}

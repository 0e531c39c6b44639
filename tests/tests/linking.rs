//! Media and its calls: by what a stream is linked, why it is not, and what the media does that the signalling does not say.
//!
//! Each capture is made here, of messages and packets that a person can read; the shared captures are listed stream by
//! stream.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::net::SocketAddr;
use std::path::PathBuf;

use serde_json::Value;
use voxlab::captures::{Scratch, Timed, Writer, files_below, shared_captures};
use voxlab::frames::{rtp, sip, tcp, udp};
use voxprobe::pipeline::offline::{Options, RtpRule, analyze};

const MS: u64 = 1_000_000;
const ANN: &str = "10.0.0.1:5060";
const BOB: &str = "10.0.0.2:5060";

/// A capture to be: whatever happens, at a time in milliseconds.
#[derive(Default)]
struct Stage {
    frames: Vec<Timed>,
}

/// A message of a call between Ann, who calls, and Bob.
struct Say<'a> {
    call: &'a str,
    cseq: &'a str,
    /// Lines of its SDP from `c=` on; none if empty.
    sdp: &'a str,
}

fn at(address: &str) -> SocketAddr {
    address.parse().unwrap()
}

impl Stage {
    fn frame(&mut self, ms: u64, frame: Vec<u8>) {
        self.frames.push((1_000 * 1_000 * MS + ms * MS, frame));
    }

    /// Ann's request, or Bob's if `by_bob`.
    fn message(&mut self, ms: u64, by_bob: bool, start: &str, say: &Say<'_>) {
        let is_response = start.starts_with("SIP/");
        let (from, to) = if by_bob == is_response { ("ann", "bob") } else { ("bob", "ann") };
        let to = match say.cseq {
            "1 INVITE" if !is_response => String::new(),
            _ => format!(";tag={to}"),
        };
        let body = if say.sdp.is_empty() { String::new() } else { format!("v=0\r\n{}", say.sdp) };
        let text = format!(
            "{start}\r\nVia: SIP/2.0/UDP h;branch=z9hG4bK{}{}\r\nFrom: <sip:{from}@h>;tag={from}\r\n\
             To: <sip:x@h>{to}\r\nCall-ID: {}\r\nCSeq: {}\r\nContent-Type: application/sdp\r\n\
             Content-Length: {}\r\n\r\n{body}",
            say.call,
            say.cseq.replace(' ', ""),
            say.call,
            say.cseq,
            body.len(),
        );
        let (src, dst) = if by_bob { (BOB, ANN) } else { (ANN, BOB) };
        self.frame(ms, sip(&text).between(at(src), at(dst)).ethernet());
    }

    /// INVITE, 180 after 10 ms, 200 after a second.
    fn call(&mut self, ms: u64, call: &str, offer: &str, answer: &str) {
        let say = |sdp| Say { call, cseq: "1 INVITE", sdp };
        self.message(ms, false, "INVITE sip:bob@h SIP/2.0", &say(offer));
        self.message(ms + 10, true, "SIP/2.0 180 Ringing", &say(""));
        self.message(ms + 1_000, true, "SIP/2.0 200 OK", &say(answer));
        self.message(ms + 1_001, false, "ACK sip:bob@h SIP/2.0", &Say { call, cseq: "1 ACK", sdp: "" });
    }

    /// An offer within the call, and its answer a tenth of a second later.
    fn change(&mut self, ms: u64, call: &str, offer: &str, answer: &str) {
        let say = |sdp| Say { call, cseq: "2 INVITE", sdp };
        self.message(ms, false, "INVITE sip:bob@h SIP/2.0", &say(offer));
        self.message(ms + 100, true, "SIP/2.0 200 OK", &say(answer));
    }

    fn bye(&mut self, ms: u64, call: &str) {
        let say = Say { call, cseq: "9 BYE", sdp: "" };
        self.message(ms, false, "BYE sip:bob@h SIP/2.0", &say);
        self.message(ms + 5, true, "SIP/2.0 200 OK", &say);
    }

    /// A second of PCMA for each of `seconds`.
    fn talk(&mut self, ms: u64, seconds: u64, from: &str, to: &str, ssrc: u32) {
        self.talk_as(ms, seconds, from, to, ssrc, 8);
    }

    fn talk_as(&mut self, ms: u64, seconds: u64, from: &str, to: &str, ssrc: u32, payload_type: u8) {
        for n in 0..50 * seconds {
            let packet = rtp().seq(u16::try_from(n).unwrap()).ssrc(ssrc).varied(160);
            let packet = voxlab::frames::Rtp { payload_type, ..packet };
            self.frame(ms + 20 * n, packet.over(udp().between(at(from), at(to))).ethernet());
        }
    }

    /// The file, in order of time.
    fn file(mut self, scratch: &Scratch, name: &str) -> PathBuf {
        self.frames.sort_by_key(|(time, _)| *time);
        scratch.file(&format!("{name}.pcapng"), &Writer::PCAP_NG.file(&self.frames)).unwrap()
    }

    fn report(self, name: &str) -> Value {
        let scratch = Scratch::new(&format!("linking-{name}")).unwrap();
        let path = self.file(&scratch, name);
        report(path, &Options::default())
    }
}

fn report(path: PathBuf, options: &Options) -> Value {
    serde_json::to_value(analyze(&[path], options, |_, _| ()).unwrap()).unwrap()
}

fn sdp(address: &str, line: &str) -> String {
    format!("c=IN IP4 {address}\r\n{line}\r\n")
}

/// By sender and receiver: the call, and by what, or why not.
fn links(report: &Value) -> Vec<(String, String, String)> {
    let word = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let link = |stream: &Value| {
        let why =
            if stream["call_id"].is_null() { &stream["call_absent_because"] } else { &stream["linked_by"] };
        (format!("{} {}", word(&stream["src"]), word(&stream["dst"])), word(&stream["call_id"]), word(why))
    };
    report["streams"].as_array().unwrap().iter().map(link).collect()
}

fn link(between: &str, call: &str, why: &str) -> (String, String, String) {
    (between.to_owned(), call.to_owned(), why.to_owned())
}

/// What is found in a call's media: identifiers and sentences.
fn found(report: &Value, call: usize) -> Vec<(String, String)> {
    let of = |finding: &Value| {
        (finding["id"].as_str().unwrap().to_owned(), finding["text"].as_str().unwrap().to_owned())
    };
    report["calls"][call]["media_findings"].as_array().unwrap().iter().map(of).collect()
}

/// Exactly these are found, each with a sentence that holds this.
#[track_caller]
fn assert_found(report: &Value, call: usize, expected: &[(&str, &str)]) {
    let found = found(report, call);
    let is_as_expected = found.len() == expected.len()
        && found.iter().zip(expected).all(|((id, text), (want, part))| id == want && text.contains(part));
    assert!(is_as_expected, "{found:#?}\nfor {expected:#?}");
}

/// Behind a NAT: the SDP says another address than the packets, and Bob answers from yet another port.
fn behind_a_nat() -> Stage {
    let mut stage = Stage::default();
    let (offer, answer) =
        (sdp("192.168.1.10", "m=audio 4000 RTP/AVP 8"), sdp("10.0.0.2", "m=audio 6000 RTP/AVP 8"));
    stage.call(0, "nat", &offer, &answer);
    stage.talk(1_010, 4, "203.0.113.5:61234", "10.0.0.2:6000", 1);
    stage.talk(1_050, 4, "10.0.0.2:7000", "203.0.113.5:61234", 2);
    stage.bye(5_100, "nat");
    stage
}

#[test]
fn media_through_a_nat_is_linked_by_where_its_packets_come_from() {
    let report = behind_a_nat().report("nat");
    let expected = [
        link("203.0.113.5:61234 10.0.0.2:6000", "nat", "destination"),
        link("10.0.0.2:7000 203.0.113.5:61234", "nat", "symmetric-rtp"),
    ];
    assert_eq!(links(&report), expected);
    let says = "the SDP of the caller says 192.168.1.10:4000, its packets come from 203.0.113.5:61234";
    assert_found(&report, 0, &[("nat-rewritten-address", says)]);
}

#[test]
fn several_threads_learn_the_same_and_the_rule_of_tshark_learns_nothing() {
    let scratch = Scratch::new("linking-threads").unwrap();
    let path = behind_a_nat().file(&scratch, "nat");
    let one = report(path.clone(), &Options::default());
    let three = report(path.clone(), &Options { threads: 3, ..Options::default() });
    assert_eq!(links(&one), links(&three));
    let literal = report(path, &Options { rtp: RtpRule::Sdp, ..Options::default() });
    assert_eq!(links(&literal), links(&one)[..1]);
}

#[test]
fn two_calls_with_one_sdp_both_have_the_media_and_one_after_the_other_each_its_own() {
    let (offer, answer) =
        (sdp("10.0.0.1", "m=audio 4000 RTP/AVP 8"), sdp("10.0.0.2", "m=audio 6000 RTP/AVP 8"));
    let both = |stage: &mut Stage, ms, ssrc| {
        stage.talk(ms, 3, "10.0.0.1:4000", "10.0.0.2:6000", ssrc);
        stage.talk(ms, 3, "10.0.0.2:6000", "10.0.0.1:4000", ssrc + 1);
    };
    let mut b2bua = Stage::default();
    b2bua.call(0, "leg-a", &offer, &answer);
    b2bua.call(3, "leg-b", &offer, &answer);
    both(&mut b2bua, 1_010, 1);
    b2bua.bye(4_100, "leg-b");
    b2bua.bye(4_110, "leg-a");
    let report = b2bua.report("b2bua");
    assert_eq!(report["streams"][0]["call_id"], "leg-b", "whoever announced it last");
    assert_eq!(report["streams"][0]["shared_with"], serde_json::json!(["leg-a"]));
    for call in [0, 1] {
        assert_eq!(report["calls"][call]["streams"].as_array().map(Vec::len), Some(2));
        assert_found(&report, call, &[]);
    }

    let mut reused = Stage::default();
    for (ms, name, ssrc) in [(0, "first", 1), (6_000, "second", 11)] {
        reused.call(ms, name, &offer, &answer);
        both(&mut reused, ms + 1_010, ssrc);
        reused.bye(ms + 4_100, name);
    }
    let report = reused.report("reused");
    let calls: Vec<_> = links(&report).into_iter().map(|(_, call, _)| call).collect();
    assert_eq!(calls, ["first", "first", "second", "second"]);
    assert!(report["streams"].as_array().unwrap().iter().all(|stream| stream.get("shared_with").is_none()));
    for call in [0, 1] {
        assert_eq!(report["calls"][call]["streams"].as_array().map(Vec::len), Some(2));
        assert_found(&report, call, &[]);
    }
}

#[test]
fn a_candidate_is_announced_and_a_bundle_knows_all_its_formats() {
    let offer = sdp(
        "10.0.0.1",
        "a=group:BUNDLE a v\r\nm=audio 4000 RTP/AVP 100\r\na=mid:a\r\na=rtpmap:100 opus/48000/2\r\na=rtcp-mux\r\n\
         a=candidate:1 1 UDP 2130706431 10.0.0.1 4000 typ host\r\n\
         a=candidate:2 1 UDP 16777215 198.51.100.9 49152 typ relay raddr 10.0.0.1 rport 4000\r\na=end-of-candidates\r\n\
         m=video 4002 RTP/AVP 101\r\na=mid:v\r\na=rtpmap:101 VP8/90000",
    );
    let answer = sdp(
        "10.0.0.2",
        "a=group:BUNDLE a v\r\nm=audio 6000 RTP/AVP 100\r\na=mid:a\r\na=rtpmap:100 opus/48000/2\r\na=rtcp-mux\r\n\
         m=video 6000 RTP/AVP 101\r\na=mid:v\r\na=rtpmap:101 VP8/90000",
    );
    let mut stage = Stage::default();
    stage.call(0, "ice", &offer, &answer);
    for (port, ssrc, payload_type) in [(0, 1, 100), (1, 2, 101)] {
        stage.talk_as(1_010 + port, 3, "10.0.0.2:6000", "198.51.100.9:49152", ssrc, payload_type);
        stage.talk_as(1_012 + port, 3, "10.0.0.1:4000", "10.0.0.2:6000", ssrc + 10, payload_type);
    }
    stage.bye(4_100, "ice");
    let report = stage.report("ice");
    let streams = report["streams"].as_array().unwrap();
    let told: Vec<_> = streams
        .iter()
        .map(|stream| (stream["linked_by"].as_str().unwrap(), stream["codec"].as_str().unwrap()))
        .collect();
    let expected = [
        ("ice-candidate", "opus"),
        ("ice-candidate", "VP8"),
        ("destination", "opus"),
        ("destination", "VP8"),
    ];
    assert_eq!(told, expected);
    assert_found(&report, 0, &[]);
}

#[test]
fn fax_is_the_calls_and_the_end_of_its_audio_is_explained() {
    let audio = |address, port| sdp(address, &format!("m=audio {port} RTP/AVP 8"));
    let fax = |address, port| sdp(address, &format!("m=audio 0 RTP/AVP 8\r\nm=image {port} udptl t38"));
    let mut stage = Stage::default();
    stage.call(0, "fax", &audio("10.0.0.1", 4000), &audio("10.0.0.2", 6000));
    stage.talk(1_010, 3, "10.0.0.1:4000", "10.0.0.2:6000", 1);
    stage.talk(1_010, 3, "10.0.0.2:6000", "10.0.0.1:4000", 2);
    stage.change(4_000, "fax", &fax("10.0.0.1", 4000), &fax("10.0.0.2", 6002));
    for n in 0..200_u64 {
        let udptl = [0, u8::try_from(n).unwrap(), 1, 6, 0, 0];
        let ways =
            if n % 2 == 0 { ("10.0.0.1:4000", "10.0.0.2:6002") } else { ("10.0.0.2:6002", "10.0.0.1:4000") };
        let datagram = udp().between(at(ways.0), at(ways.1)).payload(&udptl);
        stage.frame(4_200 + 30 * n, datagram.ethernet());
    }
    stage.bye(11_000, "fax");
    let report = stage.report("fax");
    assert_eq!(
        (&report["calls"][0]["fax_packets"], &report["capture"]["media_other"]["udptl"]),
        (&200.into(), &200.into())
    );
    assert_found(&report, 0, &[("audio-ended-with-fax", "T.38")]);
    assert_eq!(links(&report).len(), 2);
}

#[test]
fn what_media_does_beside_its_signalling_is_found() {
    let (offer, answer) =
        (sdp("10.0.0.1", "m=audio 4000 RTP/AVP 8"), sdp("10.0.0.2", "m=audio 6000 RTP/AVP 8"));
    // Another call whose media has both ways, so that the capture is above suspicion.
    let with_witness = || {
        let mut stage = Stage::default();
        let other = |address| sdp(address, "m=audio 9000 RTP/AVP 8");
        stage.call(0, "witness", &other("10.0.0.1"), &other("10.0.0.2"));
        stage.talk(1_010, 3, "10.0.0.1:9000", "10.0.0.2:9000", 91);
        stage.talk(1_010, 3, "10.0.0.2:9000", "10.0.0.1:9000", 92);
        stage.bye(4_100, "witness");
        stage.call(1, "one", &offer, &answer);
        stage
    };
    let (up, down) = (("10.0.0.1:4000", "10.0.0.2:6000"), ("10.0.0.2:6000", "10.0.0.1:4000"));

    let mut stage = with_witness();
    stage.talk(1_010, 4, up.0, up.1, 1);
    stage.bye(5_100, "one");
    let report = stage.report("one-way");
    assert_found(&report, 0, &[]);
    assert_found(
        &report,
        1,
        &[("one-way-audio", "200 packets of the caller, none of the called in the 4.1 s")],
    );
    let ids: Vec<_> = report["findings"]
        .as_array()
        .unwrap()
        .iter()
        .map(|finding| finding["id"].as_str().unwrap())
        .collect();
    assert_eq!(ids[0], "one-way-audio");

    let mut stage = with_witness();
    stage.talk(500, 4, down.0, down.1, 1);
    stage.talk(1_010, 6, up.0, up.1, 2);
    stage.bye(5_000, "one");
    let report = stage.report("early-and-late");
    let expected =
        [("media-before-answer", "501 ms before the answer"), ("media-after-bye", "went on for 2.0 s")];
    assert_found(&report, 1, &expected);

    let mut stage = with_witness();
    stage.bye(9_000, "one");
    let report = stage.report("none");
    let reason = "nothing was captured to or from 10.0.0.1:4000 and 10.0.0.2:6000";
    assert_found(&report, 1, &[("no-media", reason)]);
    assert_eq!(
        report["calls"][1]["media_absent_because"],
        format!("{reason}; RTP of 10.0.0.1 goes by other ports")
    );

    let mut stage = with_witness();
    stage.talk_as(1_010, 3, up.0, up.1, 1, 18);
    stage.talk(1_010, 3, down.0, down.1, 2);
    stage.bye(4_100, "one");
    let report = stage.report("codec");
    assert_found(&report, 1, &[("codec-mismatch", "payload type 18 (G729), but 10.0.0.2:6000 announced 8")]);
}

#[test]
fn silence_that_was_agreed_on_is_no_one_way_audio() {
    let line = |address, direction| sdp(address, &format!("m=audio 4000 RTP/AVP 8\r\na={direction}"));
    let mut stage = Stage::default();
    stage.call(0, "music", &line("10.0.0.1", "sendonly"), &line("10.0.0.2", "recvonly"));
    stage.talk(1_010, 5, "10.0.0.1:4000", "10.0.0.2:4000", 1);
    stage.bye(6_100, "music");
    assert_found(&stage.report("music"), 0, &[]);
}

#[test]
fn a_stream_without_a_call_says_why() {
    let talk = |stage: &mut Stage| stage.talk(3_000, 2, "10.0.0.1:4000", "10.0.0.2:6000", 1);
    let why = |stage: Stage, name: &str| links(&stage.report(name)).remove(0).2;
    let line = |address, port| sdp(address, &format!("m=audio {port} RTP/AVP 8"));

    let mut stage = Stage::default();
    talk(&mut stage);
    assert_eq!(why(stage, "no-sip"), "no SIP in the capture");

    let mut stage = Stage::default();
    talk(&mut stage);
    let record = tcp().between(at("10.0.0.1:40000"), at("10.0.0.2:5061")).payload(&[23, 3, 3, 0, 1, 0]);
    stage.frame(0, record.ethernet());
    assert_eq!(why(stage, "tls"), "signalling is encrypted (1 frame of TLS)");

    let mut stage = Stage::default();
    talk(&mut stage);
    stage.call(0, "bare", "", "");
    assert_eq!(why(stage, "no-sdp"), "no SDP in the capture: 4 messages, none with a description");

    let mut stage = Stage::default();
    talk(&mut stage);
    stage.call(0, "near", &line("10.0.0.9", 4100), &line("10.0.0.2", 6100));
    let reason = "no SDP announced 10.0.0.1:4000 or 10.0.0.2:6000; call near announced 10.0.0.2:6100, of the same host";
    assert_eq!(why(stage, "near"), reason);

    let mut stage = Stage::default();
    talk(&mut stage);
    stage.call(8_000, "later", &line("10.0.0.9", 4100), &line("10.0.0.2", 6000));
    let reason =
        "10.0.0.2:6000 was announced, but the SDP of call later (frame 103) came 4.0 s after the last packet";
    assert_eq!(why(stage, "later"), reason);
}

#[test]
fn a_call_without_media_says_why() {
    let why = |stage: Stage, name: &str| {
        stage.report(name)["calls"][0]["media_absent_because"].as_str().unwrap().to_owned()
    };
    let line = |address, port| sdp(address, &format!("m=audio {port} RTP/AVP 8"));
    let offer = line("10.0.0.1", 4000);
    let say = |sdp| Say { call: "x", cseq: "1 INVITE", sdp };

    let mut stage = Stage::default();
    stage.message(0, false, "INVITE sip:bob@h SIP/2.0", &say(&offer));
    assert_eq!(why(stage, "unanswered"), "no answer to its INVITE was seen");

    let mut stage = Stage::default();
    stage.message(0, false, "INVITE sip:bob@h SIP/2.0", &say(&offer));
    stage.message(10, true, "SIP/2.0 486 Busy Here", &say(""));
    assert_eq!(why(stage, "busy"), "it failed with 486 before there was any media");

    for (name, offer, answer, reason) in [
        ("bare", "", "", "no SDP was seen in its messages"),
        (
            "refused",
            "c=IN IP4 10.0.0.1\r\nm=audio 0 RTP/AVP 8\r\n",
            "c=IN IP4 10.0.0.2\r\nm=audio 0 RTP/AVP 8\r\n",
            "all its media lines were refused (port 0)",
        ),
        (
            "held",
            "c=IN IP4 0.0.0.0\r\nm=audio 4000 RTP/AVP 8\r\n",
            "c=IN IP4 0.0.0.0\r\nm=audio 4000 RTP/AVP 8\r\n",
            "its SDP names no address to send to: on hold (0.0.0.0), or a host name",
        ),
        (
            "chat",
            "c=IN IP4 10.0.0.1\r\nm=message 2855 TCP/MSRP *\r\n",
            "c=IN IP4 10.0.0.2\r\nm=message 2855 TCP/MSRP *\r\n",
            "it announced MSRP messages only",
        ),
    ] {
        let mut stage = Stage::default();
        stage.call(0, "x", offer, answer);
        assert_eq!(why(stage, name), reason);
    }
}

/// Of each shared capture that has streams: how many are linked by what, and the reasons of the others.
#[test]
fn every_announced_stream_of_the_shared_captures_is_linked() {
    const NO_SIP: &str = "no SIP in the capture";
    /// Noise was written into it, so that its streams are whatever the noise makes.
    const FUZZED: &str = "ntop+nDPI/fuzz-2006-06-26-2594.pcap";
    let Some(shared) = shared_captures() else { return };
    let expected: [(&str, usize, &[&str]); 12] = [
        ("MichalCab+ISA/sip.siprtp.pcap", 1, &[]),
        ("arkime+arkime/gtp-iphone.pcap", 2, &[]),
        ("cisco-system-traffic-generator+trex-core/Voice_calls_rtp_only.pcap", 0, &[NO_SIP; 2]),
        // Its media is another call's: the SDP names ports and a host that send nothing here.
        (
            "cisco-system-traffic-generator+trex-core/delay_10_sip_video_call_full.pcap",
            0,
            &[
                "no SDP announced 21.0.0.35:10110 or 22.0.0.6:10110",
                "no SDP announced 22.0.0.6:10110 or 21.0.0.35:10110",
            ],
        ),
        ("cisco-system-traffic-generator+trex-core/sip_short1-0-ex.erf", 2, &[]),
        ("cisco-system-traffic-generator+trex-core/sip_short1_v6-0-ex.erf", 2, &[]),
        ("cisco-system-traffic-generator+trex-core/video_rtp_1588_0.pcap", 0, &[NO_SIP; 2]),
        ("ntop+nDPI/FAX-Call-t38-CA-TDM-SIP-FB-1.pcap", 2, &[]),
        ("ntop+nDPI/rtp.pcapng", 0, &[NO_SIP; 5]),
        ("ntop+nDPI/skinny.pcap", 0, &[NO_SIP; 6]),
        ("zongbingwang+pcapApplication/MagicJack+_short_call.pcap", 2, &[]),
        ("zongbingwang+pcapApplication/yate.siprtp.pcap", 2, &[]),
    ];
    for (file, by_destination, reasons) in expected {
        let report = report(shared.join(file), &Options::default());
        let links = links(&report);
        let linked = links.iter().filter(|(_, _, by)| by == "destination").count();
        let others: Vec<_> =
            links.iter().filter(|(_, call, _)| call.is_empty()).map(|(.., why)| why).collect();
        assert_eq!(
            (linked, links.len()),
            (by_destination, by_destination + reasons.len()),
            "{file}: {links:#?}"
        );
        let is_as_expected = others.iter().zip(reasons).all(|(why, expected)| why.starts_with(expected));
        assert!(is_as_expected, "{file}: {others:#?}");
    }
    let others = files_below(&shared).into_iter().filter(|path| {
        let name = path.strip_prefix(&shared).unwrap().to_str().unwrap();
        name != FUZZED && !name.starts_with("golden/") && !expected.iter().any(|(known, ..)| *known == name)
    });
    for path in others {
        assert_eq!(links(&report(path.clone(), &Options::default())), [], "{}", path.display());
    }
}

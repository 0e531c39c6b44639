//! The story that the project exists for, generated: a call with 407 and a transfer, seen by two taps.
//!
//! Expectations are counted by the generator, frame by frame; nothing here is read back from the analysis.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::fs;
use std::path::PathBuf;

use serde_json::Value;
use voxlab::captures::Writer;
use voxlab::frames::{Datagram, rtp, sip, udp};
use voxprobe::pipeline::offline::{Options, analyze};

const START_NS: u64 = 1_700_000_000_000_000_000;
const SECOND_NS: u64 = 1_000_000_000;
const CALL_ID: &str = "a84b4c76e66710@phone.example";

/// Frames in order of capture, and the truth about them.
#[derive(Default)]
struct Story {
    frames: Vec<(u64, Vec<u8>)>,
    copies: u64,
    sip_messages: u64,
    retransmissions: u64,
    rtp_sent: [u64; 2],
    rtp_lost: [u64; 2],
}

/// How a second tap sees the same packet.
type SecondTap = fn(&Datagram) -> Datagram;

fn re_emitted(packet: &Datagram) -> Datagram {
    Datagram { dst_mac: [2, 0, 0, 0, 9, 9], ip_id: 0, ..packet.clone() }
}

fn re_emitted_elsewhere(packet: &Datagram) -> Datagram {
    Datagram { dst_mac: [2, 0, 0, 0, 9, 7], ip_id: 1, ..packet.clone() }
}

fn re_emitted_twice(packet: &Datagram) -> Datagram {
    Datagram { dst_mac: [2, 0, 0, 0, 9, 6], ip_id: 2, ..packet.clone() }
}

fn routed(packet: &Datagram) -> Datagram {
    Datagram {
        dst_mac: [2, 0, 0, 0, 9, 9],
        src_mac: [2, 0, 0, 0, 9, 8],
        ttl: packet.ttl - 1,
        ..packet.clone()
    }
}

fn sent_again(packet: &Datagram) -> Datagram {
    Datagram { ip_id: 0, ..packet.clone() }
}

fn tagged(packet: &Datagram) -> Datagram {
    packet.clone().vlan(42)
}

fn other_port(packet: &Datagram) -> Datagram {
    Datagram { dst_mac: [2, 0, 0, 0, 9, 9], ..packet.clone() }
}

impl Story {
    fn put(&mut self, time_ns: u64, packet: &Datagram, taps: &[SecondTap]) {
        let frame = |packet: &Datagram| packet.ethernet();
        self.frames.push((START_NS + time_ns, frame(packet)));
        for (tap, delay_ns) in taps.iter().zip([38_000, 61_000, 90_000]) {
            self.frames.push((START_NS + time_ns + delay_ns, frame(&tap(packet))));
            self.copies += 1;
        }
    }

    fn say(&mut self, time_ns: u64, from_phone: bool, message: &str, taps: &[SecondTap]) {
        self.sip_messages += 1;
        let id = 1000 + u16::try_from(self.sip_messages).unwrap();
        let packet = sip(message).ip_id(id);
        let packet =
            if from_phone { packet } else { Datagram { src: packet.dst, dst: packet.src, ..packet } };
        self.put(time_ns, &packet, taps);
    }

    /// The call. Media flows from 1 s to 14 s, with a pause of 1.79 s from the REFER on, and seeded loss.
    fn new(taps: &[SecondTap]) -> Self {
        let mut story = Self::default();
        let (ms, at) = (1_000_000, SECOND_NS / 2);
        story.say(0, true, &dialog::invite(1, ""), taps);
        story.say(20 * ms, false, &dialog::answer(407, 1, "INVITE", false), taps);
        story.say(25 * ms, true, &dialog::request("ACK", 1, ""), taps);
        story.say(
            40 * ms,
            true,
            &dialog::invite(2, "Proxy-Authorization: Digest username=\"1001\"\r\n"),
            taps,
        );
        // The answer is late: timer A runs out once.
        story.retransmissions += 1;
        story.say(
            540 * ms,
            true,
            &dialog::invite(2, "Proxy-Authorization: Digest username=\"1001\"\r\n"),
            taps,
        );
        story.say(560 * ms, false, &dialog::answer(100, 2, "INVITE", false), taps);
        story.say(600 * ms, false, &dialog::answer(180, 2, "INVITE", false), taps);
        story.say(900 * ms, false, &dialog::answer(200, 2, "INVITE", true), taps);
        story.say(910 * ms, true, &dialog::request("ACK", 2, ""), taps);
        let refer_ns = 7 * SECOND_NS;
        story.say(refer_ns, true, &dialog::request("REFER", 3, "Refer-To: <sip:300@pbx.example>\r\n"), taps);
        story.say(refer_ns + 10 * ms, false, &dialog::answer(202, 3, "REFER", false), taps);
        let notify = "Event: refer\r\nSubscription-State: terminated\r\n";
        story.say(refer_ns + 1_780 * ms, false, &dialog::request("NOTIFY", 4, notify), taps);
        story.say(refer_ns + 1_785 * ms, true, &dialog::answer(200, 4, "NOTIFY", false), taps);
        story.media(taps, refer_ns);
        story.say(14 * SECOND_NS, true, &dialog::request("BYE", 5, ""), taps);
        story.say(14 * SECOND_NS + at / 10, false, &dialog::answer(200, 5, "BYE", false), taps);
        story.frames.sort_by_key(|(time, _)| *time);
        story
    }

    fn media(&mut self, taps: &[SecondTap], pause_at_ns: u64) {
        let mut random = 7_u64;
        for direction in 0..2_usize {
            for seq in 0..600_u16 {
                let mut time_ns = SECOND_NS + u64::from(seq) * 20_000_000;
                if time_ns > pause_at_ns {
                    time_ns += 1_790_000_000;
                }
                random =
                    random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                let jitter_ns = (random >> 33) % 2_000_000;
                self.rtp_sent[direction] += 1;
                // Never the first or last: what nobody could miss is not lost by any count.
                if seq % 200 == 77 {
                    self.rtp_lost[direction] += 1;
                    continue;
                }
                let ssrc = 0xA000 + u32::try_from(direction).unwrap();
                let packet = rtp().seq(seq).ssrc(ssrc).payload(&[seq.to_le_bytes()[0]; 160]).over(udp());
                let packet = packet.ports(16_384, 20_002).ip_id(20_000 + seq);
                let packet = if direction == 0 {
                    packet
                } else {
                    Datagram { src: packet.dst, dst: packet.src, ..packet }
                };
                self.put(time_ns + jitter_ns, &packet, taps);
            }
        }
    }

    fn analyse(&self, name: &str, options: &Options) -> Value {
        let path = scratch(name);
        fs::write(&path, Writer::PCAP_NG.file(&self.frames)).unwrap();
        let report = analyze(std::slice::from_ref(&path), options, |_, _| ()).unwrap();
        fs::remove_file(&path).unwrap();
        serde_json::to_value(report).unwrap()
    }

    /// What must hold whatever the second taps are.
    fn check(&self, report: &Value, cause: &str) {
        let capture = &report["capture"];
        assert_eq!(capture["packets"], self.frames.len());
        assert_eq!(capture["matched"], self.frames.len());
        assert_eq!(capture["analysed"], capture["matched"]);
        let sip = &report["sip"];
        assert_eq!(sip["messages"], self.sip_messages, "{sip:#}");
        assert_eq!(sip["retransmissions"], self.retransmissions);
        assert_eq!(sip["auth_challenges"], 1);
        assert_eq!(sip["malformed"], 0);
        let streams = report["streams"].as_array().unwrap();
        assert_eq!(streams.len(), 2);
        let mut copies = sip["copies"].as_u64().unwrap();
        for (direction, stream) in streams.iter().enumerate() {
            let unique = &stream["unique"];
            assert_eq!(unique["expected"], self.rtp_sent[direction]);
            assert_eq!(unique["lost"], self.rtp_lost[direction]);
            assert_eq!(stream["call_id"], CALL_ID);
            assert_eq!(stream["codec"], "PCMA");
            let jitter = stream["jitter_percentiles_us"]["max"].as_f64().unwrap();
            assert!(jitter < 2_100.0, "the pause became jitter: {jitter} us");
            let pauses = stream["interruptions"].as_array().unwrap();
            assert_eq!(pauses.len(), 1);
            assert_eq!(pauses[0]["missing"], 0);
            assert_eq!(pauses[0]["began_at"]["event"], "REFER: transfer");
            assert!(pauses[0]["began_at"]["after_ms"].as_f64().unwrap().abs() < 20.0);
            copies += stream["duplicates"]["total"].as_u64().unwrap();
            for found in stream["duplicates"]["causes"].as_array().unwrap() {
                assert_eq!(found["cause"], cause);
            }
        }
        assert_eq!(copies, self.copies);
        assert_eq!(report["calls"][0]["state"], "ended");
        assert_eq!(report["calls"][0]["transfers"].as_array().unwrap().len(), 1);
    }
}

/// The messages of one dialog between the phone (10.0.0.1) and the PBX (10.0.0.2).
mod dialog {
    use super::CALL_ID;

    pub(super) fn invite(cseq: u32, more: &str) -> String {
        with_body(
            &head(&format!("INVITE sip:200@pbx.example SIP/2.0\r\n{more}"), cseq, "INVITE"),
            &sdp("10.0.0.1", 16_384),
        )
    }

    pub(super) fn request(method: &str, cseq: u32, more: &str) -> String {
        let body = if method == "NOTIFY" { "SIP/2.0 200 OK\r\n" } else { "" };
        let kind = if method == "NOTIFY" { "Content-Type: message/sipfrag\r\n" } else { "" };
        let head = head(&format!("{method} sip:200@pbx.example SIP/2.0\r\n{more}{kind}"), cseq, method);
        format!("{head}Content-Length: {}\r\n\r\n{body}", body.len())
    }

    pub(super) fn answer(status: u16, cseq: u32, method: &str, with_sdp: bool) -> String {
        let head = head(&format!("SIP/2.0 {status} Whatever\r\n"), cseq, method);
        if with_sdp {
            with_body(&head, &sdp("10.0.0.2", 20_002))
        } else {
            format!("{head}Content-Length: 0\r\n\r\n")
        }
    }

    fn head(start: &str, cseq: u32, method: &str) -> String {
        format!(
            "{start}Via: SIP/2.0/UDP 10.0.0.1:5060;branch=z9hG4bK-{cseq}-{}\r\nMax-Forwards: 70\r\n\
             From: <sip:1001@phone.example>;tag=p1\r\nTo: <sip:200@pbx.example>{}\r\nCall-ID: {CALL_ID}\r\n\
             CSeq: {cseq} {method}\r\nContact: <sip:1001@10.0.0.1>\r\n",
            if method == "ACK" { "ack" } else { "x" },
            if cseq > 2 { ";tag=b1" } else { "" },
        )
    }

    fn with_body(head: &str, body: &str) -> String {
        format!("{head}Content-Type: application/sdp\r\nContent-Length: {}\r\n\r\n{body}", body.len())
    }

    fn sdp(address: &str, port: u16) -> String {
        format!(
            "v=0\r\no=- 1 1 IN IP4 {address}\r\ns=-\r\nc=IN IP4 {address}\r\nt=0 0\r\nm=audio {port} RTP/AVP 8\r\n"
        )
    }
}

fn scratch(name: &str) -> PathBuf {
    std::env::temp_dir().join(format!("voxprobe-story-{}-{name}.pcapng", std::process::id()))
}

#[test]
fn alone_the_call_has_no_copies() {
    let story = Story::new(&[]);
    let report = story.analyse("alone", &Options::default());
    story.check(&report, "none");
    assert_eq!(report["streams"][0]["raw"]["lost"], story.rtp_lost[0]);
}

#[test]
fn two_taps_are_told_from_congestion_and_from_retransmission() {
    let story = Story::new(&[re_emitted]);
    let report = story.analyse("two", &Options::default());
    story.check(&report, "re-emitted");
    let lost = report["streams"][0]["raw"]["lost_percent"].as_f64().unwrap();
    assert!((-99.6..-98.0).contains(&lost), "as captured, {lost} %");
    let found = |id: &str| report["findings"].as_array().unwrap().iter().any(|finding| finding["id"] == id);
    for id in ["every-frame-copied", "copies-not-retransmissions", "authentication-retry", "gap-at-transfer"]
    {
        assert!(found(id), "{id} is missing in {:#}", report["findings"]);
    }
    let cause = &report["streams"][0]["duplicates"]["causes"][0];
    assert_eq!(cause["differs"], serde_json::json!(["dst_mac", "ip_id"]));
    assert_eq!(cause["delay_us"]["p50"], 38.0);
}

#[test]
fn every_cause_of_this_version_is_named() {
    let causes: [(SecondTap, &str); 5] = [
        (other_port, "l2-mirror"),
        (tagged, "vlan"),
        (routed, "routed"),
        (sent_again, "sent-twice"),
        (Datagram::clone, "same-point"),
    ];
    for (tap, cause) in causes {
        let story = Story::new(&[tap]);
        story.check(&story.analyse(cause, &Options::default()), cause);
    }
}

#[test]
fn four_taps_leave_the_call_as_it_was() {
    let story = Story::new(&[re_emitted, re_emitted_elsewhere, re_emitted_twice]);
    let report = story.analyse("four", &Options::default());
    story.check(&report, "re-emitted");
    let copies = report["streams"][0]["duplicates"]["copies_per_packet"].as_f64().unwrap();
    assert!((copies - 4.0).abs() < 1e-9);
}

#[test]
fn the_number_of_shards_changes_nothing() {
    let story = Story::new(&[re_emitted]);
    let one = story.analyse("one-shard", &Options::default());
    let mut four = story.analyse("four-shards", &Options { shards: 4, ..Options::default() });
    four["capture"]["sources"] = one["capture"]["sources"].clone();
    assert_eq!(one, four);
}

#[test]
fn a_capture_cut_into_files_reads_as_one() {
    let story = Story::new(&[re_emitted]);
    let whole = story.analyse("whole", &Options::default());
    for cut in [1, story.frames.len() / 3, story.frames.len() - 1] {
        let (first, second) = story.frames.split_at(cut);
        let paths = [scratch("cut-1"), scratch("cut-2")];
        fs::write(&paths[0], Writer::PCAP.file(first)).unwrap();
        fs::write(&paths[1], Writer::PCAP_NG.file(second)).unwrap();
        let mut parts =
            serde_json::to_value(analyze(&paths, &Options::default(), |_, _| ()).unwrap()).unwrap();
        parts["capture"]["sources"] = whole["capture"]["sources"].clone();
        for path in &paths {
            fs::remove_file(path).unwrap();
        }
        // Classic pcap rounds to microseconds, so figures may differ there; counts may not.
        for pointer in
            ["/sip/messages", "/sip/copies", "/streams/0/unique/lost", "/streams/1/duplicates/total"]
        {
            assert_eq!(parts.pointer(pointer), whole.pointer(pointer), "{pointer} with a cut after {cut}");
        }
    }
}

#[test]
fn files_that_overlap_in_time_are_noted() {
    let story = Story::new(&[re_emitted]);
    let (first, second) = story.frames.split_at(story.frames.len() / 2);
    let paths = [scratch("late"), scratch("early")];
    fs::write(&paths[0], Writer::PCAP_NG.file(second)).unwrap();
    fs::write(&paths[1], Writer::PCAP_NG.file(first)).unwrap();
    let notes = |paths: &[PathBuf]| analyze(paths, &Options::default(), |_, _| ()).unwrap().capture.notes;
    let (wrong, right) = (notes(&paths), notes(&[paths[1].clone(), paths[0].clone()]));
    for path in &paths {
        fs::remove_file(path).unwrap();
    }
    assert_eq!(right, [""; 0]);
    assert_eq!(wrong.len(), 1);
    assert!(wrong[0].contains("-early.pcapng: begins before") && wrong[0].contains("mergecap"), "{wrong:?}");
}

#[test]
fn of_more_streams_than_there_is_room_for_each_is_listed_or_noted() {
    let (streams, room) = (5_000_u32, 100_usize);
    let mut frames = Vec::new();
    for ssrc in 0..streams {
        for seq in 0..2 {
            let packet = rtp().seq(seq).ssrc(ssrc).payload(&[7; 160]).over(udp()).ports(16_384, 20_002);
            frames.push((START_NS + u64::from(ssrc) * 1_000 + u64::from(seq), packet.ethernet()));
        }
    }
    let path = scratch("flood");
    fs::write(&path, Writer::PCAP_NG.file(&frames)).unwrap();
    for shards in [1, 4] {
        let options = Options { max_streams: room, shards, ..Options::default() };
        let report = analyze(std::slice::from_ref(&path), &options, |_, _| ()).unwrap();
        // One flow is on one shard, which has its part of the room; evicted ones have the whole again.
        let held = room / shards;
        assert_eq!(report.streams.len(), held + room);
        let evicted = streams as usize - held;
        let notes = &report.capture.notes;
        assert_eq!(notes.len(), 2, "{notes:?}");
        assert!(notes[0].starts_with(&format!("{evicted} streams had to make room")), "{notes:?}");
        assert!(notes[1].starts_with(&format!("{} of the streams", evicted - room)), "{notes:?}");
        assert_eq!(report.capture.analysed, u64::from(streams) * 2);
    }
    fs::remove_file(&path).unwrap();
}

#[test]
fn every_frame_of_the_story_has_its_class() {
    use voxprobe::dedup::{Cause, FrameClass};
    use voxprobe::pipeline::offline::classify;
    use voxprobe::sip::Timer;

    let story = Story::new(&[re_emitted]);
    let path = scratch("classes");
    fs::write(&path, Writer::PCAP_NG.file(&story.frames)).unwrap();
    let classes = classify(std::slice::from_ref(&path), &Options::default()).unwrap();
    fs::remove_file(&path).unwrap();
    assert_eq!(classes.len(), story.frames.len());
    let count = |is: fn(&FrameClass) -> bool| classes.iter().filter(|class| is(class)).count() as u64;
    assert_eq!(
        count(|class| matches!(class, FrameClass::Copy { cause: Cause::ReEmitted, .. })),
        story.copies
    );
    assert_eq!(
        count(|class| matches!(class, FrameClass::Retransmission { timer: Timer::A, .. })),
        story.retransmissions
    );
    assert_eq!(count(|class| *class == FrameClass::AuthRetry), 1);
    let new = story.frames.len() as u64 - story.copies - story.retransmissions - 1;
    assert_eq!(count(|class| *class == FrameClass::Unique), new);
}

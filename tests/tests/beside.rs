//! What belongs to a stream and is not RTP, from capture to report: RTCP, DTLS, digits, legs, declared redundancy.
#![expect(clippy::unwrap_used, reason = "helpers of tests: a failure is a failed test")]
#![expect(clippy::cast_possible_truncation, reason = "what the wire has room for")]

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};

use voxlab::captures::{Scratch, Timed, Writer};
use voxlab::frames::{Datagram, Rtp, rtp, udp};
use voxprobe::pipeline::offline::{Options, RtpRule, analyze};
use voxprobe::report::contract::{Report, StreamReport};
use voxprobe::rtp::legs::Relation;

const START_NS: u64 = 1_700_000_000_000_000_000;
const MS: u64 = 1_000_000;
/// Packets of a talk: 20 s.
const PACKETS: u16 = 1_000;

#[test]
fn rtcp_of_a_real_call_is_what_tshark_shows() {
    let Some(captures) = voxlab::shared_captures() else { return };
    let path = captures.join("zongbingwang+pcapApplication/yate.siprtp.pcap");
    let report = analyze(std::slice::from_ref(&path), &Options::default(), |_, _| ()).unwrap();
    let streams: BTreeMap<_, _> = report
        .streams
        .iter()
        .map(|stream| {
            let rtcp = stream.rtcp.as_ref().unwrap();
            let bye = rtcp.bye.as_ref().map(|bye| bye.frame);
            (stream.ssrc.clone(), (rtcp.sender_reports, rtcp.packets_sent, rtcp.octets_sent, bye))
        })
        .collect();
    let expected = [
        ("0x31b2e02d".to_owned(), (22, Some(4_731), Some(756_960), Some(9_701))),
        ("0x32556bf0".to_owned(), (21, Some(4_732), Some(757_120), Some(9_695))),
    ];
    assert_eq!(streams, BTreeMap::from(expected));
    // The receivers' blocks are all zero but for the sequence number, and no answer names a report.
    assert!(ids(&report).contains(&"far-end-does-not-measure"), "{:?}", ids(&report));
    assert!(report.streams.iter().all(|stream| stream.rtcp.as_ref().unwrap().far_end.is_none()));
    let Some(theirs) = sender_reports_by_tshark(&path) else { return };
    let ours: BTreeMap<_, _> = streams.into_iter().map(|(ssrc, (reports, ..))| (ssrc, reports)).collect();
    assert_eq!(ours, theirs);
}

#[test]
fn rtcp_alone_is_read_compound_over_ipv6_and_encrypted() {
    let Some(captures) = voxlab::shared_captures() else { return };
    let totals = |name: &str| {
        let report = analyze(&[captures.join(name)], &Options::default(), |_, _| ()).unwrap();
        let rtcp = report.capture.beside.rtcp;
        (rtcp.read, rtcp.encrypted, rtcp.malformed + rtcp.refused_packets + rtcp.implausible_blocks)
    };
    assert_eq!(totals("ntop+nDPI/rtcp_multiple_pkts_in_the_same_datagram.pcap"), (5, 0, 0));
    assert_eq!(totals("dotpcap+packetnet/ipv6_rtcp1.pcap"), (1, 0, 0));
    assert_eq!(totals("dotpcap+packetnet/ipv6_rtcp2.pcap"), (1, 0, 0));
    assert_eq!(totals("IvanNardi+pl7m/stun_dtls.pcap"), (0, 1, 0));
}

#[test]
fn rtcp_inside_of_a_tunnel_clears_the_network_of_what_the_capture_lacks() {
    let Some(captures) = voxlab::shared_captures() else { return };
    let path = captures.join("arkime+arkime/gtp-iphone.pcap");
    let report = analyze(&[path], &Options::default(), |_, _| ()).unwrap();
    let of = |ssrc| report.streams.iter().find(|stream| stream.ssrc == ssrc).unwrap();
    let sender = of("0x6399bbc1").rtcp.as_ref().unwrap();
    let bye = sender.bye.as_ref().map(|bye| bye.frame);
    assert_eq!((sender.sender_reports, sender.packets_sent, bye), (2, Some(451), Some(79)));
    // The capture has one packet in thirty of what the far end says it received whole.
    let (heard, far) = (of("0xa2ff620f"), of("0xa2ff620f").rtcp.as_ref().unwrap().far_end.as_ref().unwrap());
    assert!(heard.unique.lost_percent > 90.0);
    assert_eq!((far.lost_percent, far.cumulative_lost, far.highest_seq), (Some(0.0), 0, 65_890));
    assert!(ids(&report).contains(&"capture-loses-more"));
}

#[test]
fn loss_beyond_the_probe_is_named_with_both_figures() {
    let mut frames = talk(&media(), 0);
    for step in 0..4 {
        let at = START_NS + step * 5_000 * MS;
        let lost = u32::try_from(step * 25).unwrap();
        frames.push((at, rtcp_between(false).payload(&sender_report(at)).ethernet()));
        // One in ten of 250, by a receiver 40 ms away that holds each report for 100 ms.
        let block = [lost | 0x1900_0000, 250 * step as u32, 80, middle(at), 100 * 65_536 / 1_000];
        frames.push((at + 140 * MS, rtcp_between(true).payload(&receiver_report(&block)).ethernet()));
    }
    let report = report(frames, RtpRule::Auto);
    let rtcp = report.streams[0].rtcp.as_ref().unwrap();
    let far = rtcp.far_end.as_ref().unwrap();
    assert_eq!((far.lost_percent, far.cumulative_lost, report.streams[0].unique.lost), (Some(10.0), 75, 0));
    let round_trip = rtcp.round_trip_to_receiver_ms.unwrap();
    assert!((round_trip.mean - 40.0).abs() < 0.1 && round_trip.samples == 4, "{round_trip:?}");
    let because = rtcp.round_trip_absent_because;
    assert_eq!(because, Some("no answer of the sender's to a report of the receiver's"));
    let finding = report.findings.iter().find(|finding| finding.id == "far-end-loses-more").unwrap();
    assert!(finding.detail.contains("lost 10.0 %") && finding.detail.contains("here 0.0 %"), "{finding:?}");
}

#[test]
fn a_long_round_trip_is_named_with_its_two_sides() {
    let mut frames = talk(&media(), 0);
    for step in 0..3 {
        let at = START_NS + step * 5_000 * MS;
        frames.push((at, rtcp_between(false).payload(&sender_report(at)).ethernet()));
        // The other side's own report, 310 ms away; then this side's answer to it, 40 ms away.
        let theirs = 99;
        let report = sender_report_with(theirs, at, rtp().ssrc, at);
        frames.push((at + 310 * MS, rtcp_between(true).payload(&report).ethernet()));
        let answer = sender_report_with(rtp().ssrc, at + 350 * MS, theirs, at);
        frames.push((at + 350 * MS, rtcp_between(false).payload(&answer).ethernet()));
    }
    let report = report(frames, RtpRule::Auto);
    let round_trip = report.streams[0].rtcp.as_ref().unwrap().round_trip_ms.unwrap();
    assert!((round_trip.mean - 350.0).abs() < 0.1, "{round_trip:?}");
    // Half of it is the delay that the conversational score is charged with.
    let stream = &report.streams[0];
    let (listening, conversational) = (stream.mos.as_ref().unwrap(), stream.mos_cq.as_ref().unwrap());
    assert!(conversational.assumptions.contains("175 ms one way"), "{conversational:?}");
    assert!(conversational.r_factor < listening.r_factor);
    let finding = report.findings.iter().find(|finding| finding.id == "long-round-trip").unwrap();
    assert!(finding.detail.contains("40 ms from here to its sender"), "{finding:?}");
    assert!(finding.detail.contains("310 ms to its receiver"), "{finding:?}");
}

#[test]
fn loss_that_only_the_capture_has_is_not_held_against_the_network() {
    let mut frames = talk(&media(), 0);
    frames.drain(300..400);
    for step in 0..4 {
        let at = START_NS + step * 6_000 * MS;
        frames.push((at, rtcp_between(false).payload(&sender_report(at)).ethernet()));
        let block = [0, 300 * step as u32, 80, middle(at), 0];
        frames.push((at + 40 * MS, rtcp_between(true).payload(&receiver_report(&block)).ethernet()));
    }
    let report = report_of(frames, RtpRule::Auto, 900);
    let finding = report.findings.iter().find(|finding| finding.id == "capture-loses-more").unwrap();
    assert!(finding.detail.contains("lost 0.0 %") && finding.detail.contains("here 10.0 %"), "{finding:?}");
    assert!(!ids(&report).contains(&"far-end-loses-more") && !ids(&report).contains(&"packets-lost"));
}

#[test]
fn hostile_rtcp_makes_no_absurd_number() {
    let mut frames = talk(&media(), 0);
    let words = [0xffff_ffff_u32; 5];
    for (step, payload) in [
        receiver_report(&words),
        // It claims 31 blocks and has one.
        [&[0x9f][..], &receiver_report(&words)[1..]].concat(),
        // Its length is a lie.
        [&receiver_report(&words)[..2], &[0xff, 0xff], &receiver_report(&words)[4..]].concat(),
    ]
    .iter()
    .enumerate()
    {
        frames.push((START_NS + step as u64 * 1_000 * MS, rtcp_between(true).payload(payload).ethernet()));
    }
    let report = report(frames, RtpRule::Auto);
    assert_eq!(report.streams[0].rtcp, None);
    let rtcp = report.capture.beside.rtcp;
    assert_eq!((rtcp.implausible_blocks, rtcp.refused_packets, rtcp.malformed + rtcp.encrypted), (1, 1, 1));
}

#[test]
fn a_dtls_handshake_makes_the_stream_encrypted_without_any_sdp() {
    let hello = [&[22, 0xfe, 0xff, 0, 0, 0, 0, 0, 0, 0, 0, 0, 4][..], &[1, 0, 0, 0]].concat();
    let mut frames = vec![(START_NS - MS, media().payload(&hello).ethernet())];
    frames.extend(talk(&media(), 0));
    let report = report(frames, RtpRule::Auto);
    let stream = &report.streams[0];
    assert_eq!(
        (stream.encrypted, stream.encrypted_because, stream.unique.lost, stream.rtcp_absent_because),
        (
            true,
            Some("DTLS was seen between its endpoints"),
            0,
            Some("no RTCP was seen; the media is encrypted, so it would be, too")
        )
    );
}

#[test]
fn a_handshake_inside_of_a_tunnel_is_the_tunnels_frame_and_marks_the_stream_in_it() {
    let hello = [&[22, 0xfe, 0xff, 0, 0, 0, 0, 0, 0, 0, 0, 0, 4][..], &[1, 0, 0, 0]].concat();
    // GRE (RFC 2784) of IPv4: no flags, version 0.
    let in_gre = |inner: &Datagram| {
        udp().protocol(47).payload(&[&[0, 0, 0x08, 0][..], &inner.ip()].concat()).ethernet()
    };
    let mut frames = vec![(START_NS - MS, in_gre(&media().payload(&hello)))];
    for seq in 0..PACKETS {
        let inner = rtp().seq(seq).over(media());
        frames.push((START_NS + u64::from(seq) * 20 * MS, in_gre(&inner)));
    }
    let report = report(frames, RtpRule::Auto);
    assert_eq!(report.streams[0].encrypted_because, Some("DTLS was seen between its endpoints"));
    assert_eq!(report.capture.verdicts["tunnel"], u64::from(PACKETS) + 1);
    assert_eq!(report.capture.matched, u64::from(PACKETS) + 1);
}

#[test]
fn what_is_no_rtp_on_an_announced_port_is_counted_by_kind() {
    let stun = [&[0, 1, 0, 0, 0x21, 0x12, 0xa4, 0x42][..], &[7; 12]].concat();
    let mut frames = vec![(START_NS - 2 * MS, invite("RTP/AVP 8", ""))];
    let payloads: [&[u8]; 4] = [&stun, &stun, b"\0\0\0\0", b"hello there"];
    for (step, payload) in payloads.into_iter().enumerate() {
        frames.push((START_NS - MS + step as u64, media().payload(payload).ethernet()));
    }
    frames.extend(talk(&media(), 0));
    let report = report(frames, RtpRule::Auto);
    let other = report.capture.beside.media_other;
    assert_eq!((other.stun, other.keep_alive, other.unknown, other.dtls), (2, 1, 1, 0));
    assert_eq!(report.capture.verdicts["media_other"], 4);
}

#[test]
fn digits_are_listed_and_hidden() {
    let mut frames = vec![(START_NS - MS, invite("RTP/AVP 8 101", "a=rtpmap:101 telephone-event/8000\r\n"))];
    frames.extend(talk(&media(), 0));
    // Digit 7: two packets, then its end three times, of which one is lost; every frame captured twice.
    for (step, payload) in
        [[7, 10, 0, 160], [7, 10, 1, 64], [7, 0x8a, 3, 32], [7, 0x8a, 3, 32]].into_iter().enumerate()
    {
        let event = Rtp { payload_type: 101, timestamp: 160_160, ..rtp().seq(PACKETS + 1 + step as u16) };
        let at = START_NS + (20_000 + 20 * step as u64) * MS;
        let frame = Rtp { payload: payload.to_vec(), ..event }.over(media()).ethernet();
        frames.extend([(at, frame.clone()), (at + 1_000, frame)]);
    }
    let mut report = report(frames, RtpRule::Auto);
    let event = report.streams[0].events[0].clone();
    assert_eq!((event.event.as_str(), event.packets, event.end_packets), ("x", 4, 2));
    assert_eq!((event.duration_ms, report.streams[0].event_count), (Some(100.0), 1));
    report.show_digits();
    assert_eq!(report.streams[0].events[0].event, "7");
}

#[test]
fn both_sides_of_a_nat_are_legs_and_neither_copies_nor_loss() {
    let outside = media().between("192.0.2.1:61000".parse().unwrap(), media().dst);
    let mut frames = talk(&media(), 0);
    frames.extend(talk(&outside, 300_000));
    let report = report(frames, RtpRule::Auto);
    for stream in &report.streams {
        assert_eq!((stream.unique.lost, stream.duplicates.total, stream.legs.len()), (0, 0, 1));
        assert_eq!((stream.legs[0].relation, stream.legs[0].matched_percent), (Relation::Nat, 100.0));
    }
    assert!((report.streams[0].legs[0].delay_ms.p50 - 0.3).abs() < 1e-6);
    assert!(ids(&report).contains(&"same-stream-elsewhere"));
}

#[test]
fn declared_redundancy_is_no_error() {
    let declared = "a=rtpmap:8 PCMA/8000\r\na=duplication-delay:50\r\na=ssrc-group:DUP 287454020 1000\r\n";
    let mut frames = vec![(START_NS - MS, invite("RTP/AVP 8", declared))];
    frames.extend(talk(&media(), 0));
    frames.extend(talk(&media(), 50 * MS));
    let report = report(frames, RtpRule::Auto);
    let stream = &report.streams[0];
    let kinds: Vec<_> = stream.redundancy.iter().map(|way| (way.kind, way.delay_ms)).collect();
    assert_eq!(kinds, [("temporal", Some(50)), ("spatial", None)]);
    assert_eq!((stream.unique.lost, stream.duplicates.total), (0, u64::from(PACKETS)));
    assert!(ids(&report).contains(&"declared-redundancy"));
}

/// The media that [`invite`] announces.
fn media() -> Datagram {
    udp()
}

/// RTCP of its receiver (`back`), or of its sender, on the next ports.
fn rtcp_between(back: bool) -> Datagram {
    let (src, dst): (SocketAddr, SocketAddr) =
        ("10.0.0.1:20001".parse().unwrap(), "10.0.0.2:30001".parse().unwrap());
    if back { udp().between(dst, src) } else { udp().between(src, dst) }
}

/// 20 s of speech, so much later.
fn talk(over: &Datagram, later_ns: u64) -> Vec<Timed> {
    (0..PACKETS)
        .map(|seq| {
            let payload: Vec<u8> =
                (0..160_u16).map(|at| (at.wrapping_mul(7) ^ seq.wrapping_mul(31)) as u8).collect();
            let frame = rtp().seq(seq).payload(&payload).over(over.clone()).ethernet();
            (START_NS + u64::from(seq) * 20 * MS + later_ns, frame)
        })
        .collect()
}

/// An INVITE whose author wants media at 10.0.0.2:30000.
fn invite(media: &str, attributes: &str) -> Vec<u8> {
    let (profile, formats) = media.split_once(' ').unwrap();
    let sdp = format!(
        "v=0\r\no=- 1 1 IN IP4 10.0.0.2\r\ns=-\r\nc=IN IP4 10.0.0.2\r\nt=0 0\r\nm=audio 30000 {profile} {formats}\r\n{attributes}"
    );
    let message = format!(
        "INVITE sip:bob@example.com SIP/2.0\r\nVia: SIP/2.0/UDP 10.0.0.2;branch=z9hG4bK1\r\nFrom: <sip:a@x>;tag=1\r\n\
         To: <sip:b@x>\r\nCall-ID: beside@x\r\nCSeq: 1 INVITE\r\nContent-Type: application/sdp\r\nContent-Length: {}\r\n\r\n{sdp}",
        sdp.len()
    );
    let between = ("10.0.0.2:5060".parse().unwrap(), "10.0.0.1:5060".parse().unwrap());
    udp().between(between.0, between.1).payload(message.as_bytes()).ethernet()
}

/// The NTP time of a moment: here the sender's clock is the capture's.
fn ntp(at_ns: u64) -> u64 {
    ((at_ns / 1_000_000_000 + 2_208_988_800) << 32) + ((at_ns % 1_000_000_000) << 32) / 1_000_000_000
}

fn middle(at_ns: u64) -> u32 {
    (ntp(at_ns) >> 16) as u32
}

fn sender_report(at_ns: u64) -> Vec<u8> {
    let ntp = ntp(at_ns);
    let words = [rtp().ssrc, (ntp >> 32) as u32, ntp as u32, ((at_ns - START_NS) / 125_000) as u32, 1, 160];
    [&[0x80, 200, 0, 6][..], &words.map(u32::to_be_bytes).concat()].concat()
}

/// A sender report that answers, at once, the report of `about` with the NTP time of `answers_ns`.
fn sender_report_with(ssrc: u32, at_ns: u64, about: u32, answers_ns: u64) -> Vec<u8> {
    let ntp = ntp(at_ns);
    let info = [ssrc, (ntp >> 32) as u32, ntp as u32, ((at_ns - START_NS) / 125_000) as u32, 1, 160];
    let block = [about, 0, 100, 8, middle(answers_ns), 0];
    let words = [info, block].concat().into_iter().flat_map(u32::to_be_bytes).collect::<Vec<_>>();
    [&[0x81, 200, 0, 12][..], &words].concat()
}

/// A receiver report of SSRC 77 about the talk: everything of its block after the SSRC.
fn receiver_report(block: &[u32; 5]) -> Vec<u8> {
    let words = [77, rtp().ssrc, block[0], block[1], block[2], block[3], block[4]];
    [&[0x81, 201, 0, 7][..], &words.map(u32::to_be_bytes).concat()].concat()
}

fn report(frames: Vec<Timed>, rtp: RtpRule) -> Report {
    report_of(frames, rtp, u64::from(PACKETS))
}

/// Tests run side by side, and each needs a folder of its own.
static NUMBER: AtomicU32 = AtomicU32::new(0);

fn report_of(mut frames: Vec<Timed>, rtp: RtpRule, packets: u64) -> Report {
    frames.sort_by_key(|(time, _)| *time);
    let scratch = Scratch::new(&format!("beside-{}", NUMBER.fetch_add(1, Ordering::Relaxed))).unwrap();
    let path = scratch.file("beside.pcapng", &Writer::PCAP_NG.file(&frames)).unwrap();
    let report = analyze(&[path], &Options { rtp, ..Options::default() }, |_, _| ()).unwrap();
    let losses: u64 = report.capture.losses.values().sum();
    assert_eq!(report.capture.matched, report.capture.analysed + losses);
    assert!(report.streams.iter().all(|stream: &StreamReport| stream.unique.packets >= packets));
    report
}

fn ids(report: &Report) -> Vec<&'static str> {
    report.findings.iter().map(|finding| finding.id).collect()
}

/// Sender reports by SSRC, if there is a tshark.
fn sender_reports_by_tshark(path: &Path) -> Option<BTreeMap<String, u64>> {
    let fields = ["-Y", "rtcp.pt == 200", "-T", "fields", "-e", "rtcp.senderssrc"];
    let Ok(output) = Command::new("tshark").arg("-r").arg(path).args(fields).output() else {
        eprintln!("skipped the comparison with tshark: there is none");
        return None;
    };
    let mut reports = BTreeMap::new();
    for ssrc in String::from_utf8(output.stdout).unwrap().lines() {
        *reports.entry(ssrc.to_owned()).or_default() += 1;
    }
    Some(reports)
}

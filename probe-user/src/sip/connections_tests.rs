//! Stories of connections: what is read, however the segments came.

use super::super::{SignallingReport, testing::seen};
use super::*;
use crate::packet::{Endpoint, Vlans};
use crate::sip::totals::Tally;

const MS: u64 = 1_000_000;
const PHONE: Endpoint = Endpoint { address: [1; 16], port: 40_000 };
const PBX: Endpoint = Endpoint { address: [2; 16], port: 5060 };
const TO_PBX: Flow = Flow { src: PHONE, dst: PBX };
const TO_PHONE: Flow = Flow { src: PBX, dst: PHONE };
/// The stream wraps soon.
const ISN: u32 = u32::MAX - 100;

#[derive(Default)]
struct Wire {
    probe: Signalling,
    number: u64,
}

impl Wire {
    fn on(&mut self, flow: Flow, ms: u64, seq: u32, payload: &[u8], evidence: &Evidence) -> Observed {
        self.number += 1;
        self.probe.observe(Nanos(ms * MS), self.number, flow, Transport::Tcp { seq }, evidence, payload)
    }

    /// Bytes `range` of a stream.
    fn part(&mut self, ms: u64, stream: &[u8], range: std::ops::Range<usize>) -> Observed {
        let seq = ISN.wrapping_add(u32::try_from(range.start).unwrap());
        self.on(TO_PBX, ms, seq, &stream[range], &seen())
    }

    fn finished(mut self) -> SignallingReport {
        self.probe.finish();
        assert_eq!(self.probe.streams.size().1, self.probe.streams.size().1.min(1024), "nothing is held");
        self.probe.report()
    }
}

fn message(start: &str, call: &str, cseq: &str, body: &str) -> String {
    format!(
        "{start} SIP/2.0\r\nVia: SIP/2.0/TCP a;branch=z9hG4bK{call}{cseq}\r\nFrom: <sip:a@x>;tag=1\r\n\
         To: <sip:b@x>\r\nCall-ID: {call}\r\nCSeq: {cseq}\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    )
}

fn options(n: u32) -> String {
    message("OPTIONS sip:b@x", &format!("c{n}"), &format!("{n} OPTIONS"), "abc\r\n")
}

/// Five messages, and where each ends.
fn stream() -> (Vec<u8>, Vec<usize>) {
    let mut bytes = Vec::new();
    let ends = (1..=5).map(|n| {
        bytes.extend_from_slice(options(n).as_bytes());
        bytes.len()
    });
    let ends = ends.collect();
    (bytes, ends)
}

#[test]
fn any_two_segments_may_change_places() {
    let (bytes, _) = stream();
    let cuts: Vec<_> = (0..bytes.len()).step_by(97).chain([bytes.len()]).collect();
    let pieces: Vec<_> = cuts.windows(2).map(|cut| cut[0]..cut[1]).collect();
    for a in 0..pieces.len() {
        for b in a..pieces.len() {
            let mut order = pieces.clone();
            order.swap(a, b);
            let mut wire = Wire::default();
            for range in order {
                wire.part(0, &bytes, range);
            }
            let sip = wire.finished().sip;
            let read = (sip.messages, sip.sip_tcp_partial, sip.defective, sip.tcp.gaps, sip.tcp.mid_stream);
            assert_eq!(read, (5, 0, 0, 0, 0), "{a} with {b}");
            assert_eq!(sip.repeats, crate::sip::totals::Repeats::default());
        }
    }
}

#[test]
fn a_lost_segment_costs_the_messages_that_it_had_a_part_of() {
    let (bytes, ends) = stream();
    let cuts: Vec<_> = (0..bytes.len()).step_by(61).chain([bytes.len()]).collect();
    let pieces: Vec<_> = cuts.windows(2).map(|cut| cut[0]..cut[1]).collect();
    for lost in 0..pieces.len() {
        let mut wire = Wire::default();
        for (n, range) in pieces.iter().enumerate() {
            if n != lost {
                wire.part(n as u64, &bytes, range.clone());
            }
        }
        let begins = std::iter::once(&0).chain(&ends);
        let hit =
            begins.zip(&ends).filter(|(begin, end)| **begin < pieces[lost].end && pieces[lost].start < **end);
        let expected = 5 - hit.count() as u64;
        let sip = wire.finished().sip;
        assert_eq!(sip.messages, expected, "without {lost}");
        let is_last = lost + 1 == pieces.len();
        let gaps = (sip.tcp.gaps, sip.tcp.mid_stream);
        assert_eq!(gaps, (u64::from(lost > 0 && !is_last), u64::from(lost == 0)), "without {lost}");
    }
}

#[test]
fn a_gap_holds_no_message_back_for_longer_than_half_a_second() {
    let (bytes, ends) = stream();
    let mut wire = Wire::default();
    wire.part(0, &bytes, 0..ends[0]);
    assert_eq!(wire.part(10, &bytes, ends[1]..ends[2]), Observed::Part);
    wire.probe.advance(Nanos(510 * MS));
    assert_eq!(wire.probe.totals().messages, 1);
    wire.probe.advance(Nanos(511 * MS));
    assert_eq!(wire.probe.totals().messages, 2);
    // Sent again at last: it is from before what was read, and still new.
    wire.part(600, &bytes, ends[0]..ends[1]);
    let sip = wire.finished().sip;
    assert_eq!((sip.tcp.gaps, sip.tcp.out_of_order), (1, 1));
}

#[test]
fn a_message_is_as_late_as_the_frame_that_filled_the_gap_before_it() {
    let invite = message("INVITE sip:b@x", "c", "1 INVITE", "");
    let ringing = message("SIP/2.0 180 Ringing", "c", "1 INVITE", "").replacen(" SIP/2.0\r\n", "\r\n", 1);
    let trying = ringing.replace("180 Ringing", "100 Trying");
    let mut wire = Wire::default();
    wire.on(TO_PBX, 0, 1, invite.as_bytes(), &seen());
    let after = 1 + u32::try_from(trying.len()).unwrap();
    // A part of the first, then the second, and the rest of the first 200 ms later.
    wire.on(TO_PHONE, 100, 1, &trying.as_bytes()[..9], &seen());
    wire.on(TO_PHONE, 101, after, ringing.as_bytes(), &seen());
    assert_eq!(wire.probe.calls().reports()[0].ringing_ms, None);
    wire.on(TO_PHONE, 300, 10, &trying.as_bytes()[9..], &seen());
    assert_eq!(wire.probe.calls().reports()[0].ringing_ms, Some(300.0));
    assert_eq!(wire.finished().sip.messages, 3);
}

#[test]
fn copies_of_a_segment_that_was_held_are_counted_with_its_message() {
    let (bytes, ends) = stream();
    let other = Evidence { vlans: Vlans::from_tci(Some(7), None), ..seen() };
    let seq = |at: usize| ISN.wrapping_add(u32::try_from(at).unwrap());
    let mut wire = Wire::default();
    for range in [0..ends[0], ends[1]..ends[2], ends[0]..ends[1]] {
        wire.on(TO_PBX, 0, seq(range.start), &bytes[range.clone()], &seen());
        wire.on(TO_PBX, 1, seq(range.start), &bytes[range], &other);
    }
    let sip = wire.finished().sip;
    assert_eq!((sip.messages, sip.copies, sip.tcp.retransmissions), (3, 3, 0));
    assert_eq!(sip.kinds.requests("OPTIONS"), Tally { messages: 3, copies: 3 });
    assert_eq!(sip.causes.iter().map(|cause| cause.count).sum::<u64>(), 3);
}

#[test]
fn a_place_that_is_always_150_ms_late_shows_copies_over_tcp_too() {
    let (bytes, ends) = stream();
    let other = Evidence { vlans: Vlans::from_tci(Some(7), None), ..seen() };
    let mut wire = Wire::default();
    let mut begin = 0;
    for (n, end) in (0..).zip(&ends) {
        let seq = ISN.wrapping_add(u32::try_from(begin).unwrap());
        wire.on(TO_PBX, 1_000 * n, seq, &bytes[begin..*end], &seen());
        wire.on(TO_PBX, 1_000 * n + 150, seq, &bytes[begin..*end], &other);
        begin = *end;
    }
    let sip = wire.finished().sip;
    assert_eq!((sip.messages, sip.copies, sip.tcp_retransmissions), (5, 5, 0));
    assert_eq!(sip.causes.iter().map(|cause| cause.count).sum::<u64>(), 5);
}

#[test]
fn what_is_sent_again_with_more_behind_it_is_read_from_where_it_is_new() {
    let (bytes, ends) = stream();
    let mut wire = Wire::default();
    wire.part(0, &bytes, 0..ends[0] + 20);
    wire.part(300, &bytes, ends[0]..ends[2]);
    wire.part(600, &bytes, 0..ends[4]);
    assert_eq!(wire.part(900, &bytes, 0..ends[4] - 1), Observed::Part);
    let sip = wire.finished().sip;
    assert_eq!((sip.messages, sip.tcp_retransmissions, sip.sip_tcp_partial), (5, 1, 0));
}

#[test]
fn new_connections_on_old_ports_are_no_old_data() {
    let mut wire = Wire::default();
    for (n, isn) in (1..).zip([1, 1 << 30, 3 << 30, 5]) {
        let text = options(n);
        wire.on(TO_PBX, u64::from(n), isn, text.as_bytes(), &seen());
        // Half of one more, that is never finished.
        let seq = isn + u32::try_from(text.len()).unwrap();
        wire.on(TO_PBX, u64::from(n), seq, &text.as_bytes()[..40], &seen());
    }
    let sip = wire.finished().sip;
    assert_eq!((sip.messages, sip.sip_tcp_partial, sip.tcp.gaps), (4, 3, 0));
}

#[test]
fn a_capture_that_begins_inside_a_message_reads_on_at_the_next() {
    let (bytes, ends) = stream();
    for begin in [9, 60, ends[0] - 4] {
        let mut wire = Wire::default();
        wire.part(0, &bytes, begin..ends[1] + 30);
        wire.part(1, &bytes, ends[1] + 30..ends[4]);
        let sip = wire.finished().sip;
        assert_eq!((sip.messages, sip.defective, sip.tcp.mid_stream), (4, 0, 1), "from {begin}");
        assert_eq!(sip.sip_tcp_partial, 1, "from {begin}");
    }
}

#[test]
fn a_message_behind_the_end_of_another_is_read_when_it_comes() {
    let (bytes, ends) = stream();
    let mut wire = Wire::default();
    wire.part(0, &bytes, 60..ends[0]);
    assert_eq!(wire.probe.totals().messages, 0);
    wire.part(100, &bytes, ends[0]..ends[1]);
    assert_eq!(wire.probe.totals().messages, 1);
    assert_eq!(wire.finished().sip.tcp.mid_stream, 1);
}

#[test]
fn the_status_line_in_a_notify_is_no_message_when_reading_begins_in_it() {
    let notify = message("NOTIFY sip:a@x", "c", "1 NOTIFY", "SIP/2.0 200 OK\r\n");
    let bytes = [notify.as_bytes(), options(1).as_bytes()].concat();
    let mut wire = Wire::default();
    wire.part(0, &bytes, notify.len() - 16..bytes.len());
    let sip = wire.finished().sip;
    assert_eq!((sip.messages, sip.kinds.requests("OPTIONS").messages, sip.defective), (1, 1, 0));
}

#[test]
fn a_second_message_in_the_rest_of_a_stream_is_never_read_out_of_junk() {
    let mut wire = Wire::default();
    let junk = vec![b'x'; 3000];
    let bytes = [options(1).as_bytes(), &junk, b"\r\n", options(2).as_bytes()].concat();
    for range in [0..700, 700..1500, 1500..bytes.len()] {
        wire.part(0, &bytes, range);
    }
    let sip = wire.finished().sip;
    assert_eq!((sip.messages, sip.sip_tcp_partial, sip.defective), (2, 1, 0));
}

/// It begins like a message wherever it is looked at, so looking for the next one must leave it behind.
#[test]
fn a_head_without_end_is_left_behind_and_what_follows_is_read() {
    let start = "INVITE sip:b@x SIP/2.0\r\nX: ";
    for filling in ["y".repeat(100_000), start.repeat(5000), format!("{start}y\r\n").repeat(4000)] {
        let bytes = [start, &filling, "\r\n\r\n", &options(1), &options(2)].concat();
        let mut wire = Wire::default();
        let cuts: Vec<_> = (0..bytes.len()).step_by(1400).chain([bytes.len()]).collect();
        for cut in cuts.windows(2) {
            wire.part(0, bytes.as_bytes(), cut[0]..cut[1]);
        }
        let sip = wire.finished().sip;
        assert_eq!(sip.kinds.requests("OPTIONS").messages, 2, "{}", &filling[..30]);
        assert!(sip.sip_tcp_partial > 0);
    }
}

fn frame(opcode: u8, payload: &[u8], mask: Option<[u8; 4]>) -> Vec<u8> {
    let length = u16::try_from(payload.len()).unwrap().to_be_bytes();
    let masked = if mask.is_some() { 0x80 } else { 0 };
    let mut bytes = vec![opcode, masked | 0x7e, length[0], length[1]];
    let mask = mask.inspect(|mask| bytes.extend(mask)).unwrap_or_default();
    bytes.extend(payload.iter().zip(mask.iter().cycle()).map(|(byte, mask)| byte ^ mask));
    bytes
}

#[test]
fn sip_in_websocket_is_read_wherever_segments_end_and_the_capture_begins() {
    const KEY: Option<[u8; 4]> = Some([0x11, 0x22, 0x33, 0x44]);
    let handshake = b"GET / HTTP/1.1\r\nUpgrade: websocket\r\nSec-WebSocket-Protocol: sip\r\n\r\n";
    let halves = options(2);
    let (first, second) = halves.as_bytes().split_at(50);
    let frames = [
        frame(0x81, options(1).as_bytes(), KEY),
        frame(0x01, first, KEY),
        frame(0x89, b"", KEY)[..].to_vec(),
        frame(0x80, second, KEY),
        frame(0x82, options(3).as_bytes(), KEY),
        frame(0x81, b"\r\n\r\n", KEY),
    ];
    // A control frame has a length of seven bits.
    let ping = [&[0x89, 0x80][..], &KEY.unwrap()].concat();
    let frames: Vec<_> =
        frames.into_iter().enumerate().map(|(n, f)| if n == 2 { ping.clone() } else { f }).collect();
    let bytes = [&handshake[..], &frames.concat()].concat();
    for cut in 1..bytes.len() {
        let mut wire = Wire::default();
        wire.part(0, &bytes, 0..cut);
        wire.part(1, &bytes, cut..bytes.len());
        let sip = wire.finished().sip;
        let read = (sip.messages, sip.websocket_frames, sip.keep_alives, sip.malformed, sip.sip_tcp_partial);
        assert_eq!(read, (3, 6, 1, 0, 0), "cut at {cut}");
    }
    let mut wire = Wire::default();
    wire.part(0, &bytes, handshake.len()..bytes.len());
    let sip = wire.finished().sip;
    assert_eq!((sip.messages, sip.websocket_frames, sip.tcp.mid_stream), (3, 6, 1));
}

#[test]
fn tls_is_counted_as_encrypted_and_sip_in_clear_on_its_port_is_read() {
    let record = [&[23, 3, 3, 0, 40][..], &[0xaa; 40]].concat();
    let tls = Flow { dst: Endpoint { port: 5061, ..PBX }, ..TO_PBX };
    let back = Flow { src: tls.dst, dst: tls.src };
    let mut wire = Wire::default();
    let mut observe = |probe: &mut Signalling, flow, seq, payload: &[u8]| {
        wire.number += 1;
        probe.observe_tls(Nanos(0), wire.number, flow, seq, &seen(), payload, payload.len())
    };
    let mut probe = Signalling::default();
    observe(&mut probe, tls, 1, &record);
    // Inside a record any byte may come first.
    observe(&mut probe, tls, 46, b"ABCD");
    observe(&mut probe, back, 1, &record);
    observe(&mut probe, back, 1, &record);
    let clear = Flow { src: Endpoint { port: 41_000, ..PHONE }, ..tls };
    let text = options(1);
    let (first, second) = text.as_bytes().split_at(70);
    observe(&mut probe, clear, 1, first);
    observe(&mut probe, clear, 71, second);
    // The same on a port of SIP in clear.
    probe.observe(Nanos(0), 90, TO_PBX, Transport::Tcp { seq: 9 }, &seen(), &record);
    probe.observe(Nanos(0), 91, TO_PBX, Transport::Tcp { seq: 54 }, &seen(), b"INVITE");
    let report = probe.report().sip;
    let encrypted = &report.encrypted;
    assert_eq!((encrypted.connections, encrypted.frames, encrypted.bytes), (2, 5, 45 + 4 + 45 + 45 + 6));
    assert_eq!(encrypted.ports, [5061, 5060]);
    assert_eq!((report.messages, report.malformed, report.sip_tcp_partial), (1, 0, 0));
}

//! Messages, segments and records of TLS, as the input says, through everything that keeps a state.

use voxprobe::packet::{Carrier, Encapsulation, Endpoint, Evidence, Flow, Nanos, Tap, Vlans};
use voxprobe::sip::{Limits, Observed, Signalling, Transport};

use super::Input;

const CALLS: usize = 4;
const LINES: usize = 8;

/// Start lines and what of a dialog goes with them.
const STARTS: [&str; 20] = [
    "INVITE sip:b@x SIP/2.0",
    "SIP/2.0 100 Trying",
    "SIP/2.0 180 Ringing",
    "SIP/2.0 183 Session Progress",
    "SIP/2.0 200 OK",
    "SIP/2.0 302 Moved",
    "SIP/2.0 401 Unauthorized",
    "SIP/2.0 487 Terminated",
    "SIP/2.0 603 Decline",
    "ACK sip:b@x SIP/2.0",
    "BYE sip:b@x SIP/2.0",
    "CANCEL sip:b@x SIP/2.0",
    "PRACK sip:b@x SIP/2.0",
    "UPDATE sip:b@x SIP/2.0",
    "REFER sip:b@x SIP/2.0",
    "NOTIFY sip:b@x SIP/2.0",
    "REGISTER sip:x SIP/2.0",
    "OPTIONS sip:x SIP/2.0",
    "SUBSCRIBE sip:x SIP/2.0",
    "FOO sip:x SIP/2.0",
];
const METHODS: [&str; 8] = ["INVITE", "BYE", "CANCEL", "PRACK", "REFER", "NOTIFY", "REGISTER", "ACK"];
const MORE: [&str; 8] = [
    "",
    "Refer-To: <sip:c@x?Replaces=call1%3Bto-tag%3D1%3Bfrom-tag%3D2>\r\n",
    "Replaces: call2;to-tag=1;from-tag=2\r\n",
    "RSeq: 1\r\nRequire: 100rel\r\n",
    "Reason: Q.850;cause=16\r\n",
    "Event: refer\r\nContent-Type: message/sipfrag\r\n",
    "X-Call-ID: call0\r\nReferred-By: <sip:a@x>\r\n",
    "Contact: <sip:a@10.0.0.1>;expires=0\r\n",
];
const SDPS: [&str; 4] = [
    "v=0\r\nc=IN IP4 10.0.0.1\r\nm=audio 4000 RTP/AVP 0 101\r\n",
    "v=0\r\nc=IN IP4 0.0.0.0\r\nm=audio 4000 RTP/AVP 0\r\na=inactive\r\n",
    "v=0\r\nc=IN IP6 2001:db8::1\r\na=group:BUNDLE 0\r\nm=audio 0 RTP/AVP 8\r\nm=video 6000 RTP/SAVPF 96\r\na=rtcp-mux\r\n",
    "v=0\r\nc=IN IP4 10.0.0.2\r\nm=image 5000 udptl t38\r\n",
];

/// Plays the input.
pub fn run(bytes: &[u8]) {
    let limits = Limits {
        calls: CALLS,
        media_lines: LINES,
        follow_calls: true,
        follow_endpoints: true,
        ..Limits::default()
    };
    let mut probe = Signalling::new(limits);
    let mut input = Input(bytes);
    let (mut time, mut number, mut malformed) = (1, 0, 0);
    let mut seqs = [u32::MAX - 300, 7];
    while !input.is_empty() {
        let (kind, step) = (input.byte(), input.byte());
        time += [0, 30_000, 4_000_000, 500_000_000][usize::from(step >> 6)] * u64::from(step & 0x3f);
        number += 1;
        let text = text(&mut input);
        let evidence = evidence(kind);
        let direction = usize::from(kind >> 7);
        let flow = flow(direction, kind);
        let (at, length) = (Nanos(time), text.len());
        let observed = match kind & 7 {
            0..=3 => {
                // Now and then not all of it was captured.
                let there = if kind & 0x40 == 0 { length } else { length / 2 };
                probe.observe_part(at, number, flow, Transport::Udp, &evidence, &text[..there], length)
            }
            kind => {
                // In order, again, early, or from far away.
                let jump =
                    [0, 0, 0, 0, 40, 0_u32.wrapping_sub(length as u32), 1 << 30, 3][usize::from(step & 7)];
                let own = &mut seqs[direction];
                let seq = own.wrapping_add(jump);
                *own = seq.wrapping_add(length as u32);
                if kind == 7 {
                    probe.observe_tls(at, number, flow, seq, &evidence, &text, length)
                } else {
                    probe.observe(at, number, flow, Transport::Tcp { seq }, &evidence, &text)
                }
            }
        };
        malformed += u64::from(matches!(observed, Observed::Malformed(_)));
        check(&mut probe, &flow);
    }
    probe.advance(Nanos(time + 1_000_000_000));
    probe.finish();
    check(&mut probe, &flow(0, 0));
    let report = probe.report();
    assert!(report.sip.malformed >= report.sip.unreadable.len() as u64);
    assert!(report.sip.copies <= number * 64, "copies without frames");
    let _ = malformed;
}

/// A message with something wrong in it, or no message.
fn text(input: &mut Input<'_>) -> Vec<u8> {
    let shape = input.byte();
    if shape >= 0xf0 {
        let count = usize::from(input.byte());
        return input.take(count).to_vec();
    }
    if shape >= 0xe8 {
        return [&[23, 3, 3, 0, 40][..], &[0xaa; 40]].concat();
    }
    let (start, of, tags) = (input.byte(), input.byte(), input.byte());
    let start = STARTS[usize::from(start) % STARTS.len()];
    let method = if start.starts_with("SIP") {
        METHODS[usize::from(of & 7)]
    } else {
        start.split(' ').next().unwrap_or_default()
    };
    let more = MORE[usize::from(of >> 3 & 7)];
    let (call, cseq) = (shape & 7, of >> 6);
    let body = match tags >> 4 {
        which @ 0..=3 => SDPS[usize::from(which)],
        4 => "SIP/2.0 200 OK\r\n",
        _ => "",
    };
    let kind = if tags >> 4 < 4 { "Content-Type: application/sdp\r\n" } else { "" };
    let to = if tags & 3 == 0 { String::new() } else { format!(";tag={}", tags & 3) };
    let text = format!(
        "{start}\r\nVia: SIP/2.0/UDP 10.0.0.1;branch=z9hG4bK{call}{cseq}{method}\r\nFrom: <sip:a@x>;tag={}\r\n\
         To: <sip:b@x>{to}\r\nCall-ID: call{call}\r\nCSeq: {cseq} {method}\r\n{more}{kind}Content-Length: {}\r\n\r\n{body}",
        tags >> 2 & 3,
        body.len()
    );
    let mut text = text.into_bytes();
    if shape & 0x40 != 0 {
        let (place, byte) = (usize::from(input.word()), input.byte());
        let length = text.len();
        text[place % length] = byte;
    }
    if shape & 0x80 != 0 {
        let length = text.len();
        text.truncate(1 + usize::from(input.word()) % length);
    }
    text
}

fn flow(direction: usize, kind: u8) -> Flow {
    let ends =
        [Endpoint::v4([10, 0, 0, 1], 5060), Endpoint::v4([10, 0, 0, 2], 5060 + u16::from(kind >> 3 & 1))];
    if direction == 0 { Flow { src: ends[0], dst: ends[1] } } else { Flow { src: ends[1], dst: ends[0] } }
}

fn evidence(kind: u8) -> Evidence {
    Evidence {
        tap: Tap::new(u16::from(kind >> 4 & 1), false),
        dst_mac: [2; 6],
        src_mac: [3; 6],
        vlans: Vlans::default(),
        ttl: 64 - (kind >> 5 & 1),
        tos: 0,
        ip_id: 0,
        encapsulation: Encapsulation::NONE,
        carrier: Carrier::NONE,
    }
}

fn check(probe: &mut Signalling, flow: &Flow) {
    probe.drain_events();
    probe.media_mut().drain_changes();
    probe.media().lookup(flow);
    assert!(probe.calls().len() <= CALLS, "{} calls", probe.calls().len());
    assert!(probe.media().len() <= LINES, "{} lines", probe.media().len());
    let sip = probe.totals();
    let (mut messages, mut copies) = (0, 0);
    for (_, tally) in sip.kinds.iter() {
        messages += tally.messages;
        copies += tally.copies;
    }
    assert_eq!((messages, copies), (sip.messages, sip.copies), "kinds add up");
    assert_eq!(sip.retransmissions, sip.repeats.retransmissions(), "timers add up");
    assert!(sip.defective <= sip.messages && sip.auth_challenges <= sip.messages);
    let repeats = sip.repeats.retransmissions() + sip.repeats.echoes + sip.repeats.unscheduled;
    assert!(repeats <= sip.messages, "{repeats} repeats of {} messages", sip.messages);
    assert!(sip.unreadable.len() <= 16 && sip.retransmitted.len() <= 16);
}

//! A wire with a phone and a PBX on it, and messages that they may send, for tests.

use super::*;
use crate::packet::{Carrier, Encapsulation, Endpoint, Layer, Tap, Vlans};

pub(super) const MS: u64 = 1_000_000;
pub(super) const PHONE: [u8; 4] = [10, 0, 0, 1];
pub(super) const PBX: [u8; 4] = [10, 0, 0, 2];

/// A wire with taps on it, and the probe behind them.
pub(super) struct Wire {
    pub(super) probe: Signalling,
    pub(super) number: u64,
    /// Further copies of each frame: delay in microseconds and evidence.
    pub(super) taps: Vec<(u64, Evidence)>,
    pub(super) tcp_seq: u32,
    /// What was sent, without copies.
    pub(super) sent: Vec<(Flow, String)>,
}

pub(super) fn seen() -> Evidence {
    Evidence {
        tap: Tap::new(0, false),
        dst_mac: [2, 0, 0, 0, 0, 1],
        src_mac: [2, 0, 0, 0, 0, 2],
        vlans: Vlans::default(),
        ttl: 64,
        tos: 0,
        ip_id: 7,
        encapsulation: Encapsulation::NONE,
        carrier: Carrier::NONE,
    }
}

impl Wire {
    pub(super) fn new() -> Self {
        let limits = Limits { follow_endpoints: true, follow_calls: true, ..Limits::default() };
        Self { probe: Signalling::new(limits), number: 0, taps: Vec::new(), tcp_seq: 1, sent: Vec::new() }
    }

    /// The story's taps: each frame again 38 us later with another MAC and no IP ID, and both inside rpcap.
    pub(super) fn tapped_as_in_the_story() -> Self {
        let re_emitted = Evidence { dst_mac: [9; 6], ip_id: 0, ..seen() };
        let rpcap = Encapsulation::NONE.with(Layer::Rpcap).unwrap();
        let inside = |evidence| Evidence { encapsulation: rpcap, carrier: Carrier(1), ..evidence };
        let taps = vec![(38, re_emitted), (9_000, inside(seen())), (30_000, inside(re_emitted))];
        Self { taps, ..Self::new() }
    }

    pub(super) fn send(&mut self, ms: u64, from: [u8; 4], text: &str) -> Observed {
        let to = if from == PHONE { PBX } else { PHONE };
        let flow = Flow { src: Endpoint::v4(from, 5060), dst: Endpoint::v4(to, 5060) };
        self.sent.push((flow, text.to_owned()));
        let first = self.capture(ms, 0, flow, &seen(), text);
        let original = self.number;
        for (delay_us, evidence) in self.taps.clone() {
            let copy = self.capture(ms, delay_us, flow, &evidence, text);
            assert!(matches!(copy, Observed::Copy { of, .. } if of >= original), "{copy:?}");
        }
        first
    }

    pub(super) fn capture(
        &mut self,
        ms: u64,
        us: u64,
        flow: Flow,
        evidence: &Evidence,
        text: &str,
    ) -> Observed {
        self.number += 1;
        let time = Nanos(ms * MS + us * 1000);
        self.probe.observe(time, self.number, flow, Transport::Udp, evidence, text.as_bytes())
    }

    pub(super) fn segment(&mut self, ms: u64, text: &[u8]) -> Observed {
        let flow = Flow { src: Endpoint::v4(PHONE, 40_000), dst: Endpoint::v4(PBX, 5060) };
        self.number += 1;
        let transport = Transport::Tcp { seq: self.tcp_seq };
        self.tcp_seq = self.tcp_seq.wrapping_add(u32::try_from(text.len()).unwrap());
        self.probe.observe(Nanos(ms * MS), self.number, flow, transport, &seen(), text)
    }
}

pub(super) fn head(start: &str, cseq: &str, to_tag: &str, more: &str) -> String {
    // The branch names the transaction: one per CSeq, but ACK to 2xx has its own.
    let branch = cseq.replace(' ', "");
    let to_tag = if to_tag.is_empty() { String::new() } else { format!(";tag={to_tag}") };
    format!(
        "{start}\r\nVia: SIP/2.0/UDP 10.0.0.1;branch=z9hG4bK{branch}\r\n\
         From: \"Ann\" <sip:ann@pbx>;tag=ann\r\nTo: <sip:bob@pbx>{to_tag}\r\nCall-ID: one\r\nCSeq: {cseq}\r\n{more}"
    )
}

pub(super) fn request(method: &str, cseq: u32, to_tag: &str) -> String {
    head(&format!("{method} sip:bob@pbx SIP/2.0"), &format!("{cseq} {method}"), to_tag, "\r\n")
}

pub(super) fn response(code: u16, cseq: &str) -> String {
    head(&format!("SIP/2.0 {code} Some"), cseq, if code == 100 { "" } else { "bob" }, "\r\n")
}

pub(super) fn with_sdp(message: &str, address: [u8; 4], port: u16) -> String {
    let [a, b, c, d] = address;
    let sdp = format!("v=0\r\nc=IN IP4 {a}.{b}.{c}.{d}\r\nm=audio {port} RTP/AVP 0\r\n");
    let head = message.strip_suffix("\r\n").unwrap();
    format!("{head}Content-Type: application/sdp\r\nContent-Length: {}\r\n\r\n{sdp}", sdp.len())
}

pub(super) fn rtp(address: [u8; 4], port: u16) -> Flow {
    Flow { src: Endpoint::v4([192, 0, 2, 1], 9), dst: Endpoint::v4(address, port) }
}

/// A call with authentication, a transfer, and an end by the called.
pub(super) fn whole_call(wire: &mut Wire) {
    wire.send(0, PHONE, &with_sdp(&request("INVITE", 1, ""), PHONE, 4000));
    wire.send(5, PBX, &response(407, "1 INVITE"));
    wire.send(10, PHONE, &request("ACK", 1, "bob"));
    wire.send(12, PHONE, &with_sdp(&request("INVITE", 2, ""), PHONE, 4000));
    wire.send(15, PBX, &response(100, "2 INVITE"));
    wire.send(300, PBX, &response(180, "2 INVITE"));
    wire.send(2012, PBX, &with_sdp(&response(200, "2 INVITE"), PBX, 6000));
    wire.send(2020, PHONE, &request("ACK", 2, "bob"));
    let refer = "Refer-To: \"Carol\" <sip:carol@pbx?Replaces=x>\r\n\r\n";
    wire.send(8000, PHONE, &head("REFER sip:bob@pbx SIP/2.0", "3 REFER", "bob", refer));
    wire.send(8005, PBX, &response(202, "3 REFER"));
    for (at, cseq, status) in [(8010, 1, "100 Trying"), (9500, 2, "200 OK")] {
        let body = format!("SIP/2.0 {status}\r\n");
        let more = format!(
            "Event: refer;id=3\r\nContent-Type: message/sipfrag\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        );
        wire.send(at, PBX, &head("NOTIFY sip:ann@pbx SIP/2.0", &format!("{cseq} NOTIFY"), "ann", &more));
        wire.send(at + 5, PHONE, &response(200, &format!("{cseq} NOTIFY")));
    }
    let bye =
        head("BYE sip:ann@pbx SIP/2.0", "3 BYE", "ann", "\r\n").replace("tag=ann\r\nTo", "tag=bob\r\nTo");
    wire.send(10_012, PBX, &bye);
    wire.send(10_015, PHONE, &response(200, "3 BYE"));
}

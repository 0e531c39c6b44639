//! The BPF programs on this kernel, one frame at a time, against what the shared classifier says on the host.
//!
//! Frames are run through the loaded programs by BPF_PROG_TEST_RUN. Of each, four things must hold: the program
//! passes it, its bytes are what they were, exactly one counter moved and it is the one that the host's
//! classifier names, and a record came if and only if the verdict is a match, with every field right.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::net::SocketAddr;
use std::thread;
use std::time::Duration;

use probe_ebpf::config::MediaRule;
use probe_ebpf::record::{
    KernelLoss, MAX_PACKET, MediaCommon, MediaHead4, MediaHead6, PacketHead, kind, point,
};
use probe_ebpf::slots::GRACE_NS;
use probe_ebpf::{
    Config, EndpointKey, Endpoints, Layers, Meta, Verdict, announced, classify, fingerprint, flow,
};
use voxlab::captures::files_below;
use voxlab::frames::{Datagram, invite, rtcp, rtp, sip, tcp, udp};
use voxlab::privileges::root_for;
use voxlab::tunnels::{Tunnel, tunnel};
use voxprobe::capture::file::{Frames, LinkType};
use voxprobe::capture::live::{
    KernelCounters, KernelEndpoints, LiveCapture, LiveOptions, Mode, Record, Records as _, RingReader,
};
use voxprobe::capture::xsk::{MirrorOptions, record_of};
use voxprobe::packet::{Carrier, Encapsulation, Endpoint, Evidence, Flow, Nanos, Tap, Vlans};
use voxprobe::sip::{EndpointChange, Limits, Signalling, Transport, media};

const XDP_PASS: u32 = 2;
const TCX_NEXT: u32 = u32::MAX;
const ETHERNET_HEADER: usize = 14;
/// What the kernel test-runs a classifier on: a whole network header, and no more than a page with headroom.
const CLASSIFIER_FRAMES: std::ops::RangeInclusive<usize> = ETHERNET_HEADER + 40..=3_000;

/// Instructions that the verifier walked on Linux 6.18 for the program as rustc 1.96 compiles it, with the defaults and
/// with every port slot in use. Its limit is a million, and what it walks moves with kernel and compiler: the same object
/// may take several times as many on another one.
const BUDGET: [(&str, [u32; 2]); 2] =
    [("voxprobe_xdp", [100_637, 100_371]), ("voxprobe_egress", [140_184, 133_230])];
/// What any kernel may take: a quarter of the limit.
const BUDGET_ANYWHERE: u32 = 250_000;

/// The programs of one configuration, and the host's side of it.
struct Bench {
    capture: LiveCapture,
    rings: RingReader,
    config: Config,
    endpoints: KernelEndpoints,
    known: Known,
}

/// The endpoint table on the host.
#[derive(Default)]
struct Known {
    announced: Vec<EndpointKey>,
    carriers: Vec<EndpointKey>,
}

impl Endpoints for Known {
    fn is_announced(&self, key: &EndpointKey) -> bool {
        self.announced.contains(key)
    }

    fn is_carrier(&self, key: &EndpointKey) -> bool {
        self.carriers.contains(key)
    }
}

/// A record, owned.
#[derive(Debug, PartialEq)]
enum Owned {
    Media4(MediaHead4),
    Media6(MediaHead6),
    Packet(PacketHead, Vec<u8>),
}

impl Bench {
    fn new(config: Config, announced: &[Endpoint]) -> Self {
        let mut options = LiveOptions::new(["lo"]);
        options.egress = true;
        options.config = config;
        // As the loader does.
        let config = config.looking_inside();
        options.ring_bytes = 1 << 16;
        let mut capture = LiveCapture::detached(&options).unwrap();
        let rings = capture.take_rings().unwrap();
        let mut endpoints = capture.take_endpoints().unwrap();
        for endpoint in announced {
            assert!(endpoints.insert(*endpoint));
        }
        let announced = announced.iter().map(Endpoint::key).collect();
        Self { capture, rings, config, endpoints, known: Known { announced, ..Known::default() } }
    }

    /// Hands on what the signalling announced and took back.
    fn follow(&mut self, signalling: &mut Signalling) {
        for change in signalling.media_mut().drain_changes() {
            match change {
                EndpointChange::Added(endpoint) => {
                    assert!(self.endpoints.insert(endpoint));
                    self.known.announced.push(endpoint.key());
                }
                EndpointChange::Removed(endpoint) => {
                    assert!(self.endpoints.remove(endpoint));
                    self.known.announced.retain(|known| *known != endpoint.key());
                }
            }
        }
    }

    fn rule(rule: MediaRule) -> Self {
        Self::new(Config { media_rule: rule as u8, ..Config::DEFAULT }, &[])
    }

    /// Runs a frame through both programs and checks everything that must hold. Returns the verdict.
    fn check(&mut self, name: &str, frame: &[u8]) -> Verdict {
        let (verdict, layers) = classify::ethernet(frame, &self.config, &self.known);
        for egress in [false, true] {
            if egress && !CLASSIFIER_FRAMES.contains(&frame.len()) {
                continue;
            }
            let before = self.capture.counters().unwrap();
            let run = self
                .capture
                .test_run(egress, frame, 1)
                .unwrap_or_else(|error| panic!("{name} ({} bytes, egress {egress}): {error}", frame.len()));
            assert_eq!(run.returned, if egress { TCX_NEXT } else { XDP_PASS }, "{name}: what was returned");
            assert!(run.frame == frame, "{name}: the frame was changed (egress {egress})");
            let after = self.capture.counters().unwrap();
            assert_eq!(moved(&before, &after), [(egress, verdict)], "{name}: {}", hex(frame));
            let mut records = Vec::new();
            // A record is handed out when it has an age.
            thread::sleep(Duration::from_nanos(2 * GRACE_NS));
            self.rings.poll(100, |record| records.push(own(record)));
            let expected: Vec<_> = expected(frame, verdict, layers.as_ref(), egress).into_iter().collect();
            assert_eq!(records, expected, "{name}: {}", hex(frame));
            assert_eq!(after.lost(), 0);
            if !egress && verdict.is_matched() {
                assert_eq!(mirrored(frame, verdict, layers.as_ref()), expected, "{name}: as mirrored");
            }
        }
        verdict
    }
}

/// How a frame is seen that nobody asks about.
fn evidence() -> Evidence {
    Evidence {
        tap: Tap { interface: 0, egress: false },
        dst_mac: [0; 6],
        src_mac: [0; 6],
        vlans: Vlans::default(),
        ttl: 64,
        tos: 0,
        ip_id: 1,
        encapsulation: Encapsulation::NONE,
        carrier: Carrier::NONE,
    }
}

/// Which counters moved between two readings, each once per step.
fn moved(before: &KernelCounters, after: &KernelCounters) -> Vec<(bool, Verdict)> {
    let mut moved = Vec::new();
    for (before, after) in before.taps.iter().zip(&after.taps) {
        for verdict in Verdict::ALL {
            let count = |counters: &probe_ebpf::record::Counters| counters.verdicts[verdict as usize];
            let steps = count(&after.counters) - count(&before.counters);
            moved.extend((0..steps).map(|_| (after.egress, verdict)));
        }
    }
    assert_eq!(before.unknown, after.unknown, "a frame of an unknown interface");
    moved
}

/// The record that a frame gives in mirror mode, with what the program would say of it.
fn mirrored(frame: &[u8], verdict: Verdict, layers: Option<&Layers>) -> Vec<Owned> {
    let layers = layers.copied().unwrap_or(Layers::NONE);
    let meta = Meta {
        time_ns: 1,
        flow: flow::of_frame(frame, &layers).unwrap_or(0),
        verdict: verdict as u8,
        point: 0,
        ip: u8::try_from(layers.ip).unwrap(),
        v6: u8::from(layers.v6),
        transport: u16::try_from(layers.transport).unwrap(),
        transport_len: layers.transport_len,
    };
    let mut records = Vec::new();
    // As the reader cuts what it puts together.
    record_of(meta, &frame[..frame.len().min(MAX_PACKET)], frame.len(), |record| records.push(own(record)));
    records
}

/// The record without its time, which is checked to be there.
fn own(record: Record<'_>) -> Owned {
    assert!(record.time_ns() > 0);
    match record {
        Record::Media4(head) => {
            Owned::Media4(MediaHead4 { common: MediaCommon { time_ns: 0, ..head.common }, ..*head })
        }
        Record::Media6(head) => {
            Owned::Media6(MediaHead6 { common: MediaCommon { time_ns: 0, ..head.common }, ..*head })
        }
        Record::Packet(head, bytes) => Owned::Packet(PacketHead { time_ns: 0, ..*head }, bytes.to_vec()),
    }
}

/// The record that a frame must give, put together field by field from its bytes.
fn expected(frame: &[u8], verdict: Verdict, layers: Option<&Layers>, egress: bool) -> Option<Owned> {
    let at = if egress { point::EGRESS } else { 0 };
    let wire_len = u32::try_from(frame.len()).unwrap();
    match (verdict, layers) {
        (Verdict::Rtp, Some(layers)) if !classify::is_short_rtp(frame, layers) => {
            Some(media_head(frame, layers, at))
        }
        _ if verdict.is_matched() => {
            let limit = if verdict == Verdict::SipTls { 128 } else { 16_384 };
            let head = PacketHead {
                time_ns: 0,
                kind: kind::PACKET,
                point: at,
                outer_vlan: 0,
                wire_len,
                captured_len: wire_len.min(limit),
                verdict: verdict as u8,
                reserved: [0; 3],
            };
            Some(Owned::Packet(head, frame[..head.captured_len as usize].to_vec()))
        }
        _ => None,
    }
}

fn media_head(frame: &[u8], layers: &Layers, at: u8) -> Owned {
    let print = fingerprint::of_rtp(frame, layers).unwrap();
    let be16 = |offset: usize| u16::from_be_bytes([frame[offset], frame[offset + 1]]);
    let (ip, udp) = (layers.ip, layers.transport);
    let hashed = if print.hashed { kind::HASHED } else { 0 };
    let tagged = if layers.vlan_tags > 0 { point::TAGGED } else { 0 };
    let common = MediaCommon {
        time_ns: 0,
        kind: hashed,
        point: at | tagged,
        outer_vlan: if layers.vlan_tags > 0 { be16(14) } else { 0 },
        udp_len: be16(udp + 4),
        fingerprint: print.value,
        src_port: be16(udp),
        dst_port: be16(udp + 2),
        ip_id: 0,
        ttl: 0,
        tos: 0,
        rtp: frame[udp + 8..udp + 20].try_into().unwrap(),
        macs: frame[..12].try_into().unwrap(),
    };
    let inner_vlan = if layers.vlan_tags > 1 { be16(18) } else { 0 };
    let inner_tagged = u16::from(layers.vlan_tags > 1);
    if layers.v6 {
        return Owned::Media6(MediaHead6 {
            common: MediaCommon {
                kind: kind::MEDIA6 | hashed,
                ttl: frame[ip + 7],
                tos: frame[ip] << 4 | frame[ip + 1] >> 4,
                ..common
            },
            src: frame[ip + 8..ip + 24].try_into().unwrap(),
            dst: frame[ip + 24..ip + 40].try_into().unwrap(),
            inner_vlan,
            inner_tagged,
            flow_label: u32::from(frame[ip + 1] & 0xf) << 16 | u32::from(be16(ip + 2)),
        });
    }
    let whole = if frame[ip + 6] & 0x40 != 0 { kind::DONT_FRAGMENT } else { 0 };
    let common = MediaCommon { ip_id: be16(ip + 4), ttl: frame[ip + 8], tos: frame[ip + 1], ..common };
    let src: [u8; 4] = frame[ip + 12..ip + 16].try_into().unwrap();
    let dst: [u8; 4] = frame[ip + 16..ip + 20].try_into().unwrap();
    if inner_tagged == 1 {
        let wide = |v4: [u8; 4]| {
            let mut address = [0; 16];
            address[..4].copy_from_slice(&v4);
            address
        };
        let kind = kind::MEDIA4_TWO_TAGS | hashed | whole;
        return Owned::Media6(MediaHead6 {
            common: MediaCommon { kind, ..common },
            src: wide(src),
            dst: wide(dst),
            inner_vlan,
            inner_tagged,
            flow_label: 0,
        });
    }
    let kind = kind::MEDIA4 | hashed | whole;
    Owned::Media4(MediaHead4 { common: MediaCommon { kind, ..common }, src, dst })
}

fn hex(frame: &[u8]) -> String {
    let bytes: Vec<_> = frame.iter().take(160).map(|byte| format!("{byte:02x}")).collect();
    bytes.concat()
}

/// RTP from 10.0.0.1:20000 to 10.0.0.2:30000, not to be fragmented, and with a flow label if it becomes IPv6.
fn media() -> Datagram {
    rtp().varied(160).over(udp()).fragment(0x4000).flow_label(0x54321)
}

/// Frames of every kind, each with its name and its verdict under [`MediaRule::Range`].
fn table() -> Vec<(&'static str, Vec<u8>, Verdict)> {
    const OPTIONS: [u8; 8] = [0, 0, 1, 4, 0, 0, 0, 0];
    let options =
        |count: usize| (0..count).fold(media().v6(), |datagram, _| datagram.extension(60, &OPTIONS));
    let behind_options = media().v6().extension(0, &OPTIONS).extension(60, &OPTIONS);
    let qinq = || media().tag(0x88a8, 0x0064).tag(0x8100, 0x00c8);
    let to = |port: u16| udp().ports(20_000, port);
    let sip_tcp = tcp().ports(20_000, 5060);
    let arp = [&[0xff; 6][..], &[2; 6], &[8, 6], &[0; 46]].concat();
    let stun = [0, 1, 0, 0, 0x21, 0x12, 0xa4, 0x42];
    let table = [
        ("RTP", media(), Verdict::Rtp),
        ("RTP without checksum", media().checksum(0), Verdict::Rtp),
        ("RTP with any checksum", media().checksum(0xbeef), Verdict::Rtp),
        ("RTP without payload", rtp().payload(&[]).over(media()), Verdict::Rtp),
        ("RTP of a telephone event", rtp().payload(&[1, 10, 0, 160]).over(media()), Verdict::Rtp),
        ("RTP of a telephone event in QinQ", rtp().payload(&[1, 10, 0, 160]).over(qinq().v6()), Verdict::Rtp),
        ("RTP of five bytes", rtp().varied(5).over(media()), Verdict::Rtp),
        ("RTP with odd payload", rtp().varied(33).over(media()), Verdict::Rtp),
        ("RTP in 802.1Q", media().vlan(0x6123), Verdict::Rtp),
        ("RTP in 802.1ad", media().tag(0x88a8, 1), Verdict::Rtp),
        ("RTP in 0x9100", media().tag(0x9100, 0x0fff), Verdict::Rtp),
        ("RTP in QinQ", qinq(), Verdict::Rtp),
        ("RTP under three tags", qinq().vlan(3), Verdict::NotIp),
        ("RTP behind IP options", media().ip_options(&[1; 40]), Verdict::Rtp),
        ("RTP over IPv6", media().v6(), Verdict::Rtp),
        ("RTP over IPv6, any checksum", media().v6().checksum(0xbeef), Verdict::Rtp),
        ("RTP over IPv6 in QinQ", qinq().v6(), Verdict::Rtp),
        ("RTP behind IPv6 options", behind_options, Verdict::Rtp),
        ("RTP behind six IPv6 options", options(6), Verdict::Rtp),
        ("RTP behind seven IPv6 options", options(7), Verdict::TooDeep),
        ("IPv6 fragment, first", media().v6().fragment_header(1), Verdict::Fragment),
        ("IPv6 fragment, later", media().v6().fragment_header(0x0100), Verdict::Fragment),
        ("IPv6 fragment, atomic", media().v6().fragment_header(0), Verdict::Rtp),
        ("IPv4 fragment, first", media().fragment(0x2000), Verdict::Fragment),
        ("IPv4 fragment, later", media().fragment(0x00b9), Verdict::Fragment),
        ("IPv4 fragment of TCP", tcp().fragment(0x2000).payload(&[0; 172]), Verdict::OtherIp),
        ("RTCP", to(30_001).payload(&rtcp()), Verdict::Rtcp),
        ("SIP", sip(&invite(900)), Verdict::SipUdp),
        ("SIP from port 5080", sip(&invite(100)).ports(5080, 30_000), Verdict::SipUdp),
        ("SIP keep-alive", to(5060), Verdict::SipUdp),
        ("SIP over TCP", sip_tcp.clone().payload(invite(900).as_bytes()), Verdict::SipTcp),
        ("SIP over TCP, acknowledgement", sip_tcp, Verdict::SipTcpEmpty),
        ("SIP over TLS", tcp().ports(20_000, 5061).payload(&[3; 1000]), Verdict::SipTls),
        ("SIP over TLS, short", tcp().ports(20_000, 5061).payload(&[23, 3, 3, 0, 2, 9, 9]), Verdict::SipTls),
        ("SIP over TLS, acknowledgement", tcp().ports(20_000, 5061), Verdict::SipTcpEmpty),
        (
            "SIP in clear on the port of TLS",
            tcp().ports(20_000, 5061).payload(invite(900).as_bytes()),
            Verdict::SipTcp,
        ),
        ("SIP, jumbo", sip(&invite(8_000)), Verdict::SipUdp),
        ("SIP, longer than a record", sip(&invite(20_000)), Verdict::SipUdp),
        ("RTP, jumbo", rtp().seq(7).varied(8_000).over(media()), Verdict::Rtp),
        ("other TCP", tcp().ports(20_000, 443).payload(&[0; 100]), Verdict::OtherTcp),
        ("DNS", to(53).payload(&[0x12; 40]), Verdict::OtherUdp),
        ("RTP below the range", rtp().over(to(1_000)), Verdict::OtherUdp),
        ("STUN", to(30_000).payload(&stun), Verdict::OtherUdp),
        ("ICMP", udp().protocol(1).payload(&[8; 40]), Verdict::OtherIp),
        ("GRE", udp().protocol(47).payload(&[0; 60]), Verdict::Tunnel),
        ("GRE over IPv6", udp().protocol(47).v6().payload(&[0; 60]), Verdict::Tunnel),
        ("GRE in pieces", udp().protocol(47).fragment(0x2000).payload(&[0; 60]), Verdict::Fragment),
        ("IPv4 in IP", udp().protocol(4).payload(&[0x45; 60]), Verdict::Tunnel),
        ("IPv6 in IP", udp().protocol(41).vlan(7).payload(&[0x60; 60]), Verdict::Tunnel),
        ("VXLAN", to(4789).payload(&[8; 80]), Verdict::Tunnel),
        ("GTP-U over IPv6", udp().ports(2152, 2152).v6().payload(&[0x30; 80]), Verdict::Tunnel),
        ("rpcap over UDP", udp().ports(2002, 20_000).payload(&[0; 80]), Verdict::Tunnel),
        ("HEP, longer than a record", to(9060).payload(&b"x".repeat(20_000)), Verdict::Tunnel),
        ("rpcap", tcp().ports(2002, 20_000).payload(&[0; 900]), Verdict::Tunnel),
        ("rpcap, acknowledgement", tcp().ports(20_000, 2002), Verdict::OtherTcp),
    ];
    let cut = |length: usize| media().ethernet()[..length].to_vec();
    let frames = table.map(|(name, datagram, verdict)| (name, datagram.ethernet(), verdict));
    let labelled = |ethertype: u16| [&[2; 12][..], &ethertype.to_be_bytes(), &[0x45; 50]].concat();
    let tagged = [&[2; 12][..], &[0x88, 0xa8, 0, 1, 0x81, 0, 0, 2, 0x88, 0x64], &[0x11; 50]].concat();
    let raw = [
        ("MPLS", labelled(0x8847), Verdict::Tunnel),
        ("MPLS, upstream label", labelled(0x8848), Verdict::Tunnel),
        ("PPPoE under two tags", tagged, Verdict::Tunnel),
        ("PPPoE discovery", labelled(0x8863), Verdict::NotIp),
        ("ARP", arp, Verdict::NotIp),
        ("Ethernet header alone", cut(ETHERNET_HEADER), Verdict::Truncated),
        ("UDP header cut off", cut(38), Verdict::Truncated),
    ];
    let tunnels = Tunnel::ALL.into_iter().map(|kind| {
        let inner = if kind == Tunnel::Hep { sip(&invite(300)) } else { media().v6() };
        (kind.name(), kind.carry(&inner, 1, 1, tunnel()).ethernet(), Verdict::Tunnel)
    });
    frames.into_iter().chain(raw).chain(tunnels).collect()
}

#[test]
fn every_kind_of_frame_gets_its_verdict_and_its_record() {
    if !root_for("every_kind_of_frame_gets_its_verdict_and_its_record") {
        return;
    }
    let mut bench = Bench::rule(MediaRule::Range);
    for (name, frame, verdict) in table() {
        assert_eq!(bench.check(name, &frame), verdict, "{name}");
    }
}

#[test]
fn the_mirror_program_judges_alike_and_passes_untouched_what_has_no_socket() {
    if !root_for("the_mirror_program_judges_alike_and_passes_untouched_what_has_no_socket") {
        return;
    }
    let mut options = LiveOptions::new(["lo"]);
    options.mode = Mode::Mirror(MirrorOptions::DEFAULT);
    let mut capture = LiveCapture::detached(&options).unwrap();
    assert!(capture.take_rings().is_none(), "a mirror port has sockets, no rings");
    for (name, frame, verdict) in table() {
        let before = capture.counters().unwrap();
        let run = capture.test_run(false, &frame, 1).unwrap_or_else(|error| panic!("{name}: {error}"));
        assert_eq!(run.returned, XDP_PASS, "{name}");
        assert!(run.frame == frame, "{name}: the frame was changed");
        let after = capture.counters().unwrap();
        assert_eq!(moved(&before, &after), [(false, verdict)], "{name}: {}", hex(&frame));
        let lost = after.total().losses[KernelLoss::NoSocket as usize]
            - before.total().losses[KernelLoss::NoSocket as usize];
        assert_eq!(lost, u64::from(verdict.is_matched()), "{name}");
    }
    let (walked, _) = capture.verified_instructions().unwrap();
    eprintln!("voxprobe_mirror: {walked} instructions verified");
    assert!(walked > 0 && walked <= BUDGET_ANYWHERE, "{walked} instructions verified");
}

#[test]
fn the_verifier_walks_no_more_than_its_budget() {
    if !root_for("the_verifier_walks_no_more_than_its_budget") {
        return;
    }
    let full = Config {
        sip_ports: [5060, 5080, 5062, 5064, 5066, 5068, 5070, 5072],
        tls_ports: [5061, 5081, 5063, 5065],
        tunnel_ports: [4789, 8472, 6081, 2152, 37_008, 1701, 3544, 9060, 2002, 4790, 4791, 4792],
        carrier_ports: [2002, 9060, 2003, 2004],
        media_rule: MediaRule::Announced as u8,
        ..Config::DEFAULT
    };
    let is_6_18 = std::fs::read_to_string("/proc/sys/kernel/osrelease")
        .is_ok_and(|release| release.starts_with("6.18."));
    for (index, config) in [Config::DEFAULT, full].into_iter().enumerate() {
        let (ingress, egress) = Bench::new(config, &[]).capture.verified_instructions().unwrap();
        for ((program, budget), walked) in BUDGET.into_iter().zip([ingress, egress.unwrap()]) {
            eprintln!("{program}: {walked} instructions verified, {} budgeted", budget[index]);
            assert!(walked > 0, "{program}: the kernel does not say");
            assert!(
                walked <= BUDGET_ANYWHERE,
                "{program}: {walked} instructions verified, a quarter of the limit is {BUDGET_ANYWHERE}; find the \
                 state that multiplies the rest (kernel/opaque.rs says how to make it one)"
            );
            let most = budget[index] + budget[index] / 4;
            assert!(
                !is_6_18 || walked <= most,
                "{program}: {walked} instructions verified, more than {} + 25 %: find the state that multiplies the \
                 rest (kernel/opaque.rs says how to make it one), or raise the budget and say why in the commit",
                budget[index]
            );
        }
    }
}

#[test]
fn announced_media_counts_whatever_the_rule_says() {
    if !root_for("announced_media_counts_whatever_the_rule_says") {
        return;
    }
    let config = Config { media_rule: MediaRule::Announced as u8, ..Config::DEFAULT };
    let v6 = Endpoint::v6([0x20, 1, 0xd, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2], 30_000);
    let mut bench = Bench::new(config, &[Endpoint::v4([10, 0, 0, 2], 30_000), v6]);
    let to = |port: u16| udp().ports(20_000, port);
    // From 10.0.0.1 port 30,000: the port alone does not make an endpoint.
    let port_alone = rtp().over(udp().ports(30_000, 9));
    let cases = [
        ("announced", rtp().over(to(30_000)), Verdict::Rtp),
        ("announced, IPv6", rtp().over(to(30_000).v6()), Verdict::Rtp),
        ("announced, RTCP", to(30_000).payload(&rtcp()), Verdict::Rtcp),
        ("announced, STUN", to(30_000).payload(&[0; 20]), Verdict::MediaOther),
        ("another port", rtp().over(to(30_002)), Verdict::OtherUdp),
        ("another address", port_alone, Verdict::OtherUdp),
    ];
    for (name, datagram, verdict) in cases {
        assert_eq!(bench.check(name, &datagram.ethernet()), verdict, "{name}");
    }
}

#[test]
fn the_table_follows_offers_candidates_and_where_media_comes_from() {
    if !root_for("the_table_follows_offers_candidates_and_where_media_comes_from") {
        return;
    }
    let config = Config { media_rule: MediaRule::Announced as u8, ..Config::DEFAULT };
    let mut bench = Bench::new(config, &[]);
    let limits = Limits { follow_endpoints: true, ..Limits::default() };
    let mut signalling = Signalling::new(limits);
    let at = |last: u8, port| Endpoint::v4([10, 0, 0, last], port);
    let say = |signalling: &mut Signalling, ms: u64, message: &str| {
        let flow = Flow { src: at(1, 5060), dst: at(2, 5060) };
        signalling.observe(Nanos(ms * 1_000_000), ms, flow, Transport::Udp, &evidence(), message.as_bytes());
    };
    let head =
        "Via: SIP/2.0/UDP h;branch=z9hG4bK1\r\nFrom: <sip:a@h>;tag=a\r\nTo: <sip:b@h>\r\nCall-ID: c\r\n";
    let sdp = "v=0\r\nc=IN IP4 10.0.0.2\r\nm=audio 30000 RTP/AVP 0\r\na=candidate:1 1 UDP 1 10.0.0.2 30100 typ relay\r\n";
    let media = |src: u16, dst: u16| rtp().over(udp().ports(src, dst)).ethernet();
    let asymmetric = || rtp().over(udp().ports(40_000, 40_002).reversed()).ethernet();
    let (offered, candidate) = (media(40_000, 30_000), media(9, 30_100));
    assert_eq!(bench.check("before the offer", &offered), Verdict::OtherUdp);

    say(
        &mut signalling,
        1,
        &format!(
            "INVITE sip:b@h SIP/2.0\r\n{head}CSeq: 1 INVITE\r\nContent-Type: application/sdp\r\nContent-Length: {}\r\n\r\n{sdp}",
            sdp.len()
        ),
    );
    bench.follow(&mut signalling);
    assert_eq!(bench.check("the first packet", &offered), Verdict::Rtp);
    assert_eq!(bench.check("to a candidate", &candidate), Verdict::Rtp);
    assert_eq!(bench.check("to its sender, from another port", &asymmetric()), Verdict::OtherUdp);

    // The packet comes from 10.0.0.1 port 40,000, which nobody announced.
    signalling.media_mut().attribute(&Flow { src: at(1, 40_000), dst: at(2, 30_000) }, Nanos(2_000_000));
    bench.follow(&mut signalling);
    assert_eq!(bench.check("to its sender, who is learned", &asymmetric()), Verdict::Rtp);

    say(&mut signalling, 3, &format!("CANCEL sip:b@h SIP/2.0\r\n{head}CSeq: 1 CANCEL\r\n\r\n"));
    signalling.advance(Nanos(3_000_000 + media::GRACE.0));
    bench.follow(&mut signalling);
    for (name, frame) in [("offered", offered), ("candidate", candidate), ("learned", asymmetric())] {
        assert_eq!(bench.check(name, &frame), Verdict::OtherUdp, "{name}, after the grace");
    }
    assert_eq!(bench.endpoints.failed(), 0);
}

#[test]
fn a_learned_carrier_is_forwarded_until_it_is_forgotten() {
    if !root_for("a_learned_carrier_is_forwarded_until_it_is_forgotten") {
        return;
    }
    let mut bench = Bench::rule(MediaRule::Range);
    let host = Endpoint::v4([10, 0, 0, 2], 50_000);
    let data = || tcp().ports(20_000, 50_000).payload(&[0; 200]);
    let back = || tcp().ports(50_000, 20_000).payload(&[0; 200]);
    // Media announced at the same address and port is of UDP, and makes no carrier.
    assert!(bench.endpoints.insert(host));
    bench.known.announced.push(host.key());
    assert_eq!(bench.check("before", &data().ethernet()), Verdict::OtherTcp);
    for round in ["first", "second"] {
        assert!(bench.endpoints.insert_carrier(host) && bench.endpoints.insert_carrier(host), "{round}");
        bench.known.carriers.push(host.key());
        assert_eq!(bench.check("data", &data().ethernet()), Verdict::Tunnel, "{round}");
        assert_eq!(bench.check("without data", &tcp().ports(20_000, 50_000).ethernet()), Verdict::OtherTcp);
        assert_eq!(bench.check("another's port", &back().ethernet()), Verdict::OtherTcp, "{round}");
        assert_eq!(bench.check("IPv6", &data().v6().ethernet()), Verdict::OtherTcp, "{round}");
        assert!(bench.endpoints.remove_carrier(host) && !bench.endpoints.remove_carrier(host), "{round}");
        bench.known.carriers.clear();
        assert_eq!(bench.check("after", &data().ethernet()), Verdict::OtherTcp, "{round}");
    }
    let source = Endpoint::v4([10, 0, 0, 1], 50_000);
    assert!(bench.endpoints.insert_carrier(source));
    bench.known.carriers.push(source.key());
    assert_eq!(bench.check("as source", &back().ethernet()), Verdict::Tunnel);
    assert_eq!(bench.endpoints.failed(), 0);
}

#[test]
fn a_port_stays_known_while_any_endpoint_has_it() {
    if !root_for("a_port_stays_known_while_any_endpoint_has_it") {
        return;
    }
    let config = Config { media_rule: MediaRule::Announced as u8, ..Config::DEFAULT };
    let mut bench = Bench::new(config, &[]);
    let [here, there] = [2, 9].map(|last| Endpoint::v4([10, 0, 0, last], 30_000));
    let media = media().ethernet();
    assert!(bench.endpoints.insert(here) && bench.endpoints.insert(there) && bench.endpoints.insert(here));
    bench.known.announced.push(here.key());
    assert_eq!(bench.check("both", &media), Verdict::Rtp);
    assert!(bench.endpoints.remove(there));
    assert_eq!(bench.check("the other's is gone", &media), Verdict::Rtp);
    assert!(bench.endpoints.remove(here));
    bench.known.announced.clear();
    assert_eq!(bench.check("none", &media), Verdict::OtherUdp);
}

/// More endpoints than their bucket has room for, which then sends whoever asks to the map of all, and back again.
#[test]
fn endpoints_of_one_bucket_are_all_known_and_each_is_forgotten() {
    if !root_for("endpoints_of_one_bucket_are_all_known_and_each_is_forgotten") {
        return;
    }
    let bucket_of = |endpoint: &Endpoint| announced::bucket(announced::word(&endpoint.key()).unwrap());
    let hosts = (0..=u16::MAX).map(|host| {
        let [high, low] = host.to_be_bytes();
        Endpoint::v4([10, 0, high, low], 30_000)
    });
    let first = bucket_of(&Endpoint::v4([10, 0, 0, 2], 30_000));
    let alike: Vec<_> = hosts.filter(|host| bucket_of(host) == first).take(7).collect();
    assert_eq!(alike.len(), 7);
    let config = Config { media_rule: MediaRule::Announced as u8, ..Config::DEFAULT };
    let mut bench = Bench::new(config, &[]);
    let check_all = |bench: &mut Bench, known: &[Endpoint]| {
        for host in &alike {
            let mut datagram = media();
            datagram.dst = SocketAddr::new(host.ip(), host.port);
            let verdict = if known.contains(host) { Verdict::Rtp } else { Verdict::OtherUdp };
            assert_eq!(bench.check("one of many", &datagram.ethernet()), verdict, "{host} of {known:?}");
        }
    };
    for count in 1..=alike.len() {
        let (known, host) = (&alike[..count], alike[count - 1]);
        assert!(bench.endpoints.insert(host));
        bench.known.announced.push(host.key());
        check_all(&mut bench, known);
    }
    for gone in 0..alike.len() {
        assert!(bench.endpoints.remove(alike[gone]));
        bench.known.announced.remove(0);
        check_all(&mut bench, &alike[gone + 1..]);
    }
}

#[test]
fn every_truncation_is_judged_as_on_the_host() {
    if !root_for("every_truncation_is_judged_as_on_the_host") {
        return;
    }
    let mut bench = Bench::rule(MediaRule::Anything);
    for (name, frame, _) in table().into_iter().filter(|(_, frame, _)| frame.len() < 400) {
        // The kernel itself refuses to run less than an Ethernet header.
        for len in ETHERNET_HEADER..frame.len() {
            bench.check(name, &frame[..len]);
        }
    }
}

#[test]
fn thousands_of_mutated_frames_are_judged_as_on_the_host() {
    if !root_for("thousands_of_mutated_frames_are_judged_as_on_the_host") {
        return;
    }
    let seeds: Vec<_> = table().into_iter().filter(|(_, frame, _)| frame.len() < 400).collect();
    let mut random = Xorshift(0x9e37_79b9_7f4a_7c15);
    for rule in [MediaRule::Announced, MediaRule::Range, MediaRule::Anything] {
        let mut bench = Bench::rule(rule);
        let mut seen = [0_u32; probe_ebpf::classify::VERDICTS];
        for _ in 0..2_000 {
            let (name, frame, _) = &seeds[random.below(seeds.len())];
            let mut frame = frame.clone();
            for _ in 0..=random.below(4) {
                // Headers are what a mutation should hit.
                let at = random.below(frame.len().min(100));
                frame[at] = random.next().to_le_bytes()[3];
            }
            if random.below(4) == 0 {
                frame.truncate(ETHERNET_HEADER + random.below(frame.len() - ETHERNET_HEADER + 1));
            }
            seen[bench.check(name, &frame) as usize] += 1;
        }
        assert!(seen.iter().filter(|&&count| count > 0).count() >= 9, "too uniform: {seen:?}");
    }
}

#[test]
fn frames_of_real_captures_are_judged_as_on_the_host() {
    if !root_for("frames_of_real_captures_are_judged_as_on_the_host") {
        return;
    }
    let Some(folder) = voxlab::shared_captures() else { return };
    let mut bench = Bench::rule(MediaRule::Anything);
    let mut judged = 0;
    for file in files_below(&folder) {
        let name = file.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let Ok(mut frames) = Frames::open(&file) else { continue };
        let mut of_this_file = 0;
        while let Some(frame) = frames.next_frame()
            && of_this_file < 3_000
        {
            let runs = (ETHERNET_HEADER..=60_000).contains(&frame.bytes.len());
            if frame.link == LinkType::Ethernet && runs {
                bench.check(&name, frame.bytes);
                of_this_file += 1;
            }
        }
        judged += of_this_file;
    }
    assert!(judged > 1_000, "only {judged} Ethernet frames in the captures");
    eprintln!("{judged} frames of captures judged alike");
}

/// Seeded, so that a failure repeats.
struct Xorshift(u64);

impl Xorshift {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn below(&mut self, bound: usize) -> usize {
        usize::try_from(self.next() % bound as u64).unwrap()
    }
}

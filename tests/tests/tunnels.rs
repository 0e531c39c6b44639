//! Tunnels and carriers: what is inside is found, with the evidence of how it came; what only looks like one is not
//! believed; and nothing that anybody sends makes the decoder guess, grow or fall over.
#![expect(clippy::unwrap_used, reason = "helpers of tests: a failure is a failed test")]

use probe_ebpf::{Config, EndpointKey, Endpoints, MediaRule, Verdict};
use proptest::collection::vec;
use proptest::prelude::*;
use voxlab::frames::{Datagram, rtcp, rtp, sip, udp};
use voxlab::tunnels::{
    RpcapSession, Tunnel, erspan2, erspan3, geneve, geneve_ip, gre, gre_bridged, gtp, ip_in_ip, l2tp,
    rpcap_packet, teredo, tunnel, tzsp, vxlan,
};
use voxprobe::capture::file::{Frame, LinkType};
use voxprobe::decode::{Decoded, Decoder, Tunnels};
use voxprobe::packet::{Evidence, Flow, Nanos, Vlans};

struct Nobody;

impl Endpoints for Nobody {
    fn is_announced(&self, _: &EndpointKey) -> bool {
        false
    }
}

const OPTIONS: &str = "OPTIONS sip:a SIP/2.0\r\nCall-ID: c\r\n\r\n";
const START_NS: u64 = 1_700_000_000_123_456_000;

/// What was found, owned.
#[derive(Clone, Debug, PartialEq)]
enum Got {
    Sip { flow: Flow, payload: Vec<u8>, evidence: Evidence },
    Rtcp { flow: Flow, payload: Vec<u8>, evidence: Evidence },
    Rtp { flow: Flow, seq: u16, tap_time: Nanos, evidence: Evidence },
    Carrier,
    Held(Verdict),
    Nothing(Verdict),
}

impl From<Decoded<'_>> for Got {
    fn from(decoded: Decoded<'_>) -> Self {
        match decoded {
            Decoded::Sip(datagram) => Self::Sip {
                flow: datagram.flow,
                payload: datagram.payload.to_vec(),
                evidence: datagram.evidence,
            },
            Decoded::Rtcp(datagram) => Self::Rtcp {
                flow: datagram.flow,
                payload: datagram.payload.to_vec(),
                evidence: datagram.evidence,
            },
            Decoded::Rtp(packet) => Self::Rtp {
                flow: packet.flow,
                seq: packet.rtp.seq,
                tap_time: packet.tap_time,
                evidence: packet.evidence,
            },
            Decoded::Carrier => Self::Carrier,
            Decoded::Held(verdict) => Self::Held(verdict),
            Decoded::Beside { .. } | Decoded::Nothing(_) => Self::Nothing(decoded.verdict()),
        }
    }
}

impl Got {
    fn evidence(&self) -> Option<&Evidence> {
        match self {
            Self::Sip { evidence, .. } | Self::Rtcp { evidence, .. } | Self::Rtp { evidence, .. } => {
                Some(evidence)
            }
            Self::Carrier | Self::Held(_) | Self::Nothing(_) => None,
        }
    }

    fn path(&self) -> String {
        self.evidence().map_or_else(|| format!("{self:?}"), |evidence| evidence.encapsulation.to_string())
    }

    /// The same, but for how it came.
    fn content(&self) -> (Option<Flow>, Vec<u8>, u16) {
        match self {
            Self::Sip { flow, payload, .. } | Self::Rtcp { flow, payload, .. } => {
                (Some(*flow), payload.clone(), 0)
            }
            Self::Rtp { flow, seq, .. } => (Some(*flow), Vec::new(), *seq),
            Self::Carrier | Self::Held(_) | Self::Nothing(_) => (None, Vec::new(), 0),
        }
    }
}

/// A decoder that numbers its frames.
struct Bench {
    decoder: Decoder,
    number: u64,
}

impl Bench {
    fn new() -> Self {
        Self::with(Config { media_rule: MediaRule::Anything as u8, ..Config::DEFAULT })
    }

    fn with(config: Config) -> Self {
        Self { decoder: Decoder::new(config, true), number: 0 }
    }

    /// Everything that comes of a frame: its own, then what its segment completed.
    fn take(&mut self, bytes: &[u8]) -> Vec<Got> {
        self.number += 1;
        let wire_len = u32::try_from(bytes.len()).unwrap();
        let time = Nanos(START_NS + self.number * 1_000);
        let link = LinkType::Ethernet;
        let frame = Frame { time, number: self.number, interface: 0, link, bytes, wire_len };
        let mut got = vec![Got::from(self.decoder.frame(&frame, &Nobody))];
        while let Some(decoded) = self.decoder.more(&Nobody) {
            got.push(decoded.into());
        }
        got
    }

    fn one(&mut self, bytes: &[u8]) -> Got {
        let mut got = self.take(bytes);
        assert_eq!(got.len(), 1, "{got:?}");
        got.remove(0)
    }

    /// Datagrams that segments completed.
    fn unpacked(&mut self, segments: &[Datagram]) -> Vec<Got> {
        segments.iter().flat_map(|segment| self.take(&segment.ethernet()).split_off(1)).collect()
    }

    fn finish(self) -> Tunnels {
        self.decoder.into_tunnels()
    }
}

fn inners() -> Vec<Datagram> {
    let media = rtp().seq(7).over(udp());
    let control = udp().ports(20_001, 30_001).payload(&rtcp());
    let plain = [sip(OPTIONS), media, control];
    plain.iter().cloned().chain(plain.iter().cloned().map(Datagram::v6)).collect()
}

#[test]
fn every_tunnel_gives_what_it_holds_and_says_how_it_came() {
    for inner in inners() {
        let expected = Bench::new().one(&inner.ethernet());
        for kind in Tunnel::ALL.into_iter().filter(|kind| kind.carries(&inner)) {
            for outer in [tunnel(), tunnel().v6(), tunnel().vlan(7)] {
                let tagged = !outer.tags.is_empty();
                let got = Bench::new().one(&kind.carry(&inner, START_NS, 1, outer).ethernet());
                assert_eq!(got.content(), expected.content(), "{}", kind.name());
                let path = if tagged { format!("vlan/{}", kind.path()) } else { kind.path().to_owned() };
                assert_eq!(got.path(), path);
                let evidence = got.evidence().unwrap();
                assert_eq!((evidence.carrier.0, evidence.vlans), (1, Vlans::default()), "{}", kind.name());
            }
        }
    }
}

#[test]
fn macs_are_those_of_the_frame_around_the_inner_packet() {
    let inner = sip(OPTIONS);
    let own = (inner.dst_mac, inner.src_mac);
    let none = ([0; 6], [0; 6]);
    let table = [
        (vxlan(&inner.ethernet()).over(tunnel()).ethernet(), own, "vxlan"),
        (gre(&inner.ip()).over(tunnel()).ethernet(), none, "gre"),
        (inner.clone().vlan(5).mpls(&[1000, 17]).ethernet(), own, "vlan/mpls"),
        (inner.clone().pppoe(9).ethernet(), own, "pppoe"),
    ];
    for (frame, macs, path) in table {
        let got = Bench::new().one(&frame);
        let evidence = got.evidence().unwrap();
        assert_eq!((evidence.dst_mac, evidence.src_mac), macs, "{path}");
        assert_eq!(got.path(), path);
    }
}

#[test]
fn every_optional_field_is_read() {
    let four = sip(OPTIONS);
    let six = four.clone().v6();
    let (packet, frame) = (four.ip(), four.ethernet());
    let table = [
        ("vlan/vlan/gre", gre(&packet).over(tunnel().tag(0x88a8, 7).vlan(8))),
        ("vxlan", vxlan(&four.clone().vlan(9).ethernet()).vni(0x00ab_cdef).over(tunnel())),
        ("ipip/ipip", ip_in_ip(&ip_in_ip(&six.ip(), tunnel()).ip(), tunnel().v6())),
        ("gre", gre(&packet).key(1).sequence(2).checksummed().over(tunnel())),
        ("gre", gre_bridged(&frame).key(1).over(tunnel())),
        ("gre/erspan3", erspan3(&frame).session(9).subheader([0x0c; 8]).over(tunnel())),
        ("geneve", geneve(&frame).option(1, &[1, 2, 3, 4]).option(2, &[0; 8]).over(tunnel())),
        ("geneve", geneve_ip(&six.ip()).over(tunnel())),
        ("gtp", gtp(&packet).sequence(9).over(tunnel())),
        ("gtp", gtp(&packet).sequence(9).qos_flow(5).over(tunnel())),
        ("gtp", gtp(&six.ip()).qos_flow(5).over(tunnel())),
        ("tzsp", tzsp(&frame).tag(10, &[0x7f]).tag(0x29, &[0, 100]).over(tunnel())),
        ("l2tp", l2tp(&packet).sequence(3).offset(2).over(tunnel())),
        ("l2tp", l2tp(&packet).without_length().over(tunnel())),
        ("teredo", teredo(&six.ip()).authenticated().origin([1, 2, 3, 4].into(), 5).over(tunnel())),
    ];
    for (path, datagram) in table {
        let got = Bench::new().one(&datagram.ethernet());
        assert_eq!((got.path().as_str(), got.content().1), (path, OPTIONS.as_bytes().to_vec()));
    }
}

#[test]
fn three_tags_are_two_and_one_outside() {
    let got = Bench::new().one(&sip(OPTIONS).vlan(1).vlan(2).vlan(3).ethernet());
    assert_eq!((got.path().as_str(), got.content().1), ("vlan/vlan/vlan", OPTIONS.as_bytes().to_vec()));
}

#[test]
fn media_on_a_tunnels_port_stays_media() {
    for port in [4789, 8472, 6081, 2152, 37_008, 1701, 3544, 9060, 2002] {
        let media = rtp().seq(7).over(udp().ports(20_000, port));
        let mut bench = Bench::new();
        let got = bench.one(&media.ethernet());
        assert_eq!((got.path().as_str(), got.content().2), ("none", 7), "port {port}");
        let refused = bench.finish().census.refused();
        assert_eq!(refused.iter().map(|refused| refused.frames).sum::<u64>(), 1, "port {port}: {refused:?}");
    }
}

#[test]
fn without_tunnels_nothing_is_opened() {
    for kind in Tunnel::ALL {
        let inner = sip(OPTIONS).v6();
        let mut bench = Bench::with(Config::DEFAULT.without_tunnels());
        let got = bench.one(&kind.carry(&inner, START_NS, 1, tunnel()).ethernet());
        assert!(
            matches!(got, Got::Nothing(Verdict::OtherUdp | Verdict::OtherIp)),
            "{}: {got:?}",
            kind.name()
        );
    }
}

#[test]
fn a_tunnel_with_nothing_for_us_is_a_tunnel_and_counted_by_its_path() {
    let dns = udp().ports(40_000, 53).payload(b"no media");
    let mut bench = Bench::new();
    let got = bench.one(&vxlan(&dns.ethernet()).over(tunnel()).ethernet());
    assert_eq!(got, Got::Nothing(Verdict::Tunnel));
    let opened = bench.finish().census.opened();
    assert_eq!(opened.iter().map(|one| (one.path.as_str(), one.frames)).collect::<Vec<_>>(), [("vxlan", 1)]);
}

#[test]
fn sessions_between_the_same_ends_are_carriers_of_their_own() {
    let frame = sip(OPTIONS).ethernet();
    let mut bench = Bench::new();
    let carriers: Vec<_> = [5, 6, 5]
        .into_iter()
        .map(|session| bench.one(&erspan2(&frame).session(session).over(tunnel()).ethernet()))
        .map(|got| got.evidence().unwrap().carrier.0)
        .collect();
    assert_eq!(carriers, [1, 2, 1]);
    // The source port of VXLAN is entropy.
    let ports: Vec<_> = [50_000, 50_001]
        .into_iter()
        .map(|port| bench.one(&vxlan(&frame).over(tunnel().ports(port, 1)).ethernet()))
        .map(|got| got.evidence().unwrap().carrier.0)
        .collect();
    assert_eq!(ports, [3, 3]);
    let carriers = bench.finish().carriers;
    assert_eq!(
        carriers.iter().map(|carrier| (carrier.session, carrier.frames)).collect::<Vec<_>>(),
        [(5, 2), (6, 1), (42, 2)]
    );
}

#[test]
fn fragments_of_a_tunnel_and_in_a_tunnel_are_made_whole() {
    let long = "OPTIONS sip:a SIP/2.0\r\n".repeat(120);
    for inner in [sip(&long), sip(&long).v6()] {
        // Outside.
        for outer in [
            gre(&inner.ip()).over(tunnel()),
            ip_in_ip(&inner.ip(), tunnel().v6()),
            vxlan(&inner.ethernet()).over(tunnel()),
        ] {
            let mut bench = Bench::new();
            let fragments = outer.fragments(1400);
            let (last, first) = fragments.split_last().unwrap();
            for fragment in first {
                assert_eq!(bench.one(fragment), Got::Held(Verdict::Fragment));
            }
            assert_eq!(bench.one(last).content().1, long.as_bytes());
            let decoder = &mut bench.decoder;
            assert_eq!(
                (decoder.take_completed_fragments(), decoder.take_lost_fragments()),
                (first.len() as u64, 0)
            );
        }
        // Inside, and both at once.
        let mut bench = Bench::new();
        let inside: Vec<_> = inner.fragments(1600).iter().map(|part| vxlan(part).over(tunnel())).collect();
        let (last, first) = inside.split_last().unwrap();
        for part in first {
            for piece in part.clone().ip_id(99).fragments(800) {
                assert!(matches!(bench.one(&piece), Got::Held(_)));
            }
        }
        let got = bench.one(&last.ethernet());
        assert_eq!((got.path().as_str(), got.content().1), ("vxlan", long.as_bytes().to_vec()));
    }
}

#[test]
fn a_fragment_in_a_tunnel_and_one_beside_it_are_not_joined() {
    let fragments = sip(&"a".repeat(2000)).fragments(1400);
    let mut bench = Bench::new();
    assert_eq!(bench.one(&vxlan(&fragments[0]).over(tunnel()).ethernet()), Got::Held(Verdict::Tunnel));
    assert_eq!(bench.one(&fragments[1]), Got::Held(Verdict::Fragment));
}

#[test]
fn nesting_is_followed_to_the_bound_and_refused_behind_it() {
    let mut packet = sip(OPTIONS);
    let mut deepest = String::new();
    for depth in 1..200 {
        packet = ip_in_ip(&packet.ip(), tunnel());
        if packet.payload.len() > 60_000 {
            break;
        }
        let mut bench = Bench::new();
        let got = bench.one(&packet.ethernet());
        if depth <= 12 {
            deepest = got.path();
            assert_eq!(deepest.split('/').count(), depth);
        } else {
            assert_eq!(got, Got::Nothing(Verdict::Tunnel), "{depth}");
            let census = bench.finish().census;
            assert_eq!(census.opened()[0].path, deepest);
            assert_eq!(census.refused()[0].reason, "too_deep");
        }
    }
}

#[test]
fn truncation_anywhere_gives_the_beginning_of_the_truth_or_nothing() {
    for inner in inners() {
        let whole = Bench::new().one(&inner.ethernet());
        let tunnels = Tunnel::ALL.into_iter().filter(|kind| kind.carries(&inner));
        let mut frames: Vec<_> =
            tunnels.map(|kind| kind.carry(&inner, START_NS, 1, tunnel()).ethernet()).collect();
        frames.push(inner.clone().mpls(&[1000]).ethernet());
        frames.push(inner.clone().pppoe(4).ethernet());
        for frame in frames {
            for length in 0..frame.len() {
                let time = Nanos(START_NS);
                let wire_len = u32::try_from(frame.len()).unwrap();
                let link = LinkType::Ethernet;
                let cut = Frame { time, number: 1, interface: 0, link, bytes: &frame[..length], wire_len };
                let mut decoder = Decoder::new(Config { media_rule: 2, ..Config::DEFAULT }, true);
                let got = Got::from(decoder.frame(&cut, &Nobody));
                if got.evidence().is_some() {
                    let ((flow, payload, seq), (true_flow, truth, true_seq)) =
                        (got.content(), whole.content());
                    assert!(
                        flow == true_flow && truth.starts_with(&payload) && seq == true_seq,
                        "{length}: {got:?}"
                    );
                }
            }
        }
    }
}

/// An rpcap session with so many packets of SIP, each other, on one connection or two.
fn session(count: u16, mss: usize, data: bool) -> (RpcapSession, Vec<Datagram>, Vec<Datagram>) {
    let client = "192.0.2.9:50123".parse().unwrap();
    let server = "192.0.2.1:2002".parse().unwrap();
    let mut session = RpcapSession::new(client, server).mss(mss);
    if data {
        session =
            session.data_connection("192.0.2.9:50124".parse().unwrap(), "192.0.2.1:40000".parse().unwrap());
    }
    let mut session = session.starting_at(5, u32::MAX - 2_000);
    let opening = session.open();
    let mut segments = Vec::new();
    for index in 0..count {
        session.capture(&numbered(index).ethernet(), START_NS + u64::from(index) * 1_000_000);
        segments.extend(session.full_segments());
    }
    segments.extend(session.flush());
    (session, opening, segments)
}

fn numbered(index: u16) -> Datagram {
    rtp().seq(index).over(udp().ip_id(index))
}

fn numbers(got: &[Got]) -> Vec<u16> {
    got.iter().map(|got| got.content().2).collect()
}

#[test]
fn an_rpcap_session_gives_its_frames_and_its_statistics() {
    for data in [false, true] {
        let (mut session, opening, segments) = session(20, 700, data);
        let mut bench = Bench::new();
        assert!(bench.unpacked(&opening).is_empty());
        let got = bench.unpacked(&segments);
        assert_eq!(numbers(&got), (0..20).collect::<Vec<_>>(), "across the wrap of the sequence number");
        for (index, got) in (0..).zip(&got) {
            let Got::Rtp { tap_time, evidence, .. } = got else { panic!("{got:?}") };
            assert_eq!(tap_time.0, START_NS / 1_000 * 1_000 + index * 1_000_000);
            assert_eq!(evidence.encapsulation.to_string(), "rpcap");
            assert_eq!(evidence.dst_mac, udp().dst_mac);
        }
        bench.unpacked(&session.statistics(30, 1, 9));
        bench.unpacked(&session.close());
        let tunnels = bench.finish();
        let [remote] = tunnels.remote_captures.as_slice() else { panic!("{:?}", tunnels.remote_captures) };
        assert_eq!(
            (remote.server.to_string().as_str(), remote.packets, remote.unseen),
            ("192.0.2.1:2002", 20, 0)
        );
        assert_eq!((remote.interface.as_deref(), remote.link_type), (Some("rpcap://eth0"), Some(1)));
        assert_eq!(remote.data_port, data.then_some(40_000));
        let statistics = remote.statistics.unwrap();
        assert_eq!((statistics.received, statistics.dropped(), statistics.captured), (30, 10, 20));
    }
}

#[test]
fn a_session_that_was_seen_twice_gives_its_frames_once() {
    let (_, opening, segments) = session(30, 900, true);
    let twice: Vec<_> = segments.iter().flat_map(|segment| [segment.clone(), segment.clone()]).collect();
    let late: Vec<_> = segments.iter().chain(&segments).cloned().collect();
    for frames in [twice, late] {
        let mut bench = Bench::new();
        bench.unpacked(&opening);
        assert_eq!(numbers(&bench.unpacked(&frames)), (0..30).collect::<Vec<_>>());
    }
}

#[test]
fn a_session_that_lacks_segments_or_begins_in_the_middle_is_read_where_it_can_be() {
    let (_, _, segments) = session(40, 700, false);
    // Without its opening the link type is not known, and the first segment begins inside a message.
    let mut bench = Bench::new();
    let got = numbers(&bench.unpacked(&segments[3..]));
    let first = got[0];
    assert!(first > 5 && first < 12, "{got:?}");
    assert_eq!(got, (first..40).collect::<Vec<_>>());
    // A hole costs the messages that it cuts.
    let mut bench = Bench::new();
    let mut holed = segments.clone();
    holed.remove(5);
    let got = numbers(&bench.unpacked(&holed));
    let missing: Vec<_> = (0..40).filter(|number| !got.contains(number)).collect();
    assert!(
        (3..=5).contains(&missing.len()) && missing.windows(2).all(|pair| pair[1] == pair[0] + 1),
        "{missing:?}"
    );
    assert_eq!(bench.finish().remote_captures[0].unseen, missing.len() as u64);
    // A segment that comes late fills the hole.
    let mut late = segments.clone();
    let moved = late.remove(5);
    late.insert(9, moved);
    let mut got = numbers(&Bench::new().unpacked(&late));
    got.sort_unstable();
    assert_eq!(got, (0..40).collect::<Vec<_>>());
}

#[test]
fn a_generator_that_does_not_count_its_octets_is_read_and_its_copies_are_not() {
    let message = |number: u16| rpcap_packet(&numbered(number).ethernet(), START_NS, u32::from(number));
    let segment = |seq: u32, payload: &[u8]| {
        let mut segment = voxlab::frames::tcp().ports(2002, 50_000).payload(payload);
        segment.tcp.seq = seq;
        segment
    };
    // All at one sequence number; numbers that count segments; numbers without any order.
    let orders: [fn(u32) -> u32; 3] = [|_| 1, |index| index, |index| index.wrapping_mul(0x9e37_79b1)];
    for order in orders {
        let segments: Vec<_> = (0..50)
            .map(|index: u16| {
                let pair = [message(2 * index), message(2 * index + 1)].concat();
                segment(order(u32::from(index)), &pair)
            })
            .flat_map(|segment| [segment.clone(), segment])
            .collect();
        assert_eq!(numbers(&Bench::new().unpacked(&segments)), (0..100).collect::<Vec<_>>());
    }
}

#[test]
fn a_remote_capture_of_a_remote_capture_is_read_to_the_bound() {
    let mut frames = vec![sip(OPTIONS).ethernet()];
    for depth in 1..=5 {
        let mut session = RpcapSession::new(
            format!("192.0.2.9:{}", 50_000 + depth).parse().unwrap(),
            "192.0.2.1:2002".parse().unwrap(),
        );
        session.open();
        frames.iter().for_each(|frame| session.capture(frame, START_NS));
        frames = session.flush().iter().map(Datagram::ethernet).collect();
        let mut bench = Bench::new();
        let got: Vec<_> = frames.iter().flat_map(|frame| bench.take(frame)).collect();
        let found = got.iter().filter(|got| matches!(got, Got::Sip { .. })).count();
        assert_eq!(found, usize::from(depth <= 3), "{depth}: {got:?}");
    }
}

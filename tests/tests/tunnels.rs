//! Tunnels and carriers: what is inside is found, with the evidence of how it came; what only looks like one is not
//! believed; and nothing that anybody sends makes the decoder guess, grow or fall over.
#![expect(clippy::unwrap_used, reason = "helpers of tests: a failure is a failed test")]

#[path = "tunnels/bench.rs"]
mod bench;

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;

use probe_ebpf::{Config, Verdict};
use proptest::collection::vec;
use proptest::prelude::*;
use voxlab::captures::shared_captures;
use voxlab::frames::{rtp, sip, udp};
use voxlab::privileges::skipped;
use voxlab::tunnels::{
    Tunnel, erspan2, erspan3, geneve, geneve_ip, gre, gre_bridged, gtp, ip_in_ip, l2tp, teredo, tunnel, tzsp,
    vxlan,
};
use voxprobe::capture::file::{Frame, LinkType};
use voxprobe::decode::Decoder;
use voxprobe::packet::{Nanos, Vlans};
use voxprobe::pipeline::offline::{Options, RtpRule, analyze};
use voxprobe::report::contract::Report;

use bench::{Bench, Got, Nobody, OPTIONS, START_NS, inners};

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

/// Captures with tunnels in them, but for what is no IP inside and PPTP.
const CAPTURES: [&str; 16] = [
    "arkime+arkime/arkime_synthetic.pcap",
    "arkime+arkime/gre-erspan-vxlan.pcap",
    "arkime+arkime/gtp-iphone.pcap",
    "arkime+arkime/mpls-basic.pcap",
    "arkime+arkime/twovlan.pcap",
    "OISF+suricata-verify/decode-erspan-typeI-02.pcap",
    "OISF+suricata-verify/decode-erspan-typeII-01.pcap",
    "OISF+suricata-verify/geneve-decoder.pcap",
    "OISF+suricata-verify/gre-sample.pcap",
    "OISF+suricata-verify/vxlan-decoder-03_vxlan.pcap",
    "zeek+zeek/erspan.pcap",
    "zeek+zeek/erspanI.pcap",
    "zeek+zeek/erspanII.pcap",
    "zeek+zeek/erspanIII.pcap",
    "zeek+zeek/vxlan-triple-v2.pcap",
    "the-tcpdump-group+tcpdump/erspan-type-i-4.pcap",
];

#[test]
fn real_captures_are_opened_as_tshark_opens_them() {
    let Some(shared) = shared_captures() else { return };
    for name in CAPTURES {
        let path = shared.join(name);
        let Some(expected) = paths_by_tshark(&path) else { return };
        let report = run(&path);
        let mut opened = BTreeMap::new();
        for one in &report.capture.tunnels.opened {
            // tshark's path does not tell the kinds apart.
            let path = one.path.replace(['1', '2', '3'], "");
            *opened.entry(path).or_insert(0) += one.frames;
        }
        assert_eq!(opened, expected, "{name}");
    }
}

/// Frames by path, where what is innermost is IP.
fn paths_by_tshark(path: &Path) -> Option<BTreeMap<String, u64>> {
    let mut tshark = Command::new("tshark");
    tshark.args(["-n", "-r"]).arg(path).args(["-T", "fields", "-e", "frame.protocols"]);
    let Ok(output) = tshark.output() else {
        skipped("real_captures_are_opened_as_tshark_opens_them", "tshark cannot be started");
        return None;
    };
    let mut paths = BTreeMap::new();
    for line in String::from_utf8(output.stdout).unwrap().lines() {
        let (mut path, mut is_ip, mut tags, mut last) = (Vec::new(), false, 0, "");
        for layer in line.split(':') {
            match layer {
                // What an error quotes is not carried; behind IPv4's authentication header nothing is read.
                "icmp" | "icmpv6" | "ah" => {
                    is_ip &= layer != "ah";
                    break;
                }
                // VXLAN-GPE, which has no name in the path, and a port of its own.
                "ip" | "ipv6" if last == "udp" => break,
                "ip" | "ipv6" if is_ip => path.push("ipip"),
                "ip" | "ipv6" => (is_ip, tags) = (true, 0),
                "vlan" | "ieee8021ad" => tags += 1,
                "gre" | "erspan" | "vxlan" | "geneve" | "gtp" | "mpls" | "pppoes" | "l2tp" => {
                    path.extend(std::iter::repeat_n("vlan", std::mem::take(&mut tags)));
                    path.push(if layer == "pppoes" { "pppoe" } else { layer });
                    is_ip = false;
                }
                _ => {}
            }
            last = layer;
        }
        if is_ip && !path.is_empty() {
            *paths.entry(path.join("/")).or_insert(0) += 1;
        }
    }
    Some(paths)
}

fn run(path: &Path) -> Report {
    let options = Options { rtp: RtpRule::Any, ..Options::default() };
    let report = analyze(&[path.to_owned()], &options, |_, _| ()).unwrap();
    let capture = &report.capture;
    assert_eq!(
        capture.matched,
        capture.analysed + capture.losses.values().sum::<u64>(),
        "{}",
        path.display()
    );
    report
}

/// Any bytes, but where the decoder would look.
fn suspicious() -> impl Strategy<Value = Vec<u8>> {
    let ports = prop::sample::select(vec![4789_u16, 6081, 2152, 37_008, 1701, 3544, 9060, 2002]);
    let begins = prop::sample::select(vec![
        vec![8, 0, 0, 0, 0, 0, 42, 0],
        vec![0x34, 255, 0, 30, 1, 2, 3, 4],
        vec![0, 0, 0x65, 0x58],
        b"HEP3".to_vec(),
        vec![0, 7, 0, 0, 0, 0, 0, 40],
        vec![],
    ]);
    let protocols = prop::sample::select(vec![4_u8, 41, 47, 17, 6]);
    (ports, begins, protocols, vec(any::<u8>(), 0..120)).prop_map(|(port, begins, protocol, rest)| {
        udp().ports(40_000, port).protocol(protocol).payload(&[begins, rest].concat()).ethernet()
    })
}

proptest! {
    #[test]
    fn anything_on_a_tunnels_port_decodes_to_something(frames in vec(suspicious(), 1..8)) {
        let mut bench = Bench::new();
        for frame in frames {
            bench.take(&frame);
        }
    }

    #[test]
    fn damaged_tunnels_decode_to_something(
        kinds in vec(0..Tunnel::ALL.len(), 1..4),
        damage in vec((any::<prop::sample::Index>(), any::<u8>()), 0..6),
        length in any::<prop::sample::Index>(),
    ) {
        let mut inner = sip(OPTIONS).v6();
        for kind in kinds {
            let kind = Tunnel::ALL[kind];
            if kind.carries(&inner) {
                inner = kind.carry(&inner, START_NS, 1, tunnel());
            }
        }
        let mut bytes = inner.ethernet();
        for (at, value) in damage {
            let at = at.index(bytes.len());
            bytes[at] = value;
        }
        let length = length.index(bytes.len() + 1);
        Bench::new().take(&bytes[..length]);
    }
}

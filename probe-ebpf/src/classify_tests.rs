//! Claims about verdicts: what a frame is to this probe, and what it is not.

use super::*;
use crate::parse;
use crate::sample::{Packet, Vec, ethernet, fragment, ipv4, ipv6, options, rtp, tcp, udp, vec};

/// The endpoint table of a test.
struct Announced<'a>(&'a [EndpointKey]);

impl Endpoints for Announced<'_> {
    fn is_announced(&self, key: &EndpointKey) -> bool {
        self.0.contains(key)
    }
}

const NOBODY: &[EndpointKey] = &[];

fn judge(frame: &[u8], config: &Config, announced: &[EndpointKey]) -> Verdict {
    match parse::ethernet(frame) {
        Ok(layers) => classify(frame, &layers, config, &Announced(announced)),
        Err(refusal) => refused(refusal, config),
    }
}

fn rule(rule: MediaRule) -> Config {
    Config { media_rule: rule as u8, ..Config::DEFAULT }
}

/// 10.0.0.x as an endpoint.
fn host4(last: u8, port: u32) -> EndpointKey {
    EndpointKey { address: [0, 0, 0xffff_u32.to_be(), u32::from_ne_bytes([10, 0, 0, last])], port }
}

/// 2001:db8::x as an endpoint.
fn host6(last: u8, port: u32) -> EndpointKey {
    let prefix = u32::from_ne_bytes([0x20, 0x01, 0x0d, 0xb8]);
    EndpointKey { address: [prefix, 0, 0, u32::from_ne_bytes([0, 0, 0, last])], port }
}

fn over4(protocol: u8, data: &[u8]) -> Vec<u8> {
    ethernet(&[], &ipv4(&[], 0, protocol, data))
}

fn over6(protocol: u8, data: &[u8]) -> Vec<u8> {
    ethernet(&[], &ipv6(&[], protocol, data))
}

/// From 10.0.0.1:20000 to 10.0.0.2:30000.
fn datagram(payload: &[u8]) -> Vec<u8> {
    over4(UDP, &udp(20_000, 30_000, payload))
}

/// The first bytes of what else runs on media ports (RFC 7983), and of T.38 over UDPTL.
fn not_media() -> [(&'static str, Vec<u8>); 6] {
    [
        ("STUN", vec![0, 1, 0, 0, 0x21, 0x12, 0xa4, 0x42, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12]),
        ("ZRTP", [&[0x10, 0, 0, 1][..], b"ZRTP", &[0; 20]].concat()),
        ("DTLS", [&[22, 0xfe, 0xff][..], &[0; 40]].concat()),
        ("TURN channel", [&[0x40, 0, 0, 20][..], &rtp(8)].concat()),
        ("T.38", vec![0, 7, 1, 6, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]),
        ("keep-alive", vec![]),
    ]
}

#[test]
fn every_verdict_has_a_frame_that_gets_it() {
    let announced: &[EndpointKey] = &[host4(2, 30_000)];
    let (strict, range, anything) =
        (rule(MediaRule::Announced), rule(MediaRule::Range), rule(MediaRule::Anything));
    let arp = ethernet(&[], &Packet { ethertype: 0x0806, bytes: vec![0; 28] });
    let mut wrong_version = datagram(&rtp(160));
    wrong_version[14] = 0x55;
    let deep = ethernet(&[], &ipv6(&vec![options(60, 8); 7], UDP, &udp(20_000, 30_000, &rtp(160))));
    let first = ethernet(&[], &ipv4(&[], 0x2000, UDP, &udp(5060, 5060, b"INVITE")));
    let later = ethernet(&[], &ipv6(&[fragment(8)], UDP, b"the rest"));
    let atomic = ethernet(&[], &ipv6(&[fragment(0)], UDP, &udp(20_000, 30_000, &rtp(160))));
    let tagged = ethernet(&[(0x88a8, 1), (0x8100, 2)], &ipv4(&[], 0, UDP, &udp(20_000, 30_000, &rtp(160))));
    let other_fragment = ethernet(&[], &ipv4(&[], 0x2000, 50, &[0; 16]));
    let tunnel_fragment = ethernet(&[], &ipv4(&[], 0x2000, 47, &[0; 16]));
    let mpls = ethernet(&[], &Packet { ethertype: 0x8847, ..ipv4(&[], 0, UDP, b"") });
    let tcp_fragment = ethernet(&[], &ipv4(&[], 0x2000, TCP, &tcp(5060, 5060, b"INVITE")));
    let table = [
        ("ARP", arp, &range, NOBODY, Verdict::NotIp),
        ("header cut", datagram(&[])[..30].to_vec(), &range, NOBODY, Verdict::Truncated),
        ("wrong version", wrong_version, &range, NOBODY, Verdict::Malformed),
        ("seven extension headers", deep, &range, NOBODY, Verdict::TooDeep),
        ("DNS", over4(UDP, &udp(40_000, 53, &[0x12; 40])), &range, NOBODY, Verdict::OtherUdp),
        ("RTP nobody announced", datagram(&rtp(160)), &strict, NOBODY, Verdict::OtherUdp),
        ("HTTPS", over4(TCP, &tcp(40_000, 443, b"hello")), &range, NOBODY, Verdict::OtherTcp),
        ("ICMP", over4(1, &[8; 40]), &range, NOBODY, Verdict::OtherIp),
        ("ICMPv6", over6(58, &[128; 40]), &range, NOBODY, Verdict::OtherIp),
        ("fragment of ESP", other_fragment, &range, NOBODY, Verdict::OtherIp),
        ("fragment of TCP", tcp_fragment, &range, NOBODY, Verdict::OtherIp),
        ("SIP over TLS", over4(TCP, &tcp(40_000, 5061, &[23, 3, 3, 0, 40])), &range, NOBODY, Verdict::SipTls),
        ("announced STUN", datagram(&not_media()[0].1), &strict, announced, Verdict::MediaOther),
        ("SIP keep-alive, TCP", over4(TCP, &tcp(5060, 40_000, b"")), &range, NOBODY, Verdict::SipTcpEmpty),
        ("SIP", over4(UDP, &udp(5060, 5060, b"INVITE")), &range, NOBODY, Verdict::SipUdp),
        ("SIP over IPv6", over6(UDP, &udp(5060, 5060, b"INVITE")), &range, NOBODY, Verdict::SipUdp),
        ("SIP over TCP", over4(TCP, &tcp(40_000, 5060, b"INVITE")), &range, NOBODY, Verdict::SipTcp),
        ("RTP in range", datagram(&rtp(160)), &range, NOBODY, Verdict::Rtp),
        ("RTP on any port", over4(UDP, &udp(9, 53, &rtp(160))), &anything, NOBODY, Verdict::Rtp),
        ("RTP announced", datagram(&rtp(160)), &strict, announced, Verdict::Rtp),
        ("RTP in an atomic fragment", atomic, &range, NOBODY, Verdict::Rtp),
        ("RTP under two tags", tagged, &range, NOBODY, Verdict::Rtp),
        ("RTCP", datagram(&[0x80, 201, 0, 1, 1, 2, 3, 4]), &range, NOBODY, Verdict::Rtcp),
        ("first fragment", first, &range, NOBODY, Verdict::Fragment),
        ("later fragment", later, &range, NOBODY, Verdict::Fragment),
        ("fragment of GRE", tunnel_fragment, &range, NOBODY, Verdict::Fragment),
        ("GRE", over4(47, &[0; 40]), &strict, NOBODY, Verdict::Tunnel),
        ("MPLS", mpls, &strict, NOBODY, Verdict::Tunnel),
        ("VXLAN", over4(UDP, &udp(40_000, 4789, &[8; 60])), &strict, NOBODY, Verdict::Tunnel),
        ("rpcap", over4(TCP, &tcp(2002, 40_000, &[0; 60])), &strict, NOBODY, Verdict::Tunnel),
    ];
    let mut seen = [false; VERDICTS];
    for (name, frame, config, announced, verdict) in table {
        assert_eq!(judge(&frame, config, announced), verdict, "{name}");
        seen[verdict as usize] = true;
    }
    assert_eq!(seen, [true; VERDICTS], "a verdict without an example");
}

#[test]
fn verdicts_are_numbered_in_order_and_named_apart() {
    for (number, verdict) in Verdict::ALL.into_iter().enumerate() {
        assert_eq!(verdict as usize, number, "{}", verdict.name());
        let twins = Verdict::ALL.iter().filter(|other| other.name() == verdict.name());
        assert_eq!(twins.count(), 1, "{}", verdict.name());
    }
    let matched: Vec<_> = Verdict::ALL.into_iter().filter(|verdict| verdict.is_matched()).collect();
    let expected = [Verdict::SipUdp, Verdict::SipTcp, Verdict::SipTls, Verdict::Rtp, Verdict::Rtcp];
    assert_eq!(matched, [&expected[..], &[Verdict::Fragment, Verdict::Tunnel]].concat());
}

/// A frame that may hold a tunnel, and what it is to a probe that follows none.
fn suspects() -> Vec<(&'static str, Vec<u8>, Verdict)> {
    let gre = [0, 0, 0x08, 0, 0x45, 0, 0, 20];
    let labelled = |ethertype| Packet { ethertype, ..ipv4(&[], 0, UDP, b"") };
    let to = |port: u16| over4(UDP, &udp(20_000, port, &rtp(160)));
    let tagged = ethernet(&[(0x88a8, 1), (0x8100, 2)], &labelled(0x8864));
    vec![
        ("GRE", over4(47, &gre), Verdict::OtherIp),
        ("GRE over IPv6", over6(47, &gre), Verdict::OtherIp),
        ("IPv4 in IPv4", over4(4, &gre), Verdict::OtherIp),
        ("IPv6 in IPv4", over4(41, &gre), Verdict::OtherIp),
        ("IPv4 in IPv6", over6(4, &gre), Verdict::OtherIp),
        ("fragment of GRE, first", ethernet(&[], &ipv4(&[], 0x2000, 47, &gre)), Verdict::OtherIp),
        ("fragment of IP in IPv6, later", ethernet(&[], &ipv6(&[fragment(8)], 41, &gre)), Verdict::OtherIp),
        ("MPLS", ethernet(&[], &labelled(0x8847)), Verdict::NotIp),
        ("MPLS, upstream label", ethernet(&[(0x8100, 1)], &labelled(0x8848)), Verdict::NotIp),
        ("PPPoE under two tags", tagged, Verdict::NotIp),
        ("VXLAN", to(4789), Verdict::Rtp),
        ("VXLAN on the old port", to(8472), Verdict::Rtp),
        ("Geneve", to(6081), Verdict::Rtp),
        ("GTP-U", to(2152), Verdict::Rtp),
        ("TZSP", to(37_008), Verdict::Rtp),
        ("L2TP", to(1701), Verdict::Rtp),
        ("Teredo", to(3544), Verdict::Rtp),
        ("HEP", to(9060), Verdict::Rtp),
        ("rpcap over UDP", to(2002), Verdict::Rtp),
        ("an answer in a tunnel", over4(UDP, &udp(2152, 20_000, b"")), Verdict::OtherUdp),
        ("rpcap", over4(TCP, &tcp(40_000, 2002, b"x")), Verdict::OtherTcp),
        ("HEP over TCP", over6(TCP, &tcp(9060, 40_000, b"x")), Verdict::OtherTcp),
    ]
}

#[test]
fn a_suspected_tunnel_is_judged_as_if_there_were_none_where_none_is_followed() {
    for (name, frame, otherwise) in suspects() {
        let is_fragment = name.starts_with("fragment");
        let suspected = if is_fragment { Verdict::Fragment } else { Verdict::Tunnel };
        let config = rule(MediaRule::Range);
        assert_eq!(judge(&frame, &config, NOBODY), suspected, "{name}");
        assert_eq!(judge(&frame, &config.without_tunnels(), NOBODY), otherwise, "{name}");
    }
}

#[test]
fn a_signalling_port_beats_a_tunnel_and_a_tunnel_beats_an_announcement() {
    let config = Config { sip_ports: [4789, 2002, 0, 0, 0, 0, 0, 0], ..rule(MediaRule::Anything) };
    assert_eq!(judge(&over4(UDP, &udp(9, 4789, b"x")), &config, NOBODY), Verdict::SipUdp);
    assert_eq!(judge(&over4(TCP, &tcp(9, 2002, b"x")), &config, NOBODY), Verdict::SipTcp);
    let geneve = over4(UDP, &udp(20_000, 6081, &rtp(160)));
    assert_eq!(judge(&geneve, &config, &[host4(2, 6081)]), Verdict::Tunnel);
    assert_eq!(judge(&geneve, &config.without_tunnels(), &[host4(2, 6081)]), Verdict::Rtp);
}

#[test]
fn a_carrier_without_data_is_tcp_that_is_not_ours() {
    let config = rule(MediaRule::Range);
    for port in [2002, 9060] {
        assert_eq!(judge(&over4(TCP, &tcp(port, 9, b"")), &config, NOBODY), Verdict::OtherTcp, "{port}");
        assert_eq!(judge(&over4(TCP, &tcp(port, 9, b"x")), &config, NOBODY), Verdict::Tunnel, "{port}");
    }
    let mut lying = tcp(2002, 9, b"x");
    lying[12] = 0x40;
    assert_eq!(judge(&over4(TCP, &lying), &config, NOBODY), Verdict::Malformed);
}

#[test]
fn both_ports_must_be_in_the_media_range_and_its_ends_belong_to_it() {
    let config = Config { rtp_low: 16_384, rtp_high: 32_767, ..rule(MediaRule::Range) };
    let inside = [16_384, 16_385, 24_000, 32_766, 32_767];
    let outside = [0, 1, 16_383, 32_768, 65_535];
    for src in inside.into_iter().chain(outside) {
        for dst in inside.into_iter().chain(outside) {
            let both = inside.contains(&src) && inside.contains(&dst);
            let expected = if both { Verdict::Rtp } else { Verdict::OtherUdp };
            let frame = over4(UDP, &udp(src, dst, &rtp(160)));
            assert_eq!(judge(&frame, &config, NOBODY), expected, "{src} to {dst}");
        }
    }
}

#[test]
fn a_signalling_port_on_either_side_is_enough_and_its_neighbours_are_not() {
    let config = Config { sip_ports: [5060, 0, 0, 0, 0, 0, 0, 65_535], ..rule(MediaRule::Announced) };
    for port in [5060, 65_535] {
        for (src, dst) in [(port, 9), (9, port), (port, port)] {
            assert_eq!(judge(&over4(UDP, &udp(src, dst, b"x")), &config, NOBODY), Verdict::SipUdp);
            assert_eq!(judge(&over4(TCP, &tcp(src, dst, b"x")), &config, NOBODY), Verdict::SipTcp);
        }
    }
    for port in [5059, 5062, 65_534, 0] {
        assert_eq!(judge(&over4(UDP, &udp(port, 9, b"x")), &config, NOBODY), Verdict::OtherUdp, "{port}");
        assert_eq!(judge(&over4(TCP, &tcp(9, port, b"x")), &config, NOBODY), Verdict::OtherTcp, "{port}");
    }
}

#[test]
fn tls_ports_are_of_tcp_only() {
    let config = rule(MediaRule::Range);
    assert_eq!(judge(&over4(TCP, &tcp(5061, 40_000, b"")), &config, NOBODY), Verdict::SipTcpEmpty);
    assert_eq!(judge(&over4(UDP, &udp(5061, 40_000, &rtp(160))), &config, NOBODY), Verdict::Rtp);
    // A port that is both is read.
    let both = Config { tls_ports: [5060, 0, 0, 0], ..config };
    assert_eq!(judge(&over4(TCP, &tcp(5060, 40_000, b"x")), &both, NOBODY), Verdict::SipTcp);
}

#[test]
fn text_on_a_tls_port_is_read_and_nothing_else_is() {
    let config = rule(MediaRule::Range);
    let texts = [&b"INVITE sip:a"[..], b"\r\n\r\n", b"\tfolded", b"SIP/", b"\x7f~~~"];
    let others =
        [&[22, 3, 1, 2, 0, 1][..], &[23, 3, 3, 0, 40], b"INV", b"IN\x80ITE", b"INV\x08TE", &[0xff; 8]];
    for (payload, verdict) in texts
        .map(|text| (text, Verdict::SipTcp))
        .into_iter()
        .chain(others.map(|other| (other, Verdict::SipTls)))
    {
        let frame = over4(TCP, &tcp(40_000, 5061, payload));
        assert_eq!(judge(&frame, &config, NOBODY), verdict, "{payload:?}");
    }
}

#[test]
fn a_signalling_port_beats_an_announcement() {
    let announced = [host4(2, 5060)];
    let frame = over4(UDP, &udp(20_000, 5060, &rtp(160)));
    assert_eq!(judge(&frame, &rule(MediaRule::Anything), &announced), Verdict::SipUdp);
}

#[test]
fn an_announced_endpoint_counts_as_destination_and_as_source() {
    let config = rule(MediaRule::Announced);
    let datagram = udp(20_000, 30_000, &rtp(160));
    let v4 = (over4(UDP, &datagram), host4 as fn(u8, u32) -> EndpointKey);
    let v6 = (over6(UDP, &datagram), host6 as fn(u8, u32) -> EndpointKey);
    for (frame, host) in [v4, v6] {
        let cases = [
            (host(2, 30_000), Verdict::Rtp),      // destination
            (host(1, 20_000), Verdict::Rtp),      // source
            (host(1, 30_000), Verdict::OtherUdp), // the other's port
            (host(2, 20_000), Verdict::OtherUdp),
            (host(2, 30_001), Verdict::OtherUdp),
            (host(3, 30_000), Verdict::OtherUdp),
        ];
        for (key, verdict) in cases {
            assert_eq!(judge(&frame, &config, &[key]), verdict, "{key:x?}");
        }
    }
    // An address of one family is none of the other's.
    assert_eq!(judge(&over4(UDP, &datagram), &config, &[host6(2, 30_000)]), Verdict::OtherUdp);
}

#[test]
fn what_shares_a_media_port_counts_as_media_only_where_it_was_announced() {
    let announced = [host4(2, 30_000)];
    for (name, payload) in not_media() {
        let frame = datagram(&payload);
        for rule in [MediaRule::Announced, MediaRule::Range, MediaRule::Anything].map(rule) {
            assert_eq!(judge(&frame, &rule, &announced), Verdict::MediaOther, "{name}");
            assert_eq!(judge(&frame, &rule, NOBODY), Verdict::OtherUdp, "{name}");
        }
    }
}

#[test]
fn packet_types_192_to_223_are_rtcp_and_all_others_rtp() {
    let config = rule(MediaRule::Range);
    for second in 0..=255_u8 {
        let mut packet = rtp(20);
        packet[1] = second;
        let expected = if (192..=223).contains(&second) { Verdict::Rtcp } else { Verdict::Rtp };
        assert_eq!(judge(&datagram(&packet), &config, NOBODY), expected, "{second}");
    }
}

#[test]
fn rtcp_is_at_least_a_header_and_a_sender() {
    let packet = [0x81, 200, 0, 6, 1, 2, 3, 4, 5];
    for length in 0..=packet.len() {
        let expected = if length >= 8 { Verdict::Rtcp } else { Verdict::MediaOther };
        let verdict = judge(&datagram(&packet[..length]), &rule(MediaRule::Announced), &[host4(2, 30_000)]);
        assert_eq!(verdict, expected, "{length} bytes");
    }
}

#[test]
fn only_version_2_is_media() {
    for first in 0..=255_u8 {
        let mut packet = rtp(160);
        packet[0] = first;
        let expected = if first >> 6 == 2 { Verdict::Rtp } else { Verdict::OtherUdp };
        assert_eq!(judge(&datagram(&packet), &rule(MediaRule::Range), NOBODY), expected, "{first:02x}");
    }
}

#[test]
fn a_header_that_claims_more_contributors_than_there_are_is_not_rtp() {
    let config = rule(MediaRule::Range);
    for contributors in 0..=15_u8 {
        for length in 0..=60 {
            let mut packet = rtp(length);
            packet[0] |= contributors;
            let fits = length >= usize::from(contributors) * 4;
            let expected = if fits { Verdict::Rtp } else { Verdict::OtherUdp };
            let verdict = judge(&datagram(&packet), &config, NOBODY);
            assert_eq!(verdict, expected, "{contributors} contributors, {length} bytes");
        }
    }
}

#[test]
fn rtp_is_short_up_to_four_bytes_of_payload_behind_whatever_header() {
    let is_short = |first: u8, length: usize| {
        let mut packet = rtp(length);
        packet[0] = first;
        let frame = datagram(&packet);
        is_short_rtp(frame.as_slice(), &parse::ethernet(frame.as_slice()).unwrap())
    };
    // Ten bytes are a frame of G.729.
    for (first, longest) in [(0x80, 4), (0x8f, 64), (0x90, 20), (0x9f, 80), (0xa2, 12)] {
        for length in 0..200 {
            assert_eq!(is_short(first, length), length <= longest, "{first:02x}, {length} bytes");
        }
    }
}

#[test]
fn an_rtp_header_that_the_capture_cut_is_not_rtp() {
    let frame = datagram(&rtp(160));
    let end = 14 + 20 + 8 + 12;
    for length in 14 + 20 + 8..frame.len() {
        let expected = if length < end { Verdict::OtherUdp } else { Verdict::Rtp };
        assert_eq!(judge(&frame[..length], &rule(MediaRule::Range), NOBODY), expected, "{length}");
    }
}

#[test]
fn a_frame_cut_before_its_ports_end_is_truncated_whatever_it_was() {
    let frames = [
        (datagram(&rtp(160)), 14 + 20 + 8),
        (over4(UDP, &udp(5060, 5060, b"INVITE")), 14 + 20 + 8),
        (over6(UDP, &udp(5060, 5060, b"INVITE")), 14 + 40 + 8),
        (over4(TCP, &tcp(5060, 5060, b"INVITE")), 14 + 20 + 20),
        (ethernet(&[], &ipv4(&[], 0x2000, UDP, &udp(5060, 5060, b"INVITE"))), 14 + 20 + 8),
    ];
    for (frame, end) in frames {
        for length in 0..end {
            let verdict = judge(&frame[..length], &rule(MediaRule::Anything), &[host4(2, 30_000)]);
            assert_eq!(verdict, Verdict::Truncated, "{length} bytes of {frame:02x?}");
        }
        assert!(judge(&frame, &rule(MediaRule::Anything), NOBODY).is_matched());
    }
}

#[test]
fn tcp_data_begins_where_the_header_says_and_a_lie_is_malformed() {
    let config = rule(MediaRule::Range);
    // Twenty bytes of header, and twenty that are options or data as the header says.
    for words in 0..16_u8 {
        let mut segment = tcp(5060, 40_000, &[b'x'; 20]);
        segment[12] = words << 4;
        let expected = match words {
            0..5 | 11.. => Verdict::Malformed,
            10 => Verdict::SipTcpEmpty,
            _ => Verdict::SipTcp,
        };
        assert_eq!(judge(&over4(TCP, &segment), &config, NOBODY), expected, "{words} words");
    }
}

#[test]
fn keys_of_a_frame_are_its_addresses_and_ports() {
    for (frame, src, dst) in [
        (over4(UDP, &udp(1, 65_535, b"")), host4(1, 1), host4(2, 65_535)),
        (over6(UDP, &udp(65_535, 1, b"")), host6(1, 65_535), host6(2, 1)),
    ] {
        let layers = parse::ethernet(frame.as_slice()).unwrap();
        let keys = (source(frame.as_slice(), &layers), destination(frame.as_slice(), &layers));
        assert_eq!(keys, (Some(src), Some(dst)));
    }
}

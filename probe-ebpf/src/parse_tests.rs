//! Claims about the parser, one shape of frame each.

use super::*;
use crate::sample::{Vec, authentication, fragment, ipv4, ipv6, options, rtp, tcp, udp, vec};

/// Ethertypes of a VLAN tag.
const TAGS: [u16; 3] = [0x8100, 0x88a8, 0x9100];
/// Offset of the transport header behind untagged IPv4 and IPv6 without options.
const BEHIND_IPV4: usize = 14 + 20;
const BEHIND_IPV6: usize = 14 + 40;

fn parse(tags: &[(u16, u16)], packet: &crate::sample::Packet) -> Result<Layers, Refusal> {
    super::ethernet(crate::sample::ethernet(tags, packet).as_slice())
}

fn media() -> Vec<u8> {
    udp(20_000, 30_000, &rtp(160))
}

/// What [`media`] gives in untagged IPv4.
fn layers4() -> Layers {
    Layers {
        ip: 14,
        protocol: UDP,
        transport: BEHIND_IPV4,
        transport_len: 8 + 12 + 160,
        src_port: 20_000,
        dst_port: 30_000,
        ..Layers::NONE
    }
}

/// What [`media`] gives in untagged IPv6.
fn layers6() -> Layers {
    Layers { v6: true, transport: BEHIND_IPV6, ..layers4() }
}

#[test]
fn loads_are_big_endian_and_end_with_the_slice() {
    let bytes: &[u8] = &[1, 2, 3, 4, 5];
    assert_eq!((bytes.be8(4), bytes.be8(5)), (Some(5), None));
    assert_eq!((bytes.be16(3), bytes.be16(4)), (Some(0x0405), None));
    assert_eq!((bytes.be32(1), bytes.be32(2)), (Some(0x0203_0405), None));
    for offset in [6, usize::MAX - 1, usize::MAX] {
        assert_eq!((bytes.be8(offset), bytes.be16(offset), bytes.be32(offset)), (None, None, None));
    }
}

#[test]
fn plain_datagrams_have_their_ports_and_lengths() {
    assert_eq!(parse(&[], &ipv4(&[], 0, UDP, &media())), Ok(layers4()));
    assert_eq!(parse(&[], &ipv6(&[], UDP, &media())), Ok(layers6()));
    let segment = tcp(5060, 40_000, b"ACK");
    let expected = Layers { protocol: TCP, transport_len: 23, src_port: 5060, dst_port: 40_000, ..layers4() };
    assert_eq!(parse(&[], &ipv4(&[], 0, TCP, &segment)), Ok(expected));
}

#[test]
fn up_to_two_tags_of_any_kind_are_read_and_a_third_is_not_ip() {
    let packet = ipv4(&[], 0, UDP, &media());
    for outer in TAGS {
        let one =
            Layers { outer_vlan: 0xe064, vlan_tags: 1, ip: 18, transport: BEHIND_IPV4 + 4, ..layers4() };
        assert_eq!(parse(&[(outer, 0xe064)], &packet), Ok(one), "{outer:04x}");
        for inner in TAGS {
            let two = Layers { inner_vlan: 200, vlan_tags: 2, ip: 22, transport: BEHIND_IPV4 + 8, ..one };
            assert_eq!(parse(&[(outer, 0xe064), (inner, 200)], &packet), Ok(two), "{outer:04x} {inner:04x}");
            for third in TAGS {
                let tags = [(outer, 1), (inner, 2), (third, 3)];
                assert_eq!(parse(&tags, &packet), Err(Refusal::NotIp), "{tags:04x?}");
            }
        }
    }
}

#[test]
fn what_is_neither_ipv4_nor_ipv6_is_not_ip() {
    // ARP, PPPoE discovery, an 802.3 length, LLDP.
    for ethertype in [0x0806, 0x8863, 0x0040, 0x88cc] {
        let packet = crate::sample::Packet { ethertype, ..ipv4(&[], 0, UDP, &media()) };
        assert_eq!(parse(&[], &packet), Err(Refusal::NotIp), "{ethertype:04x}");
        assert_eq!(parse(&[(0x8100, 1)], &packet), Err(Refusal::NotIp), "{ethertype:04x} in a VLAN");
    }
}

#[test]
fn mpls_and_pppoe_sessions_are_told_from_what_is_not_ip() {
    for ethertype in [0x8847, 0x8848, 0x8864] {
        let packet = crate::sample::Packet { ethertype, ..ipv4(&[], 0, UDP, &media()) };
        for tags in [&[][..], &[(0x8100, 1)], &[(0x88a8, 1), (0x8100, 2)]] {
            assert_eq!(parse(tags, &packet), Err(Refusal::Labelled), "{ethertype:04x} under {tags:?}");
        }
    }
}

#[test]
fn a_network_header_is_found_wherever_the_link_layer_ends() {
    let packet = ipv6(&[], UDP, &media());
    for offset in [0, 4, 16, 20] {
        let frame = [vec![0xff; offset], packet.bytes.clone()].concat();
        let expected = Layers { ip: offset, transport: offset + 40, ..layers6() };
        assert_eq!(network(frame.as_slice(), 0x86dd, offset), Ok(expected));
        assert_eq!(network(frame.as_slice(), 0x0800, offset), Err(Refusal::Malformed));
        assert_eq!(network(frame.as_slice(), 0x0806, offset), Err(Refusal::NotIp));
    }
}

#[test]
fn ipv4_options_of_every_length_are_stepped_over() {
    for words in 0..=10 {
        let length = words * 4;
        let expected = Layers { transport: BEHIND_IPV4 + length, ..layers4() };
        assert_eq!(parse(&[], &ipv4(&vec![1; length], 0, UDP, &media())), Ok(expected), "{length}");
    }
}

#[test]
fn every_extension_header_is_stepped_over_by_its_own_length() {
    let headers = [
        options(0, 8),
        options(0, 64),
        options(43, 24),
        options(60, 8),
        options(60, 2_048),
        authentication(16),
        authentication(24),
        authentication(1_024),
        fragment(0),
    ];
    for header in headers {
        let length = header.1.len();
        let expected = Layers { transport: BEHIND_IPV6 + length, ..layers6() };
        let name = (header.0, length);
        assert_eq!(parse(&[], &ipv6(&[header], UDP, &media())), Ok(expected), "{name:?}");
    }
}

#[test]
fn an_extension_header_may_fill_the_packet() {
    const NO_NEXT_HEADER: u8 = 59;
    for header in [options(0, 8), options(43, 16), options(60, 8), authentication(24), fragment(0)] {
        let expected = Layers {
            protocol: NO_NEXT_HEADER,
            transport: BEHIND_IPV6 + header.1.len(),
            transport_len: 0,
            src_port: 0,
            dst_port: 0,
            ..layers6()
        };
        assert_eq!(parse(&[], &ipv6(&[header], NO_NEXT_HEADER, &[])), Ok(expected));
    }
}

#[test]
fn six_extension_headers_are_followed_and_a_seventh_is_too_deep() {
    let kinds = [options(0, 8), options(43, 8), options(60, 16), authentication(24), fragment(0)];
    for kind in &kinds {
        for count in 0..=6 {
            let chain = vec![kind.clone(); count];
            let expected = Layers { transport: BEHIND_IPV6 + count * kind.1.len(), ..layers6() };
            assert_eq!(parse(&[], &ipv6(&chain, UDP, &media())), Ok(expected), "{} x {count}", kind.0);
        }
        for count in [7, 8, 20] {
            let chain = vec![kind.clone(); count];
            assert_eq!(parse(&[], &ipv6(&chain, UDP, &media())), Err(Refusal::TooDeep), "{}", kind.0);
        }
    }
    // The order of RFC 8200, 4.1, all of them.
    let ordered =
        [options(0, 8), options(60, 8), options(43, 24), fragment(0), authentication(24), options(60, 8)];
    let length: usize = ordered.iter().map(|(_, octets)| octets.len()).sum();
    let expected = Layers { transport: BEHIND_IPV6 + length, ..layers6() };
    assert_eq!(parse(&[], &ipv6(&ordered, UDP, &media())), Ok(expected));
}

#[test]
fn the_longest_chain_that_is_followed_stays_below_the_bound_of_forgotten_offsets() {
    let chain = vec![options(60, 2_048); 6];
    let tags = [(0x88a8, 1), (0x8100, 2)];
    let layers = parse(&tags, &ipv6(&chain, UDP, &media())).unwrap();
    assert_eq!(layers.transport, BEHIND_IPV6 + 8 + 6 * 2_048);
    assert!(layers.transport < FORGOTTEN);
}

#[test]
fn fragments_of_ipv4_are_first_or_later_and_only_the_first_has_ports() {
    let cases = [
        (0x0000, Fragment::None),
        (0x4000, Fragment::None), // "don't fragment"
        (0x8000, Fragment::None), // the reserved bit
        (0x2000, Fragment::First),
        (0x0001, Fragment::Later),
        (0x1000, Fragment::Later),
        (0x2001, Fragment::Later),
        (0x1fff, Fragment::Later),
    ];
    for (field, fragment) in cases {
        let whole = Layers { fragment, ..layers4() };
        let portless = Layers { src_port: 0, dst_port: 0, ..whole };
        let expected = if fragment == Fragment::Later { portless } else { whole };
        assert_eq!(parse(&[], &ipv4(&[], field, UDP, &media())), Ok(expected), "{field:04x}");
    }
}

#[test]
fn fragments_of_ipv6_are_first_or_later_and_only_the_first_has_ports() {
    let cases = [
        (0x0000, Fragment::None),  // atomic (RFC 6946)
        (0x0006, Fragment::None),  // the reserved bits
        (0x0001, Fragment::First), // more follow
        (0x0008, Fragment::Later),
        (0x0009, Fragment::Later),
        (0xfff8, Fragment::Later),
    ];
    for (field, fragment) in cases {
        let whole = Layers { fragment, transport: BEHIND_IPV6 + 8, ..layers6() };
        let portless = Layers { src_port: 0, dst_port: 0, ..whole };
        let expected = if fragment == Fragment::Later { portless } else { whole };
        let packet = ipv6(&[crate::sample::fragment(field)], UDP, &media());
        assert_eq!(parse(&[], &packet), Ok(expected), "{field:04x}");
    }
}

#[test]
fn data_of_a_later_fragment_is_never_read_as_a_header() {
    for protocol in [0, 43, 44, 51, 60, UDP, TCP] {
        // Eight bytes of 0xff: as an extension header it would be longer than the packet.
        let packet = ipv6(&[options(0, 8), fragment(0x0100)], protocol, &[0xff; 8]);
        let expected = Layers {
            protocol,
            fragment: Fragment::Later,
            transport: BEHIND_IPV6 + 16,
            transport_len: 8,
            src_port: 0,
            dst_port: 0,
            ..layers6()
        };
        assert_eq!(parse(&[], &packet), Ok(expected), "{protocol}");
    }
}

#[test]
fn other_protocols_have_no_ports_and_need_no_bytes() {
    // ICMP, IGMP, IP in IP, GRE, ESP, ICMPv6, none, OSPF, SCTP.
    for protocol in [1, 2, 4, 47, 50, 58, 59, 89, 132] {
        let expected = Layers { protocol, transport_len: 0, src_port: 0, dst_port: 0, ..layers4() };
        assert_eq!(parse(&[], &ipv4(&[], 0, protocol, &[])), Ok(expected), "{protocol}");
        let expected = Layers { v6: true, transport: BEHIND_IPV6, ..expected };
        assert_eq!(parse(&[], &ipv6(&[], protocol, &[])), Ok(expected), "{protocol}");
    }
}

/// Frames of every shape that has ports, and the length of its transport header.
fn shapes() -> Vec<(Vec<u8>, usize)> {
    let mut shapes = Vec::new();
    let tags: [&[(u16, u16)]; 3] = [&[], &[(0x8100, 5)], &[(0x88a8, 5), (0x8100, 6)]];
    let chain = [options(0, 8), options(43, 24), fragment(1), authentication(24), options(60, 16)];
    for tags in tags {
        for (protocol, header_len) in [(UDP, 8), (TCP, 20)] {
            let data = if protocol == UDP { media() } else { tcp(5060, 5060, b"OPTIONS") };
            for packet in [
                ipv4(&[], 0, protocol, &data),
                ipv4(&[1; 40], 0x2000, protocol, &data),
                ipv6(&[], protocol, &data),
                ipv6(&chain, protocol, &data),
            ] {
                shapes.push((crate::sample::ethernet(tags, &packet), header_len));
            }
        }
    }
    shapes
}

#[test]
fn a_frame_cut_inside_any_header_is_truncated_and_behind_them_unchanged() {
    for (frame, header_len) in shapes() {
        let whole = super::ethernet(frame.as_slice()).unwrap();
        let end = whole.transport + header_len;
        for length in 0..frame.len() {
            let expected = if length < end { Err(Refusal::Truncated) } else { Ok(whole) };
            assert_eq!(super::ethernet(&frame[..length]), expected, "{length} bytes of {frame:02x?}");
        }
    }
}

#[test]
fn a_version_that_contradicts_the_ethertype_is_malformed() {
    for version in 0..16_u8 {
        let mut v4 = ipv4(&[], 0, UDP, &media());
        v4.bytes[0] = version << 4 | 5;
        let mut v6 = ipv6(&[], UDP, &media());
        v6.bytes[0] = version << 4;
        assert_eq!(parse(&[], &v4).err(), (version != 4).then_some(Refusal::Malformed), "{version}");
        assert_eq!(parse(&[], &v6).err(), (version != 6).then_some(Refusal::Malformed), "{version}");
    }
}

#[test]
fn an_ipv4_header_shorter_than_itself_is_malformed() {
    for words in 0..5 {
        let mut packet = ipv4(&[], 0, UDP, &media());
        packet.bytes[0] = 0x40 | words;
        assert_eq!(parse(&[], &packet), Err(Refusal::Malformed), "{words} words");
    }
}

#[test]
fn an_ip_length_that_cannot_hold_the_headers_is_malformed() {
    let claim4 = |claimed: u16, options: &[u8], protocol: u8, data: &[u8]| {
        let mut packet = ipv4(options, 0, protocol, data);
        packet.bytes.splice(2..4, claimed.to_be_bytes());
        parse(&[], &packet).err()
    };
    let claim6 = |claimed: u16, extensions: &[(u8, Vec<u8>)], protocol: u8, data: &[u8]| {
        let mut packet = ipv6(extensions, protocol, data);
        packet.bytes.splice(4..6, claimed.to_be_bytes());
        parse(&[], &packet).err()
    };
    let segment = tcp(1, 2, b"");
    for (needed, protocol, data) in [(8, UDP, media()), (20, TCP, segment)] {
        for claimed in 0..100 {
            let refusal = |header_len: u16| (claimed < header_len + needed).then_some(Refusal::Malformed);
            assert_eq!(claim4(claimed, &[], protocol, &data), refusal(20), "{claimed}");
            assert_eq!(claim4(claimed, &[1; 40], protocol, &data), refusal(60), "{claimed}");
            // Zero is also how a jumbogram begins (RFC 2675), which no Ethernet frame is.
            assert_eq!(claim6(claimed, &[], protocol, &data), refusal(0), "{claimed}");
            let chain = [options(0, 16), authentication(24)];
            assert_eq!(claim6(claimed, &chain, protocol, &data), refusal(40), "{claimed}");
        }
    }
}

#[test]
fn a_length_beyond_the_frame_is_kept_as_claimed() {
    // Bytes that are missing are the capture's affair (a snap length), not the header's.
    let mut packet = ipv4(&[], 0, UDP, &media());
    packet.bytes.splice(2..4, u16::MAX.to_be_bytes());
    assert_eq!(parse(&[], &packet), Ok(Layers { transport_len: u16::MAX - 20, ..layers4() }));
    let mut packet = ipv6(&[options(60, 8)], UDP, &media());
    packet.bytes.splice(4..6, u16::MAX.to_be_bytes());
    let expected = Layers { transport: BEHIND_IPV6 + 8, transport_len: u16::MAX - 8, ..layers6() };
    assert_eq!(parse(&[], &packet), Ok(expected));
}

#[test]
fn a_length_of_an_extension_header_beyond_the_packet_is_malformed() {
    for number in [0, 43, 60, 51] {
        let mut extension = options(number, 8);
        extension.1[1] = 255;
        assert_eq!(parse(&[], &ipv6(&[extension], UDP, &media())), Err(Refusal::Malformed), "{number}");
    }
}

#[test]
fn padding_behind_the_datagram_changes_nothing() {
    let padded = [crate::sample::ethernet(&[], &ipv4(&[], 0, UDP, &media())), vec![0; 46]].concat();
    assert_eq!(super::ethernet(padded.as_slice()), Ok(layers4()));
}

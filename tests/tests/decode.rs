//! The decoder attacked: any bytes, damaged frames, fragments in any order, and etherparse as a second opinion.
#![expect(clippy::unwrap_used, reason = "helpers of tests: a failure is a failed test")]

use etherparse::{NetSlice, SlicedPacket, TransportSlice};
use probe_ebpf::{Config, EndpointKey, Endpoints, MediaRule, Verdict};
use proptest::collection::vec;
use proptest::prelude::*;
use voxlab::frames::{Datagram, rtp, sip, udp};
use voxprobe::capture::file::{Frame, LinkType};
use voxprobe::decode::{Decoded, Decoder};
use voxprobe::packet::Nanos;

struct Nobody;

impl Endpoints for Nobody {
    fn is_announced(&self, _: &EndpointKey) -> bool {
        false
    }
}

const LINKS: [LinkType; 9] = [
    LinkType::Ethernet,
    LinkType::LinuxCooked,
    LinkType::LinuxCooked2,
    LinkType::RawIp,
    LinkType::Loopback,
    LinkType::Ppp,
    LinkType::Hdlc,
    LinkType::PppOverEthernet,
    LinkType::Other(147),
];

const SECOND_NS: u64 = 1_000_000_000;

#[test]
fn fragments_of_sip_become_one_message_at_the_frame_that_completes_it() {
    let message = "OPTIONS sip:a SIP/2.0\r\n".repeat(120);
    for datagram in [sip(&message), sip(&message).v6()] {
        let mut fragments = datagram.fragments(1400);
        fragments.reverse();
        let mut decoder = decoder();
        let (last, first) = fragments.split_last().unwrap();
        for (number, fragment) in (1..).zip(first) {
            let held = decoder.frame(&frame(number, 0, LinkType::Ethernet, fragment), &Nobody);
            assert_eq!(held, Decoded::Held(Verdict::Fragment));
        }
        match decoder.frame(&frame(3, 7, LinkType::Ethernet, last), &Nobody) {
            Decoded::Sip(whole) => {
                assert_eq!((whole.time.0, whole.number, whole.cut), (7, 3, false));
                assert_eq!(whole.payload, message.as_bytes());
                assert_eq!(whole.flow.src.to_string(), datagram.src.to_string());
            }
            other => panic!("{other:?}"),
        }
        assert_eq!((decoder.take_completed_fragments(), decoder.take_lost_fragments()), (1, 0));
    }
}

#[test]
fn a_stale_fragment_does_not_join_a_later_datagram_of_the_same_identification() {
    let old = sip(&"a".repeat(2000)).fragments(1400);
    let new = sip(&"b".repeat(2000)).fragments(1400);
    let mut decoder = decoder();
    decoder.frame(&frame(1, 0, LinkType::Ethernet, &old[0]), &Nobody);
    let time = 31 * SECOND_NS;
    assert_eq!(
        decoder.frame(&frame(2, time, LinkType::Ethernet, &new[1]), &Nobody),
        Decoded::Held(Verdict::Fragment)
    );
    assert_eq!(decoder.take_lost_fragments(), 1);
    match decoder.frame(&frame(3, time, LinkType::Ethernet, &new[0]), &Nobody) {
        Decoded::Sip(whole) => assert_eq!(whole.payload, "b".repeat(2000).as_bytes()),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_last_fragment_that_ends_before_another_one_is_held_and_lost_in_the_end() {
    let mut decoder = decoder();
    // 64 octets at 0x64 times 8; then the end, at 8.
    for (number, field, len) in [(1, 0x2064, 64), (2, 1, 8)] {
        let bytes = udp().fragment(field).payload(&vec![0; len]).ethernet();
        let frame = frame(number, number, LinkType::Ethernet, &bytes);
        assert_eq!(decoder.frame(&frame, &Nobody), Decoded::Held(Verdict::Fragment));
    }
    decoder.finish();
    assert_eq!((decoder.take_lost_fragments(), decoder.take_completed_fragments()), (2, 0));
}

#[test]
fn a_cooked_frame_of_type_outgoing_was_leaving_the_host_and_no_other() {
    for datagram in [sip("OPTIONS sip:a SIP/2.0\r\n\r\n"), sip("OPTIONS sip:a SIP/2.0\r\n\r\n").v6()] {
        for packet_type in 0..=7 {
            let cooked = [
                (LinkType::LinuxCooked, datagram.cooked(packet_type)),
                (LinkType::LinuxCooked2, datagram.cooked2(packet_type)),
            ];
            for (link, bytes) in cooked {
                match decoder().frame(&frame(1, 0, link, &bytes), &Nobody) {
                    Decoded::Sip(message) => {
                        assert_eq!(
                            message.evidence.tap.is_egress(),
                            packet_type == 4,
                            "{link:?} {packet_type}"
                        );
                        assert_eq!(message.evidence.src_mac, datagram.src_mac);
                    }
                    other => panic!("{link:?} {packet_type}: {other:?}"),
                }
            }
        }
    }
}

proptest! {
    #[test]
    fn any_bytes_decode_to_something(bytes in vec(any::<u8>(), 0..200), link in 0..LINKS.len()) {
        decoder().frame(&frame(1, 0, LINKS[link], &bytes), &Nobody);
    }

    #[test]
    fn damaged_frames_decode_to_something(
        datagram in datagrams(),
        damage in vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
        length in any::<prop::sample::Index>(),
        fragmented in any::<bool>(),
    ) {
        let mut bytes = if fragmented { datagram.fragments(16).remove(0) } else { datagram.ethernet() };
        for (at, value) in damage {
            let at = at.index(bytes.len());
            bytes[at] = value;
        }
        let length = length.index(bytes.len() + 1);
        decoder().frame(&frame(1, 0, LinkType::Ethernet, &bytes[..length]), &Nobody);
    }

    #[test]
    fn parser_agrees_with_etherparse(datagram in datagrams()) {
        let bytes = datagram.ethernet();
        let ours = probe_ebpf::parse::ethernet(bytes.as_slice()).unwrap();
        let theirs = SlicedPacket::from_ethernet(&bytes).unwrap();
        let Some(TransportSlice::Udp(transport)) = &theirs.transport else { panic!("no UDP") };
        let v6 = matches!(&theirs.net, Some(NetSlice::Ipv6(_)));
        prop_assert_eq!(
            (ours.src_port, ours.dst_port, ours.transport_len, ours.v6),
            (transport.source_port(), transport.destination_port(), transport.length(), v6)
        );
        let tags: Vec<u16> = theirs.vlan_ids().iter().map(|id| id.value()).collect();
        let found = [ours.outer_vlan, ours.inner_vlan];
        prop_assert_eq!(&found[..usize::from(ours.vlan_tags)], &tags[..]);
    }

    #[test]
    fn every_fragment_is_completed_or_lost(
        order in vec((0..3_u16, any::<prop::sample::Index>(), 0..60_u64), 1..60),
    ) {
        let sets: Vec<_> = (0..3).map(|id| sip(&"x".repeat(300)).ip_id(id).fragments(64)).collect();
        let mut decoder = decoder();
        let (mut time, mut completing) = (0, 0);
        for (number, (id, part, seconds)) in (1..).zip(&order) {
            time += seconds * SECOND_NS / 4;
            let fragments = &sets[usize::from(*id)];
            let bytes = part.get(fragments);
            let decoded = decoder.frame(&frame(number, time, LinkType::Ethernet, bytes), &Nobody);
            completing += u64::from(decoded != Decoded::Held(Verdict::Fragment));
        }
        decoder.finish();
        let sum = completing + decoder.take_completed_fragments() + decoder.take_lost_fragments();
        prop_assert_eq!(sum, order.len() as u64);
    }
}

fn decoder() -> Decoder {
    Decoder::new(Config { media_rule: MediaRule::Anything as u8, ..Config::DEFAULT }, true)
}

fn frame(number: u64, time_ns: u64, link: LinkType, bytes: &[u8]) -> Frame<'_> {
    let wire_len = u32::try_from(bytes.len()).unwrap();
    Frame { time: Nanos(time_ns), number, interface: 0, link, bytes, wire_len }
}

fn datagrams() -> impl Strategy<Value = Datagram> {
    let fields = (any::<u16>(), any::<u16>(), any::<u16>(), any::<bool>(), 0..3_usize, 0..80_usize);
    fields.prop_map(|(src, dst, seq, v6, tags, length)| {
        let datagram = rtp().seq(seq).payload(&vec![0xd5; length]).over(udp().ports(src, dst).ip_id(seq));
        let datagram = (0..tags).fold(datagram, |datagram, tag| datagram.vlan([100, 200][tag]));
        if v6 { datagram.v6() } else { datagram }
    })
}

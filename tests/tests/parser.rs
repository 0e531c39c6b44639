//! The parser that runs in the kernel against etherparse: two readers of one format who never spoke to each other.
//!
//! Generated frames are valid, and the two must agree on everything. Frames of real captures are anything, and where
//! the two differ the reason must be one of [`reason`], which is checked against the frame and not merely assumed.
#![expect(clippy::unwrap_used, reason = "helpers of tests: a failure is a failed test")]

use std::collections::BTreeMap;
use std::net::IpAddr;

use etherparse::{LaxNetSlice, LaxSlicedPacket, NetSlice, SlicedPacket, TransportSlice};
use probe_ebpf::{Refusal, classify, parse};
use proptest::collection::vec;
use proptest::prelude::*;
use voxlab::captures::files_below;
use voxlab::frames::{Datagram, TCP, UDP, tcp, udp};
use voxprobe::capture::file::{Frames, LinkType};
use voxprobe::packet::Endpoint;

/// IP protocol number of IPsec's authentication header.
const AUTHENTICATION: u8 = 51;

/// What both say of a frame, in one vocabulary.
#[derive(Clone, Debug, PartialEq)]
struct Reading {
    /// VLAN identifiers, outermost first.
    vlans: Vec<u16>,
    src: probe_ebpf::EndpointKey,
    dst: probe_ebpf::EndpointKey,
    protocol: u8,
    fragmented: bool,
    /// Offset of the transport header.
    transport: usize,
    /// Its length and that of all that follows, by the IP header.
    transport_len: usize,
}

fn ours(frame: &[u8]) -> Result<Reading, Refusal> {
    let layers = parse::ethernet(frame)?;
    let tags = [layers.outer_vlan, layers.inner_vlan];
    Ok(Reading {
        vlans: tags.iter().take(layers.vlan_tags.into()).map(|tci| tci & 0x0fff).collect(),
        src: classify::source(frame, &layers).unwrap(),
        dst: classify::destination(frame, &layers).unwrap(),
        protocol: layers.protocol,
        fragmented: layers.fragment != parse::Fragment::None,
        transport: layers.transport,
        transport_len: layers.transport_len.into(),
    })
}

/// What etherparse says of a frame of IP that it accepts in full.
fn theirs(frame: &[u8]) -> Option<Reading> {
    let packet = SlicedPacket::from_ethernet(frame).ok()?;
    let (src, dst, payload): (IpAddr, IpAddr, _) = match packet.net.as_ref()? {
        NetSlice::Ipv4(ip) => {
            let header = ip.header();
            (header.source_addr().into(), header.destination_addr().into(), ip.payload())
        }
        NetSlice::Ipv6(ip) => {
            let header = ip.header();
            (header.source_addr().into(), header.destination_addr().into(), ip.payload())
        }
        NetSlice::Arp(_) => return None,
    };
    let ports = match &packet.transport {
        Some(TransportSlice::Udp(header)) => (header.source_port(), header.destination_port()),
        Some(TransportSlice::Tcp(header)) => (header.source_port(), header.destination_port()),
        _ => (0, 0),
    };
    let key = |address: IpAddr, port: u16| Endpoint::from(std::net::SocketAddr::new(address, port)).key();
    Some(Reading {
        vlans: packet.vlan_ids().iter().map(|id| id.value()).collect(),
        src: key(src, ports.0),
        dst: key(dst, ports.1),
        protocol: payload.ip_number.0,
        fragmented: payload.fragmented,
        transport: offset_within(frame, payload.payload),
        transport_len: payload.payload.len(),
    })
}

/// Where a part of `frame` begins.
fn offset_within(frame: &[u8], part: &[u8]) -> usize {
    part.as_ptr().addr() - frame.as_ptr().addr()
}

/// A frame of IP, and the field that makes it a fragment if it is one.
fn datagrams() -> impl Strategy<Value = Datagram> {
    let ports = (any::<u16>(), any::<u16>());
    let tags = vec((prop::sample::select(vec![0x8100_u16, 0x88a8, 0x9100]), any::<u16>()), 0..3);
    let payload = vec(any::<u8>(), 0..100);
    let bare = (any::<bool>(), ports, tags, payload, any::<[u8; 4]>()).prop_map(
        |(is_udp, ports, tags, payload, [ttl, tos, id_high, id_low])| {
            let datagram = if is_udp { udp() } else { tcp() }.ports(ports.0, ports.1).payload(&payload);
            let ip_id = u16::from_be_bytes([id_high, id_low]);
            let bare = Datagram { ttl, tos, ip_id, flow_label: u32::from(ip_id) << 4, ..datagram };
            tags.iter().fold(bare, |datagram, (ethertype, tci)| datagram.tag(*ethertype, *tci))
        },
    );
    (bare, network()).prop_map(|(bare, network)| match network {
        Network::V4 { option_words, field } => bare.ip_options(&vec![1; option_words * 4]).fragment(field),
        Network::V6 { before, field, behind } => {
            let extend =
                |datagram: Datagram, (number, octets): &(u8, Vec<u8>)| datagram.extension(*number, octets);
            let datagram = before.iter().fold(bare.v6(), extend);
            let datagram = field.into_iter().fold(datagram, Datagram::fragment_header);
            behind.iter().fold(datagram, extend)
        }
    })
}

/// The network layer to be.
#[derive(Clone, Debug)]
enum Network {
    V4 { option_words: usize, field: u16 },
    V6 { before: Vec<(u8, Vec<u8>)>, field: Option<u16>, behind: Vec<(u8, Vec<u8>)> },
}

fn network() -> impl Strategy<Value = Network> {
    let extension = prop_oneof![
        // Routing and destination options of any length; authentication in pairs of words, as IPv6 wants it.
        (prop::sample::select(vec![43_u8, 60]), 0..5_usize, any::<u8>()).prop_map(|(number, units, fill)| {
            let mut octets = vec![fill; 8 * (units + 1)];
            octets[1] = u8::try_from(units).unwrap();
            (number, octets)
        }),
        (1..4_usize, any::<u8>()).prop_map(|(pairs, fill)| {
            let mut octets = vec![fill; 8 * (pairs + 1)];
            octets[1] = u8::try_from(2 * pairs).unwrap();
            (51, octets)
        }),
    ];
    // Hop-by-hop options come first or not at all (RFC 8200, 4.1).
    let hop_by_hop = prop::option::of(Just((0_u8, vec![0_u8, 0, 1, 4, 0, 0, 0, 0])));
    let chain = (hop_by_hop, vec(extension.clone(), 0..3)).prop_map(|(first, mut rest)| {
        rest.splice(0..0, first);
        rest
    });
    let field4 = prop_oneof![Just(0), Just(0x4000), Just(0x2000), 1..0x4000_u16];
    let field6 = prop_oneof![Just(0), Just(1), (1..0x2000_u16).prop_map(|units| units << 3)];
    prop_oneof![
        (0..11_usize, field4).prop_map(|(option_words, field)| Network::V4 { option_words, field }),
        (chain, prop::option::of(field6), vec(extension, 0..3)).prop_map(|(before, field, behind)| {
            // Behind the header of a later fragment there is data, and no chain.
            let later = field.is_some_and(|field| field & 0xfff8 != 0);
            Network::V6 { before, field, behind: if later { Vec::new() } else { behind } }
        }),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 4_000, ..ProptestConfig::default() })]

    #[test]
    fn every_valid_frame_reads_the_same(datagram in datagrams()) {
        let frame = datagram.ethernet();
        let (ours, theirs) = (ours(&frame).unwrap(), theirs(&frame).unwrap());
        // etherparse reads no ports of a fragment; what was built says whether ours are right.
        if theirs.fragmented {
            prop_assert_eq!(without_ports(&ours), without_ports(&theirs));
            let first = (datagram.src.port().into(), datagram.dst.port().into());
            let expected = if is_first(&datagram) { first } else { (0, 0) };
            prop_assert_eq!((ours.src.port, ours.dst.port), expected);
        } else {
            prop_assert_eq!(ours, theirs);
        }
    }
}

/// Is its fragment offset zero?
fn is_first(datagram: &Datagram) -> bool {
    let header = datagram.extensions.iter().find(|(number, _)| *number == 44);
    match header {
        Some((_, octets)) => u16::from_be_bytes([octets[2], octets[3]]) >> 3 == 0,
        None => datagram.fragment << 3 == 0,
    }
}

fn without_ports(reading: &Reading) -> Reading {
    let mut reading = reading.clone();
    (reading.src.port, reading.dst.port) = (0, 0);
    reading
}

/// Does the UDP length field stay between its own header and the end of the IP datagram?
fn udp_length_fits(frame: &[u8], reading: &Reading) -> bool {
    let field = &frame[reading.transport + 4..reading.transport + 6];
    (8..=reading.transport_len).contains(&u16::from_be_bytes([field[0], field[1]]).into())
}

/// Why the two differ about a frame of a capture, if there is a reason to accept.
fn reason(frame: &[u8], ours: &Result<Reading, Refusal>, theirs: Option<&Reading>) -> Option<&'static str> {
    let lax = LaxSlicedPacket::from_ethernet(frame).ok();
    let net = lax.as_ref().and_then(|packet| packet.net.as_ref());
    match (ours, theirs) {
        (Err(Refusal::NotIp), None) if !matches!(net, Some(LaxNetSlice::Ipv4(_) | LaxNetSlice::Ipv6(_))) => {
            Some("neither reads it as IP")
        }
        (Err(_), None) => Some("both refuse it"),
        (Ok(ours), Some(theirs)) if theirs.fragmented && without_ports(ours) == without_ports(theirs) => {
            Some("ports of a first fragment, which etherparse does not read")
        }
        (Err(Refusal::Malformed), Some(theirs))
            if theirs.fragmented && theirs.protocol == TCP && theirs.transport_len < 20 =>
        {
            Some("a first fragment too small for the TCP header (RFC 1858), which we refuse")
        }
        (Ok(ours), None) if ours.transport + ours.transport_len > frame.len() => {
            Some("cut by the capture: we need the headers, etherparse all that the IP header claims")
        }
        (Ok(ours), None) if ours.protocol == UDP && !udp_length_fits(frame, ours) => {
            Some("the UDP length field lies; we take the IP header's word")
        }
        (Ok(ours), Some(_))
            if ours.protocol == AUTHENTICATION && matches!(net, Some(LaxNetSlice::Ipv4(_))) =>
        {
            Some("an authentication header in IPv4, which only etherparse steps over")
        }
        _ => None,
    }
}

#[test]
fn frames_of_real_captures_read_the_same_or_differ_for_a_known_reason() {
    let Some(folder) = voxlab::shared_captures() else { return };
    let (mut same, mut differing, mut unexplained) = (0_u64, BTreeMap::<_, u64>::new(), Vec::new());
    for file in files_below(&folder) {
        let Ok(mut frames) = Frames::open(&file) else { continue };
        while let Some(frame) = frames.next_frame() {
            if frame.link != LinkType::Ethernet {
                continue;
            }
            let (ours, theirs) = (ours(frame.bytes), theirs(frame.bytes));
            if ours.as_ref().ok() == theirs.as_ref() && theirs.is_some() {
                same += 1;
            } else if let Some(reason) = reason(frame.bytes, &ours, theirs.as_ref()) {
                *differing.entry(reason).or_default() += 1;
            } else {
                let name = file.strip_prefix(&folder).unwrap().display();
                unexplained.push(format!("{name} frame {}:\n  {ours:x?}\n  {theirs:x?}", frame.number));
            }
        }
    }
    eprintln!("{same} frames read the same; otherwise {differing:#?}");
    assert!(
        unexplained.is_empty(),
        "{} frames:\n{}",
        unexplained.len(),
        unexplained[..unexplained.len().min(20)].join("\n")
    );
    assert!(same > 10_000, "only {same} frames were read by both");
}

//! Openers on octets annotated by field, and on every way in which a field can lie.

use super::*;

/// 10.0.0.1 to 10.0.0.2, UDP, ports 5060, no payload.
const PACKET: [u8; 28] = [
    0x45, 0, 0, 28, 0, 1, 0, 0, 64, 17, 0, 0, // IPv4: 28 octets, UDP
    10, 0, 0, 1, 10, 0, 0, 2, // addresses
    0x13, 0xc4, 0x13, 0xc4, 0, 8, 0, 0, // ports, length, checksum
];
/// 2001:db8::1 to ::2, UDP.
const PACKET6: [u8; 48] = [
    0x60, 0, 0, 0, 0, 8, 17, 64, // IPv6: 8 octets, UDP
    0x20, 1, 0x0d, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, // source
    0x20, 1, 0x0d, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2, // destination
    0x13, 0xc4, 0x13, 0xc4, 0, 8, 0, 0, // ports, length, checksum
];
/// Where the inside is, what it begins with, and the session.
type Opened = Result<(usize, Begins, u32), Reason>;
const RAW: Begins = Begins::Link(LinkType::RawIp);
const ETHERNET: Begins = Begins::Link(LinkType::Ethernet);

fn frame() -> Vec<u8> {
    [&[2, 0, 0, 0, 0, 2, 2, 0, 0, 0, 0, 1, 8, 0], &PACKET[..]].concat()
}

fn opened(begins: Begins, bytes: &[u8]) -> Result<Step, Reason> {
    open(begins, Region::new(bytes, bytes.len()), None)
}

/// What `header` before `inside` opens to: where the inside is, what it begins with, the session.
fn opens(begins: Begins, header: &[u8], inside: &[u8]) -> Opened {
    let bytes = [header, inside].concat();
    let step = opened(begins, &bytes)?;
    assert_eq!(step.claimed, bytes.len() - step.skip, "the inside is the rest");
    Ok((step.skip, step.begins, step.session))
}

#[test]
fn gre_is_opened_by_its_flags_and_refused_by_every_reserved_bit() {
    let gre = Begins::Gre;
    let bridged = frame();
    let table: [(&[u8], &[u8], Opened); 13] = [
        (&[0, 0, 8, 0], &PACKET, Ok((4, RAW, 0))),
        (&[0, 0, 0x86, 0xdd], &PACKET6, Ok((4, RAW, 0))),
        (&[0, 0, 0x65, 0x58], &bridged, Ok((4, ETHERNET, 0))),
        // Key and sequence.
        (&[0x30, 0, 8, 0, 0, 0, 0, 7, 0, 0, 0, 1], &PACKET, Ok((12, RAW, 7))),
        (&[0, 0, 0x88, 0xbe], &bridged, Ok((4, Begins::Erspan(Erspan::One), 0))),
        (&[0x10, 0, 0x88, 0xbe, 0, 0, 0, 1], &bridged, Ok((8, Begins::Erspan(Erspan::Two), 0))),
        // Version 1, which is PPTP's; routing; recursion; flags.
        (&[0x20, 1, 0x88, 0x0b, 0, 0, 0, 7], &PACKET, Err(Reason::Version)),
        (&[0x40, 0, 8, 0, 0, 0, 0, 0], &PACKET, Err(Reason::Unsupported)),
        (&[0x01, 0, 8, 0], &PACKET, Err(Reason::Reserved)),
        (&[0, 0x08, 8, 0], &PACKET, Err(Reason::Reserved)),
        // A checksum that is wrong; an inside that is not what is said; nothing known.
        (&[0x80, 0, 8, 0, 0x12, 0x34, 0, 0], &PACKET, Err(Reason::Checksum)),
        (&[0, 0, 0x86, 0xdd], &PACKET, Err(Reason::Version)),
        (&[0, 0, 0x20, 0], &PACKET, Err(Reason::Unsupported)),
    ];
    for (header, inside, expected) in table {
        assert_eq!(opens(gre, header, inside), expected, "{header:02x?}");
    }
}

#[test]
fn erspan_is_opened_by_version_and_frame_type() {
    let bridged = frame();
    let second = Begins::Erspan(Erspan::Two);
    let third = Begins::Erspan(Erspan::Three);
    // Version and VLAN; class, truncated, session; index.
    assert_eq!(opens(second, &[0x10, 100, 0x04, 0x05, 0, 0, 0, 7], &bridged), Ok((8, ETHERNET, 5)));
    assert_eq!(opens(second, &[0x20, 100, 0, 5, 0, 0, 0, 7], &bridged), Err(Reason::Version));
    // Version and VLAN; session; timestamp; group; frame type and whether a subheader follows.
    let header = |last: [u8; 2]| [&[0x20, 0, 0, 9, 1, 2, 3, 4, 0, 0], &last[..]].concat();
    assert_eq!(opens(third, &header([0, 0]), &bridged), Ok((12, ETHERNET, 9)));
    assert_eq!(opens(third, &[header([0, 1]), vec![0xcc; 8]].concat(), &bridged), Ok((20, ETHERNET, 9)));
    assert_eq!(opens(third, &header([2 << 2, 0]), &PACKET), Ok((12, RAW, 9)));
    assert_eq!(opens(third, &header([7 << 2, 0]), &bridged), Err(Reason::Unsupported));
    assert_eq!(opens(third, &header([0, 1]), &bridged), Err(Reason::NotIp));
}

#[test]
fn vxlan_needs_its_flag_and_no_other() {
    let bridged = frame();
    let header = |flags: u8, policy: [u8; 3], last: u8| {
        let [a, b, c] = policy;
        [flags, a, b, c, 0, 0, 42, last]
    };
    let table = [
        (header(0x08, [0; 3], 0), Ok((8, ETHERNET, 42))),
        // Group policy.
        (header(0x88, [0, 0, 7], 0), Ok((8, ETHERNET, 42))),
        (header(0x00, [0; 3], 0), Err(Reason::Version)),
        (header(0x80, [0; 3], 0), Err(Reason::Version)),
        // The inside said: Ethernet, and something else.
        (header(0x0c, [0, 0, 3], 0), Ok((8, ETHERNET, 42))),
        (header(0x0c, [0, 0, 4], 0), Err(Reason::Unsupported)),
        (header(0x0c, [0, 1, 3], 0), Err(Reason::Reserved)),
        (header(0x09, [0; 3], 0), Err(Reason::Reserved)),
        (header(0x08, [0, 0, 7], 0), Err(Reason::Reserved)),
        (header(0x08, [0; 3], 1), Err(Reason::Reserved)),
    ];
    for (header, expected) in table {
        assert_eq!(opens(Begins::Vxlan, &header, &bridged), expected, "{header:02x?}");
    }
    assert_eq!(opens(Begins::Vxlan, &header(8, [0; 3], 0), &PACKET), Err(Reason::NotIp));
    assert_eq!(opens(Begins::Vxlan, &header(0x0c, [0, 0, 1], 0), &PACKET), Ok((8, RAW, 42)));
}

#[test]
fn geneve_options_fill_their_room_exactly() {
    let bridged = frame();
    let header = |words: u8, flags: u8, protocol: [u8; 2]| {
        let [p0, p1] = protocol;
        vec![words, flags, p0, p1, 0, 0, 42, 0]
    };
    let option = |words: u8| [&[1, 2, 3, words][..], &vec![0xee; usize::from(words) * 4]].concat();
    let two = [header(5, 0, [0x65, 0x58]), option(1), option(2)].concat();
    assert_eq!(opens(Begins::Geneve, &two, &bridged), Ok((28, ETHERNET, 42)));
    let lying = [header(5, 0, [0x65, 0x58]), option(1), vec![1, 2, 3, 9], vec![0; 8]].concat();
    assert_eq!(opens(Begins::Geneve, &lying, &bridged), Err(Reason::Length));
    assert_eq!(opens(Begins::Geneve, &header(0, 0, [8, 0]), &PACKET), Ok((8, RAW, 42)));
    assert_eq!(opens(Begins::Geneve, &header(0, 0x80, [8, 0]), &PACKET), Err(Reason::Unsupported));
    assert_eq!(opens(Begins::Geneve, &header(0, 1, [8, 0]), &PACKET), Err(Reason::Reserved));
    assert_eq!(opens(Begins::Geneve, &header(0x40, 0, [8, 0]), &PACKET), Err(Reason::Version));
}

#[test]
fn gtp_follows_its_extension_headers_and_takes_only_user_packets() {
    let header = |flags: u8, kind: u8, more: &[u8]| {
        let length = u8::try_from(more.len() + PACKET.len()).unwrap();
        [&[flags, kind, 0, length, 1, 2, 3, 4], more].concat()
    };
    let gtp = Begins::Gtp;
    assert_eq!(opens(gtp, &header(0x30, 255, &[]), &PACKET), Ok((8, RAW, 0)));
    assert_eq!(opens(gtp, &header(0x32, 255, &[0, 9, 0, 0]), &PACKET), Ok((12, RAW, 0)));
    // Two extensions: one of one word, one of two.
    let extensions = [0, 0, 0, 0x85, 1, 0, 5, 0xc0, 2, 0, 0, 0, 0, 0, 0, 0];
    assert_eq!(opens(gtp, &header(0x34, 255, &extensions), &PACKET), Ok((24, RAW, 0)));
    assert_eq!(opens(gtp, &header(0x34, 255, &[0, 0, 0, 0x85, 0, 0, 5, 0]), &PACKET), Err(Reason::Length));
    assert_eq!(opens(gtp, &header(0x30, 1, &[]), &PACKET), Err(Reason::Unsupported));
    assert_eq!(opens(gtp, &header(0x48, 255, &[]), &PACKET), Err(Reason::Version));
    assert_eq!(opens(gtp, &header(0x38, 255, &[]), &PACKET), Err(Reason::Reserved));
    // A length beyond the datagram; a chain of extensions without an end.
    assert_eq!(opens(gtp, &[0x30, 255, 1, 0, 1, 2, 3, 4], &PACKET), Err(Reason::Length));
    let endless: Vec<u8> = [&[0, 0, 0, 0x85][..], &[1, 0, 5, 0x85].repeat(20)].concat();
    assert_eq!(opens(gtp, &header(0x34, 255, &endless), &PACKET), Err(Reason::TooDeep));
}

#[test]
fn labels_are_followed_by_ip_or_by_a_pseudowire() {
    let bridged = frame();
    // Label 1000, not the last; label 17, the last.
    let stack = [0, 0x3e, 0x80, 64, 0, 1, 0x11, 64];
    let mpls = Begins::Mpls;
    assert_eq!(opens(mpls, &stack, &PACKET), Ok((8, RAW, 0)));
    assert_eq!(opens(mpls, &stack, &PACKET6), Ok((8, RAW, 0)));
    assert_eq!(opens(mpls, &stack, &bridged), Ok((8, ETHERNET, 0)));
    assert_eq!(opens(mpls, &[&stack[..], &[0, 0, 0, 1]].concat(), &bridged), Ok((12, ETHERNET, 0)));
    // A MAC that begins like IPv4 is a MAC if what follows is no IPv4 header that fits.
    let mut like_ip = bridged.clone();
    like_ip[..6].copy_from_slice(&[0x45, 0, 0xff, 0xff, 0, 1]);
    assert_eq!(opens(mpls, &stack, &like_ip), Ok((8, ETHERNET, 0)));
    // Explicit null of IPv6 before IPv4; router alert; a stack without an end.
    assert_eq!(opens(mpls, &[0, 0, 0x21, 64], &PACKET), Err(Reason::Version));
    assert_eq!(opens(mpls, &[0, 0, 0x11, 64], &PACKET), Err(Reason::Reserved));
    assert_eq!(opens(mpls, &[0, 0x3e, 0x80, 64].repeat(17), &PACKET), Err(Reason::TooDeep));
    assert_eq!(opens(mpls, &stack, &[0x12; 40]), Err(Reason::NotIp));
}

#[test]
fn ppp_may_be_compressed_in_every_way() {
    let length = |more: usize| u8::try_from(PACKET.len() + more).unwrap();
    let pppoe = |ppp: &[u8]| [&[0x11, 0, 0, 9, 0, length(ppp.len())], ppp].concat();
    for (ppp, skip) in [(&[0, 0x21][..], 8), (&[0x21], 7), (&[0xff, 3, 0, 0x21], 10), (&[0xff, 3, 0x21], 9)] {
        assert_eq!(opens(Begins::Pppoe, &pppoe(ppp), &PACKET), Ok((skip, RAW, 9)), "{ppp:02x?}");
    }
    // A control protocol; discovery; no session; a length beyond the frame.
    assert_eq!(opens(Begins::Pppoe, &pppoe(&[0xc0, 0x21]), &PACKET), Err(Reason::NotIp));
    assert_eq!(opens(Begins::Pppoe, &[0x11, 9, 0, 9, 0, 30, 0, 0x21], &PACKET), Err(Reason::Unsupported));
    assert_eq!(opens(Begins::Pppoe, &[0x11, 0, 0, 0, 0, 30, 0, 0x21], &PACKET), Err(Reason::Reserved));
    assert_eq!(opens(Begins::Pppoe, &[0x11, 0, 0, 9, 0, 31, 0, 0x21], &PACKET), Err(Reason::Length));
    // Padding of a short Ethernet frame is not inside.
    let padded = [&pppoe(&[0, 0x21])[..], &PACKET, &[0; 6]].concat();
    assert_eq!(opened(Begins::Pppoe, &padded).map(|step| step.claimed), Ok(PACKET.len()));
}

#[test]
fn l2tp_fields_are_where_its_flags_say() {
    let l2tp = Begins::L2tp;
    let session = 0x000b_0016;
    let ids = [0, 11, 0, 22];
    let bare = [&[0, 2][..], &ids, &[0, 0x21]].concat();
    assert_eq!(opens(l2tp, &bare, &PACKET), Ok((8, RAW, session)));
    let length = u8::try_from(2 + 2 + 4 + 4 + 2 + 3 + 2 + PACKET.len()).unwrap();
    // Length, sequence, an offset of three, PPP.
    let full = [&[0x4a, 2, 0, length][..], &ids, &[0, 1, 0, 0, 0, 3, 9, 9, 9, 0, 0x21]].concat();
    assert_eq!(opens(l2tp, &full, &PACKET), Ok((19, RAW, session)));
    assert_eq!(opens(l2tp, &[&[0, 3][..], &ids, &[0, 0x21]].concat(), &PACKET), Err(Reason::Version));
    assert_eq!(opens(l2tp, &[&[0x10, 2][..], &ids, &[0, 0x21]].concat(), &PACKET), Err(Reason::Reserved));
    assert_eq!(opens(l2tp, &[&[0xc8, 2, 0, 12][..], &ids, &[0; 4]].concat(), &[]), Err(Reason::Unsupported));
    assert_eq!(opens(l2tp, &[0, 2, 0, 0, 0, 22, 0, 0x21], &PACKET), Err(Reason::Reserved));
}

#[test]
fn tzsp_fields_are_walked_to_their_end() {
    let bridged = frame();
    let tzsp = Begins::Tzsp;
    // Received, Ethernet; padding, a field of one octet, end.
    assert_eq!(opens(tzsp, &[1, 0, 0, 1, 0, 10, 1, 0x7f, 1], &bridged), Ok((9, ETHERNET, 0)));
    assert_eq!(opens(tzsp, &[1, 0, 0, 18, 1], &bridged), Err(Reason::Unsupported));
    assert_eq!(opens(tzsp, &[1, 4, 0, 1, 1], &bridged), Err(Reason::Unsupported));
    assert_eq!(opens(tzsp, &[2, 0, 0, 1, 1], &bridged), Err(Reason::Version));
    assert_eq!(opens(tzsp, &[&[1, 0, 0, 1][..], &[0; 100]].concat(), &bridged), Err(Reason::TooDeep));
    assert_eq!(opens(tzsp, &[1, 0, 0, 1, 10, 255], &bridged), Err(Reason::Length));
}

#[test]
fn teredo_fills_its_datagram_behind_its_indications() {
    let teredo = Begins::Teredo;
    assert_eq!(opens(teredo, &[], &PACKET6), Ok((0, RAW, 0)));
    // Authentication with an identifier of two octets, then an origin.
    let authentication = [&[0, 1, 2, 0, 7, 7][..], &[0x11; 8], &[0]].concat();
    let origin = [0, 0, 1, 2, 3, 4, 5, 6];
    assert_eq!(opens(teredo, &[&authentication[..], &origin].concat(), &PACKET6), Ok((23, RAW, 0)));
    assert_eq!(opens(teredo, &[], &[&PACKET6[..], &[0]].concat()), Err(Reason::Length));
    assert_eq!(opens(teredo, &[], &PACKET), Err(Reason::Version));
}

#[test]
fn an_inner_length_beyond_its_carrier_is_a_lie_but_for_mirrors() {
    let mut long = PACKET;
    long[3] = 200;
    assert_eq!(opened(Begins::IpInIp(IpVersion::V4), &long), Err(Reason::Length));
    assert_eq!(opens(Begins::Gre, &[0, 0, 8, 0], &long), Err(Reason::Length));
    let mut mirrored = frame();
    mirrored[17] = 200;
    assert_eq!(opens(Begins::Vxlan, &[8, 0, 0, 0, 0, 0, 1, 0], &mirrored), Ok((8, ETHERNET, 1)));
    // Cut by the capture, not by the carrier.
    let region = Region::new(&PACKET[..24], PACKET.len());
    assert_eq!(open(Begins::IpInIp(IpVersion::V4), region, None).map(|step| step.claimed), Ok(PACKET.len()));
}

#[test]
fn an_rpcap_datagram_is_one_whole_packet_message() {
    let bridged = frame();
    let message = |kind: u8, value: u8, captured: u8, micros: u32, wire: u8| {
        [
            &[0, kind, 0, value, 0, 0, 0, captured + 20][..],
            &7_u32.to_be_bytes(), // seconds
            &micros.to_be_bytes(),
            &[0, 0, 0, captured, 0, 0, 0, wire], // lengths
            &[0, 0, 0, 1],                       // number
        ]
        .concat()
    };
    let length = u8::try_from(bridged.len()).unwrap();
    let good = [message(7, 0, length, 5, length + 9), bridged.clone()].concat();
    let step = opened(Begins::Rpcap, &good).unwrap();
    assert_eq!((step.skip, step.begins, step.tap_time), (28, ETHERNET, Some(Nanos(7_000_005_000))));
    assert_eq!(step.claimed, usize::from(length) + 9);
    for (message, reason) in [
        (message(9, 0, length, 5, length), Reason::Unsupported),
        (message(7, 1, length, 5, length), Reason::Version),
        (message(7, 0, length, 1_000_000, length), Reason::Length),
        (message(7, 0, length, 5, length - 1), Reason::Length),
        (message(7, 0, length - 1, 5, length), Reason::Length),
    ] {
        assert_eq!(opened(Begins::Rpcap, &[message, bridged.clone()].concat()), Err(reason));
    }
}

#[test]
fn links_are_told_apart_by_what_they_hold() {
    let cooked = [&[0, 0, 0, 1, 0, 6, 2, 0, 0, 0, 0, 1, 0, 0, 8, 0][..], &PACKET].concat();
    let cooked2 = [&[8, 0, 0, 0, 0, 0, 0, 2, 0, 1, 0, 6, 2, 0, 0, 0, 0, 1, 0, 0][..], &PACKET].concat();
    let arp = [&[0xff; 12][..], &[8, 6], &[0; 28]].concat();
    let table = [
        (frame(), Some(LinkType::Ethernet)),
        (PACKET.to_vec(), Some(LinkType::RawIp)),
        (PACKET6.to_vec(), Some(LinkType::RawIp)),
        (cooked, Some(LinkType::LinuxCooked)),
        (cooked2, Some(LinkType::LinuxCooked2)),
        (arp, None),
    ];
    for (bytes, expected) in table {
        assert_eq!(guess_link(Region::new(&bytes, bytes.len())), expected, "{bytes:02x?}");
    }
}

#[test]
fn hep_is_read_chunk_by_chunk() {
    let chunk = |vendor: u8, kind: u8, value: &[u8]| {
        [&[0, vendor, 0, kind, 0, u8::try_from(6 + value.len()).unwrap()], value].concat()
    };
    let message = |chunks: &[Vec<u8>]| {
        let chunks = chunks.concat();
        [&b"HEP3"[..], &u16::try_from(6 + chunks.len()).unwrap().to_be_bytes(), &chunks].concat()
    };
    let base = || {
        vec![
            chunk(0, 3, &[10, 0, 0, 1]),
            chunk(0, 4, &[10, 0, 0, 2]),
            chunk(0, 7, &[0x13, 0xc4]),
            chunk(0, 8, &[0x13, 0xc5]),
            chunk(0, 11, &[1]),
            // Another vendor's chunk of the number that is compressed payload here.
            chunk(9, 16, &[1, 2, 3]),
            chunk(0, 12, &[0, 0, 0, 77]),
            chunk(0, 18, &[0, 100]),
        ]
    };
    let read = |bytes: &[u8]| hep::read(Region::new(bytes, bytes.len()));
    let bytes = message(&[base(), vec![chunk(0, 15, b"SIP")]].concat());
    let got = read(&bytes).unwrap();
    assert_eq!(
        (got.flow.src.to_string(), got.flow.dst.to_string()),
        ("10.0.0.1:5060".into(), "10.0.0.2:5061".into())
    );
    assert_eq!(
        (&bytes[got.payload], got.agent, got.vlan, got.carries),
        (&b"SIP"[..], 77, Some(100), hep::Carries::Sip)
    );
    let with = |extra: Vec<u8>| read(&message(&[base(), vec![extra]].concat()));
    // Compressed; without payload; RTCP that is none; a field of the wrong length.
    assert_eq!(with(chunk(0, 16, &[0x1f, 0x8b])), Err(Reason::Unsupported));
    assert_eq!(with(chunk(0, 1, &[2])), Err(Reason::Length));
    let json = [base(), vec![chunk(0, 11, &[5]), chunk(0, 15, b"{\"a\":1}")]].concat();
    assert_eq!(read(&message(&json)), Err(Reason::Unsupported));
    assert_eq!(with(chunk(0, 3, &[10, 0, 0])), Err(Reason::Length));
    // Lengths that lie.
    let mut zero = bytes.clone();
    zero[10..12].copy_from_slice(&[0, 0]);
    assert_eq!(read(&zero), Err(Reason::Length));
    let mut beyond = bytes.clone();
    beyond[5] += 1;
    assert_eq!(read(&beyond), Err(Reason::Length));
    assert_eq!(read(b"HEP2abcdef"), Err(Reason::Version));
}

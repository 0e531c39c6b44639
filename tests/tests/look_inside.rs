//! The kernel's look inside of tunnels: what is ours is always forwarded, and others' traffic is left where it is.
//!
//! The frames are put together by code that shares nothing with the parser; what is left in real captures is given to
//! the decoder that opens everything, which must find nothing.

use probe_ebpf::config::MediaRule;
use probe_ebpf::{Config, EndpointKey, Endpoints, Verdict, classify};
use voxlab::captures::files_below;
use voxlab::frames::{Datagram, invite, rtcp, rtp, sip, tcp, udp};
use voxlab::tunnels::{GRE, Tunnel, tunnel};
use voxprobe::capture::file::{Frame, Frames, LinkType};
use voxprobe::decode::{Decoded, Decoder};
use voxprobe::packet::{Endpoint, Nanos};

const LIVE: Config = Config::DEFAULT.looking_inside();
/// Tunnels that are looked into.
const TOLD: [Tunnel; 7] = [
    Tunnel::IpIp,
    Tunnel::Gre,
    Tunnel::GreBridged,
    Tunnel::Erspan2,
    Tunnel::Vxlan,
    Tunnel::Geneve,
    Tunnel::Gtp,
];

/// Announced endpoints.
struct Announced(Vec<EndpointKey>);

impl Endpoints for Announced {
    fn is_announced(&self, key: &EndpointKey) -> bool {
        self.0.contains(key)
    }
}

fn verdict(frame: &[u8]) -> Verdict {
    classify::ethernet(frame, &LIVE, &Announced(Vec::new())).0
}

/// Each tunnel that can carry it, MPLS and PPPoE among them.
fn carried(inner: &Datagram) -> Vec<(String, Vec<u8>)> {
    let kinds = Tunnel::ALL.into_iter().filter(|kind| kind.carries(inner));
    let mut frames: Vec<_> = kinds
        .flat_map(|kind| {
            let outer = kind.carry(inner, 1, 1, tunnel());
            let v6 = kind.carry(inner, 1, 1, tunnel().v6());
            [("", outer.clone()), (" in a VLAN", outer.vlan(9)), (" over IPv6", v6)]
                .map(|(how, outer)| (format!("{}{how}", kind.name()), outer.ethernet()))
        })
        .collect();
    for labels in [&[16][..], &[16, 17, 18, 19], &[16, 17, 18, 19, 20]] {
        frames.push((format!("{} labels", labels.len()), inner.clone().mpls(labels).ethernet()));
    }
    frames.push(("pppoe".to_owned(), inner.clone().pppoe(7).ethernet()));
    frames
}

#[test]
fn what_is_ours_is_forwarded_from_every_tunnel() {
    let media = || rtp().varied(160).over(udp());
    let ours = [
        ("SIP", sip(&invite(400))),
        ("SIP over TCP", tcp().ports(40_000, 5060).payload(b"OPTIONS sip:a SIP/2.0\r\n\r\n")),
        ("RTP", media()),
        ("RTP in a VLAN", media().vlan(3)),
        ("RTP behind IP options", media().ip_options(&[1; 40])),
        ("RTCP", udp().ports(20_000, 30_001).payload(&rtcp())),
        ("a fragment", udp().fragment(0x2000).fragment_header(1).payload(&[0; 64])),
        ("a remote capture", tcp().ports(2002, 40_000).payload(&[0; 200])),
        ("GRE", udp().protocol(GRE).payload(&[0; 60])),
        ("VXLAN", udp().ports(40_000, 4789).payload(&[0; 60])),
    ];
    for (name, inner) in
        ours.into_iter().flat_map(|(name, inner)| [(name, inner.clone()), (name, inner.v6())])
    {
        for (how, frame) in carried(&inner) {
            assert_eq!(verdict(&frame), Verdict::Tunnel, "{name} in {how}");
        }
        // A tunnel in a tunnel, each in each.
        for outer in Tunnel::ALL {
            for kind in Tunnel::ALL.into_iter().filter(|kind| kind.carries(&inner)) {
                let middle = kind.carry(&inner, 1, 1, tunnel());
                if outer.carries(&middle) {
                    let frame = outer.carry(&middle, 1, 1, tunnel()).ethernet();
                    assert_eq!(verdict(&frame), Verdict::Tunnel, "{name} in {kind:?} in {outer:?}");
                }
            }
        }
    }
}

#[test]
fn traffic_of_others_is_left_in_the_tunnels_that_are_looked_into() {
    let others = [
        ("HTTPS", tcp().ports(40_000, 443).payload(&[0x17; 900]), Verdict::OtherTcp),
        ("DNS", udp().ports(40_000, 53).payload(&[0x12; 40]), Verdict::OtherUdp),
        ("SIP without data", tcp().ports(40_000, 5060), Verdict::SipTcpEmpty),
    ];
    for (name, inner, own) in others
        .into_iter()
        .flat_map(|(name, inner, own)| [(name, inner.clone(), own), (name, inner.v6(), own)])
    {
        for kind in Tunnel::ALL.into_iter().filter(|kind| kind.carries(&inner)) {
            let expected = if TOLD.contains(&kind) { own } else { Verdict::Tunnel };
            for outer in [tunnel(), tunnel().vlan(4), tunnel().v6()] {
                let frame = kind.carry(&inner, 1, 1, outer).ethernet();
                assert_eq!(verdict(&frame), expected, "{name} in {kind:?}");
                // Files are not looked at so: a SIP message on any port is found there.
                let (in_file, _) =
                    classify::ethernet(frame.as_slice(), &Config::DEFAULT, &Announced(Vec::new()));
                assert_eq!(in_file, Verdict::Tunnel, "{name} in {kind:?}");
            }
        }
        assert_eq!(verdict(&inner.clone().mpls(&[16, 17, 18, 19]).ethernet()), own, "{name} in MPLS");
        assert_eq!(verdict(&inner.clone().mpls(&[16; 5]).ethernet()), Verdict::Tunnel, "{name} in MPLS");
        assert_eq!(verdict(&inner.clone().pppoe(7).ethernet()), own, "{name} in PPPoE");
        assert_eq!(verdict(&inner.pppoe(7).vlan(5).ethernet()), own, "{name} in PPPoE");
    }
}

#[test]
fn media_announced_inside_of_a_tunnel_is_forwarded_whatever_its_port() {
    let strict = Config { media_rule: MediaRule::Announced as u8, ..LIVE };
    let inner = rtp().varied(160).over(udp());
    let announced = Announced(vec![Endpoint::from(inner.dst).key()]);
    let frame = Tunnel::Vxlan.carry(&inner, 1, 1, tunnel()).ethernet();
    assert_eq!(classify::ethernet(frame.as_slice(), &strict, &announced).0, Verdict::Tunnel);
    let nobody = Announced(Vec::new());
    assert_eq!(classify::ethernet(frame.as_slice(), &strict, &nobody).0, Verdict::OtherUdp);
}

#[test]
fn doubt_forwards() {
    let web = tcp().ports(40_000, 443).payload(&[0x17; 900]);
    let outer = |kind: Tunnel| kind.carry(&web, 1, 1, tunnel()).payload;
    let gre = |payload: Vec<u8>| tunnel().protocol(GRE).payload(&payload);
    let to = |port: u16, payload: Vec<u8>| {
        let mut outer = tunnel().payload(&payload);
        outer.dst.set_port(port);
        outer
    };
    let with = |kind: Tunnel, at: usize, octet: u8| {
        let mut payload = outer(kind);
        payload[at] = octet;
        payload
    };
    let doubtful = [
        ("GRE version 1", gre(with(Tunnel::Gre, 1, 1))),
        ("GRE with source routes", gre(with(Tunnel::Gre, 0, 0x40))),
        ("GRE of something else", gre(with(Tunnel::Gre, 2, 0x88))),
        ("GRE of no IP version", gre(with(Tunnel::Gre, 4, 0x75))),
        ("VXLAN with policy bits", to(4789, with(Tunnel::Vxlan, 0, 0x88))),
        ("VXLAN on a port of its own", to(4_790, outer(Tunnel::Vxlan))),
        ("Geneve version 1", to(6081, with(Tunnel::Geneve, 0, 0x40))),
        ("GTP, echo request", to(2152, with(Tunnel::Gtp, 1, 1))),
        ("GTP version 2", to(2152, with(Tunnel::Gtp, 0, 0x50))),
        ("media on GTP's port", rtp().varied(160).over(to(2152, Vec::new()))),
    ];
    let mut config = LIVE;
    config.tunnel_ports[9] = 4_790;
    for (name, datagram) in doubtful {
        let frame = datagram.ethernet();
        let (verdict, _) = classify::ethernet(frame.as_slice(), &config, &Announced(Vec::new()));
        assert_eq!(verdict, Verdict::Tunnel, "{name}");
    }
    // Cut anywhere inside, there is nothing to be sure of.
    let frame = Tunnel::Gre.carry(&web, 1, 1, tunnel()).ethernet();
    let inner_ports = 14 + 20 + 4 + 20 + 20;
    for length in 14 + 20..inner_ports {
        assert_eq!(verdict(&frame[..length]), Verdict::Tunnel, "{length}");
    }
    assert_eq!(verdict(&frame[..inner_ports]), Verdict::OtherTcp);
}

/// MPLS before an Ethernet frame, without a control word.
fn pseudowire(inner: &[u8]) -> Vec<u8> {
    let outer = udp().mpls(&[16, 17]).ethernet();
    [&outer[..14 + 8], inner].concat()
}

#[test]
fn a_pseudowire_whose_macs_look_like_an_ip_header_is_forwarded() {
    // Read as IPv6: hop-by-hop options (00:1b: ...), then what the UDP checksum says, which is UDP or TCP in one frame of 128.
    let inner = |payload: u8| {
        let media = rtp().varied(160 + usize::from(payload)).over(udp());
        media.macs([0x00, 0x1b, 0x21, 3, 4, 5], [0x68, 0xef, 0xbd, 0, 0xff, 0xff]).ethernet()
    };
    // Read as IPv4: version 4, six words, UDP.
    let v4 = rtp().varied(160).over(udp());
    let v4 = v4.macs([0x40, 0, 0x21, 0x11, 4, 5], [0x46, 0xef, 0, 0xff, 0xff, 0xff]).ethernet();
    for frame in (0..=u8::MAX).map(inner).chain([v4]) {
        for checksum in [6, 17] {
            let mut frame = pseudowire(&frame);
            frame[22 + 40] = checksum;
            let mut decoder = Decoder::new(Config::DEFAULT, false);
            let whole = Frame {
                time: Nanos(1),
                number: 1,
                interface: 0,
                link: LinkType::Ethernet,
                wire_len: u32::try_from(frame.len()).unwrap(),
                bytes: &frame,
            };
            let decoded = decoder.frame(&whole, &Announced(Vec::new()));
            assert!(matches!(decoded, Decoded::Rtp(_)), "{decoded:?}");
            assert_eq!(verdict(&frame), Verdict::Tunnel, "{frame:02x?}");
        }
    }
}

#[test]
fn what_is_left_in_real_captures_holds_nothing_of_ours() {
    let Some(folder) = voxlab::shared_captures() else { return };
    let (mut left, mut forwarded) = (0_u32, 0_u32);
    for file in files_below(&folder) {
        let Ok(mut frames) = Frames::open(&file) else { continue };
        while let Some(frame) = frames.next_frame() {
            let with_all = classify::ethernet(frame.bytes, &Config::DEFAULT, &Announced(Vec::new())).0;
            if frame.link != LinkType::Ethernet || with_all != Verdict::Tunnel {
                continue;
            }
            if verdict(frame.bytes) == Verdict::Tunnel {
                forwarded += 1;
                continue;
            }
            left += 1;
            // Two addresses in time, as a decoder that saw nothing before.
            let alone = Frame { time: Nanos(1), number: 1, ..frame };
            let mut decoder = Decoder::new(Config::DEFAULT, false);
            let decoded = decoder.frame(&alone, &Announced(Vec::new()));
            let is_nothing = matches!(decoded, Decoded::Nothing(_));
            assert!(is_nothing, "{} frame {}: {decoded:?}", file.display(), frame.number);
        }
    }
    eprintln!("of the tunnels in the captures, {forwarded} frames are forwarded, {left} are left");
    assert!(left > 100 && forwarded > 100, "{left} left, {forwarded} forwarded");
}

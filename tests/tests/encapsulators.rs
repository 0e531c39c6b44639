//! The encapsulators against tshark: a tunnel that tshark opens and finds nothing wrong with is built right.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::path::Path;
use std::process::Command;

use voxlab::captures::{Scratch, Writer};
use voxlab::frames::{Datagram, rtcp, sip, udp};
use voxlab::privileges::skipped;
use voxlab::tunnels::{
    RpcapSession, Tunnel, erspan3, geneve, geneve_ip, gre, gre_bridged, gtp, hep, ip_in_ip, l2tp, teredo,
    tunnel, tzsp, vxlan,
};

const START_NS: u64 = 1_700_000_000_123_456_000;
const OPTIONS: &str = "OPTIONS sip:a SIP/2.0\r\nVia: SIP/2.0/UDP a;branch=z9hG4bK-1\r\nFrom: <sip:a>;tag=1\r\n\
                       To: <sip:b>\r\nCall-ID: c\r\nCSeq: 1 OPTIONS\r\nMax-Forwards: 70\r\nContent-Length: 0\r\n\r\n";

/// What tshark says of each frame: the innermost protocols, and what it complains about.
fn dissected(path: &Path) -> Option<Vec<Vec<String>>> {
    const FIELDS: [&str; 6] = [
        "frame.protocols",
        "_ws.malformed",
        "ip.checksum.status",
        "udp.checksum.status",
        "tcp.checksum.status",
        "_ws.expert",
    ];
    let mut command = Command::new("tshark");
    command.args(["-n", "-r"]).arg(path).args(["-T", "fields", "-E", "separator=;"]);
    for preference in [
        "ip.check_checksum:TRUE",
        "udp.check_checksum:TRUE",
        "tcp.check_checksum:TRUE",
        // Ethernet, where no OPEN reply says so, as over UDP.
        "rpcap.linktype:1",
    ] {
        command.args(["-o", preference]);
    }
    for field in FIELDS {
        command.args(["-e", field]);
    }
    let output = match command.output() {
        Ok(output) => output,
        Err(error) => {
            skipped("encapsulators", &format!("tshark cannot be started: {error}"));
            return None;
        }
    };
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8(output.stdout).unwrap();
    Some(text.lines().map(|line| line.split(';').map(str::to_owned).collect()).collect())
}

/// Frames, each with what its path of protocols must contain and end with. Nothing may be malformed, and no
/// checksum wrong.
fn all_are_opened(name: &str, frames: &[(String, Vec<u8>, String, &str)]) {
    let scratch = Scratch::new(name).unwrap();
    let timed: Vec<_> =
        (0..).zip(frames).map(|(at, (_, bytes, ..))| (START_NS + at * 1_000, bytes.clone())).collect();
    let path = scratch.file("frames.pcapng", &Writer::PCAP_NG.file(&timed)).unwrap();
    let Some(lines) = dissected(&path) else { return };
    assert_eq!(lines.len(), frames.len());
    let mut wrong = Vec::new();
    for ((name, _, path, end), fields) in frames.iter().zip(&lines) {
        // Status 0 is "bad".
        let bad_sum = fields[2..5].iter().any(|status| status.split(',').any(|one| one == "0"));
        if !fields[0].ends_with(end) || !fields[0].contains(path.as_str()) || !fields[1].is_empty() || bad_sum
        {
            wrong.push(format!("{name}: wants {end}, got {fields:?}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn every_tunnel_is_opened_by_tshark() {
    let mut frames = Vec::new();
    for inner in [sip(OPTIONS), sip(OPTIONS).v6()] {
        for kind in Tunnel::ALL {
            if !kind.carries(&inner) {
                continue;
            }
            let end: &'static str = match (kind, inner.src.is_ipv6()) {
                // tshark 4.0 has no dissector for it: only the checksums are tried.
                (Tunnel::Hep, _) => ":data",
                (_, true) => "ipv6:udp:sip",
                (_, false) => "ip:udp:sip",
            };
            let path = match kind {
                Tunnel::IpIp | Tunnel::Hep => String::new(),
                Tunnel::GreBridged => "gre:eth".to_owned(),
                Tunnel::Erspan1 | Tunnel::Erspan2 | Tunnel::Erspan3 => "gre:erspan:eth".to_owned(),
                Tunnel::RpcapUdp => "rpcap:pcap_pktdata:eth".to_owned(),
                Tunnel::L2tp => "l2tp:ppp".to_owned(),
                other => other.name().to_owned(),
            };
            for outer in [tunnel(), tunnel().v6()] {
                let carried = kind.carry(&inner, START_NS, 7, outer);
                frames.push((kind.name().to_owned(), carried.ethernet(), path.clone(), end));
            }
        }
    }
    all_are_opened("every-tunnel", &frames);
}

#[test]
fn every_optional_field_is_understood_by_tshark() {
    let four: Datagram = sip(OPTIONS);
    let six = four.clone().v6();
    let v4 = |datagram: Datagram| (datagram.ethernet(), "ip:udp:sip");
    let v6 = |datagram: Datagram| (datagram.ethernet(), "ipv6:udp:sip");
    let (packet, frame) = (four.ip(), four.ethernet());
    let frames = [
        ("vlan outside of GRE", v4(gre(&packet).over(tunnel().vlan(7)))),
        ("QinQ outside of GRE", v4(gre(&packet).over(tunnel().tag(0x88a8, 7).vlan(8)))),
        ("vlan inside VXLAN", v4(vxlan(&four.clone().vlan(9).ethernet()).vni(0x00ab_cdef).over(tunnel()))),
        ("MPLS", v4(four.clone().mpls(&[1000, 2000]))),
        ("MPLS behind a tag", v6(six.clone().vlan(5).mpls(&[1000]))),
        ("PPPoE", v4(four.clone().pppoe(17))),
        ("PPPoE, IPv6", v6(six.clone().pppoe(17))),
        ("6in4 in 4in6", v6(ip_in_ip(&ip_in_ip(&six.ip(), tunnel()).ip(), tunnel().v6()))),
        ("GRE, all fields", v4(gre(&packet).key(1).sequence(2).checksummed().over(tunnel()))),
        ("GRE, bridged, key", v4(gre_bridged(&frame).key(1).over(tunnel()))),
        ("ERSPAN III, subheader", v4(erspan3(&frame).session(9).subheader([0x0c; 8]).over(tunnel()))),
        ("Geneve, options", v4(geneve(&frame).option(1, &[1, 2, 3, 4]).option(2, &[0; 8]).over(tunnel()))),
        ("Geneve, IP", v6(geneve_ip(&six.ip()).over(tunnel()))),
        ("GTP-U, sequence", v4(gtp(&packet).sequence(9).over(tunnel()))),
        ("GTP-U, extension", v4(gtp(&packet).sequence(9).qos_flow(5).over(tunnel()))),
        ("GTP-U, extension alone", v6(gtp(&six.ip()).qos_flow(5).over(tunnel()))),
        ("TZSP, tags", v4(tzsp(&frame).tag(10, &[0x7f]).tag(0x29, &[0, 100]).over(tunnel()))),
        ("L2TP, all fields", v4(l2tp(&packet).sequence(3).offset(2).over(tunnel()))),
        ("L2TP, no length", v4(l2tp(&packet).without_length().over(tunnel()))),
        (
            "Teredo, indications",
            v6(teredo(&six.ip()).authenticated().origin([1, 2, 3, 4].into(), 5).over(tunnel())),
        ),
    ];
    let frames = frames.map(|(name, (bytes, end))| (name.to_owned(), bytes, String::new(), end));
    all_are_opened("every-field", &frames);
}

#[test]
fn an_rpcap_session_is_reassembled_by_tshark() {
    let client = "192.0.2.9:50123".parse().unwrap();
    let server = "192.0.2.1:2002".parse().unwrap();
    for data in [false, true] {
        let mut session = RpcapSession::new(client, server).mss(700);
        if data {
            session = session
                .data_connection("192.0.2.9:50124".parse().unwrap(), "192.0.2.1:40000".parse().unwrap());
        }
        // The sequence number wraps on the way.
        let mut session = session.starting_at(5, u32::MAX - 2_000);
        let mut segments = session.open();
        for index in 0..10 {
            session.capture(&sip(OPTIONS).ip_id(index).ethernet(), START_NS + u64::from(index) * 1_000_000);
            segments.extend(session.full_segments());
        }
        segments.extend(session.flush());
        segments.push(session.acknowledge());
        segments.extend(session.statistics(12, 1, 1));
        segments.extend(session.close());
        let timed: Vec<_> =
            (0..).zip(&segments).map(|(at, one)| (START_NS + at * 100_000, one.ethernet())).collect();
        let scratch = Scratch::new(&format!("rpcap-{data}")).unwrap();
        let path = scratch.file("session.pcapng", &Writer::PCAP_NG.file(&timed)).unwrap();
        let Some(lines) = dissected(&path) else { return };
        let found: usize = lines.iter().map(|fields| fields[0].matches("udp:sip").count()).sum();
        assert_eq!(found, 10, "{lines:#?}");
        for fields in &lines {
            assert!(fields[1].is_empty() && !fields[4].split(',').any(|status| status == "0"), "{fields:?}");
        }
        assert!(segments.iter().any(|segment| segment.payload.len() == 700));
    }
}

#[test]
fn hep_is_chunks_of_vendor_type_length_and_value() {
    let datagram = udp().payload(&rtcp()).ports(5001, 5003);
    let expected = [
        &b"HEP3\x00\x6b"[..],
        &[0, 0, 0, 1, 0, 7, 2],            // IPv4
        &[0, 0, 0, 2, 0, 7, 17],           // UDP
        &[0, 0, 0, 3, 0, 10, 10, 0, 0, 1], // source
        &[0, 0, 0, 4, 0, 10, 10, 0, 0, 2], // destination
        &[0, 0, 0, 7, 0, 8, 0x13, 0x89],   // ports
        &[0, 0, 0, 8, 0, 8, 0x13, 0x8b],
        &[0, 0, 0, 9, 0, 10, 0x65, 0x53, 0xf1, 0x00], // seconds
        &[0, 0, 0, 10, 0, 10, 0, 1, 0xe2, 0x40],      // microseconds
        &[0, 0, 0, 11, 0, 7, 5],                      // RTCP
        &[0, 0, 0, 12, 0, 10, 0, 0, 0x07, 0xd1],      // agent
        &[0, 0, 0, 15, 0, 14, 0x80, 201, 0, 1, 0xde, 0xad, 0, 1],
    ]
    .concat();
    assert_eq!(hep(&datagram, START_NS).bytes(), expected);
}

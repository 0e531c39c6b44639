//! Byte streams that carry captured frames or messages: rpcap and HEP over TCP, as captures mangle them.
#![expect(clippy::unwrap_used, reason = "helpers of tests: a failure is a failed test")]

#[path = "tunnels/bench.rs"]
mod bench;

use probe_ebpf::Config;
use probe_ebpf::record::{PacketHead, kind};
use proptest::collection::vec;
use proptest::prelude::*;
use voxlab::captures::{Scratch, Writer};
use voxlab::frames::{Datagram, rtp, sip, tcp, udp};
use voxlab::segments::{Connection, From};
use voxlab::tunnels::{RpcapSession, Tunnel, gre, hep, rpcap_packet, tunnel, vxlan};
use voxprobe::capture::live::Record;
use voxprobe::decode::Decoder;
use voxprobe::pipeline::offline::{Options, RtpRule, analyze};
use voxprobe::pipeline::shard::Overflow;
use voxprobe::pipeline::table::Limits;
use voxprobe::pipeline::{Event, Receiver, Shards};
use voxprobe::sip::{Signalling, signalling};

use bench::{Bench, Got, Nobody, OPTIONS, START_NS, inners};

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
        let mut segment = tcp().ports(2002, 50_000).payload(payload);
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
        for frame in &frames {
            session.capture(frame, START_NS);
        }
        frames = session.flush().iter().map(Datagram::ethernet).collect();
        let mut bench = Bench::new();
        let got: Vec<_> = frames.iter().flat_map(|frame| bench.take(frame)).collect();
        let found = got.iter().filter(|got| matches!(got, Got::Sip { .. })).count();
        assert_eq!(found, usize::from(depth <= 3), "{depth}: {got:?}");
    }
}

#[test]
fn hep_over_tcp_gives_its_messages_once() {
    let mut connection =
        Connection::new("192.0.2.9:50123".parse().unwrap(), "192.0.2.1:9060".parse().unwrap());
    connection.mss = 300;
    let stream: Vec<u8> =
        (0..30).flat_map(|port| hep(&sip(OPTIONS).ports(5060, port), START_NS).bytes()).collect();
    let mut segments = connection.open();
    segments.extend(
        connection.send(From::Client, &stream).into_iter().flat_map(|segment| [segment.clone(), segment]),
    );
    let mut bench = Bench::new();
    let got = bench.unpacked(&segments);
    let ports: Vec<_> = got.iter().map(|got| got.content().0.unwrap().dst.port).collect();
    assert_eq!(ports, (0..30).collect::<Vec<_>>());
    assert!(got.iter().all(|got| got.path() == "hep"));
    let carriers = bench.finish().carriers;
    assert_eq!(
        carriers.iter().map(|carrier| (carrier.port, carrier.peer_port)).collect::<Vec<_>>(),
        [(9060, 50_123)]
    );
}

#[test]
fn a_session_inside_a_tunnel_is_a_stream_of_its_own() {
    let (_, _, segments) = session(10, 700, false);
    let mut bench = Bench::new();
    assert_eq!(numbers(&bench.unpacked(&segments)), (0..10).collect::<Vec<_>>());
    let carried: Vec<_> = segments.iter().map(|segment| vxlan(&segment.ethernet()).over(tunnel())).collect();
    let got = bench.unpacked(&carried);
    assert_eq!(numbers(&got), (0..10).collect::<Vec<_>>());
    assert!(got.iter().all(|got| got.path() == "vxlan/rpcap"));
}

#[test]
fn the_account_of_frames_and_of_what_they_carry_is_exact() {
    let (mut session, opening, mut segments) = session(50, 700, true);
    // A message in fragments inside the session, whole and not.
    let fragments = |id| sip(&OPTIONS.repeat(50)).ip_id(id).fragments(1_400);
    let (whole, broken) = (fragments(1), fragments(2));
    assert_eq!(whole.len(), 2);
    whole.iter().chain(&broken[1..]).for_each(|fragment| session.capture(fragment, START_NS));
    segments.extend(session.flush());
    let mut frames: Vec<_> = opening.iter().chain(&segments).map(Datagram::ethernet).collect();
    frames.extend(session.statistics(60, 0, 10).iter().map(Datagram::ethernet));
    let carried = frames.iter().filter(|frame| frame.len() > 14 + 20 + 20).count();
    // Media as it was on the wire, in every tunnel; DNS in one; and what only looks like a tunnel.
    for inner in inners() {
        frames.push(inner.ethernet());
        frames.extend(
            Tunnel::ALL
                .into_iter()
                .filter(|kind| kind.carries(&inner))
                .map(|kind| kind.carry(&inner, START_NS, 1, tunnel()).ethernet()),
        );
    }
    frames.push(vxlan(&udp().ports(5_353, 53).payload(b"dns").ethernet()).over(tunnel()).ethernet());
    frames.push(udp().ports(9, 4789).payload(b"no tunnel").ethernet());
    let timed: Vec<_> =
        (0..).zip(&frames).map(|(at, frame)| (START_NS + at * 1_000, frame.clone())).collect();
    let scratch = Scratch::new("tunnels-account").unwrap();
    let path = scratch.file("all.pcapng", &Writer::PCAP_NG.file(&timed)).unwrap();
    let options = Options { rtp: RtpRule::Any, ..Options::default() };
    let report = analyze(&[path], &options, |_, _| ()).unwrap();
    let capture = &report.capture;
    assert_eq!(capture.matched, capture.analysed + capture.losses.values().sum::<u64>());
    // One of the message's two fragments is missing.
    assert_eq!((capture.unpacked, capture.losses["fragment_incomplete"]), (50 + 3, 1));
    let matched: u64 = ["sip_udp", "rtp", "rtcp", "tunnel", "fragment", "sip_tcp"]
        .iter()
        .map(|name| capture.verdicts[name])
        .sum();
    assert_eq!(capture.matched, matched + capture.unpacked);
    assert_eq!(capture.packets, capture.verdicts.values().sum::<u64>());
    // Also where a segment of the session begins like a SIP message.
    assert_eq!(capture.verdicts["sip_tcp"], 0);
    assert_eq!((capture.verdicts["sip_udp"], capture.verdicts["rtp"], capture.verdicts["rtcp"]), (2, 2, 2));
    let carriers: Vec<_> = capture
        .tunnels
        .carriers
        .iter()
        .filter(|carrier| carrier.path.to_string() == "rpcap" && carrier.peer_port != 0)
        .collect();
    assert_eq!(carriers.iter().map(|carrier| carrier.frames).sum::<u64>(), carried as u64);
    assert_eq!(
        capture
            .remote_captures
            .first()
            .map(|remote| (remote.packets, remote.statistics.map(|s| s.dropped()))),
        Some((53, Some(10)))
    );
}

#[test]
fn live_the_kernels_count_and_what_was_unpacked_is_what_was_analysed_or_lost() {
    let (_, opening, segments) = session(40, 700, false);
    let mut frames: Vec<_> = opening.iter().chain(&segments).map(Datagram::ethernet).collect();
    frames.push(vxlan(&sip(OPTIONS).ethernet()).over(tunnel()).ethernet());
    frames.push(vxlan(&[0xff; 60]).over(tunnel()).ethernet());
    frames.push(udp().ports(9, 4789).payload(b"no tunnel").ethernet());
    frames.push(rtp().over(udp().ports(2152, 2152)).ethernet());
    frames.push(sip(OPTIONS).mpls(&[1000]).ethernet());
    frames.push(udp().payload(&[0; 40]).mpls(&[7]).ethernet());
    frames.extend(gre(&sip(&OPTIONS.repeat(50)).ip()).over(tunnel()).fragments(1_400));
    let (sender, events) = crossbeam_channel::bounded(1_024);
    let limits = Limits { streams: 100, idle: None, quality: std::sync::Arc::default() };
    let shards = Shards::start(1, limits, Overflow::Lose, &sender).unwrap();
    let config = Config::DEFAULT;
    let signalling = Signalling::new(signalling::Limits::default());
    let mut receiver = Receiver::new(Decoder::new(config, false), signalling, shards, (), sender, 100);
    let mut matched = 0;
    for (at, frame) in (0..).zip(&frames) {
        // As the kernel would: what does not match is not handed over.
        let (verdict, _) = probe_ebpf::classify::ethernet(frame.as_slice(), &config, &Nobody);
        if !verdict.is_matched() {
            continue;
        }
        matched += 1;
        let length = u32::try_from(frame.len()).unwrap();
        let head = PacketHead {
            time_ns: 1_000 * at,
            kind: kind::PACKET,
            point: 0,
            outer_vlan: 0,
            wire_len: length,
            captured_len: length,
            verdict: verdict as u8,
            reserved: [0; 3],
        };
        receiver.record(Record::Packet(&head, frame));
    }
    let remains = receiver.finish();
    let events: Vec<_> = events.try_iter().collect();
    let by_shards: u64 = events
        .iter()
        .map(|event| if let Event::Finished(status) = event { status.analysed } else { 0 })
        .sum();
    let account = remains.account;
    assert_eq!((account.unpacked, account.lost()), (40, 0));
    assert_eq!(account.analysed + by_shards, matched + account.unpacked);
    let told = events.iter().filter(|event| matches!(event, Event::Carrier(_))).count();
    assert_eq!((told, remains.carriers.len()), (4, 4));
}

proptest! {
    #[test]
    fn a_mangled_session_gives_no_frame_twice_and_none_that_was_not_sent(
        order in vec((any::<prop::sample::Index>(), 0..3_usize), 1..80),
    ) {
        let (_, _, segments) = session(60, 400, false);
        let mut picked: Vec<_> = segments.clone();
        for (at, act) in order {
            let index = at.index(picked.len());
            match act {
                0 => { picked.remove(index); }
                1 => { let copy = picked[index].clone(); picked.insert(index / 2, copy); }
                _ => {
                    let other = (index + 3) % picked.len();
                    picked.swap(index, other);
                }
            }
            prop_assume!(picked.len() > 4);
        }
        let mut got = numbers(&Bench::new().unpacked(&picked));
        let count = got.len();
        got.sort_unstable();
        got.dedup();
        prop_assert_eq!(got.len(), count);
        prop_assert!(got.iter().all(|number| *number < 60));
    }
}

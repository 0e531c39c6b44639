//! Who was found to be ours while the probe runs: announced media, learned carriers.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use probe_ebpf::announced::{Ipv4, Ipv6, Words};
use probe_ebpf::config::MediaRule;
use probe_ebpf::{Config, Verdict};
use voxlab::frames::{Datagram, rtcp, rtp, tcp, udp};
use voxlab::privileges::root_for;
use voxprobe::packet::{Carrier, Encapsulation, Endpoint, Evidence, Flow, Nanos, Tap, Vlans};
use voxprobe::sip::{Limits, Signalling, Transport, media};

use crate::bench::Bench;
use crate::frames::media;

#[test]
fn announced_media_counts_whatever_the_rule_says() {
    if !root_for("announced_media_counts_whatever_the_rule_says") {
        return;
    }
    let config = Config { media_rule: MediaRule::Announced as u8, ..Config::DEFAULT };
    let v6 = Endpoint::v6([0x20, 1, 0xd, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2], 30_000);
    let mut bench = Bench::new(config, &[Endpoint::v4([10, 0, 0, 2], 30_000), v6]);
    let to = |port: u16| udp().ports(20_000, port);
    // From 10.0.0.1 port 30,000: the port alone does not make an endpoint.
    let port_alone = rtp().over(udp().ports(30_000, 9));
    let cases = [
        ("announced", rtp().over(to(30_000)), Verdict::Rtp),
        ("announced, IPv6", rtp().over(to(30_000).v6()), Verdict::Rtp),
        ("announced, RTCP", to(30_000).payload(&rtcp()), Verdict::Rtcp),
        ("announced, STUN", to(30_000).payload(&[0; 20]), Verdict::MediaOther),
        ("another port", rtp().over(to(30_002)), Verdict::OtherUdp),
        ("another address", port_alone, Verdict::OtherUdp),
    ];
    for (name, datagram, verdict) in cases {
        assert_eq!(bench.check(name, &datagram.ethernet()), verdict, "{name}");
    }
}

#[test]
fn the_table_follows_offers_candidates_and_where_media_comes_from() {
    if !root_for("the_table_follows_offers_candidates_and_where_media_comes_from") {
        return;
    }
    let config = Config { media_rule: MediaRule::Announced as u8, ..Config::DEFAULT };
    let mut bench = Bench::new(config, &[]);
    let limits = Limits { follow_endpoints: true, ..Limits::default() };
    let mut signalling = Signalling::new(limits);
    let at = |last: u8, port| Endpoint::v4([10, 0, 0, last], port);
    let say = |signalling: &mut Signalling, ms: u64, message: &str| {
        let flow = Flow { src: at(1, 5060), dst: at(2, 5060) };
        signalling.observe(Nanos(ms * 1_000_000), ms, flow, Transport::Udp, &evidence(), message.as_bytes());
    };
    let head =
        "Via: SIP/2.0/UDP h;branch=z9hG4bK1\r\nFrom: <sip:a@h>;tag=a\r\nTo: <sip:b@h>\r\nCall-ID: c\r\n";
    let sdp = "v=0\r\nc=IN IP4 10.0.0.2\r\nm=audio 30000 RTP/AVP 0\r\na=candidate:1 1 UDP 1 10.0.0.2 30100 typ relay\r\n";
    let media = |src: u16, dst: u16| rtp().over(udp().ports(src, dst)).ethernet();
    let asymmetric = || rtp().over(udp().ports(40_000, 40_002).reversed()).ethernet();
    let (offered, candidate) = (media(40_000, 30_000), media(9, 30_100));
    assert_eq!(bench.check("before the offer", &offered), Verdict::OtherUdp);

    say(
        &mut signalling,
        1,
        &format!(
            "INVITE sip:b@h SIP/2.0\r\n{head}CSeq: 1 INVITE\r\nContent-Type: application/sdp\r\nContent-Length: {}\r\n\r\n{sdp}",
            sdp.len()
        ),
    );
    bench.follow(&mut signalling);
    assert_eq!(bench.check("the first packet", &offered), Verdict::Rtp);
    assert_eq!(bench.check("to a candidate", &candidate), Verdict::Rtp);
    assert_eq!(bench.check("to its sender, from another port", &asymmetric()), Verdict::OtherUdp);

    // The packet comes from 10.0.0.1 port 40,000, which nobody announced.
    signalling.media_mut().attribute(&Flow { src: at(1, 40_000), dst: at(2, 30_000) }, Nanos(2_000_000));
    bench.follow(&mut signalling);
    assert_eq!(bench.check("to its sender, who is learned", &asymmetric()), Verdict::Rtp);

    say(&mut signalling, 3, &format!("CANCEL sip:b@h SIP/2.0\r\n{head}CSeq: 1 CANCEL\r\n\r\n"));
    signalling.advance(Nanos(3_000_000 + media::GRACE.0));
    bench.follow(&mut signalling);
    for (name, frame) in [("offered", offered), ("candidate", candidate), ("learned", asymmetric())] {
        assert_eq!(bench.check(name, &frame), Verdict::OtherUdp, "{name}, after the grace");
    }
    assert_eq!(bench.endpoints.failed(), 0);
}

#[test]
fn a_learned_carrier_is_forwarded_until_it_is_forgotten() {
    if !root_for("a_learned_carrier_is_forwarded_until_it_is_forgotten") {
        return;
    }
    let mut bench = Bench::rule(MediaRule::Range);
    let host = Endpoint::v4([10, 0, 0, 2], 50_000);
    let data = || tcp().ports(20_000, 50_000).payload(&[0; 200]);
    let back = || tcp().ports(50_000, 20_000).payload(&[0; 200]);
    // Media announced at the same address and port is of UDP, and makes no carrier.
    assert!(bench.endpoints.insert(host));
    bench.known.announced.push(host.key());
    assert_eq!(bench.check("before", &data().ethernet()), Verdict::OtherTcp);
    for round in ["first", "second"] {
        assert!(bench.endpoints.insert_carrier(host) && bench.endpoints.insert_carrier(host), "{round}");
        bench.known.carriers.push(host.key());
        assert_eq!(bench.check("data", &data().ethernet()), Verdict::Tunnel, "{round}");
        assert_eq!(bench.check("without data", &tcp().ports(20_000, 50_000).ethernet()), Verdict::OtherTcp);
        assert_eq!(bench.check("another's port", &back().ethernet()), Verdict::OtherTcp, "{round}");
        assert_eq!(bench.check("IPv6", &data().v6().ethernet()), Verdict::OtherTcp, "{round}");
        assert!(bench.endpoints.remove_carrier(host) && !bench.endpoints.remove_carrier(host), "{round}");
        bench.known.carriers.clear();
        assert_eq!(bench.check("after", &data().ethernet()), Verdict::OtherTcp, "{round}");
    }
    let source = Endpoint::v4([10, 0, 0, 1], 50_000);
    assert!(bench.endpoints.insert_carrier(source));
    bench.known.carriers.push(source.key());
    assert_eq!(bench.check("as source", &back().ethernet()), Verdict::Tunnel);
    assert_eq!(bench.endpoints.failed(), 0);
}

#[test]
fn a_port_stays_known_while_any_endpoint_has_it() {
    if !root_for("a_port_stays_known_while_any_endpoint_has_it") {
        return;
    }
    let config = Config { media_rule: MediaRule::Announced as u8, ..Config::DEFAULT };
    let mut bench = Bench::new(config, &[]);
    let [here, there] = [2, 9].map(|last| Endpoint::v4([10, 0, 0, last], 30_000));
    let media = media().ethernet();
    assert!(bench.endpoints.insert(here) && bench.endpoints.insert(there) && bench.endpoints.insert(here));
    bench.known.announced.push(here.key());
    assert_eq!(bench.check("both", &media), Verdict::Rtp);
    assert!(bench.endpoints.remove(there));
    assert_eq!(bench.check("the other's is gone", &media), Verdict::Rtp);
    assert!(bench.endpoints.remove(here));
    bench.known.announced.clear();
    assert_eq!(bench.check("none", &media), Verdict::OtherUdp);
}

/// More endpoints than their bucket has room for, which then sends whoever asks to the map of all, and back again.
#[test]
fn endpoints_of_one_bucket_are_all_known_and_each_is_forgotten() {
    if !root_for("endpoints_of_one_bucket_are_all_known_and_each_is_forgotten") {
        return;
    }
    all_of_one_bucket::<Ipv4>(|high, low| Endpoint::v4([10, 0, high, low], 30_000));
    all_of_one_bucket::<Ipv6>(|high, low| {
        Endpoint::v6([0x20, 1, 0xd, 0xb8, 0, 0, 0, high, 0, 0, 0, 0, 0, 0, 0, low], 30_000)
    });
}

fn all_of_one_bucket<W: Words>(host: impl Fn(u8, u8) -> Endpoint) {
    let mut buckets = BTreeMap::<u32, Vec<Endpoint>>::new();
    for host in (0..=u16::MAX).map(u16::to_be_bytes).map(|[high, low]| host(high, low)) {
        buckets.entry(W::of(&host.key()).unwrap().bucket()).or_default().push(host);
    }
    let alike = buckets.into_values().max_by_key(Vec::len).unwrap();
    assert!((6..20).contains(&alike.len()), "{} are alike", alike.len());
    let config = Config { media_rule: MediaRule::Announced as u8, ..Config::DEFAULT };
    let mut bench = Bench::new(config, &[]);
    let check_all = |bench: &mut Bench, known: &[Endpoint]| {
        for host in &alike {
            let datagram = if host.ip().is_ipv6() { media().v6() } else { media() };
            let datagram = Datagram { dst: SocketAddr::new(host.ip(), host.port), ..datagram };
            let verdict = if known.contains(host) { Verdict::Rtp } else { Verdict::OtherUdp };
            assert_eq!(bench.check("one of many", &datagram.ethernet()), verdict, "{host} of {known:?}");
        }
    };
    for count in 1..=alike.len() {
        let (known, host) = (&alike[..count], alike[count - 1]);
        assert!(bench.endpoints.insert(host));
        bench.known.announced.push(host.key());
        check_all(&mut bench, known);
    }
    for gone in 0..alike.len() {
        assert!(bench.endpoints.remove(alike[gone]));
        bench.known.announced.remove(0);
        check_all(&mut bench, &alike[gone + 1..]);
    }
}

/// How a frame is seen that nobody asks about.
fn evidence() -> Evidence {
    Evidence {
        tap: Tap::new(0, false),
        dst_mac: [0; 6],
        src_mac: [0; 6],
        vlans: Vlans::default(),
        ttl: 64,
        tos: 0,
        ip_id: 1,
        encapsulation: Encapsulation::NONE,
        carrier: Carrier::NONE,
    }
}

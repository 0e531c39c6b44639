//! Captures made to be compared: each fault by itself, by name, and random RTP by the seed.
//!
//! Every capture has a call whose SDP announces both ends, with formats that differ by direction, because tshark
//! takes a dynamic payload type's clock from the line of the packet's receiver. Those named "unannounced" have none.

use std::fmt::Write as _;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use crate::captures::{Timed, Writer};
use crate::frames::{Datagram, udp};
use crate::random::Random;
use crate::tunnels::{self, Tunnel};

/// 14 November 2023: any time will do.
const START_NS: u64 = 1_700_000_000_123_456_789;
const PTIME_NS: u64 = 20_000_000;
/// What the caller listens with.
const OFFER: &[(u8, &str)] = &[
    (96, "opus/48000/2"),
    (97, "AMR-WB/16000"),
    (98, "telephone-event/48000"),
    (99, "iLBC/8000"),
    (100, "H264/90000"),
    (101, "telephone-event/8000"),
    (102, "L16/11025"),
    (103, "X-unheard-of/22050"),
    (104, "AMR/8000/1"),
];
/// What the called listens with: other names under the same numbers.
const ANSWER: &[(u8, &str)] = &[
    (96, "iLBC/8000"),
    (97, "opus/48000/2"),
    (100, "Telephone-Event/8000"),
    (101, "telephone-event/8000"),
    (102, "L16/44100/2"),
    (110, "G7221/32000"),
];

/// A capture file to be.
#[derive(Clone, Debug)]
pub struct Capture {
    /// File name.
    pub name: String,
    /// Contents.
    pub bytes: Vec<u8>,
}

/// One RTP packet, and when it is seen.
#[derive(Clone, Debug)]
struct Sent {
    time_ns: u64,
    seq: u16,
    timestamp: u32,
    payload_type: u8,
    marker: bool,
    /// To the caller instead of to the called.
    back: bool,
    ssrc: u32,
    vlan: Option<u16>,
    /// Contributing sources, extension words, and the padding byte.
    csrcs: u8,
    extension: Option<u8>,
    padding: Option<u8>,
}

impl Sent {
    /// The n-th packet of 20 ms of PCMU.
    #[expect(clippy::cast_possible_truncation, reason = "numbers wrap")]
    fn nth(n: u64) -> Self {
        Self {
            time_ns: START_NS + 1_000_000_000 + n * PTIME_NS + n * n % 7 * 300_001,
            seq: n as u16,
            timestamp: (n as u32).wrapping_mul(160),
            payload_type: 0,
            marker: n == 0,
            back: false,
            ssrc: 0x0bad_cafe,
            vlan: None,
            csrcs: 0,
            extension: None,
            padding: None,
        }
    }

    fn frame(&self) -> Timed {
        (self.time_ns, self.datagram().ethernet())
    }

    fn datagram(&self) -> Datagram {
        let Self { csrcs, extension, padding, .. } = *self;
        let first =
            0x80 | u8::from(padding.is_some()) << 5 | u8::from(extension.is_some()) << 4 | (csrcs & 0x0f);
        let mut bytes = vec![first, u8::from(self.marker) << 7 | self.payload_type];
        bytes.extend(self.seq.to_be_bytes());
        bytes.extend(self.timestamp.to_be_bytes());
        bytes.extend(self.ssrc.to_be_bytes());
        bytes.extend(vec![0x11; 4 * usize::from(csrcs)]);
        if let Some(words) = extension {
            bytes.extend([0xbe, 0xde, 0, words]);
            bytes.extend(vec![0; 4 * usize::from(words)]);
        }
        let [low, _] = self.seq.to_le_bytes();
        bytes.extend((0..40_u8).map(|at| at ^ low));
        bytes.extend(padding);
        let (src, dst) = if self.back { (called(), caller()) } else { (caller(), called()) };
        let mut datagram = udp().between(src, dst).ip_id(self.seq).payload(&bytes);
        if let Some(vlan) = self.vlan {
            datagram = datagram.vlan(vlan);
        }
        datagram
    }
}

/// Who sends from 10.0.0.1:20000.
pub fn caller() -> SocketAddr {
    SocketAddr::new(IpAddr::V4(Ipv4Addr::new(10, 0, 0, 1)), 20_000)
}

/// Who sends from 10.0.0.2:30000.
pub fn called() -> SocketAddr {
    SocketAddr::new(IpAddr::V4(Ipv4Addr::new(10, 0, 0, 2)), 30_000)
}

/// Random RTP: for each seed one capture that is announced and one that is not, of so many packets.
pub fn random(seeds: u64, packets: usize) -> Vec<Capture> {
    let both = |seed| {
        let walk = walk(seed, packets);
        [
            capture(&format!("random-{seed}-announced"), &walk, true, Writer::PCAP_NG),
            capture(&format!("random-{seed}-unannounced"), &walk, false, Writer::PCAP),
        ]
    };
    (0..seeds).flat_map(both).collect()
}

fn capture(name: &str, packets: &[Sent], announced: bool, to: Writer) -> Capture {
    let mut frames = if announced { signalling().to_vec() } else { Vec::new() };
    frames.extend(packets.iter().map(Sent::frame));
    let kind = if to.format == Writer::PCAP_NG.format { "pcapng" } else { "pcap" };
    Capture { name: format!("{name}.{kind}"), bytes: to.file(&frames) }
}

/// One fault each. Most are of 300 packets, announced, with microseconds.
#[expect(clippy::cast_possible_truncation, reason = "numbers wrap")]
pub fn named() -> Vec<Capture> {
    let plain = || (0..300).map(Sent::nth).collect::<Vec<_>>();
    let each = |change: &dyn Fn(u64, &mut Sent)| {
        let mut packets = plain();
        packets.iter_mut().zip(0..).for_each(|(packet, n)| change(n, packet));
        packets
    };
    let clock = |payload_type: u8, rate: u32, back: bool| {
        each(&|n, packet| {
            packet.payload_type = payload_type;
            packet.timestamp = (n as u32).wrapping_mul(rate / 50);
            packet.back = back;
        })
    };
    let without =
        |lost: &dyn Fn(u64) -> bool| (0..300).filter(|n| !lost(*n)).map(Sent::nth).collect::<Vec<_>>();
    let copied = |k: u64| {
        let copy = |packet: &Sent, n| Sent { time_ns: packet.time_ns + n * 38_000, ..packet.clone() };
        plain().iter().flat_map(|packet| (0..k).map(move |n| copy(packet, n))).collect::<Vec<_>>()
    };
    let swapped = |every: usize| {
        let mut packets = plain();
        for at in (0..packets.len() - 1).step_by(every) {
            packets.swap(at, at + 1);
            let (first, second) = (packets[at + 1].time_ns, packets[at].time_ns);
            (packets[at].time_ns, packets[at + 1].time_ns) = (first, second);
        }
        packets
    };
    let stretched = |seconds: u64| {
        each(&|n, packet| {
            packet.time_ns = START_NS + 1_000_000_000 + n * seconds * 1_000_000_000;
            packet.timestamp = (n * seconds * 8000) as u32;
        })
    };
    let list: Vec<(&str, Vec<Sent>)> = vec![
        ("plain", plain()),
        ("one-packet", plain()[..1].to_vec()),
        ("loss", without(&|n| n % 17 == 5)),
        ("loss-in-bursts", without(&|n| n % 100 > 90)),
        ("loss-of-the-last", without(&|n| n > 250)),
        ("copies-2", copied(2)),
        ("copies-4", copied(4)),
        ("reordered", swapped(13)),
        ("first-packet-late", swapped(1_000)),
        ("last-packet-late", {
            let mut packets = plain();
            packets.swap(298, 299);
            let (a, b) = (packets[299].time_ns, packets[298].time_ns);
            (packets[298].time_ns, packets[299].time_ns) = (a, b);
            packets
        }),
        ("sequence-wraps", each(&|_, packet| packet.seq = packet.seq.wrapping_add(65_400))),
        ("sequence-wraps-twice", {
            let step = |n: u64| Sent { seq: (n * 501) as u16, ..Sent::nth(n) };
            (0..300).map(step).collect()
        }),
        ("timestamp-wraps", each(&|_, packet| packet.timestamp = packet.timestamp.wrapping_sub(9_600))),
        (
            "timestamp-before-the-first",
            each(&|n, packet| {
                if n % 50 == 49 {
                    packet.timestamp = 4_000_000_000;
                }
            }),
        ),
        ("beyond-2-to-the-31", stretched(1_000)),
        (
            "restarts",
            each(&|n, packet| {
                if n >= 150 {
                    packet.seq = packet.seq.wrapping_add(20_000);
                    packet.timestamp = packet.timestamp.wrapping_add(1_000_000);
                }
            }),
        ),
        (
            "restarts-lower",
            each(&|n, packet| {
                packet.seq = if n < 150 { 40_000 + n as u16 } else { n as u16 };
            }),
        ),
        (
            "digits",
            each(&|n, packet| {
                if n % 60 > 40 {
                    packet.payload_type = 101;
                    packet.timestamp = (n / 60 * 60 * 160) as u32;
                    packet.marker = n % 60 == 41;
                }
            }),
        ),
        (
            "comfort-noise",
            each(&|n, packet| {
                if n % 60 > 40 {
                    packet.payload_type = if n % 60 == 41 { 13 } else { 19 };
                    packet.time_ns += n % 60 * 100_000_000;
                }
            }),
        ),
        (
            "talkspurts",
            each(&|n, packet| {
                packet.marker = n % 50 == 0;
                packet.timestamp = packet.timestamp.wrapping_add((n / 50 * 4_000) as u32);
                packet.time_ns += n / 50 * 480_000_000;
            }),
        ),
        ("payload-changes", each(&|n, packet| packet.payload_type = [0, 8, 18, 9][n as usize / 75])),
        ("silent-for-a-while", each(&|n, packet| packet.time_ns += n / 150 * 1_798_950_000)),
        ("clock-dvi4-11025", clock(16, 11_025, false)),
        ("clock-dvi4-22050", clock(17, 22_050, false)),
        ("clock-dvi4-16000", clock(6, 16_000, false)),
        ("clock-l16-44100", clock(11, 44_100, false)),
        ("clock-g722", clock(9, 8_000, false)),
        ("clock-video-90000", clock(34, 90_000, false)),
        ("clock-static-unknown", clock(77, 8_000, false)),
        ("clock-answer-opus", clock(97, 48_000, false)),
        ("clock-offer-opus", clock(96, 48_000, true)),
        ("clock-offer-amr-wb", clock(97, 16_000, true)),
        ("clock-offer-l16-11025", clock(102, 11_025, true)),
        ("clock-offer-h264", clock(100, 90_000, true)),
        ("clock-offer-unheard-of", clock(103, 22_050, true)),
        ("clock-not-announced", clock(127, 8_000, true)),
        ("vlan-and-not", each(&|n, packet| packet.vlan = (n % 2 == 0).then_some(100))),
        ("one-ssrc-both-ways", each(&|n, packet| packet.back = n % 2 == 0)),
        (
            "extended",
            each(&|n, packet| {
                packet.csrcs = (n % 4) as u8;
                packet.extension = (n % 3 == 0).then_some((n % 5) as u8);
                packet.padding = (n % 7 == 0).then_some(1);
            }),
        ),
    ];
    let mut captures: Vec<_> =
        list.iter().map(|(name, packets)| capture(name, packets, true, Writer::PCAP)).collect();
    captures.push(capture("unannounced", &plain(), false, Writer::PCAP));
    captures.push(early_media());
    captures.push(ports_of_others());
    captures.extend(tunnelled());
    captures
}

/// Puts a datagram into a frame.
type Carry = fn(&Datagram) -> Vec<u8>;

/// Each tunnel: packets and, 100 us later, the same in it; and packets in it alone, signalling included. tshark
/// opens most of them, and what it opens is in the stream of the plain packets.
fn tunnelled() -> Vec<Capture> {
    let carried = |tunnel: Tunnel, inner: &Datagram, time_ns: u64, n: u32| {
        (time_ns, tunnel.carry(inner, time_ns, n, tunnels::tunnel()).ethernet())
    };
    let packets = || (0..150).map(|n| (Sent::nth(n).time_ns, Sent::nth(n).datagram()));
    let mut captures = Vec::new();
    let sample = Sent::nth(0).datagram();
    for tunnel in Tunnel::ALL.into_iter().filter(|tunnel| tunnel.carries(&sample)) {
        let mut frames = signalling().to_vec();
        frames.extend(packets().zip(0..).flat_map(|((time, packet), n)| {
            [(time, packet.ethernet()), carried(tunnel, &packet, time + 100_000, n)]
        }));
        captures.push((format!("tunnel-{}", tunnel.name()), frames));
        let alone = messages().into_iter().chain(packets()).zip(0..);
        let frames = alone.map(|((time, packet), n)| carried(tunnel, &packet, time, n)).collect();
        captures.push((format!("tunnel-{}-alone", tunnel.name()), frames));
    }
    let nested: [(&str, Carry); 5] = [
        ("mpls", |packet| packet.clone().mpls(&[100, 200]).ethernet()),
        ("pppoe", |packet| packet.clone().pppoe(7).ethernet()),
        ("qinq", |packet| packet.clone().tag(0x88a8, 5).vlan(7).ethernet()),
        ("gtp-in-vxlan", |packet| {
            let gtp = tunnels::gtp(&packet.ip()).over(tunnels::tunnel());
            tunnels::vxlan(&gtp.ethernet()).over(tunnels::tunnel()).ethernet()
        }),
        ("vlan-in-erspan-in-vlan", |packet| {
            tunnels::erspan2(&packet.clone().vlan(9).ethernet()).over(tunnels::tunnel().vlan(3)).ethernet()
        }),
    ];
    for (name, framed) in nested {
        let frames = messages().into_iter().chain(packets()).map(|(time, packet)| (time, framed(&packet)));
        captures.push((format!("tunnel-{name}"), frames.collect()));
    }
    captures
        .into_iter()
        .map(|(name, frames)| Capture { name: format!("{name}.pcap"), bytes: Writer::PCAP.file(&frames) })
        .collect()
}

/// Unannounced RTP to and from ports that Wireshark gives to others, and to some that it gives back.
#[expect(clippy::cast_possible_truncation, reason = "a handful of ports")]
fn ports_of_others() -> Capture {
    const PORTS: [u16; 14] =
        [53, 161, 1985, 2029, 3000, 5000, 8755, 12_000, 17_500, 20_000, 24_576, 32_000, 47_808, 54_328];
    let both_ways = PORTS.iter().zip(0..).flat_map(|(port, at)| {
        let there = SocketAddr::new(called().ip(), *port);
        [(caller(), there), (there, caller())].map(|(src, dst)| (src, dst, at))
    });
    let frames = both_ways.zip(0..).flat_map(|((src, dst, at), n)| {
        (0..2).map(move |seq| {
            let packet = crate::frames::rtp().seq(1_000 * at + seq).ssrc(u32::from(at)).varied(160);
            let time_ns = START_NS + n * PTIME_NS + u64::from(seq) * PTIME_NS / 2;
            (time_ns, packet.over(udp().between(src, dst).ip_id(n as u16)).ethernet())
        })
    });
    Capture { name: "ports-of-others.pcap".to_owned(), bytes: Writer::PCAP.file(&frames.collect::<Vec<_>>()) }
}

/// RTP to the caller between offer and answer: some of it comes before its receiver's SDP was answered.
fn early_media() -> Capture {
    let [invite, answer] = signalling();
    let mut packets: Vec<_> = (0..100).map(|n| Sent { back: true, ..Sent::nth(n) }.frame()).collect();
    packets.splice(50..50, [(packets[50].0 - 1, answer.1)]);
    Capture {
        name: "early-media.pcap".to_owned(),
        bytes: Writer::PCAP.file(&[vec![invite], packets].concat()),
    }
}

/// A walk through everything that a sender, a network and a capture can do to numbers, in three streams.
#[expect(clippy::cast_possible_truncation, reason = "random numbers are cut to what is wanted")]
fn walk(seed: u64, packets: usize) -> Vec<Sent> {
    const COMMON: [u8; 8] = [0, 8, 18, 9, 13, 101, 96, 97];
    let mut random = Random::derived(0x7357, seed);
    let mut below = move |n: u64| random.next_u64() % n;
    let mut time_ns = START_NS + 1_000_000_000;
    let mut streams: Vec<Sent> = (0..3)
        .map(|at| Sent {
            ssrc: 0x1000 + at,
            seq: below(65_536) as u16,
            timestamp: below(1 << 32) as u32,
            payload_type: COMMON[below(8) as usize],
            back: at == 1,
            ..Sent::nth(0)
        })
        .collect();
    // How wild a capture is differs by seed, so that some reach states that a storm never leaves alone.
    let calm = [400, 60, 12][seed as usize % 3];
    let mut sent = Vec::new();
    for _ in 0..packets {
        let wild = below(calm) == 0;
        let stream = &mut streams[below(3) as usize];
        time_ns = time_ns.wrapping_add(match (wild, below(12)) {
            (true, 0) => 0_u64.wrapping_sub(below(50_000_000)), // the capture steps back
            (true, 1) => below(90_000) * 1_000_000_000,         // a day passes
            (true, 2) => below(3_000_000_000),
            (_, 3) => 0,
            (_, 4) => below(1_000),
            _ => below(14_000_000),
        });
        let time_ns_now = time_ns.max(START_NS + 900_000_000);
        stream.time_ns = time_ns_now;
        stream.seq = match (wild, below(10)) {
            (true, 0) => stream.seq,
            (true, 1) => stream.seq.wrapping_sub(below(5) as u16),
            (true, 2) => stream.seq.wrapping_add(below(65_536) as u16),
            (true, 3) => [0, 1, 65_535, 65_534, 0x00ff, 0xff00][below(6) as usize],
            (true, 4) => stream.seq.wrapping_add(below(300) as u16),
            _ => stream.seq.wrapping_add(1),
        };
        stream.timestamp = match (wild, below(10)) {
            (true, 0 | 1) => stream.timestamp,
            (true, 2) => below(1 << 32) as u32,
            (true, 3) => stream.timestamp.wrapping_add(0x7fff_ffff),
            (true, 4) => stream.timestamp.wrapping_sub(below(100_000) as u32),
            (true, 5) => stream.timestamp.wrapping_add(below(1_000_000) as u32),
            _ => stream.timestamp.wrapping_add(160),
        };
        if wild {
            match below(8) {
                0 | 1 => stream.payload_type = COMMON[below(8) as usize],
                2 => stream.payload_type = below(128) as u8,
                3 => stream.vlan = [None, Some(7)][below(2) as usize],
                4 => stream.csrcs = below(4) as u8,
                5 => stream.extension = [None, Some(below(4) as u8)][below(2) as usize],
                6 => stream.padding = [None, Some(1), Some(4)][below(3) as usize],
                _ => {}
            }
        }
        stream.marker = below(40) == 0;
        sent.push(stream.clone());
    }
    sent
}

/// INVITE with an offer, 200 with an answer, as frames.
pub fn signalling() -> [Timed; 2] {
    messages().map(|(time, message)| (time, message.ethernet()))
}

fn messages() -> [(u64, Datagram); 2] {
    let (offer, answer) = (sdp(caller(), OFFER), sdp(called(), ANSWER));
    let ports = |datagram: Datagram| datagram.ports(5060, 5060);
    let message = |start: &str, body: &str| {
        format!(
            "{start}\r\nVia: SIP/2.0/UDP 10.0.0.1:5060;branch=z9hG4bK-conformance\r\nFrom: <sip:a@example.com>;tag=1\r\n\
             To: <sip:b@example.com>{}\r\nCall-ID: conformance@example.com\r\nCSeq: 1 INVITE\r\n\
             Contact: <sip:a@10.0.0.1>\r\nContent-Type: application/sdp\r\nContent-Length: {}\r\n\r\n{body}",
            if start.starts_with("SIP") { ";tag=2" } else { "" },
            body.len()
        )
    };
    let there = ports(udp().between(caller(), called()))
        .payload(message("INVITE sip:b@example.com SIP/2.0", &offer).as_bytes());
    let back =
        ports(udp().between(called(), caller())).payload(message("SIP/2.0 200 OK", &answer).as_bytes());
    [(START_NS, there), (START_NS + 500_000_000, back)]
}

fn sdp(at: SocketAddr, formats: &[(u8, &str)]) -> String {
    let (ip, port) = (at.ip(), at.port());
    let (mut numbers, mut maps) = (String::new(), String::new());
    for (number, map) in formats {
        let _ = write!(numbers, " {number}");
        let _ = write!(maps, "a=rtpmap:{number} {map}\r\n");
    }
    format!(
        "v=0\r\no=- 1 1 IN IP4 {ip}\r\ns=-\r\nc=IN IP4 {ip}\r\nt=0 0\r\nm=audio {port} RTP/AVP 0 8 9 18 13{numbers}\r\n\
         {maps}a=sendrecv\r\n"
    )
}

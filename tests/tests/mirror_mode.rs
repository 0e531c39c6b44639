//! Mirror mode over a wire of two namespaces: what is ours is taken by AF_XDP, gives the records that a tap gives, and is
//! accounted for to the frame; what is not ours passes; an interface that the host uses is refused.
//!
//! ```text
//!   near0 ── packet socket, or generator ──▶ far0: voxprobe_mirror ─┬▶ AF_XDP sockets ─▶ records | whole pipeline
//!                                                                  └▶ the host's stack
//! ```
//!
//! veth copies into the sockets: zero-copy needs a card whose driver can, and is not tried here.

#![expect(clippy::unwrap_used, reason = "helpers of tests: a failure is a failed test")]

use std::net::UdpSocket;
use std::thread;
use std::time::{Duration, Instant};

use probe_ebpf::Verdict;
use probe_ebpf::record::KernelLoss;
use rustix::process::Signal;
use voxlab::frames::{invite, rtcp, rtp, sip, tcp, udp};
use voxlab::link::RawSocket;
use voxlab::netns::{LabName, Namespace};
use voxlab::privileges::root_for;
use voxlab::probe::{Probe, output_within};
use voxlab::throughput::{Run, Setup, measure};
use voxlab::traffic::{Generator, Spec};
use voxlab::tunnels::{Tunnel, tunnel};
use voxprobe::capture::live::{
    LiveCapture, LiveError, LiveOptions, Mode, Record, Records, XdpMode, interfaces,
};
use voxprobe::capture::xsk::MirrorOptions;
use voxprobe::pipeline::Loss;

/// Long enough for a softirq on a busy machine.
const PATIENCE: Duration = Duration::from_secs(10);

/// Two namespaces and a wire of so many queues.
struct Wire {
    near: Namespace,
    far: Namespace,
}

impl Wire {
    fn new() -> Self {
        Self::of(1, 1_500)
    }

    fn of(queues: u32, mtu: u32) -> Self {
        let lab = LabName::unique().unwrap();
        let (near, far) = (Namespace::create(&lab, "near").unwrap(), Namespace::create(&lab, "far").unwrap());
        let end = format!("mtu {mtu} numtxqueues {queues} numrxqueues {queues}");
        near.configure(&[
            format!("link add near0 {end} type veth peer name far0 netns {} {end}", far.name()),
            "link set near0 up".into(),
        ])
        .unwrap();
        far.configure(&["link set far0 up"]).unwrap();
        Self { near, far }
    }

    fn start(&self, options: &LiveOptions) -> Result<LiveCapture, LiveError> {
        self.far.within(|| LiveCapture::start(options)).unwrap()
    }

    fn send(&self, frames: &[Vec<u8>]) {
        let send = || {
            let socket = RawSocket::writer("near0").unwrap();
            for frame in frames {
                socket.send(frame).unwrap();
            }
        };
        self.near.within(send).unwrap();
    }

    /// What a capture at the far end reads of these frames, up to so many records.
    fn records(&self, options: &LiveOptions, frames: &[Vec<u8>], expected: usize) -> Vec<String> {
        let mut capture = self.start(options).unwrap();
        self.send(frames);
        let records = match (capture.take_rings(), capture.take_mirror()) {
            (Some(rings), _) => read(rings, expected),
            (None, Some(mirror)) => read(mirror, expected),
            (None, None) => panic!("neither rings nor sockets"),
        };
        let counters = capture.counters().unwrap();
        assert_eq!((counters.matched(), counters.lost()), (expected as u64, 0));
        records
    }
}

/// Reads until there are so many records, and checks that no more come.
fn read(mut source: impl Records, expected: usize) -> Vec<String> {
    let (mut records, mut last_ns) = (Vec::new(), 0);
    let deadline = Instant::now() + PATIENCE;
    while records.len() < expected && Instant::now() < deadline {
        let taken = source.poll(4_096, |record| {
            assert!(record.time_ns() > last_ns, "records in the order of their times");
            last_ns = record.time_ns();
            records.push(describe(record));
        });
        if taken == 0 {
            source.rest();
        }
    }
    thread::sleep(Duration::from_millis(50));
    source.poll(4_096, |record| records.push(describe(record)));
    assert_eq!((records.len(), source.malformed()), (expected, 0));
    records
}

/// A record without its time.
fn describe(record: Record<'_>) -> String {
    match record {
        Record::Media4(head) => {
            let mut head = *head;
            head.common.time_ns = 0;
            format!("{head:?}")
        }
        Record::Media6(head) => {
            let mut head = *head;
            head.common.time_ns = 0;
            format!("{head:?}")
        }
        Record::Packet(head, bytes) => {
            let mut head = *head;
            head.time_ns = 0;
            format!("{head:?} {bytes:02x?}")
        }
    }
}

fn mirror() -> MirrorOptions {
    MirrorOptions { chunks: Some(1_024), ..MirrorOptions::DEFAULT }
}

fn options(mirror: MirrorOptions) -> LiveOptions {
    LiveOptions { mode: Mode::Mirror(mirror), ..LiveOptions::new(["far0"]) }
}

/// Frames of every kind that is ours, and some that are not. How many are.
fn traffic(longest: usize) -> (Vec<Vec<u8>>, usize) {
    let media = || rtp().varied(160).over(udp());
    let call = sip(&invite(900));
    let mut ours = vec![
        call.clone(),
        call.clone().vlan(7),
        media(),
        media().checksum(0),
        media().v6(),
        media().vlan(100),
        media().tag(0x88a8, 3).tag(0x8100, 4),
        media().v6().tag(0x88a8, 3).tag(0x8100, 4),
        rtp().payload(&[1, 10, 0, 160]).over(udp()),
        udp().ports(20_000, 30_001).payload(&rtcp()),
        media().fragment(0x2000),
        tcp().ports(20_000, 5060).payload(invite(700).as_bytes()),
        tcp().ports(20_000, 5061).payload(&[23; 700]),
    ];
    ours.extend(
        Tunnel::ALL
            .into_iter()
            .filter(|kind| kind.carries(&call))
            .map(|kind| kind.carry(&call, 1_700_000_000_000_000_000, 1, tunnel())),
    );
    ours.push(sip(&invite(longest)));
    let others = [udp().ports(20_000, 53).payload(&[0x12; 40]), tcp().ports(20_000, 443).payload(&[0; 900])];
    let count = ours.len();
    (ours.iter().chain(&others).map(voxlab::frames::Datagram::ethernet).collect(), count)
}

#[test]
fn a_mirror_port_gives_the_records_of_a_tap() {
    if !root_for("a_mirror_port_gives_the_records_of_a_tap") {
        return;
    }
    let wire = Wire::new();
    let (frames, ours) = traffic(1_400);
    for xdp in [XdpMode::Native, XdpMode::Generic] {
        let tap = LiveOptions { xdp, ..LiveOptions::new(["far0"]) };
        let tapped = wire.records(&tap, &frames, ours);
        let mirrored = wire.records(&LiveOptions { xdp, ..options(mirror()) }, &frames, ours);
        assert_eq!(mirrored, tapped, "{xdp:?}");
    }
}

#[test]
fn a_jumbo_frame_comes_in_pieces_and_arrives_whole() {
    if !root_for("a_jumbo_frame_comes_in_pieces_and_arrives_whole") {
        return;
    }
    let wire = Wire::of(1, 9_000);
    // Two and a half chunks of a page, among frames of one.
    let (frames, ours) = traffic(8_500);
    let tapped = wire.records(&LiveOptions::new(["far0"]), &frames, ours);
    assert_eq!(wire.records(&options(mirror()), &frames, ours), tapped);
}

#[test]
fn busy_polling_receives_the_same() {
    if !root_for("busy_polling_receives_the_same") {
        return;
    }
    let wire = Wire::new();
    let (frames, ours) = traffic(1_400);
    let busy = MirrorOptions { busy_poll: Duration::from_micros(20), ..mirror() };
    let tapped = wire.records(&LiveOptions::new(["far0"]), &frames, ours);
    assert_eq!(wire.records(&options(busy), &frames, ours), tapped);
}

#[test]
fn every_queue_has_a_socket_and_all_of_them_are_read() {
    if !root_for("every_queue_has_a_socket_and_all_of_them_are_read") {
        return;
    }
    let wire = Wire::of(2, 1_500);
    let mut capture = wire.start(&options(mirror())).unwrap();
    let ladder: Vec<_> = capture.ladder().iter().map(ToString::to_string).collect();
    assert!(ladder.iter().any(|rung| rung.contains("2 queues x 1024 frames")), "{ladder:?}");
    let mut reader = capture.take_mirror().unwrap();
    // The generator's CPU decides the queue: over the run it is on both, or on one.
    let spec = Spec { streams: 16, rate_pps: Some(20_000), limit: Some(20_000), ..Spec::default() };
    let mut read = 0;
    let sent = thread::scope(|scope| {
        let sender = scope.spawn(|| {
            let send = || {
                let all = interfaces().unwrap();
                let near0 = all.iter().find(|interface| interface.name == "near0").unwrap();
                Generator::start(near0.index, &spec).unwrap().run(PATIENCE, 20_000).unwrap()
            };
            wire.near.within(send).unwrap()
        });
        while !sender.is_finished() {
            if reader.poll(4_096, |_| read += 1) == 0 {
                reader.rest();
            }
        }
        sender.join().unwrap()
    });
    thread::sleep(Duration::from_millis(200));
    capture.detach();
    while reader.poll(4_096, |_| read += 1) > 0 {}
    let counters = capture.counters().unwrap();
    assert_eq!(counters.matched(), read + counters.lost());
    assert!(counters.matched() <= sent.frames && read > 0);
    assert_eq!(counters.total().losses[KernelLoss::NoSocket as usize], 0, "a queue without a socket");
}

#[test]
fn every_interface_has_sockets_of_its_own_and_frames_name_theirs() {
    if !root_for("every_interface_has_sockets_of_its_own_and_frames_name_theirs") {
        return;
    }
    let wire = Wire::new();
    let pair = format!("link add near1 type veth peer name far1 netns {}", wire.far.name());
    wire.near.configure(&[pair.as_str(), "link set near1 up"]).unwrap();
    wire.far.configure(&["link set far1 up"]).unwrap();
    let both = LiveOptions { interfaces: vec!["far0".into(), "far1".into()], ..options(mirror()) };
    let mut capture = wire.start(&both).unwrap();
    let media = rtp().varied(160).over(udp()).ethernet();
    let send = |interface: &str, count: usize| {
        let socket = RawSocket::writer(interface).unwrap();
        (0..count).for_each(|_| socket.send(&media).unwrap());
    };
    wire.near.within(|| (send("near0", 3), send("near1", 5))).unwrap();
    let records = read(capture.take_mirror().unwrap(), 8);
    let of = |interface: u8| {
        let point = format!("point: {interface},");
        records.iter().filter(|record| record.contains(&point)).count()
    };
    assert_eq!((of(0), of(1)), (3, 5), "{records:#?}");
    let counters = capture.counters().unwrap();
    let by_tap: Vec<_> =
        counters.taps.iter().map(|tap| tap.counters.verdicts[Verdict::Rtp as usize]).collect();
    assert_eq!((by_tap, counters.lost()), (vec![3, 5], 0));
}

#[test]
fn what_is_ours_is_taken_and_the_rest_reaches_the_host() {
    if !root_for("what_is_ours_is_taken_and_the_rest_reaches_the_host") {
        return;
    }
    let wire = Wire::new();
    wire.near.configure(&["addr add 10.9.0.1/24 dev near0"]).unwrap();
    wire.far.configure(&["addr add 10.9.0.2/24 dev far0"]).unwrap();
    let bind = |namespace: &Namespace, address: &str| -> UdpSocket {
        namespace.within(|| UdpSocket::bind(address).unwrap()).unwrap()
    };
    let (near, far) = (bind(&wire.near, "10.9.0.1:20000"), bind(&wire.far, "10.9.0.2:30000"));
    far.set_read_timeout(Some(Duration::from_millis(300))).unwrap();
    let media = rtp().varied(160).bytes();
    let (mut buffer, other) = ([0; 2_048], b"neither RTP nor RTCP");
    let mut arrives = |payload: &[u8]| {
        near.send_to(payload, "10.9.0.2:30000").unwrap();
        far.recv(&mut buffer).is_ok_and(|length| &buffer[..length] == payload)
    };
    assert!(arrives(&media) && arrives(other));

    // Refused, as the host uses it; nothing is left behind.
    let refused = wire.start(&options(mirror())).err().unwrap().to_string();
    for needed in
        ["far0 is no mirror port", "address 10.9.0.2/24", "route to 10.9.0.0/24", "--mode tap", "--steal"]
    {
        assert!(refused.contains(needed), "{needed}: {refused}");
    }
    assert!(arrives(&media));

    // Meant, and said.
    let capture = wire.start(&options(MirrorOptions { steal: true, ..mirror() })).unwrap();
    assert!(capture.ladder().iter().any(|rung| rung.to_string().contains("no longer reach this host")));
    assert!(arrives(other), "what is not ours passes");
    assert!(!arrives(&media), "what is ours is taken");
    let counters = capture.counters().unwrap();
    assert_eq!((counters.verdict(Verdict::Rtp), counters.lost()), (1, 0));
    drop(capture);
    assert!(arrives(&media), "all is as it was");
}

#[test]
fn a_port_of_a_bridge_is_refused_and_a_link_local_address_is_not() {
    if !root_for("a_port_of_a_bridge_is_refused_and_a_link_local_address_is_not") {
        return;
    }
    let wire = Wire::new();
    wire.far.configure(&["addr add fe80::2/64 dev far0"]).unwrap();
    drop(wire.start(&options(mirror())).unwrap());
    let refusal = || wire.start(&options(mirror())).err().unwrap().to_string();
    // Something with an address stands on it.
    wire.far
        .configure(&["link add link far0 name upper0 type macvlan", "addr add 10.7.0.2/24 dev upper0"])
        .unwrap();
    assert!(refusal().contains("address 10.7.0.2/24 of upper0"), "{}", refusal());
    wire.far.configure(&["link del upper0", "link add br0 type bridge", "link set far0 master br0"]).unwrap();
    assert!(refusal().contains("part of br0"), "{}", refusal());
}

#[test]
fn a_queue_that_is_taken_is_named() {
    if !root_for("a_queue_that_is_taken_is_named") {
        return;
    }
    let wire = Wire::new();
    let mut first = wire.start(&options(mirror())).unwrap();
    // With its program, the interface is taken.
    let second = wire.start(&options(mirror())).err().unwrap();
    assert!(matches!(&second, LiveError::Busy { interface, .. } if interface == "far0"), "{second}");
    // Without it, the queue still is.
    first.detach();
    let second = wire.start(&options(mirror())).err().unwrap();
    assert_eq!(
        second.to_string(),
        "cannot bind an AF_XDP socket to far0 queue 0: another socket holds it; `ss --xdp -p` lists the owners"
    );
    drop(first);
    drop(wire.start(&options(mirror())).unwrap());
}

#[test]
fn bad_wishes_are_refused_before_anything_is_attached() {
    if !root_for("bad_wishes_are_refused_before_anything_is_attached") {
        return;
    }
    let wire = Wire::new();
    let error = |options: &LiveOptions| wire.start(options).err().unwrap();
    assert!(matches!(error(&LiveOptions { egress: true, ..options(mirror()) }), LiveError::EgressOfMirror));
    let three = options(MirrorOptions { chunks: Some(3), ..mirror() });
    assert!(matches!(error(&three), LiveError::Chunks { chunks: 3 }));
    let said = |arguments: &str| {
        let command = Probe::command(&wire.far, arguments.split(' ')).unwrap();
        let output = output_within(command, Duration::from_secs(30)).unwrap();
        assert!(!output.status.success());
        String::from_utf8_lossy(&output.stderr).into_owned()
    };
    let stderr = said("run --iface far0 --steal");
    assert!(stderr.contains("belong to --mode mirror"), "{stderr}");
    let all = wire.far.within(|| interfaces().unwrap()).unwrap();
    assert!(all.iter().all(|interface| interface.xdp_program.is_none()), "{all:?}");
}

#[test]
fn a_killed_probe_leaves_nothing_behind() {
    if !root_for("a_killed_probe_leaves_nothing_behind") {
        return;
    }
    let wire = Wire::new();
    let program = || {
        let all = wire.far.within(|| interfaces().unwrap()).unwrap();
        all.iter().find(|interface| interface.name == "far0").unwrap().xdp_program
    };
    let arguments = "run --iface far0 --mode mirror --frames 1024 --log /dev/null";
    let mut probe = Probe::spawn(Probe::command(&wire.far, arguments.split(' ')).unwrap()).unwrap();
    let deadline = Instant::now() + Duration::from_secs(30);
    while program().is_none() && Instant::now() < deadline {
        assert!(probe.ended().unwrap().is_none(), "the probe did not start");
        thread::sleep(Duration::from_millis(20));
    }
    assert!(program().is_some());
    probe.signal(Signal::KILL).unwrap();
    probe.wait(PATIENCE).unwrap();
    // The kernel drops the link and the sockets with their last descriptor, a moment after the process.
    let deadline = Instant::now() + PATIENCE;
    while program().is_some() && Instant::now() < deadline {
        thread::sleep(Duration::from_millis(20));
    }
    assert_eq!(program(), None);
    drop(wire.start(&options(mirror())).unwrap());
}

fn assert_exact(run: &Run) {
    let capture = &run.report.capture;
    assert_eq!(capture.matched, capture.analysed + run.lost(), "{:?}", capture.losses);
    assert!(capture.matched <= run.sent.frames);
    let seen: u64 = run.report.streams.iter().map(|stream| stream.raw.packets).sum();
    assert_eq!(seen, capture.analysed, "what was analysed is in the streams");
    eprintln!("sent {}, matched {}, losses {:?}", run.sent.frames, capture.matched, capture.losses);
}

fn setup(mirror: MirrorOptions, shards: usize) -> Setup {
    Setup { mode: Mode::Mirror(mirror), shards, ring_bytes: 4_096, sheds: false }
}

#[test]
fn three_million_frames_at_half_a_million_a_second_are_accounted_for() {
    if !root_for("three_million_frames_at_half_a_million_a_second_are_accounted_for") {
        return;
    }
    let spec = Spec { streams: 1_024, rate_pps: Some(500_000), limit: Some(3_000_000), ..Spec::default() };
    let run = measure(&spec, Duration::from_secs(40), setup(MirrorOptions::DEFAULT, 1)).unwrap();
    assert_exact(&run);
    assert_eq!(run.report.streams.len(), 1_024);
}

#[test]
fn a_socket_of_64_frames_and_several_shards_lose_nothing_without_a_name() {
    if !root_for("a_socket_of_64_frames_and_several_shards_lose_nothing_without_a_name") {
        return;
    }
    let spec = Spec { streams: 1_024, rate_pps: Some(500_000), ..Spec::default() };
    let run =
        measure(&spec, Duration::from_secs(3), setup(MirrorOptions { chunks: Some(64), ..mirror() }, 3))
            .unwrap();
    assert_exact(&run);
    assert!(run.report.capture.losses[Loss::SocketDropped.name()] > 1_000);
    // A hole that the probe made is not held against the network.
    assert!(!run.report.findings.iter().any(|finding| finding.id == "packets-lost"));
    let first = &run.report.findings[0];
    assert_eq!((first.id, first.advice.as_str()), ("loss-made-by-the-capture", Loss::SocketDropped.advice()));
}

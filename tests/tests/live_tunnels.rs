//! Tunnels on a live interface: frames of every kind reach userspace whole, and the account of them is exact.
//!
//! ```text
//!   near0 ── packet socket: tunnels, MPLS, PPPoE, an rpcap session ──▶ far0: XDP ─▶ rings ─▶ records | whole pipeline
//! ```

#![expect(clippy::unwrap_used, reason = "helpers of tests: a failure is a failed test")]

use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use probe_ebpf::Verdict;
use voxlab::frames::{Datagram, invite, rtp, sip, udp};
use voxlab::link::RawSocket;
use voxlab::netns::{End, LabName, Namespace, join};
use voxlab::privileges::root_for;
use voxlab::tunnels::{RpcapSession, Tunnel, tunnel};
use voxprobe::capture::live::{LiveCapture, LiveOptions, Record, Records as _};
use voxprobe::packet::Endpoint;
use voxprobe::pipeline::account::Account;
use voxprobe::pipeline::cpus::Cpus;
use voxprobe::pipeline::live::{Options, Outcome, Probe};
use voxprobe::pipeline::shard::Event;

/// Long enough for a softirq on a busy machine.
const PATIENCE: Duration = Duration::from_secs(10);
const DATA_PORT: u16 = 50_123;

/// Two namespaces and a wire.
struct Wire {
    near: Namespace,
    far: Namespace,
}

impl Wire {
    fn new() -> Self {
        let lab = LabName::unique().unwrap();
        let (near, far) = (Namespace::create(&lab, "near").unwrap(), Namespace::create(&lab, "far").unwrap());
        let end = |namespace, interface, mac| End { namespace, interface, mac };
        join(end(&near, "near0", "02:00:00:00:00:01"), end(&far, "far0", "02:00:00:00:00:02")).unwrap();
        Self { near, far }
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
}

/// Signalling and media, in each kind of tunnel that carries them.
fn tunnelled() -> Vec<Vec<u8>> {
    let plain = [sip(&invite(700)), rtp().varied(160).over(udp())];
    let inner = || plain.iter().cloned().chain(plain.iter().cloned().map(Datagram::v6));
    let mut frames = Vec::new();
    for (number, inner) in (1..).zip(inner()) {
        for kind in Tunnel::ALL.into_iter().filter(|kind| kind.carries(&inner)) {
            let outer = kind.carry(&inner, 1_700_000_000_000_000_000, number, tunnel());
            frames.push(outer.ethernet());
            frames.push(outer.vlan(100).ethernet());
        }
        frames.push(inner.clone().mpls(&[16, 17]).ethernet());
        frames.push(inner.pppoe(9).ethernet());
    }
    frames
}

/// Segments of a remote capture that have data, and how many there are without.
fn rpcap(data_port: Option<u16>) -> (Vec<Vec<u8>>, usize) {
    let at = |last: u8, port: u16| ([192, 0, 2, last], port).into();
    let mut session = RpcapSession::new(at(1, 40_000), at(2, 2_002)).mss(1_000);
    if let Some(port) = data_port {
        session = session.data_connection(at(1, 40_001), at(2, port));
    }
    let mut segments = session.open();
    for number in 0..50 {
        session
            .capture(&rtp().seq(number).varied(160).over(udp()).ethernet(), u64::from(number) * 20_000_000);
        segments.extend(session.full_segments());
    }
    segments.push(session.acknowledge());
    segments.extend(session.close());
    let (with, without): (Vec<_>, Vec<_>) =
        segments.iter().partition(|segment: &&Datagram| !segment.payload.is_empty());
    let on_data_port = |segment: &&&Datagram| Some(segment.src.port()) == data_port;
    assert!(data_port.is_none() || with.iter().filter(on_data_port).count() > 5);
    (with.iter().map(|segment| segment.ethernet()).collect(), without.len())
}

fn options() -> Options {
    Options {
        capture: LiveOptions::new(["far0"]),
        shards: 1,
        cpus: Cpus::default(),
        max_streams: 1_024,
        idle: Duration::from_secs(30),
        interval: Duration::from_millis(200),
        quality: Arc::default(),
        leg_headers: voxprobe::sip::LegHeaders::default(),
        sheds: false,
    }
}

/// Until the kernel has matched so many frames.
fn wait_for(probe: &mut Probe, frames: usize) {
    let deadline = Instant::now() + PATIENCE;
    while probe.capture().counters().unwrap().matched() < frames as u64 && Instant::now() < deadline {
        thread::sleep(Duration::from_millis(5));
    }
}

/// The end, and the account with what the shards analysed.
fn stop(probe: Probe) -> (Outcome, Account) {
    let mut by_shards = 0;
    let outcome = probe.stop(|event| {
        if let Event::Finished(status) = event {
            by_shards += status.analysed;
        }
    });
    let outcome = outcome.unwrap();
    let mut account = outcome.remains.account;
    account.analysed += by_shards;
    (outcome, account)
}

#[test]
fn frames_of_every_tunnel_reach_userspace_whole_and_in_order() {
    if !root_for("frames_of_every_tunnel_reach_userspace_whole_and_in_order") {
        return;
    }
    let wire = Wire::new();
    let mut capture = wire.far.within(|| LiveCapture::start(&LiveOptions::new(["far0"]))).unwrap().unwrap();
    let mut rings = capture.take_rings().unwrap();
    // What the receiver does when a control connection names its data port.
    let mut endpoints = capture.take_endpoints().unwrap();
    assert!(endpoints.insert_carrier(Endpoint::v4([192, 0, 2, 2], DATA_PORT)));
    let frames = [tunnelled(), rpcap(None).0, rpcap(Some(DATA_PORT)).0].concat();
    wire.send(&frames);

    let mut read = Vec::new();
    let deadline = Instant::now() + PATIENCE;
    while read.len() < frames.len() && Instant::now() < deadline {
        rings.poll(64, |record| match record {
            Record::Packet(head, bytes) => {
                assert_eq!((head.verdict, head.wire_len as usize), (Verdict::Tunnel as u8, bytes.len()));
                read.push((head.time_ns, bytes.to_vec()));
            }
            other => panic!("a head: {other:?}"),
        });
        thread::sleep(Duration::from_millis(1));
    }
    capture.detach();
    // Records of two CPUs are merged by time; the wire is one queue, so the order is the sender's.
    assert!(read.is_sorted_by_key(|(time_ns, _)| *time_ns));
    let read: Vec<_> = read.into_iter().map(|(_, bytes)| bytes).collect();
    assert_eq!(read.len(), frames.len());
    assert!(read == frames, "bytes differ");
    assert_eq!((capture.counters().unwrap().lost(), rings.malformed()), (0, 0));
}

#[test]
fn the_data_connection_of_a_remote_capture_is_followed_to_its_negotiated_port() {
    if !root_for("the_data_connection_of_a_remote_capture_is_followed_to_its_negotiated_port") {
        return;
    }
    let wire = Wire::new();
    let mut probe = wire.far.within(|| Probe::start(&options())).unwrap().unwrap();
    let (segments, _) = rpcap(Some(DATA_PORT));
    // The control connection first, until its last answer was read and followed: only then is data forwarded.
    let is_data = |frame: &&Vec<u8>| frame[34..36] == DATA_PORT.to_be_bytes();
    let (data, control): (Vec<_>, Vec<_>) = segments.iter().partition(is_data);
    let (data, control): (Vec<_>, Vec<_>) =
        (data.into_iter().cloned().collect(), control.into_iter().cloned().collect());
    wire.send(&control);
    wait_for(&mut probe, control.len());
    thread::sleep(Duration::from_millis(300));
    wire.send(&data);
    wait_for(&mut probe, control.len() + data.len());
    let (outcome, account) = stop(probe);
    assert_eq!(outcome.counters.verdict(Verdict::Tunnel), segments.len() as u64);
    // Fifty packets of RTP were captured there.
    assert_eq!((account.unpacked, account.lost(), account.unaccounted()), (50, 0, 0), "{account:?}");
}

#[test]
fn the_account_of_tunnels_and_of_a_remote_capture_is_exact() {
    if !root_for("the_account_of_tunnels_and_of_a_remote_capture_is_exact") {
        return;
    }
    let wire = Wire::new();
    let mut probe = wire.far.within(|| Probe::start(&options())).unwrap().unwrap();
    let plain = [sip(&invite(700)).ethernet(), rtp().varied(160).over(udp()).ethernet()];
    let (session, _) = rpcap(None);
    let frames = [tunnelled(), session, plain.to_vec()].concat();
    wire.send(&frames);
    wait_for(&mut probe, frames.len());
    let (outcome, account) = stop(probe);
    let count = |verdict| usize::try_from(outcome.counters.verdict(verdict)).unwrap();
    assert_eq!(
        (count(Verdict::Tunnel), count(Verdict::SipUdp), count(Verdict::Rtp)),
        (frames.len() - plain.len(), 1, 1)
    );
    // Nothing is cut, and none of what was sent is a fragment: every frame is analysed, whatever was found in it.
    assert_eq!((account.lost(), account.unaccounted()), (0, 0), "{account:?}");
    assert!(account.matched >= frames.len() as u64);
}

//! Media that is left out in the kernel: which sessions, that nothing else is, and what is cut of whole frames.
//!
//! Frames are run through the loaded programs by BPF_PROG_TEST_RUN, as in `bpf`.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::thread;
use std::time::Duration;

use probe_ebpf::config::{Config, MIN_SNAP};
use probe_ebpf::flow::BUCKETS;
use probe_ebpf::record::KernelLoss;
use probe_ebpf::slots::GRACE_NS;
use voxlab::frames::{Datagram, invite, rtcp, rtp, sip, udp};
use voxlab::privileges::root_for;
use voxlab::tunnels::{gre, tunnel};
use voxprobe::capture::live::{
    KernelCounters, KernelShed, LiveCapture, LiveOptions, Mode, Record, Records as _, RingReader,
};
use voxprobe::capture::xsk::MirrorOptions;
use voxprobe::packet::{Endpoint, Flow};

const XDP_DROP: u32 = 1;
const XDP_PASS: u32 = 2;

/// The programs of one configuration, attached nowhere.
struct Bench {
    capture: LiveCapture,
    rings: Option<RingReader>,
    shed: KernelShed,
}

impl Bench {
    fn new(mode: Mode, config: Config) -> Self {
        let egress = mode == Mode::Tap;
        let options = LiveOptions { mode, egress, config, ring_bytes: 1 << 16, ..LiveOptions::new(["lo"]) };
        let mut capture = LiveCapture::detached(&options).unwrap();
        let (rings, shed) = (capture.take_rings(), capture.take_shed().unwrap());
        Self { capture, rings, shed }
    }

    /// Runs a frame through a program. What was returned, how many records came, and under which losses it was counted.
    fn run(&mut self, egress: bool, frame: &[u8]) -> (u32, Vec<(u32, u32)>, Vec<&'static str>) {
        let before = self.capture.counters().unwrap();
        let run = self.capture.test_run(egress, frame, 1).unwrap();
        assert!(run.frame == frame, "the frame was changed");
        let after = self.capture.counters().unwrap();
        assert_eq!(after.matched(), before.matched() + 1, "it counts as matched all the same");
        let mut records = Vec::new();
        if let Some(rings) = &mut self.rings {
            // The reader hands out nothing younger.
            thread::sleep(Duration::from_nanos(2 * GRACE_NS));
            rings.poll(100, |record| {
                records.push(match record {
                    Record::Packet(head, bytes) => {
                        assert_eq!(head.captured_len as usize, bytes.len());
                        (head.captured_len, head.wire_len)
                    }
                    Record::Media4(_) | Record::Media6(_) => (0, 0),
                });
            });
        }
        (run.returned, records, grown(&before, &after))
    }
}

/// The losses that grew, each once per frame.
fn grown(before: &KernelCounters, after: &KernelCounters) -> Vec<&'static str> {
    let (before, after) = (before.total().losses, after.total().losses);
    let steps = KernelLoss::ALL.into_iter().zip(before).zip(after);
    steps.flat_map(|((loss, before), after)| (before..after).map(move |_| loss.name())).collect()
}

/// Media between two hosts at the n-th pair of ports, over IPv4, IPv6 or under two tags; and the same back.
fn session(n: u16) -> (Datagram, Datagram) {
    let there = rtp().varied(160).over(udp().ports(20_000 + 2 * n, 30_000 + 4 * n));
    let of = match n % 3 {
        0 => there,
        1 => there.v6(),
        _ => there.tag(0x88a8, 3).tag(0x8100, 4),
    };
    (of.clone(), of.reversed())
}

/// As the analysis computes it.
fn bucket_of(datagram: &Datagram) -> u8 {
    Flow { src: Endpoint::from(datagram.src), dst: Endpoint::from(datagram.dst) }.bucket()
}

#[test]
fn a_level_leaves_out_the_sessions_below_it_in_both_directions_and_at_every_tap() {
    if !root_for("a_level_leaves_out_the_sessions_below_it_in_both_directions_and_at_every_tap") {
        return;
    }
    let mut bench = Bench::new(Mode::Tap, Config::DEFAULT);
    let head = vec![(0, 0)];
    let mut left_out = 0;
    for n in 0..200 {
        let (there, back) = session(n);
        let bucket = bucket_of(&there);
        assert_eq!(bucket_of(&back), bucket);
        for (level, is_left_out) in [(0, false), (u32::from(bucket), false), (u32::from(bucket) + 1, true)] {
            assert!(bench.shed.set(level));
            let expected = if is_left_out { (Vec::new(), vec!["shed"]) } else { (head.clone(), Vec::new()) };
            for (datagram, egress) in [(&there, false), (&back, false), (&there, true)] {
                let (_, records, losses) = bench.run(egress, &datagram.ethernet());
                assert_eq!((records, losses), expected, "session {n}, bucket {bucket}, level {level}");
                left_out += u32::from(is_left_out);
            }
        }
    }
    assert_eq!(left_out, 600);
}

#[test]
fn what_is_no_plain_rtp_is_never_left_out() {
    if !root_for("what_is_no_plain_rtp_is_never_left_out") {
        return;
    }
    let media = || rtp().varied(160).over(udp());
    let kept = [
        ("SIP", sip(&invite(900))),
        ("RTCP", udp().ports(20_000, 30_001).payload(&rtcp())),
        ("a fragment", media().fragment(0x2000)),
        ("media in GRE", gre(&media().ip()).over(tunnel())),
    ];
    let mut bench = Bench::new(Mode::Tap, Config { sampled_below: 255, ..Config::DEFAULT });
    assert!(bench.shed.set(BUCKETS));
    for (name, datagram) in kept {
        let (_, records, losses) = bench.run(false, &datagram.ethernet());
        assert_eq!((records.len(), losses), (1, Vec::new()), "{name}");
    }
    let event = rtp().payload(&[1, 10, 0, 160]).over(udp());
    for media in [media(), event] {
        let (_, records, losses) = bench.run(false, &media.ethernet());
        assert_eq!((records.len(), losses.len()), (0, 1));
    }
}

#[test]
fn what_is_sampled_out_and_what_is_shed_have_names_of_their_own() {
    if !root_for("what_is_sampled_out_and_what_is_shed_have_names_of_their_own") {
        return;
    }
    let mut bench = Bench::new(Mode::Tap, Config { sampled_below: 128, ..Config::DEFAULT });
    let mut by_name = [0; 3];
    for level in [128, 192] {
        assert!(level == 128 || bench.shed.set(level), "the loader sets what configuration leaves out");
        for n in 0..100 {
            let (datagram, _) = session(n);
            let bucket = u32::from(bucket_of(&datagram));
            let expected: &[&str] = match bucket {
                0..128 => &["sampled_out"],
                _ if bucket < level => &["shed"],
                _ => &[],
            };
            let (_, records, losses) = bench.run(false, &datagram.ethernet());
            assert_eq!((records.len(), losses.as_slice()), (usize::from(expected.is_empty()), expected));
            by_name[expected.first().map_or(0, |name| 1 + usize::from(*name == "shed"))] += 1;
        }
    }
    assert!(by_name.iter().all(|count| *count > 10), "{by_name:?}");
}

#[test]
fn a_mirror_port_drops_what_is_left_out_and_nothing_else() {
    if !root_for("a_mirror_port_drops_what_is_left_out_and_nothing_else") {
        return;
    }
    let mut bench = Bench::new(Mode::Mirror(MirrorOptions::DEFAULT), Config::DEFAULT);
    assert!(bench.shed.set(128));
    for n in 0..50 {
        let (datagram, _) = session(n);
        let expected = if bucket_of(&datagram) < 128 { (XDP_DROP, "shed") } else { (XDP_PASS, "no_socket") };
        let (returned, _, losses) = bench.run(false, &datagram.ethernet());
        assert_eq!((returned, losses), (expected.0, vec![expected.1]), "session {n}");
    }
    let (returned, _, losses) = bench.run(false, &sip(&invite(900)).ethernet());
    assert_eq!((returned, losses), (XDP_PASS, vec!["no_socket"]));
}

#[test]
fn whole_frames_are_cut_at_the_snap_and_counted() {
    if !root_for("whole_frames_are_cut_at_the_snap_and_counted") {
        return;
    }
    let mut bench = Bench::new(Mode::Tap, Config { snap: MIN_SNAP, ..Config::DEFAULT });
    let (short, long) = (sip(&invite(400)).ethernet(), sip(&invite(2_000)).ethernet());
    let tls = voxlab::frames::tcp().ports(20_000, 5061).payload(&[3; 700]).ethernet();
    let length = |frame: &[u8]| u32::try_from(frame.len()).unwrap();
    let mut cut = 0;
    for (frame, taken, is_cut) in
        [(&short, length(&short), false), (&long, u32::from(MIN_SNAP), true), (&tls, 128, false)]
    {
        let (_, records, losses) = bench.run(false, frame);
        assert_eq!((records, losses), (vec![(taken, length(frame))], Vec::new()));
        cut += u64::from(is_cut);
        assert_eq!(bench.capture.counters().unwrap().total().cut, cut);
    }
    // Of what finds no room nothing is taken, and so nothing cut.
    for mode in [Mode::Tap, Mode::Mirror(MirrorOptions::DEFAULT)] {
        let mut bench = Bench::new(mode, Config { snap: MIN_SNAP, ..Config::DEFAULT });
        bench.capture.test_run(false, &long, 1_000).unwrap();
        let total = bench.capture.counters().unwrap().total();
        let lost: u64 = total.losses.iter().sum();
        assert!(lost > 0 && total.cut + lost == 1_000, "{mode:?}: {total:?}");
    }
}

/// What a frame costs at a level, by the kernel's own count: all are taken, others are shed, it is shed. In turns, as the
/// machine may be busy with something else.
#[test]
#[ignore = "a measurement"]
fn what_a_frame_costs_while_media_is_shed() {
    const ROUNDS: usize = 31;
    const REPEAT: u32 = 50_000;
    let (media, _) = session(0);
    let bucket = u32::from(bucket_of(&media));
    let options = LiveOptions { ring_bytes: 8 << 20, ..LiveOptions::new(["lo"]) };
    let mut capture = LiveCapture::detached(&options).unwrap();
    let (mut rings, mut shed) = (capture.take_rings().unwrap(), capture.take_shed().unwrap());
    let levels = [("all are taken", 0), ("others are shed", bucket), ("it is shed", bucket + 1)];
    let mut times = [const { Vec::new() }; 3];
    for _ in 0..ROUNDS {
        for ((_, level), times) in levels.iter().zip(&mut times) {
            assert!(shed.set(*level));
            times.push(capture.test_run(false, &media.ethernet(), REPEAT).unwrap().mean);
            while rings.poll(65_536, |_| ()) > 0 {}
        }
    }
    for ((name, _), mut times) in levels.into_iter().zip(times) {
        times.sort_unstable();
        let (least, median) = (times[0].as_nanos(), times[ROUNDS / 2].as_nanos());
        println!("{name:16} {median:4} ns a frame, {least} at least");
    }
    assert_eq!(capture.counters().unwrap().total().losses[KernelLoss::RingFull as usize], 0);
}

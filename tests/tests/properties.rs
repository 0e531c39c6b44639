//! What must hold for every capture: the truth of what was sent is met, and what says nothing about the network
//! (copies, threads, files, the order in which streams interleave) changes nothing.
//!
//! Captures are drawn from a seed, so that a failing case is one number; see [`World`].

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

use proptest::prelude::*;
use serde_json::{Value, json};
use voxlab::captures::{Scratch, Timed, Writer, files_below};
use voxlab::conformance::generated;
use voxlab::frames::{Datagram, rtp, udp};
use voxlab::random::Random;
use voxprobe::pipeline::offline::{AnalyzeError, Options, RtpRule, analyze, analyze_and_classify};
use voxprobe::report::contract::Report;

/// Fields that name a frame by its number in the file: another file, another number.
const NUMBERS: [&str; 6] = ["max_packet", "packet", "examples", "evidence", "first_frame", "frame"];

/// What a stream's sender and network did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Truth {
    ssrc: u32,
    sent: u64,
    lost: u64,
    late: u64,
}

/// A call and a few streams, one of them the call's.
struct World {
    signalling: Vec<Timed>,
    /// Frames by stream, in the order in which they come, and what is true of them.
    streams: Vec<(Vec<(u64, Datagram)>, Truth)>,
}

impl World {
    /// Up to six streams of 60 to 300 packets: jitter below the packet interval, loss up to 10 %, packets held
    /// until their successor has gone, numbers that start anywhere.
    fn of(seed: u64) -> Self {
        let mut random = Random::new(seed);
        let signalling = generated::signalling().to_vec();
        let begin = signalling.iter().map(|(time, _)| *time).max().unwrap() + 1_000_000;
        let count = 1 + random.next_u64() % 6;
        let streams = (0..count).map(|at| stream(&mut Random::derived(seed, at), at, begin)).collect();
        Self { signalling, streams }
    }

    /// In the order of time, each frame `1 + copies` times: copies come later by less than a packet interval, from taps
    /// that differ in a MAC.
    fn frames(&self, copies: u8) -> Vec<Timed> {
        let mut frames = Vec::new();
        for copy in 0..=copies {
            frames.extend(self.signalling.iter().map(|(time, frame)| {
                let mut frame = frame.clone();
                frame[5] ^= copy;
                (time + u64::from(copy) * 31_000, frame)
            }));
            for (at, (packets, _)) in self.streams.iter().enumerate() {
                // Another delay for each stream, up to several packets of it.
                let delay = u64::from(copy) * (31_000 + at as u64 * 7_000_000);
                frames.extend(packets.iter().map(|(time, datagram)| {
                    let mut tapped = datagram.clone();
                    tapped.dst_mac[5] ^= copy;
                    (time + delay, tapped.ethernet())
                }));
            }
        }
        frames.sort_by_key(|(time, _)| *time);
        frames
    }

    /// Each stream in its order, but which comes next is drawn: as captures of several interfaces are, merged badly.
    fn shuffled(&self, seed: u64) -> Vec<Timed> {
        let mut random = Random::new(seed);
        let mut frames = self.signalling.clone();
        let mut queues: Vec<_> = self.streams.iter().map(|(packets, _)| packets.iter()).collect();
        while !queues.is_empty() {
            let at = usize::try_from(random.next_u64()).unwrap() % queues.len();
            match queues[at].next() {
                Some((time, datagram)) => frames.push((*time, datagram.ethernet())),
                None => drop(queues.swap_remove(at)),
            }
        }
        frames
    }
}

#[expect(clippy::cast_possible_truncation, reason = "numbers wrap")]
fn stream(random: &mut Random, at: u64, begin: u64) -> (Vec<(u64, Datagram)>, Truth) {
    let packets = 60 + random.next_u64() % 240;
    let (loss, held) = (random.unit() * 0.1, random.unit() * 0.05);
    let (first_seq, first_timestamp, ssrc) = (random.next_u32() as u16, random.next_u32(), random.next_u32());
    let (src, dst) = if at == 0 {
        (generated::caller(), generated::called())
    } else {
        let host = |last: u8| IpAddr::V4(Ipv4Addr::new(10, 0, at as u8, last));
        (SocketAddr::new(host(1), 4_000), SocketAddr::new(host(2), 5_000))
    };
    let mut sent = Vec::new();
    let mut truth = Truth { ssrc, sent: packets, ..Truth::default() };
    let mut holding: Option<(u64, Datagram)> = None;
    for n in 0..packets {
        // Three draws a packet, whatever they decide.
        let (jitter, is_lost, is_held) =
            (random.next_u64() % 5_000_000, random.chance(loss), random.chance(held));
        let inner = n > 0 && n + 1 < packets;
        let time = begin + at * 1_234_567 + n * 20_000_000 + jitter;
        if is_lost && inner {
            truth.lost += 1;
            continue;
        }
        let seq = first_seq.wrapping_add(n as u16);
        let mut packet = rtp().seq(seq).ssrc(ssrc).varied(160);
        packet.timestamp = first_timestamp.wrapping_add(n as u32 * 160);
        let mut datagram = packet.over(udp().between(src, dst).ip_id(n as u16 + 1));
        if at % 3 == 1 {
            datagram = datagram.vlan(100);
        }
        if at % 3 == 2 {
            datagram = datagram.v6();
        }
        match holding.take() {
            Some((_, held)) => {
                truth.late += 1;
                sent.extend([(time, datagram), (time + 1_000_000, held)]);
            }
            None if is_held && inner => holding = Some((time, datagram)),
            None => sent.push((time, datagram)),
        }
    }
    (sent, truth)
}

/// The report of a capture cut into files before these frames.
fn report(frames: &[Timed], cuts: &[usize], threads: usize) -> Value {
    static CASE: AtomicU32 = AtomicU32::new(0);
    let scratch = Scratch::new(&format!("property-{}", CASE.fetch_add(1, Ordering::Relaxed))).unwrap();
    let mut cuts: Vec<_> = cuts.iter().map(|cut| cut % (frames.len() + 1)).collect();
    cuts.extend([0, frames.len()]);
    cuts.sort_unstable();
    let part = |(n, ends): (usize, &[usize])| -> PathBuf {
        scratch.file(&format!("{n}.pcapng"), &Writer::PCAP_NG.file(&frames[ends[0]..ends[1]])).unwrap()
    };
    let files: Vec<_> = cuts.windows(2).enumerate().map(part).collect();
    let report = analyze(&files, &Options { threads, ..Options::default() }, |_, _| ()).unwrap();
    let mut report = serde_json::to_value(&report).unwrap();
    report["capture"]["sources"] = Value::Null;
    report
}

/// Without the fields of these names, at any depth.
fn without(mut value: Value, names: &[&str]) -> Value {
    match &mut value {
        Value::Object(fields) => {
            fields.retain(|name, _| !names.contains(&name.as_str()));
            fields.values_mut().for_each(|field| *field = without(field.take(), names));
        }
        Value::Array(list) => list.iter_mut().for_each(|item| *item = without(item.take(), names)),
        _ => {}
    }
    value
}

/// Streams in an order of their own, without frame numbers.
fn streams(report: &Value) -> Vec<Value> {
    let mut streams = without(report["streams"].clone(), &NUMBERS).as_array().unwrap().clone();
    streams.sort_by_key(|stream| stream["ssrc"].as_str().unwrap().to_owned());
    streams
}

/// What a stream says of the network: everything but the raw ledger and the copies.
fn of_first_copies(report: &Value) -> Vec<Value> {
    let of_copies =
        ["raw", "duplicates", "marked_by_tshark", "end_s", "delivery", "redundancy", "message_copies"];
    streams(report).into_iter().map(|stream| without(stream, &of_copies)).collect()
}

/// Frame by frame and each decoded in full, in batches with a short way for plain RTP, and by several threads.
fn in_every_way(path: &Path, rtp: RtpRule) -> Vec<Result<Value, String>> {
    let paths = [path.to_owned()];
    let options = |threads| Options { threads, rtp, ..Options::default() };
    let document = |report: Result<Report, AnalyzeError>| {
        report.map(|report| serde_json::to_value(&report).unwrap()).map_err(|error| error.to_string())
    };
    let by_frames = analyze_and_classify(&paths, &options(1), |_, _| ()).map(|(report, _)| report);
    let by_threads = |threads| analyze(&paths, &options(threads), |_, _| ());
    vec![document(by_frames), document(by_threads(1)), document(by_threads(3))]
}

#[test]
fn real_captures_give_the_same_document_in_every_way_of_reading_them() {
    let Some(folder) = voxlab::shared_captures() else { return };
    for path in files_below(&folder) {
        for rtp in [RtpRule::Sdp, RtpRule::Auto, RtpRule::Any] {
            let [by_frames, batched, by_threads] = in_every_way(&path, rtp).try_into().unwrap();
            assert_eq!(by_frames, batched, "{} {rtp:?}", path.display());
            assert_eq!(batched, by_threads, "{} {rtp:?}", path.display());
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn what_was_sent_lost_late_and_copied_is_met_exactly(seed in any::<u64>(), copies in 0_u8..4) {
        let world = World::of(seed);
        let report = report(&world.frames(copies), &[], 1);
        let streams = streams(&report);
        prop_assert_eq!(streams.len(), world.streams.len());
        for (packets, truth) in &world.streams {
            let ssrc = json!(format!("0x{:08x}", truth.ssrc));
            let stream = streams.iter().find(|stream| stream["ssrc"] == ssrc).unwrap();
            let arrived = packets.len() as u64;
            let figures = json!([
                stream["unique"]["expected"], stream["unique"]["packets"], stream["unique"]["lost"],
                stream["reordered"], stream["duplicates"]["total"], stream["raw"]["packets"],
            ]);
            let expected = json!([
                truth.sent, arrived, truth.lost, truth.late, arrived * u64::from(copies),
                arrived * (1 + u64::from(copies)),
            ]);
            prop_assert_eq!(figures, expected, "{:?}", truth);
        }
        prop_assert_eq!(&report["sip"]["messages"], 2);
        prop_assert_eq!(&report["sip"]["copies"], 2 * u64::from(copies));
    }

    #[test]
    fn copies_of_every_frame_change_nothing_in_what_is_said_of_the_network(seed in any::<u64>(), copies in 1_u8..4) {
        let world = World::of(seed);
        let (once, often) = (report(&world.frames(0), &[], 1), report(&world.frames(copies), &[], 1));
        prop_assert_eq!(of_first_copies(&once), of_first_copies(&often));
    }

    #[test]
    fn any_number_of_shards_gives_the_same_document(seed in any::<u64>(), shards in 2_usize..9) {
        let frames = World::of(seed).frames(1);
        prop_assert_eq!(report(&frames, &[], 1), report(&frames, &[], shards));
    }

    #[test]
    fn any_cut_of_a_capture_into_files_gives_the_same_document(
        seed in any::<u64>(),
        cuts in prop::collection::vec(any::<usize>(), 0..5),
    ) {
        let frames = World::of(seed).frames(1);
        prop_assert_eq!(report(&frames, &[], 1), report(&frames, &cuts, 1));
    }

    #[test]
    fn the_order_in_which_streams_interleave_changes_no_stream(seed in any::<u64>(), order in any::<u64>()) {
        let world = World::of(seed);
        let (sorted, shuffled) = (report(&world.frames(0), &[], 1), report(&world.shuffled(order), &[], 1));
        prop_assert_eq!(streams(&sorted), streams(&shuffled));
        prop_assert_eq!(&sorted["sip"], &shuffled["sip"]);
    }
}

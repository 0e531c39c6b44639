//! Input that wants to hurt: floods of streams, storms of numbers, lengths that lie, files that break off anywhere.
//! Memory stays bounded, what had to go is counted, the account stays exact, and nothing panics.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::fs::File;
use std::io::{BufWriter, Write as _};
use std::path::Path;
use std::process::{Command, Stdio};

use proptest::prelude::*;
use serde_json::Value;
use voxlab::captures::{Scratch, Timed, Writer};
use voxlab::conformance::generated;
use voxlab::frames::{Rtp, rtp, sip, tcp, udp};
use voxlab::privileges::skipped;
use voxlab::probe::Probe;
use voxlab::random::Random;
use voxprobe::pipeline::offline::{AnalyzeError, Options, RtpRule, analyze};

const START_NS: u64 = 1_700_000_000_000_000_000;

/// Analyses and checks what always holds.
fn report(path: &Path, options: &Options) -> Result<Value, AnalyzeError> {
    let report = analyze(&[path.to_owned()], options, |_, _| ())?;
    let capture = &report.capture;
    assert_eq!(capture.matched, capture.analysed + capture.losses.values().sum::<u64>(), "{capture:?}");
    let json = serde_json::to_value(&report).unwrap();
    for stream in json["streams"].as_array().unwrap() {
        let count = |path: &str| stream.pointer(path).unwrap().as_u64().unwrap();
        assert_eq!(
            count("/raw/packets"),
            count("/unique/packets") + count("/duplicates/total") + count("/conflicts") + count("/unplaced"),
            "every frame is one of these: {stream:#}"
        );
        // JSON has no infinity: what is not a number became null.
        assert_eq!(
            null_at(&stream["raw"]).or(null_at(&stream["unique"]).filter(|_| stream["mos"].is_object())),
            None
        );
    }
    // The text for people is made of the same; it must come, too.
    assert!(!voxprobe::report::text::render(&report).is_empty());
    assert!(report.streams.is_empty() || !voxprobe::report::detail::render(&report).is_empty());
    Ok(json)
}

/// The first field without a value, except the drift of a stream without a clock.
fn null_at(ledger: &Value) -> Option<String> {
    match ledger {
        Value::Object(fields) => fields
            .iter()
            .filter(|(name, _)| !name.starts_with("clock_"))
            .find_map(|(name, value)| if value.is_null() { Some(name.clone()) } else { null_at(value) }),
        _ => None,
    }
}

fn everything() -> Options {
    Options { rtp: RtpRule::Any, ..Options::default() }
}

fn analyzed(name: &str, frames: &[Timed], options: &Options) -> Value {
    let scratch = Scratch::new(name).unwrap();
    report(&scratch.file("hostile.pcapng", &Writer::PCAP_NG.file(frames)).unwrap(), options).unwrap()
}

#[test]
fn a_million_streams_take_the_memory_that_was_allowed_and_are_counted() {
    const TEST: &str = "a_million_streams_take_the_memory_that_was_allowed_and_are_counted";
    const STREAMS: u64 = 1_000_000;
    const HELD: u64 = 4_000;
    let binary = match Probe::binary() {
        Ok(binary) => binary,
        Err(error) => return skipped(TEST, &format!("{error:#}")),
    };
    let scratch = Scratch::new("million").unwrap();
    let path = scratch.path().join("million.pcap");
    let mut file = BufWriter::new(File::create(&path).unwrap());
    file.write_all(&Writer::PCAP.classic_header()).unwrap();
    // One frame, whose SSRC is replaced: building a million would take most of the test's time.
    let mut frame = rtp().payload(&[0xd5; 4]).over(udp().checksum(0)).ethernet();
    for n in 0..STREAMS {
        frame[14 + 20 + 8 + 8..][..4].copy_from_slice(&u32::try_from(n).unwrap().to_be_bytes());
        file.write_all(&Writer::PCAP.classic(1_700_000_000 + n / 100_000, n % 100_000 * 10, &frame)).unwrap();
    }
    file.into_inner().unwrap();

    // All of them are of one flow, so of several threads one would have them all, and hold its part of the streams only.
    let mut child = Command::new(binary)
        .args(["analyze", "--json", "--rtp", "any", "--threads", "1", "--max-streams", &HELD.to_string()])
        .arg(&path)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let stdout = child.stdout.take().unwrap();
    let reader = std::thread::spawn(move || serde_json::from_reader::<_, Value>(stdout));
    let mut peak_kib = 0;
    while child.try_wait().unwrap().is_none() {
        peak_kib = peak_kib.max(peak_memory_kib(child.id()));
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
    let report = reader.join().unwrap().unwrap();
    let notes = report["capture"]["notes"].to_string();
    assert!(notes.contains(&format!("{} streams had to make room", STREAMS - HELD)), "{notes}");
    assert!(
        notes.contains(&format!("{} streams that made room cannot be listed", STREAMS - 2 * HELD)),
        "{notes}"
    );
    assert_eq!(report["streams"].as_array().unwrap().len() as u64, 2 * HELD);
    assert_eq!(
        (&report["capture"]["matched"], &report["capture"]["analysed"]),
        (&STREAMS.into(), &STREAMS.into())
    );
    // Held and listed streams at 3 to 4 KiB each, their reports, and the program: 40 MiB when this was written; all
    // million of them would be 3 GiB.
    eprintln!("peak memory {} MiB", peak_kib / 1024);
    assert!((1..256 * 1024).contains(&peak_kib), "{peak_kib} KiB at most");
}

/// What the process held at most so far; 0 once it has ended.
fn peak_memory_kib(id: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{id}/status")).unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    line.and_then(|line| line.split_whitespace().next()?.parse().ok()).unwrap_or(0)
}

#[test]
fn a_storm_of_sequence_numbers_is_counted_frame_by_frame() {
    let mut random = Random::new(1);
    for (name, mask) in [("storm-wide", 0xffff), ("storm-near", 0x00ff), ("storm-two-runs", 0x8003)] {
        let frame = |n: u64| {
            let seq = u16::try_from(random.next_u64() & mask).unwrap();
            let packet = Rtp { seq, timestamp: random.next_u32(), ..rtp() }.varied(20);
            (START_NS + n * 1_000_000, packet.over(udp()).ethernet())
        };
        let frames: Vec<_> = (0..20_000).map(frame).collect();
        let report = analyzed(name, &frames, &everything());
        assert_eq!(report["streams"][0]["raw"]["packets"], 20_000, "{name}");
    }
}

#[test]
fn timestamps_and_clocks_that_jump_leave_finite_figures() {
    let extremes = [0, 1, 0x7fff_ffff, 0x8000_0000, 0xffff_ffff];
    let times = [START_NS, 0, 4_294_967_295_000_000_000, START_NS - 1, START_NS + 86_400_000_000_000];
    let mut frames = Vec::new();
    for seq in 0..500_u16 {
        let at = usize::from(seq);
        let packet = Rtp { seq, timestamp: extremes[at % 5], marker: seq % 7 == 0, ..rtp() };
        frames.push((times[at / 3 % 5], packet.over(udp().ip_id(seq)).ethernet()));
    }
    for options in [everything(), Options::default()] {
        let report = analyzed("jumps", &frames, &options);
        assert_eq!(report["streams"][0]["raw"]["packets"], 500);
    }
}

#[test]
fn a_file_that_breaks_off_at_any_byte_is_read_up_to_there() {
    let mut frames = generated::signalling().to_vec();
    let begin = frames.last().unwrap().0;
    frames.extend((0..6).map(|n| {
        let packet = rtp().seq(n).payload(&[0xd5; 20]);
        let over = udp().between(generated::caller(), generated::called()).ip_id(n);
        (begin + u64::from(n) * 20_000_000, packet.over(over).ethernet())
    }));
    for (name, to) in [("cut.pcap", Writer::PCAP), ("cut.pcapng", Writer::PCAP_NG)] {
        let whole = to.file(&frames);
        let scratch = Scratch::new(name).unwrap();
        let mut before = 0;
        for length in 0..=whole.len() {
            let path = scratch.file(name, &whole[..length]).unwrap();
            // Without a frame it is an error; which one depends on the place.
            let Ok(report) = report(&path, &everything()) else {
                assert_eq!(before, 0, "{name}: {length} bytes are worse than fewer");
                continue;
            };
            let packets = report["capture"]["packets"].as_u64().unwrap();
            assert!(packets >= before, "{name}: {packets} frames in {length} bytes, {before} in fewer");
            before = packets;
        }
        assert_eq!(before, 8, "{name}");
    }
}

#[test]
fn lengths_that_lie_cost_no_memory_and_end_nothing() {
    let lie = |mut frame: Vec<u8>, at: usize, bytes: &[u8]| {
        frame[at..at + bytes.len()].copy_from_slice(bytes);
        frame
    };
    let packet = || rtp().over(udp()).ethernet();
    let message = |length: &str| {
        format!(
            "INVITE sip:b@example.com SIP/2.0\r\nCall-ID: a\r\nCSeq: 1 INVITE\r\nContent-Length: {length}\r\n\r\nv=0\r\n"
        )
    };
    let over_tcp = |text: &str| tcp().ports(5060, 5060).payload(text.as_bytes()).ethernet();
    let extended = {
        let mut bytes = rtp().bytes();
        bytes[0] |= 0x10;
        bytes[12..16].copy_from_slice(&[0xbe, 0xde, 0xff, 0xff]);
        udp().payload(&bytes).ethernet()
    };
    let sources = {
        let mut bytes = rtp().payload(&[]).bytes();
        bytes[0] |= 0x0f;
        udp().payload(&bytes).ethernet()
    };
    let many_lines = format!(
        "v=0\r\no=- 1 1 IN IP4 10.0.0.1\r\ns=-\r\nc=IN IP4 10.0.0.1\r\nt=0 0\r\n{}",
        "m=audio 65535 RTP/AVP 0\r\n".repeat(2_000)
    );
    let hostile: Vec<(&str, Vec<u8>)> = vec![
        ("IPv4 total length of 65,535", lie(packet(), 16, &[0xff, 0xff])),
        ("IPv4 total length of 0", lie(packet(), 16, &[0, 0])),
        ("IPv4 header length of 60", lie(packet(), 14, &[0x4f])),
        ("UDP length of 65,535", lie(packet(), 38, &[0xff, 0xff])),
        ("UDP length of 0", lie(packet(), 38, &[0, 0])),
        ("a fragment far out", lie(packet(), 20, &[0x3f, 0xff])),
        ("RTP extension of 262,140 bytes", extended),
        ("fifteen sources and no room for them", sources),
        ("TCP header length of 60", lie(over_tcp("x"), 46, &[0xf0])),
        ("Content-Length of 4 GiB over UDP", sip(&message("4294967295")).ethernet()),
        ("Content-Length of 4 GiB over TCP", over_tcp(&message("4294967295"))),
        ("Content-Length without end", over_tcp(&message(&"9".repeat(400)))),
        ("two thousand media lines", sip(&[message("60000").as_str(), &many_lines].concat()).ethernet()),
        ("a header without end", sip(&format!("{}{}", &message("0")[..40], "a".repeat(60_000))).ethernet()),
    ];
    for (name, frame) in &hostile {
        // Good frames around it must be read as if it were not there.
        let good = |seq: u16| {
            (
                START_NS + u64::from(seq) * 20_000_000,
                rtp().seq(seq).ssrc(7).over(udp().ports(20_002, 30_002).ip_id(seq)).ethernet(),
            )
        };
        let mut frames = vec![good(1), good(2)];
        frames.extend((0..50).map(|n| (START_NS + 50_000_000 + n, frame.clone())));
        frames.extend([good(3), good(4)]);
        let report = analyzed("lies", &frames, &everything());
        let streams = report["streams"].as_array().unwrap();
        let stream = streams.iter().find(|stream| stream["ssrc"] == "0x00000007").unwrap();
        assert_eq!(
            (&stream["unique"]["packets"], &stream["unique"]["lost"]),
            (&4.into(), &0.into()),
            "{name}"
        );
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn damaged_frames_end_nothing(seed in any::<u64>(), damage in 1_usize..200) {
        let mut random = Random::new(seed);
        let mut frames = generated::signalling().to_vec();
        let begin = frames.last().unwrap().0;
        frames.extend((0..40).map(|n| {
            let over = udp().between(generated::caller(), generated::called()).ip_id(n);
            (begin + u64::from(n) * 20_000_000, rtp().seq(n).varied(40).over(over).ethernet())
        }));
        for _ in 0..damage {
            let at = usize::try_from(random.next_u64()).unwrap() % frames.len();
            let frame = &mut frames[at].1;
            let byte = usize::try_from(random.next_u64()).unwrap() % frame.len();
            match random.next_u64() % 3 {
                0 => frame.truncate(byte.max(1)),
                1 => frame[byte] = u8::MAX,
                _ => frame[byte] = random.next_u64().to_le_bytes()[0],
            }
        }
        for options in [everything(), Options::default()] {
            let report = analyzed("damage", &frames, &options);
            prop_assert_eq!(&report["capture"]["packets"], frames.len());
        }
    }
}

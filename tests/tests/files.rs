//! Capture files from the outside: real ones against tshark's numbers, generated ones in every format, and
//! damaged ones against the exact words.
#![expect(clippy::unwrap_used, reason = "helpers of tests: a failure is a failed test")]

#[path = "files/tshark.rs"]
mod tshark;

use std::io::Write as _;
use std::path::{Path, PathBuf};

use flate2::Compression;
use flate2::write::GzEncoder;
use proptest::collection::vec;
use proptest::prelude::*;
use voxlab::captures::{Format, Scratch, Timed, Writer};
use voxlab::frames::{rtp, udp};
use voxprobe::capture::file::{FileError, Frame, FrameBatch, Frames};

/// A frame as the reader saw it: time, number, interface, bytes, length on the wire.
type Seen = (u64, u64, u16, Vec<u8>, u32);

const START_NS: u64 = 1_700_000_000_123_456_000;

#[test]
fn shared_captures_have_the_frames_and_times_that_tshark_sees() {
    let Some(captures) = voxlab::shared_captures() else { return };
    for (name, count, first, last) in tshark::TSHARK {
        let (seen, cut_short) = read(&captures.join(name));
        assert_eq!(cut_short, None, "{name}");
        let times = (seen.first().map(|frame| frame.0), seen.last().map(|frame| frame.0));
        assert_eq!((seen.len(), times), (*count, (Some(*first), Some(*last))), "{name}");
        assert!(seen.iter().map(|frame| frame.1).eq(1..=*count as u64), "{name}: numbers");
    }
}

#[test]
fn every_format_byte_order_and_compression_gives_the_same_frames() {
    let frames = sample();
    let expected: Vec<Seen> = (1..)
        .zip(&frames)
        .map(|(number, (time, bytes))| (*time, number, 0, bytes.clone(), u32::try_from(bytes.len()).unwrap()))
        .collect();
    let scratch = Scratch::new("formats").unwrap();
    for format in [Format::Micros, Format::Nanos, Format::Enhanced, Format::Obsolete] {
        for big_endian in [false, true] {
            let plain = Writer { format, big_endian, link: 1 }.file(&frames);
            for (packed, how) in [(plain.clone(), "plain"), (gzip(&plain), "gzip"), (zstd(&plain), "zstd")] {
                let path = put(&scratch, "capture", &packed);
                assert_eq!(read(&path), (expected.clone(), None), "{format:?} {big_endian} {how}");
            }
        }
    }
}

#[test]
fn frames_that_lie_across_blocks_come_whole_one_by_one_and_in_batches() {
    // Some megabytes, in lengths that meet the ends of blocks in every way; one frame in a hundred is larger than most.
    let length = |n: usize| if n.is_multiple_of(100) { 200_000 } else { 60 + n * 7 % 1_400 };
    let byte = |n: usize| n.to_le_bytes()[0];
    let frames: Vec<Timed> =
        (0..5_000).map(|n| (START_NS + n as u64 * 1_000, vec![byte(n); length(n)])).collect();
    let scratch = Scratch::new("across").unwrap();
    for format in [Format::Micros, Format::Enhanced] {
        let plain = Writer { format, ..Writer::PCAP }.file(&frames);
        for (name, bytes) in [("plain", plain.clone()), ("gzip", gzip(&plain))] {
            let path = put(&scratch, name, &bytes);
            let mut expected = (1..).zip(&frames);
            let mut check = |frame: Frame<'_>, how| {
                let (number, (time, bytes)) = expected.next().unwrap();
                assert_eq!((frame.time.0, frame.number), (*time, number), "{format:?} {name} {how}");
                assert!(frame.bytes == bytes, "{format:?} {name} {how} {number}");
            };
            // One by one as well, between batches, and batches that come back late.
            let mut reader = Frames::open(&path).unwrap();
            let mut batches = [FrameBatch::default(), FrameBatch::default(), FrameBatch::default()];
            for turn in 0.. {
                let batch = &mut batches[turn % 3];
                if !reader.fill(batch) {
                    break;
                }
                batch.iter().for_each(|frame| check(frame, "batch"));
                if turn % 4 == 0
                    && let Some(frame) = reader.next_frame()
                {
                    check(frame, "alone");
                }
            }
            assert_eq!((expected.next(), reader.cut_short()), (None, None));
            assert!(reader.next_frame().is_none() && !reader.fill(&mut batches[0]));
            assert!(batches[0].is_empty());
        }
    }
}

#[test]
fn pcapng_clocks_of_any_resolution_and_offset_are_read() {
    let scratch = Scratch::new("clocks").unwrap();
    let frame = udp().payload(b"x").ethernet();
    for big_endian in [false, true] {
        let to = Writer { big_endian, ..Writer::PCAP_NG };
        let file = [
            to.section(),
            to.interface("micros", None, None, 0),
            to.interface("halves", Some(0x81), Some(-3), 0),
            to.interface("seconds", Some(0), Some(100), 0),
            to.enhanced(0, 1_000_001, &frame),
            to.enhanced(1, 21, &frame),
            to.enhanced(2, 7, &frame),
        ];
        let (seen, cut_short) = read(&put(&scratch, "clocks.pcapng", &file.concat()));
        let times: Vec<_> = seen.iter().map(|frame| (frame.0, frame.2)).collect();
        assert_eq!(cut_short, None);
        assert_eq!(times, [(1_000_001_000, 0), (7_500_000_000, 1), (107_000_000_000, 2)], "{big_endian}");
    }
}

#[test]
fn interfaces_of_later_sections_are_taps_of_their_own() {
    let (little, big) = (Writer::PCAP_NG, Writer { big_endian: true, ..Writer::PCAP_NG });
    let frame = udp().payload(b"x").ethernet();
    let file = [
        little.section(),
        little.interface("a", Some(9), None, 0),
        little.enhanced(0, 5, &frame),
        big.section(),
        big.interface("b", Some(9), None, 0),
        big.enhanced(0, 6, &frame),
    ];
    let scratch = Scratch::new("sections").unwrap();
    let mut frames = Frames::open(&put(&scratch, "two.pcapng", &file.concat())).unwrap();
    let mut taps = Vec::new();
    while let Some(frame) = frames.next_frame() {
        taps.push((frame.time.0, frame.interface));
    }
    let names: Vec<_> =
        frames.interfaces().iter().filter_map(|interface| interface.name.as_deref()).collect();
    assert_eq!((taps, names), (vec![(5, 0), (6, 1)], vec!["a", "b"]));
}

#[test]
fn simple_packets_take_the_last_time_and_end_at_the_snap_length() {
    let to = Writer::PCAP_NG;
    let frame = udp().payload(&[7; 60]).ethernet();
    let file = [
        to.section(),
        to.interface("a", Some(9), None, 53),
        to.enhanced(0, 9, &frame[..53]),
        to.simple(frame.len() as u64, &frame[..53]),
    ];
    let scratch = Scratch::new("simple").unwrap();
    let (seen, _) = read(&put(&scratch, "simple.pcapng", &file.concat()));
    assert_eq!(seen.last(), Some(&(9, 2, 0, frame[..53].to_vec(), u32::try_from(frame.len()).unwrap())));
}

#[test]
fn fcs_bits_above_the_link_type_are_not_part_of_it() {
    let mut file = Writer::PCAP.file(&sample());
    file[23] = 0x44; // four bytes of FCS, and the bit that says so
    let scratch = Scratch::new("fcs").unwrap();
    assert_eq!(read(&put(&scratch, "fcs.pcap", &file)).0.len(), sample().len());
}

#[test]
fn a_file_cut_anywhere_gives_what_was_before_and_says_so() {
    let frames = sample();
    let scratch = Scratch::new("cut").unwrap();
    for to in [Writer::PCAP, Writer { big_endian: true, ..Writer::PCAP }, Writer::PCAP_NG] {
        let whole = to.file(&frames);
        let header = to.file(&[]).len();
        // Where each frame ends: the prefix files themselves say.
        let ends: Vec<_> = (0..=frames.len()).map(|n| to.file(&frames[..n]).len()).collect();
        for length in header..=whole.len() {
            let (seen, cut_short) = read(&put(&scratch, "cut", &whole[..length]));
            assert_eq!(seen.len(), ends[1..].iter().filter(|&&end| end <= length).count(), "{to:?} {length}");
            let reason = (!ends.contains(&length)).then_some("the file ends inside a frame");
            assert_eq!(cut_short, reason, "{to:?} {length}");
        }
    }
}

#[test]
fn lying_lengths_end_the_capture_after_the_frames_before() {
    let frames = sample();
    let scratch = Scratch::new("lies").unwrap();
    for big_endian in [false, true] {
        for length in [262_145_u32, u32::MAX] {
            let to = Writer { big_endian, ..Writer::PCAP };
            let mut lie = to.classic(1, 1, &[0; 64]);
            lie.splice(8..12, if big_endian { length.to_be_bytes() } else { length.to_le_bytes() });
            let path = put(&scratch, "lie.pcap", &[to.file(&frames), lie].concat());
            let (seen, cut_short) = read(&path);
            assert_eq!(seen.len(), frames.len());
            assert_eq!(cut_short, Some("a frame claims to be longer than 256 KiB"), "{length}");
        }
        let to = Writer { big_endian, ..Writer::PCAP_NG };
        let mut lie = to.enhanced(0, 1, &[0; 64]);
        lie.splice(20..24, [0, 1, 1, 0]);
        let path = put(&scratch, "lie.pcapng", &[to.file(&frames), lie].concat());
        let (seen, cut_short) = read(&path);
        assert_eq!(
            (seen.len(), cut_short),
            (frames.len(), Some("a frame claims to be longer than its block"))
        );
    }
}

#[test]
fn what_is_wrong_in_a_block_without_a_frame_does_not_end_the_capture() {
    let frames = sample();
    let scratch = Scratch::new("passed").unwrap();
    for big_endian in [false, true] {
        let to = Writer { big_endian, ..Writer::PCAP_NG };
        let words = |words: &[u32]| -> Vec<u8> {
            let octets = |word: &u32| if big_endian { word.to_be_bytes() } else { word.to_le_bytes() };
            words.iter().flat_map(octets).collect()
        };
        // Names without the record that ends them, names whose record is longer than the block, and nothing at all.
        let record = words(&[4, 16, if big_endian { 0x0001_0000 } else { 1 }, 16]);
        let too_long = words(&[4, 16, if big_endian { 0x0001_0400 } else { 0x0400_0001 }, 16]);
        for block in [record, too_long, words(&[4, 12, 12]), words(&[0xbad, 12, 12])] {
            let mut file =
                [to.section(), block.clone(), to.interface("a", Some(9), None, 0), block.clone()].concat();
            for (time, frame) in &frames {
                file.extend(to.enhanced(0, *time, frame));
                file.extend(&block);
            }
            let (seen, cut_short) = read(&put(&scratch, "passed.pcapng", &file));
            assert_eq!((seen.len(), cut_short), (frames.len(), None), "{block:02x?}");
        }
        // Two lengths that differ leave open where the next block begins.
        let torn = [to.file(&frames), words(&[4, 16, 0, 20])].concat();
        let (seen, cut_short) = read(&put(&scratch, "torn.pcapng", &torn));
        assert_eq!((seen.len(), cut_short.is_some()), (frames.len(), true));
    }
}

#[test]
fn interfaces_without_number_end_the_capture_after_the_frames_before() {
    let to = Writer::PCAP_NG;
    let frame = udp().payload(b"x").ethernet();
    let begin = [to.section(), to.interface("a", Some(9), None, 0), to.enhanced(0, 5, &frame)].concat();
    let sections = [to.section(), to.interface(&"long".repeat(100), None, None, 0)].concat();
    let scratch = Scratch::new("interfaces").unwrap();
    let last = to.enhanced(0, 6, &frame);
    for (described, seen, reason) in
        [(65_535, 2, None), (65_536, 1, Some("more than 65,536 interfaces are described"))]
    {
        let file = [&begin[..], &sections.repeat(described), &last].concat();
        let path = put(&scratch, "many.pcapng", &file);
        assert_eq!((read(&path).0.len(), read(&path).1), (seen, reason), "{described}");
        let mut frames = Frames::open(&path).unwrap();
        while frames.next_frame().is_some() {}
        assert!(frames.interfaces().iter().skip(1).all(|interface| interface.name.is_none()));
    }
}

#[test]
fn what_is_not_a_capture_is_named() {
    let scratch = Scratch::new("others").unwrap();
    let cases: [(&[u8], &str); 4] = [
        (b"\x7fELF\x02\x01\x01", "an ELF program"),
        (b"to whom it may concern", "text"),
        (b"PK\x03\x04....", "a zip archive"),
        (b"\x00\x01\x02\x03\x04", "unknown data (00 01 02 03 04)"),
    ];
    for (bytes, expected) in cases {
        match Frames::open(&put(&scratch, "other", bytes)) {
            Err(FileError::NotACapture { looks, .. }) => assert_eq!(looks, expected),
            other => panic!("{expected}: {:?}", other.err()),
        }
    }
    let error = |path: &Path| Frames::open(path).err();
    assert!(matches!(error(&put(&scratch, "empty", b"")), Some(FileError::Empty { .. })));
    assert!(matches!(error(&put(&scratch, "empty.gz", &gzip(b""))), Some(FileError::Empty { .. })));
    assert!(matches!(
        error(&put(&scratch, "head", &Writer::PCAP.file(&[])[..20])),
        Some(FileError::Header { .. })
    ));
    let wlan = Writer { link: 105, ..Writer::PCAP }.file(&sample());
    assert!(matches!(error(&put(&scratch, "wlan", &wlan)), Some(FileError::LinkType { number: 105, .. })));
    let io = |path: &Path| match error(path) {
        Some(FileError::Io { source, .. }) => source.kind(),
        other => panic!("{other:?}"),
    };
    assert_eq!(io(scratch.path()), std::io::ErrorKind::IsADirectory);
    assert_eq!(io(&scratch.path().join("missing")), std::io::ErrorKind::NotFound);
}

#[test]
fn compressed_files_cut_anywhere_are_refused_or_said_to_be_cut() {
    let frames = sample();
    let scratch = Scratch::new("compressed").unwrap();
    for (packed, how) in
        [(gzip(&Writer::PCAP.file(&frames)), "gzip"), (zstd(&Writer::PCAP_NG.file(&frames)), "zstd")]
    {
        for length in 0..packed.len() {
            let path = put(&scratch, "cut", &packed[..length]);
            if let Some(error) = Frames::open(&path).err() {
                assert!(error.to_string().contains(&path.display().to_string()), "{error}");
                continue;
            }
            let (seen, cut_short) = read(&path);
            assert!(cut_short.is_some(), "{how}: {length} of {} bytes seem whole", packed.len());
            let before = frames.iter().map(|frame| frame.0).take(seen.len());
            assert!(before.eq(seen.iter().map(|frame| frame.0)), "{how}: {length}");
        }
    }
}

#[test]
fn a_damaged_byte_of_gzip_is_said_unless_it_changes_nothing() {
    let scratch = Scratch::new("damaged").unwrap();
    let packed = gzip(&Writer::PCAP.file(&sample()));
    let whole = read(&put(&scratch, "whole.gz", &packed));
    let mut harmless = 0;
    // The first ten bytes are magic numbers, flags and a time, of which most say nothing of the data.
    for at in 10..packed.len() {
        let mut damaged = packed.clone();
        damaged[at] ^= 0x10;
        let path = put(&scratch, "damaged.gz", &damaged);
        if Frames::open(&path).is_ok() {
            let (seen, cut_short) = read(&path);
            // A bit of the code of a symbol that does not occur is nobody's loss.
            let unchanged = (&seen, cut_short) == (&whole.0, None);
            assert!(unchanged || cut_short.is_some(), "byte {at} of {}: {} frames", packed.len(), seen.len());
            harmless += usize::from(unchanged);
        }
    }
    assert!(harmless < 5, "{harmless} of {} damaged bytes were not noticed", packed.len());
}

#[test]
fn a_block_that_claims_two_gigabytes_takes_no_more_than_the_cap() {
    let to = Writer::PCAP_NG;
    let mut start = [to.section(), to.interface("a", Some(9), None, 0)].concat();
    start.extend([0xaa, 0xbb, 0, 0]);
    start.extend((2_u32 << 30).to_le_bytes());
    let scratch = Scratch::new("cap").unwrap();
    let path = put(&scratch, "cap.pcapng", &start);
    // Sparse: three gigabytes that takes no room.
    std::fs::File::options().write(true).open(&path).unwrap().set_len(3 << 30).unwrap();
    let before = peak_kib();
    let (seen, cut_short) = read(&path);
    assert_eq!((seen.len(), cut_short), (0, Some("a block claims to be larger than 64 MiB")));
    let taken = peak_kib() - before;
    // The cap is 64 MiB, twice that while it grows, and other tests run beside this one.
    assert!(taken < 512 << 10, "{taken} KiB");
}

/// The most memory that this process ever had.
fn peak_kib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
}

proptest! {
    #[test]
    fn any_bytes_behind_a_header_end_in_frames_or_a_named_cut(
        big_endian in any::<bool>(),
        classic in any::<bool>(),
        valid in 0..3_usize,
        junk in vec(any::<u8>(), 0..300),
        damage in vec((any::<prop::sample::Index>(), any::<u8>()), 0..4),
    ) {
        let to = Writer { big_endian, ..if classic { Writer::PCAP } else { Writer::PCAP_NG } };
        let header = to.file(&[]).len();
        let mut file = [to.file(&sample()[..valid]), junk].concat();
        for (at, value) in damage {
            if file.len() > header {
                let at = header + at.index(file.len() - header);
                file[at] = value;
            }
        }
        let scratch = Scratch::new("junk").unwrap();
        let (seen, _) = read(&put(&scratch, "junk", &file));
        let bytes: usize = seen.iter().map(|frame| frame.3.len()).sum();
        prop_assert!(bytes <= file.len(), "no byte of a frame is invented");
    }
}

fn sample() -> Vec<Timed> {
    let packet = |n: u16| rtp().seq(n).payload(&[n.to_be_bytes()[1]; 33]).over(udp().ip_id(n)).ethernet();
    (0..5).map(|n| (START_NS + u64::from(n) * 20_000_000, packet(n))).collect()
}

/// All frames, which are the same one by one and in batches.
fn read(path: &Path) -> (Vec<Seen>, Option<&'static str>) {
    let open = || Frames::open(path).unwrap_or_else(|error| panic!("{error}"));
    let see = |frame: Frame<'_>| {
        (frame.time.0, frame.number, frame.interface, frame.bytes.to_vec(), frame.wire_len)
    };
    let (mut frames, mut seen) = (open(), Vec::new());
    while let Some(frame) = frames.next_frame() {
        seen.push(see(frame));
    }
    let (mut batches, mut batch, mut in_batches) = (open(), FrameBatch::default(), Vec::new());
    while batches.fill(&mut batch) {
        in_batches.extend(batch.iter().map(see));
    }
    assert_eq!((&in_batches, batches.cut_short()), (&seen, frames.cut_short()));
    (seen, frames.cut_short())
}

fn put(scratch: &Scratch, name: &str, bytes: &[u8]) -> PathBuf {
    scratch.file(name, bytes).unwrap()
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

fn zstd(bytes: &[u8]) -> Vec<u8> {
    ruzstd::encoding::compress_to_vec(bytes, ruzstd::encoding::CompressionLevel::Fastest)
}

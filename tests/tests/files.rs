//! Capture files from the outside: real ones against tshark's numbers, generated ones in every format, and
//! damaged ones against the exact words.
#![expect(clippy::unwrap_used, reason = "helpers of tests: a failure is a failed test")]

use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};

use flate2::Compression;
use flate2::write::GzEncoder;
use voxlab::captures::{Format, Timed, Writer, rtp, udp};
use voxprobe::capture::file::{FileError, Frames};

/// A frame as the reader saw it: time, number, interface, bytes, length on the wire.
type Seen = (u64, u64, u16, Vec<u8>, u32);

const START_NS: u64 = 1_700_000_000_123_456_000;

#[test]
fn shared_captures_have_the_frames_and_times_that_tshark_sees() {
    let captures = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/captures");
    if !captures.is_dir() {
        eprintln!("skipped shared_captures: {} is not there", captures.display());
        return;
    }
    for (name, count, first, last) in TSHARK {
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
    let scratch = Scratch::new("formats");
    for format in [Format::Micros, Format::Nanos, Format::Enhanced, Format::Obsolete] {
        for big_endian in [false, true] {
            let plain = Writer { format, big_endian, link: 1 }.file(&frames);
            for (packed, how) in [(plain.clone(), "plain"), (gzip(&plain), "gzip"), (zstd(&plain), "zstd")] {
                let path = scratch.file("capture", &packed);
                assert_eq!(read(&path), (expected.clone(), None), "{format:?} {big_endian} {how}");
            }
        }
    }
}

#[test]
fn pcapng_clocks_of_any_resolution_and_offset_are_read() {
    let scratch = Scratch::new("clocks");
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
        let (seen, cut_short) = read(&scratch.file("clocks.pcapng", &file.concat()));
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
    let scratch = Scratch::new("sections");
    let mut frames = Frames::open(&scratch.file("two.pcapng", &file.concat())).unwrap();
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
    let scratch = Scratch::new("simple");
    let (seen, _) = read(&scratch.file("simple.pcapng", &file.concat()));
    assert_eq!(seen.last(), Some(&(9, 2, 0, frame[..53].to_vec(), u32::try_from(frame.len()).unwrap())));
}

#[test]
fn fcs_bits_above_the_link_type_are_not_part_of_it() {
    let mut file = Writer::PCAP.file(&sample());
    file[23] = 0x44; // four bytes of FCS, and the bit that says so
    let scratch = Scratch::new("fcs");
    assert_eq!(read(&scratch.file("fcs.pcap", &file)).0.len(), sample().len());
}

#[test]
fn a_file_cut_anywhere_gives_what_was_before_and_says_so() {
    let frames = sample();
    let scratch = Scratch::new("cut");
    for to in [Writer::PCAP, Writer { big_endian: true, ..Writer::PCAP }, Writer::PCAP_NG] {
        let whole = to.file(&frames);
        let header = to.file(&[]).len();
        // Where each frame ends: the prefix files themselves say.
        let ends: Vec<_> = (0..=frames.len()).map(|n| to.file(&frames[..n]).len()).collect();
        for length in header..=whole.len() {
            let (seen, cut_short) = read(&scratch.file("cut", &whole[..length]));
            assert_eq!(seen.len(), ends[1..].iter().filter(|&&end| end <= length).count(), "{to:?} {length}");
            let reason = (!ends.contains(&length)).then_some("the file ends inside a frame");
            assert_eq!(cut_short, reason, "{to:?} {length}");
        }
    }
}

#[test]
fn lying_lengths_end_the_capture_after_the_frames_before() {
    let frames = sample();
    let scratch = Scratch::new("lies");
    for big_endian in [false, true] {
        for length in [262_145_u32, u32::MAX] {
            let to = Writer { big_endian, ..Writer::PCAP };
            let mut lie = to.classic(1, 1, &[0; 64]);
            lie.splice(8..12, if big_endian { length.to_be_bytes() } else { length.to_le_bytes() });
            let path = scratch.file("lie.pcap", &[to.file(&frames), lie].concat());
            let (seen, cut_short) = read(&path);
            assert_eq!(seen.len(), frames.len());
            assert_eq!(cut_short, Some("a frame claims to be longer than 256 KiB"), "{length}");
        }
        let to = Writer { big_endian, ..Writer::PCAP_NG };
        let mut lie = to.enhanced(0, 1, &[0; 64]);
        lie.splice(20..24, [0, 1, 1, 0]);
        let path = scratch.file("lie.pcapng", &[to.file(&frames), lie].concat());
        let (seen, cut_short) = read(&path);
        assert_eq!(
            (seen.len(), cut_short),
            (frames.len(), Some("a frame claims to be longer than its block"))
        );
    }
}

#[test]
fn what_is_not_a_capture_is_named() {
    let scratch = Scratch::new("others");
    let cases: [(&[u8], &str); 4] = [
        (b"\x7fELF\x02\x01\x01", "an ELF program"),
        (b"to whom it may concern", "text"),
        (b"PK\x03\x04....", "a zip archive"),
        (b"\x00\x01\x02\x03\x04", "unknown data (00 01 02 03 04)"),
    ];
    for (bytes, expected) in cases {
        match Frames::open(&scratch.file("other", bytes)) {
            Err(FileError::NotACapture { looks, .. }) => assert_eq!(looks, expected),
            other => panic!("{expected}: {:?}", other.err()),
        }
    }
    let error = |path: &Path| Frames::open(path).err();
    assert!(matches!(error(&scratch.file("empty", b"")), Some(FileError::Empty { .. })));
    assert!(matches!(error(&scratch.file("empty.gz", &gzip(b""))), Some(FileError::Empty { .. })));
    assert!(matches!(
        error(&scratch.file("head", &Writer::PCAP.file(&[])[..20])),
        Some(FileError::Header { .. })
    ));
    let ppp = Writer { link: 9, ..Writer::PCAP }.file(&sample());
    assert!(matches!(error(&scratch.file("ppp", &ppp)), Some(FileError::LinkType { number: 9, .. })));
    let io = |path: &Path| match error(path) {
        Some(FileError::Io { source, .. }) => source.kind(),
        other => panic!("{other:?}"),
    };
    assert_eq!(io(&scratch.0), std::io::ErrorKind::IsADirectory);
    assert_eq!(io(&scratch.0.join("missing")), std::io::ErrorKind::NotFound);
}

fn sample() -> Vec<Timed> {
    let packet = |n: u16| rtp().seq(n).payload(&[n.to_be_bytes()[1]; 33]).over(udp().ip_id(n)).ethernet();
    (0..5).map(|n| (START_NS + u64::from(n) * 20_000_000, packet(n))).collect()
}

fn read(path: &Path) -> (Vec<Seen>, Option<&'static str>) {
    let mut frames = Frames::open(path).unwrap_or_else(|error| panic!("{error}"));
    let mut seen = Vec::new();
    while let Some(frame) = frames.next_frame() {
        seen.push((frame.time.0, frame.number, frame.interface, frame.bytes.to_vec(), frame.wire_len));
    }
    (seen, frames.cut_short())
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

fn zstd(bytes: &[u8]) -> Vec<u8> {
    ruzstd::encoding::compress_to_vec(bytes, ruzstd::encoding::CompressionLevel::Fastest)
}

/// A directory that goes when the test ends.
struct Scratch(PathBuf);

impl Scratch {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("voxprobe-files-{name}-{}", std::process::id()));
        fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    fn file(&self, name: &str, bytes: &[u8]) -> PathBuf {
        let path = self.0.join(name);
        fs::write(&path, bytes).unwrap();
        path
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// Frames, time of the first and of the last in nanoseconds, by tshark 4.0.17.
const TSHARK: &[(&str, usize, u64, u64)] = &[
    ("CESNET+ipfixprobe/sip.pcap", 50, 1_471_336_048_599_899_000, 1_471_336_063_760_924_000),
    ("IvanNardi+pl7m/dlt_sll2.pcap", 5, 1_660_534_249_872_259_000, 1_660_535_793_578_961_000),
    ("IvanNardi+pl7m/sip.pcap", 14, 1_487_357_972_761_367_000, 1_487_358_183_913_413_000),
    ("IvanNardi+pl7m/stun_dtls.pcap", 21, 1_647_958_145_472_010_000, 1_647_958_145_917_158_000),
    ("MichalCab+ISA/sip.siprtp.pcap", 89, 1_416_949_761_124_098_000, 1_416_949_762_769_710_000),
    (
        "OISF+suricata-verify/decode-erspan-typeI-02.pcap",
        42,
        1_575_873_218_827_068_000,
        1_575_873_238_827_155_000,
    ),
    (
        "OISF+suricata-verify/decode-erspan-typeII-01.pcap",
        6,
        1_402_723_251_625_545_000,
        1_402_723_255_669_608_000,
    ),
    ("OISF+suricata-verify/geneve-decoder.pcap", 10, 1_467_822_698_802_497_000, 1_467_822_701_809_606_000),
    ("OISF+suricata-verify/gre-sample.pcap", 40, 1_055_289_968_793_044_000, 1_055_289_996_921_473_000),
    (
        "OISF+suricata-verify/public-cloudshark-sip-s0.pcap",
        10,
        1_105_725_482_965_944_000,
        1_105_725_507_658_696_000,
    ),
    ("OISF+suricata-verify/sdp.pcap", 2, 1_728_977_333_934_216_000, 1_728_977_333_934_449_000),
    ("OISF+suricata-verify/sip-body-large.pcap", 16, 1_782_243_452_934_517_000, 1_782_243_452_936_081_000),
    ("OISF+suricata-verify/sip-options-method.pcap", 2, 1_780_141_590_686_694_000, 1_780_141_590_686_973_000),
    (
        "OISF+suricata-verify/sip-tcp-pattern-matching.pcap",
        7,
        1_700_898_905_695_126_000,
        1_700_898_905_696_613_000,
    ),
    ("OISF+suricata-verify/sip-tcp.pcap", 11, 1_643_827_934_643_122_000, 1_643_827_934_687_505_000),
    ("OISF+suricata-verify/sip_compact_form.pcap", 1, 1_713_446_096_386_450_000, 1_713_446_096_386_450_000),
    (
        "OISF+suricata-verify/sip_header_multi_val.pcap",
        1,
        1_718_810_493_156_061_000,
        1_718_810_493_156_061_000,
    ),
    (
        "OISF+suricata-verify/vxlan-decoder-03_vxlan.pcap",
        100,
        1_561_644_070_047_299_000,
        1_561_644_100_877_673_000,
    ),
    ("arkime+arkime/arkime_synthetic.pcap", 918, 1_700_000_100_010_000_000, 1_700_009_300_200_000_000),
    ("arkime+arkime/gre-erspan-vxlan.pcap", 7, 1_652_950_005_864_136_000, 1_652_950_005_876_016_000),
    ("arkime+arkime/gtp-iphone.pcap", 106, 1_415_985_409_420_211_000, 1_415_985_559_931_955_000),
    ("arkime+arkime/mpls-basic.pcap", 58, 952_109_329_022_770_000, 952_109_353_515_564_000),
    ("arkime+arkime/stun-ice-testcall.pcap", 108, 1_377_211_115_029_606_000, 1_377_211_136_139_862_000),
    ("arkime+arkime/twovlan.pcap", 6, 1_456_042_921_641_303_000, 1_456_042_921_761_641_000),
    (
        "cisco-system-traffic-generator+trex-core/Voice_calls_rtp_only.pcap",
        1_353,
        254_277_000,
        17_338_554_000,
    ),
    (
        "cisco-system-traffic-generator+trex-core/delay_10_sip_video_call_full.pcap",
        1_651,
        1_000_000,
        24_560_735_000,
    ),
    ("cisco-system-traffic-generator+trex-core/udp_sip.cap", 35, 127_532_000, 4_127_572_000),
    (
        "cisco-system-traffic-generator+trex-core/video_rtp_1588_0.pcap",
        1_558,
        1_371_982_394_817_865_000,
        1_371_982_415_542_250_000,
    ),
    ("dotpcap+packetnet/ipv6_rtcp1.pcap", 1, 473_907_179_127_000, 473_907_179_127_000),
    ("dotpcap+packetnet/ipv6_rtcp2.pcap", 1, 473_783_029_046_000, 473_783_029_046_000),
    ("dotpcap+packetnet/ipv6_rtp.pcap", 1, 473_783_621_071_000, 473_783_621_071_000),
    ("dotpcap+packetnet/udp-ip-fragmented.pcap", 14, 1_349_963_929_229_328_000, 1_349_963_960_019_702_000),
    (
        "ntop+nDPI/FAX-Call-t38-CA-TDM-SIP-FB-1.pcap",
        1_552,
        1_228_468_937_630_923_000,
        1_228_469_046_884_194_000,
    ),
    ("ntop+nDPI/fuzz-2006-06-26-2594.pcap", 691, 1_120_469_540_839_312_000, 1_120_471_107_427_770_000),
    ("ntop+nDPI/gre.pcapng", 1, 1_483_501_349_095_788_000, 1_483_501_349_095_788_000),
    ("ntop+nDPI/http_on_sip_port.pcap", 4, 1_618_744_016_209_720_000, 1_618_744_016_532_140_000),
    ("ntop+nDPI/ip_fragmented_garbage.pcap", 1_252, 1_534_244_024_697_756_000, 1_534_244_025_612_419_000),
    (
        "ntop+nDPI/rtcp_multiple_pkts_in_the_same_datagram.pcap",
        5,
        1_502_626_544_321_377_000,
        1_502_626_552_361_361_000,
    ),
    ("ntop+nDPI/rtp.pcapng", 112, 1_332_741_131_936_370_000, 1_643_703_821_596_170_000),
    ("ntop+nDPI/skinny.pcap", 200, 1_317_801_130_501_299_000, 1_317_801_134_668_514_000),
    ("seladb+PcapPlusPlus/sdp.pcap", 1, 1_312_871_578_525_951_000, 1_312_871_578_525_951_000),
    (
        "seladb+PcapPlusPlus/sip_non_default_port.pcap",
        2,
        1_766_420_461_358_045_000,
        1_766_420_462_787_319_000,
    ),
    ("seladb+PcapPlusPlus/sip_not_sdp.pcap", 1, 1_463_472_240_336_117_000, 1_463_472_240_336_117_000),
    ("seladb+PcapPlusPlus/sip_reqs.pcap", 4, 1_105_725_482_965_944_000, 1_480_255_719_610_514_000),
    ("seladb+PcapPlusPlus/sip_resp.pcap", 7, 1_105_725_482_973_833_000, 1_412_966_549_724_840_000),
    ("the-tcpdump-group+tcpdump/802.1ad_QinQ.pcap", 2, 1_575_842_394_599_412_000, 1_575_842_394_599_680_000),
    (
        "the-tcpdump-group+tcpdump/erspan-type-i-4.pcap",
        119,
        1_375_870_267_398_254_000,
        1_375_870_346_413_582_000,
    ),
    (
        "the-tcpdump-group+tcpdump/erspan-type-ii-3.pcap",
        108,
        1_486_833_319_096_226_000,
        1_486_833_457_092_562_000,
    ),
    (
        "the-tcpdump-group+tcpdump/erspan-type-iii-ft-7.pcap",
        58,
        1_486_871_721_583_545_000,
        1_486_871_781_581_909_000,
    ),
    ("the-tcpdump-group+tcpdump/rtp-seg-fault-1.pcapng", 1, 581_000_000_000, 581_000_000_000),
    ("the-tcpdump-group+tcpdump/various_gre.pcap", 100, 1_497_606_301_394_037_000, 1_497_606_342_185_807_000),
    ("zeek+zeek/erspan.pcap", 287, 1_442_309_933_472_798_000, 1_442_310_056_333_047_000),
    ("zeek+zeek/erspanI.pcap", 10, 1_615_972_935_415_785_000, 1_615_972_935_430_145_000),
    ("zeek+zeek/erspanII.pcap", 4, 1_402_723_255_667_881_000, 1_402_723_255_669_608_000),
    ("zeek+zeek/erspanIII.pcap", 2, 1_547_208_014_232_092_000, 1_547_208_014_236_397_000),
    ("zeek+zeek/invalid-content-length.pcap", 2, 1_781_520_273_766_727_000, 1_781_520_273_767_557_000),
    ("zeek+zeek/sip-junk-before-request.pcap", 2, 1_618_437_612_376_019_000, 1_618_437_612_376_318_000),
    (
        "zeek+zeek/sip-long-request-response-paths.pcap",
        2,
        1_786_134_717_096_083_000,
        1_786_134_717_096_223_000,
    ),
    ("zeek+zeek/vxlan-triple-v2.pcap", 1, 1_677_857_409_594_662_000, 1_677_857_409_594_662_000),
    ("zeek+zeek/vxlan.pcap", 10, 1_467_818_432_675_392_000, 1_467_818_435_680_663_000),
    ("zeek+zeek/wireshark.pcap", 81, 1_120_469_572_844_249_000, 1_120_471_018_881_832_000),
    (
        "zongbingwang+pcapApplication/MagicJack+_short_call.pcap",
        1_381,
        1_334_245_056_670_292_000,
        1_334_245_246_895_631_000,
    ),
    (
        "zongbingwang+pcapApplication/yate.siprtp.pcap",
        9_702,
        1_464_083_609_112_219_000,
        1_464_083_762_178_967_000,
    ),
];

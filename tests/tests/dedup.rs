//! `voxprobe dedup`: what is removed, what stays, and that others can read it.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::fs;
use std::path::{Path, PathBuf};

use voxlab::captures::{Format, Writer, shared_captures};
use voxlab::frames::{Datagram, rtp, udp};
use voxlab::story::scene::Plan;
use voxlab::story::taps::Step;
use voxlab::story::{Recording, Rpcap, Story};
use voxprobe::capture::file::Frames;
use voxprobe::pipeline::dedup::{DedupError, dedup};
use voxprobe::pipeline::offline::{Options, analyze, classify};

type Timed = (u64, Vec<u8>);

/// A folder that is gone with the test.
struct Scratch(PathBuf);

impl Scratch {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("voxprobe-dedup-{}-{name}", std::process::id()));
        fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    fn file(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// A stream seen by two taps and some ARP; the frames, and which of them are no copies.
fn two_taps() -> (Vec<Timed>, Vec<Timed>) {
    let (mut all, mut originals) = (Vec::new(), Vec::new());
    for seq in 0..100_u16 {
        let packet = rtp().seq(seq).payload(&[seq.to_le_bytes()[0]; 160]).over(udp()).ip_id(seq + 1);
        let time = 1_700_000_000_000_000_000 + u64::from(seq) * 20_000_000;
        let copy = Datagram { dst_mac: [2, 0, 0, 0, 9, 9], ip_id: 0, ..packet.clone() };
        let arp = [vec![0xff; 6], vec![2; 6], vec![8, 6], vec![0; 46]].concat();
        let first = [(time, packet.ethernet()), (time + 1_000, arp)];
        all.extend(first.clone());
        originals.extend(first);
        all.push((time + 38_000, copy.ethernet()));
    }
    (all, originals)
}

fn frames(path: &Path) -> Vec<Timed> {
    let mut frames = Frames::open(path).unwrap();
    let mut all = Vec::new();
    while let Some(frame) = frames.next_frame() {
        all.push((frame.time.0, frame.bytes.to_vec()));
    }
    assert_eq!(frames.cut_short(), None);
    all
}

#[test]
fn copies_go_and_everything_else_stays_as_it_was_in_every_format() {
    let scratch = Scratch::new("formats");
    let (all, originals) = two_taps();
    for format in [Format::Nanos, Format::Enhanced, Format::Obsolete] {
        for big_endian in [false, true] {
            let (input, output) = (scratch.file("in"), scratch.file("out.pcapng"));
            fs::write(&input, Writer { format, big_endian, ..Writer::PCAP_NG }.file(&all)).unwrap();
            let summary = dedup(&input, &output, &Options::default(), false, |_, _| ()).unwrap();
            assert_eq!((summary.frames, summary.total()), (300, 100), "{format:?}");
            assert_eq!(summary.copies["re-emitted"], 100);
            assert!(frames(&output) == originals, "{format:?}, big-endian: {big_endian}");
            let left = analyze(std::slice::from_ref(&output), &Options::default(), |_, _| ()).unwrap();
            assert_eq!((left.streams[0].raw.lost, left.streams[0].duplicates.total), (0, 0));
        }
    }
}

#[test]
fn annotated_the_frames_are_the_same_and_each_copy_says_of_what() {
    let scratch = Scratch::new("annotated");
    let (all, _) = two_taps();
    let (input, output) = (scratch.file("in.pcapng"), scratch.file("out.pcapng"));
    fs::write(&input, Writer::PCAP_NG.file(&all)).unwrap();
    let summary = dedup(&input, &output, &Options::default(), true, |_, _| ()).unwrap();
    assert_eq!(summary.total(), 100);
    assert!(frames(&output) == all);
    let options = Options::default();
    assert_eq!(
        classify(&[input], &options).unwrap(),
        classify(std::slice::from_ref(&output), &options).unwrap()
    );
    let text = fs::read(&output).unwrap();
    let comment = b"copy of frame 1: re-emitted: destination MAC and IP ID differ, +38 us";
    assert_eq!(text.windows(comment.len()).filter(|part| part == comment).count(), 1);
}

#[test]
fn the_input_is_not_overwritten_and_a_failure_leaves_nothing() {
    let scratch = Scratch::new("same");
    let (input, link) = (scratch.file("in.pcapng"), scratch.file("link.pcapng"));
    let bytes = Writer::PCAP_NG.file(&two_taps().0);
    fs::write(&input, &bytes).unwrap();
    fs::hard_link(&input, &link).unwrap();
    for output in [&input, &link] {
        let refused = dedup(&input, output, &Options::default(), false, |_, _| ());
        assert!(matches!(refused, Err(DedupError::SameFile { .. })), "{refused:?}");
    }
    let refused = dedup(&input, &scratch.file("no/such/folder"), &Options::default(), false, |_, _| ());
    assert!(matches!(refused, Err(DedupError::Write { .. })), "{refused:?}");
    let socket = scratch.file("socket");
    let _listening = std::os::unix::net::UnixListener::bind(&socket).unwrap();
    let refused = dedup(&input, &socket, &Options::default(), false, |_, _| ());
    assert!(matches!(refused, Err(DedupError::NotAFile { .. })), "{refused:?}");
    fs::remove_file(&socket).unwrap();
    let missing = dedup(&scratch.file("none"), &scratch.file("out"), &Options::default(), false, |_, _| ());
    assert!(missing.is_err());
    assert_eq!((fs::read(&input).unwrap(), fs::read_dir(&scratch.0).unwrap().count()), (bytes, 2));
}

#[test]
fn what_a_killed_run_left_is_not_in_the_way() {
    let scratch = Scratch::new("killed");
    let (all, originals) = two_taps();
    let (input, output) = (scratch.file("in.pcapng"), scratch.file("out.pcapng"));
    fs::write(&input, Writer::PCAP_NG.file(&all)).unwrap();
    fs::write(scratch.file(&format!(".out.pcapng.{}", std::process::id())), b"half a file").unwrap();
    dedup(&input, &output, &Options::default(), false, |_, _| ()).unwrap();
    assert!(frames(&output) == originals);
    assert_eq!(fs::read_dir(&scratch.0).unwrap().count(), 2);
}

#[test]
fn real_captures_lose_their_copies_and_nothing_that_looks_like_one() {
    let Some(folder) = shared_captures() else { return };
    let scratch = Scratch::new("real");
    for (file, copies) in [
        // SPAN copies 4 to 25 us apart: tshark says -94 % and -100 %.
        ("ntop+nDPI/skinny.pcap", 34),
        // tshark takes 14 of these 23 identical frames for resends.
        ("ntop+nDPI/FAX-Call-t38-CA-TDM-SIP-FB-1.pcap", 23),
        // tshark sees 13 resends; every one has another branch.
        ("CESNET+ipfixprobe/sip.pcap", 0),
    ] {
        let output = scratch.file("out.pcapng");
        let summary = dedup(&folder.join(file), &output, &Options::default(), false, |_, _| ()).unwrap();
        assert_eq!((summary.total(), summary.retransmissions), (copies, 0), "{file}");
        assert_eq!(frames(&output).len() as u64, summary.frames - copies);
        let report = analyze(&[output], &Options::default(), |_, _| ()).unwrap();
        assert_eq!((report.sip.copies, report.sip.retransmissions), (0, 0), "{file}");
        assert!(report.streams.iter().all(|stream| stream.raw.lost >= 0), "{file}");
    }
}

/// Payload of a TCP segment from the port of the remote capture.
fn rpcap_payload(frame: &[u8]) -> usize {
    let is_rpcap = frame[23] == 6 && frame[34..36] == 2002_u16.to_be_bytes();
    let header = 14 + 20 + usize::from(frame[46] >> 4) * 4;
    if is_rpcap { 14 + usize::from(u16::from_be_bytes([frame[16], frame[17]])) - header } else { 0 }
}

#[test]
fn of_a_remote_capture_cut_anywhere_no_segment_of_copies_is_left() {
    let scratch = Scratch::new("segments");
    let plan = Plan { seed: 7, packets: 300, auth: true, transfer: true, ..Plan::PLAIN };
    let rpcap = Rpcap { batch_ns: 50_000_000, ..Rpcap::default() };
    let recording = Recording { rpcap: Some(rpcap), ..Recording::by(&[Step::ReEmitted]) };
    let (input, output) = (scratch.file("in.pcapng"), scratch.file("out.pcapng"));
    Story::new(&plan, &recording).write(&input).unwrap();
    let data = |path: &Path| frames(path).iter().filter(|(_, bytes)| rpcap_payload(bytes) > 200).count();
    let options = Options::default();
    dedup(&input, &output, &options, false, |_, _| ()).unwrap();
    assert!(data(&input) > 200, "{}", data(&input));
    assert_eq!(data(&output), 0, "segments that hold nothing but copies");
    let [before, after] = [input, output].map(|path| analyze(&[path], &options, |_, _| ()).unwrap());
    assert_eq!((after.sip.messages, after.sip.copies), (before.sip.messages, 0));
    let unique = |report: &voxprobe::report::contract::Report| {
        let figures =
            |stream: &voxprobe::report::contract::StreamReport| (stream.unique.packets, stream.unique.lost);
        report.streams.iter().map(figures).collect::<Vec<_>>()
    };
    assert_eq!(unique(&after), unique(&before));
    assert!(after.streams.iter().all(|stream| stream.duplicates.total == 0));
}

//! SIP is counted as tshark counts it: by method and by status, with copies added back.
//!
//! For the shared captures the other side is what tshark 4.0.17 printed (`golden/*.sipstat.txt`); for the scenes it is
//! the tshark that is installed. Where the two must differ, [`APART`] says in which file, by how much, and why: a row
//! that no longer holds fails as a difference does.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use voxlab::captures::{Scratch, Timed, Writer, files_with};
use voxlab::conformance::{SipStat, Tshark};
use voxlab::privileges::skipped;
use voxlab::scenes::{Played, Scene};
use voxlab::story::Recording;
use voxlab::story::taps::Step;
use voxprobe::pipeline::offline::{Options, analyze};

/// tshark hands a message to its statistics after it was taken apart. Where the fuzzer broke a header so that the
/// dissector gives up ("Malformed Packet: SIP"), it is shown and not counted. A monitor reads what is left of it.
const GIVEN_UP: &str = "tshark's dissector gave up on it";
/// A NUL in the start line: tshark says `data`. The line is complete and ends as it must.
const NUL: &str = "a NUL in the start line";
/// The line end is CR and a digit, so that start line and Via are one line.
const NO_LINE_END: &str = "frame 247: the start line does not end";
/// Version 1 of GRE (PPTP, RFC 2637) carries PPP. It is refused by name: `capture.tunnels.refused`.
const PPTP: &str = "inside of PPTP, which is not opened";

const FUZZED: &str = "ntop+nDPI/fuzz-2006-06-26-2594.pcap";

/// File; method or status; how many more voxprobe reads; why.
const APART: &[(&str, &str, i64, &str)] = &[
    (FUZZED, "100", 1, GIVEN_UP),
    (FUZZED, "183", 1, GIVEN_UP),
    (FUZZED, "200", 2, GIVEN_UP),
    (FUZZED, "401", 4, GIVEN_UP),
    (FUZZED, "403", 1, GIVEN_UP),
    (FUZZED, "407", 2, GIVEN_UP),
    (FUZZED, "408", 1, GIVEN_UP),
    (FUZZED, "ACK", 3, GIVEN_UP),
    (FUZZED, "CANCEL", 1, GIVEN_UP),
    (FUZZED, "INVITE", 3, GIVEN_UP),
    (FUZZED, "REGISTER", 5, GIVEN_UP),
    (FUZZED, "401", 1, NUL),
    (FUZZED, "403", 1, NUL),
    (FUZZED, "INVITE", 1, NUL),
    (FUZZED, "REGISTER", 1, NUL),
    (FUZZED, "CANCEL", -1, NO_LINE_END),
    ("ntop+nDPI/gre.pcapng", "100", -1, PPTP),
    ("seladb+PcapPlusPlus/sip_reqs.pcap", "BYE", 1, GIVEN_UP),
];

/// How the names of capture files end.
const KINDS: [&str; 4] = ["pcap", "pcapng", "cap", "erf"];

type Counts = BTreeMap<String, i64>;

/// Messages and copies, by method and status.
fn told(file: &Path) -> Counts {
    let report = analyze(&[file.to_owned()], &Options::default(), |_, _| ()).unwrap();
    let report = serde_json::to_value(report).unwrap();
    let count = |tally: &serde_json::Value, what: &str| tally[what].as_i64().unwrap();
    let kinds = report["sip"]["kinds"].as_object().unwrap().iter();
    kinds.map(|(kind, tally)| (kind.clone(), count(tally, "messages") + count(tally, "copies"))).collect()
}

/// By kind, how many more are told; zeros left out.
fn apart(told: &Counts, tshark: &SipStat) -> Counts {
    let mut apart = told.clone();
    for (kind, count) in &tshark.kinds {
        *apart.entry(kind.clone()).or_default() -= i64::try_from(*count).unwrap();
    }
    apart.retain(|_, more| *more != 0);
    apart
}

#[test]
fn messages_by_method_and_status_equal_tshark_on_every_shared_capture() {
    let Some(shared) = voxlab::shared_captures() else { return };
    let (mut files, mut messages, mut wrong) = (0, 0, Vec::new());
    for file in files_with(&shared, &KINDS) {
        let name = file.strip_prefix(&shared).unwrap().to_str().unwrap().to_owned();
        let golden = shared.join("golden").join(format!("{}.sipstat.txt", name.replacen('/', "__", 1)));
        // No golden: tshark found no SIP.
        let tshark =
            fs::read_to_string(golden).map(|text| SipStat::parse(&text).unwrap()).unwrap_or_default();
        let told = told(&file);
        let mut known = Counts::new();
        for (_, kind, more, _) in APART.iter().filter(|(known, ..)| *known == name) {
            *known.entry((*kind).to_owned()).or_default() += more;
        }
        known.retain(|_, more| *more != 0);
        let found = apart(&told, &tshark);
        if found != known {
            wrong.push(format!("{name}: voxprobe has {found:?} more than tshark, {known:?} are known"));
        }
        assert_eq!(
            tshark.kinds.values().sum::<u64>(),
            tshark.messages,
            "{name}: the golden was read wrongly"
        );
        files += usize::from(tshark.messages > 0);
        messages += tshark.messages;
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(files >= 32, "only {files} captures with SIP were compared: are the goldens all there?");
    println!("{messages} messages in {files} captures equal tshark 4.0.17 by method and status");
}

/// Scenes of TCP that tshark cannot be asked about.
const NOT_ASKED: [(&str, &str); 2] = [
    ("tcp-lost", "a hole ends tshark's reading of the stream"),
    ("websocket", "tshark takes port 5060 for SIP, and so does not see the handshake"),
];

/// Between two scenes that share a file.
const APART_NS: u64 = 200_000_000_000;

#[test]
fn messages_by_method_and_status_equal_tshark_on_every_scene() {
    const TEST: &str = "messages_by_method_and_status_equal_tshark_on_every_scene";
    let Ok(tshark) = Tshark::find() else {
        return skipped(TEST, "no tshark: `cargo xtask setup --with-peers`");
    };
    let scratch = Scratch::new("sipstat").unwrap();
    let mut wrong = Vec::new();
    let mut compare = |name: &str, frames: &[Timed]| {
        let path = scratch.file(&format!("{name}.pcapng"), &Writer::PCAP_NG.file(frames)).unwrap();
        let found = apart(&told(&path), &tshark.sip_stat(&path).unwrap());
        if !found.is_empty() {
            wrong.push(format!("{name}: voxprobe has {found:?} more than tshark"));
        }
    };
    let alone = Recording::default();
    for (taps, recording) in [("one tap", &alone), ("two taps", &Recording::by(&[Step::ReEmitted]))] {
        let mut frames = Vec::new();
        for (index, scene) in (0_u64..).zip(Scene::all()) {
            let played = scene.play(index, recording);
            if !played.truth.has_connections {
                frames.extend(timed(&played, index * APART_NS));
            }
        }
        // In one file, for tshark takes its time to start.
        compare(&format!("all scenes over UDP before {taps}"), &frames);
    }
    for scene in Scene::all().filter(|scene| NOT_ASKED.iter().all(|(name, _)| *name != scene.name)) {
        // A segment that a second tap saw is a retransmission to TCP, and so to tshark.
        let played = scene.play(7, &alone);
        if played.truth.has_connections {
            compare(scene.name, &timed(&played, 0));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

fn timed(played: &Played, later_ns: u64) -> Vec<Timed> {
    played.story.frames.iter().map(|frame| (frame.time_ns + later_ns, frame.bytes.clone())).collect()
}

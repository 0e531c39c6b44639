//! The raw ledger equals tshark 4.0.17 to every printed digit, on every shared capture that this version can open.
//!
//! The goldens are the output of `tshark -q -z rtp,streams`, as announced by SDP and with the rtp_udp heuristic. A
//! row that is known to differ stands in [`KNOWN`] with its reason; one that differs without standing there fails,
//! and so does one that stands there and no longer differs.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::BTreeMap;
use std::fs;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};

use voxprobe::pipeline::offline::{Options, RtpRule, analyze};

/// File, and why its rows are not compared.
const KNOWN: [(&str, &str); 2] = [
    ("ntop+nDPI/FAX-Call-t38-CA-TDM-SIP-FB-1.pcap", "tshark reads 27 RTP packets as T.38, by way of MEGACO"),
    ("ntop+nDPI/skinny.pcap sdp", "announced by SCCP, not by SIP"),
];

/// One row: packets, lost, lost %, and min, mean, max of delta and jitter, as printed; then what tshark's table
/// does not show: expected, sequence errors, skew and drift, in the form of the reference rows.
type Row = (u64, i64, String, [String; 6], String);
type Rows = BTreeMap<(String, String, u32), Row>;

#[test]
fn raw_ledger_equals_tshark_to_the_digit() {
    let Some(shared) = voxlab::shared_captures() else { return };
    let (mut compared, mut differing) = (0, Vec::new());
    for golden in goldens(&shared) {
        let name =
            golden.file_name().unwrap().to_str().unwrap().strip_suffix(".rtpstreams.txt").unwrap().to_owned();
        let (file, rule, word) = match name.strip_suffix(".heur") {
            Some(file) => (file, RtpRule::Any, "any"),
            None => (name.as_str(), RtpRule::Sdp, "sdp"),
        };
        let file = file.replacen("__", "/", 1);
        let known = KNOWN.iter().any(|(known, _)| *known == file || *known == format!("{file} {word}"));
        // The same rows by a re-implementation that was held against tshark and sharkd, with more figures.
        let reference = golden.to_str().unwrap().replace(".rtpstreams.txt", ".ref.txt");
        let expected =
            read_golden(&fs::read_to_string(&golden).unwrap(), &fs::read_to_string(reference).unwrap());
        let got = run(&shared.join(&file), rule);
        if known {
            assert_ne!(got, expected, "{file} ({word}) equals tshark now: take it off the list");
            continue;
        }
        compared += expected.len();
        if got != expected {
            differing.push(format!("{file} ({word}):\n  tshark {expected:#?}\n  voxprobe {got:#?}"));
        }
    }
    assert!(differing.is_empty(), "{}", differing.join("\n"));
    assert!(compared >= 30, "only {compared} rows were compared: are the goldens all there?");
    println!("{compared} rows equal tshark 4.0.17 to the digit");
}

fn goldens(shared: &Path) -> Vec<PathBuf> {
    let mut goldens: Vec<_> = fs::read_dir(shared.join("golden"))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.to_str().is_some_and(|path| path.ends_with(".rtpstreams.txt")))
        .collect();
    goldens.sort();
    goldens
}

fn run(file: &Path, rtp: RtpRule) -> Rows {
    let report = analyze(&[file.to_owned()], &Options { rtp, ..Options::default() }, |_, _| ()).unwrap();
    assert_eq!(
        report.capture.matched,
        report.capture.analysed + report.capture.losses.values().sum::<u64>(),
        "{}: the account does not balance",
        file.display()
    );
    let row = |stream: &voxprobe::report::contract::StreamReport| {
        let raw = &stream.raw;
        let figures = [
            raw.delta_ms.min,
            raw.delta_ms.mean,
            raw.delta_ms.max,
            raw.jitter_ms.min,
            raw.jitter_ms.mean,
            raw.jitter_ms.max,
        ];
        let ssrc = u32::from_str_radix(stream.ssrc.trim_start_matches("0x"), 16).unwrap();
        (
            (stream.src.to_string(), stream.dst.to_string(), ssrc),
            (
                raw.packets,
                raw.lost,
                format!("{:.1}", raw.lost_percent),
                figures.map(|ms| format!("{ms:.3}")),
                format!(
                    "#exp={} seqerr={} skew={:.3} drift={:.0}ms {:.0}Hz {:.2}%",
                    raw.expected,
                    raw.sequence_errors,
                    raw.skew_ms.max,
                    raw.clock_drift_ms.unwrap(),
                    raw.clock_hz.unwrap(),
                    raw.clock_drift_percent.unwrap(),
                ),
            ),
        )
    };
    report.streams.iter().map(row).collect()
}

/// Rows of `tshark -q -z rtp,streams`: start, end, source, port, destination, port, SSRC, payload (words), packets,
/// lost (lost %), six figures, and an X where there was a problem. Read from the end, as payload names have spaces.
fn read_golden(text: &str, reference: &str) -> Rows {
    let derived: BTreeMap<_, _> = reference
        .lines()
        .filter_map(|line| {
            let (row, figures) = line.split_once('#')?;
            Some((stream_words(row), format!("#{}", figures.trim())))
        })
        .collect();
    let rows = text.lines().filter(|line| line.contains(" 0x")).map(|line| {
        let words: Vec<_> = line.split_whitespace().filter(|word| *word != "X").collect();
        let endpoint = |at: usize| {
            // tshark writes ::48.0.0.1 where others write ::3000:1.
            let address: IpAddr = words[at].parse().unwrap();
            SocketAddr::new(address, words[at + 1].parse().unwrap()).to_string()
        };
        let ssrc = u32::from_str_radix(words[6].trim_start_matches("0x"), 16).unwrap();
        let end = words.len();
        let figures: [String; 6] = std::array::from_fn(|at| words[end - 6 + at].to_owned());
        let percent = words[end - 7].trim_matches(|c| "()%".contains(c)).to_owned();
        let (packets, lost) = (words[end - 9].parse().unwrap(), words[end - 8].parse().unwrap());
        let more = derived.get(&stream_words(line)).cloned().unwrap_or_default();
        ((endpoint(2), endpoint(4), ssrc), (packets, lost, percent, figures, more))
    });
    rows.collect()
}

/// The words that name a stream: addresses, ports, SSRC.
fn stream_words(line: &str) -> String {
    let words: Vec<_> = line.split_whitespace().skip(2).take(5).map(str::to_lowercase).collect();
    words.join(" ")
}

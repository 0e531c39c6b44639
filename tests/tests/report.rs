//! What `voxprobe analyze` prints, whole: the text for people compared with the files beside this one, and the manners
//! of the command.
//!
//! A change that is meant is taken over with `VOXPROBE_BLESS=1 cargo test -p voxprobe-tests --test report`, and read in the
//! difference.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use voxlab::captures::{Scratch, Timed, Writer};
use voxlab::conformance::generated;
use voxlab::frames::{rtp, udp};
use voxlab::privileges::skipped;
use voxlab::probe::Probe;
use voxprobe::pipeline::offline::{Options, analyze};
use voxprobe::report::contract::Report;
use voxprobe::report::{detail, page, text};

/// 600 packets of an announced stream, each seen at a second tap 38 us later with another MAC and no IP ID; a silence of
/// 1.8 s before the 400th, three losses in a row, one alone, and two packets in the wrong order.
fn story() -> Vec<Timed> {
    let mut frames = generated::signalling().to_vec();
    let begin = frames.last().unwrap().0 + 100_000_000;
    for slot in (0..600_u16).filter(|n| !matches!(n, 100..=102 | 350)) {
        let n = match slot {
            250 => 251,
            251 => 250,
            other => other,
        };
        let silence = if slot >= 400 { 1_800_000_000 } else { 0 };
        let time =
            begin + silence + u64::from(slot) * 20_000_000 + u64::from(n) * u64::from(n) % 11 * 200_000;
        let sent = rtp()
            .seq(n)
            .varied(160)
            .over(udp().between(generated::caller(), generated::called()).ip_id(n + 1));
        let again = voxlab::frames::Datagram { dst_mac: [2, 0, 0, 0, 9, 9], ip_id: 0, ..sent.clone() };
        frames.extend([(time, sent.ethernet()), (time + 38_000, again.ethernet())]);
    }
    frames
}

fn story_report() -> Report {
    let scratch = Scratch::new("snapshot").unwrap();
    let path = scratch.file("story.pcap", &Writer::PCAP.file(&story())).unwrap();
    let mut report = analyze(&[path], &Options::default(), |_, _| ()).unwrap();
    report.capture.sources = vec!["story.pcap".to_owned()];
    report
}

#[test]
fn the_report_reads_as_it_did() {
    assert_same("report", &text::render(&story_report()));
}

#[test]
fn a_stream_in_full_reads_as_it_did() {
    assert_same("stream", &detail::render(&story_report()));
}

#[test]
fn in_ascii_every_line_is_as_wide_and_nothing_else_is_printed() {
    let report = story_report();
    for utf8 in [text::render(&report), detail::render(&report)] {
        let ascii = page::ascii(&utf8);
        assert!(ascii.is_ascii(), "{ascii}");
        let widths = |text: &str| text.lines().map(|line| line.chars().count()).collect::<Vec<_>>();
        assert_eq!(widths(&ascii), widths(&utf8));
    }
}

#[test]
fn a_reader_that_goes_away_ends_the_command_quietly() {
    let Some((path, _scratch)) = capture("a_reader_that_goes_away_ends_the_command_quietly") else { return };
    for form in [&["--json"][..], &["--csv"], &["--stream", "10.0.0.1"], &[]] {
        let mut child = Command::new(Probe::binary().unwrap())
            .arg("analyze")
            .args(form)
            .arg(&path)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        // Closed before anything was written.
        drop(child.stdout.take());
        let mut said = String::new();
        child.stderr.take().unwrap().read_to_string(&mut said).unwrap();
        assert_eq!((child.wait().unwrap().code(), said.as_str()), (Some(0), ""), "{form:?}");
    }
}

#[test]
fn two_forms_at_once_and_a_stream_that_is_not_there_are_refused_clearly() {
    const TEST: &str = "two_forms_at_once_and_a_stream_that_is_not_there_are_refused_clearly";
    let Some((path, _scratch)) = capture(TEST) else { return };
    let output = run(&path, &["--json", "--csv"]);
    assert_eq!(output.status.code(), Some(2));
    assert!(
        stderr(&output).contains("'--json' cannot be used with '--csv'")
            || stderr(&output).contains("'--csv' cannot be used with '--json'"),
        "{}",
        stderr(&output)
    );
    let output = run(&path, &["--stream", "0xdeadbeef"]);
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(stderr(&output), "voxprobe: none of 1 stream is that one; without --stream they are listed\n");
    assert!(output.stdout.is_empty());
}

#[test]
fn piped_text_has_no_colours_and_a_csv_row_a_stream() {
    let Some((path, _scratch)) = capture("piped_text_has_no_colours_and_a_csv_row_a_stream") else { return };
    let report = run(&path, &[]);
    assert!(report.status.success() && !report.stdout.contains(&0x1b) && report.stderr.is_empty());
    let rows = String::from_utf8(run(&path, &["--csv"]).stdout).unwrap();
    let rows: Vec<_> = rows.lines().collect();
    assert_eq!(rows.len(), 2);
    assert_eq!(rows[0].split(',').collect::<Vec<_>>(), voxprobe::report::csv::COLUMNS);
    assert!(rows[1].starts_with("10.0.0.1:20000,10.0.0.2:30000,0x11223344,8,PCMA,8000,"), "{}", rows[1]);
}

/// The story as a file, and its folder; nothing, said loudly, without the binary.
fn capture(test: &str) -> Option<(PathBuf, Scratch)> {
    if let Err(error) = Probe::binary() {
        skipped(test, &format!("{error:#}"));
        return None;
    }
    let scratch = Scratch::new(test).unwrap();
    let path = scratch.file("story.pcap", &Writer::PCAP.file(&story())).unwrap();
    Some((path, scratch))
}

fn run(path: &Path, arguments: &[&str]) -> Output {
    Command::new(Probe::binary().unwrap()).arg("analyze").args(arguments).arg(path).output().unwrap()
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

fn assert_same(name: &str, text: &str) {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("tests/snapshots/{name}.txt"));
    if std::env::var_os("VOXPROBE_BLESS").is_some() {
        std::fs::write(&file, text).unwrap();
    }
    let expected = std::fs::read_to_string(&file).unwrap();
    assert_eq!(text, expected, "\n--- now\n{text}\n--- {}\n{expected}", file.display());
}

//! `voxprobe analyze` as a user meets it: standard input, files that it may not or cannot read, and what it exits with.
#![expect(clippy::unwrap_used, reason = "helpers of tests: a failure is a failed test")]

use std::fs::{File, Permissions};
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use serde_json::Value;
use voxlab::captures::{Scratch, Timed, Writer};
use voxlab::frames::{Datagram, rtp, udp};
use voxlab::privileges::{root_for, skipped};
use voxlab::probe::Probe;
use voxprobe::capture::file::FileError;
use voxprobe::pipeline::offline::{AnalyzeError, Options, analyze};

const START_NS: u64 = 1_700_000_000_000_000_000;
/// LINKTYPE_USER0: nobody reads it without being told how.
const USER0: u16 = 147;

#[test]
fn standard_input_gives_the_report_of_the_file() {
    let Some(mut piped) = voxprobe("standard_input_gives_the_report_of_the_file") else { return };
    let scratch = Scratch::new("stdin").unwrap();
    let path = scratch.file("call.pcapng", &Writer::PCAP_NG.file(&talk(Datagram::ethernet))).unwrap();
    piped.args(["analyze", "--json", "-"]).stdin(File::open(&path).unwrap());
    let piped = report(&piped.output().unwrap());
    let named = report(&run(&["analyze", "--json"], &path));
    assert_eq!(piped["capture"]["packets"], 100);
    assert_eq!(piped["capture"]["sources"], serde_json::json!(["-"]));
    assert_eq!((&piped["streams"], &piped["findings"]), (&named["streams"], &named["findings"]));
    assert_eq!(piped["streams"][0]["raw"]["packets"], 100);
}

#[test]
fn a_file_that_breaks_before_its_first_frame_is_an_error_and_one_that_breaks_later_is_not() {
    let scratch = Scratch::new("broken").unwrap();
    let whole = Writer::PCAP.file(&talk(Datagram::ethernet));
    let mut lying = whole.clone();
    lying[24 + 8..24 + 12].copy_from_slice(&u32::MAX.to_le_bytes()); // length of the first frame
    for (name, bytes) in [("lying.pcap", lying), ("cut.pcap", whole[..40].to_vec())] {
        let path = scratch.file(name, &bytes).unwrap();
        let error = analyze(&[path], &Options::default(), |_, _| ()).unwrap_err();
        assert!(matches!(error, AnalyzeError::File(FileError::NoFrame { .. })), "{name}: {error}");
    }
    let path = scratch.file("later.pcap", &whole[..whole.len() - 1]).unwrap();
    let report = analyze(&[path], &Options::default(), |_, _| ()).unwrap();
    assert_eq!((report.capture.packets, report.capture.notes.len()), (99, 1));
}

#[test]
fn a_file_that_may_not_be_read_is_named_with_the_reason() {
    const TEST: &str = "a_file_that_may_not_be_read_is_named_with_the_reason";
    const NOBODY: u32 = 65_534;
    if !root_for(TEST) {
        return;
    }
    let Some(mut command) = voxprobe(TEST) else { return };
    let scratch = Scratch::new("denied").unwrap();
    let path = scratch.file("secret.pcap", &Writer::PCAP.file(&talk(Datagram::ethernet))).unwrap();
    std::fs::set_permissions(&path, Permissions::from_mode(0o600)).unwrap();
    let output = match command.arg("analyze").arg(&path).uid(NOBODY).gid(NOBODY).output() {
        Ok(output) => output,
        Err(error) => return skipped(TEST, &format!("another user cannot start the binary: {error}")),
    };
    let expected = format!("voxprobe: cannot read {}: Permission denied (os error 13)\n", path.display());
    assert_eq!((output.status.code(), text(&output.stderr)), (Some(1), expected));
    assert_eq!(text(&output.stdout), "");
}

#[test]
fn a_file_without_any_readable_link_type_is_an_error_in_both_formats() {
    let scratch = Scratch::new("user0").unwrap();
    for to in [Writer { link: USER0, ..Writer::PCAP }, Writer { link: USER0, ..Writer::PCAP_NG }] {
        let path = scratch.file("user0", &to.file(&talk(Datagram::ethernet))).unwrap();
        match analyze(std::slice::from_ref(&path), &Options::default(), |_, _| ()) {
            Err(AnalyzeError::File(FileError::LinkType { number, .. })) => assert_eq!(number, 147),
            other => panic!("{:?}: {:?}", to.format, other.map(|report| report.capture)),
        }
        if voxprobe("a_file_without_any_readable_link_type_is_an_error_in_both_formats").is_none() {
            continue;
        }
        let output = run(&["analyze"], &path);
        assert_eq!(output.status.code(), Some(1), "{:?}", to.format);
        assert!(text(&output.stderr).contains("link type 147 is not read"), "{}", text(&output.stderr));
        assert_eq!(text(&output.stdout), "");
    }
}

#[test]
fn one_readable_interface_makes_a_report_with_a_note_of_the_others() {
    let (ethernet, user0) = (Writer::PCAP_NG, Writer { link: USER0, ..Writer::PCAP_NG });
    let frame = rtp().over(udp()).ethernet();
    let file = [
        ethernet.section(),
        user0.interface("odd", Some(9), None, 0),
        ethernet.interface("eth0", Some(9), None, 0),
        ethernet.enhanced(0, START_NS, &frame),
        ethernet.enhanced(1, START_NS, &frame),
    ];
    let scratch = Scratch::new("mixed").unwrap();
    let path = scratch.file("mixed.pcapng", &file.concat()).unwrap();
    let report = analyze(&[path], &Options::default(), |_, _| ()).unwrap();
    assert_eq!(report.capture.packets, 2);
    let told =
        report.capture.notes.iter().any(|note| note.contains("1 frames of link types that are not read"));
    assert!(told, "{:?}", report.capture.notes);
}

#[test]
fn a_file_without_frames_is_no_error_whatever_its_link_type() {
    let scratch = Scratch::new("frameless").unwrap();
    let file = Writer { link: USER0, ..Writer::PCAP_NG }.file(&[]);
    let path = scratch.file("frameless.pcapng", &file).unwrap();
    assert_eq!(analyze(&[path], &Options::default(), |_, _| ()).unwrap().capture.packets, 0);
}

#[test]
fn copies_on_the_any_device_are_explained_by_router_and_direction() {
    let scratch = Scratch::new("any").unwrap();
    for (link, cooked) in [(113, Datagram::cooked as fn(&Datagram, u8) -> Vec<u8>), (276, Datagram::cooked2)]
    {
        // Each packet as it came and, 30 us later, as it left.
        let frames: Vec<Timed> = talk(|packet| cooked(packet, 0))
            .into_iter()
            .zip(talk(|packet| {
                cooked(&Datagram { ttl: packet.ttl - 1, src_mac: [2, 0, 0, 0, 9, 8], ..packet.clone() }, 4)
            }))
            .flat_map(|((time, arriving), (_, leaving))| [(time, arriving), (time + 30_000, leaving)])
            .collect();
        let path = scratch.file("any.pcap", &Writer { link, ..Writer::PCAP }.file(&frames)).unwrap();
        let report = analyze(&[path], &Options::default(), |_, _| ()).unwrap();
        let report = serde_json::to_value(&report).unwrap();
        let stream = &report["streams"][0];
        assert_eq!((&stream["raw"]["packets"], &stream["unique"]["packets"]), (&200.into(), &100.into()));
        let causes = stream["duplicates"]["causes"].as_array().unwrap();
        assert_eq!(causes.len(), 1, "{causes:#?}");
        assert_eq!((&causes[0]["cause"], &causes[0]["count"]), (&"routed".into(), &100.into()));
        assert_eq!(causes[0]["differs"], serde_json::json!(["src_mac", "ttl", "direction"]));
    }
}

/// A hundred packets of one stream, 20 ms apart.
fn talk(framed: impl Fn(&Datagram) -> Vec<u8>) -> Vec<Timed> {
    let packet = |n: u16| rtp().seq(n).varied(160).over(udp().ip_id(n));
    (0..100).map(|n| (START_NS + u64::from(n) * 20_000_000, framed(&packet(n)))).collect()
}

/// The binary, or a loud skip.
fn voxprobe(test: &str) -> Option<Command> {
    match Probe::binary() {
        Ok(binary) => {
            let mut command = Command::new(binary);
            command.stdin(Stdio::null());
            Some(command)
        }
        Err(error) => {
            skipped(test, &format!("{error:#}"));
            None
        }
    }
}

fn run(arguments: &[&str], path: &Path) -> Output {
    Command::new(Probe::binary().unwrap()).args(arguments).arg(path).output().unwrap()
}

fn report(output: &Output) -> Value {
    assert!(output.status.success(), "{}", text(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

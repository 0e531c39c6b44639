//! The story that the project exists for: a call with 407 and a transfer, as two taps and a remote capture show it.
//!
//! The capture comes from the generator, and so do the expectations; nothing here is read back from the analysis. That every
//! frame has its class is [the corpus'](corpus.rs) claim; here it is what the report says.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::fs;
use std::path::PathBuf;

use serde_json::Value;
use voxlab::captures::{Timed, Writer};
use voxlab::frames::{rtp, udp};
use voxlab::story::scene::Plan;
use voxlab::story::taps::Step;
use voxlab::story::{Recording, Story};
use voxprobe::pipeline::offline::{Options, analyze};

const START_NS: u64 = 1_700_000_000_000_000_000;

/// Twelve seconds of talk.
const STORY: Plan = Plan {
    seed: 7,
    packets: 600,
    auth: true,
    transfer: true,
    retransmissions: true,
    loss_percent: 0.5,
    ..Plan::PLAIN
};

fn story(steps: &[Step]) -> Story {
    Story::new(&STORY, &Recording::by(steps))
}

fn analyse(story: &Story, name: &str, options: &Options) -> Value {
    let path = scratch(name);
    story.write(&path).unwrap();
    let report = analyze(std::slice::from_ref(&path), options, |_, _| ()).unwrap();
    fs::remove_file(&path).unwrap();
    serde_json::to_value(report).unwrap()
}

/// What must hold whatever the other taps are.
fn check(story: &Story, report: &Value, causes: &[&str]) {
    let (truth, totals) = (&story.truth, &story.truth.totals);
    let capture = &report["capture"];
    assert_eq!(capture["packets"], totals.frames);
    assert_eq!(capture["analysed"], capture["matched"]);
    let sip = &report["sip"];
    assert_eq!(sip["messages"], totals.sip_messages, "{sip:#}");
    assert_eq!(sip["copies"], totals.sip_copies, "{sip:#}");
    assert_eq!(sip["retransmissions"], totals.retransmissions);
    assert_eq!(sip["auth_challenges"], totals.auth_challenges);
    assert_eq!(sip["malformed"], 0);
    let streams = report["streams"].as_array().unwrap();
    assert_eq!(streams.len(), truth.streams.len());
    for truth in &truth.streams {
        let stream = streams.iter().find(|stream| stream["ssrc"] == truth.ssrc).unwrap();
        assert_eq!(stream["unique"]["packets"], truth.packets);
        assert_eq!(stream["unique"]["lost"], truth.lost);
        assert_eq!(stream["call_id"].as_str(), truth.call_id.as_deref());
        assert_eq!(stream["codec"], "PCMU");
        let jitter = stream["jitter_percentiles_us"]["max"].as_f64().unwrap();
        assert!(jitter < 2_100.0, "the pause became jitter: {jitter} us");
        let pauses = stream["interruptions"].as_array().unwrap();
        assert_eq!(pauses.len(), 1);
        assert_eq!(pauses[0]["missing"], 0);
        assert_eq!(pauses[0]["began_at"]["event"], "REFER: transfer");
        assert!(pauses[0]["began_at"]["after_ms"].as_f64().unwrap().abs() < 20.0);
        assert_eq!(stream["duplicates"]["total"], truth.copies);
        for found in stream["duplicates"]["causes"].as_array().unwrap() {
            assert!(causes.contains(&found["cause"].as_str().unwrap()), "{found:#}");
        }
    }
    assert_eq!(report["calls"][0]["state"], "ended");
    assert_eq!(report["calls"][0]["transfers"].as_array().unwrap().len(), 1);
}

fn found(report: &Value, id: &str) -> bool {
    report["findings"].as_array().unwrap().iter().any(|finding| finding["id"] == id)
}

fn timed(story: &Story) -> Vec<Timed> {
    story.frames.iter().map(|frame| (frame.time_ns, frame.bytes.clone())).collect()
}

fn scratch(name: &str) -> PathBuf {
    std::env::temp_dir().join(format!("voxprobe-story-{}-{name}.pcapng", std::process::id()))
}

#[test]
fn alone_the_call_has_no_copies() {
    let story = story(&[]);
    let report = analyse(&story, "alone", &Options::default());
    check(&story, &report, &[]);
    assert_eq!(report["streams"][0]["raw"]["lost"], report["streams"][0]["unique"]["lost"]);
    assert!(!found(&report, "every-frame-copied"));
}

#[test]
fn two_taps_are_told_from_congestion_and_from_retransmission() {
    let story = story(&[Step::ReEmitted]);
    let report = analyse(&story, "two", &Options::default());
    check(&story, &report, &["re-emitted"]);
    let lost = report["streams"][0]["raw"]["lost_percent"].as_f64().unwrap();
    assert!((-99.6..-98.0).contains(&lost), "as captured, {lost} %");
    for id in &story.truth.findings {
        assert!(found(&report, id), "{id} is missing in {:#}", report["findings"]);
    }
    let cause = &report["streams"][0]["duplicates"]["causes"][0];
    assert_eq!(cause["differs"], serde_json::json!(["dst_mac", "ip_id"]));
    let delay_us = cause["delay_us"]["p50"].as_f64().unwrap();
    assert!((38.0..47.0).contains(&delay_us), "{delay_us} us");
}

#[test]
fn two_taps_and_the_remote_capture_of_both_are_four_copies() {
    let story = Story::new(&STORY, &Recording::by(&[Step::ReEmitted]).and_rpcap());
    let report = analyse(&story, "four", &Options::default());
    check(&story, &report, &["re-emitted", "encapsulated"]);
    for stream in report["streams"].as_array().unwrap() {
        let copies = stream["duplicates"]["copies_per_packet"].as_f64().unwrap();
        assert!((copies - 4.0).abs() < 1e-9, "{copies}");
    }
    for id in &story.truth.findings {
        assert!(found(&report, id), "{id} is missing in {:#}", report["findings"]);
    }
    let findings = report["findings"].as_array().unwrap();
    let copied = findings.iter().find(|finding| finding["id"] == "every-frame-copied").unwrap();
    let said = ["title", "detail", "advice"].map(|part| copied[part].as_str().unwrap()).join(" ");
    assert!(said.contains('4') && said.contains("rpcap") && said.contains("2002"), "{said}");
}

#[test]
fn four_taps_leave_the_call_as_it_was() {
    let story = story(&[Step::SamePoint, Step::Vlan, Step::Routed]);
    let report = analyse(&story, "taps", &Options::default());
    check(&story, &report, &["same-point", "vlan", "routed"]);
    let copies = report["streams"][0]["duplicates"]["copies_per_packet"].as_f64().unwrap();
    assert!((copies - 4.0).abs() < 1e-9);
}

#[test]
fn the_number_of_shards_changes_nothing() {
    let story = story(&[Step::ReEmitted]);
    let one = analyse(&story, "one-shard", &Options::default());
    let mut four = analyse(&story, "four-shards", &Options { threads: 4, ..Options::default() });
    four["capture"]["sources"] = one["capture"]["sources"].clone();
    assert_eq!(one, four);
}

#[test]
fn a_capture_cut_into_files_reads_as_one() {
    let story = story(&[Step::ReEmitted]);
    let frames = timed(&story);
    let whole = analyse(&story, "whole", &Options::default());
    for cut in [1, frames.len() / 3, frames.len() - 1] {
        let (first, second) = frames.split_at(cut);
        let paths = [scratch("cut-1"), scratch("cut-2")];
        fs::write(&paths[0], Writer::PCAP.file(first)).unwrap();
        fs::write(&paths[1], Writer::PCAP_NG.file(second)).unwrap();
        let mut parts =
            serde_json::to_value(analyze(&paths, &Options::default(), |_, _| ()).unwrap()).unwrap();
        parts["capture"]["sources"] = whole["capture"]["sources"].clone();
        for path in &paths {
            fs::remove_file(path).unwrap();
        }
        // Classic pcap rounds to microseconds, so figures may differ there; counts may not.
        for pointer in
            ["/sip/messages", "/sip/copies", "/streams/0/unique/lost", "/streams/1/duplicates/total"]
        {
            assert_eq!(parts.pointer(pointer), whole.pointer(pointer), "{pointer} with a cut after {cut}");
        }
    }
}

#[test]
fn files_that_overlap_in_time_are_noted() {
    let story = story(&[Step::ReEmitted]);
    let frames = timed(&story);
    let (first, second) = frames.split_at(frames.len() / 2);
    let paths = [scratch("late"), scratch("early")];
    fs::write(&paths[0], Writer::PCAP_NG.file(second)).unwrap();
    fs::write(&paths[1], Writer::PCAP_NG.file(first)).unwrap();
    let notes = |paths: &[PathBuf]| analyze(paths, &Options::default(), |_, _| ()).unwrap().capture.notes;
    let (wrong, right) = (notes(&paths), notes(&[paths[1].clone(), paths[0].clone()]));
    for path in &paths {
        fs::remove_file(path).unwrap();
    }
    assert_eq!(right, [""; 0]);
    assert_eq!(wrong.len(), 1);
    assert!(wrong[0].contains("-early.pcapng: begins before") && wrong[0].contains("mergecap"), "{wrong:?}");
}

#[test]
fn of_more_streams_than_there_is_room_for_each_is_listed_or_noted() {
    let (streams, room) = (5_000_u32, 100_usize);
    let mut frames = Vec::new();
    for ssrc in 0..streams {
        for seq in 0..2 {
            let packet = rtp().seq(seq).ssrc(ssrc).payload(&[7; 160]).over(udp()).ports(16_384, 20_002);
            frames.push((START_NS + u64::from(ssrc) * 1_000 + u64::from(seq), packet.ethernet()));
        }
    }
    let path = scratch("flood");
    fs::write(&path, Writer::PCAP_NG.file(&frames)).unwrap();
    for shards in [1, 4] {
        let options = Options { max_streams: room, threads: shards, ..Options::default() };
        let report = analyze(std::slice::from_ref(&path), &options, |_, _| ()).unwrap();
        // One flow is on one shard, which has its part of the room; evicted ones have the whole again.
        let held = room / shards;
        assert_eq!(report.streams.len(), held + room);
        let evicted = streams as usize - held;
        let notes = &report.capture.notes;
        assert_eq!(notes.len(), 2, "{notes:?}");
        assert!(notes[0].starts_with(&format!("{evicted} streams had to make room")), "{notes:?}");
        assert!(notes[1].starts_with(&format!("{} streams that made room", evicted - room)), "{notes:?}");
        assert_eq!(report.capture.analysed, u64::from(streams) * 2);
    }
    fs::remove_file(&path).unwrap();
}

//! The whole probe under load: programs, rings, receiver, shards, reports. Whatever the rate, the account is
//! exact: `matched = analysed + sum(losses)`, and every frame that the generator sent and the link did not drop
//! was matched.
//!
//! How fast it is without loss is measured by `voxlab throughput` in a release build, not here.

use std::time::Duration;

use voxlab::privileges::root_for;
use voxlab::throughput::{Run, Setup, measure};
use voxlab::traffic::Spec;
use voxprobe::capture::live::Mode;
use voxprobe::pipeline::Loss;

fn tap(shards: usize, ring_bytes: u32) -> Setup {
    Setup { mode: Mode::Tap, shards, ring_bytes, sheds: false }
}

fn assert_exact(run: &Run) {
    let capture = &run.report.capture;
    let lost = run.lost();
    assert_eq!(capture.matched, capture.analysed + lost, "{:?}", capture.losses);
    assert!(capture.matched <= run.sent.frames);
    eprintln!(
        "sent {}, matched {} = analysed {} + lost {lost} in {} streams",
        run.sent.frames,
        capture.matched,
        capture.analysed,
        run.report.streams.len()
    );
}

#[test]
fn ten_million_frames_at_a_million_a_second_are_accounted_for() {
    if !root_for("ten_million_frames_at_a_million_a_second_are_accounted_for") {
        return;
    }
    let spec = Spec { streams: 1_024, rate_pps: Some(1_000_000), limit: Some(10_000_000), ..Spec::default() };
    let run = measure(&spec, Duration::from_secs(40), tap(1, 64 << 20)).unwrap();
    assert_exact(&run);
    assert_eq!(run.report.streams.len(), 1_024);
    let seen: u64 = run.report.streams.iter().map(|stream| stream.raw.packets).sum();
    assert_eq!(seen, run.report.capture.analysed, "what was analysed is in the streams");
}

#[test]
fn a_ring_of_one_page_and_several_shards_lose_nothing_without_a_name() {
    if !root_for("a_ring_of_one_page_and_several_shards_lose_nothing_without_a_name") {
        return;
    }
    let spec = Spec { streams: 1_024, rate_pps: Some(500_000), ..Spec::default() };
    let run = measure(&spec, Duration::from_secs(3), tap(3, 4_096)).unwrap();
    assert_exact(&run);
    assert!(run.report.capture.losses[Loss::RingFull.name()] > run.report.capture.analysed);
    // A hole that the probe made is not held against the network.
    assert!(!run.report.findings.iter().any(|finding| finding.id == "packets-lost"));
    assert!(run.report.streams.iter().all(|stream| stream.unique.lost == 0 || stream.loss_is_upper_bound));
    let first = &run.report.findings[0];
    assert_eq!((first.id, first.advice.as_str()), ("loss-made-by-the-capture", Loss::RingFull.advice()));
}

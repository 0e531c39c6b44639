//! The whole probe under load: programs, rings, receiver, shards, reports. Whatever the rate, the account is
//! exact: `matched = analysed + sum(losses)`, and every frame that the generator sent and the link did not drop
//! was matched.
//!
//! How fast it is without loss is measured by `cargo xtask traffic` and a release build, not here.

use std::time::Duration;

use anyhow::{Context as _, Result};
use voxlab::netns::{End, LabName, Namespace, join};
use voxlab::privileges::root_for;
use voxlab::traffic::{Generator, Sent, Spec};
use voxprobe::capture::clock::monotonic_ns;
use voxprobe::capture::live::{LiveOptions, interfaces};
use voxprobe::packet::Nanos;
use voxprobe::pipeline::Loss;
use voxprobe::pipeline::live::{Options, Outcome, Probe};
use voxprobe::report::contract::Report;
use voxprobe::report::monitor::Monitor;

/// What is left of a run.
struct Run {
    sent: Sent,
    report: Report,
}

/// Sends over a veth pair past a probe, and ends the probe while nothing is sent any more.
fn run(spec: &Spec, ring_bytes: u32, shards: usize, duration: Duration) -> Result<Run> {
    let lab = LabName::unique()?;
    let (near, far) = (Namespace::create(&lab, "near")?, Namespace::create(&lab, "far")?);
    let end = |namespace, interface, mac| End { namespace, interface, mac };
    join(end(&near, "near0", "02:00:00:00:00:01"), end(&far, "far0", "02:00:00:00:00:02"))?;
    let options = Options {
        capture: LiveOptions { ring_bytes, ..LiveOptions::new(["far0"]) },
        shards,
        max_streams: 4_096,
        idle: Duration::from_secs(30),
        interval: Duration::from_secs(1),
    };
    let started = Nanos(monotonic_ns());
    let probe = far.within(|| Probe::start(&options))??;
    let sent = near.within(|| -> Result<Sent> {
        let all = interfaces()?;
        let near0 = all.iter().find(|i| i.name == "near0").context("near0 is gone")?;
        Generator::start(near0.index, spec)?.run(duration, spec.limit.unwrap_or(u64::MAX))
    })??;
    std::thread::sleep(Duration::from_millis(200));
    let mut monitor = Monitor::new(started, shards, usize::MAX);
    let outcome: Outcome = probe.stop(|event| {
        monitor.take(event);
    })?;
    let report = monitor.finish(outcome, &["far0".to_owned()], false);
    Ok(Run { sent, report })
}

fn assert_exact(run: &Run) {
    let capture = &run.report.capture;
    let lost: u64 = capture.losses.values().sum();
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
    let run = run(&spec, 64 << 20, 1, Duration::from_secs(40)).unwrap();
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
    let run = run(&spec, 4_096, 3, Duration::from_secs(3)).unwrap();
    assert_exact(&run);
    assert!(run.report.capture.losses[Loss::RingFull.name()] > run.report.capture.analysed);
    // A hole that the probe made is not held against the network.
    assert!(!run.report.findings.iter().any(|finding| finding.id == "packets-lost"));
    assert!(run.report.streams.iter().all(|stream| stream.unique.lost == 0 || stream.loss_is_upper_bound));
    let first = &run.report.findings[0];
    assert_eq!((first.id, first.advice.as_str()), ("loss-made-by-the-capture", Loss::RingFull.advice()));
}

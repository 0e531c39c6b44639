//! What is wrong with the capture itself, before anything is said of calls.

use crate::report::contract::{Finding, Report, Severity};
use crate::report::forensics::Cause;
use crate::report::words;

pub(super) fn find(report: &Report) -> impl Iterator<Item = Finding> {
    [times_run_backwards(report), capture_paused(report)].into_iter().flatten()
}

/// Durations are differences of times, so all of them are in doubt.
fn times_run_backwards(report: &Report) -> Option<Finding> {
    let times = &report.capture.times;
    (times.steps_back > 0).then(|| Finding {
        id: "time-runs-backwards",
        severity: Severity::Warn,
        title: format!(
            "the times of the frames run backwards {}",
            if times.steps_back == 1 { "once".to_owned() } else { words::count(times.steps_back, "time") }
        ),
        detail: format!(
            "By {} at most, from one frame to the next: files were joined in another order than that of time, or a clock was \
             set. Calls, durations, jitter and losses across such a place are wrong.",
            words::span(times.furthest_back_s * 1e3),
        ),
        advice: "put the frames in order first: mergecap for several files, reordercap for one".to_owned(),
        evidence: times.stepped_at.clone(),
    })
}

fn capture_paused(report: &Report) -> Option<Finding> {
    let is_paused = |cause: Cause| cause == Cause::CapturePaused;
    let paused = report.streams.iter().filter_map(|stream| {
        let mut found = stream.interruptions.iter().filter(|found| is_paused(found.explanation.cause));
        let longest = found.clone().max_by(|a, b| a.gap.silence_s.total_cmp(&b.gap.silence_s))?;
        Some((longest, found.by_ref().map(|found| found.gap.missing).sum::<u64>()))
    });
    let paused: Vec<_> = paused.collect();
    let (longest, _) = paused.iter().max_by(|(a, _), (b, _)| a.gap.silence_s.total_cmp(&b.gap.silence_s))?;
    let missing = paused.iter().map(|(_, missing)| missing).sum();
    Some(Finding {
        id: "capture-paused",
        severity: Severity::Warn,
        title: format!("the capture itself has a hole of {}", words::span(longest.gap.silence_s * 1e3)),
        detail: format!(
            "{} stopped and came back with the other direction, and no frame of any kind was captured meanwhile: the capture \
             paused, a file is missing, or its clock was set. {} missing there, which is not held against the network.",
            words::count(paused.len() as u64, "stream"),
            words::count(missing, "packet"),
        ),
        advice: "look whether all files of the capture are given, and what the machine that captured did at the time"
            .to_owned(),
        evidence: vec![longest.gap.packet],
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::packet::{Flow, Nanos};
    use crate::report::contract::{CaptureReport, testing};
    use crate::sip::SignallingReport;

    #[test]
    fn files_joined_in_the_wrong_order_are_told_with_the_frame() {
        let mut report = testing::report(vec![testing::stream()]);
        assert_eq!(times_run_backwards(&report), None);
        for (s, packet) in [(100, 1), (160, 2), (40, 3), (99, 4)] {
            report.capture.times.observe(Nanos(s * 1_000_000_000), packet);
        }
        let found = times_run_backwards(&report).unwrap();
        assert_eq!(found.title, "the times of the frames run backwards once");
        assert!(found.detail.starts_with("By 2m00s at most"), "{}", found.detail);
        assert_eq!(found.evidence, [3]);
    }

    /// A report of two streams of one conversation that were silent for 40 s, in a capture that was silent from `from_s` on.
    fn silent(back: bool, from_s: u64, length_s: u64) -> Report {
        let mut there = testing::interrupted(40.0, 2_000, false);
        (there.unique.expected, there.unique.lost, there.unique.lost_percent) = (4_000, 2_000, 50.0);
        let mut other = there.clone();
        if back {
            (other.src, other.dst) = (there.dst, there.src);
            other.identity.key.flow = Flow { src: there.dst, dst: there.src };
        }
        let began = there.interruptions[0].gap.began();
        let mut capture = CaptureReport::default();
        let from = Nanos(began.0 + from_s * 1_000_000_000);
        for (packet, time) in (1..).zip([from, Nanos(from.0 + length_s * 1_000_000_000)]) {
            capture.times.observe(time, packet);
        }
        Report::new(capture, vec![there, other], SignallingReport::default())
    }

    #[test]
    fn a_hole_of_the_capture_is_not_held_against_the_network() {
        let report = silent(true, 0, 40);
        let ids: Vec<_> = report.findings.iter().map(|finding| finding.id).collect();
        assert!(ids.contains(&"capture-paused") && !ids.contains(&"packets-lost"), "{ids:?}");
        assert!(!ids.contains(&"stream-interrupted"), "{ids:?}");
        let stream = &report.streams[0];
        assert_eq!((stream.excused, stream.lost_on_the_way_percent()), (2_000, 0.0));
        assert!(stream.mos.as_ref().unwrap().value > 4.0, "{:?}", stream.mos);
        let detail = &capture_paused(&report).unwrap().detail;
        assert!(
            detail.starts_with("2 streams stopped") && detail.contains("4,000 packets missing"),
            "{detail}"
        );
    }

    #[test]
    fn one_direction_alone_or_another_time_is_the_networks() {
        for report in [silent(false, 0, 40), silent(true, 4, 32), silent(true, 0, 20)] {
            assert_eq!((capture_paused(&report), report.streams[0].excused), (None, 0));
            assert!(report.findings.iter().any(|finding| finding.id == "packets-lost"));
        }
    }
}

//! What is wrong with the capture itself, before anything is said of calls.

use crate::report::contract::{Finding, Report, Severity};
use crate::report::words;

/// Times are differences of times, so all of them are in doubt.
pub(super) fn times_run_backwards(report: &Report) -> Option<Finding> {
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::packet::Nanos;
    use crate::report::contract::testing;

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
}

//! What the remote captures in the capture say of themselves: loss that no network made.

use super::contract::{Finding, Report, Severity};
use super::words;
use crate::decode::RemoteCapture;

/// Remote captures named in one finding.
const NAMED: usize = 3;

/// Frames that a remote capture dropped before it sent them.
pub(super) fn dropped(report: &Report) -> Option<Finding> {
    let lossy: Vec<_> = report
        .capture
        .remote_captures
        .iter()
        .filter_map(|remote| Some((remote, remote.statistics?)))
        .filter(|(_, statistics)| statistics.dropped() > 0)
        .collect();
    let total: u64 = lossy.iter().map(|(_, statistics)| statistics.dropped()).sum();
    let each = lossy.iter().take(NAMED).map(|(remote, statistics)| {
        format!(
            "{} dropped {} of the {} that it received ({} by the interface, {} by the kernel)",
            name(remote),
            words::count(statistics.dropped(), "frame"),
            words::thousands(u64::from(statistics.received)),
            words::thousands(u64::from(statistics.interface_dropped)),
            words::thousands(u64::from(statistics.kernel_dropped)),
        )
    });
    let details: Vec<_> = each.collect();
    let more = match lossy.len().saturating_sub(NAMED) {
        0 => String::new(),
        more => format!("; and {more} more remote captures"),
    };
    (total > 0).then(|| Finding {
        id: "remote-capture-dropped",
        severity: Severity::Warn,
        title: format!("a remote capture lost {} before it sent them", words::count(total, "frame")),
        detail: format!(
            "By its own statistics, {}{more}. What is missing from streams that only it saw may be among them: that is \
             loss of the capture, not of the network.",
            details.join("; ")
        ),
        advice: "capture on the machine itself into a file, or give its capture a filter and a larger buffer".to_owned(),
        evidence: lossy.iter().map(|(_, statistics)| statistics.frame).take(NAMED).collect(),
    })
}

/// The machine, and the interface if it is known.
fn name(remote: &RemoteCapture) -> String {
    match &remote.interface {
        Some(interface) => format!("{} ({})", remote.server, words::printable(interface)),
        None => remote.server.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::decode::RemoteStatistics;
    use crate::packet::Endpoint;
    use crate::report::contract::CaptureReport;
    use crate::sip::SignallingReport;

    fn remote(last: u8, dropped: Option<(u32, u32)>) -> RemoteCapture {
        let (server, client) = (Endpoint::v4([192, 0, 2, last], 2002), Endpoint::v4([192, 0, 2, 9], 50_000));
        let mut remote = RemoteCapture::between(server, client);
        remote.interface = Some("eth0".to_owned());
        remote.statistics = dropped.map(|(interface_dropped, kernel_dropped)| RemoteStatistics {
            received: 5_000,
            interface_dropped,
            kernel_dropped,
            captured: 4_000,
            frame: 77,
        });
        remote
    }

    #[test]
    fn a_remote_capture_that_dropped_is_named_with_its_figures_and_one_that_did_not_is_not() {
        let remotes = vec![remote(1, None), remote(2, Some((0, 0))), remote(3, Some((1, 1_200)))];
        let capture = CaptureReport { remote_captures: remotes, ..CaptureReport::default() };
        let report = Report::new(capture, Vec::new(), SignallingReport::default());
        let found = report.findings.iter().find(|finding| finding.id == "remote-capture-dropped").unwrap();
        assert_eq!(found.title, "a remote capture lost 1,201 frames before it sent them");
        assert!(
            found.detail.contains(
                "192.0.2.3:2002 (eth0) dropped 1,201 frames of the 5,000 that it received (1 by the interface, 1,200 by \
                 the kernel)."
            ),
            "{}",
            found.detail
        );
        assert_eq!(found.evidence, [77]);
    }
}

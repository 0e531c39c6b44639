//! Streams and reports for tests of what is said about them.

use std::sync::Arc;

use super::*;
use crate::report::troubles::InterruptionReport;
use crate::rtp::Stream;
use crate::rtp::testing::packet;
use crate::rtp::unique::Interruption;

/// Ten packets of PCMU without a fault, from 10.0.0.1:4000 to 10.0.0.2:5000.
pub(crate) fn stream() -> StreamReport {
    let first = packet(0);
    let mut stream = Stream::new(&first, 1, first.time, Arc::default());
    (1..10).for_each(|seq| {
        stream.observe(&packet(seq), first.time);
    });
    StreamReport::new(stream.into_parts(), 0.0)
}

/// A stream that was silent: for how long, how many packets are missing, and did the numbering jump?
pub(crate) fn interrupted(silence_s: f64, missing: u64, restarted: bool) -> StreamReport {
    let timestamp_s = Some(silence_s);
    let gap = Interruption { at: packet(9).time, packet: 9, silence_s, timestamp_s, missing, restarted };
    StreamReport { interruptions: vec![InterruptionReport::new(gap, 0.0)], interruption_count: 1, ..stream() }
}

/// A report of nothing but these streams.
pub(crate) fn report(streams: Vec<StreamReport>) -> Report {
    let packets = streams.iter().map(|stream| stream.raw.packets).sum();
    let capture = CaptureReport { packets, matched: packets, analysed: packets, ..CaptureReport::default() };
    Report::new(capture, streams, SignallingReport::default())
}

/// A call that nothing happened in.
pub(crate) fn call(call_id: &str) -> CallWithStreams {
    let call = CallReport {
        call_id: call_id.into(),
        from: "sip:1001@pbx.example".into(),
        to: "sip:200@pbx.example".into(),
        messages: 1,
        first_frame: 1,
        ..CallReport::default()
    };
    CallWithStreams {
        call,
        streams: Vec::new(),
        media_absent_because: None,
        media_findings: Vec::new(),
        fax_packets: 0,
        worst_stream: None,
        problems: Vec::new(),
        distributions: Distributions::default(),
    }
}

/// How a call names a stream that is its own.
pub(crate) fn named(stream: &StreamReport) -> StreamRef {
    StreamRef { src: stream.src, dst: stream.dst, ssrc: stream.ssrc.clone() }
}

/// The finding of this name.
pub(in crate::report) fn found<'a>(findings: &'a [Finding], id: &str) -> &'a Finding {
    let finding = findings.iter().find(|finding| finding.id == id);
    finding.unwrap_or_else(|| panic!("no {id} in {findings:#?}"))
}

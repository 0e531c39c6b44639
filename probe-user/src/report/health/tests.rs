//! What the lines of the log say.

use jiff::Timestamp;

use super::super::contract::Severity;
use super::*;
use crate::dedup::stats::Copy;
use crate::dedup::{CopyStats, explain};
use crate::histogram::MicrosHistogram;
use crate::rtp::StreamKey;
use crate::rtp::codec::Announcement;
use crate::rtp::quality::QualityInterval;
use crate::rtp::stream::{IntervalSummary, Totals};
use crate::rtp::testing::{flow, packet};

/// An interval of 500 packets with 400 us of jitter, in which `change` happened.
fn line(change: impl FnOnce(&mut IntervalLine)) -> StreamEntry {
    let mut jitter = MicrosHistogram::default();
    (0..499).for_each(|_| jitter.record_ns(400_000));
    let totals = Totals { frames: 500, packets: 500, expected: 500, copies: 0 };
    let mut line = IntervalLine {
        round: 1,
        key: StreamKey::from(&packet(0)),
        number: 1,
        encapsulation: crate::packet::Encapsulation::NONE,
        codec: Some("PCMU".to_owned()),
        codec_parameters: None,
        payload_type: 0,
        announcement: Arc::new(Announcement {
            call_id: Some("a84b4c76e66710@x".into()),
            ..Announcement::default()
        }),
        summary: IntervalSummary {
            totals,
            quality: QualityInterval { jitter, ..QualityInterval::default() },
        },
        lifetime: totals,
        raw_lost_percent: 0.0,
        burst_ratio: 1.0,
        settings: Arc::default(),
        causes: Vec::new(),
        taps: Vec::new(),
    };
    change(&mut line);
    StreamEntry::new(line)
}

fn text(entry: &Entry) -> String {
    let line = Format::new(false, false).line(Timestamp::UNIX_EPOCH, entry);
    line.get(10..).unwrap().to_owned()
}

#[test]
fn a_healthy_stream_is_one_aligned_line() {
    assert_eq!(
        text(&Entry::Stream(Box::new(line(|_| ())))),
        "ok            10.0.0.1:4000 → 10.0.0.2:5000          PCMU   500 pkt  lost  0.0 %  jitter p50 0.4 p99 0.4 ms  \
         MOS 4.4  call a84b4c76"
    );
}

#[test]
fn what_only_the_far_end_lost_is_said_and_the_line_is_not_ok() {
    let flow = crate::packet::Flow { src: flow().dst, dst: flow().src };
    let mut line = line(|_| ());
    line.hear(&News { flow, ssrc: line.key.ssrc, lost_percent: 6.25, round_trip_ms: Some(412.0) });
    let text = text(&Entry::Stream(Box::new(line)));
    assert!(text.starts_with("far "), "{text}");
    assert!(text.ends_with("far end lost 6.2 %  412 ms to the far end and back  call a84b4c76"), "{text}");
}

#[test]
fn a_far_end_that_agrees_says_nothing_new() {
    let mut line = line(|_| ());
    let before = text(&Entry::Stream(Box::new(line.clone())));
    let flow = flow();
    line.hear(&News { flow, ssrc: line.key.ssrc, lost_percent: 0.4, round_trip_ms: Some(40.0) });
    assert_eq!(text(&Entry::Stream(Box::new(line))), before);
}

#[test]
fn a_mirrored_stream_says_what_the_capture_did_and_that_nothing_was_lost() {
    let mut copies = CopyStats::default();
    let (original, mut copy) = (packet(1).evidence, packet(1).evidence);
    (copy.dst_mac, copy.ip_id) = ([9; 6], 0xffff);
    let (time, explanation) = (crate::packet::Nanos(38_000), explain(&original, &copy));
    let original_time = crate::packet::Nanos(0);
    copies.observe(&Copy { explanation, original_time, original: 3062, time, number: 3066 });
    let entry = line(|line| {
        line.summary.totals.copies = 500;
        line.raw_lost_percent = -99.39;
        line.causes = copies.causes(500);
    });
    assert_eq!(entry.status, Status::Dup);
    let text = text(&Entry::Stream(Box::new(entry)));
    let part = "lost  0.0 % (as captured -99.4 %: every frame twice, re-emitted: destination MAC and IP ID differ, +38 us)";
    assert!(text.contains(part), "{text}");
}

#[test]
fn the_worst_word_wins_and_absent_numbers_say_why() {
    let lossy = line(|line| {
        line.summary.totals.expected = 520;
        line.codec = None;
        line.announcement = Arc::default();
        line.summary.quality.jitter = MicrosHistogram::default();
    });
    assert_eq!(lossy.status, Status::Loss);
    let text = text(&Entry::Stream(Box::new(lossy)));
    for part in
        ["lost  3.8 %", "jitter - (clock rate unknown)", "MOS - (codec unknown", "call - (no SDP seen)"]
    {
        assert!(text.contains(part), "{part} in {text}");
    }
}

#[test]
fn what_the_network_named_ends_no_line_and_commands_no_terminal() {
    let evil = "\u{1b}[2J\u{9b}31m\u{202e}\u{2028}x\n";
    let named = line(|line| line.codec = Some(evil.to_owned()));
    assert!(named.mos_absent_because.as_deref().is_some_and(|reason| reason.contains(evil)));
    let finding = Finding {
        id: "packets-lost",
        severity: Severity::Bad,
        title: evil.to_owned(),
        detail: evil.to_owned(),
        advice: evil.to_owned(),
        evidence: Vec::new(),
    };
    for entry in [Entry::Stream(Box::new(named)), Entry::Finding(finding)] {
        let text = text(&entry);
        assert!(text.contains("\\u{1b}[2J\\u{9b}31m\\u{202e}\\u{2028}x\\n"), "{text:?}");
        assert!(text.chars().all(|c| !c.is_control() && !matches!(c, '\u{202e}' | '\u{2028}')), "{text:?}");
    }
}

#[test]
fn a_hole_that_the_probe_made_is_not_held_against_the_network() {
    let mut entry = line(|line| line.summary.totals.expected = 1_000);
    entry.doubt_loss();
    assert_eq!((entry.status, entry.mos), (Status::Hole, None));
    let text = text(&Entry::Stream(Box::new(entry)));
    assert!(text.starts_with("hole") && text.contains("lost≤50.0 %"), "{text}");
    assert!(text.contains("MOS - (the probe itself lost frames)"), "{text}");
}

#[test]
fn an_interval_without_a_packet_has_no_quality_and_is_not_ok() {
    let totals = |frames, copies| Totals { frames, packets: 0, expected: 0, copies };
    let unplaced = line(|line| {
        line.summary.totals = totals(500, 0);
        line.summary.quality.jitter = MicrosHistogram::default();
    });
    assert_eq!((unplaced.status, unplaced.mos), (Status::Jit, None));
    let reason = unplaced.mos_absent_because.as_deref();
    assert_eq!(reason, Some("no packet could be placed in this interval"));
    let late_copy = line(|line| {
        line.summary.totals = totals(1, 1);
        line.summary.quality.jitter = MicrosHistogram::default();
    });
    assert_eq!((late_copy.status, late_copy.mos), (Status::Dup, None));
}

#[test]
fn some_copied_frames_are_not_called_every_frame() {
    let text = text(&Entry::Stream(Box::new(line(|line| line.summary.totals.copies = 60))));
    assert!(text.contains(": 12 % copied)"), "{text}");
}

#[test]
fn the_json_form_carries_time_and_type() {
    let entry = Entry::Summary(SummaryEntry { matched: 2004, analysed: 2004, ..SummaryEntry::default() });
    let line = Format::new(true, false).line(Timestamp::UNIX_EPOCH, &entry);
    let value: serde_json::Value = serde_json::from_str(&line).unwrap();
    assert_eq!((&value["type"], &value["time"]), (&"summary".into(), &"1970-01-01T00:00:00.000000Z".into()));
    assert_eq!(value["matched"], 2004);
}

#[test]
fn the_sum_adds_up_in_words() {
    let by_status = BTreeMap::from([("dup", 1), ("ok", 3)]);
    let entry = SummaryEntry {
        calls: 2,
        streams: 4,
        by_status,
        matched: 2004,
        analysed: 2004,
        ..SummaryEntry::default()
    };
    assert_eq!(
        text(&Entry::Summary(entry)),
        "sum   2 calls, 4 streams (1 dup, 3 ok), 2,004 frames matched = 2,004 analysed + 0 lost"
    );
}

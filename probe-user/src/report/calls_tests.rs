//! What the list shows of a call, and that it fits.

use super::super::contract::testing::{named, report, stream};
use super::*;
use crate::sip::report::{Related, Transfer};

fn call(id: &str) -> CallWithStreams {
    let mut call = super::super::contract::testing::call(id);
    call.call.from = format!("sip:{}@pbx.example", "1".repeat(40)).into();
    call.call.to = "sip:\u{1b}[2J王小明王小明王小明@pbx.example".into();
    (call.call.state, call.call.final_code) = (CallState::Failed(486), Some(486));
    call.call.ended_by = Some("caller");
    (call.call.setup_ms, call.call.talked_ms) = (Some(12_345_678.0), Some(3_600_000.0));
    (call.call.messages, call.call.message_copies) = (1_234, 123_456);
    call.call.related = vec![Related {
        call_id: "b84b\u{202e}ffff".into(),
        relation: Relation::B2buaLeg,
        because: "same SSRC and payload on both sides".into(),
    }];
    call.media_absent_because = Some("word ".repeat(40));
    call.problems = (0..5)
        .map(|n| super::super::call_media::CallFinding {
            id: "x",
            text: format!("problem {n} {}", "word ".repeat(30)),
        })
        .collect();
    call
}

#[test]
fn a_line_fits_however_long_its_parts_are_and_obeys_no_escape() {
    let mut lossy = stream();
    lossy.call_id = Some("a84b4c76e66710@phone".into());
    lossy.unique.lost_percent = 12.34;
    let mut report = report(vec![lossy]);
    report.calls = vec![call("a84b4c76e66710@phone"), call("王王王王王王王王王")];
    for width in [80, 100, 120] {
        let text = render(&report, Style { width, ..Style::default() });
        for line in text.lines() {
            assert!(page::columns(line) <= width, "{} columns: {line}", page::columns(line));
        }
        assert!(!text.contains(['\u{1b}', '\u{202e}']), "{text:?}");
        assert!(text.contains("↳ other leg of a B2BUA: call b84b"), "{text}");
        assert!(text.contains("and 2 more"), "{text}");
    }
}

#[test]
fn a_call_is_one_line_of_its_figures_and_its_worst_stream() {
    let mut lossy = stream();
    lossy.call_id = Some("a84b4c76e66710@phone".into());
    lossy.unique.lost_percent = 12.34;
    let name = named(&lossy);
    let mut report = report(vec![lossy]);
    let mut call = super::super::contract::testing::call("a84b4c76e66710@phone");
    call.streams = vec![name];
    call.call.state = CallState::Ended;
    (call.call.ringing_ms, call.call.setup_ms, call.call.talked_ms) =
        (Some(564.0), Some(910.0), Some(9_400.0));
    (call.call.messages, call.call.message_copies, call.call.retransmissions) = (23, 69, 6);
    call.call.ended_by = Some("caller");
    let mut transfer = Transfer::default();
    (transfer.target, transfer.answer, transfer.outcome) =
        ("sip:300@pbx.example".into(), Some(202), Some(200));
    call.call.transfers = vec![transfer];
    report.calls = vec![call];
    let expected = "\
call     from → to             state        PDD setup   talk by     msgs  copy again lost%   p99 MOS
a84b4c76 1001 → 200            ended      564ms 910ms   9.4s caller   23   +69    +6  12.3  0.00 4.4
         ↳ transfer to 300: REFER answered with 202, NOTIFY said 200
";
    assert_eq!(render(&report, Style::default()), expected);
    let brief = render(&report, Style { is_brief: true, ..Style::default() });
    assert_eq!(brief.lines().count(), 2);
}

#[test]
fn an_answered_call_without_media_says_why_and_a_refused_one_need_not() {
    let mut report = report(Vec::new());
    report.calls =
        vec![super::super::contract::testing::call("a"), super::super::contract::testing::call("b")];
    for (call, state) in report.calls.iter_mut().zip([CallState::Ended, CallState::Failed(486)]) {
        call.call.state = state;
        call.media_absent_because = Some("nothing came to 10.0.0.1:4000".to_owned());
    }
    let text = render(&report, Style::default());
    assert_eq!(text.matches("no media: nothing came to 10.0.0.1:4000").count(), 1, "{text}");
}

#[test]
fn where_there_is_no_call_it_says_what_there_is() {
    let mut report = report(Vec::new());
    report.capture.packets = 12;
    report.capture.verdicts.insert("other", 12);
    assert_eq!(what_else(&report), "no SIP in 12 frames: 12 other");
}

#[test]
fn the_longer_name_gives_way_first() {
    let columns = |from: &str, to: &str| {
        let mut call = super::super::contract::testing::call("a");
        (call.call.from, call.call.to) = (from.into(), to.into());
        Columns::of(&call, &[]).names(15)
    };
    assert_eq!(columns("sip:1001@a", "tel:+442071838750"), "1001 → +442071…");
    assert_eq!(columns("sip:+442071838750@a", "sip:200@b;user=phone"), "+4420718… → 200");
    assert_eq!(columns("sip:+442071838750@a", "sip:+442071838751@a"), "+4420… → +4420…");
    assert_eq!(columns("sip:pbx.example;lr", "sip:b"), "pbx.example → b");
}

#[test]
fn as_json_each_call_has_its_streams_in_full() {
    let mut report = report(vec![stream()]);
    let mut with_media = call("a");
    with_media.streams = vec![named(&report.streams[0])];
    report.calls = vec![with_media, call("b")];
    let list = serde_json::to_value(InFull(&report)).unwrap();
    let packets: Vec<_> = (0..2).map(|n| list[n]["streams"][0]["unique"]["packets"].as_u64()).collect();
    assert_eq!((packets, list.as_array().unwrap().len()), (vec![Some(10), None], 2));
    assert_eq!(list[1]["call_id"], "b");
}

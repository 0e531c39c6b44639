//! What a ladder shows, and that it fits.

use super::draw::WIDTH;
use super::said::captured;
use super::*;
use crate::dedup::Cause;
use crate::packet::{Flow, Layer};
use crate::report::page::columns;
use crate::sip::transcript::Copies;

fn row(kind: Kind, from: usize, to: usize, label: &str, notes: &[&str]) -> Row {
    Row {
        at_s: 0.5,
        frame: 1,
        call: 0,
        kind,
        from,
        to,
        label: label.to_owned(),
        notes: notes.iter().map(|note| (*note).to_owned()).collect(),
        copies: None,
        ssrc: None,
    }
}

fn ladder(participants: &[&str], rows: Vec<Row>) -> Ladder {
    let call = |letter| LadderCall {
        letter,
        call_id: "a84b4c76".to_owned(),
        from: "sip:1001@pbx".to_owned(),
        to: "sip:200@pbx".to_owned(),
        outcome: "ended by caller after 9.4s".to_owned(),
        related: Vec::new(),
        problems: Vec::new(),
    };
    Ladder {
        call_id: "a84b4c76".to_owned(),
        parties: ("sip:1001@pbx".to_owned(), "sip:200@pbx".to_owned()),
        calls: vec![call('A')],
        participants: participants.iter().map(|name| (*name).to_owned()).collect(),
        rows,
        left_out: 0,
    }
}

const TWO: [&str; 2] = ["10.0.0.1", "10.0.0.2"];

#[test]
fn messages_stand_once_and_life_lines_are_double_while_media_flows() {
    let copied = |row: Row| Row { copies: Some("x4: 2 taps x rpcap".to_owned()), ..row };
    let rows = vec![
        copied(row(Kind::Message, 0, 1, "INVITE #1", &["PCMU at 10.0.0.1:4000"])),
        copied(row(Kind::Message, 1, 0, "407 Proxy Authentication Required (INVITE #1)", &[])),
        Row { copies: Some("x2: gre".to_owned()), ..row(Kind::Message, 1, 0, "200 OK (INVITE #1)", &[]) },
        row(Kind::Media, 0, 1, "RTP PCMU", &[]),
        row(Kind::Message, 0, 1, "ACK #1", &[]),
        row(Kind::Silence, 0, 1, "1.81 s silent", &["the sender stopped sending"]),
    ];
    let expected = "\
call a84b4c76: sip:1001@pbx → sip:200@pbx: ended by caller after 9.4s

x4 = captured 4 times, sent once: 2 taps x rpcap

   time s     since   10.0.0.1                            10.0.0.2
     0.500            │──────────── INVITE #1 ───────────▶│ PCMU at 10.0.0.1:4000; x4
     0.500    +0.000  │◀─ 407 Proxy Authentication… #1 ───│ x4
     0.500    +0.000  │◀────── 200 OK (INVITE #1) ────────│ x2: gre
     0.500    +0.000  │════════════ RTP PCMU ════════════▶│
     0.500    +0.000  ║───────────── ACK #1 ─────────────▶║
     0.500    +0.000  │╌╌╌╌╌╌╌╌╌╌ 1.81 s silent ╌╌╌╌╌╌╌╌╌▶│ the sender stopped sending
";
    assert_eq!(ladder(&TWO, rows).render(Charset::Utf8), expected);
}

#[test]
fn both_directions_of_one_moment_are_one_row_unless_a_message_is_between() {
    let there = row(Kind::MediaEnd, 0, 1, "RTP PCMU ends", &["lost 0.0 %"]);
    let back = Row { at_s: 0.51, ..row(Kind::MediaEnd, 1, 0, "RTP PCMU ends", &["lost 2.0 %"]) };
    let both = ladder(&TWO, vec![there.clone(), back.clone()]).render(Charset::Utf8);
    assert!(both.contains("│◀═════════ RTP PCMU ends ═════════▶│ → lost 0.0 %; ← lost 2.0 %"), "{both}");
    let bye = row(Kind::Message, 0, 1, "BYE #2", &[]);
    let apart = ladder(&TWO, vec![there, bye, back]).render(Charset::Utf8);
    assert_eq!(apart.matches("RTP PCMU ends").count(), 2, "{apart}");
}

#[test]
fn no_line_is_wider_than_a_hundred_columns_however_many_take_part() {
    let v6: Vec<String> = (0..9).map(|n| format!("2001:db8:1111:2222:3333:4444:5555:{n:04x}")).collect();
    let v4: Vec<String> = (0..9).map(|n| format!("192.168.100.{}", 100 + n)).collect();
    for names in [v4, v6] {
        for count in 1..=names.len() {
            let long = "王x".repeat(150);
            let rows: Vec<Row> = (0..count)
                .flat_map(|from| (0..count).map(move |to| (from, to)))
                .flat_map(|(from, to)| {
                    [
                        row(Kind::Silence, from, to, &long, &[&long]),
                        row(Kind::Message, from, to, "200 OK (BYE #2)", &[]),
                    ]
                })
                .collect();
            let names: Vec<&str> = names.iter().take(count).map(String::as_str).collect();
            let drawn = ladder(&names, rows);
            for charset in [Charset::Utf8, Charset::Ascii] {
                let text = drawn.render(charset);
                for line in text.lines() {
                    assert!(columns(line) <= WIDTH, "{count}, {} columns: {line}", columns(line));
                }
                assert!(names.iter().all(|name| text.contains(name)), "{text}");
            }
        }
    }
}

#[test]
fn eight_take_part_side_by_side_and_their_labels_are_whole() {
    let names: Vec<String> = (0..8).map(|n| format!("2001:db8:1111:2222:3333:4444:5555:{n:04x}")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let hops = (0..7).map(|at| row(Kind::Message, at, at + 1, "UPDATE #7", &[])).collect();
    let text = ladder(&names, hops).render(Charset::Utf8);
    assert_eq!(text.matches("UPDATE #7").count(), 7, "{text}");
    assert!(text.contains("   8  2001:db8:1111:2222:3333:4444:5555:0007"), "{text}");
}

#[test]
fn ascii_is_ascii_and_no_escape_of_the_network_is_obeyed() {
    let rows =
        vec![row(Kind::Message, 0, 1, "487 \u{1b}[2J", &["\u{202e}"]), row(Kind::Media, 1, 0, "RTP", &[])];
    let mut drawn = ladder(&TWO, rows);
    drawn.calls[0].from = "sip:\u{1b}[2J王@pbx".to_owned();
    drawn.calls[0].problems = vec![CallFinding { id: "x", text: "\u{1b}[2J".to_owned() }];
    let text = drawn.render(Charset::Ascii);
    assert!(text.is_ascii(), "{text}");
    assert!(text.chars().all(|c| c == '\n' || !c.is_control()), "{text:?}");
    assert!(!drawn.render(Charset::Utf8).contains(['\u{1b}', '\u{202e}']));
}

#[test]
fn calls_of_one_family_are_told_apart_by_letters() {
    let mut drawn = ladder(&TWO, vec![row(Kind::Message, 0, 1, "INVITE #1", &[])]);
    let related = vec!["made by the transfer of A (Referred-By)".to_owned()];
    let second = LadderCall { letter: 'B', related, ..ladder(&TWO, Vec::new()).calls.remove(0) };
    drawn.calls.push(second);
    drawn.rows.push(Row { call: 1, ..row(Kind::Message, 1, 0, "INVITE #1", &[]) });
    let text = drawn.render(Charset::Utf8);
    assert!(
        text.contains("B  call a84b4c76: ") && text.contains("        made by the transfer of A"),
        "{text}"
    );
    let letters: Vec<_> = text.lines().filter(|line| line.contains("0.500")).map(|line| &line[..1]).collect();
    assert_eq!(letters, ["A", "B"]);
}

#[test]
fn two_taps_and_rpcap_are_said_as_a_product_and_other_copies_by_their_causes() {
    let kind = |cause, layer, count| Copies { cause, layer, count };
    let table = [
        (vec![], None),
        (vec![kind(Cause::ReEmitted, None, 1)], Some("x2: re-emitted")),
        (
            vec![kind(Cause::ReEmitted, None, 1), kind(Cause::Encapsulated, Some(Layer::Rpcap), 2)],
            Some("x4: 2 taps x rpcap"),
        ),
        (
            vec![kind(Cause::Routed, None, 1), kind(Cause::Encapsulated, Some(Layer::Gre), 1)],
            Some("x3: routed, gre"),
        ),
    ];
    for (copies, expected) in table {
        assert_eq!(captured(&copies).as_deref(), expected);
    }
}

#[test]
fn who_shares_an_address_is_told_apart_by_port() {
    let flow = |src: u16, dst: u16| Flow {
        src: Endpoint::v4([127, 0, 0, 1], src),
        dst: Endpoint::v4([127, 0, 0, 1], dst),
    };
    let mut of_one_host = Participants { all: Vec::new(), with_ports: true };
    let Flow { src, dst } = flow(5060, 5070);
    assert_eq!([of_one_host.of(src), of_one_host.of(dst), of_one_host.of(src)], [0, 1, 0]);
    assert_eq!(of_one_host.names(), ["127.0.0.1:5060", "127.0.0.1:5070"]);
}

#[test]
fn a_call_that_goes_on_does_so_to_the_end_of_the_capture() {
    let mut call = crate::report::contract::testing::call("a");
    call.call.state = CallState::Answered;
    assert_eq!(outcome(&call), "answered, to the end of the capture");
    (call.call.state, call.call.ended_by, call.call.talked_ms) =
        (CallState::Ended, Some("caller"), Some(9_400.0));
    assert_eq!(outcome(&call), "ended by caller after 9.4s");
}

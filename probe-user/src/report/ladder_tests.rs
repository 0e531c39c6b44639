//! What a ladder shows, and that it fits.

use super::*;
use crate::packet::{Flow, Layer};

fn row(kind: Kind, from: usize, to: usize, label: &str, notes: &[&str]) -> Row {
    Row {
        at_s: 0.5,
        frame: 1,
        kind,
        from,
        to,
        label: label.to_owned(),
        notes: notes.iter().map(|note| (*note).to_owned()).collect(),
    }
}

fn ladder(participants: &[&str], rows: Vec<Row>) -> Ladder {
    Ladder {
        call_id: "a84b4c76".to_owned(),
        parties: ("sip:1001@pbx".to_owned(), "sip:200@pbx".to_owned()),
        participants: participants.iter().map(|name| (*name).to_owned()).collect(),
        rows,
        left_out: 0,
    }
}

#[test]
fn messages_stand_once_between_those_who_said_them() {
    let rows = vec![
        row(Kind::Message, 0, 1, "INVITE SDP", &["x4: 2 taps x rpcap"]),
        row(Kind::Message, 1, 0, "180 Ringing (INVITE)", &[]),
        row(Kind::Media, 0, 1, "RTP PCMU lost 0.5 %", &[]),
    ];
    let expected = "\
call a84b4c76: sip:1001@pbx to sip:200@pbx

   time s   since   10.0.0.1                                10.0.0.2
    0.500           │───────────── INVITE SDP ─────────────▶│ x4: 2 taps x rpcap
    0.500   +0.000  │◀─────── 180 Ringing (INVITE) ─────────│
    0.500   +0.000  │═════════ RTP PCMU lost 0.5 % ════════▶│
";
    assert_eq!(ladder(&["10.0.0.1", "10.0.0.2"], rows).render(Charset::Utf8), expected);
}

#[test]
fn no_line_is_wider_than_a_hundred_columns_however_many_take_part() {
    let names: Vec<String> = (0..9).map(|n| format!("2001:db8:1111:2222:3333:4444:5555:{n:04x}")).collect();
    for count in 1..=names.len() {
        let long = "x".repeat(300);
        let rows: Vec<Row> = (0..count)
            .flat_map(|from| (0..count).map(move |to| (from, to)))
            .map(|(from, to)| row(Kind::Silence, from, to, &long, &[&long]))
            .collect();
        let names: Vec<&str> = names.iter().take(count).map(String::as_str).collect();
        for charset in [Charset::Utf8, Charset::Ascii] {
            let text = ladder(&names, rows_of(&rows)).render(charset);
            for line in text.lines() {
                assert!(line.chars().count() <= WIDTH, "{count}: {line}");
            }
        }
    }
}

fn rows_of(rows: &[Row]) -> Vec<Row> {
    rows.iter().map(|of| Row { label: of.label.clone(), notes: of.notes.clone(), ..*of }).collect()
}

#[test]
fn ascii_is_ascii_and_no_escape_of_the_network_is_obeyed() {
    let rows =
        vec![row(Kind::Message, 0, 1, "487 \u{1b}[2J", &["\u{202e}"]), row(Kind::Media, 1, 0, "RTP", &[])];
    let text = ladder(&["10.0.0.1", "10.0.0.2"], rows).render(Charset::Ascii);
    assert!(text.is_ascii(), "{text}");
    assert!(text.chars().all(|c| c == '\n' || !c.is_control()), "{text:?}");
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

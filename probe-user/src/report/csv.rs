//! One row a stream, for spreadsheets. A column is a path of the JSON document, under the same name, so that what
//! `docs/report.md` says of a field holds here, too.

use std::io::{self, Write};

use serde_json::Value;

use super::contract::Report;
use super::words::printable;

/// The header: paths into one of `streams[]`. Columns may be added at the end; they are not renamed.
pub const COLUMNS: [&str; 62] = [
    "src",
    "dst",
    "ssrc",
    "payload_types",
    "codec",
    "clock_rate",
    "call_id",
    "encapsulation",
    "start_s",
    "end_s",
    "raw.packets",
    "raw.expected",
    "raw.lost",
    "raw.lost_percent",
    "raw.sequence_errors",
    "raw.delta_ms.min",
    "raw.delta_ms.mean",
    "raw.delta_ms.max",
    "raw.delta_ms.max_packet",
    "raw.jitter_ms.min",
    "raw.jitter_ms.mean",
    "raw.jitter_ms.max",
    "raw.skew_ms.max",
    "raw.clock_drift_ms",
    "raw.clock_drift_percent",
    "raw.clock_hz",
    "raw.duration_s",
    "unique.packets",
    "unique.expected",
    "unique.lost",
    "unique.lost_percent",
    "unique.sequence_errors",
    "unique.delta_ms.min",
    "unique.delta_ms.mean",
    "unique.delta_ms.max",
    "unique.delta_ms.max_packet",
    "unique.jitter_ms.min",
    "unique.jitter_ms.mean",
    "unique.jitter_ms.max",
    "unique.skew_ms.max",
    "unique.clock_drift_ms",
    "unique.clock_drift_percent",
    "unique.clock_hz",
    "unique.duration_s",
    "loss_is_upper_bound",
    "reordered",
    "restarts",
    "conflicts",
    "unplaced",
    "jitter_percentiles_us.p50",
    "jitter_percentiles_us.p90",
    "jitter_percentiles_us.p99",
    "jitter_percentiles_us.p999",
    "jitter_percentiles_us.max",
    "bursts.burst_density",
    "bursts.gap_density",
    "mos.value",
    "mos.scale",
    "mos_absent_because",
    "duplicates.copies_per_packet",
    "duplicates.total",
    "interruption_count",
];

/// Writes the header and all streams of a report.
pub fn write(report: &Report, to: impl Write) -> io::Result<()> {
    let mut rows = csv::Writer::from_writer(to);
    rows.write_record(COLUMNS).map_err(io_error)?;
    for stream in &report.streams {
        let stream = serde_json::to_value(stream)?;
        rows.write_record(COLUMNS.iter().map(|path| cell(&stream, path))).map_err(io_error)?;
    }
    rows.flush()
}

/// What is behind it: a pipe whose reader went away must be known as one.
fn io_error(error: csv::Error) -> io::Error {
    match error.into_kind() {
        csv::ErrorKind::Io(error) => error,
        other => io::Error::other(format!("{other:?}")),
    }
}

/// A number as it is; words so that they are words; a list with blanks between; nothing where the document has nothing.
fn cell(stream: &Value, path: &str) -> String {
    let found = path.split('.').try_fold(stream, |value, name| value.get(name));
    match found.unwrap_or(&Value::Null) {
        Value::Null => String::new(),
        Value::String(text) => words(text),
        Value::Array(list) => list.iter().map(Value::to_string).collect::<Vec<_>>().join(" "),
        other => other.to_string(),
    }
}

/// Control characters are shown. A spreadsheet takes what begins with one of these signs for a formula, and a peer may have
/// written it: an apostrophe before it makes it text.
fn words(text: &str) -> String {
    let is_formula = text.trim_start().starts_with(['=', '+', '-', '@']);
    format!("{}{}", if is_formula { "'" } else { "" }, printable(text))
}

#[cfg(test)]
mod tests {
    use super::super::contract::testing::{report, stream};
    use super::*;

    #[test]
    fn every_column_is_a_field_of_the_document() {
        let scored = serde_json::to_value(stream()).unwrap();
        let mut unscored = stream();
        (unscored.mos, unscored.mos_absent_because) = (None, Some("no reason".to_owned()));
        let unscored = serde_json::to_value(unscored).unwrap();
        for path in COLUMNS {
            let pointer = format!("/{}", path.replace('.', "/"));
            assert!(scored.pointer(&pointer).or(unscored.pointer(&pointer)).is_some(), "{path}");
        }
    }

    #[test]
    fn what_the_network_named_sends_a_terminal_no_commands() {
        let mut named = stream();
        (named.call_id, named.codec) = (Some("a\x1b]0;x\x07@c".into()), Some("E\u{9b}31m\nX".into()));
        let mut out = Vec::new();
        write(&report(vec![named]), &mut out).unwrap();
        let text = String::from_utf8(out).unwrap();
        assert_eq!(text.lines().count(), 2);
        assert!(text.chars().all(|c| c == '\n' || !c.is_control()), "{text:?}");
    }

    #[test]
    fn what_the_network_named_is_no_formula() {
        for (named, expected) in [
            ("=cmd|' /C calc'!A0", "'=cmd|' /C calc'!A0"),
            ("+1", "'+1"),
            ("-1", "'-1"),
            ("@SUM(A1)", "'@SUM(A1)"),
            (" =1", "' =1"),
            ("\t=1", "'\\t=1"),
            ("\r=1", "'\\r=1"),
            ("a=1", "a=1"),
        ] {
            assert_eq!(cell(&serde_json::json!({ "call_id": named }), "call_id"), expected);
        }
        assert_eq!(
            cell(&serde_json::json!({ "raw": { "lost": -5 } }), "raw.lost"),
            "-5",
            "a number stays one"
        );
    }

    #[test]
    fn a_call_id_with_commas_and_quotes_stays_in_its_cell() {
        let mut named = stream();
        named.call_id = Some("a,\"b\"@c".into());
        let mut out = Vec::new();
        write(&report(vec![named, stream()]), &mut out).unwrap();
        let mut rows = csv::Reader::from_reader(out.as_slice());
        assert_eq!(rows.headers().unwrap(), &csv::StringRecord::from(COLUMNS.to_vec()));
        let rows: Vec<_> = rows.records().map(Result::unwrap).collect();
        assert_eq!(rows.len(), 2);
        let first: Vec<_> = rows[0].iter().take(12).collect();
        assert_eq!(
            first,
            [
                "10.0.0.1:4000",
                "10.0.0.2:5000",
                "0x12345678",
                "0",
                "PCMU",
                "8000",
                "a,\"b\"@c",
                "none",
                "0.0",
                "0.18",
                "10",
                "10"
            ]
        );
    }
}

//! Row against row, and the text that shows where they part.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use serde_json::Value;

use super::figures::{Figure, Key, key};
use super::tshark::Reading;

/// One file by one rule.
#[derive(Debug, Default)]
pub(super) struct FileReport {
    pub(super) equal: usize,
    pub(super) figures: usize,
    pub(super) excused: usize,
    pub(super) differ: usize,
    pub(super) text: String,
}

/// Compares all rows of both sides, and the sum of SIP messages.
pub(super) fn compare(theirs: &Reading, ours: &Value, rule: &str) -> FileReport {
    let mut report = FileReport::default();
    // A stream that was seen inside rpcap or HEP alone has no frame that tshark would count, and is no row.
    let has_row = |stream: &&Value| stream["raw"]["packets"].as_u64().is_some_and(|packets| packets > 0);
    let streams = ours["streams"].as_array().into_iter().flatten().filter(has_row);
    let streams: BTreeMap<Key, &Value> = streams.map(|stream| (key(stream), stream)).collect();
    for (key, row) in &theirs.rows {
        let stream = streams.get(key);
        let differing = differing(row, stream.copied());
        if differing.is_empty() {
            report.equal += 1;
            report.figures += row.len();
        } else {
            report.row(theirs, key, rule, &differing);
        }
    }
    for (key, stream) in streams.iter().filter(|(key, _)| !theirs.rows.contains_key(*key)) {
        let alone = [(Figure::Packets, "-".to_owned(), Figure::Packets.of(stream))];
        report.row(theirs, key, rule, &alone);
    }
    // Frames beyond the first are copies to voxprobe and messages to tshark.
    let sum: u64 = ["messages", "copies"].iter().filter_map(|name| ours["sip"][name].as_u64()).sum();
    if rule == "sdp" && theirs.sip_messages.is_some_and(|messages| messages != sum) {
        let messages = theirs.sip_messages.unwrap_or_default();
        let malformed = ours["sip"]["malformed"].as_u64().unwrap_or_default();
        let _ = writeln!(
            report.text,
            "  SIP messages: tshark {messages}, voxprobe {sum} (and {malformed} malformed)"
        );
    }
    report
}

/// Figures that are not equal, theirs and ours. A row that voxprobe lacks differs in its packets.
fn differing(row: &[(Figure, String)], stream: Option<&Value>) -> Vec<(Figure, String, String)> {
    let Some(stream) = stream else {
        let packets = row.iter().find(|(figure, _)| *figure == Figure::Packets);
        return packets.map(|(figure, text)| (*figure, text.clone(), "-".to_owned())).into_iter().collect();
    };
    row.iter()
        .map(|(figure, text)| (*figure, text.clone(), figure.of(stream)))
        .filter(|(_, theirs, ours)| theirs != ours)
        .collect()
}

impl FileReport {
    fn row(&mut self, theirs: &Reading, key: &Key, rule: &str, differing: &[(Figure, String, String)]) {
        let (src, dst, ssrc) = key;
        let flow = (src.clone(), dst.clone());
        let reason = theirs.other_signalling.get(key).or_else(|| theirs.other_dissector.get(&flow));
        let _ = write!(self.text, "  {rule}: {src} → {dst} {ssrc:#010x}");
        if let Some(reason) = reason {
            self.excused += 1;
            let _ = writeln!(self.text, ": not compared, {reason}");
            return;
        }
        self.differ += 1;
        let _ = writeln!(self.text, "\n    {:<24} {:>20} {:>20}", "differs", "tshark", "voxprobe");
        for (figure, theirs, ours) in differing {
            let _ = writeln!(self.text, "    {:<24} {theirs:>20} {ours:>20}", figure.name());
        }
    }
}

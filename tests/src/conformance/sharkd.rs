//! sharkd, Wireshark's engine behind JSON: what the RTP analysis window shows and tshark's table does not.
//!
//! It reads the file twice, so it can count packets that tshark, in one pass, did not take for RTP yet. Its figures
//! are compared only for rows of which both counted the same. It knows IPv4 alone.

use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result};
use serde_json::{Value, json};

use super::figures::{Figure, Key};
use super::tshark::Reading;

/// Program, and the folder with the heuristics that it has to use.
pub(super) struct Sharkd<'a> {
    pub(super) program: &'a Path,
    pub(super) config: &'a Path,
}

impl Sharkd<'_> {
    /// Adds what it knows of each row.
    pub(super) fn add_to(&self, reading: &mut Reading, file: &Path) -> Result<()> {
        let file = std::path::absolute(file)?;
        let mut requests = vec![
            json!({"jsonrpc": "2.0", "id": 1, "method": "load", "params": {"file": file}}),
            json!({"jsonrpc": "2.0", "id": 2, "method": "tap", "params": {"tap0": "rtp-streams"}}),
        ];
        let keys: Vec<Key> = reading.rows.keys().filter(|(src, ..)| !src.starts_with('[')).cloned().collect();
        for (at, key) in keys.iter().enumerate() {
            requests.push(json!({
                "jsonrpc": "2.0", "id": at + 3, "method": "tap", "params": {"tap0": analysis_of(key)}
            }));
        }
        let lines = requests.iter().map(Value::to_string).collect::<Vec<_>>().join("\n") + "\n";
        let mut child = Command::new(self.program)
            .arg("-")
            .env("WIRESHARK_CONFIG_DIR", self.config)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .context("cannot start sharkd")?;
        // From a thread: it answers while it still reads, and both pipes have an end.
        let mut stdin = child.stdin.take().context("sharkd has no input")?;
        let writer = std::thread::spawn(move || stdin.write_all(lines.as_bytes()));
        let output = child.wait_with_output().context("cannot wait for sharkd")?;
        let _ = writer.join();
        for line in String::from_utf8_lossy(&output.stdout).lines() {
            let Ok(answer) = serde_json::from_str::<Value>(line) else { continue };
            for tap in answer["result"]["taps"].as_array().into_iter().flatten() {
                match tap["type"].as_str() {
                    Some("rtp-streams") => expected(reading, tap),
                    Some("rtp-analyse") => {
                        if let Some(key) = keys.iter().find(|key| tap["tap"] == analysis_of(key).as_str()) {
                            analysis(reading, key, tap);
                        }
                    }
                    _ => {}
                }
            }
        }
        Ok(())
    }
}

fn analysis_of((src, dst, ssrc): &Key) -> String {
    format!("rtp-analyse:{}_{}_{ssrc:#010x}", src.replace(':', "_"), dst.replace(':', "_"))
}

/// Adds figures, if the row is of as many packets.
fn add(
    reading: &mut Reading,
    key: &Key,
    packets: &Value,
    figures: impl IntoIterator<Item = (Figure, String)>,
) {
    let Some(row) = reading.rows.get_mut(key) else { return };
    if row.contains(&(Figure::Packets, packets.to_string())) {
        row.extend(figures);
    }
}

fn expected(reading: &mut Reading, tap: &Value) {
    for stream in tap["streams"].as_array().into_iter().flatten() {
        let endpoint = |address: &str, port: &str| {
            super::figures::endpoint(stream[address].as_str().unwrap_or_default(), &stream[port].to_string())
        };
        let Some(ssrc) = stream["ssrc"].as_u64().and_then(|ssrc| u32::try_from(ssrc).ok()) else { continue };
        let key = (endpoint("saddr", "sport"), endpoint("daddr", "dport"), ssrc);
        let figures = [(Figure::Expected, stream["expectednr"].to_string())];
        add(reading, &key, &stream["totalnr"], figures);
    }
}

fn analysis(reading: &mut Reading, key: &Key, tap: &Value) {
    let float = |name: &str, digits: usize| match tap[name].as_f64() {
        Some(value) => format!("{value:.digits$}"),
        None => tap[name].to_string(),
    };
    let figures = [
        (Figure::SequenceErrors, tap["seq_err"].to_string()),
        (Figure::MaxSkew, float("max_skew", 6)),
        (Figure::MaxDeltaPacket, tap["max_delta_nr"].to_string()),
        (Figure::Duration, float("duration", 3)),
        (Figure::FineMaxDelta, float("max_delta", 6)),
        (Figure::FineMeanJitter, float("mean_jitter", 6)),
        (Figure::FineMaxJitter, float("max_jitter", 6)),
    ];
    add(reading, key, &tap["total_nr"], figures);
}

//! The figures of a row, and how both sides print them.

use std::net::{IpAddr, SocketAddr};

use serde_json::Value;

/// Identity of a row: sender, receiver (`ip:port`, IPv6 in brackets) and SSRC.
pub(super) type Key = (String, String, u32);

/// One figure, named as Wireshark does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Figure {
    Start,
    End,
    Packets,
    Lost,
    LostPercent,
    MinDelta,
    MeanDelta,
    MaxDelta,
    MinJitter,
    MeanJitter,
    MaxJitter,
    Problem,
    Expected,
    SequenceErrors,
    MaxSkew,
    MaxDeltaPacket,
    Duration,
    FineMaxDelta,
    FineMeanJitter,
    FineMaxJitter,
}

impl Figure {
    /// Of `rtp,streams`, from the packets on; the others stand before.
    pub(super) const COLUMNS: [Self; 9] = [
        Self::Packets,
        Self::Lost,
        Self::LostPercent,
        Self::MinDelta,
        Self::MeanDelta,
        Self::MaxDelta,
        Self::MinJitter,
        Self::MeanJitter,
        Self::MaxJitter,
    ];

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Start => "start (s)",
            Self::End => "end (s)",
            Self::Packets => "packets",
            Self::Lost => "lost",
            Self::LostPercent => "lost (%)",
            Self::MinDelta => "min delta (ms)",
            Self::MeanDelta => "mean delta (ms)",
            Self::MaxDelta => "max delta (ms)",
            Self::MinJitter => "min jitter (ms)",
            Self::MeanJitter => "mean jitter (ms)",
            Self::MaxJitter => "max jitter (ms)",
            Self::Problem => "problem",
            Self::Expected => "expected",
            Self::SequenceErrors => "sequence errors",
            Self::MaxSkew => "max skew (ms)",
            Self::MaxDeltaPacket => "packet of max delta",
            Self::Duration => "duration (ms)",
            Self::FineMaxDelta => "max delta (ms), finer",
            Self::FineMeanJitter => "mean jitter (ms), finer",
            Self::FineMaxJitter => "max jitter (ms), finer",
        }
    }

    /// Of one of `streams[]` of voxprobe's JSON, printed as Wireshark prints it.
    pub(super) fn of(self, stream: &Value) -> String {
        let raw = &stream["raw"];
        let float = |value: &Value, digits: usize| match value.as_f64() {
            Some(value) => format!("{value:.digits$}"),
            None => value.to_string(),
        };
        match self {
            Self::Start => seconds(&stream["start_s"]),
            Self::End => seconds(&stream["end_s"]),
            Self::Packets => raw["packets"].to_string(),
            Self::Lost => raw["lost"].to_string(),
            Self::LostPercent => float(&raw["lost_percent"], 1),
            Self::MinDelta => float(&raw["delta_ms"]["min"], 3),
            Self::MeanDelta => float(&raw["delta_ms"]["mean"], 3),
            Self::MaxDelta => float(&raw["delta_ms"]["max"], 3),
            Self::MinJitter => float(&raw["jitter_ms"]["min"], 3),
            Self::MeanJitter => float(&raw["jitter_ms"]["mean"], 3),
            Self::MaxJitter => float(&raw["jitter_ms"]["max"], 3),
            Self::Problem => stream["marked_by_tshark"].to_string(),
            Self::Expected => raw["expected"].to_string(),
            Self::SequenceErrors => raw["sequence_errors"].to_string(),
            Self::MaxSkew => float(&raw["skew_ms"]["max"], 6),
            Self::MaxDeltaPacket => raw["delta_ms"]["max_packet"].to_string(),
            Self::Duration => {
                float(&raw["duration_s"].as_f64().map_or(Value::Null, |s| Value::from(s * 1000.0)), 3)
            }
            Self::FineMaxDelta => float(&raw["delta_ms"]["max"], 6),
            Self::FineMeanJitter => float(&raw["jitter_ms"]["mean"], 6),
            Self::FineMaxJitter => float(&raw["jitter_ms"]["max"], 6),
        }
    }
}

/// The key of one of `streams[]`.
pub(super) fn key(stream: &Value) -> Key {
    let text = |name: &str| stream[name].as_str().unwrap_or_default().to_owned();
    let ssrc = u32::from_str_radix(text("ssrc").trim_start_matches("0x"), 16).unwrap_or_default();
    (text("src"), text("dst"), ssrc)
}

/// `ip:port`, IPv6 in brackets, as voxprobe writes it: of the ways to write an IPv6 address each side has its own.
pub(super) fn endpoint(address: &str, port: &str) -> String {
    match (address.parse::<IpAddr>(), port.parse()) {
        (Ok(address), Ok(port)) => SocketAddr::new(address, port).to_string(),
        _ => format!("{address}:{port}"),
    }
}

/// With six digits. Wireshark adds whole seconds and nanoseconds as floats, which rounds a half in its own way; the
/// JSON's seconds are exact to the nanosecond within a hundred days.
#[expect(clippy::cast_possible_truncation, reason = "nanoseconds of a capture")]
fn seconds(value: &Value) -> String {
    let Some(seconds) = value.as_f64() else { return value.to_string() };
    let ns = (seconds * 1e9).round() as i64;
    format!("{:.6}", (ns / 1_000_000_000) as f64 + (ns % 1_000_000_000) as f64 / 1e9)
}

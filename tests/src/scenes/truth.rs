//! What is true of a scene, in the words of the report.
//!
//! ```json
//! { "messages": 9, "kinds": {"INVITE": 1, "200": 2, …},
//!   "calls":   [{"call_id": "…", "state": "ended", "final_code": null, "ended_by": "caller", "setup_ms": 2350.0, …}],
//!   "streams": [{"src": "10.16.0.11:16384", "dst": …, "ssrc": "0x…", "call_id": "…", "packets": 150}],
//!   "facts":   {"/sip/encrypted/connections": 1} }
//! ```
//!
//! Field names of calls and streams are those of `voxprobe analyze --json`; what stands here must stand there. Times are
//! those at the first tap, in milliseconds. `facts` are JSON pointers into the report. Messages count once, whatever
//! the number of taps; what a timer sent again counts again.

use std::collections::BTreeMap;

use serde::Serialize;
use serde_json::Value;

/// The truth about a scene.
#[derive(Clone, Debug, Default, Serialize)]
pub struct SceneTruth {
    /// SIP messages that the capture holds whole, copies apart.
    pub messages: u64,
    /// Those by method, or by status code.
    pub kinds: BTreeMap<String, u64>,
    /// Calls.
    pub calls: Vec<CallTruth>,
    /// Media streams.
    pub streams: Vec<StreamTruth>,
    /// Anything else in the report, by JSON pointer.
    pub facts: BTreeMap<&'static str, Value>,
    /// Findings that must come out, by id.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub findings: Vec<&'static str>,
    /// Message boundaries are not those of frames: copies are counted in segments, not in messages.
    #[serde(skip)]
    pub is_segmented: bool,
    /// Some of it goes over TCP.
    #[serde(skip)]
    pub has_connections: bool,
}

/// One call. All times in milliseconds; what never happened is null.
#[derive(Clone, Debug, Default, Serialize)]
pub struct CallTruth {
    /// Call-ID header.
    pub call_id: String,
    /// What it came to.
    pub state: &'static str,
    /// Status that refused or cancelled it.
    pub final_code: Option<u16>,
    /// `caller` or `called`.
    pub ended_by: Option<&'static str>,
    /// First INVITE to first 101 to 199: post-dial delay.
    pub ringing_ms: Option<f64>,
    /// First INVITE to first 2xx.
    pub setup_ms: Option<f64>,
    /// First 18x to the answer or failure.
    pub rang_ms: Option<f64>,
    /// First 2xx to BYE.
    pub talked_ms: Option<f64>,
    /// Must be part of the reason that is given.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub disconnect_reason: Option<&'static str>,
    /// Its first INVITE is not in the capture.
    pub seen_from_the_middle: bool,
    /// Messages, copies apart.
    pub messages: u64,
    /// Messages that a timer sent again, by timer.
    pub timers: BTreeMap<&'static str, u64>,
    /// User agents that answered one INVITE, if it was forked.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub forks: Option<u64>,
    /// SDP came before the answer.
    pub early_media: bool,
    /// PRACKs.
    pub prack: u64,
    /// UPDATEs.
    pub updates: u64,
    /// How often somebody was put on hold.
    pub holds: u64,
    /// INVITEs within the call.
    pub reinvites: u64,
    /// 401 and 407.
    pub auth_challenges: u64,
    /// One for each REFER.
    pub transfers: Vec<TransferTruth>,
    /// Other calls that belong to it.
    pub related: Vec<Related>,
    /// What its media suffers from, by id.
    pub media_findings: Vec<&'static str>,
    /// Words of the reason why it has no media; none if it has some.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub media_absent_because: Option<&'static str>,
}

/// A transfer.
#[derive(Clone, Debug, Serialize)]
pub struct TransferTruth {
    /// `blind` or `attended`.
    pub kind: &'static str,
    /// To the REFER.
    pub answer: Option<u16>,
    /// What the last NOTIFY said.
    pub outcome: Option<u16>,
    /// Call-ID that it replaces.
    pub replaces: Option<String>,
    /// Call-ID of the call that it made.
    pub new_call: Option<String>,
}

/// A relation to another call.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Related {
    /// The other one.
    pub call_id: String,
    /// `transfer-target`, `transferred-from`, `replaces`, `replaced-by`, `b2bua-leg`.
    pub relation: &'static str,
}

/// A media stream.
#[derive(Clone, Debug, Serialize)]
pub struct StreamTruth {
    /// Sender.
    pub src: String,
    /// Receiver.
    pub dst: String,
    /// `0x%08x`.
    pub ssrc: String,
    /// Its call.
    pub call_id: Option<String>,
    /// Packets, copies apart.
    pub packets: u64,
    /// Sender reports about it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sender_reports: Option<u64>,
    /// Words of the reason why it has no call.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub call_absent_because: Option<&'static str>,
}

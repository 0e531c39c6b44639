//! What is true of a generated capture: of each frame, of each call and stream, and of the whole.
//!
//! ```json
//! { "plan": {"seed": 7, …}, "taps": ["", "re-emitted", "rpcap"],
//!   "totals": {"frames": 1204, "sip_messages": 17, "sip_copies": 51, "retransmissions": 2, "auth_challenges": 1,
//!              "echoes": 0, "tcp_retransmissions": 0, "copies": 903, "causes": {"re-emitted": 301, "encapsulated": 602}},
//!   "calls":   [{"call_id": "…", "messages": 17, "message_copies": 51, "retransmissions": 2, "auth_challenges": 1,
//!                "transfers": 1}],
//!   "streams": [{"src": "10.16.0.11:16384", "dst": …, "ssrc": "0x…", "call_id": "…", "leg": false,
//!                "packets": 300, "lost": 1, "late": 2, "copies": 900}],
//!   "findings": ["every-frame-copied", …],
//!   "frames": [{"class": "unique"}, {"class": "copy", "of": 1, "cause": "re-emitted"}, …] }
//! ```
//!
//! `frames` is in the order of the file; frame numbers count from 1. Classes:
//! `unique` the first sighting of a SIP, RTP or RTCP packet · `copy` another sighting, with the frame of the first (`of`),
//! its `cause`, and `or`, causes that are as right because several earlier sightings are equally similar ·
//! `retransmission` sent again by a timer of RFC 3261 (`timer`), `of` a frame of an earlier transmission · `echo` sent
//! again because what it answers was · `auth-retry` a request that comes again with credentials · `tcp-retransmission` by TCP · `leg` the first sighting behind a translator, `of` the
//! one before it · `part` of what a later frame (`whole`) completes: a fragment, or a segment · `other` none of these (TCP handshakes, rpcap's own
//! messages). A frame that holds several packets (`holds`) has the class of the first that is no copy, else of
//! the first.
//!
//! Counts: `sip_messages` were sent (copies removed, retransmissions, echoes and legs included); `copies` are
//! sightings beyond the first, of SIP and RTP together; `lost` was never seen by any tap; `late` came after a later one.

use std::collections::BTreeMap;

use serde::Serialize;

use super::scene::Plan;

/// The truth about a capture.
#[derive(Clone, Debug, Serialize)]
pub struct Truth {
    /// What it was made from, if from a plan.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub plan: Option<Plan>,
    /// Taps, the first one nameless.
    pub taps: Vec<String>,
    /// Sums.
    pub totals: Totals,
    /// Calls.
    pub calls: Vec<CallTruth>,
    /// Streams, each leg its own.
    pub streams: Vec<StreamTruth>,
    /// Findings that must come out.
    pub findings: Vec<&'static str>,
    /// Frames in the order of the file.
    pub frames: Vec<FrameTruth>,
}

/// Sums over the capture.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Totals {
    /// Frames in the file.
    pub frames: u64,
    /// SIP messages sent.
    pub sip_messages: u64,
    /// SIP sightings beyond the first.
    pub sip_copies: u64,
    /// Messages sent again by a timer.
    pub retransmissions: u64,
    /// 401 and 407, repeats apart.
    pub auth_challenges: u64,
    /// Messages sent again because what they answer was.
    pub echoes: u64,
    /// Segments that TCP sent again; their copies apart.
    pub tcp_retransmissions: u64,
    /// Sightings beyond the first, SIP and RTP.
    pub copies: u64,
    /// Those by cause.
    pub causes: BTreeMap<&'static str, u64>,
}

/// One call.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct CallTruth {
    /// Call-ID header.
    pub call_id: String,
    /// As in [`Totals`].
    pub messages: u64,
    /// Sightings beyond the first.
    pub message_copies: u64,
    /// As in [`Totals`].
    pub retransmissions: u64,
    /// As in [`Totals`].
    pub auth_challenges: u64,
    /// REFERs that were accepted.
    pub transfers: u64,
}

/// One stream.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct StreamTruth {
    /// Sender.
    pub src: String,
    /// Receiver.
    pub dst: String,
    /// `0x%08x`.
    pub ssrc: String,
    /// Its call, if signalling tells.
    pub call_id: Option<String>,
    /// It is the other side of a translator.
    pub leg: bool,
    /// Packets that some tap saw.
    pub packets: u64,
    /// Packets that none saw, between the first and the last that came.
    pub lost: u64,
    /// Packets first seen after a later one of the stream.
    pub late: u64,
    /// Sightings beyond the first.
    pub copies: u64,
}

/// What a frame is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct FrameTruth {
    /// Its class.
    #[serde(flatten)]
    pub class: Class,
    /// Packets of ours in it, if not one.
    #[serde(skip_serializing_if = "is_one")]
    pub holds: usize,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "what serde hands over")]
fn is_one(holds: &usize) -> bool {
    *holds == 1
}

/// The class of a frame; see the module.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "class", rename_all = "kebab-case")]
#[expect(missing_docs, reason = "the module's list says what they are")]
pub enum Class {
    Unique,
    Copy {
        of: u64,
        cause: &'static str,
        #[serde(rename = "or", skip_serializing_if = "Vec::is_empty")]
        others: Vec<&'static str>,
    },
    Retransmission {
        of: u64,
        timer: &'static str,
    },
    Echo {
        of: u64,
    },
    AuthRetry,
    TcpRetransmission {
        of: u64,
    },
    Leg {
        of: u64,
    },
    Part {
        whole: u64,
    },
    Other,
}

impl Class {
    /// Its name in the truth file.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Unique => "unique",
            Self::Copy { .. } => "copy",
            Self::Retransmission { .. } => "retransmission",
            Self::Echo { .. } => "echo",
            Self::AuthRetry => "auth-retry",
            Self::TcpRetransmission { .. } => "tcp-retransmission",
            Self::Leg { .. } => "leg",
            Self::Part { .. } => "part",
            Self::Other => "other",
        }
    }
}

//! What belongs to a stream and was not found in it: RTCP, keys negotiated beside it, its other legs.
//!
//! Streams live in shards, RTCP and DTLS pass through the receive thread, and legs are only seen when all streams lie
//! side by side. So they meet here, when the report is made.

use rustc_hash::FxHashMap;
use serde::Serialize;

use super::contract::StreamReport;
use crate::packet::{MediaId, Nanos};
use crate::pipeline::receiver::Beside;
use crate::rtcp::report::Joinable;
use crate::rtcp::{self, RtcpTotals, StreamRtcp};
use crate::rtp::StreamKey;
use crate::rtp::codec::Announcement;
use crate::rtp::demux::{Keying, OtherCounts};
use crate::rtp::legs::{self, Leg, Relation, Sketch};
use crate::rtp::stream::StreamParts;

/// What came to media ports and is not RTP.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct BesideReport {
    /// Neither RTP nor RTCP, by kind (RFC 7983).
    pub media_other: OtherCounts,
    /// RTCP datagrams by what became of them.
    pub rtcp: RtcpTotals,
    /// Datagrams of T.38 fax by the line that they came to, or from; shown with their calls.
    #[serde(skip)]
    pub fax: FxHashMap<MediaId, u64>,
}

/// What a stream is joined by; not part of the document.
#[derive(Clone, Debug)]
pub(crate) struct Identity {
    pub(super) key: StreamKey,
    pub(super) first_seen: Nanos,
    pub(super) last_seen: Nanos,
    pub(super) sketch: Sketch,
}

impl Identity {
    pub(super) fn of(parts: &StreamParts) -> Self {
        Self {
            key: parts.key,
            first_seen: parts.first_seen,
            last_seen: parts.last_seen,
            sketch: parts.sketch.clone(),
        }
    }
}

/// One way in which a stream is sent twice on purpose.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct RedundancyReport {
    /// "red" (RFC 2198), "temporal" or "spatial" (RFC 7198), or "st2022-7".
    pub kind: &'static str,
    /// Where that is from.
    pub declared_by: &'static str,
    /// For "temporal": how much later the second copy is announced to come.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub delay_ms: Option<u32>,
}

/// What the signalling declares of a stream with these payload types.
pub(super) fn redundancy(announcement: &Announcement, payload_types: &[u8]) -> Vec<RedundancyReport> {
    let is_red = |number: &u8| {
        announcement.payload(*number).is_some_and(|payload| payload.name.eq_ignore_ascii_case("red"))
    };
    let mut found = Vec::new();
    if payload_types.iter().any(is_red) {
        found.push(RedundancyReport { kind: "red", declared_by: "SDP: a=rtpmap red", delay_ms: None });
    }
    let Some(declared) = &announcement.redundancy else { return found };
    if declared.delay_ms.is_some() {
        let declared_by = "SDP: a=duplication-delay";
        found.push(RedundancyReport { kind: "temporal", declared_by, delay_ms: declared.delay_ms });
    }
    if !declared.ssrcs.is_empty() {
        let declared_by = "SDP: a=ssrc-group:DUP";
        found.push(RedundancyReport { kind: "spatial", declared_by, delay_ms: None });
    }
    if declared.is_grouped {
        let declared_by = "SDP: a=group:DUP";
        found.push(RedundancyReport { kind: "spatial", declared_by, delay_ms: None });
    }
    found
}

/// Joins to each stream what belongs to it. Returns what is said of the capture as a whole.
pub fn join(streams: &mut [StreamReport], beside: &Beside) -> BesideReport {
    for stream in streams.iter_mut() {
        stream.learn_keying(beside.demux.keying(&stream.identity.key.flow));
    }
    let joinable: Vec<_> = streams
        .iter()
        .map(|stream| Joinable {
            key: stream.identity.key,
            clock_rate: stream.clock_rate,
            last_seen: stream.identity.last_seen,
            is_encrypted: stream.encrypted,
        })
        .collect();
    let reports = rtcp::report::join(&beside.rtcp, &joinable);
    let found = {
        let legs: Vec<_> = streams
            .iter()
            .map(|stream| Leg {
                key: stream.identity.key,
                sketch: &stream.identity.sketch,
                packets: stream.unique.packets,
                is_redundant: stream.redundancy.iter().any(|declared| declared.kind == "spatial"),
            })
            .collect();
        legs::find(&legs)
    };
    for ((stream, report), legs) in streams.iter_mut().zip(reports).zip(found) {
        match report {
            Ok(report) => (stream.rtcp, stream.rtcp_absent_because) = (Some(report), None),
            Err(reason) => stream.rtcp_absent_because = Some(reason),
        }
        stream.set_one_way_delay(stream.rtcp.as_ref().and_then(StreamRtcp::one_way_delay));
        let is_known = stream.redundancy.iter().any(|declared| declared.kind == "spatial");
        if !is_known && legs.iter().any(|leg| leg.relation == Relation::Redundant) {
            let declared_by = "the same packets to two multicast groups";
            stream.redundancy.push(RedundancyReport { kind: "st2022-7", declared_by, delay_ms: None });
        }
        stream.legs = legs;
    }
    BesideReport { media_other: *beside.demux.counts(), rtcp: *beside.rtcp.totals(), fax: beside.fax.clone() }
}

impl StreamReport {
    /// Keys were negotiated between its endpoints: then it is encrypted, SDP or none.
    fn learn_keying(&mut self, keying: Option<Keying>) {
        let because = match keying {
            None => return,
            Some(Keying::Dtls) => "DTLS was seen between its endpoints",
            Some(Keying::Zrtp) => "ZRTP was seen between its endpoints",
        };
        self.encrypted = true;
        self.encrypted_because.get_or_insert(because);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rtp::codec::{Payload, Redundancy};

    #[test]
    fn redundancy_is_told_from_what_is_merely_announced() {
        let payload = |number, name: &str| Payload { number, name: name.into(), clock_rate: 8_000 };
        let declared = Redundancy { is_grouped: true, ..Redundancy::default() };
        let announcement = Announcement {
            payloads: vec![payload(8, "PCMA"), payload(121, "RED")],
            redundancy: Some(declared),
            ..Announcement::default()
        };
        let kinds = |types: &[u8]| {
            redundancy(&announcement, types).iter().map(|way| (way.kind, way.declared_by)).collect::<Vec<_>>()
        };
        let grouped = ("spatial", "SDP: a=group:DUP");
        assert_eq!(kinds(&[8]), [grouped]);
        assert_eq!(kinds(&[8, 121]), [("red", "SDP: a=rtpmap red"), grouped]);
    }
}

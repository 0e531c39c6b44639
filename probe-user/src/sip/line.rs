//! One announced media line, as whoever asks for a packet's line gets to know it.

use std::sync::Arc;

use super::ice::Candidate;
use super::sdp::{Codec, Direction, Format, MediaKind, MediaLine, Protocol};
use crate::packet::{Endpoint, Nanos};
use crate::rtp::codec::Redundancy;

/// What one media line announced. It never changes: the same endpoint with other formats is another line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MediaInfo {
    /// Call-ID of the dialog.
    pub call_id: Arc<str>,
    /// What kind of media.
    pub kind: MediaKind,
    /// What is sent there.
    pub protocol: Protocol,
    /// Where it is wanted.
    pub endpoint: Endpoint,
    /// Where RTCP is wanted, if not there.
    pub rtcp: Option<Endpoint>,
    /// Where else it may be wanted: ICE candidates.
    pub candidates: Box<[Candidate]>,
    /// SSRCs that its author announced to send.
    pub ssrcs: Box<[u32]>,
    /// Payload types that the author wants to receive, in order of preference.
    pub formats: Box<[Format]>,
    /// Milliseconds of media in a packet, as wished.
    pub ptime_ms: Option<u16>,
    /// Encrypted.
    pub srtp: bool,
    /// Declared to be sent twice.
    pub redundancy: Option<Redundancy>,
    /// Who sends, in the first announcement.
    pub direction: Direction,
    /// Number of the frame that announced it.
    pub announced_at: u64,
    /// Its time.
    pub announced_time: Nanos,
}

impl MediaInfo {
    /// Of a line with an endpoint.
    pub(super) fn new(
        call_id: &Arc<str>,
        line: &MediaLine,
        endpoint: Endpoint,
        announced_time: Nanos,
        announced_at: u64,
    ) -> Self {
        Self {
            call_id: Arc::clone(call_id),
            kind: line.kind,
            protocol: line.protocol,
            endpoint,
            rtcp: line.rtcp,
            candidates: line.candidates.as_slice().into(),
            ssrcs: line.ssrcs.as_slice().into(),
            formats: line.formats.as_slice().into(),
            ptime_ms: line.ptime_ms,
            srtp: line.srtp,
            redundancy: line.redundancy.clone(),
            direction: line.direction,
            announced_at,
            announced_time,
        }
    }

    /// In the place of one that had to go.
    pub(super) fn nothing() -> Self {
        Self {
            call_id: "".into(),
            kind: MediaKind::Other,
            protocol: Protocol::Other,
            endpoint: Endpoint { address: [0; 16], port: 0 },
            rtcp: None,
            candidates: Box::default(),
            ssrcs: Box::default(),
            formats: Box::default(),
            ptime_ms: None,
            srtp: false,
            redundancy: None,
            direction: Direction::Inactive,
            announced_at: 0,
            announced_time: Nanos::default(),
        }
    }

    /// Is it that?
    pub(super) fn is_nothing(&self) -> bool {
        self.protocol == Protocol::Other
    }

    /// The `a=rtpmap` of a payload type.
    pub fn codec(&self, payload_type: u8) -> Option<&Codec> {
        self.formats.iter().find(|f| f.payload_type == payload_type)?.codec.as_ref()
    }

    /// Is media wanted at `endpoint` by one of its candidates?
    pub fn has_candidate(&self, endpoint: Endpoint) -> bool {
        self.candidates.iter().any(|candidate| candidate.endpoint == endpoint)
    }

    /// Bytes that it takes in memory, as far as they depend on what was announced.
    pub(super) fn held_bytes(&self) -> usize {
        if self.is_nothing() {
            return 0;
        }
        let text = |format: &Format| {
            let name = format.codec.as_ref().map_or(0, |codec| codec.name.len());
            name + format.fmtp.as_ref().map_or(0, |parameters| parameters.len())
        };
        size_of::<Self>()
            + size_of_val(&*self.formats)
            + size_of_val(&*self.candidates)
            + size_of_val(&*self.ssrcs)
            + self.formats.iter().map(text).sum::<usize>()
    }

    /// Does the line announce it again? Who sends may change.
    pub(super) fn is_said_again(&self, call_id: &str, line: &MediaLine) -> bool {
        *self.call_id == *call_id
            && self.rtcp == line.rtcp
            && *self.formats == *line.formats
            && self.srtp == line.srtp
            && self.redundancy == line.redundancy
            && self.kind == line.kind
            && self.protocol == line.protocol
            && *self.candidates == *line.candidates
            && *self.ssrcs == *line.ssrcs
            && self.ptime_ms == line.ptime_ms
    }
}

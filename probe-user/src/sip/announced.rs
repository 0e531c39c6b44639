//! What a call said of its media, in the order in which it did: what its streams are held against at the end.

use std::sync::Arc;

use super::line::MediaInfo;
use super::sdp::{MediaLine, Protocol};
use crate::packet::{Endpoint, MediaId, Nanos};
use crate::rtp::unique::Interruption;

/// Lines remembered of a call: two parties, a few forks or hops, and some ports each.
const MAX_LINES: usize = 64;
/// Agreements remembered of a call. Session refreshes agree on the same again, which is not remembered.
const MAX_AGREEMENTS: usize = 16;

/// How long after an agreement on T.38 audio falls silent, and after the end of it comes back; an agreement is seen when it is
/// answered, which may be after that.
const FAX_NS: std::ops::Range<i64> = -2_000_000_000..5_000_000_000;

/// Who of a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// Who sent the first INVITE; in a call that was found in progress, whoever offered first.
    Caller,
    /// Who was invited.
    Called,
}

impl Side {
    /// In words.
    pub fn name(self) -> &'static str {
        match self {
            Self::Caller => "the caller",
            Self::Called => "the called",
        }
    }

    /// Of two values, this side's.
    pub fn of<T>(self, caller: T, called: T) -> T {
        match self {
            Self::Caller => caller,
            Self::Called => called,
        }
    }

    /// The other one.
    #[must_use]
    pub fn other(self) -> Self {
        self.of(Self::Called, Self::Caller)
    }
}

/// A line with an address, and whose.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CallLine {
    /// Its id in the media table.
    pub id: MediaId,
    /// Who wants to receive there.
    pub side: Side,
    /// What it announced.
    pub info: Arc<MediaInfo>,
    /// When another one took its place, before the end of the call.
    pub ended: Option<Nanos>,
}

/// An offer that was answered (RFC 3264).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Agreement {
    /// When the answer was seen.
    pub time: Nanos,
    /// In which frame.
    pub number: u64,
    /// Both sides want the caller to send RTP.
    pub caller_sends: bool,
    /// Both sides want the called to send RTP.
    pub called_sends: bool,
    /// T.38 instead.
    pub is_fax: bool,
}

/// See the module.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CallMedia {
    /// Lines with an address, in order of their first announcement; the first 64.
    pub lines: Vec<CallLine>,
    /// What was agreed, each time it changed; the first 16.
    pub agreements: Vec<Agreement>,
    /// Descriptions that were read.
    pub descriptions: u32,
    /// Bodies that are encoded, so that nobody here reads them.
    pub encoded: u32,
    /// Media lines with port 0.
    pub refused: u32,
    /// Media lines without an address to send to: on hold by 0.0.0.0, or a name.
    pub without_address: u32,
    /// What there was that is neither RTP nor T.38, the last of it.
    pub other: Option<Protocol>,
    /// Bytes that `lines` hold, for the bound of all calls.
    pub(super) held_bytes: usize,
}

impl CallMedia {
    /// The lines' ids.
    pub fn ids(&self) -> impl Iterator<Item = MediaId> {
        self.lines.iter().map(|line| line.id)
    }

    /// The last of its lines that wants media at an endpoint, or by a candidate or RTCP there.
    pub fn at(&self, endpoint: Endpoint) -> Option<&CallLine> {
        let is_there = |line: &&CallLine| line.info.endpoint == endpoint || line.info.has_candidate(endpoint);
        self.lines.iter().rfind(is_there)
    }

    /// Has it announced fax?
    pub fn has_fax(&self) -> bool {
        self.agreements.iter().any(|agreed| agreed.is_fax)
            || self.lines.iter().any(|line| line.info.protocol == Protocol::Udptl)
    }

    /// Was T.38 agreed when a stream fell silent, and until it came back?
    pub fn is_fax_during(&self, gap: &Interruption) -> bool {
        let is_within = |(at, agreed): (usize, &Agreement)| {
            let ends = self.agreements.get(at + 1).is_none_or(|next| gap.at.since(next.time) <= FAX_NS.end);
            agreed.is_fax && FAX_NS.contains(&gap.began().since(agreed.time)) && ends
        };
        self.agreements.iter().enumerate().any(is_within)
    }

    /// Counts what cannot be in `lines`.
    pub(super) fn count(&mut self, line: &MediaLine) {
        self.refused += u32::from(line.refused);
        if !line.protocol.is_media() {
            self.other = Some(line.protocol);
        } else if !line.refused && line.endpoint.is_none() && line.rides_on.is_none() {
            self.without_address += 1;
        }
    }

    pub(super) fn announce(&mut self, id: MediaId, side: Side, info: Option<Arc<MediaInfo>>) {
        if let Some(known) = self.lines.iter_mut().find(|line| line.id == id) {
            known.ended = None;
        } else if self.lines.len() < MAX_LINES
            && let Some(info) = info
        {
            self.held_bytes += info.held_bytes();
            self.lines.push(CallLine { id, side, info, ended: None });
        }
    }

    pub(super) fn end(&mut self, id: MediaId, time: Nanos) {
        if let Some(line) = self.lines.iter_mut().find(|line| line.id == id) {
            line.ended = Some(time);
        }
    }

    pub(super) fn agree(&mut self, agreed: Agreement) {
        let said = |agreed: &Agreement| (agreed.caller_sends, agreed.called_sends, agreed.is_fax);
        let is_new = self.agreements.last().is_none_or(|before| said(before) != said(&agreed));
        if is_new && self.agreements.len() < MAX_AGREEMENTS {
            self.agreements.push(agreed);
        }
    }
}
